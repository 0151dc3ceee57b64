/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Events (TLFS chapter 19, appendix I): where they happen there is a line HV_LOG(...). They go into the buffers that
 * the root has set up (event_log*.c), and into the rings of the operator's log (event_ring.c), who needs no guest for
 * that. While nobody wants a group, its events cost one relaxed load.
 */
#ifndef HV_EVENT_LOG_H
#define HV_EVENT_LOG_H

#include "internal.h"

/* Bits of a mask of groups. */
enum hv_event_group_bit {
#define HV_EVENT_GROUP_ROW(bit, symbol, title, origin) HV_EVENT_GROUP_##symbol = bit,
#define HV_EVENT_ROW(...)
#include "tlfs/event_log_entries.def"
#undef HV_EVENT_ROW
#undef HV_EVENT_GROUP_ROW
};

enum hv_event {
#define HV_EVENT_GROUP_ROW(...)
#define HV_EVENT_ROW(number, symbol, group, fields, raised, text) HV_EVENT_##symbol = number,
#include "tlfs/event_log_entries.def"
#undef HV_EVENT_ROW
#undef HV_EVENT_GROUP_ROW
};

/* The group of an event, by its name. */
enum {
#define HV_EVENT_GROUP_ROW(...)
#define HV_EVENT_ROW(number, symbol, group, fields, raised, text) HV_EVENT_GROUP_OF_##symbol = HV_EVENT_GROUP_##group,
#include "tlfs/event_log_entries.def"
#undef HV_EVENT_ROW
#undef HV_EVENT_GROUP_ROW
};

#define HV_EVENT_VALUES_MOST 5u
#define HV_EVENT_MASK(group) (UINT64_C(1) << HV_EVENT_GROUP_##group)

/* Whether anybody wants one of these groups. Where much happens often, what logs is a function apart. */
static inline bool hv_events_are_wanted(const struct hv *hv, uint64_t groups)
{
    return __builtin_expect((atomic_load_explicit(&hv->events_wanted, memory_order_relaxed) & groups) != 0, 0);
}

/* An event on its way; `vp` is NULL for one that is nobody's. */
struct hv_event_record {
    struct hv *hv;
    const struct hv_vp *vp; /* whose it is */
    unsigned lp; /* where it happens, or HV_EVENT_NO_LP */
    uint16_t type, group;
    uint16_t count; /* of values */
    const uint64_t *values;
};
#define HV_EVENT_NO_LP UINT32_MAX

/*
 * Record an event: on the LP's own thread when `lp` is one, as it writes to that LP's buffers. Under any lock but the
 * event log's own; the locks that are taken here are innermost.
 */
void hv_event_record(const struct hv_event_record *record);

/* The LP of a VP on its own thread; without a root each VP of the machine counts as one. */
static inline unsigned hv_event_lp(const struct hv_vp *vp)
{
    if (!vp)
        return HV_EVENT_NO_LP;
    return vp->hv->lps ? atomic_load_explicit(&vp->lp, memory_order_relaxed) : vp->handle;
}

/* Where a VP is in its code; for HV_LOG() only, as the processor has to be asked. */
uint64_t hv_event_rip(const struct hv_vp *vp);

/* An event `symbol` of `vp`, on its thread; its values are not looked at unless somebody wants them. */
#define HV_LOG(vp_, symbol, ...) HV_LOG_AT((vp_)->hv, vp_, hv_event_lp(vp_), symbol, __VA_ARGS__)

/* The same at an LP; `vp_` may be NULL. */
#define HV_LOG_AT(hv_, vp_, lp_, symbol, ...)                                                                          \
    do {                                                                                                               \
        if (hv_events_are_wanted(hv_, UINT64_C(1) << HV_EVENT_GROUP_OF_##symbol)) {                                    \
            const uint64_t hv_log_values[] = {__VA_ARGS__};                                                            \
            hv_event_record(&(struct hv_event_record){.hv = (hv_),                                                     \
                                                      .vp = (vp_),                                                     \
                                                      .lp = (lp_),                                                     \
                                                      .type = HV_EVENT_##symbol,                                       \
                                                      .group = HV_EVENT_GROUP_OF_##symbol,                             \
                                                      .count = sizeof(hv_log_values) / sizeof(hv_log_values[0]),       \
                                                      .values = hv_log_values});                                       \
        }                                                                                                              \
    } while (0)

/* The hypervisor answers an instruction of `vp` with an exception. */
static inline void hv_log_reflected(const struct hv_vp *vp, enum hv_exit exit)
{
    if (__builtin_expect(exit == HV_EXIT_GP || exit == HV_EXIT_UD || exit == HV_EXIT_MC, 0))
        HV_LOG(vp, IM_REFLECTED_EXCEPTION, hv_event_rip(vp), exit == HV_EXIT_UD ? 6 : exit == HV_EXIT_GP ? 13 : 18);
}

/* -- event_log.c, event_log_buffer.c: the machine's event log. Without a root there are only the operator's rings. --
 */

bool hv_event_log_create(struct hv *hv); /* false: the host's memory is short; LPs are there */
void hv_event_log_free(struct hv *hv); /* no VP runs, as for the next one */
void hv_event_log_reset(struct hv *hv); /* the root's groups go with all that belongs to them */
/* The page of a mapped buffer that the root sees at a page of its GPA space, or NULL. Any thread, no lock. */
uint8_t *hv_event_log_page(const struct hv *hv, uint64_t gpa_page);
/* Of a page behind that: how many pages (1 << shift) around it there is no buffer in, if it is in none itself. */
unsigned hv_event_log_shift(const struct hv *hv, uint64_t gpa_page);
uint64_t hv_event_log_first_page(const struct hv *hv); /* where such pages begin: aligned to what there is room for */
/* Post messages for what has become ready; no core lock held. */
void hv_event_log_notify(struct hv *hv);
/* The log's message buffer is free for the next message; under any lock. */
void hv_event_log_message_freed(struct hv *hv);
/* In the stream of state: the type whose message buffer this is, and that buffer (NULL: no such type). */
uint32_t hv_event_log_message_type(const struct hv *hv, const struct hv_message_buffer *buffer);
struct hv_message_buffer *hv_event_log_message_buffer(struct hv *hv, uint32_t type);

/* -- event_ring.c -- */

struct hv_event_rings;
struct hv_event_rings *hv_event_rings_create(struct hv *hv); /* NULL: the host's memory is short */
void hv_event_rings_free(struct hv_event_rings *rings);
void hv_event_rings_record(struct hv_event_rings *rings, const struct hv_event_record *record, uint64_t tsc);
uint64_t hv_event_rings_groups(const struct hv_event_rings *rings); /* that the operator logs */

/* The operator's groups have changed; no lock of the event log's is held. */
void hv_event_log_update_wanted(struct hv *hv);

#endif
