/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The local APIC of a child's VP (TLFS 13.2): what its files share. lapic.c accepts and ends interrupts,
 * lapic_registers.c is the register page and the MSRs, lapic_timer.c the timer, lapic_delivery.c finds who an interrupt
 * is for.
 *
 * All of it is protected by the VP's lock, but for the atomic fields: others look at those without it when they choose
 * the targets of an interrupt. Static functions and those called hv_lapic_*_locked() have the lock held.
 */
#ifndef HV_LAPIC_H
#define HV_LAPIC_H

#include "internal.h"

#define LAPIC_BASE_BOOT (UINT64_C(1) << 8)
#define LAPIC_BASE_X2APIC (UINT64_C(1) << 10)
#define LAPIC_BASE_ENABLE (UINT64_C(1) << 11)
#define LAPIC_BASE_DEFAULT UINT64_C(0xFEE00000)

#define LAPIC_SVR_ENABLE (1u << 8)
#define LAPIC_FIRST_VECTOR 16u /* those below are illegal */

/* Delivery modes, which are also the interrupt types of TLFS 13.4.1. */
enum hv_delivery {
    HV_DELIVER_FIXED = 0,
    HV_DELIVER_LOWEST_PRIORITY = 1,
    HV_DELIVER_SMI = 2, /* not generated (TLFS 13.2.1) */
    HV_DELIVER_NMI = 4,
    HV_DELIVER_INIT = 5,
    HV_DELIVER_SIPI = 6,
    HV_DELIVER_EXTERNAL = 7,
};

/* Local vector table, in the order of the registers. */
enum hv_lvt { LVT_TIMER, LVT_THERMAL, LVT_PERFORMANCE, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_ENTRIES };
#define LVT_MASKED (1u << 16)
#define LVT_TIMER_MODE(lvt) (((lvt) >> 17) & 3)
enum { TIMER_ONE_SHOT = 0, TIMER_PERIODIC = 1, TIMER_DEADLINE = 2 };

/* Error status register. */
#define LAPIC_ERROR_SEND_VECTOR (1u << 5)
#define LAPIC_ERROR_RECEIVE_VECTOR (1u << 6)
#define LAPIC_ERROR_REGISTER (1u << 7)

struct hv_lapic {
    _Atomic uint64_t base; /* IA32_APIC_BASE */
    _Atomic uint32_t id; /* xAPIC: 8 bits; in x2APIC mode it is the initial one */
    _Atomic uint32_t ldr, dfr, svr; /* as the registers; the LDR of x2APIC mode follows from the ID */
    _Atomic uint32_t priority; /* the PPR, for arbitration */

    uint32_t irr[8], isr[8], tmr[8];
    /* Level-triggered vectors that the parent asserted and that are not accepted yet: fixed, lowest priority. */
    uint32_t asserted[2][8];
    uint32_t tpr, esr, errors; /* errors: since the last write to the ESR */
    uint32_t icr_low, icr_high, lvt[LVT_ENTRIES];
    bool line; /* what HV_LINE_INTERRUPT was set to */

    /* Timer */
    uint32_t initial_count, divide;
    bool timer_armed;
    uint64_t timer_start; /* machine's TSC at which this count began */
    uint64_t deadline; /* VP's TSC, in TSC-deadline mode */

    /* External interrupts (TLFS 13.3.2): of the boot processor only */
    bool external_pending, external_acknowledged;
    uint8_t external_vector;

    /* Start-up */
    bool waits_for_sipi;
    bool init_pending; /* its processor has been told of an INIT that it has not taken */
    int sipi_pending; /* vector of a SIPI that came meanwhile, or -1 */
};

static inline bool hv_lapic_is_x2apic(const struct hv_lapic *lapic)
{
    return atomic_load(&lapic->base) & LAPIC_BASE_X2APIC;
}

static inline bool hv_lapic_is_enabled(const struct hv_lapic *lapic)
{
    return atomic_load(&lapic->svr) & LAPIC_SVR_ENABLE;
}

static inline bool hv_lapic_vector_is_set(const uint32_t vectors[8], unsigned vector)
{
    return (vectors[vector / 32] >> (vector % 32)) & 1;
}

/* lapic.c */
/* What the VP's own thread does (`self`) needs nobody to be woken. */
void hv_lapic_update_locked(struct hv_vp *vp, bool self);
void hv_lapic_accept_locked(struct hv_vp *vp, unsigned vector, bool level);
void hv_lapic_local_interrupt_locked(struct hv_vp *vp, enum hv_lvt entry);
void hv_lapic_error_locked(struct hv_vp *vp, uint32_t error);
void hv_lapic_collect_locked(struct hv_vp *vp); /* what the guest ended through the assist page */
uint32_t hv_lapic_ppr_locked(const struct hv_lapic *lapic);
void hv_lapic_clear_locked(struct hv_vp *vp); /* nothing requested, in service or set up; its ID and mode stay */
/* One interrupt of any kind but external; takes the lock. */
void hv_lapic_receive(struct hv_vp *sender, struct hv_vp *vp, enum hv_delivery mode, uint8_t vector);

/* lapic_timer.c */
void hv_lapic_timer_reset_locked(struct hv_vp *vp);
void hv_lapic_timer_set_count_locked(struct hv_vp *vp, uint32_t count);
void hv_lapic_timer_set_divide_locked(struct hv_vp *vp, uint32_t divide);
void hv_lapic_timer_set_lvt_locked(struct hv_vp *vp, uint32_t lvt); /* mode or mask may change */
uint32_t hv_lapic_timer_count_locked(struct hv_vp *vp);
void hv_lapic_timer_set_deadline_locked(struct hv_vp *vp, uint64_t deadline);
void hv_lapic_timer_restored_locked(struct hv_vp *vp);

/* lapic_delivery.c */
/*
 * The VPs a destination names, by index. `wide`: the destination has 32 bits, so that 0xFF is no broadcast to an APIC
 * in x2APIC mode.
 */
void hv_lapic_find(struct hv_partition *partition, uint32_t destination, bool logical, bool wide,
                   struct hv_vp_set *targets);
bool hv_vp_set_is_empty(const struct hv_vp_set *set);
/* Send to the targets, or to one of them; no lock held. Fixed ones are edge-triggered. */
void hv_lapic_send(struct hv_partition *partition, struct hv_vp *sender, const struct hv_vp_set *targets,
                   enum hv_delivery mode, uint8_t vector);
/* The target that takes a lowest-priority interrupt; NULL: none can. */
struct hv_vp *hv_lapic_arbitrate(struct hv_partition *partition, const struct hv_vp_set *targets);
/* Whether any of them has the vector in its IRR. */
bool hv_lapic_any_requested(const struct hv_partition *partition, const struct hv_vp_set *targets, uint8_t vector);
/* VPs of a partition, seen without the structure lock: one that goes meanwhile drops what it is sent. */
struct hv_vp *hv_lapic_vp(const struct hv_partition *partition, hv_vp_index index);
/* The ICR was written; no lock held. */
void hv_lapic_send_icr(struct hv_vp *vp);
void hv_lapic_send_self(struct hv_vp *vp, uint8_t vector); /* likewise */

#endif
