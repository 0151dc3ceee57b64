/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 10: virtual processors, their creation and deletion, index, run time and idle state. (Their registers
 * are in vp_registers.c.)
 */
#include "stats.h"

#include <stdlib.h>
#include <string.h>

hv_vp_index hv_vp_get_index(const struct hv_vp *vp)
{
    return vp->index;
}

hv_vp_handle hv_vp_get_handle(const struct hv_vp *vp)
{
    return vp->handle;
}

bool hv_vp_is_child(const struct hv_vp *vp)
{
    const struct hv_partition *partition = vp->partition;

    return partition && partition->parent;
}

hv_partition_id hv_vp_get_partition_id(const struct hv_vp *vp)
{
    const struct hv_partition *partition = vp->partition;

    return partition ? partition->id : HV_PARTITION_ID_INVALID;
}

/* -- The pool: a VP that once existed is kept, so that a timer or a kick that comes late finds it -- */

#define VP_PAGES 6 /* SIM, SIEF, APIC assist, two of scratch, and statistics */

void hv_vp_free(struct hv_vp *vp)
{
    if (vp->sim_page)
        vp->hv->ops->free_pages(vp->hv->context, vp->sim_page, VP_PAGES);
    free(vp->lapic);
    free(vp);
}

static struct hv_vp *make_vp(struct hv *hv)
{
    struct hv_vp *vp = calloc(1, sizeof(*vp));

    if (!vp)
        return NULL;
    vp->hv = hv;
    hv_vp_lock_init(&vp->lock);
    vp->sim_page = hv->ops->allocate_pages(hv->context, VP_PAGES);
    if (!vp->sim_page) {
        hv_vp_free(vp);
        return NULL;
    }
    vp->sief_page = vp->sim_page + HV_PAGE_SIZE;
    vp->apic_assist_page = vp->sief_page + HV_PAGE_SIZE;
    vp->input_page = vp->apic_assist_page + HV_PAGE_SIZE;
    vp->output_page = vp->input_page + HV_PAGE_SIZE;
    hv_stats_init(hv, &vp->stats, HV_STATS_OBJECT_VP, vp->output_page + HV_PAGE_SIZE);
    return vp;
}

static struct hv_vp *make_handle(struct hv *hv)
{
    struct hv_vp *vp = hv->handle_count < HV_MAX_VPS ? make_vp(hv) : NULL;

    if (vp) {
        vp->handle = hv->handle_count;
        hv->by_handle[hv->handle_count++] = vp;
        hv_structure_lock_add_reader(&hv->structure, &vp->reader);
    }
    return vp;
}

static void pool_put(struct hv_vp *vp)
{
    vp->next_free = vp->hv->free_vps;
    vp->hv->free_vps = vp;
}

bool hv_vp_allocate(struct hv *hv, struct hv_vp **vp)
{
    *vp = make_handle(hv);
    return *vp != NULL;
}

void hv_vp_insert(struct hv_partition *partition, struct hv_vp *vp, hv_vp_index index)
{
    vp->index = index;
    vp->partition = partition;
    __atomic_store_n(&partition->vps[index], vp, __ATOMIC_RELEASE); /* flushes and IPIs look without a lock */
    __atomic_fetch_or(&partition->all_vps.bank[index / 64], UINT64_C(1) << (index % 64), __ATOMIC_RELEASE);
    partition->vp_count++;
    partition->hv->vp_count++;
    if (partition->hv->lps)
        hv_scheduler_add(vp);
    hv_stats_vp_added(vp);
}

void hv_vp_reset(struct hv_vp *vp)
{
    hv_timer_reset(vp);
    hv_synic_reset(vp);
    vp->apic_assist_msr = 0;
    vp->assist_vector = -1;
    memset(vp->apic_assist_page, 0, HV_PAGE_SIZE);
    memset(vp->known_pages, 0, sizeof(vp->known_pages));
    vp->unfinished_call = 0;
    memset(vp->power_state_config, 0, sizeof(vp->power_state_config));
    vp->debug_deadline = 0;
    memset(vp->stats_msr, 0, sizeof(vp->stats_msr));
}

static void clear_counters(struct hv_vp *vp)
{
    memset(vp->hypercalls, 0, sizeof(vp->hypercalls));
    memset(vp->msr_reads, 0, sizeof(vp->msr_reads));
    memset(vp->msr_writes, 0, sizeof(vp->msr_writes));
    vp->unknown_hypercalls = vp->unknown_msrs = 0;
    atomic_store(&vp->messages_delivered, 0);
    atomic_store(&vp->events_signaled, 0);
    atomic_store(&vp->interrupts_requested, 0);
    vp->auto_eois = vp->assisted_eois = 0;
    hv_stats_init(vp->hv, &vp->stats, HV_STATS_OBJECT_VP, vp->stats.page);
    memset(vp->costs, 0, sizeof(vp->costs));
    vp->hypervisor_ticks = 0;
    for (unsigned i = 0; i < 4; i++) {
        atomic_store(&vp->raised[i], 0);
        atomic_store(&vp->raised_by_synic[i], 0);
    }
}

/* -- Creation and deletion (TLFS 10.4.1, 10.4.2) -- */

/*
 * Find a VP of the pool whose processor is there, or have one made. It stays in the pool, so that a call that has to
 * wait, or is refused, loses nothing.
 */
static hv_status prepare(struct hv *hv, struct hv_vp **found)
{
    struct hv_vp *vp = hv->free_vps;

    while (vp && !vp->made)
        vp = vp->next_free;
    *found = vp;
    if (vp)
        return HV_STATUS_SUCCESS;
    if (!hv->free_vps) {
        vp = make_handle(hv);
        if (!vp)
            return HV_STATUS_NO_RESOURCES;
        pool_put(vp);
    }
    vp = *found = hv->free_vps;
    switch (hv->ops->create_vp(hv->context, vp->handle)) {
    case HV_PROGRESS_DONE:
        vp->made = true;
        return HV_STATUS_SUCCESS;
    case HV_PROGRESS_WAIT:
        return HV_STATUS_WAIT;
    default:
        return HV_STATUS_NO_RESOURCES;
    }
}

static void pool_take(struct hv_vp *vp)
{
    struct hv_vp **link = &vp->hv->free_vps;

    while (*link != vp)
        link = &(*link)->next_free;
    *link = vp->next_free;
}

static hv_status admit(const struct hv_call *call)
{
    struct hv_admission admission = {
        .what = HV_ADMIT_VP,
        .partition = call->partition->id,
        .depth = call->partition->depth,
    };

    return hv_admit(call->vp, call->partition->parent, &admission);
}

/* Power it on, suspended; only then others see it (TLFS 10.4.1). */
static bool begin_life(struct hv_partition *partition, struct hv_vp *vp, hv_vp_index index)
{
    bool boot_processor = index == 0; /* TLFS 10.1.5 */

    pool_take(vp);
    clear_counters(vp);
    hv_vp_registers_reset(vp);
    vp->index = index;
    vp->partition = partition;
    vp->hv->ops->reset_vp(vp->hv->context, vp->handle, index, !boot_processor);
    if (!hv_lapic_create(vp)) {
        vp->partition = NULL;
        pool_put(vp);
        return false;
    }
    hv_vp_reset(vp);
    if (atomic_load(&partition->paused))
        hv_vp_set_suspend(vp, HV_SUSPEND_OPERATOR);
    hv_vp_insert(partition, vp, index);
    hv_emulated_timer_set(partition);
    atomic_store(&vp->yield_until, 0);
    atomic_store(&vp->owner, HV_OWNER_NONE);
    return true;
}

struct hv_vp *hv_vp_prepare_restore(struct hv *hv, hv_vp_handle handle)
{
    struct hv_vp *vp;

    while (hv->handle_count <= handle) {
        vp = make_handle(hv);
        if (!vp)
            return NULL;
        pool_put(vp);
    }
    vp = hv->by_handle[handle];
    if (vp->partition)
        return NULL;
    if (!vp->made)
        vp->made = hv->ops->create_vp(hv->context, handle) == HV_PROGRESS_DONE;
    return vp->made ? vp : NULL;
}

bool hv_vp_restore(struct hv_partition *partition, struct hv_vp *vp, hv_vp_index index)
{
    return begin_life(partition, vp, index);
}

/* Where the interface generations have the fields; the rest is padding, which deployed callers leave dirty. */
struct create_vp_input {
    hv_partition_id partition;
    uint32_t index;
    uint32_t padding;
    union {
        struct {
            uint64_t proximity, flags;
        } as_2008r2;
        struct {
            uint64_t subnode_id, proximity, flags;
        } as_current;
    };
};

static hv_status check_creation(const struct hv_call *call, const struct create_vp_input *in)
{
    const struct hv_partition *partition = call->partition;
    bool current = partition->hv->config.generation == HV_GEN_CURRENT;
    uint64_t proximity = current ? in->as_current.proximity : in->as_2008r2.proximity;
    uint64_t flags = current ? in->as_current.flags : in->as_2008r2.flags;

    if (!hv_partition_is_active(partition))
        return HV_STATUS_INVALID_PARTITION_STATE;
    if (in->index >= partition->vp_limit || partition->vps[in->index])
        return HV_STATUS_INVALID_VP_INDEX;
    if (flags || !hv_proximity_is_valid(proximity))
        return HV_STATUS_INVALID_PARAMETER;
    /* A cap takes nothing from others, so it has no total that could be exceeded. */
    if (!hv_reserve_allows_vp(partition))
        return HV_STATUS_OPERATION_DENIED;
    return HV_STATUS_SUCCESS;
}

static hv_status create_vp(struct hv_call *call, hv_vp_handle *handle)
{
    const struct create_vp_input *in = call->input;
    struct hv_partition *partition = call->partition;
    struct hv_vp *vp;
    hv_status status = check_creation(call, in);

    if (status != HV_STATUS_SUCCESS)
        return status;
    if (!hv_pool_charge(partition, HV_COST_Vp))
        return HV_STATUS_INSUFFICIENT_MEMORY;
    status = prepare(partition->hv, &vp);
    if (status == HV_STATUS_SUCCESS)
        status = admit(call);
    if (status == HV_STATUS_SUCCESS && !begin_life(partition, vp, in->index))
        status = HV_STATUS_NO_RESOURCES;
    if (status != HV_STATUS_SUCCESS)
        hv_pool_release(partition, HV_COST_Vp);
    else
        *handle = vp->handle;
    return status;
}

hv_status hv_call_create_vp(struct hv_call *call)
{
    hv_vp_handle handle = HV_ANY_VP;
    hv_status status = create_vp(call, &handle);

    if (status != HV_STATUS_WAIT)
        HV_LOG(call->vp, VP_CREATE_VP, call->partition->id, handle, status);
    return status;
}

static void hide_overlays(struct hv_vp *vp)
{
    struct hv_partition *partition = vp->partition;

    hv_show_overlay(partition, HV_OVERLAY_APIC_ASSIST, vp->index, vp->apic_assist_page, 0, HV_OVERLAY_READ_WRITE);
    hv_show_overlay(partition, HV_OVERLAY_SIEF, vp->index, vp->sief_page, 0, HV_OVERLAY_READ_WRITE);
    hv_show_overlay(partition, HV_OVERLAY_SIM, vp->index, vp->sim_page, 0, HV_OVERLAY_READ_WRITE);
}

void hv_vp_remove(struct hv_vp *vp)
{
    struct hv_partition *partition = vp->partition;

    HV_LOG_AT(vp->hv, hv_calling_vp, hv_event_lp(hv_calling_vp), VP_DELETE_VP, partition->id, vp->handle,
              HV_STATUS_SUCCESS);
    if (atomic_exchange(&vp->tlb_flush_inhibit, false))
        hv_tlb_flush_inhibit_cleared(vp);
    hv_scheduler_remove(vp);
    __atomic_fetch_and(&partition->all_vps.bank[vp->index / 64], ~(UINT64_C(1) << (vp->index % 64)), __ATOMIC_RELEASE);
    __atomic_store_n(&partition->vps[vp->index], NULL, __ATOMIC_RELEASE);
    partition->vp_count--;
    partition->hv->vp_count--;
    hv_stats_vp_removed(vp);
    hv_vp_set_suspend(vp, HV_SUSPEND_EXPLICIT); /* reference time stops when no other VP is active */
    hv_emulated_timer_set(partition);
    hv_intercept_vp_remove(vp);
    hide_overlays(vp);
    hv_lapic_remove(vp);
    hv_vp_reset(vp);
    /* A timer or a kick that comes late finds it in no partition. It stays owned until it lives again. */
    hv_vp_lock_take(&vp->lock);
    vp->partition = NULL;
    hv_vp_lock_drop(&vp->lock);
    hv_pool_release(partition, HV_COST_Vp);
    pool_put(vp);
}

static hv_status delete_vp(struct hv_call *call, uint32_t index)
{
    struct hv_partition *partition = call->partition;
    struct hv_vp *vp;

    if (!hv_partition_is_active(partition))
        return HV_STATUS_INVALID_PARTITION_STATE;
    vp = hv_partition_vp(partition, index);
    if (!vp)
        return HV_STATUS_INVALID_VP_INDEX;
    if (!hv_vp_acquire(call->vp, vp))
        return HV_STATUS_WAIT;
    hv_vp_remove(vp);
    return HV_STATUS_SUCCESS;
}

hv_status hv_call_delete_vp(struct hv_call *call)
{
    uint32_t index;
    hv_status status;

    memcpy(&index, (const uint8_t *)call->input + sizeof(hv_partition_id), sizeof(index));
    status = delete_vp(call, index);
    if (status != HV_STATUS_SUCCESS && status != HV_STATUS_WAIT)
        HV_LOG(call->vp, VP_DELETE_VP, call->partition->id, HV_ANY_VP, status);
    return status;
}

enum hv_exit hv_msr_read_vp_index(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    (void)offset;
    *value = vp->index;
    return HV_EXIT_DONE;
}

/* With a root the scheduler knows, else the machine. */
hv_nano100_time hv_run_time(struct hv_vp *vp)
{
    return vp->hv->lps ? hv_vp_run_time(vp) : vp->hv->ops->vp_run_time(vp->hv->context, vp->handle);
}

/* TLFS 10.3.2 */
enum hv_exit hv_msr_read_vp_runtime(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    (void)offset;
    *value = hv_run_time(vp);
    return HV_EXIT_DONE;
}

/*
 * TLFS 10.1.4: the read itself is the request to sleep. Who has nothing to do lets others go first, even if what ends
 * the sleep is there already.
 */
enum hv_exit hv_msr_read_guest_idle(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    (void)offset;
    *value = 0;
    vp->sched.yields = true;
    return HV_EXIT_IDLE;
}

void hv_get_vp_state(struct hv_vp *vp, struct hv_vp_state *state)
{
    memset(state, 0, sizeof(*state));
    state->run_time = hv_run_time(vp);
    memcpy(state->hypercalls, vp->hypercalls, sizeof(state->hypercalls));
    memcpy(state->msr_reads, vp->msr_reads, sizeof(state->msr_reads));
    memcpy(state->msr_writes, vp->msr_writes, sizeof(state->msr_writes));
    state->unknown_hypercalls = vp->unknown_hypercalls;
    state->unknown_msrs = vp->unknown_msrs;
    state->messages_delivered = atomic_load(&vp->messages_delivered);
    state->events_signaled = atomic_load(&vp->events_signaled);
    state->interrupts_requested = atomic_load(&vp->interrupts_requested);
    state->auto_eois = vp->auto_eois;
    state->assisted_eois = vp->assisted_eois;
    state->apic_assist_page = vp->apic_assist_msr;

    hv_vp_lock_take(&vp->lock);
    state->scontrol = atomic_load(&vp->scontrol);
    state->siefp = atomic_load(&vp->siefp);
    state->simp = atomic_load(&vp->simp);
    for (unsigned i = 0; i < HV_SYNIC_SINT_COUNT; i++) {
        state->sint[i] = atomic_load(&vp->sint[i]);
        for (const struct hv_message_buffer *b = vp->queue[i].head; b; b = b->next)
            state->queued[i]++;
    }
    for (unsigned i = 0; i < HV_SYNTHETIC_TIMER_COUNT; i++) {
        const struct hv_timer *timer = &vp->timer[i];

        state->timers[i] = (struct hv_timer_state){
            .config = timer->config,
            .count = timer->count,
            .due = timer->due,
            .message_pending = atomic_load(&timer->buffer.in_use),
            .expirations = timer->expirations,
        };
    }
    hv_vp_lock_drop(&vp->lock);
}

/* -- Sets of VPs -- */

void hv_vp_handles(const struct hv_partition *partition, const struct hv_vp_set *by_index, struct hv_vp_set *handles)
{
    if (!partition->parent) {
        *handles = *by_index;
        return;
    }
    memset(handles, 0, sizeof(*handles));
    for (unsigned i = 0; i < partition->vp_banks; i++) {
        uint64_t present = __atomic_load_n(&partition->all_vps.bank[i], __ATOMIC_ACQUIRE);

        for (uint64_t bits = by_index->bank[i] & present; bits; bits &= bits - 1) {
            unsigned index = i * 64 + (unsigned)__builtin_ctzll(bits);
            const struct hv_vp *vp = __atomic_load_n(&partition->vps[index], __ATOMIC_ACQUIRE);

            if (vp) /* it may be deleted at this moment */
                handles->bank[vp->handle / 64] |= UINT64_C(1) << (vp->handle % 64);
        }
    }
}

/* In hypercalls (later than 2.0a). */

void hv_keep_existing_vps(const struct hv_partition *partition, struct hv_vp_set *set)
{
    for (unsigned i = 0; i < partition->vp_banks; i++)
        set->bank[i] &= __atomic_load_n(&partition->all_vps.bank[i], __ATOMIC_ACQUIRE);
}

/* A sparse set: bit i of the mask says that a bank of VPs 64i..64i+63 follows. */
hv_status hv_read_vp_set(const struct hv_call *call, uint64_t format, uint64_t bank_mask, struct hv_vp_set *set)
{
    unsigned next = 0;

    if (format == HV_VP_SET_ALL) {
        *set = call->vp->partition->all_vps;
        return HV_STATUS_SUCCESS;
    }
    if (format != HV_VP_SET_SPARSE)
        return HV_STATUS_INVALID_PARAMETER;
    if ((unsigned)__builtin_popcountll(bank_mask) != call->variable_count)
        return HV_STATUS_INVALID_HYPERCALL_INPUT;
    memset(set, 0, sizeof(*set));
    for (unsigned i = 0; i < 64; i++) {
        if (!((bank_mask >> i) & 1))
            continue;
        if (i < call->vp->partition->vp_banks)
            set->bank[i] = call->variable[next];
        next++;
    }
    hv_keep_existing_vps(call->vp->partition, set);
    return HV_STATUS_SUCCESS;
}
