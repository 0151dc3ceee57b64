# SPDX-License-Identifier: GPL-2.0-or-later
"""Test guests as images: compiled from C with the runtime, and their table of checks."""

from __future__ import annotations

import functools
import os
import shutil
import struct
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from elftools.elf.elffile import ELFFile

from qemu_hv import cache
from qemu_hv.errors import UserError

__all__ = [
    "CHECK_PARALLEL",
    "GENERATION_2008R2",
    "GENERATION_CURRENT",
    "RUNTIME",
    "Check",
    "Image",
    "build_image",
]

HERE = Path(__file__).resolve().parent
RUNTIME = HERE / "runtime"

# runtime/check.h
GENERATION_2008R2 = 0x1
GENERATION_CURRENT = 0x2
CHECK_PARALLEL = 0x2

_CHECK_SECTION = "guest_checks"
_CHECK_ENTRY = struct.Struct("<64s128sIIIIQQ")

# General registers only: interrupt handlers then need not save XMM registers. Declaration order is the order of checks.
_COMPILE_FLAGS = (
    "-std=gnu11 -O2 -g -ffreestanding -nostdlib -static -fno-pic -fno-pie -no-pie -fno-stack-protector "
    "-mgeneral-regs-only -fno-toplevel-reorder -fcf-protection=none -fno-asynchronous-unwind-tables "
    "-Wall -Wextra -Werror"
).split()
_WIDTH_FLAGS = {64: ["-m64", "-mno-red-zone"], 32: ["-m32"]}
_LINK_FLAGS = "-Wl,--build-id=none -Wl,-z,noexecstack -Wl,--no-warn-rwx-segments".split()


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
def build_image(source: Path, bits: int, extra_flags: tuple[str, ...] = ()) -> Image:
    """Compile one C file with the runtime, or take the result from the cache.

    Args:
        source: the guest's C file.
        bits: width of its code, 32 or 64.
        extra_flags: for the compiler, such as -D definitions.

    Raises:
        UserError: there is no compiler, or it finds an error (its output is in the message).
    """
    compiler = _find_compiler()
    sources = [source, *sorted(RUNTIME.glob("*.c")), *sorted(RUNTIME.glob("*.S"))]
    dependencies = [*sources, *sorted(RUNTIME.glob("*.h")), RUNTIME / "guest.ld"]
    command = [
        compiler,
        *_WIDTH_FLAGS[bits],
        *_COMPILE_FLAGS,
        *extra_flags,
        f"-I{RUNTIME}",
        f"-Wl,-T,{RUNTIME / 'guest.ld'}",
        *_LINK_FLAGS,
        *map(str, sources),
    ]
    folder = cache.root() / "guests" / _key(command, dependencies)
    path = folder / f"{source.stem}{bits}.elf"
    if not path.exists():
        with cache.atomic_directory(folder) as temporary:
            _compile([*command, "-o", str(temporary / path.name)], source)
    return Image(source.stem, bits, path, _read_checks(path))


def _find_compiler() -> str:
    name = os.environ.get("CC", "gcc")
    found = shutil.which(name)
    if found is None:
        raise UserError(f"the test guests need a C compiler and there is no {name}; install gcc or set CC")
    return found


def _key(command: Iterable[str], dependencies: Iterable[Path]) -> str:
    parts: list[bytes] = [path.read_bytes() for path in dependencies]
    return cache.digest(*command, *parts)


def _compile(command: list[str], source: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UserError(f"{source} does not compile:\n{done.stderr}")


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
