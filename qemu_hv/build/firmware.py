# SPDX-License-Identifier: GPL-2.0-or-later
"""The firmware that an x86 machine of QEMU loads.

A release tarball holds it; Debian's source does not, so it comes from Debian's binary packages of
the same suite, which are unpacked and not installed.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from .. import cache
from ..apt import Suite, extract
from ..errors import UserError
from ..progress import say
from .source import Source

__all__ = ["files", "obtain"]

_SUITE = "trixie"
# Package and the folder of its firmware.
_PACKAGES = (
    ("seabios", "usr/share/seabios"),
    ("ipxe-qemu", "usr/share/qemu"),
    ("qemu-system-data", "usr/share/qemu"),
)
_SUFFIXES = (".bin", ".rom")
_REQUIRED = ("bios-256k.bin", "vgabios-stdvga.bin", "linuxboot_dma.bin", "efi-virtio.rom")


def obtain(source: Source) -> Path:
    """Return the folder of the firmware for a QEMU of this source, fetching it if need be.

    Raises:
        UserError: it cannot be fetched.
    """
    bundled = source.path / "pc-bios"
    if all((bundled / name).is_file() for name in _REQUIRED):
        return bundled
    target = cache.root() / "firmware" / f"debian-{_SUITE}"
    with cache.Lock(cache.root() / "firmware" / "lock", "fetching firmware"):
        if not target.is_dir():
            with cache.atomic_directory(target) as temporary:
                _fetch(temporary)
    return target


def _fetch(target: Path) -> None:
    suite = Suite(_SUITE)
    suite.refresh()
    with tempfile.TemporaryDirectory(prefix=".fetch.", dir=target.parent) as name:
        scratch = Path(name)
        for package, folder in _PACKAGES:
            say(f"fetching firmware: Debian's {package}")
            content = scratch / package
            content.mkdir()
            extract(suite.download(package, scratch), content)
            for file in files(content / folder):
                shutil.copyfile(file, target / file.name)
    missing = [name for name in _REQUIRED if not (target / name).is_file()]
    if missing:
        raise UserError(
            f"Debian's firmware packages of {_SUITE} lack {', '.join(missing)}; "
            "give QEMU's source as a release tarball, which holds them: --source TARBALL"
        )


def files(folder: Path) -> list[Path]:
    """Return the firmware in a folder. Links lead into other packages, which are used themselves."""
    return sorted(
        path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file() and not path.is_symlink()
    )
