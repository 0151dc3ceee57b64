/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 3: what CPUID tells. Contents follow the partition's privileges and the configuration.
 */
#include "internal.h"

#include <string.h>

#define LEAF_VENDOR UINT32_C(0x40000000)
#define LEAF_INTERFACE UINT32_C(0x40000001)
#define LEAF_VERSION UINT32_C(0x40000002)
#define LEAF_FEATURES UINT32_C(0x40000003)
#define LEAF_RECOMMENDATIONS UINT32_C(0x40000004)
#define LEAF_LIMITS UINT32_C(0x40000005)
#define LEAF_HARDWARE UINT32_C(0x40000006)
#define LEAF_MAXIMUM LEAF_HARDWARE
/* The synthetic debugger's, later than 2.0a. */
#define LEAF_DEBUGGER UINT32_C(0x40000080)
#define LEAF_DEBUGGER_INTERFACE UINT32_C(0x40000081)
#define LEAF_DEBUGGER_CAPABILITIES UINT32_C(0x40000082)

/* In LEAF_FEATURES EDX; they follow from there being a debugger, so they are no rows of tlfs/features.def. */
#define FEATURE_GUEST_DEBUGGING (UINT32_C(1) << 1)
#define FEATURE_DEBUG_MSRS (UINT32_C(1) << 11) /* later than 2.0a */

#define CAPABILITY_KERNEL_DEBUGGING (UINT32_C(1) << 1)

/* Who cannot change leaves has no room for as many as there would be up to these. */
static bool has_synthetic_debugger(const struct hv_partition *partition)
{
    const struct hv_config *config = &partition->hv->config;

    return config->debugging && config->generation == HV_GEN_CURRENT && !config->fixed_cpuid &&
           hv_has_privilege(partition, HV_PRIVILEGE_Debugging);
}

static void vendor(const struct hv_partition *partition, struct hv_cpuid *out)
{
    out->eax = has_synthetic_debugger(partition) ? LEAF_DEBUGGER_CAPABILITIES : LEAF_MAXIMUM;
    out->ebx = 0x7263694D; /* "Micr" */
    out->ecx = 0x666F736F; /* "osof" */
    out->edx = 0x76482074; /* "t Hv" */
}

/*
 * The text keeps this leaf at zero until the guest has told its identity. Deployed guests read it before that and log
 * what they find, and the deployed hypervisor answers them: so does the current generation, and who cannot change it.
 */
static void version(const struct hv_partition *partition, struct hv_cpuid *out)
{
    const struct hv_config *config = &partition->hv->config;

    if (config->generation == HV_GEN_2008R2 && atomic_load(&partition->guest_os_id) == 0 && !config->fixed_cpuid)
        return;
    out->eax = config->build_number;
    out->ebx = (uint32_t)config->major_version << 16 | config->minor_version;
    out->ecx = config->service_pack;
    out->edx = (uint32_t)config->service_branch << 24 | (config->service_number & 0xFFFFFF);
}

static void features(const struct hv_partition *partition, struct hv_cpuid *out)
{
    out->eax = (uint32_t)partition->privileges;
    out->ebx = (uint32_t)(partition->privileges >> 32);
    out->edx = partition->features;
    if (partition->hv->config.debugging)
        out->edx |= FEATURE_GUEST_DEBUGGING;
    if (has_synthetic_debugger(partition))
        out->edx |= FEATURE_DEBUG_MSRS;
}

static void debugger(const struct hv_partition *partition, uint32_t leaf, struct hv_cpuid *out)
{
    if (!has_synthetic_debugger(partition))
        return;
    if (leaf == LEAF_DEBUGGER) {
        out->eax = LEAF_DEBUGGER_CAPABILITIES;
        out->ebx = 0x7263694D; /* "Micr" */
        out->ecx = 0x666F736F; /* "osof" */
        out->edx = 0x53562074; /* "t VS" */
    } else if (leaf == LEAF_DEBUGGER_INTERFACE) {
        out->eax = 0x31235356; /* "VS#1" */
    } else {
        out->eax = CAPABILITY_KERNEL_DEBUGGING;
    }
}

static void recommendations(const struct hv_partition *partition, struct hv_cpuid *out)
{
    out->eax = partition->recommendations;
    out->ebx = partition->spinlock_retries;
}

static void limits(const struct hv_partition *partition, struct hv_cpuid *out)
{
    out->eax = HV_MAX_VPS;
    out->ebx = partition->vp_count;
}

void hv_cpuid(const struct hv_partition *partition, uint32_t leaf, struct hv_cpuid *out)
{
    memset(out, 0, sizeof(*out));
    switch (leaf) {
    case LEAF_VENDOR:
        vendor(partition, out);
        break;
    case LEAF_INTERFACE:
        out->eax = 0x31237648; /* "Hv#1" */
        break;
    case LEAF_VERSION:
        version(partition, out);
        break;
    case LEAF_FEATURES:
        features(partition, out);
        break;
    case LEAF_RECOMMENDATIONS:
        recommendations(partition, out);
        break;
    case LEAF_LIMITS:
        limits(partition, out);
        break;
    case LEAF_DEBUGGER:
    case LEAF_DEBUGGER_INTERFACE:
    case LEAF_DEBUGGER_CAPABILITIES:
        debugger(partition, leaf, out);
        break;
    default: /* LEAF_HARDWARE: no hardware help is in use; others do not exist */
        break;
    }
}

bool hv_tsc_is_invariant(const struct hv_partition *partition)
{
    return atomic_load(&partition->tsc_invariant_control) & 1;
}

/* Later than 2.0a: a guest that writes 1 promises to cope with a TSC that CPUID calls invariant. */
enum hv_exit hv_msr_read_tsc_invariant_control(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    (void)offset;
    *value = atomic_load(&vp->partition->tsc_invariant_control);
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_write_tsc_invariant_control(struct hv_vp *vp, uint32_t offset, uint64_t value)
{
    (void)offset;
    if (value & ~UINT64_C(1))
        return HV_EXIT_GP;
    atomic_store(&vp->partition->tsc_invariant_control, value);
    vp->hv->ops->cpuid_changed(vp->hv->context);
    return HV_EXIT_DONE;
}
