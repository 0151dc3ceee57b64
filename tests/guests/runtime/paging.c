/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "paging.h"

#include "console.h"
#include "layout.h"
#include "string.h"

extern uint8_t guest_page_tables[];

static uintptr_t pool_next = GUEST_POOL_BASE;
static unsigned levels;
static bool long_entries = true; /* 8-byte entries */

void *page_alloc(unsigned count)
{
    uintptr_t at = pool_next;
    if (count > (GUEST_POOL_END - at) / PAGE_SIZE) {
        guest_panic("page_alloc: no %u pages left", count);
    }
    pool_next += (uintptr_t)count * PAGE_SIZE;
    return memset((void *)at, 0, (size_t)count * PAGE_SIZE);
}

uintptr_t vm_root(void)
{
    return (uintptr_t)guest_page_tables;
}

unsigned vm_levels(void)
{
    return levels;
}

static uint64_t get_entry(uintptr_t table, unsigned index)
{
    return long_entries ? ((volatile uint64_t *)table)[index] : ((volatile uint32_t *)table)[index];
}

static void set_entry(uintptr_t table, unsigned index, uint64_t entry)
{
    if (long_entries) {
        ((volatile uint64_t *)table)[index] = entry;
    } else {
        ((volatile uint32_t *)table)[index] = (uint32_t)entry;
    }
}

static unsigned entry_index(uintptr_t va, unsigned level)
{
    unsigned bits = long_entries ? 9 : 10;
    return (unsigned)(va >> (12 + bits * (level - 1))) & ((1u << bits) - 1);
}

/* The entries above the last level; those of PAE's first table have no rights. */
static uint64_t table_entry(uintptr_t table, unsigned level)
{
    return table | (levels == 3 && level == 3 ? PTE_P : PTE_P | PTE_W | PTE_U);
}

#define ENTRY_ADDRESS UINT64_C(0x000FFFFFFFFFF000)

/* The last-level table for `va`, or 0 when there is none and `make` is false. */
static uintptr_t find_table(uintptr_t root, uintptr_t va, bool make)
{
    uintptr_t table = root;
    for (unsigned level = levels; level > 1; level--) {
        unsigned index = entry_index(va, level);
        uint64_t entry = get_entry(table, index);
        if (!(entry & PTE_P) || (entry & PTE_LARGE && level == 2)) {
            if (!make) {
                return 0;
            }
            entry = table_entry((uintptr_t)page_alloc(1), level);
            set_entry(table, index, entry);
        }
        table = (uintptr_t)(entry & ENTRY_ADDRESS);
    }
    return table;
}

void vm_map(uintptr_t root, uintptr_t va, uint64_t pa, unsigned flags)
{
    if (va < VM_TEST_BASE || va - VM_TEST_BASE >= VM_TEST_SIZE) {
        guest_panic("vm_map: %lx is not a test address", (unsigned long)va);
    }
    set_entry(find_table(root, va, true), entry_index(va, 1), pa | flags);
}

void vm_unmap(uintptr_t root, uintptr_t va)
{
    uintptr_t table = find_table(root, va, false);
    if (table) {
        set_entry(table, entry_index(va, 1), 0);
    }
}

/* Leave nothing at the test addresses; in PAE form the directory is the root's own already. */
static void forget_test_addresses(uintptr_t root)
{
    if (levels == 4) {
        set_entry(root, entry_index(VM_TEST_BASE, 4), 0);
        return;
    }
    uintptr_t directory = root;
    if (levels == 3) {
        directory = (uintptr_t)(get_entry(root, entry_index(VM_TEST_BASE, 3)) & ENTRY_ADDRESS);
    }
    set_entry(directory, entry_index(VM_TEST_BASE, 2), 0);
}

void page_release_all(void)
{
    forget_test_addresses(vm_root());
    pool_next = GUEST_POOL_BASE;
}

void vm_flush_all(void)
{
    uintptr_t cr4 = read_cr4();
    write_cr3(vm_root());
    write_cr4(cr4 ^ CR4_PGE);
    write_cr4(cr4 & ~(uintptr_t)CR4_PGE);
}

uintptr_t vm_create(void)
{
    uintptr_t root = (uintptr_t)page_alloc(1);
    memcpy((void *)root, (const void *)vm_root(), PAGE_SIZE);
    if (levels == 3) {
        /* The first table has four entries; the test addresses are under the last one. */
        unsigned index = entry_index(VM_TEST_BASE, 3);
        uintptr_t directory = (uintptr_t)page_alloc(1);
        memcpy((void *)directory, (const void *)(uintptr_t)(get_entry(root, index) & ENTRY_ADDRESS), PAGE_SIZE);
        set_entry(root, index, table_entry(directory, 3));
    }
    forget_test_addresses(root);
    return root;
}

#ifdef __x86_64__
void paging_init(void)
{
    levels = 4; /* start.S made the tables */
}
#else
static void fill_pae(uintptr_t tables)
{
    for (unsigned i = 0; i < 4; i++) {
        set_entry(tables, i, (tables + PAGE_SIZE * (i + 1)) | PTE_P);
    }
    for (uint32_t i = 0; i < 2048; i++) {
        bool test = i << 21 == VM_TEST_BASE;
        set_entry(tables + PAGE_SIZE, i, test ? 0 : (uint64_t)i << 21 | PTE_P | PTE_W | PTE_U | PTE_LARGE);
    }
}

static void fill_legacy(uintptr_t tables)
{
    for (uint32_t i = 0; i < 1024; i++) {
        set_entry(tables, i, i << 22 == VM_TEST_BASE ? 0 : i << 22 | PTE_P | PTE_W | PTE_U | PTE_LARGE);
    }
}

void paging_init(void)
{
    char mode[16];
    if (guest_option("paging", mode, sizeof(mode)) && text_equal(mode, "legacy")) {
        levels = 2;
        long_entries = false;
        fill_legacy(vm_root());
        write_cr4(read_cr4() | CR4_PSE);
    } else {
        levels = 3;
        fill_pae(vm_root());
        write_cr4(read_cr4() | CR4_PAE | CR4_PSE);
    }
    write_cr3(vm_root());
    write_cr0(read_cr0() | 0x80000000u);
}
#endif
