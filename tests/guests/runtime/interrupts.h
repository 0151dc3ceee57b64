/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Interrupts and exceptions.
 *
 * Every vector has a gate. A vector with a handler runs it; an exception without one goes to the innermost CATCH() of
 * the CPU, and with none fails the running check. Checks start with interrupts off.
 */
#ifndef GUEST_INTERRUPTS_H
#define GUEST_INTERRUPTS_H

#include "cpu.h"

#define VECTOR_DE 0
#define VECTOR_DB 1
#define VECTOR_NMI 2
#define VECTOR_BP 3
#define VECTOR_UD 6
#define VECTOR_DF 8
#define VECTOR_GP 13
#define VECTOR_PF 14
#define VECTOR_MC 18

/* Vectors of the runtime's own; everything else from 0x20 on is free for checks. */
#define VECTOR_WAKE 0xFE
#define VECTOR_SPURIOUS 0xFF

/* What lies on the stack in an interrupt handler. */
struct frame {
#ifdef __x86_64__
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
#else
    uint32_t edi, esi, ebp, esp_unused, ebx, edx, ecx, eax;
#endif
    uintptr_t vector, error, ip, cs, flags;
    uintptr_t sp, ss; /* 32-bit: only when the interrupt came from CPL 3 */
};

/* A handler ends its interrupt itself: apic_eoi() (apic.h), or what the check is about. */
typedef void interrupt_handler(struct frame *frame);
/* NULL takes the handler away. For all CPUs. Returns the previous one. */
interrupt_handler *interrupt_set_handler(uint8_t vector, interrupt_handler *handler);
/* `entry` is code that ends with IRET and gets the interrupt without anything of the runtime; NULL: as before. */
void interrupt_set_entry(uint8_t vector, void (*entry)(void));
/* How often the vector came to this CPU since the check began, handled or not. */
unsigned interrupt_count(unsigned cpu, uint8_t vector);
/* Handler that only counts (interrupt_count()) and ends the interrupt by the local APIC. */
interrupt_handler interrupt_handle_eoi;
/* Handler that only counts. */
interrupt_handler interrupt_handle_nothing;
void interrupt_clear_counts(void);

/* setjmp and longjmp, with the flags register. */
struct context {
    uintptr_t registers[9];
};
__attribute__((returns_twice)) int context_save(struct context *context);
_Noreturn void context_restore(const struct context *context);

struct fault {
    bool raised;
    uint8_t vector;
    uint32_t error;
    uintptr_t ip; /* of the instruction that faulted */
    uintptr_t address; /* CR2, meaningful for VECTOR_PF */
    /* The runtime's */
    struct context context;
    struct fault *outer;
};

struct context *fault_arm(struct fault *fault);
void fault_disarm(struct fault *fault);

/*
 * Run the statements; an exception in them ends them and is told in `fault` (a struct fault variable). Local variables
 * that the statements change and later code reads must be volatile, as with setjmp.
 */
#define CATCH(fault, ...)                                                                                              \
    do {                                                                                                               \
        if (!context_save(fault_arm(&(fault)))) {                                                                      \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
        fault_disarm(&(fault));                                                                                        \
    } while (0)

/* Access an MSR and tell the exception it raised, or -1 for none. */
int rdmsr_fault(uint32_t index, uint64_t *value);
int wrmsr_fault(uint32_t index, uint64_t value);

/*
 * Run code at CPL 3 until it raises an exception (its only way back). Registers as the hypercall convention has them:
 * RCX, RDX, R8 in 64-bit, EAX, EDX, EBX, ECX, EDI, ESI in 32-bit code.
 */
struct user_registers {
    uintptr_t value[6];
};
struct fault user_run(uintptr_t ip, const struct user_registers *registers);

/* The runtime's own start-up. */
void interrupts_init(void);
void interrupts_init_cpu(void);

#endif
