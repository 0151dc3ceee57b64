# SPDX-License-Identifier: GPL-2.0-or-later
"""Chapter 22 of the TLFS: what a root partition finds after the launch, and what it cannot do to itself."""

from __future__ import annotations

import struct

import pytest
from root import (
    ALL_RIGHTS,
    CPU_CAP,
    CPU_RESERVE,
    CPU_WEIGHT,
    EXPLICIT_SUSPEND,
    INTERCEPT_SUSPEND,
    READ,
    ROOT_ID,
    SELF,
    WRITE,
    Root,
)
from simulated_guest import FAST, HYPERCALL_PAGE, PAGE, SCONTROL, SIEFP, SIMP, STIMER0_CONFIG, VP_INDEX, reps

from qemu_hv._core import Exit, GeneralProtectionFault, Machine, MachineCheck, Status, Translation

MASKED = 1 << 16


@pytest.fixture
def root(generation: str) -> Root:
    """The root partition of a machine with three VPs."""
    return Root(generation, vps=3)


# -- 22.3 post-boot conditions --


def test_one_partition(root: Root) -> None:
    """TLFS 22.3: a single partition exists, the root, in the active state."""
    assert root.children() == []
    assert root.machine.partition_state()["id"] == ROOT_ID
    assert root.try_get_property(SELF, CPU_CAP) == Status.SUCCESS  # which needs the active state


def test_memory_is_mapped_to_itself(generation: str) -> None:
    """TLFS 22.3: all RAM at its own address with all rights; where there is none a GPA goes to the machine's bus."""
    m = Machine(generation, root=True)
    for gpa in (0, PAGE, 0x123000, (1 << 24) - PAGE):
        kind, spa, rights, _ = m.translate(0, gpa, ALL_RIGHTS)
        assert (kind, spa, rights) == (Translation.RAM, gpa, ALL_RIGHTS)
    assert m.translate(0, 1 << 24, READ)[:2] == (Translation.RAM, 1 << 24)  # straight to the bus
    m.write(0x5000, b"data")
    assert m.read_ram(0x5000, 4) == b"data"


def test_each_lp_has_a_vp(root: Root) -> None:
    """TLFS 22.3, 22.4: bound to it, and running."""
    m = root.machine
    for lp in range(3):
        assert m.rdmsr(lp, VP_INDEX) == m.lp_of(lp) == lp
        assert m.schedule(lp)[0] == lp
        m.stopped(lp)


def test_no_vp_is_suspended(root: Root) -> None:
    """TLFS 22.3: a root VP can look at itself (10.4.3)."""
    for index in range(3):
        assert root.get_register(SELF, index, EXPLICIT_SUSPEND) == 0
        assert root.get_register(SELF, index, INTERCEPT_SUSPEND) == 0


def test_scheduling_policy(root: Root) -> None:
    """TLFS 22.3: no reserve, an infinite cap, a weight of 100."""
    assert [root.get_property(SELF, code) for code in (CPU_RESERVE, CPU_CAP, CPU_WEIGHT)] == [0, 0x10000, 100]


def test_nothing_is_enabled(generation: str) -> None:
    """TLFS 22.3: hypercall page, SynIC and timers; no overlay is shown."""
    m = Machine(generation, vps=2, root=True)
    assert m.hypercall(0, 0x46).exit == Exit.UD
    for vp in (0, 1):
        assert m.rdmsr(vp, SCONTROL) == 0
        assert not m.rdmsr(vp, SIMP) & 1
        assert not m.rdmsr(vp, SIEFP) & 1
        assert all(m.rdmsr(vp, STIMER0_CONFIG + 2 * timer) & 1 == 0 for timer in range(4))
        assert all(m.rdmsr(vp, 0x40000090 + sint) == MASKED for sint in range(16))


def test_privileges(root: Root) -> None:
    """TLFS 22.4, 5.2.3: the root has access to all capabilities."""
    eax, ebx, _, _ = root.machine.cpuid(0x40000003)
    defined = sum(1 << bit for bit in [*range(11), *range(32, 41), 43, 44, 45])
    assert defined & ~(ebx << 32 | eax) == 0


# -- 22.4 the root has no parent --


@pytest.mark.parametrize(
    "code",
    [
        0x0041,  # HvInitializePartition
        0x0042,  # HvFinalizePartition
        0x0043,  # HvDeletePartition
        0x004C,  # HvUnmapGpaPages
        0x004D,  # HvInstallIntercept
        0x004E,  # HvCreateVp
        0x004F,  # HvDeleteVp
        0x0051,  # HvSetVpRegisters
        0x0052,  # HvTranslateVirtualAddress
        0x0053,  # HvReadGpa
        0x0054,  # HvWriteGpa
        0x0055,  # HvAssertVirtualInterrupt
        0x0056,  # HvClearVirtualInterrupt
        0x005E,  # HvSavePartitionState
        0x005F,  # HvRestorePartitionState
        0x0094,  # HvAssertVirtualInterrupt, today's
    ],
)
@pytest.mark.parametrize("target", [SELF, ROOT_ID])
def test_calls_for_a_parent(root: Root, code: int, target: int) -> None:
    """TLFS 22.4: what only a parent may do to its child cannot be done to the root."""
    if code == (0x0055 if root.current else 0x0094):
        assert root.status(code) == Status.INVALID_HYPERCALL_CODE
        return
    count = reps(1) if code in (0x004C, 0x0051) else 0
    assert root.status(code | count, struct.pack("<Q", target).ljust(64, b"\0")) == Status.ACCESS_DENIED


@pytest.mark.parametrize("vp", [0, 2])
def test_calls_that_the_root_makes_for_itself(root: Root, vp: int) -> None:
    """TLFS 5.6.5, 5.6.6, 7.3, 10.4.3 allow what 22.4 would forbid."""
    assert root.try_get_property(SELF, CPU_WEIGHT, vp=vp) == Status.SUCCESS
    assert root.set_property(ROOT_ID, CPU_WEIGHT, 200, vp=vp) == Status.SUCCESS
    assert root.try_balance(SELF, vp=vp) == Status.SUCCESS
    assert root.try_get_register(SELF, vp, EXPLICIT_SUSPEND, vp=vp).status == Status.SUCCESS


def test_rights_of_the_root(root: Root) -> None:
    """TLFS 22.4, 11.8: it may change rights to its own pages, and an access without one is #MC."""
    m = root.machine
    (page,) = root.pages(1)
    m.write(page * PAGE, b"before")

    def set_rights(rights: int, source: int) -> Status | None:
        return root.call(0x004B | reps(1), struct.pack("<QQIIQ", SELF, page, rights, 0, source)).status

    assert set_rights(READ, page) == Status.SUCCESS
    assert m.read(page * PAGE, 6) == b"before"
    with pytest.raises(MachineCheck):
        m.write(page * PAGE, b"after")
    assert set_rights(READ | WRITE, page) == Status.SUCCESS
    m.write(page * PAGE, b"after")
    assert set_rights(READ | WRITE, page + 1) != Status.SUCCESS  # the map stays an identity
    m.reset()
    assert m.translate(0, page * PAGE, ALL_RIGHTS)[0] == Translation.RAM


def test_hypercall_page_of_the_root(root: Root) -> None:
    """TLFS 4.12: a write is #GP; it hides the RAM under it, which a child that maps the page would see."""
    m = root.machine
    gpa = HYPERCALL_PAGE
    assert m.translate(0, gpa, READ)[0] == Translation.OVERLAY
    with pytest.raises(GeneralProtectionFault):
        m.write(gpa, b"x")
    assert m.read(gpa, 4) != m.read_ram(gpa, 4)
    assert m.hypercall(0, 0x41 | FAST, SELF).status == Status.ACCESS_DENIED
