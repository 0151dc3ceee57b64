# SPDX-License-Identifier: GPL-2.0-or-later
"""Chapter 5 of the TLFS: creation, destruction and enumeration of partitions."""

from __future__ import annotations

import struct

import pytest
from root import (
    CREATE_PARTITION,
    DELETE_PARTITION,
    DEPOSIT_MEMORY,
    EXPLICIT_SUSPEND,
    FINALIZE_PARTITION,
    FIRST_PAGE,
    GET_MEMORY_BALANCE,
    GET_NEXT_CHILD,
    GET_PARTITION_PROPERTY,
    INITIALIZE_PARTITION,
    LIST_MAX,
    PRIVILEGE_FLAGS,
    ROOT_ID,
    SELF,
    SET_PARTITION_PROPERTY,
    Child,
    Root,
)
from simulated_guest import FAST, GPA_END, OUTPUT, Guest, privilege_mask, reps

from qemu_hv._core import Exit, Privilege, Status

NO_SUCH = 0x1234_5678_9ABC
CHILD_CREATION_COST = 6
INITIALIZATION_COST = 4 + 16
"""The partition, and its virtual TLB (costs.def)."""
UNINITIALIZED, ACTIVE, FINALIZING = range(3)
"""States of TLFS 5.2.5, as the operator's list counts them."""
UNLIMITED = (1 << 64) - 1
VALID_PROXIMITY = 1 << 63
PREFERRED_PROXIMITY = 1 << 32
PARENT = privilege_mask(
    Privilege.AccessHypercallMsrs,
    Privilege.AccessVpIndex,
    Privilege.CreatePartitions,
    Privilege.AccessMemoryPool,
    Privilege.AccessPartitionId,
)
"""Privileges of a child that makes children."""


@pytest.fixture
def root(generation: str) -> Root:
    """The root partition of a machine with two VPs."""
    return Root(generation)


def nested(root: Root, **options: int) -> Child:
    """A child that may have children, ready to make hypercalls."""
    return Child(root, root.partition(memory=64, privileges=PARENT, **options))


# -- 5.6.1 HvCreatePartition --


def test_identifiers_are_unique_and_increase(root: Root) -> None:
    """TLFS 5.2.1: no identifier is used twice, also after the partition is gone."""
    seen = [root.create_partition() for _ in range(3)]
    assert root.delete(seen[2]) == Status.SUCCESS
    seen.append(root.create_partition())
    assert len(set(seen)) == 4
    assert seen == sorted(seen)
    assert ROOT_ID not in seen
    assert 0 not in seen


def test_creation_is_charged_to_the_creator(root: Root) -> None:
    """TLFS 5.3, 7.1.1: the caller's pool pays, and gets the pages back by the deletion; the new pool is empty."""
    before = root.balance()
    partition = root.create_partition()
    during = root.balance()
    assert during.available == before.available - CHILD_CREATION_COST
    assert during.in_use == before.in_use + CHILD_CREATION_COST
    assert (root.balance(partition).available, root.balance(partition).in_use) == (0, 0)
    assert root.delete(partition) == Status.SUCCESS
    assert root.balance() == before


def test_creation_needs_memory(root: Root) -> None:
    """TLFS 5.6.1: INSUFFICIENT_MEMORY while the caller's pool is too small, and nothing is created."""
    available = root.balance().available
    for _ in range(available // CHILD_CREATION_COST):
        root.create_partition()
    count = len(root.children())
    assert root.try_create_partition() == Status.INSUFFICIENT_MEMORY
    assert len(root.children()) == count
    root.deposit(SELF, CHILD_CREATION_COST)
    assert root.try_create_partition() == Status.SUCCESS


def test_flags(root: Root) -> None:
    """TLFS 5.2.4: bits that are undefined or reserved are INVALID_PARAMETER."""
    later = privilege_mask(0, 4, 13, 22) if root.current else 0
    for bit in range(64):
        expected = Status.SUCCESS if later >> bit & 1 else Status.INVALID_PARAMETER
        assert root.try_create_partition(flags=1 << bit) == expected, bit


@pytest.mark.parametrize(
    ("proximity", "expected"),
    [
        (0x7FFF_FFFF_FFFF_FFFF, Status.SUCCESS),  # not valid, so nothing of it is looked at
        (VALID_PROXIMITY | 0, Status.SUCCESS),
        (VALID_PROXIMITY | 1, Status.INVALID_PARAMETER),
        (VALID_PROXIMITY | PREFERRED_PROXIMITY | 77, Status.SUCCESS),
        (VALID_PROXIMITY | 1 << 33, Status.INVALID_PARAMETER),
        (VALID_PROXIMITY | PREFERRED_PROXIMITY | 1 << 62, Status.INVALID_PARAMETER),
    ],
)
def test_proximity_domain(root: Root, proximity: int, expected: Status) -> None:
    """TLFS 7.2.1, 5.6.1: an invalid flag bit or domain is INVALID_PARAMETER; only a valid one is looked at."""
    assert root.try_create_partition(proximity=proximity) == expected


def test_creation_needs_the_privilege(generation: str) -> None:
    """TLFS 5.6.1: ACCESS_DENIED without CreatePartitions."""
    root = Root(generation, privileges=privilege_mask(Privilege.AccessHypercallMsrs, Privilege.AccessMemoryPool))
    assert root.try_create_partition() == Status.ACCESS_DENIED


def test_a_guest_is_no_parent(guest: Guest) -> None:
    """With role=guest there are no children, whatever is asked."""
    assert guest.status(CREATE_PARTITION, bytes(56)) == Status.ACCESS_DENIED
    privileged = Guest(guest.generation, privileges=privilege_mask(Privilege.AccessHypercallMsrs, 32, 34))
    assert privileged.status(CREATE_PARTITION, bytes(56)) == Status.ACCESS_DENIED
    assert privileged.status(GET_NEXT_CHILD, struct.pack("<QQ", SELF, 0)) == Status.ACCESS_DENIED
    assert privileged.status(GET_MEMORY_BALANCE, struct.pack("<QQ", SELF, 0)) == Status.ACCESS_DENIED


def test_depth_is_limited(root: Root) -> None:
    """TLFS 5.6.1: PARTITION_TOO_DEEP at an implementation's limit, here four levels below the root."""
    maker = Child(root, root.partition(memory=900, privileges=PARENT))
    size = 900
    for _ in range(3):
        own = list(range(64, size))
        maker = Child(root, maker.make_child(own, privileges=PARENT))
        size = len(own) - 96
    assert maker.status(CREATE_PARTITION, root.create_input()) == Status.PARTITION_TOO_DEEP
    assert root.machine.admissions[-1]["depth"] == 4


# -- 5.6.2 HvInitializePartition --


def test_initialization(root: Root) -> None:
    """TLFS 5.6.2: uninitialized becomes active, paid by the child's own pool; no second time."""
    partition = root.create_partition()
    root.deposit(partition, INITIALIZATION_COST + 5)
    assert root.initialize(partition) == Status.SUCCESS
    assert (root.balance(partition).available, root.balance(partition).in_use) == (5, INITIALIZATION_COST)
    assert root.initialize(partition) == Status.INVALID_PARTITION_STATE


def test_initialization_needs_memory(root: Root) -> None:
    """TLFS 5.6.2: INSUFFICIENT_MEMORY, and the partition stays as it was."""
    partition = root.create_partition()
    assert root.initialize(partition) == Status.INSUFFICIENT_MEMORY
    root.deposit(partition, INITIALIZATION_COST - 1)
    assert root.initialize(partition) == Status.INSUFFICIENT_MEMORY
    assert root.balance(partition).in_use == 0
    root.deposit(partition, 1)
    assert root.initialize(partition) == Status.SUCCESS


# -- 5.2.5 states --


def test_uninitialized(root: Root) -> None:
    """TLFS 5.2.5: what may be done to an uninitialized partition."""
    partition = root.create_partition()
    later = Status.SUCCESS if root.current else Status.INVALID_PARTITION_STATE
    assert root.try_balance(partition) == Status.SUCCESS
    assert root.next_child(partition) == (Status.SUCCESS, 0)
    assert root.try_get_property(partition, PRIVILEGE_FLAGS) == later
    assert root.set_property(partition, 0x00020003, 50) == later
    assert root.try_create_vp(partition, 0) == Status.INVALID_PARTITION_STATE
    assert root.delete_vp(partition, 0) == Status.INVALID_PARTITION_STATE
    assert root.finalize(partition) == Status.INVALID_PARTITION_STATE
    pages = root.deposit(partition, 3)
    assert sorted(root.withdraw_all(partition)) == pages  # TLFS 7.3.2
    assert root.delete(partition) == Status.SUCCESS


def test_active(root: Root) -> None:
    """TLFS 5.2.5: everything but deletion."""
    partition = root.partition()
    assert root.delete(partition) == Status.INVALID_PARTITION_STATE
    assert root.try_get_property(partition, PRIVILEGE_FLAGS) == Status.SUCCESS


def test_finalized(root: Root) -> None:
    """TLFS 5.4.1: any call but those of destruction fails."""
    partition = root.partition(vps=2)
    assert root.finalize(partition) == Status.SUCCESS
    assert root.machine.handle(partition, 0) is None
    assert root.finalize(partition) == Status.INVALID_PARTITION_STATE
    assert root.initialize(partition) == Status.INVALID_PARTITION_STATE
    assert root.try_get_property(partition, PRIVILEGE_FLAGS) == Status.INVALID_PARTITION_STATE
    assert root.set_property(partition, PRIVILEGE_FLAGS, 0) == Status.INVALID_PARTITION_STATE
    assert root.try_create_vp(partition, 0) == Status.INVALID_PARTITION_STATE
    assert root.delete_vp(partition, 0) == Status.INVALID_PARTITION_STATE
    assert root.try_deposit(partition, root.pages(1)).status == Status.INVALID_PARTITION_STATE
    assert root.try_map(partition, 0, root.pages(1)).status == Status.INVALID_PARTITION_STATE
    assert root.next_child(partition) == (Status.SUCCESS, 0)
    assert root.balance(partition).in_use == 0
    root.withdraw_all(partition)
    assert root.delete(partition) == Status.SUCCESS


# -- 5.6.3 HvFinalizePartition, 5.6.4 HvDeletePartition --


def test_destruction_returns_every_page(root: Root) -> None:
    """TLFS 5.4.3: with VPs, memory and all still there; the pages are those deposited, each once."""
    before = root.balance()
    partition = root.create_partition()
    pages = root.deposit(partition, 300)
    assert root.initialize(partition) == Status.SUCCESS
    root.map_memory(partition, 0, 70)
    for index in (0, 3, 64):
        root.create_vp(partition, index)
    assert sorted(root.destroy(partition)) == pages
    assert root.balance() == before
    assert root.children() == []


def test_deletion_wants_an_empty_pool(root: Root) -> None:
    """TLFS 5.4.2, 5.6.4: OPERATION_DENIED while pages are left."""
    partition = root.partition()
    assert root.finalize(partition) == Status.SUCCESS
    assert root.delete(partition) == Status.OPERATION_DENIED
    result, pages = root.try_withdraw(partition, LIST_MAX)
    assert len(pages) == 128
    assert result.status == Status.NO_RESOURCES
    assert root.delete(partition) == Status.SUCCESS
    assert root.delete(partition) == Status.INVALID_PARTITION_ID


def test_uninitialized_partition_with_pages(root: Root) -> None:
    """TLFS 5.6.4: the same for one that never was active."""
    partition = root.create_partition()
    root.deposit(partition, 1)
    assert root.delete(partition) == Status.OPERATION_DENIED


def test_finalizing_stops_running_vps(root: Root) -> None:
    """TLFS 5.4.1: the call is executed again until no LP runs a VP; meanwhile the partition is finalizing."""
    m = root.machine
    partition = root.partition(vps=2)
    root.resume(partition, 0)
    handle = root.handle(partition, 0)
    lp = m.lp_of(handle)
    m.set_waits(lp, True)
    assert m.schedule(lp)[0] == handle
    m.clear_records()
    result = m.hypercall(1 - lp, FINALIZE_PARTITION | FAST, partition)
    assert result.exit == Exit.RETRY
    assert handle in m.kicks
    # Finalizing: 5.2.5 allows four calls, and the VP that was not running is gone already.
    assert m.handle(partition, 1) is None
    assert root.try_balance(partition, vp=1 - lp) == Status.SUCCESS
    assert root.next_child(partition, vp=1 - lp) == (Status.SUCCESS, 0)
    assert root.try_create_vp(partition, 1, vp=1 - lp) == Status.INVALID_PARTITION_STATE
    assert root.delete(partition, vp=1 - lp) == Status.INVALID_PARTITION_STATE
    m.stopped(handle)
    assert m.schedule(lp)[0] is None
    assert root.finalize(partition, vp=1 - lp) == Status.SUCCESS
    root.withdraw_all(partition)
    assert root.delete(partition) == Status.SUCCESS


def test_late_events_of_a_deleted_vp(root: Root) -> None:
    """A timer that comes after the VP's deletion changes nothing, and the VP's next life starts clean."""
    m = root.machine
    partition = root.partition()
    handle = root.handle(partition, 0)
    m.wrmsr(handle, 0x400000B1, 1000)
    m.wrmsr(handle, 0x400000B0, 0x10001)
    root.destroy(partition)
    for timer in range(7):
        assert m.timer_tsc(handle, timer) is None
        m.timer_expired(handle, timer)
    again = root.partition()
    assert root.handle(again, 0) == handle
    assert m.creations == [handle]
    state = m.vp_state(handle)
    assert state["scontrol"] == state["simp"] == state["siefp"] == 0
    assert sum(state["hypercalls"]) == sum(state["msr_writes"]) == 0
    assert all(timer["config"] == 0 for timer in state["timers"])


def test_many_lives(root: Root) -> None:
    """Partitions made and destroyed again and again use the same processors and the same pages."""
    m = root.machine
    balance = root.balance()
    page = root.next_page
    for _ in range(20):
        root.next_page = page
        partitions = [root.partition(vps=2) for _ in range(8)]
        for partition in reversed(partitions):
            root.destroy(partition)
    assert len(m.creations) == 16
    assert root.balance() == balance


# -- 5.6.8 HvGetNextChildPartition --


def test_enumeration_is_in_order_of_creation(root: Root) -> None:
    """TLFS 5.5: older children come first, deleted ones not at all."""
    made = [root.create_partition() for _ in range(5)]
    assert root.children() == root.children(ROOT_ID) == made
    root.delete(made[1])
    root.delete(made[4])
    assert root.children() == [made[0], made[2], made[3]]
    # One that was deleted during the enumeration.
    assert root.next_child(SELF, made[1])[0] == Status.INVALID_PARTITION_ID


def test_enumeration_of_what_is_not_a_child(root: Root) -> None:
    """TLFS 5.6.8: both identifiers must be valid, the second a child of the first."""
    one, other = root.create_partition(), root.create_partition()
    assert root.next_child(NO_SUCH)[0] == Status.INVALID_PARTITION_ID
    assert root.next_child(SELF, NO_SUCH)[0] == Status.INVALID_PARTITION_ID
    assert root.next_child(one, other)[0] == Status.INVALID_PARTITION_ID
    assert root.next_child(SELF, ROOT_ID)[0] == Status.INVALID_PARTITION_ID


# -- Who may --


@pytest.mark.parametrize("code", [INITIALIZE_PARTITION, FINALIZE_PARTITION, DELETE_PARTITION])
def test_only_the_parent(root: Root, code: int) -> None:
    """TLFS 5.6.2 to 5.6.4: ACCESS_DENIED for the root on itself, INVALID_PARTITION_ID for none."""
    assert root.fast(code, SELF) == Status.ACCESS_DENIED
    assert root.fast(code, ROOT_ID) == Status.ACCESS_DENIED
    assert root.fast(code, NO_SUCH) == Status.INVALID_PARTITION_ID
    assert root.fast(code, 0) == Status.INVALID_PARTITION_ID


def test_children_reach_neither_up_nor_aside(root: Root) -> None:
    """TLFS 5.6: a child without children may not touch its parent, its sibling or itself."""
    child = nested(root)
    sibling = root.partition()
    for target in (ROOT_ID, sibling, child.partition, SELF):
        for code in (INITIALIZE_PARTITION, FINALIZE_PARTITION, DELETE_PARTITION):
            assert child.fast(code, target) == Status.ACCESS_DENIED
        assert child.status(GET_PARTITION_PROPERTY, struct.pack("<QQ", target, 0x10000)) == Status.ACCESS_DENIED
        assert child.status(SET_PARTITION_PROPERTY, struct.pack("<QQQ", target, 0x10000, 0)) == Status.ACCESS_DENIED
        assert child.status(GET_MEMORY_BALANCE, struct.pack("<QQ", target, 0)) == Status.ACCESS_DENIED
    for target in (ROOT_ID, sibling):
        assert child.status(GET_NEXT_CHILD, struct.pack("<QQ", target, 0)) == Status.ACCESS_DENIED
    assert child.status(GET_NEXT_CHILD, struct.pack("<QQ", SELF, 0)) == Status.SUCCESS


def test_grandchildren(root: Root) -> None:
    """TLFS 5: a child with CreatePartitions makes its own, from its own pool; the root is no parent of them."""
    child = nested(root)
    before = root.balance(child.partition)
    grandchild = child.create_partition()
    assert root.balance(child.partition).available == before.available - CHILD_CREATION_COST
    assert root.children() == [child.partition]
    assert root.children(child.partition) == [grandchild]
    assert root.initialize(grandchild) == Status.ACCESS_DENIED
    assert root.delete(grandchild) == Status.ACCESS_DENIED
    assert root.next_child(grandchild)[0] == Status.ACCESS_DENIED
    assert child.fast(DELETE_PARTITION, grandchild) == Status.SUCCESS
    assert root.balance(child.partition) == before
    root.destroy(child.partition)


def test_finalizing_destroys_descendants(root: Root) -> None:
    """TLFS 5.4.2, 5.6.3: a partition and its children; what was deposited for them has been withdrawn."""
    child = nested(root)
    unused, active = child.create_partition(), child.create_partition()
    data = struct.pack("<QQ", active, 40)
    assert child.status(DEPOSIT_MEMORY | reps(1), data) == Status.SUCCESS
    pages = root.balance(child.partition)
    assert root.finalize(child.partition) == Status.SUCCESS
    for partition in (unused, active):
        assert root.next_child(partition)[0] == Status.INVALID_PARTITION_ID
    assert root.children() == [child.partition]
    assert root.balance(child.partition).in_use == 0
    assert root.balance(child.partition).available == pages.available + pages.in_use


def test_grandchild_needs_its_parents_memory(root: Root) -> None:
    """TLFS 7.1.1: the caller's pool pays, not the root's."""
    child = nested(root)
    for _ in range(root.balance(child.partition).available // CHILD_CREATION_COST):
        child.create_partition()
    assert child.status(CREATE_PARTITION, root.create_input()) == Status.INSUFFICIENT_MEMORY
    root.deposit(child.partition, CHILD_CREATION_COST)
    child.create_partition()


def test_creator_that_is_being_finalized(root: Root) -> None:
    """TLFS 5.2.5: a VP that still runs in a finalizing partition makes no new child."""
    m = root.machine
    child = nested(root)
    root.resume(child.partition)
    lp = m.lp_of(child.vp)
    m.set_waits(lp, True)
    assert m.schedule(lp)[0] == child.vp
    assert m.hypercall(1 - lp, FINALIZE_PARTITION | FAST, child.partition).exit == Exit.RETRY
    assert child.status(CREATE_PARTITION, root.create_input()) == Status.INVALID_PARTITION_STATE
    m.stopped(child.vp)
    assert root.finalize(child.partition, vp=1 - lp) == Status.SUCCESS


# -- Policy --


def test_policy_is_asked(root: Root) -> None:
    """The operator's policy hears of the parent, the depth and what exists."""
    root.create_partition()
    child = nested(root)
    child.create_partition()
    asked = [question for question in root.machine.admissions if question["what"] == 0]
    assert [(q["parent"], q["depth"], q["partitions"]) for q in asked] == [
        (ROOT_ID, 1, 1),
        (ROOT_ID, 1, 2),
        (child.partition, 2, 3),
    ]
    assert all(q["partition"] == 0 for q in asked)
    # TLFS 5.2.3: the defaults, which include no right to make hypercalls that reach others.
    assert all(q["privileges"] >> 32 == 0 for q in asked)


def test_policy_denies(root: Root) -> None:
    """A denied creation has a status, and costs nothing."""
    before = root.balance()
    root.machine.set_admission(2)
    assert root.try_create_partition() == Status.NO_RESOURCES
    assert root.balance() == before
    assert root.children() == []


def test_policy_thinks(root: Root) -> None:
    """While it thinks the call is executed again."""
    before = root.balance()
    root.machine.set_admission(1)
    root.machine.write(0x10000, root.create_input())
    for _ in range(3):
        assert root.machine.hypercall(0, CREATE_PARTITION, 0x10000, OUTPUT).exit == Exit.RETRY
    assert root.balance() == before
    root.machine.set_admission(0)
    assert root.create_partition() == 2


def test_policy_narrows_privileges(root: Root) -> None:
    """It may give less than the default or more, but never what the parent has not."""
    wanted = privilege_mask(Privilege.AccessVpIndex, Privilege.PostMessages, Privilege.CpuManagement, 63)
    root.machine.set_admission(0, wanted)
    partition = root.partition()
    assert root.get_property(partition, PRIVILEGE_FLAGS) == privilege_mask(
        Privilege.AccessVpIndex, Privilege.PostMessages
    )


def test_policy_hears_of_memory(root: Root) -> None:
    """How much the parent's children have mapped, and what their limits still promise; not a grandchild's share."""
    m = root.machine
    m.set_admission(0, page_limit=300)
    child = nested(root)
    (mapped,) = (p["mapped_pages"] for p in m.partitions() if p["id"] == child.partition)
    assert 0 < mapped < 300
    m.set_admission(0, page_limit=1 << 63)
    root.create_partition()
    m.set_admission(0)
    root.partition(memory=10)
    m.clear_records()
    root.create_partition()
    child.create_partition()
    asked = [(q["mapped_pages"], q["promised_pages"]) for q in m.admissions]
    assert asked == [(mapped + 10, 300 + (GPA_END >> 12) + 10), (0, 0)]


def test_policy_limits_memory_for_good(root: Root) -> None:
    """The operator sees the limit of each partition; none is the largest number."""
    m = root.machine
    m.set_admission(0, page_limit=7)
    limited = root.create_partition()
    m.set_admission(0)
    root.create_partition()
    assert [p["page_limit"] for p in m.partitions()] == [UNLIMITED, 7, UNLIMITED]
    assert root.delete(limited) == Status.SUCCESS
    assert [p["page_limit"] for p in m.partitions()] == [UNLIMITED, UNLIMITED]


# -- The operator --


def test_operator_sees_the_tree(root: Root) -> None:
    """A parent comes before its children; state, VPs, privileges and pool of each."""
    m = root.machine
    child = nested(root)
    grandchild = child.create_partition()
    empty = root.create_partition()
    tree = m.partitions()
    assert [(p["id"], p["parent"], p["depth"], p["state"], p["vp_count"]) for p in tree] == [
        (ROOT_ID, 0, 0, ACTIVE, 2),
        (child.partition, ROOT_ID, 1, ACTIVE, 1),
        (grandchild, child.partition, 2, UNINITIALIZED, 0),
        (empty, ROOT_ID, 1, UNINITIALIZED, 0),
    ]
    assert tree[1]["privileges"] == PARENT
    assert tree[1]["pages_available"] == root.balance(child.partition).available
    assert root.finalize(empty) == Status.INVALID_PARTITION_STATE


def test_operator_deletes_a_tree(root: Root) -> None:
    """With everything that is attached; the pages are the depositors' again."""
    m = root.machine
    before = root.balance()
    child = Child(root, root.partition(memory=400, privileges=PARENT))
    child.make_child(list(range(64, 300)))
    lent = root.next_page - 1
    assert m.operator_delete_partition(child.partition) == 0
    assert [p["id"] for p in m.partitions()] == [ROOT_ID]
    assert m.handle(child.partition, 0) is None
    assert root.children() == []
    assert root.balance() == before
    m.write(lent * 4096, b"x")
    assert root.try_deposit(SELF, list(range(FIRST_PAGE, FIRST_PAGE + 400))).status == Status.SUCCESS


def test_operator_waits_for_running_vps(root: Root) -> None:
    """The tree is being finalized until its VPs are stopped; then another try deletes it."""
    m = root.machine
    child = nested(root)
    root.resume(child.partition)
    lp = m.lp_of(child.vp)
    m.set_waits(lp, True)
    assert m.schedule(lp)[0] == child.vp
    assert m.operator_delete_partition(child.partition) == 1
    assert m.partitions()[1]["state"] == FINALIZING
    assert child.status(CREATE_PARTITION, root.create_input()) == Status.INVALID_PARTITION_STATE
    m.stopped(child.vp)
    assert m.operator_delete_partition(child.partition) == 0
    assert m.operator_delete_partition(child.partition) == 2


@pytest.mark.parametrize("partition", [0, ROOT_ID, NO_SUCH])
def test_operator_deletes_only_children(root: Root, partition: int) -> None:
    """The machine's own partition is no child."""
    assert root.machine.operator_delete_partition(partition) == 2


@pytest.mark.parametrize("partition", [0, ROOT_ID, NO_SUCH])
def test_operator_pauses_only_children(root: Root, partition: int) -> None:
    """The machine's own partition is stopped with the machine."""
    assert root.machine.operator_pause_partition(partition, True) is False


def scheduled(root: Root, vp: int) -> bool:
    """Whether the VP would run now, if its LP had nothing else to do."""
    m = root.machine
    lp = m.lp_of(vp)
    m.set_waits(lp, True)
    picked = m.schedule(lp)[0]
    if picked is not None:
        m.stopped(picked)
    return picked == vp


def test_operator_pauses_a_partition(root: Root) -> None:
    """Its VPs do not run, whatever the parent does with their suspend registers, which show nothing of it."""
    m = root.machine
    partition = root.partition()
    vp = root.handle(partition, 0)
    assert m.operator_pause_partition(partition, True) is True
    root.resume(partition)
    assert root.get_register(partition, 0, EXPLICIT_SUSPEND) == 0
    assert m.partitions()[1]["paused"] is True
    assert not scheduled(root, vp)
    assert m.operator_pause_partition(partition, False) is True
    assert m.partitions()[1]["paused"] is False
    assert scheduled(root, vp)


@pytest.mark.parametrize("how", ["new", "again", "restored"])
def test_vp_of_a_paused_partition(root: Root, how: str) -> None:
    """A VP that its parent creates, creates again, or that comes from a saved state does not run either."""
    m = root.machine
    partition = root.partition(vps=how == "again")
    assert m.operator_pause_partition(partition, True) is True
    if how == "again":
        assert root.delete_vp(partition, 0) == Status.SUCCESS
    vp = root.create_vp(partition, 0)
    if how == "restored":
        m.restore(m.save())
    root.resume(partition)
    assert not scheduled(root, vp)
    assert m.operator_pause_partition(partition, False) is True
    assert scheduled(root, vp)


# -- Reset of the machine --


def test_reset_deletes_all_children(root: Root) -> None:
    """TLFS 22.3: after a launch there is one partition, with the pool it had at first."""
    m = root.machine
    before = root.balance()
    child = nested(root)
    child.create_partition()
    root.partition(vps=2, memory=16)
    root.deposit(SELF, 7)
    m.reset()
    root.enable_hypercalls()
    assert root.children() == []
    assert root.balance() == before
    pages = root.pages(4)
    assert root.try_deposit(SELF, [0x100, 0x101, *pages]).status == Status.SUCCESS


def test_machine_ends_with_children(generation: str) -> None:
    """A machine may end at any point; the leak checker of the sanitizer build sees what is left."""
    root = Root(generation)
    nested(root).create_partition()
    partition = root.partition(vps=3, memory=8)
    root.resume(partition, 0)
    assert len(root.children()) == 2
