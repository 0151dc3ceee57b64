/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 21 and appendix J: the root maps the pages of all kinds of objects, and sees each counter move by what
 * it or its child does.
 *
 * A child's program says something before and after what is counted; meanwhile it is suspended, so that its counters
 * stand still. That is one OUT and one message of its own.
 */
#include "programs.h"

#define HYPERCALL_GPA 0x40000u
#define MESSAGES_GPA 0x41000u
#define BEYOND 0x800000u /* page tables have it, the GPA space has not */
#define STATS_VAS VM_TEST_BASE
#define VECTOR 0x51
#define VECTOR_SINT 0x52
#define TIMES 5u
#define TIMES_TEXT "5"
#define REFRESHED 50000u /* us: times go on every 10 ms */
#define COUNTERS 64u
#define CR4_MCE 0x40u
#define MSR_MCG_STATUS 0x17Au
#define MSR_C1_TRIGGER 0x400000C1u
#define PARTITION_SELF UINT64_MAX

/* -- Pages -- */

struct hv_in_unmap_stats_page root_vp = {.type = HV_STATS_OBJECT_VP, .object = PARTITION_SELF, .flags = HV_STATS_SELF};

static struct hv_in_unmap_stats_page lp_object(unsigned number)
{
    return (struct hv_in_unmap_stats_page){.type = HV_STATS_OBJECT_LOGICAL_PROCESSOR, .object = number};
}

static struct hv_in_unmap_stats_page child_object(uint32_t type)
{
    return (struct hv_in_unmap_stats_page){.type = type, .object = child.id};
}

/* Where the caller wants it. */
static unsigned map_at(const struct hv_in_unmap_stats_page *object, uint64_t page)
{
    if (root_is_2008r2()) {
        struct hv_in_map_stats_page_2008r2 input = {*object, page};
        return hvcall_map_stats_page_2008r2(&input, NULL);
    }
    struct hv_in_map_stats_page2_current input = {*object, page};
    return hvcall_map_stats_page2_current(&input, NULL);
}

/* A page of its own for it; the counters of the first group. */
static volatile uint64_t *show(struct hv_in_unmap_stats_page object)
{
    void *place = page_alloc(1);
    HV_MUST(map_at(&object, (uintptr_t)place / PAGE_SIZE));
    return place;
}

/* A processor that does not take them, or still has one in hand, shuts down. */
static void allow_machine_check(void)
{
    write_cr4(read_cr4() | CR4_MCE);
    wrmsr(MSR_MCG_STATUS, 0);
}

/* The second group's header, so that an index is a counter. */
static volatile uint64_t *second_group(volatile uint64_t *page)
{
    return page + 1 + (page[0] >> 48) / 8;
}

static unsigned unmap(struct hv_in_unmap_stats_page object)
{
    return hvcall_unmap_stats_page(&object, NULL);
}

/* Whatever a check leaves: a child's go with it. */
void guest_cleanup(void)
{
    static const struct hv_in_unmap_stats_page own_partition = {
        .type = HV_STATS_OBJECT_PARTITION, .object = PARTITION_SELF, .flags = HV_STATS_SELF};
    unmap((struct hv_in_unmap_stats_page){.type = HV_STATS_OBJECT_HYPERVISOR});
    for (unsigned i = 0; i < cpu_count(); i++) {
        unmap(lp_object(i));
    }
    unmap(own_partition);
    unmap(root_vp);
    apic_write(APIC_LVT_TIMER, 0x10000);
    root_reset_state();
}

#define HEADER(id, counters) ((uint64_t)(id) | UINT64_C(0x10000) << 16 | (uint64_t)(counters)*8 << 48)

CHECK(pages, "21.1.2, 21.1.3, 21.3.1: pages of all kinds of objects, with their groups")
{
    unsigned architected = root_is_2008r2() ? 2 : 5;
    begin(1);
    volatile uint64_t *hypervisor = show((struct hv_in_unmap_stats_page){.type = HV_STATS_OBJECT_HYPERVISOR});
    volatile uint64_t *lp = show(lp_object(0));
    volatile uint64_t *partition = show(child_object(HV_STATS_OBJECT_PARTITION));
    volatile uint64_t *vp = show(child_object(HV_STATS_OBJECT_VP));
    EXPECT_EQ(hypervisor[0], HEADER(2, 5));
    EXPECT_EQ(hypervisor[6], 0);
    EXPECT_EQ(lp[0], HEADER(2, 18));
    EXPECT_EQ(lp[19], 0);
    EXPECT_EQ(partition[0], HEADER(2, 1));
    EXPECT_EQ(partition[2], HEADER(3, 7));
    EXPECT_EQ(partition[10], 0);
    EXPECT_EQ(vp[0], HEADER(2, architected));
    EXPECT_EQ(vp[1 + architected], HEADER(3, 63));
    EXPECT_EQ(vp[1 + architected + 64], 0);
}

CHECK(pool_page, "21.3.1, later: the hypervisor chooses a page of the root's pool, until it is unmapped",
      .generations = GENERATION_CURRENT)
{
    begin(1);
    struct hv_in_map_stats_page_current input = {child_object(HV_STATS_OBJECT_VP)};
    struct hv_out_map_stats_page_current output;
    EXPECT_EQ(hvcall_map_stats_page_current(&input, &output), HV_STATUS_INSUFFICIENT_MEMORY);
    partition_deposit(PARTITION_SELF, 1);
    HV_MUST(hvcall_map_stats_page_current(&input, &output));
    vm_map(vm_root(), STATS_VAS, output.page * PAGE_SIZE, PTE_P);
    write_cr3(read_cr3());
    volatile uint64_t *page = (volatile uint64_t *)STATS_VAS;
    EXPECT_EQ(page[0], HEADER(2, 5));
    EXPECT_EQ(hvcall_map_stats_page_current(&input, &output), HV_STATUS_OPERATION_DENIED);
    HV_MUST(unmap(input.object));
    allow_machine_check();
    EXPECT_FAULT(VECTOR_MC, (void)page[0]); /* the hypervisor has it again */
    EXPECT_EQ(unmap(input.object), HV_STATUS_OPERATION_DENIED);
}

CHECK(unmapped, "21.1.2, 21.3.2, 8.1.3: a write is #MC and changes nothing; unmapped, what is beneath comes back")
{
    begin(1);
    volatile uint64_t *beneath = page_alloc(1);
    beneath[0] = 0x1234;
    HV_MUST(
        map_at(&(struct hv_in_unmap_stats_page){.type = HV_STATS_OBJECT_HYPERVISOR}, (uintptr_t)beneath / PAGE_SIZE));
    EXPECT_EQ(beneath[0], HEADER(2, 5));
    allow_machine_check();
    EXPECT_FAULT(VECTOR_MC, beneath[0] = 1);
    EXPECT_EQ(beneath[0], HEADER(2, 5));
    HV_MUST(unmap((struct hv_in_unmap_stats_page){.type = HV_STATS_OBJECT_HYPERVISOR}));
    EXPECT_EQ(beneath[0], 0x1234);
}

CHECK(refused, "21.3.1, 21.3.2: objects that there are not, that are somebody else's, and a child's own view")
{
    uint64_t page = (uintptr_t)page_alloc(1) / PAGE_SIZE;
    begin(1);
    struct hv_in_unmap_stats_page object = lp_object(cpu_count());
    EXPECT_EQ(map_at(&object, page), HV_STATUS_INVALID_PARAMETER);
    object = child_object(HV_STATS_OBJECT_VP);
    object.vp = 1;
    EXPECT_EQ(map_at(&object, page), HV_STATUS_INVALID_VP_INDEX);
    object.object = 0x7777;
    EXPECT_EQ(map_at(&object, page), HV_STATUS_INVALID_PARTITION_ID);
    object = child_object(HV_STATS_OBJECT_VP);
    object.flags = HV_STATS_SELF;
    EXPECT_EQ(map_at(&object, page), HV_STATUS_ACCESS_DENIED);
    object = (struct hv_in_unmap_stats_page){.type = 7};
    EXPECT_EQ(map_at(&object, page), HV_STATUS_INVALID_PARAMETER);
    object = child_object(HV_STATS_OBJECT_PARTITION);
    EXPECT_EQ(unmap(object), HV_STATUS_OPERATION_DENIED);
    HV_MUST(map_at(&object, page));
    EXPECT_EQ(map_at(&object, page), HV_STATUS_OPERATION_DENIED);
}

CHECK(child_goes, "21.3.1: with an object its mapping goes")
{
    begin(1);
    volatile uint64_t *partition = show(child_object(HV_STATS_OBJECT_PARTITION));
    volatile uint64_t *vp = show(child_object(HV_STATS_OBJECT_VP));
    EXPECT_EQ(partition[HV_PA_VirtualProcessors], 1);
    child_delete_vp(&child, 0);
    EXPECT_EQ(vp[0], 0);
    EXPECT_EQ(partition[HV_PA_VirtualProcessors], 0);
    child_delete(&child);
    EXPECT_EQ(partition[0], 0);
}

/* -- A child's processor (J.4.2) -- */

struct move {
    uint8_t counter, by;
};

/* A program enables its APIC, says 1, does what is counted and says 2. */
#define COUNTED(name, text)                                                                                            \
    CHILD_PROGRAM(name, 64,                                                                                            \
                  "mov $0xFEE000F0, %r9d; movl $0x1FF, (%r9); mov $1, %al; out %al, $0x80; " text                      \
                  "; mov $2, %al; out %al, $0x80; hlt")
#define REPEAT(text) ".rept " TIMES_TEXT "; " text "; .endr"
#define APIC "mov $0xFEE00000, %ebx; "
#define WRMSR(index, low) "mov $" index ", %ecx; mov $" low ", %eax; xor %edx, %edx; wrmsr; "

COUNTED(nothing, "nop")
COUNTED(invalidate_pages, REPEAT("invlpg 0x1000"))
COUNTED(read_control, REPEAT("mov %cr0, %rax"))
COUNTED(switch_spaces, "mov %cr3, %rbx; " REPEAT("mov %rbx, %cr3"))
COUNTED(read_debug, REPEAT("mov %dr7, %rax"))
COUNTED(write_ports, REPEAT("out %al, $0x84"))
COUNTED(write_caught_ports, REPEAT("out %al, $0x81"))
COUNTED(ask_cpuid, REPEAT("xor %eax, %eax; cpuid"))
COUNTED(ask_caught_cpuid, REPEAT("mov $0x40000001, %eax; cpuid"))
COUNTED(read_msrs, REPEAT("mov $0x40000002, %ecx; rdmsr"))
COUNTED(read_caught_msrs, REPEAT("mov $0x12345, %ecx; rdmsr"))
COUNTED(raise, REPEAT("ud2"))
COUNTED(page_faults, "mov $0x100000000, %rbx; " REPEAT("mov (%rbx), %al"))
COUNTED(unmapped_memory, REPEAT("mov 0x800000, %al"))
COUNTED(read_apic, APIC REPEAT("mov 0x20(%rbx), %eax"))
COUNTED(read_tpr, APIC REPEAT("mov 0x80(%rbx), %eax"))
COUNTED(end_interrupts, APIC REPEAT("movl $0, 0xB0(%rbx)"))
COUNTED(self_ipi, APIC "sti; " REPEAT("movl $0x40051, 0x300(%rbx); nop; nop") "; cli")
COUNTED(lower_tpr, APIC "mov $15, %eax; mov %rax, %cr8; movl $0x40051, 0x300(%rbx); "
                        "xor %eax, %eax; mov %rax, %cr8; sti; nop; nop; cli")
COUNTED(halt, "sti; hlt; cli")
COUNTED(synthetic_timer, WRMSR("0x400000B1", "1") "sti; hlt; cli")
COUNTED(call, REPEAT("mov %rbx, %rcx; mov $0x7000, %edx; xor %r8d, %r8d; mov $0x40000, %eax; call *%rax"))

/* Handlers. */
CHILD_PROGRAM(skip_load, 64, "add $8, %rsp; addq $2, (%rsp); iretq")
CHILD_PROGRAM(end_interrupt, 64, "push %rax; mov $0xFEE000B0, %eax; movl $0, (%rax); pop %rax; iretq")

/* The VP's page, in the second group. */
static volatile uint64_t *vpv;

static void take_interrupts(const uint8_t *handler, const uint8_t *handler_end, unsigned vector)
{
    child_put_program(&child, HANDLER_GPA, handler, handler_end);
    set_gate64(vector, HANDLER_GPA);
    use_idt64();
}

static void begin_counting(void)
{
    begin(1);
    vpv = second_group(show(child_object(HV_STATS_OBJECT_VP)));
    set(HV_REGISTER_Rsp, STACK_GPA);
    use_idt64();
}

static void begin_interrupts(void)
{
    take_interrupts(end_interrupt, end_interrupt_end, VECTOR);
    set_gate64(VECTOR_SINT, HANDLER_GPA);
}

static void begin_page_faults(void)
{
    take_interrupts(skip_load, skip_load_end, VECTOR_PF);
}

static void catch_ports(void)
{
    child_intercept_ports(&child, 0x81, 1);
}

static void catch_cpuid(void)
{
    child_intercept_cpuid(&child, 0x40000001);
}

static void catch_msrs(void)
{
    child_intercept_msrs(&child);
}

static void catch_exceptions(void)
{
    child_intercept_exception(&child, VECTOR_UD);
}

static void begin_timer(void)
{
    begin_interrupts();
    set(HV_REGISTER_Scontrol, 1);
    set(HV_REGISTER_Simp, MESSAGES_GPA | 1);
    set(HV_REGISTER_Sint2, VECTOR_SINT);
    set(HV_REGISTER_Stimer0Config, UINT64_C(2) << 16 | 1);
}

static void wake(void)
{
    clock_delay(1000);
    HV_MUST(child_assert_interrupt(&child, HV_INTERRUPT_FIXED, 0, VECTOR));
}

/* What a row does not list does not move, but for what the host decides: how the TLB is filled, who is interrupted. */
static bool may_move(unsigned counter)
{
    switch (counter) {
    case HV_VPV_GuestPageTableMaps:
    case HV_VPV_LargePageTlbFills:
    case HV_VPV_SmallPageTlbFills:
    case HV_VPV_ExternalInterrupts:
    case HV_VPV_LogicalProcessorMigrations:
        return true;
    default:
        return counter % 2 == 0 && counter <= HV_VPV_PageFaultInterceptsCost; /* mean times */
    }
}

static const struct counted {
    const char *what;
    const uint8_t *begin, *end;
    void (*prepare)(void), (*meanwhile)(void);
    struct move moves[8];
} programs[] = {
#define ROW(program, prepare, meanwhile, ...)                                                                          \
    {                                                                                                                  \
#program, program, program##_end, prepare, meanwhile,                                                          \
        {                                                                                                              \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
    ROW(nothing, NULL, NULL, {0}),
    ROW(invalidate_pages, NULL, NULL, {HV_VPV_PageInvalidations, TIMES}),
    ROW(read_control, NULL, NULL, {HV_VPV_ControlRegisterAccesses, TIMES}),
    ROW(switch_spaces, NULL, NULL, {HV_VPV_ControlRegisterAccesses, TIMES + 1}, {HV_VPV_AddressSpaceSwitches, TIMES},
        {HV_VPV_AddressSpaceEvictions, TIMES}),
    ROW(read_debug, NULL, NULL, {HV_VPV_DebugRegisterAccesses, TIMES}),
    ROW(write_ports, NULL, NULL, {HV_VPV_IoInstructions, TIMES}),
    ROW(write_caught_ports, catch_ports, NULL, {HV_VPV_IoInstructions, TIMES}, {HV_VPV_IoInterceptMessages, TIMES}),
    ROW(ask_cpuid, NULL, NULL, {HV_VPV_CpuidInstructions, TIMES}),
    ROW(ask_caught_cpuid, catch_cpuid, NULL, {HV_VPV_CpuidInstructions, TIMES}, {HV_VPV_OtherMessages, TIMES}),
    ROW(read_msrs, NULL, NULL, {HV_VPV_MsrAccesses, TIMES}),
    ROW(read_caught_msrs, catch_msrs, NULL, {HV_VPV_MsrAccesses, TIMES}, {HV_VPV_OtherMessages, TIMES}),
    ROW(raise, catch_exceptions, NULL, {HV_VPV_OtherIntercepts, TIMES}, {HV_VPV_OtherMessages, TIMES}),
    ROW(page_faults, begin_page_faults, NULL, {HV_VPV_PageFaultIntercepts, TIMES},
        {HV_VPV_ReflectedGuestPageFaults, TIMES}),
    ROW(unmapped_memory, NULL, NULL, {HV_VPV_PageFaultIntercepts, TIMES}, {HV_VPV_MemoryInterceptMessages, TIMES}),
    ROW(read_apic, NULL, NULL, {HV_VPV_ApicMmioAccesses, TIMES}, {HV_VPV_EmulatedInstructions, TIMES}),
    ROW(read_tpr, NULL, NULL, {HV_VPV_ApicMmioAccesses, TIMES}, {HV_VPV_EmulatedInstructions, TIMES},
        {HV_VPV_ApicTprAccesses, TIMES}),
    ROW(end_interrupts, NULL, NULL, {HV_VPV_ApicMmioAccesses, TIMES}, {HV_VPV_EmulatedInstructions, TIMES},
        {HV_VPV_ApicEoiAccesses, TIMES}),
    ROW(self_ipi, begin_interrupts, NULL, {HV_VPV_ApicMmioAccesses, 2 * TIMES},
        {HV_VPV_EmulatedInstructions, 2 * TIMES}, {HV_VPV_ApicIpisSent, TIMES}, {HV_VPV_ApicSelfIpisSent, TIMES},
        {HV_VPV_VirtualInterrupts, TIMES}, {HV_VPV_ApicEoiAccesses, TIMES}),
    ROW(lower_tpr, begin_interrupts, NULL, {HV_VPV_ControlRegisterAccesses, 2}, {HV_VPV_PendingInterrupts, 1},
        {HV_VPV_ApicIpisSent, 1}, {HV_VPV_ApicSelfIpisSent, 1}, {HV_VPV_VirtualInterrupts, 1},
        {HV_VPV_ApicMmioAccesses, 2}, {HV_VPV_EmulatedInstructions, 2}, {HV_VPV_ApicEoiAccesses, 1}),
    ROW(halt, begin_interrupts, wake, {HV_VPV_HltInstructions, 1}, {HV_VPV_VirtualInterrupts, 1},
        {HV_VPV_ApicMmioAccesses, 1}, {HV_VPV_EmulatedInstructions, 1}, {HV_VPV_ApicEoiAccesses, 1}),
    ROW(synthetic_timer, begin_timer, NULL, {HV_VPV_HltInstructions, 1}, {HV_VPV_VirtualInterrupts, 1},
        {HV_VPV_SyntheticInterrupts, 1}, {HV_VPV_MsrAccesses, 1}, {HV_VPV_ApicMmioAccesses, 1},
        {HV_VPV_EmulatedInstructions, 1}, {HV_VPV_ApicEoiAccesses, 1}),
#undef ROW
};

/* Until the child says the next thing; what else it asks for is done. Its first message came already. */
static void run_until_said(void)
{
    for (;;) {
        struct intercept intercept;
        REQUIRE(intercept_receive(&intercept, SOON));
        if (intercept.message.type == (uint32_t)HV_MESSAGE_X64IoPortIntercept && intercept.io.port == PORT_DONE) {
            last_said = intercept;
            return;
        }
        if (intercept.length == 0) {
            intercept.length = intercept.message.type == (uint32_t)HV_MESSAGE_X64ExceptionIntercept ? 2 : 7;
        }
        intercept_complete(&intercept, INTERCEPT_DONE);
    }
}

/* Let it do what is counted, and compare. */
static void measure(const char *what, void (*meanwhile)(void), const struct move *moves, unsigned count)
{
    uint64_t before[COUNTERS], expected[COUNTERS] = {0};
    run_until_said();
    for (unsigned i = 1; i < COUNTERS; i++) {
        before[i] = vpv[i];
    }
    expected[HV_VPV_IoInstructions] = expected[HV_VPV_IoInterceptMessages] = 1;
    for (unsigned i = 0; i < count; i++) {
        expected[moves[i].counter] += moves[i].by;
    }
    go_on();
    if (meanwhile) {
        meanwhile();
    }
    run_until_said();
    EXPECT_EQ(last_said.io.value, 2);
    for (unsigned i = 1; i < COUNTERS; i++) {
        uint64_t moved = vpv[i] - before[i];
        EXPECT_THAT(moved == expected[i] || (may_move(i) && !expected[i]), "%s: counter %u moved by %u, not %u", what,
                    i, (unsigned)moved, (unsigned)expected[i]);
    }
}

/* In a child of its own, which is there afterwards. */
static void run_program(const struct counted *program)
{
    begin_counting();
    child_enter_program64(&child, 0, CODE_GPA, program->begin, program->end, TABLES_GPA);
    set(HV_REGISTER_Rsp, STACK_GPA);
    use_idt64();
    if (program->prepare) {
        program->prepare();
    }
    child_resume(&child, 0);
    measure(program->what, program->meanwhile, program->moves, 8);
}

CHECK(events, "J.4.2: each kind of event moves its counters, and no others")
{
    for (unsigned i = 0; i < sizeof(programs) / sizeof(programs[0]) && !check_failed(); i++) {
        const struct counted *program = &programs[i];
        run_program(program);
        child_delete(&child);
        ram_free_all();
    }
}

/* -- A child's calls -- */

static const struct {
    uint64_t input; /* refused or not, they are counted */
    uint8_t counter;
} calls[] = {
    {0x004B, HV_VPV_GpaSpaceHypercalls}, /* HvMapGpaPages */
    {0x0009 | HV_CALL_FAST, HV_VPV_LogicalProcessorHypercalls}, /* HvParkLogicalProcessors */
    {HV_NOTIFY_LONG_SPIN_WAIT | HV_CALL_FAST, HV_VPV_LongSpinWaitHypercalls},
    {HV_GET_PARTITION_ID, HV_VPV_OtherHypercalls},
    {HV_SIGNAL_EVENT | HV_CALL_FAST, HV_VPV_SyntheticInterruptHypercalls},
    {0x0056 | HV_CALL_FAST, HV_VPV_VirtualInterruptHypercalls}, /* HvClearVirtualInterrupt */
    {0x0052, HV_VPV_VirtualMmuHypercalls}, /* HvTranslateVirtualAddress */
    {0x0050, HV_VPV_VirtualProcessorHypercalls}, /* HvGetVpRegisters */
    {0x7FFF, HV_VPV_OtherHypercalls},
};

/* The child calls TIMES times with this input value; what it points to is at DATA_GPA. */
static void count_calls(const char *what, uint64_t input, const struct move *moves, unsigned count)
{
    PUT64(0, call);
    set(HV_REGISTER_Rsp, STACK_GPA);
    set(HV_REGISTER_Rbx, input);
    child_resume(&child, 0);
    measure(what, NULL, moves, count);
}

static void begin_calls(void)
{
    begin_counting();
    set(HV_REGISTER_GuestOsId, 1);
    set(HV_REGISTER_Hypercall, HYPERCALL_GPA | 1);
}

CHECK(hypercalls, "J.4.2: in all, and by kind")
{
    begin_calls();
    for (unsigned i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        struct move moves[] = {{HV_VPV_Hypercalls, TIMES}, {calls[i].counter, TIMES}};
        count_calls("call", calls[i].input, moves, 2);
    }
}

#define FLUSH_ALL_PROCESSORS 1u
#define FLUSH_ALL_SPACES 2u
#define RANGES 3u

CHECK(flushes, "J.3.2, J.4.2: flushes by hypercall, of all address spaces and of one")
{
    begin_calls();
    volatile uint64_t *pv = second_group(show(child_object(HV_STATS_OBJECT_PARTITION)));
    uint64_t *data = data_at(DATA_GPA), list = HV_FLUSH_VIRTUAL_ADDRESS_LIST | HV_CALL_REPS(RANGES);
    uint64_t before = pv[HV_PV_VirtualTlbFlushEntries];
    struct move moves[] = {
        {HV_VPV_Hypercalls, TIMES}, {HV_VPV_VirtualMmuHypercalls, TIMES}, {HV_VPV_AddressDomainFlushes, TIMES}};
    data[0] = TABLES_GPA; /* any address space */
    data[1] = FLUSH_ALL_PROCESSORS | FLUSH_ALL_SPACES;
    count_calls("flush all", HV_FLUSH_VIRTUAL_ADDRESS_SPACE, moves, 3);
    EXPECT_EQ(pv[HV_PV_VirtualTlbFlushEntries] - before, TIMES);
    moves[2] = (struct move){HV_VPV_GlobalGvaRangeFlushes, TIMES * RANGES};
    count_calls("flush ranges of all", list, moves, 3);
    data[1] = FLUSH_ALL_PROCESSORS;
    moves[2].counter = HV_VPV_LocalFlushedGvaRanges;
    count_calls("flush ranges", list, moves, 3);
    moves[2] = (struct move){HV_VPV_AddressSpaceFlushes, TIMES};
    count_calls("flush one", HV_FLUSH_VIRTUAL_ADDRESS_SPACE, moves, 3);
}

/* -- Mean times -- */

/* Where time is counted in instructions, it stands still while the hypervisor works: then nothing takes any. */
CHECK(costs, "J.4.2: what an event costs is known as soon as there has been one", .flags = CHECK_PARALLEL)
{
    for (unsigned i = 0; i < sizeof(programs) / sizeof(programs[0]) && !check_failed(); i++) {
        const struct counted *program = &programs[i];
        run_program(program);
        for (unsigned j = 0; program->moves[j].by; j++) {
            unsigned cost = program->moves[j].counter + 1u;
            EXPECT_THAT(cost > HV_VPV_PageFaultInterceptsCost || cost % 2 ||
                            (vpv[cost] > 0 && vpv[cost] < UINT64_C(1000000000)),
                        "%s: counter %u is %u ns", program->what, cost, (unsigned)vpv[cost]);
        }
        child_delete(&child);
        ram_free_all();
    }
    begin_calls();
    EXPECT_EQ(vpv[HV_VPV_HypercallsCost], 0);
    count_calls("call", HV_GET_PARTITION_ID,
                (const struct move[]){{HV_VPV_Hypercalls, TIMES}, {HV_VPV_OtherHypercalls, TIMES}}, 2);
    EXPECT(vpv[HV_VPV_HypercallsCost] > 0 && vpv[HV_VPV_HypercallsCost] < UINT64_C(1000000000));
}

/* -- TLB fills, which the host decides about; at least those that no TLB can be without -- */

COUNTED(touch_pages, "mov $0x100000, %ebx; " REPEAT("mov (%rbx), %al; add $0x1000, %ebx"))

CHECK(tlb_fills, "J.4.2: by the guest's mappings of 2 MiB, and of none")
{
    begin_counting();
    PUT64(0, touch_pages);
    child_resume(&child, 0);
    run_until_said();
    uint64_t large = vpv[HV_VPV_LargePageTlbFills], tables = vpv[HV_VPV_GuestPageTableMaps];
    go_on();
    run_until_said();
    EXPECT(vpv[HV_VPV_LargePageTlbFills] - large >= TIMES);
    EXPECT(tables > 0 && vpv[HV_VPV_GuestPageTableMaps] >= tables);
    EXPECT_EQ(vpv[HV_VPV_SmallPageTlbFills], 0);
}

/* -- A partition (J.3) -- */

CHECK(partitions, "J.1.1, J.3: what a partition has")
{
    volatile uint64_t *hca, *pa, *pv;
    begin(1);
    hca = show((struct hv_in_unmap_stats_page){.type = HV_STATS_OBJECT_HYPERVISOR});
    pa = show(child_object(HV_STATS_OBJECT_PARTITION));
    pv = second_group(pa);
    EXPECT_EQ(hca[HV_HCA_LogicalProcessors], cpu_count());
    EXPECT_EQ(hca[HV_HCA_Partitions], 2);
    EXPECT_EQ(hca[HV_HCA_VirtualProcessors], cpu_count() + 1);
    EXPECT_EQ(pa[HV_PA_VirtualProcessors], 1);
    EXPECT_EQ(pv[HV_PV_AddressSpaces], 1);
    EXPECT_EQ(pv[HV_PV_GpaPages], CHILD_SIZE / PAGE_SIZE);
    EXPECT_EQ(pv[HV_PV_VirtualTlbPages], child_get_property(&child, HV_PROPERTY_VIRTUAL_TLB_PAGES));
    EXPECT_EQ(pv[HV_PV_RecommendedVirtualTlbSize], pv[HV_PV_VirtualTlbPages]);

    uint64_t pages = hca[HV_HCA_TotalPages], deposited = pv[HV_PV_DepositedPages];
    uint64_t changes = pv[HV_PV_GpaSpaceModifications];
    partition_deposit(child.id, TIMES);
    EXPECT_EQ(pv[HV_PV_DepositedPages] - deposited, TIMES);
    EXPECT_EQ(hca[HV_HCA_TotalPages] - pages, TIMES);
    child_add_vp(&child, 1);
    EXPECT_EQ(pa[HV_PA_VirtualProcessors], 2);
    EXPECT_EQ(pv[HV_PV_AddressSpaces], 2);
    EXPECT_EQ(hca[HV_HCA_VirtualProcessors], cpu_count() + 2);
    child_delete_vp(&child, 1);
    EXPECT_EQ(hca[HV_HCA_VirtualProcessors], cpu_count() + 1);
    child_map(&child, BEYOND, (uintptr_t)page_alloc(TIMES), TIMES * PAGE_SIZE, CHILD_RAM);
    EXPECT_EQ(pv[HV_PV_GpaPages], CHILD_SIZE / PAGE_SIZE + TIMES);
    EXPECT_EQ(pv[HV_PV_GpaSpaceModifications] - changes, TIMES);
    child_unmap(&child, BEYOND, TIMES * PAGE_SIZE);
    EXPECT_EQ(pv[HV_PV_GpaPages], CHILD_SIZE / PAGE_SIZE);
    EXPECT_EQ(pv[HV_PV_GpaSpaceModifications] - changes, 2 * TIMES);

    struct child other = {.privileges = CHILD_PRIVILEGES};
    child_create(&other);
    EXPECT_EQ(hca[HV_HCA_Partitions], 3);
    child_delete(&other);
    EXPECT_EQ(hca[HV_HCA_Partitions], 2);
}

#define PORT 0x21u
#define PORT_MONITOR 3u

CHECK(monitored_notifications, "J.1.1: with a port, until it is deleted")
{
    struct hv_port_info info = {.type = PORT_MONITOR, .monitor_address = (uintptr_t)page_alloc(1)};
    struct hv_out_get_partition_id own;
    begin(1);
    volatile uint64_t *hca = show((struct hv_in_unmap_stats_page){.type = HV_STATS_OBJECT_HYPERVISOR});
    EXPECT_EQ(hca[HV_HCA_MonitoredNotifications], 0);
    HV_MUST(hvcall_get_partition_id(NULL, &own));
    if (root_is_2008r2()) {
        struct hv_in_create_port_2008r2 input = {
            .port_partition = own.partition, .port = PORT, .connection_partition = child.id, .info = info};
        HV_MUST(hvcall_create_port_2008r2(&input, NULL));
    } else {
        struct hv_in_create_port_current input = {
            .port_partition = own.partition, .port = PORT, .connection_partition = child.id, .info = info};
        HV_MUST(hvcall_create_port_current(&input, NULL));
    }
    EXPECT_EQ(hca[HV_HCA_MonitoredNotifications], 1);
    struct hv_in_delete_port input = {.partition = own.partition, .port = PORT};
    HV_MUST(hvcall_delete_port(&input, NULL));
    EXPECT_EQ(hca[HV_HCA_MonitoredNotifications], 0);
}

/* -- A logical processor (J.2.1) -- */

#define APIC_TICKS 1000000u /* ns */

/* One interrupt of the machine's own APIC, soon. */
static void arm_apic_timer(void)
{
    apic_write(APIC_TIMER_DIVIDE, 0xB);
    apic_write(APIC_LVT_TIMER, VECTOR);
    apic_write(APIC_TIMER_INITIAL, APIC_TICKS);
}

static void halt_until_timer(void)
{
    unsigned before = interrupt_count(0, VECTOR);
    arm_apic_timer();
    while (interrupt_count(0, VECTOR) == before) {
        interrupts_on_halt();
    }
}

/* The counters of the LP of this processor. */
static volatile uint64_t *begin_lp(void)
{
    root_enable();
    intercept_enable(VECTOR_MESSAGE);
    interrupt_set_handler(VECTOR, interrupt_handle_eoi);
    return show(lp_object(0));
}

CHECK(machine_interrupts, "J.2.1, J.4.2: the machine's interrupts, and halts")
{
    volatile uint64_t *lpa = begin_lp(), *own = second_group(show(root_vp));
    uint64_t interrupts = lpa[HV_LPA_HardwareInterrupts], halts = lpa[HV_LPA_ProcessorHalts];
    uint64_t c1 = lpa[HV_LPA_C1Transitions], external = own[HV_VPV_ExternalInterrupts];
    unsigned tries = 0;
    do {
        halt_until_timer(); /* which may be earlier than the halt */
    } while (++tries < 20 * TIMES && lpa[HV_LPA_ProcessorHalts] - halts < TIMES);
    EXPECT_EQ(lpa[HV_LPA_HardwareInterrupts] - interrupts, tries);
    EXPECT_EQ(own[HV_VPV_ExternalInterrupts] - external, tries);
    EXPECT(lpa[HV_LPA_ProcessorHalts] - halts >= TIMES);
    EXPECT_EQ(lpa[HV_LPA_C1Transitions] - c1, lpa[HV_LPA_ProcessorHalts] - halts);
}

CHECK(power_states, "J.2.1, 6.3.2.1: idle states by their trigger registers, and the share of time in them")
{
    static const uint8_t transitions[] = {HV_LPA_C1Transitions, HV_LPA_C2Transitions, HV_LPA_C3Transitions};
    volatile uint64_t *lpa = begin_lp();
    for (unsigned state = 0; state < 3; state++) {
        unsigned entered = 0;
        for (unsigned tries = 0; entered < TIMES && tries < 20 * TIMES; tries++) {
            uint64_t before = lpa[transitions[state]];
            unsigned count = interrupt_count(0, VECTOR);
            arm_apic_timer();
            rdmsr(MSR_C1_TRIGGER + state); /* until an interrupt is requested, which it may be already */
            interrupts_on();
            REQUIRE(WAIT_UNTIL(interrupt_count(0, VECTOR) > count, SOON));
            interrupts_off();
            REQUIRE(lpa[transitions[state]] - before <= 1);
            entered += lpa[transitions[state]] > before;
        }
        EXPECT_EQ(entered, TIMES);
    }
    clock_delay(REFRESHED);
    EXPECT(lpa[HV_LPA_C1Time] + lpa[HV_LPA_C2Time] + lpa[HV_LPA_C3Time] <= 100);
}

CHECK(timers, "J.2.1: timers of the LP's processors that expired")
{
    volatile uint64_t *lpa = begin_lp();
    uint64_t before = lpa[HV_LPA_TimerInterrupts], begun = clock_microseconds();
    for (unsigned i = 0; i < TIMES; i++) {
        wrmsr(HV_MSR_STIMER0_CONFIG, UINT64_C(3) << 16 | 1); /* SINT3 is masked: the message waits to be looked at */
        wrmsr(HV_MSR_STIMER0_COUNT, rdmsr(HV_MSR_TIME_REF_COUNT) + 10000);
        REQUIRE(WAIT_UNTIL(!(rdmsr(HV_MSR_STIMER0_CONFIG) & 1), SOON));
    }
    /* The pages' own refreshing is one too, every 10 ms, and a timer that is early is set again. */
    uint64_t refreshes = (clock_microseconds() - begun) / 10000 + 1;
    EXPECT(lpa[HV_LPA_TimerInterrupts] - before >= TIMES);
    EXPECT(lpa[HV_LPA_TimerInterrupts] - before <= 2 * refreshes + 5 * TIMES);
}

COUNTED(spin, "1: pause; jmp 1b")

CHECK(slices, "J.2.1, J.4.2: two processors share the LP: slices end, others run, and what stops a child is counted",
      .max_vps = 1)
{
    volatile uint64_t *lpa = begin_lp();
    begin_counting();
    PUT64(0, spin);
    uint64_t switches = lpa[HV_LPA_ContextSwitches], time = lpa[HV_LPA_ContextSwitchTime];
    uint64_t ends = lpa[HV_LPA_SchedulerInterrupts], stopped = vpv[HV_VPV_ExternalInterrupts];
    child_resume(&child, 0);
    run_until_said();
    EXPECT(lpa[HV_LPA_ContextSwitches] - switches >= 2); /* there and back */
    go_on();
    clock_delay(4 * REFRESHED);
    EXPECT(lpa[HV_LPA_SchedulerInterrupts] - ends >= 2);
    EXPECT(lpa[HV_LPA_ContextSwitches] - switches >= 4);
    EXPECT(lpa[HV_LPA_ContextSwitchTime] >= time);
    for (unsigned i = 0; i < TIMES; i++) {
        halt_until_timer(); /* the child runs when it comes */
    }
    EXPECT(vpv[HV_VPV_ExternalInterrupts] - stopped >= TIMES);
    child_suspend(&child, 0);
}

static void park(uint64_t mask)
{
    struct hv_in_park_logical_processors input = {.mask = mask};
    HV_MUST(hvcall_park_logical_processors(&input, NULL));
}

CHECK(migrations, "J.4.2: from an LP that is parked to another", .min_vps = 2)
{
    begin_counting();
    PUT64(0, spin);
    child_resume(&child, 0);
    run_until_said();
    go_on();
    uint64_t before = vpv[HV_VPV_LogicalProcessorMigrations];
    for (unsigned i = 0; i < 20 && vpv[HV_VPV_LogicalProcessorMigrations] - before < TIMES; i++) {
        clock_delay(REFRESHED / 2); /* it goes where it has no company */
        park(~UINT64_C(1) & ((UINT64_C(1) << cpu_count()) - 1));
        clock_delay(REFRESHED / 10);
        park(0);
    }
    child_suspend(&child, 0);
    EXPECT(vpv[HV_VPV_LogicalProcessorMigrations] - before >= TIMES);
}

CHECK(kicks, "J.2.1: what is sent is received by another", .min_vps = 2)
{
    volatile uint64_t *pages[GUEST_MAX_CPUS];
    uint64_t sent = 0, received = 0;
    begin_lp();
    for (unsigned i = 0; i < cpu_count(); i++) {
        pages[i] = i ? show(lp_object(i)) : NULL;
    }
    HV_MUST(unmap(lp_object(0)));
    pages[0] = show(lp_object(0));
    begin_counting();
    PUT64(0, spin);
    child_resume(&child, 0);
    run_until_said();
    go_on();
    for (unsigned i = 0; i < TIMES; i++) {
        clock_delay(5000);
        child_suspend(&child, 0); /* which runs on the other one */
        child_resume(&child, 0);
    }
    child_suspend(&child, 0);
    for (unsigned i = 0; i < cpu_count(); i++) {
        sent += pages[i][HV_LPA_InterProcessorInterruptsSent];
        received += pages[i][HV_LPA_InterProcessorInterrupts];
    }
    EXPECT(sent >= TIMES);
    EXPECT_EQ(received, sent);
}

/* -- Times -- */

CHECK(times, "J.2.1, J.4.1: times go on with the clock, and are parts of one another")
{
    volatile uint64_t *lpa = begin_lp(), *vpa;
    begin_counting();
    vpa = vpv - (root_is_2008r2() ? 3 : 6);
    PUT64(0, spin);
    child_resume(&child, 0);
    run_until_said();
    go_on();
    uint64_t begun = rdmsr(HV_MSR_TIME_REF_COUNT), global = lpa[HV_LPA_GlobalTime], run = vpa[HV_VPA_TotalRunTime];
    EXPECT(global <= begun);
    clock_delay(4 * REFRESHED);
    EXPECT(lpa[HV_LPA_GlobalTime] > global);
    EXPECT(lpa[HV_LPA_GlobalTime] <= rdmsr(HV_MSR_TIME_REF_COUNT));
    EXPECT(lpa[HV_LPA_TotalRunTime] <= lpa[HV_LPA_GlobalTime] + REFRESHED * 10);
    EXPECT(lpa[HV_LPA_HypervisorRunTime] <= lpa[HV_LPA_TotalRunTime]);
    child_suspend(&child, 0);
    REQUIRE(WAIT_UNTIL(vpa[HV_VPA_TotalRunTime] == get(HV_REGISTER_VpRuntime), SOON)); /* what refreshes may be late */
    uint64_t total = vpa[HV_VPA_TotalRunTime];
    EXPECT(total > run);
    EXPECT(total <= rdmsr(HV_MSR_TIME_REF_COUNT));
    EXPECT(vpa[HV_VPA_HypervisorRunTime] <= total);
    if (!root_is_2008r2()) {
        EXPECT_EQ(vpa[HV_VPA_NormalizedRunTime], total);
        EXPECT(vpa[HV_VPA_IdealCpu] < cpu_count());
    }
}
