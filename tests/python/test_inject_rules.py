# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules of fault injection in files, and how they are shown."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from qemu_hv import cli
from qemu_hv.errors import UserError
from qemu_hv.inject import Rule, load, table

PYTHON = """\
from qemu_hv.inject import Rule

rules = [
    Rule("flush", "hypercall", "status", target=2, fraction=0.5, status=0xB),
    Rule("late", "timer", "delay", delay=2000),
]
"""
FLUSH = {
    "id": "flush",
    "point": "hypercall",
    "action": "status",
    "target": "2",
    "fraction": 0.5,
    "status": "11",
}


def test_rules_in_python(tmp_path: Path) -> None:
    path = tmp_path / "rules.py"
    path.write_text(PYTHON, encoding="utf-8")
    assert [rule.arguments() for rule in load(path)] == [
        FLUSH,
        {"id": "late", "point": "timer", "action": "delay", "delay": 2000},
    ]


def test_rules_in_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rules.json"
    path.write_text(json.dumps([FLUSH]), encoding="utf-8")
    assert [rule.arguments() for rule in load(path)] == [FLUSH]
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(FLUSH)))
    assert [rule.arguments() for rule in load(Path("-"))] == [FLUSH]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", "[", "is not JSON"),
        ("a.json", "[]", "has no rules in it"),
        ("a.json", "[1]", "a rule is an object with at least the members id, point and action"),
        ("a.json", '{"id": "x", "point": "timer"}', "a rule is an object with at least"),
        ("a.json", '{"id": "x", "point": "timer", "action": "drop", "ntth": 1}', "'x' has an unknown member 'ntth'"),
        ("a.py", "rules = 1", "has no list of qemu_hv.inject.Rule objects called 'rules'"),
        ("a.py", "rules = ['x']", "has no list of qemu_hv.inject.Rule objects called 'rules'"),
        ("a.py", "\nrules = [1 / 0]", "a.py, line 2: ZeroDivisionError: division by zero"),
        ("a.py", "rules = []", "has no rules in it"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, text: str, words: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        load(path)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("rules.py", "rules.json"):
        assert cli.main(["inject", "--qmp", "/nowhere", "add", str(tmp_path / name)]) == 1
        assert (
            capsys.readouterr().err == f"qemu-hv: error: {tmp_path / name} cannot be read: No such file or directory\n"
        )


def test_table() -> None:
    base = {"partition": 1, "point": "timer"}
    injections = [
        {
            "rule": {**base, "id": "a", "action": "drop", "vp": 3, "nth": 7},
            "orphaned": False,
            "matched": 9,
            "injected": 1,
            "skipped": 0,
        },
        {
            "rule": {**base, "id": "b", "action": "delay", "delay": 50, "target": "1", "every": 2, "limit": 5},
            "orphaned": True,
            "matched": 0,
            "injected": 0,
            "skipped": 0,
        },
        {
            "rule": {**base, "id": "c", "action": "status", "status": "HV_STATUS_NO_DATA", "fraction": 0.25},
            "orphaned": False,
            "matched": 0,
            "injected": 0,
            "skipped": 2,
        },
    ]
    out = io.StringIO()
    Console(file=out, width=200).print(table(injections))
    lines = [line.split() for line in out.getvalue().splitlines()]
    assert lines[1:] == [
        "a 1, VP 3 timer any number 7 drop 9 1 0".split(),
        "b 1 (gone) timer 1 every 2, 5 times delay 50 us 0 0 0".split(),
        "c 1 timer any 25 % HV_STATUS_NO_DATA 0 0 2".split(),
    ]


def test_rule_is_a_value() -> None:
    assert Rule("a", "timer", "drop") == Rule("a", "timer", "drop")
