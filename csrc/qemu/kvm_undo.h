/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which instruction KVM executed when it told of an access to memory that is not there.
 *
 * An intercept leaves the instruction unretired (TLFS 9.1), but KVM has changed the registers before it tells of a
 * write. The instruction is found behind them: among those that could end at RIP it is the shortest that writes to this
 * address, with all the prefixes it may have. No QEMU and no core in here.
 */
#ifndef MICROSOFT_HYPERVISOR_KVM_UNDO_H
#define MICROSOFT_HYPERVISOR_KVM_UNDO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MSHV_INSTRUCTION_MOST 15 /* bytes */

struct mshv_undo_state {
    uint64_t gpr[16]; /* in encoding order */
    uint64_t rip;
    uint64_t segment[6]; /* bases, in encoding order: ES CS SS DS FS GS */
    unsigned bits; /* of code: 16, 32, 64 */
    bool wide_stack; /* SS is 32 bits wide; without meaning in 64-bit code */
    bool down; /* RFLAGS.DF */
};

struct mshv_undo_access {
    bool write;
    unsigned size; /* bytes; of one that crosses a page only a part */
    uint64_t value; /* what is written */
    /* Whether this linear address is where the access goes. */
    bool (*is_there)(void *opaque, uint64_t linear);
    /* Bytes of code at CS:`rip`; how many could be read. */
    size_t (*read_code)(void *opaque, uint64_t rip, uint8_t *bytes, size_t size);
    void *opaque;
};

/*
 * Find the instruction, and put `state` back to its start. Returns false, and leaves `state` alone, when none fits.
 * *linear is where it accesses memory.
 */
bool mshv_undo(struct mshv_undo_state *state, const struct mshv_undo_access *access, uint64_t *linear);

/* An instruction that accesses a port. Given: */
struct mshv_undo_io {
    bool write;
    bool retired; /* what is in the registers is as after it, but for a repeated one's RIP */
    unsigned size; /* bytes */
    /* Found: */
    bool string, rep;
    unsigned length;
};
/* The same for I/O; of `code` only read_code() is needed. */
bool mshv_undo_io(struct mshv_undo_state *state, const struct mshv_undo_access *code, struct mshv_undo_io *io);

#endif
