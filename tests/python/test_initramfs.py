# SPDX-License-Identifier: GPL-2.0-or-later
"""The initramfs archive, parsed back by a reader of its own."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Union

import pytest

from qemu_hv import initramfs


@dataclass
class Member:
    mode: int
    content: bytes
    device: tuple[int, int]


def parse(data: bytes) -> dict[str, Member]:
    """Read a "newc" archive, as the kernel's documentation describes it."""
    members: dict[str, Member] = {}
    inodes = set()
    offset = 0
    while True:
        assert data[offset : offset + 6] == b"070701"
        numbers = [int(data[at : at + 8], 16) for at in range(offset + 6, offset + 110, 8)]
        inode, mode, size, major, minor, name_size = (numbers[at] for at in (0, 1, 6, 9, 10, 11))
        name = data[offset + 110 : offset + 110 + name_size]
        assert name.endswith(b"\0")
        start = (offset + 110 + name_size + 3) & ~3
        offset = (start + size + 3) & ~3
        text = name[:-1].decode()
        if text == "TRAILER!!!":
            assert data[offset:].strip(b"\0") == b"" and len(data) % 512 == 0
            return members
        assert text not in members and inode not in inodes
        inodes.add(inode)
        members[text] = Member(mode, data[start : start + size], (major, minor))


@pytest.fixture
def busybox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "busybox"
    path.write_bytes(b"\x7fELF busybox")
    monkeypatch.setattr(initramfs, "busybox", lambda: path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return path


def test_archive_has_what_a_boot_needs(busybox: Path) -> None:
    members = parse(initramfs.build("#!/bin/sh\necho hello\n").read_bytes())
    assert members["init"].content == b"#!/bin/sh\necho hello\n"
    assert members["init"].mode == stat.S_IFREG | 0o755
    assert members["bin/busybox"].content == busybox.read_bytes()
    assert members["bin/sh"].mode == stat.S_IFLNK | 0o777
    assert members["bin/sh"].content == b"busybox"
    assert members["dev/console"].mode == stat.S_IFCHR | 0o600
    assert members["dev/console"].device == (5, 1)
    assert members["tmp"].mode == stat.S_IFDIR | 0o1777


def test_folders_come_before_what_is_in_them(busybox: Path, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("text")
    files: dict[str, Union[bytes, Path]] = {"a/b/c": b"content", "a/plain": script}
    members = parse(initramfs.build("", files).read_bytes())
    names = list(members)
    assert names.index("a") < names.index("a/b") < names.index("a/b/c")
    assert members["a/b/c"].content == b"content"
    assert members["a/plain"].mode == stat.S_IFREG | 0o644
    script.chmod(0o755)
    members = parse(initramfs.build("", files).read_bytes())
    assert members["a/plain"].mode == stat.S_IFREG | 0o755


def test_the_same_content_gives_the_same_file(busybox: Path, tmp_path: Path) -> None:
    first = initramfs.build("init")
    assert initramfs.build("init") == first
    assert initramfs.build("other") != first
    output = tmp_path / "named.cpio"
    assert initramfs.build("init", output=output) == output
    assert output.read_bytes() == first.read_bytes()


@pytest.mark.parametrize("name", ["/etc/x", "../x", "init"])
def test_names_that_cannot_be(busybox: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a new relative path"):
        initramfs.build("", {name: b""})
