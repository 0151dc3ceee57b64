/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP: the core's state as the types of QEMU's schema, the operator's ports, and what the hypervisor reports.
 *
 * Commands run in QEMU's main loop; the core's functions used here may be called by any thread, at any time.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-events-microsoft-hypervisor-target.h"
#include "qapi/qapi-types-microsoft-hypervisor-target.h"
#include "qapi/util.h"
#include "target/i386/hypervisor-qmp.h"
#include "trace/control.h"

#include "qmp.h"
#include "qmp_events.h"
#include "qmp_partitions.h"
#include "qmp_stats.h"
#include "qmp_save.h"
#include "trace.h"

#define PAGE_ENABLE UINT64_C(1) /* of the registers that place overlay pages (TLFS 4.12, 15.4.1, ...) */
#define MESSAGE_TYPE_LIMIT HV_MESSAGE_TYPE_HYPERVISOR_MASK /* types from here on are the hypervisor's (TLFS 14.8.2) */

static bool tracing;

/* -- Names of bits -- */

struct bit_name {
    unsigned bit;
    const char *name;
};

static const struct bit_name privilege_names[] = {
#define HV_PRIVILEGE_ROW(bit, name, ...) {bit, #name},
#include "tlfs/privileges.def"
#undef HV_PRIVILEGE_ROW
};

static const struct bit_name feature_names[] = {
#define HV_FEATURE_ROW(bit, name, ...) {bit, #name},
#include "tlfs/features.def"
#undef HV_FEATURE_ROW
};

static const struct bit_name recommendation_names[] = {
#define HV_RECOMMENDATION_ROW(bit, name, ...) {bit, #name},
#include "tlfs/recommendations.def"
#undef HV_RECOMMENDATION_ROW
};

static strList *names_of_bits(uint64_t mask, const struct bit_name *names, size_t count)
{
    strList *list = NULL, **tail = &list;

    for (size_t i = 0; i < count; i++) {
        if (mask >> names[i].bit & 1)
            QAPI_LIST_APPEND(tail, g_strdup(names[i].name));
    }
    return list;
}

/* -- The partition -- */

static HvOverlayPage *overlay_page(uint64_t msr)
{
    HvOverlayPage *page = g_new0(HvOverlayPage, 1);

    page->enabled = msr & PAGE_ENABLE;
    page->gpa = msr & HV_PAGE_MASK;
    return page;
}

static const char *open_source_name(unsigned type)
{
    switch (type) {
    case 1:
        return "Linux";
    case 2:
        return "FreeBSD";
    case 3:
        return "Xen";
    case 4:
        return "illumos";
    default:
        return NULL;
    }
}

static char *describe_open_source(const HvGuestOsOpenSource *os)
{
    const char *name = open_source_name(os->type);
    uint32_t v = os->version;

    if (os->type == 1)
        return g_strdup_printf("Linux %u.%u.%u", v >> 16, v >> 8 & 0xFF, v & 0xFF);
    if (name)
        return g_strdup_printf("%s, version %u", name, v);
    return g_strdup_printf("open source system %u, version %u", os->type, v);
}

static char *describe_proprietary(const HvGuestOsProprietary *os)
{
    static const char *const microsoft[] = {"undefined",  "MS-DOS",     "Windows 3.x",
                                            "Windows 9x", "Windows NT", "Windows CE"};

    if (os->vendor == 1 && os->os < ARRAY_SIZE(microsoft))
        return g_strdup_printf("Microsoft %s %u.%u.%u, service version %u", microsoft[os->os], os->major, os->minor,
                               os->build, os->service);
    return g_strdup_printf("system %u of vendor %u, %u.%u.%u, service version %u", os->os, os->vendor, os->major,
                           os->minor, os->build, os->service);
}

/* TLFS 3.6, and the form with bit 63 set that came later. */
static HvGuestOsIdentity *guest_os(uint64_t value)
{
    HvGuestOsIdentity *id = g_new0(HvGuestOsIdentity, 1);

    id->value = value;
    if (value == 0) {
        id->encoding = QAPI_HV_GUEST_OS_ENCODING_NONE;
        id->description = g_strdup("not identified");
    } else if (value >> 63) {
        id->encoding = QAPI_HV_GUEST_OS_ENCODING_OPEN_SOURCE;
        id->u.open_source = (HvGuestOsOpenSource){
            .type = value >> 56 & 0x7F,
            .os = value >> 48 & 0xFF,
            .version = (uint32_t)(value >> 16),
            .build = (uint16_t)value,
        };
        id->description = describe_open_source(&id->u.open_source);
    } else {
        id->encoding = QAPI_HV_GUEST_OS_ENCODING_PROPRIETARY;
        id->u.proprietary = (HvGuestOsProprietary){
            .vendor = value >> 48,
            .os = value >> 40 & 0xFF,
            .major = value >> 32 & 0xFF,
            .minor = value >> 24 & 0xFF,
            .service = value >> 16 & 0xFF,
            .build = (uint16_t)value,
        };
        id->description = describe_proprietary(&id->u.proprietary);
    }
    return id;
}

static HvReferenceTscPage *reference_tsc_page(const struct hv_partition_state *state)
{
    HvReferenceTscPage *page = g_new0(HvReferenceTscPage, 1);

    page->enabled = state->tsc_page_enabled;
    page->gpa = state->reference_tsc_msr & HV_PAGE_MASK;
    page->sequence = state->tsc_sequence;
    page->scale = state->tsc_scale;
    page->offset = state->tsc_offset;
    return page;
}

static HvCrashState *crash_state(const struct hv_partition_state *state)
{
    HvCrashState *crash = g_new0(HvCrashState, 1);
    uint64List **tail = &crash->parameters;

    crash->control = state->crash_control;
    for (unsigned i = 0; i < ARRAY_SIZE(state->crash_parameters); i++)
        QAPI_LIST_APPEND(tail, state->crash_parameters[i]);
    return crash;
}

static HvPartitionState run_state(enum hv_partition_run_state state)
{
    switch (state) {
    case HV_PARTITION_UNINITIALIZED:
        return QAPI_HV_PARTITION_STATE_UNINITIALIZED;
    case HV_PARTITION_ACTIVE:
        return QAPI_HV_PARTITION_STATE_ACTIVE;
    default:
        return QAPI_HV_PARTITION_STATE_FINALIZED;
    }
}

/* Its place in the tree, and what it has of memory. */
static void describe_place(HvPartitionInfo *info, const struct hv_partition_info *place)
{
    info->id = place->id;
    info->has_parent = place->parent != HV_PARTITION_ID_INVALID;
    info->parent = place->parent;
    info->name = *place->name ? g_strdup(place->name) : NULL;
    info->depth = place->depth;
    info->state = run_state(place->state);
    info->paused = place->paused;
    info->mapped_pages = place->mapped_pages;
    info->has_page_limit = place->page_limit != HV_PAGES_UNLIMITED;
    info->page_limit = place->page_limit;
    info->pool_pages = place->pages_available + place->pages_in_use;
    info->pool_free_pages = place->pages_available;
    info->vp_count = place->vp_count;
}

/* NULL when it has gone meanwhile. */
static HvPartitionInfo *partition_info(struct hv *hv, const struct hv_partition_info *place)
{
    struct hv_partition_state state;
    HvPartitionInfo *info;

    if (!hv_get_partition_state_of(hv, place->id, &state))
        return NULL;
    info = g_new0(HvPartitionInfo, 1);
    describe_place(info, place);
    info->privilege_mask = state.privileges;
    info->privileges = names_of_bits(state.privileges, privilege_names, ARRAY_SIZE(privilege_names));
    info->feature_mask = state.features;
    info->features = names_of_bits(state.features, feature_names, ARRAY_SIZE(feature_names));
    info->recommendation_mask = state.recommendations;
    info->recommendations =
        names_of_bits(state.recommendations, recommendation_names, ARRAY_SIZE(recommendation_names));
    info->guest_os = guest_os(state.guest_os_id);
    info->hypercall_page = overlay_page(state.hypercall_msr);
    info->hypercall_page->enabled = state.hypercall_page_enabled;
    info->reference_tsc_page = reference_tsc_page(&state);
    info->reference_time = state.reference_time;
    info->crash = crash_state(&state);
    return info;
}

static HvInfo *query(Error **errp)
{
    struct hv *hv = microsoft_hypervisor_core();
    const struct hv_config *config = hv_get_config(hv);
    struct hv_partition_info machine;
    HvInfo *info = g_new0(HvInfo, 1);

    info->interface = config->generation == HV_GEN_2008R2 ? MICROSOFT_HYPERVISOR_INTERFACE_2008R2
                                                          : MICROSOFT_HYPERVISOR_INTERFACE_CURRENT;
    info->version = g_new(HvVersion, 1);
    *info->version = (HvVersion){
        .major = config->major_version,
        .minor = config->minor_version,
        .build = config->build_number,
        .service_pack = config->service_pack,
        .service_branch = config->service_branch,
        .service_number = config->service_number,
    };
    info->spinlock_retries = config->spinlock_retries;
    info->tsc_frequency = config->tsc_frequency;
    info->apic_frequency = config->apic_frequency;
    info->trace_hypercalls = tracing;
    hv_list_partitions(hv, &machine, 1); /* it is the first one */
    info->partition = partition_info(hv, &machine);
    return info;
}

static HvPartitionInfoList *query_partitions(Error **errp)
{
    struct hv *hv = microsoft_hypervisor_core();
    size_t room = hv_list_partitions(hv, NULL, 0), count;
    g_autofree struct hv_partition_info *places = g_new0(struct hv_partition_info, room);
    HvPartitionInfoList *list = NULL, **tail = &list;

    count = hv_list_partitions(hv, places, room);
    for (size_t i = 0; i < MIN(count, room); i++) {
        HvPartitionInfo *info = partition_info(hv, &places[i]);

        if (info)
            QAPI_LIST_APPEND(tail, info);
    }
    return list;
}

/* -- Virtual processors -- */

/* TLFS 14.6.5; polling came later */
static HvSintState *sint_state(const struct hv_vp_state *state, unsigned index)
{
    HvSintState *sint = g_new0(HvSintState, 1);
    uint64_t value = state->sint[index];

    sint->index = index;
    sint->value = value;
    sint->vector = value & 0xFF;
    sint->masked = value >> 16 & 1;
    sint->auto_eoi = value >> 17 & 1;
    sint->polling = value >> 18 & 1;
    sint->queued = state->queued[index];
    return sint;
}

static HvSynicState *synic_state(const struct hv_vp_state *state)
{
    HvSynicState *synic = g_new0(HvSynicState, 1);
    HvSintStateList **tail = &synic->sints;

    synic->enabled = state->scontrol & 1;
    synic->message_page = overlay_page(state->simp);
    synic->event_flags_page = overlay_page(state->siefp);
    for (unsigned i = 0; i < HV_SYNIC_SINT_COUNT; i++)
        QAPI_LIST_APPEND(tail, sint_state(state, i));
    return synic;
}

/* TLFS 15.3.1; direct mode came later */
static HvSyntheticTimerState *timer_state(const struct hv_timer_state *timer, unsigned index)
{
    HvSyntheticTimerState *info = g_new0(HvSyntheticTimerState, 1);
    uint64_t config = timer->config;

    info->index = index;
    info->config = config;
    info->count = timer->count;
    info->enabled = config & 1;
    info->periodic = config >> 1 & 1;
    info->lazy = config >> 2 & 1;
    info->auto_enable = config >> 3 & 1;
    info->vector = config >> 4 & 0xFF;
    info->direct_mode = config >> 12 & 1;
    info->sint = config >> 16 & 0xF;
    info->has_due = timer->due != HV_NANO100_NEVER;
    info->due = info->has_due ? timer->due : 0;
    info->message_pending = timer->message_pending;
    info->expirations = timer->expirations;
    return info;
}

static HvHypercallCountList *hypercall_counts(const struct hv_vp_state *state)
{
    HvHypercallCountList *list = NULL, **tail = &list;

    for (unsigned i = 0; i < HV_HYPERCALL_ROWS; i++) {
        HvHypercallCount *count;

        if (!state->hypercalls[i])
            continue;
        count = g_new0(HvHypercallCount, 1);
        count->code = hv_hypercall_rows[i].code;
        count->name = g_strdup(hv_hypercall_rows[i].name);
        count->count = state->hypercalls[i];
        QAPI_LIST_APPEND(tail, count);
    }
    return list;
}

static HvMsrCountList *msr_counts(const struct hv_vp_state *state)
{
    HvMsrCountList *list = NULL, **tail = &list;

    for (unsigned i = 0; i < HV_MSR_ROWS; i++) {
        HvMsrCount *count;

        if (!state->msr_reads[i] && !state->msr_writes[i])
            continue;
        count = g_new0(HvMsrCount, 1);
        count->index = hv_msr_rows[i].index;
        count->name = g_strdup(hv_msr_rows[i].name);
        count->reads = state->msr_reads[i];
        count->writes = state->msr_writes[i];
        QAPI_LIST_APPEND(tail, count);
    }
    return list;
}

static HvVpCounters *vp_counters(const struct hv_vp_state *state)
{
    HvVpCounters *counters = g_new0(HvVpCounters, 1);

    counters->hypercalls = hypercall_counts(state);
    counters->unknown_hypercalls = state->unknown_hypercalls;
    counters->msrs = msr_counts(state);
    counters->unknown_msrs = state->unknown_msrs;
    counters->messages = state->messages_delivered;
    counters->events = state->events_signaled;
    counters->interrupts = state->interrupts_requested;
    counters->auto_eois = state->auto_eois;
    counters->assisted_eois = state->assisted_eois;
    return counters;
}

static HvVpInfo *vp_info(struct hv_vp *vp, hv_partition_id partition)
{
    HvVpInfo *info = g_new0(HvVpInfo, 1);
    HvSyntheticTimerStateList **tail = &info->timers;
    g_autofree struct hv_vp_state *state = g_new0(struct hv_vp_state, 1);

    hv_get_vp_state(vp, state);
    info->partition = partition;
    info->vp = hv_vp_get_index(vp);
    info->run_time = state->run_time;
    info->apic_assist_page = overlay_page(state->apic_assist_page);
    info->synic = synic_state(state);
    for (unsigned i = 0; i < HV_SYNTHETIC_TIMER_COUNT; i++)
        QAPI_LIST_APPEND(tail, timer_state(&state->timers[i], i));
    info->counters = vp_counters(state);
    return info;
}

static HvVpInfoList *query_vps(bool has_partition, uint64_t partition, bool has_vp, uint32_t vp, Error **errp)
{
    struct hv *hv = microsoft_hypervisor_core();
    hv_partition_id id = has_partition ? partition : HV_PARTITION_ID_MACHINE;
    HvVpInfoList *list = NULL, **tail = &list;
    struct hv_partition_state state;
    uint32_t vp_count = 0;

    if (!hv_get_partition_state_of(hv, id, &state)) {
        error_setg(errp, "There is no partition with ID %" PRIu64, partition);
        return NULL;
    }
    for (hv_vp_handle handle = 0; handle < HV_MAX_VPS; handle++) {
        struct hv_vp *candidate = hv_get_vp_by_handle(hv, handle);

        if (!candidate || hv_vp_get_partition_id(candidate) != id)
            continue;
        vp_count++;
        if (!has_vp || hv_vp_get_index(candidate) == vp)
            QAPI_LIST_APPEND(tail, vp_info(candidate, id));
    }
    if (has_vp && !list)
        error_setg(errp, "There is no virtual processor %u: the partition has %u", vp, vp_count);
    return list;
}

/* -- The operator's ports and connections -- */

static HvPortType port_type(enum hv_port_type type)
{
    switch (type) {
    case HV_PORT_TYPE_EVENT:
        return QAPI_HV_PORT_TYPE_EVENT;
    case HV_PORT_TYPE_MONITOR:
        return QAPI_HV_PORT_TYPE_MONITOR;
    default:
        return QAPI_HV_PORT_TYPE_MESSAGE;
    }
}

static HvPortInfo *port_info(const struct hv_port_state *state)
{
    HvPortInfo *port = g_new0(HvPortInfo, 1);
    bool event = state->info.type == HV_PORT_TYPE_EVENT;

    port->port_id = state->port_id;
    port->type = port_type(state->info.type);
    port->sint = state->info.sint;
    port->has_vp = state->info.vp != HV_ANY_VP;
    port->vp = port->has_vp ? state->info.vp : 0;
    port->has_base_flag = port->has_flag_count = event;
    port->base_flag = state->info.base_flag;
    port->flag_count = state->info.flag_count;
    port->posts = state->post_count;
    port->queued = state->queued;
    return port;
}

/* The root may create and delete ports between the two calls of a list function. */
static HvPorts *query_ports(Error **errp)
{
    struct hv *hv = microsoft_hypervisor_core();
    size_t port_count = hv_list_ports(hv_machine_partition(hv), NULL, 0);
    size_t connection_count = hv_list_connections(hv_machine_partition(hv), NULL, 0);
    g_autofree struct hv_port_state *ports = g_new0(struct hv_port_state, port_count + 1);
    g_autofree struct hv_connection_state *connections = g_new0(struct hv_connection_state, connection_count + 1);
    HvPorts *info = g_new0(HvPorts, 1);
    HvPortInfoList **port_tail = &info->ports;
    HvConnectionInfoList **connection_tail = &info->connections;

    port_count = MIN(port_count, hv_list_ports(hv_machine_partition(hv), ports, port_count));
    connection_count =
        MIN(connection_count, hv_list_connections(hv_machine_partition(hv), connections, connection_count));
    for (size_t i = 0; i < port_count; i++)
        QAPI_LIST_APPEND(port_tail, port_info(&ports[i]));
    for (size_t i = 0; i < connection_count; i++) {
        HvConnectionInfo *connection = g_new0(HvConnectionInfo, 1);

        connection->connection_id = connections[i].connection_id;
        connection->port_id = connections[i].port_id;
        QAPI_LIST_APPEND(connection_tail, connection);
    }
    return info;
}

static bool find_port(struct hv *hv, uint32_t port_id, struct hv_port_state *found)
{
    size_t count = hv_list_ports(hv_machine_partition(hv), NULL, 0);
    g_autofree struct hv_port_state *ports = g_new0(struct hv_port_state, count + 1);

    count = MIN(count, hv_list_ports(hv_machine_partition(hv), ports, count));
    for (size_t i = 0; i < count; i++) {
        if (ports[i].port_id == port_id) {
            *found = ports[i];
            return true;
        }
    }
    return false;
}

/* The port with this ID, when it exists and is of this type. */
static bool require_port(struct hv *hv, uint32_t port_id, enum hv_port_type type, struct hv_port_state *port,
                         Error **errp)
{
    if (!find_port(hv, port_id, port)) {
        error_setg(errp, "There is no port with ID %u", port_id);
        return false;
    }
    if (port->info.type != type) {
        error_setg(errp, "Port %u is not for %s", port_id, type == HV_PORT_TYPE_MESSAGE ? "messages" : "events");
        return false;
    }
    return true;
}

/* Errors that the checks before a call do not find; each has a sentence of its own, to say what to do. */
static void set_status_error(Error **errp, const char *doing, hv_status status)
{
    const char *name = hv_status_name(status);

    switch (status) {
    case HV_STATUS_SUCCESS:
        break;
    case HV_STATUS_INVALID_SYNIC_STATE:
        error_setg(errp,
                   "Cannot %s: no virtual processor it may go to has enabled its synthetic interrupt controller and "
                   "the page for it, with the interrupt source unmasked (%s)",
                   doing, name);
        break;
    case HV_STATUS_INSUFFICIENT_BUFFERS:
        error_setg(errp, "Cannot %s: the guest has not taken the %u messages that wait already (%s)", doing,
                   HV_PORT_MESSAGE_BUFFERS, name);
        break;
    default:
        error_setg(errp, "Cannot %s: %s", doing, name ? name : "unknown status");
    }
}

static bool check_id(uint32_t id, const char *member, Error **errp)
{
    if (id <= HV_PORT_ID_MASK)
        return true;
    error_setg(errp, "'%s' must not be above %u", member, HV_PORT_ID_MASK);
    return false;
}

static bool check_flags(const struct hv_port_info *info, Error **errp)
{
    if (info->flag_count > 0 && info->base_flag + info->flag_count < HV_EVENT_FLAGS_COUNT)
        return true;
    error_setg(errp, "'flag-count' must be at least 1, and together with 'base-flag' less than %u",
               HV_EVENT_FLAGS_COUNT);
    return false;
}

static void create_port(uint32_t port_id, HvPortType type, uint8_t sint, bool has_vp, uint32_t vp, bool has_base_flag,
                        uint16_t base_flag, bool has_flag_count, uint16_t flag_count, Error **errp)
{
    struct hv *hv = microsoft_hypervisor_core();
    uint32_t vp_count = hv_get_config(hv)->vp_count;
    bool event = type == QAPI_HV_PORT_TYPE_EVENT;
    struct hv_port_state existing;
    struct hv_port_info info = {
        .type = event ? HV_PORT_TYPE_EVENT : HV_PORT_TYPE_MESSAGE,
        .sint = sint,
        .vp = has_vp ? vp : HV_ANY_VP,
    };

    if (!check_id(port_id, "port-id", errp))
        return;
    if (type == QAPI_HV_PORT_TYPE_MONITOR) {
        error_setg(errp, "the operator cannot create monitor ports; use 'message' or 'event'");
        return;
    }
    if (sint < 1 || sint >= HV_SYNIC_SINT_COUNT) {
        error_setg(errp, "'sint' must be 1 to %u", HV_SYNIC_SINT_COUNT - 1);
        return;
    }
    if (has_vp && vp >= vp_count) {
        error_setg(errp, "There is no virtual processor %u: the partition has %u", vp, vp_count);
        return;
    }
    if (!event && (has_base_flag || has_flag_count)) {
        error_setg(errp, "'base-flag' and 'flag-count' are for ports of type 'event'");
        return;
    }
    if (event) {
        info.base_flag = has_base_flag ? base_flag : 0;
        info.flag_count = has_flag_count                          ? flag_count
                          : info.base_flag < HV_EVENT_FLAGS_COUNT ? HV_EVENT_FLAGS_COUNT - 1 - info.base_flag
                                                                  : 0;
        if (!check_flags(&info, errp))
            return;
    }
    if (find_port(hv, port_id, &existing)) {
        error_setg(errp, "There is a port with ID %u already", port_id);
        return;
    }
    set_status_error(errp, "create the port", hv_operator_create_port(hv_machine_partition(hv), port_id, &info));
}

static void delete_port(uint32_t port_id, Error **errp)
{
    hv_status status = hv_operator_delete_port(hv_machine_partition(microsoft_hypervisor_core()), port_id);

    if (status == HV_STATUS_INVALID_PORT_ID)
        error_setg(errp, "There is no port with ID %u", port_id);
    else
        set_status_error(errp, "delete the port", status);
}

static void connect_port(uint32_t connection_id, uint32_t port_id, Error **errp)
{
    hv_status status;

    if (!check_id(connection_id, "connection-id", errp))
        return;
    status = hv_operator_connect_port(hv_machine_partition(microsoft_hypervisor_core()), connection_id, port_id);
    if (status == HV_STATUS_INVALID_CONNECTION_ID)
        error_setg(errp, "There is a connection with ID %u already", connection_id);
    else if (status == HV_STATUS_INVALID_PORT_ID)
        error_setg(errp, "There is no port with ID %u", port_id);
    else
        set_status_error(errp, "connect to the port", status);
}

static void disconnect_port(uint32_t connection_id, Error **errp)
{
    hv_status status = hv_operator_disconnect_port(hv_machine_partition(microsoft_hypervisor_core()), connection_id);

    if (status == HV_STATUS_INVALID_CONNECTION_ID)
        error_setg(errp, "There is no connection with ID %u", connection_id);
    else
        set_status_error(errp, "delete the connection", status);
}

static void post_message(uint32_t port_id, uint32_t message_type, const uint8_t *payload, size_t size, Error **errp)
{
    struct hv *hv = microsoft_hypervisor_core();
    struct hv_port_state port;

    if (message_type == 0 || message_type >= MESSAGE_TYPE_LIMIT) {
        error_setg(errp, "'message-type' must be 1 to %u", MESSAGE_TYPE_LIMIT - 1);
        return;
    }
    if (size > HV_MESSAGE_MAX_PAYLOAD_BYTE_COUNT) {
        error_setg(errp, "'payload' has %zu bytes; a message holds at most %u", size,
                   HV_MESSAGE_MAX_PAYLOAD_BYTE_COUNT);
        return;
    }
    if (require_port(hv, port_id, HV_PORT_TYPE_MESSAGE, &port, errp))
        set_status_error(errp, "post the message",
                         hv_operator_post_message(hv_machine_partition(hv), port_id, message_type, payload, size));
}

static void signal_event(uint32_t port_id, uint16_t flag, Error **errp)
{
    struct hv *hv = microsoft_hypervisor_core();
    struct hv_port_state port;

    if (!require_port(hv, port_id, HV_PORT_TYPE_EVENT, &port, errp))
        return;
    if (flag >= port.info.flag_count) {
        error_setg(errp, "Port %u has no flag %u: it has %u", port_id, flag, port.info.flag_count);
        return;
    }
    set_status_error(errp, "signal the event", hv_operator_signal_event(hv_machine_partition(hv), port_id, flag));
}

/* -- Tracing and reports -- */

static void trace_hypercalls(bool enable, Error **errp)
{
    TraceEvent *event = trace_event_name("microsoft_hypervisor_hypercall");

    tracing = enable;
    hv_set_trace(microsoft_hypervisor_core(), enable);
    /* A build without tracing has no dynamic state to set. */
    if (event && trace_event_get_state_static(event))
        trace_event_set_state_dynamic(event, enable);
}

/* TLFS 4.8: the status is in the low 16 bits of the result. */
void microsoft_hypervisor_qmp_trace(hv_vp_index vp, int row, uint64_t input, uint64_t result)
{
    const char *status = hv_status_name(result & 0xFFFF);
    const char *name = row < 0 ? "unknown" : hv_hypercall_rows[row].name;

    trace_microsoft_hypervisor_hypercall(vp, name, input, status ? status : "unknown", result);
}

/* A guest's text as UTF-8: see HV_GUEST_CRASH in the schema. */
static char *sanitize(const char *text, size_t size)
{
    GString *out = g_string_sized_new(size);

    while (size && text[size - 1] == '\0')
        size--;
    for (size_t i = 0; i < size;) {
        gunichar c = g_utf8_get_char_validated(text + i, size - i);
        bool valid = c != (gunichar)-1 && c != (gunichar)-2 && (c == '\n' || c == '\t' || !g_unichar_iscntrl(c));

        g_string_append_unichar(out, valid ? c : 0xFFFD);
        /* What is no character is replaced byte by byte. */
        i += valid ? (size_t)g_unichar_to_utf8(c, NULL) : 1;
    }
    return g_string_free(out, false);
}

void microsoft_hypervisor_qmp_crash(hv_vp_index vp, const uint64_t parameters[5], const char *message, size_t size)
{
    g_autofree char *text = message ? sanitize(message, size) : NULL;
    uint64List *list = NULL;

    for (int i = 4; i >= 0; i--)
        QAPI_LIST_PREPEND(list, parameters[i]);
    qapi_event_send_hv_guest_crash(vp, list, text);
    qapi_free_uint64List(list);
}

/* -- Registration -- */

static const X86HypervisorQMPOps ops = {
    .query = query,
    .query_partitions = query_partitions,
    .query_vps = query_vps,
    .pause_partition = microsoft_hypervisor_pause_partition,
    .delete_partition = microsoft_hypervisor_delete_partition,
    .query_registers = microsoft_hypervisor_query_registers,
    .read_memory = microsoft_hypervisor_read_memory,
    .inject_interrupt = microsoft_hypervisor_inject_interrupt,
    .query_ports = query_ports,
    .create_port = create_port,
    .delete_port = delete_port,
    .connect_port = connect_port,
    .disconnect_port = disconnect_port,
    .post_message = post_message,
    .signal_event = signal_event,
    .trace_hypercalls = trace_hypercalls,
};

void microsoft_hypervisor_qmp_register(void)
{
    tracing = false;
    x86_hypervisor_set_qmp_ops(&ops);
    microsoft_hypervisor_qmp_events_register();
    microsoft_hypervisor_stats_register(true);
    microsoft_hypervisor_save_register();
}

void microsoft_hypervisor_qmp_unregister(void)
{
    x86_hypervisor_set_qmp_ops(NULL);
    microsoft_hypervisor_qmp_events_unregister();
    microsoft_hypervisor_stats_register(false);
    microsoft_hypervisor_save_unregister();
}
