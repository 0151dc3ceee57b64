/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Power-off and reset: the sleep registers of hardware-reduced ACPI (ACPI 6.5, 4.8.3.7), and a reset register. acpi.c
 * tells the child where they are.
 */
#include "vmm.h"

#define SLEEP_ENABLE 0x20
#define SLEEP_TYPE(value) ((value) >> 2 & 7)
#define SLEEP_TYPE_S5 5

static uint32_t power_read(struct vmm *vmm, unsigned offset, unsigned size)
{
    (void)vmm, (void)offset, (void)size;
    return 0;
}

static void power_write(struct vmm *vmm, unsigned offset, unsigned size, uint32_t value)
{
    (void)size;
    if (offset == POWER_SLEEP_CONTROL && value & SLEEP_ENABLE && SLEEP_TYPE(value) == SLEEP_TYPE_S5) {
        vmm->end = END_POWER_OFF;
    } else if (offset == POWER_RESET && (value & 0xFF) == POWER_RESET_VALUE) {
        vmm->end = END_RESET;
    }
}

const struct device power_device = {.base = PORT_POWER, .size = 3, .read = power_read, .write = power_write};
