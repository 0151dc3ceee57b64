# SPDX-License-Identifier: GPL-2.0-or-later
"""``qemu-hv status``: the hypervisor of a running machine, over QMP."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Optional, cast

from qemu.qmp import ExecuteError, QMPClient, QMPError

from . import runtime
from .errors import UserError
from .report import HypervisorState, print_tables, state_tables

__all__ = ["add_arguments", "execute", "query"]

_ANSWER_SECONDS = 15.0

# What goes wrong is told by exceptions; without a handler Python would print the library's log too.
logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--qmp",
        metavar="SOCKET",
        help="QMP socket of the machine, a path or HOST:PORT (default: the machine started last)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(args: argparse.Namespace) -> int:
    """Print the state of the machine's hypervisor."""
    address = args.qmp if args.qmp is not None else _last_machine()
    state = asyncio.run(query(address))
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
    client = QMPClient("qemu-hv status")
    try:
        await asyncio.wait_for(client.connect(_socket_address(address)), _ANSWER_SECONDS)
    except asyncio.TimeoutError as error:
        raise UserError(f"the monitor at {address} does not answer; is it in use by another client?") from error
    except (QMPError, OSError) as error:
        raise UserError(f"no QMP monitor answers at {address}: {_root_cause(error)}") from error
    try:
        return HypervisorState(
            hv=cast("Mapping[str, Any]", await client.execute("query-hv")),
            partitions=cast("list[Mapping[str, Any]]", await client.execute("query-hv-partitions")),
            vps=cast("list[Mapping[str, Any]]", await client.execute("query-hv-vps")),
            ports=cast("Mapping[str, Any]", await client.execute("query-hv-ports")),
        )
    except ExecuteError as error:
        if error.error_class == "CommandNotFound":
            raise UserError(f"the machine at {address} runs a QEMU without the hypervisor's patches") from error
        raise UserError(f"the machine at {address} refused: {error}") from error
    except QMPError as error:
        raise UserError(f"the machine at {address} ended or its monitor broke: {error}") from error
    finally:
        await _disconnect(client)


async def _disconnect(client: QMPClient) -> None:
    try:
        await client.disconnect()
    except (QMPError, OSError, EOFError):
        # It broke before; that has been reported.
        return


def _last_machine() -> str:
    socket = runtime.last_machine()
    if socket is None:
        raise UserError("no machine of yours is running; name a QMP socket with --qmp")
    return str(socket)


def _socket_address(address: str) -> Any:
    """Return the address as qemu.qmp takes it: a path, or (host, port)."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and not Path(address).exists():
        return host, int(port)
    return address


def _root_cause(error: BaseException) -> str:
    cause: Optional[BaseException] = error
    while cause is not None and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause)
