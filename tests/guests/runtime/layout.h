/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Numbers shared by the runtime's C, its assembly and its linker script. */
#ifndef GUEST_LAYOUT_H
#define GUEST_LAYOUT_H

#define GUEST_MAX_CPUS 64
#define GUEST_STACK_SIZE 0x8000 /* per CPU; a power of two, so that the stack pointer finds the CPU's data */

/* Physical memory. The image is linked at 1 MiB. */
#define GUEST_TRAMPOLINE 0x8000 /* where the other CPUs start, one page below 1 MiB */
#define GUEST_REAL_MODE_PAGE 0x9000 /* for checks that run 16-bit code, see smp_run_real_mode() */
#define GUEST_POOL_BASE 0x2000000 /* page_alloc() takes from here ... */
#define GUEST_POOL_END 0x6000000 /* ... to here */
#define GUEST_PERSISTENT 0x6000000 /* one page, for checks, that nobody touches at a reset of the machine */
#define GUEST_RESUME 0x6001000 /* and one in which the runtime remembers the check that resets it */
#define GUEST_MEMORY_NEEDED 0x7000000

/* Selectors: the same indices in both widths. */
#define GUEST_CS32 0x08
#define GUEST_DS 0x10
#define GUEST_CS64 0x18
#define GUEST_USER_CS 0x28
#define GUEST_USER_DS 0x30
#define GUEST_TSS 0x40

/* Offsets of the trampoline's parameters in its page; struct trampoline_parameters in smp.c. */
#define TRAMPOLINE_GDT_POINTER 0xF00 /* u16 limit, u32 base */
#define TRAMPOLINE_CR3 0xF08
#define TRAMPOLINE_CR4 0xF0C
#define TRAMPOLINE_CR0 0xF10
#define TRAMPOLINE_EFER 0xF14
#define TRAMPOLINE_STACK 0xF18

#endif
