/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Counting (TLFS 21, appendix J). A counter lives in the page that is shown to guests, so a reader sees it at once; an
 * event is one addition. Who owns what it belongs to adds without a lock or a locked instruction: a VP's thread, an
 * LP under its lock. HV_COUNT_SHARED() is for counters that any thread may add to.
 *
 * Times are brought up to date when a page is mapped, and every HV_STATS_PERIOD while it is (stats.c).
 *
 * A core compiled with HV_NO_COUNTERS counts nothing: what counting costs is measured against that.
 */
#ifndef HV_STATS_H
#define HV_STATS_H

#include "internal.h"

#ifdef HV_NO_COUNTERS
#define HV_COUNTING 0
#else
#define HV_COUNTING 1
#endif

/* One in so many events of a kind is timed: reading the clock takes as long as a short hypercall. */
#define HV_COST_SAMPLE 128u

static inline void hv_counter_set(uint64_t *counter, uint64_t value)
{
    if (HV_COUNTING)
        __atomic_store_n(counter, value, __ATOMIC_RELAXED);
}

/* Where the host can add to memory in one instruction, two fewer than by the compiler's idea of an atomic store. */
static inline void hv_counter_add(uint64_t *counter, uint64_t n)
{
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    if (HV_COUNTING)
        __asm__("addq %1, %0" : "+m"(*counter) : "er"(n) : "cc");
#else
    hv_counter_set(counter, *counter + n);
#endif
}

static inline void hv_counter_add_shared(uint64_t *counter, uint64_t n)
{
    if (HV_COUNTING)
        __atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

/* Which group a counter is in follows from the object: the first, or the release-specific one. */
#define HV_COUNT(vp, name) HV_COUNT_ADD(vp, name, 1)
#define HV_COUNT_ADD(vp, name, n) hv_counter_add(&(vp)->stats.release[HV_VPV_##name], n)
#define HV_COUNT_SHARED(vp, name) hv_counter_add_shared(&(vp)->stats.release[HV_VPV_##name], 1)
#define HV_COUNT_LP(lp, name) hv_counter_add(&(lp)->stats.page[HV_LPA_##name], 1)
#define HV_COUNT_LP_SHARED(lp, name) hv_counter_add_shared(&(lp)->stats.page[HV_LPA_##name], 1)
#define HV_COUNT_PARTITION(partition, name, n)                                                                         \
    hv_counter_add_shared(&(partition)->stats.release[HV_PV_##name], (uint64_t)(n))

/*
 * Time spent on an event: begin before it is counted, end after. What begin answers is 0 for an event that is not
 * timed.
 */
static inline bool hv_cost_is_due(const struct hv_vp *vp, enum hv_stats_index counter)
{
    return HV_COUNTING && __builtin_expect(vp->stats.release[counter] % HV_COST_SAMPLE == 0, 0);
}
static inline uint64_t hv_cost_begin(const struct hv_vp *vp, enum hv_stats_index counter)
{
    return hv_cost_is_due(vp, counter) ? hv_sample_tsc(vp->hv) + 1 : 0;
}
/* The same, and the event is counted. */
static inline uint64_t hv_event_begin(struct hv_vp *vp, enum hv_stats_index counter)
{
    uint64_t began = hv_cost_begin(vp, counter);

    hv_counter_add(&vp->stats.release[counter], 1);
    return began;
}
void hv_cost_sample(struct hv_vp *vp, enum hv_stats_index counter, uint64_t began);
static inline void hv_cost_end(struct hv_vp *vp, enum hv_stats_index counter, uint64_t began)
{
    if (HV_COUNTING && began)
        hv_cost_sample(vp, counter, began);
}

/* The hypervisor requests an interrupt: it is not one of the machine's devices (struct hv_vp, `raised`). */
static inline void hv_stats_raised(_Atomic uint64_t vectors[4], uint8_t vector)
{
    uint64_t bit = UINT64_C(1) << (vector % 64);

    if (HV_COUNTING && !(atomic_load_explicit(&vectors[vector / 64], memory_order_relaxed) & bit))
        atomic_fetch_or_explicit(&vectors[vector / 64], bit, memory_order_relaxed);
}
/* A VP accepted an interrupt. */
void hv_stats_accepted(struct hv_vp *vp, uint8_t vector);
/* The LP is told something by whoever runs on this thread. */
void hv_stats_ipi(struct hv *hv, unsigned to);
/* Make another VP, which runs, leave the guest. */
static inline void hv_stats_kick_vp(struct hv_vp *vp)
{
    if (vp->hv->lps)
        hv_stats_ipi(vp->hv, hv_vp_get_lp(vp));
    vp->hv->ops->kick_vp(vp->hv->context, vp->handle);
}

#endif
