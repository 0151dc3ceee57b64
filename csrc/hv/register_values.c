/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS 10.3, 10.4.4: what can be seen to be wrong in the value of an architectural register: reserved bits, bits that
 * are always zero or one, and bits beyond the register. What is wrong only together with other registers shows when the
 * VP goes on (TLFS 10.1.2).
 */
#include "internal.h"

/* -- Interruptions (TLFS 10.3.4) -- */

#define INTERRUPTION_PENDING UINT64_C(1)
#define INTERRUPTION_TYPE(value) ((unsigned)((value) >> 1) & 7)
#define INTERRUPTION_LENGTH UINT64_C(0x1E0) /* of an instruction; later than 2.0a */
#define INTERRUPTION_RESERVED UINT64_C(0xFFE0)
#define INTERRUPTION_VECTOR(value) ((unsigned)((value) >> 16) & 0xFFFF)
enum { INTERRUPTION_INTERRUPT = 0, INTERRUPTION_NMI = 2, INTERRUPTION_EXCEPTION = 3 };
#define VECTOR_NMI 2u
#define EXCEPTIONS 32u

static bool vector_is_valid(unsigned type, unsigned vector)
{
    switch (type) {
    case INTERRUPTION_INTERRUPT:
        return vector <= 0xFF;
    case INTERRUPTION_NMI:
        return vector == VECTOR_NMI;
    case INTERRUPTION_EXCEPTION:
        return vector < EXCEPTIONS;
    default:
        return false;
    }
}

static bool interruption_is_valid(const struct hv_vp *vp, uint64_t value)
{
    uint64_t reserved = INTERRUPTION_RESERVED;

    if (!(value & INTERRUPTION_PENDING))
        return true; /* the other fields are ignored */
    if (vp->hv->config.generation == HV_GEN_CURRENT)
        reserved &= ~INTERRUPTION_LENGTH;
    return !(value & reserved) && vector_is_valid(INTERRUPTION_TYPE(value), INTERRUPTION_VECTOR(value));
}

/* -- Control, debug and flags -- */

/* Bits that may be one, and bits that must be. */
struct bit_rule {
    uint32_t name;
    uint64_t may, must;
};

static const struct bit_rule bit_rules[] = {
    {HV_REGISTER_InterruptState, 0x3, 0},      {HV_REGISTER_Rflags, 0x3F7FD7, 0x2},
    {HV_REGISTER_Cr0, 0xE005003F, 0x10},       {HV_REGISTER_Cr4, 0xF71FFF, 0}, /* not VMXE, SMXE */
    {HV_REGISTER_Dr6, 0xFFFFEFFF, 0xFFFE07F0}, {HV_REGISTER_Dr7, 0xFFFF2FFF, 0x400},
};

static bool bits_are_valid(uint32_t name, uint64_t value)
{
    for (size_t i = 0; i < sizeof(bit_rules) / sizeof(bit_rules[0]); i++) {
        const struct bit_rule *rule = &bit_rules[i];

        if (rule->name == name)
            return !(value & ~rule->may) && (value & rule->must) == rule->must;
    }
    return true;
}

#define CR0_PE (UINT64_C(1) << 0)
#define CR0_NW (UINT64_C(1) << 29)
#define CR0_CD (UINT64_C(1) << 30)
#define CR0_PG (UINT64_C(1) << 31)

static bool cr0_is_valid(uint64_t value)
{
    return !((value & CR0_PG) && !(value & CR0_PE)) && !((value & CR0_NW) && !(value & CR0_CD));
}

/* x87 always; AVX with SSE, and what the partition has of it (TLFS 5.2.9). */
#define XFEM_X87 UINT64_C(1)
#define XFEM_SSE UINT64_C(2)
#define XFEM_AVX UINT64_C(4)
#define XSAVE_FEATURE_AVX UINT64_C(4)

static bool xfem_is_valid(const struct hv_vp *vp, uint64_t value)
{
    bool avx = vp->partition->properties.xsave_features & XSAVE_FEATURE_AVX;

    if (!(value & XFEM_X87) || (value & ~(XFEM_X87 | XFEM_SSE | XFEM_AVX)))
        return false;
    return !(value & XFEM_AVX) || ((value & XFEM_SSE) && avx);
}

/* -- Segments (TLFS 10.3.6) -- */

#define SEGMENT_RESERVED 0x0F00u
#define SEGMENT_NON_SYSTEM (1u << 4)
#define SEGMENT_PRESENT (1u << 7)
#define SEGMENT_LONG (1u << 13)
#define SEGMENT_GRANULARITY (1u << 15)

/* Of a segment that is not present, or a long-mode one, the limit does not count. */
static bool segment_is_valid(const struct hv_segment_register *segment)
{
    if ((segment->attributes & SEGMENT_RESERVED) || !hv_address_is_canonical(segment->base))
        return false;
    if (!(segment->attributes & SEGMENT_PRESENT) || (segment->attributes & SEGMENT_LONG))
        return true;
    if (segment->attributes & SEGMENT_GRANULARITY)
        return (segment->limit & 0xFFF) == 0xFFF;
    return segment->limit <= 0xFFFFF;
}

/* -- Vectors (TLFS 10.3.5) -- */

/* The x87 status word's register has reserved bits beside IGNNE#. */
#define IGNNE_BYTE 5
#define MXCSR_RESERVED (UINT64_C(0xFFFF) << 16)

static bool vector_register_is_valid(uint32_t name, const union hv_register_value *value)
{
    if (name >= HV_REGISTER_FpMmx0 && name <= HV_REGISTER_FpMmx7)
        return !(value->reg128.high >> 16); /* 80 bits */
    if (name == HV_REGISTER_FpControlStatus)
        return !((value->reg128.low >> (8 * IGNNE_BYTE)) & 0xFE);
    if (name == HV_REGISTER_XmmControlStatus)
        return !(value->reg128.high & MXCSR_RESERVED);
    return true;
}

/* -- MSRs -- */

#define NO_MSR 0u

/* The MSR a name stands for, whose values WRMSR checks too. */
static uint32_t architectural_msr(uint32_t name)
{
    static const struct {
        uint32_t name, msr;
    } names[] = {
        {HV_REGISTER_Efer, 0xC0000080},
        {HV_REGISTER_KernelGsBase, 0xC0000102},
        {HV_REGISTER_Pat, 0x277},
        {HV_REGISTER_SysenterCs, 0x174},
        {HV_REGISTER_SysenterRip, 0x176},
        {HV_REGISTER_SysenterRsp, 0x175},
        {HV_REGISTER_Star, 0xC0000081},
        {HV_REGISTER_Lstar, 0xC0000082},
        {HV_REGISTER_Cstar, 0xC0000083},
        {HV_REGISTER_Sfmask, 0xC0000084},
        {HV_REGISTER_MtrrCap, 0xFE},
        {HV_REGISTER_MtrrDefType, 0x2FF},
        {HV_REGISTER_MtrrFix64k00000, 0x250},
        {HV_REGISTER_MtrrFix16k80000, 0x258},
        {HV_REGISTER_MtrrFix16kA0000, 0x259},
    };

    if (name >= HV_REGISTER_MtrrPhysBase0 && name <= HV_REGISTER_MtrrPhysBase7)
        return 0x200 + 2 * (name - HV_REGISTER_MtrrPhysBase0);
    if (name >= HV_REGISTER_MtrrPhysMask0 && name <= HV_REGISTER_MtrrPhysMask7)
        return 0x201 + 2 * (name - HV_REGISTER_MtrrPhysMask0);
    if (name >= HV_REGISTER_MtrrFix4kC0000 && name <= HV_REGISTER_MtrrFix4kF8000)
        return 0x268 + (name - HV_REGISTER_MtrrFix4kC0000);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (names[i].name == name)
            return names[i].msr;
    }
    return NO_MSR;
}

/* -- All of them -- */

static bool is_general(uint32_t name)
{
    return name >= HV_REGISTER_Rax && name <= HV_REGISTER_R15;
}

bool hv_register_value_is_valid(const struct hv_vp *vp, enum hv_register_name name,
                                const union hv_register_value *value)
{
    uint32_t msr;

    if (is_general(name))
        return true;
    if (name >= HV_REGISTER_Es && name <= HV_REGISTER_Tr)
        return segment_is_valid(&value->segment);
    switch (name) {
    case HV_REGISTER_Rip:
        return hv_address_is_canonical(value->reg64);
    case HV_REGISTER_PendingInterruption:
        return interruption_is_valid(vp, value->reg64);
    case HV_REGISTER_Cr0:
        return bits_are_valid(name, value->reg64) && cr0_is_valid(value->reg64);
    case HV_REGISTER_Cr3:
        return value->reg64 < vp->hv->gpa_limit;
    case HV_REGISTER_Xfem:
        return xfem_is_valid(vp, value->reg64);
    case HV_REGISTER_Idtr:
    case HV_REGISTER_Gdtr:
        return hv_address_is_canonical(value->table.base);
    default:
        break;
    }
    msr = architectural_msr(name);
    if (msr != NO_MSR)
        return hv_processor_msr_is_valid(vp, msr, value->reg64);
    return bits_are_valid(name, value->reg64) && vector_register_is_valid(name, value);
}
