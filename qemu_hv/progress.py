# SPDX-License-Identifier: GPL-2.0-or-later
"""Progress of long work, on standard error.

On a terminal it is a bar with the time left; elsewhere, as in a CI log, one plain line each
ten per cent, or nothing where that is not worth a line.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Protocol

__all__ = ["Reporter", "say", "track"]


class Reporter(Protocol):
    """Takes the state of a piece of work."""

    def update(self, done: int, total: int) -> None:
        """Report that ``done`` of ``total`` steps are done. The total may change."""


def say(message: str) -> None:
    """Print one line about what happens now."""
    print(f"qemu-hv: {message}", file=sys.stderr, flush=True)


class _PlainReporter:
    """Prints a line when another tenth is done."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._tenths = 0
        self._started = time.monotonic()

    def update(self, done: int, total: int) -> None:
        tenths = 10 * done // total if total else 0
        if tenths > self._tenths:
            self._tenths = tenths
            minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
            say(f"{self._title}: {10 * tenths} % ({done}/{total} steps, {minutes}:{seconds:02d})")


class _NoReporter:
    """Prints nothing."""

    def update(self, done: int, total: int) -> None:
        pass


@contextlib.contextmanager
def track(title: str, *, only_bar: bool = False) -> Iterator[Reporter]:
    """Show the progress of the body of a ``with`` statement.

    Args:
        title: what is being done, such as "building QEMU".
        only_bar: show it on a terminal only, since it takes a few seconds at most.
    """
    if only_bar and not sys.stderr.isatty():
        yield _NoReporter()
        return
    if not sys.stderr.isatty():
        say(title)
        yield _PlainReporter(title)
        return

    # Importing rich takes 50 ms that a run with a warm cache does not need.
    import rich.console
    import rich.progress

    columns = (
        rich.progress.TextColumn("qemu-hv: {task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TextColumn("left"),
        rich.progress.TimeRemainingColumn(),
    )
    console = rich.console.Console(stderr=True)
    with rich.progress.Progress(*columns, console=console) as display:
        task = display.add_task(title, total=None)

        class BarReporter:
            def update(self, done: int, total: int) -> None:
                display.update(task, completed=done, total=total)

        yield BarReporter()
