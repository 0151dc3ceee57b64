# SPDX-License-Identifier: GPL-2.0-or-later
"""TLFS 14.5: monitored notifications: monitor ports, their pages, and the events the hypervisor signals for them."""

from __future__ import annotations

import struct

import pytest
from ports import CONNECT_PORTS, CREATE_PORTS, SIGNAL_EVENTS, Ports, event_info, monitor_info
from root import ROOT_ID, Child, Root
from simulated_guest import EVENT, MONITOR, SELF

from qemu_hv._core import Status

MONITOR_TIMER = 7
MILLISECOND = 10_000
"""In 100 ns, the unit of latencies."""
SHORTEST = 1000
"""The shortest latency the hypervisor honours."""
PORT_GPA, CONNECTION_GPA = 0x3C000, 0x3D000
MONITOR_PORT, EVENT_PORT = 5, 6
MONITOR_DISABLED = 1 << 4


class Channel:
    """A sender and a receiver that share a monitor page and have an event connection."""

    def __init__(self, generation: str, *, root_receives: bool = False, root_vps: int = 2) -> None:
        self.ports = Ports(Root(generation, vps=root_vps))
        self.root = self.ports.root
        self.m = self.root.machine
        self.sender = self.ports.child(privileges=SIGNAL_EVENTS)
        self.receiver = self.ports.child(privileges=CREATE_PORTS)
        self.ports.enable(self.receiver)
        self.port_partition = ROOT_ID if root_receives else self.receiver.partition

    def open(self) -> None:
        """Create and connect the monitor port, and an event port with flags 100 to 227."""
        self.create()
        self.connect()
        info = event_info(base=100, count=128)
        assert self.ports.create(self.port_partition, EVENT_PORT, self.sender.partition, info) == Status.SUCCESS
        status = self.ports.connect(self.sender.partition, EVENT_PORT, self.port_partition, EVENT_PORT, port_type=EVENT)
        assert status == Status.SUCCESS

    def create(self) -> None:
        """Create the monitor port."""
        status = self.ports.create(self.port_partition, MONITOR_PORT, self.sender.partition, monitor_info(PORT_GPA))
        assert status == Status.SUCCESS

    def try_connect(self, gpa: int = CONNECTION_GPA) -> Status:
        """Connect the monitor port."""
        return self.ports.connect(
            self.sender.partition, MONITOR_PORT, self.port_partition, MONITOR_PORT, port_type=MONITOR, info=gpa
        )

    def connect(self) -> None:
        """The same, which must succeed."""
        assert self.try_connect() == Status.SUCCESS

    # -- The page, as the sender sees it (TLFS 14.8.10) --

    def read(self, offset: int, form: str) -> int:
        """A field of the page."""
        data = self.m.read(CONNECTION_GPA + offset, struct.calcsize(form), self.sender.vp)
        (value,) = struct.unpack(form, data)
        return int(value)

    def write(self, offset: int, form: str, *values: int) -> None:
        """Write fields of the page."""
        self.m.write(CONNECTION_GPA + offset, struct.pack(form, *values), self.sender.vp)

    def enable(self, groups: int) -> None:
        """Enable trigger groups by a mask."""
        self.write(0, "<I", groups)

    def parameter(self, trigger: int, connection: int, flag: int, latency: int) -> None:
        """Say what a trigger, of 128, stands for."""
        self.write(576 + 2 * trigger, "<H", latency)
        self.write(1088 + 8 * trigger, "<IHH", connection, flag, 0)

    def group(self, trigger: int) -> tuple[int, int]:
        """Pending and armed bits of the trigger's group."""
        bits = self.read(8 + 8 * (trigger // 32), "<Q")
        return bits & 0xFFFFFFFF, bits >> 32

    def touch(self, trigger: int) -> None:
        """Set the pending bit and clear the armed bit (TLFS 14.8.9.1)."""
        bits = self.read(8 + 8 * (trigger // 32), "<Q")
        bit = 1 << trigger % 32
        self.write(8 + 8 * (trigger // 32), "<Q", (bits | bit) & ~(bit << 32))

    def is_pending(self, trigger: int) -> bool:
        """Whether the pending bit is still set."""
        return bool(self.group(trigger)[0] >> trigger % 32 & 1)

    def flags(self) -> set[int]:
        """Relative flags that have been signaled, when the receiver is a child."""
        return {flag - 100 for flag in self.ports.flags(self.receiver)}

    def next_inspection(self) -> int | None:
        """In how many units of 100 ns the hypervisor looks again."""
        tsc = self.m.timer_tsc(0, MONITOR_TIMER)
        return None if tsc is None else (tsc - self.m.tsc) // 256


@pytest.fixture
def channel(generation: str) -> Channel:
    """A channel that is open, with trigger group 0 enabled."""
    channel = Channel(generation)
    channel.open()
    channel.enable(1)
    return channel


# -- 14.5.4, 14.9.1, 14.9.3: ports, connections, the page --


def test_page_is_shared(generation: str) -> None:
    """TLFS 14.5.4: both see one page, above their own memory, which comes back at the end."""
    channel = Channel(generation)
    m = channel.m
    m.write(PORT_GPA, b"under the port", channel.receiver.vp)
    m.write(CONNECTION_GPA, b"under the connection", channel.sender.vp)
    channel.open()
    assert m.read(PORT_GPA + 4, 4092, channel.receiver.vp) == bytes(4092)
    m.write(PORT_GPA + 0x800, b"shared", channel.receiver.vp)
    assert m.read(CONNECTION_GPA + 0x800, 6, channel.sender.vp) == b"shared"
    channel.write(0x900, "<Q", 0x1122334455667788)
    assert m.read(PORT_GPA + 0x900, 8, channel.receiver.vp) == bytes.fromhex("8877665544332211")
    assert channel.ports.delete(channel.receiver.partition, MONITOR_PORT) == Status.SUCCESS
    assert m.read(PORT_GPA, 14, channel.receiver.vp) == b"under the port"
    assert m.read(CONNECTION_GPA + 0x800, 6, channel.sender.vp) == b"shared", "the connection is still there"
    assert channel.ports.disconnect(channel.sender.partition, MONITOR_PORT) == Status.SUCCESS
    assert m.read(CONNECTION_GPA, 20, channel.sender.vp) == b"under the connection"


def test_pages_are_taken_back_from_processors(generation: str) -> None:
    """TLFS 14.5.4: who had the page, or what was under it, has it no more when the call has ended."""
    channel = Channel(generation)
    before = len(channel.m.second_stage_flushes)
    channel.create()
    assert channel.m.second_stage_flushes[before:] == [(0, [channel.receiver.vp])]
    channel.connect()
    assert channel.m.second_stage_flushes[before + 1 :] == [(0, [channel.sender.vp])]
    assert channel.ports.disconnect(channel.sender.partition, MONITOR_PORT) == Status.SUCCESS
    assert channel.ports.delete(channel.receiver.partition, MONITOR_PORT) == Status.SUCCESS
    assert channel.m.second_stage_flushes[before + 2 :] == [(0, [channel.sender.vp]), (0, [channel.receiver.vp])]


def test_only_a_parent_arranges_monitors(generation: str) -> None:
    """TLFS 14.5.4: not the partitions themselves, whatever their privileges."""
    channel = Channel(generation)
    ports, sender, receiver = channel.ports, channel.sender, channel.receiver
    ports.grant(sender.partition, CREATE_PORTS | CONNECT_PORTS)
    info = monitor_info(PORT_GPA)
    assert ports.create(SELF, 5, sender.partition, info, caller=receiver) == Status.ACCESS_DENIED
    channel.create()
    assert ports.delete(SELF, MONITOR_PORT, caller=receiver) == Status.ACCESS_DENIED
    status = ports.connect(
        SELF, 5, receiver.partition, MONITOR_PORT, port_type=MONITOR, info=CONNECTION_GPA, caller=sender
    )
    assert status == Status.ACCESS_DENIED
    channel.connect()
    assert ports.disconnect(SELF, MONITOR_PORT, caller=sender) == Status.ACCESS_DENIED
    assert ports.disconnect(sender.partition, MONITOR_PORT) == Status.SUCCESS
    assert ports.delete(receiver.partition, MONITOR_PORT) == Status.SUCCESS


def test_the_parent_as_receiver(generation: str) -> None:
    """TLFS 14.5.4: the parent may be the receiver itself."""
    channel = Channel(generation, root_receives=True)
    channel.root.enable_synic(0)
    channel.root.set_sint(2, 0x66)
    channel.open()
    channel.enable(1)
    channel.parameter(3, EVENT_PORT, 7, MILLISECOND)
    channel.touch(3)
    assert channel.m.read(PORT_GPA + 8, 1) == b"\x08"
    channel.m.advance(20 * MILLISECOND)
    assert channel.root.flags(2) == {107}
    assert channel.m.interrupts == [(0, 0x66)]
    assert channel.ports.delete(SELF, MONITOR_PORT) == Status.SUCCESS


@pytest.mark.parametrize("address", [1, 0x3C008, 0x3CFFF])
def test_alignment(generation: str, address: int) -> None:
    """TLFS 14.9.1, 14.9.3: the page's address must be page-aligned."""
    channel = Channel(generation)
    ports = channel.ports
    status = ports.create(channel.port_partition, 5, channel.sender.partition, monitor_info(address))
    assert status == Status.INVALID_ALIGNMENT
    channel.create()
    assert channel.try_connect(address) == Status.INVALID_ALIGNMENT
    channel.connect()


def test_invalid_information(generation: str) -> None:
    """TLFS 14.9.1, 14.9.3: reserved fields, and addresses beyond the GPA space."""
    channel = Channel(generation)
    ports = channel.ports
    for info in (
        monitor_info(PORT_GPA, reserved=1),
        monitor_info(PORT_GPA, reserved2=1),
        monitor_info(1 << 36),
        monitor_info(1 << 63),
    ):
        assert ports.create(channel.port_partition, 5, channel.sender.partition, info) == Status.INVALID_PARAMETER
    channel.create()
    assert channel.try_connect(1 << 36) == Status.INVALID_PARAMETER


def test_monitor_ports_take_nothing_else(channel: Channel) -> None:
    """TLFS 14.8.6: neither messages nor signals, and they have no target."""
    channel.ports.grant(channel.sender.partition, 1 << 36)
    assert channel.ports.post(channel.sender, MONITOR_PORT) == Status.INVALID_PORT_ID
    assert channel.ports.signal(channel.sender, MONITOR_PORT) == Status.INVALID_PORT_ID
    assert channel.ports.get_property(channel.port_partition, MONITOR_PORT, 0) == Status.SUCCESS
    assert channel.ports.get_property(channel.port_partition, MONITOR_PORT, 1) == Status.UNKNOWN_PROPERTY
    assert channel.ports.set_property(channel.port_partition, MONITOR_PORT, 1, 0) == Status.UNKNOWN_PROPERTY


def test_memory(generation: str) -> None:
    """TLFS 14.9.1: a monitor port costs a page of its partition's pool, a connection one of its own."""
    channel = Channel(generation)
    partitions = (channel.sender.partition, channel.receiver.partition)
    before = [channel.root.balance(partition).available for partition in partitions]
    channel.create()
    channel.connect()
    after = [channel.root.balance(partition).available for partition in partitions]
    assert [a - b for a, b in zip(before, after)] == [1, 1]


def test_too_many(generation: str) -> None:
    """TLFS 14.9.1: at an implementation limit the answer is NO_RESOURCES, and one that goes makes room."""
    channel = Channel(generation)
    rich = channel.root.partition(vps=1, deposit=400)
    made = 0
    for port in range(400):
        status = channel.ports.create(rich, port, channel.sender.partition, monitor_info(0x1000 * port))
        if status != Status.SUCCESS:
            break
        made += 1
    assert (made, status) == (256, Status.NO_RESOURCES)
    before = channel.root.balance(rich).available
    assert channel.ports.create(rich, 500, channel.sender.partition, monitor_info(0)) == Status.NO_RESOURCES
    assert channel.root.balance(rich).available == before
    assert channel.ports.delete(rich, 17) == Status.SUCCESS
    assert channel.ports.create(rich, 500, channel.sender.partition, monitor_info(0)) == Status.SUCCESS
    channel.root.destroy(rich)


def test_pages_begin_empty(generation: str) -> None:
    """TLFS 14.5.4: a new page tells nothing of what another channel left in one."""
    channel = Channel(generation)
    for _ in range(40):
        channel.create()
        channel.connect()
        assert channel.m.read(CONNECTION_GPA + 4, 4092, channel.sender.vp) == bytes(4092)
        channel.write(0x700, "<Q", 0xDEAD)
        assert channel.ports.delete(channel.port_partition, MONITOR_PORT) == Status.SUCCESS
        assert channel.ports.disconnect(channel.sender.partition, MONITOR_PORT) == Status.SUCCESS


# -- 14.5.1 to 14.5.3: triggers --


def test_trigger(channel: Channel) -> None:
    """TLFS 14.5, 14.8.9, 14.8.9.2: a pending trigger becomes a signal, its flag relative to the event port's."""
    channel.parameter(3, EVENT_PORT, 9, MILLISECOND)
    channel.touch(3)
    assert channel.flags() == set()
    channel.m.advance(20 * MILLISECOND)
    assert channel.flags() == {9}
    assert channel.group(3) == (0, 0)
    assert channel.ports.interrupt(channel.receiver) == 0x40
    channel.m.advance(100 * MILLISECOND)
    assert channel.ports.interrupt(channel.receiver) is None


@pytest.mark.parametrize("latency", [SHORTEST, 2500, MILLISECOND, 0xFFFF])
def test_latency(channel: Channel, latency: int) -> None:
    """TLFS 14.5.2, 14.8.9.1: deferred by at least the latency, and not by much more than twice that."""
    channel.parameter(0, EVENT_PORT, 1, latency)
    channel.m.advance(20 * MILLISECOND)
    for phase in range(0, latency, latency // 7 + 1):
        channel.m.advance(phase)
        channel.touch(0)
        channel.m.advance(latency - 1)
        assert channel.is_pending(0), "too early"
        channel.m.advance(latency + 2)
        assert not channel.is_pending(0), "too late"
    assert channel.flags() == {1}


def test_inspections_follow_the_lowest_latency(channel: Channel) -> None:
    """TLFS 14.8.10: of each group that is enabled."""
    channel.parameter(0, EVENT_PORT, 1, 5000)
    channel.parameter(31, EVENT_PORT, 1, 3000)
    channel.parameter(32, EVENT_PORT, 1, 2000)
    channel.m.advance(20 * MILLISECOND)
    for groups, interval in ((0b0001, 3000), (0b0011, 2000), (0b0010, 2000), (0b0100, MILLISECOND)):
        channel.enable(groups)
        channel.m.advance(20 * MILLISECOND)
        seen = set()
        for _ in range(5):
            inspection = channel.next_inspection()
            assert inspection is not None
            channel.m.advance(inspection + 1)
            now = channel.next_inspection()
            assert now is not None
            seen.add(round(now / 100) * 100)
        assert seen == {interval}


def test_short_latencies_are_limited(channel: Channel) -> None:
    """TLFS 14.5.2: the hypervisor may override values that exceed its limits."""
    channel.parameter(0, EVENT_PORT, 1, 1)
    channel.m.advance(20 * MILLISECOND)
    channel.touch(0)
    channel.m.advance(SHORTEST - 1)
    assert channel.is_pending(0)
    channel.m.advance(SHORTEST + 2)
    assert not channel.is_pending(0)


def test_no_latency(channel: Channel) -> None:
    """TLFS 14.5.2: a trigger without a hint is served too."""
    channel.parameter(0, EVENT_PORT, 1, 0)
    channel.touch(0)
    channel.m.advance(15 * MILLISECOND)
    assert channel.flags() == {1}


def test_touching_a_trigger_defers_it(channel: Channel) -> None:
    """TLFS 14.8.9.1: the armed bit is cleared with each change of the pending bit, and the time starts anew."""
    channel.parameter(0, EVENT_PORT, 1, MILLISECOND)
    channel.m.advance(20 * MILLISECOND)
    for _ in range(20):
        channel.touch(0)
        channel.m.advance(MILLISECOND - 1)
        assert channel.flags() == set()
    channel.m.advance(2 * MILLISECOND)
    assert channel.flags() == {1}


def test_taking_a_trigger_back(channel: Channel) -> None:
    """TLFS 14.5.1: a trigger that is cleared in time is none."""
    channel.parameter(0, EVENT_PORT, 1, MILLISECOND)
    channel.m.advance(20 * MILLISECOND)
    channel.touch(0)
    channel.m.advance(MILLISECOND // 2)
    channel.write(8, "<Q", 0)
    channel.m.advance(50 * MILLISECOND)
    assert channel.flags() == set()


def test_all_triggers(channel: Channel) -> None:
    """TLFS 14.8.10: four groups of 32, each with its own parameters."""
    channel.enable(0b1111)
    for trigger in range(128):
        channel.parameter(trigger, EVENT_PORT, 127 - trigger, SHORTEST * (1 + trigger % 4))
    channel.m.advance(20 * MILLISECOND)
    for trigger in range(128):
        channel.touch(trigger)
        channel.m.advance(20 * MILLISECOND)
        assert channel.flags() == set(range(127 - trigger, 128))
    for group in range(4):
        channel.write(8 + 8 * group, "<Q", 0xFFFFFFFF)
    channel.m.advance(20 * MILLISECOND)
    assert [channel.group(32 * group) for group in range(4)] == [(0, 0)] * 4


def test_groups(channel: Channel) -> None:
    """TLFS 14.8.10: a group that is not enabled waits, and is served once it is."""
    channel.enable(0)
    for trigger in (0, 32, 64, 96):
        channel.parameter(trigger, EVENT_PORT, trigger, MILLISECOND)
        channel.touch(trigger)
    channel.m.advance(500 * MILLISECOND)
    assert channel.flags() == set()
    expected = set()
    for group in (2, 0, 3, 1):
        channel.enable(1 << group)
        channel.m.advance(30 * MILLISECOND)
        expected.add(32 * group)
        assert channel.flags() == expected


def test_disabled_pages_are_looked_at_rarely(channel: Channel) -> None:
    """TLFS 14.8.10: with no group enabled the rate is reduced."""
    channel.enable(0)
    channel.m.advance(50 * MILLISECOND)
    inspection = channel.next_inspection()
    assert inspection is not None
    channel.m.advance(inspection)
    assert channel.next_inspection() == 10 * MILLISECOND


@pytest.mark.parametrize(("connection", "flag"), [(99, 0), (MONITOR_PORT, 0), (0xFFFFFFFF, 0), (EVENT_PORT, 128)])
def test_errors_are_discarded(channel: Channel, connection: int, flag: int) -> None:
    """TLFS 14.5.3, 14.8.9.2: a signal that fails is none, and others go on."""
    channel.parameter(0, connection, flag, MILLISECOND)
    channel.parameter(1, EVENT_PORT, 5, MILLISECOND)
    channel.touch(0)
    channel.touch(1)
    channel.m.advance(20 * MILLISECOND)
    assert channel.group(0) == (0, 0)
    assert channel.flags() == {5}


def test_privilege(generation: str) -> None:
    """TLFS 14.5: as if the sender had called HvSignalEvent, which takes a privilege."""
    channel = Channel(generation)
    channel.sender = channel.ports.child()
    channel.open()
    channel.enable(1)
    channel.parameter(0, EVENT_PORT, 1, MILLISECOND)
    channel.touch(0)
    channel.m.advance(20 * MILLISECOND)
    assert (channel.flags(), channel.group(0)) == (set(), (0, 0))
    channel.ports.grant(channel.sender.partition, SIGNAL_EVENTS)
    channel.touch(0)
    channel.m.advance(20 * MILLISECOND)
    assert channel.flags() == {1}


def test_masked_receiver(channel: Channel) -> None:
    """TLFS 14.5.3: also when the receiver cannot take it."""
    channel.ports.mask(channel.receiver)
    channel.parameter(0, EVENT_PORT, 1, MILLISECOND)
    channel.touch(0)
    channel.m.advance(20 * MILLISECOND)
    assert (channel.flags(), channel.group(0)) == (set(), (0, 0))


def test_many_receiving_vps(generation: str) -> None:
    """TLFS 14.5: triggers for more VPs of the root than are interrupted at a time are all served."""
    vps = 12
    channel = Channel(generation, root_receives=True, root_vps=vps)
    channel.create()
    channel.connect()
    channel.enable(1)
    for vp in range(vps):
        channel.root.enable_synic(vp)
        channel.root.set_sint(2, 0x50 + vp, vp)
        status = channel.ports.create(ROOT_ID, 100 + vp, channel.sender.partition, event_info(vp=vp))
        assert status == Status.SUCCESS
        status = channel.ports.connect(channel.sender.partition, 100 + vp, ROOT_ID, 100 + vp, port_type=EVENT)
        assert status == Status.SUCCESS
        channel.parameter(vp, 100 + vp, vp, MILLISECOND)
    channel.m.advance(20 * MILLISECOND)
    for vp in range(vps):
        channel.touch(vp)
    channel.m.advance(5 * MILLISECOND)
    assert channel.m.interrupts == [(vp, 0x50 + vp) for vp in range(vps)]
    assert [channel.root.flags(2, vp) for vp in range(vps)] == [{vp} for vp in range(vps)]


# -- 14.8.10 MonitorDisabled; the end --


def test_monitor_disabled(generation: str) -> None:
    """TLFS 14.8.10: the flag tells whether the page is inspected."""
    channel = Channel(generation)
    m = channel.m
    channel.create()
    assert m.read(PORT_GPA, 4, channel.receiver.vp) == struct.pack("<I", MONITOR_DISABLED)
    assert channel.next_inspection() is None
    channel.connect()
    assert channel.read(0, "<I") == 0
    assert channel.next_inspection() is not None
    assert channel.ports.disconnect(channel.sender.partition, MONITOR_PORT) == Status.SUCCESS
    assert m.read(PORT_GPA, 4, channel.receiver.vp) == struct.pack("<I", MONITOR_DISABLED)
    m.advance(50 * MILLISECOND)
    assert channel.next_inspection() is None


def test_reconnection(channel: Channel) -> None:
    """TLFS 14.9.6: a port may be connected again, and its page is the one it was."""
    assert channel.ports.disconnect(channel.sender.partition, MONITOR_PORT) == Status.SUCCESS
    channel.m.advance(50 * MILLISECOND)
    channel.connect()
    channel.enable(1)
    channel.parameter(0, EVENT_PORT, 1, MILLISECOND)
    channel.touch(0)
    channel.m.advance(20 * MILLISECOND)
    assert channel.flags() == {1}


def test_end_of_the_port(channel: Channel) -> None:
    """TLFS 14.4: the connection becomes useless: nothing is signaled any more."""
    channel.parameter(0, EVENT_PORT, 1, MILLISECOND)
    channel.touch(0)
    assert channel.ports.delete(channel.port_partition, MONITOR_PORT) == Status.SUCCESS
    assert channel.read(0, "<I") == 1 | MONITOR_DISABLED
    channel.m.advance(100 * MILLISECOND)
    assert channel.flags() == set()
    assert channel.is_pending(0)
    assert channel.next_inspection() is None


@pytest.mark.parametrize("whose", ["sender", "receiver"])
def test_end_of_a_partition(channel: Channel, whose: str) -> None:
    """TLFS 5.4: in the middle of it all."""
    channel.parameter(0, EVENT_PORT, 1, MILLISECOND)
    channel.touch(0)
    channel.m.advance(MILLISECOND // 2)
    channel.root.destroy((channel.sender if whose == "sender" else channel.receiver).partition)
    channel.m.advance(100 * MILLISECOND)
    assert channel.next_inspection() is None
    if whose == "sender":
        assert channel.flags() == set()
        assert channel.m.read(PORT_GPA, 4, channel.receiver.vp) == struct.pack("<I", 1 | MONITOR_DISABLED)
    else:
        assert channel.is_pending(0)


def test_two_channels(generation: str) -> None:
    """TLFS 14.5.4: pages of their own, also of one sender, each with its own rate."""
    channel = Channel(generation)
    channel.open()
    other = channel.ports.child()
    assert channel.ports.create(other.partition, 8, channel.sender.partition, monitor_info(0x3E000)) == Status.SUCCESS
    status = channel.ports.connect(channel.sender.partition, 8, other.partition, 8, port_type=MONITOR, info=0x3E000)
    assert status == Status.SUCCESS
    m = channel.m
    channel.enable(1)
    channel.parameter(0, EVENT_PORT, 1, 0x8000)
    m.write(0x3E000, struct.pack("<I", 2), channel.sender.vp)
    m.write(0x3E000 + 576 + 64, struct.pack("<H", SHORTEST), channel.sender.vp)
    m.write(0x3E000 + 1088 + 256, struct.pack("<IHH", EVENT_PORT, 2, 0), channel.sender.vp)
    m.advance(20 * MILLISECOND)
    channel.touch(0)
    m.write(0x3E000 + 16, struct.pack("<Q", 1), channel.sender.vp)
    m.advance(2 * SHORTEST + 2)
    assert channel.flags() == {2}
    m.advance(2 * 0x8000)
    assert channel.flags() == {1, 2}


def test_child_is_a_child(channel: Channel) -> None:
    """The receiver keeps what it has: the page does not cover more than a page."""
    assert isinstance(channel.receiver, Child)
    for gpa in (PORT_GPA - 8, PORT_GPA + 0x1000):
        channel.m.write(gpa, b"own data", channel.receiver.vp)
        assert channel.m.read(gpa, 8, channel.receiver.vp) == b"own data"
