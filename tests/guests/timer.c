/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLFS chapter 15: reference time by register and by page, and the synthetic timers. Times are in units of 100 ns. */
#include "guest.h"

#define VECTOR 0x72
#define DIRECT_VECTOR 0xED
#define MS 10000 /* in 100 ns */
#define SINT 4

static struct hv_message *messages[GUEST_MAX_CPUS];
static struct hv_reference_tsc *tsc_page;

void guest_cleanup(void)
{
    hv_reset_state();
}

static uint64_t now(void)
{
    return rdmsr(HV_MSR_TIME_REF_COUNT);
}

static struct hv_message *slot(void)
{
    return &messages[cpu_index()][SINT];
}

static const struct hv_timer_payload *payload(void)
{
    return (const struct hv_timer_payload *)slot()->payload;
}

static void enable_messages(void *argument)
{
    (void)argument;
    wrmsr(HV_MSR_SIMP, (uintptr_t)messages[cpu_index()] | HV_MSR_ENABLE);
    wrmsr(HV_MSR_SCONTROL, 1);
}

static void enable_all_messages(void)
{
    for (unsigned i = 0; i < cpu_count(); i++) {
        messages[i] = page_alloc(1);
    }
    smp_run_all(enable_messages, NULL);
}

static void end_message(void)
{
    slot()->type = 0;
    wrmsr(HV_MSR_EOM, 0);
}

static void start_one_shot(unsigned timer, uint64_t time)
{
    wrmsr(HV_MSR_STIMER_CONFIG(timer), HV_STIMER_SINT(SINT) | HV_STIMER_AUTO_ENABLE);
    wrmsr(HV_MSR_STIMER_COUNT(timer), time);
}

/* -- Reference counter (15.2) -- */

CHECK(counter_is_read_only, "15.2.1: a write is #GP")
{
    EXPECT_WRMSR_FAULT(HV_MSR_TIME_REF_COUNT, 0, VECTOR_GP);
}

/*
 * That a counter counts at `frequency` Hz. Two looks at the clock enclose each look at the counter, so a busy host
 * makes the bounds wider but never wrong. 0.1 %: the counter may be slewed to stay with the machine's clock.
 */
static void check_rate(uint64_t (*read)(void), uint64_t frequency)
{
    uint64_t a0 = clock_nanoseconds(), c0 = read(), b0 = clock_nanoseconds();
    clock_delay(50000);
    uint64_t a1 = clock_nanoseconds(), c1 = read(), b1 = clock_nanoseconds();
    uint64_t ticks = c1 - c0, microticks = frequency / 1000000;
    uint64_t least = (a1 - b0) * microticks / 1000, most = (b1 - a0) * microticks / 1000;
    EXPECT_THAT(ticks + ticks / 1000 + 1 >= least && ticks <= most + most / 1000 + 1,
                "%llu ticks at %llu Hz, expected %llu to %llu", (unsigned long long)ticks,
                (unsigned long long)frequency, (unsigned long long)least, (unsigned long long)most);
}

CHECK(counter_has_the_right_rate, "15.1.2: 100 ns units of a constant-rate source")
{
    check_rate(now, 10000000);
}

static volatile uint64_t latest;
static struct spinlock latest_lock;

static void read_in_turn(void *argument)
{
    (void)argument;
    for (unsigned i = 0; i < 3000; i++) {
        spinlock_lock(&latest_lock);
        uint64_t before = latest, time = now();
        latest = time;
        spinlock_unlock(&latest_lock);
        EXPECT_THAT(time >= before, "VP %u read %llu after %llu was read", cpu_index(), (unsigned long long)time,
                    (unsigned long long)before);
    }
}

CHECK(counter_never_decreases, "15.1.2: as seen by any and all VPs")
{
    latest = 0;
    uint64_t begin = now();
    smp_run_all(read_in_turn, NULL);
    EXPECT(latest > begin);
}

/* -- Reference TSC page (15.4) -- */

static void enable_tsc_page(void)
{
    tsc_page = page_alloc(1);
    wrmsr(HV_MSR_REFERENCE_TSC, (uintptr_t)tsc_page | HV_MSR_ENABLE);
}

CHECK(tsc_page_register, "15.4.1: bits 11:1 are RsvdP; before the OS identity is set")
{
    volatile uint64_t *page = memset(page_alloc(1), 0xA5, PAGE_SIZE);
    EXPECT_EQ(rdmsr(HV_MSR_GUEST_OS_ID), 0);
    wrmsr(HV_MSR_REFERENCE_TSC, (uintptr_t)page | 0xFFF);
    EXPECT_EQ(rdmsr(HV_MSR_REFERENCE_TSC), (uintptr_t)page | 0xFFF);
    EXPECT(page[1] != 0xA5A5A5A5A5A5A5A5);
    wrmsr(HV_MSR_REFERENCE_TSC, 0);
    EXPECT_EQ(page[0], 0xA5A5A5A5A5A5A5A5);
    EXPECT_EQ(page[1], 0xA5A5A5A5A5A5A5A5);
}

CHECK(tsc_page_beyond_the_gpa_space, "15.4.1: not accessible to the guest, and no fault")
{
    EXPECT_WRMSR_FAULT(HV_MSR_REFERENCE_TSC, hv_gpa_limit() | HV_MSR_ENABLE, NO_FAULT);
    EXPECT_EQ(rdmsr(HV_MSR_REFERENCE_TSC), hv_gpa_limit() | HV_MSR_ENABLE);
}

CHECK(tsc_page_is_usable, "15.4.3: sequence, scale; reserved fields 0")
{
    enable_tsc_page();
    EXPECT(tsc_page->sequence != 0 && tsc_page->sequence != 0xFFFFFFFF);
    EXPECT(tsc_page->scale != 0);
    EXPECT_EQ(tsc_page->reserved, 0);
    for (unsigned i = 3; i < PAGE_SIZE / 8; i++) {
        EXPECT_EQ(((volatile uint64_t *)tsc_page)[i], 0);
    }
}

#define BRACKET_ROUNDS 100000

static void bracket_register(void *argument)
{
    (void)argument;
    for (unsigned i = 0; i < BRACKET_ROUNDS; i++) {
        uint64_t first, second;
        bool valid = hv_tsc_page_time(tsc_page, &first);
        uint64_t middle = now();
        valid = hv_tsc_page_time(tsc_page, &second) && valid;
        if (!valid || first > middle || middle > second) {
            check_fail(__FILE__, __LINE__, "VP %u, round %u: page %llu, register %llu, page %llu", cpu_index(), i,
                       (unsigned long long)first, (unsigned long long)middle, (unsigned long long)second);
            check_abort();
        }
    }
}

CHECK(register_lies_between_page_reads, "15.1.2, 15.4: one time base, no tolerance, on every VP")
{
    enable_tsc_page();
    smp_run_all(bracket_register, NULL);
}

static void read_page_in_turn(void *argument)
{
    (void)argument;
    for (unsigned i = 0; i < 3000; i++) {
        uint64_t time = 0;
        spinlock_lock(&latest_lock);
        uint64_t before = latest;
        bool valid = hv_tsc_page_time(tsc_page, &time);
        latest = time;
        spinlock_unlock(&latest_lock);
        EXPECT_THAT(valid && time >= before, "VP %u computed %llu after %llu", cpu_index(), (unsigned long long)time,
                    (unsigned long long)before);
    }
}

CHECK(page_time_never_decreases, "15.4.3: the TSC is one for all VPs")
{
    latest = 0;
    enable_tsc_page();
    smp_run_all(read_page_in_turn, NULL);
}

CHECK(frequency_registers, "later: in Hz, and they agree with the page", .generations = GENERATION_CURRENT)
{
    enable_tsc_page();
    uint64_t tsc = rdmsr(HV_MSR_TSC_FREQUENCY), apic = rdmsr(HV_MSR_APIC_FREQUENCY);
    EXPECT_WRMSR_FAULT(HV_MSR_TSC_FREQUENCY, tsc, VECTOR_GP);
    EXPECT_WRMSR_FAULT(HV_MSR_APIC_FREQUENCY, apic, VECTOR_GP);
    /* 10^7 units a second; the scale and the product are both rounded down. */
    uint64_t units = multiply_high(tsc_page->scale, tsc);
    EXPECT_THAT(units == 10000000 || units == 9999999, "TSC frequency %llu Hz and scale %llx give %llu units a second",
                (unsigned long long)tsc, (unsigned long long)tsc_page->scale, (unsigned long long)units);
    EXPECT(apic > 1000000);
}

CHECK(tsc_frequency_is_true, "later: the TSC as the guest reads it", .generations = GENERATION_CURRENT)
{
    check_rate(rdtsc, rdmsr(HV_MSR_TSC_FREQUENCY));
}

static uint64_t apic_ticks(void)
{
    return 0xFFFFFFFFu - apic_read(APIC_TIMER_CURRENT);
}

CHECK(apic_frequency_is_true, "later: the local APIC timer's, divided by 1", .generations = GENERATION_CURRENT)
{
    apic_write(APIC_TIMER_DIVIDE, 0xB);
    apic_write(APIC_TIMER_INITIAL, 0xFFFFFFFF); /* its interrupt is masked, and four seconds away */
    check_rate(apic_ticks, rdmsr(HV_MSR_APIC_FREQUENCY));
    apic_write(APIC_TIMER_INITIAL, 0);
}

/* -- Timer registers (15.3) -- */

static uint64_t reserved_config_bits(void)
{
    return guest_generation() == GENERATION_2008R2 ? ~(uint64_t)0xF000F : ~(uint64_t)0xF1FFF;
}

CHECK(timer_reset_values, "15.3.1: disabled by default")
{
    for (unsigned i = 0; i < 4; i++) {
        EXPECT_EQ(rdmsr(HV_MSR_STIMER_CONFIG(i)), 0);
        EXPECT_EQ(rdmsr(HV_MSR_STIMER_COUNT(i)), 0);
    }
}

CHECK(timer_config_reserved_bits, "15.3.1: bits 63:20 and 15:4 are RsvdZ (later: 12:4 have a meaning)")
{
    for (unsigned bit = 0; bit < 64; bit++) {
        uint64_t value = 1ull << bit;
        if (value & HV_STIMER_ENABLE) {
            continue;
        }
        EXPECT_WRMSR_FAULT(HV_MSR_STIMER_CONFIG(1), value, value & reserved_config_bits() ? VECTOR_GP : NO_FAULT);
    }
}

CHECK(timer_without_a_sint, "15.3.1: SINTx 0 in an enabled timer disables it at once")
{
    wrmsr(HV_MSR_STIMER_COUNT(0), UINT64_MAX / 2);
    wrmsr(HV_MSR_STIMER_CONFIG(0), HV_STIMER_ENABLE);
    EXPECT_EQ(rdmsr(HV_MSR_STIMER_CONFIG(0)) & HV_STIMER_ENABLE, 0);
    EXPECT_EQ(rdmsr(HV_MSR_STIMER_COUNT(0)), UINT64_MAX / 2);
    wrmsr(HV_MSR_STIMER_CONFIG(0), HV_STIMER_AUTO_ENABLE);
    wrmsr(HV_MSR_STIMER_COUNT(0), UINT64_MAX / 2);
    EXPECT_EQ(rdmsr(HV_MSR_STIMER_CONFIG(0)) & HV_STIMER_ENABLE, 0);
}

CHECK(timer_auto_enable, "15.3.1: writing a count enables")
{
    start_one_shot(0, now() + 1000000ull * MS);
    EXPECT(rdmsr(HV_MSR_STIMER_CONFIG(0)) & HV_STIMER_ENABLE);
    wrmsr(HV_MSR_STIMER_CONFIG(0), HV_STIMER_SINT(SINT));
    wrmsr(HV_MSR_STIMER_COUNT(0), now() + 1000000ull * MS);
    EXPECT_EQ(rdmsr(HV_MSR_STIMER_CONFIG(0)) & HV_STIMER_ENABLE, 0);
}

/* Start a timer and stop it by writing `value` to register `index`; false when its time had come before it was stopped.
 */
static bool start_and_stop(uint32_t index, uint64_t value)
{
    uint64_t time = now() + 5 * MS;
    start_one_shot(0, time);
    bool enabled = rdmsr(HV_MSR_STIMER_CONFIG(0)) & HV_STIMER_ENABLE;
    wrmsr(index, value);
    if (now() >= time) {
        end_message();
        return false;
    }
    EXPECT(enabled);
    clock_delay(8000);
    return true;
}

static void check_stop(uint32_t index, uint64_t value)
{
    unsigned attempts = 0;
    enable_all_messages();
    while (!start_and_stop(index, value)) {
        REQUIRE(++attempts < 50);
    }
    EXPECT_EQ(rdmsr(HV_MSR_STIMER_CONFIG(0)) & HV_STIMER_ENABLE, 0);
    EXPECT_EQ(slot()->type, 0);
}

CHECK(timer_count_zero, "15.3.2: stops the timer, independent of AutoEnable")
{
    check_stop(HV_MSR_STIMER_COUNT(0), 0);
}

/* -- One-shot timers -- */

static void check_one_shot(unsigned timer, uint64_t time)
{
    start_one_shot(timer, time);
    REQUIRE(WAIT_UNTIL(slot()->type != 0, SOON));
    uint64_t seen = now();
    EXPECT_EQ(slot()->type, HV_MESSAGE_TIMER_EXPIRED);
    EXPECT_EQ(payload()->timer, timer);
    EXPECT_EQ(payload()->expiration, time);
    EXPECT_THAT(payload()->delivery >= time && payload()->delivery <= seen,
                "due %llu, delivered %llu, seen %llu: early, or from the future", (unsigned long long)time,
                (unsigned long long)payload()->delivery, (unsigned long long)seen);
    EXPECT_EQ(rdmsr(HV_MSR_STIMER_CONFIG(timer)) & HV_STIMER_ENABLE, 0);
    end_message();
}

CHECK(one_shot, "15.1.3, 15.3.1: never early, then disabled; its message tells both times")
{
    enable_all_messages();
    for (unsigned i = 0; i < 20; i++) {
        check_one_shot(i % 4, now() + 100 * (i + 1) * (i + 1));
    }
}

CHECK(one_shot_in_the_past, "15.3.1: expires immediately")
{
    enable_all_messages();
    check_one_shot(0, 1);
    check_one_shot(1, now());
    start_one_shot(2, now() - 1);
    EXPECT_EQ(slot()->type, HV_MESSAGE_TIMER_EXPIRED);
}

CHECK(one_shot_enabled_after_its_count, "15.3.1: without AutoEnable, Enable is set after the count")
{
    enable_all_messages();
    uint64_t time = now() + MS;
    wrmsr(HV_MSR_STIMER_CONFIG(0), HV_STIMER_SINT(SINT));
    wrmsr(HV_MSR_STIMER_COUNT(0), time);
    wrmsr(HV_MSR_STIMER_CONFIG(0), HV_STIMER_SINT(SINT) | HV_STIMER_ENABLE);
    REQUIRE(WAIT_UNTIL(slot()->type != 0, SOON));
    EXPECT_EQ(payload()->expiration, time);
    EXPECT(payload()->delivery >= time);
}

CHECK(disabled_timer_is_silent, "15.3.1")
{
    check_stop(HV_MSR_STIMER_CONFIG(0), 0);
}

CHECK(rearmed_timer_fires_once, "15.3.2: a new count replaces the old one")
{
    enable_all_messages();
    for (unsigned i = 0; i < 50; i++) {
        start_one_shot(0, now() + 10000 * MS + i);
    }
    uint64_t time = now() + MS;
    start_one_shot(0, time);
    REQUIRE(WAIT_UNTIL(slot()->type != 0, SOON));
    EXPECT_EQ(payload()->expiration, time);
    end_message();
    clock_delay(3000);
    EXPECT_EQ(slot()->type, 0);
}

static void halt_until_message(struct frame *frame)
{
    (void)frame;
    apic_eoi();
}

CHECK(timer_wakes_a_halted_vp, "15.1.3")
{
    enable_all_messages();
    interrupt_set_handler(VECTOR, halt_until_message);
    wrmsr(HV_MSR_SINT0 + SINT, VECTOR);
    for (unsigned i = 1; i <= 50; i++) {
        uint64_t time = now() + i * 500;
        start_one_shot(i % 4, time);
        while (interrupt_count(0, VECTOR) < i) {
            interrupts_on_halt();
        }
        EXPECT(now() >= time);
        EXPECT_EQ(slot()->type, HV_MESSAGE_TIMER_EXPIRED);
        end_message();
    }
}

/* -- Periodic timers -- */

static void start_periodic(unsigned timer, uint64_t period, uint64_t flags)
{
    wrmsr(HV_MSR_STIMER_CONFIG(timer), HV_STIMER_SINT(SINT) | HV_STIMER_PERIODIC | HV_STIMER_AUTO_ENABLE | flags);
    wrmsr(HV_MSR_STIMER_COUNT(timer), period);
}

CHECK(periodic, "15.1.4, 15.3.2: the first period begins when the timer is enabled")
{
    uint64_t period = 2 * MS, first = 0;
    enable_all_messages();
    uint64_t before = now();
    start_periodic(0, period, 0);
    uint64_t after = now();
    for (unsigned i = 0; i < 20; i++) {
        REQUIRE(WAIT_UNTIL(slot()->type != 0, SOON));
        uint64_t due = payload()->expiration;
        EXPECT(payload()->delivery >= due);
        if (i == 0) {
            first = due;
            EXPECT_THAT(due >= before + period && due <= after + period,
                        "first due %llu, enabled between %llu and %llu", (unsigned long long)due,
                        (unsigned long long)before, (unsigned long long)after);
        }
        EXPECT_EQ((due - first) % period, 0);
        end_message();
    }
    EXPECT(rdmsr(HV_MSR_STIMER_CONFIG(0)) & HV_STIMER_ENABLE);
    wrmsr(HV_MSR_STIMER_CONFIG(0), 0);
    end_message();
    clock_delay(5000);
    end_message();
    clock_delay(5000);
    EXPECT_EQ(slot()->type, 0);
}

CHECK(periodic_waits_for_its_slot, "15.1.4, 14.2.1: one message buffer per timer")
{
    uint64_t period = MS;
    enable_all_messages();
    start_periodic(0, period, 0);
    REQUIRE(WAIT_UNTIL(slot()->type != 0, SOON));
    uint64_t first = payload()->expiration;
    clock_delay(20000);
    EXPECT_EQ(payload()->expiration, first);
    EXPECT_EQ(payload()->timer, 0);
    EXPECT(slot()->flags & HV_MESSAGE_PENDING);
    end_message();
    /* The one that waited, not twenty. */
    EXPECT_EQ(slot()->type, HV_MESSAGE_TIMER_EXPIRED);
    EXPECT(payload()->expiration > first);
    EXPECT(payload()->delivery >= payload()->expiration);
}

CHECK(lazy_periodic_skips, "15.1.4: what was missed is skipped, not caught up")
{
    uint64_t period = MS;
    enable_all_messages();
    start_periodic(0, period, HV_STIMER_LAZY);
    REQUIRE(WAIT_UNTIL(slot()->type != 0, SOON));
    uint64_t first = payload()->expiration;
    clock_delay(20000);
    unsigned quick = 0;
    uint64_t begin = now(), end;
    while ((end = now()) - begin < 5 * period) {
        if (slot()->type != 0) {
            EXPECT_EQ((payload()->expiration - first) % period, 0);
            EXPECT(payload()->delivery >= payload()->expiration);
            quick++;
            end_message();
        }
    }
    /* One for each period that began, the one in the slot and the one that waited behind it. */
    unsigned most = (unsigned)((end - begin) / period) + 3;
    EXPECT_THAT(quick <= most, "%u messages in %llu us, expected at most %u", quick,
                (unsigned long long)(end - begin) / 10, most);
}

/* -- All timers -- */

static void check_four_timers(void *argument)
{
    (void)argument;
    struct hv_message *own = messages[cpu_index()];
    uint64_t base = now() + MS, due[4];
    for (unsigned i = 0; i < 4; i++) {
        due[i] = base + i * 777;
        wrmsr(HV_MSR_STIMER_CONFIG(i), HV_STIMER_SINT(i + 1) | HV_STIMER_AUTO_ENABLE);
        wrmsr(HV_MSR_STIMER_COUNT(i), due[i]);
    }
    for (unsigned i = 0; i < 4; i++) {
        REQUIRE(WAIT_UNTIL(own[i + 1].type != 0, SOON));
        const struct hv_timer_payload *message = (const struct hv_timer_payload *)own[i + 1].payload;
        EXPECT_EQ(message->timer, i);
        EXPECT_EQ(message->expiration, due[i]);
        EXPECT(message->delivery >= due[i]);
        own[i + 1].type = 0;
    }
}

CHECK(four_timers_on_every_vp, "15.1.3: each VP has four, independent of each other")
{
    enable_all_messages();
    smp_run_all(check_four_timers, NULL);
}

static volatile uint64_t direct_due[GUEST_MAX_CPUS], direct_early;

static void direct_handler(struct frame *frame)
{
    (void)frame;
    if (now() < direct_due[cpu_index()]) {
        direct_early++;
    }
    apic_eoi();
}

static void start_direct(unsigned timer, uint64_t time)
{
    direct_due[cpu_index()] = time;
    wrmsr(HV_MSR_STIMER_CONFIG(timer), HV_STIMER_DIRECT | HV_STIMER_VECTOR(DIRECT_VECTOR) | HV_STIMER_AUTO_ENABLE);
    wrmsr(HV_MSR_STIMER_COUNT(timer), time);
}

static void check_direct(void *argument)
{
    (void)argument;
    EXPECT_EQ(rdmsr(HV_MSR_SCONTROL), 0);
    for (unsigned i = 1; i <= 50; i++) {
        start_direct(i % 4, now() + i * 200);
        EXPECT(rdmsr(HV_MSR_STIMER_CONFIG(i % 4)) & HV_STIMER_ENABLE ||
               interrupt_count(cpu_index(), DIRECT_VECTOR) > 0 || apic_vector_set(APIC_IRR, DIRECT_VECTOR));
        while (interrupt_count(cpu_index(), DIRECT_VECTOR) < i) {
            interrupts_on_halt();
        }
        EXPECT_EQ(rdmsr(HV_MSR_STIMER_CONFIG(i % 4)) & HV_STIMER_ENABLE, 0);
    }
}

CHECK(direct_timers, "later: an interrupt and no message, with the SynIC off", .generations = GENERATION_CURRENT)
{
    direct_early = 0;
    interrupt_set_handler(DIRECT_VECTOR, direct_handler);
    smp_run_all(check_direct, NULL);
    EXPECT_EQ(direct_early, 0);
}

CHECK(direct_timer_with_the_config_of_a_stock_kernel, "later: configuration 0x1ED9, count, then count 0 and 0",
      .generations = GENERATION_CURRENT)
{
    interrupt_set_handler(DIRECT_VECTOR, interrupt_handle_eoi);
    wrmsr(HV_MSR_STIMER_CONFIG(0), 0x1ED9);
    wrmsr(HV_MSR_STIMER_COUNT(0), now() + MS);
    interrupts_on();
    EXPECT(WAIT_UNTIL(interrupt_count(0, DIRECT_VECTOR) == 1, SOON));
    wrmsr(HV_MSR_STIMER_COUNT(0), now() + MS);
    EXPECT(WAIT_UNTIL(interrupt_count(0, DIRECT_VECTOR) == 2, SOON));
    wrmsr(HV_MSR_STIMER_COUNT(0), now() + 1000 * MS);
    wrmsr(HV_MSR_STIMER_COUNT(0), 0);
    wrmsr(HV_MSR_STIMER_CONFIG(0), 0);
    interrupts_off();
    EXPECT_EQ(interrupt_count(0, DIRECT_VECTOR), 2);
    EXPECT_EQ(rdmsr(HV_MSR_STIMER_CONFIG(0)), 0);
}

CHECK(direct_periodic, "later", .generations = GENERATION_CURRENT)
{
    interrupt_set_handler(DIRECT_VECTOR, interrupt_handle_eoi);
    uint64_t begin = now();
    wrmsr(HV_MSR_STIMER_CONFIG(0),
          HV_STIMER_DIRECT | HV_STIMER_VECTOR(DIRECT_VECTOR) | HV_STIMER_PERIODIC | HV_STIMER_AUTO_ENABLE);
    wrmsr(HV_MSR_STIMER_COUNT(0), MS);
    while (interrupt_count(0, DIRECT_VECTOR) < 20) {
        interrupts_on_halt();
    }
    EXPECT_THAT(now() - begin >= 20ull * MS, "20 periods of 1 ms took %llu us",
                (unsigned long long)(now() - begin) / 10);
    wrmsr(HV_MSR_STIMER_CONFIG(0), 0);
}
