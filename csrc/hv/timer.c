/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 15: reference time, the reference TSC page and the synthetic timers.
 *
 * There is one time base, the TSC as the guest reads it. Reference time is the page's own formula also for the counter
 * register, so the two never disagree. A timer is armed with the first TSC value at which reference time has reached
 * its due time, and looks at reference time again before it fires: it is never early.
 */
#include "internal.h"

#include <string.h>

#define NANO100_PER_SECOND UINT64_C(10000000)

/* A periodic timer fires at most this often, whatever period the guest asked for: 50 us. */
#define MINIMUM_INTERVAL 500
/* A periodic timer that is further behind skips expirations (TLFS 15.1.4). */
#define MAXIMUM_CATCH_UP_PERIODS 16

#define STIMER_VECTOR(config) ((uint8_t)((config) >> 4))
#define STIMER_SINT(config) ((unsigned)((config) >> 16) & 0xF)
#define STIMER_RESERVED_2008R2 (~UINT64_C(0xF000F))
#define STIMER_RESERVED_CURRENT (~UINT64_C(0xF1FFF))

/* -- Reference time (TLFS 15.2, 15.4) -- */

void hv_time_init(struct hv *hv)
{
    /* (10^7 << 64) / frequency, truncated; the frequency is above 10^7, so it fits. */
    hv->tsc_scale = (uint64_t)(((unsigned __int128)NANO100_PER_SECOND << 64) / hv->config.tsc_frequency);
    hv->tsc_sequence = 1;
    /* Reference time is zero when the partition is created (TLFS 15.2.1). */
    hv->tsc_offset = 0;
    hv->tsc_offset = -(int64_t)hv_time_from_tsc(hv, hv->ops->read_tsc(hv->context, 0));
    hv_publish_reference_tsc(hv);
}

void hv_publish_reference_tsc(struct hv *hv)
{
    struct hv_reference_tsc_page *page = &hv->reference_tsc_page;

    page->tsc_sequence = 0; /* a reader that comes between falls back to the register */
    atomic_thread_fence(memory_order_seq_cst);
    page->tsc_scale = hv->tsc_scale;
    page->tsc_offset = hv->tsc_offset;
    atomic_thread_fence(memory_order_seq_cst);
    page->tsc_sequence = hv->tsc_sequence;
}

uint64_t hv_tsc_at_time(const struct hv *hv, hv_nano100_time time)
{
    __int128 ticks = (__int128)time - hv->tsc_offset; /* of 100 ns, since the TSC was 0 */
    unsigned __int128 tsc;

    if (time == HV_NANO100_NEVER || ticks > UINT64_MAX)
        return HV_NANO100_NEVER;
    if (ticks <= 0)
        return 0;
    tsc = (((unsigned __int128)ticks << 64) + hv->tsc_scale - 1) / hv->tsc_scale;
    return tsc >= HV_NANO100_NEVER ? HV_NANO100_NEVER : (uint64_t)tsc;
}

hv_nano100_time hv_reference_time(struct hv *hv)
{
    return hv_time_now(hv->vps[0]);
}

enum hv_exit hv_msr_read_time_ref_count(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    (void)offset;
    *value = hv_time_now(vp);
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_read_reference_tsc(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    (void)offset;
    *value = atomic_load(&vp->hv->reference_tsc_msr);
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_write_reference_tsc(struct hv_vp *vp, uint32_t offset, uint64_t value)
{
    struct hv *hv = vp->hv;

    (void)offset;
    atomic_store(&hv->reference_tsc_msr, value);
    if (value & HV_PAGE_MSR_ENABLE)
        hv_publish_reference_tsc(hv);
    hv_show_overlay(hv, HV_OVERLAY_REFERENCE_TSC, 0, hv->reference_tsc_bytes, value, HV_OVERLAY_READ_WRITE);
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_read_tsc_frequency(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    (void)offset;
    *value = vp->hv->config.tsc_frequency;
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_read_apic_frequency(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    (void)offset;
    *value = vp->hv->config.apic_frequency;
    return HV_EXIT_DONE;
}

/* -- Synthetic timers (TLFS 15.3); all static functions are called with the VP's lock held -- */

static void set_platform_timer(struct hv_vp *vp, unsigned index, hv_nano100_time time)
{
    const struct hv *hv = vp->hv;

    hv->ops->set_timer(hv->context, vp->index, index, hv_tsc_at_time(hv, time));
}

static void disarm(struct hv_vp *vp, unsigned index)
{
    struct hv_timer *timer = &vp->timer[index];

    timer->blocked = false;
    if (timer->due == HV_NANO100_NEVER)
        return;
    timer->due = HV_NANO100_NEVER;
    set_platform_timer(vp, index, HV_NANO100_NEVER);
}

/* The message of an expiration (TLFS 16.4.1); its delivery time is filled in when it gets its slot. */
static void post_expiration(struct hv_vp *vp, unsigned index, hv_nano100_time time, struct hv_interrupts *interrupts)
{
    struct hv_timer *timer = &vp->timer[index];
    struct hv_message_buffer *buffer = &timer->buffer;
    struct hv_timer_message_payload payload = {.timer_index = index, .expiration_time = time};

    atomic_store(&buffer->in_use, true);
    buffer->timer = (int8_t)index;
    buffer->sint = (uint8_t)STIMER_SINT(timer->config);
    buffer->message.header = (struct hv_message_header){
        .message_type = (uint32_t)HV_MESSAGE_TYPE_TimerExpired,
        .payload_size = sizeof(payload),
    };
    memcpy(buffer->message.payload, &payload, sizeof(payload));
    hv_message_enqueue(vp, buffer, interrupts);
}

/*
 * Signal one expiration. Returns false when it has to wait: the timer's message buffer is still waiting for its slot,
 * or the SynIC is disabled and takes no messages (TLFS 14.6.1).
 */
static bool signal_expiration(struct hv_vp *vp, unsigned index, hv_nano100_time time, struct hv_interrupts *interrupts)
{
    struct hv_timer *timer = &vp->timer[index];

    if (timer->config & HV_STIMER_DIRECT)
        hv_interrupts_add(interrupts, STIMER_VECTOR(timer->config));
    else if (atomic_load(&timer->buffer.in_use) || !hv_synic_is_enabled(vp))
        return false;
    else
        post_expiration(vp, index, time, interrupts);
    timer->expirations++;
    return true;
}

/*
 * The time of the next expiration, and when to look for it. A timer that is late catches up by a shortened period; a
 * lazy one, or one that is too far behind, skips what it missed (TLFS 15.1.4).
 */
static void schedule_next_period(struct hv_vp *vp, unsigned index, hv_nano100_time now)
{
    struct hv_timer *timer = &vp->timer[index];
    uint64_t period = timer->count, behind, interval;
    hv_nano100_time wake;

    timer->due += period;
    behind = now > timer->due ? (now - timer->due) / period : 0;
    if (timer->config & HV_STIMER_LAZY)
        timer->due += behind * period;
    else if (behind > MAXIMUM_CATCH_UP_PERIODS)
        timer->due += (behind - MAXIMUM_CATCH_UP_PERIODS) * period;
    interval = period / 2 > MINIMUM_INTERVAL ? period / 2 : MINIMUM_INTERVAL;
    wake = timer->due > now + interval ? timer->due : now + interval;
    set_platform_timer(vp, index, wake);
}

static void fire(struct hv_vp *vp, unsigned index, struct hv_interrupts *interrupts)
{
    struct hv_timer *timer = &vp->timer[index];
    hv_nano100_time now = hv_time_now(vp), due = timer->due;

    if (due == HV_NANO100_NEVER)
        return;
    if (now < due) {
        set_platform_timer(vp, index, due);
        return;
    }
    if (!(timer->config & HV_STIMER_PERIODIC))
        timer->config &= ~HV_STIMER_ENABLE; /* TLFS 15.3.1: a one-shot timer that expired is disabled */
    timer->blocked = !signal_expiration(vp, index, due, interrupts);
    if (timer->blocked)
        return; /* goes on when the message has been delivered, or the SynIC is enabled */
    if (timer->config & HV_STIMER_PERIODIC)
        schedule_next_period(vp, index, now);
    else if (timer->due == due)
        timer->due = HV_NANO100_NEVER;
}

void hv_timer_message_delivered(struct hv_vp *vp, unsigned index, struct hv_interrupts *interrupts)
{
    struct hv_timer *timer = &vp->timer[index];

    if (!timer->blocked)
        return;
    timer->blocked = false;
    if ((timer->config & HV_STIMER_PERIODIC) && (timer->config & HV_STIMER_LAZY))
        schedule_next_period(vp, index, hv_time_now(vp)); /* the expiration that could not be signaled is skipped */
    else
        fire(vp, index, interrupts);
}

void hv_timer_signal_blocked(struct hv_vp *vp, struct hv_interrupts *interrupts)
{
    for (unsigned i = 0; i < HV_SYNTHETIC_TIMER_COUNT; i++) {
        if (!atomic_load(&vp->timer[i].buffer.in_use))
            hv_timer_message_delivered(vp, i, interrupts);
    }
}

void hv_timer_expired(struct hv_vp *vp, unsigned index)
{
    struct hv_interrupts interrupts = {{0}};

    if (index == HV_VP_TIMER_MESSAGE_RETRY) {
        hv_message_retry(vp);
        return;
    }
    hv_vp_lock_take(&vp->lock);
    if (!vp->timer[index].blocked)
        fire(vp, index, &interrupts);
    hv_vp_lock_drop(&vp->lock);
    hv_interrupts_request(vp, &interrupts);
}

/* Arm an enabled timer: a one-shot for its time, a periodic one for a period from now. */
static void start(struct hv_vp *vp, unsigned index, struct hv_interrupts *interrupts)
{
    struct hv_timer *timer = &vp->timer[index];
    hv_nano100_time now = hv_time_now(vp);

    timer->blocked = false;
    timer->due = timer->count;
    if (timer->config & HV_STIMER_PERIODIC) /* a period that goes beyond the end of time must not wrap into the past */
        timer->due = timer->count < HV_NANO100_NEVER - now ? now + timer->count : HV_NANO100_NEVER;
    if (timer->due == HV_NANO100_NEVER)
        timer->due--; /* never and the last moment are the same to a guest */
    if (timer->due <= now)
        fire(vp, index, interrupts);
    else
        set_platform_timer(vp, index, timer->due);
}

/* An enabled timer that sends messages may not use SINT 0 (TLFS 15.3.1). */
static uint64_t enable_allowed(uint64_t config)
{
    if (!(config & HV_STIMER_DIRECT) && STIMER_SINT(config) == 0)
        config &= ~HV_STIMER_ENABLE;
    return config;
}

static void restart(struct hv_vp *vp, unsigned index, struct hv_interrupts *interrupts)
{
    disarm(vp, index);
    if ((vp->timer[index].config & HV_STIMER_ENABLE) && vp->timer[index].count)
        start(vp, index, interrupts);
}

static uint64_t reserved_config_bits(const struct hv *hv)
{
    if (hv->config.generation == HV_GEN_2008R2)
        return STIMER_RESERVED_2008R2;
    if (!hv_has_feature(hv, HV_FEATURE_DirectSyntheticTimers))
        return STIMER_RESERVED_2008R2;
    return STIMER_RESERVED_CURRENT;
}

static enum hv_exit write_config(struct hv_vp *vp, unsigned index, uint64_t value)
{
    struct hv_interrupts interrupts = {{0}};

    if (value & reserved_config_bits(vp->hv))
        return HV_EXIT_GP;
    hv_vp_lock_take(&vp->lock);
    vp->timer[index].config = enable_allowed(value);
    restart(vp, index, &interrupts);
    hv_vp_lock_drop(&vp->lock);
    hv_interrupts_request(vp, &interrupts);
    return HV_EXIT_DONE;
}

static enum hv_exit write_count(struct hv_vp *vp, unsigned index, uint64_t value)
{
    struct hv_timer *timer = &vp->timer[index];
    struct hv_interrupts interrupts = {{0}};

    hv_vp_lock_take(&vp->lock);
    timer->count = value;
    if (value == 0)
        timer->config &= ~HV_STIMER_ENABLE;
    else if (timer->config & HV_STIMER_AUTO_ENABLE)
        timer->config = enable_allowed(timer->config | HV_STIMER_ENABLE);
    restart(vp, index, &interrupts);
    hv_vp_lock_drop(&vp->lock);
    hv_interrupts_request(vp, &interrupts);
    return HV_EXIT_DONE;
}

/* Registers alternate: configuration and count of timer 0, of timer 1, ... (TLFS 15.3). */
enum hv_exit hv_msr_read_stimer(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    const struct hv_timer *timer = &vp->timer[offset / 2];

    hv_vp_lock_take(&vp->lock);
    *value = offset % 2 ? timer->count : timer->config;
    hv_vp_lock_drop(&vp->lock);
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_write_stimer(struct hv_vp *vp, uint32_t offset, uint64_t value)
{
    return offset % 2 ? write_count(vp, offset / 2, value) : write_config(vp, offset / 2, value);
}

void hv_timer_reset(struct hv_vp *vp)
{
    hv_vp_lock_take(&vp->lock);
    for (unsigned i = 0; i < HV_SYNTHETIC_TIMER_COUNT; i++) {
        struct hv_timer *timer = &vp->timer[i];

        timer->config = timer->count = 0;
        timer->due = 0; /* so that the platform's timer is cancelled, whatever was set */
        disarm(vp, i);
    }
    hv_vp_lock_drop(&vp->lock);
}

void hv_timer_set_all(struct hv_vp *vp)
{
    hv_vp_lock_take(&vp->lock);
    for (unsigned i = 0; i < HV_SYNTHETIC_TIMER_COUNT; i++) {
        if (!vp->timer[i].blocked)
            set_platform_timer(vp, i, vp->timer[i].due);
    }
    hv_vp_lock_drop(&vp->lock);
}
