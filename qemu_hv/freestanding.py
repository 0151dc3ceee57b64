# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs without an operating system, as ELF images that QEMU's ``-kernel`` starts.

They are C files compiled with the runtime of ``tests/guests/runtime``; programs for the root partition also with the
library of ``tests/guests/lib``. gcc and binutils are all it takes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from . import cache, resources
from .errors import UserError

__all__ = ["build", "build_example", "library", "runtime"]

# General registers only: interrupt handlers then need not save XMM registers. Declaration order is the order of checks.
_COMPILE_FLAGS = (
    "-std=gnu11 -O2 -g -ffreestanding -nostdlib -static -fno-pic -fno-pie -no-pie -fno-stack-protector "
    "-mgeneral-regs-only -fno-toplevel-reorder -fcf-protection=none -fno-asynchronous-unwind-tables "
    "-Wall -Wextra -Werror"
).split()
_WIDTH_FLAGS = {64: ["-m64", "-mno-red-zone"], 32: ["-m32"]}
_LINK_FLAGS = "-Wl,--build-id=none -Wl,-z,noexecstack -Wl,--no-warn-rwx-segments".split()


def runtime() -> Path:
    """Return the folder of the runtime that every program is compiled with."""
    return resources.source_root() / "tests" / "guests" / "runtime"


def library() -> Path:
    """Return the folder of the library for code in the root partition."""
    return resources.source_root() / "tests" / "guests" / "lib"


def build(
    name: str, sources: Sequence[Path], bits: int = 64, root: bool = False, extra_flags: Sequence[str] = ()
) -> Path:
    """Compile C files with the runtime, or take the result from the cache.

    Args:
        name: of the program, for the file's name and messages.
        sources: its C files.
        bits: width of its code, 32 or 64.
        root: whether it is for the root partition and so needs the library.
        extra_flags: for the compiler, such as -D definitions.

    Returns:
        The ELF file.

    Raises:
        UserError: there is no compiler, or it finds an error (its output is in the message).
    """
    folders = [runtime(), library()] if root else [runtime()]
    tables = resources.csrc() / "hv" / "tlfs"
    includes = [*folders, tables] if root else folders
    script = runtime() / "guest.ld"
    compiled = [*sources, *_all(folders, "*.c"), *_all(folders, "*.S")]
    own_headers = sorted({header for source in sources for header in source.parent.glob("*.h")})
    dependencies = [*compiled, *own_headers, *_all(folders, "*.h"), script]
    if root:
        dependencies += sorted(tables.glob("*.def"))
    command = [
        _find_compiler(),
        *_WIDTH_FLAGS[bits],
        *_COMPILE_FLAGS,
        *extra_flags,
        *(f"-I{folder}" for folder in includes),
        f"-Wl,-T,{script}",
        *_LINK_FLAGS,
        *map(str, compiled),
    ]
    folder = cache.root() / "guests" / _key(command, dependencies)
    path = folder / f"{name}{bits}.elf"
    if not path.exists():
        with cache.atomic_directory(folder) as temporary:
            _compile([*command, "-o", str(temporary / path.name)], str(sources[0]) if len(sources) == 1 else name)
    return path


def build_example(name: str) -> Path:
    """Compile one of the programs in ``examples/``, all of which are for the root partition."""
    sources = sorted((resources.source_root() / "examples" / name).glob("*.c"))
    return build(name, sources, root=True)


def _all(folders: Iterable[Path], pattern: str) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.glob(pattern))]


def _find_compiler() -> str:
    name = os.environ.get("CC", "gcc")
    found = shutil.which(name)
    if found is None:
        raise UserError(f"this needs a C compiler and there is no {name}; install gcc or set CC")
    return found


def _key(command: Iterable[str], dependencies: Iterable[Path]) -> str:
    parts: list[bytes] = [path.read_bytes() for path in dependencies]
    return cache.digest(*command, *parts)


def _compile(command: list[str], name: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UserError(f"{name} does not compile:\n{done.stderr}")
