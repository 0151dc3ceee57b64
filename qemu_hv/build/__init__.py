# SPDX-License-Identifier: GPL-2.0-or-later
"""Obtaining, patching, configuring, building and caching QEMU.

``ensure()`` is all that other code needs: it returns a QEMU that is ready to run, building it
first if the cache does not hold it.
"""

from __future__ import annotations

from .qemu import BuiltQemu, ensure

__all__ = ["BuiltQemu", "ensure"]
