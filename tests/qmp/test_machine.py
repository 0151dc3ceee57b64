# SPDX-License-Identifier: GPL-2.0-or-later
"""qemu_hv.machine with a real QEMU."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from operator_machine import Operator

from qemu_hv import runtime, status
from qemu_hv.machine import (
    CommandFailed,
    ConsoleClosed,
    ConsoleTimeout,
    Machine,
    MachineDied,
    MachineError,
    MachineOptions,
    SyncMachine,
)
from qemu_hv.pytest_plugin import HvMachineFactory


def test_wrong_property_is_one_line() -> None:
    with pytest.raises(MachineDied, match="no-such") as caught:
        SyncMachine(MachineOptions(hypervisor={"no-such": True})).start()
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)


def test_nothing_is_left(hv_machine: HvMachineFactory) -> None:
    machine = hv_machine(paused=True)
    folder = machine.machine.control_socket.parent
    pid = machine.machine.pid
    assert runtime.last_machine() == folder / "control"
    machine.close()
    assert not folder.exists()
    assert runtime.last_machine() != folder / "control"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_killed(hv_machine: HvMachineFactory) -> None:
    machine = hv_machine(paused=True)
    os.kill(machine.machine.pid, signal.SIGKILL)
    with pytest.raises(MachineDied, match="SIGKILL"):
        machine.execute("query-status")
    with pytest.raises(MachineDied, match="before the event SHUTDOWN"):
        machine.wait_event("SHUTDOWN")
    with pytest.raises(ConsoleClosed):
        machine.wait_for("anything")
    assert machine.exit_code == -signal.SIGKILL


def test_quit(hv_machine: HvMachineFactory) -> None:
    machine = hv_machine(paused=True)
    assert machine.quit() == 0
    assert not machine.running
    with pytest.raises(MachineDied, match="exit status 0 during query-status"):
        machine.execute("query-status")


def test_error_of_a_command(hv_machine: HvMachineFactory) -> None:
    machine = hv_machine(paused=True)
    with pytest.raises(CommandFailed) as caught:
        machine.execute("no-such-command")
    assert (caught.value.command, caught.value.error_class) == ("no-such-command", "CommandNotFound")


def test_console_timeout_shows_the_end(operator: Operator) -> None:
    with pytest.raises(ConsoleTimeout, match=r"(?s)'nonsense' did not come .* in 0.2 s.*ready"):
        operator.machine.wait_for("nonsense", timeout=0.2)


def test_events(hv_machine: HvMachineFactory) -> None:
    machine = hv_machine(paused=True)
    for _ in range(2):
        machine.cont()
        machine.stop()
    first = machine.wait_event("RESUME")
    second = machine.wait_event("RESUME", after=first)
    assert second.index > first.index
    with pytest.raises(TimeoutError):
        machine.wait_event("RESUME", after=second, timeout=0.3)
    with pytest.raises(TimeoutError):
        machine.wait_event("RESUME", match=lambda event: "nothing" in event.data, timeout=0.3)


def test_save_and_load(
    operator: Operator, start_operator: Callable[..., Operator], hv_machine: HvMachineFactory, tmp_path: Path
) -> None:
    """Migrating to a file carries ports, connections and what the guest has set up."""
    state = tmp_path / "state"
    operator("hv-connect-port", connection_id=20, port_id=1)
    operator.machine.stop()
    before = operator("query-hv")["partition"], operator.vp()["synic"], operator("query-hv-ports")
    operator.machine.save_to_file(state)
    options = operator.machine.machine.options
    machine = hv_machine(
        kernel=options.kernel, memory=options.memory, smp=options.smp, console="debugcon", incoming="defer"
    )
    machine.load_from_file(state)
    other = Operator(machine)
    after = other("query-hv")["partition"], other.vp()["synic"], other("query-hv-ports")
    for partition in (before[0], after[0]):
        # The page's content is made anew, and time may have gone on.
        partition["reference-tsc-page"] = partition["reference-tsc-page"]["gpa"]
    assert after[0].pop("reference-time") >= before[0].pop("reference-time")
    assert after == before
    machine.cont()
    other("hv-post-message", port_id=1, message_type=0x42, payload="")
    machine.wait_for("^message type=42 ")


def test_snapshot(operator: Operator, tmp_path: Path) -> None:
    """Going back to a snapshot brings back the state of then."""
    machine, disk = operator.machine, str(tmp_path / "disk")
    machine.run_job("blockdev-create", {"options": {"driver": "file", "filename": disk, "size": 0}})
    machine.execute("blockdev-add", {"driver": "file", "filename": disk, "node-name": "file"})
    machine.run_job("blockdev-create", {"options": {"driver": "qcow2", "file": "file", "size": 1 << 20}})
    machine.execute("blockdev-add", {"driver": "qcow2", "file": "file", "node-name": "disk"})
    machine.stop()
    machine.save_snapshot("then", "disk")
    then = operator("query-hv")["partition"]["reference-time"]
    operator("hv-create-port", port_id=50, type="message", sint=2)
    machine.cont()
    operator("hv-post-message", port_id=1, message_type=0x42, payload="")
    machine.wait_for("^message type=42 ")
    machine.stop()
    assert operator("query-hv")["partition"]["reference-time"] > then
    machine.load_snapshot("then", "disk")
    assert operator("query-hv")["partition"]["reference-time"] == pytest.approx(then, abs=10_000)
    assert [port["port-id"] for port in operator("query-hv-ports")["ports"]] == [1]
    machine.cont()
    operator("hv-post-message", port_id=1, message_type=0x43, payload="")
    machine.wait_for("^message type=43 ")


def test_snapshot_failure(hv_machine: HvMachineFactory) -> None:
    machine = hv_machine(paused=True)
    with pytest.raises(MachineError, match="no-such-node"):
        machine.save_snapshot("then", "no-such-node")


def test_load_failure(hv_machine: HvMachineFactory, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.write_bytes(b"no state of a machine")
    machine = hv_machine(incoming="defer", hypervisor=None)
    with pytest.raises(MachineError, match="the migration failed"):
        machine.load_from_file(state)


def test_asyncio() -> None:
    async def use() -> str:
        async with Machine(MachineOptions(paused=True)) as machine:
            answers = await asyncio.gather(*(machine.status() for _ in range(5)))
            assert len(set(answers)) == 1
            return answers[0]

    assert asyncio.run(use()) == "prelaunch"


def test_status_of_a_running_machine(operator: Operator) -> None:
    address = str(operator.machine.machine.control_socket)
    state = asyncio.run(status.query(address))
    assert state.partitions[0]["vp-count"] == 2
    assert len(state.vps) == 2
    assert state.ports["ports"][0]["port-id"] == 1
