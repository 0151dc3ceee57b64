# SPDX-License-Identifier: GPL-2.0-or-later
"""A debugger looks at a child's virtual processor as at any CPU (debug_guest.c)."""

from __future__ import annotations

import base64
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from gdb_remote import GdbRemote
from guest_image import build_image

from qemu_hv.machine import SyncMachine
from qemu_hv.pytest_plugin import HvMachineFactory

HERE = Path(__file__).resolve().parent

ROOT_VPS = 2
COUNTER = 0x900
WORD = 0x800
CHILDS_RAX = 0x1234ABCD
# The child's loop: inc %rbx; nop; jmp
LOOP = (0, 3, 4)


class Scene(NamedTuple):
    """A machine that a debugger has stopped: the root's first VP and the child's, and the page that both execute."""

    machine: SyncMachine
    gdb: GdbRemote
    root: int
    child: int
    page: int
    partition: int

    def root_count(self) -> int:
        """How often the root has called its function."""
        return int(struct.unpack("<Q", self.gdb.read(self.root, self.page + COUNTER, 8))[0])

    def child_count(self) -> int:
        """How often the child has gone round its loop."""
        return self.gdb.registers(self.child)["rbx"]

    def step_over_breakpoint(self, thread: int) -> None:
        """Go on behind a breakpoint that the thread stands at, as gdb does."""
        self.gdb.remove_breakpoint(thread, self.page)
        assert self.gdb.step(thread) == thread
        self.gdb.insert_breakpoint(thread, self.page)


@pytest.fixture(params=["tcg,thread=multi", "tcg,thread=single"])
def scene(request: pytest.FixtureRequest, hv_machine: HvMachineFactory, tmp_path: Path) -> Iterator[Scene]:
    """Give a machine whose root and child run, stopped by a debugger."""
    path = tmp_path / "gdb"
    machine = hv_machine(
        kernel=build_image(HERE / "debug_guest.c", 64, root=True).path,
        memory="256M",
        smp=ROOT_VPS,
        console="debugcon",
        accel=request.param,
        append="generation=current",
        hypervisor={"role": "root"},
        extra=["-chardev", f"socket,id=gdb,path={path},server=on,wait=off", "-gdb", "chardev:gdb"],
    )
    page, partition = machine.wait_for(r"^page (\w+) of partition (\d+)").groups()
    time.sleep(0.2)  # both have run for a while
    with GdbRemote(path) as gdb:
        root, *_, child = sorted(gdb.threads())
        yield Scene(machine, gdb, root, child, int(page, 16), int(partition))


def test_threads_and_registers(scene: Scene) -> None:
    """One thread for each VP; the child's has the child's registers."""
    assert len(scene.gdb.threads()) == ROOT_VPS + 1
    assert scene.machine.execute("query-status")["running"] is False
    registers = scene.gdb.registers(scene.child)
    assert registers["rax"] == CHILDS_RAX
    assert registers["rip"] - scene.page in LOOP
    assert registers["rbx"] > 0
    assert scene.gdb.registers(scene.root)["rax"] != CHILDS_RAX


def test_memory(scene: Scene) -> None:
    """The same virtual address is another page in the child; what is written there stays there."""
    at = scene.page + WORD
    roots = scene.gdb.read(scene.root, at, 8)
    childs = scene.gdb.read(scene.child, at, 8)
    assert (roots, childs) == (b"the root", b"he child")
    scene.gdb.write(scene.child, at, b"changed!")
    assert scene.gdb.read(scene.child, at, 8) == b"changed!"
    assert scene.gdb.read(scene.root, at, 8) == roots
    memory = scene.machine.execute("hv-memory-read", {"partition": scene.partition, "gpa": at, "size": 8})
    assert base64.b64decode(memory["data"]) == b"changed!"


def test_memory_that_a_child_does_not_have(scene: Scene) -> None:
    """Its page tables map the address, its second stage does not."""
    scene.gdb.select(scene.child)
    assert scene.gdb.ask(f"m{scene.page + 0x1000:x},8").startswith("E")
    assert len(scene.gdb.read(scene.root, scene.page + 0x1000, 8)) == 8


def test_single_steps(scene: Scene) -> None:
    """An instruction at a time, and the root stands still meanwhile."""
    before, root_before = scene.gdb.registers(scene.child), scene.root_count()
    turns = 4
    offsets = []
    for _ in range(turns * len(LOOP)):
        assert scene.gdb.step(scene.child) == scene.child
        offsets.append(scene.gdb.registers(scene.child)["rip"] - scene.page)
    first = LOOP.index(before["rip"] - scene.page)
    assert offsets == [LOOP[(first + 1 + number) % len(LOOP)] for number in range(len(offsets))]
    assert scene.child_count() == before["rbx"] + turns
    assert scene.root_count() == root_before


@pytest.mark.parametrize("of", ["child", "root"])
def test_breakpoint(scene: Scene, of: str) -> None:
    """It stops those that run the same guest, and nobody else who executes the address."""
    thread = scene.child if of == "child" else scene.root
    count_of_other = scene.root_count if of == "child" else scene.child_count
    before = count_of_other()
    scene.gdb.insert_breakpoint(thread, scene.page)
    for number in range(200):
        if number:
            scene.step_over_breakpoint(thread)
        scene.gdb.resume()
        assert scene.gdb.wait() == thread
        assert scene.gdb.registers(thread)["rip"] == scene.page
        if number >= 5 and count_of_other() != before:
            break
    # The other one has come by meanwhile.
    assert count_of_other() > before
    scene.gdb.remove_breakpoint(thread, scene.page)
    check_both_run(scene)


def check_both_run(scene: Scene) -> None:
    """The machine goes on, and stops when the debugger wants it to."""
    before = scene.root_count(), scene.child_count()
    scene.gdb.resume()
    time.sleep(0.5)
    scene.gdb.interrupt()
    assert scene.root_count() > before[0]
    assert scene.child_count() > before[1]


def test_interruption(scene: Scene) -> None:
    """Nobody runs while the debugger has stopped the machine."""
    check_both_run(scene)
    before = scene.root_count(), scene.child_count()
    time.sleep(0.2)
    assert (scene.root_count(), scene.child_count()) == before
