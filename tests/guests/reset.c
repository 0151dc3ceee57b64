/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLFS 6.3.5: the reset register; and what a reset of the machine leaves of the hypervisor's state. */
#include "guest.h"

#define MAGIC 0x48565265736574ull
#define LOCKED_BIT 0x2u /* of the hypercall register, later than 2.0a */

struct persistent {
    uint64_t magic, step, time;
};

static volatile struct persistent *const persistent = (volatile struct persistent *)GUEST_PERSISTENT;

void guest_cleanup(void)
{
    persistent->magic = 0;
    hv_reset_state();
}

/* Whether this is the second time the check is entered. */
static bool after_reset(void)
{
    if (persistent->magic == MAGIC) {
        return true;
    }
    persistent->magic = MAGIC;
    return false;
}

static void reset_by_register(void *argument)
{
    (void)argument;
    wrmsr(HV_MSR_RESET, 1);
    for (;;) { /* the instruction may retire before the machine resets */
        cpu_pause();
    }
}

CHECK(reset_register, "6.3.5: reads 0, bits 63:1 are RsvdZ, writing 0 does nothing")
{
    EXPECT_EQ(rdmsr(HV_MSR_RESET), 0);
    wrmsr(HV_MSR_RESET, 0);
    for (unsigned bit = 1; bit < 64; bit++) {
        EXPECT_WRMSR_FAULT(HV_MSR_RESET, 1ull << bit, VECTOR_GP);
        EXPECT_WRMSR_FAULT(HV_MSR_RESET, 1ull << bit | 1, VECTOR_GP);
    }
}

CHECK(reset_resets, "6.3.5: writing 1 resets the machine", .flags = CHECK_RESETS)
{
    if (!after_reset()) {
        reset_by_register(NULL);
    }
    EXPECT(after_reset());
}

CHECK(reset_by_another_vp, "6.3.5: any VP of the partition", .min_vps = 2, .flags = CHECK_RESETS)
{
    if (!after_reset()) {
        smp_start(cpu_count() - 1, reset_by_register, NULL);
        clock_delay(5000000);
        persistent->magic = 0;
    }
    EXPECT(after_reset());
}

static void dirty_vp(void *argument)
{
    uintptr_t page = (uintptr_t)argument + cpu_index() * 3 * PAGE_SIZE;
    wrmsr(HV_MSR_SIMP, page | HV_MSR_ENABLE);
    wrmsr(HV_MSR_SIEFP, (page + PAGE_SIZE) | HV_MSR_ENABLE);
    wrmsr_fault(HV_MSR_APIC_ASSIST_PAGE, (page + 2 * PAGE_SIZE) | HV_MSR_ENABLE); /* a privilege not all have */
    memset((void *)page, 0x77, 3 * PAGE_SIZE);
    wrmsr(HV_MSR_SCONTROL, 1);
    wrmsr(HV_MSR_SINT0 + 3, 0x80 | HV_SINT_AUTO_EOI);
    for (unsigned i = 0; i < 4; i++) {
        wrmsr(HV_MSR_STIMER_CONFIG(i), HV_STIMER_SINT(3) | HV_STIMER_PERIODIC | HV_STIMER_AUTO_ENABLE);
        wrmsr(HV_MSR_STIMER_COUNT(i), 5000);
    }
}

static void expect_clean_vp(void *argument)
{
    (void)argument;
    EXPECT_EQ(rdmsr(HV_MSR_SIMP), 0);
    EXPECT_EQ(rdmsr(HV_MSR_SIEFP), 0);
    if (cpuid(HV_LEAF_FEATURES, 0).eax & HV_ACCESS_APIC) {
        EXPECT_EQ(rdmsr(HV_MSR_APIC_ASSIST_PAGE), 0);
    }
    EXPECT_EQ(rdmsr(HV_MSR_SCONTROL), 0);
    EXPECT_EQ(rdmsr(HV_MSR_SINT0 + 3), HV_SINT_MASKED);
    for (unsigned i = 0; i < 4; i++) {
        EXPECT_EQ(rdmsr(HV_MSR_STIMER_CONFIG(i)), 0);
        EXPECT_EQ(rdmsr(HV_MSR_STIMER_COUNT(i)), 0);
    }
    volatile uint32_t *page = (volatile uint32_t *)persistent->step + cpu_index() * (PAGE_SIZE / 4);
    wrmsr(HV_MSR_SIMP, (uintptr_t)page | HV_MSR_ENABLE);
    for (unsigned i = 0; i < PAGE_SIZE / 4; i++) {
        EXPECT_EQ(page[i], 0);
    }
    wrmsr(HV_MSR_SIMP, 0);
}

CHECK(reset_leaves_nothing, "14.6, 15.3.1, 3.6: registers and pages have their reset values", .flags = CHECK_RESETS)
{
    if (!after_reset()) {
        hv_enable();
        wrmsr(HV_MSR_REFERENCE_TSC, (uintptr_t)page_alloc(1) | HV_MSR_ENABLE);
        smp_run_all(dirty_vp, page_alloc(3 * cpu_count()));
        persistent->time = rdmsr(HV_MSR_TIME_REF_COUNT);
        reset_by_register(NULL);
    }
    EXPECT_EQ(rdmsr(HV_MSR_GUEST_OS_ID), 0);
    EXPECT_EQ(rdmsr(HV_MSR_HYPERCALL), 0);
    EXPECT_EQ(rdmsr(HV_MSR_REFERENCE_TSC), 0);
    persistent->step = (uintptr_t)page_alloc(cpu_count());
    smp_run_all(expect_clean_vp, NULL);
    /* The partition is the same one, so its reference time goes on (15.1.2). */
    EXPECT(rdmsr(HV_MSR_TIME_REF_COUNT) >= persistent->time);
}

CHECK(reset_from_the_chipset, "a reset by other means resets the same", .flags = CHECK_RESETS)
{
    if (!after_reset()) {
        hv_enable();
        smp_run_all(dirty_vp, page_alloc(3 * cpu_count()));
        outb(0xCF9, 0x02);
        outb(0xCF9, 0x06);
        clock_delay(5000000);
        persistent->magic = 0;
    }
    EXPECT(after_reset());
    EXPECT_EQ(rdmsr(HV_MSR_HYPERCALL), 0);
    persistent->step = (uintptr_t)page_alloc(cpu_count());
    smp_run_all(expect_clean_vp, NULL);
}

CHECK(locked_hypercall_page, "later: bit 1 nails the page down until a reset", .flags = CHECK_RESETS,
      .generations = GENERATION_CURRENT)
{
    if (!after_reset()) {
        hv_enable();
        uint64_t locked = hv_hypercall_page() | LOCKED_BIT | HV_MSR_ENABLE;
        wrmsr(HV_MSR_HYPERCALL, locked);
        bool stays = wrmsr_fault(HV_MSR_HYPERCALL, 0) == VECTOR_GP && rdmsr(HV_MSR_HYPERCALL) == locked;
        wrmsr(HV_MSR_GUEST_OS_ID, 0);
        stays = stays && rdmsr(HV_MSR_HYPERCALL) == locked;
        persistent->step = stays;
        reset_by_register(NULL);
    }
    EXPECT_EQ(persistent->step, 1);
    EXPECT_EQ(rdmsr(HV_MSR_HYPERCALL), 0);
    hv_enable();
    EXPECT_EQ(rdmsr(HV_MSR_HYPERCALL), hv_hypercall_page() | HV_MSR_ENABLE);
}

struct vp_state_after_init {
    uint64_t simp, scontrol, config, sint;
};

static void read_vp(void *argument)
{
    struct vp_state_after_init *state = argument;
    state->simp = rdmsr(HV_MSR_SIMP);
    state->scontrol = rdmsr(HV_MSR_SCONTROL);
    state->config = rdmsr(HV_MSR_STIMER_CONFIG(0));
    state->sint = rdmsr(HV_MSR_SINT0 + 3);
}

static void program_vp(void *argument)
{
    wrmsr(HV_MSR_SIMP, (uintptr_t)argument | HV_MSR_ENABLE);
    wrmsr(HV_MSR_SCONTROL, 1);
    wrmsr(HV_MSR_SINT0 + 3, 0x80);
    wrmsr(HV_MSR_STIMER_CONFIG(0), HV_STIMER_SINT(3) | HV_STIMER_PERIODIC);
}

/* The text speaks of a processor's reset. An INIT is none: the architecture leaves model-specific registers alone. */
CHECK(init_keeps_the_synic, "14.6.1, 15.3.1: reset values upon processor reset, which INIT is not", .min_vps = 2)
{
    static const uint8_t nothing[] = {0x90};
    struct vp_state_after_init state = {0, 0, 0, 0};
    uintptr_t page = (uintptr_t)page_alloc(1);
    smp_run(1, program_vp, (void *)page);
    EXPECT_EQ(smp_run_real_mode(1, nothing, sizeof(nothing)), NO_FAULT);
    smp_run(1, read_vp, &state);
    EXPECT_EQ(state.simp, page | HV_MSR_ENABLE);
    EXPECT_EQ(state.scontrol, 1);
    EXPECT_EQ(state.config, HV_STIMER_SINT(3) | HV_STIMER_PERIODIC);
    EXPECT_EQ(state.sint, 0x80);
}
