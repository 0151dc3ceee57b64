/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The core's access to guest memory, which never reaches a device.
 *
 * Hypercalls read their parameters through here, so each VP remembers where the pages it used last are. A change of the
 * memory map makes all of that invalid: the generation is read before the map is, and memory that goes away stays
 * valid until this thread leaves its RCU read-side critical section.
 */
#include "module.h"

#include "exec/address-spaces.h"
#include "exec/ram_addr.h"
#include "qemu/rcu.h"
#include "system/tcg.h"

static void memory_map_changed(MemoryListener *listener)
{
    MicrosoftHypervisor *s = container_of(listener, MicrosoftHypervisor, listener);

    qatomic_store_release(&s->memory_generation, s->memory_generation + 1);
}

void mshv_guest_memory_init(MicrosoftHypervisor *s)
{
    s->listener = (MemoryListener){.name = "microsoft-hypervisor", .commit = memory_map_changed};
    memory_listener_register(&s->listener, &address_space_memory);
}

/* Called in an RCU read-side critical section. */
static void find_page(MicrosoftHypervisor *s, uint64_t page, struct mshv_cached_page *found)
{
    hwaddr offset, length = HV_PAGE_SIZE;
    MemoryRegion *region;

    found->generation = qatomic_load_acquire(&s->memory_generation);
    found->page = page;
    found->valid = true;
    region = address_space_translate(&address_space_memory, page, &offset, &length, false, MEMTXATTRS_UNSPECIFIED);
    if (length < HV_PAGE_SIZE || !memory_access_is_direct(region, false, MEMTXATTRS_UNSPECIFIED)) {
        found->host = NULL;
        return;
    }
    found->region = region;
    found->offset = offset;
    found->host = (uint8_t *)memory_region_get_ram_ptr(region) + offset;
    found->writable = memory_access_is_direct(region, true, MEMTXATTRS_UNSPECIFIED);
}

/* Where a VP finds what it uses, on its own thread. Called in an RCU read-side critical section. */
static inline const struct mshv_cached_page *look_up_own(MicrosoftHypervisor *s, struct mshv_vp *vp, hv_gpa gpa)
{
    struct mshv_cached_page *entry = &vp->pages[(gpa >> HV_PAGE_SHIFT) % MSHV_PAGE_CACHE_SIZE];

    if (unlikely(!entry->valid || entry->page != (gpa & HV_PAGE_MASK) ||
                 entry->generation != qatomic_load_acquire(&s->memory_generation)))
        find_page(s, gpa & HV_PAGE_MASK, entry);
    return entry;
}

/* The VP if TCG executes it on this thread, which is in such a section then; or NULL. */
static inline struct mshv_vp *executed_here(MicrosoftHypervisor *s, hv_vp_handle handle)
{
    struct mshv_vp *vp = mshv_current_vp(s);

    return likely(vp && vp->handle == handle && vp->running && tcg_enabled()) ? vp : NULL;
}

/* For all other threads, which `scratch` is for. Called in an RCU read-side critical section. */
static const struct mshv_cached_page *look_up(MicrosoftHypervisor *s, hv_vp_handle handle, hv_gpa gpa,
                                              struct mshv_cached_page *scratch)
{
    struct mshv_vp *vp = mshv_current_vp(s);

    if (vp && vp->handle == handle)
        return look_up_own(s, vp, gpa);
    find_page(s, gpa & HV_PAGE_MASK, scratch);
    return scratch;
}

static enum hv_gpa_result read_page(const struct mshv_cached_page *page, hv_gpa gpa, void *buffer, size_t size)
{
    if (!page->host)
        return HV_GPA_UNMAPPED;
    memcpy(buffer, page->host + (gpa & ~HV_PAGE_MASK), size);
    return HV_GPA_OK;
}

enum hv_gpa_result mshv_read_gpa(void *context, hv_vp_handle handle, hv_gpa gpa, void *buffer, size_t size)
{
    struct mshv_vp *vp = executed_here(context, handle);
    struct mshv_cached_page scratch;

    if (vp)
        return read_page(look_up_own(context, vp, gpa), gpa, buffer, size);
    RCU_READ_LOCK_GUARD();
    return read_page(look_up(context, handle, gpa, &scratch), gpa, buffer, size);
}

/*
 * As if it had been mapped for writing: marks the memory dirty and invalidates code translated from it. There is seldom
 * anything left to mark.
 */
static void note_written(const struct mshv_cached_page *page, uint8_t *host, size_t size)
{
    ram_addr_t address = memory_region_get_ram_addr(page->region) + page->offset + (host - page->host);
    uint8_t clients = memory_region_get_dirty_log_mask(page->region);

    if (!cpu_physical_memory_range_includes_clean(address, size, clients))
        return;
    memory_region_ref(page->region);
    address_space_unmap(&address_space_memory, host, size, true, size);
}

static enum hv_gpa_result write_page(const struct mshv_cached_page *page, hv_gpa gpa, const void *buffer, size_t size)
{
    uint8_t *to;

    if (!page->host)
        return HV_GPA_UNMAPPED;
    if (!page->writable)
        return HV_GPA_NO_ACCESS;
    to = page->host + (gpa & ~HV_PAGE_MASK);
    memcpy(to, buffer, size);
    note_written(page, to, size);
    return HV_GPA_OK;
}

enum hv_gpa_result mshv_write_gpa(void *context, hv_vp_handle handle, hv_gpa gpa, const void *buffer, size_t size)
{
    struct mshv_vp *vp = executed_here(context, handle);
    struct mshv_cached_page scratch;

    if (vp)
        return write_page(look_up_own(context, vp, gpa), gpa, buffer, size);
    RCU_READ_LOCK_GUARD();
    return write_page(look_up(context, handle, gpa, &scratch), gpa, buffer, size);
}

static enum hv_gpa_result probe_page(const struct mshv_cached_page *page)
{
    if (!page->host)
        return HV_GPA_UNMAPPED;
    return page->writable ? HV_GPA_OK : HV_GPA_NO_ACCESS;
}

enum hv_gpa_result mshv_probe_write(void *context, hv_vp_handle handle, hv_gpa gpa, size_t size)
{
    struct mshv_vp *vp = executed_here(context, handle);
    struct mshv_cached_page scratch;

    if (vp)
        return probe_page(look_up_own(context, vp, gpa));
    RCU_READ_LOCK_GUARD();
    return probe_page(look_up(context, handle, gpa, &scratch));
}

uint64_t mshv_memory_pages(void *context, hv_gpa gpa, uint64_t most)
{
    hwaddr offset, length = most << HV_PAGE_SHIFT;
    MemoryRegion *region;

    RCU_READ_LOCK_GUARD();
    region = address_space_translate(&address_space_memory, gpa, &offset, &length, true, MEMTXATTRS_UNSPECIFIED);
    return memory_access_is_direct(region, true, MEMTXATTRS_UNSPECIFIED) ? length >> HV_PAGE_SHIFT : 0;
}
