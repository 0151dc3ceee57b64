/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Access to synthetic MSRs (TLFS 11.10, appendix H): the table, privileges, and registers that belong to no larger
 * facility. An access that the table, the privileges or the generation do not allow is #GP.
 */
#include "inject.h"
#include "stats.h"

#include <string.h>

/* A gate is written P_<privilege> or F_<feature> in the table. */
enum {
#define HV_PRIVILEGE_ROW(bit, name, property, generations, ...) PRIVILEGE_OF_P_##name = bit, FEATURE_OF_P_##name = -1,
#include "tlfs/privileges.def"
#undef HV_PRIVILEGE_ROW
#define HV_FEATURE_ROW(bit, name, property, generations, guest_default)                                                \
    PRIVILEGE_OF_F_##name = -1, FEATURE_OF_F_##name = bit,
#include "tlfs/features.def"
#undef HV_FEATURE_ROW
};

enum { ACCESS_R = 1, ACCESS_W = 2, ACCESS_RW = 3 };
enum { SCOPE_PARTITION, SCOPE_VP };

/* What the table writes where there is no handler: NONE, or MISSING for a register that is not implemented yet. */
struct missing;
#define hv_msr_read_NONE NULL
#define hv_msr_write_NONE NULL
#define hv_msr_read_MISSING ((struct missing *)0)
#define hv_msr_write_MISSING ((struct missing *)0)
#define IS_IMPLEMENTED(handler) _Generic((handler), struct missing * : false, default : true)
#define HANDLER(handler) _Generic((handler), struct missing * : NULL, default : (handler))

const struct hv_msr_row_info hv_msr_rows[HV_MSR_ROWS] = {
#define HV_MSR_ROW(index_, count_, name_, access, scope, gate, gens, read, write, sec)                                 \
    [HV_MSR_ROW_##name_] = {                                                                                           \
        .index = index_,                                                                                               \
        .count = count_,                                                                                               \
        .name = #name_,                                                                                                \
        .section = sec,                                                                                                \
        .readable = (ACCESS_##access & ACCESS_R) != 0,                                                                 \
        .writable = (ACCESS_##access & ACCESS_W) != 0,                                                                 \
        .per_vp = SCOPE_##scope == SCOPE_VP,                                                                           \
        .implemented = IS_IMPLEMENTED(hv_msr_read_##read) && IS_IMPLEMENTED(hv_msr_write_##write),                     \
        .generations = gens,                                                                                           \
        .privilege = PRIVILEGE_OF_##gate,                                                                              \
        .feature = FEATURE_OF_##gate,                                                                                  \
    },
#include "tlfs/msrs.def"
#undef HV_MSR_ROW
};

static const struct {
    hv_msr_read_handler read;
    hv_msr_write_handler write;
} handlers[HV_MSR_ROWS] = {
#define HV_MSR_ROW(index, count, name, access, scope, gate, gens, read_, write_, sec)                                  \
    [HV_MSR_ROW_##name] = {.read = HANDLER(hv_msr_read_##read_), .write = HANDLER(hv_msr_write_##write_)},
#include "tlfs/msrs.def"
#undef HV_MSR_ROW
};

static bool gate_is_open(const struct hv_partition *partition, const struct hv_msr_row_info *row)
{
    if (row->privilege >= 0)
        return hv_has_privilege(partition, (enum hv_privilege)row->privilege);
    return hv_has_feature(partition, (enum hv_feature)row->feature);
}

void hv_msr_init(struct hv *hv)
{
    memset(hv->msr_row, HV_NO_ROW, sizeof(hv->msr_row));
    for (unsigned row = 0; row < HV_MSR_ROWS; row++) {
        const struct hv_msr_row_info *info = &hv_msr_rows[row];

        if (!(info->generations & hv->config.generation))
            continue;
        for (unsigned i = 0; i < info->count; i++) {
            uint32_t slot = info->index - HV_MSR_FIRST + i;

            hv->msr_row[slot] = (uint8_t)row;
            hv->msr_read[slot] = handlers[row].read;
            hv->msr_write[slot] = handlers[row].write;
        }
    }
}

bool hv_msr_is_virtualized(const struct hv_vp *vp, uint32_t index)
{
    uint32_t slot = index - HV_MSR_FIRST;

    return slot < HV_MSR_CODES && (vp->hv->msr_read[slot] || vp->hv->msr_write[slot]) &&
           gate_is_open(vp->partition, &hv_msr_rows[vp->hv->msr_row[slot]]);
}

#define ALWAYS_INLINE inline __attribute__((always_inline))

/* With `attention` what is not usual is seen to. */
static ALWAYS_INLINE enum hv_exit read_msr(struct hv_vp *vp, uint32_t index, uint64_t *value, bool attention)
{
    uint32_t slot = index - HV_MSR_FIRST;
    const struct hv *hv = vp->hv;
    uint64_t began = hv_event_begin(vp, HV_VPV_MsrAccesses);
    unsigned row = HV_NO_ROW;
    enum hv_exit exit;

    if (slot >= HV_MSR_CODES || !hv->msr_read[slot] ||
        !gate_is_open(vp->partition, &hv_msr_rows[row = hv->msr_row[slot]])) {
        hv_counter_add(&vp->unknown_msrs, 1);
        return HV_EXIT_GP;
    }
    hv_counter_add(&vp->msr_reads[row], 1);
    exit = attention && HV_INJECTING(hv, HV_INJECT_MSR_READ) ? hv_inject_msr(vp, HV_INJECT_MSR_READ, index)
                                                             : HV_EXIT_NATIVE;
    if (exit == HV_EXIT_NATIVE)
        exit = hv->msr_read[slot](vp, index - hv_msr_rows[row].index, value);
    hv_cost_end(vp, HV_VPV_MsrAccesses, began);
    return exit;
}

static __attribute__((noinline)) enum hv_exit read_with_attention(struct hv_vp *vp, uint32_t index, uint64_t *value)
{
    enum hv_exit exit = read_msr(vp, index, value, true);

    HV_LOG(vp, IM_MSR_READ, hv_event_rip(vp), index, exit == HV_EXIT_GP ? 0 : *value);
    hv_log_reflected(vp, exit);
    return exit;
}

enum hv_exit hv_read_msr(struct hv_vp *vp, uint32_t index, uint64_t *value)
{
    if (HV_ATTENTION(vp->hv, HV_ATTENTION_MSR_EVENTS | HV_ATTENTION_RULES(HV_INJECT_MSR_READ)))
        return read_with_attention(vp, index, value);
    return read_msr(vp, index, value, false);
}

static ALWAYS_INLINE enum hv_exit write_msr(struct hv_vp *vp, uint32_t index, uint64_t value, bool attention)
{
    uint32_t slot = index - HV_MSR_FIRST;
    const struct hv *hv = vp->hv;
    uint64_t began = hv_event_begin(vp, HV_VPV_MsrAccesses);
    unsigned row = HV_NO_ROW;
    enum hv_exit exit;

    if (slot >= HV_MSR_CODES || !hv->msr_write[slot] ||
        !gate_is_open(vp->partition, &hv_msr_rows[row = hv->msr_row[slot]])) {
        hv_counter_add(&vp->unknown_msrs, 1);
        return HV_EXIT_GP;
    }
    hv_counter_add(&vp->msr_writes[row], 1);
    exit = attention && HV_INJECTING(hv, HV_INJECT_MSR_WRITE) ? hv_inject_msr(vp, HV_INJECT_MSR_WRITE, index)
                                                              : HV_EXIT_NATIVE;
    hv_calling_vp = vp;
    if (exit == HV_EXIT_NATIVE)
        exit = hv->msr_write[slot](vp, index - hv_msr_rows[row].index, value);
    hv_cost_end(vp, HV_VPV_MsrAccesses, began);
    return exit;
}

static __attribute__((noinline)) enum hv_exit write_with_attention(struct hv_vp *vp, uint32_t index, uint64_t value)
{
    enum hv_exit exit;

    HV_LOG(vp, IM_MSR_WRITE, hv_event_rip(vp), index, value);
    exit = write_msr(vp, index, value, true);
    hv_log_reflected(vp, exit);
    return exit;
}

enum hv_exit hv_write_msr(struct hv_vp *vp, uint32_t index, uint64_t value)
{
    if (HV_ATTENTION(vp->hv, HV_ATTENTION_MSR_EVENTS | HV_ATTENTION_RULES(HV_INJECT_MSR_WRITE)))
        return write_with_attention(vp, index, value);
    return write_msr(vp, index, value, false);
}

/* -- System reset (TLFS 6.3.5) -- */

enum hv_exit hv_msr_read_reset(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    (void)vp;
    (void)offset;
    *value = 0;
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_write_reset(struct hv_vp *vp, uint32_t offset, uint64_t value)
{
    (void)offset;
    if (value & ~UINT64_C(1))
        return HV_EXIT_GP;
    if (!value)
        return HV_EXIT_DONE;
    /* A child's reboot is its parent's business, which learns of it as of the other way a processor asks for one. */
    if (hv_vp_is_child(vp))
        return hv_triple_fault(vp);
    vp->hv->ops->reset(vp->hv->context);
    return HV_EXIT_DONE;
}

/* -- Crash reports (later than 2.0a): five parameters; the control register says what the hypervisor can take -- */

#define CRASH_NOTIFY (UINT64_C(1) << 63)
#define CRASH_MESSAGE (UINT64_C(1) << 62) /* P3 is the GPA of a text, P4 its length */

enum hv_exit hv_msr_read_crash_parameter(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    *value = atomic_load(&vp->partition->crash_parameters[offset]);
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_write_crash_parameter(struct hv_vp *vp, uint32_t offset, uint64_t value)
{
    atomic_store(&vp->partition->crash_parameters[offset], value);
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_read_crash_control(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    (void)vp;
    (void)offset;
    *value = CRASH_NOTIFY | CRASH_MESSAGE;
    return HV_EXIT_DONE;
}

/* Up to a page of text, which may begin anywhere in a page. Returns the bytes that could be read. */
static size_t read_crash_message(struct hv_vp *vp, hv_gpa gpa, uint64_t size)
{
    const struct hv *hv = vp->hv;
    size_t done = 0;

    if (size > HV_PAGE_SIZE)
        size = HV_PAGE_SIZE;
    while (done < size && gpa < hv->gpa_limit) {
        size_t part = HV_PAGE_SIZE - (size_t)(gpa & ~HV_PAGE_MASK);

        if (part > size - done)
            part = (size_t)size - done;
        if (hv_read_gpa(vp, gpa, vp->input_page + done, part) != HV_GPA_OK)
            break;
        done += part;
        gpa += part;
    }
    return done;
}

enum hv_exit hv_msr_write_crash_control(struct hv_vp *vp, uint32_t offset, uint64_t value)
{
    struct hv_partition *partition = vp->partition;
    uint64_t parameters[5];
    size_t size = 0;

    (void)offset;
    atomic_store(&partition->crash_control, value);
    if (!(value & CRASH_NOTIFY))
        return HV_EXIT_DONE;
    for (unsigned i = 0; i < 5; i++)
        parameters[i] = atomic_load(&partition->crash_parameters[i]);
    if (value & CRASH_MESSAGE)
        size = read_crash_message(vp, parameters[3], parameters[4]);
    partition->hv->ops->crash(partition->hv->context, vp->handle, parameters,
                              size ? (const char *)vp->input_page : NULL, size);
    return HV_EXIT_DONE;
}
