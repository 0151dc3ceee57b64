/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "services_module.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <map>
#include <optional>

namespace py = pybind11;
using namespace pybind11::literals;

namespace qemu_hv
{

static const std::map<std::string, hv_inject_point> points = {
    {"hypercall", HV_INJECT_HYPERCALL}, {"msr-read", HV_INJECT_MSR_READ}, {"msr-write", HV_INJECT_MSR_WRITE},
    {"message", HV_INJECT_MESSAGE},     {"event", HV_INJECT_EVENT},       {"timer", HV_INJECT_TIMER},
};
static const std::map<std::string, hv_inject_action> actions = {
    {"status", HV_INJECT_STATUS},   {"gp", HV_INJECT_GP},     {"ud", HV_INJECT_UD},
    {"delay", HV_INJECT_DELAY},     {"drop", HV_INJECT_DROP}, {"double", HV_INJECT_DOUBLE},
    {"reorder", HV_INJECT_REORDER},
};

/* The core's sentence when it refuses the rule. */
static std::optional<std::string> inject_add(Machine &m, const std::string &id, const std::string &point,
                                             const std::string &action, std::optional<uint64_t> target,
                                             uint64_t partition, std::optional<uint32_t> vp,
                                             std::optional<uint64_t> nth, std::optional<uint64_t> every,
                                             std::optional<double> fraction, uint64_t seed, uint64_t limit,
                                             uint16_t status, uint32_t delay_us)
{
    hv_inject_rule rule{};
    id.copy(rule.id, sizeof rule.id - 1);
    rule.point = points.at(point);
    rule.action = actions.at(action);
    rule.target = target.value_or(HV_INJECT_ANY);
    rule.partition = partition;
    rule.vp = vp.value_or(HV_ANY_VP);
    rule.when = nth ? HV_INJECT_NTH : every ? HV_INJECT_EVERY : fraction ? HV_INJECT_FRACTION : HV_INJECT_ALWAYS;
    rule.number = nth.value_or(every.value_or(0));
    rule.fraction = fraction.value_or(0);
    rule.seed = seed;
    rule.limit = limit;
    rule.status = status;
    rule.delay_us = delay_us;
    const char *error = hv_inject_add(m.core(), &rule);
    m.leave();
    return error ? std::optional<std::string>(error) : std::nullopt;
}

static py::list injections(Machine &m)
{
    std::vector<hv_injection_state> states(hv_list_injections(m.core(), nullptr, 0));
    states.resize(std::min(states.size(), hv_list_injections(m.core(), states.data(), states.size())));
    py::list list;
    for (const hv_injection_state &s : states) {
        list.append(py::dict("id"_a = std::string(s.rule.id), "orphaned"_a = s.orphaned, "matched"_a = s.matched,
                             "injected"_a = s.injected, "skipped"_a = s.skipped));
    }
    return list;
}

void add_services(py::class_<Machine> &type)
{
    type.def("inject_add", &inject_add, "id"_a, "point"_a, "action"_a, py::kw_only(), "target"_a = py::none(),
             "partition"_a = HV_PARTITION_ID_MACHINE, "vp"_a = py::none(), "nth"_a = py::none(), "every"_a = py::none(),
             "fraction"_a = py::none(), "seed"_a = 0, "limit"_a = 0, "status"_a = 0, "delay_us"_a = 1000)
        .def(
            "inject_remove",
            [](Machine &m, const std::optional<std::string> &id) {
                return hv_inject_remove(m.core(), id ? id->c_str() : nullptr);
            },
            "id"_a = py::none())
        .def("injections", &injections)
        .def("profiler_start", [](Machine &m) { return hv_profiler_start(m.core()); })
        .def("profiler_stop", [](Machine &m) { hv_profiler_stop(m.core()); })
        .def(
            "profiler_samples", [](Machine &m, unsigned lp) { return hv_profiler_get_samples(m.core(), lp); }, "lp"_a);
}

} // namespace qemu_hv
