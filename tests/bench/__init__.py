# SPDX-License-Identifier: GPL-2.0-or-later
"""The benchmark: what qemu-hv costs and gains, as ratios to stock QEMU of the same build (docs/performance.md)."""
