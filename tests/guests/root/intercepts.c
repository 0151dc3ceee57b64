/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLFS chapters 9 and 16: what stops a child's VP, what its parent is told, and how it goes on. */
#include "root.h"

#define VECTOR_MESSAGE 0x50
#define MEBIBYTE (UINT64_C(1) << 20)
#define CODE_GPA 0x4000u
#define TABLES_GPA 0x8000u /* eight pages */
#define IDT_GPA 0x20000u
#define STACK_GPA 0x30000u
#define UNMAPPED_GPA 0x10000000u
#define LIMITED_GPA 0x11000000u
#define PORT_DONE 0x80

static struct child child;

void guest_cleanup(void)
{
    root_reset_state();
}

static void make_child(unsigned vps)
{
    child = (struct child){.privileges = CHILD_PRIVILEGES};
    root_enable();
    intercept_enable(VECTOR_MESSAGE);
    child_create(&child);
    child_add_memory(&child, 0, 4 * MEBIBYTE);
    for (unsigned i = 0; i < vps; i++) {
        child_add_vp(&child, i);
    }
    child_intercept_ports(&child, PORT_DONE, 1);
}

#define RUN64(name)                                                                                                    \
    do {                                                                                                               \
        child_enter_program64(&child, 0, CODE_GPA, name, name##_end, TABLES_GPA);                                      \
        child_resume(&child, 0);                                                                                       \
    } while (0)

static struct intercept next(enum hv_message_type type)
{
    struct intercept intercept;
    REQUIRE(intercept_receive(&intercept, SOON));
    if (intercept.message.type != (uint32_t)type) {
        intercept_describe(&intercept);
    }
    REQUIRE_EQ(intercept.message.type, (uint32_t)type);
    EXPECT_EQ(intercept.partition, child.id);
    return intercept;
}

static void expect_done(uint8_t value)
{
    struct intercept done = next(HV_MESSAGE_X64IoPortIntercept);
    EXPECT_EQ(done.io.port, PORT_DONE);
    EXPECT_EQ(done.io.value, value);
    EXPECT_EQ(child_get_register(&child, 0, HV_REGISTER_InterceptSuspend) & 1, 1);
}

/* -- CPUID (9.2.1, 11.11, 16.5.1) -- */

CHILD_PROGRAM(use_cpuid, 64, "mov $1, %eax; mov $7, %ecx; cpuid; mov %bl, %al; out %al, $0x80; hlt")

CHECK(cpuid_is_intercepted, "16.5.1: inputs and what the hypervisor would answer")
{
    make_child(1);
    child_intercept_cpuid(&child, 1);
    RUN64(use_cpuid);
    struct intercept intercept = next(HV_MESSAGE_X64CpuidIntercept);
    EXPECT_EQ(intercept.cpuid.leaf, 1);
    EXPECT_EQ(intercept.cpuid.subleaf, 7);
    EXPECT_EQ(intercept.length, 2);
    EXPECT(intercept.cpuid.ecx >> 31);
    intercept.cpuid.ebx = 0x5A;
    intercept_complete(&intercept, INTERCEPT_DONE);
    expect_done(0x5A);
}

CHILD_PROGRAM(use_cpuid_0, 64, "mov $0, %eax; cpuid; mov $0x11, %al; out %al, $0x80; hlt")

CHECK(other_leaves_are_not, "9.1.1: one leaf at a time")
{
    make_child(1);
    child_intercept_cpuid(&child, 1);
    RUN64(use_cpuid_0);
    expect_done(0x11);
}

/* -- MSRs (9.2.1, 11.10, 16.5.2) -- */

CHILD_PROGRAM(use_msr, 64,
              "mov $0x12345, %ecx; mov $0x89ABCDEF, %eax; mov $0x01234567, %edx; wrmsr; rdmsr; out %al, $0x80; hlt")

CHECK(msrs_are_intercepted, "16.5.2: those that the hypervisor does not virtualize")
{
    make_child(1);
    child_intercept_msrs(&child);
    RUN64(use_msr);
    struct intercept intercept = next(HV_MESSAGE_X64MsrIntercept);
    EXPECT(intercept.msr.write);
    EXPECT_EQ(intercept.msr.index, 0x12345);
    EXPECT_EQ(intercept.msr.value, 0x0123456789ABCDEF);
    EXPECT_EQ(intercept.length, 2);
    intercept_complete(&intercept, INTERCEPT_DONE);
    intercept = next(HV_MESSAGE_X64MsrIntercept);
    EXPECT(!intercept.msr.write);
    intercept.msr.value = 0x1122334455667788;
    intercept_complete(&intercept, INTERCEPT_DONE);
    expect_done(0x88);
    EXPECT_EQ(child_get_register(&child, 0, HV_REGISTER_Rdx), 0x11223344);
    EXPECT_EQ(child_get_register(&child, 0, HV_REGISTER_Rax), 0x55667788);
}

CHECK(triple_fault, "9.1.2, 16.5.8: #GP for an MSR that is not there, without an IDT")
{
    make_child(1);
    RUN64(use_msr);
    struct intercept intercept = next(HV_MESSAGE_UnrecoverableException);
    EXPECT_EQ(intercept.length, 0);
    EXPECT_EQ(child_get_register(&child, 0, HV_REGISTER_InterceptSuspend) & 1, 1);
}

/* -- Memory (11.8, 16.3) -- */

CHILD_PROGRAM(read_memory, 64, "mov $0x10000123, %esi; mov (%rsi), %al; out %al, $0x80; hlt")
CHILD_PROGRAM(write_memory, 64, "mov $0x10000124, %esi; movw $0x5678, (%rsi); out %al, $0x80; hlt")

CHECK(unmapped_read, "16.3.1: where nothing is mapped")
{
    static const uint8_t bytes[] = {0x8A, 0x06};
    struct mmio mmio;
    make_child(1);
    RUN64(read_memory);
    struct intercept intercept = next(HV_MESSAGE_UnmappedGpa);
    EXPECT_EQ(intercept.memory.gpa, UNMAPPED_GPA + 0x123);
    EXPECT(intercept.memory.gva_valid);
    EXPECT_EQ(intercept.memory.gva, UNMAPPED_GPA + 0x123);
    EXPECT(!intercept.memory.write);
    EXPECT(!intercept.memory.execute);
    EXPECT_EQ(memcmp(intercept.memory.bytes, bytes, sizeof(bytes)), 0);
    REQUIRE(mmio_decode(&intercept, &mmio));
    EXPECT_EQ(mmio.size, 1);
    EXPECT_EQ(intercept.length, 2);
    mmio.value = 0x77;
    mmio_finish(&intercept, &mmio);
    intercept_complete(&intercept, INTERCEPT_DONE);
    expect_done(0x77);
}

CHECK(unmapped_write, "16.3.1")
{
    struct mmio mmio;
    make_child(1);
    RUN64(write_memory);
    struct intercept intercept = next(HV_MESSAGE_UnmappedGpa);
    EXPECT(intercept.memory.write);
    REQUIRE(mmio_decode(&intercept, &mmio));
    EXPECT_EQ(mmio.gpa, UNMAPPED_GPA + 0x124);
    EXPECT_EQ(mmio.size, 2);
    EXPECT_EQ(mmio.value, 0x5678);
    intercept_complete(&intercept, INTERCEPT_DONE);
    next(HV_MESSAGE_X64IoPortIntercept);
}

CHECK(mapped_after_the_intercept, "8.3.1: the access is done again, and finds the memory")
{
    make_child(1);
    RUN64(read_memory);
    struct intercept intercept = next(HV_MESSAGE_UnmappedGpa);
    uint8_t *memory = (uint8_t *)child_add_memory(&child, UNMAPPED_GPA, PAGE_SIZE);
    memory[0x123] = 0x66;
    intercept_complete(&intercept, INTERCEPT_AGAIN);
    expect_done(0x66);
}

CHILD_PROGRAM(write_limited, 64,
              "mov $0x11000000, %esi; mov (%rsi), %al; movb $0x22, (%rsi); mov (%rsi), %al; out %al, $0x80; hlt")

CHECK(write_to_a_read_only_page, "8.1.2, 16.3.2: reads pass, the write is told and changes nothing")
{
    make_child(1);
    uint8_t *page = (uint8_t *)ram_take(PAGE_SIZE, PAGE_SIZE);
    page[0] = 0x21;
    child_map(&child, LIMITED_GPA, (uintptr_t)page, PAGE_SIZE, HV_MAP_READ);
    RUN64(write_limited);
    struct intercept intercept = next(HV_MESSAGE_GpaIntercept);
    EXPECT_EQ(intercept.memory.gpa, LIMITED_GPA);
    EXPECT(intercept.memory.write);
    EXPECT_EQ(page[0], 0x21);
    child_map(&child, LIMITED_GPA, (uintptr_t)page, PAGE_SIZE, HV_MAP_READ | HV_MAP_WRITE);
    intercept_complete(&intercept, INTERCEPT_AGAIN);
    expect_done(0x22);
    EXPECT_EQ(page[0], 0x22);
}

CHILD_PROGRAM(jump_limited, 64, "mov $0x11000000, %eax; jmp *%rax")
CHILD_PROGRAM(say_33, 64, "mov $0x33, %al; out %al, $0x80; hlt")

CHECK(execution_of_data, "8.1.2, 16.3.2: a page without the right to execute")
{
    make_child(1);
    uint8_t *page = (uint8_t *)ram_take(PAGE_SIZE, PAGE_SIZE);
    memcpy(page, say_33, (size_t)(say_33_end - say_33));
    child_map(&child, LIMITED_GPA, (uintptr_t)page, PAGE_SIZE, HV_MAP_READ | HV_MAP_WRITE);
    RUN64(jump_limited);
    struct intercept intercept = next(HV_MESSAGE_GpaIntercept);
    EXPECT_EQ(intercept.memory.gpa, LIMITED_GPA);
    EXPECT(intercept.memory.execute);
    EXPECT_EQ(intercept_header(&intercept)->rip, LIMITED_GPA);
    child_map(&child, LIMITED_GPA, (uintptr_t)page, PAGE_SIZE, CHILD_RAM);
    intercept_complete(&intercept, INTERCEPT_AGAIN);
    expect_done(0x33);
}

CHILD_PROGRAM(read_twice, 64,
              "mov $0x11000000, %esi; mov (%rsi), %al; out %al, $0x80; mov (%rsi), %al; out %al, $0x80; hlt")

CHECK(unmapping_takes_effect_at_once, "8.3.2: the next access, though the translation was in use")
{
    make_child(1);
    uint8_t *page = (uint8_t *)child_add_memory(&child, LIMITED_GPA, PAGE_SIZE);
    page[0] = 0x44;
    RUN64(read_twice);
    struct intercept intercept = next(HV_MESSAGE_X64IoPortIntercept);
    EXPECT_EQ(intercept.io.value, 0x44);
    child_unmap(&child, LIMITED_GPA, PAGE_SIZE);
    intercept_complete(&intercept, INTERCEPT_DONE);
    next(HV_MESSAGE_UnmappedGpa);
}

/* -- Exceptions (11.12, 16.5.4) -- */

CHILD_PROGRAM(undefined, 64, "mov $0x1234, %ebx; ud2; out %al, $0x80; hlt")

CHECK(exception_is_intercepted, "16.5.4: before it is delivered")
{
    make_child(1);
    child_intercept_exception(&child, VECTOR_UD);
    RUN64(undefined);
    struct intercept intercept = next(HV_MESSAGE_X64ExceptionIntercept);
    EXPECT_EQ(intercept.exception.vector, VECTOR_UD);
    EXPECT(!intercept.exception.has_error);
    EXPECT_EQ(intercept_header(&intercept)->rip, CODE_GPA + 5);
    EXPECT_EQ(child_get_register(&child, 0, HV_REGISTER_Rbx), 0x1234);
    intercept.length = 2;
    intercept_complete(&intercept, INTERCEPT_DONE);
    next(HV_MESSAGE_X64IoPortIntercept);
}

CHILD_PROGRAM(monitoring, 64, "lea monitoring(%rip), %rax; xor %ecx, %ecx; xor %edx, %edx; monitor; hlt")
CHILD_PROGRAM(waiting, 64, "xor %eax, %eax; xor %ecx, %ecx; mwait; hlt")

static void expect_undefined(void)
{
    struct intercept intercept = next(HV_MESSAGE_X64ExceptionIntercept);
    EXPECT_EQ(intercept.exception.vector, VECTOR_UD);
}

CHECK(monitor_is_undefined, "11.5: MONITOR and MWAIT are #UD in a child that no leaf has told of them")
{
    make_child(1);
    child_intercept_exception(&child, VECTOR_UD);
    RUN64(monitoring);
    expect_undefined();
    RUN64(waiting);
    expect_undefined();
}

/* -- Interrupts (13.4) -- */

struct gate {
    uint16_t low, selector, flags, middle;
    uint32_t high, reserved;
};

static void set_gate(unsigned vector, uint64_t handler)
{
    struct gate *gates = child_memory(&child, IDT_GPA, PAGE_SIZE);
    gates[vector] =
        (struct gate){(uint16_t)handler, CHILD_CODE, 0x8E00, (uint16_t)(handler >> 16), (uint32_t)(handler >> 32), 0};
    struct hv_register_assignment list[] = {
        {.name = HV_REGISTER_Idtr, .value.table = {.limit = PAGE_SIZE - 1, .base = IDT_GPA}},
        {.name = HV_REGISTER_Rsp, .value.u64 = STACK_GPA},
    };
    child_set_registers(&child, 0, list, 2);
}

/* Enable the local APIC by software, tell that it is done, and halt with interrupts on, again and again. */
CHILD_PROGRAM(wait_for_interrupt, 64,
              "mov $0xFEE00000, %edi; movl $0x1FF, 0xF0(%rdi); mov $1, %al; out %al, $0x80; 1: sti; hlt; jmp 1b")
CHILD_PROGRAM(say_55, 64, "mov $0x55, %al; out %al, $0x80; movl $0, 0xB0(%rdi); iretq")
#define HANDLER_GPA 0x5000u
#define VECTOR_CHILD 0x60

CHECK(interrupt_of_a_halted_child, "13.5.1: fixed, edge")
{
    make_child(1);
    child_put_program(&child, HANDLER_GPA, say_55, say_55_end);
    set_gate(VECTOR_CHILD, HANDLER_GPA);
    RUN64(wait_for_interrupt);
    struct intercept intercept = next(HV_MESSAGE_X64IoPortIntercept);
    intercept_complete(&intercept, INTERCEPT_DONE);
    for (unsigned i = 0; i < 20; i++) {
        EXPECT_EQ(child_assert_interrupt(&child, HV_INTERRUPT_FIXED, 0, VECTOR_CHILD), HV_STATUS_SUCCESS);
        intercept = next(HV_MESSAGE_X64IoPortIntercept);
        EXPECT_EQ(intercept.io.value, 0x55);
        intercept_complete(&intercept, INTERCEPT_DONE);
    }
}

/* -- VPs of a child among themselves (13.3.2) -- */

CHILD_PROGRAM(
    start_other, 64,
    "mov $0xFEE00000, %edi; movl $0x1FF, 0xF0(%rdi); movl $0x01000000, 0x310(%rdi); movl $0x4500, 0x300(%rdi);"
    "mov $100000, %ecx; 1: pause; loop 1b; movl $0x01000000, 0x310(%rdi); movl $0x4606, 0x300(%rdi); 2: hlt;"
    "jmp 2b")
CHILD_PROGRAM(say_66, 16, "mov $0x66, %al; out %al, $0x80; 1: hlt; jmp 1b")

CHECK(other_vp_is_started, "13.3.2: INIT and start-up IPI")
{
    make_child(2);
    child_put_program(&child, 0x6000, say_66, say_66_end);
    child_resume(&child, 1);
    RUN64(start_other);
    struct intercept intercept = next(HV_MESSAGE_X64IoPortIntercept);
    EXPECT_EQ(intercept.vp, 1);
    EXPECT_EQ(intercept.io.value, 0x66);
    EXPECT_EQ(intercept_header(&intercept)->cs.selector, 0x600);
    EXPECT_EQ(intercept_header(&intercept)->cs.base, 0x6000);
}

/* -- String instructions -- */

CHILD_PROGRAM(write_string, 64, "mov $0x7000, %esi; mov $5, %ecx; mov $0x80, %edx; rep outsb; out %al, $0x80; hlt")

static void append(struct intercept *intercept, void *context)
{
    char *text = context;
    text[strlen(text)] = (char)intercept->io.value;
}

CHECK(string_output, "16.5.3: all that is needed to do it for the VP")
{
    char text[8] = {0};
    make_child(1);
    memcpy(child_memory(&child, 0x7000, 5), "hello", 5);
    RUN64(write_string);
    struct intercept intercept = next(HV_MESSAGE_X64IoPortIntercept);
    EXPECT(intercept.io.string);
    EXPECT(intercept.io.repeated);
    EXPECT(intercept.io.write);
    intercept_complete(&intercept, string_io(&intercept, &child, append, text));
    EXPECT(text_equal(text, "hello"));
    intercept = next(HV_MESSAGE_X64IoPortIntercept);
    EXPECT(!intercept.io.string);
    EXPECT_EQ(child_get_register(&child, 0, HV_REGISTER_Rsi), 0x7005);
    EXPECT_EQ(child_get_register(&child, 0, HV_REGISTER_Rcx), 0);
}

/* -- Suspension (10.1.3) -- */

CHILD_PROGRAM(count_up, 64, "1: inc %rbx; jmp 1b")

CHECK(explicit_suspend, "10.1.3: a VP that runs stops, and stays where it is")
{
    make_child(1);
    RUN64(count_up);
    clock_delay(20000);
    child_suspend(&child, 0);
    uint64_t first = child_get_register(&child, 0, HV_REGISTER_Rbx);
    clock_delay(5000);
    EXPECT_EQ(child_get_register(&child, 0, HV_REGISTER_Rbx), first);
    EXPECT(first > 0);
    child_resume(&child, 0);
    clock_delay(20000);
    child_suspend(&child, 0);
    EXPECT(child_get_register(&child, 0, HV_REGISTER_Rbx) > first);
}

CHECK(deletion_while_it_runs, "5.4: a partition may go at any time")
{
    for (unsigned i = 0; i < 10; i++) {
        make_child(1);
        RUN64(count_up);
        clock_delay(200 * i);
        child_delete(&child);
    }
}
