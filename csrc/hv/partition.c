/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 5: partitions, from their creation to their deletion.
 *
 * A partition goes through the states uninitialized, active, finalizing and finalized (5.2.5), under the structure
 * lock held for writing. Finalizing takes several executions of the call: each stops and removes the VPs that an LP has
 * let go of, until none is left.
 */
#include "stats.h"

#include <string.h>

_Thread_local struct hv_vp *hv_calling_vp;

/* -- Objects -- */

#define PARTITION_PAGES 3 /* hypercall page, reference TSC page, statistics */

static unsigned bucket_of(hv_partition_id id)
{
    return (unsigned)(id % HV_PARTITION_BUCKETS);
}

struct hv_partition *hv_find_partition(struct hv *hv, hv_partition_id id)
{
    struct hv_partition *partition = hv->partitions[bucket_of(id)];

    while (partition && partition->id != id)
        partition = partition->next_in_bucket;
    return partition;
}

void hv_partition_free(struct hv_partition *partition)
{
    const struct hv *hv = partition->hv;

    hv_transfers_free(partition);
    hv_ports_free(partition);
    hv_intercepts_free(partition);
    hv_gpa_space_free(partition);
    if (partition->pool)
        hv_debug_session_free(partition);
    hv_pool_free(partition);
    if (partition->hypercall_page)
        hv->ops->free_pages(hv->context, partition->hypercall_page, PARTITION_PAGES);
    free(partition->vps);
    free(partition);
}

struct hv_partition *hv_partition_allocate(struct hv *hv, hv_vp_index vp_limit)
{
    struct hv_partition *partition = calloc(1, sizeof(*partition));

    if (!partition)
        return NULL;
    partition->hv = hv;
    hv_vp_lock_init(&partition->register_lock);
    hv_partition_lock_init(&partition->lock);
    partition->vp_limit = vp_limit;
    partition->vp_banks = (vp_limit + 63) / 64;
    partition->page_limit = HV_PAGES_UNLIMITED;
    partition->vps = calloc(vp_limit, sizeof(struct hv_vp *));
    partition->hypercall_page = hv->ops->allocate_pages(hv->context, PARTITION_PAGES);
    if (!partition->vps || !partition->hypercall_page) {
        hv_partition_free(partition);
        return NULL;
    }
    partition->reference_tsc_bytes = partition->hypercall_page + HV_PAGE_SIZE;
    hv_stats_init(hv, &partition->stats, HV_STATS_OBJECT_PARTITION, partition->reference_tsc_bytes + HV_PAGE_SIZE);
    memset(partition->hypercall_page, 0xCC, HV_PAGE_SIZE); /* INT3: nothing but the call is there to run */
    hv->ops->hypercall_code(hv->context, partition->hypercall_page);
    return partition;
}

/* Children stay in the order of their creation (TLFS 5.5). */
static void append_child(struct hv_partition *parent, struct hv_partition *child)
{
    struct hv_partition **link = &parent->children;

    while (*link)
        link = &(*link)->next_sibling;
    *link = child;
}

void hv_partition_insert(struct hv_partition *partition, hv_partition_id id)
{
    struct hv *hv = partition->hv;

    partition->id = id;
    partition->next_in_bucket = hv->partitions[bucket_of(id)];
    hv->partitions[bucket_of(id)] = partition;
    hv->partition_count++;
    if (partition->parent)
        append_child(partition->parent, partition);
    hv_stats_partition_added(partition);
}

static void partition_remove(struct hv_partition *partition)
{
    struct hv *hv = partition->hv;
    struct hv_partition **link = &hv->partitions[bucket_of(partition->id)];

    while (*link != partition)
        link = &(*link)->next_in_bucket;
    *link = partition->next_in_bucket;
    link = &partition->parent->children;
    while (*link != partition)
        link = &(*link)->next_sibling;
    *link = partition->next_sibling;
    hv->partition_count--;
    hv_stats_partition_removed(partition);
}

static void add_tree_vps(const struct hv_partition *partition, struct hv_vp_set *handles)
{
    struct hv_vp_set own;

    hv_vp_handles(partition, &partition->all_vps, &own);
    for (unsigned i = 0; i < HV_VP_BANKS; i++)
        handles->bank[i] |= own.bank[i];
    for (const struct hv_partition *child = partition->children; child; child = child->next_sibling)
        add_tree_vps(child, handles);
}

void hv_partition_tree_vps(const struct hv_partition *partition, struct hv_vp_set *handles)
{
    memset(handles, 0, sizeof(*handles));
    add_tree_vps(partition, handles);
}

/* -- Creation (TLFS 5.3, 5.6.1) -- */

/* Both layouts of the input: 2.0a's is the beginning of today's. */
struct create_input {
    uint64_t flags;
    uint64_t proximity;
    uint32_t compatibility_version;
    uint32_t padding;
    uint64_t disabled_features[2];
    uint64_t disabled_xsave_features;
    uint64_t isolation;
};

#define KNOWN_FLAGS (HV_CREATE_SMT_ENABLED | HV_CREATE_GPA_SUPER_PAGES | HV_CREATE_LAPIC | HV_CREATE_X2APIC)

static hv_status check_creation(const struct hv_partition *parent, const struct create_input *in)
{
    bool current = parent->hv->config.generation == HV_GEN_CURRENT;

    if (!parent->second_stage) /* role=guest, whatever privileges it was given: nobody could confine a child */
        return HV_STATUS_ACCESS_DENIED;
    /* A child that is being torn down still runs, and must not get a new child. */
    if (!hv_partition_is_active(parent))
        return HV_STATUS_INVALID_PARTITION_STATE;
    if (in->flags & ~(current ? KNOWN_FLAGS : 0))
        return HV_STATUS_INVALID_PARAMETER;
    if (!hv_proximity_is_valid(in->proximity) || (current && in->isolation))
        return HV_STATUS_INVALID_PARAMETER;
    if (parent->depth >= HV_MAX_PARTITION_DEPTH)
        return HV_STATUS_PARTITION_TOO_DEEP;
    if (parent->hv->partition_count >= HV_MAX_PARTITIONS)
        return HV_STATUS_NO_RESOURCES;
    return HV_STATUS_SUCCESS;
}

static uint64_t promised_pages(const struct hv_partition *partition)
{
    uint64_t most = partition->hv->gpa_limit >> HV_PAGE_SHIFT;

    if (partition->page_limit == HV_PAGES_UNLIMITED)
        return hv_gpa_mapped_pages(partition);
    return partition->page_limit < most ? partition->page_limit : most; /* so that sums do not overflow */
}

static void add_memory_of_children(const struct hv_partition *parent, struct hv_admission *admission)
{
    for (const struct hv_partition *child = parent->children; child; child = child->next_sibling) {
        admission->mapped_pages += hv_gpa_mapped_pages(child);
        admission->promised_pages += promised_pages(child);
    }
}

hv_status hv_admit(struct hv_vp *caller, const struct hv_partition *parent, struct hv_admission *admission)
{
    struct hv *hv = caller->hv;

    admission->parent = parent->id;
    admission->partitions = hv->partition_count;
    admission->vps = hv->vp_count;
    add_memory_of_children(parent, admission);
    switch (hv->ops->admit(hv->context, caller->handle, admission)) {
    case HV_PROGRESS_DONE:
        return HV_STATUS_SUCCESS;
    case HV_PROGRESS_WAIT:
        return HV_STATUS_WAIT;
    default:
        return HV_STATUS_NO_RESOURCES;
    }
}

static struct hv_partition *make_child(struct hv_partition *parent, const struct create_input *in, uint64_t privileges)
{
    struct hv *hv = parent->hv;
    struct hv_partition *child = hv_partition_allocate(hv, HV_MAX_VPS);

    if (!child)
        return NULL;
    child->parent = parent;
    child->depth = parent->depth + 1;
    child->second_stage = true;
    child->creation_flags = in->flags;
    child->features = hv->config.features;
    child->recommendations = hv->config.recommendations;
    child->spinlock_retries = hv->config.spinlock_retries;
    atomic_store(&child->privileges, privileges);
    hv_properties_reset(child);
    if (hv->config.generation == HV_GEN_CURRENT) {
        child->properties.processor_features &= ~in->disabled_features[0];
        child->properties.xsave_features &= ~in->disabled_xsave_features;
    }
    hv_time_init(child);
    if (!hv_pool_create(child, 0) || !hv_gpa_space_create(child)) {
        hv_partition_free(child);
        return NULL;
    }
    return child;
}

struct hv_partition *hv_partition_restore(struct hv_partition *parent, hv_partition_id id)
{
    static const struct create_input nothing_disabled;
    struct hv_partition *child = parent ? make_child(parent, &nothing_disabled, 0) : NULL;

    if (child)
        hv_partition_insert(child, id);
    return child;
}

static hv_status create_partition(struct hv_call *call)
{
    const struct create_input *in = call->input;
    struct hv_partition *parent = call->vp->partition, *child;
    struct hv *hv = parent->hv;
    struct hv_admission admission = {
        .what = HV_ADMIT_PARTITION,
        .depth = parent->depth + 1,
        .privileges = hv_child_privileges(parent),
        .page_limit = HV_PAGES_UNLIMITED,
    };
    hv_status status = check_creation(parent, in);

    if (status == HV_STATUS_SUCCESS && !hv_pool_charge(parent, HV_COST_Partition))
        status = HV_STATUS_INSUFFICIENT_MEMORY;
    if (status != HV_STATUS_SUCCESS)
        return status;
    status = hv_admit(call->vp, parent, &admission);
    if (status == HV_STATUS_SUCCESS) {
        child = make_child(parent, in, admission.privileges & hv_child_privileges_limit(parent));
        if (child) {
            memcpy(child->name, admission.name, sizeof(child->name) - 1);
            child->page_limit = admission.page_limit;
            hv_partition_insert(child, hv->next_partition_id++);
            memcpy(call->output, &child->id, sizeof(child->id));
            return HV_STATUS_SUCCESS;
        }
        status = HV_STATUS_NO_RESOURCES;
    }
    hv_pool_release(parent, HV_COST_Partition);
    return status;
}

hv_status hv_call_create_partition(struct hv_call *call)
{
    hv_status status = create_partition(call);

    if (status != HV_STATUS_WAIT)
        HV_LOG(call->vp, OB_CREATE_PARTITION, *(const hv_partition_id *)call->output, status);
    return status;
}

/* TLFS 5.6.2 */
hv_status hv_call_initialize_partition(struct hv_call *call)
{
    struct hv_partition *partition = call->partition;

    if (atomic_load(&partition->state) != HV_PARTITION_UNINITIALIZED)
        return HV_STATUS_INVALID_PARTITION_STATE;
    if (!hv_pool_charge(partition, HV_COST_PartitionActive + partition->properties.virtual_tlb_pages))
        return HV_STATUS_INSUFFICIENT_MEMORY;
    if (hv_has_privilege(partition, HV_PRIVILEGE_Debugging)) {
        hv_status status = hv_debug_session_create(partition);

        if (status != HV_STATUS_SUCCESS) {
            hv_pool_release(partition, HV_COST_PartitionActive + partition->properties.virtual_tlb_pages);
            return status;
        }
    }
    atomic_store(&partition->state, HV_PARTITION_ACTIVE);
    return HV_STATUS_SUCCESS;
}

/* -- Destruction (TLFS 5.4) -- */

/* Stop the VPs and remove those that no LP runs any more. True when none is left. */
static bool remove_vps(struct hv_vp *caller, struct hv_partition *partition)
{
    for (hv_vp_index i = 0; i < partition->vp_limit && partition->vp_count; i++) {
        struct hv_vp *vp = partition->vps[i];

        if (!vp)
            continue;
        hv_vp_set_suspend(vp, HV_SUSPEND_EXPLICIT);
        if (hv_vp_acquire(caller, vp))
            hv_vp_remove(vp);
    }
    return partition->vp_count == 0;
}

/* Everything that hangs on an active partition goes; what it cost returns to its pool. */
static bool finalize(struct hv_vp *caller, struct hv_partition *partition)
{
    atomic_store(&partition->state, HV_PARTITION_FINALIZING);
    if (!remove_vps(caller, partition))
        return false;
    hv_transfers_free(partition);
    hv_ports_free(partition);
    hv_intercepts_free(partition);
    hv_stats_partition_finalized(partition);
    hv_gpa_space_free(partition);
    hv_debug_session_free(partition);
    hv_pool_release(partition, HV_COST_PartitionActive + partition->properties.virtual_tlb_pages);
    atomic_store(&partition->state, HV_PARTITION_FINALIZED);
    return true;
}

static void log_deletion(struct hv *hv, hv_partition_id id, hv_status status)
{
    HV_LOG_AT(hv, hv_calling_vp, hv_event_lp(hv_calling_vp), OB_DELETE_PARTITION, id, status);
}

static void delete_partition(struct hv_partition *partition)
{
    log_deletion(partition->hv, partition->id, HV_STATUS_SUCCESS);
    partition_remove(partition);
    hv_pool_release(partition->parent, HV_COST_Partition);
    hv_partition_free(partition);
}

/* No partition of the tree is to get a new child or VP any more. */
static void mark_finalizing(struct hv_partition *partition)
{
    if (hv_partition_is_active(partition))
        atomic_store(&partition->state, HV_PARTITION_FINALIZING);
    for (struct hv_partition *child = partition->children; child; child = child->next_sibling)
        mark_finalizing(child);
}

/* From the leaves to the top, so that pages go back to a depositor that still is there. */
static bool delete_tree(struct hv_partition *partition)
{
    struct hv_partition *child, *next;
    bool done = true;

    for (child = partition->children; child; child = next) {
        next = child->next_sibling;
        done &= delete_tree(child);
    }
    if (!done)
        return false;
    if (atomic_load(&partition->state) == HV_PARTITION_FINALIZING && !finalize(NULL, partition))
        return false;
    hv_pool_return_pages(partition);
    delete_partition(partition);
    return true;
}

/*
 * TLFS 5.6.3. The text has descendants destroyed with the partition, and what they had returned (5.4.2); its table has
 * a status for a partition that has children. With that a child could keep its parent from ever destroying it, so the
 * text is right.
 */
hv_status hv_call_finalize_partition(struct hv_call *call)
{
    struct hv_partition *partition = call->partition, *child, *next;
    unsigned state = atomic_load(&partition->state);
    bool done = true;

    if (state != HV_PARTITION_ACTIVE && state != HV_PARTITION_FINALIZING)
        return HV_STATUS_INVALID_PARTITION_STATE;
    mark_finalizing(partition);
    for (child = partition->children; child; child = next) {
        next = child->next_sibling;
        done &= delete_tree(child);
    }
    return done && finalize(call->vp, partition) ? HV_STATUS_SUCCESS : HV_STATUS_WAIT;
}

/* TLFS 5.6.4 */
hv_status hv_call_delete_partition(struct hv_call *call)
{
    struct hv_partition *partition = call->partition;
    unsigned state = atomic_load(&partition->state);
    hv_status status = HV_STATUS_SUCCESS;

    if (state != HV_PARTITION_UNINITIALIZED && state != HV_PARTITION_FINALIZED)
        status = HV_STATUS_INVALID_PARTITION_STATE;
    else if (hv_pool_deposited(partition))
        status = HV_STATUS_OPERATION_DENIED;
    else
        delete_partition(partition);
    if (status != HV_STATUS_SUCCESS)
        log_deletion(call->vp->hv, partition->id, status);
    return status;
}

/* -- Destruction by the operator, or by a reset of the machine: whole trees, whatever their state -- */

void hv_partition_delete_children(struct hv_partition *partition)
{
    while (partition->children) {
        mark_finalizing(partition->children);
        if (!delete_tree(partition->children))
            abort(); /* the platform resets the machine while a VP runs: going on would free what it uses */
    }
}

enum hv_progress hv_operator_delete_partition(struct hv *hv, hv_partition_id id)
{
    enum hv_progress progress = HV_PROGRESS_FAILED;
    struct hv_partition *partition;

    hv_structure_lock_write(&hv->structure);
    partition = hv_find_partition(hv, id);
    if (partition && partition->parent) {
        mark_finalizing(partition);
        progress = delete_tree(partition) ? HV_PROGRESS_DONE : HV_PROGRESS_WAIT;
    }
    hv_structure_lock_drop(&hv->structure);
    return progress;
}

/* -- Enumeration (TLFS 5.6.7, 5.6.8) -- */

hv_status hv_call_get_partition_id(struct hv_call *call)
{
    hv_partition_id id = call->vp->partition->id;

    memcpy(call->output, &id, sizeof(id));
    return HV_STATUS_SUCCESS;
}

/* A partition may look at its own children, as its parent may. */
hv_status hv_call_get_next_child_partition(struct hv_call *call)
{
    const hv_partition_id *in = call->input; /* parent, previous child */
    struct hv_partition *next = call->partition->children;

    if (!call->partition->second_stage) /* role=guest: it is no parent */
        return HV_STATUS_ACCESS_DENIED;
    if (in[1] != HV_PARTITION_ID_INVALID) {
        while (next && next->id != in[1])
            next = next->next_sibling;
        if (!next)
            return HV_STATUS_INVALID_PARTITION_ID;
        next = next->next_sibling;
    }
    if (next)
        memcpy(call->output, &next->id, sizeof(next->id));
    return HV_STATUS_SUCCESS;
}

/* -- Overlay pages (TLFS 8.1.3) -- */

void hv_show_overlay(struct hv_partition *partition, enum hv_overlay_kind kind, hv_vp_index vp, void *page,
                     uint64_t msr, enum hv_overlay_access access)
{
    const struct hv *hv = partition->hv;
    hv_gpa gpa = msr & HV_PAGE_MASK;
    bool enabled = (msr & HV_PAGE_MSR_ENABLE) && gpa < hv->gpa_limit;

    HV_ASSERT_NO_VP_LOCK();
    if (partition->second_stage)
        hv_gpa_set_overlay(partition, kind, vp, page, enabled, enabled ? gpa : 0);
    else
        hv->ops->set_overlay(hv->context, kind, vp, page, enabled, enabled ? gpa : 0, access);
}

static void show_vp_overlays(struct hv_vp *vp)
{
    struct hv_partition *partition = vp->partition;

    hv_show_overlay(partition, HV_OVERLAY_APIC_ASSIST, vp->index, vp->apic_assist_page, vp->apic_assist_msr,
                    HV_OVERLAY_READ_WRITE);
    hv_show_overlay(partition, HV_OVERLAY_SIEF, vp->index, vp->sief_page, atomic_load(&vp->siefp),
                    HV_OVERLAY_READ_WRITE);
    hv_show_overlay(partition, HV_OVERLAY_SIM, vp->index, vp->sim_page, atomic_load(&vp->simp), HV_OVERLAY_READ_WRITE);
    hv_stats_show_vp(vp);
}

void hv_show_all_overlays(struct hv_partition *partition)
{
    hv_show_overlay(partition, HV_OVERLAY_HYPERCALL, 0, partition->hypercall_page,
                    atomic_load(&partition->hypercall_msr), HV_OVERLAY_READ_EXECUTE);
    hv_show_overlay(partition, HV_OVERLAY_REFERENCE_TSC, 0, partition->reference_tsc_bytes,
                    atomic_load(&partition->reference_tsc_msr), HV_OVERLAY_READ_WRITE);
    for (hv_vp_index i = 0; i < partition->vp_limit; i++) {
        if (partition->vps[i])
            show_vp_overlays(partition->vps[i]);
    }
}

/* -- Views -- */

void hv_get_partition_state(struct hv_partition *partition, struct hv_partition_state *state)
{
    memset(state, 0, sizeof(*state));
    state->id = partition->id;
    state->guest_os_id = atomic_load(&partition->guest_os_id);
    state->hypercall_msr = atomic_load(&partition->hypercall_msr);
    state->reference_tsc_msr = atomic_load(&partition->reference_tsc_msr);
    state->crash_control = atomic_load(&partition->crash_control);
    for (unsigned i = 0; i < 5; i++)
        state->crash_parameters[i] = atomic_load(&partition->crash_parameters[i]);
    state->reference_time = hv_reference_time(partition);
    state->tsc_scale = partition->tsc_scale;
    state->tsc_offset = partition->tsc_offset;
    state->tsc_sequence = partition->tsc_sequence;
    state->privileges = atomic_load(&partition->privileges);
    state->features = partition->features;
    state->recommendations = partition->recommendations;
    state->hypercall_page_enabled = state->hypercall_msr & HV_PAGE_MSR_ENABLE;
    state->tsc_page_enabled = state->reference_tsc_msr & HV_PAGE_MSR_ENABLE;
}

bool hv_get_partition_state_of(struct hv *hv, hv_partition_id id, struct hv_partition_state *state)
{
    struct hv_partition *partition;

    hv_structure_lock_read(&hv->structure);
    partition = hv_find_partition(hv, id);
    if (partition)
        hv_get_partition_state(partition, state);
    hv_structure_lock_drop(&hv->structure);
    return partition;
}

static void describe(const struct hv_partition *partition, struct hv_partition_info *info)
{
    *info = (struct hv_partition_info){
        .id = partition->id,
        .parent = partition->parent ? partition->parent->id : HV_PARTITION_ID_INVALID,
        .depth = partition->depth,
        .state = atomic_load(&partition->state),
        .vp_count = partition->vp_count,
        .privileges = atomic_load(&partition->privileges),
        .paused = atomic_load(&partition->paused),
        .mapped_pages = hv_gpa_mapped_pages(partition),
        .page_limit = partition->page_limit,
    };
    memcpy(info->name, partition->name, sizeof(info->name));
    hv_pool_balance(partition, &info->pages_available, &info->pages_in_use);
}

/* A parent comes before its children. */
static size_t list_tree(const struct hv_partition *partition, struct hv_partition_info *partitions, size_t max,
                        size_t n)
{
    if (n < max)
        describe(partition, &partitions[n]);
    n++;
    for (const struct hv_partition *child = partition->children; child; child = child->next_sibling)
        n = list_tree(child, partitions, max, n);
    return n;
}

size_t hv_list_partitions(struct hv *hv, struct hv_partition_info *partitions, size_t max)
{
    size_t n;

    hv_structure_lock_read(&hv->structure);
    n = list_tree(hv->machine_partition, partitions, max, 0);
    hv_structure_lock_drop(&hv->structure);
    return n;
}
