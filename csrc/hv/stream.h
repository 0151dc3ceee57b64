/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A stream of state, for snapshots and migration (state*.c).
 *
 * One function walks a part of the state for both directions, so that what is written and what is read cannot drift
 * apart: each hv_stream_*() writes the value, or replaces it by what is read. After an error nothing is read any more.
 */
#ifndef HV_STREAM_H
#define HV_STREAM_H

#include "internal.h"

#include <string.h>

struct hv_stream {
    uint8_t *write; /* NULL while only counting or reading */
    const uint8_t *read; /* NULL while writing or counting */
    size_t size, position;
    const char *error; /* the first one: a sentence */
    bool alone; /* it has one partition only: what belongs to others does not go with it (save.c) */
};

static inline bool hv_stream_reading(const struct hv_stream *s)
{
    return s->read != NULL;
}

static inline void hv_stream_fail(struct hv_stream *s, const char *error)
{
    if (!s->error)
        s->error = error;
}

static inline void hv_stream_bytes(struct hv_stream *s, void *data, size_t size)
{
    if (s->read || s->write) {
        if (s->error || size > s->size - s->position) {
            hv_stream_fail(s, "the saved hypervisor state is truncated");
            return;
        }
        if (s->read)
            memcpy(data, s->read + s->position, size);
        else
            memcpy(s->write + s->position, data, size);
    }
    s->position += size;
}

static inline void hv_stream_u32(struct hv_stream *s, uint32_t *value)
{
    hv_stream_bytes(s, value, sizeof(*value));
}

static inline void hv_stream_u64(struct hv_stream *s, uint64_t *value)
{
    hv_stream_bytes(s, value, sizeof(*value));
}

static inline void hv_stream_atomic_u32(struct hv_stream *s, _Atomic uint32_t *value)
{
    uint32_t plain = atomic_load(value);

    hv_stream_u32(s, &plain);
    atomic_store(value, plain);
}

static inline void hv_stream_atomic_u64(struct hv_stream *s, _Atomic uint64_t *value)
{
    uint64_t plain = atomic_load(value);

    hv_stream_u64(s, &plain);
    atomic_store(value, plain);
}

static inline void hv_stream_flag(struct hv_stream *s, bool *value)
{
    uint32_t plain = *value;

    hv_stream_u32(s, &plain);
    *value = plain != 0;
}

static inline void hv_stream_atomic_flag(struct hv_stream *s, atomic_bool *value)
{
    bool plain = atomic_load(value);

    hv_stream_flag(s, &plain);
    atomic_store(value, plain);
}

/* A value that must be the same on both sides. */
static inline void hv_stream_expect(struct hv_stream *s, uint64_t value, const char *error)
{
    uint64_t stored = value;

    hv_stream_u64(s, &stored);
    if (stored != value)
        hv_stream_fail(s, error);
}

/* A number of elements that follow, at most `limit`; 0 after an error. */
static inline uint32_t hv_stream_count(struct hv_stream *s, uint32_t count, uint32_t limit)
{
    hv_stream_u32(s, &count);
    if (hv_stream_reading(s) && count > limit)
        hv_stream_fail(s, "the saved hypervisor state has an impossible count");
    return s->error ? 0 : count;
}

/* The partition after `partition` when parents come before their children; NULL after the last one. */
static inline struct hv_partition *hv_next_partition(struct hv_partition *partition)
{
    if (partition->children)
        return partition->children;
    while (partition && !partition->next_sibling)
        partition = partition->parent;
    return partition ? partition->next_sibling : NULL;
}

/* The parts of the machine's state, by file; no VP runs, and what is read goes into a machine after hv_reset(). */
void hv_state_tree(struct hv_stream *s, struct hv *hv); /* state_tree.c: partitions and their VPs */
void hv_state_child_vp(struct hv_stream *s, struct hv_vp *vp); /* state_tree.c: what only a child's VP has */
void hv_state_ports(struct hv_stream *s, struct hv *hv); /* state_ports.c: ports and connections of all partitions */
void hv_state_partition_registers(struct hv_stream *s, struct hv_partition *partition); /* state.c */
void hv_state_vp(struct hv_stream *s, struct hv_vp *vp); /* state.c: what the core keeps of it */
void hv_state_registers(struct hv_stream *s, struct hv_vp *vp); /* vp_registers.c: what the platform keeps of it */
void hv_state_partition_fields(struct hv_stream *s, struct hv_partition *partition); /* state_tree.c */
void hv_state_ports_of(struct hv_stream *s, struct hv_partition *partition); /* state_ports.c */
void hv_state_connections_of(struct hv_stream *s, struct hv_partition *partition); /* state_ports.c */
void hv_state_gpa_space(struct hv_stream *s, struct hv_partition *partition); /* state_gpa.c: the map */
void hv_state_pool(struct hv_stream *s, struct hv_partition *partition); /* memory_pool.c: after all that is charged */
void hv_state_intercepts(struct hv_stream *s, struct hv_partition *partition); /* intercept.c */
void hv_state_event_log(struct hv_stream *s, struct hv *hv); /* event_log_state.c: before messages in queues */
void hv_state_stats(struct hv_stream *s, struct hv *hv); /* stats.c: before pools, when all objects are there */

#endif
