/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 12, guest side: address space switches and TLB flushes. The observable effect: once the call returns, no
 * VP it names uses a translation that the page tables no longer hold.
 */
#include "guest.h"

#define WINDOW VM_TEST_BASE
#define ROUNDS 40
#define ALL (HV_FLUSH_ALL_PROCESSORS | HV_FLUSH_ALL_SPACES)

void guest_cleanup(void)
{
    hv_reset_state();
}

static volatile uint32_t *window(unsigned page)
{
    return (volatile uint32_t *)(WINDOW + page * PAGE_SIZE);
}

static volatile uint32_t *numbered_page(uint32_t number)
{
    volatile uint32_t *page = page_alloc(1);
    *page = number;
    return page;
}

/* -- The calls, each in the forms it has -- */

static uint64_t flush_space(uint64_t space, uint64_t flags, uint64_t mask)
{
    uint64_t *input = page_alloc(1);
    input[0] = space;
    input[1] = flags;
    input[2] = mask;
    return hv_call(HV_FLUSH_VIRTUAL_ADDRESS_SPACE, (uintptr_t)input, 0);
}

static uint64_t flush_space_xmm(uint64_t space, uint64_t flags, uint64_t mask)
{
    uint64_t xmm[12] __attribute__((aligned(16))) = {mask};
    return hv_call_xmm(HV_FLUSH_VIRTUAL_ADDRESS_SPACE | HV_CALL_FAST, space, flags, xmm);
}

static uint64_t flush_list(uint64_t space, uint64_t flags, uint64_t mask, uint64_t range)
{
    uint64_t *input = page_alloc(1);
    input[0] = space;
    input[1] = flags;
    input[2] = mask;
    input[3] = range;
    return hv_call(HV_FLUSH_VIRTUAL_ADDRESS_LIST | HV_CALL_REPS(1), (uintptr_t)input, 0);
}

static uint64_t flush_space_ex(uint64_t space, uint64_t flags, uint64_t format, uint64_t mask)
{
    uint64_t *input = page_alloc(1);
    input[0] = space;
    input[1] = flags;
    input[2] = format;
    input[3] = 1; /* bank 0 */
    input[4] = mask;
    return hv_call(HV_FLUSH_VIRTUAL_ADDRESS_SPACE_EX | HV_CALL_VARIABLE(format == HV_VP_SET_ALL ? 0 : 1),
                   (uintptr_t)input, 0);
}

static uint64_t flush_list_ex(uint64_t space, uint64_t flags, uint64_t mask, uint64_t range)
{
    uint64_t *input = page_alloc(1);
    input[0] = space;
    input[1] = flags;
    input[2] = HV_VP_SET_SPARSE_4K;
    input[3] = 1;
    input[4] = mask;
    input[5] = range;
    return hv_call(HV_FLUSH_VIRTUAL_ADDRESS_LIST_EX | HV_CALL_VARIABLE(1) | HV_CALL_REPS(1), (uintptr_t)input, 0);
}

/* How the calling VP asks that all VPs forget the window's first page. */
typedef uint64_t flush_form(void);

static uint64_t every_vp(void)
{
    return (cpu_count() == 64 ? 0 : 1ull << cpu_count()) - 1;
}

static uint64_t form_space_mask(void)
{
    return flush_space(vm_root(), 0, every_vp());
}

static uint64_t form_space_all_processors(void)
{
    return flush_space(vm_root(), HV_FLUSH_ALL_PROCESSORS, 0);
}

static uint64_t form_space_all_spaces(void)
{
    return flush_space(UINT64_MAX, ALL, 0);
}

static uint64_t form_space_non_global(void)
{
    return flush_space(vm_root(), HV_FLUSH_ALL_PROCESSORS | HV_FLUSH_NON_GLOBAL_ONLY, 0);
}

static uint64_t form_space_xmm(void)
{
    return flush_space_xmm(vm_root(), 0, every_vp());
}

static uint64_t form_list_mask(void)
{
    return flush_list(vm_root(), 0, every_vp(), WINDOW) & ~(1ull << 32);
}

static uint64_t form_list_all_processors(void)
{
    return flush_list(vm_root(), HV_FLUSH_ALL_PROCESSORS, 0, WINDOW) & ~(1ull << 32);
}

static uint64_t form_list_all_spaces(void)
{
    return flush_list(UINT64_MAX, ALL, 0, WINDOW) & ~(1ull << 32);
}

static uint64_t form_space_ex(void)
{
    return flush_space_ex(vm_root(), 0, HV_VP_SET_SPARSE_4K, every_vp());
}

static uint64_t form_space_ex_all(void)
{
    return flush_space_ex(vm_root(), 0, HV_VP_SET_ALL, 0);
}

static uint64_t form_list_ex(void)
{
    return flush_list_ex(vm_root(), 0, every_vp(), WINDOW) & ~(1ull << 32);
}

/* -- One VP -- */

static void check_local_flush(flush_form *flush)
{
    volatile uint32_t *pages[2] = {numbered_page(1), numbered_page(2)};
    hv_enable();
    vm_map(vm_root(), WINDOW, (uintptr_t)pages[0], PTE_P | PTE_W);
    for (unsigned i = 0; i < 20; i++) {
        EXPECT_EQ(*window(0), 1 + i % 2);
        vm_map(vm_root(), WINDOW, (uintptr_t)pages[(i + 1) % 2], PTE_P | PTE_W);
        EXPECT_EQ(flush(), HV_SUCCESS);
    }
    vm_unmap(vm_root(), WINDOW);
    EXPECT_EQ(flush(), HV_SUCCESS);
    EXPECT_FAULT(VECTOR_PF, (void)*window(0));
}

/* -- All VPs: each loads the translation, the caller changes the entry and flushes, each must see the new page -- */

static struct {
    flush_form *flush;
    struct barrier barrier;
    volatile uint32_t *pages[2];
} remote;

static void look_and_be_flushed(void *argument)
{
    (void)argument;
    for (unsigned round = 0; round < ROUNDS; round++) {
        EXPECT_EQ(*window(0), 1 + round % 2);
        barrier_wait(&remote.barrier, cpu_count()); /* everybody holds the old translation */
        if (cpu_index() == round % cpu_count()) {
            vm_map(vm_root(), WINDOW, (uintptr_t)remote.pages[(round + 1) % 2], PTE_P | PTE_W);
            EXPECT_EQ(remote.flush(), HV_SUCCESS);
        }
        barrier_wait(&remote.barrier, cpu_count()); /* the call has returned */
    }
}

static void check_remote_flush(flush_form *flush)
{
    remote.flush = flush;
    memset(&remote.barrier, 0, sizeof(remote.barrier));
    remote.pages[0] = numbered_page(1);
    remote.pages[1] = numbered_page(2);
    hv_enable();
    vm_map(vm_root(), WINDOW, (uintptr_t)remote.pages[0], PTE_P | PTE_W);
    smp_run_all(look_and_be_flushed, NULL);
    vm_unmap(vm_root(), WINDOW);
    flush();
}

#define FLUSH_CHECKS(form, tlfs, ...)                                                                                  \
    CHECK(local_flush_##form, tlfs, __VA_ARGS__)                                                                       \
    {                                                                                                                  \
        check_local_flush(form_##form);                                                                                \
    }                                                                                                                  \
    CHECK(remote_flush_##form, tlfs, .min_vps = 2, ##__VA_ARGS__)                                                      \
    {                                                                                                                  \
        check_remote_flush(form_##form);                                                                               \
    }

FLUSH_CHECKS(space_mask, "12.4.2: a processor mask", .flags = 0)
FLUSH_CHECKS(space_all_processors, "12.4.2: the mask is ignored", .flags = 0)
FLUSH_CHECKS(space_all_spaces, "12.4.2: the address space is ignored", .flags = 0)
FLUSH_CHECKS(space_non_global, "12.4.2: mappings that are not global", .flags = 0)
FLUSH_CHECKS(space_xmm, "12.4.2, 4.7.1: input in XMM registers", .flags = 0)
FLUSH_CHECKS(list_mask, "12.4.3: a processor mask", .flags = 0)
FLUSH_CHECKS(list_all_processors, "12.4.3: the mask is ignored", .flags = 0)
FLUSH_CHECKS(list_all_spaces, "12.4.3: the address space is ignored", .flags = 0)
FLUSH_CHECKS(space_ex, "later: a sparse VP set", .generations = GENERATION_CURRENT)
FLUSH_CHECKS(space_ex_all, "later: the set of all VPs", .generations = GENERATION_CURRENT)
FLUSH_CHECKS(list_ex, "later: a sparse VP set and a list", .generations = GENERATION_CURRENT)

/* -- Readers that never wait: what they see must not be older than what was published after the flush -- */

static volatile uint32_t published;
static volatile bool readers_stop;

static void read_on(void *argument)
{
    (void)argument;
    while (!readers_stop && !check_failed()) {
        uint32_t oldest = __atomic_load_n(&published, __ATOMIC_ACQUIRE);
        uint32_t seen = *window(0);
        EXPECT_THAT(seen >= oldest, "VP %u saw page %u after the flush for page %u", cpu_index(), seen, oldest);
    }
}

CHECK(no_stale_translation_after_a_flush, "12.4.3: effects have occurred when control returns", .min_vps = 2)
{
    enum { PAGES = 500 };
    volatile uint32_t *pages[PAGES];
    published = 0;
    readers_stop = false;
    for (uint32_t i = 0; i < PAGES; i++) {
        pages[i] = numbered_page(i);
    }
    hv_enable();
    uint64_t *input = page_alloc(1);
    input[0] = vm_root();
    input[1] = 0;
    input[2] = every_vp();
    input[3] = WINDOW;
    vm_map(vm_root(), WINDOW, (uintptr_t)pages[0], PTE_P | PTE_W);
    for (unsigned i = 1; i < cpu_count(); i++) {
        smp_start(i, read_on, NULL);
    }
    for (uint32_t i = 1; i < PAGES; i++) {
        vm_map(vm_root(), WINDOW, (uintptr_t)pages[i], PTE_P | PTE_W);
        EXPECT_EQ(HV_RESULT_STATUS(hv_call(HV_FLUSH_VIRTUAL_ADDRESS_LIST | HV_CALL_REPS(1), (uintptr_t)input, 0)),
                  HV_SUCCESS);
        __atomic_store_n(&published, i, __ATOMIC_RELEASE);
    }
    readers_stop = true;
    for (unsigned i = 1; i < cpu_count(); i++) {
        EXPECT(smp_wait(i, SOON));
    }
    vm_unmap(vm_root(), WINDOW);
    form_space_all_spaces();
}

static volatile uint32_t flusher_rounds[GUEST_MAX_CPUS];

static void flush_each_other(void *argument)
{
    uint64_t *input = (uint64_t *)argument + cpu_index() * (PAGE_SIZE / 8);
    input[1] = ALL;
    for (unsigned i = 0; i < 300; i++) {
        EXPECT_EQ(hv_call(HV_FLUSH_VIRTUAL_ADDRESS_SPACE, (uintptr_t)input, 0), HV_SUCCESS);
        flusher_rounds[cpu_index()]++;
    }
}

CHECK(all_vps_flush_each_other, "12.4.2: calls that meet must not wait for each other for ever", .min_vps = 2)
{
    hv_enable();
    smp_run_all(flush_each_other, page_alloc(cpu_count()));
}

/* -- Lists -- */

CHECK(list_ranges, "12.4.3: bits 11:0 count additional pages")
{
    enum { PAGES = 32 };
    volatile uint32_t *before = numbered_page(1), *after = numbered_page(2);
    hv_enable();
    for (unsigned i = 0; i < PAGES; i++) {
        vm_map(vm_root(), (uintptr_t)window(i), (uintptr_t)before, PTE_P | PTE_W);
        EXPECT_EQ(*window(i), 1);
        vm_map(vm_root(), (uintptr_t)window(i), (uintptr_t)after, PTE_P | PTE_W);
    }
    EXPECT_EQ(flush_list(vm_root(), HV_FLUSH_ALL_PROCESSORS, 0, WINDOW | (PAGES - 1)), 1ull << 32 | HV_SUCCESS);
    for (unsigned i = 0; i < PAGES; i++) {
        EXPECT_EQ(*window(i), 2);
        vm_unmap(vm_root(), (uintptr_t)window(i));
    }
    form_space_all_spaces();
}

CHECK(list_of_many, "12.4.3: every element of a list")
{
    enum { PAGES = 400 };
    volatile uint32_t *before = numbered_page(1), *after = numbered_page(2);
    uint64_t *input = page_alloc(1);
    hv_enable();
    input[0] = vm_root();
    input[1] = HV_FLUSH_ALL_PROCESSORS;
    for (unsigned i = 0; i < PAGES; i++) {
        input[3 + i] = (uintptr_t)window(i);
        vm_map(vm_root(), (uintptr_t)window(i), (uintptr_t)before, PTE_P | PTE_W);
        EXPECT_EQ(*window(i), 1);
        vm_map(vm_root(), (uintptr_t)window(i), (uintptr_t)after, PTE_P | PTE_W);
    }
    EXPECT_EQ(hv_call(HV_FLUSH_VIRTUAL_ADDRESS_LIST | HV_CALL_REPS(PAGES), (uintptr_t)input, 0),
              (uint64_t)PAGES << 32 | HV_SUCCESS);
    for (unsigned i = 0; i < PAGES; i++) {
        EXPECT_EQ(*window(i), 2);
        vm_unmap(vm_root(), (uintptr_t)window(i));
    }
    form_space_all_spaces();
}

CHECK(list_ignores_invalid_addresses, "12.4.3: addresses beyond the GVA space are ignored")
{
    hv_enable();
    EXPECT_EQ(flush_list(vm_root(), HV_FLUSH_ALL_PROCESSORS, 0, 0x1234000000000000), 1ull << 32 | HV_SUCCESS);
    EXPECT_EQ(flush_list(vm_root(), HV_FLUSH_ALL_PROCESSORS, 0, UINT64_MAX), 1ull << 32 | HV_SUCCESS);
}

CHECK(global_mappings_are_flushed, "12.4.2: without the non-global flag, global mappings too")
{
    volatile uint32_t *pages[2] = {numbered_page(1), numbered_page(2)};
    hv_enable();
    write_cr4(read_cr4() | CR4_PGE);
    vm_map(vm_root(), WINDOW, (uintptr_t)pages[0], PTE_P | PTE_W | PTE_G);
    EXPECT_EQ(*window(0), 1);
    vm_map(vm_root(), WINDOW, (uintptr_t)pages[1], PTE_P | PTE_W | PTE_G);
    EXPECT_EQ(form_space_all_processors(), HV_SUCCESS);
    EXPECT_EQ(*window(0), 2);
    vm_map(vm_root(), WINDOW, (uintptr_t)pages[0], PTE_P | PTE_W | PTE_G);
    EXPECT_EQ(form_list_mask(), HV_SUCCESS);
    EXPECT_EQ(*window(0), 1);
    vm_unmap(vm_root(), WINDOW);
    EXPECT_EQ(form_space_all_spaces(), HV_SUCCESS);
    EXPECT_FAULT(VECTOR_PF, (void)*window(0));
    write_cr4(read_cr4() & ~(uintptr_t)CR4_PGE);
}

/* -- Without the hypervisor -- */

CHECK(own_flushes, "12.1.2: INVLPG, MOV to CR3 and a change of CR4.PGE flush the processor's own translations")
{
    volatile uint32_t *pages[2] = {numbered_page(1), numbered_page(2)};
    hv_enable();
    write_cr4(read_cr4() | CR4_PGE);
    vm_map(vm_root(), WINDOW, (uintptr_t)pages[1], PTE_P | PTE_W | PTE_G);
    EXPECT_EQ(*window(0), 2);
    for (unsigned i = 0; i < 20; i++) {
        bool global = i % 2;
        unsigned shown = 1 + i / 2 % 2;
        vm_map(vm_root(), WINDOW, (uintptr_t)pages[shown - 1], PTE_P | PTE_W | (global ? PTE_G : 0));
        if (global) {
            write_cr4(read_cr4() ^ CR4_PGE);
            write_cr4(read_cr4() ^ CR4_PGE);
        } else {
            __asm__ volatile("invlpg (%0)" : : "r"(WINDOW) : "memory");
        }
        EXPECT_EQ(*window(0), shown);
        vm_map(vm_root(), WINDOW, (uintptr_t)pages[2 - shown], PTE_P | PTE_W);
        __asm__ volatile("invlpg (%0)" : : "r"(WINDOW) : "memory");
        EXPECT_EQ(*window(0), 3 - shown);
        vm_map(vm_root(), WINDOW, (uintptr_t)pages[shown - 1], PTE_P | PTE_W);
        write_cr3(vm_root());
        EXPECT_EQ(*window(0), shown);
    }
    write_cr4(read_cr4() & ~(uintptr_t)CR4_PGE);
}

/* -- Address spaces -- */

CHECK(switch_changes_cr3, "12.4.1")
{
    volatile uint32_t *first = numbered_page(1), *second = numbered_page(2);
    uintptr_t spaces[2] = {vm_create(), vm_create()};
    vm_map(spaces[0], WINDOW, (uintptr_t)first, PTE_P | PTE_W);
    vm_map(spaces[1], WINDOW, (uintptr_t)second, PTE_P | PTE_W);
    hv_enable();
    for (unsigned i = 0; i < 50; i++) {
        uint64_t call = HV_SWITCH_VIRTUAL_ADDRESS_SPACE | HV_CALL_FAST;
        EXPECT_EQ(hv_call(call, spaces[i % 2], 0), HV_SUCCESS);
        EXPECT_EQ(read_cr3(), spaces[i % 2]);
        EXPECT_EQ(*window(0), 1 + i % 2);
    }
    uint64_t *input = page_alloc(1);
    *input = vm_root();
    EXPECT_EQ(hv_call(HV_SWITCH_VIRTUAL_ADDRESS_SPACE, (uintptr_t)input, 0), HV_SUCCESS);
    EXPECT_EQ(read_cr3(), vm_root());
    EXPECT_FAULT(VECTOR_PF, (void)*window(0));
}

CHECK(switch_sees_a_flushed_change, "12.4.1, 12.4.2: a flush of a space that is not the current one")
{
    volatile uint32_t *pages[2] = {numbered_page(1), numbered_page(2)};
    uintptr_t other = vm_create();
    hv_enable();
    vm_map(other, WINDOW, (uintptr_t)pages[0], PTE_P | PTE_W);
    for (unsigned i = 0; i < 20; i++) {
        EXPECT_EQ(hv_call(HV_SWITCH_VIRTUAL_ADDRESS_SPACE | HV_CALL_FAST, other, 0), HV_SUCCESS);
        EXPECT_EQ(*window(0), 1 + i % 2);
        EXPECT_EQ(hv_call(HV_SWITCH_VIRTUAL_ADDRESS_SPACE | HV_CALL_FAST, vm_root(), 0), HV_SUCCESS);
        vm_map(other, WINDOW, (uintptr_t)pages[(i + 1) % 2], PTE_P | PTE_W);
        EXPECT_EQ(flush_space(other, HV_FLUSH_ALL_PROCESSORS, 0), HV_SUCCESS);
    }
}

CHECK(switch_rejects_reserved_bits, "12.4.1: not a valid CR3 value")
{
    hv_enable();
    uint64_t call = HV_SWITCH_VIRTUAL_ADDRESS_SPACE | HV_CALL_FAST;
    EXPECT_EQ(hv_call(call, vm_root() | hv_gpa_limit(), 0), HV_INVALID_PARAMETER);
    EXPECT_EQ(hv_call(call, vm_root() | 1ull << 62, 0), HV_INVALID_PARAMETER);
    EXPECT_EQ(read_cr3(), vm_root());
}

/* -- Parameters -- */

CHECK(flush_needs_a_target, "12.4.2, 12.4.3: a mask of zero without the all-processors flag")
{
    hv_enable();
    EXPECT_EQ(flush_space(vm_root(), 0, 0), HV_INVALID_PARAMETER);
    EXPECT_EQ(HV_RESULT_STATUS(flush_list(vm_root(), 0, 0, WINDOW)), HV_INVALID_PARAMETER);
    EXPECT_EQ(HV_RESULT_REPS(flush_list(vm_root(), 0, 0, WINDOW)), 0);
}

CHECK(flush_rejects_reserved_flags, "12.4.2, 12.4.3")
{
    hv_enable();
    for (unsigned bit = 3; bit < 64; bit++) {
        EXPECT_EQ(flush_space(vm_root(), HV_FLUSH_ALL_PROCESSORS | 1ull << bit, 0), HV_INVALID_PARAMETER);
        EXPECT_EQ(flush_list(vm_root(), HV_FLUSH_ALL_PROCESSORS | 1ull << bit, 0, WINDOW), HV_INVALID_PARAMETER);
    }
    EXPECT_EQ(flush_list(vm_root(), HV_FLUSH_ALL_PROCESSORS | HV_FLUSH_NON_GLOBAL_ONLY, 0, WINDOW),
              HV_INVALID_PARAMETER);
}

CHECK(flush_rejects_a_bad_space, "12.4.2: not a valid CR3 value, unless all spaces are named")
{
    uint64_t bad = vm_root() | hv_gpa_limit();
    hv_enable();
    EXPECT_EQ(flush_space(bad, HV_FLUSH_ALL_PROCESSORS, 0), HV_INVALID_PARAMETER);
    EXPECT_EQ(flush_list(bad, HV_FLUSH_ALL_PROCESSORS, 0, WINDOW), HV_INVALID_PARAMETER);
    EXPECT_EQ(flush_space(bad, ALL, 0), HV_SUCCESS);
}

CHECK(ex_forms_check_the_set, "later: the banks given must be the banks in the mask", .generations = GENERATION_CURRENT)
{
    uint64_t *input = page_alloc(1);
    hv_enable();
    input[0] = vm_root();
    input[2] = HV_VP_SET_SPARSE_4K;
    input[3] = 3; /* two banks */
    EXPECT_EQ(HV_RESULT_STATUS(hv_call(HV_FLUSH_VIRTUAL_ADDRESS_SPACE_EX | HV_CALL_VARIABLE(1), (uintptr_t)input, 0)),
              HV_INVALID_HYPERCALL_INPUT);
    input[2] = 2; /* no such format */
    input[3] = 1;
    EXPECT_EQ(HV_RESULT_STATUS(hv_call(HV_FLUSH_VIRTUAL_ADDRESS_SPACE_EX | HV_CALL_VARIABLE(1), (uintptr_t)input, 0)),
              HV_INVALID_PARAMETER);
}
