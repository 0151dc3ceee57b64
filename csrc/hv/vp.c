/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 10 (guest side): virtual processors, their index, run time and idle state.
 */
#include "internal.h"

#include <string.h>

hv_vp_index hv_vp_get_index(const struct hv_vp *vp)
{
    return vp->index;
}

void hv_vp_reset(struct hv_vp *vp)
{
    hv_timer_reset(vp);
    hv_synic_reset(vp);
    vp->apic_assist_msr = 0;
    vp->assist_vector = -1;
    memset(vp->apic_assist_page, 0, sizeof(vp->apic_assist_page));
}

enum hv_exit hv_msr_read_vp_index(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    (void)offset;
    *value = vp->index;
    return HV_EXIT_DONE;
}

/* TLFS 10.3.2 */
enum hv_exit hv_msr_read_vp_runtime(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    (void)offset;
    *value = vp->hv->ops->vp_run_time(vp->hv->context, vp->index);
    return HV_EXIT_DONE;
}

/* TLFS 10.1.4: the read itself is the request to sleep. */
enum hv_exit hv_msr_read_guest_idle(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    (void)vp;
    (void)offset;
    *value = 0;
    return HV_EXIT_IDLE;
}

void hv_get_vp_state(struct hv_vp *vp, struct hv_vp_state *state)
{
    memset(state, 0, sizeof(*state));
    state->run_time = vp->hv->ops->vp_run_time(vp->hv->context, vp->index);
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

/* -- Sets of VPs in hypercalls (later than 2.0a) -- */

void hv_keep_existing_vps(const struct hv *hv, struct hv_vp_set *set)
{
    for (unsigned i = 0; i < hv->vp_banks; i++)
        set->bank[i] &= hv->all_vps.bank[i];
}

/* A sparse set: bit i of the mask says that a bank of VPs 64i..64i+63 follows. */
hv_status hv_read_vp_set(const struct hv_call *call, uint64_t format, uint64_t bank_mask, struct hv_vp_set *set)
{
    unsigned next = 0;

    if (format == HV_VP_SET_ALL) {
        *set = call->vp->hv->all_vps;
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
        if (i < call->vp->hv->vp_banks)
            set->bank[i] = call->variable[next];
        next++;
    }
    hv_keep_existing_vps(call->vp->hv, set);
    return HV_STATUS_SUCCESS;
}
