# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports and connections by hypercalls (TLFS 14.9), on the simulated platform."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Union

from root import PRIVILEGE_FLAGS, Child, Root
from simulated_guest import (
    EVENT,
    MASKED,
    MESSAGE,
    MONITOR,
    POST_MESSAGE,
    SCONTROL,
    SIEFP,
    SIGNAL_EVENT,
    SIMP,
    SINT0,
    Message,
)

from qemu_hv._core import Status

ANY_VP = 0xFFFFFFFF
DELETE_PORT = 0x0058
GET_PORT_PROPERTY = 0x005A
DISCONNECT_PORT = 0x005B
SET_PORT_PROPERTY = 0x0070

POST_MESSAGES = 1 << 36
SIGNAL_EVENTS = 1 << 37
CREATE_PORTS = 1 << 38
CONNECT_PORTS = 1 << 39

CHILD_PAGES = 64
CHILD_SIM = 0x30000
CHILD_SIEF = 0x38000
SPURIOUS_VECTOR_REGISTER = 0xF0

Caller = Union[Root, Child]


def message_info(sint: int = 2, vp: int = 0, *, reserved: int = 0, reserved2: int = 0) -> bytes:
    """HV_PORT_INFO of a message port (TLFS 14.8.6)."""
    return struct.pack("<IIIIQ", MESSAGE, reserved, sint, vp, reserved2)


def event_info(
    sint: int = 2, vp: int = 0, base: int = 0, count: int = 16, *, reserved: int = 0, reserved2: int = 0
) -> bytes:
    """HV_PORT_INFO of an event port."""
    return struct.pack("<IIIIHHI", EVENT, reserved, sint, vp, base, count, reserved2)


def monitor_info(address: int, *, reserved: int = 0, reserved2: int = 0) -> bytes:
    """HV_PORT_INFO of a monitor port."""
    return struct.pack("<IIQQ", MONITOR, reserved, address, reserved2)


@dataclass
class Ports:
    """The calls of this chapter, by any partition; also what a child's SynIC needs."""

    root: Root

    # -- Calls; `caller` is the root where none is named --

    def create(
        self, partition: int, port: int, connecting: int, info: bytes, *, caller: Caller | None = None
    ) -> Status:
        """HvCreatePort, with padding that nobody cleared."""
        if self.root.current:
            data = struct.pack("<QIBBHQ", partition, port, 0, 0, 0xDEAD, connecting) + info + struct.pack("<Q", 0)
            return (caller or self.root).status(0x0095, data)
        data = struct.pack("<QIIQ", partition, port, 0xDEAD, connecting) + info
        return (caller or self.root).status(0x0057, data)

    def delete(self, partition: int, port: int, *, caller: Caller | None = None) -> Status:
        """HvDeletePort."""
        return (caller or self.root).status(DELETE_PORT, struct.pack("<QII", partition, port, 0xDEAD))

    def connect(
        self,
        partition: int,
        connection: int,
        port_partition: int,
        port: int,
        *,
        port_type: int = MESSAGE,
        info: int = 0,
        caller: Caller | None = None,
    ) -> Status:
        """HvConnectPort; only today's layout names the type."""
        data = struct.pack("<QIIQII", partition, connection, 0xDEAD00, port_partition, port, 0xDEAD)
        if self.root.current:
            data += struct.pack("<IIQQQQ", port_type, 0, info, 0xDEAD, 0xDEAD, 0)
            return (caller or self.root).status(0x0096, data)
        return (caller or self.root).status(0x0059, data + struct.pack("<Q", info))

    def disconnect(self, partition: int, connection: int, flags: int = 0, *, caller: Caller | None = None) -> Status:
        """HvDisconnectPort."""
        return (caller or self.root).fast(DISCONNECT_PORT, partition, connection | flags << 32)

    def post(
        self,
        caller: Caller,
        connection: int,
        payload: bytes = b"",
        *,
        message_type: int = 1,
        size: int | None = None,
    ) -> Status:
        """HvPostMessage."""
        header = struct.pack("<IIII", connection, 0xDEAD, message_type, len(payload) if size is None else size)
        return caller.status(POST_MESSAGE, header + payload.ljust(240, b"\xee"))

    def signal(self, caller: Caller, connection: int, flag: int = 0) -> Status:
        """HvSignalEvent."""
        return caller.fast(SIGNAL_EVENT, connection | flag << 32)

    def get_property(self, partition: int, port: int, code: int, *, caller: Caller | None = None) -> Status:
        """HvGetPortProperty; the value is in the output."""
        data = struct.pack("<QIIII", partition, port, 0xDEAD, code, 0xDEAD)
        return (caller or self.root).status(GET_PORT_PROPERTY, data)

    def set_property(self, partition: int, port: int, code: int, value: int, *, caller: Caller | None = None) -> Status:
        """HvSetPortProperty; the value is in the output too."""
        data = struct.pack("<QIIIIQ", partition, port, 0xDEAD, code, 0xDEAD, value)
        return (caller or self.root).status(SET_PORT_PROPERTY, data)

    def post_count(self, partition: int, port: int) -> int:
        """HvPortPropertyPostCount."""
        assert self.get_property(partition, port, 0) == Status.SUCCESS
        (count,) = self.root.output("<Q")
        return int(count)

    # -- Children --

    def child(self, vps: int = 1, *, privileges: int = 0, deposit: int = 128) -> Child:
        """Software in a new child that has these privileges too."""
        partition = self.root.partition(vps=vps, memory=CHILD_PAGES, deposit=deposit)
        self.grant(partition, privileges)
        return Child(self.root, partition)

    def grant(self, partition: int, privileges: int) -> None:
        """Give a child more privileges."""
        have = self.root.get_property(partition, PRIVILEGE_FLAGS)
        assert self.root.set_property(partition, PRIVILEGE_FLAGS, have | privileges) == Status.SUCCESS

    def enable(self, child: Child, vp: int = 0, sint: int = 2, value: int = 0x40) -> int:
        """Let a child's VP take messages and events at a source; its handle."""
        m = self.root.machine
        handle = self.root.handle(child.partition, vp)
        m.lapic_write(handle, SPURIOUS_VECTOR_REGISTER, 0x1FF)
        m.wrmsr(handle, SIMP, (CHILD_SIM + vp * 0x1000) | 1)
        m.wrmsr(handle, SIEFP, (CHILD_SIEF + vp * 0x1000) | 1)
        m.wrmsr(handle, SCONTROL, 1)
        m.wrmsr(handle, SINT0 + sint, value)
        return handle

    def mask(self, child: Child, vp: int = 0, sint: int = 2) -> None:
        """Mask a source of a child's VP."""
        self.root.machine.wrmsr(self.root.handle(child.partition, vp), SINT0 + sint, MASKED)

    def message(self, child: Child, vp: int = 0, sint: int = 2) -> Message:
        """What lies in a message slot of a child."""
        slot = self.root.machine.read(CHILD_SIM + vp * 0x1000 + sint * 256, 256, self.root.handle(child.partition, vp))
        message_type, size, flags, reserved, origin = struct.unpack_from("<IBBHQ", slot)
        assert reserved == 0
        return Message(message_type, size, flags, origin, slot[16:])

    def take(self, child: Child, vp: int = 0, sint: int = 2) -> Message:
        """Receive a message as TLFS 14.8.3 wants it."""
        m = self.root.machine
        handle = self.root.handle(child.partition, vp)
        message = self.message(child, vp, sint)
        gpa = CHILD_SIM + vp * 0x1000 + sint * 256
        m.write(gpa, bytes(4), handle)
        if m.read(gpa + 5, 1, handle)[0] & 1:
            m.wrmsr(handle, 0x40000084, 0)
        return message

    def flags(self, child: Child, vp: int = 0, sint: int = 2) -> set[int]:
        """The event flags that are set in a child."""
        handle = self.root.handle(child.partition, vp)
        area = int.from_bytes(self.root.machine.read(CHILD_SIEF + vp * 0x1000 + sint * 256, 256, handle), "little")
        return {flag for flag in range(2048) if area >> flag & 1}

    def interrupt(self, child: Child, vp: int = 0) -> int | None:
        """The vector that a child's VP takes now, and its end."""
        m = self.root.machine
        handle = self.root.handle(child.partition, vp)
        vector = m.child_interrupt(handle)
        if vector is not None:
            m.lapic_write(handle, 0xB0, 0)
        return vector
