/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Locks that are not free. A thread spins for a moment, as nobody holds one for long, and then sleeps in the kernel.
 */
#define _GNU_SOURCE /* syscall() */
#include "locking.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SPINS 100

#ifndef HV_UNCHECKED_LOCKS
_Thread_local int hv_vp_locks_held;
#endif

static void relax(void)
{
#ifdef __x86_64__
    __builtin_ia32_pause();
#endif
}

void hv_lock_wait(struct hv_lock *lock)
{
    for (unsigned i = 0; i < SPINS; i++) {
        int free = 0;

        if (atomic_load_explicit(&lock->state, memory_order_relaxed) == 0 &&
            atomic_compare_exchange_strong_explicit(&lock->state, &free, 1, memory_order_acquire, memory_order_relaxed))
            return;
        relax();
    }
    /* Whoever gets it this way wakes one more when dropping it, as there may be others that sleep. */
    while (atomic_exchange_explicit(&lock->state, 2, memory_order_acquire) != 0)
        syscall(SYS_futex, &lock->state, FUTEX_WAIT_PRIVATE, 2, NULL);
}

void hv_lock_wake(struct hv_lock *lock)
{
    syscall(SYS_futex, &lock->state, FUTEX_WAKE_PRIVATE, 1);
}

/* -- The structure lock -- */

void hv_structure_lock_init(struct hv_structure_lock *lock)
{
    hv_lock_init(&lock->lock);
    atomic_init(&lock->writes, false);
    lock->readers = NULL;
}

void hv_structure_lock_add_reader(struct hv_structure_lock *lock, struct hv_structure_reader *reader)
{
    atomic_init(&reader->reads, false);
    reader->next = lock->readers;
    lock->readers = reader;
}

void hv_structure_lock_read(struct hv_structure_lock *lock)
{
    HV_LOCK_CHECK(hv_vp_locks_held == 0);
    hv_lock_take(&lock->lock);
}

/* New readers stay out from the beginning: else VPs that call without a pause keep a writer from its turn for ever. */
void hv_structure_lock_write(struct hv_structure_lock *lock)
{
    HV_LOCK_CHECK(hv_vp_locks_held == 0);
    hv_lock_take(&lock->lock);
    atomic_store(&lock->writes, true);
    for (struct hv_structure_reader *reader = lock->readers; reader; reader = reader->next) {
        for (unsigned i = 0; atomic_load(&reader->reads); i++) {
            if (i < SPINS)
                relax();
            else
                sched_yield(); /* its thread has lost its host processor; it does not sleep meanwhile */
        }
    }
}

void hv_structure_lock_drop(struct hv_structure_lock *lock)
{
    atomic_store_explicit(&lock->writes, false, memory_order_release);
    hv_lock_drop(&lock->lock);
}

/* Somebody writes: the VP takes its mark back and sets it again when it is his turn, when nobody does. */
void hv_structure_lock_wait(struct hv_structure_lock *lock, struct hv_structure_reader *reader)
{
    hv_structure_lock_leave(reader);
    hv_lock_take(&lock->lock);
    atomic_store_explicit(&reader->reads, true, memory_order_relaxed);
    hv_lock_drop(&lock->lock);
}
