# SPDX-License-Identifier: GPL-2.0-or-later
"""TLFS 11.1, 11.2, 11.11, appendix D: what CPUID tells children and the root."""

from __future__ import annotations

import pytest
from intercepts import Parent
from root import (
    PRIVILEGE_FLAGS,
    PROCESSOR_CLFLUSH_SIZE,
    PROCESSOR_FEATURES,
    PROCESSOR_XSAVE_FEATURES,
    Root,
)

from qemu_hv._core import Exit, Privilege, Register, Status

Leaf = tuple[int, int, int, int]

ONES: Leaf = (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
ZEROES: Leaf = (0, 0, 0, 0)
EAX, EBX, ECX, EDX = range(4)
CREATE_LAPIC = 1 << 13
CREATE_X2APIC = 1 << 22

HYPERVISOR_PRESENT = 1 << 31
FEATURE_BITS = [
    (1, ECX, 0),
    (0x80000001, ECX, 0),
    (1, ECX, 9),
    (1, ECX, 19),
    (1, ECX, 20),
    (0x80000001, ECX, 6),
    (0x80000001, ECX, 11),
    (1, ECX, 23),
    (1, ECX, 13),
    (0x80000001, ECX, 4),
    (0x80000001, ECX, 5),
    (0x80000001, ECX, 7),
    (0x80000001, EDX, 22),
    (0x80000001, EDX, 31),
    (0x80000001, EDX, 30),
]
"""Where CPUID shows the bits of HvPartitionPropertyProcessorFeatures (TLFS 5.2.8)."""


@pytest.fixture
def parent(generation: str) -> Parent:
    """A parent with one child."""
    return Parent(generation)


def cpuid(root: Root, vp: int, leaf: int, native: Leaf = ONES, subleaf: int = 0) -> Leaf:
    """CPUID, which must end without an intercept."""
    exit_, result = root.machine.child_cpuid(vp, leaf, subleaf, native)
    assert exit_ == Exit.DONE
    return result


def all_features(parent: Parent) -> None:
    """Let the partition have all features that its processor has."""
    value = parent.get_property(1, PROCESSOR_FEATURES)
    assert parent.set_property(parent.child, PROCESSOR_FEATURES, value) == Status.SUCCESS


# -- The child, appendix D --


def test_largest_leaf(parent: Parent) -> None:
    """Appendix D: capped, never raised."""
    cap = 0xD if parent.current else 6
    for native, expected in ((cap + 1, cap), (cap, cap), (2, 2), (0xFFFFFFFF, cap)):
        assert cpuid(parent, parent.vp, 0, (native, 1, 2, 3)) == (expected, 1, 2, 3)
    for native, expected in ((0x80000008, 0x80000008), (0x80000021, 0x8000001A)):
        assert cpuid(parent, parent.vp, 0x80000000, (native, 1, 2, 3)) == (expected, 1, 2, 3)


def test_feature_bits_that_are_always_there(parent: Parent) -> None:
    """Appendix D: bits that are one whatever the processor says."""
    for native in (ZEROES, ONES):
        _, _, ecx, edx = cpuid(parent, parent.vp, 1, native)
        assert edx & 0x078BFBFF == 0x078BFBFF
        assert ecx & HYPERVISOR_PRESENT
        assert cpuid(parent, parent.vp, 0x80000001, native)[EDX] & 0x2191FBFD == 0x2191FBFD


def test_feature_bits_that_are_never_there(parent: Parent) -> None:
    """TLFS 11.5: MONITOR.

    Appendix D: DS-CPL, VMX, EST, TM2, xTPR, PDCM, DCA; PSN, DS, ACPI, HTT, TM, PBE; SVM, SKINIT, WDT.
    """
    _, _, ecx, edx = cpuid(parent, parent.vp, 1)
    for bit in (2, 3, 4, 5, 6, 7, 8, 10, 14, 15, 18):
        assert not ecx >> bit & 1
    for bit in (10, 18, 20, 21, 22, 28, 29, 30, 31):
        assert not edx >> bit & 1
    _, _, ecx, edx = cpuid(parent, parent.vp, 0x80000001)
    for bit in (2, 3, 10, 12, 13, *range(14, 32)):
        assert not ecx >> bit & 1
    for bit in (10, 18, 19, 21, 28):
        assert not edx >> bit & 1


def test_later_features(parent: Parent) -> None:
    """Contradiction of the text with today's systems: what appendix D does not know is there in `current` only."""
    aes, rdrand, rdtscp, page_1gb = (1, ECX, 25), (1, ECX, 30), (0x80000001, EDX, 27), (0x80000001, EDX, 26)
    smep, fsgsbase = (7, EBX, 7), (7, EBX, 0)
    for leaf, register, bit in (aes, rdrand, rdtscp, page_1gb, smep, fsgsbase):
        assert cpuid(parent, parent.vp, leaf)[register] >> bit & 1 == parent.current
        assert not cpuid(parent, parent.vp, leaf, ZEROES)[register] >> bit & 1
    assert cpuid(parent, parent.vp, 7, ONES, 1) == ZEROES


@pytest.mark.parametrize("leaf", [3, 5, 8, 9, 0xA, 0xC, 0xE, 0x14, 0x80000009, 0x8000000A, 0x80000019, 0x8000001E])
def test_leaves_that_are_zero(parent: Parent, leaf: int) -> None:
    """TLFS 11.5, appendix D: serial number, MONITOR, performance counters, SVM, and leaves nobody knew."""
    assert cpuid(parent, parent.vp, leaf) == ZEROES


def test_version_passes(parent: Parent) -> None:
    """Appendix D: family, model and stepping are the processor's, reserved bits zero."""
    assert cpuid(parent, parent.vp, 1)[EAX] == 0x0FFF3FFF
    assert cpuid(parent, parent.vp, 0x80000001)[EAX] == 0x0FFF3FFF
    assert cpuid(parent, parent.vp, 1, (0x000306C3, 0, 0, 0))[EAX] == 0x306C3


@pytest.mark.parametrize("leaf", [2, 0x80000002, 0x80000003, 0x80000004, 0x80000005, 0x80000006])
def test_leaves_that_pass(parent: Parent, leaf: int) -> None:
    """Appendix D: cache descriptors of an Intel processor, brand, AMD's cache and TLB leaves."""
    native = (0x12345678, 0x9ABCDEF0, 0x0FEDCBA9, 0x87654321)
    assert cpuid(parent, parent.vp, leaf, native) == native


def test_topology_is_one_core_a_package(parent: Parent) -> None:
    """Appendix D, 10.1.6: no hyperthreads; caches are of one core."""
    assert cpuid(parent, parent.vp, 1)[EBX] >> 16 & 0xFF == 1
    eax, ebx, ecx, edx = cpuid(parent, parent.vp, 4)
    assert eax & 0xFFFFC000 == 0
    assert eax & 0x3000 == 0
    assert (ebx, ecx, edx) == (0xFFFFFFFF, 0xFFFFFFFF, 0)
    assert cpuid(parent, parent.vp, 0x80000008)[ECX] == 0


def test_address_widths(parent: Parent) -> None:
    """Appendix D: the width of GPAs is the hypervisor's."""
    native = (0x3028 | 7 << 16, 0xFF, 0x3007, 0xFF)
    assert cpuid(parent, parent.vp, 0x80000008, native)[:2] == (0x3024, 0)


def test_power_management(parent: Parent) -> None:
    """Appendix D: with CpuManagement only; the TSC is not told to be invariant."""
    assert cpuid(parent, parent.vp, 6) == ZEROES
    assert cpuid(parent, parent.vp, 0x80000007) == ZEROES
    assert cpuid(parent, 0, 6) == ONES


# -- APIC IDs (TLFS 10.1.6) --


def test_initial_apic_id(generation: str) -> None:
    """TLFS 10.1.6: the VP's index, until the parent changes it."""
    parent = Parent(generation, child_vps=3)
    for index in range(3):
        assert cpuid(parent, parent.handle(parent.child, index), 1)[EBX] >> 24 == index
    parent.set_register(parent.child, 2, Register.InitialApicId, 0x42)
    assert cpuid(parent, parent.handle(parent.child, 2), 1)[EBX] >> 24 == 0x42


def test_extended_topology_leaf(parent: Parent) -> None:
    """Later than 2.0a: leaf 0xB says the same with 32-bit IDs."""
    if not parent.current:
        assert cpuid(parent, parent.vp, 0xB) == ZEROES
        return
    partition = parent.partition(flags=CREATE_LAPIC | CREATE_X2APIC, vps=2)
    vp = parent.handle(partition, 1)
    parent.set_register(partition, 1, Register.InitialApicId, 0x12345)
    assert cpuid(parent, vp, 0xB, ONES, 0) == (0, 1, 0x100, 0x12345)
    assert cpuid(parent, vp, 0xB, ONES, 1) == (0, 1, 0x201, 0x12345)
    assert cpuid(parent, vp, 0xB, ONES, 2) == (0, 0, 2, 0x12345)
    assert cpuid(parent, vp, 1)[EBX] >> 24 == 0x45


def test_apic_features(parent: Parent) -> None:
    """Of the hypervisor's local APIC, not of the processor's: x2APIC if the partition was made with it."""
    x2apic, deadline = 1 << 21, 1 << 24
    assert cpuid(parent, parent.vp, 1, ZEROES)[ECX] & (x2apic | deadline) == (deadline if parent.current else 0)
    if parent.current:
        vp = parent.handle(parent.partition(flags=CREATE_LAPIC | CREATE_X2APIC), 0)
        assert cpuid(parent, vp, 1, ZEROES)[ECX] & x2apic


# -- Properties (TLFS 5.2.8 to 5.2.10) --


@pytest.mark.parametrize("number", range(15))
def test_processor_features(generation: str, number: int) -> None:
    """TLFS 5.2.8: a feature is there if the property has its bit and the processor has it."""
    parent = Parent(generation)
    leaf, register, bit = FEATURE_BITS[number]
    value = parent.get_property(parent.child, PROCESSOR_FEATURES)
    assert cpuid(parent, parent.vp, leaf)[register] >> bit & 1 == value >> number & 1
    assert not cpuid(parent, parent.vp, leaf, ZEROES)[register] >> bit & 1


def test_taking_a_feature_away(parent: Parent) -> None:
    """TLFS 5.2.8: SSE3 and no other bit."""
    partition = parent.create_partition()
    parent.deposit(partition, 128)
    value = parent.get_property(parent.child, PROCESSOR_FEATURES)
    assert value & 1
    assert parent.initialize(partition) == Status.SUCCESS
    assert parent.set_property(partition, PROCESSOR_FEATURES, value & ~1) == Status.SUCCESS
    vp = parent.create_vp(partition, 0)
    assert cpuid(parent, vp, 1)[ECX] == cpuid(parent, parent.vp, 1)[ECX] & ~1


def test_clflush_size(parent: Parent) -> None:
    """TLFS 5.2.10: in units of eight bytes."""
    size = parent.get_property(parent.child, PROCESSOR_CLFLUSH_SIZE)
    assert size
    assert cpuid(parent, parent.vp, 1, ZEROES)[EBX] >> 8 & 0xFF == size


def test_no_xsave_without_the_property(parent: Parent) -> None:
    """TLFS 5.2.9: the compatible set has none of it."""
    _, _, ecx, _ = cpuid(parent, parent.vp, 1)
    for bit in (12, 26, 27, 28, 29):
        assert not ecx >> bit & 1
    assert not cpuid(parent, parent.vp, 7)[EBX] >> 5 & 1
    for subleaf in range(4):
        assert cpuid(parent, parent.vp, 0xD, ONES, subleaf) == ZEROES


INTEL_COMPATIBILITY_MODE = {0, 1, 8}
"""Of the processor features: SSE3, LAHF and SAHF, CMPXCHG16B."""


def test_compatibility_mode(parent: Parent) -> None:
    """TLFS 5.2.11: a parent may give what all processors of the vendor have, and that is what CPUID shows."""
    partition = parent.create_partition()
    parent.deposit(partition, 128)
    assert parent.initialize(partition) == Status.SUCCESS
    features = sum(1 << number for number in INTEL_COMPATIBILITY_MODE)
    for code, number in ((PROCESSOR_FEATURES, features), (PROCESSOR_XSAVE_FEATURES, 0), (PROCESSOR_CLFLUSH_SIZE, 8)):
        assert parent.set_property(partition, code, number) == Status.SUCCESS
    vp = parent.create_vp(partition, 0)
    shown = {
        number
        for number, (leaf, register, bit) in enumerate(FEATURE_BITS)
        if cpuid(parent, vp, leaf)[register] >> bit & 1
    }
    assert shown == INTEL_COMPATIBILITY_MODE
    assert cpuid(parent, vp, 0xD) == ZEROES
    assert cpuid(parent, vp, 1)[EBX] >> 8 & 0xFF == 8


# -- Hypervisor leaves, the root --


def test_hypervisor_leaves_are_the_partitions(parent: Parent) -> None:
    """TLFS 3.4: a child's privileges are its own."""
    assert cpuid(parent, parent.vp, 0x40000000)[EBX:] == (0x7263694D, 0x666F736F, 0x76482074)
    before = cpuid(parent, parent.vp, 0x40000003)
    mask = parent.get_property(parent.child, PRIVILEGE_FLAGS) & ~(1 << Privilege.AccessVpIndex)
    assert parent.set_property(parent.child, PRIVILEGE_FLAGS, mask) == Status.SUCCESS
    assert cpuid(parent, parent.vp, 0x40000003)[EAX] == before[EAX] & ~(1 << Privilege.AccessVpIndex)
    assert cpuid(parent, 0, 0x40000003)[EAX] >> Privilege.AccessVpIndex & 1


def test_root(parent: Parent) -> None:
    """Appendix D: the root sees its processor, but for what the hypervisor uses."""
    _, _, ecx, _ = cpuid(parent, 0, 1)
    assert ecx & HYPERVISOR_PRESENT
    assert not ecx >> 3 & 1
    assert not ecx >> 5 & 1
    assert not cpuid(parent, 0, 0x80000001)[ECX] >> 2 & 1
    assert cpuid(parent, 0, 0x8000000A) == ZEROES
    assert cpuid(parent, 0, 1)[EBX] == 0xFFFFFFFF
    assert cpuid(parent, 0, 0, (0x16, 1, 2, 3))[EAX] == (0x16 if parent.current else 6)
    assert cpuid(parent, 0, 0x80000007)[EDX] == (0xFFFFFFFF if parent.current else 0x1FF)
    assert cpuid(parent, 0, 0x14) == (ONES if parent.current else ZEROES)


def test_root_without_the_bit(parent: Parent) -> None:
    """Appendix D: present bits of the root are set too."""
    assert cpuid(parent, 0, 1, ZEROES)[ECX:] == (HYPERVISOR_PRESENT, 0x078BFBFF)
