# SPDX-License-Identifier: GPL-2.0-or-later
"""What TLFS 2.0a lacks and deployed clients of the current generation expect."""

from __future__ import annotations

import pytest
from simulated_guest import ONES, Guest

from qemu_hv._core import GeneralProtectionFault, Machine, default_config

TSC_FREQUENCY = 0x40000022
APIC_FREQUENCY = 0x40000023
CRASH_P0 = 0x40000100
CRASH_CTL = 0x40000105
TSC_INVARIANT_CONTROL = 0x40000118
NOTIFY = 1 << 63
MESSAGE = 1 << 62
LOG = 0x123000


def test_frequencies() -> None:
    """The frequency registers tell Hz."""
    m = Machine("current", tsc_frequency=2_595_999_123, apic_frequency=1_000_000_007)
    assert m.rdmsr(0, TSC_FREQUENCY) == 2_595_999_123
    assert m.rdmsr(0, APIC_FREQUENCY) == 1_000_000_007


# -- Crash reporting --


def crash(guest: Guest, control: int, *parameters: int, vp: int = 0) -> None:
    """Write the crash parameters, then the control register."""
    for number, parameter in enumerate(parameters):
        guest.machine.wrmsr(vp, CRASH_P0 + number, parameter)
    guest.machine.wrmsr(vp, CRASH_CTL, control)


@pytest.fixture
def current() -> Guest:
    """A guest of the current generation."""
    return Guest("current")


def test_crash_capabilities(current: Guest) -> None:
    """CRASH_CTL reads as what is supported: notification (63) and message (62)."""
    assert current.machine.rdmsr(0, CRASH_CTL) == NOTIFY | MESSAGE


def test_crash_parameters(current: Guest) -> None:
    """Five parameters, shared by all VPs."""
    for number in range(5):
        current.machine.wrmsr(0, CRASH_P0 + number, ONES - number)
    assert [current.machine.rdmsr(3, CRASH_P0 + n) for n in range(5)] == [ONES - n for n in range(5)]


def test_crash(current: Guest) -> None:
    """Bit 63 notifies: the machine is told the parameters, without a message."""
    crash(current, NOTIFY, 1, 2, 3, 4, 5, vp=2)
    (report,) = current.machine.crashes
    assert report == {"vp": 2, "parameters": [1, 2, 3, 4, 5], "message": None}


def test_crash_without_notification(current: Guest) -> None:
    """Without bit 63 nobody is told."""
    crash(current, 0, 1, 2, 3, 4, 5)
    crash(current, MESSAGE, 1, 2, 3, 4, 5)
    assert current.machine.crashes == []


@pytest.mark.parametrize(("gpa", "size"), [(LOG, 11), (LOG + 0xFF8, 11), (LOG, 4096)])
def test_crash_message(current: Guest, gpa: int, size: int) -> None:
    """Bit 62: P3 is the address and P4 the length of a text."""
    text = (b"Kernel panic" * 400)[:size]
    current.machine.write(gpa, text)
    crash(current, NOTIFY | MESSAGE, 0, 0, 0, gpa, size)
    (report,) = current.machine.crashes
    assert report["message"] == text


@pytest.mark.parametrize(("gpa", "size"), [(ONES - 4, 16), (1 << 40, 16), (1 << 30, 16), (LOG, ONES), (LOG, 1 << 32)])
def test_crash_message_from_nowhere(current: Guest, gpa: int, size: int) -> None:
    """A text that lies nowhere or is too long to be one does no harm, and the crash is told."""
    crash(current, NOTIFY | MESSAGE, 0, 0, 0, gpa, size)
    (report,) = current.machine.crashes
    assert report["parameters"] == [0, 0, 0, gpa, size]
    assert len(report["message"] or b"") <= 4096


# -- Invariant TSC control --


@pytest.fixture
def invariant() -> Machine:
    """A machine with AccessTscInvariantControls (bit 15), which is off by default."""
    privileges = default_config("current")["privileges"] | 1 << 15
    return Machine("current", vps=2, privileges=privileges)


def test_invariant_tsc(invariant: Machine) -> None:
    """Bit 0 makes the TSC invariant to the guest; the machine learns that CPUID changed."""
    assert invariant.rdmsr(0, TSC_INVARIANT_CONTROL) == 0
    assert not invariant.tsc_is_invariant
    invariant.wrmsr(1, TSC_INVARIANT_CONTROL, 1)
    assert invariant.rdmsr(0, TSC_INVARIANT_CONTROL) == 1
    assert invariant.tsc_is_invariant
    assert invariant.cpuid_changes == 1


@pytest.mark.parametrize("bit", [1, 2, 31, 63])
def test_invariant_tsc_reserved_bits(invariant: Machine, bit: int) -> None:
    """The other bits are reserved."""
    with pytest.raises(GeneralProtectionFault):
        invariant.wrmsr(0, TSC_INVARIANT_CONTROL, 1 << bit)


def test_invariant_tsc_after_reset(invariant: Machine) -> None:
    """A reset takes it back."""
    invariant.wrmsr(0, TSC_INVARIANT_CONTROL, 1)
    invariant.reset()
    assert not invariant.tsc_is_invariant
