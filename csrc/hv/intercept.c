/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 9, and the decisions of chapter 11 (11.9 to 11.12): what a child's processor may do by itself, what the
 * hypervisor emulates, and what its parent has asked to be told of.
 *
 * A VP's thread looks at its partition's table without a lock; parents change it under the partition's lock. What is
 * installed takes effect when the VP's thread sees it; one that goes may be seen once more.
 */
#include "stats.h"
#include "stream.h"

#include <stdlib.h>
#include <string.h>

/* HV_INTERCEPT_TYPE (TLFS 9.2.1) */
enum intercept_type {
    INTERCEPT_IO_PORT,
    INTERCEPT_MSR,
    INTERCEPT_CPUID,
    INTERCEPT_EXCEPTION,
};

#define IO_PORTS 65536u
#define EXCEPTIONS 32u

/*
 * CPUID leaves: hash tables of one page, chained. A slot keeps its leaf when the intercept goes, so that one who looks
 * on from there still finds what lies behind; it is used again by the next leaf that passes. Tables stay until the
 * partition goes, as somebody may be looking.
 */
#define LEAF_SLOTS 480u
#define LEAF_SLOTS_USED_MOST 360u
#define SLOT_EMPTY UINT64_C(0)
#define SLOT_INSTALLED (UINT64_C(1) << 32)
#define SLOT_REMOVED (UINT64_C(1) << 33)

struct leaf_table {
    struct leaf_table *_Atomic next;
    unsigned used; /* slots that are not empty; partition's lock */
    _Atomic uint64_t slots[LEAF_SLOTS];
};

struct hv_intercepts {
    atomic_bool msr;
    atomic_uint exceptions; /* bit n: vector n */
    atomic_uint leaves; /* installed */
    struct leaf_table *_Atomic tables;
    _Atomic uint64_t io[IO_PORTS / 64];
};

/* -- CPUID leaves -- */

static unsigned first_slot(uint32_t leaf)
{
    return (unsigned)(((leaf * UINT64_C(0x9E3779B1)) >> 16) % LEAF_SLOTS);
}

static _Atomic uint64_t *find_in_table(struct leaf_table *table, uint32_t leaf)
{
    for (unsigned i = 0, slot = first_slot(leaf); i < LEAF_SLOTS; i++, slot = (slot + 1) % LEAF_SLOTS) {
        uint64_t value = atomic_load_explicit(&table->slots[slot], memory_order_acquire);

        if (value == SLOT_EMPTY)
            break;
        if (value == (SLOT_INSTALLED | leaf))
            return &table->slots[slot];
    }
    return NULL;
}

static _Atomic uint64_t *find_leaf(struct hv_intercepts *intercepts, uint32_t leaf)
{
    if (!atomic_load_explicit(&intercepts->leaves, memory_order_acquire))
        return NULL;
    for (struct leaf_table *table = atomic_load(&intercepts->tables); table; table = atomic_load(&table->next)) {
        _Atomic uint64_t *slot = find_in_table(table, leaf);

        if (slot)
            return slot;
    }
    return NULL;
}

/* A slot for a leaf that is not there: one of a removed leaf, or an empty one while the table is not too full. */
static _Atomic uint64_t *free_slot(struct leaf_table *table, uint32_t leaf)
{
    for (unsigned i = 0, slot = first_slot(leaf); i < LEAF_SLOTS; i++, slot = (slot + 1) % LEAF_SLOTS) {
        uint64_t value = atomic_load(&table->slots[slot]);

        if (value & SLOT_REMOVED)
            return &table->slots[slot];
        if (value == SLOT_EMPTY) {
            if (table->used >= LEAF_SLOTS_USED_MOST)
                return NULL;
            table->used++;
            return &table->slots[slot];
        }
    }
    return NULL;
}

static _Atomic uint64_t *make_slot(struct hv_intercepts *intercepts, uint32_t leaf)
{
    struct leaf_table *_Atomic *link = &intercepts->tables;
    struct leaf_table *table;

    while ((table = atomic_load(link)) != NULL) {
        _Atomic uint64_t *slot = free_slot(table, leaf);

        if (slot)
            return slot;
        link = &table->next;
    }
    table = calloc(1, sizeof(*table));
    if (!table)
        return NULL;
    atomic_store_explicit(link, table, memory_order_release);
    return free_slot(table, leaf);
}

static hv_status install_leaf(struct hv_partition *partition, struct hv_intercepts *intercepts, uint32_t leaf)
{
    _Atomic uint64_t *slot;

    if (find_leaf(intercepts, leaf))
        return HV_STATUS_SUCCESS;
    if (!hv_pool_charge(partition, HV_COST_CpuidIntercept))
        return HV_STATUS_INSUFFICIENT_MEMORY;
    slot = make_slot(intercepts, leaf);
    if (!slot) {
        hv_pool_release(partition, HV_COST_CpuidIntercept);
        return HV_STATUS_INSUFFICIENT_MEMORY;
    }
    atomic_store_explicit(slot, SLOT_INSTALLED | leaf, memory_order_release);
    atomic_fetch_add(&intercepts->leaves, 1);
    return HV_STATUS_SUCCESS;
}

static void remove_leaf(struct hv_partition *partition, struct hv_intercepts *intercepts, uint32_t leaf)
{
    _Atomic uint64_t *slot = find_leaf(intercepts, leaf);

    if (!slot)
        return;
    atomic_store(slot, SLOT_REMOVED | leaf);
    atomic_fetch_sub(&intercepts->leaves, 1);
    hv_pool_release(partition, HV_COST_CpuidIntercept);
}

/* -- HvInstallIntercept (TLFS 9.3.1) -- */

struct install_input {
    hv_partition_id partition_id;
    uint32_t access;
    uint32_t type;
    uint64_t parameter;
};
_Static_assert(sizeof(struct install_input) == 24, "TLFS 9.3.1");

/* The table of TLFS 9.1.1: what has to be given to install an intercept, and how far its parameter goes. */
static const struct {
    uint32_t access;
    uint64_t last_parameter;
} rules[] = {
    [INTERCEPT_IO_PORT] = {HV_ACCESS_READ | HV_ACCESS_WRITE, IO_PORTS - 1},
    [INTERCEPT_MSR] = {HV_ACCESS_READ | HV_ACCESS_WRITE, 0},
    [INTERCEPT_CPUID] = {HV_ACCESS_EXECUTE, UINT32_MAX},
    [INTERCEPT_EXCEPTION] = {HV_ACCESS_EXECUTE, EXCEPTIONS - 1},
};

static bool is_permitted(const struct install_input *in)
{
    if (in->type >= sizeof(rules) / sizeof(rules[0]))
        return false;
    return (in->access == 0 || in->access == rules[in->type].access) && in->parameter <= rules[in->type].last_parameter;
}

/* To the caller an intercept that the platform cannot offer is of no valid type; there is none to remove either. */
static bool is_possible(const struct hv *hv, const struct install_input *in)
{
    bool is_io_or_msr = in->type == INTERCEPT_IO_PORT || in->type == INTERCEPT_MSR;

    return in->access == 0 || is_io_or_msr || !hv->config.fewer_intercepts;
}

/* Partition's lock held. Only a host without memory can keep the table from being there: it costs the pool nothing. */
static struct hv_intercepts *get_table(struct hv_partition *partition)
{
    struct hv_intercepts *intercepts = atomic_load(&partition->intercepts);

    if (!intercepts) {
        intercepts = calloc(1, sizeof(*intercepts));
        atomic_store_explicit(&partition->intercepts, intercepts, memory_order_release);
    }
    return intercepts;
}

static void change_bit(_Atomic uint64_t *word, unsigned bit, bool on)
{
    if (on)
        atomic_fetch_or(word, UINT64_C(1) << bit);
    else
        atomic_fetch_and(word, ~(UINT64_C(1) << bit));
}

static hv_status change(struct hv_partition *partition, struct hv_intercepts *intercepts,
                        const struct install_input *in)
{
    bool on = in->access != 0;

    switch (in->type) {
    case INTERCEPT_IO_PORT:
        change_bit(&intercepts->io[in->parameter / 64], (unsigned)(in->parameter % 64), on);
        break;
    case INTERCEPT_MSR:
        atomic_store(&intercepts->msr, on);
        break;
    case INTERCEPT_CPUID:
        if (on)
            return install_leaf(partition, intercepts, (uint32_t)in->parameter);
        remove_leaf(partition, intercepts, (uint32_t)in->parameter);
        break;
    case INTERCEPT_EXCEPTION:
        if (on)
            atomic_fetch_or(&intercepts->exceptions, 1u << in->parameter);
        else
            atomic_fetch_and(&intercepts->exceptions, ~(1u << in->parameter));
        break;
    }
    return HV_STATUS_SUCCESS;
}

/* Exception masks may be kept by whoever runs the VPs while they are in the guest. */
static void stop_vps(const struct hv_partition *partition)
{
    for (hv_vp_index i = 0; i < partition->vp_limit; i++) {
        struct hv_vp *vp = partition->vps[i];

        if (vp && atomic_load(&vp->owner) != HV_OWNER_NONE)
            hv_stats_kick_vp(vp);
    }
}

hv_status hv_call_install_intercept(struct hv_call *call)
{
    const struct install_input *in = call->input;
    struct hv_partition *partition = call->partition;
    struct hv_intercepts *intercepts;
    hv_status status;

    if (!hv_partition_is_active(partition))
        return HV_STATUS_INVALID_PARTITION_STATE;
    if (!is_permitted(in) || !is_possible(partition->hv, in))
        return HV_STATUS_INVALID_PARAMETER;
    hv_partition_lock_take(&partition->lock);
    intercepts = get_table(partition);
    status = intercepts ? change(partition, intercepts, in) : HV_STATUS_INSUFFICIENT_MEMORY;
    hv_partition_lock_drop(&partition->lock);
    if (in->type == INTERCEPT_EXCEPTION && status == HV_STATUS_SUCCESS)
        stop_vps(partition);
    return status;
}

/* -- In the stream of state -- */

static void state_leaves(struct hv_stream *s, struct hv_partition *partition, struct hv_intercepts *intercepts)
{
    uint32_t count = hv_stream_count(s, atomic_load(&intercepts->leaves), UINT32_MAX), leaf = 0;

    for (uint32_t i = 0; hv_stream_reading(s) && i < count && !s->error; i++) {
        hv_stream_u32(s, &leaf);
        if (!s->error && install_leaf(partition, intercepts, leaf) != HV_STATUS_SUCCESS)
            hv_stream_fail(s, "out of memory");
    }
    if (hv_stream_reading(s))
        return;
    for (struct leaf_table *table = atomic_load(&intercepts->tables); table; table = atomic_load(&table->next)) {
        for (unsigned i = 0; i < LEAF_SLOTS; i++) {
            leaf = (uint32_t)atomic_load(&table->slots[i]);
            if (atomic_load(&table->slots[i]) & SLOT_INSTALLED)
                hv_stream_u32(s, &leaf);
        }
    }
}

void hv_state_intercepts(struct hv_stream *s, struct hv_partition *partition)
{
    struct hv_intercepts *intercepts = atomic_load(&partition->intercepts);
    bool exist = intercepts != NULL;

    hv_stream_flag(s, &exist);
    if (!exist || s->error)
        return;
    intercepts = get_table(partition);
    if (!intercepts) {
        hv_stream_fail(s, "out of memory");
        return;
    }
    hv_stream_atomic_flag(s, &intercepts->msr);
    hv_stream_atomic_u32(s, &intercepts->exceptions);
    for (unsigned i = 0; i < IO_PORTS / 64; i++)
        hv_stream_atomic_u64(s, &intercepts->io[i]);
    state_leaves(s, partition, intercepts);
}

void hv_intercepts_free(struct hv_partition *partition)
{
    struct hv_intercepts *intercepts = atomic_exchange(&partition->intercepts, NULL);
    struct leaf_table *table;

    if (!intercepts)
        return;
    hv_pool_release(partition, atomic_load(&intercepts->leaves) * HV_COST_CpuidIntercept);
    while ((table = atomic_load(&intercepts->tables)) != NULL) {
        atomic_store(&intercepts->tables, atomic_load(&table->next));
        free(table);
    }
    free(intercepts);
}

static struct hv_intercepts *intercepts_of(const struct hv_vp *vp)
{
    return atomic_load_explicit(&vp->partition->intercepts, memory_order_acquire);
}

/* -- I/O ports (TLFS 11.9) -- */

/* A wider access is one to several ports. */
static bool io_is_intercepted(const struct hv_vp *vp, const struct hv_io_access *io)
{
    struct hv_intercepts *intercepts = intercepts_of(vp);

    if (!intercepts)
        return false;
    for (unsigned port = io->port; port < io->port + io->size && port < IO_PORTS; port++) {
        if ((atomic_load_explicit(&intercepts->io[port / 64], memory_order_relaxed) >> (port % 64)) & 1)
            return true;
    }
    return false;
}

static enum hv_exit child_io(struct hv_vp *vp, struct hv_io_access *io)
{
    enum hv_exit exit = HV_EXIT_DONE;
    uint64_t began = hv_event_begin(vp, HV_VPV_IoInstructions);
    uint64_t emulation = hv_cost_begin(vp, HV_VPV_EmulatedInstructions);

    if (hv_pm_timer_read(vp, io, &io->value)) {
        HV_COUNT(vp, EmulatedInstructions);
        hv_cost_end(vp, HV_VPV_EmulatedInstructions, emulation);
    } else if (io_is_intercepted(vp, io)) {
        exit = hv_message_io(vp, io);
    } else if (!io->write) {
        io->value = UINT32_MAX >> (32 - 8 * io->size);
    }
    hv_cost_end(vp, HV_VPV_IoInstructions, began);
    return exit;
}

enum hv_exit hv_io(struct hv_vp *vp, struct hv_io_access *io)
{
    enum hv_exit exit;

    if (!hv_vp_is_child(vp))
        return HV_EXIT_NATIVE;
    if (io->write)
        HV_LOG(vp, IM_IO_PORT_WRITE, hv_event_rip(vp), io->port, io->value);
    exit = child_io(vp, io);
    if (!io->write)
        HV_LOG(vp, IM_IO_PORT_READ, hv_event_rip(vp), io->port, exit == HV_EXIT_DONE ? io->value : 0);
    return exit;
}

/* -- CPUID (TLFS 11.11) -- */

enum hv_exit hv_child_cpuid(struct hv_vp *vp, uint32_t leaf, uint32_t subleaf, uint8_t instruction_length,
                            struct hv_cpuid *result)
{
    struct hv_intercepts *intercepts = intercepts_of(vp);
    uint64_t began = hv_event_begin(vp, HV_VPV_CpuidInstructions);
    enum hv_exit exit = HV_EXIT_DONE;

    HV_LOG(vp, IM_CPUID_INSTRUCTION, hv_event_rip(vp), leaf, subleaf);
    hv_processor_cpuid(vp, leaf, subleaf, result);
    if (hv_vp_is_child(vp) && intercepts && find_leaf(intercepts, leaf))
        exit = hv_message_cpuid(vp, instruction_length, result);
    hv_cost_end(vp, HV_VPV_CpuidInstructions, began);
    return exit;
}

/* -- MSRs (TLFS 11.10) -- */

/* One that the hypervisor does not virtualize for this partition. */
static enum hv_exit foreign_msr(struct hv_vp *vp, uint32_t index, uint8_t length, unsigned access)
{
    struct hv_intercepts *intercepts = intercepts_of(vp);

    if (hv_vp_is_child(vp) && intercepts && atomic_load_explicit(&intercepts->msr, memory_order_relaxed))
        return hv_message_msr(vp, index, length, access);
    return HV_EXIT_GP;
}

static enum hv_exit read_foreign_msr(struct hv_vp *vp, uint32_t index, uint8_t length, uint64_t *value)
{
    enum hv_exit exit;

    if (index - HV_MSR_FIRST > HV_MSR_LAST - HV_MSR_FIRST && hv_processor_rdmsr(vp, index, value, &exit))
        return exit;
    return foreign_msr(vp, index, length, HV_ACCESS_READ);
}

enum hv_exit hv_child_rdmsr(struct hv_vp *vp, uint32_t index, uint8_t instruction_length, uint64_t *value)
{
    enum hv_exit exit;
    uint64_t began;

    if (index - HV_MSR_FIRST <= HV_MSR_LAST - HV_MSR_FIRST && hv_msr_is_virtualized(vp, index))
        return hv_read_msr(vp, index, value);
    began = hv_event_begin(vp, HV_VPV_MsrAccesses);
    exit = read_foreign_msr(vp, index, instruction_length, value);
    hv_cost_end(vp, HV_VPV_MsrAccesses, began);
    HV_LOG(vp, IM_MSR_READ, hv_event_rip(vp), index, exit == HV_EXIT_DONE ? *value : 0);
    hv_log_reflected(vp, exit);
    return exit;
}

static enum hv_exit write_foreign_msr(struct hv_vp *vp, uint32_t index, uint8_t length, uint64_t value)
{
    enum hv_exit exit;

    if (index - HV_MSR_FIRST > HV_MSR_LAST - HV_MSR_FIRST && hv_processor_wrmsr(vp, index, value, &exit))
        return exit;
    return foreign_msr(vp, index, length, HV_ACCESS_WRITE);
}

enum hv_exit hv_child_wrmsr(struct hv_vp *vp, uint32_t index, uint8_t instruction_length, uint64_t value)
{
    enum hv_exit exit;
    uint64_t began;

    if (index - HV_MSR_FIRST <= HV_MSR_LAST - HV_MSR_FIRST && hv_msr_is_virtualized(vp, index))
        return hv_write_msr(vp, index, value);
    HV_LOG(vp, IM_MSR_WRITE, hv_event_rip(vp), index, value);
    began = hv_event_begin(vp, HV_VPV_MsrAccesses);
    exit = write_foreign_msr(vp, index, instruction_length, value);
    hv_cost_end(vp, HV_VPV_MsrAccesses, began);
    hv_log_reflected(vp, exit);
    return exit;
}

/* -- Exceptions (TLFS 11.12) -- */

uint32_t hv_exception_intercepts(const struct hv_vp *vp)
{
    struct hv_intercepts *intercepts = intercepts_of(vp);

    return intercepts ? atomic_load_explicit(&intercepts->exceptions, memory_order_relaxed) : 0;
}

enum hv_exit hv_exception(struct hv_vp *vp, const struct hv_exception *exception)
{
    if (exception->vector >= EXCEPTIONS || !((hv_exception_intercepts(vp) >> exception->vector) & 1))
        return HV_EXIT_NATIVE;
    HV_LOG(vp, IM_GUEST_EXCEPTION, hv_event_rip(vp), exception->vector);
    return hv_message_exception(vp, exception);
}

/* -- What always goes to the parent (TLFS 9.1.2, 11.8) -- */

/* In a partition without a parent it is fatal: the machine starts again. */
static enum hv_exit fatal(struct hv_vp *vp)
{
    vp->hv->ops->reset(vp->hv->context);
    return HV_EXIT_DONE;
}

/* The parent may complete the instruction in software, so translations must stay as they are (TLFS 12.1.4). */
enum hv_exit hv_memory_intercept(struct hv_vp *vp, const struct hv_memory_access *access)
{
    enum hv_exit exit;
    uint64_t began;

    HV_LOG(vp, IM_MEMORY_INTERCEPT, hv_event_rip(vp), access->access);
    if (!hv_vp_is_child(vp))
        return access->unmapped ? HV_EXIT_NATIVE : HV_EXIT_MC;
    began = hv_event_begin(vp, HV_VPV_PageFaultIntercepts);
    atomic_store(&vp->tlb_flush_inhibit, true);
    exit = hv_message_memory(vp, access);
    hv_cost_end(vp, HV_VPV_PageFaultIntercepts, began);
    return exit;
}

enum hv_exit hv_triple_fault(struct hv_vp *vp)
{
    HV_LOG(vp, IM_GUEST_SHUTDOWN, hv_event_rip(vp));
    return hv_vp_is_child(vp) ? hv_message_unrecoverable_exception(vp) : fatal(vp);
}

enum hv_exit hv_invalid_vp_state(struct hv_vp *vp)
{
    return hv_vp_is_child(vp) ? hv_message_invalid_register_value(vp) : fatal(vp);
}

enum hv_exit hv_unsupported_feature(struct hv_vp *vp, uint32_t code, uint64_t parameter)
{
    if (code == HV_UNSUPPORTED_TASK_SWITCH)
        HV_LOG(vp, IM_TASK_SWITCH, hv_event_rip(vp));
    return hv_vp_is_child(vp) ? hv_message_unsupported_feature(vp, code, parameter) : fatal(vp);
}

/* Ignored where there is no parent. */
enum hv_exit hv_ferr_asserted(struct hv_vp *vp)
{
    HV_LOG(vp, IM_FERR_FREEZE, hv_event_rip(vp));
    return hv_vp_is_child(vp) ? hv_message_ferr_asserted(vp) : HV_EXIT_NATIVE;
}
