/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Instructions that TCG gives to the hypervisor: CPUID, RDMSR, WRMSR, VMCALL, VMMCALL, RDTSC.
 */
#include "module.h"

#include "exec/cpu-common.h"
#include "hw/core/cpu.h"
#include "trace.h"

struct mshv_vp *mshv_current_vp(MicrosoftHypervisor *s)
{
    return current_cpu && s->by_cpu ? s->by_cpu[current_cpu->cpu_index] : NULL;
}

static void nothing_to_do(CPUState *cs, run_on_cpu_data data)
{
}

void mshv_complete_before_retiring(struct mshv_vp *vp)
{
    if (vp->completing)
        return;
    vp->completing = true;
    vp->leave = true;
    /* Begins when every CPU has left the guest; before they enter it again they do the work they have been given. */
    async_safe_run_on_cpu(CPU(vp->cpu), nothing_to_do, RUN_ON_CPU_NULL);
}

static bool can_yield(enum hv_exit exit)
{
    return exit == HV_EXIT_DONE || exit == HV_EXIT_RETRY || exit == HV_EXIT_IDLE || exit == HV_EXIT_INTERCEPT;
}

X86HypervisorExit mshv_finish_otherwise(struct mshv_vp *vp, enum hv_exit exit)
{
    bool leave = vp->leave, yield = vp->yield;

    vp->leave = vp->completing = vp->yield = false;
    if (unlikely(vp->wake_lps)) {
        vp->wake_lps = false;
        mshv_wake_lps(vp->machine);
    }
    if (yield && !can_yield(exit))
        cpu_exit(CPU(vp->cpu)); /* what the processor does next comes first, but not more than that */
    switch (exit) {
    case HV_EXIT_DONE:
        if (yield)
            return X86_HYPERVISOR_YIELD;
        return leave ? X86_HYPERVISOR_LEAVE : X86_HYPERVISOR_DONE;
    case HV_EXIT_RETRY:
        return yield ? X86_HYPERVISOR_INTERCEPT : X86_HYPERVISOR_RETRY;
    case HV_EXIT_IDLE:
        return X86_HYPERVISOR_IDLE;
    case HV_EXIT_UD:
        return X86_HYPERVISOR_UD;
    case HV_EXIT_GP:
        return X86_HYPERVISOR_GP;
    case HV_EXIT_MC:
        return X86_HYPERVISOR_MC;
    case HV_EXIT_INTERCEPT:
        return X86_HYPERVISOR_INTERCEPT;
    case HV_EXIT_NATIVE:
        return X86_HYPERVISOR_NATIVE;
    }
    g_assert_not_reached();
}

static X86HypervisorExit rdmsr(X86Hypervisor *hv, X86CPU *cpu, uint32_t index, uint64_t *value)
{
    struct mshv_vp *vp = mshv_vp_of((MicrosoftHypervisor *)hv, cpu);
    enum hv_exit exit = hv_read_msr(vp->core, index, value);

    trace_microsoft_hypervisor_rdmsr(vp->handle, index, exit == HV_EXIT_GP ? 0 : *value, exit);
    return mshv_finish(vp, exit);
}

static X86HypervisorExit wrmsr(X86Hypervisor *hv, X86CPU *cpu, uint32_t index, uint64_t value)
{
    struct mshv_vp *vp = mshv_vp_of((MicrosoftHypervisor *)hv, cpu);
    enum hv_exit exit = hv_write_msr(vp->core, index, value);

    trace_microsoft_hypervisor_wrmsr(vp->handle, index, value, exit);
    return mshv_finish(vp, exit);
}

static X86HypervisorExit hypercall(X86Hypervisor *hv, X86CPU *cpu)
{
    struct mshv_vp *vp = mshv_vp_of((MicrosoftHypervisor *)hv, cpu);
    CPUX86State *env = &cpu->env;
    struct hv_call_frame frame = {
        .gpr = (uint64_t *)env->regs,
        .legal = (env->hflags & (HF_PE_MASK | HF_CPL_MASK)) == HF_PE_MASK && !(env->eflags & VM_MASK),
        .long_mode = env->hflags & HF_CS64_MASK,
    };

    return mshv_finish(vp, hv_hypercall(vp->core, &frame));
}

static uint64_t read_tsc(X86Hypervisor *hv, X86CPU *cpu)
{
    MicrosoftHypervisor *s = (MicrosoftHypervisor *)hv;

    if (cpu->env.hypervisor_second_stage)
        return hv_vp_read_tsc(mshv_vp_of(s, cpu)->core);
    return mshv_clock_read(&s->clock);
}

static void cpuid(X86Hypervisor *hv, X86CPU *cpu, uint32_t leaf, uint32_t *eax, uint32_t *ebx, uint32_t *ecx,
                  uint32_t *edx)
{
    MicrosoftHypervisor *s = (MicrosoftHypervisor *)hv;
    struct hv_cpuid out = {0};

    if (s->core)
        hv_cpuid(hv_machine_partition(s->core), leaf, &out);
    *eax = out.eax;
    *ebx = out.ebx;
    *ecx = out.ecx;
    *edx = out.edx;
}

static bool tsc_is_invariant(X86Hypervisor *hv)
{
    MicrosoftHypervisor *s = (MicrosoftHypervisor *)hv;

    return s->core && hv_tsc_is_invariant(hv_machine_partition(s->core));
}

void mshv_set_hooks(X86HypervisorClass *hooks)
{
    hooks->cpuid = cpuid;
    hooks->tsc_is_invariant = tsc_is_invariant;
    hooks->rdmsr = rdmsr;
    hooks->wrmsr = wrmsr;
    hooks->hypercall = hypercall;
    hooks->read_tsc = read_tsc;
    mshv_set_apic_hooks(hooks);
    mshv_set_run_time_hooks(hooks);
    mshv_set_lp_hooks(hooks);
    mshv_set_child_hooks(hooks);
    mshv_set_child_exit_hooks(hooks);
    mshv_set_second_stage_hooks(hooks);
    mshv_set_stats_hooks(hooks);
}
