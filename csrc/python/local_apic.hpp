/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Just enough of a local APIC to exercise auto-EOI and the APIC assist page: fixed, edge-triggered interrupts. */
#ifndef QEMU_HV_LOCAL_APIC_HPP
#define QEMU_HV_LOCAL_APIC_HPP

#include <bitset>
#include <cstdint>

namespace qemu_hv
{

class LocalApic
{
  public:
    using Vectors = std::bitset<256>;

    bool enabled = true; /* the spurious vector register's software enable */
    uint8_t tpr = 0;
    uint64_t icr = 0;
    Vectors irr, isr;

    static int highest(const Vectors &vectors)
    {
        for (int vector = 255; vector >= 0; vector--) {
            if (vectors[static_cast<size_t>(vector)]) {
                return vector;
            }
        }
        return -1;
    }

    /* The vector that the processor would take now, or -1: its class must be above the processor priority's. */
    int deliverable() const
    {
        int requested = highest(irr), in_service = highest(isr);
        int priority = in_service > tpr ? in_service : tpr;
        return requested >= 0 && requested >> 4 > priority >> 4 ? requested : -1;
    }
};

} // namespace qemu_hv

#endif
