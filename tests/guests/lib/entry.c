/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where a VP begins: registers for 16, 32 and 64 bits, and the tables that the wider modes need. */
#include "child.h"
#include "guest.h"
#include "program.h"

/* Attributes of segments (HV_X64_SEGMENT_REGISTER): type, S, DPL 0, P, and L, D, G where they are set */
#define ATTRIBUTES_CODE16 0x009B
#define ATTRIBUTES_DATA16 0x0093
#define ATTRIBUTES_CODE32 0xC09B
#define ATTRIBUTES_DATA32 0xC093
#define ATTRIBUTES_CODE64 0xA09B
#define ATTRIBUTES_TSS 0x008B

#define CR0_PE 0x1u
#define CR0_ET 0x10u
#define CR0_NE 0x20u
#define CR0_PG 0x80000000u
#define RFLAGS_FIXED 0x2u

/* A list of assignments, built up. */
struct list {
    struct hv_register_assignment items[24];
    unsigned count;
};

static void set(struct list *list, uint32_t name, uint64_t value)
{
    list->items[list->count++] = (struct hv_register_assignment){.name = name, .value.u64 = value};
}

static void set_segment(struct list *list, uint32_t name, uint16_t selector, uint64_t base, uint32_t limit,
                        uint16_t attributes)
{
    struct hv_segment segment = {.base = base, .limit = limit, .selector = selector, .attributes = attributes};
    list->items[list->count++] = (struct hv_register_assignment){.name = name, .value.segment = segment};
}

static void set_data_segments(struct list *list, uint16_t selector, uint64_t base, uint32_t limit, uint16_t attributes)
{
    static const uint32_t names[] = {HV_REGISTER_Ds, HV_REGISTER_Es, HV_REGISTER_Fs, HV_REGISTER_Gs, HV_REGISTER_Ss};
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        set_segment(list, names[i], selector, base, limit, attributes);
    }
}

void child_enter_real_mode(const struct child *child, unsigned vp, uint16_t segment)
{
    struct list list = {.count = 0};
    uint64_t base = (uint64_t)segment << 4;
    set_segment(&list, HV_REGISTER_Cs, segment, base, 0xFFFF, ATTRIBUTES_CODE16);
    set_data_segments(&list, segment, base, 0xFFFF, ATTRIBUTES_DATA16);
    set(&list, HV_REGISTER_Cr0, CR0_ET);
    set(&list, HV_REGISTER_Rip, 0);
    set(&list, HV_REGISTER_Rflags, RFLAGS_FIXED);
    child_set_registers(child, vp, list.items, list.count);
}

void child_enter_protected_mode(const struct child *child, unsigned vp, uint32_t eip, uint32_t ebx)
{
    struct list list = {.count = 0};
    set(&list, HV_REGISTER_Cr0, CR0_PE | CR0_ET | CR0_NE);
    set_segment(&list, HV_REGISTER_Cs, CHILD_CODE, 0, UINT32_MAX, ATTRIBUTES_CODE32);
    set_data_segments(&list, CHILD_DATA, 0, UINT32_MAX, ATTRIBUTES_DATA32);
    set_segment(&list, HV_REGISTER_Tr, 0, 0, 0xFFFF, ATTRIBUTES_TSS);
    set(&list, HV_REGISTER_Rip, eip);
    set(&list, HV_REGISTER_Rbx, ebx);
    set(&list, HV_REGISTER_Rflags, RFLAGS_FIXED);
    child_set_registers(child, vp, list.items, list.count);
}

void child_enter_long_mode(const struct child *child, unsigned vp, uint64_t rip, uint64_t cr3, uint64_t rsi)
{
    struct list list = {.count = 0};
    set(&list, HV_REGISTER_Cr4, CR4_PAE);
    set(&list, HV_REGISTER_Cr3, cr3);
    set(&list, HV_REGISTER_Efer, EFER_LME | EFER_LMA);
    set(&list, HV_REGISTER_Cr0, CR0_PE | CR0_ET | CR0_NE | CR0_PG);
    set_segment(&list, HV_REGISTER_Cs, CHILD_CODE, 0, UINT32_MAX, ATTRIBUTES_CODE64);
    set_data_segments(&list, CHILD_DATA, 0, UINT32_MAX, ATTRIBUTES_DATA32);
    set_segment(&list, HV_REGISTER_Tr, 0, 0, 0xFFFF, ATTRIBUTES_TSS);
    set(&list, HV_REGISTER_Rip, rip);
    set(&list, HV_REGISTER_Rsi, rsi);
    set(&list, HV_REGISTER_Rflags, RFLAGS_FIXED);
    child_set_registers(child, vp, list.items, list.count);
}

void child_make_page_tables(const struct child *child, uint64_t gpa, unsigned gib)
{
    uint64_t *tables = child_memory(child, gpa, (uint64_t)(2 + gib) * PAGE_SIZE);
    uint64_t *pointers = tables + 512, *directories = tables + 1024;
    memset(tables, 0, (size_t)(2 + gib) * PAGE_SIZE);
    tables[0] = (gpa + PAGE_SIZE) | PTE_P | PTE_W;
    for (unsigned i = 0; i < gib; i++) {
        pointers[i] = (gpa + (uint64_t)(2 + i) * PAGE_SIZE) | PTE_P | PTE_W;
    }
    for (unsigned i = 0; i < gib * 512; i++) {
        directories[i] = (uint64_t)i * LARGE_PAGE_SIZE | PTE_P | PTE_W | PTE_LARGE;
    }
}

void child_make_gdt(const struct child *child, unsigned vp, uint64_t gpa, bool wide)
{
    static const uint64_t code64 = 0x00AF9B000000FFFF, code32 = 0x00CF9B000000FFFF, data = 0x00CF93000000FFFF;
    uint64_t *table = child_memory(child, gpa, CHILD_DATA + 8);
    memset(table, 0, CHILD_DATA + 8);
    table[CHILD_CODE / 8] = wide ? code64 : code32;
    table[CHILD_DATA / 8] = data;
    struct hv_register_assignment gdtr = {.name = HV_REGISTER_Gdtr,
                                          .value.table = {.limit = CHILD_DATA + 7, .base = gpa}};
    child_set_registers(child, vp, &gdtr, 1);
}

/* -- Programs of program.h -- */

void child_put_program(const struct child *child, uint64_t gpa, const uint8_t *begin, const uint8_t *end)
{
    size_t size = (size_t)(end - begin);
    memcpy(child_memory(child, gpa, size), begin, size);
}

void child_enter_program64(const struct child *child, unsigned vp, uint64_t gpa, const uint8_t *begin,
                           const uint8_t *end, uint64_t tables)
{
    child_put_program(child, gpa, begin, end);
    child_make_gdt(child, vp, tables, true);
    child_make_page_tables(child, tables + PAGE_SIZE, 4);
    child_enter_long_mode(child, vp, gpa, tables + PAGE_SIZE, 0);
}

void child_enter_program32(const struct child *child, unsigned vp, uint64_t gpa, const uint8_t *begin,
                           const uint8_t *end, uint64_t tables)
{
    child_put_program(child, gpa, begin, end);
    child_make_gdt(child, vp, tables, false);
    child_enter_protected_mode(child, vp, (uint32_t)gpa, 0);
}

void child_enter_program16(const struct child *child, unsigned vp, uint64_t gpa, const uint8_t *begin,
                           const uint8_t *end)
{
    child_put_program(child, gpa, begin, end);
    child_enter_real_mode(child, vp, (uint16_t)(gpa >> 4));
}
