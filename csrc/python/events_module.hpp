/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What Python sees of the operator's event log.
 */
#ifndef QEMU_HV_EVENTS_MODULE_HPP
#define QEMU_HV_EVENTS_MODULE_HPP

#include <pybind11/pybind11.h>

#include "machine.hpp"

namespace qemu_hv
{

void add_events(pybind11::class_<Machine> &type);

} // namespace qemu_hv

#endif
