/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 14: the synthetic interrupt controller's registers, message queues and slots, event flags.
 *
 * Slots and flags are in pages that the guest writes at the same time, so the hypervisor accesses them atomically: a
 * message's type is written last, and "message pending" is set before the type is looked at again, as the guest clears
 * the type before it looks at the flag. One of the two always sees the other.
 */
#include "inject.h"

#include <string.h>

#define SINT_POLLING (UINT64_C(1) << 18) /* later than 2.0a: messages come without an interrupt */
#define SINT_FIRST_VECTOR 16
#define SINT_RESET HV_SINT_MASKED

/* A message that waits for its slot is tried again each millisecond without an EOM or EOI. */
#define MESSAGE_RETRIES_PER_SECOND 1000

static struct hv_message *slot_of(struct hv_vp *vp, unsigned sint)
{
    return (struct hv_message *)(void *)(vp->sim_page + sint * HV_MESSAGE_SIZE);
}

static _Atomic uint32_t *slot_type(struct hv_message *slot)
{
    return (_Atomic uint32_t *)(void *)&slot->header.message_type;
}

static _Atomic uint8_t *slot_flags(struct hv_message *slot)
{
    return (_Atomic uint8_t *)(void *)&slot->header.message_flags;
}

/* Other threads ask without the lock whether messages wait; nobody else changes it. */
static void note_waiting(struct hv_vp *vp, unsigned sint)
{
    uint16_t bit = (uint16_t)(1u << sint), before = atomic_load_explicit(&vp->waiting, memory_order_relaxed);
    uint16_t waiting = vp->queue[sint].head ? before | bit : before & (uint16_t)~bit;

    if (waiting != before)
        atomic_store(&vp->waiting, waiting);
}

static void queue_init(struct hv_message_queue *queue)
{
    queue->head = NULL;
    queue->tail = &queue->head;
}

static struct hv_message_buffer *queue_pop(struct hv_vp *vp, unsigned sint)
{
    struct hv_message_queue *queue = &vp->queue[sint];
    struct hv_message_buffer *buffer = queue->head;

    queue->head = buffer->next;
    if (!queue->head)
        queue->tail = &queue->head;
    note_waiting(vp, sint);
    return buffer;
}

/* The last access to the buffer: who sees it free may use it for another message, or give its memory back. */
static void free_buffer(struct hv_message_buffer *buffer)
{
    struct hv *hv = buffer->event_log ? buffer->vp->hv : NULL;

    atomic_store_explicit(&buffer->in_use, false, memory_order_release);
    if (hv)
        hv_event_log_message_freed(hv);
}

void hv_message_drop(struct hv_message_buffer *buffer)
{
    free_buffer(buffer);
}

void hv_message_unlink(struct hv_message_buffer *buffer)
{
    struct hv_vp *vp = buffer->vp;
    struct hv_message_queue *queue = &vp->queue[buffer->sint];
    struct hv_message_buffer **link = &queue->head;

    while (*link && *link != buffer)
        link = &(*link)->next;
    if (!*link)
        return;
    *link = buffer->next;
    if (!*link)
        queue->tail = link;
    note_waiting(vp, buffer->sint);
    free_buffer(buffer);
}

void hv_synic_reset(struct hv_vp *vp)
{
    hv_vp_lock_take(&vp->lock);
    atomic_store(&vp->scontrol, 0);
    atomic_store(&vp->siefp, 0);
    atomic_store(&vp->simp, 0);
    for (unsigned i = 0; i < HV_SYNIC_SINT_COUNT; i++) {
        atomic_store(&vp->sint[i], SINT_RESET);
        if (!vp->queue[i].tail)
            queue_init(&vp->queue[i]);
        while (vp->queue[i].head)
            free_buffer(queue_pop(vp, i));
    }
    memset(vp->sim_page, 0, HV_PAGE_SIZE);
    memset(vp->sief_page, 0, HV_PAGE_SIZE);
    hv_interrupt_update_auto_eoi(vp);
    hv_inject_reset(vp);
    vp->retry_set = false;
    hv_vp_lock_drop(&vp->lock);
    vp->hv->ops->set_timer(vp->hv->context, vp->handle, HV_VP_TIMER_MESSAGE_RETRY, HV_NANO100_NEVER);
}

/* -- Messages (TLFS 14.2) -- */

bool hv_sint_masked(struct hv_vp *vp, unsigned sint)
{
    return atomic_load(&vp->sint[sint]) & HV_SINT_MASKED;
}

static void interrupt_sint(struct hv_vp *vp, unsigned sint, struct hv_interrupts *interrupts)
{
    uint64_t value = atomic_load(&vp->sint[sint]);
    bool polling = vp->hv->config.generation == HV_GEN_CURRENT && (value & SINT_POLLING);

    if (!(value & HV_SINT_MASKED) && !polling)
        hv_interrupts_add(interrupts, HV_SINT_VECTOR(value));
}

static void fill_slot(struct hv_vp *vp, struct hv_message *slot, struct hv_message_buffer *buffer, bool more)
{
    struct hv_message *message = &buffer->message;

    if (buffer->timer >= 0) {
        /* The time it is placed in its slot (TLFS 16.4.1). */
        struct hv_timer_message_payload *payload = (struct hv_timer_message_payload *)(void *)message->payload;

        payload->delivery_time = hv_time_now(vp);
    }
    memcpy(slot->payload, message->payload, message->header.payload_size);
    slot->header.payload_size = message->header.payload_size;
    slot->header.reserved[0] = slot->header.reserved[1] = 0;
    slot->header.origination_id = message->header.origination_id;
    atomic_store_explicit(slot_flags(slot), more ? HV_MESSAGE_FLAG_PENDING : 0, memory_order_relaxed);
    atomic_store_explicit(slot_type(slot), message->header.message_type, memory_order_release);
}

/* Put a message, which is in no queue any more, into its slot, which is empty. */
static void deliver(struct hv_vp *vp, struct hv_message_buffer *buffer, struct hv_interrupts *interrupts)
{
    unsigned sint = buffer->sint;
    int timer = buffer->timer;

    fill_slot(vp, slot_of(vp, sint), buffer, vp->queue[sint].head != NULL);
    HV_LOG(vp, MESSAGE_DELIVER, buffer->log_id, sint, buffer->message.header.message_type);
    free_buffer(buffer);
    atomic_store_explicit(&vp->messages_delivered,
                          atomic_load_explicit(&vp->messages_delivered, memory_order_relaxed) + 1,
                          memory_order_relaxed); /* nobody else counts: the lock is held */
    interrupt_sint(vp, sint, interrupts);
    if (timer >= 0)
        hv_timer_message_delivered(vp, (unsigned)timer, interrupts);
}

/* Deliver the head of a queue if its slot is empty; otherwise say that it is there. Returns whether it was delivered.
 */
static bool deliver_head(struct hv_vp *vp, unsigned sint, struct hv_interrupts *interrupts)
{
    struct hv_message *slot = slot_of(vp, sint);

    if (atomic_load(slot_type(slot)) != HV_MESSAGE_TYPE_None) {
        atomic_fetch_or(slot_flags(slot), HV_MESSAGE_FLAG_PENDING);
        if (atomic_load(slot_type(slot)) != HV_MESSAGE_TYPE_None)
            return false;
    }
    deliver(vp, queue_pop(vp, sint), interrupts);
    return true;
}

/* A message that waits for its slot is tried again after a while, in case the guest forgets to ask (TLFS 14.2.4). */
static void set_retry(struct hv_vp *vp)
{
    const struct hv *hv = vp->hv;

    if (vp->retry_set)
        return;
    vp->retry_set = true;
    /* By the TSC, which goes on while reference time is stopped. */
    hv->ops->set_timer(hv->context, vp->handle, HV_VP_TIMER_MESSAGE_RETRY,
                       hv_machine_tsc(hv) + hv->config.tsc_frequency / MESSAGE_RETRIES_PER_SECOND);
}

static void deliver_queue(struct hv_vp *vp, unsigned sint, struct hv_interrupts *interrupts)
{
    if (!vp->queue[sint].head || !(atomic_load(&vp->simp) & HV_PAGE_MSR_ENABLE))
        return;
    while (vp->queue[sint].head) {
        if (!deliver_head(vp, sint, interrupts)) {
            set_retry(vp);
            return;
        }
    }
}

void hv_message_deliver_all(struct hv_vp *vp, struct hv_interrupts *interrupts)
{
    for (unsigned i = 0; i < HV_SYNIC_SINT_COUNT; i++)
        deliver_queue(vp, i, interrupts);
}

/* Whose message it is: a child's for its parent, a timer's or the event log's own, else that of who makes a call. */
static const struct hv_vp *sender_of(const struct hv_vp *receiver, const struct hv_message_buffer *buffer)
{
    if (buffer->intercept)
        return (const struct hv_vp *)(const void *)((const char *)buffer - offsetof(struct hv_vp, intercept_buffer));
    return buffer->timer >= 0 || buffer->event_log ? receiver : hv_calling_vp;
}

static void log_post(const struct hv_vp *vp, struct hv_message_buffer *buffer)
{
    const struct hv_vp *sender = sender_of(vp, buffer);

    buffer->log_id = atomic_fetch_add(&vp->hv->messages_logged, 1) + 1;
    HV_LOG_AT(vp->hv, sender, hv_event_lp(sender), MESSAGE_POST, buffer->log_id, vp->partition->id, vp->index,
              buffer->sint, buffer->message.header.message_type);
}

void hv_message_enqueue_now(struct hv_vp *vp, struct hv_message_buffer *buffer, struct hv_interrupts *interrupts)
{
    struct hv_message_queue *queue = &vp->queue[buffer->sint];

    if (HV_ATTENTION(vp->hv, HV_ATTENTION_MESSAGE_EVENTS))
        log_post(vp, buffer);
    buffer->vp = vp;
    if (!queue->head && (atomic_load(&vp->simp) & HV_PAGE_MSR_ENABLE) &&
        atomic_load(slot_type(slot_of(vp, buffer->sint))) == HV_MESSAGE_TYPE_None) {
        deliver(vp, buffer, interrupts); /* it need not wait */
        return;
    }
    buffer->next = NULL;
    *queue->tail = buffer;
    queue->tail = &buffer->next;
    note_waiting(vp, buffer->sint);
    deliver_queue(vp, buffer->sint, interrupts);
}

void hv_message_enqueue(struct hv_vp *vp, struct hv_message_buffer *buffer, struct hv_interrupts *interrupts)
{
    if (HV_INJECTING(vp->hv, HV_INJECT_MESSAGE))
        hv_inject_message(vp, buffer, interrupts);
    else
        hv_message_enqueue_now(vp, buffer, interrupts);
}

static void deliver_and_interrupt(struct hv_vp *vp)
{
    struct hv_interrupts interrupts = {{0}};

    hv_vp_lock_take(&vp->lock);
    hv_message_deliver_all(vp, &interrupts);
    hv_vp_lock_drop(&vp->lock);
    hv_interrupts_request(vp, &interrupts);
}

void hv_message_retry(struct hv_vp *vp)
{
    hv_vp_lock_take(&vp->lock);
    vp->retry_set = false;
    hv_vp_lock_drop(&vp->lock);
    deliver_and_interrupt(vp);
}

/* -- Event flags (TLFS 14.3) -- */

void hv_event_set_now(struct hv_vp *vp, unsigned sint, unsigned flag, struct hv_interrupts *interrupts)
{
    uint8_t *flags = vp->sief_page + sint * HV_EVENT_FLAGS_BYTE_COUNT;
    uint8_t bit = (uint8_t)(1u << (flag % 8));
    uint8_t before = atomic_fetch_or((_Atomic uint8_t *)(void *)&flags[flag / 8], bit);

    atomic_fetch_add_explicit(&vp->events_signaled, 1, memory_order_relaxed);
    HV_LOG(vp, EVENT_SIGNAL, sint, flag);
    if (!(before & bit))
        interrupt_sint(vp, sint, interrupts);
}

void hv_event_set(struct hv_vp *vp, unsigned sint, unsigned flag, struct hv_interrupts *interrupts)
{
    if (HV_INJECTING(vp->hv, HV_INJECT_EVENT))
        hv_inject_event(vp, sint, flag, interrupts);
    else
        hv_event_set_now(vp, sint, flag, interrupts);
}

/* -- Registers (TLFS 14.6) -- */

enum hv_exit hv_msr_read_scontrol(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    (void)offset;
    *value = atomic_load(&vp->scontrol);
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_write_scontrol(struct hv_vp *vp, uint32_t offset, uint64_t value)
{
    struct hv_interrupts interrupts = {{0}};

    (void)offset;
    hv_vp_lock_take(&vp->lock);
    atomic_store(&vp->scontrol, value);
    if (hv_synic_is_enabled(vp))
        hv_timer_signal_blocked(vp, &interrupts);
    hv_vp_lock_drop(&vp->lock);
    hv_interrupts_request(vp, &interrupts);
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_read_sversion(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    (void)vp;
    (void)offset;
    *value = 1; /* TLFS 14.6.2 */
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_read_siefp(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    (void)offset;
    *value = atomic_load(&vp->siefp);
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_write_siefp(struct hv_vp *vp, uint32_t offset, uint64_t value)
{
    (void)offset;
    atomic_store(&vp->siefp, value);
    hv_show_overlay(vp->partition, HV_OVERLAY_SIEF, vp->index, vp->sief_page, value, HV_OVERLAY_READ_WRITE);
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_read_simp(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    (void)offset;
    *value = atomic_load(&vp->simp);
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_write_simp(struct hv_vp *vp, uint32_t offset, uint64_t value)
{
    (void)offset;
    atomic_store(&vp->simp, value);
    hv_show_overlay(vp->partition, HV_OVERLAY_SIM, vp->index, vp->sim_page, value, HV_OVERLAY_READ_WRITE);
    deliver_and_interrupt(vp);
    return HV_EXIT_DONE;
}

/* TLFS 14.6.6: reads give zero. */
enum hv_exit hv_msr_read_eom(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    (void)vp;
    (void)offset;
    *value = 0;
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_write_eom(struct hv_vp *vp, uint32_t offset, uint64_t value)
{
    (void)offset;
    (void)value;
    deliver_and_interrupt(vp);
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_read_sint(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    *value = atomic_load(&vp->sint[offset]);
    return HV_EXIT_DONE;
}

/* The reset value has vector 0, so an invalid vector is tolerated while the source is masked. */
enum hv_exit hv_msr_write_sint(struct hv_vp *vp, uint32_t offset, uint64_t value)
{
    if (HV_SINT_VECTOR(value) < SINT_FIRST_VECTOR && !(value & HV_SINT_MASKED))
        return HV_EXIT_GP;
    atomic_store(&vp->sint[offset], value);
    hv_interrupt_update_auto_eoi(vp);
    return HV_EXIT_DONE;
}
