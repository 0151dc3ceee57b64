/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Crash MSRs, later than TLFS 2.0a. What the host is told is checked by the tests of QMP; here, what the guest sees. */
#include "guest.h"

void guest_cleanup(void)
{
    for (unsigned i = 0; i < 5; i++) {
        wrmsr_fault(HV_MSR_CRASH_P0 + i, 0);
    }
    hv_reset_state();
}

CHECK(crash_capabilities, "later: the control register tells what can be reported", .generations = GENERATION_CURRENT)
{
    EXPECT_EQ(rdmsr(HV_MSR_CRASH_CTL), HV_CRASH_NOTIFY | HV_CRASH_MESSAGE);
}

CHECK(crash_parameters, "later: five of them, any value", .generations = GENERATION_CURRENT)
{
    for (unsigned i = 0; i < 5; i++) {
        wrmsr(HV_MSR_CRASH_P0 + i, 0x1111111111111111ull * (i + 1));
    }
    for (unsigned i = 0; i < 5; i++) {
        EXPECT_EQ(rdmsr(HV_MSR_CRASH_P0 + i), 0x1111111111111111ull * (i + 1));
    }
}

static void read_parameter(void *argument)
{
    *(volatile uint64_t *)argument = rdmsr(HV_MSR_CRASH_P0 + 2);
}

CHECK(crash_parameters_are_partition_wide, "later", .min_vps = 2, .generations = GENERATION_CURRENT)
{
    uint64_t seen = 0;
    wrmsr(HV_MSR_CRASH_P0 + 2, 0xC0FFEE);
    smp_run(1, read_parameter, &seen);
    EXPECT_EQ(seen, 0xC0FFEE);
}

CHECK(crash_without_notification, "later: control without bit 63 reports nothing", .generations = GENERATION_CURRENT)
{
    wrmsr(HV_MSR_CRASH_CTL, 0);
    EXPECT_EQ(rdmsr(HV_MSR_CRASH_CTL), HV_CRASH_NOTIFY | HV_CRASH_MESSAGE);
}

/* The machine's policy on a crash is "report": the guest goes on. */
CHECK(crash_notification, "later: the guest goes on after it", .generations = GENERATION_CURRENT)
{
    for (unsigned i = 0; i < 5; i++) {
        wrmsr(HV_MSR_CRASH_P0 + i, 0xBAD0 + i);
    }
    wrmsr(HV_MSR_CRASH_CTL, HV_CRASH_NOTIFY);
    EXPECT_EQ(rdmsr(HV_MSR_CRASH_P0 + 4), 0xBAD4);
}

CHECK(crash_message, "later: P3 is the GPA of a text, P4 its length", .generations = GENERATION_CURRENT)
{
    static const char text[] = "a crash of the test guest, on purpose";
    char *page = page_alloc(2);
    char *place = page + PAGE_SIZE - 10; /* across two pages */
    memcpy(place, text, sizeof(text));
    wrmsr(HV_MSR_CRASH_P0 + 3, (uintptr_t)place);
    wrmsr(HV_MSR_CRASH_P0 + 4, sizeof(text) - 1);
    wrmsr(HV_MSR_CRASH_CTL, HV_CRASH_NOTIFY | HV_CRASH_MESSAGE);
    EXPECT_EQ(rdmsr(HV_MSR_CRASH_P0 + 3), (uintptr_t)place);
    EXPECT_EQ(place[0], 'a');
}

CHECK(crash_message_nowhere, "later: a text that cannot be read, or is of any length, harms nobody",
      .generations = GENERATION_CURRENT)
{
    static const uint64_t places[] = {HV_UNMAPPED_GPA, 0xFEE00000, 0xFED000F0, UINT64_MAX - 100, 0xFFFFFFFFFFFFF000};
    for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        wrmsr(HV_MSR_CRASH_P0 + 3, places[i]);
        wrmsr(HV_MSR_CRASH_P0 + 4, i % 2 ? UINT64_MAX : 100);
        EXPECT_WRMSR_FAULT(HV_MSR_CRASH_CTL, HV_CRASH_NOTIFY | HV_CRASH_MESSAGE, NO_FAULT);
    }
}

CHECK(crash_registers_are_later, "2.0a has none: #GP", .generations = GENERATION_2008R2)
{
    for (unsigned i = 0; i < 6; i++) {
        EXPECT_RDMSR_FAULT(HV_MSR_CRASH_P0 + i, VECTOR_GP);
        EXPECT_WRMSR_FAULT(HV_MSR_CRASH_P0 + i, 0, VECTOR_GP);
    }
}
