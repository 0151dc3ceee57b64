# SPDX-License-Identifier: GPL-2.0-or-later
"""Pictures of statistics, by matplotlib, which is imported here only."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..errors import UserError
from . import Counter, History, Key

__all__ = ["check", "draw"]

_FORMATS = {".png", ".svg", ".pdf"}
_INCHES = (8, 2.2)  # of each counter's part
_DOTS_PER_INCH = 80


def check(path: Path) -> None:
    """Refuse a file that cannot be drawn, before time is spent on it.

    Raises:
        UserError: another format, no such folder, or no matplotlib.
    """
    if path.suffix.lower() not in _FORMATS:
        raise UserError(f"{path}: pictures are {', '.join(sorted(_FORMATS))} files")
    if not path.absolute().parent.is_dir():
        raise UserError(f"{path}: the folder does not exist")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError("plots need matplotlib; install it with: pip install 'qemu-hv[stats]'") from error


def draw(history: History, wanted: Iterable[tuple[Key, Counter]], path: Path) -> None:
    """Draw the rates of counters, or values of those that have none, over time: one part for each name."""
    from matplotlib.figure import Figure

    parts: dict[str, list[tuple[Key, Counter]]] = {}
    for key, counter in wanted:
        parts.setdefault(counter.name, []).append((key, counter))
    figure = Figure(figsize=(_INCHES[0], _INCHES[1] * len(parts)), dpi=_DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots(len(parts), 1, sharex=True, squeeze=False)
    start = next(iter(history)).time
    for axis, (name, members) in zip(axes[:, 0], parts.items()):
        for key, counter in members:
            series = history.series(key, counter.symbol)
            axis.plot([time - start for time, _ in series], [value for _, value in series], label=key.label)
        counter = members[0][1]
        axis.set_title(name.replace("/sec", ""), loc="left", fontsize=10)
        axis.set_ylabel(counter.rate_unit if counter.grows else counter.unit)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="upper right")
    axes[-1, 0].set_xlabel("seconds")
    try:
        figure.savefig(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
