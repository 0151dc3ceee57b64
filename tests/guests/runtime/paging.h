/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory. The lower 4 GiB are mapped one to one, for CPL 3 too, in large pages, so a physical address is a pointer.
 * 32-bit guests use PAE paging, or the two-level form when the command line has paging=legacy.
 */
#ifndef GUEST_PAGING_H
#define GUEST_PAGING_H

#include "cpu.h"

#define PAGE_SIZE 4096u

#define PTE_P 0x1u
#define PTE_W 0x2u
#define PTE_U 0x4u
#define PTE_A 0x20u
#define PTE_D 0x40u
#define PTE_LARGE 0x80u
#define PTE_G 0x100u

/* Virtual addresses from here on, VM_TEST_SIZE bytes, are for a check's own mappings: nothing is mapped there. */
#ifdef __x86_64__
#define VM_TEST_BASE 0x8000000000ul
#else
#define VM_TEST_BASE 0xD0000000ul
#endif
#define VM_TEST_SIZE 0x200000u

/* `count` zeroed pages in a row; they come back when the check ends. */
void *page_alloc(unsigned count);

/* The address space all CPUs start checks in: a value for CR3. */
uintptr_t vm_root(void);
/* A new one: the same below 4 GiB but for the test addresses, where it has nothing. Lives as long as page_alloc(). */
uintptr_t vm_create(void);
/* Map the page at `va`, in the test addresses, to `pa`; the tables on the way are made as needed. Flushes nothing. */
void vm_map(uintptr_t root, uintptr_t va, uint64_t pa, unsigned flags);
/* Take it away. Flushes nothing. */
void vm_unmap(uintptr_t root, uintptr_t va);
/* 4 for long mode, 3 for PAE, 2 for the legacy form. */
unsigned vm_levels(void);

/* The runtime's own: what a check leaves behind. vm_flush_all() is the calling CPU's: back to vm_root(), PGE off. */
void page_release_all(void);
void vm_flush_all(void);
void paging_init(void);

#endif
