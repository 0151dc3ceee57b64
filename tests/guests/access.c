/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS 5.2.3, appendix H: what a partition may not use is not there. The machine says on the command line which
 * properties it switched off (off=name,name).
 */
#include "guest.h"

enum cpuid_register { EAX, EBX, EDX };

/* A property of the machine and the bit of CPUID 0x40000003 that shows it. */
static const struct property {
    const char *name;
    enum cpuid_register where;
    uint32_t bit;
} properties[] = {
    {"access-vp-run-time-msr", EAX, HV_ACCESS_VP_RUN_TIME},
    {"access-partition-reference-counter", EAX, HV_ACCESS_REFERENCE_COUNTER},
    {"access-synic-msrs", EAX, HV_ACCESS_SYNIC},
    {"access-synthetic-timer-msrs", EAX, HV_ACCESS_SYNTHETIC_TIMERS},
    {"access-apic-msrs", EAX, HV_ACCESS_APIC},
    {"access-hypercall-msrs", EAX, HV_ACCESS_HYPERCALL},
    {"access-vp-index", EAX, HV_ACCESS_VP_INDEX},
    {"access-reset-msr", EAX, HV_ACCESS_RESET},
    {"access-partition-reference-tsc", EAX, HV_ACCESS_REFERENCE_TSC},
    {"access-guest-idle-msr", EAX, HV_ACCESS_GUEST_IDLE},
    {"access-frequency-msrs", EAX, HV_ACCESS_FREQUENCY},
    {"post-messages", EBX, HV_EBX_POST_MESSAGES},
    {"signal-events", EBX, HV_EBX_SIGNAL_EVENTS},
    {"hypercall-xmm-input", EDX, HV_EDX_XMM_INPUT},
    {"crash-msrs", EDX, HV_EDX_CRASH},
    {"direct-synthetic-timers", EDX, HV_EDX_DIRECT_TIMERS},
};
#define PROPERTIES (sizeof(properties) / sizeof(properties[0]))

/* Every register that may be read without consequence, and the bit it needs. */
static const struct access {
    uint32_t index;
    enum cpuid_register where;
    uint32_t bit;
    bool readable;
    uint32_t generations;
} registers[] = {
    {HV_MSR_GUEST_OS_ID, EAX, HV_ACCESS_HYPERCALL, true, 0},
    {HV_MSR_HYPERCALL, EAX, HV_ACCESS_HYPERCALL, true, 0},
    {HV_MSR_VP_INDEX, EAX, HV_ACCESS_VP_INDEX, true, 0},
    {HV_MSR_RESET, EAX, HV_ACCESS_RESET, true, 0},
    {HV_MSR_VP_RUNTIME, EAX, HV_ACCESS_VP_RUN_TIME, true, 0},
    {HV_MSR_TIME_REF_COUNT, EAX, HV_ACCESS_REFERENCE_COUNTER, true, 0},
    {HV_MSR_REFERENCE_TSC, EAX, HV_ACCESS_REFERENCE_TSC, true, 0},
    {HV_MSR_TSC_FREQUENCY, EAX, HV_ACCESS_FREQUENCY, true, GENERATION_CURRENT},
    {HV_MSR_APIC_FREQUENCY, EAX, HV_ACCESS_FREQUENCY, true, GENERATION_CURRENT},
    {HV_MSR_EOI, EAX, HV_ACCESS_APIC, false, 0},
    {HV_MSR_ICR, EAX, HV_ACCESS_APIC, true, 0},
    {HV_MSR_TPR, EAX, HV_ACCESS_APIC, true, 0},
    {HV_MSR_APIC_ASSIST_PAGE, EAX, HV_ACCESS_APIC, true, 0},
    {HV_MSR_SCONTROL, EAX, HV_ACCESS_SYNIC, true, 0},
    {HV_MSR_SVERSION, EAX, HV_ACCESS_SYNIC, true, 0},
    {HV_MSR_SIEFP, EAX, HV_ACCESS_SYNIC, true, 0},
    {HV_MSR_SIMP, EAX, HV_ACCESS_SYNIC, true, 0},
    {HV_MSR_EOM, EAX, HV_ACCESS_SYNIC, true, 0},
    {HV_MSR_SINT0, EAX, HV_ACCESS_SYNIC, true, 0},
    {HV_MSR_SINT0 + 15, EAX, HV_ACCESS_SYNIC, true, 0},
    {HV_MSR_STIMER_CONFIG(0), EAX, HV_ACCESS_SYNTHETIC_TIMERS, true, 0},
    {HV_MSR_STIMER_COUNT(3), EAX, HV_ACCESS_SYNTHETIC_TIMERS, true, 0},
    {HV_MSR_STATS_PARTITION_RETAIL, EAX, HV_ACCESS_STATS, true, 0},
    {HV_MSR_CRASH_P0, EDX, HV_EDX_CRASH, true, GENERATION_CURRENT},
    {HV_MSR_CRASH_P0 + 4, EDX, HV_EDX_CRASH, true, GENERATION_CURRENT},
    {HV_MSR_CRASH_CTL, EDX, HV_EDX_CRASH, true, GENERATION_CURRENT},
    {HV_MSR_TSC_INVARIANT_CONTROL, EAX, HV_ACCESS_TSC_INVARIANT, true, GENERATION_CURRENT},
};
#define REGISTERS (sizeof(registers) / sizeof(registers[0]))

void guest_cleanup(void)
{
    hv_reset_state();
}

static uint32_t cpuid_register(enum cpuid_register where)
{
    struct cpuid_result r = cpuid(HV_LEAF_FEATURES, 0);
    return where == EAX ? r.eax : where == EBX ? r.ebx : r.edx;
}

static bool has(enum cpuid_register where, uint32_t bit)
{
    return cpuid_register(where) & bit;
}

/* Whether the command line's off= has the name. */
static bool switched_off(const char *name)
{
    char list[400];
    if (!guest_option("off", list, sizeof(list))) {
        return false;
    }
    for (char *at = list, *end; *at; at = end) {
        for (end = at; *end && *end != ','; end++) {
        }
        if (*end) {
            *end++ = '\0';
        }
        if (text_equal(at, name)) {
            return true;
        }
    }
    return false;
}

CHECK(cpuid_shows_the_privileges, "3.4, 5.2.3: what the machine switched off, and only that")
{
    for (unsigned i = 0; i < PROPERTIES; i++) {
        const struct property *p = &properties[i];
        bool later = (p->where == EAX && p->bit == HV_ACCESS_FREQUENCY) ||
                     (p->where == EDX && (p->bit == HV_EDX_CRASH || p->bit == HV_EDX_DIRECT_TIMERS));
        bool expected = !switched_off(p->name) && !(later && guest_generation() == GENERATION_2008R2);
        EXPECT_THAT(has(p->where, p->bit) == expected, "%s, got %d, expected %d", p->name, has(p->where, p->bit),
                    expected);
    }
}

static void check_registers(void *argument)
{
    (void)argument;
    for (unsigned i = 0; i < REGISTERS; i++) {
        const struct access *r = &registers[i];
        bool there = has(r->where, r->bit) && (r->generations == 0 || r->generations & guest_generation());
        int expected = there && r->readable ? NO_FAULT : VECTOR_GP;
        int got = rdmsr_fault(r->index, NULL);
        EXPECT_THAT(got == expected, "rdmsr %x on VP %u, got vector %d, expected %d", r->index, cpu_index(), got,
                    expected);
        if (!there) {
            got = wrmsr_fault(r->index, 0);
            EXPECT_THAT(got == VECTOR_GP, "wrmsr %x on VP %u, got vector %d, expected 13", r->index, cpu_index(), got);
        }
    }
}

CHECK(registers_need_their_privilege, "appendix H, 5.2.3: else #GP")
{
    smp_run_all(check_registers, NULL);
}

CHECK(idle_needs_its_privilege, "10.1.4")
{
    if (has(EAX, HV_ACCESS_GUEST_IDLE)) {
        apic_send_ipi(0, 0x40);
        EXPECT(WAIT_UNTIL(apic_vector_set(APIC_IRR, 0x40), SOON));
        EXPECT_RDMSR_FAULT(HV_MSR_GUEST_IDLE, NO_FAULT);
    } else {
        EXPECT_RDMSR_FAULT(HV_MSR_GUEST_IDLE, VECTOR_GP);
    }
}

CHECK(registers_that_do_not_exist, "11.10: #GP")
{
    static const uint32_t indices[] = {0x40000004, 0x4000000F, 0x40000011, 0x40000024, 0x40000074, 0x4000008F,
                                       0x400000A0, 0x400000B8, 0x40000200, 0x40000FFF, 0x40001000, 0x40001FFF};
    for (unsigned i = 0; i < sizeof(indices) / sizeof(indices[0]); i++) {
        int got = rdmsr_fault(indices[i], NULL);
        EXPECT_THAT(got == VECTOR_GP, "rdmsr %x, got vector %d, expected 13", indices[i], got);
        got = wrmsr_fault(indices[i], 0);
        EXPECT_THAT(got == VECTOR_GP, "wrmsr %x, got vector %d, expected 13", indices[i], got);
    }
}

/* The calls below can be made only where there is a hypercall page. */
static bool can_call(void)
{
    return has(EAX, HV_ACCESS_HYPERCALL);
}

CHECK(calls_need_their_privilege, "4.10, 5.2.3: ACCESS_DENIED")
{
    if (!can_call()) {
        EXPECT_WRMSR_FAULT(HV_MSR_HYPERCALL, 1, VECTOR_GP);
        return;
    }
    uintptr_t input = (uintptr_t)page_alloc(1), output = (uintptr_t)page_alloc(1);
    hv_enable();
    EXPECT_EQ(HV_RESULT_STATUS(hv_call(HV_GET_PARTITION_ID, 0, output)),
              has(EBX, HV_EBX_ACCESS_PARTITION_ID) ? HV_SUCCESS : HV_ACCESS_DENIED);
    EXPECT_EQ(HV_RESULT_STATUS(hv_call(HV_CREATE_PARTITION, input, output)), HV_ACCESS_DENIED);
    EXPECT_EQ(HV_RESULT_STATUS(hv_call(HV_POST_MESSAGE, input, 0)),
              has(EBX, HV_EBX_POST_MESSAGES) ? HV_INVALID_CONNECTION_ID : HV_ACCESS_DENIED);
    EXPECT_EQ(HV_RESULT_STATUS(hv_call(HV_SIGNAL_EVENT | HV_CALL_FAST, 0, 0)),
              has(EBX, HV_EBX_SIGNAL_EVENTS) ? HV_INVALID_CONNECTION_ID : HV_ACCESS_DENIED);
}

CHECK(xmm_form_needs_its_feature, "4.7.1: #UD where it is not offered")
{
    if (!can_call()) {
        EXPECT_WRMSR_FAULT(HV_MSR_HYPERCALL, 1, VECTOR_GP);
        return;
    }
    uint64_t xmm[12] __attribute__((aligned(16))) = {1};
    hv_enable();
    EXPECT_FAULT(has(EDX, HV_EDX_XMM_INPUT) ? NO_FAULT : VECTOR_UD,
                 hv_call_xmm(HV_FLUSH_VIRTUAL_ADDRESS_SPACE | HV_CALL_FAST, vm_root(), 0, xmm));
    EXPECT_FAULT(NO_FAULT, hv_call(HV_NOTIFY_LONG_SPIN_WAIT | HV_CALL_FAST, 0, 0));
}

CHECK(direct_timers_need_their_feature, "later: their bits are reserved without it")
{
    if (!has(EAX, HV_ACCESS_SYNTHETIC_TIMERS)) {
        EXPECT_WRMSR_FAULT(HV_MSR_STIMER_CONFIG(0), 0, VECTOR_GP);
        return;
    }
    EXPECT_WRMSR_FAULT(HV_MSR_STIMER_CONFIG(0), HV_STIMER_DIRECT | HV_STIMER_VECTOR(0x40),
                       has(EDX, HV_EDX_DIRECT_TIMERS) ? NO_FAULT : VECTOR_GP);
}
