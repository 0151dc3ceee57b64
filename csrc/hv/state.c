/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The state of the whole machine as a versioned stream, for snapshots and migration. (Saving one partition through the
 * hypervisor's own interface is TLFS chapter 17 and lives elsewhere.)
 *
 * One function walks the state for both directions, so that what is written and what is read cannot drift apart.
 * Counters are not state: they start anew.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

#define STREAM_MAGIC UINT32_C(0x53565648) /* "HVVS" */
#define STREAM_VERSION 1u

struct stream {
    uint8_t *write; /* NULL while only counting or reading */
    const uint8_t *read; /* NULL while writing or counting */
    size_t size, position;
    const char *error; /* the first one */
};

static bool reading(const struct stream *s)
{
    return s->read != NULL;
}

static void fail(struct stream *s, const char *error)
{
    if (!s->error)
        s->error = error;
}

static void bytes(struct stream *s, void *data, size_t size)
{
    if (s->read || s->write) {
        if (s->error || size > s->size - s->position) {
            fail(s, "the saved hypervisor state is truncated");
            return;
        }
        if (s->read)
            memcpy(data, s->read + s->position, size);
        else
            memcpy(s->write + s->position, data, size);
    }
    s->position += size;
}

static void u32(struct stream *s, uint32_t *value)
{
    bytes(s, value, sizeof(*value));
}

static void u64(struct stream *s, uint64_t *value)
{
    bytes(s, value, sizeof(*value));
}

static void atomic_u64(struct stream *s, _Atomic uint64_t *value)
{
    uint64_t plain = atomic_load(value);

    u64(s, &plain);
    atomic_store(value, plain);
}

static void flag(struct stream *s, bool *value)
{
    uint32_t plain = *value;

    u32(s, &plain);
    *value = plain != 0;
}

/* A value that must be the same on both sides. */
static void expect(struct stream *s, uint64_t value, const char *error)
{
    uint64_t stored = value;

    u64(s, &stored);
    if (stored != value)
        fail(s, error);
}

static void header(struct stream *s, struct hv_partition *partition)
{
    expect(s, STREAM_MAGIC, "the saved hypervisor state is not one of ours");
    expect(s, STREAM_VERSION, "the saved hypervisor state has an unknown version");
    expect(s, partition->hv->config.generation, "the saved machine has another interface generation");
    expect(s, partition->vp_count, "the saved machine has another number of virtual processors");
    expect(s, partition->privileges, "the saved machine's partition has other privileges");
    expect(s, partition->features, "the saved machine's partition has other features");
    expect(s, partition->recommendations, "the saved machine's partition has other recommendations");
    u64(s, &partition->hv->config.tsc_frequency);
    u64(s, &partition->hv->config.apic_frequency);
    if (reading(s) && partition->hv->config.tsc_frequency <= 10000000)
        fail(s, "the saved machine has an impossible TSC frequency");
}

static void partition_registers(struct stream *s, struct hv_partition *partition)
{
    uint64_t offset = (uint64_t)partition->tsc_offset;

    atomic_u64(s, &partition->guest_os_id);
    atomic_u64(s, &partition->hypercall_msr);
    atomic_u64(s, &partition->reference_tsc_msr);
    atomic_u64(s, &partition->crash_control);
    atomic_u64(s, &partition->tsc_invariant_control);
    for (unsigned i = 0; i < 5; i++)
        atomic_u64(s, &partition->crash_parameters[i]);
    u64(s, &partition->tsc_scale);
    u64(s, &offset);
    partition->tsc_offset = (int64_t)offset;
    u32(s, &partition->tsc_sequence);
    if (reading(s) && partition->tsc_scale == 0)
        fail(s, "the saved machine has an impossible TSC scale");
}

/* -- Ports and connections -- */

static void port_fields(struct stream *s, uint32_t *id, struct hv_port_info *info, uint64_t *post_count)
{
    uint32_t type = info->type, flags = (uint32_t)info->base_flag << 16 | info->flag_count;

    u32(s, id);
    u32(s, &type);
    u32(s, &info->sint);
    u32(s, &info->vp);
    u32(s, &flags);
    u64(s, post_count);
    info->type = (enum hv_port_type)type;
    info->base_flag = (uint16_t)(flags >> 16);
    info->flag_count = (uint16_t)flags;
}

static void write_ports(struct stream *s, struct hv_partition *partition)
{
    uint32_t count = (uint32_t)partition->port_count;

    u32(s, &count);
    for (unsigned i = 0; i < HV_PORT_BUCKETS; i++) {
        for (struct hv_port *port = partition->ports[i]; port; port = port->next) {
            uint64_t post_count = atomic_load(&port->post_count);

            port_fields(s, &port->id, &port->info, &post_count);
        }
    }
    count = (uint32_t)partition->connection_count;
    u32(s, &count);
    for (unsigned i = 0; i < HV_PORT_BUCKETS; i++) {
        for (struct hv_connection *c = partition->connections[i]; c; c = c->next) {
            uint32_t orphan = c->port == NULL;

            u32(s, &c->id);
            u32(s, &c->port_id);
            u32(s, &orphan);
        }
    }
}

static void read_port(struct stream *s, struct hv_partition *partition)
{
    struct hv_port_info info = {0};
    uint64_t post_count = 0;
    uint32_t id = 0;

    port_fields(s, &id, &info, &post_count);
    if (s->error)
        return;
    if (hv_operator_create_port(partition, id, &info) != HV_STATUS_SUCCESS)
        fail(s, "the saved hypervisor state has an impossible port");
    else
        atomic_store(&hv_find_port(partition, id)->post_count, post_count);
}

static void read_connection(struct stream *s, struct hv_partition *partition)
{
    struct hv_port_info placeholder = {.type = HV_PORT_TYPE_MESSAGE, .sint = 1, .vp = HV_ANY_VP};
    uint32_t id = 0, port_id = 0, orphan = 0;

    u32(s, &id);
    u32(s, &port_id);
    u32(s, &orphan);
    if (s->error)
        return;
    if (orphan) {
        /* Its port was deleted, and another may have that ID now: connect to a port that goes at once. */
        uint32_t free_id = 0;

        while (hv_find_port(partition, free_id))
            free_id++;
        if (hv_operator_create_port(partition, free_id, &placeholder) != HV_STATUS_SUCCESS ||
            hv_operator_connect_port(partition, id, free_id) != HV_STATUS_SUCCESS)
            fail(s, "the saved hypervisor state has an impossible connection");
        hv_operator_delete_port(partition, free_id);
        if (hv_find_connection(partition, id))
            hv_find_connection(partition, id)->port_id = port_id;
    } else if (hv_operator_connect_port(partition, id, port_id) != HV_STATUS_SUCCESS) {
        fail(s, "the saved hypervisor state has an impossible connection");
    }
}

static void read_ports(struct stream *s, struct hv_partition *partition)
{
    uint32_t count = 0;

    hv_ports_free(partition);
    u32(s, &count);
    for (uint32_t i = 0; i < count && !s->error; i++)
        read_port(s, partition);
    count = 0;
    u32(s, &count);
    for (uint32_t i = 0; i < count && !s->error; i++)
        read_connection(s, partition);
}

/* -- Virtual processors -- */

#define SOURCE_PORT UINT32_C(0xFFFFFFFF) /* else the index of a timer */

/* The port whose buffer this is. Used while no VP runs, so a walk through all ports is good enough. */
static uint32_t port_of(struct hv_partition *partition, const struct hv_message_buffer *buffer)
{
    for (unsigned i = 0; i < HV_PORT_BUCKETS; i++) {
        for (struct hv_port *port = partition->ports[i]; port; port = port->next) {
            if (port->buffers && buffer >= port->buffers && buffer < port->buffers + HV_PORT_MESSAGE_BUFFERS)
                return port->id;
        }
    }
    return 0;
}

static void write_queue(struct stream *s, struct hv_vp *vp, unsigned sint)
{
    uint32_t count = 0;

    for (struct hv_message_buffer *b = vp->queue[sint].head; b; b = b->next)
        count++;
    u32(s, &count);
    for (struct hv_message_buffer *b = vp->queue[sint].head; b; b = b->next) {
        uint32_t source = b->timer >= 0 ? (uint32_t)b->timer : SOURCE_PORT;
        uint32_t port = b->timer >= 0 ? 0 : port_of(vp->partition, b);

        u32(s, &source);
        u32(s, &port);
        bytes(s, &b->message, sizeof(b->message));
    }
}

static struct hv_message_buffer *free_buffer_of(struct hv_vp *vp, uint32_t source, uint32_t port_id)
{
    struct hv_port *port;

    if (source != SOURCE_PORT) {
        struct hv_message_buffer *buffer = source < HV_SYNTHETIC_TIMER_COUNT ? &vp->timer[source].buffer : NULL;

        return buffer && !atomic_load(&buffer->in_use) ? buffer : NULL;
    }
    port = hv_find_port(vp->partition, port_id);
    for (unsigned i = 0; port && port->buffers && i < HV_PORT_MESSAGE_BUFFERS; i++) {
        if (!atomic_load(&port->buffers[i].in_use))
            return &port->buffers[i];
    }
    return NULL;
}

static void read_message(struct stream *s, struct hv_vp *vp, unsigned sint)
{
    struct hv_message_queue *queue = &vp->queue[sint];
    struct hv_message_buffer *buffer;
    struct hv_message message;
    uint32_t source = 0, port = 0;

    u32(s, &source);
    u32(s, &port);
    bytes(s, &message, sizeof(message));
    if (s->error)
        return;
    buffer = free_buffer_of(vp, source, port);
    if (!buffer || message.header.payload_size > HV_MESSAGE_MAX_PAYLOAD_BYTE_COUNT) {
        fail(s, "the saved hypervisor state has an impossible message");
        return;
    }
    atomic_store(&buffer->in_use, true);
    buffer->vp = vp;
    buffer->sint = (uint8_t)sint;
    buffer->timer = source == SOURCE_PORT ? -1 : (int8_t)source;
    buffer->message = message;
    buffer->next = NULL;
    *queue->tail = buffer;
    queue->tail = &buffer->next;
    atomic_fetch_or(&vp->waiting, (uint16_t)(1u << sint));
}

static void queue(struct stream *s, struct hv_vp *vp, unsigned sint)
{
    uint32_t count = 0;

    if (!reading(s)) {
        write_queue(s, vp, sint);
        return;
    }
    u32(s, &count);
    for (uint32_t i = 0; i < count && !s->error; i++)
        read_message(s, vp, sint);
}

static void timer(struct stream *s, struct hv_timer *timer)
{
    u64(s, &timer->config);
    u64(s, &timer->count);
    u64(s, &timer->due);
    flag(s, &timer->blocked);
    /* A period of zero cannot be armed: nothing would ever be divided by it. */
    if (reading(s) && timer->due != HV_NANO100_NEVER && timer->count == 0)
        fail(s, "the saved hypervisor state has an impossible timer");
}

static void virtual_processor(struct stream *s, struct hv_vp *vp)
{
    uint32_t assist_vector = (uint32_t)vp->assist_vector;

    atomic_u64(s, &vp->scontrol);
    atomic_u64(s, &vp->siefp);
    atomic_u64(s, &vp->simp);
    for (unsigned i = 0; i < HV_SYNIC_SINT_COUNT; i++)
        atomic_u64(s, &vp->sint[i]);
    u64(s, &vp->apic_assist_msr);
    u32(s, &assist_vector);
    vp->assist_vector = assist_vector < 256 ? (int)assist_vector : -1;
    bytes(s, vp->sim_page, HV_PAGE_SIZE);
    bytes(s, vp->sief_page, HV_PAGE_SIZE);
    bytes(s, vp->apic_assist_page, HV_PAGE_SIZE);
    for (unsigned i = 0; i < HV_SYNTHETIC_TIMER_COUNT; i++)
        timer(s, &vp->timer[i]);
    for (unsigned i = 0; i < HV_SYNIC_SINT_COUNT; i++)
        queue(s, vp, i);
}

/* -- The whole -- */

static void walk(struct stream *s, struct hv_partition *partition)
{
    header(s, partition);
    if (!s->error)
        partition_registers(s, partition);
    if (!s->error && reading(s))
        read_ports(s, partition);
    else if (!s->error)
        write_ports(s, partition);
    for (hv_vp_index i = 0; i < partition->vp_count && !s->error; i++)
        virtual_processor(s, partition->vps[i]);
}

size_t hv_save_size(const struct hv *hv)
{
    struct stream s = {0};

    /* Counting stores every value back unchanged. */
    walk(&s, hv->machine_partition);
    return s.position;
}

size_t hv_save(struct hv *hv, uint8_t *buffer, size_t size)
{
    struct stream s = {.write = buffer, .size = size};

    walk(&s, hv->machine_partition);
    return s.error ? 0 : s.position;
}

static void resume_vp(struct hv_vp *vp)
{
    hv_interrupt_update_auto_eoi(vp);
    hv_timer_set_all(vp);
    hv_message_retry(vp); /* what waited for a slot goes on waiting or is delivered */
}

bool hv_restore(struct hv *hv, const uint8_t *buffer, size_t size, const char **error)
{
    struct hv_partition *partition = hv->machine_partition;
    struct hv_config before = hv->config;
    uint64_t scale = partition->tsc_scale;
    int64_t offset = partition->tsc_offset;
    struct stream s = {.read = buffer, .size = size};

    hv_reset(hv);
    walk(&s, partition);
    if (!s.error && s.position != size)
        fail(&s, "the saved hypervisor state has something behind its end");
    if (s.error) {
        hv->config = before;
        partition->tsc_scale = scale;
        partition->tsc_offset = offset;
        hv_reset(hv);
        *error = s.error;
        return false;
    }
    hv_publish_reference_tsc(partition);
    hv_show_all_overlays(partition);
    for (hv_vp_index i = 0; i < partition->vp_count; i++)
        resume_vp(partition->vps[i]);
    return true;
}
