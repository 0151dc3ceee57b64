/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "events_module.hpp"

namespace py = pybind11;
using namespace pybind11::literals;

namespace qemu_hv
{

static unsigned start(Machine &machine, uint64_t groups, uint64_t size, hv_partition_id partition)
{
    hv_events_options options{groups, size, partition};
    hv_progress progress = hv_events_start(machine.core(), &options);
    machine.leave();
    return progress;
}

static py::bytes read(Machine &machine, size_t size)
{
    std::string buffer(size, '\0');
    buffer.resize(hv_events_read(machine.core(), buffer.data(), size));
    machine.leave();
    return py::bytes(buffer);
}

static py::dict state(Machine &machine)
{
    hv_events_state state;
    hv_events_get_state(machine.core(), &state);
    machine.leave();
    return py::dict("running"_a = state.running, "groups"_a = state.options.groups, "size"_a = state.options.size,
                    "partition"_a = state.options.partition, "recorded"_a = state.recorded, "lost"_a = state.lost,
                    "unread"_a = state.unread);
}

void add_events(py::class_<Machine> &type)
{
    type.def("events_start", &start, "groups"_a, py::kw_only(), "size"_a = 1 << 16, "partition"_a = 0)
        .def("events_stop",
             [](Machine &machine) {
                 hv_events_stop(machine.core());
                 machine.leave();
             })
        .def("events_read", &read, "size"_a = 1 << 20)
        .def_property_readonly("events_state", &state);
}

} // namespace qemu_hv
