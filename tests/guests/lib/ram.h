/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The root partition's own RAM, which it shares out: contiguous ranges that become a child's memory, and single pages
 * for the hypervisor's pools. It lies above what the runtime uses (layout.h), up to the end of low memory, but for the
 * file that QEMU's -initrd placed there.
 */
#ifndef ROOT_RAM_H
#define ROOT_RAM_H

#include <stddef.h>
#include <stdint.h>

#define LARGE_PAGE_SIZE 0x200000u

/* A range, holding what it holds; it stays taken until ram_free_all(). Panics when there is not that much. */
uintptr_t ram_reserve(size_t size, size_t alignment);
/* The same, zeroed. For the memory of a big child that takes longer than all else: the machine's RAM is zero at first.
 */
uintptr_t ram_take(size_t size, size_t alignment);
/* How much is left for ram_take() at an alignment of a page. */
size_t ram_left(void);
/* A single page, and back: for what comes and goes, such as the pages of a partition's pool. */
uintptr_t ram_take_page(void);
uintptr_t ram_reserve_page(void);
void ram_give_page(uintptr_t page);
/* Forget all that was taken. Nothing of it may still belong to a child. */
void ram_free_all(void);

#endif
