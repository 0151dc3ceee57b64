/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What qemu_hv._core.Machine offers of the profiler and of fault injection. */
#ifndef QEMU_HV_SERVICES_MODULE_HPP
#define QEMU_HV_SERVICES_MODULE_HPP

#include <pybind11/pybind11.h>

#include "machine.hpp"

namespace qemu_hv
{

void add_services(pybind11::class_<Machine> &type);

} // namespace qemu_hv

#endif
