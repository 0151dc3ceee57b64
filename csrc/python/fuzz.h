/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A hostile guest made of bytes: the entry of the coverage-guided fuzz target (tests/fuzz) and of the fuzz test.
 *
 * The bytes choose a configuration and then a sequence of what a guest, its devices and its operator may do at all
 * times. Nothing that they choose may break a rule of platform.h or the promises checked here.
 */
#ifndef QEMU_HV_FUZZ_H
#define QEMU_HV_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
namespace qemu_hv
{

/* Returns the number of steps taken. Throws ContractViolation. */
size_t fuzz(const uint8_t *data, size_t size);

} // namespace qemu_hv

extern "C" {
#endif

/* The same for C: a violation is printed and ends in abort(). */
void hv_fuzz_input(const uint8_t *data, size_t size);

#ifdef __cplusplus
}
#endif

#endif
