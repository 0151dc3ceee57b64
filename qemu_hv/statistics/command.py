# SPDX-License-Identifier: GPL-2.0-or-later
"""``qemu-hv stats``: counters of a running machine, once or again and again, as a table, JSON, CSV or a picture."""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import sys
import time
from pathlib import Path
from typing import Callable, Optional

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from ..errors import UserError
from ..qmp_session import QmpSession, add_address_argument, address_of, open_session
from . import COUNTERS, Counter, History, Key, Snapshot, find, query

__all__ = ["Choice", "add_arguments", "execute", "print_csv", "print_json", "tables"]

_DEFAULT_INTERVAL = 1.0
_PLOT_SECONDS = 10.0
_PLOTTED = ["Hypercalls", "MsrAccesses", "VirtualInterrupts", "SmallPageTlbFills"]
_CSV_HEAD = ["time", "object", "partition", "index", "counter", "value", "rate", "rate unit"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_address_argument(parser)
    parser.add_argument(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        type=float,
        const=_DEFAULT_INTERVAL,
        help="show rates, again and again until interrupted (default: every second)",
    )
    parser.add_argument("--count", metavar="N", type=int, help="with --watch, end after so many times")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON, a line for each time")
    form.add_argument("--csv", action="store_true", help="print CSV, a line for each counter and time")
    form.add_argument("--plot", metavar="FILE", type=Path, help="draw rates into a picture (.png, .svg, .pdf)")
    parser.add_argument(
        "--seconds", metavar="N", type=float, default=_PLOT_SECONDS, help="with --plot, for so long (default: 10)"
    )
    parser.add_argument("--counter", metavar="NAME", action="append", help="only this one; may be given several times")
    parser.add_argument("--object", choices=sorted(COUNTERS), action="append", help="only objects of this kind")
    parser.add_argument("--all", action="store_true", help="counters that are zero too")


def execute(args: argparse.Namespace) -> int:
    """Print or draw what was counted."""
    if args.watch is not None and args.watch <= 0:
        raise UserError(f"--watch {args.watch:g}: the interval has to be more than 0 seconds")
    choice = Choice(args.counter, args.object, args.all)
    if args.plot is not None:
        return asyncio.run(_plot(address_of(args), args.plot, args.watch or _DEFAULT_INTERVAL, args.seconds, choice))
    return asyncio.run(_show(args, address_of(args), choice))


class Choice:
    """Which counters of which objects are wanted."""

    def __init__(self, words: Optional[list[str]], objects: Optional[list[str]], zeros: bool) -> None:
        """Take counters by symbol or name and kinds of objects; None: all of them.

        Raises:
            UserError: there is no such counter.
        """
        self._objects = objects
        self._zeros = zeros
        self._counters: Optional[set[Counter]] = None
        if words is not None:
            self._counters = set()
            for word in words:
                found = find(word)
                if not found:
                    raise UserError(f"there is no counter '{word}'; docs/status.md lists them")
                self._counters.update(found)

    def of(self, snapshot: Snapshot) -> list[tuple[Key, Counter, int]]:
        """Chosen counters and their values, in the order of the tree and of the specification."""
        return [
            (key, COUNTERS[key.object][symbol], value)
            for key, sample in snapshot.objects.items()
            if self._objects is None or key.object in self._objects
            for symbol, value in sample.counters.items()
            if self._wanted(COUNTERS[key.object][symbol], value)
        ]

    @property
    def is_default(self) -> bool:
        """Whether no counter has been named."""
        return self._counters is None

    def _wanted(self, counter: Counter, value: int) -> bool:
        if self._counters is not None:
            return counter in self._counters
        return value != 0 or self._zeros


# -- Output --


def _value(counter: Counter, value: int) -> str:
    if counter.kind == "time":
        return f"{value * (1e-7 if counter.unit == '100ns' else 1e-9):.3f} s"
    return f"{value} {counter.unit}".rstrip()


def _rate(counter: Counter, rate: Optional[float]) -> str:
    if rate is None:
        return ""
    return f"{rate:.1f} %" if counter.kind == "time" else f"{rate:.1f} /s"


def tables(history: History, choice: Optional[Choice] = None) -> list[Table]:
    """A table for each object, of its counters and, when there are two snapshots, their rates."""
    choice = choice or Choice(None, None, zeros=False)
    made: dict[Key, Table] = {}
    for key, counter, value in choice.of(history.latest):
        if key not in made:
            name = history.latest.objects[key].name
            made[key] = Table(
                title=f"{key.label} {name}".rstrip(), title_justify="left", box=None, pad_edge=False, show_header=False
            )
        made[key].add_row(counter.name, _value(counter, value), _rate(counter, history.rate(key, counter.symbol)))
    return list(made.values())


def print_json(history: History, choice: Choice) -> None:
    """Print the newest snapshot as a line of JSON."""
    objects: dict[Key, dict[str, object]] = {}
    for key, counter, value in choice.of(history.latest):
        entry = objects.setdefault(
            key, {"object": key.object, "partition": key.partition, "index": key.index, "counters": {}, "rates": {}}
        )
        entry["counters"][counter.symbol] = value  # type: ignore[index]
        rate = history.rate(key, counter.symbol)
        if rate is not None:
            entry["rates"][counter.symbol] = rate  # type: ignore[index]
    print(json.dumps({"time": history.latest.time, "objects": list(objects.values())}), flush=True)


def print_csv(history: History, choice: Choice) -> None:
    """Print the newest snapshot as lines of CSV; the first one with a head."""
    writer = csv.writer(sys.stdout)
    if len(history) == 1:
        writer.writerow(_CSV_HEAD)
    for key, counter, value in choice.of(history.latest):
        rate = history.rate(key, counter.symbol)
        known = ["", ""] if rate is None else [f"{rate:.6g}", counter.rate_unit]
        partition = "" if key.partition is None else key.partition
        index = "" if key.index is None else key.index
        writer.writerow([f"{history.latest.time:.6f}", key.object, partition, index, counter.symbol, value, *known])
    sys.stdout.flush()


async def _show(args: argparse.Namespace, address: str, choice: Choice) -> int:
    history = History(2)
    console = Console(highlight=False)
    async with open_session(address) as session:
        if args.json or args.csv:
            show = print_json if args.json else print_csv
            await _repeat(session, history, args.watch, args.count, lambda: show(history, choice))
        elif args.watch is None:
            history.add(await query(session))
            console.print(*tables(history, choice), sep="\n")
        else:
            with Live(console=console, auto_refresh=False) as live:
                await _repeat(
                    session,
                    history,
                    args.watch,
                    args.count,
                    lambda: live.update(Group(*tables(history, choice)), refresh=True),
                )
    return 0


async def _repeat(
    session: QmpSession, history: History, interval: Optional[float], count: Optional[int], show: Callable[[], None]
) -> None:
    """Take snapshots and show them: once without an interval, `count` times, or for ever."""
    times = 0
    while True:
        history.add(await query(session))
        show()
        times += 1
        if interval is None or times == count:
            return
        await asyncio.sleep(interval)


# -- Pictures --


async def _plot(address: str, path: Path, interval: float, seconds: float, choice: Choice) -> int:
    from . import plot

    plot.check(path)
    history = History(max(2, int(seconds / interval) + 2))
    async with open_session(address) as session:
        end = time.monotonic() + seconds
        while True:
            history.add(await query(session))
            if time.monotonic() >= end and len(history) >= 2:
                break
            await asyncio.sleep(min(interval, max(end - time.monotonic(), 0.01)))
    wanted = [(key, counter) for key, counter, _ in choice.of(history.latest)]
    if choice.is_default:
        wanted = [(key, counter) for key, counter in wanted if counter.symbol in _PLOTTED]
    if not wanted:
        raise UserError("nothing was counted that could be drawn; name counters with --counter")
    plot.draw(history, wanted, path)
    print(path)
    return 0
