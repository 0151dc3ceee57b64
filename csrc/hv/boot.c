/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 22: the machine and its own partition, from its launch to its end.
 *
 * What a root partition finds after the launch (22.3): it is the only partition and active; it has a VP for each LP,
 * bound to it, and none is suspended; its GPA space shows all RAM at its own address with all rights (gpa_space.c); its
 * scheduling properties have their default values; the hypercall page, the SynIC and its timers are not enabled yet;
 * and it has all privileges (22.4) that the operator left it. What it cannot do to itself follows from having no
 * parent: the relation column of tlfs/hypercalls.def.
 */
#include "inject.h"

#include <string.h>

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

/* The features that every 64-bit processor with virtualization extensions has: the compatibility mode of TLFS 5.2.11.
 */
#define COMPATIBLE_FEATURES UINT64_C(0x103) /* SSE3, LAHF and SAHF, CMPXCHG16B */
#define COMPATIBLE_CLFLUSH_SIZE 8 /* in units of 8 bytes, as CPUID has it */

void hv_config_defaults(struct hv_config *config, enum hv_generation generation)
{
    memset(config, 0, sizeof(*config));
    config->generation = generation;
#define HV_PRIVILEGE_ROW(bit, name, property, gens, guest_default, ...)                                                \
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
    config->privileges &= hv_privileges_of(generation);
    config->features &= features_of(generation);
    config->recommendations &= recommendations_of(generation);
    config->spinlock_retries = 0xFFF;
    config->processor_features = COMPATIBLE_FEATURES;
    config->clflush_size = COMPATIBLE_CLFLUSH_SIZE;
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

void hv_config_root_defaults(struct hv_config *config, enum hv_generation generation)
{
    hv_config_defaults(config, generation);
    config->root = true;
    config->privileges = 0;
#define HV_PRIVILEGE_ROW(bit, name, property, gens, guest_default, root_default, child_default)                        \
    config->privileges |= UINT64_C(root_default) << (bit);
#include "tlfs/privileges.def"
#undef HV_PRIVILEGE_ROW
    config->privileges &= hv_privileges_of(generation);
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
    if (config->root && config->apic_frequency == 0)
        return "the frequency of the APIC timers must be above 0";
    return NULL;
}

static bool create_vps(struct hv_partition *partition)
{
    for (hv_vp_index i = 0; i < partition->vp_limit; i++) {
        struct hv_vp *vp;

        if (!hv_vp_allocate(partition->hv, &vp))
            return false;
        vp->made = true; /* the machine's own processors are there */
        hv_vp_insert(partition, vp, i);
    }
    return true;
}

static bool create_machine_partition(struct hv *hv)
{
    const struct hv_config *config = &hv->config;
    struct hv_partition *partition = hv_partition_allocate(hv, config->vp_count);

    if (!partition)
        return false;
    hv->machine_partition = partition;
    partition->is_root = partition->second_stage = config->root;
    atomic_store(&partition->state, HV_PARTITION_ACTIVE);
    atomic_store(&partition->privileges, config->privileges);
    partition->features = config->features;
    partition->recommendations = config->recommendations;
    partition->spinlock_retries = config->spinlock_retries;
    hv_partition_insert(partition, HV_PARTITION_ID_MACHINE);
    hv_properties_reset(partition);
    if (!hv_pool_create(partition, HV_COST_RootPool))
        return false;
    if (hv_has_privilege(partition, HV_PRIVILEGE_Debugging) && hv_debug_session_create(partition) != HV_STATUS_SUCCESS)
        return false;
    if (config->root && (!hv_scheduler_init(hv) || !hv_gpa_space_create(partition)))
        return false;
    if (!hv_event_log_create(hv))
        return false;
    return create_vps(partition);
}

struct hv *hv_create(const struct hv_config *config, const struct hv_platform_ops *ops, void *context,
                     const char **error)
{
    struct hv *hv;

    *error = check_config(config);
    if (*error)
        return NULL;
    hv = calloc(1, sizeof(struct hv));
    if (!hv) {
        *error = "out of memory";
        return NULL;
    }
    hv->config = *config;
    hv->config.privileges &= hv_privileges_of(config->generation);
    hv->config.features &= features_of(config->generation);
    hv->config.recommendations &= recommendations_of(config->generation);
    hv->ops = ops;
    hv->context = context;
    hv->gpa_limit = UINT64_C(1) << config->gpa_bits;
    atomic_store(&hv->translation_epoch, 1);
    hv->next_partition_id = HV_PARTITION_ID_MACHINE + 1;
    hv_structure_lock_init(&hv->structure);
    hv_hypercall_init(hv);
    hv_msr_init(hv);
    if (!hv_stats_create(hv) || !create_machine_partition(hv)) {
        hv_destroy(hv);
        *error = "out of memory";
        return NULL;
    }
    hv_time_init(hv->machine_partition);
    for (hv_vp_index i = 0; i < config->vp_count; i++)
        hv_vp_reset(hv->machine_partition->vps[i]);
    return hv;
}

void hv_destroy(struct hv *hv)
{
    if (!hv)
        return;
    hv_calling_vp = NULL; /* no VP runs */
    atomic_store(&hv->events_wanted, 0);
    hv_set_attention(hv, ~0u, 0);
    for (unsigned i = 0; i < HV_PARTITION_BUCKETS; i++) {
        for (struct hv_partition *p = hv->partitions[i]; p; p = p->next_in_bucket)
            hv_transfers_free(p); /* while those who pay for them are there */
    }
    for (unsigned i = 0; i < HV_PARTITION_BUCKETS; i++) {
        while (hv->partitions[i]) {
            struct hv_partition *partition = hv->partitions[i];

            hv->partitions[i] = partition->next_in_bucket;
            hv_partition_free(partition);
        }
    }
    for (unsigned i = 0; i < hv->handle_count; i++)
        hv_vp_free(hv->by_handle[i]);
    hv_monitors_free(hv);
    hv_injection_free(hv);
    hv_scheduler_free(hv);
    hv_event_log_free(hv);
    hv_stats_free(hv);
    free(hv);
}

const struct hv_config *hv_get_config(const struct hv *hv)
{
    return &hv->config;
}

struct hv_partition *hv_machine_partition(struct hv *hv)
{
    return hv->machine_partition;
}

struct hv_vp *hv_get_vp(struct hv *hv, hv_vp_index index)
{
    return hv_partition_vp(hv->machine_partition, index);
}

struct hv_vp *hv_get_vp_by_handle(struct hv *hv, hv_vp_handle handle)
{
    return handle < HV_MAX_VPS ? hv->by_handle[handle] : NULL;
}

static void reset_registers(struct hv_partition *partition)
{
    atomic_store(&partition->guest_os_id, 0);
    atomic_store(&partition->hypercall_msr, 0);
    atomic_store(&partition->reference_tsc_msr, 0);
    atomic_store(&partition->crash_control, 0);
    atomic_store(&partition->tsc_invariant_control, 0);
    for (unsigned i = 0; i < 5; i++)
        atomic_store(&partition->crash_parameters[i], 0);
}

/* The root is launched again: it has its privileges, properties, rights and pool as at first. */
static void reset_root(struct hv_partition *root)
{
    const struct hv *hv = root->hv;

    hv_event_log_reset(root->hv);
    atomic_store(&root->privileges, hv->config.privileges);
    hv_properties_reset(root);
    hv_pool_return_pages(root);
    hv_gpa_space_reset(root);
    hv_scheduler_park(root->hv, 0);
}

void hv_reset(struct hv *hv)
{
    struct hv_partition *partition = hv->machine_partition;

    hv_calling_vp = NULL; /* no VP runs */
    hv_structure_lock_write(&hv->structure);
    hv_partition_delete_children(partition);
    hv_stats_reset(hv);
    if (partition->is_root)
        reset_root(partition);
    hv_structure_lock_drop(&hv->structure);
    reset_registers(partition);
    hv_debug_session_reset(partition);
    hv_profiler_reset(hv);
    hv_ports_reset(partition);
    for (hv_vp_index i = 0; i < partition->vp_limit; i++) {
        hv_vp_clear_suspend(partition->vps[i], HV_SUSPEND_EXPLICIT | HV_SUSPEND_INTERCEPT);
        hv_vp_reset(partition->vps[i]);
    }
    hv_show_all_overlays(partition);
}

void hv_set_attention(struct hv *hv, unsigned mask, unsigned bits)
{
    unsigned old = atomic_load(&hv->attention);

    while (!atomic_compare_exchange_weak(&hv->attention, &old, (old & ~mask) | bits)) {
    }
}

void hv_set_trace(struct hv *hv, bool on)
{
    hv_set_attention(hv, HV_ATTENTION_TRACE, on ? HV_ATTENTION_TRACE : 0);
}
