# SPDX-License-Identifier: GPL-2.0-or-later
"""Chapter 9 of the TLFS and what chapter 11 makes of it: which events of a child go to its parent."""

from __future__ import annotations

import struct

import pytest
from intercepts import (
    ACCESS,
    CPUID,
    EXCEPTION,
    EXECUTE,
    INSTALL_INTERCEPT,
    IO_PORT,
    MSR,
    NONE,
    READ,
    WRITE,
    Parent,
    install_input,
)
from root import ROOT_ID, SELF, Child

from qemu_hv._core import Exit, Status

ALL_KINDS = [IO_PORT, MSR, CPUID, EXCEPTION]
UNKNOWN_MSR = 0x1234


@pytest.fixture
def parent(generation: str) -> Parent:
    """A parent with one child."""
    return Parent(generation)


# -- 9.3.1 HvInstallIntercept --


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("access", range(9))
def test_access_types(parent: Parent, kind: int, access: int) -> None:
    """TLFS 9.1.1, 9.2.3: one mask installs an intercept of each type, none removes it, others are not permitted."""
    permitted = access in (NONE, ACCESS[kind])
    expected = Status.SUCCESS if permitted else Status.INVALID_PARAMETER
    assert parent.try_install(kind, 0, access) == expected


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_types_that_the_platform_does_not_offer(generation: str, kind: int) -> None:
    """TLFS 9.3.1: where CPUID and exceptions cannot be intercepted, theirs are no valid types."""
    parent = Parent(generation, fewer_intercepts=True)
    offered = kind in (IO_PORT, MSR)
    assert parent.try_install(kind) == (Status.SUCCESS if offered else Status.INVALID_PARAMETER)
    assert parent.try_install(kind, 0, NONE) == Status.SUCCESS


@pytest.mark.parametrize("access", [0x100, 0x103, 0x80000003])
def test_access_type_is_checked_whole(parent: Parent, access: int) -> None:
    """TLFS 9.2.3, 9.3.1: the field has four bytes."""
    assert parent.try_install(IO_PORT, 0, access) == Status.INVALID_PARAMETER


@pytest.mark.parametrize("kind", [4, 5, 0xFFFFFFFF])
def test_unknown_type(parent: Parent, kind: int) -> None:
    """TLFS 9.2.1, 9.3.1: the intercept type is invalid, whatever is asked of it."""
    for access in (NONE, READ | WRITE, EXECUTE):
        assert parent.try_install(kind, 0, access) == Status.INVALID_PARAMETER


@pytest.mark.parametrize(
    ("kind", "last"),
    [(IO_PORT, 0xFFFF), (MSR, 0), (CPUID, 0xFFFFFFFF), (EXCEPTION, 31)],
    ids=["io", "msr", "cpuid", "ex"],
)
def test_parameter_range(parent: Parent, kind: int, last: int) -> None:
    """TLFS 9.2.2: parameters out of range, and reserved parts of them that are not zero."""
    assert parent.try_install(kind, last) == Status.SUCCESS
    assert parent.try_install(kind, last + 1) == Status.INVALID_PARAMETER
    assert parent.try_install(kind, 1 << 63) == Status.INVALID_PARAMETER
    assert parent.try_install(kind, last, NONE) == Status.SUCCESS
    assert parent.try_install(kind, last + 1, NONE) == Status.INVALID_PARAMETER


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_install_and_remove_again(parent: Parent, kind: int) -> None:
    """TLFS 9.3.1: what is there may be installed, what is not there removed."""
    for _ in range(3):
        assert parent.try_install(kind, 0) == Status.SUCCESS
    for _ in range(3):
        assert parent.try_install(kind, 0, NONE) == Status.SUCCESS


def test_partition_must_exist(parent: Parent) -> None:
    """TLFS 9.3.1: INVALID_PARTITION_ID comes before parameters are looked at."""
    assert parent.status(INSTALL_INTERCEPT, install_input(99, 7, 9, 1 << 40)) == Status.INVALID_PARTITION_ID


@pytest.mark.parametrize("partition", [SELF, ROOT_ID])
def test_caller_must_be_parent(parent: Parent, partition: int) -> None:
    """TLFS 9.3.1: nobody intercepts himself."""
    data = install_input(partition, READ | WRITE, IO_PORT, 0x80)
    assert parent.status(INSTALL_INTERCEPT, data) == Status.ACCESS_DENIED


def test_child_is_not_parent(parent: Parent) -> None:
    """TLFS 9.3.1: a child may not work on its siblings, nor on itself."""
    sibling = parent.partition()
    child = Child(parent, parent.child)
    for partition in (sibling, parent.child, ROOT_ID):
        data = install_input(partition, EXECUTE, CPUID, 1)
        assert child.status(INSTALL_INTERCEPT, data) == Status.ACCESS_DENIED


def test_partition_must_be_active(parent: Parent) -> None:
    """TLFS 9.3.1: the state comes before parameters."""
    partition = parent.create_partition()
    data = install_input(partition, 7, 9, 1 << 40)
    assert parent.status(INSTALL_INTERCEPT, data) == Status.INVALID_PARTITION_STATE
    parent.deposit(partition, 64)
    assert parent.initialize(partition) == Status.SUCCESS
    assert parent.status(INSTALL_INTERCEPT, data) == Status.INVALID_PARAMETER
    assert parent.finalize(partition) == Status.SUCCESS
    assert parent.status(INSTALL_INTERCEPT, data) == Status.INVALID_PARTITION_STATE


# -- Memory (TLFS 9.3.1) --


def test_only_cpuid_costs_memory(parent: Parent) -> None:
    """TLFS 9.3.1: the other types need no allocation; a leaf's memory comes back with its removal."""
    before = parent.balance(parent.child)
    parent.install(MSR)
    parent.install(EXCEPTION, 14)
    for port in range(0, 0x10000, 97):
        parent.install(IO_PORT, port)
    assert parent.balance(parent.child) == before
    parent.install(CPUID, 1)
    parent.install(CPUID, 1)
    after = parent.balance(parent.child)
    assert (after.available, after.in_use) == (before.available - 1, before.in_use + 1)
    parent.remove(CPUID, 1)
    parent.remove(CPUID, 1)
    assert parent.balance(parent.child) == before


def test_insufficient_memory(parent: Parent) -> None:
    """TLFS 9.3.1: a pool without a free page takes no more leaves, and everything else."""
    parent.withdraw_all(parent.child)
    assert parent.try_install(CPUID, 1) == Status.INSUFFICIENT_MEMORY
    assert parent.try_install(CPUID, 1, NONE) == Status.SUCCESS
    for kind in (IO_PORT, MSR, EXCEPTION):
        assert parent.try_install(kind, 0) == Status.SUCCESS
    parent.deposit(parent.child, 1)
    assert parent.try_install(CPUID, 1) == Status.SUCCESS
    assert parent.try_install(CPUID, 1) == Status.SUCCESS
    assert parent.try_install(CPUID, 2) == Status.INSUFFICIENT_MEMORY
    parent.remove(CPUID, 1)
    assert parent.try_install(CPUID, 2) == Status.SUCCESS


def test_many_leaves(generation: str) -> None:
    """TLFS 9.1.1: leaves are independent of each other, however many, and their places are used again."""
    parent = Parent(generation, deposit=1200)
    leaves = [n * 0x9E3779B1 % 2**32 for n in range(1000)]
    for leaf in leaves:
        parent.install(CPUID, leaf)
    for leaf in leaves[::2]:
        parent.remove(CPUID, leaf)
    for leaf in (n + 7 for n in leaves[::2]):
        parent.install(CPUID, leaf)
    intercepted = {leaf for leaf in leaves + [n + 7 for n in leaves] if parent.machine.child_cpuid(parent.vp, leaf)[0]}
    assert intercepted == set(leaves[1::2]) | {n + 7 for n in leaves[::2]}


def test_finalizing_frees_all(parent: Parent) -> None:
    """TLFS 5.4: intercepts go with their partition, and their memory comes back."""
    partition = parent.create_partition()
    pages = parent.deposit(partition, 100)
    assert parent.initialize(partition) == Status.SUCCESS
    for leaf in range(20):
        data = install_input(partition, EXECUTE, CPUID, leaf)
        assert parent.status(INSTALL_INTERCEPT, data) == Status.SUCCESS
    assert parent.finalize(partition) == Status.SUCCESS
    assert sorted(parent.withdraw_all(partition)) == pages
    assert parent.delete(partition) == Status.SUCCESS


def test_partitions_do_not_share(parent: Parent) -> None:
    """TLFS 9.1.1: an intercept concerns one partition."""
    other = parent.handle(parent.partition(), 0)
    parent.install(IO_PORT, 0x80)
    parent.install(CPUID, 1)
    parent.install(MSR)
    parent.install(EXCEPTION, 6)
    m = parent.machine
    assert m.io(other, 0x80, 1, False)[0] == Exit.DONE
    assert m.child_cpuid(other, 1)[0] == Exit.DONE
    assert m.child_rdmsr(other, UNKNOWN_MSR)[0] == Exit.GP
    assert m.exception(other, 6) == Exit.NATIVE
    assert parent.receiver() is None


# -- 11.9 I/O ports --


@pytest.mark.parametrize(("size", "ones"), [(1, 0xFF), (2, 0xFFFF), (4, 0xFFFFFFFF)])
def test_io_without_intercept(parent: Parent, size: int, ones: int) -> None:
    """TLFS 11.9: writes are discarded, reads return all bits set."""
    assert parent.io(0x60, size, write=True, value=0x12345678) == (Exit.DONE, 0x12345678)
    assert parent.io(0x60, size) == (Exit.DONE, ones)
    assert not parent.is_suspended()


@pytest.mark.parametrize("write", [False, True])
def test_io_intercept(parent: Parent, write: bool) -> None:
    """TLFS 11.9: both directions of the port, and no other port."""
    parent.install(IO_PORT, 0x3F8)
    assert parent.io(0x3F7, write=write)[0] == Exit.DONE
    assert parent.io(0x3F9, write=write)[0] == Exit.DONE
    assert not parent.is_suspended()
    assert parent.io(0x3F8, write=write)[0] == Exit.INTERCEPT
    assert parent.is_suspended()
    parent.remove(IO_PORT, 0x3F8)
    assert parent.io(0x3F8, write=write)[0] == Exit.DONE


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("distance", range(-4, 5))
def test_io_is_several_ports(parent: Parent, size: int, distance: int) -> None:
    """TLFS 16.5.3: an access of several bytes is one to several ports, any of which may be intercepted."""
    parent.install(IO_PORT, 0x100)
    expected = Exit.INTERCEPT if distance <= 0 < distance + size else Exit.DONE
    assert parent.io(0x100 + distance, size)[0] == expected


def test_io_at_the_end_of_ports(parent: Parent) -> None:
    """TLFS 11.9: nothing wraps around."""
    parent.install(IO_PORT, 0)
    assert parent.io(0xFFFF, 4)[0] == Exit.DONE
    parent.install(IO_PORT, 0xFFFF)
    assert parent.io(0xFFFF, 4)[0] == Exit.INTERCEPT
    assert parent.io(0xFFFC, 4)[0] == Exit.INTERCEPT


def test_root_keeps_its_ports(parent: Parent) -> None:
    """TLFS 11.9: accesses of the root proceed normally."""
    assert parent.machine.io(0, 0x80, 1, False)[0] == Exit.NATIVE


# -- 11.10 MSRs --


def test_msr_intercept(parent: Parent) -> None:
    """TLFS 11.10: an MSR that is not virtualized is #GP, or an intercept, for reads and writes."""
    m = parent.machine
    assert m.child_rdmsr(parent.vp, UNKNOWN_MSR)[0] == Exit.GP
    assert m.child_wrmsr(parent.vp, UNKNOWN_MSR, 1) == Exit.GP
    parent.install(MSR)
    assert m.child_rdmsr(parent.vp, UNKNOWN_MSR)[0] == Exit.INTERCEPT
    assert m.child_wrmsr(parent.vp, UNKNOWN_MSR, 1) == Exit.INTERCEPT
    parent.remove(MSR)
    assert m.child_rdmsr(parent.vp, UNKNOWN_MSR)[0] == Exit.GP


# -- 11.11 CPUID --


def test_cpuid_intercept(parent: Parent) -> None:
    """TLFS 11.11: the index in EAX decides, whatever the subleaf."""
    m = parent.machine
    parent.install(CPUID, 4)
    assert m.child_cpuid(parent.vp, 4, 0)[0] == Exit.INTERCEPT
    assert m.child_cpuid(parent.vp, 4, 3)[0] == Exit.INTERCEPT
    assert m.child_cpuid(parent.vp, 0x80000004)[0] == Exit.DONE
    assert m.child_cpuid(parent.vp, 3)[0] == Exit.DONE


def test_cpuid_intercept_of_hypervisor_leaves(parent: Parent) -> None:
    """TLFS 9.2.2: any index can be intercepted."""
    parent.install(CPUID, 0x40000000)
    assert parent.machine.child_cpuid(parent.vp, 0x40000000)[0] == Exit.INTERCEPT
    assert parent.machine.child_cpuid(parent.vp, 0x40000001)[0] == Exit.DONE


# -- 11.12 Exceptions --


@pytest.mark.parametrize("vector", [0, 6, 13, 14, 31])
def test_exception_intercept(parent: Parent, vector: int) -> None:
    """TLFS 11.12: the exception's own vector, and no other."""
    m = parent.machine
    assert m.exception(parent.vp, vector) == Exit.NATIVE
    parent.install(EXCEPTION, vector)
    assert m.exception(parent.vp, vector) == Exit.INTERCEPT
    for other in set(range(32)) - {vector}:
        assert m.exception(parent.vp, other) == Exit.NATIVE
    parent.remove(EXCEPTION, vector)
    assert m.exception(parent.vp, vector) == Exit.NATIVE


def test_running_vps_see_new_exception_intercepts(parent: Parent) -> None:
    """TLFS 11.12: a VP in the guest is made to look again."""
    parent.resume(parent.child)
    lp = parent.machine.lp_of(parent.vp)
    running, _ = parent.machine.schedule(lp)
    while running != parent.vp:
        assert running is not None
        parent.machine.set_waits(running, True)
        parent.machine.stopped(running)
        running, _ = parent.machine.schedule(lp)
    parent.machine.clear_records()
    parent.install(EXCEPTION, 3)
    assert parent.vp in parent.machine.kicks


def test_dispatcher_ignores_no_bits(parent: Parent) -> None:
    """TLFS 4.7: HvInstallIntercept has no fast form."""
    assert parent.fast(INSTALL_INTERCEPT, parent.child) == Status.INVALID_HYPERCALL_INPUT
    short = struct.pack("<QI", parent.child, READ | WRITE)
    assert parent.call(INSTALL_INTERCEPT | 1 << 32, short).status == Status.INVALID_HYPERCALL_INPUT
