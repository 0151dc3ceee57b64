/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The core's C headers, as C++ sees them. */
#ifndef QEMU_HV_CORE_HPP
#define QEMU_HV_CORE_HPP

#include <cstddef>
#include <cstdint>

#ifndef __clang__
#define _Static_assert static_assert /* C11's keyword, which g++ does not know */
#endif

extern "C" {
#include "hypervisor.h"
}

#ifndef __clang__
#undef _Static_assert
#endif

#endif
