# SPDX-License-Identifier: GPL-2.0-or-later
"""``qemu-hv inspect FILE``: what is in a saved child partition."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from . import saved_state
from .errors import UserError
from .policy.save_restore import PAGE, SavedChild

__all__ = ["add_arguments", "execute", "state_of"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("file", type=Path, help="file made by `qemu-hv save`")


def state_of(saved: SavedChild) -> saved_state.State:
    """The state in a file.

    Raises:
        UserError: it is damaged.
    """
    try:
        return saved_state.parse(saved.state)
    except ValueError as error:
        raise UserError(f"{saved.path}: section 'state': {error}") from error


def execute(args: argparse.Namespace) -> int:
    """Do what the arguments say."""
    saved = SavedChild.open(args.file)
    state = state_of(saved)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{saved.path}: version {saved.version}, all sections are sound")
    for name, value in saved.info.items():
        console.print(f"  {name}: {value}")
    zeros = saved.contents().count(0)
    console.print(f"  memory: {saved.info['pages'] * PAGE >> 20} MiB, {zeros} pages of zeros")
    console.print(f"  virtual processors: {', '.join(map(str, state.vps))}")
    summary = state.groups["summary"]
    console.print(f"  TSC: {summary['TSC frequency']} Hz, APIC timer: {summary['APIC frequency']} Hz")
    console.print(f"  reference time: {int(str(state.groups['partition']['reference time'])) / 1e7:.3f} s")
    console.print(f"  messages that wait: {sum(map(len, state.messages.values()))}")
    console.print(_table(saved))
    return 0


def _table(saved: SavedChild) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("section", "block", "bytes", "stored", "checksum"):
        table.add_column(heading, justify="left" if heading == "section" else "right")
    for section in saved.sections:
        block = str(section.number) if section.name == "pages" else ""
        table.add_row(section.name, block, str(section.size), str(section.stored), f"{section.checksum:08x}")
    return table
