# SPDX-License-Identifier: GPL-2.0-or-later
"""The benchmark's arithmetic and its page. That it runs is seen by running it."""

from __future__ import annotations

import json
import random

import pytest

from . import results, workloads
from .figures import ALSO, FIGURES, Figure, evaluate
from .process import Flavours
from .results import BenchmarkRun
from .samples import OBJECT, PATCHED, ROOT, STOCK, Samples, ratio_of, spread_of

A_FIGURE = Figure("key", "title", (OBJECT, "x"), (STOCK, "x"), must=1.0, aim=0.9)


def samples_with_ratio(ratio: float, rounds: int, noise: float = 0.02) -> Samples:
    """Return rounds in which the machine's speed varies much and the ratio little."""
    generator = random.Random(1)
    samples = Samples()
    for _ in range(rounds):
        speed = generator.uniform(1, 3)
        samples.add(STOCK, "x", speed)
        samples.add(OBJECT, "x", speed * ratio * generator.uniform(1 - noise, 1 + noise))
    return samples


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(1.05, "missed"), (1.0, "reached"), (0.95, "reached"), (0.85, "aim reached")]
)
def test_verdict(ratio: float, verdict: str) -> None:
    (result,) = evaluate((A_FIGURE,), samples_with_ratio(ratio, 24))
    assert result.verdict == verdict
    assert result.missed == (verdict == "missed")
    assert result.ratio.low <= result.ratio.median <= result.ratio.high
    assert result.ratio.median == pytest.approx(ratio, rel=0.02)


def test_few_rounds_miss_no_limit() -> None:
    (result,) = evaluate((A_FIGURE,), samples_with_ratio(2.0, 3))
    assert not result.missed
    assert result.verdict == "too few rounds"


def test_figures_that_were_not_measured_are_left_out() -> None:
    assert evaluate(FIGURES + ALSO, Samples()) == []


def test_ratio_needs_pairs() -> None:
    with pytest.raises(ValueError, match="pairs"):
        ratio_of([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="pairs"):
        ratio_of([], [])


def test_spread_of_one_value() -> None:
    assert spread_of([2.0]).lower == spread_of([2.0]).upper == 2.0


def test_fastest_loop_and_median_event() -> None:
    output = "BENCH loop ps 3000\nBENCH loop ps 2000\n" + "".join(f"BENCH late ns {n}\n" for n in (900, 50, 70))
    assert workloads.parse_guest(output + "BENCH-END\n") == pytest.approx({"loop": 2e-9, "late": 70e-9})


@pytest.mark.parametrize("output", ["", "BENCH a ps 1\n", "BENCH a m 1\nBENCH-END\n", "BENCH a ps x\nBENCH-END\n"])
def test_incomplete_guest_output(output: str) -> None:
    with pytest.raises(ValueError, match=r"end|unit|invalid literal"):
        workloads.parse_guest(output)


def test_reset_vector() -> None:
    rom = workloads.start_rom()
    assert len(rom) == 0x10000
    assert rom[0xFFF0:0xFFF4] == b"\xb0!\xe6\xe9"


def test_every_flavour_is_as_often_first() -> None:
    flavours = (STOCK, PATCHED, OBJECT)
    orders = [Flavours.order(number, flavours) for number in range(6)]
    assert sorted(order[0] for order in orders) == sorted(flavours * 2)
    assert len(set(orders)) == 6


def test_time_without_comparison() -> None:
    figure = Figure("key", "title", (ROOT, "x"), None, must=2e-3, aim=1e-3)
    samples = Samples({ROOT: {"x": [1.4e-3, 1.5e-3, 1.6e-3] * 4}})
    (result,) = evaluate((figure,), samples)
    assert result.theirs is None
    assert result.ratio.median == pytest.approx(1.5e-3)
    assert result.verdict == "reached"
    (result,) = evaluate((figure,), Samples({ROOT: {"x": [3e-3] * 12}}))
    assert result.verdict == "missed"


def test_json_round_trip() -> None:
    run = BenchmarkRun("2026-01-01", "10.0", {"processor": "a"}, {"kernel": "b"}, samples_with_ratio(1.0, 3))
    document = json.loads(json.dumps(run.to_json()))
    assert BenchmarkRun.from_json(document) == run
    with pytest.raises(ValueError, match="format"):
        BenchmarkRun.from_json({**document, "format": 0})


def test_page_is_made_from_the_recorded_run() -> None:
    assert results.page_difference() == []
