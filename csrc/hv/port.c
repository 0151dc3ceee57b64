/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS 14.4, 14.9: ports and connections, HvPostMessage, HvSignalEvent. The operator may give the machine's partition
 * ports and connections too.
 *
 * A connection knows its port and a port its partition, so a message finds its way without a search through partitions.
 * Posting and signaling hold the structure lock for reading, so they never wait for each other. A message buffer is
 * taken by an atomic exchange and given back, under the lock of the VP in whose queue it was, when its message has been
 * delivered.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

struct post_message_input {
    uint32_t connection_id;
    uint32_t padding;
    uint32_t message_type;
    uint32_t payload_size; /* bytes */
    uint8_t message[HV_MESSAGE_MAX_PAYLOAD_BYTE_COUNT];
};

struct signal_event_input {
    uint32_t connection_id;
    uint16_t flag_number;
    uint16_t reserved;
};

/* -- Tables -- */

static unsigned bucket(uint32_t id)
{
    return id % HV_PORT_BUCKETS;
}

struct hv_port *hv_find_port(struct hv_partition *partition, uint32_t id)
{
    struct hv_port *port = partition->ports[bucket(id)];

    while (port && port->id != id)
        port = port->next;
    return port;
}

struct hv_connection *hv_find_connection(struct hv_partition *partition, uint32_t id)
{
    struct hv_connection *connection = partition->connections[bucket(id)];

    while (connection && connection->id != id)
        connection = connection->next;
    return connection;
}

/* Messages of a port that still wait in a queue go with it (TLFS 14.2.3); structure lock held for writing. */
static void unlink_buffers(struct hv_port *port)
{
    for (unsigned i = 0; port->buffers && i < HV_PORT_MESSAGE_BUFFERS; i++) {
        struct hv_message_buffer *buffer = &port->buffers[i];

        if (!atomic_load_explicit(&buffer->in_use, memory_order_acquire))
            continue;
        /* Nobody posts now, so the buffer is in that VP's queue, or has left it by the time its lock is taken. */
        hv_vp_lock_take(&buffer->vp->lock);
        if (atomic_load(&buffer->in_use))
            hv_message_unlink(buffer);
        hv_vp_lock_drop(&buffer->vp->lock);
    }
}

/* -- Ports -- */

hv_status hv_port_check(const struct hv_partition *partition, const struct hv_port_info *info)
{
    if (info->type != HV_PORT_TYPE_MESSAGE && info->type != HV_PORT_TYPE_EVENT)
        return HV_STATUS_INVALID_PARAMETER;
    if (info->sint < 1 || info->sint >= HV_SYNIC_SINT_COUNT)
        return HV_STATUS_INVALID_PARAMETER;
    /* The table says "greater than or equal", which would forbid the last flag and the count of 2048 that the text
     * allows. */
    if (info->type == HV_PORT_TYPE_EVENT &&
        (info->flag_count == 0 || info->base_flag + info->flag_count > HV_EVENT_FLAGS_COUNT))
        return HV_STATUS_INVALID_PARAMETER;
    if (info->vp != HV_ANY_VP && !hv_partition_vp(partition, info->vp))
        return HV_STATUS_INVALID_VP_INDEX;
    return HV_STATUS_SUCCESS;
}

static bool is_operators(const struct hv_port *port)
{
    return port->connecting == HV_PARTITION_ID_INVALID;
}

static uint64_t port_cost(enum hv_port_type type)
{
    return type == HV_PORT_TYPE_MESSAGE ? HV_COST_MessagePort : HV_COST_Port;
}

static hv_status allocate_port(struct hv_partition *partition, const struct hv_port_info *info, struct hv_port **out)
{
    struct hv_port *port = calloc(1, sizeof(*port));

    if (!port)
        return HV_STATUS_INSUFFICIENT_MEMORY;
    port->partition = partition;
    port->info = *info;
    atomic_store(&port->preferred_vp, HV_ANY_VP);
    if (info->type == HV_PORT_TYPE_MESSAGE) {
        port->buffers = calloc(HV_PORT_MESSAGE_BUFFERS, sizeof(*port->buffers));
        if (!port->buffers) {
            free(port);
            return HV_STATUS_INSUFFICIENT_MEMORY;
        }
    } else if (info->type == HV_PORT_TYPE_MONITOR) {
        port->monitor = hv_monitor_create(partition->hv);
        if (!port->monitor) {
            free(port);
            return HV_STATUS_NO_RESOURCES;
        }
    }
    *out = port;
    return HV_STATUS_SUCCESS;
}

hv_status hv_port_insert(struct hv_partition *partition, uint32_t id, hv_partition_id connecting,
                         const struct hv_port_info *info)
{
    bool operators = connecting == HV_PARTITION_ID_INVALID;
    struct hv_port *port;
    hv_status status;

    if (partition->port_count >= HV_MAX_PORTS)
        return HV_STATUS_NO_RESOURCES;
    if (!operators && !hv_pool_charge(partition, port_cost(info->type)))
        return HV_STATUS_INSUFFICIENT_MEMORY;
    status = allocate_port(partition, info, &port);
    if (status != HV_STATUS_SUCCESS) {
        if (!operators)
            hv_pool_release(partition, port_cost(info->type));
        return status;
    }
    port->id = id;
    port->connecting = connecting;
    port->next = partition->ports[bucket(id)];
    partition->ports[bucket(id)] = port;
    partition->port_count++;
    if (port->monitor)
        hv_monitor_set_port(port->monitor, port);
    return HV_STATUS_SUCCESS;
}

/* A connection outlives its port and becomes useless (TLFS 14.4). */
void hv_port_remove(struct hv_port *port)
{
    struct hv_partition *partition = port->partition;
    struct hv_port **link = &partition->ports[bucket(port->id)];

    while (*link != port)
        link = &(*link)->next;
    *link = port->next;
    partition->port_count--;
    if (port->connection)
        port->connection->port = NULL;
    if (port->monitor)
        hv_monitor_set_port(port->monitor, NULL);
    if (!is_operators(port))
        hv_pool_release(partition, port_cost(port->info.type));
    unlink_buffers(port);
    free(port->buffers);
    free(port);
}

/* -- Connections -- */

hv_status hv_connection_insert(struct hv_partition *partition, uint32_t id, struct hv_port *port, bool by_operator,
                               hv_gpa monitor_gpa)
{
    struct hv_connection *connection;

    if (partition->connection_count >= HV_MAX_PORTS)
        return HV_STATUS_NO_RESOURCES;
    if (!by_operator && !hv_pool_charge(partition, HV_COST_Connection))
        return HV_STATUS_INSUFFICIENT_MEMORY;
    connection = calloc(1, sizeof(*connection));
    if (!connection) {
        if (!by_operator)
            hv_pool_release(partition, HV_COST_Connection);
        return HV_STATUS_INSUFFICIENT_MEMORY;
    }
    connection->partition = partition;
    connection->id = id;
    connection->by_operator = by_operator;
    connection->port_id = port->id;
    connection->port = port;
    connection->monitor = port->monitor;
    connection->next = partition->connections[bucket(id)];
    partition->connections[bucket(id)] = connection;
    partition->connection_count++;
    port->connection = connection;
    if (connection->monitor)
        hv_monitor_set_connection(connection->monitor, connection, monitor_gpa);
    return HV_STATUS_SUCCESS;
}

/* Messages that have been posted through it stay (TLFS 14.9.6), and its port may be connected again. */
void hv_connection_remove(struct hv_connection *connection)
{
    struct hv_partition *partition = connection->partition;
    struct hv_connection **link = &partition->connections[bucket(connection->id)];

    while (*link != connection)
        link = &(*link)->next;
    *link = connection->next;
    partition->connection_count--;
    if (connection->port)
        connection->port->connection = NULL;
    if (connection->monitor)
        hv_monitor_set_connection(connection->monitor, NULL, 0);
    if (!connection->by_operator)
        hv_pool_release(partition, HV_COST_Connection);
    free(connection);
}

/* -- All of a partition -- */

void hv_ports_free(struct hv_partition *partition)
{
    for (unsigned i = 0; i < HV_PORT_BUCKETS; i++) {
        while (partition->ports[i])
            hv_port_remove(partition->ports[i]);
        while (partition->connections[i])
            hv_connection_remove(partition->connections[i]);
    }
}

static void reset_bucket(struct hv_partition *partition, unsigned i)
{
    struct hv_connection *connection, *next_connection;
    struct hv_port *port, *next_port;

    for (port = partition->ports[i]; port; port = next_port) {
        next_port = port->next;
        if (is_operators(port))
            unlink_buffers(port);
        else
            hv_port_remove(port);
    }
    for (connection = partition->connections[i]; connection; connection = next_connection) {
        next_connection = connection->next;
        if (!connection->by_operator)
            hv_connection_remove(connection);
    }
}

void hv_ports_reset(struct hv_partition *partition)
{
    hv_structure_lock_write(&partition->hv->structure);
    for (unsigned i = 0; i < HV_PORT_BUCKETS; i++)
        reset_bucket(partition, i);
    hv_structure_lock_drop(&partition->hv->structure);
}

/* -- Creation and deletion by the operator; the rules of TLFS 14.9.1 to 14.9.6 that need no second partition -- */

hv_status hv_operator_create_port(struct hv_partition *partition, uint32_t port_id, const struct hv_port_info *info)
{
    hv_status status;

    if (port_id & ~HV_PORT_ID_MASK)
        return HV_STATUS_INVALID_PORT_ID;
    hv_structure_lock_write(&partition->hv->structure);
    status = hv_port_check(partition, info);
    if (status == HV_STATUS_SUCCESS && hv_find_port(partition, port_id))
        status = HV_STATUS_INVALID_PORT_ID;
    if (status == HV_STATUS_SUCCESS)
        status = hv_port_insert(partition, port_id, HV_PARTITION_ID_INVALID, info);
    hv_structure_lock_drop(&partition->hv->structure);
    return status;
}

hv_status hv_operator_delete_port(struct hv_partition *partition, uint32_t port_id)
{
    struct hv_port *port;

    hv_structure_lock_write(&partition->hv->structure);
    port = hv_find_port(partition, port_id);
    if (port)
        hv_port_remove(port);
    hv_structure_lock_drop(&partition->hv->structure);
    return port ? HV_STATUS_SUCCESS : HV_STATUS_INVALID_PORT_ID;
}

static hv_status connect_operators(struct hv_partition *partition, uint32_t id, uint32_t port_id)
{
    struct hv_port *port;

    if (hv_find_connection(partition, id))
        return HV_STATUS_INVALID_CONNECTION_ID;
    port = hv_find_port(partition, port_id);
    if (!port || !is_operators(port) || port->connection)
        return HV_STATUS_INVALID_PORT_ID;
    return hv_connection_insert(partition, id, port, true, 0);
}

hv_status hv_operator_connect_port(struct hv_partition *partition, uint32_t connection_id, uint32_t port_id)
{
    hv_status status;

    if (connection_id & ~HV_PORT_ID_MASK)
        return HV_STATUS_INVALID_CONNECTION_ID;
    hv_structure_lock_write(&partition->hv->structure);
    status = connect_operators(partition, connection_id, port_id);
    hv_structure_lock_drop(&partition->hv->structure);
    return status;
}

hv_status hv_operator_disconnect_port(struct hv_partition *partition, uint32_t connection_id)
{
    struct hv_connection *connection;

    hv_structure_lock_write(&partition->hv->structure);
    connection = hv_find_connection(partition, connection_id);
    if (connection)
        hv_connection_remove(connection);
    hv_structure_lock_drop(&partition->hv->structure);
    return connection ? HV_STATUS_SUCCESS : HV_STATUS_INVALID_CONNECTION_ID;
}

/* -- Posting and signaling; the structure lock is held for reading -- */

enum what { MESSAGES, EVENTS };

/* Whether a VP may be chosen (TLFS 14.2.4, 14.3.1). */
static bool accepts(struct hv_vp *vp, enum what what)
{
    return what == MESSAGES ? hv_synic_accepts_messages(vp) : hv_synic_accepts_events(vp);
}

/* Whether it is a good choice where there is one: an event for a masked source is an error. */
static bool is_suitable(struct hv_vp *vp, const struct hv_port *port, enum what what)
{
    return vp && accepts(vp, what) && (what == MESSAGES || !hv_sint_masked(vp, port->info.sint));
}

/*
 * The VP for a port that leaves the choice: the preferred one (TLFS 14.8.7), the caller itself, the one at hand on the
 * caller's LP, or the first that can take it.
 */
static hv_status choose_any(const struct hv_port *port, struct hv_vp *caller, enum what what, struct hv_vp **target)
{
    struct hv_partition *partition = port->partition;
    struct hv_vp *vp = hv_partition_vp(partition, atomic_load_explicit(&port->preferred_vp, memory_order_relaxed));

    if (!is_suitable(vp, port, what))
        vp = caller && caller->partition == partition ? caller : NULL;
    if (!is_suitable(vp, port, what) && caller)
        vp = hv_partition_vp(partition, hv_vp_get_lp(caller));
    for (unsigned bank = 0; bank < partition->vp_banks && !is_suitable(vp, port, what); bank++) {
        uint64_t vps = partition->all_vps.bank[bank];

        for (; vps && !is_suitable(vp, port, what); vps &= vps - 1)
            vp = hv_partition_vp(partition, bank * 64 + (unsigned)__builtin_ctzll(vps));
    }
    *target = vp;
    if (is_suitable(vp, port, what))
        return HV_STATUS_SUCCESS;
    return partition->vp_count ? HV_STATUS_INVALID_SYNIC_STATE : HV_STATUS_INVALID_VP_INDEX;
}

static hv_status choose_target(const struct hv_port *port, struct hv_vp *caller, enum what what, struct hv_vp **target)
{
    if (port->info.vp == HV_ANY_VP)
        return choose_any(port, caller, what, target);
    *target = hv_partition_vp(port->partition, port->info.vp);
    if (!*target)
        return HV_STATUS_INVALID_VP_INDEX;
    return is_suitable(*target, port, what) ? HV_STATUS_SUCCESS : HV_STATUS_INVALID_SYNIC_STATE;
}

/* A child's local APIC is the core's, and it cannot go while the lock is held; the others are for the caller to do. */
static void request(struct hv_vp *vp, const struct hv_interrupts *interrupts, struct hv_vp **later,
                    struct hv_interrupts *later_interrupts)
{
    if (hv_vp_is_child(vp)) {
        hv_interrupts_request(vp, interrupts);
        return;
    }
    *later = vp;
    *later_interrupts = *interrupts;
}

static struct hv_message_buffer *take_buffer(struct hv_port *port)
{
    for (unsigned i = 0; i < HV_PORT_MESSAGE_BUFFERS; i++) {
        bool free = false;

        if (atomic_compare_exchange_strong(&port->buffers[i].in_use, &free, true))
            return &port->buffers[i];
    }
    return NULL;
}

static hv_status post(struct hv_port *port, struct hv_vp *caller, uint32_t type, const void *payload, size_t size,
                      struct hv_vp **later, struct hv_interrupts *later_interrupts)
{
    struct hv_interrupts interrupts = {{0}};
    struct hv_message_buffer *buffer;
    struct hv_vp *target;
    hv_status status;

    if (type == 0 || (type & HV_MESSAGE_TYPE_HYPERVISOR_MASK) || size > HV_MESSAGE_MAX_PAYLOAD_BYTE_COUNT)
        return HV_STATUS_INVALID_PARAMETER;
    status = choose_target(port, caller, MESSAGES, &target);
    if (status != HV_STATUS_SUCCESS)
        return status;
    buffer = take_buffer(port);
    if (!buffer)
        return HV_STATUS_INSUFFICIENT_BUFFERS;
    buffer->timer = -1;
    buffer->sint = (uint8_t)port->info.sint;
    buffer->message.header = (struct hv_message_header){
        .message_type = type,
        .payload_size = (uint8_t)size,
        .origination_id = port->id,
    };
    memcpy(buffer->message.payload, payload, size);
    atomic_fetch_add(&port->post_count, 1);
    hv_vp_lock_take(&target->lock);
    hv_message_enqueue(target, buffer, &interrupts);
    hv_vp_lock_drop(&target->lock);
    request(target, &interrupts, later, later_interrupts);
    return HV_STATUS_SUCCESS;
}

static hv_status signal(struct hv_port *port, struct hv_vp *caller, uint16_t flag, struct hv_vp **later,
                        struct hv_interrupts *later_interrupts)
{
    struct hv_interrupts interrupts = {{0}};
    struct hv_vp *target;
    hv_status status;

    if (flag >= port->info.flag_count)
        return HV_STATUS_INVALID_PARAMETER;
    status = choose_target(port, caller, EVENTS, &target);
    if (status != HV_STATUS_SUCCESS)
        return status;
    hv_vp_lock_take(&target->lock);
    hv_event_set(target, port->info.sint, port->info.base_flag + flag, &interrupts);
    hv_vp_lock_drop(&target->lock);
    request(target, &interrupts, later, later_interrupts);
    return HV_STATUS_SUCCESS;
}

/* The port behind a connection, when it is of the right type and its partition active (TLFS 14.9.7, 14.9.8). */
static hv_status connected_port(struct hv_partition *partition, uint32_t connection_id, enum hv_port_type type,
                                struct hv_port **port)
{
    struct hv_connection *connection = hv_find_connection(partition, connection_id);

    if (!connection)
        return HV_STATUS_INVALID_CONNECTION_ID;
    *port = connection->port;
    if (!*port || (*port)->info.type != type || !hv_partition_is_active((*port)->partition))
        return HV_STATUS_INVALID_PORT_ID;
    return HV_STATUS_SUCCESS;
}

static hv_status operators_port(struct hv_partition *partition, uint32_t port_id, enum hv_port_type type,
                                struct hv_port **port)
{
    *port = hv_find_port(partition, port_id);
    return *port && (*port)->info.type == type ? HV_STATUS_SUCCESS : HV_STATUS_INVALID_PORT_ID;
}

static void interrupt_target(struct hv_vp *target, const struct hv_interrupts *interrupts)
{
    if (target)
        hv_interrupts_request(target, interrupts);
}

/* TLFS 14.9.7 */
hv_status hv_call_post_message(struct hv_call *call)
{
    const struct post_message_input *in = call->input;
    struct hv_port *port;
    hv_status status = connected_port(call->vp->partition, in->connection_id, HV_PORT_TYPE_MESSAGE, &port);

    if (status != HV_STATUS_SUCCESS)
        return status;
    return post(port, call->vp, in->message_type, in->message, in->payload_size, &call->interrupted, &call->interrupts);
}

/* TLFS 14.9.8 */
hv_status hv_signal_event(struct hv_partition *sender, struct hv_vp *caller, uint32_t connection_id, uint16_t flag,
                          struct hv_vp **target, struct hv_interrupts *interrupts)
{
    struct hv_port *port;
    hv_status status = connected_port(sender, connection_id, HV_PORT_TYPE_EVENT, &port);

    return status == HV_STATUS_SUCCESS ? signal(port, caller, flag, target, interrupts) : status;
}

hv_status hv_call_signal_event(struct hv_call *call)
{
    const struct signal_event_input *in = call->input;

    return hv_signal_event(call->vp->partition, call->vp, in->connection_id, in->flag_number, &call->interrupted,
                           &call->interrupts);
}

hv_status hv_operator_post_message(struct hv_partition *partition, uint32_t port_id, uint32_t type, const void *payload,
                                   size_t size)
{
    struct hv_interrupts interrupts = {{0}};
    struct hv_vp *target = NULL;
    struct hv_port *port;
    hv_status status;

    hv_structure_lock_read(&partition->hv->structure);
    status = operators_port(partition, port_id, HV_PORT_TYPE_MESSAGE, &port);
    if (status == HV_STATUS_SUCCESS)
        status = post(port, NULL, type, payload, size, &target, &interrupts);
    hv_structure_lock_drop(&partition->hv->structure);
    interrupt_target(target, &interrupts);
    return status;
}

hv_status hv_operator_signal_event(struct hv_partition *partition, uint32_t port_id, uint16_t flag)
{
    struct hv_interrupts interrupts = {{0}};
    struct hv_vp *target = NULL;
    struct hv_port *port;
    hv_status status;

    hv_structure_lock_read(&partition->hv->structure);
    status = operators_port(partition, port_id, HV_PORT_TYPE_EVENT, &port);
    if (status == HV_STATUS_SUCCESS)
        status = signal(port, NULL, flag, &target, &interrupts);
    hv_structure_lock_drop(&partition->hv->structure);
    interrupt_target(target, &interrupts);
    return status;
}

/* -- Lists for the operator -- */

static unsigned queued_buffers(const struct hv_port *port)
{
    unsigned queued = 0;

    for (unsigned i = 0; port->buffers && i < HV_PORT_MESSAGE_BUFFERS; i++)
        queued += atomic_load(&port->buffers[i].in_use);
    return queued;
}

size_t hv_list_ports(struct hv_partition *partition, struct hv_port_state *ports, size_t max)
{
    size_t n = 0;

    hv_structure_lock_read(&partition->hv->structure);
    for (unsigned i = 0; i < HV_PORT_BUCKETS; i++) {
        for (struct hv_port *port = partition->ports[i]; port; port = port->next, n++) {
            if (n >= max)
                continue;
            ports[n] = (struct hv_port_state){
                .port_id = port->id,
                .info = port->info,
                .post_count = atomic_load(&port->post_count),
                .queued = queued_buffers(port),
            };
        }
    }
    hv_structure_lock_drop(&partition->hv->structure);
    return n;
}

size_t hv_list_connections(struct hv_partition *partition, struct hv_connection_state *connections, size_t max)
{
    size_t n = 0;

    hv_structure_lock_read(&partition->hv->structure);
    for (unsigned i = 0; i < HV_PORT_BUCKETS; i++) {
        for (struct hv_connection *c = partition->connections[i]; c; c = c->next, n++) {
            if (n < max)
                connections[n] = (struct hv_connection_state){.connection_id = c->id, .port_id = c->port_id};
        }
    }
    hv_structure_lock_drop(&partition->hv->structure);
    return n;
}
