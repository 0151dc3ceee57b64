/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The one time base: a guest TSC of a told frequency that follows QEMU's virtual clock.
 *
 * Reading the virtual clock takes too long for RDTSC, so between looks at it the TSC goes on at a known rate from the
 * host's TSC. Each look corrects the rate, never the value: what is read is continuous, and it never decreases.
 * Where the host's TSC is no clock, and under icount, every read asks the virtual clock.
 */
#include "module.h"

#include "hw/core/cpu.h"
#include "qapi/error.h"
#include "system/cpu-timers.h"

#ifdef __x86_64__
#include <cpuid.h>
#endif

#define RATE_SHIFT 56
#define SECOND INT64_C(1000000000) /* ns */
#define FIRST_INTERVAL (SECOND / 1000)
#define LAST_INTERVAL SECOND
#define MINIMUM_MEASUREMENT (5 * SECOND / 1000)
#define FREQUENCY_UNIT 1000000 /* Hz: a told frequency is rounded to this */
#define MAXIMUM_FREQUENCY UINT64_C(100000000000)

/* A rate is corrected by at most 1/2048 to catch up; clocks that differ by more than 1/512 are not believed. */
#define SLEW_LIMIT(rate) ((rate) >> 11)
#define DRIFT_LIMIT(rate) ((rate) >> 9)
/* Being further off than this, in ns, is no drift: the host was suspended or moved. The TSC goes on from where it is.
 */
#define JUMP_LIMIT (10 * SECOND / 1000)

static bool host_tsc_is_a_clock(void)
{
#ifdef __x86_64__
    unsigned eax, ebx, ecx, edx;

    return __get_cpuid(0x80000007, &eax, &ebx, &ecx, &edx) && (edx & (1u << 8));
#else
    return false;
#endif
}

/* Read both clocks close together. Returns false when this thread was interrupted each time it tried. */
static bool sample(uint64_t *host, int64_t *ns, int64_t (*read_ns)(void), uint64_t tolerance)
{
    for (int attempt = 0; attempt < 8; attempt++) {
        uint64_t before = (uint64_t)cpu_get_host_ticks(), after;

        *ns = read_ns();
        after = (uint64_t)cpu_get_host_ticks();
        if (after - before <= tolerance) {
            *host = before + (after - before) / 2;
            return true;
        }
    }
    return false;
}

#define SAMPLE_TOLERANCE 4000 /* host ticks */

static int64_t virtual_ns(void)
{
    return qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
}

static uint64_t ns_to_ticks(const struct mshv_clock *clock, int64_t ns)
{
    return (uint64_t)((unsigned __int128)(uint64_t)ns * clock->frequency / (uint64_t)SECOND);
}

int64_t mshv_clock_ticks_to_ns(const struct mshv_clock *clock, uint64_t ticks)
{
    unsigned __int128 ns = ((unsigned __int128)ticks * (uint64_t)SECOND + clock->frequency - 1) / clock->frequency;

    return ns > INT64_MAX / 2 ? INT64_MAX / 2 : (int64_t)ns;
}

/* -- The line -- */

static uint64_t ns_to_host_ticks(const struct mshv_clock *clock, int64_t ns)
{
    return (uint64_t)((unsigned __int128)(uint64_t)ns * clock->host_frequency / (uint64_t)SECOND);
}

static uint64_t line_at(uint64_t anchor_host, uint64_t anchor_guest, uint64_t rate, uint64_t host)
{
    int64_t passed = (int64_t)(host - anchor_host);

    /* A thread that sampled the host's TSC just before another one moved the anchor. */
    if (passed < 0)
        return anchor_guest;
    return anchor_guest + (uint64_t)(((unsigned __int128)(uint64_t)passed * rate) >> RATE_SHIFT);
}

/* Not before all that came earlier in this thread is done. */
static uint64_t host_ticks_in_order(void)
{
#ifdef __x86_64__
    __builtin_ia32_lfence();
#endif
    return (uint64_t)cpu_get_host_ticks();
}

static void begin_change(struct mshv_clock *clock)
{
    qatomic_set(&clock->sequence, clock->sequence + 1);
    smp_mb();
}

static void end_change(struct mshv_clock *clock, uint64_t host, uint64_t guest, uint64_t rate, uint64_t valid_for)
{
    qatomic_set(&clock->anchor_host, host);
    qatomic_set(&clock->anchor_guest, guest);
    qatomic_set(&clock->rate, rate);
    qatomic_set(&clock->valid_for, valid_for);
    smp_wmb();
    qatomic_set(&clock->sequence, clock->sequence + 1);
}

/* While no VP runs: stand at, or start from, a value. */
static void set_line(struct mshv_clock *clock, uint64_t host, uint64_t guest, uint64_t rate, uint64_t valid_for)
{
    begin_change(clock);
    end_change(clock, host, guest, rate, valid_for);
}

/*
 * Go on from now with another rate. The line is bent while readers are kept out, so that none has read, on the old
 * line, a value from beyond the bend.
 */
static void bend_line(struct mshv_clock *clock, uint64_t rate, uint64_t valid_for)
{
    uint64_t host;

    begin_change(clock);
    host = host_ticks_in_order();
    end_change(clock, host, line_at(clock->anchor_host, clock->anchor_guest, clock->rate, host), rate, valid_for);
}

static uint64_t clamp_difference(uint64_t value, uint64_t around, uint64_t limit)
{
    return value < around - limit || value > around + limit ? around : value;
}

/* Measure the rate since the last look, but only believe what a clock can do. */
static void measure_rate(struct mshv_clock *clock, uint64_t host, int64_t ns)
{
    uint64_t host_passed = host - clock->sample_host;
    uint64_t guest_passed = ns_to_ticks(clock, ns - clock->sample_virtual);

    if (ns > clock->sample_virtual && host_passed > 0 && guest_passed < UINT64_C(1) << 62) {
        unsigned __int128 rate = ((unsigned __int128)guest_passed << RATE_SHIFT) / host_passed;

        if (rate < UINT64_MAX)
            clock->measured_rate =
                clamp_difference((uint64_t)rate, clock->measured_rate, DRIFT_LIMIT(clock->nominal_rate));
    }
    clock->sample_host = host;
    clock->sample_virtual = ns;
}

/* The rate that makes up for being `behind` ticks within the next interval. */
static uint64_t corrected_rate(const struct mshv_clock *clock, int64_t behind)
{
    __int128 correction = ((__int128)behind << RATE_SHIFT) / (int64_t)clock->interval;
    int64_t limit = (int64_t)SLEW_LIMIT(clock->measured_rate);

    if (correction > limit)
        correction = limit;
    if (correction < -limit)
        correction = -limit;
    return clock->measured_rate + (uint64_t)(int64_t)correction;
}

static void look_at_virtual_clock(struct mshv_clock *clock)
{
    uint64_t host, guest, last_interval = ns_to_host_ticks(clock, LAST_INTERVAL);
    int64_t ns, behind;

    if (!sample(&host, &ns, virtual_ns, SAMPLE_TOLERANCE))
        return; /* the line still holds */
    guest = line_at(clock->anchor_host, clock->anchor_guest, clock->rate, host);
    behind = (int64_t)(ns_to_ticks(clock, ns) + (uint64_t)clock->offset - guest);
    if ((uint64_t)ABS(behind) > ns_to_ticks(clock, JUMP_LIMIT)) {
        clock->offset -= behind;
        behind = 0;
    }
    measure_rate(clock, host, ns);
    clock->interval = MIN(clock->interval * 2, last_interval);
    bend_line(clock, corrected_rate(clock, behind), clock->interval);
}

static uint64_t read_exactly(const struct mshv_clock *clock)
{
    if (qatomic_read(&clock->rate) == 0)
        return qatomic_read(&clock->anchor_guest);
    return ns_to_ticks(clock, virtual_ns()) + (uint64_t)clock->offset;
}

uint64_t mshv_clock_read(struct mshv_clock *clock)
{
    uint64_t host, anchor_host, anchor_guest, rate, valid_for;
    unsigned sequence;

    if (unlikely(clock->exact)) {
        uint64_t tsc = read_exactly(clock);

        qatomic_set(&clock->last_exact, tsc);
        return tsc;
    }
    do {
        sequence = qatomic_load_acquire(&clock->sequence);
        host = (uint64_t)cpu_get_host_ticks();
        anchor_host = qatomic_read(&clock->anchor_host);
        anchor_guest = qatomic_read(&clock->anchor_guest);
        rate = qatomic_read(&clock->rate);
        valid_for = qatomic_read(&clock->valid_for);
        smp_rmb();
    } while (unlikely((sequence & 1) || sequence != qatomic_read(&clock->sequence)));
    if (unlikely(host - anchor_host > valid_for && (int64_t)(host - anchor_host) > 0)) {
        if (qemu_mutex_trylock(&clock->lock) == 0) {
            if (clock->rate)
                look_at_virtual_clock(clock);
            qemu_mutex_unlock(&clock->lock);
        }
    }
    return line_at(anchor_host, anchor_guest, rate, host);
}

/* -- Stopping and starting -- */

void mshv_clock_stop(struct mshv_clock *clock)
{
    uint64_t tsc = mshv_clock_read(clock);

    qemu_mutex_lock(&clock->lock);
    set_line(clock, 0, tsc, 0, UINT64_MAX);
    qemu_mutex_unlock(&clock->lock);
}

void mshv_clock_resume(struct mshv_clock *clock)
{
    uint64_t host = (uint64_t)cpu_get_host_ticks(), tsc;
    int64_t ns = virtual_ns();

    qemu_mutex_lock(&clock->lock);
    tsc = clock->anchor_guest;
    if (!clock->exact)
        sample(&host, &ns, virtual_ns, SAMPLE_TOLERANCE); /* or what was read above, only less exact */
    clock->sample_host = host;
    clock->sample_virtual = ns;
    clock->offset = (int64_t)(tsc - ns_to_ticks(clock, ns));
    clock->interval = ns_to_host_ticks(clock, FIRST_INTERVAL);
    set_line(clock, host, tsc, clock->measured_rate, clock->parallel ? UINT64_MAX : clock->interval);
    qemu_mutex_unlock(&clock->lock);
}

/* Hosts of the same kind measure their TSC's frequency a little differently at each boot. */
static bool is_about(uint64_t frequency, uint64_t other)
{
    return frequency <= other + other / 4000 && other <= frequency + frequency / 4000;
}

bool mshv_clock_set(struct mshv_clock *clock, uint64_t frequency, uint64_t tsc, Error **errp)
{
    unsigned __int128 rate = ((unsigned __int128)frequency << RATE_SHIFT) / clock->host_frequency;

    if (clock->parallel) {
        if (!is_about(frequency, clock->host_frequency)) {
            error_setg(errp,
                       "a TSC frequency of %" PRIu64 " Hz is not possible here: the processor's is %" PRIu64 " Hz",
                       frequency, clock->host_frequency);
            return false;
        }
        rate = (unsigned __int128)1 << RATE_SHIFT;
    }
    if (frequency <= 10000000 || frequency > MAXIMUM_FREQUENCY || rate >= UINT64_MAX) {
        error_setg(errp,
                   "a TSC frequency of %" PRIu64 " Hz is not supported; it must be above 10 MHz and at most "
                   "100 GHz",
                   frequency);
        return false;
    }
    qemu_mutex_lock(&clock->lock);
    clock->frequency = frequency;
    clock->nominal_rate = clock->measured_rate = (uint64_t)rate;
    set_line(clock, 0, tsc, 0, UINT64_MAX);
    qemu_mutex_unlock(&clock->lock);
    return true;
}

/* -- The host's frequency -- */

void mshv_clock_start_measuring(struct mshv_clock *clock)
{
    if (!sample(&clock->start_host, &clock->start_ns, get_clock, SAMPLE_TOLERANCE)) {
        clock->start_ns = get_clock();
        clock->start_host = (uint64_t)cpu_get_host_ticks();
    }
}

/* In Hz; 0 when it cannot be told. */
static uint64_t measure_host_frequency(const struct mshv_clock *clock)
{
    int64_t passed = get_clock() - clock->start_ns, ns;
    uint64_t host;

    if (passed < MINIMUM_MEASUREMENT)
        g_usleep((gulong)((MINIMUM_MEASUREMENT - passed) / 1000 + 1));
    if (!sample(&host, &ns, get_clock, SAMPLE_TOLERANCE))
        return 0;
    return (uint64_t)((unsigned __int128)(host - clock->start_host) * (uint64_t)SECOND /
                      (uint64_t)(ns - clock->start_ns));
}

bool mshv_clock_init(struct mshv_clock *clock, uint64_t frequency, Error **errp)
{
    uint64_t host_frequency = host_tsc_is_a_clock() ? measure_host_frequency(clock) : 0;

    qemu_mutex_init(&clock->lock);
    clock->exact = icount_enabled() || host_frequency < FREQUENCY_UNIT;
    if (host_frequency < FREQUENCY_UNIT)
        host_frequency = (uint64_t)SECOND;
    if (!frequency)
        frequency = (host_frequency + FREQUENCY_UNIT / 2) / FREQUENCY_UNIT * FREQUENCY_UNIT;
    clock->host_frequency = host_frequency;
    return mshv_clock_set(clock, frequency, 0, errp);
}

bool mshv_clock_init_parallel(struct mshv_clock *clock, uint64_t frequency, Error **errp)
{
    qemu_mutex_init(&clock->lock);
    clock->parallel = true;
    clock->host_frequency = frequency;
    return mshv_clock_set(clock, frequency, 0, errp);
}

/* In the middle of a block of code an exact clock cannot be read: it stands where it was when it was read last. */
/* Under icount the time is known at the end of a block of code only, and who asks before gets that one. */
uint64_t mshv_sample_tsc(void *context)
{
    struct mshv_clock *clock = &((MicrosoftHypervisor *)context)->clock;

    if (unlikely(clock->exact) && current_cpu && !current_cpu->neg.can_do_io)
        return qatomic_read(&clock->last_exact);
    return mshv_clock_read(clock);
}

/* For registers: reading one is not done ahead of time, as RDTSC may be. */
uint64_t mshv_read_tsc(void *context, hv_vp_index vp)
{
#ifdef __x86_64__
    __builtin_ia32_lfence();
#endif
    return mshv_clock_read(&((MicrosoftHypervisor *)context)->clock);
}
