/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS 10.1, 10.4.1, 10.4.2, 11.4: virtual processors are created and deleted, begin in the state that a processor has
 * after reset, run in all modes, start each other, are suspended, and have their registers taken while they run.
 */
#include "programs.h"

#define LEAF_LIMITS 0x40000005u
#define RESET_PAGE 0xFFFFF000u
#define RESET_RIP 0xFFF0u
#define START_GPA 0x6000u
#define FAR_GPA 0x200000u

void guest_cleanup(void)
{
    root_reset_state();
}

/* -- HvCreateVp (10.4.1) -- */

struct creation {
    uint64_t partition, proximity, flags;
    uint32_t vp;
};

static unsigned create(const struct creation *creation)
{
    if (root_is_2008r2()) {
        struct hv_in_create_vp_2008r2 input = {creation->partition, creation->vp, 0, creation->proximity,
                                               creation->flags};
        return hvcall_create_vp_2008r2(&input, NULL);
    }
    struct hv_in_create_vp_current input = {.partition = creation->partition,
                                            .vp = creation->vp,
                                            .proximity = creation->proximity,
                                            .flags = creation->flags};
    return hvcall_create_vp_current(&input, NULL);
}

static unsigned create_index(uint32_t vp)
{
    return create(&(struct creation){.partition = child.id, .vp = vp});
}

static unsigned delete_index(uint64_t partition, uint32_t vp)
{
    struct hv_in_delete_vp input = {.partition = partition, .vp = vp};
    return hvcall_delete_vp(&input, NULL);
}

static uint64_t own_partition(void)
{
    struct hv_out_get_partition_id output;
    HV_MUST(hvcall_get_partition_id(NULL, &output));
    return output.partition;
}

CHECK(indices, "10.1.1, 10.4.1: below the maximum, each once, in any order and with gaps")
{
    uint32_t limit = cpuid(LEAF_LIMITS, 0).eax;
    begin(0);
    REQUIRE(limit > 0);
    EXPECT_EQ(create_index(limit), HV_STATUS_INVALID_VP_INDEX);
    EXPECT_EQ(create_index(HV_ANY_VP), HV_STATUS_INVALID_VP_INDEX);
    EXPECT_EQ(create_index(limit - 1), HV_STATUS_SUCCESS);
    EXPECT_EQ(create_index(3), HV_STATUS_SUCCESS);
    EXPECT_EQ(create_index(0), HV_STATUS_SUCCESS); /* 10.1.5: the boot processor at any time */
    EXPECT_EQ(create_index(3), HV_STATUS_INVALID_VP_INDEX);
    EXPECT_EQ(create_index(limit - 1), HV_STATUS_INVALID_VP_INDEX);
    EXPECT_EQ(try_get(child.id, 2, HV_REGISTER_Rip), HV_STATUS_INVALID_VP_INDEX);
    EXPECT_EQ(try_get(child.id, 3, HV_REGISTER_Rip), HV_STATUS_SUCCESS);
}

#define PROXIMITY_VALID (UINT64_C(1) << 63)

CHECK(creation_is_refused, "10.4.1: flags, proximity domain, and whose partition it is")
{
    begin(0);
    EXPECT_EQ(create(&(struct creation){.partition = child.id, .flags = 1}), HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(create(&(struct creation){.partition = child.id, .proximity = PROXIMITY_VALID | UINT64_C(1) << 40}),
              HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(create(&(struct creation){.partition = child.id, .proximity = PROXIMITY_VALID | 77}),
              HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(create(&(struct creation){.partition = own_partition(), .vp = 63}), HV_STATUS_ACCESS_DENIED);
    EXPECT_EQ(create(&(struct creation){.partition = 0x7777}), HV_STATUS_INVALID_PARTITION_ID);
    EXPECT_EQ(try_get(child.id, 0, HV_REGISTER_Rip), HV_STATUS_INVALID_VP_INDEX);
    struct hv_in_finalize_partition finalize = {.partition = child.id};
    HV_MUST(hvcall_finalize_partition(&finalize, NULL));
    EXPECT_EQ(create_index(0), HV_STATUS_INVALID_PARTITION_STATE);
}

static uint64_t available(void)
{
    struct hv_in_get_memory_balance input = {.partition = child.id};
    struct hv_out_get_memory_balance output;
    HV_MUST(hvcall_get_memory_balance(&input, &output));
    return output.available;
}

CHECK(memory_of_vps, "10.4.1, 10.4.2: a VP costs its partition's pool pages, which come back when it is deleted")
{
    begin(0);
    uint64_t before = available();
    HV_MUST(create_index(0));
    EXPECT(available() < before);
    HV_MUST(delete_index(child.id, 0));
    EXPECT_EQ(available(), before);
    partition_withdraw(child.id);
    EXPECT_EQ(create_index(0), HV_STATUS_INSUFFICIENT_MEMORY);
    partition_deposit(child.id, 64);
    EXPECT_EQ(create_index(0), HV_STATUS_SUCCESS);
}

CHECK(reserve_is_exceeded, "10.4.1, 18.2: as many VPs as whole processors can be reserved, and no more")
{
    begin(0);
    child_set_property(&child, HV_PROPERTY_CPU_RESERVE, 0x10000);
    for (unsigned i = 0; i < cpu_count(); i++) {
        EXPECT_EQ(create_index(i), HV_STATUS_SUCCESS);
    }
    EXPECT_EQ(create_index(cpu_count()), HV_STATUS_OPERATION_DENIED);
    child_set_property(&child, HV_PROPERTY_CPU_RESERVE, 0);
    EXPECT_EQ(create_index(cpu_count()), HV_STATUS_SUCCESS);
}

/* -- HvDeleteVp (10.4.2) -- */

CHECK(deletion, "10.4.2: statuses; the index is free again, and a new VP has nothing of the old one")
{
    begin(2);
    EXPECT_EQ(delete_index(child.id, 2), HV_STATUS_INVALID_VP_INDEX);
    EXPECT_EQ(delete_index(0x7777, 0), HV_STATUS_INVALID_PARTITION_ID);
    EXPECT_EQ(delete_index(own_partition(), 0), HV_STATUS_ACCESS_DENIED);
    set(HV_REGISTER_Rbx, 0x1234);
    set(HV_REGISTER_Dr0, 0x1000);
    set(HV_REGISTER_Simp, 0x3F001);
    set(HV_REGISTER_PendingInterruption, HV_PENDING | HV_PENDING_EXCEPTION | HV_PENDING_VECTOR(VECTOR_UD));
    set(HV_REGISTER_InterruptState, 3);
    child_resume(&child, 0); /* and it may be running */
    EXPECT_EQ(delete_index(child.id, 0), HV_STATUS_SUCCESS);
    EXPECT_EQ(delete_index(child.id, 0), HV_STATUS_INVALID_VP_INDEX);
    EXPECT_EQ(try_get(child.id, 0, HV_REGISTER_Rip), HV_STATUS_INVALID_VP_INDEX);
    HV_MUST(create_index(0));
    EXPECT_EQ(get(HV_REGISTER_Rbx), 0);
    EXPECT_EQ(get(HV_REGISTER_Dr0), 0);
    EXPECT_EQ(get(HV_REGISTER_Simp), 0);
    EXPECT_EQ(get(HV_REGISTER_PendingInterruption), 0);
    EXPECT_EQ(get(HV_REGISTER_InterruptState), 0);
    EXPECT_EQ(get(HV_REGISTER_ExplicitSuspend), 1);
    EXPECT_EQ(get(HV_REGISTER_InterceptSuspend), 0);
    EXPECT_EQ(child_get_register(&child, 1, HV_REGISTER_ExplicitSuspend), 1);
    struct hv_in_finalize_partition finalize = {.partition = child.id};
    HV_MUST(hvcall_finalize_partition(&finalize, NULL));
    EXPECT_EQ(delete_index(child.id, 0), HV_STATUS_INVALID_PARTITION_STATE);
}

/* -- The state after creation (10.4.1: that of a processor after reset) -- */

static const struct {
    uint32_t name;
    uint64_t value;
} reset_values[] = {
    {HV_REGISTER_ExplicitSuspend, 1},
    {HV_REGISTER_InterceptSuspend, 0},
    {HV_REGISTER_PendingInterruption, 0},
    {HV_REGISTER_InterruptState, 0},
    {HV_REGISTER_Rax, 0},
    {HV_REGISTER_Rcx, 0},
    {HV_REGISTER_Rbx, 0},
    {HV_REGISTER_Rsp, 0},
    {HV_REGISTER_Rbp, 0},
    {HV_REGISTER_Rsi, 0},
    {HV_REGISTER_Rdi, 0},
    {HV_REGISTER_R8, 0},
    {HV_REGISTER_R15, 0},
    {HV_REGISTER_Rip, RESET_RIP},
    {HV_REGISTER_Rflags, RFLAGS_FIXED},
    {HV_REGISTER_Cr0, 0x60000010},
    {HV_REGISTER_Cr2, 0},
    {HV_REGISTER_Cr3, 0},
    {HV_REGISTER_Cr4, 0},
    {HV_REGISTER_Cr8, 0},
    {HV_REGISTER_Xfem, 1},
    {HV_REGISTER_Dr0, 0},
    {HV_REGISTER_Dr3, 0},
    {HV_REGISTER_Dr6, 0xFFFF0FF0},
    {HV_REGISTER_Dr7, 0x400},
    {HV_REGISTER_Efer, 0},
    {HV_REGISTER_KernelGsBase, 0},
    {HV_REGISTER_Pat, 0x0007040600070406},
    {HV_REGISTER_SysenterCs, 0},
    {HV_REGISTER_Lstar, 0},
    {HV_REGISTER_Star, 0},
    {HV_REGISTER_MtrrDefType, 0},
    {HV_REGISTER_Hypercall, 0},
    {HV_REGISTER_GuestOsId, 0},
    {HV_REGISTER_VpRuntime, 0},
    {HV_REGISTER_ApicAssistPage, 0},
    {HV_REGISTER_Sint0, 0x10000},
    {HV_REGISTER_Sint15, 0x10000},
    {HV_REGISTER_Scontrol, 0},
    {HV_REGISTER_Simp, 0},
    {HV_REGISTER_Siefp, 0},
    {HV_REGISTER_Stimer0Config, 0},
    {HV_REGISTER_Stimer3Count, 0},
};

CHECK(reset_state, "10.4.1: the registers of a new VP, boot processor or not")
{
    begin(2);
    for (unsigned vp = 0; vp < 2; vp++) {
        for (unsigned i = 0; i < sizeof(reset_values) / sizeof(reset_values[0]); i++) {
            uint64_t value = child_get_register(&child, vp, reset_values[i].name);
            EXPECT_THAT(value == reset_values[i].value, "VP %u, register %x: %llx", vp, reset_values[i].name,
                        (unsigned long long)value);
        }
        EXPECT_EQ(child_get_register(&child, vp, HV_REGISTER_Rdx), cpuid(1, 0).eax); /* the processor's signature */
        EXPECT_EQ(child_get_register(&child, vp, HV_REGISTER_VpIndex), vp);
        EXPECT_EQ(child_get_register(&child, vp, HV_REGISTER_InitialApicId), vp); /* 10.1.6 */
        EXPECT_EQ(child_get_register(&child, vp, HV_REGISTER_ApicBase), vp ? 0xFEE00800 : 0xFEE00900); /* 10.1.5 */
    }
    EXPECT_EQ(get_wide(HV_REGISTER_XmmControlStatus).words[1] & 0xFFFFFFFF, 0x1F80);
}

CHECK(reset_segments, "10.4.1: segments and tables of a new VP")
{
    static const struct {
        uint32_t name;
        uint16_t selector, attributes;
        uint64_t base;
    } segments[] = {
        {HV_REGISTER_Es, 0, 0x93, 0},   {HV_REGISTER_Cs, 0xF000, 0x9B, 0xFFFF0000},
        {HV_REGISTER_Ss, 0, 0x93, 0},   {HV_REGISTER_Ds, 0, 0x93, 0},
        {HV_REGISTER_Fs, 0, 0x93, 0},   {HV_REGISTER_Gs, 0, 0x93, 0},
        {HV_REGISTER_Ldtr, 0, 0x82, 0}, {HV_REGISTER_Tr, 0, 0x8B, 0},
    };
    begin(1);
    for (unsigned i = 0; i < sizeof(segments) / sizeof(segments[0]); i++) {
        struct hv_segment segment = get_segment(segments[i].name);
        EXPECT_EQ(segment.selector, segments[i].selector);
        EXPECT_EQ(segment.base, segments[i].base);
        EXPECT_EQ(segment.limit, 0xFFFF);
        EXPECT_EQ(segment.attributes, segments[i].attributes);
    }
    EXPECT_EQ(get_wide(HV_REGISTER_Gdtr).table.limit, 0xFFFF);
    EXPECT_EQ(get_wide(HV_REGISTER_Gdtr).table.base, 0);
    EXPECT_EQ(get_wide(HV_REGISTER_Idtr).table.limit, 0xFFFF);
    EXPECT_EQ(get_wide(HV_REGISTER_Idtr).table.base, 0);
}

/* -- Beginning to execute -- */

CHILD_PROGRAM(say_reset, 16, "mov $0x42, %al; out %al, $0x80; hlt")

static void put_reset_code(void)
{
    uint8_t *page = (uint8_t *)child_add_memory(&child, RESET_PAGE, PAGE_SIZE);
    memcpy(page + (RESET_RIP & 0xFFF), say_reset, (size_t)(say_reset_end - say_reset));
}

CHECK(boot_processor_begins, "10.1.5, 10.4.1, 11.4: at the reset vector, once it is not suspended any more")
{
    struct intercept intercept;
    begin(1);
    put_reset_code();
    EXPECT(!intercept_receive(&intercept, 2000));
    child_resume(&child, 0);
    EXPECT_EQ(said(), 0x42);
    EXPECT_EQ(get(HV_REGISTER_Rip), RESET_RIP + 2);
    EXPECT_EQ(get_segment(HV_REGISTER_Cs).base, 0xFFFF0000);
}

CHILD_PROGRAM(say_started, 16, "mov $0x43, %al; out %al, $0x80; 1: inc %bx; jmp 1b")

CHECK(application_processor_waits, "10.4.1, 13.5.1: for a start-up interrupt, whatever its registers say")
{
    struct intercept intercept;
    begin(2);
    put_reset_code();
    PUT_AT(START_GPA, say_started);
    child_resume(&child, 1);
    EXPECT(!intercept_receive(&intercept, 5000));
    EXPECT_EQ(child_get_register(&child, 1, HV_REGISTER_Rip), RESET_RIP);
    HV_MUST(child_assert_interrupt(&child, HV_INTERRUPT_SIPI, 1, START_GPA >> 12));
    EXPECT_EQ(said(), 0x43);
    EXPECT_EQ(last_said.vp, 1);
    EXPECT_EQ(intercept_header(&last_said)->cs.selector, START_GPA >> 4);
    EXPECT_EQ(intercept_header(&last_said)->cs.base, START_GPA);
    go_on();
    /* One that runs takes no notice of another. */
    HV_MUST(child_assert_interrupt(&child, HV_INTERRUPT_SIPI, 1, 0x77));
    clock_delay(2000);
    child_suspend(&child, 1);
    EXPECT_EQ(child_get_register(&child, 1, HV_REGISTER_Cr2), 0);
    uint32_t name = HV_REGISTER_Cs;
    union hv_register_value cs;
    child_get_registers(&child, 1, &name, &cs, 1);
    EXPECT_EQ(cs.segment.base, START_GPA);
}

CHECK(start_up_comes_before_resumption, "10.1.3, 13.5.1: a VP that is suspended remembers it")
{
    struct intercept intercept;
    begin(2);
    PUT_AT(START_GPA, say_started);
    HV_MUST(child_assert_interrupt(&child, HV_INTERRUPT_SIPI, 1, START_GPA >> 12));
    EXPECT(!intercept_receive(&intercept, 2000));
    child_resume(&child, 1);
    EXPECT_EQ(said(), 0x43);
}

CHECK(init_by_the_parent, "13.5.1, 10.1.5: registers are those after INIT; the boot processor begins again at once")
{
    begin(2);
    put_reset_code();
    PUT_AT(START_GPA, say_started);
    child_resume(&child, 1);
    HV_MUST(child_assert_interrupt(&child, HV_INTERRUPT_SIPI, 1, START_GPA >> 12));
    EXPECT_EQ(said(), 0x43);
    go_on();
    HV_MUST(child_assert_interrupt(&child, HV_INTERRUPT_INIT, 1, 0));
    REQUIRE(WAIT_UNTIL(child_get_register(&child, 1, HV_REGISTER_Rip) == RESET_RIP, SOON));
    EXPECT_EQ(child_get_register(&child, 1, HV_REGISTER_Rbx), 0);
    clock_delay(2000);
    EXPECT_EQ(child_get_register(&child, 1, HV_REGISTER_Rip), RESET_RIP);
    HV_MUST(child_assert_interrupt(&child, HV_INTERRUPT_SIPI, 1, START_GPA >> 12));
    EXPECT_EQ(said(), 0x43);
    PUT16(0, say_started);
    child_resume(&child, 0);
    EXPECT_EQ(said(), 0x43);
    go_on();
    HV_MUST(child_assert_interrupt(&child, HV_INTERRUPT_INIT, 0, 0));
    EXPECT_EQ(said(), 0x42);
    EXPECT_EQ(last_said.vp, 0);
}

#define AP_COUNT 3
CHILD_PROGRAM(start_others, 64,
              "mov $0xFEE00000, %edi; movl $0x1FF, 0xF0(%rdi); movl $0xC4500, 0x300(%rdi); mov $20000, %ecx;"
              "1: pause; loop 1b; movl $0xC4606, 0x300(%rdi); 2: pause; cmpl $3, 0x7000; jne 2b; out %al, $0x80; hlt")
CHILD_PROGRAM(count_me, 16, "lock incl 0x7000; 1: hlt; jmp 1b")

CHECK(vps_start_each_other, "13.3.2: INIT and start-up to all others, from one of a child's VPs")
{
    begin(1 + AP_COUNT);
    PUT_AT(START_GPA, count_me);
    for (unsigned i = 1; i <= AP_COUNT; i++) {
        child_resume(&child, i);
    }
    PUT64(0, start_others);
    child_resume(&child, 0);
    said();
    EXPECT_EQ(*(uint32_t *)data_at(DATA_GPA), AP_COUNT);
    for (unsigned i = 1; i <= AP_COUNT; i++) {
        EXPECT_EQ(child_get_register(&child, i, HV_REGISTER_Cr0) & CR0_PE, 0);
    }
}

/* -- Modes (11.4, 12.4.4): a page of another address in each of the forms of paging -- */

CHILD_PROGRAM(use_far, 32, "mov 0xC0000010, %al; out %al, $0x80; movl $0x12345678, 0xC0000014; out %al, $0x80; hlt")
CHILD_PROGRAM(use_far64, 64,
              "movabs $0xFFFF8000C0000010, %rsi; mov (%rsi), %al; out %al, $0x80; movl $0x12345678, 4(%rsi);"
              "out %al, $0x80; hlt")
#define ENTRY_FLAGS (PTE_P | PTE_W)
#define FAR_VA 0xC0000000u

static void expect_far_access(uint64_t cr4)
{
    set(HV_REGISTER_Cr4, cr4);
    set(HV_REGISTER_Cr3, TABLES_GPA + PAGE_SIZE);
    set(HV_REGISTER_Cr0, get(HV_REGISTER_Cr0) | CR0_PG);
    *(uint8_t *)data_at(FAR_GPA + 0x10) = 0x5A;
    child_resume(&child, 0);
    EXPECT_EQ(said(), 0x5A);
    go_on();
    said();
    EXPECT_EQ(*(uint32_t *)data_at(FAR_GPA + 0x14), 0x12345678);
}

CHECK(two_level_paging, "11: 32-bit code with page tables of 32-bit entries")
{
    begin(1);
    PUT32(0, use_far);
    uint32_t *directory = data_at(TABLES_GPA + PAGE_SIZE), *table = data_at(TABLES_GPA + 2 * PAGE_SIZE);
    directory[0] = PTE_LARGE | ENTRY_FLAGS;
    directory[FAR_VA >> 22] = (TABLES_GPA + 2 * PAGE_SIZE) | ENTRY_FLAGS;
    table[0] = FAR_GPA | ENTRY_FLAGS;
    expect_far_access(CR4_PSE);
    EXPECT_EQ(table[0], FAR_GPA | ENTRY_FLAGS | PTE_A | PTE_D);
}

CHECK(three_level_paging, "11: 32-bit code with PAE")
{
    begin(1);
    PUT32(0, use_far);
    uint64_t *pointers = data_at(TABLES_GPA + PAGE_SIZE), *low = data_at(TABLES_GPA + 2 * PAGE_SIZE);
    uint64_t *high = data_at(TABLES_GPA + 3 * PAGE_SIZE);
    pointers[0] = (TABLES_GPA + 2 * PAGE_SIZE) | PTE_P;
    pointers[FAR_VA >> 30] = (TABLES_GPA + 3 * PAGE_SIZE) | PTE_P;
    low[0] = PTE_LARGE | ENTRY_FLAGS;
    high[0] = FAR_GPA | PTE_LARGE | ENTRY_FLAGS;
    expect_far_access(CR4_PAE);
    EXPECT_EQ(high[0], FAR_GPA | PTE_LARGE | ENTRY_FLAGS | PTE_A | PTE_D);
}

CHECK(four_level_paging, "11: 64-bit code, in the upper half of the address space")
{
    begin(1);
    PUT64(0, use_far64);
    uint64_t *top = data_at(TABLES_GPA + PAGE_SIZE), *pointers = data_at(TABLES_GPA + 2 * PAGE_SIZE);
    uint64_t *directory = data_at(0x40000), *table = data_at(0x41000);
    top[256] = (TABLES_GPA + 2 * PAGE_SIZE) | ENTRY_FLAGS;
    pointers[FAR_VA >> 30] = 0x40000 | ENTRY_FLAGS;
    directory[0] = 0x41000 | ENTRY_FLAGS;
    table[0] = FAR_GPA | ENTRY_FLAGS;
    expect_far_access(CR4_PAE);
    EXPECT_EQ(table[0], FAR_GPA | ENTRY_FLAGS | PTE_A | PTE_D);
}

CHILD_PROGRAM(climb, 16, "lgdtl %cs:(0x100); mov %cr0, %eax; or $1, %al; mov %eax, %cr0; ljmpl $0x10, $0x5000")
CHILD_PROGRAM(climb32, 32,
              "mov $0x18, %ax; mov %ax, %ds; mov %ax, %ss; mov %cr4, %eax; or $0x20, %eax; mov %eax, %cr4;"
              "mov $0x9000, %eax; mov %eax, %cr3; mov $0xC0000080, %ecx; rdmsr; or $0x100, %eax; wrmsr;"
              "mov %cr0, %eax; or $0x80000000, %eax; mov %eax, %cr0; ljmpl $0x20, $0x6000")
CHILD_PROGRAM(climb64, 64, "mov $0x42, %al; shl $40, %rax; shr $40, %rax; out %al, $0x80; hlt")

CHECK(real_to_long_mode, "11.4: a child that goes through all modes itself; the parent sees where it has come to")
{
    begin(1);
    PUT16(0, climb);
    PUT_AT(HANDLER_GPA, climb32);
    PUT_AT(START_GPA, climb64);
    child_make_gdt(&child, 0, TABLES_GPA, false);
    child_make_page_tables(&child, TABLES_GPA + PAGE_SIZE, 4);
    uint64_t *gdt = data_at(TABLES_GPA);
    gdt[4] = 0x00AF9B000000FFFF;
    uint8_t *pointer = data_at(CODE_GPA + 0x100);
    *(uint16_t *)pointer = 0x27;
    memcpy(pointer + 2, &(uint32_t){TABLES_GPA}, 4);
    child_resume(&child, 0);
    EXPECT_EQ(said(), 0x42);
    EXPECT_EQ(get(HV_REGISTER_Efer), EFER_LME | EFER_LMA);
    EXPECT_EQ(get(HV_REGISTER_Cr3), TABLES_GPA + PAGE_SIZE);
    EXPECT_EQ(get_segment(HV_REGISTER_Cs).attributes, 0xA09B);
    EXPECT_EQ(get_segment(HV_REGISTER_Ds).attributes, 0xC093);
    EXPECT(intercept_header(&last_said)->execution_state & HV_STATE_LMA);
}

/* -- Values that only together are wrong (10.1.2) -- */

CHILD_PROGRAM(say_agreed, 64, "mov $0x62, %al; out %al, $0x80; hlt")

static void expect_disagreement(uint32_t name, union hv_register_value wrong)
{
    begin(1);
    PUT64(0, say_agreed);
    union hv_register_value right = get_wide(name);
    set_wide(name, wrong);
    child_resume(&child, 0);
    struct intercept intercept = next_message(HV_MESSAGE_InvalidVpRegisterValue);
    EXPECT_EQ(intercept.vp, 0);
    EXPECT_EQ(intercept.partition, child.id);
    EXPECT_EQ(get(HV_REGISTER_InterceptSuspend), HV_SUSPEND_INTERCEPT);
    EXPECT_EQ(get(HV_REGISTER_Rip), name == HV_REGISTER_Rip ? wrong.u64 : CODE_GPA);
    set(HV_REGISTER_InterceptSuspend, 0);
    next_message(HV_MESSAGE_InvalidVpRegisterValue); /* nothing was put right */
    set_wide(name, right);
    set(HV_REGISTER_InterceptSuspend, 0);
    EXPECT_EQ(said(), 0x62);
    child_delete(&child);
}

CHECK(registers_disagree, "10.1.2: found when the VP goes on; it is suspended, and its parent puts them right")
{
    const struct hv_segment code = {.limit = UINT32_MAX, .selector = CHILD_CODE, .attributes = 0xE09B};
    expect_disagreement(HV_REGISTER_Cr4, (union hv_register_value){.u64 = 0}); /* long mode without PAE */
    expect_disagreement(HV_REGISTER_Cs, (union hv_register_value){.segment = code}); /* L and D */
    expect_disagreement(HV_REGISTER_Rflags, (union hv_register_value){.u64 = RFLAGS_FIXED | 0x20000}); /* VM */
}

CHECK(address_without_its_mode, "10.1.2: an instruction pointer of more than 32 bits, outside of 64-bit code")
{
    begin(1);
    PUT32(0, say_agreed);
    set(HV_REGISTER_Rip, UINT64_C(1) << 32 | CODE_GPA);
    child_resume(&child, 0);
    next_message(HV_MESSAGE_InvalidVpRegisterValue);
    set(HV_REGISTER_Rip, CODE_GPA);
    set(HV_REGISTER_InterceptSuspend, 0);
    EXPECT_EQ(said(), 0x62);
}

/* -- Suspension (10.1.3, 10.3.1) -- */

CHILD_PROGRAM(say_twice, 64, "out %al, $0x80; 1: inc %rbx; jmp 1b")

static bool runs(void)
{
    uint64_t before = get(HV_REGISTER_Rbx);
    clock_delay(3000);
    return get(HV_REGISTER_Rbx) != before;
}

CHECK(both_reasons_must_go, "10.1.3: a VP runs when it is suspended neither explicitly nor by an intercept")
{
    for (unsigned first = 0; first < 2; first++) {
        begin(1);
        PUT64(0, say_twice);
        child_resume(&child, 0);
        said();
        child_suspend(&child, 0);
        set(HV_REGISTER_Rip, CODE_GPA + 2);
        EXPECT_EQ(get(HV_REGISTER_ExplicitSuspend), 1);
        EXPECT_EQ(get(HV_REGISTER_InterceptSuspend), 1);
        set(first ? HV_REGISTER_ExplicitSuspend : HV_REGISTER_InterceptSuspend, 0);
        EXPECT(!runs());
        set(first ? HV_REGISTER_InterceptSuspend : HV_REGISTER_ExplicitSuspend, 0);
        REQUIRE(WAIT_UNTIL(get(HV_REGISTER_Rbx) > 0, SOON));
        child_delete(&child);
    }
}

CHILD_PROGRAM(sleep, 64, "1: sti; hlt; jmp 1b")
CHILD_PROGRAM(say_once, 64, "out %al, $0x80; iretq")

CHECK(suspended_while_it_waits, "10.1.3: a VP at HLT is suspended too, and takes its interrupt when it goes on")
{
    struct intercept intercept;
    begin(1);
    PUT64(0, sleep);
    PUT_AT(HANDLER_GPA, say_once);
    set_gate64(VECTOR_NMI, HANDLER_GPA);
    use_idt64();
    child_resume(&child, 0);
    REQUIRE(WAIT_UNTIL(get(HV_REGISTER_Rip) == CODE_GPA + 2, SOON));
    child_suspend(&child, 0);
    HV_MUST(child_assert_interrupt(&child, HV_INTERRUPT_NMI, 0, 0));
    EXPECT(!intercept_receive(&intercept, 2000));
    child_resume(&child, 0);
    said();
}

/* -- Registers of a VP that runs (10.4.3, 10.4.4) -- */

CHILD_PROGRAM(count_up, 64, "1: inc %rbx; jmp 1b")

/* Where VPs take turns on one host thread each round can take as long as a turn. */
static unsigned rounds_to_do(void)
{
    char text[16];
    bool turns = guest_option("threads", text, sizeof(text)) && text_equal(text, "single");
    return turns ? 10 : 300;
}

CHECK(registers_of_a_running_vp, "10.4.3: the call waits until the VP has stopped, and it goes on afterwards")
{
    begin(1);
    PUT64(0, count_up);
    set(HV_REGISTER_R8, 0x1234);
    child_resume(&child, 0);
    uint64_t last = 0;
    for (unsigned i = 0; i < rounds_to_do(); i++) {
        uint64_t now = get(HV_REGISTER_Rbx);
        EXPECT(now >= last);
        last = now;
        set(HV_REGISTER_R8, i);
        EXPECT_EQ(get(HV_REGISTER_R8), i);
    }
    REQUIRE(WAIT_UNTIL(get(HV_REGISTER_Rbx) > last, SOON));
    set(HV_REGISTER_Rbx, UINT64_C(1) << 40);
    EXPECT(get(HV_REGISTER_Rbx) >= UINT64_C(1) << 40);
}

static void write_and_read(void *argument)
{
    uint32_t name = *(const uint32_t *)argument;
    unsigned rounds = rounds_to_do();
    for (unsigned i = 0; i < rounds && !check_failed(); i++) {
        set(name, i * 0x10001);
        EXPECT_EQ(get(name), i * 0x10001);
    }
}

CHECK(two_parents_of_one_vp, "10.4.3, 10.4.4: calls of two processors that each want the VP to stop", .min_vps = 2)
{
    static const uint32_t names[] = {HV_REGISTER_R8, HV_REGISTER_R9};
    begin(1);
    PUT64(0, count_up);
    child_resume(&child, 0);
    smp_start(1, write_and_read, (void *)&names[1]);
    write_and_read((void *)&names[0]);
    EXPECT(smp_wait(1, 2 * SOON));
    uint64_t before = get(HV_REGISTER_Rbx);
    EXPECT(WAIT_UNTIL(get(HV_REGISTER_Rbx) > before, SOON));
}

static volatile bool stop;

static bool is_gone(unsigned status)
{
    return status == HV_STATUS_INVALID_VP_INDEX || status == HV_STATUS_INVALID_PARTITION_ID ||
           status == HV_STATUS_INVALID_PARTITION_STATE;
}

#define EXPECT_DONE_OR_GONE(call)                                                                                      \
    do {                                                                                                               \
        unsigned status_ = (call);                                                                                     \
        EXPECT_THAT(status_ == HV_STATUS_SUCCESS || is_gone(status_), "%s: %s", #call, hv_status_name(status_));       \
    } while (0)

/* Whatever may be asked of a VP, again and again. */
static void bother_vp(void *argument)
{
    const uint64_t partition = *(const uint64_t *)argument;
    const struct hv_in_set_vp_registers where = {.partition = partition, .vp = 0};
    const struct hv_register_assignment list[] = {{.name = HV_REGISTER_R8, .value.u64 = 5},
                                                  {.name = HV_REGISTER_Cr3, .value.u64 = TABLES_GPA + PAGE_SIZE},
                                                  {.name = HV_REGISTER_ExplicitSuspend}};
    const struct hv_in_translate_virtual_address translate = {
        .partition = partition, .flags = HV_TRANSLATE_READ, .gva_page = CODE_GPA / PAGE_SIZE};
    const struct hv_in_read_gpa read = {.partition = partition, .bytes = 8, .gpa = CODE_GPA};
    struct hv_out_translate_virtual_address translated;
    struct hv_out_read_gpa data;
    while (!stop && !check_failed()) {
        EXPECT_DONE_OR_GONE(hvcall_set_vp_registers(&where, list, NULL, 3, NULL));
        EXPECT_DONE_OR_GONE(try_get(partition, 0, HV_REGISTER_Rbx));
        EXPECT_DONE_OR_GONE(hvcall_translate_virtual_address(&translate, &translated));
        EXPECT_DONE_OR_GONE(hvcall_read_gpa(&read, &data));
    }
}

CHECK(vp_is_deleted_meanwhile, "10.4.2: calls about a VP that another processor deletes and creates again",
      .min_vps = 2)
{
    begin(1);
    stop = false;
    PUT64(0, count_up);
    smp_start(1, bother_vp, &child.id);
    for (unsigned i = 0; i < rounds_to_do() / 3; i++) {
        HV_MUST(delete_index(child.id, 0));
        HV_MUST(create_index(0));
        PUT64(0, count_up);
    }
    stop = true;
    EXPECT(smp_wait(1, 2 * SOON));
    EXPECT_EQ(try_get(child.id, 0, HV_REGISTER_Rbx), HV_STATUS_SUCCESS);
}

CHECK(partition_is_deleted_meanwhile, "5.4, 10.4.2: and about one whose partition goes", .min_vps = 2)
{
    for (unsigned i = 0; i < 4; i++) {
        begin(1);
        stop = false;
        PUT64(0, count_up);
        child_resume(&child, 0);
        uint64_t id = child.id;
        smp_start(1, bother_vp, &id);
        clock_delay(500 * i);
        child_delete(&child);
        stop = true;
        REQUIRE(smp_wait(1, 2 * SOON));
        EXPECT_EQ(try_get(id, 0, HV_REGISTER_Rbx), HV_STATUS_INVALID_PARTITION_ID);
    }
}
