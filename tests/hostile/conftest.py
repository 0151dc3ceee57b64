# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMU that guests do their worst to."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from qemu_hv import build
from qemu_hv.qemu_binary import QemuBinary

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "guests"))


@pytest.fixture(scope="session")
def sanitized_qemu() -> QemuBinary:
    """A QEMU whose module and core are instrumented."""
    built = build.ensure(sanitize=True)
    return QemuBinary(built.path, built.firmware_dirs, built.environment)
