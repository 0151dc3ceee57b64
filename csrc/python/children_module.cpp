/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "children_module.hpp"

#include <pybind11/stl.h>

#include <cstdlib>
#include <cstring>

namespace py = pybind11;
using namespace pybind11::literals;

namespace qemu_hv
{

static py::object member(const char *type, unsigned value)
{
    return py::module_::import("qemu_hv._core").attr(type)(value);
}

static py::object exit_of(Machine &machine, hv_exit exit)
{
    machine.leave();
    return member("Exit", exit);
}

/* -- Processors -- */

static py::int_ register_value(Machine &machine, hv_vp_handle vp, uint32_t name)
{
    const Processor &processor = machine.processor(vp);
    if (name - HV_REGISTER_Rax < processor.gprs.size()) {
        return processor.gprs[name - HV_REGISTER_Rax];
    }
    const auto &registers = processor.registers;
    auto found = registers.find(name);
    if (found == registers.end()) {
        return 0;
    }
    py::int_ high(found->second.reg128.high), low(found->second.reg128.low);
    return high.attr("__lshift__")(64).attr("__or__")(low);
}

static void set_register_value(Machine &machine, hv_vp_handle vp, uint32_t name, const py::int_ &value)
{
    hv_register_value number{};
    py::int_ mask(UINT64_MAX);
    number.reg128.low = value.attr("__and__")(mask).cast<uint64_t>();
    number.reg128.high = value.attr("__rshift__")(64).attr("__and__")(mask).cast<uint64_t>();
    Processor &processor = machine.processor(vp);
    if (name - HV_REGISTER_Rax < processor.gprs.size()) {
        processor.gprs[name - HV_REGISTER_Rax] = number.reg64;
    } else {
        processor.registers[name] = number;
    }
}

static void add_processors(py::class_<Machine> &type)
{
    type.def("register", &register_value, "vp"_a, "name"_a)
        .def("set_register", &set_register_value, "vp"_a, "name"_a, "value"_a)
        .def(
            "refuse_register",
            [](Machine &m, uint32_t name, bool refuse) {
                refuse ? (void)m.refused_registers.insert(name) : (void)m.refused_registers.erase(name);
            },
            "name"_a, "refuse"_a = true)
        .def(
            "set_waits",
            [](Machine &m, hv_vp_handle vp, bool waits) {
                m.processors.at(vp).waits = waits;
                if (!waits) {
                    hv_vp_wake(m.vp(vp));
                }
                m.leave();
            },
            "vp"_a, "waits"_a)
        .def(
            "waits_for_sipi", [](Machine &m, hv_vp_handle vp) { return m.processor(vp).waits_for_sipi; }, "vp"_a)
        .def(
            "line", [](Machine &m, hv_vp_handle vp, unsigned line) { return m.processor(vp).lines.at(line); }, "vp"_a,
            "line"_a)
        .def(
            "set_code",
            [](Machine &m, hv_vp_handle vp, const std::string &code) {
                m.processor(vp).code.assign(code.begin(), code.end());
            },
            "vp"_a, "code"_a)
        .def(
            "set_gva",
            [](Machine &m, hv_vp_handle vp, uint64_t gva, uint64_t gpa, unsigned result, uint8_t cache_type) {
                hv_gva_translation translation{};
                translation.gpa = gpa & HV_PAGE_MASK;
                translation.cache_type = cache_type;
                translation.result = static_cast<decltype(translation.result)>(result);
                m.processor(vp).translations[gva & HV_PAGE_MASK] = translation;
            },
            "vp"_a, "gva"_a, "gpa"_a, "result"_a = 0, "cache_type"_a = 6)
        .def(
            "set_creation", [](Machine &m, unsigned p) { m.creation_progress = static_cast<hv_progress>(p); },
            "progress"_a)
        .def(
            "set_admission",
            [](Machine &m, unsigned progress, std::optional<uint64_t> privileges, std::optional<uint64_t> page_limit) {
                m.admission_progress = static_cast<hv_progress>(progress);
                m.admitted_privileges = privileges;
                m.admitted_pages = page_limit;
            },
            "progress"_a, "privileges"_a = py::none(), "page_limit"_a = py::none());
}

/* -- Children as a whole -- */

static py::bytes save_child(Machine &machine, uint64_t partition)
{
    size_t size = 0;
    uint8_t *stream = hv_save_child(machine.core(), partition, &size);
    machine.leave();
    if (!stream) {
        throw std::out_of_range("there is no such child");
    }
    py::bytes bytes(reinterpret_cast<const char *>(stream), size);
    std::free(stream);
    return bytes;
}

static uint64_t restore_child(Machine &machine, const std::string &stream, uint64_t pages)
{
    const char *error = "";
    hv_partition_id id = 0;
    bool done = hv_restore_child(machine.core(), reinterpret_cast<const uint8_t *>(stream.data()), stream.size(), pages,
                                 &id, &error);
    machine.leave();
    if (!done) {
        throw RestoreError(error);
    }
    return id;
}

static std::vector<std::tuple<uint64_t, uint64_t, uint64_t>> child_runs(Machine &machine, uint64_t partition)
{
    std::vector<hv_child_run> runs(hv_list_child_runs(machine.core(), partition, nullptr, 0));
    hv_list_child_runs(machine.core(), partition, runs.data(), runs.size());
    std::vector<std::tuple<uint64_t, uint64_t, uint64_t>> result;
    for (const hv_child_run &run : runs) {
        result.emplace_back(run.gpa_page, run.parent_page, run.pages);
    }
    return result;
}

static std::pair<unsigned, std::string> child_is_settled(Machine &machine, uint64_t partition)
{
    const char *error = "";
    unsigned progress = hv_child_is_settled(machine.core(), partition, &error);
    machine.leave();
    return {progress, error};
}

static void add_transfers(py::class_<Machine> &type)
{
    type.def("save_child", &save_child, "partition"_a)
        .def("restore_child", &restore_child, "stream"_a, "pages"_a)
        .def("child_runs", &child_runs, "partition"_a)
        .def("child_is_settled", &child_is_settled, "partition"_a);
}

/* -- What a child's processor tells the core -- */

static py::tuple io(Machine &machine, hv_vp_handle vp, uint16_t port, uint8_t size, bool write, uint32_t value,
                    uint8_t length, bool string, bool rep)
{
    hv_io_access access{};
    access.port = port;
    access.size = size;
    access.write = write;
    access.value = value;
    access.instruction_length = length;
    access.string = string;
    access.rep = rep;
    hv_exit exit = hv_io(machine.vp(vp), &access);
    return py::make_tuple(exit_of(machine, exit), access.value);
}

static py::tuple child_cpuid(Machine &machine, hv_vp_handle vp, uint32_t leaf, uint32_t subleaf,
                             const std::array<uint32_t, 4> &native, uint8_t length)
{
    struct hv_cpuid result {
        native[0], native[1], native[2], native[3]
    };
    hv_exit exit = hv_child_cpuid(machine.vp(vp), leaf, subleaf, length, &result);
    return py::make_tuple(exit_of(machine, exit), py::make_tuple(result.eax, result.ebx, result.ecx, result.edx));
}

static void add_exits(py::class_<Machine> &type)
{
    type.def("io", &io, "vp"_a, "port"_a, "size"_a, "write"_a, "value"_a = 0, py::kw_only(), "length"_a = 1,
             "string"_a = false, "rep"_a = false)
        .def("child_cpuid", &child_cpuid, "vp"_a, "leaf"_a, "subleaf"_a = 0,
             "native"_a = std::array<uint32_t, 4>{0, 0, 0, 0}, py::kw_only(), "length"_a = 2)
        .def(
            "child_rdmsr",
            [](Machine &m, hv_vp_handle vp, uint32_t index) {
                uint64_t value = 0;
                hv_exit exit = hv_child_rdmsr(m.vp(vp), index, 2, &value);
                return py::make_tuple(exit_of(m, exit), value);
            },
            "vp"_a, "index"_a)
        .def(
            "child_wrmsr",
            [](Machine &m, hv_vp_handle vp, uint32_t index, uint64_t value) {
                return exit_of(m, hv_child_wrmsr(m.vp(vp), index, 2, value));
            },
            "vp"_a, "index"_a, "value"_a)
        .def(
            "exception",
            [](Machine &m, hv_vp_handle vp, uint8_t vector, std::optional<uint32_t> error_code, uint64_t parameter) {
                struct hv_exception e {
                    vector, error_code.has_value(), error_code.value_or(0), parameter
                };
                return exit_of(m, hv_exception(m.vp(vp), &e));
            },
            "vp"_a, "vector"_a, "error_code"_a = py::none(), "parameter"_a = 0)
        .def(
            "memory_intercept",
            [](Machine &m, hv_vp_handle vp, uint64_t gpa, unsigned access, bool unmapped, std::optional<uint64_t> gva,
               bool interruption_pending) {
                hv_memory_access a{gva.value_or(0), gva.has_value(), gpa, access, unmapped, interruption_pending};
                return exit_of(m, hv_memory_intercept(m.vp(vp), &a));
            },
            "vp"_a, "gpa"_a, "access"_a, "unmapped"_a, "gva"_a = py::none(), "interruption_pending"_a = false)
        .def(
            "triple_fault", [](Machine &m, hv_vp_handle vp) { return exit_of(m, hv_triple_fault(m.vp(vp))); }, "vp"_a)
        .def(
            "invalid_vp_state", [](Machine &m, hv_vp_handle vp) { return exit_of(m, hv_invalid_vp_state(m.vp(vp))); },
            "vp"_a)
        .def(
            "ferr_asserted", [](Machine &m, hv_vp_handle vp) { return exit_of(m, hv_ferr_asserted(m.vp(vp))); }, "vp"_a)
        .def(
            "unsupported_feature",
            [](Machine &m, hv_vp_handle vp, uint32_t code, uint64_t parameter) {
                return exit_of(m, hv_unsupported_feature(m.vp(vp), code, parameter));
            },
            "vp"_a, "code"_a, "parameter"_a)
        .def(
            "translate",
            [](Machine &m, hv_vp_handle vp, uint64_t gpa, unsigned access) {
                hv_translation out{};
                hv_translate_gpa(m.vp(vp), gpa, access, &out);
                m.leave();
                return py::make_tuple(member("Translation", out.kind), out.spa, out.rights, out.size);
            },
            "vp"_a, "gpa"_a, "access"_a)
        .def(
            "gpa_space",
            [](Machine &m, hv_partition_id partition) {
                hv_gpa_space_state state;
                if (!hv_get_gpa_space_state(m.core(), partition, &state)) {
                    throw py::key_error("there is no partition " + std::to_string(partition));
                }
                return py::make_tuple(state.bytes, state.mapped_pages);
            },
            "partition"_a);
}

/* -- Interrupts and scheduling -- */

static void add_running(py::class_<Machine> &type)
{
    type.def(
            "child_interrupt",
            [](Machine &m, hv_vp_handle vp) -> py::object {
                int vector = hv_child_interrupt(m.vp(vp));
                m.leave();
                return vector < 0 ? py::object(py::none()) : py::cast(vector);
            },
            "vp"_a)
        .def(
            "lapic_read",
            [](Machine &m, hv_vp_handle vp, uint32_t offset) {
                uint32_t value = hv_lapic_read(m.vp(vp), offset);
                m.leave();
                return value;
            },
            "vp"_a, "offset"_a)
        .def(
            "lapic_write",
            [](Machine &m, hv_vp_handle vp, uint32_t offset, uint32_t value) {
                hv_lapic_write(m.vp(vp), offset, value);
                m.leave();
            },
            "vp"_a, "offset"_a, "value"_a)
        .def(
            "read_cr8", [](Machine &m, hv_vp_handle vp) { return hv_lapic_read_cr8(m.vp(vp)); }, "vp"_a)
        .def(
            "write_cr8",
            [](Machine &m, hv_vp_handle vp, uint8_t value) {
                hv_lapic_write_cr8(m.vp(vp), value);
                m.leave();
            },
            "vp"_a, "value"_a)
        .def(
            "init_done",
            [](Machine &m, hv_vp_handle vp) {
                hv_vp_init_done(m.vp(vp));
                m.leave();
            },
            "vp"_a)
        .def(
            "schedule",
            [](Machine &m, unsigned lp, bool interrupted) {
                uint64_t slice = HV_NANO100_NEVER;
                const hv_vp *vp = hv_schedule(m.core(), lp, interrupted, &slice);
                m.leave();
                return py::make_tuple(vp ? py::cast(hv_vp_get_handle(vp)) : py::object(py::none()),
                                      slice == HV_NANO100_NEVER ? py::object(py::none()) : py::cast(slice));
            },
            "lp"_a, "interrupted"_a = false)
        .def(
            "stopped",
            [](Machine &m, hv_vp_handle vp) {
                hv_stopped(m.vp(vp));
                m.leave();
            },
            "vp"_a)
        .def(
            "lp_has_work", [](Machine &m, unsigned lp) { return hv_lp_has_work(m.core(), lp); }, "lp"_a)
        .def(
            "lp_of", [](Machine &m, hv_vp_handle vp) { return hv_vp_get_lp(m.vp(vp)); }, "vp"_a)
        .def(
            "handle",
            [](Machine &m, uint64_t partition, hv_vp_index index) -> py::object {
                for (hv_vp_handle handle = 0; handle < HV_MAX_VPS; handle++) {
                    const hv_vp *vp = hv_get_vp_by_handle(m.core(), handle);
                    if (vp && hv_vp_get_partition_id(vp) == partition && hv_vp_get_index(vp) == index) {
                        return py::cast(handle);
                    }
                }
                return py::none();
            },
            "partition"_a, "vp_index"_a);
}

/* -- Records -- */

static void add_child_records(py::class_<Machine> &type)
{
    type.def_property_readonly("kicks", [](const Machine &m) { return m.child_records.kicks; })
        .def_property_readonly("lp_kicks", [](const Machine &m) { return m.child_records.lp_kicks; })
        .def_property_readonly("creations", [](const Machine &m) { return m.child_records.creations; })
        .def_property_readonly("vp_resets", [](const Machine &m) { return m.child_records.resets; })
        .def_property_readonly("lines",
                               [](const Machine &m) {
                                   py::list list;
                                   for (const auto &line : m.child_records.lines) {
                                       list.append(py::make_tuple(line.vp, member("Line", line.line), line.raised));
                                   }
                                   return list;
                               })
        .def_property_readonly("starts",
                               [](const Machine &m) {
                                   py::list list;
                                   for (const auto &start : m.child_records.starts) {
                                       list.append(py::make_tuple(start.vp, start.vector));
                                   }
                                   return list;
                               })
        .def_property_readonly("second_stage_flushes",
                               [](const Machine &m) {
                                   py::list list;
                                   for (const auto &flush : m.child_records.second_stage_flushes) {
                                       list.append(py::make_tuple(flush.caller, flush.vps));
                                   }
                                   return list;
                               })
        .def_property_readonly("admissions", [](const Machine &m) {
            py::list list;
            for (const auto &a : m.child_records.admissions) {
                list.append(py::dict("what"_a = unsigned(a.what), "parent"_a = a.parent, "partition"_a = a.partition,
                                     "depth"_a = a.depth, "partitions"_a = a.partitions, "vps"_a = a.vps,
                                     "privileges"_a = a.privileges, "mapped_pages"_a = a.mapped_pages,
                                     "promised_pages"_a = a.promised_pages));
            }
            return list;
        });
}

/* -- The operator's view of the tree -- */

static py::list partitions(Machine &machine)
{
    std::vector<hv_partition_info> infos(hv_list_partitions(machine.core(), nullptr, 0));
    infos.resize(hv_list_partitions(machine.core(), infos.data(), infos.size()));
    machine.leave();
    py::list list;
    for (const auto &info : infos) {
        list.append(py::dict(
            "id"_a = info.id, "parent"_a = info.parent, "depth"_a = info.depth, "name"_a = std::string(info.name),
            "state"_a = unsigned(info.state), "vp_count"_a = info.vp_count, "privileges"_a = info.privileges,
            "pages_available"_a = info.pages_available, "pages_in_use"_a = info.pages_in_use,
            "mapped_pages"_a = info.mapped_pages, "page_limit"_a = info.page_limit, "paused"_a = info.paused));
    }
    return list;
}

static void add_tree(py::class_<Machine> &type)
{
    type.def("partitions", &partitions)
        .def(
            "operator_delete_partition",
            [](Machine &m, uint64_t partition) {
                hv_progress progress = hv_operator_delete_partition(m.core(), partition);
                m.leave();
                return unsigned(progress);
            },
            "partition"_a)
        .def(
            "operator_pause_partition",
            [](Machine &m, uint64_t partition, bool pause) {
                bool found = hv_operator_pause_partition(m.core(), partition, pause);
                m.leave();
                return found;
            },
            "partition"_a, "pause"_a);
}

void add_children(py::class_<Machine> &type)
{
    add_tree(type);
    add_processors(type);
    add_transfers(type);
    add_exits(type);
    add_running(type);
    add_child_records(type);
}

} // namespace qemu_hv
