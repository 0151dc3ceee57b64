# SPDX-License-Identifier: GPL-2.0-or-later
"""Options of the tests."""

from __future__ import annotations

import os

import pytest

# A developer's own run looks longer for trouble than CI, which has other things to do.
HOSTILE_SECONDS = 10.0 if os.environ.get("CI") else 60.0


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what a developer may want to change."""
    group = parser.getgroup("qemu-hv")
    group.addoption("--hostile-seconds", type=float, default=HOSTILE_SECONDS, help="how long the hostile guest runs")
    group.addoption("--hostile-seed", type=int, default=1, help="what it does")
