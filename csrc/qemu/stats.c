/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Events that TCG deals with by itself, counted for the guest (TLFS appendix J).
 */
#include "module.h"

static const enum hv_stats_index counters[X86_HYPERVISOR_COUNTERS] = {
    [X86_HYPERVISOR_COUNT_INVLPG] = HV_VPV_PageInvalidations,
    [X86_HYPERVISOR_COUNT_CR] = HV_VPV_ControlRegisterAccesses,
    [X86_HYPERVISOR_COUNT_CR3] = HV_VPV_AddressSpaceSwitches,
    [X86_HYPERVISOR_COUNT_IO] = HV_VPV_IoInstructions,
    [X86_HYPERVISOR_COUNT_HLT] = HV_VPV_HltInstructions,
    [X86_HYPERVISOR_COUNT_MWAIT] = HV_VPV_MwaitInstructions,
    [X86_HYPERVISOR_COUNT_CPUID] = HV_VPV_CpuidInstructions,
    [X86_HYPERVISOR_COUNT_MSR] = HV_VPV_MsrAccesses,
    [X86_HYPERVISOR_COUNT_DR] = HV_VPV_DebugRegisterAccesses,
    [X86_HYPERVISOR_COUNT_PAGE_FAULT] = HV_VPV_PageFaultIntercepts,
    [X86_HYPERVISOR_COUNT_TABLE_FILL] = HV_VPV_GuestPageTableMaps,
    [X86_HYPERVISOR_COUNT_LARGE_FILL] = HV_VPV_LargePageTlbFills,
    [X86_HYPERVISOR_COUNT_SMALL_FILL] = HV_VPV_SmallPageTlbFills,
    [X86_HYPERVISOR_COUNT_APIC] = HV_VPV_ApicMmioAccesses,
    [X86_HYPERVISOR_COUNT_EOI] = HV_VPV_ApicEoiAccesses,
    [X86_HYPERVISOR_COUNT_TPR] = HV_VPV_ApicTprAccesses,
    [X86_HYPERVISOR_COUNT_IPI] = HV_VPV_ApicIpisSent,
    [X86_HYPERVISOR_COUNT_SELF_IPI] = HV_VPV_ApicSelfIpisSent,
};

#define COUNTERS_OF_COSTS HV_VPV_GuestPageTableMaps /* those before it come in pairs */

/* What follows from an event and has a counter of its own. */
static void count_more(struct hv_vp *core, X86HypervisorCounter event)
{
    if (event == X86_HYPERVISOR_COUNT_CR3) /* a TLB without tags loses the old address space */
        hv_count(core, HV_VPV_AddressSpaceEvictions);
    else if (event == X86_HYPERVISOR_COUNT_PAGE_FAULT && !(hv_exception_intercepts(core) >> EXCP0E_PAGE & 1))
        hv_count(core, HV_VPV_ReflectedGuestPageFaults);
}

static uint64_t count(X86Hypervisor *hv, X86CPU *cpu, X86HypervisorCounter event)
{
    MicrosoftHypervisor *s = (MicrosoftHypervisor *)hv;
    struct mshv_vp *vp = s->core ? mshv_vp_of(s, cpu) : NULL;

    if (unlikely(!vp))
        return 0; /* firmware has not started yet, or a CPU is being unplugged */
    if (event >= X86_HYPERVISOR_COUNT_IPI) {
        hv_count_shared(vp->core, counters[event]);
        return 0;
    }
    if (event == X86_HYPERVISOR_COUNT_CR3 || event == X86_HYPERVISOR_COUNT_PAGE_FAULT)
        count_more(vp->core, event);
    /* An exact clock stands still while the hypervisor works, and cannot be read in the middle of a block of code. */
    if (counters[event] >= COUNTERS_OF_COSTS || s->clock.exact) {
        hv_count(vp->core, counters[event]);
        return 0;
    }
    return hv_count_begin(vp->core, counters[event]);
}

static void count_end(X86Hypervisor *hv, X86CPU *cpu, X86HypervisorCounter event, uint64_t began)
{
    hv_count_end(mshv_vp_of((MicrosoftHypervisor *)hv, cpu)->core, counters[event], began);
}

void mshv_set_stats_hooks(X86HypervisorClass *hooks)
{
    hooks->count = count;
    hooks->count_end = count_end;
}
