/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Overlay pages (TLFS 8.1.3): memory regions laid over everything else in the guest physical address space.
 *
 * A region is made when its page is shown for the first time; after that it is moved, shown and hidden. The pages are
 * part of the core's state, so they are not migrated as RAM.
 */
#include "module.h"

#include "exec/address-spaces.h"
#include "exec/cpu-common.h"
#include "exec/cputlb.h"
#include "exec/exec-all.h"
#include "exec/ram_addr.h"
#include "hw/core/cpu.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "system/kvm.h"
#include "system/tcg.h"
#include "tcg/helper-tcg.h"
#include "trace.h"

#define OVERLAY_PRIORITY 0x100000 /* above all regions of a machine */

/*
 * Devices' writes are dropped: they may be made by a processor's thread, in the middle of another instruction's access,
 * but do not carry a processor's attributes.
 */
static bool by_processor(MemTxAttrs attrs)
{
    return current_cpu && current_cpu->running && !attrs.unspecified;
}

/* TLFS 4.12: writing to the hypercall page is #GP. */
static MemTxResult hypercall_page_write(void *opaque, hwaddr addr, uint64_t data, unsigned size, MemTxAttrs attrs)
{
    CPUState *cs = current_cpu;

    if (!by_processor(attrs))
        return MEMTX_OK;
    if (kvm_enabled())
        mshv_kvm_page_write(cs, X86_HYPERVISOR_GP);
    else
        raise_exception_err_ra(cpu_env(cs), EXCP0D_GPF, 0, cs->mem_io_pc);
    return MEMTX_OK;
}

/* TLFS 21.1.2, 19.1.6: writing to a statistics page or a buffer of the event log is #MC. */
static MemTxResult stats_page_write(void *opaque, hwaddr addr, uint64_t data, unsigned size, MemTxAttrs attrs)
{
    CPUState *cs = current_cpu;

    if (!by_processor(attrs))
        return MEMTX_OK;
    if (kvm_enabled())
        mshv_kvm_page_write(cs, X86_HYPERVISOR_MC);
    else
        raise_exception_ra(cpu_env(cs), EXCP12_MCHK, cs->mem_io_pc);
    return MEMTX_OK;
}

static const MemoryRegionOps stats_page_ops = {
    .write_with_attrs = stats_page_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = {.min_access_size = 1, .max_access_size = 8, .unaligned = true},
    .impl = {.min_access_size = 1, .max_access_size = 8, .unaligned = true},
};

static const MemoryRegionOps hypercall_page_ops = {
    .write_with_attrs = hypercall_page_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = {.min_access_size = 1, .max_access_size = 8, .unaligned = true},
    .impl = {.min_access_size = 1, .max_access_size = 8, .unaligned = true},
};

static const char *const overlay_names[HV_OVERLAY_KINDS] = {
    [HV_OVERLAY_HYPERCALL] = "hypercall-page",
    [HV_OVERLAY_REFERENCE_TSC] = "reference-tsc-page",
    [HV_OVERLAY_APIC_ASSIST] = "apic-assist-page",
    [HV_OVERLAY_SIEF] = "sief-page",
    [HV_OVERLAY_SIM] = "sim-page",
    [HV_OVERLAY_STATS_MSR] = "stats-partition-retail-page",
    [HV_OVERLAY_STATS_MSR + 1] = "stats-partition-internal-page",
    [HV_OVERLAY_STATS_MSR + 2] = "stats-vp-retail-page",
    [HV_OVERLAY_STATS_MSR + 3] = "stats-vp-internal-page",
    [HV_OVERLAY_STATS_OWN_PARTITION] = "stats-partition-page",
    [HV_OVERLAY_STATS_OWN_VP] = "stats-vp-page",
};

void mshv_init_code_page(MicrosoftHypervisor *s, MemoryRegion *region, const char *name, const void *page)
{
    memory_region_init_rom_device_nomigrate(region, OBJECT(s), &hypercall_page_ops, s, name, HV_PAGE_SIZE,
                                            &error_fatal);
    memcpy(memory_region_get_ram_ptr(region), page, HV_PAGE_SIZE);
}

/* Memory for reads, whose content the core changes; a device for writes. Never finalized, as overlays are not. */
void mshv_init_stats_page(MicrosoftHypervisor *s, MemoryRegion *region, const char *name, void *page)
{
    memory_region_init_io(region, OBJECT(s), &stats_page_ops, s, name, HV_PAGE_SIZE);
    region->rom_device = true;
    region->ram_block = qemu_ram_alloc_from_ptr(HV_PAGE_SIZE, page, region, &error_fatal);
}

static void create_region(MicrosoftHypervisor *s, struct mshv_overlay *overlay, enum hv_overlay_kind kind,
                          hv_vp_handle vp, void *page, enum hv_overlay_access access)
{
    g_autofree char *name = g_strdup_printf("microsoft-hypervisor-%s-%u", overlay_names[kind], vp);
    MemoryRegion *region = &overlay->region;

    if (access == HV_OVERLAY_READ_EXECUTE) {
        mshv_init_code_page(s, region, name, page); /* its content stays what it was when the core was made */
    } else if (access == HV_OVERLAY_READ_ONLY) {
        mshv_init_stats_page(s, region, name, page);
    } else {
        memory_region_init_ram_ptr(region, OBJECT(s), name, HV_PAGE_SIZE, page);
    }
    memory_region_set_enabled(region, false);
    memory_region_add_subregion_overlap(get_system_memory(), 0, region, OVERLAY_PRIORITY);
    overlay->created = true;
}

/* Make the memory map what is wanted. Called with the BQL held, and no CPU in the guest but perhaps the caller. */
static void show(struct mshv_overlay *overlay)
{
    if (overlay->shown == overlay->enabled && (!overlay->shown || overlay->region.addr == overlay->gpa))
        return;
    memory_region_transaction_begin();
    if (overlay->enabled)
        memory_region_set_address(&overlay->region, overlay->gpa);
    memory_region_set_enabled(&overlay->region, overlay->enabled);
    memory_region_transaction_commit();
    overlay->shown = overlay->enabled;
}

static void show_work(CPUState *cs, run_on_cpu_data data)
{
    CPUState *other;

    BQL_LOCK_GUARD();
    show(data.host_ptr);
    /* The commit has given this to all CPUs as work, but the others may accept an interrupt before they do it. */
    CPU_FOREACH(other)
    tlb_flush(other);
}

/*
 * QEMU's TLBs name the sections of a memory map by their numbers in the current one, so a map must not change while
 * another CPU executes guest code. With a thread per VP the change is made when all have left the guest, which is after
 * the calling instruction and before the next one; if several VPs move a page at once, the last one's wish is shown.
 */
void mshv_set_overlay(void *context, enum hv_overlay_kind kind, hv_vp_handle vp, void *page, bool enabled, hv_gpa gpa,
                      enum hv_overlay_access access)
{
    MicrosoftHypervisor *s = context;
    struct mshv_overlay *overlay = &mshv_vp(s, vp)->overlays[kind];
    struct mshv_vp *caller = mshv_current_vp(s);

    BQL_LOCK_GUARD();
    if (overlay->enabled == enabled && (!enabled || overlay->gpa == gpa))
        return;
    trace_microsoft_hypervisor_overlay(overlay_names[kind], vp, enabled, gpa);
    overlay->enabled = enabled;
    overlay->gpa = gpa;
    if (!overlay->created)
        create_region(s, overlay, kind, vp, page, access);
    if (!caller || !qemu_tcg_mttcg_enabled()) {
        show(overlay);
        if (caller && !kvm_enabled()) /* KVM changes its map at once for all CPUs */
            mshv_complete_before_retiring(caller);
        return;
    }
    caller->leave = true;
    async_safe_run_on_cpu(CPU(caller->cpu), show_work, RUN_ON_CPU_HOST_PTR(overlay));
}

/*
 * ENDBR64, VMCALL, RET: a caller may reach the page by an indirect call with branch tracking on; without it, and in
 * 32-bit code, ENDBR64 is a no-op.
 */
size_t mshv_hypercall_code(void *context, uint8_t *code)
{
    static const uint8_t call[] = {0xF3, 0x0F, 0x1E, 0xFA, 0x0F, 0x01, 0xC1, 0xC3};

    memcpy(code, call, sizeof(call));
    return sizeof(call);
}
