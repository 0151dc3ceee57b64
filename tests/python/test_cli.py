# SPDX-License-Identifier: GPL-2.0-or-later
"""The ``qemu-hv`` command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from qemu_hv import __version__, cli, kernels
from qemu_hv.errors import UserError


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"qemu-hv {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["build", "--nonsense"], ["build", "--jobs", "0"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: qemu-hv")


@pytest.mark.parametrize("command", ["build", "run", "status", "info", "kernels"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    assert f"usage: qemu-hv {command}" in capsys.readouterr().out


def test_a_user_s_error_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(name: str, refresh: bool) -> None:
        raise UserError("the mirror is away; try later")

    monkeypatch.setattr(kernels, "get", fail)
    assert cli.main(["kernels", "6.1"]) == 1
    captured = capsys.readouterr()
    assert captured.err == "qemu-hv: error: the mirror is away; try later\n"
    assert captured.out == ""


def test_info_with_an_empty_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cli.main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["qemu-hv"] == __version__
    assert facts["cache"] == str(tmp_path / "qemu-hv")
    assert facts["qemu patched"] is None and facts["kernel default"] is None
    assert cli.main(["info"]) == 0
    assert "not there yet" in capsys.readouterr().out


def test_it_is_a_module_too() -> None:
    result = subprocess.run([sys.executable, "-m", "qemu_hv", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == f"qemu-hv {__version__}"
