/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ACPI tables: how the child finds its processors, its I/O APIC, its serial port and the way to switch itself off. It
 * is the "hardware-reduced" kind, which needs no power management hardware of the PC, only a few registers of our
 * choice.
 */
#include "vmm.h"

/* -- Building blocks -- */

struct builder {
    uint8_t *begin, *at;
    uint64_t gpa; /* of `begin` */
};

static uint64_t here(const struct builder *builder)
{
    return builder->gpa + (uint64_t)(builder->at - builder->begin);
}

static void put(struct builder *builder, uint64_t value, unsigned size)
{
    memcpy(builder->at, &value, size);
    builder->at += size;
}

static void put_bytes(struct builder *builder, const void *bytes, size_t size)
{
    memcpy(builder->at, bytes, size);
    builder->at += size;
}

static void align(struct builder *builder)
{
    while (here(builder) % 16) {
        put(builder, 0, 1);
    }
}

static void fix_checksum(uint8_t *table, size_t size, unsigned offset)
{
    uint8_t sum = 0;
    table[offset] = 0;
    for (size_t i = 0; i < size; i++) {
        sum = (uint8_t)(sum + table[i]);
    }
    table[offset] = (uint8_t)-sum;
}

/* The header that all tables but the RSDP begin with: signature, length, revision, checksum, and who made it. */
#define OFFSET_LENGTH 4
#define OFFSET_CHECKSUM 9

static uint8_t *begin_table(struct builder *builder, const char *signature, uint8_t revision)
{
    align(builder);
    uint8_t *table = builder->at;
    put_bytes(builder, signature, 4);
    put(builder, 0, 4);
    put(builder, revision, 1);
    put(builder, 0, 1);
    put_bytes(builder, "QEMUHVMINIVMM ", 14);
    put(builder, 1, 4);
    put_bytes(builder, "HVVM", 4);
    put(builder, 1, 4);
    return table;
}

static void end_table(const struct builder *builder, uint8_t *table)
{
    uint32_t length = (uint32_t)(builder->at - table);
    memcpy(table + OFFSET_LENGTH, &length, 4);
    fix_checksum(table, length, OFFSET_CHECKSUM);
}

/* -- AML: the byte code of the DSDT (ACPI 6.5, 20.2) -- */

#define AML_NAME 0x08
#define AML_BYTE 0x0A
#define AML_DWORD 0x0C
#define AML_SCOPE 0x10
#define AML_BUFFER 0x11
#define AML_PACKAGE 0x12
#define AML_EXTENDED 0x5B
#define AML_EXTENDED_DEVICE 0x82

/*
 * Something that is preceded by its own length. The two-byte form of the length is always right for what we have: four
 * bits in the first byte, eight in the second, and the length counts itself.
 */
static uint8_t *begin_package(struct builder *builder)
{
    uint8_t *length = builder->at;
    put(builder, 0, 2);
    return length;
}

static void end_package(const struct builder *builder, uint8_t *length)
{
    unsigned size = (unsigned)(builder->at - length);
    length[0] = (uint8_t)(0x40 | (size & 0xF));
    length[1] = (uint8_t)(size >> 4);
}

static void put_name(struct builder *builder, const char *name)
{
    put(builder, AML_NAME, 1);
    put_bytes(builder, name, strlen(name));
}

static void put_byte(struct builder *builder, uint8_t value)
{
    put(builder, AML_BYTE, 1);
    put(builder, value, 1);
}

/* Name(\_S5, Package {5, 5, 0, 0}): the sleep type to write for power-off */
static void put_s5(struct builder *builder)
{
    put_name(builder, "\\_S5_");
    put(builder, AML_PACKAGE, 1);
    uint8_t *package = begin_package(builder);
    put(builder, 4, 1);
    put_byte(builder, 5);
    put_byte(builder, 5);
    put_byte(builder, 0);
    put_byte(builder, 0);
    end_package(builder, package);
}

/* The resources of the serial port: its ports, and its input of the I/O APIC, edge-triggered */
static const uint8_t uart_resources[] = {
    0x47,
    0x01,
    PORT_UART & 0xFF,
    PORT_UART >> 8,
    PORT_UART & 0xFF,
    PORT_UART >> 8,
    0x01,
    0x08, /* IO */
    0x89,
    0x06,
    0x00,
    0x03,
    0x01,
    IRQ_UART,
    0x00,
    0x00,
    0x00, /* Interrupt */
    0x79,
    0x00, /* the end */
};

/* Scope(\_SB) {Device(COM1) {Name(_HID, EisaId("PNP0501")) Name(_UID, 1) Name(_CRS, ...)}} */
static void put_devices(struct builder *builder)
{
    static const uint8_t pnp0501[] = {AML_DWORD, 0x41, 0xD0, 0x05, 0x01};
    put(builder, AML_SCOPE, 1);
    uint8_t *scope = begin_package(builder);
    put_bytes(builder, "\\_SB_", 5);
    put(builder, AML_EXTENDED, 1);
    put(builder, AML_EXTENDED_DEVICE, 1);
    uint8_t *device = begin_package(builder);
    put_bytes(builder, "COM1", 4);
    put_name(builder, "_HID");
    put_bytes(builder, pnp0501, sizeof(pnp0501));
    put_name(builder, "_UID");
    put_byte(builder, 1);
    put_name(builder, "_CRS");
    put(builder, AML_BUFFER, 1);
    uint8_t *buffer = begin_package(builder);
    put_byte(builder, sizeof(uart_resources));
    put_bytes(builder, uart_resources, sizeof(uart_resources));
    end_package(builder, buffer);
    end_package(builder, device);
    end_package(builder, scope);
}

static uint64_t put_dsdt(struct builder *builder)
{
    uint8_t *table = begin_table(builder, "DSDT", 2);
    uint64_t gpa = here(builder) - 36;
    put_s5(builder);
    put_devices(builder);
    end_table(builder, table);
    return gpa;
}

/* -- MADT: the processors and the I/O APIC -- */

#define MADT_LOCAL_APIC 0
#define MADT_IO_APIC 1

static uint64_t put_madt(struct builder *builder, unsigned vps)
{
    uint8_t *table = begin_table(builder, "APIC", 5);
    uint64_t gpa = here(builder) - 36;
    put(builder, GPA_LAPIC, 4);
    put(builder, 0, 4); /* there are no 8259s */
    for (unsigned i = 0; i < vps; i++) {
        /* type, length, processor's UID, APIC ID (a VP's initial one is its index, TLFS 10.1.6), flags: enabled */
        const uint8_t entry[] = {MADT_LOCAL_APIC, 8, (uint8_t)i, (uint8_t)i, 1, 0, 0, 0};
        put_bytes(builder, entry, sizeof(entry));
    }
    const uint8_t entry[] = {MADT_IO_APIC, 12, 0, 0};
    put_bytes(builder, entry, sizeof(entry));
    put(builder, GPA_IOAPIC, 4);
    put(builder, 0, 4); /* its inputs begin with interrupt 0 */
    end_table(builder, table);
    return gpa;
}

/* -- FADT: the fixed registers -- */

#define FADT_SIZE 276
#define FADT_BOOT_FLAGS 109
#define FADT_FLAGS 112
#define FADT_RESET_REGISTER 116
#define FADT_RESET_VALUE 128
#define FADT_MINOR_VERSION 131
#define FADT_DSDT 140
#define FADT_SLEEP_CONTROL 244
#define FADT_SLEEP_STATUS 256

#define BOOT_FLAGS_NO_VGA 0x0004 /* and, by their bits' absence: no legacy devices, no keyboard controller */
#define FLAGS_WBINVD (1u << 0)
#define FLAGS_POWER_BUTTON_IS_DEVICE (1u << 4)
#define FLAGS_SLEEP_BUTTON_IS_DEVICE (1u << 5)
#define FLAGS_RESET_REGISTER (1u << 10)
#define FLAGS_HARDWARE_REDUCED (1u << 20)

/* A generic address: in the I/O space, 8 bits wide, accessed by bytes */
static void set_register(uint8_t *to, uint16_t port)
{
    const uint8_t address[12] = {1, 8, 0, 1, (uint8_t)port, (uint8_t)(port >> 8)};
    memcpy(to, address, sizeof(address));
}

static uint64_t put_fadt(struct builder *builder, uint64_t dsdt)
{
    uint8_t *table = begin_table(builder, "FACP", 6);
    uint64_t gpa = here(builder) - 36;
    uint16_t boot_flags = BOOT_FLAGS_NO_VGA;
    uint32_t flags = FLAGS_WBINVD | FLAGS_POWER_BUTTON_IS_DEVICE | FLAGS_SLEEP_BUTTON_IS_DEVICE | FLAGS_RESET_REGISTER |
                     FLAGS_HARDWARE_REDUCED;
    memset(builder->at, 0, FADT_SIZE - 36);
    builder->at = table + FADT_SIZE;
    memcpy(table + FADT_BOOT_FLAGS, &boot_flags, 2);
    memcpy(table + FADT_FLAGS, &flags, 4);
    set_register(table + FADT_RESET_REGISTER, PORT_POWER + POWER_RESET);
    table[FADT_RESET_VALUE] = POWER_RESET_VALUE;
    table[FADT_MINOR_VERSION] = 5;
    memcpy(table + FADT_DSDT, &dsdt, 8);
    set_register(table + FADT_SLEEP_CONTROL, PORT_POWER + POWER_SLEEP_CONTROL);
    set_register(table + FADT_SLEEP_STATUS, PORT_POWER + POWER_SLEEP_STATUS);
    end_table(builder, table);
    return gpa;
}

/* -- The pointers to them -- */

static uint64_t put_xsdt(struct builder *builder, const uint64_t *tables, unsigned count)
{
    uint8_t *table = begin_table(builder, "XSDT", 1);
    uint64_t gpa = here(builder) - 36;
    put_bytes(builder, tables, count * sizeof(tables[0]));
    end_table(builder, table);
    return gpa;
}

#define RSDP_SIZE 36
#define RSDP_FIRST_PART 20
#define RSDP_CHECKSUM 8
#define RSDP_EXTENDED_CHECKSUM 32

static void write_rsdp(uint8_t *at, uint64_t xsdt)
{
    struct builder builder = {.begin = at, .at = at};
    put_bytes(&builder, "RSD PTR ", 8);
    put(&builder, 0, 1);
    put_bytes(&builder, "QEMUHV", 6);
    put(&builder, 2, 1); /* revision: there is an XSDT */
    put(&builder, 0, 4);
    put(&builder, RSDP_SIZE, 4);
    put(&builder, xsdt, 8);
    put(&builder, 0, 4);
    fix_checksum(at, RSDP_FIRST_PART, RSDP_CHECKSUM);
    fix_checksum(at, RSDP_SIZE, RSDP_EXTENDED_CHECKSUM);
}

uint64_t acpi_build(const struct vmm *vmm)
{
    uint8_t *memory = child_memory(&vmm->child, GPA_ACPI, PAGE_SIZE);
    struct builder builder = {.begin = memory, .at = memory + RSDP_SIZE, .gpa = GPA_ACPI};
    uint64_t dsdt = put_dsdt(&builder);
    uint64_t tables[] = {put_fadt(&builder, dsdt), put_madt(&builder, vmm->vps)};
    write_rsdp(memory, put_xsdt(&builder, tables, 2));
    return GPA_ACPI;
}
