# SPDX-License-Identifier: GPL-2.0-or-later
"""The ``qemu-hv`` command.

Each subcommand is a module with ``add_arguments(parser)`` and ``execute(args) -> int``; only the
one that is used is imported.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Callable, Optional, Protocol, cast

from . import __version__
from .errors import UserError

__all__ = ["main"]

_COMMANDS = {
    "run": ("qemu_hv.run", "boot a guest under the emulated hypervisor and report what it used"),
    "build": ("qemu_hv.build.command", "build QEMU with the patches and the module"),
    "status": ("qemu_hv.status", "show the hypervisor of a running machine"),
    "partitions": ("qemu_hv.partitions", "draw the partitions of a running machine"),
    "partition": ("qemu_hv.partition", "pause, resume, delete or look at a partition of a running machine"),
    "events": ("qemu_hv.events", "show or export what the hypervisor of a running machine does"),
    "inject": ("qemu_hv.inject", "make what the guest of a running machine asks of the hypervisor fail"),
    "stats": ("qemu_hv.statistics.command", "show what the hypervisor of a running machine has counted"),
    "top": ("qemu_hv.statistics.top", "watch partitions, processors and hypercalls of a running machine"),
    "export": ("qemu_hv.statistics.export", "serve the counters of a running machine to Prometheus"),
    "save": ("qemu_hv.save", "save a child partition of a running machine into a file"),
    "restore": ("qemu_hv.restore", "make a saved child partition again in a running machine"),
    "inspect": ("qemu_hv.inspect_saved", "show what is in a file made by save"),
    "diff": ("qemu_hv.diff_saved", "show what changed between two saves of a child partition"),
    "info": ("qemu_hv.info", "show versions, paths, accelerators and the cache"),
    "kernels": ("qemu_hv.kernels_command", "list or fetch stock Debian kernels"),
}


class _Command(Protocol):
    add_arguments: Callable[[argparse.ArgumentParser], None]
    execute: Callable[[argparse.Namespace], int]


def _parser(selected: Optional[str]) -> tuple[argparse.ArgumentParser, Optional[_Command]]:
    parser = argparse.ArgumentParser(prog="qemu-hv", description="The Microsoft hypervisor, emulated by QEMU.")
    parser.add_argument("--version", action="version", version=f"qemu-hv {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    command: Optional[_Command] = None
    for name, (module, summary) in _COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary.capitalize() + ".")
        if name == selected:
            command = cast(_Command, importlib.import_module(module))
            command.add_arguments(subparser)
    return parser, command


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command line and return the exit status.

    A :class:`~qemu_hv.errors.UserError` becomes one line on standard error and status 1.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    # No option before the subcommand takes a value, so the first plain word is the subcommand.
    selected = next((word for word in words if not word.startswith("-")), None)
    try:
        parser, command = _parser(selected)
        args = parser.parse_args(words)
        assert command is not None, "argparse has accepted an unknown command"
        return command.execute(args)
    except UserError as error:
        print(f"qemu-hv: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("qemu-hv: interrupted", file=sys.stderr)
        return 130
