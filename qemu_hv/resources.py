# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the project's own patches and C sources lie."""

from __future__ import annotations

from pathlib import Path

__all__ = ["csrc", "patches", "source_root"]

_PACKAGE = Path(__file__).resolve().parent


def source_root() -> Path:
    """Return the folder that holds ``patches/``, ``csrc/`` and what else is compiled on the user's machine.

    In a wheel it is inside the package (``setup.py`` puts it there); in a checkout it is the
    checkout.
    """
    packaged = _PACKAGE / "_source"
    return packaged if packaged.is_dir() else _PACKAGE.parent


def patches() -> Path:
    """Return the folder of the patch series for QEMU 10.0."""
    return source_root() / "patches" / "qemu-10.0"


def csrc() -> Path:
    """Return the folder of the C and C++ sources."""
    return source_root() / "csrc"
