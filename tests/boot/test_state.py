# SPDX-License-Identifier: GPL-2.0-or-later
"""A running Linux is stopped, reset, saved and taken elsewhere, and goes on as if nothing had happened.

All the while each VP of the guest sleeps and wakes by a synthetic timer and compares its clock with the other VPs'
(worker.c, "watch"), also across the operation.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from linux_guest import LinuxFactory, LinuxGuest, Watch, options
from test_boot import ROUNDS, TSC_PAGE, check_detection, check_flushes, check_time

from qemu_hv.machine import SyncMachine
from qemu_hv.pytest_plugin import HvMachineFactory

KERNEL = "6.12"
SMP = 2
ACCELERATORS = ("tcg,thread=multi", "tcg,thread=single")

LINES = 5  # of a watch: some tenths of a second
PAUSE = 2.0  # seconds; longer than what a busy host can make of the time the guest needs for a few lines

DISK_SIZE = 1 << 20  # bytes; the machine's state comes on top

pytestmark = pytest.mark.parametrize("accel", ACCELERATORS)


def reference_time(guest: LinuxGuest) -> float:
    """Return the partition's reference time in seconds."""
    return float(guest.machine.execute("query-hv")["partition"]["reference-time"]) / 1e7


def check_continuity(before: Watch, after: list[Watch]) -> None:
    """Time goes on where it was, on all VPs alike, and so do the timers."""
    assert after[0].time >= before.time
    assert after[0].time - before.time < PAUSE, "the guest noticed the pause"
    assert max(line.step_back for line in after) == 0
    assert all(last > first for first, last in zip(before.wakeups, after[-1].wakeups)), "a VP's timer has stopped"


def check_still_enlightened(guest: LinuxGuest) -> None:
    """After the watch: the clock was not given up, IPIs and flushes still work."""
    guest.stop_watch()
    assert guest.clocksource() == TSC_PAGE
    check_time(guest, SMP)
    guest.run(f"worker shootdown {ROUNDS}")
    check_flushes(guest)


@pytest.fixture
def watching(boot: LinuxFactory, accel: str) -> LinuxGuest:
    """A guest with a watch running."""
    guest = boot(KERNEL, smp=SMP, accel=accel, actions={"reboot": "reset"})
    guest.start("worker watch")
    guest.wait_watch(LINES)
    return guest


def test_stop_and_cont(watching: LinuxGuest) -> None:
    """Reference time and timers stand still while the machine is stopped (docs/architecture.md, "Time")."""
    watching.machine.stop()
    stopped_at = reference_time(watching)
    seen = watching.watch_lines()
    time.sleep(PAUSE)
    assert reference_time(watching) == stopped_at
    assert watching.watch_lines() == seen
    watching.machine.cont()
    check_continuity(seen[-1], watching.wait_watch(LINES, len(seen)))
    check_still_enlightened(watching)


def test_system_reset(watching: LinuxGuest) -> None:
    """A reset takes all that the guest set up away, but not time; the next boot finds a fresh hypervisor."""
    machine = watching.machine
    machine.stop()
    before = reference_time(watching)
    machine.reset()
    partition = machine.execute("query-hv")["partition"]
    assert partition["guest-os"]["encoding"] == "none"
    assert not partition["hypercall-page"]["enabled"]
    assert not partition["reference-tsc-page"]["enabled"]
    for vp in machine.execute("query-hv-vps"):
        assert not vp["apic-assist-page"]["enabled"]
        assert not any(timer["enabled"] or "due" in timer for timer in vp["timers"])
    assert reference_time(watching) >= before
    machine.cont()
    watching.wait_ready()
    check_detection(watching, SMP)
    check_time(watching, SMP)
    watching.run(f"worker shootdown {ROUNDS}")
    check_flushes(watching)
    assert watching.power_off() == 0


def add_disk(machine: SyncMachine, path: Path) -> str:
    """Give the machine an empty qcow2 image, made by QEMU itself; return the name of its node."""
    machine.run_job("blockdev-create", {"options": {"driver": "file", "filename": str(path), "size": 0}})
    machine.execute("blockdev-add", {"driver": "file", "node-name": "file", "filename": str(path)})
    machine.run_job("blockdev-create", {"options": {"driver": "qcow2", "file": "file", "size": DISK_SIZE}})
    machine.execute("blockdev-add", {"driver": "qcow2", "node-name": "disk", "file": "file"})
    return "disk"


def test_snapshot(watching: LinuxGuest, tmp_path: Path) -> None:
    """A snapshot of the running machine holds all of the hypervisor's state, time and armed timers included."""
    machine = watching.machine
    disk = add_disk(machine, tmp_path / "disk.qcow2")
    before = reference_time(watching)
    saved = watching.watch_lines()[-1]
    machine.save_snapshot("running", disk)
    after = reference_time(watching)
    check_continuity(saved, watching.wait_watch(LINES, len(watching.watch_lines())))
    machine.stop()
    last = watching.watch_lines()[-1]
    machine.load_snapshot("running", disk)
    assert before <= reference_time(watching) <= after
    count = len(watching.watch_lines())
    machine.cont()
    lines = watching.wait_watch(LINES, count)
    assert lines[0].time < last.time, "the guest did not go back"
    check_continuity(saved, lines)
    check_still_enlightened(watching)


def test_migration(watching: LinuxGuest, accel: str, hv_machine: HvMachineFactory, tmp_path: Path) -> None:
    """A machine that is saved to a file goes on in another QEMU, whose own clocks stand elsewhere."""
    state = tmp_path / "state"
    watching.machine.save_to_file(state)
    saved, at = watching.watch_lines()[-1], reference_time(watching)
    commands = watching.commands
    assert watching.machine.quit() == 0
    arrived = hv_machine(**vars(options(KERNEL, smp=SMP, accel=accel, incoming="defer", paused=True)))
    guest = LinuxGuest(arrived, commands)
    arrived.load_from_file(state)
    assert reference_time(guest) == at
    arrived.cont()
    check_continuity(saved, guest.wait_watch(LINES))
    check_still_enlightened(guest)
    assert guest.power_off() == 0
