# SPDX-License-Identifier: GPL-2.0-or-later
"""The file of a saved child: written whole or not at all, checked whole before it is used."""

from __future__ import annotations

import io
import os
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from qemu_hv.errors import UserError
from qemu_hv.policy import save_restore
from qemu_hv.policy.save_restore import PAGE, SavedChild

ABOUT = {"partition": 2, "interface": "current"}


def transfer(pages: int = 3000, contents: int = 2500, state: bytes = b"state" * 1000) -> bytes:
    """What hv-partition-save writes: every sixth page is of zeros."""
    index = [0 if n % 6 == 0 else n % contents + 1 for n in range(pages)]
    body = b"".join(struct.pack("<Q", n) * (PAGE // 8) for n in range(contents))
    head = struct.pack("<8sQQQ", b"HVCHILD\x01", len(state), pages, contents)
    return head + state + struct.pack(f"<{pages}I", *index) + body + struct.pack("<Q", 0x00444E4544564848)


class Exactly(io.BytesIO):
    """A source that has what it has."""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if size is not None and len(data) < size:
            raise EOFError
        return data


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A sound file."""
    target = tmp_path / "child"
    save_restore.pack(Exactly(transfer()), target, ABOUT)
    return target


def test_round_trip(path: Path) -> None:
    """What goes in comes out, and zero pages take no room."""
    saved = SavedChild.open(path)
    parts: list[bytes] = []
    save_restore.write_transfer(saved, parts.append)
    assert b"".join(parts) == transfer()
    assert saved.info == {**ABOUT, "pages": 3000, "contents": 2500}
    assert saved.contents().count(0) == 500
    assert path.stat().st_size < 2500 * PAGE // 4
    assert [p.name for p in path.parent.iterdir()] == ["child"], "nothing is left beside it"


def test_truncated(path: Path) -> None:
    """A file that ends early is refused, and the message names where."""
    data = path.read_bytes()
    for length in [0, 5, 15, 30, 100, len(data) // 2, len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match=r"header|section") as refusal:
            SavedChild.open(path)
        assert "\n" not in str(refusal.value)


def test_every_section_is_protected(path: Path) -> None:
    """A bit flipped in any section, its head or its content, is refused, naming the section."""
    data = path.read_bytes()
    sections = SavedChild.open(path).sections
    for number, section in enumerate(sections):
        content = {section.position, section.position + section.stored // 2, section.position + section.stored - 1}
        for place in content:
            damaged = bytearray(data)
            damaged[place] ^= 4
            path.write_bytes(damaged)
            with pytest.raises(UserError) as refusal:
                SavedChild.open(path)
            assert str(section) in str(refusal.value)
        for place in range(section.position - 48, section.position):
            damaged = bytearray(data)
            damaged[place] ^= 4
            path.write_bytes(damaged)
            previous = str(sections[number - 1]) if number else "the header"
            with pytest.raises(UserError, match=previous):
                SavedChild.open(path)


def test_every_byte_of_the_header(path: Path) -> None:
    """So is one in the header."""
    data = path.read_bytes()
    for place in range(20):
        damaged = bytearray(data)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="header"):
            SavedChild.open(path)


def test_foreign_and_newer_files(path: Path, tmp_path: Path) -> None:
    """Other files, files of later versions, and files that are not there."""
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"\x7fELF" + bytes(4096))
    with pytest.raises(UserError, match="the header is not that of a file made by qemu-hv save"):
        SavedChild.open(foreign)
    head = struct.pack("<8sII", b"QEMUHVSV", 2, 0)
    foreign.write_bytes(head + struct.pack("<I", zlib.crc32(head)) + path.read_bytes()[20:])
    with pytest.raises(UserError, match="the header says version 2"):
        SavedChild.open(foreign)
    with pytest.raises(UserError, match="No such file"):
        SavedChild.open(tmp_path / "nothing")


def test_sections_are_all_there(path: Path) -> None:
    """A section left out, doubled or moved is named, though each is sound."""
    data, sections = path.read_bytes(), SavedChild.open(path).sections
    pieces = [data[s.position - 48 : s.position + s.stored] for s in sections]
    for order in ([0, 2, 1], [1, 2], [0, 1, 3, 2], [0, 1, 2, 4], [0, 0, 1, 2, 3, 4]):
        rest = [n for n in range(len(pieces)) if n > max(order)]
        path.write_bytes(data[:20] + b"".join(pieces[n] for n in [*order, *rest]))
        with pytest.raises(UserError, match="section '"):
            SavedChild.open(path)


@pytest.mark.parametrize("length", [0, 20, 5000, 100_000])
def test_transfer_that_breaks_off(path: Path, length: int) -> None:
    """The old file stays as it was, and nothing is left beside it."""
    before = path.read_bytes()
    with pytest.raises(EOFError):
        save_restore.pack(Exactly(transfer()[:length]), path, ABOUT)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["child"]


KILLED = """
import io, sys, time
from pathlib import Path
from qemu_hv.policy import save_restore
data = Path(sys.argv[1]).read_bytes()
class Slow(io.BytesIO):
    def read(self, size=-1):
        print("read", flush=True)
        time.sleep(0.01)
        return super().read(size)
save_restore.pack(Slow(data), Path(sys.argv[2]), {"partition": 2})
print("done", flush=True)
"""


@pytest.mark.parametrize("reads", [1, 2, 4, 7])
def test_killed_while_it_saves(path: Path, tmp_path: Path, reads: int) -> None:
    """Kill -9 at any point leaves the previous file whole."""
    source = tmp_path / "source"
    source.write_bytes(transfer())
    before = path.read_bytes()
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(source), str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for _ in range(reads):
            assert process.stdout.readline() == "read\n"
        os.kill(process.pid, signal.SIGKILL)
    assert path.read_bytes() == before
    SavedChild.open(path)


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    """One line for the user."""
    with pytest.raises(UserError, match=r"cannot write .*No such file"):
        save_restore.pack(Exactly(transfer()), tmp_path / "missing" / "child", ABOUT)
