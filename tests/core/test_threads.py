# SPDX-License-Identifier: GPL-2.0-or-later
"""The core with a thread for each logical processor, under sanitizers (threads/threads.c)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CORE = Path(__file__).parents[2] / "csrc" / "hv"
PROGRAM = Path(__file__).parent / "threads" / "threads.c"
SECONDS = int(os.environ.get("HV_THREADS_SECONDS", "2"))
"""How long each runs; nightly runs ask for more."""


def compiler() -> str:
    """The C compiler that the core is built with."""
    found = shutil.which(os.environ.get("CC", "cc"))
    if found is None:
        pytest.fail("no C compiler: install gcc, or name one by CC")
    return found


@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
def test_threads(tmp_path: Path, sanitizer: str) -> None:
    """TLFS 18, 14.9, 10.4: LPs run VPs, wake, suspend, delete and message each other's at the same time.

    No report of a sanitizer, no VP on two LPs, no registers touched while it runs, no lost wake-up, no lost memory.
    """
    program = tmp_path / "threads"
    sources = sorted(str(path) for path in CORE.glob("*.c"))
    flags = ["-std=gnu11", "-O1", "-g", "-fno-strict-aliasing", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    build = subprocess.run(
        [compiler(), *flags, f"-I{CORE}", "-pthread", str(PROGRAM), *sources, "-o", str(program)],
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
    assert "VPs replaced" in run.stdout
