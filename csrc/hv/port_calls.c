/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS 14.9.1 to 14.9.6: ports and connections between partitions, by the calls of partitions.
 *
 * Order of checks: privilege, partition IDs, states, then the port's or connection's ID, then what describes it. The
 * operator's ports and connections (port.c) are there for their partition to use, not to delete or connect.
 */
#include "internal.h"

#include <string.h>

/* TLFS 14.8.6 */
struct port_info {
    uint32_t type;
    uint32_t reserved;
    union {
        struct {
            uint32_t sint;
            hv_vp_index vp;
            uint64_t reserved;
        } message;
        struct {
            uint32_t sint;
            hv_vp_index vp;
            uint16_t base_flag, flag_count;
            uint32_t reserved;
        } event;
        struct {
            hv_gpa address;
            uint64_t reserved;
        } monitor;
    };
};
_Static_assert(sizeof(struct port_info) == 24, "TLFS 14.8.6");

/* The later call has the same fields, then where to allocate; virtual trust levels are in the padding. */
struct create_port_input {
    hv_partition_id port_partition;
    uint32_t port_id;
    uint8_t port_vtl, connection_vtl;
    uint8_t padding[2];
    hv_partition_id connection_partition;
    struct port_info info;
    uint64_t proximity; /* current */
};
_Static_assert(offsetof(struct create_port_input, proximity) == 48, "TLFS 14.9.1");

struct connect_port_input {
    hv_partition_id connection_partition;
    uint32_t connection_id;
    uint8_t connection_vtl;
    uint8_t padding[3];
    hv_partition_id port_partition;
    uint32_t port_id;
    uint32_t padding2;
    union {
        uint64_t info_2008r2; /* the end of HV_CONNECTION_INFO alone, as the call's figure has it */
        struct {
            uint32_t type;
            uint32_t reserved;
            uint64_t info;
            uint64_t rest[2];
            uint64_t proximity;
        } current;
    };
};
_Static_assert(sizeof(struct connect_port_input) == 72, "later");

struct port_input {
    hv_partition_id partition;
    uint32_t id;
    uint32_t flags;
};
#define DISCONNECT_DOORBELL 1u /* later than 2.0a */

struct property_input {
    hv_partition_id partition;
    uint32_t port_id;
    uint32_t padding;
    uint32_t code;
    uint32_t padding2;
    uint64_t value; /* HvSetPortProperty */
};

enum { PROPERTY_POST_COUNT = 0, PROPERTY_PREFERRED_TARGET_VP = 1 }; /* TLFS 14.8.7 */

static bool is_current(const struct hv_call *call)
{
    return call->vp->hv->config.generation == HV_GEN_CURRENT;
}

/* The other partition of a call that names two. */
static struct hv_partition *other_partition(const struct hv_call *call, hv_partition_id id)
{
    return id == HV_PARTITION_ID_SELF ? call->vp->partition : hv_find_partition(call->vp->hv, id);
}

static bool is_operators(const struct hv_port *port)
{
    return port->connecting == HV_PARTITION_ID_INVALID;
}

/* -- HvCreatePort (TLFS 14.9.1) -- */

/* Monitor pages are a parent's to arrange (TLFS 14.5.4): of two children, or of itself and a child. */
static bool may_create_monitor(const struct hv_call *call, const struct hv_partition *connecting)
{
    return call->partition->parent == call->vp->partition || connecting->parent == call->vp->partition;
}

static hv_status check_monitor_gpa(const struct hv *hv, hv_gpa gpa)
{
    if (gpa & ~HV_PAGE_MASK)
        return HV_STATUS_INVALID_ALIGNMENT;
    return gpa < hv->gpa_limit ? HV_STATUS_SUCCESS : HV_STATUS_INVALID_PARAMETER;
}

static hv_status read_monitor_info(const struct hv_call *call, const struct port_info *in, struct hv_port_info *info)
{
    if (in->reserved || in->monitor.reserved)
        return HV_STATUS_INVALID_PARAMETER;
    info->monitor_gpa = in->monitor.address;
    return check_monitor_gpa(call->vp->hv, info->monitor_gpa);
}

static hv_status read_port_info(const struct hv_call *call, const struct port_info *in, struct hv_port_info *info)
{
    memset(info, 0, sizeof(*info));
    info->type = (enum hv_port_type)in->type;
    if (in->type == HV_PORT_TYPE_MONITOR)
        return read_monitor_info(call, in, info);
    info->sint = in->message.sint;
    info->vp = in->message.vp;
    if (in->type == HV_PORT_TYPE_EVENT) {
        info->base_flag = in->event.base_flag;
        info->flag_count = in->event.flag_count;
    }
    if (in->reserved || (in->type == HV_PORT_TYPE_EVENT ? in->event.reserved : in->message.reserved))
        return HV_STATUS_INVALID_PARAMETER;
    return hv_port_check(call->partition, info);
}

static hv_status check_new_port(const struct hv_call *call, const struct create_port_input *in,
                                struct hv_partition *connecting)
{
    if (!connecting || connecting == call->partition)
        return HV_STATUS_INVALID_PARTITION_ID;
    if (in->info.type == HV_PORT_TYPE_MONITOR && !may_create_monitor(call, connecting))
        return HV_STATUS_ACCESS_DENIED;
    if (!hv_partition_is_active(call->partition) || !hv_partition_is_active(connecting))
        return HV_STATUS_INVALID_PARTITION_STATE;
    if ((in->port_id & ~HV_PORT_ID_MASK) || hv_find_port(call->partition, in->port_id))
        return HV_STATUS_INVALID_PORT_ID;
    /* There are no trust levels but the first. */
    if (is_current(call) && (in->port_vtl || in->connection_vtl))
        return HV_STATUS_INVALID_PARAMETER;
    return HV_STATUS_SUCCESS;
}

hv_status hv_call_create_port(struct hv_call *call)
{
    const struct create_port_input *in = call->input;
    struct hv_partition *connecting = other_partition(call, in->connection_partition);
    hv_status status = check_new_port(call, in, connecting);
    struct hv_port_info info;

    if (status == HV_STATUS_SUCCESS)
        status = read_port_info(call, &in->info, &info);
    if (status == HV_STATUS_SUCCESS)
        status = hv_port_insert(call->partition, in->port_id, connecting->id, &info);
    return status;
}

/* -- HvDeletePort (TLFS 14.9.2) -- */

/* Also to delete a monitor page takes a parent of one of the two. */
static bool may_delete_port(const struct hv_call *call, const struct hv_port *port)
{
    const struct hv_partition *connecting;

    if (!port->monitor || port->partition->parent == call->vp->partition)
        return true;
    connecting = hv_find_partition(call->vp->hv, port->connecting);
    return !connecting || connecting->parent == call->vp->partition;
}

hv_status hv_call_delete_port(struct hv_call *call)
{
    const struct port_input *in = call->input;
    struct hv_port *port;

    if (!hv_partition_is_active(call->partition))
        return HV_STATUS_INVALID_PARTITION_STATE;
    port = hv_find_port(call->partition, in->id);
    if (!port || is_operators(port))
        return HV_STATUS_INVALID_PORT_ID;
    if (!may_delete_port(call, port))
        return HV_STATUS_ACCESS_DENIED;
    hv_port_remove(port);
    return HV_STATUS_SUCCESS;
}

/* -- HvConnectPort (TLFS 14.9.3) -- */

/* The port, when it is there to be connected by that partition; one that is for another is not there. */
static struct hv_port *connectable_port(const struct hv_call *call, struct hv_partition *partition, uint32_t id)
{
    struct hv_port *port = hv_find_port(partition, id);

    return port && port->connecting == call->partition->id && !port->connection ? port : NULL;
}

static hv_status check_connection_info(const struct hv_call *call, const struct connect_port_input *in,
                                       const struct hv_port *port, hv_gpa *monitor_gpa)
{
    uint64_t info = is_current(call) ? in->current.info : in->info_2008r2;

    if (is_current(call) && (in->current.type != port->info.type || in->current.reserved || in->connection_vtl))
        return HV_STATUS_INVALID_PARAMETER;
    if (!port->monitor)
        return info ? HV_STATUS_INVALID_PARAMETER : HV_STATUS_SUCCESS;
    *monitor_gpa = info;
    return check_monitor_gpa(call->vp->hv, info);
}

hv_status hv_call_connect_port(struct hv_call *call)
{
    const struct connect_port_input *in = call->input;
    struct hv_partition *receiver = other_partition(call, in->port_partition);
    hv_gpa monitor_gpa = 0;
    struct hv_port *port;
    hv_status status;

    if (!receiver)
        return HV_STATUS_INVALID_PARTITION_ID;
    if (!hv_partition_is_active(call->partition) || !hv_partition_is_active(receiver))
        return HV_STATUS_INVALID_PARTITION_STATE;
    if ((in->connection_id & ~HV_PORT_ID_MASK) || hv_find_connection(call->partition, in->connection_id))
        return HV_STATUS_INVALID_CONNECTION_ID;
    port = connectable_port(call, receiver, in->port_id);
    if (!port)
        return HV_STATUS_INVALID_PORT_ID;
    if (port->monitor && call->partition->parent != call->vp->partition)
        return HV_STATUS_ACCESS_DENIED; /* TLFS 14.5.4 */
    status = check_connection_info(call, in, port, &monitor_gpa);
    if (status != HV_STATUS_SUCCESS)
        return status;
    return hv_connection_insert(call->partition, in->connection_id, port, false, monitor_gpa);
}

/* -- HvDisconnectPort (TLFS 14.9.6) -- */

hv_status hv_call_disconnect_port(struct hv_call *call)
{
    const struct port_input *in = call->input;
    struct hv_connection *connection;

    if (!hv_partition_is_active(call->partition))
        return HV_STATUS_INVALID_PARTITION_STATE;
    connection = hv_find_connection(call->partition, in->id);
    /* Doorbells, which are later than 2.0a, are connections of their own, and there are none. */
    if (!connection || connection->by_operator || (is_current(call) && (in->flags & DISCONNECT_DOORBELL)))
        return HV_STATUS_INVALID_CONNECTION_ID;
    if (connection->monitor && call->partition->parent != call->vp->partition)
        return HV_STATUS_ACCESS_DENIED;
    hv_connection_remove(connection);
    return HV_STATUS_SUCCESS;
}

/* -- Port properties (TLFS 14.8.7, 14.9.4, 14.9.5) -- */

static hv_status find_port_of(const struct hv_call *call, struct hv_port **port)
{
    const struct property_input *in = call->input;

    if (!hv_partition_is_active(call->partition))
        return HV_STATUS_INVALID_PARTITION_STATE;
    *port = hv_find_port(call->partition, in->port_id);
    return *port ? HV_STATUS_SUCCESS : HV_STATUS_INVALID_PORT_ID;
}

static bool has_target(const struct hv_port *port)
{
    return port->info.type != HV_PORT_TYPE_MONITOR;
}

/* Of a port with a fixed target that is the preferred one. */
static uint64_t preferred_vp(const struct hv_port *port)
{
    return port->info.vp == HV_ANY_VP ? atomic_load(&port->preferred_vp) : port->info.vp;
}

hv_status hv_call_get_port_property(struct hv_call *call)
{
    const struct property_input *in = call->input;
    struct hv_port *port;
    hv_status status = find_port_of(call, &port);
    uint64_t value;

    if (status != HV_STATUS_SUCCESS)
        return status;
    if (in->code == PROPERTY_POST_COUNT)
        value = atomic_load(&port->post_count);
    else if (in->code == PROPERTY_PREFERRED_TARGET_VP && has_target(port))
        value = preferred_vp(port);
    else
        return HV_STATUS_UNKNOWN_PROPERTY;
    memcpy(call->output, &value, sizeof(value));
    return HV_STATUS_SUCCESS;
}

/*
 * The count of posted messages is not a property that can be set. A preference is for ports without a fixed target; it
 * may be taken back. The text has no status for a VP that does not exist: it is the one HvCreatePort has.
 */
hv_status hv_call_set_port_property(struct hv_call *call)
{
    const struct property_input *in = call->input;
    struct hv_port *port;
    hv_status status = find_port_of(call, &port);

    if (status != HV_STATUS_SUCCESS)
        return status;
    if (in->code != PROPERTY_PREFERRED_TARGET_VP || !has_target(port))
        return HV_STATUS_UNKNOWN_PROPERTY;
    if (port->info.vp != HV_ANY_VP)
        return HV_STATUS_INVALID_PARAMETER;
    if (in->value != HV_ANY_VP && (in->value > UINT32_MAX || !hv_partition_vp(call->partition, (hv_vp_index)in->value)))
        return HV_STATUS_INVALID_VP_INDEX;
    atomic_store(&port->preferred_vp, (hv_vp_index)in->value);
    memcpy(call->output, &in->value, sizeof(in->value));
    return HV_STATUS_SUCCESS;
}
