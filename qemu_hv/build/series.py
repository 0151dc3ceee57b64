# SPDX-License-Identifier: GPL-2.0-or-later
"""The patch series: reading it and applying it without fuzz."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Optional

from .. import cache
from ..errors import UserError

__all__ = ["Content", "Patch", "apply", "key", "read"]

Content = Optional[bytes]
"""What a file is to hold; None: it is to be absent."""


@dataclass(frozen=True)
class Patch:
    """One patch of the series.

    Attributes:
        path: its file.
        files: the files that it changes, adds or removes, relative to QEMU's tree.
    """

    path: Path
    files: tuple[PurePosixPath, ...]


def read(folder: Path) -> list[Patch]:
    """Read a series in quilt's form: a file ``series`` and the patches that it names, in order.

    Raises:
        UserError: ``series`` and the files of the folder do not agree, or a patch is damaged.
    """
    series = folder / "series"
    if not series.is_file():
        raise UserError(f"{folder} is not a patch series: it has no file 'series'")
    lines = (line.partition("#")[0].strip() for line in series.read_text("utf-8").splitlines())
    names = [line for line in lines if line]
    present = {path.name for path in folder.glob("*.patch")}
    for name in names:
        if name not in present:
            raise UserError(f"{series} names {name}, which is not in the folder")
    for name in sorted(present - set(names)):
        raise UserError(f"{folder / name} is not named in {series}")
    if len(set(names)) != len(names):
        raise UserError(f"{series} names a patch twice")
    return [Patch(folder / name, _touched_files(folder / name)) for name in names]


def _touched_files(path: Path) -> tuple[PurePosixPath, ...]:
    files = set()
    for line in path.read_text("utf-8", errors="surrogateescape").splitlines():
        match = re.match(r"(?:--- a/|\+\+\+ b/|rename (?:from|to) )(\S+)", line)
        if match:
            file = PurePosixPath(match.group(1))
            if file.is_absolute() or ".." in file.parts:
                raise UserError(f"{path} changes {file}, which is outside QEMU's tree")
            files.add(file)
    if not files:
        raise UserError(f"{path} is not a patch: it changes no file")
    return tuple(sorted(files))


def key(folder: Path) -> str:
    """Return a key of the series' content."""
    patches = read(folder)
    return cache.digest_files(folder, [folder / "series", *(patch.path for patch in patches)])


def apply(patches: Sequence[Patch], pristine: Path, version: str) -> dict[PurePosixPath, Content]:
    """Apply the series to copies of the files that it touches.

    Hunks may have moved, but each line of their context must be there: no fuzz.

    Args:
        patches: the series.
        pristine: QEMU's tree; it is only read.
        version: QEMU's version, for messages.

    Returns:
        What each touched file holds afterwards.

    Raises:
        UserError: a patch does not apply; the message says which one to which file.
    """
    touched = sorted({file for patch in patches for file in patch.files})
    with tempfile.TemporaryDirectory(prefix="qemu-hv-patch.") as name:
        scratch = Path(name)
        for file in touched:
            if (pristine / file).is_file():
                (scratch / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(pristine / file, scratch / file)
                shutil.copymode(pristine / file, scratch / file)
        for patch in patches:
            _apply_one(patch, scratch, version)
        return {file: (scratch / file).read_bytes() if (scratch / file).is_file() else None for file in touched}


def _apply_one(patch: Patch, scratch: Path, version: str) -> None:
    command = [
        "patch",
        "--strip=1",
        "--fuzz=0",
        "--forward",
        "--batch",
        "--no-backup-if-mismatch",
        "--remove-empty-files",
        "--reject-file=-",
        f"--input={patch.path.absolute()}",
    ]
    try:
        result = subprocess.run(
            command,
            cwd=scratch,
            env=dict(os.environ, LC_ALL="C"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        raise UserError("the program 'patch' is missing; install the package patch") from error
    if result.returncode != 0:
        raise UserError(
            f"patch {patch.path.name} does not apply to QEMU {version}: {_failure(result.stdout + result.stderr)}"
        )


def _failure(output: str) -> str:
    """Say which hunks of which file failed, in one line, from the output of ``patch``."""
    file = ""
    for line in output.splitlines():
        started = re.match(r"patching file '?([^']+?)'?(?: \(.*)?$", line)
        if started:
            file = started.group(1)
        failed = re.match(r"Hunk #(\d+) FAILED at (\d+)", line)
        if failed:
            return f"{file}, hunk {failed.group(1)}, at line {failed.group(2)}"
        if line.startswith("can't find file to patch"):
            lost = re.search(r"^\|(?:---|\+\+\+) [ab]/(\S+)", output, re.MULTILINE)
            return f"{lost.group(1) if lost else 'a file'}: there is no such file"
        if line.startswith("Reversed (or previously applied) patch detected"):
            return f"{file}: it is applied already"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
