/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hypercalls of a root that does its worst, and of its children: every code, most of the time with parameters that make
 * sense somewhere, so that calls get past the first checks.
 *
 * What a root could do to itself is left out: its image, stacks and page tables are no target of a call's output and of
 * no mapping, its policy stays. Those calls take their parameters from a page of their own (`guarded`), where nobody
 * writes what would name them. Children may do everything.
 */
#ifndef HOSTILE_RANDOM_CALL_H
#define HOSTILE_RANDOM_CALL_H

#include "random.h"
#include "root.h"

#define ARENA_SIZE 0x400000u /* two large pages, aligned to them */
#define POOL_PAGES 16384u
#define WILD_POOL_PAGES 4096u /* of them, the first: deposited by random calls */
#define SLOTS 3u
#define SELF UINT64_MAX /* HV_PARTITION_ID_SELF of today's interface */
#define MAP_HEADER_WORDS 3u /* the longest of the guarded calls: nobody writes to others' */

/* Read by children too: they see the root's image where the root does. */
struct world {
    uintptr_t arena, pool;
    volatile uint64_t partitions[SLOTS]; /* 0: none */
    volatile uint64_t newest;
};
static struct world world;

struct caller {
    uint64_t random;
    bool is_root;
    uint64_t *page, *guarded; /* for parameters */
    uint64_t *other_page; /* somebody else's `page` */
    uint64_t xmm[12] __attribute__((aligned(16)));
    uint64_t calls, successes;
};

struct random_form {
    uint16_t code, input, input_element;
    bool repeats, fast;
};
#define RANDOM_FORM_SIMPLE false
#define RANDOM_FORM_REP true
#define RANDOM_FORM_SLOW false
#define RANDOM_FORM_FAST true
#define RANDOM_FORM_XMM true
static const struct random_form random_forms[] = {
#define HV_HYPERCALL_ROW(code, name, snake, kind, fast, generations, gate, relation, lock, input, input_element, ...)  \
    {code, input, input_element, RANDOM_FORM_##kind, RANDOM_FORM_##fast},
#include "hypercalls.def"
#undef HV_HYPERCALL_ROW
};

static const uint32_t register_names[] = {
#define HV_REGISTER_ROW(code, ...) code,
#include "registers.def"
#undef HV_REGISTER_ROW
};

static const uint32_t property_codes[] = {
    HV_PROPERTY_PRIVILEGES,       HV_PROPERTY_CPU_RESERVE,        HV_PROPERTY_CPU_CAP,
    HV_PROPERTY_CPU_WEIGHT,       HV_PROPERTY_TIMER_PERIOD,       HV_PROPERTY_TIMER_CONTROL,
    HV_PROPERTY_PM_TIMER,         HV_PROPERTY_DEBUG_CHANNEL,      HV_PROPERTY_VIRTUAL_TLB_PAGES,
    HV_PROPERTY_PROCESSOR_VENDOR, HV_PROPERTY_PROCESSOR_FEATURES, HV_PROPERTY_XSAVE_FEATURES,
    HV_PROPERTY_CLFLUSH_SIZE,
};

enum {
    CALL_PARK = 0x09,
    CALL_SET_PROPERTY = 0x45,
    CALL_DEPOSIT = 0x48,
    CALL_MAP = 0x4B,
    CALL_GET_REGISTERS = 0x50,
    CALL_SET_REGISTERS = 0x51,
    CALL_MAP_SPARSE = 0x6E,
};

/* -- Places -- */

static inline uint64_t arena_page(uint64_t *random)
{
    return world.arena + PAGE_SIZE * below(random, ARENA_SIZE / PAGE_SIZE);
}

/* Where no RAM is, or none that anybody needs. */
static inline uint64_t odd_page(uint64_t *random)
{
    static const uint64_t places[] = {
        0,
        0x1000,
        0x9F000, /* around the end of low RAM */
        0xA0000,
        0xC0000,
        0xF0000,
        0xFF000,
        0xFFFF000, /* around the end of RAM */
        0x10000000,
        0xB0000000, /* PCI configuration */
        0xE0000000,
        0xFEC00000, /* I/O APIC */
        0xFED00000, /* HPET */
        0xFEE00000, /* local APIC */
        0xFEE01000,
        0xFFFFF000,
        0x100000000,
        UINT64_C(1) << 36,
        (UINT64_C(1) << 39) - PAGE_SIZE,
        UINT64_C(1) << 39,
        (UINT64_C(1) << 40) - PAGE_SIZE,
        UINT64_C(1) << 40,
        UINT64_C(1) << 51,
        UINT64_C(1) << 52,
        ~UINT64_C(0xFFF),
    };

    return RANDOM_OF(random, places);
}

static inline uint64_t pool_page(uint64_t *random)
{
    return world.pool + PAGE_SIZE * below(random, WILD_POOL_PAGES);
}

static inline uint64_t random_offset(uint64_t *random)
{
    static const uint16_t offsets[] = {0, 0, 0, 0, 8, 0x10, 0x100, 0x800, 0xF00, 0xFE8, 0xFF0, 0xFF8, 0xFFF, 1, 4};

    return RANDOM_OF(random, offsets);
}

/* A page that may become a child's, or change its rights. */
static inline uint64_t source_page(uint64_t *random)
{
    return (one_in(random, 16) ? odd_page(random) | PAGE_SIZE : arena_page(random)) / PAGE_SIZE;
}

/* Large pages as well: both of the arena are often among them. */
static inline uint64_t large_source_page(uint64_t *random)
{
    return one_in(random, 2) ? source_page(random) : world.arena / PAGE_SIZE + 512 * below(random, 2);
}

/* -- Words -- */

static inline uint64_t random_partition(uint64_t *random)
{
    switch (below(random, 12)) {
    case 0:
        return 1;
    case 1:
        return edge(random);
    case 2:
        return SELF;
    case 3:
        return 1 + below(random, world.newest + 2);
    default:
        return world.partitions[below(random, SLOTS)];
    }
}

static inline uint64_t random_child(uint64_t *random)
{
    uint64_t partition = one_in(random, 4) ? 2 + below(random, world.newest + 1) : 0;

    return partition ? partition : world.partitions[below(random, SLOTS)];
}

static inline uint8_t random_vector(uint64_t *random)
{
    return (uint8_t)(0x20 + below(random, 0xE0));
}

/* No address in what the root needs. */
static inline uint64_t harmless(uint64_t word)
{
    return word >= 0x100000 && word < world.arena ? word | UINT64_C(1) << 40 : word;
}

static inline uint64_t random_word(uint64_t *random)
{
    switch (below(random, 12)) {
    case 0:
    case 1:
    case 2:
        return below(random, 4); /* VP */
    case 3:
        return below(random, 64);
    case 4:
        return arena_page(random) + random_offset(random);
    case 5:
        return arena_page(random) / PAGE_SIZE;
    case 6:
        return RANDOM_OF(random, register_names);
    case 7:
        return 0x200 + below(random, 8); /* port or connection */
    case 8:
        return random_vector(random);
    case 9:
        return RANDOM_OF(random, property_codes);
    case 10:
        return one_in(random, 4) ? HV_ANY_VP : (uint64_t)below(random, 16) << 32 | below(random, 16);
    default:
        return harmless(edge(random));
    }
}

/* -- Parameters in memory -- */

static inline void fill_words(struct caller *me, uint64_t *page, unsigned from, unsigned count)
{
    for (unsigned i = from; i < from + count && i < PAGE_SIZE / 8; i++) {
        page[i] = random_word(&me->random);
    }
}

static inline void fill_general(struct caller *me, const struct random_form *form, unsigned reps)
{
    unsigned header = form->input / 8, list = (form->input_element * reps + 7) / 8;

    me->page[0] = random_partition(&me->random);
    fill_words(me, me->page, 1, header + list + 2);
    /* HvSetVpRegisters, HvGetVpRegisters: names rather than any words */
    for (unsigned i = 0; form->code == CALL_SET_REGISTERS && i < reps && 8u * (2 + 4 * (i + 1)) <= PAGE_SIZE; i++) {
        me->page[2 + 4 * i] = RANDOM_OF(&me->random, register_names);
        if (!one_in(&me->random, 16)) {
            me->page[3 + 4 * i] = 0;
        }
        me->page[4 + 4 * i] = one_in(&me->random, 2) ? edge(&me->random) : me->page[4 + 4 * i];
    }
    if (form->code == CALL_GET_REGISTERS) {
        for (unsigned i = 4; i < 4 + reps && i < PAGE_SIZE / 4; i++) {
            ((uint32_t *)me->page)[i] = RANDOM_OF(&me->random, register_names);
        }
    }
}

static inline uint64_t map_flags(uint64_t *random)
{
    uint64_t flags = one_in(random, 2) ? 0xF : below(random, 16);

    if (one_in(random, 4)) {
        flags |= HV_MAP_LARGE_CURRENT;
    }
    return one_in(random, 32) ? flags | edge(random) : flags;
}

/* Nothing that would leave the root next to no time. */
static inline uint64_t property_value(uint64_t *random, uint64_t code)
{
    uint64_t value = edge(random);

    if (code == HV_PROPERTY_CPU_WEIGHT && value <= 10000) {
        return value % 200;
    }
    return code == HV_PROPERTY_CPU_RESERVE && value <= 0x10000 ? value % 0x1000 : value;
}

/* Of the root only pages in the arena's second half change; a child may be given any GPA. */
static inline uint64_t target_page(uint64_t *random, uint64_t partition)
{
    if (partition <= 1 || partition == SELF || one_in(random, 4)) {
        return (arena_page(random) | ARENA_SIZE / 2) / PAGE_SIZE;
    }
    return one_in(random, 8) ? edge(random) : below(random, 0x240);
}

/* What the caller has to give: a child its own memory, which begins at 0. */
static inline uint64_t own_page(struct caller *me, bool large)
{
    if (!me->is_root) {
        return below(&me->random, 0x40);
    }
    return large ? large_source_page(&me->random) : source_page(&me->random);
}

static inline uint64_t page_for_pool(struct caller *me)
{
    if (!me->is_root || one_in(&me->random, 32)) {
        return own_page(me, false);
    }
    return pool_page(&me->random) / PAGE_SIZE;
}

static inline void fill_guarded(struct caller *me, const struct random_form *form, unsigned reps)
{
    uint64_t *random = &me->random, *page = me->guarded, partition = random_partition(random);

    page[0] = partition;
    switch (form->code) {
    case CALL_SET_PROPERTY:
        if (partition <= 1 || partition == SELF) {
            page[0] = random_child(random);
        }
        page[1] = RANDOM_OF(random, property_codes);
        page[2] = property_value(random, page[1]);
        return;
    case CALL_DEPOSIT:
        for (unsigned i = 1; i <= reps && i < PAGE_SIZE / 8; i++) {
            page[i] = page_for_pool(me);
        }
        return;
    case CALL_MAP:
        page[1] = target_page(random, partition);
        page[2] = map_flags(random);
        for (unsigned i = 3; i < 3 + reps && i < PAGE_SIZE / 8; i++) {
            page[i] = own_page(me, true);
        }
        return;
    default:
        page[1] = map_flags(random);
        for (unsigned i = 2; i + 1 < 2 + 2 * reps && i + 1 < PAGE_SIZE / 8; i += 2) {
            page[i] = target_page(random, partition);
            page[i + 1] = own_page(me, true);
        }
        return;
    }
}

/* -- Calls -- */

static inline uint64_t call_as_given(struct caller *me, uint64_t input_value, uint64_t first, uint64_t second)
{
    register uint64_t r8 __asm__("r8") = second;
    uint64_t rax = 0, rcx = input_value, rdx = first, intel = below(&me->random, 2);
    /* The runtime is compiled without XMM registers: nothing else uses them. */
    __asm__ volatile("movdqa (%[xmm]), %%xmm0; movdqa 16(%[xmm]), %%xmm1; movdqa 32(%[xmm]), %%xmm2\n\t"
                     "movdqa 48(%[xmm]), %%xmm3; movdqa 64(%[xmm]), %%xmm4; movdqa 80(%[xmm]), %%xmm5\n\t"
                     "test %[intel], %[intel]; jz 1f; vmcall; jmp 2f; 1: vmmcall; 2:"
                     : "+a"(rax), "+c"(rcx), "+d"(rdx), "+r"(r8)
                     : [xmm] "r"(me->xmm), [intel] "r"(intel)
                     : "r9", "r10", "r11", "cc", "memory");
    me->calls++;
    me->successes += HV_RESULT_STATUS(rax) == HV_STATUS_SUCCESS;
    return rax;
}

static inline bool is_guarded(unsigned code)
{
    return code == CALL_SET_PROPERTY || code == CALL_DEPOSIT || code == CALL_MAP || code == CALL_MAP_SPARSE;
}

static inline bool is_ipi(unsigned code)
{
    return code == HV_SEND_SYNTHETIC_CLUSTER_IPI || code == HV_SEND_SYNTHETIC_CLUSTER_IPI_EX;
}

static inline struct random_form random_form(uint64_t *random)
{
    struct random_form form = RANDOM_OF(random, random_forms);

    if (one_in(random, 16)) {
        form.code = (uint16_t)(one_in(random, 2) ? next(random) : below(random, 0x100));
    }
    return form;
}

static inline uint64_t random_input_value(struct caller *me, const struct random_form *form, unsigned reps, bool fast)
{
    uint64_t *random = &me->random, value = form->code | (fast ? HV_CALL_FAST : 0);

    if (form->repeats || one_in(random, 32)) {
        value |= HV_CALL_REPS(reps);
        if (one_in(random, 8)) {
            value |= HV_CALL_START((uint64_t)below(random, one_in(random, 4) ? 4096 : reps + 2));
        }
    }
    if (one_in(random, 16)) {
        value |= HV_CALL_VARIABLE(below(random, one_in(random, 8) ? 1024 : 20));
    }
    return one_in(random, 64) ? value | (next(random) & ~UINT64_C(0xFFFF)) : value;
}

static inline uint64_t input_gpa(struct caller *me, bool guarded)
{
    uint64_t *random = &me->random;

    if (one_in(random, 32)) {
        return one_in(random, 2) ? odd_page(random) : pool_page(random);
    }
    if (guarded) {
        return (uintptr_t)me->guarded;
    }
    if (one_in(random, 16)) {
        return (uintptr_t)me->other_page + random_offset(random);
    }
    return (uintptr_t)me->page + (one_in(random, 64) ? random_offset(random) : 0);
}

static inline void make_random_call(struct caller *me)
{
    uint64_t *random = &me->random, first, second;
    struct random_form form = random_form(random);
    bool guarded = is_guarded(form.code), fast = form.fast ? one_in(random, 2) : one_in(random, 32);
    unsigned reps = one_in(random, 8) ? below(random, 4096) : below(random, 10);

    if (me->is_root && form.code == HV_SWITCH_VIRTUAL_ADDRESS_SPACE) {
        call_as_given(me, form.code | HV_CALL_FAST, vm_root(), 0);
        return;
    }
    fast |= me->is_root && is_ipi(form.code);
    for (unsigned i = 0; i < sizeof(me->xmm) / sizeof(me->xmm[0]); i++) {
        me->xmm[i] = random_word(random);
    }
    if (me->is_root && form.code == CALL_PARK) {
        call_as_given(me, form.code | HV_CALL_FAST, one_in(random, 4) ? edge(random) : 0, 0);
        return;
    }
    if (fast) {
        first = is_ipi(form.code) ? random_vector(random) : random_partition(random);
        second = random_word(random);
    } else {
        if (guarded) {
            fill_guarded(me, &form, reps);
        } else {
            fill_general(me, &form, reps);
        }
        first = input_gpa(me, guarded);
        second = one_in(random, 16) ? odd_page(random) : arena_page(random) + random_offset(random);
    }
    call_as_given(me, random_input_value(me, &form, reps, fast), first, second);
}

#endif
