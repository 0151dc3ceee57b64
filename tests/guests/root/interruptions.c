/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS 10.3.3 and 10.3.4: interruptions that a parent has pending for a VP, of every type and in every mode, and the
 * interrupt state: the shadow of an instruction, and NMIs masked by an NMI.
 */
#include "programs.h"

#define VECTOR_CHILD 0x60
#define TYPE_INTERRUPT 0u
#define TYPE_NMI 2u
#define TYPE_EXCEPTION 3u
#define STATE_SHADOW 1u
#define STATE_NMI_MASKED 2u

void guest_cleanup(void)
{
    root_reset_state();
}

static uint64_t pending(unsigned type, unsigned vector)
{
    return HV_PENDING | (uint64_t)type << 1 | HV_PENDING_VECTOR(vector);
}

static uint64_t pending_with_code(unsigned vector, uint32_t code)
{
    return pending(TYPE_EXCEPTION, vector) | HV_PENDING_ERROR_CODE | HV_PENDING_ERROR(code);
}

/* -- Delivery in 64-bit mode -- */

CHILD_PROGRAM(say_main, 64, "mov $0x11, %al; out %al, $0x80; hlt")
CHILD_PROGRAM(say_handler, 64, "mov $0x22, %al; out %al, $0x80; iretq")
CHILD_PROGRAM(drop_code, 64, "mov $0x22, %al; out %al, $0x80; add $8, %rsp; iretq")

static void prepare64(unsigned vector, const uint8_t *handler, const uint8_t *handler_end)
{
    PUT64(0, say_main);
    child_put_program(&child, HANDLER_GPA, handler, handler_end);
    set_gate64(vector, HANDLER_GPA);
    use_idt64();
}

static bool has_code(unsigned vector)
{
    return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
}

static void inject_exception(unsigned vector)
{
    const uint64_t *stack = data_at(STACK_GPA - 48);
    uint64_t value = has_code(vector) ? pending_with_code(vector, vector == 8 || vector == 17 ? 0 : 0x1230 + vector)
                                      : pending(TYPE_EXCEPTION, vector);
    if (has_code(vector)) {
        prepare64(vector, drop_code, drop_code_end);
    } else {
        prepare64(vector, say_handler, say_handler_end);
    }
    memset(data_at(STACK_GPA - 48), 0xAA, 48);
    set(HV_REGISTER_PendingInterruption, value);
    EXPECT_EQ(get(HV_REGISTER_PendingInterruption), value);
    child_resume(&child, 0);
    EXPECT_EQ(said(), 0x22);
    EXPECT_EQ(get(HV_REGISTER_PendingInterruption), 0);
    EXPECT_EQ(get(HV_REGISTER_Rsp), STACK_GPA - (has_code(vector) ? 48 : 40));
    EXPECT_EQ(stack[0], has_code(vector) ? value >> 32 : 0xAAAAAAAAAAAAAAAA);
    EXPECT_EQ(stack[1], CODE_GPA);
    EXPECT_EQ(stack[2], CHILD_CODE);
    EXPECT_EQ(stack[3] & ~UINT64_C(0x10000), RFLAGS_FIXED); /* but for RF, which processors differ in */
    EXPECT_EQ(stack[4], STACK_GPA);
    EXPECT_EQ(stack[5], CHILD_DATA);
    go_on();
    EXPECT_EQ(said(), 0x11);
}

CHECK(exceptions, "10.3.4: every exception, with an error code where it has one")
{
    static const uint8_t vectors[] = {0, 1, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19};
    begin(1);
    for (unsigned i = 0; i < sizeof(vectors); i++) {
        inject_exception(vectors[i]);
    }
}

CHECK(page_fault_address, "10.3.4: an injected page fault finds CR2 as the parent set it")
{
    begin(1);
    prepare64(VECTOR_PF, drop_code, drop_code_end);
    set(HV_REGISTER_Cr2, 0x123456789ABC);
    set(HV_REGISTER_PendingInterruption, pending_with_code(VECTOR_PF, 7));
    child_resume(&child, 0);
    EXPECT_EQ(said(), 0x22);
    EXPECT_EQ(get(HV_REGISTER_Cr2), 0x123456789ABC);
    EXPECT_EQ(*(uint64_t *)data_at(STACK_GPA - 48), 7);
}

CHECK(interrupt, "10.3.4: an interrupt that no controller knows of")
{
    begin(1);
    prepare64(VECTOR_CHILD, say_handler, say_handler_end);
    set(HV_REGISTER_Rflags, RFLAGS_FIXED | RFLAGS_IF);
    set(HV_REGISTER_PendingInterruption, pending(TYPE_INTERRUPT, VECTOR_CHILD));
    EXPECT_EQ(get(HV_REGISTER_PendingInterruption), pending(TYPE_INTERRUPT, VECTOR_CHILD));
    child_resume(&child, 0);
    EXPECT_EQ(said(), 0x22);
    EXPECT_EQ(get(HV_REGISTER_Rflags) & RFLAGS_IF, 0);
    EXPECT_EQ(get(HV_REGISTER_InterruptState), 0);
    go_on();
    EXPECT_EQ(said(), 0x11);
    EXPECT_EQ(get(HV_REGISTER_Rflags) & RFLAGS_IF, RFLAGS_IF);
}

CHECK(nmi, "10.3.3, 10.3.4: further NMIs are masked until IRET")
{
    begin(1);
    prepare64(VECTOR_NMI, say_handler, say_handler_end);
    set(HV_REGISTER_PendingInterruption, pending(TYPE_NMI, VECTOR_NMI));
    EXPECT_EQ(get(HV_REGISTER_PendingInterruption), pending(TYPE_NMI, VECTOR_NMI));
    child_resume(&child, 0);
    EXPECT_EQ(said(), 0x22);
    EXPECT_EQ(get(HV_REGISTER_InterruptState), STATE_NMI_MASKED);
    HV_MUST(child_assert_interrupt(&child, HV_INTERRUPT_NMI, 0, 0));
    go_on();
    EXPECT_EQ(said(), 0x22); /* the second, right after the first one's IRET */
    EXPECT_EQ(*(uint64_t *)data_at(STACK_GPA - 40), CODE_GPA);
    go_on();
    EXPECT_EQ(said(), 0x11);
    EXPECT_EQ(get(HV_REGISTER_InterruptState), 0);
}

CHECK(nmi_masked_by_the_parent, "10.3.3: NmiMasked set from outside holds back the NMI of the interrupt controller")
{
    begin(1);
    prepare64(VECTOR_NMI, say_handler, say_handler_end);
    set(HV_REGISTER_InterruptState, STATE_NMI_MASKED);
    HV_MUST(child_assert_interrupt(&child, HV_INTERRUPT_NMI, 0, 0));
    child_resume(&child, 0);
    EXPECT_EQ(said(), 0x11);
    EXPECT_EQ(get(HV_REGISTER_InterruptState), STATE_NMI_MASKED);
    set(HV_REGISTER_Rip, CODE_GPA);
    set(HV_REGISTER_InterruptState, 0);
    child_resume(&child, 0);
    EXPECT_EQ(said(), 0x22);
}

CHECK(pending_interruption_taken_back, "10.3.4: cleared before the VP goes on it never happens")
{
    begin(1);
    prepare64(VECTOR_UD, say_handler, say_handler_end);
    set(HV_REGISTER_PendingInterruption, pending(TYPE_EXCEPTION, VECTOR_UD));
    set(HV_REGISTER_PendingInterruption, 0);
    child_resume(&child, 0);
    EXPECT_EQ(said(), 0x11);
}

CHILD_PROGRAM(halt_first, 64, "cli; mov $0x33, %al; out %al, $0x80; 1: hlt; jmp 1b")

CHECK(halted_vp_is_woken, "10.3.4: a pending interruption ends the wait of HLT, interrupts off or not")
{
    begin(1);
    PUT64(0, halt_first);
    PUT_AT(HANDLER_GPA, say_handler);
    set_gate64(VECTOR_UD, HANDLER_GPA);
    use_idt64();
    child_resume(&child, 0);
    EXPECT_EQ(said(), 0x33);
    go_on();
    for (unsigned i = 0; i < 3; i++) {
        clock_delay(500);
        set(HV_REGISTER_PendingInterruption, pending(TYPE_EXCEPTION, VECTOR_UD));
        EXPECT_EQ(said(), 0x22);
        go_on();
    }
}

/* -- Into a handler of a higher privilege -- */

#define USER_CODE 0x2B
#define USER_DATA 0x33
#define RSP0 0x31000u

CHECK(from_user_mode, "10.3.4: to the stack that the TSS names, which the VP's TR finds")
{
    begin(1);
    prepare64(VECTOR_GP, say_handler, say_handler_end);
    set_segment(HV_REGISTER_Cs, USER_CODE, 0, UINT32_MAX, 0xA0FB);
    set_segment(HV_REGISTER_Ss, USER_DATA, 0, UINT32_MAX, 0xC0F3);
    set_segment(HV_REGISTER_Tr, 0x40, TSS_GPA, 0x67, 0x8B);
    memcpy(data_at(TSS_GPA + 4), &(uint64_t){RSP0}, 8);
    child_inject_exception(&child, 0, VECTOR_GP, true, 0x55);
    child_resume(&child, 0);
    EXPECT_EQ(said(), 0x22);
    const uint64_t *stack = data_at(RSP0 - 48);
    EXPECT_EQ(get(HV_REGISTER_Rsp), RSP0 - 48);
    EXPECT_EQ(stack[0], 0x55);
    EXPECT_EQ(stack[1], CODE_GPA);
    EXPECT_EQ(stack[2], USER_CODE);
    EXPECT_EQ(stack[4], STACK_GPA);
    EXPECT_EQ(stack[5], USER_DATA);
    EXPECT_EQ(get_segment(HV_REGISTER_Cs).selector, CHILD_CODE);
    EXPECT_EQ(get_segment(HV_REGISTER_Ss).selector & 3, 0);
}

/* -- In other modes -- */

CHILD_PROGRAM(say_main16, 16, "mov $0x44, %al; out %al, $0x80; hlt")
CHILD_PROGRAM(say_handler16, 16, "mov $0x55, %al; out %al, $0x80; iretw")

CHECK(in_real_mode, "10.3.4: by the interrupt vector table, three words and never an error code")
{
    begin(1);
    PUT16(0, say_main16);
    PUT_AT(HANDLER_GPA, say_handler16);
    uint16_t *vectors = child_memory(&child, 0, 0x400);
    vectors[2 * VECTOR_GP] = 0;
    vectors[2 * VECTOR_GP + 1] = HANDLER_GPA >> 4;
    set_segment(HV_REGISTER_Ss, STACK_GPA >> 4, STACK_GPA, 0xFFFF, 0x93);
    set(HV_REGISTER_Rsp, 0x100);
    set(HV_REGISTER_PendingInterruption, pending(TYPE_EXCEPTION, VECTOR_GP));
    child_resume(&child, 0);
    EXPECT_EQ(said(), 0x55);
    EXPECT_EQ(get(HV_REGISTER_Rsp), 0x100 - 6);
    const uint16_t *stack = data_at(STACK_GPA + 0x100 - 6);
    EXPECT_EQ(stack[0], 0);
    EXPECT_EQ(stack[1], CODE_GPA >> 4);
    EXPECT_EQ(stack[2], RFLAGS_FIXED);
    go_on();
    EXPECT_EQ(said(), 0x44);
}

CHILD_PROGRAM(say_main32, 32, "mov $0x66, %al; out %al, $0x80; hlt")
CHILD_PROGRAM(say_handler32, 32, "mov $0x77, %al; out %al, $0x80; add $4, %esp; iret")

CHECK(in_protected_mode, "10.3.4: a 32-bit gate")
{
    begin(1);
    PUT32(0, say_main32);
    PUT_AT(HANDLER_GPA, say_handler32);
    uint32_t *gate = data_at(IDT_GPA + 8 * VECTOR_GP);
    gate[0] = CHILD_CODE << 16 | HANDLER_GPA;
    gate[1] = 0x8E00;
    set_table(HV_REGISTER_Idtr, IDT_GPA, 0x7FF);
    set(HV_REGISTER_Rsp, STACK_GPA);
    child_inject_exception(&child, 0, VECTOR_GP, true, 0x66);
    child_resume(&child, 0);
    EXPECT_EQ(said(), 0x77);
    const uint32_t *stack = data_at(STACK_GPA - 16);
    EXPECT_EQ(get(HV_REGISTER_Rsp), STACK_GPA - 16);
    EXPECT_EQ(stack[0], 0x66);
    EXPECT_EQ(stack[1], CODE_GPA);
    EXPECT_EQ(stack[2], CHILD_CODE);
    go_on();
    EXPECT_EQ(said(), 0x66);
}

/* -- What is refused -- */

CHECK(refused_interruptions, "10.3.4, 10.4.4: types, vectors and reserved bits")
{
    begin(1);
    for (unsigned type = 0; type < 8; type++) {
        unsigned vector = type == TYPE_NMI ? VECTOR_NMI : VECTOR_UD;
        bool valid = type == TYPE_INTERRUPT || type == TYPE_NMI || type == TYPE_EXCEPTION;
        EXPECT_EQ(try_set(HV_REGISTER_PendingInterruption, pending(type, vector), 0),
                  valid ? HV_STATUS_SUCCESS : HV_STATUS_INVALID_PARAMETER);
        EXPECT_EQ(try_set(HV_REGISTER_PendingInterruption, 0, 0), HV_STATUS_SUCCESS);
    }
    EXPECT_EQ(try_set(HV_REGISTER_PendingInterruption, pending(TYPE_EXCEPTION, 32), 0), HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(try_set(HV_REGISTER_PendingInterruption, pending(TYPE_NMI, 3), 0), HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(try_set(HV_REGISTER_PendingInterruption, pending(TYPE_INTERRUPT, 0x100), 0), HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(try_set(HV_REGISTER_PendingInterruption, pending(TYPE_INTERRUPT, 0x60) | 1u << 9, 0),
              HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(get(HV_REGISTER_PendingInterruption), 0);
}

CHECK(nothing_pending, "10.3.4: with InterruptionPending clear the other fields are ignored")
{
    begin(1);
    EXPECT_EQ(try_set(HV_REGISTER_PendingInterruption, ~UINT64_C(1), 0), HV_STATUS_SUCCESS);
    EXPECT_EQ(get(HV_REGISTER_PendingInterruption), 0);
}

/* -- The form that today's clients use -- */

#define EVENT_CODE (UINT64_C(1) << 8)
#define EVENT_INTERRUPT (5u << 1)

CHECK(pending_event, "later than 2.0a: the same interruption under another name, with a page fault's address",
      .generations = GENERATION_CURRENT)
{
    begin(1);
    prepare64(VECTOR_PF, drop_code, drop_code_end);
    union hv_register_value event = {
        .words = {HV_PENDING | EVENT_CODE | HV_PENDING_VECTOR(VECTOR_PF) | UINT64_C(5) << 32, 0x777888}};
    set_wide(HV_REGISTER_PendingEvent0, event);
    EXPECT_EQ(get_wide(HV_REGISTER_PendingEvent0).words[0], event.words[0]);
    EXPECT_EQ(get_wide(HV_REGISTER_PendingEvent0).words[1], 0x777888);
    EXPECT_EQ(get(HV_REGISTER_PendingInterruption), pending_with_code(VECTOR_PF, 5));
    child_resume(&child, 0);
    EXPECT_EQ(said(), 0x22);
    EXPECT_EQ(get(HV_REGISTER_Cr2), 0x777888);
    EXPECT_EQ(*(uint64_t *)data_at(STACK_GPA - 48), 5);
    EXPECT_EQ(get_wide(HV_REGISTER_PendingEvent0).words[0], 0);
    prepare64(VECTOR_CHILD, say_handler, say_handler_end);
    set(HV_REGISTER_Rflags, RFLAGS_FIXED | RFLAGS_IF);
    event = (union hv_register_value){.words = {HV_PENDING | EVENT_INTERRUPT | VECTOR_CHILD << 8, 0}};
    set_wide(HV_REGISTER_PendingEvent0, event);
    EXPECT_EQ(get(HV_REGISTER_PendingInterruption), pending(TYPE_INTERRUPT, VECTOR_CHILD));
    child_resume(&child, 0);
    EXPECT_EQ(said(), 0x22);
    EXPECT_EQ(try_set(HV_REGISTER_PendingEvent0, HV_PENDING | 3u << 1, 0), HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(try_set(HV_REGISTER_PendingEvent0, HV_PENDING | HV_PENDING_VECTOR(32), 0), HV_STATUS_INVALID_PARAMETER);
}

CHECK(no_pending_event, "10.2.2: the specification has no such register", .generations = GENERATION_2008R2)
{
    begin(1);
    EXPECT_EQ(try_get(child.id, 0, HV_REGISTER_PendingEvent0), HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(try_set(HV_REGISTER_PendingEvent0, 0, 0), HV_STATUS_INVALID_PARAMETER);
}

/* -- The shadow of an instruction -- */

CHILD_PROGRAM(open_shadow, 64, "sti; out %al, $0x80; out %al, $0x80; hlt")
CHILD_PROGRAM(enable_apic, 64, "mov $0xFEE00000, %edi; movl $0x1FF, 0xF0(%rdi); out %al, $0x80; hlt")
CHILD_PROGRAM(three_nops, 64, "nop; nop; nop; cli; mov $0x11, %al; out %al, $0x80; hlt")

/* With an interrupt waiting in the VP's local APIC. */
static void wait_with_interrupt(const uint8_t *program, const uint8_t *program_end)
{
    begin(1);
    PUT64(0, enable_apic);
    child_resume(&child, 0);
    said();
    HV_MUST(child_assert_interrupt(&child, HV_INTERRUPT_FIXED, 0, VECTOR_CHILD));
    child_put_program(&child, CODE_GPA, program, program_end);
    PUT_AT(HANDLER_GPA, say_handler);
    set_gate64(VECTOR_CHILD, HANDLER_GPA);
    use_idt64();
    set(HV_REGISTER_Rip, CODE_GPA);
}

CHECK(shadow_is_seen, "10.3.3: an intercept right behind STI tells of it, and going on behind the instruction ends it")
{
    wait_with_interrupt(open_shadow, open_shadow_end);
    child_resume(&child, 0);
    said();
    EXPECT_EQ(get(HV_REGISTER_InterruptState), STATE_SHADOW);
    EXPECT_EQ(get(HV_REGISTER_Rip), CODE_GPA + 1);
    go_on();
    EXPECT_EQ(said(), 0x22); /* before the second OUT */
    EXPECT_EQ(*(uint64_t *)data_at(STACK_GPA - 40), CODE_GPA + 3);
}

CHECK(shadow_of_the_parent, "10.3.3: it holds back an interrupt for one instruction")
{
    wait_with_interrupt(three_nops, three_nops_end);
    set(HV_REGISTER_Rflags, RFLAGS_FIXED | RFLAGS_IF);
    set(HV_REGISTER_InterruptState, STATE_SHADOW);
    child_resume(&child, 0);
    EXPECT_EQ(said(), 0x22);
    EXPECT_EQ(*(uint64_t *)data_at(STACK_GPA - 40), CODE_GPA + 1);
}

CHECK(without_a_shadow, "10.3.3: and without it none")
{
    wait_with_interrupt(three_nops, three_nops_end);
    set(HV_REGISTER_Rflags, RFLAGS_FIXED | RFLAGS_IF);
    child_resume(&child, 0);
    EXPECT_EQ(said(), 0x22);
    EXPECT_EQ(*(uint64_t *)data_at(STACK_GPA - 40), CODE_GPA);
}
