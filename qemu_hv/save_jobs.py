# SPDX-License-Identifier: GPL-2.0-or-later
"""``qemu-hv save`` and ``qemu-hv restore`` at work: QEMU's jobs at one end of a FIFO, the file at the other."""

from __future__ import annotations

import asyncio
import os
import select
import tempfile
import threading
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Callable, Optional

from .errors import UserError
from .policy import save_restore
from .qmp_session import QmpSession

__all__ = ["restore", "save"]

_CHUNK = 1 << 20
_POLL_SECONDS = 0.02
_WAIT_MILLISECONDS = 100


class _JobFailed(Exception):
    """The job has ended, and with it the other end of the FIFO."""


class _Fifo:
    """Our end of a FIFO; what blocks can be ended by another thread."""

    def __init__(self, folder: str) -> None:
        self.path = Path(folder, "transfer")
        os.mkfifo(self.path, 0o600)
        self.over = threading.Event()  # the job has ended
        self._descriptor = -1
        self._begun = False

    def open_to_read(self) -> None:
        self._descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def read(self, size: int) -> bytes:
        """Return exactly so many bytes."""
        parts = bytearray()
        while len(parts) < size:
            part = self._read_some(min(size - len(parts), _CHUNK))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)

    def _read_some(self, size: int) -> bytes:
        poller = select.poll()
        poller.register(self._descriptor, select.POLLIN)
        while True:
            over = self.over.is_set()
            if not poller.poll(_WAIT_MILLISECONDS):
                if over:
                    raise _JobFailed
                continue
            try:
                part = os.read(self._descriptor, size)
            except BlockingIOError:
                continue
            if part or self._begun:
                self._begun = True
                return part
            if over:
                raise _JobFailed
            time.sleep(_POLL_SECONDS)  # nobody writes yet

    def write(self, data: bytes) -> None:
        """Write all of it."""
        if self._descriptor < 0:
            self._open_to_write()
        view = memoryview(data)
        poller = select.poll()
        poller.register(self._descriptor, select.POLLOUT)
        while view:
            if self.over.is_set():
                raise _JobFailed
            if not poller.poll(_WAIT_MILLISECONDS):
                continue
            try:
                view = view[os.write(self._descriptor, view[:_CHUNK]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as error:
                raise _JobFailed from error

    def _open_to_write(self) -> None:
        while True:
            try:
                self._descriptor = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
                return
            except OSError:
                if self.over.is_set():
                    raise _JobFailed from None
                time.sleep(_POLL_SECONDS)


async def _watch(session: QmpSession, job: str, fifo: _Fifo) -> Optional[str]:
    """Wait until a job has ended; its error, if it has one."""
    try:
        while True:
            for info in await session.execute("query-jobs"):
                if info["id"] == job and info["status"] == "concluded":
                    await session.execute("job-dismiss", id=job)
                    error: Optional[str] = info.get("error")
                    return error
            await asyncio.sleep(_POLL_SECONDS)
    finally:
        fifo.over.set()


async def _run(
    session: QmpSession, start: Callable[[str, _Fifo], Awaitable[None]], work: Callable[[_Fifo], Any], reading: bool
) -> Any:
    """Run a job and our end of its transfer; the result of `work`."""
    job = f"qemu-hv-{os.getpid()}-{time.monotonic_ns()}"
    with tempfile.TemporaryDirectory(prefix="qemu-hv-") as folder:
        fifo = _Fifo(folder)
        if reading:
            fifo.open_to_read()
        try:
            await start(job, fifo)
            watch = asyncio.ensure_future(_watch(session, job, fifo))
            result: Any = None
            failure: Optional[BaseException] = None
            try:
                result = await asyncio.get_running_loop().run_in_executor(None, work, fifo)
            except (_JobFailed, EOFError, ValueError, UserError) as error:
                failure = error
            except asyncio.CancelledError:
                await session.execute("job-cancel", id=job)
                raise
            finally:
                fifo.close()
            told = await watch
        finally:
            fifo.over.set()
            fifo.close()
    if isinstance(failure, UserError):
        raise failure
    if told is not None:
        raise UserError(told)
    if failure is not None:
        raise UserError("the transfer from QEMU broke off")
    return result


async def save(session: QmpSession, partition: int, path: Path) -> dict[str, Any]:
    """Save a child partition into a file; return what the file says about it.

    Raises:
        UserError: there is no such child, it cannot be saved, or the file cannot be written.
    """
    hypervisor = await session.execute("query-hv")
    version = await session.execute("query-version")
    about = {
        "partition": partition,
        "interface": hypervisor["interface"],
        "qemu": version["package"] or "{major}.{minor}.{micro}".format(**version["qemu"]),
        "saved": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }

    async def start(job: str, fifo: _Fifo) -> None:
        await session.execute("hv-partition-save", job_id=job, partition=partition, path=str(fifo.path))

    info: dict[str, Any] = await _run(session, start, lambda fifo: save_restore.pack(fifo, path, about), True)
    return info


async def restore(session: QmpSession, path: Path, *, pause: bool = False) -> int:
    """Make the child in a file again; return its ID.

    Raises:
        UserError: the file is damaged or of another kind, or the machine cannot have the child.
    """
    saved = save_restore.SavedChild.open(path)

    async def start(job: str, fifo: _Fifo) -> None:
        await session.execute("hv-partition-restore", job_id=job, path=str(fifo.path), pause=pause)

    await _run(session, start, lambda fifo: save_restore.write_transfer(saved, fifo.write), False)
    return int(saved.info["partition"])
