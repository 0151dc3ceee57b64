/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * CPUs. All are started before the first check; CPU i has local APIC ID i and is VP i. CPU 0 runs the checks, the
 * others sleep until they are given a function.
 */
#ifndef GUEST_SMP_H
#define GUEST_SMP_H

#include "interrupts.h"
#include "layout.h"

struct barrier {
    volatile uint32_t arrived, round;
};

struct cpu {
    unsigned index;
    volatile uint32_t online;
    volatile uint32_t busy; /* a function is running or waiting to */
    void (*function)(void *);
    void *argument;
    struct context abort; /* where REQUIRE() and unexpected exceptions go */
    volatile bool abort_armed;
    struct fault *catcher;
    bool x2apic;
    struct barrier *sleeps_in;
    uint64_t gdt[10];
    uint32_t tss[26];
    volatile uint32_t interrupts[256];
    uintptr_t user_stack[256];
};

extern struct cpu cpus[GUEST_MAX_CPUS];
extern uint8_t guest_stacks[];

/* The CPU that runs this: found by its stack. */
static inline struct cpu *this_cpu(void)
{
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    return &cpus[(here - (uintptr_t)guest_stacks) / GUEST_STACK_SIZE];
}

static inline unsigned cpu_index(void)
{
    return this_cpu()->index;
}

unsigned cpu_count(void);

/* Run a function on another CPU, interrupts off; smp_start() does not wait for it. */
void smp_start(unsigned cpu, void (*function)(void *), void *argument);
/* Wait for the function given to `cpu`. False after `microseconds`: then the check should fail. */
bool smp_wait(unsigned cpu, uint64_t microseconds);
/* Both. Runs directly when `cpu` is the caller. The check fails when it takes longer than half a minute. */
void smp_run(unsigned cpu, void (*function)(void *), void *argument);
/* Run on all CPUs at once, the caller included, and wait for all. */
void smp_run_all(void (*function)(void *), void *argument);

/* Wait until `count` CPUs are here. Who waits long halts, and takes interrupts meanwhile. */
void barrier_wait(struct barrier *barrier, unsigned count);

struct spinlock {
    volatile uint32_t taken;
};
void spinlock_lock(struct spinlock *lock);
void spinlock_unlock(struct spinlock *lock);

/*
 * Put another CPU into real mode at GUEST_REAL_MODE_PAGE, run `code` there, and start the CPU afresh. Returns the
 * vector of the exception that the code raised, or -1 when it ran to its end (it is followed by code that says so), or
 * -2 when neither happened within a second.
 */
int smp_run_real_mode(unsigned cpu, const void *code, size_t size);

/* The runtime's own start-up. */
void smp_init(void);
void smp_start_others(void);

#endif
