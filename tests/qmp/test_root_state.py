# SPDX-License-Identifier: GPL-2.0-or-later
"""A root with a running child is stopped, reset, saved and taken elsewhere; both go on as if nothing had happened.

The child sleeps and wakes by the timer of its local APIC, and tells the root of each wake-up by an intercept; another
VP of it counts (state_guest.c). The root's console says how far they are, and whether a wake-up was lost.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from guest_image import build_image

from qemu_hv.machine import SyncMachine
from qemu_hv.pytest_plugin import HvMachineFactory

HERE = Path(__file__).resolve().parent
LINE = re.compile(r"^at (\d+) time=(\d+) counts=(\d)$", re.MULTILINE)
LINES = 4
PAUSE = 2.0  # seconds
WAKE_UPS = 25  # between lines
DISK_SIZE = 1 << 20  # bytes; the machine's state comes on top
TCG = ("tcg,thread=multi", "tcg,thread=single")

on_tcg = pytest.mark.parametrize("accel", TCG)
on_all = pytest.mark.parametrize("accel", (*TCG, "kvm"))

Start = Callable[..., SyncMachine]


class Line(NamedTuple):
    """What the root says of its child: wake-ups, the child's reference time, whether its other VP has counted."""

    wakeups: int
    time: int
    counts: int


def lines(machine: SyncMachine) -> list[Line]:
    """All that was said up to now."""
    text = machine.console_text.replace("\r", "")
    assert "FAILED" not in text, text
    return [Line(*map(int, found)) for found in LINE.findall(text)]


def wait_lines(machine: SyncMachine, count: int, after: int = 0, timeout: float = 60.0) -> list[Line]:
    """Wait for so many lines behind the first ones."""
    deadline = time.monotonic() + timeout
    while len(lines(machine)) < after + count:
        assert time.monotonic() < deadline, f"the child has stopped: {machine.console_text}"
        time.sleep(0.05)
    return lines(machine)[after:]


def check_continuity(before: Line, after: list[Line]) -> None:
    """No wake-up is lost, the other VP counts, and the child's time has not seen the pause."""
    assert after[0].wakeups == before.wakeups + WAKE_UPS
    assert before.time < after[0].time < before.time + PAUSE * 1e7
    for first, second in zip(after, after[1:]):
        assert second.wakeups == first.wakeups + WAKE_UPS
        assert second.time > first.time
        assert second.counts


@pytest.fixture
def start_root(hv_machine: HvMachineFactory, accel: str) -> Start:
    """Give a function that starts the root."""
    image = build_image(HERE / "state_guest.c", 64, root=True)
    if accel == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("there is no usable /dev/kvm here")

    def start(**options: Any) -> SyncMachine:
        return hv_machine(
            kernel=image.path,
            memory="256M",
            smp=1 if accel == "kvm" else 2,  # some hosts' KVM starts no others
            console="debugcon",
            accel=accel,
            machine="q35,kernel-irqchip=off" if accel == "kvm" else "q35",
            cpu="qemu64" if accel == "kvm" else None,
            append="generation=current",
            hypervisor={"role": "root"},
            actions={"reboot": "reset"},
            **options,
        )

    return start


@pytest.fixture
def running(start_root: Start) -> SyncMachine:
    """Give a root whose child runs."""
    machine = start_root()
    machine.wait_for("^ready", timeout=60)
    wait_lines(machine, LINES)
    return machine


def partitions(machine: SyncMachine) -> list[Any]:
    """Names what exists."""
    return [partition["id"] for partition in machine.execute("query-hv-partitions")]


@on_tcg
def test_stop_and_cont(running: SyncMachine) -> None:
    """Children stand still while the machine is stopped, and so does their time."""
    running.stop()
    seen = lines(running)
    time.sleep(PAUSE)
    assert lines(running) == seen
    running.cont()
    check_continuity(seen[-1], wait_lines(running, LINES, len(seen)))


def add_disk(machine: SyncMachine, path: Path) -> str:
    """Give the machine an empty qcow2 image, made by QEMU itself; return the name of its node."""
    machine.run_job("blockdev-create", {"options": {"driver": "file", "filename": str(path), "size": 0}})
    machine.execute("blockdev-add", {"driver": "file", "node-name": "file", "filename": str(path)})
    machine.run_job("blockdev-create", {"options": {"driver": "qcow2", "file": "file", "size": DISK_SIZE}})
    machine.execute("blockdev-add", {"driver": "qcow2", "node-name": "disk", "file": "file"})
    return "disk"


@on_all
def test_snapshot(running: SyncMachine, tmp_path: Path) -> None:
    """A snapshot holds the children; the machine goes back to it while they run, and after they have gone."""
    disk = add_disk(running, tmp_path / "disk.qcow2")
    running.stop()
    saved = lines(running)[-1]
    running.save_snapshot("running", disk)
    ids = partitions(running)
    count = len(lines(running))
    running.cont()
    check_continuity(saved, wait_lines(running, LINES, count))
    for reset in (False, True):
        running.stop()
        if reset:
            running.reset()
        running.load_snapshot("running", disk)
        assert partitions(running) == ids
        count = len(lines(running))
        running.cont()
        check_continuity(saved, wait_lines(running, LINES, count))


@on_tcg
def test_system_reset(running: SyncMachine) -> None:
    """A reset of the machine deletes children while they run, and the root starts anew, again and again."""
    for _ in range(3):
        running.stop()
        running.reset()
        assert partitions(running) == [1]
        said = len(lines(running))
        running.cont()
        after = wait_lines(running, LINES, said)
        assert after[0].wakeups == WAKE_UPS
        check_continuity(after[0], after[1:])
    running.reset()  # while it runs
    wait_lines(running, LINES, len(lines(running)))


@on_tcg
def test_migration(running: SyncMachine, start_root: Start, tmp_path: Path) -> None:
    """A machine that is saved to a file goes on in another QEMU, which makes its children's processors."""
    state = tmp_path / "state"
    running.save_to_file(state)
    saved, ids = lines(running)[-1], partitions(running)
    assert running.quit() == 0
    arrived = start_root(incoming="defer", paused=True)
    arrived.load_from_file(state)
    assert partitions(arrived) == ids
    arrived.cont()
    check_continuity(saved, wait_lines(arrived, LINES))
    # Once more, from one that was itself loaded.
    arrived.save_to_file(tmp_path / "again")
    saved = lines(arrived)[-1]
    assert arrived.quit() == 0
    last = start_root(incoming="defer", paused=True)
    last.load_from_file(tmp_path / "again")
    last.cont()
    check_continuity(saved, wait_lines(last, LINES))
