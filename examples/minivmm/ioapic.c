/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The child's I/O APIC: 24 inputs, of which the UART has one. It is a device in memory, so an access is a memory
 * intercept. The interrupts it sends go to the local APICs, which are the hypervisor's: HvAssertVirtualInterrupt.
 * Inputs are edge-triggered; a level-triggered one would also need the EOI messages that the hypervisor sends then.
 */
#include "vmm.h"

#define INPUTS 24

/* The two windows */
#define WINDOW_SELECT 0x00
#define WINDOW_DATA 0x10

/* Registers behind them */
#define REGISTER_ID 0x00
#define REGISTER_VERSION 0x01
#define REGISTER_REDIRECTION 0x10
#define VERSION (0x11 | (INPUTS - 1) << 16)

/* A redirection entry */
#define ENTRY_VECTOR 0xFFu
#define ENTRY_MODE(entry) ((entry) >> 8 & 7)
#define ENTRY_LOGICAL (1u << 11)
#define ENTRY_STATUS (1u << 12 | 1u << 14) /* read-only: delivery status, remote IRR */
#define ENTRY_MASKED (1u << 16)
#define ENTRY_DESTINATION(entry) ((entry) >> 56)

static void deliver(struct vmm *vmm, uint64_t entry)
{
    /* The architecture's delivery modes have the numbers of the hypervisor's interrupt types (TLFS 13.4.1). */
    uint64_t control = ENTRY_MODE(entry) | (entry & ENTRY_LOGICAL ? HV_INTERRUPT_LOGICAL : 0);
    unsigned status =
        child_assert_interrupt(&vmm->child, control, ENTRY_DESTINATION(entry), (uint32_t)(entry & ENTRY_VECTOR));
    if (status != HV_STATUS_SUCCESS) {
        print("minivmm: interrupt %llx is refused: %s\n", (unsigned long long)entry, hv_status_name(status));
    }
}

void ioapic_set_line(struct vmm *vmm, unsigned pin, bool level)
{
    struct ioapic *ioapic = &vmm->devices->ioapic;
    bool before = ioapic->lines >> pin & 1;
    ioapic->lines = (ioapic->lines & ~(1u << pin)) | (uint32_t)level << pin;
    if (level && !before && !(ioapic->redirection[pin] & ENTRY_MASKED)) {
        deliver(vmm, ioapic->redirection[pin]);
    }
}

static uint32_t read_register(const struct ioapic *ioapic)
{
    unsigned index = ioapic->selected;
    if (index == REGISTER_ID) {
        return (uint32_t)ioapic->id << 24;
    }
    if (index == REGISTER_VERSION) {
        return VERSION;
    }
    if (index >= REGISTER_REDIRECTION && index < REGISTER_REDIRECTION + 2 * INPUTS) {
        uint64_t entry = ioapic->redirection[(index - REGISTER_REDIRECTION) / 2];
        return (uint32_t)(index & 1 ? entry >> 32 : entry);
    }
    return 0;
}

static void write_register(struct ioapic *ioapic, uint32_t value)
{
    unsigned index = ioapic->selected;
    if (index == REGISTER_ID) {
        ioapic->id = value >> 24 & 0xF;
    } else if (index >= REGISTER_REDIRECTION && index < REGISTER_REDIRECTION + 2 * INPUTS) {
        uint64_t *entry = &ioapic->redirection[(index - REGISTER_REDIRECTION) / 2];
        if (index & 1) {
            *entry = (uint32_t)*entry | (uint64_t)value << 32;
        } else {
            *entry = (*entry & ~(uint64_t)UINT32_MAX) | (value & ~ENTRY_STATUS);
        }
    }
}

static uint32_t ioapic_read(struct vmm *vmm, unsigned offset, unsigned size)
{
    (void)size;
    return offset == WINDOW_SELECT ? vmm->devices->ioapic.selected
           : offset == WINDOW_DATA ? read_register(&vmm->devices->ioapic)
                                   : 0;
}

static void ioapic_write(struct vmm *vmm, unsigned offset, unsigned size, uint32_t value)
{
    (void)size;
    if (offset == WINDOW_SELECT) {
        vmm->devices->ioapic.selected = (uint8_t)value;
    } else if (offset == WINDOW_DATA) {
        write_register(&vmm->devices->ioapic, value);
    }
}

void ioapic_reset(struct vmm *vmm)
{
    for (unsigned i = 0; i < INPUTS; i++) {
        vmm->devices->ioapic.redirection[i] = ENTRY_MASKED;
    }
}

const struct device ioapic_device = {
    .base = GPA_IOAPIC, .size = 0x1000, .in_memory = true, .read = ioapic_read, .write = ioapic_write};
