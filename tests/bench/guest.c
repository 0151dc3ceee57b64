/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The benchmark's guest. It measures what the machine has: the architectural ways always, the hypervisor's when there
 * is one. So the same image gives the stock half and ours.
 *
 * Time is the HPET's, which follows QEMU's virtual clock in every QEMU.
 */
#include "measure.h"

#define TURNS 50000u /* of an instruction loop: about half a millisecond */
#define WARM_UP_TURNS 1000u
#define TIMER_SHOTS 8u /* per repetition */

#define VECTOR_TIMER 0x60

/* -- Instructions, in a bare loop; the loop is part of the figure -- */

typedef void instruction_loop(uint64_t turns);

static void loop_empty(uint64_t turns)
{
    __asm__ volatile("1: dec %0; jnz 1b" : "+r"(turns) : : "cc");
}

static void loop_cpuid(uint64_t turns)
{
    __asm__ volatile("1: xor %%eax, %%eax; xor %%ecx, %%ecx; cpuid; dec %0; jnz 1b"
                     : "+r"(turns)
                     :
                     : "rax", "rbx", "rcx", "rdx", "cc");
}

static void loop_rdmsr(uint64_t turns, uint32_t index)
{
    __asm__ volatile("1: rdmsr; dec %0; jnz 1b" : "+r"(turns) : "c"(index) : "rax", "rdx", "cc");
}

static void loop_rdmsr_apic_base(uint64_t turns)
{
    loop_rdmsr(turns, MSR_APIC_BASE);
}

static void loop_rdtsc(uint64_t turns)
{
    __asm__ volatile("1: rdtsc; dec %0; jnz 1b" : "+r"(turns) : : "rax", "rdx", "cc");
}

static void loop_rdtsc_ordered(uint64_t turns)
{
    __asm__ volatile("1: lfence; rdtsc; dec %0; jnz 1b" : "+r"(turns) : : "rax", "rdx", "cc");
}

static void loop_rdmsr_vp_index(uint64_t turns)
{
    loop_rdmsr(turns, HV_MSR_VP_INDEX);
}

static void loop_rdmsr_reference_counter(uint64_t turns)
{
    loop_rdmsr(turns, HV_MSR_TIME_REF_COUNT);
}

/* A caller may not rely on what a call leaves in RCX, RDX and R8, so each turn loads them. */
static void loop_hypercall(uint64_t turns, uint64_t input_value, uint64_t first, uint64_t second)
{
    uint64_t failures = 0, page = hv_hypercall_page();
    register uint64_t r12 __asm__("r12") = input_value;
    register uint64_t r13 __asm__("r13") = first;
    register uint64_t r14 __asm__("r14") = second;
    __asm__ volatile("1: mov %[input], %%rcx; mov %[first], %%rdx; mov %[second], %%r8;"
                     "call *%[page]; or %%rax, %[failures]; dec %[turns]; jnz 1b"
                     : [turns] "+r"(turns), [failures] "+r"(failures)
                     : [page] "r"(page), [input] "r"(r12), [first] "r"(r13), [second] "r"(r14)
                     : "rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "cc", "memory");
    if (failures != 0) {
        guest_panic("hypercall %llx ended with %llx", (unsigned long long)input_value, (unsigned long long)failures);
    }
}

/* HvSendSyntheticClusterIpi to nobody. */
static void loop_cluster_ipi(uint64_t turns)
{
    loop_hypercall(turns, HV_SEND_SYNTHETIC_CLUSTER_IPI | HV_CALL_FAST, VECTOR_THERE, 0);
}

static void loop_long_spin_wait(uint64_t turns)
{
    loop_hypercall(turns, HV_NOTIFY_LONG_SPIN_WAIT | HV_CALL_FAST, 1, 0);
}

static uint8_t reference_tsc_page[PAGE_SIZE] __attribute__((aligned(4096)));

static const struct hv_reference_tsc *reference_tsc(void)
{
    return (const struct hv_reference_tsc *)(const void *)reference_tsc_page;
}

/* TLFS 15.4.3: sequence, TSC, scale, offset, and the sequence again. */
#define READ_TSC_PAGE(fence)                                                                                           \
    "1: mov (%[page]), %%r8d; test %%r8d, %%r8d; jz 2f;" fence "rdtsc; shl $32, %%rdx; or %%rdx, %%rax;"               \
    "mulq 8(%[page]); add 16(%[page]), %%rdx; cmp (%[page]), %%r8d; jne 1b;"                                           \
    "dec %[turns]; jnz 1b; 2:"

static void require_all_turns(uint64_t left)
{
    if (left != 0) {
        guest_panic("the reference TSC page says not to use it");
    }
}

static void loop_tsc_page(uint64_t turns)
{
    __asm__ volatile(READ_TSC_PAGE("")
                     : [turns] "+r"(turns)
                     : [page] "r"(reference_tsc_page)
                     : "rax", "rdx", "r8", "cc", "memory");
    require_all_turns(turns);
}

static void loop_tsc_page_ordered(uint64_t turns)
{
    __asm__ volatile(READ_TSC_PAGE("lfence;")
                     : [turns] "+r"(turns)
                     : [page] "r"(reference_tsc_page)
                     : "rax", "rdx", "r8", "cc", "memory");
    require_all_turns(turns);
}

struct instruction {
    const char *name;
    instruction_loop *loop;
};

static const struct instruction architectural[] = {
    {"loop", loop_empty},
    {"cpuid", loop_cpuid},
    {"rdmsr-apic-base", loop_rdmsr_apic_base},
    {"rdtsc", loop_rdtsc},
    {"rdtsc-ordered", loop_rdtsc_ordered},
};

static const struct instruction synthetic[] = {
    {"hypercall-cluster-ipi", loop_cluster_ipi},
    {"hypercall-long-spin-wait", loop_long_spin_wait},
    {"rdmsr-vp-index", loop_rdmsr_vp_index},
    {"rdmsr-reference-counter", loop_rdmsr_reference_counter},
    {"tsc-page", loop_tsc_page},
    {"tsc-page-ordered", loop_tsc_page_ordered},
};

static void measure_instruction(const struct instruction *instruction)
{
    uint64_t begin = clock_nanoseconds();
    instruction->loop(TURNS);
    report(instruction->name, "ps", (int64_t)((clock_nanoseconds() - begin) * 1000 / TURNS));
}

static void measure_instructions(const struct instruction *list, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (!wanted(list[i].name)) {
            continue;
        }
        list[i].loop(WARM_UP_TURNS);
        for (unsigned repetition = 0; repetition < repeat; repetition++) {
            measure_instruction(&list[i]);
        }
    }
}

/* -- How late a timer's handler runs on a CPU that is halted meanwhile -- */

static volatile uint64_t handler_tsc;
static void (*timer_end)(void);

static void handle_timer(struct frame *frame)
{
    handler_tsc = rdtsc();
    (void)frame;
    timer_end();
}

static void halt_until_timer(void)
{
    while (handler_tsc == 0) {
        interrupts_on_halt();
    }
}

/* 0.2 to 1.2 ms, in 100 ns; not in step with anything. */
static uint32_t next_delay(void)
{
    static uint32_t state = 12345;
    state = state * 1664525 + 1013904223;
    return 2000 + (state >> 8) % 10000;
}

/* QEMU's local APIC timer counts nanoseconds when its divisor is 1. */
static int64_t apic_timer_lateness(void)
{
    uint32_t delay = next_delay() * 100;
    handler_tsc = 0;
    uint64_t begin = rdtsc();
    apic_write(APIC_TIMER_INITIAL, delay);
    uint64_t armed = begin + (rdtsc() - begin) / 2;
    halt_until_timer();
    return (int64_t)((handler_tsc - armed) * 1000 / (tsc_frequency / 1000000)) - delay;
}

/* Reference time of a TSC value, in units of 100 ns, and what the formula cuts off in 1/2^64 of that. */
static uint64_t reference_time(uint64_t tsc, uint64_t *fraction)
{
    unsigned __int128 product = (unsigned __int128)tsc * reference_tsc()->scale;
    *fraction = (uint64_t)product;
    return (uint64_t)(product >> 64) + (uint64_t)reference_tsc()->offset;
}

static int64_t synthetic_timer_lateness(void)
{
    uint64_t fraction, due;
    handler_tsc = 0;
    due = reference_time(rdtsc(), &fraction) + next_delay();
    wrmsr(HV_MSR_STIMER0_COUNT, due);
    halt_until_timer();
    int64_t late = (int64_t)(reference_time(handler_tsc, &fraction) - due) * 100;
    return late + (int64_t)((fraction >> 32) * 100 >> 32);
}

static void measure_timer(const char *name, int64_t (*lateness)(void), void (*end)(void))
{
    if (!wanted(name)) {
        return;
    }
    timer_end = end;
    interrupt_set_handler(VECTOR_TIMER, handle_timer);
    lateness();
    for (unsigned shot = 0; shot < repeat * TIMER_SHOTS; shot++) {
        report(name, "ns", lateness());
    }
}

static void measure_apic_timer(void)
{
    apic_write(APIC_TIMER_DIVIDE, 0xB);
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
    measure_timer("timer-apic", apic_timer_lateness, apic_eoi);
    apic_write(APIC_LVT_TIMER, 0x10000);
}

static void measure_synthetic_timer(void)
{
    wrmsr(HV_MSR_STIMER0_CONFIG, HV_STIMER_AUTO_ENABLE | HV_STIMER_DIRECT | HV_STIMER_VECTOR(VECTOR_TIMER));
    measure_timer("timer-synthetic", synthetic_timer_lateness, end_by_assist_page);
    wrmsr(HV_MSR_STIMER0_CONFIG, 0);
}

/* -- -- */

static bool hypervisor_present(void)
{
    /* "Hv#1" (TLFS 3.4) */
    return (cpuid(1, 0).ecx & 1u << 31) && cpuid(HV_LEAF_INTERFACE, 0).eax == 0x31237648;
}

static void measure_architectural(void)
{
    static const struct ipi_way by_icr = {"ipi-icr", send_by_icr, apic_eoi, false, false};
    measure_instructions(architectural, sizeof(architectural) / sizeof(architectural[0]));
    measure_ipis(&by_icr);
    measure_apic_timer();
}

static void measure_synthetic(void)
{
    static const struct ipi_way by_hypercall = {"ipi-hypercall", send_by_hypercall, end_by_assist_page, false, false};
    hv_enable();
    wrmsr(HV_MSR_REFERENCE_TSC, (uintptr_t)reference_tsc_page | HV_MSR_ENABLE);
    smp_run_all(enable_assist_page, NULL);
    measure_instructions(synthetic, sizeof(synthetic) / sizeof(synthetic[0]));
    measure_ipis(&by_hypercall);
    measure_synthetic_timer();
}

void guest_main(void)
{
    if (cpu_count() != 2) {
        guest_panic("the benchmark's guest needs -smp 2");
    }
    measure_begin();
    measure_architectural();
    if (hypervisor_present()) {
        measure_synthetic();
    }
    print("BENCH-END\n");
}
