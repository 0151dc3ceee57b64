# SPDX-License-Identifier: GPL-2.0-or-later
"""The typed stub qemu_hv/_core.pyi tells what the extension has."""

from __future__ import annotations

import ast
import enum
import inspect
from pathlib import Path
from typing import Any

import pytest

import qemu_hv
from qemu_hv import _core

STUB = Path(qemu_hv.__file__).with_name("_core.pyi")
TREE = ast.parse(STUB.read_text(encoding="utf-8"))
CLASSES = {node.name: node for node in TREE.body if isinstance(node, ast.ClassDef)}


def only_for_types(node: ast.ClassDef) -> bool:
    """Whether a class exists for type checkers only."""
    return any(isinstance(d, ast.Name) and d.id == "type_check_only" for d in node.decorator_list)


def public(names: list[str]) -> set[str]:
    """Names without an underscore."""
    return {name for name in names if not name.startswith("_")}


def stub_members(node: ast.ClassDef) -> set[str]:
    """Names of methods and attributes of a class."""
    functions = [item.name for item in node.body if isinstance(item, ast.FunctionDef)]
    attributes = [
        item.target.id for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    ]
    return public(functions + attributes)


def test_module_names() -> None:
    """The stub names exactly what the module has."""
    functions = [node.name for node in TREE.body if isinstance(node, ast.FunctionDef)]
    values = [
        node.target.id for node in TREE.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]
    classes = [name for name, node in CLASSES.items() if not only_for_types(node)]
    assert public(functions + values + classes) == public(dir(_core))


ENUMS = [name for name, value in vars(_core).items() if inspect.isclass(value) and issubclass(value, enum.IntEnum)]


@pytest.mark.parametrize("name", ENUMS)
def test_enumerations(name: str) -> None:
    """Members and values of an enumeration; the member None cannot be written in Python."""
    stub = {
        item.targets[0].id: ast.literal_eval(item.value)
        for item in CLASSES[name].body
        if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name)
    }
    members = {member.name: member.value for member in getattr(_core, name)}
    members.pop("None", None)
    assert stub == members


@pytest.mark.parametrize("name", ["HypercallResult", "HypercallRow", "Machine", "MsrRow"])
def test_members(name: str) -> None:
    """Methods and attributes of a class."""
    assert stub_members(CLASSES[name]) == public(list(vars(getattr(_core, name))))


def keys(name: str) -> set[str]:
    """Keys of a dictionary type."""
    return stub_members(CLASSES[name])


def test_dictionaries() -> None:
    """Keys of what the machine answers."""
    m = _core.Machine()
    m.operator_create_port(1, _core.PortType.MESSAGE, 2)
    m.operator_connect_port(3, 1)
    assert set(m.config) == keys("Config")
    assert set(m.partition_state()) == keys("PartitionState")
    assert set(m.vp_state(0)) == keys("VpState")
    assert set(m.vp_state(0)["timers"][0]) == keys("TimerState")
    assert set(m.apic(0)) == keys("ApicState")
    assert set(m.ports()[0]) == keys("PortState")
    assert set(m.connections()[0]) == keys("ConnectionState")


def test_wrong_arguments() -> None:
    """A machine that is not possible is refused with a sentence; so is a VP that is not there."""
    wrong: list[dict[str, Any]] = [{"vps": 0}, {"vps": 5000}, {"tsc_frequency": 0}, {"gpa_bits": 0}, {"gpa_bits": 65}]
    for arguments in wrong:
        with pytest.raises(ValueError, match=r"\w+ \w+"):
            _core.Machine("current", **arguments)
    with pytest.raises(ValueError, match="2008r2"):
        _core.Machine("2012")
    with pytest.raises(IndexError, match="no VP 1"):
        _core.Machine().rdmsr(1, 0x40000002)
