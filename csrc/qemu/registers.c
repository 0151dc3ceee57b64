/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Architectural registers of a VP by name (TLFS 10.2, 10.3): those of registers.def that the platform keeps.
 *
 * The VP does not run, or it is the caller's and executes an instruction that has become the hypervisor's; then QEMU
 * keeps its flags in pieces. What the TLB or translated code depends on is brought up to date.
 */
#include "module.h"

#include "exec/cputlb.h"
#include "fpu/softfloat.h"
#include "hw/core/cpu.h"
#include "system/tcg.h"
#include "tcg/helper-tcg.h"

/* -- Flags, RIP and interruptions -- */

static uint64_t get_rflags(const struct mshv_vp *vp)
{
    CPUX86State *env = &vp->cpu->env;

    return (vp->running && tcg_enabled() ? cpu_compute_eflags(env) : env->eflags) | 2;
}

static bool set_rflags(struct mshv_vp *vp, uint64_t value)
{
    CPUX86State *env = &vp->cpu->env;

    if (vp->running && tcg_enabled())
        cpu_load_eflags(env, (int)value, (int)~(CC_O | CC_S | CC_Z | CC_A | CC_P | CC_C | DF_MASK));
    else
        env->eflags = value | 2;
    x86_update_hflags(env);
    return true;
}

/* Whoever moves RIP has completed an instruction, which ends the shadow of the one before. */
static bool set_rip(CPUX86State *env, uint64_t value)
{
    if (env->eip != value)
        env->hflags &= ~HF_INHIBIT_IRQ_MASK;
    env->eip = value;
    return true;
}

/* HV_X64_PENDING_INTERRUPTION_REGISTER (TLFS 10.3.4) */
#define INTERRUPTION_PENDING UINT64_C(1)
#define INTERRUPTION_TYPE_SHIFT 1
#define INTERRUPTION_TYPE_MASK 7u
#define INTERRUPTION_ERROR_CODE (UINT64_C(1) << 4)
#define INTERRUPTION_VECTOR_SHIFT 16
#define INTERRUPTION_CODE_SHIFT 32
enum { TYPE_INTERRUPT = 0, TYPE_NMI = 2, TYPE_EXCEPTION = 3 };

static uint64_t get_pending_interruption(const CPUX86State *env)
{
    const X86HypervisorEvent *event = &env->hypervisor_event;
    uint64_t type = TYPE_EXCEPTION, value;

    if (!event->valid)
        return 0;
    if (event->is_hw)
        type = event->vector == EXCP02_NMI ? TYPE_NMI : TYPE_INTERRUPT;
    value =
        INTERRUPTION_PENDING | type << INTERRUPTION_TYPE_SHIFT | (uint64_t)event->vector << INTERRUPTION_VECTOR_SHIFT;
    if (type == TYPE_EXCEPTION && (env->cr[0] & CR0_PE_MASK) && exception_has_error_code(event->vector))
        value |= INTERRUPTION_ERROR_CODE | (uint64_t)event->error_code << INTERRUPTION_CODE_SHIFT;
    return value;
}

/* An event wakes a processor that is halted. */
static bool set_pending_interruption(CPUX86State *env, uint64_t value)
{
    env->hypervisor_event = (X86HypervisorEvent){
        .valid = value & INTERRUPTION_PENDING,
        .is_hw = (value >> INTERRUPTION_TYPE_SHIFT & INTERRUPTION_TYPE_MASK) != TYPE_EXCEPTION,
        .vector = (uint8_t)(value >> INTERRUPTION_VECTOR_SHIFT),
        .error_code = (uint32_t)(value >> INTERRUPTION_CODE_SHIFT),
    };
    if (env->hypervisor_event.valid) {
        env->hypervisor_idle = false;
        env_cpu(env)->halted = 0;
    }
    return true;
}

/* HV_X64_INTERRUPT_STATE_REGISTER (TLFS 10.3.3) */
#define INTERRUPT_SHADOW UINT64_C(1)
#define NMI_MASKED UINT64_C(2)

static uint64_t get_interrupt_state(const CPUX86State *env)
{
    return (env->hflags & HF_INHIBIT_IRQ_MASK ? INTERRUPT_SHADOW : 0) | (env->hflags2 & HF2_NMI_MASK ? NMI_MASKED : 0);
}

static bool set_interrupt_state(CPUX86State *env, uint64_t value)
{
    env->hflags &= ~HF_INHIBIT_IRQ_MASK;
    env->hflags2 &= ~HF2_NMI_MASK;
    if (value & INTERRUPT_SHADOW)
        env->hflags |= HF_INHIBIT_IRQ_MASK;
    if (value & NMI_MASKED)
        env->hflags2 |= HF2_NMI_MASK;
    return true;
}

/* -- Control and debug registers -- */

static bool is_canonical(const CPUX86State *env, uint64_t address)
{
    int bits = env->features[FEAT_7_0_ECX] & CPUID_7_0_ECX_LA57 ? 57 : 48;

    return sextract64(address, 0, bits) == (int64_t)address;
}

/* Long mode is active when it is enabled and paging is on, in whichever order a parent sets the two. */
static void update_mode(struct mshv_vp *vp)
{
    CPUX86State *env = &vp->cpu->env;

    if ((env->efer & MSR_EFER_LME) && (env->cr[0] & CR0_PG_MASK))
        env->efer |= MSR_EFER_LMA;
    else
        env->efer &= ~(uint64_t)MSR_EFER_LMA;
    x86_update_hflags(env);
    cpu_sync_bndcs_hflags(env);
    cpu_sync_avx_hflag(env);
    mshv_flush_before_running(vp);
}

static bool set_cr0(struct mshv_vp *vp, uint64_t value)
{
    if (((value & CR0_PG_MASK) && !(value & CR0_PE_MASK)) || ((value & CR0_NW_MASK) && !(value & CR0_CD_MASK)))
        return false;
    vp->cpu->env.cr[0] = value | CR0_ET_MASK;
    update_mode(vp);
    return true;
}

static bool set_cr3(struct mshv_vp *vp, uint64_t value)
{
    CPUX86State *env = &vp->cpu->env;

    if (value >> vp->cpu->phys_bits)
        return false;
    env->cr[3] = value;
    mshv_flush_before_running(vp);
    return true;
}

static bool set_cr4(struct mshv_vp *vp, uint64_t value)
{
    CPUX86State *env = &vp->cpu->env;

    if (value & cr4_reserved_bits(env))
        return false;
    env->cr[4] = value;
    env->hflags &= ~(HF_OSFXSR_MASK | HF_SMAP_MASK | HF_UMIP_MASK);
    if (value & CR4_SMAP_MASK)
        env->hflags |= HF_SMAP_MASK;
    if (value & CR4_UMIP_MASK)
        env->hflags |= HF_UMIP_MASK;
    update_mode(vp);
    return true;
}

static uint64_t efer_bits(const CPUX86State *env)
{
    uint64_t bits = 0;

    if (env->features[FEAT_8000_0001_EDX] & CPUID_EXT2_SYSCALL)
        bits |= MSR_EFER_SCE;
    if (env->features[FEAT_8000_0001_EDX] & CPUID_EXT2_LM)
        bits |= MSR_EFER_LME | MSR_EFER_LMA;
    if (env->features[FEAT_8000_0001_EDX] & CPUID_EXT2_FFXSR)
        bits |= MSR_EFER_FFXSR;
    if (env->features[FEAT_8000_0001_EDX] & CPUID_EXT2_NX)
        bits |= MSR_EFER_NXE;
    return bits;
}

static bool set_efer(struct mshv_vp *vp, uint64_t value)
{
    CPUX86State *env = &vp->cpu->env;

    if (value & ~efer_bits(env))
        return false;
    env->efer = value;
    update_mode(vp);
    return true;
}

static bool set_xfem(struct mshv_vp *vp, uint64_t value)
{
    CPUX86State *env = &vp->cpu->env;
    uint64_t bits = (uint64_t)env->features[FEAT_XSAVE_XCR0_HI] << 32 | env->features[FEAT_XSAVE_XCR0_LO];

    if (!(value & XSTATE_FP_MASK) || (value & ~(bits | XSTATE_FP_MASK)) ||
        ((value & XSTATE_YMM_MASK) && !(value & XSTATE_SSE_MASK)) ||
        !(value & XSTATE_BNDREGS_MASK) != !(value & XSTATE_BNDCSR_MASK))
        return false;
    env->xcr0 = value;
    cpu_sync_bndcs_hflags(env);
    cpu_sync_avx_hflag(env);
    return true;
}

/* QEMU has a breakpoint for each enabled register, which goes and comes with DR7. */
static bool set_debug_register(CPUX86State *env, unsigned index, uint64_t value)
{
    uint32_t dr7 = (uint32_t)env->dr[7];

    switch (index) {
    case 6:
        env->dr[6] = value;
        return true;
    case 7:
        cpu_x86_update_dr7(env, (uint32_t)value);
        return true;
    default:
        cpu_x86_update_dr7(env, dr7 & ~(uint32_t)0xFF);
        env->dr[index] = value;
        cpu_x86_update_dr7(env, dr7);
        return true;
    }
}

/* -- Segments and tables -- */

#define ATTRIBUTES_SHIFT 8 /* from a segment register's attributes to QEMU's flags, in both as in a descriptor */
#define ATTRIBUTES_MASK 0xF0FFu

#define TSS_MASK (DESC_P_MASK | DESC_S_MASK | 5u << DESC_TYPE_SHIFT)
#define TSS (DESC_P_MASK | 1u << DESC_TYPE_SHIFT)

/* A TSS that is loaded is busy; QEMU notes that in its descriptor only. */
static uint32_t segment_flags(const CPUX86State *env, const SegmentCache *segment)
{
    bool is_tss = segment == &env->tr && (segment->flags & TSS_MASK) == TSS;

    return segment->flags | (is_tss ? DESC_TSS_BUSY_MASK : 0);
}

static void get_segment(const CPUX86State *env, const SegmentCache *segment, struct hv_segment_register *value)
{
    *value = (struct hv_segment_register){
        .base = segment->base,
        .limit = segment->limit,
        .selector = (uint16_t)segment->selector,
        .attributes = (uint16_t)(segment_flags(env, segment) >> ATTRIBUTES_SHIFT & ATTRIBUTES_MASK),
    };
}

static bool set_segment(struct mshv_vp *vp, SegmentCache *segment, const struct hv_segment_register *value)
{
    if (!is_canonical(&vp->cpu->env, value->base))
        return false;
    segment->base = value->base;
    segment->limit = value->limit;
    segment->selector = value->selector;
    segment->flags = (uint32_t)(value->attributes & ATTRIBUTES_MASK) << ATTRIBUTES_SHIFT;
    x86_update_hflags(&vp->cpu->env);
    return true;
}

static void get_table(const SegmentCache *table, struct hv_table_register *value)
{
    *value = (struct hv_table_register){.limit = (uint16_t)table->limit, .base = table->base};
}

static bool set_table(const CPUX86State *env, SegmentCache *table, const struct hv_table_register *value)
{
    if (!is_canonical(env, value->base))
        return false;
    table->limit = value->limit;
    table->base = value->base;
    return true;
}

static SegmentCache *find_segment(CPUX86State *env, uint32_t name)
{
    if (name == HV_REGISTER_Ldtr)
        return &env->ldt;
    if (name == HV_REGISTER_Tr)
        return &env->tr;
    return &env->segs[name - HV_REGISTER_Es]; /* in encoding order, both */
}

/* -- Floating point: ST(0) first, as FXSAVE has it -- */

#define STACK_REGISTERS 8u
#define MXCSR_BITS 0xFFFFu
#define FPUS_TOP_SHIFT 11
#define FPUS_TOP_MASK (7u << FPUS_TOP_SHIFT)

static unsigned physical(const CPUX86State *env, unsigned st)
{
    return (env->fpstt + st) % STACK_REGISTERS;
}

static void get_fp_control(const CPUX86State *env, union hv_register_value *value)
{
    uint64_t tags = 0, status = (env->fpus & ~FPUS_TOP_MASK) | env->fpstt << FPUS_TOP_SHIFT;

    for (unsigned i = 0; i < STACK_REGISTERS; i++)
        tags |= (uint64_t)!env->fptags[i] << i;
    value->reg128.low = env->fpuc | (status & 0xFFFF) << 16 | tags << 32 |
                        (uint64_t) !!(env->hflags2 & HF2_IGNNE_MASK) << 40 | (uint64_t)env->fpop << 48;
    value->reg128.high = env->fpip;
}

/* The stack keeps its content when its top moves: the order of setting this and ST(n) does not matter. */
static bool set_fp_control(CPUX86State *env, const union hv_register_value *value)
{
    uint64_t low = value->reg128.low;
    FPReg stack[STACK_REGISTERS];

    for (unsigned i = 0; i < STACK_REGISTERS; i++)
        stack[i] = env->fpregs[physical(env, i)];
    env->fpus = (uint16_t)((low >> 16) & ~FPUS_TOP_MASK);
    env->fpstt = (unsigned)(low >> (16 + FPUS_TOP_SHIFT)) % STACK_REGISTERS;
    for (unsigned i = 0; i < STACK_REGISTERS; i++) {
        env->fpregs[physical(env, i)] = stack[i];
        env->fptags[i] = !(low >> (32 + i) & 1);
    }
    cpu_set_fpuc(env, (uint16_t)low);
    env->hflags2 &= ~HF2_IGNNE_MASK;
    if (low >> 40 & 1)
        env->hflags2 |= HF2_IGNNE_MASK;
    env->fpop = (uint16_t)(low >> 48);
    env->fpip = value->reg128.high;
    return true;
}

static void get_xmm_control(CPUX86State *env, union hv_register_value *value)
{
    update_mxcsr_from_sse_status(env);
    value->reg128.low = env->fpdp;
    value->reg128.high = env->mxcsr | (uint64_t)MXCSR_BITS << 32;
}

static bool set_xmm_control(CPUX86State *env, const union hv_register_value *value)
{
    uint32_t mxcsr = (uint32_t)value->reg128.high;

    if (mxcsr & ~MXCSR_BITS)
        return false;
    env->fpdp = value->reg128.low;
    cpu_set_mxcsr(env, mxcsr);
    return true;
}

/* The 64-bit half of a vector register's halves; Low and High of the YMM names are bits 127:0 and 255:128. */
static uint64_t *vector_lane(CPUX86State *env, unsigned index, unsigned high, unsigned lane)
{
    return &env->xmm_regs[index].ZMM_Q(2 * high + lane);
}

static void get_vector(CPUX86State *env, unsigned index, unsigned high, union hv_register_value *value)
{
    value->reg128.low = *vector_lane(env, index, high, 0);
    value->reg128.high = *vector_lane(env, index, high, 1);
}

static bool set_vector(CPUX86State *env, unsigned index, unsigned high, const union hv_register_value *value)
{
    *vector_lane(env, index, high, 0) = value->reg128.low;
    *vector_lane(env, index, high, 1) = value->reg128.high;
    return true;
}

static void get_fp_register(const CPUX86State *env, unsigned st, union hv_register_value *value)
{
    const floatx80 *d = &env->fpregs[physical(env, st)].d;

    value->reg128.low = d->low;
    value->reg128.high = d->high;
}

static bool set_fp_register(CPUX86State *env, unsigned st, const union hv_register_value *value)
{
    env->fpregs[physical(env, st)].d = make_floatx80((uint16_t)value->reg128.high, value->reg128.low);
    return true;
}

/* -- Virtual MSRs -- */

static uint64_t *plain_msr(CPUX86State *env, uint32_t name)
{
    switch (name) {
    case HV_REGISTER_KernelGsBase:
        return &env->kernelgsbase;
    case HV_REGISTER_SysenterRip:
        return &env->sysenter_eip;
    case HV_REGISTER_SysenterRsp:
        return &env->sysenter_esp;
    case HV_REGISTER_Star:
        return &env->star;
    case HV_REGISTER_Lstar:
        return &env->lstar;
    case HV_REGISTER_Cstar:
        return &env->cstar;
    case HV_REGISTER_Sfmask:
        return &env->fmask;
    case HV_REGISTER_Pat:
        return &env->pat;
    case HV_REGISTER_MtrrDefType:
        return &env->mtrr_deftype;
    default:
        break;
    }
    if (name >= HV_REGISTER_MtrrPhysBase0 && name <= HV_REGISTER_MtrrPhysBase7)
        return &env->mtrr_var[name - HV_REGISTER_MtrrPhysBase0].base;
    if (name >= HV_REGISTER_MtrrPhysMask0 && name <= HV_REGISTER_MtrrPhysMask7)
        return &env->mtrr_var[name - HV_REGISTER_MtrrPhysMask0].mask;
    if (name >= HV_REGISTER_MtrrFix64k00000 && name <= HV_REGISTER_MtrrFix4kF8000)
        return &env->mtrr_fixed[name - HV_REGISTER_MtrrFix64k00000];
    return NULL;
}

/* UC, WC, WT, WP, WB, and where there is a choice UC-; all eight bytes of the value are types. */
static bool are_memory_types(uint64_t value, bool uc_minus)
{
    for (unsigned i = 0; i < 8; i++) {
        unsigned type = value >> (8 * i) & 0xFF;

        if (type != 0 && type != 1 && type != 4 && type != 5 && type != 6 && !(type == 7 && uc_minus))
            return false;
    }
    return true;
}

static bool msr_value_is_valid(const struct mshv_vp *vp, uint32_t name, uint64_t value)
{
    switch (name) {
    case HV_REGISTER_KernelGsBase:
    case HV_REGISTER_SysenterRip:
    case HV_REGISTER_SysenterRsp:
    case HV_REGISTER_Lstar:
    case HV_REGISTER_Cstar:
        return is_canonical(&vp->cpu->env, value);
    case HV_REGISTER_Pat:
        return are_memory_types(value, true);
    case HV_REGISTER_MtrrDefType:
        return !(value & ~UINT64_C(0xCFF)) && are_memory_types(value & 0xFF, false);
    default:
        break;
    }
    if (name >= HV_REGISTER_MtrrFix64k00000 && name <= HV_REGISTER_MtrrFix4kF8000)
        return are_memory_types(value, false);
    if (name >= HV_REGISTER_MtrrPhysBase0 && name <= HV_REGISTER_MtrrPhysMask7)
        return !(value >> vp->cpu->phys_bits);
    return true;
}

#define MTRR_CAPABILITIES (MSR_MTRRcap_VCNT | MSR_MTRRcap_FIXRANGE_SUPPORT | MSR_MTRRcap_WC_SUPPORTED)

/* -- By name -- */

static bool is_between(uint32_t name, uint32_t first, uint32_t last)
{
    return name >= first && name <= last;
}

static void get_other(CPUX86State *env, uint32_t name, union hv_register_value *value)
{
    const uint64_t *msr = plain_msr(env, name);

    if (msr)
        value->reg64 = *msr;
    else if (is_between(name, HV_REGISTER_Xmm0, HV_REGISTER_Xmm15))
        get_vector(env, name - HV_REGISTER_Xmm0, 0, value);
    else if (is_between(name, HV_REGISTER_Ymm0Low, HV_REGISTER_Ymm15Low))
        get_vector(env, name - HV_REGISTER_Ymm0Low, 0, value);
    else if (is_between(name, HV_REGISTER_Ymm0High, HV_REGISTER_Ymm15High))
        get_vector(env, name - HV_REGISTER_Ymm0High, 1, value);
    else if (is_between(name, HV_REGISTER_FpMmx0, HV_REGISTER_FpMmx7))
        get_fp_register(env, name - HV_REGISTER_FpMmx0, value);
    else if (is_between(name, HV_REGISTER_Dr0, HV_REGISTER_Dr3))
        value->reg64 = env->dr[name - HV_REGISTER_Dr0];
    else if (is_between(name, HV_REGISTER_Es, HV_REGISTER_Tr))
        get_segment(env, find_segment(env, name), &value->segment);
}

uint64_t *mshv_gprs(void *context, hv_vp_handle handle)
{
    struct mshv_vp *vp = mshv_vp(context, handle);

    QEMU_BUILD_BUG_ON(sizeof(vp->cpu->env.regs[0]) != sizeof(uint64_t));
    mshv_sync_registers(vp);
    return (uint64_t *)vp->cpu->env.regs;
}

void mshv_get_execution(void *context, hv_vp_handle handle, struct hv_execution *execution)
{
    struct mshv_vp *vp = mshv_vp(context, handle);
    const CPUX86State *env = &vp->cpu->env;

    mshv_sync_registers(vp);
    execution->rip = env->eip;
    execution->rflags = get_rflags(vp);
    execution->cr0 = env->cr[0];
    execution->efer = env->efer;
    execution->dr7 = env->dr[7];
    get_segment(env, &env->segs[R_CS], &execution->cs);
    execution->interruption_pending = env->hypervisor_event.valid;
}

void mshv_get_register(void *context, hv_vp_handle handle, enum hv_register_name name, union hv_register_value *value)
{
    struct mshv_vp *vp = mshv_vp(context, handle);
    CPUX86State *env = &vp->cpu->env;

    mshv_sync_registers(vp);
    value->reg128.low = value->reg128.high = 0;
    switch (name) {
    case HV_REGISTER_PendingInterruption:
        value->reg64 = get_pending_interruption(env);
        return;
    case HV_REGISTER_InterruptState:
        value->reg64 = get_interrupt_state(env);
        return;
    case HV_REGISTER_Rip:
        value->reg64 = env->eip;
        return;
    case HV_REGISTER_Rflags:
        value->reg64 = get_rflags(vp);
        return;
    case HV_REGISTER_FpControlStatus:
        get_fp_control(env, value);
        return;
    case HV_REGISTER_XmmControlStatus:
        get_xmm_control(env, value);
        return;
    case HV_REGISTER_Cr0:
        value->reg64 = env->cr[0];
        return;
    case HV_REGISTER_Cr2:
        value->reg64 = env->cr[2];
        return;
    case HV_REGISTER_Cr3:
        value->reg64 = env->cr[3];
        return;
    case HV_REGISTER_Cr4:
        value->reg64 = env->cr[4];
        return;
    case HV_REGISTER_Xfem:
        value->reg64 = env->xcr0;
        return;
    case HV_REGISTER_Dr6:
        value->reg64 = env->dr[6];
        return;
    case HV_REGISTER_Dr7:
        value->reg64 = env->dr[7];
        return;
    case HV_REGISTER_Idtr:
        get_table(&env->idt, &value->table);
        return;
    case HV_REGISTER_Gdtr:
        get_table(&env->gdt, &value->table);
        return;
    case HV_REGISTER_Efer:
        value->reg64 = env->efer;
        return;
    case HV_REGISTER_SysenterCs:
        value->reg64 = env->sysenter_cs;
        return;
    case HV_REGISTER_MtrrCap:
        value->reg64 = MTRR_CAPABILITIES;
        return;
    default:
        get_other(env, name, value);
    }
}

static bool set_other(struct mshv_vp *vp, uint32_t name, const union hv_register_value *value)
{
    CPUX86State *env = &vp->cpu->env;
    uint64_t *msr = plain_msr(env, name);

    if (msr) {
        if (!msr_value_is_valid(vp, name, value->reg64))
            return false;
        *msr = value->reg64;
        return true;
    }
    if (is_between(name, HV_REGISTER_Xmm0, HV_REGISTER_Xmm15))
        return set_vector(env, name - HV_REGISTER_Xmm0, 0, value);
    if (is_between(name, HV_REGISTER_Ymm0Low, HV_REGISTER_Ymm15Low))
        return set_vector(env, name - HV_REGISTER_Ymm0Low, 0, value);
    if (is_between(name, HV_REGISTER_Ymm0High, HV_REGISTER_Ymm15High))
        return set_vector(env, name - HV_REGISTER_Ymm0High, 1, value);
    if (is_between(name, HV_REGISTER_FpMmx0, HV_REGISTER_FpMmx7))
        return set_fp_register(env, name - HV_REGISTER_FpMmx0, value);
    if (is_between(name, HV_REGISTER_Dr0, HV_REGISTER_Dr3))
        return set_debug_register(env, name - HV_REGISTER_Dr0, value->reg64);
    if (is_between(name, HV_REGISTER_Es, HV_REGISTER_Tr))
        return set_segment(vp, find_segment(env, name), &value->segment);
    return false;
}

static bool has_state_to_execute_with(const CPUX86State *env)
{
    const SegmentCache *cs = &env->segs[R_CS];
    bool long_mode = env->efer & MSR_EFER_LMA, code64 = long_mode && (cs->flags & DESC_L_MASK);

    if (long_mode && (!(env->cr[4] & CR4_PAE_MASK) || (env->eflags & VM_MASK)))
        return false;
    if (code64 ? (cs->flags & DESC_B_MASK) != 0 : env->eip > UINT32_MAX)
        return false;
    if (!(env->cr[0] & CR0_PE_MASK) && (env->eflags & VM_MASK))
        return false;
    return long_mode || !(env->cr[4] & CR4_PCIDE_MASK);
}

bool mshv_registers_agree(struct mshv_vp *vp)
{
    if (unlikely(vp->unchecked))
        vp->unchecked = !has_state_to_execute_with(&vp->cpu->env);
    return likely(!vp->unchecked);
}

bool mshv_set_register(void *context, hv_vp_handle handle, enum hv_register_name name,
                       const union hv_register_value *value)
{
    struct mshv_vp *vp = mshv_vp(context, handle);
    CPUX86State *env = &vp->cpu->env;

    mshv_sync_registers(vp);
    vp->unchecked = vp->put_all = vp->child;
    switch (name) {
    case HV_REGISTER_PendingInterruption:
        return set_pending_interruption(env, value->reg64);
    case HV_REGISTER_InterruptState:
        return set_interrupt_state(env, value->reg64);
    case HV_REGISTER_Rip:
        return set_rip(env, value->reg64);
    case HV_REGISTER_Rflags:
        return set_rflags(vp, value->reg64);
    case HV_REGISTER_FpControlStatus:
        return set_fp_control(env, value);
    case HV_REGISTER_XmmControlStatus:
        return set_xmm_control(env, value);
    case HV_REGISTER_Cr0:
        return set_cr0(vp, value->reg64);
    case HV_REGISTER_Cr2:
        env->cr[2] = value->reg64;
        return true;
    case HV_REGISTER_Cr3:
        return set_cr3(vp, value->reg64);
    case HV_REGISTER_Cr4:
        return set_cr4(vp, value->reg64);
    case HV_REGISTER_Xfem:
        return set_xfem(vp, value->reg64);
    case HV_REGISTER_Dr6:
        return set_debug_register(env, 6, value->reg64);
    case HV_REGISTER_Dr7:
        return set_debug_register(env, 7, value->reg64);
    case HV_REGISTER_Idtr:
        return set_table(env, &env->idt, &value->table);
    case HV_REGISTER_Gdtr:
        return set_table(env, &env->gdt, &value->table);
    case HV_REGISTER_Efer:
        return set_efer(vp, value->reg64);
    case HV_REGISTER_SysenterCs:
        env->sysenter_cs = (uint32_t)value->reg64;
        return true;
    case HV_REGISTER_MtrrCap:
        return value->reg64 == MTRR_CAPABILITIES; /* read-only */
    default:
        return set_other(vp, name, value);
    }
}
