# SPDX-License-Identifier: GPL-2.0-or-later
"""Tracing, crash reports, machines without the object, and the schema's documentation."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from operator_machine import Operator

from qemu_hv.machine import CommandFailed, SyncMachine
from qemu_hv.pytest_plugin import HvMachineFactory

DOCUMENTATION = Path(__file__).resolve().parents[2] / "docs" / "qmp.md"

COMMANDS: dict[str, dict[str, Any]] = {
    "query-hv": {},
    "query-hv-partitions": {},
    "query-hv-vps": {},
    "query-hv-ports": {},
    "hv-create-port": {"port-id": 1, "type": "message", "sint": 2},
    "hv-delete-port": {"port-id": 1},
    "hv-connect-port": {"connection-id": 1, "port-id": 1},
    "hv-disconnect-port": {"connection-id": 1},
    "hv-post-message": {"port-id": 1, "message-type": 1, "payload": ""},
    "hv-signal-event": {"port-id": 1, "flag": 0},
    "hv-trace-hypercalls": {"enable": True},
    "hv-partition-pause": {"partition": 2},
    "hv-partition-resume": {"partition": 2},
    "hv-partition-delete": {"partition": 2},
    "query-hv-registers": {"partition": 2, "vp": 0},
    "hv-memory-read": {"partition": 2, "gpa": 0, "size": 1},
    "hv-interrupt-inject": {"partition": 2, "vp": 0, "vector": 32},
    "hv-events-start": {},
    "hv-events-stop": {},
    "query-hv-events": {},
    "hv-events-read": {"max": 64},
    "hv-inject-add": {"id": "flush", "point": "hypercall", "action": "drop"},
    "hv-inject-remove": {"id": "flush"},
    "query-hv-injections": {},
    "query-hv-stats": {},
    "hv-partition-save": {"job-id": "save0", "partition": 2, "path": "nowhere"},
    "hv-partition-restore": {"job-id": "restore0", "path": "nowhere"},
}

# QEMU's own balloon device has a name that begins as ours do.
NOT_OURS = {"query-hv-balloon-status-report", "HV_BALLOON_STATUS_REPORT"}


@pytest.fixture
def bare(hv_machine: HvMachineFactory) -> SyncMachine:
    """Give a machine without the object."""
    return hv_machine(hypervisor=None, paused=True)


def ours(machine: SyncMachine, meta_type: str) -> set[str]:
    entities = machine.execute("query-qmp-schema")
    names = {entity["name"] for entity in entities if entity["meta-type"] == meta_type}
    found = {name for name in names if re.match(r"(query-)?hv(-|$)|HV_", name)}
    return found - NOT_OURS


def test_every_command_is_tested_here(bare: SyncMachine) -> None:
    assert ours(bare, "command") == set(COMMANDS)


@pytest.mark.parametrize("meta_type", ["command", "event"])
def test_documentation_is_complete(bare: SyncMachine, meta_type: str) -> None:
    text = DOCUMENTATION.read_text(encoding="utf-8")
    headings = set(re.findall(r"^### `([\w-]+)`$", text, re.MULTILINE))
    found = ours(bare, meta_type)
    assert found, "the schema has none"
    assert found - headings == set()


def test_documentation_names_nothing_else(bare: SyncMachine) -> None:
    text = DOCUMENTATION.read_text(encoding="utf-8")
    headings = set(re.findall(r"^### `([\w-]+)`$", text, re.MULTILINE))
    assert headings - ours(bare, "command") - ours(bare, "event") == set()


def test_documentation_names_every_member(bare: SyncMachine) -> None:
    """Every member of every argument and result is named in the page."""
    entities = {entity["name"]: entity for entity in bare.execute("query-qmp-schema")}
    text = DOCUMENTATION.read_text(encoding="utf-8")
    documented = set(re.findall(r"`([\w-]+)`", text))
    members: set[str] = set()
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name in seen:
            return
        seen.add(name)
        entity = entities[name]
        for member in entity.get("members", []):
            if "name" in member:
                members.add(member["name"])
            if "type" in member:
                visit(member["type"])
        for variant in entity.get("variants", []):
            visit(variant["type"])
        for key in ("element-type", "arg-type", "ret-type"):
            if key in entity:
                visit(entity[key])

    for name in ours(bare, "command") | ours(bare, "event"):
        visit(name)
    assert len(members) > 50
    assert members - documented == set()


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_without_the_object(bare: SyncMachine, command: str) -> None:
    with pytest.raises(CommandFailed, match="no microsoft-hypervisor object") as caught:
        bare.execute(command, COMMANDS[command])
    assert caught.value.error_class == "DeviceNotFound"


def test_trace(start_operator: Callable[..., Operator], tmp_path: Path) -> None:
    log = tmp_path / "trace.log"
    operator = start_operator(extra=["-D", str(log)])

    def call() -> list[str]:
        operator.order("signal", 99)
        operator.machine.wait_for("^signaled")
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        return [line for line in lines if "HvSignalEvent" in line]

    assert call() == []
    operator("hv-trace-hypercalls", enable=True)
    assert operator("query-hv")["trace-hypercalls"] is True
    (line,) = call()
    assert "HV_STATUS_INVALID_CONNECTION_ID" in line and "vp 0" in line
    operator.order("unknown-call")
    operator.machine.wait_for("^called")
    assert "HV_STATUS_INVALID_HYPERCALL_CODE" in log.read_text(encoding="utf-8")
    operator("hv-trace-hypercalls", enable=False)
    assert operator("query-hv")["trace-hypercalls"] is False
    assert call() == [line]


def test_crash_with_text(operator: Operator) -> None:
    operator.order("crash", 1)
    event = operator.machine.wait_event("HV_GUEST_CRASH")
    assert event.data["vp"] == 0
    assert event.data["parameters"][:3] == [0xDEAD, 1, 2]
    bad = "\N{REPLACEMENT CHARACTER}"
    assert event.data["message"] == f"Kernel panic: test\n{bad}[31m{bad}{bad} caf\N{LATIN SMALL LETTER E WITH ACUTE}"
    assert abs(event.time - time.time()) < 60
    crash = operator("query-hv")["partition"]["crash"]
    assert crash["parameters"] == event.data["parameters"]
    assert crash["control"] == 0b11 << 62
    # It was a report, no more: the guest goes on.
    operator.machine.wait_for("^crash reported")
    assert operator.machine.status() == "running"


def test_crash_without_text(operator: Operator) -> None:
    operator.order("crash", 0)
    event = operator.machine.wait_event("HV_GUEST_CRASH")
    assert event.data == {"vp": 0, "parameters": [0xDEAD, 1, 2, 3, 4]}


def test_commands_while_stopped(operator: Operator) -> None:
    operator.machine.stop()
    operator("hv-post-message", port_id=1, message_type=0x42, payload="")
    assert operator.vp()["vp"] == 0
    operator.machine.cont()
    operator.machine.wait_for("^message type=42 size=0 ")
