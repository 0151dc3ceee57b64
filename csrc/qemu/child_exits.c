/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What children do that the core has to know or may intercept (TLFS chapters 9 and 11); CPUID and architectural MSRs of
 * the root too.
 */
#include "module.h"

#include "qapi/error.h"
#include "tcg/helper-tcg.h"
#include "trace.h"

static struct mshv_vp *vp_of(X86Hypervisor *hv, X86CPU *cpu)
{
    return mshv_vp_of((MicrosoftHypervisor *)hv, cpu);
}

static X86HypervisorExit child_io(X86Hypervisor *hv, X86CPU *cpu, X86HypervisorIO *io)
{
    struct mshv_vp *vp = vp_of(hv, cpu);
    struct hv_io_access access = {
        .port = io->port,
        .size = io->size,
        .write = io->write,
        .string = io->string,
        .rep = io->rep,
        .instruction_length = io->insn_len,
        .value = io->value,
    };
    enum hv_exit exit = hv_io(vp->core, &access);

    io->value = access.value;
    return mshv_finish(vp, exit);
}

static X86HypervisorExit any_cpuid(X86Hypervisor *hv, X86CPU *cpu, uint32_t leaf, uint32_t subleaf, uint32_t insn_len,
                                   uint32_t result[4])
{
    struct mshv_vp *vp = vp_of(hv, cpu);
    struct hv_cpuid out = {0};
    enum hv_exit exit;

    if (leaf < HV_CPUID_FIRST || leaf > HV_CPUID_LAST)
        cpu_x86_cpuid(&cpu->env, leaf, subleaf, &out.eax, &out.ebx, &out.ecx, &out.edx);
    exit = hv_child_cpuid(vp->core, leaf, subleaf, (uint8_t)insn_len, &out);
    result[0] = out.eax;
    result[1] = out.ebx;
    result[2] = out.ecx;
    result[3] = out.edx;
    return mshv_finish(vp, exit);
}

static X86HypervisorExit any_rdmsr(X86Hypervisor *hv, X86CPU *cpu, uint32_t index, uint32_t insn_len, uint64_t *value)
{
    struct mshv_vp *vp = vp_of(hv, cpu);

    *value = 0;
    return mshv_finish(vp, hv_child_rdmsr(vp->core, index, (uint8_t)insn_len, value));
}

static X86HypervisorExit any_wrmsr(X86Hypervisor *hv, X86CPU *cpu, uint32_t index, uint32_t insn_len, uint64_t value)
{
    struct mshv_vp *vp = vp_of(hv, cpu);

    return mshv_finish(vp, hv_child_wrmsr(vp->core, index, (uint8_t)insn_len, value));
}

static X86HypervisorExit child_exception(X86Hypervisor *hv, X86CPU *cpu, const X86HypervisorException *e)
{
    struct mshv_vp *vp = vp_of(hv, cpu);
    struct hv_exception exception = {
        .vector = e->vector,
        .error_code_valid = (cpu->env.cr[0] & CR0_PE_MASK) && exception_has_error_code(e->vector),
    };

    if (likely(!(hv_exception_intercepts(vp->core) >> e->vector & 1)))
        return X86_HYPERVISOR_NATIVE;
    if (exception.error_code_valid)
        exception.error_code = e->error_code;
    if (e->vector == EXCP0E_PAGE)
        exception.parameter = e->address;
    else if (e->vector == EXCP01_DB)
        exception.parameter = cpu->env.dr[6];
    return mshv_finish(vp, hv_exception(vp->core, &exception));
}

static void child_shutdown(X86Hypervisor *hv, X86CPU *cpu)
{
    struct mshv_vp *vp = vp_of(hv, cpu);

    mshv_finish(vp, hv_triple_fault(vp->core));
}

/* Told when the VP has left the guest, behind the instruction (TLFS 16.5.6). */
static void child_ferr(X86Hypervisor *hv, X86CPU *cpu)
{
    vp_of(hv, cpu)->ferr = true;
    cpu_exit(CPU(cpu));
}

void mshv_child_left(struct mshv_vp *vp)
{
    if (unlikely(vp->ferr)) {
        vp->ferr = false;
        hv_ferr_asserted(vp->core);
    }
}

void mshv_set_child_exit_hooks(X86HypervisorClass *hooks)
{
    hooks->child_io = child_io;
    hooks->any_cpuid = any_cpuid;
    hooks->any_rdmsr = any_rdmsr;
    hooks->any_wrmsr = any_wrmsr;
    hooks->child_exception = child_exception;
    hooks->child_shutdown = child_shutdown;
    hooks->child_ferr = child_ferr;
}
