# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's pristine source: from Debian, a tarball or a folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .. import cache
from ..apt import Suite
from ..errors import UserError
from ..progress import say

__all__ = ["DEBIAN", "Source", "obtain"]

DEBIAN = "debian"
"""The source that is used unless another is named."""

_SUITE = "trixie"
_SERIES = "10.0"
_UNPACKED_SIZE = 700_000_000
# Firmware's own sources: two thirds of the tree, and never built here.
_UNUSED = ("roms", "tests/lcitool", "debian")
_NOT_COPIED = (".git", "build", "__pycache__", "roms")


@dataclass(frozen=True)
class Source:
    """An unpacked, unmodified source tree of QEMU.

    Attributes:
        version: QEMU's version, such as "10.0.13".
        identity: tells this source from others; part of every key.
        path: the tree. Nobody writes to it.
        origin: where it came from, for people.
    """

    version: str
    identity: str
    path: Path
    origin: str


def obtain(name: str = DEBIAN, refresh: bool = False) -> Source:
    """Return a source tree, fetching and unpacking it if the cache does not hold it.

    Args:
        name: "debian" for the source package of Debian's stable suite, else the path of a release
            tarball or of an unpacked tree.
        refresh: ask Debian's archive for a newer 10.0.x instead of using the one fetched before.

    Raises:
        UserError: it cannot be fetched or read, or it is not a QEMU 10.0.x.
    """
    with cache.Lock(cache.root() / "sources" / "lock", "unpacking QEMU's source"):
        if name == DEBIAN:
            return _from_debian(refresh)
        path = Path(name)
        if path.is_dir():
            return _from_folder(path)
        if path.is_file():
            return _from_tarball(path)
    raise UserError(f"QEMU's source {name} is neither a folder, nor a file, nor the word 'debian'")


def _sources() -> Path:
    return cache.root() / "sources"


def _check_version(version: str, origin: str) -> str:
    """Return the version if the patches are made for it."""
    if re.fullmatch(re.escape(_SERIES) + r"(\.\d+)?", version) is None:
        raise UserError(f"{origin} is QEMU {version}, but the patches are for {_SERIES}.x; give a {_SERIES}.x source")
    return version


def _read_version(tree: Path, origin: str) -> str:
    file = tree / "VERSION"
    if not file.is_file() or not (tree / "configure").is_file():
        raise UserError(f"{origin} is not QEMU's source: it lacks VERSION or configure")
    return _check_version(file.read_text(encoding="utf-8").strip(), origin)


def _adopt(unpacked: Path, identity: str, origin: str) -> Source:
    """Make an unpacked tree the cached one."""
    version = _read_version(unpacked, origin)
    for name in _UNUSED:
        shutil.rmtree(unpacked / name, ignore_errors=True)
    target = _sources() / identity
    unpacked.rename(target)
    return Source(version, identity, target, origin)


def _cached(identity: str, origin: str) -> Source:
    path = _sources() / identity
    return Source(_read_version(path, origin), identity, path, origin)


def _from_debian(refresh: bool) -> Source:
    record = _sources() / "debian.json"
    if record.is_file() and not refresh:
        known = json.loads(record.read_text(encoding="utf-8"))
        if (_sources() / known["identity"]).is_dir():
            return _cached(known["identity"], f"Debian's qemu {known['version']}")
    suite = Suite(_SUITE, source=True)
    if refresh:
        suite.refresh(force=True)
    version = suite.source_version("qemu")
    origin = f"Debian's qemu {version}"
    # 1:10.0.13+ds-0+deb13u1: without epoch, repacking and Debian revision.
    _check_version(re.sub(r"^\d+:|[+-].*$", "", version), origin)
    identity = "debian-" + re.sub(r"[^\w.+-]", "-", version.partition(":")[2] or version)
    source = _cached(identity, origin) if (_sources() / identity).is_dir() else _fetch_debian(suite, identity, origin)
    record.write_text(json.dumps({"identity": identity, "version": version}), encoding="utf-8")
    return source


def _fetch_debian(suite: Suite, identity: str, origin: str) -> Source:
    cache.require_free_space(_sources(), _UNPACKED_SIZE, "unpacking QEMU's source")
    with tempfile.TemporaryDirectory(prefix=".fetch.", dir=_sources()) as folder:
        say(f"fetching {origin} (40 MB)")
        description = suite.download_source("qemu", Path(folder))
        say(f"unpacking {origin}")
        tree = Path(folder, "tree")
        # Without --no-check it would ask for the uploader's key; apt has checked the files already.
        command = ["dpkg-source", "--no-check", "-x", str(description), str(tree)]
        try:
            result = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise UserError("dpkg-source is missing; install the package dpkg-dev") from error
        if result.returncode != 0:
            raise UserError(f"cannot unpack {origin}: {_last_line(result.stderr)}")
        return _adopt(tree, identity, origin)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def _from_tarball(path: Path) -> Source:
    checksum = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            checksum.update(block)
    identity = f"tarball-{checksum.hexdigest()[:16]}"
    if (_sources() / identity).is_dir():
        return _cached(identity, str(path))
    cache.require_free_space(_sources(), 2 * _UNPACKED_SIZE, "unpacking QEMU's source")
    with tempfile.TemporaryDirectory(prefix=".unpack.", dir=_sources()) as folder:
        say(f"unpacking {path}")
        result = subprocess.run(
            ["tar", "-xf", str(path.absolute()), "-C", folder],
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            known = tarfile.is_tarfile(path)
            raise UserError(
                f"cannot unpack {path}: {_last_line(result.stderr)}" if known else f"{path} is not a tarball"
            )
        trees = [entry for entry in Path(folder).iterdir() if entry.is_dir()]
        if len(trees) != 1:
            raise UserError(f"{path} is not QEMU's source: it holds {len(trees)} folders, not one")
        return _adopt(trees[0], identity, str(path))


def _from_folder(path: Path) -> Source:
    _read_version(path, str(path))
    parts = []
    for base, names, files in os.walk(path):
        names[:] = sorted(name for name in names if name not in _NOT_COPIED)
        for name in sorted(files):
            status = os.lstat(os.path.join(base, name))
            parts.append(f"{base}/{name} {status.st_size} {status.st_mtime_ns}")
    identity = f"folder-{cache.digest(*parts)}"
    if (_sources() / identity).is_dir():
        return _cached(identity, str(path))
    cache.require_free_space(_sources(), _UNPACKED_SIZE, "copying QEMU's source")
    with tempfile.TemporaryDirectory(prefix=".copy.", dir=_sources()) as folder:
        say(f"copying {path}")
        tree = Path(folder, "tree")
        ignored = shutil.ignore_patterns(*_NOT_COPIED)
        shutil.copytree(path, tree, symlinks=True, ignore=ignored)
        return _adopt(tree, identity, str(path))
