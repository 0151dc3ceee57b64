# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the boot tests."""

from __future__ import annotations

from typing import Any

import pytest
from linux_guest import LinuxFactory, LinuxGuest, options

from qemu_hv.pytest_plugin import HvMachineFactory


@pytest.fixture
def boot(hv_machine: HvMachineFactory) -> LinuxFactory:
    """A function that boots a kernel and waits for its shell; the machines are ended after the test."""

    def start(kernel: str, **others: Any) -> LinuxGuest:
        return LinuxGuest(hv_machine(**vars(options(kernel, **others)))).wait_ready()

    return start
