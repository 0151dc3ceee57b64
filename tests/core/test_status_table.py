# SPDX-License-Identifier: GPL-2.0-or-later
"""TLFS 2.2, appendix C: status codes. TLFS 14.8.2: message types."""

from __future__ import annotations

import pytest
from spec_tables import LATER_MESSAGE_TYPES, MESSAGE_TYPES, STATUS_CODES

from qemu_hv._core import MessageType, Status, status_name

LATER = {0x0010: "NOT_FOUND", 0x0015: "INVALID_VP_STATE", 0x0041: "INVALID_LP_INDEX"}
"""Reserved or unused in 2.0a, given a meaning later."""


@pytest.mark.parametrize(("value", "name"), STATUS_CODES.items())
def test_value(value: int, name: str) -> None:
    """TLFS appendix C: value and name of each code."""
    assert Status[name] == value
    assert status_name(value) == f"HV_STATUS_{name}"


def test_nothing_else() -> None:
    """TLFS appendix C: every code is the specification's, or one that came later."""
    assert {int(status): status.name for status in Status} == STATUS_CODES | LATER


@pytest.mark.parametrize("value", [0x0001, 0x000F, 0x0038, 0x8000, 0xFFFF, 0x10000])
def test_unused_values_have_no_name(value: int) -> None:
    """TLFS appendix C: reserved values."""
    assert status_name(value) is None


def test_message_types() -> None:
    """TLFS 14.8.2: value and name of each type, and of those that came later."""
    assert {int(kind): kind.name for kind in MessageType} == MESSAGE_TYPES | LATER_MESSAGE_TYPES
