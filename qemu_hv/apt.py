# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian packages without installing them and without touching the system's apt configuration.

Each suite gets a private apt configuration in the cache folder: the mirror of the system's own
entry, the archive keyring of Debian, and folders of its own for lists and archives. apt verifies
all it fetches.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import cache
from .errors import UserError
from .progress import say

__all__ = [
    "SourceEntry",
    "Suite",
    "choose_mirror",
    "extract",
    "parse_deb822",
    "parse_one_line",
    "system_mirror",
]

_SOURCES_FOLDER = Path("/etc/apt")
_KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
)
_CODENAME = re.compile(
    r"(?:(?:old)*stable|testing|unstable|sid|bullseye|bookworm|trixie|forky|duke)"
    r"(?:-updates|-backports)?"
)
_LISTS_MAX_AGE = 24 * 3600.0


@dataclass(frozen=True)
class SourceEntry:
    """One entry of apt's sources, in either of its two formats."""

    types: tuple[str, ...]
    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""


def parse_one_line(text: str) -> list[SourceEntry]:
    """Parse a ``sources.list`` file (one line an entry)."""
    entries = []
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        match = re.fullmatch(r"(deb|deb-src)\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)((?:\s+\S+)*)", line)
        if match is None:
            continue
        kind, options, uri, suite, components = match.groups()
        signed_by = re.search(r"signed-by=(\S+)", options or "", re.IGNORECASE)
        entries.append(
            SourceEntry(
                types=(kind,),
                uris=(uri,),
                suites=(suite,),
                components=tuple(components.split()),
                signed_by=signed_by.group(1) if signed_by else "",
            )
        )
    return entries


def parse_deb822(text: str) -> list[SourceEntry]:
    """Parse a ``.sources`` file (stanzas of fields). Disabled stanzas are left out."""
    entries = []
    for stanza in re.split(r"\n[ \t]*\n", _without_comments(text)):
        fields = _fields(stanza)
        if fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        if "uris" not in fields or "types" not in fields:
            continue
        entries.append(
            SourceEntry(
                types=tuple(fields["types"].split()),
                uris=tuple(fields["uris"].split()),
                suites=tuple(fields.get("suites", "").split()),
                components=tuple(fields.get("components", "").split()),
                signed_by=fields.get("signed-by", "").strip(),
            )
        )
    return entries


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


def _fields(stanza: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line[:1] in (" ", "\t"):
            if name:
                fields[name] += "\n" + line.strip()
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields


def choose_mirror(entries: Iterable[SourceEntry]) -> str:
    """Return the URI of the Debian mirror among the entries.

    Third parties' archives are told apart by their suites (no Debian code name), components
    (not main) and keys.

    Raises:
        UserError: there is none.
    """
    best: tuple[int, str] = (0, "")
    for entry in entries:
        if "deb" not in entry.types or "main" not in entry.components or not entry.uris:
            continue
        if not any(_CODENAME.fullmatch(suite) for suite in entry.suites):
            continue
        uri = next((uri for uri in entry.uris if not uri.startswith("cdrom:")), "")
        if not uri:
            continue
        score = 1
        score += 4 if "debian-archive" in entry.signed_by else 0
        score += 2 if uri.rstrip("/").endswith("/debian") else 0
        if score > best[0]:
            best = (score, uri)
    if not best[1]:
        raise UserError(
            "found no Debian mirror in apt's sources (/etc/apt/sources.list, sources.list.d); "
            "add one, or give QEMU's source with --source TARBALL"
        )
    return best[1]


def system_mirror(folder: Path = _SOURCES_FOLDER) -> str:
    """Return the URI of the Debian mirror that the system itself uses.

    Raises:
        UserError: apt's sources name none.
    """
    entries: list[SourceEntry] = []
    main = folder / "sources.list"
    if main.is_file():
        entries += parse_one_line(main.read_text(encoding="utf-8", errors="replace"))
    parts = folder / "sources.list.d"
    for path in sorted(parts.iterdir()) if parts.is_dir() else ():
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        if path.suffix == ".list":
            entries += parse_one_line(text)
        elif path.suffix == ".sources":
            entries += parse_deb822(text)
    return choose_mirror(entries)


def _keyring() -> Path:
    for path in _KEYRINGS:
        if path.exists():
            return path
    raise UserError("Debian's archive keyring is missing; install the package debian-archive-keyring")


def _run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ, LC_ALL="C", DEBIAN_FRONTEND="noninteractive")
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise UserError(f"{command[0]} is missing: this part needs Debian's package tools (apt, dpkg-dev)") from error


def _reason(stderr: str) -> str:
    """Pick the line of apt's complaint that says most: the first failed fetch, else the last."""
    lines = [line.strip() for line in stderr.splitlines() if line.startswith(("E:", "W:"))]
    fetches = [line for line in lines if "Failed to fetch" in line]
    line = (fetches or lines[-1:] or ["no reason given"])[0]
    return re.sub(r"\s+", " ", line[2:]).strip()


class Suite:
    """A private apt configuration for one suite of Debian.

    Args:
        name: the suite, such as "trixie" or "bookworm-backports".
        source: for source packages (``deb-src``) instead of binary ones (amd64).
    """

    def __init__(self, name: str, source: bool = False) -> None:
        self.name = name
        self._source = source
        self._folder = cache.root() / "apt" / (f"{name}-source" if source else name)

    def _lock(self) -> cache.Lock:
        purpose = f"fetching Debian's package lists of {self.name}"
        return cache.Lock(self._folder / "lock", purpose)

    def _write_configuration(self) -> Path:
        folder = self._folder
        for name in ("lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        kind = "deb-src" if self._source else "deb"
        (folder / "sources.list").write_text(
            f"{kind} [signed-by={_keyring()}] {system_mirror()} {self.name} main\n",
            encoding="utf-8",
        )
        settings = {
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State::Lists": folder / "lists",
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder / "cache",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Default-Release": "",
            # Other users cannot look into a home folder; apt would warn each time.
            "APT::Sandbox::User": "root",
            "APT::Update::Error-Mode": "any",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        # The system's hooks after an update concern the system's lists. These lines only work
        # in a file named on the command line, which apt reads after the system's.
        cleared = (
            "APT::Architectures",
            "APT::Update::Pre-Invoke",
            "APT::Update::Post-Invoke",
            "APT::Update::Post-Invoke-Success",
            "DPkg::Post-Invoke",
        )
        lines = [f"#clear {name};" for name in cleared]
        lines += [f'{name} "{value}";' for name, value in settings.items()]
        path = folder / "apt.conf"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    def _apt(self, tool: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
        return _run([tool, "-c", str(self._folder / "apt.conf"), *arguments], folder)

    def refresh(self, force: bool = False) -> None:
        """Fetch the suite's package lists unless those here are less than a day old.

        Raises:
            UserError: the mirror cannot be reached or its answer is not signed by Debian.
        """
        stamp = self._folder / "updated"
        with self._lock():
            configuration = self._write_configuration()
            # Lists belong to a mirror: after a change of the system's entry they are fetched anew.
            identity = configuration.with_name("sources.list").read_text(encoding="utf-8")
            if not force and _is_fresh(stamp, identity):
                return
            say(f"fetching Debian's package lists of {self.name}")
            result = self._apt("apt-get", "update", "-q", folder=self._folder)
            if result.returncode != 0:
                raise UserError(
                    f"cannot fetch Debian's package lists of {self.name}: "
                    f"{_reason(result.stderr)}; check the network and apt's proxy settings"
                )
            stamp.write_text(identity, encoding="utf-8")

    def names(self, pattern: str) -> list[str]:
        """Return the names of the suite's binary packages that a regular expression matches."""
        self.refresh()
        result = self._apt("apt-cache", "pkgnames", folder=self._folder)
        expression = re.compile(pattern)
        return sorted(name for name in result.stdout.split() if expression.fullmatch(name))

    def download(self, package: str, folder: Path) -> Path:
        """Fetch a binary package's file, verified by apt, into an existing folder.

        Returns:
            The ``.deb`` file.

        Raises:
            UserError: the suite does not have it, or no longer has its file.
        """
        self.refresh()
        before = set(folder.glob("*.deb"))
        result = self._apt("apt-get", "download", "-q", package, folder=folder)
        made = sorted(set(folder.glob("*.deb")) - before)
        if result.returncode != 0 or len(made) != 1:
            raise UserError(f"cannot fetch Debian's package {package} of {self.name}: {_reason(result.stderr)}")
        return made[0]

    def source_version(self, package: str) -> str:
        """Return the version of a source package that the suite offers now.

        Raises:
            UserError: it has none.
        """
        self.refresh()
        result = self._apt("apt-cache", "showsrc", package, folder=self._folder)
        version = re.search(r"^Version: (\S+)$", result.stdout, re.MULTILINE)
        if result.returncode != 0 or version is None:
            raise UserError(f"Debian's suite {self.name} has no source package {package}")
        return str(version.group(1))

    def download_source(self, package: str, folder: Path) -> Path:
        """Fetch a source package's files, verified by apt, into an existing folder.

        Returns:
            The ``.dsc`` file.

        Raises:
            UserError: it cannot be fetched.
        """
        self.refresh()
        result = self._apt("apt-get", "source", "-q", "--download-only", "--only-source", package, folder=folder)
        made = sorted(folder.glob("*.dsc"))
        if result.returncode != 0 or len(made) != 1:
            raise UserError(f"cannot fetch Debian's source package {package} of {self.name}: {_reason(result.stderr)}")
        return made[0]


def _is_fresh(stamp: Path, identity: str) -> bool:
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != identity:
        return False
    return time.time() - stamp.stat().st_mtime < _LISTS_MAX_AGE


def extract(package: Path, folder: Path) -> None:
    """Unpack a ``.deb`` file's content into a folder.

    Raises:
        UserError: it cannot be unpacked.
    """
    if shutil.which("dpkg-deb") is None:
        raise UserError("dpkg-deb is missing: this part needs Debian's package tools (dpkg)")
    result = _run(["dpkg-deb", "-x", str(package), str(folder)], folder.parent)
    if result.returncode != 0:
        raise UserError(f"cannot unpack {package.name}: {result.stderr.strip()}")
