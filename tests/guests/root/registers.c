/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS 10.2, 10.3, 10.4.3 and 10.4.4: every class of register, written by the parent and found by the instructions of a
 * processor that runs, and the other way round; and the values that HvSetVpRegisters refuses.
 */
#include "programs.h"

void guest_cleanup(void)
{
    root_reset_state();
}

/* -- General registers, flags -- */

CHILD_PROGRAM(store_and_invert, 64,
              "mov %rax, 0x7000; mov %rcx, 0x7008; mov %rdx, 0x7010; mov %rbx, 0x7018; mov %rsp, 0x7020;"
              "mov %rbp, 0x7028; mov %rsi, 0x7030; mov %rdi, 0x7038; mov %r8, 0x7040; mov %r9, 0x7048;"
              "mov %r10, 0x7050; mov %r11, 0x7058; mov %r12, 0x7060; mov %r13, 0x7068; mov %r14, 0x7070;"
              "mov %r15, 0x7078; not %rax; not %rcx; not %rdx; not %rbx; not %rsp; not %rbp; not %rsi; not %rdi;"
              "not %r8; not %r9; not %r10; not %r11; not %r12; not %r13; not %r14; not %r15; out %al, $0x80; hlt")

static uint64_t pattern(unsigned number)
{
    return 0x9E3779B97F4A7C15u * (number + 1);
}

CHECK(general_registers, "10.2.2: RAX to R15, into the processor and out of it")
{
    begin(1);
    PUT64(0, store_and_invert);
    for (unsigned i = 0; i < 16; i++) {
        set(HV_REGISTER_Rax + i, pattern(i));
    }
    child_resume(&child, 0);
    said();
    const uint64_t *stored = data_at(DATA_GPA);
    for (unsigned i = 0; i < 16; i++) {
        EXPECT_EQ(stored[i], pattern(i));
        EXPECT_EQ(get(HV_REGISTER_Rax + i), ~pattern(i));
    }
}

#define STATUS_FLAGS 0x8D5u
#define DIRECTION_FLAG 0x400u
#define OTHER_FLAGS 0x240000u /* AC, ID */
CHILD_PROGRAM(store_flags, 64, "pushf; popq 0x7000; std; xor %eax, %eax; out %al, $0x80; hlt")

CHECK(flags, "10.2.2: RFLAGS, those that arithmetic leaves behind included")
{
    static const uint64_t values[] = {STATUS_FLAGS | OTHER_FLAGS, DIRECTION_FLAG, 0x41, OTHER_FLAGS, 0x894};
    begin(1);
    for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        PUT64(0, store_flags);
        set(HV_REGISTER_Rsp, STACK_GPA);
        set(HV_REGISTER_Rflags, values[i] | RFLAGS_FIXED);
        EXPECT_EQ(get(HV_REGISTER_Rflags), values[i] | RFLAGS_FIXED);
        child_resume(&child, 0);
        said();
        EXPECT_EQ(*(uint64_t *)data_at(DATA_GPA), values[i] | RFLAGS_FIXED);
        /* XOR of a register with itself: zero, even parity; AF is undefined */
        EXPECT_EQ(get(HV_REGISTER_Rflags) & ~UINT64_C(0x10),
                  (values[i] & OTHER_FLAGS) | DIRECTION_FLAG | 0x44 | RFLAGS_FIXED);
    }
}

/* -- Segments (10.3.6) -- */

CHILD_PROGRAM(use_bases, 64,
              "mov %fs:0, %al; out %al, $0x80; mov %gs:8, %al; out %al, $0x80;"
              "mov $0xC0000100, %ecx; rdmsr; mov %eax, 0x7000; mov %edx, 0x7004;"
              "inc %ecx; rdmsr; mov %eax, 0x7008; mov %edx, 0x700C;"
              "mov $0x12345678, %eax; mov $0x7FFF, %edx; wrmsr; out %al, $0x80; hlt")

CHECK(fs_and_gs, "10.3.6: the MSRs of their bases are aliases of the segment registers")
{
    begin(1);
    PUT64(0, use_bases);
    set_segment(HV_REGISTER_Fs, CHILD_DATA, 0x40000, UINT32_MAX, 0xC093);
    set_segment(HV_REGISTER_Gs, CHILD_DATA, 0x50000, UINT32_MAX, 0xC093);
    *(uint8_t *)data_at(0x40000) = 0x31;
    *(uint8_t *)data_at(0x50008) = 0x32;
    child_resume(&child, 0);
    EXPECT_EQ(said(), 0x31);
    go_on();
    EXPECT_EQ(said(), 0x32);
    go_on();
    said();
    const uint64_t *stored = data_at(DATA_GPA);
    EXPECT_EQ(stored[0], 0x40000);
    EXPECT_EQ(stored[1], 0x50000);
    EXPECT_EQ(get_segment(HV_REGISTER_Gs).base, 0x7FFF12345678);
    EXPECT_EQ(get_segment(HV_REGISTER_Fs).base, 0x40000);
}

CHILD_PROGRAM(use_data_segment, 16, "mov (4), %al; out %al, $0x80; mov %ds, (6); mov %es:(2), %al; out %al, $0x80; hlt")

CHECK(base_without_its_selector, "10.3.6: base and selector are set apart from each other")
{
    begin(1);
    PUT16(0, use_data_segment);
    set_segment(HV_REGISTER_Ds, 0xBEEF, 0x123450, 0xFFFF, 0x93);
    set_segment(HV_REGISTER_Es, 0x1234, 0x200000, 0xFFFF, 0x93);
    *(uint8_t *)data_at(0x123454) = 0x41;
    *(uint8_t *)data_at(0x200002) = 0x42;
    child_resume(&child, 0);
    EXPECT_EQ(said(), 0x41);
    go_on();
    EXPECT_EQ(said(), 0x42);
    EXPECT_EQ(*(uint16_t *)data_at(0x123456), 0xBEEF);
    EXPECT_EQ(get_segment(HV_REGISTER_Ds).base, 0x123450);
    EXPECT_EQ(get_segment(HV_REGISTER_Es).selector, 0x1234);
}

/*
 * In 64-bit code 40 is a prefix, else INC. In 16-bit code 66 makes the next instruction's immediate one of four bytes,
 * which is the ADD that follows elsewhere.
 */
static const uint8_t what_size[] = {0x31, 0xC0, 0x40, 0x90, 0x66, 0xB9, 0, 0, 0x04, 0x10, 0xE6, PORT_DONE, 0xF4};

static uint8_t size_by_attributes(uint16_t attributes)
{
    child_put_program(&child, CODE_GPA, what_size, what_size + sizeof(what_size));
    set_segment(HV_REGISTER_Cs, CHILD_CODE, 0, UINT32_MAX, attributes);
    child_resume(&child, 0);
    return said();
}

CHECK(size_of_code, "10.3.6: the Long and Default attributes of CS, in all the modes they matter in")
{
    begin(1);
    child_enter_program64(&child, 0, CODE_GPA, what_size, what_size + sizeof(what_size), TABLES_GPA);
    EXPECT_EQ(size_by_attributes(0xA09B), 0x10); /* 64-bit mode */
    set(HV_REGISTER_Rip, CODE_GPA);
    EXPECT_EQ(size_by_attributes(0xC09B), 0x11); /* compatibility mode, 32 bits */
    set(HV_REGISTER_Rip, CODE_GPA);
    EXPECT_EQ(size_by_attributes(0x809B), 0x01); /* and 16 */
    child_delete(&child);
    begin(1);
    child_enter_program32(&child, 0, CODE_GPA, what_size, what_size + sizeof(what_size), TABLES_GPA);
    EXPECT_EQ(size_by_attributes(0xC09B), 0x11); /* protected mode */
    set(HV_REGISTER_Rip, CODE_GPA);
    EXPECT_EQ(size_by_attributes(0x809B), 0x01);
    child_delete(&child);
    begin(1);
    child_enter_program16(&child, 0, CODE_GPA, what_size, what_size + sizeof(what_size));
    child_resume(&child, 0);
    EXPECT_EQ(said(), 0x01); /* real mode */
}

CHECK(segment_attributes, "10.3.6: all that a segment register holds comes back as it was set")
{
    static const uint16_t attributes[] = {0x0093, 0xC093, 0xD093, 0x10F3, 0x4097, 0xC091, 0x0082, 0x008B, 0x0013, 0};
    begin(1);
    for (uint32_t name = HV_REGISTER_Es; name <= HV_REGISTER_Tr; name++) {
        for (unsigned i = 0; i < sizeof(attributes) / sizeof(attributes[0]); i++) {
            uint32_t limit = attributes[i] & 0x8000 ? 0x12345FFF : 0x54321;
            set_segment(name, (uint16_t)(0x1110 + i), 0x12345678 + i, limit, attributes[i]);
            struct hv_segment segment = get_segment(name);
            EXPECT_EQ(segment.selector, 0x1110 + i);
            EXPECT_EQ(segment.base, 0x12345678 + i);
            EXPECT_EQ(segment.limit, limit);
            EXPECT_EQ(segment.attributes, attributes[i]);
        }
    }
}

static unsigned set_limit(uint32_t limit, uint16_t attributes, uint64_t base)
{
    return try_set_wide(HV_REGISTER_Ds,
                        (union hv_register_value){.segment = {.base = base, .limit = limit, .attributes = attributes}});
}

CHECK(segment_limits, "10.3.6: one that no descriptor can express")
{
    begin(1);
    EXPECT_EQ(set_limit(0xFFFFF, 0x0093, 0), HV_STATUS_SUCCESS);
    EXPECT_EQ(set_limit(0x100000, 0x0093, 0), HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(set_limit(0x1FFF, 0x8093, 0), HV_STATUS_SUCCESS);
    EXPECT_EQ(set_limit(0x1FFE, 0x8093, 0), HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(set_limit(0x1FFF, 0x8193, 0), HV_STATUS_INVALID_PARAMETER); /* reserved attributes */
    EXPECT_EQ(set_limit(0x1FFF, 0x8093, UINT64_C(1) << 62), HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(get_segment(HV_REGISTER_Ds).limit, 0x1FFF);
}

/* -- Tables (10.3.7) -- */

CHILD_PROGRAM(use_tables, 64,
              "sgdt 0x7000; sidt 0x7010; str %ax; mov %ax, 0x7020; sldt %ax; mov %ax, 0x7022; lgdt 0x7030; lidt 0x7040;"
              "mov $0x20, %ax; ltr %ax; mov $0x30, %ax; lldt %ax; out %al, $0x80; hlt")

CHECK(descriptor_tables, "10.3.7: GDTR, IDTR, LDTR and TR by the processor's own instructions")
{
    begin(1);
    PUT64(0, use_tables);
    set_table(HV_REGISTER_Gdtr, 0x123456789000, 0x1234);
    set_table(HV_REGISTER_Idtr, 0xFFFF800000001000, 0xFFF);
    set_segment(HV_REGISTER_Tr, 0x58, 0x1000, 0x67, 0x8B);
    set_segment(HV_REGISTER_Ldtr, 0x60, 0x2000, 0x17, 0x82);
    uint64_t *gdt = child_memory(&child, TABLES_GPA, 0x40);
    gdt[4] = UINT64_C(0x1200893456780067); /* a free 64-bit TSS at 12345678, and the upper half of its base */
    gdt[5] = 0x7FFF;
    gdt[6] = UINT64_C(0x000082400000FFFF); /* a descriptor table at 400000 */
    gdt[7] = 0;
    uint8_t *data = data_at(DATA_GPA);
    *(uint16_t *)(data + 0x30) = 0x3F;
    memcpy(data + 0x32, &(uint64_t){TABLES_GPA}, 8);
    *(uint16_t *)(data + 0x40) = 0xABC;
    memcpy(data + 0x42, &(uint64_t){0x765432100000}, 8);
    child_resume(&child, 0);
    said();
    uint64_t base;
    EXPECT_EQ(*(uint16_t *)data, 0x1234);
    memcpy(&base, data + 2, 8);
    EXPECT_EQ(base, 0x123456789000);
    EXPECT_EQ(*(uint16_t *)(data + 0x10), 0xFFF);
    memcpy(&base, data + 0x12, 8);
    EXPECT_EQ(base, 0xFFFF800000001000);
    EXPECT_EQ(*(uint16_t *)(data + 0x20), 0x58);
    EXPECT_EQ(*(uint16_t *)(data + 0x22), 0x60);
    EXPECT_EQ(get_wide(HV_REGISTER_Gdtr).table.limit, 0x3F);
    EXPECT_EQ(get_wide(HV_REGISTER_Gdtr).table.base, TABLES_GPA);
    EXPECT_EQ(get_wide(HV_REGISTER_Idtr).table.limit, 0xABC);
    EXPECT_EQ(get_wide(HV_REGISTER_Idtr).table.base, 0x765432100000);
    struct hv_segment tr = get_segment(HV_REGISTER_Tr), ldtr = get_segment(HV_REGISTER_Ldtr);
    EXPECT_EQ(tr.selector, 0x20);
    EXPECT_EQ(tr.base, 0x7FFF12345678);
    EXPECT_EQ(tr.limit, 0x67);
    EXPECT_EQ(tr.attributes, 0x8B); /* busy now */
    EXPECT_EQ(ldtr.selector, 0x30);
    EXPECT_EQ(ldtr.base, 0x400000);
    EXPECT_EQ(ldtr.limit, 0xFFFF);
    EXPECT_EQ(ldtr.attributes, 0x82);
}

/* -- Control registers -- */

#define CR0_MP 0x2u
#define CR0_AM 0x40000u
#define CR4_TSD 0x4u
#define CR4_OSFXSR 0x200u
#define CR4_OSXSAVE 0x40000u
CHILD_PROGRAM(use_control, 64,
              "mov %cr0, %rax; mov %rax, 0x7000; mov %cr2, %rbx; mov %rbx, 0x7008; mov %cr3, %rbx; mov %rbx, 0x7010;"
              "mov %cr4, %rbx; mov %rbx, 0x7018; mov %cr8, %rbx; mov %rbx, 0x7020; xor %ecx, %ecx;"
              "xgetbv; mov %eax, 0x7028; mov %edx, 0x702C; mov $1, %eax; xsetbv;"
              "mov %cr0, %rax; btr $16, %rax; mov %rax, %cr0; mov $0x4321, %eax; mov %rax, %cr2;"
              "mov %cr4, %rax; btr $2, %rax; mov %rax, %cr4; mov $3, %eax; mov %rax, %cr8; out %al, $0x80; hlt")

CHECK(control_registers, "10.2.2: CR0 to CR4, CR8 and XFEM")
{
    begin(1);
    PUT64(0, use_control);
    uint64_t cr0 = get(HV_REGISTER_Cr0) | CR0_WP | CR0_MP | CR0_AM;
    uint64_t cr4 = CR4_PAE | CR4_TSD | CR4_OSFXSR | CR4_OSXSAVE;
    set(HV_REGISTER_Cr0, cr0);
    set(HV_REGISTER_Cr2, 0xFFFF812345678000);
    set(HV_REGISTER_Cr4, cr4);
    set(HV_REGISTER_Cr8, 9);
    set(HV_REGISTER_Xfem, 3);
    child_resume(&child, 0);
    said();
    const uint64_t *stored = data_at(DATA_GPA);
    EXPECT_EQ(stored[0], cr0);
    EXPECT_EQ(stored[1], 0xFFFF812345678000);
    EXPECT_EQ(stored[2], TABLES_GPA + PAGE_SIZE);
    EXPECT_EQ(stored[3], cr4);
    EXPECT_EQ(stored[4], 9);
    EXPECT_EQ(stored[5], 3);
    EXPECT_EQ(get(HV_REGISTER_Cr0), cr0 & ~(uint64_t)CR0_WP);
    EXPECT_EQ(get(HV_REGISTER_Cr2), 0x4321);
    EXPECT_EQ(get(HV_REGISTER_Cr4), cr4 & ~(uint64_t)CR4_TSD);
    EXPECT_EQ(get(HV_REGISTER_Cr8), 3);
    EXPECT_EQ(get(HV_REGISTER_Tpr), 0x30);
    EXPECT_EQ(get(HV_REGISTER_Xfem), 1);
}

CHILD_PROGRAM(write_read_only, 64, "movb $1, 0x7000; mov $0x51, %al; out %al, $0x80; hlt")
CHILD_PROGRAM(say_fault, 64, "mov $0xEF, %al; out %al, $0x80; hlt")

CHECK(write_protection_follows_cr0, "10.4.4: CR0.WP set by the parent is in force when the VP goes on")
{
    begin(1);
    PUT64(0, write_read_only);
    PUT_AT(HANDLER_GPA, say_fault);
    set_gate64(VECTOR_PF, HANDLER_GPA);
    use_idt64();
    /* The lowest 2 MiB are read-only, but for a processor that does not care. */
    uint64_t *entry = data_at(TABLES_GPA + 3 * PAGE_SIZE);
    *entry &= ~(uint64_t)PTE_W;
    uint64_t *high = entry + 1;
    set(HV_REGISTER_Rsp, 3 * MEBIBYTE);
    EXPECT(*high & PTE_W);
    child_resume(&child, 0);
    EXPECT_EQ(said(), 0x51);
    set(HV_REGISTER_Rip, CODE_GPA);
    set(HV_REGISTER_Cr0, get(HV_REGISTER_Cr0) | CR0_WP);
    child_resume(&child, 0);
    EXPECT_EQ(said(), 0xEF);
    EXPECT_EQ(get(HV_REGISTER_Cr2), DATA_GPA);
}

/* -- Debug registers -- */

CHILD_PROGRAM(use_debug, 64,
              "mov %dr0, %rax; mov %rax, 0x7000; mov %dr1, %rax; mov %rax, 0x7008; mov %dr2, %rax; mov %rax, 0x7010;"
              "mov %dr3, %rax; mov %rax, 0x7018; mov %dr6, %rax; mov %rax, 0x7020; mov %dr7, %rax; mov %rax, 0x7028;"
              "mov $0x777000, %eax; mov %rax, %dr3; mov $0x10400, %eax; mov %rax, %dr7; out %al, $0x80; hlt")
#define DR6_FIXED 0xFFFF0FF0u
#define DR7_FIXED 0x400u

CHECK(debug_registers, "10.2.2: DR0 to DR7")
{
    begin(1);
    PUT64(0, use_debug);
    for (unsigned i = 0; i < 4; i++) {
        set(HV_REGISTER_Dr0 + i, 0x100000 * (i + 1));
    }
    set(HV_REGISTER_Dr6, DR6_FIXED | 5);
    set(HV_REGISTER_Dr7, DR7_FIXED | 0x30000);
    child_resume(&child, 0);
    said();
    const uint64_t *stored = data_at(DATA_GPA);
    for (unsigned i = 0; i < 4; i++) {
        EXPECT_EQ(stored[i], 0x100000 * (i + 1));
    }
    EXPECT_EQ(stored[4], DR6_FIXED | 5);
    EXPECT_EQ(stored[5], DR7_FIXED | 0x30000);
    EXPECT_EQ(get(HV_REGISTER_Dr3), 0x777000);
    EXPECT_EQ(get(HV_REGISTER_Dr7), 0x10400);
}

CHILD_PROGRAM(walk_into_breakpoints, 64, "nop; nop; movl $1, 0x7000; mov $0x61, %al; out %al, $0x80; hlt")
#define RFLAGS_RF 0x10000u
#define WRITE_OF_DR1 0xD00004u /* four bytes, locally enabled */

CHECK(breakpoints_of_the_parent, "10.2.2: they stop a VP that never wrote a debug register")
{
    begin(1);
    PUT64(0, walk_into_breakpoints);
    child_intercept_exception(&child, VECTOR_DB);
    set(HV_REGISTER_Dr0, CODE_GPA + 1);
    set(HV_REGISTER_Dr1, DATA_GPA);
    set(HV_REGISTER_Dr7, DR7_FIXED | 1 | WRITE_OF_DR1);
    child_resume(&child, 0);
    struct intercept intercept = next_message(HV_MESSAGE_X64ExceptionIntercept);
    EXPECT_EQ(intercept.exception.vector, VECTOR_DB);
    EXPECT_EQ(intercept_header(&intercept)->rip, CODE_GPA + 1);
    set(HV_REGISTER_Rflags, get(HV_REGISTER_Rflags) | RFLAGS_RF);
    intercept_complete(&intercept, INTERCEPT_AGAIN);
    intercept = next_message(HV_MESSAGE_X64ExceptionIntercept);
    EXPECT_EQ(intercept.exception.vector, VECTOR_DB);
    EXPECT(intercept_header(&intercept)->rip > CODE_GPA + 2); /* a trap */
    EXPECT_EQ(*(uint32_t *)data_at(DATA_GPA), 1);
    set(HV_REGISTER_Dr7, DR7_FIXED);
    intercept_complete(&intercept, INTERCEPT_AGAIN);
    EXPECT_EQ(said(), 0x61);
}

/* -- MSRs -- */

/* What a program reads and writes: the parent's value must be there, and the program's come back. */
struct msr {
    uint32_t index, padding;
    uint64_t found, written, unused;
};

CHILD_PROGRAM(
    exchange_msrs, 64,
    "1: mov (%rsi), %ecx; rdmsr; mov %eax, 8(%rsi); mov %edx, 12(%rsi); mov 16(%rsi), %eax; mov 20(%rsi), %edx;"
    "wrmsr; add $32, %rsi; dec %edi; jnz 1b; out %al, $0x80; hlt")

static const struct {
    uint32_t name, index;
    uint64_t value, written;
} msrs[] = {
    {HV_REGISTER_Efer, MSR_EFER, EFER_LME | EFER_LMA | 1, EFER_LME | EFER_LMA | EFER_NXE},
    {HV_REGISTER_KernelGsBase, 0xC0000102, 0xFFFF888877776000, 0x7FFF00001111},
    {HV_REGISTER_Pat, 0x277, 0x0001040506070406, 0x0007040600070406},
    {HV_REGISTER_SysenterCs, 0x174, 0x1234, 0x4321},
    {HV_REGISTER_SysenterRsp, 0x175, 0x123456789, 0x987654321},
    {HV_REGISTER_SysenterRip, 0x176, 0xFFFF800012345678, 0x1000},
    {HV_REGISTER_Star, 0xC0000081, 0x0023001000000000, 0x0013000800000000},
    {HV_REGISTER_Lstar, 0xC0000082, 0xFFFFFFFF81000000, 0x2000},
    {HV_REGISTER_Cstar, 0xC0000083, 0xFFFFFFFF82000000, 0x3000},
    {HV_REGISTER_Sfmask, 0xC0000084, 0x47700, 0x200},
    {HV_REGISTER_MtrrDefType, 0x2FF, 0xC06, 0x806},
    {HV_REGISTER_MtrrPhysBase0, 0x200, 0xC0000000, 0x80000006},
    {HV_REGISTER_MtrrPhysMask0, 0x201, 0xFC0000800, 0xF80000800},
    {HV_REGISTER_MtrrPhysBase7, 0x20E, 0x12340006, 0x56780000},
    {HV_REGISTER_MtrrPhysMask7, 0x20F, 0xFFFFF000, 0},
    {HV_REGISTER_MtrrFix64k00000, 0x250, 0x0606060606060606, 0},
    {HV_REGISTER_MtrrFix16k80000, 0x258, 0x0606060606060606, 0x0404040404040404},
    {HV_REGISTER_MtrrFix16kA0000, 0x259, 0x0100010001000100, 0},
    {HV_REGISTER_MtrrFix4kC0000, 0x268, 0x0505050505050505, 0x0606060606060606},
    {HV_REGISTER_MtrrFix4kF8000, 0x26F, 0x0500050005000500, 0x0606060606060606},
};
#define MSR_COUNT (sizeof(msrs) / sizeof(msrs[0]))

CHECK(virtual_msrs, "10.2.2: RDMSR finds what the parent set, the parent what WRMSR wrote")
{
    begin(1);
    PUT64(0, exchange_msrs);
    struct msr *list = child_memory(&child, DATA_GPA, PAGE_SIZE);
    for (unsigned i = 0; i < MSR_COUNT; i++) {
        list[i] = (struct msr){.index = msrs[i].index, .written = msrs[i].written};
        set(msrs[i].name, msrs[i].value);
    }
    set(HV_REGISTER_Rsi, DATA_GPA);
    set(HV_REGISTER_Rdi, MSR_COUNT);
    child_resume(&child, 0);
    said();
    for (unsigned i = 0; i < MSR_COUNT; i++) {
        EXPECT_THAT(list[i].found == msrs[i].value, "MSR %x holds %llx", list[i].index,
                    (unsigned long long)list[i].found);
        uint64_t now = get(msrs[i].name);
        EXPECT_THAT(now == msrs[i].written, "MSR %x is told to be %llx", list[i].index, (unsigned long long)now);
    }
}

#define RFLAGS_AC 0x40000u
#define RFLAGS_ID 0x200000u
CHILD_PROGRAM(call_the_system, 64, "syscall; out %al, $0x80; hlt")
CHILD_PROGRAM(serve, 64, "swapgs; mov %gs:0, %al; out %al, $0x80; hlt")

CHECK(system_call, "10.2.2: STAR, LSTAR, SFMASK, EFER.SCE and the kernel's GS base do what they are for")
{
    begin(1);
    PUT64(0, call_the_system);
    PUT_AT(HANDLER_GPA, serve);
    set(HV_REGISTER_Efer, EFER_LME | EFER_LMA | 1);
    set(HV_REGISTER_Star, (uint64_t)CHILD_CODE << 32);
    set(HV_REGISTER_Lstar, HANDLER_GPA);
    set(HV_REGISTER_Sfmask, RFLAGS_AC);
    set(HV_REGISTER_Rflags, RFLAGS_AC | RFLAGS_ID | RFLAGS_FIXED);
    set(HV_REGISTER_KernelGsBase, 0x40000);
    *(uint8_t *)data_at(0x40000) = 0x71;
    child_resume(&child, 0);
    EXPECT_EQ(said(), 0x71);
    EXPECT_EQ(get(HV_REGISTER_Rcx), CODE_GPA + 2);
    EXPECT_EQ(get(HV_REGISTER_R11), RFLAGS_AC | RFLAGS_ID | RFLAGS_FIXED);
    EXPECT_EQ(get(HV_REGISTER_Rflags), RFLAGS_ID | RFLAGS_FIXED);
    EXPECT_EQ(get_segment(HV_REGISTER_Gs).base, 0x40000);
    EXPECT_EQ(get_segment(HV_REGISTER_Ss).selector, CHILD_DATA);
}

CHILD_PROGRAM(read_tsc, 64, "rdtsc; mov %eax, 0x7000; mov %edx, 0x7004; out %al, $0x80; hlt")
#define TSC_VALUE (UINT64_C(1) << 50)

CHECK(time_stamp_counter, "11.7: per VP, set by the parent, and it goes on while the VP is suspended")
{
    begin(1);
    PUT64(0, read_tsc);
    set(HV_REGISTER_Tsc, TSC_VALUE);
    child_resume(&child, 0);
    said();
    uint64_t read = *(uint64_t *)data_at(DATA_GPA), first = get(HV_REGISTER_Tsc);
    EXPECT(read >= TSC_VALUE);
    EXPECT(first >= read);
    EXPECT(first < TSC_VALUE + (UINT64_C(1) << 49));
    clock_delay(1000);
    EXPECT(get(HV_REGISTER_Tsc) > first);
}

/* -- Floating point and vectors (10.3.5) -- */

struct fxsave {
    uint16_t control, status;
    uint8_t tags, reserved;
    uint16_t opcode;
    uint64_t ip, dp;
    uint32_t mxcsr, mxcsr_mask;
    uint64_t st[8][2], xmm[16][2];
};
CHILD_PROGRAM(save_and_compute, 64,
              "fxsave64 0x7000; fstpt 0x7200; fstpt 0x7210; fldpi; paddq %xmm1, %xmm0; movups %xmm15, %xmm14;"
              "cvtsd2si %xmm2, %eax; out %al, $0x80; hlt")
#define ROUND_UP 0x4000u
#define MXCSR_DEFAULT 0x1F80u
#define PI_MANTISSA 0xC90FDAA22168C235u

static void set_floating_point(void)
{
    /* Three registers in use, from ST(0) on: TOP is 5, and 7:0 of the tags have a bit for each of R7 to R0. */
    set_wide(HV_REGISTER_FpControlStatus, (union hv_register_value){.words = {UINT64_C(0xE02800027F), 0}});
    set_wide(HV_REGISTER_XmmControlStatus,
             (union hv_register_value){.words = {0, UINT64_C(0xFFFF) << 32 | MXCSR_DEFAULT | ROUND_UP}});
    for (unsigned i = 0; i < 8; i++) {
        uint64_t exponent = i < 3 ? 0x3FFF + i : 0;
        set_wide(HV_REGISTER_FpMmx0 + i, (union hv_register_value){.words = {i < 3 ? UINT64_C(1) << 63 : 0, exponent}});
    }
    for (unsigned i = 0; i < 16; i++) {
        set_wide(HV_REGISTER_Xmm0 + i, (union hv_register_value){.words = {pattern(i), pattern(i + 16)}});
    }
    set_wide(HV_REGISTER_Xmm2, (union hv_register_value){.words = {0x3FF3333333333333, 0}}); /* 1.2 */
    set(HV_REGISTER_Cr4, get(HV_REGISTER_Cr4) | CR4_OSFXSR);
}

CHECK(floating_point, "10.3.5: x87 and SSE state, with their control and status")
{
    begin(1);
    PUT64(0, save_and_compute);
    set_floating_point();
    child_resume(&child, 0);
    EXPECT_EQ(said(), 2); /* 1.2, rounded up as the parent wants it */
    const struct fxsave *saved = child_memory(&child, DATA_GPA, sizeof(*saved));
    EXPECT_EQ(saved->control, 0x27F);
    EXPECT_EQ(saved->status, 0x2800);
    EXPECT_EQ(saved->tags, 0xE0);
    EXPECT_EQ(saved->mxcsr, MXCSR_DEFAULT | ROUND_UP);
    for (unsigned i = 0; i < 3; i++) {
        EXPECT_EQ(saved->st[i][0], UINT64_C(1) << 63);
        EXPECT_EQ(saved->st[i][1] & 0xFFFF, 0x3FFF + i);
    }
    for (unsigned i = 3; i < 16; i++) {
        EXPECT_EQ(saved->xmm[i][0], pattern(i));
        EXPECT_EQ(saved->xmm[i][1], pattern(i + 16));
    }
    EXPECT_EQ(*(uint16_t *)data_at(DATA_GPA + 0x208), 0x3FFF);
    EXPECT_EQ(*(uint16_t *)data_at(DATA_GPA + 0x218), 0x4000);
    union hv_register_value st0 = get_wide(HV_REGISTER_FpMmx0), status = get_wide(HV_REGISTER_FpControlStatus);
    EXPECT_EQ(st0.words[0], PI_MANTISSA);
    EXPECT_EQ(st0.words[1], 0x4000);
    EXPECT_EQ(status.words[0] >> 27 & 7, 6); /* two were taken from the stack, one put there */
    EXPECT_EQ(status.words[0] >> 32 & 0xFF, 0xC0);
    union hv_register_value xmm0 = get_wide(HV_REGISTER_Xmm0), xmm14 = get_wide(HV_REGISTER_Xmm14);
    EXPECT_EQ(xmm0.words[0], pattern(0) + pattern(1));
    EXPECT_EQ(xmm0.words[1], pattern(16) + pattern(17));
    EXPECT_EQ(xmm14.words[0], pattern(15));
    EXPECT_EQ(xmm14.words[1], pattern(31));
    EXPECT_EQ(get_wide(HV_REGISTER_XmmControlStatus).words[1] & 0x20, 0x20); /* inexact */
}

CHILD_PROGRAM(use_ymm, 64, "vmovdqu %ymm3, 0x7000; vmovdqu 0x7020, %ymm4; out %al, $0x80; hlt")

CHECK(wide_vectors, "10.2.2: YMM registers in halves; the lower ones are the XMM registers")
{
    begin(1);
    PUT64(0, use_ymm);
    uint64_t *data = data_at(DATA_GPA);
    set(HV_REGISTER_Cr4, CR4_PAE | CR4_OSFXSR | CR4_OSXSAVE);
    set(HV_REGISTER_Xfem, 7);
    set_wide(HV_REGISTER_Xmm3, (union hv_register_value){.words = {pattern(1), pattern(2)}});
    set_wide(HV_REGISTER_Ymm3High, (union hv_register_value){.words = {pattern(3), pattern(4)}});
    EXPECT_EQ(get_wide(HV_REGISTER_Ymm3Low).words[1], pattern(2));
    for (unsigned i = 0; i < 4; i++) {
        data[4 + i] = pattern(10 + i);
    }
    child_resume(&child, 0);
    said();
    for (unsigned i = 0; i < 4; i++) {
        EXPECT_EQ(data[i], pattern(1 + i));
    }
    EXPECT_EQ(get_wide(HV_REGISTER_Xmm4).words[0], pattern(10));
    EXPECT_EQ(get_wide(HV_REGISTER_Ymm4Low).words[1], pattern(11));
    EXPECT_EQ(get_wide(HV_REGISTER_Ymm4High).words[0], pattern(12));
    EXPECT_EQ(get_wide(HV_REGISTER_Ymm4High).words[1], pattern(13));
}

/* -- The local APIC's, and those of the hypervisor -- */

CHILD_PROGRAM(
    use_apic, 64,
    "mov $0xFEE00000, %edi; mov 0x20(%rdi), %eax; mov %eax, 0x7000; mov 0x80(%rdi), %eax; mov %eax, 0x7004;"
    "mov 0x310(%rdi), %eax; mov %eax, 0x7008; mov 0x300(%rdi), %eax; mov %eax, 0x700C; movl $0x60, 0x80(%rdi);"
    "mov $0x1B, %ecx; rdmsr; mov %eax, 0x7010; mov $1, %eax; cpuid; mov %ebx, 0x7014; out %al, $0x80; hlt")

CHECK(apic_registers, "10.1.6, 10.2.2: TPR, ICR, base, and the initial APIC ID that CPUID shows")
{
    begin(1);
    PUT64(0, use_apic);
    set(HV_REGISTER_Tpr, 0x45);
    set(HV_REGISTER_Icr, UINT64_C(0x0700000000004045));
    set(HV_REGISTER_InitialApicId, 5);
    child_resume(&child, 0);
    said();
    const uint32_t *data = data_at(DATA_GPA);
    EXPECT_EQ(data[0] >> 24, 0); /* the programmable ID is another */
    EXPECT_EQ(data[1], 0x45);
    EXPECT_EQ(data[2], 0x07000000);
    EXPECT_EQ(data[3] & ~0x1000u, 0x4045); /* and nothing was sent */
    EXPECT_EQ(data[4], 0xFEE00900); /* 10.1.5: the boot processor */
    EXPECT_EQ(data[5] >> 24, 5);
    EXPECT_EQ(get(HV_REGISTER_Tpr), 0x60);
    EXPECT_EQ(get(HV_REGISTER_Cr8), 6);
    EXPECT_EQ(get(HV_REGISTER_InitialApicId), 5);
}

CHILD_PROGRAM(use_synthetic, 64,
              "mov $0x40000000, %ecx; rdmsr; mov %eax, 0x7000; mov %edx, 0x7004; mov $0x40000093, %ecx; rdmsr;"
              "mov %eax, 0x7008; mov %edx, 0x700C; mov $0x40000083, %ecx; mov $0x3F001, %eax; xor %edx, %edx; wrmsr;"
              "out %al, $0x80; hlt")

CHECK(synthetic_registers, "10.2.2: the hypervisor's own MSRs by name; their pages appear at once")
{
    begin(1);
    PUT64(0, use_synthetic);
    set(HV_REGISTER_GuestOsId, 0x8100000000000001);
    set(HV_REGISTER_Sint0 + 3, 0x10055);
    child_resume(&child, 0);
    said();
    const uint64_t *data = data_at(DATA_GPA);
    EXPECT_EQ(data[0], 0x8100000000000001);
    EXPECT_EQ(data[1], 0x10055);
    EXPECT_EQ(get(HV_REGISTER_Simp), 0x3F001);
    EXPECT_EQ(get(HV_REGISTER_VpIndex), 0);
    EXPECT_EQ(get(HV_REGISTER_Sversion), 1);
    uint64_t time = get(HV_REGISTER_TimeRefCount), run = get(HV_REGISTER_VpRuntime);
    clock_delay(100);
    EXPECT(get(HV_REGISTER_TimeRefCount) >= time);
    EXPECT_EQ(get(HV_REGISTER_VpRuntime), run); /* it is suspended */
}

/* -- What is refused (10.4.4) -- */

#define NOT_CANONICAL (UINT64_C(1) << 62)
static const struct {
    uint32_t name;
    uint64_t low, high;
} invalid[] = {
    {HV_REGISTER_ExplicitSuspend, 2, 0},
    {HV_REGISTER_InterceptSuspend, 1, 0}, /* only the hypervisor sets it */
    {HV_REGISTER_InterceptSuspend, 2, 0},
    {HV_REGISTER_InterceptSuspend, 4, 0},
    {HV_REGISTER_InterruptState, 4, 0},
    {HV_REGISTER_Rax, 0, 1}, /* beyond the register */
    {HV_REGISTER_Rip, NOT_CANONICAL, 0},
    {HV_REGISTER_Rflags, 0, 0}, /* bit 1 is always set */
    {HV_REGISTER_Rflags, RFLAGS_FIXED | 8, 0},
    {HV_REGISTER_Rflags, RFLAGS_FIXED | 1 << 22, 0},
    {HV_REGISTER_Rflags, RFLAGS_FIXED | UINT64_C(1) << 32, 0},
    {HV_REGISTER_FpMmx0, 0, UINT64_C(1) << 16},
    {HV_REGISTER_FpControlStatus, UINT64_C(2) << 40, 0},
    {HV_REGISTER_XmmControlStatus, 0, 0x10000},
    {HV_REGISTER_Cr0, CR0_ET | CR0_PG, 0},
    {HV_REGISTER_Cr0, CR0_ET | 1 << 29, 0}, /* NW without CD */
    {HV_REGISTER_Cr0, CR0_ET | 1 << 6, 0},
    {HV_REGISTER_Cr0, 0, 0},
    {HV_REGISTER_Cr0, CR0_ET | UINT64_C(1) << 32, 0},
    {HV_REGISTER_Cr3, UINT64_C(1) << 63, 0},
    {HV_REGISTER_Cr4, UINT64_C(1) << 40, 0},
    {HV_REGISTER_Cr4, 1 << 13, 0}, /* VMXE */
    {HV_REGISTER_Cr8, 16, 0},
    {HV_REGISTER_Xfem, 0, 0},
    {HV_REGISTER_Xfem, 5, 0}, /* AVX without SSE */
    {HV_REGISTER_Dr6, DR6_FIXED | 1 << 12, 0},
    {HV_REGISTER_Dr6, 0, 0},
    {HV_REGISTER_Dr7, 0, 0},
    {HV_REGISTER_Dr7, DR7_FIXED | UINT64_C(1) << 32, 0},
    {HV_REGISTER_Idtr, 0, NOT_CANONICAL},
    {HV_REGISTER_Gdtr, 0, NOT_CANONICAL},
    {HV_REGISTER_Efer, 2, 0},
    {HV_REGISTER_KernelGsBase, NOT_CANONICAL, 0},
    {HV_REGISTER_Lstar, NOT_CANONICAL, 0},
    {HV_REGISTER_SysenterCs, UINT64_C(1) << 32, 0},
    {HV_REGISTER_Pat, 2, 0},
    {HV_REGISTER_MtrrCap, 0, 0},
    {HV_REGISTER_MtrrDefType, 2, 0},
    {HV_REGISTER_MtrrDefType, 0x100, 0},
    {HV_REGISTER_MtrrFix4kC0000, 2, 0},
    {HV_REGISTER_MtrrPhysBase0, UINT64_C(1) << 60, 0},
    {HV_REGISTER_VpRuntime, 0, 0}, /* read-only */
    {HV_REGISTER_VpIndex, 0, 0},
    {HV_REGISTER_TimeRefCount, 0, 0},
    {HV_REGISTER_Sversion, 1, 0},
    {0x00010000, 0, 0}, /* no such names */
    {0x00020012, 0, 0},
    {0x000D0000, 0, 0},
    {0x00080006 | 0x80, 0, 0},
    {UINT32_MAX, 0, 0},
};

CHECK(refused_values, "10.4.4: reserved bits, fixed bits, bits beyond the register, read-only registers, unknown names")
{
    begin(1);
    for (unsigned i = 0; i < sizeof(invalid) / sizeof(invalid[0]); i++) {
        unsigned status = try_set(invalid[i].name, invalid[i].low, invalid[i].high);
        EXPECT_THAT(status == HV_STATUS_INVALID_PARAMETER, "register %x, value %llx %llx: status %s", invalid[i].name,
                    (unsigned long long)invalid[i].high, (unsigned long long)invalid[i].low, hv_status_name(status));
    }
    EXPECT_EQ(get(HV_REGISTER_Rip), 0xFFF0);
    EXPECT_EQ(get(HV_REGISTER_Rflags), RFLAGS_FIXED);
    EXPECT_EQ(get(HV_REGISTER_Pat), 0x0007040600070406);
}

CHECK(lists, "10.4.3, 10.4.4, 4.8: what comes before a bad element is done, and counted")
{
    begin(1);
    struct hv_register_assignment list[] = {{.name = HV_REGISTER_Rax, .value.u64 = 1},
                                            {.name = HV_REGISTER_Rbx, .value.u64 = 2},
                                            {.name = HV_REGISTER_Rip, .value.u64 = NOT_CANONICAL},
                                            {.name = HV_REGISTER_Rcx, .value.u64 = 4}};
    struct hv_in_set_vp_registers set_input = {.partition = child.id};
    unsigned done = 99;
    EXPECT_EQ(hvcall_set_vp_registers(&set_input, list, NULL, 4, &done), HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(done, 2);
    EXPECT_EQ(get(HV_REGISTER_Rbx), 2);
    EXPECT_EQ(get(HV_REGISTER_Rcx), 0);
    const uint32_t names[] = {HV_REGISTER_Rax, HV_REGISTER_Rbx, 0x0001FFFF, HV_REGISTER_Rcx};
    union hv_register_value values[4] = {{.words = {0}}};
    struct hv_in_get_vp_registers get_input = {.partition = child.id};
    EXPECT_EQ(hvcall_get_vp_registers(&get_input, names, values, 4, &done), HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(done, 2);
    EXPECT_EQ(values[0].u64, 1);
    EXPECT_EQ(values[1].u64, 2);
}

/* 10.4.4 has no status for the value of one register that only another one makes wrong: see 10.1.2. */
CHECK(long_lists, "4.3: more registers than one turn of the call does")
{
    enum { COUNT = 120 };
    static struct hv_register_assignment list[COUNT];
    static uint32_t names[COUNT];
    static union hv_register_value values[COUNT];
    begin(1);
    for (unsigned i = 0; i < COUNT; i++) {
        names[i] = i % 2 ? HV_REGISTER_Xmm0 + i / 2 % 16 : HV_REGISTER_Rax + i / 2 % 16;
        list[i] = (struct hv_register_assignment){.name = names[i], .value.u64 = pattern(i)};
    }
    child_set_registers(&child, 0, list, COUNT);
    child_get_registers(&child, 0, names, values, COUNT);
    for (unsigned i = COUNT - 32; i < COUNT; i++) {
        EXPECT_EQ(values[i].u64, pattern(i)); /* the last that was written to each */
        EXPECT_EQ(values[i - 32].u64, pattern(i));
    }
}

CHECK(statuses, "10.4.3, 10.4.4: whose registers they are")
{
    begin(1);
    struct hv_register_assignment rax = {.name = HV_REGISTER_Rax};
    struct hv_in_set_vp_registers input = {.partition = child.id, .vp = 1};
    struct hv_out_get_partition_id self;
    HV_MUST(hvcall_get_partition_id(NULL, &self));
    EXPECT_EQ(hvcall_set_vp_registers(&input, &rax, NULL, 1, NULL), HV_STATUS_INVALID_VP_INDEX);
    EXPECT_EQ(try_get(child.id, 1, HV_REGISTER_Rax), HV_STATUS_INVALID_VP_INDEX);
    EXPECT_EQ(try_get(child.id, HV_ANY_VP, HV_REGISTER_Rax), HV_STATUS_INVALID_VP_INDEX);
    input = (struct hv_in_set_vp_registers){.partition = self.partition};
    EXPECT_EQ(hvcall_set_vp_registers(&input, &rax, NULL, 1, NULL), HV_STATUS_ACCESS_DENIED);
    EXPECT_EQ(try_get(self.partition, 0, HV_REGISTER_Rax), HV_STATUS_SUCCESS); /* one's own may be read */
    input.partition = 0x7777;
    EXPECT_EQ(hvcall_set_vp_registers(&input, &rax, NULL, 1, NULL), HV_STATUS_INVALID_PARTITION_ID);
    EXPECT_EQ(try_get(0x7777, 0, HV_REGISTER_Rax), HV_STATUS_INVALID_PARTITION_ID);
    struct hv_in_finalize_partition finalize = {.partition = child.id};
    HV_MUST(hvcall_finalize_partition(&finalize, NULL));
    input.partition = child.id;
    EXPECT_EQ(hvcall_set_vp_registers(&input, &rax, NULL, 1, NULL), HV_STATUS_INVALID_PARTITION_STATE);
    EXPECT_EQ(try_get(child.id, 0, HV_REGISTER_Rax), HV_STATUS_INVALID_PARTITION_STATE);
}
