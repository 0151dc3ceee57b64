# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables in ``csrc/hv/tlfs/*.def``, read as data.

They are the only place where a call code, a size, a privilege or a register's access is written.
The compiled core includes them; tools that must work without it (documentation, tests of the
documentation) read them through this module.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Hypercall:
    """A row of ``hypercalls.def``; sizes in bytes."""

    code: int
    name: str
    snake: str
    kind: str
    fast: str
    generations: str
    gate: str
    relation: str
    lock: str
    input: int
    input_element: int
    output: int
    output_element: int
    variable: bool
    handler: str
    section: str

    @property
    def implemented(self) -> bool:
        """Whether the core has a handler for the call."""
        return self.handler == "IMPLEMENTED"


@dataclass(frozen=True)
class Msr:
    """A row of ``msrs.def``: ``count`` consecutive registers."""

    index: int
    count: int
    name: str
    access: str
    scope: str
    gate: str
    generations: str
    read: str
    write: str
    section: str

    @property
    def implemented(self) -> bool:
        """Whether the core has handlers for the register."""
        return "MISSING" not in (self.read, self.write)


@dataclass(frozen=True)
class Section:
    """A row of ``sections.def``; what ``kind`` means is told there."""

    number: str
    kind: str
    title: str


@dataclass(frozen=True)
class Bit:
    """A row of ``privileges.def``, ``features.def`` or ``recommendations.def``."""

    bit: int
    name: str
    property: str
    generations: str
    guest_default: bool
    root_default: bool
    child_default: bool


@dataclass(frozen=True)
class Cost:
    """A row of ``costs.def``: ``pages`` of a memory pool."""

    name: str
    pages: int
    meaning: str


@dataclass(frozen=True)
class Message:
    """A row of ``message_types.def``; ``never``: why it is never sent, else empty."""

    value: int
    name: str
    generations: str
    never: str


@dataclass(frozen=True)
class Register:
    """A row of ``registers.def``: a virtual processor's register, ``size`` in bytes."""

    code: int
    name: str
    symbol: str
    size: int
    keeper: str
    generations: str


@dataclass(frozen=True)
class Status:
    """A row of ``status.def``."""

    value: int
    name: str
    generations: str


@dataclass(frozen=True)
class EventGroup:
    """A group of ``event_log_entries.def``: a bit of the masks that choose events."""

    bit: int
    name: str
    title: str
    specified: bool


@dataclass(frozen=True)
class Event:
    """An event of ``event_log_entries.def``: ``fields`` name its 8-byte values."""

    number: int
    name: str
    group: str
    fields: tuple[str, ...]
    raised: bool
    text: str


def event_groups(tables: Path) -> list[EventGroup]:
    """Groups of ``event_log_entries.def`` in the folder ``tables``."""
    rows = [row for row in _rows(tables / "event_log_entries.def") if row[0].isdigit()]
    return [EventGroup(int(row[0]), row[1], row[2], row[3] == "TLFS") for row in rows]


def events(tables: Path) -> list[Event]:
    """Events of ``event_log_entries.def`` in the folder ``tables``."""
    rows = [row for row in _rows(tables / "event_log_entries.def") if not row[0].isdigit()]
    return [Event(int(r[0], 16), r[1], r[2], tuple(r[3].split()), r[4] == "RAISED", r[5]) for r in rows]


@dataclass(frozen=True)
class Statistic:
    """A counter of ``stats_counters.def``; what the columns mean is told there."""

    group: str
    index: int
    symbol: str
    name: str
    kind: str
    unit: str
    by: str
    generations: str
    what: str


@dataclass(frozen=True)
class StatisticsGroup:
    """A group of counters of ``stats_counters.def``."""

    group: str
    object: str
    id: int
    name: str
    section: str


def statistics(tables: Path) -> list[Statistic]:
    """Counters of ``stats_counters.def`` in the folder ``tables``."""
    rows = (row for row in _rows(tables / "stats_counters.def") if len(row) == 9)
    return [Statistic(r[0], int(r[1]), *r[2:]) for r in rows]


def statistics_groups(tables: Path) -> list[StatisticsGroup]:
    """Groups of ``stats_counters.def`` in the folder ``tables``."""
    rows = (row for row in _rows(tables / "stats_counters.def") if len(row) == 5)
    return [StatisticsGroup(r[0], r[1], int(r[2]), r[3], r[4]) for r in rows]


def costs(tables: Path) -> list[Cost]:
    """Rows of ``costs.def`` in the folder ``tables``."""
    return [Cost(row[0], int(row[1]), row[2]) for row in _rows(tables / "costs.def")]


def messages(tables: Path) -> list[Message]:
    """Rows of ``message_types.def`` in the folder ``tables``."""
    return [Message(int(row[0], 0), *row[1:]) for row in _rows(tables / "message_types.def")]


def registers(tables: Path) -> list[Register]:
    """Rows of ``registers.def`` in the folder ``tables``."""
    return [Register(int(r[0], 16), r[1], r[2], int(r[3]), r[4], r[5]) for r in _rows(tables / "registers.def")]


def _rows(path: Path) -> Iterator[list[str]]:
    """Arguments of each row macro of a table, unquoted."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("HV_") or "_ROW(" not in line:
            continue
        arguments = line[line.index("(") + 1 : line.rindex(")")]
        yield next(csv.reader([arguments], skipinitialspace=True))


def hypercalls(tables: Path) -> list[Hypercall]:
    """Rows of ``hypercalls.def`` in the folder ``tables``."""
    return [
        Hypercall(
            code=int(row[0], 16),
            name=row[1],
            snake=row[2],
            kind=row[3],
            fast=row[4],
            generations=row[5],
            gate=row[6],
            relation=row[7],
            lock=row[8],
            input=int(row[9]),
            input_element=int(row[10]),
            output=int(row[11]),
            output_element=int(row[12]),
            variable=row[13] == "1",
            handler=row[14],
            section=row[15],
        )
        for row in _rows(tables / "hypercalls.def")
    ]


def msrs(tables: Path) -> list[Msr]:
    """Rows of ``msrs.def`` in the folder ``tables``."""
    return [
        Msr(int(r[0], 16), int(r[1]), r[2], r[3], r[4], r[5], r[6], r[7], r[8], r[9])
        for r in _rows(tables / "msrs.def")
    ]


def sections(tables: Path) -> list[Section]:
    """Rows of ``sections.def`` in the folder ``tables``."""
    return [Section(r[0], r[1], r[2]) for r in _rows(tables / "sections.def")]


def bits(tables: Path, table: str) -> list[Bit]:
    """Rows of ``privileges.def``, ``features.def`` or ``recommendations.def``."""
    # Features and recommendations are the machine's: what a guest has by default, the root and its children have.
    return [
        Bit(int(r[0]), r[1], r[2], r[3], *(value == "1" for value in (r[4:] if len(r) == 7 else [r[4]] * 3)))
        for r in _rows(tables / f"{table}.def")
    ]


def statuses(tables: Path) -> list[Status]:
    """Rows of ``status.def`` in the folder ``tables``."""
    return [Status(int(r[0], 16), r[1], r[2]) for r in _rows(tables / "status.def")]
