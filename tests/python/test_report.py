# SPDX-License-Identifier: GPL-2.0-or-later
"""A recorded run as tables and as JSON."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from qemu_hv.guest_facts import GuestFacts, InterruptRow
from qemu_hv.report import HypervisorState, Report, print_tables

RECORDED = Path(__file__).parent / "data" / "run_report.json"


@pytest.fixture
def recorded() -> Any:
    return json.loads(RECORDED.read_text(encoding="utf-8"))


def as_report(data: Any) -> Report:
    data = copy.deepcopy(data)
    guest = data.pop("guest")
    guest["interrupts"] = [InterruptRow(**row) for row in guest["interrupts"]]
    state = data.pop("state")
    return Report(**data, guest=GuestFacts(**guest), state=HypervisorState(**state) if state else None)


def rendered(report: Report) -> str:
    file = io.StringIO()
    print_tables(report.tables(), Console(file=file))
    return file.getvalue()


def row(text: str, *begin: str) -> list[str]:
    """The words of the line that begins with these words."""
    lines = [line.split() for line in text.splitlines()]
    (found,) = [words for words in lines if words[: len(begin)] == list(begin)]
    return found[len(begin) :]


def test_json_is_what_was_collected(recorded: Any) -> None:
    assert json.loads(json.dumps(as_report(recorded).to_json())) == recorded


def test_summary(recorded: Any) -> None:
    text = rendered(as_report(recorded))
    assert row(text, "outcome")[:2] == ["powered", "off"]
    assert row(text, "detected") == ["Hypervisor", "detected:", "Microsoft", "Hyper-V"]
    assert row(text, "time", "source")[0] == "hyperv_clocksource_tsc_page"
    assert row(text, "guest", "OS", "identity")[0] == "Linux"
    assert row(text, "HVS")[:2] == [str(count) for count in recorded["guest"]["interrupts"][-1]["counts"]]


def test_counts(recorded: Any) -> None:
    text = rendered(as_report(recorded))
    vps = recorded["state"]["vps"]

    def calls(vp: Any) -> int:
        counts = {call["name"]: call["count"] for call in vp["counters"]["hypercalls"]}
        return int(counts["HvSendSyntheticClusterIpi"])

    expected = [calls(vp) for vp in vps]
    assert row(text, "0x000b") == ["HvSendSyntheticClusterIpi", *map(str, expected), str(sum(expected))]
    writes = [{m["name"]: m["writes"] for m in vp["counters"]["msrs"]}["STIMER"] for vp in vps]
    assert row(text, "0x400000b0") == ["STIMER", *(f"0/{count}" for count in writes), "0", str(sum(writes))]


def test_timers(recorded: Any) -> None:
    text = rendered(as_report(recorded))
    assert "interrupt 0xed" in text
    timer = recorded["state"]["vps"][1]["timers"][0]
    assert row(text, "1", "0", "one-shot,")[-1] == str(timer["expirations"])


def test_many_vps_show_as_totals(recorded: Any) -> None:
    report = as_report(recorded)
    assert report.state is not None
    first = report.state.vps[0]
    report.state.vps = [{**first, "vp": index} for index in range(20)]
    text = rendered(report)
    single = next(c["count"] for c in first["counters"]["hypercalls"] if c["code"] == 11)
    assert row(text, "0x000b") == ["HvSendSyntheticClusterIpi", str(20 * single)]


def test_things_that_do_not_exist(recorded: Any) -> None:
    counters = recorded["state"]["vps"][0]["counters"]
    counters["unknown-hypercalls"], counters["unknown-msrs"] = 17, 23
    text = rendered(as_report(recorded))
    assert row(text, "(no", "such", "call)")[-1] == "17"
    assert row(text, "(no", "such", "register)")[-1] == "23"


def test_synic_and_ports(recorded: Any) -> None:
    synic = recorded["state"]["vps"][0]["synic"]
    synic["sints"][2].update(masked=False, vector=0xF3, queued=3, polling=True)
    recorded["state"]["ports"] = {
        "ports": [
            {"port-id": 5, "type": "message", "sint": 2, "posts": 9, "queued": 1},
            {
                "port-id": 6,
                "type": "event",
                "sint": 2,
                "vp": 1,
                "base-flag": 8,
                "flag-count": 4,
                "posts": 0,
                "queued": 0,
            },
        ],
        "connections": [{"connection-id": 77, "port-id": 5}],
    }
    text = rendered(as_report(recorded))
    assert "2 (vector 0xf3, polling, 3 queued)" in text
    assert row(text, "5", "message") == ["2", "any", "9", "1"]
    assert row(text, "6", "event") == ["2", "1", "8", "to", "11", "0", "0"]
    assert row(text, "77") == ["5"]


def test_crash(recorded: Any) -> None:
    message = "Kernel panic [red]not markup[/red]\nsecond line"
    recorded["crash"] = {"vp": 1, "parameters": [1, 2, 3, 4, 0xABC], "message": message}
    recorded["outcome"] = "crashed"
    text = rendered(as_report(recorded))
    assert "0x1 0x2 0x3 0x4 0xabc" in text
    assert "Kernel panic [red]not markup[/red]" in text and "second line" in text


def test_guest_that_said_nothing() -> None:
    text = rendered(Report("timed out", 2.0, "10.0.13", "tcg", GuestFacts()))
    assert row(text, "detected") == ["no", "hypervisor"]
    assert "Hypercalls" not in text


def test_text_of_the_guest_is_not_markup(recorded: Any) -> None:
    recorded["guest"]["kernel"] = "[bold]6.1[/bold]"
    assert "[bold]6.1[/bold]" in rendered(as_report(recorded))
