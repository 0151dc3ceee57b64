# SPDX-License-Identifier: GPL-2.0-or-later
"""Which widths and modes each guest is run in."""

from __future__ import annotations

from dataclasses import dataclass

from guest_image import GENERATION_2008R2
from guest_runner import Mode, make_modes

__all__ = ["GuestPlan", "plan_for"]

ALL_WAYS = {"mttcg": (1, 4), "single": (1, 4), "icount": (1, 4)}
ONE_VP = {"mttcg": (1,)}
FOUR_VPS = {"mttcg": (4,)}


@dataclass(frozen=True)
class GuestPlan:
    """How a guest is tested: (width of its code, mode) pairs."""

    runs: tuple[tuple[int, Mode], ...]


def _runs(bits: int, modes: list[Mode]) -> list[tuple[int, Mode]]:
    return [(bits, mode) for mode in modes]


def _default() -> list[tuple[int, Mode]]:
    """Return what a guest gets that is not listed below: every way TCG runs VPs, and the older interface once."""
    older = make_modes(FOUR_VPS, generation=GENERATION_2008R2, suffix="-2008r2")
    return _runs(64, make_modes(ALL_WAYS)) + _runs(64, older)


def _with_32_bit() -> list[tuple[int, Mode]]:
    pae = make_modes({"mttcg": (4,), "icount": (1,)})
    legacy = make_modes(ONE_VP, suffix="-legacy", append="paging=legacy")
    return _default() + _runs(32, pae) + _runs(32, legacy)


def _runtime() -> list[tuple[int, Mode]]:
    without = make_modes(ALL_WAYS, properties=None, suffix="-stock")
    legacy = make_modes(FOUR_VPS, properties=None, suffix="-stock-legacy", append="paging=legacy")
    return _runs(64, without) + _runs(32, without) + _runs(32, legacy) + _runs(64, make_modes(FOUR_VPS))


_PLANS = {
    "runtime": _runtime,
    "hypercall": _with_32_bit,
    "vmmu": _with_32_bit,
}


def plan_for(guest: str) -> GuestPlan:
    """Return the plan of the guest with this name."""
    return GuestPlan(tuple(_PLANS.get(guest, _default)()))
