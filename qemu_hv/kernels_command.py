# SPDX-License-Identifier: GPL-2.0-or-later
"""``qemu-hv kernels``."""

from __future__ import annotations

import argparse

from . import kernels

__all__ = ["add_arguments", "execute"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"fetch these ({', '.join(kernels.available())}); without: list what the cache holds",
    )
    parser.add_argument("--refresh", action="store_true", help="look for newer ones than those fetched before")


def execute(args: argparse.Namespace) -> int:
    """Fetch kernels and print the paths of their images, or list them."""
    for name in args.names:
        print(kernels.get(name, refresh=args.refresh).vmlinuz)
    if not args.names:
        for name in kernels.available():
            kernel = kernels.cached(name)
            print(f"{name:8} {kernel.version if kernel else 'not fetched'}")
    return 0
