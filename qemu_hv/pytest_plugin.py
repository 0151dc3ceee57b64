# SPDX-License-Identifier: GPL-2.0-or-later
"""A pytest plugin: machines with the emulated hypervisor, for anyone's tests.

    def test_boot(hv_machine):
        machine = hv_machine(kernel="vmlinuz", initrd="initrd", append="console=ttyS0", smp=2)
        machine.wait_for("Hypervisor detected: Microsoft Hyper-V", timeout=60)
        assert machine.execute("query-hv")["interface"] == "current"

The machines of a test are ended after it. When it failed, the ends of their consoles are in its
report.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, Protocol

import pytest

from .machine import MachineOptions, SyncMachine

__all__ = ["HvMachineFactory", "hv_machine"]

_STASH: pytest.StashKey[list[SyncMachine]] = pytest.StashKey()


class HvMachineFactory(Protocol):
    """Starts a machine: see `MachineOptions` for its keyword arguments."""

    def __call__(self, **options: Any) -> SyncMachine:
        """Return a machine that has been started."""


@pytest.fixture
def hv_machine(request: pytest.FixtureRequest) -> Iterator[HvMachineFactory]:
    """Give a function that starts a machine and returns it; all are ended after the test."""
    machines: list[SyncMachine] = []
    request.node.stash[_STASH] = machines

    def start(**options: Any) -> SyncMachine:
        machine = SyncMachine(MachineOptions(**options))
        machine.start()
        machines.append(machine)
        return machine

    yield start
    for machine in machines:
        machine.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Add the consoles' ends to the report of a test that failed."""
    outcome = yield
    report = outcome.get_result()
    if report.when != "call" or not report.failed:
        return
    machines: list[SyncMachine] = item.stash.get(_STASH, [])
    for index, machine in enumerate(machines):
        report.sections.append((f"console of machine {index}", machine.machine.console.tail(40)))
        report.sections.append((f"stderr of machine {index}", machine.stderr))
