/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A root with ten children, each of which counts for ever in a page of its own; told when all have begun. */
#include "root.h"

#define CHILDREN 10
#define CODE_GPA 0x10000u
#define COUNTER_GPA 0x20000u

CHILD_PROGRAM(count, 16, "mov $0x2000, %ax; mov %ax, %ds; 1: incl 0; jmp 1b")

void guest_main(void)
{
    static struct child children[CHILDREN];
    volatile uint32_t *counters[CHILDREN];

    root_enable();
    for (unsigned i = 0; i < CHILDREN; i++) {
        struct child *child = &children[i];

        *child = (struct child){.privileges = CHILD_PRIVILEGES};
        child_create(child);
        child_add_memory(child, CODE_GPA, PAGE_SIZE);
        counters[i] = (volatile uint32_t *)child_add_memory(child, COUNTER_GPA, PAGE_SIZE);
        memcpy(child_memory(child, CODE_GPA, PAGE_SIZE), count, (size_t)(count_end - count));
        child_add_vp(child, 0);
        child_enter_real_mode(child, 0, CODE_GPA >> 4);
        child_resume(child, 0);
    }
    for (unsigned i = 0; i < CHILDREN; i++) {
        while (*counters[i] == 0) {
            cpu_pause();
        }
    }
    print("ready\n");
    for (;;) {
        __asm__ volatile("sti; hlt; cli" : : : "memory");
    }
}
