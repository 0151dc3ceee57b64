/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The virtual MMU (TLFS chapter 12): flushes of QEMU's software TLBs, which know no address space and no global pages.
 *
 * A VP flushes its own TLB at once. With a thread per VP the others are given the flush as work, and the caller's
 * instruction does not retire before they have left the guest and so will do that work before they go on.
 */
#include "module.h"

#include "exec/cpu-common.h"
#include "exec/cputlb.h"
#include "exec/exec-all.h"
#include "hw/core/cpu.h"
#include "system/tcg.h"

/* More pages than this, all together, and flushing everything is cheaper. */
#define MAXIMUM_PAGES 64

struct page_list {
    unsigned users;
    unsigned count;
    vaddr pages[MAXIMUM_PAGES];
};

static void flush_page_list(CPUState *cs, const struct page_list *list)
{
    for (unsigned i = 0; i < list->count; i++)
        tlb_flush_page(cs, list->pages[i]);
}

static void flush_page_list_work(CPUState *cs, run_on_cpu_data data)
{
    struct page_list *list = data.host_ptr;

    flush_page_list(cs, list);
    if (qatomic_fetch_dec(&list->users) == 1)
        g_free(list);
}

static void flush_all_work(CPUState *cs, run_on_cpu_data data)
{
    tlb_flush(cs);
}

static bool next_vp(const struct hv_vp_set *set, hv_vp_index *vp)
{
    for (hv_vp_index i = *vp; i < HV_MAX_VPS; i++) {
        uint64_t rest = set->bank[i / 64] >> (i % 64);

        if (!rest) {
            i |= 63; /* the next bank */
            continue;
        }
        *vp = i + (unsigned)ctz64(rest);
        return true;
    }
    return false;
}

/* Flush `list` of the VPs in `set`, or everything when it is NULL. */
static void flush(MicrosoftHypervisor *s, hv_vp_handle caller, const struct hv_vp_set *set,
                  const struct page_list *list)
{
    bool own_threads = qemu_tcg_mttcg_enabled();
    struct page_list *shared = NULL;
    struct mshv_vp *self = mshv_vp(s, caller);

    self->leave = true;
    for (hv_vp_handle i = 0; next_vp(set, &i); i++) {
        struct mshv_vp *vp = mshv_vp(s, i);
        CPUState *cs;

        if (!mshv_cpu_is_there(vp))
            continue;
        cs = CPU(vp->cpu);
        if (i == caller || !own_threads) {
            if (list)
                flush_page_list(cs, list);
            else
                tlb_flush(cs);
            continue;
        }
        if (list) {
            if (!shared) {
                shared = g_memdup2(list, sizeof(*list));
                shared->users = 1; /* this loop */
            }
            qatomic_inc(&shared->users);
            async_run_on_cpu(cs, flush_page_list_work, RUN_ON_CPU_HOST_PTR(shared));
        } else {
            async_run_on_cpu(cs, flush_all_work, RUN_ON_CPU_NULL);
        }
        mshv_complete_before_retiring(self);
    }
    if (shared && qatomic_fetch_dec(&shared->users) == 1)
        g_free(shared);
}

void mshv_flush_tlb(void *context, hv_vp_handle caller, const struct hv_vp_set *set, bool keep_global)
{
    flush(context, caller, set, NULL);
}

/* Returns false when there are too many. */
static bool list_pages(const struct hv_gva_range *ranges, size_t count, struct page_list *list)
{
    list->count = 0;
    for (size_t i = 0; i < count; i++) {
        if (ranges[i].count > MAXIMUM_PAGES - list->count)
            return false;
        for (uint32_t page = 0; page < ranges[i].count; page++)
            list->pages[list->count++] = ranges[i].gva + (vaddr)page * HV_PAGE_SIZE;
    }
    return true;
}

void mshv_flush_tlb_ranges(void *context, hv_vp_handle caller, const struct hv_vp_set *set,
                           const struct hv_gva_range *ranges, size_t count)
{
    struct page_list list;

    flush(context, caller, set, list_pages(ranges, count, &list) ? &list : NULL);
}

void mshv_set_cr3(void *context, hv_vp_handle vp, uint64_t cr3)
{
    MicrosoftHypervisor *s = context;
    struct mshv_vp *self = mshv_vp(s, vp);

    cpu_x86_update_cr3(&self->cpu->env, cr3);
    self->leave = true;
}
