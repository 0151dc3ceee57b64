/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ram.h"

#include "boot.h"
#include "guest.h"

static uintptr_t next, end;
/* Pages that came back; the first word of each is the next one's address. */
static uintptr_t free_pages;

/* The range above the runtime's own memory; a module in it shortens it from above, where QEMU puts modules. */
static void find_range(void)
{
    struct boot_range range = boot_ram_above(GUEST_MEMORY_NEEDED), module = boot_module();
    next = range.begin;
    end = range.end;
    if (module.begin < module.end && module.begin >= next && module.begin < end) {
        end = module.begin & ~(uintptr_t)(PAGE_SIZE - 1);
    }
}

uintptr_t ram_reserve(size_t size, size_t alignment)
{
    if (end == 0) {
        find_range();
    }
    uintptr_t at = (next + alignment - 1) & ~(uintptr_t)(alignment - 1);
    if (at > end || size > end - at) {
        guest_panic("%zu KiB of RAM are not left (%zu KiB are): give the machine more with -m", size >> 10,
                    ram_left() >> 10);
    }
    next = at + ((size + PAGE_SIZE - 1) & ~(size_t)(PAGE_SIZE - 1));
    return at;
}

uintptr_t ram_take(size_t size, size_t alignment)
{
    return (uintptr_t)memset((void *)ram_reserve(size, alignment), 0, size);
}

size_t ram_left(void)
{
    if (end == 0) {
        find_range();
    }
    return end - next;
}

uintptr_t ram_reserve_page(void)
{
    if (!free_pages) {
        return ram_reserve(PAGE_SIZE, PAGE_SIZE);
    }
    uintptr_t page = free_pages;
    free_pages = *(uintptr_t *)page;
    return page;
}

uintptr_t ram_take_page(void)
{
    return (uintptr_t)memset((void *)ram_reserve_page(), 0, PAGE_SIZE);
}

void ram_give_page(uintptr_t page)
{
    *(uintptr_t *)page = free_pages;
    free_pages = page;
}

void ram_free_all(void)
{
    free_pages = 0;
    find_range();
}
