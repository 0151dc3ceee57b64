# SPDX-License-Identifier: GPL-2.0-or-later
"""TLFS 12.4.5 HvReadGpa and 12.4.6 HvWriteGpa: a child's memory as one of its VPs would access it."""

from __future__ import annotations

import struct

import pytest
from root import EXECUTE, READ, WRITE, Child, Root
from simulated_guest import GPA_END, HYPERCALL_PAGE, INPUT, PAGE, SELF, SIMP

from qemu_hv._core import Exit, HypercallResult, Status

READ_GPA, WRITE_GPA = 0x0053, 0x0054
BOTH = (READ_GPA, WRITE_GPA)
SUCCESS, UNMAPPED, READ_INTERCEPT, WRITE_INTERCEPT, ILLEGAL_OVERLAY = range(5)
"""HV_ACCESS_GPA_RESULT_CODE (TLFS 12.3.5)."""
WRITE_BACK = 6
APIC_PAGE = 0xFEE00000
APIC_VERSION, APIC_TPR, APIC_LDR = 0x30, 0x80, 0xD0
ID_NOBODY_HAS = 0x1234


class Setup:
    """A root and a child of two VPs with 64 pages of memory."""

    def __init__(self, generation: str) -> None:
        self.root = Root(generation)
        self.machine = self.root.machine
        self.partition = self.root.partition(vps=2, memory=64, deposit=200)
        self.child = Child(self.root, self.partition)
        self.vps = [self.root.handle(self.partition, index) for index in range(2)]

    def call(
        self, code: int, gpa: int, count: int = 8, data: bytes = b"", *, control: int = WRITE_BACK, **ids: int
    ) -> HypercallResult:
        """One of the two, with junk behind the data."""
        header = struct.pack("<QIIQQ", ids.get("partition", self.partition), ids.get("index", 0), count, gpa, control)
        return self.root.call(code, header + data.ljust(16, b"\xee") if code == WRITE_GPA else header)

    def read(self, gpa: int, count: int, index: int = 0) -> bytes | int:
        """What is read, or the code of a failure."""
        assert self.call(READ_GPA, gpa, count, index=index).status == Status.SUCCESS
        code, reserved, data = self.root.output("<II16s")
        assert reserved == 0
        assert data[count:] == bytes(16 - count)
        if code:
            assert data == bytes(16)
            return int(code)
        return bytes(data[:count])

    def write(self, gpa: int, data: bytes, index: int = 0) -> int:
        """The result's code."""
        assert self.call(WRITE_GPA, gpa, len(data), data, index=index).status == Status.SUCCESS
        code, reserved = self.root.output("<II")
        assert reserved == 0
        return int(code)


@pytest.fixture
def setup(generation: str) -> Setup:
    """In each generation."""
    return Setup(generation)


# -- Status codes --


@pytest.mark.parametrize("code", BOTH)
def test_whose_memory(setup: Setup, code: int) -> None:
    """The caller is the parent, the partition active, the VP there."""
    for partition, expected in (
        (ID_NOBODY_HAS, Status.INVALID_PARTITION_ID),
        (SELF, Status.ACCESS_DENIED),
        (setup.root.create_partition(), Status.INVALID_PARTITION_STATE),
    ):
        assert setup.call(code, 0, 0, partition=partition).status == expected
    for index in (2, 1024, 0xFFFFFFFF):
        assert setup.call(code, 0, 0, index=index).status == Status.INVALID_VP_INDEX


@pytest.mark.parametrize("code", BOTH)
@pytest.mark.parametrize(("count", "legal"), [(0, False), (1, True), (16, True), (17, False), (0xFFFFFFFF, False)])
def test_byte_count(setup: Setup, code: int, count: int, legal: bool) -> None:
    """1 to 16."""
    assert setup.call(code, 0x1000, count).status == (Status.SUCCESS if legal else Status.INVALID_PARAMETER)


@pytest.mark.parametrize("code", BOTH)
def test_page_boundary(setup: Setup, code: int) -> None:
    """Is not crossed."""
    for count in range(1, 17):
        assert setup.call(code, 0x2000 - count, count).status == Status.SUCCESS
        if count > 1:
            assert setup.call(code, 0x2001 - count, count).status == Status.INVALID_PARAMETER


@pytest.mark.parametrize("code", BOTH)
def test_end_of_the_space(setup: Setup, code: int) -> None:
    """A GPA beyond it is refused; in it there may be nothing."""
    assert setup.call(code, GPA_END - 16, 16).status == Status.SUCCESS
    assert setup.root.output("<I") == (UNMAPPED,)
    for gpa in (GPA_END, 1 << 52, (1 << 64) - 16):
        assert setup.call(code, gpa, 16).status == Status.INVALID_PARAMETER


@pytest.mark.parametrize("code", BOTH)
def test_cache_types(setup: Setup, code: int) -> None:
    """Those of TLFS 12.3.3 and no others; the rest of the control flags is reserved (TLFS 12.3.5)."""
    for control in range(256):
        expected = Status.SUCCESS if control in (0, 1, 4, 5, 6) else Status.INVALID_PARAMETER
        assert setup.call(code, 0x1000, control=control).status == expected
    for bit in range(8, 64):
        assert setup.call(code, 0x1000, control=WRITE_BACK | 1 << bit).status == Status.INVALID_PARAMETER


# -- Memory --


def test_read(setup: Setup) -> None:
    """Any number of bytes at any place in a page; the others are zero."""
    content = bytes(range(1, 33))
    setup.machine.write(0x5FE0, content, setup.vps[0])
    for count in range(1, 17):
        for offset in (0, 1, 3, 7, 32 - count):
            assert setup.read(0x5FE0 + offset, count) == content[offset : offset + count]


def test_write(setup: Setup) -> None:
    """Only the bytes that are counted."""
    for count in range(1, 17):
        setup.machine.write(0x5000, b"." * 32, setup.vps[0])
        assert setup.write(0x5007, bytes(range(1, count + 1))) == SUCCESS
        expected = b"." * 7 + bytes(range(1, count + 1)) + b"." * (25 - count)
        assert setup.machine.read(0x5000, 32, setup.vps[0]) == expected


def test_unmapped(setup: Setup) -> None:
    """Nothing there (TLFS 12.3.5)."""
    assert setup.read(0x999000, 4) == UNMAPPED
    assert setup.write(0x999000, b"1234") == UNMAPPED


def test_rights(setup: Setup) -> None:
    """A missing right is told with the code of its access, not with an intercept (TLFS 12.3.5)."""
    for rights in (0, READ, READ | EXECUTE, READ | WRITE):
        setup.root.try_map(setup.partition, 0x100, [0x700], rights)
        setup.machine.write(0x700000, b"data")
        assert setup.read(0x100000, 4) == (b"data" if rights & READ else READ_INTERCEPT)
        assert setup.write(0x100000, b"DATA") == (SUCCESS if rights & WRITE else WRITE_INTERCEPT)
    assert setup.machine.read(0x700000, 4) == b"DATA"
    assert setup.root.get_register(setup.partition, 0, 1) == 0


def test_no_access_of_today() -> None:
    """Memory that is mapped without access and without a page."""
    setup = Setup("current")
    setup.root.try_map(setup.partition, 0x100, [0], 0x10000)
    assert setup.read(0x100000, 4) == READ_INTERCEPT
    assert setup.write(0x100000, b"DATA") == WRITE_INTERCEPT


# -- Overlays --


def test_overlay(setup: Setup) -> None:
    """The access is directed to the overlay page, not to what is under it."""
    setup.machine.write(0x32100, b"under", setup.vps[0])
    setup.machine.wrmsr(setup.vps[0], SIMP, 0x32001)
    assert setup.read(0x32100, 5) == bytes(5)
    assert setup.write(0x32100, b"over!") == SUCCESS
    assert setup.machine.read(0x32100, 5, setup.vps[1]) == b"over!"
    setup.machine.wrmsr(setup.vps[0], SIMP, 0)
    assert setup.read(0x32100, 5) == b"under"


def test_hypercall_page(setup: Setup) -> None:
    """May be read; a write is refused by its code."""
    content = setup.machine.read(HYPERCALL_PAGE, 8, setup.vps[0])
    assert setup.read(HYPERCALL_PAGE, 8) == content
    assert setup.write(HYPERCALL_PAGE, bytes(8)) == ILLEGAL_OVERLAY
    assert setup.machine.read(HYPERCALL_PAGE, 8, setup.vps[0]) == content


def test_apic_page(setup: Setup) -> None:
    """The registers of the named VP's local APIC (TLFS 12.4.5)."""
    version = setup.machine.lapic_read(setup.vps[0], APIC_VERSION)
    assert version
    assert setup.read(APIC_PAGE + APIC_VERSION, 4) == struct.pack("<I", version)
    assert setup.read(APIC_PAGE + APIC_VERSION + 2, 1) == struct.pack("<I", version)[2:3]
    for index, value in ((0, 0x20), (1, 0x40)):
        assert setup.write(APIC_PAGE + APIC_TPR, struct.pack("<I", value), index) == SUCCESS
    assert [setup.machine.lapic_read(vp, APIC_TPR) for vp in setup.vps] == [0x20, 0x40]
    assert setup.read(APIC_PAGE + APIC_TPR, 4, 1) == struct.pack("<I", 0x40)


def test_apic_page_takes_whole_registers(setup: Setup) -> None:
    """Part of a register cannot be written (TLFS 13.2.2)."""
    setup.write(APIC_PAGE + APIC_TPR, struct.pack("<I", 0x20))
    assert setup.write(APIC_PAGE + APIC_TPR, b"\x30") == ILLEGAL_OVERLAY
    assert setup.write(APIC_PAGE + APIC_TPR + 2, bytes(4)) == ILLEGAL_OVERLAY
    assert setup.machine.lapic_read(setup.vps[0], APIC_TPR) == 0x20


def test_apic_page_in_ascending_order(setup: Setup) -> None:
    """A longer access is made of accesses to registers."""
    setup.write(APIC_PAGE + APIC_LDR, struct.pack("<I", 0x5A000000))
    data = setup.read(APIC_PAGE + APIC_LDR, 16)
    assert isinstance(data, bytes)
    assert data[:4] == struct.pack("<I", 0x5A000000)


def test_running_vp_is_stopped_first(setup: Setup) -> None:
    """The call waits until the VP has left the guest."""
    setup.root.resume(setup.partition, 0)
    for vp in (0, 1):
        setup.machine.set_waits(vp, True)
    assert setup.machine.schedule(setup.machine.lp_of(setup.vps[0]))[0] == setup.vps[0]
    setup.machine.clear_records()
    setup.machine.write(INPUT, struct.pack("<QIIQQ", setup.partition, 0, 4, 0x1000, WRITE_BACK))
    assert setup.machine.hypercall(0, READ_GPA, INPUT, INPUT + PAGE).exit == Exit.RETRY
    assert setup.vps[0] in setup.machine.kicks
    setup.machine.stopped(setup.vps[0])
    assert setup.machine.hypercall(0, READ_GPA, INPUT, INPUT + PAGE).status == Status.SUCCESS
