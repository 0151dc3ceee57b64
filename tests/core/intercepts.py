# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests of intercepts and their messages share: a child with its parent's SynIC open, and the layouts."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from root import ALL_RIGHTS, INTERCEPT_SUSPEND, Root
from simulated_guest import Message

from qemu_hv._core import Exit, Machine, Register, Status

INSTALL_INTERCEPT = 0x004D
IO_PORT, MSR, CPUID, EXCEPTION = range(4)
NONE, READ, WRITE, EXECUTE = 0, 1, 2, 4
ACCESS = {IO_PORT: READ | WRITE, MSR: READ | WRITE, CPUID: EXECUTE, EXCEPTION: EXECUTE}
"""What has to be given to install an intercept (TLFS 9.1.1)."""

SINT0_VECTOR = 0x30
SUSPENDED = 1
TLB_FLUSH_INHIBIT = 2


def install_input(partition: int, access: int, kind: int, parameter: int = 0) -> bytes:
    """Input of HvInstallIntercept (TLFS 9.3.1)."""
    return struct.pack("<QIIQ", partition, access, kind, parameter)


@dataclass(frozen=True)
class Header:
    """What intercept messages begin with (TLFS 16.2.2)."""

    vp: int
    length: int
    access: int
    state: int
    cs: bytes
    rip: int
    rflags: int


class Parent(Root):
    """The root with the SynIC of both VPs open, and one active child with memory and VPs."""

    def __init__(
        self, generation: str, *, child_vps: int = 1, memory: int = 64, deposit: int = 256, **config: Any
    ) -> None:
        super().__init__(generation, **config)
        for vp in (0, 1):
            self.enable_synic(vp)
            self.set_sint(0, SINT0_VECTOR, vp)
        self.child = self.partition(vps=child_vps, memory=memory, deposit=deposit)
        self.vp = self.handle(self.child, 0)
        self.machine.clear_records()

    # -- Intercepts --

    def try_install(self, kind: int, parameter: int = 0, access: int | None = None, *, vp: int = 0) -> Status:
        """HvInstallIntercept on the child; by default with the access that installs."""
        access = ACCESS[kind] if access is None else access
        return self.status(INSTALL_INTERCEPT, install_input(self.child, access, kind, parameter), vp=vp)

    def install(self, kind: int, parameter: int = 0, access: int | None = None) -> None:
        """The same, which must succeed."""
        assert self.try_install(kind, parameter, access) == Status.SUCCESS

    def remove(self, kind: int, parameter: int = 0) -> None:
        """Remove an intercept."""
        self.install(kind, parameter, NONE)

    # -- Messages --

    def receiver(self) -> int | None:
        """The root's VP whose slot of SINT0 holds a message; there is at most one."""
        full = [vp for vp in (0, 1) if self.message(0, vp).type]
        assert len(full) <= 1
        return full[0] if full else None

    def receive(self) -> Message:
        """Take the one message that is there."""
        vp = self.receiver()
        assert vp is not None
        return self.take_message(0, vp)

    def go_on(self, vp: int = 0) -> None:
        """Clear the intercept suspend register: the child's VP may go on."""
        self.set_register(self.child, vp, INTERCEPT_SUSPEND, 0)

    def is_suspended(self, vp: int = 0) -> bool:
        """Whether an intercept suspends the child's VP."""
        return bool(self.get_register(self.child, vp, INTERCEPT_SUSPEND) & SUSPENDED)

    def access_code(self, access: int) -> int:
        """How messages of this generation write a kind of access."""
        return {READ: 0, WRITE: 1, EXECUTE: 2}[access] if self.current else access

    def io(self, port: int, size: int = 1, *, write: bool = False, value: int = 0) -> tuple[Exit, int]:
        """IN or OUT of the child."""
        return self.machine.io(self.vp, port, size, write, value)


def header_of(message: Message) -> Header:
    """The intercept header of a message."""
    vp, length, access, state = struct.unpack_from("<IBBH", message.payload)
    rip, rflags = struct.unpack_from("<QQ", message.payload, 24)
    return Header(vp, length, access, state, message.payload[8:24], rip, rflags)


def segment(selector: int, base: int = 0, limit: int = 0xFFFFF, attributes: int = 0xA09B) -> int:
    """A segment register as a number (TLFS 10.3.6)."""
    return int.from_bytes(struct.pack("<QIHH", base, limit, selector, attributes), "little")


def load_registers(machine: Machine, vp: int) -> dict[Register, int]:
    """Give every register that a message shows a value of its own."""
    values = {
        Register.Cs: segment(0x10, 0, 0xFFFFFFFF, 0xA09B),
        Register.Ds: segment(0x18, 0x1000, 0xFFFF, 0x93),
        Register.Es: segment(0x20, 0x2000, 0xFFFF, 0x93),
        Register.Ss: segment(0x28, 0x3000, 0xFFFF, 0x93),
        Register.Rip: 0xFFFF800000001234,
        Register.Rflags: 0x202,
        Register.Cr0: 0x80050033,
        Register.Efer: 0xD01,
    }
    for number in range(16):
        values[Register(Register.Rax + number)] = 0xA5A5000000000000 + number
    for name, value in values.items():
        machine.set_register(vp, name, value)
    return values


__all__ = [name for name in dir() if name.isupper()] + [
    "Header",
    "Parent",
    "header_of",
    "install_input",
    "load_registers",
    "segment",
    "ALL_RIGHTS",
]
