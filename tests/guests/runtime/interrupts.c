/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "interrupts.h"

#include "apic.h"
#include "check.h"
#include "console.h"
#include "paging.h"
#include "smp.h"
#include "string.h"

#define EXCEPTIONS 32
#define VECTOR_STRIDE 16 /* vectors.S */
#define GATE_INTERRUPT 0x8E
#define GATE_CPL3 0x60

extern uint8_t guest_vectors[];
extern uint64_t guest_gdt_template[10];
void guest_dispatch(struct frame *frame);
_Noreturn void user_enter_at(uintptr_t ip, uintptr_t stack, const struct user_registers *registers);

struct gate {
    uint16_t offset_low, selector;
    uint8_t stack, type;
    uint16_t offset_middle;
#ifdef __x86_64__
    uint32_t offset_high, reserved;
#endif
};

struct __attribute__((packed)) descriptor_pointer {
    uint16_t limit;
    uintptr_t base;
};

static struct gate gates[256];
static interrupt_handler *handlers[256];

interrupt_handler *interrupt_set_handler(uint8_t vector, interrupt_handler *handler)
{
    interrupt_handler *previous = handlers[vector];
    handlers[vector] = handler;
    return previous;
}

unsigned interrupt_count(unsigned cpu, uint8_t vector)
{
    return cpus[cpu].interrupts[vector];
}

void interrupt_clear_counts(void)
{
    for (unsigned i = 0; i < cpu_count(); i++) {
        for (unsigned vector = 0; vector < 256; vector++) {
            cpus[i].interrupts[vector] = 0;
        }
    }
}

void interrupt_handle_eoi(struct frame *frame)
{
    (void)frame;
    apic_eoi();
}

void interrupt_handle_nothing(struct frame *frame)
{
    (void)frame;
}

static _Noreturn void unexpected(const struct frame *frame)
{
    struct cpu *cpu = this_cpu();
    check_fail("exception", 0, "unexpected exception %u (error code %x) on CPU %u at %lx, CR2 %lx",
               (unsigned)frame->vector, (unsigned)frame->error, cpu->index, (unsigned long)frame->ip,
               (unsigned long)(frame->vector == VECTOR_PF ? read_cr2() : 0));
    if (!cpu->abort_armed) {
        guest_panic("exception %u at %lx outside of a check", (unsigned)frame->vector, (unsigned long)frame->ip);
    }
    check_abort();
}

static void exception(const struct frame *frame)
{
    struct fault *fault = this_cpu()->catcher;
    if (!fault) {
        unexpected(frame);
    }
    fault->raised = true;
    fault->vector = (uint8_t)frame->vector;
    fault->error = (uint32_t)frame->error;
    fault->ip = frame->ip;
    fault->address = frame->vector == VECTOR_PF ? read_cr2() : 0;
    context_restore(&fault->context);
}

/* Called by vectors.S */
void guest_dispatch(struct frame *frame)
{
    struct cpu *cpu = this_cpu();
    cpu->interrupts[frame->vector]++;
    if (handlers[frame->vector]) {
        handlers[frame->vector](frame);
    } else if (frame->vector < EXCEPTIONS) {
        exception(frame);
    } else if (frame->vector != VECTOR_SPURIOUS) {
        check_fail("interrupt", 0, "unexpected interrupt %x on CPU %u at %lx", (unsigned)frame->vector, cpu->index,
                   (unsigned long)frame->ip);
        apic_eoi();
    }
}

struct context *fault_arm(struct fault *fault)
{
    struct cpu *cpu = this_cpu();
    memset(fault, 0, sizeof(*fault));
    fault->outer = cpu->catcher;
    cpu->catcher = fault;
    return &fault->context;
}

void fault_disarm(struct fault *fault)
{
    this_cpu()->catcher = fault->outer;
}

int rdmsr_fault(uint32_t index, uint64_t *value)
{
    struct fault fault;
    CATCH(
        fault, uint64_t got = rdmsr(index); if (value) { *value = got; });
    return fault.raised ? fault.vector : NO_FAULT;
}

int wrmsr_fault(uint32_t index, uint64_t value)
{
    struct fault fault;
    CATCH(fault, wrmsr(index, value));
    return fault.raised ? fault.vector : NO_FAULT;
}

static void set_kernel_stack(struct cpu *cpu, uintptr_t stack)
{
#ifdef __x86_64__
    cpu->tss[1] = (uint32_t)stack; /* RSP0 */
    cpu->tss[2] = (uint32_t)(stack >> 32);
#else
    cpu->tss[1] = stack; /* ESP0, SS0 */
    cpu->tss[2] = GUEST_DS;
#endif
}

struct fault user_run(uintptr_t ip, const struct user_registers *registers)
{
    struct cpu *cpu = this_cpu();
    struct fault fault;
    uintptr_t user_stack = (uintptr_t)(cpu->user_stack + sizeof(cpu->user_stack) / sizeof(cpu->user_stack[0])) & ~15ul;
    /* Below everything that is alive on this stack: user_enter_at() does not return. */
    set_kernel_stack(cpu, ((uintptr_t)__builtin_frame_address(0) - 0x800) & ~15ul);
    CATCH(fault, user_enter_at(ip, user_stack, registers));
    return fault;
}

void interrupt_set_entry(uint8_t vector, void (*entry)(void))
{
    uintptr_t ip = entry ? (uintptr_t)entry : (uintptr_t)guest_vectors + vector * VECTOR_STRIDE;
    gates[vector] = (struct gate){
        .offset_low = (uint16_t)ip,
        .selector = GUEST_BITS == 64 ? GUEST_CS64 : GUEST_CS32,
        .type = vector == VECTOR_BP ? GATE_INTERRUPT | GATE_CPL3 : GATE_INTERRUPT,
        .offset_middle = (uint16_t)(ip >> 16),
    };
}

void interrupts_init(void)
{
    for (unsigned i = 0; i < 256; i++) {
        interrupt_set_entry((uint8_t)i, NULL);
    }
}

static void load_segments(struct cpu *cpu)
{
    struct descriptor_pointer gdt = {sizeof(cpu->gdt) - 1, (uintptr_t)cpu->gdt};
    struct descriptor_pointer idt = {sizeof(gates) - 1, (uintptr_t)gates};
    __asm__ volatile("lgdt %0; lidt %1; ltr %w2" : : "m"(gdt), "m"(idt), "r"(GUEST_TSS) : "memory");
}

void interrupts_init_cpu(void)
{
    struct cpu *cpu = this_cpu();
    uint64_t tss = (uintptr_t)cpu->tss, limit = sizeof(cpu->tss) - 1;
    memcpy(cpu->gdt, guest_gdt_template, sizeof(cpu->gdt));
    cpu->gdt[GUEST_TSS / 8] = limit | (tss & 0xFFFFFF) << 16 | UINT64_C(0x89) << 40 | (tss >> 24 & 0xFF) << 56;
    cpu->gdt[GUEST_TSS / 8 + 1] = tss >> 32;
    /* The I/O bitmap begins after the segment's end: no port is open to CPL 3. */
    cpu->tss[25] = (uint32_t)sizeof(cpu->tss) << 16;
    load_segments(cpu);
}
