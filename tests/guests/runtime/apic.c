/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "apic.h"

#include "smp.h"

#define X2APIC_MSR(offset) (0x800u + ((offset) >> 4))
#define X2APIC_ICR 0x830u
#define APIC_BASE_ENABLE 0x800u
#define APIC_BASE_X2APIC 0x400u
#define SVR_ENABLE 0x100u
#define LVT_MASKED 0x10000u
#define CPUID_1_ECX_X2APIC (1u << 21)

uint32_t apic_read(unsigned offset)
{
    if (this_cpu()->x2apic) {
        return (uint32_t)rdmsr(X2APIC_MSR(offset));
    }
    return *(volatile uint32_t *)(uintptr_t)(APIC_BASE + offset);
}

void apic_write(unsigned offset, uint32_t value)
{
    if (this_cpu()->x2apic) {
        wrmsr(X2APIC_MSR(offset), value);
    } else {
        *(volatile uint32_t *)(uintptr_t)(APIC_BASE + offset) = value;
    }
}

void apic_eoi(void)
{
    apic_write(APIC_EOI, 0);
}

unsigned apic_id(void)
{
    return this_cpu()->x2apic ? apic_read(APIC_ID) : apic_read(APIC_ID) >> 24;
}

void apic_send_ipi(unsigned destination, uint32_t low)
{
    if (this_cpu()->x2apic) {
        wrmsr(X2APIC_ICR, (uint64_t)destination << 32 | low);
    } else {
        apic_write(APIC_ICR_HIGH, destination << 24);
        apic_write(APIC_ICR_LOW, low);
    }
}

bool apic_vector_set(unsigned offset, uint8_t vector)
{
    return apic_read(offset + vector / 32 * 0x10) >> vector % 32 & 1;
}

bool apic_enable_x2apic(void)
{
    if (!(cpuid(1, 0).ecx & CPUID_1_ECX_X2APIC)) {
        return false;
    }
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_BASE_ENABLE | APIC_BASE_X2APIC);
    this_cpu()->x2apic = true;
    return true;
}

void apic_reset_mode(void)
{
    uint64_t base = rdmsr(MSR_APIC_BASE) & ~(uint64_t)(APIC_BASE_ENABLE | APIC_BASE_X2APIC);
    wrmsr(MSR_APIC_BASE, base);
    wrmsr(MSR_APIC_BASE, base | APIC_BASE_ENABLE);
    this_cpu()->x2apic = false;
    apic_init();
}

void apic_init(void)
{
    apic_write(APIC_LVT_LINT0, LVT_MASKED);
    apic_write(APIC_LVT_LINT1, LVT_MASKED);
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
    apic_write(APIC_TPR, 0);
    apic_write(APIC_SVR, SVR_ENABLE | VECTOR_SPURIOUS);
}

static unsigned bits_in(uint32_t value)
{
    unsigned count = 0;
    for (; value; value &= value - 1) {
        count++;
    }
    return count;
}

static unsigned in_service(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < 8; i++) {
        count += bits_in(apic_read(APIC_ISR + i * 0x10));
    }
    return count;
}

static bool requested(void)
{
    for (unsigned i = 0; i < 8; i++) {
        if (apic_read(APIC_IRR + i * 0x10)) {
            return true;
        }
    }
    return false;
}

#define DRAIN_TURNS 100 /* what waits for a lower TPR stays */

void apic_drain(void)
{
    for (unsigned left = in_service(); left > 0; left--) {
        apic_eoi();
    }
    interrupts_on();
    /* Where the guest is interpreted, interrupts come in some instructions later. */
    for (unsigned turn = 0; turn < DRAIN_TURNS && requested(); turn++) {
        cpu_pause();
    }
    interrupts_off();
}
