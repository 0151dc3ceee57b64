/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Parameters of the calls, as the wrappers of calls.h take them: hv_in_<call> for the fixed part of the input,
 * hv_out_<call> for the output. Where the generations differ there are two, <call>_2008r2 (the specification's) and
 * <call>_current. All are little-endian and packed by nature; their sizes are checked against the tables in calls.h.
 */
#ifndef ROOT_LAYOUTS_H
#define ROOT_LAYOUTS_H

#include "tlfs.h"

/* -- Values -- */

/* HV_X64_SEGMENT_REGISTER; the selector comes before the attributes, as every deployed client has it */
struct hv_segment {
    uint64_t base;
    uint32_t limit;
    uint16_t selector, attributes; /* attributes: 3:0 type, 4 S, 6:5 DPL, 7 P, 12 AVL, 13 L, 14 D, 15 G */
};

/* HV_X64_TABLE_REGISTER */
struct hv_table {
    uint16_t padding[3];
    uint16_t limit;
    uint64_t base;
};

union hv_register_value {
    uint64_t u64;
    uint64_t words[2];
    struct hv_segment segment;
    struct hv_table table;
};
_Static_assert(sizeof(union hv_register_value) == 16, "TLFS 10.2.3");

/* One element of HvSetVpRegisters' list */
struct hv_register_assignment {
    uint32_t name;
    uint32_t padding;
    uint64_t padding_high;
    union hv_register_value value;
};

/* HV_PORT_INFO (TLFS 14.8.6); monitor ports have their page's address in place of SINT and VP */
struct hv_port_info {
    uint32_t type; /* 1 message, 2 event, 3 monitor */
    uint32_t padding;
    union {
        struct {
            uint32_t sint, vp;
        };
        uint64_t monitor_address;
    };
    uint16_t base_flag, flag_count;
    uint32_t padding_high;
};

/* -- Chapter 5: partitions -- */

struct hv_in_create_partition_2008r2 {
    uint64_t flags, proximity;
};
struct hv_in_create_partition_current {
    uint64_t flags, proximity;
    uint32_t compatibility_version, padding;
    uint64_t disabled_processor_features[2], disabled_xsave_features, isolation;
};
struct hv_out_create_partition_2008r2 {
    uint64_t partition;
};
struct hv_out_create_partition_current {
    uint64_t partition;
};
struct hv_in_initialize_partition {
    uint64_t partition;
};
struct hv_in_finalize_partition {
    uint64_t partition;
};
struct hv_in_delete_partition {
    uint64_t partition;
};
struct hv_in_get_partition_property {
    uint64_t partition;
    uint32_t property, padding;
};
struct hv_out_get_partition_property {
    uint64_t value;
};
struct hv_in_set_partition_property {
    uint64_t partition;
    uint32_t property, padding;
    uint64_t value;
};
struct hv_out_get_partition_id {
    uint64_t partition;
};
struct hv_in_get_next_child_partition {
    uint64_t parent, previous;
};
struct hv_out_get_next_child_partition {
    uint64_t child;
};

/* -- Chapter 6: logical processors -- */

struct hv_in_get_logical_processor_run_time_current {
    uint32_t lp, padding;
};
/* 100 ns; today's output is the same */
struct hv_out_get_logical_processor_run_time_2008r2 {
    uint64_t global, local, reserved, hypervisor;
};
struct hv_out_get_logical_processor_run_time_current {
    uint64_t global, local, reserved, hypervisor;
};
struct hv_in_park_logical_processors {
    uint64_t mask;
};

/* -- Chapter 7: memory -- */

struct hv_in_deposit_memory {
    uint64_t partition; /* list: u64 page numbers */
};
struct hv_in_withdraw_memory {
    uint64_t partition, proximity; /* output list: u64 page numbers */
};
/* -- Chapter 21: statistics -- */

struct hv_in_unmap_stats_page {
    uint32_t type; /* HV_STATS_OBJECT_* */
    uint32_t padding;
    uint64_t object; /* index of the logical processor, or ID of the partition */
    uint32_t vp;
    uint16_t flags; /* HV_STATS_SELF */
    uint8_t zero, area;
};
struct hv_in_map_stats_page_2008r2 {
    struct hv_in_unmap_stats_page object;
    uint64_t page; /* where it is to be seen */
};
struct hv_in_map_stats_page_current {
    struct hv_in_unmap_stats_page object;
};
struct hv_out_map_stats_page_current {
    uint64_t page; /* of the root's pool */
};
struct hv_in_map_stats_page2_current {
    struct hv_in_unmap_stats_page object;
    uint64_t page;
};
#define HV_STATS_OBJECT_HYPERVISOR 0x00001u
#define HV_STATS_OBJECT_LOGICAL_PROCESSOR 0x00002u
#define HV_STATS_OBJECT_PARTITION 0x10001u
#define HV_STATS_OBJECT_VP 0x10002u
#define HV_STATS_SELF 1u

struct hv_in_save_partition_state {
    uint64_t partition;
    uint32_t flags; /* HV_SAVE_RESTORE_STATE_* */
    uint32_t padding;
};
struct hv_out_save_partition_state {
    uint32_t state; /* HvState* (TLFS 17.2.1) */
    uint32_t count;
    uint8_t data[4080];
};
struct hv_in_restore_partition_state {
    uint64_t partition;
    uint32_t flags;
    uint32_t count; /* bytes that follow */
};
struct hv_out_restore_partition_state {
    uint32_t state;
    uint32_t count;
};

struct hv_in_get_memory_balance {
    uint64_t partition, proximity;
};
struct hv_out_get_memory_balance {
    uint64_t available, in_use;
};

/* -- Chapter 8: GPA spaces -- */

struct hv_in_map_gpa_pages {
    uint64_t partition;
    uint64_t gpa_page; /* a page number, though the specification calls it a base */
    uint32_t flags, padding; /* list: u64 page numbers of the caller's */
};
struct hv_in_map_sparse_gpa_pages {
    uint64_t partition;
    uint32_t flags, padding; /* list: pairs of u64 page numbers, target and source */
};
struct hv_in_unmap_gpa_pages_2008r2 {
    uint64_t partition, gpa_page;
};
struct hv_in_unmap_gpa_pages_current {
    uint64_t partition, gpa_page;
    uint32_t flags, padding;
};

/* -- Chapter 9: intercepts -- */

struct hv_in_install_intercept {
    uint64_t partition;
    uint32_t access, type;
    uint64_t parameter;
};

/* -- Chapter 10: virtual processors -- */

struct hv_in_create_vp_2008r2 {
    uint64_t partition;
    uint32_t vp, padding;
    uint64_t proximity, flags;
};
struct hv_in_create_vp_current {
    uint64_t partition;
    uint32_t vp;
    uint8_t padding[3], subnode_type;
    uint64_t subnode, proximity, flags;
};
struct hv_in_delete_vp {
    uint64_t partition;
    uint32_t vp, padding;
};
struct hv_in_get_vp_registers {
    uint64_t partition;
    uint32_t vp, padding; /* list: u32 names; output list: union hv_register_value */
};
struct hv_in_set_vp_registers {
    uint64_t partition;
    uint32_t vp, padding; /* list: struct hv_register_assignment */
};

/* -- Chapter 12: memory of a VP -- */

struct hv_in_translate_virtual_address {
    uint64_t partition;
    uint32_t vp, padding;
    uint64_t flags, gva_page;
};
struct hv_out_translate_virtual_address {
    uint32_t result;
    uint32_t attributes; /* 7:0 cache type, 8 overlay page */
    uint64_t gpa_page;
};
struct hv_in_read_gpa {
    uint64_t partition;
    uint32_t vp, bytes;
    uint64_t gpa, flags;
};
struct hv_out_read_gpa {
    uint32_t result, padding;
    uint8_t data[16];
};
struct hv_in_write_gpa {
    uint64_t partition;
    uint32_t vp, bytes;
    uint64_t gpa, flags;
    uint8_t data[16];
};
struct hv_out_write_gpa {
    uint32_t result, padding;
};

/* -- Chapter 13: interrupts -- */

struct hv_in_assert_virtual_interrupt_2008r2 {
    uint64_t partition, control, destination;
    uint32_t vector, padding;
};
struct hv_in_assert_virtual_interrupt_current {
    uint64_t partition, control, destination;
    uint32_t vector;
    uint8_t vtl, padding[3];
};
struct hv_in_clear_virtual_interrupt {
    uint64_t partition;
};

/* -- Chapter 14: between partitions -- */

struct hv_in_create_port_2008r2 {
    uint64_t port_partition;
    uint32_t port, padding;
    uint64_t connection_partition;
    struct hv_port_info info;
};
struct hv_in_create_port_current {
    uint64_t port_partition;
    uint32_t port;
    uint8_t port_vtl, least_connection_vtl;
    uint16_t padding;
    uint64_t connection_partition;
    struct hv_port_info info;
    uint64_t proximity;
};
struct hv_in_delete_port {
    uint64_t partition;
    uint32_t port, padding;
};
struct hv_in_connect_port_2008r2 {
    uint64_t connection_partition;
    uint32_t connection, padding;
    uint64_t port_partition;
    uint32_t port, padding_high;
    uint64_t monitor_address; /* zero but for monitor ports */
};
struct hv_in_connect_port_current {
    uint64_t connection_partition;
    uint32_t connection;
    uint8_t connection_vtl, padding[3];
    uint64_t port_partition;
    uint32_t port, padding_high;
    uint32_t type, padding_info;
    uint64_t info[3];
    uint64_t proximity;
};
struct hv_in_disconnect_port {
    uint64_t partition;
    uint32_t connection, padding;
};
struct hv_in_get_port_property {
    uint64_t partition;
    uint32_t port, padding, property, padding_high;
};
struct hv_out_get_port_property {
    uint64_t value;
};
struct hv_in_set_port_property {
    uint64_t partition;
    uint32_t port, padding, property, padding_high;
    uint64_t value;
};
struct hv_out_set_port_property {
    uint64_t value;
};
struct hv_in_post_message {
    uint32_t connection, padding, type, size;
    uint64_t payload[30];
};
struct hv_in_signal_event {
    uint32_t connection;
    uint16_t flag, padding;
};

/* -- Chapter 18: scheduling -- */

struct hv_in_notify_long_spin_wait {
    uint64_t spins;
};

/* -- Messages (TLFS 16). Those the caller finds in its SINT0 slot start with struct hv_message's header. -- */

/* HV_X64_INTERCEPT_MESSAGE_HEADER */
struct hv_intercept_header {
    uint32_t vp;
    uint8_t instruction_length; /* today: 3:0 only */
    uint8_t access; /* 2008 R2: a mask 1, 2, 4; today 0 read, 1 write, 2 execute */
    uint16_t execution_state; /* 1:0 CPL, 2 CR0.PE, 3 CR0.AM, 4 EFER.LMA, 5 debug, 6 interruption pending */
    struct hv_segment cs;
    uint64_t rip, rflags;
};
_Static_assert(sizeof(struct hv_intercept_header) == 40, "TLFS 16.2");

#define HV_STATE_CPL 0x3u
#define HV_STATE_LMA 0x10u

struct hv_memory_message {
    struct hv_intercept_header header;
    union {
        struct {
            uint16_t reserved;
            uint8_t flags, count;
            uint32_t cache_type;
        } r2; /* 2008 R2 */
        struct {
            uint32_t cache_type;
            uint8_t count, flags, tpr, reserved;
        } current;
    };
    uint64_t gva, gpa;
    uint8_t bytes[16];
};

struct hv_io_message {
    struct hv_intercept_header header;
    uint16_t port;
    uint8_t access; /* 2:0 bytes, 3 string form, 4 repeated */
    uint8_t count;
    uint32_t reserved;
    uint64_t rax;
    uint8_t bytes[16];
    struct hv_segment ds, es;
    uint64_t rcx, rsi, rdi;
};
#define HV_IO_SIZE 0x7u
#define HV_IO_STRING 0x8u
#define HV_IO_REPEATED 0x10u

struct hv_msr_message {
    struct hv_intercept_header header;
    uint32_t index, reserved;
    uint64_t rdx, rax;
};

struct hv_cpuid_message {
    struct hv_intercept_header header;
    uint64_t rax, rcx, rdx, rbx;
    uint64_t default_rax, default_rcx, default_rdx, default_rbx;
};

struct hv_exception_message {
    struct hv_intercept_header header;
    uint16_t vector;
    uint8_t flags; /* 0 error code valid */
    uint8_t count;
    uint32_t error_code;
    uint64_t parameter, reserved;
    uint8_t bytes[16];
    struct hv_segment ds, ss;
    uint64_t registers[16]; /* RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15 */
};
_Static_assert(sizeof(struct hv_exception_message) == 240, "TLFS 16.5.4");

struct hv_eoi_message {
    uint32_t vp, vector;
};

struct hv_unsupported_message {
    uint32_t vp, feature;
    uint64_t parameter;
};

#endif
