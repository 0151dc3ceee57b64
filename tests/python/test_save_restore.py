# SPDX-License-Identifier: GPL-2.0-or-later
"""The file of a saved child: written whole or not at all, checked whole before it is used."""

from __future__ import annotations

import io
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
import xxhash

from qemu_hv.errors import UserError
from qemu_hv.policy import save_restore
from qemu_hv.policy.save_restore import PAGE, NewFile, SavedChild

ABOUT = {"partition": 2, "interface": "current"}
HEAD = 48  # bytes of a section's
FIRST = 20  # where the first section begins


def content(number: int) -> bytes:
    """A page."""
    return struct.pack("<Q", number) * (PAGE // 8)


def transfer(pages: int = 300, contents: int = 250, state: bytes = b"state" * 1000) -> bytes:
    """What hv-partition-save writes: every sixth page is of zeros."""
    index = [0 if n % 6 == 0 else n % contents + 1 for n in range(pages)]
    body = [content(n) for n in range(contents)]
    head = struct.pack("<8sQQQ", b"HVCHILD\x02", len(state), pages, contents).ljust(PAGE, b"\0")
    sums = struct.pack(f"<{contents}Q", *(xxhash.xxh64_intdigest(page) for page in body))
    rest = state + struct.pack(f"<{pages}I", *index) + sums
    return head + b"".join(body) + rest + struct.pack("<Q", 0x00444E4544564848)


def unheard(done: int, total: int) -> None:
    """Nobody wants to know how far it is."""


def save(path: Path, data: bytes) -> dict[str, Any]:
    """Make a file of a transfer."""
    with NewFile(path) as file:
        Path(file.transfer_path).write_bytes(data)
        return file.finish(ABOUT, unheard)


BLOCK = 100 * PAGE
FILE_SYSTEMS = {"in memory": "tmpfs", "on a disk": "ext4"}


@pytest.fixture(params=FILE_SYSTEMS.values(), ids=list(FILE_SYSTEMS))
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sound file, as on either kind of file system."""
    monkeypatch.setattr(save_restore, "_file_system", lambda folder: request.param)
    monkeypatch.setattr(save_restore, "_BLOCK", BLOCK)
    target = tmp_path / "child"
    save(target, transfer())
    return target


def is_compressed(saved: SavedChild) -> bool:
    """Whether its pages are."""
    return any(section.compressed for section in saved.sections if section.name == "pages")


def test_round_trip(path: Path) -> None:
    """What goes in comes out, and zero pages take no room; pages are compressed where that is worth it."""
    saved = SavedChild.open(path)
    out = io.BytesIO()
    save_restore.write_transfer(saved, out, unheard)
    assert out.getvalue() == transfer()
    assert saved.info == {**ABOUT, "pages": 300, "contents": 250}
    assert saved.contents().count(0) == 50
    assert path.stat().st_size < (250 * PAGE // 4 if is_compressed(saved) else 260 * PAGE)
    assert saved.sections[1].position == PAGE
    assert [p.name for p in path.parent.iterdir()] == ["child"], "nothing is left beside it"


def test_kinds_of_file_systems() -> None:
    """Those in memory are told from others."""
    assert save_restore._file_system(Path("/dev/shm")) == "tmpfs"
    assert save_restore._file_system(Path("/proc")) == "proc"


def test_without_contents(tmp_path: Path) -> None:
    """A child whose memory is zeros."""
    data = transfer(pages=3, contents=1)[:PAGE] + b"state" * 1000 + bytes(12) + struct.pack("<Q", 0x00444E4544564848)
    save(tmp_path / "child", struct.pack("<8sQQQ", b"HVCHILD\x02", 5000, 3, 0) + data[32:])
    saved = SavedChild.open(tmp_path / "child")
    assert saved.contents() == [0, 0, 0]
    assert [section.name for section in saved.sections] == ["info", "pages", "state", "index", "end"]


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
        places = {section.position, section.position + section.stored // 2, section.position + section.stored - 1}
        for place in places:
            damaged = bytearray(data)
            damaged[place] ^= 4
            path.write_bytes(damaged)
            with pytest.raises(UserError) as refusal:
                SavedChild.open(path)
            assert str(section) in str(refusal.value)
        for place in range(section.position - HEAD, section.position):
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
    head = struct.pack("<8sII", b"QEMUHVSV", 3, 0)
    foreign.write_bytes(head + struct.pack("<I", zlib.crc32(head)) + path.read_bytes()[20:])
    with pytest.raises(UserError, match="the header says version 3"):
        SavedChild.open(foreign)
    with pytest.raises(UserError, match="No such file"):
        SavedChild.open(tmp_path / "nothing")


def test_sections_are_all_there(path: Path) -> None:
    """A section left out, doubled or moved is named, though each is sound."""
    data, sections = path.read_bytes(), SavedChild.open(path).sections
    pieces = [data[s.position - HEAD : s.position + s.stored] for s in sections]
    for order in ([0, 2, 1], [1, 2], [0, 1, 3, 2], [0, 1, 2, 4], [0, 0, 1, 2, 3, 4]):
        rest = [n for n in range(len(pieces)) if n > max(order)]
        path.write_bytes(data[:FIRST] + b"".join(pieces[n] for n in [*order, *rest]))
        with pytest.raises(UserError, match="section '"):
            SavedChild.open(path)


@pytest.mark.parametrize("length", [0, 20, 5000, 251 * PAGE, len(transfer()) - 1])
def test_transfer_that_breaks_off(path: Path, length: int) -> None:
    """The old file stays as it was, and nothing is left beside it."""
    before = path.read_bytes()
    with pytest.raises(ValueError, match="transfer"):
        save(path, transfer()[:length])
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["child"]


def test_work_that_is_ended(path: Path) -> None:
    """What the report raises ends it, and leaves the old file."""
    before = path.read_bytes()
    compressed = is_compressed(SavedChild.open(path))

    def end(done: int, total: int) -> None:
        raise KeyError(total)

    if compressed:
        with pytest.raises(KeyError), NewFile(path) as file:
            Path(file.transfer_path).write_bytes(transfer())
            file.finish(ABOUT, end)
        assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["child"]


KILLED = """
import os, sys
from pathlib import Path
from qemu_hv.policy import save_restore
from qemu_hv.policy.save_restore import NewFile
save_restore._file_system = lambda folder: sys.argv[4]
save_restore._BLOCK = int(sys.argv[5])
steps = int(sys.argv[3])
def here(*ignored):
    global steps
    steps -= 1
    if steps == 0:
        os.kill(os.getpid(), 9)
def first_here(function):
    def call(*arguments, **named):
        here()
        return function(*arguments, **named)
    return call
for name in ("fsync", "replace"):
    setattr(os, name, first_here(getattr(os, name)))
with NewFile(Path(sys.argv[2])) as file:
    here()
    Path(file.transfer_path).write_bytes(Path(sys.argv[1]).read_bytes())
    here()
    file.finish({"partition": 2}, here)
print("done")
"""


@pytest.mark.parametrize("step", range(1, 8))
def test_killed_while_it_saves(path: Path, tmp_path: Path, step: int) -> None:
    """Kill -9 at any point leaves the previous file whole, or the new one."""
    source = tmp_path / "source"
    source.write_bytes(transfer(contents=200))
    before = path.read_bytes()
    kind = "ext4" if is_compressed(SavedChild.open(path)) else "tmpfs"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(source), str(path), str(step), kind, str(BLOCK)],
        capture_output=True,
        text=True,
    )
    assert killed.stderr == ""
    # Begun, transferred, for each block that is compressed, made durable, renamed, the folder made durable.
    last = 7 if kind == "ext4" else 5
    if step <= last:
        assert killed.returncode == -signal.SIGKILL
    else:
        assert killed.stdout == "done\n"
    assert (path.read_bytes() == before) == (step < last)
    SavedChild.open(path)


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    """One line for the user."""
    with pytest.raises(UserError, match=r"cannot write .*No such file"):
        NewFile(tmp_path / "missing" / "child")
