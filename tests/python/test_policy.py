# SPDX-License-Identifier: GPL-2.0-or-later
"""Policies, as the embedded interpreter loads and asks them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qemu_hv.policy import host
from qemu_hv.policy.partitions import Allow, DefaultPolicy, Deny, Policy, Request

QUESTION = {
    "parent": 1,
    "partition": 0,
    "depth": 1,
    "partitions": 1,
    "vps": 2,
    "privileges": 0x30,
    "mapped_pages": 1024,
    "promised_pages": 4096,
}


def ask(kind: str = "partition", **changes: int) -> dict[str, Any]:
    """The answer to a question like the one above."""
    reply: dict[str, Any] = json.loads(host.decide(json.dumps({"kind": kind, **QUESTION, **changes})))
    return reply


def write(folder: Path, text: str) -> str:
    """A user's policy file; returns its path."""
    path = folder / "mine.py"
    path.write_text("from qemu_hv.policy.partitions import *\n" + text, encoding="utf-8")
    return str(path)


def test_default_names_partitions() -> None:
    """Partitions are called by the order of their creation."""
    host.load("default")
    assert [ask()["name"] for _ in range(2)] == ["child-1", "child-2"]


@pytest.mark.parametrize(
    "kind, changes",
    [
        ("partition", {"partitions": DefaultPolicy.max_partitions}),
        ("partition", {"depth": DefaultPolicy.max_depth + 1}),
        ("vp", {"vps": DefaultPolicy.max_vps}),
    ],
)
def test_default_limits(kind: str, changes: dict[str, int], capsys: pytest.CaptureFixture[str]) -> None:
    """One too many is refused in one line that tells the limit."""
    host.load("default")
    assert ask(kind, **changes) == {"allow": False}
    log = capsys.readouterr().err
    assert log.count("\n") == 1 and "limit" in log
    last = {key: value - 1 for key, value in changes.items()}
    assert ask(kind, **last)["allow"] is True


class Shares(DefaultPolicy):
    """8192 pages, in shares of 3000."""

    max_pages = 8192
    partition_pages = 3000


class Rest(DefaultPolicy):
    """8192 pages for whoever comes first."""

    max_pages = 8192


class Each(DefaultPolicy):
    """3000 pages each."""

    partition_pages = 3000


@pytest.mark.parametrize(
    "policy, promised, depth, expected",
    [
        (DefaultPolicy(), 1 << 40, 1, None),
        (Each(), 1 << 40, 1, 3000),
        (Each(), 0, 2, 3000),
        (Shares(), 0, 1, 3000),
        (Shares(), 8192 - 3000, 1, 3000),
        (Shares(), 1 << 40, 2, 3000),
        (Rest(), 0, 1, 8192),
        (Rest(), 8191, 1, 1),
        (Rest(), 1 << 40, 2, None),
    ],
)
def test_default_memory(
    policy: Policy, promised: int, depth: int, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit for each, a share of a total, or what is left of it; those below have theirs from their parents."""
    monkeypatch.setattr(host, "_policy", policy)
    reply = ask(promised_pages=promised, depth=depth)
    assert reply["allow"] is True
    assert reply.get("page_limit") == (None if expected is None else str(expected))
    assert ask("vp", promised_pages=promised, depth=depth) == {"allow": True}


@pytest.mark.parametrize("policy, promised", [(Shares(), 8192 - 2999), (Rest(), 8192), (Rest(), 1 << 40)])
def test_default_memory_ends(
    policy: Policy, promised: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Too little is left: refused, and not counted for the names."""
    monkeypatch.setattr(host, "_policy", policy)
    assert ask(promised_pages=promised) == {"allow": False}
    assert f"{promised} pages are promised already, the limit is 8192" in capsys.readouterr().err


def test_own_policy(tmp_path: Path) -> None:
    """A class in a file, with an answer of its own."""
    path = write(
        tmp_path,
        "class Mine(Policy):\n"
        "    def admit_partition(self, request):\n"
        "        return Allow(request.privileges | 1 << 63, 'mine', request.mapped_pages)\n",
    )
    host.load(f"{path}:Mine")
    assert ask() == {"allow": True, "privileges": str(0x30 | 1 << 63), "name": "mine", "page_limit": "1024"}
    assert ask("vp") == {"allow": True}


def test_exception_denies_with_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a policy raises is logged and denies."""
    path = write(tmp_path, "class Mine(Policy):\n    def admit_vp(self, request):\n        return 1 // 0\n")
    host.load(f"{path}:Mine")
    assert ask("vp") == {"allow": False}
    log = capsys.readouterr().err
    assert "Traceback" in log and "ZeroDivisionError" in log and "mine.py" in log


def test_wrong_answer_denies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An answer that is not an Allow is a mistake, not a permission."""
    path = write(tmp_path, "class Mine(Policy):\n    def admit_vp(self, request):\n        return True\n")
    host.load(f"{path}:Mine")
    assert ask("vp") == {"allow": False}
    assert "return Allow() or raise Deny" in capsys.readouterr().err


@pytest.mark.parametrize("field", ["privileges", "page_limit"])
@pytest.mark.parametrize("number", ["-1", "1 << 64"])
def test_impossible_numbers_deny(tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str, number: str) -> None:
    """What 64 bits cannot hold is a mistake of the policy."""
    path = write(
        tmp_path,
        f"class Mine(Policy):\n    def admit_partition(self, request):\n        return Allow({field}={number})\n",
    )
    host.load(f"{path}:Mine")
    assert ask() == {"allow": False}
    assert "is not a number of 64 bits" in capsys.readouterr().err


def test_deny_gives_its_reason(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is the log line."""

    class Closed(Policy):
        def admit_partition(self, request: Request) -> Allow:
            raise Deny("closed today")

    monkeypatch.setattr(host, "_policy", Closed())
    assert ask() == {"allow": False}
    assert capsys.readouterr().err == "policy: a partition for partition 1 is denied: closed today\n"


@pytest.mark.parametrize(
    "text, name, error",
    [
        ("class Mine: pass\n", "Mine", TypeError),
        ("class Mine(Policy): pass\n", "Other", AttributeError),
        ("syntax error\n", "Mine", SyntaxError),
    ],
)
def test_bad_file(tmp_path: Path, text: str, name: str, error: type[Exception]) -> None:
    """A file that has no such policy is refused when it is loaded."""
    with pytest.raises(error):
        host.load(f"{write(tmp_path, text)}:{name}")
