# SPDX-License-Identifier: GPL-2.0-or-later
"""`qemu-hv save` and `restore` of a running child (root_guest.c), and the jobs behind them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from guest_image import build_image
from test_partitions import COUNTER, HERE, Start, child_of, count, runs

from qemu_hv import cli
from qemu_hv.machine import CommandFailed, SyncMachine
from qemu_hv.policy.save_restore import SavedChild
from qemu_hv.pytest_plugin import HvMachineFactory


@pytest.fixture
def start_root(hv_machine: HvMachineFactory) -> Start:
    """Give a function that starts a root and waits until its child runs."""
    image = build_image(HERE / "root_guest.c", 64, root=True)

    def start(**options: Any) -> SyncMachine:
        machine = hv_machine(
            kernel=image.path,
            memory="256M",
            console="debugcon",
            append="generation=current",
            hypervisor={"role": "root"},
            **options,
        )
        machine.wait_for("^ready", timeout=60)
        return machine

    return start


@pytest.fixture
def root(start_root: Start) -> SyncMachine:
    """Give a root whose child counts."""
    return start_root()


def qemu_hv(machine: SyncMachine, *words: str) -> int:
    """Run the command line on the machine."""
    command, *others = words
    return cli.main([command, "--qmp", str(machine.machine.control_socket), *others])


def test_goes_back(root: SyncMachine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A child is saved while it runs, goes on, and is taken back to where it was."""
    child, path = str(child_of(root)["id"]), tmp_path / "child"
    before = count(root)
    assert qemu_hv(root, "save", child, str(path)) == 0
    after = count(root)
    assert "4 MiB of memory" in capsys.readouterr().out
    assert runs(root), "the child goes on after it was saved"
    later = count(root)
    assert qemu_hv(root, "restore", "--pause", str(path)) == 0
    assert before <= count(root) <= after < later
    assert not runs(root)
    assert child_of(root)["paused"]
    root.execute("hv-partition-resume", {"partition": int(child)})
    assert runs(root)
    assert [p["id"] for p in root.execute("query-hv-partitions")] == [1, int(child)]


def test_again_and_again(root: SyncMachine, tmp_path: Path) -> None:
    """Ten times in a row, also after the child was deleted."""
    child, path = child_of(root)["id"], tmp_path / "child"
    for turn in range(10):
        assert qemu_hv(root, "save", str(child), str(path)) == 0
        if turn % 2:
            root.execute("hv-partition-delete", {"partition": child})
        assert qemu_hv(root, "restore", str(path)) == 0
        assert runs(root)


def test_damaged_file_changes_nothing(root: SyncMachine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong is told in one line, and the child goes on."""
    child, path = str(child_of(root)["id"]), tmp_path / "child"
    assert qemu_hv(root, "save", child, str(path)) == 0
    saved, data = SavedChild.open(path), path.read_bytes()
    capsys.readouterr()
    for section in saved.sections:
        damaged = bytearray(data)
        damaged[section.position] ^= 1
        path.write_bytes(damaged)
        at = count(root)
        assert qemu_hv(root, "restore", str(path)) == 1
        error = capsys.readouterr().err
        assert f"section '{section.name}'" in error and error.count("\n") == 1
        assert count(root) >= at
    assert runs(root)


def test_files_are_shown(root: SyncMachine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`inspect` lists the sections, `diff` names what changed: registers, and the page with the counter."""
    child, paths = str(child_of(root)["id"]), [str(tmp_path / name) for name in ("old", "new")]
    for path in paths:
        assert qemu_hv(root, "save", child, path) == 0
        assert runs(root)
    capsys.readouterr()
    assert cli.main(["inspect", paths[0]]) == 0
    shown = capsys.readouterr().out
    for text in ("all sections are sound", "partition: 3", "virtual processors: 0", "state", "pages"):
        assert text in shown
    assert cli.main(["diff", paths[0], paths[0]]) == 0
    assert capsys.readouterr().out == "nothing has changed\n"
    assert cli.main(["diff", *paths]) == 1
    shown = capsys.readouterr().out
    assert "partition: reference time: 0x" in shown
    assert f"memory: mapped page {COUNTER >> 12}\n" in shown


def test_refusals(root: SyncMachine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Partitions that are not there, the root itself, and folders that are not there."""
    for partition in ("99", "1"):
        assert qemu_hv(root, "save", partition, str(tmp_path / "child")) == 1
        assert "no child partition" in capsys.readouterr().err
    assert qemu_hv(root, "save", str(child_of(root)["id"]), str(tmp_path / "no" / "child")) == 1
    assert "cannot write" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert root.execute("query-jobs") == []
    assert runs(root)


def wait_for_job(machine: SyncMachine, job: str) -> Any:
    """The job when it has concluded; it is dismissed."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        (info,) = machine.execute("query-jobs")
        if info["status"] == "concluded":
            machine.execute("job-dismiss", {"id": job})
            return info
        time.sleep(0.02)
    pytest.fail("the job does not end")


def test_jobs(root: SyncMachine, tmp_path: Path) -> None:
    """By QMP alone: progress, an ordinary file, a file that is none, and cancelling."""
    child, path = child_of(root)["id"], tmp_path / "transfer"
    root.execute("hv-partition-save", {"job-id": "a", "partition": child, "path": str(path)})
    info = wait_for_job(root, "a")
    assert info["type"] == "hv-partition-save" and "error" not in info
    assert info["current-progress"] == info["total-progress"] >= path.stat().st_size
    root.execute("hv-partition-restore", {"job-id": "b", "path": str(path)})
    assert "error" not in wait_for_job(root, "b")
    assert runs(root)
    for content in (b"", b"nothing of the kind" * 100, path.read_bytes()[:-1], path.read_bytes()[:100]):
        path.write_bytes(content)
        root.execute("hv-partition-restore", {"job-id": "c", "path": str(path)})
        assert wait_for_job(root, "c")["error"]
        assert runs(root)
    os.mkfifo(tmp_path / "fifo")
    for command, arguments in (("hv-partition-save", {"partition": child}), ("hv-partition-restore", {})):
        root.execute(command, {"job-id": "e", "path": str(tmp_path / "fifo"), **arguments})
        assert "is no ordinary file" in wait_for_job(root, "e")["error"]
    with pytest.raises(CommandFailed, match="no child partition 99"):
        root.execute("hv-partition-save", {"job-id": "d", "partition": 99, "path": str(path)})


def test_into_a_new_machine(root: SyncMachine, start_root: Start, tmp_path: Path) -> None:
    """Another QEMU whose root has the same memory layout takes the child in place of its own."""
    child, path = child_of(root)["id"], tmp_path / "child"
    while count(root) < 1_000_000:
        time.sleep(0.01)
    assert qemu_hv(root, "save", str(child), str(path)) == 0
    saved = count(root)
    root.quit()
    other = start_root()
    assert qemu_hv(other, "restore", "--pause", str(path)) == 0
    assert 1_000_000 <= count(other) <= saved
    other.execute("hv-partition-resume", {"partition": child})
    assert runs(other)
