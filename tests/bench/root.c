/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The benchmark's program for the root partition. With one CPU it measures what happens on one LP, with two what takes
 * two; under stock QEMU, without a hypervisor, what the figures are compared with: nested SVM, and IPIs to halted CPUs.
 *
 * A child sees the runtime's memory where the root does, and runs functions of this file: the same code on the same
 * pages. Time is the TSC's, as measured by the HPET at the start. The lines it prints and the options are those of
 * measure.h.
 */
#include "root.h"

#include "measure.h"

#define BUFFER_SIZE (UINT64_C(256) << 20)
#define SHARED_BEGIN UINT64_C(0x100000)
#define PORT_DONE 0x80

#define VECTOR_MESSAGE 0x50
#define VECTOR_CHANNEL 0x53
#define CHANNEL_SINT 2u
#define CHANNEL_PORT 0x10u
#define CHANNEL_CONNECTION 0x20u
#define PORT_TYPE_MESSAGE 1u
#define PORT_TYPE_EVENT 2u
#define CHILD_STACK_SIZE 0x4000u

static uint64_t root_id;

/* -- Jobs: what root VPs and children are given to do -- */

static uint8_t *buffer;

static void work_cpu(uint64_t turns)
{
    uint64_t value = 1;
    while (turns-- > 0) {
        value = (value ^ value >> 29) * UINT64_C(0xBF58476D1CE4E5B9) + turns;
    }
    __asm__ volatile("" : : "r"(value));
}

/* 2 MiB again and again: the host's caches miss, QEMU's TLB does not. */
static void work_memory(uint64_t turns)
{
    enum { WORDS = 0x200000 / 8, STEP = 8 };
    volatile uint64_t *words = (uint64_t *)buffer;
    for (uint64_t i = 0; i < turns; i++) {
        words[i * STEP % WORDS]++;
    }
}

static void work_walk(uint64_t turns)
{
    uint64_t state = 1;
    while (turns-- > 0) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        state ^= *(volatile uint64_t *)(buffer + (state >> 36 & (BUFFER_SIZE - 1) & ~UINT64_C(7)));
    }
    __asm__ volatile("" : : "r"(state));
}

struct job {
    void (*work)(uint64_t turns);
    uint64_t turns;
    unsigned workers; /* that begin together */
    volatile uint64_t ticks;
};

static volatile uint32_t workers_ready;

static void do_job(void *argument)
{
    struct job *job = argument;
    __atomic_add_fetch(&workers_ready, 1, __ATOMIC_SEQ_CST);
    while (workers_ready < job->workers) {
        cpu_pause();
    }
    uint64_t begin = rdtsc();
    job->work(job->turns);
    job->ticks = rdtsc() - begin;
}

/* -- Children -- */

struct worker {
    struct child child;
    struct job job;
    uint8_t *stack, *gdt;
};
static struct worker workers[2];

/* Of a child, in RDI. */
static void serve(struct worker *worker)
{
    for (;;) {
        do_job(&worker->job);
        outb(PORT_DONE, 0);
    }
}

static void make_child(struct worker *worker)
{
    worker->child = (struct child){.privileges = CHILD_PRIVILEGES};
    worker->stack = page_alloc(CHILD_STACK_SIZE / PAGE_SIZE);
    worker->gdt = page_alloc(1);
    child_create(&worker->child);
    child_map(&worker->child, SHARED_BEGIN, SHARED_BEGIN, GUEST_MEMORY_NEEDED - SHARED_BEGIN, CHILD_RAM);
    child_map(&worker->child, (uintptr_t)buffer, (uintptr_t)buffer, BUFFER_SIZE, CHILD_RAM);
    child_add_vp(&worker->child, 0);
    child_intercept_ports(&worker->child, PORT_DONE, 1);
}

/* It gets the worker as its parameter, and has no caller to return to. */
static void child_begins_at(struct worker *worker, void (*function)(struct worker *worker))
{
    child_make_gdt(&worker->child, 0, (uintptr_t)worker->gdt, true);
    child_enter_long_mode(&worker->child, 0, (uintptr_t)function, vm_root(), 0);
    child_set_register(&worker->child, 0, HV_REGISTER_Rdi, (uintptr_t)worker);
    child_set_register(&worker->child, 0, HV_REGISTER_Rsp, (uintptr_t)worker->stack + CHILD_STACK_SIZE - 8);
}

static struct intercept wait_for_port(void)
{
    struct intercept intercept;
    if (!intercept_receive(&intercept, 0) || intercept.message.type != (uint32_t)HV_MESSAGE_X64IoPortIntercept) {
        intercept_describe(&intercept);
        guest_panic("a child did something else");
    }
    return intercept;
}

/* Start `count` of the children on their jobs, and wait for the end. The first of them has begun at serve(). */
static void run_children(unsigned count, const struct job *job)
{
    static struct intercept last[2];
    static bool began[2];
    workers_ready = 0;
    for (unsigned i = 0; i < count; i++) {
        workers[i].job = *job;
        workers[i].job.workers = count;
    }
    for (unsigned i = 0; i < count; i++) {
        if (began[i]) {
            intercept_complete(&last[i], INTERCEPT_DONE);
        } else {
            child_resume(&workers[i].child, 0);
        }
        began[i] = true;
    }
    for (unsigned i = 0; i < count; i++) {
        struct intercept intercept = wait_for_port();
        last[intercept.partition == workers[0].child.id ? 0 : 1] = intercept;
    }
}

static uint64_t run_child(const struct job *job)
{
    run_children(1, job);
    return workers[0].job.ticks;
}

static uint64_t run_root(struct job job)
{
    workers_ready = 0;
    job.workers = 1;
    do_job(&job);
    return job.ticks;
}

static void make_workers(unsigned count)
{
    intercept_enable(VECTOR_MESSAGE);
    for (unsigned i = 0; i < count; i++) {
        make_child(&workers[i]);
        child_begins_at(&workers[i], serve);
    }
}

static void delete_workers(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        child_delete(&workers[i].child);
    }
}

/* -- Loops (one LP) -- */

static void touch_buffer(void)
{
    for (uint64_t at = 0; at < BUFFER_SIZE; at += PAGE_SIZE) {
        *(volatile uint64_t *)(buffer + at) = at;
    }
}

static void measure_loops(void)
{
    static const struct {
        const char *root, *child;
        struct job job;
    } loops[] = {
        {"cpu-root", "cpu-child", {.work = work_cpu, .turns = 5000000}},
        {"memory-root", "memory-child", {.work = work_memory, .turns = 2000000}},
        {"walk-root", "walk-child", {.work = work_walk, .turns = 200000}},
    };
    make_workers(1);
    for (unsigned i = 0; i < sizeof(loops) / sizeof(loops[0]); i++) {
        const struct job *job = &loops[i].job;
        for (unsigned repetition = 0; wanted(loops[i].root) && repetition <= repeat; repetition++) {
            uint64_t root = run_root(*job), child = run_child(job);
            if (repetition > 0) { /* the first fills what caches there are */
                report(loops[i].root, "ps", picoseconds(root) / job->turns);
                report(loops[i].child, "ps", picoseconds(child) / job->turns);
            }
        }
    }
    delete_workers(1);
}

/* -- CPUID intercepts -- */

#define INTERCEPTED_LEAF 1u
#define INTERCEPT_TURNS 500u

/* While the child computes the root halts, and its LP has nothing to run; nor has the child's while the root answers.
 */

static volatile uint64_t cpuid_ticks;

static void compute_and_use_cpuid(struct worker *worker)
{
    (void)worker;
    for (;;) {
        delay(IPI_RHYTHM_US);
        uint64_t begin = rdtsc();
        cpuid(INTERCEPTED_LEAF, 0);
        cpuid_ticks = rdtsc() - begin;
    }
}

static void use_cpuid(struct worker *worker)
{
    (void)worker;
    for (;;) {
        cpuid(INTERCEPTED_LEAF, 0);
    }
}

/* The calls' parameters, prepared: a turn changes what differs from the turn before. */
struct exchange {
    struct {
        struct hv_in_get_vp_registers header;
        uint32_t names[2];
    } get __attribute__((aligned(64)));
    union hv_register_value got[2] __attribute__((aligned(64)));
    struct {
        struct hv_in_set_vp_registers header;
        struct hv_register_assignment list[6];
    } set __attribute__((aligned(256)));
};
static struct exchange exchange __attribute__((aligned(4096)));
static struct hv_message message_page[PAGE_SIZE / sizeof(struct hv_message)] __attribute__((aligned(4096)));
volatile bool interrupt_taken;

static __attribute__((naked)) void take_interrupt(void)
{
    __asm__("movb $1, interrupt_taken; iretq");
}

static void prepare_exchange(uint64_t partition)
{
    static const uint32_t results[] = {HV_REGISTER_Rax, HV_REGISTER_Rbx, HV_REGISTER_Rcx,
                                       HV_REGISTER_Rdx, HV_REGISTER_Rip, HV_REGISTER_InterceptSuspend};
    memset(&exchange, 0, sizeof(exchange));
    exchange.get.header.partition = exchange.set.header.partition = partition;
    exchange.get.names[0] = HV_REGISTER_Rip;
    exchange.get.names[1] = HV_REGISTER_Rsp;
    for (unsigned i = 0; i < 6; i++) {
        exchange.set.list[i].name = results[i];
    }
}

/* What a turn does is in one function, as the nested SVM's loop is: the calls are what is measured. */
#define IN_THE_TURN static inline __attribute__((always_inline))

static uintptr_t hypercall_page;

IN_THE_TURN void call_must(uint64_t input_value, uint64_t input, uint64_t output)
{
    uint64_t result;
    register uint64_t r8 __asm__("r8") = output;
    __asm__ volatile("call *%[page]"
                     : "=a"(result), "+c"(input_value), "+d"(input), "+r"(r8)
                     : [page] "r"(hypercall_page)
                     : "memory", "cc");
    unsigned status = HV_RESULT_STATUS(result);
    if (status != HV_STATUS_SUCCESS) {
        guest_panic("call %llx: %s", (unsigned long long)input_value, hv_status_name(status));
    }
}

/* The message is there: read registers, answer the CPUID, resume. */
IN_THE_TURN void answer(void)
{
    message_page[0].type = 0;
    call_must(hv_form_get_vp_registers.code | HV_CALL_REPS(2), (uintptr_t)&exchange.get, (uintptr_t)exchange.got);
    exchange.set.list[4].value.u64 = exchange.got[0].u64 + 2;
    call_must(hv_form_set_vp_registers.code | HV_CALL_REPS(6), (uintptr_t)&exchange.set, 0);
}

/* Interrupts are off while the root waits and works. What woke it stays requested, so the root does not sleep again:
 * it only lets the child go first. */
IN_THE_TURN void turn_in_guest_idle(void)
{
    while (message_page[0].type == 0) {
        rdmsr(HV_MSR_GUEST_IDLE);
    }
    answer();
}

IN_THE_TURN void turn_by_interrupt(void)
{
    while (!interrupt_taken) {
        interrupts_on_halt();
    }
    interrupt_taken = false;
    if (message_page[0].type != 0) {
        answer();
    }
}

static void begin_intercepts(struct worker *worker, void (*function)(struct worker *worker))
{
    make_child(worker);
    child_begins_at(worker, function);
    child_intercept_cpuid(&worker->child, INTERCEPTED_LEAF);
    prepare_exchange(worker->child.id);
    interrupt_taken = false;
    interrupt_set_entry(VECTOR_MESSAGE, take_interrupt);
    hypercall_page = hv_hypercall_page();
    wrmsr(HV_MSR_SIMP, (uintptr_t)message_page | HV_MSR_ENABLE);
    wrmsr(HV_MSR_SINT0, VECTOR_MESSAGE | HV_SINT_AUTO_EOI);
    wrmsr(HV_MSR_SCONTROL, 1);
    child_resume(&worker->child, 0);
}

static void end_intercepts(struct worker *worker)
{
    child_delete(&worker->child);
    interrupts_on(); /* what the child asked for last; masked, the interrupt would not be ended by itself */
    interrupts_off();
    wrmsr(HV_MSR_SINT0, HV_SINT_MASKED);
    interrupt_set_entry(VECTOR_MESSAGE, NULL);
    message_page[0].type = 0;
}

IN_THE_TURN void measure_intercept(const char *name, void (*turn)(void))
{
    if (!wanted(name)) {
        return;
    }
    begin_intercepts(&workers[0], use_cpuid);
    for (unsigned repetition = 0; repetition <= repeat; repetition++) {
        uint64_t begin = rdtsc();
        for (unsigned i = 0; i < INTERCEPT_TURNS; i++) {
            turn();
        }
        if (repetition > 0) {
            report(name, "ps", picoseconds(rdtsc() - begin) / INTERCEPT_TURNS);
        }
    }
    end_intercepts(&workers[0]);
}

/* A child that never runs has its place on the root's LP, so that the one that is measured gets the other. */
static void measure_intercept_on_other_lp(const char *name)
{
    if (!wanted(name)) {
        return;
    }
    make_child(&workers[0]);
    begin_intercepts(&workers[1], compute_and_use_cpuid);
    for (unsigned i = 0; i < (repeat + 1) * IPI_SINGLE_TURNS; i++) {
        turn_by_interrupt();
        if (i > IPI_SINGLE_TURNS) {
            report(name, "ns", picoseconds(cpuid_ticks) / 1000); /* the turn before */
        }
    }
    end_intercepts(&workers[1]);
    child_delete(&workers[0].child);
}

/* -- TCG's own nested SVM (one CPU, without a hypervisor) -- */

#define MSR_VM_HSAVE_PA 0xC0010117u
#define EFER_SVME 0x1000u
#define SVM_TURNS 500u
#define SVM_EXIT_CPUID 0x72u

/* AMD64 Architecture Programmer's Manual, volume 2, appendix B: offsets in the VMCB */
enum {
    VMCB_INTERCEPTS1 = 0x0C,
    VMCB_INTERCEPTS2 = 0x10,
    VMCB_ASID = 0x58,
    VMCB_EXIT_CODE = 0x70,
    VMCB_ES = 0x400,
    VMCB_CS = 0x410,
    VMCB_SS = 0x420,
    VMCB_DS = 0x430,
    VMCB_EFER = 0x4D0,
    VMCB_CR4 = 0x548,
    VMCB_CR3 = 0x550,
    VMCB_CR0 = 0x558,
    VMCB_RFLAGS = 0x570,
    VMCB_RIP = 0x578,
};
#define INTERCEPT1_CPUID (1u << 18)
#define INTERCEPT2_VMRUN 1u

static uint8_t vmcb[PAGE_SIZE] __attribute__((aligned(4096)));
static uint8_t host_save[PAGE_SIZE] __attribute__((aligned(4096)));

__asm__(".pushsection .text\nsvm_guest: cpuid; jmp svm_guest\n.popsection");
extern const uint8_t svm_guest[];

static void vmcb_set(unsigned offset, uint64_t value)
{
    *(volatile uint64_t *)(vmcb + offset) = value;
}

static void vmcb_set_segment(unsigned offset, uint16_t selector, uint16_t attributes)
{
    vmcb_set(offset, (uint64_t)UINT32_MAX << 32 | (uint64_t)attributes << 16 | selector);
}

static void vmcb_init(void)
{
    memset(vmcb, 0, sizeof(vmcb));
    *(volatile uint32_t *)(vmcb + VMCB_INTERCEPTS1) = INTERCEPT1_CPUID;
    *(volatile uint32_t *)(vmcb + VMCB_INTERCEPTS2) = INTERCEPT2_VMRUN;
    *(volatile uint32_t *)(vmcb + VMCB_ASID) = 1;
    vmcb_set_segment(VMCB_CS, GUEST_CS64, 0xA9B);
    for (unsigned offset = VMCB_ES; offset <= VMCB_DS; offset += 0x10) {
        if (offset != VMCB_CS) {
            vmcb_set_segment(offset, GUEST_DS, 0xC93);
        }
    }
    vmcb_set(VMCB_EFER, rdmsr(MSR_EFER));
    vmcb_set(VMCB_CR4, read_cr4());
    vmcb_set(VMCB_CR3, read_cr3());
    vmcb_set(VMCB_CR0, read_cr0());
    vmcb_set(VMCB_RFLAGS, 2);
    vmcb_set(VMCB_RIP, (uintptr_t)svm_guest);
}

static void svm_round_trip(void)
{
    __asm__ volatile("vmrun" : : "a"(vmcb) : "rbx", "rcx", "rdx", "memory", "cc");
    *(volatile uint64_t *)(vmcb + VMCB_RIP) += 2;
}

static void measure_svm(void)
{
    if (!wanted("svm")) {
        return;
    }
    if (!(cpuid(0x80000001, 0).ecx & 4)) {
        guest_panic("there is no SVM: use -cpu max");
    }
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
    wrmsr(MSR_VM_HSAVE_PA, (uintptr_t)host_save);
    vmcb_init();
    for (unsigned repetition = 0; repetition <= repeat; repetition++) {
        uint64_t begin = rdtsc();
        for (unsigned i = 0; i < SVM_TURNS; i++) {
            svm_round_trip();
        }
        if (repetition > 0) {
            report("svm", "ps", picoseconds(rdtsc() - begin) / SVM_TURNS);
        }
    }
    __asm__ volatile("stgi");
    if (*(volatile uint64_t *)(vmcb + VMCB_EXIT_CODE) != SVM_EXIT_CPUID) {
        guest_panic("vmrun ended with exit code %llx", *(unsigned long long *)(vmcb + VMCB_EXIT_CODE));
    }
}

/* -- Mapping (one LP) -- */

#define MAP_CALLS 32u
#define MAP_PER_CALL ((PAGE_SIZE - sizeof(struct hv_in_map_gpa_pages)) / sizeof(uint64_t)) /* all that fit */
#define MAP_GPA (UINT64_C(4) << 30)
#define MAP_POOL_PAGES 512u

static struct hv_in_map_gpa_pages *make_map_input(const struct child *child, unsigned number)
{
    struct hv_in_map_gpa_pages *input = page_alloc(1);
    uint64_t first = (uint64_t)number * MAP_PER_CALL, *list = (uint64_t *)(input + 1);
    uint32_t execute = root_is_2008r2() ? HV_MAP_EXECUTE_2008R2 : HV_MAP_EXECUTE_CURRENT;
    input->partition = child->id;
    input->gpa_page = MAP_GPA / PAGE_SIZE + first;
    input->flags = HV_MAP_READ | HV_MAP_WRITE | execute;
    for (unsigned i = 0; i < MAP_PER_CALL; i++) {
        list[i] = (uintptr_t)buffer / PAGE_SIZE + first + i;
    }
    return input;
}

static void measure_map(void)
{
    struct child child = {.privileges = CHILD_PRIVILEGES};
    struct hv_in_map_gpa_pages *inputs[MAP_CALLS];
    if (!wanted("map-page")) {
        return;
    }
    child_create(&child);
    partition_deposit(child.id, MAP_POOL_PAGES);
    for (unsigned i = 0; i < MAP_CALLS; i++) {
        inputs[i] = make_map_input(&child, i);
    }
    for (unsigned repetition = 0; repetition <= repeat; repetition++) {
        uint64_t begin = rdtsc();
        for (unsigned i = 0; i < MAP_CALLS; i++) {
            call_must(hv_form_map_gpa_pages.code | HV_CALL_REPS(MAP_PER_CALL), (uintptr_t)inputs[i], 0);
        }
        uint64_t ticks = rdtsc() - begin;
        if (repetition > 0) {
            report("map-page", "ps", picoseconds(ticks) / (MAP_CALLS * MAP_PER_CALL));
        }
        child_unmap(&child, MAP_GPA, MAP_CALLS * MAP_PER_CALL * PAGE_SIZE);
    }
    child_delete(&child);
}

/* -- Partitions that come and go (one LP) -- */

#define LIVES 4u /* a repetition */

static void measure_life(void)
{
    for (unsigned i = 0; wanted("partition-life") && i < (repeat + 1) * LIVES; i++) {
        struct child child = {.privileges = CHILD_PRIVILEGES};
        uint64_t begin = rdtsc();
        child_create(&child);
        child_add_vp(&child, 0);
        child_delete(&child);
        if (i >= LIVES) {
            report("partition-life", "ns", picoseconds(rdtsc() - begin) / 1000);
        }
    }
}

/* -- IPIs between CPUs (two LPs) -- */

static void measure_halted_ipis(void)
{
    static const struct ipi_way halted = {"ipi-halted", send_by_icr, apic_eoi, true, true};
    static const struct ipi_way spinning = {"ipi-halted-spinning", send_by_icr, apic_eoi, true, false};
    measure_ipis(&halted);
    measure_ipis(&spinning);
}

static void measure_hypercall_ipis(void)
{
    static const struct ipi_way way = {"ipi-hypercall", send_by_hypercall, end_by_assist_page, false, false};
    smp_run_all(enable_assist_page, NULL);
    measure_ipis(&way);
}

/* -- Two at once (two LPs) -- */

static uint64_t run_two_roots(struct job job)
{
    struct job second;
    workers_ready = 0;
    job.workers = 2;
    second = job;
    smp_start(1, do_job, &second);
    do_job(&job);
    if (!smp_wait(1, PATIENCE_US)) {
        guest_panic("CPU 1 does not end its job");
    }
    return (job.ticks + second.ticks) / 2;
}

static uint64_t run_two_children(const struct job *job)
{
    run_children(2, job);
    return (workers[0].job.ticks + workers[1].job.ticks) / 2;
}

/*
 * Each's time for the same job. The children's is corrected by how long one alone takes, compared with one root VP
 * alone: the ratio is then only of what it costs not to be alone.
 */
static void measure_two(void)
{
    static const struct job job = {.work = work_cpu, .turns = 20000000};
    if (!wanted("two")) {
        return;
    }
    make_workers(2);
    for (unsigned repetition = 0; repetition <= repeat; repetition++) {
        uint64_t root = run_root(job), child = run_child(&job);
        uint64_t roots = run_two_roots(job), children = run_two_children(&job);
        if (repetition > 0) {
            report("two-roots", "ps", picoseconds(roots) / job.turns);
            report("two-children", "ps", picoseconds(children * root / child) / job.turns);
        }
    }
    delete_workers(2);
}

/* -- Messages and events from a child to the root and back (two LPs) -- */

#define CHANNEL_TURNS 500u
#define APIC_SVR_ENABLE 0x100u

struct side {
    uintptr_t hypercall_page;
    struct hv_message *messages;
    volatile uint64_t *flags;
    struct hv_in_post_message *post;
};
static struct side root_side, child_side;
static bool by_events;
static volatile uint32_t channel_turns, channel_failure;
static uint64_t channel_ticks;

static void make_side(struct side *side)
{
    side->hypercall_page = (uintptr_t)page_alloc(1);
    side->messages = page_alloc(1);
    side->flags = page_alloc(1);
    side->post = page_alloc(1);
    *side->post = (struct hv_in_post_message){.connection = CHANNEL_CONNECTION, .type = 1, .size = 8};
}

static void enable_side(const struct side *side)
{
    wrmsr(HV_MSR_SIMP, (uintptr_t)side->messages | HV_MSR_ENABLE);
    wrmsr(HV_MSR_SIEFP, (uintptr_t)side->flags | HV_MSR_ENABLE);
    wrmsr(HV_MSR_SINT0 + CHANNEL_SINT, VECTOR_CHANNEL | HV_SINT_AUTO_EOI);
    wrmsr(HV_MSR_SCONTROL, 1);
}

static void send(const struct side *side)
{
    uint64_t result;
    if (by_events) {
        result = hv_call_at(side->hypercall_page, HV_SIGNAL_EVENT | HV_CALL_FAST, CHANNEL_CONNECTION, 0);
    } else {
        result = hv_call_at(side->hypercall_page, HV_POST_MESSAGE, (uintptr_t)side->post, 0);
    }
    if (HV_RESULT_STATUS(result) != HV_STATUS_SUCCESS) {
        channel_failure = HV_RESULT_STATUS(result); /* a child cannot panic */
    }
}

static void take(const struct side *side)
{
    struct hv_message *slot = &side->messages[CHANNEL_SINT];
    if (by_events) {
        __atomic_fetch_and(&side->flags[CHANNEL_SINT * 256 / 8], ~UINT64_C(1), __ATOMIC_SEQ_CST);
        return;
    }
    __atomic_store_n(&slot->type, 0, __ATOMIC_SEQ_CST);
    if (slot->flags & HV_MESSAGE_PENDING) {
        wrmsr(HV_MSR_EOM, 0);
    }
}

static void handle_channel(struct frame *frame)
{
    (void)frame;
    take(&root_side);
    send(&root_side);
}

struct interrupt_frame;
__attribute__((interrupt)) static void child_handles_channel(struct interrupt_frame *frame)
{
    (void)frame;
    take(&child_side);
    if (++channel_turns < CHANNEL_TURNS) {
        send(&child_side);
    }
}

static void child_loads_gate(void)
{
    static uint64_t idt[512];
    uint64_t handler = (uintptr_t)child_handles_channel;
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) pointer = {sizeof(idt) - 1, (uintptr_t)idt};
    idt[VECTOR_CHANNEL * 2] =
        (handler & 0xFFFF) | (uint64_t)CHILD_CODE << 16 | UINT64_C(0x8E00) << 32 | (handler >> 16 & 0xFFFF) << 48;
    idt[VECTOR_CHANNEL * 2 + 1] = handler >> 32;
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

static void use_channel(struct worker *worker)
{
    (void)worker;
    child_loads_gate();
    *(volatile uint32_t *)(uintptr_t)(APIC_BASE + APIC_SVR) = APIC_SVR_ENABLE | VECTOR_SPURIOUS;
    wrmsr(HV_MSR_GUEST_OS_ID, UINT64_C(1) << 48);
    wrmsr(HV_MSR_HYPERCALL, child_side.hypercall_page | HV_MSR_ENABLE);
    enable_side(&child_side);
    for (;;) {
        channel_turns = 0;
        interrupts_on();
        uint64_t begin = rdtsc();
        send(&child_side);
        while (channel_turns < CHANNEL_TURNS) {
        }
        channel_ticks = rdtsc() - begin;
        interrupts_off();
        outb(PORT_DONE, 0);
    }
}

/* One way: a port of `to`, a connection of `from`. */
static void connect(uint64_t from, uint64_t to, uint32_t type)
{
    struct hv_in_create_port_current port = {.port_partition = to, .port = CHANNEL_PORT, .connection_partition = from};
    struct hv_in_connect_port_current connection = {.connection_partition = from,
                                                    .connection = CHANNEL_CONNECTION,
                                                    .port_partition = to,
                                                    .port = CHANNEL_PORT,
                                                    .type = type};
    port.info.type = type;
    port.info.sint = CHANNEL_SINT;
    if (type == PORT_TYPE_EVENT) {
        port.info.flag_count = 1;
    }
    HV_MUST(hvcall_create_port_current(&port, NULL));
    HV_MUST(hvcall_connect_port_current(&connection, NULL));
}

static void disconnect(void)
{
    struct hv_in_disconnect_port connection = {.partition = root_id, .connection = CHANNEL_CONNECTION};
    struct hv_in_delete_port port = {.partition = root_id, .port = CHANNEL_PORT};
    HV_MUST(hvcall_disconnect_port(&connection, NULL));
    HV_MUST(hvcall_delete_port(&port, NULL));
}

static void wait_for_channel(struct intercept *intercept)
{
    interrupts_on();
    bool reached = WAIT_UNTIL(channel_turns == CHANNEL_TURNS || channel_failure, PATIENCE_US);
    interrupts_off();
    if (!reached || channel_failure) {
        guest_panic("a channel stopped after %u turns: %s", channel_turns, hv_status_name(channel_failure));
    }
    if (!intercept_receive(intercept, PATIENCE_US)) {
        guest_panic("the child does not tell its end");
    }
}

static void measure_channel(const char *name, uint32_t type)
{
    struct worker *worker = &workers[0];
    struct intercept intercept;
    if (!wanted(name)) {
        return;
    }
    by_events = type == PORT_TYPE_EVENT;
    make_side(&root_side);
    make_side(&child_side);
    root_side.hypercall_page = hv_hypercall_page();
    interrupt_set_handler(VECTOR_CHANNEL, handle_channel);
    enable_side(&root_side);
    intercept_enable(VECTOR_MESSAGE);
    root_side.messages = (struct hv_message *)(uintptr_t)(rdmsr(HV_MSR_SIMP) & ~UINT64_C(0xFFF));
    make_child(worker);
    connect(worker->child.id, root_id, type);
    connect(root_id, worker->child.id, type);
    child_begins_at(worker, use_channel);
    child_resume(&worker->child, 0);
    for (unsigned repetition = 0; repetition <= repeat; repetition++) {
        if (repetition > 0) {
            intercept_complete(&intercept, INTERCEPT_DONE);
        }
        wait_for_channel(&intercept);
        channel_turns = 0;
        if (repetition > 0) {
            report(name, "ps", picoseconds(channel_ticks) / CHANNEL_TURNS);
        }
    }
    disconnect();
    child_delete(&worker->child);
}

/* -- -- */

static bool hypervisor_present(void)
{
    /* "Hv#1" (TLFS 3.4) */
    return (cpuid(1, 0).ecx & 1u << 31) && cpuid(HV_LEAF_INTERFACE, 0).eax == 0x31237648;
}

static void measure_one_lp(void)
{
    measure_loops();
    measure_intercept("intercept-idle", turn_in_guest_idle);
    measure_intercept("intercept-interrupt", turn_by_interrupt);
    measure_map();
    measure_life();
}

static void measure_two_lps(void)
{
    measure_intercept_on_other_lp("intercept-other-lp");
    measure_halted_ipis();
    measure_hypercall_ipis();
    measure_two();
    measure_channel("message", PORT_TYPE_MESSAGE);
    measure_channel("event", PORT_TYPE_EVENT);
}

static void measure_as_root(void)
{
    struct hv_out_get_partition_id self;
    root_enable();
    HV_MUST(hvcall_get_partition_id(NULL, &self));
    root_id = self.partition;
    buffer = (uint8_t *)ram_reserve(BUFFER_SIZE, LARGE_PAGE_SIZE);
    touch_buffer();
    if (cpu_count() == 1) {
        measure_one_lp();
    } else {
        measure_two_lps();
    }
}

void guest_main(void)
{
    measure_begin();
    if (hypervisor_present()) {
        measure_as_root();
    } else if (cpu_count() == 1) {
        measure_svm();
    } else {
        measure_halted_ipis();
    }
    print("BENCH-END\n");
}
