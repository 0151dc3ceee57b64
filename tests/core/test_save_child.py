# SPDX-License-Identifier: GPL-2.0-or-later
"""The operator's save of a whole child: what TLFS 17.1.4 leaves to the parent goes with it."""

from __future__ import annotations

import random
import struct

import pytest
from intercepts import CPUID, EXCEPTION, INSTALL_INTERCEPT, IO_PORT, MSR, install_input
from ports import Ports, message_info
from root import CPU_CAP, CPU_WEIGHT, EXPLICIT_SUSPEND, READ, ROOT_ID, Child, Root
from test_monitor_port import EVENT_PORT, MONITOR_PORT, SHORTEST, Channel
from test_save_children import FREQUENCY, IO, SPARE_VP, Family, make_family, visible
from transfers import Stream

from qemu_hv._core import Exit, RestoreError, Status

MISSING = 0x999
LEAF = 0x1000


def make_child(generation: str) -> Family:
    """A family without its grandchild, whose intercepts have been answered."""
    family = make_family(generation)
    root = family.root
    assert root.machine.operator_delete_partition(family.grandchild) == 0
    for vp in (0, SPARE_VP):
        root.take_message(0)
        root.set_register(family.child.partition, vp, 1, 0)
    assert root.machine.operator_pause_partition(family.child.partition, True)
    return family


@pytest.fixture
def family(generation: str) -> Family:
    """A paused child in the middle of everything."""
    return make_child(generation)


def pages_of(family: Family) -> int:
    """How many pages the child has mapped."""
    return int(family.root.machine.gpa_space(family.child.partition)[1])


def look(family: Family) -> dict[str, object]:
    """What root and child can see, without what belongs to the grandchild."""
    grandchild = family.grandchild
    family.grandchild = family.child.partition
    try:
        seen = visible(family)
    finally:
        family.grandchild = grandchild
    root, partition = family.root, family.child.partition
    seen["vps"] = [vp[1:] for vp in seen["vps"]]  # type: ignore[attr-defined]
    seen["weights"] = [root.get_property(partition, code) for code in (CPU_CAP, CPU_WEIGHT)]
    return seen


def test_settled(generation: str) -> None:
    """A child can be saved while it is paused and its parent owes it no answer."""
    family = make_family(generation)
    m, partition = family.root.machine, family.child.partition
    assert m.child_is_settled(MISSING)[0] == 2
    assert m.child_is_settled(ROOT_ID)[0] == 2
    assert m.child_is_settled(family.grandchild) == (2, "it is no child of the root partition")
    assert m.child_is_settled(partition) == (2, "it has child partitions of its own")
    assert m.operator_delete_partition(family.grandchild) == 0
    assert m.child_is_settled(partition)[0] == 1
    family = make_child(generation)
    assert family.root.machine.child_is_settled(family.child.partition) == (0, "")
    fresh = family.root.create_partition()
    assert family.root.machine.child_is_settled(fresh) == (2, "it is not active")


def test_in_place(family: Family) -> None:
    """A child is replaced by what it was; its parent has lost and gained nothing."""
    m = family.root.machine
    stream, pages, before = m.save_child(family.child.partition), pages_of(family), look(family)
    assert look(family) == before, "saving changes nothing"
    runs = m.child_runs(family.child.partition)
    family.root.set_property(family.child.partition, CPU_WEIGHT, 78)
    assert m.restore_child(stream, pages) == family.child.partition
    family.child.vp = family.root.handle(family.child.partition, 0)
    assert look(family) == before
    assert m.child_runs(family.child.partition) == runs
    assert sum(count for _, _, count in runs) == pages


def test_after_deletion(family: Family) -> None:
    """A child that has gone comes back with its ID, intercepts and rights; a new partition gets another ID."""
    m, root, partition = family.root.machine, family.root, family.child.partition
    stream, pages, before = m.save_child(partition), pages_of(family), look(family)
    assert m.operator_delete_partition(partition) == 0
    assert m.restore_child(stream, pages) == partition
    family.child.vp = root.handle(partition, 0)
    after = look(family)
    assert {key: after[key] for key in ("vps", "balances", "spaces", "properties", "weights")} == {
        key: before[key] for key in ("vps", "balances", "spaces", "properties", "weights")
    }
    assert root.create_partition() > partition
    assert m.operator_pause_partition(partition, False)
    assert m.io(family.child.vp, IO, 1, True, 7)[0] == Exit.INTERCEPT


def test_in_another_machine(family: Family, generation: str) -> None:
    """A root that has the same pages free takes the child; deposits leave its reach again."""
    stream, pages = family.root.machine.save_child(family.child.partition), pages_of(family)
    other = Root(generation, tsc_frequency=FREQUENCY)
    other.enable_synic()
    assert other.machine.restore_child(stream, pages) == family.child.partition
    assert other.machine.child_runs(family.child.partition) == family.root.machine.child_runs(family.child.partition)
    assert other.balance(family.child.partition) == family.root.balance(family.child.partition)
    assert other.get_property(family.child.partition, CPU_WEIGHT) == 77
    for kind, parameter in ((IO_PORT, IO), (CPUID, LEAF), (MSR, 0), (EXCEPTION, 13)):
        data = install_input(family.child.partition, 0, kind, parameter)
        assert other.status(INSTALL_INTERCEPT, data) == Status.SUCCESS
    assert other.machine.operator_delete_partition(family.child.partition) == 0
    assert other.balance().in_use == 1, "its own end of a connection"


def test_pages_of_the_parent_that_are_in_use(family: Family, generation: str) -> None:
    """A parent that uses the pages otherwise is told, and nothing changes."""
    stream, pages = family.root.machine.save_child(family.child.partition), pages_of(family)
    other = Root(generation, tsc_frequency=FREQUENCY)
    other.partition(memory=2048)
    before = [(p["id"], p["pages_in_use"]) for p in other.machine.partitions()]
    with pytest.raises(RestoreError, match="pages that belong to the pool"):
        other.machine.restore_child(stream, pages)
    assert [(p["id"], p["pages_in_use"]) for p in other.machine.partitions()] == before


def test_ports_are_connected_again(family: Family) -> None:
    """Messages that wait, and ports both ways, survive; new messages get through."""
    m, root, ports = family.root.machine, family.root, family.ports
    partition = family.child.partition
    stream, pages = m.save_child(partition), pages_of(family)
    assert m.restore_child(stream, pages) == partition
    family.child.vp = root.handle(partition, 0)
    assert [ports.take(family.child).payload[0] for _ in range(3)] == [0, 1, 2]
    assert ports.post(root, 6, b"\x09") == Status.SUCCESS
    assert ports.take(family.child).payload[0] == 9
    assert ports.post(family.child, 5, b"\x08") == Status.SUCCESS
    assert [root.take_message(2).payload[0] for _ in range(4)] == [0, 1, 2, 8]


@pytest.mark.parametrize("saved", ["receiver", "sender"])
def test_siblings_are_connected_again(generation: str, saved: str) -> None:
    """TLFS 14.5: also monitored notifications go on, whichever of the two partitions was taken back."""
    channel = Channel(generation)
    channel.open()
    channel.enable(1)
    channel.parameter(0, EVENT_PORT, 7, SHORTEST)
    m, child = channel.m, getattr(channel, saved)
    assert m.operator_pause_partition(child.partition, True)
    stream, pages = m.save_child(child.partition), int(m.gpa_space(child.partition)[1])
    assert m.restore_child(stream, pages) == child.partition
    assert m.operator_pause_partition(child.partition, False)
    channel.root.set_register(child.partition, 0, EXPLICIT_SUSPEND, 0)
    child.vp = channel.root.handle(child.partition, 0)
    assert channel.ports.signal(channel.sender, EVENT_PORT, 9) == Status.SUCCESS
    assert channel.flags() == {9}
    channel.touch(0)
    m.advance(2 * SHORTEST)
    assert not channel.is_pending(0)
    assert channel.flags() == {7, 9}


def test_siblings_of_another_machine(generation: str) -> None:
    """Where a sibling has lost no connection, it gets none."""
    channel = Channel(generation)
    channel.open()
    m, receiver = channel.m, channel.receiver.partition
    assert m.operator_pause_partition(receiver, True)
    stream, pages = m.save_child(receiver), int(m.gpa_space(receiver)[1])
    for connection in (EVENT_PORT, MONITOR_PORT):
        assert channel.ports.disconnect(channel.sender.partition, connection) == Status.SUCCESS
    assert m.restore_child(stream, pages) == receiver
    assert channel.ports.signal(channel.sender, EVENT_PORT, 9) == Status.INVALID_CONNECTION_ID


def test_a_parent_without_its_ports(family: Family) -> None:
    """Connections of the child whose port is not there are as if the port had been deleted."""
    m, root, ports = family.root.machine, family.root, family.ports
    partition = family.child.partition
    stream, pages = m.save_child(partition), pages_of(family)
    assert ports.delete(ROOT_ID, 5) == Status.SUCCESS
    assert m.restore_child(stream, pages) == partition
    family.child.vp = root.handle(partition, 0)
    assert ports.post(family.child, 5, b"x") == Status.INVALID_PORT_ID
    assert ports.create(ROOT_ID, 9, partition, message_info(2)) == Status.SUCCESS


def test_failure_leaves_the_old_one(family: Family) -> None:
    """Whatever is wrong with a file, the child that it would replace goes on as it was."""
    m, partition = family.root.machine, family.child.partition
    stream, pages, before = m.save_child(partition), pages_of(family), look(family)
    with pytest.raises(RestoreError, match="another number of pages"):
        m.restore_child(stream, pages + 1)
    family.child.vp = family.root.handle(partition, 0)
    assert look(family) == before
    parsed = Stream.parse(stream)
    parsed.set_summary(6, FREQUENCY * 2)
    with pytest.raises(RestoreError, match="frequency"):
        m.restore_child(parsed.pack(), pages)
    for length in (0, 1, 31, 500, len(stream) - 1):
        with pytest.raises(RestoreError, match="damaged"):
            m.restore_child(stream[:length], pages)
    assert look(family) == before


def test_streams_that_lie(family: Family) -> None:
    """Changed contents under sound checksums are refused, or give a child that can be saved and deleted."""
    m, partition = family.root.machine, family.child.partition
    stream, pages = m.save_child(partition), pages_of(family)
    numbers = random.Random(7)
    refused = 0
    for attempt in range(120):
        parsed = Stream.parse(stream)
        section = parsed.section(b"CHLD") if attempt % 2 else numbers.choice(parsed.sections[1:])
        for _ in range(numbers.randrange(1, 4)):
            place = numbers.randrange(0, len(section.content) - 8, 4)
            struct.pack_into("<Q", section.content, place, numbers.choice([0, 1, numbers.getrandbits(64), 1 << 63]))
        try:
            made = m.restore_child(parsed.pack(), pages)
        except RestoreError:
            refused += 1
            continue
        m.advance_tsc(1 << 20)
        for lp in (0, 1):
            vp, _ = m.schedule(lp)
            if vp is not None:
                m.stopped(vp)
        if made != partition:
            assert m.operator_delete_partition(made) == 0
    assert refused
    assert m.restore_child(stream, pages) == partition


def test_suspended_vps_stay_suspended(generation: str) -> None:
    """What the parent has suspended stays so; the rest runs when the operator lets the child go on."""
    root = Root(generation, tsc_frequency=FREQUENCY)
    child = Child(root, root.partition(memory=64, vps=2))
    root.set_register(child.partition, 1, EXPLICIT_SUSPEND, 0)
    root.map_memory(child.partition, 0x400, 3, READ)
    m = root.machine
    assert m.operator_pause_partition(child.partition, True)
    stream = m.save_child(child.partition)
    assert m.restore_child(stream, 67) == child.partition
    assert [root.get_register(child.partition, vp, EXPLICIT_SUSPEND) for vp in (0, 1)] == [1, 0]
    assert Ports(root).create(child.partition, 3, ROOT_ID, message_info(2)) == Status.SUCCESS
