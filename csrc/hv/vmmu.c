/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 12: address space switches and TLB flushes, the later forms that take sets of VPs; and for parents,
 * translation of a child's GVAs and access to its memory as its VP would access it.
 */
#include "stats.h"

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
static bool address_space_is_valid(const struct hv_partition *partition, uint64_t address_space)
{
    return address_space < partition->hv->gpa_limit;
}

/* TLFS 12.4.1 */
hv_status hv_call_switch_virtual_address_space(struct hv_call *call)
{
    struct hv_vp *vp = call->vp;
    uint64_t address_space = *(const uint64_t *)call->input;

    if (!address_space_is_valid(vp->partition, address_space))
        return HV_STATUS_INVALID_PARAMETER;
    HV_COUNT(vp, AddressSpaceSwitches);
    HV_COUNT(vp, AddressSpaceEvictions);
    vp->hv->ops->set_cr3(vp->hv->context, vp->handle, address_space);
    return HV_STATUS_SUCCESS;
}

static hv_status check_flush(const struct hv_partition *partition, uint64_t address_space, uint64_t flags,
                             uint64_t allowed)
{
    if (flags & ~allowed)
        return HV_STATUS_INVALID_PARAMETER;
    if (!(flags & HV_FLUSH_ALL_VIRTUAL_ADDRESS_SPACES) && !address_space_is_valid(partition, address_space))
        return HV_STATUS_INVALID_PARAMETER;
    return HV_STATUS_SUCCESS;
}

static hv_status flush_targets(const struct hv_call *call, const struct flush_input *in, struct hv_vp_set *set)
{
    const struct hv_partition *partition = call->vp->partition;

    if (in->flags & HV_FLUSH_ALL_PROCESSORS) {
        *set = partition->all_vps;
        return HV_STATUS_SUCCESS;
    }
    if (in->processor_mask == 0)
        return HV_STATUS_INVALID_PARAMETER;
    memset(set, 0, sizeof(*set));
    set->bank[0] = in->processor_mask;
    hv_keep_existing_vps(partition, set);
    return HV_STATUS_SUCCESS;
}

static hv_status flush_ex_targets(const struct hv_call *call, const struct flush_ex_input *in, struct hv_vp_set *set)
{
    if (in->flags & HV_FLUSH_ALL_PROCESSORS) {
        *set = call->vp->partition->all_vps;
        return HV_STATUS_SUCCESS;
    }
    if (in->format == HV_VP_SET_SPARSE && in->bank_mask == 0)
        return HV_STATUS_INVALID_PARAMETER;
    return hv_read_vp_set(call, in->format, in->bank_mask, set);
}

/* -- Restrictions on TLB flushes (TLFS 12.1.4) -- */

static bool any_inhibits(const struct hv_partition *partition, const struct hv_vp_set *set)
{
    for (unsigned i = 0; i < partition->vp_banks; i++) {
        for (uint64_t bits = set->bank[i]; bits; bits &= bits - 1) {
            struct hv_vp *vp = hv_partition_vp(partition, i * 64 + (unsigned)__builtin_ctzll(bits));

            if (vp && atomic_load(&vp->tlb_flush_inhibit))
                return true;
        }
    }
    return false;
}

/* While software in the parent completes an instruction of a target, the caller is suspended in front of its call. */
static bool must_wait(struct hv_call *call, const struct hv_vp_set *set)
{
    struct hv_vp *vp = call->vp;

    if (!hv_vp_is_child(vp) || !any_inhibits(vp->partition, set))
        return false;
    atomic_fetch_or(&vp->suspend, HV_SUSPEND_TLB_FLUSH);
    /* What was cleared before that has nobody to wake any more. */
    if (!any_inhibits(vp->partition, set)) {
        hv_vp_clear_suspend(vp, HV_SUSPEND_TLB_FLUSH);
        return false;
    }
    call->exit = HV_EXIT_INTERCEPT;
    return true;
}

/* Those that still have somebody to wait for are suspended again when they come back to their call. */
void hv_tlb_flush_inhibit_cleared(struct hv_vp *vp)
{
    const struct hv_partition *partition = vp->partition;

    for (hv_vp_index i = 0; partition && i < partition->vp_limit; i++) {
        struct hv_vp *other = hv_partition_vp(partition, i);

        if (other)
            hv_vp_clear_suspend(other, HV_SUSPEND_TLB_FLUSH);
    }
}

/* -- Flushes -- */

#define SPACE_FLAGS (HV_FLUSH_ALL_PROCESSORS | HV_FLUSH_ALL_VIRTUAL_ADDRESS_SPACES | HV_FLUSH_NON_GLOBAL_MAPPINGS_ONLY)
#define LIST_FLAGS (HV_FLUSH_ALL_PROCESSORS | HV_FLUSH_ALL_VIRTUAL_ADDRESS_SPACES)

static void flush_space(const struct hv_call *call, uint64_t flags, const struct hv_vp_set *set)
{
    struct hv_vp *vp = call->vp;
    struct hv_vp_set handles;

    HV_LOG(vp, AM_GVA_FLUSH_VIRTUAL_TLB, vp->partition->id);
    if (flags & HV_FLUSH_ALL_VIRTUAL_ADDRESS_SPACES)
        HV_COUNT(vp, AddressDomainFlushes);
    else
        HV_COUNT(vp, AddressSpaceFlushes);
    HV_COUNT_PARTITION(vp->partition, VirtualTlbFlushEntries, 1);
    hv_vp_handles(vp->partition, set, &handles);
    vp->hv->ops->flush_tlb(vp->hv->context, vp->handle, &handles, flags & HV_FLUSH_NON_GLOBAL_MAPPINGS_ONLY);
}

/* Flush the next elements of the list; the dispatcher runs the call again for the rest (TLFS 4.3). */
static void flush_list(struct hv_call *call, uint64_t flags, const struct hv_vp_set *set)
{
    struct hv_vp *vp = call->vp;
    const uint64_t *list = call->elements;
    struct hv_gva_range ranges[HV_REP_BUDGET];
    struct hv_vp_set handles;
    unsigned n = 0;

    HV_LOG(vp, AM_GVA_FLUSH_VIRTUAL_TLB, vp->partition->id);
    hv_vp_handles(vp->partition, set, &handles);
    while (call->reps_done < call->rep_count && n < HV_REP_BUDGET) {
        uint64_t range = list[call->reps_done++];

        ranges[n++] = (struct hv_gva_range){.gva = range & HV_PAGE_MASK, .count = (uint32_t)(range & 0xFFF) + 1};
    }
    if (flags & HV_FLUSH_ALL_VIRTUAL_ADDRESS_SPACES)
        HV_COUNT_ADD(vp, GlobalGvaRangeFlushes, n);
    else
        HV_COUNT_ADD(vp, LocalFlushedGvaRanges, n);
    vp->hv->ops->flush_tlb_ranges(vp->hv->context, vp->handle, &handles, ranges, n);
}

/* TLFS 12.4.2 */
hv_status hv_call_flush_virtual_address_space(struct hv_call *call)
{
    const struct flush_input *in = call->input;
    struct hv_vp_set set;
    hv_status status = check_flush(call->vp->partition, in->address_space, in->flags, SPACE_FLAGS);

    if (status == HV_STATUS_SUCCESS)
        status = flush_targets(call, in, &set);
    if (status == HV_STATUS_SUCCESS && !must_wait(call, &set))
        flush_space(call, in->flags, &set);
    return status;
}

/* TLFS 12.4.3 */
hv_status hv_call_flush_virtual_address_list(struct hv_call *call)
{
    const struct flush_input *in = call->input;
    struct hv_vp_set set;
    hv_status status = check_flush(call->vp->partition, in->address_space, in->flags, LIST_FLAGS);

    if (status == HV_STATUS_SUCCESS)
        status = flush_targets(call, in, &set);
    if (status == HV_STATUS_SUCCESS && !must_wait(call, &set))
        flush_list(call, in->flags, &set);
    return status;
}

hv_status hv_call_flush_virtual_address_space_ex(struct hv_call *call)
{
    const struct flush_ex_input *in = call->input;
    struct hv_vp_set set;
    hv_status status = check_flush(call->vp->partition, in->address_space, in->flags, SPACE_FLAGS);

    if (status == HV_STATUS_SUCCESS)
        status = flush_ex_targets(call, in, &set);
    if (status == HV_STATUS_SUCCESS && !must_wait(call, &set))
        flush_space(call, in->flags, &set);
    return status;
}

hv_status hv_call_flush_virtual_address_list_ex(struct hv_call *call)
{
    const struct flush_ex_input *in = call->input;
    struct hv_vp_set set;
    hv_status status = check_flush(call->vp->partition, in->address_space, in->flags, LIST_FLAGS);

    if (status == HV_STATUS_SUCCESS)
        status = flush_ex_targets(call, in, &set);
    if (status == HV_STATUS_SUCCESS && !must_wait(call, &set))
        flush_list(call, in->flags, &set);
    return status;
}

/* -- For parents: as the child's VP would do it -- */

static hv_status find_target(const struct hv_call *call, uint32_t index, struct hv_vp **vp)
{
    if (!hv_partition_is_active(call->partition))
        return HV_STATUS_INVALID_PARTITION_STATE;
    *vp = hv_partition_vp(call->partition, index);
    return *vp ? HV_STATUS_SUCCESS : HV_STATUS_INVALID_VP_INDEX;
}

struct translate_input {
    hv_partition_id partition;
    uint32_t vp_index;
    uint32_t padding;
    uint64_t control_flags;
    uint64_t gva_page;
};

/* HV_TRANSLATE_GVA_RESULT_CODE (TLFS 12.3.4); the same in both generations. */
enum translate_code {
    TRANSLATE_SUCCESS = 0,
    TRANSLATE_PAGE_NOT_PRESENT = 1,
    TRANSLATE_PRIVILEGE_VIOLATION = 2,
    TRANSLATE_INVALID_PAGE_TABLE_FLAGS = 3,
    TRANSLATE_GPA_UNMAPPED = 4,
    TRANSLATE_GPA_NO_READ_ACCESS = 5,
    TRANSLATE_GPA_NO_WRITE_ACCESS = 6,
    TRANSLATE_GPA_ILLEGAL_OVERLAY_ACCESS = 7,
};

struct translate_output {
    uint32_t code;
    uint32_t flags; /* 7:0 cache type, 8 overlay page */
    uint64_t gpa_page;
};
#define TRANSLATE_OVERLAY_PAGE (1u << 8)

#define TRANSLATE_VALIDATE (HV_GVA_VALIDATE_READ | HV_GVA_VALIDATE_WRITE | HV_GVA_VALIDATE_EXECUTE)
#define TRANSLATE_FLAGS                                                                                                \
    (TRANSLATE_VALIDATE | HV_GVA_PRIVILEGE_EXEMPT | HV_GVA_SET_PAGE_TABLE_BITS | HV_GVA_TLB_FLUSH_INHIBIT)

/* Whether an overlay page, or the memory-mapped registers of the VP's local APIC, lie at a GPA. */
static bool is_overlaid(struct hv_vp *vp, hv_gpa gpa)
{
    struct hv_translation translation;

    hv_translate_gpa(vp, gpa, 0, &translation);
    return translation.kind == HV_TRANSLATION_OVERLAY || translation.kind == HV_TRANSLATION_APIC;
}

static enum translate_code translate_code(struct hv_vp *vp, const struct hv_gva_translation *translation)
{
    switch (translation->result) {
    case HV_GVA_OK:
        return TRANSLATE_SUCCESS;
    case HV_GVA_NO_ACCESS:
        return TRANSLATE_PRIVILEGE_VIOLATION;
    case HV_GVA_INVALID_TABLE_FLAGS:
        return TRANSLATE_INVALID_PAGE_TABLE_FLAGS;
    case HV_GVA_TABLE_UNMAPPED:
        return TRANSLATE_GPA_UNMAPPED;
    case HV_GVA_TABLE_NO_READ:
    case HV_GVA_TABLE_NO_WRITE:
        if (is_overlaid(vp, translation->gpa))
            return TRANSLATE_GPA_ILLEGAL_OVERLAY_ACCESS;
        return translation->result == HV_GVA_TABLE_NO_READ ? TRANSLATE_GPA_NO_READ_ACCESS
                                                           : TRANSLATE_GPA_NO_WRITE_ACCESS;
    default:
        return TRANSLATE_PAGE_NOT_PRESENT;
    }
}

static void translate(struct hv_vp *vp, const struct translate_input *in, struct translate_output *out)
{
    struct hv_gva_translation translation = {.result = HV_GVA_NOT_PRESENT};

    /* A page number that has no address is beyond what any paging mode permits. */
    if (in->gva_page < UINT64_C(1) << (64 - HV_PAGE_SHIFT))
        vp->hv->ops->translate_gva(vp->hv->context, vp->handle, in->gva_page << HV_PAGE_SHIFT,
                                   (unsigned)in->control_flags & ~HV_GVA_TLB_FLUSH_INHIBIT, &translation);
    out->code = translate_code(vp, &translation);
    if (out->code == TRANSLATE_SUCCESS) {
        out->flags = translation.cache_type | (is_overlaid(vp, translation.gpa) ? TRANSLATE_OVERLAY_PAGE : 0);
        if (in->control_flags & HV_GVA_TLB_FLUSH_INHIBIT)
            atomic_store(&vp->tlb_flush_inhibit, true);
    }
    if (out->code == TRANSLATE_SUCCESS || out->code >= TRANSLATE_GPA_UNMAPPED)
        out->gpa_page = translation.gpa >> HV_PAGE_SHIFT;
}

/* TLFS 12.4.4 */
hv_status hv_call_translate_virtual_address(struct hv_call *call)
{
    const struct translate_input *in = call->input;
    struct hv_vp *vp;
    hv_status status = find_target(call, in->vp_index, &vp);

    if (status != HV_STATUS_SUCCESS)
        return status;
    if (!(in->control_flags & TRANSLATE_VALIDATE) || (in->control_flags & ~(uint64_t)TRANSLATE_FLAGS))
        return HV_STATUS_INVALID_PARAMETER;
    if (!hv_vp_acquire(call->vp, vp))
        return HV_STATUS_WAIT;
    translate(vp, in, call->output);
    hv_vp_release(call->vp, vp);
    return HV_STATUS_SUCCESS;
}

/* Header of HvReadGpa and HvWriteGpa; what is written follows. */
struct access_input {
    hv_partition_id partition;
    uint32_t vp_index;
    uint32_t byte_count;
    uint64_t base_gpa;
    uint64_t control_flags; /* 7:0 cache type */
};
#define ACCESS_BYTES_MAX 16u

/*
 * HV_ACCESS_GPA_RESULT_CODE (TLFS 12.3.5). The descriptions of the calls name other codes for a missing right and an
 * overlay that refuses; deployed clients have those of the enumeration, which mean what they are called.
 */
enum access_code {
    ACCESS_SUCCESS = 0,
    ACCESS_UNMAPPED = 1,
    ACCESS_READ_INTERCEPT = 2,
    ACCESS_WRITE_INTERCEPT = 3,
    ACCESS_ILLEGAL_OVERLAY_ACCESS = 4,
};

struct access_output {
    uint32_t code;
    uint32_t reserved;
    uint8_t data[ACCESS_BYTES_MAX]; /* HvReadGpa only */
};

/* HV_CACHE_TYPE (TLFS 12.3.3): caches are not modelled, the codes are checked. */
static bool cache_type_is_valid(uint64_t control_flags)
{
    return control_flags <= 1 || (control_flags >= 4 && control_flags <= 6);
}

/* The VP is stopped and its caller's until hv_vp_release(): the access depends on its local APIC. */
static hv_status begin_access(const struct hv_call *call, struct hv_vp **vp)
{
    const struct access_input *in = call->input;
    hv_status status = find_target(call, in->vp_index, vp);

    if (status != HV_STATUS_SUCCESS)
        return status;
    if (in->byte_count == 0 || in->byte_count > ACCESS_BYTES_MAX || in->base_gpa >= (*vp)->hv->gpa_limit)
        return HV_STATUS_INVALID_PARAMETER;
    if (in->base_gpa % HV_PAGE_SIZE + in->byte_count > HV_PAGE_SIZE || !cache_type_is_valid(in->control_flags))
        return HV_STATUS_INVALID_PARAMETER;
    return hv_vp_acquire(call->vp, *vp) ? HV_STATUS_SUCCESS : HV_STATUS_WAIT;
}

/* The bytes of the registers that the range touches, in ascending order, each register read once. */
static enum access_code read_apic(struct hv_vp *vp, uint32_t offset, uint8_t *data, unsigned count)
{
    while (count) {
        uint32_t value = hv_lapic_read(vp, offset & ~3u);
        unsigned part = 4 - offset % 4 < count ? 4 - offset % 4 : count;

        memcpy(data, (const uint8_t *)&value + offset % 4, part);
        offset += part;
        data += part;
        count -= part;
    }
    return ACCESS_SUCCESS;
}

/* The processor's architecture knows no write of a part of a register. */
static enum access_code write_apic(struct hv_vp *vp, uint32_t offset, const uint8_t *data, unsigned count)
{
    if ((offset | count) % 4)
        return ACCESS_ILLEGAL_OVERLAY_ACCESS;
    for (unsigned i = 0; i < count; i += 4) {
        uint32_t value;

        memcpy(&value, data + i, sizeof(value));
        hv_lapic_write(vp, offset + i, value);
    }
    return ACCESS_SUCCESS;
}

static enum access_code access_code(enum hv_translation_kind kind, unsigned access)
{
    switch (kind) {
    case HV_TRANSLATION_DENIED:
        return access == HV_ACCESS_READ ? ACCESS_READ_INTERCEPT : ACCESS_WRITE_INTERCEPT;
    case HV_TRANSLATION_FAULT:
    case HV_TRANSLATION_CHECK:
        return ACCESS_ILLEGAL_OVERLAY_ACCESS;
    default:
        return ACCESS_UNMAPPED;
    }
}

static enum access_code read_as_vp(struct hv_vp *vp, const struct access_input *in, uint8_t *data)
{
    struct hv_translation translation;

    hv_translate_gpa(vp, in->base_gpa, HV_ACCESS_READ, &translation);
    if (translation.kind == HV_TRANSLATION_APIC)
        return read_apic(vp, in->base_gpa % HV_PAGE_SIZE, data, in->byte_count);
    if (hv_read_gpa(vp, in->base_gpa, data, in->byte_count) == HV_GPA_OK)
        return ACCESS_SUCCESS;
    return access_code(translation.kind, HV_ACCESS_READ);
}

static enum access_code write_as_vp(struct hv_vp *vp, const struct access_input *in, const uint8_t *data)
{
    struct hv_translation translation;

    hv_translate_gpa(vp, in->base_gpa, HV_ACCESS_WRITE, &translation);
    if (translation.kind == HV_TRANSLATION_APIC)
        return write_apic(vp, in->base_gpa % HV_PAGE_SIZE, data, in->byte_count);
    if (hv_write_gpa(vp, in->base_gpa, data, in->byte_count) == HV_GPA_OK)
        return ACCESS_SUCCESS;
    return access_code(translation.kind, HV_ACCESS_WRITE);
}

/* TLFS 12.4.5 */
hv_status hv_call_read_gpa(struct hv_call *call)
{
    const struct access_input *in = call->input;
    struct access_output *out = call->output;
    struct hv_vp *vp;
    hv_status status = begin_access(call, &vp);

    if (status != HV_STATUS_SUCCESS)
        return status;
    out->code = read_as_vp(vp, in, out->data);
    hv_vp_release(call->vp, vp);
    return HV_STATUS_SUCCESS;
}

/* TLFS 12.4.6 */
hv_status hv_call_write_gpa(struct hv_call *call)
{
    const struct access_input *in = call->input;
    struct access_output *out = call->output;
    struct hv_vp *vp;
    hv_status status = begin_access(call, &vp);

    if (status != HV_STATUS_SUCCESS)
        return status;
    out->code = write_as_vp(vp, in, (const uint8_t *)(in + 1));
    hv_vp_release(call->vp, vp);
    return HV_STATUS_SUCCESS;
}
