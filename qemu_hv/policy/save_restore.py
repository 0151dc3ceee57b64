# SPDX-License-Identifier: GPL-2.0-or-later
"""The file that holds a saved child partition: written whole or not at all, and checked whole before it is used.

docs/save-restore.md describes the format. A file is a head and sections; each section has a checksum of its own, so
that what is wrong with a damaged file can be named.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import zstandard

from ..errors import UserError

__all__ = ["PAGE", "SavedChild", "Source", "pack", "write_transfer"]

PAGE = 4096
_MAGIC = b"QEMUHVSV"
_VERSION = 1
_HEAD = struct.Struct("<8sII")
_SECTION = struct.Struct("<16sIIQQI")
_CHECKSUM = struct.Struct("<I")
_COMPRESSED = 1
_BLOCK = 1024 * PAGE
_LEVEL = 1
_LARGEST = 1 << 32  # bytes of a section that is read into memory

_TRANSFER = struct.Struct("<8sQQQ")
_TRANSFER_MAGIC = b"HVCHILD\x01"
_TRANSFER_END = struct.pack("<Q", 0x00444E4544564848)


class Source(Protocol):
    """Where the bytes of a transfer come from."""

    def read(self, size: int) -> bytes:
        """Return exactly so many bytes."""


@dataclass(frozen=True)
class Section:
    """A section of a file, and where its content is."""

    name: str
    number: int
    size: int
    stored: int
    compressed: bool
    checksum: int
    position: int

    def __str__(self) -> str:
        return f"section '{self.name}' {self.number}" if self.name == "pages" else f"section '{self.name}'"


# -- Writing --


class _Writer:
    """Compresses sections on all processors and writes them in order."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1)
        self._pending: deque[Future[bytes]] = deque()
        self._limit = 2 * (os.cpu_count() or 1)
        self.sections = 0
        head = _HEAD.pack(_MAGIC, _VERSION, 0)
        file.write(head + _CHECKSUM.pack(zlib.crc32(head)))

    def add(self, name: str, content: bytes, number: int = 0) -> None:
        """Append a section."""
        self._pending.append(self._pool.submit(_pack_section, name, number, content))
        self.sections += 1
        while len(self._pending) > self._limit:
            self._file.write(self._pending.popleft().result())

    def finish(self) -> None:
        """Write what is left."""
        while self._pending:
            self._file.write(self._pending.popleft().result())

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


def _pack_section(name: str, number: int, content: bytes) -> bytes:
    packed = zstandard.ZstdCompressor(level=_LEVEL).compress(content)
    stored, flags = (packed, _COMPRESSED) if len(packed) < len(content) else (content, 0)
    head = _SECTION.pack(name.encode(), number, flags, len(content), len(stored), zlib.crc32(stored))
    return head + _CHECKSUM.pack(zlib.crc32(head)) + stored


def pack(source: Source, path: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Make a file of a transfer by ``hv-partition-save``; return what its section 'info' says.

    The file is written beside `path`, made durable, and renamed: there is the old file or the whole new one.

    Raises:
        UserError: the file cannot be written.
        EOFError: the transfer ends early.
        ValueError: it is none.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "xb") as file:
            info = _pack_into(file, source, about)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return info


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _pack_into(file: BinaryIO, source: Source, about: dict[str, Any]) -> dict[str, Any]:
    magic, state_size, pages, contents = _TRANSFER.unpack(source.read(_TRANSFER.size))
    if magic != _TRANSFER_MAGIC:
        raise ValueError("not a transfer of hv-partition-save")
    info = {**about, "pages": pages, "contents": contents}
    writer = _Writer(file)
    try:
        writer.add("info", json.dumps(info, indent=1).encode())
        writer.add("state", source.read(state_size))
        writer.add("index", source.read(pages * 4))
        for number, first in enumerate(range(0, contents * PAGE, _BLOCK)):
            writer.add("pages", source.read(min(_BLOCK, contents * PAGE - first)), number)
        if source.read(len(_TRANSFER_END)) != _TRANSFER_END:
            raise ValueError("the transfer has no end")
        writer.add("end", struct.pack("<Q", writer.sections))
        writer.finish()
    finally:
        writer.close()
    return info


# -- Reading --


@dataclass
class SavedChild:
    """A file with a saved child whose sections are all sound."""

    path: Path
    version: int
    sections: list[Section]
    info: dict[str, Any]
    state: bytes = field(repr=False)
    index: bytes = field(repr=False)

    @classmethod
    def open(cls, path: Path) -> SavedChild:
        """Read a file and check all of it.

        Raises:
            UserError: it cannot be read, was not made by ``qemu-hv save``, is of a newer version, or a section of it
                is damaged.
        """
        try:
            with open(path, "rb") as file:
                return cls._read(path, file)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error

    @classmethod
    def _read(cls, path: Path, file: BinaryIO) -> SavedChild:
        version = _read_head(path, file)
        sections = list(_read_sections(path, file))
        whole: dict[str, bytes] = {}
        for section in sections:
            content = _content(path, file, section)
            if section.name != "pages":
                whole[section.name] = content
        _check_order(path, sections, whole)
        saved = cls(path, version, sections, _info(path, whole["info"]), whole["state"], whole["index"])
        saved._check_counts()
        return saved

    def _check_counts(self) -> None:
        pages, contents = self.info["pages"], self.info["contents"]
        if len(self.index) != pages * 4:
            raise UserError(f"{self.path}: section 'index' does not fit section 'info'")
        if sum(s.size for s in self.sections if s.name == "pages") != contents * PAGE:
            raise UserError(f"{self.path}: section 'pages' does not fit section 'info'")
        if any(number > contents for (number,) in struct.iter_unpack("<I", self.index)):
            raise UserError(f"{self.path}: section 'index' names pages that are not there")

    def blocks(self) -> Iterator[bytes]:
        """The contents of pages, block by block."""
        with open(self.path, "rb") as file:
            for section in self.sections:
                if section.name == "pages":
                    yield _content(self.path, file, section)

    def contents(self) -> list[int]:
        """By page, in the order of their addresses: the number of its content; 0: zeros."""
        return [number for (number,) in struct.iter_unpack("<I", self.index)]


def _damaged(path: Path, what: object, how: str = "is damaged") -> UserError:
    return UserError(f"{path}: {what} {how}")


def _read_head(path: Path, file: BinaryIO) -> int:
    head = file.read(_HEAD.size + _CHECKSUM.size)
    if head[: len(_MAGIC)] != _MAGIC[: len(head)] or not head:
        raise UserError(f"{path}: the header is not that of a file made by qemu-hv save")
    if len(head) < _HEAD.size + _CHECKSUM.size:
        raise _damaged(path, "the header", "ends early")
    _, version, _ = _HEAD.unpack_from(head)
    if _CHECKSUM.unpack_from(head, _HEAD.size)[0] != zlib.crc32(head[: _HEAD.size]):
        raise _damaged(path, "the header")
    if version != _VERSION:
        raise UserError(
            f"{path}: the header says version {version}, and this qemu-hv knows {_VERSION}; use a newer one"
        )
    return int(version)


def _read_sections(path: Path, file: BinaryIO) -> Iterator[Section]:
    previous: object = "the header"
    while True:
        head = file.read(_SECTION.size + _CHECKSUM.size)
        if len(head) < _SECTION.size + _CHECKSUM.size:
            raise _damaged(path, f"the section behind {previous}", "ends early")
        name, number, flags, size, stored, checksum = _SECTION.unpack_from(head)
        if _CHECKSUM.unpack_from(head, _SECTION.size)[0] != zlib.crc32(head[: _SECTION.size]):
            raise _damaged(path, f"the head of the section behind {previous}")
        text = name.rstrip(b"\0").decode("ascii", "replace")
        section = Section(text, number, size, stored, bool(flags & _COMPRESSED), checksum, file.tell())
        if size > _LARGEST or stored > _LARGEST or flags & ~_COMPRESSED:
            raise _damaged(path, section)
        file.seek(stored, os.SEEK_CUR)
        if file.tell() > os.fstat(file.fileno()).st_size:
            raise _damaged(path, section, "ends early")
        yield section
        if text == "end":
            if file.read(1):
                raise _damaged(path, "section 'end'", "is not the last")
            return
        previous = section


def _content(path: Path, file: BinaryIO, section: Section) -> bytes:
    file.seek(section.position)
    stored = file.read(section.stored)
    if len(stored) != section.stored or zlib.crc32(stored) != section.checksum:
        raise _damaged(path, section)
    if not section.compressed:
        content = stored
    else:
        try:
            content = zstandard.ZstdDecompressor().decompress(stored, max_output_size=section.size)
        except zstandard.ZstdError as error:
            raise _damaged(path, section) from error
    if len(content) != section.size:
        raise _damaged(path, section)
    return content


def _check_order(path: Path, sections: list[Section], whole: dict[str, bytes]) -> None:
    names = [section.name for section in sections]
    expected = ["info", "state", "index", *["pages"] * (len(names) - 4), "end"]
    for name, due in zip(names, expected):
        if name != due:
            raise UserError(f"{path}: section '{name}' is where section '{due}' should be")
    if len(names) < 4:
        raise UserError(f"{path}: section '{expected[len(names) - 1]}' is missing")
    numbers = [section.number for section in sections if section.name == "pages"]
    if numbers != list(range(len(numbers))):
        raise UserError(f"{path}: section 'pages' has blocks missing")
    if whole["end"] != struct.pack("<Q", len(names) - 1):
        raise UserError(f"{path}: section 'end' counts other sections than there are")


def _info(path: Path, content: bytes) -> dict[str, Any]:
    try:
        info = json.loads(content)
        if not all(isinstance(info[key], int) and info[key] >= 0 for key in ("partition", "pages", "contents")):
            raise ValueError("not a number")
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, "section 'info'") from error
    return dict(info)


def write_transfer(saved: SavedChild, write: Any) -> None:
    """Hand out what ``hv-partition-restore`` reads, by a function that takes bytes."""
    pages, contents = saved.info["pages"], saved.info["contents"]
    write(_TRANSFER.pack(_TRANSFER_MAGIC, len(saved.state), pages, contents))
    write(saved.state)
    write(saved.index)
    for block in saved.blocks():
        write(block)
    write(_TRANSFER_END)
