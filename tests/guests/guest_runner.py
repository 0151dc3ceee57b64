# SPDX-License-Identifier: GPL-2.0-or-later
"""Running a test guest in QEMU and reading what it reports (the lines are described in runtime/check.c)."""

from __future__ import annotations

import os
import queue
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Optional, Union

from guest_image import GENERATION_2008R2, GENERATION_CURRENT, Check, Image

from qemu_hv.qemu_binary import QemuBinary

__all__ = ["CheckResult", "GuestRun", "Mode", "run_guest"]

# Seconds without a line from the guest after which it counts as hung.
SILENCE_TIMEOUT = 40.0
# A guest that hangs this often is not started again: its remaining checks fail with that reason.
MAX_HANGS = 3
TAIL_LINES = 25
# isa-debug-exit turns the guest's code n into 2n + 1.
EXIT_SUCCESS = 1


@dataclass(frozen=True)
class Mode:
    """How a guest's machine is made.

    Attributes:
        name: in the IDs of test cases.
        arguments: -accel, -icount and such.
        vps: number of VPs.
        generation: GENERATION_*.
        properties: of the microsoft-hypervisor object; None: a machine without it.
        parallel: whether VPs run on threads of their own.
        append: more words for the guest's command line.
    """

    name: str
    arguments: tuple[str, ...]
    vps: int
    generation: int = GENERATION_CURRENT
    properties: Optional[tuple[tuple[str, str], ...]] = ()
    parallel: bool = True
    append: str = ""

    def object_arguments(self) -> list[str]:
        """Return the -object option, if the machine has a hypervisor."""
        if self.properties is None:
            return []
        words = ["microsoft-hypervisor", "id=hv0", "role=guest"]
        if self.generation == GENERATION_2008R2:
            words.append("interface=2008r2")
        words += [f"{name}={value}" for name, value in self.properties]
        return ["-object", ",".join(words)]

    def command_line(self) -> str:
        """Return what the guest is told about the mode."""
        words = [
            f"mode={self.name}",
            f"generation={'2008r2' if self.generation == GENERATION_2008R2 else 'current'}",
            f"threads={'multi' if self.parallel else 'single'}",
            f"hypervisor={'no' if self.properties is None else 'yes'}",
        ]
        return " ".join(words + self.append.split())


@dataclass
class CheckResult:
    """What became of one check.

    Attributes:
        passed: whether it did.
        message: why not, else empty.
        console: what the guest printed while it ran.
    """

    passed: bool
    message: str = ""
    console: list[str] = field(default_factory=list)


class GuestRun:
    """All checks of one guest in one mode: started again after each one that ends or hangs the machine."""

    def __init__(self, qemu: QemuBinary, image: Image, mode: Mode) -> None:
        self.results: dict[str, CheckResult] = {}
        self._qemu = qemu
        self._image = image
        self._mode = mode
        self._console: list[str] = []
        self._running: Optional[str] = None
        self._ended = False

    def command(self, begin: Optional[Check]) -> list[str]:
        """Return QEMU's command line for a run that starts with a check (None: the first)."""
        append = self._mode.command_line() + (f" from={begin.name}" if begin else "")
        firmware = [word for folder in self._qemu.firmware_dirs for word in ("-L", str(folder))]
        return [
            str(self._qemu.path),
            *firmware,
            *"-nodefaults -no-user-config -display none -machine q35 -cpu max -m 128".split(),
            *("-smp", str(self._mode.vps)),
            *self._mode.arguments,
            *self._mode.object_arguments(),
            *"-chardev stdio,id=debug,signal=off -device isa-debugcon,iobase=0xe9,chardev=debug".split(),
            *"-device isa-debug-exit,iobase=0xf4,iosize=1".split(),
            *("-kernel", str(self._image.path), "-append", append),
        ]

    def run(self) -> dict[str, CheckResult]:
        """Run until every check that applies has a result, and return them by name."""
        applying = [
            check
            for check in self._image.checks
            if check.applies(self._mode.vps, self._mode.generation, self._mode.parallel)
        ]
        begin: Optional[Check] = None
        hangs = 0
        while applying:
            before = len(self.results)
            reason, hung = self._run_once(begin)
            if self._ended:
                break
            hangs += hung
            if self._running is not None:
                self._fail(self._running, reason)
            begin = self._next_to_run(applying)
            if begin is None:
                break
            if len(self.results) == before:
                # It ended before any check: the next one is told why, so that the run gets on.
                self._fail(begin.name, reason)
                begin = self._next_to_run(applying)
                if begin is None:
                    break
            if hangs >= MAX_HANGS:
                self._give_up(applying, f"not run: the guest hung {hangs} times before")
                break
        return self.results

    def _next_to_run(self, applying: list[Check]) -> Optional[Check]:
        return next((check for check in applying if check.name not in self.results), None)

    def _give_up(self, applying: list[Check], reason: str) -> None:
        for check in applying:
            if check.name not in self.results:
                self._fail(check.name, reason)

    def _fail(self, name: str, message: str) -> None:
        self.results[name] = CheckResult(False, message, list(self._console))

    def _run_once(self, begin: Optional[Check]) -> tuple[str, bool]:
        """Run QEMU once. Returns why it ended and whether it had to be killed for silence."""
        self._running = None
        self._console = []
        command = self.command(begin)
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="latin-1",
            env={**os.environ, **self._qemu.environment},
        ) as process:
            lines: queue.Queue[Optional[str]] = queue.Queue()
            errors: list[str] = []
            threads = [
                threading.Thread(target=_pump, args=(process.stdout, lines.put), daemon=True),
                threading.Thread(target=_collect, args=(process.stderr, errors), daemon=True),
            ]
            for thread in threads:
                thread.start()
            hung = False
            try:
                while (line := lines.get(timeout=SILENCE_TIMEOUT)) is not None:
                    self._take(line.rstrip("\n"))
            except queue.Empty:
                hung = True
            finally:
                process.kill() if hung else None
                try:
                    code = process.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    code = process.wait()
            for thread in threads:
                thread.join()
        return self._describe_end(command, hung, code, "".join(errors)), hung

    def _take(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "RUN":
            self._console = [] if rest != self._running else self._console
            self._running = rest
        elif word == "PASS" and rest == self._running:
            self.results[rest] = CheckResult(True, "", self._console)
            self._running = None
        elif word == "FAIL" and self._running and rest.startswith(f"{self._running}: "):
            message = rest[len(self._running) + 2 :]
            self.results[self._running] = CheckResult(False, message, self._console)
            self._running = None
        elif word == "END":
            self._ended = True
        self._console.append(line)

    def _describe_end(self, command: list[str], hung: bool, code: int, errors: str) -> str:
        if hung:
            what = f"the guest was silent for {SILENCE_TIMEOUT:.0f} s"
        elif code < 0:
            what = f"QEMU was ended by signal {-code}"
        else:
            what = f"QEMU ended with status {code} in the middle of the check"
        tail = "\n".join(self._console[-TAIL_LINES:])
        return f"{what}\nconsole:\n{tail}\nstandard error:\n{errors.strip()}\ncommand: {_quote(command)}"


def run_guest(qemu: QemuBinary, image: Image, mode: Mode) -> dict[str, CheckResult]:
    """Run a guest in a mode and return the result of every check that applies, by name."""
    return GuestRun(qemu, image, mode).run()


def _pump(stream: IO[str], put: object) -> None:
    assert callable(put)
    for line in stream:
        put(line)
    put(None)


def _collect(stream: IO[str], lines: list[str]) -> None:
    lines.extend(stream)


def _quote(command: list[str]) -> str:
    return subprocess.list2cmdline(command)


def make_modes(
    smp: Mapping[str, tuple[int, ...]],
    properties: Optional[tuple[tuple[str, str], ...]] = (),
    generation: int = GENERATION_CURRENT,
    suffix: str = "",
    append: str = "",
) -> list[Mode]:
    """Return modes for the ways TCG runs VPs.

    Args:
        smp: numbers of VPs by name of the way: "mttcg", "single" or "icount".
        properties: of the hypervisor object; None: no object.
        generation: GENERATION_*.
        suffix: put after the modes' names.
        append: words for the guest's command line.
    """
    accelerators: dict[str, tuple[Union[str, Path], ...]] = {
        "mttcg": ("-accel", "tcg,thread=multi"),
        "single": ("-accel", "tcg,thread=single"),
        "icount": ("-accel", "tcg", "-icount", "shift=auto"),
    }
    return [
        Mode(
            name=f"{way}-smp{vps}{suffix}",
            arguments=tuple(map(str, accelerators[way])),
            vps=vps,
            generation=generation,
            properties=properties,
            parallel=way == "mttcg",
            append=append,
        )
        for way, numbers in smp.items()
        for vps in numbers
    ]
