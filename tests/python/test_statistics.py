# SPDX-License-Identifier: GPL-2.0-or-later
"""Statistics on the operator's side: counters by name, snapshots, rates, history, and what the commands print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from qemu_hv import cli, statistics
from qemu_hv.errors import UserError
from qemu_hv.statistics import COUNTERS, History, Key, command, export, plot, top

HYPERVISOR, LP, ROOT, VP = (
    Key("hypervisor"),
    Key("logical-processor", index=0),
    Key("partition", 1),
    Key("vp", 1, 0),
)


def result(seconds: float, **changed: int) -> dict[str, Any]:
    """What query-hv-stats returns: everything 0 but what is named, for a root with one VP."""

    def counters(kind: str) -> list[dict[str, object]]:
        return [{"name": symbol, "value": changed.get(symbol, 0)} for symbol in COUNTERS[kind]]

    vp = {"object": "vp", "partition": 1, "index": 0, "counters": counters("vp")}
    calls = [{"name": "HvPostMessage", "count": changed.get("Hypercalls", 0)}]
    return {
        "time": int(seconds * 1e9),
        "objects": [
            {"object": "hypervisor", "counters": counters("hypervisor")},
            {"object": "logical-processor", "index": 0, "counters": counters("logical-processor")},
            {"object": "partition", "partition": 1, "partition-name": "one", "counters": counters("partition")},
            {**vp, "hypercalls": calls},
        ],
    }


@pytest.fixture
def history() -> History:
    """Two snapshots, two seconds apart."""
    made = History()
    made.add(statistics.parse(result(10, Hypercalls=100, TotalRunTime=1_000_000, GpaPages=512)))
    made.add(statistics.parse(result(12, Hypercalls=500, TotalRunTime=11_000_000, GpaPages=256, HypercallsCost=70)))
    return made


def test_registry() -> None:
    """TLFS appendix J: every counter has a name, and those that grow have rates."""
    assert {kind: len(counters) for kind, counters in COUNTERS.items()} == {
        "hypervisor": 5,
        "logical-processor": 18,
        "partition": 8,
        "vp": 68,
    }
    assert [counter.symbol for counter in statistics.find("hypercalls/SEC")] == ["Hypercalls"]
    assert len(statistics.find("VirtualProcessors")) == 2
    assert statistics.find("nothing") == []


def test_rates(history: History) -> None:
    """Events a second, and the share of time; levels have none."""
    assert history.rate(VP, "Hypercalls") == pytest.approx(200)
    assert history.rate(VP, "TotalRunTime") == pytest.approx(50)
    assert history.rate(ROOT, "GpaPages") is None
    assert history.call_rate(VP, "HvPostMessage") == pytest.approx(200)


def test_a_new_object_begins_at_zero(history: History) -> None:
    """A counter that is lower than before belongs to another object with the same name."""
    history.add(statistics.parse(result(14, Hypercalls=40)))
    assert history.rate(VP, "Hypercalls") == pytest.approx(20)


def test_ring(history: History) -> None:
    """Old snapshots are forgotten."""
    ring = History(3)
    for second in range(10):
        ring.add(statistics.parse(result(second, Hypercalls=second * second)))
    assert len(ring) == 3
    assert ring.series(VP, "Hypercalls") == [(8.0, 15.0), (9.0, 17.0)]
    assert history.series(ROOT, "GpaPages") == [(10.0, 512), (12.0, 256)]


def test_tables(history: History) -> None:
    """What `qemu-hv stats` prints has names, units and rates, and leaves out what is zero."""
    console = Console(width=100, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    console.print(*command.tables(history), sep="\n")
    text = console.export_text()
    assert "VP 1.0" in text and "partition 1 one" in text
    assert "Hypercalls/sec" in text and "200.0 /s" in text and "70 ns" in text and "50.0 %" in text
    assert "INVLPG" not in text and "Page Invalidations" not in text


def test_top(history: History) -> None:
    """The screen has all its parts."""
    console = Console(width=120, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    console.print(top.screen(history))
    text = console.export_text()
    for words in ("Logical processors", "Partitions", "1 one", "Virtual processors", "Intercepts", "HvPostMessage"):
        assert words in text


def test_plot(history: History, tmp_path: Path) -> None:
    """A picture of rates."""
    pytest.importorskip("matplotlib")
    path = tmp_path / "rates.png"
    plot.check(path)
    plot.draw(history, [(VP, COUNTERS["vp"]["Hypercalls"])], path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_plot_refuses_what_it_cannot_draw(tmp_path: Path) -> None:
    """One line that says what is wrong, before time is spent."""
    with pytest.raises(UserError, match=r"pictures are .pdf, .png, .svg files"):
        plot.check(tmp_path / "rates.txt")
    with pytest.raises(UserError, match="the folder does not exist"):
        plot.check(tmp_path / "none" / "rates.png")


def test_metrics(history: History) -> None:
    """Prometheus: base units, labels, counters that end in _total."""
    pytest.importorskip("prometheus_client")
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for metric in export.metrics(history.latest)
        for sample in metric.samples
    }
    assert samples[("hv_vp_hypercalls_total", ("partition", "1"), ("vp", "0"))] == 500
    assert samples[("hv_vp_total_run_time_seconds_total", ("partition", "1"), ("vp", "0"))] == pytest.approx(1.1)
    assert samples[("hv_vp_hypercalls_cost_seconds", ("partition", "1"), ("vp", "0"))] == pytest.approx(70e-9)
    assert samples[("hv_partition_gpa_pages", ("partition", "1"))] == 256
    name = ("hv_vp_hypercalls_by_name_total", ("name", "HvPostMessage"), ("partition", "1"), ("vp", "0"))
    assert samples[name] == 500
    assert len({metric.name for metric in export.metrics(history.latest)}) == 100


@pytest.mark.parametrize("words", [["stats"], ["top", "--once"], ["export"], ["stats", "--plot", "x.png"]])
def test_no_machine(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line on standard error."""
    assert cli.main([*words, "--qmp", str(tmp_path / "none")]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert "no QMP monitor answers" in captured.err


def test_wrong_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    """A counter that does not exist, an interval that is none."""
    assert cli.main(["stats", "--qmp", "none", "--counter", "Bananas"]) == 1
    assert "there is no counter 'Bananas'" in capsys.readouterr().err
    assert cli.main(["stats", "--qmp", "none", "--watch", "0"]) == 1
    assert cli.main(["top", "--qmp", "none", "--interval", "-1"]) == 1


def test_json(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each time."""
    command.print_json(history, command.Choice(["Hypercalls"], ["vp"], zeros=False))
    (line,) = capsys.readouterr().out.splitlines()
    (vp,) = json.loads(line)["objects"]
    assert vp["counters"] == {"Hypercalls": 500} and vp["rates"] == {"Hypercalls": pytest.approx(200)}


def test_csv(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each counter, with its rate."""
    command.print_csv(history, command.Choice(["Hypercalls"], None, zeros=False))
    assert capsys.readouterr().out.splitlines() == ["12.000000,vp,1,0,Hypercalls,500,200,/s"]
