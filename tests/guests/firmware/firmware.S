/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a PC's firmware does for a test guest, and nothing else: from the reset vector to the guest's PVH entry. A KVM
 * that interprets its guests takes many seconds for a real firmware. The image is in memory already, and what there is
 * to tell is put at firmware_data by guest_firmware.py: where the entry is, and then hvm_start_info.
 */
    .section .text, "ax"
    .code16
firmware_begin:
    cli
    cld
    lgdtl %cs:(gdt_pointer - firmware_begin)
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmpl $0x08, $1f

    .code32
1:  mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %fs
    mov %eax, %gs
    mov %eax, %ss
    mov $(firmware_data + 4), %ebx
    jmp *firmware_data

    .balign 8
gdt:
    .quad 0
    .quad 0x00CF9B000000FFFF    /* 08: code */
    .quad 0x00CF93000000FFFF    /* 10: data */
gdt_pointer:
    .word . - gdt - 1
    .long gdt

    .org 0x1000
firmware_data:

    .org 0xFFF0
    .code16
    jmp firmware_begin
    .org 0x10000

    .section .note.GNU-stack, "", @progbits
