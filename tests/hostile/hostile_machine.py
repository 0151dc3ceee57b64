# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines whose guests do their worst, and an operator who meanwhile asks QEMU and changes what he can."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import pytest

from qemu_hv.machine import CommandFailed, MachineDied, MachineOptions, SyncMachine
from qemu_hv.qemu_binary import QemuBinary

__all__ = ["Operator", "check_end", "machine_options", "watch"]

INTERVAL = 0.1  # seconds between two looks
ROUNDS_TO_PAUSE = 20
SUCCESS = 1  # what isa-debug-exit makes of the guest's 0

REPORT = re.compile(r"ERROR: \w+Sanitizer|runtime error:")


class Operator:
    """What the operator does meanwhile: everything must be answered in time, also with an error.

    Attributes:
        machine: the machine.
        random: what to do next.
        timeout: seconds that QEMU may take to answer.
    """

    timeout = 2.0

    def __init__(self, machine: SyncMachine, seed: int) -> None:
        self.machine = machine
        self.random = random.Random(seed)

    def ask(self, command: str, arguments: Optional[Mapping[str, object]] = None) -> Any:
        """Execute a QMP command; QEMU must answer in time."""
        answer = self.machine.machine.execute(command, arguments)
        try:
            return self.machine.call(asyncio.wait_for(answer, self.timeout))
        except asyncio.TimeoutError:
            pytest.fail(f"{command} was not answered in {self.timeout:g} s")

    def try_to(self, command: str, arguments: Mapping[str, object]) -> Any:
        """Execute a command that may be refused, because of what happened before. Returns None then."""
        try:
            return self.ask(command, arguments)
        except CommandFailed as error:
            assert error.error_class == "GenericError", error
            return None

    def look(self) -> None:
        """Ask for all there is to know."""
        raise NotImplementedError

    def interfere(self) -> None:
        """Change something."""
        raise NotImplementedError

    def pause(self) -> None:
        """Stop the machine for a moment, which stops its clock."""
        self.ask("stop")
        self.ask("query-hv-vps")
        self.ask("cont")


def machine_options(
    qemu: QemuBinary, kernel: Path, hypervisor: Mapping[str, Any], accel: str, append: str, output: Path
) -> dict[str, Any]:
    """Return the options of a machine that runs a guest; what it prints goes to the file `output`."""
    options = MachineOptions(
        qemu=qemu,
        kernel=kernel,
        append=append,
        memory="128",
        cpu="max",
        accel=accel,
        hypervisor=dict(hypervisor),
        extra=[
            *("-chardev", f"file,id=debug,path={output}", "-device", "isa-debugcon,iobase=0xe9,chardev=debug"),
            *("-device", "isa-debug-exit,iobase=0xf4,iosize=1"),
        ],
    )
    return vars(options)


def watch(operator: Operator, end: float) -> None:
    """Be the operator until the guest has ended, which it must do before the monotonic clock says `end`."""
    rounds = 0
    while operator.machine.running:
        if time.monotonic() > end:
            pytest.fail("the guest has not come to its end")
        rounds += 1
        try:
            operator.look()
            operator.interfere()
            if rounds % ROUNDS_TO_PAUSE == 0:
                operator.pause()
        except MachineDied:
            return
        time.sleep(INTERVAL)


def check_end(machine: SyncMachine, output: Path) -> str:
    """QEMU has ended because the guest said so, and no sanitizer has found anything. Returns what the guest printed."""
    said = output.read_text(encoding="ascii")
    assert machine.exit_code == SUCCESS, f"{machine.stderr}\n{said[-2000:]}"
    assert not REPORT.search(machine.stderr), machine.stderr
    return said
