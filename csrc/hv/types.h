/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Types of the hypervisor interface (TLFS chapter 2 and the data type sections of the later chapters).
 *
 * Layouts are little-endian and the same for 32- and 64-bit callers. Times are in units of 100 ns, page numbers in
 * units of 4096 bytes, everything else in bytes unless a comment says so.
 */
#ifndef HV_TYPES_H
#define HV_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HV_PAGE_SHIFT 12
#define HV_PAGE_SIZE 4096u
#define HV_PAGE_MASK (~(uint64_t)(HV_PAGE_SIZE - 1))

typedef uint64_t hv_partition_id;
typedef uint32_t hv_vp_index; /* of a VP in its partition */
typedef uint32_t hv_vp_handle; /* of a VP in the machine; one of the machine's partition has its index */
typedef uint64_t hv_gpa;
typedef uint64_t hv_nano100_time;

#define HV_PARTITION_ID_INVALID UINT64_C(0)
#define HV_PARTITION_ID_MACHINE UINT64_C(1) /* the machine's own partition: the guest, or the root */
#define HV_PARTITION_ID_SELF UINT64_MAX
#define HV_ANY_VP UINT32_C(0xFFFFFFFF)
#define HV_NANO100_NEVER UINT64_MAX

/* Interface generations: which layouts, registers and calls a partition sees (docs/architecture.md). */
enum hv_generation {
    HV_GEN_2008R2 = 1u << 0, /* TLFS 2.0a and nothing that came later */
    HV_GEN_CURRENT = 1u << 1, /* what deployed systems expect today */
    HV_GEN_ALL = HV_GEN_2008R2 | HV_GEN_CURRENT,
};

typedef enum hv_status {
#define HV_STATUS_ROW(value, name, generations) HV_STATUS_##name = value,
#include "tlfs/status.def"
#undef HV_STATUS_ROW
} hv_status;

/* Bit positions in HV_PARTITION_PRIVILEGE_MASK (TLFS 5.2.3). */
enum hv_privilege {
#define HV_PRIVILEGE_ROW(bit, name, property, generations, ...) HV_PRIVILEGE_##name = bit,
#include "tlfs/privileges.def"
#undef HV_PRIVILEGE_ROW
};

/* Bit positions in CPUID 0x40000003 EDX (TLFS 3.4). */
enum hv_feature {
#define HV_FEATURE_ROW(bit, name, property, generations, guest_default) HV_FEATURE_##name = bit,
#include "tlfs/features.def"
#undef HV_FEATURE_ROW
};

/* Bit positions in CPUID 0x40000004 EAX (TLFS 3.4). */
enum hv_recommendation {
#define HV_RECOMMENDATION_ROW(bit, name, property, generations, guest_default) HV_RECOMMENDATION_##name = bit,
#include "tlfs/recommendations.def"
#undef HV_RECOMMENDATION_ROW
};

/* First MSR index of each row of msrs.def (TLFS appendix H). */
enum hv_msr {
#define HV_MSR_ROW(index, count, name, access, scope, gate, generations, read, write, section)                         \
    HV_X64_MSR_##name = index,
#include "tlfs/msrs.def"
#undef HV_MSR_ROW
};

/* Rows of hypercalls.def, in its order: the index of a row in hv_hypercall_rows and in per-call counters. */
enum hv_hypercall_row {
#define HV_HYPERCALL_ROW(code, name, snake, kind, fast, generations, ...) HV_CALL_ROW_##snake##_##generations,
#include "tlfs/hypercalls.def"
#undef HV_HYPERCALL_ROW
    HV_HYPERCALL_ROWS
};

/* Rows of msrs.def, in its order: the index of a row in hv_msr_rows and in per-register counters. */
enum hv_msr_row {
#define HV_MSR_ROW(index, count, name, ...) HV_MSR_ROW_##name,
#include "tlfs/msrs.def"
#undef HV_MSR_ROW
    HV_MSR_ROWS
};

enum hv_message_type {
#define HV_MESSAGE_TYPE_ROW(value, name, ...) HV_MESSAGE_TYPE_##name = (int)(value),
#include "tlfs/message_types.def"
#undef HV_MESSAGE_TYPE_ROW
};

/* HV_REGISTER_NAME (TLFS 11.2). */
enum hv_register_name {
#define HV_REGISTER_ROW(code, name, symbol, size, keeper, generations) HV_REGISTER_##symbol = code,
#include "tlfs/registers.def"
#undef HV_REGISTER_ROW
};

/* Number of rows of registers.def. */
enum {
#define HV_REGISTER_ROW(code, name, symbol, ...) HV_REGISTER_ROW_##symbol,
#include "tlfs/registers.def"
#undef HV_REGISTER_ROW
    HV_REGISTER_ROWS
};

/* Counters (TLFS appendix J): HV_<group>_<symbol> is the index in the group. */
enum hv_stats_index {
#define HV_STATS_GROUP_ROW(group, object, id, name, section)
#define HV_STATS_ROW(group, index, symbol, ...) HV_##group##_##symbol = index,
#include "tlfs/stats_counters.def"
#undef HV_STATS_ROW
    HV_STATS_INDEX_LIMIT
};

/* Rows of stats_counters.def, in its order. */
enum {
#define HV_STATS_ROW(group, index, symbol, ...) HV_STATS_ROW_##group##_##symbol,
#include "tlfs/stats_counters.def"
#undef HV_STATS_ROW
#undef HV_STATS_GROUP_ROW
    HV_STATS_ROWS
};

/* HV_STATS_OBJECT_TYPE (TLFS 21.2.1) */
enum hv_stats_object_type {
    HV_STATS_OBJECT_HYPERVISOR = 0x00000001,
    HV_STATS_OBJECT_LOGICAL_PROCESSOR = 0x00000002,
    HV_STATS_OBJECT_PARTITION = 0x00010001,
    HV_STATS_OBJECT_VP = 0x00010002,
};

/* TLFS 11.3; the selector comes before the attributes, as deployed clients have it: the text's figure swaps them. */
struct hv_segment_register {
    uint64_t base;
    uint32_t limit;
    uint16_t selector;
    uint16_t attributes; /* 3:0 type, 4 S, 6:5 DPL, 7 P, 12 AVL, 13 L, 14 D/B, 15 G */
};
struct hv_table_register {
    uint16_t pad[3];
    uint16_t limit;
    uint64_t base;
};
union hv_register_value {
    struct {
        uint64_t low, high;
    } reg128;
    uint64_t reg64;
    uint32_t reg32;
    struct hv_segment_register segment;
    struct hv_table_register table;
};
_Static_assert(sizeof(union hv_register_value) == 16, "TLFS 11.3");

/* Rights to memory and kinds of access (TLFS 8.2.1, 9.2.1); internally always a mask. */
#define HV_ACCESS_READ 1u
#define HV_ACCESS_WRITE 2u
#define HV_ACCESS_EXECUTE 4u
#define HV_ACCESS_ALL 7u

#define HV_MESSAGE_TYPE_HYPERVISOR_MASK UINT32_C(0x80000000)

/* TLFS 14.8.4. The order of payload size and flags is the one deployed clients read: the text's figure swaps them. */
#define HV_MESSAGE_SIZE 256
#define HV_MESSAGE_MAX_PAYLOAD_BYTE_COUNT 240
#define HV_MESSAGE_FLAG_PENDING 0x01

struct hv_message_header {
    uint32_t message_type;
    uint8_t payload_size; /* bytes */
    uint8_t message_flags;
    uint8_t reserved[2];
    uint64_t origination_id; /* port ID, partition ID of an intercept's VP, or 0 */
};

struct hv_message {
    struct hv_message_header header;
    uint8_t payload[HV_MESSAGE_MAX_PAYLOAD_BYTE_COUNT];
};
_Static_assert(sizeof(struct hv_message) == HV_MESSAGE_SIZE, "TLFS 14.8.4");

/* TLFS 16.4.1 */
struct hv_timer_message_payload {
    uint32_t timer_index;
    uint32_t reserved;
    hv_nano100_time expiration_time;
    hv_nano100_time delivery_time;
};

#define HV_SYNIC_SINT_COUNT 16
#define HV_EVENT_FLAGS_COUNT (256 * 8)
#define HV_EVENT_FLAGS_BYTE_COUNT 256
#define HV_SYNTHETIC_TIMER_COUNT 4
#define HV_PORT_MESSAGE_BUFFERS 16 /* TLFS 14.9.1 */
#define HV_PORT_ID_MASK UINT32_C(0x00FFFFFF) /* also connection IDs (TLFS 14.8.6, 14.8.8) */

/* TLFS 15.4.2 */
struct hv_reference_tsc_page {
    volatile uint32_t tsc_sequence;
    uint32_t reserved1;
    volatile uint64_t tsc_scale;
    volatile int64_t tsc_offset;
    uint64_t reserved2[509];
};
_Static_assert(sizeof(struct hv_reference_tsc_page) == HV_PAGE_SIZE, "TLFS 15.4.2");

/* TLFS 14.8.6 */
enum hv_port_type {
    HV_PORT_TYPE_MESSAGE = 1,
    HV_PORT_TYPE_EVENT = 2,
    HV_PORT_TYPE_MONITOR = 3,
};

/* TLFS 12.3.2 */
#define HV_FLUSH_ALL_PROCESSORS UINT64_C(0x1)
#define HV_FLUSH_ALL_VIRTUAL_ADDRESS_SPACES UINT64_C(0x2)
#define HV_FLUSH_NON_GLOBAL_MAPPINGS_ONLY UINT64_C(0x4)

#endif
