/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS 14.4, 14.9.7, 14.9.8: messages and events through connections to ports of the own partition. Before the guest
 * starts, the host has made these (tests/guests/guest_catalog.py):
 *
 *   connection 1, port 1: messages to SINT 5 of VP 0       connection 3, port 3: flags 8 to 23 of SINT 7 of VP 0
 *   connection 2, port 2: messages to SINT 6 of any VP     connection 4, port 4: flags 0 to 2046 of SINT 8 of any VP
 *   connection 5: its port was deleted                     connection 6, port 6: messages to SINT 9 of the last VP
 */
#include "guest.h"

#define VECTOR 0x73
#define BUFFERS 16
#define INVALID_SYNIC_STATE 0x0018

static struct hv_message *messages[GUEST_MAX_CPUS];
static volatile uint64_t *flags[GUEST_MAX_CPUS];

void guest_cleanup(void)
{
    hv_reset_state();
}

static void enable_synic(void *argument)
{
    (void)argument;
    wrmsr(HV_MSR_SIMP, (uintptr_t)messages[cpu_index()] | HV_MSR_ENABLE);
    wrmsr(HV_MSR_SIEFP, (uintptr_t)flags[cpu_index()] | HV_MSR_ENABLE);
    wrmsr(HV_MSR_SCONTROL, 1);
    for (unsigned sint = 5; sint < 10; sint++) {
        wrmsr(HV_MSR_SINT0 + sint, VECTOR);
    }
}

static void enable_everywhere(void)
{
    for (unsigned i = 0; i < cpu_count(); i++) {
        messages[i] = page_alloc(1);
        flags[i] = page_alloc(1);
    }
    interrupt_set_handler(VECTOR, interrupt_handle_eoi);
    hv_enable();
    smp_run_all(enable_synic, NULL);
}

static unsigned post(uint32_t connection, uint32_t type, uint32_t size, uint64_t first_word)
{
    uint64_t *input = page_alloc(1);
    input[0] = connection;
    input[1] = (uint64_t)size << 32 | type;
    input[2] = first_word;
    for (unsigned i = 1; i < 30; i++) {
        input[2 + i] = first_word + i;
    }
    return HV_RESULT_STATUS(hv_call(HV_POST_MESSAGE, (uintptr_t)input, 0));
}

static unsigned signal(uint32_t connection, uint16_t flag)
{
    return HV_RESULT_STATUS(hv_call(HV_SIGNAL_EVENT | HV_CALL_FAST, (uint64_t)flag << 32 | connection, 0));
}

CHECK(post_message, "14.9.7, 14.8.4: type, size, payload; the sender is the port")
{
    enable_everywhere();
    interrupts_on();
    for (unsigned size = 0; size <= 240; size += 24) {
        EXPECT_EQ(post(1, 0x1234 + size, size, 0xABCD0000 + size), HV_SUCCESS);
        const struct hv_message *slot = &messages[0][5];
        REQUIRE(WAIT_UNTIL(slot->type != 0, SOON));
        EXPECT_EQ(slot->type, 0x1234 + size);
        EXPECT_EQ(slot->payload_size, size);
        EXPECT_EQ(slot->sender, 1);
        for (unsigned i = 0; i < size / 8; i++) {
            EXPECT_EQ(slot->payload[i], 0xABCD0000 + size + i);
        }
        messages[0][5].type = 0;
        wrmsr(HV_MSR_EOM, 0);
        EXPECT(WAIT_UNTIL(interrupt_count(0, VECTOR) == 1 + size / 24, SOON));
    }
    interrupts_off();
}

CHECK(post_to_any_vp, "14.2.4: a VP whose SynIC and SIM page are on")
{
    enable_everywhere();
    wrmsr(HV_MSR_SCONTROL, 0);
    unsigned expected = cpu_count() == 1 ? INVALID_SYNIC_STATE : HV_SUCCESS;
    EXPECT_EQ(post(2, 7, 8, 1), expected);
    unsigned arrived = 0;
    for (unsigned i = 1; i < cpu_count(); i++) {
        arrived += messages[i][6].type == 7;
    }
    EXPECT_EQ(arrived, cpu_count() == 1 ? 0 : 1);
    EXPECT_EQ(messages[0][6].type, 0);
    wrmsr(HV_MSR_SCONTROL, 1);
}

CHECK(post_to_another_vp, "14.2: delivered to the VP that the port names")
{
    unsigned last = cpu_count() - 1;
    enable_everywhere();
    for (unsigned i = 1; i <= 100; i++) {
        EXPECT_EQ(post(6, i, 8, i), HV_SUCCESS);
        EXPECT(WAIT_UNTIL(messages[last][9].type == i, SOON));
        messages[last][9].type = 0;
    }
}

CHECK(post_parameters, "14.9.7: type 0, hypervisor types, a payload that is too long")
{
    enable_everywhere();
    EXPECT_EQ(post(1, 0, 8, 1), HV_INVALID_PARAMETER);
    EXPECT_EQ(post(1, 0x80000000, 8, 1), HV_INVALID_PARAMETER);
    EXPECT_EQ(post(1, 0xFFFFFFFF, 8, 1), HV_INVALID_PARAMETER);
    EXPECT_EQ(post(1, 1, 241, 1), HV_INVALID_PARAMETER);
    EXPECT_EQ(post(1, 1, 0xFFFFFFFF, 1), HV_INVALID_PARAMETER);
    EXPECT_EQ(messages[0][5].type, 0);
    EXPECT_EQ(post(1, 0x7FFFFFFF, 240, 1), HV_SUCCESS);
}

CHECK(post_connections, "14.9.7: which there are, to which ports")
{
    enable_everywhere();
    EXPECT_EQ(post(0, 1, 8, 1), HV_INVALID_CONNECTION_ID);
    EXPECT_EQ(post(99, 1, 8, 1), HV_INVALID_CONNECTION_ID);
    EXPECT_EQ(post(0xFFFFFFFF, 1, 8, 1), HV_INVALID_CONNECTION_ID);
    EXPECT_EQ(post(0x01000001, 1, 8, 1), HV_INVALID_CONNECTION_ID);
    EXPECT_EQ(post(3, 1, 8, 1), HV_INVALID_PORT_ID);
    EXPECT_EQ(post(5, 1, 8, 1), HV_INVALID_PORT_ID);
}

CHECK(post_to_a_synic_that_is_off, "14.9.7: SCONTROL or SIMP of the target")
{
    enable_everywhere();
    wrmsr(HV_MSR_SCONTROL, 0);
    EXPECT_EQ(post(1, 1, 8, 1), INVALID_SYNIC_STATE);
    wrmsr(HV_MSR_SCONTROL, 1);
    wrmsr(HV_MSR_SIMP, 0);
    EXPECT_EQ(post(1, 1, 8, 1), INVALID_SYNIC_STATE);
    wrmsr(HV_MSR_SIMP, (uintptr_t)messages[0] | HV_MSR_ENABLE);
    EXPECT_EQ(post(1, 1, 8, 1), HV_SUCCESS);
}

CHECK(port_has_sixteen_buffers, "14.2.1, 14.2.3: then INSUFFICIENT_BUFFERS; order is kept, nothing is lost")
{
    enable_everywhere();
    unsigned posted = 0;
    while (posted < 100 && post(1, 100 + posted, 8, posted) == HV_SUCCESS) {
        posted++;
    }
    /* One is in the slot, sixteen wait. */
    EXPECT_EQ(posted, BUFFERS + 1);
    EXPECT_EQ(post(1, 1, 8, 1), HV_INSUFFICIENT_BUFFERS);
    for (unsigned i = 0; i < posted; i++) {
        REQUIRE_EQ(messages[0][5].type, 100 + i);
        EXPECT_EQ(!!(messages[0][5].flags & HV_MESSAGE_PENDING), i + 1 < posted);
        messages[0][5].type = 0;
        wrmsr(HV_MSR_EOM, 0);
    }
    EXPECT_EQ(messages[0][5].type, 0);
    EXPECT_EQ(post(1, 1, 8, 1), HV_SUCCESS);
}

static volatile uint32_t posts_done;

static void post_many(void *argument)
{
    uint64_t *input = (uint64_t *)argument + cpu_index() * (PAGE_SIZE / 8);
    input[0] = 1;
    for (uint32_t i = 0; i < 200; i++) {
        unsigned status;
        input[1] = (uint64_t)16 << 32 | 1;
        input[2] = cpu_index();
        input[3] = i;
        do {
            status = HV_RESULT_STATUS(hv_call(HV_POST_MESSAGE, (uintptr_t)input, 0));
            cpu_pause();
        } while (status == HV_INSUFFICIENT_BUFFERS && !check_failed());
        EXPECT_EQ(status, HV_SUCCESS);
    }
    __atomic_add_fetch(&posts_done, 1, __ATOMIC_SEQ_CST);
}

CHECK(posts_from_all_vps, "14.2.3: each sender's messages arrive in its order, all of them", .min_vps = 2)
{
    uint64_t next[GUEST_MAX_CPUS] = {0};
    unsigned received = 0, expected = (cpu_count() - 1) * 200;
    uint64_t *inputs = page_alloc(cpu_count());
    enable_everywhere();
    posts_done = 0;
    for (unsigned i = 1; i < cpu_count(); i++) {
        smp_start(i, post_many, inputs);
    }
    uint64_t end = clock_microseconds() + 2 * SOON;
    while (received < expected && clock_microseconds() < end) {
        struct hv_message *slot = &messages[0][5];
        if (slot->type == 0) {
            cpu_pause();
            continue;
        }
        uint64_t sender = slot->payload[0];
        REQUIRE(sender < cpu_count());
        EXPECT_EQ(slot->payload[1], next[sender]);
        next[sender] = slot->payload[1] + 1;
        received++;
        __atomic_store_n(&slot->type, 0, __ATOMIC_SEQ_CST);
        if (slot->flags & HV_MESSAGE_PENDING) {
            wrmsr(HV_MSR_EOM, 0);
        }
    }
    EXPECT_EQ(received, expected);
}

/* -- Events -- */

static bool flag_set(unsigned vp, unsigned sint, unsigned flag)
{
    return ((volatile uint8_t *)flags[vp])[sint * 256 + flag / 8] >> flag % 8 & 1;
}

CHECK(signal_event, "14.9.8, 14.3.1: sets the base flag plus the number, and interrupts once")
{
    enable_everywhere();
    interrupts_on();
    for (uint16_t i = 0; i < 16; i++) {
        EXPECT_EQ(signal(3, i), HV_SUCCESS);
        EXPECT(flag_set(0, 7, 8u + i));
        EXPECT(WAIT_UNTIL(interrupt_count(0, VECTOR) == i + 1u, SOON));
        EXPECT_EQ(signal(3, i), HV_SUCCESS);
    }
    interrupts_off();
    EXPECT_EQ(interrupt_count(0, VECTOR), 16);
    EXPECT(!flag_set(0, 7, 7));
    EXPECT(!flag_set(0, 7, 24));
    EXPECT_EQ(signal(3, 16), HV_INVALID_PARAMETER);
    EXPECT_EQ(signal(3, 0xFFFF), HV_INVALID_PARAMETER);
}

CHECK(signal_slow_form, "14.9.8: parameters in memory")
{
    uint64_t *input = page_alloc(1);
    enable_everywhere();
    *input = (uint64_t)3 << 32 | 3;
    EXPECT_EQ(HV_RESULT_STATUS(hv_call(HV_SIGNAL_EVENT, (uintptr_t)input, 0)), HV_SUCCESS);
    EXPECT(flag_set(0, 7, 11));
}

/* The text allows a flag count of 2048 and rejects base + count >= 2048: the last flag is nobody's (14.8.6, 14.9.1). */
#define FLAGS 2047

CHECK(signal_every_flag, "14.8.5: the flags of a SINT")
{
    enable_everywhere();
    for (unsigned vp = 0; vp < cpu_count(); vp++) {
        EXPECT(!flag_set(vp, 8, 0));
    }
    for (unsigned i = 0; i < FLAGS; i++) {
        EXPECT_EQ(signal(4, (uint16_t)i), HV_SUCCESS);
    }
    unsigned set = 0;
    for (unsigned vp = 0; vp < cpu_count(); vp++) {
        for (unsigned i = 0; i < FLAGS; i++) {
            set += flag_set(vp, 8, i);
        }
    }
    EXPECT_EQ(set, FLAGS);
    EXPECT_EQ(signal(4, 2048), HV_INVALID_PARAMETER);
}

CHECK(signal_connections, "14.9.8")
{
    enable_everywhere();
    EXPECT_EQ(signal(99, 0), HV_INVALID_CONNECTION_ID);
    EXPECT_EQ(signal(1, 0), HV_INVALID_PORT_ID);
    EXPECT_EQ(signal(5, 0), HV_INVALID_PORT_ID);
}

CHECK(signal_to_a_synic_that_is_off, "14.9.8: SCONTROL, SIEFP, or a masked SINT of the target")
{
    enable_everywhere();
    wrmsr(HV_MSR_SINT0 + 7, VECTOR | HV_SINT_MASKED);
    EXPECT_EQ(signal(3, 0), INVALID_SYNIC_STATE);
    wrmsr(HV_MSR_SINT0 + 7, VECTOR);
    wrmsr(HV_MSR_SCONTROL, 0);
    EXPECT_EQ(signal(3, 0), INVALID_SYNIC_STATE);
    wrmsr(HV_MSR_SCONTROL, 1);
    wrmsr(HV_MSR_SIEFP, 0);
    EXPECT_EQ(signal(3, 0), INVALID_SYNIC_STATE);
    wrmsr(HV_MSR_SIEFP, (uintptr_t)flags[0] | HV_MSR_ENABLE);
    EXPECT(!flag_set(0, 7, 8));
    EXPECT_EQ(signal(3, 0), HV_SUCCESS);
}

static void signal_and_clear(void *argument)
{
    (void)argument;
    for (unsigned i = 0; i < 300; i++) {
        EXPECT_EQ(signal(3, (uint16_t)(cpu_index() % 16)), HV_SUCCESS);
    }
}

CHECK(signals_from_all_vps, "14.3.1: bits are set atomically", .min_vps = 2)
{
    enable_everywhere();
    wrmsr(HV_MSR_SINT0 + 7, VECTOR | HV_SINT_AUTO_EOI);
    smp_run_all(signal_and_clear, NULL);
    for (unsigned i = 0; i < cpu_count(); i++) {
        EXPECT(flag_set(0, 7, 8 + i));
    }
}
