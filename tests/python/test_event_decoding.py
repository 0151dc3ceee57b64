# SPDX-License-Identifier: GPL-2.0-or-later
"""Decoding, filtering and showing events, and traces of them."""

from __future__ import annotations

import io
import json
import struct
from collections import defaultdict
from typing import Any

import pytest

from qemu_hv.event_log import Decoder, Event, EventFilter, Names, describe, group_names
from qemu_hv.event_trace import trace_of, write_trace
from qemu_hv.events import line

FREQUENCY = 1_000_000_000
NONE = 0xFFFFFFFF


def entry(kind: int, tsc: int, *values: int, vp: int = 0, lp: int = 0, partition: int = 1) -> bytes:
    """An entry of the operator's log."""
    head = struct.pack("<HHIQII", kind, 24 + 8 * len(values), vp, tsc, lp, partition)
    return head + struct.pack(f"<{len(values)}Q", *values)


HYPERCALL, END, BEGIN, RESUME, SWITCH, POST, DELIVER, LOST = (
    0x1A,
    0x8001,
    0x8010,
    0x8011,
    0xB0,
    0x8020,
    0x8021,
    0x8000,
)
CPUID_MESSAGE = 0x80010002


def decode(*entries: bytes) -> list[Event]:
    """Events of these entries."""
    return Decoder().decode(b"".join(entries))


# -- Decoding --


def test_decode() -> None:
    """An entry's place, time and values, by the table's names."""
    (event,) = decode(entry(HYPERCALL, 77, 0x1234, 0x5C, vp=3, lp=2, partition=9))
    assert event == Event("HC_HYPERCALL", "Hypercall", 77, 2, 9, 3, {"rip": 0x1234, "input": 0x5C})


def test_decode_nobodys() -> None:
    """Without partition, VP and LP."""
    (event,) = decode(entry(0x41, 1, 5, 0, vp=NONE, lp=NONE, partition=0))
    assert (event.lp, event.partition, event.vp) == (None, None, None)
    assert event.values == {"partition": 5, "status": 0}


def test_decode_in_order() -> None:
    """Of each LP they come in their order; together they are sorted by time."""
    events = decode(entry(HYPERCALL, 5, 0, 8), entry(END, 9, 8, 0, 0), entry(HYPERCALL, 7, 0, 8, lp=1))
    assert [event.tsc for event in events] == [5, 7, 9]


def test_decode_unknown() -> None:
    """One that a later hypervisor has."""
    (event,) = decode(entry(0x9999, 1, 4, 5))
    assert (event.name, event.group, event.values) == ("0x9999", "", {"value0": 4, "value1": 5})


@pytest.mark.parametrize(
    "data", [b"\x1a", entry(HYPERCALL, 1, 2, 3)[:-1], b"\0" * 24, struct.pack("<HHIQII", 1, 28, 0, 0, 0, 0) + b"\0" * 8]
)
def test_decode_garbage(data: bytes) -> None:
    """What is not a sequence of entries is refused."""
    with pytest.raises(ValueError, match="entry"):
        Decoder().decode(data)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (entry(HYPERCALL, 0, 0xFFFF, 0x5C), "HvPostMessage at 0xffff"),
        (entry(HYPERCALL, 0, 1, 0x999), "hypercall 0x0999 at 0x1"),
        (entry(END, 0, 0x5C, 6, 0), "HvPostMessage -> ACCESS_DENIED"),
        (entry(END, 0, 0x4B, 0, 1), "HvMapGpaPages -> goes on later"),
        (entry(END, 0, 0x4B, 0, 3), "HvMapGpaPages -> #UD"),
        (entry(0x21, 0, 16, 0x40000020, 0xABC), "TIME_REF_COUNT 0xabc"),
        (entry(0x22, 0, 16, 0x1B, 1), "0x0000001B 0x1"),
        (entry(0x4B, 0, 2, NONE, 11), "partition=2 thread=none status=INSUFFICIENT_MEMORY"),
        (entry(0x36, 0, 16, 2), "rip=0x10 access=write"),
        (entry(0x46, 0, 0, (1 << 64) - 5), "tsc-offset=0 reference-time-offset=-5"),
        (entry(BEGIN, 0, 16, CPUID_MESSAGE), "rip=16 type=X64CpuidIntercept"),
    ],
)
def test_describe(data: bytes, text: str) -> None:
    """Parameters in words."""
    (event,) = decode(data)
    assert describe(event, Names()).replace("rip=0x10", "rip=16") == text.replace("rip=0x10", "rip=16")


def test_line() -> None:
    """A line of the live view; that events were lost is said plainly."""
    event, lost = decode(entry(HYPERCALL, 1, 2, 8, vp=1, lp=3, partition=4), entry(LOST, 2, 17, vp=NONE, partition=0))
    assert line(event, 1.5, Names()).split() == [
        "1.500000",
        "LP",
        "3",
        "4.1",
        "HC_HYPERCALL",
        "HvNotifyLongSpinWait",
        "at",
        "0x2",
    ]
    assert "17 events were lost here" in line(lost, 2.0, Names())


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (EventFilter(), 4),
        (EventFilter(groups=["Scheduler"]), 2),
        (EventFilter(partition=2), 2),
        (EventFilter(vps=[1]), 2),
        (EventFilter(lps=[1]), 2),
        (EventFilter(names=["hc_*"]), 3),
        (EventFilter(names=["SCH_*"], lps=[5]), 1),
    ],
)
def test_filter(wanted: EventFilter, count: int) -> None:
    """Each choice by itself and together; a loss is always shown."""
    events = decode(
        entry(HYPERCALL, 1, 2, 8),
        entry(HYPERCALL, 2, 2, 8, vp=1, lp=1, partition=2),
        entry(SWITCH, 3, 1, 0, 0),
        entry(LOST, 4, 1, vp=NONE, lp=7, partition=0),
    )
    assert len(wanted.select(events)) == count


def test_group_names() -> None:
    """What --group takes."""
    assert {"Hypercall", "Scheduler", "Messages"} <= set(group_names())


# -- Traces --


def checked(*entries: bytes) -> list[dict[str, Any]]:
    """A trace of entries that has been written, read, and found to be one."""
    file = io.StringIO()
    write_trace(trace_of(decode(*entries), FREQUENCY), file)
    trace: list[dict[str, Any]] = json.loads(file.getvalue())["traceEvents"]
    check_trace(trace)
    return trace


def check_trace(trace: list[dict[str, Any]]) -> None:
    """Times do not go back, slices are balanced on each track, flows have both ends, tracks have names."""
    named = {(e["pid"], e["tid"]) for e in trace if e["name" if "name" in e else "ph"] == "thread_name"}
    last = 0.0
    depth: defaultdict[tuple[int, int], int] = defaultdict(int)
    flows: defaultdict[int, list[str]] = defaultdict(list)
    for e in trace:
        if e["ph"] == "M":
            continue
        assert (e["pid"], e["tid"]) in named
        assert e["ts"] >= last
        last = e["ts"]
        if e["ph"] in "BE":
            depth[e["pid"], e["tid"]] += 1 if e["ph"] == "B" else -1
            assert depth[e["pid"], e["tid"]] >= 0
        elif e["ph"] in "sf":
            flows[e["id"]].append(e["ph"])
    assert not any(depth.values())
    assert all(ends == ["s", "f"] for ends in flows.values())


def slices(trace: list[dict[str, Any]], pid: int) -> list[tuple[str, float, float]]:
    """Slices of a process: name, begin, end; inner ones first."""
    found = []
    stacks: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    for e in trace:
        if e["pid"] != pid or e["ph"] not in "BE":
            continue
        if e["ph"] == "B":
            stacks[e["tid"]].append(e)
        else:
            begin = stacks[e["tid"]].pop()
            found.append((begin["name"], begin["ts"], e["ts"]))
    return found


def test_no_events() -> None:
    """An empty log is an empty trace."""
    assert checked() == []


def test_hypercall_slice() -> None:
    """From its beginning to its end, on its VP's track, in microseconds since the first event."""
    trace = checked(entry(HYPERCALL, 5000, 0, 0x5C, vp=1), entry(END, 8500, 0x5C, 0, 0, vp=1))
    assert slices(trace, 1001) == [("HvPostMessage", 0.0, 3.5)]
    assert [e["args"]["name"] for e in trace if e["ph"] == "M" and "name" in e["args"]] == ["Partition 1", "VP 1"]
    assert next(e for e in trace if e["ph"] == "E")["args"] == {"status": "SUCCESS"}


def test_intercept_slice() -> None:
    """From the intercept until the parent lets the VP go on, which another LP may do."""
    trace = checked(
        entry(BEGIN, 0, 16, CPUID_MESSAGE, partition=2, lp=1),
        entry(HYPERCALL, 1000, 0, 0x51),
        entry(RESUME, 2000, partition=2, lp=1),
        entry(END, 3000, 0x51, 0, 0),
    )
    assert slices(trace, 1002) == [("X64CpuidIntercept", 0.0, 2.0)]
    assert slices(trace, 1001) == [("HvSetVpRegisters", 1.0, 3.0)]


def test_intercept_of_a_hypercall() -> None:
    """A call whose parameters cannot be read ends where the intercept begins."""
    trace = checked(
        entry(HYPERCALL, 0, 0, 0x5C),
        entry(BEGIN, 1000, 16, 0x80000000),
        entry(END, 1500, 0x5C, 0, 6),
        entry(RESUME, 4000),
        entry(HYPERCALL, 5000, 0, 0x5C),
        entry(END, 6000, 0x5C, 0, 0),
    )
    assert slices(trace, 1001) == [
        ("HvPostMessage", 0.0, 1.0),
        ("UnmappedGpa", 1.0, 4.0),
        ("HvPostMessage", 5.0, 6.0),
    ]


def test_running_slices() -> None:
    """Who runs on a logical processor; an idle one runs nobody."""
    trace = checked(
        entry(SWITCH, 0, 1, 0, 0),
        entry(SWITCH, 1000, 2, 4, 0, vp=3, partition=2),
        entry(SWITCH, 3000, 0, NONE, 0, vp=NONE, partition=0),
        entry(SWITCH, 4000, 1, 0, 0),
        entry(SWITCH, 2000, 1, 1, 0, vp=1, lp=1),
        entry(HYPERCALL, 5000, 0, 8),
    )
    assert [s for s in slices(trace, 1) if s[0] != "1.1"] == [("1.0", 0.0, 1.0), ("2.3", 1.0, 3.0), ("1.0", 4.0, 5.0)]
    assert ("1.1", 2.0, 5.0) in slices(trace, 1)


def test_message_flow() -> None:
    """From the VP that posts to the one that gets it; one that is not delivered is no flow."""
    trace = checked(
        entry(POST, 0, 7, 1, 2, 0, CPUID_MESSAGE, partition=2),
        entry(POST, 100, 8, 1, 2, 0, CPUID_MESSAGE, partition=2),
        entry(DELIVER, 500, 7, 0, CPUID_MESSAGE, vp=2),
        entry(DELIVER, 600, 99, 0, CPUID_MESSAGE, vp=2),
    )
    flows = [(e["ph"], e["pid"], e["tid"], e["ts"]) for e in trace if e["ph"] in "sf"]
    assert flows == [("s", 1002, 1, 0.0), ("f", 1001, 3, 0.5)]


def test_ends_without_beginnings() -> None:
    """What began before the log did, and what ends after it."""
    trace = checked(
        entry(END, 0, 8, 0, 0),
        entry(RESUME, 10, partition=2),
        entry(HYPERCALL, 20, 0, 8),
        entry(HYPERCALL, 30, 0, 9),
        entry(BEGIN, 40, 0, CPUID_MESSAGE, partition=2),
        entry(0x25, 50, 0),
    )
    assert [name for name, _, _ in slices(trace, 1001)] == ["HvNotifyLongSpinWait", "HvParkLogicalProcessors"]
    assert slices(trace, 1002) == [("X64CpuidIntercept", 0.04, 0.05)]


def test_a_loss_ends_what_was_open() -> None:
    """Its end may be among what was lost; other processors are not concerned."""
    trace = checked(
        entry(HYPERCALL, 0, 0, 8),
        entry(HYPERCALL, 0, 0, 8, vp=1, lp=1),
        entry(LOST, 1000, 50, vp=NONE, partition=0),
        entry(END, 2000, 8, 0, 0),
        entry(END, 2000, 8, 0, 0, vp=1, lp=1),
    )
    assert sorted(slices(trace, 1001)) == [("HvNotifyLongSpinWait", 0.0, 1.0), ("HvNotifyLongSpinWait", 0.0, 2.0)]
    assert any(e["name"] == "50 events lost" for e in trace if e["ph"] == "i")


def test_instants() -> None:
    """What is neither a slice nor a message, and what nobody did."""
    trace = checked(entry(0x27, 0, 16, 0x40000000, 0), entry(0x41, 5, 3, 0, vp=NONE, lp=NONE, partition=0))
    instants = [(e["name"], e["pid"]) for e in trace if e["ph"] == "i"]
    assert instants == [("IM_CPUID_INSTRUCTION", 1001), ("OB_DELETE_PARTITION", 2)]
