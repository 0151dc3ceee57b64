/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Intercepts of children: messages in the calling VP's SINT0 slot, decoded, given to handlers, and completed.
 *
 *     intercept_enable();                                once, on the VP that is to get the messages
 *     struct intercept_handlers handlers = {.io = my_io, .memory = my_memory};
 *     intercept_loop(&handlers, my_context);             until a handler says INTERCEPT_END
 *
 * A handler works on the struct: it changes values there (`io.value` of an IN, `cpuid` registers ...) and returns what
 * is to become of the VP. A kind of intercept without a handler ends the program.
 */
#ifndef ROOT_INTERCEPT_H
#define ROOT_INTERCEPT_H

#include "child.h"
#include "hyperv.h"

enum intercept_action {
    INTERCEPT_DONE, /* the instruction has been done for the VP: go on behind it */
    INTERCEPT_AGAIN, /* run the instruction again */
    INTERCEPT_SUSPENDED, /* leave the VP suspended; intercept_complete() or child_resume() later */
    INTERCEPT_END, /* leave it suspended, and leave the loop */
};

struct intercept {
    struct hv_message message; /* as it came */
    uint64_t partition;
    unsigned vp;
    unsigned length; /* of the instruction; 0: not told */
    union {
        struct {
            uint16_t port;
            uint8_t size; /* bytes */
            bool write, string, repeated;
            uint32_t value; /* written; or, for a handler to set, read: comes as all ones */
        } io;
        struct {
            uint32_t index;
            bool write;
            uint64_t value;
            bool fault; /* set by a handler: #GP instead */
        } msr;
        struct {
            uint32_t leaf, subleaf;
            uint32_t eax, ebx, ecx, edx; /* come as what the hypervisor would answer */
        } cpuid;
        struct {
            uint64_t gpa, gva;
            bool gva_valid, write, execute, mapped; /* mapped: rights are missing, not the page */
            unsigned count;
            uint8_t bytes[16];
        } memory;
        struct {
            unsigned vector;
            bool has_error;
            uint32_t error;
            uint64_t parameter;
        } exception;
    };
};

/* What all messages about an instruction begin with; the others have only the VP's index. */
static inline const struct hv_intercept_header *intercept_header(const struct intercept *intercept)
{
    return (const void *)intercept->message.payload;
}

typedef enum intercept_action intercept_handler(struct intercept *intercept, void *context);

struct intercept_handlers {
    intercept_handler *io, *msr, *cpuid, *memory, *exception;
    intercept_handler *other; /* EOI, triple fault, unsupported feature ...: message.type says */
    /*
     * Called whenever no message waits, with interrupts off, before the VP halts: what an interrupt handler left to do
     * is done here.
     */
    void (*idle)(void *context);
};

/* The calling VP's SynIC on, SINT0 at `vector`. */
void intercept_enable(uint8_t vector);
/* Take the next message, waiting for it (halted); false when there was none within `microseconds` (0: for ever). */
bool intercept_receive(struct intercept *intercept, uint64_t microseconds);
/* Do what a handler's answer says. */
void intercept_complete(struct intercept *intercept, enum intercept_action action);
/* Receive, handle, complete, until a handler ends it; that intercept is left in `last` (NULL: not wanted). */
void intercept_loop(const struct intercept_handlers *handlers, void *context, struct intercept *last);
/* Say in words what the message is, where the VP is and what it has in its registers. */
void intercept_describe(const struct intercept *intercept);

#endif
