# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the core's tests: a guest of each interface generation."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from simulated_guest import Guest

settings.register_profile(
    "core",
    deadline=None,
    derandomize=True,
    max_examples=40,
    stateful_step_count=30,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("core")


@pytest.fixture(params=["2008r2", "current"])
def generation(request: pytest.FixtureRequest) -> str:
    """Name of an interface generation; every test that asks for it runs in both."""
    name: str = request.param
    return name


@pytest.fixture
def guest(generation: str) -> Guest:
    """A guest with four VPs that has set its identity and enabled its hypercall page."""
    return Guest(generation)
