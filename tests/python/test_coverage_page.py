# SPDX-License-Identifier: GPL-2.0-or-later
"""The page about coverage is the one that the tests' citations make."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qemu_hv import coverage_page, status_page, tables

KNOWN = [section.number for section in tables.sections(coverage_page.TABLES)]


def test_page_is_current() -> None:
    assert coverage_page.PAGE.read_text(encoding="utf-8") == coverage_page.render(), (
        "run python -m qemu_hv.coverage_page"
    )


def test_sections() -> None:
    """In order, each once, below a section that is there, of a kind that is explained."""
    keys = [tuple(int(part) for part in number.split(".")) for number in KNOWN]
    assert keys == sorted(set(keys))
    assert {key[:-1] for key in keys if len(key) > 1} <= set(keys)
    kinds = {section.kind for section in tables.sections(coverage_page.TABLES)}
    text = (coverage_page.TABLES / "sections.def").read_text(encoding="utf-8")
    assert kinds == set(re.findall(r"^ \* {3}(?:kind| {4}) {2,}([A-Z]+)", text, re.MULTILINE))


def test_no_chapter_is_left_out() -> None:
    chapters = [s.number for s in tables.sections(coverage_page.TABLES) if s.kind == "CHAPTER"]
    assert chapters == [chapter[0] for chapter in status_page.CHAPTERS]


def test_no_section_is_untested() -> None:
    """Sections with rules that no test cites."""
    sections = tables.sections(coverage_page.TABLES)
    cited = coverage_page.citations(KNOWN)
    assert [s.number for s in sections if s.kind == "RULES" and not cited[s.number].files] == []


@pytest.mark.parametrize(
    "text, sections",
    [
        ("TLFS 14.9.7: sixteen buffers", ["14.9.7"]),
        ("as TLFS 8.3.1 to 8.3.3 say", ["8.3.1", "8.3.2", "8.3.3"]),
        ("TLFS 4.6, 4.7.1 and 11.8: pages", ["4.6", "4.7.1", "11.8"]),
        ("TLFS 4.6, 64 elements and 3 more", ["4.6"]),
        ("(TLFS chapters 9 and 16)", ["9", "16"]),
        ("Chapter 13.2 of the TLFS", ["13.2"]),
        ("TLFS\n    5.2.3: wrapped", ["5.2.3"]),
        ("/* TLFS 5.2.3,\n * 5.2.4 */", ["5.2.3", "5.2.4"]),
        ("TLFS 99.1, appendix B", []),
        ("8.3.1 without the name", []),
    ],
)
def test_citations(text: str, sections: list[str]) -> None:
    """What is cited by name, with ranges, over the ends of lines; numbers that are no sections are not."""
    assert coverage_page.cited_sections(text, KNOWN) == sections


PYTHON = '''"""TLFS 2.2: a module."""
# -- 4.6, 4.7 A part --


@parametrize(
    # TLFS 5.4
    "x"
)
def test_one():
    """TLFS 5.2.1."""


# TLFS 5.3: above
def test_two():
    pass  # TLFS 5.5


def helper():
    """TLFS 6.4.1: only tests count."""


class Model:
    """TLFS 7.3.1."""
'''

GUEST = """/* TLFS 2.2: a file. */
CHECK(one, "5.2.1, 5.2.3 to 5.2.5: "
           "something", .min_vps = 2)
{
    /* TLFS 5.3 */
}

/* TLFS 5.4: between */
CHECK(two, "later")
{
}
"""


def test_who_cites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests by name, parts and modules as files, in both languages."""
    for path, text in (("core/test_x.py", PYTHON), ("guests/x.c", GUEST), ("guests/lib/y.c", GUEST)):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    monkeypatch.setattr(coverage_page, "TESTS", tmp_path)
    found = {number: by.files for number, by in coverage_page.citations(KNOWN).items() if by.files}
    python, guest = "core/test_x.py", "guests/x.c"
    assert found == {
        "2.2": {python: [], guest: []},
        "4.6": {python: []},
        "4.7": {python: []},
        "5.2.1": {python: ["test_one"], guest: ["one"]},
        "5.2.3": {guest: ["one"]},
        "5.2.4": {guest: ["one"]},
        "5.2.5": {guest: ["one"]},
        "5.3": {python: ["test_two"], guest: ["one"]},
        "5.4": {python: ["test_one"], guest: []},
        "5.5": {python: ["test_two"]},
        "7.3.1": {python: ["Model"]},
    }
