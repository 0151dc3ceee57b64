/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP: the operator's event log. It runs without the guest's help, and costs the machine nothing while it is off.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-types-hypervisor-event-log-target.h"
#include "qapi/util.h"
#include "qemu/units.h"
#include "target/i386/hypervisor-event-log-qmp.h"

#include "qmp.h"
#include "qmp_events.h"

#define READ_LEAST 64u /* there is no larger entry */
#define READ_MOST (16 * MiB)
#define START_ATTEMPTS 1000 /* a thread that is recording an event has to be given time to complete it */

/* -- Groups by their names -- */

static const struct {
    const char *name;
    uint64_t bit;
} groups[] = {
#define HV_EVENT_GROUP_ROW(bit, symbol, ...) {#symbol, UINT64_C(1) << bit},
#define HV_EVENT_ROW(...)
#include "tlfs/event_log_entries.def"
#undef HV_EVENT_ROW
#undef HV_EVENT_GROUP_ROW
};

static bool group_of(const char *name, uint64_t *mask, Error **errp)
{
    g_autoptr(GString) names = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
        if (strcmp(groups[i].name, name) == 0) {
            *mask |= groups[i].bit;
            return true;
        }
    }
    names = g_string_new(groups[0].name);
    for (size_t i = 1; i < ARRAY_SIZE(groups); i++)
        g_string_append_printf(names, ", %s", groups[i].name);
    error_setg(errp, "There is no group of events '%s'; there are %s", name, names->str);
    return false;
}

static bool groups_of(bool has_names, const strList *names, uint64_t *mask, Error **errp)
{
    *mask = 0;
    for (size_t i = 0; !has_names && i < ARRAY_SIZE(groups); i++)
        *mask |= groups[i].bit;
    for (; has_names && names; names = names->next) {
        if (!group_of(names->value, mask, errp))
            return false;
    }
    return true;
}

static strList *names_of(uint64_t mask)
{
    strList *list = NULL, **tail = &list;

    for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
        if (mask & groups[i].bit)
            QAPI_LIST_APPEND(tail, g_strdup(groups[i].name));
    }
    return list;
}

/* -- Commands -- */

static bool check_size(uint64_t size, Error **errp)
{
    if (size >= HV_EVENTS_SIZE_LEAST && size <= HV_EVENTS_SIZE_MOST)
        return true;
    error_setg(errp, "'size' is %" PRIu64 "; it can be %" PRIu64 " to %" PRIu64, size, HV_EVENTS_SIZE_LEAST,
               HV_EVENTS_SIZE_MOST);
    return false;
}

static void start(bool has_groups, strList *names, uint64_t size, bool has_partition, uint64_t partition, Error **errp)
{
    struct hv_events_options options = {.size = size, .partition = has_partition ? partition : 0};
    enum hv_progress progress = HV_PROGRESS_WAIT;

    if (!groups_of(has_groups, names, &options.groups, errp) || !check_size(size, errp))
        return;
    for (unsigned i = 0; progress == HV_PROGRESS_WAIT && i < START_ATTEMPTS; i++) {
        if (i)
            g_usleep(100);
        progress = hv_events_start(microsoft_hypervisor_core(), &options);
    }
    if (progress == HV_PROGRESS_FAILED)
        error_setg(errp, "There is not enough memory for %" PRIu64 " bytes of events for each processor", size);
    else if (progress == HV_PROGRESS_WAIT)
        error_setg(errp, "The host does not let a processor's thread go on; try again");
}

static void stop(Error **errp)
{
    hv_events_stop(microsoft_hypervisor_core());
}

static HvEventsInfo *query(Error **errp)
{
    HvEventsInfo *info = g_new0(HvEventsInfo, 1);
    struct hv_events_state state;

    hv_events_get_state(microsoft_hypervisor_core(), &state);
    *info = (HvEventsInfo){
        .running = state.running,
        .groups = names_of(state.options.groups),
        .size = state.options.size,
        .has_partition = state.options.partition != HV_PARTITION_ID_INVALID,
        .partition = state.options.partition,
        .recorded = state.recorded,
        .lost = state.lost,
        .unread = state.unread,
        .tsc_frequency = hv_get_config(microsoft_hypervisor_core())->tsc_frequency,
    };
    return info;
}

static HvEventsBatch *read_events(uint32_t max, Error **errp)
{
    g_autofree uint8_t *buffer = NULL;
    struct hv_events_state state;
    HvEventsBatch *batch;
    size_t size;

    if (max < READ_LEAST || max > READ_MOST) {
        error_setg(errp, "'max' is %" PRIu32 "; it can be %u to %llu", max, READ_LEAST, (unsigned long long)READ_MOST);
        return NULL;
    }
    buffer = g_malloc(max);
    size = hv_events_read(microsoft_hypervisor_core(), buffer, max);
    hv_events_get_state(microsoft_hypervisor_core(), &state);
    batch = g_new0(HvEventsBatch, 1);
    batch->data = g_base64_encode(buffer, size);
    batch->unread = state.unread;
    batch->lost = state.lost;
    return batch;
}

static const X86HypervisorEventLogQMPOps ops = {
    .start = start,
    .stop = stop,
    .query = query,
    .read = read_events,
};

void microsoft_hypervisor_qmp_events_register(void)
{
    x86_hypervisor_set_event_log_qmp_ops(&ops);
}

void microsoft_hypervisor_qmp_events_unregister(void)
{
    x86_hypervisor_set_event_log_qmp_ops(NULL);
}
