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
#define MEMORY_RAM 1u

/* struct hvm_start_info of the PVH boot protocol, version 1, and what it points to */
struct start_info {
    uint32_t magic, version, flags, module_count;
    uint64_t modules, command_line, rsdp;
    uint64_t memory_map;
    uint32_t memory_ranges, reserved;
};
struct module {
    uint64_t address, size, command_line, reserved;
};
struct memory_range {
    uint64_t address, size;
    uint32_t type, reserved;
};

#define MAX_RANGES 32

char boot_command_line[1024];
/* Copied, since the originals lie in memory that becomes the program's. */
static struct boot_range module, ram[MAX_RANGES];

static void take_command_line(const struct start_info *info)
{
    const char *from = (const char *)(uintptr_t)info->command_line;
    for (size_t i = 0; from && from[i] && i + 1 < sizeof(boot_command_line); i++) {
        boot_command_line[i] = from[i];
    }
}

static void take_memory(const struct start_info *info)
{
    const struct memory_range *ranges = (const void *)(uintptr_t)info->memory_map;
    unsigned count = 0;
    for (uint32_t i = 0; info->version >= 1 && i < info->memory_ranges && count < MAX_RANGES; i++) {
        if (ranges[i].type == MEMORY_RAM && ranges[i].address + ranges[i].size <= UINT32_MAX) {
            uintptr_t begin = (uintptr_t)ranges[i].address;
            ram[count++] = (struct boot_range){begin, begin + (uintptr_t)ranges[i].size};
        }
    }
    if (info->module_count > 0) {
        const struct module *first = (const void *)(uintptr_t)info->modules;
        module = (struct boot_range){(uintptr_t)first->address, (uintptr_t)(first->address + first->size)};
    }
}

static void take_start_info(uint32_t address)
{
    const struct start_info *info = (const void *)(uintptr_t)address;
    if (info->magic != START_INFO_MAGIC) {
        guest_panic("no hvm_start_info at %x: start this image with QEMU's -kernel", address);
    }
    take_command_line(info);
    take_memory(info);
}

struct boot_range boot_ram_above(uintptr_t begin)
{
    for (unsigned i = 0; i < MAX_RANGES; i++) {
        if (ram[i].begin <= begin && begin < ram[i].end) {
            return (struct boot_range){begin, ram[i].end};
        }
    }
    return (struct boot_range){begin, begin};
}

struct boot_range boot_module(void)
{
    return module;
}

static void mask_interrupt_controllers(void)
{
    outb(0x21, 0xFF);
    outb(0xA1, 0xFF);
}

_Noreturn void guest_start(uint32_t start_info)
{
    take_start_info(start_info);
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
