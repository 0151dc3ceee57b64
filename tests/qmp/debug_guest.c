/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A root and a child that execute different code at the same virtual address, for a debugger: the root calls a function
 * there again and again, which counts at its COUNTER; the child runs a loop there, which counts in RBX. Each has a word
 * of its own at WORD.
 */
#include "root.h"

#define CHILD_MEMORY (1u << 20)
#define TABLES 0x40000u
#define COUNTER 0x900u /* in the page */
#define WORD 0x800u
#define ROOTS_WORD UINT64_C(0x746F6F7220656874)
#define CHILDS_WORD UINT64_C(0x646C696863206568)
#define CHILDS_RAX 0x1234ABCDu

CHILD_PROGRAM(childs_code, 64, "1: inc %rbx; nop; jmp 1b")
CHILD_PROGRAM(roots_code, 64, "2: incq 2b + 0x900(%rip); ret")

static uint8_t *fill(uint8_t *page, const uint8_t *begin, const uint8_t *end, uint64_t word)
{
    memcpy(page, begin, (size_t)(end - begin));
    memcpy(page + WORD, &word, sizeof(word));
    return page;
}

void guest_main(void)
{
    struct child child = {.privileges = CHILD_PRIVILEGES};
    uint8_t *page = fill(page_alloc(1), roots_code, roots_code_end, ROOTS_WORD);
    uint8_t *childs = fill(page_alloc(1), childs_code, childs_code_end, CHILDS_WORD);

    root_enable();
    child_create(&child);
    child_add_memory(&child, 0, CHILD_MEMORY);
    child_map(&child, (uintptr_t)page, (uintptr_t)childs, PAGE_SIZE, CHILD_RAM);
    child_add_vp(&child, 0);
    child_make_gdt(&child, 0, TABLES, true);
    child_make_page_tables(&child, TABLES + PAGE_SIZE, 4);
    child_enter_long_mode(&child, 0, (uintptr_t)page, TABLES + PAGE_SIZE, 0);
    child_set_register(&child, 0, HV_REGISTER_Rax, CHILDS_RAX);
    child_resume(&child, 0);
    print("page %lx of partition %llu\n", (unsigned long)(uintptr_t)page, (unsigned long long)child.id);
    for (;;) {
        ((void (*)(void))(uintptr_t)page)();
    }
}
