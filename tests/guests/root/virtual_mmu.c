/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 12 as a parent sees it: translation of a child's virtual addresses in all paging modes, access to its
 * memory as its VP would access it, and flushes that wait while the parent completes an instruction.
 */
#include "programs.h"

#include "apic.h"

#define SPACE_GPA 0x9000u /* the top of the page tables; the tables of lower levels follow */
#define FAR_GPA 0x200000u
#define HOLE_GPA 0x10000000u
#define LIMITED_GPA 0x11000000u
#define SIM_GPA 0x3F000u
#define PAGE_GPA 0x3E000u /* the child's hypercall page */
#define PTE_PWT 0x8u
#define PTE_PCD 0x10u
#define PTE_PAT 0x80u /* of a page of 4 KiB */
#define PTE_PAT_LARGE 0x1000u
#define PTE_NX (UINT64_C(1) << 63)
#define CR4_SMEP 0x100000u
#define CR4_SMAP 0x200000u
#define RFLAGS_AC 0x40000u
#define LEVELS_NONE 0
#define LEVELS_32 2
#define LEVELS_PAE 3
#define LEVELS_LONG 4

/* HV_TRANSLATE_GVA_RESULT_CODE (12.3.4) */
enum translation {
    NOT_PRESENT = 1,
    PRIVILEGE_VIOLATION,
    INVALID_PAGE_TABLE_FLAGS,
    GPA_UNMAPPED,
    GPA_NO_READ,
    GPA_NO_WRITE,
    GPA_ILLEGAL_OVERLAY,
};
/* HV_ACCESS_GPA_RESULT_CODE (12.3.5) */
enum access { ACCESS_SUCCESS, ACCESS_UNMAPPED, ACCESS_READ_INTERCEPT, ACCESS_WRITE_INTERCEPT, ACCESS_ILLEGAL_OVERLAY };

void guest_cleanup(void)
{
    root_reset_state();
}

/* -- Address spaces -- */

static unsigned levels;
static uint64_t gva; /* where FAR_GPA is mapped */

/* The entry that the walk finds at a level: the highest is `levels`, 1 maps a page of 4 KiB. */
static void *entry_at(unsigned level)
{
    unsigned bits = levels == LEVELS_32 ? 10 : 9, shift = 12 + (level - 1) * bits;
    uint64_t index = gva >> shift & ((1u << bits) - 1);
    return data_at(SPACE_GPA + (levels - level) * PAGE_SIZE + index * (levels == LEVELS_32 ? 4 : 8));
}

static uint64_t get_entry(unsigned level)
{
    return levels == LEVELS_32 ? *(uint32_t *)entry_at(level) : *(uint64_t *)entry_at(level);
}

static void set_entry(unsigned level, uint64_t value)
{
    if (levels == LEVELS_32) {
        *(uint32_t *)entry_at(level) = (uint32_t)value;
    } else {
        *(uint64_t *)entry_at(level) = value;
    }
}

static uint64_t table_flags(unsigned level)
{
    return levels == LEVELS_PAE && level == 3 ? PTE_P : PTE_P | PTE_W | PTE_U;
}

/* A child of one VP with that form of paging on and one page mapped, for user mode too. */
static void make_space(unsigned how)
{
    begin(1);
    levels = how;
    gva = how == LEVELS_LONG ? 0xFFFF8000C0403000 : 0xC0403000;
    if (how == LEVELS_LONG) {
        child_enter_long_mode(&child, 0, CODE_GPA, SPACE_GPA, 0);
    } else {
        child_enter_protected_mode(&child, 0, CODE_GPA, 0);
        set(HV_REGISTER_Cr4, how == LEVELS_PAE ? CR4_PAE : CR4_PSE);
        set(HV_REGISTER_Cr3, SPACE_GPA);
    }
    for (unsigned level = levels; level > 1; level--) {
        set_entry(level, (SPACE_GPA + (levels - level + 1) * PAGE_SIZE) | table_flags(level));
    }
    if (levels) {
        set_entry(1, FAR_GPA | PTE_P | PTE_W | PTE_U);
        set(HV_REGISTER_Cr0, get(HV_REGISTER_Cr0) | CR0_PG);
    }
}

#define FOR_ALL_MODES(how) for (unsigned how = LEVELS_32; how <= LEVELS_LONG; child_delete(&child), how++)

static void set_privilege(unsigned level)
{
    bool wide = levels == LEVELS_LONG;
    set_segment(HV_REGISTER_Cs, (uint16_t)(CHILD_CODE | level), 0, UINT32_MAX,
                (uint16_t)((wide ? 0xA09B : 0xC09B) | level << 5));
    set_segment(HV_REGISTER_Ss, (uint16_t)(CHILD_DATA | level), 0, UINT32_MAX, (uint16_t)(0xC093 | level << 5));
}

static struct hv_out_translate_virtual_address translate_page(uint64_t page, uint64_t flags)
{
    struct hv_in_translate_virtual_address input = {.partition = child.id, .flags = flags, .gva_page = page};
    struct hv_out_translate_virtual_address output = {.result = 99};
    HV_MUST(hvcall_translate_virtual_address(&input, &output));
    return output;
}

static unsigned translate(uint64_t flags)
{
    struct hv_out_translate_virtual_address output = translate_page(gva / PAGE_SIZE, flags);
    if (output.result == HV_TRANSLATE_SUCCESS) {
        EXPECT_EQ(output.gpa_page, FAR_GPA / PAGE_SIZE);
    }
    return output.result;
}

#define READ HV_TRANSLATE_READ
#define WRITE HV_TRANSLATE_WRITE
#define EXECUTE HV_TRANSLATE_EXECUTE
#define EXEMPT HV_TRANSLATE_PRIVILEGE_EXEMPT
#define SET_BITS HV_TRANSLATE_SET_PAGE_TABLE_BITS
#define INHIBIT HV_TRANSLATE_TLB_FLUSH_INHIBIT

/* -- HvTranslateVirtualAddress (12.4.4) -- */

static unsigned try_translate(uint64_t partition, uint32_t vp, uint64_t flags)
{
    struct hv_in_translate_virtual_address input = {.partition = partition, .vp = vp, .flags = flags};
    struct hv_out_translate_virtual_address output;
    return hvcall_translate_virtual_address(&input, &output);
}

static uint64_t own_partition(void)
{
    struct hv_out_get_partition_id output;
    HV_MUST(hvcall_get_partition_id(NULL, &output));
    return output.partition;
}

static void finalize(void)
{
    struct hv_in_finalize_partition input = {.partition = child.id};
    HV_MUST(hvcall_finalize_partition(&input, NULL));
}

CHECK(translation_statuses, "12.4.4: whose VP it is, and flags that make no sense")
{
    begin(1);
    EXPECT_EQ(try_translate(child.id, 0, READ | WRITE | EXECUTE | EXEMPT | SET_BITS), HV_STATUS_SUCCESS);
    EXPECT_EQ(try_translate(child.id, 0, 0), HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(try_translate(child.id, 0, EXEMPT | SET_BITS), HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(try_translate(child.id, 0, READ | 0x40), HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(try_translate(child.id, 0, READ | UINT64_C(1) << 63), HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(try_translate(child.id, 1, READ), HV_STATUS_INVALID_VP_INDEX);
    EXPECT_EQ(try_translate(0x7777, 0, READ), HV_STATUS_INVALID_PARTITION_ID);
    EXPECT_EQ(try_translate(own_partition(), 0, READ), HV_STATUS_ACCESS_DENIED);
    finalize();
    EXPECT_EQ(try_translate(child.id, 0, READ), HV_STATUS_INVALID_PARTITION_STATE);
}

CHECK(no_paging, "12.4.4: a virtual address is a physical one, whatever lies there")
{
    begin(1);
    for (unsigned mode = 0; mode < 2; mode++) {
        struct hv_out_translate_virtual_address output = translate_page(HOLE_GPA / PAGE_SIZE, READ | WRITE | EXECUTE);
        EXPECT_EQ(output.result, HV_TRANSLATE_SUCCESS);
        EXPECT_EQ(output.gpa_page, HOLE_GPA / PAGE_SIZE);
        EXPECT_EQ(output.attributes & 0xFF, 6); /* write-back (12.2.1) */
        child_enter_protected_mode(&child, 0, CODE_GPA, 0);
    }
}

CHECK(translated, "12.4.4: a page of 4 KiB in each form of paging; its GPA need not be mapped")
{
    FOR_ALL_MODES(how)
    {
        make_space(how);
        EXPECT_EQ(translate(READ | WRITE | EXECUTE), HV_TRANSLATE_SUCCESS);
        set_entry(1, HOLE_GPA | PTE_P);
        struct hv_out_translate_virtual_address output = translate_page(gva / PAGE_SIZE, READ);
        EXPECT_EQ(output.result, HV_TRANSLATE_SUCCESS);
        EXPECT_EQ(output.gpa_page, HOLE_GPA / PAGE_SIZE);
    }
}

CHECK(large_pages, "12.4.4: pages of 4 MiB, 2 MiB and 1 GiB")
{
    FOR_ALL_MODES(how)
    {
        make_space(how);
        uint64_t size = how == LEVELS_32 ? 4 * MEBIBYTE : 2 * MEBIBYTE;
        set_entry(2, 8 * MEBIBYTE | PTE_P | PTE_W | PTE_LARGE);
        struct hv_out_translate_virtual_address output = translate_page(gva / PAGE_SIZE, READ);
        EXPECT_EQ(output.result, HV_TRANSLATE_SUCCESS);
        EXPECT_EQ(output.gpa_page, (8 * MEBIBYTE + gva % size) / PAGE_SIZE);
    }
    make_space(LEVELS_LONG);
    set_entry(3, UINT64_C(3) << 30 | PTE_P | PTE_LARGE);
    struct hv_out_translate_virtual_address output = translate_page(gva / PAGE_SIZE, READ);
    EXPECT_EQ(output.result, HV_TRANSLATE_SUCCESS);
    EXPECT_EQ(output.gpa_page, ((UINT64_C(3) << 30) + gva % (UINT64_C(1) << 30)) / PAGE_SIZE);
}

CHECK(not_present, "12.4.4: at every level")
{
    FOR_ALL_MODES(how)
    {
        make_space(how);
        for (unsigned level = 1; level <= levels; level++) {
            uint64_t entry = get_entry(level);
            set_entry(level, entry & ~(uint64_t)PTE_P);
            EXPECT_EQ(translate(READ), NOT_PRESENT);
            set_entry(level, entry);
        }
        EXPECT_EQ(translate(READ), HV_TRANSLATE_SUCCESS);
    }
}

CHECK(beyond_the_address_space, "12.4.4: an address that the paging mode does not have is not present")
{
    FOR_ALL_MODES(how)
    {
        make_space(how);
        uint64_t page = how == LEVELS_LONG ? (gva ^ UINT64_C(1) << 62) / PAGE_SIZE : gva / PAGE_SIZE + (1u << 20);
        EXPECT_EQ(translate_page(page, READ).result, NOT_PRESENT);
        EXPECT_EQ(translate_page(UINT64_MAX, READ).result, NOT_PRESENT);
    }
}

CHECK(reserved_bits, "12.4.4: set in an entry of any level")
{
    FOR_ALL_MODES(how)
    {
        make_space(how);
        for (unsigned level = 1; how != LEVELS_32 && level <= levels; level++) {
            uint64_t entry = get_entry(level);
            set_entry(level, entry | UINT64_C(1) << 51);
            EXPECT_EQ(translate(READ), INVALID_PAGE_TABLE_FLAGS);
            set_entry(level, entry | PTE_NX); /* reserved without EFER.NXE */
            EXPECT_EQ(translate(READ), INVALID_PAGE_TABLE_FLAGS);
            set_entry(level, entry);
        }
        set_entry(2, (how == LEVELS_32 ? 1u << 21 : 1u << 13) | PTE_P | PTE_LARGE);
        EXPECT_EQ(translate(READ), INVALID_PAGE_TABLE_FLAGS);
    }
    make_space(LEVELS_PAE);
    set_entry(3, get_entry(3) | PTE_W);
    EXPECT_EQ(translate(READ), INVALID_PAGE_TABLE_FLAGS);
}

CHECK(privileges_of_user_mode, "12.4.4: user mode, and PRIVILEGE_EXEMPT for the eyes of level 0")
{
    FOR_ALL_MODES(how)
    {
        make_space(how);
        set_privilege(3);
        EXPECT_EQ(translate(READ | WRITE), HV_TRANSLATE_SUCCESS);
        for (unsigned level = 1; level <= levels; level++) {
            uint64_t entry = get_entry(level);
            if (how == LEVELS_PAE && level == 3) {
                continue; /* no rights there */
            }
            set_entry(level, entry & ~(uint64_t)PTE_U);
            EXPECT_EQ(translate(READ), PRIVILEGE_VIOLATION);
            EXPECT_EQ(translate(READ | WRITE | EXEMPT), HV_TRANSLATE_SUCCESS);
            set_entry(level, entry & ~(uint64_t)PTE_W);
            EXPECT_EQ(translate(READ | EXECUTE), HV_TRANSLATE_SUCCESS);
            EXPECT_EQ(translate(WRITE), PRIVILEGE_VIOLATION);
            EXPECT_EQ(translate(READ | WRITE), PRIVILEGE_VIOLATION);
            EXPECT_EQ(translate(WRITE | EXEMPT), HV_TRANSLATE_SUCCESS); /* CR0.WP is clear */
            set_entry(level, entry);
        }
    }
}

CHECK(privileges_of_the_kernel, "12.4.4: write protection counts with CR0.WP, no matter whose page it is")
{
    FOR_ALL_MODES(how)
    {
        make_space(how);
        set_entry(1, FAR_GPA | PTE_P);
        EXPECT_EQ(translate(READ | WRITE | EXECUTE), HV_TRANSLATE_SUCCESS);
        set(HV_REGISTER_Cr0, get(HV_REGISTER_Cr0) | CR0_WP);
        EXPECT_EQ(translate(READ | EXECUTE), HV_TRANSLATE_SUCCESS);
        EXPECT_EQ(translate(WRITE), PRIVILEGE_VIOLATION);
    }
}

CHECK(execute_disable, "12.4.4: the bit of any level, with EFER.NXE")
{
    FOR_ALL_MODES(how)
    {
        make_space(how);
        if (how == LEVELS_32) {
            continue; /* its entries have no such bit */
        }
        set(HV_REGISTER_Efer, get(HV_REGISTER_Efer) | EFER_NXE);
        for (unsigned level = 1; level <= levels; level++) {
            uint64_t entry = get_entry(level);
            set_entry(level, entry | PTE_NX);
            if (how == LEVELS_PAE && level == 3) {
                EXPECT_EQ(translate(READ), INVALID_PAGE_TABLE_FLAGS);
            } else {
                EXPECT_EQ(translate(READ | WRITE), HV_TRANSLATE_SUCCESS);
                EXPECT_EQ(translate(EXECUTE), PRIVILEGE_VIOLATION);
            }
            set_entry(level, entry);
        }
        EXPECT_EQ(translate(EXECUTE), HV_TRANSLATE_SUCCESS);
    }
}

CHECK(supervisor_protection, "12.4.4: SMEP and SMAP are part of the VP's modes", .generations = GENERATION_CURRENT)
{
    make_space(LEVELS_LONG);
    set(HV_REGISTER_Cr4, CR4_PAE | CR4_SMEP);
    EXPECT_EQ(translate(READ | WRITE), HV_TRANSLATE_SUCCESS);
    EXPECT_EQ(translate(EXECUTE), PRIVILEGE_VIOLATION);
    set(HV_REGISTER_Cr4, CR4_PAE | CR4_SMAP);
    EXPECT_EQ(translate(READ), PRIVILEGE_VIOLATION);
    EXPECT_EQ(translate(WRITE), PRIVILEGE_VIOLATION);
    EXPECT_EQ(translate(EXECUTE), HV_TRANSLATE_SUCCESS);
    set(HV_REGISTER_Rflags, RFLAGS_FIXED | RFLAGS_AC);
    EXPECT_EQ(translate(READ | WRITE), HV_TRANSLATE_SUCCESS);
    set(HV_REGISTER_Rflags, RFLAGS_FIXED);
    set_privilege(3);
    EXPECT_EQ(translate(READ | WRITE), HV_TRANSLATE_SUCCESS);
}

CHECK(accessed_and_dirty,
      "12.4.4: set when they are asked for, dirty for a write only, and kept when the walk ends early")
{
    FOR_ALL_MODES(how)
    {
        make_space(how);
        EXPECT_EQ(translate(READ | WRITE), HV_TRANSLATE_SUCCESS);
        for (unsigned level = 1; level <= levels; level++) {
            EXPECT_EQ(get_entry(level) & (PTE_A | PTE_D), 0);
        }
        EXPECT_EQ(translate(READ | SET_BITS), HV_TRANSLATE_SUCCESS);
        for (unsigned level = 1; level <= levels; level++) {
            bool pointer = how == LEVELS_PAE && level == 3; /* has none of them */
            EXPECT_EQ(get_entry(level) & (PTE_A | PTE_D), pointer ? 0 : PTE_A);
        }
        EXPECT_EQ(translate(WRITE | SET_BITS), HV_TRANSLATE_SUCCESS);
        EXPECT_EQ(get_entry(1) & (PTE_A | PTE_D), PTE_A | PTE_D);
        EXPECT_EQ(get_entry(2) & PTE_D, 0);
        set_entry(1, 0);
        set_entry(2, get_entry(2) & ~(uint64_t)PTE_A);
        EXPECT_EQ(translate(READ | SET_BITS), NOT_PRESENT);
        EXPECT_EQ(get_entry(2) & PTE_A, PTE_A);
    }
}

static void clear_accessed(void)
{
    for (unsigned level = 1; level <= levels; level++) {
        set_entry(level, get_entry(level) & ~(uint64_t)(PTE_A | PTE_D));
    }
}

static void limit_table(unsigned level, uint32_t rights)
{
    struct child part = {.id = child.id};
    uint64_t table = SPACE_GPA + (levels - level) * PAGE_SIZE;
    child_map(&part, table, (uintptr_t)data_at(table), PAGE_SIZE, rights);
}

CHECK(tables_out_of_reach, "12.4.4: unmapped, unreadable, unwritable; the GPA page tells which table")
{
    FOR_ALL_MODES(how)
    {
        make_space(how);
        for (unsigned level = 1; level <= levels; level++) {
            uint64_t page = SPACE_GPA / PAGE_SIZE + levels - level;
            struct child part = {.id = child.id};
            clear_accessed();
            limit_table(level, HV_MAP_READ);
            EXPECT_EQ(translate(READ | WRITE), HV_TRANSLATE_SUCCESS);
            struct hv_out_translate_virtual_address output = translate_page(gva / PAGE_SIZE, READ | SET_BITS);
            if (how != LEVELS_PAE || level != 3) {
                EXPECT_EQ(output.result, GPA_NO_WRITE);
                EXPECT_EQ(output.gpa_page, page);
            }
            limit_table(level, 0);
            output = translate_page(gva / PAGE_SIZE, READ);
            EXPECT_EQ(output.result, GPA_NO_READ);
            EXPECT_EQ(output.gpa_page, page);
            child_unmap(&part, page * PAGE_SIZE, PAGE_SIZE);
            output = translate_page(gva / PAGE_SIZE, READ);
            EXPECT_EQ(output.result, GPA_UNMAPPED);
            EXPECT_EQ(output.gpa_page, page);
            limit_table(level, CHILD_RAM);
            EXPECT_EQ(translate(READ), HV_TRANSLATE_SUCCESS);
        }
    }
}

/* A page of the hypervisor's at a place in the child's memory. */
static void show_overlays(void)
{
    set(HV_REGISTER_GuestOsId, 1);
    set(HV_REGISTER_Hypercall, PAGE_GPA | 1);
    set(HV_REGISTER_Simp, SIM_GPA | 1);
}

/* An entry in the code of the hypercall page that, taken as one of a page table, is present and not accessed yet. */
static bool find_entry_in_code(unsigned *index)
{
    for (*index = 0; *index < PAGE_SIZE / 4; ++*index) {
        struct hv_in_read_gpa input = {.partition = child.id, .bytes = 4, .gpa = PAGE_GPA + *index * 4, .flags = 6};
        struct hv_out_read_gpa output;
        HV_MUST(hvcall_read_gpa(&input, &output));
        if ((output.data[0] & (PTE_P | PTE_A)) == PTE_P) {
            return true;
        }
    }
    return false;
}

CHECK(table_in_an_overlay, "12.4.4: page tables in a page of the hypervisor that cannot be written")
{
    unsigned index;
    make_space(LEVELS_32);
    show_overlays();
    REQUIRE(find_entry_in_code(&index));
    set(HV_REGISTER_Cr3, PAGE_GPA);
    struct hv_out_translate_virtual_address output = translate_page((uint64_t)index << 10, READ | SET_BITS);
    EXPECT_EQ(output.result, GPA_ILLEGAL_OVERLAY);
    EXPECT_EQ(output.gpa_page, PAGE_GPA / PAGE_SIZE);
}

CHECK(overlays_are_told, "12.4.4: OverlayPage, for the pages of the hypervisor and its local APIC")
{
    static const uint64_t places[] = {PAGE_GPA, SIM_GPA, APIC_BASE};
    make_space(LEVELS_LONG);
    show_overlays();
    EXPECT_EQ(translate_page(gva / PAGE_SIZE, READ).attributes >> 8, 0);
    for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        set_entry(1, places[i] | PTE_P);
        struct hv_out_translate_virtual_address output = translate_page(gva / PAGE_SIZE, READ);
        EXPECT_EQ(output.result, HV_TRANSLATE_SUCCESS);
        EXPECT_EQ(output.gpa_page, places[i] / PAGE_SIZE);
        EXPECT_EQ(output.attributes >> 8, 1);
    }
    set(HV_REGISTER_Simp, 0);
    set_entry(1, SIM_GPA | PTE_P);
    EXPECT_EQ(translate_page(gva / PAGE_SIZE, READ).attributes >> 8, 0);
}

CHECK(cache_types, "12.2.1, 12.3.3: by PAT, PCD and PWT of the entry, out of the VP's PAT register")
{
    /* WB, WT, UC-, UC, WP, WC, WB, WT */
    static const uint8_t types[] = {6, 4, 7, 0, 5, 1, 6, 4};
    uint64_t pat = 0;
    for (unsigned i = 0; i < 8; i++) {
        pat |= (uint64_t)types[i] << 8 * i;
    }
    FOR_ALL_MODES(how)
    {
        make_space(how);
        set(HV_REGISTER_Pat, pat);
        for (unsigned i = 0; i < 8; i++) {
            uint64_t bits = (i & 1 ? PTE_PWT : 0) | (i & 2 ? PTE_PCD : 0);
            uint8_t type = types[i] == 7 ? 0 : types[i];
            set_entry(1, FAR_GPA | PTE_P | bits | (i & 4 ? PTE_PAT : 0));
            EXPECT_EQ(translate_page(gva / PAGE_SIZE, READ).attributes, type);
        }
        for (unsigned i = 0; i < 8; i++) {
            uint64_t bits = (i & 1 ? PTE_PWT : 0) | (i & 2 ? PTE_PCD : 0) | (i & 4 ? PTE_PAT_LARGE : 0);
            set_entry(2, PTE_P | PTE_LARGE | bits);
            EXPECT_EQ(translate_page(gva / PAGE_SIZE, READ).attributes, types[i] == 7 ? 0 : types[i]);
        }
    }
}

CHECK(flushes_are_inhibited, "12.1.4, 12.4.4: by a translation that succeeds and asks for it, and by memory intercepts")
{
    make_space(LEVELS_LONG);
    EXPECT_EQ(translate(READ), HV_TRANSLATE_SUCCESS);
    EXPECT_EQ(get(HV_REGISTER_InterceptSuspend), 0);
    set_entry(1, 0);
    EXPECT_EQ(translate(READ | INHIBIT), NOT_PRESENT);
    EXPECT_EQ(get(HV_REGISTER_InterceptSuspend), 0);
    set_entry(1, FAR_GPA | PTE_P);
    EXPECT_EQ(translate(READ | INHIBIT), HV_TRANSLATE_SUCCESS);
    EXPECT_EQ(get(HV_REGISTER_InterceptSuspend), HV_SUSPEND_TLB_FLUSH_INHIBIT);
    set(HV_REGISTER_InterceptSuspend, 0);
    set_table(HV_REGISTER_Idtr, 0, 0);
    child_resume(&child, 0); /* no code is mapped at its RIP: a fault without handlers */
    next_message(HV_MESSAGE_UnrecoverableException);
    EXPECT_EQ(get(HV_REGISTER_InterceptSuspend), HV_SUSPEND_INTERCEPT);
    child_delete(&child);
    begin(1);
    child_enter_real_mode(&child, 0, 0);
    set_segment(HV_REGISTER_Cs, 0, HOLE_GPA, 0xFFFF, 0x9B);
    child_resume(&child, 0);
    next_message(HV_MESSAGE_UnmappedGpa);
    EXPECT_EQ(get(HV_REGISTER_InterceptSuspend), HV_SUSPEND_INTERCEPT | HV_SUSPEND_TLB_FLUSH_INHIBIT);
    /* One bit at a time (10.3.1). */
    set(HV_REGISTER_InterceptSuspend, HV_SUSPEND_INTERCEPT);
    EXPECT_EQ(get(HV_REGISTER_InterceptSuspend), HV_SUSPEND_INTERCEPT);
    EXPECT_EQ(try_set(HV_REGISTER_InterceptSuspend, HV_SUSPEND_INTERCEPT | HV_SUSPEND_TLB_FLUSH_INHIBIT, 0),
              HV_STATUS_INVALID_PARAMETER);
}

/* -- HvReadGpa, HvWriteGpa (12.4.5, 12.4.6) -- */

#define WRITE_BACK 6u

static unsigned read_gpa(uint64_t gpa, uint32_t bytes, struct hv_out_read_gpa *output)
{
    struct hv_in_read_gpa input = {.partition = child.id, .bytes = bytes, .gpa = gpa, .flags = WRITE_BACK};
    memset(output, 0xEE, sizeof(*output));
    HV_MUST(hvcall_read_gpa(&input, output));
    return output->result;
}

static unsigned write_gpa(uint64_t gpa, const void *data, uint32_t bytes)
{
    struct hv_in_write_gpa input = {.partition = child.id, .bytes = bytes, .gpa = gpa, .flags = WRITE_BACK};
    struct hv_out_write_gpa output = {.result = 99};
    memcpy(input.data, data, bytes);
    HV_MUST(hvcall_write_gpa(&input, &output));
    return output.result;
}

static unsigned write_word(uint64_t gpa, uint32_t value)
{
    return write_gpa(gpa, &value, sizeof(value));
}

static uint32_t read_word(uint64_t gpa)
{
    struct hv_out_read_gpa output;
    uint32_t value;
    EXPECT_EQ(read_gpa(gpa, sizeof(value), &output), ACCESS_SUCCESS);
    memcpy(&value, output.data, sizeof(value));
    return value;
}

struct access_parameters {
    uint64_t partition, gpa, flags;
    uint32_t vp, bytes;
    unsigned status;
};

static void expect_status(const struct access_parameters *p)
{
    struct hv_in_read_gpa read = {p->partition, p->vp, p->bytes, p->gpa, p->flags};
    struct hv_in_write_gpa write = {p->partition, p->vp, p->bytes, p->gpa, p->flags, {0}};
    struct hv_out_read_gpa read_output;
    struct hv_out_write_gpa write_output;
    unsigned status = hvcall_read_gpa(&read, &read_output);
    EXPECT_THAT(status == p->status, "read: partition %llx, VP %u, GPA %llx, %u bytes, flags %llx: %s",
                (unsigned long long)p->partition, p->vp, (unsigned long long)p->gpa, p->bytes,
                (unsigned long long)p->flags, hv_status_name(status));
    status = hvcall_write_gpa(&write, &write_output);
    EXPECT_THAT(status == p->status, "write: partition %llx, VP %u, GPA %llx, %u bytes, flags %llx: %s",
                (unsigned long long)p->partition, p->vp, (unsigned long long)p->gpa, p->bytes,
                (unsigned long long)p->flags, hv_status_name(status));
}

CHECK(access_statuses, "12.4.5, 12.4.6: sizes, pages, cache types, reserved flags, and whose memory it is")
{
    begin(1);
    uint64_t id = child.id, limit = hv_gpa_limit();
    const struct access_parameters list[] = {
        {id, 0x1000, 6, 0, 16, HV_STATUS_SUCCESS},
        {id, 0x1FF0, 0, 0, 16, HV_STATUS_SUCCESS},
        {id, 0x1000, 6, 0, 0, HV_STATUS_INVALID_PARAMETER},
        {id, 0x1000, 6, 0, 17, HV_STATUS_INVALID_PARAMETER},
        {id, 0x1FF1, 6, 0, 16, HV_STATUS_INVALID_PARAMETER},
        {id, limit, 6, 0, 1, HV_STATUS_INVALID_PARAMETER},
        {id, limit - 1, 6, 0, 1, HV_STATUS_SUCCESS}, /* the result says that nothing is there */
        {id, 0x1000, 2, 0, 1, HV_STATUS_INVALID_PARAMETER},
        {id, 0x1000, 7, 0, 1, HV_STATUS_INVALID_PARAMETER},
        {id, 0x1000, 0x106, 0, 1, HV_STATUS_INVALID_PARAMETER},
        {id, 0x1000, 6, 1, 1, HV_STATUS_INVALID_VP_INDEX},
        {0x7777, 0x1000, 6, 0, 1, HV_STATUS_INVALID_PARTITION_ID},
        {own_partition(), 0x1000, 6, 0, 1, HV_STATUS_ACCESS_DENIED},
    };
    for (unsigned i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        expect_status(&list[i]);
    }
    finalize();
    expect_status(&(struct access_parameters){id, 0x1000, 6, 0, 1, HV_STATUS_INVALID_PARTITION_STATE});
}

CHECK(bytes, "12.4.5, 12.4.6: as many as are asked for, at any offset; the rest of what is read is zero")
{
    uint8_t data[16];
    begin(1);
    for (unsigned i = 0; i < sizeof(data); i++) {
        data[i] = (uint8_t)(0x80 + i);
    }
    for (unsigned count = 1; count <= 16; count++) {
        struct hv_out_read_gpa output;
        uint64_t gpa = DATA_GPA + count * 0x23;
        uint8_t *memory = memset(data_at(gpa), 0xCC, 17);
        EXPECT_EQ(write_gpa(gpa, data, count), ACCESS_SUCCESS);
        EXPECT_EQ(memcmp(memory, data, count), 0);
        EXPECT_EQ(memory[count], 0xCC);
        EXPECT_EQ(read_gpa(gpa, count, &output), ACCESS_SUCCESS);
        EXPECT_EQ(memcmp(output.data, data, count), 0);
        for (unsigned i = count; i < 16; i++) {
            EXPECT_EQ(output.data[i], 0);
        }
    }
}

CHECK(access_rights, "12.4.5, 12.4.6: unmapped pages, and rights that are missing")
{
    struct hv_out_read_gpa output;
    begin(1);
    uint32_t *page = (uint32_t *)ram_take(PAGE_SIZE, PAGE_SIZE);
    *page = 0x1234;
    EXPECT_EQ(read_gpa(HOLE_GPA, 4, &output), ACCESS_UNMAPPED);
    EXPECT_EQ(write_word(HOLE_GPA, 1), ACCESS_UNMAPPED);
    child_map(&child, LIMITED_GPA, (uintptr_t)page, PAGE_SIZE, HV_MAP_READ);
    EXPECT_EQ(read_word(LIMITED_GPA), 0x1234);
    EXPECT_EQ(write_word(LIMITED_GPA, 1), ACCESS_WRITE_INTERCEPT);
    EXPECT_EQ(*page, 0x1234);
    child_map(&child, LIMITED_GPA, (uintptr_t)page, PAGE_SIZE, 0);
    EXPECT_EQ(read_gpa(LIMITED_GPA, 4, &output), ACCESS_READ_INTERCEPT);
    EXPECT_EQ(write_word(LIMITED_GPA, 1), ACCESS_WRITE_INTERCEPT);
    child_map(&child, LIMITED_GPA, (uintptr_t)page, PAGE_SIZE, HV_MAP_READ | HV_MAP_WRITE);
    EXPECT_EQ(write_word(LIMITED_GPA, 0x5678), ACCESS_SUCCESS);
    EXPECT_EQ(*page, 0x5678);
}

CHECK(overlay_pages, "12.4.5, 12.4.6: the hypervisor's page, not what lies beneath it")
{
    begin(1);
    uint32_t *beneath = data_at(SIM_GPA), *beneath_code = data_at(PAGE_GPA);
    *beneath = 0x11111111;
    *beneath_code = 0x22222222;
    show_overlays();
    EXPECT_EQ(read_word(SIM_GPA + 0x400), 0);
    EXPECT_EQ(write_word(SIM_GPA + 0x400, 0x33333333), ACCESS_SUCCESS);
    EXPECT_EQ(read_word(SIM_GPA + 0x400), 0x33333333);
    EXPECT_EQ(write_word(SIM_GPA, 0), ACCESS_SUCCESS);
    uint32_t code = read_word(PAGE_GPA);
    EXPECT(code != 0x22222222);
    EXPECT_EQ(write_word(PAGE_GPA, 0), ACCESS_ILLEGAL_OVERLAY);
    EXPECT_EQ(read_word(PAGE_GPA), code);
    set(HV_REGISTER_Simp, 0);
    set(HV_REGISTER_Hypercall, 0);
    EXPECT_EQ(read_word(SIM_GPA), 0x11111111);
    EXPECT_EQ(read_word(PAGE_GPA), 0x22222222);
    EXPECT_EQ(*beneath, 0x11111111);
}

CHILD_PROGRAM(say_started, 16, "mov $0x43, %al; out %al, $0x80; hlt")

CHECK(local_apic, "12.4.5, 12.4.6: registers in memory, with the side effects of an access by the VP")
{
    struct hv_out_read_gpa output;
    begin(2);
    PUT_AT(0x6000, say_started);
    child_resume(&child, 1);
    EXPECT_EQ(read_word(APIC_BASE + APIC_ID), 0);
    EXPECT_EQ(write_word(APIC_BASE + APIC_TPR, 0x50), ACCESS_SUCCESS);
    EXPECT_EQ(get(HV_REGISTER_Tpr), 0x50);
    EXPECT_EQ(get(HV_REGISTER_Cr8), 5);
    EXPECT_EQ(read_gpa(APIC_BASE + APIC_TPR, 1, &output), ACCESS_SUCCESS);
    EXPECT_EQ(output.data[0], 0x50);
    EXPECT_EQ(write_word(APIC_BASE + APIC_ICR_HIGH, 0x01000000), ACCESS_SUCCESS);
    EXPECT_EQ(write_word(APIC_BASE + APIC_ICR_LOW, APIC_ICR_STARTUP | 6), ACCESS_SUCCESS);
    EXPECT_EQ(said(), 0x43);
    EXPECT_EQ(last_said.vp, 1);
}

CHECK(access_of_a_running_vp, "12.4.5, 12.4.6: the child writes the same memory meanwhile")
{
    static const uint8_t count[] = {0xFF, 0x04, 0x25, 0x00, 0x70, 0, 0, 0xEB, 0xF7}; /* 1: incl 0x7000; jmp 1b */
    begin(1);
    child_enter_program64(&child, 0, CODE_GPA, count, count + sizeof(count), TABLES_GPA);
    child_resume(&child, 0);
    uint32_t last = 0;
    for (unsigned i = 0; i < 8; i++) {
        uint32_t now = read_word(DATA_GPA);
        EXPECT(now >= last);
        last = now;
        EXPECT_EQ(write_word(DATA_GPA + 4, i), ACCESS_SUCCESS);
        EXPECT_EQ(read_word(DATA_GPA + 4), i);
    }
}

/* -- Flushes (12.1.4, 12.4.1 to 12.4.3), by the child's own VPs, which run functions of this program -- */

#define ALL (HV_FLUSH_ALL_PROCESSORS | HV_FLUSH_ALL_SPACES)

struct flush {
    uint64_t code, mask;
    uint64_t *input;
    volatile uint32_t begun, done;
    volatile uint64_t result;
};
static struct flush flush;

static void do_flush(void *argument)
{
    (void)argument;
    flush.begun = 1;
    flush.result = hv_call(flush.code, (uintptr_t)flush.input, 0);
    flush.done = 1;
}

static void enable_inside(void *argument)
{
    (void)argument;
    hv_enable();
}

static volatile bool spinning, stop;

static void spin(void *argument)
{
    (void)argument;
    spinning = true;
    while (!stop && !check_failed()) {
        cpu_pause();
    }
}

/* VP 1 of two spins with flushes inhibited. */
static void prepare_flush(uint64_t code, uint64_t mask)
{
    child = (struct child){.privileges = CHILD_PRIVILEGES};
    inside_create(&child, 2);
    inside_run(&child, 0, enable_inside, NULL);
    flush = (struct flush){.code = code, .input = page_alloc(1)};
    flush.input[0] = vm_root();
    flush.input[2] = mask;
    flush.input[3] = VM_TEST_BASE;
    spinning = stop = false;
    inside_start(&child, 1, spin, NULL);
    REQUIRE(WAIT_UNTIL(spinning, SOON));
    struct hv_in_translate_virtual_address input = {
        .partition = child.id, .vp = 1, .flags = READ | INHIBIT, .gva_page = MEBIBYTE / PAGE_SIZE};
    struct hv_out_translate_virtual_address output;
    HV_MUST(hvcall_translate_virtual_address(&input, &output));
    REQUIRE_EQ(output.result, HV_TRANSLATE_SUCCESS);
    EXPECT_EQ(child_get_register(&child, 1, HV_REGISTER_InterceptSuspend), HV_SUSPEND_TLB_FLUSH_INHIBIT);
}

static void end_flush(void)
{
    EXPECT(WAIT_UNTIL(flush.done, SOON));
    EXPECT_EQ(HV_RESULT_STATUS(flush.result), HV_SUCCESS);
    stop = true;
}

#define PAGE_OF(address) ((address) & ~UINT64_C(0xFFF))
#define FLUSH_LIST (HV_FLUSH_VIRTUAL_ADDRESS_LIST | HV_CALL_REPS(1))

static void expect_wait(uint64_t code)
{
    prepare_flush(code, 3);
    inside_start(&child, 0, do_flush, NULL);
    REQUIRE(WAIT_UNTIL(flush.begun, SOON));
    /* In front of the call; and by none of its own registers' suspension. */
    REQUIRE(WAIT_UNTIL(PAGE_OF(child_get_register(&child, 0, HV_REGISTER_Rip)) == hv_hypercall_page(), SOON));
    EXPECT_EQ(child_get_register(&child, 0, HV_REGISTER_Rcx), code);
    EXPECT_EQ(child_get_register(&child, 0, HV_REGISTER_ExplicitSuspend), 0);
    clock_delay(5000);
    EXPECT_EQ(PAGE_OF(child_get_register(&child, 0, HV_REGISTER_Rip)), hv_hypercall_page());
    EXPECT_EQ(flush.done, 0);
    child_set_register(&child, 1, HV_REGISTER_InterceptSuspend, 0);
    end_flush();
    inside_wait(0);
    inside_wait(1);
}

CHECK(flush_waits, "12.1.4, 12.4.2: the caller is suspended in front of its call until the bit is cleared")
{
    expect_wait(HV_FLUSH_VIRTUAL_ADDRESS_SPACE);
}

CHECK(list_flush_waits, "12.1.4, 12.4.3: and so with a list")
{
    expect_wait(FLUSH_LIST);
}

CHECK(other_targets, "12.1.4: a flush that is not for the VP in question need not wait")
{
    prepare_flush(HV_FLUSH_VIRTUAL_ADDRESS_SPACE, 1);
    inside_start(&child, 0, do_flush, NULL);
    end_flush();
    EXPECT_EQ(child_get_register(&child, 1, HV_REGISTER_InterceptSuspend), HV_SUSPEND_TLB_FLUSH_INHIBIT);
}

CHECK(inhibitor_goes, "12.1.4: the VP that inhibits is deleted: nobody else would ever clear its bit")
{
    prepare_flush(HV_FLUSH_VIRTUAL_ADDRESS_SPACE, 3);
    inside_start(&child, 0, do_flush, NULL);
    REQUIRE(WAIT_UNTIL(flush.begun, SOON));
    clock_delay(2000);
    EXPECT_EQ(flush.done, 0);
    child_delete_vp(&child, 1);
    end_flush();
}

CHECK(root_does_not_wait, "12.1.4: what a child's VP inhibits is flushes of its own partition")
{
    prepare_flush(HV_FLUSH_VIRTUAL_ADDRESS_SPACE, 3);
    flush.input[1] = ALL;
    EXPECT_EQ(hv_call(HV_FLUSH_VIRTUAL_ADDRESS_SPACE, (uintptr_t)flush.input, 0), HV_SUCCESS);
    EXPECT_EQ(HV_RESULT_STATUS(hv_call(FLUSH_LIST, (uintptr_t)flush.input, 0)), HV_SUCCESS);
    stop = true;
}

/* -- The root's own translations, which go through a second stage too -- */

static volatile uint32_t *const window = (volatile uint32_t *)VM_TEST_BASE;

static void see(void *argument)
{
    *(uint32_t *)argument = *window;
}

static void flush_own(uint64_t code)
{
    volatile uint32_t *pages[2] = {page_alloc(1), page_alloc(1)};
    uint64_t *input = page_alloc(1);
    root_enable();
    *pages[0] = 1;
    *pages[1] = 2;
    input[0] = vm_root();
    input[1] = HV_FLUSH_ALL_PROCESSORS;
    input[3] = VM_TEST_BASE;
    for (unsigned i = 0; i < 10; i++) {
        uint32_t seen = 0;
        vm_map(vm_root(), VM_TEST_BASE, (uintptr_t)pages[i % 2], PTE_P | PTE_W);
        EXPECT_EQ(HV_RESULT_STATUS(hv_call(code, (uintptr_t)input, 0)), HV_SUCCESS);
        EXPECT_EQ(*window, 1 + i % 2);
        smp_run(cpu_count() - 1, see, &seen);
        EXPECT_EQ(seen, 1 + i % 2);
    }
}

CHECK(flush_of_the_root, "12.4.2: its VPs see the new translation once the call has returned")
{
    flush_own(HV_FLUSH_VIRTUAL_ADDRESS_SPACE);
}

CHECK(list_flush_of_the_root, "12.4.3")
{
    flush_own(FLUSH_LIST);
}

/* -- HvSwitchVirtualAddressSpace (12.4.1) -- */

struct switching {
    uintptr_t spaces[2];
    volatile uint32_t seen[4];
    volatile uint64_t cr3, bad;
};

static void switch_spaces(void *argument)
{
    struct switching *s = argument;
    hv_enable();
    for (unsigned i = 0; i < 4; i++) {
        uint64_t result = hv_call(HV_SWITCH_VIRTUAL_ADDRESS_SPACE | HV_CALL_FAST, s->spaces[i % 2], 0);
        EXPECT_EQ(result, HV_SUCCESS);
        invlpg(VM_TEST_BASE); /* the call itself flushes nothing */
        s->seen[i] = *window;
    }
    s->cr3 = read_cr3();
    s->bad = hv_call(HV_SWITCH_VIRTUAL_ADDRESS_SPACE | HV_CALL_FAST, UINT64_C(1) << 63, 0);
    EXPECT_EQ(read_cr3(), s->cr3);
}

CHECK(child_switches_spaces, "12.4.1: its CR3, which the parent sees; a value that is none is refused")
{
    static struct switching s;
    child = (struct child){.privileges = CHILD_PRIVILEGES};
    inside_create(&child, 1);
    for (unsigned i = 0; i < 2; i++) {
        volatile uint32_t *page = page_alloc(1);
        *page = 0x100 + i;
        s.spaces[i] = vm_create();
        vm_map(s.spaces[i], VM_TEST_BASE, (uintptr_t)page, PTE_P | PTE_W);
    }
    inside_run(&child, 0, switch_spaces, &s);
    for (unsigned i = 0; i < 4; i++) {
        EXPECT_EQ(s.seen[i], 0x100 + i % 2);
    }
    EXPECT_EQ(s.cr3, s.spaces[1]);
    EXPECT_EQ(s.bad, HV_INVALID_PARAMETER);
    EXPECT_EQ(get(HV_REGISTER_Cr3), s.spaces[1]);
    struct hv_out_translate_virtual_address output = translate_page(VM_TEST_BASE / PAGE_SIZE, READ);
    EXPECT_EQ(output.result, HV_TRANSLATE_SUCCESS);
    EXPECT_EQ(*(uint32_t *)(uintptr_t)(output.gpa_page * PAGE_SIZE), 0x101);
}
