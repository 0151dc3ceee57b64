# SPDX-License-Identifier: GPL-2.0-or-later
"""``docs/status.md``: what of the interface works, made from the tables of the core.

``python -m qemu_hv.status_page`` writes the page; with ``--check`` it only says whether the page in
the source tree is the one the tables make (exit status 1 when it is not, or when a row has no test).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from qemu_hv import generated_page, tables
from qemu_hv.row_tests import RowTests, cell, link_definitions

ROOT = Path(__file__).resolve().parent.parent
TABLES = ROOT / "csrc" / "hv" / "tlfs"
PAGE = ROOT / "docs" / "status.md"
STATS_TESTS = ROOT / "tests" / "core" / "test_stats.py"
GUEST_TESTS = [ROOT / "tests" / "guests" / "stats.c", ROOT / "tests" / "guests" / "root" / "statistics.c"]

# Chapters of the specification: (number, title, state, files of the core, files of its tests).
CHAPTERS = [
    ("2", "Data types, status codes", "done", "types.h, status.def", "test_status_table.py"),
    ("3", "Feature and interface discovery", "done", "discovery.c", "test_discovery.py"),
    ("4", "Hypercall interface", "done", "hypercall.c", "test_hypercall.py"),
    ("5", "Partition management", "done", "partition.c, property.c", "test_partition*.py"),
    ("6", "Physical hardware management", "done", "hardware.c, msr.c", "test_hardware.py"),
    ("7", "Resource management", "done", "memory_pool.c", "test_memory_pool.py"),
    ("8", "Guest physical address spaces", "done", "gpa_*.c", "test_gpa_space.py"),
    ("9", "Intercepts", "done", "intercept.c", "test_install_intercept.py"),
    ("10", "Virtual processor management", "done", "vp.c, vp_registers.c", "test_create_vp.py, test_vp_registers.py"),
    ("11", "Virtual processor execution", "done", "processor.c", "test_child_cpuid.py, test_child_msrs.py"),
    ("12", "Virtual MMU and caching", "done", "vmmu.c", "test_vmmu.py"),
    ("13", "Virtual interrupt control", "done but for SMI", "interrupt.c, lapic*.c", "test_lapic.py"),
    ("14", "Inter-partition communication", "done", "synic.c, port*.c, monitor.c", "test_ports_between_partitions.py"),
    ("15", "Timers", "done", "timer.c, timer_assist.c", "test_timer.py, test_emulated_timer.py"),
    ("16", "Message formats", "done", "message.c", "test_intercept_messages.py"),
    ("17", "Partition save and restore", "done", "save.c", "test_save_partition.py"),
    ("18", "Scheduler", "done but for virtual hyperthreads", "scheduler.c", "test_scheduler.py"),
    ("19", "Event logging", "done", "event_log*.c", "test_event_log.py, test_events.py"),
    ("20", "Guest debugging support", "done", "debug.c", "test_debug.py"),
    ("21", "Statistics", "done", "stats.c", "test_stats.py"),
    ("22", "Booting", "done", "boot.c", "test_root_boot.py"),
    ("23", "System properties", "done", "system_property.c", "test_system_property.py"),
]

# What differs with KVM (docs/architecture.md has the reasons), by chapter and by the name of a call or register.
KVM_CHAPTERS = {
    "4": "done; #GP, not #UD, at CPL 3",
    "8": "done but for execute rights; ranges are limited",
    "9": "done but for CPUID and exceptions",
    "11": "done; CPUID stays once a VP has run",
    "13": "done but for SMI; auto-EOI with kernel-irqchip=off",
    "19": "done; RIP is the one that QEMU knew last",
    "20": "done; no CPUID leaves of the synthetic debugger",
    "21": "done; no events that TCG tells of",
}
KVM_NAMES = {
    "HvInstallIntercept": "I/O and MSRs",
    "EOI": "kernel-irqchip=off",
    "ICR": "kernel-irqchip=off",
    "TPR": "kernel-irqchip=off",
    "APIC_ASSIST_PAGE": "kernel-irqchip=off",
    "TSC_INVARIANT_CONTROL": "no; -cpu +invtsc",
}

GENERATIONS = {
    "HV_GEN_ALL": "both",
    "HV_GEN_2008R2": "2008r2",
    "HV_GEN_CURRENT": "current",
}


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return [*lines, ""]


def _works(implemented: bool) -> str:
    return "yes" if implemented else "**missing**"


def _works_on_kvm(name: str, implemented: bool) -> str:
    return KVM_NAMES.get(name, "yes") if implemented else _works(implemented)


def _chapter_row(chapter: tuple[str, ...]) -> list[str]:
    number, title, state, core, tests = chapter
    return [number, title, state, KVM_CHAPTERS.get(number, state), core, tests]


def _gate(gate: str) -> str:
    return "" if gate == "NONE" else gate.split("_", 1)[1]


def _form(call: tables.Hypercall) -> str:
    form = "rep" if call.kind == "REP" else "simple"
    fast = {"SLOW": "", "FAST": ", fast", "XMM": ", fast with XMM"}[call.fast]
    return form + fast


def _hypercall_row(call: tables.Hypercall, tests: RowTests) -> list[str]:
    needs = [_gate(call.gate), call.relation.lower().replace("_", " ")]
    return [
        f"0x{call.code:04X}",
        call.name,
        _form(call),
        GENERATIONS[call.generations],
        ", ".join(n for n in needs if n and n != "none"),
        call.section,
        _works(call.implemented),
        _works_on_kvm(call.name, call.implemented),
        cell(tests.of_hypercall(call)),
    ]


def _msr_row(msr: tables.Msr, tests: RowTests) -> list[str]:
    last = msr.index + msr.count - 1
    index = f"0x{msr.index:08X}" + (f"..{last & 0xFF:02X}" if msr.count > 1 else "")
    return [
        index,
        f"HV_X64_MSR_{msr.name}",
        msr.access,
        msr.scope.lower() if msr.scope == "PARTITION" else "VP",
        _gate(msr.gate),
        GENERATIONS[msr.generations],
        msr.section,
        _works(msr.implemented),
        _works_on_kvm(msr.name, msr.implemented),
        cell(tests.of_msr(msr)),
    ]


def _message_row(message: tables.Message, tests: RowTests) -> list[str]:
    name = f"HvMessageType{message.name}"
    files = "never sent" if message.never else cell(tests.of_message(message))
    sent = f"**missing**: {message.never}" if message.never else "yes"
    return [f"0x{message.value:08X}", name, GENERATIONS[message.generations], sent, files]


def _register_row(register: tables.Register, tests: RowTests) -> list[str]:
    keeper = {"CORE": "hypervisor", "PLATFORM": "processor"}.get(register.keeper, _works(False))
    name, interface = register.name, GENERATIONS[register.generations]
    return [f"0x{register.code:08X}", name, str(register.size), keeper, interface, cell(tests.of_register(register))]


def _event_row(event: tables.Event) -> list[str]:
    name = f"HV_TR_{event.name}" if event.number < 0x8000 else event.name
    works = "yes" if event.raised else "never"
    return [f"0x{event.number:04X}", name, event.group, ", ".join(event.fields), works, event.text]


def _statistic_row(counter: tables.Statistic) -> list[str]:
    return [
        counter.group,
        str(counter.index),
        counter.name,
        counter.unit or {"COUNT": "events", "LEVEL": ""}.get(counter.kind, ""),
        counter.by.lower(),
        GENERATIONS[counter.generations],
        counter.what,
        _tests_of(counter),
    ]


def _tests_of(counter: tables.Statistic) -> str:
    """The tests that move a counter: those that name its symbol."""
    if counter.by == "NEVER":
        return "always 0"
    symbol = counter.symbol[: -len("Cost")] if counter.symbol.endswith("Cost") else counter.symbol
    quoted = re.compile(f'"{counter.symbol}"|{{?"{symbol}(Cost)?"')
    names = [name for name, text in _functions(STATS_TESTS) if quoted.search(text)]
    if not names and counter.symbol.endswith("Hypercalls"):
        names = ["test_hypercalls_by_kind"]
    if not names and counter.by == "PLATFORM":
        names = ["test_events_of_the_platform"]
    if not names and counter.symbol.endswith("Cost"):
        names = ["test_hypercall_cost"]
    guests = [f"*{path.name}*: {check}" for path in GUEST_TESTS for check in _checks_of(path, counter.group, symbol)]
    return ", ".join(names[:3] + guests[:3])


def _checks_of(path: Path, group: str, symbol: str) -> list[str]:
    """A guest's checks that name a counter, in their text or in a table that is above it."""
    text = path.read_text("utf-8")
    parts = re.split(r"^CHECK\((\w+)", text[text.index("CHECK(") :], flags=re.MULTILINE)
    named = re.compile(rf"\bHV_{group}_{symbol}\b")
    found = [check for check, body in zip(parts[1::2], parts[2::2]) if named.search(body.partition("\n}")[0])]
    return found or [check for table, check in _TABLES.items() if named.search(_table_of(text, table))]


_TABLES = {"programs": "events", "calls": "hypercalls"}
"""Tables of root/statistics.c and the checks that go through them."""


def _table_of(text: str, name: str) -> str:
    """The text of a table of a guest's, which may have none."""
    found = re.search(rf"}} {name}\[\] = {{(.*?)^}};", text, flags=re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def _functions(path: Path) -> list[tuple[str, str]]:
    """Names and texts of a file's test functions."""
    parts = re.split(r"^def (test_\w+)", path.read_text("utf-8"), flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2]))


def _bit_rows(table: str, registers: dict[range, str]) -> list[list[str]]:
    rows = []
    for bit in tables.bits(TABLES, table):
        register = next(name for span, name in registers.items() if bit.bit in span)
        rows.append(
            [
                f"{register} {bit.bit % 32}",
                bit.name,
                f"`{bit.property}`",
                GENERATIONS[bit.generations],
                *("on" if default else "off" for default in (bit.guest_default, bit.root_default, bit.child_default)),
            ]
        )
    return rows


def rows_with_tests() -> dict[str, list[list[str]]]:
    """Rows of the tables whose last column has their tests, by what they are."""
    tests = RowTests()
    return {
        "hypercall": [_hypercall_row(call, tests) for call in tables.hypercalls(TABLES)],
        "MSR": [_msr_row(msr, tests) for msr in tables.msrs(TABLES)],
        "message": [_message_row(message, tests) for message in tables.messages(TABLES) if message.value],
        "register": [_register_row(register, tests) for register in tables.registers(TABLES)],
        "counter": [_statistic_row(counter) for counter in tables.statistics(TABLES)],
    }


def untested(rows: dict[str, list[list[str]]]) -> list[str]:
    """Which rows have no test, in words."""
    return [f"{kind} {' '.join(row[:3])} has no test" for kind, table in rows.items() for row in table if not row[-1]]


def page(rows: dict[str, list[list[str]]]) -> str:
    """The page's text, with these rows."""
    calls = tables.hypercalls(TABLES)
    done = sum(call.implemented for call in calls)
    lines = [
        "# Status",
        "",
        "Made by `python -m qemu_hv.status_page` from `csrc/hv/tlfs/*.def`; CI checks that it is current.",
        "",
        "With `-accel tcg` and with `-accel kvm`. A call marked missing answers HV_STATUS_INVALID_HYPERCALL_CODE after",
        "the checks that come before it, so HV_STATUS_ACCESS_DENIED where the caller lacks the privilege or the",
        "relation; an MSR marked missing is #GP; a message marked missing is never sent.",
        "",
        "## Chapters",
        "",
        "Which test covers which section: [coverage.md](coverage.md).",
        "",
        *_table(["chapter", "title", "TCG", "KVM", "csrc/hv", "tests/core"], [_chapter_row(c) for c in CHAPTERS]),
        f"## Hypercalls ({done} of {len(calls)} rows)",
        "",
        "Besides the tests in the last column, [core/test_hypercall.py] goes through all calls of the specification:",
        "form, sizes, privilege, relation to the partition.",
        "",
        *_table(
            ["code", "name", "form", "interface", "needs", "TLFS", "TCG", "KVM", "tests"],
            rows["hypercall"],
        ),
        "## Synthetic MSRs",
        "",
        "Besides, [core/test_msr.py] goes through all of them: access, privilege or feature, interface.",
        "",
        *_table(
            ["index", "name", "access", "scope", "needs", "interface", "TLFS", "TCG", "KVM", "tests"],
            rows["MSR"],
        ),
        "## Messages",
        "",
        *_table(["type", "name", "interface", "sent", "tests"], rows["message"]),
        "## Registers",
        "",
        "Of a virtual processor (TLFS 11.2), with the bytes that mean something, and who keeps them.",
        "[core/test_vp_registers.py] reads and writes each: values, reserved bits, access.",
        "",
        *_table(["name's code", "name", "bytes", "kept by", "interface", "tests"], rows["register"]),
        "## Events",
        "",
        "What the event log has (TLFS appendix I), and events of this hypervisor, from 0x8000 on, for the operator.",
        "",
        *_table(
            ["type", "name", "group", "values", "works", "meaning, or why it never happens"],
            [_event_row(event) for event in tables.events(TABLES)],
        ),
        "## What objects cost",
        "",
        "Pages of a memory pool (TLFS 7.1.1); a call that creates an object answers HV_STATUS_INSUFFICIENT_MEMORY",
        "when its pool has fewer that are free.",
        "",
        *_table(["object", "pages"], [[cost.meaning, str(cost.pages)] for cost in tables.costs(TABLES)]),
        "## Statistics counters",
        "",
        'TLFS appendix J, by group and index. A name with "/sec" is a number since the object was made. Counted by the',
        "core; by the platform too, where TCG does without the core (not with KVM); or never, for the reason given.",
        "Tests are in [core/test_stats.py] and, with the program in italics, in [guests/stats.c] and",
        "[guests/root/statistics.c].",
        "",
        *_table(
            ["group", "index", "name", "unit", "by", "interface", "counts", "tests"],
            rows["counter"],
        ),
        "## CPUID",
        "",
        "Leaves 0x40000000 to 0x40000006 are there; those above answer 0. Leaf 1 ECX bit 31 is set.",
        "",
        "Privileges, leaf 0x40000003 (each can be switched by its property), with what the machine's partition has by",
        "default with role=guest and role=root, and a child that its parent has given nothing:",
        "",
        *_table(
            ["bit", "name", "property", "interface", "guest", "root", "child"],
            _bit_rows("privileges", {range(32): "EAX", range(32, 64): "EBX"}),
        ),
        "Features, leaf 0x40000003:",
        "",
        *_table(
            ["bit", "name", "property", "interface", "guest", "root", "child"],
            _bit_rows("features", {range(32): "EDX"}),
        ),
        "Recommendations, leaf 0x40000004:",
        "",
        *_table(
            ["bit", "name", "property", "interface", "guest", "root", "child"],
            _bit_rows("recommendations", {range(32): "EAX"}),
        ),
    ]
    return "\n".join([*lines, *link_definitions(lines)]) + "\n"


def main() -> int:
    """Write or check the page; rows without a test are an error either way."""
    rows = rows_with_tests()
    missing = untested(rows)
    print("".join(line + "\n" for line in missing), end="", file=sys.stderr)
    return generated_page.main(PAGE, page(rows), __doc__) or bool(missing)


if __name__ == "__main__":
    sys.exit(main())
