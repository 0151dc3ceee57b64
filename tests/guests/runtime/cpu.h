/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Instructions that C has no word for. */
#ifndef GUEST_CPU_H
#define GUEST_CPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __x86_64__
#define GUEST_BITS 64
#else
#define GUEST_BITS 32
#endif

#define MSR_APIC_BASE 0x1B
#define MSR_EFER 0xC0000080u
#define EFER_LME 0x100u
#define EFER_LMA 0x400u
#define EFER_NXE 0x800u
#define CR4_PSE 0x10u
#define CR4_PAE 0x20u
#define CR4_PGE 0x80u
#define RFLAGS_IF 0x200u

struct cpuid_result {
    uint32_t eax, ebx, ecx, edx;
};

static inline struct cpuid_result cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct cpuid_result r;
    __asm__ volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(subleaf));
    return r;
}

/* Raises #GP where the register or the access does not exist; see rdmsr_fault() in interrupts.h. */
static inline uint64_t rdmsr(uint32_t index)
{
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index) : "memory");
    return (uint64_t)high << 32 | low;
}

static inline void wrmsr(uint32_t index, uint64_t value)
{
    __asm__ volatile("wrmsr" : : "c"(index), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
}

static inline uint64_t rdtsc(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

static inline void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline void outw(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void outl(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

#define GUEST_CONTROL_REGISTER(n)                                                                                      \
    static inline uintptr_t read_cr##n(void)                                                                           \
    {                                                                                                                  \
        uintptr_t value;                                                                                               \
        __asm__ volatile("mov %%cr" #n ", %0" : "=r"(value) : : "memory");                                             \
        return value;                                                                                                  \
    }                                                                                                                  \
    static inline void write_cr##n(uintptr_t value)                                                                    \
    {                                                                                                                  \
        __asm__ volatile("mov %0, %%cr" #n : : "r"(value) : "memory");                                                 \
    }
GUEST_CONTROL_REGISTER(0)
GUEST_CONTROL_REGISTER(2)
GUEST_CONTROL_REGISTER(3)
GUEST_CONTROL_REGISTER(4)

static inline void invlpg(uintptr_t address)
{
    __asm__ volatile("invlpg (%0)" : : "r"(address) : "memory");
}

/* The upper half of a 64-by-64-bit product. */
static inline uint64_t multiply_high(uint64_t a, uint64_t b)
{
    uint64_t al = (uint32_t)a, ah = a >> 32, bl = (uint32_t)b, bh = b >> 32;
    uint64_t low = al * bl, middle1 = ah * bl + (low >> 32), middle2 = al * bh + (uint32_t)middle1;
    return ah * bh + (middle1 >> 32) + (middle2 >> 32);
}

static inline void cpu_pause(void)
{
    __asm__ volatile("pause" : : : "memory");
}

static inline void cpu_halt(void)
{
    __asm__ volatile("hlt" : : : "memory");
}

static inline void interrupts_off(void)
{
    __asm__ volatile("cli" : : : "memory");
}

/* What waits is taken before this ends: STI by itself holds it back for one more instruction, which may be CLI. */
static inline void interrupts_on(void)
{
    __asm__ volatile("sti; nop" : : : "memory");
}

/* Let interrupts in and halt, with no window between; interrupts are off again afterwards. */
static inline void interrupts_on_halt(void)
{
    __asm__ volatile("sti; hlt; cli" : : : "memory");
}

static inline uintptr_t read_flags(void)
{
    uintptr_t flags;
    __asm__ volatile("pushf; pop %0" : "=r"(flags) : : "memory");
    return flags;
}

#endif
