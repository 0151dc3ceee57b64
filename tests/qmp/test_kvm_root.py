# SPDX-License-Identifier: GPL-2.0-or-later
"""A root on KVM and its child (root_guest.c): what the operator can do on TCG, and what only KVM cannot do."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gdb_remote import GdbRemote
from guest_image import build_image
from kvm_differences import kvm_is_usable
from kvm_root import kvm_root_options
from operator_machine import COMMAND_PORT, Operator
from test_partitions import CODE, COUNTER, HERE, child_of, count, runs
from test_save_jobs import qemu_hv

from qemu_hv.machine import SyncMachine
from qemu_hv.pytest_plugin import HvMachineFactory

pytestmark = pytest.mark.skipif(not kvm_is_usable(), reason="there is no usable /dev/kvm here")

BREAKPOINTS = "breakpoints and watchpoints are not possible in CPU 1"
STEPS = "single steps are not possible in CPU 1"


def start(hv_machine: HvMachineFactory, **options: Any) -> SyncMachine:
    """Start a root and wait until its child runs."""
    given = kvm_root_options(build_image(HERE / "root_guest.c", 64, root=True).path)
    extra = given["extra"] + options.pop("extra", [])
    machine = hv_machine(**{**given, **options, "extra": extra})
    machine.wait_for("^ready", timeout=60)
    assert runs(machine)
    return machine


@pytest.fixture
def root(hv_machine: HvMachineFactory) -> SyncMachine:
    """Give a root whose child counts."""
    return start(hv_machine)


def test_operator(root: SyncMachine) -> None:
    """Registers of a running child, pause, interrupt, resume, and its end."""
    partition = {"partition": child_of(root)["id"]}
    vp = {**partition, "vp": 0}
    registers = {entry["name"]: int(entry["value"], 16) for entry in root.execute("query-hv-registers", vp)}
    assert registers["HvX64RegisterRip"] in (5, 10)
    assert registers["HvX64RegisterCs"] & (1 << 64) - 1 == CODE
    assert runs(root)
    root.execute("hv-partition-pause", partition)
    time.sleep(0.05)
    stopped = count(root)
    before = root.execute("query-hv-vps", partition)[0]["counters"]["interrupts"]
    root.execute("hv-interrupt-inject", {**vp, "vector": 0x40})
    assert root.execute("query-hv-vps", partition)[0]["counters"]["interrupts"] == before + 1
    assert count(root) == stopped
    root.execute("hv-partition-resume", partition)
    assert runs(root)
    root.execute("hv-partition-delete", partition)
    assert [entry["id"] for entry in root.execute("query-hv-partitions")] == [1]


def test_save_and_restore(root: SyncMachine, hv_machine: HvMachineFactory, tmp_path: Path) -> None:
    """TLFS chapter 17: taken back to where it was, made anew after it was deleted, and in another machine."""
    child, path = str(child_of(root)["id"]), tmp_path / "child"
    before = count(root)
    assert qemu_hv(root, "save", child, str(path)) == 0
    after = count(root)
    assert runs(root)
    assert qemu_hv(root, "restore", "--pause", str(path)) == 0
    assert before <= count(root) <= after
    assert not runs(root)
    root.execute("hv-partition-delete", {"partition": int(child)})
    assert qemu_hv(root, "restore", str(path)) == 0
    assert runs(root)
    other = start(hv_machine)
    other.execute("hv-partition-delete", {"partition": child_of(other)["id"]})
    assert qemu_hv(other, "restore", str(path)) == 0
    assert runs(other)
    assert count(other) > before


def test_services(root: SyncMachine, capsys: pytest.CaptureFixture[str]) -> None:
    """Statistics count what the child costs, and the operator's event log and rules of fault injection are there."""
    capsys.readouterr()

    def run_time() -> int:
        [vp] = root.execute("query-hv-vps", {"partition": child_of(root)["id"]})
        return int(vp["run-time"])

    before = run_time()
    assert runs(root)
    assert run_time() > before
    assert qemu_hv(root, "stats", "--json") == 0
    assert json.loads(capsys.readouterr().out)
    root.execute("hv-inject-add", {"id": "r", "point": "hypercall", "action": "gp", "target": "HvPostMessage"})
    assert [entry["rule"]["id"] for entry in root.execute("query-hv-injections")] == ["r"]
    root.execute("hv-inject-remove", {})
    assert root.execute("query-hv-injections") == []


def test_what_a_child_writes_is_dirty(root: SyncMachine, hv_machine: HvMachineFactory, tmp_path: Path) -> None:
    """The child counts while the machine's memory is written to a file, which in the end has what it counted last."""
    state = tmp_path / "state"
    before = count(root)
    root.execute("migrate-set-parameters", {"max-bandwidth": 64 << 20})
    root.execute("migrate", {"uri": f"file:{state}"})
    deadline = time.monotonic() + 30
    while (status := root.execute("query-migrate")["status"]) not in ("completed", "failed"):
        assert time.monotonic() < deadline
    last = count(root)  # it stands still now
    assert (status, last > before) == ("completed", True)
    options = kvm_root_options(build_image(HERE / "root_guest.c", 64, root=True).path)
    arrived = hv_machine(**options, incoming="defer", paused=True)
    arrived.load_from_file(state)
    assert count(arrived) == last


def test_debugger(hv_machine: HvMachineFactory, tmp_path: Path) -> None:
    """It sees a child's registers and memory; breakpoints and steps there are refused, with a line that says so."""
    path = tmp_path / "gdb"
    machine = start(
        hv_machine, extra=["-chardev", f"socket,id=gdb,path={path},server=on,wait=off", "-gdb", "chardev:gdb"]
    )
    with GdbRemote(path) as gdb:
        first, child = sorted(gdb.threads())
        assert gdb.registers(child)["rip"] in (5, 10)
        (counter,) = struct.unpack("<I", gdb.read(child, COUNTER, 4))
        assert counter > 0
        gdb.select(child)
        assert gdb.ask(f"Z0,{CODE + 5:x},1").startswith("E")
        assert BREAKPOINTS in machine.stderr
        assert gdb.step(child) == child
        assert struct.unpack("<I", gdb.read(child, COUNTER, 4)) == (counter,)
        assert STEPS in machine.stderr
        gdb.select(first)
        gdb.must("Z0,200000,1")  # the machine's own CPUs have theirs, for all that there are children
        gdb.must("z0,200000,1")
        gdb.resume()
        assert runs(machine)


def test_injected_fault(start_operator: Callable[..., Operator]) -> None:
    """A guest on KVM gets the status that a rule says."""
    image = build_image(HERE / "operator_guest.c", 64).path
    options = {**kvm_root_options(image), "hypervisor": {}, "kernel": None}
    operator = start_operator(**options)
    rule = {"id": "r", "point": "hypercall", "target": "HvPostMessage", "action": "status", "status": "0xb", "nth": 2}
    operator("hv-inject-add", **rule)
    operator("hv-connect-port", connection_id=9, port_id=COMMAND_PORT)
    seen = []
    for _ in range(3):
        operator.order("post", 9)
        seen.append(operator.machine.wait_for(r"posted status=(\w+)\n")[1])
    assert seen == ["0", "b", "0"]
