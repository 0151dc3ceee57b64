/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the checks of this folder share: a child whose memory is the root's own, at the same addresses, so that it runs
 * functions of this program. To the runtime its VPs are CPUs of their own, from INSIDE_CPU on.
 *
 *     struct child child = {.privileges = CHILD_PRIVILEGES};
 *     inside_create(&child, 2);
 *     inside_run(&child, 1, function, argument);
 *
 * Such a function may use all of the runtime but its clock, its console and smp.h's calls; EXPECT() works in it.
 *
 * More than one child at a time have CPUs of their own, from where the calls that end in _at() are told.
 */
#ifndef ROOT_RIG_H
#define ROOT_RIG_H

#include "root.h"

#define VECTOR_MESSAGE 0x50
#define MEBIBYTE (UINT64_C(1) << 20)
#define PORT_DONE 0x80
#define INSIDE_CPU 32u /* the child's VP 0 */

_Noreturn void guest_start_other(void);

static inline struct cpu *inside_cpu(unsigned vp)
{
    return &cpus[INSIDE_CPU + vp];
}

/* Start a VP in the runtime's loop for CPUs, as CPU `number`; it waits there for functions. */
static inline void inside_enter_at(const struct child *child, unsigned vp, unsigned number)
{
    struct cpu *cpu = &cpus[number];
    uintptr_t stack = (uintptr_t)guest_stacks + (number + 1) * GUEST_STACK_SIZE - 8;
    cpu->index = number;
    memset((void *)cpu->interrupts, 0, sizeof(cpu->interrupts));
    __atomic_store_n(&cpu->online, 0, __ATOMIC_SEQ_CST);
    child_enter_long_mode(child, vp, (uintptr_t)guest_start_other, vm_root(), 0);
    /* The runtime's own selectors: an interrupt returns to them. */
    const struct hv_segment code = {.limit = UINT32_MAX, .selector = GUEST_CS64, .attributes = 0xA09B};
    const struct hv_segment data = {.limit = UINT32_MAX, .selector = GUEST_DS, .attributes = 0xC093};
    const struct hv_register_assignment list[] = {{.name = HV_REGISTER_Cs, .value.segment = code},
                                                  {.name = HV_REGISTER_Ss, .value.segment = data},
                                                  {.name = HV_REGISTER_Rsp, .value.u64 = stack}};
    child_set_registers(child, vp, list, 3);
    child_resume(child, vp);
    REQUIRE(WAIT_UNTIL(__atomic_load_n(&cpu->online, __ATOMIC_SEQ_CST), SOON));
}

static inline void inside_enter(const struct child *child, unsigned vp)
{
    inside_enter_at(child, vp, INSIDE_CPU + vp);
}

static inline void inside_start_at(const struct child *child, unsigned vp, unsigned number, void (*function)(void *),
                                   void *argument)
{
    struct cpu *cpu = &cpus[number];
    cpu->function = function;
    cpu->argument = argument;
    __atomic_store_n(&cpu->busy, 1, __ATOMIC_SEQ_CST);
    HV_MUST(child_assert_interrupt(child, HV_INTERRUPT_FIXED, vp, VECTOR_WAKE));
}

static inline void inside_start(const struct child *child, unsigned vp, void (*function)(void *), void *argument)
{
    inside_start_at(child, vp, INSIDE_CPU + vp, function, argument);
}

static inline void inside_wait_at(unsigned number)
{
    if (!WAIT_UNTIL(!__atomic_load_n(&cpus[number].busy, __ATOMIC_SEQ_CST), SOON)) {
        check_fail("rig", 0, "the VP that is CPU %u does not come to an end", number);
        check_abort();
    }
}

static inline void inside_wait(unsigned vp)
{
    inside_wait_at(INSIDE_CPU + vp);
}

static inline void inside_run_at(const struct child *child, unsigned vp, unsigned number, void (*function)(void *),
                                 void *argument)
{
    inside_start_at(child, vp, number, function, argument);
    inside_wait_at(number);
}

static inline void inside_run(const struct child *child, unsigned vp, void (*function)(void *), void *argument)
{
    inside_start(child, vp, function, argument);
    inside_wait(vp);
}

static inline struct intercept next_message(enum hv_message_type type)
{
    struct intercept intercept;
    REQUIRE(intercept_receive(&intercept, SOON));
    if (intercept.message.type != (uint32_t)type) {
        intercept_describe(&intercept);
    }
    REQUIRE_EQ(intercept.message.type, (uint32_t)type);
    return intercept;
}

/* The image and the memory of page_alloc(), one to one. What pools hold cannot be mapped (TLFS 7.2). */
static inline void inside_create_at(struct child *child, unsigned vps, unsigned first)
{
    root_enable();
    intercept_enable(VECTOR_MESSAGE);
    child_create(child);
    child_map(child, MEBIBYTE, MEBIBYTE, GUEST_POOL_END - MEBIBYTE, CHILD_RAM);
    for (unsigned i = 0; i < vps; i++) {
        child_add_vp(child, i);
    }
    for (unsigned i = 0; i < vps; i++) {
        /* What is not the boot processor waits for a start-up IPI (TLFS 13.3.2); it finds no memory there. */
        if (i > 0) {
            child_resume(child, i);
            HV_MUST(child_assert_interrupt(child, HV_INTERRUPT_SIPI, i, 0x10));
            next_message(HV_MESSAGE_UnmappedGpa);
        }
        inside_enter_at(child, i, first + i);
    }
}

static inline void inside_create(struct child *child, unsigned vps)
{
    inside_create_at(child, vps, INSIDE_CPU);
}

#endif
