/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Locks of the core, and their order.
 *
 *   machine's own lock (QEMU's BQL)  >  structure lock  >  partitions' locks, parent before child  >  a VP's lock
 *     >  an LP's lock (two at once: the lower number first)  >  the event log's lock, that of fault injection's rules
 *
 * A lock may be taken while those before it in the order are held, never the other way round, and at most one VP's
 * lock at a time. The structure lock covers which partitions, VPs, ports and connections exist: the dispatcher takes it
 * as the call's row says (tlfs/hypercalls.def). A partition's lock covers its properties, pool and GPA map. The
 * machine's lock is never taken under a core lock: platform functions that need it are called after the core has
 * dropped its locks; interrupts are collected under the VP's lock and requested afterwards
 * (struct hv_interrupts in internal.h). Under a core lock there is no longjmp, no waiting, no exclusive section.
 *
 * Nobody waits in the core for another thread: a call that has to wait answers HV_STATUS_WAIT, and its instruction is
 * executed again. Whoever reads or writes a VP's registers owns the VP (hv_vp_acquire() in internal.h).
 *
 * The hot path (time, VP index, EOI, TPR, ICR, flushes, IPIs) takes no lock; timer MSRs, SynIC MSRs and messages take
 * the VP's own; HvPostMessage and HvSignalEvent hold the structure lock for reading.
 *
 * A lock that is free costs one atomic instruction to take and one to drop. A VP's call reads under the structure lock
 * by a mark of its own (struct hv_structure_reader), so that readers do not meet; who writes is rare, and looks at all
 * marks.
 */
#ifndef HV_LOCKING_H
#define HV_LOCKING_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* What the locks below are made of: 0 free, 1 held, 2 held and perhaps waited for (locking.c). */
struct hv_lock {
    atomic_int state;
};

struct hv_vp_lock {
    struct hv_lock lock;
};

struct hv_partition_lock {
    struct hv_lock lock;
};

struct hv_scheduler_lock {
    struct hv_lock lock;
};

/* A VP whose thread reads what the structure lock covers; its thread's. */
struct hv_structure_reader {
    atomic_bool reads;
    struct hv_structure_reader *next;
};

struct hv_structure_lock {
    struct hv_lock lock; /* held by the one who writes, or who reads and is no VP */
    atomic_bool writes; /* VPs stay out */
    struct hv_structure_reader *readers; /* those that there are; the lock is held for writing as one is added */
};

struct hv_event_lock {
    struct hv_lock lock;
};

/* Release builds of QEMU's module do without: they would be a part of what an intercept costs. */
#ifndef HV_UNCHECKED_LOCKS
/* Whether this thread holds a VP's lock: the innermost one, so nothing may be locked inside. */
extern _Thread_local int hv_vp_locks_held;
#define HV_LOCK_CHECK(condition) assert(condition)
#define HV_LOCK_COUNT(change) (hv_vp_locks_held += (change))
#else
#define HV_LOCK_CHECK(condition) ((void)0)
#define HV_LOCK_COUNT(change) ((void)0)
#endif

/* To be called before a platform function that may take the machine's own lock. */
#define HV_ASSERT_NO_VP_LOCK() HV_LOCK_CHECK(hv_vp_locks_held == 0)

void hv_lock_wait(struct hv_lock *lock); /* take it, when it is not free */
void hv_lock_wake(struct hv_lock *lock); /* who waits for it, after it was dropped */

static inline void hv_lock_init(struct hv_lock *lock)
{
    atomic_init(&lock->state, 0);
}

static inline void hv_lock_take(struct hv_lock *lock)
{
    int free = 0;

    if (!atomic_compare_exchange_strong_explicit(&lock->state, &free, 1, memory_order_acquire, memory_order_relaxed))
        hv_lock_wait(lock);
}

static inline void hv_lock_drop(struct hv_lock *lock)
{
    if (atomic_exchange_explicit(&lock->state, 0, memory_order_release) == 2)
        hv_lock_wake(lock);
}

static inline void hv_vp_lock_init(struct hv_vp_lock *lock)
{
    hv_lock_init(&lock->lock);
}

static inline void hv_vp_lock_take(struct hv_vp_lock *lock)
{
    HV_LOCK_CHECK(hv_vp_locks_held == 0);
    hv_lock_take(&lock->lock);
    HV_LOCK_COUNT(1);
}

static inline void hv_vp_lock_drop(struct hv_vp_lock *lock)
{
    HV_LOCK_COUNT(-1);
    hv_lock_drop(&lock->lock);
}

void hv_structure_lock_init(struct hv_structure_lock *lock);
/* For good; the lock is held for writing, or nobody else knows it. */
void hv_structure_lock_add_reader(struct hv_structure_lock *lock, struct hv_structure_reader *reader);

/* For threads that are no VP's, and for what is rare */
void hv_structure_lock_read(struct hv_structure_lock *lock);
void hv_structure_lock_write(struct hv_structure_lock *lock);
void hv_structure_lock_drop(struct hv_structure_lock *lock);

void hv_structure_lock_wait(struct hv_structure_lock *lock, struct hv_structure_reader *reader);

/* For a VP's thread. Either it sees that somebody writes, or who writes sees the mark and waits until it goes. */
static inline void hv_structure_lock_enter(struct hv_structure_lock *lock, struct hv_structure_reader *reader)
{
    HV_LOCK_CHECK(hv_vp_locks_held == 0);
    atomic_store(&reader->reads, true);
    if (atomic_load(&lock->writes))
        hv_structure_lock_wait(lock, reader);
}

static inline void hv_structure_lock_leave(struct hv_structure_reader *reader)
{
    atomic_store_explicit(&reader->reads, false, memory_order_release);
}

static inline void hv_partition_lock_init(struct hv_partition_lock *lock)
{
    hv_lock_init(&lock->lock);
}

static inline void hv_partition_lock_take(struct hv_partition_lock *lock)
{
    HV_LOCK_CHECK(hv_vp_locks_held == 0);
    hv_lock_take(&lock->lock);
}

static inline void hv_partition_lock_drop(struct hv_partition_lock *lock)
{
    hv_lock_drop(&lock->lock);
}

struct hv_inject_lock {
    struct hv_lock lock;
};

static inline void hv_inject_lock_init(struct hv_inject_lock *lock)
{
    hv_lock_init(&lock->lock);
}

static inline void hv_inject_lock_take(struct hv_inject_lock *lock)
{
    hv_lock_take(&lock->lock);
}

static inline void hv_inject_lock_drop(struct hv_inject_lock *lock)
{
    hv_lock_drop(&lock->lock);
}

static inline void hv_scheduler_lock_init(struct hv_scheduler_lock *lock)
{
    hv_lock_init(&lock->lock);
}

static inline void hv_scheduler_lock_take(struct hv_scheduler_lock *lock)
{
    hv_lock_take(&lock->lock);
}

static inline void hv_scheduler_lock_drop(struct hv_scheduler_lock *lock)
{
    hv_lock_drop(&lock->lock);
}

static inline void hv_event_lock_init(struct hv_event_lock *lock)
{
    hv_lock_init(&lock->lock);
}

static inline void hv_event_lock_take(struct hv_event_lock *lock)
{
    hv_lock_take(&lock->lock);
}

static inline void hv_event_lock_drop(struct hv_event_lock *lock)
{
    hv_lock_drop(&lock->lock);
}

#endif
