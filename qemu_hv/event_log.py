# SPDX-License-Identifier: GPL-2.0-or-later
"""Events of the hypervisor's log: what entries mean, by the core's table of them.

The operator's log (``hv-events-start``, ``hv-events-read``) gives binary entries; :class:`Decoder` makes
:class:`Event` objects of them, and :func:`describe` says one in words.
"""

from __future__ import annotations

import fnmatch
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from . import resources, tables

__all__ = ["Decoder", "Event", "EventFilter", "describe", "group_names"]

LOST = "LOST"
_HEADER = struct.Struct("<HHIQII")
_NONE = 0xFFFFFFFF
_CALL_CODE = 0xFFFF
_EXITS = ("done", "goes on later", "idle", "#UD", "#GP", "#MC", "intercept", "native")
_HEXADECIMAL = {"rip", "input", "value", "index", "gva", "leaf", "subleaf", "port", "result", "vector", "type"}
_ACCESS = {1: "read", 2: "write", 4: "execute"}


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes:
        name: the specification's name without HV_TR_, or this hypervisor's own.
        group: the group it belongs to.
        tsc: when, in ticks of the machine's TSC.
        lp: logical processor, without a root partition the VP; None: on another thread.
        partition: ID of the partition it is of, or None.
        vp: index of the VP it is of, or None.
        values: its parameters, by their names.
    """

    name: str
    group: str
    tsc: int
    lp: Optional[int]
    partition: Optional[int]
    vp: Optional[int]
    values: dict[str, int] = field(default_factory=dict)


def group_names() -> list[str]:
    """Return the names of all groups of events."""
    return [group.name for group in tables.event_groups(resources.csrc() / "hv" / "tlfs")]


class Decoder:
    """Makes events of entries."""

    def __init__(self) -> None:
        """Read the table of events."""
        self._events = {event.number: event for event in tables.events(resources.csrc() / "hv" / "tlfs")}

    def decode(self, data: bytes) -> list[Event]:
        """Return the events in `data`, which are whole entries, in the order of their time.

        Raises:
            ValueError: it is not a sequence of entries.
        """
        events = []
        at = 0
        while at < len(data):
            if len(data) - at < _HEADER.size:
                raise ValueError(f"an entry is cut off at byte {at}")
            kind, size, vp, tsc, lp, partition = _HEADER.unpack_from(data, at)
            if size < _HEADER.size or size % 8 or size > len(data) - at:
                raise ValueError(f"the entry at byte {at} has an impossible size of {size} bytes")
            values = struct.unpack_from(f"<{(size - _HEADER.size) // 8}Q", data, at + _HEADER.size)
            events.append(self._event(kind, vp, tsc, lp, partition, values))
            at += size
        events.sort(key=lambda event: event.tsc)
        return events

    def _event(self, kind: int, vp: int, tsc: int, lp: int, partition: int, values: Sequence[int]) -> Event:
        row = self._events.get(kind)
        # One of a later version of the hypervisor still has its place and time.
        name, group = (row.name, row.group) if row else (f"0x{kind:04X}", "")
        names = row.fields if row else ()
        named = {names[i] if i < len(names) else f"value{i}": value for i, value in enumerate(values)}
        return Event(
            name, group, tsc, lp if lp != _NONE else None, partition or None, vp if vp != _NONE else None, named
        )


@dataclass(frozen=True)
class EventFilter:
    """Which events somebody wants to see; an empty choice is no choice.

    Attributes:
        groups: names of groups.
        partition: ID of a partition.
        vps: indices of VPs.
        lps: numbers of logical processors.
        names: patterns of events' names, as a shell has them.
    """

    groups: Sequence[str] = ()
    partition: Optional[int] = None
    vps: Sequence[int] = ()
    lps: Sequence[int] = ()
    names: Sequence[str] = ()

    def __call__(self, event: Event) -> bool:
        """Whether an event is wanted; that some were lost always is."""
        if event.name == LOST:
            return True
        return (
            (not self.groups or event.group in self.groups)
            and (self.partition is None or event.partition == self.partition)
            and (not self.vps or event.vp in self.vps)
            and (not self.lps or event.lp in self.lps)
            and (not self.names or any(fnmatch.fnmatchcase(event.name, pattern.upper()) for pattern in self.names))
        )

    def select(self, events: Iterable[Event]) -> list[Event]:
        """Return the events that are wanted."""
        return [event for event in events if self(event)]


class Names:
    """Names of numbers in events, by the core's tables."""

    def __init__(self) -> None:
        """Read the tables."""
        folder = resources.csrc() / "hv" / "tlfs"
        self._calls = {call.code: call.name for call in tables.hypercalls(folder)}
        self._statuses = {status.value: status.name for status in tables.statuses(folder)}
        self._messages = {message.value: message.name for message in tables.messages(folder)}
        self._msrs = {
            msr.index + i: msr.name + (str(i) if msr.count > 1 else "")
            for msr in tables.msrs(folder)
            for i in range(msr.count)
        }

    def hypercall(self, input_value: int) -> str:
        """The name of the call that a hypercall input value is of."""
        code = input_value & _CALL_CODE
        return self._calls.get(code, f"hypercall 0x{code:04X}")

    def status(self, status: int) -> str:
        """The name of a status code."""
        return self._statuses.get(status, f"status 0x{status:04X}")

    def message(self, kind: int) -> str:
        """The name of a message type; guests' own have a number."""
        return self._messages.get(kind, f"0x{kind:X}")

    def msr(self, index: int) -> str:
        """The name of a synthetic MSR, or its number."""
        return self._msrs.get(index, f"0x{index:08X}")


def describe(event: Event, names: Names) -> str:
    """Say in words what the parameters of an event are."""
    v = event.values
    if event.name == "HC_HYPERCALL":
        return f"{names.hypercall(v['input'])} at 0x{v['rip']:x}"
    if event.name == "HYPERCALL_END":
        return f"{names.hypercall(v['input'])} -> {outcome(event, names)}"
    if event.name in ("IM_MSR_READ", "IM_MSR_WRITE"):
        return f"{names.msr(v['index'])} 0x{v['value']:x}"
    if event.name in ("INTERCEPT_BEGIN", "MESSAGE_DELIVER", "MESSAGE_POST"):
        return " ".join(_words({**v, "type": names.message(v["type"])}))
    return " ".join(_words({**v, **_named(v, names)}))


def outcome(event: Event, names: Names) -> str:
    """Say how a hypercall ended, by its HYPERCALL_END."""
    exit_code = event.values["exit"]
    if exit_code == 0:
        return names.status(event.values["result"] & 0xFFFF)
    return _EXITS[exit_code] if exit_code < len(_EXITS) else f"exit {exit_code}"


def _named(values: dict[str, int], names: Names) -> dict[str, Any]:
    words: dict[str, Any] = {}
    if "status" in values:
        words["status"] = names.status(values["status"])
    if "access" in values:
        words["access"] = _ACCESS.get(values["access"], values["access"])
    if values.get("thread") == _NONE:
        words["thread"] = "none"
    for name in ("tsc-offset", "reference-time-offset"):
        if values.get(name, 0) >> 63:
            words[name] = values[name] - (1 << 64)
    return words


def _words(values: dict[str, Any]) -> Iterable[str]:
    for name, value in values.items():
        yield f"{name}=0x{value:x}" if name in _HEXADECIMAL and isinstance(value, int) else f"{name}={value}"
