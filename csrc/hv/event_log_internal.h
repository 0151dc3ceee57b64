/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * State of the event log. Used by event_log*.c and event_ring.c only.
 */
#ifndef HV_EVENT_LOG_INTERNAL_H
#define HV_EVENT_LOG_INTERNAL_H

#include "event_log.h"

/* HV_EVENTLOG_TYPE (TLFS 19.2.1) */
enum hv_event_log_type {
    HV_EVENT_LOG_SYSTEM, /* global buffers */
    HV_EVENT_LOG_DIAGNOSTICS, /* local buffers: each LP fills its own */
    HV_EVENT_LOG_TYPES
};

/* HV_EVENTLOG_BUFFER_STATE (TLFS 19.2.3) */
enum hv_event_buffer_state {
    HV_EVENT_BUFFER_STANDBY,
    HV_EVENT_BUFFER_FREE,
    HV_EVENT_BUFFER_IN_USE,
    HV_EVENT_BUFFER_COMPLETE,
    HV_EVENT_BUFFER_READY,
};

#define HV_EVENT_BUFFERS_MOST 512u /* of a group (TLFS 19.1.2) */
#define HV_EVENT_BUFFER_PAGES_MOST 512u /* (TLFS 19.1.1) */
#define HV_EVENT_BUFFER_INDEX_NONE UINT32_C(0xFFFFFFFF)

/* TLFS 19.2.5 */
struct hv_event_buffer_header {
    uint32_t buffer_size;
    uint32_t buffer_index;
    uint32_t events_lost;
    uint32_t reference_counter; /* the text calls it EventCount: number of the first event */
    hv_nano100_time time_stamp;
    uint64_t reserved1, reserved2;
    uint32_t logical_processor;
    _Atomic uint32_t buffer_state;
    _Atomic uint64_t next_buffer_offset;
    uint32_t type;
    uint32_t next_buffer_index;
    uint64_t reserved3, reserved4[2];
};
_Static_assert(sizeof(struct hv_event_buffer_header) == 88, "TLFS 19.2.5");

/* TLFS 19.2.6; events of this hypervisor have a context of partition and VP */
struct hv_event_entry_header {
    uint32_t context; /* 15:0 VP index, 31:16 the low bits of its partition's ID; all ones: nobody's */
    uint16_t size;
    uint16_t type;
    uint64_t time_stamp;
};
_Static_assert(sizeof(struct hv_event_entry_header) == 16, "TLFS 19.2.6");

/* The log's lock covers all but what is said to be somebody else's. */
struct hv_event_buffer {
    uint8_t *pages; /* NULL: it does not exist */
    atomic_bool mapped; /* its pages are shown to the root */
    enum hv_event_buffer_state state;
    struct hv_event_place *place; /* in use, complete or ready and not reported: whose list it is in */
    struct hv_event_buffer *next; /* in a list */
};

struct hv_event_list {
    struct hv_event_buffer *head, **tail;
    unsigned count;
};

/* Where events are written to: one for each LP, or a single one of a global type. */
struct hv_event_place {
    /*
     * The buffer in use: its index + 1 in the upper half, how far it is filled or being filled in the lower; 0: none.
     * Only the LP's own thread makes it more, without the lock; it is taken away under the lock, when it is where the
     * header says that entries are complete.
     */
    _Atomic uint64_t cursor;
    uint32_t sequence; /* number of the next event; the writer's, as the next line */
    uint32_t lost; /* since the last buffer was completed */
    struct hv_event_list complete;
    struct hv_event_list ready; /* that no message has told of */
};

struct hv_event_group {
    bool initialized;
    uint32_t buffer_limit, buffer_pages, threshold;
    uint32_t tsc_time; /* time stamps are of the TSC instead of reference time */
    uint64_t sources; /* HV_EVENTLOG_ENABLE_* as given (TLFS 19.2.2) */
    uint32_t buffer_count;
    struct hv_event_buffer *buffers; /* HV_EVENT_BUFFERS_MOST */
    struct hv_event_list free;
    unsigned place_count, next_place; /* to be told of */
    struct hv_event_place *places;
    struct hv_message_buffer message; /* TLFS 14.2.1 */
};

struct hv_event_log {
    struct hv_event_lock lock;
    uint64_t first_page; /* of the slots in the root's GPA space, */
    unsigned slot_count; /* a power of two; a buffer has the one of its type and index */
    struct hv_event_group groups[HV_EVENT_LOG_TYPES];
    _Atomic uint64_t diagnostics; /* groups that go into local buffers */
    atomic_bool performance; /* with what only the performance source has */
    _Atomic uint64_t system; /* outcomes that go into global buffers */
    atomic_uint ready; /* buffers that wait to be told of */
};

#define HV_EVENT_ENABLE_DIAG_ADMIN (UINT64_C(1) << 0)
#define HV_EVENT_ENABLE_DIAG_PERF_GENERAL (UINT64_C(1) << 32)
#define HV_EVENT_ENABLE_SYSTEM_SUCCESS (UINT64_C(1) << 0)
#define HV_EVENT_ENABLE_SYSTEM_FAILURE (UINT64_C(1) << 1)

void hv_event_list_init(struct hv_event_list *list);
void hv_event_list_append(struct hv_event_list *list, struct hv_event_buffer *buffer);
struct hv_event_buffer *hv_event_list_take(struct hv_event_list *list); /* the first, or NULL */
void hv_event_list_remove(struct hv_event_list *list, struct hv_event_buffer *buffer); /* if it is there */

static inline struct hv_event_buffer_header *hv_event_header(const struct hv_event_buffer *buffer)
{
    return (struct hv_event_buffer_header *)(void *)buffer->pages;
}
static inline uint32_t hv_event_buffer_index(const struct hv_event_group *group, const struct hv_event_buffer *buffer)
{
    return (uint32_t)(buffer - group->buffers);
}
static inline uint32_t hv_event_buffer_size(const struct hv_event_group *group)
{
    return group->buffer_pages * HV_PAGE_SIZE;
}
/* The log's lock is held for all of these. */
void hv_event_group_begin(struct hv_event_group *group); /* its geometry is there */
void hv_event_buffer_begin(struct hv_event_group *group, struct hv_event_buffer *buffer, uint32_t type);
void hv_event_buffer_set_state(struct hv_event_buffer *buffer, enum hv_event_buffer_state state);
/*
 * Complete the buffer in use, and the whole list it is in becomes ready. False: its LP is writing an entry just now.
 */
bool hv_event_buffer_flush(struct hv *hv, struct hv_event_group *group, struct hv_event_buffer *buffer);
/* Take a free buffer, or one that is ready, out of the lists it is in. */
void hv_event_buffer_detach(struct hv *hv, struct hv_event_group *group, struct hv_event_buffer *buffer);
void hv_event_log_arm(const struct hv *hv); /* hv_event_log_notify() soon */
/* What the sources of a group mean for its events; the log's lock is held. */
void hv_event_log_sources_changed(struct hv *hv, unsigned type);
/* The first page of a buffer's slot in the root's GPA space. False: there are not that many slots. */
bool hv_event_buffer_gpa_page(const struct hv_event_log *log, unsigned type, uint32_t index, uint64_t *page);

#endif
