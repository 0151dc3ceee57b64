# SPDX-License-Identifier: GPL-2.0-or-later
"""How QEMU is configured, and with which tools it is built."""

from __future__ import annotations

import shutil
import subprocess

from ..errors import UserError

__all__ = ["CONFIGURE_ARGUMENTS", "RECIPE", "TARGET", "require_tools", "toolchain"]

RECIPE = "1"
"""Version of what this package does to build and install QEMU; part of every key."""

TARGET = "x86_64"

CONFIGURE_ARGUMENTS = (
    "--target-list=x86_64-softmmu",
    "--without-default-features",
    "--enable-system",
    "--enable-tcg",
    "--enable-kvm",
    "--enable-modules",
    "--enable-slirp",
    "--disable-docs",
    "--disable-install-blobs",
    "--disable-download",
    # Checks of QEMU's own casts, a few percent of what a VP costs when it enters or leaves the guest.
    "--disable-qom-cast-debug",
    # A third of the objects' size; symbol names stay, so perf and backtraces work.
    "--disable-debug-info",
    # The tree is installed as bin, lib, share under one folder; QEMU finds the others from bin.
    "--prefix=/usr",
    "--libdir=lib",
)
"""Arguments of QEMU's configure. Not --disable-pie: modules then fail to link."""

_TOOLS = {
    "cc": "gcc",
    "c++": "g++",
    "ninja": "ninja-build",
    "pkg-config": "pkg-config",
    "patch": "patch",
    "make": "make",
    "flex": "flex",
    "bison": "bison",
}
_LIBRARIES = {
    "glib-2.0": "libglib2.0-dev",
    "pixman-1": "libpixman-1-dev",
    "zlib": "zlib1g-dev",
    "slirp": "libslirp-dev",
}
# libfdt has no pkg-config file in Debian 12.
_HEADERS = {"libfdt.h": "libfdt-dev"}


def require_tools() -> None:
    """Check that all that building QEMU needs is installed.

    Raises:
        UserError: names the Debian packages that are missing.
    """
    missing = [package for tool, package in _TOOLS.items() if shutil.which(tool) is None]
    if shutil.which("pkg-config") is not None and not _exist(*_LIBRARIES):
        missing += [package for library, package in _LIBRARIES.items() if not _exist(library)]
    if shutil.which("cc") is not None:
        missing += [package for header, package in _HEADERS.items() if not _has_header(header)]
    if missing:
        raise UserError(
            "building QEMU needs programs or libraries that are missing; "
            f"install them, as root: apt-get install {' '.join(missing)}"
        )


def _exist(*libraries: str) -> bool:
    return subprocess.run(["pkg-config", "--exists", *libraries], check=False).returncode == 0


def _has_header(name: str) -> bool:
    command = ["cc", "-E", "-x", "c", "-include", name, "/dev/null"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def toolchain() -> str:
    """Describe the compiler and the libraries: another description means another build."""
    commands = (
        ["cc", "-dumpfullversion", "-dumpmachine"],
        ["pkg-config", "--modversion", *_LIBRARIES],
    )
    return "\n".join(
        subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        for command in commands
        if shutil.which(command[0]) is not None
    )
