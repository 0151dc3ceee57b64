# SPDX-License-Identifier: GPL-2.0-or-later
"""Test guests as images: compiled from C with the runtime, and their table of checks."""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from elftools.elf.elffile import ELFFile

from qemu_hv import freestanding

__all__ = [
    "CHECK_PARALLEL",
    "CHECK_RESETS",
    "GENERATION_2008R2",
    "GENERATION_CURRENT",
    "LOADER",
    "ROOT_PROGRAMS",
    "RUNTIME",
    "Check",
    "Image",
    "build_image",
]

HERE = Path(__file__).resolve().parent
RUNTIME = HERE / "runtime"
# Programs for the root partition, and the one that runs a guest in a child partition.
ROOT_PROGRAMS = HERE / "root"
LOADER = HERE / "loader" / "child_loader.c"

# runtime/check.h
GENERATION_2008R2 = 0x1
GENERATION_CURRENT = 0x2
CHECK_RESETS = 0x1
CHECK_PARALLEL = 0x2

_CHECK_SECTION = "guest_checks"
_CHECK_ENTRY = struct.Struct("<64s128sIIIIQQ")


@dataclass(frozen=True)
class Check:
    """One entry of a guest's table.

    Attributes:
        name: unique in the guest.
        section: what it checks: a section of the TLFS, or a sentence.
        min_vps, max_vps: number of VPs it makes sense with; a maximum of 0 is none.
        generations: bits GENERATION_*; 0 is all.
        flags: bits CHECK_*.
    """

    name: str
    section: str
    min_vps: int
    max_vps: int
    generations: int
    flags: int

    def applies(self, vps: int, generation: int, parallel: bool) -> bool:
        """Whether the guest runs this check in such a machine: the rule of runtime/check.c."""
        return (
            self.min_vps <= vps
            and (self.max_vps == 0 or vps <= self.max_vps)
            and (self.generations == 0 or bool(self.generations & generation))
            and (parallel or not self.flags & CHECK_PARALLEL)
        )


@dataclass(frozen=True)
class Image:
    """A guest that QEMU's -kernel takes.

    Attributes:
        name: of the guest, for messages.
        bits: 32 or 64.
        path: the ELF file.
        checks: its table, in the order in which they run.
    """

    name: str
    bits: int
    path: Path
    checks: tuple[Check, ...]


@functools.cache
def build_image(source: Path, bits: int, extra_flags: tuple[str, ...] = (), root: bool = False) -> Image:
    """Compile one C file with the runtime, or take the result from the cache.

    Args:
        source: the guest's C file.
        bits: width of its code, 32 or 64.
        extra_flags: for the compiler, such as -D definitions.
        root: whether it is a program for the root partition, which has a library of its own.

    Raises:
        UserError: there is no compiler, or it finds an error (its output is in the message).
    """
    path = freestanding.build(source.stem, [source], bits, root, extra_flags)
    return Image(source.stem, bits, path, _read_checks(path))


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("ascii")


def _read_checks(path: Path) -> tuple[Check, ...]:
    with path.open("rb") as file:
        section: Optional[bytes] = None
        found = ELFFile(file).get_section_by_name(_CHECK_SECTION)
        if found is not None:
            section = found.data()
    entries = _CHECK_ENTRY.iter_unpack(section or b"")
    return tuple(Check(_text(name), _text(rule), *numbers) for name, rule, *numbers, _, _ in entries)
