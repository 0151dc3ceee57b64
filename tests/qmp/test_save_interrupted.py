# SPDX-License-Identifier: GPL-2.0-or-later
"""Saves and restores that somebody or something ends: no half file, no half partition, no job that is left over."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from test_partitions import HERE, Start, child_of, runs
from test_save_jobs import qemu_hv, root, start_root

from qemu_hv.machine import SyncMachine
from qemu_hv.policy.save_restore import SavedChild

__all__ = ["root", "start_root"]  # fixtures

PATIENCE = 20.0


def interrupted(
    machine: SyncMachine, signal: str, step: int, command: str, *words: str, to_machine: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run the command line with a signal to it, or to the machine, at a step."""
    pid = machine.machine.pid if to_machine else 0
    line = [sys.executable, str(HERE / "interrupted.py"), signal, str(pid), str(step)]
    line += [command, "--qmp", str(machine.machine.control_socket), *words]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def wait_for_jobs(machine: SyncMachine) -> None:
    """Until those that nobody waits for any more have ended; they are dismissed."""
    deadline = time.monotonic() + PATIENCE
    while jobs := machine.execute("query-jobs"):
        assert time.monotonic() < deadline, jobs
        for job in jobs:
            if job["status"] == "concluded":
                machine.execute("job-dismiss", {"id": job["id"]})
        time.sleep(0.01)


def check_child(machine: SyncMachine, child: int) -> None:
    """It is there as a whole, and runs."""
    assert [p["id"] for p in machine.execute("query-hv-partitions")] == [1, child]
    assert runs(machine)


def sound(path: Path) -> bool:
    """Whether it is a whole file. Raises what is wrong otherwise."""
    return bool(SavedChild.open(path).state)


@pytest.mark.parametrize("signal", ["SIGINT", "SIGKILL"])
@pytest.mark.parametrize("command", ["save", "restore"])
def test_client_ends(root: SyncMachine, tmp_path: Path, signal: str, command: str) -> None:
    """Ctrl-C, and kill -9, at every step: a whole child, a whole file, and one line for who has pressed Ctrl-C."""
    child, path = child_of(root)["id"], tmp_path / "child"
    assert qemu_hv(root, "save", str(child), str(path)) == 0
    words = [str(child), str(path)] if command == "save" else [str(path)]
    ended = changed = 0
    # Behind a command and before the next one are the same to a process that is killed.
    for step in range(1, 100, 1 if signal == "SIGINT" else 2):
        before = path.read_bytes()
        result = interrupted(root, signal, step, command, *words)
        if result.returncode == 0:
            break
        ended += 1
        assert result.returncode == (130 if signal == "SIGINT" else -9)
        assert result.stderr == ("qemu-hv: interrupted\n" if signal == "SIGINT" else "")
        if signal == "SIGINT":
            assert root.execute("query-jobs") == []
            assert [p.name for p in tmp_path.iterdir()] == ["child"]
        wait_for_jobs(root)
        assert sound(path)
        changed += path.read_bytes() != before
        check_child(root, child)
    assert ended >= 3
    assert changed <= 1, "only behind the last block, when nothing is left to be waited for"
    assert root.execute("query-jobs") == []


@pytest.mark.parametrize(
    ("command", "step"), [("save", 5), ("save", 6), ("save", 7), ("restore", 2), ("restore", 3), ("restore", 4)]
)
def test_machine_ends(start_root: Start, tmp_path: Path, command: str, step: int) -> None:
    """Kill -9 of QEMU: one line, and the file that was there."""
    machine, path = start_root(), tmp_path / "child"
    child = str(child_of(machine)["id"])
    assert qemu_hv(machine, "save", child, str(path)) == 0
    before = path.read_bytes()
    words = [child, str(path)] if command == "save" else [str(path)]
    result = interrupted(machine, "SIGKILL", step, command, *words, to_machine=True)
    assert result.returncode == 1
    assert "ended or its monitor broke" in result.stderr and result.stderr.count("\n") == 1
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["child"]


def on_terminal(*line: str) -> tuple[int, str]:
    """Run it with a terminal as its standard error; exit status, and what the terminal got."""
    ours, its = pty.openpty()
    environment: dict[str, Any] = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=its, env=environment) as process:
        os.close(its)
        shown = b""
        with contextlib.suppress(OSError):  # that is how a terminal ends that nobody has open any more
            while part := os.read(ours, 4096):
                shown += part
        os.close(ours)
    return process.returncode, shown.decode()


def test_progress_bar(root: SyncMachine, tmp_path: Path) -> None:
    """A terminal gets a bar; Ctrl-C in the middle ends it, with a line."""
    child, path, address = str(child_of(root)["id"]), tmp_path / "child", str(root.machine.control_socket)
    status, shown = on_terminal(sys.executable, "-m", "qemu_hv", "save", "--qmp", address, child, str(path))
    assert status == 0 and f"saving partition {child}, MiB" in shown and "\N{BOX DRAWINGS HEAVY HORIZONTAL}" in shown
    status, shown = on_terminal(sys.executable, "-m", "qemu_hv", "restore", "--qmp", address, str(path))
    assert status == 0 and "restoring child, MiB" in shown
    tool = [sys.executable, str(HERE / "interrupted.py"), "SIGINT", "0", "7"]
    status, shown = on_terminal(*tool, "save", "--qmp", address, child, str(path))
    assert status == 130 and shown.rstrip().endswith("qemu-hv: interrupted")
    assert runs(root)
