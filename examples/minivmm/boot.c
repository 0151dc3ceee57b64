/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Linux's 64-bit boot protocol (Documentation/arch/x86/boot.rst): the kernel's protected-mode part in memory, a page of
 * parameters, the first VP in long mode at the entry with that page's address in RSI.
 */
#include "vmm.h"

/* Offsets in the kernel image and, but for the first, in the page of parameters as well */
#define HEADER_BEGIN 0x1F1
#define SETUP_SECTORS 0x1F1 /* u8 */
#define HEADER_SIZE 0x201 /* u8: bytes beyond 0x202 */
#define HEADER_MAGIC 0x202 /* "HdrS" */
#define PROTOCOL_VERSION 0x206 /* u16 */
#define LOADER_TYPE 0x210 /* u8 */
#define INITRD_ADDRESS 0x218 /* u32 */
#define INITRD_SIZE 0x21C /* u32 */
#define COMMAND_LINE 0x228 /* u32 */
#define INITRD_LIMIT 0x22C /* u32 */
#define EXTENDED_FLAGS 0x236 /* u16 */
#define COMMAND_LINE_LIMIT 0x238 /* u32 */
#define PREFERRED_ADDRESS 0x258 /* u64 */
#define INIT_SIZE 0x260 /* u32: memory that the kernel needs from there on until it is up */

/* Offsets that only the page of parameters has */
#define ACPI_RSDP 0x070 /* u64 */
#define MAP_COUNT 0x1E8 /* u8 */
#define MAP 0x2D0

#define MAGIC 0x53726448u
#define VERSION_NEEDED 0x20C
#define HAS_64_BIT_ENTRY 0x1
#define ENTRY_64 0x200
#define LOADER_UNDEFINED 0xFF
#define SECTOR 512

#define MAP_RAM 1
#define MAP_RESERVED 2
struct __attribute__((packed)) map_entry {
    uint64_t begin, size;
    uint32_t type;
};

static uint64_t field(const uint8_t *from, unsigned offset, unsigned size)
{
    uint64_t value = 0;
    memcpy(&value, from + offset, size);
    return value;
}

static void set_field(uint8_t *to, unsigned offset, unsigned size, uint64_t value)
{
    memcpy(to + offset, &value, size);
}

static _Noreturn void refuse(const char *why)
{
    guest_panic("minivmm: %s", why);
}

/* Copy into the child's memory, which must have it all. */
static void copy_in(const struct vmm *vmm, uint64_t gpa, const void *from, size_t size)
{
    void *to = child_memory(&vmm->child, gpa, size);
    if (!to) {
        refuse("the child has too little memory for this kernel and RAM disk");
    }
    memcpy(to, from, size);
}

static void check_kernel(const struct blob_part *kernel)
{
    if (kernel->size < 0x1000 || field(kernel->data, HEADER_MAGIC, 4) != MAGIC) {
        refuse("the blob's kernel is no bzImage");
    }
    if (field(kernel->data, PROTOCOL_VERSION, 2) < VERSION_NEEDED ||
        !(field(kernel->data, EXTENDED_FLAGS, 2) & HAS_64_BIT_ENTRY)) {
        refuse("this kernel has no 64-bit entry");
    }
}

/* The part behind the real-mode code, at the address it likes best: then it need not move itself. */
static uint64_t load_kernel(const struct vmm *vmm, const struct blob_part *kernel)
{
    size_t sectors = field(kernel->data, SETUP_SECTORS, 1), skip = ((sectors ? sectors : 4) + 1) * SECTOR;
    uint64_t at = field(kernel->data, PREFERRED_ADDRESS, 8), needs = field(kernel->data, INIT_SIZE, 4);
    if (skip > kernel->size || !child_memory(&vmm->child, at, needs)) {
        refuse("the child has too little memory for this kernel");
    }
    copy_in(vmm, at, kernel->data + skip, kernel->size - skip);
    return at;
}

/* As high as it may be, out of the kernel's way. */
static uint64_t load_initrd(const struct vmm *vmm, const struct blob_part *initrd, uint8_t *parameters)
{
    uint64_t limit = field(parameters, INITRD_LIMIT, 4) + 1;
    uint64_t top = limit < vmm->memory ? limit : vmm->memory;
    if (initrd->size > top) {
        refuse("the child has too little memory for this RAM disk");
    }
    uint64_t at = (top - initrd->size) & ~(uint64_t)(PAGE_SIZE - 1);
    copy_in(vmm, at, initrd->data, initrd->size);
    return at;
}

static void load_command_line(const struct vmm *vmm, const struct blob_part *text, uint8_t *parameters)
{
    if (text->size > field(parameters, COMMAND_LINE_LIMIT, 4) || text->size >= PAGE_SIZE) {
        refuse("the kernel's command line is too long");
    }
    copy_in(vmm, GPA_COMMAND_LINE, text->data, text->size);
    copy_in(vmm, GPA_COMMAND_LINE + text->size, "", 1);
    set_field(parameters, COMMAND_LINE, 4, GPA_COMMAND_LINE);
}

/* What BIOS call E820 would tell. The hole of a PC is there only so that the kernel finds its tables where it looks. */
static void describe_memory(const struct vmm *vmm, uint8_t *parameters)
{
    const struct map_entry map[] = {
        {0, GPA_LOW_RAM_END, MAP_RAM},
        {GPA_LOW_RAM_END, GPA_HIGH_RAM - GPA_LOW_RAM_END, MAP_RESERVED},
        {GPA_HIGH_RAM, vmm->memory - GPA_HIGH_RAM, MAP_RAM},
    };
    memcpy(parameters + MAP, map, sizeof(map));
    set_field(parameters, MAP_COUNT, 1, sizeof(map) / sizeof(map[0]));
}

static uint8_t *begin_parameters(const struct vmm *vmm, const struct blob_part *kernel)
{
    uint8_t *parameters = child_memory(&vmm->child, GPA_BOOT_PARAMS, PAGE_SIZE);
    unsigned end = HEADER_MAGIC + (unsigned)field(kernel->data, HEADER_SIZE, 1);
    memset(parameters, 0, PAGE_SIZE);
    memcpy(parameters + HEADER_BEGIN, kernel->data + HEADER_BEGIN, end - HEADER_BEGIN);
    set_field(parameters, LOADER_TYPE, 1, LOADER_UNDEFINED);
    return parameters;
}

void linux_load(struct vmm *vmm)
{
    struct blob_part kernel = blob_get("kernel"), command_line = blob_get("cmdline"), initrd;
    check_kernel(&kernel);
    uint8_t *parameters = begin_parameters(vmm, &kernel);
    uint64_t entry = load_kernel(vmm, &kernel) + ENTRY_64;
    if (blob_find("initrd", &initrd)) {
        set_field(parameters, INITRD_ADDRESS, 4, load_initrd(vmm, &initrd, parameters));
        set_field(parameters, INITRD_SIZE, 4, initrd.size);
    }
    load_command_line(vmm, &command_line, parameters);
    describe_memory(vmm, parameters);
    set_field(parameters, ACPI_RSDP, 8, acpi_build(vmm));
    child_make_page_tables(&vmm->child, GPA_PAGE_TABLES, 4);
    child_make_gdt(&vmm->child, 0, GPA_GDT, true);
    child_enter_long_mode(&vmm->child, 0, entry, GPA_PAGE_TABLES, GPA_BOOT_PARAMS);
}
