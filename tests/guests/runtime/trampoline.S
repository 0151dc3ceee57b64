/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Start of every other CPU: copied to GUEST_TRAMPOLINE, entered in real mode by a start-up IPI with CS:IP =
 * (GUEST_TRAMPOLINE >> 4):0. Its parameters lie in the same page (layout.h).
 */
#include "layout.h"

#define AT(label) (GUEST_TRAMPOLINE + (label) - guest_trampoline)

    .section .rodata
    .globl guest_trampoline, guest_trampoline_end
guest_trampoline:
    .code16
    cli
    cld
    xor %ax, %ax
    mov %ax, %ds
    lgdtl GUEST_TRAMPOLINE + TRAMPOLINE_GDT_POINTER
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    ljmpl $GUEST_CS32, $AT(1f)
    .code32
1:  mov $GUEST_DS, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %fs
    mov %eax, %gs
    mov %eax, %ss
    mov GUEST_TRAMPOLINE + TRAMPOLINE_CR4, %eax
    mov %eax, %cr4
    mov GUEST_TRAMPOLINE + TRAMPOLINE_CR3, %eax
    mov %eax, %cr3
    mov GUEST_TRAMPOLINE + TRAMPOLINE_EFER, %eax
    test %eax, %eax
    jz 2f
    xor %edx, %edx
    mov $0xC0000080, %ecx
    wrmsr
2:  mov GUEST_TRAMPOLINE + TRAMPOLINE_CR0, %eax
    mov %eax, %cr0
    mov GUEST_TRAMPOLINE + TRAMPOLINE_STACK, %esp
#ifdef __x86_64__
    ljmp $GUEST_CS64, $AT(3f)
    .code64
3:  mov $guest_start_other, %eax
#else
    mov $guest_start_other, %eax
#endif
#ifdef __x86_64__
    call *%rax
#else
    call *%eax
#endif
guest_trampoline_end:

    .section .note.GNU-stack, "", @progbits
