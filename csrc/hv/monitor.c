/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS 14.5: monitored notifications. A monitor page is shown to the partition of a monitor port and to that of its
 * connection. The sender sets triggers in it, and the hypervisor, which looks at the page at the rate that the
 * latencies in it ask for, signals an event for each, as if the sender had called HvSignalEvent.
 *
 * One timer, of the root's first VP, serves all pages. A trigger seen for the first time is armed; it is signaled when
 * it is still armed after its latency. The sender clears the armed bit whenever it touches the pending bit, so the
 * time starts anew.
 */
#include "stats.h"

#include <stdlib.h>
#include <string.h>

#define GROUPS 4
#define TRIGGERS 32 /* in a group */

struct monitor_parameter {
    uint32_t connection_id;
    uint16_t flag_number;
    uint16_t reserved;
};

/* TLFS 14.8.10 */
struct monitor_page {
    _Atomic uint32_t trigger_state;
    uint32_t reserved1;
    _Atomic uint64_t trigger_group[GROUPS]; /* pending bits, and in the high half armed ones */
    uint8_t reserved2[536];
    uint16_t latency[GROUPS][TRIGGERS]; /* 100 ns */
    uint8_t reserved3[256];
    struct monitor_parameter parameter[GROUPS][TRIGGERS];
    uint8_t reserved4[1984];
};
_Static_assert(sizeof(struct monitor_page) == HV_PAGE_SIZE, "TLFS 14.8.10");
_Static_assert(offsetof(struct monitor_page, latency) == 576 && offsetof(struct monitor_page, parameter) == 1088,
               "TLFS 14.8.10");

#define STATE_GROUP_ENABLE(group) (1u << (group))
#define STATE_MONITOR_DISABLED (1u << 4)

#define PENDING(trigger) (UINT64_C(1) << (trigger))
#define ARMED(trigger) (UINT64_C(1) << (32 + (trigger)))

/* The hypervisor's limits to latencies (TLFS 14.5.2), and how often it looks where none is given; 100 ns. */
#define SHORTEST_LATENCY 1000
#define USUAL_LATENCY 10000
/* How often it looks whether a group has been enabled. */
#define DISABLED_INTERVAL 100000

#define MAX_MONITORS 256u
/* Interrupts of so many VPs of the root are collected before the structure lock has to be dropped to request them. */
#define MAX_INTERRUPTED 8u
/*
 * A page that is not used any more may still be in a processor's translations until the call that took it away retires.
 * It is kept until so many others have gone after it.
 */
#define RETIRED_PAGES 16u

struct hv_monitor {
    struct hv_monitor *next;
    struct hv *hv;
    struct monitor_page *page;
    hv_vp_index number; /* tells the overlays of a partition apart */
    struct hv_port *port;
    struct hv_connection *connection;
    hv_gpa connection_gpa;
    uint64_t due; /* TSC of the next inspection */
    uint64_t armed_at[GROUPS][TRIGGERS]; /* TSC */
};

struct hv_retired_page {
    struct hv_retired_page *next;
    void *page;
};

/* -- Pages -- */

static void free_page(struct hv *hv, void *page)
{
    hv->ops->free_pages(hv->context, page, 1);
}

/* Keep the page for a while; when the host has no memory to note it down, until the end. */
static void retire_page(struct hv *hv, void *page)
{
    struct hv_retired_page *retired = malloc(sizeof(*retired)), **link = &hv->retired_pages;

    if (!retired)
        return;
    *retired = (struct hv_retired_page){.next = hv->retired_pages, .page = page};
    hv->retired_pages = retired;
    for (unsigned i = 0; *link && i < RETIRED_PAGES; i++)
        link = &(*link)->next;
    while (*link) {
        struct hv_retired_page *oldest = *link;

        *link = oldest->next;
        free_page(hv, oldest->page);
        free(oldest);
    }
}

static void show(const struct hv_monitor *monitor, struct hv_partition *partition, bool enabled, hv_gpa gpa)
{
    hv_gpa_set_overlay(partition, HV_OVERLAY_MONITOR, monitor->number, (uint8_t *)monitor->page, enabled, gpa);
}

/* -- Monitors -- */

static bool number_is_used(const struct hv *hv, hv_vp_index number)
{
    const struct hv_monitor *monitor = hv->monitors;

    while (monitor && monitor->number != number)
        monitor = monitor->next;
    return monitor;
}

struct hv_monitor *hv_monitor_create(struct hv *hv)
{
    struct hv_monitor *monitor;
    hv_vp_index number = 0;

    while (number < MAX_MONITORS && number_is_used(hv, number))
        number++;
    if (number == MAX_MONITORS)
        return NULL;
    monitor = calloc(1, sizeof(*monitor));
    if (!monitor)
        return NULL;
    monitor->hv = hv;
    monitor->number = number;
    monitor->page = hv->ops->allocate_pages(hv->context, 1);
    if (!monitor->page) {
        free(monitor);
        return NULL;
    }
    atomic_store(&monitor->page->trigger_state, STATE_MONITOR_DISABLED);
    monitor->due = HV_NANO100_NEVER;
    monitor->next = hv->monitors;
    hv->monitors = monitor;
    hv_counter_add(&hv->stats.page[HV_HCA_MonitoredNotifications], 1);
    return monitor;
}

static void free_if_unused(struct hv_monitor *monitor)
{
    struct hv_monitor **link = &monitor->hv->monitors;

    if (monitor->port || monitor->connection)
        return;
    while (*link != monitor)
        link = &(*link)->next;
    *link = monitor->next;
    hv_counter_add(&monitor->hv->stats.page[HV_HCA_MonitoredNotifications], (uint64_t)-1);
    retire_page(monitor->hv, monitor->page);
    free(monitor);
}

static void set_timer(const struct hv *hv, uint64_t tsc)
{
    hv->ops->set_timer(hv->context, hv->machine_partition->vps[0]->handle, HV_VP_TIMER_MONITOR, tsc);
}

/* The page is inspected while both ends exist; the sender can see whether it is. */
static void update(struct hv_monitor *monitor)
{
    if (monitor->port && monitor->connection) {
        atomic_fetch_and(&monitor->page->trigger_state, ~STATE_MONITOR_DISABLED);
        monitor->due = 0;
        set_timer(monitor->hv, 0);
    } else {
        atomic_fetch_or(&monitor->page->trigger_state, STATE_MONITOR_DISABLED);
        monitor->due = HV_NANO100_NEVER;
    }
}

void hv_monitor_set_port(struct hv_monitor *monitor, struct hv_port *port)
{
    if (!port)
        show(monitor, monitor->port->partition, false, 0);
    monitor->port = port;
    if (port)
        show(monitor, port->partition, true, port->info.monitor_gpa);
    update(monitor);
    free_if_unused(monitor);
}

void hv_monitor_set_connection(struct hv_monitor *monitor, struct hv_connection *connection, hv_gpa gpa)
{
    if (!connection)
        show(monitor, monitor->connection->partition, false, 0);
    monitor->connection = connection;
    monitor->connection_gpa = gpa;
    if (connection)
        show(monitor, connection->partition, true, gpa);
    update(monitor);
    free_if_unused(monitor);
}

hv_gpa hv_monitor_connection_gpa(const struct hv_monitor *monitor)
{
    return monitor->connection_gpa;
}

uint8_t *hv_monitor_page(struct hv_monitor *monitor)
{
    return (uint8_t *)monitor->page;
}

void hv_monitors_free(struct hv *hv)
{
    while (hv->retired_pages) {
        struct hv_retired_page *retired = hv->retired_pages;

        hv->retired_pages = retired->next;
        free_page(hv, retired->page);
        free(retired);
    }
}

/* -- Inspection; the structure lock is held for reading, and by one thread only -- */

/* What to request when the lock is dropped: local APICs of the root's VPs are the machine's own. */
struct requests {
    unsigned count;
    struct {
        struct hv_vp *vp;
        struct hv_interrupts interrupts;
    } of[MAX_INTERRUPTED];
};

static void add_request(struct requests *requests, struct hv_vp *vp, const struct hv_interrupts *interrupts)
{
    unsigned i = 0;

    while (i < requests->count && requests->of[i].vp != vp)
        i++;
    if (i == requests->count) {
        requests->of[i].vp = vp;
        memset(&requests->of[i].interrupts, 0, sizeof(requests->of[i].interrupts));
        requests->count++;
    }
    for (unsigned j = 0; j < 4; j++)
        requests->of[i].interrupts.vectors[j] |= interrupts->vectors[j];
}

/* TLFS 14.8.9.2: as the sender would; an error is discarded. */
static void signal_parameter(struct hv_monitor *monitor, unsigned group, unsigned trigger, struct requests *requests)
{
    struct hv_partition *sender = monitor->connection->partition;
    const volatile struct monitor_parameter *parameter = &monitor->page->parameter[group][trigger];
    struct hv_interrupts interrupts = {{0}};
    struct hv_vp *target = NULL;

    if (!hv_has_privilege(sender, HV_PRIVILEGE_SignalEvents))
        return;
    hv_signal_event(sender, NULL, parameter->connection_id, parameter->flag_number, &target, &interrupts);
    if (target)
        add_request(requests, target, &interrupts);
}

static uint64_t ticks(const struct hv *hv, unsigned latency)
{
    return latency * (hv->config.tsc_frequency / 1000) / 10000;
}

static unsigned latency_of(const struct hv_monitor *monitor, unsigned group, unsigned trigger)
{
    unsigned latency = *(const volatile uint16_t *)&monitor->page->latency[group][trigger];

    return latency > SHORTEST_LATENCY ? latency : SHORTEST_LATENCY;
}

/* The lowest latency that is given in a group, which is how often to look at it. */
static unsigned lowest_latency(const struct hv_monitor *monitor, unsigned group)
{
    unsigned lowest = UINT16_MAX + 1u;

    for (unsigned i = 0; i < TRIGGERS; i++) {
        unsigned latency = *(const volatile uint16_t *)&monitor->page->latency[group][i];

        if (latency && latency < lowest)
            lowest = latency;
    }
    if (lowest > UINT16_MAX)
        return USUAL_LATENCY;
    return lowest > SHORTEST_LATENCY ? lowest : SHORTEST_LATENCY;
}

static void sooner(struct hv_monitor *monitor, uint64_t due)
{
    if (due < monitor->due)
        monitor->due = due;
}

static void inspect_trigger(struct hv_monitor *monitor, unsigned group, unsigned trigger, uint64_t now,
                            struct requests *requests)
{
    _Atomic uint64_t *bits = &monitor->page->trigger_group[group];
    uint64_t *armed_at = &monitor->armed_at[group][trigger];
    uint64_t wait = ticks(monitor->hv, latency_of(monitor, group, trigger));

    if (!(atomic_load(bits) & ARMED(trigger))) {
        *armed_at = now;
        atomic_fetch_or(bits, ARMED(trigger));
        sooner(monitor, now + wait);
    } else if (now - *armed_at < wait) {
        sooner(monitor, *armed_at + wait);
    } else if (requests->count == MAX_INTERRUPTED) {
        monitor->due = now;
    } else {
        atomic_fetch_and(bits, ~(PENDING(trigger) | ARMED(trigger)));
        signal_parameter(monitor, group, trigger, requests);
    }
}

static void inspect_page(struct hv_monitor *monitor, uint64_t now, struct requests *requests)
{
    uint32_t state = atomic_load(&monitor->page->trigger_state);

    monitor->due = now + ticks(monitor->hv, DISABLED_INTERVAL);
    for (unsigned group = 0; group < GROUPS; group++) {
        uint32_t pending;

        if (!(state & STATE_GROUP_ENABLE(group)))
            continue;
        sooner(monitor, now + ticks(monitor->hv, lowest_latency(monitor, group)));
        for (pending = (uint32_t)atomic_load(&monitor->page->trigger_group[group]); pending; pending &= pending - 1)
            inspect_trigger(monitor, group, (unsigned)__builtin_ctz(pending), now, requests);
    }
}

static void inspect_pages(struct hv *hv, struct requests *requests)
{
    uint64_t now = hv_machine_tsc(hv), next = HV_NANO100_NEVER;

    for (struct hv_monitor *monitor = hv->monitors; monitor; monitor = monitor->next) {
        if (monitor->due <= now)
            inspect_page(monitor, now, requests);
        if (monitor->due < next)
            next = monitor->due;
    }
    set_timer(hv, next);
}

static void inspect_once(struct hv *hv)
{
    struct requests requests;

    requests.count = 0;
    hv_structure_lock_read(&hv->structure);
    inspect_pages(hv, &requests);
    hv_structure_lock_drop(&hv->structure);
    for (unsigned i = 0; i < requests.count; i++)
        hv_interrupts_request(requests.of[i].vp, &requests.of[i].interrupts);
}

/* One thread inspects; the timer may expire again meanwhile, on another, and then it inspects once more. */
void hv_monitors_inspect(struct hv *hv)
{
    unsigned asked;

    if (atomic_fetch_add(&hv->monitor_inspections, 1) != 0)
        return;
    do {
        asked = atomic_load(&hv->monitor_inspections);
        inspect_once(hv);
    } while (atomic_fetch_sub(&hv->monitor_inspections, asked) != asked);
}
