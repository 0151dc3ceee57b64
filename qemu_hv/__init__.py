# SPDX-License-Identifier: GPL-2.0-or-later
"""The Microsoft hypervisor, emulated by QEMU: the tools around it."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
