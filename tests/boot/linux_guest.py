# SPDX-License-Identifier: GPL-2.0-or-later
"""A stock Debian kernel with a shell on its console, for tests to ask what it sees."""

from __future__ import annotations

import functools
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Protocol, Union

from qemu_hv import cache, initramfs, kernels
from qemu_hv.machine import MachineOptions, SyncMachine

KERNELS = ("6.1", "6.12", "7")

# A guest that panics resets, which ends the machine: a test sees the end instead of waiting for its timeout.
KERNEL_ARGUMENTS = "console=ttyS0 panic=-1"
STEP_TIMEOUT = 120.0

_HERE = Path(__file__).parent
_WORKER_FLAGS = ("-std=c11", "-O2", "-static", "-pthread", "-Wall", "-Wextra", "-Werror")


class GuestError(Exception):
    """A command failed in the guest."""


@functools.cache
def worker() -> Path:
    """Return the program of worker.c, compiled for the guest.

    Raises:
        RuntimeError: it cannot be compiled.
    """
    source = _HERE / "worker.c"
    program = cache.root() / "tests" / f"worker-{cache.digest(source.read_bytes(), *_WORKER_FLAGS)}"
    if not program.is_file():
        program.parent.mkdir(parents=True, exist_ok=True)
        with cache.Lock(program.parent / "lock", "compiling the boot tests' program"):
            temporary = program.with_suffix(".tmp")
            command = ["cc", *_WORKER_FLAGS, "-o", str(temporary), str(source)]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode != 0:
                raise RuntimeError(
                    "the boot tests' program cannot be compiled (it needs gcc and, on Debian, libc6-dev): "
                    + result.stderr
                )
            temporary.replace(program)
    return program


@functools.cache
def plain_initramfs() -> Path:
    """Return an initramfs with busybox, the worker and our /init."""
    return initramfs.build((_HERE / "init.sh").read_text(encoding="utf-8"), {"bin/worker": worker()})


@functools.cache
def kexec_initramfs(kernel: str) -> Path:
    """Return an initramfs that also holds a kernel (/boot/vmlinuz) and the plain initramfs (/boot/initrd)."""
    files = {
        "bin/worker": worker(),
        "boot/vmlinuz": kernels.get(kernel).vmlinuz,
        "boot/initrd": plain_initramfs(),
    }
    return initramfs.build((_HERE / "init.sh").read_text(encoding="utf-8"), files)


def options(kernel: str, **others: Any) -> MachineOptions:
    """Return the options of a machine that boots a kernel (one of `KERNELS`) to a shell on its console."""
    defaults = {
        "kernel": kernels.get(kernel).vmlinuz,
        "initrd": plain_initramfs(),
        "append": KERNEL_ARGUMENTS,
    }
    return MachineOptions(**{**defaults, **others})


@dataclass(frozen=True)
class Watch:
    """A line of the worker's watch.

    Attributes:
        time: the guest's monotonic clock, in seconds.
        step_back: the most that a CPU's clock was behind another's, in seconds; 0: never.
        longest_sleep: how long the longest sleep of 3 ms took, in seconds.
        wakeups: sleeps ended by a timer, per CPU.
    """

    time: float
    step_back: float
    longest_sleep: float
    wakeups: tuple[int, ...]


def parse_watch(lines: Sequence[str]) -> list[Watch]:
    """Return the lines of a watch among other lines, in their order. Those with torn ends do not count."""
    matches = [re.fullmatch(r"watch (?P<time>\d+)((?: \d+){3,}) (?P=time)", line) for line in lines]
    numbers = [[int(match["time"]), *map(int, match[2].split())] for match in matches if match]
    return [Watch(n[0] / 1e9, n[1] / 1e9, n[2] / 1e9, tuple(n[3:])) for n in numbers]


class LinuxGuest:
    """A running Linux with our /init.

    Args:
        machine: a started machine.
        commands: how many commands its shell has carried out, when it is not fresh.
    """

    def __init__(self, machine: SyncMachine, commands: int = 0) -> None:
        self.machine = machine
        self._commands = commands
        self._position = 0

    @property
    def commands(self) -> int:
        """How many commands its shell has carried out or been given."""
        return self._commands

    def wait_ready(self) -> LinuxGuest:
        """Wait until the (next) boot has reached our /init."""
        self._position = self.machine.wait_for(r"^=== ready\n", STEP_TIMEOUT).end()
        self._commands = 0
        return self

    def start(self, command: str) -> None:
        """Give the shell a command without waiting for its end."""
        self._commands += 1
        self.machine.write_console(command + "\n")

    def finish(self, timeout: float = STEP_TIMEOUT) -> str:
        """Wait until the last command given has ended; return what came on the console since the one before ended.

        Raises:
            GuestError: it ended with a status that is not 0.
        """
        match = self.machine.wait_for(rf"^=== {self._commands - 1} (\d+)\n", timeout)
        output = match.string[self._position : match.start()]
        self._position = match.end()
        if match[1] != "0":
            raise GuestError(f"a command ended with status {match[1]} in the guest; output: {output}")
        return output

    def run(self, command: str, timeout: float = STEP_TIMEOUT) -> str:
        """Run a shell command in the guest and return its output."""
        self.start(command)
        return self.finish(timeout)

    def power_off(self) -> int:
        """Make the guest power off; return QEMU's exit status."""
        self.start("poweroff -f")
        return self.machine.wait(STEP_TIMEOUT)

    # -- What the guest sees --

    def clocksource(self) -> str:
        """Return the clock source that the kernel uses."""
        return self.run("cat /sys/devices/system/clocksource/clocksource0/current_clocksource").strip()

    def clock_event(self, cpu: int) -> str:
        """Return the clock event device of a CPU."""
        return self.run(f"cat /sys/devices/system/clockevents/clockevent{cpu}/current_device").strip()

    def kernel_log(self) -> str:
        """Return the kernel's log."""
        return self.run("dmesg")

    def interrupts(self, row: str) -> list[int]:
        """Return the counts per CPU of a row of /proc/interrupts, such as "HVS"; [] when there is no such row."""
        match = re.search(rf"^ *{re.escape(row)}:((?: +\d+)+)", self.run("cat /proc/interrupts"), re.MULTILINE)
        return [int(count) for count in match[1].split()] if match else []

    def stop_watch(self) -> None:
        """End a watch that was started by `start("worker watch")`."""
        self.machine.write_console("\n")
        self.finish()

    def watch_lines(self) -> list[Watch]:
        """Return all lines of watches so far."""
        return parse_watch(self.machine.console_text.split("\n")[:-1])

    def wait_watch(self, count: int, start: int = 0) -> list[Watch]:
        """Wait for `count` lines of a watch after the first `start` ones and return them."""
        while len(self.watch_lines()) < start + count:
            self.machine.wait_for(r"^watch .*\n", STEP_TIMEOUT)
        return self.watch_lines()[start : start + count]

    # -- What the hypervisor counted --

    def hypercalls(self) -> dict[str, int]:
        """Return how often each hypercall was made, by name, on all VPs together."""
        return _sum_counters(self.machine.execute("query-hv-vps"), "hypercalls", ("count",))

    def msr_writes(self) -> dict[str, int]:
        """Return how often each synthetic register was written, by name, on all VPs together."""
        return _sum_counters(self.machine.execute("query-hv-vps"), "msrs", ("writes",))


class LinuxFactory(Protocol):
    """Boots a kernel: see `options()` for the arguments."""

    def __call__(self, kernel: str, **others: Any) -> LinuxGuest:
        """Return a guest whose shell is ready."""


def _sum_counters(vps: Sequence[Mapping[str, Any]], table: str, columns: Sequence[str]) -> dict[str, int]:
    total: dict[str, int] = {}
    for vp in vps:
        for entry in vp["counters"][table]:
            total[entry["name"]] = total.get(entry["name"], 0) + sum(entry[column] for column in columns)
    return total


def kexec_command(arguments: Optional[str] = None) -> str:
    """Return the shell command that starts the kernel of `kexec_initramfs()`."""
    words: list[Union[str, Path]] = ["worker", "kexec", "/boot/vmlinuz", "/boot/initrd", arguments or KERNEL_ARGUMENTS]
    return shlex.join(str(word) for word in words)
