# SPDX-License-Identifier: GPL-2.0-or-later
"""A connection to the QMP monitor of a machine that is running already, with errors as one line."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Optional

from qemu.qmp import ExecuteError, QMPClient, QMPError

from . import runtime
from .errors import UserError

__all__ = ["QmpSession", "add_address_argument", "address_of", "open_session"]

_ANSWER_SECONDS = 15.0

# What goes wrong is told by exceptions; without a handler Python would print the library's log too.
logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())


class QmpSession:
    """An open connection."""

    def __init__(self, client: QMPClient, address: str) -> None:
        """Wrap a client that is connected to `address`."""
        self._client = client
        self._address = address

    async def execute(self, command: str, **arguments: object) -> Any:
        """Run a command and return its result; in `arguments` an underscore stands for a hyphen.

        Raises:
            UserError: the machine has no such command, refused it, or has ended.
        """
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            return await self._client.execute(command, named or None)
        except ExecuteError as error:
            if error.error_class == "CommandNotFound":
                raise UserError(
                    f"the machine at {self._address} runs a QEMU without the hypervisor's patches"
                ) from error
            raise UserError(f"the machine at {self._address} refused: {error}") from error
        except QMPError as error:
            raise UserError(f"the machine at {self._address} ended or its monitor broke: {error}") from error


def add_address_argument(parser: argparse.ArgumentParser) -> None:
    """Declare ``--qmp``."""
    parser.add_argument(
        "--qmp",
        metavar="SOCKET",
        help="QMP socket of the machine, a path or HOST:PORT (default: the machine started last)",
    )


def address_of(args: argparse.Namespace) -> str:
    """Return the address that ``--qmp`` names, or that of the machine started last.

    Raises:
        UserError: none is named and none is running.
    """
    if args.qmp is not None:
        return str(args.qmp)
    socket = runtime.last_machine()
    if socket is None:
        raise UserError("no machine of yours is running; name a QMP socket with --qmp")
    return str(socket)


@asynccontextmanager
async def open_session(address: str) -> AsyncIterator[QmpSession]:
    """Connect to the monitor at `address`, a path or HOST:PORT.

    Raises:
        UserError: nothing answers there.
    """
    client = QMPClient("qemu-hv")
    try:
        await asyncio.wait_for(client.connect(_socket_address(address)), _ANSWER_SECONDS)
    except asyncio.TimeoutError as error:
        raise UserError(f"the monitor at {address} does not answer; is it in use by another client?") from error
    except (QMPError, OSError) as error:
        raise UserError(f"no QMP monitor answers at {address}: {_root_cause(error)}") from error
    try:
        yield QmpSession(client, address)
    finally:
        await _disconnect(client)


async def _disconnect(client: QMPClient) -> None:
    try:
        await client.disconnect()
    except (QMPError, OSError, EOFError):
        # It broke before; that has been reported.
        return


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
