# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU is killed while ten children run (many_guest.c): nothing of it is left."""

from __future__ import annotations

import os
import re
import signal
import tempfile
from pathlib import Path

import pytest
from guest_image import build_image
from kvm_differences import kvm_is_usable
from kvm_root import kvm_root_options

from qemu_hv.pytest_plugin import HvMachineFactory

HERE = Path(__file__).resolve().parent
CHILDREN = 10
# What a process may hold that the kernel takes back by itself: it has no name in any folder.
NAMELESS = re.compile(r"(socket|pipe|anon_inode|/memfd|/dmabuf):|.* \(deleted\)$|/dev/(null|kvm|pts/.*|urandom)$")


def children_of(process: int) -> set[int]:
    """Return what a process has started."""
    return {
        int(child)
        for task in Path(f"/proc/{process}/task").iterdir()
        for child in (task / "children").read_text().split()
    }


def named_files(process: int) -> set[Path]:
    """Return the files that a process has open for writing, or shares the memory of, and that have a name."""
    found = set()
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        target = os.readlink(descriptor)
        (flags,) = re.findall(r"^flags:\s+(\d+)", Path(f"/proc/{process}/fdinfo/{descriptor.name}").read_text(), re.M)
        if int(flags, 8) & os.O_ACCMODE != os.O_RDONLY and not NAMELESS.match(target):
            found.add(Path(target))
    for line in Path(f"/proc/{process}/maps").read_text().splitlines():
        words = line.split(maxsplit=5)
        if len(words) > 5 and words[1][3] == "s" and not NAMELESS.match(words[5]):
            found.add(Path(words[5]))
    return found


def everything_in(folder: Path) -> set[Path]:
    """Return all names in a folder but those of folders."""
    return {name for name in folder.rglob("*") if not name.is_dir()}


def bound_sockets(process: int) -> set[str]:
    """Return the paths that a process has bound sockets to."""
    inodes = set()
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        if match := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(descriptor)):
            inodes.add(match[1])
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return {words[7] for words in lines if len(words) > 7 and words[6] in inodes}


@pytest.mark.parametrize("accel", ["tcg", "kvm"])
def test_killed_machine_leaves_nothing(
    accel: str, hv_machine: HvMachineFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process, file, FIFO, shared memory or socket; what `qemu-hv` itself asks QEMU for, `qemu-hv` removes."""
    if accel == "kvm" and not kvm_is_usable():
        pytest.skip("there is no usable /dev/kvm here")
    image = build_image(HERE / "many_guest.c", 64, root=True).path
    options = kvm_root_options(image)
    if accel == "tcg":
        options.update(accel="tcg", machine="q35", cpu=None, kernel=image, append="generation=current", extra=[])
    temporary, home = tmp_path / "t", tmp_path / "home"
    temporary.mkdir()
    home.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", tempfile.gettempdir())  # ours stays: a socket's path must be short
    for name in ("TMPDIR", "XDG_RUNTIME_DIR", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(temporary))
    monkeypatch.chdir(home)
    machine = hv_machine(**options)
    machine.wait_for("^ready", timeout=60)
    assert len(machine.execute("query-hv-partitions")) == CHILDREN + 1

    process, asked_for = machine.machine.pid, machine.machine.control_socket
    assert process is not None
    assert children_of(process) == set()
    names = named_files(process) | {Path(name) for name in bound_sockets(process)}
    assert asked_for in names
    assert {name for name in names if asked_for.parent not in name.parents} == set()
    os.kill(process, signal.SIGKILL)
    assert machine.wait(timeout=10) == -signal.SIGKILL
    assert not Path(f"/proc/{process}").exists()
    machine.close()
    assert not asked_for.parent.exists()
    assert everything_in(temporary) | everything_in(home) == set()
