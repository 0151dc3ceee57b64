/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLFS chapter 3: how a guest finds the hypervisor and what it may use. */
#include "guest.h"

#define SIGNATURE_MICR 0x7263694D
#define SIGNATURE_OSOF 0x666F736F
#define SIGNATURE_T_HV 0x76482074
#define INTERFACE_HV_1 0x31237648
#define PRIVILEGES_2008R2 0x7FFu
#define EBX_2008R2 0x39FFu
#define EDX_2008R2 0x3Fu
#define RECOMMENDATIONS_2008R2 0x3Fu

void guest_cleanup(void)
{
    hv_reset_state();
}

static bool all_zero(struct cpuid_result r)
{
    return (r.eax | r.ebx | r.ecx | r.edx) == 0;
}

CHECK(hypervisor_present_bit, "3.2: CPUID 1 ECX bit 31")
{
    EXPECT(cpuid(1, 0).ecx & 1u << 31);
}

CHECK(vendor_leaf, "3.4: range and vendor signature")
{
    struct cpuid_result r = cpuid(HV_LEAF_RANGE, 0);
    EXPECT(r.eax >= HV_LEAF_LIMITS && r.eax <= 0x4000FFFF);
    EXPECT_EQ(r.ebx, SIGNATURE_MICR);
    EXPECT_EQ(r.ecx, SIGNATURE_OSOF);
    EXPECT_EQ(r.edx, SIGNATURE_T_HV);
}

CHECK(interface_leaf, "3.4: Hv#1, reserved registers 0")
{
    struct cpuid_result r = cpuid(HV_LEAF_INTERFACE, 0);
    EXPECT_EQ(r.eax, INTERFACE_HV_1);
    EXPECT_EQ(r.ebx, 0);
    EXPECT_EQ(r.ecx, 0);
    EXPECT_EQ(r.edx, 0);
}

CHECK(no_leaves_above_the_maximum, "3.4: deployed guests read above the maximum and want 0")
{
    uint32_t maximum = cpuid(HV_LEAF_RANGE, 0).eax;
    for (uint32_t leaf = maximum + 1; leaf <= 0x400000FF; leaf++) {
        EXPECT_THAT(all_zero(cpuid(leaf, 0)), "leaf %x is not 0", leaf);
    }
}

CHECK(no_other_hypervisor, "3.2: no other interface's leaves")
{
    for (uint32_t leaf = 0x40000100; leaf <= 0x4000FF00; leaf += 0x100) {
        EXPECT_THAT(all_zero(cpuid(leaf, 0)) && all_zero(cpuid(leaf + 1, 0)), "leaf %x is not 0", leaf);
    }
}

CHECK(standard_leaves_stay, "the processor's own leaves are not disturbed")
{
    EXPECT(cpuid(0, 0).eax >= 1 && cpuid(0, 0).eax < 0x40000000);
    EXPECT(cpuid(0x80000000, 0).eax >= 0x80000008);
}

CHECK(version_needs_an_identity, "3.4: leaf 0x40000002 is 0 until the OS identity is set",
      .generations = GENERATION_2008R2)
{
    EXPECT(all_zero(cpuid(HV_LEAF_VERSION, 0)));
    wrmsr(HV_MSR_GUEST_OS_ID, 1);
    EXPECT(!all_zero(cpuid(HV_LEAF_VERSION, 0)));
    wrmsr(HV_MSR_GUEST_OS_ID, 0);
    EXPECT(all_zero(cpuid(HV_LEAF_VERSION, 0)));
}

CHECK(version_is_told, "3.5: deployed guests read the version before they set their identity",
      .generations = GENERATION_CURRENT)
{
    struct cpuid_result r = cpuid(HV_LEAF_VERSION, 0);
    EXPECT(r.eax != 0);
    EXPECT(r.ebx >> 16 != 0);
}

CHECK(needed_privileges, "3.4: what deployed guests insist on")
{
    uint32_t eax = cpuid(HV_LEAF_FEATURES, 0).eax;
    EXPECT(eax & HV_ACCESS_HYPERCALL);
    EXPECT(eax & HV_ACCESS_VP_INDEX);
}

CHECK(older_interface_hides_later_bits, "3.4: reserved bits 0", .generations = GENERATION_2008R2)
{
    struct cpuid_result features = cpuid(HV_LEAF_FEATURES, 0), hints = cpuid(HV_LEAF_RECOMMENDATIONS, 0);
    EXPECT_EQ(features.eax & ~PRIVILEGES_2008R2, 0);
    EXPECT_EQ(features.ebx & ~EBX_2008R2, 0);
    EXPECT_EQ(features.ecx & ~0xFu, 0);
    EXPECT_EQ(features.edx & ~EDX_2008R2, 0);
    EXPECT_EQ(hints.eax & ~RECOMMENDATIONS_2008R2, 0);
    EXPECT_EQ(hints.ecx, 0);
    EXPECT_EQ(hints.edx, 0);
}

CHECK(later_features, "later: what deployed guests use when it is offered", .generations = GENERATION_CURRENT)
{
    struct cpuid_result features = cpuid(HV_LEAF_FEATURES, 0);
    EXPECT(features.eax & HV_ACCESS_FREQUENCY);
    EXPECT(features.edx & HV_EDX_FREQUENCY);
    EXPECT(features.edx & HV_EDX_CRASH);
    EXPECT(features.edx & HV_EDX_DIRECT_TIMERS);
}

CHECK(idle_privilege_and_feature_agree, "3.4, 10.1.4")
{
    struct cpuid_result features = cpuid(HV_LEAF_FEATURES, 0);
    EXPECT_EQ(!!(features.eax & HV_ACCESS_GUEST_IDLE), !!(features.edx & HV_EDX_GUEST_IDLE));
}

CHECK(spinlock_retries, "3.4: leaf 0x40000004 EBX")
{
    EXPECT(cpuid(HV_LEAF_RECOMMENDATIONS, 0).ebx != 0);
}

CHECK(limits, "3.4: at least as many VPs and LPs as there are, or 0 for not told")
{
    struct cpuid_result r = cpuid(HV_LEAF_LIMITS, 0);
    EXPECT(r.eax == 0 || r.eax >= cpu_count());
    EXPECT(r.ebx == 0 || r.ebx >= 1);
    EXPECT_EQ(r.edx, 0);
}

static const uint32_t compared_leaves[] = {HV_LEAF_RANGE,    HV_LEAF_INTERFACE,       HV_LEAF_VERSION,
                                           HV_LEAF_FEATURES, HV_LEAF_RECOMMENDATIONS, HV_LEAF_LIMITS};
#define COMPARED_LEAVES (sizeof(compared_leaves) / sizeof(compared_leaves[0]))

static void compare_leaves(void *argument)
{
    const struct cpuid_result *expected = argument;
    for (unsigned i = 0; i < COMPARED_LEAVES; i++) {
        struct cpuid_result r = cpuid(compared_leaves[i], 0);
        EXPECT_THAT(memcmp(&r, &expected[i], sizeof(r)) == 0, "leaf %x differs on VP %u", compared_leaves[i],
                    cpu_index());
    }
    EXPECT(cpuid(1, 0).ecx & 1u << 31);
}

CHECK(same_on_every_vp, "3.4: the leaves describe the partition", .min_vps = 2)
{
    struct cpuid_result expected[COMPARED_LEAVES];
    for (unsigned i = 0; i < COMPARED_LEAVES; i++) {
        expected[i] = cpuid(compared_leaves[i], 0);
    }
    smp_run_all(compare_leaves, expected);
}

CHECK(os_identity_begins_zero, "3.6")
{
    EXPECT_EQ(rdmsr(HV_MSR_GUEST_OS_ID), 0);
}

static void read_identity(void *argument)
{
    *(volatile uint64_t *)argument = rdmsr(HV_MSR_GUEST_OS_ID);
}

CHECK(os_identity_is_partition_wide, "3.6: shared among all VPs", .min_vps = 2)
{
    uint64_t seen = 0;
    wrmsr(HV_MSR_GUEST_OS_ID, 0x8100123456789ABC);
    smp_run(1, read_identity, &seen);
    EXPECT_EQ(seen, 0x8100123456789ABC);
}

CHECK(os_identity_keeps_any_value, "3.6: the value is ignored by the hypervisor")
{
    static const uint64_t values[] = {1, 0x0001040600001DB1, UINT64_MAX, 1ull << 63};
    for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        wrmsr(HV_MSR_GUEST_OS_ID, values[i]);
        EXPECT_EQ(rdmsr(HV_MSR_GUEST_OS_ID), values[i]);
    }
}

CHECK(partition_starts_disabled, "4.12, 13.3.4.1, 15.4.1: nothing is enabled")
{
    EXPECT_EQ(rdmsr(HV_MSR_HYPERCALL) & 1, 0);
    EXPECT_EQ(rdmsr(HV_MSR_REFERENCE_TSC), 0);
    if (cpuid(HV_LEAF_FEATURES, 0).eax & HV_ACCESS_APIC) {
        EXPECT_EQ(rdmsr(HV_MSR_APIC_ASSIST_PAGE), 0);
    }
}
