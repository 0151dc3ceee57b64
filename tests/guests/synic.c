/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLFS chapter 14 within one VP: SynIC registers, message slots and queues. Messages come from synthetic timers. */
#include "guest.h"

#define VECTOR 0x70
#define OTHER_VECTOR 0x71

static struct hv_message *messages;

void guest_cleanup(void)
{
    hv_reset_state();
}

static struct hv_message *slot(unsigned sint)
{
    return &messages[sint];
}

static void enable_messages(void)
{
    messages = page_alloc(1);
    wrmsr(HV_MSR_SIMP, (uintptr_t)messages | HV_MSR_ENABLE);
    wrmsr(HV_MSR_SCONTROL, 1);
}

/* Make timer `timer` send one message to `sint`, at once: its time is in the past. */
static void send_message(unsigned timer, unsigned sint)
{
    wrmsr(HV_MSR_STIMER_CONFIG(timer), HV_STIMER_SINT(sint) | HV_STIMER_AUTO_ENABLE);
    wrmsr(HV_MSR_STIMER_COUNT(timer), 1);
}

static bool message_arrives(unsigned sint)
{
    return WAIT_UNTIL(slot(sint)->type != 0, SOON);
}

static void end_message(unsigned sint)
{
    slot(sint)->type = 0;
    wrmsr(HV_MSR_EOM, 0);
}

/* -- Registers (14.6) -- */

static void check_reset_values(void *argument)
{
    (void)argument;
    EXPECT_EQ(rdmsr(HV_MSR_SCONTROL), 0);
    EXPECT_EQ(rdmsr(HV_MSR_SIMP), 0);
    EXPECT_EQ(rdmsr(HV_MSR_SIEFP), 0);
    for (unsigned i = 0; i < 16; i++) {
        EXPECT_EQ(rdmsr(HV_MSR_SINT0 + i), HV_SINT_MASKED);
    }
}

/* First in the table: before anything was written. */
CHECK(reset_values, "14.6.1, 14.6.3 to 14.6.5")
{
    smp_run_all(check_reset_values, NULL);
}

CHECK(version_register, "14.6.2: 1, read-only")
{
    EXPECT_EQ((uint32_t)rdmsr(HV_MSR_SVERSION), 1);
    EXPECT_WRMSR_FAULT(HV_MSR_SVERSION, 1, VECTOR_GP);
}

CHECK(control_register_preserves, "14.6.1: bits 63:1 are RsvdP")
{
    wrmsr(HV_MSR_SCONTROL, 0xFEDCBA9876543210);
    EXPECT_EQ(rdmsr(HV_MSR_SCONTROL), 0xFEDCBA9876543210);
    wrmsr(HV_MSR_SCONTROL, 0);
}

CHECK(page_registers_preserve, "14.6.3, 14.6.4: bits 11:1 are RsvdP")
{
    uintptr_t page = (uintptr_t)page_alloc(2);
    wrmsr(HV_MSR_SIMP, page | 0xFFF);
    EXPECT_EQ(rdmsr(HV_MSR_SIMP), page | 0xFFF);
    wrmsr(HV_MSR_SIEFP, (page + PAGE_SIZE) | 0xFFF);
    EXPECT_EQ(rdmsr(HV_MSR_SIEFP), (page + PAGE_SIZE) | 0xFFF);
}

CHECK(pages_beyond_the_gpa_space, "14.6.3, 14.6.4: not accessible to the guest, and no fault")
{
    EXPECT_WRMSR_FAULT(HV_MSR_SIMP, hv_gpa_limit() | HV_MSR_ENABLE, NO_FAULT);
    EXPECT_EQ(rdmsr(HV_MSR_SIMP), hv_gpa_limit() | HV_MSR_ENABLE);
    EXPECT_WRMSR_FAULT(HV_MSR_SIEFP, hv_gpa_limit() | HV_MSR_ENABLE, NO_FAULT);
    EXPECT_EQ(rdmsr(HV_MSR_SIEFP), hv_gpa_limit() | HV_MSR_ENABLE);
}

static void check_overlay(uint32_t index)
{
    volatile uint32_t *page = memset(page_alloc(1), 0xA5, PAGE_SIZE);
    wrmsr(index, (uintptr_t)page | HV_MSR_ENABLE);
    for (unsigned i = 0; i < PAGE_SIZE / 4; i++) {
        EXPECT_EQ(page[i], 0);
    }
    page[1] = 0x11223344;
    wrmsr(index, (uintptr_t)page);
    EXPECT_EQ(page[1], 0xA5A5A5A5);
    wrmsr(index, (uintptr_t)page | HV_MSR_ENABLE);
    EXPECT_EQ(page[1], 0x11223344);
    page[1] = 0;
}

CHECK(pages_are_overlays, "14.7: zero at first, like RAM, and the memory under them comes back")
{
    check_overlay(HV_MSR_SIMP);
    check_overlay(HV_MSR_SIEFP);
}

CHECK(eom_reads_zero, "14.6.6")
{
    wrmsr(HV_MSR_EOM, 0);
    EXPECT_EQ(rdmsr(HV_MSR_EOM), 0);
}

CHECK(sint_registers, "14.6.5: vector 16 to 255, RsvdP bits, sixteen of them")
{
    for (unsigned i = 0; i < 16; i++) {
        wrmsr(HV_MSR_SINT0 + i, 0xFFFFFFFFFFF00000 | HV_SINT_AUTO_EOI | 0xFF00 | (0x20 + i));
        EXPECT_EQ(rdmsr(HV_MSR_SINT0 + i), 0xFFFFFFFFFFF00000 | HV_SINT_AUTO_EOI | 0xFF00 | (0x20 + i));
        wrmsr(HV_MSR_SINT0 + i, HV_SINT_MASKED);
    }
}

CHECK(sint_vectors, "14.6.5: an invalid vector is #GP, unless the source is masked")
{
    for (unsigned vector = 0; vector < 256; vector++) {
        int expected = vector < 16 ? VECTOR_GP : NO_FAULT;
        EXPECT_WRMSR_FAULT(HV_MSR_SINT0 + 5, vector, expected);
        EXPECT_WRMSR_FAULT(HV_MSR_SINT0 + 5, vector | HV_SINT_MASKED, NO_FAULT);
    }
}

static void write_own_registers(void *argument)
{
    (void)argument;
    wrmsr(HV_MSR_SINT0 + 3, 0x80 + cpu_index());
    wrmsr(HV_MSR_SCONTROL, 1 + 2 * cpu_index());
}

static void check_own_registers(void *argument)
{
    (void)argument;
    EXPECT_EQ(rdmsr(HV_MSR_SINT0 + 3), 0x80 + cpu_index());
    EXPECT_EQ(rdmsr(HV_MSR_SCONTROL), 1 + 2 * cpu_index());
}

CHECK(registers_are_per_vp, "14.6: each VP has its own copy", .min_vps = 2)
{
    smp_run_all(write_own_registers, NULL);
    smp_run_all(check_own_registers, NULL);
}

/* -- Messages (14.2) -- */

CHECK(message_fills_the_slot, "14.8.4, 16.4.1: header and payload of a timer message")
{
    enable_messages();
    uint64_t before = rdmsr(HV_MSR_TIME_REF_COUNT);
    for (unsigned sint = 1; sint < 16; sint++) {
        send_message(sint % 4, sint);
        REQUIRE(message_arrives(sint));
        const struct hv_timer_payload *payload = (const struct hv_timer_payload *)slot(sint)->payload;
        EXPECT_EQ(slot(sint)->type, HV_MESSAGE_TIMER_EXPIRED);
        EXPECT_EQ(slot(sint)->payload_size, 24);
        EXPECT_EQ(slot(sint)->flags, 0);
        EXPECT_EQ(slot(sint)->sender, 0);
        EXPECT_EQ(payload->timer, sint % 4);
        EXPECT_EQ(payload->expiration, 1);
        EXPECT(payload->delivery >= before && payload->delivery <= rdmsr(HV_MSR_TIME_REF_COUNT));
        end_message(sint);
    }
}

CHECK(message_interrupts, "14.2.4: an edge-triggered interrupt on the SINT's vector")
{
    enable_messages();
    interrupt_set_handler(VECTOR, interrupt_handle_eoi);
    wrmsr(HV_MSR_SINT0 + 2, VECTOR);
    for (unsigned i = 1; i <= 20; i++) {
        send_message(0, 2);
        interrupts_on();
        EXPECT(WAIT_UNTIL(interrupt_count(0, VECTOR) == i, SOON));
        interrupts_off();
        EXPECT_EQ(slot(2)->type, HV_MESSAGE_TIMER_EXPIRED);
        EXPECT(!apic_vector_set(APIC_TMR, VECTOR));
        end_message(2);
    }
}

CHECK(masked_sint_gives_no_interrupt, "14.2.4: the message is there, the interrupt is lost")
{
    enable_messages();
    wrmsr(HV_MSR_SINT0 + 2, VECTOR | HV_SINT_MASKED);
    send_message(0, 2);
    EXPECT(message_arrives(2));
    clock_delay(1000);
    EXPECT(!apic_vector_set(APIC_IRR, VECTOR));
    wrmsr(HV_MSR_SINT0 + 2, VECTOR);
    clock_delay(1000);
    EXPECT(!apic_vector_set(APIC_IRR, VECTOR));
}

CHECK(polled_sint_gives_no_interrupt, "later: SINT bit 18", .generations = GENERATION_CURRENT)
{
    enable_messages();
    wrmsr(HV_MSR_SINT0 + 2, VECTOR | HV_SINT_POLLING);
    send_message(0, 2);
    EXPECT(message_arrives(2));
    clock_delay(1000);
    EXPECT(!apic_vector_set(APIC_IRR, VECTOR));
}

CHECK(busy_slot_keeps_the_message, "14.2.4, 14.8.3: queued, and the pending flag tells")
{
    enable_messages();
    send_message(0, 2);
    REQUIRE(message_arrives(2));
    EXPECT_EQ(slot(2)->flags & HV_MESSAGE_PENDING, 0);
    send_message(1, 2);
    EXPECT(WAIT_UNTIL(slot(2)->flags & HV_MESSAGE_PENDING, SOON));
    EXPECT_EQ(((const struct hv_timer_payload *)slot(2)->payload)->timer, 0);
    slot(2)->type = 0;
    wrmsr(HV_MSR_EOM, 0);
    EXPECT_EQ(slot(2)->type, HV_MESSAGE_TIMER_EXPIRED);
    EXPECT_EQ(((const struct hv_timer_payload *)slot(2)->payload)->timer, 1);
    EXPECT_EQ(slot(2)->flags & HV_MESSAGE_PENDING, 0);
}

CHECK(queue_keeps_the_order, "14.2.3: messages arrive in the order they were posted")
{
    enable_messages();
    for (unsigned timer = 0; timer < 4; timer++) {
        send_message(timer, 2);
        clock_delay(200);
    }
    for (unsigned timer = 0; timer < 4; timer++) {
        REQUIRE_EQ(slot(2)->type, HV_MESSAGE_TIMER_EXPIRED);
        EXPECT_EQ(((const struct hv_timer_payload *)slot(2)->payload)->timer, timer);
        EXPECT_EQ(!!(slot(2)->flags & HV_MESSAGE_PENDING), timer < 3);
        end_message(2);
    }
    EXPECT_EQ(slot(2)->type, 0);
}

CHECK(eom_interrupts_again, "14.2.4, 14.6.6: each delivered message has its interrupt")
{
    enable_messages();
    interrupt_set_handler(VECTOR, interrupt_handle_eoi);
    wrmsr(HV_MSR_SINT0 + 2, VECTOR);
    interrupts_on();
    send_message(0, 2);
    EXPECT(WAIT_UNTIL(interrupt_count(0, VECTOR) == 1, SOON));
    send_message(1, 2);
    EXPECT(WAIT_UNTIL(slot(2)->flags & HV_MESSAGE_PENDING, SOON));
    EXPECT_EQ(interrupt_count(0, VECTOR), 1);
    end_message(2);
    EXPECT(WAIT_UNTIL(interrupt_count(0, VECTOR) == 2, SOON));
    interrupts_off();
}

static void empty_then_eoi(struct frame *frame)
{
    (void)frame;
    slot(2)->type = 0;
    apic_eoi();
}

CHECK(eoi_delivers_the_next, "14.2.4: writing the APIC's EOI register scans the queues too")
{
    enable_messages();
    send_message(0, 2);
    REQUIRE(message_arrives(2));
    send_message(1, 2);
    send_message(2, 2);
    EXPECT(WAIT_UNTIL(slot(2)->flags & HV_MESSAGE_PENDING, SOON));
    interrupt_set_handler(VECTOR, empty_then_eoi);
    wrmsr(HV_MSR_SINT0 + 2, VECTOR);
    apic_send_ipi(0, VECTOR); /* stands for the first message's interrupt, which was masked */
    interrupts_on();
    EXPECT(WAIT_UNTIL(interrupt_count(0, VECTOR) == 3, SOON));
    interrupts_off();
}

CHECK(forgotten_message_is_tried_again, "14.2.4: after a time on the order of milliseconds")
{
    enable_messages();
    send_message(0, 2);
    REQUIRE(message_arrives(2));
    send_message(1, 2);
    EXPECT(WAIT_UNTIL(slot(2)->flags & HV_MESSAGE_PENDING, SOON));
    clock_delay(20000);
    slot(2)->type = 0;
    EXPECT(message_arrives(2));
    EXPECT_EQ(((const struct hv_timer_payload *)slot(2)->payload)->timer, 1);
}

CHECK(queues_are_per_sint, "14.2.2: a busy slot holds up nobody else")
{
    enable_messages();
    send_message(0, 2);
    REQUIRE(message_arrives(2));
    send_message(1, 2);
    send_message(2, 3);
    EXPECT(message_arrives(3));
    EXPECT_EQ(((const struct hv_timer_payload *)slot(2)->payload)->timer, 0);
    EXPECT_EQ(((const struct hv_timer_payload *)slot(3)->payload)->timer, 2);
}

CHECK(page_switched_off_holds_messages, "14.2.3, 14.2.4: delivered once the SIM page is there again")
{
    enable_messages();
    send_message(0, 2);
    REQUIRE(message_arrives(2));
    send_message(1, 2);
    EXPECT(WAIT_UNTIL(slot(2)->flags & HV_MESSAGE_PENDING, SOON));
    slot(2)->type = 0;
    wrmsr(HV_MSR_SIMP, (uintptr_t)messages);
    clock_delay(5000);
    wrmsr(HV_MSR_SIMP, (uintptr_t)messages | HV_MSR_ENABLE);
    wrmsr(HV_MSR_EOM, 0);
    EXPECT(message_arrives(2));
    EXPECT_EQ(((const struct hv_timer_payload *)slot(2)->payload)->timer, 1);
}

CHECK(synic_switched_off, "14.6.1: no message while SCONTROL is 0")
{
    enable_messages();
    wrmsr(HV_MSR_SCONTROL, 0);
    wrmsr(HV_MSR_SINT0 + 2, VECTOR);
    send_message(0, 2);
    clock_delay(5000);
    EXPECT_EQ(slot(2)->type, 0);
    EXPECT(!apic_vector_set(APIC_IRR, VECTOR));
}

CHECK(eom_without_messages, "14.6.6: a no-op")
{
    enable_messages();
    for (unsigned i = 0; i < 100; i++) {
        wrmsr(HV_MSR_EOM, 0);
    }
    for (unsigned sint = 0; sint < 16; sint++) {
        EXPECT_EQ(slot(sint)->type, 0);
    }
}

/* -- Auto-EOI (14.6.5) -- */

static volatile bool in_service;

static void note_in_service(struct frame *frame)
{
    in_service = apic_vector_set(APIC_ISR, (uint8_t)frame->vector);
}

CHECK(auto_eoi, "14.6.5: the in-service bit is cleared on delivery; the handler ends nothing")
{
    enable_messages();
    interrupt_set_handler(VECTOR, note_in_service);
    wrmsr(HV_MSR_SINT0 + 2, VECTOR | HV_SINT_AUTO_EOI);
    interrupts_on();
    for (unsigned i = 1; i <= 50; i++) {
        in_service = true;
        send_message(0, 2);
        REQUIRE(WAIT_UNTIL(interrupt_count(0, VECTOR) == i, SOON));
        EXPECT(!in_service);
        end_message(2);
    }
    interrupts_off();
}

CHECK(auto_eoi_is_the_sints, "14.6.5: other vectors still need their EOI")
{
    enable_messages();
    interrupt_set_handler(VECTOR, note_in_service);
    interrupt_set_handler(OTHER_VECTOR, interrupt_handle_eoi);
    wrmsr(HV_MSR_SINT0 + 2, VECTOR | HV_SINT_AUTO_EOI);
    interrupts_on();
    apic_send_ipi(0, OTHER_VECTOR);
    EXPECT(WAIT_UNTIL(interrupt_count(0, OTHER_VECTOR) == 1, SOON));
    interrupt_set_handler(OTHER_VECTOR, note_in_service);
    apic_send_ipi(0, OTHER_VECTOR);
    EXPECT(WAIT_UNTIL(interrupt_count(0, OTHER_VECTOR) == 2, SOON));
    EXPECT(in_service);
    apic_eoi();
    interrupts_off();
    EXPECT(!apic_vector_set(APIC_ISR, OTHER_VECTOR));
}

CHECK(auto_eoi_switched_off, "14.6.5: the flag can be turned off at any time")
{
    enable_messages();
    interrupt_set_handler(VECTOR, note_in_service);
    wrmsr(HV_MSR_SINT0 + 2, VECTOR | HV_SINT_AUTO_EOI);
    wrmsr(HV_MSR_SINT0 + 2, VECTOR);
    send_message(0, 2);
    interrupts_on();
    EXPECT(WAIT_UNTIL(interrupt_count(0, VECTOR) == 1, SOON));
    interrupts_off();
    EXPECT(in_service);
    apic_eoi();
}

/* -- Every VP at once -- */

static struct hv_message *own_messages[GUEST_MAX_CPUS];

static void exchange_messages(void *argument)
{
    (void)argument;
    struct hv_message *own = own_messages[cpu_index()];
    wrmsr(HV_MSR_SIMP, (uintptr_t)own | HV_MSR_ENABLE);
    wrmsr(HV_MSR_SCONTROL, 1);
    for (unsigned i = 0; i < 100; i++) {
        send_message(i % 4, 1 + i % 15);
        REQUIRE(WAIT_UNTIL(own[1 + i % 15].type == HV_MESSAGE_TIMER_EXPIRED, SOON));
        EXPECT_EQ(((const struct hv_timer_payload *)own[1 + i % 15].payload)->timer, i % 4);
        own[1 + i % 15].type = 0;
        wrmsr(HV_MSR_EOM, 0);
    }
}

CHECK(messages_on_every_vp, "14.2.2: queues and pages are each VP's own", .min_vps = 2)
{
    for (unsigned i = 0; i < cpu_count(); i++) {
        own_messages[i] = page_alloc(1);
    }
    smp_run_all(exchange_messages, NULL);
}
