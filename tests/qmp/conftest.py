# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines with a guest that the operator can talk to over QMP (operator_guest.c)."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qemu_hv.machine import SyncMachine
from qemu_hv.pytest_plugin import HvMachineFactory

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "guests"))

from guest_image import build_image  # noqa: E402

COMMAND_PORT = 1
COMMAND_TYPE = 7
COMMANDS = {"post": 1, "signal": 2, "unknown-call": 3, "crash": 4, "hold": 5, "timer": 6}


class Operator:
    """A running guest and what the operator does with it.

    Attributes:
        machine: the machine.
    """

    def __init__(self, machine: SyncMachine) -> None:
        self.machine = machine

    def __call__(self, command: str, **arguments: Any) -> Any:
        """Execute a QMP command; underscores in names of arguments stand for hyphens."""
        given = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self.machine.execute(command, given)

    def order(self, command: str, argument: int = 0) -> None:
        """Make the guest do something (the commands of operator_guest.c)."""
        payload = struct.pack("<QQ", COMMANDS[command], argument)
        self(
            "hv-post-message",
            port_id=COMMAND_PORT,
            message_type=COMMAND_TYPE,
            payload=payload.hex(),
            encoding="hex",
        )

    def vp(self, index: int = 0) -> Any:
        """Return the state of a virtual processor."""
        return self("query-hv-vps", vp=index)[0]


@pytest.fixture
def start_operator(hv_machine: HvMachineFactory) -> Callable[..., Operator]:
    """Give a function that starts a machine and waits until its guest is ready."""
    image = build_image(HERE / "operator_guest.c", 64)

    def start(**options: Any) -> Operator:
        defaults: dict[str, Any] = {"memory": "128M", "console": "debugcon", "smp": 2}
        machine = hv_machine(**{**defaults, "kernel": image.path, **options})
        machine.wait_for("^ready", timeout=60)
        operator = Operator(machine)
        operator("hv-create-port", port_id=COMMAND_PORT, type="message", sint=2, vp=0)
        return operator

    return start


@pytest.fixture
def operator(start_operator: Callable[..., Operator]) -> Operator:
    """Give a running guest with two VPs and a port for its commands."""
    return start_operator()
