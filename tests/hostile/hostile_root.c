/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A root partition that does its worst, and children that do theirs: the root's VPs make random hypercalls, move what
 * children run on, and start, answer and delete them at any time; the children's VPs run random code, and a program of
 * random actions. The hypervisor may answer as it likes, as long as it goes on answering.
 *
 * Options: seed=NUMBER, seconds=NUMBER. The guest prints "ALIVE" each second with how much was done, and how long a VP
 * of the root stood still at most; "FINISHING" when the time is over, then it deletes all partitions and takes back all
 * pages, each of which must work again; and at the end "DONE". It spares itself (random_call.h).
 */
#include "random_call.h"

#define DEFAULT_SECONDS 10
#define VECTOR_MESSAGE 0x50
#define CR4_MCE 0x40u
#define MSR_MCG_STATUS 0x17A
#define FAULTS 32u
#define CHILD_VPS 3u
#define FIRST_DEPOSIT 200u

/* What a slot's child sees from GPA 0 on, one of the arena's parts. */
#define PART_SIZE 0x40000u
#define GPA_CODE 0x1000u /* random bytes */
#define GPA_GDT 0x2000u
#define GPA_TABLES 0x3000u /* six pages */
#define GPA_IDT 0xA000u
#define GPA_DATA 0xB000u /* to the stacks: parameters, overlays */
#define GPA_STACKS 0x10000u
#define CHILD_STACK 0x4000u

/* Some children may have ports and children of their own. */
#define PARENT_PRIVILEGES                                                                                              \
    (HV_PRIVILEGE_CreatePartitions | HV_PRIVILEGE_AccessPartitionId | HV_PRIVILEGE_AccessMemoryPool |                  \
     HV_PRIVILEGE_CreatePort | HV_PRIVILEGE_ConnectPort)

enum action {
    ACT_CALL,
    ACT_BUILD,
    ACT_START,
    ACT_REGISTERS,
    ACT_INTERRUPT,
    ACT_MESSAGES,
    ACT_REMAP,
    ACT_MEMORY,
    ACT_TRANSFER,
    ACT_SYNIC,
    ACT_DELETE,
    ACT_IDLE,
    ACTIONS
};

/* How often each is chosen, of 256. */
static const uint8_t weights[ACTIONS] = {
    [ACT_CALL] = 90,      [ACT_BUILD] = 10,    [ACT_START] = 40, [ACT_REGISTERS] = 16,
    [ACT_INTERRUPT] = 16, [ACT_MESSAGES] = 40, [ACT_REMAP] = 12, [ACT_MEMORY] = 16,
    [ACT_TRANSFER] = 6,   [ACT_SYNIC] = 6,     [ACT_DELETE] = 2, [ACT_IDLE] = 2,
};

struct villain {
    struct caller caller;
    volatile uint64_t actions[ACTIONS];
    uint64_t restored; /* streams that were accepted */
    volatile uint64_t messages, faults[FAULTS];
    uint64_t message_types[2]; /* bits: types of 0x80000000 and 0x80010000 on */
};

static struct villain villains[GUEST_MAX_CPUS];
static uint64_t parameter_pages[2 * GUEST_MAX_CPUS][PAGE_SIZE / 8] __attribute__((aligned(4096)));
static volatile bool over;
extern uint8_t guest_image_end[];

static struct villain *self(void)
{
    return &villains[cpu_index()];
}

/* An exception in the statements ends them; it is the hypervisor's right. */
#define TRY(...)                                                                                                       \
    do {                                                                                                               \
        struct fault fault_;                                                                                           \
        CATCH(fault_, __VA_ARGS__);                                                                                    \
        count_fault(&fault_);                                                                                          \
    } while (0)

static void count_fault(const struct fault *fault)
{
    if (!fault->raised) {
        return;
    }
    self()->faults[fault->vector % FAULTS]++;
    if (fault->vector == VECTOR_MC) {
        wrmsr(MSR_MCG_STATUS, 0); /* another one before that resets the processor */
    }
}

/* -- What children run: at the same addresses as here, with nothing of the image to write to -- */

struct child_vp {
    struct caller caller;
};

_Noreturn void child_main(struct child_vp *me);
extern const uint8_t child_exception[], child_begin[];
/* The stack pointer finds what belongs to the VP, if it still is one. */
__asm__(".pushsection .text\n"
        "child_exception:\n\t"
        "child_begin:\n\t"
        "and $-0x4000, %rsp\n\t"
        "mov %rsp, %rdi\n\t"
        "add $0x3FF8, %rsp\n\t"
        "cld\n\t"
        "jmp child_main\n\t"
        ".popsection");

static void child_msr(uint64_t *random)
{
    static const uint32_t first[] = {0x40000000, 0x40000010, 0x40000020, 0x40000070, 0x40000080, 0x40000090,
                                     0x400000B0, 0x400000C0, 0x400000E0, 0x400000F0, 0x40000100, 0x40000110,
                                     0x800,      0x810,      0x820,      0x830,      0x10,       0x1B,
                                     0x277,      0x2FF,      0x200,      0x250,      0xC0000080, 0xC0000100,
                                     0x3A,       0x1D9,      0x174,      0x17A,      0xDA0,      0x6E0};
    uint32_t index = RANDOM_OF(random, first) + below(random, one_in(random, 2) ? 16 : 1);
    uint64_t value = one_in(random, 2) ? edge(random) : GPA_DATA + PAGE_SIZE * below(random, 4) + 1;

    if (index >= HV_MSR_CRASH_P0 && index <= HV_MSR_CRASH_CTL && !one_in(random, 512)) {
        return; /* each may print a line */
    }
    if (one_in(random, 2)) {
        rdmsr(index);
    } else {
        wrmsr(index, value);
    }
}

static void child_port(uint64_t *random)
{
    static const uint16_t ports[] = {0x80, 0xE9, 0xF4, 0x20, 0x40, 0x60, 0x64, 0x70, 0xCF8, 0xCFC, 0xCF9, 0x3F8, 0x608};
    uint16_t port = one_in(random, 4) ? (uint16_t)next(random) : RANDOM_OF(random, ports);
    uint32_t value = (uint32_t)edge(random);
    uint64_t at = one_in(random, 4) ? edge(random) : GPA_DATA + below(random, PAGE_SIZE), count = below(random, 8);

    switch (below(random, 8)) {
    case 0:
        outb(port, (uint8_t)value);
        break;
    case 1:
        inb(port);
        break;
    case 2:
        outl(port, value);
        break;
    case 3:
        __asm__ volatile("inw %w1, %w0" : "=a"(value) : "d"(port));
        break;
    case 4:
        __asm__ volatile("rep outsb" : "+S"(at), "+c"(count) : "d"(port) : "memory");
        break;
    case 5:
        __asm__ volatile("rep insl" : "+D"(at), "+c"(count) : "d"(port) : "memory");
        break;
    case 6:
        __asm__ volatile("insb" : "+D"(at) : "d"(port) : "memory");
        break;
    default:
        __asm__ volatile("outsl" : "+S"(at) : "d"(port) : "memory");
        break;
    }
}

static void child_page_table(uint64_t *random)
{
    volatile uint64_t *tables = (volatile uint64_t *)(uintptr_t)GPA_TABLES;
    unsigned entry = one_in(random, 2) ? below(random, 6 * 512) : RANDOM_OF(random, ((unsigned[]){0, 512, 1024, 1025}));
    uint64_t value = one_in(random, 2) ? edge(random) : (uint64_t)PAGE_SIZE * below(random, 0x240) + below(random, 512);
    uint64_t old = tables[entry], at = one_in(random, 2) ? edge(random) : (uint64_t)below(random, 0x240) * PAGE_SIZE;

    tables[entry] = value;
    if (one_in(random, 2)) {
        invlpg(at);
    } else {
        write_cr3(read_cr3());
    }
    __asm__ volatile("" : : "r"(*(volatile uint8_t *)at));
    tables[entry] = old;
    write_cr3(read_cr3());
}

/* Many of these fault, or end the VP's life. */
static void child_control(uint64_t *random)
{
    uint64_t value = edge(random);

    switch (below(random, 10)) {
    case 0:
        write_cr0(read_cr0() ^ (uint64_t)1 << below(random, 32));
        break;
    case 1:
        write_cr4(read_cr4() ^ (uint64_t)1 << below(random, 24));
        break;
    case 2:
        write_cr3(value);
        break;
    case 3:
        __asm__ volatile("mov %0, %%cr8" : : "r"(value & 15));
        break;
    case 4:
        __asm__ volatile("mov %0, %%dr7; mov %1, %%dr0" : : "r"(value & 0xFFFF07FF), "r"((uintptr_t)child_begin));
        break;
    case 5:
        __asm__ volatile("xsetbv" : : "a"((uint32_t)value), "d"(0), "c"(0));
        break;
    case 6:
        __asm__ volatile("push %0; popf" : : "r"(value & 0x3F7FD7) : "cc");
        break;
    case 7:
        wrmsr(MSR_EFER, rdmsr(MSR_EFER) ^ UINT64_C(1) << below(random, 16));
        break;
    case 8:
        __asm__ volatile("mov %0, %%ds; mov %0, %%es" : : "r"(one_in(random, 2) ? CHILD_DATA : (uint32_t)value));
        break;
    default:
        if (one_in(random, 16)) {
            static const uint64_t nothing[2];
            __asm__ volatile("lidt %0; ud2" : : "m"(nothing));
        }
        break;
    }
}

static void child_apic(uint64_t *random)
{
    uintptr_t at = APIC_BASE + (one_in(random, 8) ? below(random, PAGE_SIZE) : 16 * below(random, 64));

    switch (below(random, 4)) {
    case 0:
        __asm__ volatile("" : : "r"(*(volatile uint32_t *)at));
        break;
    case 1:
        *(volatile uint32_t *)(uintptr_t)(APIC_BASE + APIC_SVR) = 0x1FF;
        *(volatile uint32_t *)(uintptr_t)(APIC_BASE + APIC_EOI) = 0;
        break;
    case 2:
        *(volatile uint32_t *)(uintptr_t)(APIC_BASE + APIC_ICR_HIGH) = below(random, CHILD_VPS + 1) << 24;
        *(volatile uint32_t *)(uintptr_t)(APIC_BASE + APIC_ICR_LOW) = (uint32_t)next(random) & 0xCFFFF;
        break;
    default:
        *(volatile uint32_t *)at = (uint32_t)edge(random);
        break;
    }
}

static void child_touch(uint64_t *random)
{
    uint64_t at = one_in(random, 2) ? odd_page(random) + random_offset(random) : edge(random);

    if (one_in(random, 4)) {
        at = world.arena + below(random, ARENA_SIZE);
    }
    if (one_in(random, 2)) {
        *(volatile uint64_t *)at = next(random);
    } else {
        __asm__ volatile("lock incl %0" : "+m"(*(uint32_t *)at));
    }
}

/* Asleep until the timer, most of the time. */
static void child_sleep(uint64_t *random)
{
    wrmsr(HV_MSR_STIMER_CONFIG(3), 0);
    wrmsr(HV_MSR_STIMER_COUNT(3), 1000 + below(random, 50000));
    wrmsr(HV_MSR_STIMER_CONFIG(3),
          HV_STIMER_ENABLE | HV_STIMER_PERIODIC | HV_STIMER_DIRECT | HV_STIMER_VECTOR(random_vector(random)));
    if (one_in(random, 4)) {
        rdmsr(HV_MSR_GUEST_IDLE);
    } else {
        __asm__ volatile("sti; hlt" : : : "memory");
    }
}

/* Bytes that begin instructions worth trying, between any others. */
static void random_code(uint64_t *random, uint8_t *code, unsigned size)
{
    static const uint8_t openings[][3] = {
        {0x0F, 0x01, 0xD8}, {0x0F, 0x01, 0xD9}, {0x0F, 0x01, 0xDA}, {0x0F, 0x01, 0xDB}, {0x0F, 0x01, 0xDC},
        {0x0F, 0x01, 0xDD}, {0x0F, 0x01, 0xDF}, {0x0F, 0x01, 0xC1}, {0x0F, 0x01, 0xC8}, {0x0F, 0x01, 0xC9},
        {0x0F, 0x01, 0xF9}, {0x0F, 0xAA, 0x90}, {0x0F, 0x09, 0x90}, {0x0F, 0xA2, 0x90}, {0x0F, 0x30, 0x90},
        {0x0F, 0x32, 0x90}, {0x0F, 0x05, 0x90}, {0x0F, 0x34, 0x90}, {0x0F, 0x35, 0x90}, {0x0F, 0x22, 0xC0},
        {0x0F, 0x22, 0xE0}, {0x0F, 0xAE, 0x00}, {0x0F, 0xC7, 0x08}, {0xCD, 0x40, 0xF4}, {0xF3, 0x6C, 0x90},
        {0xF3, 0xA4, 0x90}, {0xF0, 0xFF, 0x00}, {0x8E, 0xD8, 0x90}, {0xFB, 0xF4, 0x90}, {0xE6, 0x80, 0xEC},
        {0xCF, 0xCB, 0xC3}, {0xEB, 0xFE, 0x90}, {0xCC, 0xF1, 0xCE}, {0x9D, 0x9C, 0x90}, {0x66, 0x67, 0x8B},
    };

    for (unsigned i = 0; i < size; i++) {
        code[i] = (uint8_t)next(random);
    }
    for (unsigned i = 0; i + 3 <= size; i += 4 + below(random, 16)) {
        memcpy(code + i, RANDOM_OF(random, openings), 3);
    }
}

static void child_jump(struct child_vp *me)
{
    uint64_t *random = &me->caller.random;
    uintptr_t to = GPA_CODE + 64 * below(random, 64);

    if (one_in(random, 16)) {
        to = edge(random);
    } else {
        random_code(random, (uint8_t *)to, 64);
    }
    __asm__ volatile("call *%0"
                     :
                     : "r"(to)
                     : "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
                       "memory", "cc");
}

_Noreturn void child_main(struct child_vp *me)
{
    uint64_t *random = &me->caller.random;

    for (;;) {
        if (one_in(random, 8)) {
            interrupts_on();
        }
        switch (below(random, 16)) {
        case 0:
            child_msr(random);
            break;
        case 1:
            child_port(random);
            break;
        case 2:
            child_page_table(random);
            break;
        case 3:
            child_control(random);
            break;
        case 4:
        case 5:
            child_apic(random);
            break;
        case 6:
            child_touch(random);
            break;
        case 7:
            child_sleep(random);
            break;
        case 8:
            child_jump(me);
            break;
        case 9:
            cpuid(one_in(random, 2) ? 0x40000000 + below(random, 16) : (uint32_t)edge(random), 0);
            break;
        default:
            make_random_call(&me->caller);
            break;
        }
    }
}

/* -- Children: made and started by calls that may all fail -- */

static uint8_t *part(unsigned slot)
{
    return (uint8_t *)(world.arena + slot * PART_SIZE);
}

/* Pages in turn; those that somebody has are passed over. */
static void deposit(uint64_t partition, unsigned pages)
{
    static uint32_t turn;
    struct hv_in_deposit_memory input = {.partition = partition};
    uint64_t list[16];

    for (unsigned tries = 0; pages > 0 && tries < 256; tries++) {
        uint32_t at = __atomic_fetch_add(&turn, 16, __ATOMIC_RELAXED) % (POOL_PAGES - WILD_POOL_PAGES);
        unsigned done = 0;
        for (unsigned i = 0; i < 16; i++) {
            list[i] = world.pool / PAGE_SIZE + WILD_POOL_PAGES + at + i;
        }
        unsigned status = hvcall_deposit_memory(&input, list, NULL, 16, &done);
        if (status != HV_STATUS_SUCCESS && status != HV_STATUS_OPERATION_DENIED) {
            return;
        }
        pages -= done < pages ? done : pages;
    }
}

static void map(uint64_t partition, uint64_t gpa, uintptr_t from, uint64_t size, uint32_t rights)
{
    struct hv_in_map_gpa_pages input = {.partition = partition};
    bool large = !root_is_2008r2() && (gpa | from | size) % LARGE_PAGE_SIZE == 0;
    uint64_t step = large ? LARGE_PAGE_SIZE : PAGE_SIZE, list[64];

    input.flags = rights | (large ? HV_MAP_LARGE_CURRENT : 0);
    for (uint64_t done = 0; done < size; done += 64 * step) {
        unsigned count = 0;
        for (uint64_t at = done; at < size && count < 64; at += step) {
            list[count++] = (from + at) / PAGE_SIZE;
        }
        input.gpa_page = (gpa + done) / PAGE_SIZE;
        hvcall_map_gpa_pages(&input, list, NULL, count, NULL);
    }
}

static uint32_t execute_right(void)
{
    return root_is_2008r2() ? HV_MAP_EXECUTE_2008R2 : HV_MAP_EXECUTE_CURRENT;
}

static void map_part(unsigned slot)
{
    map(world.partitions[slot], 0, (uintptr_t)part(slot), PART_SIZE, HV_MAP_READ | HV_MAP_WRITE | execute_right());
}

static void map_image(uint64_t partition)
{
    uintptr_t begin = 0x100000, end = ((uintptr_t)guest_image_end + PAGE_SIZE - 1) & ~(uintptr_t)(PAGE_SIZE - 1);

    map(partition, begin, begin, end - begin, HV_MAP_READ | execute_right());
}

static uint64_t create_partition(void)
{
    unsigned status;

    if (root_is_2008r2()) {
        struct hv_in_create_partition_2008r2 input = {0};
        struct hv_out_create_partition_2008r2 output = {0};
        status = hvcall_create_partition_2008r2(&input, &output);
        return status == HV_STATUS_SUCCESS ? output.partition : 0;
    }
    struct hv_in_create_partition_current input = {.flags = HV_CREATE_LAPIC};
    struct hv_out_create_partition_current output = {0};
    status = hvcall_create_partition_current(&input, &output);
    return status == HV_STATUS_SUCCESS ? output.partition : 0;
}

static void create_vp(uint64_t partition, unsigned vp)
{
    if (root_is_2008r2()) {
        struct hv_in_create_vp_2008r2 input = {.partition = partition, .vp = vp};
        hvcall_create_vp_2008r2(&input, NULL);
    } else {
        struct hv_in_create_vp_current input = {.partition = partition, .vp = vp};
        hvcall_create_vp_current(&input, NULL);
    }
}

static void install_intercepts(uint64_t *random, uint64_t partition)
{
    static const struct hv_in_install_intercept all[] = {
        {.type = HV_INTERCEPT_IO_PORT, .access = HV_INTERCEPT_READ | HV_INTERCEPT_WRITE, .parameter = 0x80},
        {.type = HV_INTERCEPT_IO_PORT, .access = HV_INTERCEPT_READ, .parameter = 0x64},
        {.type = HV_INTERCEPT_MSR, .access = HV_INTERCEPT_READ | HV_INTERCEPT_WRITE},
        {.type = HV_INTERCEPT_CPUID, .access = HV_INTERCEPT_EXECUTE, .parameter = 1},
        {.type = HV_INTERCEPT_EXCEPTION, .access = HV_INTERCEPT_EXECUTE, .parameter = VECTOR_UD},
        {.type = HV_INTERCEPT_EXCEPTION, .access = HV_INTERCEPT_EXECUTE, .parameter = VECTOR_PF},
    };

    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        struct hv_in_install_intercept input = all[i];
        input.partition = partition;
        if (one_in(random, 2)) {
            hvcall_install_intercept(&input, NULL);
        }
    }
}

static void act_build(struct villain *me)
{
    uint64_t *random = &me->caller.random;
    unsigned slot = below(random, SLOTS);
    uint64_t partition = world.partitions[slot];

    if (!partition) {
        struct hv_in_initialize_partition input;
        partition = create_partition();
        if (!partition) {
            deposit(1, 64);
            return;
        }
        if (partition > world.newest) {
            world.newest = partition;
        }
        world.partitions[slot] = partition;
        deposit(partition, FIRST_DEPOSIT);
        input.partition = partition;
        hvcall_initialize_partition(&input, NULL);
        struct hv_in_set_partition_property privileges = {
            .partition = partition,
            .property = HV_PROPERTY_PRIVILEGES,
            .value = CHILD_PRIVILEGES | (one_in(random, 2) ? PARENT_PRIVILEGES : 0),
        };
        hvcall_set_partition_property(&privileges, NULL);
        map_image(partition);
        map_part(slot);
        install_intercepts(random, partition);
    } else if (one_in(random, 2)) {
        deposit(partition, 64);
        map_image(partition);
    }
    for (unsigned vp = 0; vp < CHILD_VPS; vp++) {
        create_vp(partition, vp);
    }
}

/* All that the program needs, over what random writes have left. */
static void fill_part(uint64_t *random, unsigned slot, unsigned vp)
{
    static const uint64_t code = 0x00AF9B000000FFFF, data = 0x00CF93000000FFFF;
    uint8_t *base = part(slot);
    uint64_t *gdt = (uint64_t *)(base + GPA_GDT), *tables = (uint64_t *)(base + GPA_TABLES);
    uint64_t *idt = (uint64_t *)(base + GPA_IDT), handler = (uintptr_t)child_exception;
    struct child_vp *own = (struct child_vp *)(base + GPA_STACKS + vp * CHILD_STACK);

    gdt[CHILD_CODE / 8] = code;
    gdt[CHILD_DATA / 8] = data;
    memset(tables, 0, 6 * PAGE_SIZE);
    tables[0] = (GPA_TABLES + PAGE_SIZE) | PTE_P | PTE_W | PTE_U;
    for (unsigned i = 0; i < 4; i++) {
        tables[512 + i] = (GPA_TABLES + (2 + i) * PAGE_SIZE) | PTE_P | PTE_W | PTE_U;
    }
    for (unsigned i = 0; i < 4 * 512; i++) {
        tables[1024 + i] = (uint64_t)i * LARGE_PAGE_SIZE | PTE_P | PTE_W | PTE_U | PTE_LARGE;
    }
    for (unsigned i = 0; i < 256; i++) {
        idt[2 * i] =
            (handler & 0xFFFF) | (uint64_t)CHILD_CODE << 16 | UINT64_C(0x8E00) << 32 | (handler >> 16 & 0xFFFF) << 48;
        idt[2 * i + 1] = handler >> 32;
    }
    own->caller = (struct caller){.random = next(random) | 1,
                                  .page = (uint64_t *)(uintptr_t)GPA_DATA,
                                  .guarded = (uint64_t *)(uintptr_t)(GPA_DATA + PAGE_SIZE),
                                  .other_page = (uint64_t *)(uintptr_t)(GPA_DATA + 2 * PAGE_SIZE)};
    random_code(random, base + GPA_CODE, PAGE_SIZE);
}

static unsigned finalize_and_delete(uint64_t partition)
{
    struct hv_in_finalize_partition finalize = {.partition = partition};
    struct hv_in_withdraw_memory withdraw = {.partition = partition};
    struct hv_in_delete_partition delete = {.partition = partition};
    uint64_t list[64];
    unsigned count;

    hvcall_finalize_partition(&finalize, NULL);
    do {
        count = 0;
        hvcall_withdraw_memory(&withdraw, NULL, list, 64, &count);
    } while (count > 0);
    return hvcall_delete_partition(&delete, NULL);
}

struct assignments {
    struct hv_register_assignment list[32];
    unsigned count;
};

static void set(struct assignments *to, uint32_t name, uint64_t value)
{
    to->list[to->count++] = (struct hv_register_assignment){.name = name, .value.u64 = value};
}

static void set_segments(struct assignments *to, uint16_t code, uint64_t base, uint16_t attributes, uint32_t limit)
{
    static const uint32_t data[] = {HV_REGISTER_Ds, HV_REGISTER_Es, HV_REGISTER_Fs, HV_REGISTER_Gs, HV_REGISTER_Ss};
    struct hv_segment segment = {.base = base, .limit = limit, .selector = code, .attributes = attributes | 0xB};

    to->list[to->count++] = (struct hv_register_assignment){.name = HV_REGISTER_Cs, .value.segment = segment};
    segment.attributes = (uint16_t)((attributes & ~0x2000) | 0x3);
    segment.selector = limit == 0xFFFF ? code : CHILD_DATA;
    for (unsigned i = 0; i < sizeof(data) / sizeof(data[0]); i++) {
        to->list[to->count++] = (struct hv_register_assignment){.name = data[i], .value.segment = segment};
    }
}

static void set_program(struct assignments *to, unsigned vp)
{
    static const struct hv_table idtr = {.limit = PAGE_SIZE - 1, .base = GPA_IDT};
    static const struct hv_table gdtr = {.limit = CHILD_DATA + 7, .base = GPA_GDT};

    set(to, HV_REGISTER_Cr4, CR4_PAE);
    set(to, HV_REGISTER_Cr3, GPA_TABLES);
    set(to, HV_REGISTER_Efer, EFER_LME | EFER_LMA);
    set(to, HV_REGISTER_Cr0, 0x80000031);
    set_segments(to, CHILD_CODE, 0, 0xA090, UINT32_MAX);
    to->list[to->count++] = (struct hv_register_assignment){.name = HV_REGISTER_Idtr, .value.table = idtr};
    to->list[to->count++] = (struct hv_register_assignment){.name = HV_REGISTER_Gdtr, .value.table = gdtr};
    set(to, HV_REGISTER_Rsp, GPA_STACKS + vp * CHILD_STACK + 0x2000);
    set(to, HV_REGISTER_Rip, (uintptr_t)child_begin);
}

/* Random bytes, in 16 or 32 bits. */
static void set_random_bytes(struct assignments *to, uint64_t *random)
{
    bool wide = one_in(random, 2);

    set(to, HV_REGISTER_Cr0, wide ? 0x31 : 0x10);
    set(to, HV_REGISTER_Efer, 0);
    set_segments(to, wide ? CHILD_CODE : 0, 0, wide ? 0xC090 : 0x0090, wide ? UINT32_MAX : 0xFFFF);
    set(to, HV_REGISTER_Rsp, 0xFF00);
    set(to, HV_REGISTER_Rip, GPA_CODE + below(random, PAGE_SIZE));
    set(to, HV_REGISTER_Rax, edge(random));
    set(to, HV_REGISTER_Rcx, edge(random));
    set(to, HV_REGISTER_Rdx, edge(random));
    set(to, HV_REGISTER_Rsi, below(random, 0x20000));
    set(to, HV_REGISTER_Rdi, below(random, 0x20000));
}

static void start_vp(uint64_t *random, unsigned slot, unsigned vp)
{
    struct hv_in_set_vp_registers input = {.partition = world.partitions[slot], .vp = vp};
    struct assignments to = {.count = 0};

    if (one_in(random, 2)) {
        TRY(fill_part(random, slot, vp));
    }
    if (one_in(random, 4)) {
        set_random_bytes(&to, random);
    } else {
        set_program(&to, vp);
    }
    set(&to, HV_REGISTER_Rflags, 2);
    set(&to, HV_REGISTER_PendingInterruption, 0);
    set(&to, HV_REGISTER_InterruptState, 0);
    set(&to, HV_REGISTER_InterceptSuspend, 0);
    set(&to, HV_REGISTER_ExplicitSuspend, 0);
    /* A random call has ended it. */
    if (hvcall_set_vp_registers(&input, to.list, NULL, to.count, NULL) == HV_STATUS_INVALID_PARTITION_STATE &&
        finalize_and_delete(input.partition) == HV_STATUS_SUCCESS) {
        world.partitions[slot] = 0;
    }
}

static void act_start(struct villain *me)
{
    uint64_t *random = &me->caller.random;
    unsigned slot = below(random, SLOTS), vp = below(random, CHILD_VPS);

    if (one_in(random, 16)) {
        map_part(slot);
    }
    if (vp && one_in(random, 4)) { /* it may wait for a start-up IPI */
        struct child child = {.id = world.partitions[slot]};
        child_assert_interrupt(&child, HV_INTERRUPT_SIPI, vp, GPA_CODE / PAGE_SIZE);
    }
    start_vp(random, slot, vp);
}

static void act_registers(struct villain *me)
{
    uint64_t *random = &me->caller.random, partition = random_child(random);
    unsigned count = 1 + below(random, 8), vp = below(random, CHILD_VPS);
    struct hv_in_set_vp_registers input = {.partition = partition, .vp = vp};
    struct hv_in_get_vp_registers look = {.partition = partition, .vp = vp};
    struct hv_register_assignment list[8];
    union hv_register_value values[8];
    uint32_t names[8];

    for (unsigned i = 0; i < 8; i++) {
        names[i] = RANDOM_OF(random, register_names);
        list[i] = (struct hv_register_assignment){.name = names[i], .value.words = {edge(random), edge(random)}};
    }
    if (hvcall_get_vp_registers(&look, names, values, count, NULL) == HV_STATUS_SUCCESS && one_in(random, 2)) {
        for (unsigned i = 0; i < count; i++) { /* one bit of what it is */
            list[i].value = values[i];
            list[i].value.words[0] ^= UINT64_C(1) << below(random, 64);
        }
    }
    hvcall_set_vp_registers(&input, list, NULL, count, NULL);
    if (one_in(random, 2)) {
        list[0] = (struct hv_register_assignment){.name = HV_REGISTER_InterceptSuspend};
        list[1] = (struct hv_register_assignment){.name = HV_REGISTER_ExplicitSuspend, .value.u64 = one_in(random, 8)};
        hvcall_set_vp_registers(&input, list, NULL, 2, NULL);
    }
}

static void act_interrupt(struct villain *me)
{
    uint64_t *random = &me->caller.random;
    struct child child = {.id = random_child(random)};
    uint64_t control = below(random, 8) | (one_in(random, 4) ? HV_INTERRUPT_LEVEL : 0) |
                       (one_in(random, 4) ? HV_INTERRUPT_LOGICAL : 0);

    if (one_in(random, 2)) {
        control = HV_INTERRUPT_FIXED;
    }
    child_assert_interrupt(&child, one_in(random, 16) ? edge(random) : control,
                           one_in(random, 8) ? edge(random) : below(random, CHILD_VPS + 1), below(random, 256));
}

/* -- Messages -- */

static void note_type(struct villain *me, uint32_t type)
{
    me->messages++;
    if (type >= 0x80000000 && type < 0x80000040) {
        me->message_types[0] |= UINT64_C(1) << (type & 63);
    } else if (type >= 0x80010000 && type < 0x80010040) {
        me->message_types[1] |= UINT64_C(1) << (type & 63);
    }
}

static void answer(struct villain *me, const struct intercept *intercept)
{
    uint64_t *random = &me->caller.random;
    const struct hv_intercept_header *header = intercept_header(intercept);
    struct hv_in_set_vp_registers input = {.partition = intercept->partition, .vp = intercept->vp};
    struct assignments to = {.count = 0};

    switch (below(random, 8)) {
    case 0:
        return;
    case 1: /* again */
        break;
    case 2:
        set(&to, HV_REGISTER_PendingInterruption,
            HV_PENDING | (next(random) & 0xFFFFF) | HV_PENDING_VECTOR(below(random, 32)));
        break;
    case 3:
        set(&to, HV_REGISTER_Rip, edge(random));
        break;
    case 4:
        for (unsigned slot = 0; slot < SLOTS; slot++) {
            if (world.partitions[slot] == intercept->partition) {
                start_vp(random, slot, intercept->vp % CHILD_VPS);
                return;
            }
        }
        break;
    default:
        set(&to, HV_REGISTER_Rip, header->rip + (intercept->length ? intercept->length : 1 + below(random, 4)));
        set(&to, HV_REGISTER_Rax, edge(random));
        break;
    }
    set(&to, HV_REGISTER_InterceptSuspend, 0);
    hvcall_set_vp_registers(&input, to.list, NULL, to.count, NULL);
}

static void act_messages(struct villain *me)
{
    struct intercept intercept;

    for (unsigned i = 0; i < 16 && intercept_receive(&intercept, 1); i++) {
        note_type(me, intercept.message.type);
        answer(me, &intercept);
    }
}

/* -- Memory -- */

static void act_remap(struct villain *me)
{
    uint64_t *random = &me->caller.random;
    unsigned slot = below(random, SLOTS);
    uint64_t partition = world.partitions[slot], page = below(random, PART_SIZE / PAGE_SIZE);
    static const uint32_t rights[] = {0, HV_MAP_READ, HV_MAP_READ | HV_MAP_WRITE, 0xF, 0xF, 0xD, 0xC};

    switch (below(random, 4)) {
    case 0:
        if (root_is_2008r2()) {
            struct hv_in_unmap_gpa_pages_2008r2 input = {.partition = partition, .gpa_page = page};
            hvcall_unmap_gpa_pages_2008r2(&input, NULL, NULL, 1 + below(random, 8), NULL);
        } else {
            struct hv_in_unmap_gpa_pages_current input = {.partition = partition, .gpa_page = page};
            hvcall_unmap_gpa_pages_current(&input, NULL, NULL, 1 + below(random, 8), NULL);
        }
        break;
    case 1:
        map(partition, page * PAGE_SIZE, arena_page(random), PAGE_SIZE, RANDOM_OF(random, rights));
        break;
    case 2: /* its own rights, which all have less of then */
        page = arena_page(random);
        map(1, page, page, PAGE_SIZE, RANDOM_OF(random, rights));
        break;
    default:
        map(1, world.arena, world.arena, ARENA_SIZE, HV_MAP_READ | HV_MAP_WRITE | execute_right());
        map_part(slot);
        break;
    }
}

static void act_memory(struct villain *me)
{
    uint64_t *random = &me->caller.random;
    bool of_pool = one_in(random, 4);
    uint64_t page = of_pool ? pool_page(random) : arena_page(random);
    volatile uint64_t *const at = (volatile uint64_t *)(page + 8 * below(random, PAGE_SIZE / 8));

    if (one_in(random, 2)) {
        /* What another VP is calling with, behind its header */
        struct caller *other = &villains[below(random, cpu_count())].caller;
        unsigned word = MAP_HEADER_WORDS + below(random, 32);
        other->page[word] = random_word(random);
        other->guarded[word] = source_page(random);
        return;
    }
    TRY(*at = one_in(random, 2) ? *at ^ 1 : edge(random));
}

/* -- Save and restore -- */

#define STREAM_SIZE 0x20000u
#define TRANSFER_START 1u
#define TRANSFER_COMPLETE 0u
#define TRANSFER_INCOMPLETE 1u
#define CHUNK 4080u

static uint8_t streams[2][STREAM_SIZE];

static void suspend_vps(uint64_t partition, bool suspend)
{
    const struct hv_register_assignment to = {.name = HV_REGISTER_ExplicitSuspend, .value.u64 = suspend};

    for (unsigned vp = 0; vp < CHILD_VPS; vp++) {
        struct hv_in_set_vp_registers input = {.partition = partition, .vp = vp};

        hvcall_set_vp_registers(&input, &to, NULL, 1, NULL);
    }
}

/* How long the stream is; it may end anywhere. */
static unsigned save_stream(uint64_t *random, uint64_t partition, uint8_t *stream)
{
    struct hv_in_save_partition_state input = {.partition = partition, .flags = TRANSFER_START};
    struct hv_out_save_partition_state output = {.state = TRANSFER_INCOMPLETE};
    unsigned length = 0;

    while (output.state == TRANSFER_INCOMPLETE && length + CHUNK <= STREAM_SIZE && !one_in(random, 64)) {
        if (hvcall_save_partition_state(&input, &output) != HV_STATUS_SUCCESS || output.count > CHUNK) {
            break;
        }
        memcpy(stream + length, output.data, output.count);
        length += output.count;
        input.flags = 0;
    }
    return length;
}

static void restore_stream(struct villain *me, uint64_t partition, const uint8_t *stream, unsigned length)
{
    uint64_t *random = &me->caller.random;
    struct {
        struct hv_in_restore_partition_state head;
        uint8_t data[CHUNK];
    } input;
    struct hv_out_restore_partition_state output = {.state = TRANSFER_INCOMPLETE};
    struct hv_call_form form = hv_form_restore_partition_state;

    for (unsigned at = 0; at < length && output.state == TRANSFER_INCOMPLETE; at += output.count) {
        unsigned count = one_in(random, 4) ? 1 + below(random, CHUNK) : CHUNK;

        if (count > length - at) {
            count = length - at;
        }
        input.head = (struct hv_in_restore_partition_state){
            .partition = partition, .flags = at && !one_in(random, 256) ? 0 : TRANSFER_START, .count = count};
        memcpy(input.data, stream + at, count);
        form.input = (uint16_t)(sizeof(input.head) + count);
        if (hv_call_simple(&form, &input, &output) != HV_STATUS_SUCCESS || output.count > count) {
            return;
        }
    }
    me->restored += output.state == TRANSFER_COMPLETE;
}

/* Often the other VP is at it too, or does something else to the child. */
static void act_transfer(struct villain *me)
{
    uint64_t *random = &me->caller.random, from = random_child(random);
    uint64_t to = one_in(random, 4) ? random_child(random) : from;
    uint8_t *stream = streams[cpu_index() % 2];
    unsigned length;

    suspend_vps(from, true);
    length = save_stream(random, from, stream);
    for (unsigned i = below(random, 4); i > 0 && length > 0 && one_in(random, 2); i--) {
        stream[below(random, length)] ^= 1u << below(random, 8);
    }
    suspend_vps(to, true);
    restore_stream(me, to, stream, length);
    suspend_vps(from, false);
    suspend_vps(to, false);
}

/* -- The root's own SynIC, and its overlay pages -- */

/* Not over the HPET and the local APIC, which the guest needs. */
static uint64_t overlay_page(uint64_t *random)
{
    uint64_t page = one_in(random, 4) ? odd_page(random) : arena_page(random);

    return page >= 0xFED00000 && page <= 0xFEE00000 ? 0xFEC00000 : page;
}

static void act_synic(struct villain *me)
{
    static const uint32_t pages[] = {HV_MSR_REFERENCE_TSC, HV_MSR_APIC_ASSIST_PAGE, HV_MSR_SIEFP, HV_MSR_SIMP};
    uint64_t *random = &me->caller.random;
    uint64_t value = overlay_page(random) | !one_in(random, 4);
    uint32_t msr = RANDOM_OF(random, pages);

    switch (below(random, 4)) {
    case 0:
        TRY(wrmsr(msr, value));
        break;
    case 1:
        TRY(wrmsr(HV_MSR_EOM, 0));
        break;
    case 2:
        TRY(wrmsr(HV_MSR_SINT0 + 1 + below(random, 15),
                  random_vector(random) | (next(random) & (HV_SINT_MASKED | HV_SINT_AUTO_EOI | HV_SINT_POLLING))));
        break;
    default:
        TRY(rdmsr(msr));
        break;
    }
    intercept_enable(VECTOR_MESSAGE); /* its messages are to come through again */
}

/* -- Ends -- */

static uint64_t child_after(uint64_t previous)
{
    struct hv_in_get_next_child_partition input = {.parent = 1, .previous = previous};
    struct hv_out_get_next_child_partition output = {0};

    return hvcall_get_next_child_partition(&input, &output) == HV_STATUS_SUCCESS ? output.child : 0;
}

/* One that has a slot, or one that only a random call knows. */
static void act_delete(struct villain *me)
{
    unsigned slot = below(&me->caller.random, SLOTS);
    uint64_t partition = world.partitions[slot];

    if (!one_in(&me->caller.random, 4)) {
        partition = child_after(0);
    } else {
        world.partitions[slot] = 0;
    }
    finalize_and_delete(partition);
    for (unsigned i = 0; i < SLOTS; i++) {
        if (world.partitions[i] == partition) {
            world.partitions[i] = 0;
        }
    }
}

static void act_call(struct villain *me)
{
    TRY(make_random_call(&me->caller));
}

/* Asleep, with a timer that ends it; CPU 0 stays awake for the others. */
static void act_idle(struct villain *me)
{
    (void)me;
    if (cpu_index() == 0) {
        return;
    }
    TRY({
        wrmsr(HV_MSR_STIMER_CONFIG(3), 0);
        wrmsr(HV_MSR_STIMER_COUNT(3), 10000);
        wrmsr(HV_MSR_STIMER_CONFIG(3),
              HV_STIMER_ENABLE | HV_STIMER_PERIODIC | HV_STIMER_DIRECT | HV_STIMER_VECTOR(0xF0));
        interrupts_off();
        interrupts_on_halt();
        wrmsr(HV_MSR_STIMER_CONFIG(3), 0);
    });
}

/* -- The whole -- */

static void (*const functions[ACTIONS])(struct villain *) = {
    [ACT_CALL] = act_call,           [ACT_BUILD] = act_build,         [ACT_START] = act_start,
    [ACT_REGISTERS] = act_registers, [ACT_INTERRUPT] = act_interrupt, [ACT_MESSAGES] = act_messages,
    [ACT_REMAP] = act_remap,         [ACT_MEMORY] = act_memory,       [ACT_TRANSFER] = act_transfer,
    [ACT_SYNIC] = act_synic,         [ACT_DELETE] = act_delete,       [ACT_IDLE] = act_idle,
};

static void misbehave(struct villain *me)
{
    unsigned number = below(&me->caller.random, 256), action = 0;

    while (action < ACTIONS - 1 && number >= weights[action]) {
        number -= weights[action];
        action++;
    }
    interrupts_on();
    functions[action](me);
    interrupts_off();
    me->actions[action]++;
}

static void on_interrupt(struct frame *frame)
{
    if (frame->vector != VECTOR_NMI) {
        apic_eoi();
    }
}

static void prepare(void)
{
    write_cr4(read_cr4() | CR4_MCE); /* a processor without machine check exceptions is reset instead */
    intercept_enable(VECTOR_MESSAGE);
}

static void run_villain(void *argument)
{
    struct villain *me = argument;

    prepare();
    while (!over) {
        misbehave(me);
    }
}

static uint64_t option(const char *name, uint64_t value)
{
    char text[24];

    if (guest_option(name, text, sizeof(text))) {
        value = 0;
        for (const char *digit = text; *digit >= '0' && *digit <= '9'; digit++) {
            value = value * 10 + (uint64_t)(*digit - '0');
        }
    }
    return value;
}

static uint64_t all_actions(unsigned cpu)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < ACTIONS; i++) {
        sum += villains[cpu].actions[i];
    }
    return sum;
}

static void report(void)
{
    static uint64_t before[GUEST_MAX_CPUS];

    print("ALIVE");
    for (unsigned cpu = 0; cpu < cpu_count(); cpu++) {
        uint64_t now = all_actions(cpu);
        print(" %llu", (unsigned long long)(now - before[cpu]));
        before[cpu] = now;
    }
    print("\n");
}

static void print_villain(unsigned cpu)
{
    const struct villain *v = &villains[cpu];

    print("DONE %u", cpu);
    for (unsigned i = 0; i < ACTIONS; i++) {
        print(" %llu", (unsigned long long)v->actions[i]);
    }
    print(" calls %llu successes %llu restored %llu messages %llu types %llx %llx faults GP %llu MC %llu\n",
          (unsigned long long)v->caller.calls, (unsigned long long)v->caller.successes, (unsigned long long)v->restored,
          (unsigned long long)v->messages, (unsigned long long)v->message_types[0],
          (unsigned long long)v->message_types[1], (unsigned long long)v->faults[VECTOR_GP],
          (unsigned long long)v->faults[VECTOR_MC]);
}

static bool try_to_delete_all(void)
{
    uint64_t previous = 0, child;

    while ((child = child_after(previous)) != 0) {
        if (finalize_and_delete(child) != HV_STATUS_SUCCESS) {
            previous = child;
        }
    }
    return child_after(0) == 0;
}

/* A partition that has children of its own stays; the operator deletes it with them. */
static void delete_all(void)
{
    if (!WAIT_UNTIL(try_to_delete_all(), 2 * SOON)) {
        guest_panic("partition %llx cannot be deleted", (unsigned long long)child_after(0));
    }
}

/* Their pages are the hypervisor's as long as they are mapped. Most are not. */
static void unmap_statistics(void)
{
    struct hv_in_unmap_stats_page unmap = {.type = HV_STATS_OBJECT_HYPERVISOR};

    hvcall_unmap_stats_page(&unmap, NULL);
    unmap = (struct hv_in_unmap_stats_page){.type = HV_STATS_OBJECT_PARTITION, .object = 1, .flags = HV_STATS_SELF};
    hvcall_unmap_stats_page(&unmap, NULL);
    for (unsigned cpu = 0; cpu < cpu_count(); cpu++) {
        unmap =
            (struct hv_in_unmap_stats_page){.type = HV_STATS_OBJECT_VP, .object = 1, .vp = cpu, .flags = HV_STATS_SELF};
        hvcall_unmap_stats_page(&unmap, NULL);
        unmap = (struct hv_in_unmap_stats_page){.type = HV_STATS_OBJECT_LOGICAL_PROCESSOR, .object = cpu};
        hvcall_unmap_stats_page(&unmap, NULL);
    }
}

static bool works(uintptr_t page)
{
    volatile uint64_t *const at = (volatile uint64_t *)page;
    struct fault fault;

    CATCH(fault, *at = page);
    count_fault(&fault);
    return !fault.raised;
}

/* Nothing is left of what was deposited and taken away: all pages are the root's, and work. */
static void check_pages(void)
{
    struct hv_in_withdraw_memory withdraw = {.partition = 1};
    uint64_t list[64];
    unsigned count, broken = 0;

    do {
        count = 0;
        hvcall_withdraw_memory(&withdraw, NULL, list, 64, &count);
    } while (count > 0);
    map(1, world.arena, world.arena, ARENA_SIZE, HV_MAP_READ | HV_MAP_WRITE | execute_right());
    for (unsigned i = 0; i < POOL_PAGES + ARENA_SIZE / PAGE_SIZE; i++) {
        uintptr_t page = i < POOL_PAGES ? world.pool + i * PAGE_SIZE : world.arena + (i - POOL_PAGES) * PAGE_SIZE;
        broken += !works(page);
    }
    if (broken) {
        guest_panic("%u pages have not come back", broken);
    }
}

void guest_main(void)
{
    uint64_t seed = option("seed", 1), seconds = option("seconds", DEFAULT_SECONDS);

    root_enable();
    world.pool = ram_take(POOL_PAGES * PAGE_SIZE, PAGE_SIZE);
    world.arena = ram_take(2 * ARENA_SIZE, ARENA_SIZE); /* what lies behind may lose its rights too */
    for (unsigned vector = 0x20; vector < 0x100; vector++) {
        if (vector != VECTOR_WAKE) {
            interrupt_set_handler((uint8_t)vector, on_interrupt);
        }
    }
    interrupt_set_handler(VECTOR_NMI, on_interrupt);
    for (unsigned cpu = 0; cpu < cpu_count(); cpu++) {
        villains[cpu].caller = (struct caller){.random = random_begin(seed, cpu),
                                               .is_root = true,
                                               .page = parameter_pages[2 * cpu],
                                               .guarded = parameter_pages[2 * cpu + 1],
                                               .other_page = parameter_pages[2 * ((cpu + 1) % cpu_count())]};
    }
    for (unsigned cpu = 1; cpu < cpu_count(); cpu++) {
        smp_start(cpu, run_villain, &villains[cpu]);
    }
    prepare();
    print("READY\n");
    for (uint64_t begin = clock_microseconds(), said = 0; said < seconds;) {
        misbehave(&villains[0]);
        if (clock_microseconds() - begin >= (said + 1) * 1000000) {
            said++;
            report();
        }
    }
    over = true;
    print("FINISHING\n");
    for (unsigned cpu = 1; cpu < cpu_count(); cpu++) {
        if (!smp_wait(cpu, SOON)) {
            guest_panic("CPU %u does not come to an end", cpu);
        }
    }
    delete_all();
    unmap_statistics();
    check_pages();
    for (unsigned cpu = 0; cpu < cpu_count(); cpu++) {
        print_villain(cpu);
    }
}
