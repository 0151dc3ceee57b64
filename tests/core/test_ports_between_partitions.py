# SPDX-License-Identifier: GPL-2.0-or-later
"""Chapter 14 of the TLFS between partitions: ports and connections by hypercalls, messages and events through them."""

from __future__ import annotations

import struct

import pytest
from ports import (
    ANY_VP,
    CONNECT_PORTS,
    CREATE_PORTS,
    POST_MESSAGES,
    SIGNAL_EVENTS,
    Ports,
    event_info,
    message_info,
)
from root import ROOT_ID, Child, Root
from simulated_guest import EVENT, MESSAGE, SCONTROL, SELF, SIEFP, SIMP

from qemu_hv._core import Status

ALL_PRIVILEGES = POST_MESSAGES | SIGNAL_EVENTS | CREATE_PORTS | CONNECT_PORTS
NO_PARTITION = 0x123456
BUFFERS = 16
"""Message buffers of a port (TLFS 14.2.1)."""
MESSAGE_PORT_PAGES, EVENT_PORT_PAGES, CONNECTION_PAGES = 2, 1, 1
"""What they cost (docs: tlfs/costs.def)."""


@pytest.fixture
def ports(generation: str) -> Ports:
    """The root's software."""
    return Ports(Root(generation, vps=2))


@pytest.fixture
def sender(ports: Ports) -> Child:
    """A child with every privilege of this chapter."""
    return ports.child(privileges=ALL_PRIVILEGES)


@pytest.fixture
def receiver(ports: Ports) -> Child:
    """A child with two VPs that take messages and events at SINT2, and no privilege of this chapter."""
    child = ports.child(2)
    ports.enable(child, 0, value=0x40)
    ports.enable(child, 1, value=0x41)
    return child


def open_port(
    ports: Ports, sender: Child, receiver: Child, port: int = 7, connection: int = 9, info: bytes | None = None
) -> None:
    """Have the root create a port and connect it, which must succeed."""
    info = message_info() if info is None else info
    (port_type,) = struct.unpack_from("<I", info)
    assert ports.create(receiver.partition, port, sender.partition, info) == Status.SUCCESS
    status = ports.connect(sender.partition, connection, receiver.partition, port, port_type=port_type)
    assert status == Status.SUCCESS


# -- 14.9.1 HvCreatePort --


def test_create(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.9.1: by the parent, for both kinds."""
    assert ports.create(receiver.partition, 0, sender.partition, message_info(15, 1)) == Status.SUCCESS
    assert (
        ports.create(receiver.partition, 0xFFFFFF, sender.partition, event_info(1, ANY_VP, 0, 2048)) == Status.SUCCESS
    )


def test_create_for_itself(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.9.1: with the privilege, by a partition for itself; IDs are unique in a partition only."""
    assert ports.create(SELF, 4, receiver.partition, message_info(), caller=sender) == Status.SUCCESS
    assert ports.create(sender.partition, 5, receiver.partition, message_info(), caller=sender) == Status.SUCCESS
    assert ports.create(SELF, 4, sender.partition, message_info()) == Status.SUCCESS, "a port of the root"
    assert ports.create(ROOT_ID, 5, sender.partition, message_info()) == Status.SUCCESS


def test_create_without_the_privilege(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.9.1: CreatePort."""
    assert ports.create(SELF, 4, sender.partition, message_info(), caller=receiver) == Status.ACCESS_DENIED
    root = Ports(Root(ports.root.generation, privileges=0x3FFF_FFFF_FFFF & ~CREATE_PORTS))
    child, other = root.root.partition(), root.root.partition()
    assert root.create(child, 4, other, message_info()) == Status.ACCESS_DENIED, "asked of a parent too"


def test_create_for_others(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.9.1: neither the parent nor the partition itself."""
    for partition in (receiver.partition, ROOT_ID):
        assert ports.create(partition, 4, sender.partition, message_info(), caller=sender) == Status.ACCESS_DENIED


def test_create_with_an_invalid_partition(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.9.1: both must exist, and be different."""
    assert ports.create(NO_PARTITION, 4, sender.partition, message_info()) == Status.INVALID_PARTITION_ID
    assert ports.create(receiver.partition, 4, NO_PARTITION, message_info()) == Status.INVALID_PARTITION_ID
    assert ports.create(receiver.partition, 4, 0, message_info()) == Status.INVALID_PARTITION_ID
    assert ports.create(receiver.partition, 4, receiver.partition, message_info()) == Status.INVALID_PARTITION_ID
    assert ports.create(SELF, 4, ROOT_ID, message_info()) == Status.INVALID_PARTITION_ID
    assert ports.create(sender.partition, 4, SELF, message_info(), caller=sender) == Status.INVALID_PARTITION_ID


def test_create_in_an_inactive_partition(ports: Ports, receiver: Child) -> None:
    """TLFS 14.9.1: both must be active; that goes before what is wrong with the port."""
    new = ports.root.create_partition()
    for partition, connecting in ((new, receiver.partition), (receiver.partition, new)):
        status = ports.create(partition, 0x01000000, connecting, message_info(0))
        assert status == Status.INVALID_PARTITION_STATE


@pytest.mark.parametrize("port", [0x01000000, 0x80000001, 0xFFFFFFFF])
def test_create_with_reserved_bits(ports: Ports, sender: Child, receiver: Child, port: int) -> None:
    """TLFS 14.9.1: the high 8 bits of the port ID must be zero."""
    assert ports.create(receiver.partition, port, sender.partition, message_info()) == Status.INVALID_PORT_ID


def test_create_twice(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.9.1: a port ID that is already in use, for whomever."""
    assert ports.create(receiver.partition, 4, sender.partition, message_info()) == Status.SUCCESS
    assert ports.create(receiver.partition, 4, ROOT_ID, event_info()) == Status.INVALID_PORT_ID
    assert ports.delete(receiver.partition, 4) == Status.SUCCESS
    assert ports.create(receiver.partition, 4, ROOT_ID, event_info()) == Status.SUCCESS


@pytest.mark.parametrize(
    "info",
    [
        message_info(0),
        message_info(16),
        message_info(0xFFFFFFFF),
        message_info(reserved=1),
        message_info(reserved2=1 << 63),
        event_info(0),
        event_info(16),
        event_info(count=0),
        event_info(base=2048, count=1),
        event_info(base=1, count=2048),
        event_info(base=0xFFFF, count=0xFFFF),
        event_info(reserved=1),
        event_info(reserved2=1),
        struct.pack("<IIQQ", 0, 0, 2, 0),
        struct.pack("<IIQQ", 4, 0, 5, 0),
        struct.pack("<IIQQ", 0x80000001, 0, 2, 0),
    ],
)
def test_create_with_invalid_information(ports: Ports, sender: Child, receiver: Child, info: bytes) -> None:
    """TLFS 14.9.1: type, source, flags, reserved fields."""
    assert ports.create(receiver.partition, 4, sender.partition, info) == Status.INVALID_PARAMETER
    assert ports.delete(receiver.partition, 4) == Status.INVALID_PORT_ID


@pytest.mark.parametrize(("base", "count"), [(0, 1), (0, 2048), (2047, 1), (1000, 1048)])
def test_flag_ranges(ports: Ports, sender: Child, receiver: Child, base: int, count: int) -> None:
    """TLFS 14.9.1: all of 2048 flags can be used."""
    info = event_info(base=base, count=count)
    assert ports.create(receiver.partition, 4, sender.partition, info) == Status.SUCCESS


@pytest.mark.parametrize("vp", [2, 3, 1024, 0xFFFFFFFE])
def test_create_with_an_invalid_vp(ports: Ports, sender: Child, receiver: Child, vp: int) -> None:
    """TLFS 14.9.1: the VP must exist in the port's partition or be HV_ANY_VP."""
    assert ports.create(receiver.partition, 4, sender.partition, message_info(vp=vp)) == Status.INVALID_VP_INDEX
    assert ports.create(receiver.partition, 4, sender.partition, event_info(vp=vp)) == Status.INVALID_VP_INDEX


def test_trust_levels(sender: Child) -> None:
    """Later than 2.0a: there is only one virtual trust level."""
    if not sender.root.current:
        assert Ports(sender.root).create(SELF, 4, sender.partition, message_info()) == Status.SUCCESS
        return
    for levels in ((1, 0), (0, 1)):
        data = struct.pack("<QIBBHQ", ROOT_ID, 4, *levels, 0, sender.partition) + message_info() + bytes(8)
        assert sender.root.status(0x0095, data) == Status.INVALID_PARAMETER


def test_memory(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.9.1, 14.9.3: a port is paid by its partition, a connection by its own, and all comes back."""
    root = ports.root
    before = [root.balance(p).available for p in (SELF, sender.partition, receiver.partition)]
    open_port(ports, sender, receiver, 1, 1)
    open_port(ports, sender, receiver, 2, 2, event_info())
    after = [root.balance(p).available for p in (SELF, sender.partition, receiver.partition)]
    costs = [0, 2 * CONNECTION_PAGES, MESSAGE_PORT_PAGES + EVENT_PORT_PAGES]
    assert [a - b for a, b in zip(before, after)] == costs
    for port in (1, 2):
        assert ports.delete(receiver.partition, port) == Status.SUCCESS
        assert ports.disconnect(sender.partition, port) == Status.SUCCESS
    assert [root.balance(p).available for p in (SELF, sender.partition, receiver.partition)] == before


def test_memory_runs_out(ports: Ports, sender: Child) -> None:
    """TLFS 14.9.1, 14.9.3: INSUFFICIENT_MEMORY while the pool is short, and nothing is left behind."""
    root = ports.root
    poor = root.partition(vps=1, deposit=36)
    left = root.balance(poor).available
    root.withdraw_all(poor)
    assert ports.create(poor, 1, sender.partition, message_info()) == Status.INSUFFICIENT_MEMORY
    assert ports.create(SELF, 1, poor, message_info()) == Status.SUCCESS
    assert ports.connect(poor, 1, ROOT_ID, 1) == Status.INSUFFICIENT_MEMORY
    root.deposit(poor, 1)
    assert ports.create(poor, 1, sender.partition, message_info()) == Status.INSUFFICIENT_MEMORY
    assert ports.create(poor, 1, sender.partition, event_info()) == Status.SUCCESS
    assert ports.connect(poor, 1, ROOT_ID, 1) == Status.INSUFFICIENT_MEMORY
    root.deposit(poor, 1)
    assert ports.connect(poor, 1, ROOT_ID, 1) == Status.SUCCESS
    assert left >= 0


def test_too_many(ports: Ports, sender: Child) -> None:
    """TLFS 14.9.1: at an implementation limit the answer is NO_RESOURCES."""
    rich = ports.root.partition(vps=1, deposit=2500)
    statuses = []
    for port in range(5000):
        statuses.append(ports.create(rich, port, sender.partition, event_info()))
        if statuses[-1] == Status.INSUFFICIENT_MEMORY:
            break
    assert set(statuses[:-1]) == {Status.SUCCESS}
    assert statuses[-1] in (Status.NO_RESOURCES, Status.INSUFFICIENT_MEMORY)
    assert len(statuses) > 2000


# -- 14.9.2 HvDeletePort --


def test_delete(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.9.2: what comes through its connection fails from then on."""
    open_port(ports, sender, receiver)
    assert ports.post(sender, 9) == Status.SUCCESS
    assert ports.delete(receiver.partition, 7) == Status.SUCCESS
    assert ports.delete(receiver.partition, 7) == Status.INVALID_PORT_ID
    assert ports.post(sender, 9) == Status.INVALID_PORT_ID
    # Another port with the same ID is another port.
    assert ports.create(receiver.partition, 7, sender.partition, message_info()) == Status.SUCCESS
    assert ports.post(sender, 9) == Status.INVALID_PORT_ID
    assert ports.connect(sender.partition, 9, receiver.partition, 7) == Status.INVALID_CONNECTION_ID
    assert ports.disconnect(sender.partition, 9) == Status.SUCCESS
    assert ports.connect(sender.partition, 9, receiver.partition, 7) == Status.SUCCESS


def test_delete_with_messages_queued(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.2.3, 14.9.2: messages that wait go with the port; the one in its slot, and those of others, stay."""
    open_port(ports, sender, receiver, 1, 1)
    open_port(ports, sender, receiver, 2, 2)
    for number, connection in enumerate((1, 1, 2, 1, 2)):
        assert ports.post(sender, connection, bytes([number])) == Status.SUCCESS
    assert ports.delete(receiver.partition, 1) == Status.SUCCESS
    assert [ports.take(receiver).payload[0] for _ in range(3)] == [0, 2, 4]
    assert ports.message(receiver).type == 0


def test_delete_checks(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.9.2: privilege, partition, state, ID."""
    open_port(ports, sender, receiver)
    assert ports.delete(receiver.partition, 7, caller=receiver) == Status.ACCESS_DENIED
    assert ports.delete(receiver.partition, 7, caller=sender) == Status.ACCESS_DENIED
    assert ports.delete(NO_PARTITION, 7) == Status.INVALID_PARTITION_ID
    assert ports.delete(ports.root.create_partition(), 7) == Status.INVALID_PARTITION_STATE
    for port in (8, 0x01000007, 0xFFFFFFFF):
        assert ports.delete(receiver.partition, port) == Status.INVALID_PORT_ID
    ports.grant(receiver.partition, CREATE_PORTS)
    assert ports.delete(SELF, 7, caller=receiver) == Status.SUCCESS


# -- 14.9.3 HvConnectPort --


def test_connect_by_the_sender(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.9.3: with the privilege, a partition connects itself, to a port that is meant for it."""
    assert ports.create(receiver.partition, 7, sender.partition, message_info()) == Status.SUCCESS
    assert ports.connect(SELF, 9, receiver.partition, 7, caller=sender) == Status.SUCCESS
    assert ports.create(SELF, 7, sender.partition, message_info()) == Status.SUCCESS
    assert ports.connect(sender.partition, 10, ROOT_ID, 7, caller=sender) == Status.SUCCESS


def test_connect_once(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.9.3: a port has one connection, a connection one port."""
    open_port(ports, sender, receiver)
    assert ports.connect(sender.partition, 10, receiver.partition, 7) == Status.INVALID_PORT_ID
    assert ports.create(receiver.partition, 8, sender.partition, message_info()) == Status.SUCCESS
    assert ports.connect(sender.partition, 9, receiver.partition, 8) == Status.INVALID_CONNECTION_ID
    assert ports.connect(sender.partition, 10, receiver.partition, 8) == Status.SUCCESS


def test_connect_somebody_elses_port(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.9.1: only the partition the port names may connect; the others cannot tell that it exists."""
    assert ports.create(receiver.partition, 7, ROOT_ID, message_info()) == Status.SUCCESS
    assert ports.connect(SELF, 9, receiver.partition, 7, caller=sender) == Status.INVALID_PORT_ID
    assert ports.connect(sender.partition, 9, receiver.partition, 7) == Status.INVALID_PORT_ID
    assert ports.connect(SELF, 9, receiver.partition, 7) == Status.SUCCESS


def test_connect_checks(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.9.3: privilege, partitions, states, IDs, information, in this order."""
    assert ports.create(receiver.partition, 7, sender.partition, message_info()) == Status.SUCCESS
    assert ports.connect(SELF, 9, sender.partition, 7, caller=receiver) == Status.ACCESS_DENIED
    assert ports.connect(receiver.partition, 9, sender.partition, 7, caller=sender) == Status.ACCESS_DENIED
    assert ports.connect(NO_PARTITION, 9, receiver.partition, 7) == Status.INVALID_PARTITION_ID
    assert ports.connect(sender.partition, 9, NO_PARTITION, 7) == Status.INVALID_PARTITION_ID
    new = ports.root.create_partition()
    assert ports.connect(new, 0x01000000, receiver.partition, 8) == Status.INVALID_PARTITION_STATE
    assert ports.connect(sender.partition, 0x01000000, new, 8) == Status.INVALID_PARTITION_STATE
    assert ports.connect(sender.partition, 0x01000000, receiver.partition, 8) == Status.INVALID_CONNECTION_ID
    for port in (8, 0x01000007, 0xFFFFFFFF):
        assert ports.connect(sender.partition, 9, receiver.partition, port, info=1) == Status.INVALID_PORT_ID
    assert ports.connect(sender.partition, 9, receiver.partition, 7, info=1) == Status.INVALID_PARAMETER
    if ports.root.current:
        status = ports.connect(sender.partition, 9, receiver.partition, 7, port_type=EVENT)
        assert status == Status.INVALID_PARAMETER
    assert ports.connect(sender.partition, 0xFFFFFF, receiver.partition, 7) == Status.SUCCESS


# -- 14.9.6 HvDisconnectPort --


def test_disconnect(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.2.3, 14.9.6: what is queued stays; the port may be connected again."""
    open_port(ports, sender, receiver)
    for number in range(3):
        assert ports.post(sender, 9, bytes([number])) == Status.SUCCESS
    assert ports.disconnect(SELF, 9, caller=sender) == Status.SUCCESS
    assert ports.post(sender, 9) == Status.INVALID_CONNECTION_ID
    assert [ports.take(receiver).payload[0] for _ in range(3)] == [0, 1, 2]
    assert ports.connect(sender.partition, 3, receiver.partition, 7) == Status.SUCCESS
    assert ports.post(sender, 3) == Status.SUCCESS


def test_disconnect_checks(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.9.6: privilege, partition, state, ID; doorbells are others."""
    open_port(ports, sender, receiver)
    assert ports.disconnect(SELF, 9, caller=receiver) == Status.ACCESS_DENIED
    assert ports.disconnect(receiver.partition, 9, caller=sender) == Status.ACCESS_DENIED
    assert ports.disconnect(NO_PARTITION, 9) == Status.INVALID_PARTITION_ID
    assert ports.disconnect(ports.root.create_partition(), 9) == Status.INVALID_PARTITION_STATE
    for connection in (8, 0x01000009, 0xFFFFFFFF):
        assert ports.disconnect(sender.partition, connection) == Status.INVALID_CONNECTION_ID
    if ports.root.current:
        assert ports.disconnect(sender.partition, 9, flags=1) == Status.INVALID_CONNECTION_ID
    assert ports.disconnect(sender.partition, 9, flags=0xDEAD00) == Status.SUCCESS
    assert ports.disconnect(sender.partition, 9) == Status.INVALID_CONNECTION_ID


# -- 14.9.7 HvPostMessage --


def test_post(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.2.4: the message arrives with the port's ID, and an interrupt with it."""
    open_port(ports, sender, receiver, info=message_info(vp=1))
    assert ports.post(sender, 9, b"hello", message_type=0x7FFFFFFF) == Status.SUCCESS
    message = ports.message(receiver, 1)
    assert (message.type, message.size, message.origin, message.pending) == (0x7FFFFFFF, 5, 7, False)
    assert message.payload[:5] == b"hello"
    assert ports.interrupt(receiver, 1) == 0x41
    assert ports.message(receiver, 0).type == 0
    assert ports.interrupt(receiver, 0) is None
    assert ports.post_count(receiver.partition, 7) == 1


def test_post_to_the_root(ports: Ports, sender: Child) -> None:
    """TLFS 14.4: from a child to its parent, whose local APICs are the machine's."""
    root = ports.root
    root.enable_synic(1)
    root.set_sint(3, 0x55, 1)
    assert ports.create(SELF, 7, sender.partition, message_info(3, 1)) == Status.SUCCESS
    assert ports.connect(sender.partition, 9, ROOT_ID, 7) == Status.SUCCESS
    assert ports.post(sender, 9, b"up") == Status.SUCCESS
    assert root.message(3, 1).payload[:2] == b"up"
    assert root.machine.interrupts == [(1, 0x55)]


def test_post_by_the_root(ports: Ports, receiver: Child) -> None:
    """TLFS 14.4: and from the parent to the child."""
    assert ports.create(receiver.partition, 7, ROOT_ID, message_info()) == Status.SUCCESS
    assert ports.connect(SELF, 9, receiver.partition, 7) == Status.SUCCESS
    assert ports.post(ports.root, 9, b"down") == Status.SUCCESS
    assert ports.message(receiver).payload[:4] == b"down"
    assert ports.interrupt(receiver) == 0x40


def test_an_interrupt_makes_the_receiver_run(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 18.1: a VP that waits for a message is picked."""
    m = ports.root.machine
    open_port(ports, sender, receiver)
    for vp in (0, 1):
        m.set_waits(vp, True)
    handle = ports.root.handle(receiver.partition, 0)
    ports.root.resume(receiver.partition)
    m.set_waits(handle, True)
    lp = m.lp_of(handle)
    assert m.schedule(lp)[0] is None
    before = len(m.lp_kicks)
    assert ports.post(sender, 9) == Status.SUCCESS
    assert m.lp_kicks[before:] == [lp]
    assert m.schedule(lp)[0] == handle


def test_order(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.2.3: messages for one VP arrive in the order of their posting, also from different ports."""
    other = ports.child(privileges=ALL_PRIVILEGES)
    open_port(ports, sender, receiver, 1, 1)
    open_port(ports, other, receiver, 2, 1)
    for number in range(20):
        assert ports.post((sender, other)[number % 2], 1, bytes([number])) == Status.SUCCESS
    received = [ports.take(receiver) for _ in range(20)]
    assert [message.payload[0] for message in received] == list(range(20))
    assert [message.origin for message in received] == [1, 2] * 10
    assert [message.pending for message in received] == [True] * 19 + [False]
    assert ports.message(receiver).type == 0


def test_buffers(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.9.1, 14.9.7: sixteen buffers a port; a message in its slot needs none."""
    open_port(ports, sender, receiver)
    open_port(ports, sender, receiver, 8, 10)
    for number in range(BUFFERS + 1):
        assert ports.post(sender, 9, bytes([number])) == Status.SUCCESS
    assert ports.post(sender, 9, b"\xff") == Status.INSUFFICIENT_BUFFERS
    assert ports.post(sender, 10, b"\x20") == Status.SUCCESS, "another port has its own"
    assert ports.post_count(receiver.partition, 7) == BUFFERS + 1
    assert ports.take(receiver).payload[0] == 0
    assert ports.post(sender, 9, b"\x21") == Status.SUCCESS
    assert ports.post(sender, 9) == Status.INSUFFICIENT_BUFFERS
    received = [ports.take(receiver).payload[0] for _ in range(BUFFERS + 2)]
    assert received == [*range(1, BUFFERS + 1), 0x20, 0x21]


@pytest.mark.parametrize(
    ("message_type", "size"), [(0, 1), (0x80000000, 1), (0x80000010, 0), (0xFFFFFFFF, 1), (1, 241), (1, 0xFFFFFFFF)]
)
def test_post_with_invalid_parameters(
    ports: Ports, sender: Child, receiver: Child, message_type: int, size: int
) -> None:
    """TLFS 14.9.7: type and size."""
    open_port(ports, sender, receiver)
    assert ports.post(sender, 9, message_type=message_type, size=size) == Status.INVALID_PARAMETER
    assert ports.post_count(receiver.partition, 7) == 0


def test_post_checks(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.9.7: privilege, connection, port's type, in this order."""
    assert ports.post(receiver, 9) == Status.ACCESS_DENIED
    assert ports.post(sender, 9, message_type=0) == Status.INVALID_CONNECTION_ID
    open_port(ports, sender, receiver, 7, 9, event_info())
    assert ports.post(sender, 9, message_type=0) == Status.INVALID_PORT_ID
    assert ports.post(sender, 0x01000009) == Status.INVALID_CONNECTION_ID
    assert ports.post(ports.root, 9) == Status.INVALID_CONNECTION_ID, "connections are of a partition"


def test_a_larger_type_of_connection_id(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.8.8: IDs have 24 bits, all of them."""
    open_port(ports, sender, receiver, 0xFFFFFF, 0xFFFFFF)
    assert ports.post(sender, 0xFFFFFF) == Status.SUCCESS
    assert ports.message(receiver).origin == 0xFFFFFF


@pytest.mark.parametrize("register", [SCONTROL, SIMP])
def test_post_with_synic_off(ports: Ports, sender: Child, receiver: Child, register: int) -> None:
    """TLFS 14.2.4, 14.9.7: a VP without SynIC or SIM page is no target."""
    m = ports.root.machine
    open_port(ports, sender, receiver, 1, 1)
    open_port(ports, sender, receiver, 2, 2, message_info(vp=ANY_VP))
    m.wrmsr(ports.root.handle(receiver.partition, 0), register, 0)
    assert ports.post(sender, 1) == Status.INVALID_SYNIC_STATE
    assert ports.post(sender, 2) == Status.SUCCESS
    assert ports.message(receiver, 1).type == 1
    m.wrmsr(ports.root.handle(receiver.partition, 1), register, 0)
    assert ports.post(sender, 2) == Status.INVALID_SYNIC_STATE


def test_post_to_a_masked_source(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.2.4: the interrupt is lost, the message is not."""
    open_port(ports, sender, receiver)
    ports.mask(receiver)
    assert ports.post(sender, 9, b"x") == Status.SUCCESS
    assert ports.message(receiver).payload[0] == ord("x")
    assert ports.interrupt(receiver) is None


def test_post_to_a_vp_that_is_gone(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.9.7: the port's VP, or every VP."""
    open_port(ports, sender, receiver, 1, 1, message_info(vp=1))
    open_port(ports, sender, receiver, 2, 2, message_info(vp=ANY_VP))
    assert ports.root.delete_vp(receiver.partition, 1) == Status.SUCCESS
    assert ports.post(sender, 1) == Status.INVALID_VP_INDEX
    assert ports.post(sender, 2) == Status.SUCCESS
    assert ports.root.delete_vp(receiver.partition, 0) == Status.SUCCESS
    assert ports.post(sender, 2) == Status.INVALID_VP_INDEX
    ports.root.create_vp(receiver.partition, 1)
    ports.enable(receiver, 1)
    assert ports.post(sender, 1) == Status.SUCCESS
    assert ports.post(sender, 2) == Status.SUCCESS


def test_buffers_of_a_vp_that_is_gone(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 10.4.2: a deleted VP takes the messages of its queues along, and their buffers are free again."""
    open_port(ports, sender, receiver)
    for _ in range(BUFFERS + 1):
        assert ports.post(sender, 9) == Status.SUCCESS
    assert ports.post(sender, 9) == Status.INSUFFICIENT_BUFFERS
    assert ports.root.delete_vp(receiver.partition, 0) == Status.SUCCESS
    ports.root.create_vp(receiver.partition, 0)
    ports.enable(receiver, 0)
    assert ports.message(receiver).type == 0
    for number in range(BUFFERS + 1):
        assert ports.post(sender, 9, bytes([number])) == Status.SUCCESS
    assert [ports.take(receiver).payload[0] for _ in range(BUFFERS + 1)] == list(range(BUFFERS + 1))


# -- 14.9.8 HvSignalEvent --


def test_signal(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.3.1: the flag is relative to the port's; an interrupt comes when it was clear."""
    open_port(ports, sender, receiver, info=event_info(vp=1, base=100, count=8))
    assert ports.signal(sender, 9, 7) == Status.SUCCESS
    assert ports.flags(receiver, 1) == {107}
    assert ports.interrupt(receiver, 1) == 0x41
    assert ports.signal(sender, 9, 7) == Status.SUCCESS
    assert ports.interrupt(receiver, 1) is None
    assert ports.signal(sender, 9, 0) == Status.SUCCESS
    assert ports.flags(receiver, 1) == {100, 107}
    assert ports.interrupt(receiver, 1) == 0x41
    assert ports.signal(sender, 9, 8) == Status.INVALID_PARAMETER
    assert ports.post_count(receiver.partition, 7) == 0


def test_signal_the_root(ports: Ports, sender: Child) -> None:
    """TLFS 14.4: from a child to its parent."""
    root = ports.root
    root.enable_synic(0)
    root.set_sint(3, 0x55, 0)
    assert ports.create(SELF, 7, sender.partition, event_info(3, 0)) == Status.SUCCESS
    assert ports.connect(sender.partition, 9, ROOT_ID, 7, port_type=EVENT) == Status.SUCCESS
    assert ports.signal(sender, 9, 15) == Status.SUCCESS
    assert root.flags(3) == {15}
    assert root.machine.interrupts == [(0, 0x55)]


def test_signal_checks(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.9.8: privilege, connection, port's type, flag, target, in this order."""
    assert ports.signal(receiver, 9) == Status.ACCESS_DENIED
    assert ports.signal(sender, 9) == Status.INVALID_CONNECTION_ID
    open_port(ports, sender, receiver, 7, 9)
    assert ports.signal(sender, 9, 0xFFFF) == Status.INVALID_PORT_ID
    open_port(ports, sender, receiver, 8, 10, event_info(count=1))
    ports.mask(receiver)
    assert ports.signal(sender, 10, 1) == Status.INVALID_PARAMETER
    assert ports.signal(sender, 10, 0) == Status.INVALID_SYNIC_STATE
    assert ports.flags(receiver) == set()


def test_signal_any(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.3.1: one VP that can take it is enough."""
    m = ports.root.machine
    open_port(ports, sender, receiver, info=event_info(vp=ANY_VP))
    ports.mask(receiver, 0)
    assert ports.signal(sender, 9, 3) == Status.SUCCESS
    assert (ports.flags(receiver, 0), ports.flags(receiver, 1)) == (set(), {3})
    m.wrmsr(ports.root.handle(receiver.partition, 1), SIEFP, 0)
    assert ports.signal(sender, 9, 3) == Status.INVALID_SYNIC_STATE
    for vp in (0, 1):
        assert ports.root.delete_vp(receiver.partition, vp) == Status.SUCCESS
    assert ports.signal(sender, 9, 3) == Status.INVALID_VP_INDEX


# -- 14.8.7 port properties --

POST_COUNT, PREFERRED_TARGET_VP = 0, 1


def test_preferred_target(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.8.7: where messages for HV_ANY_VP go, as long as that VP takes them."""
    open_port(ports, sender, receiver, info=message_info(vp=ANY_VP))
    assert ports.get_property(receiver.partition, 7, PREFERRED_TARGET_VP) == Status.SUCCESS
    assert ports.root.output("<Q") == (ANY_VP,)
    for vp in (1, 0, 1):
        assert ports.set_property(receiver.partition, 7, PREFERRED_TARGET_VP, vp) == Status.SUCCESS
        assert ports.root.output("<Q") == (vp,)
        assert ports.get_property(receiver.partition, 7, PREFERRED_TARGET_VP) == Status.SUCCESS
        assert ports.root.output("<Q") == (vp,)
        assert ports.post(sender, 9) == Status.SUCCESS
        assert ports.take(receiver, vp).type == 1
    ports.root.machine.wrmsr(ports.root.handle(receiver.partition, 1), SIMP, 0)
    assert ports.post(sender, 9) == Status.SUCCESS
    assert ports.message(receiver, 0).type == 1
    assert ports.set_property(receiver.partition, 7, PREFERRED_TARGET_VP, ANY_VP) == Status.SUCCESS


def test_property_checks(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.9.4, 14.9.5: privilege, partition, port, property, value."""
    open_port(ports, sender, receiver, 7, 9, message_info(vp=ANY_VP))
    open_port(ports, sender, receiver, 8, 10, event_info(vp=1))

    def set_any(partition: int, port: int, code: int, *, caller: Child | None = None) -> Status:
        return ports.set_property(partition, port, code, 0, caller=caller)

    for call in (ports.get_property, set_any):
        assert call(SELF, 7, 1, caller=receiver) == Status.ACCESS_DENIED
        assert call(receiver.partition, 7, 1, caller=sender) == Status.ACCESS_DENIED
        assert call(NO_PARTITION, 7, 1) == Status.INVALID_PARTITION_ID
        assert call(ports.root.create_partition(), 7, 1) == Status.INVALID_PARTITION_STATE
        for port in (6, 0x01000007):
            assert call(receiver.partition, port, 2) == Status.INVALID_PORT_ID
        for code in (2, 0xFFFFFFFF):
            assert call(receiver.partition, 7, code) == Status.UNKNOWN_PROPERTY
    assert ports.set_property(receiver.partition, 7, POST_COUNT, 0) == Status.UNKNOWN_PROPERTY
    for vp in (2, 1024, 0xFFFFFFFE, 1 << 32, 1 << 63):
        assert ports.set_property(receiver.partition, 7, PREFERRED_TARGET_VP, vp) == Status.INVALID_VP_INDEX
    assert ports.get_property(receiver.partition, 8, PREFERRED_TARGET_VP) == Status.SUCCESS
    assert ports.root.output("<Q") == (1,), "the only one it has"
    assert ports.set_property(receiver.partition, 8, PREFERRED_TARGET_VP, 0) == Status.INVALID_PARAMETER


# -- The end of partitions --


def test_end_of_the_receiver(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.4, 14.9.7: with ports, connections and queued messages; the sender keeps a useless connection."""
    root = ports.root
    open_port(ports, sender, receiver)
    ports.grant(receiver.partition, ALL_PRIVILEGES)
    assert ports.create(sender.partition, 3, receiver.partition, message_info()) == Status.SUCCESS
    assert ports.connect(receiver.partition, 3, sender.partition, 3) == Status.SUCCESS
    for _ in range(5):
        assert ports.post(sender, 9) == Status.SUCCESS
    before = root.balance(sender.partition).available
    root.destroy(receiver.partition)
    assert ports.post(sender, 9) == Status.INVALID_PORT_ID
    assert root.balance(sender.partition).available == before
    assert ports.disconnect(sender.partition, 9) == Status.SUCCESS
    assert ports.delete(sender.partition, 3) == Status.SUCCESS
    assert root.balance(sender.partition).available == before + CONNECTION_PAGES + MESSAGE_PORT_PAGES


def test_end_of_the_sender(ports: Ports, sender: Child, receiver: Child) -> None:
    """TLFS 14.2.3: what it has posted arrives; nobody else may connect to the port."""
    open_port(ports, sender, receiver)
    for number in range(3):
        assert ports.post(sender, 9, bytes([number])) == Status.SUCCESS
    ports.root.destroy(sender.partition)
    assert [ports.take(receiver).payload[0] for _ in range(3)] == [0, 1, 2]
    other = ports.child(privileges=ALL_PRIVILEGES)
    assert ports.connect(SELF, 9, receiver.partition, 7, caller=other) == Status.INVALID_PORT_ID
    assert ports.connect(sender.partition, 9, receiver.partition, 7) == Status.INVALID_PARTITION_ID
    assert ports.delete(receiver.partition, 7) == Status.SUCCESS


def test_reset(ports: Ports, sender: Child) -> None:
    """A reset of the machine takes what partitions have made, and leaves what is the operator's."""
    m = ports.root.machine
    assert m.operator_create_port(1, MESSAGE, 2) == Status.SUCCESS
    assert m.operator_connect_port(1, 1) == Status.SUCCESS
    assert ports.create(SELF, 7, sender.partition, message_info()) == Status.SUCCESS
    assert ports.connect(sender.partition, 9, ROOT_ID, 7) == Status.SUCCESS
    assert ports.create(sender.partition, 7, ROOT_ID, message_info()) == Status.SUCCESS
    assert ports.connect(SELF, 9, sender.partition, 7) == Status.SUCCESS
    m.reset()
    assert [port["port_id"] for port in m.ports()] == [1]
    assert [connection["connection_id"] for connection in m.connections()] == [1]


def test_the_operators_ports(ports: Ports, sender: Child) -> None:
    """They work beside those of partitions, whose calls neither delete nor connect nor disconnect them."""
    root = ports.root
    m = root.machine
    root.enable_synic(0)
    root.set_sint(2, 0x40, 0)
    root.open_port(1, connection=1)
    assert ports.post(root, 1, b"op") == Status.SUCCESS
    assert root.take_message(2).payload[:2] == b"op"
    assert ports.create(SELF, 1, sender.partition, message_info()) == Status.INVALID_PORT_ID
    assert ports.delete(SELF, 1) == Status.INVALID_PORT_ID
    assert ports.disconnect(SELF, 1) == Status.INVALID_CONNECTION_ID
    assert m.operator_create_port(2, MESSAGE, 2) == Status.SUCCESS
    assert ports.connect(sender.partition, 2, ROOT_ID, 2) == Status.INVALID_PORT_ID
    assert ports.create(SELF, 3, sender.partition, message_info()) == Status.SUCCESS
    assert m.operator_connect_port(3, 3) == Status.INVALID_PORT_ID, "nor the other way round"
    assert ports.post_count(ROOT_ID, 1) == 1
    assert m.operator_delete_port(1) == Status.SUCCESS
    assert ports.post(root, 1) == Status.INVALID_PORT_ID


def test_between_a_child_and_its_own_child(ports: Ports) -> None:
    """TLFS 5.3: a partition that has children arranges their ports itself."""
    root = ports.root
    middle = ports.child(privileges=ALL_PRIVILEGES | 1 << 32 | 1 << 34, deposit=400)
    assert ports.create(SELF, 7, ROOT_ID, event_info(), caller=middle) == Status.SUCCESS
    assert middle.status(0x0040, root.create_input()) == Status.SUCCESS
    (grandchild,) = middle.output("<Q")
    assert ports.create(SELF, 8, grandchild, message_info(), caller=middle) == Status.INVALID_PARTITION_STATE
    assert ports.create(grandchild, 8, middle.partition, message_info()) == Status.ACCESS_DENIED, "not the root's child"
