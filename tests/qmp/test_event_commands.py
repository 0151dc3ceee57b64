# SPDX-License-Identifier: GPL-2.0-or-later
"""The operator's event log over QMP, and `qemu-hv events`, on machines that run."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from guest_image import build_image
from operator_machine import Operator

from qemu_hv import cli
from qemu_hv.event_log import Decoder, Event
from qemu_hv.machine import CommandFailed, SyncMachine
from qemu_hv.pytest_plugin import HvMachineFactory

HERE = Path(__file__).resolve().parent


def read(machine: SyncMachine) -> list[Event]:
    """Everything that has been recorded; the log is off, or nothing happens."""
    events: list[Event] = []
    while True:
        batch = machine.execute("hv-events-read", {})
        if not batch["data"]:
            return sorted(events, key=lambda event: event.tsc)
        events += Decoder().decode(base64.b64decode(batch["data"]))


def test_guest(operator: Operator) -> None:
    """With role=guest: a message from the operator, what the guest does then, and names of it all."""
    m = operator.machine
    assert m.execute("query-hv-events", {})["running"] is False
    operator("hv-events-start")
    state = m.execute("query-hv-events", {})
    assert state["running"] and "partition" not in state
    assert {"Hypercall", "Scheduler", "Messages"} <= set(state["groups"])
    operator.order("unknown-call")
    m.wait_for("status=2", timeout=20)
    operator("hv-events-stop")
    events = read(m)
    calls = [e for e in events if e.name == "HC_HYPERCALL"]
    ends = [e for e in events if e.name == "HYPERCALL_END"]
    assert len(calls) == len(ends) == 1
    assert (calls[0].partition, calls[0].vp, calls[0].lp) == (1, 0, 0)
    assert calls[0].values["rip"] != 0
    assert ends[0].values["result"] == 2
    assert ends[0].tsc > calls[0].tsc
    posted = [e for e in events if e.name == "MESSAGE_POST"]
    delivered = [e for e in events if e.name == "MESSAGE_DELIVER"]
    assert [e.values["id"] for e in posted] == [e.values["id"] for e in delivered] == [1]
    assert any(e.name == "IM_EXTERNAL_INTERRUPT" and e.values["vector"] == 0x60 for e in events)
    assert m.execute("query-hv-events", {})["unread"] == 0


def test_choices(operator: Operator) -> None:
    """Groups, size and partition are what was asked for."""
    m = operator.machine
    operator("hv-events-start", groups=["Messages"], size=100000, partition=1)
    state = m.execute("query-hv-events", {})
    assert (state["groups"], state["size"], state["partition"]) == (["Messages"], 131072, 1)
    operator.order("unknown-call")
    m.wait_for("status=2", timeout=20)
    assert {e.group for e in read(m)} == {"Messages"}


def test_refused(operator: Operator) -> None:
    """One line that says what is wrong."""
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("hv-events-start", {"groups": ["Nonsense"]}, "no group of events 'Nonsense'; there are BootManager"),
        ("hv-events-start", {"size": 1}, "'size' is 1; it can be 4096 to 1073741824"),
        ("hv-events-start", {"size": 1 << 40}, "'size' is 1099511627776"),
        ("hv-events-read", {"max": 63}, "'max' is 63; it can be 64 to 16777216"),
        ("hv-events-read", {"max": 1 << 25}, "'max' is 33554432"),
    ]
    for command, arguments, words in cases:
        with pytest.raises(CommandFailed, match=words):
            operator.machine.execute(command, arguments)
    assert operator.machine.execute("query-hv-events", {})["running"] is False


def test_without_the_object(hv_machine: HvMachineFactory) -> None:
    """A machine without a hypervisor has no log."""
    machine = hv_machine(hypervisor=None, paused=True)
    for command in ("query-hv-events", "hv-events-start", "hv-events-stop", "hv-events-read"):
        with pytest.raises(CommandFailed, match="no microsoft-hypervisor object"):
            machine.execute(command, {})


def test_overflow_in_a_running_machine(operator: Operator) -> None:
    """What nobody reads is lost and counted while the guest goes on."""
    m = operator.machine
    operator("hv-events-start", size=4096)
    operator.order("timer", 1000)
    m.wait_for("timer started", timeout=20)
    deadline = time.monotonic() + 20
    while m.execute("query-hv-events", {})["lost"] < 100 and time.monotonic() < deadline:
        time.sleep(0.01)
    operator("hv-events-stop")
    lost = sum(e.values["count"] for e in read(m) if e.name == "LOST")
    assert lost == m.execute("query-hv-events", {})["lost"] >= 100


# -- A root and its child, and the command --


@pytest.fixture
def root(hv_machine: HvMachineFactory, tmp_path: Path) -> SyncMachine:
    """Give a root whose child counts, and which looks at it now and then."""
    image = build_image(HERE / "root_guest.c", 64, root=True)
    machine = hv_machine(
        kernel=image.path,
        memory="256M",
        console="debugcon",
        append="generation=current",
        hypervisor={"role": "root"},
        extra=["-qmp", f"unix:{tmp_path / 'qmp'},server=on,wait=off"],
    )
    machine.wait_for("^ready", timeout=60)
    return machine


@contextmanager
def events_happen(machine: SyncMachine) -> Iterator[None]:
    """The child is paused and let go on again and again meanwhile."""
    child = machine.execute("query-hv-partitions")[1]["id"]
    ended = threading.Event()

    def disturb() -> None:
        while not ended.wait(0.02):
            machine.execute("hv-partition-pause", {"partition": child})
            machine.execute("hv-partition-resume", {"partition": child})

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_command(root: SyncMachine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The live view, filters, JSON, a trace, a log that is on already, and mistakes."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = cli.main(["events", "--qmp", str(tmp_path / "qmp"), *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    child = root.execute("query-hv-partitions")[1]["id"]
    path = tmp_path / "trace.json"
    with events_happen(root):
        status, out, _ = run("--seconds", "0.5", "--group", "Scheduler")
        assert status == 0
        assert out and all("SCH_CONTEXT_SWITCH" in line for line in out.splitlines())
        assert not root.execute("query-hv-events", {})["running"]

        status, out, _ = run("--seconds", "0.5", "--json", "--partition", str(child), "--name", "sch_*", "--lp", "0")
        events = [json.loads(line) for line in out.splitlines()]
        assert (status, {(e["name"], e["partition"], e["lp"]) for e in events}) == (
            0,
            {("SCH_CONTEXT_SWITCH", child, 0)},
        )
        assert run("--seconds", "0.1", "--vp", "9")[:2] == (0, "")

        status, out, _ = run("--seconds", "0.5", "--export", str(path))
        assert status == 0 and "open it with" in out
    trace = json.loads(path.read_text())["traceEvents"]
    names = {e["args"]["name"] for e in trace if e["ph"] == "M" and e["name"] == "thread_name"}
    assert "LP 0" in names
    begins = [e for e in trace if e["ph"] == "B"]
    assert any(e["name"] == f"{child}.0" for e in begins)
    assert len(begins) == sum(e["ph"] == "E" for e in trace)
    times = [e["ts"] for e in trace if "ts" in e]
    assert times == sorted(times)

    status, _, error = run("--group", "Nonsense")
    assert status == 1 and "no group of events 'Nonsense'" in error
    status, _, error = run("--seconds", "0.1", "--export", str(tmp_path / "missing" / "trace.json"))
    assert status == 1 and "cannot be written" in error

    root.execute("hv-events-start", {"groups": ["ObjectManager"]})
    status, _, error = run()
    assert status == 1 and error.count("\n") == 1 and "recording events already" in error
    root.execute("hv-partition-delete", {"partition": child})
    status, out, _ = run("--recorded")
    assert (status, out.count("OB_DELETE_PARTITION")) == (0, 1)
    assert root.execute("query-hv-events", {})["running"]
