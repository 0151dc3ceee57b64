/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 20: guest debugging, and the synthetic debugger's registers that came later.
 *
 * A partition with the Debugging privilege has one session: a buffer for each direction, made when it is initialized or
 * gets the privilege, gone when it is finalized (20.1.1). Bytes between sessions and the debugger go over one
 * connection, which is the platform's. With role=guest there is one session, and the connection carries its bytes and
 * nothing else. With role=root sessions share it in frames: channel identifier and byte count, 16 bits each, little
 * endian, and so many bytes. A frame without bytes is the break-in message of 20.1.
 */
#include "internal.h"

#include <string.h>

#define MAXIMUM_DATA_SIZE 4088u
#define POST_LOOP 1u
#define RETRIEVE_LOOP 1u
#define RETRIEVE_TEST_ACTIVITY 2u
#define PURGE_INCOMING 1u
#define PURGE_OUTGOING 2u

/* At least what one call can post (20.1.1). */
#define BUFFER_SIZE 16384u
_Static_assert(2 * BUFFER_SIZE == HV_COST_DebugSession * HV_PAGE_SIZE, "what a session costs");

#define FRAME_HEADER 4u
#define BREAK_IN 0x62 /* the byte that asks an NT kernel to break into its debugger */

#define GUEST_CHANNEL 1 /* role=guest: there is no parent to assign one */

struct buffer {
    uint32_t first, count;
    uint8_t bytes[BUFFER_SIZE];
};

/* Registers of the synthetic debugger, later than 2.0a. */
struct registers {
    uint64_t control, status, options;
    uint64_t buffers[3]; /* GPAs, by the index of their register */
};
enum { SEND_BUFFER, RECEIVE_BUFFER, PENDING_BUFFER };
#define CONTROL_SEND (UINT64_C(1) << 0)
#define CONTROL_RECEIVE (UINT64_C(1) << 1)
#define CONTROL_SEND_SIZE(value) ((size_t)((value) >> 16) & 0xFFFF)
#define STATUS_INVALID UINT64_C(0)
#define STATUS_SENT (UINT64_C(1) << 0)
#define STATUS_RECEIVED(size) ((UINT64_C(1) << 2) | (uint64_t)(size) << 16)
#define OPTION_USE_HYPERCALLS (UINT64_C(1) << 2)

struct hv_debug_session {
    struct hv_vp_lock lock; /* leaf lock, as a VP's: of all that follows */
    struct buffer outgoing, incoming;
    uint32_t activity; /* what the connection's count was when the guest last tried to retrieve (20.1.5) */
    struct registers registers;
};

/* -- Buffers -- */

static size_t put(struct buffer *buffer, const uint8_t *data, size_t size)
{
    size_t done = size < BUFFER_SIZE - buffer->count ? size : BUFFER_SIZE - buffer->count;
    uint32_t end = (buffer->first + buffer->count) % BUFFER_SIZE;
    size_t part = done < BUFFER_SIZE - end ? done : BUFFER_SIZE - end;

    memcpy(buffer->bytes + end, data, part);
    memcpy(buffer->bytes, data + part, done - part);
    buffer->count += (uint32_t)done;
    return done;
}

static size_t take(struct buffer *buffer, uint8_t *data, size_t size)
{
    size_t done = size < buffer->count ? size : buffer->count;
    size_t part = done < BUFFER_SIZE - buffer->first ? done : BUFFER_SIZE - buffer->first;

    memcpy(data, buffer->bytes + buffer->first, part);
    memcpy(data + part, buffer->bytes, done - part);
    buffer->first = (buffer->first + (uint32_t)done) % BUFFER_SIZE;
    buffer->count -= (uint32_t)done;
    return done;
}

/* -- Sessions -- */

static uint64_t channel_of(const struct hv_partition *partition)
{
    uint64_t channel = __atomic_load_n(&partition->properties.debug_channel, __ATOMIC_RELAXED);

    return partition->hv->config.root ? channel : GUEST_CHANNEL;
}

static void reset(struct hv_debug_session *session)
{
    session->outgoing.first = session->outgoing.count = 0;
    session->incoming.first = session->incoming.count = 0;
    session->registers = (struct registers){.options = OPTION_USE_HYPERCALLS};
}

hv_status hv_debug_session_create(struct hv_partition *partition)
{
    struct hv *hv = partition->hv;
    struct hv_debug_session *session;

    if (!hv->config.debugging || atomic_load(&partition->debug_session))
        return HV_STATUS_SUCCESS;
    if (partition->parent && !hv_pool_charge(partition, HV_COST_DebugSession))
        return HV_STATUS_INSUFFICIENT_MEMORY;
    session = calloc(1, sizeof(*session));
    if (!session) {
        if (partition->parent)
            hv_pool_release(partition, HV_COST_DebugSession);
        return HV_STATUS_NO_RESOURCES;
    }
    hv_vp_lock_init(&session->lock);
    reset(session);
    session->activity = atomic_load(&hv->debug.received);
    atomic_store(&partition->debug_session, session);
    return HV_STATUS_SUCCESS;
}

void hv_debug_session_free(struct hv_partition *partition)
{
    struct hv_debug_session *session = atomic_exchange(&partition->debug_session, NULL);

    if (!session)
        return;
    if (partition->parent)
        hv_pool_release(partition, HV_COST_DebugSession);
    free(session);
}

void hv_debug_session_reset(struct hv_partition *partition)
{
    struct hv_debug_session *session = atomic_load(&partition->debug_session);

    if (!session)
        return;
    hv_vp_lock_take(&session->lock);
    reset(session);
    hv_vp_lock_drop(&session->lock);
}

/* The caller's session, if it may be used. It cannot go while a VP of the partition is in a call. */
static hv_status session_of(const struct hv_vp *vp, struct hv_debug_session **session)
{
    struct hv_partition *partition = vp->partition;

    if (!partition->hv->config.debugging)
        return HV_STATUS_FEATURE_UNAVAILABLE;
    *session = atomic_load(&partition->debug_session);
    return *session && channel_of(partition) ? HV_STATUS_SUCCESS : HV_STATUS_OPERATION_DENIED;
}

/* What the guest wants to be told in its memory: whether anything can be received. No lock held. */
static void show_pending(struct hv_partition *partition, struct hv_debug_session *session)
{
    uint64_t gpa;
    uint8_t pending;

    hv_vp_lock_take(&session->lock);
    gpa = session->registers.buffers[PENDING_BUFFER];
    pending = session->incoming.count != 0;
    hv_vp_lock_drop(&session->lock);
    /* One that has no memory there is not told. */
    if (gpa)
        hv_partition_write_gpa(partition, gpa, &pending, sizeof(pending));
}

/* Everything or nothing. Returns whether there was room; `pending` is what waits for the debugger then. */
static bool send(const struct hv *hv, struct hv_debug_session *session, const uint8_t *data, size_t size,
                 uint32_t *pending)
{
    bool fits;

    hv_vp_lock_take(&session->lock);
    fits = size <= BUFFER_SIZE - session->outgoing.count;
    if (fits)
        put(&session->outgoing, data, size);
    *pending = session->outgoing.count;
    hv_vp_lock_drop(&session->lock);
    if (fits && size)
        hv->ops->debug_changed(hv->context);
    return fits;
}

/* Fetch what has come. Whoever keeps more back for want of room is told when there is some. */
static size_t receive(const struct hv *hv, struct hv_debug_session *session, uint8_t *data, size_t size,
                      uint32_t *remaining)
{
    bool full;
    size_t taken;

    hv_vp_lock_take(&session->lock);
    session->activity = atomic_load(&hv->debug.received);
    full = session->incoming.count == BUFFER_SIZE;
    taken = take(&session->incoming, data, size);
    *remaining = session->incoming.count;
    hv_vp_lock_drop(&session->lock);
    if (full && taken)
        hv->ops->debug_changed(hv->context);
    return taken;
}

/* -- Hypercalls (20.3). Only the caller's own partition is looked at, so no lock is needed. -- */

struct post_input {
    uint32_t count, options;
    uint8_t data[MAXIMUM_DATA_SIZE];
};
struct post_output {
    uint32_t pending, padding;
};

static bool crosses_page(hv_gpa block, size_t header, size_t size)
{
    return (block & ~HV_PAGE_MASK) + header + size > HV_PAGE_SIZE;
}

/* TLFS 20.3.1 */
hv_status hv_call_post_debug_data(struct hv_call *call)
{
    const struct post_input *in = call->input;
    struct post_output *out = call->output;
    struct hv *hv = call->vp->hv;
    struct hv_debug_session *session;
    hv_status status = session_of(call->vp, &session);

    if (status != HV_STATUS_SUCCESS)
        return status;
    if ((in->options & ~POST_LOOP) || in->count > MAXIMUM_DATA_SIZE ||
        crosses_page(call->input_gpa, offsetof(struct post_input, data), in->count))
        return HV_STATUS_INVALID_PARAMETER;
    if (!hv_call_read_tail(call, offsetof(struct post_input, data), in->count))
        return HV_STATUS_SUCCESS; /* it ends as call->exit says */
    if (send(hv, session, in->data, in->count, &out->pending))
        return HV_STATUS_SUCCESS;
    if (in->options & POST_LOOP)
        hv->ops->spin_wait(hv->context, call->vp->handle); /* it will be back (20.1.6) */
    return HV_STATUS_INSUFFICIENT_BUFFERS;
}

struct retrieve_input {
    uint32_t count, options;
    hv_nano100_time timeout;
};
struct retrieve_output {
    uint32_t retrieved, remaining;
    uint8_t data[MAXIMUM_DATA_SIZE];
};

static bool nothing_received(const struct hv *hv, struct hv_debug_session *session)
{
    bool inactive;

    hv_vp_lock_take(&session->lock);
    inactive = session->activity == atomic_load(&hv->debug.received);
    hv_vp_lock_drop(&session->lock);
    return inactive;
}

static uint64_t tsc_after(const struct hv *hv, hv_nano100_time time)
{
    unsigned __int128 tsc = hv_machine_tsc(hv) + (unsigned __int128)time * hv->config.tsc_frequency / 10000000;

    return tsc < HV_NANO100_NEVER ? (uint64_t)tsc : HV_NANO100_NEVER - 1;
}

/* There is no data: whether the call is to be executed again until there is, or the time is over (20.1.6). */
static bool waits(struct hv_vp *vp, const struct retrieve_input *in)
{
    const struct hv *hv = vp->hv;

    if (!(in->options & RETRIEVE_LOOP))
        return false;
    if (!vp->debug_deadline)
        vp->debug_deadline = tsc_after(hv, in->timeout);
    return hv_call_waits(vp, vp->debug_deadline);
}

static hv_status retrieve(struct hv_vp *vp, struct hv_debug_session *session, const struct retrieve_input *in,
                          struct retrieve_output *out)
{
    bool empty;

    out->retrieved = (uint32_t)receive(vp->hv, session, out->data, in->count, &out->remaining);
    empty = !out->retrieved && !out->remaining;
    if (empty && waits(vp, in))
        return HV_STATUS_WAIT;
    vp->debug_deadline = 0;
    return empty ? HV_STATUS_NO_DATA : HV_STATUS_SUCCESS;
}

/* TLFS 20.3.2 */
hv_status hv_call_retrieve_debug_data(struct hv_call *call)
{
    const struct retrieve_input *in = call->input;
    struct retrieve_output *out = call->output;
    struct hv_vp *vp = call->vp;
    struct hv_debug_session *session;
    hv_status status = session_of(vp, &session);

    if (status != HV_STATUS_SUCCESS)
        return status;
    /* Before anything else (20.1.5), but not again while the call waits. */
    if ((in->options & RETRIEVE_TEST_ACTIVITY) && !vp->debug_deadline && nothing_received(vp->hv, session))
        return HV_STATUS_INACTIVE;
    if ((in->options & ~(RETRIEVE_LOOP | RETRIEVE_TEST_ACTIVITY)) || in->count > MAXIMUM_DATA_SIZE ||
        crosses_page(call->output_gpa, offsetof(struct retrieve_output, data), in->count))
        return HV_STATUS_INVALID_PARAMETER;
    status = retrieve(vp, session, in, out);
    if (status == HV_STATUS_SUCCESS) {
        call->output_tail = out->retrieved;
        show_pending(vp->partition, session);
    }
    return status;
}

/* TLFS 20.3.3 */
hv_status hv_call_reset_debug_session(struct hv_call *call)
{
    struct hv_debug_session *session;
    hv_status status = session_of(call->vp, &session);
    uint32_t options, purged = 0;
    struct hv *hv = call->vp->hv;

    memcpy(&options, call->input, sizeof(options));
    if (status != HV_STATUS_SUCCESS)
        return status;
    if (!options || (options & ~(PURGE_INCOMING | PURGE_OUTGOING)))
        return HV_STATUS_INVALID_PARAMETER;
    hv_vp_lock_take(&session->lock);
    if (options & PURGE_INCOMING) {
        purged += session->incoming.count;
        session->incoming.count = 0;
    }
    if (options & PURGE_OUTGOING) {
        purged += session->outgoing.count;
        session->outgoing.count = 0;
    }
    hv_vp_lock_drop(&session->lock);
    show_pending(call->vp->partition, session);
    if (options & PURGE_INCOMING)
        hv->ops->debug_changed(hv->context);
    return purged ? HV_STATUS_SUCCESS : HV_STATUS_NO_DATA;
}

/* -- The synthetic debugger's registers: the same session, without hypercalls -- */

static uint64_t send_by_register(struct hv_vp *vp, struct hv_debug_session *session, hv_gpa gpa, size_t size)
{
    uint32_t pending;

    if (gpa >= vp->hv->gpa_limit || crosses_page(gpa, 0, size) ||
        (size && hv_read_gpa(vp, gpa, vp->input_page, size) != HV_GPA_OK))
        return STATUS_INVALID;
    return send(vp->hv, session, vp->input_page, size, &pending) ? STATUS_SENT : STATUS_INVALID;
}

static uint64_t receive_by_register(struct hv_vp *vp, struct hv_debug_session *session, hv_gpa gpa)
{
    struct hv_translation place = {0};
    size_t size = HV_PAGE_SIZE - (size_t)(gpa & ~HV_PAGE_MASK);
    uint32_t remaining;

    if (gpa >= vp->hv->gpa_limit || hv_lock_write_gpa(vp, gpa, size, &place) != HV_GPA_OK)
        return STATUS_INVALID;
    size = receive(vp->hv, session, vp->output_page, size, &remaining);
    if (!size)
        return STATUS_INVALID;
    hv_write_locked_gpa(vp, &place, gpa, vp->output_page, size);
    return STATUS_RECEIVED(size);
}

static void control(struct hv_vp *vp, struct hv_debug_session *session, uint64_t value)
{
    struct registers registers;
    uint64_t status;

    hv_vp_lock_take(&session->lock);
    registers = session->registers;
    hv_vp_lock_drop(&session->lock);
    if (value & CONTROL_SEND)
        status = send_by_register(vp, session, registers.buffers[SEND_BUFFER], CONTROL_SEND_SIZE(value));
    else if (value & CONTROL_RECEIVE)
        status = receive_by_register(vp, session, registers.buffers[RECEIVE_BUFFER]);
    else
        return;
    hv_vp_lock_take(&session->lock);
    session->registers.status = status;
    hv_vp_lock_drop(&session->lock);
}

static enum hv_exit read_register(struct hv_vp *vp, size_t place, uint64_t *value)
{
    struct hv_debug_session *session;

    if (session_of(vp, &session) != HV_STATUS_SUCCESS)
        return HV_EXIT_GP;
    hv_vp_lock_take(&session->lock);
    memcpy(value, (const char *)&session->registers + place, sizeof(*value));
    hv_vp_lock_drop(&session->lock);
    return HV_EXIT_DONE;
}

static enum hv_exit write_register(struct hv_vp *vp, size_t place, uint64_t value, struct hv_debug_session **session)
{
    if (session_of(vp, session) != HV_STATUS_SUCCESS)
        return HV_EXIT_GP;
    hv_vp_lock_take(&(*session)->lock);
    memcpy((char *)&(*session)->registers + place, &value, sizeof(value));
    hv_vp_lock_drop(&(*session)->lock);
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_read_syndbg_control(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    (void)offset;
    return read_register(vp, offsetof(struct registers, control), value);
}

enum hv_exit hv_msr_write_syndbg_control(struct hv_vp *vp, uint32_t offset, uint64_t value)
{
    struct hv_debug_session *session;

    (void)offset;
    if (write_register(vp, offsetof(struct registers, control), value, &session) != HV_EXIT_DONE)
        return HV_EXIT_GP;
    control(vp, session, value);
    show_pending(vp->partition, session);
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_read_syndbg_status(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    (void)offset;
    return read_register(vp, offsetof(struct registers, status), value);
}

/* Where data to be sent is, where received data goes, and a byte that says whether there is any. */
enum hv_exit hv_msr_read_syndbg_buffer(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    return read_register(vp, offsetof(struct registers, buffers) + offset * sizeof(uint64_t), value);
}

enum hv_exit hv_msr_write_syndbg_buffer(struct hv_vp *vp, uint32_t offset, uint64_t value)
{
    struct hv_debug_session *session;

    if (write_register(vp, offsetof(struct registers, buffers) + offset * sizeof(uint64_t), value, &session) !=
        HV_EXIT_DONE)
        return HV_EXIT_GP;
    show_pending(vp->partition, session);
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_read_syndbg_options(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    (void)offset;
    return read_register(vp, offsetof(struct registers, options), value);
}

enum hv_exit hv_msr_write_syndbg_options(struct hv_vp *vp, uint32_t offset, uint64_t value)
{
    struct hv_debug_session *session;

    (void)offset;
    return write_register(vp, offsetof(struct registers, options), value, &session);
}

/* -- The connection; the structure lock keeps partitions and their sessions -- */

static struct hv_partition *partition_on(struct hv *hv, uint64_t channel)
{
    for (unsigned i = 0; channel && i < HV_PARTITION_BUCKETS; i++) {
        for (struct hv_partition *p = hv->partitions[i]; p; p = p->next_in_bucket) {
            if (atomic_load(&p->debug_session) && channel_of(p) == channel)
                return p;
        }
    }
    return NULL;
}

/* What does not fit is lost (20.1.3). */
static void deliver(struct hv_partition *partition, const uint8_t *data, size_t size)
{
    struct hv_debug_session *session = partition ? atomic_load(&partition->debug_session) : NULL;

    if (!session)
        return;
    hv_vp_lock_take(&session->lock);
    put(&session->incoming, data, size);
    hv_vp_lock_drop(&session->lock);
    show_pending(partition, session);
}

static void end_of_header(struct hv *hv)
{
    struct hv_debug_connection *connection = &hv->debug;
    const uint8_t *header = connection->header, break_in = BREAK_IN;

    connection->channel = (uint16_t)(header[0] | header[1] << 8);
    connection->left = (uint16_t)(header[2] | header[3] << 8);
    if (!connection->left) {
        connection->header_bytes = 0;
        deliver(partition_on(hv, connection->channel), &break_in, sizeof(break_in));
    }
}

/* Take apart the beginning of what came; returns how much that was. */
static size_t receive_framed(struct hv *hv, const uint8_t *data, size_t size)
{
    struct hv_debug_connection *connection = &hv->debug;
    size_t part;

    if (connection->header_bytes < FRAME_HEADER) {
        connection->header[connection->header_bytes++] = data[0];
        if (connection->header_bytes == FRAME_HEADER)
            end_of_header(hv);
        return 1;
    }
    part = size < connection->left ? size : connection->left;
    deliver(partition_on(hv, connection->channel), data, part);
    connection->left = (uint16_t)(connection->left - part);
    if (!connection->left)
        connection->header_bytes = 0;
    return part;
}

void hv_debug_receive(struct hv *hv, const uint8_t *data, size_t size)
{
    hv_structure_lock_read(&hv->structure);
    atomic_fetch_add(&hv->debug.received, (uint32_t)size);
    if (!hv->config.root)
        deliver(hv->machine_partition, data, size);
    for (size_t done = 0; hv->config.root && done < size;)
        done += receive_framed(hv, data + done, size - done);
    hv_structure_lock_drop(&hv->structure);
}

void hv_debug_connected(struct hv *hv)
{
    hv->debug.header_bytes = hv->debug.left = 0;
}

size_t hv_debug_room(struct hv *hv)
{
    struct hv_debug_session *session = atomic_load(&hv->machine_partition->debug_session);
    size_t room;

    if (hv->config.root)
        return BUFFER_SIZE; /* a guest that does not listen must not keep the others from being heard */
    if (!session)
        return 0;
    hv_vp_lock_take(&session->lock);
    room = BUFFER_SIZE - session->incoming.count;
    hv_vp_lock_drop(&session->lock);
    return room;
}

static size_t take_outgoing(struct hv_debug_session *session, uint8_t *data, size_t size)
{
    size_t taken;

    hv_vp_lock_take(&session->lock);
    taken = take(&session->outgoing, data, size);
    hv_vp_lock_drop(&session->lock);
    return taken;
}

/* A frame of this partition, as much of it as fits. */
static size_t take_frame(const struct hv_partition *partition, uint8_t *buffer, size_t size)
{
    struct hv_debug_session *session = atomic_load(&partition->debug_session);
    uint64_t channel = channel_of(partition);
    size_t taken;

    if (!session || !channel || size <= FRAME_HEADER)
        return 0;
    size -= FRAME_HEADER;
    taken = take_outgoing(session, buffer + FRAME_HEADER, size < MAXIMUM_DATA_SIZE ? size : MAXIMUM_DATA_SIZE);
    buffer[0] = (uint8_t)channel;
    buffer[1] = (uint8_t)(channel >> 8);
    buffer[2] = (uint8_t)taken;
    buffer[3] = (uint8_t)(taken >> 8);
    return taken ? taken + FRAME_HEADER : 0;
}

/* Partitions take turns: those of a bucket in a row, then the next bucket's. */
static size_t take_framed(struct hv *hv, uint8_t *buffer, size_t size)
{
    size_t done = 0;

    for (unsigned i = 0; i < HV_PARTITION_BUCKETS; i++) {
        unsigned bucket = hv->debug.next_bucket;

        for (const struct hv_partition *p = hv->partitions[bucket]; p; p = p->next_in_bucket)
            done += take_frame(p, buffer + done, size - done);
        hv->debug.next_bucket = (bucket + 1) % HV_PARTITION_BUCKETS;
    }
    return done;
}

size_t hv_debug_take(struct hv *hv, uint8_t *buffer, size_t size)
{
    struct hv_debug_session *session;
    size_t taken = 0;

    hv_structure_lock_read(&hv->structure);
    session = atomic_load(&hv->machine_partition->debug_session);
    if (hv->config.root)
        taken = take_framed(hv, buffer, size);
    else if (session)
        taken = take_outgoing(session, buffer, size);
    hv_structure_lock_drop(&hv->structure);
    return taken;
}
