# SPDX-License-Identifier: GPL-2.0-or-later
"""Which files of tests exercise a row of the core's tables: those that use its name or its index, or cite its section.

A call is found by its name, in the forms that names of calls have; an MSR by its index; a message and a register of a
virtual processor by the name in the enumeration. A Python test uses a name as an identifier or as a string that has
nothing else in it, and the value of a constant that it imports from another module of its folder. Comments count for
citations only (see coverage_page).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from qemu_hv import coverage_page, tables

__all__ = ["RowTests", "cell", "link_definitions"]

_SHOWN = 3
_NOT_CODE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', re.DOTALL)
_NUMBER = re.compile(r"\b0x[0-9A-Fa-f]{8}(?=[uUlL]*\b)")
_MACRO = re.compile(r"^#define (\w+)\b.*?\b(0x[0-9A-Fa-f]{8})[uUlL]*\b", re.MULTILINE)
_WORD = re.compile(r"\w+")
_CPUID_LEAVES = {*range(0x40000000, 0x40000007), *range(0x40000080, 0x40000083)}
"""Numbers that are an MSR's index too: without a name they do not tell which."""


@dataclass(frozen=True)
class _File:
    """What a file uses: identifiers, numbers, and enumerations of the core that it goes through whole."""

    name: str
    words: frozenset[str]
    numbers: frozenset[int]
    enumerations: frozenset[str]


def _name(path: Path) -> str:
    return path.relative_to(coverage_page.TESTS).as_posix()


def _constants(tree: ast.Module) -> dict[str, int]:
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, int):
            found.update({target.id: node.value.value for target in node.targets if isinstance(target, ast.Name)})
    return found


@cache
def _constants_of(path: Path) -> dict[str, int]:
    """Constants of a module; none where there is no such module."""
    return _constants(ast.parse(path.read_text("utf-8"))) if path.exists() else {}


def _imported(node: ast.ImportFrom, folder: Path) -> Iterable[int]:
    """Values of the constants that come from a neighbouring module."""
    constants = _constants_of(folder / f"{node.module}.py")
    return (constants[alias.name] for alias in node.names if alias.name in constants)


def _whole(node: ast.AST) -> str:
    """The name that is gone through by "for ... in NAME", or taken whole by set(NAME)."""
    if isinstance(node, (ast.comprehension, ast.For)) and isinstance(node.iter, ast.Name):
        return node.iter.id
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "set" and node.args:
        return node.args[0].id if isinstance(node.args[0], ast.Name) else ""
    return ""


def _python_file(path: Path) -> _File:
    tree = ast.parse(path.read_text("utf-8"))
    words: set[str] = set()
    named, literal, whole = set(_constants(tree).values()), set(), set()
    for node in ast.walk(tree):
        whole.add(_whole(node))
        if isinstance(node, ast.Name):
            words.add(node.id)
        elif isinstance(node, ast.Attribute):
            words.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            named.update(_imported(node, path.parent))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            words.add(node.value)
        elif isinstance(node, ast.Constant) and isinstance(node.value, int):
            literal.add(node.value)
    return _File(_name(path), frozenset(words), frozenset(named | (literal - _CPUID_LEAVES)), frozenset(whole))


def _c_file(path: Path, macros: dict[str, int]) -> _File:
    code = _NOT_CODE.sub(" ", path.read_text("utf-8"))
    words = frozenset(_WORD.findall(code))
    named = {macros[word] for word in words & macros.keys()}
    literal = {int(number, 16) for number in _NUMBER.findall(code)}
    return _File(_name(path), words, frozenset(named | (literal - _CPUID_LEAVES)), frozenset())


def _macros() -> dict[str, int]:
    """Numbers that the headers of the guests give names, but for CPUID's leaves."""
    headers = (coverage_page.TESTS / "guests").rglob("*.h")
    found = (match for path in sorted(headers) for match in _MACRO.finditer(path.read_text("utf-8")))
    return {match[1]: int(match[2], 16) for match in found if "_LEAF_" not in match[1]}


class RowTests:
    """The tests as they are in the source tree."""

    def __init__(self) -> None:
        """Read all of them."""
        macros = _macros()
        self._files = [
            _python_file(path) if path.suffix == ".py" else _c_file(path, macros) for path in coverage_page.test_files()
        ]
        self._cited = coverage_page.citations([row.number for row in tables.sections(coverage_page.TABLES)])

    def of_hypercall(self, call: tables.Hypercall) -> list[str]:
        """Files with tests of a call."""
        snake = call.snake
        names = {call.name, snake.upper(), f"HV_{snake.upper()}"}
        names |= {f"{way}_{snake}{by}" for way in ("hvcall", "hv_form") for by in ("", "_2008r2", "_current")}
        return self._find(call.section, lambda file: bool(names & file.words))

    def of_msr(self, msr: tables.Msr) -> list[str]:
        """Files with tests of a register, or of one of a family."""
        indices = set(range(msr.index, msr.index + msr.count))
        return self._find(msr.section, lambda file: bool(indices & file.numbers))

    def of_message(self, message: tables.Message) -> list[str]:
        """Files with tests of a message."""
        upper = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", message.name).upper()
        names = {message.name, f"HV_MESSAGE_{message.name}", f"HV_MESSAGE_{upper}"}
        return self._find("", lambda file: bool(names & file.words))

    def of_register(self, register: tables.Register) -> list[str]:
        """Files with tests of a register by its name, then those that go through all."""
        names = {register.symbol, f"HV_REGISTER_{register.symbol}", register.name}
        by_name = self._find("", lambda file: bool(names & file.words))
        whole = self._find("", lambda file: "Register" in file.enumerations)
        return by_name + [name for name in whole if name not in by_name]

    def _find(self, section: str, uses: Callable[[_File], bool]) -> list[str]:
        """Files that use something or cite its section: those first that do both, and those that cite it often."""
        cited = self._cited[section].files if section in self._cited else {}
        found = []
        for file in self._files:
            uses_it, cites_it = uses(file), file.name in cited
            if uses_it or cites_it:
                found.append((not (uses_it and cites_it), not cites_it, -len(cited.get(file.name, ())), file.name))
        return [name for *_, name in sorted(found)]


def cell(files: list[str]) -> str:
    """A table's cell: links, defined by link_definitions(), to the first files, and how many more there are."""
    more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    return ", ".join(f"[{name}]" for name in files[:_SHOWN]) + more


def link_definitions(lines: list[str]) -> list[str]:
    """Where the links of a page in docs/ lead."""
    used = {name for line in lines for name in re.findall(r"\[([\w/]+\.(?:py|c))\](?!\()", line)}
    return [f"[{name}]: ../tests/{name}" for name in sorted(used)]
