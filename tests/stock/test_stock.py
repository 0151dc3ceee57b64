# SPDX-License-Identifier: GPL-2.0-or-later
"""Without the object the patched QEMU is stock QEMU: same code generated, same answers to the guest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from qemu_hv.qemu_binary import QemuBinary, find_qemu

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "guests"))

from guest_image import build_image  # noqa: E402

# Addresses of the host differ from run to run; so do the names of translation blocks.
HOST_ADDRESS = re.compile(r"0x[0-9a-f]{9,16}")
# After the write to the exit port (guest_exit() in the runtime): cli, hlt, and back to the write.
BLOCKS_TO_HALT = 3


@pytest.fixture(scope="module")
def stock() -> QemuBinary:
    """The unpatched QEMU: QEMU_HV_STOCK_QEMU, else the one qemu-hv builds of the same source."""
    named = os.environ.get("QEMU_HV_STOCK_QEMU")
    if named:
        firmware = os.environ.get("QEMU_HV_FIRMWARE", "").split(os.pathsep)
        return QemuBinary(Path(named), tuple(Path(folder) for folder in firmware if folder))
    from qemu_hv import build

    built = build.ensure(stock=True)
    return QemuBinary(built.path, tuple(built.firmware_dirs), dict(built.environment))


def run(qemu: QemuBinary, guest: Path, *arguments: str) -> str:
    """Run a guest in a machine without the object; return what it printed."""
    firmware = [word for folder in qemu.firmware_dirs for word in ("-L", str(folder))]
    done = subprocess.run(
        [
            *(str(qemu.path), *firmware, "-nodefaults", "-no-user-config", "-display", "none"),
            *("-machine", "q35", "-cpu", "max", "-m", "128", "-kernel", str(guest)),
            *("-accel", "tcg,thread=single", "-icount", "shift=0"),
            *("-chardev", "stdio,id=debug,signal=off"),
            *("-device", "isa-debugcon,iobase=0xe9,chardev=debug"),
            *("-device", "isa-debug-exit,iobase=0xf4,iosize=1", *arguments),
        ],
        env={**os.environ, **qemu.environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr + done.stdout[-2000:]  # the guest's exit code 0
    return done.stdout


def generated_code(qemu: QemuBinary, guest: Path, log: Path) -> list[str]:
    """TCG's intermediate code for everything the guest executed, by block, without host addresses."""
    run(qemu, guest, "-d", "op", "-D", str(log))
    return HOST_ADDRESS.sub("HOST", log.read_text(encoding="utf-8")).split("OP:\n")


def test_answers_are_stock(stock: QemuBinary) -> None:
    """CPUID, MSRs and faults of the instructions that the patches touch."""
    guest = build_image(HERE / "instructions.c", 64).path
    printed = run(stock, guest)
    assert "vmcall: 1 6" in printed  # the guest ran to its end
    assert run(find_qemu(), guest) == printed


def test_generated_code_is_stock(stock: QemuBinary, tmp_path: Path) -> None:
    """The translator emits the same operations, those of the touched instructions included."""
    guest = build_image(HERE / "instructions.c", 64).path
    expected = generated_code(stock, guest, tmp_path / "stock.log")
    assert any("rdmsr" in block for block in expected)
    actual = generated_code(find_qemu(), guest, tmp_path / "patched.log")
    # QEMU ends a moment after the guest has asked for it, which may meanwhile begin with the blocks that halt it.
    assert abs(len(actual) - len(expected)) <= BLOCKS_TO_HALT
    for ours, theirs in zip(actual, expected):
        assert ours == theirs
