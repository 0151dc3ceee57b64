/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 15: reference time, the reference TSC page and the synthetic timers.
 *
 * There is one time base, the TSC as the guest reads it. Reference time is the page's own formula also for the counter
 * register, so the two never disagree. A timer is armed with the first TSC value at which reference time has reached
 * its due time, and looks at reference time again before it fires: it is never early.
 */
#include "inject.h"
#include "stats.h"

#include <string.h>

#define NANO100_PER_SECOND UINT64_C(10000000)

/* A periodic timer fires at most this often, whatever period the guest asked for: 50 us. */
#define MINIMUM_INTERVAL 500

#define STIMER_VECTOR(config) ((uint8_t)((config) >> 4))
#define STIMER_SINT(config) ((unsigned)((config) >> 16) & 0xF)
#define STIMER_RESERVED_2008R2 (~UINT64_C(0xF000F))
#define STIMER_RESERVED_CURRENT (~UINT64_C(0xF1FFF))

/* -- Reference time (TLFS 15.2, 15.4) -- */

/*
 * What the page adds to the scaled TSC. A child's VPs may see another TSC than the machine's; they see the same one, as
 * the page is the same for all, and it is the boot processor's. Where that is so the page may be a unit ahead of the
 * register, which takes a VP longer to get to.
 */
static int64_t page_offset(const struct hv_partition *partition)
{
    const struct hv_vp *vp = partition->parent ? partition->vps[0] : NULL;
    int64_t ahead = vp ? (int64_t)atomic_load(&vp->tsc_offset) : partition->hv->tsc_ahead;

    return partition->tsc_offset - (int64_t)(((__int128)ahead * partition->tsc_scale) >> 64);
}

static void publish(struct hv_partition *partition)
{
    struct hv_reference_tsc_page *page = partition->reference_tsc_page;

    page->tsc_sequence = 0; /* a reader that comes between falls back to the register */
    atomic_thread_fence(memory_order_seq_cst);
    page->tsc_scale = partition->tsc_scale;
    page->tsc_offset = page_offset(partition);
    atomic_thread_fence(memory_order_seq_cst);
    page->tsc_sequence = partition->tsc_sequence;
}

static uint32_t next_sequence(uint32_t sequence)
{
    return sequence >= UINT32_C(0xFFFFFFFE) ? 1 : sequence + 1; /* TLFS 15.4.3.2 */
}

void hv_publish_reference_tsc(struct hv_partition *partition)
{
    const struct hv_reference_tsc_page *page = partition->reference_tsc_page;

    hv_vp_lock_take(&partition->register_lock);
    if (partition->parent && page->tsc_sequence && page->tsc_offset != page_offset(partition))
        partition->tsc_sequence = next_sequence(partition->tsc_sequence);
    publish(partition);
    hv_vp_lock_drop(&partition->register_lock);
}

void hv_time_init(struct hv_partition *partition)
{
    /* (10^7 << 64) / frequency, truncated; the frequency is above 10^7, so it fits. */
    partition->tsc_scale =
        (uint64_t)(((unsigned __int128)NANO100_PER_SECOND << 64) / partition->hv->config.tsc_frequency);
    partition->tsc_sequence = 1;
    /* Reference time is zero when the partition is created (TLFS 15.2.1). */
    partition->tsc_offset = 0;
    partition->tsc_offset = -(int64_t)hv_time_from_tsc(partition, hv_machine_tsc(partition->hv));
    hv_publish_reference_tsc(partition);
    partition->emulated_timer_due = HV_NANO100_NEVER;
    if (partition->parent) {
        atomic_store(&partition->stopped_time, 0); /* until its first VP runs */
        atomic_store(&partition->time_stopped, true);
    }
}

void hv_set_tsc_ahead(struct hv *hv, int64_t ahead)
{
    struct hv_partition *partition = hv_machine_partition(hv);

    hv_vp_lock_take(&partition->register_lock);
    if (hv->tsc_ahead != ahead) {
        hv->tsc_ahead = ahead;
        partition->tsc_sequence = next_sequence(partition->tsc_sequence);
        publish(partition);
    }
    hv_vp_lock_drop(&partition->register_lock);
}

/* -- Time of a child stops while all its VPs are explicitly suspended (TLFS 15.1.2); the register lock is held -- */

static void stop_time(struct hv_partition *partition)
{
    atomic_store(&partition->stopped_time, hv_partition_time(partition));
    atomic_store(&partition->time_stopped, true);
}

static void continue_time(struct hv_partition *partition)
{
    uint64_t tsc = hv_machine_tsc(partition->hv);
    int64_t offset = (int64_t)(atomic_load(&partition->stopped_time) -
                               (uint64_t)(((unsigned __int128)tsc * partition->tsc_scale) >> 64));

    __atomic_store_n(&partition->tsc_offset, offset, __ATOMIC_RELAXED);
    partition->tsc_sequence = next_sequence(partition->tsc_sequence);
    publish(partition);
    atomic_store(&partition->time_stopped, false);
}

/* The platform's timers of all that goes by the partition's time; no lock held. */
static void set_timers(struct hv_partition *partition)
{
    for (hv_vp_index i = 0, left = partition->vp_count; left && i < partition->vp_limit; i++) {
        if (!partition->vps[i])
            continue;
        hv_timer_set_all(partition->vps[i]);
        left--;
    }
    hv_emulated_timer_set(partition);
}

void hv_time_vp_suspended(struct hv_vp *vp)
{
    struct hv_partition *partition = vp->partition;

    if (!partition || !partition->parent)
        return;
    hv_vp_lock_take(&partition->register_lock);
    if (--partition->active_vps == 0)
        stop_time(partition);
    hv_vp_lock_drop(&partition->register_lock);
}

void hv_time_vp_resumed(struct hv_vp *vp)
{
    struct hv_partition *partition = vp->partition;
    bool goes_on = false;

    if (!partition || !partition->parent)
        return;
    hv_vp_lock_take(&partition->register_lock);
    if (++partition->active_vps == 1) {
        continue_time(partition);
        goes_on = true;
    }
    hv_vp_lock_drop(&partition->register_lock);
    if (!goes_on)
        return;
    /* By what its TSC and reference time are ahead of the machine's. */
    HV_LOG_AT(vp->hv, vp, hv_event_lp(hv_calling_vp), PT_REFERENCE_TIME,
              atomic_load_explicit(&vp->tsc_offset, memory_order_relaxed),
              (uint64_t)__atomic_load_n(&partition->tsc_offset, __ATOMIC_RELAXED));
    set_timers(partition);
}

void hv_time_restored(struct hv_partition *partition)
{
    hv_vp_lock_take(&partition->register_lock);
    partition->active_vps = 0;
    for (hv_vp_index i = 0; partition->parent && i < partition->vp_limit; i++)
        partition->active_vps += partition->vps[i] && !(atomic_load(&partition->vps[i]->suspend) & HV_SUSPEND_EXPLICIT);
    if (partition->parent && !partition->active_vps != atomic_load(&partition->time_stopped))
        partition->active_vps ? continue_time(partition) : stop_time(partition);
    publish(partition);
    hv_vp_lock_drop(&partition->register_lock);
    set_timers(partition);
}

uint64_t hv_tsc_at_time(const struct hv_partition *partition, hv_nano100_time time)
{
    int64_t offset = __atomic_load_n(&partition->tsc_offset, __ATOMIC_RELAXED);
    __int128 ticks = (__int128)time - offset; /* of 100 ns, since the TSC was 0 */
    unsigned __int128 tsc;

    if (time == HV_NANO100_NEVER || ticks > UINT64_MAX || atomic_load(&partition->time_stopped))
        return HV_NANO100_NEVER;
    if (ticks <= 0)
        return 0;
    tsc = (((unsigned __int128)ticks << 64) + partition->tsc_scale - 1) / partition->tsc_scale;
    return tsc >= HV_NANO100_NEVER ? HV_NANO100_NEVER : (uint64_t)tsc;
}

hv_nano100_time hv_reference_time(struct hv_partition *partition)
{
    return hv_partition_time(partition);
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
    *value = atomic_load(&vp->partition->reference_tsc_msr);
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_write_reference_tsc(struct hv_vp *vp, uint32_t offset, uint64_t value)
{
    struct hv_partition *partition = vp->partition;

    (void)offset;
    atomic_store(&partition->reference_tsc_msr, value);
    if (value & HV_PAGE_MSR_ENABLE)
        hv_publish_reference_tsc(partition);
    hv_show_overlay(partition, HV_OVERLAY_REFERENCE_TSC, 0, partition->reference_tsc_bytes, value,
                    HV_OVERLAY_READ_WRITE);
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

    hv->ops->set_timer(hv->context, vp->handle, index, hv_tsc_at_time(vp->partition, time));
}

static void disarm(struct hv_vp *vp, unsigned index)
{
    struct hv_timer *timer = &vp->timer[index];

    timer->blocked = timer->injected = false;
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

    HV_LOG(vp, TIMER_EXPIRED, index);
    if (timer->config & HV_STIMER_DIRECT)
        hv_interrupts_add(interrupts, STIMER_VECTOR(timer->config));
    else if (atomic_load(&timer->buffer.in_use) || !hv_synic_is_enabled(vp))
        return false;
    else
        post_expiration(vp, index, time, interrupts);
    timer->expirations++;
    return true;
}

uint64_t hv_shortest_period(uint64_t period)
{
    return period / 2 > MINIMUM_INTERVAL ? period / 2 : MINIMUM_INTERVAL;
}

hv_nano100_time hv_next_period(hv_nano100_time *due, uint64_t period, unsigned catch_up, hv_nano100_time now)
{
    uint64_t behind, interval = hv_shortest_period(period);

    *due += period;
    behind = now > *due ? (now - *due) / period : 0;
    if (behind > catch_up)
        *due += (behind - catch_up) * period;
    return *due > now + interval ? *due : now + interval;
}

static void schedule_next_period(struct hv_vp *vp, unsigned index, hv_nano100_time now)
{
    struct hv_timer *timer = &vp->timer[index];
    unsigned catch_up = timer->config & HV_STIMER_LAZY ? 0 : HV_TIMER_CATCH_UP_PERIODS;

    set_platform_timer(vp, index, hv_next_period(&timer->due, timer->count, catch_up, now));
}

/* What rules of fault injection want with the expiration that is due; they are asked once about each. */
static void ask_rules(struct hv_vp *vp, unsigned index, struct hv_injected *injected)
{
    struct hv_timer *timer = &vp->timer[index];

    if (timer->injected)
        return;
    timer->injected = true;
    hv_inject(vp, HV_INJECT_TIMER, index, injected);
}

static void fire(struct hv_vp *vp, unsigned index, struct hv_interrupts *interrupts)
{
    struct hv_timer *timer = &vp->timer[index];
    hv_nano100_time now = hv_time_now(vp), due = timer->due;
    struct hv_injected injected;

    if (due == HV_NANO100_NEVER)
        return;
    if (now < due) {
        set_platform_timer(vp, index, due);
        return;
    }
    injected.action = HV_INJECT_NOTHING;
    if (HV_INJECTING(vp->hv, HV_INJECT_TIMER))
        ask_rules(vp, index, &injected);
    if (injected.action == HV_INJECT_DELAY) {
        vp->hv->ops->set_timer(vp->hv->context, vp->handle, index, hv_machine_tsc(vp->hv) + injected.delay);
        return;
    }
    if (!(timer->config & HV_STIMER_PERIODIC))
        timer->config &= ~HV_STIMER_ENABLE; /* TLFS 15.3.1: a one-shot timer that expired is disabled */
    timer->blocked = injected.action != HV_INJECT_DROP && !signal_expiration(vp, index, due, interrupts);
    if (timer->blocked)
        return; /* goes on when the message has been delivered, or the SynIC is enabled */
    timer->injected = false;
    if (injected.action == HV_INJECT_DOUBLE)
        hv_inject_second_expiration(vp, index, timer->config & HV_STIMER_DIRECT ? STIMER_VECTOR(timer->config) : -1,
                                    &injected);
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

    if (index == HV_VP_TIMER_STATS) {
        hv_stats_timer_expired(vp->hv);
        return;
    }
    if (vp->hv->lps)
        HV_COUNT_LP_SHARED(&vp->hv->lps[hv_vp_get_lp(vp)], TimerInterrupts);
    switch (index) {
    case HV_VP_TIMER_MESSAGE_RETRY:
        hv_message_retry(vp);
        return;
    case HV_VP_TIMER_APIC:
        hv_lapic_timer_expired(vp);
        return;
    case HV_VP_TIMER_EMULATED:
        hv_emulated_timer_expired(vp);
        return;
    case HV_VP_TIMER_MONITOR:
        hv_monitors_inspect(vp->hv);
        return;
    case HV_VP_TIMER_EVENT_LOG:
        hv_event_log_notify(vp->hv);
        return;
    case HV_VP_TIMER_PROFILER:
        hv_profiler_expired(vp->hv, vp->index);
        return;
    case HV_VP_TIMER_INJECT:
        hv_inject_expired(vp);
        return;
    }
    hv_vp_lock_take(&vp->lock);
    if (vp->partition && !vp->timer[index].blocked)
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

static uint64_t reserved_config_bits(const struct hv_partition *partition)
{
    if (partition->hv->config.generation == HV_GEN_2008R2)
        return STIMER_RESERVED_2008R2;
    if (!hv_has_feature(partition, HV_FEATURE_DirectSyntheticTimers))
        return STIMER_RESERVED_2008R2;
    return STIMER_RESERVED_CURRENT;
}

static enum hv_exit write_config(struct hv_vp *vp, unsigned index, uint64_t value)
{
    struct hv_interrupts interrupts = {{0}};

    if (value & reserved_config_bits(vp->partition))
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
