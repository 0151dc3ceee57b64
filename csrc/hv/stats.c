/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 21: statistics pages: their content, and who sees them where.
 *
 * An object has one page (21.1.2), which holds its counters themselves (stats.h). So both registers of 21.3.3 for an
 * object, "retail" and "internal", show the same. Levels are written when they change. Only times go on by themselves:
 * they are brought up to date when a page is mapped and then every 10 ms, by a timer that is off while none is.
 *
 * Who may map what. The root: the hypervisor, LPs. A parent: its children and their VPs. A partition may map its own
 * objects too (21.3.2) when it says so by HvStatsObjectSelfStats; the root need not say so in the later generation.
 *
 * Where. In 2.0a, and by the later HvMapStatsPage2, where the caller wants it. The later HvMapStatsPage chooses a page
 * of the root's memory pool, which is memory of the root's that nobody uses; it is in use until it is unmapped.
 */
#include "stats.h"
#include "stream.h"

#define REFRESHES_PER_SECOND 100

#define CORE HV_STATS_BY_CORE
#define PLATFORM HV_STATS_BY_PLATFORM
#define NEVER HV_STATS_BY_NEVER

enum { /* by group */
#define HV_STATS_GROUP_ROW(group, object, id, name, section)                                                           \
    OBJECT_##group = HV_STATS_OBJECT_##object, GROUP_ID_##group = id,
#define HV_STATS_ROW(...)
#include "tlfs/stats_counters.def"
#undef HV_STATS_GROUP_ROW
#undef HV_STATS_ROW
};

const struct hv_stats_group_info hv_stats_groups[HV_STATS_GROUPS] = {
#define HV_STATS_GROUP_ROW(group_, object_, id_, name_, section_)                                                      \
    {.group = #group_, .name = name_, .section = section_, .object = HV_STATS_OBJECT_##object_, .id = id_},
#define HV_STATS_ROW(...)
#include "tlfs/stats_counters.def"
#undef HV_STATS_GROUP_ROW
#undef HV_STATS_ROW
};

const struct hv_stats_row_info hv_stats_rows[HV_STATS_ROWS] = {
#define HV_STATS_GROUP_ROW(...)
#define HV_STATS_ROW(group_, index_, symbol_, name_, kind_, unit_, by_, generations_, what_)                           \
    [HV_STATS_ROW_##group_##_##symbol_] = {                                                                            \
        .group = #group_,                                                                                              \
        .symbol = #symbol_,                                                                                            \
        .name = name_,                                                                                                 \
        .unit = unit_,                                                                                                 \
        .what = what_,                                                                                                 \
        .object = (enum hv_stats_object_type)OBJECT_##group_,                                                          \
        .index = index_,                                                                                               \
        .generations = generations_,                                                                                   \
        .kind = HV_STATS_##kind_,                                                                                      \
        .by = by_,                                                                                                     \
    },
#include "tlfs/stats_counters.def"
#undef HV_STATS_GROUP_ROW
#undef HV_STATS_ROW
};

/* -- Pages (TLFS 21.1.3) -- */

#define VERSION_1_0 (UINT64_C(1) << 16)

/* Type, version, and length in bytes: eight bytes without gaps, since index 0 of a group is its header (appendix J). */
static uint64_t header(uint16_t id, size_t counters)
{
    return id | VERSION_1_0 << 16 | (uint64_t)(counters * sizeof(uint64_t)) << 48;
}

static size_t count_rows(const char *group, enum hv_generation generation)
{
    size_t count = 0;

    for (unsigned i = 0; i < HV_STATS_ROWS; i++)
        count += strcmp(hv_stats_rows[i].group, group) == 0 && (hv_stats_rows[i].generations & generation);
    return count;
}

/* Behind the last group the page is zero, which is the header that ends the list. */
void hv_stats_init(struct hv *hv, struct hv_stats *stats, enum hv_stats_object_type object, void *page)
{
    size_t at = 0;

    memset(page, 0, HV_PAGE_SIZE);
    stats->page = stats->release = page;
    for (unsigned i = 0; i < HV_STATS_GROUPS; i++) {
        const struct hv_stats_group_info *group = &hv_stats_groups[i];
        size_t counters;

        if (group->object != object)
            continue;
        counters = count_rows(group->group, hv->config.generation);
        stats->release = stats->page + at;
        stats->release[0] = header(group->id, counters);
        at += 1 + counters;
    }
}

/* Where a counter of an object is; NULL: of another object, or generation. */
static uint64_t *find_counter(const struct hv *hv, const struct hv_stats *stats, enum hv_stats_object_type object,
                              unsigned row)
{
    const struct hv_stats_row_info *info = &hv_stats_rows[row];
    bool release;

    if (info->object != object || !(info->generations & hv->config.generation))
        return NULL;
    release = strcmp(info->group, "PV") == 0 || strcmp(info->group, "VPV") == 0;
    return (release ? stats->release : stats->page) + info->index;
}

bool hv_stats_create(struct hv *hv)
{
    size_t pages = 1 + (hv->config.root ? hv->config.vp_count : 0);
    uint8_t *page = hv->ops->allocate_pages(hv->context, pages);

    if (!page)
        return false;
    hv_stats_init(hv, &hv->stats, HV_STATS_OBJECT_HYPERVISOR, page);
    hv_counter_set(&hv->stats.page[HV_HCA_LogicalProcessors], hv->config.vp_count);
    return true;
}

void hv_stats_free(struct hv *hv)
{
    if (hv->stats.page)
        hv->ops->free_pages(hv->context, hv->stats.page, 1 + (hv->config.root ? hv->config.vp_count : 0));
}

/* -- Counting -- */

static uint64_t nanoseconds(const struct hv *hv, uint64_t ticks, uint64_t divisor)
{
    return (uint64_t)((unsigned __int128)ticks * 1000000000u / ((unsigned __int128)hv->config.tsc_frequency * divisor));
}

/* The events since the last sample are taken to have cost the same. */
void hv_cost_sample(struct hv_vp *vp, enum hv_stats_index counter, uint64_t began)
{
    struct hv_timed *cost = &vp->costs[counter / 2];
    uint64_t now = hv_sample_tsc(vp->hv) + 1, ticks = now > began ? now - began : 0;
    uint64_t events = vp->stats.release[counter];

    cost->ticks += ticks;
    cost->samples++;
    vp->hypervisor_ticks += ticks * (events > cost->events ? events - cost->events : 1);
    cost->events = events;
    hv_counter_set(&vp->stats.release[counter + 1], nanoseconds(vp->hv, cost->ticks, cost->samples));
}

void hv_count(struct hv_vp *vp, enum hv_stats_index counter)
{
    hv_counter_add(&vp->stats.release[counter], 1);
}

void hv_count_shared(struct hv_vp *vp, enum hv_stats_index counter)
{
    hv_counter_add_shared(&vp->stats.release[counter], 1);
}

uint64_t hv_count_begin(struct hv_vp *vp, enum hv_stats_index counter)
{
    return hv_event_begin(vp, counter);
}

void hv_count_end(struct hv_vp *vp, enum hv_stats_index counter, uint64_t began)
{
    hv_cost_end(vp, counter, began);
}

/* Whether the bit was set. */
static bool take_vector(_Atomic uint64_t vectors[4], uint8_t vector)
{
    uint64_t bit = UINT64_C(1) << (vector % 64);

    if (!(atomic_load_explicit(&vectors[vector / 64], memory_order_relaxed) & bit))
        return false;
    return atomic_fetch_and_explicit(&vectors[vector / 64], ~bit, memory_order_relaxed) & bit;
}

void hv_stats_accepted(struct hv_vp *vp, uint8_t vector)
{
    bool raised = take_vector(vp->raised, vector);
    uint64_t began;

    HV_COUNT(vp, VirtualInterrupts);
    if (take_vector(vp->raised_by_synic, vector))
        HV_COUNT(vp, SyntheticInterrupts);
    if (raised || vp->lapic)
        return;
    began = hv_event_begin(vp, HV_VPV_ExternalInterrupts);
    if (vp->hv->lps)
        HV_COUNT_LP_SHARED(&vp->hv->lps[vp->index], HardwareInterrupts);
    hv_cost_end(vp, HV_VPV_ExternalInterrupts, began);
}

void hv_stats_ipi(struct hv *hv, unsigned to)
{
    /* Whoever is no processor, such as a timer's thread, sends no IPIs. */
    if (hv_this_lp == 0 || hv_this_lp > hv->lp_count || hv_this_lp == to + 1)
        return;
    HV_COUNT_LP_SHARED(&hv->lps[to], InterProcessorInterrupts);
    HV_COUNT_LP_SHARED(&hv->lps[hv_this_lp - 1], InterProcessorInterruptsSent);
}

/* -- Times -- */

/* Two who bring a time up to date may overtake each other: it never goes back. */
static void advance(uint64_t *counter, uint64_t value)
{
    uint64_t old = __atomic_load_n(counter, __ATOMIC_RELAXED);

    while (HV_COUNTING && old < value &&
           !__atomic_compare_exchange_n(counter, &old, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
}

static void refresh_lp(struct hv *hv, unsigned number)
{
    struct hv_lp_times times;
    uint64_t *page = hv->lps[number].stats.page, all;

    hv_get_lp_times(hv, number, &times);
    advance(&page[HV_LPA_GlobalTime], hv_reference_time(hv->machine_partition));
    advance(&page[HV_LPA_TotalRunTime], times.run);
    advance(&page[HV_LPA_HypervisorRunTime], times.hypervisor);
    advance(&page[HV_LPA_ContextSwitchTime], times.switching);
    all = times.run + times.idle;
    for (unsigned i = 0; i < 3; i++)
        hv_counter_set(&page[HV_LPA_C1Time + 2 * i], all ? times.power_states[i] * 100 / all : 0);
}

static void refresh_vp(struct hv_vp *vp)
{
    uint64_t *page = vp->stats.page, run = hv_run_time(vp);
    uint64_t hypervisor = nanoseconds(vp->hv, __atomic_load_n(&vp->hypervisor_ticks, __ATOMIC_RELAXED), 100);

    advance(&page[HV_VPA_TotalRunTime], run);
    advance(&page[HV_VPA_HypervisorRunTime], hypervisor < run ? hypervisor : run);
    if (vp->hv->config.generation != HV_GEN_CURRENT)
        return;
    advance(&page[HV_VPA_NormalizedRunTime], run);
    hv_counter_set(&page[HV_VPA_IdealCpu], vp->hv->lps ? hv_vp_get_lp(vp) : vp->index);
}

/* -- Levels -- */

static void count_vps(struct hv_partition *partition)
{
    struct hv *hv = partition->hv;

    hv_counter_set(&hv->stats.page[HV_HCA_VirtualProcessors], hv->vp_count);
    hv_counter_set(&partition->stats.page[HV_PA_VirtualProcessors], partition->vp_count);
    hv_counter_set(&partition->stats.release[HV_PV_AddressSpaces], partition->vp_count);
}

void hv_stats_properties_changed(struct hv_partition *partition)
{
    hv_counter_set(&partition->stats.release[HV_PV_VirtualTlbPages], partition->properties.virtual_tlb_pages);
    hv_counter_set(&partition->stats.release[HV_PV_RecommendedVirtualTlbSize], HV_COST_VirtualTlbDefault);
}

/* -- Showing -- */

#define REGISTERS 4

static void set_timer(struct hv *hv, bool on)
{
    uint64_t due = on ? hv_machine_tsc(hv) + hv->config.tsc_frequency / REFRESHES_PER_SECOND : HV_NANO100_NEVER;

    hv->ops->set_timer(hv->context, hv->machine_partition->vps[0]->handle, HV_VP_TIMER_STATS, due);
}

static bool is_mapped(const struct hv_stats *stats)
{
    return stats->by_own.mapped || stats->by_parent.mapped;
}

static bool vp_is_seen(const struct hv_vp *vp)
{
    uint64_t registers =
        __atomic_load_n(&vp->stats_msr[2], __ATOMIC_RELAXED) | __atomic_load_n(&vp->stats_msr[3], __ATOMIC_RELAXED);

    return is_mapped(&vp->stats) || (registers & HV_PAGE_MSR_ENABLE);
}

void hv_stats_timer_expired(struct hv *hv)
{
    bool seen = false;

    hv_structure_lock_read(&hv->structure);
    for (unsigned i = 0; i < hv->lp_count; i++) {
        if (!is_mapped(&hv->lps[i].stats))
            continue;
        refresh_lp(hv, i);
        seen = true;
    }
    for (unsigned i = 0; i < hv->handle_count; i++) {
        if (!hv->by_handle[i]->partition || !vp_is_seen(hv->by_handle[i]))
            continue;
        refresh_vp(hv->by_handle[i]);
        seen = true;
    }
    hv_structure_lock_drop(&hv->structure);
    if (seen)
        set_timer(hv, true);
}

static void show_register(struct hv_vp *vp, unsigned which)
{
    struct hv_stats *stats = which < 2 ? &vp->partition->stats : &vp->stats;

    hv_show_overlay(vp->partition, (enum hv_overlay_kind)(HV_OVERLAY_STATS_MSR + which), vp->index, stats->page,
                    vp->stats_msr[which], HV_OVERLAY_READ_ONLY);
}

void hv_stats_show_vp(struct hv_vp *vp)
{
    for (unsigned i = 0; i < REGISTERS; i++)
        show_register(vp, i);
}

/* TLFS 21.3.3 */
enum hv_exit hv_msr_read_stats_page(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    *value = vp->stats_msr[offset];
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_write_stats_page(struct hv_vp *vp, uint32_t offset, uint64_t value)
{
    __atomic_store_n(&vp->stats_msr[offset], value, __ATOMIC_RELAXED);
    if (value & HV_PAGE_MSR_ENABLE) {
        refresh_vp(vp);
        set_timer(vp->hv, true);
    }
    show_register(vp, offset);
    return HV_EXIT_DONE;
}

/* -- Objects (TLFS 21.2.1) -- */

/* One of them, as somebody sees it. */
struct target {
    enum hv_stats_object_type type;
    struct hv_partition *viewer;
    struct hv_partition *partition; /* of a partition or a VP */
    struct hv_vp *vp;
    unsigned lp;
    struct hv_stats *stats;
    struct hv_stats_mapping *mapping;
};

static enum hv_overlay_kind overlay_kind(const struct target *target)
{
    bool own = target->partition == target->viewer;

    switch (target->type) {
    case HV_STATS_OBJECT_HYPERVISOR:
        return HV_OVERLAY_STATS_HYPERVISOR;
    case HV_STATS_OBJECT_LOGICAL_PROCESSOR:
        return HV_OVERLAY_STATS_LP;
    case HV_STATS_OBJECT_PARTITION:
        return own ? HV_OVERLAY_STATS_OWN_PARTITION : HV_OVERLAY_STATS_PARTITION;
    default:
        return own ? HV_OVERLAY_STATS_OWN_VP : HV_OVERLAY_STATS_VP;
    }
}

/* What tells apart objects of a kind that one partition sees. */
static uint32_t overlay_number(const struct target *target)
{
    bool own = target->partition == target->viewer;

    switch (target->type) {
    case HV_STATS_OBJECT_HYPERVISOR:
        return 0;
    case HV_STATS_OBJECT_LOGICAL_PROCESSOR:
        return target->lp;
    case HV_STATS_OBJECT_PARTITION:
        return own ? 0 : target->partition->number;
    default:
        return own ? target->vp->index : target->vp->handle;
    }
}

static void show(const struct target *target)
{
    const struct hv_stats_mapping *mapping = target->mapping;

    hv_show_overlay(target->viewer, overlay_kind(target), overlay_number(target), target->stats->page,
                    mapping->mapped ? mapping->gpa | HV_PAGE_MSR_ENABLE : 0, HV_OVERLAY_READ_ONLY);
}

static void unmap(const struct target *target)
{
    struct hv_stats_mapping *mapping = target->mapping;

    if (!mapping->mapped)
        return;
    mapping->mapped = false;
    show(target);
    if (mapping->from_pool)
        hv_pool_put_page(target->viewer, mapping->gpa >> HV_PAGE_SHIFT);
    else
        hv_pool_release(target->viewer, HV_COST_StatsMapping);
}

static struct target global_target(struct hv *hv, enum hv_stats_object_type type, unsigned lp)
{
    struct hv_stats *stats = type == HV_STATS_OBJECT_HYPERVISOR ? &hv->stats : &hv->lps[lp].stats;

    return (struct target){
        .type = type, .viewer = hv->machine_partition, .lp = lp, .stats = stats, .mapping = &stats->by_parent};
}

/* A partition, or with `vp` one of its VPs, as itself or its parent sees it. */
static struct target local_target(struct hv_partition *partition, struct hv_vp *vp, bool own)
{
    struct hv_stats *stats = vp ? &vp->stats : &partition->stats;

    return (struct target){
        .type = vp ? HV_STATS_OBJECT_VP : HV_STATS_OBJECT_PARTITION,
        .viewer = own ? partition : partition->parent,
        .partition = partition,
        .vp = vp,
        .stats = stats,
        .mapping = own ? &stats->by_own : &stats->by_parent,
    };
}

static void unmap_local(struct hv_partition *partition, struct hv_vp *vp, bool own)
{
    struct target target = local_target(partition, vp, own);

    unmap(&target);
}

/* -- Objects come and go -- */

static uint16_t free_number(const struct hv *hv)
{
    unsigned i = 0;

    while (!~hv->partition_numbers[i]) /* there are as many as there can be partitions */
        i++;
    return (uint16_t)(i * 64 + (unsigned)__builtin_ctzll(~hv->partition_numbers[i]));
}

void hv_stats_partition_added(struct hv_partition *partition)
{
    struct hv *hv = partition->hv;

    partition->number = free_number(hv);
    hv->partition_numbers[partition->number / 64] |= UINT64_C(1) << (partition->number % 64);
    hv_counter_set(&hv->stats.page[HV_HCA_Partitions], hv->partition_count);
    hv_stats_properties_changed(partition);
}

void hv_stats_partition_finalized(struct hv_partition *partition)
{
    unmap_local(partition, NULL, true);
}

void hv_stats_partition_removed(struct hv_partition *partition)
{
    struct hv *hv = partition->hv;

    unmap_local(partition, NULL, false);
    hv->partition_numbers[partition->number / 64] &= ~(UINT64_C(1) << (partition->number % 64));
    hv_counter_set(&hv->stats.page[HV_HCA_Partitions], hv->partition_count);
}

void hv_stats_vp_added(struct hv_vp *vp)
{
    count_vps(vp->partition);
    if (vp->hv->config.generation == HV_GEN_CURRENT)
        hv_counter_set(&vp->stats.page[HV_VPA_IdealCpu], vp->hv->lps ? hv_vp_get_lp(vp) : vp->index);
}

void hv_stats_vp_removed(struct hv_vp *vp)
{
    unmap_local(vp->partition, vp, true);
    unmap_local(vp->partition, vp, false);
    for (unsigned i = 0; i < REGISTERS; i++)
        vp->stats_msr[i] = 0;
    hv_stats_show_vp(vp);
    count_vps(vp->partition);
}

void hv_stats_reset(struct hv *hv)
{
    struct hv_partition *partition = hv->machine_partition;
    struct target target = global_target(hv, HV_STATS_OBJECT_HYPERVISOR, 0);

    unmap(&target);
    for (unsigned i = 0; i < hv->lp_count; i++) {
        target = global_target(hv, HV_STATS_OBJECT_LOGICAL_PROCESSOR, i);
        unmap(&target);
    }
    unmap_local(partition, NULL, true);
    for (hv_vp_index i = 0; i < partition->vp_limit; i++)
        unmap_local(partition, partition->vps[i], true);
}

/* -- HvMapStatsPage, HvUnmapStatsPage (TLFS 21.3.1, 21.3.2) -- */

struct stats_input {
    uint32_t type;
    uint32_t padding;
    union {
        struct {
            uint32_t lp, zero;
            uint8_t more_zero[7];
        } global;
        struct {
            hv_partition_id partition;
            uint32_t vp; /* 0 for a partition */
            uint16_t flags;
            uint8_t zero;
        } local;
        struct {
            uint8_t rest[15];
            uint8_t area; /* later than 2.0a */
        };
    };
    uint64_t target_page; /* HvMapStatsPage of 2.0a, HvMapStatsPage2 */
};
_Static_assert(sizeof(struct stats_input) == 32, "TLFS 21.3.1");

#define OWN_STATS 1u /* HvStatsObjectSelfStats */
#define AREA_OWN                                                                                                       \
    0 /* the later generation's "self"; its other area has what only the parent may see, which is nothing */

static bool is_zero(const uint8_t *bytes, size_t size)
{
    while (size && bytes[size - 1] == 0)
        size--;
    return size == 0;
}

static hv_status find_global(struct hv_call *call, const struct stats_input *in, struct target *target)
{
    struct hv *hv = call->vp->hv;
    size_t used = in->type == HV_STATS_OBJECT_LOGICAL_PROCESSOR ? sizeof(in->global.lp) : 0;

    if (!call->vp->partition->is_root)
        return HV_STATUS_ACCESS_DENIED;
    if (!is_zero(in->rest + used, sizeof(in->rest) - used) || in->area != AREA_OWN)
        return HV_STATUS_INVALID_PARAMETER;
    if (used && in->global.lp >= hv->lp_count)
        return HV_STATUS_INVALID_PARAMETER;
    *target = global_target(hv, (enum hv_stats_object_type)in->type, used ? in->global.lp : 0);
    return HV_STATUS_SUCCESS;
}

static bool may_see(const struct hv_partition *viewer, const struct hv_partition *partition, unsigned flags)
{
    if (partition != viewer)
        return partition->parent == viewer && !(flags & OWN_STATS);
    return (flags & OWN_STATS) || (viewer->is_root && viewer->hv->config.generation == HV_GEN_CURRENT);
}

static hv_status find_local(struct hv_call *call, const struct stats_input *in, struct target *target)
{
    struct hv_partition *viewer = call->vp->partition, *partition = viewer;
    bool is_vp = in->type == HV_STATS_OBJECT_VP;
    struct hv_vp *vp = NULL;

    if (in->local.partition != HV_PARTITION_ID_SELF)
        partition = hv_find_partition(viewer->hv, in->local.partition);
    if (!partition)
        return HV_STATUS_INVALID_PARTITION_ID;
    if (!may_see(viewer, partition, in->local.flags))
        return HV_STATUS_ACCESS_DENIED;
    if (!hv_partition_is_active(partition))
        return HV_STATUS_INVALID_PARTITION_STATE;
    if ((in->local.flags & ~OWN_STATS) || in->local.zero || in->area != AREA_OWN || (!is_vp && in->local.vp))
        return HV_STATUS_INVALID_PARAMETER;
    if (is_vp) {
        vp = hv_partition_vp(partition, in->local.vp);
        if (!vp)
            return HV_STATUS_INVALID_VP_INDEX;
    }
    *target = local_target(partition, vp, partition == viewer);
    return HV_STATUS_SUCCESS;
}

static hv_status find_target(struct hv_call *call, struct target *target)
{
    const struct stats_input *in = call->input;

    switch (in->type) {
    case HV_STATS_OBJECT_HYPERVISOR:
    case HV_STATS_OBJECT_LOGICAL_PROCESSOR:
        return find_global(call, in, target);
    case HV_STATS_OBJECT_PARTITION:
    case HV_STATS_OBJECT_VP:
        return find_local(call, in, target);
    default:
        return HV_STATUS_INVALID_PARAMETER;
    }
}

static hv_status find_unmapped(struct hv_call *call, struct target *target)
{
    hv_status status = find_target(call, target);

    if (status == HV_STATUS_SUCCESS && target->mapping->mapped)
        status = HV_STATUS_OPERATION_DENIED;
    return status;
}

static void map(const struct target *target, hv_gpa gpa, bool from_pool)
{
    struct hv *hv = target->viewer->hv;

    *target->mapping = (struct hv_stats_mapping){.mapped = true, .from_pool = from_pool, .gpa = gpa};
    if (target->type == HV_STATS_OBJECT_LOGICAL_PROCESSOR)
        refresh_lp(hv, target->lp);
    if (target->vp)
        refresh_vp(target->vp);
    show(target);
    set_timer(hv, true);
}

/* A page beyond the GPA space is shown nowhere, which need not be told. */
static hv_gpa gpa_of(uint64_t page)
{
    return page <= UINT64_MAX >> HV_PAGE_SHIFT ? page << HV_PAGE_SHIFT : HV_PAGE_MASK;
}

static hv_status map_where_wanted(struct hv_call *call)
{
    const struct stats_input *in = call->input;
    struct target target;
    hv_status status = find_unmapped(call, &target);

    if (status != HV_STATUS_SUCCESS)
        return status;
    if (!hv_pool_charge(target.viewer, HV_COST_StatsMapping))
        return HV_STATUS_INSUFFICIENT_MEMORY;
    map(&target, gpa_of(in->target_page), false);
    return HV_STATUS_SUCCESS;
}

/* Deployed clients use the page they are told as memory of theirs, so it is a page that they deposited. */
static hv_status map_in_pool(struct hv_call *call)
{
    struct target target;
    hv_status status = find_unmapped(call, &target);
    uint64_t page;

    if (status != HV_STATUS_SUCCESS)
        return status;
    if (!target.viewer
             ->is_root) /* its pool has pages of its parent's, which it cannot see: HvMapStatsPage2 is for it */
        return HV_STATUS_OPERATION_DENIED;
    if (!hv_pool_take_page(target.viewer, &page))
        return HV_STATUS_INSUFFICIENT_MEMORY;
    map(&target, page << HV_PAGE_SHIFT, true);
    memcpy(call->output, &page, sizeof(page));
    return HV_STATUS_SUCCESS;
}

hv_status hv_call_map_stats_page(struct hv_call *call)
{
    return call->vp->hv->config.generation == HV_GEN_CURRENT ? map_in_pool(call) : map_where_wanted(call);
}

hv_status hv_call_map_stats_page2(struct hv_call *call)
{
    return map_where_wanted(call);
}

hv_status hv_call_unmap_stats_page(struct hv_call *call)
{
    struct target target;
    hv_status status = find_target(call, &target);

    if (status != HV_STATUS_SUCCESS)
        return status;
    if (!target.mapping->mapped)
        return HV_STATUS_OPERATION_DENIED;
    unmap(&target);
    return HV_STATUS_SUCCESS;
}

/* -- In the stream of state: counters too, since guests see that they never go back -- */

static void state_mapping(struct hv_stream *s, struct hv_partition *viewer, struct hv_stats_mapping *mapping)
{
    hv_stream_flag(s, &mapping->mapped);
    if (!mapping->mapped || s->error)
        return;
    hv_stream_flag(s, &mapping->from_pool);
    hv_stream_u64(s, &mapping->gpa);
    if (!hv_stream_reading(s) || s->error)
        return;
    if (!viewer || (mapping->gpa & ~HV_PAGE_MASK) ||
        (mapping->from_pool && (!viewer->is_root || mapping->gpa >= viewer->hv->gpa_limit))) {
        mapping->mapped = false;
        hv_stream_fail(s, "the saved hypervisor state has an impossible statistics page");
    } else if (mapping->from_pool) {
        hv_pool_adopt_page(viewer);
    }
}

static void state_of(struct hv_stream *s, struct hv *hv, const struct target *own, const struct target *parents)
{
    const struct target *target = own ? own : parents;

    for (unsigned row = 0; row < HV_STATS_ROWS; row++) {
        uint64_t *counter = find_counter(hv, target->stats, target->type, row);
        uint64_t value = counter ? *counter : 0;

        if (!counter || hv_stats_rows[row].kind == HV_STATS_LEVEL) /* levels follow from the rest of the state */
            continue;
        hv_stream_u64(s, &value);
        hv_counter_set(counter, value);
    }
    if (own)
        state_mapping(s, own->viewer, own->mapping);
    if (parents)
        state_mapping(s, parents->viewer, parents->mapping);
}

static void state_local(struct hv_stream *s, struct hv_partition *partition, struct hv_vp *vp)
{
    struct target own = local_target(partition, vp, true), parents = local_target(partition, vp, false);

    state_of(s, partition->hv, &own, &parents);
    for (unsigned i = 0; vp && i < REGISTERS; i++)
        hv_stream_u64(s, &vp->stats_msr[i]);
    if (vp)
        hv_stream_u64(s, &vp->hypervisor_ticks);
}

void hv_state_stats(struct hv_stream *s, struct hv *hv)
{
    struct target target = global_target(hv, HV_STATS_OBJECT_HYPERVISOR, 0);

    state_of(s, hv, NULL, &target);
    for (unsigned i = 0; i < hv->lp_count; i++) {
        target = global_target(hv, HV_STATS_OBJECT_LOGICAL_PROCESSOR, i);
        state_of(s, hv, NULL, &target);
        for (unsigned state = 0; state < 3; state++)
            hv_stream_u64(s, &hv->lps[i].power_state_time[state]);
        hv_stream_u64(s, &hv->lps[i].switch_time);
    }
    for (struct hv_partition *p = hv->machine_partition; p && !s->error; p = hv_next_partition(p)) {
        state_local(s, p, NULL);
        for (hv_vp_index i = 0; i < p->vp_limit && !s->error; i++) {
            if (p->vps[i])
                state_local(s, p, p->vps[i]);
        }
    }
}

static void show_local(struct hv_partition *partition, struct hv_vp *vp)
{
    struct target own = local_target(partition, vp, true), parents = local_target(partition, vp, false);

    show(&own);
    if (parents.viewer)
        show(&parents);
}

void hv_stats_restored(struct hv *hv)
{
    struct target target = global_target(hv, HV_STATS_OBJECT_HYPERVISOR, 0);

    if (target.mapping->mapped)
        show(&target);
    for (unsigned i = 0; i < hv->lp_count; i++) {
        target = global_target(hv, HV_STATS_OBJECT_LOGICAL_PROCESSOR, i);
        show(&target);
    }
    for (struct hv_partition *p = hv->machine_partition; p; p = hv_next_partition(p)) {
        hv_stats_properties_changed(p);
        show_local(p, NULL);
        for (hv_vp_index i = 0; i < p->vp_limit; i++) {
            if (p->vps[i])
                show_local(p, p->vps[i]);
        }
    }
    set_timer(hv, true);
}

/* -- Views -- */

static void fill(const struct hv *hv, const struct hv_stats *stats, struct hv_stats_view *view)
{
    for (unsigned row = 0; row < HV_STATS_ROWS; row++) {
        const uint64_t *counter = find_counter(hv, stats, view->object, row);

        view->values[row] = counter ? __atomic_load_n(counter, __ATOMIC_RELAXED) : 0;
    }
}

void hv_visit_stats(struct hv *hv, void (*visit)(void *opaque, const struct hv_stats_view *view), void *opaque)
{
    struct hv_stats_view view = {.object = HV_STATS_OBJECT_HYPERVISOR};

    hv_structure_lock_read(&hv->structure);
    fill(hv, &hv->stats, &view);
    visit(opaque, &view);
    for (unsigned i = 0; i < hv->lp_count; i++) {
        view = (struct hv_stats_view){.object = HV_STATS_OBJECT_LOGICAL_PROCESSOR, .index = i};
        refresh_lp(hv, i);
        fill(hv, &hv->lps[i].stats, &view);
        visit(opaque, &view);
    }
    for (struct hv_partition *p = hv->machine_partition; p; p = hv_next_partition(p)) {
        view =
            (struct hv_stats_view){.object = HV_STATS_OBJECT_PARTITION, .partition = p->id, .partition_name = p->name};
        fill(hv, &p->stats, &view);
        visit(opaque, &view);
        for (hv_vp_index i = 0; i < p->vp_limit; i++) {
            if (!p->vps[i])
                continue;
            view = (struct hv_stats_view){
                .object = HV_STATS_OBJECT_VP, .partition = p->id, .index = i, .hypercalls = p->vps[i]->hypercalls};
            refresh_vp(p->vps[i]);
            fill(hv, &p->vps[i]->stats, &view);
            visit(opaque, &view);
        }
    }
    hv_structure_lock_drop(&hv->structure);
}
