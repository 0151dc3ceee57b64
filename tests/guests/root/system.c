/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLFS chapter 23: system properties, of which one configures the profiler. Chapter 20, while there is no debugger. */
#include "root.h"

#define SET_SYSTEM_PROPERTY 0x006Fu
#define PERF_COUNTER 0u
#define SCHEDULER_TYPE 15u
#define CYCLES_NOT_HALTED 1u
#define CACHE_MISSES 2u
#define POST_DEBUG_DATA 0x0069u

#define STATUS_SUCCESS 0x00
#define STATUS_INVALID_PARAMETER 0x05
#define STATUS_UNKNOWN_PROPERTY 0x09
#define STATUS_FEATURE_UNAVAILABLE 0x1E

void guest_cleanup(void)
{
    root_reset_state();
}

static unsigned get(uint32_t code, uint64_t value[2])
{
    uint64_t *input = page_alloc(1), *output = page_alloc(1);
    uint32_t call = guest_generation() == GENERATION_2008R2 ? 0x0071 : 0x007B;
    unsigned status;

    input[0] = code;
    status = HV_RESULT_STATUS(hv_call(call, (uintptr_t)input, (uintptr_t)output));
    value[0] = output[0];
    value[1] = output[1];
    return status;
}

static unsigned set(uint32_t code, uint64_t low, uint64_t high)
{
    uint64_t *input = page_alloc(1);

    input[0] = code;
    input[1] = low;
    input[2] = high;
    return HV_RESULT_STATUS(hv_call(SET_SYSTEM_PROPERTY, (uintptr_t)input, 0));
}

CHECK(profiler_configuration, "TLFS 23.1, 23.3, 23.4: constant until it is set again; invalid values change nothing")
{
    uint64_t value[2];

    root_enable();
    REQUIRE_EQ(set(PERF_COUNTER, CYCLES_NOT_HALTED, 100000000), STATUS_SUCCESS);
    EXPECT_EQ(set(PERF_COUNTER, CACHE_MISSES, 100000000), STATUS_INVALID_PARAMETER);
    EXPECT_EQ(set(PERF_COUNTER, CYCLES_NOT_HALTED, 0), STATUS_INVALID_PARAMETER);
    EXPECT_EQ(set(PERF_COUNTER, CYCLES_NOT_HALTED | UINT64_C(1) << 32, 100000000), STATUS_INVALID_PARAMETER);
    REQUIRE_EQ(get(PERF_COUNTER, value), STATUS_SUCCESS);
    EXPECT_EQ(value[0], CYCLES_NOT_HALTED);
    EXPECT_EQ(value[1], 100000000);
}

CHECK(unknown_property, "TLFS 23.4")
{
    uint64_t value[2];

    root_enable();
    EXPECT_EQ(get(1, value), STATUS_UNKNOWN_PROPERTY);
    EXPECT_EQ(set(1, 0, 0), STATUS_UNKNOWN_PROPERTY);
}

CHECK(scheduler_type, "later than TLFS 2.0a: the hypervisor schedules", .generations = GENERATION_CURRENT)
{
    uint64_t value[2];

    root_enable();
    REQUIRE_EQ(get(SCHEDULER_TYPE, value), STATUS_SUCCESS);
    EXPECT_EQ((uint32_t)value[0], 1);
    EXPECT_EQ(set(SCHEDULER_TYPE, 4, 0), STATUS_INVALID_PARAMETER);
}

CHECK(no_debugger, "TLFS 20.3.1: the feature is not available")
{
    root_enable();
    EXPECT_EQ(HV_RESULT_STATUS(hv_call(POST_DEBUG_DATA, (uintptr_t)page_alloc(1), (uintptr_t)page_alloc(1))),
              STATUS_FEATURE_UNAVAILABLE);
}
