/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The timer of a child VP's local APIC: one-shot, periodic, and at a value of the TSC. It counts at the frequency the
 * machine's own APIC timers have; its time is the machine's TSC.
 */
#include "lapic.h"

/* A periodic timer interrupts at most this often, whatever count the guest asked for: 50 us. */
#define INTERVALS_PER_SECOND UINT64_C(20000)

static unsigned mode(const struct hv_lapic *lapic)
{
    return LVT_TIMER_MODE(lapic->lvt[LVT_TIMER]);
}

/* Divide configuration: bits 3, 1 and 0 give the power of two, less one, modulo 8. */
static unsigned divider(const struct hv_lapic *lapic)
{
    unsigned bits = (lapic->divide & 3) | ((lapic->divide >> 1) & 4);

    return 1u << ((bits + 1) & 7);
}

/* TSC ticks that `count` steps of the timer take, rounded up. */
static uint64_t ticks_of(const struct hv_vp *vp, uint64_t count)
{
    const struct hv_config *config = &vp->hv->config;
    unsigned __int128 scaled = (unsigned __int128)(count * divider(vp->lapic)) * config->tsc_frequency;

    return (uint64_t)((scaled + config->apic_frequency - 1) / config->apic_frequency);
}

static uint64_t counts_in(const struct hv_vp *vp, uint64_t ticks)
{
    const struct hv_config *config = &vp->hv->config;

    return (uint64_t)((unsigned __int128)ticks * config->apic_frequency /
                      ((unsigned __int128)config->tsc_frequency * divider(vp->lapic)));
}

static uint64_t elapsed_counts(struct hv_vp *vp)
{
    int64_t ticks = (int64_t)(hv_machine_tsc(vp->hv) - vp->lapic->timer_start); /* which may lie before 0 */

    return ticks > 0 ? counts_in(vp, (uint64_t)ticks) : 0;
}

/* The machine's TSC at which the timer expires next. */
static uint64_t due(const struct hv_vp *vp)
{
    const struct hv_lapic *lapic = vp->lapic;

    if (mode(lapic) == TIMER_DEADLINE) {
        uint64_t now = hv_machine_tsc(vp->hv), its_now = now + vp->tsc_offset;
        uint64_t left = lapic->deadline > its_now ? lapic->deadline - its_now : 0;

        return left < HV_NANO100_NEVER - 1 - now ? now + left : HV_NANO100_NEVER - 1;
    }
    return lapic->timer_start + ticks_of(vp, lapic->initial_count);
}

static void set_platform_timer(struct hv_vp *vp, uint64_t tsc)
{
    vp->hv->ops->set_timer(vp->hv->context, vp->handle, HV_VP_TIMER_APIC, tsc);
}

static void skip_past_periods(struct hv_vp *vp)
{
    struct hv_lapic *lapic = vp->lapic;
    uint64_t periods = elapsed_counts(vp) / lapic->initial_count;

    lapic->timer_start += ticks_of(vp, periods * lapic->initial_count);
}

static void set_next_period(struct hv_vp *vp)
{
    uint64_t earliest = hv_machine_tsc(vp->hv) + vp->hv->config.tsc_frequency / INTERVALS_PER_SECOND, next = due(vp);

    set_platform_timer(vp, next > earliest ? next : earliest);
}

static void fire(struct hv_vp *vp)
{
    struct hv_lapic *lapic = vp->lapic;

    if (mode(lapic) == TIMER_PERIODIC) {
        skip_past_periods(vp); /* one request stands for all that were missed, as the IRR holds no more */
        set_next_period(vp);
    } else {
        lapic->timer_armed = false;
        lapic->deadline = 0;
    }
    hv_lapic_local_interrupt_locked(vp, LVT_TIMER);
}

static bool is_looked_at(const struct hv_lapic *lapic)
{
    return lapic->timer_armed && !(lapic->lvt[LVT_TIMER] & LVT_MASKED);
}

/* Before its registers change: the platform's call may be late, and what is due is not lost. */
static void fire_if_due(struct hv_vp *vp)
{
    if (is_looked_at(vp->lapic) && hv_machine_tsc(vp->hv) >= due(vp))
        fire(vp);
}

/* Masked, the timer counts but need not be looked at. One that is due already expires at once. */
static void rearm(struct hv_vp *vp)
{
    set_platform_timer(vp, is_looked_at(vp->lapic) ? due(vp) : HV_NANO100_NEVER);
}

void hv_lapic_timer_expired(struct hv_vp *vp)
{
    struct hv_lapic *lapic = vp->lapic;

    hv_vp_lock_take(&vp->lock);
    if (vp->partition && lapic && is_looked_at(lapic)) {
        uint64_t when = due(vp);

        if (hv_machine_tsc(vp->hv) < when) {
            set_platform_timer(vp, when);
        } else {
            hv_lapic_collect_locked(vp);
            fire(vp);
            hv_lapic_update_locked(vp, false);
        }
    }
    hv_vp_lock_drop(&vp->lock);
}

void hv_lapic_tsc_changed(struct hv_vp *vp)
{
    hv_vp_lock_take(&vp->lock);
    if (mode(vp->lapic) == TIMER_DEADLINE) {
        hv_lapic_collect_locked(vp);
        fire_if_due(vp);
        rearm(vp);
        hv_lapic_update_locked(vp, false);
    }
    hv_vp_lock_drop(&vp->lock);
}

void hv_lapic_timer_reset_locked(struct hv_vp *vp)
{
    struct hv_lapic *lapic = vp->lapic;

    lapic->initial_count = lapic->divide = 0;
    lapic->deadline = 0;
    lapic->timer_armed = false;
    set_platform_timer(vp, HV_NANO100_NEVER);
}

void hv_lapic_timer_set_count_locked(struct hv_vp *vp, uint32_t count)
{
    struct hv_lapic *lapic = vp->lapic;

    if (mode(lapic) == TIMER_DEADLINE)
        return;
    fire_if_due(vp);
    lapic->initial_count = count;
    lapic->timer_start = hv_machine_tsc(vp->hv);
    lapic->timer_armed = count != 0;
    rearm(vp);
}

uint32_t hv_lapic_timer_count_locked(struct hv_vp *vp)
{
    const struct hv_lapic *lapic = vp->lapic;
    uint64_t elapsed;

    if (!lapic->timer_armed || mode(lapic) == TIMER_DEADLINE)
        return 0;
    elapsed = elapsed_counts(vp);
    if (mode(lapic) == TIMER_PERIODIC)
        elapsed %= lapic->initial_count;
    return elapsed < lapic->initial_count ? (uint32_t)(lapic->initial_count - elapsed) : 0;
}

/* What is left of the count is counted at the new rate. */
void hv_lapic_timer_set_divide_locked(struct hv_vp *vp, uint32_t divide)
{
    struct hv_lapic *lapic = vp->lapic;
    uint32_t left;

    fire_if_due(vp);
    left = hv_lapic_timer_count_locked(vp);
    lapic->divide = divide;
    if (!lapic->timer_armed || mode(lapic) == TIMER_DEADLINE)
        return;
    lapic->timer_start = hv_machine_tsc(vp->hv) - ticks_of(vp, lapic->initial_count - left);
    rearm(vp);
}

void hv_lapic_timer_set_lvt_locked(struct hv_vp *vp, uint32_t lvt)
{
    struct hv_lapic *lapic = vp->lapic;
    bool was_deadline = mode(lapic) == TIMER_DEADLINE;

    fire_if_due(vp);
    if (lapic->timer_armed && mode(lapic) == TIMER_PERIODIC)
        skip_past_periods(vp); /* what expired while masked; a change to one-shot ends with the period that runs */
    else if (lapic->timer_armed && hv_machine_tsc(vp->hv) >= due(vp))
        lapic->timer_armed = false; /* it expired while masked */
    lapic->lvt[LVT_TIMER] = lvt;
    if (was_deadline != (mode(lapic) == TIMER_DEADLINE)) {
        lapic->timer_armed = false;
        lapic->deadline = 0;
        lapic->initial_count = 0;
    }
    rearm(vp);
}

void hv_lapic_timer_set_deadline_locked(struct hv_vp *vp, uint64_t deadline)
{
    struct hv_lapic *lapic = vp->lapic;

    if (mode(lapic) != TIMER_DEADLINE)
        return;
    fire_if_due(vp);
    lapic->deadline = deadline;
    lapic->timer_armed = deadline != 0;
    if (deadline && hv_machine_tsc(vp->hv) >= due(vp)) {
        set_platform_timer(vp, HV_NANO100_NEVER);
        fire(vp);
    } else {
        rearm(vp);
    }
}

void hv_lapic_timer_restored_locked(struct hv_vp *vp)
{
    struct hv_lapic *lapic = vp->lapic;

    if (mode(lapic) == TIMER_DEADLINE ? !lapic->deadline : !lapic->initial_count)
        lapic->timer_armed = false;
    rearm(vp);
}
