# SPDX-License-Identifier: GPL-2.0-or-later
"""Chapter 6 of the TLFS: logical processors, their run times and power states."""

from __future__ import annotations

import struct

import pytest
from root import GET_LP_RUN_TIME, PARK_LPS, Child, Root
from simulated_guest import RESET, TIME_REF_COUNT, privilege_mask

from qemu_hv._core import Exit, GeneralProtectionFault, Privilege, Status

TRIGGER_C1 = 0x400000C1
CONFIG_C1 = 0x400000D1
HLT, IO_THEN_HLT, IO, MWAIT = (method << 52 for method in range(4))


@pytest.fixture
def root(generation: str) -> Root:
    """The root partition of a machine with two VPs, and so two LPs."""
    return Root(generation)


def run_times(root: Root, lp: int) -> tuple[int, int, int]:
    """HvGetLogicalProcessorRunTime (TLFS 6.4.1) by the LP's VP: global, local, hypervisor; in 100 ns."""
    data = struct.pack("<II", lp, 0xDEAD) if root.current else b""
    # Where the call has no input, the caller's LP is meant.
    assert root.status(GET_LP_RUN_TIME, data, vp=lp) == Status.SUCCESS
    total, local, reserved, hypervisor = root.output("<QQQQ")
    assert reserved == 0
    return total, local, hypervisor


# -- 6.4.1 HvGetLogicalProcessorRunTime --


def test_global_time_is_the_reference_time(root: Root) -> None:
    """TLFS 6.3.4, 6.4.1: in 100 ns, from the launch on."""
    root.machine.advance(12345)
    assert run_times(root, 0)[0] == root.machine.rdmsr(0, TIME_REF_COUNT)


def test_local_time_counts_what_the_lp_executes(root: Root) -> None:
    """TLFS 6.3.3: it stops while the LP has nothing to run."""
    m = root.machine
    m.set_waits(0, True)
    m.set_waits(1, False)
    assert m.schedule(0)[0] is None
    assert m.schedule(1)[0] == 1
    idle, busy = run_times(root, 0), run_times(root, 1)
    m.advance(1000)
    assert run_times(root, 0)[1] == idle[1]
    assert run_times(root, 1)[1] == busy[1] + 1000
    m.stopped(1)
    m.set_waits(1, True)
    assert m.schedule(1)[0] is None
    stopped = run_times(root, 1)
    m.advance(1000)
    assert run_times(root, 1)[1] == stopped[1]
    assert run_times(root, 1)[0] == stopped[0] + 1000


def test_hypervisor_time_is_part_of_it(root: Root) -> None:
    """TLFS 6.4.1: time on the LP that no VP had."""
    m = root.machine
    assert m.schedule(0)[0] == 0
    before = run_times(root, 0)
    m.advance(100)
    m.stopped(0)
    m.advance(30)  # nothing is picked yet
    assert m.schedule(0)[0] == 0
    after = run_times(root, 0)
    assert after[1] - before[1] == 130
    assert after[2] - before[2] == 30
    m.stopped(0)


def test_every_lp_is_there_from_the_launch(generation: str) -> None:
    """TLFS 6.1.2, 6.1.3: as many as the root has VPs; later callers name one, and learn that others are not there."""
    root = Root(generation, vps=3)
    for lp in range(3):
        run_times(root, lp)
    expected = Status.INVALID_LP_INDEX if root.current else Status.SUCCESS
    for lp in (3, 64, 0xFFFFFFFF):
        assert root.status(GET_LP_RUN_TIME, struct.pack("<II", lp, 0)) == expected


def test_any_lp_may_be_asked_about() -> None:
    """Later than 2.0a: the caller's own LP is not the only one."""
    root = Root("current")
    m = root.machine
    m.set_waits(0, True)
    assert m.schedule(0)[0] is None
    assert m.schedule(1)[0] == 1
    m.advance(500)
    local = []
    for lp in (0, 1):
        assert root.status(GET_LP_RUN_TIME, struct.pack("<II", lp, 0), vp=0) == Status.SUCCESS
        local.append(root.output("<QQ")[1])
    assert local[1] == local[0] + 500


# -- 6.4.2 HvParkLogicalProcessors --


def test_parked_lps_get_no_children(generation: str) -> None:
    """TLFS 6.4.2: a hint that the scheduler heeds while there is another LP."""
    root = Root(generation, vps=3)
    assert root.fast(PARK_LPS, 0b101) == Status.SUCCESS
    partition = root.partition(vps=3)
    assert {root.machine.lp_of(root.handle(partition, index)) for index in range(3)} == {1}


@pytest.mark.parametrize("mask", [0, 1, 3, 1 << 63, (1 << 64) - 1])
def test_park_any_set(root: Root, mask: int) -> None:
    """TLFS 6.4.2: no mask is wrong; with all LPs parked children still run."""
    assert root.fast(PARK_LPS, mask) == Status.SUCCESS
    partition = root.partition()
    root.resume(partition)
    handle = root.handle(partition, 0)
    lp = root.machine.lp_of(handle)
    root.machine.set_waits(lp, True)
    assert root.machine.schedule(lp)[0] == handle
    root.machine.stopped(handle)


# -- 6.3.2.1 power states --


@pytest.mark.parametrize("state", range(3))
@pytest.mark.parametrize(
    "recipe",
    [HLT, IO_THEN_HLT | 0x414, IO | 0xFFFF, MWAIT | 0x1_FFFF_FFFF, HLT | 0xF << 56, MWAIT | 1 << 59 | 0x20],
)
def test_power_state_recipe(root: Root, state: int, recipe: int) -> None:
    """TLFS 6.3.2.1.1: each LP and state has its own register."""
    m = root.machine
    m.wrmsr(0, CONFIG_C1 + state, recipe)
    assert m.rdmsr(0, CONFIG_C1 + state) == recipe
    assert m.rdmsr(1, CONFIG_C1 + state) == 0
    assert m.rdmsr(0, CONFIG_C1 + (state + 1) % 3) == 0
    m.reset()
    assert m.rdmsr(0, CONFIG_C1 + state) == 0


@pytest.mark.parametrize(
    "recipe",
    [
        *(1 << bit for bit in range(60, 64)),
        *(method << 52 for method in range(4, 16)),
        HLT | 1,
        IO | 1 << 16,
        IO_THEN_HLT | 1 << 51,
        MWAIT | 1 << 33,
    ],
)
def test_power_state_recipe_that_is_none(root: Root, recipe: int) -> None:
    """TLFS 6.3.2.1.1: reserved bits, and methods that do not exist, are #GP."""
    with pytest.raises(GeneralProtectionFault):
        root.machine.wrmsr(0, CONFIG_C1, recipe)
    assert root.machine.rdmsr(0, CONFIG_C1) == 0


@pytest.mark.parametrize("state", range(3))
def test_power_state_trigger(root: Root, state: int) -> None:
    """TLFS 6.3.2.1.2: reading it puts the processor to sleep; it counts idle times and cannot be written."""
    m = root.machine
    with pytest.raises(GeneralProtectionFault):
        m.wrmsr(0, TRIGGER_C1 + state, 0)
    m.rdmsr(0, TRIGGER_C1 + state)
    assert m.idles == [0]
    for _ in range(3):
        m.set_waits(0, True)
        assert m.schedule(0)[0] is None
        m.set_waits(0, False)
        assert m.schedule(0)[0] == 0
        m.stopped(0)
    assert m.rdmsr(0, TRIGGER_C1 + state) == 3 << 56
    assert m.rdmsr(0, TRIGGER_C1 + state) == 0
    assert m.idles == [0, 0, 0]


def test_idle_count_ends_at_its_field(root: Root) -> None:
    """TLFS 6.3.2.1.2: the field has eight bits."""
    m = root.machine
    for _ in range(300):
        m.set_waits(1, True)
        m.schedule(1)
        m.set_waits(1, False)
        m.schedule(1)
        m.stopped(1)
    assert m.rdmsr(1, TRIGGER_C1) == 0xFF << 56


# -- Privilege --


def test_cpu_management(generation: str) -> None:
    """TLFS 5.2.3: what needs it is denied without it."""
    root = Root(generation, privileges=privilege_mask(Privilege.AccessHypercallMsrs))
    assert root.status(GET_LP_RUN_TIME, struct.pack("<Q", 0)) == Status.ACCESS_DENIED
    assert root.fast(PARK_LPS, 0) == Status.ACCESS_DENIED
    for register in (TRIGGER_C1, CONFIG_C1):
        with pytest.raises(GeneralProtectionFault):
            root.machine.rdmsr(0, register)
    with pytest.raises(GeneralProtectionFault):
        root.machine.wrmsr(0, CONFIG_C1, 0)


def test_a_child_manages_no_lp(root: Root) -> None:
    """TLFS 5.2.3: the privilege is the root's alone."""
    child = Child(root, root.partition(memory=48))
    assert child.status(GET_LP_RUN_TIME, struct.pack("<Q", 0)) == Status.ACCESS_DENIED
    assert child.fast(PARK_LPS, 1) == Status.ACCESS_DENIED
    with pytest.raises(GeneralProtectionFault):
        root.machine.rdmsr(child.vp, TRIGGER_C1)


# -- 6.3.5 system reset --


def test_reset_is_the_machines(root: Root) -> None:
    """TLFS 6.1.5: the root restarts the platform."""
    root.machine.wrmsr(0, RESET, 1)
    assert root.machine.resets == 1


def test_a_childs_reset_is_its_parents_affair(root: Root) -> None:
    """A child's platform is what its parent makes of it: the parent is told, and the machine goes on."""
    child = Child(root, root.partition(memory=48))
    assert root.machine.child_rdmsr(child.vp, RESET) == (Exit.DONE, 0)
    assert root.machine.child_wrmsr(child.vp, RESET, 0) == Exit.DONE
    assert root.machine.child_wrmsr(child.vp, RESET, 2) == Exit.GP
    assert root.machine.child_wrmsr(child.vp, RESET, 1) == Exit.INTERCEPT
    assert root.machine.resets == 0
