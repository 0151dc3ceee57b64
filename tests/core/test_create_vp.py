# SPDX-License-Identifier: GPL-2.0-or-later
"""TLFS 10.1, 10.4.1, 10.4.2: creation and deletion of virtual processors."""

from __future__ import annotations

import pytest
from root import (
    CPU_RESERVE,
    CREATE_VP,
    DELETE_VP,
    EXPLICIT_SUSPEND,
    INTERCEPT_SUSPEND,
    ROOT_ID,
    SELF,
    Child,
    Root,
)
from simulated_guest import (
    FAST,
    INPUT,
    SCONTROL,
    SIM,
    SIMP,
    VP_INDEX,
    VP_RUNTIME,
    privilege_mask,
)

from qemu_hv._core import Exit, OverlayKind, Privilege, Status

NO_SUCH = 0x1234_5678_9ABC
VP_COST = 16
MAX_VPS = 1024
WHOLE = 0x10000
VALID_PROXIMITY = 1 << 63


@pytest.fixture
def root(generation: str) -> Root:
    """The root partition of a machine with two VPs."""
    return Root(generation)


@pytest.fixture
def child(root: Root) -> int:
    """An active child without VPs."""
    return root.partition(vps=0)


# -- 10.4.1 HvCreateVp --


def test_creation(root: Root, child: int) -> None:
    """TLFS 10.4.1: the VP has the index it was given, and its partition pays."""
    before = root.balance(child)
    handle = root.create_vp(child, 3)
    after = root.balance(child)
    assert (before.available - after.available, after.in_use - before.in_use) == (VP_COST, VP_COST)
    assert root.machine.rdmsr(handle, VP_INDEX) == 3
    assert root.machine.creations == root.machine.vp_resets == [handle]


def test_new_vp_is_suspended(root: Root, child: int) -> None:
    """TLFS 10.4.1: ExplicitSuspend is 1; it runs once that is cleared."""
    m = root.machine
    handle = root.create_vp(child, 0)
    lp = m.lp_of(handle)
    m.set_waits(lp, True)
    assert root.get_register(child, 0, EXPLICIT_SUSPEND) == 1
    assert root.get_register(child, 0, INTERCEPT_SUSPEND) == 0
    assert m.schedule(lp)[0] is None
    root.set_register(child, 0, EXPLICIT_SUSPEND, 0)
    assert m.schedule(lp)[0] == handle
    m.stopped(handle)


def test_boot_processor(root: Root, child: int) -> None:
    """TLFS 10.1.5, 10.4.1: the VP with index 0 is ready, others wait for SIPI, whichever came first."""
    m = root.machine
    application = root.create_vp(child, 1)
    boot = root.create_vp(child, 0)
    assert m.waits_for_sipi(application)
    assert not m.waits_for_sipi(boot)
    root.resume(child, 1)
    m.set_waits(0, True)
    m.set_waits(1, True)
    assert [m.schedule(lp)[0] for lp in (0, 1)] == [None, None]


def test_initial_apic_id(root: Root, child: int) -> None:
    """TLFS 10.1.6: the index, in the programmable register too."""
    handle = root.create_vp(child, 5)
    assert root.machine.lapic_read(handle, 0x20) == 5 << 24


@pytest.mark.parametrize("index", [MAX_VPS, MAX_VPS + 1, 0x7FFFFFFF, 0xFFFFFFFF])
def test_index_limit(root: Root, child: int, index: int) -> None:
    """TLFS 10.2.1: an index is less than what CPUID tells."""
    assert root.machine.cpuid(0x40000005)[0] == MAX_VPS
    assert root.try_create_vp(child, index) == Status.INVALID_VP_INDEX
    assert root.try_create_vp(child, MAX_VPS - 1) == Status.SUCCESS


def test_index_that_exists(root: Root, child: int) -> None:
    """TLFS 10.4.1: INVALID_VP_INDEX, and nothing is paid."""
    root.create_vp(child, 2)
    before = root.balance(child)
    assert root.try_create_vp(child, 2) == Status.INVALID_VP_INDEX
    assert root.balance(child) == before


@pytest.mark.parametrize("bit", range(64))
def test_flags_must_be_zero(root: Root, child: int, bit: int) -> None:
    """TLFS 10.4.1: INVALID_PARAMETER."""
    assert root.try_create_vp(child, 0, flags=1 << bit) == Status.INVALID_PARAMETER


@pytest.mark.parametrize(
    ("proximity", "expected"),
    [
        (77, Status.SUCCESS),
        (VALID_PROXIMITY | 77, Status.INVALID_PARAMETER),
        (VALID_PROXIMITY | 1 << 35, Status.INVALID_PARAMETER),
        (VALID_PROXIMITY, Status.SUCCESS),
    ],
)
def test_proximity_domain(root: Root, child: int, proximity: int, expected: Status) -> None:
    """TLFS 10.4.1: INVALID_PARAMETER for an invalid flag bit or domain."""
    assert root.try_create_vp(child, 0, proximity=proximity) == expected


def test_memory(root: Root, child: int) -> None:
    """TLFS 10.4.1: INSUFFICIENT_MEMORY when the partition's pool is too small."""
    root.withdraw_all(child)
    root.deposit(child, VP_COST - 1)
    assert root.try_create_vp(child, 0) == Status.INSUFFICIENT_MEMORY
    assert root.machine.creations == []
    root.deposit(child, 1)
    assert root.try_create_vp(child, 0) == Status.SUCCESS
    assert root.balance(child).available == 0


def test_reserve(root: Root, child: int) -> None:
    """TLFS 10.4.1, 18.2.1: OPERATION_DENIED when the reserves of all VPs would be more than there are LPs."""
    assert root.set_property(child, CPU_RESERVE, WHOLE * 3 // 4) == Status.SUCCESS
    root.create_vp(child, 0)
    root.create_vp(child, 1)
    assert root.try_create_vp(child, 2) == Status.OPERATION_DENIED
    other = root.partition(vps=1)
    assert root.set_property(other, CPU_RESERVE, WHOLE // 2) == Status.SUCCESS
    assert root.try_create_vp(other, 1) == Status.OPERATION_DENIED
    assert root.delete_vp(child, 0) == Status.SUCCESS
    assert root.try_create_vp(other, 1) == Status.SUCCESS


def test_implementation_limit(generation: str) -> None:
    """TLFS 10.4.1: NO_RESOURCES when the machine can have no more VPs, however they are spread."""
    root = Root(generation, vps=2, memory=1 << 28)
    made = 2
    while made < MAX_VPS:
        count = min(256, MAX_VPS - made)
        root.partition(vps=count, deposit=(count + 4) * VP_COST)
        made += count
    last = root.partition(vps=0)
    assert root.try_create_vp(last, 0) == Status.NO_RESOURCES
    assert root.balance(last).available == 128 - 20
    victim = root.children()[0]
    assert root.delete_vp(victim, 0) == Status.SUCCESS
    assert root.try_create_vp(last, 0) == Status.SUCCESS


# -- Making the processor takes time --


def test_processor_is_made(root: Root, child: int) -> None:
    """While the machine makes it the call is executed again; then the VP is there, once."""
    m = root.machine
    m.set_creation(1)
    m.write(INPUT, root.create_vp_input(child, 0))
    for _ in range(3):
        assert m.hypercall(0, CREATE_VP, INPUT).exit == Exit.RETRY
    assert m.handle(child, 0) is None
    assert root.balance(child).in_use == 20
    m.set_creation(0)
    handle = root.create_vp(child, 0)
    assert m.creations == [handle] == [2]


def test_processor_cannot_be_made(root: Root, child: int) -> None:
    """NO_RESOURCES; the handle is tried again later."""
    root.machine.set_creation(2)
    before = root.balance(child)
    for _ in range(2000):
        assert root.try_create_vp(child, 0) == Status.NO_RESOURCES
    assert root.balance(child) == before
    root.machine.set_creation(0)
    assert root.create_vp(child, 0) == 2


def test_policy(root: Root, child: int) -> None:
    """The operator's policy is asked once the processor is there, and its answer counts."""
    m = root.machine
    m.clear_records()
    m.set_creation(1)
    m.write(INPUT, root.create_vp_input(child, 0))
    assert m.hypercall(0, CREATE_VP, INPUT).exit == Exit.RETRY
    assert m.admissions == []
    m.set_creation(0)
    m.set_admission(1)
    assert m.hypercall(0, CREATE_VP, INPUT).exit == Exit.RETRY
    (question,) = m.admissions
    assert (question["what"], question["parent"], question["partition"]) == (1, ROOT_ID, child)
    assert (question["depth"], question["partitions"], question["vps"]) == (1, 2, 2)
    m.set_admission(2)
    assert root.try_create_vp(child, 0) == Status.NO_RESOURCES
    assert m.handle(child, 0) is None
    m.set_admission(0)
    root.create_vp(child, 0)
    assert len(m.creations) == 1


# -- 10.4.2 HvDeleteVp --


def test_deletion(root: Root, child: int) -> None:
    """TLFS 10.4.2: the index is free again, and so are the pages."""
    before = root.balance(child)
    handle = root.create_vp(child, 0)
    assert root.delete_vp(child, 0) == Status.SUCCESS
    assert root.balance(child) == before
    assert root.machine.handle(child, 0) is None
    assert root.delete_vp(child, 0) == Status.INVALID_VP_INDEX
    assert root.create_vp(child, 0) == handle
    assert root.machine.creations == [handle]


@pytest.mark.parametrize("index", [0, 7, MAX_VPS, 0xFFFFFFFF])
def test_deletion_of_none(root: Root, child: int, index: int) -> None:
    """TLFS 10.4.2: INVALID_VP_INDEX."""
    assert root.delete_vp(child, index) == Status.INVALID_VP_INDEX


def test_deletion_of_a_running_vp(root: Root, child: int) -> None:
    """The LP is made to let it go, and the call is executed again until it has."""
    m = root.machine
    handle = root.create_vp(child, 0)
    root.resume(child)
    lp = m.lp_of(handle)
    m.set_waits(lp, True)
    assert m.schedule(lp)[0] == handle
    m.clear_records()
    assert m.hypercall(1 - lp, DELETE_VP | FAST, child, 0).exit == Exit.RETRY
    assert m.kicks == [handle]
    m.stopped(handle)
    assert m.schedule(lp)[0] is None  # it is left alone, for the caller to come back
    assert root.delete_vp(child, 0, vp=1 - lp) == Status.SUCCESS
    assert m.schedule(lp)[0] is None


def test_deletion_of_a_vp_that_waits(root: Root, child: int) -> None:
    """TLFS 10.1.3: a VP that is ready, waiting or suspended is deleted at once."""
    m = root.machine
    for state in range(3):
        handle = root.create_vp(child, state)
        if state:
            root.resume(child, state)
        m.set_waits(handle, state == 2)
        assert m.hypercall(0, DELETE_VP | FAST, child, state).exit == Exit.DONE
        assert m.handle(child, state) is None


def test_deleted_vp_shows_no_pages(root: Root) -> None:
    """TLFS 8.1.3: its overlays go with it, and what lies under them comes back."""
    m = root.machine
    privileges = privilege_mask(Privilege.AccessHypercallMsrs, Privilege.AccessSynicMsrs)
    child = Child(root, root.partition(vps=2, memory=64, privileges=privileges))
    second = root.handle(child.partition, 1)
    m.write(SIM, b"under", child.vp)
    m.wrmsr(second, SIMP, SIM | 1)
    m.wrmsr(second, SCONTROL, 1)
    assert m.read(SIM, 5, child.vp) == bytes(5)
    assert root.delete_vp(child.partition, 1) == Status.SUCCESS
    assert m.read(SIM, 5, child.vp) == b"under"
    assert all(kind != OverlayKind.SIM for kind, _, _ in m.overlays)


def test_boot_processor_may_be_deleted(root: Root, child: int) -> None:
    """TLFS 10.1.5: created or deleted at any time; the next VP 0 is a boot processor again."""
    root.create_vp(child, 0)
    root.create_vp(child, 1)
    assert root.delete_vp(child, 0) == Status.SUCCESS
    assert not root.machine.waits_for_sipi(root.create_vp(child, 0))


def test_run_time_starts_anew(root: Root, child: int) -> None:
    """TLFS 10.3.2: a processor of the pool keeps nothing of its last life."""
    m = root.machine
    handle = root.create_vp(child, 0)
    root.resume(child)
    lp = m.lp_of(handle)
    m.set_waits(lp, True)
    assert m.schedule(lp)[0] == handle
    m.advance(500)
    m.stopped(handle)
    assert m.rdmsr(handle, VP_RUNTIME) == 500
    assert root.delete_vp(child, 0) == Status.SUCCESS
    assert root.create_vp(child, 0) == handle
    assert m.rdmsr(handle, VP_RUNTIME) == 0


# -- Who may --


def test_only_the_parent(root: Root, child: int) -> None:
    """TLFS 10.4.1, 10.4.2: ACCESS_DENIED for the root on itself (22.4), INVALID_PARTITION_ID for none."""
    for target in (SELF, ROOT_ID):
        assert root.try_create_vp(target, 0) == Status.ACCESS_DENIED
        assert root.delete_vp(target, 0) == Status.ACCESS_DENIED
    assert root.try_create_vp(NO_SUCH, 0) == Status.INVALID_PARTITION_ID
    assert root.delete_vp(NO_SUCH, 0) == Status.INVALID_PARTITION_ID
    inner = Child(root, root.partition(memory=64))
    assert inner.status(CREATE_VP, root.create_vp_input(SELF, 1)) == Status.ACCESS_DENIED
    assert inner.status(CREATE_VP, root.create_vp_input(child, 1)) == Status.ACCESS_DENIED
    assert inner.fast(DELETE_VP, inner.partition, 0) == Status.ACCESS_DENIED


def test_vps_of_two_children(root: Root) -> None:
    """TLFS 10.1.1: a VP is identified by its partition and its index."""
    one, two = root.partition(vps=2), root.partition(vps=2)
    handles = {root.handle(partition, index) for partition in (one, two) for index in (0, 1)}
    assert len(handles) == 4
    assert root.delete_vp(one, 1) == Status.SUCCESS
    assert root.machine.handle(two, 1) is not None
    assert root.balance(one).available == root.balance(two).available + VP_COST


def test_padding_is_ignored(root: Root, child: int) -> None:
    """Deployed parents leave what an earlier call had there; `create_vp_input` does as they do."""
    data = bytearray(root.create_vp_input(child, 0))
    data[12:15] = b"\xff\xff\xff"
    assert len(data) == (40 if root.current else 32)
    assert root.status(CREATE_VP, bytes(data)) == Status.SUCCESS
