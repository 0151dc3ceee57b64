/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 20: a debug session as the guest sees it, on a connection at which nobody takes or sends anything. (What
 * a debugger at the other end sees is checked by tests/qmp/test_debug_chardev.py.)
 */
#include "guest.h"

#define POST_DEBUG_DATA 0x0069u
#define RETRIEVE_DEBUG_DATA 0x006Au
#define RESET_DEBUG_SESSION 0x006Bu
#define MAXIMUM 4088u
#define BUFFER 16384u
#define LOOP 1u
#define TEST_ACTIVITY 2u
#define PURGE_INCOMING 1u
#define PURGE_OUTGOING 2u

#define STATUS_SUCCESS 0x00
#define STATUS_INVALID_PARAMETER 0x05
#define STATUS_INSUFFICIENT_BUFFERS 0x13
#define STATUS_NO_DATA 0x1B
#define STATUS_INACTIVE 0x1C

#define EDX_GUEST_DEBUGGING (1u << 1)
#define EDX_DEBUG_MSRS (1u << 11)
#define LEAF_DEBUGGER 0x40000080u
#define SYNDBG_CONTROL 0x400000F1u
#define SYNDBG_STATUS 0x400000F2u
#define SYNDBG_SEND 0x400000F3u
#define SYNDBG_PENDING 0x400000F5u
#define SYNDBG_OPTIONS 0x400000FFu

static unsigned reset_session(unsigned options)
{
    return HV_RESULT_STATUS(hv_call(RESET_DEBUG_SESSION | HV_CALL_FAST, options, 0));
}

void guest_cleanup(void)
{
    hv_enable();
    reset_session(PURGE_INCOMING | PURGE_OUTGOING);
    hv_reset_state();
}

/* `pending` is told for a call that succeeds. */
static unsigned post(uint32_t count, uint32_t *pending)
{
    uint32_t *input = page_alloc(1), *output = page_alloc(1);
    unsigned status;

    input[0] = count;
    status = HV_RESULT_STATUS(hv_call(POST_DEBUG_DATA, (uintptr_t)input, (uintptr_t)output));
    *pending = output[0];
    return status;
}

static unsigned retrieve(uint32_t count, uint32_t options, uint64_t timeout)
{
    uint64_t *input = page_alloc(1);

    input[0] = count | (uint64_t)options << 32;
    input[1] = timeout;
    return HV_RESULT_STATUS(hv_call(RETRIEVE_DEBUG_DATA, (uintptr_t)input, (uintptr_t)page_alloc(1)));
}

CHECK(cpuid_offers_debugging, "TLFS 3.4: guest debugging support")
{
    EXPECT(cpuid(HV_LEAF_FEATURES, 0).edx & EDX_GUEST_DEBUGGING);
}

CHECK(posts_until_it_is_full, "TLFS 20.1.2, 20.3.1: all of it or nothing, and how much is pending")
{
    uint32_t pending;

    hv_enable();
    for (unsigned i = 1; i <= BUFFER / MAXIMUM; i++) {
        REQUIRE_EQ(post(MAXIMUM, &pending), STATUS_SUCCESS);
        EXPECT_EQ(pending, i * MAXIMUM);
    }
    EXPECT_EQ(post(BUFFER % MAXIMUM + 1, &pending), STATUS_INSUFFICIENT_BUFFERS);
    EXPECT_EQ(post(BUFFER % MAXIMUM, &pending), STATUS_SUCCESS);
    EXPECT_EQ(pending, BUFFER);
    EXPECT_EQ(post(0, &pending), STATUS_SUCCESS);
    EXPECT_EQ(pending, BUFFER);
    EXPECT_EQ(post(MAXIMUM + 1, &pending), STATUS_INVALID_PARAMETER);
}

CHECK(purges, "TLFS 20.1.4, 20.3.3: what there is, once")
{
    uint32_t pending;

    hv_enable();
    REQUIRE_EQ(post(100, &pending), STATUS_SUCCESS);
    EXPECT_EQ(reset_session(PURGE_INCOMING), STATUS_NO_DATA);
    EXPECT_EQ(reset_session(PURGE_OUTGOING), STATUS_SUCCESS);
    EXPECT_EQ(reset_session(PURGE_INCOMING | PURGE_OUTGOING), STATUS_NO_DATA);
    EXPECT_EQ(reset_session(0), STATUS_INVALID_PARAMETER);
    EXPECT_EQ(reset_session(4), STATUS_INVALID_PARAMETER);
    REQUIRE_EQ(post(0, &pending), STATUS_SUCCESS);
    EXPECT_EQ(pending, 0);
}

CHECK(nothing_to_retrieve, "TLFS 20.1.5, 20.3.2: no data, and no activity")
{
    hv_enable();
    EXPECT_EQ(retrieve(MAXIMUM, 0, 0), STATUS_NO_DATA);
    EXPECT_EQ(retrieve(0, 0, 0), STATUS_NO_DATA);
    EXPECT_EQ(retrieve(MAXIMUM, TEST_ACTIVITY, 0), STATUS_INACTIVE);
    EXPECT_EQ(retrieve(MAXIMUM, 4, 0), STATUS_INVALID_PARAMETER);
    EXPECT_EQ(retrieve(MAXIMUM + 1, 0, 0), STATUS_INVALID_PARAMETER);
}

CHECK(loop_waits_for_the_timeout, "TLFS 20.1.6, 20.3.2: the VP is suspended so long")
{
    char mode[32];
    uint64_t before;

    hv_enable();
    REQUIRE(guest_option("mode", mode, sizeof(mode)));
    if (mode[0] == 'i') { /* icount */
        EXPECT_EQ(retrieve(MAXIMUM, LOOP, 200000), STATUS_NO_DATA); /* time stands while it waits, so it does not */
        return;
    }
    before = clock_microseconds();
    EXPECT_EQ(retrieve(MAXIMUM, LOOP, 200000), STATUS_NO_DATA);
    EXPECT(clock_microseconds() - before >= 19900); /* the clocks differ by so much */
}

CHECK(synthetic_debugger, "later than TLFS 2.0a: its leaves and registers", .generations = GENERATION_CURRENT)
{
    bool leaves = cpuid(HV_LEAF_RANGE, 0).eax >= LEAF_DEBUGGER;
    uint8_t *pending = page_alloc(1);

    /* With KVM there is no room for so many leaves; the registers are there all the same. */
    if (leaves) {
        EXPECT_EQ(cpuid(LEAF_DEBUGGER, 0).edx, 0x53562074u);
        EXPECT_EQ(cpuid(LEAF_DEBUGGER + 1, 0).eax, 0x31235356u);
        EXPECT(cpuid(HV_LEAF_FEATURES, 0).edx & EDX_DEBUG_MSRS);
    }
    EXPECT_EQ(rdmsr(SYNDBG_OPTIONS), 4);
    *pending = 0xAA;
    wrmsr(SYNDBG_PENDING, (uintptr_t)pending);
    EXPECT_EQ(*(volatile uint8_t *)pending, 0);
    wrmsr(SYNDBG_SEND, (uintptr_t)page_alloc(1));
    wrmsr(SYNDBG_CONTROL, 1 | 100u << 16);
    EXPECT_EQ(rdmsr(SYNDBG_STATUS), 1);
    wrmsr(SYNDBG_CONTROL, 2);
    EXPECT_EQ(rdmsr(SYNDBG_STATUS), 0);
    EXPECT_WRMSR_FAULT(SYNDBG_STATUS, 0, VECTOR_GP);
    wrmsr(SYNDBG_PENDING, 0);
}

CHECK(no_synthetic_debugger, "later than TLFS 2.0a", .generations = GENERATION_2008R2)
{
    EXPECT_RDMSR_FAULT(SYNDBG_CONTROL, VECTOR_GP);
    EXPECT_RDMSR_FAULT(SYNDBG_OPTIONS, VECTOR_GP);
}
