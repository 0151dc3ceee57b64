/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS 13.2.2, 13.2.3: the registers of a child VP's local APIC: in memory (xAPIC), as MSRs (x2APIC), IA32_APIC_BASE
 * and IA32_TSC_DEADLINE. Reserved bits are ignored in memory and are #GP in an MSR.
 */
#include "gpa_table.h"
#include "lapic.h"
#include "stats.h"

#include <string.h>

#define VERSION UINT32_C(0x00050014) /* integrated, six entries in the local vector table */

/* Offsets in the register page; an x2APIC MSR's index is X2APIC_FIRST plus a sixteenth of them. */
enum {
    REGISTER_ID = 0x020,
    REGISTER_VERSION = 0x030,
    REGISTER_TPR = 0x080,
    REGISTER_APR = 0x090,
    REGISTER_PPR = 0x0A0,
    REGISTER_EOI = 0x0B0,
    REGISTER_RRD = 0x0C0,
    REGISTER_LDR = 0x0D0,
    REGISTER_DFR = 0x0E0,
    REGISTER_SVR = 0x0F0,
    REGISTER_ISR = 0x100,
    REGISTER_TMR = 0x180,
    REGISTER_IRR = 0x200,
    REGISTER_ESR = 0x280,
    REGISTER_ICR_LOW = 0x300,
    REGISTER_ICR_HIGH = 0x310,
    REGISTER_LVT = 0x320,
    REGISTER_INITIAL_COUNT = 0x380,
    REGISTER_CURRENT_COUNT = 0x390,
    REGISTER_DIVIDE = 0x3E0,
    REGISTER_SELF_IPI = 0x3F0,
};
#define VECTOR_REGISTERS_SIZE 0x80

#define MSR_APIC_BASE 0x1Bu
#define MSR_TSC_DEADLINE 0x6E0u
#define X2APIC_FIRST 0x800u
#define X2APIC_LAST 0x8FFu

/* Bits that can be written. */
#define SVR_BITS 0x3FFu /* vector, enable, focus checking off */
#define ICR_BITS 0x000CCFFFu
#define DIVIDE_BITS 0xBu

static uint32_t lvt_bits(const struct hv_vp *vp, unsigned entry)
{
    bool deadline = hv_lapic_has_deadline(vp->partition);

    switch (entry) {
    case LVT_TIMER:
        return 0x100FFu | (deadline ? 0x60000u : 0x20000u);
    case LVT_THERMAL:
    case LVT_PERFORMANCE:
        return 0x107FFu;
    case LVT_LINT0:
    case LVT_LINT1:
        return 0x1A7FFu;
    default:
        return 0x100FFu;
    }
}

static bool in_block(uint32_t offset, uint32_t first, uint32_t size)
{
    return offset >= first && offset < first + size;
}

/* An entry of the local vector table, or LVT_ENTRIES. */
static unsigned lvt_entry(uint32_t offset)
{
    return in_block(offset, REGISTER_LVT, LVT_ENTRIES * 0x10) ? (offset - REGISTER_LVT) / 0x10 : LVT_ENTRIES;
}

static uint32_t x2apic_ldr(const struct hv_vp *vp)
{
    uint32_t id = hv_lapic_get_initial_id(vp);

    return (id >> 4) << 16 | 1u << (id & 0xF);
}

static uint32_t read_id(const struct hv_vp *vp)
{
    return hv_lapic_is_x2apic(vp->lapic) ? hv_lapic_get_initial_id(vp) : atomic_load(&vp->lapic->id) << 24;
}

/* False: no such register. */
static bool read_register(struct hv_vp *vp, uint32_t offset, uint32_t *value)
{
    struct hv_lapic *lapic = vp->lapic;
    bool x2apic = hv_lapic_is_x2apic(lapic);

    *value = 0;
    if (lvt_entry(offset) < LVT_ENTRIES)
        *value = lapic->lvt[lvt_entry(offset)];
    else if (in_block(offset, REGISTER_ISR, VECTOR_REGISTERS_SIZE))
        *value = lapic->isr[(offset - REGISTER_ISR) / 0x10];
    else if (in_block(offset, REGISTER_TMR, VECTOR_REGISTERS_SIZE))
        *value = lapic->tmr[(offset - REGISTER_TMR) / 0x10];
    else if (in_block(offset, REGISTER_IRR, VECTOR_REGISTERS_SIZE))
        *value = lapic->irr[(offset - REGISTER_IRR) / 0x10];
    else
        switch (offset) {
        case REGISTER_ID:
            *value = read_id(vp);
            break;
        case REGISTER_VERSION:
            *value = VERSION;
            break;
        case REGISTER_TPR:
            *value = lapic->tpr;
            break;
        case REGISTER_PPR:
            *value = hv_lapic_ppr_locked(lapic);
            break;
        case REGISTER_LDR:
            *value = x2apic ? x2apic_ldr(vp) : atomic_load(&lapic->ldr);
            break;
        case REGISTER_SVR:
            *value = atomic_load(&lapic->svr);
            break;
        case REGISTER_ESR:
            *value = lapic->esr;
            break;
        case REGISTER_ICR_LOW:
            *value = lapic->icr_low;
            break;
        case REGISTER_INITIAL_COUNT:
            *value = lapic->initial_count;
            break;
        case REGISTER_CURRENT_COUNT:
            *value = hv_lapic_timer_count_locked(vp);
            break;
        case REGISTER_DIVIDE:
            *value = lapic->divide;
            break;
        case REGISTER_APR: /* arbitration goes by the PPR */
            *value = hv_lapic_ppr_locked(lapic);
            return !x2apic;
        case REGISTER_DFR:
            *value = atomic_load(&lapic->dfr);
            return !x2apic;
        case REGISTER_ICR_HIGH:
            *value = lapic->icr_high;
            return !x2apic;
        case REGISTER_EOI:
        case REGISTER_RRD:
            return !x2apic; /* write-only, and of a bus that is not there: they read as 0 */
        default:
            return false;
        }
    return true;
}

static void write_lvt(struct hv_vp *vp, unsigned entry, uint32_t value)
{
    struct hv_lapic *lapic = vp->lapic;

    value &= lvt_bits(vp, entry);
    if (!hv_lapic_is_enabled(lapic))
        value |= LVT_MASKED;
    if (entry == LVT_TIMER)
        hv_lapic_timer_set_lvt_locked(vp, value);
    else
        lapic->lvt[entry] = value;
}

/* Disabled by software, it masks its own interrupts and takes no fixed ones; what it holds stays. */
static void write_svr(struct hv_vp *vp, uint32_t value)
{
    atomic_store(&vp->lapic->svr, value & SVR_BITS);
    if (value & LAPIC_SVR_ENABLE)
        return;
    for (unsigned i = 0; i < LVT_ENTRIES; i++)
        write_lvt(vp, i, vp->lapic->lvt[i]);
}

static bool is_vector_register(uint32_t offset)
{
    return in_block(offset, REGISTER_ISR, 3 * VECTOR_REGISTERS_SIZE);
}

/* Registers whose writing sends nothing. False: no such register. */
static bool write_register(struct hv_vp *vp, uint32_t offset, uint32_t value)
{
    struct hv_lapic *lapic = vp->lapic;

    if (lvt_entry(offset) < LVT_ENTRIES) {
        write_lvt(vp, lvt_entry(offset), value);
        return true;
    }
    switch (offset) {
    case REGISTER_ID:
        atomic_store(&lapic->id, value >> 24);
        return true;
    case REGISTER_TPR:
        lapic->tpr = value & 0xFF;
        return true;
    case REGISTER_LDR:
        atomic_store(&lapic->ldr, value & 0xFF000000u);
        return true;
    case REGISTER_DFR:
        atomic_store(&lapic->dfr, value | 0x0FFFFFFFu);
        return true;
    case REGISTER_SVR:
        write_svr(vp, value);
        return true;
    case REGISTER_ESR:
        lapic->esr = lapic->errors;
        lapic->errors = 0;
        return true;
    case REGISTER_ICR_LOW:
        lapic->icr_low = value & ICR_BITS;
        return true;
    case REGISTER_ICR_HIGH:
        lapic->icr_high = value & 0xFF000000u;
        return true;
    case REGISTER_INITIAL_COUNT:
        hv_lapic_timer_set_count_locked(vp, value);
        return true;
    case REGISTER_DIVIDE:
        hv_lapic_timer_set_divide_locked(vp, value & DIVIDE_BITS);
        return true;
    case REGISTER_VERSION:
    case REGISTER_APR:
    case REGISTER_PPR:
    case REGISTER_RRD:
    case REGISTER_CURRENT_COUNT:
        return true; /* read-only */
    default:
        return is_vector_register(offset);
    }
}

static void write_locked(struct hv_vp *vp, uint32_t offset, uint32_t value)
{
    uint64_t began = hv_cost_begin(vp, HV_VPV_PendingInterrupts);
    bool let_through;

    hv_vp_lock_take(&vp->lock);
    hv_lapic_collect_locked(vp);
    let_through = offset == REGISTER_TPR && !vp->lapic->line;
    if (!write_register(vp, offset, value))
        hv_lapic_error_locked(vp, LAPIC_ERROR_REGISTER);
    hv_lapic_update_locked(vp, true);
    let_through = let_through && vp->lapic->line;
    hv_vp_lock_drop(&vp->lock);
    if (!let_through)
        return;
    HV_COUNT(vp, PendingInterrupts);
    hv_cost_end(vp, HV_VPV_PendingInterrupts, began);
}

/* An access by the guest, in memory or as an MSR. */
static void count_access(struct hv_vp *vp, uint32_t offset)
{
    if (offset == REGISTER_TPR)
        HV_COUNT(vp, ApicTprAccesses);
    else if (offset == REGISTER_EOI)
        HV_COUNT(vp, ApicEoiAccesses);
}

/* -- After a restore -- */

static uint64_t base_bits(const struct hv_vp *vp)
{
    return LAPIC_BASE_BOOT | LAPIC_BASE_ENABLE | LAPIC_BASE_X2APIC | ((vp->hv->gpa_limit - 1) & HV_PAGE_MASK);
}

static void restore_base(struct hv_vp *vp)
{
    uint64_t base = atomic_load(&vp->lapic->base) & base_bits(vp);

    if (!(base & LAPIC_BASE_ENABLE) || !hv_lapic_has_x2apic(vp->partition))
        base &= ~LAPIC_BASE_X2APIC;
    atomic_store(&vp->lapic->base, base);
}

static void drop_illegal(uint32_t vectors[8])
{
    vectors[0] &= ~((1u << LAPIC_FIRST_VECTOR) - 1);
}

void hv_lapic_restored(struct hv_vp *vp)
{
    struct hv_lapic *lapic = vp->lapic;

    hv_vp_lock_take(&vp->lock);
    restore_base(vp);
    atomic_store(&lapic->id, atomic_load(&lapic->id) & 0xFF);
    atomic_store(&lapic->svr, atomic_load(&lapic->svr) & SVR_BITS);
    drop_illegal(lapic->irr);
    drop_illegal(lapic->isr);
    lapic->tpr &= 0xFF;
    lapic->icr_low &= ICR_BITS;
    for (unsigned i = 0; i < LVT_ENTRIES; i++)
        lapic->lvt[i] &= lvt_bits(vp, i);
    lapic->divide &= DIVIDE_BITS;
    hv_lapic_timer_restored_locked(vp);
    hv_lapic_update_locked(vp, false);
    vp->hv->ops->set_line(vp->hv->context, vp->handle, HV_LINE_INTERRUPT, lapic->line);
    hv_vp_lock_drop(&vp->lock);
}

/* -- In memory -- */

hv_gpa hv_lapic_page(const struct hv_vp *vp)
{
    uint64_t base = vp->lapic ? atomic_load(&vp->lapic->base) : 0;

    if (!(base & LAPIC_BASE_ENABLE) || (base & LAPIC_BASE_X2APIC))
        return HV_LAPIC_NO_PAGE;
    return base & HV_PAGE_MASK;
}

/* An instruction that accesses the page is one that the hypervisor emulates. */
static uint64_t begin_emulation(struct hv_vp *vp)
{
    HV_COUNT(vp, ApicMmioAccesses);
    return hv_event_begin(vp, HV_VPV_EmulatedInstructions);
}

uint32_t hv_lapic_read(struct hv_vp *vp, uint32_t offset)
{
    uint32_t value;
    uint64_t began = begin_emulation(vp);

    HV_LOG(vp, IM_EMULATED_INSTRUCTION, hv_event_rip(vp));
    if (offset % 0x10)
        return 0; /* what lies between registers is undefined */
    if (offset == REGISTER_TPR)
        HV_COUNT(vp, ApicTprAccesses);
    hv_vp_lock_take(&vp->lock);
    hv_lapic_collect_locked(vp);
    if (!read_register(vp, offset, &value)) {
        hv_lapic_error_locked(vp, LAPIC_ERROR_REGISTER);
        hv_lapic_update_locked(vp, true);
    }
    hv_vp_lock_drop(&vp->lock);
    hv_cost_end(vp, HV_VPV_EmulatedInstructions, began);
    return value;
}

void hv_lapic_write(struct hv_vp *vp, uint32_t offset, uint32_t value)
{
    HV_LOG(vp, IM_EMULATED_INSTRUCTION, hv_event_rip(vp));
    uint64_t began = begin_emulation(vp);

    if (offset % 0x10)
        return;
    count_access(vp, offset);
    if (offset == REGISTER_EOI)
        hv_lapic_eoi(vp);
    else
        write_locked(vp, offset, value);
    if (offset == REGISTER_ICR_LOW)
        hv_lapic_send_icr(vp);
    hv_cost_end(vp, HV_VPV_EmulatedInstructions, began);
}

/* -- What there are other ways to -- */

uint64_t hv_lapic_read_icr(struct hv_vp *vp)
{
    uint64_t value;

    hv_vp_lock_take(&vp->lock);
    value = (uint64_t)vp->lapic->icr_high << 32 | vp->lapic->icr_low;
    hv_vp_lock_drop(&vp->lock);
    return value;
}

void hv_lapic_write_icr(struct hv_vp *vp, uint64_t value)
{
    struct hv_lapic *lapic = vp->lapic;

    hv_vp_lock_take(&vp->lock);
    lapic->icr_low = (uint32_t)value & ICR_BITS;
    lapic->icr_high = (uint32_t)(value >> 32) & (hv_lapic_is_x2apic(lapic) ? UINT32_MAX : 0xFF000000u);
    hv_vp_lock_drop(&vp->lock);
    hv_lapic_send_icr(vp);
}

uint8_t hv_lapic_read_tpr(struct hv_vp *vp)
{
    uint8_t value;

    hv_vp_lock_take(&vp->lock);
    value = (uint8_t)vp->lapic->tpr;
    hv_vp_lock_drop(&vp->lock);
    return value;
}

void hv_lapic_write_tpr(struct hv_vp *vp, uint8_t value)
{
    write_locked(vp, REGISTER_TPR, value);
}

uint8_t hv_lapic_read_cr8(struct hv_vp *vp)
{
    uint8_t value = hv_lapic_read_tpr(vp) >> 4;

    HV_LOG(vp, IM_CR_READ, hv_event_rip(vp), 8, value);
    return value;
}

void hv_lapic_write_cr8(struct hv_vp *vp, uint8_t value)
{
    HV_LOG(vp, IM_CR_WRITE, hv_event_rip(vp), 8, value);
    hv_lapic_write_tpr(vp, (uint8_t)(value << 4));
}

uint32_t hv_lapic_get_initial_id(const struct hv_vp *vp)
{
    return __atomic_load_n(&vp->initial_apic_id, __ATOMIC_RELAXED);
}

void hv_lapic_set_initial_id(struct hv_vp *vp, uint32_t id)
{
    __atomic_store_n(&vp->initial_apic_id, id, __ATOMIC_RELAXED);
}

bool hv_lapic_waits_for_sipi(struct hv_vp *vp)
{
    bool waits;

    hv_vp_lock_take(&vp->lock);
    waits = vp->lapic->waits_for_sipi;
    hv_vp_lock_drop(&vp->lock);
    return waits;
}

/* -- IA32_APIC_BASE -- */

bool hv_lapic_has_x2apic(const struct hv_partition *partition)
{
    return partition->creation_flags & HV_CREATE_X2APIC; /* which exist in the later generation only */
}

uint64_t hv_lapic_get_base(const struct hv_vp *vp)
{
    return atomic_load(&vp->lapic->base);
}

/* Off, xAPIC, x2APIC: on through xAPIC, and out of x2APIC only by switching it off. */
static bool base_is_allowed(const struct hv_vp *vp, uint64_t old, uint64_t new)
{
    if (new & ~base_bits(vp))
        return false;
    if (!(new &LAPIC_BASE_X2APIC))
        return !((old & LAPIC_BASE_X2APIC) && (new &LAPIC_BASE_ENABLE));
    return (new &LAPIC_BASE_ENABLE) && (old & LAPIC_BASE_ENABLE) && hv_lapic_has_x2apic(vp->partition);
}

bool hv_lapic_set_base(struct hv_vp *caller, struct hv_vp *vp, uint64_t value)
{
    struct hv_lapic *lapic = vp->lapic;
    hv_gpa page = hv_lapic_page(vp);
    uint64_t old;
    bool allowed;

    hv_vp_lock_take(&vp->lock);
    old = atomic_load(&lapic->base);
    allowed = base_is_allowed(vp, old, value);
    if (allowed) {
        hv_lapic_collect_locked(vp);
        if ((old & LAPIC_BASE_ENABLE) && !(value & LAPIC_BASE_ENABLE))
            hv_lapic_clear_locked(vp);
        /* Which one is the boot processor does not change (TLFS 10.1.5). */
        atomic_store(&lapic->base, (value & ~LAPIC_BASE_BOOT) | (old & LAPIC_BASE_BOOT));
        hv_lapic_update_locked(vp, true);
    }
    hv_vp_lock_drop(&vp->lock);
    if (allowed && page != hv_lapic_page(vp)) {
        struct hv_vp_set set = {{0}};

        set.bank[vp->handle / 64] = UINT64_C(1) << (vp->handle % 64);
        hv_gpa_changed(vp->partition->gpa_space);
        hv_flush_second_stage(vp->hv, caller, &set);
    }
    return allowed;
}

/* -- x2APIC registers -- */

static uint32_t offset_of(uint32_t index)
{
    return (index - X2APIC_FIRST) * 0x10;
}

static enum hv_exit read_x2apic(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    uint32_t low = 0;
    bool exists;

    if (!hv_lapic_is_x2apic(vp->lapic))
        return HV_EXIT_GP;
    if (offset == REGISTER_TPR)
        HV_COUNT(vp, ApicTprAccesses);
    if (offset == REGISTER_ICR_LOW) {
        *value = hv_lapic_read_icr(vp);
        return HV_EXIT_DONE;
    }
    hv_vp_lock_take(&vp->lock);
    hv_lapic_collect_locked(vp);
    exists = read_register(vp, offset, &low);
    hv_vp_lock_drop(&vp->lock);
    *value = low;
    return exists ? HV_EXIT_DONE : HV_EXIT_GP;
}

/* Bits that may be written in x2APIC mode; -1: the register is read-only, or does not exist. */
static int64_t x2apic_bits(const struct hv_vp *vp, uint32_t offset)
{
    if (lvt_entry(offset) < LVT_ENTRIES)
        return (int64_t)lvt_bits(vp, lvt_entry(offset));
    switch (offset) {
    case REGISTER_TPR:
    case REGISTER_SELF_IPI:
        return 0xFF;
    case REGISTER_EOI:
    case REGISTER_ESR:
        return 0;
    case REGISTER_SVR:
        return SVR_BITS;
    case REGISTER_INITIAL_COUNT:
        return UINT32_MAX;
    case REGISTER_DIVIDE:
        return DIVIDE_BITS;
    default:
        return -1;
    }
}

static enum hv_exit write_x2apic(struct hv_vp *vp, uint32_t offset, uint64_t value)
{
    int64_t bits = x2apic_bits(vp, offset);

    if (!hv_lapic_is_x2apic(vp->lapic))
        return HV_EXIT_GP;
    if (offset == REGISTER_ICR_LOW) {
        if ((uint32_t)value & ~ICR_BITS)
            return HV_EXIT_GP;
        hv_lapic_write_icr(vp, value);
        return HV_EXIT_DONE;
    }
    if (bits < 0 || (value & ~(uint64_t)bits))
        return HV_EXIT_GP;
    count_access(vp, offset);
    if (offset == REGISTER_EOI)
        hv_lapic_eoi(vp);
    else if (offset == REGISTER_SELF_IPI)
        hv_lapic_send_self(vp, (uint8_t)value);
    else
        write_locked(vp, offset, (uint32_t)value);
    return HV_EXIT_DONE;
}

/* -- MSRs -- */

bool hv_lapic_has_deadline(const struct hv_partition *partition)
{
    return partition->hv->config.generation == HV_GEN_CURRENT;
}

enum hv_exit hv_lapic_rdmsr(struct hv_vp *vp, uint32_t index, uint64_t *value)
{
    if (index == MSR_APIC_BASE) {
        *value = hv_lapic_get_base(vp);
        return HV_EXIT_DONE;
    }
    if (index == MSR_TSC_DEADLINE && hv_lapic_has_deadline(vp->partition)) {
        hv_vp_lock_take(&vp->lock);
        *value = vp->lapic->deadline;
        hv_vp_lock_drop(&vp->lock);
        return HV_EXIT_DONE;
    }
    if (index >= X2APIC_FIRST && index <= X2APIC_LAST)
        return read_x2apic(vp, offset_of(index), value);
    return HV_EXIT_GP;
}

enum hv_exit hv_lapic_wrmsr(struct hv_vp *vp, uint32_t index, uint64_t value)
{
    if (index == MSR_APIC_BASE)
        return hv_lapic_set_base(vp, vp, value) ? HV_EXIT_DONE : HV_EXIT_GP;
    if (index == MSR_TSC_DEADLINE && hv_lapic_has_deadline(vp->partition)) {
        hv_vp_lock_take(&vp->lock);
        hv_lapic_collect_locked(vp);
        hv_lapic_timer_set_deadline_locked(vp, value);
        hv_lapic_update_locked(vp, true);
        hv_vp_lock_drop(&vp->lock);
        return HV_EXIT_DONE;
    }
    if (index >= X2APIC_FIRST && index <= X2APIC_LAST)
        return write_x2apic(vp, offset_of(index), value);
    return HV_EXIT_GP;
}
