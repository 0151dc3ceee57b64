/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The local APIC between QEMU and the core (TLFS chapter 13). QEMU's APIC is protected by the BQL.
 */
#include "module.h"

#include "hw/core/cpu.h"
#include "hw/i386/apic.h"
#include "hw/i386/apic_internal.h"
#include "qemu/main-loop.h"

/* NULL when there is no such CPU yet, or it has no APIC. */
static DeviceState *apic_of(void *context, hv_vp_handle vp)
{
    MicrosoftHypervisor *s = context;
    X86CPU *cpu = mshv_vp(s, vp)->cpu;

    return cpu ? cpu->apic_state : NULL;
}

/* Only the CPU's own thread takes a request back, so there is nothing to do for one that this thread finds there. */
static bool is_requested(MicrosoftHypervisor *s, hv_vp_handle vp, uint8_t vector)
{
    const X86CPU *cpu = mshv_vp(s, vp)->cpu;
    const APICCommonState *apic = (const APICCommonState *)cpu->apic_state;

    return current_cpu && qemu_cpu_is_self(CPU(cpu)) && (qatomic_read(&apic->irr[vector / 32]) >> vector % 32 & 1);
}

void mshv_request_interrupt(void *context, hv_vp_handle vp, uint8_t vector)
{
    DeviceState *apic = apic_of(context, vp);

    if (!apic || is_requested(context, vp, vector))
        return;
    BQL_LOCK_GUARD();
    apic_hypervisor_request(apic, vector);
}

void mshv_apic_eoi(void *context, hv_vp_handle vp, uint32_t value)
{
    DeviceState *apic = apic_of(context, vp);

    if (!apic)
        return;
    BQL_LOCK_GUARD();
    apic_hypervisor_eoi(apic);
}

uint64_t mshv_apic_read_icr(void *context, hv_vp_handle vp)
{
    DeviceState *apic = apic_of(context, vp);

    if (!apic)
        return 0;
    BQL_LOCK_GUARD();
    return apic_hypervisor_read_icr(apic);
}

void mshv_apic_write_icr(void *context, hv_vp_handle vp, uint64_t value)
{
    DeviceState *apic = apic_of(context, vp);

    if (!apic)
        return;
    BQL_LOCK_GUARD();
    apic_hypervisor_write_icr(apic, value);
}

uint8_t mshv_apic_read_tpr(void *context, hv_vp_handle vp)
{
    DeviceState *apic = apic_of(context, vp);

    if (!apic)
        return 0;
    BQL_LOCK_GUARD();
    return apic_hypervisor_read_tpr(apic);
}

void mshv_apic_write_tpr(void *context, hv_vp_handle vp, uint8_t value)
{
    DeviceState *apic = apic_of(context, vp);

    if (!apic)
        return;
    BQL_LOCK_GUARD();
    apic_hypervisor_write_tpr(apic, value);
}

/* -- What the APIC tells; the object may exist before its core does -- */

static struct hv_vp *core_of(X86Hypervisor *hv, X86CPU *cpu)
{
    MicrosoftHypervisor *s = (MicrosoftHypervisor *)hv;

    return s->core ? mshv_vp_of(s, cpu)->core : NULL;
}

static bool interrupt_accepted(X86Hypervisor *hv, X86CPU *cpu, uint8_t vector, bool quiet)
{
    struct hv_vp *core = core_of(hv, cpu);

    return core && hv_interrupt_accepted(core, vector, quiet) == HV_ACCEPT_AUTO_EOI;
}

static void interrupt_ended(X86Hypervisor *hv, X86CPU *cpu, uint8_t vector)
{
    struct hv_vp *core = core_of(hv, cpu);

    if (core)
        hv_interrupt_ended(core, vector);
}

static int collect_assist(X86Hypervisor *hv, X86CPU *cpu)
{
    struct hv_vp *core = core_of(hv, cpu);

    return core ? hv_apic_assist_collect(core) : -1;
}

static int revoke_assist(X86Hypervisor *hv, X86CPU *cpu)
{
    struct hv_vp *core = core_of(hv, cpu);

    return core ? hv_apic_assist_revoke(core) : -1;
}

void mshv_set_apic_hooks(X86HypervisorClass *hooks)
{
    hooks->interrupt_accepted = interrupt_accepted;
    hooks->interrupt_ended = interrupt_ended;
    hooks->collect_assist = collect_assist;
    hooks->revoke_assist = revoke_assist;
}
