# SPDX-License-Identifier: GPL-2.0-or-later
"""``qemu-hv run``: boot a guest under the emulated hypervisor and report what it used."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Callable, Optional

from .errors import UserError
from .guest_facts import INIT_SCRIPT, GuestFacts, parse_facts
from .machine import (
    OBJECT_TYPE,
    Event,
    Machine,
    MachineDied,
    MachineError,
    MachineOptions,
    PropertyValue,
    quote_command,
)
from .qemu_binary import find_qemu
from .report import Report, collect, last_crash, print_tables

__all__ = ["add_arguments", "execute", "run"]

DEFAULT_APPEND = "console=ttyS0"
KVM_DEVICE = Path("/dev/kvm")

EXIT_CRASHED = 3
EXIT_TIMEOUT = 4

_QUIT_SECONDS = 15.0
_CRASH_SECONDS = 5.0
_EPILOG = """\
Without --kernel a stock Debian kernel is booted, with an initramfs that says what it found and uses.
With --in-child the machine is the root partition: a small virtual machine monitor in it (examples/minivmm) boots the
kernel in a child partition. --smp and --memory are then the child's.
Exit status: 0 the guest powered off or reset; 1 an error; 3 the guest crashed; 4 it took too long.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("--kernel", type=Path, help="kernel image (default: Debian's)")
    parser.add_argument("--initrd", type=Path, help="initial RAM disk")
    parser.add_argument("--append", help=f"kernel command line (default: {DEFAULT_APPEND})")
    parser.add_argument("--smp", type=_positive, default=1, metavar="N", help="virtual processors")
    parser.add_argument("--memory", default="512M", help="size of the RAM (default: 512M)")
    parser.add_argument("--machine", default="q35", help="machine type (default: q35)")
    parser.add_argument("--accel", default="tcg", help="accelerator, as for -accel (default: tcg)")
    parser.add_argument("--icount", help="count instructions, as for -icount")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=120.0,
        metavar="SECONDS",
        help="give up then (default: 120)",
    )
    parser.add_argument(
        "--property",
        dest="properties",
        type=parse_property,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="property of the microsoft-hypervisor object; may be given again",
    )
    parser.add_argument("--in-child", action="store_true", help="boot the kernel in a child partition")
    parser.add_argument("--no-hypervisor", action="store_true", help="leave the object out, to compare")
    parser.add_argument("--json", action="store_true", help="report as JSON; the console goes to stderr")
    parser.add_argument("--quiet", action="store_true", help="do not show the console")
    parser.add_argument("qemu_args", nargs="*", metavar="-- QEMU ARGS", help="more arguments for QEMU")


def execute(args: argparse.Namespace) -> int:
    """Run the guest, print the report, return the command's exit status."""
    if args.no_hypervisor and args.properties:
        raise UserError("--property needs the object that --no-hypervisor leaves out; use one of them")
    if args.in_child and args.no_hypervisor:
        raise UserError("--in-child needs the object that --no-hypervisor leaves out; use one of them")
    if args.kernel is None and args.initrd is not None:
        raise UserError("--initrd needs --kernel: the kernel provided by default has its own")
    if args.accel.partition(",")[0] == "kvm":
        check_kvm()
    options = _options(args)
    try:
        report = asyncio.run(run(options, args.timeout, _console_printer(args), args.in_child))
    except MachineError as error:
        raise UserError(_advise(error)) from error
    if args.json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        print_tables(report.tables())
    return _exit_status(report)


def check_kvm(device: Path = KVM_DEVICE) -> None:
    """Say clearly why the host offers no KVM.

    Raises:
        UserError: there is none, or not for this user.
    """
    if not device.exists():
        raise UserError(f"--accel kvm needs {device}, which is not there: load the module kvm_intel or kvm_amd")
    if not os.access(device, os.R_OK | os.W_OK):
        raise UserError(f"--accel kvm needs {device}, which this user may not open: become a member of its group")


def _machine_type(args: argparse.Namespace) -> str:
    """Return the machine type; a root on KVM needs to have QEMU's local APIC (docs/architecture.md)."""
    machine: str = args.machine
    is_root = args.in_child or ("role", "root") in args.properties
    if args.accel.partition(",")[0] != "kvm" or not is_root or "kernel-irqchip" in machine:
        return machine
    return f"{machine},kernel-irqchip=off"


def _advise(error: MachineError) -> str:
    unknown = isinstance(error, MachineDied) and OBJECT_TYPE in error.stderr and "Invalid parameter" in error.stderr
    return f"{error} (QEMU's -object {OBJECT_TYPE},help lists the properties)" if unknown else str(error)


async def run(
    options: MachineOptions,
    timeout: float,
    on_line: Optional[Callable[[str], None]] = None,
    in_child: bool = False,
) -> Report:
    """Run a machine until its guest shuts down, and collect the report before it is gone.

    Args:
        options: the machine; what it does on a guest's shutdown is set here.
        timeout: seconds for the guest to end.
        on_line: called with each line of the console.
        in_child: whether the guest runs in a child partition, whose state is then reported.

    Raises:
        MachineError: QEMU failed.
    """
    # Obtaining QEMU may build it, which is no part of the run.
    options = replace(options, qemu=find_qemu(options.qemu))
    started = time.monotonic()
    machine = Machine(options, on_line=on_line)
    async with machine:
        version = (await machine.execute("query-version"))["qemu"]
        outcome = await _wait_end(machine, timeout)
        wall_time = time.monotonic() - started
        await machine.stop()
        state = await collect(machine, in_child)
        crash = last_crash(machine.events)
        await machine.quit(_QUIT_SECONDS)
    return Report(
        outcome="crashed" if crash is not None else outcome,
        wall_time=wall_time,
        qemu_version=f"{version['major']}.{version['minor']}.{version['micro']}",
        accel=options.accel,
        guest=_facts(machine),
        state=state,
        crash=crash,
    )


async def _wait_end(machine: Machine, timeout: float) -> str:
    shutdown = asyncio.ensure_future(machine.wait_event("SHUTDOWN", timeout))
    crash = asyncio.ensure_future(machine.wait_event("HV_GUEST_CRASH", timeout))
    try:
        await asyncio.wait({shutdown, crash}, return_when=asyncio.FIRST_COMPLETED)
        if not shutdown.done():
            # A guest that has crashed may hang for ever, or restart, or boot its crash kernel.
            await asyncio.wait({shutdown}, timeout=_CRASH_SECONDS)
        if not shutdown.done():
            return "crashed"
        return _reason(shutdown.result())
    except MachineDied as error:
        raise MachineError(f"{error}; its command line: {quote_command(machine.argv)}") from error
    except TimeoutError:
        return "timed out"
    finally:
        shutdown.cancel()
        crash.cancel()
        await asyncio.gather(shutdown, crash, return_exceptions=True)


def _reason(event: Event) -> str:
    reasons = {"guest-shutdown": "powered off", "guest-reset": "reset", "guest-panic": "crashed"}
    reason = str(event.data["reason"])
    return reasons.get(reason, reason)


def _facts(machine: Machine) -> GuestFacts:
    return parse_facts(machine.console.lines)


def _exit_status(report: Report) -> int:
    statuses = {"powered off": 0, "reset": 0, "crashed": EXIT_CRASHED, "timed out": EXIT_TIMEOUT}
    return statuses.get(report.outcome, 1)


def _options(args: argparse.Namespace) -> MachineOptions:
    kernel, initrd = args.kernel, args.initrd
    if kernel is None:
        kernel, initrd = _default_guest(in_child=args.in_child)
    options = MachineOptions(
        kernel=kernel,
        initrd=initrd,
        append=DEFAULT_APPEND if args.append is None else args.append,
        smp=args.smp,
        memory=args.memory,
        machine=_machine_type(args),
        accel=args.accel,
        icount=args.icount,
        hypervisor=None if args.no_hypervisor else dict(args.properties),
        actions={"reboot": "shutdown", "shutdown": "pause"},
        extra=args.qemu_args,
    )
    if not args.in_child:
        return options
    from . import child_boot

    return child_boot.in_child(options)


def _default_guest(in_child: bool) -> tuple[Path, Path]:
    """Return Debian's kernel, and an initramfs with our /init."""
    from . import initramfs, kernels

    kernel = kernels.get("6.1") if in_child else kernels.get()
    return kernel.vmlinuz, initramfs.build(INIT_SCRIPT)


def _console_printer(args: argparse.Namespace) -> Optional[Callable[[str], None]]:
    if args.quiet:
        return None
    stream = sys.stderr if args.json else sys.stdout

    def show(line: str) -> None:
        print(printable(line), file=stream, flush=True)

    return show


def printable(line: str) -> str:
    """Return a guest's line without what would steer the user's terminal."""
    return "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in line)


def parse_property(text: str) -> tuple[str, PropertyValue]:
    """Return name and value of NAME=VALUE; "on" and "off" are given to QEMU as they are."""
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    return name, value


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return number


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time in seconds")
    return number
