/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * MSRs that the hypervisor does not virtualize. Those of the hypervisor, the APIC, the page attributes, the memory
 * types and the system calls never get here. What does is what kernels try because of the processor's model.
 */
#include "vmm.h"

struct known_msr {
    uint32_t first, last;
    uint64_t value; /* read; writes are dropped */
};

static const struct known_msr known[] = {
    {0xC0010015, 0xC0010015, 0}, /* AMD: hardware configuration */
    {0xC0010055, 0xC0010055, 0}, /* AMD: interrupt pending, read to find the C1E erratum */
    {0xC0011020, 0xC001102F, 0}, /* AMD: configuration of units of the core */
};

enum intercept_action msr_access(struct intercept *intercept, void *context)
{
    struct vmm *vmm = context;
    vmm->intercepts.msr++;
    for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (intercept->msr.index >= known[i].first && intercept->msr.index <= known[i].last) {
            intercept->msr.value = known[i].value;
            return INTERCEPT_DONE;
        }
    }
    /* Kernels expect #GP from an MSR that is not there, and get on. */
    intercept->msr.fault = true;
    return INTERCEPT_DONE;
}
