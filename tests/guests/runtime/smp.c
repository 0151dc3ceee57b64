/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "smp.h"

#include "apic.h"
#include "check.h"
#include "clock.h"
#include "console.h"
#include "paging.h"
#include "string.h"

#define FW_CFG_SELECTOR 0x510
#define FW_CFG_DATA 0x511
#define FW_CFG_NB_CPUS 5
#define START_TIMEOUT_US SOON
#define RUN_TIMEOUT_US (2 * SOON)

struct __attribute__((packed)) trampoline_parameters {
    uint16_t gdt_limit;
    uint32_t gdt_base;
    uint16_t unused;
    uint32_t cr3, cr4, cr0, efer, stack;
};
_Static_assert(offsetof(struct trampoline_parameters, cr3) == TRAMPOLINE_CR3 - TRAMPOLINE_GDT_POINTER, "layout.h");
_Static_assert(offsetof(struct trampoline_parameters, stack) == TRAMPOLINE_STACK - TRAMPOLINE_GDT_POINTER, "layout.h");

extern const uint8_t guest_trampoline[], guest_trampoline_end[];
extern uint64_t guest_gdt_template[10];
_Noreturn void guest_start_other(void);

struct cpu cpus[GUEST_MAX_CPUS];
static unsigned count = 1;

unsigned cpu_count(void)
{
    return count;
}

void smp_init(void)
{
    outw(FW_CFG_SELECTOR, FW_CFG_NB_CPUS);
    count = inb(FW_CFG_DATA);
    count |= (unsigned)inb(FW_CFG_DATA) << 8;
    if (count == 0 || count > GUEST_MAX_CPUS) {
        guest_panic("%u CPUs: the runtime handles 1 to %u", count, GUEST_MAX_CPUS);
    }
    for (unsigned i = 0; i < count; i++) {
        cpus[i].index = i;
    }
    cpus[0].online = 1;
}

static void wake(struct frame *frame)
{
    (void)frame;
    apic_eoi();
}

static void run_functions(struct cpu *cpu)
{
    for (;;) {
        while (!__atomic_load_n(&cpu->busy, __ATOMIC_ACQUIRE)) {
            interrupts_on_halt();
        }
        if (!context_save(&cpu->abort)) {
            cpu->abort_armed = true;
            cpu->function(cpu->argument);
        }
        interrupts_off();
        cpu->abort_armed = false;
        cpu->catcher = NULL;
        __atomic_store_n(&cpu->busy, 0, __ATOMIC_RELEASE);
    }
}

/* Called by trampoline.S, on the CPU's own stack */
_Noreturn void guest_start_other(void)
{
    struct cpu *cpu = this_cpu();
    interrupts_init_cpu();
    cpu->x2apic = false;
    cpu->catcher = NULL;
    cpu->abort_armed = false;
    cpu->busy = 0;
    apic_init();
    __atomic_store_n(&cpu->online, 1, __ATOMIC_RELEASE);
    run_functions(cpu);
    __builtin_unreachable();
}

static void send_startup(unsigned cpu, uintptr_t page)
{
    apic_send_ipi(cpu, APIC_ICR_INIT);
    clock_delay(100);
    apic_send_ipi(cpu, APIC_ICR_STARTUP | (uint32_t)(page >> 12));
}

static void start_cpu(unsigned cpu)
{
    struct trampoline_parameters *parameters = (void *)(GUEST_TRAMPOLINE + TRAMPOLINE_GDT_POINTER);
    memcpy((void *)GUEST_TRAMPOLINE, guest_trampoline, (size_t)(guest_trampoline_end - guest_trampoline));
    *parameters = (struct trampoline_parameters){
        .gdt_limit = sizeof(cpus[0].gdt) - 1,
        .gdt_base = (uint32_t)(uintptr_t)guest_gdt_template,
        .cr3 = (uint32_t)vm_root(),
        .cr4 = (uint32_t)read_cr4(),
        .cr0 = (uint32_t)read_cr0(),
        .efer = GUEST_BITS == 64 ? EFER_LME | EFER_NXE : 0,
        .stack = (uint32_t)(uintptr_t)guest_stacks + (cpu + 1) * GUEST_STACK_SIZE,
    };
    __atomic_store_n(&cpus[cpu].online, 0, __ATOMIC_RELEASE);
    send_startup(cpu, GUEST_TRAMPOLINE);
    if (!WAIT_UNTIL(__atomic_load_n(&cpus[cpu].online, __ATOMIC_ACQUIRE), START_TIMEOUT_US)) {
        guest_panic("CPU %u did not start", cpu);
    }
}

void smp_start_others(void)
{
    interrupt_set_handler(VECTOR_WAKE, wake);
    for (unsigned i = 1; i < count; i++) {
        start_cpu(i);
    }
}

void smp_start(unsigned index, void (*function)(void *), void *argument)
{
    struct cpu *cpu = &cpus[index];
    if (index >= count || index == cpu_index()) {
        guest_panic("smp_start: CPU %u of %u, called on CPU %u", index, count, cpu_index());
    }
    if (!smp_wait(index, RUN_TIMEOUT_US)) {
        guest_panic("smp_start: CPU %u is stuck in an earlier function", index);
    }
    cpu->function = function;
    cpu->argument = argument;
    __atomic_store_n(&cpu->busy, 1, __ATOMIC_RELEASE);
    apic_send_ipi(index, VECTOR_WAKE);
}

bool smp_wait(unsigned index, uint64_t microseconds)
{
    return WAIT_UNTIL(!__atomic_load_n(&cpus[index].busy, __ATOMIC_ACQUIRE), microseconds);
}

static void wait_or_fail(unsigned index)
{
    if (!smp_wait(index, RUN_TIMEOUT_US)) {
        check_fail("smp", 0, "CPU %u did not finish within %u us", index, RUN_TIMEOUT_US);
        check_abort();
    }
}

void smp_run(unsigned index, void (*function)(void *), void *argument)
{
    if (index == cpu_index()) {
        function(argument);
        return;
    }
    smp_start(index, function, argument);
    wait_or_fail(index);
}

void smp_run_all(void (*function)(void *), void *argument)
{
    for (unsigned i = 0; i < count; i++) {
        if (i != cpu_index()) {
            smp_start(i, function, argument);
        }
    }
    function(argument);
    for (unsigned i = 0; i < count; i++) {
        if (i != cpu_index()) {
            wait_or_fail(i);
        }
    }
}

/* A host may have fewer processors than the guest: who waits long must let the others run. */
#define BARRIER_SPINS 200

static void wake_sleepers(struct barrier *barrier)
{
    for (unsigned i = 0; i < count; i++) {
        if (i != cpu_index() && __atomic_load_n(&cpus[i].sleeps_in, __ATOMIC_SEQ_CST) == barrier) {
            apic_send_ipi(i, VECTOR_WAKE);
        }
    }
}

static void sleep_until_round_ends(struct barrier *barrier, uint32_t round)
{
    struct cpu *cpu = this_cpu();
    uintptr_t flags = read_flags();
    interrupts_off();
    __atomic_store_n(&cpu->sleeps_in, barrier, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&barrier->round, __ATOMIC_SEQ_CST) == round) {
        interrupts_on_halt();
    }
    __atomic_store_n(&cpu->sleeps_in, NULL, __ATOMIC_SEQ_CST);
    if (flags & RFLAGS_IF) {
        interrupts_on();
    }
}

void barrier_wait(struct barrier *barrier, unsigned participants)
{
    uint32_t round = __atomic_load_n(&barrier->round, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&barrier->arrived, 1, __ATOMIC_ACQ_REL) == participants) {
        barrier->arrived = 0;
        __atomic_store_n(&barrier->round, round + 1, __ATOMIC_SEQ_CST);
        wake_sleepers(barrier);
        return;
    }
    for (unsigned i = 0; i < BARRIER_SPINS; i++) {
        if (__atomic_load_n(&barrier->round, __ATOMIC_ACQUIRE) != round) {
            return;
        }
        cpu_pause();
    }
    sleep_until_round_ends(barrier, round);
}

void spinlock_lock(struct spinlock *lock)
{
    while (__atomic_exchange_n(&lock->taken, 1, __ATOMIC_ACQUIRE)) {
        cpu_pause();
    }
}

void spinlock_unlock(struct spinlock *lock)
{
    __atomic_store_n(&lock->taken, 0, __ATOMIC_RELEASE);
}

/*
 * The page: `code`, then a store of REAL_MODE_DONE; near its end one stub per exception that stores the vector. Both
 * store to the page's last word and stop.
 */
#define REAL_MODE_DONE 0x100
#define REAL_MODE_NOT_YET 0x200
#define REAL_MODE_RESULT 0xFFE
#define REAL_MODE_STUBS 0xD00
#define REAL_MODE_STUB_SIZE 16
#define REAL_MODE_VECTORS 32

static size_t emit_store_result(uint8_t *to, uint16_t result)
{
    /* cs movw $result, REAL_MODE_RESULT; cli; hlt; jmp back to the hlt */
    const uint8_t code[] = {
        0x2E, 0xC7, 0x06, REAL_MODE_RESULT & 0xFF, REAL_MODE_RESULT >> 8, (uint8_t)result, (uint8_t)(result >> 8), 0xFA,
        0xF4, 0xEB, 0xFD};
    memcpy(to, code, sizeof(code));
    return sizeof(code);
}

int smp_run_real_mode(unsigned cpu, const void *code, size_t size)
{
    uint8_t *page = (uint8_t *)GUEST_REAL_MODE_PAGE;
    /* Hidden from the compiler, which takes a pointer this low for a mistake. */
    uintptr_t table_address = 0;
    __asm__("" : "+r"(table_address));
    volatile uint32_t *interrupt_table = (volatile uint32_t *)table_address;
    uint32_t saved[REAL_MODE_VECTORS];
    volatile uint16_t *result = (volatile uint16_t *)(page + REAL_MODE_RESULT);

    /* A segment and a stack of its own, then the code. */
    const uint8_t prologue[] = {0xFA, 0x8C, 0xC8, 0x8E, 0xD8, 0x8E, 0xD0, 0xBC, 0x00, 0x0C};
    memset(page, 0, PAGE_SIZE);
    memcpy(page, prologue, sizeof(prologue));
    memcpy(page + sizeof(prologue), code, size);
    emit_store_result(page + sizeof(prologue) + size, REAL_MODE_DONE);
    for (unsigned vector = 0; vector < REAL_MODE_VECTORS; vector++) {
        unsigned stub = REAL_MODE_STUBS + vector * REAL_MODE_STUB_SIZE;
        emit_store_result(page + stub, (uint16_t)vector);
        saved[vector] = interrupt_table[vector];
        interrupt_table[vector] = (uint32_t)GUEST_REAL_MODE_PAGE >> 4 << 16 | stub;
    }
    *result = REAL_MODE_NOT_YET;
    send_startup(cpu, GUEST_REAL_MODE_PAGE);
    WAIT_UNTIL(*result != REAL_MODE_NOT_YET, 1000000);
    int outcome = *result == REAL_MODE_DONE ? NO_FAULT : *result == REAL_MODE_NOT_YET ? -2 : *result;
    for (unsigned vector = 0; vector < REAL_MODE_VECTORS; vector++) {
        interrupt_table[vector] = saved[vector];
    }
    start_cpu(cpu);
    return outcome;
}
