/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the parts of the VMM share. README.md tells how they belong together. */
#ifndef MINIVMM_VMM_H
#define MINIVMM_VMM_H

#include "root.h"

#define MINIVMM_MAX_VPS 4

/* Interrupts of our own */
#define VECTOR_MESSAGE 0x50 /* SINT0 of the SynIC: an intercept */
#define VECTOR_SERIAL 0x51

/* Where things lie in the child's GPA space. */
#define GPA_BOOT_PARAMS 0x1000u /* the "zero page" of Linux's boot protocol */
#define GPA_GDT 0x2000u
#define GPA_PAGE_TABLES 0x3000u /* six pages: 4 GiB, one to one */
#define GPA_COMMAND_LINE 0xA000u
#define GPA_LOW_RAM_END 0xA0000u
#define GPA_ACPI 0xE0000u /* where firmware keeps its tables on a PC */
#define GPA_HIGH_RAM 0x100000u
#define GPA_IOAPIC 0xFEC00000u
#define GPA_DEVICE_STATE 0xFEB00000u /* struct device_state; nothing tells the child of it */
#define GPA_LAPIC 0xFEE00000u /* the hypervisor's: every VP has a local APIC without our doing */

/* Ports that exist. All others the hypervisor answers as a bus without devices does: ones are read, writes vanish. */
#define PORT_RTC 0x70
#define PORT_UART 0x3F8
#define PORT_POWER 0x600 /* sleep control, sleep status, reset: told to the child by ACPI */
#define POWER_SLEEP_CONTROL 0
#define POWER_SLEEP_STATUS 1
#define POWER_RESET 2
#define POWER_RESET_VALUE 1
#define IRQ_UART 4 /* pin of the I/O APIC */

#define UART_FIFO 16

struct uart {
    uint8_t interrupt_enable, fifo_control, line_control, modem_control, scratch;
    uint16_t divisor;
    bool transmitter_interrupt; /* the transmitter is empty, and nobody has been told */
    uint8_t received[UART_FIFO];
    unsigned received_count;
    bool line; /* level of the interrupt output */
};

struct ioapic {
    uint8_t selected;
    uint8_t id;
    uint64_t redirection[24];
    uint32_t lines; /* levels of the inputs */
};

/*
 * What devices remember. It lies in a page that the child has mapped, too, where it does not look: so it is saved and
 * restored with the child's memory, without our doing (docs/save-restore.md).
 */
struct device_state {
    struct uart uart;
    struct ioapic ioapic;
    uint8_t rtc_index;
};

enum vmm_end { END_NOT_YET, END_POWER_OFF, END_RESET, END_FAILED };

struct vmm {
    struct child child;
    unsigned vps;
    uint64_t memory; /* bytes, from GPA 0 */
    enum vmm_end end;
    struct device_state *devices;
    uintptr_t ram; /* where the child's memory lies in the root */
    struct {
        unsigned long io, msr, memory;
    } intercepts;
};

/* A device: a range of ports or of GPAs, and what an access to it does. */
struct device {
    uint64_t base;
    unsigned size;
    bool in_memory;
    uint32_t (*read)(struct vmm *vmm, unsigned offset, unsigned size);
    void (*write)(struct vmm *vmm, unsigned offset, unsigned size, uint32_t value);
};
extern const struct device uart_device, ioapic_device, rtc_device, power_device;

/* Take over what was typed at our console, as far as there is room. */
void uart_receive(struct vmm *vmm);
/* All inputs masked. */
void ioapic_reset(struct vmm *vmm);
/* Level of an input of the I/O APIC. */
void ioapic_set_line(struct vmm *vmm, unsigned pin, bool level);
/* Put the ACPI tables into the child's memory; returns the GPA of the RSDP. */
uint64_t acpi_build(const struct vmm *vmm);
/* Put kernel, RAM disk and command line into the child's memory and VP 0 at the kernel's entry. */
void linux_load(struct vmm *vmm);
/* An MSR that the hypervisor leaves to us. */
enum intercept_action msr_access(struct intercept *intercept, void *context);

/* Our own console, print()'s too: the machine's serial port, which the child's output goes to as well. */
void serial_init(void);
void serial_put(char c);
/* The next byte that was typed, or -1. */
int serial_get(void);

#endif
