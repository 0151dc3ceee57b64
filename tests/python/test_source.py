# SPDX-License-Identifier: GPL-2.0-or-later
"""Obtaining QEMU's source."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from qemu_hv import cache
from qemu_hv.build import source
from qemu_hv.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_tree(folder: Path, version: str) -> Path:
    (folder / "roms").mkdir(parents=True)
    (folder / "roms" / "large").write_text("not needed\n")
    (folder / "configure").write_text("#!/bin/sh\n")
    (folder / "VERSION").write_text(version + "\n")
    return folder


def write_tarball(folder: Path, version: str) -> Path:
    write_tree(folder / f"qemu-{version}", version)
    path = folder / f"qemu-{version}.tar.xz"
    subprocess.run(["tar", "-cJf", path.name, f"qemu-{version}"], cwd=folder, check=True)
    return path


def test_tarball(tmp_path: Path) -> None:
    path = write_tarball(tmp_path, "10.0.3")
    found = source.obtain(str(path))
    assert found.version == "10.0.3"
    assert found.identity.startswith("tarball-")
    assert (found.path / "configure").is_file()
    assert not (found.path / "roms").exists()
    assert source.obtain(str(path)) == found


def test_folder_is_copied_and_told_apart_by_its_content(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "qemu", "10.0.3")
    first = source.obtain(str(tree))
    assert first.path != tree
    assert source.obtain(str(tree)) == first
    (tree / "configure").write_text("#!/bin/sh\nexit 1\n")
    second = source.obtain(str(tree))
    assert second.identity != first.identity
    assert (first.path / "configure").read_text() == "#!/bin/sh\n"


@pytest.mark.parametrize("version", ["9.2.4", "10.1.0", "10.0.50-rc1", "11.0"])
def test_other_versions_are_refused(tmp_path: Path, version: str) -> None:
    tree = write_tree(tmp_path / "qemu", version)
    with pytest.raises(UserError, match=rf"is QEMU {version}, but the patches are for 10\.0\.x"):
        source.obtain(str(tree))
    with pytest.raises(UserError, match=rf"is QEMU {version}, but"):
        source.obtain(str(write_tarball(tmp_path / "t", version)))
    leftovers = [name for name in os.listdir(cache.root() / "sources") if name != "lock"]
    assert leftovers == []


def test_what_is_not_qemu(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a folder, nor a file"):
        source.obtain(str(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is not QEMU's source"):
        source.obtain(str(tmp_path / "empty"))
    (tmp_path / "text").write_text("text")
    with pytest.raises(UserError, match="is not a tarball"):
        source.obtain(str(tmp_path / "text"))


class FakeSuite:
    """Debian's archive with a version of our choice."""

    version = "1:10.0.13+ds-0+deb13u1"

    def __init__(self, name: str, source: bool = False) -> None:
        assert source

    def refresh(self, force: bool = False) -> None:
        pass

    def source_version(self, package: str) -> str:
        return self.version

    def download_source(self, package: str, folder: Path) -> Path:
        (folder / "qemu.dsc").write_text(self.version)
        return folder / "qemu.dsc"


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[FakeSuite]:
    monkeypatch.setattr(source, "Suite", FakeSuite)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "dpkg-source").write_text(
        "#!/bin/sh\n[ \"$1 $2\" = '--no-check -x' ] || exit 2\n"
        'mkdir "$4"; touch "$4/configure"; sed "s/^.*://; s/[+].*//" "$3" >"$4/VERSION"\n'
    )
    (tools / "dpkg-source").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return FakeSuite


def test_debian_stays_until_a_newer_one_is_asked_for(debian: type[FakeSuite], monkeypatch: pytest.MonkeyPatch) -> None:
    first = source.obtain()
    assert (first.version, first.identity) == ("10.0.13", "debian-10.0.13+ds-0+deb13u1")
    monkeypatch.setattr(FakeSuite, "version", "1:10.0.14+ds-0+deb13u1")
    assert source.obtain() == first
    assert source.obtain(refresh=True).version == "10.0.14"
    assert source.obtain().version == "10.0.14"


def test_debian_with_another_series(debian: type[FakeSuite], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeSuite, "version", "1:10.1.2+ds-1")
    with pytest.raises(UserError, match=r"Debian's qemu 1:10\.1\.2\+ds-1 is QEMU 10\.1\.2, but the patches"):
        source.obtain()
