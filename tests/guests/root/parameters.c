/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS 4.3, 4.6, 4.11.1, 11.8: pages of hypercall parameters that a child cannot access, or not any more: its parent
 * takes them away before the call, or again and again while calls are executed. The parent is told as of any other
 * access; when it has put things right the call is done as if nothing had been.
 */
#include "programs.h"

#define PAGE_GPA 0x3E000u /* the child's hypercall page */
#define INPUT_GPA 0x50000u
#define OUTPUT_GPA 0x60000u
#define REPS 240u /* many times what one turn of a call does */
#define VALUE_SIZE 16u
#define HV_GET_VP_REGISTERS 0x0050u
#define LAST_VALUE ((REPS - 1) * VALUE_SIZE)
#define SELF UINT64_MAX /* HV_PARTITION_ID_SELF */

void guest_cleanup(void)
{
    root_reset_state();
}

/*
 * HvGetVpRegisters for the caller's own R12, REPS times; what comes last is cleared before. E1: not the result that is
 * expected; E2: success, but the output is not there.
 */
CHILD_PROGRAM(call_for_ever, 64,
              "1: movq $0, (%r14, %rbp); mov %r12, %rcx; mov %r13, %rdx; mov %r14, %r8; call *%r15; cmp %rbx, %rax;"
              "jne 2f; cmp %r12, (%r14, %rbp); jne 3f; incl 0x7000; jmp 1b;"
              "2: mov %rax, 0x7008; mov $0xE1, %al; out %al, $0x80; hlt;"
              "3: mov $0xE2, %al; out %al, $0x80; hlt")
CHILD_PROGRAM(call_once, 64,
              "mov %r12, %rcx; mov %r13, %rdx; mov %r14, %r8; call *%r15; mov %rax, 0x7008; out %al, $0x80; hlt")

static volatile uint32_t *progress;
static volatile uint64_t *last_value;

static uint64_t get_registers_call(void)
{
    return HV_GET_VP_REGISTERS | HV_CALL_REPS(REPS);
}

/* A child with pages for both lists that can be taken away. */
static void prepare(void)
{
    begin(1);
    struct hv_in_get_vp_registers *input = child_memory(&child, INPUT_GPA, PAGE_SIZE);
    uint32_t *names = (uint32_t *)(input + 1);
    *input = (struct hv_in_get_vp_registers){.partition = SELF};
    for (unsigned i = 0; i < REPS; i++) {
        names[i] = HV_REGISTER_R12;
    }
    progress = data_at(DATA_GPA);
    last_value = data_at(OUTPUT_GPA + LAST_VALUE);
    set(HV_REGISTER_GuestOsId, 1);
    set(HV_REGISTER_Hypercall, PAGE_GPA | 1);
}

static void set_call(uint64_t input_value)
{
    set(HV_REGISTER_R12, input_value);
    set(HV_REGISTER_R13, INPUT_GPA);
    set(HV_REGISTER_R14, OUTPUT_GPA);
    set(HV_REGISTER_R15, PAGE_GPA);
    set(HV_REGISTER_Rbx, HV_CALL_REPS(REPS));
    set(HV_REGISTER_Rbp, LAST_VALUE);
    set(HV_REGISTER_Rsp, STACK_GPA);
}

static void start_call(uint64_t input_value)
{
    PUT64(0, call_once);
    set_call(input_value);
    child_resume(&child, 0);
}

/* The pages are part of one range of the child's: the rest of it stays. */
#define TAKEN UINT32_MAX
static void change_page(uint64_t gpa, uint32_t rights)
{
    struct child part = {.id = child.id};
    if (rights == TAKEN) {
        child_unmap(&part, gpa, PAGE_SIZE);
    } else {
        child_map(&part, gpa, (uintptr_t)data_at(gpa), PAGE_SIZE, rights);
    }
}

static void expect_success(void)
{
    said();
    EXPECT_EQ(*(uint64_t *)data_at(DATA_GPA + 8), HV_CALL_REPS(REPS));
    for (unsigned i = 0; i < REPS; i++) {
        EXPECT_EQ(*(uint64_t *)data_at(OUTPUT_GPA + i * VALUE_SIZE), get_registers_call());
    }
}

static void expect_intercept(uint32_t rights, uint64_t gpa, bool write)
{
    struct intercept intercept = next_message(rights == TAKEN ? HV_MESSAGE_UnmappedGpa : HV_MESSAGE_GpaIntercept);
    EXPECT_EQ(intercept.memory.gpa & ~UINT64_C(0xFFF), gpa);
    EXPECT_EQ(intercept.memory.write, write);
    EXPECT(!intercept.memory.execute);
    /* In front of the instruction that makes the call. */
    EXPECT_EQ(intercept_header(&intercept)->rip & ~UINT64_C(0xFFF), PAGE_GPA);
    EXPECT_EQ(get(HV_REGISTER_Rcx), get_registers_call());
    EXPECT_EQ(get(HV_REGISTER_InterceptSuspend) & HV_SUSPEND_INTERCEPT, HV_SUSPEND_INTERCEPT);
    change_page(gpa, CHILD_RAM);
    intercept_complete(&intercept, INTERCEPT_AGAIN);
}

/* -- Before the call -- */

CHECK(input_is_not_mapped, "4.11.1: the parent is told of a read, and the call is made again")
{
    prepare();
    change_page(INPUT_GPA, TAKEN);
    start_call(get_registers_call());
    expect_intercept(TAKEN, INPUT_GPA, false);
    expect_success();
}

CHECK(input_cannot_be_read, "4.11.1: a page without the right to read")
{
    prepare();
    change_page(INPUT_GPA, 0);
    start_call(get_registers_call());
    expect_intercept(0, INPUT_GPA, false);
    expect_success();
}

CHECK(output_is_not_mapped, "4.11.1: a write")
{
    prepare();
    change_page(OUTPUT_GPA, TAKEN);
    start_call(get_registers_call());
    expect_intercept(TAKEN, OUTPUT_GPA, true);
    expect_success();
}

CHECK(output_cannot_be_written, "4.11.1: a page that may only be read stays as it is")
{
    prepare();
    change_page(OUTPUT_GPA, HV_MAP_READ);
    start_call(get_registers_call());
    next_message(HV_MESSAGE_GpaIntercept);
    EXPECT_EQ(*last_value, 0);
    EXPECT_EQ(*(uint64_t *)data_at(OUTPUT_GPA), 0);
    set(HV_REGISTER_InterceptSuspend, 0);
    expect_intercept(HV_MAP_READ, OUTPUT_GPA, true); /* once more, as nothing has changed */
    expect_success();
}

CHECK(both_are_missing, "4.11.1: one after the other")
{
    prepare();
    change_page(INPUT_GPA, TAKEN);
    change_page(OUTPUT_GPA, TAKEN);
    start_call(get_registers_call());
    expect_intercept(TAKEN, INPUT_GPA, false);
    expect_intercept(TAKEN, OUTPUT_GPA, true);
    expect_success();
}

CHECK(what_is_not_accessed, "4.6: a call without output does not look at the output page, nor does a read need more")
{
    prepare();
    uint64_t *input = data_at(INPUT_GPA);
    input[0] = TABLES_GPA;
    input[1] = HV_FLUSH_ALL_PROCESSORS;
    input[2] = 0;
    change_page(OUTPUT_GPA, TAKEN);
    change_page(INPUT_GPA, HV_MAP_READ);
    start_call(HV_FLUSH_VIRTUAL_ADDRESS_SPACE);
    said();
    EXPECT_EQ(*(uint64_t *)data_at(DATA_GPA + 8), HV_SUCCESS);
}

CHECK(bad_places, "4.11.3: what is wrong with the call itself is told before its pages are looked at")
{
    prepare();
    change_page(INPUT_GPA, TAKEN);
    change_page(OUTPUT_GPA, TAKEN);
    PUT64(0, call_once);
    set_call(get_registers_call());
    set(HV_REGISTER_R13, INPUT_GPA + 4);
    child_resume(&child, 0);
    said();
    EXPECT_EQ(*(uint64_t *)data_at(DATA_GPA + 8), HV_INVALID_ALIGNMENT);
    PUT64(0, call_once);
    set_call(0x7FFF);
    child_resume(&child, 0);
    said();
    EXPECT_EQ(*(uint64_t *)data_at(DATA_GPA + 8), HV_INVALID_HYPERCALL_CODE);
    EXPECT_EQ(*last_value, 0);
}

/* -- While calls are made -- */

static unsigned rounds_to_do(void)
{
    char text[16];
    bool turns = guest_option("threads", text, sizeof(text)) && text_equal(text, "single");
    return turns ? 5 : 100;
}

struct taking {
    uint64_t gpa;
    uint32_t rights;
};
static const struct taking takings[] = {
    {INPUT_GPA, TAKEN}, {OUTPUT_GPA, TAKEN}, {INPUT_GPA, 0}, {OUTPUT_GPA, HV_MAP_READ}, {OUTPUT_GPA, 0}};
#define TAKINGS (sizeof(takings) / sizeof(takings[0]))

static void start_calling(void)
{
    PUT64(0, call_for_ever);
    set_call(get_registers_call());
    child_resume(&child, 0);
}

static void expect_progress(uint32_t before)
{
    if (!WAIT_UNTIL(*progress != before || check_failed(), SOON)) {
        check_fail(__FILE__, __LINE__, "the child's calls come to no end");
        check_abort();
    }
}

/* What the hypervisor writes for a child must not arrive where the child has nothing any more (TLFS 8.3.2). */
static void expect_no_late_write(const struct taking *taking)
{
    uint64_t value = *last_value;
    for (unsigned i = 0; taking->gpa == OUTPUT_GPA && i < 200; i++) {
        EXPECT_THAT(*last_value == value, "output was written behind the parent's back");
    }
}

static void expect_no_failure(const struct intercept *intercept)
{
    if (intercept->message.type == (uint32_t)HV_MESSAGE_X64IoPortIntercept) {
        check_fail(__FILE__, __LINE__, "the child says %x, the call's result is %llx", intercept->io.value,
                   (unsigned long long)progress[2]);
        check_abort();
    }
}

CHECK(taken_while_it_calls, "4.11.1, 8.3.2: one processor takes a page, is told, and gives it back")
{
    prepare();
    start_calling();
    for (unsigned i = 0; i < rounds_to_do(); i++) {
        const struct taking *taking = &takings[i % TAKINGS];
        struct intercept intercept;
        change_page(taking->gpa, taking->rights);
        expect_no_late_write(taking);
        REQUIRE(intercept_receive(&intercept, SOON));
        expect_no_failure(&intercept);
        EXPECT_EQ(intercept.memory.gpa & ~UINT64_C(0xFFF), taking->gpa);
        uint32_t before = *progress;
        change_page(taking->gpa, CHILD_RAM);
        intercept_complete(&intercept, INTERCEPT_AGAIN);
        expect_progress(before);
    }
}

static volatile unsigned told;
static volatile bool ended;

static void take_and_give(void *argument)
{
    (void)argument;
    for (unsigned i = 0; i < rounds_to_do() && !check_failed(); i++) {
        const struct taking *taking = &takings[i % TAKINGS];
        unsigned before = told;
        change_page(taking->gpa, taking->rights);
        expect_no_late_write(taking);
        if (!WAIT_UNTIL(told != before || check_failed(), SOON)) {
            check_fail(__FILE__, __LINE__, "nobody was told that page %llx is gone", (unsigned long long)taking->gpa);
        }
        uint32_t calls = *progress;
        change_page(taking->gpa, CHILD_RAM);
        expect_progress(calls);
    }
    ended = true;
}

CHECK(taken_by_another_processor, "4.11.1, 8.3.2: and another lets the child try again at once", .min_vps = 2)
{
    prepare();
    told = 0;
    ended = false;
    start_calling();
    smp_start(1, take_and_give, NULL);
    while (!ended && !check_failed()) {
        struct intercept intercept;
        if (intercept_receive(&intercept, 500)) {
            expect_no_failure(&intercept);
            intercept_complete(&intercept, INTERCEPT_AGAIN);
            told++;
        }
    }
    EXPECT(smp_wait(1, 2 * SOON));
}

static volatile bool stop;

/* As fast as it goes; nobody waits for the child. */
static void flip(void *argument)
{
    const struct taking *taking = argument;
    while (!stop && !check_failed()) {
        change_page(taking->gpa, taking->rights);
        change_page(taking->gpa, CHILD_RAM);
    }
}

CHECK(flipped_as_fast_as_it_goes, "4.11.1: a page comes and goes in the middle of calls; they are done or told of",
      .min_vps = 2, .flags = CHECK_PARALLEL)
{
    for (unsigned i = 0; i < TAKINGS; i++) {
        prepare();
        stop = false;
        start_calling();
        smp_start(1, flip, (void *)&takings[i]);
        uint64_t end = clock_microseconds() + 150000;
        while (clock_microseconds() < end && !check_failed()) {
            struct intercept intercept;
            if (intercept_receive(&intercept, 200)) {
                expect_no_failure(&intercept);
                intercept_complete(&intercept, INTERCEPT_AGAIN);
            }
        }
        stop = true;
        REQUIRE(smp_wait(1, SOON));
        struct intercept intercept;
        uint32_t before = *progress;
        while (intercept_receive(&intercept, 200)) {
            expect_no_failure(&intercept);
            intercept_complete(&intercept, INTERCEPT_AGAIN);
        }
        expect_progress(before);
        child_delete(&child);
    }
}

CHECK(deleted_while_it_calls, "5.4: a partition goes in the middle of its calls")
{
    for (unsigned i = 0; i < 8; i++) {
        prepare();
        start_calling();
        clock_delay(300 * i);
        if (i % 2) {
            change_page(OUTPUT_GPA, TAKEN);
        }
        child_delete(&child);
    }
}
