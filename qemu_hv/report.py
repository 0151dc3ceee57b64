# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest did with the hypervisor: from QMP and its console, as tables or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Optional

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from . import hv_tables
from .guest_facts import GuestFacts
from .machine import Event, Machine

__all__ = ["HypervisorState", "Report", "collect", "print_tables"]


@dataclass
class HypervisorState:
    """Results of query-hv, query-hv-partitions, query-hv-vps and query-hv-ports."""

    hv: Mapping[str, Any]
    partitions: list[Mapping[str, Any]]
    vps: list[Mapping[str, Any]]
    ports: Mapping[str, Any]


@dataclass
class Report:
    """A run of a guest.

    Attributes:
        outcome: how it ended: "powered off", "reset", "crashed", "timed out", or QEMU's reason.
        wall_time: seconds from QEMU's start to that end.
        qemu_version: such as "10.0.13".
        accel: the accelerator, as for -accel.
        guest: what the guest said.
        state: the hypervisor's state at the end; None for a machine without the object.
        crash: data of the guest's crash report, if it made one.
    """

    outcome: str
    wall_time: float
    qemu_version: str
    accel: str
    guest: GuestFacts
    state: Optional[HypervisorState] = None
    crash: Optional[Mapping[str, Any]] = field(default=None)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON can hold it; the hypervisor's times in units of 100 ns."""
        return asdict(self)

    def tables(self) -> list[RenderableType]:
        """Return the report as tables."""
        parts: list[RenderableType] = [self._summary()]
        if self.crash is not None:
            parts.append(self._crash())
        if self.guest.interrupts:
            parts.append(self._interrupts())
        if self.state is not None:
            parts += state_tables(self.state)
        return parts

    def _summary(self) -> Table:
        guest = self.guest
        table = _facts("Guest")
        table.add_row("outcome", f"{self.outcome} after {self.wall_time:.2f} s")
        table.add_row("QEMU", f"{self.qemu_version}, -accel {self.accel}")
        table.add_row("detected", Text(guest.detected or "no hypervisor"))
        if guest.kernel is not None:
            table.add_row("kernel", Text(guest.kernel))
        if guest.clocksource is not None:
            others = [name for name in guest.clocksources if name != guest.clocksource]
            also = f" (also available: {', '.join(others)})" if others else ""
            table.add_row("time source", Text(guest.clocksource + also))
        if guest.clockevent is not None:
            table.add_row("clock events", Text(guest.clockevent))
        if guest.uptime is not None:
            table.add_row("uptime", f"{guest.uptime:.2f} s")
        for index, line in enumerate(guest.log):
            table.add_row("" if index else "kernel log", Text(line))
        return table

    def _interrupts(self) -> Table:
        table = Table(title="Interrupts the guest counted", title_justify="left", box=None, pad_edge=False)
        table.add_column("")
        for cpu in range(max(len(row.counts) for row in self.guest.interrupts)):
            table.add_column(f"CPU {cpu}", justify="right")
        table.add_column("")
        width = len(table.columns) - 2
        for row in self.guest.interrupts:
            counts = [str(count) for count in row.counts] + [""] * (width - len(row.counts))
            table.add_row(row.name, *counts, Text(row.description))
        return table

    def _crash(self) -> Group:
        assert self.crash is not None
        table = _facts("The guest reported a crash")
        table.add_row("virtual processor", str(self.crash["vp"]))
        table.add_row("parameters", " ".join(f"0x{p:x}" for p in self.crash["parameters"]))
        message = self.crash.get("message")
        return Group(table, Text(message)) if message else Group(table)


async def collect(machine: Machine, in_child: bool = False) -> Optional[HypervisorState]:
    """Ask a machine for its hypervisor's state; None when it has no such object.

    Args:
        machine: the machine.
        in_child: show the partition that was created last, instead of the machine's own.

    Raises:
        CommandFailed: QEMU answered with an error, for example because it lacks the patches.
    """
    if machine.options.hypervisor is None:
        return None
    partitions = await machine.execute("query-hv-partitions")
    shown = partitions[-1 if in_child else 0]
    hv = await machine.execute("query-hv")
    return HypervisorState(
        hv={**hv, "partition": shown},
        partitions=partitions if not in_child else [shown],
        vps=await machine.execute("query-hv-vps", {"partition": shown["id"]}),
        ports=await machine.execute("query-hv-ports"),
    )


def last_crash(events: list[Event]) -> Optional[Mapping[str, Any]]:
    """Return the data of the last crash report among events, or None."""
    crashes = [event.data for event in events if event.name == "HV_GUEST_CRASH"]
    return crashes[-1] if crashes else None


def state_tables(state: HypervisorState) -> list[RenderableType]:
    """Return a hypervisor's state as tables."""
    parts: list[RenderableType] = [hv_tables.hypervisor_table(state.hv)]
    parts += [hv_tables.partition_table(partition) for partition in state.partitions]
    parts += [
        hv_tables.pages_table(state.vps),
        hv_tables.timer_table(state.vps),
        hv_tables.hypercall_table(state.vps),
        hv_tables.msr_table(state.vps),
        hv_tables.counter_table(state.vps),
    ]
    if state.ports["ports"] or state.ports["connections"]:
        parts += hv_tables.port_tables(state.ports)
    return parts


def print_tables(parts: list[RenderableType], console: Optional[Console] = None) -> None:
    """Print tables with a line between them; not folded when standard output is no terminal."""
    console = console if console is not None else Console(highlight=False)
    if not console.is_terminal:
        console = Console(file=console.file, highlight=False, width=200)
    for part in parts:
        console.print()
        console.print(part)


def _facts(title: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table
