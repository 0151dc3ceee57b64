/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 12 (guest side): address space switches and TLB flushes; the later forms that take sets of VPs.
 */
#include "internal.h"

#include <string.h>

/* Input of HvFlushVirtualAddressSpace and the header of ...List (TLFS 12.4.2, 12.4.3). */
struct flush_input {
    uint64_t address_space;
    uint64_t flags;
    uint64_t processor_mask;
};

/* The same of the Ex forms: a sparse set of VPs, whose banks are the variable header. */
struct flush_ex_input {
    uint64_t address_space;
    uint64_t flags;
    uint64_t format;
    uint64_t bank_mask;
};

/* A CR3 value with bits beyond the address width is not an address space (TLFS 12.3.1). */
static bool address_space_is_valid(const struct hv *hv, uint64_t address_space)
{
    return address_space < hv->gpa_limit;
}

/* TLFS 12.4.1 */
hv_status hv_call_switch_virtual_address_space(struct hv_call *call)
{
    struct hv_vp *vp = call->vp;
    uint64_t address_space = *(const uint64_t *)call->input;

    if (!address_space_is_valid(vp->hv, address_space))
        return HV_STATUS_INVALID_PARAMETER;
    vp->hv->ops->set_cr3(vp->hv->context, vp->index, address_space);
    return HV_STATUS_SUCCESS;
}

static hv_status check_flush(const struct hv *hv, uint64_t address_space, uint64_t flags, uint64_t allowed)
{
    if (flags & ~allowed)
        return HV_STATUS_INVALID_PARAMETER;
    if (!(flags & HV_FLUSH_ALL_VIRTUAL_ADDRESS_SPACES) && !address_space_is_valid(hv, address_space))
        return HV_STATUS_INVALID_PARAMETER;
    return HV_STATUS_SUCCESS;
}

static hv_status flush_targets(const struct hv_call *call, const struct flush_input *in, struct hv_vp_set *set)
{
    const struct hv *hv = call->vp->hv;

    if (in->flags & HV_FLUSH_ALL_PROCESSORS) {
        *set = hv->all_vps;
        return HV_STATUS_SUCCESS;
    }
    if (in->processor_mask == 0)
        return HV_STATUS_INVALID_PARAMETER;
    memset(set, 0, sizeof(*set));
    set->bank[0] = in->processor_mask;
    hv_keep_existing_vps(hv, set);
    return HV_STATUS_SUCCESS;
}

static hv_status flush_ex_targets(const struct hv_call *call, const struct flush_ex_input *in, struct hv_vp_set *set)
{
    if (in->flags & HV_FLUSH_ALL_PROCESSORS) {
        *set = call->vp->hv->all_vps;
        return HV_STATUS_SUCCESS;
    }
    if (in->format == HV_VP_SET_SPARSE && in->bank_mask == 0)
        return HV_STATUS_INVALID_PARAMETER;
    return hv_read_vp_set(call, in->format, in->bank_mask, set);
}

#define SPACE_FLAGS (HV_FLUSH_ALL_PROCESSORS | HV_FLUSH_ALL_VIRTUAL_ADDRESS_SPACES | HV_FLUSH_NON_GLOBAL_MAPPINGS_ONLY)
#define LIST_FLAGS (HV_FLUSH_ALL_PROCESSORS | HV_FLUSH_ALL_VIRTUAL_ADDRESS_SPACES)

static void flush_space(const struct hv_call *call, uint64_t flags, const struct hv_vp_set *set)
{
    const struct hv_vp *vp = call->vp;

    vp->hv->ops->flush_tlb(vp->hv->context, vp->index, set, flags & HV_FLUSH_NON_GLOBAL_MAPPINGS_ONLY);
}

/* Flush the next elements of the list; the dispatcher runs the call again for the rest (TLFS 4.3). */
static void flush_list(struct hv_call *call, const struct hv_vp_set *set)
{
    const struct hv_vp *vp = call->vp;
    const uint64_t *list = call->elements;
    struct hv_gva_range ranges[HV_REP_BUDGET];
    unsigned n = 0;

    while (call->reps_done < call->rep_count && n < HV_REP_BUDGET) {
        uint64_t range = list[call->reps_done++];

        ranges[n++] = (struct hv_gva_range){.gva = range & HV_PAGE_MASK, .count = (uint32_t)(range & 0xFFF) + 1};
    }
    vp->hv->ops->flush_tlb_ranges(vp->hv->context, vp->index, set, ranges, n);
}

/* TLFS 12.4.2 */
hv_status hv_call_flush_virtual_address_space(struct hv_call *call)
{
    const struct flush_input *in = call->input;
    struct hv_vp_set set;
    hv_status status = check_flush(call->vp->hv, in->address_space, in->flags, SPACE_FLAGS);

    if (status == HV_STATUS_SUCCESS)
        status = flush_targets(call, in, &set);
    if (status == HV_STATUS_SUCCESS)
        flush_space(call, in->flags, &set);
    return status;
}

/* TLFS 12.4.3 */
hv_status hv_call_flush_virtual_address_list(struct hv_call *call)
{
    const struct flush_input *in = call->input;
    struct hv_vp_set set;
    hv_status status = check_flush(call->vp->hv, in->address_space, in->flags, LIST_FLAGS);

    if (status == HV_STATUS_SUCCESS)
        status = flush_targets(call, in, &set);
    if (status == HV_STATUS_SUCCESS)
        flush_list(call, &set);
    return status;
}

hv_status hv_call_flush_virtual_address_space_ex(struct hv_call *call)
{
    const struct flush_ex_input *in = call->input;
    struct hv_vp_set set;
    hv_status status = check_flush(call->vp->hv, in->address_space, in->flags, SPACE_FLAGS);

    if (status == HV_STATUS_SUCCESS)
        status = flush_ex_targets(call, in, &set);
    if (status == HV_STATUS_SUCCESS)
        flush_space(call, in->flags, &set);
    return status;
}

hv_status hv_call_flush_virtual_address_list_ex(struct hv_call *call)
{
    const struct flush_ex_input *in = call->input;
    struct hv_vp_set set;
    hv_status status = check_flush(call->vp->hv, in->address_space, in->flags, LIST_FLAGS);

    if (status == HV_STATUS_SUCCESS)
        status = flush_ex_targets(call, in, &set);
    if (status == HV_STATUS_SUCCESS)
        flush_list(call, &set);
    return status;
}
