# SPDX-License-Identifier: GPL-2.0-or-later
"""TLFS 11.10, 11.10.1, appendices F and G: what RDMSR and WRMSR of a child do."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from intercepts import MSR, Parent
from root import PRIVILEGE_FLAGS, Child
from simulated_guest import (
    GUEST_OS_ID,
    ONES,
    SCONTROL,
    SINT0,
    STIMER0_CONFIG,
    SVERSION,
    TIME_REF_COUNT,
)

from qemu_hv._core import Exit, Machine, Msr, Privilege, Register, Status

CREATE_LAPIC = 1 << 13
CREATE_X2APIC = 1 << 22

TSC = 0x10
APIC_BASE = 0x1B
MTRRCAP = 0xFE
MCG_CAP = 0x179
PAT = 0x277
MTRR_DEF_TYPE = 0x2FF
TSC_DEADLINE = 0x6E0
EFER = 0xC0000080
TSC_AUX = 0xC0000103

KEPT = [
    *[0x174, 0x175, 0x176, 0x17A, 0x1D9, PAT, MTRR_DEF_TYPE],
    *range(0x200, 0x210),
    *[0x250, 0x258, 0x259],
    *range(0x268, 0x270),
    *range(0xC0000080, 0xC0000085),
    *range(0xC0000100, 0xC0000103),
]
"""Appendix F: those that a child's processor keeps itself."""


@pytest.fixture
def parent(generation: str) -> Parent:
    """A parent with one child."""
    return Parent(generation)


def rdmsr(parent: Parent, index: int) -> tuple[Exit, int]:
    """RDMSR of the child."""
    return parent.machine.child_rdmsr(parent.vp, index)


def wrmsr(parent: Parent, index: int, value: int) -> Exit:
    """WRMSR of the child."""
    return parent.machine.child_wrmsr(parent.vp, index, value)


# -- Appendix F --


@pytest.mark.parametrize("index", KEPT, ids=hex)
def test_kept_by_the_processor(parent: Parent, index: int) -> None:
    """Appendix F: virtualized for children, so an intercept does not concern them."""
    assert rdmsr(parent, index)[0] == Exit.NATIVE
    assert wrmsr(parent, index, 0) == Exit.NATIVE
    parent.install(MSR)
    assert rdmsr(parent, index)[0] == Exit.NATIVE
    assert wrmsr(parent, index, 0) == Exit.NATIVE
    assert parent.receiver() is None


def test_time_stamp_counter(parent: Parent) -> None:
    """TLFS 11.7: a VP's TSC is its own, a distance ahead of the machine's."""
    m = parent.machine
    assert rdmsr(parent, TSC) == (Exit.DONE, m.tsc)
    assert wrmsr(parent, TSC, 5_000_000) == Exit.DONE
    m.advance(1000)
    assert rdmsr(parent, TSC)[1] - 5_000_000 == parent.get_register(parent.child, 0, Register.Tsc) - 5_000_000 > 0
    assert rdmsr(parent, TSC)[1] != m.tsc


def test_machine_check(parent: Parent) -> None:
    """Appendix F: MCG_CAP reads as 0, and like any processor's cannot be written."""
    assert rdmsr(parent, MCG_CAP) == (Exit.DONE, 0)
    assert wrmsr(parent, MCG_CAP, 0) == Exit.GP


def test_mtrr_capabilities(parent: Parent) -> None:
    """The processor's, read-only."""
    assert rdmsr(parent, MTRRCAP)[0] == Exit.NATIVE
    assert wrmsr(parent, MTRRCAP, 0) == Exit.GP


@pytest.mark.parametrize(
    ("index", "good", "bad"),
    [
        (EFER, [0, 1, 0xD01, 0x4D01], [1 << 12, 1 << 13, 1 << 1, 1 << 63]),
        (PAT, [0, 0x0007040600070406, 0x0105040607060500], [2, 3 << 8, 8 << 56, ONES]),
        (0x200, [0, 6, 0x80000004], [2, 0x100, 0xF06, 1 << 52]),
        (0x201, [0, 0x800, 0xFFFFF800], [1, 0x7FF, 1 << 52]),
        (0x250, [0, 0x0606060606060606], [2, 0x0606060606060703]),
        (MTRR_DEF_TYPE, [0, 0xC06], [2, 0x306, 0x1000, 1 << 32]),
        (0x174, [0, 0xFFFFFFFF], [1 << 32]),
        (0x175, [0x7FFFFFFFFFFF, 0xFFFF800000000000], [1 << 47, 1 << 63]),
        (0xC0000082, [0x7FFFFFFFFFFF, 0xFFFF800000000000], [1 << 47, 0x8000 << 48]),
        (0xC0000101, [0, ONES], [1 << 48]),
    ],
    ids=["efer", "pat", "base", "mask", "fixed", "default", "sysenter_cs", "sysenter_esp", "lstar", "gs_base"],
)
def test_values_are_checked(parent: Parent, index: int, good: list[int], bad: list[int]) -> None:
    """A value that no processor holds is #GP."""
    for value in good:
        assert wrmsr(parent, index, value) == Exit.NATIVE
    for value in bad:
        assert wrmsr(parent, index, value) == Exit.GP


def test_apic_base(parent: Parent) -> None:
    """Appendix F, TLFS 10.1.5: of the local APIC; VP 0 is the boot processor."""
    assert rdmsr(parent, APIC_BASE) == (Exit.DONE, 0xFEE00900)
    assert wrmsr(parent, APIC_BASE, 0xFEE00900) == Exit.DONE
    assert wrmsr(parent, APIC_BASE, ONES) == Exit.GP


def test_x2apic(parent: Parent) -> None:
    """Later than 2.0a: a partition made with x2APIC has its range of registers while that mode is on."""
    assert rdmsr(parent, 0x802)[0] == Exit.GP
    assert wrmsr(parent, APIC_BASE, 0xFEE00D00) == Exit.GP
    if not parent.current:
        return
    vp = parent.handle(parent.partition(flags=CREATE_LAPIC | CREATE_X2APIC), 0)
    assert parent.machine.child_rdmsr(vp, 0x802)[0] == Exit.GP
    assert parent.machine.child_wrmsr(vp, APIC_BASE, 0xFEE00D00) == Exit.DONE
    assert parent.machine.child_rdmsr(vp, 0x802) == (Exit.DONE, 0)


def test_deadline(parent: Parent) -> None:
    """Later than 2.0a: the local APIC's timer has a TSC-deadline mode."""
    expected = (Exit.DONE, 0) if parent.current else (Exit.GP, 0)
    assert rdmsr(parent, TSC_DEADLINE) == expected


def test_x2apic_range_is_not_intercepted_in_current() -> None:
    """It is virtualized by the hypervisor; in 2008r2 it is not, and is the parent's."""
    for generation, expected in (("current", Exit.GP), ("2008r2", Exit.INTERCEPT)):
        parent = Parent(generation)
        parent.install(MSR)
        assert rdmsr(parent, 0x802)[0] == expected


@pytest.mark.parametrize("index", [0x3, 0xC1, 0x1D8, 0xC0000102 + 2, 0xC0010015, 0xFFFFFFFF, 0x40002000, 0x3FFFFFFF])
def test_any_other_msr(parent: Parent, index: int) -> None:
    """Appendices F, G: #GP for a child, unless its parent has the MSR intercept."""
    assert rdmsr(parent, index)[0] == Exit.GP
    assert wrmsr(parent, index, 0) == Exit.GP
    parent.install(MSR)
    assert rdmsr(parent, index)[0] == Exit.INTERCEPT


def test_tsc_aux(parent: Parent) -> None:
    """Later than 2.0a: with RDTSCP a child has its register, of 32 bits."""
    assert rdmsr(parent, TSC_AUX)[0] == (Exit.NATIVE if parent.current else Exit.GP)
    assert wrmsr(parent, TSC_AUX, 7) == (Exit.NATIVE if parent.current else Exit.GP)
    assert wrmsr(parent, TSC_AUX, 1 << 32) == Exit.GP


# -- Appendix G; the simulated processor is Intel's --


@pytest.mark.parametrize(("index", "value"), [(0x17, 0), (0x79, 0), (0x8B, 0x8FFFFFFF << 32)], ids=hex)
def test_constant(parent: Parent, index: int, value: int) -> None:
    """TLFS 11.3 (index 0x17), appendix G: reads a constant, writes are ignored."""
    assert rdmsr(parent, index) == (Exit.DONE, value)
    assert wrmsr(parent, index, ONES) == Exit.DONE
    assert rdmsr(parent, index) == (Exit.DONE, value)


def test_misc_enable(parent: Parent) -> None:
    """Appendix G: reads pass through, writes are ignored."""
    assert rdmsr(parent, 0x1A0)[0] == Exit.NATIVE
    assert wrmsr(parent, 0x1A0, ONES) == Exit.DONE


@pytest.mark.parametrize("index", [0x6, 0x3A, 0x38D, 0x38E, 0x38F, 0x390, 0x3F1, 0x480, 0x48A, 0x600], ids=hex)
def test_hidden(parent: Parent, index: int) -> None:
    """Appendix G: #GP in a child, and in the root too."""
    assert rdmsr(parent, index)[0] == Exit.GP
    assert wrmsr(parent, index, 0) == Exit.GP
    assert parent.machine.child_rdmsr(0, index)[0] == Exit.GP
    assert parent.machine.child_wrmsr(0, index, 0) == Exit.GP


@pytest.mark.parametrize("index", [0xC0010010, 0xC001001F])
def test_other_vendor(parent: Parent, index: int) -> None:
    """Appendix G.1 is of processors of the other vendor."""
    assert rdmsr(parent, index)[0] == Exit.GP


@pytest.mark.parametrize("index", [TSC, APIC_BASE, EFER, PAT, MCG_CAP, 0x17, 0x8B, 0x1234, 0xC0010010], ids=hex)
def test_root_passes_through(parent: Parent, index: int) -> None:
    """TLFS 11.3, appendices F, G: what is not hidden from the root is its processor's."""
    assert parent.machine.child_rdmsr(0, index)[0] == Exit.NATIVE
    assert parent.machine.child_wrmsr(0, index, ONES) == Exit.NATIVE


# -- Synthetic MSRs --


def test_synthetic(parent: Parent) -> None:
    """TLFS 11.10: with the privilege the access is emulated, intercept or not."""
    parent.install(MSR)
    assert rdmsr(parent, SVERSION) == (Exit.DONE, 1)
    assert wrmsr(parent, SVERSION, 1) == Exit.GP
    assert wrmsr(parent, SCONTROL, 1) == Exit.DONE
    assert rdmsr(parent, SCONTROL) == (Exit.DONE, 1)
    assert wrmsr(parent, SINT0 + 2, 0x41) == Exit.DONE
    assert wrmsr(parent, SINT0 + 2, 0x1) == Exit.GP
    assert wrmsr(parent, GUEST_OS_ID, 77) == Exit.DONE
    assert rdmsr(parent, GUEST_OS_ID) == (Exit.DONE, 77)
    assert parent.machine.rdmsr(0, GUEST_OS_ID) != 77
    assert parent.receiver() is None


@pytest.mark.parametrize(
    ("privilege", "index"),
    [
        (Privilege.AccessVpRunTimeMsr, Msr.VP_RUNTIME),
        (Privilege.AccessPartitionReferenceCounter, TIME_REF_COUNT),
        (Privilege.AccessSynicMsrs, SCONTROL),
        (Privilege.AccessSyntheticTimerMsrs, STIMER0_CONFIG),
        (Privilege.AccessApicMsrs, Msr.TPR),
        (Privilege.AccessHypercallMsrs, GUEST_OS_ID),
        (Privilege.AccessVpIndex, Msr.VP_INDEX),
        (Privilege.AccessResetMsr, Msr.RESET),
    ],
)
def test_privileges(parent: Parent, privilege: Privilege, index: int) -> None:
    """TLFS 5.2.3: without the privilege #GP, or the MSR intercept if it is installed."""
    assert rdmsr(parent, index)[0] == Exit.DONE
    mask = parent.get_property(parent.child, PRIVILEGE_FLAGS)
    assert parent.set_property(parent.child, PRIVILEGE_FLAGS, mask & ~(1 << privilege)) == Status.SUCCESS
    assert rdmsr(parent, index)[0] == Exit.GP
    parent.install(MSR)
    assert rdmsr(parent, index)[0] == Exit.INTERCEPT
    assert wrmsr(parent, index, 0) == Exit.INTERCEPT


def test_registers_of_children_are_their_own(parent: Parent) -> None:
    """TLFS 14.6, 15.2: a child has its own SynIC, identity and reference time."""
    Child(parent, parent.child)
    assert rdmsr(parent, TIME_REF_COUNT)[1] < parent.machine.rdmsr(0, TIME_REF_COUNT) + 1
    parent.machine.wrmsr(0, SCONTROL, 0)
    assert wrmsr(parent, SCONTROL, 1) == Exit.DONE
    assert parent.machine.rdmsr(0, SCONTROL) == 0


# -- The table --


def test_table_is_sorted_and_whole() -> None:
    """arch_msrs.def: rows do not overlap, so that one can be found by halving."""
    text = (Path(__file__).parents[2] / "csrc" / "hv" / "tlfs" / "arch_msrs.def").read_text()
    rows = [line[len("HV_ARCH_MSR_ROW(") : -1] for line in text.splitlines() if line.startswith("HV_ARCH_MSR_ROW(")]
    last = -1
    for fields in csv.reader(rows, skipinitialspace=True):
        first, count = int(fields[0], 16), int(fields[1])
        assert first > last
        last = first + count - 1


def test_machine_has_no_violations(parent: Parent) -> None:
    """Reads of every low MSR by a child go through the rules without breaking the platform's contract."""
    machine: Machine = parent.machine
    for index in [*range(0x1000), *range(0x40000000, 0x40000200), *range(0xC0000000, 0xC0000200)]:
        assert machine.child_rdmsr(parent.vp, index)[0] in (Exit.DONE, Exit.GP, Exit.NATIVE, Exit.IDLE)
