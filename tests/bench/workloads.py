# SPDX-License-Identifier: GPL-2.0-or-later
"""What is run and measured in each round."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Protocol

from qemu_hv.child_boot import in_child
from qemu_hv.errors import UserError
from qemu_hv.machine import MachineOptions

from .process import Flavours, Run, first_output, run
from .samples import NO_COUNTERS, NO_INJECTION, OBJECT, PATCHED, ROOT, STOCK, Samples

__all__ = ["BOOT_MARKER", "INIT", "Boot", "Guest", "RootGuest", "Start", "Workload", "parse_guest", "start_rom"]

BOOT_MARKER = "qemu-hv-bench: init"
INIT = f"""\
#!/bin/sh
echo "{BOOT_MARKER}"
poweroff -f
"""

_THREE = (STOCK, PATCHED, OBJECT)
_DETECTED = "Hypervisor detected: Microsoft Hyper-V"
_BOOT_TIMEOUT = 120.0
_GUEST_TIMEOUT = 60.0
_START_TIMEOUT = 30.0
_DEBUG_PORT = "-chardev stdio,id=debug,signal=off -device isa-debugcon,iobase=0xe9,chardev=debug".split()
_DEBUG_EXIT = "-device isa-debug-exit,iobase=0xf4,iosize=1".split()
# By unit: how many seconds it is, and what a run's value is. A mean over many turns can only be too long, by what else
# the host does meanwhile, so the fastest repetition is the one to believe; single events have a median.
_UNITS: dict[str, tuple[float, Callable[[Iterable[float]], float]]] = {
    "ps": (1e-12, min),
    "ns": (1e-9, statistics.median),
}


class Workload(Protocol):
    """Something to measure."""

    @property
    def title(self) -> str:
        """What it is, for the progress display."""

    @property
    def flavours(self) -> tuple[str, ...]:
        """What it can be measured with."""

    def measure(self, flavours: Flavours, flavour: str, samples: Samples) -> None:
        """Run once with a flavour of QEMU and add what it gave.

        Raises:
            UserError: it did not run as it should.
        """


def _failure(what: str, flavour: str, outcome: Run) -> UserError:
    lines = outcome.output.strip().splitlines()
    last = lines[-1].strip() if lines else "no output"
    return UserError(f"{what} failed with QEMU ({flavour}), exit status {outcome.status}; its last line: {last}")


@dataclass(frozen=True)
class Boot:
    """A Linux kernel, from QEMU's start until it has powered off: measurements "boot" and "boot-cpu".

    With ROOT it boots in a child partition.

    Attributes:
        kernel, initrd: files; the initrd's /init is INIT.
        append: the kernel's command line; its console must be the first serial port.
        smp: number of VPs.
    """

    kernel: Path
    initrd: Path
    append: str
    smp: int
    title: str = "kernel boots"
    flavours: tuple[str, ...] = (*_THREE, NO_INJECTION, ROOT)

    def _arguments(self, flavour: str) -> list[str]:
        options = MachineOptions(kernel=self.kernel, initrd=self.initrd, append=self.append, smp=self.smp)
        if flavour == ROOT:
            options = in_child(options)
        arguments = ["-m", options.memory, "-smp", str(self.smp), "-chardev", "stdio,id=console,signal=off"]
        arguments += ["-serial", "chardev:console", "-kernel", str(options.kernel), "-initrd", str(options.initrd)]
        return arguments if options.append is None else [*arguments, "-append", options.append]

    def measure(self, flavours: Flavours, flavour: str, samples: Samples) -> None:
        """See Workload."""
        outcome = self.run(flavours, flavour)
        samples.add(flavour, "boot", outcome.wall)
        samples.add(flavour, "boot-cpu", outcome.cpu)

    def run(self, flavours: Flavours, flavour: str, more: Sequence[str] = ()) -> Run:
        """Boot it, with more arguments for QEMU.

        Raises:
            UserError: it did not boot, or did not see what it should.
        """
        outcome = run(flavours, flavour, [*self._arguments(flavour), *more], _BOOT_TIMEOUT)
        if outcome.status != 0 or BOOT_MARKER not in outcome.output:
            raise _failure("the boot", flavour, outcome)
        enlightened = flavour in (OBJECT, NO_INJECTION, ROOT)
        if (_DETECTED in outcome.output) != enlightened:
            seen = "no hypervisor" if enlightened else "a Microsoft hypervisor"
            raise UserError(f"the kernel saw {seen} under QEMU ({flavour}); do not give it loglevel or quiet")
        return outcome


def parse_guest(output: str) -> dict[str, float]:
    """Return what a run of the benchmark's guest gave, in seconds by name (guest.c says what it prints).

    Raises:
        ValueError: a line is not as it should be, or the guest did not reach its end.
    """
    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    ended = False
    for line in output.splitlines():
        word, _, rest = line.partition(" ")
        if word == "BENCH":
            name, unit, value = rest.split()
            if unit not in _UNITS:
                raise ValueError(f"unknown unit: {line}")
            found[name, unit].append(int(value) * _UNITS[unit][0])
        ended = ended or line == "BENCH-END"
    if not ended:
        raise ValueError("the guest did not reach its end")
    return {name: _UNITS[unit][1](values) for (name, unit), values in found.items()}


@dataclass(frozen=True)
class Guest:
    """The benchmark's guest: all measurements that it has.

    Attributes:
        image: guest.c, built.
        repeat: repetitions of each measurement in the guest.
    """

    image: Path
    repeat: int
    title: str = "instructions, IPIs and timers"
    flavours: tuple[str, ...] = (*_THREE, NO_COUNTERS)

    def measure(self, flavours: Flavours, flavour: str, samples: Samples) -> None:
        """See Workload."""
        _measure_image(flavours, flavour, samples, self.image, self.repeat, smp=2, memory="128M")


@dataclass(frozen=True)
class RootGuest:
    """The benchmark's program for the root partition, with one VP and with two: all measurements that it has.

    Attributes:
        image: root.c, built.
        repeat: repetitions of each measurement in the guest.
    """

    image: Path
    repeat: int
    title: str = "root and children"
    flavours: tuple[str, ...] = (STOCK, ROOT)

    def measure(self, flavours: Flavours, flavour: str, samples: Samples) -> None:
        """See Workload."""
        for smp in (1, 2):
            _measure_image(flavours, flavour, samples, self.image, self.repeat, smp, memory="512M")


def _measure_image(
    flavours: Flavours, flavour: str, samples: Samples, image: Path, repeat: int, smp: int, memory: str
) -> None:
    arguments = ["-cpu", "max", "-smp", str(smp), "-m", memory, *_DEBUG_PORT, *_DEBUG_EXIT]
    arguments += ["-kernel", str(image), "-append", f"repeat={repeat}"]
    outcome = run(flavours, flavour, arguments, _GUEST_TIMEOUT)
    try:
        found = parse_guest(outcome.output)
    except ValueError as error:
        raise _failure(f"the benchmark's {image.stem}", flavour, outcome) from error
    for name, value in found.items():
        samples.add(flavour, name, value)


def _at_reset_vector(code: Sequence[int]) -> bytes:
    """Return a 64 KiB firmware image with this code at the reset vector, 16 bytes before its end."""
    return bytes(0x10000 - 16) + bytes(code).ljust(16, b"\xf4")


def start_rom() -> bytes:
    """Return firmware whose first instructions write "!" to the debug port and end QEMU."""
    return _at_reset_vector(
        (
            *(0xB0, 0x21, 0xE6, 0xE9),  # mov al, '!'; out 0xe9, al
            *(0xE6, 0xF4),  # out 0xf4, al
            *(0xFA, 0xF4),  # cli; hlt
        )
    )


@dataclass(frozen=True)
class Start:
    """From just before QEMU's start to the first guest instruction: measurement "start".

    Attributes:
        rom: a file that holds start_rom().
    """

    rom: Path
    title: str = "starts"
    flavours: tuple[str, ...] = _THREE

    def measure(self, flavours: Flavours, flavour: str, samples: Samples) -> None:
        """See Workload."""
        arguments = ["-m", "512M", "-bios", str(self.rom), *_DEBUG_PORT, *_DEBUG_EXIT]
        samples.add(flavour, "start", first_output(flavours, flavour, arguments, b"!", _START_TIMEOUT))
