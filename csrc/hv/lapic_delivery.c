/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS 13.2, 13.5: which VPs of a child an interrupt is for, and sending it to them: the interrupt command register,
 * and what the parent asserts.
 */
#include "lapic.h"

#define BROADCAST UINT32_C(0xFFFFFFFF)
#define XAPIC_BROADCAST 0xFFu

#define ICR_VECTOR(icr) ((uint8_t)(icr))
#define ICR_MODE(icr) ((enum hv_delivery)(((icr) >> 8) & 7))
#define ICR_LOGICAL (1u << 11)
#define ICR_ASSERT (1u << 14)
#define ICR_LEVEL (1u << 15)
#define ICR_SHORTHAND(icr) (((icr) >> 18) & 3)
enum { TO_DESTINATION = 0, TO_SELF = 1, TO_ALL = 2, TO_OTHERS = 3 };

/* -- Destinations -- */

struct hv_vp *hv_lapic_vp(const struct hv_partition *partition, hv_vp_index index)
{
    struct hv_vp *vp = index < partition->vp_limit ? __atomic_load_n(&partition->vps[index], __ATOMIC_ACQUIRE) : NULL;

    return vp && vp->lapic ? vp : NULL;
}

static uint64_t existing(const struct hv_partition *partition, unsigned bank)
{
    return __atomic_load_n(&partition->all_vps.bank[bank], __ATOMIC_ACQUIRE);
}

static void add(struct hv_vp_set *set, hv_vp_index index)
{
    set->bank[index / 64] |= UINT64_C(1) << (index % 64);
}

static void remove_vp(struct hv_vp_set *set, hv_vp_index index)
{
    set->bank[index / 64] &= ~(UINT64_C(1) << (index % 64));
}

bool hv_vp_set_is_empty(const struct hv_vp_set *set)
{
    uint64_t any = 0;

    for (unsigned i = 0; i < HV_VP_BANKS; i++)
        any |= set->bank[i];
    return any == 0;
}

static void add_all(struct hv_partition *partition, struct hv_vp_set *set)
{
    for (unsigned i = 0; i < partition->vp_banks; i++)
        set->bank[i] = existing(partition, i);
}

static bool is_physically(const struct hv_vp *vp, uint32_t destination, bool wide)
{
    const struct hv_lapic *lapic = vp->lapic;

    if (destination == BROADCAST || (!wide && destination == XAPIC_BROADCAST))
        return true;
    if (hv_lapic_is_x2apic(lapic))
        return destination == hv_lapic_get_initial_id(vp);
    return destination == XAPIC_BROADCAST || destination == atomic_load(&lapic->id);
}

static bool is_logically(const struct hv_vp *vp, uint32_t destination, bool wide)
{
    const struct hv_lapic *lapic = vp->lapic;
    uint32_t ldr;

    if (destination == BROADCAST || (!wide && destination == XAPIC_BROADCAST))
        return true;
    if (hv_lapic_is_x2apic(lapic)) {
        uint32_t id = hv_lapic_get_initial_id(vp);

        return destination >> 16 == id >> 4 && (destination & (1u << (id & 0xF)));
    }
    if (destination == XAPIC_BROADCAST)
        return true;
    if (destination > XAPIC_BROADCAST)
        return false;
    ldr = atomic_load(&lapic->ldr) >> 24;
    if (atomic_load(&lapic->dfr) >> 28 == 0xF) /* flat: a bit for each */
        return destination & ldr;
    return destination >> 4 == ldr >> 4 && (destination & ldr & 0xF); /* cluster: a number, and a bit for each in it */
}

void hv_lapic_find(struct hv_partition *partition, uint32_t destination, bool logical, bool wide,
                   struct hv_vp_set *targets)
{
    *targets = (struct hv_vp_set){{0}};
    for (unsigned bank = 0; bank < partition->vp_banks; bank++) {
        for (uint64_t bits = existing(partition, bank); bits; bits &= bits - 1) {
            hv_vp_index index = bank * 64 + (unsigned)__builtin_ctzll(bits);
            struct hv_vp *vp = hv_lapic_vp(partition, index);

            if (vp && (logical ? is_logically : is_physically)(vp, destination, wide))
                add(targets, index);
        }
    }
}

/* -- Sending -- */

/*
 * Of those that take interrupts the one that does the least important work. Of equals it is another one each time, so
 * that none gets them all.
 */
struct hv_vp *hv_lapic_arbitrate(struct hv_partition *partition, const struct hv_vp_set *targets)
{
    unsigned turn = atomic_fetch_add(&partition->arbitrations, 1), equals = 0;
    struct hv_vp *candidates[HV_MAX_VPS];
    uint32_t least = UINT32_MAX;

    for (unsigned bank = 0; bank < partition->vp_banks; bank++) {
        for (uint64_t bits = targets->bank[bank]; bits; bits &= bits - 1) {
            struct hv_vp *vp = hv_lapic_vp(partition, bank * 64 + (unsigned)__builtin_ctzll(bits));
            uint32_t priority;

            if (!vp || !hv_lapic_is_enabled(vp->lapic))
                continue;
            priority = atomic_load(&vp->lapic->priority);
            if (priority < least) {
                least = priority;
                equals = 0;
            }
            if (priority == least)
                candidates[equals++] = vp;
        }
    }
    return equals ? candidates[turn % equals] : NULL;
}

void hv_lapic_send(struct hv_partition *partition, struct hv_vp *sender, const struct hv_vp_set *targets,
                   enum hv_delivery mode, uint8_t vector)
{
    if (mode == HV_DELIVER_LOWEST_PRIORITY) {
        struct hv_vp *vp = hv_lapic_arbitrate(partition, targets);

        if (vp)
            hv_lapic_receive(sender, vp, mode, vector);
        return;
    }
    for (unsigned bank = 0; bank < partition->vp_banks; bank++) {
        for (uint64_t bits = targets->bank[bank]; bits; bits &= bits - 1) {
            struct hv_vp *vp = hv_lapic_vp(partition, bank * 64 + (unsigned)__builtin_ctzll(bits));

            if (vp)
                hv_lapic_receive(sender, vp, mode, vector);
        }
    }
}

static bool is_requested(struct hv_vp *vp, uint8_t vector)
{
    bool requested;

    hv_vp_lock_take(&vp->lock);
    requested = hv_lapic_vector_is_set(vp->lapic->irr, vector);
    hv_vp_lock_drop(&vp->lock);
    return requested;
}

bool hv_lapic_any_requested(const struct hv_partition *partition, const struct hv_vp_set *targets, uint8_t vector)
{
    for (unsigned bank = 0; bank < partition->vp_banks; bank++) {
        for (uint64_t bits = targets->bank[bank]; bits; bits &= bits - 1) {
            struct hv_vp *vp = hv_lapic_vp(partition, bank * 64 + (unsigned)__builtin_ctzll(bits));

            if (vp && is_requested(vp, vector))
                return true;
        }
    }
    return false;
}

static bool has_vector(enum hv_delivery mode)
{
    return mode == HV_DELIVER_FIXED || mode == HV_DELIVER_LOWEST_PRIORITY;
}

/* Only a fixed interrupt may be sent to oneself, alone or with the others. */
static bool can_be_sent(uint32_t icr)
{
    enum hv_delivery mode = ICR_MODE(icr);
    unsigned shorthand = ICR_SHORTHAND(icr);

    if ((icr & ICR_LEVEL) && !(icr & ICR_ASSERT))
        return false; /* INIT level de-assert, or one that is never asserted: this family ignores it */
    return mode == HV_DELIVER_FIXED || shorthand == TO_DESTINATION || shorthand == TO_OTHERS;
}

static void find_targets(struct hv_vp *vp, uint32_t icr, uint32_t destination, bool wide, struct hv_vp_set *targets)
{
    *targets = (struct hv_vp_set){{0}};
    switch (ICR_SHORTHAND(icr)) {
    case TO_DESTINATION:
        hv_lapic_find(vp->partition, destination, icr & ICR_LOGICAL, wide, targets);
        break;
    case TO_SELF:
        add(targets, vp->index);
        break;
    case TO_ALL:
        add_all(vp->partition, targets);
        break;
    case TO_OTHERS:
        add_all(vp->partition, targets);
        remove_vp(targets, vp->index);
        break;
    }
}

static void report_illegal(struct hv_vp *vp)
{
    hv_lapic_collect_locked(vp);
    hv_lapic_error_locked(vp, LAPIC_ERROR_SEND_VECTOR);
    hv_lapic_update_locked(vp, true);
}

void hv_lapic_send_self(struct hv_vp *vp, uint8_t vector)
{
    if (vector >= LAPIC_FIRST_VECTOR) {
        hv_lapic_receive(vp, vp, HV_DELIVER_FIXED, vector);
        return;
    }
    hv_vp_lock_take(&vp->lock);
    report_illegal(vp);
    hv_vp_lock_drop(&vp->lock);
}

void hv_lapic_send_icr(struct hv_vp *vp)
{
    struct hv_lapic *lapic = vp->lapic;
    bool wide = hv_lapic_is_x2apic(lapic), illegal;
    struct hv_vp_set targets;
    uint32_t icr, destination;

    hv_vp_lock_take(&vp->lock);
    icr = lapic->icr_low;
    destination = wide ? lapic->icr_high : lapic->icr_high >> 24;
    illegal = has_vector(ICR_MODE(icr)) && ICR_VECTOR(icr) < LAPIC_FIRST_VECTOR;
    if (illegal)
        report_illegal(vp);
    hv_vp_lock_drop(&vp->lock);
    if (illegal || !can_be_sent(icr))
        return;
    find_targets(vp, icr, destination, wide, &targets);
    hv_lapic_send(vp->partition, vp, &targets, ICR_MODE(icr), ICR_VECTOR(icr));
}
