# SPDX-License-Identifier: GPL-2.0-or-later
"""Time of a guest that is stopped, saved and restored, with TCG and with KVM: it stands meanwhile, and all of its
clocks go on together from there (clock_guest.c)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from guest_image import build_image
from kvm_differences import kvm_is_usable

from qemu_hv.machine import SyncMachine
from qemu_hv.pytest_plugin import HvMachineFactory

HERE = Path(__file__).resolve().parent
WAYS: dict[str, dict[str, Any]] = {
    "tcg": {},
    "kvm": {"accel": "kvm", "cpu": "qemu64"},
    "kvm-split": {"accel": "kvm", "cpu": "qemu64", "machine": "q35,kernel-irqchip=split"},
    "kvm-off": {"accel": "kvm", "cpu": "qemu64", "machine": "q35,kernel-irqchip=off"},
}
LINE = re.compile(r"^time=(\d+) ticks=(\d+) looks=(\d+)/(\d+)\n", re.MULTILINE)
SECOND = 10_000_000  # of reference time

Start = Callable[..., SyncMachine]


@pytest.fixture(name="start", params=WAYS)
def start_clock_guest(request: pytest.FixtureRequest, hv_machine: HvMachineFactory) -> Start:
    """Give a function that starts the guest with two VPs."""
    options = WAYS[request.param]
    if options and not kvm_is_usable():
        pytest.skip("there is no usable /dev/kvm here")
    image = build_image(HERE / "clock_guest.c", 64)

    def start(**more: Any) -> SyncMachine:
        return hv_machine(kernel=image.path, memory="128M", console="debugcon", smp=2, **options, **more)

    return start


def goes_on(machine: SyncMachine) -> tuple[int, int]:
    """Wait for two more lines of the guest; return their times.

    Raises:
        AssertionError: the guest says that its clocks disagree, or time or a VP stands.
    """
    before = len(LINE.findall(machine.console_text))
    while len(LINE.findall(machine.console_text)) < before + 2:
        machine.wait_for(LINE, timeout=60)
    assert "FAILED" not in machine.console_text, machine.console_text
    first, second = (tuple(map(int, line)) for line in LINE.findall(machine.console_text)[-2:])
    assert all(new > old for old, new in zip(first, second)), (first, second)
    return first[0], second[0]


def reference_time(machine: SyncMachine) -> int:
    """Return the partition's time, in 100 ns."""
    return int(machine.execute("query-hv")["partition"]["reference-time"])


def test_time_stands_while_stopped(start: Start) -> None:
    """Reference time does, and the guest's clocks agree about it afterwards."""
    machine = start()
    goes_on(machine)
    for _ in range(3):
        machine.stop()
        stopped = reference_time(machine)
        time.sleep(0.5)
        assert reference_time(machine) == stopped
        begin = time.monotonic()
        machine.cont()
        told = goes_on(machine)[1]
        machine.stop()
        now, passed = reference_time(machine), time.monotonic() - begin
        assert told <= now <= stopped + passed * SECOND * 1.001


def test_time_goes_on_after_loading(start: Start, tmp_path: Path) -> None:
    """From a file, in another process."""
    machine = start()
    goes_on(machine)
    machine.stop()
    saved = reference_time(machine)
    machine.save_to_file(tmp_path / "state")
    other = start(incoming="defer")
    other.load_from_file(tmp_path / "state")
    assert 0 <= reference_time(other) - saved < SECOND
    other.cont()
    first, _ = goes_on(other)
    assert first >= saved


def test_time_of_a_snapshot(start: Start, tmp_path: Path) -> None:
    """Going back to a snapshot goes back in time, for all clocks."""
    machine, disk = start(), str(tmp_path / "disk")
    machine.run_job("blockdev-create", {"options": {"driver": "file", "filename": disk, "size": 0}})
    machine.execute("blockdev-add", {"driver": "file", "filename": disk, "node-name": "file"})
    machine.run_job("blockdev-create", {"options": {"driver": "qcow2", "file": "file", "size": 1 << 20}})
    machine.execute("blockdev-add", {"driver": "qcow2", "file": "file", "node-name": "disk"})
    goes_on(machine)
    machine.stop()
    machine.save_snapshot("then", "disk")
    then = reference_time(machine)
    machine.cont()
    goes_on(machine)
    machine.stop()
    assert reference_time(machine) > then
    machine.load_snapshot("then", "disk")
    assert reference_time(machine) == pytest.approx(then, abs=SECOND / 10)
    # The guest's own memory of the latest time went back too.
    machine.cont()
    goes_on(machine)
