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
from types import TracebackType
from typing import Any, BinaryIO, Callable, Optional

import xxhash
import zstandard

from ..errors import UserError

__all__ = ["PAGE", "NewFile", "SavedChild", "write_transfer"]

PAGE = 4096
_MAGIC = b"QEMUHVSV"
_VERSION = 2
_HEAD = struct.Struct("<8sII")
_SECTION = struct.Struct("<16sIIQQI")
_CHECKSUM = struct.Struct("<I")
_HEADS = _HEAD.size + 2 * _SECTION.size + 3 * _CHECKSUM.size  # the file's, that of 'info', that of the next section
_COMPRESSED = 1
_BLOCK = 1024 * PAGE
_LEVEL = 1
_LARGEST = 1 << 32  # bytes of a section that is read into memory
# Storing in memory takes less time than compressing, and copying from file to file as long as all of the rest.
_IN_MEMORY = ("tmpfs", "ramfs")

_TRANSFER = struct.Struct("<8sQQQ")
_TRANSFER_MAGIC = b"HVCHILD\x02"
_TRANSFER_END = struct.pack("<Q", 0x00444E4544564848)

Report = Callable[[int, int], None]
"""Told bytes of contents, done and altogether. What it raises ends the work."""


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


def _section_head(name: str, number: int, flags: int, size: int, stored: int, checksum: int) -> bytes:
    head = _SECTION.pack(name.encode(), number, flags, size, stored, checksum)
    return head + _CHECKSUM.pack(zlib.crc32(head))


def _pack_section(name: str, content: bytes, number: int = 0, sums: Optional[bytes] = None) -> bytes:
    packed = zstandard.ZstdCompressor(level=_LEVEL).compress(content)
    stored, flags = (packed, _COMPRESSED) if len(packed) < len(content) else (content, 0)
    checksum = zlib.crc32(stored if sums is None else sums)
    return _section_head(name, number, flags, len(content), len(stored), checksum) + stored


@dataclass
class _Transfer:
    """What ``hv-partition-save`` has written: contents of pages, from the second page of the file on, and the rest."""

    pages: int
    contents: int
    state: bytes
    index: bytes
    sums: bytes

    @classmethod
    def read(cls, file: BinaryIO) -> _Transfer:
        """Read all but the contents.

        Raises:
            ValueError: it is not complete.
        """
        file.seek(0)
        head = file.read(_TRANSFER.size)
        if len(head) < _TRANSFER.size or not head.startswith(_TRANSFER_MAGIC):
            raise ValueError("not a transfer of hv-partition-save")
        _, state_size, pages, contents = _TRANSFER.unpack(head)
        file.seek((1 + contents) * PAGE)
        transfer = cls(pages, contents, file.read(state_size), file.read(pages * 4), file.read(contents * 8))
        if file.read(len(_TRANSFER_END)) != _TRANSFER_END:
            raise ValueError("the transfer has no end")
        return transfer

    def sections_behind(self, pages_sections: int) -> bytes:
        """What stands behind the contents."""
        count = struct.pack("<Q", pages_sections + 3)
        return _pack_section("state", self.state) + _pack_section("index", self.index) + _pack_section("end", count)


class NewFile:
    """A file that comes into being: written beside its name, made durable, and renamed when it is whole.

    ``hv-partition-save`` writes to `transfer_path`, and then :meth:`finish` makes the file. As a context manager it
    takes away what is not finished.
    """

    def __init__(self, path: Path) -> None:
        """Begin.

        Raises:
            UserError: there can be no such file.
        """
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._transfer: Optional[BinaryIO] = None
        try:
            if _file_system(path.parent) not in _IN_MEMORY:
                self._transfer = os.fdopen(os.memfd_create("qemu-hv-save"), "r+b")
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._file: BinaryIO = os.fdopen(os.open(self._temporary, flags, 0o666), "r+b")
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error

    def __enter__(self) -> NewFile:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._file.close()
        if self._transfer is not None:
            self._transfer.close()
        self._temporary.unlink(missing_ok=True)

    @property
    def transfer_path(self) -> str:
        """Where another process finds the file in memory that the transfer goes to: that itself, if it is one."""
        file = self._file if self._transfer is None else self._transfer
        return f"/proc/{os.getpid()}/fd/{file.fileno()}"

    def finish(self, about: dict[str, Any], report: Report) -> dict[str, Any]:
        """Make the file of the transfer; return what its section 'info' says.

        Args:
            about: what it says besides the number of pages and contents.
            report: is told how far it is.

        Raises:
            UserError: the file cannot be written.
            ValueError: there is no complete transfer.
        """
        try:
            transfer = _Transfer.read(self._file if self._transfer is None else self._transfer)
            info = {**about, "pages": transfer.pages, "contents": transfer.contents}
            if self._transfer is None:
                self._complete(transfer)
            else:
                _pack_contents(self._file, self._transfer, transfer, report)
            self._begin(info)
            self._file.flush()
            os.fsync(self._file.fileno())
            os.replace(self._temporary, self._path)
            _sync_folder(self._path.parent)
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror}") from error
        return info

    def _begin(self, info: dict[str, Any]) -> None:
        """Write what stands before the contents. 'info' is filled up, so that those begin at a page."""
        head = _HEAD.pack(_MAGIC, _VERSION, 0)
        content = json.dumps(info, indent=1).encode().ljust(PAGE - _HEADS)
        if len(content) > PAGE - _HEADS:
            raise ValueError("what the file says about itself is too long")
        section = _section_head("info", 0, 0, len(content), len(content), zlib.crc32(content))
        self._file.seek(0)
        self._file.write(head + _CHECKSUM.pack(zlib.crc32(head)) + section + content)

    def _complete(self, transfer: _Transfer) -> None:
        """The contents are where they belong, as one section that is not compressed."""
        size = transfer.contents * PAGE
        self._file.seek(PAGE - _SECTION.size - _CHECKSUM.size)
        self._file.write(_section_head("pages", 0, 0, size, size, zlib.crc32(transfer.sums)))
        self._file.seek(PAGE + size)
        self._file.write(transfer.sections_behind(1))
        self._file.truncate()


def _pack_contents(file: BinaryIO, source: BinaryIO, transfer: _Transfer, report: Report) -> None:
    """Compress the contents on all processors, and write them in order."""
    size, threads = transfer.contents * PAGE, os.cpu_count() or 1
    pending: deque[Future[bytes]] = deque()
    file.seek(PAGE - _SECTION.size - _CHECKSUM.size)

    def pack(number: int) -> bytes:
        at = number * _BLOCK
        content = os.pread(source.fileno(), min(_BLOCK, size - at), PAGE + at)
        return _pack_section("pages", content, number, transfer.sums[at // PAGE * 8 : (at + _BLOCK) // PAGE * 8])

    with ThreadPoolExecutor(threads) as pool:
        blocks = max(1, -(-size // _BLOCK))
        for number in range(blocks):
            pending.append(pool.submit(pack, number))
            while len(pending) > (2 * threads if number + 1 < blocks else 0):
                report((number + 1 - len(pending)) * _BLOCK, blocks * _BLOCK)
                file.write(pending.popleft().result())
    file.write(transfer.sections_behind(blocks))


def _file_system(folder: Path) -> str:
    """The kind of file system that a folder is in; "" when the system does not tell."""
    device = os.stat(folder).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        mount, _, source = line.partition(" - ")
        if mount.split()[2] == number:
            return source.split()[0]
    return ""


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
    sums: bytes = field(repr=False)

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
        sums: list[bytes] = []
        for section in sections:
            if section.name == "pages":
                sums.append(_checked_sums(path, file, section))
            else:
                whole[section.name] = _content(path, file, section)
        _check_order(path, sections, whole)
        info = _info(path, whole["info"])
        saved = cls(path, version, sections, info, whole["state"], whole["index"], b"".join(sums))
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
        """The contents of pages, some at a time."""
        with open(self.path, "rb") as file:
            for section in self.sections:
                if section.name == "pages":
                    yield from _pages(self.path, file, section)

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
        in_memory = text != "pages" or flags & _COMPRESSED
        if (in_memory and max(size, stored) > _LARGEST) or flags & ~_COMPRESSED:
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
    stored = _stored(path, file, section)
    if zlib.crc32(stored) != section.checksum:
        raise _damaged(path, section)
    return _unpacked(path, section, stored)


def _stored(path: Path, file: BinaryIO, section: Section) -> bytes:
    file.seek(section.position)
    stored = file.read(section.stored)
    if len(stored) != section.stored:
        raise _damaged(path, section)
    return stored


def _unpacked(path: Path, section: Section, stored: bytes) -> bytes:
    content = stored
    if section.compressed:
        try:
            content = zstandard.ZstdDecompressor().decompress(stored, max_output_size=section.size)
        except zstandard.ZstdError as error:
            raise _damaged(path, section) from error
    if len(content) != section.size:
        raise _damaged(path, section)
    return content


def _pages(path: Path, file: BinaryIO, section: Section) -> Iterator[bytes]:
    """The content of a section 'pages', which is not checked here."""
    if section.compressed:
        yield _unpacked(path, section, _stored(path, file, section))
        return
    if section.size != section.stored:
        raise _damaged(path, section)
    for at in range(0, section.size, _BLOCK):
        file.seek(section.position + at)
        yield file.read(min(_BLOCK, section.size - at))


def _checked_sums(path: Path, file: BinaryIO, section: Section) -> bytes:
    """The hashes of a section's pages, which are what its checksum is of."""
    sums = []
    for part in _pages(path, file, section):
        view = memoryview(part)
        sums += [xxhash.xxh64_intdigest(view[at : at + PAGE]) for at in range(0, len(part), PAGE)]
    packed = struct.pack(f"<{len(sums)}Q", *sums)
    if zlib.crc32(packed) != section.checksum:
        raise _damaged(path, section)
    return packed


def _check_order(path: Path, sections: list[Section], whole: dict[str, bytes]) -> None:
    names = [section.name for section in sections]
    expected = ["info", *["pages"] * max(1, len(names) - 4), "state", "index", "end"]
    for name, due in zip(names, expected):
        if name != due:
            raise UserError(f"{path}: section '{name}' is where section '{due}' should be")
    if len(names) < 5:
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


def write_transfer(saved: SavedChild, file: BinaryIO, report: Report) -> None:
    """Write what ``hv-partition-restore`` reads."""
    pages, contents = saved.info["pages"], saved.info["contents"]
    file.write(_TRANSFER.pack(_TRANSFER_MAGIC, len(saved.state), pages, contents).ljust(PAGE, b"\0"))
    done = 0
    for block in saved.blocks():
        file.write(block)
        done += len(block)
        report(done, contents * PAGE)
    for part in (saved.state, saved.index, saved.sums, _TRANSFER_END):
        file.write(part)
    file.flush()
