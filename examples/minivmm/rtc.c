/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The child's clock of the day: it reads the machine's own, and cannot set it. */
#include "vmm.h"

#define INDEX 0
#define DATA 1
#define INDEX_MASK 0x7F /* bit 7 masks NMIs on a PC */

static uint32_t rtc_read(struct vmm *vmm, unsigned offset, unsigned size)
{
    (void)size;
    if (offset == INDEX) {
        return 0xFF; /* write-only */
    }
    outb(PORT_RTC + INDEX, vmm->devices->rtc_index);
    return inb(PORT_RTC + DATA);
}

static void rtc_write(struct vmm *vmm, unsigned offset, unsigned size, uint32_t value)
{
    (void)size;
    if (offset == INDEX) {
        vmm->devices->rtc_index = value & INDEX_MASK;
    }
}

const struct device rtc_device = {.base = PORT_RTC, .size = 2, .read = rtc_read, .write = rtc_write};
