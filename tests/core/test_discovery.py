# SPDX-License-Identifier: GPL-2.0-or-later
"""Chapter 3 of the TLFS: feature and interface discovery."""

from __future__ import annotations

import struct

import pytest
from simulated_guest import GUEST_OS_ID, HYPERCALL, HYPERCALL_PAGE, ONES, Guest

from qemu_hv._core import Machine, default_config

PRIVILEGE_BITS_2008R2 = [*range(11), *range(32, 41), 43, 44, 45]
FEATURE_BITS_2008R2 = [4, 5]
"""Of those that exist in 2.0a, the ones this hypervisor can offer."""


def test_leaf_range_and_vendor(generation: str) -> None:
    """TLFS 3.3, 3.4: leaf 0x40000000 tells a maximum of at least 5 and the vendor signature."""
    eax, ebx, ecx, edx = Machine(generation).cpuid(0x40000000)
    assert 0x40000005 <= eax <= 0x400000FF
    assert struct.pack("<III", ebx, ecx, edx) == b"Microsoft Hv"


def test_interface_signature(generation: str) -> None:
    """TLFS 3.4: leaf 0x40000001 tells the interface, and zeros where reserved."""
    assert Machine(generation).cpuid(0x40000001) == (0x31237648, 0, 0, 0)


def test_version_is_hidden_until_the_guest_tells_its_identity() -> None:
    """TLFS 3.4, 3.6: leaf 0x40000002 is zero until GUEST_OS_ID is set."""
    m = Machine("2008r2")
    assert m.cpuid(0x40000002) == (0, 0, 0, 0)
    m.wrmsr(0, GUEST_OS_ID, 1)
    assert m.cpuid(0x40000002) != (0, 0, 0, 0)
    m.wrmsr(0, GUEST_OS_ID, 0)
    assert m.cpuid(0x40000002) == (0, 0, 0, 0)


def test_version_is_always_there_in_the_current_generation() -> None:
    """Deployed clients print leaf 0x40000002 before they set GUEST_OS_ID."""
    m = Machine("current")
    before = m.cpuid(0x40000002)
    m.wrmsr(0, GUEST_OS_ID, 1)
    assert before == m.cpuid(0x40000002) != (0, 0, 0, 0)


def test_version_fields(guest: Guest) -> None:
    """TLFS 3.4: build; major and minor; service pack; service branch and number."""
    c = guest.machine.config
    assert guest.machine.cpuid(0x40000002) == (
        c["build_number"],
        c["major_version"] << 16 | c["minor_version"],
        c["service_pack"],
        c["service_branch"] << 24 | c["service_number"],
    )


@pytest.mark.parametrize("bit", PRIVILEGE_BITS_2008R2)
def test_privileges_show_in_leaf_3(generation: str, bit: int) -> None:
    """TLFS 3.4: leaf 0x40000003 EAX and EBX are the partition's privileges, bit by bit."""
    eax, ebx, _, _ = Machine(generation, privileges=1 << bit).cpuid(0x40000003)
    assert ebx << 32 | eax == 1 << bit


@pytest.mark.parametrize("bit", FEATURE_BITS_2008R2)
def test_features_show_in_leaf_3(generation: str, bit: int) -> None:
    """TLFS 3.4: leaf 0x40000003 EDX tells miscellaneous features, bit by bit."""
    assert Machine(generation, features=1 << bit).cpuid(0x40000003)[3] == 1 << bit


def test_power_state_bits(generation: str) -> None:
    """TLFS 3.4: leaf 0x40000003 ECX 3:0 is the deepest processor power state, the rest reserved."""
    assert Machine(generation).cpuid(0x40000003)[2] <= 3


def test_2008r2_hides_what_came_later() -> None:
    """TLFS 3.4: reserved bits of leaves 3 and 4 are zero, whatever the configuration asks for."""
    m = Machine("2008r2", privileges=ONES, features=0xFFFFFFFF, recommendations=0xFFFFFFFF)
    eax, ebx, _, edx = m.cpuid(0x40000003)
    assert ebx << 32 | eax == sum(1 << bit for bit in PRIVILEGE_BITS_2008R2)
    assert edx & ~0x3F == 0
    assert m.cpuid(0x40000004)[0] & ~0x3F == 0


@pytest.mark.parametrize("bit", range(6))
def test_recommendations_show_in_leaf_4(generation: str, bit: int) -> None:
    """TLFS 3.4, 12.1.3: leaf 0x40000004 EAX tells recommendations, EBX the spinlock retries."""
    m = Machine(generation, recommendations=1 << bit, spinlock_retries=0xFFF)
    assert m.cpuid(0x40000004) == (1 << bit, 0xFFF, 0, 0)


def test_never_notify_of_spinning(generation: str) -> None:
    """TLFS 3.4: 0xFFFFFFFF spinlock retries mean never to notify."""
    assert Machine(generation, spinlock_retries=0xFFFFFFFF).cpuid(0x40000004)[1] == 0xFFFFFFFF


@pytest.mark.parametrize("vps", [1, 4, 64, 65, 240])
def test_implementation_limits(generation: str, vps: int) -> None:
    """TLFS 3.4: leaf 0x40000005 tells limits that hold, or zero."""
    eax, ebx, ecx, edx = Machine(generation, vps=vps).cpuid(0x40000005)
    assert eax == 0 or eax >= vps
    assert ebx == 0 or ebx >= 1
    assert (ecx, edx) == (0, 0)


@pytest.mark.parametrize("leaf", [0x40000080, 0x40000081, 0x40000082, 0x400000FF, 0x40000100, 0x40001000, 0x4000FFFF])
def test_leaves_above_the_maximum_answer_zero(generation: str, leaf: int) -> None:
    """Leaves above the maximum, which deployed clients read anyway, answer 0."""
    assert Machine(generation).cpuid(leaf) == (0, 0, 0, 0)


def test_every_leaf_above_the_maximum_answers_zero(generation: str) -> None:
    """TLFS 3.3: what EAX of leaf 0x40000000 does not cover is not there."""
    m = Machine(generation)
    last = m.cpuid(0x40000000)[0]
    assert all(m.cpuid(leaf) == (0, 0, 0, 0) for leaf in range(last + 1, 0x40000200))


def test_guest_os_identity(generation: str) -> None:
    """TLFS 3.6: initially zero, shared by all VPs, any value is kept."""
    m = Machine(generation, vps=2)
    assert m.rdmsr(0, GUEST_OS_ID) == 0
    m.wrmsr(1, GUEST_OS_ID, ONES)
    assert m.rdmsr(0, GUEST_OS_ID) == ONES


def test_clearing_the_identity_disables_the_hypercall_page(guest: Guest) -> None:
    """TLFS 3.6: if GUEST_OS_ID is zeroed, the hypercall page is disabled; it stays so."""
    m = guest.machine
    m.wrmsr(1, GUEST_OS_ID, 0)
    assert m.rdmsr(0, HYPERCALL) & 1 == 0
    assert m.read(HYPERCALL_PAGE, 4) == bytes(4)
    m.wrmsr(0, GUEST_OS_ID, 1)
    assert m.rdmsr(0, HYPERCALL) & 1 == 0


def test_mandatory_privileges_are_on_by_default(generation: str) -> None:
    """TLFS 4.12: Hv#1 promises GUEST_OS_ID, HYPERCALL and VP_INDEX."""
    privileges = default_config(generation)["privileges"]
    assert privileges >> 5 & 1
    assert privileges >> 6 & 1
