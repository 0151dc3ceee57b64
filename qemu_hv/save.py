# SPDX-License-Identifier: GPL-2.0-or-later
"""``qemu-hv save ID FILE``: save a child partition of a running machine."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from . import save_jobs
from .progress import track
from .qmp_session import add_address_argument, address_of

__all__ = ["add_arguments", "execute"]

_PAGE = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_address_argument(parser)
    parser.add_argument("id", type=lambda text: int(text, 0), help="ID of the partition, see `qemu-hv partitions`")
    parser.add_argument("file", type=Path, help="file to write; an old one is replaced when the new one is complete")


def execute(args: argparse.Namespace) -> int:
    """Do what the arguments say."""
    started = time.monotonic()
    with track(f"saving partition {args.id}, MiB", only_bar=True) as bar:

        def report(done: int, total: int) -> None:
            bar.update(done >> 20, total >> 20)

        info = save_jobs.run(address_of(args), lambda session: save_jobs.save(session, args.id, args.file, report))
    took = time.monotonic() - started
    memory, size = info["pages"] * _PAGE, args.file.stat().st_size
    print(
        f"partition {args.id}: {memory >> 20} MiB of memory, {info['contents']} different pages; "
        f"{size / (1 << 20):.1f} MiB in {args.file}, {took:.2f} s"
    )
    return 0
