/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * GPA spaces with KVM (TLFS chapter 8), which has slots of memory in the place of a second stage that asks.
 *
 * A child's slots are a copy of what the core's map says, made anew when that has changed, by the child before it
 * enters the guest; whoever takes something away makes it leave.
 *
 * The machine's own VPs see its memory with regions of ours laid over it where the root's map is not the identity with
 * all rights: overlay pages, and pages that the root has deposited or restricted. Devices do not see those regions.
 */
#include "kvm_backend.h"

#include "exec/address-spaces.h"
#include "exec/ram_addr.h"
#include "hw/core/cpu.h"
#include "kvm/kvm_i386.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "system/kvm.h"
#include "trace.h"

/* -- Walking a GPA space -- */

struct walk {
    struct mshv_vp *vp;
    void (*visit)(struct walk *walk, uint64_t gpa, uint64_t size, const struct hv_translation *translation);
};

static void walk_space(struct walk *walk)
{
    uint64_t limit = UINT64_C(1) << hv_get_config(walk->vp->machine->core)->gpa_bits;
    struct hv_translation translation;
    uint64_t size;

    for (uint64_t gpa = 0; gpa < limit; gpa += size) {
        hv_translate_gpa(walk->vp->core, gpa, 0, &translation);
        size = MIN(translation.size - (gpa & (translation.size - 1)), limit - gpa);
        walk->visit(walk, gpa, size, &translation);
    }
}

/* -- Children: slots -- */

struct child_walk {
    struct walk walk;
    struct mshv_kvm_ranges ranges;
};

/* What of an SPA range is memory; called in an RCU read-side critical section. */
static void add_memory(struct child_walk *child, uint64_t gpa, uint64_t spa, uint64_t size, bool read_only)
{
    while (size) {
        hwaddr offset, length = size;
        MemoryRegion *region =
            address_space_translate(&address_space_memory, spa, &offset, &length, false, MEMTXATTRS_UNSPECIFIED);

        if (memory_access_is_direct(region, false, MEMTXATTRS_UNSPECIFIED) && length >= HV_PAGE_SIZE) {
            struct mshv_kvm_range range = {
                .gpa = gpa,
                .size = length & HV_PAGE_MASK,
                .host = (uint8_t *)memory_region_get_ram_ptr(region) + offset,
                .read_only = read_only || !memory_access_is_direct(region, true, MEMTXATTRS_UNSPECIFIED),
            };

            mshv_kvm_ranges_add(&child->ranges, &range);
        }
        length = MAX(length & HV_PAGE_MASK, HV_PAGE_SIZE);
        length = MIN(length, size);
        gpa += length;
        spa += length;
        size -= length;
    }
}

static void visit_child(struct walk *walk, uint64_t gpa, uint64_t size, const struct hv_translation *translation)
{
    struct child_walk *child = container_of(walk, struct child_walk, walk);
    bool read_only = !(translation->rights & HV_ACCESS_WRITE);
    struct mshv_kvm_range overlay = {.gpa = gpa, .size = size, .host = translation->page, .read_only = read_only};

    if (!translation->rights)
        return;
    if (translation->kind == HV_TRANSLATION_OVERLAY)
        mshv_kvm_ranges_add(&child->ranges, &overlay);
    else if (translation->kind == HV_TRANSLATION_RAM)
        add_memory(child, gpa, translation->spa + (gpa & (translation->size - 1)), size, read_only);
}

size_t mshv_kvm_most_slots(void)
{
    int slots = kvm_check_extension(kvm_state, KVM_CAP_NR_MEMSLOTS);

    return MAX(slots, 128) - 32;
}

static void dirty(void *opaque, uint8_t *host, uint64_t size)
{
    RCU_READ_LOCK_GUARD();
    while (size) {
        ram_addr_t offset;
        MemoryRegion *region = memory_region_from_host(host, &offset);
        uint64_t length = size;

        if (region) {
            length = MIN(size, memory_region_size(region) - offset);
            memory_region_set_dirty(region, offset, length);
        }
        host += length;
        size -= length;
    }
}

static void report(const struct mshv_kvm_failure *failure)
{
    error_report(TYPE_MICROSOFT_HYPERVISOR ": memory of a child partition: %s: %s", failure->call,
                 strerror(failure->error));
}

static void update_slots(struct mshv_vp *vp)
{
    struct mshv_kvm_child *kvm = vp->kvm;
    struct child_walk child = {.walk = {.vp = vp, .visit = visit_child}, .ranges = {.most = mshv_kvm_most_slots()}};
    struct mshv_kvm_failure failure;

    RCU_READ_LOCK_GUARD();
    walk_space(&child.walk);
    if ((child.ranges.left_out || child.ranges.failed) && !kvm->told_of_limit) {
        kvm->told_of_limit = true;
        warn_report(TYPE_MICROSOFT_HYPERVISOR ": a child's memory is scattered over more than %zu ranges; the rest is "
                                              "slow, and cannot be executed",
                    child.ranges.most);
    }
    if (kvm->slots.log_dirty && !mshv_kvm_slots_collect(&kvm->slots, dirty, NULL, &failure))
        report(&failure);
    if (!mshv_kvm_slots_set(&kvm->slots, &child.ranges, &failure))
        report(&failure);
    free(child.ranges.list);
}

void mshv_kvm_sync_child(struct mshv_vp *vp)
{
    struct mshv_kvm_child *kvm = vp->kvm;
    unsigned memory_generation = qatomic_load_acquire(&vp->machine->memory_generation);
    uint64_t changes = hv_gpa_changes(vp->core);

    qemu_mutex_lock(&kvm->lock);
    if (!kvm->synced || kvm->changes != changes || kvm->memory_generation != memory_generation) {
        update_slots(vp);
        kvm->synced = true;
        qatomic_set(&kvm->changes, changes);
        kvm->memory_generation = memory_generation;
    }
    qemu_mutex_unlock(&kvm->lock);
}

/* -- What has been taken away -- */

/* A child looks at the map after it has said that it runs. */
static bool is_in_guest_with_old_slots(struct mshv_vp *vp)
{
    return qatomic_read(&vp->running) && qatomic_read(&vp->kvm->changes) != hv_gpa_changes(vp->core);
}

static void nothing(CPUState *cs, run_on_cpu_data data)
{
}

/*
 * Another VP may be outside the guest, in the middle of a call of its own, and have that memory at hand. So the caller
 * executes its next instruction when all have been out of theirs, as with TCG.
 */
static void wait_for_calls(struct mshv_vp *caller)
{
    CPUState *cs = CPU(caller->cpu);

    qatomic_set(&cs->exit_request, 1);
    async_safe_run_on_cpu(cs, nothing, RUN_ON_CPU_NULL);
}

/*
 * A child that is in the guest must not use it any more when the call retires; others look before they enter. It has to
 * leave: KVM changes a slot by letting it go and making it anew, and what executes meanwhile misses its own code and
 * page tables. To wait for that cannot last: nobody waits inside the guest, and who waits here is not there. The
 * machine's own VPs look when they enter, and leave then, before the instruction after the caller's.
 */
void mshv_kvm_flush_second_stage(void *context, hv_vp_handle caller, const struct hv_vp_set *set)
{
    MicrosoftHypervisor *s = context;
    bool others = false;

    smp_mb(); /* what has changed is visible before `running` is read */
    for (hv_vp_handle i = 0; i < HV_MAX_VPS; i++) {
        struct mshv_vp *vp = mshv_vp(s, i);

        if (!(set->bank[i / 64] >> (i % 64) & 1) || !mshv_cpu_is_there(vp))
            continue;
        if (!vp->child && i != caller)
            qemu_cpu_kick(CPU(vp->cpu));
        while (vp->child && vp->kvm && is_in_guest_with_old_slots(vp)) {
            mshv_exit_cpu(CPU(vp->cpu));
            sched_yield();
        }
        others |= i != caller && qatomic_read(&CPU(vp->cpu)->running);
    }
    if (others && caller != HV_ANY_VP)
        wait_for_calls(mshv_vp(s, caller));
}

/* -- The root: regions over the machine's memory -- */

enum region_kind { REGION_PAGE, REGION_CODE, REGION_STATS, REGION_DENIED };

struct mshv_kvm_region {
    MemoryRegion region;
    MicrosoftHypervisor *machine;
    enum region_kind kind;
    bool shown;
    bool wanted;
    uint64_t gpa, size;
    uint8_t *page;
    unsigned rights; /* REGION_DENIED */
};

struct mshv_kvm_root {
    MemoryRegion memory, system;
    AddressSpace space;
    GPtrArray *regions;
    uint64_t changes;
    bool synced;
    bool asked; /* for a look */
};

#define ABOVE_SYSTEM_MEMORY 1

/* The access has been retired by KVM, so #MC is the next instruction's. */
static void refuse_access(void)
{
    CPUState *cs = current_cpu;

    if (cs && cs->running)
        kvm_hypervisor_raise(X86_CPU(cs), X86_HYPERVISOR_MC);
}

static MemTxResult denied_read(void *opaque, hwaddr offset, uint64_t *value, unsigned size, MemTxAttrs attrs)
{
    const struct mshv_kvm_region *r = opaque;

    *value = UINT64_MAX;
    if (r->rights & HV_ACCESS_READ)
        return address_space_read(&address_space_memory, r->gpa + offset, attrs, value, size);
    refuse_access();
    return MEMTX_OK;
}

static MemTxResult denied_write(void *opaque, hwaddr offset, uint64_t value, unsigned size, MemTxAttrs attrs)
{
    refuse_access();
    return MEMTX_OK;
}

static const MemoryRegionOps denied_ops = {
    .read_with_attrs = denied_read,
    .write_with_attrs = denied_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = {.min_access_size = 1, .max_access_size = 8, .unaligned = true},
    .impl = {.min_access_size = 1, .max_access_size = 8, .unaligned = true},
};

static void init_region(struct mshv_kvm_region *r)
{
    Object *owner = OBJECT(r->machine);

    switch (r->kind) {
    case REGION_PAGE:
        memory_region_init_alias(&r->region, owner, "microsoft-hypervisor-page", mshv_arena_region(r->machine->arena),
                                 0, HV_PAGE_SIZE);
        break;
    case REGION_CODE:
        mshv_init_code_page(r->machine, &r->region, "microsoft-hypervisor-code", r->page);
        break;
    case REGION_STATS:
        mshv_init_stats_page(r->machine, &r->region, "microsoft-hypervisor-stats", r->page);
        break;
    default:
        memory_region_init_io(&r->region, owner, &denied_ops, r, "microsoft-hypervisor-denied", HV_PAGE_SIZE);
        break;
    }
}

static void show_region(struct mshv_kvm_root *root, struct mshv_kvm_region *r)
{
    if (r->kind == REGION_PAGE)
        memory_region_set_alias_offset(&r->region, (hwaddr)(r->page - mshv_arena_host(r->machine->arena)));
    else if (r->kind == REGION_DENIED)
        memory_region_set_size(&r->region, r->size);
    memory_region_add_subregion_overlap(&root->memory, r->gpa, &r->region, ABOVE_SYSTEM_MEMORY);
    r->shown = true;
}

static bool has_page_of_its_own(enum region_kind kind)
{
    return kind == REGION_CODE || kind == REGION_STATS;
}

/* Regions are kept: a memory map that has gone out of use may still name them. */
static struct mshv_kvm_region *find_region(MicrosoftHypervisor *s, struct mshv_kvm_root *root,
                                           const struct mshv_kvm_region *like)
{
    struct mshv_kvm_region *found = NULL;

    for (guint i = 0; i < root->regions->len; i++) {
        struct mshv_kvm_region *r = g_ptr_array_index(root->regions, i);

        if (r->kind != like->kind)
            continue;
        if (r->shown && r->gpa == like->gpa && r->size == like->size && r->page == like->page &&
            r->rights == like->rights)
            return r;
        if (!r->shown && !r->wanted && (!has_page_of_its_own(r->kind) || r->page == like->page))
            found = r;
    }
    if (!found) {
        found = g_new0(struct mshv_kvm_region, 1);
        found->machine = s;
        found->kind = like->kind;
        found->page = like->page;
        init_region(found);
        g_ptr_array_add(root->regions, found);
    }
    found->gpa = like->gpa;
    found->size = like->size;
    found->page = like->page;
    found->rights = like->rights;
    return found;
}

struct root_walk {
    struct walk walk;
    GArray *wanted; /* struct mshv_kvm_region */
};

static enum region_kind kind_of_page(struct mshv_vp *vp, uint64_t gpa, unsigned rights)
{
    struct hv_translation write;

    if (rights & HV_ACCESS_WRITE)
        return REGION_PAGE;
    hv_translate_gpa(vp->core, gpa, HV_ACCESS_WRITE, &write);
    return write.kind == HV_TRANSLATION_FAULT ? REGION_CODE : REGION_STATS;
}

static void visit_root(struct walk *walk, uint64_t gpa, uint64_t size, const struct hv_translation *translation)
{
    struct root_walk *root = container_of(walk, struct root_walk, walk);
    struct mshv_kvm_region wanted = {.kind = REGION_DENIED, .gpa = gpa, .size = size, .rights = translation->rights};
    struct mshv_kvm_region *last =
        root->wanted->len ? &g_array_index(root->wanted, struct mshv_kvm_region, root->wanted->len - 1) : NULL;

    if (translation->kind == HV_TRANSLATION_OVERLAY) {
        wanted.kind = kind_of_page(walk->vp, gpa, translation->rights);
        wanted.page = translation->page;
        wanted.rights = 0;
    } else if (translation->kind == HV_TRANSLATION_RAM && translation->rights == HV_ACCESS_ALL) {
        return;
    } else if (last && last->kind == REGION_DENIED && last->rights == wanted.rights && last->gpa + last->size == gpa) {
        last->size += size;
        return;
    }
    g_array_append_val(root->wanted, wanted);
}

static void hide_unwanted(struct mshv_kvm_root *root, const GArray *wanted)
{
    for (guint i = 0; i < root->regions->len; i++) {
        struct mshv_kvm_region *r = g_ptr_array_index(root->regions, i);

        r->wanted = false;
        for (guint k = 0; k < wanted->len && r->shown && !r->wanted; k++) {
            const struct mshv_kvm_region *w = &g_array_index(wanted, struct mshv_kvm_region, k);

            r->wanted = r->kind == w->kind && r->gpa == w->gpa && r->size == w->size && r->page == w->page &&
                        r->rights == w->rights;
        }
        if (r->shown && !r->wanted) {
            memory_region_del_subregion(&root->memory, &r->region);
            r->shown = false;
        }
    }
}

/* No VP of the machine is in the guest; BQL held. */
static void sync_root(MicrosoftHypervisor *s)
{
    struct mshv_kvm_root *root = s->kvm_root;
    struct root_walk walk = {
        .walk = {.vp = mshv_vp(s, 0), .visit = visit_root},
        .wanted = g_array_new(false, false, sizeof(struct mshv_kvm_region)),
    };
    uint64_t changes = hv_gpa_changes(walk.walk.vp->core);

    walk_space(&walk.walk);
    memory_region_transaction_begin();
    hide_unwanted(root, walk.wanted);
    for (guint i = 0; i < walk.wanted->len; i++) {
        struct mshv_kvm_region *r = find_region(s, root, &g_array_index(walk.wanted, struct mshv_kvm_region, i));

        if (!r->shown)
            show_region(root, r);
    }
    memory_region_transaction_commit();
    g_array_free(walk.wanted, true);
    qatomic_set(&root->changes, changes);
    qatomic_set(&root->synced, true);
}

bool mshv_kvm_root_is_stale(const MicrosoftHypervisor *s)
{
    const struct mshv_kvm_root *root = s->kvm_root;

    return root &&
           (!qatomic_read(&root->synced) || qatomic_read(&root->changes) != hv_gpa_changes(mshv_vp(s, 0)->core));
}

static void sync_root_work(CPUState *cs, run_on_cpu_data data)
{
    MicrosoftHypervisor *s = data.host_ptr;
    BQL_LOCK_GUARD();

    qatomic_set_mb(&s->kvm_root->asked, false);
    if (mshv_kvm_root_is_stale(s))
        sync_root(s);
}

/* On the VP's thread, which leaves the guest at once: KVM only completes the instruction it was left for. */
void mshv_kvm_sync_root_soon(struct mshv_vp *vp)
{
    MicrosoftHypervisor *s = vp->machine;

    qatomic_set(&CPU(vp->cpu)->exit_request, 1);
    if (!qatomic_xchg(&s->kvm_root->asked, true))
        async_safe_run_on_cpu(CPU(vp->cpu), sync_root_work, RUN_ON_CPU_HOST_PTR(s));
}

/* -- Migration: what children write -- */

static void for_children(MicrosoftHypervisor *s, void (*function)(struct mshv_kvm_child *child))
{
    for (hv_vp_handle i = s->vp_count; i < HV_MAX_VPS; i++) {
        struct mshv_vp *vp = mshv_vp(s, i);

        if (vp && vp->kvm) {
            qemu_mutex_lock(&vp->kvm->lock);
            function(vp->kvm);
            qemu_mutex_unlock(&vp->kvm->lock);
        }
    }
}

void mshv_kvm_log_child(struct mshv_kvm_child *child, bool on)
{
    struct mshv_kvm_failure failure;

    if (!mshv_kvm_slots_log(&child->slots, on, &failure))
        report(&failure);
}

static void log_on(struct mshv_kvm_child *child)
{
    mshv_kvm_log_child(child, true);
}

static void log_off(struct mshv_kvm_child *child)
{
    mshv_kvm_log_child(child, false);
}

static void collect(struct mshv_kvm_child *child)
{
    struct mshv_kvm_failure failure;

    if (!mshv_kvm_slots_collect(&child->slots, dirty, NULL, &failure))
        report(&failure);
}

static bool log_start(MemoryListener *listener, Error **errp)
{
    MicrosoftHypervisor *s = container_of(listener, MicrosoftHypervisor, kvm_listener);

    qatomic_set(&s->kvm_log, true);
    for_children(s, log_on);
    return true;
}

static void log_stop(MemoryListener *listener)
{
    MicrosoftHypervisor *s = container_of(listener, MicrosoftHypervisor, kvm_listener);

    qatomic_set(&s->kvm_log, false);
    for_children(s, log_off);
}

static void log_sync(MemoryListener *listener, bool last_stage)
{
    for_children(container_of(listener, MicrosoftHypervisor, kvm_listener), collect);
}

/* -- Set-up -- */

/* Before the accelerator is: it shows the machine's CPUs this. */
void mshv_kvm_root_init(MicrosoftHypervisor *s)
{
    struct mshv_kvm_root *root = g_new0(struct mshv_kvm_root, 1);
    Object *owner = OBJECT(s);

    root->regions = g_ptr_array_new();
    memory_region_init(&root->memory, owner, "microsoft-hypervisor-kvm", UINT64_MAX);
    memory_region_init_alias(&root->system, owner, "microsoft-hypervisor-kvm-system", get_system_memory(), 0,
                             UINT64_MAX);
    memory_region_add_subregion(&root->memory, 0, &root->system);
    address_space_init(&root->space, &root->memory, "microsoft-hypervisor-kvm");
    s->kvm_root = root;
    X86_HYPERVISOR(s)->kvm_space = &root->space;
}

void mshv_kvm_memory_init(MicrosoftHypervisor *s)
{
    s->kvm_listener = (MemoryListener){
        .name = "microsoft-hypervisor-kvm",
        .log_global_start = log_start,
        .log_global_stop = log_stop,
        .log_sync_global = log_sync,
    };
    memory_listener_register(&s->kvm_listener, &address_space_memory);
}
