/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tables.hpp"

#include <initializer_list>
#include <utility>

#include "core.hpp"

namespace py = pybind11;

namespace qemu_hv
{

using Members = std::initializer_list<std::pair<const char *, uint64_t>>;

static const Members status_members = {
#define HV_STATUS_ROW(value, name, generations) {#name, value},
#include "tlfs/status.def"
#undef HV_STATUS_ROW
};

static const Members privilege_members = {
#define HV_PRIVILEGE_ROW(bit, name, property, generations, ...) {#name, bit},
#include "tlfs/privileges.def"
#undef HV_PRIVILEGE_ROW
};

static const Members feature_members = {
#define HV_FEATURE_ROW(bit, name, property, generations, guest_default) {#name, bit},
#include "tlfs/features.def"
#undef HV_FEATURE_ROW
};

static const Members recommendation_members = {
#define HV_RECOMMENDATION_ROW(bit, name, property, generations, guest_default) {#name, bit},
#include "tlfs/recommendations.def"
#undef HV_RECOMMENDATION_ROW
};

static const Members msr_members = {
#define HV_MSR_ROW(index, count, name, ...) {#name, index},
#include "tlfs/msrs.def"
#undef HV_MSR_ROW
};

static const Members message_type_members = {
#define HV_MESSAGE_TYPE_ROW(value, name, ...) {#name, value},
#include "tlfs/message_types.def"
#undef HV_MESSAGE_TYPE_ROW
};

static const Members register_members = {
#define HV_REGISTER_ROW(code, name, symbol, size, keeper, generations) {#symbol, code},
#include "tlfs/registers.def"
#undef HV_REGISTER_ROW
};

static const Members translation_members = {{"RAM", HV_TRANSLATION_RAM},       {"OVERLAY", HV_TRANSLATION_OVERLAY},
                                            {"APIC", HV_TRANSLATION_APIC},     {"UNMAPPED", HV_TRANSLATION_UNMAPPED},
                                            {"DENIED", HV_TRANSLATION_DENIED}, {"FAULT", HV_TRANSLATION_FAULT},
                                            {"CHECK", HV_TRANSLATION_CHECK}};

static const Members line_members = {{"INTERRUPT", HV_LINE_INTERRUPT}, {"NMI", HV_LINE_NMI}, {"INIT", HV_LINE_INIT}};

static const Members progress_members = {
    {"DONE", HV_PROGRESS_DONE}, {"WAIT", HV_PROGRESS_WAIT}, {"FAILED", HV_PROGRESS_FAILED}};

static const Members exit_members = {
    {"DONE", HV_EXIT_DONE}, {"RETRY", HV_EXIT_RETRY}, {"IDLE", HV_EXIT_IDLE},           {"UD", HV_EXIT_UD},
    {"GP", HV_EXIT_GP},     {"MC", HV_EXIT_MC},       {"INTERCEPT", HV_EXIT_INTERCEPT}, {"NATIVE", HV_EXIT_NATIVE}};

static const Members overlay_members = {{"HYPERCALL", HV_OVERLAY_HYPERCALL},
                                        {"REFERENCE_TSC", HV_OVERLAY_REFERENCE_TSC},
                                        {"APIC_ASSIST", HV_OVERLAY_APIC_ASSIST},
                                        {"SIEF", HV_OVERLAY_SIEF},
                                        {"SIM", HV_OVERLAY_SIM},
                                        {"STATS_PARTITION_RETAIL", HV_OVERLAY_STATS_MSR},
                                        {"STATS_PARTITION_INTERNAL", HV_OVERLAY_STATS_MSR + 1},
                                        {"STATS_VP_RETAIL", HV_OVERLAY_STATS_MSR + 2},
                                        {"STATS_VP_INTERNAL", HV_OVERLAY_STATS_MSR + 3},
                                        {"STATS_OWN_PARTITION", HV_OVERLAY_STATS_OWN_PARTITION},
                                        {"STATS_OWN_VP", HV_OVERLAY_STATS_OWN_VP}};

static const Members port_type_members = {
    {"MESSAGE", HV_PORT_TYPE_MESSAGE}, {"EVENT", HV_PORT_TYPE_EVENT}, {"MONITOR", HV_PORT_TYPE_MONITOR}};

static void add_enum(py::module_ &module, const char *name, const Members &members, const char *doc)
{
    py::dict values;
    for (const auto &[key, value] : members) {
        values[key] = value;
    }
    py::object type = py::module_::import("enum").attr("IntEnum")(name, values, py::arg("module") = "qemu_hv._core");
    type.attr("__doc__") = doc;
    module.attr(name) = type;
}

/* Bit to the name that an operator switches it by, and to the bits of the generations that have it. */
static void add_properties(py::module_ &module)
{
    struct Property {
        const char *table, *name;
        unsigned bit, generations;
    };
    static const Property rows[] = {
#define HV_PRIVILEGE_ROW(bit, name, property, generations, ...) {"privilege", property, bit, generations},
#include "tlfs/privileges.def"
#undef HV_PRIVILEGE_ROW
#define HV_FEATURE_ROW(bit, name, property, generations, guest_default) {"feature", property, bit, generations},
#include "tlfs/features.def"
#undef HV_FEATURE_ROW
#define HV_RECOMMENDATION_ROW(bit, name, property, generations, guest_default)                                         \
    {"recommendation", property, bit, generations},
#include "tlfs/recommendations.def"
#undef HV_RECOMMENDATION_ROW
    };
    py::list list;
    for (const Property &row : rows) {
        list.append(py::make_tuple(row.table, row.name, row.bit, row.generations));
    }
    module.attr("property_rows") = py::tuple(list);
}

static void add_hypercall_rows(py::module_ &module)
{
    using Row = hv_hypercall_row_info;
    py::class_<Row>(module, "HypercallRow", "A row of the core's hypercall table (TLFS appendix B). Sizes in bytes.")
        .def_readonly("code", &Row::code)
        .def_readonly("name", &Row::name)
        .def_readonly("section", &Row::section)
        .def_readonly("generations", &Row::generations)
        .def_readonly("rep", &Row::rep)
        .def_readonly("fast", &Row::fast)
        .def_readonly("xmm", &Row::xmm)
        .def_readonly("variable", &Row::variable)
        .def_readonly("implemented", &Row::implemented)
        .def_readonly("gate", &Row::gate)
        .def_readonly("input", &Row::input)
        .def_readonly("input_element", &Row::input_element)
        .def_readonly("output", &Row::output)
        .def_readonly("output_element", &Row::output_element)
        .def("__repr__", [](const Row &row) { return std::string("<HypercallRow ") + row.name + ">"; });
    py::list rows;
    for (const Row &row : hv_hypercall_rows) {
        rows.append(py::cast(row));
    }
    module.attr("hypercall_rows") = py::tuple(rows);
}

static void add_msr_rows(py::module_ &module)
{
    using Row = hv_msr_row_info;
    py::class_<Row>(module, "MsrRow", "A row of the core's MSR table (TLFS appendix H).")
        .def_readonly("index", &Row::index)
        .def_readonly("count", &Row::count)
        .def_readonly("name", &Row::name)
        .def_readonly("section", &Row::section)
        .def_readonly("generations", &Row::generations)
        .def_readonly("readable", &Row::readable)
        .def_readonly("writable", &Row::writable)
        .def_readonly("per_vp", &Row::per_vp)
        .def_readonly("implemented", &Row::implemented)
        .def_readonly("privilege", &Row::privilege)
        .def_readonly("feature", &Row::feature)
        .def("__repr__", [](const Row &row) { return std::string("<MsrRow ") + row.name + ">"; });
    py::list rows;
    for (const Row &row : hv_msr_rows) {
        rows.append(py::cast(row));
    }
    module.attr("msr_rows") = py::tuple(rows);
}

void add_tables(py::module_ &module)
{
    add_enum(module, "Status", status_members, "Hypercall status codes (TLFS appendix C).");
    add_enum(module, "Privilege", privilege_members, "Bits of a partition's privilege mask (TLFS 5.2.3).");
    add_enum(module, "Feature", feature_members, "Bits of CPUID 0x40000003 EDX (TLFS 3.4).");
    add_enum(module, "Recommendation", recommendation_members, "Bits of CPUID 0x40000004 EAX (TLFS 3.4).");
    add_enum(module, "Msr", msr_members, "First index of each synthetic MSR or family of them (TLFS appendix H).");
    add_enum(module, "MessageType", message_type_members, "Types of messages that the hypervisor sends (TLFS 14.8.2).");
    add_enum(module, "Exit", exit_members, "How a trapped instruction ends.");
    add_enum(module, "Register", register_members, "Names of a VP's registers (TLFS 11.2).");
    add_enum(module, "Translation", translation_members, "What a GPA leads to (TLFS chapter 8).");
    add_enum(module, "Line", line_members, "Lines of a child VP's processor.");
    add_enum(module, "Progress", progress_members, "How a platform function that may take long went.");
    add_enum(module, "OverlayKind", overlay_members, "Overlay pages (TLFS 8.1.3).");
    add_enum(module, "PortType", port_type_members, "Types of ports (TLFS 14.8.6).");
    add_properties(module);
    add_hypercall_rows(module);
    add_msr_rows(module);
    module.attr("GENERATIONS") =
        py::dict(py::arg("2008r2") = unsigned(HV_GEN_2008R2), py::arg("current") = unsigned(HV_GEN_CURRENT));
    module.def("status_name", &hv_status_name, py::arg("status"),
               "The specification's name of a status code, or None when it has none.");
}

} // namespace qemu_hv
