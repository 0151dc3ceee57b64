/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLFS chapter 10, guest side: VP index, run time, guest idle. */
#include "guest.h"

#define VECTOR 0x60
#define MILLISECOND 10000 /* in 100 ns */

void guest_cleanup(void)
{
    apic_write(APIC_LVT_TIMER, 0x10000);
    apic_write(APIC_TIMER_INITIAL, 0);
    hv_reset_state();
}

static void check_index(void *argument)
{
    (void)argument;
    EXPECT_EQ(rdmsr(HV_MSR_VP_INDEX), cpu_index());
    EXPECT_WRMSR_FAULT(HV_MSR_VP_INDEX, cpu_index(), VECTOR_GP);
    EXPECT_EQ(rdmsr(HV_MSR_VP_INDEX), cpu_index());
}

CHECK(vp_index, "10.2.1, 10.1.6: initial APIC ID = VP index; read-only")
{
    smp_run_all(check_index, NULL);
}

static void read_run_time_often(void *argument)
{
    (void)argument;
    uint64_t clock_begin = clock_nanoseconds();
    uint64_t begin = rdmsr(HV_MSR_VP_RUNTIME), last = begin;
    for (unsigned i = 0; i < 2000; i++) {
        uint64_t now = rdmsr(HV_MSR_VP_RUNTIME);
        EXPECT_THAT(now >= last, "run time went from %llu to %llu", (unsigned long long)last, (unsigned long long)now);
        last = now;
    }
    clock_delay(5000);
    uint64_t end = rdmsr(HV_MSR_VP_RUNTIME);
    uint64_t elapsed = (clock_nanoseconds() - clock_begin) / 100;
    EXPECT(end > begin);
    /* A VP cannot run longer than there was time: the reads lie within the two looks at the clock. */
    EXPECT_THAT(end - begin <= elapsed + 1, "ran for %llu in a time of %llu (100 ns)",
                (unsigned long long)(end - begin), (unsigned long long)elapsed);
}

CHECK(run_time_grows, "10.3.2: time spent running, in 100 ns")
{
    smp_run_all(read_run_time_often, NULL);
}

CHECK(run_time_is_read_only, "10.3.2")
{
    EXPECT_WRMSR_FAULT(HV_MSR_VP_RUNTIME, 0, VECTOR_GP);
}

/* The local APIC's timer, in a number of microseconds: it counts at 1 GHz / 1 in QEMU. */
static void arm_apic_timer(uint64_t microseconds)
{
    apic_write(APIC_TIMER_DIVIDE, 0xB);
    apic_write(APIC_LVT_TIMER, VECTOR);
    apic_write(APIC_TIMER_INITIAL, (uint32_t)(microseconds * 1000));
}

CHECK(run_time_stops_in_halt, "10.3.2: time in HLT is not run time")
{
    interrupt_set_handler(VECTOR, interrupt_handle_eoi);
    uint64_t clock_begin = clock_nanoseconds(), begin = rdmsr(HV_MSR_VP_RUNTIME);
    EXPECT(begin > 0);
    arm_apic_timer(40000);
    while (interrupt_count(0, VECTOR) == 0) {
        interrupts_on_halt();
    }
    uint64_t ran = rdmsr(HV_MSR_VP_RUNTIME) - begin, elapsed = (clock_nanoseconds() - clock_begin) / 100;
    EXPECT(elapsed >= 39 * MILLISECOND);
    EXPECT_THAT(ran <= elapsed - 20 * MILLISECOND, "ran for %llu in a time of %llu (100 ns)", (unsigned long long)ran,
                (unsigned long long)elapsed);
}

/* -- Guest idle -- */

CHECK(idle_is_read_only, "10.1.4: entered by a read")
{
    EXPECT_WRMSR_FAULT(HV_MSR_GUEST_IDLE, 0, VECTOR_GP);
}

CHECK(idle_returns_when_one_is_pending, "10.1.4: an interrupt that waits already")
{
    apic_send_ipi(0, VECTOR);
    EXPECT(WAIT_UNTIL(apic_vector_set(APIC_IRR, VECTOR), SOON));
    rdmsr(HV_MSR_GUEST_IDLE);
    EXPECT(apic_vector_set(APIC_IRR, VECTOR));
    EXPECT_EQ(interrupt_count(0, VECTOR), 0);
}

CHECK(idle_wakes_with_interrupts_off, "10.1.4: woken when an interrupt arrives, enabled or not")
{
    for (unsigned i = 1; i <= 20; i++) {
        uint64_t begin = clock_microseconds();
        arm_apic_timer(2000);
        rdmsr(HV_MSR_GUEST_IDLE);
        EXPECT(clock_microseconds() - begin >= 1900);
        EXPECT(!(read_flags() & RFLAGS_IF));
        EXPECT_EQ(interrupt_count(0, VECTOR), i - 1);
        EXPECT(apic_vector_set(APIC_IRR, VECTOR));
        interrupt_set_handler(VECTOR, interrupt_handle_eoi);
        interrupts_on();
        EXPECT(WAIT_UNTIL(interrupt_count(0, VECTOR) == i, SOON));
        interrupts_off();
    }
}

CHECK(idle_takes_interrupts_that_are_on, "10.1.4: like HLT with interrupts enabled")
{
    interrupt_set_handler(VECTOR, interrupt_handle_eoi);
    for (unsigned i = 1; i <= 20; i++) {
        arm_apic_timer(2000);
        interrupts_on();
        rdmsr(HV_MSR_GUEST_IDLE);
        EXPECT(WAIT_UNTIL(interrupt_count(0, VECTOR) == i, SOON));
        interrupts_off();
    }
}

static volatile uint32_t idle_rounds;
static volatile bool idle_begun;

static void idle_often(void *argument)
{
    uint32_t rounds = *(uint32_t *)argument;
    idle_begun = true;
    while (idle_rounds < rounds && !check_failed()) {
        rdmsr(HV_MSR_GUEST_IDLE);
        if (apic_vector_set(APIC_IRR, VECTOR)) {
            interrupts_on();
            EXPECT(WAIT_UNTIL(!apic_vector_set(APIC_IRR, VECTOR), SOON));
            interrupts_off();
            idle_rounds++;
        }
    }
}

CHECK(idle_wakes_by_another_vp, "10.1.4: no wake-up is lost", .min_vps = 2)
{
    uint32_t rounds = 300;
    idle_rounds = 0;
    interrupt_set_handler(VECTOR, interrupt_handle_eoi);
    idle_begun = false;
    smp_start(1, idle_often, &rounds);
    REQUIRE(WAIT_UNTIL(idle_begun, SOON)); /* before that the runtime's own HLT would take the interrupt */
    for (uint32_t i = 0; i < rounds; i++) {
        apic_send_ipi(1, VECTOR);
        if (!WAIT_UNTIL(idle_rounds == i + 1, SOON)) {
            check_fail(__FILE__, __LINE__, "VP 1 sleeps on, after %u of %u wake-ups", idle_rounds, rounds);
            check_abort();
        }
    }
    EXPECT(smp_wait(1, SOON));
}
