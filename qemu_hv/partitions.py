# SPDX-License-Identifier: GPL-2.0-or-later
"""``qemu-hv partitions``: the tree of partitions of a running machine."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping
from typing import Any, Optional

from rich.console import Console
from rich.live import Live
from rich.text import Text
from rich.tree import Tree

from .qmp_session import QmpSession, add_address_argument, address_of, open_session

__all__ = ["add_arguments", "execute", "tree"]

_PAGES_PER_MIB = 256
_DEFAULT_INTERVAL = 1.0

Partition = Mapping[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_address_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        type=float,
        const=_DEFAULT_INTERVAL,
        help="draw it again and again until interrupted (default: every second)",
    )


def execute(args: argparse.Namespace) -> int:
    """Print the tree, once or until interrupted."""
    return asyncio.run(_show(address_of(args), args.watch, args.json))


async def _show(address: str, interval: Optional[float], as_json: bool) -> int:
    async with open_session(address) as session:
        if as_json:
            print(json.dumps(await session.execute("query-hv-partitions"), indent=2))
        elif interval is None:
            Console(highlight=False, soft_wrap=True).print(tree(await _partitions(session)))
        else:
            await _watch(session, interval)
    return 0


async def _partitions(session: QmpSession) -> list[Partition]:
    partitions: list[Partition] = await session.execute("query-hv-partitions")
    return partitions


async def _watch(session: QmpSession, interval: float) -> None:
    with Live(tree(await _partitions(session)), auto_refresh=False, console=Console(highlight=False)) as live:
        while True:
            await asyncio.sleep(interval)
            live.update(tree(await _partitions(session)), refresh=True)


def tree(partitions: list[Partition]) -> Tree:
    """Draw partitions, which come with parents before their children."""
    branches: dict[int, Tree] = {}
    for partition in partitions:
        label = _label(partition)
        parent = branches.get(partition["parent"]) if "parent" in partition else None
        branches[partition["id"]] = parent.add(label) if parent is not None else Tree(label)
    return branches[partitions[0]["id"]]


def _label(partition: Partition) -> Text:
    text = Text(f"{partition['id']}", style="bold")
    name = partition.get("name", "" if "parent" in partition else "root")
    if name:
        text.append(f" {name}", style="bold")
    state = "paused" if partition["paused"] else partition["state"]
    text.append(f"  {state}", style="yellow" if state != "active" else "green")
    text.append(f"  {_count(partition['vp-count'], 'VP')}", style="not bold")
    if "parent" in partition:
        text.append(f"  {_memory(partition)} MiB mapped", style="not bold")
        used = partition["pool-pages"] - partition["pool-free-pages"]
        text.append(f"  pool {used} of {partition['pool-pages']} pages", style="not bold")
    text.append(f"  privileges 0x{partition['privilege-mask']:x}", style="not bold")
    description = partition["guest-os"]["description"]
    if partition["guest-os"]["encoding"] != "none":
        text.append(f"  {description}", style="not bold")
    return text


def _memory(partition: Partition) -> str:
    mapped = f"{partition['mapped-pages'] / _PAGES_PER_MIB:.1f}"
    if "page-limit" not in partition:
        return mapped
    return f"{mapped} of {partition['page-limit'] / _PAGES_PER_MIB:.1f}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
