# SPDX-License-Identifier: GPL-2.0-or-later
"""``qemu-hv restore FILE``: make a saved child partition again in a running machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import save_jobs
from .progress import track
from .qmp_session import add_address_argument, address_of

__all__ = ["add_arguments", "execute"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_address_argument(parser)
    parser.add_argument("file", type=Path, help="file made by `qemu-hv save`")
    parser.add_argument("--pause", action="store_true", help="leave it paused; `qemu-hv partition ID resume` goes on")


def execute(args: argparse.Namespace) -> int:
    """Do what the arguments say."""
    with track(f"restoring {args.file.name}, MiB", only_bar=True) as bar:

        def report(done: int, total: int) -> None:
            bar.update(done >> 20, total >> 20)

        partition = save_jobs.run(
            address_of(args),
            lambda session: save_jobs.restore(session, args.file, pause=args.pause, report=report),
        )
    print(f"partition {partition} is there{', paused' if args.pause else ' and goes on'}")
    return 0
