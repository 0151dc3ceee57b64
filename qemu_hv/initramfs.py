# SPDX-License-Identifier: GPL-2.0-or-later
"""A small initramfs: busybox and a script.

The archive is written here, in the "new ASCII" cpio format of the kernel's
``Documentation/driver-api/early-userspace/buffer-format.rst``, so it needs neither root (for
device nodes) nor a cpio program, and the same content gives the same bytes.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Optional, Union

from . import cache
from .apt import Suite, extract
from .progress import say

__all__ = ["Archive", "build", "busybox"]

_SUITE = "trixie"

_APPLETS = (
    "ash awk basename cat chmod cmp cp cut date dd dmesg dirname echo env expr false find free "
    "grep halt head hexdump hostname id ifconfig insmod ip kill killall ln ls lsmod mkdir mknod "
    "modprobe mount mv nc nproc nslookup od ping poweroff printf ps pwd readlink reboot rm rmdir "
    "rmmod sed seq setsid sh sha256sum sleep sort stat stty sync tail tee test time timeout top "
    "touch tr true udhcpc umount uname uniq uptime usleep vi watch wc wget which xargs yes"
).split()
_FOLDERS = ("bin", "dev", "etc", "lib", "proc", "root", "run", "sbin", "sys", "tmp", "usr")


class Archive:
    """A cpio archive in memory. Folders above a file are added by themselves."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._names: set[str] = set()

    def folder(self, name: str, mode: int = 0o755) -> None:
        """Add a folder, once."""
        if name not in self._names:
            self._entry(name, stat.S_IFDIR | mode, b"", links=2)

    def file(self, name: str, content: bytes, mode: int = 0o755) -> None:
        """Add a regular file."""
        self._entry(name, stat.S_IFREG | mode, content)

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, name: str, major: int, minor: int, mode: int = 0o600) -> None:
        """Add a character device."""
        self._entry(name, stat.S_IFCHR | mode, b"", device=(major, minor))

    def finish(self) -> bytes:
        """Return the archive's bytes."""
        data = bytearray(self._data)
        _append(data, len(self._names) + 1, "TRAILER!!!", 0, b"", 1, (0, 0))
        return bytes(data) + b"\0" * (-len(data) % 512)

    def _entry(
        self,
        name: str,
        mode: int,
        content: bytes,
        links: int = 1,
        device: tuple[int, int] = (0, 0),
    ) -> None:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or name in self._names:
            raise ValueError(f"not a new relative path: {name}")
        for parent in reversed(path.parents):
            if parent != PurePosixPath("."):
                self.folder(str(parent))
        self._names.add(name)
        _append(self._data, len(self._names), name, mode, content, links, device)


def _append(
    data: bytearray,
    inode: int,
    name: str,
    mode: int,
    content: bytes,
    links: int,
    device: tuple[int, int],
) -> None:
    """Append one member: header of 13 hexadecimal numbers, name, content, each padded to 4."""
    encoded = name.encode() + b"\0"
    numbers = (inode, mode, 0, 0, links, 0, len(content), 0, 0, *device, len(encoded), 0)
    data += b"070701" + b"".join(b"%08X" % number for number in numbers)
    data += encoded
    data += b"\0" * (-len(data) % 4)
    data += content
    data += b"\0" * (-len(data) % 4)


def busybox() -> Path:
    """Return Debian's statically linked busybox for amd64, fetching it if need be.

    Raises:
        UserError: it cannot be fetched.
    """
    target = cache.root() / "busybox" / _SUITE
    with cache.Lock(cache.root() / "busybox" / "lock", "fetching busybox"):
        if not target.is_dir():
            suite = Suite(_SUITE)
            suite.refresh()
            say("fetching Debian's busybox")
            with tempfile.TemporaryDirectory(prefix=".fetch.", dir=target.parent) as name:
                file = suite.download("busybox-static", Path(name))
                with cache.atomic_directory(target) as temporary:
                    extract(file, temporary)
    merged = target / "usr" / "bin" / "busybox"
    return merged if merged.is_file() else target / "bin" / "busybox"


def build(
    init: str,
    files: Optional[Mapping[str, Union[bytes, Path]]] = None,
    output: Optional[Path] = None,
) -> Path:
    """Make an initramfs.

    Args:
        init: the text of ``/init``, a shell script that starts with ``#!/bin/sh``. It runs with
            nothing mounted, and all of busybox's usual applets in ``/bin``.
        files: more files, by their path without the leading slash; executable where the source
            file is, and where the content is given as bytes.
        output: the file to write; without it, one in the cache, named for its content.

    Returns:
        The file.
    """
    archive = Archive()
    for name in _FOLDERS:
        archive.folder(name, 0o1777 if name == "tmp" else 0o755)
    # The kernel opens /dev/console for init before anything can mount devtmpfs.
    archive.character_device("dev/console", 5, 1)
    archive.character_device("dev/null", 1, 3, 0o666)
    archive.file("bin/busybox", busybox().read_bytes())
    for applet in _APPLETS:
        archive.link(f"bin/{applet}", "busybox")
    archive.file("init", init.encode())
    for name, content in sorted((files or {}).items()):
        if isinstance(content, bytes):
            archive.file(name, content)
        else:
            executable = os.access(content, os.X_OK)
            archive.file(name, content.read_bytes(), 0o755 if executable else 0o644)
    data = archive.finish()
    if output is None:
        output = cache.root() / "initramfs" / f"{cache.digest(data)}.cpio"
        if output.is_file():
            return output
        output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(output)
    return output
