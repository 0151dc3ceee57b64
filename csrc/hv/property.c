/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS 5.2: partition properties. A value that no partition may have answers INVALID_PARAMETER; one that this partition
 * may not have (a read-only property, a limit that others set) answers PROPERTY_VALUE_OUT_OF_RANGE.
 *
 * HvSetPartitionProperty holds the structure lock for writing, since some rules are about all partitions together.
 */
#include "internal.h"

#include <string.h>

/* HV_PARTITION_PROPERTY_CODE (TLFS 5.2.2) */
enum property {
    PRIVILEGE_FLAGS = 0x00010000,
    CPU_RESERVE = 0x00020001,
    CPU_CAP = 0x00020002,
    CPU_WEIGHT = 0x00020003,
    EMULATED_TIMER_PERIOD = 0x00030000,
    EMULATED_TIMER_CONTROL = 0x00030001,
    PM_TIMER_ASSIST = 0x00030002,
    DEBUG_CHANNEL_ID = 0x00040000,
    VIRTUAL_TLB_PAGE_COUNT = 0x00050000,
    PROCESSOR_VENDOR = 0x00060000,
    PROCESSOR_FEATURES = 0x00060001,
    PROCESSOR_XSAVE_FEATURES = 0x00060002,
    PROCESSOR_CLFLUSH_SIZE = 0x00060003,
};

#define WHOLE_CPU UINT64_C(0x10000) /* TLFS 18.2.1 */
#define WEIGHT_DEFAULT 100
#define WEIGHT_MAXIMUM 10000
#define TIMER_CONTROL_ENABLED (UINT64_C(1) << 12) /* TLFS 15.1.5 */
#define TIMER_CONTROL_RESERVED UINT64_C(0x00FFFFFFFFFFE000)
#define PM_TIMER_RESERVED (~UINT64_C(0x3FFFF)) /* TLFS 15.1.6 */
#define FEATURES_RESERVED (~UINT64_C(0x7FFF)) /* TLFS 5.2.8 */
#define XSAVE_FEATURE UINT64_C(1) /* TLFS 5.2.9: without it there are no others */
#define XSAVE_RESERVED (~UINT64_C(7))
#define CLFLUSH_MAXIMUM 0xFF /* as wide as CPUID has it */
enum { VENDOR_AMD, VENDOR_INTEL }; /* TLFS 5.2.7 */

struct property_input {
    hv_partition_id partition;
    uint32_t code;
    uint32_t padding;
    uint64_t value;
};

/* -- Privileges (TLFS 5.2.3) -- */

uint64_t hv_privileges_of(enum hv_generation generation)
{
    uint64_t mask = 0;
#define HV_PRIVILEGE_ROW(bit, name, property, gens, ...) mask |= (uint64_t)(((gens)&generation) != 0) << (bit);
#include "tlfs/privileges.def"
#undef HV_PRIVILEGE_ROW
    return mask;
}

/* CpuManagement would bind a child's VPs to LPs: it is the root's alone, as the text allows. */
uint64_t hv_child_privileges_limit(const struct hv_partition *parent)
{
    return atomic_load(&parent->privileges) & ~(UINT64_C(1) << HV_PRIVILEGE_CpuManagement);
}

uint64_t hv_child_privileges(const struct hv_partition *parent)
{
    uint64_t mask = 0;
#define HV_PRIVILEGE_ROW(bit, name, property, gens, guest_default, root_default, child_default)                        \
    mask |= UINT64_C(child_default) << (bit);
#include "tlfs/privileges.def"
#undef HV_PRIVILEGE_ROW
    return mask & hv_child_privileges_limit(parent);
}

static hv_status set_privileges(struct hv_partition *partition, uint64_t value)
{
    const struct hv *hv = partition->hv;
    uint64_t changed = value ^ atomic_load(&partition->privileges), limit, fixed = 0;

    if (value & ~hv_privileges_of(hv->config.generation))
        return HV_STATUS_INVALID_PARAMETER;
    if (partition->parent) {
        limit = hv_child_privileges_limit(partition->parent);
    } else {
        limit = hv->config.privileges;
        fixed = UINT64_C(1) << HV_PRIVILEGE_CpuManagement; /* its VPs stay bound to their LPs (TLFS 22.4) */
    }
    /* What the partition has already it may keep, also if its parent has lost it meanwhile. */
    if ((changed & fixed) || (changed & value & ~limit))
        return HV_STATUS_PROPERTY_VALUE_OUT_OF_RANGE;
    /* A partition that is active already gets what debugging needs now (TLFS 20.1.1). */
    if (hv_partition_is_active(partition) && (value >> HV_PRIVILEGE_Debugging & 1)) {
        hv_status status = hv_debug_session_create(partition);

        if (status != HV_STATUS_SUCCESS)
            return status;
    }
    atomic_store(&partition->privileges, value);
    return HV_STATUS_SUCCESS;
}

/* -- Scheduling (TLFS 18.2); the scheduler reads these at any time -- */

static void store(uint64_t *property, uint64_t value)
{
    __atomic_store_n(property, value, __ATOMIC_RELAXED);
}

/* The reserves of all VPs must fit into the LPs: whether they do when this partition has that reserve and VP count. */
static bool reserves_fit(const struct hv_partition *partition, uint64_t reserve, uint64_t vp_count)
{
    const struct hv *hv = partition->hv;
    uint64_t total = reserve * vp_count;

    for (unsigned i = 0; i < HV_PARTITION_BUCKETS; i++) {
        for (const struct hv_partition *p = hv->partitions[i]; p; p = p->next_in_bucket) {
            if (p != partition)
                total += p->properties.cpu_reserve * p->vp_count;
        }
    }
    return total <= hv->lp_count * WHOLE_CPU;
}

bool hv_reserve_allows_vp(const struct hv_partition *partition)
{
    uint64_t reserve = partition->properties.cpu_reserve;

    return reserve == 0 || reserves_fit(partition, reserve, (uint64_t)partition->vp_count + 1);
}

static hv_status set_reserve(struct hv_partition *partition, uint64_t value)
{
    if (value > WHOLE_CPU)
        return HV_STATUS_INVALID_PARAMETER;
    if (value > partition->properties.cpu_cap || !reserves_fit(partition, value, partition->vp_count))
        return HV_STATUS_PROPERTY_VALUE_OUT_OF_RANGE;
    store(&partition->properties.cpu_reserve, value);
    hv_scheduler_properties_changed(partition);
    return HV_STATUS_SUCCESS;
}

static hv_status set_cap(struct hv_partition *partition, uint64_t value)
{
    if (value > WHOLE_CPU)
        return HV_STATUS_INVALID_PARAMETER;
    if (value < partition->properties.cpu_reserve)
        return HV_STATUS_PROPERTY_VALUE_OUT_OF_RANGE;
    store(&partition->properties.cpu_cap, value);
    hv_scheduler_properties_changed(partition);
    return HV_STATUS_SUCCESS;
}

static hv_status set_weight(struct hv_partition *partition, uint64_t value)
{
    if (value == 0 || value > WEIGHT_MAXIMUM)
        return HV_STATUS_INVALID_PARAMETER;
    store(&partition->properties.cpu_weight, value);
    hv_scheduler_properties_changed(partition);
    return HV_STATUS_SUCCESS;
}

/* -- Timer assists (TLFS 15.1.5, 15.1.6) -- */

static hv_status set_timer_period(struct hv_partition *partition, uint64_t value)
{
    hv_partition_lock_take(&partition->lock);
    partition->properties.emulated_timer_period = value;
    if (value == 0)
        partition->properties.emulated_timer_control &= ~TIMER_CONTROL_ENABLED;
    hv_partition_lock_drop(&partition->lock);
    hv_emulated_timer_changed(partition);
    return HV_STATUS_SUCCESS;
}

static hv_status set_timer_control(struct hv_partition *partition, uint64_t value)
{
    if (value & TIMER_CONTROL_RESERVED)
        return HV_STATUS_INVALID_PARAMETER;
    hv_partition_lock_take(&partition->lock);
    partition->properties.emulated_timer_control = value;
    hv_partition_lock_drop(&partition->lock);
    hv_emulated_timer_changed(partition);
    return HV_STATUS_SUCCESS;
}

static hv_status set_pm_timer(struct hv_partition *partition, uint64_t value)
{
    if (value & PM_TIMER_RESERVED)
        return HV_STATUS_INVALID_PARAMETER;
    store(&partition->properties.pm_timer_assist, value); /* looked at by every IN */
    return HV_STATUS_SUCCESS;
}

/* -- Others -- */

/* TLFS 20.1.1: one partition to a channel; 0 is none. */
static hv_status set_debug_channel(struct hv_partition *partition, uint64_t value)
{
    const struct hv *hv = partition->hv;

    if (value > UINT16_MAX)
        return HV_STATUS_INVALID_PARAMETER;
    for (unsigned i = 0; value && i < HV_PARTITION_BUCKETS; i++) {
        for (const struct hv_partition *p = hv->partitions[i]; p; p = p->next_in_bucket) {
            if (p != partition && p->properties.debug_channel == value)
                return HV_STATUS_OBJECT_IN_USE;
        }
    }
    store(&partition->properties.debug_channel, value); /* looked at by calls that hold no lock */
    return HV_STATUS_SUCCESS;
}

/* TLFS 5.2.6: a count out of bounds becomes the nearest that is not. An uninitialized partition pays when initialized.
 */
static hv_status set_virtual_tlb_pages(struct hv_partition *partition, uint64_t value)
{
    uint64_t old = partition->properties.virtual_tlb_pages;

    if (value < HV_COST_VirtualTlbMinimum)
        value = HV_COST_VirtualTlbMinimum;
    if (value > HV_COST_VirtualTlbMaximum)
        value = HV_COST_VirtualTlbMaximum;
    if (hv_partition_is_active(partition)) {
        if (value > old && !hv_pool_charge(partition, value - old))
            return HV_STATUS_INSUFFICIENT_MEMORY;
        if (value < old)
            hv_pool_release(partition, old - value);
    }
    if (value > old)
        HV_LOG_AT(partition->hv, hv_calling_vp, hv_event_lp(hv_calling_vp), AM_GVA_GROW_VIRTUAL_TLB, old, value);
    else if (value < old)
        HV_LOG_AT(partition->hv, hv_calling_vp, hv_event_lp(hv_calling_vp), AM_GVA_SHRINK_VIRTUAL_TLB, old, value,
                  old - value);
    partition->properties.virtual_tlb_pages = value;
    hv_stats_properties_changed(partition);
    return HV_STATUS_SUCCESS;
}

static uint64_t vendor(const struct hv_partition *partition)
{
    return partition->hv->config.intel ? VENDOR_INTEL : VENDOR_AMD;
}

static hv_status check_vendor(const struct hv_partition *partition, uint64_t value)
{
    if (value != VENDOR_AMD && value != VENDOR_INTEL)
        return HV_STATUS_INVALID_PARAMETER;
    return value == vendor(partition) ? HV_STATUS_SUCCESS : HV_STATUS_PROPERTY_VALUE_OUT_OF_RANGE;
}

/* The root's are what its processors have; another partition's are a part of them (TLFS 5.2.8 to 5.2.10). */
static hv_status set_within(struct hv_partition *partition, uint64_t *property, uint64_t value, bool within)
{
    if (!within || (!partition->parent && value != *property))
        return HV_STATUS_PROPERTY_VALUE_OUT_OF_RANGE;
    store(property, value);
    return HV_STATUS_SUCCESS;
}

static hv_status set_features(struct hv_partition *partition, uint64_t value)
{
    if (value & FEATURES_RESERVED)
        return HV_STATUS_INVALID_PARAMETER;
    return set_within(partition, &partition->properties.processor_features, value,
                      !(value & ~partition->hv->config.processor_features));
}

static hv_status set_xsave_features(struct hv_partition *partition, uint64_t value)
{
    bool complete = value == 0 || (value & XSAVE_FEATURE);

    if (value & XSAVE_RESERVED)
        return HV_STATUS_INVALID_PARAMETER;
    return set_within(partition, &partition->properties.xsave_features, value,
                      complete && !(value & ~partition->hv->config.xsave_features));
}

/* A line that is told larger than the processor flushes would lose data. */
static hv_status set_clflush_size(struct hv_partition *partition, uint64_t value)
{
    if (value == 0 || value > CLFLUSH_MAXIMUM)
        return HV_STATUS_INVALID_PARAMETER;
    return set_within(partition, &partition->properties.clflush_size, value,
                      value <= partition->hv->config.clflush_size);
}

void hv_properties_reset(struct hv_partition *partition)
{
    const struct hv_config *config = &partition->hv->config;

    partition->properties = (struct hv_partition_properties){
        .cpu_cap = WHOLE_CPU,
        .cpu_weight = WEIGHT_DEFAULT,
        .virtual_tlb_pages = HV_COST_VirtualTlbDefault,
        .processor_features = config->processor_features & ~FEATURES_RESERVED,
        .xsave_features = config->xsave_features & ~XSAVE_RESERVED,
        .clflush_size = config->clflush_size,
    };
    hv_stats_properties_changed(partition);
}

/* -- Hypercalls -- */

/* Deployed parents set properties before they initialize a child; 2.0a wants it active first. */
static bool state_allows(const struct hv_partition *partition)
{
    unsigned state = atomic_load(&partition->state);

    return state == HV_PARTITION_ACTIVE ||
           (state == HV_PARTITION_UNINITIALIZED && partition->hv->config.generation == HV_GEN_CURRENT);
}

static hv_status get(const struct hv_partition *partition, uint32_t code, uint64_t *value)
{
    const struct hv_partition_properties *properties = &partition->properties;

    switch (code) {
    case PRIVILEGE_FLAGS:
        *value = atomic_load(&partition->privileges);
        break;
    case CPU_RESERVE:
        *value = properties->cpu_reserve;
        break;
    case CPU_CAP:
        *value = properties->cpu_cap;
        break;
    case CPU_WEIGHT:
        *value = properties->cpu_weight;
        break;
    case EMULATED_TIMER_PERIOD:
        *value = properties->emulated_timer_period;
        break;
    case EMULATED_TIMER_CONTROL:
        *value = properties->emulated_timer_control;
        break;
    case PM_TIMER_ASSIST:
        *value = properties->pm_timer_assist;
        break;
    case DEBUG_CHANNEL_ID:
        *value = properties->debug_channel;
        break;
    case VIRTUAL_TLB_PAGE_COUNT:
        *value = properties->virtual_tlb_pages;
        break;
    case PROCESSOR_VENDOR:
        *value = vendor(partition);
        break;
    case PROCESSOR_FEATURES:
        *value = properties->processor_features;
        break;
    case PROCESSOR_XSAVE_FEATURES:
        *value = properties->xsave_features;
        break;
    case PROCESSOR_CLFLUSH_SIZE:
        *value = properties->clflush_size;
        break;
    default:
        return HV_STATUS_UNKNOWN_PROPERTY;
    }
    return HV_STATUS_SUCCESS;
}

static hv_status set(struct hv_partition *partition, uint32_t code, uint64_t value)
{
    switch (code) {
    case PRIVILEGE_FLAGS:
        return set_privileges(partition, value);
    case CPU_RESERVE:
        return set_reserve(partition, value);
    case CPU_CAP:
        return set_cap(partition, value);
    case CPU_WEIGHT:
        return set_weight(partition, value);
    case EMULATED_TIMER_PERIOD:
        return set_timer_period(partition, value);
    case EMULATED_TIMER_CONTROL:
        return set_timer_control(partition, value);
    case PM_TIMER_ASSIST:
        return set_pm_timer(partition, value);
    case DEBUG_CHANNEL_ID:
        return set_debug_channel(partition, value);
    case VIRTUAL_TLB_PAGE_COUNT:
        return set_virtual_tlb_pages(partition, value);
    case PROCESSOR_VENDOR:
        return check_vendor(partition, value);
    case PROCESSOR_FEATURES:
        return set_features(partition, value);
    case PROCESSOR_XSAVE_FEATURES:
        return set_xsave_features(partition, value);
    case PROCESSOR_CLFLUSH_SIZE:
        return set_clflush_size(partition, value);
    default:
        return HV_STATUS_UNKNOWN_PROPERTY;
    }
}

/* TLFS 5.6.5 */
hv_status hv_call_get_partition_property(struct hv_call *call)
{
    const struct property_input *in = call->input;
    hv_status status;
    uint64_t value;

    if (!state_allows(call->partition))
        return HV_STATUS_INVALID_PARTITION_STATE;
    status = get(call->partition, in->code, &value);
    if (status == HV_STATUS_SUCCESS)
        memcpy(call->output, &value, sizeof(value));
    return status;
}

/* TLFS 5.6.6 */
hv_status hv_call_set_partition_property(struct hv_call *call)
{
    const struct property_input *in = call->input;

    if (!state_allows(call->partition))
        return HV_STATUS_INVALID_PARTITION_STATE;
    return set(call->partition, in->code, in->value);
}
