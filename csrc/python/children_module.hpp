/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Python's view of child partitions on the simulated platform. */
#ifndef QEMU_HV_CHILDREN_MODULE_HPP
#define QEMU_HV_CHILDREN_MODULE_HPP

#include <pybind11/pybind11.h>

#include "machine.hpp"

namespace qemu_hv
{

void add_children(pybind11::class_<Machine> &type);

} // namespace qemu_hv

#endif
