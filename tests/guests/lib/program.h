/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Small programs for children, in assembly beside the C that runs them:
 *
 *     CHILD_PROGRAM(say, 16, "mov $0x42, %al; out %al, $0x80; hlt")
 *     child_put_program(&child, 0x4000, say, say_end);
 *
 * They run wherever they are put, if they do not name their own addresses.
 */
#ifndef ROOT_PROGRAM_H
#define ROOT_PROGRAM_H

#include "child.h"

#define CHILD_PROGRAM(name, bits, text)                                                                                \
    __asm__(".pushsection .rodata\n.code" #bits "\n" #name ":\n\t" text "\n" #name "_end:\n.code64\n.popsection");     \
    extern const uint8_t name[], name##_end[];

/* Copy it into the child's memory. */
void child_put_program(const struct child *child, uint64_t gpa, const uint8_t *begin, const uint8_t *end);
/*
 * The same, and put the VP at its beginning: in 64-bit mode with 4 GiB mapped one to one, descriptors and page tables
 * in the eight pages at `tables`.
 */
void child_enter_program64(const struct child *child, unsigned vp, uint64_t gpa, const uint8_t *begin,
                           const uint8_t *end, uint64_t tables);
/* In 32-bit mode, with descriptors at `tables`. */
void child_enter_program32(const struct child *child, unsigned vp, uint64_t gpa, const uint8_t *begin,
                           const uint8_t *end, uint64_t tables);
/* In real mode at (gpa >> 4):0. */
void child_enter_program16(const struct child *child, unsigned vp, uint64_t gpa, const uint8_t *begin,
                           const uint8_t *end);

#endif
