/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The state of the whole machine as a versioned stream, for snapshots and migration: the machine's partition and all
 * its descendants. (Saving one partition through the hypervisor's own interface is TLFS chapter 17 and lives
 * elsewhere.)
 *
 * What is read comes from outside: every number that something else relies on is checked. Counters are state where
 * guests see them (stats.c); the operator's start anew. What the platform keeps of processors it saves itself; it does
 * so after this, since a restore makes the processors of children and resets them.
 */
#include "stream.h"

#define STREAM_MAGIC UINT32_C(0x53565648) /* "HVVS" */
#define STREAM_VERSION 4u

static void header(struct hv_stream *s, struct hv *hv)
{
    hv_stream_expect(s, STREAM_MAGIC, "the saved hypervisor state is not one of ours");
    hv_stream_expect(s, STREAM_VERSION, "the saved hypervisor state has an unknown version");
    hv_stream_expect(s, hv->config.generation, "the saved machine has another interface generation");
    hv_stream_expect(s, hv->config.root, "the saved machine has another role");
    hv_stream_expect(s, hv->config.vp_count, "the saved machine has another number of virtual processors");
    hv_stream_expect(s, hv->config.privileges, "the saved machine's partition has other privileges");
    hv_stream_expect(s, hv->config.features, "the saved machine's partition has other features");
    hv_stream_expect(s, hv->config.recommendations, "the saved machine's partition has other recommendations");
    hv_stream_expect(s, hv->config.debugging, "only one of the machines has a connection to a debugger");
    hv_stream_expect(s, hv->gpa_limit, "the saved machine has another width of physical addresses");
    hv_stream_u64(s, &hv->config.tsc_frequency);
    hv_stream_u64(s, &hv->config.apic_frequency);
    if (hv_stream_reading(s) && (hv->config.tsc_frequency <= 10000000 || hv->config.apic_frequency == 0))
        hv_stream_fail(s, "the saved machine has an impossible frequency");
}

/* -- Partitions -- */

void hv_state_partition_registers(struct hv_stream *s, struct hv_partition *partition)
{
    hv_stream_atomic_u64(s, &partition->guest_os_id);
    hv_stream_atomic_u64(s, &partition->hypercall_msr);
    hv_stream_atomic_u64(s, &partition->reference_tsc_msr);
    hv_stream_atomic_u64(s, &partition->crash_control);
    hv_stream_atomic_u64(s, &partition->tsc_invariant_control);
    for (unsigned i = 0; i < 5; i++)
        hv_stream_atomic_u64(s, &partition->crash_parameters[i]);
}

static void partition_clock(struct hv_stream *s, struct hv_partition *partition)
{
    uint64_t offset = (uint64_t)partition->tsc_offset;

    hv_stream_u64(s, &partition->tsc_scale);
    hv_stream_u64(s, &offset);
    partition->tsc_offset = (int64_t)offset;
    hv_stream_u32(s, &partition->tsc_sequence);
    if (hv_stream_reading(s) && partition->tsc_scale == 0) {
        partition->tsc_scale = 1; /* what is torn down now still goes by it */
        hv_stream_fail(s, "the saved machine has an impossible TSC scale");
    }
}

static void partition_state(struct hv_stream *s, struct hv_partition *partition)
{
    hv_state_partition_registers(s, partition);
    partition_clock(s, partition);
    hv_state_gpa_space(s, partition);
    hv_state_intercepts(s, partition);
}

/* -- Messages in the queues of VPs -- */

/* Whose buffer a message is in, if not that of a timer, which is named by its index. */
#define SOURCE_PORT UINT32_C(0xFFFFFFFF) /* of the port that is named */
#define SOURCE_INTERCEPT UINT32_C(0xFFFFFFFE) /* of the child's VP whose handle is named */
#define SOURCE_EVENT_LOG UINT32_C(0xFFFFFFFD) /* of the type that is named */

struct message_record {
    uint32_t source, name;
    struct hv_message message;
};

static void message_record(struct hv_stream *s, struct message_record *record)
{
    hv_stream_u32(s, &record->source);
    hv_stream_u32(s, &record->name);
    hv_stream_bytes(s, &record->message, sizeof(record->message));
}

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

static void describe_message(struct hv_vp *vp, const struct hv_message_buffer *buffer, struct message_record *record)
{
    record->name = 0;
    record->message = buffer->message;
    if (buffer->intercept) {
        const char *owner = (const char *)buffer - offsetof(struct hv_vp, intercept_buffer);

        record->source = SOURCE_INTERCEPT;
        record->name = ((const struct hv_vp *)(const void *)owner)->handle;
    } else if (buffer->event_log) {
        record->source = SOURCE_EVENT_LOG;
        record->name = hv_event_log_message_type(vp->hv, buffer);
    } else if (buffer->timer >= 0) {
        record->source = (uint32_t)buffer->timer;
    } else {
        record->source = SOURCE_PORT;
        record->name = port_of(vp->partition, buffer);
    }
}

static struct hv_message_buffer *port_buffer(struct hv_vp *vp, uint32_t port_id)
{
    struct hv_port *port = hv_find_port(vp->partition, port_id);

    for (unsigned i = 0; port && port->buffers && i < HV_PORT_MESSAGE_BUFFERS; i++) {
        if (!atomic_load(&port->buffers[i].in_use))
            return &port->buffers[i];
    }
    return NULL;
}

static struct hv_message_buffer *intercept_buffer(struct hv_vp *vp, hv_vp_handle handle)
{
    struct hv_vp *child = hv_get_vp_by_handle(vp->hv, handle);
    const struct hv_partition *partition = child ? child->partition : NULL;

    if (!partition || partition->parent != vp->partition || atomic_load(&child->intercept_buffer.in_use))
        return NULL;
    child->intercept_receiver = vp;
    return &child->intercept_buffer;
}

/* The event log's messages are the root's. */
static struct hv_message_buffer *event_log_buffer(struct hv_vp *vp, uint32_t type)
{
    return vp->partition->is_root ? hv_event_log_message_buffer(vp->hv, type) : NULL;
}

static struct hv_message_buffer *free_buffer_of(struct hv_vp *vp, const struct message_record *record)
{
    struct hv_message_buffer *buffer;

    if (record->source == SOURCE_PORT)
        return port_buffer(vp, record->name);
    if (record->source == SOURCE_INTERCEPT)
        return intercept_buffer(vp, record->name);
    if (record->source == SOURCE_EVENT_LOG)
        buffer = event_log_buffer(vp, record->name);
    else
        buffer = record->source < HV_SYNTHETIC_TIMER_COUNT ? &vp->timer[record->source].buffer : NULL;
    return buffer && !atomic_load(&buffer->in_use) ? buffer : NULL;
}

static void read_message(struct hv_stream *s, struct hv_vp *vp, unsigned sint)
{
    struct hv_message_queue *queue = &vp->queue[sint];
    struct hv_message_buffer *buffer;
    struct message_record record = {0};

    message_record(s, &record);
    if (s->error)
        return;
    if (s->alone && record.source == SOURCE_INTERCEPT)
        return; /* of a VP that is not there */
    buffer = free_buffer_of(vp, &record);
    if (s->alone && !buffer && record.source == SOURCE_PORT)
        return; /* its port was not made again, or has fewer buffers left: as if it had been deleted */
    if (!buffer || record.message.header.payload_size > HV_MESSAGE_MAX_PAYLOAD_BYTE_COUNT) {
        hv_stream_fail(s, "the saved hypervisor state has an impossible message");
        return;
    }
    atomic_store(&buffer->in_use, true);
    buffer->vp = vp;
    buffer->sint = (uint8_t)sint;
    buffer->timer = record.source < HV_SYNTHETIC_TIMER_COUNT ? (int8_t)record.source : -1;
    buffer->intercept = record.source == SOURCE_INTERCEPT;
    buffer->message = record.message;
    buffer->next = NULL;
    *queue->tail = buffer;
    queue->tail = &buffer->next;
    atomic_fetch_or(&vp->waiting, (uint16_t)(1u << sint));
}

static void queue(struct hv_stream *s, struct hv_vp *vp, unsigned sint)
{
    uint32_t count = 0;

    for (struct hv_message_buffer *b = vp->queue[sint].head; b; b = b->next)
        count += !b->injected;
    count = hv_stream_count(s, count, UINT32_MAX);
    if (hv_stream_reading(s)) {
        for (uint32_t i = 0; i < count && !s->error; i++)
            read_message(s, vp, sint);
        return;
    }
    for (struct hv_message_buffer *b = vp->queue[sint].head; b; b = b->next) {
        struct message_record record;

        if (b->injected)
            continue; /* what fault injection has held back or doubled is no state of the machine's */
        describe_message(vp, b, &record);
        message_record(s, &record);
    }
}

/* -- Virtual processors -- */

static void timer(struct hv_stream *s, struct hv_timer *timer)
{
    hv_stream_u64(s, &timer->config);
    hv_stream_u64(s, &timer->count);
    hv_stream_u64(s, &timer->due);
    hv_stream_flag(s, &timer->blocked);
    /* A period of zero cannot be armed: nothing would ever be divided by it. */
    if (hv_stream_reading(s) && timer->due != HV_NANO100_NEVER && timer->count == 0) {
        timer->due = HV_NANO100_NEVER;
        hv_stream_fail(s, "the saved hypervisor state has an impossible timer");
    }
}

static void machine_vp(struct hv_stream *s, struct hv_vp *vp)
{
    uint32_t suspend = atomic_load(&vp->suspend);

    hv_stream_u32(s, &suspend);
    atomic_store(&vp->suspend, suspend & HV_SUSPEND_ALL);
}

void hv_state_vp(struct hv_stream *s, struct hv_vp *vp)
{
    uint32_t assist_vector = (uint32_t)vp->assist_vector;

    hv_stream_atomic_u64(s, &vp->scontrol);
    hv_stream_atomic_u64(s, &vp->siefp);
    hv_stream_atomic_u64(s, &vp->simp);
    for (unsigned i = 0; i < HV_SYNIC_SINT_COUNT; i++)
        hv_stream_atomic_u64(s, &vp->sint[i]);
    hv_stream_u64(s, &vp->apic_assist_msr);
    hv_stream_u32(s, &assist_vector);
    vp->assist_vector = assist_vector < 256 ? (int)assist_vector : -1;
    for (unsigned i = 0; i < 3; i++)
        hv_stream_u64(s, &vp->power_state_config[i]);
    hv_stream_u64(s, &vp->sched.run_time);
    hv_stream_bytes(s, vp->sim_page, HV_PAGE_SIZE);
    hv_stream_bytes(s, vp->sief_page, HV_PAGE_SIZE);
    hv_stream_bytes(s, vp->apic_assist_page, HV_PAGE_SIZE);
    for (unsigned i = 0; i < HV_SYNTHETIC_TIMER_COUNT; i++)
        timer(s, &vp->timer[i]);
    for (unsigned i = 0; i < HV_SYNIC_SINT_COUNT; i++)
        queue(s, vp, i);
    if (vp->lapic)
        hv_state_child_vp(s, vp);
    else
        machine_vp(s, vp);
}

static void virtual_processors(struct hv_stream *s, struct hv_partition *partition)
{
    for (hv_vp_index i = 0; i < partition->vp_limit && !s->error; i++) {
        if (partition->vps[i])
            hv_state_vp(s, partition->vps[i]);
    }
}

/* -- Logical processors -- */

static void logical_processor(struct hv_stream *s, struct hv_lp *lp)
{
    uint64_t entries = atomic_load(&lp->idle_entries);

    hv_stream_u64(s, &lp->created);
    hv_stream_u64(s, &lp->run_time);
    hv_stream_u64(s, &lp->idle_time);
    hv_stream_u64(s, &entries);
    atomic_store(&lp->idle_entries, entries);
}

static void logical_processors(struct hv_stream *s, struct hv *hv)
{
    uint64_t parked = 0, now = hv->lps ? hv_machine_tsc(hv) : 0;

    for (unsigned i = 0; i < hv->lp_count; i++) {
        struct hv_lp *lp = &hv->lps[i];

        if (s->write && lp->idle && now > lp->idle_since) {
            lp->idle_time += now - lp->idle_since;
            lp->idle_since = now;
        }
        logical_processor(s, lp);
        parked |= i < 64 ? (uint64_t)atomic_load(&lp->parked) << i : 0;
    }
    hv_stream_u64(s, &parked);
    if (hv_stream_reading(s) && !s->error)
        hv_scheduler_park(hv, parked);
}

/* -- System properties -- */

static void profiler(struct hv_stream *s, struct hv *hv)
{
    hv_stream_u32(s, &hv->profiler.source);
    hv_stream_u64(s, &hv->profiler.period);
    if (hv_stream_reading(s) && !hv_profiler_is_possible(hv)) {
        hv_profiler_reset(hv);
        hv_stream_fail(s, "the saved hypervisor state has an impossible profiler");
    }
}

/* -- The whole -- */

static void walk(struct hv_stream *s, struct hv *hv)
{
    struct hv_partition *root = hv->machine_partition;

    header(s, hv);
    if (!s->error)
        hv_state_tree(s, hv);
    for (struct hv_partition *p = root; p && !s->error; p = hv_next_partition(p))
        partition_state(s, p);
    if (!s->error)
        hv_state_ports(s, hv);
    if (!s->error)
        hv_state_event_log(s, hv);
    for (struct hv_partition *p = root; p && !s->error; p = hv_next_partition(p))
        virtual_processors(s, p);
    if (!s->error)
        logical_processors(s, hv);
    if (!s->error)
        profiler(s, hv);
    if (!s->error)
        hv_state_stats(s, hv);
    for (struct hv_partition *p = root; p && !s->error; p = hv_next_partition(p))
        hv_state_pool(s, p);
}

size_t hv_save_size(const struct hv *hv)
{
    struct hv_stream s = {0};

    /* Counting stores every value back unchanged. */
    walk(&s, hv->machine_partition->hv);
    return s.position;
}

size_t hv_save(struct hv *hv, uint8_t *buffer, size_t size)
{
    struct hv_stream s = {.write = buffer, .size = size};

    walk(&s, hv);
    return s.error ? 0 : s.position;
}

/* -- Going on -- */

typedef void (*vp_function)(struct hv_vp *vp);

static void for_each_vp(struct hv *hv, vp_function function)
{
    for (struct hv_partition *p = hv->machine_partition; p; p = hv_next_partition(p)) {
        for (hv_vp_index i = 0; i < p->vp_limit; i++) {
            if (p->vps[i])
                function(p->vps[i]);
        }
    }
}

static void restore_lapic(struct hv_vp *vp)
{
    if (vp->lapic)
        hv_lapic_restored(vp);
}

static void resume_vp(struct hv_vp *vp)
{
    hv_interrupt_update_auto_eoi(vp);
    hv_message_retry(vp); /* what waited for a slot goes on waiting or is delivered */
    hv_scheduler_wake(vp, false);
}

static void resume(struct hv *hv)
{
    hv_publish_reference_tsc(hv->machine_partition);
    if (hv->lps)
        hv_scheduler_restored(hv);
    for_each_vp(hv, restore_lapic);
    for (struct hv_partition *p = hv->machine_partition; p; p = hv_next_partition(p)) {
        hv_show_all_overlays(p);
        hv_time_restored(p);
    }
    hv_stats_restored(hv);
    for_each_vp(hv, resume_vp);
}

/* What a refused stream may have changed and a reset leaves. */
struct kept {
    struct hv_config config;
    uint64_t scale, privileges, available, in_use;
    int64_t offset;
    hv_partition_id next_id;
};

static void keep(const struct hv *hv, struct kept *kept)
{
    const struct hv_partition *partition = hv->machine_partition;

    kept->config = hv->config;
    kept->scale = partition->tsc_scale;
    kept->privileges = atomic_load(&partition->privileges);
    kept->offset = partition->tsc_offset;
    kept->next_id = hv->next_partition_id;
    hv_pool_balance(partition, &kept->available, &kept->in_use);
}

static void put_back(struct hv *hv, const struct kept *kept)
{
    struct hv_partition *partition = hv->machine_partition;

    hv->config = kept->config;
    partition->tsc_scale = kept->scale;
    atomic_store(&partition->privileges, kept->privileges);
    partition->tsc_offset = kept->offset;
    hv_properties_reset(partition);
    hv_reset(hv);
    hv->next_partition_id = kept->next_id;
    hv_pool_set_available(partition, kept->available);
    for (unsigned i = 0; i < hv->lp_count; i++) {
        hv->lps[i].created = hv->lps[i].idle_since = hv_machine_tsc(hv);
        hv->lps[i].run_time = hv->lps[i].idle_time = 0;
    }
}

bool hv_restore(struct hv *hv, const uint8_t *buffer, size_t size, const char **error)
{
    struct hv_stream s = {.read = buffer, .size = size};
    struct kept kept;

    hv_reset(hv);
    keep(hv, &kept);
    hv_pool_release(hv->machine_partition, HV_POOL_UNLIMITED);
    walk(&s, hv);
    if (!s.error && s.position != size)
        hv_stream_fail(&s, "the saved hypervisor state has something behind its end");
    if (s.error) {
        put_back(hv, &kept);
        *error = s.error;
        return false;
    }
    resume(hv);
    return true;
}
