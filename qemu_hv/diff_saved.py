# SPDX-License-Identifier: GPL-2.0-or-later
"""``qemu-hv diff OLD NEW``: what changed between two saves of a child partition."""

from __future__ import annotations

import argparse
import struct
from collections.abc import Iterator
from pathlib import Path

from . import saved_state
from .inspect_saved import state_of
from .policy.save_restore import SavedChild

__all__ = ["add_arguments", "execute"]

_MOST_RANGES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("old", type=Path, help="file made by `qemu-hv save`")
    parser.add_argument("new", type=Path, help="a later one")


def execute(args: argparse.Namespace) -> int:
    """Do what the arguments say; the exit status is 0 when nothing differs, else 1, as diff's is."""
    old, new = SavedChild.open(args.old), SavedChild.open(args.new)
    lines = [*_state(state_of(old), state_of(new)), *_pages(old, new)]
    print("\n".join(lines) if lines else "nothing has changed")
    return 1 if lines else 0


def _text(value: object) -> str:
    return f"0x{value:x}" if isinstance(value, int) else "none" if value is None else "other content"


def _state(old: saved_state.State, new: saved_state.State) -> Iterator[str]:
    for group in sorted({*old.groups, *new.groups}):
        before, after = old.groups.get(group, {}), new.groups.get(group, {})
        for name in sorted({*before, *after}):
            was, now = before.get(name), after.get(name)
            if was == now:
                continue
            if isinstance(was, bytes) and isinstance(now, bytes):
                count = sum(a != b for a, b in zip(was, now))
                yield f"{group}: {name}: {count} bytes differ"
            else:
                yield f"{group}: {name}: {_text(was)} -> {_text(now)}"
    for queue in sorted({*old.messages, *new.messages}):
        if old.messages.get(queue) != new.messages.get(queue):
            counts = [len(state.messages.get(queue, [])) for state in (old, new)]
            yield f"{queue}: messages that wait: {counts[0]} -> {counts[1]}"


def _sums(saved: SavedChild) -> list[int]:
    """By page: the hash of its content; 0 for one of zeros."""
    sums = [0, *(number for (number,) in struct.iter_unpack("<Q", saved.sums))]
    return [sums[number] for number in saved.contents()]


def _pages(old: SavedChild, new: SavedChild) -> Iterator[str]:
    before, after = _sums(old), _sums(new)
    if len(before) != len(after):
        yield f"memory: {len(before)} -> {len(after)} pages"
        return
    ranges: list[list[int]] = []
    for page, (was, now) in enumerate(zip(before, after)):
        if was == now:
            continue
        if ranges and ranges[-1][1] == page:
            ranges[-1][1] += 1
        else:
            ranges.append([page, page + 1])
    if not ranges:
        return
    yield f"memory: {sum(end - begin for begin, end in ranges)} of {len(after)} pages differ"
    for begin, end in ranges[:_MOST_RANGES]:
        yield f"memory: mapped page {begin}" + (f" to {end - 1}" if end > begin + 1 else "")
    if len(ranges) > _MOST_RANGES:
        yield f"memory: and {len(ranges) - _MOST_RANGES} more ranges"
