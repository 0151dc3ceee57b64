/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 4: the hypercall page, calling conventions, parameters and the order of checks. The machine has the
 * AccessPartitionId privilege, for a call with output.
 */
#include "guest.h"

#define PATTERN 0xA5
/* A call that any guest may make and that does nothing it could see. */
#define HARMLESS HV_NOTIFY_LONG_SPIN_WAIT
#define LOCKED_BIT 0x2u /* later than 2.0a: nails the page down until a reset, so it is never written here */

void guest_cleanup(void)
{
    hv_reset_state();
}

static unsigned status_of(uint64_t input_value, uint64_t input, uint64_t output)
{
    return HV_RESULT_STATUS(hv_call(input_value, input, output));
}

static bool filled_with(const volatile uint8_t *page, uint8_t value)
{
    for (unsigned i = 0; i < PAGE_SIZE; i++) {
        if (page[i] != value) {
            return false;
        }
    }
    return true;
}

static uint8_t *pattern_page(void)
{
    return memset(page_alloc(1), PATTERN, PAGE_SIZE);
}

/* -- The page -- */

CHECK(no_page_without_identity, "4.12: the enable bit stays 0 while the OS identity is 0")
{
    uint8_t *page = pattern_page();
    wrmsr(HV_MSR_HYPERCALL, (uintptr_t)page | HV_MSR_ENABLE);
    EXPECT_EQ(rdmsr(HV_MSR_HYPERCALL) & HV_MSR_ENABLE, 0);
    EXPECT(filled_with(page, PATTERN));
}

CHECK(page_covers_memory, "4.12, 8.1.3: an overlay; what lies under it comes back")
{
    uint8_t *page = pattern_page();
    wrmsr(HV_MSR_GUEST_OS_ID, 1);
    wrmsr(HV_MSR_HYPERCALL, (uintptr_t)page | HV_MSR_ENABLE);
    EXPECT_EQ(rdmsr(HV_MSR_HYPERCALL), (uintptr_t)page | HV_MSR_ENABLE);
    EXPECT(!filled_with(page, PATTERN));
    EXPECT_EQ(HV_RESULT_STATUS(hv_call_at((uintptr_t)page, HARMLESS | HV_CALL_FAST, 0, 0)), HV_SUCCESS);
    wrmsr(HV_MSR_HYPERCALL, 0);
    EXPECT(filled_with(page, PATTERN));
}

CHECK(page_moves, "4.12, 8.1.3: moving uncovers the old place")
{
    uint8_t *first = pattern_page(), *second = pattern_page();
    wrmsr(HV_MSR_GUEST_OS_ID, 1);
    for (unsigned i = 0; i < 50; i++) {
        wrmsr(HV_MSR_HYPERCALL, (uintptr_t)first | HV_MSR_ENABLE);
        EXPECT(filled_with(second, PATTERN));
        EXPECT_EQ(HV_RESULT_STATUS(hv_call_at((uintptr_t)first, HARMLESS | HV_CALL_FAST, 0, 0)), HV_SUCCESS);
        wrmsr(HV_MSR_HYPERCALL, (uintptr_t)second | HV_MSR_ENABLE);
        EXPECT(filled_with(first, PATTERN));
        EXPECT_EQ(HV_RESULT_STATUS(hv_call_at((uintptr_t)second, HARMLESS | HV_CALL_FAST, 0, 0)), HV_SUCCESS);
    }
}

CHECK(page_goes_with_the_identity, "3.6, 4.12: clearing the OS identity disables the page")
{
    uint8_t *page = pattern_page();
    wrmsr(HV_MSR_GUEST_OS_ID, 1);
    wrmsr(HV_MSR_HYPERCALL, (uintptr_t)page | HV_MSR_ENABLE);
    REQUIRE_EQ(rdmsr(HV_MSR_HYPERCALL), (uintptr_t)page | HV_MSR_ENABLE);
    wrmsr(HV_MSR_GUEST_OS_ID, 0);
    EXPECT_EQ(rdmsr(HV_MSR_HYPERCALL) & HV_MSR_ENABLE, 0);
    EXPECT(filled_with(page, PATTERN));
}

CHECK(page_write_faults, "4.12: a write to the page is #GP and changes nothing")
{
    hv_enable();
    volatile uint8_t *page = (volatile uint8_t *)hv_hypercall_page();
    uint8_t first = page[0], last = page[PAGE_SIZE - 1];
    EXPECT_FAULT(VECTOR_GP, page[0] = 0x90);
    EXPECT_FAULT(VECTOR_GP, page[PAGE_SIZE - 1] = 0x90);
    EXPECT_FAULT(VECTOR_GP, *(volatile uint32_t *)(page + 0x800) = 0);
    EXPECT_FAULT(VECTOR_GP, __asm__ volatile("lock orb $1, %0" : "+m"(page[0])));
    EXPECT_EQ(page[0], first);
    EXPECT_EQ(page[PAGE_SIZE - 1], last);
    EXPECT_EQ(status_of(HARMLESS | HV_CALL_FAST, 0, 0), HV_SUCCESS);
}

CHECK(page_write_fault_tells_where, "4.12: the #GP is the writing instruction's")
{
    struct fault fault;
    volatile uintptr_t expected = 0;
    hv_enable();
    CATCH(fault, uintptr_t ip; __asm__ volatile("lea 1f, %0"
                                                : "=r"(ip));
          expected = ip; __asm__ volatile("1: movb $0, (%0)"
                                          :
                                          : "r"(hv_hypercall_page())
                                          : "memory"));
    EXPECT(fault.raised);
    EXPECT_EQ(fault.vector, VECTOR_GP);
    EXPECT_EQ(fault.error, 0);
    EXPECT_EQ(fault.ip, expected);
}

CHECK(page_is_writable_memory_afterwards, "8.1.3: the memory keeps its own access rights")
{
    uint8_t *page = pattern_page();
    wrmsr(HV_MSR_GUEST_OS_ID, 1);
    wrmsr(HV_MSR_HYPERCALL, (uintptr_t)page | HV_MSR_ENABLE);
    EXPECT_FAULT(VECTOR_GP, *(volatile uint8_t *)page = 1);
    wrmsr(HV_MSR_HYPERCALL, 0);
    EXPECT_FAULT(NO_FAULT, *(volatile uint8_t *)page = 1);
    EXPECT_EQ(*(volatile uint8_t *)page, 1);
    EXPECT_EQ(((volatile uint8_t *)page)[1], PATTERN);
}

CHECK(page_outside_memory, "4.12: preferably not occupied by RAM or MMIO")
{
    volatile uint32_t *place = (volatile uint32_t *)HV_UNMAPPED_GPA;
    uint32_t before = *place;
    wrmsr(HV_MSR_GUEST_OS_ID, 1);
    wrmsr(HV_MSR_HYPERCALL, HV_UNMAPPED_GPA | HV_MSR_ENABLE);
    EXPECT(*place != before);
    EXPECT_EQ(HV_RESULT_STATUS(hv_call_at(HV_UNMAPPED_GPA, HARMLESS | HV_CALL_FAST, 0, 0)), HV_SUCCESS);
    wrmsr(HV_MSR_HYPERCALL, 0);
    EXPECT_EQ(*place, before);
}

CHECK(page_beyond_the_gpa_space_faults, "4.12: #GP, and the register keeps its value")
{
    hv_enable();
    uint64_t before = rdmsr(HV_MSR_HYPERCALL);
    EXPECT_WRMSR_FAULT(HV_MSR_HYPERCALL, hv_gpa_limit() | HV_MSR_ENABLE, VECTOR_GP);
    EXPECT_WRMSR_FAULT(HV_MSR_HYPERCALL, (UINT64_MAX & ~0xFFFull) | HV_MSR_ENABLE, VECTOR_GP);
    EXPECT_EQ(rdmsr(HV_MSR_HYPERCALL), before);
    EXPECT_EQ(status_of(HARMLESS | HV_CALL_FAST, 0, 0), HV_SUCCESS);
}

CHECK(page_register_preserves, "4.12: bits 11:1 are RsvdP")
{
    uint64_t bits = guest_generation() == GENERATION_2008R2 ? 0xFFE : 0xFFC & ~(uint64_t)LOCKED_BIT;
    wrmsr(HV_MSR_GUEST_OS_ID, 1);
    wrmsr(HV_MSR_HYPERCALL, hv_hypercall_page() | bits | HV_MSR_ENABLE);
    EXPECT_EQ(rdmsr(HV_MSR_HYPERCALL), hv_hypercall_page() | bits | HV_MSR_ENABLE);
}

CHECK(page_begins_with_endbr, "deployed guests look for ENDBR64 before they keep indirect branch tracking on")
{
    hv_enable();
    EXPECT_EQ(*(volatile uint32_t *)hv_hypercall_page(), 0xFA1E0FF3);
}

static void call_harmless(void *argument)
{
    (void)argument;
    EXPECT_EQ(rdmsr(HV_MSR_HYPERCALL), hv_hypercall_page() | HV_MSR_ENABLE);
    EXPECT_EQ(status_of(HARMLESS | HV_CALL_FAST, 0, 0), HV_SUCCESS);
    EXPECT_FAULT(VECTOR_GP, *(volatile uint8_t *)hv_hypercall_page() = 0);
}

CHECK(page_is_partition_wide, "4.12: the register is shared among all VPs", .min_vps = 2)
{
    hv_enable();
    smp_run_all(call_harmless, NULL);
}

static volatile bool movers_stop;
static uint8_t *moved_pages[2];

static void watch_pages(void *argument)
{
    (void)argument;
    while (!movers_stop && !check_failed()) {
        /* Either the memory or the overlay, but always something readable. */
        volatile uint8_t first = *(volatile uint8_t *)moved_pages[0], second = *(volatile uint8_t *)moved_pages[1];
        EXPECT(first == PATTERN || first == 0xF3);
        EXPECT(second == PATTERN || second == 0xF3);
        cpu_pause();
    }
}

CHECK(page_moves_while_others_look, "8.1.3: no VP sees anything but the page or the memory under it", .min_vps = 2)
{
    movers_stop = false;
    moved_pages[0] = pattern_page();
    moved_pages[1] = pattern_page();
    wrmsr(HV_MSR_GUEST_OS_ID, 1);
    for (unsigned i = 1; i < cpu_count(); i++) {
        smp_start(i, watch_pages, NULL);
    }
    for (unsigned i = 0; i < 300; i++) {
        wrmsr(HV_MSR_HYPERCALL, (uintptr_t)moved_pages[i % 2] | HV_MSR_ENABLE);
        EXPECT_EQ(*(volatile uint8_t *)moved_pages[i % 2], 0xF3);
    }
    movers_stop = true;
    for (unsigned i = 1; i < cpu_count(); i++) {
        EXPECT(smp_wait(i, SOON));
    }
}

/* -- Who may call -- */

CHECK(call_without_a_page_is_undefined, "4.5: another way than the enabled page is #UD")
{
    hv_enable();
    void *copy = memcpy(page_alloc(1), (const void *)hv_hypercall_page(), PAGE_SIZE);
    wrmsr(HV_MSR_HYPERCALL, 0);
    EXPECT_FAULT(VECTOR_UD, hv_call_at((uintptr_t)copy, HARMLESS | HV_CALL_FAST, 0, 0));
}

CHECK(call_from_user_mode_is_undefined, "4.5: CPL 3 is #UD, by the instruction in the page")
{
    hv_enable();
    struct user_registers registers = {{HARMLESS | HV_CALL_FAST, 0, 0}};
    struct fault fault = user_run(hv_hypercall_page(), &registers);
    EXPECT(fault.raised);
    EXPECT_EQ(fault.vector, VECTOR_UD);
    EXPECT_EQ(fault.ip & ~(uintptr_t)0xFFF, hv_hypercall_page());
    EXPECT_EQ(status_of(HARMLESS | HV_CALL_FAST, 0, 0), HV_SUCCESS);
}

CHECK(call_from_real_mode_is_undefined, "4.5: real mode is #UD", .min_vps = 2)
{
    /* lcall $0x0A00, $0: the page is put below 1 MiB for this */
    static const uint8_t code[] = {0x9A, 0x00, 0x00, 0x00, 0x0A};
    wrmsr(HV_MSR_GUEST_OS_ID, 1);
    wrmsr(HV_MSR_HYPERCALL, 0xA000 | HV_MSR_ENABLE);
    EXPECT_EQ(smp_run_real_mode(1, code, sizeof(code)), VECTOR_UD);
}

/* -- Registers -- */

#ifdef __x86_64__
#define SAVED_WORDS 8
struct saved {
    uint64_t words[SAVED_WORDS];
};

/* Load everything that must survive with known values, call, and store what came back. */
static uint64_t call_and_save(uint64_t input_value, uint64_t input, uint64_t output, const struct saved *in,
                              struct saved *out)
{
    uint64_t result;
    uintptr_t page = hv_hypercall_page(); /* no call may come between the next lines and the statement */
    register uint64_t r8 __asm__("r8") = output;
    register uintptr_t r9 __asm__("r9") = (uintptr_t)in;
    register uintptr_t r10 __asm__("r10") = (uintptr_t)out;
    register uintptr_t r11 __asm__("r11") = page;
    __asm__ volatile("push %%rbx; push %%rbp; push %%r12; push %%r13; push %%r14; push %%r15; push %%r10\n\t"
                     "mov (%%r9), %%rbx; mov 8(%%r9), %%rbp; mov 16(%%r9), %%rsi; mov 24(%%r9), %%rdi\n\t"
                     "mov 32(%%r9), %%r12; mov 40(%%r9), %%r13; mov 48(%%r9), %%r14; mov 56(%%r9), %%r15\n\t"
                     "call *%%r11\n\t"
                     "pop %%r10\n\t"
                     "mov %%rbx, (%%r10); mov %%rbp, 8(%%r10); mov %%rsi, 16(%%r10); mov %%rdi, 24(%%r10)\n\t"
                     "mov %%r12, 32(%%r10); mov %%r13, 40(%%r10); mov %%r14, 48(%%r10); mov %%r15, 56(%%r10)\n\t"
                     "pop %%r15; pop %%r14; pop %%r13; pop %%r12; pop %%rbp; pop %%rbx"
                     : "=a"(result), "+c"(input_value), "+d"(input), "+r"(r8), "+r"(r9), "+r"(r10), "+r"(r11)
                     :
                     : "rsi", "rdi", "cc", "memory");
    return result;
}

CHECK(registers_survive, "4.7: all but RAX, RCX, RDX, R8-R11, XMM0-5 and the condition codes")
{
    struct saved in, out = {{0}};
    hv_enable();
    for (unsigned i = 0; i < SAVED_WORDS; i++) {
        in.words[i] = 0x1111111111111111ull * (i + 1);
    }
    EXPECT_EQ(HV_RESULT_STATUS(call_and_save(HARMLESS | HV_CALL_FAST, 0, 0, &in, &out)), HV_SUCCESS);
    for (unsigned i = 0; i < SAVED_WORDS; i++) {
        EXPECT_EQ(out.words[i], in.words[i]);
    }
}

CHECK(xmm_registers_survive, "4.7: XMM6 and up are not volatile; deployed guests rely on 0 to 5 too")
{
    static uint8_t in[256] __attribute__((aligned(16))), out[256] __attribute__((aligned(16)));
    for (unsigned i = 0; i < sizeof(in); i++) {
        in[i] = (uint8_t)(i * 7 + 1);
    }
    hv_enable();
#define EACH_XMM(op)                                                                                                   \
    op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13) op(14) op(15)
#define LOAD_XMM(n) "movdqa 16*" #n "(%0), %%xmm" #n ";"
#define STORE_XMM(n) "movdqa %%xmm" #n ", 16*" #n "(%0);"
    __asm__ volatile(EACH_XMM(LOAD_XMM) : : "r"(in) : "memory");
    uint64_t result = hv_call(HARMLESS | HV_CALL_FAST, 0, 0);
    __asm__ volatile(EACH_XMM(STORE_XMM) : : "r"(out) : "memory");
    EXPECT_EQ(HV_RESULT_STATUS(result), HV_SUCCESS);
    EXPECT(memcmp(in, out, sizeof(in)) == 0);
}

/* Through a far call into a 32-bit code segment: long mode, but CS.L is 0. */
extern uint64_t call_compatible(uint32_t page, uint64_t input_value, uint64_t input, uint64_t output);
__asm__(".text\n"
        "call_compatible:\n\t"
        "push %rbx; push %rbp; push %r12; push %r13\n\t"
        "mov %edi, compatible_target\n\t"
        "mov %rsi, %r12; mov %rdx, %r13\n\t"
        "mov %ecx, %esi; shr $32, %rcx; mov %ecx, %edi\n\t" /* EDI:ESI */
        "mov %r13d, %ecx; mov %r13, %rbx; shr $32, %rbx\n\t" /* EBX:ECX */
        "mov %r12d, %eax; mov %r12, %rdx; shr $32, %rdx\n\t" /* EDX:EAX */
        "lcall *compatible_entry\n\t"
        "shl $32, %rdx; mov %eax, %eax; or %rdx, %rax\n\t"
        "pop %r13; pop %r12; pop %rbp; pop %rbx\n\t"
        "ret\n"
        ".code32\n"
        "compatible_code: call *compatible_target; lret\n"
        ".code64\n"
        ".data\n"
        "compatible_entry: .long compatible_code; .word 0x08\n"
        ".balign 8\n"
        "compatible_target: .quad 0\n"
        ".text\n");

CHECK(compatibility_mode_uses_the_32_bit_convention, "4.7: 64-bit only if EFER.LMA and CS.L are both set")
{
    hv_enable();
    uint64_t *output = page_alloc(1);
    EXPECT_EQ(HV_RESULT_STATUS(call_compatible((uint32_t)hv_hypercall_page(), HARMLESS | HV_CALL_FAST, 0, 0)),
              HV_SUCCESS);
    EXPECT_EQ(HV_RESULT_STATUS(call_compatible((uint32_t)hv_hypercall_page(), 0x7FFF, 0, 0)),
              HV_INVALID_HYPERCALL_CODE);
    EXPECT_EQ(
        HV_RESULT_STATUS(call_compatible((uint32_t)hv_hypercall_page(), HV_GET_PARTITION_ID, 0, (uintptr_t)output)),
        HV_SUCCESS);
    EXPECT(*output != 0);
}
#else
CHECK(registers_survive, "4.7: EBX, ESI, EDI and EBP are not volatile when the call is not fast")
{
    struct {
        uint32_t input_low, input_high, page, ebx, esi, edi, ebp;
    } block = {HARMLESS, 0, 0, 0, 0, 0, 0};
    uint64_t *input = page_alloc(1), *output = page_alloc(1);
    hv_enable();
    block.page = hv_hypercall_page();
    __asm__ volatile("push %%ebp; push %%eax\n\t"
                     "push 8(%%eax)\n\t"
                     "mov 4(%%eax), %%edx\n\t"
                     "mov (%%eax), %%eax\n\t"
                     "mov $0x12345678, %%ebp\n\t"
                     "call *(%%esp)\n\t"
                     "add $4, %%esp\n\t"
                     "mov (%%esp), %%eax\n\t"
                     "mov %%ebx, 12(%%eax); mov %%esi, 16(%%eax); mov %%edi, 20(%%eax); mov %%ebp, 24(%%eax)\n\t"
                     "pop %%eax; pop %%ebp"
                     :
                     : "a"(&block), "b"(0), "c"(input), "D"(0), "S"(output)
                     : "edx", "cc", "memory");
    EXPECT_EQ(block.ebx, 0);
    EXPECT_EQ(block.esi, (uintptr_t)output);
    EXPECT_EQ(block.edi, 0);
    EXPECT_EQ(block.ebp, 0x12345678);
}
#endif

CHECK(flags_survive, "4.7: only SF, ZF, OF, CF, AF and PF are volatile")
{
    hv_enable();
    uintptr_t volatile_bits = 0x8D5;
    uintptr_t before = read_flags() & ~volatile_bits;
    hv_call(HARMLESS | HV_CALL_FAST, 0, 0);
    EXPECT_EQ(read_flags() & ~volatile_bits, before);
    interrupts_on();
    before = read_flags() & ~volatile_bits;
    hv_call(HARMLESS | HV_CALL_FAST, 0, 0);
    uintptr_t after = read_flags() & ~volatile_bits;
    interrupts_off();
    EXPECT_EQ(after, before);
}

/* -- Input value -- */

CHECK(unknown_codes, "4.11.3: a call code that is not recognized")
{
    static const uint16_t codes[] = {0x0000, 0x0005, 0x0039, 0x7FFF, 0x8000, 0xFFFF};
    hv_enable();
    for (unsigned i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        EXPECT_EQ(hv_call(codes[i], 0, 0), HV_INVALID_HYPERCALL_CODE);
        EXPECT_EQ(HV_RESULT_STATUS(hv_call(codes[i] | HV_CALL_FAST, 0, 0)), HV_INVALID_HYPERCALL_CODE);
    }
}

CHECK(later_codes_are_unknown, "4.11.3", .generations = GENERATION_2008R2)
{
    hv_enable();
    EXPECT_EQ(status_of(HV_SEND_SYNTHETIC_CLUSTER_IPI | HV_CALL_FAST, 0x40, 0), HV_INVALID_HYPERCALL_CODE);
    EXPECT_EQ(status_of(HV_SEND_SYNTHETIC_CLUSTER_IPI_EX, 0, 0), HV_INVALID_HYPERCALL_CODE);
    EXPECT_EQ(status_of(HV_FLUSH_VIRTUAL_ADDRESS_SPACE_EX, 0, 0), HV_INVALID_HYPERCALL_CODE);
    EXPECT_EQ(status_of(HV_FLUSH_VIRTUAL_ADDRESS_LIST_EX, 0, 0), HV_INVALID_HYPERCALL_CODE);
}

CHECK(reserved_bits, "4.7, 4.11.3: reserved bits of the input value must be 0")
{
    hv_enable();
    for (unsigned bit = 17; bit < 64; bit++) {
        bool rep_field = (bit >= 32 && bit < 44) || (bit >= 48 && bit < 60);
        uint64_t result = hv_call(HARMLESS | HV_CALL_FAST | 1ull << bit, 0, 0);
        EXPECT_THAT(HV_RESULT_STATUS(result) == HV_INVALID_HYPERCALL_INPUT, "bit %u (%s), got %x, expected 3", bit,
                    rep_field ? "rep field of a simple call" : "reserved", HV_RESULT_STATUS(result));
    }
}

CHECK(rep_fields, "4.7, 4.11.3: a rep call needs a count, and a start below it")
{
    uint64_t *input = page_alloc(1);
    hv_enable();
    input[0] = vm_root();
    input[1] = HV_FLUSH_ALL_PROCESSORS | HV_FLUSH_ALL_SPACES;
    uint64_t call = HV_FLUSH_VIRTUAL_ADDRESS_LIST;
    EXPECT_EQ(status_of(call, (uintptr_t)input, 0), HV_INVALID_HYPERCALL_INPUT);
    EXPECT_EQ(status_of(call | HV_CALL_REPS(1) | HV_CALL_START(1), (uintptr_t)input, 0), HV_INVALID_HYPERCALL_INPUT);
    EXPECT_EQ(status_of(call | HV_CALL_REPS(3) | HV_CALL_START(4), (uintptr_t)input, 0), HV_INVALID_HYPERCALL_INPUT);
    EXPECT_EQ(status_of(call | HV_CALL_START(1), (uintptr_t)input, 0), HV_INVALID_HYPERCALL_INPUT);
    EXPECT_EQ(status_of(call | HV_CALL_REPS(1) | HV_CALL_FAST, 0, 0), HV_INVALID_HYPERCALL_INPUT);
}

CHECK(fast_form_of_a_slow_call, "4.7: a call without a register form")
{
    hv_enable();
    EXPECT_EQ(status_of(HV_POST_MESSAGE | HV_CALL_FAST, 0, 0), HV_INVALID_HYPERCALL_INPUT);
    EXPECT_EQ(status_of(HV_GET_PARTITION_ID | HV_CALL_FAST, 0, 0), HV_INVALID_HYPERCALL_INPUT);
}

CHECK(reps_complete_counts_from_the_start, "4.8: reps complete is not relative to the start index")
{
    uint64_t *input = page_alloc(1);
    hv_enable();
    input[0] = vm_root();
    input[1] = HV_FLUSH_ALL_PROCESSORS;
    for (unsigned i = 0; i < 10; i++) {
        input[3 + i] = VM_TEST_BASE + i * PAGE_SIZE;
    }
    uint64_t call = HV_FLUSH_VIRTUAL_ADDRESS_LIST | HV_CALL_REPS(10);
    EXPECT_EQ(hv_call(call, (uintptr_t)input, 0), (uint64_t)10 << 32 | HV_SUCCESS);
    EXPECT_EQ(hv_call(call | HV_CALL_START(5), (uintptr_t)input, 0), (uint64_t)10 << 32 | HV_SUCCESS);
    EXPECT_EQ(hv_call(call | HV_CALL_START(9), (uintptr_t)input, 0), (uint64_t)10 << 32 | HV_SUCCESS);
}

CHECK(long_rep_call_completes, "4.3: continuation is transparent, and lets interrupts in")
{
    uint64_t *input = page_alloc(1);
    unsigned count = (PAGE_SIZE - 24) / 8;
    hv_enable();
    input[0] = vm_root();
    input[1] = HV_FLUSH_ALL_PROCESSORS;
    for (unsigned i = 0; i < count; i++) {
        input[3 + i] = VM_TEST_BASE + i % 512 * PAGE_SIZE;
    }
    interrupt_set_handler(0x50, interrupt_handle_eoi);
    apic_send_ipi(0, 0x50);
    interrupts_on();
    uint64_t result = hv_call(HV_FLUSH_VIRTUAL_ADDRESS_LIST | HV_CALL_REPS(count), (uintptr_t)input, 0);
    interrupts_off();
    EXPECT_EQ(result, (uint64_t)count << 32 | HV_SUCCESS);
    EXPECT_EQ(interrupt_count(0, 0x50), 1);
}

/* -- Where parameters are -- */

CHECK(input_alignment, "4.6, 4.11.3: 8 bytes")
{
    uintptr_t input = (uintptr_t)page_alloc(1);
    hv_enable();
    EXPECT_EQ(status_of(HARMLESS, input, 0), HV_SUCCESS);
    for (unsigned offset = 1; offset < 8; offset++) {
        EXPECT_EQ(status_of(HARMLESS, input + offset, 0), HV_INVALID_ALIGNMENT);
    }
    EXPECT_EQ(status_of(HARMLESS, input + 8, 0), HV_SUCCESS);
}

CHECK(input_inside_one_page, "4.6, 4.11.3: a parameter list may not span pages")
{
    uint64_t *input = page_alloc(2);
    hv_enable();
    uint64_t *end = input + PAGE_SIZE / 8;
    end[-3] = vm_root();
    end[-2] = HV_FLUSH_ALL_PROCESSORS;
    EXPECT_EQ(status_of(HV_FLUSH_VIRTUAL_ADDRESS_SPACE, (uintptr_t)(end - 3), 0), HV_SUCCESS);
    EXPECT_EQ(status_of(HV_FLUSH_VIRTUAL_ADDRESS_SPACE, (uintptr_t)(end - 2), 0), HV_INVALID_ALIGNMENT);
    EXPECT_EQ(status_of(HV_FLUSH_VIRTUAL_ADDRESS_SPACE, (uintptr_t)(end - 1), 0), HV_INVALID_ALIGNMENT);
    /* The list of a rep call counts. */
    EXPECT_EQ(status_of(HV_FLUSH_VIRTUAL_ADDRESS_LIST | HV_CALL_REPS(1), (uintptr_t)(end - 3), 0),
              HV_INVALID_ALIGNMENT);
    EXPECT_EQ(status_of(HV_FLUSH_VIRTUAL_ADDRESS_LIST | HV_CALL_REPS(510), (uintptr_t)input, 0), HV_INVALID_ALIGNMENT);
}

CHECK(input_in_the_gpa_space, "4.11.3: within the bounds of the GPA space")
{
    hv_enable();
    EXPECT_EQ(status_of(HARMLESS, hv_gpa_limit(), 0), HV_INVALID_ALIGNMENT);
    EXPECT_EQ(status_of(HARMLESS, UINT64_MAX & ~7ull, 0), HV_INVALID_ALIGNMENT);
}

CHECK(unused_pointers_are_ignored, "4.6: a call without output ignores its GPA, a fast call both")
{
    uintptr_t input = (uintptr_t)page_alloc(1);
    hv_enable();
    EXPECT_EQ(status_of(HARMLESS, input, 1), HV_SUCCESS);
    EXPECT_EQ(status_of(HARMLESS, input, UINT64_MAX), HV_SUCCESS);
    EXPECT_EQ(status_of(HARMLESS | HV_CALL_FAST, UINT64_MAX, UINT64_MAX), HV_SUCCESS);
    EXPECT_EQ(status_of(HV_GET_PARTITION_ID, 3, (uintptr_t)page_alloc(1)), HV_SUCCESS);
}

CHECK(output_is_written, "4.6, 4.8: and nothing beside it")
{
    uint8_t *page = pattern_page();
    hv_enable();
    EXPECT_EQ(hv_call(HV_GET_PARTITION_ID, 0, (uintptr_t)page + 0x100), HV_SUCCESS);
    EXPECT(*(volatile uint64_t *)(page + 0x100) != 0);
    EXPECT(*(volatile uint64_t *)(page + 0x100) != UINT64_MAX);
    for (unsigned i = 0; i < PAGE_SIZE; i++) {
        EXPECT(page[i] == PATTERN || (i >= 0x100 && i < 0x108));
    }
}

CHECK(output_alignment, "4.6, 4.11.3")
{
    uintptr_t output = (uintptr_t)page_alloc(1);
    hv_enable();
    for (unsigned offset = 1; offset < 8; offset++) {
        EXPECT_EQ(status_of(HV_GET_PARTITION_ID, 0, output + offset), HV_INVALID_ALIGNMENT);
    }
    EXPECT_EQ(status_of(HV_GET_PARTITION_ID, 0, hv_gpa_limit()), HV_INVALID_ALIGNMENT);
    EXPECT_EQ(status_of(HV_GET_PARTITION_ID, 0, output + PAGE_SIZE - 8), HV_SUCCESS);
}

/* SignalEvent with all ones names a connection that cannot exist. */
CHECK(input_that_is_not_mapped_reads_ones, "11.8: as for a partition without a parent")
{
    hv_enable();
    EXPECT_EQ(status_of(HV_SIGNAL_EVENT, HV_UNMAPPED_GPA, 0), HV_INVALID_CONNECTION_ID);
    EXPECT_EQ(status_of(HARMLESS, HV_UNMAPPED_GPA, 0), HV_SUCCESS);
    EXPECT_EQ(status_of(HV_FLUSH_VIRTUAL_ADDRESS_SPACE, HV_UNMAPPED_GPA, 0), HV_INVALID_PARAMETER);
}

CHECK(input_from_a_device_reads_ones, "11.8: parameters never reach a device")
{
    static const uint64_t devices[] = {0xFEC00000, 0xFED00000, 0xFEE00000};
    hv_enable();
    for (unsigned i = 0; i < sizeof(devices) / sizeof(devices[0]); i++) {
        EXPECT_EQ(status_of(HV_FLUSH_VIRTUAL_ADDRESS_SPACE, devices[i], 0), HV_INVALID_PARAMETER);
    }
}

CHECK(output_that_is_not_mapped_is_dropped, "11.8")
{
    hv_enable();
    EXPECT_EQ(status_of(HV_GET_PARTITION_ID, 0, HV_UNMAPPED_GPA), HV_SUCCESS);
    /* The HPET's comparator 0 would show a write. */
    volatile uint64_t *comparator = (volatile uint64_t *)0xFED00108;
    uint64_t before = *comparator;
    EXPECT_EQ(status_of(HV_GET_PARTITION_ID, 0, 0xFED00108), HV_SUCCESS);
    EXPECT_EQ(*comparator, before);
}

#define ROM_GPA 0xFFFFF000u /* the firmware, just below 4 GiB */
#define CR4_MCE 0x40u

CHECK(input_from_rom, "8.1.2: memory that may be read")
{
    hv_enable();
    EXPECT_EQ(status_of(HARMLESS, ROM_GPA, 0), HV_SUCCESS);
}

CHECK(output_to_rom_is_a_machine_check, "11.8: a missing access right is #MC")
{
    struct fault fault;
    hv_enable();
    uint64_t before = *(volatile uint64_t *)(uintptr_t)ROM_GPA;
    write_cr4(read_cr4() | CR4_MCE);
    CATCH(fault, hv_call(HV_GET_PARTITION_ID, 0, ROM_GPA));
    EXPECT(fault.raised);
    EXPECT_EQ(fault.vector, VECTOR_MC);
    EXPECT_EQ(fault.ip & ~(uintptr_t)0xFFF, hv_hypercall_page());
    EXPECT_EQ(*(volatile uint64_t *)(uintptr_t)ROM_GPA, before);
    EXPECT_EQ(status_of(HARMLESS | HV_CALL_FAST, 0, 0), HV_SUCCESS);
}

/* -- Order of checks: call code, input value, alignment, privilege, parameters (docs/architecture.md) -- */

CHECK(order_of_checks, "4.11.2 leaves it open: ours")
{
    uint64_t reserved = 1ull << 63;
    hv_enable();
    EXPECT_EQ(status_of(0x7FFF | reserved, 1, 0), HV_INVALID_HYPERCALL_CODE);
    EXPECT_EQ(status_of(HARMLESS | reserved, 1, 0), HV_INVALID_HYPERCALL_INPUT);
    EXPECT_EQ(status_of(HV_CREATE_PARTITION | reserved, 1, 0), HV_INVALID_HYPERCALL_INPUT);
    EXPECT_EQ(status_of(HV_CREATE_PARTITION, 1, 0), HV_INVALID_ALIGNMENT);
    EXPECT_EQ(status_of(HV_CREATE_PARTITION, HV_UNMAPPED_GPA, HV_UNMAPPED_GPA + PAGE_SIZE), HV_ACCESS_DENIED);
}

CHECK(failed_calls_complete_nothing, "4.8: reps complete of a call that failed")
{
    hv_enable();
    EXPECT_EQ(HV_RESULT_REPS(hv_call(0x7FFF | HV_CALL_REPS(5), 0, 0)), 0);
    EXPECT_EQ(HV_RESULT_REPS(hv_call(HV_FLUSH_VIRTUAL_ADDRESS_LIST | HV_CALL_REPS(5), 1, 0)), 0);
}

/* -- XMM form -- */

CHECK(xmm_form, "4.7.1: parameter blocks of up to 112 bytes in registers")
{
    uint64_t xmm[12] __attribute__((aligned(16))) = {0};
    hv_enable();
    EXPECT(cpuid(HV_LEAF_FEATURES, 0).edx & HV_EDX_XMM_INPUT);
    uint64_t call = HV_FLUSH_VIRTUAL_ADDRESS_SPACE | HV_CALL_FAST;
    xmm[0] = 1; /* processor mask: bytes 16 to 23 */
    EXPECT_EQ(HV_RESULT_STATUS(hv_call_xmm(call, vm_root(), 0, xmm)), HV_SUCCESS);
    xmm[0] = 0;
    EXPECT_EQ(HV_RESULT_STATUS(hv_call_xmm(call, vm_root(), 0, xmm)), HV_INVALID_PARAMETER);
    EXPECT_EQ(HV_RESULT_STATUS(hv_call_xmm(call, vm_root(), 8, xmm)), HV_INVALID_PARAMETER);
    xmm[1] = UINT64_MAX; /* beyond the block: ignored */
    EXPECT_EQ(HV_RESULT_STATUS(hv_call_xmm(call, vm_root(), HV_FLUSH_ALL_PROCESSORS, xmm)), HV_SUCCESS);
}

/* -- The whole partition at once -- */

static void call_often(void *argument)
{
    uint64_t *output = (uint64_t *)argument + cpu_index() * (PAGE_SIZE / 8);
    for (unsigned i = 0; i < 1000; i++) {
        *output = 0;
        EXPECT_EQ(hv_call(HV_GET_PARTITION_ID, 0, (uintptr_t)output), HV_SUCCESS);
        EXPECT(*output != 0);
        EXPECT_EQ(status_of(HARMLESS | HV_CALL_FAST, i, 0), HV_SUCCESS);
    }
}

CHECK(all_vps_call_at_once, "4.4", .min_vps = 2)
{
    hv_enable();
    smp_run_all(call_often, page_alloc(cpu_count()));
}
