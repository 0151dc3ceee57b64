# SPDX-License-Identifier: GPL-2.0-or-later
"""The blob for programs in the root partition, and the machine of `qemu-hv run --in-child`."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from qemu_hv import blob, child_boot, cli, freestanding
from qemu_hv.errors import UserError
from qemu_hv.machine import MachineOptions


def unpack(data: bytes) -> dict[str, bytes]:
    """Read a blob as tests/guests/lib/blob.h describes it."""
    magic, count, zero = struct.unpack_from("<8sII", data)
    assert (magic, zero) == (b"HVBLOB1\0", 0)
    parts = {}
    for index in range(count):
        name, offset, size = struct.unpack_from("<16sQQ", data, 16 + 32 * index)
        assert offset % 4096 == 0
        assert offset + size <= len(data)
        parts[name.rstrip(b"\0").decode()] = data[offset : offset + size]
    return parts


def test_parts_come_back() -> None:
    parts = {"kernel": b"k" * 5000, "empty": b"", "a-name-of-16-char": b"x", "vps": b"4"}
    del parts["a-name-of-16-char"]
    parts["exactly-16-chars"] = bytes(range(256)) * 16
    assert unpack(blob.pack(parts)) == parts
    assert unpack(blob.pack({})) == {}


def test_many_parts() -> None:
    parts = {f"part{index}": bytes([index]) * index for index in range(200)}
    assert unpack(blob.pack(parts)) == parts


@pytest.mark.parametrize("name", ["", "seventeen-letters", "naïve"])
def test_names(name: str) -> None:
    with pytest.raises(ValueError, match="is no name"):
        blob.pack({name: b""})


def test_files_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = blob.file({"a": b"1"})
    assert unpack(first.read_bytes()) == {"a": b"1"}
    assert blob.file({"a": b"1"}) == first
    assert blob.file({"a": b"2"}) != first


@pytest.mark.parametrize(("text", "size"), [("64", 64), ("512M", 512), ("1G", 1024)])
def test_sizes(text: str, size: int) -> None:
    assert child_boot.parse_mebibytes(text) == size


@pytest.mark.parametrize("text", ["", "M", "512K", "0x100", "1.5G", "-1M"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="is no size of memory"):
        child_boot.parse_mebibytes(text)


@pytest.fixture(name="options")
def plain_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MachineOptions:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(freestanding, "build_example", lambda name: tmp_path / f"{name}.elf")
    (tmp_path / "kernel").write_bytes(b"kernel" * 1000)
    (tmp_path / "initrd").write_bytes(b"initrd")
    return MachineOptions(
        kernel=tmp_path / "kernel",
        initrd=tmp_path / "initrd",
        append="console=ttyS0",
        smp=2,
        memory="256M",
        hypervisor={"interface": "current"},
        extra=["-d", "int"],
    )


def test_machine_in_the_root(options: MachineOptions, tmp_path: Path) -> None:
    changed = child_boot.in_child(options)
    assert changed.kernel == tmp_path / "minivmm.elf"
    assert changed.append is None
    assert changed.hypervisor == {"role": "root", "interface": "current"}
    assert changed.smp == 2
    assert child_boot.parse_mebibytes(changed.memory) > 256 + 112
    assert list(changed.extra)[-2:] == ["-d", "int"]
    assert unpack(Path(str(changed.initrd)).read_bytes()) == {
        "kernel": b"kernel" * 1000,
        "initrd": b"initrd",
        "cmdline": b"console=ttyS0",
        "vps": b"2",
        "memory": b"256",
    }


def test_limits_of_a_child(options: MachineOptions, tmp_path: Path) -> None:
    values = vars(options)
    with pytest.raises(UserError, match="1 to 4 VPs, not 5"):
        child_boot.in_child(MachineOptions(**{**values, "smp": 5}))
    with pytest.raises(UserError, match="MiB, not 32"):
        child_boot.in_child(MachineOptions(**{**values, "memory": "32M"}))
    with pytest.raises(UserError, match=r"cannot read .*nothing: No such file"):
        child_boot.in_child(MachineOptions(**{**values, "kernel": tmp_path / "nothing"}))


def test_combinations(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--in-child", "--no-hypervisor"]) == 1
    assert "--in-child needs the object" in capsys.readouterr().err


def test_minivmm_compiles() -> None:
    image = freestanding.build_example("minivmm")
    assert image.read_bytes()[:5] == b"\x7fELF\x02"


def test_compiler_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(UserError, match="needs a C compiler and there is no no-such-compiler"):
        freestanding.build_example("minivmm")
