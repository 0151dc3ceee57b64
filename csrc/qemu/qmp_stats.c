/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP: what the hypervisor has counted (TLFS 21, appendix J).
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-types-hypervisor-statistics-target.h"
#include "qapi/util.h"
#include "qemu/timer.h"
#include "target/i386/hypervisor-statistics-qmp.h"

#include "qmp.h"
#include "qmp_stats.h"

static HvStatsObject object_of(enum hv_stats_object_type type)
{
    switch (type) {
    case HV_STATS_OBJECT_HYPERVISOR:
        return QAPI_HV_STATS_OBJECT_HYPERVISOR;
    case HV_STATS_OBJECT_LOGICAL_PROCESSOR:
        return QAPI_HV_STATS_OBJECT_LOGICAL_PROCESSOR;
    case HV_STATS_OBJECT_PARTITION:
        return QAPI_HV_STATS_OBJECT_PARTITION;
    case HV_STATS_OBJECT_VP:
        return QAPI_HV_STATS_OBJECT_VP;
    }
    g_assert_not_reached();
}

static HvCounterList *describe_counters(const struct hv_stats_view *view)
{
    unsigned generation = hv_get_config(microsoft_hypervisor_core())->generation;
    HvCounterList *list = NULL, **tail = &list;

    for (unsigned row = 0; row < HV_STATS_ROWS; row++) {
        const struct hv_stats_row_info *info = &hv_stats_rows[row];
        HvCounter *counter;

        if (info->object != view->object || !(info->generations & generation))
            continue;
        counter = g_new0(HvCounter, 1);
        counter->name = g_strdup(info->symbol);
        counter->value = view->values[row];
        QAPI_LIST_APPEND(tail, counter);
    }
    return list;
}

static HvCallsList *describe_hypercalls(const struct hv_stats_view *view)
{
    HvCallsList *list = NULL, **tail = &list;

    for (unsigned row = 0; row < HV_HYPERCALL_ROWS; row++) {
        HvCalls *calls;

        if (!view->hypercalls[row])
            continue;
        calls = g_new0(HvCalls, 1);
        calls->name = g_strdup(hv_hypercall_rows[row].name);
        calls->count = view->hypercalls[row];
        QAPI_LIST_APPEND(tail, calls);
    }
    return list;
}

static void describe(void *opaque, const struct hv_stats_view *view)
{
    HvStatsList ***tail = opaque;
    HvStats *stats = g_new0(HvStats, 1);
    bool is_vp = view->object == HV_STATS_OBJECT_VP;

    stats->object = object_of(view->object);
    stats->has_partition = is_vp || view->object == HV_STATS_OBJECT_PARTITION;
    stats->partition = view->partition;
    stats->has_index = is_vp || view->object == HV_STATS_OBJECT_LOGICAL_PROCESSOR;
    stats->index = view->index;
    if (view->partition_name && view->partition_name[0])
        stats->partition_name = g_utf8_make_valid(view->partition_name, -1);
    stats->counters = describe_counters(view);
    stats->has_hypercalls = is_vp;
    if (is_vp)
        stats->hypercalls = describe_hypercalls(view);
    QAPI_LIST_APPEND(*tail, stats);
}

static HvStatsSnapshot *query(Error **errp)
{
    HvStatsSnapshot *snapshot = g_new0(HvStatsSnapshot, 1);
    HvStatsList **tail = &snapshot->objects;

    snapshot->time = get_clock();
    hv_visit_stats(microsoft_hypervisor_core(), describe, &tail);
    return snapshot;
}

void microsoft_hypervisor_stats_register(bool on)
{
    x86_hypervisor_set_statistics(on ? query : NULL);
}
