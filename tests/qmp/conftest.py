# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines with a guest that the operator can talk to over QMP (operator_guest.c)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qemu_hv.pytest_plugin import HvMachineFactory

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "guests"))

from guest_image import build_image  # noqa: E402
from operator_machine import COMMAND_PORT, Operator  # noqa: E402


@pytest.fixture
def start_operator(hv_machine: HvMachineFactory) -> Callable[..., Operator]:
    """Give a function that starts a machine and waits until its guest is ready."""
    image = build_image(HERE / "operator_guest.c", 64)

    def start(**options: Any) -> Operator:
        defaults: dict[str, Any] = {"memory": "128M", "console": "debugcon", "smp": 2}
        machine = hv_machine(**{**defaults, "kernel": image.path, **options})
        machine.wait_for("^ready", timeout=60)
        operator = Operator(machine)
        operator("hv-create-port", port_id=COMMAND_PORT, type="message", sint=2, vp=0)
        return operator

    return start


@pytest.fixture
def operator(start_operator: Callable[..., Operator]) -> Operator:
    """Give a running guest with two VPs and a port for its commands."""
    return start_operator()
