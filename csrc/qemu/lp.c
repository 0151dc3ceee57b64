/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Logical processors (TLFS chapters 6 and 18): the thread of the machine's vCPU i is LP i. It executes what the core's
 * scheduler picks, root VP i or a child VP, each of which has a CPU of its own; so a switch from one to another costs
 * neither a flush nor a lock of QEMU's. QEMU's side of it is in accel/tcg: tcg_thread_exec().
 *
 * Kicks come from any thread, under core locks, and so do without the BQL. A thread that goes to sleep holds it from
 * its last look for work until it sleeps; who may have come in between wakes the thread once more with the BQL held:
 * the thread of another LP does so as soon as it holds no core locks, else the main loop does.
 */
#include "module.h"

#include "hw/core/cpu.h"
#include "qemu/main-loop.h"
#include "system/cpus.h"
#include "system/kvm.h"
#include "system/runstate.h"
#include "trace.h"

/* Whether this is the thread of that CPU */
static bool on_thread_of(CPUState *cs)
{
    return current_cpu && qemu_cpu_is_self(cs);
}

/* -- Slices -- */

/* Not every switch sets the timer: it runs on when the time that was set for it is too early, and looks again. */
static void arm(struct mshv_lp *lp, uint64_t slice)
{
    struct mshv_clock *clock = &lp->machine->clock;
    uint64_t now = mshv_clock_read(clock);
    int64_t wait = slice > now ? mshv_clock_ticks_to_ns(clock, slice - now) : 0;

    qatomic_set(&lp->armed_for, slice);
    qatomic_set_mb(&lp->armed, true);
    /* The LP's thread and the timer's may both be here: the earlier time stays. */
    timer_mod_anticipate_ns(&lp->timer, qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) + wait);
}

static void slice_timer(void *opaque)
{
    struct mshv_lp *lp = opaque;
    uint64_t slice;

    qatomic_set_mb(&lp->armed, false);
    slice = qatomic_read(&lp->slice);
    if (slice == HV_NANO100_NEVER)
        return;
    if (mshv_clock_read(&lp->machine->clock) < slice)
        arm(lp, slice);
    else
        qemu_cpu_kick(CPU(lp->cpu));
}

static void set_slice(struct mshv_lp *lp, uint64_t slice)
{
    if (slice == lp->slice)
        return; /* the timer runs on to that time, or has kicked the LP, which will choose again */
    qatomic_set_mb(&lp->slice, slice);
    if (slice != HV_NANO100_NEVER && (!qatomic_read(&lp->armed) || slice < qatomic_read(&lp->armed_for)))
        arm(lp, slice);
}

/* -- Waking threads that sleep -- */

/* BQL held: the LP's thread sleeps, or has not looked for work yet. */
static void wake_again(void *opaque)
{
    struct mshv_lp *lp = opaque;

    if (qatomic_xchg(&lp->wake_again, false))
        qemu_cond_broadcast(CPU(lp->cpu)->halt_cond);
}

void mshv_wake_lps(MicrosoftHypervisor *s)
{
    BQL_LOCK_GUARD();
    for (unsigned i = 0; i < s->vp_count; i++)
        wake_again(&s->lps[i]);
}

/* The kick that came with an interrupt from a device of the machine, or from the core, has brought the LP here. */
static bool is_interrupted(const struct mshv_lp *lp)
{
    CPUState *cs = CPU(lp->cpu);
    int request = qatomic_read(&cs->interrupt_request);

    return request && x86_cpu_pending_interrupt(cs, request);
}

/*
 * -- Polling: a thread that is wanted again soon after it had nothing to run does not sleep at once --
 *
 * Waking a thread takes longer than most parents take to answer an intercept. How long a thread polls grows while that
 * would have sufficed, up to a limit which is also how much of the host's time it can waste at a time, and ends when it
 * has been in vain.
 */
#define POLL_FIRST 10000 /* ns */
#define POLL_MOST 200000

static void adapt_polling(struct mshv_lp *lp)
{
    int64_t idle;

    if (likely(!lp->idle_since))
        return;
    idle = get_clock() - lp->idle_since;
    lp->idle_since = 0;
    if (idle > POLL_MOST)
        lp->poll_for = 0;
    else if (idle > lp->poll_for)
        lp->poll_for = MIN(MAX(lp->poll_for * 2, POLL_FIRST), POLL_MOST);
}

/* Whether the thread may go on polling: nobody else wants it, and its time is not over. */
static bool may_poll(const struct mshv_lp *lp)
{
    return !qatomic_read(&CPU(lp->cpu)->exit_request) && get_clock() - lp->idle_since < lp->poll_for;
}

/* Returns whether the LP is to choose again. */
static bool poll_for_work(struct mshv_lp *lp)
{
    bool wanted = false;

    if (!lp->idle_since)
        lp->idle_since = get_clock();
    if (!lp->poll_for || !qemu_tcg_mttcg_enabled())
        return false;
    qatomic_set_mb(&lp->polls, true);
    while (!wanted && may_poll(lp)) {
        cpu_relax();
        wanted = qatomic_read(&lp->kicked) || is_interrupted(lp);
    }
    qatomic_set_mb(&lp->polls, false);
    return wanted || qatomic_read(&lp->kicked);
}

/* -- What the LP's thread asks (X86HypervisorClass) -- */

static struct mshv_lp *lp_of(X86Hypervisor *hv, X86CPU *carrier)
{
    MicrosoftHypervisor *s = (MicrosoftHypervisor *)hv;

    return &s->lps[mshv_vp_of(s, carrier)->handle];
}

/* -- CPUs that debuggers or the operator stop -- */

static bool is_stopped(const CPUState *cs)
{
    return qatomic_read(&cs->stop) || qatomic_read(&cs->stopped);
}

/* The core asks no more for a child VP that waits: it is told when the VP's CPU goes on (wake_resumed()). */
void mshv_hold(struct mshv_vp *vp)
{
    qatomic_set(&vp->held, true);
    qatomic_set_mb(&vp->machine->any_held, true);
}

static void wake_resumed(MicrosoftHypervisor *s)
{
    if (likely(!qatomic_read(&s->any_held)))
        return;
    qatomic_set_mb(&s->any_held, false);
    for (hv_vp_handle i = s->vp_count; i < HV_MAX_VPS; i++) {
        struct mshv_vp *vp = mshv_vp(s, i);

        if (!vp || !qatomic_read(&vp->held))
            continue;
        if (is_stopped(CPU(vp->cpu))) {
            qatomic_set(&s->any_held, true);
            continue;
        }
        qatomic_set_mb(&vp->held, false);
        hv_vp_wake(vp->core);
    }
}

/* Registers that do not agree show only now, and are for the VP's parent to put right (TLFS 10.1.2). */
static bool can_execute(struct mshv_vp *vp)
{
    if (!vp->child)
        return true;
    if (!mshv_child_prepare(vp))
        return false; /* it was scheduled to take an INIT, and waits for SIPI now */
    if (likely(mshv_registers_agree(vp)))
        return true;
    hv_invalid_vp_state(vp->core);
    return false;
}

static X86CPU *exec_pick(X86Hypervisor *hv, X86CPU *carrier)
{
    struct mshv_lp *lp = lp_of(hv, carrier);
    struct hv_vp *core;
    struct mshv_vp *vp;
    uint64_t slice;

    wake_resumed(lp->machine);
    for (;;) {
        if (qatomic_read(&lp->kicked))
            qatomic_set_mb(&lp->kicked, false);
        core = hv_schedule(lp->machine->core, lp->index, is_interrupted(lp), &slice);
        set_slice(lp, slice);
        if (!core) {
            if (poll_for_work(lp))
                continue;
            return NULL;
        }
        adapt_polling(lp);
        vp = mshv_vp(lp->machine, hv_vp_get_handle(core));
        vp->yield = false;
        if (can_execute(vp))
            return vp->cpu;
    }
}

/* QEMU lets a thread that executes KVM sleep without asking again; its LP is idle from now on (TLFS 6.4.1). */
static void go_idle(struct mshv_lp *lp)
{
    struct hv_vp *core;
    uint64_t slice;

    core = hv_schedule(lp->machine->core, lp->index, is_interrupted(lp), &slice);
    set_slice(lp, slice);
    if (core)
        hv_stopped(core); /* it has just come: the thread will not sleep, and finds it */
}

static void exec_done(X86Hypervisor *hv, X86CPU *carrier, X86CPU *cpu)
{
    struct mshv_vp *vp = mshv_vp_of((MicrosoftHypervisor *)hv, cpu);
    struct mshv_lp *lp = lp_of(hv, carrier);

    hv_stopped(vp->core);
    if (kvm_enabled() && !hv_lp_has_work(lp->machine->core, lp->index))
        go_idle(lp);
}

static bool carried_cpus_are_idle(X86Hypervisor *hv, X86CPU *carrier)
{
    struct mshv_lp *lp = lp_of(hv, carrier);

    wake_resumed(lp->machine);
    /* Who kicks an LP that has nothing may want it to take something over. */
    return !qatomic_read(&lp->kicked) && !hv_lp_has_work(lp->machine->core, lp->index);
}

/* -- What the core asks -- */

static bool root_vp_waits(const struct mshv_vp *vp)
{
    CPUState *cs = CPU(vp->cpu);

    return qatomic_read(&cs->halted) && !cpu_has_work(cs);
}

bool mshv_vp_waits(void *context, hv_vp_handle handle)
{
    struct mshv_vp *vp = mshv_vp(context, handle);

    if (!mshv_cpu_is_there(vp))
        return true;
    if (unlikely(is_stopped(CPU(vp->cpu)))) {
        if (vp->child)
            mshv_hold(vp);
        return true;
    }
    return vp->child ? mshv_child_waits(vp) : root_vp_waits(vp);
}

void mshv_kick_lp(void *context, unsigned index)
{
    MicrosoftHypervisor *s = context;
    struct mshv_lp *lp = &s->lps[index];
    struct mshv_vp *self;
    CPUState *cs;

    if (!lp->cpu)
        return;
    cs = CPU(lp->cpu);
    if (on_thread_of(cs)) {
        self = mshv_current_vp(s);
        self->yield = true; /* at the end of its instruction, unless the thread is about to choose anyway */
        if (hv_vp_get_lp(self->core) != index)
            cpu_exit(current_cpu); /* one thread for all LPs: end this one's turn */
        return;
    }
    qatomic_set_mb(&lp->kicked, true);
    if (qatomic_read(&lp->polls))
        return;
    qemu_cpu_kick(cs);
    if (bql_locked() || qatomic_read(&cs->carried))
        return;
    qatomic_set(&lp->wake_again, true);
    self = mshv_current_vp(s);
    if (self && self->running)
        self->wake_lps = true; /* see mshv_finish() */
    else
        qemu_bh_schedule(lp->wake);
}

void mshv_kick_vp(void *context, hv_vp_handle handle)
{
    struct mshv_vp *vp = mshv_vp(context, handle);

    if (!mshv_cpu_is_there(vp))
        return;
    if (vp == mshv_current_vp(context))
        vp->yield = true;
    else
        mshv_exit_cpu(CPU(vp->cpu));
}

/* -- Set-up -- */

void mshv_lps_restored(MicrosoftHypervisor *s)
{
    for (unsigned i = 0; s->lps && i < s->vp_count; i++) {
        timer_del(&s->lps[i].timer);
        s->lps[i].slice = HV_NANO100_NEVER;
        s->lps[i].armed = false;
    }
}

void mshv_lp_bind(struct mshv_vp *root)
{
    struct mshv_lp *lp = &root->machine->lps[root->handle];

    lp->cpu = root->cpu;
    cpu_set_carrier(CPU(lp->cpu), CPU(lp->cpu));
}

void mshv_lps_init(MicrosoftHypervisor *s)
{
    s->lps = g_new0(struct mshv_lp, s->vp_count);
    for (unsigned i = 0; i < s->vp_count; i++) {
        struct mshv_lp *lp = &s->lps[i];

        lp->machine = s;
        lp->index = i;
        lp->slice = HV_NANO100_NEVER;
        lp->wake = qemu_bh_new(wake_again, lp);
        timer_init_ns(&lp->timer, QEMU_CLOCK_VIRTUAL, slice_timer, lp);
        if (mshv_vp(s, i)->cpu)
            mshv_lp_bind(mshv_vp(s, i));
    }
}

void mshv_set_lp_hooks(X86HypervisorClass *hooks)
{
    hooks->exec_pick = exec_pick;
    hooks->exec_done = exec_done;
    hooks->carried_cpus_are_idle = carried_cpus_are_idle;
}
