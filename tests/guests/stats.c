/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLFS chapter 21 and appendix J, guest side: a VP's own statistics pages, and what each counter counts. */
#include "guest.h"

#define VECTOR 0x60
#define PAGE_SIZE 4096u
#define STATS_VP_RETAIL (HV_MSR_STATS_PARTITION_RETAIL + 2)
#define UNMAPPED ((volatile uint32_t *)0x4000000000u) /* beyond what the runtime maps */

/* Indices in group VPV (J.4.2) */
enum {
    HV_VPV_Hypercalls = 1,
    HV_VPV_PageInvalidations = 3,
    HV_VPV_ControlRegisterAccesses = 5,
    HV_VPV_IoInstructions = 7,
    HV_VPV_HltInstructions = 9,
    HV_VPV_MwaitInstructions = 11,
    HV_VPV_CpuidInstructions = 13,
    HV_VPV_MsrAccesses = 15,
    HV_VPV_DebugRegisterAccesses = 25,
    HV_VPV_PageFaultIntercepts = 27,
    HV_VPV_SmallPageTlbFills = 31,
    HV_VPV_LargePageTlbFills = 30,
    HV_VPV_ReflectedGuestPageFaults = 32,
    HV_VPV_ApicMmioAccesses = 33,
    HV_VPV_ApicEoiAccesses = 36,
    HV_VPV_AddressSpaceEvictions = 40,
    HV_VPV_AddressSpaceSwitches = 41,
    HV_VPV_AddressDomainFlushes = 42,
    HV_VPV_ApicTprAccesses = 50,
    HV_VPV_VirtualInterrupts = 53,
    HV_VPV_ApicIpisSent = 54,
    HV_VPV_ApicSelfIpisSent = 55,
    HV_VPV_LongSpinWaitHypercalls = 58,
    HV_VPV_VirtualMmuHypercalls = 62,
};

static uint8_t place[PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));

void guest_cleanup(void)
{
    wrmsr(STATS_VP_RETAIL, 0);
    hv_reset_state();
}

static volatile uint64_t *page(void)
{
    return (volatile uint64_t *)(void *)place;
}

/* The group's header, so that an index is a counter. */
static volatile uint64_t *show(void)
{
    wrmsr(STATS_VP_RETAIL, (uintptr_t)place | HV_MSR_ENABLE);
    return page() + 1 + (page()[0] >> 48) / 8;
}

#define EXPECT_MOVES(counter, expected, ...)                                                                           \
    do {                                                                                                               \
        volatile uint64_t *vpv_ = show();                                                                              \
        uint64_t before_ = vpv_[counter];                                                                              \
        __VA_ARGS__;                                                                                                   \
        EXPECT_EQ(vpv_[counter] - before_, expected);                                                                  \
    } while (0)

CHECK(format, "21.1.3, 21.1.4: headers of eight bytes, groups in a row, an empty header at the end")
{
    volatile uint64_t *vpv = show();
    EXPECT_EQ(page()[0] & 0xFFFF, 2);
    EXPECT_EQ((uint32_t)(page()[0] >> 16), 0x10000);
    EXPECT_EQ(vpv[0], UINT64_C(3) | UINT64_C(0x10000) << 16 | UINT64_C(63 * 8) << 48);
    EXPECT_EQ(vpv[64], 0);
}

CHECK(write_protected, "21.1.2: a write is #MC and changes nothing")
{
    volatile uint64_t *vpv = show();
    uint64_t header = vpv[0];
    EXPECT_FAULT(VECTOR_MC, vpv[0] = 1);
    EXPECT_EQ(vpv[0], header);
}

CHECK(beneath, "21.3.3, 8.1.3: what is beneath comes back")
{
    page()[0] = 0x1234;
    show();
    EXPECT(page()[0] != 0x1234);
    wrmsr(STATS_VP_RETAIL, (uintptr_t)place);
    EXPECT_EQ(page()[0], 0x1234);
}

CHECK(instructions, "J.4.2: by kind")
{
    EXPECT_MOVES(HV_VPV_PageInvalidations, 5, for (int i = 0; i < 5; i++) invlpg(0x1000));
    EXPECT_MOVES(HV_VPV_ControlRegisterAccesses, 7, {
        for (int i = 0; i < 4; i++)
            read_cr0();
        for (int i = 0; i < 3; i++)
            read_cr2();
    });
    EXPECT_MOVES(HV_VPV_IoInstructions, 6, for (int i = 0; i < 6; i++) outb(0x80, 0));
    EXPECT_MOVES(HV_VPV_CpuidInstructions, 4, for (int i = 0; i < 4; i++) cpuid(0, 0));
    EXPECT_MOVES(HV_VPV_MsrAccesses, 3, for (int i = 0; i < 3; i++) rdmsr(MSR_EFER));
    EXPECT_MOVES(HV_VPV_MsrAccesses, 2, for (int i = 0; i < 2; i++) rdmsr(HV_MSR_VP_INDEX));
    EXPECT_MOVES(
        HV_VPV_DebugRegisterAccesses, 2, for (int i = 0; i < 2; i++) {
            uintptr_t value;
            __asm__ volatile("mov %%dr7, %0" : "=r"(value));
        });
}

static void wait_for_interrupt(void)
{
    apic_send_ipi(0, VECTOR);
    __asm__ volatile("monitor" : : "a"(place), "c"(0), "d"(0));
    __asm__ volatile("sti; mwait; cli" : : "a"(0), "c"(0) : "memory");
}

CHECK(mwait, "J.4.2: it ends at once, since an interrupt is requested")
{
    interrupt_set_handler(VECTOR, interrupt_handle_eoi);
    EXPECT_MOVES(HV_VPV_MwaitInstructions, 3, for (int i = 0; i < 3; i++) wait_for_interrupt());
    EXPECT_EQ(interrupt_count(0, VECTOR), 3);
}

CHECK(address_spaces, "J.4.2: CR3, flushes by hypercall, TLB fills")
{
    uintptr_t cr3 = read_cr3();
    EXPECT_MOVES(HV_VPV_AddressSpaceSwitches, 3, for (int i = 0; i < 3; i++) write_cr3(cr3));
    EXPECT_MOVES(HV_VPV_AddressSpaceEvictions, 2, for (int i = 0; i < 2; i++) write_cr3(cr3));
    volatile uint64_t *vpv = show();
    uint64_t before = vpv[HV_VPV_SmallPageTlbFills] + vpv[HV_VPV_LargePageTlbFills];
    write_cr3(cr3);
    EXPECT(vpv[HV_VPV_SmallPageTlbFills] + vpv[HV_VPV_LargePageTlbFills] > before);
}

CHECK(page_faults, "J.4.2: intercepted, and handed to the guest")
{
    EXPECT_MOVES(HV_VPV_PageFaultIntercepts, 1, EXPECT_FAULT(VECTOR_PF, (void)*UNMAPPED));
    EXPECT_MOVES(HV_VPV_ReflectedGuestPageFaults, 1, EXPECT_FAULT(VECTOR_PF, (void)*UNMAPPED));
}

CHECK(local_apic, "J.4.2: its page, EOI, TPR, IPIs, interrupts")
{
    interrupt_set_handler(VECTOR, interrupt_handle_eoi);
    EXPECT_MOVES(HV_VPV_ApicMmioAccesses, 4, for (int i = 0; i < 4; i++) apic_read(APIC_ID));
    EXPECT_MOVES(HV_VPV_ApicTprAccesses, 2, for (int i = 0; i < 2; i++) apic_read(APIC_TPR));
    for (unsigned i = 1; i <= 3; i++) {
        volatile uint64_t *vpv = show();
        uint64_t sent = vpv[HV_VPV_ApicIpisSent], self = vpv[HV_VPV_ApicSelfIpisSent];
        uint64_t taken = vpv[HV_VPV_VirtualInterrupts], ended = vpv[HV_VPV_ApicEoiAccesses];
        apic_send_ipi(0, VECTOR);
        interrupts_on();
        EXPECT(WAIT_UNTIL(interrupt_count(0, VECTOR) == i, SOON));
        interrupts_off();
        EXPECT_EQ(vpv[HV_VPV_ApicIpisSent] - sent, 1);
        EXPECT_EQ(vpv[HV_VPV_ApicSelfIpisSent] - self, 1);
        EXPECT_EQ(vpv[HV_VPV_VirtualInterrupts] - taken, 1);
        EXPECT_EQ(vpv[HV_VPV_ApicEoiAccesses] - ended, 1);
    }
}

CHECK(hypercalls, "J.4.2: in all, and by kind")
{
    hv_enable();
    EXPECT_MOVES(HV_VPV_Hypercalls, 3,
                 for (int i = 0; i < 3; i++) hv_call(HV_NOTIFY_LONG_SPIN_WAIT | HV_CALL_FAST, 1, 0));
    EXPECT_MOVES(HV_VPV_LongSpinWaitHypercalls, 2,
                 for (int i = 0; i < 2; i++) hv_call(HV_NOTIFY_LONG_SPIN_WAIT | HV_CALL_FAST, 1, 0));
    EXPECT_MOVES(HV_VPV_VirtualMmuHypercalls, 1,
                 hv_call(HV_SWITCH_VIRTUAL_ADDRESS_SPACE | HV_CALL_FAST, read_cr3(), 0));
}
