/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLFS chapter 13: the local APIC of a child's VP, interrupts that its parent asserts, and those among its VPs. */
#include "rig.h"

#include "apic.h"

#define LOW 0x41
#define HIGH 0x91
#define APIC_LDR 0xD0
#define APIC_DFR 0xE0
#define TIMER_PERIODIC 0x20000u
#define DIVIDE_BY_1 0xBu

static struct child child;
static volatile uint8_t order[8];
static volatile unsigned taken;

void guest_cleanup(void)
{
    root_reset_state();
}

static void begin(unsigned vps)
{
    child = (struct child){.privileges = CHILD_PRIVILEGES};
    taken = 0;
    inside_create(&child, vps);
}

static void remember(struct frame *frame)
{
    order[taken++ % 8] = (uint8_t)frame->vector;
    apic_eoi();
}

static void assert_fixed(uint8_t vector)
{
    HV_MUST(child_assert_interrupt(&child, HV_INTERRUPT_FIXED, 0, vector));
}

/* -- Priorities -- */

static volatile unsigned step;

static void wait_for_step(unsigned which)
{
    while (step != which && !check_failed()) {
        cpu_pause();
    }
}

static void enable_after_both(void *argument)
{
    (void)argument;
    interrupts_off();
    step = 1;
    wait_for_step(2);
    EXPECT(apic_vector_set(APIC_IRR, LOW));
    EXPECT(apic_vector_set(APIC_IRR, HIGH));
    interrupts_on();
    cpu_pause();
    interrupts_off();
}

CHECK(higher_vector_first, "13.2: of two that wait, by priority and not in the order they came")
{
    begin(1);
    interrupt_set_handler(LOW, remember);
    interrupt_set_handler(HIGH, remember);
    step = 0;
    inside_start(&child, 0, enable_after_both, NULL);
    REQUIRE(WAIT_UNTIL(step == 1, SOON));
    assert_fixed(LOW);
    assert_fixed(HIGH);
    step = 2;
    inside_wait(0);
    EXPECT_EQ(taken, 2);
    EXPECT_EQ(order[0], HIGH);
    EXPECT_EQ(order[1], LOW);
}

static void hold_back(void *argument)
{
    (void)argument;
    interrupts_off();
    apic_write(APIC_TPR, LOW & 0xF0);
    EXPECT_EQ(apic_read(APIC_PPR), LOW & 0xF0);
    step = 1;
    wait_for_step(2);
    interrupts_on();
    cpu_pause();
    EXPECT_EQ(taken, 1);
    apic_write(APIC_TPR, 0);
    cpu_pause();
    EXPECT_EQ(taken, 2);
    interrupts_off();
}

CHECK(task_priority, "13.2: holds back its own class and lower ones")
{
    begin(1);
    interrupt_set_handler(LOW, remember);
    interrupt_set_handler(HIGH, remember);
    step = 0;
    inside_start(&child, 0, hold_back, NULL);
    REQUIRE(WAIT_UNTIL(step == 1, SOON));
    assert_fixed(LOW);
    assert_fixed(HIGH);
    step = 2;
    inside_wait(0);
    EXPECT_EQ(order[0], HIGH);
    EXPECT_EQ(order[1], LOW);
}

/* -- Types (13.5.1) -- */

CHECK(level_is_told_at_eoi, "13.5.1, 16.5.6: a level-triggered interrupt; its parent gets a message at EOI")
{
    begin(1);
    interrupt_set_handler(LOW, interrupt_handle_eoi);
    HV_MUST(child_assert_interrupt(&child, HV_INTERRUPT_FIXED | HV_INTERRUPT_LEVEL, 0, LOW));
    struct intercept intercept;
    REQUIRE(intercept_receive(&intercept, SOON));
    EXPECT_EQ(intercept.message.type, (uint32_t)(root_is_2008r2() ? HV_MESSAGE_ApicEoi : HV_MESSAGE_X64ApicEoi));
    const struct hv_eoi_message *message = (const void *)intercept.message.payload;
    EXPECT_EQ(message->vp, 0);
    EXPECT_EQ(message->vector, LOW);
    EXPECT_EQ(interrupt_count(INSIDE_CPU, LOW), 1);
}

CHECK(edge_is_not, "13.5.1, 16.5.6: no message at EOI")
{
    struct intercept intercept;
    begin(1);
    interrupt_set_handler(LOW, interrupt_handle_eoi);
    assert_fixed(LOW);
    REQUIRE(WAIT_UNTIL(interrupt_count(INSIDE_CPU, LOW) == 1, SOON));
    EXPECT(!intercept_receive(&intercept, 2000));
}

static void spin_masked(void *argument)
{
    (void)argument;
    interrupts_off();
    step = 1;
    wait_for_step(2);
}

static void count_nmi(struct frame *frame)
{
    (void)frame;
    taken++;
}

CHECK(nmi_though_masked, "13.5.1: NMI")
{
    begin(1);
    interrupt_set_handler(VECTOR_NMI, count_nmi);
    step = 0;
    inside_start(&child, 0, spin_masked, NULL);
    REQUIRE(WAIT_UNTIL(step == 1, SOON));
    HV_MUST(child_assert_interrupt(&child, HV_INTERRUPT_NMI, 0, 0));
    EXPECT(WAIT_UNTIL(taken == 1, SOON));
    step = 2;
    inside_wait(0);
    EXPECT_EQ(taken, 1);
}

CHECK(external_interrupt, "13.5.1, 13.5.2: to the boot processor; it is cleared after it was acknowledged")
{
    struct hv_in_clear_virtual_interrupt clear;
    begin(1);
    clear.partition = child.id;
    interrupt_set_handler(LOW, interrupt_handle_nothing);
    child_suspend(&child, 0);
    EXPECT_EQ(hvcall_clear_virtual_interrupt(&clear, NULL), HV_STATUS_NOT_ACKNOWLEDGED);
    HV_MUST(child_assert_interrupt(&child, HV_INTERRUPT_EXTINT, 0, LOW + 1));
    HV_MUST(child_assert_interrupt(&child, HV_INTERRUPT_EXTINT, 0, LOW));
    EXPECT_EQ(interrupt_count(INSIDE_CPU, LOW), 0);
    child_resume(&child, 0);
    EXPECT(WAIT_UNTIL(interrupt_count(INSIDE_CPU, LOW) == 1, SOON));
    HV_MUST(hvcall_clear_virtual_interrupt(&clear, NULL));
    EXPECT_EQ(hvcall_clear_virtual_interrupt(&clear, NULL), HV_STATUS_NOT_ACKNOWLEDGED);
}

CHECK(halted_vp_wakes, "13.2, 18: again and again, from the other side of the machine")
{
    begin(2);
    interrupt_set_handler(LOW, interrupt_handle_eoi);
    for (unsigned i = 1; i <= 200; i++) {
        HV_MUST(child_assert_interrupt(&child, HV_INTERRUPT_FIXED, i % 2, LOW));
        REQUIRE(WAIT_UNTIL(interrupt_count(INSIDE_CPU, LOW) + interrupt_count(INSIDE_CPU + 1, LOW) == i, SOON));
    }
    EXPECT_EQ(interrupt_count(INSIDE_CPU, LOW), 100);
}

static void set_logical_id(void *argument)
{
    unsigned vp = cpu_index() - INSIDE_CPU;
    (void)argument;
    apic_write(APIC_DFR, UINT32_MAX);
    apic_write(APIC_LDR, 1u << (24 + vp));
}

CHECK(logical_destination, "13.5.1: every VP whose logical ID matches")
{
    begin(3);
    interrupt_set_handler(LOW, interrupt_handle_eoi);
    interrupt_set_handler(HIGH, interrupt_handle_eoi);
    for (unsigned vp = 0; vp < 3; vp++) {
        inside_run(&child, vp, set_logical_id, NULL);
    }
    HV_MUST(child_assert_interrupt(&child, HV_INTERRUPT_FIXED | HV_INTERRUPT_LOGICAL, 5, LOW));
    EXPECT(WAIT_UNTIL(interrupt_count(INSIDE_CPU, LOW) == 1 && interrupt_count(INSIDE_CPU + 2, LOW) == 1, SOON));
    HV_MUST(child_assert_interrupt(&child, HV_INTERRUPT_LOWEST_PRIORITY | HV_INTERRUPT_LOGICAL, 7, HIGH));
    clock_delay(1000);
    EXPECT_EQ(interrupt_count(INSIDE_CPU + 1, LOW), 0);
}

CHECK(bad_assertions, "13.5.1: statuses")
{
    begin(1);
    EXPECT_EQ(child_assert_interrupt(&child, 2, 0, 0), HV_STATUS_INVALID_PARAMETER); /* SMI */
    EXPECT_EQ(child_assert_interrupt(&child, HV_INTERRUPT_NMI, 0, 1), HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(child_assert_interrupt(&child, HV_INTERRUPT_FIXED, 0, 0x100), HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(child_assert_interrupt(&child, UINT64_C(1) << 40, 0, LOW), HV_STATUS_INVALID_PARAMETER);
}

/* -- Among VPs (13.3) -- */

static void send_many(void *argument)
{
    (void)argument;
    for (unsigned i = 1; i <= 100 && !check_failed(); i++) {
        apic_send_ipi(1, LOW);
        while (interrupt_count(INSIDE_CPU + 1, LOW) != i && !check_failed()) {
            cpu_pause();
        }
    }
}

CHECK(ipis_of_a_child, "13.3: from one VP to another that is halted")
{
    begin(2);
    interrupt_set_handler(LOW, interrupt_handle_eoi);
    inside_run(&child, 0, send_many, NULL);
    EXPECT_EQ(interrupt_count(INSIDE_CPU + 1, LOW), 100);
    EXPECT_EQ(interrupt_count(INSIDE_CPU, LOW), 0);
}

static void restart_other(void *argument)
{
    (void)argument;
    apic_send_ipi(1, APIC_ICR_INIT);
    for (unsigned i = 0; i < 1000; i++) {
        cpu_pause();
    }
    apic_send_ipi(1, APIC_ICR_STARTUP | 0x80);
}

CHILD_PROGRAM(say_77, 16, "mov $0x77, %al; out %al, $0x80; 1: hlt; jmp 1b")

CHECK(init_of_a_vp_that_runs, "13.3.2: it starts again in real mode")
{
    begin(2);
    child_intercept_ports(&child, PORT_DONE, 1);
    child_add_memory(&child, 0x80000, PAGE_SIZE);
    child_put_program(&child, 0x80000, say_77, say_77_end);
    step = 0;
    inside_start(&child, 1, spin_masked, NULL);
    REQUIRE(WAIT_UNTIL(step == 1, SOON));
    inside_run(&child, 0, restart_other, NULL);
    struct intercept intercept = next_message(HV_MESSAGE_X64IoPortIntercept);
    EXPECT_EQ(intercept.vp, 1);
    EXPECT_EQ(intercept.io.value, 0x77);
    EXPECT_EQ(intercept_header(&intercept)->cs.selector, 0x8000);
    EXPECT_EQ(child_get_register(&child, 1, HV_REGISTER_Cr0) & 1, 0);
}

/* -- The timer -- */

static void run_timer(void *mode)
{
    uint32_t bits = *(uint32_t *)mode;
    interrupts_off();
    apic_write(APIC_TIMER_DIVIDE, DIVIDE_BY_1);
    apic_write(APIC_LVT_TIMER, bits | LOW);
    apic_write(APIC_TIMER_INITIAL, 100000);
    uint32_t current = apic_read(APIC_TIMER_CURRENT);
    EXPECT(current > 0 || apic_vector_set(APIC_IRR, LOW));
    for (unsigned i = 1; i <= (bits ? 5u : 1u) && !check_failed(); i++) {
        while (interrupt_count(INSIDE_CPU, LOW) < i) {
            interrupts_on_halt();
        }
    }
    apic_write(APIC_TIMER_INITIAL, 0);
    EXPECT_EQ(apic_read(APIC_TIMER_CURRENT), 0);
}

CHECK(timer_once, "13.2: one-shot")
{
    uint32_t mode = 0;
    begin(1);
    interrupt_set_handler(LOW, interrupt_handle_eoi);
    inside_run(&child, 0, run_timer, &mode);
    clock_delay(2000);
    EXPECT_EQ(interrupt_count(INSIDE_CPU, LOW), 1);
}

CHECK(timer_periodic, "13.2: periodic, until it is stopped")
{
    uint32_t mode = TIMER_PERIODIC;
    begin(1);
    interrupt_set_handler(LOW, interrupt_handle_eoi);
    inside_run(&child, 0, run_timer, &mode);
    unsigned count = interrupt_count(INSIDE_CPU, LOW);
    EXPECT(count >= 5);
    clock_delay(2000);
    EXPECT(interrupt_count(INSIDE_CPU, LOW) <= count + 1);
}
