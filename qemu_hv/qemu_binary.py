# SPDX-License-Identifier: GPL-2.0-or-later
"""Which QEMU to run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Union

from .errors import UserError

__all__ = ["QemuBinary", "find_qemu"]


@dataclass(frozen=True)
class QemuBinary:
    """A QEMU that can be run.

    Attributes:
        path: the executable.
        firmware_dirs: folders for -L, in order; none: QEMU's own.
        environment: variables it needs, besides ours.
    """

    path: Path
    firmware_dirs: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def find_qemu(given: Optional[Union[str, Path, QemuBinary]] = None) -> QemuBinary:
    """Return the QEMU to run.

    That is the one given; else the one that QEMU_HV_QEMU names, with QEMU_HV_MODULE_DIR as its
    folder of modules and QEMU_HV_FIRMWARE as its folders of firmware (separated as in PATH); else
    the one of `qemu_hv.build`.

    Raises:
        UserError: there is none.
    """
    if isinstance(given, QemuBinary):
        return given
    if given is not None:
        return _explicit(str(given), "the given QEMU")
    named = os.environ.get("QEMU_HV_QEMU")
    if named:
        return _explicit(named, "QEMU_HV_QEMU")
    return _built()


def _explicit(name: str, origin: str) -> QemuBinary:
    found = shutil.which(name)
    if found is None:
        raise UserError(f"{origin} is not an executable file: {name}")
    environment = {}
    modules = os.environ.get("QEMU_HV_MODULE_DIR")
    if modules:
        environment["QEMU_MODULE_DIR"] = modules
    firmware = os.environ.get("QEMU_HV_FIRMWARE", "")
    folders = tuple(Path(folder) for folder in firmware.split(os.pathsep) if folder)
    return QemuBinary(Path(found).absolute(), folders, environment)


def _built() -> QemuBinary:
    from . import build  # only here: an explicit binary needs none of it

    built = build.ensure()
    return QemuBinary(built.path, tuple(built.firmware_dirs), dict(built.environment))
