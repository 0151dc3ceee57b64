/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Entry of the first CPU. QEMU's -kernel enters an ELF image with a PVH note in 32-bit protected mode: flat segments,
 * paging and interrupts off, EBX = address of hvm_start_info. The 64-bit runtime goes on to long mode, with 4 GiB
 * mapped one to one in 2 MiB pages; the 32-bit one calls C at once, which sets up paging.
 */
#include "layout.h"

    .section .note.Xen, "a", @note
    .balign 4
    .long 4                     /* name size */
    .long 8                     /* QEMU reads eight bytes in both widths */
    .long 18                    /* XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .long guest_entry, 0

    .section .text.entry, "ax"
    .code32
    .globl guest_entry
guest_entry:
    cli
    cld
    lgdt guest_gdt_pointer
    ljmp $GUEST_CS32, $1f
1:  mov $GUEST_DS, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %fs
    mov %eax, %gs
    mov %eax, %ss
    mov $(guest_stacks + GUEST_STACK_SIZE), %esp
    mov %cr4, %eax
    or $0x600, %eax             /* OSFXSR, OSXMMEXCPT */
    mov %eax, %cr4

#ifdef __x86_64__
    /* Two levels that point to tables, then 2048 large pages. 7: present, writable, user. */
    mov $guest_page_tables, %edi
    lea 0x1007(%edi), %eax
    mov %eax, (%edi)
    lea 0x2007(%edi), %eax
    lea 0x1000(%edi), %edx
    mov $4, %ecx
2:  mov %eax, (%edx)
    add $0x1000, %eax
    add $8, %edx
    loop 2b
    lea 0x2000(%edi), %edx
    mov $0x87, %eax
    mov $2048, %ecx
3:  mov %eax, (%edx)
    add $0x200000, %eax
    add $8, %edx
    loop 3b
    mov %cr4, %eax
    or $0x20, %eax              /* PAE */
    mov %eax, %cr4
    mov %edi, %cr3
    mov $0xC0000080, %ecx
    rdmsr
    or $0x900, %eax             /* LME, NXE */
    wrmsr
    mov $0x80010033, %eax       /* PG, WP, NE, ET, MP, PE */
    mov %eax, %cr0
    ljmp $GUEST_CS64, $5f
    .code64
5:  mov %ebx, %edi
    xor %ebp, %ebp
    call guest_start
#else
    mov $0x00010033, %eax       /* WP, NE, ET, MP, PE */
    mov %eax, %cr0
    xor %ebp, %ebp
    sub $12, %esp
    push %ebx
    call guest_start
#endif
6:  hlt
    jmp 6b

/* The first CPU's descriptors while it starts, and a template: every CPU has its own table with its own TSS. */
    .data
    .balign 8
    .globl guest_gdt_template
guest_gdt_template:
    .quad 0
    .quad 0x00CF9B000000FFFF    /* 08: 32-bit code */
    .quad 0x00CF93000000FFFF    /* 10: data */
    .quad 0x00AF9B000000FFFF    /* 18: 64-bit code */
    .quad 0
#ifdef __x86_64__
    .quad 0x00AFFB000000FFFF    /* 28: user code, 64-bit */
#else
    .quad 0x00CFFB000000FFFF    /* 28: user code, 32-bit */
#endif
    .quad 0x00CFF3000000FFFF    /* 30: user data */
    .quad 0
    .quad 0, 0                  /* 40: TSS */
guest_gdt_pointer:
    .word . - guest_gdt_template - 1
    .long guest_gdt_template

    .section .bss.aligned, "aw", @nobits
    .balign GUEST_STACK_SIZE
    .globl guest_stacks
guest_stacks:
    .skip GUEST_STACK_SIZE * GUEST_MAX_CPUS
    .balign 4096
    .globl guest_page_tables
guest_page_tables:
    .skip 0x6000

    .section .note.GNU-stack, "", @progbits
