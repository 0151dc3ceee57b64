/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the programs in this folder have in common: a machine of memory only, made to be used by threads that really run
 * at the same time, hypercalls of its VPs, and what is to be said when a rule is broken.
 */
#ifndef TESTS_CORE_THREADS_MACHINE_H
#define TESTS_CORE_THREADS_MACHINE_H

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "internal.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define REPS(count) ((uint64_t)(count) << 32)
#define MEMORY (16u << 20)

/* What the machine's memory holds up to MEMORY. What there is above reads as zeroes, and forgets what is written. */
extern uint8_t memory[MEMORY];
/* How many pages the machine has, whether or not they have content. */
extern uint64_t ram_pages;
extern struct hv *hv;
/* What a machine of memory does: VPs wait whenever they are asked, interrupts and timers go nowhere. */
extern const struct hv_platform_ops memory_ops;

/* Makes `hv`, a root of so many VPs with a hypercall page at this MSR's value. Its ops stay the caller's. */
bool start_machine(const struct hv_platform_ops *ops, unsigned vp_count, unsigned gpa_bits, uint64_t hypercall_page);

/* A rule is broken. The first few are told. */
void fail(const char *what);
/* The exit status: whether a rule was broken. */
int result(void);

/* A number below `choices` that depends on the seed only. */
unsigned pick(uint64_t *seed, unsigned choices);

/* Where a VP's parameters are, a page for input and one for output: at its GPA, and here. */
struct parameters {
    uint64_t gpa;
    uint8_t *content;
};

/* Whether a VP whose call has to wait does not want to go on with it, which a caller may do at any time. */
typedef bool gives_up(struct hv_vp *vp, unsigned tries);

/* The status of a call with parameters in memory, and in registers. One that is given up: operation denied. */
unsigned call_at(struct hv_vp *vp, struct parameters at, uint64_t input, const void *data, size_t size,
                 gives_up *gives_up);
unsigned call_fast(struct hv_vp *vp, uint64_t code, uint64_t first, uint64_t second, gives_up *gives_up);
/* The first word of what a call put out. */
uint64_t output_at(struct parameters at);
/* Ends the program unless the status is success: what follows would make no sense. */
void must(unsigned status, const char *what);

/* Makes and initializes a child whose pool gets `count` pages from page `first` on. */
hv_partition_id make_child(struct hv_vp *root, struct parameters at, uint64_t first, unsigned count);
/* The status of HvCreateVp. */
unsigned make_child_vp(struct hv_vp *root, struct parameters at, hv_partition_id child, unsigned index,
                       gives_up *gives_up);

#endif
