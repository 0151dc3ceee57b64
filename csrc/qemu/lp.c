/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Logical processors (TLFS chapters 6 and 18): the thread of the machine's vCPU i is LP i. It executes what the core's
 * scheduler picks, root VP i or a child VP, each of which has a CPU of its own; so a switch from one to another costs
 * neither a flush nor a lock of QEMU's. QEMU's side of it is in accel/tcg: tcg_thread_exec().
 *
 * Kicks come from any thread, under core locks, and so do without the BQL. A thread that goes to sleep holds it from
 * its last look for work until it sleeps; who may have come in between lets the main loop, which takes the BQL, kick
 * the thread once more.
 */
#include "module.h"

#include "hw/core/cpu.h"
#include "qemu/main-loop.h"
#include "system/cpus.h"
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
    qatomic_set_mb(&lp->slice, slice);
    if (slice != HV_NANO100_NEVER && (!qatomic_read(&lp->armed) || slice < qatomic_read(&lp->armed_for)))
        arm(lp, slice);
}

/* -- What the LP's thread asks (X86HypervisorClass) -- */

static struct mshv_lp *lp_of(X86Hypervisor *hv, X86CPU *carrier)
{
    MicrosoftHypervisor *s = (MicrosoftHypervisor *)hv;

    return &s->lps[mshv_vp_of(s, carrier)->handle];
}

/* The kick that came with an interrupt from a device of the machine has brought the LP here: its root VP is to go
 * first. */
static void look_at_devices(struct mshv_lp *lp)
{
    CPUState *cs = CPU(lp->cpu);
    int request = qatomic_read(&cs->interrupt_request);

    if (request && x86_cpu_pending_interrupt(cs, request))
        hv_vp_wake(mshv_vp(lp->machine, lp->index)->core);
}

/* -- CPUs that debuggers or the operator stop -- */

static bool is_stopped(const CPUState *cs)
{
    return qatomic_read(&cs->stop) || qatomic_read(&cs->stopped);
}

/* The core asks no more for a child VP that waits: it is to be told when the VP's CPU goes on. */
static void hold(struct mshv_vp *vp)
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

static X86CPU *exec_pick(X86Hypervisor *hv, X86CPU *carrier)
{
    struct mshv_lp *lp = lp_of(hv, carrier);
    struct hv_vp *core;
    struct mshv_vp *vp;
    uint64_t slice;

    wake_resumed(lp->machine);
    look_at_devices(lp);
    for (;;) {
        core = hv_schedule(lp->machine->core, lp->index, &slice);
        set_slice(lp, slice);
        if (!core)
            return NULL;
        vp = mshv_vp(lp->machine, hv_vp_get_handle(core));
        vp->yield = false;
        if (!vp->child || mshv_child_prepare(vp))
            return vp->cpu;
        hv_stopped(core); /* it was scheduled to take an INIT, and waits for SIPI now */
    }
}

static void exec_done(X86Hypervisor *hv, X86CPU *carrier, X86CPU *cpu)
{
    hv_stopped(mshv_vp_of((MicrosoftHypervisor *)hv, cpu)->core);
}

static bool carried_cpus_are_idle(X86Hypervisor *hv, X86CPU *carrier)
{
    struct mshv_lp *lp = lp_of(hv, carrier);

    wake_resumed(lp->machine);
    return !hv_lp_has_work(lp->machine->core, lp->index);
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
            hold(vp);
        return true;
    }
    return vp->child ? mshv_child_waits(vp) : root_vp_waits(vp);
}

static void wake_again(void *opaque)
{
    struct mshv_lp *lp = opaque;

    qemu_cpu_kick(CPU(lp->cpu));
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
    qemu_cpu_kick(cs);
    if (!bql_locked() && !qatomic_read(&cs->carried))
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
        cpu_exit(CPU(vp->cpu));
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
