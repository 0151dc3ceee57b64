# SPDX-License-Identifier: GPL-2.0-or-later
"""The figures: what is compared with what, and what the ratio has to reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from .samples import (
    NO_COUNTERS,
    NO_INJECTION,
    OBJECT,
    PATCHED,
    ROOT,
    STOCK,
    Ratio,
    Samples,
    Spread,
    ratio_of,
    spread_of,
)

__all__ = ["ALSO", "FIGURES", "Figure", "Result", "evaluate"]

_MINIMUM_ROUNDS = 10


@dataclass(frozen=True)
class Figure:
    """A ratio of two measurements, or a time of its own.

    Attributes:
        key: its name in JSON.
        title: what it is; below a slash, or without one, it is the same in stock QEMU.
        ours: flavour and name of the measurement above the line.
        theirs: and below it; None for a time of its own, which then has a limit in seconds.
        must: the ratio (or time) it has to reach; None for a figure that is only told.
        aim: the one that is wanted.
    """

    key: str
    title: str
    ours: tuple[str, str]
    theirs: Optional[tuple[str, str]]
    must: Optional[float] = None
    aim: Optional[float] = None


FIGURES = (
    Figure(
        "boot-without-object",
        "kernel boot to power-off, without the object",
        (PATCHED, "boot"),
        (STOCK, "boot"),
        1.01,
        1.00,
    ),
    Figure(
        "boot-with-object",
        "kernel boot to power-off, with the object",
        (OBJECT, "boot"),
        (STOCK, "boot"),
        1.00,
        0.90,
    ),
    Figure(
        "boot-injection",
        "kernel boot to power-off, fault injection compiled in and off / compiled out",
        (OBJECT, "boot"),
        (NO_INJECTION, "boot"),
        1.01,
        1.00,
    ),
    Figure(
        "boot-event-log",
        "kernel boot with the event log recording everything / off",
        (OBJECT, "boot-logged"),
        (OBJECT, "boot-unlogged"),
        1.15,
        1.05,
    ),
    Figure(
        "hypercall",
        "hypercall (HvSendSyntheticClusterIpi to nobody) / CPUID",
        (OBJECT, "hypercall-cluster-ipi"),
        (STOCK, "cpuid"),
        5.0,
        3.5,
    ),
    Figure(
        "counters",
        "hypercall (the same) / with counters compiled out",
        (OBJECT, "hypercall-cluster-ipi"),
        (NO_COUNTERS, "hypercall-cluster-ipi"),
        1.03,
        1.00,
    ),
    Figure(
        "synthetic-msr",
        "RDMSR of the VP index / of the APIC base",
        (OBJECT, "rdmsr-vp-index"),
        (STOCK, "rdmsr-apic-base"),
        1.5,
        1.1,
    ),
    Figure(
        "reference-time",
        "time by the reference TSC page / by RDTSC",
        (OBJECT, "tsc-page"),
        (STOCK, "rdtsc"),
        1.7,
        1.5,
    ),
    Figure(
        "ipi",
        "IPI there and back, by hypercall / by xAPIC ICR",
        (OBJECT, "ipi-hypercall"),
        (STOCK, "ipi-icr"),
        1.0,
        0.7,
    ),
    Figure(
        "timer",
        "timer lateness, halted VP, synthetic / local APIC",
        (OBJECT, "timer-synthetic"),
        (STOCK, "timer-apic"),
        1.0,
        0.8,
    ),
    Figure(
        "start",
        "QEMU start to first guest instruction, with the object",
        (OBJECT, "start"),
        (STOCK, "start"),
        1.05,
        1.00,
    ),
    Figure("child-cpu", "CPU-bound loop, child / root", (ROOT, "cpu-child"), (ROOT, "cpu-root"), 1.03, 1.00),
    Figure(
        "child-memory", "memory-bound loop, child / root", (ROOT, "memory-child"), (ROOT, "memory-root"), 1.03, 1.00
    ),
    Figure(
        "child-walk",
        "random walk over 256 MiB, child / root",
        (ROOT, "walk-child"),
        (ROOT, "walk-root"),
        1.25,
        1.05,
    ),
    Figure("child-boot", "kernel boot in a child / as plain guest", (ROOT, "boot"), (OBJECT, "boot"), 1.25, 1.05),
    Figure(
        "intercept-idle",
        "CPUID intercept, root on the same LP in guest idle, interrupts off / nested SVM round trip",
        (ROOT, "intercept-idle"),
        (STOCK, "svm"),
        0.08,
        0.04,
    ),
    Figure(
        "intercept-interrupt",
        "CPUID intercept, root on the same LP takes the interrupt / nested SVM round trip",
        (ROOT, "intercept-interrupt"),
        (STOCK, "svm"),
        0.15,
        0.10,
    ),
    Figure(
        "intercept-other-lp",
        "CPUID intercept, halted root on another LP / IPI to a halted CPU and back to a halted one",
        (ROOT, "intercept-other-lp"),
        (STOCK, "ipi-halted"),
        1.2,
        0.8,
    ),
    Figure(
        "two-children",
        "slowdown by a second one on another LP, children / root VPs",
        (ROOT, "two-children"),
        (ROOT, "two-roots"),
        round(1 / 0.95, 3),
        1.00,
    ),
    Figure("map", "HvMapGpaPages, one page of a full call", (ROOT, "map-page"), None, 50e-9, 10e-9),
    Figure(
        "partition-life",
        "a partition with one VP: create, initialize, delete",
        (ROOT, "partition-life"),
        None,
        2e-3,
        0.3e-3,
    ),
    Figure(
        "message",
        "HvPostMessage child to root and back, different LPs / hypercall IPI there and back",
        (ROOT, "message"),
        (ROOT, "ipi-hypercall"),
        1.5,
        1.0,
    ),
    Figure(
        "event",
        "HvSignalEvent child to root and back, different LPs / hypercall IPI there and back",
        (ROOT, "event"),
        (ROOT, "ipi-hypercall"),
        1.5,
        1.0,
    ),
    Figure(
        "save",
        "save of a 512 MiB child, 1 MiB / QEMU's own migration of the machine, 1 MiB, both into tmpfs",
        (ROOT, "save"),
        (ROOT, "migrate"),
        1.0,
        0.5,
    ),
    Figure("save-pause", "pause seen by the guest in that save", (ROOT, "save-pause"), None, 1.0, 0.2),
)
"""The figures with limits, in the table's order."""

ALSO = (
    Figure(
        "boot-cpu-without-object",
        "processor time of the boot, without the object",
        (PATCHED, "boot-cpu"),
        (STOCK, "boot-cpu"),
    ),
    Figure(
        "boot-cpu-with-object",
        "processor time of the boot, with the object",
        (OBJECT, "boot-cpu"),
        (STOCK, "boot-cpu"),
    ),
    Figure(
        "boot-cpu-event-log",
        "processor time of the boot, with the event log recording everything / off",
        (OBJECT, "boot-logged-cpu"),
        (OBJECT, "boot-unlogged-cpu"),
    ),
    Figure(
        "long-spin-wait",
        "HvNotifyLongSpinWait / CPUID",
        (OBJECT, "hypercall-long-spin-wait"),
        (STOCK, "cpuid"),
    ),
    Figure(
        "reference-counter",
        "RDMSR of the reference counter / of the APIC base",
        (OBJECT, "rdmsr-reference-counter"),
        (STOCK, "rdmsr-apic-base"),
    ),
    Figure(
        "reference-time-ordered",
        "time by the reference TSC page / by RDTSC, after LFENCE",
        (OBJECT, "tsc-page-ordered"),
        (STOCK, "rdtsc-ordered"),
    ),
    Figure("rdtsc", "RDTSC with the object", (OBJECT, "rdtsc"), (STOCK, "rdtsc")),
    Figure("cpuid", "CPUID with the object", (OBJECT, "cpuid"), (STOCK, "cpuid")),
    Figure(
        "rdmsr",
        "RDMSR of the APIC base with the object",
        (OBJECT, "rdmsr-apic-base"),
        (STOCK, "rdmsr-apic-base"),
    ),
    Figure("ipi-icr", "IPI there and back by xAPIC ICR, with the object", (OBJECT, "ipi-icr"), (STOCK, "ipi-icr")),
    Figure(
        "timer-apic",
        "timer lateness, halted VP, local APIC, with the object",
        (OBJECT, "timer-apic"),
        (STOCK, "timer-apic"),
    ),
    Figure("rdtsc-patched", "RDTSC without the object", (PATCHED, "rdtsc"), (STOCK, "rdtsc")),
    Figure("cpuid-patched", "CPUID without the object", (PATCHED, "cpuid"), (STOCK, "cpuid")),
    Figure(
        "rdmsr-patched",
        "RDMSR of the APIC base without the object",
        (PATCHED, "rdmsr-apic-base"),
        (STOCK, "rdmsr-apic-base"),
    ),
    Figure(
        "ipi-icr-patched",
        "IPI there and back by xAPIC ICR, without the object",
        (PATCHED, "ipi-icr"),
        (STOCK, "ipi-icr"),
    ),
    Figure(
        "start-patched",
        "QEMU start to first guest instruction, without the object",
        (PATCHED, "start"),
        (STOCK, "start"),
    ),
    Figure(
        "boot-cpu-injection",
        "processor time of the boot, fault injection compiled in and off / compiled out",
        (OBJECT, "boot-cpu"),
        (NO_INJECTION, "boot-cpu"),
    ),
    Figure(
        "boot-cpu-child",
        "processor time of the boot in a child / as plain guest",
        (ROOT, "boot-cpu"),
        (OBJECT, "boot-cpu"),
    ),
    Figure(
        "intercept-other-lp-spinning",
        "CPUID intercept, halted root on another LP / IPI to a halted CPU and back to a spinning one",
        (ROOT, "intercept-other-lp"),
        (STOCK, "ipi-halted-spinning"),
    ),
    Figure(
        "ipi-halted",
        "IPI to a halted CPU and back to a halted one, role=root",
        (ROOT, "ipi-halted"),
        (STOCK, "ipi-halted"),
    ),
)
"""Figures without limits, which help to understand the others."""


@dataclass(frozen=True)
class Result:
    """A figure and what was measured of it; `ratio` is in seconds when there is nothing to compare with."""

    figure: Figure
    ours: Spread
    theirs: Optional[Spread]
    ratio: Ratio

    @property
    def missed(self) -> bool:
        """Whether the whole interval lies above what the ratio has to reach, with enough rounds to say so."""
        must = self.figure.must
        return must is not None and self.ours.rounds >= _MINIMUM_ROUNDS and self.ratio.low > must

    @property
    def verdict(self) -> str:
        """The result in a few words; empty for a figure without a limit."""
        if self.figure.must is None or self.figure.aim is None:
            return ""
        if self.ours.rounds < _MINIMUM_ROUNDS:
            return "too few rounds"
        if self.missed:
            return "missed"
        return "aim reached" if self.ratio.median <= self.figure.aim else "reached"


def evaluate(figures: tuple[Figure, ...], samples: Samples) -> list[Result]:
    """Return the results of the figures that were measured."""
    results = []
    for figure in figures:
        ours = samples.get(*figure.ours)
        if figure.theirs is None:
            if ours:
                results.append(Result(figure, spread_of(ours), None, ratio_of(ours, [1.0] * len(ours))))
            continue
        theirs = samples.get(*figure.theirs)
        if ours and theirs:
            results.append(Result(figure, spread_of(ours), spread_of(theirs), ratio_of(ours, theirs)))
    return results
