/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A child of the root as a whole, for the operator's save and restore: its state as HvSavePartitionState has it, and
 * what its parent has given it: properties, VPs, mappings, intercepts, pool, ports and connections. The platform adds
 * the contents of the pages.
 *
 * The parent does not notice: the child comes back below it with the same ID, and maps the same of its pages. What the
 * parent itself remembers of the child is its own business (docs/save-restore.md).
 */
#include "save.h"

#include <stdlib.h>

/* -- Whether it can be saved -- */

static struct hv_partition *find_child(struct hv *hv, hv_partition_id id)
{
    struct hv_partition *partition = hv_find_partition(hv, id);

    return partition && partition->parent && partition->parent == hv->machine_partition ? partition : NULL;
}

static bool is_settled(const struct hv_partition *partition)
{
    for (hv_vp_index i = 0; i < partition->vp_limit; i++) {
        const struct hv_vp *vp = partition->vps[i];

        if (vp && (atomic_load(&vp->owner) != HV_OWNER_NONE || (atomic_load(&vp->suspend) & HV_SUSPEND_INTERCEPT)))
            return false;
    }
    return true;
}

enum hv_progress hv_child_is_settled(struct hv *hv, hv_partition_id id, const char **error)
{
    enum hv_progress progress = HV_PROGRESS_FAILED;
    struct hv_partition *partition;

    hv_structure_lock_read(&hv->structure);
    partition = find_child(hv, id);
    if (!partition)
        *error = "it is no child of the root partition";
    else if (!hv_partition_is_active(partition))
        *error = "it is not active";
    else if (partition->children)
        *error = "it has child partitions of its own";
    else
        progress = is_settled(partition) ? HV_PROGRESS_DONE : HV_PROGRESS_WAIT;
    hv_structure_lock_drop(&hv->structure);
    return progress;
}

size_t hv_list_child_runs(struct hv *hv, hv_partition_id id, struct hv_child_run *runs, size_t max)
{
    const struct hv_partition *partition;
    size_t n = 0;

    hv_structure_lock_read(&hv->structure);
    partition = find_child(hv, id);
    if (partition && partition->gpa_space)
        n = hv_gpa_runs(partition, runs, max);
    hv_structure_lock_drop(&hv->structure);
    return n;
}

/* -- What the parent gave it, for both directions -- */

/* The VPs, which the summary names, and what keeps each from running. */
struct vp_record {
    uint32_t index, suspend;
};

static void vp_record(struct hv_stream *s, struct vp_record *record)
{
    hv_stream_u32(s, &record->index);
    hv_stream_u32(s, &record->suspend);
}

static void write_vps(struct hv_stream *s, struct hv_partition *partition)
{
    hv_stream_count(s, partition->vp_count, HV_MAX_VPS);
    for (hv_vp_index i = 0; i < partition->vp_limit; i++) {
        struct vp_record record = {.index = i};

        if (!partition->vps[i])
            continue;
        record.suspend = atomic_load(&partition->vps[i]->suspend);
        vp_record(s, &record);
    }
}

static struct hv_vp *unused_vp(struct hv *hv)
{
    return hv_vp_prepare_restore(hv, hv->free_vps ? hv->free_vps->handle : hv->handle_count);
}

/* They come to life suspended; `records` remembers what they are to be. */
static uint32_t read_vps(struct hv_stream *s, struct hv_partition *partition, struct vp_record *records)
{
    uint32_t count = hv_stream_count(s, 0, HV_MAX_VPS);

    for (uint32_t i = 0; i < count && !s->error; i++) {
        struct vp_record *record = &records[i];
        struct hv_vp *vp;

        vp_record(s, record);
        if (s->error)
            break;
        if (record->index >= partition->vp_limit || partition->vps[record->index]) {
            hv_stream_fail(s, "it has an impossible virtual processor");
            break;
        }
        vp = unused_vp(partition->hv);
        if (!vp || !hv_vp_restore(partition, vp, record->index))
            hv_stream_fail(s, "the machine can have no more virtual processors");
    }
    return count;
}

/* Pages that are in its pool are the parent's no more. */
static void take_deposits(struct hv_stream *s, struct hv_partition *partition)
{
    struct hv_vp_set handles;

    hv_state_pool(s, partition);
    if (!hv_stream_reading(s) || s->error)
        return;
    if (!hv_pool_deposits_taken(partition))
        hv_stream_fail(s, "its parent uses pages that belong to the pool of the child");
    hv_partition_tree_vps(partition->parent, &handles);
    hv_flush_second_stage(partition->hv, NULL, &handles);
}

/* A connection of another partition, its parent or a sibling, to a port of the child. */
struct link_record {
    uint64_t partition, monitor_gpa;
    uint32_t connection, port;
};

static void link_record(struct hv_stream *s, struct link_record *record)
{
    hv_stream_u64(s, &record->partition);
    hv_stream_u64(s, &record->monitor_gpa);
    hv_stream_u32(s, &record->connection);
    hv_stream_u32(s, &record->port);
}

static uint32_t write_links_of(struct hv_stream *s, const struct hv_partition *partition,
                               const struct hv_partition *other)
{
    uint32_t count = 0;

    for (unsigned i = 0; i < HV_PORT_BUCKETS; i++) {
        for (const struct hv_connection *c = other->connections[i]; c; c = c->next) {
            struct link_record record = {other->id, c->monitor ? hv_monitor_connection_gpa(c->monitor) : 0, c->id,
                                         c->port_id};

            if (!c->port || c->port->partition != partition)
                continue;
            count++;
            if (s)
                link_record(s, &record);
        }
    }
    return count;
}

static uint32_t write_links(struct hv_stream *s, const struct hv_partition *partition)
{
    uint32_t count = 0;

    for (struct hv_partition *p = partition->hv->machine_partition; p; p = hv_next_partition(p)) {
        if (p != partition)
            count += write_links_of(s, partition, p);
    }
    return count;
}

/*
 * What is connected to something else meanwhile stays with that. In another machine a sibling's ID may be that of
 * somebody else, so its connection is made again only if it is there and has lost its port.
 */
static void connect_again(struct hv_partition *partition, const struct link_record *record)
{
    struct hv_partition *other = hv_find_partition(partition->hv, record->partition);
    struct hv_connection *old = other ? hv_find_connection(other, record->connection) : NULL;
    struct hv_port *port = hv_find_port(partition, record->port);
    bool lost = old && !old->port && old->port_id == record->port, by_operator = old && old->by_operator;

    if (!other || other == partition || !port || port->connection || (old && old->port) ||
        (record->connection & ~HV_PORT_ID_MASK) || (other != partition->parent && !lost))
        return;
    if (old)
        hv_connection_remove(old);
    hv_connection_insert(other, record->connection, port, by_operator, record->monitor_gpa);
}

/* Reading, they are only looked at before all else is known to be sound; `connect` comes then. */
static void links(struct hv_stream *s, struct hv_partition *partition, bool connect)
{
    uint32_t count = hv_stream_count(s, write_links(NULL, partition), HV_MAX_PORTS);

    if (!hv_stream_reading(s)) {
        write_links(s, partition);
        return;
    }
    for (uint32_t i = 0; i < count && !s->error; i++) {
        struct link_record record = {0};

        link_record(s, &record);
        if (!s->error && record.monitor_gpa >= partition->hv->gpa_limit)
            hv_stream_fail(s, "it has an impossible connection");
        if (!s->error && connect)
            connect_again(partition, &record);
    }
}

static void gifts(struct hv_stream *s, struct hv_partition *partition)
{
    hv_state_gpa_space(s, partition);
    if (!s->error)
        hv_state_intercepts(s, partition);
    if (!s->error)
        hv_state_ports_of(s, partition);
    if (!s->error)
        hv_state_connections_of(s, partition);
    if (!s->error)
        take_deposits(s, partition);
}

/* -- Saving -- */

static void write_child(struct hv_stream *s, struct hv_partition *partition, size_t length)
{
    uint64_t id = partition->id, parent = partition->parent->id;
    size_t start;

    hv_write_summary(s, partition, KIND_CHILD, length);
    start = hv_section_begin(s);
    hv_stream_u64(s, &id);
    hv_stream_u64(s, &parent);
    hv_state_partition_fields(s, partition);
    write_vps(s, partition);
    gifts(s, partition);
    links(s, partition, false);
    hv_section_end(s, start, TAG_CHILD, 0);
    hv_write_partition(s, partition);
}

uint8_t *hv_save_child(struct hv *hv, hv_partition_id id, size_t *size)
{
    struct hv_stream counting = {.alone = true}, s = {.alone = true};
    struct hv_partition *partition = find_child(hv, id);

    if (!partition)
        return NULL;
    write_child(&counting, partition, 0);
    s.size = counting.position;
    s.write = malloc(s.size);
    if (!s.write)
        return NULL;
    write_child(&s, partition, s.size);
    if (s.error || s.position != s.size) {
        free(s.write);
        return NULL;
    }
    *size = s.size;
    return s.write;
}

/* -- Restoring -- */

static const char *why_not(unsigned state)
{
    switch (state) {
    case STATE_UNSUPPORTED_VERSION:
        return "another version of the hypervisor's interface saved it";
    case STATE_INCOMPATIBLE_PROCESSOR:
        return "it was saved on processors of another vendor";
    case STATE_HARDWARE_FEATURE_MISMATCH:
        return "it was saved on a machine with another width of addresses, or with another TSC or APIC frequency";
    case STATE_CORRUPT_DATA:
        return "its state is damaged";
    default:
        return "it was saved on processors with features that these do not have";
    }
}

static bool look(struct hv_transfer *transfer, const struct hv *hv, const char **error)
{
    unsigned state = STATE_CORRUPT_DATA;

    if (transfer->size >= SUMMARY_END) {
        memcpy(&transfer->head, transfer->data, sizeof(transfer->head));
        state = hv_check_head(&transfer->head, false);
    }
    if (state == STATE_INCOMPLETE && (transfer->head.kind != KIND_CHILD || transfer->head.length != transfer->size))
        state = STATE_CORRUPT_DATA;
    if (state == STATE_INCOMPLETE)
        state = hv_check_summary(hv, NULL, transfer);
    if (state != STATE_RESTORABLE)
        *error = why_not(state);
    return state == STATE_RESTORABLE;
}

static struct hv_partition *make_partition(struct hv_stream *s, struct hv *hv, uint64_t id, uint64_t parent)
{
    struct hv_partition *partition;

    if (!hv_pool_charge(hv->machine_partition, HV_COST_Partition)) {
        hv_stream_fail(s, "the root's memory pool has no pages left");
        return NULL;
    }
    partition =
        hv->partition_count < HV_MAX_PARTITIONS ? hv_partition_restore(hv_find_partition(hv, parent), id) : NULL;
    if (!partition) {
        hv_pool_release(hv->machine_partition, HV_COST_Partition);
        hv_stream_fail(s, "the machine can have no more partitions");
        return NULL;
    }
    if (hv->next_partition_id <= id)
        hv->next_partition_id = id + 1;
    return partition;
}

static void go_on(struct hv_partition *partition, const struct vp_record *records, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct hv_vp *vp = partition->vps[records[i].index];

        if (!(records[i].suspend & HV_SUSPEND_EXPLICIT))
            hv_vp_clear_suspend(vp, HV_SUSPEND_EXPLICIT);
    }
}

static void fill_partition(struct hv_stream *s, const struct hv_transfer *transfer, size_t position,
                           struct hv_partition *partition, uint64_t pages)
{
    struct vp_record *records = calloc(HV_MAX_VPS, sizeof(*records));
    struct hv_stream at_links;
    uint32_t count = 0;

    if (!records) {
        hv_stream_fail(s, "out of memory");
        return;
    }
    hv_pool_release(partition, HV_POOL_UNLIMITED);
    hv_state_partition_fields(s, partition);
    atomic_store(&partition->paused, true);
    atomic_store(&partition->time_stopped, true); /* until its VPs go on, as they come to life suspended */
    if (!s->error && !hv_partition_is_active(partition))
        hv_stream_fail(s, "its state is damaged");
    if (!s->error)
        count = read_vps(s, partition, records);
    if (!s->error)
        gifts(s, partition);
    at_links = *s;
    if (!s->error)
        links(s, partition, false);
    if (!s->error && (s->position != s->size || !hv_sections_are_sound(transfer, position, partition) ||
                      !hv_read_partition(transfer, position, partition)))
        hv_stream_fail(s, "its state is damaged");
    if (!s->error && hv_gpa_mapped_pages(partition) != pages)
        hv_stream_fail(s, "it has mapped another number of pages than there are contents for");
    if (s->error)
        hv_undo_partition(partition);
    hv_show_partition(partition);
    if (!s->error) {
        links(&at_links, partition, true);
        go_on(partition, records, count);
    }
    free(records);
}

static void delete_child(struct hv *hv, hv_partition_id id)
{
    while (hv_operator_delete_partition(hv, id) == HV_PROGRESS_WAIT) {
    }
}

/* The partition must not be there. */
static bool make_child(struct hv *hv, const struct hv_transfer *transfer, uint64_t pages, uint64_t *id,
                       const char **error)
{
    size_t position = SUMMARY_END;
    uint64_t parent = HV_PARTITION_ID_INVALID;
    struct hv_stream s = {0};
    struct hv_partition *partition;

    hv_next_section(transfer, &position, TAG_CHILD, 0, &s);
    hv_stream_u64(&s, id);
    hv_stream_u64(&s, &parent);
    hv_structure_lock_write(&hv->structure);
    partition = make_partition(&s, hv, *id, parent);
    if (partition)
        fill_partition(&s, transfer, position, partition, pages);
    hv_structure_lock_drop(&hv->structure);
    if (!s.error)
        return true;
    if (partition)
        delete_child(hv, *id);
    *error = s.error;
    return false;
}

static bool read_ids(const struct hv_transfer *transfer, struct hv *hv, uint64_t *id, const char **error)
{
    const struct hv_partition *old;
    size_t position = SUMMARY_END;
    uint64_t parent = 0;
    struct hv_stream s;

    *error = "its state is damaged";
    if (!hv_next_section(transfer, &position, TAG_CHILD, 0, &s))
        return false;
    hv_stream_u64(&s, id);
    hv_stream_u64(&s, &parent);
    if (s.error || parent != hv->machine_partition->id || *id <= parent || *id >= UINT64_MAX - 1)
        return false;
    old = hv_find_partition(hv, *id);
    *error = "there is another partition with its ID that is no child of the root, or has children";
    return !old || (old->parent == hv->machine_partition && !old->children);
}

hv_partition_id hv_saved_child_id(struct hv *hv, const uint8_t *stream, size_t size)
{
    const struct hv_transfer transfer = {.size = size, .data = (uint8_t *)(uintptr_t)stream};
    hv_partition_id id = HV_PARTITION_ID_INVALID;
    const char *ignored;
    bool sound;

    if (size < SUMMARY_END)
        return HV_PARTITION_ID_INVALID;
    hv_structure_lock_read(&hv->structure);
    sound = read_ids(&transfer, hv, &id, &ignored);
    hv_structure_lock_drop(&hv->structure);
    return sound ? id : HV_PARTITION_ID_INVALID;
}

static bool stands_still(const struct hv_partition *partition)
{
    for (hv_vp_index i = 0; i < partition->vp_limit; i++) {
        if (partition->vps[i] && atomic_load(&partition->vps[i]->owner) != HV_OWNER_NONE)
            return false;
    }
    return true;
}

bool hv_restore_child(struct hv *hv, const uint8_t *stream, size_t size, uint64_t pages, hv_partition_id *id,
                      const char **error)
{
    struct hv_transfer transfer = {.restoring = true, .size = size, .data = (uint8_t *)(uintptr_t)stream};
    struct hv_transfer old = {.restoring = true};
    uint64_t old_pages = 0;
    const char *ignored;
    bool done;

    if (!look(&transfer, hv, error) || !read_ids(&transfer, hv, id, error))
        return false;
    if (hv_find_partition(hv, *id)) {
        if (!stands_still(hv_find_partition(hv, *id))) {
            *error = "the partition that it would replace does not stand still";
            return false;
        }
        old_pages = hv_gpa_mapped_pages(hv_find_partition(hv, *id));
        old.data = hv_save_child(hv, *id, &old.size);
        if (!old.data) {
            *error = "the partition that it would replace cannot be put aside";
            return false;
        }
        delete_child(hv, *id);
    }
    done = make_child(hv, &transfer, pages, id, error);
    if (!done && old.data)
        make_child(hv, &old, old_pages, id, &ignored);
    free(old.data);
    return done;
}
