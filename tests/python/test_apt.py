# SPDX-License-Identifier: GPL-2.0-or-later
"""The private apt configuration."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from qemu_hv import apt
from qemu_hv.errors import UserError

DEB822 = """\
Types: deb
# an older state of the archive
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb deb-src
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Enabled: no
Types: deb
URIs: http://disabled.example/debian
Suites: bookworm
Components: main
"""

EMBEDDED_KEY = """\
Types: deb
URIs: http://third.example/debian
Suites: trixie
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: mirror+file:/etc/apt/mirrors/debian.list
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.pgp
"""


def test_deb822() -> None:
    entries = apt.parse_deb822(DEB822)
    assert [entry.uris for entry in entries] == [
        ("http://mirror.example/debian",),
        ("http://mirror.example/debian-security",),
    ]
    assert entries[0].suites == ("bookworm", "bookworm-updates")
    assert entries[0].signed_by == "/usr/share/keyrings/debian-archive-keyring.gpg"
    assert entries[1].types == ("deb", "deb-src")
    assert apt.choose_mirror(entries) == "http://mirror.example/debian"


def test_deb822_with_an_embedded_key_and_a_mirror_list() -> None:
    entries = apt.parse_deb822(EMBEDDED_KEY)
    assert "mQINBF" in entries[0].signed_by
    # Debian's key wins over a third party that also calls its archive "debian".
    assert apt.choose_mirror(entries) == "mirror+file:/etc/apt/mirrors/debian.list"


@pytest.mark.parametrize(
    ("line", "uri"),
    [
        ("deb http://a.example/debian trixie main", "http://a.example/debian"),
        ("deb [arch=amd64 signed-by=/k.gpg] http://a.example/debian trixie main contrib", "http://a.example/debian"),
        ("deb http://a.example/debian stable main # comment", "http://a.example/debian"),
        ("deb\thttps://a.example/debian/ bookworm-backports main", "https://a.example/debian/"),
    ],
)
def test_one_line(line: str, uri: str) -> None:
    assert apt.choose_mirror(apt.parse_one_line(line)) == uri


@pytest.mark.parametrize(
    "line",
    [
        "# deb http://a.example/debian trixie main",
        "deb-src http://a.example/debian trixie main",
        "deb cdrom:[Debian]/ trixie main",
        "deb http://a.example/apt cloud-sdk-bookworm main",
        "deb http://a.example/docker bookworm stable",
        "deb http://a.example/debian-security trixie-security main",
        "",
    ],
)
def test_no_debian_mirror(line: str) -> None:
    with pytest.raises(UserError, match=r"no Debian mirror .* --source TARBALL"):
        apt.choose_mirror(apt.parse_one_line(line))


def test_system_mirror_reads_both_formats(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (parts / "third.list").write_text("deb http://third.example/apt nodistro main\n")
    (parts / "debian.sources").write_text(DEB822)
    (parts / "debian.sources.bak").write_text("Types: deb\nURIs: http://backup.example/debian\n")
    assert apt.system_mirror(tmp_path) == "http://mirror.example/debian"
    (tmp_path / "sources.list").write_text(
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://main.example/debian trixie main\n"
    )
    assert apt.system_mirror(tmp_path) == "http://main.example/debian"


@pytest.fixture
def fake_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a folder for stand-ins of apt's programs first in PATH, and a mirror and a cache in place."""
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(apt, "system_mirror", lambda: "http://mirror.example/debian")
    monkeypatch.setattr(apt, "_keyring", lambda: Path("/keyring"))
    return tools


def write_tool(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_lists_are_fetched_once(fake_tools: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    write_tool(fake_tools, "apt-get", f'echo "$*" >>{calls}')
    apt.Suite("trixie").refresh()
    apt.Suite("trixie").refresh()
    assert len(calls.read_text().splitlines()) == 1
    apt.Suite("trixie").refresh(force=True)
    assert len(calls.read_text().splitlines()) == 2


def test_lists_are_fetched_anew_from_another_mirror(
    fake_tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    write_tool(fake_tools, "apt-get", f"echo x >>{calls}")
    apt.Suite("trixie").refresh()
    monkeypatch.setattr(apt, "system_mirror", lambda: "http://other.example/debian")
    apt.Suite("trixie").refresh()
    assert len(calls.read_text().splitlines()) == 2


def test_no_network_is_one_line(fake_tools: Path) -> None:
    write_tool(
        fake_tools,
        "apt-get",
        "echo \"W: Failed to fetch http://mirror.example/debian/InRelease  Could not resolve 'mirror.example'\" >&2\n"
        'echo "E: Some index files failed to download." >&2\nexit 100',
    )
    with pytest.raises(UserError) as caught:
        apt.Suite("trixie").refresh()
    assert str(caught.value) == (
        "cannot fetch Debian's package lists of trixie: Failed to fetch http://mirror.example/debian/InRelease "
        "Could not resolve 'mirror.example'; check the network and apt's proxy settings"
    )
    # A failure is not remembered as a success.
    with pytest.raises(UserError):
        apt.Suite("trixie").refresh()


def test_configuration_is_private(fake_tools: Path, tmp_path: Path) -> None:
    write_tool(fake_tools, "apt-get", "exit 0")
    suite = apt.Suite("trixie", source=True)
    suite.refresh()
    folder = tmp_path / "cache" / "qemu-hv" / "apt" / "trixie-source"
    assert (folder / "sources.list").read_text() == (
        "deb-src [signed-by=/keyring] http://mirror.example/debian trixie main\n"
    )
    # What apt itself makes of the file: nothing of the system's own state is left.
    result = subprocess.run(
        ["apt-config", "-c", str(folder / "apt.conf"), "dump"], capture_output=True, text=True, check=True
    )
    # apt's names know no case.
    settings = dict(line.lower().rstrip(";").split(" ", 1) for line in result.stdout.splitlines())
    for name in ("dir::etc::sourcelist", "dir::state::lists", "dir::state::status", "dir::cache"):
        assert settings[name].strip('"').startswith(str(folder).lower()), name
    assert settings["dir::etc::sourceparts"] == '"/dev/null"'
    # The system's hooks are gone, whatever it has: their lists are empty.
    assert not any(name.startswith("apt::update::post-invoke") and name.endswith("::") for name in settings)


def test_a_package_whose_file_is_lost(fake_tools: Path, tmp_path: Path) -> None:
    write_tool(
        fake_tools,
        "apt-get",
        'case "$*" in *update*) exit 0;; esac\n'
        'echo "E: Failed to fetch http://mirror.example/x.deb  404  Not Found" >&2; exit 100',
    )
    with pytest.raises(UserError, match=r"cannot fetch Debian's package x of trixie: .* 404 Not Found"):
        apt.Suite("trixie").download("x", tmp_path)
