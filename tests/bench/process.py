# SPDX-License-Identifier: GPL-2.0-or-later
"""Running one QEMU and taking its time."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, cast

from qemu_hv.errors import UserError
from qemu_hv.qemu_binary import QemuBinary

from .samples import NO_COUNTERS, NO_INJECTION, OBJECT, ROOT, STOCK

__all__ = ["Flavours", "Run", "first_output", "run"]

_OBJECTS = {
    OBJECT: "microsoft-hypervisor,id=hv0",
    NO_COUNTERS: "microsoft-hypervisor,id=hv0",
    NO_INJECTION: "microsoft-hypervisor,id=hv0",
    ROOT: "microsoft-hypervisor,id=hv0,role=root",
}

# What the flavours' modules lack, as `build.ensure` names it.
_WITHOUT = {NO_COUNTERS: "counters", NO_INJECTION: "injection"}


@dataclass(frozen=True)
class Flavours:
    """The QEMUs that are compared."""

    stock: QemuBinary
    patched: QemuBinary
    without: Mapping[str, QemuBinary] = field(default_factory=dict)

    def command(self, flavour: str, arguments: Sequence[str]) -> list[str]:
        """Return the command line of a flavour's QEMU with these arguments."""
        qemu = self.binary(flavour)
        words = [str(qemu.path), "-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35"]
        for folder in qemu.firmware_dirs:
            words += ["-L", str(folder)]
        if flavour in _OBJECTS:
            words += ["-object", _OBJECTS[flavour]]
        return [*words, *arguments]

    def binary(self, flavour: str) -> QemuBinary:
        """Return a flavour's QEMU."""
        if flavour in _WITHOUT:
            return self.without[_WITHOUT[flavour]]
        return self.stock if flavour == STOCK else self.patched

    def present(self, flavours: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of the flavours for which there is a QEMU."""
        return tuple(each for each in flavours if each not in _WITHOUT or _WITHOUT[each] in self.without)

    @staticmethod
    def order(number: int, flavours: tuple[str, ...]) -> tuple[str, ...]:
        """Return the order of the flavours in a round: in turn each is first, forwards and then backwards."""
        first = number % len(flavours)
        turned = flavours[first:] + flavours[:first]
        return turned if number // len(flavours) % 2 == 0 else (turned[0], *turned[:0:-1])


@dataclass(frozen=True)
class Run:
    """A QEMU that has ended.

    Attributes:
        wall: seconds from just before its start to its end.
        cpu: processor time it used, in seconds.
        output: what it wrote to its standard output and error.
        status: exit status, negative for a signal.
    """

    wall: float
    cpu: float
    output: str
    status: int


@contextmanager
def _started(
    flavours: Flavours, flavour: str, arguments: Sequence[str], timeout: float
) -> Iterator[subprocess.Popen[bytes]]:
    """Start QEMU and reap it, killing it when it takes longer than the time."""
    with subprocess.Popen(
        flavours.command(flavour, arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **flavours.binary(flavour).environment},
    ) as process:
        watchdog = threading.Timer(timeout, process.kill)
        watchdog.start()
        try:
            yield process
        except BaseException:
            process.kill()
            raise
        finally:
            watchdog.cancel()


def run(flavours: Flavours, flavour: str, arguments: Sequence[str], timeout: float) -> Run:
    """Run QEMU to its end.

    Args:
        flavours: the QEMUs.
        flavour: which of them.
        arguments: besides those that all machines have.
        timeout: seconds; then it is killed.
    """
    begin = time.perf_counter()
    with _started(flavours, flavour, arguments, timeout) as process:
        output = cast(IO[bytes], process.stdout).read()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
    text = output.decode("utf-8", "replace")
    return Run(wall, usage.ru_utime + usage.ru_stime, text, process.returncode)


def first_output(flavours: Flavours, flavour: str, arguments: Sequence[str], expected: bytes, timeout: float) -> float:
    """Return the seconds from just before QEMU's start to the first byte that the guest writes.

    Raises:
        UserError: what came was not what the guest writes.
    """
    begin = time.perf_counter()
    with _started(flavours, flavour, arguments, timeout) as process:
        output = cast(IO[bytes], process.stdout)
        first = os.read(output.fileno(), 1)
        seconds = time.perf_counter() - begin
        rest = output.read()
    if first != expected:
        text = (first + rest).decode("utf-8", "replace").strip()
        raise UserError(f"QEMU ({flavour}) did not reach the guest's first instruction: {text or 'no output'}")
    return seconds
