# SPDX-License-Identifier: GPL-2.0-or-later
"""The save of a child into a file in memory, and QEMU's own migration of the machine into such a file."""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from qemu_hv import save_jobs
from qemu_hv.errors import UserError
from qemu_hv.machine import MachineError, MachineOptions, SyncMachine
from qemu_hv.policy.save_restore import PAGE, SavedChild
from qemu_hv.qmp_session import open_session

from .process import Flavours
from .samples import ROOT, Samples

__all__ = ["Saving"]

_MEMORY = "672M"
_FOLDER = Path("/dev/shm")
_READY_SECONDS = 120.0
_MIGRATION_SECONDS = 60.0
_POLL_SECONDS = 0.005
_UNLIMITED = 1 << 40
_MIB = 1 << 20


@dataclass(frozen=True)
class Saving:
    """A child of 512 MiB (saved.c), saved, and its machine, migrated: seconds per MiB of pages that are not zero.

    Measurements "save", "migrate", and "save-pause", the longest time in which the child stood still.

    Attributes:
        image: saved.c, built.
    """

    image: Path
    title: str = "saves"
    flavours: tuple[str, ...] = (ROOT,)

    def measure(self, flavours: Flavours, flavour: str, samples: Samples) -> None:
        """See Workload."""
        if not _FOLDER.is_dir():
            raise UserError(f"saves are measured in memory, and there is no {_FOLDER}")
        try:
            with SyncMachine(_options(flavours, flavour, self.image)) as machine:
                machine.wait_for("^ready", _READY_SECONDS)
                with tempfile.TemporaryDirectory(prefix="qemu-hv-bench-", dir=_FOLDER) as folder:
                    steps = [_save, _migrate]
                    # In turn each is first.
                    for step in steps if len(samples.get(flavour, "save")) % 2 == 0 else steps[::-1]:
                        step(machine, Path(folder, "file"), flavour, samples)
        except MachineError as error:
            raise UserError(f"the benchmark's saved.c failed: {error}") from error


def _options(flavours: Flavours, flavour: str, image: Path) -> MachineOptions:
    return MachineOptions(
        kernel=image,
        memory=_MEMORY,
        cpu="max",
        console="debugcon",
        hypervisor={"role": "root"},
        qemu=flavours.binary(flavour),
    )


def _save(machine: SyncMachine, path: Path, flavour: str, samples: Samples) -> None:
    (child,) = (p["id"] for p in machine.execute("query-hv-partitions") if p["id"] != 1)
    told = len(machine.console_text)

    async def save() -> float:
        async with open_session(str(machine.machine.control_socket)) as session:
            begin = time.perf_counter()
            await save_jobs.save(session, child, path)
            return time.perf_counter() - begin

    seconds = asyncio.run(save())
    saved = SavedChild.open(path)
    path.unlink()
    machine.wait_for(r"still \d+\n")
    pauses = [int(text) for text in re.findall(r"still (\d+)\n", machine.console_text[told:])]
    samples.add(flavour, "save", seconds / (sum(map(bool, saved.contents())) * PAGE / _MIB))
    samples.add(flavour, "save-pause", max(pauses) / 1e6)


def _migrate(machine: SyncMachine, path: Path, flavour: str, samples: Samples) -> None:
    machine.execute("migrate-set-parameters", {"max-bandwidth": _UNLIMITED})
    machine.execute("migrate", {"uri": f"file:{path}"})
    deadline = time.monotonic() + _MIGRATION_SECONDS
    while (state := machine.execute("query-migrate"))["status"] != "completed":
        if state["status"] == "failed" or time.monotonic() > deadline:
            raise UserError(f"QEMU does not migrate into a file: {state.get('error-desc', state['status'])}")
        time.sleep(_POLL_SECONDS)
    path.unlink()
    machine.execute("cont")
    samples.add(flavour, "migrate", state["total-time"] / 1e3 / (state["ram"]["normal-bytes"] / _MIB))
