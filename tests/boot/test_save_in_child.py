# SPDX-License-Identifier: GPL-2.0-or-later
"""A stock kernel under load in a child is saved and restored, into the same QEMU and into a new one, repeatedly."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from linux_guest import LinuxGuest, Watch, options
from test_state import LINES

from qemu_hv import child_boot, cli
from qemu_hv.machine import SyncMachine
from qemu_hv.policy.save_restore import SavedChild
from qemu_hv.pytest_plugin import HvMachineFactory

ROUNDS = int(os.environ.get("HV_SAVE_ROUNDS", "2"))
"""How often each; 20 is what a release is tested with."""
SMP = 2
CHILD_ID = "2"
MEBIBYTES = 160  # the checksum is of 64 of them


def passes(guest: LinuxGuest) -> int:
    """How many checksums the guest has computed on this console, all of them right."""
    text = guest.machine.console_text
    assert "WRONG" not in text
    return len(re.findall(r"checksum \d+ right", text))


def qemu_hv(machine: SyncMachine, command: str, *words: str) -> None:
    """Run the command line on the machine."""
    assert cli.main([command, "--qmp", str(machine.machine.control_socket), *words]) == 0


def check_clocks(guest: LinuxGuest, before: Watch) -> None:
    """Clock and timers of all VPs go on."""
    count = len(guest.watch_lines())
    lines = guest.wait_watch(LINES, count)
    assert lines[0].time >= before.time
    assert max(line.step_back for line in lines) == 0
    assert all(last > first for first, last in zip(before.wakeups, lines[-1].wakeups)), "a VP's timer has stopped"


def check_goes_on(guest: LinuxGuest, before: Watch) -> None:
    """All that, and the checksums go on too."""
    done = passes(guest)
    check_clocks(guest, before)
    guest.machine.wait_for(r"checksum \d+ right")
    assert passes(guest) > done


def test_again_and_again(hv_machine: HvMachineFactory, tmp_path: Path) -> None:
    """The clock does not step back, timers fire, and a checksum over 64 MiB goes on right."""
    machine = child_boot.in_child(options("6.1", smp=SMP, memory=f"{MEBIBYTES}M"))
    guest = LinuxGuest(hv_machine(**vars(machine))).wait_ready()
    path = str(tmp_path / "child")
    guest.start("worker checksum & worker watch")
    guest.wait_watch(LINES)
    for turn in range(ROUNDS):
        before = guest.watch_lines()[-1]
        qemu_hv(guest.machine, "save", CHILD_ID, path)
        check_clocks(guest, before)
        if turn % 2 == 0:
            qemu_hv(guest.machine, "restore", path)
            check_goes_on(guest, before)
            continue
        commands = guest.commands
        guest.machine.quit()
        arrived = hv_machine(**vars(replace(machine, append="restore=yes")))
        arrived.wait_for("minivmm: waits for a child")
        qemu_hv(arrived, "restore", path)
        guest = LinuxGuest(arrived, commands)
        guest.wait_watch(1)
        check_goes_on(guest, before)
    assert SavedChild.open(Path(path)).info["pages"] >= MEBIBYTES << 8
