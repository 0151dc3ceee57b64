/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qemu_hv._core: the hypervisor's core on the simulated platform. Its types are in qemu_hv/_core.pyi. */
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>

#include <optional>

#include "children_module.hpp"
#include "events_module.hpp"
#include "fuzz.h"
#include "machine.hpp"
#include "services_module.hpp"
#include "stats_module.hpp"
#include "tables.hpp"

namespace py = pybind11;
using namespace pybind11::literals;

namespace qemu_hv
{

static hv_generation generation_of(const std::string &name)
{
    if (name == "2008r2") {
        return HV_GEN_2008R2;
    }
    if (name == "current") {
        return HV_GEN_CURRENT;
    }
    throw std::invalid_argument("no interface generation is called '" + name + "': use 'current' or '2008r2'");
}

static std::vector<uint8_t> bytes_of(const std::string &data)
{
    return std::vector<uint8_t>(data.begin(), data.end());
}

static py::bytes to_bytes(const std::vector<uint8_t> &data)
{
    return py::bytes(reinterpret_cast<const char *>(data.data()), data.size());
}

static py::object member(const char *type, unsigned value)
{
    return py::module_::import("qemu_hv._core").attr(type)(value);
}

static std::unique_ptr<Machine>
make_machine(const std::string &generation, uint32_t vps, uint64_t memory, uint64_t tsc_frequency,
             uint64_t apic_frequency, std::optional<uint64_t> privileges, std::optional<uint32_t> features,
             std::optional<uint32_t> recommendations, std::optional<uint32_t> spinlock_retries, uint32_t gpa_bits,
             const std::string &hypercall_code, bool root, std::optional<std::array<uint64_t, 3>> processor,
             bool debugging, bool fewer_intercepts, uint32_t gpa_ranges_most)
{
    MachineConfig config;
    hv_config_defaults(&config.core, generation_of(generation));
    config.core.vp_count = vps;
    config.core.root = root;
    config.core.intel = true;
    config.core.debugging = debugging;
    if (root) {
        config.core.privileges = UINT64_MAX; /* TLFS 22.4: all there are */
    }
    if (processor) {
        config.core.processor_features = (*processor)[0];
        config.core.xsave_features = (*processor)[1];
        config.core.clflush_size = (*processor)[2];
    }
    config.core.fewer_intercepts = fewer_intercepts;
    config.core.gpa_bits = gpa_bits;
    config.core.gpa_ranges_most = gpa_ranges_most;
    config.core.tsc_frequency = tsc_frequency;
    config.core.apic_frequency = apic_frequency;
    config.core.privileges = privileges.value_or(config.core.privileges);
    config.core.features = features.value_or(config.core.features);
    config.core.recommendations = recommendations.value_or(config.core.recommendations);
    config.core.spinlock_retries = spinlock_retries.value_or(config.core.spinlock_retries);
    config.memory = memory;
    config.hypercall_code = bytes_of(hypercall_code);
    return std::make_unique<Machine>(config);
}

static py::dict config_dict(const hv_config &config)
{
    return py::dict("privileges"_a = config.privileges, "features"_a = config.features,
                    "recommendations"_a = config.recommendations, "spinlock_retries"_a = config.spinlock_retries,
                    "vp_count"_a = config.vp_count, "gpa_bits"_a = config.gpa_bits,
                    "tsc_frequency"_a = config.tsc_frequency, "apic_frequency"_a = config.apic_frequency,
                    "build_number"_a = config.build_number, "service_pack"_a = config.service_pack,
                    "service_number"_a = config.service_number, "major_version"_a = config.major_version,
                    "minor_version"_a = config.minor_version, "service_branch"_a = config.service_branch);
}

static py::dict default_config(const std::string &generation)
{
    hv_config config{};
    hv_config_defaults(&config, generation_of(generation));
    return config_dict(config);
}

/* -- Hypercalls -- */

struct HypercallResult {
    hv_exit exit;
    uint64_t result;
    unsigned retries;
    Registers registers;
    bool retired() const
    {
        return exit == HV_EXIT_DONE || exit == HV_EXIT_IDLE;
    }
};

static Registers registers_of(uint64_t input, uint64_t first, uint64_t second, const std::string &xmm, bool long_mode,
                              const std::optional<std::vector<uint64_t>> &initial)
{
    Registers registers;
    if (initial) {
        if (initial->size() != registers.gpr.size()) {
            throw std::invalid_argument("registers must have 16 values");
        }
        std::copy(initial->begin(), initial->end(), registers.gpr.begin());
    }
    if (xmm.size() > registers.xmm.size()) {
        throw std::invalid_argument("XMM0 to XMM5 hold 96 bytes");
    }
    std::copy(xmm.begin(), xmm.end(), registers.xmm.begin());
    auto low = [&](unsigned number, uint64_t value) {
        registers.gpr[number] = (registers.gpr[number] & ~uint64_t(UINT32_MAX)) | (value & UINT32_MAX);
    };
    if (long_mode) {
        registers.gpr[Registers::rcx] = input;
        registers.gpr[Registers::rdx] = first;
        registers.gpr[Registers::r8] = second;
    } else {
        low(Registers::rdx, input >> 32), low(Registers::rax, input);
        low(Registers::rbx, first >> 32), low(Registers::rcx, first);
        low(Registers::rdi, second >> 32), low(Registers::rsi, second);
    }
    return registers;
}

static HypercallResult hypercall(Machine &machine, hv_vp_index vp, uint64_t input, uint64_t rdx, uint64_t r8,
                                 const std::string &xmm, bool long_mode, bool legal,
                                 const std::optional<std::vector<uint64_t>> &registers, bool complete)
{
    HypercallResult result{HV_EXIT_RETRY, 0, 0, registers_of(input, rdx, r8, xmm, long_mode, registers)};
    auto &gpr = result.registers.gpr;
    result.exit = machine.hypercall(vp, result.registers, long_mode, legal);
    while (complete && result.exit == HV_EXIT_RETRY) {
        if (++result.retries > 4095) {
            throw ContractViolation("a hypercall is continued without progress");
        }
        result.exit = machine.hypercall(vp, result.registers, long_mode, legal);
    }
    result.result = long_mode ? gpr[Registers::rax] : gpr[Registers::rdx] << 32 | (gpr[Registers::rax] & UINT32_MAX);
    return result;
}

static void add_hypercall_result(py::module_ &module)
{
    using Result = HypercallResult;
    py::class_<Result>(module, "HypercallResult", "What a hypercall instruction did to its caller.")
        .def_property_readonly("exit", [](const Result &r) { return member("Exit", r.exit); })
        .def_property_readonly("status",
                               [](const Result &r) -> py::object {
                                   return r.retired() ? member("Status", r.result & 0xFFFF) : py::none();
                               })
        .def_property_readonly("reps_completed", [](const Result &r) { return r.result >> 32 & 0xFFF; })
        .def_readonly("result", &Result::result)
        .def_readonly("retries", &Result::retries)
        .def_property_readonly("registers", [](const Result &r) { return r.registers.gpr; })
        .def("__repr__", [](const Result &r) {
            py::str text = r.retired() ? py::str(member("Status", r.result & 0xFFFF).attr("name")) : py::str("-");
            return py::str("<HypercallResult exit={} status={} reps_completed={}>")
                .format(member("Exit", r.exit).attr("name"), text, r.result >> 32 & 0xFFF);
        });
}

/* -- Looking at it -- */

static py::dict partition_state(Machine &machine)
{
    hv_partition_state s{};
    hv_get_partition_state(hv_machine_partition(machine.core()), &s);
    py::list crash;
    for (uint64_t parameter : s.crash_parameters) {
        crash.append(parameter);
    }
    return py::dict("id"_a = s.id, "guest_os_id"_a = s.guest_os_id, "hypercall_msr"_a = s.hypercall_msr,
                    "reference_tsc_msr"_a = s.reference_tsc_msr, "crash_control"_a = s.crash_control,
                    "crash_parameters"_a = crash, "reference_time"_a = s.reference_time, "tsc_scale"_a = s.tsc_scale,
                    "tsc_offset"_a = s.tsc_offset, "tsc_sequence"_a = s.tsc_sequence, "privileges"_a = s.privileges,
                    "features"_a = s.features, "recommendations"_a = s.recommendations,
                    "tsc_page_enabled"_a = s.tsc_page_enabled, "hypercall_page_enabled"_a = s.hypercall_page_enabled);
}

template <typename T, size_t n> static py::list list_of(const T (&values)[n])
{
    py::list list;
    for (const T &value : values) {
        list.append(value);
    }
    return list;
}

static py::dict vp_state(Machine &machine, hv_vp_index vp)
{
    hv_vp_state s{};
    hv_get_vp_state(machine.vp(vp), &s);
    py::list timers;
    for (const hv_timer_state &timer : s.timers) {
        py::object due = timer.due == HV_NANO100_NEVER ? py::object(py::none()) : py::cast(timer.due);
        timers.append(py::dict("config"_a = timer.config, "count"_a = timer.count, "due"_a = due,
                               "message_pending"_a = timer.message_pending, "expirations"_a = timer.expirations));
    }
    return py::dict("apic_assist_page"_a = s.apic_assist_page, "scontrol"_a = s.scontrol, "siefp"_a = s.siefp,
                    "simp"_a = s.simp, "sint"_a = list_of(s.sint), "queued"_a = list_of(s.queued), "timers"_a = timers,
                    "run_time"_a = s.run_time, "hypercalls"_a = list_of(s.hypercalls),
                    "unknown_hypercalls"_a = s.unknown_hypercalls, "msr_reads"_a = list_of(s.msr_reads),
                    "msr_writes"_a = list_of(s.msr_writes), "unknown_msrs"_a = s.unknown_msrs,
                    "messages_delivered"_a = s.messages_delivered, "events_signaled"_a = s.events_signaled,
                    "interrupts_requested"_a = s.interrupts_requested, "auto_eois"_a = s.auto_eois,
                    "assisted_eois"_a = s.assisted_eois);
}

static py::list ports(Machine &machine)
{
    std::vector<hv_port_state> states(hv_list_ports(hv_machine_partition(machine.core()), nullptr, 0));
    states.resize(
        std::min(states.size(), hv_list_ports(hv_machine_partition(machine.core()), states.data(), states.size())));
    py::list list;
    for (const hv_port_state &s : states) {
        py::object vp = s.info.vp == HV_ANY_VP ? py::object(py::none()) : py::cast(s.info.vp);
        list.append(py::dict("port_id"_a = s.port_id, "type"_a = member("PortType", s.info.type),
                             "sint"_a = s.info.sint, "vp"_a = vp, "base_flag"_a = s.info.base_flag,
                             "flag_count"_a = s.info.flag_count, "post_count"_a = s.post_count, "queued"_a = s.queued));
    }
    return list;
}

static py::list connections(Machine &machine)
{
    std::vector<hv_connection_state> states(hv_list_connections(hv_machine_partition(machine.core()), nullptr, 0));
    states.resize(std::min(states.size(),
                           hv_list_connections(hv_machine_partition(machine.core()), states.data(), states.size())));
    py::list list;
    for (const hv_connection_state &s : states) {
        list.append(py::dict("connection_id"_a = s.connection_id, "port_id"_a = s.port_id));
    }
    return list;
}

static py::list vectors(const LocalApic::Vectors &set)
{
    py::list list;
    for (unsigned vector = 0; vector < set.size(); vector++) {
        if (set[vector]) {
            list.append(vector);
        }
    }
    return list;
}

static py::dict apic_state(Machine &machine, hv_vp_index vp)
{
    const LocalApic &apic = machine.apic(vp);
    return py::dict("enabled"_a = apic.enabled, "tpr"_a = apic.tpr, "icr"_a = apic.icr, "irr"_a = vectors(apic.irr),
                    "isr"_a = vectors(apic.isr));
}

/* -- Records -- */

static py::list interrupt_list(const std::vector<Records::Interrupt> &interrupts)
{
    py::list list;
    for (const auto &interrupt : interrupts) {
        list.append(py::make_tuple(interrupt.vp, interrupt.vector));
    }
    return list;
}

static py::list vp_value_list(const std::vector<Records::VpValue> &values)
{
    py::list list;
    for (const auto &value : values) {
        list.append(py::make_tuple(value.vp, value.value));
    }
    return list;
}

static py::list flush_list(const Machine &machine)
{
    py::list list;
    for (const auto &flush : machine.records.flushes) {
        py::object ranges = py::none();
        if (flush.listed) {
            py::list pairs;
            for (const hv_gva_range &range : flush.ranges) {
                pairs.append(py::make_tuple(range.gva, range.count));
            }
            ranges = pairs;
        }
        list.append(py::dict("caller"_a = flush.caller, "vps"_a = flush.vps, "keep_global"_a = flush.keep_global,
                             "ranges"_a = ranges));
    }
    return list;
}

static py::list crash_list(const Machine &machine)
{
    py::list list;
    for (const auto &crash : machine.records.crashes) {
        py::object message = crash.has_message ? py::object(py::bytes(crash.message)) : py::object(py::none());
        list.append(py::dict("vp"_a = crash.vp, "parameters"_a = crash.parameters, "message"_a = message));
    }
    return list;
}

static py::list trace_list(const Machine &machine)
{
    py::list list;
    for (const auto &trace : machine.records.traces) {
        list.append(
            py::dict("vp"_a = trace.vp, "row"_a = trace.row, "input"_a = trace.input, "result"_a = trace.result));
    }
    return list;
}

static py::list overlay_change_list(const Machine &machine)
{
    py::list list;
    for (const auto &change : machine.records.overlay_changes) {
        py::object gpa = change.enabled ? py::cast(change.gpa) : py::object(py::none());
        list.append(py::make_tuple(member("OverlayKind", change.kind), change.vp, gpa));
    }
    return list;
}

static py::list overlay_list(const Machine &machine)
{
    py::list list;
    for (const Overlay &overlay : machine.memory.overlays()) {
        list.append(py::make_tuple(member("OverlayKind", overlay.kind), overlay.vp, overlay.gpa));
    }
    return list;
}

/* -- The class -- */

template <typename Class> static void add_guest_side(Class &type)
{
    type.def(
            "cpuid",
            [](Machine &m, uint32_t leaf) {
                struct hv_cpuid out {
                };
                ::hv_cpuid(hv_machine_partition(m.core()), leaf, &out);
                return py::make_tuple(out.eax, out.ebx, out.ecx, out.edx);
            },
            "leaf"_a)
        .def_property_readonly("tsc_is_invariant",
                               [](Machine &m) { return hv_tsc_is_invariant(hv_machine_partition(m.core())); })
        .def("rdmsr", &Machine::read_msr, "vp"_a, "index"_a)
        .def("wrmsr", &Machine::write_msr, "vp"_a, "index"_a, "value"_a)
        .def(
            "hypercall",
            [](Machine &m, hv_vp_index vp, uint64_t input, uint64_t rdx, uint64_t r8, const std::string &xmm,
               bool long_mode, bool legal, const std::optional<std::vector<uint64_t>> &registers) {
                return hypercall(m, vp, input, rdx, r8, xmm, long_mode, legal, registers, false);
            },
            "vp"_a, "input"_a, "rdx"_a = 0, "r8"_a = 0, py::kw_only(), "xmm"_a = py::bytes(), "long_mode"_a = true,
            "legal"_a = true, "registers"_a = py::none())
        .def(
            "call",
            [](Machine &m, hv_vp_index vp, uint64_t input, uint64_t rdx, uint64_t r8, const std::string &xmm,
               bool long_mode) { return hypercall(m, vp, input, rdx, r8, xmm, long_mode, true, {}, true); },
            "vp"_a, "input"_a, "rdx"_a = 0, "r8"_a = 0, py::kw_only(), "xmm"_a = py::bytes(), "long_mode"_a = true);
}

template <typename Class> static void add_memory(Class &type)
{
    type.def(
            "read",
            [](Machine &m, uint64_t gpa, size_t size, hv_vp_handle vp) {
                std::vector<uint8_t> buffer(size);
                m.read(gpa, buffer.data(), size, vp);
                return to_bytes(buffer);
            },
            "gpa"_a, "size"_a, "vp"_a = 0)
        .def(
            "write",
            [](Machine &m, uint64_t gpa, const std::string &data, hv_vp_handle vp) {
                m.write(gpa, reinterpret_cast<const uint8_t *>(data.data()), data.size(), vp);
            },
            "gpa"_a, "data"_a, "vp"_a = 0)
        .def(
            "read_ram",
            [](Machine &m, uint64_t gpa, size_t size) {
                std::vector<uint8_t> buffer(size);
                if (gpa % HV_PAGE_SIZE + size > HV_PAGE_SIZE || !m.memory.read_ram(gpa, buffer.data(), size)) {
                    throw std::invalid_argument("no RAM, or more than one page of it, at this address");
                }
                return to_bytes(buffer);
            },
            "gpa"_a, "size"_a)
        .def(
            "map",
            [](Machine &m, uint64_t gpa, uint64_t size, bool readable, bool writable) {
                m.memory.map(gpa, size, readable, writable);
            },
            "gpa"_a, "size"_a = HV_PAGE_SIZE, py::kw_only(), "readable"_a = true, "writable"_a = true)
        .def(
            "unmap", [](Machine &m, uint64_t gpa, uint64_t size) { m.memory.unmap(gpa, size); }, "gpa"_a,
            "size"_a = HV_PAGE_SIZE)
        .def_property_readonly("overlays", &overlay_list);
}

template <typename Class> static void add_time(Class &type)
{
    type.def_readwrite("tsc", &Machine::tsc)
        .def("advance", &Machine::advance, "nano100"_a)
        .def(
            "advance_tsc", [](Machine &m, uint64_t ticks) { m.advance_tsc(ticks); }, "ticks"_a)
        .def("fire_due_timers", [](Machine &m) { m.fire_due_timers(); })
        .def("timer_expired", &Machine::timer_expired, "vp"_a, "timer"_a)
        .def(
            "timer_tsc",
            [](Machine &m, hv_vp_index vp, unsigned timer) -> py::object {
                uint64_t tsc = m.timer_tsc(vp, timer);
                return tsc == HV_NANO100_NEVER ? py::object(py::none()) : py::cast(tsc);
            },
            "vp"_a, "timer"_a)
        .def_property_readonly("reference_time",
                               [](Machine &m) { return hv_reference_time(hv_machine_partition(m.core())); })
        .def(
            "set_run_time",
            [](Machine &m, hv_vp_index vp, uint64_t nano100) {
                m.vp(vp);
                m.run_time[vp] = nano100;
            },
            "vp"_a, "nano100"_a);
}

template <typename Class> static void add_apic(Class &type)
{
    type.def("apic", &apic_state, "vp"_a)
        .def(
            "set_apic_enabled", [](Machine &m, hv_vp_index vp, bool enabled) { m.apic(vp).enabled = enabled; }, "vp"_a,
            "enabled"_a)
        .def("request_interrupt", &Machine::request_interrupt, "vp"_a, "vector"_a)
        .def(
            "accept",
            [](Machine &m, hv_vp_index vp) -> py::object {
                int vector = m.accept_interrupt(vp);
                return vector < 0 ? py::object(py::none()) : py::cast(vector);
            },
            "vp"_a)
        .def("eoi", &Machine::end_interrupt, "vp"_a)
        .def("assisted_eoi", &Machine::end_interrupt_assisted, "vp"_a);
}

template <typename Class> static void add_operator(Class &type)
{
    auto status = [](hv_status value) { return member("Status", value); };
    type.def(
            "operator_create_port",
            [=](Machine &m, uint32_t port, int port_type, uint32_t sint, std::optional<uint32_t> vp, uint16_t base_flag,
                uint16_t flag_count) {
                hv_port_info info{};
                info.type = static_cast<hv_port_type>(port_type);
                info.sint = sint;
                info.vp = vp.value_or(HV_ANY_VP);
                info.base_flag = base_flag;
                info.flag_count = flag_count;
                return status(m.create_port(port, info));
            },
            "port_id"_a, "port_type"_a, "sint"_a, py::kw_only(), "vp"_a = py::none(), "base_flag"_a = 0,
            "flag_count"_a = 0)
        .def(
            "operator_delete_port", [=](Machine &m, uint32_t port) { return status(m.delete_port(port)); }, "port_id"_a)
        .def(
            "operator_connect_port",
            [=](Machine &m, uint32_t connection, uint32_t port) { return status(m.connect_port(connection, port)); },
            "connection_id"_a, "port_id"_a)
        .def(
            "operator_disconnect_port",
            [=](Machine &m, uint32_t connection) { return status(m.disconnect_port(connection)); }, "connection_id"_a)
        .def(
            "operator_post_message",
            [=](Machine &m, uint32_t port, uint32_t type, const std::string &payload) {
                return status(m.post_message(port, type, payload));
            },
            "port_id"_a, "message_type"_a, "payload"_a)
        .def(
            "operator_signal_event",
            [=](Machine &m, uint32_t port, uint16_t flag) { return status(m.signal_event(port, flag)); }, "port_id"_a,
            "flag"_a)
        .def("ports", &ports)
        .def("connections", &connections)
        .def("partition_state", &partition_state)
        .def("vp_state", &vp_state, "vp"_a)
        .def(
            "set_trace", [](Machine &m, bool on) { hv_set_trace(m.core(), on); }, "on"_a);
}

template <typename Class> static void add_debugger(Class &type)
{
    type.def(
            "debug_take", [](Machine &m, size_t size) { return py::bytes(m.debug_take(size)); }, "size"_a = 65536)
        .def("debug_receive", &Machine::debug_receive, "data"_a)
        .def("debug_connected", [](Machine &m) { hv_debug_connected(m.core()); })
        .def_property_readonly("debug_room", [](Machine &m) { return hv_debug_room(m.core()); })
        .def_property_readonly("debug_posts", [](const Machine &m) { return m.records.debug_posts; });
}

template <typename Class> static void add_records(Class &type)
{
    type.def_property_readonly("interrupts", [](const Machine &m) { return interrupt_list(m.records.interrupts); })
        .def_property_readonly("lost_interrupts",
                               [](const Machine &m) { return interrupt_list(m.records.lost_interrupts); })
        .def_property_readonly("flushes", &flush_list)
        .def_property_readonly("crashes", &crash_list)
        .def_property_readonly("traces", &trace_list)
        .def_property_readonly("overlay_changes", &overlay_change_list)
        .def_property_readonly("cr3_loads", [](const Machine &m) { return vp_value_list(m.records.cr3_loads); })
        .def_property_readonly("icr_writes", [](const Machine &m) { return vp_value_list(m.records.icr_writes); })
        .def_property_readonly("eoi_writes", [](const Machine &m) { return vp_value_list(m.records.eoi_writes); })
        .def_property_readonly("spin_waits", [](const Machine &m) { return m.records.spin_waits; })
        .def_property_readonly("idles", [](const Machine &m) { return m.records.idles; })
        .def_property_readonly("resets", [](const Machine &m) { return m.records.resets; })
        .def_property_readonly("cpuid_changes", [](const Machine &m) { return m.records.cpuid_changes; })
        .def("clear_records", [](Machine &m) {
            m.records = Records();
            m.child_records = ChildRecords();
        });
}

template <typename Class> static void add_state(Class &type)
{
    type.def_property_readonly("config", [](const Machine &m) { return config_dict(m.config().core); })
        .def("reset", &Machine::reset)
        .def("save", [](Machine &m) { return to_bytes(m.save()); })
        .def(
            "restore", [](Machine &m, const std::string &stream) { m.restore(bytes_of(stream)); }, "stream"_a)
        .def(
            "migrate",
            [](Machine &m, std::optional<uint64_t> frequency) {
                return m.migrate(frequency.value_or(m.config().core.tsc_frequency));
            },
            py::kw_only(), "tsc_frequency"_a = py::none());
}

static void add_exceptions(py::module_ &module)
{
    auto &base = py::register_exception<ProcessorException>(module, "ProcessorException");
    py::register_exception<InvalidOpcode>(module, "InvalidOpcode", base);
    py::register_exception<GeneralProtectionFault>(module, "GeneralProtectionFault", base);
    py::register_exception<MachineCheck>(module, "MachineCheck", base);
    py::register_exception<GpaFault>(module, "GpaFault", base);
    py::register_exception<RestoreError>(module, "RestoreError", PyExc_ValueError);
    py::register_exception<ContractViolation>(module, "ContractViolation", PyExc_AssertionError);
}

PYBIND11_MODULE(_core, module)
{
    module.doc() = "The hypervisor's core on a simulated platform: Python is the machine.";
    add_tables(module);
    add_stats_tables(module);
    add_exceptions(module);
    add_hypercall_result(module);
    py::class_<Machine> type(module, "Machine",
                             "A machine made of numbers, with the hypervisor's core under its guest.");
    type.def(py::init(&make_machine), "generation"_a = "current", py::kw_only(), "vps"_a = 1,
             "memory"_a = uint64_t(1) << 24, "tsc_frequency"_a = UINT64_C(2560000000),
             "apic_frequency"_a = UINT64_C(1000000000), "privileges"_a = py::none(), "features"_a = py::none(),
             "recommendations"_a = py::none(), "spinlock_retries"_a = py::none(), "gpa_bits"_a = 36,
             "hypercall_code"_a = py::bytes("\xF3\x0F\x1E\xFA\x0F\x01\xC1\xC3", 8), "root"_a = false,
             "processor"_a = py::none(), "debugging"_a = false, "fewer_intercepts"_a = false, "gpa_ranges_most"_a = 0);
    add_guest_side(type);
    add_memory(type);
    add_time(type);
    add_apic(type);
    add_operator(type);
    add_debugger(type);
    add_records(type);
    add_state(type);
    add_children(type);
    add_events(type);
    add_services(type);
    add_stats(type);
    module.def("default_config", &default_config, "generation"_a,
               "What a partition with role=guest has by default in this generation.");
    module.def(
        "fuzz",
        [](const std::string &data) { return fuzz(reinterpret_cast<const uint8_t *>(data.data()), data.size()); },
        "data"_a, "Be the hostile guest that `data` describes; returns the number of steps taken.");
}

} // namespace qemu_hv
