# SPDX-License-Identifier: GPL-2.0-or-later
"""``qemu-hv build``."""

from __future__ import annotations

import argparse

from . import ensure
from .source import DEBIAN
from .variant import WITHOUT

__all__ = ["add_arguments", "execute"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--source",
        default=DEBIAN,
        metavar="debian|TARBALL|DIR",
        help="QEMU 10.0.x: Debian's source package (default), a release tarball or a tree",
    )
    parser.add_argument("--stock", action="store_true", help="without the patches and the module, to compare with")
    parser.add_argument("--sanitize", action="store_true", help="the module under AddressSanitizer and UBSan")
    parser.add_argument("--without", choices=sorted(WITHOUT), help="the module without this, to compare with")
    parser.add_argument("--jobs", type=_positive, metavar="N", help="compilers at once")
    parser.add_argument("--refresh", action="store_true", help="ask Debian's archive for a newer 10.0.x")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def execute(args: argparse.Namespace) -> int:
    """Build a QEMU unless it is there, and print the path of its executable."""
    built = ensure(
        stock=args.stock,
        sanitize=args.sanitize,
        without=args.without,
        source=args.source,
        jobs=args.jobs,
        refresh=args.refresh,
    )
    print(built.path)
    return 0
