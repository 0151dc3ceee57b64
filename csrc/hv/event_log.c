/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 19: event logging for the root partition: groups of buffers, and the hypercalls that set them up. How
 * events get into buffers is in event_log_buffer.c.
 *
 * Order of checks (4.11.2 leaves it open): the type, the state of the group, the buffer's index, its state; then
 * memory.
 *
 * Where the text contradicts itself: a buffer that is complete can be flushed (19.1.5, 19.1.13, 16.5.10), though the
 * status table of 19.3.9 wants it in use; else the root could not get it back once nothing is logged any more. A buffer
 * has to be ready to be released (19.1.5 and the description and status table of 19.3.8 against its restrictions).
 * HvSetEventLogGroupSources is for the root (its status table against its restrictions).
 *
 * Which source has which events the text leaves open. Here the groups of appendix I, which are bits of a 64-bit mask
 * too, are sources of diagnostics. HV_EVENTLOG_ENABLE_DIAG_ADMIN stands for those that tell of partitions and VPs, and
 * HV_EVENTLOG_ENABLE_DIAG_PERF_GENERAL for all of them, with what appendix I has "perf only". System events are the
 * creations and deletions among them, those that succeed and those that fail. Other bits have no events.
 */
#include "event_log_internal.h"
#include "gpa_table.h"

#include <stdlib.h>
#include <string.h>

/* -- Input (TLFS 19.3) -- */

struct initialize_input {
    uint32_t type, buffer_limit, buffer_pages, threshold, time_basis;
    uint32_t system_time[2], padding; /* the time of day: nothing in a buffer is of it, so it has no use */
};
_Static_assert(sizeof(struct initialize_input) == 32, "TLFS 19.3.1");

/* Of most calls; the proximity domain is HvCreateEventLogBuffer's. */
struct buffer_input {
    uint32_t type, index;
    uint64_t proximity;
};

struct sources_input {
    uint32_t type, padding;
    uint64_t sources;
};

#define TIME_BASIS_TSC 1u /* HV_EVENTLOG_ENTRY_TIME_BASIS (TLFS 19.2.6); 0 is reference time */
#define PROXIMITY_VALID (UINT64_C(1) << 63)

/* -- The log -- */

#define SLOTS (HV_EVENT_BUFFERS_MOST * HV_EVENT_LOG_TYPES)
/* With an address width of 32 bits: what the machine's devices leave free below 4 GiB. */
#define NARROW_SLOTS 128u
#define NARROW_FIRST_PAGE UINT64_C(0xD0000)

/*
 * Buffers are shown behind everything else of the GPA space, each in a slot of its own of 2 MiB: pages in a pool are
 * not told apart, so there is no page of the root's memory that could be named instead.
 */
static void choose_slots(struct hv *hv, struct hv_event_log *log)
{
    uint64_t pages = hv->gpa_limit >> HV_PAGE_SHIFT;

    if (pages > UINT64_C(1) << 20) {
        log->slot_count = SLOTS;
        log->first_page = pages - (uint64_t)SLOTS * HV_EVENT_BUFFER_PAGES_MOST;
    } else {
        log->slot_count = NARROW_SLOTS;
        log->first_page = NARROW_FIRST_PAGE;
    }
}

static bool make_group(struct hv_event_group *group, unsigned places)
{
    group->buffers = calloc(HV_EVENT_BUFFERS_MOST, sizeof(*group->buffers));
    group->places = calloc(places, sizeof(*group->places));
    if (!group->buffers || !group->places)
        return false;
    group->place_count = places;
    group->message.event_log = true;
    group->message.timer = -1;
    return true;
}

bool hv_event_log_create(struct hv *hv)
{
    struct hv_event_log *log = calloc(1, sizeof(*log));

    if (!log)
        return false;
    hv_event_lock_init(&log->lock);
    choose_slots(hv, log);
    hv->event_log = log;
    hv->event_rings = hv_event_rings_create(hv);
    if (!hv->event_rings)
        return false;
    return !hv->config.root || (make_group(&log->groups[HV_EVENT_LOG_SYSTEM], 1) &&
                                make_group(&log->groups[HV_EVENT_LOG_DIAGNOSTICS], hv->lp_count));
}

static void free_buffer(struct hv *hv, struct hv_event_group *group, struct hv_event_buffer *buffer)
{
    hv->ops->free_pages(hv->context, buffer->pages, group->buffer_pages);
    hv_pool_release(hv->machine_partition, group->buffer_pages);
    *buffer = (struct hv_event_buffer){0};
    group->buffer_count--;
}

/* Its message may wait in a queue, where nobody needs it any more. */
static void drop_message(struct hv_event_group *group)
{
    struct hv_vp *vp = group->message.vp;

    if (!vp)
        return;
    hv_vp_lock_take(&vp->lock);
    hv_message_unlink(&group->message);
    hv_vp_lock_drop(&vp->lock);
}

static void end_group(struct hv *hv, struct hv_event_group *group)
{
    hv_event_lock_take(&hv->event_log->lock);
    for (unsigned i = 0; i < group->place_count; i++)
        memset(&group->places[i], 0, sizeof(group->places[i]));
    group->initialized = false;
    group->sources = 0;
    hv_event_log_sources_changed(hv, (unsigned)(group - hv->event_log->groups));
    hv_event_lock_drop(&hv->event_log->lock);
    drop_message(group);
    hv_pool_release(hv->machine_partition, HV_COST_EventLogGroup);
}

/* Whatever state its buffers are in. */
static void remove_group(struct hv *hv, struct hv_event_group *group)
{
    if (!group->initialized)
        return;
    for (uint32_t i = 0; i < group->buffer_limit; i++) {
        if (group->buffers[i].pages)
            free_buffer(hv, group, &group->buffers[i]);
    }
    end_group(hv, group);
}

void hv_event_log_reset(struct hv *hv)
{
    for (unsigned type = 0; type < HV_EVENT_LOG_TYPES; type++)
        remove_group(hv, &hv->event_log->groups[type]);
    atomic_store(&hv->event_log->ready, 0);
}

void hv_event_log_free(struct hv *hv)
{
    struct hv_event_log *log = hv->event_log;

    if (!log)
        return;
    for (unsigned type = 0; type < HV_EVENT_LOG_TYPES; type++) {
        struct hv_event_group *group = &log->groups[type];

        for (uint32_t i = 0; group->buffers && i < HV_EVENT_BUFFERS_MOST; i++) {
            if (group->buffers[i].pages)
                hv->ops->free_pages(hv->context, group->buffers[i].pages, group->buffer_pages);
        }
        free(group->buffers);
        free(group->places);
    }
    hv_event_rings_free(hv->event_rings);
    free(log);
}

/* -- Sources (TLFS 19.1.8, 19.2.2) -- */

#define GROUP_BIT(symbol) (UINT64_C(1) << HV_EVENT_GROUP_##symbol)
#define ADMINISTRATION (GROUP_BIT(ObjectManager) | GROUP_BIT(PartitionManager) | GROUP_BIT(VpManager))
#define CALL_EVENTS (GROUP_BIT(Hypercall) | GROUP_BIT(HypercallEnds) | GROUP_BIT(InterceptManager))
#define AUDITED (GROUP_BIT(ObjectManager) | GROUP_BIT(VpManager))

enum { ORIGIN_TLFS = 1, ORIGIN_OWN = 0 };
static const uint64_t specified_groups = 0
#define HV_EVENT_GROUP_ROW(bit, symbol, title, origin) | (uint64_t)ORIGIN_##origin << bit
#define HV_EVENT_ROW(...)
#include "tlfs/event_log_entries.def"
#undef HV_EVENT_ROW
#undef HV_EVENT_GROUP_ROW
    ;

static uint64_t diagnostic_groups(uint64_t sources)
{
    uint64_t groups = sources & specified_groups;

    if (sources & HV_EVENT_ENABLE_DIAG_ADMIN)
        groups |= ADMINISTRATION;
    if (sources & HV_EVENT_ENABLE_DIAG_PERF_GENERAL)
        groups |= specified_groups;
    return groups;
}

static void update_wanted(struct hv *hv)
{
    struct hv_event_log *log = hv->event_log;
    uint64_t wanted = hv_event_rings_groups(hv->event_rings) | atomic_load(&log->diagnostics);

    if (atomic_load(&log->system))
        wanted |= AUDITED;
    atomic_store(&hv->events_wanted, wanted);
    hv_set_attention(hv, HV_ATTENTION_CALL_EVENTS | HV_ATTENTION_MSR_EVENTS | HV_ATTENTION_MESSAGE_EVENTS,
                     (wanted & CALL_EVENTS ? HV_ATTENTION_CALL_EVENTS : 0) |
                         (wanted & GROUP_BIT(InterceptManager) ? HV_ATTENTION_MSR_EVENTS : 0) |
                         (wanted & GROUP_BIT(Messages) ? HV_ATTENTION_MESSAGE_EVENTS : 0));
    if (wanted & HV_EVENT_MASK(Profiler)) /* TLFS 23.3: it runs while its events are wanted */
        hv_profiler_start(hv);
    else
        hv_profiler_stop(hv);
}

void hv_event_log_update_wanted(struct hv *hv)
{
    hv_event_lock_take(&hv->event_log->lock);
    update_wanted(hv);
    hv_event_lock_drop(&hv->event_log->lock);
}

void hv_event_log_sources_changed(struct hv *hv, unsigned type)
{
    struct hv_event_log *log = hv->event_log;
    uint64_t sources = log->groups[type].sources;

    if (type == HV_EVENT_LOG_SYSTEM) {
        atomic_store(&log->system, sources & (HV_EVENT_ENABLE_SYSTEM_SUCCESS | HV_EVENT_ENABLE_SYSTEM_FAILURE));
    } else {
        atomic_store(&log->performance, (sources & HV_EVENT_ENABLE_DIAG_PERF_GENERAL) != 0);
        atomic_store(&log->diagnostics, diagnostic_groups(sources));
    }
    update_wanted(hv);
}

/* -- Finding what a call names -- */

/* A group that is initialized. */
static hv_status find_group(const struct hv_call *call, uint32_t type, struct hv_event_group **group)
{
    if (type >= HV_EVENT_LOG_TYPES)
        return HV_STATUS_INVALID_PARAMETER;
    *group = &call->vp->hv->event_log->groups[type];
    return (*group)->initialized ? HV_STATUS_SUCCESS : HV_STATUS_OPERATION_DENIED;
}

static hv_status find_buffer(const struct hv_call *call, struct hv_event_group **group, struct hv_event_buffer **buffer)
{
    const struct buffer_input *in = call->input;
    hv_status status = find_group(call, in->type, group);

    if (status != HV_STATUS_SUCCESS)
        return status;
    if (in->index >= (*group)->buffer_limit || !(*group)->buffers[in->index].pages)
        return HV_STATUS_INVALID_PARAMETER;
    *buffer = &(*group)->buffers[in->index];
    return HV_STATUS_SUCCESS;
}

/* -- Groups (TLFS 19.3.1, 19.3.2) -- */

static bool geometry_is_valid(const struct initialize_input *in)
{
    if (in->buffer_pages < 1 || in->buffer_pages > HV_EVENT_BUFFER_PAGES_MOST)
        return false;
    if (in->buffer_limit < 1 || in->buffer_limit > HV_EVENT_BUFFERS_MOST)
        return false;
    /* Inappropriate is a count of complete buffers that is always, or never, reached. */
    return in->threshold >= 1 && in->threshold <= in->buffer_limit && in->time_basis <= TIME_BASIS_TSC;
}

hv_status hv_call_initialize_event_log_buffer_group(struct hv_call *call)
{
    const struct initialize_input *in = call->input;
    struct hv *hv = call->vp->hv;
    struct hv_event_group *group;

    if (in->type >= HV_EVENT_LOG_TYPES)
        return HV_STATUS_INVALID_PARAMETER;
    group = &hv->event_log->groups[in->type];
    if (group->initialized)
        return HV_STATUS_OBJECT_IN_USE;
    if (!geometry_is_valid(in))
        return HV_STATUS_INVALID_PARAMETER;
    if (!hv_pool_charge(hv->machine_partition, HV_COST_EventLogGroup))
        return HV_STATUS_INSUFFICIENT_MEMORY;
    hv_event_lock_take(&hv->event_log->lock);
    group->buffer_limit = in->buffer_limit;
    group->buffer_pages = in->buffer_pages;
    group->threshold = in->threshold;
    group->tsc_time = in->time_basis;
    hv_event_group_begin(group);
    hv_event_lock_drop(&hv->event_log->lock);
    return HV_STATUS_SUCCESS;
}

hv_status hv_call_finalize_event_log_buffer_group(struct hv_call *call)
{
    const struct buffer_input *in = call->input;
    struct hv_event_group *group;
    hv_status status = find_group(call, in->type, &group);

    if (status != HV_STATUS_SUCCESS)
        return status;
    if (group->buffer_count || group->sources)
        return HV_STATUS_OPERATION_DENIED;
    end_group(call->vp->hv, group);
    return HV_STATUS_SUCCESS;
}

hv_status hv_call_set_event_log_group_sources(struct hv_call *call)
{
    const struct sources_input *in = call->input;
    struct hv *hv = call->vp->hv;
    struct hv_event_group *group;
    hv_status status = find_group(call, in->type, &group);

    if (status != HV_STATUS_SUCCESS)
        return status;
    hv_event_lock_take(&hv->event_log->lock);
    group->sources = in->sources;
    hv_event_log_sources_changed(hv, in->type);
    hv_event_lock_drop(&hv->event_log->lock);
    return HV_STATUS_SUCCESS;
}

/* -- Buffers (TLFS 19.3.3 to 19.3.6) -- */

hv_status hv_call_create_event_log_buffer(struct hv_call *call)
{
    const struct buffer_input *in = call->input;
    struct hv *hv = call->vp->hv;
    struct hv_event_group *group;
    hv_status status = find_group(call, in->type, &group);
    uint8_t *pages;

    if (status != HV_STATUS_SUCCESS)
        return status;
    if (!hv_proximity_is_valid(in->proximity))
        return HV_STATUS_INVALID_PARAMETER;
    if (in->type == HV_EVENT_LOG_DIAGNOSTICS && !(in->proximity & PROXIMITY_VALID))
        return HV_STATUS_INVALID_PARAMETER; /* mandatory for local buffers; there is one node, whose LPs share them */
    if (in->index >= group->buffer_limit || group->buffers[in->index].pages)
        return HV_STATUS_INVALID_PARAMETER;
    if (!hv_pool_charge(hv->machine_partition, group->buffer_pages))
        return HV_STATUS_INSUFFICIENT_MEMORY;
    pages = hv->ops->allocate_pages(hv->context, group->buffer_pages);
    if (!pages) {
        hv_pool_release(hv->machine_partition, group->buffer_pages);
        return HV_STATUS_INSUFFICIENT_MEMORY;
    }
    group->buffers[in->index] = (struct hv_event_buffer){.pages = pages};
    group->buffer_count++;
    return HV_STATUS_SUCCESS;
}

hv_status hv_call_delete_event_log_buffer(struct hv_call *call)
{
    struct hv_event_buffer *buffer;
    struct hv_event_group *group;
    hv_status status = find_buffer(call, &group, &buffer);

    if (status != HV_STATUS_SUCCESS)
        return status;
    if (buffer->state != HV_EVENT_BUFFER_STANDBY)
        return HV_STATUS_OPERATION_DENIED;
    free_buffer(call->vp->hv, group, buffer);
    return HV_STATUS_SUCCESS;
}

/* The root's VPs see at once what has changed. */
static void flush_root(struct hv_call *call)
{
    const struct hv_partition *root = call->vp->hv->machine_partition;
    struct hv_vp_set handles;

    hv_gpa_changed(root->gpa_space);
    hv_vp_handles(root, &root->all_vps, &handles);
    hv_flush_second_stage(call->vp->hv, call->vp, &handles);
}

hv_status hv_call_map_event_log_buffer(struct hv_call *call)
{
    const struct buffer_input *in = call->input;
    struct hv *hv = call->vp->hv;
    struct hv_event_buffer *buffer;
    struct hv_event_group *group;
    uint64_t *pages = call->output, first;
    hv_status status = find_buffer(call, &group, &buffer);

    if (status == HV_STATUS_SUCCESS && buffer->state != HV_EVENT_BUFFER_STANDBY)
        status = HV_STATUS_OPERATION_DENIED;
    if (status == HV_STATUS_SUCCESS && !hv_event_buffer_gpa_page(hv->event_log, in->type, in->index, &first))
        status = HV_STATUS_INSUFFICIENT_MEMORY;
    if (status == HV_STATUS_SUCCESS)
        status = hv_call_output(call, group->buffer_pages * sizeof(*pages));
    if (status != HV_STATUS_SUCCESS || call->exit != HV_EXIT_DONE)
        return status;
    for (uint32_t i = 0; i < group->buffer_pages; i++)
        pages[i] = first + i;
    hv_event_lock_take(&hv->event_log->lock);
    hv_event_buffer_begin(group, buffer, in->type);
    hv_event_lock_drop(&hv->event_log->lock);
    flush_root(call);
    return HV_STATUS_SUCCESS;
}

/* 2.0a has no status for a group that is not initialized: then there is no such buffer. */
hv_status hv_call_unmap_event_log_buffer(struct hv_call *call)
{
    struct hv *hv = call->vp->hv;
    struct hv_event_buffer *buffer;
    struct hv_event_group *group;
    hv_status status = find_buffer(call, &group, &buffer);

    if (status != HV_STATUS_SUCCESS)
        return HV_STATUS_INVALID_PARAMETER;
    hv_event_lock_take(&hv->event_log->lock);
    if (buffer->state == HV_EVENT_BUFFER_FREE || buffer->state == HV_EVENT_BUFFER_READY) {
        hv_event_buffer_detach(hv, group, buffer);
        hv_event_buffer_set_state(buffer, HV_EVENT_BUFFER_STANDBY);
        atomic_store(&buffer->mapped, false);
    } else {
        status = HV_STATUS_ACCESS_DENIED;
    }
    hv_event_lock_drop(&hv->event_log->lock);
    if (status == HV_STATUS_SUCCESS)
        flush_root(call);
    return status;
}

/* -- Buffers between the root and the hypervisor (TLFS 19.3.8, 19.3.9) -- */

hv_status hv_call_release_event_log_buffer(struct hv_call *call)
{
    struct hv *hv = call->vp->hv;
    struct hv_event_buffer *buffer;
    struct hv_event_group *group;
    hv_status status = find_buffer(call, &group, &buffer);

    if (status != HV_STATUS_SUCCESS)
        return status;
    hv_event_lock_take(&hv->event_log->lock);
    if (buffer->state == HV_EVENT_BUFFER_READY) {
        hv_event_buffer_detach(hv, group, buffer);
        hv_event_buffer_set_state(buffer, HV_EVENT_BUFFER_FREE);
        hv_event_list_append(&group->free, buffer);
    } else {
        status = HV_STATUS_OPERATION_DENIED;
    }
    hv_event_lock_drop(&hv->event_log->lock);
    return status;
}

hv_status hv_call_flush_event_log_buffer(struct hv_call *call)
{
    struct hv *hv = call->vp->hv;
    struct hv_event_buffer *buffer;
    struct hv_event_group *group;
    hv_status status = find_buffer(call, &group, &buffer);

    if (status != HV_STATUS_SUCCESS)
        return status;
    hv_event_lock_take(&hv->event_log->lock);
    if (buffer->state != HV_EVENT_BUFFER_IN_USE && buffer->state != HV_EVENT_BUFFER_COMPLETE)
        status = HV_STATUS_OPERATION_DENIED;
    else if (!hv_event_buffer_flush(hv, group, buffer))
        status = HV_STATUS_WAIT; /* an entry is being written */
    hv_event_lock_drop(&hv->event_log->lock);
    return status;
}
