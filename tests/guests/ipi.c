/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Synthetic cluster IPIs: calls that came after TLFS 2.0a, as deployed guests make them. */
#include "guest.h"

#define VECTOR 0xFB
#define CALL HV_SEND_SYNTHETIC_CLUSTER_IPI
#define CALL_EX HV_SEND_SYNTHETIC_CLUSTER_IPI_EX

void guest_cleanup(void)
{
    hv_reset_state();
}

static volatile bool listeners_stop;

static void listen(void *argument)
{
    (void)argument;
    interrupts_on();
    while (!listeners_stop && !check_failed()) {
        cpu_pause();
    }
    interrupts_off();
}

static void start_listeners(void)
{
    listeners_stop = false;
    interrupt_set_handler(VECTOR, interrupt_handle_eoi);
    for (unsigned i = 1; i < cpu_count(); i++) {
        smp_start(i, listen, NULL);
    }
    hv_enable();
}

static void expect_counts(uint64_t mask, unsigned count)
{
    for (unsigned i = 0; i < cpu_count(); i++) {
        if (mask >> i & 1) {
            EXPECT_THAT(WAIT_UNTIL(interrupt_count(i, VECTOR) == count, SOON), "VP %u has had %u interrupts, not %u", i,
                        interrupt_count(i, VECTOR), count);
        }
    }
}

static uint64_t all_vps(void)
{
    return (1ull << cpu_count()) - 1;
}

CHECK(ipi_fast, "later: vector and mask in registers", .generations = GENERATION_CURRENT)
{
    start_listeners();
    interrupts_on();
    for (unsigned i = 0; i < cpu_count(); i++) {
        EXPECT_EQ(hv_call(CALL | HV_CALL_FAST, VECTOR, 1ull << i), HV_SUCCESS);
        expect_counts(1ull << i, 1);
        EXPECT(i + 1 == cpu_count() || interrupt_count(i + 1, VECTOR) == 0);
    }
    EXPECT_EQ(hv_call(CALL | HV_CALL_FAST, VECTOR, all_vps()), HV_SUCCESS);
    expect_counts(all_vps(), 2);
    interrupts_off();
    listeners_stop = true;
}

CHECK(ipi_slow, "later: the same in memory", .generations = GENERATION_CURRENT)
{
    uint64_t *input = page_alloc(1);
    start_listeners();
    interrupts_on();
    input[0] = VECTOR;
    input[1] = all_vps();
    EXPECT_EQ(hv_call(CALL, (uintptr_t)input, 0), HV_SUCCESS);
    expect_counts(all_vps(), 1);
    interrupts_off();
    listeners_stop = true;
}

CHECK(ipi_ex, "later: a sparse set, and the set of all", .generations = GENERATION_CURRENT)
{
    uint64_t *input = page_alloc(1);
    start_listeners();
    interrupts_on();
    input[0] = VECTOR;
    input[1] = HV_VP_SET_SPARSE_4K;
    input[2] = 1;
    input[3] = all_vps();
    EXPECT_EQ(hv_call(CALL_EX | HV_CALL_VARIABLE(1), (uintptr_t)input, 0), HV_SUCCESS);
    expect_counts(all_vps(), 1);
    input[1] = HV_VP_SET_ALL;
    input[2] = 0;
    EXPECT_EQ(hv_call(CALL_EX, (uintptr_t)input, 0), HV_SUCCESS);
    expect_counts(all_vps(), 2);
    interrupts_off();
    listeners_stop = true;
}

CHECK(ipi_ex_xmm, "later: vector and set in registers and XMM0", .generations = GENERATION_CURRENT)
{
    uint64_t xmm[12] __attribute__((aligned(16))) = {1, all_vps()};
    start_listeners();
    interrupts_on();
    EXPECT_EQ(hv_call_xmm(CALL_EX | HV_CALL_FAST | HV_CALL_VARIABLE(1), VECTOR, HV_VP_SET_SPARSE_4K, xmm), HV_SUCCESS);
    expect_counts(all_vps(), 1);
    interrupts_off();
    listeners_stop = true;
}

CHECK(ipi_vectors, "later: 0x10 to 0xFF", .generations = GENERATION_CURRENT)
{
    hv_enable();
    for (unsigned vector = 0; vector < 0x10; vector++) {
        EXPECT_EQ(hv_call(CALL | HV_CALL_FAST, vector, 1), HV_INVALID_PARAMETER);
    }
    EXPECT_EQ(hv_call(CALL | HV_CALL_FAST, 0x100, 1), HV_INVALID_PARAMETER);
    EXPECT_EQ(hv_call(CALL | HV_CALL_FAST, 0xFFFFFFFF, 1), HV_INVALID_PARAMETER);
    EXPECT_EQ(hv_call(CALL | HV_CALL_FAST, 0x10, 1), HV_SUCCESS);
    EXPECT(WAIT_UNTIL(apic_vector_set(APIC_IRR, 0x10), SOON));
    interrupt_set_handler(0x10, interrupt_handle_eoi);
    interrupts_on();
    EXPECT(WAIT_UNTIL(interrupt_count(0, 0x10) == 1, SOON));
    interrupts_off();
}

CHECK(ipi_ignores_padding, "later: deployed guests leave dirt beside the vector", .generations = GENERATION_CURRENT)
{
    interrupt_set_handler(VECTOR, interrupt_handle_eoi);
    hv_enable();
    interrupts_on();
    EXPECT_EQ(hv_call(CALL | HV_CALL_FAST, 0xFFFFFF0000000000 | VECTOR, 1), HV_SUCCESS);
    EXPECT(WAIT_UNTIL(interrupt_count(0, VECTOR) == 1, SOON));
    interrupts_off();
}

CHECK(ipi_ex_checks_the_set, "later: as many banks as the mask says", .generations = GENERATION_CURRENT)
{
    uint64_t *input = page_alloc(1);
    hv_enable();
    input[0] = VECTOR;
    input[1] = HV_VP_SET_SPARSE_4K;
    input[2] = 7;
    EXPECT_EQ(hv_call(CALL_EX | HV_CALL_VARIABLE(2), (uintptr_t)input, 0), HV_INVALID_HYPERCALL_INPUT);
    EXPECT_EQ(hv_call(CALL_EX | HV_CALL_VARIABLE(4), (uintptr_t)input, 0), HV_INVALID_HYPERCALL_INPUT);
    input[1] = 5;
    input[2] = 1;
    EXPECT_EQ(hv_call(CALL_EX | HV_CALL_VARIABLE(1), (uintptr_t)input, 0), HV_INVALID_PARAMETER);
}

#define PING_PONGS 300
static volatile uint32_t ping_pong;

static void answer(struct frame *frame)
{
    (void)frame;
    ping_pong++;
    apic_eoi();
    if (ping_pong < PING_PONGS) {
        EXPECT_EQ(hv_call(CALL | HV_CALL_FAST, VECTOR, 1ull << (1 - cpu_index())), HV_SUCCESS);
    }
}

CHECK(ipi_ping_pong, "later: back and forth many times, none lost", .min_vps = 2, .generations = GENERATION_CURRENT)
{
    ping_pong = 0;
    listeners_stop = false;
    interrupt_set_handler(VECTOR, answer);
    smp_start(1, listen, NULL);
    hv_enable();
    EXPECT_EQ(hv_call(CALL | HV_CALL_FAST, VECTOR, 2), HV_SUCCESS);
    interrupts_on();
    EXPECT_THAT(WAIT_UNTIL(ping_pong == PING_PONGS, SOON), "%u of %u", ping_pong, PING_PONGS);
    interrupts_off();
    listeners_stop = true;
}

static void halt_and_count(void *argument)
{
    uint32_t rounds = *(uint32_t *)argument;
    while (interrupt_count(cpu_index(), VECTOR) < rounds && !check_failed()) {
        interrupts_on_halt();
    }
}

CHECK(ipi_wakes_halted_vps, "later", .min_vps = 2, .generations = GENERATION_CURRENT)
{
    uint32_t rounds = 200;
    interrupt_set_handler(VECTOR, interrupt_handle_eoi);
    hv_enable();
    for (unsigned i = 1; i < cpu_count(); i++) {
        smp_start(i, halt_and_count, &rounds);
    }
    for (uint32_t round = 1; round <= rounds; round++) {
        EXPECT_EQ(hv_call(CALL | HV_CALL_FAST, VECTOR, all_vps() & ~1ull), HV_SUCCESS);
        for (unsigned i = 1; i < cpu_count(); i++) {
            REQUIRE(WAIT_UNTIL(interrupt_count(i, VECTOR) == round, SOON));
        }
    }
}

CHECK(ipi_is_later_than_2008r2, "2.0a has no such call", .generations = GENERATION_2008R2)
{
    hv_enable();
    EXPECT_EQ(hv_call(CALL | HV_CALL_FAST, VECTOR, 1), HV_INVALID_HYPERCALL_CODE);
    EXPECT(!apic_vector_set(APIC_IRR, VECTOR));
}
