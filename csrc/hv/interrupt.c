/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 13: the synthetic APIC registers, the APIC assist page, auto-EOI, and the later cluster IPIs.
 *
 * The local APIC itself is the machine's, or lapic.c's for a child's VP. It tells the core when a VP accepts and ends
 * an interrupt, and asks it whether the guest has ended one through the assist page.
 */
#include "stats.h"

#include <string.h>

static bool vector_in(const uint64_t vectors[4], uint8_t vector)
{
    return (vectors[vector / 64] >> (vector % 64)) & 1;
}

void hv_interrupt_request(struct hv_vp *vp, uint8_t vector)
{
    if (vp->lapic) {
        hv_lapic_request(vp, vector);
    } else {
        hv_stats_raised(vp->raised, vector);
        vp->hv->ops->request_interrupt(vp->hv->context, vp->handle, vector);
    }
    atomic_fetch_add_explicit(&vp->interrupts_requested, 1, memory_order_relaxed);
}

void hv_interrupts_request(struct hv_vp *vp, const struct hv_interrupts *interrupts)
{
    HV_ASSERT_NO_VP_LOCK();
    for (unsigned i = 0; i < 4; i++) {
        for (uint64_t bits = interrupts->vectors[i]; bits; bits &= bits - 1) {
            uint8_t vector = (uint8_t)(i * 64 + (unsigned)__builtin_ctzll(bits));

            hv_stats_raised(vp->raised_by_synic, vector);
            hv_interrupt_request(vp, vector);
        }
    }
}

/* -- Registers (TLFS 13.2.3) -- */

enum hv_exit hv_msr_write_eoi(struct hv_vp *vp, uint32_t offset, uint64_t value)
{
    (void)offset;
    HV_COUNT(vp, ApicEoiAccesses);
    if (vp->lapic)
        hv_lapic_eoi(vp);
    else
        vp->hv->ops->apic_eoi(vp->hv->context, vp->handle, (uint32_t)value);
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_read_icr(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    (void)offset;
    *value = vp->lapic ? hv_lapic_read_icr(vp) : vp->hv->ops->apic_read_icr(vp->hv->context, vp->handle);
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_write_icr(struct hv_vp *vp, uint32_t offset, uint64_t value)
{
    (void)offset;
    if (vp->lapic)
        hv_lapic_write_icr(vp, value);
    else
        vp->hv->ops->apic_write_icr(vp->hv->context, vp->handle, value);
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_read_tpr(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    (void)offset;
    HV_COUNT(vp, ApicTprAccesses);
    *value = vp->lapic ? hv_lapic_read_tpr(vp) : vp->hv->ops->apic_read_tpr(vp->hv->context, vp->handle);
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_write_tpr(struct hv_vp *vp, uint32_t offset, uint64_t value)
{
    (void)offset;
    HV_COUNT(vp, ApicTprAccesses);
    if (value > 0xFF)
        return HV_EXIT_GP;
    if (vp->lapic)
        hv_lapic_write_tpr(vp, (uint8_t)value);
    else
        vp->hv->ops->apic_write_tpr(vp->hv->context, vp->handle, (uint8_t)value);
    return HV_EXIT_DONE;
}

/* -- APIC assist page (TLFS 13.3.4.1) -- */

#define NO_EOI_REQUIRED 1u

static _Atomic uint32_t *eoi_assist(struct hv_vp *vp)
{
    return (_Atomic uint32_t *)(void *)vp->apic_assist_page;
}

enum hv_exit hv_msr_read_apic_assist_page(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    (void)offset;
    *value = vp->apic_assist_msr;
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_write_apic_assist_page(struct hv_vp *vp, uint32_t offset, uint64_t value)
{
    (void)offset;
    vp->apic_assist_msr = value;
    hv_show_overlay(vp->partition, HV_OVERLAY_APIC_ASSIST, vp->index, vp->apic_assist_page, value,
                    HV_OVERLAY_READ_WRITE);
    return HV_EXIT_DONE;
}

int hv_apic_assist_collect(struct hv_vp *vp)
{
    int vector = vp->assist_vector;

    if (vector < 0 || (atomic_load(eoi_assist(vp)) & NO_EOI_REQUIRED))
        return -1;
    vp->assist_vector = -1;
    vp->assisted_eois++;
    return vector;
}

int hv_apic_assist_revoke(struct hv_vp *vp)
{
    int vector = vp->assist_vector;

    if (vector < 0)
        return -1;
    vp->assist_vector = -1;
    if (atomic_fetch_and(eoi_assist(vp), ~NO_EOI_REQUIRED) & NO_EOI_REQUIRED)
        return -1; /* the guest has not ended it and will do so explicitly */
    vp->assisted_eois++;
    return vector;
}

static bool messages_wait_for(struct hv_vp *vp, uint8_t vector)
{
    for (unsigned waiting = atomic_load(&vp->waiting); waiting; waiting &= waiting - 1) {
        if (HV_SINT_VECTOR(atomic_load(&vp->sint[__builtin_ctz(waiting)])) == vector)
            return true;
    }
    return false;
}

enum hv_acceptance hv_interrupt_accepted(struct hv_vp *vp, uint8_t vector, bool quiet)
{
    if (!vp->lapic)
        HV_LOG(vp, IM_EXTERNAL_INTERRUPT, vector);
    hv_stats_accepted(vp, vector);
    if (vector_in(vp->auto_eoi, vector)) {
        vp->auto_eois++;
        return HV_ACCEPT_AUTO_EOI;
    }
    /* An EOI also asks for the next message (TLFS 14.2.4), so it is required while one waits. */
    if (quiet && (vp->apic_assist_msr & HV_PAGE_MSR_ENABLE) && !messages_wait_for(vp, vector)) {
        vp->assist_vector = vector;
        atomic_fetch_or(eoi_assist(vp), NO_EOI_REQUIRED);
    }
    return HV_ACCEPT_NORMAL;
}

/* -- Auto-EOI (TLFS 14.6.5): a vector is ended by the hypervisor when an unmasked SINT that asks for it uses it -- */

void hv_interrupt_update_auto_eoi(struct hv_vp *vp)
{
    struct hv_interrupts automatic = {{0}};

    for (unsigned i = 0; i < HV_SYNIC_SINT_COUNT; i++) {
        uint64_t sint = atomic_load(&vp->sint[i]);

        if ((sint & HV_SINT_AUTO_EOI) && !(sint & HV_SINT_MASKED))
            hv_interrupts_add(&automatic, HV_SINT_VECTOR(sint));
    }
    memcpy(vp->auto_eoi, automatic.vectors, sizeof(vp->auto_eoi));
}

void hv_interrupt_ended(struct hv_vp *vp, uint8_t vector)
{
    struct hv_interrupts interrupts = {{0}};

    if (!messages_wait_for(vp, vector))
        return;
    hv_vp_lock_take(&vp->lock);
    hv_message_deliver_all(vp, &interrupts);
    hv_vp_lock_drop(&vp->lock);
    hv_interrupts_request(vp, &interrupts);
}

/* -- Synthetic cluster IPIs (later than 2.0a): HvSendSyntheticClusterIpi and its Ex form -- */

struct ipi_input {
    uint32_t vector;
    uint32_t padding; /* target VTL and padding, ignored */
    uint64_t processor_mask;
};

struct ipi_ex_input {
    uint32_t vector;
    uint32_t padding;
    uint64_t format;
    uint64_t bank_mask;
};

#define IPI_VECTOR_FIRST 0x10u
#define IPI_VECTOR_LAST 0xFFu

/* To the VPs 64 * `bank` + i for which bit i of `mask` is set and that exist: a child's may go at any time. */
static void send_ipi_to_bank(struct hv_partition *partition, uint8_t vector, unsigned bank, uint64_t mask)
{
    for (mask &= __atomic_load_n(&partition->all_vps.bank[bank], __ATOMIC_ACQUIRE); mask; mask &= mask - 1) {
        hv_vp_index target = bank * 64 + (unsigned)__builtin_ctzll(mask);
        struct hv_vp *vp = __atomic_load_n(&partition->vps[target], __ATOMIC_ACQUIRE);

        if (vp)
            hv_interrupt_request(vp, vector);
    }
}

static bool ipi_vector_is_valid(uint32_t vector)
{
    return vector >= IPI_VECTOR_FIRST && vector <= IPI_VECTOR_LAST;
}

hv_status hv_call_send_synthetic_cluster_ipi(struct hv_call *call)
{
    const struct ipi_input *in = call->input;

    if (!ipi_vector_is_valid(in->vector))
        return HV_STATUS_INVALID_PARAMETER;
    send_ipi_to_bank(call->vp->partition, (uint8_t)in->vector, 0, in->processor_mask);
    return HV_STATUS_SUCCESS;
}

hv_status hv_call_send_synthetic_cluster_ipi_ex(struct hv_call *call)
{
    const struct ipi_ex_input *in = call->input;
    struct hv_vp_set set;
    hv_status status;

    if (!ipi_vector_is_valid(in->vector))
        return HV_STATUS_INVALID_PARAMETER;
    status = hv_read_vp_set(call, in->format, in->bank_mask, &set);
    if (status != HV_STATUS_SUCCESS)
        return status;
    for (unsigned i = 0; i < call->vp->partition->vp_banks; i++)
        send_ipi_to_bank(call->vp->partition, (uint8_t)in->vector, i, set.bank[i]);
    return HV_STATUS_SUCCESS;
}
