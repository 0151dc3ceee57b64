/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A small child that runs programs of program.h: 4 MiB of memory from GPA 0 on, and a port by which it says things.
 *
 *     begin(1);
 *     PUT64(0, say);                       VP 0 is at the beginning of CHILD_PROGRAM(say, 64, ...)
 *     child_resume(&child, 0);
 *     EXPECT_EQ(said(), 0x42);             it waits behind `out %al, $0x80` until go_on()
 */
#ifndef ROOT_PROGRAMS_H
#define ROOT_PROGRAMS_H

#include "rig.h"

#define CODE_GPA 0x4000u
#define HANDLER_GPA 0x5000u
#define DATA_GPA 0x7000u
#define TABLES_GPA 0x8000u /* eight pages: descriptors, then page tables */
#define IDT_GPA 0x20000u
#define TSS_GPA 0x21000u
#define STACK_GPA 0x30000u
#define CHILD_SIZE (4 * MEBIBYTE)

#define RFLAGS_FIXED 0x2u
#define CR0_WP 0x10000u
#define CR0_PG 0x80000000u
#define CR0_PE 0x1u
#define CR0_ET 0x10u

static struct child child;

static inline void begin(unsigned vps)
{
    child = (struct child){.privileges = CHILD_PRIVILEGES};
    root_enable();
    intercept_enable(VECTOR_MESSAGE);
    child_create(&child);
    child_add_memory(&child, 0, CHILD_SIZE);
    for (unsigned i = 0; i < vps; i++) {
        child_add_vp(&child, i);
    }
    child_intercept_ports(&child, PORT_DONE, 1);
}

/* Put a VP at the beginning of a program. What it does not set keeps its value from the program before. */
#define PUT64(vp, name) child_enter_program64(&child, (vp), CODE_GPA, name, name##_end, TABLES_GPA)
#define PUT32(vp, name) child_enter_program32(&child, (vp), CODE_GPA, name, name##_end, TABLES_GPA)
#define PUT16(vp, name) child_enter_program16(&child, (vp), CODE_GPA, name, name##_end)
#define PUT_AT(gpa, name) child_put_program(&child, (gpa), name, name##_end)

static struct intercept last_said;

/* What a VP of the child says next. */
static inline uint8_t said(void)
{
    last_said = next_message(HV_MESSAGE_X64IoPortIntercept);
    EXPECT_EQ(last_said.io.port, PORT_DONE);
    return (uint8_t)last_said.io.value;
}

static inline void go_on(void)
{
    intercept_complete(&last_said, INTERCEPT_DONE);
}

static inline void *data_at(uint64_t gpa)
{
    return child_memory(&child, gpa, 8);
}

static inline uint64_t get(uint32_t name)
{
    return child_get_register(&child, 0, name);
}

static inline void set(uint32_t name, uint64_t value)
{
    child_set_register(&child, 0, name, value);
}

static inline union hv_register_value get_wide(uint32_t name)
{
    union hv_register_value value;
    child_get_registers(&child, 0, &name, &value, 1);
    return value;
}

static inline void set_wide(uint32_t name, union hv_register_value value)
{
    struct hv_register_assignment assignment = {.name = name, .value = value};
    child_set_registers(&child, 0, &assignment, 1);
}

static inline unsigned try_set_wide(uint32_t name, union hv_register_value value)
{
    struct hv_in_set_vp_registers input = {.partition = child.id, .vp = 0};
    struct hv_register_assignment assignment = {.name = name, .value = value};
    return hvcall_set_vp_registers(&input, &assignment, NULL, 1, NULL);
}

static inline unsigned try_set(uint32_t name, uint64_t low, uint64_t high)
{
    return try_set_wide(name, (union hv_register_value){.words = {low, high}});
}

/* Status of HvGetVpRegisters for one name. */
static inline unsigned try_get(uint64_t partition, uint32_t vp, uint32_t name)
{
    struct hv_in_get_vp_registers input = {.partition = partition, .vp = vp};
    union hv_register_value value;
    return hvcall_get_vp_registers(&input, &name, &value, 1, NULL);
}

static inline struct hv_segment get_segment(uint32_t name)
{
    return get_wide(name).segment;
}

static inline void set_segment(uint32_t name, uint16_t selector, uint64_t base, uint32_t limit, uint16_t attributes)
{
    set_wide(name, (union hv_register_value){
                       .segment = {.base = base, .limit = limit, .selector = selector, .attributes = attributes}});
}

static inline void set_table(uint32_t name, uint64_t base, uint16_t limit)
{
    set_wide(name, (union hv_register_value){.table = {.limit = limit, .base = base}});
}

/* -- Interrupt descriptors -- */

struct gate64 {
    uint16_t low, selector, flags, middle;
    uint32_t high, reserved;
};

static inline void set_gate64(unsigned vector, uint64_t handler)
{
    struct gate64 *gates = child_memory(&child, IDT_GPA, PAGE_SIZE);
    gates[vector] =
        (struct gate64){(uint16_t)handler, CHILD_CODE, 0x8E00, (uint16_t)(handler >> 16), (uint32_t)(handler >> 32), 0};
}

static inline void use_idt64(void)
{
    set_table(HV_REGISTER_Idtr, IDT_GPA, PAGE_SIZE - 1);
    set(HV_REGISTER_Rsp, STACK_GPA);
}

#endif
