# SPDX-License-Identifier: GPL-2.0-or-later
"""Arguments and errors of `qemu-hv run` and `qemu-hv status` that need no QEMU."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qemu_hv import cli, run, runtime, status
from qemu_hv.errors import UserError
from qemu_hv.machine import (
    CommandFailed,
    MachineDied,
    MachineOptions,
    SyncMachine,
    command_line,
    describe_exit,
    object_argument,
)
from qemu_hv.qemu_binary import QemuBinary, find_qemu


@pytest.fixture(autouse=True)
def runtime_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "runtime"
    folder.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


def one_line(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run the command line, which must fail with one line, and return that line."""
    assert cli.main(words) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--smp", "0"], "'0' is not a positive number"),
        (["--smp", "many"], "'many' is not a positive number"),
        (["--timeout", "-1"], "'-1' is not a time in seconds"),
        (["--timeout", "inf"], "'inf' is not a time in seconds"),
        (["--timeout", "nan"], "'nan' is not a time in seconds"),
        (["--property", "x"], "'x' is not of the form NAME=VALUE"),
        (["--property", "=x"], "'=x' is not of the form NAME=VALUE"),
    ],
)
def test_wrong_arguments(capsys: pytest.CaptureFixture[str], words: list[str], complaint: str) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["run", *words])
    assert caught.value.code == 2
    assert complaint in capsys.readouterr().err


def test_combinations(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "--no-hypervisor" in one_line(capsys, "run", "--no-hypervisor", "--property", "a=b")
    assert "--kernel" in one_line(capsys, "run", "--initrd", "x")


def test_missing_files(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QEMU_HV_QEMU", str(script(tmp_path / "qemu", "exit 0")))
    kernel = tmp_path / "no-kernel"
    assert f"cannot read the kernel {kernel}: No such file" in one_line(capsys, "run", "--kernel", str(kernel))


def test_qemu_that_is_none(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QEMU_HV_QEMU", "/no/such/qemu")
    line = one_line(capsys, "run", "--kernel", os.devnull)
    assert "QEMU_HV_QEMU is not an executable file: /no/such/qemu" in line


def test_qemu_that_dies_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("QEMU_HV_QEMU", str(script(tmp_path / "qemu", "echo first >&2; echo second >&2; exit 3")))
    line = one_line(capsys, "run", "--kernel", os.devnull, "--quiet")
    assert "QEMU ended with exit status 3 at start: first; second" in line


def test_qemu_that_never_answers(tmp_path: Path) -> None:
    qemu = script(tmp_path / "qemu", "echo thinking; exec sleep 1000")
    machine = SyncMachine(MachineOptions(qemu=qemu, start_timeout=0.5))
    with pytest.raises(Exception, match=r"did not answer in 0\.5 s: thinking"):
        machine.start()
    assert not machine.running
    machine.close()


def test_command_line(tmp_path: Path) -> None:
    options = MachineOptions(
        kernel="k",
        initrd="i",
        append="console=ttyS0 quiet",
        smp=3,
        memory="1G",
        machine="pc",
        accel="tcg,thread=single",
        icount="shift=auto",
        cpu="max",
        hypervisor={"interface": "2008r2", "reset-msr": True, "apic-msrs": False, "spinlock-retries": 5},
        actions={"shutdown": "pause"},
        paused=True,
        extra=["-d", "int"],
    )
    argv = command_line(options, QemuBinary(Path("qemu"), (Path("fw1"), Path("fw2"))), tmp_path)

    def value(name: str) -> str:
        return argv[argv.index(name) + 1]

    assert argv[:5] == ["qemu", "-L", "fw1", "-L", "fw2"]
    assert argv[-2:] == ["-d", "int"]
    assert value("-append") == "console=ttyS0 quiet"
    assert (value("-machine"), value("-smp"), value("-m")) == ("pc", "3", "1G")
    assert (value("-accel"), value("-icount"), value("-cpu")) == ("tcg,thread=single", "shift=auto", "max")
    assert value("-action") == "shutdown=pause"
    assert "-S" in argv
    expected = "microsoft-hypervisor,id=hv0,interface=2008r2,reset-msr=on,apic-msrs=off,spinlock-retries=5"
    assert value("-object") == expected


def test_no_object_without_properties() -> None:
    argv = command_line(MachineOptions(hypervisor=None), QemuBinary(Path("qemu")), Path("folder"))
    assert "-object" not in argv
    argv = command_line(MachineOptions(), QemuBinary(Path("qemu")), Path("folder"))
    assert argv[argv.index("-object") + 1] == "microsoft-hypervisor,id=hv0"


def test_commas_in_values() -> None:
    assert object_argument({"a": "x,y"}) == "microsoft-hypervisor,id=hv0,a=x,,y"


def test_exit_in_words() -> None:
    assert describe_exit(1) == "ended with exit status 1"
    assert describe_exit(-9) == "was killed by SIGKILL"
    assert describe_exit(-63) == "was killed by signal 63"


def test_messages_of_errors() -> None:
    assert str(MachineDied("at start", 1, "")) == "QEMU ended with exit status 1 at start: it wrote no message"
    failed = CommandFailed("query-hv", "DeviceNotFound", "none")
    assert str(failed) == "query-hv: none"


def test_explicit_binary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    qemu = script(tmp_path / "qemu", "exit 0")
    monkeypatch.setenv("QEMU_HV_QEMU", str(qemu))
    monkeypatch.setenv("QEMU_HV_MODULE_DIR", "modules")
    monkeypatch.setenv("QEMU_HV_FIRMWARE", os.pathsep.join(["one", "two"]))
    found = find_qemu()
    assert found == QemuBinary(qemu, (Path("one"), Path("two")), {"QEMU_MODULE_DIR": "modules"})
    assert find_qemu(found) is found
    with pytest.raises(UserError, match="not an executable"):
        find_qemu(tmp_path / "nothing")


def test_last_machine(runtime_folder: Path, tmp_path: Path) -> None:
    assert runtime.last_machine() is None
    sockets = [tmp_path / name for name in ("old", "new", "gone")]
    for index, path in enumerate(sockets):
        path.touch()
        runtime.record_machine(1000 + index, path)
        os.utime(runtime.runtime_dir() / f"{1000 + index}.json", (index, index))
    sockets[2].unlink()
    (runtime.runtime_dir() / "9.json").write_text("{not json", encoding="utf-8")
    assert runtime.last_machine() == sockets[1]
    assert sorted(path.name for path in runtime.runtime_dir().iterdir()) == ["1000.json", "1001.json"]
    runtime.forget_machine(sockets[1])
    assert runtime.last_machine() == sockets[0]


def test_status_without_a_machine(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no machine of yours is running" in one_line(capsys, "status")
    path = tmp_path / "none"
    assert f"no QMP monitor answers at {path}: No such file" in one_line(capsys, "status", "--qmp", str(path))


def test_status_of_something_else(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "closed"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    assert "no QMP monitor answers at" in one_line(capsys, "status", "--qmp", str(path))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ({"class": "CommandNotFound", "desc": "not found"}, "without the hypervisor's patches"),
        ({"class": "DeviceNotFound", "desc": "no object here"}, "refused: no object here"),
    ],
)
def test_status_of_a_machine_that_refuses(tmp_path: Path, error: dict[str, str], words: str) -> None:
    greeting = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 10}, "package": ""}, "capabilities": []}}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps(greeting).encode() + b"\n")
        # Requests are not ended by a newline, and the client waits for each answer.
        while data := await reader.read(65536):
            request = json.loads(data)
            answer: dict[str, Any] = {"return": {}} if request["execute"] == "qmp_capabilities" else {"error": error}
            if "id" in request:
                answer["id"] = request["id"]
            writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()

    async def ask() -> None:
        path = tmp_path / "qmp"
        server = await asyncio.start_unix_server(serve, path)
        try:
            await status.query(str(path))
        finally:
            server.close()

    with pytest.raises(UserError, match=words):
        asyncio.run(ask())


def test_obtaining_qemu_is_no_part_of_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first run may build QEMU for minutes: the time of the run starts after that."""
    order: list[str] = []

    def obtain(given: object) -> QemuBinary:
        order.append("obtained")
        return QemuBinary(script(tmp_path / "qemu", "exit 3"))

    def now() -> float:
        order.append("clock")
        return 0.0

    monkeypatch.setattr(run, "find_qemu", obtain)
    monkeypatch.setattr(run, "time", SimpleNamespace(monotonic=now))
    with pytest.raises(MachineDied):
        asyncio.run(run.run(MachineOptions(), timeout=5))
    assert order[:2] == ["obtained", "clock"]


def test_console_cannot_steer_the_terminal() -> None:
    assert run.printable("a\tb\x1b[2J\x9b") == "a\tb\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}"


def test_properties_are_strings() -> None:
    assert run.parse_property("name=a=b") == ("name", "a=b")
    with pytest.raises(argparse.ArgumentTypeError):
        run.parse_property("name=")


def test_no_kvm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A host without KVM, or one that keeps it from the user, is told of before anything is started."""
    device = tmp_path / "kvm"
    monkeypatch.setattr(run.check_kvm, "__defaults__", (device,))
    assert "which is not there" in one_line(capsys, "run", "--accel", "kvm")
    device.touch()
    monkeypatch.setattr(os, "access", lambda path, mode: path != device)
    assert "which this user may not open" in one_line(capsys, "run", "--accel", "kvm,kernel-irqchip=off")


@pytest.mark.parametrize(
    ("words", "machine"),
    [
        (["--accel", "kvm"], "q35"),
        (["--accel", "kvm", "--property", "role=root"], "q35,kernel-irqchip=off"),
        (["--accel", "kvm", "--property", "role=root", "--machine", "pc,kernel-irqchip=on"], "pc,kernel-irqchip=on"),
        (["--property", "role=root"], "q35"),
    ],
)
def test_root_on_kvm_has_an_apic_that_tells_of_halts(
    words: list[str], machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine type follows from what is asked for, unless it says itself."""
    seen: list[MachineOptions] = []

    async def remember(options: MachineOptions, *_: Any) -> Any:
        seen.append(options)
        raise UserError("enough")

    monkeypatch.setattr(run, "run", remember)
    monkeypatch.setattr(run, "check_kvm", lambda: None)
    assert cli.main(["run", "--kernel", "/dev/null", *words]) == 1
    assert seen[0].machine == machine
