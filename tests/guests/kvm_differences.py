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


_NO_SUCH_INTERCEPT = Difference(
    ALL,
    r"status 0x5 INVALID_PARAMETER",
    "KVM executes CPUID and delivers exceptions by itself: HvInstallIntercept knows no such type",
)
_LOST_EVENT = Difference(
    ALL,
    r"intercept\.message\.type, got 0x8000002[12]",
    "KVM does not tell where the delivery of an event failed: it counts as unrecoverable, or as not supported",
)
_LATE_INTERRUPT = Difference(
    ALL, r"got", "this KVM looks only now and then whether an interrupt can be taken", everywhere=False
)
_SMALL_PROCESSOR = Difference(
    ALL, r"status 0x5 INVALID_PARAMETER", "-cpu qemu64 has no AVX and not all of CR4", everywhere=False
)
_FEW_INSTRUCTIONS = Difference(
    ALL,
    r"intercept\.message\.type, got 0x8000002[12]",
    "this KVM does not know all instructions: it fails to emulate x87, SSE and far returns",
    everywhere=False,
)
_NARROW_TABLES = Difference(
    ALL, r"intercept\.message\.type, got 0x80000000", "this KVM walks page tables of 64-bit code only", everywhere=False
)

_DIFFERENCES: dict[str, Difference] = {
    "cpuid_is_intercepted": _NO_SUCH_INTERCEPT,
    "other_leaves_are_not": _NO_SUCH_INTERCEPT,
    "exception_is_intercepted": _NO_SUCH_INTERCEPT,
    "monitor_is_undefined": _NO_SUCH_INTERCEPT,
    "breakpoints_of_the_parent": _NO_SUCH_INTERCEPT,
    "page_fault_is_intercepted": _NO_SUCH_INTERCEPT,
    "second_exception_is_intercepted": _NO_SUCH_INTERCEPT,
    "double_fault_is_intercepted": _NO_SUCH_INTERCEPT,
    "software_interrupts_are_not_intercepted": _NO_SUCH_INTERCEPT,
    "breakpoint_in_a_segment_with_a_base": _NO_SUCH_INTERCEPT,
    "no_breakpoint_at_an_offset": _NO_SUCH_INTERCEPT,
    "execution_of_data": Difference(
        ALL, r"intercept\.message\.type, got 0x80010000", "a memory slot of KVM cannot withhold the right to execute"
    ),
    "event_without_a_stack": _LOST_EVENT,
    "event_taken_back": _LOST_EVENT,
    "trap_without_a_stack": _LOST_EVENT,
    "software_interrupt_without_a_stack": _LOST_EVENT,
    "injected_event_meets_a_hole": _LOST_EVENT,
    "write_across_pages": Difference(
        ALL, r"page\[PAGE_SIZE - 1\]", "KVM has written what is in memory when it tells of what is not"
    ),
    "accessed_bit_is_a_write": Difference(
        ALL,
        r"intercept\.message\.type, got 0x80010000",
        "this KVM leaves accessed bits of a table that it cannot write as they are",
        everywhere=False,
    ),
    "shadow_is_seen": Difference(ALL, r"InterruptState", "KVM has retired OUT when it tells of it, and so the shadow"),
    "shadow_of_the_parent": _LATE_INTERRUPT,
    "task_priority": _LATE_INTERRUPT,
    "nmi": _LATE_INTERRUPT,
    "control_registers": _SMALL_PROCESSOR,
    "supervisor_protection": _SMALL_PROCESSOR,
    "large_pages": Difference(ALL, r"output\.result", "-cpu qemu64 has no pages of 1 GiB", everywhere=False),
    "table_in_an_overlay": Difference(
        ALL, r"find_entry_in_code", "the code in the hypercall page is not the one that looks like a table's entry"
    ),
    "wide_vectors": _SMALL_PROCESSOR,
    "time_stamp_counter": Difference(
        ALL, r"read >= TSC_VALUE", "the TSC of this KVM's vCPUs is the host's, whatever it is set to", everywhere=False
    ),
    "floating_point": _FEW_INSTRUCTIONS,
    "ferr": _FEW_INSTRUCTIONS,
    "in_protected_mode": _FEW_INSTRUCTIONS,
    "floating_point_goes_on": Difference(
        ALL, r"\*counter > 100", "this KVM fails to emulate x87: the child stops at FNINIT", everywhere=False
    ),
    "long_spin_wait": Difference(
        ALL,
        r"share\(2, 0\) < 1500",
        "entering this KVM for a hypercall and leaving it take 0.2 ms, and a slice is 1 ms",
        everywhere=False,
    ),
    "absent_task": Difference(
        ALL,
        r"intercept\.message\.type, got 0x80010000",
        "this KVM uses an absent TSS",
        everywhere=False,
    ),
    "two_level_paging": _NARROW_TABLES,
    "three_level_paging": _NARROW_TABLES,
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
