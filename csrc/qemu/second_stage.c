/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The second stage (TLFS chapter 8) for QEMU's TLB: the core translates a GPA, and this says where QEMU finds the page.
 *
 * An SPA is an address of the machine's memory. Pages of the hypervisor, which overlays show, and the registers of
 * children's local APICs are behind all of that, in what only CPUs see as memory: neither a guest's page tables nor a
 * device of the machine can name an address there.
 */
#include "module.h"

#include "exec/address-spaces.h"
#include "exec/cputlb.h"
#include "exec/page-protection.h"
#include "hw/core/cpu.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/memalign.h"
#include "qemu/units.h"
#include "system/tcg.h"

QEMU_BUILD_BUG_ON(PAGE_READ != HV_ACCESS_READ || PAGE_WRITE != HV_ACCESS_WRITE || PAGE_EXEC != HV_ACCESS_EXECUTE);
QEMU_BUILD_BUG_ON(1 << MMU_DATA_LOAD != HV_ACCESS_READ || 1 << MMU_DATA_STORE != HV_ACCESS_WRITE ||
                  1 << MMU_INST_FETCH != HV_ACCESS_EXECUTE);

#define ARENA_SIZE (64 * MiB) /* reserved, not used: far more than HV_MAX_VPS can show */
#define ARENA_PAGES (ARENA_SIZE / HV_PAGE_SIZE)
#define ARENA_BASE (UINT64_C(1) << 52) /* no physical address of a processor is that wide */
#define APIC_BASE (ARENA_BASE + ARENA_SIZE)
#define BEFORE_SYSTEM_MEMORY 1

struct mshv_arena {
    MemoryRegion memory; /* what CPUs see: the machine's memory, */
    MemoryRegion system;
    MemoryRegion pages; /* the arena, */
    MemoryRegion apic; /* and one APIC, that of the VP which looks */
    AddressSpace space;
    uint8_t *host; /* of the arena */
    QemuMutex lock;
    unsigned long *used; /* a bit a page */
    size_t next; /* where to look for free pages first */
};

/* -- The arena -- */

static bool in_arena(const struct mshv_arena *arena, const void *page)
{
    return (uintptr_t)page - (uintptr_t)arena->host < ARENA_SIZE;
}

MemoryRegion *mshv_arena_region(struct mshv_arena *arena)
{
    return &arena->pages;
}

uint8_t *mshv_arena_host(const struct mshv_arena *arena)
{
    return arena->host;
}

static size_t find_free(const struct mshv_arena *arena, size_t count)
{
    size_t first = bitmap_find_next_zero_area(arena->used, ARENA_PAGES, arena->next, count, 0);

    if (first >= ARENA_PAGES)
        first = bitmap_find_next_zero_area(arena->used, ARENA_PAGES, 0, count, 0);
    return first;
}

void *mshv_allocate_pages(void *context, size_t count)
{
    struct mshv_arena *arena = ((MicrosoftHypervisor *)context)->arena;
    size_t first;

    if (!arena) {
        void *pages = qemu_try_memalign(HV_PAGE_SIZE, count * HV_PAGE_SIZE);

        return pages ? memset(pages, 0, count * HV_PAGE_SIZE) : NULL;
    }
    qemu_mutex_lock(&arena->lock);
    first = find_free(arena, count);
    if (first < ARENA_PAGES) {
        bitmap_set(arena->used, (long)first, (long)count);
        arena->next = first + count;
    }
    qemu_mutex_unlock(&arena->lock);
    return first < ARENA_PAGES ? arena->host + first * HV_PAGE_SIZE : NULL;
}

/* They are zeroed here, not when they are used again, as that invalidates what was translated from their content. */
void mshv_free_pages(void *context, void *pages, size_t count)
{
    struct mshv_arena *arena = ((MicrosoftHypervisor *)context)->arena;
    size_t first;

    if (!arena) {
        qemu_vfree(pages);
        return;
    }
    first = (size_t)((uint8_t *)pages - arena->host) / HV_PAGE_SIZE;
    address_space_set(&arena->space, ARENA_BASE + first * HV_PAGE_SIZE, 0, count * HV_PAGE_SIZE,
                      MEMTXATTRS_UNSPECIFIED);
    qemu_mutex_lock(&arena->lock);
    bitmap_clear(arena->used, (long)first, (long)count);
    qemu_mutex_unlock(&arena->lock);
}

/* -- The registers of a child's local APIC (TLFS 13.2) -- */

#define REGISTER_SIZE 4

/* What an access leads to, such as an intercept or a switch to another VP, comes before the next block of code. */
static void leave_soon(struct mshv_vp *vp)
{
    if (vp->leave || vp->yield)
        cpu_exit(CPU(vp->cpu));
}

static uint64_t apic_read(void *opaque, hwaddr offset, unsigned size)
{
    struct mshv_vp *vp = mshv_current_vp(opaque);
    unsigned shift = 8 * (offset % REGISTER_SIZE);
    uint32_t value;

    if (!vp || !vp->child)
        return UINT64_MAX;
    value = hv_lapic_read(vp->core, (uint32_t)offset & ~(REGISTER_SIZE - 1u));
    leave_soon(vp);
    return value >> shift;
}

/* A register is written as a whole or not at all. */
static void apic_write(void *opaque, hwaddr offset, uint64_t value, unsigned size)
{
    struct mshv_vp *vp = mshv_current_vp(opaque);

    if (!vp || !vp->child || size != REGISTER_SIZE || offset % REGISTER_SIZE)
        return;
    hv_lapic_write(vp->core, (uint32_t)offset, (uint32_t)value);
    leave_soon(vp);
}

static const MemoryRegionOps apic_ops = {
    .read = apic_read,
    .write = apic_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = {.min_access_size = 1, .max_access_size = 8},
    .impl = {.min_access_size = 1, .max_access_size = REGISTER_SIZE},
};

/*
 * -- The size of QEMU's TLBs --
 *
 * They grow when they are flushed, if most of their entries were in use. A VP may run for ever without a flush, and a
 * new one has the smallest TLBs there are, so one that fills them again and again gets one.
 */
#define FILLS_TO_LOOK 1024u
#define FILLS_PER_ENTRY 4u
#define ENTRIES_MOST (1u << 17)
#define PERCENT_IN_USE 70u

static uint16_t small_tlbs(const struct mshv_vp *vp)
{
    const CPUTLB *tlb = &CPU(vp->cpu)->neg.tlb;
    uint16_t modes = 0;

    for (unsigned mode = 0; mode < NB_MMU_MODES; mode++) {
        size_t entries = (tlb->f[mode].mask >> CPU_TLB_ENTRY_BITS) + 1;

        if (entries < ENTRIES_MOST && vp->tlb_fills > FILLS_PER_ENTRY * entries &&
            tlb->d[mode].n_used_entries * 100 > entries * PERCENT_IN_USE)
            modes |= 1u << mode;
    }
    return modes;
}

static void grow_tlbs(CPUState *cs, run_on_cpu_data modes)
{
    tlb_flush_by_mmuidx(cs, (uint16_t)modes.host_int);
}

/* In the middle of a fill, on the VP's thread */
static void count_fill(struct mshv_vp *vp)
{
    uint16_t modes;

    if (likely(++vp->tlb_fills % FILLS_TO_LOOK))
        return;
    modes = small_tlbs(vp);
    if (modes) {
        vp->tlb_fills = 0;
        async_run_on_cpu(CPU(vp->cpu), grow_tlbs, RUN_ON_CPU_HOST_INT(modes));
    }
}

/* -- Translation -- */

/* False when the access is not allowed. */
static bool find_page(const struct mshv_vp *vp, hwaddr gpa, const struct hv_translation *translation, hwaddr *addr)
{
    const struct mshv_arena *arena = vp->machine->arena;

    switch (translation->kind) {
    case HV_TRANSLATION_RAM:
        *addr = translation->spa;
        return true;
    case HV_TRANSLATION_OVERLAY:
        assert(in_arena(arena, translation->page));
        *addr = ARENA_BASE + (hwaddr)(translation->page - arena->host);
        return true;
    case HV_TRANSLATION_APIC:
        *addr = APIC_BASE;
        return true;
    case HV_TRANSLATION_UNMAPPED:
        *addr = gpa & HV_PAGE_MASK;
        return !vp->child; /* the root's access goes to the machine's bus (TLFS 11.8) */
    case HV_TRANSLATION_DENIED:
    case HV_TRANSLATION_FAULT:
    case HV_TRANSLATION_CHECK:
        break;
    }
    return false;
}

bool mshv_translate(const struct mshv_vp *vp, uint64_t gpa, unsigned access, uint64_t *addr, unsigned *rights)
{
    struct hv_translation translation;

    hv_translate_gpa(vp->core, gpa, access, &translation);
    *rights = translation.kind == HV_TRANSLATION_UNMAPPED ? HV_ACCESS_ALL : translation.rights;
    return find_page(vp, gpa, &translation, addr);
}

static bool second_stage(X86Hypervisor *hv, X86CPU *cpu, hwaddr gpa, MMUAccessType access_type, hwaddr *addr, int *prot)
{
    struct mshv_vp *vp = mshv_vp_of((MicrosoftHypervisor *)hv, cpu);
    unsigned rights;
    uint64_t page;

    if (likely(current_cpu == CPU(cpu)))
        count_fill(vp);
    else if (!hv_vp_get_partition_id(vp->core))
        return false; /* a debugger looks at a VP that has been deleted */
    if (!mshv_translate(vp, gpa, 1u << access_type, &page, &rights))
        return false;
    *addr = page;
    *prot = (int)rights;
    return true;
}

static enum hv_exit memory_intercept(struct mshv_vp *vp, const X86HypervisorFault *fault, bool unmapped)
{
    struct hv_memory_access access = {
        .gva = fault->gva,
        .gva_valid = !fault->page_table,
        .gpa = fault->gpa,
        .access = 1u << fault->access_type,
        .unmapped = unmapped,
        .interruption_pending = vp->cpu->env.hypervisor_event.valid,
    };

    return hv_memory_intercept(vp->core, &access);
}

static X86HypervisorExit second_stage_fault(X86Hypervisor *hv, X86CPU *cpu, const X86HypervisorFault *fault)
{
    struct mshv_vp *vp = mshv_vp_of((MicrosoftHypervisor *)hv, cpu);
    struct hv_translation translation;
    enum hv_exit exit = HV_EXIT_DONE; /* it has been mapped meanwhile */

    hv_translate_gpa(vp->core, fault->gpa, 1u << fault->access_type, &translation);
    switch (translation.kind) {
    case HV_TRANSLATION_UNMAPPED:
        if (vp->child)
            exit = memory_intercept(vp, fault, true);
        break;
    case HV_TRANSLATION_DENIED:
        exit = vp->child ? memory_intercept(vp, fault, false) : HV_EXIT_MC;
        break;
    case HV_TRANSLATION_FAULT:
        exit = HV_EXIT_GP;
        break;
    case HV_TRANSLATION_CHECK:
        exit = HV_EXIT_MC;
        break;
    default:
        break;
    }
    return mshv_finish(vp, exit);
}

/* -- What has been taken away -- */

/*
 * A VP that does not run flushes before it runs again. The caller's instruction has to wait for those that run: its
 * safe work begins when all have left the guest.
 */
void mshv_flush_second_stage(void *context, hv_vp_handle caller, const struct hv_vp_set *set)
{
    MicrosoftHypervisor *s = context;
    struct mshv_vp *self = caller == HV_ANY_VP ? NULL : mshv_vp(s, caller);
    bool wait = false;

    for (hv_vp_handle i = 0; i < HV_MAX_VPS; i++) {
        struct mshv_vp *vp = mshv_vp(s, i);

        if (!(set->bank[i / 64] >> (i % 64) & 1) || !mshv_cpu_is_there(vp))
            continue;
        if (vp == self) {
            tlb_flush(CPU(vp->cpu));
            vp->leave = true;
            continue;
        }
        qatomic_set_mb(&vp->stale, true);
        wait |= qatomic_read(&CPU(vp->cpu)->running);
    }
    if (wait && self)
        mshv_complete_before_retiring(self);
}

/* On the thread of the VP, which is about to enter the guest */
void mshv_second_stage_enter(struct mshv_vp *vp)
{
    if (unlikely(qatomic_read(&vp->stale))) {
        qatomic_set_mb(&vp->stale, false);
        tlb_flush(CPU(vp->cpu));
    }
}

/* -- Set-up -- */

/* Before the machine's CPUs are made */
void mshv_second_stage_init(MicrosoftHypervisor *s)
{
    struct mshv_arena *arena = g_new0(struct mshv_arena, 1);
    Object *owner = OBJECT(s);

    arena->used = bitmap_new(ARENA_PAGES);
    qemu_mutex_init(&arena->lock);

    memory_region_init_io(&arena->apic, owner, &apic_ops, s, "microsoft-hypervisor-apic", HV_PAGE_SIZE);
    memory_region_init(&arena->memory, owner, "microsoft-hypervisor-memory", UINT64_MAX);
    memory_region_init_alias(&arena->system, owner, "microsoft-hypervisor-system", get_system_memory(), 0, UINT64_MAX);
    memory_region_add_subregion(&arena->memory, 0, &arena->system);
    memory_region_add_subregion_overlap(&arena->memory, APIC_BASE, &arena->apic, BEFORE_SYSTEM_MEMORY);
    address_space_init(&arena->space, &arena->memory, "microsoft-hypervisor");

    s->arena = arena;
    X86_HYPERVISOR(s)->memory = &arena->memory;
    mshv_kvm_root_init(s);
}

/*
 * After the machine's memory has been made, before the core is: when QEMU sends RAM while the guest runs, it relies on
 * the machine's being the first block of all (cpu_physical_memory_sync_dirty_bitmap()).
 */
bool mshv_second_stage_add_pages(MicrosoftHypervisor *s, Error **errp)
{
    struct mshv_arena *arena = s->arena;

    if (!memory_region_init_ram_nomigrate(&arena->pages, OBJECT(s), "microsoft-hypervisor-pages", ARENA_SIZE, errp))
        return false;
    arena->host = memory_region_get_ram_ptr(&arena->pages);
    memory_region_add_subregion_overlap(&arena->memory, ARENA_BASE, &arena->pages, BEFORE_SYSTEM_MEMORY);
    return true;
}

void mshv_set_second_stage_hooks(X86HypervisorClass *hooks)
{
    hooks->second_stage = second_stage;
    hooks->second_stage_fault = second_stage_fault;
}
