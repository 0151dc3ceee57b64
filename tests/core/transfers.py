# SPDX-License-Identifier: GPL-2.0-or-later
"""HvSavePartitionState and HvRestorePartitionState as a parent calls them, and their stream taken apart."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from root import Root
from simulated_guest import INPUT, OUTPUT

from qemu_hv._core import Status

SAVE = 0x005E
RESTORE = 0x005F
START = 1
SUMMARY = 2
CHUNK = 4080
SYSTEM = 0
HEAD = 32
SECTION_HEAD = 16


class State(IntEnum):
    """HV_SAVE_RESTORE_STATE_RESULT (TLFS 17.2.1)."""

    COMPLETE = 0
    INCOMPLETE = 1
    RESTORABLE = 2
    CORRUPT_DATA = 3
    UNSUPPORTED_VERSION = 4
    PROCESSOR_FEATURE_MISMATCH = 5
    HARDWARE_FEATURE_MISMATCH = 6
    PROCESSOR_COUNT_MISMATCH = 7
    PROCESSOR_FLAGS_MISMATCH = 8
    PROCESSOR_INDEX_MISMATCH = 9
    INCOMPATIBLE_PROCESSOR = 11
    SSE3_MISMATCH = 12
    POPCNT_MISMATCH = 19
    EXTENDED_3DNOW_MISMATCH = 26
    CLFLUSH_SIZE_MISMATCH = 28
    XSAVE_MISMATCH = 29
    XSAVEOPT_MISMATCH = 30
    XSAVE_AVX_MISMATCH = 32
    XSAVE_UNKNOWN_MISMATCH = 33


def try_save(root: Root, partition: int, flags: int = 0, *, vp: int = 0) -> tuple[Status, State, bytes]:
    """One HvSavePartitionState (TLFS 17.3.1): status, state, data."""
    status = root.status(SAVE, struct.pack("<QII", partition, flags, 0xDEAD), vp=vp)
    if status != Status.SUCCESS:
        return status, State.INCOMPLETE, b""
    state, count = struct.unpack("<II", root.machine.read(OUTPUT, 8))
    assert count <= CHUNK
    return status, State(state), root.machine.read(OUTPUT + 8, count)


def save(root: Root, partition: int, flags: int = 0, *, vp: int = 0) -> bytes:
    """The whole stream (TLFS 17.1.7)."""
    stream, flags = b"", flags | START
    while True:
        status, state, data = try_save(root, partition, flags, vp=vp)
        assert status == Status.SUCCESS
        assert state in (State.COMPLETE, State.INCOMPLETE)
        stream += data
        if state == State.COMPLETE:
            return stream
        flags &= ~START


def try_restore(
    root: Root, partition: int, data: bytes, flags: int = 0, *, gpa: int = INPUT, vp: int = 0
) -> tuple[Status, State, int]:
    """One HvRestorePartitionState (TLFS 17.3.2): status, state, bytes consumed."""
    root.machine.write(gpa, struct.pack("<QII", partition, flags, len(data)) + data)
    status = root.machine.call(vp, RESTORE, gpa, OUTPUT).status
    assert status is not None
    if status != Status.SUCCESS:
        return status, State.INCOMPLETE, 0
    state, used = struct.unpack("<II", root.machine.read(OUTPUT, 8))
    assert used <= len(data)
    return status, State(state), used


def restore(root: Root, partition: int, stream: bytes, flags: int = 0, *, chunk: int = CHUNK) -> State:
    """Present a stream (TLFS 17.1.8); the state that it ends with."""
    flags |= START
    state = State.INCOMPLETE
    while state == State.INCOMPLETE and stream:
        status, state, used = try_restore(root, partition, stream[:chunk], flags)
        assert status == Status.SUCCESS
        stream, flags = stream[used:], flags & ~START
    return state


def _make_table() -> list[int]:
    table = []
    for n in range(256):
        value = n
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _make_table()


def checksum(data: bytes) -> int:
    """CRC-32C."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


@dataclass
class Section:
    """A section of a stream."""

    tag: bytes
    index: int
    content: bytearray

    def pack(self) -> bytes:
        """As it is in a stream, with a sound checksum."""
        head = struct.pack("<4sII", self.tag, self.index, len(self.content))
        return head + struct.pack("<I", checksum(head + self.content)) + bytes(self.content)


@dataclass
class Stream:
    """A stream taken apart, to be changed and put together again with sound checksums."""

    version: int
    kind: int
    sections: list[Section]

    @classmethod
    def parse(cls, data: bytes) -> Stream:
        """Take a stream apart; every checksum must be right."""
        magic, version, kind, length, reserved, check = struct.unpack_from("<8sIIQII", data)
        assert (magic, length, reserved, check) == (b"HVPSTATE", len(data), 0, checksum(data[:28]))
        sections, position = [], HEAD
        while position < len(data):
            tag, index, size, check = struct.unpack_from("<4sIII", data, position)
            content = data[position + SECTION_HEAD : position + SECTION_HEAD + size]
            assert check == checksum(data[position : position + 12] + content)
            sections.append(Section(tag, index, bytearray(content)))
            position += SECTION_HEAD + size
        return cls(version, kind, sections)

    def pack(self, *, length: int | None = None) -> bytes:
        """Put it together."""
        body = b"".join(section.pack() for section in self.sections)
        size = HEAD + len(body) if length is None else length
        head = struct.pack("<8sIIQI", b"HVPSTATE", self.version, self.kind, size, 0)
        return head + struct.pack("<I", checksum(head)) + body

    def section(self, tag: bytes, index: int = 0) -> Section:
        """The section of a tag and a VP."""
        return next(s for s in self.sections if (s.tag, s.index) == (tag, index))

    def set_summary(self, field: int, value: int) -> None:
        """Change a 64-bit field of the summary."""
        struct.pack_into("<Q", self.section(b"SUMM").content, field * 8, value)
