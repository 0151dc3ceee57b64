# SPDX-License-Identifier: GPL-2.0-or-later
"""Named parts in one file: what a program in the root partition gets by QEMU's ``-initrd``.

The layout is described where it is read, in ``tests/guests/lib/blob.h``.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path

from . import cache

__all__ = ["file", "pack", "store"]

_MAGIC = b"HVBLOB1\0"
_HEADER = struct.Struct("<8sII")
_ENTRY = struct.Struct("<16sQQ")
_ALIGNMENT = 4096


def pack(parts: Mapping[str, bytes]) -> bytes:
    """Return the blob that holds these parts, by name.

    Raises:
        ValueError: a name is not 1 to 16 ASCII characters.
    """
    table = bytearray(_HEADER.pack(_MAGIC, len(parts), 0))
    data = bytearray()
    begin = _aligned(_HEADER.size + len(parts) * _ENTRY.size)
    for name, content in parts.items():
        encoded = name.encode("ascii", "replace")
        if not name.isascii() or not 1 <= len(encoded) <= 16:
            raise ValueError(f"{name!r} is no name for a part of a blob")
        table += _ENTRY.pack(encoded, begin + len(data), len(content))
        data += content + b"\0" * (_aligned(len(content)) - len(content))
    return bytes(table) + b"\0" * (begin - len(table)) + bytes(data)


def file(parts: Mapping[str, bytes]) -> Path:
    """Return a file in the cache that holds the blob of these parts."""
    return store(pack(parts), ".blob")


def store(data: bytes, suffix: str) -> Path:
    """Return a file in the cache that holds these bytes and whose name ends with the suffix."""
    path = cache.root() / "blobs" / f"{cache.digest(data)}{suffix}"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_bytes(data)
        temporary.replace(path)
    return path


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
