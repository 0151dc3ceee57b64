# SPDX-License-Identifier: GPL-2.0-or-later
"""Parts of the backend for KVM that need no KVM (programs in kvm/): its calls on one that is made up, and undoing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from test_threads import compiler

QEMU_SIDE = Path(__file__).parents[2] / "csrc" / "qemu"
PROGRAMS = Path(__file__).parent / "kvm"
FLAGS = "-std=gnu11 -O1 -g -Wall -Wextra -Werror -fsanitize=address,undefined -fno-sanitize-recover=all".split()


@pytest.mark.parametrize(
    ("name", "source"),
    [
        pytest.param("vm", "kvm_vm.c", id="every error of every call"),
        pytest.param("undo", "kvm_undo.c", id="TLFS 9.1: instructions as they were before KVM executed them"),
    ],
)
def test_program(name: str, source: str, tmp_path: Path) -> None:
    """The program finds nothing wrong, and neither do the sanitizers."""
    program = tmp_path / name
    sources = [str(PROGRAMS / f"{name}.c"), str(QEMU_SIDE / source)]
    command = [compiler(), *FLAGS, f"-I{QEMU_SIDE}", *sources, "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
