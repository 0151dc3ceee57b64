/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The event log in the stream of state: groups, buffers and what is in them. No VP runs. The operator's log is not
 * state.
 */
#include "event_log_internal.h"
#include "stream.h"

#define NO_PLACE UINT32_C(0xFFFFFFFF)

static void geometry(struct hv_stream *s, struct hv_event_group *group)
{
    hv_stream_u32(s, &group->buffer_limit);
    hv_stream_u32(s, &group->buffer_pages);
    hv_stream_u32(s, &group->threshold);
    hv_stream_u32(s, &group->tsc_time);
    hv_stream_u64(s, &group->sources);
    if (!hv_stream_reading(s))
        return;
    if (group->buffer_limit < 1 || group->buffer_limit > HV_EVENT_BUFFERS_MOST || group->buffer_pages < 1 ||
        group->buffer_pages > HV_EVENT_BUFFER_PAGES_MOST || group->threshold < 1 ||
        group->threshold > group->buffer_limit)
        hv_stream_fail(s, "the saved hypervisor state has an impossible event log");
}

/* As in the root's view of the buffer; a buffer that is free has nothing but its header. */
static void content(struct hv_stream *s, const struct hv_event_group *group, struct hv_event_buffer *buffer)
{
    struct hv_event_buffer_header *header = hv_event_header(buffer);
    uint64_t used = sizeof(*header);

    hv_stream_bytes(s, header, sizeof(*header));
    if (buffer->state == HV_EVENT_BUFFER_FREE || s->error)
        return;
    used = atomic_load(&header->next_buffer_offset);
    if (used < sizeof(*header) || used > hv_event_buffer_size(group) || used % 8)
        hv_stream_fail(s, "the saved hypervisor state has an impossible event log buffer");
    else
        hv_stream_bytes(s, buffer->pages + sizeof(*header), used - sizeof(*header));
}

/* A buffer is in the list that its state and place say. */
static void enlist(struct hv_stream *s, struct hv *hv, struct hv_event_group *group, struct hv_event_buffer *buffer,
                   uint32_t place_number)
{
    struct hv_event_place *place = place_number < group->place_count ? &group->places[place_number] : NULL;

    if (!place && (buffer->state == HV_EVENT_BUFFER_IN_USE || buffer->state == HV_EVENT_BUFFER_COMPLETE)) {
        hv_stream_fail(s, "the saved hypervisor state has an impossible event log buffer");
        return;
    }
    if (buffer->state == HV_EVENT_BUFFER_FREE) {
        hv_event_list_append(&group->free, buffer);
        return;
    }
    buffer->place = place;
    if (buffer->state == HV_EVENT_BUFFER_COMPLETE) {
        hv_event_list_append(&place->complete, buffer);
    } else if (buffer->state == HV_EVENT_BUFFER_READY && place) {
        hv_event_list_append(&place->ready, buffer);
        atomic_fetch_add(&hv->event_log->ready, 1);
    } else if (buffer->state == HV_EVENT_BUFFER_IN_USE && !atomic_load(&place->cursor)) {
        atomic_store(&place->cursor, ((uint64_t)hv_event_buffer_index(group, buffer) + 1) << 32 |
                                         atomic_load(&hv_event_header(buffer)->next_buffer_offset));
    } else if (buffer->state == HV_EVENT_BUFFER_IN_USE) {
        hv_stream_fail(s, "the saved hypervisor state has two event log buffers in use");
    }
}

static bool create(struct hv *hv, struct hv_event_group *group, struct hv_event_buffer *buffer)
{
    if (!hv_pool_charge(hv->machine_partition, group->buffer_pages))
        return false;
    buffer->pages = hv->ops->allocate_pages(hv->context, group->buffer_pages);
    if (!buffer->pages) {
        hv_pool_release(hv->machine_partition, group->buffer_pages);
        return false;
    }
    group->buffer_count++;
    return true;
}

static void mapped_buffer(struct hv_stream *s, struct hv *hv, struct hv_event_group *group,
                          struct hv_event_buffer *buffer)
{
    uint32_t place = buffer->place ? (uint32_t)(buffer->place - group->places) : NO_PLACE;

    hv_stream_u32(s, &place);
    content(s, group, buffer);
    if (!hv_stream_reading(s) || s->error)
        return;
    hv_event_buffer_set_state(buffer, buffer->state);
    atomic_store(&buffer->mapped, true);
    enlist(s, hv, group, buffer, place);
}

/* By its index and state; the order of lists is told by walking through them. */
static void one_buffer(struct hv_stream *s, struct hv *hv, struct hv_event_group *group, struct hv_event_buffer *buffer)
{
    uint32_t index = buffer ? hv_event_buffer_index(group, buffer) : 0, state = buffer ? buffer->state : 0;

    hv_stream_u32(s, &index);
    hv_stream_u32(s, &state);
    if (s->error)
        return;
    if (hv_stream_reading(s)) {
        buffer = index < group->buffer_limit ? &group->buffers[index] : NULL;
        if (!buffer || buffer->pages || state > HV_EVENT_BUFFER_READY) {
            hv_stream_fail(s, "the saved hypervisor state has an impossible event log buffer");
            return;
        }
        if (!create(hv, group, buffer)) {
            hv_stream_fail(s, "out of memory");
            return;
        }
        buffer->state = state;
    }
    if (state != HV_EVENT_BUFFER_STANDBY)
        mapped_buffer(s, hv, group, buffer);
}

static void list(struct hv_stream *s, struct hv *hv, struct hv_event_group *group, const struct hv_event_list *list)
{
    for (struct hv_event_buffer *buffer = list->head; buffer; buffer = buffer->next)
        one_buffer(s, hv, group, buffer);
}

static bool is_listed(const struct hv_event_buffer *buffer)
{
    return buffer->state == HV_EVENT_BUFFER_FREE || buffer->state == HV_EVENT_BUFFER_COMPLETE ||
           (buffer->state == HV_EVENT_BUFFER_READY && buffer->place);
}

/* Those in lists in their order, then the rest. */
static void write_buffers(struct hv_stream *s, struct hv *hv, struct hv_event_group *group)
{
    list(s, hv, group, &group->free);
    for (unsigned i = 0; i < group->place_count; i++) {
        list(s, hv, group, &group->places[i].complete);
        list(s, hv, group, &group->places[i].ready);
    }
    for (uint32_t i = 0; i < group->buffer_limit; i++) {
        if (group->buffers[i].pages && !is_listed(&group->buffers[i]))
            one_buffer(s, hv, group, &group->buffers[i]);
    }
}

static void buffers(struct hv_stream *s, struct hv *hv, struct hv_event_group *group)
{
    uint32_t count = hv_stream_count(s, group->buffer_count, group->buffer_limit);

    if (!hv_stream_reading(s)) {
        write_buffers(s, hv, group);
        return;
    }
    for (uint32_t i = 0; i < count && !s->error; i++)
        one_buffer(s, hv, group, NULL);
}

static void one_group(struct hv_stream *s, struct hv *hv, unsigned type)
{
    struct hv_event_group *group = &hv->event_log->groups[type];
    bool initialized = group->initialized;

    hv_stream_flag(s, &initialized);
    if (!initialized || s->error)
        return;
    geometry(s, group);
    if (s->error)
        return;
    if (hv_stream_reading(s)) {
        hv_pool_charge(hv->machine_partition, HV_COST_EventLogGroup); /* it is unlimited just now */
        hv_event_group_begin(group);
    }
    for (unsigned i = 0; i < group->place_count; i++) {
        hv_stream_u32(s, &group->places[i].sequence);
        hv_stream_u32(s, &group->places[i].lost);
    }
    buffers(s, hv, group);
    if (hv_stream_reading(s) && !s->error)
        hv_event_log_sources_changed(hv, type);
}

void hv_state_event_log(struct hv_stream *s, struct hv *hv)
{
    for (unsigned type = 0; hv->config.root && type < HV_EVENT_LOG_TYPES && !s->error; type++)
        one_group(s, hv, type);
    if (hv_stream_reading(s) && !s->error && atomic_load(&hv->event_log->ready))
        hv_event_log_arm(hv); /* what was about to be told of */
}
