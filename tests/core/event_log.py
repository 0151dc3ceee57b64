# SPDX-License-Identifier: GPL-2.0-or-later
"""The root partition's side of the event log (TLFS chapter 19), and entries of the operator's log, as tests read them.

Layouts and numbers are the specification's.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from root import Root
from simulated_guest import OUTPUT, PAGE

from qemu_hv._core import HypercallResult, Machine, MessageType, Status

INITIALIZE_GROUP = 0x0060
FINALIZE_GROUP = 0x0061
CREATE_BUFFER = 0x0062
DELETE_BUFFER = 0x0063
MAP_BUFFER = 0x0064
UNMAP_BUFFER = 0x0065
SET_SOURCES = 0x0066
RELEASE_BUFFER = 0x0067
FLUSH_BUFFER = 0x0068

SYSTEM, DIAGNOSTICS = 0, 1
STANDBY, FREE, IN_USE, COMPLETE, READY = range(5)
NONE = 0xFFFFFFFF
REFERENCE, TSC = 0, 1
VALID_PROXIMITY = 1 << 63

DIAG_ADMIN = 1 << 0
DIAG_PERF_GENERAL = 1 << 32
SYSTEM_SUCCESS = 1 << 0
SYSTEM_FAILURE = 1 << 1
HYPERCALL_GROUP = 0x400
INTERCEPT_GROUP = 0x800
OBJECT_GROUP = 0x2000
VP_GROUP = 0x8000
GVA_GROUP = 0x40000
SCHEDULER_GROUP = 0x400000

HYPERCALL = 0x1A
HEADER = struct.Struct("<IIIIQQQIIQIIQQQ")
ENTRY = struct.Struct("<IHHQ")


@dataclass(frozen=True)
class BufferHeader:
    """HV_EVENTLOG_BUFFER_HEADER (TLFS 19.2.5)."""

    size: int
    index: int
    lost: int
    first: int
    time: int
    reserved1: int
    reserved2: int
    lp: int
    state: int
    next_offset: int
    type: int
    next_buffer: int
    reserved3: int
    reserved4: int
    reserved5: int


@dataclass(frozen=True)
class Entry:
    """An entry of a buffer (TLFS 19.2.6), with its values."""

    context: int
    size: int
    type: int
    time: int
    values: tuple[int, ...]


@dataclass(frozen=True)
class OperatorEntry:
    """An entry of the operator's log."""

    type: int
    vp: int
    tsc: int
    lp: int
    partition: int
    values: tuple[int, ...]


def operator_entries(machine: Machine, size: int = 1 << 20) -> list[OperatorEntry]:
    """Take out what the operator's log has recorded."""
    data = machine.events_read(size)
    entries = []
    while data:
        kind, length, vp, tsc, lp, partition = struct.unpack_from("<HHIQII", data)
        assert length >= 24
        assert length % 8 == 0
        values = struct.unpack_from(f"<{(length - 24) // 8}Q", data, 24)
        entries.append(OperatorEntry(kind, vp, tsc, lp, partition, values))
        data = data[length:]
    return entries


class LoggingRoot(Root):
    """A root partition that sets up event logging. Two VPs, so two logical processors."""

    def __init__(self, generation: str = "current", **config: Any) -> None:
        super().__init__(generation, **{"memory": 1 << 24, **config})
        self.pages_of: dict[tuple[int, int], list[int]] = {}

    # -- Calls --

    def try_initialize_group(
        self,
        kind: int = DIAGNOSTICS,
        buffers: int = 4,
        pages: int = 1,
        threshold: int = 1,
        basis: int = REFERENCE,
        *,
        vp: int = 0,
    ) -> Status:
        """HvInitializeEventLogBufferGroup, with a time of day and padding that nobody cleared."""
        data = struct.pack("<IIIIIQI", kind, buffers, pages, threshold, basis, 0x0123456789ABCDEF, 0xDEAD)
        return self.status(INITIALIZE_GROUP, data, vp=vp)

    def finalize_group(self, kind: int = DIAGNOSTICS, *, vp: int = 0) -> Status:
        """HvFinalizeEventLogBufferGroup, with padding that nobody cleared."""
        return self.fast(FINALIZE_GROUP, kind | 0xDEAD << 32, vp=vp)

    def create_buffer(
        self, index: int, kind: int = DIAGNOSTICS, *, proximity: int = VALID_PROXIMITY, vp: int = 0
    ) -> Status:
        """HvCreateEventLogBuffer."""
        return self.fast(CREATE_BUFFER, kind | index << 32, proximity, vp=vp)

    def simple(self, code: int, index: int, kind: int = DIAGNOSTICS, *, vp: int = 0) -> Status:
        """A call that names a buffer."""
        return self.fast(code, kind | index << 32, vp=vp)

    def try_map_buffer(
        self, index: int, kind: int = DIAGNOSTICS, *, output: int = OUTPUT, vp: int = 0
    ) -> HypercallResult:
        """HvMapEventLogBuffer."""
        return self.call(MAP_BUFFER, struct.pack("<II", kind, index), output=output, vp=vp)

    def map_buffer(self, index: int, kind: int = DIAGNOSTICS, pages: int = 1) -> list[int]:
        """The same, which must succeed; the pages' numbers."""
        assert self.try_map_buffer(index, kind).status == Status.SUCCESS
        self.pages_of[kind, index] = list(self.output(f"<{pages}Q"))
        return self.pages_of[kind, index]

    def set_sources(self, flags: int, kind: int = DIAGNOSTICS, *, vp: int = 0) -> Status:
        """HvSetEventLogGroupSources, with padding that nobody cleared."""
        return self.fast(SET_SOURCES, kind | 0xDEAD << 32, flags, vp=vp)

    def set_up(
        self,
        kind: int = DIAGNOSTICS,
        buffers: int = 4,
        *,
        pages: int = 1,
        threshold: int = 1,
        basis: int = REFERENCE,
        sources: int = 0,
    ) -> None:
        """A group with buffers that are all mapped, and its sources (TLFS 19.1.7)."""
        assert self.try_initialize_group(kind, buffers, pages, threshold, basis) == Status.SUCCESS
        for index in range(buffers):
            assert self.create_buffer(index, kind) == Status.SUCCESS
            self.map_buffer(index, kind, pages)
        if sources:
            assert self.set_sources(sources, kind) == Status.SUCCESS

    # -- What it sees --

    def header(self, index: int, kind: int = DIAGNOSTICS) -> BufferHeader:
        """A mapped buffer's header."""
        data = self.machine.read(self.pages_of[kind, index][0] * PAGE, HEADER.size)
        return BufferHeader(*HEADER.unpack(data))

    def state(self, index: int, kind: int = DIAGNOSTICS) -> int:
        """A mapped buffer's state."""
        return self.header(index, kind).state

    def entries(self, index: int, kind: int = DIAGNOSTICS) -> list[Entry]:
        """What is in a mapped buffer."""
        data = b"".join(self.machine.read(page * PAGE, PAGE) for page in self.pages_of[kind, index])
        end = self.header(index, kind).next_offset
        at = HEADER.size
        entries = []
        while at < end:
            context, size, entry_type, time = ENTRY.unpack_from(data, at)
            values = struct.unpack_from(f"<{(size - ENTRY.size) // 8}Q", data, at + ENTRY.size)
            entries.append(Entry(context, size, entry_type, time, values))
            at += size
        assert at == end
        return entries

    def chain(self, index: int, kind: int = DIAGNOSTICS) -> list[int]:
        """Indices of a list of ready buffers (TLFS 19.1.11)."""
        found = []
        while index != NONE:
            found.append(index)
            assert len(found) <= 512
            index = self.header(index, kind).next_buffer
        return found

    def spin(self, count: int = 1, *, vp: int = 0) -> None:
        """Do something that is logged as one event of 32 bytes: a hypercall."""
        for _ in range(count):
            assert self.fast(0x0008, 1, vp=vp) == Status.SUCCESS

    def announcement(self, vp: int = 0) -> tuple[int, int] | None:
        """Type and first buffer of the message that the VP has, if it has one (TLFS 16.5.10)."""
        self.machine.fire_due_timers()
        message = self.take_message(0, vp)
        if message.type == 0:
            return None
        assert (message.type, message.size, message.origin) == (MessageType.EventLogBuffersComplete, 8, 0)
        kind, index = struct.unpack_from("<II", message.payload)
        return kind, index


FILL = (PAGE - HEADER.size) // 32
"""So many hypercalls fill a buffer of one page."""
