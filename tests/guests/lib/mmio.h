/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Devices in a child's memory: the instruction that a memory intercept stopped, taken apart. Of the instructions that
 * access memory only the plain moves are known, which is what drivers use for devices.
 */
#ifndef ROOT_MMIO_H
#define ROOT_MMIO_H

#include "intercept.h"

struct mmio {
    uint64_t gpa;
    unsigned size; /* bytes: 1, 2, 4, 8 */
    bool write;
    uint64_t value; /* written; or for the caller to set before mmio_finish() */
    /* The library's */
    uint32_t name; /* of the register that is read into or written from */
    bool high_byte; /* AH, CH, DH, BH */
    unsigned extend; /* bytes the value is zero-extended to; 0: a plain move */
};

/* False for what is no plain move. Sets intercept->length. */
bool mmio_decode(struct intercept *intercept, struct mmio *mmio);
/* Put what was read into the register it belongs to; INTERCEPT_DONE then moves on behind the instruction. */
void mmio_finish(const struct intercept *intercept, const struct mmio *mmio);

#endif
