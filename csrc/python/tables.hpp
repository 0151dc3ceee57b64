/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The core's tables (csrc/hv/tlfs) as Python enumerations and rows. */
#ifndef QEMU_HV_TABLES_HPP
#define QEMU_HV_TABLES_HPP

#include <pybind11/pybind11.h>

namespace qemu_hv
{

void add_tables(pybind11::module_ &module);

} // namespace qemu_hv

#endif
