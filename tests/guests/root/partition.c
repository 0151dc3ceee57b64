/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A child's whole life through the library: created, given memory and a VP, run to an intercept, deleted. */
#include "root.h"

#define VECTOR_SINT0 0x50
#define MEBIBYTE (UINT64_C(1) << 20)
#define PORT 0x1234
#define CODE_GPA 0x4000u
#define TABLES_GPA 0x8000u

void guest_cleanup(void)
{
    root_reset_state();
}

static struct child new_child(void)
{
    struct child child = {.privileges = CHILD_PRIVILEGES};
    root_enable();
    intercept_enable(VECTOR_SINT0);
    child_create(&child);
    child_add_memory(&child, 0, 4 * MEBIBYTE);
    child_add_vp(&child, 0);
    return child;
}

CHILD_PROGRAM(out_in_out16, 16, "mov $0x42, %al; mov $0x1234, %dx; out %al, %dx; in %dx, %al; out %al, %dx; hlt")
CHILD_PROGRAM(out_in_out32, 32, "mov $0x42, %al; mov $0x1234, %edx; out %al, %dx; in %dx, %al; out %al, %dx; hlt")

static void expect_out_in_out(struct child *child)
{
    struct intercept intercept;
    child_intercept_ports(child, PORT, 1);
    child_resume(child, 0);
    REQUIRE(intercept_receive(&intercept, SOON));
    EXPECT_EQ(intercept.message.type, (uint32_t)HV_MESSAGE_X64IoPortIntercept);
    EXPECT_EQ(intercept.partition, child->id);
    EXPECT_EQ(intercept.vp, 0);
    EXPECT_EQ(intercept.io.port, PORT);
    EXPECT_EQ(intercept.io.size, 1);
    EXPECT(intercept.io.write);
    EXPECT_EQ(intercept.io.value, 0x42);
    EXPECT_EQ(intercept.length, 1);
    intercept_complete(&intercept, INTERCEPT_DONE);
    REQUIRE(intercept_receive(&intercept, SOON));
    EXPECT(!intercept.io.write);
    intercept.io.value = 0x99;
    intercept_complete(&intercept, INTERCEPT_DONE);
    REQUIRE(intercept_receive(&intercept, SOON));
    EXPECT(intercept.io.write);
    EXPECT_EQ(intercept.io.value, 0x99);
}

CHECK(real_mode_child, "9.1.1, 16.5.3: a port, from 16-bit code")
{
    struct child child = new_child();
    child_enter_program16(&child, 0, CODE_GPA, out_in_out16, out_in_out16_end);
    expect_out_in_out(&child);
}

CHECK(protected_mode_child, "9.1.1, 16.5.3: a port, from 32-bit code")
{
    struct child child = new_child();
    child_enter_program32(&child, 0, CODE_GPA, out_in_out32, out_in_out32_end, TABLES_GPA);
    expect_out_in_out(&child);
}

CHECK(long_mode_child, "9.1.1, 16.5.3: a port, from 64-bit code")
{
    struct child child = new_child();
    child_enter_program64(&child, 0, CODE_GPA, out_in_out32, out_in_out32_end, TABLES_GPA);
    expect_out_in_out(&child);
}

CHECK(registers_keep_their_values, "10.4.3, 10.4.4")
{
    struct child child = new_child();
    for (unsigned i = 0; i < 16; i++) {
        child_set_register(&child, 0, HV_REGISTER_Rax + i, 0x1111111111111111ull * i);
    }
    for (unsigned i = 0; i < 16; i++) {
        EXPECT_EQ(child_get_register(&child, 0, HV_REGISTER_Rax + i), 0x1111111111111111ull * i);
    }
}

CHECK(reset_state, "10.1.3, 10.4.1: a new VP is suspended, in the processor's state after reset")
{
    struct child child = new_child();
    uint32_t name = HV_REGISTER_Cs;
    union hv_register_value cs;
    EXPECT_EQ(child_get_register(&child, 0, HV_REGISTER_ExplicitSuspend), HV_SUSPEND_EXPLICIT);
    EXPECT_EQ(child_get_register(&child, 0, HV_REGISTER_Rip), 0xFFF0);
    child_get_registers(&child, 0, &name, &cs, 1);
    EXPECT_EQ(cs.segment.selector, 0xF000);
    EXPECT_EQ(cs.segment.base, 0xFFFF0000);
    EXPECT_EQ(cs.segment.limit, 0xFFFF);
}

CHECK(many_lives, "5.6, 7.3.2: what a partition was given comes back when it goes")
{
    size_t before = 0;
    for (unsigned i = 0; i < 50; i++) {
        struct child child = {.privileges = CHILD_PRIVILEGES};
        root_enable();
        child_create(&child);
        child_map(&child, 0, GUEST_POOL_BASE, MEBIBYTE, CHILD_RAM);
        child_add_vp(&child, 0);
        child_delete(&child);
        if (i == 1) {
            before = ram_left();
        }
    }
    EXPECT_EQ(ram_left(), before);
}
