/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For how long each VP ran (TLFS 10.3.2): the time its CPU spends in the execution loop, counted in guest TSC ticks.
 */
#include "module.h"

static struct mshv_vp *vp_if_ready(X86Hypervisor *hv, X86CPU *cpu)
{
    MicrosoftHypervisor *s = (MicrosoftHypervisor *)hv;

    return s->core ? mshv_vp_of(s, cpu) : NULL;
}

static void exec_enter(X86Hypervisor *hv, X86CPU *cpu)
{
    struct mshv_vp *vp = vp_if_ready(hv, cpu);

    if (!vp)
        return;
    if (unlikely(vp->cpu != cpu))
        mshv_bind_cpu(vp, cpu); /* plugged in later */
    mshv_second_stage_enter(vp);
    vp->running = true;
    if (!mshv_is_root(vp->machine)) /* else the core's scheduler counts */
        vp->running_since = mshv_clock_read(&vp->machine->clock);
}

static void exec_exit(X86Hypervisor *hv, X86CPU *cpu)
{
    struct mshv_vp *vp = vp_if_ready(hv, cpu);

    if (!vp || !vp->running)
        return;
    vp->running = false;
    if (!mshv_is_root(vp->machine))
        qatomic_set(&vp->run_ticks, vp->run_ticks + mshv_clock_read(&vp->machine->clock) - vp->running_since);
    mshv_child_left(vp);
}

uint64_t mshv_vp_run_time(void *context, hv_vp_handle handle)
{
    MicrosoftHypervisor *s = context;
    const struct mshv_vp *vp = mshv_vp(s, handle);
    uint64_t ticks = qatomic_read(&vp->run_ticks);

    /* Other threads see what was counted when the VP last left the loop. */
    if (vp == mshv_current_vp(s) && vp->running)
        ticks += mshv_clock_read(&s->clock) - vp->running_since;
    return (uint64_t)((unsigned __int128)ticks * 10000000 / s->clock.frequency);
}

void mshv_set_run_time_hooks(X86HypervisorClass *hooks)
{
    hooks->exec_enter = exec_enter;
    hooks->exec_exit = exec_exit;
}
