# SPDX-License-Identifier: GPL-2.0-or-later
"""The work tree: a source and build folder that QEMU is built in, again and again.

The work tree is the pristine source with an *overlay*: files that the patches change or add and
the module's sources. Going to another overlay rewrites only the files whose content changes, so
that ninja compiles only what depends on them after an edit of the patches or the module.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from .. import cache
from ..errors import UserError
from .series import Content

__all__ = ["WorkTree", "module_files"]


class WorkTree:
    """The source and build folders of one QEMU source and configuration.

    Only the holder of the build lock uses it.

    Args:
        folder: holds ``src``, ``build`` and the list of overlaid files.
        pristine: the unmodified source.
    """

    def __init__(self, folder: Path, pristine: Path) -> None:
        self.folder = folder
        self.source = folder / "src"
        self.build = folder / "build"
        self._pristine = pristine
        self._manifest = folder / "overlay.json"

    def create(self) -> None:
        """Make the source folder, with hard links to the pristine files, if it is not there."""
        if self.source.is_dir():
            return
        with cache.atomic_directory(self.source) as temporary:
            command = ["cp", "-al", f"{self._pristine}/.", str(temporary)]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode != 0:
                raise UserError(f"cannot copy QEMU's source: {result.stderr.strip()}")

    def synchronise(self, overlay: Mapping[PurePosixPath, Content]) -> None:
        """Make the source folder hold the pristine source with this overlay, and no other.

        An interrupted call is made good by the next one.
        """
        before = self._overlaid()
        self._record(before | set(overlay))
        for file in sorted(before - set(overlay)):
            self._restore(file)
        for file, content in overlay.items():
            self._put(file, content)
        self._record(overlay)

    def _overlaid(self) -> set[PurePosixPath]:
        if not self._manifest.is_file():
            return set()
        names = json.loads(self._manifest.read_text(encoding="utf-8"))
        return {PurePosixPath(name) for name in names}

    def _record(self, files: Iterable[PurePosixPath]) -> None:
        names = sorted(str(file) for file in files)
        temporary = self._manifest.with_suffix(".tmp")
        temporary.write_text(json.dumps(names), encoding="utf-8")
        temporary.replace(self._manifest)

    def _restore(self, file: PurePosixPath) -> None:
        original = self._pristine / file
        self._put(file, original.read_bytes() if original.is_file() else None)

    def _put(self, file: PurePosixPath, content: Content) -> None:
        path = self.source / file
        if content is None:
            path.unlink(missing_ok=True)
            self._remove_empty_parents(path)
            return
        if path.is_file() and path.read_bytes() == content:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        # A new file, never a write: the old one may be a hard link to the pristine source.
        handle, temporary = tempfile.mkstemp(prefix=".qemu-hv.", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        original = self._pristine / file
        os.chmod(temporary, original.stat().st_mode & 0o777 if original.is_file() else 0o644)
        os.replace(temporary, path)

    def _remove_empty_parents(self, path: Path) -> None:
        for parent in path.parents:
            if parent == self.source or not parent.is_dir() or any(parent.iterdir()):
                return
            parent.rmdir()

    def discard(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)


def module_files(csrc: Path, placement: Mapping[str, PurePosixPath]) -> dict[PurePosixPath, Content]:
    """Return the module's sources as an overlay.

    Args:
        csrc: the folder of the C sources.
        placement: where in QEMU's tree each subfolder of it goes.
    """
    return {
        target / path.relative_to(csrc / name).as_posix(): path.read_bytes()
        for name, target in placement.items()
        for path in cache.list_files(csrc / name)
    }
