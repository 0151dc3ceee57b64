# SPDX-License-Identifier: GPL-2.0-or-later
"""Booting a kernel in a child partition: the machine becomes the root, with ``examples/minivmm`` in it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from . import blob, freestanding
from .errors import UserError
from .machine import MachineOptions

__all__ = ["MAX_VPS", "in_child", "parse_mebibytes"]

# examples/minivmm/vmm.h
MAX_VPS = 4
LEAST_MEBIBYTES = 64
MOST_MEBIBYTES = 1536

# What the root needs besides the child's memory and the blob: the runtime's own, which is the lower 112 MiB
# (tests/guests/runtime/layout.h), the partitions' pools, and the firmware's tables.
_ROOT_MEBIBYTES = 144

_SIZE = re.compile(r"(\d+)([MG])")


def parse_mebibytes(text: str) -> int:
    """Return the size that QEMU's -m would take as MiB.

    Raises:
        UserError: it is not of the form 512, 512M or 2G.
    """
    match = _SIZE.fullmatch(text if text[-1:] in "MG" else f"{text}M")
    if match is None:
        raise UserError(f"{text!r} is no size of memory such as 512M")
    return int(match[1]) * (1024 if match[2] == "G" else 1)


def in_child(options: MachineOptions) -> MachineOptions:
    """Return a machine that boots in a child partition what `options` would boot directly.

    The child gets the number of VPs and the memory that `options` has, and the root as many VPs of its own.

    Raises:
        UserError: the child cannot have that many VPs or that much memory, or something needed cannot be read.
    """
    memory = parse_mebibytes(options.memory)
    if not 1 <= options.smp <= MAX_VPS:
        raise UserError(f"a child can have 1 to {MAX_VPS} VPs, not {options.smp}")
    if not LEAST_MEBIBYTES <= memory <= MOST_MEBIBYTES:
        raise UserError(f"a child can have {LEAST_MEBIBYTES} to {MOST_MEBIBYTES} MiB, not {memory}")
    packed = _pack(options, memory)
    size = -(-packed.stat().st_size >> 20)
    return replace(
        options,
        kernel=freestanding.build_example("minivmm"),
        initrd=packed,
        append=None,
        memory=f"{memory + size + _ROOT_MEBIBYTES}M",
        hypervisor={"role": "root", **(options.hypervisor or {})},
        # The runtime's way out when it finds that it cannot go on.
        extra=["-device", "isa-debug-exit,iobase=0xf4,iosize=1", *options.extra],
    )


def _pack(options: MachineOptions, memory: int) -> Path:
    """Return the file of what minivmm is to boot."""
    if options.kernel is None:
        raise UserError("a child needs a kernel")
    parts = {
        "kernel": _read(options.kernel),
        "cmdline": (options.append or "").encode(),
        "vps": str(options.smp).encode(),
        "memory": str(memory).encode(),
    }
    if options.initrd is not None:
        parts["initrd"] = _read(options.initrd)
    return blob.file(parts)


def _read(name: object) -> bytes:
    try:
        return Path(str(name)).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror}") from error
