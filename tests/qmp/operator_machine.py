# SPDX-License-Identifier: GPL-2.0-or-later
"""The operator of a machine whose guest is operator_guest.c."""

from __future__ import annotations

import struct
from typing import Any

from qemu_hv.machine import SyncMachine

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
