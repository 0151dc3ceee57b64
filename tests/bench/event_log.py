# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel's boot with the operator's event log recording everything, and the same without."""

from __future__ import annotations

import json
import socket
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qemu_hv.errors import UserError

from .process import Flavours, Run
from .samples import OBJECT, Samples
from .workloads import Boot

__all__ = ["LoggedBoot"]

_POLL_SECONDS = 0.02
_CONNECT_SECONDS = 20.0
_BATCH = 1 << 22  # bytes


class _Operator(threading.Thread):
    """Connects to a machine that is stopped, starts the log if it is to record, lets the machine go, and reads."""

    def __init__(self, path: Path, record: bool) -> None:
        super().__init__(daemon=True)
        self._path = path
        self._record = record
        self.bytes = 0
        self.lost = 0

    def run(self) -> None:
        """Until the machine ends."""
        try:
            with self._connect() as connection, connection.makefile("rwb") as stream:
                stream.readline()
                self._execute(stream, "qmp_capabilities")
                if self._record:
                    self._execute(stream, "hv-events-start", size=1 << 24)
                self._execute(stream, "cont")
                while True:
                    if self._record:
                        batch = self._execute(stream, "hv-events-read", max=_BATCH)
                        self.bytes += len(batch["data"]) * 3 // 4
                        self.lost = batch["lost"]
                    else:
                        self._execute(stream, "query-hv-events")
                    time.sleep(_POLL_SECONDS)
        except (OSError, EOFError):
            return  # the machine has powered off

    def _connect(self) -> socket.socket:
        deadline = time.monotonic() + _CONNECT_SECONDS
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(self._path))
            except OSError:
                connection.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.001)
            else:
                return connection

    @staticmethod
    def _execute(stream: Any, command: str, **arguments: Any) -> Any:
        stream.write(json.dumps({"execute": command, "arguments": arguments}).encode())
        stream.flush()
        while True:
            line = stream.readline()
            if not line:
                raise EOFError
            answer = json.loads(line)
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise EOFError(answer["error"])


@dataclass(frozen=True)
class LoggedBoot:
    """A boot with an operator at its monitor: measurements "boot-logged" and "boot-unlogged", and "-cpu" of them."""

    boot: Boot
    title: str = "kernel boots with the event log"
    flavours: tuple[str, ...] = (OBJECT,)

    def measure(self, flavours: Flavours, flavour: str, samples: Samples) -> None:
        """See Workload."""
        # In turn each is first.
        names = ["boot-logged", "boot-unlogged"]
        if len(samples.get(flavour, names[0])) % 2:
            names.reverse()
        for name in names:
            outcome = self._run(flavours, flavour, record=name == "boot-logged")
            samples.add(flavour, name, outcome.wall)
            samples.add(flavour, f"{name}-cpu", outcome.cpu)

    def _run(self, flavours: Flavours, flavour: str, *, record: bool) -> Run:
        with tempfile.TemporaryDirectory(prefix="qemu-hv-bench-") as folder:
            path = Path(folder, "qmp")
            operator = _Operator(path, record)
            operator.start()
            outcome = self.boot.run(flavours, flavour, ["-S", "-qmp", f"unix:{path},server=on,wait=off"])
            operator.join()
        if record and (operator.bytes == 0 or operator.lost):
            raise UserError(f"the event log recorded {operator.bytes} bytes and lost {operator.lost} events")
        return outcome
