/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS 13.3, 13.5: interrupts that a parent asserts in its child.
 *
 * In the text a second assertion of a type supersedes one that is not acknowledged yet. That is so in the 2008 R2
 * generation; later parents assert the lines of an I/O APIC one by one, so there the level-triggered vectors add up. In
 * both, HV_INTERRUPT_VECTOR_NONE withdraws all that the type still has waiting at the destination.
 */
#include "lapic.h"

#define VECTOR_NONE UINT32_C(0xFFFFFFFF)
#define VECTOR_LAST 0xFFu

#define CONTROL_LEVEL (1u << 0)
#define CONTROL_LOGICAL (1u << 1)
#define CONTROL_RESERVED (~(CONTROL_LEVEL | CONTROL_LOGICAL))

struct assert_input {
    hv_partition_id partition;
    uint32_t type;
    uint32_t control;
    uint64_t destination;
    uint32_t vector;
    uint32_t padding; /* later: a virtual trust level, of which there is one */
};

static bool type_exists(uint32_t type)
{
    return type <= HV_DELIVER_EXTERNAL && type != HV_DELIVER_SMI && type != 3;
}

static bool type_has_vector(uint32_t type)
{
    return type != HV_DELIVER_NMI && type != HV_DELIVER_INIT;
}

static bool is_latched_by_level(const struct assert_input *in)
{
    return (in->control & CONTROL_LEVEL) && (in->type == HV_DELIVER_FIXED || in->type == HV_DELIVER_LOWEST_PRIORITY);
}

/*
 * The text's table has two statuses for an external interrupt whose destination is not zero; it is taken for a bad
 * parameter, as parameters are looked at before the VPs they name.
 */
static hv_status check_input(const struct assert_input *in)
{
    if (!type_exists(in->type) || (in->control & CONTROL_RESERVED))
        return HV_STATUS_INVALID_PARAMETER;
    if (in->vector > VECTOR_LAST && in->vector != VECTOR_NONE)
        return HV_STATUS_INVALID_PARAMETER;
    if (!type_has_vector(in->type) && in->vector != 0)
        return HV_STATUS_INVALID_PARAMETER;
    if (in->destination > (in->type == HV_DELIVER_EXTERNAL ? 0 : UINT32_MAX))
        return HV_STATUS_INVALID_PARAMETER;
    return HV_STATUS_SUCCESS;
}

/* -- External interrupts, the boot processor's -- */

static hv_status assert_external(struct hv_partition *partition, uint32_t vector)
{
    struct hv_vp *vp = hv_lapic_vp(partition, 0);
    hv_status status = HV_STATUS_SUCCESS;

    if (!vp)
        return HV_STATUS_INVALID_VP_INDEX;
    hv_vp_lock_take(&vp->lock);
    if (vp->lapic->external_acknowledged) {
        status = HV_STATUS_ACKNOWLEDGED;
    } else {
        vp->lapic->external_pending = vector != VECTOR_NONE;
        vp->lapic->external_vector = (uint8_t)vector;
        hv_lapic_update_locked(vp, false);
    }
    hv_vp_lock_drop(&vp->lock);
    return status;
}

/* TLFS 13.5.2 */
hv_status hv_call_clear_virtual_interrupt(struct hv_call *call)
{
    struct hv_vp *vp = hv_lapic_vp(call->partition, 0);
    bool acknowledged = false;

    if (!hv_partition_is_active(call->partition))
        return HV_STATUS_INVALID_PARTITION_STATE;
    if (vp) {
        hv_vp_lock_take(&vp->lock);
        acknowledged = vp->lapic->external_acknowledged;
        vp->lapic->external_acknowledged = false;
        hv_vp_lock_drop(&vp->lock);
    }
    return acknowledged ? HV_STATUS_SUCCESS : HV_STATUS_NOT_ACKNOWLEDGED;
}

/* -- Level-triggered interrupts -- */

/* Take back what the parent asserted of this type and the VP has not accepted. */
static void withdraw_locked(struct hv_vp *vp, enum hv_delivery type)
{
    struct hv_lapic *lapic = vp->lapic;

    for (unsigned i = 0; i < 8; i++) {
        lapic->irr[i] &= ~lapic->asserted[type][i];
        lapic->asserted[type][i] = 0;
    }
}

static void change_level(struct hv_vp *vp, enum hv_delivery type, bool withdraw, uint32_t vector)
{
    struct hv_lapic *lapic = vp->lapic;

    hv_vp_lock_take(&vp->lock);
    hv_lapic_collect_locked(vp);
    if (withdraw)
        withdraw_locked(vp, type);
    if (vector <= VECTOR_LAST) {
        hv_lapic_accept_locked(vp, vector, true);
        if (hv_lapic_vector_is_set(lapic->irr, vector))
            lapic->asserted[type][vector / 32] |= 1u << (vector % 32);
    }
    hv_lapic_update_locked(vp, false);
    hv_vp_lock_drop(&vp->lock);
}

static void assert_level(struct hv_partition *partition, const struct hv_vp_set *targets, enum hv_delivery type,
                         uint32_t vector)
{
    bool withdraw = vector == VECTOR_NONE || partition->hv->config.generation == HV_GEN_2008R2;
    struct hv_vp *taker = type == HV_DELIVER_LOWEST_PRIORITY ? hv_lapic_arbitrate(partition, targets) : NULL;

    for (unsigned bank = 0; bank < partition->vp_banks; bank++) {
        for (uint64_t bits = targets->bank[bank]; bits; bits &= bits - 1) {
            struct hv_vp *vp = hv_lapic_vp(partition, bank * 64 + (unsigned)__builtin_ctzll(bits));

            if (vp)
                change_level(vp, type, withdraw, type == HV_DELIVER_FIXED || vp == taker ? vector : VECTOR_NONE);
        }
    }
}

/* TLFS 13.5.1 */
hv_status hv_call_assert_virtual_interrupt(struct hv_call *call)
{
    const struct assert_input *in = call->input;
    struct hv_partition *partition = call->partition;
    enum hv_delivery type = (enum hv_delivery)in->type;
    struct hv_vp_set targets;
    hv_status status;

    if (!hv_partition_is_active(partition))
        return HV_STATUS_INVALID_PARTITION_STATE;
    status = check_input(in);
    if (status != HV_STATUS_SUCCESS)
        return status;
    if (type == HV_DELIVER_EXTERNAL)
        return assert_external(partition, in->vector);
    hv_lapic_find(partition, (uint32_t)in->destination, in->control & CONTROL_LOGICAL, in->destination > VECTOR_LAST,
                  &targets);
    if (hv_vp_set_is_empty(&targets))
        return HV_STATUS_INVALID_VP_INDEX;
    if (is_latched_by_level(in))
        assert_level(partition, &targets, type, in->vector);
    else if (in->vector != VECTOR_NONE)
        hv_lapic_send(partition, NULL, &targets, type, (uint8_t)in->vector);
    return HV_STATUS_SUCCESS;
}
