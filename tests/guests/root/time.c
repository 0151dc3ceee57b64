/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLFS chapter 15 in a child: its reference time, its timers, and that they go on when it does not run. */
#include "rig.h"

#define SINT 3
#define VECTOR 0x61
#define TICKS_PER_MILLISECOND 10000

static struct child child;

void guest_cleanup(void)
{
    root_reset_state();
}

static void begin(void)
{
    child = (struct child){.privileges = CHILD_PRIVILEGES};
    inside_create(&child, 1);
}

struct reading {
    uint64_t first, second;
};

static void read_counter(void *argument)
{
    struct reading *reading = argument;
    reading->first = rdmsr(HV_MSR_TIME_REF_COUNT);
    reading->second = rdmsr(HV_MSR_TIME_REF_COUNT);
}

CHECK(reference_time_is_its_own, "15.2: counts from the partition's creation")
{
    struct reading reading;
    clock_delay(20000);
    uint64_t before = clock_nanoseconds();
    begin();
    inside_run(&child, 0, read_counter, &reading);
    uint64_t after = clock_nanoseconds();
    EXPECT(reading.first <= reading.second);
    EXPECT_THAT(reading.second <= (after - before) / 100 + 1, "%llu, in %llu ns", (unsigned long long)reading.second,
                (unsigned long long)(after - before));
    struct reading later;
    before = clock_nanoseconds();
    clock_delay(5000);
    inside_run(&child, 0, read_counter, &later);
    EXPECT(later.first - reading.second >= 5 * TICKS_PER_MILLISECOND);
}

static struct hv_reference_tsc *tsc_page;

static void compare_clocks(void *argument)
{
    (void)argument;
    wrmsr(HV_MSR_REFERENCE_TSC, (uintptr_t)tsc_page | HV_MSR_ENABLE);
    for (unsigned i = 0; i < 50; i++) {
        uint64_t before = rdmsr(HV_MSR_TIME_REF_COUNT), between;
        REQUIRE(hv_tsc_page_time(tsc_page, &between));
        uint64_t after = rdmsr(HV_MSR_TIME_REF_COUNT);
        EXPECT_THAT(before <= between + 1 && between <= after + 1, "%llu, page %llu, %llu", (unsigned long long)before,
                    (unsigned long long)between, (unsigned long long)after);
    }
    wrmsr(HV_MSR_REFERENCE_TSC, 0);
}

CHECK(tsc_page, "15.4.3: the page agrees with the counter; it is an overlay that only the child sees")
{
    begin();
    tsc_page = page_alloc(1);
    inside_run(&child, 0, compare_clocks, NULL);
    EXPECT_EQ(tsc_page->sequence, 0);
    EXPECT_EQ(tsc_page->scale, 0);
}

static struct hv_message *messages;

static void wait_for_timer(void *argument)
{
    struct reading *reading = argument;
    wrmsr(HV_MSR_SIMP, (uintptr_t)messages | HV_MSR_ENABLE);
    wrmsr(HV_MSR_SINT0 + SINT, VECTOR);
    wrmsr(HV_MSR_SCONTROL, 1);
    wrmsr(HV_MSR_STIMER_CONFIG(0), HV_STIMER_SINT(SINT));
    reading->first = rdmsr(HV_MSR_TIME_REF_COUNT) + 5 * TICKS_PER_MILLISECOND;
    wrmsr(HV_MSR_STIMER_COUNT(0), reading->first);
    wrmsr(HV_MSR_STIMER_CONFIG(0), HV_STIMER_SINT(SINT) | HV_STIMER_ENABLE);
    while (interrupt_count(INSIDE_CPU, VECTOR) == 0) {
        interrupts_on_halt();
    }
    reading->second = rdmsr(HV_MSR_TIME_REF_COUNT);
    const struct hv_timer_payload *payload = (const void *)messages[SINT].payload;
    EXPECT_EQ(messages[SINT].type, HV_MESSAGE_TIMER_EXPIRED);
    EXPECT_EQ(payload->timer, 0);
    EXPECT_EQ(payload->expiration, reading->first);
    EXPECT(payload->delivery >= reading->first);
    EXPECT(payload->delivery <= reading->second);
}

CHECK(synthetic_timer, "15.3: a child that is halted is woken by its timer, not before the time")
{
    struct reading reading;
    begin();
    messages = page_alloc(1);
    interrupt_set_handler(VECTOR, interrupt_handle_eoi);
    inside_run(&child, 0, wait_for_timer, &reading);
    EXPECT(reading.second >= reading.first);
}

static void count_time(void *argument)
{
    struct reading *reading = argument;
    reading->first = rdmsr(HV_MSR_VP_RUNTIME);
    uint64_t end = rdmsr(HV_MSR_TIME_REF_COUNT) + 2 * TICKS_PER_MILLISECOND;
    while (rdmsr(HV_MSR_TIME_REF_COUNT) < end) {
    }
    reading->second = rdmsr(HV_MSR_VP_RUNTIME);
}

CHECK(run_time, "10.3.2: what the VP has run, and no more")
{
    struct reading reading;
    begin();
    inside_run(&child, 0, count_time, &reading);
    EXPECT(reading.second > reading.first);
    child_suspend(&child, 0);
    uint64_t then = child_get_register(&child, 0, HV_REGISTER_VpRuntime);
    clock_delay(5000);
    EXPECT_EQ(child_get_register(&child, 0, HV_REGISTER_VpRuntime), then);
    EXPECT(then >= reading.second);
}
