/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLFS 13.2 and 13.3: EOI, ICR and TPR by MSR, and the APIC assist page's no-EOI-required protocol. */
#include "guest.h"

#define LOW 0x60
#define HIGH 0x80
#define NO_EOI_REQUIRED 1u

static bool use_exchange;
static volatile uint32_t *assist_pages[GUEST_MAX_CPUS];

void guest_cleanup(void)
{
    use_exchange = false;
    hv_reset_state();
}

/* -- Registers (13.2.3) -- */

static volatile bool in_service_at_entry, in_service_after_eoi;

static void end_by_msr(struct frame *frame)
{
    in_service_at_entry = apic_vector_set(APIC_ISR, (uint8_t)frame->vector);
    wrmsr(HV_MSR_EOI, 0);
    in_service_after_eoi = apic_vector_set(APIC_ISR, (uint8_t)frame->vector);
}

CHECK(eoi_register, "13.2.3.1: ends the interrupt; write-only")
{
    EXPECT_RDMSR_FAULT(HV_MSR_EOI, VECTOR_GP);
    interrupt_set_handler(LOW, end_by_msr);
    for (unsigned i = 1; i <= 10; i++) {
        apic_send_ipi(0, LOW);
        interrupts_on();
        EXPECT(WAIT_UNTIL(interrupt_count(0, LOW) == i, SOON));
        interrupts_off();
        EXPECT(in_service_at_entry);
        EXPECT(!in_service_after_eoi);
    }
}

CHECK(tpr_register, "13.2.3.3: the APIC's TPR; bits 63:8 are RsvdZ")
{
    static const uint8_t values[] = {0x00, 0x10, 0x75, 0xFF, 0x00};
    for (unsigned i = 0; i < sizeof(values); i++) {
        wrmsr(HV_MSR_TPR, values[i]);
        EXPECT_EQ(rdmsr(HV_MSR_TPR), values[i]);
        EXPECT_EQ(apic_read(APIC_TPR) & 0xF0, values[i] & 0xF0);
    }
    apic_write(APIC_TPR, 0x40);
    EXPECT_EQ(rdmsr(HV_MSR_TPR), 0x40);
    for (unsigned bit = 8; bit < 64; bit++) {
        EXPECT_WRMSR_FAULT(HV_MSR_TPR, 1ull << bit, VECTOR_GP);
    }
    EXPECT_EQ(rdmsr(HV_MSR_TPR), 0x40);
    wrmsr(HV_MSR_TPR, 0);
}

CHECK(tpr_register_holds_interrupts_back, "13.2.3.3")
{
    interrupt_set_handler(LOW, interrupt_handle_eoi);
    wrmsr(HV_MSR_TPR, LOW & 0xF0);
    apic_send_ipi(0, LOW);
    interrupts_on();
    clock_delay(200);
    EXPECT_EQ(interrupt_count(0, LOW), 0);
    wrmsr(HV_MSR_TPR, 0);
    EXPECT(WAIT_UNTIL(interrupt_count(0, LOW) == 1, SOON));
    interrupts_off();
}

#ifdef __x86_64__
CHECK(tpr_register_is_cr8, "13.2.3.3: 64-bit guests use CR8 instead")
{
    uint64_t cr8;
    wrmsr(HV_MSR_TPR, 0x50);
    __asm__ volatile("mov %%cr8, %0" : "=r"(cr8));
    EXPECT_EQ(cr8, 5);
    __asm__ volatile("mov %0, %%cr8" : : "r"(3ull));
    EXPECT_EQ(rdmsr(HV_MSR_TPR), 0x30);
    wrmsr(HV_MSR_TPR, 0);
}
#endif

CHECK(icr_register_to_self, "13.2.3.2: low half in 31:0, destination in 63:32")
{
    interrupt_set_handler(LOW, interrupt_handle_eoi);
    wrmsr(HV_MSR_ICR, LOW);
    interrupts_on();
    EXPECT(WAIT_UNTIL(interrupt_count(0, LOW) == 1, SOON));
    wrmsr(HV_MSR_ICR, APIC_ICR_SELF | LOW);
    EXPECT(WAIT_UNTIL(interrupt_count(0, LOW) == 2, SOON));
    interrupts_off();
    EXPECT_EQ((uint32_t)rdmsr(HV_MSR_ICR), APIC_ICR_SELF | LOW);
    EXPECT_EQ(apic_read(APIC_ICR_LOW), APIC_ICR_SELF | LOW);
}

static volatile bool listener_stop;

static void listen(void *argument)
{
    (void)argument;
    interrupts_on();
    while (!listener_stop && !check_failed()) {
        cpu_pause();
    }
    interrupts_off();
    if (check_failed()) {
        NOTE("VP %u: requested %d %d, in service %d %d, assist %x (low, high)\n", cpu_index(),
             apic_vector_set(APIC_IRR, LOW), apic_vector_set(APIC_IRR, HIGH), apic_vector_set(APIC_ISR, LOW),
             apic_vector_set(APIC_ISR, HIGH), assist_pages[cpu_index()] ? *assist_pages[cpu_index()] : 0);
    }
}

CHECK(icr_register_to_others, "13.2.3.2", .min_vps = 2)
{
    listener_stop = false;
    interrupt_set_handler(LOW, interrupt_handle_eoi);
    for (unsigned i = 1; i < cpu_count(); i++) {
        smp_start(i, listen, NULL);
        wrmsr(HV_MSR_ICR, (uint64_t)i << 56 | LOW);
        EXPECT(WAIT_UNTIL(interrupt_count(i, LOW) == 1, SOON));
        EXPECT_EQ(rdmsr(HV_MSR_ICR), (uint64_t)i << 56 | LOW);
        EXPECT_EQ(apic_read(APIC_ICR_HIGH), i << 24);
    }
    wrmsr(HV_MSR_ICR, APIC_ICR_OTHERS | LOW);
    for (unsigned i = 1; i < cpu_count(); i++) {
        EXPECT(WAIT_UNTIL(interrupt_count(i, LOW) == 2, SOON));
    }
    EXPECT_EQ(interrupt_count(0, LOW), 0);
    listener_stop = true;
}

/* -- The assist page (13.3.4.1) -- */

static void enable_assist(void *argument)
{
    (void)argument;
    wrmsr(HV_MSR_APIC_ASSIST_PAGE, (uintptr_t)assist_pages[cpu_index()] | HV_MSR_ENABLE);
}

static void assist_everywhere(void)
{
    for (unsigned i = 0; i < cpu_count(); i++) {
        assist_pages[i] = page_alloc(1);
    }
    smp_run_all(enable_assist, NULL);
}

/*
 * The EOI that the specification recommends, or the one deployed guests use; tells whether none was required. BTR is
 * not locked: the page is the VP's own, so the hypervisor changes it only between two instructions of the VP.
 */
static bool end_by_assist(void)
{
    volatile uint32_t *field = assist_pages[cpu_index()];
    bool not_required;
    if (use_exchange) {
        not_required = __atomic_exchange_n(field, 0, __ATOMIC_SEQ_CST) & NO_EOI_REQUIRED;
    } else {
        __asm__ volatile("btrl $0, %1; setc %0" : "=r"(not_required), "+m"(*field) : : "cc", "memory");
    }
    if (!not_required) {
        wrmsr(HV_MSR_EOI, 0);
    }
    return not_required;
}

static volatile uint32_t assisted[GUEST_MAX_CPUS], explicit_ends[GUEST_MAX_CPUS];

static void assist_handler(struct frame *frame)
{
    (void)frame;
    if (end_by_assist()) {
        assisted[cpu_index()]++;
    } else {
        explicit_ends[cpu_index()]++;
    }
}

static void clear_ends(void)
{
    memset((void *)assisted, 0, sizeof(assisted));
    memset((void *)explicit_ends, 0, sizeof(explicit_ends));
}

CHECK(assist_register, "13.3.4.1: bits 11:1 are RsvdP; before the OS identity is set")
{
    uint8_t *page = memset(page_alloc(1), 0xA5, PAGE_SIZE);
    EXPECT_EQ(rdmsr(HV_MSR_GUEST_OS_ID), 0);
    wrmsr(HV_MSR_APIC_ASSIST_PAGE, (uintptr_t)page | 0xFFF);
    EXPECT_EQ(rdmsr(HV_MSR_APIC_ASSIST_PAGE), (uintptr_t)page | 0xFFF);
    EXPECT_EQ(*(volatile uint32_t *)page & ~NO_EOI_REQUIRED, 0);
    EXPECT_FAULT(NO_FAULT, ((volatile uint32_t *)page)[16] = 0x12345678);
    EXPECT_EQ(((volatile uint32_t *)page)[16], 0x12345678);
    wrmsr(HV_MSR_APIC_ASSIST_PAGE, 0);
    EXPECT_EQ(((volatile uint32_t *)page)[16], 0xA5A5A5A5);
    EXPECT_EQ(*(volatile uint32_t *)page, 0xA5A5A5A5);
}

static void check_own_page(void *argument)
{
    (void)argument;
    volatile uint32_t *page = assist_pages[cpu_index()];
    page[100] = 0xC0DE0000 + cpu_index();
    EXPECT_EQ(page[100], 0xC0DE0000 + cpu_index());
}

CHECK(assist_page_per_vp, "13.3.4.1: one per VP", .min_vps = 2)
{
    assist_everywhere();
    smp_run_all(check_own_page, NULL);
}

CHECK(no_eoi_required, "13.3.4.1: edge-triggered, and none of lower priority pending")
{
    assist_everywhere();
    clear_ends();
    interrupt_set_handler(HIGH, assist_handler);
    interrupts_on();
    for (unsigned i = 1; i <= 200; i++) {
        apic_send_ipi(0, HIGH);
        REQUIRE(WAIT_UNTIL(interrupt_count(0, HIGH) == i, SOON));
    }
    interrupts_off();
    EXPECT_EQ(assisted[0], 200);
    EXPECT(!apic_vector_set(APIC_ISR, HIGH));
    EXPECT(!apic_vector_set(APIC_IRR, HIGH));
}

CHECK(no_eoi_required_then_lower, "13.3.4.1: the next interrupt may be of lower priority")
{
    assist_everywhere();
    clear_ends();
    interrupt_set_handler(HIGH, assist_handler);
    interrupt_set_handler(LOW, assist_handler);
    interrupts_on();
    for (unsigned i = 1; i <= 100; i++) {
        apic_send_ipi(0, HIGH);
        REQUIRE(WAIT_UNTIL(interrupt_count(0, HIGH) == i, SOON));
        apic_send_ipi(0, LOW);
        REQUIRE(WAIT_UNTIL(interrupt_count(0, LOW) == i, SOON));
    }
    interrupts_off();
    EXPECT_EQ(assisted[0], 200);
}

CHECK(no_eoi_required_seen_by_tpr, "13.3.4.1: the APIC's priority is right after an assisted EOI")
{
    assist_everywhere();
    clear_ends();
    interrupt_set_handler(HIGH, assist_handler);
    interrupts_on();
    apic_send_ipi(0, HIGH);
    REQUIRE(WAIT_UNTIL(interrupt_count(0, HIGH) == 1, SOON));
    interrupts_off();
    EXPECT_EQ(assisted[0], 1);
    EXPECT_EQ(apic_read(APIC_PPR) & 0xF0, 0);
    EXPECT(!apic_vector_set(APIC_ISR, HIGH));
}

static volatile uint32_t assist_field;

static void note_field_and_end(struct frame *frame)
{
    (void)frame;
    assist_field = *assist_pages[0];
    assist_handler(frame);
}

CHECK(eoi_required_when_lower_is_pending, "13.3.4.1: a lower interrupt waits")
{
    assist_everywhere();
    clear_ends();
    interrupt_set_handler(HIGH, note_field_and_end);
    interrupt_set_handler(LOW, assist_handler);
    for (unsigned i = 1; i <= 50; i++) {
        apic_send_ipi(0, LOW);
        apic_send_ipi(0, HIGH);
        interrupts_on();
        REQUIRE(WAIT_UNTIL(interrupt_count(0, LOW) == i, SOON));
        interrupts_off();
        EXPECT_EQ(interrupt_count(0, HIGH), i);
        EXPECT_EQ(assist_field & NO_EOI_REQUIRED, 0);
    }
    EXPECT_EQ(explicit_ends[0], 50);
}

static void request_lower_and_end(struct frame *frame)
{
    EXPECT_EQ(*assist_pages[0] & NO_EOI_REQUIRED, NO_EOI_REQUIRED);
    apic_send_ipi(0, LOW);
    assist_field = *assist_pages[0];
    assist_handler(frame);
}

CHECK(eoi_required_after_all, "13.3.4.1: a lower interrupt is requested later: the bit is cleared")
{
    assist_everywhere();
    clear_ends();
    interrupt_set_handler(HIGH, request_lower_and_end);
    interrupt_set_handler(LOW, assist_handler);
    for (unsigned i = 1; i <= 50; i++) {
        apic_send_ipi(0, HIGH);
        interrupts_on();
        REQUIRE(WAIT_UNTIL(interrupt_count(0, LOW) == i, SOON));
        interrupts_off();
        EXPECT_EQ(assist_field & NO_EOI_REQUIRED, 0);
    }
    EXPECT_EQ(explicit_ends[0], 50);
}

static void end_by_mmio_always(struct frame *frame)
{
    (void)frame;
    apic_eoi();
}

CHECK(conventional_eoi_still_works, "13.3.4.1: irrespective of the bit's value")
{
    assist_everywhere();
    interrupts_on();
    for (unsigned i = 1; i <= 50; i++) {
        interrupt_set_handler(HIGH, i % 2 ? end_by_mmio_always : end_by_msr);
        interrupt_set_handler(LOW, end_by_mmio_always);
        apic_send_ipi(0, HIGH);
        REQUIRE(WAIT_UNTIL(interrupt_count(0, HIGH) == i, SOON));
        apic_send_ipi(0, LOW);
        REQUIRE(WAIT_UNTIL(interrupt_count(0, LOW) == i, SOON));
    }
    interrupts_off();
    EXPECT(!apic_vector_set(APIC_ISR, HIGH));
    EXPECT(!apic_vector_set(APIC_ISR, LOW));
}

static void nest(struct frame *frame)
{
    apic_send_ipi(0, HIGH);
    interrupts_on();
    while (interrupt_count(0, HIGH) < interrupt_count(0, LOW)) {
        cpu_pause();
    }
    interrupts_off();
    assist_handler(frame);
}

CHECK(nested_interrupts, "13.3.4.1: only the first EOI can be avoided")
{
    assist_everywhere();
    clear_ends();
    interrupt_set_handler(LOW, nest);
    interrupt_set_handler(HIGH, assist_handler);
    for (unsigned i = 1; i <= 50; i++) {
        apic_send_ipi(0, LOW);
        interrupts_on();
        REQUIRE(WAIT_UNTIL(interrupt_count(0, LOW) == i && assisted[0] + explicit_ends[0] == 2 * i, SOON));
        interrupts_off();
    }
    EXPECT(!apic_vector_set(APIC_ISR, HIGH));
    EXPECT(!apic_vector_set(APIC_ISR, LOW));
}

static void disable_in_handler(struct frame *frame)
{
    (void)frame;
    wrmsr(HV_MSR_APIC_ASSIST_PAGE, 0);
    wrmsr(HV_MSR_EOI, 0);
}

CHECK(assist_switched_off_in_an_interrupt, "13.3.4.1: enabling and disabling at any time")
{
    interrupt_set_handler(HIGH, disable_in_handler);
    for (unsigned i = 1; i <= 20; i++) {
        assist_everywhere();
        apic_send_ipi(0, HIGH);
        interrupts_on();
        REQUIRE(WAIT_UNTIL(interrupt_count(0, HIGH) == i, SOON));
        interrupts_off();
        EXPECT(!apic_vector_set(APIC_ISR, HIGH));
    }
}

static volatile uint32_t received[2];

static void count_and_end(struct frame *frame)
{
    received[frame->vector == HIGH]++;
    assist_handler(frame);
}

/* One at a time of each vector, so that none may merge with the one before it: every one must arrive. */
static void check_none_lost(bool exchange)
{
    use_exchange = exchange;
    assist_everywhere();
    clear_ends();
    listener_stop = false;
    received[0] = received[1] = 0;
    interrupt_set_handler(LOW, count_and_end);
    interrupt_set_handler(HIGH, count_and_end);
    smp_start(1, listen, NULL);
    uint32_t rounds = 0;
    /* On a busy host a round can take long: then fewer must do. */
    uint64_t end = clock_microseconds() + 2000000;
    for (uint32_t i = 1; i <= 1500 && (i <= 20 || clock_microseconds() < end); i++) {
        rounds = i;
        apic_send_ipi(1, HIGH);
        apic_send_ipi(1, LOW);
        if (!WAIT_UNTIL(received[0] == i && received[1] == i, SOON)) {
            check_fail(__FILE__, __LINE__, "round %u: received %u low, %u high; %u EOIs avoided, %u not", i,
                       received[0], received[1], assisted[1], explicit_ends[1]);
            check_abort();
        }
    }
    listener_stop = true;
    EXPECT_EQ(assisted[1] + explicit_ends[1], 2 * rounds);
}

CHECK(no_interrupt_is_lost_with_xchg, "13.3.4.1: a lower interrupt from another VP while an EOI is avoided",
      .min_vps = 2)
{
    check_none_lost(true);
}

CHECK(no_interrupt_is_lost_with_btr, "13.3.4.1: the same with the code the text recommends, which locks nothing",
      .min_vps = 2)
{
    check_none_lost(false);
}
