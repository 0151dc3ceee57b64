/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A root with one child of two VPs, for saving and restoring: all of them go on for ever, and the root tells on its
 * console how far they are.
 *
 * The child's VP 0 sleeps and wakes by the timer of its local APIC, and tells of each wake-up by an intercept (OUT);
 * VP 1 counts in memory. The root answers the intercepts and checks that none is lost or comes twice.
 */
#include "root.h"

#define CHILD_MEMORY (4u << 20)
#define CODE 0x10000u
#define TABLES 0x40000u
#define COUNTER 0x20000u
#define VECTOR_SINT0 0x50
#define PORT 0x1234
#define LINE_EVERY 25 /* wake-ups */

/* The timer is one-shot, at vector 0x40, and armed for each wake-up; the handler counts in EBX. */
CHILD_PROGRAM(waking, 64,
              "mov $0x60000, %rsp\n"
              "mov $0x50000, %rdi\n" /* an IDT with the one gate */
              "lea handler(%rip), %rax\n"
              "mov %ax, 0x400(%rdi)\n"
              "movw $0x10, 0x402(%rdi)\n"
              "movw $0x8E00, 0x404(%rdi)\n"
              "shr $16, %rax\n"
              "mov %eax, 0x406(%rdi)\n"
              "movl $0, 0x40A(%rdi)\n"
              "movw $0, 0x40E(%rdi)\n"
              "sub $16, %rsp\n"
              "movw $0xFFF, (%rsp)\n"
              "mov %rdi, 2(%rsp)\n"
              "lidt (%rsp)\n"
              "mov $0xFEE00000, %rsi\n"
              "movl $0x1FF, 0xF0(%rsi)\n"
              "movl $0x40, 0x320(%rsi)\n"
              "movl $0xB, 0x3E0(%rsi)\n"
              "movl $0x1000000, 0x310(%rsi)\n" /* SIPI for VP 1, at page 0x11 */
              "movl $0x4611, 0x300(%rsi)\n"
              "xor %ebx, %ebx\n"
              "1: movl $2000000, 0x380(%rsi)\n" /* 2 ms */
              "sti\n"
              "hlt\n"
              "cli\n"
              "mov %ebx, %eax\n"
              "mov $0x1234, %edx\n"
              "out %eax, %dx\n"
              "jmp 1b\n"
              "handler: inc %ebx\n"
              "movl $0, 0xB0(%rsi)\n"
              "iretq")
CHILD_PROGRAM(counting, 16, "mov $0x2000, %ax; mov %ax, %ds; 1: incl 0; jmp 1b")

static uint32_t next;
static uint32_t last_count;

static enum intercept_action wake_up(struct intercept *intercept, void *context)
{
    const struct child *child = context;
    const volatile uint32_t *count = child_memory(child, COUNTER, 4);

    if (intercept->io.value != ++next) {
        print("FAILED: wake-up %u instead of %u\n", intercept->io.value, next);
    }
    if (next % LINE_EVERY == 0) {
        uint32_t now = *count;

        print("at %u time=%llu counts=%u\n", next,
              (unsigned long long)child_get_register(child, 0, HV_REGISTER_TimeRefCount), now != last_count);
        last_count = now;
    }
    return INTERCEPT_DONE;
}

void guest_main(void)
{
    static struct child child;
    const struct intercept_handlers handlers = {.io = wake_up};

    child.privileges = CHILD_PRIVILEGES;
    root_enable();
    intercept_enable(VECTOR_SINT0);
    child_create(&child);
    child_add_memory(&child, 0, CHILD_MEMORY);
    child_add_vp(&child, 0);
    child_add_vp(&child, 1);
    child_enter_program64(&child, 0, CODE, waking, waking_end, TABLES);
    child_put_program(&child, CODE + 0x1000, counting, counting_end);
    child_intercept_ports(&child, PORT, 1);
    child_resume(&child, 0);
    child_resume(&child, 1);
    print("ready\n");
    intercept_loop(&handlers, &child, NULL);
}
