# SPDX-License-Identifier: GPL-2.0-or-later
"""A hostile guest made of random bytes; scripts/fuzz guides the same entry by coverage."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_hv._core import fuzz

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"
"""Inputs that reach far, and those that once found a fault."""


@pytest.mark.parametrize("seed", range(40))
def test_random_bytes(seed: int) -> None:
    """Whatever a guest, its devices and its operator do, no rule and no promise is broken."""
    data = random.Random(seed).randbytes(20_000)
    assert fuzz(data) > 100


@given(st.binary(max_size=400))
def test_short_inputs(data: bytes) -> None:
    """The same, with inputs that hypothesis can make smaller."""
    fuzz(data)


def test_known_inputs() -> None:
    """Inputs that found a fault stay harmless."""
    paths = sorted(CORPUS.glob("*"))
    assert paths
    for path in paths:
        fuzz(path.read_bytes())
