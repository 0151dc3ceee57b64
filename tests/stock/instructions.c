/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Executes every instruction that the patches of QEMU touch and prints what comes of it, so that two builds of QEMU can
 * be compared: CPUID, RDMSR and WRMSR in and outside the hypervisor's ranges, VMCALL, VMMCALL, RDTSC, HLT.
 */
#include "guest.h"

static void print_cpuid_range(uint32_t first, uint32_t last)
{
    for (uint32_t leaf = first; leaf <= last; leaf++) {
        for (uint32_t subleaf = 0; subleaf < 3; subleaf++) {
            uint32_t a = leaf, b = 0, c = subleaf, d = 0;
            __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
            print("cpuid %x.%u: %x %x %x %x\n", leaf, subleaf, a, b, c, d);
        }
    }
}

static void print_msr(uint32_t index)
{
    volatile uint32_t low = 0, high = 0;
    struct fault fault;

    CATCH(fault, __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index)));
    print("rdmsr %x: %d %u %x:%x\n", index, fault.raised, fault.raised ? fault.vector : 0, high, low);
    CATCH(fault, __asm__ volatile("wrmsr" : : "a"(low), "d"(high), "c"(index)));
    print("wrmsr %x: %d %u\n", index, fault.raised, fault.raised ? fault.vector : 0);
}

static void print_faults(void)
{
    struct fault fault;

    CATCH(fault, __asm__ volatile("vmcall"));
    print("vmcall: %d %u\n", fault.raised, fault.vector);
    CATCH(fault, __asm__ volatile("vmmcall"));
    print("vmmcall: %d %u\n", fault.raised, fault.vector);
}

void guest_main(void)
{
    static const uint32_t msrs[] = {0x1B, 0x174, 0x277, 0xC0000080, 0x40000000, 0x40000002, 0x40000073, 0x40001FFF};

    print_cpuid_range(0, 0x20);
    print_cpuid_range(0x40000000, 0x40000010);
    print_cpuid_range(0x80000000, 0x80000020);
    for (unsigned i = 0; i < sizeof(msrs) / sizeof(msrs[0]); i++) {
        print_msr(msrs[i]);
    }
    print_faults();
    print("tsc advances: %d\n", rdtsc() < rdtsc());
}
