# SPDX-License-Identifier: GPL-2.0-or-later
"""``qemu-hv partition ID ACTION``: the operator's hand on a child partition of a running machine."""

from __future__ import annotations

import argparse
import asyncio
import base64
from collections.abc import Awaitable
from typing import Callable

from .qmp_session import QmpSession, add_address_argument, address_of, open_session

__all__ = ["add_arguments", "execute"]

_BYTES_PER_LINE = 16


def _number(text: str) -> int:
    """A number as C writes it: 0x for hexadecimal."""
    return int(text, 0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_address_argument(parser)
    parser.add_argument("id", type=_number, help="ID of the partition, see `qemu-hv partitions`")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("pause", help="stop its virtual processors")
    actions.add_parser("resume", help="let them go on")
    actions.add_parser("delete", help="delete it and its descendants")
    registers = actions.add_parser("registers", help="print the registers of a virtual processor")
    registers.add_argument("--vp", type=_number, default=0, help="index of the virtual processor (default: 0)")
    memory = actions.add_parser("memory", help="print memory as the partition sees it")
    memory.add_argument("gpa", type=_number, help="guest physical address")
    memory.add_argument("size", type=_number, nargs="?", default=256, help="bytes (default: 256)")
    interrupt = actions.add_parser("interrupt", help="request an interrupt")
    interrupt.add_argument("vector", type=_number, help="vector, 16 to 255")
    interrupt.add_argument("--vp", type=_number, default=0, help="index of the virtual processor (default: 0)")


def execute(args: argparse.Namespace) -> int:
    """Do what the arguments say."""
    asyncio.run(_run(address_of(args), args))
    return 0


async def _run(address: str, args: argparse.Namespace) -> None:
    async with open_session(address) as session:
        await _ACTIONS[args.action](session, args)


def _plain(command: str) -> Callable[[QmpSession, argparse.Namespace], Awaitable[None]]:
    async def action(session: QmpSession, args: argparse.Namespace) -> None:
        await session.execute(command, partition=args.id)

    return action


async def _registers(session: QmpSession, args: argparse.Namespace) -> None:
    registers = await session.execute("query-hv-registers", partition=args.id, vp=args.vp)
    width = max(len(register["name"]) for register in registers)
    for register in registers:
        print(f"{register['name']:{width}}  {register['value']}")


async def _memory(session: QmpSession, args: argparse.Namespace) -> None:
    memory = await session.execute("hv-memory-read", partition=args.id, gpa=args.gpa, size=args.size)
    data = base64.b64decode(memory["data"])
    for offset in range(0, len(data), _BYTES_PER_LINE):
        line = data[offset : offset + _BYTES_PER_LINE]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in line)
        print(f"{args.gpa + offset:012x}  {line.hex(' '):{3 * _BYTES_PER_LINE - 1}}  {text}")
    if len(data) < args.size:
        print(f"{args.gpa + len(data):012x}  not mapped")


async def _interrupt(session: QmpSession, args: argparse.Namespace) -> None:
    await session.execute("hv-interrupt-inject", partition=args.id, vp=args.vp, vector=args.vector)


_ACTIONS: dict[str, Callable[[QmpSession, argparse.Namespace], Awaitable[None]]] = {
    "pause": _plain("hv-partition-pause"),
    "resume": _plain("hv-partition-resume"),
    "delete": _plain("hv-partition-delete"),
    "registers": _registers,
    "memory": _memory,
    "interrupt": _interrupt,
}
