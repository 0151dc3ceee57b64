/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 5: the machine's partition, its creation and reset.
 */
#include "internal.h"

#include <string.h>

#ifndef NDEBUG
_Thread_local int hv_vp_locks_held;
#endif

/* Bits that exist in a generation. */
static uint64_t privileges_of(enum hv_generation generation)
{
    uint64_t mask = 0;
#define HV_PRIVILEGE_ROW(bit, name, property, gens, guest_default)                                                     \
    mask |= (uint64_t)(((gens)&generation) != 0) << (bit);
#include "tlfs/privileges.def"
#undef HV_PRIVILEGE_ROW
    return mask;
}

static uint32_t features_of(enum hv_generation generation)
{
    uint32_t mask = 0;
#define HV_FEATURE_ROW(bit, name, property, gens, guest_default) mask |= (uint32_t)(((gens)&generation) != 0) << (bit);
#include "tlfs/features.def"
#undef HV_FEATURE_ROW
    return mask;
}

static uint32_t recommendations_of(enum hv_generation generation)
{
    uint32_t mask = 0;
#define HV_RECOMMENDATION_ROW(bit, name, property, gens, guest_default)                                                \
    mask |= (uint32_t)(((gens)&generation) != 0) << (bit);
#include "tlfs/recommendations.def"
#undef HV_RECOMMENDATION_ROW
    return mask;
}

void hv_config_defaults(struct hv_config *config, enum hv_generation generation)
{
    memset(config, 0, sizeof(*config));
    config->generation = generation;
#define HV_PRIVILEGE_ROW(bit, name, property, gens, guest_default)                                                     \
    config->privileges |= UINT64_C(guest_default) << (bit);
#include "tlfs/privileges.def"
#undef HV_PRIVILEGE_ROW
#define HV_FEATURE_ROW(bit, name, property, gens, guest_default) config->features |= UINT32_C(guest_default) << (bit);
#include "tlfs/features.def"
#undef HV_FEATURE_ROW
#define HV_RECOMMENDATION_ROW(bit, name, property, gens, guest_default)                                                \
    config->recommendations |= UINT32_C(guest_default) << (bit);
#include "tlfs/recommendations.def"
#undef HV_RECOMMENDATION_ROW
    config->privileges &= privileges_of(generation);
    config->features &= features_of(generation);
    config->recommendations &= recommendations_of(generation);
    config->spinlock_retries = 0xFFF;
    if (generation == HV_GEN_2008R2) {
        config->major_version = 6;
        config->minor_version = 1;
        config->build_number = 7601;
        config->service_pack = 1;
    } else {
        config->major_version = 10;
        config->build_number = 27744;
    }
}

static const char *check_config(const struct hv_config *config)
{
    if (config->generation != HV_GEN_2008R2 && config->generation != HV_GEN_CURRENT)
        return "the interface generation must be 2008r2 or current";
    if (config->vp_count == 0 || config->vp_count > HV_MAX_VPS)
        return "a partition has 1 to 1024 virtual processors";
    if (config->gpa_bits < 32 || config->gpa_bits > 52)
        return "the physical address width must be 32 to 52 bits";
    /* Reference time counts 100 ns: a slower TSC could not be scaled to it (TLFS 15.4.3). */
    if (config->tsc_frequency <= 10000000)
        return "the TSC frequency must be above 10 MHz";
    return NULL;
}

static bool create_vps(struct hv *hv)
{
    hv->vps = calloc(hv->config.vp_count, sizeof(struct hv_vp *));
    if (!hv->vps)
        return false;
    for (hv_vp_index i = 0; i < hv->config.vp_count; i++) {
        struct hv_vp *vp = aligned_alloc(_Alignof(struct hv_vp), sizeof(struct hv_vp));

        if (!vp)
            return false;
        memset(vp, 0, sizeof(*vp));
        vp->hv = hv;
        vp->index = i;
        hv_vp_lock_init(&vp->lock);
        hv->vps[i] = vp;
        hv->all_vps.bank[i / 64] |= UINT64_C(1) << (i % 64);
    }
    return true;
}

struct hv *hv_create(const struct hv_config *config, const struct hv_platform_ops *ops, void *context,
                     const char **error)
{
    struct hv *hv;

    *error = check_config(config);
    if (*error)
        return NULL;
    hv = aligned_alloc(_Alignof(struct hv), sizeof(struct hv));
    if (!hv) {
        *error = "out of memory";
        return NULL;
    }
    memset(hv, 0, sizeof(*hv));
    hv->config = *config;
    hv->config.privileges &= privileges_of(config->generation);
    hv->config.features &= features_of(config->generation);
    hv->config.recommendations &= recommendations_of(config->generation);
    hv->ops = ops;
    hv->context = context;
    hv->gpa_limit = UINT64_C(1) << config->gpa_bits;
    hv->vp_banks = (config->vp_count + 63) / 64;
    hv_vp_lock_init(&hv->partition_lock);
    hv_port_lock_init(&hv->port_lock);
    if (!create_vps(hv)) {
        hv_destroy(hv);
        *error = "out of memory";
        return NULL;
    }
    memset(hv->hypercall_page, 0xCC, sizeof(hv->hypercall_page)); /* INT3: nothing but the call is there to run */
    ops->hypercall_code(context, hv->hypercall_page);
    hv_hypercall_init(hv);
    hv_msr_init(hv);
    hv_time_init(hv);
    for (hv_vp_index i = 0; i < config->vp_count; i++)
        hv_vp_reset(hv->vps[i]);
    return hv;
}

void hv_destroy(struct hv *hv)
{
    if (!hv)
        return;
    hv_ports_free(hv);
    for (hv_vp_index i = 0; hv->vps && i < hv->config.vp_count; i++) {
        if (hv->vps[i])
            hv_vp_lock_destroy(&hv->vps[i]->lock);
        free(hv->vps[i]);
    }
    free(hv->vps);
    hv_port_lock_destroy(&hv->port_lock);
    hv_vp_lock_destroy(&hv->partition_lock);
    free(hv);
}

const struct hv_config *hv_get_config(const struct hv *hv)
{
    return &hv->config;
}

struct hv_vp *hv_get_vp(struct hv *hv, hv_vp_index index)
{
    return index < hv->config.vp_count ? hv->vps[index] : NULL;
}

void hv_reset(struct hv *hv)
{
    atomic_store(&hv->guest_os_id, 0);
    atomic_store(&hv->hypercall_msr, 0);
    atomic_store(&hv->reference_tsc_msr, 0);
    atomic_store(&hv->crash_control, 0);
    atomic_store(&hv->tsc_invariant_control, 0);
    for (unsigned i = 0; i < 5; i++)
        atomic_store(&hv->crash_parameters[i], 0);
    hv_ports_reset(hv);
    for (hv_vp_index i = 0; i < hv->config.vp_count; i++)
        hv_vp_reset(hv->vps[i]);
    hv_show_all_overlays(hv);
}

/* -- Overlay pages (TLFS 8.1.3) -- */

void hv_show_overlay(struct hv *hv, enum hv_overlay_kind kind, hv_vp_index vp, void *page, uint64_t msr,
                     enum hv_overlay_access access)
{
    hv_gpa gpa = msr & HV_PAGE_MASK;
    bool enabled = (msr & HV_PAGE_MSR_ENABLE) && gpa < hv->gpa_limit;

    HV_ASSERT_NO_VP_LOCK();
    hv->ops->set_overlay(hv->context, kind, vp, page, enabled, enabled ? gpa : 0, access);
}

void hv_show_all_overlays(struct hv *hv)
{
    hv_show_overlay(hv, HV_OVERLAY_HYPERCALL, 0, hv->hypercall_page, atomic_load(&hv->hypercall_msr),
                    HV_OVERLAY_READ_EXECUTE);
    hv_show_overlay(hv, HV_OVERLAY_REFERENCE_TSC, 0, hv->reference_tsc_bytes, atomic_load(&hv->reference_tsc_msr),
                    HV_OVERLAY_READ_WRITE);
    for (hv_vp_index i = 0; i < hv->config.vp_count; i++) {
        struct hv_vp *vp = hv->vps[i];

        hv_show_overlay(hv, HV_OVERLAY_APIC_ASSIST, i, vp->apic_assist_page, vp->apic_assist_msr,
                        HV_OVERLAY_READ_WRITE);
        hv_show_overlay(hv, HV_OVERLAY_SIEF, i, vp->sief_page, atomic_load(&vp->siefp), HV_OVERLAY_READ_WRITE);
        hv_show_overlay(hv, HV_OVERLAY_SIM, i, vp->sim_page, atomic_load(&vp->simp), HV_OVERLAY_READ_WRITE);
    }
}

/* -- Hypercalls and views -- */

/* TLFS 5.6.7 */
hv_status hv_call_get_partition_id(struct hv_call *call)
{
    hv_partition_id id = HV_PARTITION_ID_GUEST;

    memcpy(call->output, &id, sizeof(id));
    return HV_STATUS_SUCCESS;
}

void hv_get_partition_state(struct hv *hv, struct hv_partition_state *state)
{
    memset(state, 0, sizeof(*state));
    state->id = HV_PARTITION_ID_GUEST;
    state->guest_os_id = atomic_load(&hv->guest_os_id);
    state->hypercall_msr = atomic_load(&hv->hypercall_msr);
    state->reference_tsc_msr = atomic_load(&hv->reference_tsc_msr);
    state->crash_control = atomic_load(&hv->crash_control);
    for (unsigned i = 0; i < 5; i++)
        state->crash_parameters[i] = atomic_load(&hv->crash_parameters[i]);
    state->reference_time = hv_reference_time(hv);
    state->tsc_scale = hv->tsc_scale;
    state->tsc_offset = hv->tsc_offset;
    state->tsc_sequence = hv->tsc_sequence;
    state->privileges = hv->config.privileges;
    state->features = hv->config.features;
    state->recommendations = hv->config.recommendations;
    state->hypercall_page_enabled = state->hypercall_msr & HV_PAGE_MSR_ENABLE;
    state->tsc_page_enabled = state->reference_tsc_msr & HV_PAGE_MSR_ENABLE;
}

void hv_set_trace(struct hv *hv, bool on)
{
    atomic_store(&hv->trace, on);
}
