/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The table of platform operations, and those that belong to no larger matter.
 */
#include "module.h"

#include "hw/core/cpu.h"
#include "system/runstate.h"

#include "qmp.h"

static void read_xmm(void *context, hv_vp_handle vp, uint8_t xmm[96])
{
    MicrosoftHypervisor *s = context;
    const CPUX86State *env = &mshv_vp(s, vp)->cpu->env;

    for (unsigned i = 0; i < 6; i++) {
        stq_le_p(xmm + 16 * i, env->xmm_regs[i].ZMM_Q(0));
        stq_le_p(xmm + 16 * i + 8, env->xmm_regs[i].ZMM_Q(1));
    }
}

/* Leave the processor to others: the host's threads, or, where VPs share one, the next VP. */
static void spin_wait(void *context, hv_vp_handle vp)
{
    MicrosoftHypervisor *s = context;
    struct mshv_vp *self = mshv_vp(s, vp);

    if (s->lps)
        self->yield = true;
    else
        cpu_exit(CPU(self->cpu));
    self->leave = true;
    sched_yield();
}

static void reset(void *context)
{
    qemu_system_reset_request(SHUTDOWN_CAUSE_GUEST_RESET);
}

/* TCG asks at every CPUID. */
static void cpuid_changed(void *context)
{
}

static void trace_hypercall(void *context, hv_vp_handle vp, int row, uint64_t input, uint64_t result)
{
    microsoft_hypervisor_qmp_trace(vp, row, input, result);
}

const struct hv_platform_ops mshv_platform_ops = {
    .read_gpa = mshv_read_gpa,
    .write_gpa = mshv_write_gpa,
    .probe_write = mshv_probe_write,
    .memory_pages = mshv_memory_pages,
    .set_overlay = mshv_set_overlay,
    .allocate_pages = mshv_allocate_pages,
    .free_pages = mshv_free_pages,
    .hypercall_code = mshv_hypercall_code,
    .read_tsc = mshv_read_tsc,
    .sample_tsc = mshv_sample_tsc,
    .set_timer = mshv_set_timer,
    .vp_run_time = mshv_vp_run_time,
    .request_interrupt = mshv_request_interrupt,
    .apic_eoi = mshv_apic_eoi,
    .apic_read_icr = mshv_apic_read_icr,
    .apic_write_icr = mshv_apic_write_icr,
    .apic_read_tpr = mshv_apic_read_tpr,
    .apic_write_tpr = mshv_apic_write_tpr,
    .flush_tlb = mshv_flush_tlb,
    .flush_tlb_ranges = mshv_flush_tlb_ranges,
    .set_cr3 = mshv_set_cr3,
    .create_vp = mshv_create_vp,
    .reset_vp = mshv_reset_vp,
    .start_vp = mshv_start_vp,
    .set_line = mshv_set_line,
    .vp_waits = mshv_vp_waits,
    .kick_vp = mshv_kick_vp,
    .kick_lp = mshv_kick_lp,
    .get_register = mshv_get_register,
    .set_register = mshv_set_register,
    .gprs = mshv_gprs,
    .get_execution = mshv_get_execution,
    .get_activity = mshv_get_activity,
    .set_activity = mshv_set_activity,
    .read_instruction = mshv_read_instruction,
    .translate_gva = mshv_translate_gva,
    .flush_second_stage = mshv_flush_second_stage,
    .admit = mshv_admit,
    .read_xmm = read_xmm,
    .spin_wait = spin_wait,
    .reset = reset,
    .cpuid_changed = cpuid_changed,
    .debug_changed = mshv_debug_changed,
    .crash = mshv_crash,
    .trace_hypercall = trace_hypercall,
};
