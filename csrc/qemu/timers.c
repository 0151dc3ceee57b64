/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The core's timers: deadlines of the guest's TSC, waited for on the virtual clock.
 *
 * The TSC follows the virtual clock only nearly, so a timer that finds its deadline in the future waits again.
 */
#include "module.h"

#include "qemu/processor.h"
#include "trace.h"

#define LAST_MOMENT 5000 /* ns */
#define LAST_MOMENT_TURNS 10000 /* more than that takes, unless the clock has stopped */

/* Called with the timer's lock held. */
static void wait_for_deadline(struct mshv_timer *timer)
{
    struct mshv_clock *clock = &timer->vp->machine->clock;
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL), wait;
    uint64_t tsc = mshv_clock_read(clock);

    wait = timer->deadline > tsc ? mshv_clock_ticks_to_ns(clock, timer->deadline - tsc) : 0;
    timer_mod_ns(&timer->timer, now + wait);
}

/*
 * The TSC may be a moment behind the virtual clock. Waiting for that moment here is shorter than sleeping again.
 * Returns whether the deadline has come. Called with the timer's lock held.
 */
static bool deadline_has_come(const struct mshv_timer *timer)
{
    struct mshv_clock *clock = &timer->vp->machine->clock;

    for (unsigned turn = 0; turn < LAST_MOMENT_TURNS; turn++) {
        uint64_t tsc = mshv_clock_read(clock);

        if (tsc >= timer->deadline)
            return true;
        if (clock->exact || mshv_clock_ticks_to_ns(clock, timer->deadline - tsc) > LAST_MOMENT)
            return false;
        cpu_relax();
    }
    return false;
}

static void timer_callback(void *opaque)
{
    struct mshv_timer *timer = opaque;
    struct mshv_vp *vp = timer->vp;
    bool due = false;

    qemu_mutex_lock(&timer->lock);
    if (timer->deadline != HV_NANO100_NEVER) {
        due = deadline_has_come(timer);
        if (due)
            timer->deadline = HV_NANO100_NEVER;
        else
            wait_for_deadline(timer);
    }
    qemu_mutex_unlock(&timer->lock);
    if (due) {
        trace_microsoft_hypervisor_timer_expired(vp->handle, timer->index);
        hv_timer_expired(vp->core, timer->index);
    }
}

void mshv_set_timer(void *context, hv_vp_handle vp, unsigned index, uint64_t tsc)
{
    MicrosoftHypervisor *s = context;
    struct mshv_vp *self = mshv_vp(s, vp);
    struct mshv_timer *timer;

    if (!self)
        return; /* a child VP without a processor has set none */
    timer = &self->timers[index];
    trace_microsoft_hypervisor_timer_set(vp, index, tsc);
    qemu_mutex_lock(&timer->lock);
    timer->deadline = tsc;
    if (tsc == HV_NANO100_NEVER)
        timer_del(&timer->timer);
    else
        wait_for_deadline(timer);
    qemu_mutex_unlock(&timer->lock);
}

void mshv_timers_init(struct mshv_vp *vp)
{
    for (unsigned i = 0; i < HV_VP_TIMER_COUNT; i++) {
        struct mshv_timer *timer = &vp->timers[i];

        timer->vp = vp;
        timer->index = i;
        timer->deadline = HV_NANO100_NEVER;
        qemu_mutex_init(&timer->lock);
        timer_init_ns(&timer->timer, QEMU_CLOCK_VIRTUAL, timer_callback, timer);
    }
}

void mshv_timers_rearm(struct mshv_vp *vp)
{
    for (unsigned i = 0; i < HV_VP_TIMER_COUNT; i++) {
        struct mshv_timer *timer = &vp->timers[i];

        qemu_mutex_lock(&timer->lock);
        if (timer->deadline != HV_NANO100_NEVER)
            wait_for_deadline(timer);
        qemu_mutex_unlock(&timer->lock);
    }
}
