/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLFS chapters 8, 9 and 11: accesses of all kinds through a child's second stage, and what must not get lost there. */
#include "root.h"

#define VECTOR_MESSAGE 0x50
#define MEBIBYTE (UINT64_C(1) << 20)
#define CODE_GPA 0x4000u
#define HANDLER_GPA 0x5000u
#define TABLES_GPA 0x8000u /* eight pages */
#define IDT_GPA 0x20000u
#define STACK_GPA 0x30000u
#define HOLE_GPA 0x10000000u /* nothing is mapped there at first */
#define PORT_DONE 0x80
#define STATE_INTERRUPTION_PENDING 0x40 /* 16.2.3 */
#define PENDING_EXCEPTION(vector, code) (UINT64_C(7) | UINT64_C(16) * (code) | (uint64_t)(vector) << 16)
#define VECTOR_NP 11
#define ENTRY_ACCESSED 0x20u
#define ENTRY_DIRTY 0x40u

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
    child_add_memory(&child, 0, 4 * MEBIBYTE);
    child_add_vp(&child, 0);
    child_intercept_ports(&child, PORT_DONE, 1);
}

#define PUT64(name) child_enter_program64(&child, 0, CODE_GPA, name, name##_end, TABLES_GPA)

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

static void expect_done(uint8_t value)
{
    struct intercept done = next(HV_MESSAGE_X64IoPortIntercept);
    EXPECT_EQ(done.io.port, PORT_DONE);
    EXPECT_EQ(done.io.value, value);
}

#define GATE_PRESENT 0x8E00
#define GATE_NOT_PRESENT 0x0E00

struct gate {
    uint16_t low, selector, flags, middle;
    uint32_t high, reserved;
};

static void set_gate(unsigned vector, uint64_t handler)
{
    struct gate *gates = child_memory(&child, IDT_GPA, PAGE_SIZE);
    gates[vector] = (struct gate){(uint16_t)handler,         CHILD_CODE, GATE_PRESENT, (uint16_t)(handler >> 16),
                                  (uint32_t)(handler >> 32), 0};
}

static void use_idt(uint64_t stack)
{
    struct hv_register_assignment list[] = {
        {.name = HV_REGISTER_Idtr, .value.table = {.limit = PAGE_SIZE - 1, .base = IDT_GPA}},
        {.name = HV_REGISTER_Rsp, .value.u64 = stack},
    };
    child_set_registers(&child, 0, list, 2);
}

static uint16_t execution_state(const struct intercept *intercept)
{
    return intercept_header(intercept)->execution_state;
}

/* -- Page tables (8.1.2: rights hold for implicit accesses too) -- */

CHILD_PROGRAM(touch, 64, "mov 0x3F000, %al; out %al, $0x80; hlt")

/* The tables of three levels follow each other from CR3 on. */
static uint64_t table_gpa(unsigned level)
{
    return child_get_register(&child, 0, HV_REGISTER_Cr3) + level * PAGE_SIZE;
}

static uint64_t *limit_table(unsigned level, uint32_t rights)
{
    void *table = child_memory(&child, table_gpa(level), PAGE_SIZE);
    child_map(&child, table_gpa(level), (uintptr_t)table, PAGE_SIZE, rights);
    return table;
}

CHECK(read_only_page_tables, "8.1.2: no write to a page table unless an accessed or dirty bit has to be set")
{
    make_child();
    PUT64(touch);
    for (unsigned i = 0; i < 3; i++) {
        uint64_t *table = limit_table(i, HV_MAP_READ);
        for (unsigned entry = 0; entry < 512; entry++) {
            table[entry] |= table[entry] ? ENTRY_ACCESSED | ENTRY_DIRTY : 0;
        }
    }
    *(uint8_t *)child_memory(&child, 0x3F000, 1) = 0x17;
    child_resume(&child, 0);
    expect_done(0x17);
}

CHECK(accessed_bit_is_a_write, "16.3: GvaValid is clear for an access to a page table")
{
    make_child();
    PUT64(touch);
    uint64_t *table = limit_table(0, HV_MAP_READ);
    table[0] &= ~(uint64_t)ENTRY_ACCESSED;
    child_resume(&child, 0);
    struct intercept intercept = next(HV_MESSAGE_GpaIntercept);
    EXPECT_EQ(intercept.memory.gpa, table_gpa(0));
    EXPECT(!intercept.memory.gva_valid);
    EXPECT(intercept.memory.write);
    EXPECT_EQ(intercept_header(&intercept)->rip, CODE_GPA);
    EXPECT_EQ(table[0] & ENTRY_ACCESSED, 0);
    limit_table(0, CHILD_RAM);
    intercept_complete(&intercept, INTERCEPT_AGAIN);
    next(HV_MESSAGE_X64IoPortIntercept);
    EXPECT_EQ(table[0] & ENTRY_ACCESSED, ENTRY_ACCESSED);
}

/* -- Events (10.3.4) -- */

CHILD_PROGRAM(undefined, 64, "mov $0x99, %bl; ud2; hlt")
CHILD_PROGRAM(say_bl, 64, "mov %bl, %al; out %al, $0x80; hlt")
CHILD_PROGRAM(single_step, 64, "pushf; orl $0x100, (%rsp); popf; mov $0x0FFFFFF0, %rsp; add $0x100, %rsp; nop; hlt")

CHECK(event_without_a_stack, "10.3.4: an exception whose delivery is intercepted is held pending")
{
    make_child();
    PUT64(undefined);
    child_put_program(&child, HANDLER_GPA, say_bl, say_bl_end);
    set_gate(VECTOR_UD, HANDLER_GPA);
    use_idt(HOLE_GPA + 0x100);
    child_resume(&child, 0);
    struct intercept intercept = next(HV_MESSAGE_UnmappedGpa);
    EXPECT(intercept.memory.write);
    EXPECT(intercept.memory.gva_valid);
    EXPECT_EQ(intercept.memory.gpa & ~UINT64_C(0xFFF), HOLE_GPA);
    EXPECT(execution_state(&intercept) & STATE_INTERRUPTION_PENDING);
    EXPECT_EQ(intercept.memory.count, 0);
    EXPECT_EQ(intercept_header(&intercept)->rip, CODE_GPA + 2);
    EXPECT_EQ(child_get_register(&child, 0, HV_REGISTER_PendingInterruption), PENDING_EXCEPTION(VECTOR_UD, 0));
    uint64_t *stack = (uint64_t *)child_add_memory(&child, HOLE_GPA, PAGE_SIZE);
    intercept_complete(&intercept, INTERCEPT_AGAIN);
    expect_done(0x99);
    EXPECT_EQ(stack[(0x100 - 40) / 8], CODE_GPA + 2);
    EXPECT_EQ(child_get_register(&child, 0, HV_REGISTER_PendingInterruption), 0);
}

CHECK(event_taken_back, "10.3.4: unless the parent removes it")
{
    make_child();
    PUT64(undefined);
    set_gate(VECTOR_UD, HANDLER_GPA);
    use_idt(HOLE_GPA + 0x100);
    child_resume(&child, 0);
    struct intercept intercept = next(HV_MESSAGE_UnmappedGpa);
    child_put_program(&child, HANDLER_GPA, say_bl, say_bl_end);
    child_set_register(&child, 0, HV_REGISTER_PendingInterruption, 0);
    child_set_register(&child, 0, HV_REGISTER_Rip, HANDLER_GPA);
    intercept_complete(&intercept, INTERCEPT_AGAIN);
    expect_done(0x99);
}

CHECK(trap_without_a_stack, "10.3.4: a trap comes behind its instruction, once")
{
    make_child();
    PUT64(single_step);
    set_gate(VECTOR_DB, HANDLER_GPA);
    child_put_program(&child, HANDLER_GPA, say_bl, say_bl_end);
    use_idt(STACK_GPA);
    child_resume(&child, 0);
    struct intercept intercept = next(HV_MESSAGE_UnmappedGpa);
    EXPECT_EQ(child_get_register(&child, 0, HV_REGISTER_PendingInterruption), PENDING_EXCEPTION(VECTOR_DB, 0));
    EXPECT_EQ(child_get_register(&child, 0, HV_REGISTER_Rsp), 0x0FFFFFF0);
    uint64_t rip = intercept_header(&intercept)->rip;
    child_add_memory(&child, HOLE_GPA - MEBIBYTE, MEBIBYTE);
    intercept_complete(&intercept, INTERCEPT_AGAIN);
    next(HV_MESSAGE_X64IoPortIntercept);
    EXPECT_EQ(*(uint64_t *)child_memory(&child, 0x0FFFFFF0 - 40, 8), rip);
}

CHILD_PROGRAM(software_interrupt, 64, "mov $0x88, %bl; int $0x40; hlt")

CHECK(software_interrupt_without_a_stack, "8.1.2: on an instruction boundary")
{
    make_child();
    PUT64(software_interrupt);
    child_put_program(&child, HANDLER_GPA, say_bl, say_bl_end);
    set_gate(0x40, HANDLER_GPA);
    use_idt(HOLE_GPA + 0x100);
    child_resume(&child, 0);
    struct intercept intercept = next(HV_MESSAGE_UnmappedGpa);
    EXPECT_EQ(intercept_header(&intercept)->rip, CODE_GPA + 2);
    uint64_t *stack = (uint64_t *)child_add_memory(&child, HOLE_GPA, PAGE_SIZE);
    intercept_complete(&intercept, INTERCEPT_AGAIN);
    expect_done(0x88);
    EXPECT_EQ(stack[(0x100 - 40) / 8], CODE_GPA + 4);
}

CHECK(injected_event_meets_a_hole, "10.3.4: what the parent asked for is held pending too")
{
    make_child();
    PUT64(undefined);
    child_put_program(&child, HANDLER_GPA, say_bl, say_bl_end);
    set_gate(VECTOR_GP, HANDLER_GPA);
    use_idt(HOLE_GPA + 0x100);
    child_inject_exception(&child, 0, VECTOR_GP, true, 0x1234);
    child_resume(&child, 0);
    struct intercept intercept = next(HV_MESSAGE_UnmappedGpa);
    EXPECT_EQ(intercept_header(&intercept)->rip, CODE_GPA);
    EXPECT_EQ(child_get_register(&child, 0, HV_REGISTER_PendingInterruption),
              PENDING_EXCEPTION(VECTOR_GP, 1) | UINT64_C(0x1234) << 32);
    uint64_t *stack = (uint64_t *)child_add_memory(&child, HOLE_GPA, PAGE_SIZE);
    intercept_complete(&intercept, INTERCEPT_AGAIN);
    next(HV_MESSAGE_X64IoPortIntercept);
    EXPECT_EQ(stack[(0x100 - 48) / 8], 0x1234);
}

/* -- Exceptions (11.12) -- */

CHILD_PROGRAM(fault, 64, "mov $0x200000000, %rsi; mov (%rsi), %al; hlt")
CHILD_PROGRAM(say_cr2, 64, "mov %cr2, %rax; shr $32, %rax; out %al, $0x80; hlt")

CHECK(page_fault_is_intercepted, "16.5.4: CR2 is as it was; the parent delivers the fault itself")
{
    make_child();
    PUT64(fault);
    child_put_program(&child, HANDLER_GPA, say_cr2, say_cr2_end);
    set_gate(VECTOR_PF, HANDLER_GPA);
    use_idt(STACK_GPA);
    child_intercept_exception(&child, VECTOR_PF);
    child_set_register(&child, 0, HV_REGISTER_Cr2, 0x111);
    child_resume(&child, 0);
    struct intercept intercept = next(HV_MESSAGE_X64ExceptionIntercept);
    EXPECT_EQ(intercept.exception.vector, VECTOR_PF);
    EXPECT_EQ(intercept.exception.parameter, 0x200000000);
    EXPECT(intercept.exception.has_error);
    EXPECT_EQ(intercept.exception.error, 0);
    EXPECT_EQ(child_get_register(&child, 0, HV_REGISTER_Cr2), 0x111);
    child_set_register(&child, 0, HV_REGISTER_Cr2, 0x700000000);
    child_inject_exception(&child, 0, VECTOR_PF, true, 0);
    intercept_complete(&intercept, INTERCEPT_AGAIN);
    expect_done(7);
}

CHECK(second_exception_is_intercepted, "11.12: before a double fault is made of two")
{
    make_child();
    PUT64(fault); /* #PF; its gate is not present: #NP */
    set_gate(VECTOR_PF, HANDLER_GPA);
    ((struct gate *)child_memory(&child, IDT_GPA, PAGE_SIZE))[VECTOR_PF].flags = GATE_NOT_PRESENT;
    use_idt(STACK_GPA);
    child_intercept_exception(&child, VECTOR_NP);
    child_intercept_exception(&child, VECTOR_DF);
    child_resume(&child, 0);
    struct intercept intercept = next(HV_MESSAGE_X64ExceptionIntercept);
    EXPECT_EQ(intercept.exception.vector, VECTOR_NP);
    EXPECT_EQ(intercept.exception.error, VECTOR_PF * 8 + 2);
    EXPECT_EQ(child_get_register(&child, 0, HV_REGISTER_PendingInterruption), PENDING_EXCEPTION(VECTOR_PF, 1));
}

CHECK(double_fault_is_intercepted, "11.12: when nobody wanted the second exception")
{
    make_child();
    PUT64(fault);
    use_idt(STACK_GPA);
    child_intercept_exception(&child, VECTOR_DF);
    child_resume(&child, 0);
    struct intercept intercept = next(HV_MESSAGE_X64ExceptionIntercept);
    EXPECT_EQ(intercept.exception.vector, VECTOR_DF);
    EXPECT(intercept.exception.has_error);
    EXPECT_EQ(intercept.exception.error, 0);
}

CHILD_PROGRAM(software_exceptions, 64, "int3; int $6; .byte 0xF1; mov $0x31, %al; out %al, $0x80; hlt")
CHILD_PROGRAM(go_back, 64, "iretq")

CHECK(software_interrupts_are_not_intercepted, "11.12: INT, INT3 and ICEBKPT")
{
    make_child();
    PUT64(software_exceptions);
    child_put_program(&child, HANDLER_GPA, go_back, go_back_end);
    static const unsigned vectors[] = {VECTOR_DB, VECTOR_BP, VECTOR_UD};
    for (unsigned i = 0; i < 3; i++) {
        set_gate(vectors[i], HANDLER_GPA);
        child_intercept_exception(&child, vectors[i]);
    }
    use_idt(STACK_GPA);
    child_resume(&child, 0);
    expect_done(0x31);
}

/* -- Instructions with several accesses -- */

CHILD_PROGRAM(write_across, 64, "mov $0x0FFFFFFE, %esi; movl $0x44332211, (%rsi); mov $0x21, %al; out %al, $0x80; hlt")

CHECK(write_across_pages, "8.1.2: all of it is validated before any byte is written")
{
    make_child();
    uint8_t *page = (uint8_t *)child_add_memory(&child, HOLE_GPA - PAGE_SIZE, PAGE_SIZE);
    PUT64(write_across);
    child_resume(&child, 0);
    struct intercept intercept = next(HV_MESSAGE_UnmappedGpa);
    EXPECT_EQ(intercept.memory.gpa, HOLE_GPA);
    EXPECT_EQ(page[PAGE_SIZE - 1], 0);
    EXPECT_EQ(page[PAGE_SIZE - 2], 0);
    uint8_t *second = (uint8_t *)child_add_memory(&child, HOLE_GPA, PAGE_SIZE);
    intercept_complete(&intercept, INTERCEPT_AGAIN);
    expect_done(0x21);
    EXPECT_EQ(page[PAGE_SIZE - 2], 0x11);
    EXPECT_EQ(second[1], 0x44);
}

CHILD_PROGRAM(copy, 64,
              "cld; mov $0x7000, %esi; mov $0x0FFFFFFC, %edi; mov $8, %ecx; rep movsb; mov $0x22, %al; out %al, $0x80;"
              "hlt")

CHECK(string_move_into_a_hole, "8.1.2: the registers tell how far it came")
{
    make_child();
    uint8_t *page = (uint8_t *)child_add_memory(&child, HOLE_GPA - PAGE_SIZE, PAGE_SIZE);
    memcpy(child_memory(&child, 0x7000, 8), "abcdefgh", 8);
    PUT64(copy);
    child_resume(&child, 0);
    struct intercept intercept = next(HV_MESSAGE_UnmappedGpa);
    EXPECT_EQ(child_get_register(&child, 0, HV_REGISTER_Rcx), 4);
    EXPECT_EQ(child_get_register(&child, 0, HV_REGISTER_Rdi), HOLE_GPA);
    EXPECT_EQ(memcmp(page + PAGE_SIZE - 4, "abcd", 4), 0);
    uint8_t *second = (uint8_t *)child_add_memory(&child, HOLE_GPA, PAGE_SIZE);
    intercept_complete(&intercept, INTERCEPT_AGAIN);
    expect_done(0x22);
    EXPECT_EQ(memcmp(second, "efgh", 4), 0);
}

CHILD_PROGRAM(
    ports, 64,
    "cld; mov $0x7000, %edi; mov $0x1234, %edx; mov $3, %ecx; rep insw; mov $0x10000000, %edi; mov $0x80, %edx; insb;"
    "hlt")

CHECK(string_input, "11.9: a port nobody has reads ones; an intercept comes before a memory access")
{
    make_child();
    uint8_t *memory = child_memory(&child, 0x7000, 8);
    memset(memory, 0, 8);
    PUT64(ports);
    child_resume(&child, 0);
    struct intercept intercept = next(HV_MESSAGE_X64IoPortIntercept);
    EXPECT(intercept.io.string);
    EXPECT(!intercept.io.repeated);
    EXPECT(!intercept.io.write);
    EXPECT_EQ(intercept.io.size, 1);
    EXPECT_EQ(child_get_register(&child, 0, HV_REGISTER_Rdi), HOLE_GPA);
    for (unsigned i = 0; i < 6; i++) {
        EXPECT_EQ(memory[i], 0xFF);
    }
    EXPECT_EQ(memory[6], 0);
}

/* -- Code that others write -- */

CHILD_PROGRAM(call_again, 64, "1: mov $0x5000, %eax; call *%rax; out %al, $0x80; jmp 1b")

CHECK(code_written_by_the_root, "8.1: the child executes what lies in its memory")
{
    make_child();
    uint8_t *code = child_memory(&child, HANDLER_GPA, 16);
    static const uint8_t load_and_return[] = {0xB0, 0, 0xC3}; /* mov $0, %al; ret */
    memcpy(code, load_and_return, sizeof(load_and_return));
    PUT64(call_again);
    use_idt(STACK_GPA);
    child_resume(&child, 0);
    for (unsigned i = 0; i < 50; i++) {
        struct intercept intercept = next(HV_MESSAGE_X64IoPortIntercept);
        EXPECT_EQ(intercept.io.value, (uint8_t)i);
        code[1] = (uint8_t)(i + 1);
        intercept_complete(&intercept, INTERCEPT_DONE);
    }
}

/* -- FERR# (16.5.6) -- */

CHILD_PROGRAM(
    divide_by_zero, 64,
    "movw $0x37B, 0x7000; fninit; fldcw 0x7000; fld1; fldz; fdivrp; fwait; mov $0x61, %al; out %al, $0x80; hlt")

#define CR0_NE 0x20u

CHECK(ferr, "9.1.2: an x87 error with CR0.NE clear is the parent's to know, behind the instruction")
{
    make_child();
    PUT64(divide_by_zero);
    child_set_register(&child, 0, HV_REGISTER_Cr0, child_get_register(&child, 0, HV_REGISTER_Cr0) & ~(uint64_t)CR0_NE);
    child_resume(&child, 0);
    struct intercept intercept = next(root_is_2008r2() ? HV_MESSAGE_FerrAsserted : HV_MESSAGE_X64FerrAsserted);
    EXPECT_EQ(child_get_register(&child, 0, HV_REGISTER_InterceptSuspend) & 1, 1);
    intercept_complete(&intercept, INTERCEPT_AGAIN);
}
