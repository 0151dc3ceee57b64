# SPDX-License-Identifier: GPL-2.0-or-later
"""Choosing and fetching stock Debian kernels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import pytest

from qemu_hv import kernels
from qemu_hv.errors import UserError


class FakeSuite:
    """A suite of Debian in memory."""

    names_of: ClassVar[dict[str, list[str]]] = {}
    lost: ClassVar[set[str]] = set()
    downloaded: ClassVar[list[str]] = []

    def __init__(self, name: str) -> None:
        self.name = name

    def refresh(self, force: bool = False) -> None:
        pass

    def names(self, pattern: str) -> list[str]:
        return [name for name in self.names_of.get(self.name, []) if re.fullmatch(pattern, name)]

    def download(self, package: str, folder: Path) -> Path:
        if package in self.lost:
            raise UserError(f"cannot fetch Debian's package {package} of {self.name}: 404 Not Found")
        self.downloaded.append(package)
        file = folder / f"{package}.deb"
        file.write_text(package)
        return file


def split(version: str) -> list[str]:
    """Return the packages of a kernel since 7.0."""
    return [f"linux-{part}-{version}" for part in ("image", "binary", "modules", "base")]


def fake_extract(package: Path, folder: Path) -> None:
    """Put what Debian's packages of these names hold into the folder."""
    match = re.fullmatch(r"linux-(\w+)-(?:unsigned-)?([0-9].*-amd64)(?:-unsigned)?", package.read_text())
    assert match
    kind, version = match.groups()
    modules = folder / "usr" / "lib" / "modules" / version
    modules.mkdir(parents=True, exist_ok=True)
    if kind == "image" and not version.startswith("7."):
        (folder / "boot").mkdir()
        (folder / "boot" / f"vmlinuz-{version}").write_text("image")
        (folder / "boot" / f"config-{version}").write_text("CONFIG_HYPERV=y")
    elif kind == "binary":
        (modules / "vmlinuz").write_text("image")
    elif kind == "base":
        (modules / "config").write_text("CONFIG_HYPERV=y")


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[FakeSuite]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kernels, "Suite", FakeSuite)
    monkeypatch.setattr(kernels, "extract", fake_extract)
    monkeypatch.setattr(FakeSuite, "lost", set())
    monkeypatch.setattr(FakeSuite, "downloaded", [])
    monkeypatch.setattr(
        FakeSuite,
        "names_of",
        {
            "trixie-backports": [
                *split("7.2.11+deb13-cloud-amd64"),
                *split("7.10.2+deb13-cloud-amd64"),
                "linux-binary-unsigned-7.10.2+deb13-cloud-amd64",
                *split("7.9.1+deb13-cloud-amd64"),
                *split("7.10.2+deb13-amd64"),
                # The rest of it is no longer in the index.
                "linux-binary-7.11.0+deb13-cloud-amd64",
                "linux-image-6.19.10+deb13-cloud-amd64",
            ],
            "bookworm-backports": [
                "linux-image-6.12.95+deb12-cloud-amd64",
                "linux-image-6.12.95+deb12-cloud-amd64-unsigned",
                "linux-image-6.12.90+deb12.1-cloud-amd64",
            ],
            "bookworm": [
                "linux-image-6.1.0-9-cloud-amd64",
                "linux-image-6.1.0-47-cloud-amd64",
                "linux-image-6.1.0-47-rt-amd64",
            ],
        },
    )
    return FakeSuite


def test_the_newest_is_chosen_by_number(archive: type[FakeSuite]) -> None:
    assert kernels.get("7").version == "7.10.2+deb13-cloud-amd64"
    assert kernels.get("6.1").version == "6.1.0-47-cloud-amd64"


def test_the_signed_package_is_preferred_and_one_is_enough(archive: type[FakeSuite]) -> None:
    assert kernels.get("6.12").version == "6.12.95+deb12-cloud-amd64"
    assert archive.downloaded == ["linux-image-6.12.95+deb12-cloud-amd64"]


def test_the_unsigned_package_serves_when_the_signed_one_is_lost(archive: type[FakeSuite]) -> None:
    archive.lost.add("linux-image-6.12.95+deb12-cloud-amd64")
    assert kernels.get("6.12").version == "6.12.95+deb12-cloud-amd64"
    assert archive.downloaded == ["linux-image-6.12.95+deb12-cloud-amd64-unsigned"]


def test_the_next_candidate_serves_when_the_suite_has_lost_a_file(
    archive: type[FakeSuite], capsys: pytest.CaptureFixture[str]
) -> None:
    archive.lost.add("linux-modules-7.10.2+deb13-cloud-amd64")
    assert kernels.get("7").version == "7.9.1+deb13-cloud-amd64"
    assert kernels.get("7").config.read_text() == "CONFIG_HYPERV=y"
    assert "404 Not Found" in capsys.readouterr().err


def test_all_files_lost_is_one_line_about_the_newest(archive: type[FakeSuite]) -> None:
    archive.lost.update(archive.names_of["bookworm"])
    with pytest.raises(UserError, match=r"no Debian kernel 6\.1 can be fetched; the newest: .*6\.1\.0-47"):
        kernels.get("6.1")


def test_a_version_that_no_suite_has(archive: type[FakeSuite]) -> None:
    archive.names_of["bookworm"].clear()
    with pytest.raises(UserError, match=r"suites bookworm have no cloud kernel 6\.1"):
        kernels.get("6.1")


def test_a_name_that_is_not_ours(archive: type[FakeSuite]) -> None:
    with pytest.raises(UserError, match=r"no kernel is called 5\.10; there are default, 6\.1, 6\.12, 7"):
        kernels.get("5.10")


def test_the_second_time_nothing_is_fetched(archive: type[FakeSuite]) -> None:
    first = kernels.get("7")
    archive.names_of["trixie-backports"] += split("7.12.0+deb13-cloud-amd64")
    assert kernels.get("7") == first
    assert kernels.cached("7") == first
    assert kernels.cached("6.1") is None
    assert kernels.get("7", refresh=True).version == "7.12.0+deb13-cloud-amd64"


def test_a_split_kernel_s_unsigned_image_serves(archive: type[FakeSuite]) -> None:
    archive.lost.add("linux-binary-7.10.2+deb13-cloud-amd64")
    assert kernels.get("7").version == "7.10.2+deb13-cloud-amd64"


@pytest.mark.parametrize("name", ["6.1", "7"])
def test_paths(archive: type[FakeSuite], name: str) -> None:
    kernel = kernels.get(name)
    assert kernel.vmlinuz.read_text() == "image"
    assert kernel.config.read_text() == "CONFIG_HYPERV=y"
    assert kernel.modules_dir.is_dir()
