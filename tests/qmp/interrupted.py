# SPDX-License-Identifier: GPL-2.0-or-later
"""``interrupted.py SIGNAL PID STEP WORDS...``: qemu-hv with a signal in the middle, to itself when the PID is 0.

Steps are what goes on between this process and the machine, before and behind each QMP command, and what is done with
the file, block by block; the signal comes at the STEP-th.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any
from unittest import mock

from qemu_hv import cli, save_jobs
from qemu_hv.policy.save_restore import Report
from qemu_hv.qmp_session import QmpSession

execute = QmpSession.execute
in_thread = save_jobs._in_thread
steps = 0


def step() -> None:
    """Another one."""
    global steps
    steps += 1
    if steps == int(sys.argv[3]):
        os.kill(int(sys.argv[2]) or os.getpid(), signal.Signals[sys.argv[1]])


async def stepwise_execute(session: QmpSession, command: str, **arguments: object) -> Any:
    """As it is, and steps."""
    step()
    result = await execute(session, command, **arguments)
    step()
    return result


async def stepwise_in_thread(work: Any, report: Report) -> Any:
    """As it is, and a step for each block."""

    def told(done: int, total: int) -> None:
        step()
        report(done, total)

    return await in_thread(work, told)


mock.patch.object(QmpSession, "execute", stepwise_execute).start()
mock.patch.object(save_jobs, "_in_thread", stepwise_in_thread).start()
sys.exit(cli.main(sys.argv[4:]))
