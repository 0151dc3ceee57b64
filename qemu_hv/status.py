# SPDX-License-Identifier: GPL-2.0-or-later
"""``qemu-hv status``: the hypervisor of a running machine, over QMP."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, cast

from .qmp_session import add_address_argument, address_of, open_session
from .report import HypervisorState, print_tables, state_tables

__all__ = ["add_arguments", "execute", "query"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_address_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(args: argparse.Namespace) -> int:
    """Print the state of the machine's hypervisor."""
    state = asyncio.run(query(address_of(args)))
    if args.json:
        print(json.dumps(asdict(state), indent=2))
    else:
        print_tables(state_tables(state))
    return 0


async def query(address: str) -> HypervisorState:
    """Return the state of the hypervisor of the machine whose QMP socket is at `address`.

    Raises:
        UserError: nothing answers there, or the machine has no hypervisor object.
    """
    async with open_session(address) as session:
        return HypervisorState(
            hv=cast("Mapping[str, Any]", await session.execute("query-hv")),
            partitions=cast("list[Mapping[str, Any]]", await session.execute("query-hv-partitions")),
            vps=cast("list[Mapping[str, Any]]", await session.execute("query-hv-vps")),
            ports=cast("Mapping[str, Any]", await session.execute("query-hv-ports")),
        )
