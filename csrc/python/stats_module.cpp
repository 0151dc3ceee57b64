/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "stats_module.hpp"

namespace py = pybind11;
using namespace pybind11::literals;

namespace qemu_hv
{

static const char *kind_name(hv_stats_kind kind)
{
    static const char *const names[] = {"level", "count", "time", "cost", "percent"};
    return names[kind];
}

static const char *by_name(hv_stats_by by)
{
    static const char *const names[] = {"core", "platform", "never"};
    return names[by];
}

void add_stats_tables(py::module_ &module)
{
    using Row = hv_stats_row_info;
    py::class_<Row>(module, "StatsRow", "A counter of the core's table (TLFS appendix J).")
        .def_readonly("group", &Row::group)
        .def_readonly("index", &Row::index)
        .def_readonly("symbol", &Row::symbol)
        .def_readonly("name", &Row::name)
        .def_readonly("unit", &Row::unit)
        .def_readonly("what", &Row::what)
        .def_readonly("generations", &Row::generations)
        .def_property_readonly("object", [](const Row &row) { return unsigned(row.object); })
        .def_property_readonly("kind", [](const Row &row) { return kind_name(row.kind); })
        .def_property_readonly("by", [](const Row &row) { return by_name(row.by); })
        .def("__repr__", [](const Row &row) { return std::string("<StatsRow ") + row.group + "." + row.symbol + ">"; });
    py::list rows, groups;
    for (const Row &row : hv_stats_rows) {
        rows.append(py::cast(row));
    }
    for (const hv_stats_group_info &group : hv_stats_groups) {
        groups.append(
            py::make_tuple(group.group, unsigned(group.object), unsigned(group.id), group.name, group.section));
    }
    module.attr("stats_rows") = py::tuple(rows);
    module.attr("stats_groups") = py::tuple(groups);
}

static void collect(void *opaque, const hv_stats_view *view)
{
    py::dict values;
    for (unsigned row = 0; row < HV_STATS_ROWS; row++) {
        if (hv_stats_rows[row].object == view->object) {
            values[hv_stats_rows[row].symbol] = view->values[row];
        }
    }
    static_cast<py::list *>(opaque)->append(
        py::make_tuple(unsigned(view->object), view->partition, view->index, values));
}

static py::list stats(Machine &machine)
{
    py::list list;
    hv_visit_stats(machine.core(), collect, &list);
    return list;
}

/* An event that the platform sees, which takes so many ticks of the TSC to deal with. */
static void count(Machine &machine, hv_vp_handle vp, unsigned counter, uint64_t ticks)
{
    auto index = static_cast<hv_stats_index>(counter);
    uint64_t began = hv_count_begin(machine.vp(vp), index);
    machine.tsc += ticks;
    hv_count_end(machine.vp(vp), index, began);
}

void add_stats(py::class_<Machine> &type)
{
    type.def("stats", &stats).def("count", &count, "vp"_a, "counter"_a, "ticks"_a = 0);
    type.def(
        "count_shared",
        [](Machine &m, hv_vp_handle vp, unsigned counter) {
            hv_count_shared(m.vp(vp), static_cast<hv_stats_index>(counter));
        },
        "vp"_a, "counter"_a);
    type.def_readwrite("call_ticks", &Machine::call_ticks);
}

} // namespace qemu_hv
