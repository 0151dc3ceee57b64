/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 11, appendices D, F and G: what a VP's processor shows by CPUID and in architectural MSRs, to the root
 * and to children.
 *
 * The specification knew the processors of its time. In the current generation a child sees more (child_keep_current
 * in arch_cpuid.def), and the root sees its processor but for what the hypervisor itself uses.
 */
#include "internal.h"

#include <string.h>

static bool is_current(const struct hv *hv)
{
    return hv->config.generation == HV_GEN_CURRENT;
}

/* -- CPUID (appendix D) -- */

enum { REGISTER_EAX, REGISTER_EBX, REGISTER_ECX, REGISTER_EDX };

struct cpuid_row {
    uint32_t leaf;
    uint8_t reg;
    uint32_t root_keep, root_set, child_keep, child_set, child_keep_current, root_hide_current;
};

static const struct cpuid_row cpuid_rows[] = {
#define HV_ARCH_CPUID_ROW(leaf, reg, root_keep, root_set, child_keep, child_set, child_keep_current, root_hide)        \
    {leaf, REGISTER_##reg, root_keep, root_set, child_keep, child_set, child_keep_current, root_hide},
#include "tlfs/arch_cpuid.def"
#undef HV_ARCH_CPUID_ROW
};
#define CPUID_ROWS (sizeof(cpuid_rows) / sizeof(cpuid_rows[0]))

#define LEAF_BASIC 0u
#define LEAF_VERSION 1u
#define LEAF_CACHES_INTEL 2u
#define LEAF_CACHES 4u
#define LEAF_POWER 6u
#define LEAF_FEATURES 7u
#define LEAF_TOPOLOGY 0xBu
#define LEAF_XSAVE 0xDu
#define LEAF_EXTENDED UINT32_C(0x80000000)
#define LEAF_EXTENDED_VERSION UINT32_C(0x80000001)
#define LEAF_EXTENDED_POWER UINT32_C(0x80000007)
#define LEAF_ADDRESSES UINT32_C(0x80000008)
#define LEAF_EXTENDED_LAST UINT32_C(0x8000001A)

#define BASIC_LAST_2008R2 6u
#define BASIC_LAST_CURRENT LEAF_XSAVE

/* Bits that code below looks at. */
#define VERSION_ECX_FMA (1u << 12)
#define VERSION_ECX_X2APIC (1u << 21)
#define VERSION_ECX_TSC_DEADLINE (1u << 24)
#define VERSION_ECX_XSAVE (1u << 26)
#define VERSION_ECX_OSXSAVE (1u << 27)
#define VERSION_ECX_AVX (1u << 28)
#define VERSION_ECX_F16C (1u << 29)
#define FEATURES_EBX_AVX2 (1u << 5)
#define POWER_EDX_INVARIANT_TSC (1u << 8)

/* HvPartitionPropertyProcessorXsaveFeatures (TLFS 5.2.9) */
#define XSAVE_FEATURE_XSAVE (UINT64_C(1) << 0)
#define XSAVE_FEATURE_XSAVEOPT (UINT64_C(1) << 1)
#define XSAVE_FEATURE_AVX (UINT64_C(1) << 2)

static uint32_t mask_register(bool child, bool current, const struct cpuid_row *row, uint32_t value)
{
    if (child)
        return (value & (row->child_keep | (current ? row->child_keep_current : 0))) | row->child_set;
    return (value & (current ? ~row->root_hide_current : row->root_keep)) | row->root_set;
}

/* Registers without a row are zero, but for the current root. */
static void apply_rows(const struct hv_vp *vp, uint32_t leaf, struct hv_cpuid *result)
{
    uint32_t native[4] = {result->eax, result->ebx, result->ecx, result->edx}, shown[4] = {0};
    bool child = hv_vp_is_child(vp), current = is_current(vp->hv);

    if (!child && current)
        memcpy(shown, native, sizeof(shown));
    for (size_t i = 0; i < CPUID_ROWS && cpuid_rows[i].leaf <= leaf; i++) {
        if (cpuid_rows[i].leaf == leaf)
            shown[cpuid_rows[i].reg] = mask_register(child, current, &cpuid_rows[i], native[cpuid_rows[i].reg]);
    }
    *result = (struct hv_cpuid){shown[REGISTER_EAX], shown[REGISTER_EBX], shown[REGISTER_ECX], shown[REGISTER_EDX]};
}

static void limit(uint32_t *value, uint32_t most)
{
    if (*value > most)
        *value = most;
}

/* Fields that differ by vendor, privilege or generation, in the root and in children. */
static void common_fields(const struct hv_vp *vp, uint32_t leaf, struct hv_cpuid *result)
{
    const struct hv *hv = vp->hv;

    switch (leaf) {
    case LEAF_BASIC:
        if (!is_current(hv) || hv_vp_is_child(vp))
            limit(&result->eax, is_current(hv) ? BASIC_LAST_CURRENT : BASIC_LAST_2008R2);
        break;
    case LEAF_CACHES_INTEL:
        if (!hv->config.intel)
            memset(result, 0, sizeof(*result));
        break;
    case LEAF_POWER:
        if (!hv_has_privilege(vp->partition, HV_PRIVILEGE_CpuManagement))
            memset(result, 0, sizeof(*result));
        break;
    case LEAF_EXTENDED:
        if (!is_current(hv) || hv_vp_is_child(vp))
            limit(&result->eax, LEAF_EXTENDED_LAST);
        break;
    default:
        break;
    }
}

/* Features that a partition property takes away (TLFS 5.2.8), by the property's bits. */
static const struct {
    uint32_t leaf;
    uint8_t reg, bit;
} feature_bits[] = {
    {LEAF_VERSION, REGISTER_ECX, 0}, /* Sse3 */
    {LEAF_EXTENDED_VERSION, REGISTER_ECX, 0}, /* LahfSahf */
    {LEAF_VERSION, REGISTER_ECX, 9}, /* Ssse3 */
    {LEAF_VERSION, REGISTER_ECX, 19}, /* Sse4_1 */
    {LEAF_VERSION, REGISTER_ECX, 20}, /* Sse4_2 */
    {LEAF_EXTENDED_VERSION, REGISTER_ECX, 6}, /* Sse4a */
    {LEAF_EXTENDED_VERSION, REGISTER_ECX, 11}, /* Sse5 */
    {LEAF_VERSION, REGISTER_ECX, 23}, /* PopCnt */
    {LEAF_VERSION, REGISTER_ECX, 13}, /* Cmpxchg16b */
    {LEAF_EXTENDED_VERSION, REGISTER_ECX, 4}, /* Altmovcr8 */
    {LEAF_EXTENDED_VERSION, REGISTER_ECX, 5}, /* Lzcnt */
    {LEAF_EXTENDED_VERSION, REGISTER_ECX, 7}, /* MisAlignSse */
    {LEAF_EXTENDED_VERSION, REGISTER_EDX, 22}, /* MmxExt */
    {LEAF_EXTENDED_VERSION, REGISTER_EDX, 31}, /* Amd3DNow */
    {LEAF_EXTENDED_VERSION, REGISTER_EDX, 30}, /* ExtendedAmd3DNow */
};

#define FEATURES ((UINT64_C(1) << (sizeof(feature_bits) / sizeof(feature_bits[0]))) - 1)

static uint64_t property(const uint64_t *value)
{
    return __atomic_load_n(value, __ATOMIC_RELAXED); /* the parent may set it while the child runs */
}

static void apply_feature_property(const struct hv_vp *vp, uint32_t leaf, struct hv_cpuid *result)
{
    uint64_t features = property(&vp->partition->properties.processor_features);
    uint32_t *registers[] = {&result->eax, &result->ebx, &result->ecx, &result->edx};

    for (uint64_t missing = ~features & FEATURES; missing; missing &= missing - 1) {
        unsigned i = (unsigned)__builtin_ctzll(missing);

        if (feature_bits[i].leaf == leaf)
            *registers[feature_bits[i].reg] &= ~(1u << feature_bits[i].bit);
    }
}

/* The legacy part of the XSAVE area with its header, and with the upper halves of the YMM registers. */
#define XSAVE_SIZE_SSE 576u
#define XSAVE_SIZE_AVX 832u
#define XSAVE_STATES_SSE 3u /* XCR0: x87, SSE */
#define XSAVE_STATE_AVX 4u

static void xsave_leaf(uint32_t subleaf, uint64_t features, struct hv_cpuid *result)
{
    bool avx = features & XSAVE_FEATURE_AVX;

    if (!(features & XSAVE_FEATURE_XSAVE)) {
        memset(result, 0, sizeof(*result));
        return;
    }
    switch (subleaf) {
    case 0:
        result->eax &= XSAVE_STATES_SSE | (avx ? XSAVE_STATE_AVX : 0);
        result->ecx = result->eax & XSAVE_STATE_AVX ? XSAVE_SIZE_AVX : XSAVE_SIZE_SSE;
        limit(&result->ebx, result->ecx);
        result->edx = 0;
        break;
    case 1:
        *result = (struct hv_cpuid){.eax = result->eax & (features & XSAVE_FEATURE_XSAVEOPT ? 1u : 0)};
        break;
    case 2:
        if (avx)
            break;
        /* fall through */
    default:
        memset(result, 0, sizeof(*result));
        break;
    }
}

static void apply_xsave_property(const struct hv_vp *vp, uint32_t leaf, uint32_t subleaf, struct hv_cpuid *result)
{
    uint64_t features = property(&vp->partition->properties.xsave_features);

    if (!(features & XSAVE_FEATURE_XSAVE))
        features = 0;
    if (leaf == LEAF_VERSION) {
        if (!features)
            result->ecx &= ~(VERSION_ECX_XSAVE | VERSION_ECX_OSXSAVE);
        if (!(features & XSAVE_FEATURE_AVX))
            result->ecx &= ~(VERSION_ECX_AVX | VERSION_ECX_FMA | VERSION_ECX_F16C);
    } else if (leaf == LEAF_FEATURES) {
        if (!(features & XSAVE_FEATURE_AVX))
            result->ebx &= ~FEATURES_EBX_AVX2;
    } else if (leaf == LEAF_XSAVE) {
        xsave_leaf(subleaf, features, result);
    }
}

/* Every VP is a package of one core without further threads, whatever its index. */
static void topology_leaf(const struct hv_vp *vp, uint32_t subleaf, struct hv_cpuid *result)
{
    enum { LEVEL_NONE, LEVEL_THREAD, LEVEL_CORE };
    uint32_t level = subleaf == 0 ? LEVEL_THREAD : subleaf == 1 ? LEVEL_CORE : LEVEL_NONE;

    if (!is_current(vp->hv))
        return;
    result->eax = 0;
    result->ebx = level == LEVEL_NONE ? 0 : 1;
    result->ecx = level << 8 | (subleaf & 0xFF);
    result->edx = hv_lapic_get_initial_id(vp);
}

static void child_fields(const struct hv_vp *vp, uint32_t leaf, uint32_t subleaf, struct hv_cpuid *result)
{
    switch (leaf) {
    case LEAF_VERSION: {
        uint32_t flush_size = (uint32_t)property(&vp->partition->properties.clflush_size);

        result->ebx = (result->ebx & 0xFF) | (flush_size & 0xFF) << 8 | 1u << 16 | hv_lapic_get_initial_id(vp) << 24;
        /* Of the local APIC, which is the hypervisor's. */
        if (hv_lapic_has_x2apic(vp->partition))
            result->ecx |= VERSION_ECX_X2APIC;
        if (hv_lapic_has_deadline(vp->partition))
            result->ecx |= VERSION_ECX_TSC_DEADLINE;
        break;
    }
    case LEAF_CACHES:
        result->eax &= 0x3FFF; /* one core, one thread */
        break;
    case LEAF_FEATURES:
        if (subleaf)
            memset(result, 0, sizeof(*result));
        break;
    case LEAF_TOPOLOGY:
        topology_leaf(vp, subleaf, result);
        break;
    case LEAF_EXTENDED_POWER:
        if (is_current(vp->hv) && hv_tsc_is_invariant(vp->partition))
            result->edx |= POWER_EDX_INVARIANT_TSC;
        break;
    case LEAF_ADDRESSES:
        result->eax = (result->eax & 0xFF00) | vp->hv->config.gpa_bits;
        result->ecx = 0;
        break;
    default:
        break;
    }
    apply_feature_property(vp, leaf, result);
    apply_xsave_property(vp, leaf, subleaf, result);
}

void hv_processor_cpuid(const struct hv_vp *vp, uint32_t leaf, uint32_t subleaf, struct hv_cpuid *result)
{
    if (leaf >= HV_CPUID_FIRST && leaf <= HV_CPUID_LAST) {
        hv_cpuid(vp->partition, leaf, result);
        return;
    }
    apply_rows(vp, leaf, result);
    common_fields(vp, leaf, result);
    if (hv_vp_is_child(vp))
        child_fields(vp, leaf, subleaf, result);
}

/* -- Values that the processor can hold -- */

#define ADDRESS_BITS 48

bool hv_address_is_canonical(uint64_t address)
{
    return (uint64_t)((int64_t)(address << (64 - ADDRESS_BITS)) >> (64 - ADDRESS_BITS)) == address;
}

/* SCE, LME, LMA, NXE, FFXSR; not SVME. */
static bool efer_is_valid(uint64_t value)
{
    return !(value & ~UINT64_C(0x4D01));
}

static bool is_memory_type(uint8_t type)
{
    return type <= 6 && type != 2 && type != 3; /* UC, WC, WT, WP, WB */
}

static bool pat_is_valid(uint64_t value)
{
    for (unsigned i = 0; i < 8; i++) {
        uint8_t type = (uint8_t)(value >> (8 * i));

        if (!is_memory_type(type) && type != 7) /* UC- */
            return false;
    }
    return true;
}

static bool mtrr_fixed_is_valid(uint64_t value)
{
    for (unsigned i = 0; i < 8; i++) {
        if (!is_memory_type((uint8_t)(value >> (8 * i))))
            return false;
    }
    return true;
}

static bool mtrr_variable_is_valid(const struct hv *hv, bool mask, uint64_t value)
{
    if (value >= hv->gpa_limit)
        return false;
    return mask ? !(value & 0x7FF) : !(value & 0xF00) && is_memory_type((uint8_t)value);
}

/* E, FE, type. */
static bool mtrr_default_is_valid(uint64_t value)
{
    return !(value & ~UINT64_C(0xCFF)) && is_memory_type((uint8_t)value);
}

/* -- MSRs (appendices F, G) -- */

enum msr_vendor { VENDOR_ALL, VENDOR_INTEL, VENDOR_AMD };
enum msr_behaviour {
    MSR_NONE,
    MSR_KEEP,
    MSR_ZERO,
    MSR_READ_ONLY,
    MSR_ZERO_READ_ONLY,
    MSR_PATCH,
    MSR_TSC,
    MSR_APIC,
    MSR_FAULT,
};
enum msr_check {
    CHECK_ANY,
    CHECK_CANONICAL,
    CHECK_EFER,
    CHECK_PAT,
    CHECK_LOW32,
    CHECK_MTRR_VARIABLE,
    CHECK_MTRR_FIXED,
    CHECK_MTRR_DEFAULT,
    CHECK_NEVER,
};

struct msr_row {
    uint32_t index, count;
    uint8_t vendor, generations, root, child, check;
};

static const struct msr_row msr_rows[] = {
#define HV_ARCH_MSR_ROW(index, count, name, vendor, generations, root, child, check)                                   \
    {index, count, VENDOR_##vendor, generations, MSR_##root, MSR_##child, CHECK_##check},
#include "tlfs/arch_msrs.def"
#undef HV_ARCH_MSR_ROW
};

/* The microcode revision is in the upper half. */
#define NEWEST_PATCH (UINT64_C(0x8FFFFFFF) << 32)

static const struct msr_row *find_msr(const struct hv *hv, uint32_t index)
{
    size_t low = 0, high = sizeof(msr_rows) / sizeof(msr_rows[0]);

    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct msr_row *row = &msr_rows[middle];

        if (index < row->index) {
            high = middle;
        } else if (index >= row->index + row->count) {
            low = middle + 1;
        } else {
            bool has_it = row->vendor == VENDOR_ALL || hv->config.intel == (row->vendor == VENDOR_INTEL);

            return has_it && (row->generations & hv->config.generation) ? row : NULL;
        }
    }
    return NULL;
}

static enum msr_behaviour behaviour_of(const struct hv_vp *vp, const struct msr_row *row)
{
    if (!row)
        return hv_vp_is_child(vp) ? MSR_NONE : MSR_KEEP;
    return (enum msr_behaviour)(hv_vp_is_child(vp) ? row->child : row->root);
}

static bool value_is_valid(const struct hv_vp *vp, const struct msr_row *row, uint32_t index, uint64_t value)
{
    switch ((enum msr_check)row->check) {
    case CHECK_ANY:
        return true;
    case CHECK_CANONICAL:
        return hv_address_is_canonical(value);
    case CHECK_EFER:
        return efer_is_valid(value);
    case CHECK_PAT:
        return pat_is_valid(value);
    case CHECK_LOW32:
        return value <= UINT32_MAX;
    case CHECK_MTRR_VARIABLE:
        return mtrr_variable_is_valid(vp->hv, index & 1, value);
    case CHECK_MTRR_FIXED:
        return mtrr_fixed_is_valid(value);
    case CHECK_MTRR_DEFAULT:
        return mtrr_default_is_valid(value);
    case CHECK_NEVER:
        return false;
    }
    return false;
}

bool hv_processor_msr_is_valid(const struct hv_vp *vp, uint32_t index, uint64_t value)
{
    const struct msr_row *row = find_msr(vp->hv, index);

    return !row || value_is_valid(vp, row, index, value);
}

bool hv_processor_rdmsr(struct hv_vp *vp, uint32_t index, uint64_t *value, enum hv_exit *exit)
{
    *exit = HV_EXIT_DONE;
    switch (behaviour_of(vp, find_msr(vp->hv, index))) {
    case MSR_NONE:
        return false;
    case MSR_KEEP:
    case MSR_READ_ONLY:
        *exit = HV_EXIT_NATIVE;
        break;
    case MSR_ZERO:
    case MSR_ZERO_READ_ONLY:
        *value = 0;
        break;
    case MSR_PATCH:
        *value = NEWEST_PATCH;
        break;
    case MSR_TSC:
        *value = hv_vp_read_tsc(vp);
        break;
    case MSR_APIC:
        *exit = hv_lapic_rdmsr(vp, index, value);
        break;
    case MSR_FAULT:
        *exit = HV_EXIT_GP;
        break;
    }
    return true;
}

static enum hv_exit write_kept(const struct hv_vp *vp, uint32_t index, uint64_t value)
{
    /* The root's processor checks for itself. */
    return !hv_vp_is_child(vp) || hv_processor_msr_is_valid(vp, index, value) ? HV_EXIT_NATIVE : HV_EXIT_GP;
}

bool hv_processor_wrmsr(struct hv_vp *vp, uint32_t index, uint64_t value, enum hv_exit *exit)
{
    *exit = HV_EXIT_DONE;
    switch (behaviour_of(vp, find_msr(vp->hv, index))) {
    case MSR_NONE:
        return false;
    case MSR_KEEP:
        *exit = write_kept(vp, index, value);
        break;
    case MSR_ZERO:
    case MSR_READ_ONLY:
    case MSR_PATCH:
        break;
    case MSR_TSC:
        hv_vp_write_tsc(vp, value);
        break;
    case MSR_APIC:
        *exit = hv_lapic_wrmsr(vp, index, value);
        break;
    case MSR_ZERO_READ_ONLY:
    case MSR_FAULT:
        *exit = HV_EXIT_GP;
        break;
    }
    return true;
}
