# SPDX-License-Identifier: GPL-2.0-or-later
"""``docs/coverage.md``: which tests cover which section of the specification, from what the tests cite.

``python -m qemu_hv.coverage_page`` writes the page; with ``--check`` it only says whether the page in the source tree
is the one the tests make (exit status 1 when it is not).

A citation is "TLFS" and section numbers, or "Chapter 12 of the TLFS", in the docstring of a test or in a comment in it
or just above it; in a docstring of a module or in a comment that heads a part of it ("# -- 4.6 Alignment --"), it is
the whole file's. The checks of guests have theirs as an argument of CHECK().
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from qemu_hv import generated_page, tables

__all__ = ["Citations", "citations", "cited_sections", "render", "test_files"]

ROOT = Path(__file__).resolve().parent.parent
TABLES = ROOT / "csrc" / "hv" / "tlfs"
PAGE = ROOT / "docs" / "coverage.md"
TESTS = ROOT / "tests"

_NUMBER = r"\d+(?:\.\d+)*"
_LIST = rf"{_NUMBER}(?:(?:,? (?:and|or|to) |, ){_NUMBER})*"
_CITATION = re.compile(rf"TLFS (?:chapters? |sections? )?({_LIST})|[Cc]hapters? ({_LIST}) of the TLFS")
_HEADING = re.compile(r"^# -- .* --$")
_IN_HEADING = re.compile(r"\d+(?:\.\d+)+(?: to \d+(?:\.\d+)+)?")
_CHECK = re.compile(r'^CHECK\((\w+),\s*((?:"[^"]*"\s*)+)', re.MULTILINE)
_C_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_NAMES_SHOWN = 4

_INTRODUCTION = """\
# Tests by section of the specification

Made by `python -m qemu_hv.coverage_page` from `csrc/hv/tlfs/sections.def` and what the tests cite; CI checks that it is
current. What works of each chapter: [status.md](status.md).

A file alone cites the section for a part of it or as a whole, one with names in the docstrings or comments of these
tests. `-` marks sections without rules of their own, **none** rules without a test.
"""


@dataclass
class Citations:
    """Who cites one section: names of tests by file, in the order of the files; no names: the file itself."""

    files: dict[str, list[str]] = field(default_factory=dict)

    def add(self, file: str, name: str | None) -> None:
        """Count a citation once."""
        names = self.files.setdefault(file, [])
        if name is not None and name not in names:
            names.append(name)


def _key(number: str) -> tuple[int, ...]:
    return tuple(int(part) for part in number.split("."))


def _range(first: str, last: str, known: list[str]) -> list[str]:
    depth = first.count(".")
    return [n for n in known if n.count(".") == depth and _key(first) <= _key(n) <= _key(last)]


def _expand(text: str, known: list[str]) -> list[str]:
    found: list[str] = []
    for item in re.split(r",? (?:and|or) |, ", text):
        first, _, last = item.partition(" to ")
        found += _range(first, last, known) if last else [first]
    return found


def cited_sections(text: str, known: list[str]) -> list[str]:
    """Return the known sections that a text cites after "TLFS", ranges with all that is between."""
    plain = re.sub(r"\s*\n\s*(?:#|\*(?!/)|//)?\s*", " ", text)
    found = [number for match in _CITATION.finditer(plain) for number in _expand(match[1] or match[2], known)]
    return [number for number in found if number in known]


# -- Python --


def _tests_of(tree: ast.Module) -> list[tuple[int, int, str]]:
    """First line, last line and name of each test; a comment just above one is inside."""
    spans = []
    for node in ast.walk(tree):
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            continue
        if node.name.startswith("test_") or isinstance(node, ast.ClassDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            spans.append((first, node.end_lineno or first, node.name))
    return sorted(spans)


def _name_at(line: int, spans: list[tuple[int, int, str]]) -> str | None:
    at = bisect_right(spans, (line, sys.maxsize, ""))
    inside = [span for span in spans[:at] if span[0] <= line <= span[1]]
    return inside[-1][2] if inside else None


def _python_texts(source: str) -> Iterator[tuple[str | None, str]]:
    """Docstrings and comments, with the test they belong to."""
    tree = ast.parse(source)
    spans = _tests_of(tree)
    yield None, ast.get_docstring(tree) or ""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            name = _name_at(node.lineno, spans)
            if name is not None:
                yield name, ast.get_docstring(node) or ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            name = _name_at(token.start[0], spans) or _name_at(token.start[0] + 1, spans)
            if name is not None:
                yield name, token.string
            elif _HEADING.match(token.string):
                yield None, " ".join(f"TLFS {number}" for number in _IN_HEADING.findall(token.string))


# -- C --


def _c_texts(source: str) -> Iterator[tuple[str | None, str]]:
    """What CHECK() cites, and comments, with the check they are in."""
    checks = [(match.start(), match[1]) for match in _CHECK.finditer(source)]
    for match in _CHECK.finditer(source):
        yield match[1], "TLFS " + re.sub(r'"\s*"|"', "", match[2])
    for comment in _C_COMMENT.finditer(source):
        at = bisect_right(checks, (comment.start(), "")) - 1
        inside = at >= 0 and "\n}" not in source[checks[at][0] : comment.start()]
        yield checks[at][1] if inside else None, comment[0]


# -- All --


def test_files() -> Iterator[Path]:
    """Files of tests that a section or a row of a table may have."""
    for folder in ("core", "guests", "qmp", "boot", "hostile"):
        yield from sorted((TESTS / folder).rglob("test_*.py"))
    for path in sorted((TESTS / "guests").rglob("*.c")):
        if not {"lib", "runtime", "loader"} & set(path.relative_to(TESTS).parts):
            yield path


def citations(known: list[str]) -> dict[str, Citations]:
    """Who cites which of the known sections."""
    found = {number: Citations() for number in known}
    for path in test_files():
        texts = _python_texts if path.suffix == ".py" else _c_texts
        for name, text in texts(path.read_text(encoding="utf-8")):
            for number in cited_sections(text, known):
                found[number].add(str(path.relative_to(TESTS)), name)
    return found


def _describe(found: Citations) -> str:
    parts = []
    for file, names in found.files.items():
        shown = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
        parts.append(f"{file}: {shown}" if names else file)
    return "; ".join(parts)


def _row(section: tables.Section, found: Citations) -> str:
    text = _describe(found)
    if section.kind == "MISSING":
        text = f"not implemented; {text}" if text else "not implemented"
    empty = {"TEXT": "-", "RULES": "**none**"}.get(section.kind, "")
    return f"| {section.number} | {section.title} | {text or empty} |"


def render() -> str:
    """The page's text."""
    sections = tables.sections(TABLES)
    found = citations([section.number for section in sections])
    with_rules = [section for section in sections if section.kind == "RULES"]
    covered = sum(bool(found[section.number].files) for section in with_rules)
    lines = [_INTRODUCTION, f"Of {len(with_rules)} sections with rules, tests cover {covered}."]
    for section in sections:
        if section.kind == "CHAPTER":
            lines += ["", f"## {section.number} {section.title}", ""]
            whole = _describe(found[section.number])
            lines += [f"As a whole: {whole}.", ""] if whole else []
            lines += ["| section | title | tests |", "|---|---|---|"]
        else:
            lines.append(_row(section, found[section.number]))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(generated_page.main(PAGE, render(), __doc__))
