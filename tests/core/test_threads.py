# SPDX-License-Identifier: GPL-2.0-or-later
"""The core under threads that run at the same time, with sanitizers (programs in threads/)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CORE = Path(__file__).parents[2] / "csrc" / "hv"
PROGRAMS = Path(__file__).parent / "threads"
SECONDS = int(os.environ.get("HV_THREADS_SECONDS", "2"))
"""How long each runs; nightly runs ask for more."""
SANITIZERS = ["thread", "address,undefined"]


def compiler() -> str:
    """The C compiler that the core is built with."""
    found = shutil.which(os.environ.get("CC", "cc"))
    if found is None:
        pytest.fail("no C compiler: install gcc, or name one by CC")
    return found


def build_and_run(tmp_path: Path, name: str, sanitizer: str) -> str:
    """What a program says that is built with a sanitizer and has run without a report."""
    program = tmp_path / name
    sources = sorted(str(path) for path in CORE.glob("*.c"))
    flags = ["-std=gnu11", "-O1", "-g", "-fno-strict-aliasing", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    build = subprocess.run(
        [compiler(), *flags, f"-I{CORE}", "-pthread", str(PROGRAMS / f"{name}.c"), *sources, "-o", str(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, f"it does not compile; are the compiler's sanitizers installed?\n{build.stderr}"
    run = subprocess.run(
        [str(program), str(SECONDS)],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS + 120,
        env={**os.environ, "TSAN_OPTIONS": "halt_on_error=1"},
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_threads(tmp_path: Path, sanitizer: str) -> None:
    """TLFS 18, 14.9, 10.4: LPs run VPs, wake, suspend, delete and message each other's at the same time.

    No report of a sanitizer, no VP on two LPs, no registers touched while it runs, no lost wake-up, no lost memory.
    """
    assert "VPs replaced" in build_and_run(tmp_path, "threads", sanitizer)


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_gpa_maps(tmp_path: Path, sanitizer: str) -> None:
    """TLFS 8: two root VPs change the maps of each other's children, whose VPs translate and move overlays meanwhile.

    Every translation is one that was asked for, and in the end no page counts as used.
    """
    assert "pages deposited" in build_and_run(tmp_path, "gpa_map", sanitizer)
