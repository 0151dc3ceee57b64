# SPDX-License-Identifier: GPL-2.0-or-later
"""What was measured, and what follows from it.

A *round* measures the same thing once with each flavour of QEMU, one right after the other, so that what else the
machine does meets all of them. Ratios are made per round.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = [
    "NO_COUNTERS",
    "NO_INJECTION",
    "OBJECT",
    "PATCHED",
    "ROOT",
    "STOCK",
    "Ratio",
    "Samples",
    "Spread",
    "ratio_of",
    "spread_of",
]

STOCK = "stock"
"""Stock QEMU."""
PATCHED = "patched"
"""The patched QEMU, without the object."""
OBJECT = "object"
"""The patched QEMU with the microsoft-hypervisor object."""
NO_COUNTERS = "no-counters"
"""The same with a module that counts nothing."""
NO_INJECTION = "no-injection"
"""The same with a module that has no fault injection."""
ROOT = "root"
"""The patched QEMU with the object and role=root: what runs first is the root partition."""

_RESAMPLES = 4000
_CONFIDENCE = 0.95


@dataclass
class Samples:
    """Measurements by flavour and name: one value, in seconds, for each round."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, flavour: str, name: str, value: float) -> None:
        """Add what a round measured, in seconds."""
        self.values.setdefault(flavour, {}).setdefault(name, []).append(value)

    def get(self, flavour: str, name: str) -> list[float]:
        """Return the values of all rounds; none when it was not measured."""
        return self.values.get(flavour, {}).get(name, [])


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of one side of a figure, in seconds."""

    median: float
    lower: float
    upper: float
    rounds: int


@dataclass(frozen=True)
class Ratio:
    """Median of the rounds' ratios, and the interval that holds it with 95 % confidence."""

    median: float
    low: float
    high: float


def spread_of(values: Sequence[float]) -> Spread:
    """Return median and quartiles; a single value is its own quartiles."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0], 1)
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, lower, upper, len(values))


def ratio_of(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Return the median ratio of paired measurements, with its percentile bootstrap interval.

    The resampling is seeded: the same measurements give the same interval.

    Raises:
        ValueError: the two do not have the same number of rounds, or none.
    """
    ratios = [a / b for a, b in zip(ours, theirs)]
    if not ratios or len(ours) != len(theirs):
        raise ValueError("a ratio needs pairs of measurements")
    generator = random.Random(len(ratios))
    medians = sorted(statistics.median(generator.choices(ratios, k=len(ratios))) for _ in range(_RESAMPLES))
    tail = int(_RESAMPLES * (1 - _CONFIDENCE) / 2)
    return Ratio(statistics.median(ratios), medians[tail], medians[-1 - tail])
