/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 6: logical processors, their run times and power states.
 *
 * An LP is there from the launch on (6.1.3), one for each VP of the machine's own partition and bound to it, so that
 * VP's registers are the LP's. Only that partition can have CpuManagement, which all of this needs.
 */
#include "internal.h"

#include <string.h>

struct run_time_output {
    hv_nano100_time global, local;
    uint64_t reserved;
    hv_nano100_time hypervisor;
};

/* Later than 2.0a: the caller names the LP. What follows the index may hold anything. */
static hv_status named_lp(const struct hv_call *call, unsigned *lp)
{
    const struct hv *hv = call->vp->hv;
    uint32_t index;

    *lp = call->vp->index;
    if (hv->config.generation == HV_GEN_2008R2)
        return HV_STATUS_SUCCESS;
    memcpy(&index, call->input, sizeof(index));
    *lp = index;
    return index < hv->machine_partition->vp_count ? HV_STATUS_SUCCESS : HV_STATUS_INVALID_LP_INDEX;
}

/* TLFS 6.4.1 */
hv_status hv_call_get_logical_processor_run_time(struct hv_call *call)
{
    struct hv *hv = call->vp->hv;
    struct hv_partition *partition = hv->machine_partition;
    struct run_time_output out = {.global = hv_reference_time(partition)};
    unsigned lp;
    hv_status status = named_lp(call, &lp);

    if (status != HV_STATUS_SUCCESS)
        return status;
    if (hv->lps) {
        struct hv_lp_times times;

        hv_get_lp_times(hv, lp, &times);
        out.local = times.run;
        out.hypervisor = times.hypervisor;
    } else {
        /* Nothing else runs there, and the hypervisor's time is part of the VP's. */
        out.local = hv->ops->vp_run_time(hv->context, partition->vps[lp]->handle);
    }
    memcpy(call->output, &out, sizeof(out));
    return HV_STATUS_SUCCESS;
}

/* TLFS 6.4.2: a hint, and a mask, which names no LP above 63 and may name some that are not there. */
hv_status hv_call_park_logical_processors(struct hv_call *call)
{
    struct hv *hv = call->vp->hv;
    uint64_t mask;

    memcpy(&mask, call->input, sizeof(mask));
    if (hv->lps) /* else nothing is scheduled */
        hv_scheduler_park(hv, mask);
    return HV_STATUS_SUCCESS;
}

/* -- Power states (TLFS 6.3.2.1): `offset` 0 to 2 is C1 to C3 -- */

enum change_method { ISSUE_HLT, READ_IO_THEN_ISSUE_HLT, READ_IO, ISSUE_MWAIT };
#define CONFIG_RESERVED (UINT64_C(0xF) << 60)
#define CONFIG_METHOD(value) (((value) >> 52) & 0xF)
#define CONFIG_SPECIFIC(value) ((value) & ((UINT64_C(1) << 52) - 1))
#define PORT_BITS UINT64_C(0xFFFF)
#define MWAIT_BITS UINT64_C(0x1FFFFFFFF) /* hints, and whether masked interrupts wake it */
#define TRIGGER_COUNT_SHIFT 56
#define TRIGGER_COUNT_MAXIMUM 0xFF

static bool config_is_valid(uint64_t value)
{
    uint64_t specific = CONFIG_SPECIFIC(value);

    if (value & CONFIG_RESERVED)
        return false;
    switch (CONFIG_METHOD(value)) {
    case ISSUE_HLT:
        return specific == 0;
    case READ_IO_THEN_ISSUE_HLT:
    case READ_IO:
        return !(specific & ~PORT_BITS);
    case ISSUE_MWAIT:
        return !(specific & ~MWAIT_BITS);
    default:
        return false;
    }
}

enum hv_exit hv_msr_read_power_state_config(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    *value = vp->power_state_config[offset];
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_write_power_state_config(struct hv_vp *vp, uint32_t offset, uint64_t value)
{
    if (!config_is_valid(value))
        return HV_EXIT_GP;
    vp->power_state_config[offset] = value;
    return HV_EXIT_DONE;
}

/*
 * The read gives the LP away until an interrupt wakes the VP. It retires before it sleeps, so the count is that of the
 * times the LP had nothing to run since the VP slept last. A virtual LP saves no power by the recipe's port or hints.
 */
enum hv_exit hv_msr_read_power_state_trigger(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    struct hv *hv = vp->hv;
    uint64_t count = 0;

    if (hv->lps) {
        uint64_t entries = atomic_load(&hv->lps[vp->index].idle_entries);

        count = entries - vp->idle_entries;
        vp->idle_entries = entries;
        hv->lps[vp->index].next_power_state = offset;
    }
    if (count > TRIGGER_COUNT_MAXIMUM)
        count = TRIGGER_COUNT_MAXIMUM;
    *value = count << TRIGGER_COUNT_SHIFT;
    return HV_EXIT_IDLE;
}
