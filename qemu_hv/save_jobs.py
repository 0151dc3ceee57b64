# SPDX-License-Identifier: GPL-2.0-or-later
"""``qemu-hv save`` and ``qemu-hv restore`` at work: QEMU's jobs at one end of a file in memory, Python at the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar

from .errors import UserError
from .policy import save_restore
from .policy.save_restore import Report
from .qmp_session import QmpSession, open_session

__all__ = ["restore", "run", "save"]

_POLL_SECONDS = 0.005
_T = TypeVar("_T")


class _Ended(Exception):
    """Nobody waits for the work any more."""


def _unheard(done: int, total: int) -> None:
    """Nobody wants to know."""


async def _concluded(session: QmpSession, job: str, report: Report) -> Optional[str]:
    """Wait until a job has ended, and dismiss it; its error, if it has one."""
    while True:
        for info in await session.execute("query-jobs"):
            if info["id"] != job:
                continue
            if info["status"] == "concluded":
                await session.execute("job-dismiss", id=job)
                error: Optional[str] = info.get("error")
                return error
            report(info["current-progress"], info["total-progress"])
        await asyncio.sleep(_POLL_SECONDS)


async def _run_job(session: QmpSession, command: str, report: Report, **arguments: object) -> None:
    """Run a job to its end. One that nobody waits for any more is cancelled, and has ended too."""
    job = f"qemu-hv-{os.getpid()}-{time.monotonic_ns()}"

    async def run() -> Optional[str]:
        await session.execute(command, job_id=job, **arguments)
        return await _concluded(session, job, report)

    running = asyncio.ensure_future(run())
    try:
        error = await asyncio.shield(running)
    except asyncio.CancelledError:
        with contextlib.suppress(UserError):  # it has ended just now
            await session.execute("job-cancel", id=job)
        await asyncio.gather(running, return_exceptions=True)
        raise
    if error is not None:
        raise UserError(error)


async def _in_thread(work: Callable[[Report], _T], report: Report) -> _T:
    """Run `work` in a thread of its own; when it is cancelled the thread has ended too."""
    ended = threading.Event()

    def going_on(done: int, total: int) -> None:
        if ended.is_set():
            raise _Ended
        report(done, total)

    future = asyncio.get_running_loop().run_in_executor(None, work, going_on)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        ended.set()
        await asyncio.gather(future, return_exceptions=True)
        raise


def run(address: str, work: Callable[[QmpSession], Coroutine[Any, Any, _T]]) -> _T:
    """Do work with the machine at an address. Ctrl-C cancels the work alone, not the connection that its end needs.

    Raises:
        UserError: nothing answers there, or the work failed.
        KeyboardInterrupt: it was cancelled so, and has ended.
    """

    async def main() -> Optional[tuple[_T]]:
        async with open_session(address) as session:
            task = asyncio.ensure_future(work(session))
            # It stays, and does nothing, while the connection is closed.
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
            try:
                return (await task,)
            except asyncio.CancelledError:
                return None

    result = asyncio.run(main())
    if result is None:
        raise KeyboardInterrupt
    return result[0]


async def save(session: QmpSession, partition: int, path: Path, report: Report = _unheard) -> dict[str, Any]:
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
    with save_restore.NewFile(path) as file:
        await _run_job(session, "hv-partition-save", report, partition=partition, path=file.transfer_path)
        return await _in_thread(lambda going_on: file.finish(about, going_on), report)


async def restore(session: QmpSession, path: Path, *, pause: bool = False, report: Report = _unheard) -> int:
    """Make the child in a file again; return its ID.

    Raises:
        UserError: the file is damaged or of another kind, or the machine cannot have the child.
    """
    with os.fdopen(os.memfd_create("qemu-hv-restore"), "r+b") as file:

        def unpack(going_on: Report) -> int:
            saved = save_restore.SavedChild.open(path)
            save_restore.write_transfer(saved, file, going_on)
            return int(saved.info["partition"])

        partition = await _in_thread(unpack, report)
        transfer = f"/proc/{os.getpid()}/fd/{file.fileno()}"
        await _run_job(session, "hv-partition-restore", report, path=transfer, pause=pause)
    return partition
