/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLFS chapter 21 and appendix J as the root sees them: pages of the hypervisor, LPs, a child and its VP. */
#include "root.h"

#define VECTOR_SINT0 0x50
#define MEBIBYTE (UINT64_C(1) << 20)
#define PORT 0x1234
#define CODE_GPA 0x4000u
#define TARGET_GPA (UINT64_C(0x80) << 20) /* where 2008r2's pages are put: behind the machine's RAM, or over it */
#define SELF UINT64_MAX
#define POOL_PAGES 8

enum { HYPERVISOR = 1, LOGICAL_PROCESSOR = 2, PARTITION = 0x10001, VP = 0x10002 };
enum { HCA_Partitions = 2, HCA_TotalPages = 3, HCA_VirtualProcessors = 4 };
enum { LPA_GlobalTime = 1, LPA_TotalRunTime = 2, LPA_ContextSwitches = 5 };
enum { PA_VirtualProcessors = 1, PV_DepositedPages = 3, PV_GpaPages = 4 };
enum {
    HV_VPV_PageInvalidations = 3,
    HV_VPV_ControlRegisterAccesses = 5,
    HV_VPV_IoInstructions = 7,
    HV_VPV_CpuidInstructions = 13,
    HV_VPV_DebugRegisterAccesses = 25,
    HV_VPV_PageFaultIntercepts = 27,
    HV_VPV_IoInterceptMessages = 34,
    HV_VPV_MemoryInterceptMessages = 35,
    HV_VPV_OtherMessages = 37,
};

struct hv_in_map_stats_page_2008r2 {
    uint32_t type, padding;
    uint64_t identity[2], page;
};
struct hv_in_map_stats_page_current {
    uint32_t type, padding;
    uint64_t identity[2];
};
struct hv_out_map_stats_page_current {
    uint64_t page;
};
struct hv_in_unmap_stats_page {
    uint32_t type, padding;
    uint64_t identity[2];
};

static unsigned mapped;

void guest_cleanup(void)
{
    struct hv_in_unmap_stats_page hypervisor = {.type = HYPERVISOR}, lp = {.type = LOGICAL_PROCESSOR};
    hvcall_unmap_stats_page(&hypervisor, NULL);
    hvcall_unmap_stats_page(&lp, NULL);
    mapped = 0;
    root_reset_state();
}

static unsigned try_map(uint32_t type, uint64_t first, uint64_t second, volatile uint64_t **page)
{
    unsigned status;
    if (root_is_2008r2()) {
        struct hv_in_map_stats_page_2008r2 in = {type, 0, {first, second}, (TARGET_GPA >> 12) + mapped};
        status = hvcall_map_stats_page_2008r2(&in, NULL);
        *page = (volatile uint64_t *)(uintptr_t)(in.page << 12);
    } else {
        struct hv_in_map_stats_page_current in = {type, 0xDEAD, {first, second}};
        struct hv_out_map_stats_page_current out = {0};
        status = hvcall_map_stats_page_current(&in, &out);
        *page = (volatile uint64_t *)(uintptr_t)(out.page << 12);
    }
    mapped += status == HV_SUCCESS;
    return status;
}

/* A group of the page, by its place: an index is one of its counters. */
static volatile uint64_t *map(uint32_t type, uint64_t first, uint64_t second, unsigned group)
{
    volatile uint64_t *page;
    REQUIRE_EQ(try_map(type, first, second, &page), HV_SUCCESS);
    for (unsigned i = 0; i < group; i++) {
        page += 1 + (page[0] >> 48) / 8;
    }
    return page;
}

static void begin(void)
{
    root_enable();
    intercept_enable(VECTOR_SINT0);
    partition_deposit(SELF, POOL_PAGES);
}

static void end(void)
{
    guest_cleanup();
    partition_withdraw(SELF);
}

CHECK(levels, "J.1.1, J.3: they follow what there is")
{
    begin();
    volatile uint64_t *hypervisor = map(HYPERVISOR, 0, 0, 0);
    uint64_t partitions = hypervisor[HCA_Partitions], vps = hypervisor[HCA_VirtualProcessors];
    uint64_t pages = hypervisor[HCA_TotalPages];
    struct child child = {.privileges = CHILD_PRIVILEGES};
    child_create(&child);
    child_add_memory(&child, 0, 4 * MEBIBYTE);
    child_add_vp(&child, 0);
    EXPECT_EQ(hypervisor[HCA_Partitions], partitions + 1);
    EXPECT_EQ(hypervisor[HCA_VirtualProcessors], vps + 1);
    volatile uint64_t *architected = map(PARTITION, child.id, 0, 0), *release = architected + 2;
    EXPECT_EQ(architected[PA_VirtualProcessors], 1);
    EXPECT_EQ(release[PV_GpaPages], 4 * MEBIBYTE / 4096);
    EXPECT_EQ(hypervisor[HCA_TotalPages], pages + release[PV_DepositedPages]);
    child_delete(&child);
    EXPECT_EQ(hypervisor[HCA_Partitions], partitions);
    EXPECT_EQ(hypervisor[HCA_TotalPages], pages);
    end();
}

CHECK(times, "J.2.1: brought up to date while the page is mapped")
{
    begin();
    volatile uint64_t *lp = map(LOGICAL_PROCESSOR, 0, 0, 0);
    uint64_t time = lp[LPA_GlobalTime], run = lp[LPA_TotalRunTime];
    EXPECT(WAIT_UNTIL(lp[LPA_GlobalTime] > time && lp[LPA_TotalRunTime] > run, SOON));
    end();
}

CHECK(write_protected, "21.1.2: a write is #MC")
{
    begin();
    volatile uint64_t *hypervisor = map(HYPERVISOR, 0, 0, 0);
    uint64_t header = hypervisor[0];
    EXPECT_FAULT(VECTOR_MC, hypervisor[0] = 1);
    EXPECT_EQ(hypervisor[0], header);
    end();
}

CHECK(status_codes, "21.3.1, 21.3.2: mapped twice, not mapped, no such object")
{
    volatile uint64_t *page;
    begin();
    map(HYPERVISOR, 0, 0, 0);
    EXPECT_EQ(try_map(HYPERVISOR, 0, 0, &page), HV_STATUS_OPERATION_DENIED);
    EXPECT_EQ(try_map(HYPERVISOR, 1, 0, &page), HV_INVALID_PARAMETER);
    EXPECT_EQ(try_map(PARTITION, 0x777, 0, &page), HV_STATUS_INVALID_PARTITION_ID);
    struct hv_in_unmap_stats_page lp = {.type = LOGICAL_PROCESSOR};
    EXPECT_EQ(hvcall_unmap_stats_page(&lp, NULL), HV_STATUS_OPERATION_DENIED);
    end();
}

CHILD_PROGRAM(counted, 16,
              "mov %cr0, %eax; mov %cr0, %eax; mov %dr7, %eax; invlpg 0x1000; invlpg 0x2000; invlpg 0x3000;"
              "xor %eax, %eax; cpuid; xor %eax, %eax; cpuid; out %al, $0x80; mov $0x1234, %dx; out %al, %dx;"
              "mov $0xF000, %ax; mov %ax, %ds; mov 0x10, %al; hlt")

CHECK(vp_counters, "J.4.2: what a child's VP does, by known amounts")
{
    struct child child = {.privileges = CHILD_PRIVILEGES};
    struct intercept intercept;
    begin();
    child_create(&child);
    child_add_memory(&child, 0, MEBIBYTE / 2);
    child_add_vp(&child, 0);
    volatile uint64_t *vp = map(VP, child.id, 0, 1);
    child_intercept_ports(&child, PORT, 1);
    child_enter_program16(&child, 0, CODE_GPA, counted, counted_end);
    child_resume(&child, 0);
    REQUIRE(intercept_receive(&intercept, SOON));
    EXPECT_EQ(intercept.message.type, (uint32_t)HV_MESSAGE_X64IoPortIntercept);
    EXPECT_EQ(vp[HV_VPV_ControlRegisterAccesses], 2);
    EXPECT_EQ(vp[HV_VPV_DebugRegisterAccesses], 1);
    EXPECT_EQ(vp[HV_VPV_PageInvalidations], 3);
    EXPECT_EQ(vp[HV_VPV_CpuidInstructions], 2);
    EXPECT_EQ(vp[HV_VPV_IoInstructions], 2);
    EXPECT_EQ(vp[HV_VPV_IoInterceptMessages], 1);
    intercept_complete(&intercept, INTERCEPT_DONE);
    REQUIRE(intercept_receive(&intercept, SOON));
    EXPECT_EQ(intercept.message.type, (uint32_t)HV_MESSAGE_UnmappedGpa);
    EXPECT_EQ(vp[HV_VPV_MemoryInterceptMessages], 1);
    EXPECT_EQ(vp[HV_VPV_PageFaultIntercepts], 1);
    EXPECT_EQ(vp[HV_VPV_OtherMessages], 0);
    end();
}
