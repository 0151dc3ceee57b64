# SPDX-License-Identifier: GPL-2.0-or-later
"""Stock Debian kernels, fetched into the cache and not installed.

The *cloud* flavour is used: it has what a virtual machine needs and is small. Until 6.19 a kernel
is one package, ``linux-image-VERSION``; since 7.0 it is split into ``linux-binary-VERSION``,
``linux-modules-VERSION`` and ``linux-base-VERSION``. Each image comes signed and unsigned; it is the
same kernel, and an index has one of the two or both.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from . import cache
from .apt import Suite, extract
from .errors import UserError
from .progress import say

__all__ = ["DEFAULT", "Kernel", "available", "cached", "get"]

DEFAULT = "default"


@dataclass(frozen=True)
class _Choice:
    """Where a kernel comes from: the newest whose version starts so, in any of the suites."""

    version: str
    suites: tuple[str, ...]


_CHOICES = {
    DEFAULT: _Choice("6.12", ("trixie",)),
    "6.1": _Choice("6.1", ("bookworm",)),
    "6.12": _Choice("6.12", ("trixie", "bookworm-backports")),
    "7": _Choice("7", ("trixie-backports", "bookworm-backports")),
}


@dataclass(frozen=True)
class Kernel:
    """A kernel in the cache.

    Attributes:
        version: its release as ``uname -r`` gives it, such as "6.12.43+deb13-cloud-amd64".
        path: the folder of the unpacked package.
    """

    version: str
    path: Path

    @property
    def vmlinuz(self) -> Path:
        """The kernel image, for QEMU's ``-kernel``."""
        return self._either(self.path / "boot" / f"vmlinuz-{self.version}", self.modules_dir / "vmlinuz")

    @property
    def config(self) -> Path:
        """The configuration that it was built with."""
        return self._either(self.path / "boot" / f"config-{self.version}", self.modules_dir / "config")

    @property
    def modules_dir(self) -> Path:
        """The folder that is ``/lib/modules/VERSION`` where the kernel is installed."""
        return self._either(
            self.path / "usr" / "lib" / "modules" / self.version,
            self.path / "lib" / "modules" / self.version,
        )

    @staticmethod
    def _either(first: Path, second: Path) -> Path:
        return first if first.exists() else second


@dataclass(frozen=True)
class _Candidate:
    """A kernel that an index names: the packages to try for its image, and those it also needs."""

    version: str
    suite: Suite
    images: tuple[str, ...]
    others: tuple[str, ...]


def available() -> list[str]:
    """Return the names that :func:`get` takes."""
    return list(_CHOICES)


def get(name: str = DEFAULT, refresh: bool = False) -> Kernel:
    """Return a kernel, fetching it if the cache does not hold it.

    Args:
        name: "6.1", "6.12", "7" (the newest 7.x), or "default": the stable suite's.
        refresh: look for a newer one than the one fetched before.

    Raises:
        UserError: there is no such name, or no suite has a file for it.
    """
    if name not in _CHOICES:
        raise UserError(f"no kernel is called {name}; there are {', '.join(_CHOICES)}")
    known = cached(name)
    if known is not None and not refresh:
        return known
    with cache.Lock(_folder() / "lock", "fetching a kernel"):
        known = cached(name)
        if known is not None and not refresh:
            return known
        kernel = _fetch(_CHOICES[name], refresh)
        _select(name, kernel)
        return kernel


def cached(name: str) -> Optional[Kernel]:
    """Return the kernel that the cache holds under a name, or None."""
    link = _folder() / "selected" / name
    if not link.is_symlink() or not link.is_dir():
        return None
    path = link.resolve()
    return Kernel(path.name, path)


def _folder() -> Path:
    return cache.root() / "kernels"


def _select(name: str, kernel: Kernel) -> None:
    link = _folder() / "selected" / name
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = link.with_name(f".{name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(kernel.path, link.parent))
    temporary.replace(link)


def _candidates(suite: Suite, prefix: str) -> list[_Candidate]:
    """Return the complete kernels of a suite's index whose version starts so."""
    names = set(suite.names(r"linux-(image|binary|modules|base)-.*-cloud-amd64(-unsigned)?"))
    version = re.compile(
        rf"linux-(?:image|binary(?:-unsigned)?)-({re.escape(prefix)}\.[0-9].*?-cloud-amd64)(?:-unsigned)?"
    )
    versions = {match.group(1) for match in map(version.fullmatch, names) if match}
    candidates = (_candidate(suite, names, version) for version in versions)
    return [candidate for candidate in candidates if candidate is not None]


def _candidate(suite: Suite, names: set[str], version: str) -> Optional[_Candidate]:
    split = (f"linux-binary-{version}", f"linux-binary-unsigned-{version}")
    whole = (f"linux-image-{version}", f"linux-image-{version}-unsigned")
    others = (f"linux-modules-{version}", f"linux-base-{version}")
    if names & set(split):
        if not names >= set(others):
            return None
        return _Candidate(version, suite, tuple(name for name in split if name in names), others)
    return _Candidate(version, suite, tuple(name for name in whole if name in names), ())


def _rank(candidate: _Candidate) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", candidate.version)]


def _fetch(choice: _Choice, refresh: bool) -> Kernel:
    candidates: list[_Candidate] = []
    for name in choice.suites:
        suite = Suite(name)
        suite.refresh(force=refresh)
        candidates += _candidates(suite, choice.version)
    if not candidates:
        raise UserError(f"Debian's suites {', '.join(choice.suites)} have no cloud kernel {choice.version}")
    reason = ""
    for candidate in sorted(candidates, key=_rank, reverse=True):
        target = _folder() / candidate.version
        if target.is_dir():
            return Kernel(candidate.version, target)
        try:
            return _fetch_one(candidate, target)
        except UserError as error:
            # An index may name files that the pool has lost: the next candidate will do.
            say(str(error))
            reason = reason or str(error)
    raise UserError(f"no Debian kernel {choice.version} can be fetched; the newest: {reason}")


def _fetch_one(candidate: _Candidate, target: Path) -> Kernel:
    version = candidate.version
    say(f"fetching Debian's kernel {version}")
    with tempfile.TemporaryDirectory(prefix=".fetch.", dir=target.parent) as name:
        scratch = Path(name)
        files = [_download_one_of(candidate.suite, candidate.images, scratch)]
        files += [candidate.suite.download(package, scratch) for package in candidate.others]
        with cache.atomic_directory(target) as temporary:
            for file in files:
                extract(file, temporary)
            if not Kernel(version, temporary).vmlinuz.is_file():
                raise UserError(f"Debian's package {candidate.images[0]} holds no kernel image")
    return Kernel(version, target)


def _download_one_of(suite: Suite, packages: Sequence[str], folder: Path) -> Path:
    for package in packages[:-1]:
        try:
            return suite.download(package, folder)
        except UserError as error:
            say(str(error))
    return suite.download(packages[-1], folder)
