/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs a test guest, unchanged, in a child partition. It stands for the machine that the guest would have had to
 * itself: the debug port, the exit port, the number of processors, the HPET, the firmware's ROM, and the bus where
 * nothing is. Everything else is the hypervisor's.
 *
 * The blob: "image", the guest's ELF file; "cmdline"; "vps"; "privileges", the child's, where it has others than usual.
 */
#include "root.h"

#define VECTOR_SINT0 0x50
#define MEMORY (UINT64_C(128) << 20)

#define PORT_EXIT 0xF4
#define PORT_DEBUG 0xE9
#define PORT_FW_CFG 0x510 /* selector; the next one is data */
#define FW_CFG_NB_CPUS 5
#define PORT_RESET_CONTROL 0xCF9
#define RESET_NOW 0x04
#define RFLAGS_TF 0x100u

#define GPA_START_INFO 0x1000
#define GPA_MEMORY_MAP 0x1100
#define GPA_COMMAND_LINE 0x2000
#define GPA_GDT 0x3000
#define GPA_FIRMWARE 0x4000
#define GPA_HPET 0xFED00000u
#define GPA_ROM 0xFFFFF000u

struct loader {
    struct child child;
    uintptr_t memory; /* the child's, in the root */
    unsigned vps;
    uint16_t fw_cfg_item;
    unsigned fw_cfg_offset;
    bool reset_wanted;
    /* A page of ones that stands where nothing is, for an access that is not the guest's own instruction. */
    uint64_t dummy_gpa;
    uintptr_t dummy;
};

/* -- The image -- */

struct elf_ident {
    uint8_t magic[4], class;
};
#define ELF_CLASS_64 2
struct elf32 {
    uint8_t ident[16];
    uint16_t type, machine;
    uint32_t version, entry, program_offset, section_offset, flags;
    uint16_t size, program_size, programs;
};
struct elf64 {
    uint8_t ident[16];
    uint16_t type, machine;
    uint32_t version;
    uint64_t entry, program_offset, section_offset;
    uint32_t flags;
    uint16_t size, program_size, programs;
};
struct elf32_program {
    uint32_t type, offset, virtual, physical, file_size, memory_size;
};
struct elf64_program {
    uint32_t type, flags;
    uint64_t offset, virtual, physical, file_size, memory_size;
};
#define ELF_LOAD 1

static void load_segment(const struct loader *loader, const struct blob_part *image, uint64_t offset, uint64_t physical,
                         uint64_t file_size, uint64_t memory_size)
{
    uint8_t *to = child_memory(&loader->child, physical, memory_size);
    if (!to || offset > image->size || file_size > image->size - offset) {
        guest_panic("a segment of the image does not fit");
    }
    memset(to, 0, memory_size);
    memcpy(to, image->data + offset, file_size);
}

static uint32_t load32(const struct loader *loader, const struct blob_part *image)
{
    const struct elf32 *elf = (const void *)image->data;
    for (unsigned i = 0; i < elf->programs; i++) {
        const struct elf32_program *p = (const void *)(image->data + elf->program_offset + i * elf->program_size);
        if (p->type == ELF_LOAD) {
            load_segment(loader, image, p->offset, p->physical, p->file_size, p->memory_size);
        }
    }
    return elf->entry;
}

static uint32_t load64(const struct loader *loader, const struct blob_part *image)
{
    const struct elf64 *elf = (const void *)image->data;
    for (unsigned i = 0; i < elf->programs; i++) {
        const struct elf64_program *p = (const void *)(image->data + elf->program_offset + i * elf->program_size);
        if (p->type == ELF_LOAD) {
            load_segment(loader, image, p->offset, p->physical, p->file_size, p->memory_size);
        }
    }
    return (uint32_t)elf->entry;
}

/* -- The boot protocol: struct hvm_start_info with a memory map -- */

struct start_info {
    uint32_t magic, version, flags, modules;
    uint64_t module_list, command_line, rsdp, memory_map;
    uint32_t memory_ranges, reserved;
};
struct memory_range {
    uint64_t address, size;
    uint32_t type, reserved;
};

static void describe_machine(const struct loader *loader)
{
    struct blob_part command_line = blob_get("cmdline");
    struct start_info *info = child_memory(&loader->child, GPA_START_INFO, sizeof(*info));
    struct memory_range *map = child_memory(&loader->child, GPA_MEMORY_MAP, sizeof(*map));
    char *text = child_memory(&loader->child, GPA_COMMAND_LINE, PAGE_SIZE);
    memset(text, 0, PAGE_SIZE);
    memcpy(text, command_line.data, command_line.size < PAGE_SIZE ? command_line.size : PAGE_SIZE - 1);
    *map = (struct memory_range){.address = 0x100000, .size = MEMORY - 0x100000, .type = 1};
    *info = (struct start_info){.magic = 0x336EC578,
                                .version = 1,
                                .command_line = GPA_COMMAND_LINE,
                                .memory_map = GPA_MEMORY_MAP,
                                .memory_ranges = 1};
}

/* -- Devices -- */

static void debug_write(struct intercept *intercept, void *context)
{
    (void)context;
    outb(PORT_DEBUG, (uint8_t)intercept->io.value);
}

static uint8_t fw_cfg_read(struct loader *loader)
{
    unsigned offset = loader->fw_cfg_offset++;
    return loader->fw_cfg_item == FW_CFG_NB_CPUS && offset < 4 ? (uint8_t)(loader->vps >> offset * 8) : 0;
}

static enum intercept_action io_access(struct intercept *intercept, void *context)
{
    struct loader *loader = context;
    if (intercept->io.port == PORT_DEBUG && intercept->io.string) {
        return string_io(intercept, &loader->child, debug_write, NULL);
    }
    switch (intercept->io.port) {
    case PORT_DEBUG:
        if (intercept->io.write) {
            debug_write(intercept, NULL);
        } else {
            intercept->io.value = PORT_DEBUG; /* how a guest finds the port */
        }
        return INTERCEPT_DONE;
    case PORT_EXIT:
        if (intercept->io.write) {
            guest_exit(intercept->io.value);
        }
        return INTERCEPT_DONE;
    case PORT_FW_CFG:
        loader->fw_cfg_item = (uint16_t)intercept->io.value;
        loader->fw_cfg_offset = 0;
        return INTERCEPT_DONE;
    case PORT_FW_CFG + 1:
        intercept->io.value = fw_cfg_read(loader);
        return INTERCEPT_DONE;
    case PORT_RESET_CONTROL:
        loader->reset_wanted = intercept->io.write && intercept->io.value & RESET_NOW;
        return loader->reset_wanted ? INTERCEPT_END : INTERCEPT_DONE;
    default:
        intercept_describe(intercept);
        guest_panic("port %x was not asked for", intercept->io.port);
    }
}

/* The machine's HPET, with the access that the guest makes. The counter is the same, so its time is the machine's. */
static void hpet_access(struct mmio *mmio)
{
    uintptr_t at = (uintptr_t)mmio->gpa;
    if (mmio->size == 8) {
        if (mmio->write) {
            *(volatile uint64_t *)at = mmio->value;
        } else {
            mmio->value = *(volatile uint64_t *)at;
        }
    } else if (mmio->size == 4) {
        if (mmio->write) {
            *(volatile uint32_t *)at = (uint32_t)mmio->value;
        } else {
            mmio->value = *(volatile uint32_t *)at;
        }
    }
}

/* For one instruction: a single step tells when it is over. */
static void put_dummy(struct loader *loader, const struct intercept *intercept, uint64_t page)
{
    memset((void *)loader->dummy, 0xFF, PAGE_SIZE);
    child_map(&loader->child, page, loader->dummy, PAGE_SIZE, CHILD_RAM);
    loader->dummy_gpa = page;
    child_intercept_exception(&loader->child, VECTOR_DB);
    child_set_register(&loader->child, intercept->vp, HV_REGISTER_Rflags,
                       intercept_header(intercept)->rflags | RFLAGS_TF);
}

static enum intercept_action exception(struct intercept *intercept, void *context)
{
    struct loader *loader = context;
    if (intercept->exception.vector != VECTOR_DB || !loader->dummy_gpa) {
        child_inject_exception(&loader->child, intercept->vp, intercept->exception.vector,
                               intercept->exception.has_error, intercept->exception.error);
        return INTERCEPT_AGAIN;
    }
    child_unmap(&loader->child, loader->dummy_gpa, PAGE_SIZE);
    loader->dummy_gpa = 0;
    child_set_register(&loader->child, intercept->vp, HV_REGISTER_Rflags,
                       intercept_header(intercept)->rflags & ~(uint64_t)RFLAGS_TF);
    return INTERCEPT_AGAIN;
}

/*
 * An access where the child has no memory. The guest's own moves are done for it. Others are those the hypervisor makes
 * on its behalf, such as to a hypercall's parameters: they find ones for as long as the instruction takes, and what
 * they write is lost, as on the machine (TLFS 11.8).
 */
static enum intercept_action memory_access(struct intercept *intercept, void *context)
{
    struct loader *loader = context;
    uint64_t page = intercept->memory.gpa & ~(uint64_t)(PAGE_SIZE - 1);
    struct mmio mmio;
    if (intercept->memory.mapped) {
        /* A write to the ROM: what the machine's partition gets for a right it has not (TLFS 11.8). */
        child_inject_exception(&loader->child, intercept->vp, VECTOR_MC, false, 0);
        return INTERCEPT_AGAIN;
    }
    if (intercept->memory.gva_valid && mmio_decode(intercept, &mmio)) {
        mmio.value = mmio.write ? mmio.value : UINT64_MAX;
        if (page == GPA_HPET) {
            hpet_access(&mmio);
        }
        mmio_finish(intercept, &mmio);
        return INTERCEPT_DONE;
    }
    put_dummy(loader, intercept, page);
    return INTERCEPT_AGAIN;
}

static enum intercept_action other(struct intercept *intercept, void *context)
{
    struct loader *loader = context;
    if (intercept->message.type == (uint32_t)HV_MESSAGE_UnrecoverableException) {
        loader->reset_wanted = true; /* what a triple fault is on a machine */
        return INTERCEPT_END;
    }
    intercept_describe(intercept);
    guest_panic("the guest cannot go on in its partition");
}

/* An MSR that is not there */
static enum intercept_action msr_access(struct intercept *intercept, void *context)
{
    (void)context;
    intercept->msr.fault = true;
    return INTERCEPT_DONE;
}

/* -- Life -- */

/* What the firmware of the guest's machine would do first: take the place of the reference TSC page back. */
CHILD_PROGRAM(firmware, 32, "mov $0x40000021, %ecx; xor %eax, %eax; xor %edx, %edx; wrmsr; jmp *%edi")

static void load(struct loader *loader)
{
    struct blob_part image = blob_get("image");
    const struct elf_ident *ident = (const void *)image.data;
    struct child *child = &loader->child;
    bool has_page = child->privileges & HV_PRIVILEGE_AccessPartitionReferenceTsc;
    describe_machine(loader);
    uint32_t entry = ident->class == ELF_CLASS_64 ? load64(loader, &image) : load32(loader, &image);
    child_put_program(child, GPA_FIRMWARE, firmware, firmware_end);
    child_make_gdt(child, 0, GPA_GDT, false);
    child_enter_protected_mode(child, 0, has_page ? GPA_FIRMWARE : entry, GPA_START_INFO);
    child_set_register(child, 0, HV_REGISTER_Rdi, entry);
    loader->reset_wanted = false;
    for (unsigned i = 0; i < loader->vps; i++) {
        child_resume(child, i);
    }
}

static void create(struct loader *loader)
{
    static const uint16_t ports[] = {PORT_EXIT, PORT_DEBUG, PORT_FW_CFG, PORT_FW_CFG + 1, PORT_RESET_CONTROL};
    struct child *child = &loader->child;
    child->privileges = blob_number("privileges", CHILD_PRIVILEGES);
    child_create(child);
    child_map(child, 0, loader->memory, MEMORY, CHILD_RAM);
    child_map(child, GPA_ROM, ram_take_page(), PAGE_SIZE, HV_MAP_READ | HV_MAP_EXECUTE_2008R2);
    for (unsigned i = 0; i < loader->vps; i++) {
        child_add_vp(child, i);
    }
    for (unsigned i = 0; i < sizeof(ports) / sizeof(ports[0]); i++) {
        child_intercept_ports(child, ports[i], 1);
    }
    child_intercept_msrs(child);
    loader->dummy_gpa = 0;
}

/*
 * A reset of the guest's machine: new VPs, and the registers of the whole partition at their reset values. One of them
 * can be locked until a reset (bit 1 of the hypercall page's, later than 2.0a), and then it takes a new partition.
 */
static void reset(struct loader *loader)
{
    static const struct hv_register_assignment zero[] = {{.name = HV_REGISTER_Hypercall},
                                                         {.name = HV_REGISTER_GuestOsId}};
    struct child *child = &loader->child;
    struct hv_in_set_vp_registers input = {.partition = child->id};
    if (loader->dummy_gpa) {
        child_unmap(child, loader->dummy_gpa, PAGE_SIZE);
        loader->dummy_gpa = 0;
    }
    for (unsigned i = 0; i < loader->vps; i++) {
        child_delete_vp(child, i);
        child_add_vp(child, i);
    }
    if (hvcall_set_vp_registers(&input, zero, NULL, 2, NULL) != HV_STATUS_SUCCESS ||
        child_get_register(child, 0, HV_REGISTER_Hypercall) != 0) {
        child_delete(child);
        create(loader);
    }
}

void guest_main(void)
{
    static const struct intercept_handlers handlers = {
        .io = io_access, .msr = msr_access, .memory = memory_access, .exception = exception, .other = other};
    static struct loader loader;
    loader.vps = (unsigned)blob_number("vps", 1);
    loader.memory = ram_reserve(MEMORY, LARGE_PAGE_SIZE);
    loader.dummy = ram_take_page();
    root_enable();
    intercept_enable(VECTOR_SINT0);
    create(&loader);
    for (;;) {
        load(&loader);
        intercept_loop(&handlers, &loader, NULL);
        if (!loader.reset_wanted) {
            guest_panic("the loop ended without a reset");
        }
        reset(&loader);
    }
}
