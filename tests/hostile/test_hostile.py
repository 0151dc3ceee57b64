# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that does its worst (hostile.c), with the module and the core under AddressSanitizer and UBSan.

Meanwhile the operator asks QEMU and moves ports about: QEMU answers at once, all the time, and in the end the guest is
still there. A failure may need the same machine to show again, but what each VP does depends on the seed only.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from guest_image import build_image
from hostile_machine import Operator, check_end, machine_options, watch

from qemu_hv.machine import SyncMachine
from qemu_hv.pytest_plugin import HvMachineFactory
from qemu_hv.qemu_binary import QemuBinary

HERE = Path(__file__).resolve().parent

VPS = 4
END_TIMEOUT = 30.0  # seconds that the guest may run over its time

# The guest's random words are mostly 0x20 and above (hostile.c, with_safe_vector).
CONNECTIONS = range(0x20, 0x100)
PORTS = range(0x200, 0x210)
EVENT_FLAGS = 16

ACTIONS = ("hypercall", "msr", "overlay", "timer", "ipi", "end of", "memory", "idle")
FEWEST_ACTIONS = 2  # of each kind, per VP and second: a guest that does less is stuck

# Registers and calls that a guest does not get by default.
PROPERTIES = {"access-tsc-invariant-controls": True, "access-partition-id": True}


class PortOperator(Operator):
    """Moves ports and connections about."""

    def __init__(self, machine: SyncMachine, seed: int) -> None:
        super().__init__(machine, seed)
        self.vps: list[Mapping[str, Any]] = []

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
        port = self.random.choice(PORTS)
        self.try_to("hv-connect-port", {"connection-id": connection, "port-id": port})

    def look(self) -> None:
        """Ask for all there is to know."""
        assert self.ask("query-status")["running"]
        self.vps = self.ask("query-hv-vps")
        self.ask("query-hv")
        self.ask("query-hv-ports")

    def interfere(self) -> None:
        """Post, signal, and change ports and connections."""
        port, connection = self.random.choice(PORTS), self.random.choice(CONNECTIONS)
        payload = self.random.randbytes(self.random.choice((0, 1, 8, 240, 241))).hex()
        self.try_to(
            "hv-post-message",
            {"port-id": port & ~1, "message-type": port, "payload": payload, "encoding": "hex"},
        )
        self.try_to("hv-signal-event", {"port-id": port | 1, "flag": self.random.randrange(EVENT_FLAGS + 1)})
        self.try_to("hv-disconnect-port", {"connection-id": connection})
        self.connect(connection)
        if self.random.random() < 0.1:
            self.try_to("hv-delete-port", {"port-id": port})
            self.create_port(port)


def actions_by_vp(output: str) -> dict[int, list[int]]:
    """Return how much of each kind the VPs did, from the guest's last words."""
    numbers = [[int(word) for word in match[1].split()] for match in re.finditer(r"^DONE((?: \d+)+) ", output, re.M)]
    return {vp: counts for vp, *counts in numbers}


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
    kernel = build_image(HERE / "hostile.c", 64).path
    options = machine_options(
        sanitized_qemu, kernel, PROPERTIES, accel, f"seed={seed} seconds={max(1, round(seconds))}", output
    )
    machine = hv_machine(**{**options, "smp": VPS})
    operator = PortOperator(machine, seed)
    operator.connect_all()
    watch(operator, time.monotonic() + seconds + END_TIMEOUT)
    check_thoroughness(check_end(machine, output), operator.vps, seconds)
