/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS 10.2 to 10.4: registers of a virtual processor by name. tlfs/registers.def says who keeps each: the platform
 * those of the architecture, the core the rest, synthetic MSRs behind the names included.
 *
 * Whoever reads or writes registers owns the VP meanwhile, so it does not run (hv_vp_acquire()). That is also what
 * makes an explicit suspend synchronous: when the call has set the register the VP has stopped.
 */
#include "lapic.h"
#include "stream.h"

#include <string.h>

/* -- The table -- */

enum keeper { KEEPER_MISSING, KEEPER_CORE, KEEPER_PLATFORM };

struct register_row {
    uint32_t code;
    uint8_t size, keeper, generations;
};

enum {
    ROW_NOTHING, /* what the index says of a name that does not exist */
#define HV_REGISTER_ROW(code, name, symbol, size, keeper, generations) ROW_##symbol,
#include "tlfs/registers.def"
#undef HV_REGISTER_ROW
    ROW_COUNT
};
_Static_assert(ROW_COUNT <= UINT8_MAX + 1, "an index entry has 8 bits");

static const struct register_row rows[ROW_COUNT] = {
#define HV_REGISTER_ROW(code, name, symbol, size, keeper, generations)                                                 \
    [ROW_##symbol] = {code, size, KEEPER_##keeper, generations},
#include "tlfs/registers.def"
#undef HV_REGISTER_ROW
};

/* A name is a group and a number in it. */
#define GROUPS 13u
#define GROUP_SIZE 128u

static const uint8_t row_index[GROUPS][GROUP_SIZE] = {
#define HV_REGISTER_ROW(code, name, symbol, size, keeper, generations) [(code) >> 16][(code)&0xFFFF] = ROW_##symbol,
#include "tlfs/registers.def"
#undef HV_REGISTER_ROW
};

static inline const struct register_row *find_row(const struct hv *hv, uint32_t name)
{
    uint32_t group = name >> 16, number = name & 0xFFFF;
    const struct register_row *row;

    if (group >= GROUPS || number >= GROUP_SIZE || !row_index[group][number])
        return NULL;
    row = &rows[row_index[group][number]];
    return (row->generations & hv->config.generation) && row->keeper != KEEPER_MISSING ? row : NULL;
}

/* -- Registers that are synthetic MSRs -- */

#define NO_MSR 0u

static uint32_t synthetic_msr(uint32_t name)
{
    switch (name) {
    case HV_REGISTER_VpRuntime:
        return HV_X64_MSR_VP_RUNTIME;
    case HV_REGISTER_Hypercall:
        return HV_X64_MSR_HYPERCALL;
    case HV_REGISTER_GuestOsId:
        return HV_X64_MSR_GUEST_OS_ID;
    case HV_REGISTER_VpIndex:
        return HV_X64_MSR_VP_INDEX;
    case HV_REGISTER_TimeRefCount:
        return HV_X64_MSR_TIME_REF_COUNT;
    case HV_REGISTER_Tpr:
        return HV_X64_MSR_TPR;
    case HV_REGISTER_ApicAssistPage:
        return HV_X64_MSR_APIC_ASSIST_PAGE;
    case HV_REGISTER_Scontrol:
        return HV_X64_MSR_SCONTROL;
    case HV_REGISTER_Sversion:
        return HV_X64_MSR_SVERSION;
    case HV_REGISTER_Siefp:
        return HV_X64_MSR_SIEFP;
    case HV_REGISTER_Simp:
        return HV_X64_MSR_SIMP;
    case HV_REGISTER_Eom:
        return HV_X64_MSR_EOM;
    default:
        break;
    }
    if (name >= HV_REGISTER_StatsPartitionRetail && name <= HV_REGISTER_StatsVpInternal)
        return HV_X64_MSR_STATS_PAGE + (name - HV_REGISTER_StatsPartitionRetail);
    if (name >= HV_REGISTER_Sint0 && name <= HV_REGISTER_Sint15)
        return HV_X64_MSR_SINT + (name - HV_REGISTER_Sint0);
    if (name >= HV_REGISTER_Stimer0Config && name <= HV_REGISTER_Stimer3Count)
        return HV_X64_MSR_STIMER + (name - HV_REGISTER_Stimer0Config);
    return NO_MSR;
}

/* The VP's privileges say what it may do itself, not what its parent may. Write-only ones read as zero. */
static void get_msr(struct hv_vp *vp, uint32_t index, uint64_t *value)
{
    uint32_t slot = index - HV_MSR_FIRST;
    const struct hv *hv = vp->hv;

    *value = 0;
    if (hv->msr_read[slot])
        hv->msr_read[slot](vp, index - hv_msr_rows[hv->msr_row[slot]].index, value);
}

/* False: read-only, or a value that WRMSR would refuse. */
static bool set_msr(struct hv_vp *vp, uint32_t index, uint64_t value)
{
    uint32_t slot = index - HV_MSR_FIRST;
    const struct hv *hv = vp->hv;

    if (!hv->msr_write[slot])
        return false;
    return hv->msr_write[slot](vp, index - hv_msr_rows[hv->msr_row[slot]].index, value) == HV_EXIT_DONE;
}

/* -- The time stamp counter (TLFS 11.7) -- */

uint64_t hv_vp_read_tsc(const struct hv_vp *vp)
{
    return vp->hv->ops->read_tsc(vp->hv->context, vp->handle) + atomic_load(&vp->tsc_offset);
}

uint64_t hv_vp_tsc_offset(const struct hv_vp *vp)
{
    return atomic_load(&vp->tsc_offset);
}

void hv_vp_write_tsc(struct hv_vp *vp, uint64_t tsc)
{
    atomic_store(&vp->tsc_offset, tsc - vp->hv->ops->read_tsc(vp->hv->context, vp->handle));
    hv_publish_reference_tsc(vp->partition);
    if (vp->lapic)
        hv_lapic_tsc_changed(vp);
}

/* -- Interruptions -- */

/* HV_X64_PENDING_INTERRUPTION_REGISTER (TLFS 10.3.4) */
#define INTERRUPTION_PENDING UINT64_C(1)
#define INTERRUPTION_TYPE(value) ((unsigned)((value) >> 1) & 7)
#define INTERRUPTION_ERROR_CODE (UINT64_C(1) << 4)
#define INTERRUPTION_VECTOR(value) ((unsigned)((value) >> 16) & 0xFFFF)
enum { INTERRUPTION_INTERRUPT = 0, INTERRUPTION_NMI = 2, INTERRUPTION_EXCEPTION = 3 };
#define VECTOR_PAGE_FAULT 14u
#define EXCEPTIONS 32u

static bool set_platform(struct hv_vp *vp, uint32_t name, const union hv_register_value *value)
{
    return vp->hv->ops->set_register(vp->hv->context, vp->handle, (enum hv_register_name)name, value);
}

static bool set_platform64(struct hv_vp *vp, uint32_t name, uint64_t value)
{
    union hv_register_value wide = {.reg128 = {.low = value}};

    return set_platform(vp, name, &wide);
}

static uint64_t get_platform64(struct hv_vp *vp, uint32_t name)
{
    union hv_register_value value = {.reg128 = {0}};

    vp->hv->ops->get_register(vp->hv->context, vp->handle, (enum hv_register_name)name, &value);
    return value.reg64;
}

/*
 * The pending event (later than 2.0a): another form of the pending interruption, with the parameter of a page fault.
 * Bit 0 pending, 3:1 type, 8 error code valid, 31:16 vector, 63:32 error code; for an external interrupt 15:8 vector.
 */
#define EVENT_TYPE_EXCEPTION 0u
#define EVENT_TYPE_INTERRUPT 5u
#define EVENT_ERROR_CODE (UINT64_C(1) << 8)

static void get_pending_event(struct hv_vp *vp, union hv_register_value *value)
{
    uint64_t pending = get_platform64(vp, HV_REGISTER_PendingInterruption);
    uint64_t vector = INTERRUPTION_VECTOR(pending);

    if (!(pending & INTERRUPTION_PENDING))
        return;
    if (INTERRUPTION_TYPE(pending) == INTERRUPTION_INTERRUPT) {
        value->reg64 = INTERRUPTION_PENDING | EVENT_TYPE_INTERRUPT << 1 | vector << 8;
        return;
    }
    value->reg64 = INTERRUPTION_PENDING | EVENT_TYPE_EXCEPTION << 1 | vector << 16 | (pending & ~UINT64_C(0xFFFFFFFF));
    if (pending & INTERRUPTION_ERROR_CODE)
        value->reg64 |= EVENT_ERROR_CODE;
    if (vector == VECTOR_PAGE_FAULT)
        value->reg128.high = get_platform64(vp, HV_REGISTER_Cr2);
}

static bool set_pending_event(struct hv_vp *vp, const union hv_register_value *value)
{
    uint64_t event = value->reg64, pending = INTERRUPTION_PENDING;

    if (!(event & INTERRUPTION_PENDING))
        return set_platform64(vp, HV_REGISTER_PendingInterruption, 0);
    if (INTERRUPTION_TYPE(event) == EVENT_TYPE_INTERRUPT) {
        if ((event & ~UINT64_C(0xFF0F)) || value->reg128.high)
            return false;
        return set_platform64(vp, HV_REGISTER_PendingInterruption, pending | (event >> 8 & 0xFF) << 16);
    }
    if (INTERRUPTION_TYPE(event) != EVENT_TYPE_EXCEPTION || (event & UINT64_C(0xFEF0)) ||
        INTERRUPTION_VECTOR(event) >= EXCEPTIONS)
        return false;
    pending |= INTERRUPTION_EXCEPTION << 1 | (event & ~UINT64_C(0xFFFF));
    if (event & EVENT_ERROR_CODE)
        pending |= INTERRUPTION_ERROR_CODE;
    if (INTERRUPTION_VECTOR(event) == VECTOR_PAGE_FAULT && !set_platform64(vp, HV_REGISTER_Cr2, value->reg128.high))
        return false;
    return set_platform64(vp, HV_REGISTER_PendingInterruption, pending);
}

/* -- Suspend registers (TLFS 10.3.1) -- */

#define SUSPENDED UINT64_C(1)
#define TLB_FLUSH_INHIBIT UINT64_C(2)

static uint64_t get_intercept_suspend(const struct hv_vp *vp)
{
    return (atomic_load(&vp->suspend) & HV_SUSPEND_INTERCEPT ? SUSPENDED : 0) |
           (atomic_load(&vp->tlb_flush_inhibit) ? TLB_FLUSH_INHIBIT : 0);
}

static bool set_explicit_suspend(struct hv_vp *vp, uint64_t value)
{
    if (value & ~SUSPENDED)
        return false;
    if (value)
        hv_vp_set_suspend(vp, HV_SUSPEND_EXPLICIT);
    else
        hv_vp_clear_suspend(vp, HV_SUSPEND_EXPLICIT);
    return true;
}

/* Bits may be cleared, together or by themselves; what is clear only an intercept sets. */
static bool set_intercept_suspend(struct hv_vp *vp, uint64_t value)
{
    if (value & ~get_intercept_suspend(vp))
        return false;
    if (!(value & TLB_FLUSH_INHIBIT) && atomic_load(&vp->tlb_flush_inhibit) &&
        atomic_exchange(&vp->tlb_flush_inhibit, false))
        hv_tlb_flush_inhibit_cleared(vp);
    if (!(value & SUSPENDED)) {
        HV_LOG(vp, INTERCEPT_RESUME);
        atomic_fetch_and(&vp->suspend, ~HV_SUSPEND_INTERCEPT); /* hv_vp_release() makes it ready */
    }
    return true;
}

/* -- Other registers of the core -- */

#define ICR_BITS UINT64_C(0x000CCFFF)
#define ICR_DESTINATION (UINT64_C(0xFF) << 56)

/* Nothing is sent: side effects of modifying a register are not performed (TLFS 10.4.4). */
static bool set_icr(struct hv_vp *vp, uint64_t value)
{
    struct hv_lapic *lapic = vp->lapic;
    uint64_t destination = hv_lapic_is_x2apic(lapic) ? ~UINT64_C(0xFFFFFFFF) : ICR_DESTINATION;

    if (value & ~(ICR_BITS | destination))
        return false;
    hv_vp_lock_take(&vp->lock);
    lapic->icr_low = (uint32_t)value;
    lapic->icr_high = (uint32_t)(value >> 32);
    hv_vp_lock_drop(&vp->lock);
    return true;
}

/* The interrupt in service ends, and nobody is told. */
static bool set_eoi(struct hv_vp *vp)
{
    struct hv_lapic *lapic = vp->lapic;

    hv_vp_lock_take(&vp->lock);
    hv_lapic_collect_locked(vp);
    for (int word = 7; word >= 0; word--) {
        if (lapic->isr[word]) {
            lapic->isr[word] &= ~(UINT32_C(1) << (31 - __builtin_clz(lapic->isr[word])));
            break;
        }
    }
    hv_lapic_update_locked(vp, true);
    hv_vp_lock_drop(&vp->lock);
    return true;
}

/* The later generation has x2APIC, whose IDs are wider. */
static bool set_initial_apic_id(struct hv_vp *vp, uint64_t value)
{
    if (value > (hv_lapic_has_x2apic(vp->partition) ? UINT32_MAX : UINT8_MAX))
        return false;
    hv_lapic_set_initial_id(vp, (uint32_t)value);
    return true;
}

/*
 * HV_DELIVERABILITY_NOTIFICATIONS_REGISTER (later than 2.0a), for parents that keep the interrupt controller
 * themselves: bit 1 asks for a message when the VP can take an interrupt of priority 5:2, 0 meaning any. Bit 0 would
 * ask the same of an NMI, for which nobody tells when it is unmasked.
 */
#define DELIVERABLE_INTERRUPT 0x2u
#define DELIVERABLE_BITS 0x3Eu

static bool set_deliverability(struct hv_vp *vp, uint64_t value)
{
    if (value & ~(uint64_t)DELIVERABLE_BITS)
        return false;
    atomic_store(&vp->deliverability, value & DELIVERABLE_INTERRUPT ? (unsigned)value : 0);
    hv_vp_lock_take(&vp->lock);
    hv_lapic_update_locked(vp, true);
    hv_vp_lock_drop(&vp->lock);
    return true;
}

bool hv_interrupt_deliverable(struct hv_vp *vp)
{
    if (!atomic_load(&vp->deliverability) || !hv_wants_interrupt_deliverable(vp, hv_lapic_read_tpr(vp)))
        return false;
    set_deliverability(vp, 0);
    hv_message_interruption_deliverable(vp, INTERRUPTION_INTERRUPT);
    return true;
}

static void get_core(struct hv_vp *vp, uint32_t name, union hv_register_value *value)
{
    switch (name) {
    case HV_REGISTER_ExplicitSuspend:
        value->reg64 = atomic_load(&vp->suspend) & HV_SUSPEND_EXPLICIT ? SUSPENDED : 0;
        break;
    case HV_REGISTER_InterceptSuspend:
        value->reg64 = get_intercept_suspend(vp);
        break;
    case HV_REGISTER_DeliverabilityNotifications:
        value->reg64 = atomic_load(&vp->deliverability);
        break;
    case HV_REGISTER_PendingEvent0:
        get_pending_event(vp, value);
        break;
    case HV_REGISTER_Tsc:
        value->reg64 = hv_vp_read_tsc(vp);
        break;
    case HV_REGISTER_Cr8:
        value->reg64 = hv_lapic_read_cr8(vp);
        break;
    case HV_REGISTER_Icr:
        value->reg64 = hv_lapic_read_icr(vp);
        break;
    case HV_REGISTER_ApicBase:
        value->reg64 = hv_lapic_get_base(vp);
        break;
    case HV_REGISTER_InitialApicId:
        value->reg64 = hv_lapic_get_initial_id(vp);
        break;
    default:
        if (synthetic_msr(name) != NO_MSR)
            get_msr(vp, synthetic_msr(name), &value->reg64);
        break;
    }
}

static bool set_core(struct hv_vp *caller, struct hv_vp *vp, uint32_t name, const union hv_register_value *value)
{
    switch (name) {
    case HV_REGISTER_ExplicitSuspend:
        return set_explicit_suspend(vp, value->reg64);
    case HV_REGISTER_InterceptSuspend:
        return set_intercept_suspend(vp, value->reg64);
    case HV_REGISTER_DeliverabilityNotifications:
        return set_deliverability(vp, value->reg64);
    case HV_REGISTER_PendingEvent0:
        return set_pending_event(vp, value);
    case HV_REGISTER_Tsc:
        hv_vp_write_tsc(vp, value->reg64);
        return true;
    case HV_REGISTER_Cr8:
        if (value->reg64 > 0xF)
            return false;
        hv_lapic_write_cr8(vp, (uint8_t)value->reg64);
        return true;
    case HV_REGISTER_Eoi:
        return set_eoi(vp);
    case HV_REGISTER_Icr:
        return set_icr(vp, value->reg64);
    case HV_REGISTER_ApicBase:
        return hv_lapic_set_base(caller, vp, value->reg64);
    case HV_REGISTER_InitialApicId:
        return set_initial_apic_id(vp, value->reg64);
    default:
        return synthetic_msr(name) != NO_MSR && set_msr(vp, synthetic_msr(name), value->reg64);
    }
}

/* -- Registers of the architecture -- */

static bool set_architectural(struct hv_vp *vp, uint32_t name, const union hv_register_value *value)
{
    if (!hv_register_value_is_valid(vp, (enum hv_register_name)name, value))
        return false;
    if (name == HV_REGISTER_PendingInterruption && !(value->reg64 & INTERRUPTION_PENDING))
        return set_platform64(vp, name, 0);
    return set_platform(vp, name, value);
}

/* -- HvGetVpRegisters, HvSetVpRegisters (TLFS 10.4.3, 10.4.4) -- */

struct registers_input {
    hv_partition_id partition_id;
    hv_vp_index vp_index;
    uint8_t target_vtl; /* later than 2.0a */
    uint8_t reserved[3];
};
_Static_assert(sizeof(struct registers_input) == 16, "TLFS 10.4.3");

struct set_element {
    uint32_t name;
    uint32_t padding[3];
    union hv_register_value value;
};
_Static_assert(sizeof(struct set_element) == 32, "TLFS 10.4.4");

#define VP_INDEX_SELF UINT32_C(0xFFFFFFFE) /* later than 2.0a */

/* Whether the VP's architectural state is at hand: another VP of a partition that nobody schedules just runs. */
static bool registers_are_at_hand(const struct hv_call *call, const struct hv_vp *vp)
{
    return vp == call->vp || vp->hv->lps;
}

static hv_status find_vp(const struct hv_call *call, struct hv_vp **vp)
{
    const struct registers_input *in = call->input;

    if (!hv_partition_is_active(call->partition))
        return HV_STATUS_INVALID_PARTITION_STATE;
    if (in->vp_index == VP_INDEX_SELF && call->vp->hv->config.generation == HV_GEN_CURRENT &&
        call->partition == call->vp->partition)
        *vp = call->vp;
    else
        *vp = hv_partition_vp(call->partition, in->vp_index);
    if (!*vp)
        return HV_STATUS_INVALID_VP_INDEX;
    return registers_are_at_hand(call, *vp) ? HV_STATUS_SUCCESS : HV_STATUS_OPERATION_DENIED;
}

/* A VP of the machine's partition has the machine's local APIC, which the platform knows. */
static bool is_of_machine_apic(const struct hv_vp *vp, uint32_t name)
{
    return !vp->lapic && (name == HV_REGISTER_Cr8 || name == HV_REGISTER_ApicBase || name == HV_REGISTER_Icr ||
                          name == HV_REGISTER_Tpr || name == HV_REGISTER_InitialApicId);
}

/* RAX to R15, which parents read and write most: any value will do. */
static inline uint64_t *find_gpr(struct hv_vp *vp, uint32_t name)
{
    uint32_t number = name - HV_REGISTER_Rax;

    return number <= HV_REGISTER_R15 - HV_REGISTER_Rax ? &vp->hv->ops->gprs(vp->hv->context, vp->handle)[number] : NULL;
}

static hv_status get_other_register(struct hv_vp *vp, uint32_t name, union hv_register_value *value)
{
    const struct register_row *row = find_row(vp->hv, name);

    *value = (union hv_register_value){.reg128 = {0}};
    if (!row)
        return HV_STATUS_INVALID_PARAMETER;
    if (row->keeper == KEEPER_PLATFORM || is_of_machine_apic(vp, name))
        vp->hv->ops->get_register(vp->hv->context, vp->handle, (enum hv_register_name)name, value);
    else
        get_core(vp, name, value);
    if (row->size < sizeof(*value))
        value->reg128.high = 0;
    return HV_STATUS_SUCCESS;
}

static hv_status get_register(struct hv_vp *vp, uint32_t name, union hv_register_value *value)
{
    const uint64_t *gpr = find_gpr(vp, name);

    if (!gpr)
        return get_other_register(vp, name, value);
    value->reg128.low = *gpr;
    value->reg128.high = 0;
    return HV_STATUS_SUCCESS;
}

static hv_status set_other_register(struct hv_vp *caller, struct hv_vp *vp, uint32_t name,
                                    const union hv_register_value *value)
{
    const struct register_row *row = find_row(vp->hv, name);
    bool done;

    if (!row || (row->size < sizeof(*value) && value->reg128.high))
        return HV_STATUS_INVALID_PARAMETER;
    if (row->keeper == KEEPER_PLATFORM)
        done = set_architectural(vp, name, value);
    else
        done = set_core(caller, vp, name, value);
    return done ? HV_STATUS_SUCCESS : HV_STATUS_INVALID_PARAMETER;
}

static hv_status set_register(struct hv_vp *caller, struct hv_vp *vp, uint32_t name,
                              const union hv_register_value *value)
{
    uint64_t *gpr = find_gpr(vp, name);

    if (!gpr)
        return set_other_register(caller, vp, name, value);
    if (value->reg128.high)
        return HV_STATUS_INVALID_PARAMETER;
    *gpr = value->reg64;
    return HV_STATUS_SUCCESS;
}

static unsigned last_rep(const struct hv_call *call)
{
    unsigned last = call->rep_start + HV_REP_BUDGET;

    return last < call->rep_count ? last : call->rep_count;
}

hv_status hv_call_get_vp_registers(struct hv_call *call)
{
    const uint32_t *names = call->elements;
    union hv_register_value *values = call->output;
    unsigned last = last_rep(call);
    struct hv_vp *vp;
    hv_status status = find_vp(call, &vp);

    if (status != HV_STATUS_SUCCESS)
        return status;
    if (!hv_vp_acquire(call->vp, vp))
        return HV_STATUS_WAIT;
    for (unsigned i = call->rep_start; i < last && status == HV_STATUS_SUCCESS; i++) {
        status = get_register(vp, names[i], &values[i]);
        if (status == HV_STATUS_SUCCESS)
            call->reps_done = i + 1;
    }
    hv_vp_release(call->vp, vp);
    return status;
}

hv_status hv_call_set_vp_registers(struct hv_call *call)
{
    const struct registers_input *in = call->input;
    const struct set_element *elements = call->elements;
    unsigned last = last_rep(call);
    struct hv_vp *vp;
    hv_status status = find_vp(call, &vp);

    if (status != HV_STATUS_SUCCESS)
        return status;
    /* Reserved here, where HvGetVpRegisters has padding; later the target's trust level, of which there is one. */
    if (call->vp->hv->config.generation == HV_GEN_2008R2 &&
        (in->target_vtl || in->reserved[0] || in->reserved[1] || in->reserved[2]))
        return HV_STATUS_INVALID_PARAMETER;
    if (!hv_vp_acquire(call->vp, vp))
        return HV_STATUS_WAIT;
    for (unsigned i = call->rep_start; i < last && status == HV_STATUS_SUCCESS; i++) {
        status = set_register(call->vp, vp, elements[i].name, &elements[i].value);
        if (status == HV_STATUS_SUCCESS)
            call->reps_done = i + 1;
    }
    hv_vp_release(call->vp, vp);
    return status;
}

/* -- For the operator -- */

void hv_vp_read_all_registers(struct hv_vp *vp, struct hv_register_entry *entries, size_t *count)
{
    static const char *const names[ROW_COUNT] = {
#define HV_REGISTER_ROW(code, name, symbol, size, keeper, generations) [ROW_##symbol] = name,
#include "tlfs/registers.def"
#undef HV_REGISTER_ROW
    };
    size_t room = *count;

    *count = 0;
    for (unsigned i = ROW_NOTHING + 1; i < ROW_COUNT && *count < room; i++) {
        struct hv_register_entry entry = {.name = names[i], .size = rows[i].size};

        if (get_register(vp, rows[i].code, &entry.value) == HV_STATUS_SUCCESS)
            entries[(*count)++] = entry;
    }
}

/* -- In the stream of state (TLFS 17.1.5): those that the platform keeps -- */

static bool is_saved(const struct register_row *row)
{
    return row->keeper == KEEPER_PLATFORM && row->code != HV_REGISTER_MtrrCap; /* which is read-only */
}

static void stream_register(struct hv_stream *s, uint32_t *name, union hv_register_value *value)
{
    hv_stream_u32(s, name);
    hv_stream_u64(s, &value->reg128.low);
    hv_stream_u64(s, &value->reg128.high);
}

static void read_registers(struct hv_stream *s, struct hv_vp *vp, uint32_t count)
{
    union hv_register_value state = {.reg128 = {0}};

    for (uint32_t i = 0; i < count && !s->error; i++) {
        const struct register_row *row;
        union hv_register_value value;
        uint32_t name = 0;

        stream_register(s, &name, &value);
        row = find_row(vp->hv, name);
        if (s->error)
            return;
        if (name == HV_REGISTER_InterruptState)
            state = value;
        else if (!row || !is_saved(row) || set_register(vp, vp, name, &value) != HV_STATUS_SUCCESS)
            hv_stream_fail(s, "the saved state of a virtual processor has an impossible register");
    }
    /* The last one, since moving RIP ends the shadow. */
    if (!s->error && !set_architectural(vp, HV_REGISTER_InterruptState, &state))
        hv_stream_fail(s, "the saved state of a virtual processor has an impossible register");
}

void hv_state_registers(struct hv_stream *s, struct hv_vp *vp)
{
    uint32_t count = 0;

    for (unsigned i = ROW_NOTHING + 1; i < ROW_COUNT; i++)
        count += is_saved(&rows[i]);
    count = hv_stream_count(s, count, count);
    if (hv_stream_reading(s)) {
        read_registers(s, vp, count);
        return;
    }
    for (unsigned i = ROW_NOTHING + 1; i < ROW_COUNT; i++) {
        union hv_register_value value;
        uint32_t name = rows[i].code;

        if (is_saved(&rows[i]) && get_register(vp, name, &value) == HV_STATUS_SUCCESS)
            stream_register(s, &name, &value);
    }
}

/* -- Initial state (TLFS 10.1.1, 10.4.1) -- */

void hv_vp_registers_reset(struct hv_vp *vp)
{
    hv_intercept_vp_remove(vp);
    atomic_store(&vp->suspend, HV_SUSPEND_EXPLICIT);
    atomic_store(&vp->tlb_flush_inhibit, false);
    atomic_store(&vp->tsc_offset, 0);
    atomic_store(&vp->deliverability, 0);
}
