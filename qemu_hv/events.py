# SPDX-License-Identifier: GPL-2.0-or-later
"""``qemu-hv events``: what the hypervisor of a running machine does, as it happens."""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Optional

from .errors import UserError
from .event_log import LOST, Decoder, Event, EventFilter, Names, describe, group_names
from .event_trace import trace_of, write_trace
from .qmp_session import QmpSession, add_address_argument, address_of, open_session

__all__ = ["add_arguments", "execute", "line"]

_DEFAULT_SECONDS = 1.0
_DEFAULT_MIB = 16.0
_POLL_SECONDS = 0.05
_BATCH = 1 << 22  # bytes; the client takes answers of up to 10 MiB
_MIB = 1 << 20


def _number(text: str) -> int:
    """A number as C writes it: 0x for hexadecimal."""
    return int(text, 0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_address_argument(parser)
    parser.add_argument(
        "--group",
        action="append",
        default=[],
        metavar="GROUP",
        help="record events of this group (may be given more than once; default: all; 'list' lists them)",
    )
    parser.add_argument("--partition", type=_number, metavar="ID", help="record what is of this partition only")
    parser.add_argument("--vp", type=_number, action="append", default=[], help="show what is of this VP only")
    parser.add_argument("--lp", type=_number, action="append", default=[], help="show this logical processor only")
    parser.add_argument(
        "--name", action="append", default=[], metavar="PATTERN", help="show events of this name only, e.g. 'IM_*'"
    )
    parser.add_argument(
        "--size",
        type=float,
        default=_DEFAULT_MIB,
        metavar="MIB",
        help=f"what the machine keeps for each logical processor until it is read (default: {_DEFAULT_MIB:g})",
    )
    period = parser.add_mutually_exclusive_group()
    period.add_argument(
        "--seconds",
        type=float,
        default=_DEFAULT_SECONDS,
        help=f"how long to record (default: {_DEFAULT_SECONDS:g})",
    )
    period.add_argument("--follow", action="store_true", help="record until interrupted")
    period.add_argument("--recorded", action="store_true", help="take what a log that is on has recorded so far")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print a JSON object a line")
    output.add_argument(
        "--export", type=Path, metavar="FILE", help="write a trace for Perfetto (ui.perfetto.dev) or chrome://tracing"
    )


def execute(args: argparse.Namespace) -> int:
    """Record, and show or write what was recorded."""
    if "list" in args.group:
        print("\n".join(group_names()))
        return 0
    wanted = EventFilter(vps=args.vp, lps=args.lp, names=args.name)
    recorder = _Recorder(args)
    sink = _Export(args.export, wanted) if args.export else _Printer(wanted, as_json=args.json)
    try:
        asyncio.run(recorder.run(address_of(args), sink))
    except KeyboardInterrupt:
        if not args.follow:
            raise
    finally:
        sink.close()
    return 0


class _Sink:
    """Where events go."""

    def begin(self, frequency: int) -> None:
        """Take the frequency of time stamps, in Hz, before the first events."""

    def take(self, data: bytes) -> None:
        """Take entries; what takes long is put off, as the machine is not waiting."""

    def close(self) -> None:
        """There will be no more."""


class _Recorder:
    """Has the machine record events, and fetches them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args

    async def run(self, address: str, sink: _Sink) -> None:
        async with open_session(address) as session:
            if self._args.recorded:
                await self._take_recorded(session, sink)
                return
            await self._start(session)
            try:
                sink.begin((await session.execute("query-hv-events"))["tsc-frequency"])
                async for data in self._batches(session):
                    sink.take(data)
            finally:
                await session.execute("hv-events-stop")
            await self._drain(session, sink)

    async def _start(self, session: QmpSession) -> None:
        if (await session.execute("query-hv-events"))["running"]:
            raise UserError("the machine is recording events already; --recorded takes what it has")
        options: dict[str, Any] = {"size": int(self._args.size * _MIB)}
        if self._args.group:
            options["groups"] = self._args.group
        if self._args.partition is not None:
            options["partition"] = self._args.partition
        await session.execute("hv-events-start", **options)

    async def _batches(self, session: QmpSession) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        end = None if self._args.follow else loop.time() + self._args.seconds
        while end is None or loop.time() < end:
            batch = await session.execute("hv-events-read", max=_BATCH)
            yield base64.b64decode(batch["data"])
            if batch["unread"] < _BATCH // 4:
                await asyncio.sleep(_POLL_SECONDS)

    async def _drain(self, session: QmpSession, sink: _Sink) -> None:
        while True:
            batch = await session.execute("hv-events-read", max=_BATCH)
            if not batch["data"]:
                return
            sink.take(base64.b64decode(batch["data"]))

    async def _take_recorded(self, session: QmpSession, sink: _Sink) -> None:
        state = await session.execute("query-hv-events")
        sink.begin(state["tsc-frequency"])
        left = state["unread"]
        # What is recorded while this reads is left to the next one.
        while left > 0:
            batch = await session.execute("hv-events-read", max=_BATCH)
            data = base64.b64decode(batch["data"])
            if not data:
                return
            left -= len(data)
            sink.take(data)


class _Printer(_Sink):
    """Prints events, a line each."""

    def __init__(self, wanted: EventFilter, *, as_json: bool) -> None:
        self._wanted = wanted
        self._as_json = as_json
        self._decoder = Decoder()
        self._names = Names()
        self._frequency = 1
        self._start: Optional[int] = None

    def begin(self, frequency: int) -> None:
        self._frequency = frequency

    def take(self, data: bytes) -> None:
        events = self._decoder.decode(data)
        if self._start is None and events:
            self._start = events[0].tsc
        for event in self._wanted.select(events):
            seconds = (event.tsc - (self._start or 0)) / self._frequency
            if self._as_json:
                print(json.dumps({"time": round(seconds, 9), **asdict(event)}))
            else:
                print(line(event, seconds, self._names))
        sys.stdout.flush()


def line(event: Event, seconds: float, names: Names) -> str:
    """Show an event in a line; `seconds` since the first one."""
    place = f"LP {event.lp}" if event.lp is not None else "-"
    whose = "" if event.partition is None else f"{event.partition}." + ("-" if event.vp is None else str(event.vp))
    if event.name == LOST:
        return f"{seconds:12.6f}  {place:6}  {event.values['count']} events were lost here: nobody read in time"
    return f"{seconds:12.6f}  {place:6}  {whose:6}  {event.name:26}  {describe(event, names)}".rstrip()


class _Export(_Sink):
    """Keeps events, and writes a trace of them."""

    def __init__(self, path: Path, wanted: EventFilter) -> None:
        self._path = path
        self._wanted = wanted
        self._frequency = 0
        self._data: list[bytes] = []

    def begin(self, frequency: int) -> None:
        self._frequency = frequency

    def take(self, data: bytes) -> None:
        self._data.append(data)

    def close(self) -> None:
        if not self._frequency:
            return  # nothing was recorded: why is being told
        events = self._wanted.select(Decoder().decode(b"".join(self._data)))
        trace = trace_of(events, self._frequency)
        try:
            with self._path.open("w", encoding="utf-8") as file:
                write_trace(trace, file)
        except OSError as error:
            raise UserError(f"{self._path} cannot be written: {error.strerror}") from error
        lost = f", {trace.lost} were lost" if trace.lost else ""
        print(f"{self._path}: {len(events)} events{lost}; open it with https://ui.perfetto.dev")
