# SPDX-License-Identifier: GPL-2.0-or-later
"""A whole run of the benchmark: as JSON, as a table, and as docs/performance.md.

``python -m bench.results`` writes the page from docs/performance.json; with ``--check`` it only says whether the page
is the one that the JSON makes (exit status 1 when it is not).
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from rich.console import Console
from rich.table import Table
from rich.text import Text

from qemu_hv import generated_page

from .figures import ALSO, FIGURES, Result, evaluate
from .samples import Samples, Spread

__all__ = ["JSON_FILE", "PAGE", "BenchmarkRun", "page_difference", "print_tables", "write_page"]

_DOCS = Path(__file__).resolve().parents[2] / "docs"
JSON_FILE = _DOCS / "performance.json"
"""The run that the page shows."""
PAGE = _DOCS / "performance.md"
"""The page: text by hand, and between the two marks what this module makes."""
_BEGIN, _END = "<!-- made from performance.json: begin -->", "<!-- made from performance.json: end -->"
_FORMAT = 1
_WIDE = 160
_VERDICT_STYLES = {"missed": "bold red", "reached": "yellow", "aim reached": "green"}


@dataclass
class BenchmarkRun:
    """Everything about a run.

    Attributes:
        date: ISO 8601, when it began.
        qemu: QEMU's version.
        machine: the host, name of a fact to its text.
        settings: name to text, such as the kernel that was booted.
        samples: what was measured.
    """

    date: str
    qemu: str
    machine: dict[str, str]
    settings: dict[str, str]
    samples: Samples

    def to_json(self) -> dict[str, Any]:
        """Return the run, and the figures that follow from it, as what JSON can hold. Times are in seconds."""
        document = {"format": _FORMAT, **asdict(self)}
        document["samples"] = self.samples.values
        document["figures"] = [_result_to_json(result) for result in evaluate(FIGURES + ALSO, self.samples)]
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> BenchmarkRun:
        """Return the run that to_json() was made of.

        Raises:
            ValueError: it is of another format.
        """
        if document.get("format") != _FORMAT:
            raise ValueError(f"this is not a benchmark's JSON of format {_FORMAT}")
        fields = {name: document[name] for name in ("date", "qemu", "machine", "settings")}
        return cls(**fields, samples=Samples(document["samples"]))

    def results(self) -> list[Result]:
        """Return the figures with limits."""
        return evaluate(FIGURES, self.samples)

    def other_results(self) -> list[Result]:
        """Return the figures without limits."""
        return evaluate(ALSO, self.samples)


def _result_to_json(result: Result) -> dict[str, Any]:
    return {
        "key": result.figure.key,
        "title": result.figure.title,
        "must": result.figure.must,
        "aim": result.figure.aim,
        "ours": asdict(result.ours),
        "theirs": None if result.theirs is None else asdict(result.theirs),
        "ratio": asdict(result.ratio),
        "missed": result.missed,
    }


# -- Text --


_UNITS = (("s", 1.0), ("ms", 1e-3), ("\N{MICRO SIGN}s", 1e-6), ("ns", 1e-9))


def _scaled(value: float) -> tuple[str, float]:
    return next((item for item in _UNITS if abs(value) >= item[1]), _UNITS[-1])


def _digits(value: float) -> int:
    return max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0


def _spread(spread: Spread) -> str:
    """Return the median and half the distance of the quartiles, with three significant digits of the median."""
    unit, scale = _scaled(spread.median)
    median, half = spread.median / scale, (spread.upper - spread.lower) / 2 / scale
    digits = _digits(median)
    return f"{median:.{digits}f} \N{PLUS-MINUS SIGN}{half:.{digits}f} {unit}"


def _ratio(result: Result) -> str:
    ratio = result.ratio
    if result.theirs is not None:
        return f"{ratio.median:.3f} ({ratio.low:.3f}..{ratio.high:.3f})"
    unit, scale = _scaled(ratio.median)
    digits = _digits(ratio.median / scale)
    low, high = ratio.low / scale, ratio.high / scale
    return f"{ratio.median / scale:.{digits}f} ({low:.{digits}f}..{high:.{digits}f}) {unit}"


def _limit(result: Result, value: Optional[float]) -> str:
    if value is None:
        return ""
    if result.theirs is not None:
        return f"{value:g}"
    unit, scale = _scaled(value)
    return f"{value / scale:g} {unit}"


def _cells(result: Result) -> list[str]:
    return [
        result.figure.title,
        _spread(result.ours),
        "" if result.theirs is None else _spread(result.theirs),
        str(result.ours.rounds),
        _ratio(result),
    ]


_COLUMNS = ["figure", "ours", "stock", "rounds", "ratio (95 % interval)"]
_EXPLANATION = "Times are medians of the rounds \N{PLUS-MINUS SIGN} half the distance of their quartiles."


def _table(title: str, *more: str) -> Table:
    table = Table(title=title, title_justify="left", show_edge=False)
    table.add_column(_COLUMNS[0], ratio=1)
    for name in (*_COLUMNS[1:], *more):
        table.add_column(name, no_wrap=True, justify="right")
    return table


def print_tables(run: BenchmarkRun, console: Console) -> None:
    """Print the run for a person. Where the output is no terminal, the table is as wide as it has to be."""
    if not console.is_terminal:
        console.width = _WIDE
    table = _table("Ratios to stock QEMU of the same build", "must", "aim", "")
    for result in run.results():
        verdict = result.verdict
        style = _VERDICT_STYLES.get(verdict, "none")
        cells = [*_cells(result), _limit(result, result.figure.must), _limit(result, result.figure.aim)]
        table.add_row(*cells, Text(verdict, style=style))
    console.print(table)
    other = _table("Also measured")
    for result in run.other_results():
        other.add_row(*_cells(result))
    console.print()
    console.print(other)
    console.print()
    console.print(_EXPLANATION)


def _markdown_table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def _made_part(run: BenchmarkRun) -> list[str]:
    rows = [
        [*_cells(result), f"<= {_limit(result, result.figure.must)}", _limit(result, result.figure.aim), result.verdict]
        for result in run.results()
    ]
    facts = {"date": run.date, "QEMU": run.qemu, **run.machine, **run.settings}
    return [
        *_markdown_table([*_COLUMNS, "must", "aim", ""], rows),
        _EXPLANATION,
        "",
        "Also measured:",
        "",
        *_markdown_table(_COLUMNS, [_cells(result) for result in run.other_results()]),
        "The run:",
        "",
        *_markdown_table(["", ""], [[name, text] for name, text in facts.items()]),
    ]


def _page(run: BenchmarkRun, present: str) -> str:
    """Return the page with the made part replaced."""
    before, begin, rest = present.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{PAGE} lacks the marks {_BEGIN} and {_END}")
    return before + "\n".join([_BEGIN, "", *_made_part(run), _END]) + after


def write_page() -> None:
    """Write the page from JSON_FILE."""
    PAGE.write_text(_made_page(), encoding="utf-8")


def _recorded() -> BenchmarkRun:
    return BenchmarkRun.from_json(json.loads(JSON_FILE.read_text(encoding="utf-8")))


def page_difference() -> list[str]:
    """Return the lines of a unified diff from the page to the one that JSON_FILE makes: none when it is current."""
    return generated_page.difference(PAGE, _made_page())


def _made_page() -> str:
    return _page(_recorded(), PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(generated_page.main(PAGE, _made_page(), __doc__))
