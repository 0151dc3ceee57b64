# SPDX-License-Identifier: GPL-2.0-or-later
"""Running a test guest in QEMU and reading what it reports (the lines are described in runtime/check.c)."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Optional, Union

from guest_firmware import start_arguments
from guest_image import CHECK_RESETS, GENERATION_2008R2, GENERATION_CURRENT, LOADER, Check, Image, build_image

from qemu_hv import blob, resources
from qemu_hv.qemu_binary import QemuBinary

__all__ = ["CheckResult", "GuestRun", "Mode", "run_guest"]

# HV_PRIVILEGE_ROW(bit, name, property, generations, guest_default, ...)
_PRIVILEGES = resources.csrc() / "hv" / "tlfs" / "privileges.def"
_PRIVILEGE_ROW = re.compile(r'^HV_PRIVILEGE_ROW\((\d+), \w+, "([\w-]+)", HV_GEN_(\w+), (\d)', re.MULTILINE)

# Seconds without a line from the guest after which it counts as hung.
SILENCE_TIMEOUT = 60.0
# Some KVMs lose a processor now and then while the firmware boots, also of stock QEMU: the machine is started again.
KVM_TIMEOUT = 25.0
KVM_BOOTS = 5
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
        commands: QMP commands, as (name, arguments), executed before the guest's first instruction.
        role: of the microsoft-hypervisor object: the program is in an enlightened guest, or in the root partition.
        in_child: whether the guest runs in a child partition, which a program in the root makes for it
            (loader/child_loader.c).
    """

    name: str
    arguments: tuple[str, ...]
    vps: int
    generation: int = GENERATION_CURRENT
    properties: Optional[tuple[tuple[str, str], ...]] = ()
    parallel: bool = True
    append: str = ""
    commands: tuple[tuple[str, dict[str, object]], ...] = ()
    role: str = "guest"
    in_child: bool = False

    @property
    def kvm(self) -> str:
        """Return the name of the way KVM runs VPs, or nothing for TCG."""
        return self.name.split("-smp", 1)[0] if self.name.startswith("kvm") else ""

    @property
    def memory(self) -> int:
        """Return the size of the machine's RAM in MiB."""
        return 320 if self.in_child else 256 if self.role == "root" else 128

    def object_arguments(self) -> list[str]:
        """Return the -object option, if the machine has a hypervisor."""
        if self.properties is None:
            return []
        words = ["microsoft-hypervisor", "id=hv0", f"role={'root' if self.in_child else self.role}"]
        if self.generation == GENERATION_2008R2:
            words.append("interface=2008r2")
        if not self.in_child:
            words += [f"{name}={value}" for name, value in self.properties]
        return ["-object", ",".join(words)]

    def privileges(self) -> int:
        """Return the privileges of a child that is to have those of the machine in role=guest, as a mask."""
        given = dict(self.properties or ())
        mask = 0
        for bit, name, generations, default in _PRIVILEGE_ROW.findall(_PRIVILEGES.read_text(encoding="utf-8")):
            exists = self.generation == GENERATION_CURRENT or generations != "CURRENT"
            if exists and given.get(name, "on" if default == "1" else "off") == "on":
                mask |= 1 << int(bit)
        return mask

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
    """All checks of one guest in one mode: started again after each one that ends or hangs the machine.

    Args:
        qemu: which QEMU.
        image: the guest.
        mode: how its machine is made.
        silence: seconds without a line after which the guest counts as hung.
        arguments: more for QEMU's command line.
    """

    def __init__(
        self,
        qemu: QemuBinary,
        image: Image,
        mode: Mode,
        silence: float = SILENCE_TIMEOUT,
        arguments: Sequence[str] = (),
    ) -> None:
        self._silence = silence
        self._arguments = tuple(arguments)
        self.results: dict[str, CheckResult] = {}
        self._qemu = qemu
        self._image = image
        self._mode = mode
        self._console: list[str] = []
        self._running: Optional[str] = None
        self._ended = False
        self._was_reset = False

    def command(self, begin: Optional[Check], control: Optional[int] = None) -> list[str]:
        """Return QEMU's command line.

        Args:
            begin: the check that the run starts with; None: the first.
            control: file descriptor for QMP; the guest then waits for "cont".
        """
        append = self._mode.command_line() + (f" from={begin.name}" if begin else "")
        start = ["-kernel", str(self._image.path), "-append", append]
        if self._mode.in_child:
            kernel = build_image(LOADER, 64, root=True).path
            start = ["-kernel", str(kernel), "-append", append, "-initrd", str(self._pack(append))]
        elif self._mode.kvm:
            start = start_arguments(self._image.path, append, self._mode.memory)
        firmware = [word for folder in self._qemu.firmware_dirs for word in ("-L", str(folder))]
        return [
            str(self._qemu.path),
            *firmware,
            *"-nodefaults -no-user-config -display none -machine q35 -cpu max".split(),
            *("-m", str(self._mode.memory)),
            *("-smp", str(self._mode.vps)),
            *self._mode.arguments,
            *self._mode.object_arguments(),
            *"-chardev stdio,id=debug,signal=off -device isa-debugcon,iobase=0xe9,chardev=debug".split(),
            *"-device isa-debug-exit,iobase=0xf4,iosize=1".split(),
            *start,
            *_control_arguments(control),
            *self._arguments,
        ]

    def _pack(self, command_line: str) -> Path:
        """Return the file from which loader/child_loader.c takes the guest, made unless the cache holds the same."""
        parts = {
            "image": self._image.path.read_bytes(),
            "cmdline": command_line.encode(),
            "vps": str(self._mode.vps).encode(),
            "privileges": str(self._mode.privileges()).encode(),
        }
        return blob.file(parts)

    def run(self) -> dict[str, CheckResult]:
        """Run until every check that applies has a result, and return them by name."""
        applying = [
            check
            for check in self._image.checks
            if check.applies(self._mode.vps, self._mode.generation, self._mode.parallel)
        ]
        begin: Optional[Check] = None
        hangs = 0
        boots = 0
        while applying:
            before = len(self.results)
            reason, hung = self._run_once(begin)
            if hung and self._mode.kvm and not self._console and boots < KVM_BOOTS:
                boots += 1
                continue
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
        self._was_reset = False
        self._console = []
        ours, theirs = socket.socketpair() if self._mode.commands else (None, None)
        command = self.command(begin, theirs.fileno() if theirs else None)
        with contextlib.ExitStack() as stack:
            if ours and theirs:
                stack.enter_context(ours)
                stack.enter_context(theirs)
            process = stack.enter_context(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    encoding="latin-1",
                    pass_fds=(theirs.fileno(),) if theirs else (),
                    env={**os.environ, **self._qemu.environment},
                )
            )
            refused = ""
            if ours and theirs:
                theirs.close()
                try:
                    _execute(ours, self._mode.commands)
                except (OSError, RuntimeError) as error:
                    refused = f"{error}\n"
                    process.kill()
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
                while (line := lines.get(timeout=self._patience())) is not None:
                    self._take(line.rstrip("\n"))
                    if self._was_reset:
                        break
            except queue.Empty:
                hung = True
            finally:
                if hung or self._was_reset:
                    process.kill()
                try:
                    code = process.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    code = process.wait()
            for thread in threads:
                thread.join()
        return refused + self._describe_end(command, hung, code, "".join(errors)), hung

    def _patience(self) -> float:
        """Return how many seconds the guest may be silent now."""
        return KVM_TIMEOUT if self._mode.kvm else self._silence

    def _take(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "GUEST" and self._running and not self._may_reset(self._running):
            self._was_reset = True
        elif word == "RUN":
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

    def _may_reset(self, name: str) -> bool:
        return any(check.name == name and check.flags & CHECK_RESETS for check in self._image.checks)

    def _describe_end(self, command: list[str], hung: bool, code: int, errors: str) -> str:
        if hung:
            what = f"the guest was silent for {self._patience():.0f} s"
        elif self._was_reset:
            what = "the machine was reset in the middle of the check"
        elif code < 0:
            what = f"QEMU was ended by signal {-code}"
        else:
            what = f"QEMU ended with status {code} in the middle of the check"
        tail = "\n".join(self._console[-TAIL_LINES:])
        return f"{what}\nconsole:\n{tail}\nstandard error:\n{errors.strip()}\ncommand: {_quote(command)}"


def _control_arguments(descriptor: Optional[int]) -> list[str]:
    if descriptor is None:
        return []
    return ["-chardev", f"socket,id=control,fd={descriptor}", "-mon", "chardev=control,mode=control", "-S"]


def _execute(connection: socket.socket, commands: Sequence[tuple[str, dict[str, object]]]) -> None:
    """Execute QMP commands and let the guest begin.

    Raises:
        RuntimeError: QEMU rejects one, or is gone.
    """
    connection.settimeout(SILENCE_TIMEOUT)
    stream = connection.makefile("rw", encoding="utf-8")
    stream.readline()  # the greeting
    for name, arguments in (("qmp_capabilities", {}), *commands, ("cont", {})):
        stream.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        stream.flush()
        while "return" not in (answer := json.loads(stream.readline() or '{"error": "no answer"}')):
            if "error" in answer:
                raise RuntimeError(f"QMP command {name} {arguments}: {answer['error']}")


def run_guest(qemu: QemuBinary, image: Image, mode: Mode) -> dict[str, CheckResult]:
    """Run a guest in a mode and return the result of every check that applies, by name."""
    return GuestRun(qemu, image, mode).run()


def _pump(stream: IO[str], put: Callable[[Optional[str]], None]) -> None:
    for line in stream:
        put(line)
    put(None)


def _collect(stream: IO[str], lines: list[str]) -> None:
    lines.extend(stream)


def _quote(command: list[str]) -> str:
    return subprocess.list2cmdline(command)


def _with_last_vp(arguments: dict[str, object], vps: int) -> dict[str, object]:
    return {name: vps - 1 if name == "vp" and value == -1 else value for name, value in arguments.items()}


def make_modes(
    smp: Mapping[str, tuple[int, ...]],
    properties: Optional[tuple[tuple[str, str], ...]] = (),
    generation: int = GENERATION_CURRENT,
    suffix: str = "",
    append: str = "",
    commands: tuple[tuple[str, dict[str, object]], ...] = (),
    role: str = "guest",
    in_child: bool = False,
) -> list[Mode]:
    """Return modes for the ways TCG and KVM run VPs.

    Args:
        smp: numbers of VPs by name of the way: "mttcg", "single", "icount", "kvm" (with its own local APIC),
            "kvm-split" (with its own local APIC only) or "kvm-off" (without it).
        properties: of the hypervisor object; None: no object.
        generation: GENERATION_*.
        suffix: put after the modes' names.
        append: words for the guest's command line.
        commands: QMP commands to execute before the guest begins; "vp": -1 in one stands for the last VP.
        role: of the hypervisor object.
        in_child: whether the guest runs in a child partition.
    """
    kvm = ("-accel", "kvm", "-cpu", "qemu64")
    accelerators: dict[str, tuple[Union[str, Path], ...]] = {
        "mttcg": ("-accel", "tcg,thread=multi"),
        "single": ("-accel", "tcg,thread=single"),
        "icount": ("-accel", "tcg", "-icount", "shift=auto"),
        "kvm": kvm,
        "kvm-split": (*kvm, "-machine", "kernel-irqchip=split"),
        "kvm-off": (*kvm, "-machine", "kernel-irqchip=off"),
    }
    return [
        Mode(
            name=f"{way}-smp{vps}{suffix}",
            arguments=tuple(map(str, accelerators[way])),
            vps=vps,
            generation=generation,
            properties=properties,
            parallel=way not in ("single", "icount"),
            append=append,
            commands=tuple((name, _with_last_vp(arguments, vps)) for name, arguments in commands),
            role=role,
            in_child=in_child,
        )
        for way, numbers in smp.items()
        for vps in numbers
    ]
