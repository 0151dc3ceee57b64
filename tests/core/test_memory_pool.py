# SPDX-License-Identifier: GPL-2.0-or-later
"""Chapter 7 of the TLFS: memory pools."""

from __future__ import annotations

import struct

import pytest
from root import (
    DEPOSIT_MEMORY,
    GET_MEMORY_BALANCE,
    LIST_MAX,
    READ,
    ROOT_ID,
    SELF,
    WITHDRAW_MEMORY,
    WRITE,
    Child,
    Root,
)
from simulated_guest import INPUT, OUTPUT, PAGE, privilege_mask, reps

from qemu_hv._core import Exit, GpaFault, MachineCheck, Privilege, Status

NO_SUCH = 0x1234_5678_9ABC
VALID_PROXIMITY = 1 << 63
VP_COST = 16
ROOT_POOL = 1024
PARENT = privilege_mask(Privilege.AccessHypercallMsrs, Privilege.CreatePartitions, Privilege.AccessMemoryPool)


@pytest.fixture
def root(generation: str) -> Root:
    """The root partition."""
    return Root(generation)


@pytest.fixture
def child(root: Root) -> int:
    """A child that is not initialized yet, whose pool is empty."""
    return root.create_partition()


# -- 7.3.1 HvDepositMemory --


def test_deposit(root: Root, child: int) -> None:
    """TLFS 7.1.1: the balance counts the pages."""
    root.deposit(child, 5)
    balance = root.balance(child)
    assert (balance.available, balance.in_use) == (5, 0)


def test_deposited_page_is_out_of_reach(root: Root, child: int) -> None:
    """TLFS 7.3.1: the depositor can neither read nor write it; others stay."""
    m = root.machine
    first, second, third = root.pages(3)
    m.write(second * PAGE, b"secret")
    assert root.try_deposit(child, [second]).status == Status.SUCCESS
    with pytest.raises(MachineCheck):
        m.read(second * PAGE, 8)
    with pytest.raises(MachineCheck):
        m.write(second * PAGE + 8, b"x")
    with pytest.raises(MachineCheck):
        m.read(second * PAGE, 8, 1)
    m.write(first * PAGE, b"x")
    m.write(third * PAGE, b"x")


def test_deposit_flushes(root: Root, child: int) -> None:
    """TLFS 7.3.1: no VP of the depositor, nor of its descendants, has a right to the page when the call returns."""
    other = root.partition(vps=2)
    root.machine.clear_records()
    root.deposit(child, 3)
    flushed = root.machine.second_stage_flushes
    assert len(flushed) == 1
    caller, vps = flushed[0]
    assert caller == 0
    assert set(vps) == {0, 1, root.handle(other, 0), root.handle(other, 1)}


def test_parameter_page_that_was_deposited(root: Root, child: int) -> None:
    """TLFS 4.11.1, 11.8: a call whose input page the caller may not read is #MC."""
    (page,) = root.pages(1)
    assert root.try_deposit(child, [page]).status == Status.SUCCESS
    assert root.machine.call(0, GET_MEMORY_BALANCE, page * PAGE, OUTPUT).exit == Exit.MC
    assert root.machine.call(0, GET_MEMORY_BALANCE, INPUT, page * PAGE).exit == Exit.MC


def test_deposit_stops_at_the_first_bad_page(root: Root, child: int) -> None:
    """TLFS 4.2: the pages before it are deposited, and counted."""
    pages = root.pages(4)
    result = root.try_deposit(child, [*pages[:3], pages[0], pages[3]])
    assert result.status == Status.OPERATION_DENIED
    assert result.reps_completed == 3
    assert root.balance(child).available == 3
    result = root.try_deposit(child, [*pages[:3], pages[3]], start=3)
    assert result.status == Status.SUCCESS
    assert result.reps_completed == 4


@pytest.mark.parametrize("page", [0x1000, (1 << 24) - 1, 1 << 30, 1 << 51, (1 << 52) - 1, (1 << 64) - 1])
def test_pages_that_are_no_ram(root: Root, child: int, page: int) -> None:
    """TLFS 7.3.1: OPERATION_DENIED where nothing is mapped; the machine has RAM below page 0x1000."""
    assert root.try_deposit(child, [page]).status == Status.OPERATION_DENIED
    assert root.balance(child).available == 0


def test_pages_that_another_partition_can_access(root: Root, child: int) -> None:
    """TLFS 7.3.1: OPERATION_DENIED while a child has any right to the page."""
    other = root.partition()
    page = root.map_memory(other, 0, 1)
    assert root.try_deposit(child, [page]).status == Status.OPERATION_DENIED
    readable = root.map_memory(other, 1, 1, READ)
    assert root.try_deposit(child, [readable]).status == Status.OPERATION_DENIED
    assert root.try_deposit(other, [page]).status == Status.OPERATION_DENIED
    root.destroy(other)
    assert root.try_deposit(child, [page, readable]).status == Status.SUCCESS


def test_pages_without_all_rights(root: Root, child: int) -> None:
    """TLFS 7.3.1: OPERATION_DENIED when the caller itself lacks a right."""
    (page,) = root.pages(1)
    data = struct.pack("<QQII", SELF, page, READ | WRITE, 0) + struct.pack("<Q", page)
    assert root.status(0x004B | reps(1), data) == Status.SUCCESS
    assert root.try_deposit(child, [page]).status == Status.OPERATION_DENIED


def test_deposited_page_cannot_be_lent(root: Root, child: int) -> None:
    """TLFS 7.3.1: no mapping changes until it has been withdrawn."""
    other = root.partition()
    pages = root.deposit(child, 1)
    assert root.try_map(other, 0, pages).status != Status.SUCCESS
    data = struct.pack("<QQII", SELF, pages[0], 7, 0) + struct.pack("<Q", pages[0])
    assert root.status(0x004B | reps(1), data) != Status.SUCCESS
    with pytest.raises(MachineCheck):
        root.machine.read(pages[0] * PAGE, 1)
    assert root.withdraw_all(child) == pages
    assert root.try_map(other, 0, pages).status == Status.SUCCESS


def test_long_lists_yield(root: Root, child: int) -> None:
    """TLFS 4.3: a long list takes several executions, and loses nothing."""
    pages = root.pages(LIST_MAX)
    result = root.try_deposit(child, pages)
    assert result.status == Status.SUCCESS
    assert result.retries > 0
    assert root.balance(child).available == LIST_MAX
    result, withdrawn = root.try_withdraw(child, LIST_MAX)
    assert result.status == Status.SUCCESS
    assert result.retries > 0
    assert sorted(withdrawn) == pages


# -- 7.3.2 HvWithdrawMemory --


def test_withdrawal(root: Root, child: int) -> None:
    """TLFS 7.3.2: deposited page numbers, each once, zeroed, with all rights again."""
    m = root.machine
    pages = root.pages(6)
    for page in pages:
        m.write(page * PAGE + 100, b"secret")
    assert root.try_deposit(child, pages).status == Status.SUCCESS
    result, first = root.try_withdraw(child, 4)
    assert result.status == Status.SUCCESS
    assert len(first) == 4
    rest = root.withdraw_all(child)
    assert sorted(first + rest) == pages
    for page in pages:
        assert m.read(page * PAGE, PAGE) == bytes(PAGE)
        m.write(page * PAGE, b"x")
    assert root.try_deposit(child, pages).status == Status.SUCCESS


def test_withdrawal_ends_with_the_count(root: Root, child: int) -> None:
    """TLFS 7.3.2: NO_RESOURCES comes with what could be withdrawn before; deployed parents withdraw until then."""
    pages = root.deposit(child, 3)
    result, withdrawn = root.try_withdraw(child, 10)
    assert result.status == Status.NO_RESOURCES
    assert result.reps_completed == 3
    assert sorted(withdrawn) == pages
    result, withdrawn = root.try_withdraw(child, 10)
    assert result.status == Status.NO_RESOURCES
    assert (result.reps_completed, withdrawn) == (0, [])


def test_only_free_pages_are_withdrawn(root: Root) -> None:
    """TLFS 7.3.2: pages in use stay until what uses them is gone."""
    child = root.partition(vps=1)
    balance = root.balance(child)
    assert len(root.withdraw_all(child)) == balance.available
    assert (root.balance(child).available, root.balance(child).in_use) == (0, balance.in_use)
    assert root.try_create_vp(child, 1) == Status.INSUFFICIENT_MEMORY
    assert root.delete_vp(child, 0) == Status.SUCCESS
    assert len(root.withdraw_all(child)) == VP_COST
    assert root.finalize(child) == Status.SUCCESS
    assert len(root.withdraw_all(child)) == balance.in_use - VP_COST


def test_output_of_a_continued_withdrawal(root: Root, child: int) -> None:
    """TLFS 4.3: an execution that begins later in the list leaves what was written before."""
    pages = root.deposit(child, 4)
    root.machine.write(OUTPUT, b"\xaa" * 16)
    result = root.call(WITHDRAW_MEMORY | reps(4, 2), struct.pack("<QQ", child, 0))
    assert result.status == Status.SUCCESS
    assert result.reps_completed == 4
    assert root.machine.read(OUTPUT, 16) == b"\xaa" * 16
    assert set(root.output("<QQQQ")[2:]) <= set(pages)


# -- The root's own pool --


def test_root_pool(root: Root) -> None:
    """TLFS 22.3: it has pages at boot, which are the hypervisor's own and cannot be withdrawn."""
    assert root.balance() == root.balance(ROOT_ID)
    assert root.balance().available == ROOT_POOL
    result, pages = root.try_withdraw(SELF, 4)
    assert (result.status, pages) == (Status.NO_RESOURCES, [])


def test_root_deposits_to_itself(root: Root) -> None:
    """TLFS 7.3.1: the root may name itself, and gets back exactly what it gave."""
    pages = root.deposit(SELF, 8)
    assert root.balance().available == ROOT_POOL + 8
    with pytest.raises(MachineCheck):
        root.machine.read(pages[0] * PAGE, 1)
    assert sorted(root.withdraw_all(ROOT_ID)) == pages
    assert root.balance().available == ROOT_POOL


# -- Nested --


def test_a_child_deposits_to_its_own_child(root: Root) -> None:
    """TLFS 7.1.1: pages of the child's GPA space, gone for it and for nobody else; they come back to it."""
    m = root.machine
    child = Child(root, root.partition(memory=64, privileges=PARENT))
    grandchild = child.create_partition()
    data = struct.pack("<QQQ", grandchild, 60, 62)
    assert child.status(DEPOSIT_MEMORY | reps(2), data) == Status.SUCCESS
    with pytest.raises(GpaFault):
        m.read(60 * PAGE, 1, child.vp)
    m.write(61 * PAGE, b"x", child.vp)
    assert root.try_balance(grandchild) == Status.ACCESS_DENIED
    result = child.call(WITHDRAW_MEMORY | reps(5), struct.pack("<QQ", grandchild, 0))
    assert (result.status, result.reps_completed) == (Status.NO_RESOURCES, 2)
    assert sorted(child.output("<QQ")) == [60, 62]
    m.write(60 * PAGE, b"x", child.vp)


def test_a_child_deposits_nothing_to_itself(root: Root) -> None:
    """TLFS 7.3: only the root may name itself."""
    child = Child(root, root.partition(memory=64, privileges=PARENT))
    assert child.status(DEPOSIT_MEMORY | reps(1), struct.pack("<QQ", SELF, 60)) == Status.ACCESS_DENIED
    assert child.status(WITHDRAW_MEMORY | reps(1), struct.pack("<QQ", SELF, 0)) == Status.ACCESS_DENIED
    assert child.status(GET_MEMORY_BALANCE, struct.pack("<QQ", SELF, 0)) == Status.ACCESS_DENIED


def test_destruction_while_pages_are_nested(root: Root) -> None:
    """A page that a child deposited goes with it: its parent lends it to somebody else afterwards."""
    child = Child(root, root.partition(memory=64, privileges=PARENT))
    grandchild = child.create_partition()
    assert child.status(DEPOSIT_MEMORY | reps(1), struct.pack("<QQ", grandchild, 60)) == Status.SUCCESS
    assert child.call(WITHDRAW_MEMORY | reps(1), struct.pack("<QQ", grandchild, 0)).status == Status.SUCCESS
    assert child.fast(0x0043, grandchild) == Status.SUCCESS
    root.destroy(child.partition)


# -- Who may, and parameters --


@pytest.mark.parametrize("code", [DEPOSIT_MEMORY, WITHDRAW_MEMORY, GET_MEMORY_BALANCE])
def test_privilege(generation: str, code: int) -> None:
    """TLFS 7.3: ACCESS_DENIED without AccessMemoryPool, also for the root on itself."""
    root = Root(generation, privileges=privilege_mask(Privilege.AccessHypercallMsrs, Privilege.CreatePartitions))
    child = root.create_partition()
    for target in (child, SELF):
        count = 0 if code == GET_MEMORY_BALANCE else reps(1)
        assert root.status(code | count, struct.pack("<QQ", target, 0)) == Status.ACCESS_DENIED


@pytest.mark.parametrize("target", [0, NO_SUCH])
def test_no_such_partition(root: Root, target: int) -> None:
    """TLFS 7.3: INVALID_PARTITION_ID."""
    assert root.try_deposit(target, root.pages(1)).status == Status.INVALID_PARTITION_ID
    assert root.try_withdraw(target, 1)[0].status == Status.INVALID_PARTITION_ID
    assert root.try_balance(target) == Status.INVALID_PARTITION_ID


@pytest.mark.parametrize(
    ("proximity", "expected"),
    [
        (5, Status.SUCCESS),
        (VALID_PROXIMITY, Status.SUCCESS),
        (VALID_PROXIMITY | 5, Status.INVALID_PARAMETER),
        (VALID_PROXIMITY | 1 << 32 | 5, Status.SUCCESS),
        (VALID_PROXIMITY | 1 << 40, Status.INVALID_PARAMETER),
    ],
)
def test_proximity_domain(root: Root, child: int, proximity: int, expected: Status) -> None:
    """TLFS 7.3.2, 7.3.3: INVALID_PARAMETER for an invalid flag bit or domain."""
    root.deposit(child, 1)
    assert root.try_balance(child, proximity=proximity) == expected
    result, pages = root.try_withdraw(child, 1, proximity=proximity)
    assert result.status == expected
    assert len(pages) == (expected == Status.SUCCESS)


def test_deposit_of_nothing(root: Root, child: int) -> None:
    """TLFS 4.11.4: a rep count of zero is an invalid input."""
    assert root.call(DEPOSIT_MEMORY, struct.pack("<Q", child)).status == Status.INVALID_HYPERCALL_INPUT
    assert root.machine.hypercall(0, WITHDRAW_MEMORY, INPUT, OUTPUT).exit == Exit.DONE
