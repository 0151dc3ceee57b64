/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Statistics (TLFS 21) for Python: the table of counters, and what a machine has counted. */
#pragma once

#include "machine.hpp"

#include <pybind11/pybind11.h>

namespace qemu_hv
{

void add_stats_tables(pybind11::module_ &module);
void add_stats(pybind11::class_<Machine> &type);

} // namespace qemu_hv
