/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 8: guest physical address spaces: translation, overlay pages, memory as VPs see it, and pages that leave
 * a space for a memory pool.
 *
 * Rights. A page of a child is reached with the rights its parent gave it, and those of all further ancestors' maps: a
 * partition cannot hand on more than it was given. What the root takes from itself it takes from its own VPs only, as a
 * parent need not have access to what it maps into a child (TLFS 8.1.1). A deposited page is out of reach of everybody.
 */
#include "gpa_table.h"
#include "stats.h"

#include <stdlib.h>
#include <string.h>

/* -- Overlay pages (TLFS 8.1.3) -- */

/* Ordered by page, and at one page by kind and VP: of several the first is on top, the choice is the hypervisor's. */
#define KEY_PAGE_SHIFT 24
#define KEY_KIND_SHIFT 16
#define KEY_OWNER_MASK ((UINT64_C(1) << KEY_PAGE_SHIFT) - 1)

struct overlay {
    _Atomic uint64_t key;
    uint8_t *_Atomic page;
};

/* Never changed while readers may look: the next version is written into the spare one (see gpa_table.h). */
struct hv_gpa_overlays {
    struct hv_gpa_overlays *next; /* in the list of those that became too small */
    size_t capacity;
    _Atomic size_t count;
    struct overlay overlays[];
};

static uint64_t overlay_owner(enum hv_overlay_kind kind, hv_vp_index vp)
{
    return (uint64_t)kind << KEY_KIND_SHIFT | vp;
}

static enum hv_overlay_kind overlay_kind(uint64_t key)
{
    return (enum hv_overlay_kind)((key >> KEY_KIND_SHIFT) & 0xFF);
}

static uint64_t overlay_key(const struct hv_gpa_overlays *overlays, size_t index)
{
    return atomic_load_explicit(&overlays->overlays[index].key, memory_order_relaxed);
}

/* The first overlay at or behind a page. */
static size_t find_overlay(const struct hv_gpa_overlays *overlays, size_t count, uint64_t page)
{
    size_t low = 0, high = count;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (overlay_key(overlays, middle) < page << KEY_PAGE_SHIFT)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The largest power of two of pages, aligned, that contains one page and not the other. */
static unsigned shift_without(uint64_t page, uint64_t other)
{
    return 63 - (unsigned)__builtin_clzll(page ^ other);
}

/* What is at a page, and how far around it there are no overlays. */
struct overlay_view {
    uint8_t *page;
    enum hv_overlay_kind kind;
    unsigned shift;
};

static struct overlay_view look_at_overlays(const struct hv_gpa_space *space, uint64_t page)
{
    const struct hv_gpa_overlays *overlays = atomic_load_explicit(&space->overlays, memory_order_acquire);
    struct overlay_view view = {.shift = 63};
    size_t count, at;

    if (!overlays)
        return view;
    count = atomic_load_explicit(&overlays->count, memory_order_acquire);
    at = find_overlay(overlays, count, page);
    if (at > 0)
        view.shift = shift_without(page, overlay_key(overlays, at - 1) >> KEY_PAGE_SHIFT);
    if (at < count) {
        uint64_t key = overlay_key(overlays, at);

        if (key >> KEY_PAGE_SHIFT == page) {
            view.page = atomic_load_explicit(&overlays->overlays[at].page, memory_order_relaxed);
            view.kind = overlay_kind(key);
            view.shift = 0;
        } else {
            unsigned shift = shift_without(page, key >> KEY_PAGE_SHIFT);

            view.shift = shift < view.shift ? shift : view.shift;
        }
    }
    return view;
}

static struct overlay_view overlay_at(const struct hv_gpa_space *space, uint64_t page)
{
    uint64_t before, after = atomic_load_explicit(&space->generation, memory_order_acquire);
    struct overlay_view view;

    do {
        before = after;
        view = look_at_overlays(space, page);
        atomic_thread_fence(memory_order_acquire);
        after = atomic_load_explicit(&space->generation, memory_order_relaxed);
    } while (after != before);
    return view;
}

/* A place for a version with `count` overlays. */
static struct hv_gpa_overlays *take_spare(struct hv_gpa_space *space, size_t count)
{
    struct hv_gpa_overlays *spare = space->spare;
    size_t capacity = 8, size;

    if (spare && spare->capacity >= count) {
        space->spare = NULL;
        atomic_fetch_add(&space->generation, 1);
        atomic_thread_fence(memory_order_release);
        return spare;
    }
    while (capacity < count)
        capacity *= 2;
    size = sizeof(*spare) + capacity * sizeof(spare->overlays[0]);
    spare = calloc(1, size);
    if (!spare)
        abort(); /* a register has its new value already, and there is no way to tell */
    atomic_fetch_add_explicit(&space->bytes, size, memory_order_relaxed);
    spare->capacity = capacity;
    return spare;
}

static void publish(struct hv_gpa_space *space, struct hv_gpa_overlays *overlays)
{
    struct hv_gpa_overlays *old = atomic_load(&space->overlays);

    atomic_store_explicit(&space->overlays, overlays, memory_order_release);
    if (space->spare) {
        space->spare->next = space->retired;
        space->retired = space->spare;
    }
    space->spare = old;
}

static void append(struct hv_gpa_overlays *overlays, size_t *count, uint64_t key, uint8_t *page)
{
    atomic_store_explicit(&overlays->overlays[*count].key, key, memory_order_relaxed);
    atomic_store_explicit(&overlays->overlays[*count].page, page, memory_order_relaxed);
    ++*count;
}

/* Write the version in which `owner`'s page is shown at `key`, or nowhere when `page` is NULL. False: as it is. */
static bool change_overlays(struct hv_gpa_space *space, uint64_t owner, uint64_t key, uint8_t *page)
{
    struct hv_gpa_overlays *old = atomic_load(&space->overlays), *new;
    size_t old_count = old ? atomic_load(&old->count) : 0, count = 0;
    bool there = false;

    for (size_t i = 0; i < old_count; i++) {
        if ((overlay_key(old, i) & KEY_OWNER_MASK) != owner)
            continue;
        if (page && overlay_key(old, i) == key && atomic_load(&old->overlays[i].page) == page)
            return false;
        there = true;
    }
    if (!page && !there)
        return false;
    new = take_spare(space, old_count + 1);
    for (size_t i = 0; i < old_count; i++) {
        uint64_t other = overlay_key(old, i);

        if ((other & KEY_OWNER_MASK) == owner)
            continue;
        if (page && other > key) {
            append(new, &count, key, page);
            page = NULL;
        }
        append(new, &count, other, atomic_load(&old->overlays[i].page));
    }
    if (page)
        append(new, &count, key, page);
    atomic_store_explicit(&new->count, count, memory_order_release);
    publish(space, new);
    return true;
}

void hv_gpa_set_overlay(struct hv_partition *partition, enum hv_overlay_kind kind, hv_vp_index vp, uint8_t *page,
                        bool enabled, hv_gpa gpa)
{
    struct hv_gpa_space *space = partition->gpa_space;
    uint64_t owner = overlay_owner(kind, vp);
    struct hv_vp_set handles;
    bool changed;

    if (!space)
        return; /* it is being made or has ended: there is nobody to show it to */
    hv_vp_lock_take(&space->overlay_lock);
    changed = change_overlays(space, owner, gpa >> HV_PAGE_SHIFT << KEY_PAGE_SHIFT | owner, enabled ? page : NULL);
    hv_vp_lock_drop(&space->overlay_lock);
    if (!changed)
        return;
    hv_gpa_changed(space);
    /* Descendants do not see them. */
    hv_vp_handles(partition, &partition->all_vps, &handles);
    hv_flush_second_stage(partition->hv, hv_calling_vp, &handles);
}

/* -- Spaces -- */

bool hv_gpa_space_create(struct hv_partition *partition)
{
    struct hv_gpa_space *space = calloc(1, sizeof(*space));

    if (!space)
        return false;
    space->partition = partition;
    space->identity = partition->is_root;
    atomic_store(&space->bytes, sizeof(*space));
    hv_vp_lock_init(&space->overlay_lock);
    if (partition->parent) {
        space->parent = partition->parent->gpa_space;
        space->next_sibling = space->parent->children;
        space->parent->children = space;
    }
    partition->gpa_space = space;
    if (hv_gpa_table_init(space))
        return true;
    hv_gpa_space_free(partition);
    return false;
}

/* Only at the end of the machine do children outlive their parent. */
static void leave_family(struct hv_gpa_space *space)
{
    for (struct hv_gpa_space *child = space->children; child; child = child->next_sibling)
        child->parent = NULL;
    if (space->parent) {
        struct hv_gpa_space **link = &space->parent->children;

        while (*link != space)
            link = &(*link)->next_sibling;
        *link = space->next_sibling;
    }
}

static void free_overlays(struct hv_gpa_overlays *overlays)
{
    while (overlays) {
        struct hv_gpa_overlays *next = overlays->next;

        free(overlays);
        overlays = next;
    }
}

void hv_gpa_space_free(struct hv_partition *partition)
{
    struct hv_gpa_space *space = partition->gpa_space;

    if (!space)
        return;
    if (space->top)
        hv_gpa_clear(space);
    leave_family(space);
    hv_gpa_table_free(space);
    free_overlays(atomic_load(&space->overlays));
    free_overlays(space->spare);
    free_overlays(space->retired);
    free(space);
    partition->gpa_space = NULL;
}

void hv_gpa_space_reset(struct hv_partition *root)
{
    hv_gpa_clear(root->gpa_space);
}

bool hv_get_gpa_space_state(struct hv *hv, hv_partition_id id, struct hv_gpa_space_state *state)
{
    const struct hv_partition *partition;

    memset(state, 0, sizeof(*state));
    hv_structure_lock_read(&hv->structure);
    partition = hv_find_partition(hv, id);
    if (partition && partition->gpa_space) {
        state->bytes = atomic_load(&partition->gpa_space->bytes);
        state->mapped_pages = hv_gpa_mapped_pages(partition);
    }
    hv_structure_lock_drop(&hv->structure);
    return partition != NULL;
}

uint64_t hv_gpa_changes(const struct hv_vp *vp)
{
    const struct hv_partition *partition = vp->partition;
    uint64_t changes = 0;

    for (; partition && partition->gpa_space; partition = partition->parent)
        changes += atomic_load_explicit(&partition->gpa_space->changes, memory_order_acquire);
    return changes;
}

void hv_gpa_flush(struct hv_vp *caller, struct hv_partition *partition)
{
    struct hv_vp_set handles;

    HV_COUNT_PARTITION(partition, VirtualTlbFlushEntries, 1);
    hv_partition_tree_vps(partition, &handles);
    hv_flush_second_stage(partition->hv, caller, &handles);
}

void hv_flush_second_stage(struct hv *hv, struct hv_vp *caller, const struct hv_vp_set *handles)
{
    atomic_fetch_add(&hv->translation_epoch, 1);
    hv->ops->flush_second_stage(hv->context, caller ? caller->handle : HV_ANY_VP, handles);
}

/* -- Translation -- */

static void shrink(struct hv_translation *out, unsigned shift)
{
    uint64_t size = UINT64_C(1) << (shift < 63 - HV_PAGE_SHIFT ? shift + HV_PAGE_SHIFT : 63);

    if (size < out->size)
        out->size = size;
}

/* The child's xAPIC page is nearest to its processor, so it is on top of overlay pages. */
static bool translate_apic(const struct hv_vp *vp, uint64_t page, struct hv_translation *out)
{
    hv_gpa apic = vp && vp->lapic ? hv_lapic_page(vp) : HV_LAPIC_NO_PAGE;

    if (apic == HV_LAPIC_NO_PAGE)
        return false;
    if (apic >> HV_PAGE_SHIFT != page) {
        shrink(out, shift_without(page, apic >> HV_PAGE_SHIFT));
        return false;
    }
    out->kind = HV_TRANSLATION_APIC;
    out->rights = HV_ACCESS_READ | HV_ACCESS_WRITE;
    out->size = HV_PAGE_SIZE;
    return true;
}

static bool is_stats_page(enum hv_overlay_kind kind)
{
    return kind >= HV_OVERLAY_STATS_MSR && kind != HV_OVERLAY_MONITOR;
}

static bool translate_overlay(const struct hv_gpa_space *space, uint64_t page, unsigned access,
                              struct hv_translation *out)
{
    struct overlay_view view = overlay_at(space, page);

    shrink(out, view.shift);
    if (!view.page)
        return false;
    out->kind = HV_TRANSLATION_OVERLAY;
    out->page = view.page;
    out->rights = HV_ACCESS_ALL;
    if (view.kind == HV_OVERLAY_HYPERCALL) {
        out->rights = HV_ACCESS_READ | HV_ACCESS_EXECUTE;
        if (access & HV_ACCESS_WRITE)
            out->kind = HV_TRANSLATION_FAULT;
    } else if (is_stats_page(view.kind)) {
        out->rights = HV_ACCESS_READ | HV_ACCESS_EXECUTE;
        if (access & HV_ACCESS_WRITE)
            out->kind = HV_TRANSLATION_CHECK;
    }
    return true;
}

/* Buffers of the event log, for the root to read (TLFS 19.1.6). */
static bool translate_event_log(const struct hv_partition *partition, uint64_t page, struct hv_translation *out)
{
    uint64_t first;

    if (!partition->is_root)
        return false;
    first = hv_event_log_first_page(partition->hv);
    out->page = hv_event_log_page(partition->hv, page);
    if (!out->page) {
        /* Behind there, each slot is looked at on its own, and each page of one that is in use. */
        shrink(out, page < first ? shift_without(page, first) : hv_event_log_shift(partition->hv, page));
        return false;
    }
    out->kind = HV_TRANSLATION_OVERLAY;
    out->rights = HV_ACCESS_READ;
    out->size = HV_PAGE_SIZE;
    return true;
}

/* Follow a page up the tree to its SPA. */
static enum hv_translation_kind translate_page(const struct hv_partition *partition, uint64_t page,
                                               struct hv_translation *out)
{
    const struct hv_partition *at = partition;
    struct hv_gpa_entry entry;

    for (; !at->is_root; at = at->parent) {
        entry = hv_gpa_lookup(at->gpa_space, page);
        shrink(out, entry.shift);
        if (!entry.value)
            return HV_TRANSLATION_UNMAPPED;
        if (entry.value & (HV_GPA_NO_SOURCE | HV_GPA_DEPOSITED))
            return HV_TRANSLATION_DENIED;
        out->rights &= hv_gpa_entry_rights(entry.value);
        page = hv_gpa_entry_source(entry.value);
    }
    out->spa = page << HV_PAGE_SHIFT;
    entry = hv_gpa_lookup(at->gpa_space, page);
    shrink(out, entry.shift);
    if (entry.value & HV_GPA_DEPOSITED)
        return HV_TRANSLATION_DENIED;
    if (entry.value && at == partition)
        out->rights &= hv_gpa_entry_rights(entry.value);
    return HV_TRANSLATION_RAM;
}

/* As a VP sees it, or without one as all of them do. */
static void translate(const struct hv_partition *partition, const struct hv_vp *vp, hv_gpa gpa, unsigned access,
                      struct hv_translation *out)
{
    uint64_t page = gpa >> HV_PAGE_SHIFT;

    *out = (struct hv_translation){.rights = HV_ACCESS_ALL, .size = UINT64_C(1) << 63};
    if (gpa >= partition->hv->gpa_limit) {
        out->kind = HV_TRANSLATION_UNMAPPED;
        out->size = HV_PAGE_SIZE;
    } else if (!partition->gpa_space) {
        out->kind = HV_TRANSLATION_RAM;
        out->spa = page << HV_PAGE_SHIFT;
    } else if (!translate_apic(vp, page, out) && !translate_overlay(partition->gpa_space, page, access, out) &&
               !translate_event_log(partition, page, out)) {
        out->kind = translate_page(partition, page, out);
    }
    if (out->kind == HV_TRANSLATION_UNMAPPED || out->kind == HV_TRANSLATION_DENIED)
        out->rights = 0;
    else if (out->kind != HV_TRANSLATION_FAULT && out->kind != HV_TRANSLATION_CHECK && (access & ~out->rights))
        out->kind = HV_TRANSLATION_DENIED;
}

void hv_translate_gpa(struct hv_vp *vp, hv_gpa gpa, unsigned access, struct hv_translation *out)
{
    translate(vp->partition, vp, gpa, access, out);
}

/* -- Memory as a VP sees it -- */

static enum hv_gpa_result result_of(const struct hv_translation *translation)
{
    switch (translation->kind) {
    case HV_TRANSLATION_RAM:
    case HV_TRANSLATION_OVERLAY:
        return HV_GPA_OK;
    case HV_TRANSLATION_DENIED:
    case HV_TRANSLATION_FAULT:
    case HV_TRANSLATION_CHECK:
        return HV_GPA_NO_ACCESS;
    default:
        return HV_GPA_UNMAPPED;
    }
}

static uint8_t *byte_of(const struct hv_translation *translation, hv_gpa gpa)
{
    return translation->page + gpa % HV_PAGE_SIZE;
}

static hv_gpa spa_of(const struct hv_translation *translation, hv_gpa gpa)
{
    return translation->spa + gpa % HV_PAGE_SIZE;
}

/*
 * Hypercalls have their parameters on few pages again and again. What was found for the VP, by whoever owned it, holds
 * until anything is taken from anybody: then the epoch changes, before it is waited for that VPs leave the hypervisor.
 */
static void translate_again(struct hv_vp *vp, hv_gpa gpa, unsigned access, struct hv_translation *out)
{
    uint64_t page = gpa >> HV_PAGE_SHIFT,
             epoch = atomic_load_explicit(&vp->hv->translation_epoch, memory_order_acquire);
    struct hv_known_page *known = &vp->known_pages[page % HV_KNOWN_PAGES];

    if (known->page == page && known->epoch == epoch && !(access & ~known->rights)) {
        out->kind = HV_TRANSLATION_RAM;
        out->spa = known->spa;
        return;
    }
    hv_translate_gpa(vp, gpa, access, out);
    if (out->kind == HV_TRANSLATION_RAM)
        *known = (struct hv_known_page){.page = page, .epoch = epoch, .rights = out->rights, .spa = out->spa};
}

enum hv_gpa_result hv_read_gpa(struct hv_vp *vp, hv_gpa gpa, void *buffer, size_t size)
{
    struct hv_translation translation;

    if (!vp->partition->second_stage)
        return vp->hv->ops->read_gpa(vp->hv->context, vp->handle, gpa, buffer, size);
    translate_again(vp, gpa, HV_ACCESS_READ, &translation);
    if (translation.kind == HV_TRANSLATION_RAM)
        return vp->hv->ops->read_gpa(vp->hv->context, vp->handle, spa_of(&translation, gpa), buffer, size);
    if (translation.kind == HV_TRANSLATION_OVERLAY)
        memcpy(buffer, byte_of(&translation, gpa), size);
    return result_of(&translation);
}

enum hv_gpa_result hv_partition_read_gpa(struct hv_partition *partition, hv_gpa gpa, void *buffer, size_t size)
{
    const struct hv *hv = partition->hv;
    struct hv_translation translation;

    if (!partition->second_stage)
        return hv->ops->read_gpa(hv->context, 0, gpa, buffer, size);
    translate(partition, NULL, gpa, HV_ACCESS_READ, &translation);
    if (translation.kind == HV_TRANSLATION_RAM)
        return hv->ops->read_gpa(hv->context, 0, spa_of(&translation, gpa), buffer, size);
    if (translation.kind == HV_TRANSLATION_OVERLAY)
        memcpy(buffer, byte_of(&translation, gpa), size);
    return result_of(&translation);
}

enum hv_gpa_result hv_partition_write_gpa(struct hv_partition *partition, hv_gpa gpa, const void *buffer, size_t size)
{
    const struct hv *hv = partition->hv;
    struct hv_translation translation;

    if (!partition->second_stage)
        return hv->ops->write_gpa(hv->context, 0, gpa, buffer, size);
    translate(partition, NULL, gpa, HV_ACCESS_WRITE, &translation);
    if (translation.kind == HV_TRANSLATION_RAM)
        return hv->ops->write_gpa(hv->context, 0, spa_of(&translation, gpa), buffer, size);
    if (translation.kind == HV_TRANSLATION_OVERLAY)
        memcpy(byte_of(&translation, gpa), buffer, size);
    return result_of(&translation);
}

enum hv_gpa_result hv_write_gpa(struct hv_vp *vp, hv_gpa gpa, const void *buffer, size_t size)
{
    struct hv_translation translation;

    if (!vp->partition->second_stage)
        return vp->hv->ops->write_gpa(vp->hv->context, vp->handle, gpa, buffer, size);
    translate_again(vp, gpa, HV_ACCESS_WRITE, &translation);
    if (translation.kind == HV_TRANSLATION_RAM)
        return vp->hv->ops->write_gpa(vp->hv->context, vp->handle, spa_of(&translation, gpa), buffer, size);
    if (translation.kind == HV_TRANSLATION_OVERLAY)
        memcpy(byte_of(&translation, gpa), buffer, size);
    return result_of(&translation);
}

enum hv_gpa_result hv_lock_write_gpa(struct hv_vp *vp, hv_gpa gpa, size_t size, struct hv_translation *place)
{
    if (!vp->partition->second_stage)
        return vp->hv->ops->probe_write(vp->hv->context, vp->handle, gpa, size);
    translate_again(vp, gpa, HV_ACCESS_WRITE, place);
    if (place->kind == HV_TRANSLATION_RAM)
        return vp->hv->ops->probe_write(vp->hv->context, vp->handle, spa_of(place, gpa), size);
    return result_of(place);
}

void hv_write_locked_gpa(struct hv_vp *vp, const struct hv_translation *place, hv_gpa gpa, const void *buffer,
                         size_t size)
{
    if (!vp->partition->second_stage)
        vp->hv->ops->write_gpa(vp->hv->context, vp->handle, gpa, buffer, size);
    else if (place->kind == HV_TRANSLATION_RAM)
        vp->hv->ops->write_gpa(vp->hv->context, vp->handle, spa_of(place, gpa), buffer, size);
    else if (place->kind == HV_TRANSLATION_OVERLAY)
        memcpy(byte_of(place, gpa), buffer, size);
}

/* -- Pages for memory pools (TLFS 7.3) -- */

unsigned hv_gpa_count_memory(const struct hv_partition *partition, uint64_t page, unsigned count)
{
    const struct hv *hv = partition->hv;
    unsigned found = 0;

    if (hv->ops->memory_pages)
        return (unsigned)hv->ops->memory_pages(hv->context, page << HV_PAGE_SHIFT, count);
    while (found < count && hv->ops->probe_write(hv->context, 0, (page + found) << HV_PAGE_SHIFT, 1) == HV_GPA_OK)
        found++;
    return found;
}

/* The SPA's page under one of a partition, if it is there and can be reached with all rights. */
static bool find_own_page(const struct hv_partition *partition, uint64_t page, uint64_t *spa_page)
{
    struct hv_translation translation = {.rights = HV_ACCESS_ALL, .size = HV_PAGE_SIZE};

    if (page >= partition->hv->gpa_limit >> HV_PAGE_SHIFT)
        return false;
    if (translate_page(partition, page, &translation) != HV_TRANSLATION_RAM || translation.rights != HV_ACCESS_ALL)
        return false;
    *spa_page = translation.spa >> HV_PAGE_SHIFT;
    return hv_gpa_count_memory(partition, *spa_page, 1) == 1;
}

hv_status hv_gpa_take_page(struct hv_partition *depositor, uint64_t gpa_page)
{
    hv_status status = HV_STATUS_OPERATION_DENIED;
    uint64_t spa_page;

    if (depositor->is_root && hv_event_log_page(depositor->hv, gpa_page))
        return HV_STATUS_OBJECT_IN_USE;
    hv_partition_lock_take(&depositor->lock);
    if (find_own_page(depositor, gpa_page, &spa_page) && hv_gpa_use_count(depositor->gpa_space, gpa_page) == 0)
        status = hv_gpa_set_deposited(depositor->gpa_space, gpa_page, true);
    if (status == HV_STATUS_SUCCESS)
        HV_COUNT_PARTITION(depositor, GpaSpaceModifications, 1);
    hv_partition_lock_drop(&depositor->lock);
    return status;
}

/* A page of the depositor's that is in a pool. */
static void zero_page(const struct hv_partition *depositor, uint64_t page)
{
    static const uint8_t zeros[HV_PAGE_SIZE];
    const struct hv *hv = depositor->hv;

    if (!depositor->is_root) {
        struct hv_translation translation = {.rights = HV_ACCESS_ALL, .size = HV_PAGE_SIZE};
        uint64_t source = hv_gpa_entry_source(hv_gpa_lookup(depositor->gpa_space, page).value);

        if (translate_page(depositor->parent, source, &translation) != HV_TRANSLATION_RAM)
            return; /* an ancestor has taken it away */
        page = translation.spa >> HV_PAGE_SHIFT;
    }
    hv->ops->write_gpa(hv->context, 0, page << HV_PAGE_SHIFT, zeros, sizeof(zeros));
}

void hv_gpa_give_page(struct hv_partition *depositor, uint64_t gpa_page)
{
    hv_partition_lock_take(&depositor->lock);
    zero_page(depositor, gpa_page);
    hv_gpa_set_deposited(depositor->gpa_space, gpa_page, false);
    HV_COUNT_PARTITION(depositor, GpaSpaceModifications, 1);
    hv_partition_lock_drop(&depositor->lock);
}

uint64_t hv_gpa_mapped_pages(const struct hv_partition *partition)
{
    return partition->parent && partition->gpa_space ? atomic_load(&partition->gpa_space->mapped_pages) : 0;
}
