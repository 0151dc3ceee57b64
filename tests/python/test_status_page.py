# SPDX-License-Identifier: GPL-2.0-or-later
"""The page about what works is the one that the tables and the tests make, and each row of it has a test."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from qemu_hv import coverage_page, generated_page, row_tests, status_page, tables
from qemu_hv.row_tests import RowTests, cell, link_definitions

Rows = dict[str, list[list[str]]]


@pytest.fixture(scope="module")
def rows() -> Rows:
    return status_page.rows_with_tests()


def test_page_is_current(rows: Rows) -> None:
    lines = generated_page.difference(status_page.PAGE, status_page.page(rows))
    assert not lines, "run python -m qemu_hv.status_page"


def test_every_row_has_a_test(rows: Rows) -> None:
    """Hypercalls, MSRs, messages, registers and counters; a failure says which has none."""
    assert [len(table) for table in rows.values()] == [
        len(tables.hypercalls(status_page.TABLES)),
        len(tables.msrs(status_page.TABLES)),
        len(tables.messages(status_page.TABLES)) - 1,
        len(tables.registers(status_page.TABLES)),
        len(tables.statistics(status_page.TABLES)),
    ]
    assert status_page.untested(rows) == []


def test_a_row_without_a_test_is_told(rows: Rows) -> None:
    call = [*rows["hypercall"][0][:-1], ""]
    assert status_page.untested({"hypercall": [rows["hypercall"][1], call]}) == [
        "hypercall 0x0001 HvSwitchVirtualAddressSpace simple, fast has no test"
    ]


def test_links_lead_to_files() -> None:
    text = status_page.PAGE.read_text(encoding="utf-8")
    links = dict(re.findall(r"^\[(.*)\]: (.*)$", text, re.MULTILINE))
    assert set(re.findall(r"\[([\w/]+\.(?:py|c))\]", text)) == set(links)
    for target in links.values():
        assert (status_page.PAGE.parent / target).is_file()


def test_cells_are_short() -> None:
    assert cell([]) == ""
    assert cell(["core/a.py", "guests/b.c", "c.py"]) == "[core/a.py], [guests/b.c], [c.py]"
    assert cell(["a.py", "b.py", "c.py", "d.py", "e.py"]) == "[a.py], [b.py], [c.py] and 2 more"
    assert link_definitions(["| [core/a.py], [x](y) |", "[core/a.py]"]) == ["[core/a.py]: ../tests/core/a.py"]


FILES = {
    "core/constants.py": "EOM = 0x40000084\nMAP_GPA_PAGES = 0x4B\n",
    "core/test_named.py": "from constants import EOM, MAP_GPA_PAGES\nMAP_GPA_PAGES, Register.Rax\n",
    "core/test_whole.py": "for register in Register:\n    pass\n",
    "core/test_leaf.py": '"""0x40000090, MAP_GPA_PAGES, Rax."""\ncpuid(0x40000080)\n',
    "core/test_cites.py": '"""TLFS 8.3.1."""\n"X64Sipi"\n',
    "guests/lib/names.h": "#define HV_LEAF_A 0x40000080u\n#define HV_MSR_SCONTROL 0x40000080u\n",
    "guests/a.c": "/* HV_MESSAGE_X64Sipi */ HV_LEAF_A; HV_MSR_SCONTROL; hvcall_map_gpa_pages(); // Rax\n",
    "guests/b.c": 'puts("Rax"); HV_LEAF_A; 0x40000095u; HV_MESSAGE_TIMER_EXPIRED; HV_REGISTER_Rbx;\n',
}


@pytest.fixture
def tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RowTests]:
    """Give what is found in FILES."""
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    monkeypatch.setattr(coverage_page, "TESTS", tmp_path)
    yield row_tests.RowTests()


def test_calls_are_found_by_name_and_citation(tests: RowTests) -> None:
    found = {call.name: tests.of_hypercall(call) for call in tables.hypercalls(status_page.TABLES)}
    assert {name: files for name, files in found.items() if files} == {
        "HvMapGpaPages": ["core/test_cites.py", "core/test_named.py", "guests/a.c"]
    }


def test_msrs_are_found_by_index(tests: RowTests) -> None:
    """By a name that has it, or as a number that is not a CPUID leaf as well."""
    found = {msr.name: tests.of_msr(msr) for msr in tables.msrs(status_page.TABLES)}
    assert {name: files for name, files in found.items() if files} == {
        "EOM": ["core/test_named.py"],
        "SCONTROL": ["guests/a.c"],
        "SINT": ["guests/b.c"],
    }


def test_messages_are_found_by_name(tests: RowTests) -> None:
    found = {message.name: tests.of_message(message) for message in tables.messages(status_page.TABLES)}
    assert {name: files for name, files in found.items() if files} == {
        "X64Sipi": ["core/test_cites.py"],
        "TimerExpired": ["guests/b.c"],
    }


def test_registers_are_found_by_name_or_all_together(tests: RowTests) -> None:
    found = {register.symbol: tests.of_register(register) for register in tables.registers(status_page.TABLES)}
    assert found["Rax"] == ["core/test_named.py", "core/test_whole.py"]
    assert found["Rbx"] == ["guests/b.c", "core/test_whole.py"]
    assert found["Rcx"] == ["core/test_whole.py"]
