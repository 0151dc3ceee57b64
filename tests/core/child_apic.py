# SPDX-License-Identifier: GPL-2.0-or-later
"""The local APIC of a child's VP (TLFS 13.2), as software on that VP and the parent see it."""

from __future__ import annotations

import struct

from root import Root

from qemu_hv._core import Exit, Status

ID = 0x020
VERSION = 0x030
TPR = 0x080
APR = 0x090
PPR = 0x0A0
EOI = 0x0B0
RRD = 0x0C0
LDR = 0x0D0
DFR = 0x0E0
SVR = 0x0F0
ISR = 0x100
TMR = 0x180
IRR = 0x200
ESR = 0x280
ICR_LOW = 0x300
ICR_HIGH = 0x310
LVT_TIMER = 0x320
LVT_THERMAL = 0x330
LVT_PERFORMANCE = 0x340
LVT_LINT0 = 0x350
LVT_LINT1 = 0x360
LVT_ERROR = 0x370
INITIAL_COUNT = 0x380
CURRENT_COUNT = 0x390
DIVIDE = 0x3E0
SELF_IPI = 0x3F0

MSR_APIC_BASE = 0x1B
MSR_TSC_DEADLINE = 0x6E0
MSR_X2APIC = 0x800

BASE_BOOT = 1 << 8
BASE_X2APIC = 1 << 10
BASE_ENABLE = 1 << 11
BASE_DEFAULT = 0xFEE00000

SVR_ENABLE = 1 << 8
LVT_MASKED = 1 << 16
TIMER_PERIODIC = 1 << 17
TIMER_DEADLINE = 2 << 17

FIXED, LOWEST, SMI, NMI, INIT, SIPI, EXTERNAL = 0, 1, 2, 4, 5, 6, 7
LOGICAL = 1 << 11
ICR_ASSERT = 1 << 14
ICR_LEVEL = 1 << 15
TO_SELF, TO_ALL, TO_OTHERS = 1 << 18, 2 << 18, 3 << 18

ERROR_SEND = 1 << 5
ERROR_RECEIVE = 1 << 6
ERROR_REGISTER = 1 << 7

CREATE_X2APIC = 1 << 22
"""Flag of HvCreatePartition in the later generation."""

ASSERT_INTERRUPT_2008R2 = 0x0055
CLEAR_INTERRUPT = 0x0056
ASSERT_INTERRUPT_CURRENT = 0x0094
NONE = 0xFFFFFFFF


class Apic:
    """A VP's local APIC, enabled by software unless told otherwise."""

    def __init__(self, root: Root, partition: int, index: int, *, enable: bool = True) -> None:
        self.root = root
        self.partition = partition
        self.index = index
        self.machine = root.machine
        self.vp = root.handle(partition, index)
        if enable:
            self.write(SVR, SVR_ENABLE | 0xFF)

    def read(self, offset: int) -> int:
        """A register."""
        return self.machine.lapic_read(self.vp, offset)

    def write(self, offset: int, value: int) -> None:
        """Write it."""
        self.machine.lapic_write(self.vp, offset, value)

    def vectors(self, first: int) -> list[int]:
        """What is set in one of the three 256-bit registers."""
        return [v for v in range(256) if self.read(first + v // 32 * 0x10) >> v % 32 & 1]

    @property
    def irr(self) -> list[int]:
        """Vectors that are requested."""
        return self.vectors(IRR)

    @property
    def isr(self) -> list[int]:
        """Vectors that are in service."""
        return self.vectors(ISR)

    @property
    def tmr(self) -> list[int]:
        """Vectors that are level-triggered."""
        return self.vectors(TMR)

    @property
    def line(self) -> bool:
        """Whether the processor is asked to take an interrupt."""
        return self.machine.line(self.vp, 0)

    def accept(self) -> int | None:
        """The processor takes an interrupt."""
        return self.machine.child_interrupt(self.vp)

    def eoi(self) -> None:
        """End the interrupt in service."""
        self.write(EOI, 0)

    def errors(self) -> int:
        """The error status, as software reads it."""
        self.write(ESR, 0)
        return self.read(ESR)

    def ipi(self, low: int, destination: int = 0) -> None:
        """Send an IPI in xAPIC mode."""
        self.write(ICR_HIGH, destination << 24)
        self.write(ICR_LOW, low | ICR_ASSERT)

    def request(self, vector: int, *, level: bool = False) -> None:
        """Have the parent request an interrupt; the VP's APIC ID is its index."""
        status = assert_interrupt(self.root, self.partition, vector, destination=self.index, level=level)
        assert status == Status.SUCCESS

    def take(self, vector: int) -> None:
        """Request an interrupt and have the processor take it."""
        self.request(vector)
        assert self.accept() == vector

    def rdmsr(self, index: int) -> int | None:
        """RDMSR; None for #GP."""
        result, value = self.machine.child_rdmsr(self.vp, index)
        assert result in (Exit.DONE, Exit.GP)
        return value if result == Exit.DONE else None

    def wrmsr(self, index: int, value: int) -> bool:
        """WRMSR; false for #GP."""
        result = self.machine.child_wrmsr(self.vp, index, value)
        assert result in (Exit.DONE, Exit.GP)
        return result == Exit.DONE

    def enter_x2apic(self) -> None:
        """Switch to x2APIC mode."""
        base = self.rdmsr(MSR_APIC_BASE)
        assert base is not None
        assert self.wrmsr(MSR_APIC_BASE, base | BASE_X2APIC)


def x2(offset: int) -> int:
    """The MSR of a register in x2APIC mode."""
    return MSR_X2APIC + offset // 0x10


def assert_interrupt(
    root: Root,
    partition: int,
    vector: int,
    kind: int = FIXED,
    *,
    destination: int = 0,
    level: bool = False,
    logical: bool = False,
    reserved: int = 0,
    vp: int = 0,
) -> Status:
    """HvAssertVirtualInterrupt (TLFS 13.5.1), with padding that nobody cleared."""
    code = ASSERT_INTERRUPT_CURRENT if root.current else ASSERT_INTERRUPT_2008R2
    control = level | logical << 1 | reserved
    return root.status(code, struct.pack("<QIIQII", partition, kind, control, destination, vector, 0xDEAD), vp=vp)


def clear_interrupt(root: Root, partition: int, *, vp: int = 0) -> Status:
    """HvClearVirtualInterrupt (TLFS 13.5.2)."""
    return root.fast(CLEAR_INTERRUPT, partition, vp=vp)
