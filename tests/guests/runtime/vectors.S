/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One entry per interrupt vector, saved and restored context, and the C dispatcher between (interrupts.c). */
#include "layout.h"

    .text
    .balign 16
    .globl guest_vectors
guest_vectors:
    .set vector, 0
    .rept 256
    .balign 16
    .set has_error_code, (vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17) || (vector == 21)
    .set has_error_code, has_error_code || (vector == 29) || (vector == 30)
    .if has_error_code == 0
    push $0                     /* stands for the error code */
    .endif
#ifdef __x86_64__
    pushq $vector
#else
    pushl $vector
#endif
    jmp guest_interrupt
    .set vector, vector + 1
    .endr

guest_interrupt:
    cld
#ifdef __x86_64__
    push %rax
    push %rcx
    push %rdx
    push %rbx
    push %rbp
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, %rdi
    call guest_dispatch
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rbp
    pop %rbx
    pop %rdx
    pop %rcx
    pop %rax
    add $16, %rsp
    iretq
#else
    pusha
    mov $GUEST_DS, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %esp, %ebx
    and $-16, %esp
    sub $12, %esp
    push %ebx
    call guest_dispatch
    mov %ebx, %esp
    popa
    add $8, %esp
    iret
#endif

/* int context_save(struct context *): 0, and 1 when context_restore() comes back to it. */
    .globl context_save
context_save:
#ifdef __x86_64__
    pop %rdx
    mov %rbx, (%rdi)
    mov %rbp, 8(%rdi)
    mov %r12, 16(%rdi)
    mov %r13, 24(%rdi)
    mov %r14, 32(%rdi)
    mov %r15, 40(%rdi)
    mov %rsp, 48(%rdi)
    mov %rdx, 56(%rdi)
    pushf
    popq 64(%rdi)
    xor %eax, %eax
    jmp *%rdx
#else
    pop %edx
    mov (%esp), %eax
    mov %ebx, (%eax)
    mov %ebp, 4(%eax)
    mov %esi, 8(%eax)
    mov %edi, 12(%eax)
    mov %esp, 16(%eax)
    mov %edx, 20(%eax)
    pushf
    popl 24(%eax)
    xor %eax, %eax
    jmp *%edx
#endif

/* noreturn void context_restore(const struct context *) */
    .globl context_restore
context_restore:
    mov $GUEST_DS, %eax
    mov %eax, %ds
    mov %eax, %es
#ifdef __x86_64__
    mov (%rdi), %rbx
    mov 8(%rdi), %rbp
    mov 16(%rdi), %r12
    mov 24(%rdi), %r13
    mov 32(%rdi), %r14
    mov 40(%rdi), %r15
    mov 48(%rdi), %rsp
    mov 56(%rdi), %rdx
    pushq 64(%rdi)
    popf
    mov $1, %eax
    jmp *%rdx
#else
    mov 4(%esp), %ecx
    mov (%ecx), %ebx
    mov 4(%ecx), %ebp
    mov 8(%ecx), %esi
    mov 12(%ecx), %edi
    mov 16(%ecx), %esp
    mov 20(%ecx), %edx
    pushl 24(%ecx)
    popf
    mov $1, %eax
    jmp *%edx
#endif

/*
 * noreturn void user_enter_at(uintptr_t ip, uintptr_t stack, const struct user_registers *): go to CPL 3. The way back
 * is an exception or an interrupt.
 */
    .globl user_enter_at
user_enter_at:
#ifdef __x86_64__
    mov %rdx, %rax
    pushq $(GUEST_USER_DS | 3)
    push %rsi
    pushq $0x2
    pushq $(GUEST_USER_CS | 3)
    push %rdi
    mov (%rax), %rcx
    mov 8(%rax), %rdx
    mov 16(%rax), %r8
    iretq
#else
    mov 4(%esp), %ecx
    mov 8(%esp), %edx
    mov 12(%esp), %eax
    pushl $(GUEST_USER_DS | 3)
    push %edx
    pushl $0x2
    pushl $(GUEST_USER_CS | 3)
    push %ecx
    mov $(GUEST_USER_DS | 3), %ecx
    mov %ecx, %ds
    mov %ecx, %es
    mov 4(%eax), %edx
    mov 8(%eax), %ebx
    mov 12(%eax), %ecx
    mov 16(%eax), %edi
    mov 20(%eax), %esi
    mov (%eax), %eax
    iret
#endif

    .section .note.GNU-stack, "", @progbits
