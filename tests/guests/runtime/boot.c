/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From the entry code to guest_main(). */
#include "boot.h"

#include "apic.h"
#include "check.h"
#include "clock.h"
#include "console.h"
#include "paging.h"
#include "smp.h"
#include "string.h"

#define START_INFO_MAGIC 0x336EC578u

/* struct hvm_start_info of the PVH boot protocol, version 1 */
struct start_info {
    uint32_t magic, version, flags, module_count;
    uint64_t modules, command_line, rsdp;
};

char boot_command_line[1024];

static void take_command_line(uint32_t address)
{
    const struct start_info *info = (const void *)(uintptr_t)address;
    if (info->magic != START_INFO_MAGIC) {
        guest_panic("no hvm_start_info at %x: start this image with QEMU's -kernel", address);
    }
    const char *from = (const char *)(uintptr_t)info->command_line;
    for (size_t i = 0; from && from[i] && i + 1 < sizeof(boot_command_line); i++) {
        boot_command_line[i] = from[i];
    }
}

static void mask_interrupt_controllers(void)
{
    outb(0x21, 0xFF);
    outb(0xA1, 0xFF);
}

_Noreturn void guest_start(uint32_t start_info)
{
    take_command_line(start_info);
    paging_init();
    smp_init();
    interrupts_init();
    interrupts_init_cpu();
    mask_interrupt_controllers();
    apic_init();
    clock_init();
    smp_start_others();
    guest_main();
    guest_exit(0);
}
