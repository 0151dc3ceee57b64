# SPDX-License-Identifier: GPL-2.0-or-later
"""TLFS 15.1.2, 15.2, 15.4: reference time of a child partition, and its timers."""

from __future__ import annotations

import struct

import pytest
from child_apic import Apic
from root import EXPLICIT_SUSPEND, INTERCEPT_SUSPEND, PRIVILEGE_FLAGS, Root
from simulated_guest import (
    REFERENCE_TSC,
    SCONTROL,
    SIM,
    SIMP,
    SINT0,
    STIMER0_CONFIG,
    STIMER0_COUNT,
    TIME_REF_COUNT,
    TSC_PAGE,
    timer_value,
)

from qemu_hv._core import Status

TSC_REGISTER = 0x00080000
ACCESS_REFERENCE_TSC = 1 << 9
"""Privilege that a child does not have by default (TLFS 5.2.3)."""
ONES = (1 << 64) - 1


@pytest.fixture
def root(generation: str) -> Root:
    """A root that has been up for a while."""
    root = Root(generation)
    root.machine.advance(123456)
    return root


def child(root: Root, vps: int = 1) -> int:
    """A child with memory whose VPs are all suspended, as they are born."""
    return root.partition(vps=vps, deposit=100 * vps + 100, memory=96)


def time(root: Root, partition: int, index: int = 0) -> int:
    """The reference counter as the VP reads it."""
    return root.machine.rdmsr(root.handle(partition, index), TIME_REF_COUNT)


def suspend(root: Root, partition: int, index: int = 0) -> None:
    """Suspend explicitly."""
    root.set_register(partition, index, EXPLICIT_SUSPEND, 1)


def page(root: Root, partition: int) -> tuple[int, int, int]:
    """The reference TSC page: sequence, scale, offset."""
    vp = root.handle(partition, 0)
    sequence, _, scale, offset = struct.unpack("<IIQq", root.machine.read(TSC_PAGE, 24, vp))
    return sequence, scale, offset


def page_time(root: Root, partition: int, tsc: int | None = None) -> int:
    """Reference time by the formula of TLFS 15.4.3."""
    sequence, scale, offset = page(root, partition)
    assert sequence not in (0, 0xFFFFFFFF)
    value = root.machine.tsc if tsc is None else tsc
    return ((value * scale >> 64) + offset) & ONES


# -- The counter --


def test_starts_at_zero(root: Root) -> None:
    """TLFS 15.2.1: it is zero when the partition is created, and begins with the first VP that runs."""
    partition = child(root)
    root.machine.advance(5000)
    assert time(root, partition) == 0
    root.resume(partition)
    assert time(root, partition) == 0
    root.machine.advance(5000)
    assert time(root, partition) == 5000


def test_each_partition_has_its_own(root: Root) -> None:
    """TLFS 15.1.2: they count at the same rate and differ in value."""
    first = child(root)
    root.resume(first)
    root.machine.advance(1000)
    second = child(root)
    root.resume(second)
    root.machine.advance(500)
    assert (time(root, first), time(root, second)) == (1500, 500)
    assert root.time() == 123456 + 1500


def test_stops_while_all_are_explicitly_suspended(root: Root) -> None:
    """TLFS 15.1.2: it counts as long as at least one VP is not explicitly suspended."""
    partition = child(root, 2)
    root.resume(partition, 0)
    root.machine.advance(100)
    root.resume(partition, 1)
    root.machine.advance(100)
    suspend(root, partition, 0)
    root.machine.advance(100)
    assert time(root, partition) == 300
    suspend(root, partition, 1)
    root.machine.advance(1000)
    assert time(root, partition) == 300
    assert time(root, partition, 1) == 300
    root.resume(partition, 1)
    assert time(root, partition) == 300
    root.machine.advance(100)
    assert time(root, partition) == 400


def test_suspended_twice_is_suspended_once(root: Root) -> None:
    """Writing the register again changes nothing."""
    partition = child(root, 2)
    for index in (0, 1):
        root.resume(partition, index)
        root.resume(partition, index)
    suspend(root, partition, 0)
    suspend(root, partition, 0)
    root.machine.advance(100)
    assert time(root, partition) == 100
    suspend(root, partition, 1)
    root.machine.advance(100)
    assert time(root, partition) == 100
    root.resume(partition, 0)
    root.machine.advance(100)
    assert time(root, partition) == 200


def test_intercept_does_not_stop_it(root: Root) -> None:
    """TLFS 15.1.2: only explicit suspension counts."""
    root.enable_synic()
    partition = child(root)
    root.resume(partition)
    root.machine.triple_fault(root.handle(partition, 0))
    assert root.get_register(partition, 0, INTERCEPT_SUSPEND) == 1
    root.machine.advance(100)
    assert time(root, partition) == 100


def test_deleted_vps_do_not_count(root: Root) -> None:
    """A VP that goes is not one that runs."""
    partition = child(root, 2)
    root.resume(partition, 0)
    root.machine.advance(100)
    assert root.delete_vp(partition, 0) == Status.SUCCESS
    root.machine.advance(100)
    assert time(root, partition, 1) == 100
    root.resume(partition, 1)
    root.machine.advance(100)
    assert time(root, partition, 1) == 200
    root.create_vp(partition, 0)
    suspend(root, partition, 1)
    root.machine.advance(100)
    assert time(root, partition, 1) == 200


def test_root_never_stops(root: Root) -> None:
    """Nobody suspends the root's VPs."""
    partition = child(root)
    root.resume(partition)
    suspend(root, partition)
    before = root.time()
    root.machine.advance(100)
    assert root.time() == before + 100


def test_never_goes_back(root: Root) -> None:
    """However often it stops."""
    partition = child(root)
    last = 0
    for step in range(50):
        root.resume(partition)
        root.machine.advance_tsc(1000 + step)
        now = time(root, partition)
        assert now >= last
        suspend(root, partition)
        root.machine.advance_tsc(777)
        stopped = time(root, partition)
        assert stopped >= now
        last = stopped


# -- The reference TSC page --


def show_page(root: Root, partition: int) -> None:
    """Give the child the privilege and have it enable its page."""
    privileges = root.get_property(partition, PRIVILEGE_FLAGS)
    assert root.set_property(partition, PRIVILEGE_FLAGS, privileges | ACCESS_REFERENCE_TSC) == Status.SUCCESS
    root.machine.wrmsr(root.handle(partition, 0), REFERENCE_TSC, TSC_PAGE | 1)


def test_page_and_counter_agree(root: Root) -> None:
    """TLFS 15.4.3: the page's formula gives what the register gives."""
    partition = child(root)
    root.resume(partition)
    show_page(root, partition)
    for ticks in (1, 255, 256, 12345, 1 << 40):
        root.machine.advance_tsc(ticks)
        assert page_time(root, partition) == time(root, partition)


def test_page_changes_when_time_goes_on(root: Root) -> None:
    """TLFS 15.4.3.2: a new offset comes with a new sequence."""
    partition = child(root)
    root.resume(partition)
    show_page(root, partition)
    root.machine.advance(100)
    sequence, scale, offset = page(root, partition)
    suspend(root, partition)
    root.machine.advance(1000)
    root.resume(partition)
    assert page(root, partition) == (sequence + 1, scale, offset - 1000)
    root.machine.advance(5)
    assert page_time(root, partition) == time(root, partition) == 105


def test_page_does_not_change_for_another_vp(root: Root) -> None:
    """While another VP runs, suspending and resuming costs nothing."""
    partition = child(root, 2)
    root.resume(partition, 0)
    root.resume(partition, 1)
    show_page(root, partition)
    before = page(root, partition)
    suspend(root, partition, 1)
    root.machine.advance(100)
    root.resume(partition, 1)
    assert page(root, partition) == before


def test_page_goes_by_the_childs_tsc(root: Root) -> None:
    """TLFS 15.4.3: VirtualTsc is what the child reads, also after its TSC was set."""
    partition = child(root)
    root.resume(partition)
    show_page(root, partition)
    sequence = page(root, partition)[0]
    root.machine.advance(5000)
    root.set_register(partition, 0, TSC_REGISTER, 1 << 50)
    assert page(root, partition)[0] == sequence + 1
    assert time(root, partition) == 5000
    assert abs(page_time(root, partition, 1 << 50) - 5000) <= 1
    root.machine.advance(100)
    assert abs(page_time(root, partition, (1 << 50) + 100 * 256) - 5100) <= 1


# -- Timers --


def timer(root: Root, partition: int, count: int, *, periodic: bool = False) -> Apic:
    """VP 0 with its timer 0 set, which sends messages to SINT 2."""
    apic = Apic(root, partition, 0)
    m = root.machine
    m.wrmsr(apic.vp, SIMP, SIM | 1)
    m.wrmsr(apic.vp, SCONTROL, 1)
    m.wrmsr(apic.vp, SINT0 + 2, 0x41)
    m.wrmsr(apic.vp, STIMER0_COUNT, count)
    m.wrmsr(apic.vp, STIMER0_CONFIG, timer_value(2, periodic=periodic))
    return apic


def expired(apic: Apic) -> tuple[int, int] | None:
    """Take the message of an expiration: its expiration and delivery times."""
    slot = apic.machine.read(SIM + 2 * 256, 256, apic.vp)
    if not slot[:4].strip(b"\0"):
        assert apic.accept() is None
        return None
    apic.machine.write(SIM + 2 * 256, bytes(4), apic.vp)
    assert apic.accept() == 0x41
    apic.eoi()
    expiration, delivery = struct.unpack_from("<QQ", slot, 24)
    return int(expiration), int(delivery)


def test_timer_goes_by_the_partitions_time(root: Root) -> None:
    """TLFS 15.3.2: its count is the partition's reference time."""
    partition = child(root)
    root.resume(partition)
    root.machine.advance(1000)
    apic = timer(root, partition, 3000)
    root.machine.advance(1999)
    assert expired(apic) is None
    root.machine.advance(1)
    assert expired(apic) == (3000, 3000)


def test_timer_stops_with_time(root: Root) -> None:
    """A timer does not expire while its time is stopped, and comes in time afterwards."""
    partition = child(root)
    root.resume(partition)
    apic = timer(root, partition, 3000)
    root.machine.advance(1000)
    suspend(root, partition)
    root.machine.advance(100_000)
    assert expired(apic) is None
    root.resume(partition)
    root.machine.advance(1999)
    assert expired(apic) is None
    root.machine.advance(1)
    assert expired(apic) == (3000, 3000)


def test_late_call_while_time_is_stopped(root: Root) -> None:
    """The platform's timer may run out just then; nothing is set that would run out again at once."""
    partition = child(root)
    root.resume(partition)
    apic = timer(root, partition, 3000)
    suspend(root, partition)
    root.machine.advance_tsc(100_000 * 256)
    root.machine.timer_expired(apic.vp, 0)
    assert expired(apic) is None
    assert root.machine.timer_tsc(apic.vp, 0) is None
    root.resume(partition)
    root.machine.advance(3000)
    assert expired(apic) == (3000, 3000)


def test_timer_set_while_time_is_stopped(root: Root) -> None:
    """As a parent sets a timer of a VP that it has suspended."""
    partition = child(root)
    apic = timer(root, partition, 3000)
    root.machine.advance(10_000)
    assert expired(apic) is None
    root.resume(partition)
    root.machine.advance(3000)
    assert expired(apic) == (3000, 3000)


def test_periodic_timer_stops_with_time(root: Root) -> None:
    """A periodic timer keeps its phase of reference time."""
    partition = child(root)
    root.resume(partition)
    apic = timer(root, partition, 1000, periodic=True)
    root.machine.advance(1500)
    assert expired(apic) == (1000, 1000)
    suspend(root, partition)
    root.machine.advance(50_000)
    root.resume(partition)
    root.machine.advance(500)
    assert expired(apic) == (2000, 2000)
    assert expired(apic) is None


def test_timers_of_two_partitions(root: Root) -> None:
    """Each partition's timers send to its own VPs."""
    partitions = [child(root), child(root)]
    apics = []
    for partition in partitions:
        root.resume(partition)
        apics.append(timer(root, partition, 1000))
        root.machine.advance(100)
    root.machine.advance(800)
    assert (expired(apics[0]), expired(apics[1])) == ((1000, 1000), None)
    root.machine.advance(100)
    assert (expired(apics[0]), expired(apics[1])) == (None, (1000, 1000))


def test_message_waits_while_time_is_stopped(root: Root) -> None:
    """TLFS 14.2.4: delivery is tried again after a while, also then."""
    partition = child(root)
    root.resume(partition)
    apic = timer(root, partition, 1000)
    root.machine.write(SIM + 2 * 256, b"\1", apic.vp)
    root.machine.advance(1000)
    suspend(root, partition)
    root.machine.write(SIM + 2 * 256, bytes(4), apic.vp)
    root.machine.advance(20_000)
    assert expired(apic) == (1000, 1000)
