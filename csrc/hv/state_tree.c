/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Child partitions and their VPs in the stream of state. What the platform keeps of a VP's processor it saves itself;
 * VPs keep their handles, by which it knows them.
 */
#include "stream.h"

#include "lapic.h"

/* -- Partitions -- */

#define FULL_LP UINT64_C(0x10000) /* TLFS 18.2.1 */
#define WEIGHT_MAXIMUM 10000 /* TLFS 18.2.3 */
#define TIMER_ENABLED (UINT64_C(1) << 12) /* TLFS 15.1.5 */

/* What others divide by, or take as a limit. */
static bool properties_are_possible(const struct hv_partition_properties *p)
{
    return p->cpu_cap <= FULL_LP && p->cpu_reserve <= p->cpu_cap && p->cpu_weight <= WEIGHT_MAXIMUM &&
           (p->emulated_timer_period || !(p->emulated_timer_control & TIMER_ENABLED)) &&
           p->virtual_tlb_pages <= HV_COST_VirtualTlbMaximum;
}

static void properties(struct hv_stream *s, struct hv_partition_properties *p)
{
    hv_stream_u64(s, &p->cpu_reserve);
    hv_stream_u64(s, &p->cpu_cap);
    hv_stream_u64(s, &p->cpu_weight);
    hv_stream_u64(s, &p->emulated_timer_period);
    hv_stream_u64(s, &p->emulated_timer_control);
    hv_stream_u64(s, &p->pm_timer_assist);
    hv_stream_u64(s, &p->debug_channel);
    hv_stream_u64(s, &p->virtual_tlb_pages);
    hv_stream_u64(s, &p->processor_features);
    hv_stream_u64(s, &p->xsave_features);
    hv_stream_u64(s, &p->clflush_size);
    if (hv_stream_reading(s) && !properties_are_possible(p)) {
        hv_stream_fail(s, "the saved hypervisor state has an impossible property");
        memset(p, 0, sizeof(*p)); /* what is torn down now goes by them */
    }
}

static void privileges(struct hv_stream *s, struct hv_partition *partition)
{
    hv_stream_atomic_u64(s, &partition->privileges);
    if (atomic_load(&partition->privileges) & ~hv_privileges_of(partition->hv->config.generation))
        hv_stream_fail(s, "the saved hypervisor state has a privilege that does not exist");
}

void hv_state_partition_fields(struct hv_stream *s, struct hv_partition *partition)
{
    uint32_t state = atomic_load(&partition->state);

    hv_stream_u32(s, &state);
    if (state > HV_PARTITION_FINALIZED) {
        hv_stream_fail(s, "the saved hypervisor state has a partition in an impossible state");
        return;
    }
    atomic_store(&partition->state, state);
    hv_stream_atomic_flag(s, &partition->paused);
    privileges(s, partition);
    hv_stream_u32(s, &partition->features);
    hv_stream_u32(s, &partition->recommendations);
    hv_stream_u32(s, &partition->spinlock_retries);
    hv_stream_u64(s, &partition->creation_flags);
    hv_stream_bytes(s, partition->name, sizeof(partition->name));
    partition->name[sizeof(partition->name) - 1] = '\0';
    hv_stream_u64(s, &partition->page_limit);
    properties(s, &partition->properties);
    hv_stream_atomic_flag(s, &partition->time_stopped);
    hv_stream_atomic_u64(s, &partition->stopped_time);
    hv_stream_u64(s, &partition->emulated_timer_due);
}

static bool may_have_vps(const struct hv_partition *partition)
{
    unsigned state = atomic_load(&partition->state);

    return state == HV_PARTITION_ACTIVE || state == HV_PARTITION_FINALIZING;
}

static bool insert_vp(struct hv_partition *partition, uint32_t index, uint32_t handle)
{
    struct hv_vp *vp;

    if (!may_have_vps(partition) || handle >= HV_MAX_VPS || index >= partition->vp_limit || partition->vps[index])
        return false;
    vp = hv_vp_prepare_restore(partition->hv, handle);
    return vp && hv_vp_restore(partition, vp, index);
}

static void vps(struct hv_stream *s, struct hv_partition *partition)
{
    uint32_t count = hv_stream_count(s, partition->vp_count, HV_MAX_VPS);
    hv_vp_index index = 0;

    for (uint32_t i = 0; i < count && !s->error; i++, index++) {
        uint32_t handle = 0;

        while (!hv_stream_reading(s) && !partition->vps[index])
            index++;
        if (!hv_stream_reading(s))
            handle = partition->vps[index]->handle;
        hv_stream_u32(s, &index);
        hv_stream_u32(s, &handle);
        if (hv_stream_reading(s) && !s->error && !insert_vp(partition, index, handle))
            hv_stream_fail(s, "the saved hypervisor state has an impossible virtual processor");
    }
}

static bool may_be_parent(const struct hv_partition *partition)
{
    return partition && partition->gpa_space && partition->depth < HV_MAX_PARTITION_DEPTH &&
           atomic_load(&partition->state) != HV_PARTITION_UNINITIALIZED;
}

static void read_child(struct hv_stream *s, struct hv *hv)
{
    uint64_t id = 0, parent = 0;
    struct hv_partition *partition = NULL;

    hv_stream_u64(s, &id);
    hv_stream_u64(s, &parent);
    if (s->error)
        return;
    if (id != HV_PARTITION_ID_INVALID && id < hv->next_partition_id && !hv_find_partition(hv, id) &&
        may_be_parent(hv_find_partition(hv, parent)))
        partition = hv_partition_restore(hv_find_partition(hv, parent), id);
    if (!partition) {
        hv_stream_fail(s, "the saved hypervisor state has an impossible partition");
        return;
    }
    hv_pool_release(partition, HV_POOL_UNLIMITED);
    hv_state_partition_fields(s, partition);
    if (atomic_load(&partition->state) == HV_PARTITION_FINALIZED)
        hv_gpa_space_free(partition); /* it has none any more */
    if (may_have_vps(partition) && hv_has_privilege(partition, HV_PRIVILEGE_Debugging) &&
        hv_debug_session_create(partition) != HV_STATUS_SUCCESS) /* what was in it is not part of the state (20.1.1) */
        hv_stream_fail(s, "the host's memory is too short for the saved machine");
    if (!s->error)
        vps(s, partition);
}

static void write_child(struct hv_stream *s, struct hv_partition *partition)
{
    uint64_t id = partition->id, parent = partition->parent->id;

    hv_stream_u64(s, &id);
    hv_stream_u64(s, &parent);
    hv_state_partition_fields(s, partition);
    vps(s, partition);
}

void hv_state_tree(struct hv_stream *s, struct hv *hv)
{
    uint32_t count;

    hv_stream_u64(s, &hv->next_partition_id);
    if (hv->next_partition_id <= HV_PARTITION_ID_MACHINE)
        hv_stream_fail(s, "the saved hypervisor state has an impossible partition ID");
    privileges(s, hv->machine_partition);
    properties(s, &hv->machine_partition->properties);
    count = hv_stream_count(s, hv->partition_count - 1, HV_MAX_PARTITIONS - 1);
    if (hv_stream_reading(s)) {
        for (uint32_t i = 0; i < count && !s->error; i++)
            read_child(s, hv);
        return;
    }
    for (struct hv_partition *p = hv_next_partition(hv->machine_partition); p; p = hv_next_partition(p))
        write_child(s, p);
}

/* -- A child's VP -- */

static void vectors(struct hv_stream *s, uint32_t set[8])
{
    for (unsigned i = 0; i < 8; i++)
        hv_stream_u32(s, &set[i]);
}

static void lapic_timer(struct hv_stream *s, struct hv_lapic *lapic)
{
    hv_stream_u32(s, &lapic->initial_count);
    hv_stream_u32(s, &lapic->divide);
    hv_stream_flag(s, &lapic->timer_armed);
    hv_stream_u64(s, &lapic->timer_start);
    hv_stream_u64(s, &lapic->deadline);
}

static void local_apic(struct hv_stream *s, struct hv_lapic *lapic)
{
    uint32_t sipi = (uint32_t)lapic->sipi_pending, vector = lapic->external_vector;

    hv_stream_atomic_u64(s, &lapic->base);
    hv_stream_atomic_u32(s, &lapic->id);
    hv_stream_atomic_u32(s, &lapic->ldr);
    hv_stream_atomic_u32(s, &lapic->dfr);
    hv_stream_atomic_u32(s, &lapic->svr);
    hv_stream_atomic_u32(s, &lapic->priority);
    vectors(s, lapic->irr);
    vectors(s, lapic->isr);
    vectors(s, lapic->tmr);
    vectors(s, lapic->asserted[0]);
    vectors(s, lapic->asserted[1]);
    hv_stream_u32(s, &lapic->tpr);
    hv_stream_u32(s, &lapic->esr);
    hv_stream_u32(s, &lapic->errors);
    hv_stream_u32(s, &lapic->icr_low);
    hv_stream_u32(s, &lapic->icr_high);
    for (unsigned i = 0; i < LVT_ENTRIES; i++)
        hv_stream_u32(s, &lapic->lvt[i]);
    hv_stream_flag(s, &lapic->line);
    lapic_timer(s, lapic);
    hv_stream_flag(s, &lapic->external_pending);
    hv_stream_flag(s, &lapic->external_acknowledged);
    hv_stream_u32(s, &vector);
    lapic->external_vector = (uint8_t)vector;
    hv_stream_flag(s, &lapic->waits_for_sipi);
    hv_stream_flag(s, &lapic->init_pending);
    hv_stream_u32(s, &sipi);
    lapic->sipi_pending = sipi < 256 ? (int)sipi : -1;
}

void hv_state_child_vp(struct hv_stream *s, struct hv_vp *vp)
{
    uint32_t suspend = atomic_load(&vp->suspend), deliverability = atomic_load(&vp->deliverability);

    hv_stream_u32(s, &suspend);
    hv_stream_u32(s, &deliverability);
    atomic_store(&vp->suspend, suspend & HV_SUSPEND_ALL);
    atomic_store(&vp->deliverability, deliverability);
    hv_stream_atomic_flag(s, &vp->tlb_flush_inhibit);
    hv_stream_u32(s, &vp->initial_apic_id);
    hv_stream_atomic_u64(s, &vp->tsc_offset);
    local_apic(s, vp->lapic);
}
