# SPDX-License-Identifier: GPL-2.0-or-later
"""``./scripts/bench``: measure, print the table, write the JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Optional

from guest_image import build_image
from rich.console import Console

from qemu_hv import build, initramfs, kernels
from qemu_hv.build import variant
from qemu_hv.errors import UserError
from qemu_hv.progress import track
from qemu_hv.qemu_binary import QemuBinary, find_qemu

from . import results
from .event_log import LoggedBoot
from .process import Flavours
from .results import BenchmarkRun
from .samples import Samples
from .saving import Saving
from .workloads import INIT, Boot, Guest, RootGuest, Start, Workload, start_rom

_GROUPS = ("boots", "guest", "root", "services", "start")
_GUEST_SOURCE = Path(__file__).with_name("guest.c")
_ROOT_SOURCE = Path(__file__).with_name("root.c")
_SAVED_SOURCE = Path(__file__).with_name("saved.c")


@dataclass(frozen=True)
class _Rounds:
    """How often everything is measured: rounds by group, and repetitions in the guest."""

    boots: int
    guest: int
    root: int
    services: int
    start: int
    repeat: int


_FULL = _Rounds(boots=24, guest=24, root=20, services=12, start=36, repeat=9)
_QUICK = _Rounds(boots=2, guest=3, root=2, services=2, start=4, repeat=3)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Compare qemu-hv with stock QEMU.")
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it works, not how fast")
    parser.add_argument("--only", choices=_GROUPS, action="append", help="measure this only; may be given again")
    parser.add_argument("--rounds", type=_positive, metavar="N", help="rounds of everything")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), metavar="FILE", help="default: bench.json")
    parser.add_argument("--record", action="store_true", help="put the run into docs/performance.json and .md")
    parser.add_argument("--check", action="store_true", help="exit status 1 when a limit is missed")
    parser.add_argument("--kernel", type=Path, help="kernel image to boot (default: Debian's)")
    parser.add_argument("--append", default="console=ttyS0", help="its command line (default: console=ttyS0)")
    parser.add_argument("--smp", type=_positive, default=1, metavar="N", help="its VPs (default: 1)")
    parser.add_argument("--qemu", type=Path, help="patched QEMU (default: the one that qemu-hv builds)")
    parser.add_argument("--stock-qemu", type=Path, help="stock QEMU of the same build (default: likewise)")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def _find(explicit: Optional[Path], stock: bool = False, without: Optional[str] = None) -> QemuBinary:
    if explicit is not None:
        return find_qemu(explicit)
    built = build.ensure(stock=stock, without=without)
    return QemuBinary(built.path, tuple(built.firmware_dirs), dict(built.environment))


def _version(qemu: QemuBinary) -> str:
    command = [str(qemu.path), "--version"]
    words = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return words[words.index("version") + 1]


def _same_version(flavours: Flavours) -> str:
    stock, patched = _version(flavours.stock), _version(flavours.patched)
    if stock != patched:
        raise UserError(f"the stock QEMU is {stock} and the patched one {patched}; compare builds of one version")
    return patched


def _fact(path: str, name: str) -> str:
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"


def _describe_machine() -> dict[str, str]:
    memory = int(_fact("/proc/meminfo", "MemTotal").split()[0]) / 1024**2
    return {
        "processor": f"{_fact('/proc/cpuinfo', 'model name')}, {os.cpu_count()} processors",
        "memory": f"{memory:.1f} GiB",
        "host": f"{platform.system()} {platform.release()}",
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def _choose_rounds(args: argparse.Namespace) -> _Rounds:
    chosen = _QUICK if args.quick else _FULL
    if args.rounds is None:
        return chosen
    n = args.rounds
    return _Rounds(boots=n, guest=n, root=n, services=n, start=n, repeat=chosen.repeat)


def _kernel(args: argparse.Namespace) -> tuple[Path, str]:
    if args.kernel is not None:
        return args.kernel, args.kernel.name
    kernel = kernels.get()
    return kernel.vmlinuz, kernel.version


def _plan(
    groups: Sequence[str], args: argparse.Namespace, rounds: _Rounds, folder: Path
) -> tuple[list[tuple[Workload, int]], dict[str, str]]:
    """Return what to measure and in how many rounds, and what the user should know about it."""
    plan: list[tuple[Workload, int]] = []
    settings: dict[str, str] = {}
    if "guest" in groups:
        plan.append((Guest(build_image(_GUEST_SOURCE, 64).path, rounds.repeat), rounds.guest))
        settings["repetitions in the guest"] = str(rounds.repeat)
    if "root" in groups:
        image = build_image(_ROOT_SOURCE, 64, root=True).path
        plan.append((RootGuest(image, rounds.repeat), rounds.root))
        settings["repetitions in the guest"] = str(rounds.repeat)
    if "services" in groups:
        plan.append((Saving(build_image(_SAVED_SOURCE, 64, root=True).path), rounds.services))
    if "start" in groups:
        rom = folder / "start.rom"
        rom.write_bytes(start_rom())
        plan.append((Start(rom), rounds.start))
    if "boots" in groups:
        kernel, release = _kernel(args)
        boot = Boot(kernel, initramfs.build(INIT), args.append, args.smp)
        plan += [(boot, rounds.boots), (LoggedBoot(boot), rounds.boots)]
        settings["kernel"] = f"{release}, -smp {args.smp}, {args.append}"
    return plan, settings


def _measure(flavours: Flavours, workload: Workload, rounds: int, samples: Samples) -> None:
    """Measure all rounds. One round before them fills the host's caches and does not count."""
    unused = Samples()
    with track(f"measuring {workload.title}") as progress:
        for number in range(-1, rounds):
            for flavour in flavours.order(number, flavours.present(workload.flavours)):
                workload.measure(flavours, flavour, unused if number < 0 else samples)
            progress.update(number + 1, rounds)


def _run(args: argparse.Namespace) -> BenchmarkRun:
    rounds = _choose_rounds(args)
    # What a part of the module costs is seen by comparing with a build of our own only.
    without = {} if args.qemu else {name: _find(None, without=name) for name in variant.WITHOUT}
    flavours = Flavours(_find(args.stock_qemu, stock=True), _find(args.qemu), without)
    run = BenchmarkRun(
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        qemu=_same_version(flavours),
        machine=_describe_machine(),
        settings={},
        samples=Samples(),
    )
    with tempfile.TemporaryDirectory(prefix="qemu-hv-bench-") as folder:
        plan, run.settings = _plan(args.only or _GROUPS, args, rounds, Path(folder))
        for workload, count in plan:
            _measure(flavours, workload, count, run.samples)
    run.machine["load after"] = f"{os.getloadavg()[0]:.2f}"
    return run


def _write(run: BenchmarkRun, file: Path) -> None:
    try:
        file.write_text(json.dumps(run.to_json(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}; name another file with --json") from error


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the benchmark and return the command's exit status."""
    args = _parser().parse_args(arguments)
    try:
        if args.record and (args.quick or args.only or args.rounds):
            raise UserError("--record is for a complete run: leave out --quick, --only and --rounds")
        run = _run(args)
        _write(run, args.json)
        if args.record:
            _write(run, results.JSON_FILE)
            results.write_page()
    except UserError as error:
        print(f"qemu-hv: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("qemu-hv: interrupted", file=sys.stderr)
        return 130
    results.print_tables(run, Console())
    print(f"written to {args.json}")
    return int(args.check and any(result.missed for result in run.results()))


if __name__ == "__main__":
    sys.exit(main())
