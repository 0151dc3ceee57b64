/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest whose checks fail in every way a check can: what test_guests.py expects the host to make of it. */
#include "guest.h"

CHECK(passes_before, "passes")
{
    NOTE("text of the check\n");
    EXPECT(true);
}

CHECK(expects_wrongly, "a false EXPECT: the rest of the check runs")
{
    EXPECT_EQ(1 + 1, 3);
    EXPECT_EQ(1 + 1, 4);
    NOTE("still running\n");
}

CHECK(requires_wrongly, "a false REQUIRE: the rest of the check does not run")
{
    REQUIRE(1 > 2);
    NOTE("still running\n");
}

CHECK(faults, "an exception nobody expects")
{
    __asm__ volatile("ud2");
}

CHECK(misses_a_fault, "an exception that does not come")
{
    EXPECT_FAULT(VECTOR_GP, cpu_pause());
}

CHECK(is_interrupted, "an interrupt nobody expects")
{
    apic_send_ipi(0, 0x55);
    interrupts_on();
    clock_delay(1000);
    interrupts_off();
}

CHECK(resets_the_machine, "a triple fault: QEMU goes away")
{
    struct __attribute__((packed)) {
        uint16_t limit;
        uintptr_t base;
    } nothing = {0, 0};
    __asm__ volatile("lidt %0; ud2" : : "m"(nothing));
}

CHECK(exits, "the guest ends in the middle of a check")
{
    guest_exit(3);
}

CHECK(sleeps_forever, "the guest says nothing more")
{
    for (;;) {
        interrupts_off();
        cpu_halt();
    }
}

static void never_return(void *argument)
{
    (void)argument;
    for (;;) {
        interrupts_off();
        cpu_halt();
    }
}

CHECK(loses_a_cpu, "another CPU does not come back", .min_vps = 2)
{
    smp_start(1, never_return, NULL);
}

static void fail_elsewhere(void *argument)
{
    (void)argument;
    EXPECT_EQ(cpu_index(), 99);
}

CHECK(fails_on_another_cpu, "a failure is the check's, on whatever CPU", .min_vps = 2)
{
    smp_run(1, fail_elsewhere, NULL);
}

CHECK(passes_after, "passes: nothing of the above is left")
{
    EXPECT(true);
}
