# SPDX-License-Identifier: GPL-2.0-or-later
"""Events of the hypervisor's log as a trace that Perfetto and chrome://tracing open: the JSON trace event format.

Partitions are processes, and their VPs threads; the logical processors are a process of their own. Hypercalls, the time
that a child waits for its parent after an intercept, and who runs on a logical processor are slices. A message is a
flow from where it was posted to where it was delivered. What else happens is an instant.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TextIO

from .event_log import Event, Names, describe, outcome

__all__ = ["Trace", "trace_of", "write_trace"]

TraceEvent = dict[str, Any]

_LPS = 1  # the process of the logical processors
_OTHERS = 2  # and that of what is nobody's
_PARTITIONS = 1000  # that of a partition: its ID and this
_MICROSECONDS = 1e6


@dataclass
class _Track:
    """A thread of the trace, and the slices that are open there, the innermost last."""

    pid: int
    tid: int
    lp: object = None
    slices: list[str] = field(default_factory=list)


class Trace:
    """Makes a trace of events, which come in the order of their time."""

    def __init__(self, frequency: int, start: int) -> None:
        """Begin.

        Args:
            frequency: of the events' time stamps, in Hz.
            start: the time stamp that is 0 in the trace.
        """
        self._frequency = frequency
        self._start = start
        self._names = Names()
        self._tracks: dict[tuple[int, int], _Track] = {}
        self._described: set[int] = set()
        self._posted: dict[int, TraceEvent] = {}
        self.events: list[TraceEvent] = []
        self.lost = 0

    # -- Tracks --

    def _track(self, pid: int, tid: int, process: str, thread: str) -> _Track:
        track = self._tracks.get((pid, tid))
        if track is None:
            track = self._tracks[pid, tid] = _Track(pid, tid)
            if pid not in self._described:
                self._described.add(pid)
                self._metadata(pid, 0, "process_name", {"name": process})
                self._metadata(pid, 0, "process_sort_index", {"sort_index": pid})
            self._metadata(pid, tid, "thread_name", {"name": thread})
            self._metadata(pid, tid, "thread_sort_index", {"sort_index": tid})
        return track

    def _metadata(self, pid: int, tid: int, name: str, args: dict[str, Any]) -> None:
        self.events.append({"ph": "M", "pid": pid, "tid": tid, "name": name, "args": args})

    def _lp_track(self, lp: int) -> _Track:
        return self._track(_LPS, lp + 1, "Logical processors", f"LP {lp}")

    def _track_of(self, event: Event) -> _Track:
        if event.partition is None or event.vp is None:
            if event.lp is None:
                return self._track(_OTHERS, 1, "Other threads", "operator")
            return self._lp_track(event.lp)
        return self._track(
            _PARTITIONS + event.partition, event.vp + 1, f"Partition {event.partition}", f"VP {event.vp}"
        )

    # -- Trace events --

    def _time(self, tsc: int) -> float:
        return round((tsc - self._start) * _MICROSECONDS / self._frequency, 3)

    def _add(self, phase: str, track: _Track, event: Event, **more: Any) -> TraceEvent:
        entry = {"ph": phase, "ts": self._time(event.tsc), "pid": track.pid, "tid": track.tid, **more}
        self.events.append(entry)
        return entry

    def _begin(self, track: _Track, event: Event, kind: str, name: str, **args: Any) -> None:
        # One that is open still lacks its end, which was lost or is not of a group that was recorded.
        if kind in track.slices:
            self._end(track, event, kind)
        self._add("B", track, event, name=name, cat=kind, args=args)
        track.slices.append(kind)

    def _end(self, track: _Track, event: Event, kind: str, **args: Any) -> None:
        """End a slice, and those inside it, if it has begun."""
        while kind in track.slices:
            innermost = track.slices.pop()
            self._add("E", track, event, **({"args": args} if innermost == kind and args else {}))

    def _instant(self, track: _Track, event: Event) -> TraceEvent:
        args: dict[str, Any] = {"text": describe(event, self._names), **event.values}
        return self._add("i", track, event, s="t", name=event.name, cat=event.group, args=args)

    # -- Events --

    def add(self, event: Event) -> None:
        """Take the next event."""
        track = self._track_of(event)
        if event.lp is not None:
            track.lp = event.lp
        handler = getattr(self, f"_on_{event.name.lower()}", None)
        if handler is not None:
            handler(event, track)
        else:
            self._instant(track, event)

    def _on_hc_hypercall(self, event: Event, track: _Track) -> None:
        v = event.values
        name = self._names.hypercall(v["input"])
        self._begin(track, event, "hypercall", name, rip=hex(v["rip"]), input=hex(v["input"]))

    def _on_hypercall_end(self, event: Event, track: _Track) -> None:
        self._end(track, event, "hypercall", status=outcome(event, self._names))

    def _on_intercept_begin(self, event: Event, track: _Track) -> None:
        # A call whose parameters cannot be read ends here: it is made anew when the parent has let the VP go on.
        self._end(track, event, "hypercall", status="intercept")
        name = self._names.message(event.values["type"])
        self._begin(track, event, "intercept", name, rip=hex(event.values["rip"]))

    def _on_intercept_resume(self, event: Event, track: _Track) -> None:
        self._end(track, event, "intercept")

    def _on_sch_context_switch(self, event: Event, track: _Track) -> None:
        lp = self._lp_track(event.lp) if event.lp is not None else track
        self._end(lp, event, "running")
        if event.values["partition"]:
            name = f"{event.values['partition']}.{event.vp if event.vp is not None else '?'}"
            self._begin(lp, event, "running", name, thread=event.values["thread"])

    def _on_message_post(self, event: Event, track: _Track) -> None:
        v = event.values
        name = self._names.message(v["type"])
        self._add("X", track, event, dur=0, name=f"post {name}", cat="message", args=dict(v))
        self._posted[v["id"]] = {**self._flow(track, event, "s"), "name": name}

    def _on_message_deliver(self, event: Event, track: _Track) -> None:
        v = event.values
        name = self._names.message(v["type"])
        self._add("X", track, event, dur=0, name=f"deliver {name}", cat="message", args=dict(v))
        posted = self._posted.pop(v["id"], None)
        # A flow that begins before the log did has no beginning.
        if posted is not None:
            self.events.append(posted)
            self.events.append({**self._flow(track, event, "f"), "name": name, "bp": "e"})

    def _flow(self, track: _Track, event: Event, phase: str) -> TraceEvent:
        flow = {"ph": phase, "ts": self._time(event.tsc), "pid": track.pid, "tid": track.tid}
        return {**flow, "id": event.values["id"], "cat": "message"}

    def _on_lost(self, event: Event, track: _Track) -> None:
        self.lost += event.values["count"]
        self._add("i", track, event, s="g", name=f"{event.values['count']} events lost", cat="lost")
        # What has begun there may have ended meanwhile.
        for other in self._tracks.values():
            if other.lp == event.lp or other is track:
                self._end_all(other, event)

    def _end_all(self, track: _Track, event: Event) -> None:
        while track.slices:
            track.slices.pop()
            self._add("E", track, event, args={"unfinished": True})

    def finish(self, last: Event) -> None:
        """End what is open, at the time of the last event."""
        for track in self._tracks.values():
            self._end_all(track, last)


def trace_of(events: Iterable[Event], frequency: int) -> Trace:
    """Return the trace of events in the order of their time; `frequency` is that of their time stamps, in Hz."""
    ordered = sorted(events, key=lambda event: event.tsc)
    trace = Trace(frequency, ordered[0].tsc if ordered else 0)
    for event in ordered:
        trace.add(event)
    if ordered:
        trace.finish(ordered[-1])
    # A flow is known only when it ends; viewers want everything in the order of its time.
    trace.events.sort(key=lambda entry: entry.get("ts", -1.0))
    return trace


def write_trace(trace: Trace, file: TextIO) -> None:
    """Write a trace as JSON, an event a line."""
    file.write('{"displayTimeUnit": "ns", "otherData": ')
    json.dump({"events lost": trace.lost}, file)
    file.write(', "traceEvents": [\n')
    for number, entry in enumerate(trace.events):
        file.write(",\n" if number else "")
        json.dump(entry, file)
    file.write("\n]}\n")
