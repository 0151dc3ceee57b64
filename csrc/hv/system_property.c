/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 23: system properties, and the profiler that one of them configures.
 *
 * The profiler looks at what every LP executes at regular intervals, while the event log wants it to (23.3). An
 * interval is one of cycles that are not halted: the TSC ticks at that frequency, and an LP that has nothing to run is
 * not looked at. An emulator has no misses of caches and no mispredicted branches that would say anything of the guest,
 * so these sources are refused as invalid values.
 */
#include "event_log.h"
#include "internal.h"

#include <string.h>

enum {
    PERF_COUNTER_CONFIGURATION = 0,
    SCHEDULER_TYPE = 15, /* later than 2.0a */
};

enum { PROFILE_CYCLES_NOT_HALTED = 1 };

#define SAMPLES_PER_SECOND 10000 /* at most, of an LP */

/* The hypervisor schedules VPs itself, and a VP by itself: the classic scheduler. */
#define SCHEDULER_TYPE_LP 1

struct perf_counter_configuration {
    uint32_t source, reserved;
    uint64_t period;
};
_Static_assert(sizeof(struct perf_counter_configuration) == 16, "TLFS 23.3");

static bool is_current(const struct hv *hv)
{
    return hv->config.generation == HV_GEN_CURRENT;
}

/* -- The profiler -- */

static bool is_possible(const struct hv *hv, uint32_t source, uint64_t period)
{
    return source == PROFILE_CYCLES_NOT_HALTED && period >= hv->config.tsc_frequency / SAMPLES_PER_SECOND;
}

bool hv_profiler_is_possible(const struct hv *hv)
{
    return !hv->profiler.source || is_possible(hv, hv->profiler.source, hv->profiler.period);
}

static hv_status configure(struct hv *hv, const struct perf_counter_configuration *configuration)
{
    if (!is_possible(hv, configuration->source, configuration->period) || configuration->reserved)
        return HV_STATUS_INVALID_PARAMETER;
    if (atomic_load(&hv->profiler.running))
        return HV_STATUS_OPERATION_DENIED;
    hv->profiler.source = configuration->source;
    hv->profiler.period = configuration->period;
    return HV_STATUS_SUCCESS;
}

static void set_timer(struct hv *hv, unsigned lp, uint64_t tsc)
{
    hv->ops->set_timer(hv->context, hv->lps[lp].root->handle, HV_VP_TIMER_PROFILER, tsc);
}

/* Not before now, and not in the past of what is added to: nobody wants samples that could not be taken. */
static uint64_t next_sample(const struct hv *hv)
{
    uint64_t now = hv_machine_tsc(hv);

    return hv->profiler.period < HV_NANO100_NEVER - now ? now + hv->profiler.period : HV_NANO100_NEVER;
}

bool hv_profiler_start(struct hv *hv)
{
    if (!hv->profiler.source || !hv->lps)
        return false;
    if (!atomic_exchange(&hv->profiler.running, true)) {
        for (unsigned lp = 0; lp < hv->lp_count; lp++)
            set_timer(hv, lp, next_sample(hv));
    }
    return true;
}

void hv_profiler_stop(struct hv *hv)
{
    if (!atomic_exchange(&hv->profiler.running, false))
        return;
    for (unsigned lp = 0; lp < hv->lp_count; lp++)
        set_timer(hv, lp, HV_NANO100_NEVER);
}

void hv_profiler_reset(struct hv *hv)
{
    hv_profiler_stop(hv);
    hv->profiler.source = 0;
    hv->profiler.period = 0;
}

/* What the LP executes; its lock is held. This is not the LP's own thread, so the event is in none of its buffers. */
static void sample(struct hv *hv, struct hv_lp *lp)
{
    const struct hv_vp *vp = lp->running;
    const struct hv_partition *partition = vp->partition;

    if (!partition)
        return;
    atomic_fetch_add_explicit(&lp->profiler_samples, 1, memory_order_relaxed);
    HV_LOG_AT(hv, NULL, HV_EVENT_NO_LP, SCH_PROFILER_SAMPLE, partition->id, vp->handle, atomic_load(&vp->tsc_offset));
}

void hv_profiler_expired(struct hv *hv, unsigned lp)
{
    struct hv_lp *self = &hv->lps[lp];

    if (!atomic_load(&hv->profiler.running))
        return;
    hv_scheduler_lock_take(&self->lock);
    if (self->running)
        sample(hv, self);
    hv_scheduler_lock_drop(&self->lock);
    set_timer(hv, lp, next_sample(hv));
}

uint64_t hv_profiler_get_samples(const struct hv *hv, unsigned lp)
{
    return lp < hv->lp_count ? atomic_load(&hv->lps[lp].profiler_samples) : 0;
}

/* -- Hypercalls (23.4) -- */

struct set_input {
    uint32_t code, padding;
    union {
        uint64_t generic[2];
        struct perf_counter_configuration perf_counter;
    } value;
};

struct get_input {
    uint32_t code, padding;
    uint64_t argument; /* later than 2.0a; no property here has one */
};

/* TLFS 23.4.1 */
hv_status hv_call_set_system_property(struct hv_call *call)
{
    const struct set_input *in = call->input;
    struct hv *hv = call->vp->hv;

    if (in->code == PERF_COUNTER_CONFIGURATION &&
        !hv_has_privilege(hv->machine_partition, HV_PRIVILEGE_ConfigureProfiler))
        return HV_STATUS_ACCESS_DENIED; /* appendix B */
    if (in->code == PERF_COUNTER_CONFIGURATION)
        return configure(hv, &in->value.perf_counter);
    if (in->code == SCHEDULER_TYPE && is_current(hv))
        return HV_STATUS_INVALID_PARAMETER; /* it can only be read */
    return HV_STATUS_UNKNOWN_PROPERTY;
}

/* TLFS 23.4.2 */
hv_status hv_call_get_system_property(struct hv_call *call)
{
    const struct get_input *in = call->input;
    struct hv *hv = call->vp->hv;
    struct perf_counter_configuration configuration = {.source = hv->profiler.source, .period = hv->profiler.period};
    uint64_t scheduler_type = SCHEDULER_TYPE_LP;

    if (in->code == PERF_COUNTER_CONFIGURATION)
        memcpy(call->output, &configuration, sizeof(configuration));
    else if (in->code == SCHEDULER_TYPE && is_current(hv))
        memcpy(call->output, &scheduler_type, sizeof(scheduler_type));
    else
        return HV_STATUS_UNKNOWN_PROPERTY;
    return HV_STATUS_SUCCESS;
}
