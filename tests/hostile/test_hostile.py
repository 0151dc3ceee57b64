# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that does its worst (hostile.c), with the module and the core under AddressSanitizer and UBSan.

Meanwhile the operator asks QEMU and moves ports about: QEMU answers at once, all the time, and in the end the guest is
still there. A failure may need the same machine to show again, but what each VP does depends on the seed only.
"""

from __future__ import annotations

import asyncio
import random
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import pytest

from qemu_hv import build
from qemu_hv.machine import CommandFailed, MachineDied, MachineOptions, SyncMachine
from qemu_hv.pytest_plugin import HvMachineFactory
from qemu_hv.qemu_binary import QemuBinary

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "guests"))

from guest_image import build_image

HERE = Path(__file__).resolve().parent

VPS = 4
INTERVAL = 0.1  # seconds between two looks
ROUNDS_TO_PAUSE = 20
ANSWER_TIMEOUT = 2.0  # seconds
END_TIMEOUT = 30.0  # seconds that the guest may run over its time
SUCCESS = 1  # what isa-debug-exit makes of the guest's 0

# The guest's random words are mostly 0x20 and above (hostile.c, with_safe_vector).
CONNECTIONS = range(0x20, 0x100)
PORTS = range(0x200, 0x210)
EVENT_FLAGS = 16

ACTIONS = ("hypercall", "msr", "overlay", "timer", "ipi", "end of", "memory", "idle")
FEWEST_ACTIONS = 2  # of each kind, per VP and second: a guest that does less is stuck

REPORT = re.compile(r"ERROR: \w+Sanitizer|runtime error:")

# Registers and calls that a guest does not get by default.
PROPERTIES = {"access-tsc-invariant-controls": True, "access-partition-id": True}


class Operator:
    """What the operator does meanwhile: everything must be answered in time, also with an error."""

    def __init__(self, machine: SyncMachine, seed: int) -> None:
        self.machine = machine
        self.vps: list[Mapping[str, Any]] = []
        self._random = random.Random(seed)

    def ask(self, command: str, arguments: Optional[Mapping[str, object]] = None) -> Any:
        """Execute a QMP command; QEMU must answer within `ANSWER_TIMEOUT`."""
        answer = self.machine.machine.execute(command, arguments)
        try:
            return self.machine.call(asyncio.wait_for(answer, ANSWER_TIMEOUT))
        except asyncio.TimeoutError:
            pytest.fail(f"{command} was not answered in {ANSWER_TIMEOUT:g} s")

    def try_to(self, command: str, arguments: Mapping[str, object]) -> None:
        """Execute a command that may be refused, because of what happened before."""
        try:
            self.ask(command, arguments)
        except CommandFailed as error:
            assert error.error_class == "GenericError", error

    def create_port(self, port: int) -> None:
        """Make a port for messages (even numbers) or events (odd ones)."""
        arguments: dict[str, object] = {"port-id": port, "type": "message", "sint": 1 + port % 15}
        if port % 2:
            arguments.update({"type": "event", "base-flag": 8 * (port % 64), "flag-count": EVENT_FLAGS})
        if port % 3:
            arguments["vp"] = port % VPS
        self.try_to("hv-create-port", arguments)

    def connect_all(self) -> None:
        """Make all ports and connections."""
        for port in PORTS:
            self.create_port(port)
        for connection in CONNECTIONS:
            self.connect(connection)

    def connect(self, connection: int) -> None:
        """Connect to some port."""
        port = self._random.choice(PORTS)
        self.try_to("hv-connect-port", {"connection-id": connection, "port-id": port})

    def look(self) -> None:
        """Ask for all there is to know."""
        assert self.ask("query-status")["running"]
        self.vps = self.ask("query-hv-vps")
        self.ask("query-hv")
        self.ask("query-hv-ports")

    def interfere(self) -> None:
        """Post, signal, and change ports and connections."""
        port, connection = self._random.choice(PORTS), self._random.choice(CONNECTIONS)
        payload = self._random.randbytes(self._random.choice((0, 1, 8, 240, 241))).hex()
        self.try_to(
            "hv-post-message",
            {"port-id": port & ~1, "message-type": port, "payload": payload, "encoding": "hex"},
        )
        self.try_to("hv-signal-event", {"port-id": port | 1, "flag": self._random.randrange(EVENT_FLAGS + 1)})
        self.try_to("hv-disconnect-port", {"connection-id": connection})
        self.connect(connection)
        if self._random.random() < 0.1:
            self.try_to("hv-delete-port", {"port-id": port})
            self.create_port(port)

    def pause(self) -> None:
        """Stop the machine for a moment, which stops its clock."""
        self.ask("stop")
        self.ask("query-hv-vps")
        self.ask("cont")


@pytest.fixture(scope="module")
def sanitized_qemu() -> QemuBinary:
    """A QEMU whose module and core are instrumented."""
    built = build.ensure(sanitize=True)
    return QemuBinary(built.path, built.firmware_dirs, built.environment)


def machine_options(qemu: QemuBinary, accel: str, seed: int, seconds: float, output: Path) -> dict[str, Any]:
    """Return the options of a machine that runs the guest; what it prints goes to the file `output`."""
    options = MachineOptions(
        qemu=qemu,
        kernel=build_image(HERE / "hostile.c", 64).path,
        append=f"seed={seed} seconds={max(1, round(seconds))}",
        smp=VPS,
        memory="128",
        cpu="max",
        accel=accel,
        hypervisor=PROPERTIES,
        extra=[
            *("-chardev", f"file,id=debug,path={output}", "-device", "isa-debugcon,iobase=0xe9,chardev=debug"),
            *("-device", "isa-debug-exit,iobase=0xf4,iosize=1"),
        ],
    )
    return vars(options)


def actions_by_vp(output: str) -> dict[int, list[int]]:
    """Return how much of each kind the VPs did, from the guest's last words."""
    numbers = [[int(word) for word in match[1].split()] for match in re.finditer(r"^DONE((?: \d+)+) ", output, re.M)]
    return {vp: counts for vp, *counts in numbers}


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


def check_thoroughness(said: str, vps: Sequence[Mapping[str, Any]], seconds: float) -> None:
    """Every VP did something of every kind, all the time, and messages, events and interrupts came of it."""
    done = actions_by_vp(said)
    assert sorted(done) == list(range(VPS)), said[-2000:]
    for counts in done.values():
        assert len(counts) == len(ACTIONS)
        assert min(counts) >= FEWEST_ACTIONS * seconds, dict(zip(ACTIONS, counts))
    for counter in ("messages", "events", "interrupts", "unknown-hypercalls", "unknown-msrs"):
        # Of all VPs together: in a short run one of them may never have had its event flags page enabled.
        assert sum(vp["counters"][counter] for vp in vps) > 0, counter


@pytest.mark.parametrize("accel", ["tcg,thread=multi", "tcg,thread=single"])
def test_hypervisor_survives_a_hostile_guest(
    accel: str,
    sanitized_qemu: QemuBinary,
    hv_machine: HvMachineFactory,
    pytestconfig: pytest.Config,
    tmp_path: Path,
) -> None:
    """Issue 2, section 5: no sanitizer report, no abort, and QEMU answers QMP throughout."""
    # A thread per VP is what finds races, so it gets most of the time.
    share = 0.8 if accel.endswith("multi") else 0.2
    seconds, seed = share * pytestconfig.getoption("hostile_seconds"), pytestconfig.getoption("hostile_seed")
    output = tmp_path / "output"
    machine = hv_machine(**machine_options(sanitized_qemu, accel, seed, seconds, output))
    operator = Operator(machine, seed)
    operator.connect_all()
    watch(operator, time.monotonic() + seconds + END_TIMEOUT)
    said = output.read_text(encoding="ascii")
    assert machine.exit_code == SUCCESS, f"{machine.stderr}\n{said[-2000:]}"
    assert not REPORT.search(machine.stderr), machine.stderr
    check_thoroughness(said, operator.vps, seconds)
