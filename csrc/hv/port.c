/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS 14.4, 14.9: ports and connections, HvPostMessage, HvSignalEvent. Ports and connections of the machine's
 * partition are the operator's.
 *
 * Readers hold the port lock for reading, so a post or a signal never waits for another. A message buffer is taken by
 * an atomic exchange and given back when its message has been delivered.
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

struct hv_port *hv_find_port(struct hv *hv, uint32_t id)
{
    struct hv_port *port = hv->ports[bucket(id)];

    while (port && port->id != id)
        port = port->next;
    return port;
}

struct hv_connection *hv_find_connection(struct hv *hv, uint32_t id)
{
    struct hv_connection *connection = hv->connections[bucket(id)];

    while (connection && connection->id != id)
        connection = connection->next;
    return connection;
}

/* Messages of a port that still wait in a queue go with it (TLFS 14.2.3); the port lock is held for writing. */
static void unlink_buffers(struct hv_port *port)
{
    for (unsigned i = 0; port->buffers && i < HV_PORT_MESSAGE_BUFFERS; i++) {
        struct hv_message_buffer *buffer = &port->buffers[i];
        struct hv_vp *vp;

        if (!atomic_load(&buffer->in_use))
            continue;
        /* The queue may be emptied meanwhile, so the owner is asked again under its lock. */
        vp = buffer->vp;
        if (!vp)
            continue;
        hv_vp_lock_take(&vp->lock);
        if (buffer->vp == vp)
            hv_message_unlink(buffer);
        hv_vp_lock_drop(&vp->lock);
    }
}

static void free_port(struct hv_port *port)
{
    unlink_buffers(port);
    free(port->buffers);
    free(port);
}

void hv_ports_free(struct hv *hv)
{
    for (unsigned i = 0; i < HV_PORT_BUCKETS; i++) {
        while (hv->ports[i]) {
            struct hv_port *port = hv->ports[i];

            hv->ports[i] = port->next;
            free_port(port);
        }
        while (hv->connections[i]) {
            struct hv_connection *connection = hv->connections[i];

            hv->connections[i] = connection->next;
            free(connection);
        }
    }
    hv->port_count = hv->connection_count = 0;
}

void hv_ports_reset(struct hv *hv)
{
    hv_port_lock_write(&hv->port_lock);
    for (unsigned i = 0; i < HV_PORT_BUCKETS; i++) {
        for (struct hv_port *port = hv->ports[i]; port; port = port->next)
            unlink_buffers(port);
    }
    hv_port_lock_drop(&hv->port_lock);
}

/* -- Creation and deletion by the operator; the rules of TLFS 14.9.1 to 14.9.6 that need no second partition -- */

static hv_status check_port(const struct hv *hv, const struct hv_port_info *info)
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
    if (info->vp != HV_ANY_VP && info->vp >= hv->config.vp_count)
        return HV_STATUS_INVALID_VP_INDEX;
    return HV_STATUS_SUCCESS;
}

static struct hv_port *allocate_port(uint32_t id, const struct hv_port_info *info)
{
    struct hv_port *port = calloc(1, sizeof(*port));

    if (!port)
        return NULL;
    port->id = id;
    port->info = *info;
    if (info->type == HV_PORT_TYPE_MESSAGE) {
        port->buffers = calloc(HV_PORT_MESSAGE_BUFFERS, sizeof(*port->buffers));
        if (!port->buffers) {
            free(port);
            return NULL;
        }
    }
    return port;
}

static hv_status insert_port(struct hv *hv, uint32_t id, const struct hv_port_info *info)
{
    struct hv_port *port;

    if (hv_find_port(hv, id))
        return HV_STATUS_INVALID_PORT_ID;
    if (hv->port_count >= HV_MAX_PORTS)
        return HV_STATUS_NO_RESOURCES;
    port = allocate_port(id, info);
    if (!port)
        return HV_STATUS_INSUFFICIENT_MEMORY;
    port->next = hv->ports[bucket(id)];
    hv->ports[bucket(id)] = port;
    hv->port_count++;
    return HV_STATUS_SUCCESS;
}

hv_status hv_operator_create_port(struct hv *hv, uint32_t port_id, const struct hv_port_info *info)
{
    hv_status status;

    if (port_id & ~HV_PORT_ID_MASK)
        return HV_STATUS_INVALID_PORT_ID;
    status = check_port(hv, info);
    if (status != HV_STATUS_SUCCESS)
        return status;
    hv_port_lock_write(&hv->port_lock);
    status = insert_port(hv, port_id, info);
    hv_port_lock_drop(&hv->port_lock);
    return status;
}

/* A connection outlives its port and becomes useless (TLFS 14.4). */
static void orphan_connections(struct hv *hv, const struct hv_port *port)
{
    for (unsigned i = 0; i < HV_PORT_BUCKETS; i++) {
        for (struct hv_connection *c = hv->connections[i]; c; c = c->next) {
            if (c->port == port)
                c->port = NULL;
        }
    }
}

hv_status hv_operator_delete_port(struct hv *hv, uint32_t port_id)
{
    struct hv_port **link, *port = NULL;

    hv_port_lock_write(&hv->port_lock);
    for (link = &hv->ports[bucket(port_id)]; *link; link = &(*link)->next) {
        if ((*link)->id != port_id)
            continue;
        port = *link;
        *link = port->next;
        hv->port_count--;
        orphan_connections(hv, port);
        free_port(port);
        break;
    }
    hv_port_lock_drop(&hv->port_lock);
    return port ? HV_STATUS_SUCCESS : HV_STATUS_INVALID_PORT_ID;
}

/* Whether a connection already leads to the port (TLFS 14.9.3: there can be only one). */
static bool is_connected(const struct hv *hv, const struct hv_port *port)
{
    for (unsigned i = 0; i < HV_PORT_BUCKETS; i++) {
        for (const struct hv_connection *c = hv->connections[i]; c; c = c->next) {
            if (c->port == port)
                return true;
        }
    }
    return false;
}

static hv_status insert_connection(struct hv *hv, uint32_t id, uint32_t port_id)
{
    struct hv_connection *connection;
    struct hv_port *port;

    if (hv_find_connection(hv, id))
        return HV_STATUS_INVALID_CONNECTION_ID;
    port = hv_find_port(hv, port_id);
    if (!port || is_connected(hv, port))
        return HV_STATUS_INVALID_PORT_ID;
    if (hv->connection_count >= HV_MAX_PORTS)
        return HV_STATUS_NO_RESOURCES;
    connection = calloc(1, sizeof(*connection));
    if (!connection)
        return HV_STATUS_INSUFFICIENT_MEMORY;
    connection->id = id;
    connection->port_id = port_id;
    connection->port = port;
    connection->next = hv->connections[bucket(id)];
    hv->connections[bucket(id)] = connection;
    hv->connection_count++;
    return HV_STATUS_SUCCESS;
}

hv_status hv_operator_connect_port(struct hv *hv, uint32_t connection_id, uint32_t port_id)
{
    hv_status status;

    if (connection_id & ~HV_PORT_ID_MASK)
        return HV_STATUS_INVALID_CONNECTION_ID;
    hv_port_lock_write(&hv->port_lock);
    status = insert_connection(hv, connection_id, port_id);
    hv_port_lock_drop(&hv->port_lock);
    return status;
}

hv_status hv_operator_disconnect_port(struct hv *hv, uint32_t connection_id)
{
    struct hv_connection **link, *connection = NULL;

    hv_port_lock_write(&hv->port_lock);
    for (link = &hv->connections[bucket(connection_id)]; *link; link = &(*link)->next) {
        if ((*link)->id != connection_id)
            continue;
        connection = *link;
        *link = connection->next;
        hv->connection_count--;
        free(connection);
        break;
    }
    hv_port_lock_drop(&hv->port_lock);
    return connection ? HV_STATUS_SUCCESS : HV_STATUS_INVALID_CONNECTION_ID;
}

/* -- Posting and signaling; the port lock is held for reading -- */

typedef bool (*target_test)(struct hv_vp *vp);

/* A VP the hypervisor may choose for a port: the one it names, or the first that can take it, the caller preferred. */
static hv_status choose_target(struct hv *hv, const struct hv_port *port, struct hv_vp *caller, target_test accepts,
                               struct hv_vp **target)
{
    if (port->info.vp != HV_ANY_VP) {
        *target = hv_get_vp(hv, port->info.vp);
        if (!*target)
            return HV_STATUS_INVALID_VP_INDEX;
        return accepts(*target) ? HV_STATUS_SUCCESS : HV_STATUS_INVALID_SYNIC_STATE;
    }
    if (caller && accepts(caller)) {
        *target = caller;
        return HV_STATUS_SUCCESS;
    }
    for (hv_vp_index i = 0; i < hv->config.vp_count; i++) {
        if (accepts(hv->vps[i])) {
            *target = hv->vps[i];
            return HV_STATUS_SUCCESS;
        }
    }
    return HV_STATUS_INVALID_SYNIC_STATE;
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

static hv_status post(struct hv *hv, struct hv_port *port, struct hv_vp *caller, uint32_t type, const void *payload,
                      size_t size, struct hv_vp **target, struct hv_interrupts *interrupts)
{
    struct hv_message_buffer *buffer;
    hv_status status;

    if (type == 0 || (type & HV_MESSAGE_TYPE_HYPERVISOR_MASK) || size > HV_MESSAGE_MAX_PAYLOAD_BYTE_COUNT)
        return HV_STATUS_INVALID_PARAMETER;
    status = choose_target(hv, port, caller, hv_synic_accepts_messages, target);
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
    hv_vp_lock_take(&(*target)->lock);
    hv_message_enqueue(*target, buffer, interrupts);
    hv_vp_lock_drop(&(*target)->lock);
    return HV_STATUS_SUCCESS;
}

static hv_status signal(struct hv *hv, struct hv_port *port, struct hv_vp *caller, uint16_t flag, struct hv_vp **target,
                        struct hv_interrupts *interrupts)
{
    hv_status status;

    if (flag >= port->info.flag_count)
        return HV_STATUS_INVALID_PARAMETER;
    status = choose_target(hv, port, caller, hv_synic_accepts_events, target);
    if (status != HV_STATUS_SUCCESS)
        return status;
    if (hv_sint_masked(*target, port->info.sint))
        return HV_STATUS_INVALID_SYNIC_STATE;
    hv_vp_lock_take(&(*target)->lock);
    hv_event_set(*target, port->info.sint, port->info.base_flag + flag, interrupts);
    hv_vp_lock_drop(&(*target)->lock);
    return HV_STATUS_SUCCESS;
}

/* The port behind a connection, when it is of the right type. */
static hv_status connected_port(struct hv *hv, uint32_t connection_id, enum hv_port_type type, struct hv_port **port)
{
    struct hv_connection *connection = hv_find_connection(hv, connection_id);

    if (!connection)
        return HV_STATUS_INVALID_CONNECTION_ID;
    *port = connection->port;
    return *port && (*port)->info.type == type ? HV_STATUS_SUCCESS : HV_STATUS_INVALID_PORT_ID;
}

static hv_status operators_port(struct hv *hv, uint32_t port_id, enum hv_port_type type, struct hv_port **port)
{
    *port = hv_find_port(hv, port_id);
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
    struct hv *hv = call->vp->hv;
    struct hv_interrupts interrupts = {{0}};
    struct hv_vp *target = NULL;
    struct hv_port *port;
    hv_status status;

    hv_port_lock_read(&hv->port_lock);
    status = connected_port(hv, in->connection_id, HV_PORT_TYPE_MESSAGE, &port);
    if (status == HV_STATUS_SUCCESS)
        status = post(hv, port, call->vp, in->message_type, in->message, in->payload_size, &target, &interrupts);
    hv_port_lock_drop(&hv->port_lock);
    interrupt_target(target, &interrupts);
    return status;
}

/* TLFS 14.9.8 */
hv_status hv_call_signal_event(struct hv_call *call)
{
    const struct signal_event_input *in = call->input;
    struct hv *hv = call->vp->hv;
    struct hv_interrupts interrupts = {{0}};
    struct hv_vp *target = NULL;
    struct hv_port *port;
    hv_status status;

    hv_port_lock_read(&hv->port_lock);
    status = connected_port(hv, in->connection_id, HV_PORT_TYPE_EVENT, &port);
    if (status == HV_STATUS_SUCCESS)
        status = signal(hv, port, call->vp, in->flag_number, &target, &interrupts);
    hv_port_lock_drop(&hv->port_lock);
    interrupt_target(target, &interrupts);
    return status;
}

hv_status hv_operator_post_message(struct hv *hv, uint32_t port_id, uint32_t type, const void *payload, size_t size)
{
    struct hv_interrupts interrupts = {{0}};
    struct hv_vp *target = NULL;
    struct hv_port *port;
    hv_status status;

    hv_port_lock_read(&hv->port_lock);
    status = operators_port(hv, port_id, HV_PORT_TYPE_MESSAGE, &port);
    if (status == HV_STATUS_SUCCESS)
        status = post(hv, port, NULL, type, payload, size, &target, &interrupts);
    hv_port_lock_drop(&hv->port_lock);
    interrupt_target(target, &interrupts);
    return status;
}

hv_status hv_operator_signal_event(struct hv *hv, uint32_t port_id, uint16_t flag)
{
    struct hv_interrupts interrupts = {{0}};
    struct hv_vp *target = NULL;
    struct hv_port *port;
    hv_status status;

    hv_port_lock_read(&hv->port_lock);
    status = operators_port(hv, port_id, HV_PORT_TYPE_EVENT, &port);
    if (status == HV_STATUS_SUCCESS)
        status = signal(hv, port, NULL, flag, &target, &interrupts);
    hv_port_lock_drop(&hv->port_lock);
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

size_t hv_list_ports(struct hv *hv, struct hv_port_state *ports, size_t max)
{
    size_t n = 0;

    hv_port_lock_read(&hv->port_lock);
    for (unsigned i = 0; i < HV_PORT_BUCKETS; i++) {
        for (struct hv_port *port = hv->ports[i]; port; port = port->next, n++) {
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
    hv_port_lock_drop(&hv->port_lock);
    return n;
}

size_t hv_list_connections(struct hv *hv, struct hv_connection_state *connections, size_t max)
{
    size_t n = 0;

    hv_port_lock_read(&hv->port_lock);
    for (unsigned i = 0; i < HV_PORT_BUCKETS; i++) {
        for (struct hv_connection *c = hv->connections[i]; c; c = c->next, n++) {
            if (n < max)
                connections[n] = (struct hv_connection_state){.connection_id = c->id, .port_id = c->port_id};
        }
    }
    hv_port_lock_drop(&hv->port_lock);
    return n;
}
