# SPDX-License-Identifier: GPL-2.0-or-later
"""Which machines this user has running: how `qemu-hv status` finds the last one started."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Optional

__all__ = ["forget_machine", "last_machine", "record_machine", "runtime_dir"]


def runtime_dir() -> Path:
    """Return the folder of the runtime file, made if need be and readable by this user only."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and os.path.isdir(base):
        folder = Path(base) / "qemu-hv"
    else:
        folder = Path(tempfile.gettempdir()) / f"qemu-hv-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder} does not belong to this user alone; remove it")
    return folder


def record_machine(pid: int, control_socket: Path) -> None:
    """Note a machine that was started: QEMU's process ID and a QMP socket it listens on."""
    entry = json.dumps({"pid": pid, "qmp": str(control_socket)})
    file = runtime_dir() / f"{pid}.json"
    file.write_text(entry, encoding="utf-8")


def forget_machine(control_socket: Path) -> None:
    """Remove the note of a machine that has ended."""
    for file in runtime_dir().glob("*.json"):
        if _socket_of(file) == control_socket:
            file.unlink()


def last_machine() -> Optional[Path]:
    """Return the QMP socket of the running machine started last, or None; remove stale notes."""
    newest: Optional[tuple[float, Path]] = None
    for file in runtime_dir().glob("*.json"):
        socket = _socket_of(file)
        if socket is None or not socket.exists():
            file.unlink(missing_ok=True)
            continue
        started = file.stat().st_mtime
        if newest is None or started > newest[0]:
            newest = (started, socket)
    return None if newest is None else newest[1]


def _socket_of(file: Path) -> Optional[Path]:
    try:
        return Path(json.loads(file.read_text(encoding="utf-8"))["qmp"])
    except (OSError, ValueError, KeyError, TypeError):
        # Half-written, of another version, or removed meanwhile: no machine of ours.
        return None
