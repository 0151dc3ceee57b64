# SPDX-License-Identifier: GPL-2.0-or-later
"""What the hypervisor has counted (TLFS chapter 21, appendix J): counters by name, snapshots, rates, history.

A snapshot is the result of the QMP command ``query-hv-stats``; it can be taken while the machine runs. Counts and times
only go up while an object exists, so two snapshots make rates; a `History` keeps the last ones in a ring.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from .. import _core
from ..qmp_session import QmpSession

__all__ = ["COUNTERS", "Counter", "History", "Key", "Objects", "Sample", "Snapshot", "find", "parse", "query"]

_OBJECTS = {0x00000001: "hypervisor", 0x00000002: "logical-processor", 0x00010001: "partition", 0x00010002: "vp"}
_TICKS = {"100ns": 1e-7, "ns": 1e-9}


@dataclass(frozen=True)
class Counter:
    """A counter of a kind of object.

    Attributes:
        object: hypervisor, logical-processor, partition or vp.
        symbol: identifier, unique among the object's counters.
        name: the specification's name.
        group: its group (TLFS 21.1.3).
        index: in the group.
        unit: of its value: "", "pages", "100ns", "ns" or "%".
        kind: level, count, time, cost or percent.
        by: who counts: core, platform or never.
        what: what is counted, or why nothing is.
    """

    object: str
    symbol: str
    name: str
    group: str
    index: int
    unit: str
    kind: str
    by: str
    what: str

    @property
    def grows(self) -> bool:
        """Whether it only goes up, so that it has a rate."""
        return self.kind in ("count", "time")

    @property
    def rate_unit(self) -> str:
        """Unit of its rate: events a second, or the share of time for a time."""
        return "%" if self.kind == "time" else "/s"

    def rate(self, difference: int, seconds: float) -> float:
        """The rate, in `rate_unit`, of a difference that came about in so many seconds."""
        if self.kind == "time":
            return 100 * difference * _TICKS[self.unit] / seconds
        return difference / seconds


COUNTERS: Mapping[str, Mapping[str, Counter]] = {
    kind: {
        row.symbol: Counter(kind, row.symbol, row.name, row.group, row.index, row.unit, row.kind, row.by, row.what)
        for row in _core.stats_rows
        if row.object == number
    }
    for number, kind in _OBJECTS.items()
}
"""All counters: by kind of object, then by symbol."""


def find(word: str) -> list[Counter]:
    """Counters whose symbol or name is `word`, in any spelling of upper and lower case; of several objects perhaps."""
    word = word.lower()
    return [
        counter
        for counters in COUNTERS.values()
        for counter in counters.values()
        if word in (counter.symbol.lower(), counter.name.lower())
    ]


@dataclass(frozen=True)
class Key:
    """An object: its kind, and what tells it from the others of that kind."""

    object: str
    partition: Optional[int] = None
    index: Optional[int] = None

    @property
    def label(self) -> str:
        """What it is called in tables and plots."""
        if self.object == "hypervisor":
            return "hypervisor"
        if self.object == "logical-processor":
            return f"LP {self.index}"
        if self.object == "partition":
            return f"partition {self.partition}"
        return f"VP {self.partition}.{self.index}"


@dataclass(frozen=True)
class Sample:
    """An object's counters at one time.

    Attributes:
        name: what the operator's policy calls a partition, or "".
        counters: values by symbol.
        hypercalls: of a VP: number of calls by the specification's name.
    """

    name: str
    counters: Mapping[str, int]
    hypercalls: Mapping[str, int]


Objects = Mapping[Key, Sample]


@dataclass(frozen=True)
class Snapshot:
    """All objects at one time, in the order of the tree.

    Attributes:
        time: seconds of a clock that never goes back.
    """

    time: float
    objects: Objects


def parse(result: Mapping[str, Any]) -> Snapshot:
    """Make a snapshot of what ``query-hv-stats`` returned."""
    objects: dict[Key, Sample] = {}
    for found in result["objects"]:
        calls: dict[str, int] = {}
        for call in found.get("hypercalls", []):
            # Two interface generations can have a row each for one call: they are one call here.
            calls[call["name"]] = calls.get(call["name"], 0) + call["count"]
        objects[Key(found["object"], found.get("partition"), found.get("index"))] = Sample(
            found.get("partition-name", ""),
            {counter["name"]: counter["value"] for counter in found["counters"]},
            calls,
        )
    return Snapshot(result["time"] / 1e9, objects)


async def query(session: QmpSession) -> Snapshot:
    """Take a snapshot of a running machine.

    Raises:
        UserError: the machine has no hypervisor object, or has ended.
    """
    return parse(await session.execute("query-hv-stats"))


class History:
    """The last snapshots, in a ring."""

    def __init__(self, length: int = 600) -> None:
        """Keep `length` snapshots; older ones are forgotten."""
        self._ring: deque[Snapshot] = deque(maxlen=length)

    def __len__(self) -> int:
        """How many snapshots there are."""
        return len(self._ring)

    def __iter__(self) -> Iterator[Snapshot]:
        """From the oldest to the newest."""
        return iter(self._ring)

    def add(self, snapshot: Snapshot) -> None:
        """Add the newest."""
        self._ring.append(snapshot)

    @property
    def latest(self) -> Snapshot:
        """The newest."""
        return self._ring[-1]

    def rate(self, key: Key, symbol: str) -> Optional[float]:
        """Rate of a counter between the last two snapshots; None where there is none (yet)."""
        return self._rate(len(self._ring) - 1, key, symbol)

    def call_rate(self, key: Key, name: str) -> float:
        """Hypercalls of this name a second, between the last two snapshots."""
        if len(self._ring) < 2:
            return 0.0
        old, new = self._ring[-2], self._ring[-1]
        before = old.objects[key].hypercalls.get(name, 0) if key in old.objects else 0
        difference = new.objects[key].hypercalls.get(name, 0) - before
        return max(difference, 0) / (new.time - old.time)

    def series(self, key: Key, symbol: str) -> list[tuple[float, float]]:
        """Time and rate, or for a counter that does not grow its value, for every snapshot that has one."""
        counter = COUNTERS[key.object][symbol]
        if not counter.grows:
            return [(s.time, s.objects[key].counters[symbol]) for s in self._ring if key in s.objects]
        rates = ((snapshot.time, self._rate(at, key, symbol)) for at, snapshot in enumerate(self._ring))
        return [(time, rate) for time, rate in rates if rate is not None]

    def _rate(self, at: int, key: Key, symbol: str) -> Optional[float]:
        counter = COUNTERS[key.object][symbol]
        if at < 1 or not counter.grows:
            return None
        old, new = self._ring[at - 1], self._ring[at]
        if key not in old.objects or key not in new.objects or symbol not in new.objects[key].counters:
            return None
        before, after = old.objects[key].counters[symbol], new.objects[key].counters[symbol]
        # It went back: there is another object under this name, which began at zero.
        difference = after - before if after >= before else after
        return counter.rate(difference, new.time - old.time)
