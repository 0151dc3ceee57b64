# SPDX-License-Identifier: GPL-2.0-or-later
"""Chapters 13.3 and 13.5 of the TLFS: interrupts that a parent asserts in its child."""

from __future__ import annotations

import pytest
from child_apic import (
    ASSERT_INTERRUPT_2008R2,
    ASSERT_INTERRUPT_CURRENT,
    BASE_DEFAULT,
    CREATE_X2APIC,
    DFR,
    EXTERNAL,
    FIXED,
    INIT,
    ISR,
    LDR,
    LOWEST,
    MSR_APIC_BASE,
    NMI,
    NONE,
    SIPI,
    SMI,
    SVR,
    TPR,
    Apic,
    assert_interrupt,
    clear_interrupt,
    x2,
)
from root import Child, Root

from qemu_hv._core import Line, Status

ALL_TYPES = [FIXED, LOWEST, NMI, INIT, SIPI, EXTERNAL]
LATCHED = [FIXED, LOWEST]


@pytest.fixture
def root(generation: str) -> Root:
    """A root with two VPs."""
    return Root(generation)


@pytest.fixture
def partition(root: Root) -> int:
    """A child with four VPs."""
    return root.partition(vps=4, deposit=500)


@pytest.fixture
def apics(root: Root, partition: int) -> list[Apic]:
    """Its local APICs, enabled."""
    return [Apic(root, partition, index) for index in range(4)]


def lines(apic: Apic) -> list[Line]:
    """Lines of the processor that were raised since the records were cleared."""
    return [line for vp, line, raised in apic.machine.lines if vp == apic.vp and raised]


# -- 13.4.1, 13.5.1 Types --


def test_fixed(root: Root, partition: int, apics: list[Apic]) -> None:
    """TLFS 13.3.2: a fixed interrupt is latched into the IRR of the VP whose APIC ID it names."""
    assert assert_interrupt(root, partition, 0x51, destination=2) == Status.SUCCESS
    assert [apic.irr for apic in apics] == [[], [], [0x51], []]
    assert apics[2].tmr == []


def test_fixed_to_all(root: Root, partition: int, apics: list[Apic]) -> None:
    """The physical broadcast goes to all."""
    assert assert_interrupt(root, partition, 0x51, destination=0xFF) == Status.SUCCESS
    assert [apic.irr for apic in apics] == [[0x51]] * 4


def test_logical_destination(root: Root, partition: int, apics: list[Apic]) -> None:
    """TLFS 13.5.1: in logical mode the destination is the logical ID of a set of VPs, in the model of the DFR."""
    for index, apic in enumerate(apics):
        apic.write(LDR, 1 << (24 + index))
    assert assert_interrupt(root, partition, 0x51, destination=0b0110, logical=True) == Status.SUCCESS
    assert [apic.irr for apic in apics] == [[], [0x51], [0x51], []]
    for apic, ldr in zip(apics, (0x11, 0x12, 0x21, 0x22)):
        apic.write(DFR, 0x0FFFFFFF)
        apic.write(LDR, ldr << 24)
    assert assert_interrupt(root, partition, 0x61, destination=0x23, logical=True) == Status.SUCCESS
    assert [0x61 in apic.irr for apic in apics] == [False, False, True, True]


def test_lowest_priority(root: Root, partition: int, apics: list[Apic]) -> None:
    """TLFS 13.3.2: delivered only to the lowest-priority destination."""
    for apic, tpr in zip(apics, (0x40, 0x30, 0x20, 0x50)):
        apic.write(TPR, tpr)
    assert assert_interrupt(root, partition, 0x91, LOWEST, destination=0xFF) == Status.SUCCESS
    assert [apic.irr for apic in apics] == [[], [], [0x91], []]


def test_nmi(root: Root, partition: int, apics: list[Apic]) -> None:
    """TLFS 13.3.2: an NMI on the processor."""
    root.machine.clear_records()
    assert assert_interrupt(root, partition, 0, NMI, destination=0) == Status.SUCCESS
    assert lines(apics[0]) == [Line.NMI]
    assert lines(apics[1]) == []


def test_sipi_and_init(root: Root, partition: int, apics: list[Apic]) -> None:
    """TLFS 10.4.1, 13.3.2: a SIPI starts a VP that waits for it; INIT makes it wait again."""
    root.machine.clear_records()
    assert assert_interrupt(root, partition, 0x9A, SIPI, destination=3) == Status.SUCCESS
    assert root.machine.starts == [(apics[3].vp, 0x9A)]
    assert assert_interrupt(root, partition, 0x10, SIPI, destination=3) == Status.SUCCESS
    assert len(root.machine.starts) == 1
    assert assert_interrupt(root, partition, 0, INIT, destination=3) == Status.SUCCESS
    assert lines(apics[3]) == [Line.INIT]
    root.machine.init_done(apics[3].vp)
    assert assert_interrupt(root, partition, 0x10, SIPI, destination=3) == Status.SUCCESS
    assert root.machine.starts == [(apics[3].vp, 0x9A), (apics[3].vp, 0x10)]


def test_wakes_a_halted_vp(root: Root, partition: int, apics: list[Apic]) -> None:
    """The LP of a VP that halts is asked to look for work."""
    root.resume(partition)
    root.machine.set_waits(apics[0].vp, True)
    root.machine.clear_records()
    assert assert_interrupt(root, partition, 0x51) == Status.SUCCESS
    assert root.machine.lp_of(apics[0].vp) in root.machine.lp_kicks


def test_illegal_vector_is_noted(root: Root, partition: int, apics: list[Apic]) -> None:
    """TLFS 13.5.1: vectors 0 to 255 are valid for the call; those below 16 are not for an APIC, which drops them."""
    assert assert_interrupt(root, partition, 0x0F) == Status.SUCCESS
    assert (apics[0].irr, apics[0].errors()) == ([], 1 << 6)


def test_disabled_apic_drops_it(root: Root, partition: int, apics: list[Apic]) -> None:
    """A fixed interrupt needs an APIC that is enabled."""
    apics[0].write(SVR, 0xFF)
    assert assert_interrupt(root, partition, 0x51) == Status.SUCCESS
    assert assert_interrupt(root, partition, 0x51, level=True) == Status.SUCCESS
    assert apics[0].irr == []
    apics[0].write(SVR, 0x1FF)
    assert assert_interrupt(root, partition, NONE, level=True) == Status.SUCCESS
    assert apics[0].irr == []


# -- 13.3.3 Trigger types --


@pytest.mark.parametrize("kind", LATCHED)
def test_level_is_withdrawn(root: Root, partition: int, apics: list[Apic], kind: int) -> None:
    """TLFS 13.3.2, 13.3.3, 13.4.3: withdrawing a level-triggered interrupt clears its bit in the IRR."""
    assert assert_interrupt(root, partition, 0x51, kind, level=True) == Status.SUCCESS
    assert (apics[0].irr, apics[0].tmr, apics[0].line) == ([0x51], [0x51], True)
    assert assert_interrupt(root, partition, NONE, kind, level=True) == Status.SUCCESS
    assert (apics[0].irr, apics[0].line) == ([], False)
    assert apics[0].accept() is None


@pytest.mark.parametrize("kind", LATCHED)
def test_edge_is_not_withdrawn(root: Root, partition: int, apics: list[Apic], kind: int) -> None:
    """TLFS 13.3.3: an edge is latched; deasserting it has no effect, be it as an edge or as a level."""
    assert assert_interrupt(root, partition, 0x51, kind) == Status.SUCCESS
    assert assert_interrupt(root, partition, NONE, kind) == Status.SUCCESS
    assert assert_interrupt(root, partition, NONE, kind, level=True) == Status.SUCCESS
    assert apics[0].irr == [0x51]


def test_acknowledged_level_is_not_withdrawn(root: Root, partition: int, apics: list[Apic]) -> None:
    """TLFS 13.5.1: once it is acknowledged the next assertion is a new one."""
    assert assert_interrupt(root, partition, 0x51, level=True) == Status.SUCCESS
    assert apics[0].accept() == 0x51
    assert assert_interrupt(root, partition, NONE, level=True) == Status.SUCCESS
    assert apics[0].isr == [0x51]
    assert assert_interrupt(root, partition, 0x51, level=True) == Status.SUCCESS
    assert (apics[0].irr, apics[0].isr) == ([0x51], [0x51])


def test_types_are_withdrawn_apart(root: Root, partition: int, apics: list[Apic]) -> None:
    """TLFS 13.5.1: it is the assertion of the same type that is superseded."""
    assert assert_interrupt(root, partition, 0x51, FIXED, level=True) == Status.SUCCESS
    assert assert_interrupt(root, partition, 0x61, LOWEST, level=True) == Status.SUCCESS
    assert apics[0].irr == [0x51, 0x61]
    assert assert_interrupt(root, partition, NONE, LOWEST, level=True) == Status.SUCCESS
    assert apics[0].irr == [0x51]


def test_withdrawal_names_the_vps(root: Root, partition: int, apics: list[Apic]) -> None:
    """It is withdrawn at the destination of the call."""
    assert assert_interrupt(root, partition, 0x51, level=True, destination=0xFF) == Status.SUCCESS
    assert assert_interrupt(root, partition, NONE, level=True, destination=1) == Status.SUCCESS
    assert [apic.irr for apic in apics] == [[0x51], [], [0x51], [0x51]]


def test_lowest_priority_level_is_withdrawn_wherever_it_is(root: Root, partition: int, apics: list[Apic]) -> None:
    """Which of the destinations took it is the hypervisor's business."""
    for _ in range(8):
        assert assert_interrupt(root, partition, 0x51, LOWEST, level=True, destination=0xFF) == Status.SUCCESS
        assert any(apic.irr for apic in apics)
        assert assert_interrupt(root, partition, NONE, LOWEST, level=True, destination=0xFF) == Status.SUCCESS
        assert not any(apic.irr for apic in apics)


def test_second_level_supersedes_in_2008r2() -> None:
    """TLFS 13.5.1: before it is acknowledged, the second call supersedes the first one with the new vector."""
    root = Root("2008r2")
    partition = root.partition()
    apic = Apic(root, partition, 0)
    assert assert_interrupt(root, partition, 0x51, level=True) == Status.SUCCESS
    assert assert_interrupt(root, partition, 0x41, level=True) == Status.SUCCESS
    assert apic.irr == [0x41]


def test_levels_add_up_in_current() -> None:
    """Later parents assert each line of an I/O APIC by itself, and lose none."""
    root = Root("current")
    partition = root.partition()
    apic = Apic(root, partition, 0)
    assert assert_interrupt(root, partition, 0x51, level=True) == Status.SUCCESS
    assert assert_interrupt(root, partition, 0x41, level=True) == Status.SUCCESS
    assert apic.irr == [0x41, 0x51]
    assert assert_interrupt(root, partition, NONE, level=True) == Status.SUCCESS
    assert apic.irr == []


def test_level_does_not_supersede_an_edge(root: Root, partition: int, apics: list[Apic]) -> None:
    """TLFS 13.3.3: edges are latched."""
    assert assert_interrupt(root, partition, 0x51) == Status.SUCCESS
    assert assert_interrupt(root, partition, 0x61, level=True) == Status.SUCCESS
    assert apics[0].irr == [0x51, 0x61]


# -- ExtINT --


def test_external_interrupt(root: Root, partition: int, apics: list[Apic]) -> None:
    """TLFS 13.3.2: it goes to the boot processor past the priorities, and is not in service there."""
    apics[0].write(TPR, 0xFF)
    assert assert_interrupt(root, partition, 0x20, EXTERNAL) == Status.SUCCESS
    assert [apic.line for apic in apics] == [True, False, False, False]
    assert apics[0].accept() == 0x20
    assert (apics[0].irr, apics[0].isr, apics[0].line) == ([], [], False)


@pytest.mark.parametrize("vector", [0, 8, 0xFF])
def test_external_vectors(root: Root, partition: int, apics: list[Apic], vector: int) -> None:
    """A PIC gives any vector, also those that are illegal for an APIC."""
    assert assert_interrupt(root, partition, vector, EXTERNAL) == Status.SUCCESS
    assert apics[0].accept() == vector


@pytest.mark.parametrize("off", ["software", "base register"])
def test_external_interrupt_without_apic(root: Root, partition: int, apics: list[Apic], off: str) -> None:
    """TLFS 13.3.2: it can be used when the APIC is disabled."""
    if off == "software":
        apics[0].write(SVR, 0xFF)
    else:
        assert apics[0].wrmsr(MSR_APIC_BASE, BASE_DEFAULT)
    assert assert_interrupt(root, partition, 0x20, EXTERNAL) == Status.SUCCESS
    assert apics[0].line
    assert apics[0].accept() == 0x20


def test_external_before_others(root: Root, partition: int, apics: list[Apic]) -> None:
    """What the APIC has comes after it."""
    assert assert_interrupt(root, partition, 0xF0) == Status.SUCCESS
    assert assert_interrupt(root, partition, 0x20, EXTERNAL) == Status.SUCCESS
    assert apics[0].accept() == 0x20
    assert apics[0].line
    assert apics[0].accept() == 0xF0


def test_external_supersedes(root: Root, partition: int, apics: list[Apic]) -> None:
    """TLFS 13.5.1: before it is acknowledged it is superseded, or withdrawn."""
    assert assert_interrupt(root, partition, 0x20, EXTERNAL) == Status.SUCCESS
    assert assert_interrupt(root, partition, 0x21, EXTERNAL) == Status.SUCCESS
    assert apics[0].accept() == 0x21
    assert apics[0].accept() is None
    assert clear_interrupt(root, partition) == Status.SUCCESS
    assert assert_interrupt(root, partition, 0x20, EXTERNAL) == Status.SUCCESS
    assert assert_interrupt(root, partition, NONE, EXTERNAL) == Status.SUCCESS
    assert not apics[0].line
    assert apics[0].accept() is None
    assert clear_interrupt(root, partition) == Status.NOT_ACKNOWLEDGED


def test_acknowledged_external_interrupt(root: Root, partition: int, apics: list[Apic]) -> None:
    """TLFS 13.5.1, 13.5.2: once acknowledged it has to be cleared before there can be another."""
    assert clear_interrupt(root, partition) == Status.NOT_ACKNOWLEDGED
    assert assert_interrupt(root, partition, 0x20, EXTERNAL) == Status.SUCCESS
    assert clear_interrupt(root, partition) == Status.NOT_ACKNOWLEDGED
    assert apics[0].accept() == 0x20
    for vector in (0x20, 0x21, NONE):
        assert assert_interrupt(root, partition, vector, EXTERNAL) == Status.ACKNOWLEDGED
    assert apics[0].accept() is None
    assert clear_interrupt(root, partition) == Status.SUCCESS
    assert clear_interrupt(root, partition) == Status.NOT_ACKNOWLEDGED
    assert assert_interrupt(root, partition, 0x21, EXTERNAL) == Status.SUCCESS
    assert apics[0].accept() == 0x21


def test_acknowledged_external_does_not_hold_others(root: Root, partition: int, apics: list[Apic]) -> None:
    """Only that type waits for HvClearVirtualInterrupt."""
    assert assert_interrupt(root, partition, 0x20, EXTERNAL) == Status.SUCCESS
    assert apics[0].accept() == 0x20
    assert assert_interrupt(root, partition, 0x51) == Status.SUCCESS
    assert apics[0].accept() == 0x51


def test_external_is_level_triggered_whatever_the_control_says(root: Root, partition: int, apics: list[Apic]) -> None:
    """TLFS 13.3.3: its trigger type is implicit, as are those of NMI, INIT and SIPI."""
    assert assert_interrupt(root, partition, 0x20, EXTERNAL, level=True) == Status.SUCCESS
    assert apics[0].accept() == 0x20
    for kind, vector in ((NMI, 0), (INIT, 0), (SIPI, 0x20)):
        assert assert_interrupt(root, partition, vector, kind, level=True, destination=1) == Status.SUCCESS


def test_external_needs_a_boot_processor(root: Root) -> None:
    """TLFS 13.5.1: a VP that does not exist is not valid."""
    partition = root.partition(vps=0)
    root.create_vp(partition, 1)
    assert assert_interrupt(root, partition, 0x20, EXTERNAL) == Status.INVALID_VP_INDEX
    assert clear_interrupt(root, partition) == Status.NOT_ACKNOWLEDGED


# -- Statuses --


@pytest.mark.parametrize("kind", [SMI, 3, 8, 0x100, 0xFFFFFFFF])
def test_type_that_does_not_exist(root: Root, partition: int, kind: int) -> None:
    """TLFS 13.4.1, 13.2.1: there is no SMI, and nothing else."""
    assert assert_interrupt(root, partition, 0, kind) == Status.INVALID_PARAMETER


@pytest.mark.parametrize("bit", range(2, 32))
def test_reserved_control_bits(root: Root, partition: int, bit: int) -> None:
    """TLFS 13.4.2, 13.5.1: reserved bits of the control are checked."""
    assert assert_interrupt(root, partition, 0x51, reserved=1 << bit) == Status.INVALID_PARAMETER


@pytest.mark.parametrize("vector", [0x100, 0x7FFFFFFF, 0xFFFFFFFE])
@pytest.mark.parametrize("kind", ALL_TYPES)
def test_vector_out_of_range(root: Root, partition: int, kind: int, vector: int) -> None:
    """TLFS 13.4.3, 13.5.1: 0 to 255, or none."""
    assert assert_interrupt(root, partition, vector, kind) == Status.INVALID_PARAMETER


@pytest.mark.parametrize("vector", [1, 0xFF, NONE])
@pytest.mark.parametrize("kind", [NMI, INIT])
def test_vector_of_a_type_without(root: Root, partition: int, apics: list[Apic], kind: int, vector: int) -> None:
    """TLFS 13.5.1: NMI and INIT have no vector; it must be zero."""
    root.machine.clear_records()
    assert assert_interrupt(root, partition, vector, kind) == Status.INVALID_PARAMETER
    assert root.machine.lines == []


@pytest.mark.parametrize("kind", [*LATCHED, SIPI])
def test_none_for_an_edge(root: Root, partition: int, apics: list[Apic], kind: int) -> None:
    """TLFS 13.3.3, 13.4.3: deasserting an edge has no effect."""
    assert assert_interrupt(root, partition, NONE, kind, destination=1) == Status.SUCCESS
    assert (apics[1].irr, root.machine.starts) == ([], [])


@pytest.mark.parametrize("destination", [4, 0x80, 0x100, 0xFFFF])
def test_destination_without_vp(root: Root, partition: int, destination: int) -> None:
    """TLFS 13.5.1: the VP that the destination selects is not valid."""
    for kind in (FIXED, LOWEST, SIPI):
        assert assert_interrupt(root, partition, 0x51, kind, destination=destination) == Status.INVALID_VP_INDEX
    for kind in (NMI, INIT):
        assert assert_interrupt(root, partition, 0, kind, destination=destination) == Status.INVALID_VP_INDEX


def test_logical_destination_without_vp(root: Root, partition: int, apics: list[Apic]) -> None:
    """Before software sets logical IDs there are none."""
    assert assert_interrupt(root, partition, 0x51, destination=1, logical=True) == Status.INVALID_VP_INDEX


def test_destination_is_an_apic_id(root: Root, partition: int, apics: list[Apic]) -> None:
    """TLFS 13.5.1: it is the physical APIC ID, not the index."""
    apics[1].write(0x20, 0x33 << 24)
    assert assert_interrupt(root, partition, 0x51, destination=0x33) == Status.SUCCESS
    assert apics[1].irr == [0x51]
    assert assert_interrupt(root, partition, 0x51, destination=1) == Status.INVALID_VP_INDEX


@pytest.mark.parametrize("kind", [FIXED, LOWEST, NMI, INIT, SIPI])
def test_destination_of_more_than_32_bits(root: Root, partition: int, kind: int) -> None:
    """TLFS 13.5.1: no APIC has such an ID."""
    vector = 0 if kind in (NMI, INIT) else 0x51
    assert assert_interrupt(root, partition, vector, kind, destination=1 << 32) == Status.INVALID_PARAMETER


def test_destination_of_an_external_interrupt(root: Root, partition: int, apics: list[Apic]) -> None:
    """TLFS 13.5.1: it must be zero, as it always goes to the boot processor."""
    for destination in (1, 0xFF, 1 << 40):
        assert assert_interrupt(root, partition, 0x20, EXTERNAL, destination=destination) == Status.INVALID_PARAMETER
    assert not apics[0].line


def test_partition_that_is_not_active(root: Root) -> None:
    """TLFS 13.5.1, 13.5.2: the partition must be active, which is looked at before the parameters."""
    partition = root.create_partition()
    assert assert_interrupt(root, partition, 0x51, SMI) == Status.INVALID_PARTITION_STATE
    assert clear_interrupt(root, partition) == Status.INVALID_PARTITION_STATE
    root.deposit(partition, 128)
    assert root.initialize(partition) == Status.SUCCESS
    assert root.finalize(partition) == Status.SUCCESS
    assert assert_interrupt(root, partition, 0x51) == Status.INVALID_PARTITION_STATE
    assert clear_interrupt(root, partition) == Status.INVALID_PARTITION_STATE


def test_partition_that_does_not_exist(root: Root) -> None:
    """TLFS 13.5.1, 13.5.2: the partition ID is invalid."""
    assert assert_interrupt(root, 0x1234, 0x51) == Status.INVALID_PARTITION_ID
    assert clear_interrupt(root, 0x1234) == Status.INVALID_PARTITION_ID


def test_only_the_parent_may(root: Root) -> None:
    """TLFS 13.5.1, 13.5.2: neither the partition itself nor a sibling."""
    partitions = [root.partition(memory=48) for _ in range(2)]
    child = Child(root, partitions[0])
    code = ASSERT_INTERRUPT_CURRENT if root.current else ASSERT_INTERRUPT_2008R2
    for partition in partitions:
        data = partition.to_bytes(8, "little") + bytes(16) + (0x51).to_bytes(8, "little")
        assert child.status(code, data) == Status.ACCESS_DENIED
        assert child.fast(0x0056, partition) == Status.ACCESS_DENIED


def test_root_itself_has_no_parent(root: Root) -> None:
    """TLFS 13.5.1: the root is nobody's child."""
    assert assert_interrupt(root, 1, 0x51) == Status.ACCESS_DENIED
    assert clear_interrupt(root, 1) == Status.ACCESS_DENIED


def test_other_generations_code(generation: str) -> None:
    """The call's code differs by generation; the other one does not exist."""
    root = Root(generation)
    partition = root.partition()
    other = ASSERT_INTERRUPT_2008R2 if root.current else ASSERT_INTERRUPT_CURRENT
    data = partition.to_bytes(8, "little") + bytes(16) + (0x51).to_bytes(8, "little")
    assert root.status(other, data) == Status.INVALID_HYPERCALL_CODE


# -- x2APIC destinations --


def test_x2apic_destination() -> None:
    """An APIC in x2APIC mode is named by 32 bits."""
    root = Root("current")
    partition = root.partition(vps=2, deposit=300, flags=CREATE_X2APIC)
    apics = [Apic(root, partition, index) for index in range(2)]
    root.set_register(partition, 1, 0x0008000C, 0x345)
    apics[1].enter_x2apic()
    assert assert_interrupt(root, partition, 0x51, destination=0x345) == Status.SUCCESS
    assert apics[1].accept() == 0x51
    assert apics[1].rdmsr(x2(ISR + 0x20)) == 1 << 0x11
    assert assert_interrupt(root, partition, 0x51, destination=1) == Status.INVALID_VP_INDEX
    assert assert_interrupt(root, partition, 0x61, destination=0xFFFFFFFF) == Status.SUCCESS
    assert (apics[0].irr, apics[1].accept()) == ([0x61], 0x61)
