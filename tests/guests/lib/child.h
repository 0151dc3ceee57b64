/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Child partitions, built step by step:
 *
 *     root_enable();
 *     struct child child = {.privileges = CHILD_PRIVILEGES};
 *     child_create(&child);                              HvCreatePartition, HvDepositMemory, HvInitializePartition
 *     child_add_memory(&child, 0, 64 << 20);             the root's RAM, mapped at the child's GPA 0
 *     child_add_vp(&child, 0);
 *     child_enter_long_mode(&child, 0, entry, page_table, gdt);
 *     child_resume(&child, 0);
 *     intercept_loop(...);                               intercept.h
 *     child_delete(&child);
 *
 * Each step succeeds or ends the check (the program), see HV_MUST(). What is meant to fail is called through calls.h.
 * A call that the child's pool has too little memory for gets more of it and is repeated.
 */
#ifndef ROOT_CHILD_H
#define ROOT_CHILD_H

#include "calls.h"
#include "ram.h"

#define CHILD_MAX_RANGES 16
#define CHILD_MAX_VPS 64

struct child_range {
    uint64_t gpa, size;
    uintptr_t root; /* where the range lies in the root */
};

struct child {
    /* To be set before child_create(); zero is the hypervisor's default. */
    uint64_t privileges; /* HV_PRIVILEGE_* */
    uint64_t create_flags; /* for calls of today's generation */
    /* The library's */
    uint64_t id;
    uint64_t vps; /* created: a bit for each index */
    unsigned range_count;
    struct child_range ranges[CHILD_MAX_RANGES];
};

/* All that an enlightened operating system uses and a child may have. */
#define CHILD_PRIVILEGES                                                                                               \
    (HV_PRIVILEGE_AccessVpRunTimeMsr | HV_PRIVILEGE_AccessPartitionReferenceCounter | HV_PRIVILEGE_AccessSynicMsrs |   \
     HV_PRIVILEGE_AccessSyntheticTimerMsrs | HV_PRIVILEGE_AccessApicMsrs | HV_PRIVILEGE_AccessHypercallMsrs |          \
     HV_PRIVILEGE_AccessVpIndex | HV_PRIVILEGE_AccessResetMsr | HV_PRIVILEGE_AccessPartitionReferenceTsc |             \
     HV_PRIVILEGE_AccessGuestIdleMsr | (root_is_2008r2() ? 0 : HV_PRIVILEGE_AccessFrequencyMsrs) |                     \
     HV_PRIVILEGE_PostMessages | HV_PRIVILEGE_SignalEvents)

/* Whether the machine has the specification's generation of the interface (the command line says so). */
bool root_is_2008r2(void);
/* Hypercall page on. */
void root_enable(void);
/* For guest_cleanup(): delete all partitions that are the caller's children, then all that the runtime resets. */
void root_reset_state(void);

/* -- Life -- */

void child_create(struct child *child);
/* Finalize, withdraw the pool, delete. Its VPs may be running; its memory is the root's again. */
void child_delete(struct child *child);
/* The same for a partition that there is no struct for, its children first. */
void partition_delete(uint64_t partition);
/* Give pages to a partition's pool. */
void partition_deposit(uint64_t partition, unsigned pages);
/* Take back all free pages of a partition's pool; returns how many there were. */
unsigned partition_withdraw(uint64_t partition);
uint64_t child_get_property(const struct child *child, uint32_t property);
void child_set_property(const struct child *child, uint32_t property, uint64_t value);

/* -- Memory -- */

#define CHILD_RAM (HV_MAP_READ | HV_MAP_WRITE | HV_MAP_EXECUTE_2008R2) /* in the specification's encoding */

/* Map a range of the root's memory (page-aligned, `rights` as in the specification). Large pages where they fit. */
void child_map(struct child *child, uint64_t gpa, uintptr_t root, uint64_t size, uint32_t rights);
void child_unmap(struct child *child, uint64_t gpa, uint64_t size);
/* The same, with memory taken from ram.h; returns where it lies in the root. */
uintptr_t child_add_memory(struct child *child, uint64_t gpa, uint64_t size);
/* The root's pointer to a child's memory: NULL when not all of it was mapped by child_map() as one range. */
void *child_memory(const struct child *child, uint64_t gpa, uint64_t size);

/* -- VPs -- */

/* Created suspended, in the state of a processor after reset; VP 0 is the boot processor, the others wait for a SIPI.
 */
void child_add_vp(struct child *child, unsigned vp);
void child_delete_vp(struct child *child, unsigned vp);
uint64_t child_get_register(const struct child *child, unsigned vp, uint32_t name);
void child_get_registers(const struct child *child, unsigned vp, const uint32_t *names, union hv_register_value *values,
                         unsigned count);
void child_set_register(const struct child *child, unsigned vp, uint32_t name, uint64_t value);
void child_set_registers(const struct child *child, unsigned vp, const struct hv_register_assignment *list,
                         unsigned count);
/* Let a VP run: neither suspended explicitly nor by an intercept. */
void child_resume(const struct child *child, unsigned vp);
/* Stop it; it has stopped when this returns. */
void child_suspend(const struct child *child, unsigned vp);

/* Where a VP begins. 16 bits, at segment:0 as after a SIPI. */
void child_enter_real_mode(const struct child *child, unsigned vp, uint16_t segment);
/* 32 bits, flat segments, paging off; EBX as a boot protocol may want it. */
void child_enter_protected_mode(const struct child *child, unsigned vp, uint32_t eip, uint32_t ebx);
/* 64 bits, flat segments, paging by the tables at `cr3`; RSI likewise. */
void child_enter_long_mode(const struct child *child, unsigned vp, uint64_t rip, uint64_t cr3, uint64_t rsi);
/* Selectors that the segments above are loaded with; a program that reloads them brings a table with these. */
#define CHILD_CODE 0x10
#define CHILD_DATA 0x18
/* Page tables that map the first `gib` GiB (1 to 4) one to one, in large pages, at `gpa`: needs 2 + gib pages there. */
void child_make_page_tables(const struct child *child, uint64_t gpa, unsigned gib);
/* Where its descriptors are: sets GDTR to a table at `gpa` with CHILD_CODE (64 or 32 bits) and CHILD_DATA. */
void child_make_gdt(const struct child *child, unsigned vp, uint64_t gpa, bool wide);

/* -- Interrupts -- */

/* `control`: HV_INTERRUPT_*; `destination`: APIC ID, or logical destination. Returns the status. */
unsigned child_assert_interrupt(const struct child *child, uint64_t control, uint64_t destination, uint32_t vector);
/* Have a VP that is suspended take an exception first when it runs again. */
void child_inject_exception(const struct child *child, unsigned vp, unsigned vector, bool has_error, uint32_t error);

/* -- Intercepts -- */

void child_intercept_ports(const struct child *child, unsigned first, unsigned count);
void child_intercept_msrs(const struct child *child);
void child_intercept_cpuid(const struct child *child, uint32_t leaf);
void child_intercept_exception(const struct child *child, unsigned vector);

#endif
