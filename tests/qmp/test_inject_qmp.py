# SPDX-License-Identifier: GPL-2.0-or-later
"""Fault injection over QMP and by the command: every error, and what the guest sees."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from operator_machine import COMMAND_PORT, Operator

from qemu_hv import cli
from qemu_hv.machine import CommandFailed

RULE: dict[str, Any] = {"id": "r", "point": "hypercall", "action": "gp"}


def injections(operator: Operator) -> dict[str, Any]:
    return {found["rule"]["id"]: found for found in operator("query-hv-injections")}


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"target": "HvNoSuchCall"}, "Rule 'r': 'HvNoSuchCall' is neither a number nor the name of a hypercall"),
        ({"target": "0x11f"}, "Rule 'r' (gp at hypercall): there is no such hypercall in this interface generation"),
        ({"target": "-1"}, "'-1' is neither a number nor the name of a hypercall"),
        ({"point": "msr-read", "target": "SINT16"}, "'SINT16' is neither a number nor the name of an MSR"),
        ({"point": "msr-read", "target": "SINT"}, "'SINT' is neither a number nor the name of an MSR"),
        ({"point": "msr-read", "target": "EOI"}, "Rule 'r' (gp at msr-read): this MSR cannot be read"),
        ({"point": "event", "action": "drop", "target": "x"}, "event flags have numbers"),
        ({"point": "timer", "action": "drop", "target": "4"}, "(drop at timer): a timer is 0 to 3"),
        (
            {"point": "message", "action": "drop", "target": "Foo"},
            "'Foo' is neither a number nor the name of a message",
        ),
        ({"point": "message"}, "Rule 'r' (gp at message): this action makes no sense there"),
        ({"nth": 1, "every": 2}, "only one of 'nth', 'every' and 'fraction' can be given"),
        ({"seed": 1}, "'seed' belongs to 'fraction'"),
        ({"limit": 0}, "'limit' must be at least 1"),
        ({"fraction": 0}, "a fraction is above 0 and at most 1"),
        ({"status": "HV_STATUS_NO_DATA"}, "'status' and the action 'status' belong together"),
        ({"action": "status"}, "'status' and the action 'status' belong together"),
        ({"action": "status", "status": "NOPE"}, "'NOPE' is neither a number up to 0xFFFF nor the name of a status"),
        ({"action": "status", "status": "65536"}, "'65536' is neither a number up to 0xFFFF"),
        ({"delay": 5}, "'delay' belongs to the actions 'delay', 'double' and 'reorder'"),
        ({"action": "delay", "delay": 0}, "a delay is 1 us to 1 hour"),
        ({"partition": 77}, "there is no such partition"),
        ({"vp": 2}, "the partition can have no such virtual processor"),
        ({"id": ""}, "a rule needs an id"),
        ({"id": "x" * 64}, "'id' is longer than 63 bytes"),
    ],
)
def test_refused_rules(operator: Operator, rule: dict[str, Any], words: str) -> None:
    with pytest.raises(CommandFailed) as error:
        operator("hv-inject-add", **{**RULE, **rule})
    assert words in str(error.value)
    assert injections(operator) == {}


def test_rules_are_told_as_they_were_given(operator: Operator) -> None:
    rules: list[dict[str, Any]] = [
        {
            "id": "a",
            "point": "hypercall",
            "action": "status",
            "target": "HvPostMessage",
            "partition": 1,
            "vp": 1,
            "fraction": 0.25,
            "seed": 7,
            "limit": 3,
            "status": "HV_STATUS_INSUFFICIENT_BUFFERS",
        },
        {"id": "b", "point": "msr-write", "action": "drop", "target": "SINT3", "partition": 1, "nth": 2},
        {"id": "c", "point": "msr-read", "action": "gp", "target": "TIME_REF_COUNT", "partition": 1, "every": 2},
        {"id": "d", "point": "message", "action": "reorder", "target": "TimerExpired", "partition": 1, "delay": 9},
        {"id": "e", "point": "event", "action": "double", "target": "2047", "partition": 1, "delay": 1000},
        {"id": "f", "point": "hypercall", "action": "status", "partition": 1, "status": "0x1234"},
    ]
    for rule in rules:
        operator("hv-inject-add", **rule)
    found = operator("query-hv-injections")
    assert [entry.pop("rule") for entry in found] == rules
    assert found == [{"orphaned": False, "matched": 0, "injected": 0, "skipped": 0}] * 6
    with pytest.raises(CommandFailed, match="there is a rule with this id"):
        operator("hv-inject-add", **rules[0])
    operator("hv-inject-remove", id="c")
    assert sorted(injections(operator)) == ["a", "b", "d", "e", "f"]
    with pytest.raises(CommandFailed, match="There is no rule 'c'; query-hv-injections lists what there is"):
        operator("hv-inject-remove", id="c")
    operator("hv-inject-remove")
    assert injections(operator) == {}


def test_the_guest_gets_a_status(operator: Operator) -> None:
    status = {"action": "status", "status": "0xb", "nth": 2}
    operator("hv-inject-add", id="r", point="hypercall", target="HvPostMessage", **status)
    operator("hv-connect-port", connection_id=9, port_id=COMMAND_PORT)
    seen = []
    for _ in range(3):
        operator.order("post", 9)
        seen.append(operator.machine.wait_for(r"posted status=(\w+)\n")[1])
    assert seen == ["0", "b", "0"]
    assert injections(operator)["r"]["matched"] == 3
    assert injections(operator)["r"]["injected"] == 1


def test_messages_are_dropped_and_come_late(operator: Operator) -> None:
    operator("hv-create-port", port_id=20, type="message", sint=2, vp=0)
    operator("hv-inject-add", id="drop", point="message", action="drop", target="2")
    operator("hv-inject-add", id="late", point="message", action="delay", target="3", delay=300000)
    for message_type in (2, 3, 4):
        operator("hv-post-message", port_id=20, message_type=message_type, payload="00" * 8, encoding="hex")
    operator.machine.wait_for("message type=4 .*[\\s\\S]*message type=3 ")
    assert "message type=2 " not in operator.machine.console_text
    counts = {name: found["injected"] for name, found in injections(operator).items()}
    assert counts == {"drop": 1, "late": 1}


def test_rules_survive_a_reset(start_operator: Callable[..., Operator]) -> None:
    operator = start_operator(actions={"reboot": "reset"})
    operator("hv-inject-add", id="r", point="event", action="drop", target="3", limit=2)
    operator.machine.reset()
    operator.machine.wait_for(r"^ready\n")
    operator("hv-create-port", port_id=21, type="event", sint=2, vp=0)
    for flag in (3, 4, 3, 3):
        operator("hv-signal-event", port_id=21, flag=flag)
        if flag == 4:
            operator.machine.wait_for("event flag=4")
    operator.machine.wait_for("event flag=3")
    assert injections(operator)["r"] == {
        "rule": {"id": "r", "point": "event", "action": "drop", "target": "3", "partition": 1, "limit": 2},
        "orphaned": False,
        "matched": 3,
        "injected": 2,
        "skipped": 0,
    }


def test_the_command(operator: Operator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    qmp = ["inject", "--qmp", str(operator.machine.machine.control_socket)]
    path = tmp_path / "rules.json"
    good = {"id": "good", "point": "timer", "action": "drop"}
    path.write_text(json.dumps([good, {"id": "bad", "point": "timer", "action": "gp"}]), encoding="utf-8")
    assert cli.main([*qmp, "add", str(path)]) == 1
    assert "Rule 'bad' (gp at timer): this action makes no sense there" in capsys.readouterr().err
    assert injections(operator) == {}, "all or none"
    path.write_text(json.dumps([good, {**good, "id": "other", "every": 5}]), encoding="utf-8")
    assert cli.main([*qmp, "add", str(path)]) == 0
    assert capsys.readouterr().out == "2 rules added\n"
    assert cli.main([*qmp, "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["rule", "good", "other"]
    assert cli.main([*qmp, "list", "--json"]) == 0
    assert [entry["rule"]["id"] for entry in json.loads(capsys.readouterr().out)] == ["good", "other"]
    assert cli.main([*qmp, "remove", "good"]) == 0
    assert list(injections(operator)) == ["other"]
    assert cli.main([*qmp, "remove", "--all"]) == 0
    assert injections(operator) == {}
