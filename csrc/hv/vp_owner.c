/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who may touch a VP's registers: the LP that runs it, or a call that works on them (hv_vp_acquire()); and what keeps a
 * VP from running (TLFS 10.3.1).
 *
 * Why a VP that must stop does. Asking (a suspend bit, or yield_until and a failed hv_vp_acquire()) stores first and
 * loads the owner afterwards; an LP becomes the owner first and loads the suspend bits afterwards, all sequentially
 * consistent. So either the LP sees the bit and backs out, or the other side sees the LP as the owner and kicks the VP.
 * An LP that finds a VP owned by a call sets it OFF under its lock; the call gives up ownership first and takes the
 * lock afterwards, so it sees OFF and queues the VP, or the LP sees that there is no owner.
 */
#include "stats.h"

bool hv_vp_acquire(struct hv_vp *caller, struct hv_vp *vp)
{
    unsigned owner = HV_OWNER_NONE;

    if (vp == caller || atomic_compare_exchange_strong(&vp->owner, &owner, HV_OWNER_HANDLER))
        return true;
    if (owner == HV_OWNER_HANDLER)
        return false; /* another call, which will not be long */
    /* Nobody waits here: the LP lets the VP alone for a slice, by when the caller has asked again. */
    atomic_store(&vp->yield_until, hv_sample_tsc(vp->hv) + vp->hv->slice_length);
    hv_stats_kick_vp(vp);
    return false;
}

void hv_vp_release(struct hv_vp *caller, struct hv_vp *vp)
{
    if (vp == caller)
        return;
    if (atomic_load_explicit(&vp->yield_until, memory_order_relaxed))
        atomic_store_explicit(&vp->yield_until, 0, memory_order_relaxed);
    atomic_store(&vp->owner, HV_OWNER_NONE);
    /* One that is suspended may not run: who clears that wakes it. */
    if (!atomic_load(&vp->suspend))
        hv_scheduler_wake(vp, false);
}

void hv_vp_set_suspend(struct hv_vp *vp, unsigned bits)
{
    unsigned before = atomic_fetch_or(&vp->suspend, bits), owner = atomic_load(&vp->owner);

    if (owner != HV_OWNER_NONE && owner != HV_OWNER_HANDLER)
        hv_stats_kick_vp(vp);
    if (bits & ~before & HV_SUSPEND_EXPLICIT)
        hv_time_vp_suspended(vp);
}

void hv_vp_clear_suspend(struct hv_vp *vp, unsigned bits)
{
    unsigned cleared = atomic_fetch_and(&vp->suspend, ~bits) & bits;

    if (cleared & HV_SUSPEND_EXPLICIT)
        hv_time_vp_resumed(vp);
    if (cleared)
        hv_scheduler_wake(vp, false);
}
