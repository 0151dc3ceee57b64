# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines on KVM whose guest is a program for the root partition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from guest_firmware import start_arguments

__all__ = ["kvm_root_options"]

MEMORY = 256  # MiB


def kvm_root_options(image: Path) -> dict[str, Any]:
    """Return options of a machine with one processor; on some hosts KVM starts no others where QEMU has the APIC."""
    return {
        "accel": "kvm",
        "machine": "q35,kernel-irqchip=off",
        "cpu": "qemu64",
        "memory": f"{MEMORY}M",
        "console": "debugcon",
        "hypervisor": {"role": "root"},
        "extra": start_arguments(image, "generation=current", MEMORY),
    }
