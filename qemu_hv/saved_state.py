# SPDX-License-Identifier: GPL-2.0-or-later
"""The state stream of a saved partition, taken apart: what docs/save-restore.md describes, with names."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from ._core import Register

__all__ = ["State", "parse"]

_HEAD = struct.Struct("<8sIIQII")
_SECTION = struct.Struct("<4sIII")
_SUMMARY = [
    "generation",
    "Intel",
    "processor features",
    "XSAVE features",
    "CLFLUSH size",
    "address bits",
    "TSC frequency",
    "APIC frequency",
    "partition's processor features",
    "partition's XSAVE features",
    "partition's CLFLUSH size",
    "VP flags",
]
_PARTITION = [
    "machine's TSC",
    "reference time",
    "guest OS identity",
    "hypercall page",
    "reference TSC page",
    "crash control",
    "TSC invariant control",
    *(f"crash parameter {n}" for n in range(5)),
]
_SYNIC = ["SCONTROL", "SIEFP", "SIMP", *(f"SINT{n}" for n in range(16)), "APIC assist page"]
_PAGES = ["message page", "event flags page", "assist page"]
_LAPIC_WORDS = [
    "ID",
    "LDR",
    "DFR",
    "SVR",
    "priority",
    *(f"{name}{n}" for name in ("IRR", "ISR", "TMR", "asserted fixed ", "asserted lowest ") for n in range(8)),
    *("TPR", "ESR", "errors", "ICR low", "ICR high"),
    *(f"LVT {name}" for name in ("timer", "thermal", "performance", "LINT0", "LINT1", "error")),
    *("line", "initial count", "divide", "timer armed"),
]
_NAMES = {int(register): register.name for register in Register}


@dataclass
class State:
    """What a stream says, by name. A value is a number, or the content of a page.

    Attributes:
        groups: of names: "summary", "partition", "VP 0", ...
        messages: what waits in queues, by VP and SINT.
    """

    kind: int
    groups: dict[str, dict[str, object]] = field(default_factory=dict)
    messages: dict[str, list[bytes]] = field(default_factory=dict)

    @property
    def vps(self) -> list[int]:
        """Indices of the VPs."""
        return sorted({int(name.split()[1]) for name in self.groups if name.startswith("VP ")})


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def bytes(self, size: int) -> bytes:
        part = self._data[self._position : self._position + size]
        if len(part) != size:
            raise ValueError("it ends early")
        self._position += size
        return part

    def u32(self) -> int:
        return int.from_bytes(self.bytes(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.bytes(8), "little")


def _sections(stream: bytes) -> Iterator[tuple[str, int, bytes]]:
    position = _HEAD.size
    while position < len(stream):
        tag, index, size, _ = _SECTION.unpack_from(stream, position)
        position += _SECTION.size
        yield tag.decode("ascii", "replace"), index, stream[position : position + size]
        position += size


def parse(stream: bytes) -> State:
    """Take a stream apart.

    Raises:
        ValueError: it is none, or of another version.
    """
    try:
        magic, version, kind, length, _, _ = _HEAD.unpack_from(stream)
        if magic != b"HVPSTATE" or version != 1 or length != len(stream):
            raise ValueError("it is no state of a partition")
        state = State(kind)
        for tag, index, content in _sections(stream):
            _PARSERS.get(tag, _skip)(state, index, _Reader(content))
    except struct.error as error:
        raise ValueError("it ends early") from error
    return state


def _skip(state: State, index: int, reader: _Reader) -> None:
    """What the parent has set up is shown by its effects."""


def _summary(state: State, index: int, reader: _Reader) -> None:
    state.groups["summary"] = {name: reader.u64() for name in _SUMMARY}


def _partition(state: State, index: int, reader: _Reader) -> None:
    values: dict[str, object] = {name: reader.u64() for name in _PARTITION}
    values["TSC sequence"] = reader.u32()
    values["periodic timer due"] = reader.u64()
    state.groups["partition"] = values


def _processor(state: State, index: int, reader: _Reader) -> None:
    values: dict[str, object] = {"activity": reader.u32(), "start vector": reader.u32()}
    values["TSC_AUX"], values["MCG_STATUS"] = reader.u64(), reader.u64()
    for _ in range(reader.u32()):
        name = reader.u32()
        low, high = reader.u64(), reader.u64()
        values[_NAMES.get(name, f"register 0x{name:x}")] = high << 64 | low
    state.groups[f"VP {index} registers"] = values


def _vp(state: State, index: int, reader: _Reader) -> None:
    synic: dict[str, object] = {name: reader.u64() for name in _SYNIC}
    synic["assisted vector"] = reader.u32()
    for _ in range(3):
        reader.u64()
    synic["run time"] = reader.u64()
    synic.update({name: reader.bytes(4096) for name in _PAGES})
    state.groups[f"VP {index} SynIC"] = synic
    timers: dict[str, object] = {}
    for n in range(4):
        for name in ("config", "count", "due"):
            timers[f"timer {n} {name}"] = reader.u64()
        timers[f"timer {n} blocked"] = reader.u32()
    state.groups[f"VP {index} timers"] = timers
    for sint in range(16):
        waiting = [reader.bytes(8 + 256)[8:] for _ in range(reader.u32())]
        if waiting:
            state.messages[f"VP {index} SINT{sint}"] = waiting
    _local_apic(state, index, reader)


def _local_apic(state: State, index: int, reader: _Reader) -> None:
    other: dict[str, object] = {}
    for name in ("suspended", "deliverability", "TLB flush inhibit", "initial APIC ID"):
        other[name] = reader.u32()
    other["TSC offset"] = reader.u64()
    other["APIC base"] = reader.u64()
    for name in _LAPIC_WORDS:
        other[name] = reader.u32()
    other["timer start"], other["deadline"] = reader.u64(), reader.u64()
    for name in ("external pending", "external acknowledged", "external vector", "waits for SIPI", "INIT pending"):
        other[name] = reader.u32()
    state.groups[f"VP {index} local APIC"] = other


_PARSERS = {"SUMM": _summary, "PART": _partition, "PROC": _processor, "VPST": _vp}
