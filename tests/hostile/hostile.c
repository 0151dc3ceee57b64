/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest that does its worst: every VP makes random hypercalls, register accesses, overlay moves and interrupts until
 * the time is over. The hypervisor may answer as it likes, as long as it goes on answering.
 *
 * Options: seed=NUMBER, seconds=NUMBER. The guest prints "ALIVE" each second, and at the end a line "DONE" with how
 * much each VP has done. It spares itself: its image, stacks and page tables are never covered by an overlay page nor
 * the target of a call's output, and it never asks to be reset, restarted or given a useless address space.
 */
#include "guest.h"
#include "random.h"

#define ARENA_PAGES 24u
#define PLAIN_PAGES 4u /* of them, the last: never covered, so that what lies there is what the guest wrote */
#define DEFAULT_SECONDS 10
#define SAFE_VECTOR 0x20u /* below are exceptions, whose handlers expect another stack frame */
#define FAULTS 32u
#define CR4_MCE 0x40u
#define MSR_MCG_STATUS 0x17A
#define HYPERCALL_PAGE_LOCKED UINT64_C(2) /* nothing could move it after that */

enum action { ACT_HYPERCALL, ACT_MSR, ACT_OVERLAY, ACT_TIMER, ACT_IPI, ACT_END_OF, ACT_MEMORY, ACT_IDLE, ACTIONS };

/* How often each is chosen, of 256. Moving an overlay and sleeping take much longer than the others. */
static const uint8_t weights[ACTIONS] = {
    [ACT_HYPERCALL] = 112, [ACT_MSR] = 70,    [ACT_OVERLAY] = 4, [ACT_TIMER] = 20,
    [ACT_IPI] = 14,        [ACT_END_OF] = 16, [ACT_MEMORY] = 19, [ACT_IDLE] = 1,
};

struct villain {
    uint64_t random;
    uint64_t actions[ACTIONS];
    uint64_t faults[FAULTS];
    unsigned interrupts_in_a_row;
    bool sends_eoi;
    uint64_t private_input[4] __attribute__((aligned(32))); /* not in the arena: nobody else changes it */
    uint64_t xmm[12] __attribute__((aligned(16)));
};

static struct villain villains[GUEST_MAX_CPUS];
static uint8_t *arena;
static uint64_t deadline; /* TSC */
static volatile bool over;

/* A page that may be covered and written: arena pages mostly, so that overlays meet there, and what is no RAM. */
static uint64_t random_page(uint64_t *random)
{
    static const uint64_t places[] = {
        0, /* low RAM */
        0x1000,
        0x9F000, /* around the end of low RAM */
        0xA0000,
        0xC0000, /* option ROMs */
        0xF0000, /* BIOS */
        0xFF000,
        0x7FFF000, /* around the end of RAM */
        0x8000000,
        0xB0000000, /* PCI configuration */
        0xE0000000,
        0xFEC00000, /* I/O APIC */
        0xFED00000, /* HPET */
        0xFEE00000, /* local APIC */
        0xFEE01000,
        0xFFFC0000, /* flash */
        0xFFFFF000,
        0x100000000,
        UINT64_C(1) << 36,
        (UINT64_C(1) << 39) - PAGE_SIZE,
        UINT64_C(1) << 39,
        (UINT64_C(1) << 40) - PAGE_SIZE,
        UINT64_C(1) << 40,
        UINT64_C(1) << 52,
        ~UINT64_C(0xFFF),
    };

    if (one_in(random, 4))
        return RANDOM_OF(random, places);
    return (uintptr_t)arena + PAGE_SIZE * below(random, ARENA_PAGES - PLAIN_PAGES);
}

static uint64_t plain_page(uint64_t *random)
{
    return (uintptr_t)arena + PAGE_SIZE * (ARENA_PAGES - 1 - below(random, PLAIN_PAGES));
}

static uint64_t random_gpa(uint64_t *random)
{
    static const uint16_t offsets[] = {0, 0, 0, 0, 8, 0x10, 0x100, 0x800, 0xF00, 0xFE8, 0xFF0, 0xFF8, 0xFFF, 1, 4};

    return random_page(random) + RANDOM_OF(random, offsets);
}

static uint8_t random_vector(uint64_t *random)
{
    return (uint8_t)(SAFE_VECTOR + below(random, 0x100 - SAFE_VECTOR));
}

static void count_fault(struct villain *me, const struct fault *fault)
{
    if (!fault->raised)
        return;
    me->faults[fault->vector % FAULTS]++;
    if (fault->vector == VECTOR_MC)
        wrmsr(MSR_MCG_STATUS, 0); /* another one before that resets the processor */
}

static void write_msr(struct villain *me, uint32_t index, uint64_t value)
{
    struct fault fault;

    CATCH(fault, wrmsr(index, value));
    count_fault(me, &fault);
}

static void read_msr(struct villain *me, uint32_t index)
{
    struct fault fault;

    CATCH(fault, rdmsr(index));
    count_fault(me, &fault);
}

/* An overlay may lie on the local APIC, and the hypercall page cannot be written. */
static void end_interrupt(struct villain *me)
{
    struct fault fault;

    CATCH(fault, apic_eoi());
    count_fault(me, &fault);
}

static void send_ipi(struct villain *me, unsigned destination, uint8_t vector)
{
    struct fault fault;

    CATCH(fault, apic_send_ipi(destination, vector));
    count_fault(me, &fault);
}

/* -- Hypercalls -- */

static void call(struct villain *me, uint64_t input_value, uint64_t first, uint64_t second)
{
    struct fault fault;
    bool intel = one_in(&me->random, 2);

    CATCH(fault, {
        register uint64_t r8 __asm__("r8") = second;
        uint64_t rax = 0, rcx = input_value, rdx = first;
        /* The runtime is compiled without XMM registers: nothing else uses them. */
        __asm__ volatile("movdqa (%[xmm]), %%xmm0; movdqa 16(%[xmm]), %%xmm1; movdqa 32(%[xmm]), %%xmm2\n\t"
                         "movdqa 48(%[xmm]), %%xmm3; movdqa 64(%[xmm]), %%xmm4; movdqa 80(%[xmm]), %%xmm5\n\t"
                         "test %[intel], %[intel]; jz 1f; vmcall; jmp 2f; 1: vmmcall; 2:"
                         : "+a"(rax), "+c"(rcx), "+d"(rdx), "+r"(r8)
                         : [xmm] "r"(me->xmm), [intel] "r"((uint64_t)intel)
                         : "r9", "r10", "r11", "cc", "memory");
    });
    count_fault(me, &fault);
}

static uint16_t random_code(uint64_t *random)
{
    static const uint16_t offered[] = {
        HV_FLUSH_VIRTUAL_ADDRESS_SPACE,
        HV_FLUSH_VIRTUAL_ADDRESS_LIST,
        HV_NOTIFY_LONG_SPIN_WAIT,
        HV_SEND_SYNTHETIC_CLUSTER_IPI,
        HV_FLUSH_VIRTUAL_ADDRESS_SPACE_EX,
        HV_FLUSH_VIRTUAL_ADDRESS_LIST_EX,
        HV_SEND_SYNTHETIC_CLUSTER_IPI_EX,
        HV_GET_PARTITION_ID,
        HV_POST_MESSAGE,
        HV_SIGNAL_EVENT,
    };

    switch (below(random, 8)) {
    case 0:
        return (uint16_t)next(random);
    case 1:
        return (uint16_t)below(random, 0x100);
    default:
        return RANDOM_OF(random, offered);
    }
}

static uint64_t random_input_value(uint64_t *random, uint16_t code)
{
    uint64_t value = code;

    if (one_in(random, 3))
        value |= HV_CALL_FAST;
    if (one_in(random, 3))
        value |= HV_CALL_VARIABLE(one_in(random, 8) ? below(random, 1024) : below(random, 20));
    if (one_in(random, 2)) {
        unsigned reps = one_in(random, 4) ? below(random, 4096) : below(random, 20);
        value |= HV_CALL_REPS((uint64_t)reps);
        if (one_in(random, 3))
            value |= HV_CALL_START((uint64_t)below(random, one_in(random, 2) ? 4096 : reps + 2));
    }
    if (one_in(random, 32))
        value |= next(random) & ~UINT64_C(0xFFFF); /* reserved bits too */
    return value;
}

/* A word of a call's input: likely to be taken for a small number, a set of VPs, a vector or an ID. */
static uint64_t random_word(uint64_t *random)
{
    switch (below(random, 4)) {
    case 0:
        return random_vector(random);
    case 1:
        return below(random, 16);
    case 2:
        return one_in(random, 2) ? random_page(random) + below(random, PAGE_SIZE) : 0;
    default:
        return edge(random);
    }
}

/* IPIs with an exception's vector would break the guest itself. */
static uint64_t with_safe_vector(uint64_t word)
{
    return (uint8_t)word < SAFE_VECTOR ? word + SAFE_VECTOR : word;
}

/* Write to the arena. It fails where the hypercall page lies over it. */
static void poke(struct villain *me, size_t offset, const uint64_t word)
{
    volatile uint64_t *const at = (volatile uint64_t *)(arena + offset);
    volatile uint64_t safe = word ? with_safe_vector(word) : 0;
    struct fault fault;

    CATCH(fault, *at = safe);
    count_fault(me, &fault);
}

/* A call's parameters in memory, which other VPs write to as well. */
static void fill(struct villain *me, uint64_t gpa)
{
    uint64_t offset = gpa - (uintptr_t)arena;
    unsigned count = below(&me->random, 20);

    for (unsigned i = 0; i < count && offset + 8 * i <= ARENA_PAGES * PAGE_SIZE - 8; i++)
        poke(me, offset + 8 * i, random_word(&me->random));
}

static void switch_address_space(struct villain *me)
{
    uint64_t space = vm_root();

    if (one_in(&me->random, 2))
        space |= UINT64_C(1) << (52 + below(&me->random, 12)); /* invalid */
    me->private_input[0] = space;
    if (one_in(&me->random, 2))
        call(me, HV_SWITCH_VIRTUAL_ADDRESS_SPACE | HV_CALL_FAST, space, next(&me->random));
    else
        call(me, HV_SWITCH_VIRTUAL_ADDRESS_SPACE, (uintptr_t)me->private_input, next(&me->random));
}

static void act_hypercall(struct villain *me)
{
    uint64_t *random = &me->random;
    uint16_t code = random_code(random);
    uint64_t input_value, first, second;

    if (one_in(random, 16) || code == HV_SWITCH_VIRTUAL_ADDRESS_SPACE) {
        switch_address_space(me);
        return;
    }
    input_value = random_input_value(random, code);
    for (unsigned i = 0; i < sizeof(me->xmm) / sizeof(me->xmm[0]); i++)
        me->xmm[i] = random_word(random);
    if (input_value & HV_CALL_FAST) {
        first = with_safe_vector(random_word(random));
        second = random_word(random);
    } else {
        first = random_gpa(random);
        second = random_gpa(random);
        if (code == HV_SEND_SYNTHETIC_CLUSTER_IPI || code == HV_SEND_SYNTHETIC_CLUSTER_IPI_EX)
            first = plain_page(random) + 8 * below(random, PAGE_SIZE / 8);
        if (one_in(random, 8))
            first = edge(random) & ~(uint64_t)7;
        fill(me, first);
    }
    call(me, input_value, first, second);
}

/* -- Registers -- */

static const uint32_t overlay_msrs[] = {
    HV_MSR_HYPERCALL, HV_MSR_REFERENCE_TSC, HV_MSR_APIC_ASSIST_PAGE, HV_MSR_SIEFP, HV_MSR_SIMP,
};

static void act_overlay(struct villain *me)
{
    uint64_t value = random_page(&me->random);

    if (!one_in(&me->random, 4))
        value |= HV_MSR_ENABLE;
    if (one_in(&me->random, 16))
        value |= edge(&me->random) & (PAGE_SIZE - 1);
    if (one_in(&me->random, 64))
        write_msr(me, HV_MSR_GUEST_OS_ID, 0); /* takes the hypercall page away (TLFS 3.6) */
    write_msr(me, HV_MSR_GUEST_OS_ID, UINT64_C(0xFF) << 56 | below(&me->random, 256));
    write_msr(me, RANDOM_OF(&me->random, overlay_msrs), value & ~HYPERCALL_PAGE_LOCKED);
    /* Most of the time calls shall be possible. */
    if (!one_in(&me->random, 4))
        write_msr(me, HV_MSR_HYPERCALL, random_page(&me->random) | HV_MSR_ENABLE);
}

static bool is_overlay_msr(uint32_t index)
{
    for (size_t i = 0; i < sizeof(overlay_msrs) / sizeof(overlay_msrs[0]); i++) {
        if (overlay_msrs[i] == index)
            return true;
    }
    return index == HV_MSR_GUEST_OS_ID;
}

static uint64_t timer_config(uint64_t *random)
{
    uint64_t config = next(random) & 0xF; /* enable, periodic, lazy, auto-enable */

    if (one_in(random, 2))
        config |= HV_STIMER_DIRECT;
    return config | HV_STIMER_VECTOR(random_vector(random)) | HV_STIMER_SINT((uint64_t)below(random, 16));
}

/* The same register, but nothing that would take the guest down by its own fault. */
static uint64_t spare_myself(uint32_t index, uint64_t value, uint64_t *random)
{
    if (index == HV_MSR_RESET)
        return value & ~UINT64_C(1);
    if (index >= HV_MSR_SINT0 && index < HV_MSR_SINT0 + 16 && (value & 0xFF) >= 16 && (value & 0xFF) < SAFE_VECTOR)
        return value | SAFE_VECTOR;
    if (index >= HV_MSR_STIMER0_CONFIG && index < HV_MSR_STIMER0_CONFIG + 8 && !(index & 1) &&
        (value & HV_STIMER_DIRECT))
        return (value & ~HV_STIMER_VECTOR(0xFF)) | HV_STIMER_VECTOR(random_vector(random));
    if (index == HV_MSR_ICR) {
        /* Fixed or NMI; no INIT, SIPI or SMI */
        value = (value & ~UINT64_C(0x7FF)) | random_vector(random);
        return one_in(random, 16) ? value | 0x400 : value;
    }
    return value;
}

static uint32_t random_msr(uint64_t *random)
{
    static const uint32_t first[] = {0x40000000, 0x40000010, 0x40000020, 0x40000070, 0x40000080,
                                     0x40000090, 0x400000B0, 0x400000C0, 0x400000D0, 0x400000E0,
                                     0x400000F0, 0x40000100, 0x40000110, 0x40001080};
    static const uint32_t rare[] = {0x40001FFF, 0x40002000, 0x3FFFFFFF, 0x400000FF, 0x400001FF};

    if (one_in(random, 64))
        return RANDOM_OF(random, rare);
    if (one_in(random, 16))
        return HV_MSR_GUEST_OS_ID + below(random, 0x2000);
    return RANDOM_OF(random, first) + below(random, 16);
}

static void act_msr(struct villain *me)
{
    uint64_t *random = &me->random;
    uint32_t index = random_msr(random);

    if (index == HV_MSR_GUEST_IDLE || index == 0x3FFFFFFF)
        return; /* it sleeps in act_idle(), which takes care to be woken */
    if (one_in(random, 2)) {
        read_msr(me, index);
        return;
    }
    if (is_overlay_msr(index) && !one_in(random, 32))
        return;
    if (index == HV_MSR_CRASH_P0 + 5 && !one_in(random, 512))
        return; /* each may print a line */
    uint64_t value = one_in(random, 3) ? random_gpa(random) | (next(random) & 1) : edge(random);
    if (index >= HV_MSR_SINT0 && index < HV_MSR_SINT0 + 16 && one_in(random, 2))
        value = random_vector(random) | (next(random) & (HV_SINT_MASKED | HV_SINT_AUTO_EOI | HV_SINT_POLLING));
    /* A random page may be one of the guest's own. */
    if (is_overlay_msr(index) && index != HV_MSR_GUEST_OS_ID)
        value = random_page(random) | (value & (PAGE_SIZE - 1) & ~HYPERCALL_PAGE_LOCKED);
    write_msr(me, index, spare_myself(index, value, random));
    if (index == HV_MSR_TPR)
        write_msr(me, HV_MSR_TPR, 0);
}

/* -- Timers and interrupts -- */

static void act_timer(struct villain *me)
{
    uint64_t *random = &me->random;
    unsigned timer = below(random, 4);
    struct fault fault;
    volatile uint64_t now = 0;

    CATCH(fault, now = rdmsr(HV_MSR_TIME_REF_COUNT));
    count_fault(me, &fault);
    uint64_t config = timer_config(random);
    uint64_t count =
        config & HV_STIMER_PERIODIC ? 1 + below(random, one_in(random, 4) ? 100 : 100000) : now + below(random, 20000);
    if (one_in(random, 16))
        count = edge(random);
    if (one_in(random, 2)) {
        write_msr(me, HV_MSR_STIMER_CONFIG(timer), config);
        write_msr(me, HV_MSR_STIMER_COUNT(timer), count);
    } else {
        write_msr(me, HV_MSR_STIMER_COUNT(timer), count);
        write_msr(me, HV_MSR_STIMER_CONFIG(timer), config);
    }
    write_msr(me, HV_MSR_SCONTROL, next(random) & 1);
}

static void act_ipi(struct villain *me)
{
    uint64_t *random = &me->random;
    uint8_t vector = random_vector(random);

    switch (below(random, 3)) {
    case 0:
        call(me, HV_SEND_SYNTHETIC_CLUSTER_IPI | HV_CALL_FAST, vector, next(random));
        break;
    case 1:
        write_msr(me, HV_MSR_ICR, spare_myself(HV_MSR_ICR, edge(random), random));
        break;
    default:
        send_ipi(me, below(random, cpu_count() + 1), vector);
        break;
    }
}

static void act_end_of(struct villain *me)
{
    unsigned count = below(&me->random, 16);

    for (unsigned i = 0; i < count; i++)
        write_msr(me, one_in(&me->random, 2) ? HV_MSR_EOM : HV_MSR_EOI, 0);
    if (one_in(&me->random, 4))
        end_interrupt(me);
}

/* Half of the VPs' interrupts end by the synthetic register. Some do not end, which act_end_of() makes up for. */
static void on_interrupt(struct frame *frame)
{
    struct villain *me = &villains[cpu_index()];

    if (frame->vector == VECTOR_NMI)
        return;
    /* Without this, timers of some 100 ns would leave no time for anything else. */
    if (++me->interrupts_in_a_row >= 200) {
        me->interrupts_in_a_row = 0;
        for (unsigned i = 0; i < 4; i++)
            write_msr(me, HV_MSR_STIMER_CONFIG(i), 0);
    }
    switch (below(&me->random, 8)) {
    case 0:
        break;
    case 1:
    case 2:
        write_msr(me, HV_MSR_EOI, 0);
        break;
    default:
        end_interrupt(me);
        break;
    }
}

/* Sleep as the hypervisor offers it, with something armed that ends the sleep. CPU 0 stays awake for the others. */
static void act_idle(struct villain *me)
{
    if (cpu_index() == 0)
        return;
    write_msr(me, HV_MSR_TPR, 0);
    for (unsigned i = 0; i < 16; i++)
        write_msr(me, HV_MSR_EOI, 0);
    write_msr(me, HV_MSR_STIMER_CONFIG(3), 0);
    write_msr(me, HV_MSR_STIMER_COUNT(3), 10000);
    write_msr(me, HV_MSR_STIMER_CONFIG(3),
              HV_STIMER_ENABLE | HV_STIMER_PERIODIC | HV_STIMER_DIRECT | HV_STIMER_VECTOR(0xF0));
    read_msr(me, HV_MSR_GUEST_IDLE);
}

/* -- Memory: what lies in overlay pages is the guest's to spoil -- */

static void act_memory(struct villain *me)
{
    uint64_t *random = &me->random;
    bool slot = one_in(random, 4); /* the first word of what may be a message */
    size_t offset =
        slot ? 256 * below(random, ARENA_PAGES * PAGE_SIZE / 256) : 8 * below(random, ARENA_PAGES * PAGE_SIZE / 8);

    poke(me, offset, one_in(random, 2) ? 0 : random_word(random));
}

/* -- The whole -- */

static void (*const functions[ACTIONS])(struct villain *) = {
    [ACT_HYPERCALL] = act_hypercall, [ACT_MSR] = act_msr,   [ACT_OVERLAY] = act_overlay,
    [ACT_TIMER] = act_timer,         [ACT_IPI] = act_ipi,   [ACT_END_OF] = act_end_of,
    [ACT_MEMORY] = act_memory,       [ACT_IDLE] = act_idle,
};

static enum action random_action(uint64_t *random)
{
    unsigned number = below(random, 256), action = 0;

    while (action < ACTIONS - 1 && number >= weights[action]) {
        number -= weights[action];
        action++;
    }
    return (enum action)action;
}

static void misbehave(struct villain *me)
{
    enum action action = random_action(&me->random);

    if (one_in(&me->random, 32))
        interrupts_off();
    else
        interrupts_on();
    functions[action](me);
    me->actions[action]++;
    me->interrupts_in_a_row = 0;
}

/* A processor without machine check exceptions is reset instead. */
static void allow_machine_checks(void)
{
    write_cr4(read_cr4() | CR4_MCE);
}

static void run_villain(void *argument)
{
    struct villain *me = argument;

    allow_machine_checks();
    while (!over)
        misbehave(me);
    interrupts_off();
}

static uint64_t option(const char *name, uint64_t value)
{
    char text[24];

    if (guest_option(name, text, sizeof(text))) {
        value = 0;
        for (const char *digit = text; *digit >= '0' && *digit <= '9'; digit++)
            value = value * 10 + (uint64_t)(*digit - '0');
    }
    return value;
}

static void print_villain(unsigned cpu)
{
    const struct villain *v = &villains[cpu];

    print("DONE %u", cpu);
    for (unsigned i = 0; i < ACTIONS; i++)
        print(" %llu", (unsigned long long)v->actions[i]);
    print(" faults UD %llu GP %llu MC %llu\n", (unsigned long long)v->faults[VECTOR_UD],
          (unsigned long long)v->faults[VECTOR_GP], (unsigned long long)v->faults[VECTOR_MC]);
}

void guest_main(void)
{
    uint64_t seed = option("seed", 1), seconds = option("seconds", DEFAULT_SECONDS);
    uint64_t frequency = clock_measure_tsc(), report = rdtsc();

    arena = page_alloc(ARENA_PAGES);
    deadline = report + seconds * frequency;
    for (unsigned vector = SAFE_VECTOR; vector < 0x100; vector++)
        interrupt_set_handler((uint8_t)vector, on_interrupt);
    interrupt_set_handler(VECTOR_NMI, on_interrupt);
    for (unsigned cpu = 0; cpu < cpu_count(); cpu++)
        villains[cpu].random = random_begin(seed, cpu);
    for (unsigned cpu = 1; cpu < cpu_count(); cpu++)
        smp_start(cpu, run_villain, &villains[cpu]);
    allow_machine_checks();
    while (rdtsc() < deadline) {
        misbehave(&villains[0]);
        if (rdtsc() - report >= frequency) {
            report += frequency;
            print("ALIVE\n");
        }
    }
    interrupts_off();
    over = true;
    /* The others may sleep for ever now, but what they did is known. */
    for (unsigned cpu = 0; cpu < cpu_count(); cpu++)
        print_villain(cpu);
}
