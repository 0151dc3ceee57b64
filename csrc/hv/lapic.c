/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS 13.2, 13.3: the local APIC of a child's VP: requested, accepted and ended interrupts, NMI, INIT and SIPI.
 *
 * It is that of the P4/Xeon family, as the text says, with x2APIC mode and the TSC-deadline timer in the later
 * generation.
 */
#include "lapic.h"
#include "stats.h"

#include <stdlib.h>
#include <string.h>

#define PRIORITY_CLASS(vector) ((vector)&0xF0u)

static void set_bit(uint32_t vectors[8], unsigned vector)
{
    vectors[vector / 32] |= 1u << (vector % 32);
}

static void clear_bit(uint32_t vectors[8], unsigned vector)
{
    vectors[vector / 32] &= ~(1u << (vector % 32));
}

static int highest(const uint32_t vectors[8])
{
    for (int word = 7; word >= 0; word--) {
        if (vectors[word])
            return word * 32 + 31 - __builtin_clz(vectors[word]);
    }
    return -1;
}

/* -- Priority -- */

static uint32_t priority_over(const struct hv_lapic *lapic, const uint32_t in_service[8])
{
    int vector = highest(in_service);

    if (vector < 0 || PRIORITY_CLASS(lapic->tpr) >= PRIORITY_CLASS((uint32_t)vector))
        return lapic->tpr;
    return PRIORITY_CLASS((uint32_t)vector);
}

uint32_t hv_lapic_ppr_locked(const struct hv_lapic *lapic)
{
    return priority_over(lapic, lapic->isr);
}

/* The requested vector that may be accepted when `in_service` are, or -1. */
static int acceptable(const struct hv_lapic *lapic, const uint32_t in_service[8])
{
    int vector = highest(lapic->irr);

    if (vector < 0 || PRIORITY_CLASS((uint32_t)vector) <= PRIORITY_CLASS(priority_over(lapic, in_service)))
        return -1;
    return vector;
}

/*
 * Whether the VP's processor has to ask. While the guest may end an interrupt in the assist page the answer is known
 * only on the VP's own thread, so it has to ask as if that had ended.
 */
static bool has_something(struct hv_vp *vp)
{
    const struct hv_lapic *lapic = vp->lapic;
    uint32_t in_service[8];

    if (lapic->external_pending || hv_wants_interrupt_deliverable(vp, lapic->tpr))
        return true;
    if (vp->assist_vector < 0)
        return acceptable(lapic, lapic->isr) >= 0;
    memcpy(in_service, lapic->isr, sizeof(in_service));
    clear_bit(in_service, (unsigned)vp->assist_vector);
    return acceptable(lapic, in_service) >= 0;
}

void hv_lapic_update_locked(struct hv_vp *vp, bool self)
{
    struct hv_lapic *lapic = vp->lapic;
    bool line = has_something(vp);

    atomic_store(&lapic->priority, hv_lapic_ppr_locked(lapic));
    if (line == lapic->line)
        return;
    lapic->line = line;
    vp->hv->ops->set_line(vp->hv->context, vp->handle, HV_LINE_INTERRUPT, line);
    if (line && !self)
        hv_vp_wake(vp);
}

/* -- The assist page (TLFS 13.3.4.1) -- */

static void end_assisted(struct hv_lapic *lapic, int vector)
{
    if (vector >= 0)
        clear_bit(lapic->isr, (unsigned)vector);
}

void hv_lapic_collect_locked(struct hv_vp *vp)
{
    end_assisted(vp->lapic, hv_apic_assist_collect(vp));
}

/* -- Requests -- */

void hv_lapic_accept_locked(struct hv_vp *vp, unsigned vector, bool level)
{
    struct hv_lapic *lapic = vp->lapic;

    if (!hv_lapic_is_enabled(lapic))
        return;
    if (vector < LAPIC_FIRST_VECTOR) {
        hv_lapic_error_locked(vp, LAPIC_ERROR_RECEIVE_VECTOR);
        return;
    }
    set_bit(lapic->irr, vector);
    if (level)
        set_bit(lapic->tmr, vector);
    else
        clear_bit(lapic->tmr, vector);
}

void hv_lapic_local_interrupt_locked(struct hv_vp *vp, enum hv_lvt entry)
{
    uint32_t lvt = vp->lapic->lvt[entry];

    if (!(lvt & LVT_MASKED))
        hv_lapic_accept_locked(vp, lvt & 0xFF, false);
}

/* An error that was not known already since the last write to the ESR interrupts. */
void hv_lapic_error_locked(struct hv_vp *vp, uint32_t error)
{
    struct hv_lapic *lapic = vp->lapic;

    if (lapic->errors & error)
        return;
    lapic->errors |= error;
    hv_lapic_local_interrupt_locked(vp, LVT_ERROR);
}

void hv_lapic_request(struct hv_vp *vp, uint8_t vector)
{
    hv_vp_lock_take(&vp->lock);
    if (vp->partition) {
        hv_lapic_collect_locked(vp);
        hv_lapic_accept_locked(vp, vector, false);
        hv_lapic_update_locked(vp, false);
    }
    hv_vp_lock_drop(&vp->lock);
}

/* -- Acceptance and end -- */

/* An external interrupt goes past the priorities, and is not in service afterwards (TLFS 13.3.2). */
static int accept_external(struct hv_lapic *lapic)
{
    if (!lapic->external_pending)
        return -1;
    lapic->external_pending = false;
    lapic->external_acknowledged = true;
    return lapic->external_vector;
}

static enum hv_acceptance put_in_service(struct hv_vp *vp, unsigned vector)
{
    struct hv_lapic *lapic = vp->lapic;
    bool quiet;

    clear_bit(lapic->irr, vector);
    clear_bit(lapic->asserted[HV_DELIVER_FIXED], vector);
    clear_bit(lapic->asserted[HV_DELIVER_LOWEST_PRIORITY], vector);
    set_bit(lapic->isr, vector);
    quiet = !hv_lapic_vector_is_set(lapic->tmr, vector) && highest(lapic->irr) < 0;
    if (hv_interrupt_accepted(vp, (uint8_t)vector, quiet) == HV_ACCEPT_NORMAL)
        return HV_ACCEPT_NORMAL;
    clear_bit(lapic->isr, vector);
    return HV_ACCEPT_AUTO_EOI;
}

int hv_child_interrupt(struct hv_vp *vp)
{
    struct hv_lapic *lapic = vp->lapic;
    bool ended = false;
    int vector;

    if (hv_interrupt_deliverable(vp))
        return -1;
    hv_vp_lock_take(&vp->lock);
    vector = accept_external(lapic);
    if (vector >= 0) {
        HV_COUNT(vp, VirtualInterrupts);
    } else {
        /* From now on the guest has to write EOI, so that what waits behind the interrupt in service comes then. */
        if (highest(lapic->irr) >= 0)
            end_assisted(lapic, hv_apic_assist_revoke(vp));
        vector = acceptable(lapic, lapic->isr);
        if (vector >= 0)
            ended = put_in_service(vp, (unsigned)vector) == HV_ACCEPT_AUTO_EOI;
    }
    hv_lapic_update_locked(vp, true);
    hv_vp_lock_drop(&vp->lock);
    if (vector >= 0)
        HV_LOG(vp, IM_INTERRUPT_PENDING, hv_event_rip(vp));
    if (ended)
        hv_interrupt_ended(vp, (uint8_t)vector);
    return vector;
}

void hv_lapic_eoi(struct hv_vp *vp)
{
    struct hv_lapic *lapic = vp->lapic;
    bool level = false;
    int vector;

    hv_vp_lock_take(&vp->lock);
    end_assisted(lapic, hv_apic_assist_revoke(vp));
    vector = highest(lapic->isr);
    if (vector >= 0) {
        clear_bit(lapic->isr, (unsigned)vector);
        level = hv_lapic_vector_is_set(lapic->tmr, (unsigned)vector);
    }
    hv_lapic_update_locked(vp, true);
    hv_vp_lock_drop(&vp->lock);
    if (vector < 0)
        return;
    hv_interrupt_ended(vp, (uint8_t)vector);
    /* The parent is told at the next instruction boundary: this instruction retires (TLFS 13.3.4). */
    if (level) {
        hv_message_apic_eoi(vp, (uint8_t)vector);
        vp->hv->ops->kick_vp(vp->hv->context, vp->handle);
    }
}

/* -- NMI, INIT and SIPI -- */

static void raise_edge(struct hv_vp *vp, enum hv_line line, bool self)
{
    vp->hv->ops->set_line(vp->hv->context, vp->handle, line, true);
    if (!self)
        hv_vp_wake(vp);
}

static void receive_init(struct hv_vp *vp, bool self)
{
    struct hv_lapic *lapic = vp->lapic;

    if (lapic->waits_for_sipi || lapic->init_pending)
        return;
    lapic->init_pending = true;
    lapic->sipi_pending = -1;
    raise_edge(vp, HV_LINE_INIT, self);
}

static void start(struct hv_vp *vp, uint8_t vector)
{
    vp->lapic->waits_for_sipi = false;
    vp->hv->ops->start_vp(vp->hv->context, vp->handle, vector);
    hv_vp_wake(vp);
}

static void receive_sipi(struct hv_vp *vp, uint8_t vector)
{
    struct hv_lapic *lapic = vp->lapic;

    if (lapic->waits_for_sipi)
        start(vp, vector);
    else if (lapic->init_pending)
        lapic->sipi_pending = vector;
}

void hv_lapic_receive(struct hv_vp *sender, struct hv_vp *vp, enum hv_delivery mode, uint8_t vector)
{
    bool self = sender == vp;

    hv_vp_lock_take(&vp->lock);
    if (!vp->partition) {
        hv_vp_lock_drop(&vp->lock);
        return;
    }
    if (sender)
        HV_COUNT_SHARED(vp, ApicIpisSent);
    if (self)
        HV_COUNT_SHARED(vp, ApicSelfIpisSent);
    switch (mode) {
    case HV_DELIVER_FIXED:
    case HV_DELIVER_LOWEST_PRIORITY:
        /* One that the VP sends itself is requested at once, also as far as the assist page tells. */
        if (self)
            end_assisted(vp->lapic, hv_apic_assist_revoke(vp));
        else
            hv_lapic_collect_locked(vp);
        hv_lapic_accept_locked(vp, vector, false);
        hv_lapic_update_locked(vp, self);
        break;
    case HV_DELIVER_NMI:
        if (!vp->lapic->waits_for_sipi)
            raise_edge(vp, HV_LINE_NMI, self);
        break;
    case HV_DELIVER_INIT:
        receive_init(vp, self);
        break;
    case HV_DELIVER_SIPI:
        receive_sipi(vp, vector);
        break;
    case HV_DELIVER_SMI:
    case HV_DELIVER_EXTERNAL:
        break;
    }
    hv_vp_lock_drop(&vp->lock);
}

/* -- Life -- */

void hv_lapic_clear_locked(struct hv_vp *vp)
{
    struct hv_lapic *lapic = vp->lapic;

    atomic_store(&lapic->ldr, 0);
    atomic_store(&lapic->dfr, UINT32_MAX);
    atomic_store(&lapic->svr, 0xFF);
    memset(lapic->irr, 0, sizeof(lapic->irr));
    memset(lapic->isr, 0, sizeof(lapic->isr));
    memset(lapic->tmr, 0, sizeof(lapic->tmr));
    memset(lapic->asserted, 0, sizeof(lapic->asserted));
    lapic->tpr = lapic->esr = lapic->errors = 0;
    lapic->icr_low = lapic->icr_high = 0;
    for (unsigned i = 0; i < LVT_ENTRIES; i++)
        lapic->lvt[i] = LVT_MASKED;
    hv_lapic_timer_reset_locked(vp);
    hv_apic_assist_revoke(vp); /* whatever was in service is not any more */
}

/* The boot processor starts by itself, the others wait for SIPI (TLFS 10.1.5, 10.4.1). */
static void wait_for_start(struct hv_vp *vp)
{
    vp->lapic->waits_for_sipi = vp->index != 0;
    vp->lapic->init_pending = false;
    vp->lapic->sipi_pending = -1;
}

void hv_vp_init_done(struct hv_vp *vp)
{
    int sipi;

    hv_vp_lock_take(&vp->lock);
    sipi = vp->lapic->sipi_pending;
    hv_lapic_clear_locked(vp);
    wait_for_start(vp);
    hv_lapic_update_locked(vp, true);
    if (sipi >= 0)
        receive_sipi(vp, (uint8_t)sipi);
    hv_vp_lock_drop(&vp->lock);
}

static void power_on(struct hv_vp *vp)
{
    struct hv_lapic *lapic = vp->lapic;
    uint64_t boot = vp->index == 0 ? LAPIC_BASE_BOOT : 0;

    atomic_store(&lapic->base, LAPIC_BASE_DEFAULT | LAPIC_BASE_ENABLE | boot);
    atomic_store(&lapic->id, vp->index & 0xFF);
    hv_lapic_set_initial_id(vp, vp->index);
    lapic->external_pending = lapic->external_acknowledged = false;
    hv_lapic_clear_locked(vp);
    wait_for_start(vp);
}

bool hv_lapic_create(struct hv_vp *vp)
{
    if (!vp->lapic)
        vp->lapic = calloc(1, sizeof(*vp->lapic));
    if (!vp->lapic)
        return false;
    hv_vp_lock_take(&vp->lock);
    power_on(vp);
    vp->lapic->line = true; /* so that the processor is told */
    hv_lapic_update_locked(vp, true);
    hv_vp_lock_drop(&vp->lock);
    return true;
}

void hv_lapic_remove(struct hv_vp *vp)
{
    hv_vp_lock_take(&vp->lock);
    hv_lapic_timer_reset_locked(vp);
    hv_vp_lock_drop(&vp->lock);
    vp->hv->ops->set_timer(vp->hv->context, vp->handle, HV_VP_TIMER_EMULATED, HV_NANO100_NEVER);
}
