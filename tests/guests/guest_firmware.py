# SPDX-License-Identifier: GPL-2.0-or-later
"""The least of a firmware (firmware/firmware.S): for hosts whose KVM takes many seconds for a real one."""

from __future__ import annotations

import functools
import os
import struct
import subprocess
import tempfile
from pathlib import Path

from qemu_hv import blob

__all__ = ["start_arguments"]

SOURCE = Path(__file__).resolve().parent / "firmware" / "firmware.S"
BASE = 0xFFFF0000
DATA = 0x1000
RAM = 1
# The fields of hvm_start_info (version 1) and of its memory map, as the runtime's boot.c has them.
_START_INFO = struct.Struct("<IIIIQQQQII")
_MAGIC = 0x336EC578
_RANGE = struct.Struct("<QQII")
_ELF_ENTRY = struct.Struct("<24xI")


@functools.cache
def _code() -> bytes:
    """Return the firmware without its data."""
    flags = f"-m32 -nostdlib -static -Wl,--build-id=none,--oformat=binary,-e,0,-Ttext={BASE:#x}".split()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "firmware.bin"
        subprocess.run([os.environ.get("CC", "gcc"), *flags, "-o", path, SOURCE], check=True)
        return path.read_bytes()


def _data(entry: int, command_line: str, memory: int) -> bytes:
    ranges = _RANGE.pack(0, 0xA0000, RAM, 0) + _RANGE.pack(1 << 20, (memory - 1) << 20, RAM, 0)
    at_ranges = BASE + DATA + 4 + _START_INFO.size
    at_words = at_ranges + len(ranges)
    info = _START_INFO.pack(_MAGIC, 1, 0, 0, 0, at_words, 0, at_ranges, len(ranges) // _RANGE.size, 0)
    return struct.pack("<I", entry) + info + ranges + command_line.encode() + b"\0"


def start_arguments(image: Path, command_line: str, memory: int) -> list[str]:
    """Return QEMU's arguments for starting an image without a PC's firmware, in the place of -kernel and -append.

    Args:
        image: the guest's ELF file.
        command_line: its.
        memory: size of the machine's RAM in MiB.
    """
    code, data = _code(), _data(_ELF_ENTRY.unpack_from(image.read_bytes())[0], command_line, memory)
    content = code[:DATA] + data + code[DATA + len(data) :]
    return ["-bios", str(blob.store(content, ".bin")), "-device", f"loader,file={image}"]
