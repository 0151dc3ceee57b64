# SPDX-License-Identifier: GPL-2.0-or-later
"""Partition properties (TLFS 5.2, 5.6.5, 5.6.6) and the rules of the chapters they belong to."""

from __future__ import annotations

import struct

import pytest
from root import (
    CPU_CAP,
    CPU_RESERVE,
    CPU_WEIGHT,
    DEBUG_CHANNEL_ID,
    EMULATED_TIMER_CONTROL,
    EMULATED_TIMER_PERIOD,
    GET_PARTITION_PROPERTY,
    PM_TIMER_ASSIST,
    PRIVILEGE_FLAGS,
    PROCESSOR_CLFLUSH_SIZE,
    PROCESSOR_FEATURES,
    PROCESSOR_VENDOR,
    PROCESSOR_XSAVE_FEATURES,
    ROOT_ID,
    SELF,
    SET_PARTITION_PROPERTY,
    VIRTUAL_TLB_PAGE_COUNT,
    Child,
    Root,
)
from simulated_guest import privilege_mask

from qemu_hv._core import GENERATIONS, Privilege, Status, property_rows

WHOLE = 0x10000
TLB_DEFAULT, TLB_MINIMUM, TLB_MAXIMUM = 16, 4, 4096
NO_SUCH = 0x1234_5678
PROCESSOR = (0x01FF, 0b011, 8)
"""Features, XSAVE features and cache line of the machine's processors: no AVX, nothing of AMD's."""

# TLFS 5.2.3, column "default value" of partitions that are not the root.
CHILD_DEFAULT = privilege_mask(*range(9), 10)
CHILD_DEFAULT_CURRENT = CHILD_DEFAULT | privilege_mask(11)
DEFINED = privilege_mask(*range(11), *range(32, 41), 43, 44, 45)
DEFINED_CURRENT = DEFINED | privilege_mask(11, 15)


@pytest.fixture
def root(generation: str) -> Root:
    """The root partition of a machine with two VPs, and so two LPs."""
    return Root(generation, processor=PROCESSOR)


@pytest.fixture
def child(root: Root) -> int:
    """An active child with one VP."""
    return root.partition()


def defined(root: Root) -> int:
    """All privileges of the generation."""
    return DEFINED_CURRENT if root.current else DEFINED


# -- The table of 5.2.2 --


def test_defaults(root: Root, child: int) -> None:
    """TLFS 5.2.2: default values of a new partition."""
    values = {
        PRIVILEGE_FLAGS: CHILD_DEFAULT_CURRENT if root.current else CHILD_DEFAULT,
        CPU_RESERVE: 0,
        CPU_CAP: WHOLE,
        CPU_WEIGHT: 100,
        EMULATED_TIMER_PERIOD: 0,
        EMULATED_TIMER_CONTROL: 0,
        PM_TIMER_ASSIST: 0,
        DEBUG_CHANNEL_ID: 0,
        VIRTUAL_TLB_PAGE_COUNT: TLB_DEFAULT,
        PROCESSOR_VENDOR: 1,
    }
    for code, value in values.items():
        assert root.get_property(child, code) == value, hex(code)
    for code in (PROCESSOR_FEATURES, PROCESSOR_XSAVE_FEATURES, PROCESSOR_CLFLUSH_SIZE):
        assert root.get_property(child, code) == root.get_property(SELF, code), hex(code)


def test_root_defaults(root: Root) -> None:
    """TLFS 22.3, 22.4: default scheduling, all privileges."""
    assert root.get_property(ROOT_ID, PRIVILEGE_FLAGS) == defined(root)
    assert root.get_property(SELF, CPU_RESERVE) == 0
    assert root.get_property(SELF, CPU_CAP) == WHOLE
    assert root.get_property(SELF, CPU_WEIGHT) == 100


@pytest.mark.parametrize("code", [0, 0x10001, 0x20000, 0x20004, 0x30003, 0x40001, 0x50001, 0x60004, 0xFFFFFFFF])
def test_unknown_property(root: Root, child: int, code: int) -> None:
    """TLFS 5.6.5, 5.6.6: UNKNOWN_PROPERTY."""
    assert root.try_get_property(child, code) == Status.UNKNOWN_PROPERTY
    assert root.set_property(child, code, 0) == Status.UNKNOWN_PROPERTY


@pytest.mark.parametrize("partition", [0, NO_SUCH])
def test_no_such_partition(root: Root, partition: int) -> None:
    """TLFS 5.6.5, 5.6.6: INVALID_PARTITION_ID."""
    assert root.try_get_property(partition, CPU_CAP) == Status.INVALID_PARTITION_ID
    assert root.set_property(partition, CPU_CAP, 1) == Status.INVALID_PARTITION_ID


def test_partition_state_comes_before_the_code(root: Root, child: int) -> None:
    """The order of checks: identifier, state, parameters."""
    assert root.finalize(child) == Status.SUCCESS
    assert root.try_get_property(child, 0) == Status.INVALID_PARTITION_STATE
    assert root.set_property(child, 0, 0) == Status.INVALID_PARTITION_STATE


def test_a_child_reads_no_properties_of_its_own(root: Root) -> None:
    """TLFS 5.6.5: the root may ask about itself, others not."""
    child = Child(root, root.partition(memory=48, privileges=DEFINED & ~privilege_mask(Privilege.CpuManagement)))
    assert child.status(GET_PARTITION_PROPERTY, struct.pack("<QQ", SELF, CPU_CAP)) == Status.ACCESS_DENIED
    assert child.status(SET_PARTITION_PROPERTY, struct.pack("<QQQ", SELF, CPU_CAP, 1)) == Status.ACCESS_DENIED


# -- Privileges (5.2.3) --


def test_privileges_are_set(root: Root, child: int) -> None:
    """TLFS 5.2.3: what the parent sets is what CPUID shows to the child."""
    wanted = privilege_mask(Privilege.AccessVpIndex, Privilege.PostMessages, Privilege.AccessPartitionReferenceTsc)
    assert root.set_property(child, PRIVILEGE_FLAGS, wanted) == Status.SUCCESS
    assert root.get_property(child, PRIVILEGE_FLAGS) == wanted


def test_each_privilege(root: Root, child: int) -> None:
    """TLFS 5.6.6: reserved ones are invalid, CpuManagement is the root's alone."""
    for bit in range(64):
        status = root.set_property(child, PRIVILEGE_FLAGS, 1 << bit)
        if not defined(root) >> bit & 1:
            assert status == Status.INVALID_PARAMETER, bit
        elif bit == Privilege.CpuManagement:
            assert status == Status.PROPERTY_VALUE_OUT_OF_RANGE
        else:
            assert status == Status.SUCCESS, bit


def test_a_child_gets_no_more_than_its_parent_has(generation: str) -> None:
    """A parent cannot give what it has not."""
    root = Root(generation, privileges=DEFINED & ~privilege_mask(Privilege.SignalEvents, Privilege.AccessVpIndex))
    child = root.partition()
    assert not root.get_property(child, PRIVILEGE_FLAGS) & privilege_mask(Privilege.AccessVpIndex)
    for privilege in (Privilege.SignalEvents, Privilege.AccessVpIndex):
        status = root.set_property(child, PRIVILEGE_FLAGS, privilege_mask(privilege))
        assert status == Status.PROPERTY_VALUE_OUT_OF_RANGE
    assert root.set_property(child, PRIVILEGE_FLAGS, privilege_mask(Privilege.PostMessages)) == Status.SUCCESS


def test_grandchild_gets_no_more_than_the_child_has(root: Root) -> None:
    """The same a level below; the child's defaults are narrowed too."""
    own = privilege_mask(
        Privilege.AccessHypercallMsrs, Privilege.CreatePartitions, Privilege.AccessMemoryPool, Privilege.AccessVpIndex
    )
    child = Child(root, root.partition(memory=64 + 200, privileges=own))
    grandchild = child.make_child(list(range(64, 264)))

    def set_privileges(value: int) -> Status:
        return child.status(SET_PARTITION_PROPERTY, struct.pack("<QQQ", grandchild, PRIVILEGE_FLAGS, value))

    assert child.status(GET_PARTITION_PROPERTY, struct.pack("<QQ", grandchild, PRIVILEGE_FLAGS)) == Status.SUCCESS
    assert child.output("<Q") == (privilege_mask(Privilege.AccessHypercallMsrs, Privilege.AccessVpIndex),)
    assert set_privileges(own) == Status.SUCCESS
    assert set_privileges(own | privilege_mask(Privilege.PostMessages)) == Status.PROPERTY_VALUE_OUT_OF_RANGE
    # It keeps what it has when its parent loses it, but does not get it a second time.
    assert root.set_property(child.partition, PRIVILEGE_FLAGS, own & ~privilege_mask(6)) == Status.SUCCESS
    assert set_privileges(own) == Status.SUCCESS
    assert set_privileges(own & ~privilege_mask(6)) == Status.SUCCESS
    assert set_privileges(own) == Status.PROPERTY_VALUE_OUT_OF_RANGE


def test_privileges_of_the_root(root: Root) -> None:
    """TLFS 5.6.6, 22.4: the root may drop and take back its own, but for CpuManagement, which is read-only."""
    less = defined(root) & ~privilege_mask(Privilege.PostMessages, Privilege.SignalEvents)
    assert root.set_property(SELF, PRIVILEGE_FLAGS, less) == Status.SUCCESS
    assert root.machine.cpuid(0x40000003)[1] == less >> 32
    assert root.set_property(SELF, PRIVILEGE_FLAGS, defined(root)) == Status.SUCCESS
    without = defined(root) & ~privilege_mask(Privilege.CpuManagement)
    assert root.set_property(SELF, PRIVILEGE_FLAGS, without) == Status.PROPERTY_VALUE_OUT_OF_RANGE
    assert root.set_property(SELF, PRIVILEGE_FLAGS, defined(root) | 1 << 50) == Status.INVALID_PARAMETER


def test_operator_limits_the_root(generation: str) -> None:
    """What the operator took from the root it cannot take back."""
    root = Root(generation, privileges=DEFINED & ~privilege_mask(Privilege.Debugging))
    assert root.set_property(SELF, PRIVILEGE_FLAGS, DEFINED) == Status.PROPERTY_VALUE_OUT_OF_RANGE


def test_every_privilege_of_the_tables_is_known() -> None:
    """The numbers above are the tables'."""
    for name, bits in (("2008r2", DEFINED), ("current", DEFINED_CURRENT)):
        rows = [bit for table, _, bit, gens in property_rows if table == "privilege" and gens & GENERATIONS[name]]
        assert privilege_mask(*rows) == bits


# -- Scheduling (18.2) --


def test_reserve_and_cap(root: Root, child: int) -> None:
    """TLFS 18.2.1, 18.2.2: 0 to 0x10000, the reserve not above the cap."""
    assert root.set_property(child, CPU_CAP, 0x8000) == Status.SUCCESS
    assert root.set_property(child, CPU_RESERVE, 0x8000) == Status.SUCCESS
    assert root.set_property(child, CPU_RESERVE, 0x8001) == Status.PROPERTY_VALUE_OUT_OF_RANGE
    assert root.set_property(child, CPU_CAP, 0x7FFF) == Status.PROPERTY_VALUE_OUT_OF_RANGE
    assert root.get_property(child, CPU_RESERVE) == root.get_property(child, CPU_CAP) == 0x8000
    for code in (CPU_RESERVE, CPU_CAP):
        assert root.set_property(child, code, WHOLE + 1) == Status.INVALID_PARAMETER
        assert root.set_property(child, code, 1 << 63) == Status.INVALID_PARAMETER
    assert root.set_property(child, CPU_CAP, WHOLE) == Status.SUCCESS
    assert root.set_property(child, CPU_RESERVE, WHOLE) == Status.SUCCESS
    assert root.set_property(child, CPU_RESERVE, 0) == Status.SUCCESS
    assert root.set_property(child, CPU_CAP, 0) == Status.SUCCESS


def test_reserves_have_a_total(root: Root) -> None:
    """TLFS 18.2.1, 5.6.6: of all VPs of all partitions, not more than there are LPs."""
    one, two = root.partition(vps=1), root.partition(vps=2)
    assert root.set_property(one, CPU_RESERVE, WHOLE) == Status.SUCCESS
    assert root.set_property(two, CPU_RESERVE, WHOLE // 2 + 1) == Status.PROPERTY_VALUE_OUT_OF_RANGE
    assert root.set_property(two, CPU_RESERVE, WHOLE // 2) == Status.SUCCESS
    assert root.set_property(SELF, CPU_RESERVE, 1) == Status.PROPERTY_VALUE_OUT_OF_RANGE
    assert root.set_property(one, CPU_RESERVE, WHOLE - 4) == Status.SUCCESS
    assert root.set_property(SELF, CPU_RESERVE, 2) == Status.SUCCESS
    assert root.set_property(SELF, CPU_RESERVE, 3) == Status.PROPERTY_VALUE_OUT_OF_RANGE


def test_weight(root: Root, child: int) -> None:
    """TLFS 18.2.3: 1 to 10,000."""
    for weight in (1, 100, 10000):
        assert root.set_property(child, CPU_WEIGHT, weight) == Status.SUCCESS
        assert root.get_property(child, CPU_WEIGHT) == weight
    for weight in (0, 10001, 1 << 32 | 5):
        assert root.set_property(child, CPU_WEIGHT, weight) == Status.INVALID_PARAMETER
    assert root.get_property(child, CPU_WEIGHT) == 10000


# -- Timer assists (15.1.5, 15.1.6) --


def test_period_zero_disables_the_timer(root: Root, child: int) -> None:
    """TLFS 15.1.5: the Enabled flag is cleared with the period."""
    control = 0x30 | 1 << 12
    assert root.set_property(child, EMULATED_TIMER_PERIOD, 10_000) == Status.SUCCESS
    assert root.set_property(child, EMULATED_TIMER_CONTROL, control) == Status.SUCCESS
    assert root.get_property(child, EMULATED_TIMER_PERIOD) == 10_000
    assert root.get_property(child, EMULATED_TIMER_CONTROL) == control
    assert root.set_property(child, EMULATED_TIMER_PERIOD, 0) == Status.SUCCESS
    assert root.get_property(child, EMULATED_TIMER_CONTROL) == 0x30


@pytest.mark.parametrize(
    ("code", "used"),
    [
        (EMULATED_TIMER_CONTROL, 0xFF00_0000_0000_1FFF),
        (PM_TIMER_ASSIST, 0x3FFFF),
        (DEBUG_CHANNEL_ID, 0xFFFF),
        (PROCESSOR_FEATURES, 0x7FFF),
        (PROCESSOR_XSAVE_FEATURES, 0x7),
    ],
)
def test_reserved_bits(root: Root, child: int, code: int, used: int) -> None:
    """TLFS 15.1.5, 15.1.6, 20.1.1, 5.2.8, 5.2.9: a value with a reserved bit is INVALID_PARAMETER."""
    before = root.get_property(child, code)
    for bit in range(64):
        if not used >> bit & 1:
            assert root.set_property(child, code, 1 << bit) == Status.INVALID_PARAMETER, bit
    assert root.get_property(child, code) == before


@pytest.mark.parametrize(
    ("code", "value"), [(EMULATED_TIMER_CONTROL, 0xFF00_0000_0000_0FFF), (PM_TIMER_ASSIST, 0x3FFFF)]
)
def test_fields_are_stored(root: Root, child: int, code: int, value: int) -> None:
    """TLFS 15.1.5, 15.1.6: all defined fields."""
    assert root.set_property(child, code, value) == Status.SUCCESS
    assert root.get_property(child, code) == value


# -- Debug channel (20.1.1) --


def test_debug_channel_is_unique(root: Root, child: int) -> None:
    """TLFS 5.6.6: OBJECT_IN_USE when another partition has it; zero is no channel."""
    other = root.partition()
    assert root.set_property(child, DEBUG_CHANNEL_ID, 7) == Status.SUCCESS
    assert root.set_property(child, DEBUG_CHANNEL_ID, 7) == Status.SUCCESS
    assert root.set_property(other, DEBUG_CHANNEL_ID, 7) == Status.OBJECT_IN_USE
    assert root.set_property(SELF, DEBUG_CHANNEL_ID, 7) == Status.OBJECT_IN_USE
    assert root.set_property(other, DEBUG_CHANNEL_ID, 0) == Status.SUCCESS
    assert root.set_property(child, DEBUG_CHANNEL_ID, 0) == Status.SUCCESS
    assert root.set_property(other, DEBUG_CHANNEL_ID, 7) == Status.SUCCESS
    root.destroy(other)
    assert root.set_property(child, DEBUG_CHANNEL_ID, 7) == Status.SUCCESS


# -- Virtual TLB (5.2.6) --


def test_virtual_tlb_pages(root: Root, child: int) -> None:
    """TLFS 5.2.6: clamped, and taken from the partition's pool."""
    before = root.balance(child)
    assert root.set_property(child, VIRTUAL_TLB_PAGE_COUNT, TLB_DEFAULT + 10) == Status.SUCCESS
    assert root.balance(child).available == before.available - 10
    assert root.set_property(child, VIRTUAL_TLB_PAGE_COUNT, 0) == Status.SUCCESS
    assert root.get_property(child, VIRTUAL_TLB_PAGE_COUNT) == TLB_MINIMUM
    assert root.balance(child).available == before.available + TLB_DEFAULT - TLB_MINIMUM
    assert root.set_property(child, VIRTUAL_TLB_PAGE_COUNT, 1 << 40) == Status.INSUFFICIENT_MEMORY
    assert root.get_property(child, VIRTUAL_TLB_PAGE_COUNT) == TLB_MINIMUM
    assert root.set_property(SELF, VIRTUAL_TLB_PAGE_COUNT, 0) == Status.SUCCESS
    assert root.get_property(SELF, VIRTUAL_TLB_PAGE_COUNT) == TLB_MINIMUM


def test_virtual_tlb_maximum(generation: str) -> None:
    """TLFS 5.2.6: more than the maximum becomes the maximum."""
    root = Root(generation, memory=1 << 26)
    child = root.partition(deposit=TLB_MAXIMUM + 128)
    assert root.set_property(child, VIRTUAL_TLB_PAGE_COUNT, TLB_MAXIMUM + 1) == Status.SUCCESS
    assert root.get_property(child, VIRTUAL_TLB_PAGE_COUNT) == TLB_MAXIMUM
    root.destroy(child)


def test_virtual_tlb_of_an_uninitialized_partition(generation: str) -> None:
    """Today's parents set it before the initialization, which then takes that much."""
    root = Root(generation)
    child = root.create_partition()
    if generation == "2008r2":
        assert root.set_property(child, VIRTUAL_TLB_PAGE_COUNT, 50) == Status.INVALID_PARTITION_STATE
        return
    assert root.set_property(child, VIRTUAL_TLB_PAGE_COUNT, 50) == Status.SUCCESS
    root.deposit(child, 53)
    assert root.initialize(child) == Status.INSUFFICIENT_MEMORY
    root.deposit(child, 1)
    assert root.initialize(child) == Status.SUCCESS
    assert root.balance(child).in_use == 54
    assert root.finalize(child) == Status.SUCCESS
    assert root.balance(child).in_use == 0


# -- Processor compatibility (5.2.7 to 5.2.10) --


def test_platform_tells_the_features(root: Root) -> None:
    """TLFS 5.2.2: the root's values are what the platform's processors have."""
    codes = (PROCESSOR_FEATURES, PROCESSOR_XSAVE_FEATURES, PROCESSOR_CLFLUSH_SIZE)
    assert tuple(root.get_property(SELF, code) for code in codes) == PROCESSOR


def test_vendor_is_read_only(root: Root, child: int) -> None:
    """TLFS 5.2.2, 5.2.7: for every partition."""
    for partition in (child, SELF):
        assert root.set_property(partition, PROCESSOR_VENDOR, 1) == Status.SUCCESS
        assert root.set_property(partition, PROCESSOR_VENDOR, 0) == Status.PROPERTY_VALUE_OUT_OF_RANGE
        assert root.set_property(partition, PROCESSOR_VENDOR, 2) == Status.INVALID_PARAMETER
        assert root.get_property(partition, PROCESSOR_VENDOR) == 1


def test_features_of_a_child(root: Root, child: int) -> None:
    """TLFS 5.2.8: a parent takes away what the platform has, and gives back no more than that."""
    platform = root.get_property(SELF, PROCESSOR_FEATURES)
    assert platform != 0
    lowest = platform & -platform
    assert root.set_property(child, PROCESSOR_FEATURES, platform ^ lowest) == Status.SUCCESS
    assert root.get_property(child, PROCESSOR_FEATURES) == platform ^ lowest
    assert root.set_property(child, PROCESSOR_FEATURES, platform) == Status.SUCCESS
    missing = ~platform & 0x7FFF
    assert root.set_property(child, PROCESSOR_FEATURES, missing & -missing) == Status.PROPERTY_VALUE_OUT_OF_RANGE
    assert root.get_property(child, PROCESSOR_FEATURES) == platform


def test_xsave_features_of_a_child(root: Root, child: int) -> None:
    """TLFS 5.2.9: likewise."""
    platform = root.get_property(SELF, PROCESSOR_XSAVE_FEATURES)
    for value in range(8):
        allowed = not value & ~platform and (value == 0 or value & 1)
        expected = Status.SUCCESS if allowed else Status.PROPERTY_VALUE_OUT_OF_RANGE
        assert root.set_property(child, PROCESSOR_XSAVE_FEATURES, value) == expected, value


def test_cache_line_of_a_child(root: Root, child: int) -> None:
    """TLFS 5.2.10: not longer than the platform's, and never none."""
    platform = root.get_property(SELF, PROCESSOR_CLFLUSH_SIZE)
    assert root.set_property(child, PROCESSOR_CLFLUSH_SIZE, platform // 2) == Status.SUCCESS
    assert root.get_property(child, PROCESSOR_CLFLUSH_SIZE) == platform // 2
    assert root.set_property(child, PROCESSOR_CLFLUSH_SIZE, platform + 1) == Status.PROPERTY_VALUE_OUT_OF_RANGE
    for value in (0, 0x100):
        assert root.set_property(child, PROCESSOR_CLFLUSH_SIZE, value) == Status.INVALID_PARAMETER


@pytest.mark.parametrize("code", [PROCESSOR_FEATURES, PROCESSOR_XSAVE_FEATURES, PROCESSOR_CLFLUSH_SIZE])
def test_read_only_for_the_root(root: Root, code: int) -> None:
    """TLFS 5.2.2: the root's are what its processors have."""
    value = root.get_property(SELF, code)
    assert root.set_property(SELF, code, value) == Status.SUCCESS
    assert root.set_property(SELF, code, value ^ 1) == Status.PROPERTY_VALUE_OUT_OF_RANGE
    assert root.get_property(SELF, code) == value


def test_features_disabled_at_creation() -> None:
    """Later than 2.0a: HvCreatePartition names what the child is not to have."""
    root = Root("current", processor=PROCESSOR)
    platform = root.get_property(SELF, PROCESSOR_FEATURES)
    assert root.get_property(SELF, PROCESSOR_XSAVE_FEATURES) == 0b011
    child = root.create_partition(disabled=platform & -platform | 1 << 40, disabled_xsave=7)
    assert root.get_property(child, PROCESSOR_FEATURES) == platform & (platform - 1)
    assert root.get_property(child, PROCESSOR_XSAVE_FEATURES) == 0
