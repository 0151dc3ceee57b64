/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "hyperv.h"

#include "apic.h"
#include "check.h"
#include "interrupts.h"
#include "paging.h"
#include "smp.h"
#include "string.h"

/* An open source OS without a number of its own (TLFS 3.6 as later amended: bit 63, OS type 0x7F). */
#define GUEST_OS_ID UINT64_C(0xFF00000000000001)

static uint8_t hypercall_page[PAGE_SIZE] __attribute__((aligned(4096)));

uintptr_t hv_hypercall_page(void)
{
    return (uintptr_t)hypercall_page;
}

void hv_enable(void)
{
    wrmsr(HV_MSR_GUEST_OS_ID, GUEST_OS_ID);
    wrmsr(HV_MSR_HYPERCALL, hv_hypercall_page() | HV_MSR_ENABLE);
}

void hv_disable(void)
{
    wrmsr(HV_MSR_HYPERCALL, 0);
    wrmsr(HV_MSR_GUEST_OS_ID, 0);
}

uint64_t hv_gpa_limit(void)
{
    return UINT64_C(1) << (cpuid(0x80000008, 0).eax & 0xFF);
}

static uint8_t scratch_pages[GUEST_MAX_CPUS][PAGE_SIZE] __attribute__((aligned(4096)));

/* Messages and flags stay in the SynIC's pages when those are switched off: take them all, then leave zeroes. */
static void empty_synic(uint8_t *page)
{
    if (wrmsr_fault(HV_MSR_SIEFP, (uintptr_t)page | HV_MSR_ENABLE) != NO_FAULT) {
        return;
    }
    memset(page, 0, PAGE_SIZE);
    wrmsr(HV_MSR_SIEFP, 0);
    wrmsr(HV_MSR_SIMP, (uintptr_t)page | HV_MSR_ENABLE);
    wrmsr(HV_MSR_SCONTROL, 1);
    struct hv_message *slots = (struct hv_message *)page;
    for (unsigned left = 1; left > 0;) {
        left = 0;
        for (unsigned i = 0; i < 16; i++) {
            left += slots[i].type != 0;
            slots[i].type = 0;
        }
        wrmsr(HV_MSR_EOM, 0);
    }
    memset(page, 0, PAGE_SIZE);
    wrmsr(HV_MSR_SCONTROL, 0);
    wrmsr(HV_MSR_SIMP, 0);
}

static void reset_vp(void *argument)
{
    (void)argument;
    for (unsigned i = 0; i < 4; i++) {
        wrmsr_fault(HV_MSR_STIMER_CONFIG(i), 0);
        wrmsr_fault(HV_MSR_STIMER_COUNT(i), 0);
    }
    for (unsigned i = 0; i < 16; i++) {
        wrmsr_fault(HV_MSR_SINT0 + i, HV_SINT_MASKED);
    }
    empty_synic(scratch_pages[cpu_index()]);
    wrmsr_fault(HV_MSR_APIC_ASSIST_PAGE, 0);
    apic_write(APIC_TPR, 0);
}

void hv_reset_state(void)
{
    smp_run_all(reset_vp, NULL);
    wrmsr_fault(HV_MSR_REFERENCE_TSC, 0);
    wrmsr_fault(HV_MSR_HYPERCALL, 0);
    wrmsr_fault(HV_MSR_GUEST_OS_ID, 0);
}

#ifdef __x86_64__
uint64_t hv_call_at(uintptr_t page, uint64_t input_value, uint64_t input, uint64_t output)
{
    uint64_t result;
    register uint64_t r8 __asm__("r8") = output;
    __asm__ volatile("call *%[page]"
                     : "=a"(result), "+c"(input_value), "+d"(input), "+r"(r8)
                     : [page] "r"(page)
                     : "r9", "r10", "r11", "cc", "memory");
    return result;
}

bool hv_tsc_page_time(const struct hv_reference_tsc *page, uint64_t *time)
{
    uint32_t sequence;
    do {
        sequence = page->sequence;
        if (sequence == 0) {
            return false;
        }
        uint64_t high, low = page->scale;
        int64_t offset = page->offset;
        __asm__ volatile("lfence; rdtsc; shl $32, %%rdx; or %%rdx, %%rax; mul %[scale]"
                         : "=&d"(high), "=&a"(low)
                         : [scale] "r"(low)
                         : "cc", "memory");
        *time = high + (uint64_t)offset;
    } while (page->sequence != sequence);
    return true;
}
#else
uint64_t hv_call_at(uintptr_t page, uint64_t input_value, uint64_t input, uint64_t output)
{
    /* Every register but the stack pointer and EBP carries a parameter, so the page's address goes on the stack. */
    uint32_t block[7] = {(uint32_t)input_value,
                         (uint32_t)(input_value >> 32),
                         (uint32_t)(input >> 32),
                         (uint32_t)input,
                         (uint32_t)(output >> 32),
                         (uint32_t)output,
                         page};
    uint32_t *at = block;
    __asm__ volatile("push %%ebp\n\t"
                     "push %%eax\n\t"
                     "push 24(%%eax)\n\t"
                     "mov 4(%%eax), %%edx\n\t"
                     "mov 8(%%eax), %%ebx\n\t"
                     "mov 12(%%eax), %%ecx\n\t"
                     "mov 16(%%eax), %%edi\n\t"
                     "mov 20(%%eax), %%esi\n\t"
                     "mov (%%eax), %%eax\n\t"
                     "call *(%%esp)\n\t"
                     "add $4, %%esp\n\t"
                     "pop %%ecx\n\t"
                     "pop %%ebp\n\t"
                     "mov %%eax, (%%ecx)\n\t"
                     "mov %%edx, 4(%%ecx)"
                     : "+a"(at)
                     :
                     : "ebx", "ecx", "edx", "edi", "esi", "cc", "memory");
    return (uint64_t)block[1] << 32 | block[0];
}

bool hv_tsc_page_time(const struct hv_reference_tsc *page, uint64_t *time)
{
    uint32_t sequence;
    do {
        sequence = page->sequence;
        if (sequence == 0) {
            return false;
        }
        uint64_t scale = page->scale;
        int64_t offset = page->offset;
        __asm__ volatile("lfence" : : : "memory");
        *time = multiply_high(rdtsc(), scale) + (uint64_t)offset;
    } while (page->sequence != sequence);
    return true;
}
#endif

uint64_t hv_call_xmm(uint64_t input_value, uint64_t input, uint64_t output, const void *xmm)
{
    /* The runtime's own code uses general registers only, so nothing disturbs these before the call. */
    __asm__ volatile("movdqa (%0), %%xmm0; movdqa 16(%0), %%xmm1; movdqa 32(%0), %%xmm2;"
                     "movdqa 48(%0), %%xmm3; movdqa 64(%0), %%xmm4; movdqa 80(%0), %%xmm5"
                     :
                     : "r"(xmm)
                     : "memory");
    return hv_call(input_value, input, output);
}
