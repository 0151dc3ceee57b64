/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Ports and connections in the stream of state: first the ports of all partitions, then the connections, which name
 * their port's partition.
 */
#include "stream.h"

#define NO_PORT UINT64_MAX /* in place of the partition of a connection's port: the port was deleted */

struct port_record {
    uint64_t connecting, post_count, monitor_gpa;
    uint32_t id, type, sint, vp, flags, preferred_vp;
};

static void port_record(struct hv_stream *s, struct port_record *record)
{
    hv_stream_u64(s, &record->connecting);
    hv_stream_u64(s, &record->post_count);
    hv_stream_u64(s, &record->monitor_gpa);
    hv_stream_u32(s, &record->id);
    hv_stream_u32(s, &record->type);
    hv_stream_u32(s, &record->sint);
    hv_stream_u32(s, &record->vp);
    hv_stream_u32(s, &record->flags);
    hv_stream_u32(s, &record->preferred_vp);
}

static void monitor_page(struct hv_stream *s, struct hv_port *port)
{
    if (port->monitor)
        hv_stream_bytes(s, hv_monitor_page(port->monitor), HV_PAGE_SIZE);
}

static void read_port(struct hv_stream *s, struct hv_partition *partition)
{
    struct port_record record = {0};
    struct hv_port_info info;
    struct hv_port *port;

    port_record(s, &record);
    if (s->error)
        return;
    info = (struct hv_port_info){
        .type = (enum hv_port_type)record.type,
        .sint = record.sint,
        .vp = record.vp,
        .base_flag = (uint16_t)(record.flags >> 16),
        .flag_count = (uint16_t)record.flags,
        .monitor_gpa = record.monitor_gpa,
    };
    if (info.monitor_gpa >= partition->hv->gpa_limit || (record.id & ~HV_PORT_ID_MASK) ||
        hv_find_port(partition, record.id) ||
        (record.type != HV_PORT_TYPE_MONITOR && hv_port_check(partition, &info) != HV_STATUS_SUCCESS) ||
        hv_port_insert(partition, record.id, record.connecting, &info) != HV_STATUS_SUCCESS) {
        hv_stream_fail(s, "the saved hypervisor state has an impossible port");
        return;
    }
    port = hv_find_port(partition, record.id);
    atomic_store(&port->post_count, record.post_count);
    atomic_store(&port->preferred_vp, record.preferred_vp);
    monitor_page(s, port);
}

static void write_port(struct hv_stream *s, struct hv_port *port)
{
    struct port_record record = {
        .connecting = port->connecting,
        .post_count = atomic_load(&port->post_count),
        .id = port->id,
        .type = port->info.type,
        .sint = port->info.sint,
        .vp = port->info.vp,
        .flags = (uint32_t)port->info.base_flag << 16 | port->info.flag_count,
        .preferred_vp = atomic_load(&port->preferred_vp),
        .monitor_gpa = port->info.monitor_gpa,
    };

    port_record(s, &record);
    monitor_page(s, port);
}

void hv_state_ports_of(struct hv_stream *s, struct hv_partition *partition)
{
    uint32_t count = hv_stream_count(s, (uint32_t)partition->port_count, HV_MAX_PORTS);

    if (hv_stream_reading(s)) {
        for (uint32_t i = 0; i < count && !s->error; i++)
            read_port(s, partition);
        return;
    }
    for (unsigned i = 0; i < HV_PORT_BUCKETS; i++) {
        for (struct hv_port *port = partition->ports[i]; port; port = port->next)
            write_port(s, port);
    }
}

struct connection_record {
    uint64_t partition, monitor_gpa;
    uint32_t id, port_id;
    bool by_operator;
};

static void connection_record(struct hv_stream *s, struct connection_record *record)
{
    hv_stream_u64(s, &record->partition);
    hv_stream_u64(s, &record->monitor_gpa);
    hv_stream_u32(s, &record->id);
    hv_stream_u32(s, &record->port_id);
    hv_stream_flag(s, &record->by_operator);
}

/* A connection that has outlived its port: connect it to one that goes at once. */
static bool insert_orphan(struct hv_partition *partition, const struct connection_record *record)
{
    struct hv_port_info info = {.type = HV_PORT_TYPE_EVENT, .sint = 1, .vp = HV_ANY_VP, .flag_count = 1};
    uint32_t free_id = 0;
    struct hv_port *port;
    bool inserted;

    while (hv_find_port(partition, free_id))
        free_id++;
    if (hv_port_insert(partition, free_id, HV_PARTITION_ID_INVALID, &info) != HV_STATUS_SUCCESS)
        return false;
    port = hv_find_port(partition, free_id);
    inserted = hv_connection_insert(partition, record->id, port, record->by_operator, 0) == HV_STATUS_SUCCESS;
    hv_port_remove(port);
    if (inserted)
        hv_find_connection(partition, record->id)->port_id = record->port_id;
    return inserted;
}

/* `alone`: the port's partition may have gone another way meanwhile. */
static bool insert_connection(struct hv_partition *partition, const struct connection_record *record, bool alone)
{
    struct hv_partition *receiver;
    struct hv_port *port;

    if ((record->id & ~HV_PORT_ID_MASK) || record->monitor_gpa >= partition->hv->gpa_limit ||
        hv_find_connection(partition, record->id))
        return false;
    if (record->partition == NO_PORT)
        return insert_orphan(partition, record);
    receiver = hv_find_partition(partition->hv, record->partition);
    port = receiver ? hv_find_port(receiver, record->port_id) : NULL;
    if (alone && (!port || port->connection))
        return insert_orphan(partition, record);
    return port && !port->connection &&
           hv_connection_insert(partition, record->id, port, record->by_operator, record->monitor_gpa) ==
               HV_STATUS_SUCCESS;
}

static void write_connection(struct hv_stream *s, struct hv_connection *connection)
{
    struct connection_record record = {
        .partition = connection->port ? connection->port->partition->id : NO_PORT,
        .monitor_gpa = connection->monitor ? hv_monitor_connection_gpa(connection->monitor) : 0,
        .id = connection->id,
        .port_id = connection->port_id,
        .by_operator = connection->by_operator,
    };

    connection_record(s, &record);
}

void hv_state_connections_of(struct hv_stream *s, struct hv_partition *partition)
{
    uint32_t count = hv_stream_count(s, (uint32_t)partition->connection_count, HV_MAX_PORTS);

    for (uint32_t i = 0; hv_stream_reading(s) && i < count && !s->error; i++) {
        struct connection_record record = {0};

        connection_record(s, &record);
        if (!s->error && !insert_connection(partition, &record, s->alone))
            hv_stream_fail(s, "the saved hypervisor state has an impossible connection");
    }
    for (unsigned i = 0; !hv_stream_reading(s) && i < HV_PORT_BUCKETS; i++) {
        for (struct hv_connection *c = partition->connections[i]; c; c = c->next)
            write_connection(s, c);
    }
}

void hv_state_ports(struct hv_stream *s, struct hv *hv)
{
    if (hv_stream_reading(s))
        hv_ports_free(hv->machine_partition); /* those of the operator, which hv_reset() leaves */
    for (struct hv_partition *p = hv->machine_partition; p && !s->error; p = hv_next_partition(p))
        hv_state_ports_of(s, p);
    for (struct hv_partition *p = hv->machine_partition; p && !s->error; p = hv_next_partition(p))
        hv_state_connections_of(s, p);
}
