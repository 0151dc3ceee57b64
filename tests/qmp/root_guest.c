/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A root with one child, for the operator's commands: the child counts at COUNTER for ever, and an interrupt makes it
 * write the vector's mark. What the root's calls answer is told on its console, so that a policy can be tested.
 */
#include "root.h"

#define CHILD_MEMORY (4u << 20)
#define CODE 0x10000u
#define COUNTER 0x20000u

/* In real mode: DS is 0x2000, so COUNTER is DS:0. */
static const uint8_t counting[] = {
    0xB8, 0x00, 0x20, /* mov $0x2000, %ax */
    0x8E, 0xD8, /* mov %ax, %ds */
    0x66, 0xFF, 0x06, 0x00, 0x00, /* incl 0 */
    0xEB, 0xF9, /* jmp to the incl */
};

static unsigned create(uint64_t *id)
{
    unsigned status;

    if (root_is_2008r2()) {
        struct hv_in_create_partition_2008r2 input = {0};
        struct hv_out_create_partition_2008r2 output = {0};

        status = hvcall_create_partition_2008r2(&input, &output);
        *id = output.partition;
    } else {
        struct hv_in_create_partition_current input = {0};
        struct hv_out_create_partition_current output = {0};

        status = hvcall_create_partition_current(&input, &output);
        *id = output.partition;
    }
    return status;
}

/* Behind the child's memory; the page does not stay. */
static unsigned map_one_more(struct child *child)
{
    struct hv_in_map_gpa_pages input = {.partition = child->id, .gpa_page = CHILD_MEMORY / PAGE_SIZE, .flags = 1};
    uint64_t page = ram_take_page() / PAGE_SIZE;
    unsigned done, status;

    while ((status = hvcall_map_gpa_pages(&input, &page, NULL, 1, &done)) == HV_STATUS_INSUFFICIENT_MEMORY)
        partition_deposit(child->id, 1);
    if (status == HV_STATUS_SUCCESS)
        child_unmap(child, CHILD_MEMORY, PAGE_SIZE);
    return status;
}

void guest_main(void)
{
    struct child child = {.privileges = CHILD_PRIVILEGES};
    uint64_t extra = 0;
    unsigned status;

    root_enable();
    status = create(&extra);
    print("create status=%x\n", status);
    if (status) {
        print("ready\n");
        for (;;) {
            cpu_halt();
        }
    }
    partition_delete(extra);
    child_create(&child);
    child_add_memory(&child, 0, CHILD_MEMORY);
    memcpy(child_memory(&child, CODE, sizeof(counting)), counting, sizeof(counting));
    print("one more status=%x\n", map_one_more(&child));
    child_add_vp(&child, 0);
    child_enter_real_mode(&child, 0, CODE >> 4);
    child_resume(&child, 0);
    print("child %llu\n", (unsigned long long)child.id);
    print("ready\n");
    for (;;) {
        __asm__ volatile("sti; hlt; cli" : : : "memory");
    }
}
