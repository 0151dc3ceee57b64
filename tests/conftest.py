# SPDX-License-Identifier: GPL-2.0-or-later
"""Options of the tests."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what a developer may want to change."""
    group = parser.getgroup("qemu-hv")
    group.addoption("--hostile-seconds", type=float, default=60.0, help="how long the hostile guest runs")
    group.addoption("--hostile-seed", type=int, default=1, help="what it does")
