# SPDX-License-Identifier: GPL-2.0-or-later
"""The operator's ports and connections: every command and every error."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from operator_machine import COMMAND_PORT, Operator

from qemu_hv.machine import CommandFailed


def ports(operator: Operator) -> dict[int, Any]:
    return {port["port-id"]: port for port in operator("query-hv-ports")["ports"]}


def test_create_and_delete(operator: Operator) -> None:
    operator("hv-create-port", port_id=10, type="message", sint=3)
    operator("hv-create-port", port_id=0xFFFFFF, type="event", sint=15, vp=1, base_flag=8, flag_count=4)
    assert ports(operator)[10] == {"port-id": 10, "type": "message", "sint": 3, "posts": 0, "queued": 0}
    assert ports(operator)[0xFFFFFF] == {
        "port-id": 0xFFFFFF,
        "type": "event",
        "sint": 15,
        "vp": 1,
        "base-flag": 8,
        "flag-count": 4,
        "posts": 0,
        "queued": 0,
    }
    operator("hv-delete-port", port_id=10)
    assert sorted(ports(operator)) == [COMMAND_PORT, 0xFFFFFF]


def test_all_flags_by_default(operator: Operator) -> None:
    operator("hv-create-port", port_id=10, type="event", sint=3, base_flag=100)
    assert ports(operator)[10]["flag-count"] == 2047 - 100


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"port_id": COMMAND_PORT}, "a port with ID 1 already"),
        ({"port_id": 0x1000000}, "'port-id' must not be above 16777215"),
        ({"sint": 0}, "'sint' must be 1 to 15"),
        ({"sint": 16}, "'sint' must be 1 to 15"),
        ({"vp": 2}, "no virtual processor 2"),
        ({"base_flag": 1}, "are for ports of type 'event'"),
        ({"flag_count": 1}, "are for ports of type 'event'"),
        ({"type": "event", "flag_count": 0}, "'flag-count' must be at least 1"),
        ({"type": "event", "base_flag": 2000, "flag_count": 48}, "less than 2048"),
        ({"type": "event", "base_flag": 65535}, "less than 2048"),
        ({"type": "monitor"}, "the operator cannot create monitor ports"),
    ],
)
def test_create_errors(operator: Operator, arguments: dict[str, Any], words: str) -> None:
    before = operator("query-hv-ports")
    with pytest.raises(CommandFailed, match=words):
        operator("hv-create-port", **{"port_id": 10, "type": "message", "sint": 3, **arguments})
    assert operator("query-hv-ports") == before


def test_delete_error(operator: Operator) -> None:
    with pytest.raises(CommandFailed, match="no port with ID 10"):
        operator("hv-delete-port", port_id=10)


def test_connections(operator: Operator) -> None:
    operator("hv-create-port", port_id=10, type="message", sint=3)
    operator("hv-connect-port", connection_id=20, port_id=10)
    connection = {"connection-id": 20, "port-id": 10}
    assert operator("query-hv-ports")["connections"] == [connection]
    operator("hv-delete-port", port_id=10)
    assert operator("query-hv-ports")["connections"] == [connection]
    operator("hv-disconnect-port", connection_id=20)
    assert operator("query-hv-ports")["connections"] == []


def test_connection_errors(operator: Operator) -> None:
    operator("hv-connect-port", connection_id=20, port_id=COMMAND_PORT)
    for arguments, words in [
        ({"connection_id": 20, "port_id": COMMAND_PORT}, "a connection with ID 20 already"),
        ({"connection_id": 21, "port_id": 10}, "no port with ID 10"),
        ({"connection_id": 0x1000000, "port_id": COMMAND_PORT}, "'connection-id' must not be above"),
    ]:
        with pytest.raises(CommandFailed, match=words):
            operator("hv-connect-port", **arguments)
    with pytest.raises(CommandFailed, match="no connection with ID 21"):
        operator("hv-disconnect-port", connection_id=21)


@pytest.mark.parametrize("encoding", ["base64", "hex", None])
def test_message_arrives(operator: Operator, encoding: str) -> None:
    payload = bytes.fromhex("efcdab8967452301 00ff")
    operator("hv-create-port", port_id=10, type="message", sint=2)
    text = payload.hex() if encoding == "hex" else base64.b64encode(payload).decode()
    how = {} if encoding is None else {"encoding": encoding}
    operator("hv-post-message", port_id=10, message_type=0x42, payload=text, **how)
    operator.machine.wait_for("^message type=42 size=10 sender=a payload=123456789abcdef$")
    assert ports(operator)[10]["posts"] == 1


def test_longest_message(operator: Operator) -> None:
    operator("hv-post-message", port_id=COMMAND_PORT, message_type=1, payload="00" * 240, encoding="hex")
    operator.machine.wait_for("^message type=1 size=240 ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"port_id": 10}, "no port with ID 10"),
        ({"port_id": 11}, "Port 11 is not for messages"),
        ({"message_type": 0}, "'message-type' must be 1 to 2147483647"),
        ({"message_type": 1 << 31}, "'message-type' must be 1 to 2147483647"),
        ({"payload": "00" * 241}, "'payload' has 241 bytes; a message holds at most 240"),
        ({"payload": "0x"}, "Character 2 of 'payload' is not a hexadecimal digit"),
        ({"payload": "123"}, "odd number"),
        ({"payload": "#", "encoding": "base64"}, "invalid characters"),
        ({"encoding": "utf8"}, "does not accept value 'utf8'"),
    ],
)
def test_post_errors(operator: Operator, arguments: dict[str, Any], words: str) -> None:
    operator("hv-create-port", port_id=11, type="event", sint=2)
    given = {"port_id": COMMAND_PORT, "message_type": 1, "payload": "", "encoding": "hex", **arguments}
    with pytest.raises(CommandFailed, match=words):
        operator("hv-post-message", **given)
    assert operator.vp()["counters"]["messages"] == 0


def test_too_many_messages_and_their_order(operator: Operator) -> None:
    operator("hv-create-port", port_id=12, type="event", sint=2, vp=0)
    operator("hv-create-port", port_id=10, type="message", sint=2, vp=0)
    operator.order("hold")
    operator.machine.wait_for("^holding")
    posted = 0
    with pytest.raises(CommandFailed, match="the 16 messages that wait already"):
        while posted < 100:
            operator("hv-post-message", port_id=10, message_type=0x100 + posted, payload="")
            posted += 1
    # One is in the slot, sixteen wait for it.
    assert posted == 17
    assert ports(operator)[10]["queued"] == 16
    assert operator.vp()["synic"]["sints"][2]["queued"] == 16
    operator("hv-signal-event", port_id=12, flag=0)
    for number in range(posted):
        operator.machine.wait_for(f"^message type={0x100 + number:x} ")
    assert ports(operator)[10]["queued"] == 0


def test_event_arrives(operator: Operator) -> None:
    operator("hv-create-port", port_id=11, type="event", sint=2, base_flag=100, flag_count=1900)
    operator("hv-signal-event", port_id=11, flag=1899)
    operator.machine.wait_for("^event flag=1999$")
    assert operator.vp()["counters"]["events"] == 1


@pytest.mark.parametrize(
    ("port", "flag", "words"),
    [
        (10, 0, "no port with ID 10"),
        (COMMAND_PORT, 0, "Port 1 is not for events"),
        (11, 4, "Port 11 has no flag 4: it has 4"),
    ],
)
def test_signal_errors(operator: Operator, port: int, flag: int, words: str) -> None:
    operator("hv-create-port", port_id=11, type="event", sint=2, flag_count=4)
    with pytest.raises(CommandFailed, match=words):
        operator("hv-signal-event", port_id=port, flag=flag)
    assert operator.vp()["counters"]["events"] == 0


def test_synic_off(start_operator: Callable[..., Operator]) -> None:
    operator = start_operator(append="synic=off")
    operator("hv-create-port", port_id=11, type="event", sint=2)
    attempts: list[tuple[str, dict[str, Any]]] = [
        ("hv-post-message", {"port_id": COMMAND_PORT, "message_type": 1, "payload": ""}),
        ("hv-signal-event", {"port_id": 11, "flag": 0}),
    ]
    for command, arguments in attempts:
        with pytest.raises(CommandFailed, match="HV_STATUS_INVALID_SYNIC_STATE"):
            operator(command, **arguments)


def test_guest_posts_to_its_own_port(operator: Operator) -> None:
    operator("hv-create-port", port_id=10, type="message", sint=2, vp=0)
    operator("hv-connect-port", connection_id=20, port_id=10)
    operator.order("post", 20)
    operator.machine.wait_for("^posted status=0")
    operator.machine.wait_for("^message type=1 size=8 sender=a payload=1122334455667788")
    operator("hv-delete-port", port_id=10)
    operator.order("post", 20)
    operator.machine.wait_for("^posted status=11")
    operator("hv-disconnect-port", connection_id=20)
    operator.order("post", 20)
    operator.machine.wait_for("^posted status=12")


def test_guest_signals_its_own_port(operator: Operator) -> None:
    operator("hv-create-port", port_id=11, type="event", sint=2, vp=0, base_flag=200, flag_count=6)
    operator("hv-connect-port", connection_id=21, port_id=11)
    operator.order("signal", 21)
    operator.machine.wait_for("^signaled status=0")
    operator.machine.wait_for("^event flag=205")
