# SPDX-License-Identifier: GPL-2.0-or-later
"""``qemu-hv top``: a live screen of what a machine's partitions and processors do."""

from __future__ import annotations

import argparse
import asyncio
from typing import Optional

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from ..errors import UserError
from ..qmp_session import add_address_argument, address_of, open_session
from . import History, Key, Sample, query

__all__ = ["add_arguments", "execute", "screen"]

_DEFAULT_INTERVAL = 1.0
_CALLS = 10
"""Hypercalls shown: those made most often."""

_INTERCEPTS = [
    ("I/O", "IoInstructions"),
    ("CPUID", "CpuidInstructions"),
    ("MSR", "MsrAccesses"),
    ("CR", "ControlRegisterAccesses"),
    ("HLT", "HltInstructions"),
    ("INVLPG", "PageInvalidations"),
    ("#PF", "PageFaultIntercepts"),
    ("APIC", "ApicMmioAccesses"),
    ("ext.intr", "ExternalInterrupts"),
    ("other", "OtherIntercepts"),
]
_MESSAGES = [("I/O", "IoInterceptMessages"), ("memory", "MemoryInterceptMessages"), ("other", "OtherMessages")]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_address_argument(parser)
    parser.add_argument("--interval", metavar="SECONDS", type=float, default=_DEFAULT_INTERVAL, help="(default: 1)")
    parser.add_argument("--once", action="store_true", help="print the screen once, after one interval")


def execute(args: argparse.Namespace) -> int:
    """Show the screen until interrupted."""
    if args.interval <= 0:
        raise UserError(f"--interval {args.interval:g}: it has to be more than 0 seconds")
    return asyncio.run(_show(address_of(args), args.interval, args.once))


async def _show(address: str, interval: float, once: bool) -> int:
    history = History(2)
    console = Console(highlight=False)
    async with open_session(address) as session:
        history.add(await query(session))
        if once:
            await asyncio.sleep(interval)
            history.add(await query(session))
            console.print(screen(history))
            return 0
        with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
            while True:
                await asyncio.sleep(interval)
                history.add(await query(session))
                live.update(screen(history), refresh=True)


def screen(history: History) -> Group:
    """The whole screen, from the last two snapshots."""
    parts: list[RenderableType] = [_head(history)]
    if any(key.object == "logical-processor" for key in history.latest.objects):
        parts.append(_processors(history))
    parts += [_partitions(history), _vps(history), _intercepts(history), _calls(history)]
    return Group(*parts)


# -- Numbers --


def _of(history: History, kind: str) -> list[tuple[Key, Sample]]:
    return [(key, sample) for key, sample in history.latest.objects.items() if key.object == kind]


def _number(rate: Optional[float]) -> str:
    """A rate in four characters or so."""
    if rate is None:
        return ""
    for limit, divisor, suffix in ((10_000, 1, ""), (10_000_000, 1_000, "k")):
        if rate < limit:
            return f"{rate / divisor:.0f}{suffix}"
    return f"{rate / 1_000_000:.0f}M"


def _share(rate: Optional[float]) -> str:
    return "" if rate is None else f"{rate:.0f} %"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    return table


# -- Parts --


def _head(history: History) -> str:
    ((_, hypervisor),) = _of(history, "hypervisor")
    c = hypervisor.counters
    return (
        f"[bold]{c['Partitions']} partitions, {c['VirtualProcessors']} VPs on {c['LogicalProcessors']} processors, "
        f"{c['TotalPages']} pages in pools[/bold]\n"
    )


def _processors(history: History) -> Table:
    table = _table("Logical processors", "", "busy", "hv", "switches/s", "halts/s", "IPIs/s", "timers/s", "hw/s")
    symbols = ("ContextSwitches", "ProcessorHalts", "InterProcessorInterrupts", "TimerInterrupts", "HardwareInterrupts")
    for key, _ in _of(history, "logical-processor"):
        shares = (_share(history.rate(key, symbol)) for symbol in ("TotalRunTime", "HypervisorRunTime"))
        table.add_row(key.label, *shares, *(_number(history.rate(key, symbol)) for symbol in symbols))
    return table


def _partitions(history: History) -> Table:
    table = _table("\nPartitions", "", "VPs", "run time", "mapped MiB", "pool pages", "changes/s", "flushes/s")
    for key, sample in _of(history, "partition"):
        c = sample.counters
        run = [history.rate(vp, "TotalRunTime") for vp, _ in _of(history, "vp") if vp.partition == key.partition]
        known = [rate for rate in run if rate is not None]
        table.add_row(
            f"{key.partition} {sample.name or ('root' if key.partition == 1 else '')}".rstrip(),
            str(c["VirtualProcessors"]),
            _share(sum(known) if known else None),
            f"{c['GpaPages'] / 256:.1f}" if c["GpaPages"] else "",
            str(c["DepositedPages"]),
            _number(history.rate(key, "GpaSpaceModifications")),
            _number(history.rate(key, "VirtualTlbFlushEntries")),
        )
    return table


def _vps(history: History) -> Table:
    columns = ("", "run", "hv", "calls/s", "ns each", "intr/s", "synic/s", "IPIs/s")
    table = _table(
        "\nVirtual processors; intercept messages to the parent a second", *columns, *(n for n, _ in _MESSAGES)
    )
    for key, sample in _of(history, "vp"):
        table.add_row(
            key.label,
            _share(history.rate(key, "TotalRunTime")),
            _share(history.rate(key, "HypervisorRunTime")),
            _number(history.rate(key, "Hypercalls")),
            str(sample.counters["HypercallsCost"]),
            _number(history.rate(key, "VirtualInterrupts")),
            _number(history.rate(key, "SyntheticInterrupts")),
            _number(history.rate(key, "ApicIpisSent")),
            *(_number(history.rate(key, symbol)) for _, symbol in _MESSAGES),
        )
    return table


def _intercepts(history: History) -> Table:
    table = _table("\nIntercepts a second", "", *(name for name, _ in _INTERCEPTS))
    for key, _ in _of(history, "vp"):
        table.add_row(key.label, *(_number(history.rate(key, symbol)) for _, symbol in _INTERCEPTS))
    return table


def _calls(history: History) -> Table:
    rates: dict[str, float] = {}
    totals: dict[str, int] = {}
    for key, sample in _of(history, "vp"):
        for name, count in sample.hypercalls.items():
            rates[name] = rates.get(name, 0.0) + history.call_rate(key, name)
            totals[name] = totals.get(name, 0) + count
    table = _table("\nHypercalls", "", "a second", "in all")
    for name in sorted(totals, key=lambda name: (-rates[name], -totals[name], name))[:_CALLS]:
        table.add_row(name, _number(rates[name]), str(totals[name]))
    return table
