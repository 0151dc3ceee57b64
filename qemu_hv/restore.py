# SPDX-License-Identifier: GPL-2.0-or-later
"""``qemu-hv restore FILE``: make a saved child partition again in a running machine."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from . import save_jobs
from .progress import track
from .qmp_session import add_address_argument, address_of, open_session

__all__ = ["add_arguments", "execute"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_address_argument(parser)
    parser.add_argument("file", type=Path, help="file made by `qemu-hv save`")
    parser.add_argument("--pause", action="store_true", help="leave it paused; `qemu-hv partition ID resume` goes on")


def execute(args: argparse.Namespace) -> int:
    """Do what the arguments say."""
    asyncio.run(_run(address_of(args), args))
    return 0


async def _run(address: str, args: argparse.Namespace) -> None:
    async with open_session(address) as session:
        with track(f"restoring {args.file.name}, MiB", only_bar=True) as bar:
            partition = await save_jobs.restore(
                session, args.file, pause=args.pause, report=lambda done, total: bar.update(done >> 20, total >> 20)
            )
    print(f"partition {partition} is there{', paused' if args.pause else ' and goes on'}")
