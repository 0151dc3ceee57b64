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
 */
#ifndef HV_LOCKING_H
#define HV_LOCKING_H

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

struct hv_vp_lock {
    pthread_mutex_t mutex;
};

struct hv_structure_lock {
    pthread_rwlock_t rwlock;
};

struct hv_partition_lock {
    pthread_mutex_t mutex;
};

struct hv_scheduler_lock {
    pthread_mutex_t mutex;
};

struct hv_event_lock {
    pthread_mutex_t mutex;
};

#ifndef NDEBUG
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

static inline void hv_vp_lock_init(struct hv_vp_lock *lock)
{
    if (pthread_mutex_init(&lock->mutex, NULL) != 0)
        abort();
}

static inline void hv_vp_lock_destroy(struct hv_vp_lock *lock)
{
    pthread_mutex_destroy(&lock->mutex);
}

static inline void hv_vp_lock_take(struct hv_vp_lock *lock)
{
    HV_LOCK_CHECK(hv_vp_locks_held == 0);
    pthread_mutex_lock(&lock->mutex);
    HV_LOCK_COUNT(1);
}

static inline void hv_vp_lock_drop(struct hv_vp_lock *lock)
{
    HV_LOCK_COUNT(-1);
    pthread_mutex_unlock(&lock->mutex);
}

static inline void hv_structure_lock_init(struct hv_structure_lock *lock)
{
    pthread_rwlockattr_t attributes;

    if (pthread_rwlockattr_init(&attributes) != 0)
        abort();
#ifdef __GLIBC__
    /* Else VPs that post messages without a pause keep another from ever deleting a partition. */
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
#endif
    if (pthread_rwlock_init(&lock->rwlock, &attributes) != 0)
        abort();
    pthread_rwlockattr_destroy(&attributes);
}

static inline void hv_structure_lock_destroy(struct hv_structure_lock *lock)
{
    pthread_rwlock_destroy(&lock->rwlock);
}

static inline void hv_structure_lock_read(struct hv_structure_lock *lock)
{
    HV_LOCK_CHECK(hv_vp_locks_held == 0);
    pthread_rwlock_rdlock(&lock->rwlock);
}

static inline void hv_structure_lock_write(struct hv_structure_lock *lock)
{
    HV_LOCK_CHECK(hv_vp_locks_held == 0);
    pthread_rwlock_wrlock(&lock->rwlock);
}

static inline void hv_structure_lock_drop(struct hv_structure_lock *lock)
{
    pthread_rwlock_unlock(&lock->rwlock);
}

static inline void hv_partition_lock_init(struct hv_partition_lock *lock)
{
    if (pthread_mutex_init(&lock->mutex, NULL) != 0)
        abort();
}

static inline void hv_partition_lock_destroy(struct hv_partition_lock *lock)
{
    pthread_mutex_destroy(&lock->mutex);
}

static inline void hv_partition_lock_take(struct hv_partition_lock *lock)
{
    HV_LOCK_CHECK(hv_vp_locks_held == 0);
    pthread_mutex_lock(&lock->mutex);
}

static inline void hv_partition_lock_drop(struct hv_partition_lock *lock)
{
    pthread_mutex_unlock(&lock->mutex);
}

struct hv_inject_lock {
    pthread_mutex_t mutex;
};

static inline void hv_inject_lock_init(struct hv_inject_lock *lock)
{
    if (pthread_mutex_init(&lock->mutex, NULL) != 0)
        abort();
}

static inline void hv_inject_lock_destroy(struct hv_inject_lock *lock)
{
    pthread_mutex_destroy(&lock->mutex);
}

static inline void hv_inject_lock_take(struct hv_inject_lock *lock)
{
    pthread_mutex_lock(&lock->mutex);
}

static inline void hv_inject_lock_drop(struct hv_inject_lock *lock)
{
    pthread_mutex_unlock(&lock->mutex);
}

static inline void hv_scheduler_lock_init(struct hv_scheduler_lock *lock)
{
    if (pthread_mutex_init(&lock->mutex, NULL) != 0)
        abort();
}

static inline void hv_scheduler_lock_destroy(struct hv_scheduler_lock *lock)
{
    pthread_mutex_destroy(&lock->mutex);
}

static inline void hv_scheduler_lock_take(struct hv_scheduler_lock *lock)
{
    pthread_mutex_lock(&lock->mutex);
}

static inline void hv_scheduler_lock_drop(struct hv_scheduler_lock *lock)
{
    pthread_mutex_unlock(&lock->mutex);
}

static inline void hv_event_lock_init(struct hv_event_lock *lock)
{
    if (pthread_mutex_init(&lock->mutex, NULL) != 0)
        abort();
}

static inline void hv_event_lock_destroy(struct hv_event_lock *lock)
{
    pthread_mutex_destroy(&lock->mutex);
}

static inline void hv_event_lock_take(struct hv_event_lock *lock)
{
    pthread_mutex_lock(&lock->mutex);
}

static inline void hv_event_lock_drop(struct hv_event_lock *lock)
{
    pthread_mutex_unlock(&lock->mutex);
}

#endif
