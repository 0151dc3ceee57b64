/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS 15.1.5, 15.1.6: the periodic timer and the PM timer that a parent lets the hypervisor emulate in its child.
 *
 * The periodic timer runs on the platform timer of the partition's first VP. Its state is protected by the partition's
 * lock; interrupts are sent after it has been dropped.
 */
#include "lapic.h"

#define CONTROL_VECTOR(control) ((uint8_t)(control))
#define CONTROL_MODE(control) ((enum hv_delivery)(((control) >> 8) & 7))
#define CONTROL_LOGICAL (UINT64_C(1) << 11)
#define CONTROL_ENABLED (UINT64_C(1) << 12)
#define CONTROL_DESTINATION(control) ((uint32_t)((control) >> 56))

#define PM_TIMER_PORT(info) ((uint16_t)(info))
#define PM_TIMER_WIDTH_24 (UINT64_C(1) << 16)
#define PM_TIMER_ENABLED (UINT64_C(1) << 17)

/* -- The periodic timer; static functions are called with the partition's lock held -- */

/* The VP whose platform timer it is: the first there is, so that it moves on when that one is deleted. */
static struct hv_vp *first_vp(const struct hv_partition *partition)
{
    for (unsigned bank = 0; bank < partition->vp_banks; bank++) {
        uint64_t bits = partition->all_vps.bank[bank];

        if (bits)
            return partition->vps[bank * 64 + (unsigned)__builtin_ctzll(bits)];
    }
    return NULL;
}

static bool is_enabled(const struct hv_partition *partition)
{
    return partition->properties.emulated_timer_period &&
           (partition->properties.emulated_timer_control & CONTROL_ENABLED);
}

static void set_platform_timer(struct hv_vp *vp, hv_nano100_time time)
{
    vp->hv->ops->set_timer(vp->hv->context, vp->handle, HV_VP_TIMER_EMULATED, hv_tsc_at_time(vp->partition, time));
}

/* A period that goes beyond the end of time never ends. */
static hv_nano100_time after(hv_nano100_time time, uint64_t period)
{
    return period < HV_NANO100_NEVER - time ? time + period : HV_NANO100_NEVER;
}

void hv_emulated_timer_changed(struct hv_partition *partition)
{
    struct hv_vp *vp;

    hv_partition_lock_take(&partition->lock);
    partition->emulated_timer_due = HV_NANO100_NEVER;
    if (is_enabled(partition))
        partition->emulated_timer_due =
            after(hv_partition_time(partition), partition->properties.emulated_timer_period);
    vp = first_vp(partition);
    if (vp)
        set_platform_timer(vp, partition->emulated_timer_due);
    hv_partition_lock_drop(&partition->lock);
}

void hv_emulated_timer_set(struct hv_partition *partition)
{
    struct hv_vp *vp;

    hv_partition_lock_take(&partition->lock);
    vp = first_vp(partition);
    if (vp && is_enabled(partition))
        set_platform_timer(vp, partition->emulated_timer_due);
    hv_partition_lock_drop(&partition->lock);
}

struct tick {
    struct hv_vp_set targets;
    enum hv_delivery mode;
    uint8_t vector;
};

static void find_targets(struct hv_partition *partition, struct tick *tick)
{
    uint64_t control = partition->properties.emulated_timer_control;

    tick->mode = CONTROL_MODE(control);
    tick->vector = CONTROL_VECTOR(control);
    hv_lapic_find(partition, CONTROL_DESTINATION(control), control & CONTROL_LOGICAL, false, &tick->targets);
}

/* Whether a target has not accepted the tick before: another would be lost in its IRR. */
static bool is_blocked(const struct hv_partition *partition, const struct tick *tick)
{
    bool fixed = tick->mode == HV_DELIVER_FIXED || tick->mode == HV_DELIVER_LOWEST_PRIORITY;

    return fixed && hv_lapic_any_requested(partition, &tick->targets, tick->vector);
}

/*
 * Whether it has expired; then the next time is set. An expiration that has to wait stays due, so that those after it
 * catch up.
 */
static bool expire(struct hv_partition *partition, struct hv_vp *vp, struct tick *tick)
{
    uint64_t period = partition->properties.emulated_timer_period;
    hv_nano100_time now = hv_partition_time(partition), *due = &partition->emulated_timer_due;

    if (!is_enabled(partition))
        return false;
    if (now < *due) {
        set_platform_timer(vp, *due);
        return false;
    }
    find_targets(partition, tick);
    if (is_blocked(partition, tick)) {
        set_platform_timer(vp, after(now, hv_shortest_period(period)));
        return false;
    }
    set_platform_timer(vp, hv_next_period(due, period, HV_TIMER_CATCH_UP_PERIODS, now));
    return true;
}

static void expired(struct hv_partition *partition, struct hv_vp *vp)
{
    struct tick tick;
    bool fires;

    hv_partition_lock_take(&partition->lock);
    fires = expire(partition, vp, &tick);
    hv_partition_lock_drop(&partition->lock);
    if (fires)
        hv_lapic_send(partition, NULL, &tick.targets, tick.mode, tick.vector);
}

void hv_emulated_timer_expired(struct hv_vp *vp)
{
    struct hv_partition *partition;

    hv_structure_lock_read(&vp->hv->structure);
    partition = vp->partition;
    if (partition && partition->parent && first_vp(partition) == vp)
        expired(partition, vp);
    hv_structure_lock_drop(&vp->hv->structure);
}

/* -- The PM timer -- */

/* 3.579545 MHz of reference time. */
static uint64_t pm_timer(hv_nano100_time time)
{
    return (uint64_t)((unsigned __int128)time * 3579545 / 10000000);
}

bool hv_pm_timer_read(struct hv_vp *vp, const struct hv_io_access *io, uint32_t *value)
{
    uint64_t info = __atomic_load_n(&vp->partition->properties.pm_timer_assist, __ATOMIC_RELAXED);
    uint64_t time;

    if (!(info & PM_TIMER_ENABLED) || io->port != PM_TIMER_PORT(info) || io->write || io->string)
        return false;
    time = pm_timer(hv_partition_time(vp->partition));
    if (info & PM_TIMER_WIDTH_24)
        time &= 0xFFFFFF;
    if (io->size < 4)
        time &= (UINT64_C(1) << (io->size * 8)) - 1;
    *value = (uint32_t)time;
    return true;
}
