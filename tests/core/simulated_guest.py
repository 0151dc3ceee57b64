# SPDX-License-Identifier: GPL-2.0-or-later
"""An enlightened guest on the simulated platform, as the tests of the core drive it.

It knows the layouts of the specification by itself and takes nothing but numbers from the core.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from qemu_hv._core import HypercallResult, Machine, MessageType, Status

PAGE = 0x1000
ONES = (1 << 64) - 1
SELF = ONES
"""HV_PARTITION_ID_SELF."""

# Where this guest keeps its pages. The machine has 16 MiB of RAM in a 64 GiB GPA space.
INPUT = 0x10000
OUTPUT = 0x11000
HYPERCALL_PAGE = 0x20000
TSC_PAGE = 0x21000
SIM = 0x30000
SIEF = 0x40000
ASSIST = 0x50000
GPA_END = 1 << 36
RAM_END = 1 << 24

GUEST_OS_ID = 0x40000000
HYPERCALL = 0x40000001
VP_INDEX = 0x40000002
RESET = 0x40000003
VP_RUNTIME = 0x40000010
TIME_REF_COUNT = 0x40000020
REFERENCE_TSC = 0x40000021
EOI = 0x40000070
ICR = 0x40000071
TPR = 0x40000072
APIC_ASSIST_PAGE = 0x40000073
SCONTROL = 0x40000080
SVERSION = 0x40000081
SIEFP = 0x40000082
SIMP = 0x40000083
EOM = 0x40000084
SINT0 = 0x40000090
STIMER0_CONFIG = 0x400000B0
STIMER0_COUNT = 0x400000B1
GUEST_IDLE = 0x400000F0

MASKED = 1 << 16
AUTO_EOI = 1 << 17

FAST = 1 << 16

SWITCH_ADDRESS_SPACE = 0x0001
FLUSH_ADDRESS_SPACE = 0x0002
FLUSH_ADDRESS_LIST = 0x0003
NOTIFY_LONG_SPIN_WAIT = 0x0008
GET_PARTITION_ID = 0x0046
POST_MESSAGE = 0x005C
SIGNAL_EVENT = 0x005D

MESSAGE = 1
EVENT = 2
MONITOR = 3


def privilege_mask(*bits: int) -> int:
    """A mask with these bits set."""
    return sum(1 << bit for bit in bits)


def reps(count: int, start: int = 0) -> int:
    """The rep fields of a hypercall input value (TLFS 4.7)."""
    return count << 32 | start << 48


@dataclass(frozen=True)
class Message:
    """A message slot (TLFS 14.8.4), in the order of fields that deployed clients read."""

    type: int
    size: int
    flags: int
    origin: int
    payload: bytes

    @property
    def pending(self) -> bool:
        """The MessagePending flag (TLFS 14.8.3)."""
        return bool(self.flags & 1)


@dataclass(frozen=True)
class TimerMessage:
    """The payload of a timer expiration message (TLFS 16.4.1); times in 100 ns."""

    timer: int
    expiration: int
    delivery: int


class Guest:
    """A guest's view of a simulated machine. Methods name a VP where one acts."""

    def __init__(self, generation: str = "current", *, vps: int = 4, **config: Any) -> None:
        self.generation = generation
        self.machine = Machine(generation, vps=vps, **config)
        self.enable_hypercalls()

    def enable_hypercalls(self) -> None:
        """Set the guest's identity and show the hypercall page (TLFS 4.12)."""
        self.machine.wrmsr(0, GUEST_OS_ID, 0x8100_0000_0000_0001)
        self.machine.wrmsr(0, HYPERCALL, HYPERCALL_PAGE | 1)

    # -- Hypercalls --

    def call(
        self,
        input_value: int,
        data: bytes = b"",
        *,
        vp: int = 0,
        gpa: int = INPUT,
        output: int = OUTPUT,
        long_mode: bool = True,
    ) -> HypercallResult:
        """A hypercall with its parameters in memory, run to its end."""
        if data:
            self.machine.write(gpa, data)
        return self.machine.call(vp, input_value, gpa, output, long_mode=long_mode)

    def status(self, input_value: int, data: bytes = b"", **options: Any) -> Status:
        """The status of such a call, which must retire."""
        status = self.call(input_value, data, **options).status
        assert status is not None
        return status

    def fast(
        self,
        code: int,
        first: int = 0,
        second: int = 0,
        *,
        vp: int = 0,
        xmm: bytes = b"",
        long_mode: bool = True,
    ) -> Status:
        """The status of a call with its parameters in registers (TLFS 4.7, 4.7.1)."""
        result = self.machine.call(vp, code | FAST, first, second, xmm=xmm, long_mode=long_mode)
        assert result.status is not None
        return result.status

    def post(
        self,
        connection: int,
        payload: bytes = b"",
        *,
        message_type: int = 1,
        size: int | None = None,
        vp: int = 0,
    ) -> Status:
        """HvPostMessage (TLFS 14.9.7)."""
        header = struct.pack("<IIII", connection, 0, message_type, len(payload) if size is None else size)
        return self.status(POST_MESSAGE, header + payload.ljust(240, b"\xee"), vp=vp)

    def signal(self, connection: int, flag: int = 0, *, vp: int = 0) -> Status:
        """HvSignalEvent (TLFS 14.9.8) in its fast form."""
        return self.fast(SIGNAL_EVENT, connection | flag << 32, vp=vp)

    # -- SynIC --

    def enable_synic(self, vp: int = 0) -> None:
        """Show the VP's message and event flag pages and enable its SynIC (TLFS 14.6)."""
        self.machine.wrmsr(vp, SIMP, self.sim(vp) | 1)
        self.machine.wrmsr(vp, SIEFP, self.sief(vp) | 1)
        self.machine.wrmsr(vp, SCONTROL, 1)

    def set_sint(self, sint: int, value: int, vp: int = 0) -> None:
        """Program SINTx (TLFS 14.6.5)."""
        self.machine.wrmsr(vp, SINT0 + sint, value)

    @staticmethod
    def sim(vp: int) -> int:
        """GPA of the VP's message page."""
        return SIM + vp * PAGE

    @staticmethod
    def sief(vp: int) -> int:
        """GPA of the VP's event flag page."""
        return SIEF + vp * PAGE

    def message(self, sint: int, vp: int = 0) -> Message:
        """What lies in a message slot."""
        slot = self.machine.read(self.sim(vp) + sint * 256, 256)
        message_type, size, flags, reserved, origin = struct.unpack_from("<IBBHQ", slot)
        assert reserved == 0
        return Message(message_type, size, flags, origin, slot[16:])

    def timer_message(self, sint: int, vp: int = 0) -> TimerMessage:
        """What lies in a message slot, which must be a timer expiration message."""
        message = self.message(sint, vp)
        assert (message.type, message.size, message.origin) == (MessageType.TimerExpired, 24, 0)
        timer, reserved, expiration, delivery = struct.unpack_from("<IIQQ", message.payload)
        assert reserved == 0
        return TimerMessage(timer, expiration, delivery)

    def empty_slot(self, sint: int, vp: int = 0) -> bool:
        """Mark a message slot empty; whether the pending flag then asks for an end of message."""
        gpa = self.sim(vp) + sint * 256
        self.machine.write(gpa, bytes(4))
        return bool(self.machine.read(gpa + 5, 1)[0] & 1)

    def end_of_message(self, vp: int = 0) -> None:
        """Write EOM (TLFS 14.6.6)."""
        self.machine.wrmsr(vp, EOM, 0)

    def take_message(self, sint: int, vp: int = 0) -> Message:
        """Receive as TLFS 14.8.3 wants it: copy, mark empty, end the message if the flag says so."""
        message = self.message(sint, vp)
        if message.type and self.empty_slot(sint, vp):
            self.end_of_message(vp)
        return message

    def flags(self, sint: int, vp: int = 0) -> set[int]:
        """The event flags that are set (TLFS 14.8.5)."""
        area = int.from_bytes(self.machine.read(self.sief(vp) + sint * 256, 256), "little")
        return {flag for flag in range(2048) if area >> flag & 1}

    def open_port(
        self,
        port: int,
        *,
        connection: int | None = None,
        port_type: int = MESSAGE,
        sint: int = 2,
        vp: int | None = 0,
        base_flag: int = 0,
        flag_count: int = 0,
    ) -> None:
        """Have the operator create a port and connect it, which must succeed."""
        m = self.machine
        created = m.operator_create_port(port, port_type, sint, vp=vp, base_flag=base_flag, flag_count=flag_count)
        assert created == Status.SUCCESS
        connected = m.operator_connect_port(port if connection is None else connection, port)
        assert connected == Status.SUCCESS

    # -- Time --

    def enable_tsc_page(self) -> None:
        """Show the reference TSC page (TLFS 15.4.1)."""
        self.machine.wrmsr(0, REFERENCE_TSC, TSC_PAGE | 1)

    def time(self, vp: int = 0) -> int:
        """The reference counter (TLFS 15.2.1) in 100 ns."""
        return self.machine.rdmsr(vp, TIME_REF_COUNT)

    def page_time(self) -> int:
        """Reference time by the formula of TLFS 15.4.3, in 100 ns."""
        sequence, _, scale, offset = struct.unpack("<IIQq", self.machine.read(TSC_PAGE, 24))
        assert sequence not in (0, 0xFFFFFFFF)
        result: int = (self.machine.tsc * scale >> 64) + offset
        return result & ONES

    def set_timer(self, timer: int, config: int, count: int, vp: int = 0) -> None:
        """Program a timer as TLFS 15.3.1 wants it: count first, then the configuration."""
        self.machine.wrmsr(vp, STIMER0_COUNT + 2 * timer, count)
        self.machine.wrmsr(vp, STIMER0_CONFIG + 2 * timer, config)

    def timer_config(self, timer: int, vp: int = 0) -> int:
        """A timer's configuration register."""
        return self.machine.rdmsr(vp, STIMER0_CONFIG + 2 * timer)


def timer_value(
    sint: int = 0,
    *,
    enable: bool = True,
    periodic: bool = False,
    lazy: bool = False,
    auto_enable: bool = False,
    direct_vector: int | None = None,
) -> int:
    """A timer configuration value (TLFS 15.3.1, and direct mode of the current generation)."""
    value = enable | periodic << 1 | lazy << 2 | auto_enable << 3 | sint << 16
    if direct_vector is not None:
        value |= direct_vector << 4 | 1 << 12
    return value
