# SPDX-License-Identifier: GPL-2.0-or-later
"""The core under threads that run at the same time, with sanitizers (programs in threads/)."""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from qemu_hv import cache

CORE = Path(__file__).parents[2] / "csrc" / "hv"
PROGRAMS = Path(__file__).parent / "threads"
SECONDS = int(os.environ.get("HV_THREADS_SECONDS", "2"))
"""How long each runs; nightly runs ask for more."""
SANITIZERS = ["thread", "address,undefined"]
NAMES = ["threads", "gpa_map"]
FLAGS = ["-std=gnu11", "-O1", "-g", "-fno-strict-aliasing", "-fno-sanitize-recover=all"]


def compiler() -> str:
    """The C compiler that the core is built with."""
    found = shutil.which(os.environ.get("CC", "cc"))
    if found is None:
        pytest.fail("no C compiler: install gcc, or name one by CC")
    return found


def compile_all(folder: Path, flags: Sequence[str]) -> None:
    """Compile the core once, and link each program with it."""

    def compile_with(*arguments: str) -> None:
        done = subprocess.run([compiler(), *flags, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"it does not compile; are the compiler's sanitizers installed?\n{done.stderr}"

    def compile_one(source: Path) -> None:
        compile_with(f"-I{CORE}", "-c", str(source), "-o", str(folder / f"{source.parent.name}-{source.stem}.o"))

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, [*PROGRAMS.glob("*.c"), *CORE.glob("*.c")]))
    common = [*map(str, folder.glob(f"{CORE.name}-*.o")), str(folder / f"{PROGRAMS.name}-machine.o")]
    for name in NAMES:
        compile_with("-pthread", str(folder / f"{PROGRAMS.name}-{name}.o"), *common, "-o", str(folder / name))
    for item in folder.glob("*.o"):
        item.unlink()


def build(sanitizer: str) -> Path:
    """Return the folder of the programs built with a sanitizer; the cache keeps them until a source changes."""
    flags = [*FLAGS, f"-fsanitize={sanitizer}"]
    sources = [cache.digest_files(folder, cache.list_files(folder)) for folder in (CORE, PROGRAMS)]
    version = subprocess.run([compiler(), "--version"], capture_output=True, text=True, check=True).stdout
    parent = cache.root() / "threads"
    target = parent / cache.digest(version, *flags, *sources)
    with cache.Lock(parent / "lock", "compiling the core with sanitizers"):
        if not target.is_dir():
            with cache.atomic_directory(target) as folder:
                compile_all(folder, flags)
    cache.mark_used(target)
    cache.prune(parent, 4)
    return target


def run(name: str, sanitizer: str) -> str:
    """What a program says that is built with a sanitizer and has run without a report."""
    done = subprocess.run(
        [str(build(sanitizer) / name), str(SECONDS)],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS + 120,
        env={**os.environ, "TSAN_OPTIONS": "halt_on_error=1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_threads(sanitizer: str) -> None:
    """TLFS 18, 14.9, 10.4: LPs run VPs, wake, suspend, delete and message each other's at the same time.

    No report of a sanitizer, no VP on two LPs, no registers touched while it runs, no lost wake-up, no lost memory.
    """
    assert "VPs replaced" in run("threads", sanitizer)


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_gpa_maps(sanitizer: str) -> None:
    """TLFS 8: two root VPs change the maps of each other's children, whose VPs translate and move overlays meanwhile.

    Every translation is one that was asked for, and in the end no page counts as used.
    """
    assert "pages deposited" in run("gpa_map", sanitizer)
