# SPDX-License-Identifier: GPL-2.0-or-later
"""Chapter 14 of the TLFS, inter-partition communication: ports, connections, posting, signaling."""

from __future__ import annotations

import struct

import pytest
from simulated_guest import (
    EVENT,
    MASKED,
    MESSAGE,
    MONITOR,
    POST_MESSAGE,
    SCONTROL,
    SIEFP,
    SIMP,
    Guest,
)

from qemu_hv._core import PortType, Status

BUFFERS = 16
"""Message buffers of a port (TLFS 14.2.1)."""


@pytest.fixture
def ready(guest: Guest) -> Guest:
    """A guest whose VPs 0 and 1 take messages and events at SINT2."""
    for vp in (0, 1):
        guest.enable_synic(vp)
        guest.set_sint(2, 0x40 + vp, vp)
    return guest


# -- 14.9.1 HvCreatePort, as far as an operator's ports go --


@pytest.mark.parametrize("port", [0, 1, 0xFFFFFF])
def test_create(guest: Guest, port: int) -> None:
    """TLFS 14.8.6: port IDs have 24 bits."""
    m = guest.machine
    assert m.operator_create_port(port, MESSAGE, 1, vp=3) == Status.SUCCESS
    (state,) = m.ports()
    assert (state["port_id"], state["type"], state["sint"]) == (port, PortType.MESSAGE, 1)
    assert (state["vp"], state["post_count"], state["queued"]) == (3, 0, 0)


@pytest.mark.parametrize("port", [0x01000000, 0x80000001, 0xFFFFFFFF])
def test_create_with_reserved_bits(guest: Guest, port: int) -> None:
    """TLFS 14.9.1: the high 8 bits of the port ID must be zero."""
    assert guest.machine.operator_create_port(port, MESSAGE, 1) == Status.INVALID_PORT_ID
    assert guest.machine.ports() == []


def test_create_twice(guest: Guest) -> None:
    """TLFS 14.9.1: a port ID that is already in use."""
    m = guest.machine
    assert m.operator_create_port(4, MESSAGE, 1) == Status.SUCCESS
    assert m.operator_create_port(4, EVENT, 2, flag_count=1) == Status.INVALID_PORT_ID
    assert m.operator_delete_port(4) == Status.SUCCESS
    assert m.operator_create_port(4, EVENT, 2, flag_count=1) == Status.SUCCESS


@pytest.mark.parametrize("sint", [0, 16, 17, 0xFFFFFFFF])
def test_create_with_an_invalid_source(guest: Guest, sint: int) -> None:
    """TLFS 14.9.1: sources are 1 to 15; SINT0 belongs to the hypervisor."""
    m = guest.machine
    assert m.operator_create_port(4, MESSAGE, sint) == Status.INVALID_PARAMETER
    assert m.operator_create_port(4, EVENT, sint, flag_count=1) == Status.INVALID_PARAMETER


@pytest.mark.parametrize("vp", [4, 5, 1024, 0xFFFFFFFE])
def test_create_with_an_invalid_vp(guest: Guest, vp: int) -> None:
    """TLFS 14.9.1: the VP must exist or be HV_ANY_VP."""
    assert guest.machine.operator_create_port(4, MESSAGE, 1, vp=vp) == Status.INVALID_VP_INDEX


@pytest.mark.parametrize("port_type", [0, 4, 0x7FFFFFFF])
def test_create_with_an_invalid_type(guest: Guest, port_type: int) -> None:
    """TLFS 14.9.1: the port type must be one of those that exist."""
    assert guest.machine.operator_create_port(4, port_type, 1) == Status.INVALID_PARAMETER


def test_monitor_ports_are_refused(guest: Guest) -> None:
    """TLFS 14.5: monitored notifications need a second partition and are refused."""
    assert guest.machine.operator_create_port(4, MONITOR, 1) != Status.SUCCESS
    assert guest.machine.ports() == []


@pytest.mark.parametrize(
    ("base", "count", "valid"),
    [
        (0, 1, True),
        (0, 2047, True),
        (0, 2048, True),
        (2047, 1, True),
        (0, 0, False),
        (0, 2049, False),
        (1, 2048, False),
        (2047, 2, False),
        (2048, 1, False),
        (0xFFFF, 0xFFFF, False),
    ],
)
def test_flag_ranges(guest: Guest, base: int, count: int, valid: bool) -> None:
    """TLFS 14.9.1: base 0 to 2047, count 1 to 2048, together within the 2048 flags."""
    status = guest.machine.operator_create_port(4, EVENT, 1, base_flag=base, flag_count=count)
    assert status == (Status.SUCCESS if valid else Status.INVALID_PARAMETER)


def test_too_many(guest: Guest) -> None:
    """TLFS 14.9.1: at an implementation limit the answer is NO_RESOURCES."""
    m = guest.machine
    statuses = [m.operator_create_port(port, EVENT, 1, flag_count=1) for port in range(5000)]
    assert set(statuses) == {Status.SUCCESS, Status.NO_RESOURCES}
    assert statuses == sorted(statuses)
    assert len(m.ports()) == statuses.count(Status.SUCCESS)


# -- 14.9.3 HvConnectPort, 14.9.6 HvDisconnectPort, 14.9.2 HvDeletePort --


def test_connect(guest: Guest) -> None:
    """TLFS 14.8.8: the operator connects the partition to its own port."""
    guest.open_port(4, connection=0xABCDEF)
    assert guest.machine.connections() == [{"connection_id": 0xABCDEF, "port_id": 4}]


@pytest.mark.parametrize("connection", [0x01000000, 0xFFFFFFFF])
def test_connect_with_reserved_bits(guest: Guest, connection: int) -> None:
    """TLFS 14.9.3: the high 8 bits of the connection ID must be zero."""
    m = guest.machine
    m.operator_create_port(4, MESSAGE, 1)
    assert m.operator_connect_port(connection, 4) == Status.INVALID_CONNECTION_ID


def test_connect_to_no_port(guest: Guest) -> None:
    """TLFS 14.9.3: the port must exist, and its ID be valid."""
    assert guest.machine.operator_connect_port(1, 4) == Status.INVALID_PORT_ID
    assert guest.machine.operator_connect_port(1, 0x01000004) == Status.INVALID_PORT_ID


def test_connect_a_connected_port(guest: Guest) -> None:
    """TLFS 14.9.3: a port can be connected once."""
    guest.open_port(4, connection=1)
    assert guest.machine.operator_connect_port(2, 4) == Status.INVALID_PORT_ID


def test_connect_with_a_used_connection(guest: Guest) -> None:
    """TLFS 14.9.3: a connection ID that is already in use."""
    guest.open_port(4, connection=1)
    guest.machine.operator_create_port(5, MESSAGE, 1)
    assert guest.machine.operator_connect_port(1, 5) == Status.INVALID_CONNECTION_ID


def test_disconnect(ready: Guest) -> None:
    """TLFS 14.9.6: the connection is gone, and its port can be connected again."""
    m = ready.machine
    ready.open_port(4, connection=1)
    assert m.operator_disconnect_port(1) == Status.SUCCESS
    assert m.operator_disconnect_port(1) == Status.INVALID_CONNECTION_ID
    assert ready.post(1) == Status.INVALID_CONNECTION_ID
    assert m.operator_connect_port(2, 4) == Status.SUCCESS
    assert ready.post(2) == Status.SUCCESS


def test_disconnect_keeps_queued_messages(ready: Guest) -> None:
    """TLFS 14.2.3: breaking a connection does not affect undelivered messages."""
    ready.open_port(4)
    assert [ready.post(4, bytes([n])) for n in range(3)] == [Status.SUCCESS] * 3
    assert ready.machine.operator_disconnect_port(4) == Status.SUCCESS
    assert [ready.take_message(2).payload[0] for _ in range(3)] == [0, 1, 2]


def test_delete(ready: Guest) -> None:
    """TLFS 14.9.2: a deleted port leaves a useless connection."""
    m = ready.machine
    ready.open_port(4, connection=1)
    assert m.operator_delete_port(4) == Status.SUCCESS
    assert m.operator_delete_port(4) == Status.INVALID_PORT_ID
    assert m.ports() == []
    assert ready.post(1) == Status.INVALID_PORT_ID
    assert m.operator_disconnect_port(1) == Status.SUCCESS
    assert ready.post(1) == Status.INVALID_CONNECTION_ID


def test_a_new_port_does_not_inherit_a_useless_connection(ready: Guest) -> None:
    """TLFS 14.4: after deletion the connection is useless, also when the port ID is used anew."""
    m = ready.machine
    ready.open_port(4, connection=1)
    m.operator_delete_port(4)
    m.operator_create_port(4, MESSAGE, 2, vp=0)
    assert ready.post(1) == Status.INVALID_PORT_ID


def test_delete_frees_queued_messages(ready: Guest) -> None:
    """TLFS 14.2.3: deletion frees the port's buffers, queued ones too; others stay."""
    ready.open_port(4)
    ready.open_port(5)
    for payload, connection in ((b"a", 4), (b"b", 5), (b"c", 4), (b"d", 5)):
        assert ready.post(connection, payload) == Status.SUCCESS
    assert ready.machine.operator_delete_port(4) == Status.SUCCESS
    taken = [ready.take_message(2).payload[:1] for _ in range(3)]
    assert taken == [b"a", b"b", b"d"]
    assert ready.message(2).type == 0
    assert ready.machine.vp_state(0)["queued"][2] == 0


# -- 14.9.7 HvPostMessage --


def test_post_without_the_privilege(generation: str) -> None:
    """TLFS 14.9.7: PostMessages."""
    guest = Guest(generation, privileges=Guest(generation).machine.config["privileges"] & ~(1 << 36))
    guest.enable_synic()
    guest.open_port(4)
    assert guest.post(4) == Status.ACCESS_DENIED
    assert guest.message(2).type == 0


@pytest.mark.parametrize("connection", [0, 5, 0xFFFFFF, 0x01000004, 0x80000004, 0xFFFFFFFF])
def test_post_to_an_invalid_connection(ready: Guest, connection: int) -> None:
    """TLFS 14.9.7: the connection ID must be valid, its high 8 bits included."""
    ready.open_port(4)
    assert ready.post(connection) == Status.INVALID_CONNECTION_ID


def test_post_to_an_event_port(ready: Guest) -> None:
    """TLFS 14.9.7: the port must be a message port."""
    ready.open_port(4, port_type=EVENT, flag_count=1)
    assert ready.post(4) == Status.INVALID_PORT_ID


@pytest.mark.parametrize("message_type", [0, 0x80000000, 0x80000010, 0xFFFFFFFF])
def test_post_an_invalid_type(ready: Guest, message_type: int) -> None:
    """TLFS 14.9.7, 14.8.2: type zero and types of the hypervisor are refused."""
    ready.open_port(4)
    assert ready.post(4, message_type=message_type) == Status.INVALID_PARAMETER
    assert ready.message(2).type == 0


@pytest.mark.parametrize("message_type", [1, 2, 0x7FFFFFFF])
def test_post_a_valid_type(ready: Guest, message_type: int) -> None:
    """TLFS 14.9.7: any 32-bit type but zero with the highest bit clear."""
    ready.open_port(4)
    assert ready.post(4, message_type=message_type) == Status.SUCCESS
    assert ready.message(2).type == message_type


@pytest.mark.parametrize("size", [241, 256, 0x10000, 0xFFFFFFFF])
def test_post_too_much(ready: Guest, size: int) -> None:
    """TLFS 14.9.7: a payload of more than 240 bytes."""
    ready.open_port(4)
    assert ready.post(4, size=size) == Status.INVALID_PARAMETER


def test_post_a_block_that_crosses_a_page(ready: Guest) -> None:
    """TLFS 4.6: the parameter block is 256 bytes, however short the payload is."""
    ready.open_port(4)
    data = struct.pack("<IIII", 4, 0, 1, 0)
    assert ready.status(POST_MESSAGE, data, gpa=0x10F00) == Status.SUCCESS
    assert ready.status(POST_MESSAGE, data, gpa=0x10F08) == Status.INVALID_ALIGNMENT


def test_buffers(ready: Guest) -> None:
    """TLFS 14.2.1, 14.9.7: a port has sixteen buffers; the slot's message needs none."""
    ready.open_port(4)
    statuses = [ready.post(4, bytes([n])) for n in range(BUFFERS + 3)]
    assert statuses == [Status.SUCCESS] * (BUFFERS + 1) + [Status.INSUFFICIENT_BUFFERS] * 2
    ready.take_message(2)
    assert ready.post(4, b"z") == Status.SUCCESS
    assert ready.post(4, b"z") == Status.INSUFFICIENT_BUFFERS


def test_buffers_belong_to_their_port(ready: Guest) -> None:
    """TLFS 14.2.1: a full port does not keep another from taking messages."""
    ready.open_port(4)
    ready.open_port(5)
    while ready.post(4) == Status.SUCCESS:
        pass
    assert ready.post(5) == Status.SUCCESS


@pytest.mark.parametrize("register", [SCONTROL, SIMP])
def test_post_to_a_disabled_vp(ready: Guest, register: int) -> None:
    """TLFS 14.9.7: the target's SynIC or SIM page is disabled."""
    ready.open_port(4, vp=0)
    ready.machine.wrmsr(0, register, 0)
    assert ready.post(4) == Status.INVALID_SYNIC_STATE
    assert ready.machine.ports()[0]["queued"] == 0


@pytest.mark.parametrize("register", [SCONTROL, SIMP])
def test_post_to_any_vp(ready: Guest, register: int) -> None:
    """TLFS 14.2.4: VPs whose SynIC or SIM page is disabled are no targets."""
    ready.open_port(4, vp=None)
    ready.machine.wrmsr(0, register, 0)
    assert ready.post(4, b"x") == Status.SUCCESS
    assert ready.message(2, vp=1).payload[:1] == b"x"
    ready.machine.wrmsr(1, register, 0)
    assert ready.post(4) == Status.INVALID_SYNIC_STATE


def test_post_to_any_vp_of_a_guest_without_synic(guest: Guest) -> None:
    """TLFS 14.9.7: for HV_ANY_VP, when the SynIC of all VPs is disabled."""
    guest.open_port(4, vp=None)
    assert guest.post(4) == Status.INVALID_SYNIC_STATE


def test_messages_to_any_vp_all_arrive(ready: Guest) -> None:
    """TLFS 14.2.3: in no particular order, but none is lost or doubled."""
    ready.open_port(4, vp=None)
    sent = [bytes([n]) for n in range(12)]
    assert [ready.post(4, payload) for payload in sent] == [Status.SUCCESS] * 12
    taken = []
    for vp in (0, 1):
        while ready.message(2, vp).type:
            taken.append(ready.take_message(2, vp).payload[:1])
    assert sorted(taken) == sent


def test_post_from_any_vp(ready: Guest) -> None:
    """TLFS 14.9.7: the partition posts, whichever of its VPs calls."""
    ready.open_port(4, vp=1)
    assert ready.post(4, b"x", vp=3) == Status.SUCCESS
    assert ready.message(2, vp=1).payload[:1] == b"x"


def test_post_count(ready: Guest) -> None:
    """TLFS 14.8.7: the post count counts successful posts since the port's creation."""
    ready.open_port(4)
    ready.post(4)
    ready.post(4)
    ready.post(4, size=241)
    (state,) = ready.machine.ports()
    assert (state["post_count"], state["queued"]) == (2, 1)


# -- 14.9.8 HvSignalEvent --


def test_signal_without_the_privilege(generation: str) -> None:
    """TLFS 14.9.8: SignalEvents."""
    guest = Guest(generation, privileges=Guest(generation).machine.config["privileges"] & ~(1 << 37))
    guest.enable_synic()
    guest.set_sint(2, 0x40)
    guest.open_port(4, port_type=EVENT, flag_count=1)
    assert guest.signal(4) == Status.ACCESS_DENIED
    assert guest.flags(2) == set()


@pytest.mark.parametrize("connection", [0, 5, 0x01000004, 0xFFFFFFFF])
def test_signal_an_invalid_connection(ready: Guest, connection: int) -> None:
    """TLFS 14.9.8: the connection ID must be valid, its high 8 bits included."""
    ready.open_port(4, port_type=EVENT, flag_count=1)
    assert ready.signal(connection) == Status.INVALID_CONNECTION_ID


def test_signal_a_message_port(ready: Guest) -> None:
    """TLFS 14.9.8: the port must be an event port."""
    ready.open_port(4)
    assert ready.signal(4) == Status.INVALID_PORT_ID


def test_signal_a_deleted_port(ready: Guest) -> None:
    """TLFS 14.9.8: the port has been deleted."""
    ready.open_port(4, port_type=EVENT, flag_count=1)
    ready.machine.operator_delete_port(4)
    assert ready.signal(4) == Status.INVALID_PORT_ID


@pytest.mark.parametrize("flag", [8, 9, 2047, 0xFFFF])
def test_signal_beyond_the_flag_count(ready: Guest, flag: int) -> None:
    """TLFS 14.9.8: the flag number must be below the port's flag count."""
    ready.open_port(4, port_type=EVENT, base_flag=8, flag_count=8)
    assert ready.signal(4, flag) == Status.INVALID_PARAMETER
    assert ready.flags(2) == set()


@pytest.mark.parametrize("register", [SCONTROL, SIEFP])
def test_signal_to_a_disabled_vp(ready: Guest, register: int) -> None:
    """TLFS 14.9.8: the target's SynIC or SIEF page is disabled."""
    ready.open_port(4, port_type=EVENT, vp=0, flag_count=1)
    ready.machine.wrmsr(0, register, 0)
    assert ready.signal(4) == Status.INVALID_SYNIC_STATE


def test_signal_a_masked_source(ready: Guest) -> None:
    """TLFS 14.3.1, 14.9.8: the target SINT is masked: no flag, no interrupt."""
    ready.open_port(4, port_type=EVENT, vp=0, flag_count=1)
    ready.set_sint(2, 0x40 | MASKED)
    assert ready.signal(4) == Status.INVALID_SYNIC_STATE
    assert ready.flags(2) == set()
    assert ready.machine.interrupts == []


@pytest.mark.parametrize("register", [SCONTROL, SIEFP])
def test_signal_to_any_vp(ready: Guest, register: int) -> None:
    """TLFS 14.3.1: VPs whose SynIC or SIEF page is disabled are no targets."""
    ready.open_port(4, port_type=EVENT, vp=None, flag_count=4)
    ready.machine.wrmsr(0, register, 0)
    assert ready.signal(4, 3) == Status.SUCCESS
    assert ready.flags(2, vp=1) == {3}
    ready.machine.wrmsr(1, register, 0)
    assert ready.signal(4, 3) == Status.INVALID_SYNIC_STATE


def test_signal_needs_no_message_page(ready: Guest) -> None:
    """TLFS 14.9.8: only the SIEF page counts; and only the SIM page for messages."""
    ready.open_port(4, port_type=EVENT, vp=0, flag_count=1)
    ready.open_port(5, vp=1)
    ready.machine.wrmsr(0, SIMP, 0)
    ready.machine.wrmsr(1, SIEFP, 0)
    assert ready.signal(4) == Status.SUCCESS
    assert ready.post(5) == Status.SUCCESS


def test_signal_never_runs_out(ready: Guest) -> None:
    """TLFS 14.3.3: event flags need no buffers."""
    ready.open_port(4, port_type=EVENT, flag_count=1)
    assert {ready.signal(4) for _ in range(100)} == {Status.SUCCESS}


# -- The operator's own messages and events --


def test_operator_post(ready: Guest) -> None:
    """The operator posts to a port without a connection, under the rules of HvPostMessage."""
    m = ready.machine
    m.operator_create_port(4, MESSAGE, 2, vp=0)
    assert m.operator_post_message(4, 7, b"hello") == Status.SUCCESS
    message = ready.message(2)
    assert (message.type, message.size, message.origin) == (7, 5, 4)
    assert message.payload[:5] == b"hello"
    assert m.operator_post_message(5, 7, b"") == Status.INVALID_PORT_ID
    assert m.operator_post_message(4, 0, b"") == Status.INVALID_PARAMETER
    assert m.operator_post_message(4, 0x80000000, b"") == Status.INVALID_PARAMETER
    assert m.operator_post_message(4, 7, bytes(241)) == Status.INVALID_PARAMETER
    assert m.operator_post_message(4, 7, bytes(240)) == Status.SUCCESS


def test_operator_signal(ready: Guest) -> None:
    """The operator signals a port without a connection, under the rules of HvSignalEvent."""
    m = ready.machine
    m.operator_create_port(4, EVENT, 2, vp=0, base_flag=3, flag_count=2)
    assert m.operator_signal_event(4, 1) == Status.SUCCESS
    assert ready.flags(2) == {4}
    assert m.operator_signal_event(4, 2) == Status.INVALID_PARAMETER
    assert m.operator_signal_event(5, 0) == Status.INVALID_PORT_ID
    assert m.operator_post_message(4, 1, b"") == Status.INVALID_PORT_ID


def test_operator_needs_no_guest_privilege(generation: str) -> None:
    """What the operator does is not bound by the partition's privileges."""
    guest = Guest(generation, privileges=0b1100100)
    guest.enable_synic()
    guest.machine.operator_create_port(4, MESSAGE, 2, vp=0)
    assert guest.machine.operator_post_message(4, 7, b"x") == Status.SUCCESS
    assert guest.message(2).type == 7


def test_ports_survive_a_reset(ready: Guest) -> None:
    """The operator's ports and connections stay when the machine is reset; messages do not."""
    ready.open_port(4, connection=9)
    for _ in range(3):
        ready.post(9, b"old")
    ready.machine.reset()
    (state,) = ready.machine.ports()
    assert state["queued"] == 0
    ready.enable_hypercalls()
    ready.enable_synic()
    ready.set_sint(2, 0x40)
    assert [ready.post(9, bytes([n])) for n in range(BUFFERS + 1)] == [Status.SUCCESS] * 17
    assert ready.message(2).payload[0] == 0
