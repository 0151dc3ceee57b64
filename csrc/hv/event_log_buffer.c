/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS 19.1.3 to 19.1.12: how events get into buffers, and how the root learns of buffers that are full.
 *
 * An LP writes to its own buffer without a lock: it moves the cursor on, writes the entry, and then the header's
 * offset, which tells readers how far entries are complete. Only when there is no room it takes the log's lock, for
 * another buffer. Who flushes a buffer takes it away when cursor and offset agree, so never under a writer's hands.
 *
 * Nothing here may post a message, as an event may happen under any lock. A timer that is due at once does it
 * (hv_event_log_notify()). There is one message buffer for a group (14.2.1): while it waits for its slot, more buffers
 * get ready, and the next message tells of all of one LP together.
 */
#include "event_log_internal.h"

#include <string.h>

#define EVENT_LOG_SINT 0

struct ready_payload {
    uint32_t type;
    uint32_t index; /* of the first in a list that is linked by NextBufferIndex */
};
_Static_assert(sizeof(struct ready_payload) == 8, "TLFS 16.5.10");

#define CURSOR(index, offset) (((uint64_t)(index) + 1) << 32 | (offset))
#define CURSOR_OFFSET(cursor) ((uint32_t)(cursor))

/* -- Lists -- */

void hv_event_list_init(struct hv_event_list *list)
{
    list->head = NULL;
    list->tail = &list->head;
    list->count = 0;
}

void hv_event_list_append(struct hv_event_list *list, struct hv_event_buffer *buffer)
{
    buffer->next = NULL;
    *list->tail = buffer;
    list->tail = &buffer->next;
    list->count++;
}

struct hv_event_buffer *hv_event_list_take(struct hv_event_list *list)
{
    struct hv_event_buffer *buffer = list->head;

    if (buffer)
        hv_event_list_remove(list, buffer);
    return buffer;
}

void hv_event_list_remove(struct hv_event_list *list, struct hv_event_buffer *buffer)
{
    struct hv_event_buffer **link = &list->head;

    while (*link && *link != buffer)
        link = &(*link)->next;
    if (!*link)
        return;
    *link = buffer->next;
    if (!*link)
        list->tail = link;
    list->count--;
}

/* -- Where they are in the root's GPA space -- */

bool hv_event_buffer_gpa_page(const struct hv_event_log *log, unsigned type, uint32_t index, uint64_t *page)
{
    unsigned slot = index * HV_EVENT_LOG_TYPES + type;

    *page = log->first_page + (uint64_t)slot * HV_EVENT_BUFFER_PAGES_MOST;
    return slot < log->slot_count;
}

uint64_t hv_event_log_first_page(const struct hv *hv)
{
    return hv->event_log->first_page;
}

static const struct hv_event_buffer *buffer_at(const struct hv_event_log *log, uint64_t slot,
                                               const struct hv_event_group **group)
{
    if (slot >= log->slot_count)
        return NULL;
    *group = &log->groups[slot % HV_EVENT_LOG_TYPES];
    return &(*group)->buffers[slot / HV_EVENT_LOG_TYPES];
}

uint8_t *hv_event_log_page(const struct hv *hv, uint64_t gpa_page)
{
    uint64_t page = gpa_page - hv->event_log->first_page;
    const struct hv_event_group *group;
    const struct hv_event_buffer *buffer = buffer_at(hv->event_log, page / HV_EVENT_BUFFER_PAGES_MOST, &group);

    page %= HV_EVENT_BUFFER_PAGES_MOST;
    if (!buffer || !atomic_load_explicit(&buffer->mapped, memory_order_acquire) || page >= group->buffer_pages)
        return NULL;
    return buffer->pages + page * HV_PAGE_SIZE;
}

#define SLOT_SHIFT 9
_Static_assert(1u << SLOT_SHIFT == HV_EVENT_BUFFER_PAGES_MOST, "a slot's pages");

unsigned hv_event_log_shift(const struct hv *hv, uint64_t gpa_page)
{
    uint64_t slot = (gpa_page - hv->event_log->first_page) >> SLOT_SHIFT;
    const struct hv_event_group *group;
    const struct hv_event_buffer *buffer = buffer_at(hv->event_log, slot, &group);

    return buffer && atomic_load_explicit(&buffer->mapped, memory_order_acquire) ? 0 : SLOT_SHIFT;
}

/* -- States (TLFS 19.1.5); the log's lock is held -- */

void hv_event_buffer_set_state(struct hv_event_buffer *buffer, enum hv_event_buffer_state state)
{
    buffer->state = state;
    atomic_store_explicit(&hv_event_header(buffer)->buffer_state, state, memory_order_release);
}

void hv_event_group_begin(struct hv_event_group *group)
{
    for (unsigned i = 0; i < group->place_count; i++) {
        group->places[i] = (struct hv_event_place){0};
        hv_event_list_init(&group->places[i].complete);
        hv_event_list_init(&group->places[i].ready);
    }
    hv_event_list_init(&group->free);
    group->next_place = 0;
    group->initialized = true;
}

/* It is mapped: the hypervisor may use it. */
void hv_event_buffer_begin(struct hv_event_group *group, struct hv_event_buffer *buffer, uint32_t type)
{
    struct hv_event_buffer_header *header = hv_event_header(buffer);

    memset(buffer->pages, 0, hv_event_buffer_size(group));
    header->buffer_size = hv_event_buffer_size(group);
    header->buffer_index = hv_event_buffer_index(group, buffer);
    header->type = type;
    header->next_buffer_index = HV_EVENT_BUFFER_INDEX_NONE;
    hv_event_buffer_set_state(buffer, HV_EVENT_BUFFER_FREE);
    hv_event_list_append(&group->free, buffer);
    atomic_store_explicit(&buffer->mapped, true, memory_order_release);
}

static void use(struct hv *hv, struct hv_event_group *group, struct hv_event_place *place,
                struct hv_event_buffer *buffer, uint64_t tsc)
{
    struct hv_event_buffer_header *header = hv_event_header(buffer);

    buffer->place = place;
    header->events_lost = place->lost;
    place->lost = 0;
    header->reference_counter = place->sequence;
    header->time_stamp = hv_time_from_tsc(hv->machine_partition, tsc);
    header->logical_processor = (uint32_t)(place - group->places);
    header->next_buffer_index = HV_EVENT_BUFFER_INDEX_NONE;
    atomic_store_explicit(&header->next_buffer_offset, sizeof(*header), memory_order_release);
    hv_event_buffer_set_state(buffer, HV_EVENT_BUFFER_IN_USE);
    atomic_store(&place->cursor, CURSOR(hv_event_buffer_index(group, buffer), sizeof(*header)));
}

static void make_ready(struct hv *hv, struct hv_event_place *place)
{
    struct hv_event_buffer *buffer;

    while ((buffer = hv_event_list_take(&place->complete)) != NULL) {
        hv_event_buffer_set_state(buffer, HV_EVENT_BUFFER_READY);
        hv_event_list_append(&place->ready, buffer);
        atomic_fetch_add(&hv->event_log->ready, 1);
    }
    hv_event_log_arm(hv);
}

static void complete(struct hv_event_buffer *buffer)
{
    hv_event_buffer_set_state(buffer, HV_EVENT_BUFFER_COMPLETE);
    hv_event_list_append(&buffer->place->complete, buffer);
}

bool hv_event_buffer_flush(struct hv *hv, struct hv_event_group *group, struct hv_event_buffer *buffer)
{
    struct hv_event_place *place = buffer->place;

    if (buffer->state == HV_EVENT_BUFFER_IN_USE) {
        uint64_t offset = atomic_load_explicit(&hv_event_header(buffer)->next_buffer_offset, memory_order_acquire);
        uint64_t cursor = CURSOR(hv_event_buffer_index(group, buffer), offset);

        if (!atomic_compare_exchange_strong(&place->cursor, &cursor, 0))
            return false;
        complete(buffer);
    }
    make_ready(hv, place);
    return true;
}

void hv_event_buffer_detach(struct hv *hv, struct hv_event_group *group, struct hv_event_buffer *buffer)
{
    if (buffer->state == HV_EVENT_BUFFER_FREE) {
        hv_event_list_remove(&group->free, buffer);
    } else if (buffer->place) { /* no message has told of it, and none will */
        hv_event_list_remove(&buffer->place->ready, buffer);
        atomic_fetch_sub(&hv->event_log->ready, 1);
    }
    buffer->place = NULL;
}

/* -- Writing -- */

static uint32_t context_of(const struct hv_vp *vp)
{
    const struct hv_partition *partition = vp ? atomic_load_explicit(&vp->partition, memory_order_relaxed) : NULL;

    return partition ? (uint32_t)partition->id << 16 | vp->index : UINT32_MAX;
}

static void write_entry(const struct hv_event_group *group, struct hv_event_buffer *buffer, uint32_t offset,
                        const struct hv_event_record *record, uint64_t tsc)
{
    struct hv_event_buffer_header *header = hv_event_header(buffer);
    size_t values = record->count * sizeof(*record->values);
    struct hv_event_entry_header entry = {
        .context = context_of(record->vp),
        .size = (uint16_t)(sizeof(entry) + values),
        .type = record->type,
        .time_stamp = group->tsc_time ? tsc : hv_time_from_tsc(record->hv->machine_partition, tsc),
    };

    memcpy(buffer->pages + offset, &entry, sizeof(entry));
    memcpy(buffer->pages + offset + sizeof(entry), record->values, values);
    atomic_store_explicit(&header->next_buffer_offset, offset + entry.size, memory_order_release);
}

/* Move the cursor on for an entry, if there is a buffer in use with room for it. */
static struct hv_event_buffer *reserve(const struct hv_event_group *group, struct hv_event_place *place, uint32_t size,
                                       uint32_t *offset)
{
    uint64_t cursor = atomic_load(&place->cursor);

    /* It can only be taken away meanwhile. */
    if (!cursor || CURSOR_OFFSET(cursor) + size > hv_event_buffer_size(group) ||
        !atomic_compare_exchange_strong(&place->cursor, &cursor, cursor + size))
        return NULL;
    *offset = CURSOR_OFFSET(cursor);
    return &group->buffers[(cursor >> 32) - 1];
}

/* There is no room: go on with another buffer, if one is free. The lock is held. */
static void change_buffer(struct hv *hv, struct hv_event_group *group, struct hv_event_place *place, uint64_t tsc)
{
    uint64_t cursor = atomic_exchange(&place->cursor, 0);
    struct hv_event_buffer *next;

    if (cursor) {
        complete(&group->buffers[(cursor >> 32) - 1]);
        if (place->complete.count >= group->threshold)
            make_ready(hv, place);
    }
    next = hv_event_list_take(&group->free);
    if (next)
        use(hv, group, place, next, tsc);
}

/* The place is the calling LP's own, or the lock of a global type is held. */
static void write(struct hv_event_group *group, struct hv_event_place *place, const struct hv_event_record *record,
                  uint64_t tsc, bool locked)
{
    uint32_t size = (uint32_t)(sizeof(struct hv_event_entry_header) + record->count * sizeof(*record->values)), offset;
    struct hv_event_buffer *buffer = reserve(group, place, size, &offset);
    struct hv *hv = record->hv;

    if (buffer) {
        place->sequence++;
    } else {
        if (!locked)
            hv_event_lock_take(&hv->event_log->lock);
        if (group->initialized && group->sources) {
            change_buffer(hv, group, place, tsc);
            buffer = reserve(group, place, size, &offset);
            place->lost += !buffer;
            place->sequence++;
        }
        if (!locked)
            hv_event_lock_drop(&hv->event_log->lock);
    }
    if (buffer)
        write_entry(group, buffer, offset, record, tsc);
}

static void write_local(struct hv_event_log *log, const struct hv_event_record *record, uint64_t tsc)
{
    struct hv_event_group *group = &log->groups[HV_EVENT_LOG_DIAGNOSTICS];
    struct hv_event_record shorter = *record;

    if (record->lp >= group->place_count)
        return; /* what the operator does on a thread of his own is for his own log */
    if (record->type == HV_EVENT_SCH_CONTEXT_SWITCH && !atomic_load_explicit(&log->performance, memory_order_relaxed))
        shorter.count--;
    write(group, &group->places[record->lp], &shorter, tsc, false);
}

/* System events: the outcome is the last value. */
static bool is_audited(const struct hv_event_record *record, uint64_t outcomes)
{
    switch (record->type) {
    case HV_EVENT_OB_CREATE_PARTITION:
    case HV_EVENT_OB_DELETE_PARTITION:
    case HV_EVENT_VP_CREATE_VP:
    case HV_EVENT_VP_DELETE_VP:
        return outcomes & (record->values[record->count - 1] == HV_STATUS_SUCCESS ? HV_EVENT_ENABLE_SYSTEM_SUCCESS
                                                                                  : HV_EVENT_ENABLE_SYSTEM_FAILURE);
    default:
        return false;
    }
}

static void write_global(struct hv_event_log *log, const struct hv_event_record *record, uint64_t tsc)
{
    struct hv_event_group *group = &log->groups[HV_EVENT_LOG_SYSTEM];

    hv_event_lock_take(&log->lock);
    write(group, &group->places[0], record, tsc, true);
    hv_event_lock_drop(&log->lock);
}

void hv_event_record(const struct hv_event_record *record)
{
    struct hv *hv = record->hv;
    struct hv_event_log *log = hv->event_log;
    uint64_t tsc = hv_sample_tsc(hv);
    uint64_t system = atomic_load_explicit(&log->system, memory_order_relaxed);

    if ((atomic_load_explicit(&log->diagnostics, memory_order_relaxed) >> record->group) & 1)
        write_local(log, record, tsc);
    if (system && is_audited(record, system))
        write_global(log, record, tsc);
    hv_event_rings_record(hv->event_rings, record, tsc);
}

uint64_t hv_event_rip(const struct hv_vp *vp)
{
    union hv_register_value value;

    vp->hv->ops->get_register(vp->hv->context, vp->handle, HV_REGISTER_Rip, &value);
    return value.reg64;
}

/* -- Messages (TLFS 16.5.10, 19.1.10) -- */

void hv_event_log_arm(const struct hv *hv)
{
    hv->ops->set_timer(hv->context, hv->machine_partition->vps[0]->handle, HV_VP_TIMER_EVENT_LOG, 0);
}

void hv_event_log_message_freed(struct hv *hv)
{
    /* After the buffer was freed, as hv_event_log_notify() looks at it after more have become ready. */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load(&hv->event_log->ready))
        hv_event_log_arm(hv);
}

/* Of a local type the VP that is bound to the LP (TLFS 22.4), else one that takes messages. */
static struct hv_vp *receiver(const struct hv *hv, uint32_t type, unsigned place)
{
    const struct hv_partition *root = hv->machine_partition;

    if (type == HV_EVENT_LOG_DIAGNOSTICS)
        return root->vps[place];
    for (hv_vp_index i = 0; i < root->vp_limit; i++) {
        if (hv_synic_accepts_messages(root->vps[i]))
            return root->vps[i];
    }
    return root->vps[0];
}

/* Link what is ready at a place into a list, and take its first one. The lock is held. */
static bool take_ready(struct hv *hv, struct hv_event_group *group, struct hv_event_place *place, uint32_t *first)
{
    struct hv_event_buffer *buffer = place->ready.head;

    if (!buffer || atomic_load(&group->message.in_use))
        return false;
    *first = hv_event_buffer_index(group, buffer);
    atomic_fetch_sub(&hv->event_log->ready, place->ready.count);
    for (; buffer; buffer = buffer->next) {
        buffer->place = NULL;
        hv_event_header(buffer)->next_buffer_index =
            buffer->next ? hv_event_buffer_index(group, buffer->next) : HV_EVENT_BUFFER_INDEX_NONE;
    }
    hv_event_list_init(&place->ready);
    atomic_store(&group->message.in_use, true);
    return true;
}

static void post(struct hv_event_group *group, uint32_t type, uint32_t first, struct hv_vp *vp)
{
    struct ready_payload payload = {.type = type, .index = first};
    struct hv_message_buffer *buffer = &group->message;
    struct hv_interrupts interrupts = {{0}};

    buffer->sint = EVENT_LOG_SINT;
    buffer->message.header = (struct hv_message_header){
        .message_type = (uint32_t)HV_MESSAGE_TYPE_EventLogBuffersComplete,
        .payload_size = sizeof(payload),
    };
    memcpy(buffer->message.payload, &payload, sizeof(payload));
    hv_vp_lock_take(&vp->lock);
    hv_message_enqueue(vp, buffer, &interrupts);
    hv_vp_lock_drop(&vp->lock);
    hv_interrupts_request(vp, &interrupts);
}

/* The next place of a group, from where it was left off the last time, so that no LP keeps others from being told of.
 */
static bool find_ready(struct hv *hv, struct hv_event_group *group, unsigned *place, uint32_t *first)
{
    bool found = false;

    hv_event_lock_take(&hv->event_log->lock);
    for (unsigned i = 0; group->initialized && i < group->place_count && !found; i++) {
        *place = (group->next_place + i) % group->place_count;
        found = take_ready(hv, group, &group->places[*place], first);
    }
    if (found)
        group->next_place = *place + 1;
    hv_event_lock_drop(&hv->event_log->lock);
    return found;
}

void hv_event_log_notify(struct hv *hv)
{
    for (uint32_t type = 0; type < HV_EVENT_LOG_TYPES; type++) {
        struct hv_event_group *group = &hv->event_log->groups[type];
        unsigned place;
        uint32_t first;

        while (find_ready(hv, group, &place, &first))
            post(group, type, first, receiver(hv, type, place));
    }
}

uint32_t hv_event_log_message_type(const struct hv *hv, const struct hv_message_buffer *buffer)
{
    return buffer == &hv->event_log->groups[HV_EVENT_LOG_SYSTEM].message ? HV_EVENT_LOG_SYSTEM
                                                                         : HV_EVENT_LOG_DIAGNOSTICS;
}

struct hv_message_buffer *hv_event_log_message_buffer(struct hv *hv, uint32_t type)
{
    return type < HV_EVENT_LOG_TYPES && hv->event_log->groups[type].initialized ? &hv->event_log->groups[type].message
                                                                                : NULL;
}
