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

static void vendor(struct hv_cpuid *out)
{
    out->eax = LEAF_MAXIMUM;
    out->ebx = 0x7263694D; /* "Micr" */
    out->ecx = 0x666F736F; /* "osof" */
    out->edx = 0x76482074; /* "t Hv" */
}

/*
 * The text keeps this leaf at zero until the guest has told its identity. Deployed guests read it before that and log
 * what they find, and the deployed hypervisor answers them: so does the current generation.
 */
static void version(const struct hv *hv, struct hv_cpuid *out)
{
    const struct hv_config *config = &hv->config;

    if (config->generation == HV_GEN_2008R2 && atomic_load(&hv->guest_os_id) == 0)
        return;
    out->eax = config->build_number;
    out->ebx = (uint32_t)config->major_version << 16 | config->minor_version;
    out->ecx = config->service_pack;
    out->edx = (uint32_t)config->service_branch << 24 | (config->service_number & 0xFFFFFF);
}

static void features(const struct hv *hv, struct hv_cpuid *out)
{
    out->eax = (uint32_t)hv->config.privileges;
    out->ebx = (uint32_t)(hv->config.privileges >> 32);
    out->edx = hv->config.features;
}

static void recommendations(const struct hv *hv, struct hv_cpuid *out)
{
    out->eax = hv->config.recommendations;
    out->ebx = hv->config.spinlock_retries;
}

static void limits(const struct hv *hv, struct hv_cpuid *out)
{
    out->eax = HV_MAX_VPS;
    out->ebx = hv->config.vp_count;
}

void hv_cpuid(const struct hv *hv, uint32_t leaf, struct hv_cpuid *out)
{
    memset(out, 0, sizeof(*out));
    switch (leaf) {
    case LEAF_VENDOR:
        vendor(out);
        break;
    case LEAF_INTERFACE:
        out->eax = 0x31237648; /* "Hv#1" */
        break;
    case LEAF_VERSION:
        version(hv, out);
        break;
    case LEAF_FEATURES:
        features(hv, out);
        break;
    case LEAF_RECOMMENDATIONS:
        recommendations(hv, out);
        break;
    case LEAF_LIMITS:
        limits(hv, out);
        break;
    default: /* LEAF_HARDWARE: no hardware help is in use; others do not exist */
        break;
    }
}

bool hv_tsc_is_invariant(const struct hv *hv)
{
    return atomic_load(&hv->tsc_invariant_control) & 1;
}

/* Later than 2.0a: a guest that writes 1 promises to cope with a TSC that CPUID calls invariant. */
enum hv_exit hv_msr_read_tsc_invariant_control(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    (void)offset;
    *value = atomic_load(&vp->hv->tsc_invariant_control);
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_write_tsc_invariant_control(struct hv_vp *vp, uint32_t offset, uint64_t value)
{
    (void)offset;
    if (value & ~UINT64_C(1))
        return HV_EXIT_GP;
    atomic_store(&vp->hv->tsc_invariant_control, value);
    vp->hv->ops->cpuid_changed(vp->hv->context);
    return HV_EXIT_DONE;
}
