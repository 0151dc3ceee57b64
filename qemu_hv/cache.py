# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache folder: keys, locks, atomic directories, free space.

Everything the package makes or fetches lies below one folder, ``${XDG_CACHE_HOME:-~/.cache}/qemu-hv``,
and may be deleted at any time while nothing of the package runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Optional, TextIO, Union

from .errors import UserError

__all__ = [
    "Lock",
    "atomic_directory",
    "digest",
    "digest_files",
    "list_files",
    "mark_used",
    "prune",
    "require_free_space",
    "root",
]

_KEY_LENGTH = 16
_LAST_USED = ".last-used"


def root() -> Path:
    """Return the cache folder, creating it if needed.

    Raises:
        UserError: it cannot be created.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification says that a relative path is to be ignored.
    parent = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    path = parent / "qemu-hv"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot create the cache folder {path}: {error.strerror}; set XDG_CACHE_HOME to a folder you can write to"
        ) from error
    return path


def digest(*parts: Union[str, bytes]) -> str:
    """Return a short hexadecimal key of the parts, in their order.

    The parts are framed by their lengths, so moving a character from one part to the next
    gives another key.
    """
    state = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()[:_KEY_LENGTH]


def list_files(folder: Path) -> list[Path]:
    """Return all regular files below a folder, sorted, without editors' and Python's leftovers."""
    found = []
    for base, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if not _is_leftover(name))
        found += [Path(base, name) for name in files if not _is_leftover(name)]
    return sorted(path for path in found if path.is_file())


def _is_leftover(name: str) -> bool:
    return name.startswith((".", "#")) or name.endswith(("~", ".orig", ".rej")) or (name == "__pycache__")


def digest_files(folder: Path, files: Iterable[Path]) -> str:
    """Return a key of the names (relative to the folder) and the contents of files."""
    parts: list[Union[str, bytes]] = []
    for path in files:
        parts += [path.relative_to(folder).as_posix(), path.read_bytes()]
    return digest(*parts)


class Lock:
    """An exclusive lock between processes, held for the body of a ``with`` statement.

    The second process waits, and says on standard error what for. The lock goes with the process
    that holds it, however that ends.

    Args:
        path: the lock's file; created, never deleted.
        purpose: what the holder does, for the message, such as "building QEMU".
    """

    def __init__(self, path: Path, purpose: str) -> None:
        self._path = path
        self._purpose = purpose
        self._file: Optional[TextIO] = None

    def __enter__(self) -> Lock:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = open(self._path, "a+", encoding="ascii")
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._say_waiting(file)
                fcntl.flock(file, fcntl.LOCK_EX)
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
        except BaseException:
            file.close()
            raise
        self._file = file
        return self

    def _say_waiting(self, file: TextIO) -> None:
        file.seek(0)
        holder = file.read().strip()
        who = f"process {holder}" if holder else "another process"
        print(f"qemu-hv: {who} is {self._purpose}; waiting for it", file=sys.stderr, flush=True)

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


@contextlib.contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """Give an empty directory that becomes ``target`` when the body ends without an exception.

    Nothing appears under the target's name before it is complete. If somebody else made the target
    in the meantime, theirs stays.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        temporary.chmod(0o755)
        yield temporary
        try:
            temporary.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_free_space(folder: Path, needed: int, purpose: str) -> None:
    """Check that a folder's file system has room.

    Args:
        folder: an existing folder.
        needed: bytes.
        purpose: what for, for the message.

    Raises:
        UserError: there is less room than that.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{purpose} needs {needed / 1e9:.1f} GB of disk space below {folder}, where "
            f"{free / 1e9:.1f} GB are free; make room or set XDG_CACHE_HOME to a folder with more"
        )


def mark_used(folder: Path) -> None:
    """Remember that a cached directory was used now, for :func:`prune`."""
    (folder / _LAST_USED).touch()


def prune(parent: Path, keep: int, minimum_age: float = 24 * 3600.0) -> list[Path]:
    """Delete the directories below a folder that were used longest ago.

    Args:
        parent: the folder.
        keep: how many are kept in any case, the last used ones.
        minimum_age: seconds; what was used since is kept too, as it may be running.

    Returns:
        What was deleted, and leftovers of builds that were killed.
    """
    if not parent.is_dir():
        return []
    now = time.time()

    def last_used(path: Path) -> float:
        stamp = path / _LAST_USED
        return (stamp if stamp.exists() else path).stat().st_mtime

    folders = sorted((path for path in parent.iterdir() if path.is_dir()), key=last_used)
    complete = [path for path in folders if not path.name.startswith(".")]
    partial = [path for path in folders if path.name.startswith(".")]
    old = [path for path in complete[: max(0, len(complete) - keep)] + partial if now - last_used(path) > minimum_age]
    for path in old:
        shutil.rmtree(path, ignore_errors=True)
    return old
