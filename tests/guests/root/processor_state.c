/* SPDX-License-Identifier: GPL-2.0-or-later */
/* State of a child's processor that an operating system seldom has, but a parent may set. */
#include "root.h"

#define VECTOR_MESSAGE 0x50
#define CODE_GPA 0x4000u
#define HANDLER_GPA 0x5000u
#define TABLES_GPA 0x8000u
#define IDT_GPA 0x20000u
#define TSS_GPA 0x21000u
#define STACK_GPA 0x30000u
#define PORT_DONE 0x80
#define DR7_BREAKPOINT0 0x401u
#define ATTRIBUTES_CODE32_CPL3 0xC0FB
#define ATTRIBUTES_DATA32_CPL3 0xC0F3
#define TSS32_AVAILABLE 0x0089
#define TSS32_BUSY 0x008B
#define TSS32_NOT_PRESENT 0x000B
#define CPL3 3u
#define GATE32 UINT64_C(0x8E0000000000)

static struct child child;

void guest_cleanup(void)
{
    root_reset_state();
}

static void make_child(void)
{
    child = (struct child){.privileges = CHILD_PRIVILEGES};
    root_enable();
    intercept_enable(VECTOR_MESSAGE);
    child_create(&child);
    child_add_memory(&child, 0, 1 << 20);
    child_add_vp(&child, 0);
    child_intercept_ports(&child, PORT_DONE, 1);
}

static struct intercept next(enum hv_message_type type)
{
    struct intercept intercept;
    REQUIRE(intercept_receive(&intercept, SOON));
    if (intercept.message.type != (uint32_t)type) {
        intercept_describe(&intercept);
    }
    REQUIRE_EQ(intercept.message.type, (uint32_t)type);
    return intercept;
}

/* -- Breakpoints are at linear addresses -- */

CHILD_PROGRAM(three_nops, 16, "nop; nop; nop; hlt")

CHECK(breakpoint_in_a_segment_with_a_base, "a debug register holds a linear address (Intel SDM 3B, 17.2.1)")
{
    make_child();
    child_intercept_exception(&child, VECTOR_DB);
    child_enter_program16(&child, 0, CODE_GPA, three_nops, three_nops_end);
    child_set_register(&child, 0, HV_REGISTER_Dr0, CODE_GPA + 2);
    child_set_register(&child, 0, HV_REGISTER_Dr7, DR7_BREAKPOINT0);
    child_resume(&child, 0);
    struct intercept intercept = next(HV_MESSAGE_X64ExceptionIntercept);
    EXPECT_EQ(intercept.exception.vector, VECTOR_DB);
    EXPECT_EQ(intercept_header(&intercept)->rip, 2);
}

CHECK(no_breakpoint_at_an_offset, "a debug register holds a linear address (Intel SDM 3B, 17.2.1)")
{
    make_child();
    child_intercept_exception(&child, VECTOR_DB);
    static const uint8_t code[] = {0x90, 0x90, 0xE6, PORT_DONE}; /* nop; nop; out %al, $PORT_DONE */
    child_enter_program16(&child, 0, CODE_GPA, code, code + sizeof(code));
    child_set_register(&child, 0, HV_REGISTER_Dr0, 1);
    child_set_register(&child, 0, HV_REGISTER_Dr7, DR7_BREAKPOINT0);
    child_resume(&child, 0);
    next(HV_MESSAGE_X64IoPortIntercept);
}

#define DR7_ACCESSES0 0xF0401u /* reads and writes of four bytes */

CHILD_PROGRAM(wait_for_nmi, 16, "1: jmp 1b")
CHILD_PROGRAM(tell, 16, "out %al, $0x80; hlt")

CHECK(watched_interrupt_table, "a data breakpoint that the delivery of interrupts comes to, again and again")
{
    make_child();
    child_enter_program16(&child, 0, CODE_GPA, wait_for_nmi, wait_for_nmi_end);
    child_put_program(&child, HANDLER_GPA, tell, tell_end);
    uint32_t *vectors = child_memory(&child, 0, PAGE_SIZE);
    vectors[VECTOR_DB] = vectors[VECTOR_NMI] = (HANDLER_GPA >> 4) << 16;
    child_set_register(&child, 0, HV_REGISTER_Dr0, VECTOR_NMI * 4);
    child_set_register(&child, 0, HV_REGISTER_Dr7, DR7_ACCESSES0);
    child_set_register(&child, 0, HV_REGISTER_Rsp, 0x800);
    child_resume(&child, 0);
    for (unsigned i = 0; i < 5; i++) {
        HV_MUST(child_assert_interrupt(&child, HV_INTERRUPT_NMI, 0, 0));
        clock_delay(5000);
    }
    next(HV_MESSAGE_X64IoPortIntercept);
}

/* -- The task register, needed when an exception leaves CPL 3 -- */

CHILD_PROGRAM(undefined, 32, "ud2")
CHILD_PROGRAM(handler, 32, "mov %esp, %eax; out %eax, $0x80; hlt")

static void raise_exception_at_cpl3(uint16_t tss_attributes)
{
    uint64_t *gates = child_memory(&child, IDT_GPA, PAGE_SIZE);
    uint32_t *tss = child_memory(&child, TSS_GPA, PAGE_SIZE);
    child_enter_program32(&child, 0, CODE_GPA, undefined, undefined_end, TABLES_GPA);
    child_put_program(&child, HANDLER_GPA, handler, handler_end);
    gates[VECTOR_UD] = GATE32 | (uint64_t)CHILD_CODE << 16 | HANDLER_GPA;
    tss[1] = STACK_GPA; /* ESP0, SS0 */
    tss[2] = CHILD_DATA;
    const struct hv_segment code = {
        .limit = UINT32_MAX, .selector = CHILD_CODE | CPL3, .attributes = ATTRIBUTES_CODE32_CPL3};
    const struct hv_segment data = {
        .limit = UINT32_MAX, .selector = CHILD_DATA | CPL3, .attributes = ATTRIBUTES_DATA32_CPL3};
    const struct hv_segment task = {.base = TSS_GPA, .limit = 103, .attributes = tss_attributes};
    const struct hv_register_assignment list[] = {
        {.name = HV_REGISTER_Cs, .value.segment = code},
        {.name = HV_REGISTER_Ss, .value.segment = data},
        {.name = HV_REGISTER_Tr, .value.segment = task},
        {.name = HV_REGISTER_Idtr, .value.table = {.limit = PAGE_SIZE - 1, .base = IDT_GPA}},
    };
    child_set_registers(&child, 0, list, 4);
    child_resume(&child, 0);
}

/* What the processor pushes: SS, ESP, EFLAGS, CS, EIP. */
#define EXCEPTION_FRAME 20u

CHECK(busy_task, "10.3.6: the task register as a processor has it, marked busy")
{
    make_child();
    raise_exception_at_cpl3(TSS32_BUSY);
    EXPECT_EQ(next(HV_MESSAGE_X64IoPortIntercept).io.value, STACK_GPA - EXCEPTION_FRAME);
}

CHECK(available_task, "10.3.6: and as a descriptor table has it before")
{
    make_child();
    raise_exception_at_cpl3(TSS32_AVAILABLE);
    EXPECT_EQ(next(HV_MESSAGE_X64IoPortIntercept).io.value, STACK_GPA - EXCEPTION_FRAME);
}

CHECK(absent_task, "10.3.6: nothing to leave CPL 3 by, which is a triple fault")
{
    make_child();
    raise_exception_at_cpl3(TSS32_NOT_PRESENT);
    next(HV_MESSAGE_UnrecoverableException);
}
