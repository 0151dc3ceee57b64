# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest can tell KVM from TCG by: the only table of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Optional

__all__ = ["Difference", "difference", "kvm_is_usable"]

ALL = ("kvm", "kvm-split", "kvm-off")
KERNEL_APIC = ("kvm", "kvm-split")


@dataclass(frozen=True)
class Difference:
    """Why a check does not pass with KVM.

    Attributes:
        ways: of running VPs in which it does not.
        message: regular expression for how it fails: what the guest gets instead.
        reason: why.
        everywhere: on all hosts. Else only on some, such as those whose KVM interprets the guest: there the check may
            pass as well.
    """

    ways: tuple[str, ...]
    message: str
    reason: str
    everywhere: bool = True


_DIFFERENCES: dict[str, Difference] = {
    "page_write_fault_tells_where": Difference(
        ALL,
        r"fault\.ip",
        "KVM has retired a write to read-only memory when it tells of it: #GP is the next instruction's",
    ),
    "call_from_user_mode_is_undefined": Difference(
        ALL,
        r"fault\.vector, got 0xd \(13\), expected 0x6",
        "KVM keeps VMCALL for itself; OUT, which the page has instead, is #GP at CPL 3",
    ),
    "version_needs_an_identity": Difference(
        ALL, r"all_zero", "KVM does not change CPUID once a VP has run: the version leaf is there from the beginning"
    ),
    "auto_eoi": Difference(
        KERNEL_APIC,
        r"in_service|interrupt_count",
        "KVM's own local APIC does not tell when it accepts an interrupt; CPUID recommends not to use auto-EOI",
        everywhere=False,
    ),
    "eoi_delivers_the_next": Difference(
        KERNEL_APIC,
        r".",
        "KVM's own local APIC does not tell of an EOI: the message comes with EOM, or when delivery is tried again",
        everywhere=False,
    ),
    "auto_eoi_is_the_sints": Difference(
        KERNEL_APIC, r"in_service, got false", "this KVM does not show interrupts in service", everywhere=False
    ),
    "auto_eoi_switched_off": Difference(
        KERNEL_APIC, r"in_service, got false", "this KVM does not show interrupts in service", everywhere=False
    ),
    "compatibility_mode_uses_the_32_bit_convention": Difference(
        ALL, r"unexpected exception 12", "the runtime's null SS is #SS in compatibility mode", everywhere=False
    ),
    "call_from_real_mode_is_undefined": Difference(
        ALL, r"the guest was silent", "this KVM does not run APs in real mode", everywhere=False
    ),
    "real_mode": Difference(ALL, r"the guest was silent", "this KVM does not run APs in real mode", everywhere=False),
}


def difference(check: str, way: str) -> Optional[Difference]:
    """Return why a check does not pass in a way of running VPs, or nothing if it has to."""
    found = _DIFFERENCES.get(check)
    return found if found and way in found.ways else None


def kvm_is_usable() -> bool:
    """Tell whether this host lets us use KVM."""
    return os.access("/dev/kvm", os.R_OK | os.W_OK)
