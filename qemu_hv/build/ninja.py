# SPDX-License-Identifier: GPL-2.0-or-later
"""Running QEMU's configure and ninja, with progress and errors of one line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional, cast

from ..errors import UserError
from ..progress import say, track
from .configuration import CONFIGURE_ARGUMENTS, TARGET
from .tree import WorkTree

__all__ = ["EXECUTABLE", "build", "compile_commands", "configure", "modules"]

EXECUTABLE = f"qemu-system-{TARGET}"

_STEP = re.compile(r"\[(\d+)/(\d+)\] ")
_ERROR = re.compile(r"(?:\S+:\d+:(?:\d+:)? )?(?:fatal )?error: |ERROR: |.*undefined reference")


def configure(tree: WorkTree) -> None:
    """Configure the work tree's build folder, unless that is done.

    A build folder whose Python environment is gone is configured again in place: ninja then finds
    its objects up to date.

    Raises:
        UserError: QEMU's configure refuses.
    """
    if (tree.build / "build.ninja").is_file() and _environment_works(tree.build):
        return
    say("configuring QEMU")
    tree.build.mkdir(parents=True, exist_ok=True)
    log = tree.folder / "configure.log"
    command = [str(tree.source / "configure"), *CONFIGURE_ARGUMENTS, f"--python={sys.executable}"]
    with log.open("w", encoding="utf-8") as stream:
        status = subprocess.run(
            command,
            cwd=tree.build,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    if status != 0:
        raise UserError(f"QEMU's configure failed: {_first_error(log)}; its output is in {log}")


def _environment() -> dict[str, str]:
    """Return the environment without what would change the build behind the cache key's back."""
    unwanted = ("CFLAGS", "CPPFLAGS", "CXXFLAGS", "LDFLAGS", "MAKEFLAGS", "NINJA_STATUS")
    environment = {name: value for name, value in os.environ.items() if name not in unwanted}
    environment["LC_ALL"] = "C.UTF-8"
    return environment


def _environment_works(build_folder: Path) -> bool:
    """Tell whether the Python environment that configure made can still run meson."""
    python = build_folder / "pyvenv" / "bin" / "python3"
    if not python.exists():
        return False
    command = [str(python), str(build_folder / "pyvenv" / "bin" / "meson"), "--version"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _first_error(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    if any("No space left on device" in line for line in lines):
        return f"the disk that holds {log.parent} is full"
    for line in lines:
        if _ERROR.match(line):
            return line.strip()
    for line in lines:
        if line.startswith("FAILED: "):
            return f"cannot make {line[8:].strip()}"
    return lines[-1].strip() if lines else "no reason given"


def modules(build_folder: Path) -> list[str]:
    """Return the loadable modules that the configured build has for this target."""
    command = ["ninja", "-t", "targets", "all"]
    result = subprocess.run(command, cwd=build_folder, capture_output=True, text=True, check=True)
    found = re.findall(r"^([^/\s:]+\.so): ", result.stdout, re.MULTILINE)
    # QEMU 10.0 defines this one for every target.
    return sorted(name for name in found if "s390x" not in name)


def compile_commands(build_folder: Path) -> list[dict[str, str]]:
    """Return ninja's compilation database: the command of every step."""
    result = subprocess.run(["ninja", "-t", "compdb"], cwd=build_folder, capture_output=True, text=True, check=True)
    return cast("list[dict[str, str]]", json.loads(result.stdout))


def build(tree: WorkTree, title: str, jobs: Optional[int]) -> None:
    """Compile the emulator and its modules.

    Args:
        tree: a configured work tree.
        title: what is built, for the progress display.
        jobs: how many compilers run at once; None: ninja's choice.

    Raises:
        UserError: a step fails.
    """
    # Regenerating first gives the new build's modules when the overlay changes meson.build.
    _run_ninja(tree, "preparing the build", ["build.ninja"], jobs, quiet=True)
    _run_ninja(tree, title, [EXECUTABLE, *modules(tree.build)], jobs)


def _run_ninja(tree: WorkTree, title: str, targets: Sequence[str], jobs: Optional[int], quiet: bool = False) -> None:
    log = tree.folder / "build.log"
    command = ["ninja", *(["-j", str(jobs)] if jobs else []), *targets]
    environment = dict(_environment(), NINJA_STATUS="[%f/%t] ")
    if quiet:
        with log.open("w", encoding="utf-8") as stream:
            status = subprocess.run(
                command,
                cwd=tree.build,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode
    else:
        status = _run_with_progress(command, tree.build, environment, title, log)
    if status != 0:
        raise UserError(f"{title} failed: {_first_error(log)}; the full output is in {log}")


def _run_with_progress(command: Sequence[str], folder: Path, environment: dict[str, str], title: str, log: Path) -> int:
    with (
        log.open("w", encoding="utf-8") as stream,
        track(title) as reporter,
        subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                stream.write(line)
                step = _STEP.match(line)
                if step:
                    reporter.update(int(step.group(1)), int(step.group(2)))
        except BaseException:
            # Ctrl-C: ninja must not go on compiling behind the caller's back.
            process.terminate()
            raise
        return process.wait()
