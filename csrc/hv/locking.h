/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Locks of the core, and their order.
 *
 *   machine's own lock (QEMU's BQL)  >  partition's port lock  >  a VP's lock
 *
 * A lock may be taken while those before it in the order are held, never the other way round, and at most one VP's
 * lock at a time. The machine's lock is never taken under a core lock: platform functions that need it are called
 * after the core has dropped its locks; interrupts are collected under the VP's lock and requested afterwards
 * (struct hv_interrupts in internal.h). Under a core lock there is no longjmp, no waiting, no exclusive section.
 *
 * The hot path (time, VP index, EOI, TPR, ICR, flushes, IPIs) takes no lock; timer MSRs, SynIC MSRs and messages take
 * the VP's own; HvPostMessage and HvSignalEvent read the port tables under the port lock held for reading.
 */
#ifndef HV_LOCKING_H
#define HV_LOCKING_H

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

struct hv_vp_lock {
    pthread_mutex_t mutex;
};

struct hv_port_lock {
    pthread_rwlock_t rwlock;
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

static inline void hv_port_lock_init(struct hv_port_lock *lock)
{
    if (pthread_rwlock_init(&lock->rwlock, NULL) != 0)
        abort();
}

static inline void hv_port_lock_destroy(struct hv_port_lock *lock)
{
    pthread_rwlock_destroy(&lock->rwlock);
}

static inline void hv_port_lock_read(struct hv_port_lock *lock)
{
    HV_LOCK_CHECK(hv_vp_locks_held == 0);
    pthread_rwlock_rdlock(&lock->rwlock);
}

static inline void hv_port_lock_write(struct hv_port_lock *lock)
{
    HV_LOCK_CHECK(hv_vp_locks_held == 0);
    pthread_rwlock_wrlock(&lock->rwlock);
}

static inline void hv_port_lock_drop(struct hv_port_lock *lock)
{
    pthread_rwlock_unlock(&lock->rwlock);
}

#endif
