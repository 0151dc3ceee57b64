# SPDX-License-Identifier: GPL-2.0-or-later
"""What a Linux guest says about itself: the /init that makes it say so, and the parser."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Optional

__all__ = ["INIT_SCRIPT", "GuestFacts", "parse_facts"]

_MARKER = "qemu-hv-fact"

INIT_SCRIPT = f"""\
#!/bin/sh
# Says what this kernel found and uses, then powers off. Busybox is all it needs.
mount -t proc proc /proc
mount -t sysfs sysfs /sys
dmesg -n 1

fact() {{
    echo "{_MARKER} $1 $2"
}}

# A little work on all processors, so that there are ticks, wake-ups and remote flushes to count.
cpus=$(nproc)
i=0
while [ "$i" -lt "$cpus" ]; do
    ( sleep 0.2; head -c 500000 /proc/kallsyms | sha256sum | wc -c ) >/dev/null &
    i=$((i + 1))
done
wait
sleep 1

clocks=/sys/devices/system/clocksource/clocksource0
fact kernel "$(uname -r)"
fact cpus "$cpus"
fact clocksource.current "$(cat $clocks/current_clocksource)"
fact clocksource.available "$(cat $clocks/available_clocksource)"
fact clockevent "$(cat /sys/devices/system/clockevents/clockevent0/current_device)"
grep -E '^ *(HVS|HYP|HRE|LOC|CAL|RES|TLB):' /proc/interrupts | while read -r line; do
    fact interrupt "$line"
done
dmesg | grep -i -E 'hyper-?v' | while read -r line; do
    fact dmesg "$line"
done
fact uptime "$(cut -d ' ' -f 1 /proc/uptime)"
sync
poweroff -f
"""

_INTERRUPT = re.compile(r"(?P<name>\w+):\s+(?P<counts>\d+(?:\s+\d+)*)\s*(?P<text>.*)")
_DETECTED = re.compile(r"Hypervisor detected: .*")
_TIMESTAMP = re.compile(r"^\[ *\d+\.\d+\] ?(?:\[ *[TC]\d+\] ?)?")


@dataclass
class InterruptRow:
    """A row of /proc/interrupts.

    Attributes:
        name: its short name, such as "HVS".
        counts: interrupts per CPU.
        description: such as "Hyper-V stimer0 interrupts".
    """

    name: str
    counts: list[int]
    description: str


@dataclass
class GuestFacts:
    """What the guest said.

    Attributes:
        detected: its line about the hypervisor it detected, None when it detected none.
        kernel: its version.
        cpus: how many it runs on.
        clocksource: the clock source it uses.
        clocksources: those it could use.
        clockevent: the clock event device of its first CPU.
        uptime: seconds since it was started.
        interrupts: rows of /proc/interrupts that concern the hypervisor and what it replaces.
        log: lines of its log that name the hypervisor, without their times.
    """

    detected: Optional[str] = None
    kernel: Optional[str] = None
    cpus: Optional[int] = None
    clocksource: Optional[str] = None
    clocksources: list[str] = field(default_factory=list)
    clockevent: Optional[str] = None
    uptime: Optional[float] = None
    interrupts: list[InterruptRow] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether the guest ran our /init to its end."""
        return self.uptime is not None


def parse_facts(lines: Iterable[str]) -> GuestFacts:
    """Return what a guest has said on its console, by our /init or by its kernel's log."""
    facts = GuestFacts()
    for line in lines:
        head, marker, fact = line.partition(_MARKER + " ")
        if marker:
            key, _, value = fact.partition(" ")
            _take(facts, key, value.strip())
            continue
        match = _DETECTED.search(head)
        if match and facts.detected is None:
            facts.detected = match[0].strip()
    return facts


def _take(facts: GuestFacts, key: str, value: str) -> None:
    if key == "kernel":
        facts.kernel = value
    elif key == "cpus":
        facts.cpus = int(value)
    elif key == "clocksource.current":
        facts.clocksource = value
    elif key == "clocksource.available":
        facts.clocksources = value.split()
    elif key == "clockevent":
        facts.clockevent = value
    elif key == "uptime":
        facts.uptime = float(value)
    elif key == "interrupt":
        _take_interrupt(facts, value)
    elif key == "dmesg":
        text = _TIMESTAMP.sub("", value)
        facts.log.append(text)
        match = _DETECTED.search(text)
        if match and facts.detected is None:
            facts.detected = match[0]


def _take_interrupt(facts: GuestFacts, value: str) -> None:
    match = _INTERRUPT.match(value)
    if match is not None:
        counts = [int(count) for count in match["counts"].split()]
        facts.interrupts.append(InterruptRow(match["name"], counts, match["text"]))
