# SPDX-License-Identifier: GPL-2.0-or-later
"""``qemu-hv save`` and ``qemu-hv restore`` at work: QEMU's jobs at one end of a file in memory, Python at the other."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar

from .errors import UserError
from .policy import save_restore
from .policy.save_restore import Report
from .qmp_session import QmpSession

__all__ = ["restore", "save"]

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
    await session.execute(command, job_id=job, **arguments)
    try:
        error = await _concluded(session, job, report)
    except asyncio.CancelledError:
        await session.execute("job-cancel", id=job)
        await _concluded(session, job, _unheard)
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
        await asyncio.wait([future])
        raise


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
