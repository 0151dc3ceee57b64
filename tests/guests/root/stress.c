/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Many children, and children that lose their memory, their code and their lives while they run. */
#include "root.h"

#define VECTOR_MESSAGE 0x50
#define CODE_GPA 0x4000u
#define TABLES_GPA 0x8000u
#define DATA_GPA 0x200000u
#define PORT_DONE 0x80

void guest_cleanup(void)
{
    root_reset_state();
}

static void begin(void)
{
    root_enable();
    intercept_enable(VECTOR_MESSAGE);
}

/* A child with the lower 64 KiB, and a page of data. */
static struct child new_child(unsigned vps)
{
    struct child child = {.privileges = CHILD_PRIVILEGES};
    child_create(&child);
    child_add_memory(&child, 0, 16 * PAGE_SIZE);
    for (unsigned i = 0; i < vps; i++) {
        child_add_vp(&child, i);
    }
    return child;
}

static struct intercept next_port(void)
{
    struct intercept intercept;
    REQUIRE(intercept_receive(&intercept, SOON));
    if (intercept.message.type != (uint32_t)HV_MESSAGE_X64IoPortIntercept) {
        intercept_describe(&intercept);
    }
    REQUIRE_EQ(intercept.message.type, (uint32_t)HV_MESSAGE_X64IoPortIntercept);
    return intercept;
}

/* -- Many -- */

#define MANY 64
CHILD_PROGRAM(say_ten, 16, "mov $10, %cl; 1: mov %cl, %al; out %al, $0x80; dec %cl; jnz 1b; 2: hlt; jmp 2b")

static void run_many(uintptr_t code)
{
    static struct child children[MANY];
    static unsigned heard[MANY];
    memset(heard, 0, sizeof(heard));
    for (unsigned i = 0; i < MANY; i++) {
        children[i] = (struct child){.privileges = CHILD_PRIVILEGES};
        child_create(&children[i]);
        child_map(&children[i], CODE_GPA, code, PAGE_SIZE, HV_MAP_READ | HV_MAP_EXECUTE_2008R2);
        child_add_vp(&children[i], 0);
        child_intercept_ports(&children[i], PORT_DONE, 1);
        child_enter_real_mode(&children[i], 0, CODE_GPA >> 4);
        child_resume(&children[i], 0);
    }
    for (unsigned i = 0; i < 10 * MANY; i++) {
        struct intercept intercept = next_port();
        unsigned index = (unsigned)(intercept.partition - children[0].id);
        REQUIRE(index < MANY);
        REQUIRE_EQ(intercept.io.value, 10 - heard[index]);
        heard[index]++;
        intercept_complete(&intercept, INTERCEPT_DONE);
    }
    for (unsigned i = 0; i < MANY; i++) {
        EXPECT_EQ(heard[i], 10);
        child_delete(&children[i]);
    }
}

/* A KVM that interprets its guests takes a tenth of a second for a VM, and each child's VP is in one of its own. */
static bool on_kvm(void)
{
    char mode[16];
    return guest_option("mode", mode, sizeof(mode)) && memcmp(mode, "kvm", 3) == 0;
}

/* Where all processors share a thread, each waits for the turns of the others: the same takes several times as long. */
static unsigned rounds_of_many(void)
{
    char threads[16];
    if (on_kvm()) {
        return 2;
    }
    return guest_option("threads", threads, sizeof(threads)) && text_equal(threads, "single") ? 5 : 20;
}

CHECK(many_children, "5.3, 5.4: 64 at once, again and again; what they cost comes back")
{
    size_t left = 0;
    unsigned rounds = rounds_of_many();
    begin();
    uintptr_t code = ram_take(PAGE_SIZE, PAGE_SIZE);
    memcpy((void *)code, say_ten, (size_t)(say_ten_end - say_ten));
    for (unsigned round = 0; round < rounds; round++) {
        run_many(code);
        if (round == 0) {
            left = ram_left();
        }
    }
    EXPECT_EQ(ram_left(), left);
}

/* -- Deletion at any time -- */

CHILD_PROGRAM(spin, 64, "1: inc %rbx; jmp 1b")
CHILD_PROGRAM(sleep, 64, "1: hlt; jmp 1b")
CHILD_PROGRAM(ask_cpuid, 64, "1: xor %eax, %eax; cpuid; jmp 1b")
CHILD_PROGRAM(touch_nothing, 64, "mov $0x10000000, %edi; 1: mov (%rdi), %eax; jmp 1b")
CHILD_PROGRAM(write_ports, 64, "1: out %al, $0x80; jmp 1b")
CHILD_PROGRAM(fault, 64, "ud2")
CHILD_PROGRAM(interrupt_itself, 64,
              "mov $0xFEE00000, %edi; movl $0x1FF, 0xF0(%rdi); 1: movl $0x44040, 0x300(%rdi); jmp 1b")
CHILD_PROGRAM(read_time, 64, "mov $0x40000020, %ecx; 1: rdmsr; jmp 1b")
CHILD_PROGRAM(idle, 64, "mov $0x400000F0, %ecx; 1: rdmsr; jmp 1b")
CHILD_PROGRAM(flush_itself, 64, "1: mov %cr3, %rax; mov %rax, %cr3; jmp 1b")

static const struct {
    const uint8_t *begin, *end;
} lives[] = {
    {spin, spin_end},
    {sleep, sleep_end},
    {ask_cpuid, ask_cpuid_end},
    {touch_nothing, touch_nothing_end},
    {write_ports, write_ports_end},
    {fault, fault_end},
    {interrupt_itself, interrupt_itself_end},
    {read_time, read_time_end},
    {idle, idle_end},
    {flush_itself, flush_itself_end},
};

CHECK(deletion_at_any_time, "5.4, 10.4.2: whatever its VPs do, and however long they have been doing it")
{
    for (unsigned i = 0; i < (on_kvm() ? 2 : 10) * sizeof(lives) / sizeof(lives[0]); i++) {
        begin();
        struct child child = new_child(2);
        child_intercept_ports(&child, PORT_DONE, 1);
        for (unsigned vp = 0; vp < 2; vp++) {
            unsigned life = (i + vp * 3) % (sizeof(lives) / sizeof(lives[0]));
            child_enter_program64(&child, vp, CODE_GPA + vp * 0x100, lives[life].begin, lives[life].end, TABLES_GPA);
            if (i % 3) {
                child_resume(&child, vp); /* VP 1 waits for a SIPI all the same */
            }
        }
        clock_delay(i % 10 * 150);
        if (i % 4 == 3) {
            child_delete_vp(&child, 1);
            child_delete_vp(&child, 0);
        }
        child_delete(&child);
        root_reset_state();
    }
}

/* -- Memory that goes while it is in use -- */

CHILD_PROGRAM(count_in_memory, 64, "mov $0x200000, %edi; 1: incl (%rdi); jmp 1b")

/* What the page holds does not change once the call has returned. */
static void take_away_and_give_back(void *argument)
{
    unsigned rounds = *(unsigned *)argument;
    static struct spinlock building;
    intercept_enable(VECTOR_MESSAGE);
    spinlock_lock(&building);
    struct child child = new_child(1);
    volatile uint32_t *counter = (volatile uint32_t *)child_add_memory(&child, DATA_GPA, PAGE_SIZE);
    spinlock_unlock(&building);
    child_enter_program64(&child, 0, CODE_GPA, count_in_memory, count_in_memory_end, TABLES_GPA);
    child_resume(&child, 0);
    for (unsigned round = 0; round < rounds && !check_failed(); round++) {
        uint32_t before = *counter;
        if (!WAIT_UNTIL(*counter != before, SOON)) {
            check_fail(__FILE__, __LINE__, "the child stands still in round %u", round);
            check_abort();
        }
        child_unmap(&child, DATA_GPA, PAGE_SIZE);
        uint32_t last = *counter;
        for (unsigned i = 0; i < 200; i++) {
            EXPECT_THAT(*counter == last, "the child has written to what it does not have, in round %u", round);
        }
        child_map(&child, DATA_GPA, (uintptr_t)counter, PAGE_SIZE, HV_MAP_READ | HV_MAP_WRITE);
        child_set_register(&child, 0, HV_REGISTER_InterceptSuspend, 0);
    }
    child_suspend(&child, 0);
}

/* Where VPs take turns on one host thread each round waits for the child's turn, which can be half a second away. */
static unsigned rounds_to_do(void)
{
    char text[16];
    bool turns = guest_option("threads", text, sizeof(text)) && text_equal(text, "single");
    return turns ? 10 : 200;
}

CHECK(memory_taken_from_a_running_child, "8.3.2: complete when the call returns")
{
    unsigned rounds = rounds_to_do();
    begin();
    take_away_and_give_back(&rounds);
}

CHECK(two_parents_take_at_once, "8.3.2: calls that wait for each other's LPs", .min_vps = 2)
{
    unsigned rounds = rounds_to_do();
    begin();
    smp_start(1, take_away_and_give_back, &rounds);
    take_away_and_give_back(&rounds);
    EXPECT(smp_wait(1, 2 * SOON));
}

/* -- Code that changes -- */

CHECK(self_modifying_code, "the next execution sees what the child has written")
{
    /* 1: mov $0, %al; out %al, $0x80; incb 1b+1(%rip); jmp 1b */
    static const uint8_t code[] = {0xB0, 0x00, 0xE6, 0x80, 0xFE, 0x05, 0xF7, 0xFF, 0xFF, 0xFF, 0xEB, 0xF4};
    begin();
    struct child child = new_child(1);
    child_intercept_ports(&child, PORT_DONE, 1);
    child_enter_program64(&child, 0, CODE_GPA, code, code + sizeof(code), TABLES_GPA);
    child_resume(&child, 0);
    for (unsigned i = 0; i < 200; i++) {
        struct intercept intercept = next_port();
        REQUIRE_EQ(intercept.io.value, i % 256);
        intercept_complete(&intercept, INTERCEPT_DONE);
    }
}

CHILD_PROGRAM(store_constant, 64, "mov $0x200000, %edi; 1: movl $0, (%rdi); jmp 1b")

CHECK(code_modified_by_another_partition, "code that the parent changes in its own memory, for two children at once")
{
    begin();
    uintptr_t code = ram_take(PAGE_SIZE, PAGE_SIZE);
    struct child children[2];
    volatile uint32_t *data[2];
    memcpy((void *)code, store_constant, (size_t)(store_constant_end - store_constant));
    for (unsigned i = 0; i < 2; i++) {
        children[i] = new_child(1);
        child_make_gdt(&children[i], 0, TABLES_GPA, true);
        child_make_page_tables(&children[i], TABLES_GPA + PAGE_SIZE, 1);
        child_map(&children[i], 0x300000, code, PAGE_SIZE, HV_MAP_READ | HV_MAP_EXECUTE_2008R2);
        data[i] = (volatile uint32_t *)child_add_memory(&children[i], DATA_GPA, PAGE_SIZE);
        child_enter_long_mode(&children[i], 0, 0x300000, TABLES_GPA + PAGE_SIZE, 0);
        child_resume(&children[i], 0);
    }
    /* movl $imm32, (%rdi): two bytes, then the immediate */
    volatile uint32_t *immediate = (volatile uint32_t *)(code + 5 + 2);
    for (uint32_t value = 1; value <= 100; value++) {
        /* As between processors: who executes code that another changes has to stop meanwhile (Intel SDM 3A, 8.1.3). */
        for (unsigned i = 0; i < 2; i++) {
            child_suspend(&children[i], 0);
        }
        *immediate = value;
        for (unsigned i = 0; i < 2; i++) {
            child_resume(&children[i], 0);
        }
        for (unsigned i = 0; i < 2; i++) {
            if (!WAIT_UNTIL((interrupts_on(), interrupts_off(), *data[i] == value), SOON)) {
                check_fail(__FILE__, __LINE__, "child %u still stores %u, not %u", i, *data[i], value);
                check_abort();
            }
        }
    }
}
