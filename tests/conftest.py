# SPDX-License-Identifier: GPL-2.0-or-later
"""Options of the tests, and how they are spread over processes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from distribution import UnitScheduling

# A developer's own run looks longer for trouble than CI, which has other things to do. More is for the night.
HOSTILE_SECONDS = 10.0 if os.environ.get("CI") else 20.0


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what a developer may want to change."""
    group = parser.getgroup("qemu-hv")
    group.addoption("--hostile-seconds", type=float, default=HOSTILE_SECONDS, help="how long the hostile guest runs")
    group.addoption("--hostile-seed", type=int, default=1, help="what it does")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort the tests of a run by several processes."""
    if hasattr(config, "workerinput"):
        from distribution import sort_items

        sort_items(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> UnitScheduling:
    """Keep tests together that share a machine."""
    from distribution import UnitScheduling

    return UnitScheduling(config, log)
