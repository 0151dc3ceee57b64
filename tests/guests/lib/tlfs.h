/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Numbers of the interface, generated from the hypervisor's own tables (csrc/hv/tlfs/): call codes and sizes, status
 * codes, privileges, register names. What the tables do not have, and what the two generations of the interface lay
 * out differently, is written down from the specification here and in layouts.h.
 */
#ifndef ROOT_TLFS_H
#define ROOT_TLFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* HV_STATUS_SUCCESS and so on (TLFS appendix C) */
enum hv_status_code {
#define HV_STATUS_ROW(value, name, generations) HV_STATUS_##name = (value),
#include "status.def"
#undef HV_STATUS_ROW
};

/* HV_PRIVILEGE_CreatePartitions and so on: masks (TLFS 5.2.3) */
#define HV_PRIVILEGE_ROW(bit, name, ...)                                                                               \
    static const uint64_t HV_PRIVILEGE_##name __attribute__((unused)) = UINT64_C(1) << (bit);
#include "privileges.def"
#undef HV_PRIVILEGE_ROW

/* HV_REGISTER_Rax and so on: HV_REGISTER_NAME (TLFS 10.2.2) */
enum hv_register_name {
#define HV_REGISTER_ROW(code, name, symbol, ...) HV_REGISTER_##symbol = (code),
#include "registers.def"
#undef HV_REGISTER_ROW
};

/* HV_MESSAGE_UnmappedGpa and so on (TLFS 14.8.2) */
enum hv_message_type {
#define HV_MESSAGE_TYPE_ROW(value, name, ...) HV_MESSAGE_##name = (int)(value),
#include "message_types.def"
#undef HV_MESSAGE_TYPE_ROW
};

/* HV_VPV_Hypercalls and so on: indices in a group of counters (TLFS appendix J) */
enum hv_stats_counter {
#define HV_STATS_GROUP_ROW(...)
#define HV_STATS_ROW(group, index, symbol, ...) HV_##group##_##symbol = (index),
#include "stats_counters.def"
#undef HV_STATS_ROW
#undef HV_STATS_GROUP_ROW
};

/* -- HvInstallIntercept (TLFS 9.2) -- */
#define HV_INTERCEPT_IO_PORT 0u
#define HV_INTERCEPT_MSR 1u
#define HV_INTERCEPT_CPUID 2u
#define HV_INTERCEPT_EXCEPTION 3u
#define HV_INTERCEPT_NONE 0u
#define HV_INTERCEPT_READ 1u
#define HV_INTERCEPT_WRITE 2u
#define HV_INTERCEPT_EXECUTE 4u

/* -- HvMapGpaPages (TLFS 8.2.1). Today's interface splits the right to execute, and has large pages. -- */
#define HV_MAP_READ 0x1u
#define HV_MAP_WRITE 0x2u
#define HV_MAP_EXECUTE_2008R2 0x4u
#define HV_MAP_EXECUTE_CURRENT 0xCu
#define HV_MAP_LARGE_CURRENT 0x80000000u

/* -- HvCreatePartition flags of today's interface; the specification has none (TLFS 5.2.4) -- */
#define HV_CREATE_LAPIC (UINT64_C(1) << 13)

/* -- Partition properties (TLFS 5.2.2) -- */
#define HV_PROPERTY_PRIVILEGES 0x00010000u
#define HV_PROPERTY_CPU_RESERVE 0x00020001u
#define HV_PROPERTY_CPU_CAP 0x00020002u
#define HV_PROPERTY_CPU_WEIGHT 0x00020003u
#define HV_PROPERTY_TIMER_PERIOD 0x00030000u
#define HV_PROPERTY_TIMER_CONTROL 0x00030001u
#define HV_PROPERTY_PM_TIMER 0x00030002u
#define HV_PROPERTY_DEBUG_CHANNEL 0x00040000u
#define HV_PROPERTY_VIRTUAL_TLB_PAGES 0x00050000u
#define HV_PROPERTY_PROCESSOR_VENDOR 0x00060000u
#define HV_PROPERTY_PROCESSOR_FEATURES 0x00060001u
#define HV_PROPERTY_XSAVE_FEATURES 0x00060002u
#define HV_PROPERTY_CLFLUSH_SIZE 0x00060003u

/* -- HvAssertVirtualInterrupt (TLFS 13.4) -- */
#define HV_INTERRUPT_FIXED 0u
#define HV_INTERRUPT_LOWEST_PRIORITY 1u
#define HV_INTERRUPT_NMI 4u
#define HV_INTERRUPT_INIT 5u
#define HV_INTERRUPT_SIPI 6u
#define HV_INTERRUPT_EXTINT 7u
#define HV_INTERRUPT_LEVEL (UINT64_C(1) << 32)
#define HV_INTERRUPT_LOGICAL (UINT64_C(1) << 33)
#define HV_INTERRUPT_VECTOR_NONE 0xFFFFFFFFu

/* -- HvTranslateVirtualAddress (TLFS 12.3.3) -- */
#define HV_TRANSLATE_READ 0x1u
#define HV_TRANSLATE_WRITE 0x2u
#define HV_TRANSLATE_EXECUTE 0x4u
#define HV_TRANSLATE_PRIVILEGE_EXEMPT 0x8u
#define HV_TRANSLATE_SET_PAGE_TABLE_BITS 0x10u
#define HV_TRANSLATE_TLB_FLUSH_INHIBIT 0x20u
#define HV_TRANSLATE_SUCCESS 0u

/* -- Registers with bits of their own (TLFS 10.2.3, 10.3) -- */
#define HV_SUSPEND_EXPLICIT 0x1u
#define HV_SUSPEND_INTERCEPT 0x1u
#define HV_SUSPEND_TLB_FLUSH_INHIBIT 0x2u
#define HV_PENDING 0x1u
#define HV_PENDING_EXCEPTION (3u << 1)
#define HV_PENDING_ERROR_CODE (1u << 4)
#define HV_PENDING_VECTOR(vector) ((uint64_t)(vector) << 16)
#define HV_PENDING_ERROR(code) ((uint64_t)(code) << 32)

#define HV_ANY_VP 0xFFFFFFFFu

#endif
