# SPDX-License-Identifier: GPL-2.0-or-later
"""TLFS 12.4.4 HvTranslateVirtualAddress, and 12.1.4: flushes of TLBs while a parent completes an instruction."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import pytest
from root import INTERCEPT_SUSPEND, READ, WRITE, Child, Root
from simulated_guest import (
    FLUSH_ADDRESS_LIST,
    FLUSH_ADDRESS_SPACE,
    GUEST_OS_ID,
    HYPERCALL_PAGE,
    INPUT,
    PAGE,
    SELF,
    SIMP,
    reps,
)

from qemu_hv._core import Exit, HypercallResult, Status

TRANSLATE = 0x0052
VALIDATE_READ, VALIDATE_WRITE, VALIDATE_EXECUTE = 1, 2, 4
PRIVILEGE_EXEMPT, SET_PAGE_TABLE_BITS, TLB_FLUSH_INHIBIT = 8, 0x10, 0x20
ALL_FLAGS = 0x3F

SUCCESS, NOT_PRESENT, PRIVILEGE_VIOLATION, INVALID_FLAGS = range(4)
UNMAPPED, NO_READ, NO_WRITE, ILLEGAL_OVERLAY = range(4, 8)
"""HV_TRANSLATE_GVA_RESULT_CODE (TLFS 12.3.4)."""

WALK_OK, WALK_NOT_PRESENT, WALK_NO_ACCESS, WALK_FLAGS, WALK_UNMAPPED, WALK_NO_READ, WALK_NO_WRITE = range(7)
"""What the simulated processor's walk answers."""

SUSPENDED, INHIBIT = 1, 2
"""Fields of HvRegisterInterceptSuspend."""
GVA = 0x7FFF_1234_5000
APIC_PAGE = 0xFEE00000
ICR_LOW, ICR_HIGH, STARTUP_IPI = 0x300, 0x310, 0x4608
SPACE_EX, LIST_EX = 0x0013, 0x0014
ALL_PROCESSORS, ALL_SPACES = 1, 2


@dataclass
class Result:
    """The output of the call."""

    code: int
    cache_type: int
    overlay: bool
    gpa_page: int


class Setup:
    """A root and a child of two VPs that can make hypercalls."""

    def __init__(self, generation: str) -> None:
        self.root = Root(generation)
        self.machine = self.root.machine
        self.partition = self.root.partition(vps=3, memory=64, deposit=200)
        self.child = Child(self.root, self.partition)
        self.vps = [self.root.handle(self.partition, index) for index in range(3)]

    def try_translate(self, flags: int = VALIDATE_READ, gva_page: int = GVA // PAGE, **ids: int) -> HypercallResult:
        """HvTranslateVirtualAddress, with padding that nobody cleared."""
        partition, index = ids.get("partition", self.partition), ids.get("index", 0)
        return self.root.call(TRANSLATE, struct.pack("<QIIQQ", partition, index, 0xDEAD, flags, gva_page))

    def translate(self, flags: int = VALIDATE_READ, gva_page: int = GVA // PAGE) -> Result:
        """The same, which must succeed."""
        assert self.try_translate(flags, gva_page).status == Status.SUCCESS
        code, rest, page = self.root.output("<IIQ")
        assert rest & ~0x1FF == 0
        return Result(code, rest & 0xFF, bool(rest & 0x100), page)

    def flush(self, vp: int, mask: int) -> Exit:
        """HvFlushVirtualAddressSpace of a VP of the child, executed once."""
        self.machine.write(INPUT, struct.pack("<QQQ", 0x1000, 0, mask), vp)
        return self.machine.hypercall(vp, FLUSH_ADDRESS_SPACE, INPUT).exit

    def inhibited(self, index: int = 0) -> bool:
        """Whether a VP has the bit."""
        return bool(self.root.get_register(self.partition, index, INTERCEPT_SUSPEND) & INHIBIT)

    def runs(self, index: int) -> bool:
        """Whether an LP would take the VP."""
        found = set()
        for lp in range(2):
            while (chosen := self.machine.schedule(lp)[0]) is not None:
                found.add(chosen)
                self.machine.set_waits(chosen, True)
                self.machine.stopped(chosen)
        for vp in found:
            self.machine.set_waits(vp, False)
        return self.vps[index] in found

    def resume(self) -> None:
        """Let all of the child's VPs run."""
        for index, vp in enumerate(self.vps):
            self.root.resume(self.partition, index)
            if self.machine.waits_for_sipi(vp):
                self.machine.lapic_write(self.vps[0], ICR_HIGH, index << 24)
                self.machine.lapic_write(self.vps[0], ICR_LOW, STARTUP_IPI)


@pytest.fixture
def setup(generation: str) -> Setup:
    """In each generation."""
    return Setup(generation)


# -- HvTranslateVirtualAddress --


def test_status_codes(setup: Setup) -> None:
    """Relation, state, VP, flags (TLFS 12.4.4)."""
    for partition, expected in (
        (0x1234, Status.INVALID_PARTITION_ID),
        (SELF, Status.ACCESS_DENIED),
        (setup.root.create_partition(), Status.INVALID_PARTITION_STATE),
    ):
        assert setup.try_translate(0, partition=partition).status == expected
    for index in (3, 1024, 0xFFFFFFFF):
        assert setup.try_translate(0, index=index).status == Status.INVALID_VP_INDEX


@pytest.mark.parametrize("flags", range(8))
def test_an_access_has_to_be_named(setup: Setup, flags: int) -> None:
    """At least one of the three (TLFS 12.3.4)."""
    expected = Status.SUCCESS if flags else Status.INVALID_PARAMETER
    for more in (0, PRIVILEGE_EXEMPT, SET_PAGE_TABLE_BITS, TLB_FLUSH_INHIBIT):
        assert setup.try_translate(flags | more).status == expected


@pytest.mark.parametrize("bit", range(6, 64))
def test_reserved_flags(setup: Setup, bit: int) -> None:
    """Are refused (TLFS 12.3.4)."""
    assert setup.try_translate(VALIDATE_READ | 1 << bit).status == Status.INVALID_PARAMETER


@pytest.mark.parametrize("cache_type", [0, 1, 4, 5, 6])
def test_success(setup: Setup, cache_type: int) -> None:
    """The page and the cache type of the walk."""
    setup.machine.set_gva(setup.vps[0], GVA, 0x31000, WALK_OK, cache_type)
    assert setup.translate() == Result(SUCCESS, cache_type, False, 0x31)
    # Another VP has its own tables.
    assert setup.try_translate(index=1).status == Status.SUCCESS
    assert setup.root.output("<I") == (NOT_PRESENT,)


@pytest.mark.parametrize(
    ("walk", "code", "page"),
    [
        (WALK_NOT_PRESENT, NOT_PRESENT, 0),
        (WALK_NO_ACCESS, PRIVILEGE_VIOLATION, 0),
        (WALK_FLAGS, INVALID_FLAGS, 0),
        (WALK_UNMAPPED, UNMAPPED, 0x777),
        (WALK_NO_READ, NO_READ, 0x777),
        (WALK_NO_WRITE, NO_WRITE, 0x777),
    ],
)
def test_failures(setup: Setup, walk: int, code: int, page: int) -> None:
    """TLFS 12.3.4: result codes. The GPA page is that of the table that could not be accessed, if that is the cause."""
    setup.machine.set_gva(setup.vps[0], GVA, 0x777000, walk)
    assert setup.translate() == Result(code, 0, False, page)


def test_table_on_an_overlay(setup: Setup) -> None:
    """A page table on an overlay page that refuses to be written (TLFS 8.1.3)."""
    setup.machine.set_gva(setup.vps[0], GVA, HYPERCALL_PAGE, WALK_NO_WRITE)
    assert setup.translate() == Result(ILLEGAL_OVERLAY, 0, False, HYPERCALL_PAGE // PAGE)


def test_page_beyond_all_addresses(setup: Setup) -> None:
    """Is not present, whatever its low bits look like."""
    setup.machine.set_gva(setup.vps[0], GVA, 0x31000)
    assert setup.translate(gva_page=GVA // PAGE | 1 << 52).code == NOT_PRESENT


def test_overlay_flag(setup: Setup) -> None:
    """TLFS 12.3.4: set where the VP would reach a page of the hypervisor's instead of its memory."""
    setup.machine.wrmsr(setup.vps[0], SIMP, 0x32000 | 1)
    for gpa, expected in (
        (0x31000, False),
        (0x32000, True),
        (HYPERCALL_PAGE, True),
        (APIC_PAGE, True),
        (0x999000, False),
    ):
        setup.machine.set_gva(setup.vps[0], GVA, gpa)
        assert setup.translate() == Result(SUCCESS, 6, expected, gpa // PAGE)


def test_running_vp_is_stopped_first(setup: Setup) -> None:
    """Its registers say what is translated: the call waits until the VP has left the guest."""
    setup.machine.set_gva(setup.vps[0], GVA, 0x31000)
    setup.resume()
    lp = setup.machine.lp_of(setup.vps[0])
    for vp in (0, 1, setup.vps[1], setup.vps[2]):
        setup.machine.set_waits(vp, True)
    assert setup.machine.schedule(lp)[0] == setup.vps[0]
    setup.machine.clear_records()
    setup.machine.write(INPUT, struct.pack("<QIIQQ", setup.partition, 0, 0, VALIDATE_READ, GVA // PAGE))
    assert setup.machine.hypercall(0, TRANSLATE, INPUT, INPUT + 0x1000).exit == Exit.RETRY
    assert setup.vps[0] in setup.machine.kicks
    setup.machine.stopped(setup.vps[0])
    assert setup.machine.hypercall(0, TRANSLATE, INPUT, INPUT + 0x1000).status == Status.SUCCESS


# -- 12.1.4 Restrictions on TLB flushes --


def test_translation_inhibits_when_asked(setup: Setup) -> None:
    """And only when it succeeds."""
    setup.machine.set_gva(setup.vps[0], GVA, 0x31000)
    setup.translate(VALIDATE_READ)
    assert not setup.inhibited()
    setup.translate(VALIDATE_READ | TLB_FLUSH_INHIBIT, gva_page=5)
    assert not setup.inhibited()
    setup.translate(VALIDATE_READ | TLB_FLUSH_INHIBIT)
    assert setup.inhibited()
    assert not setup.inhibited(1)


def test_memory_intercept_inhibits(setup: Setup) -> None:
    """With the message that the parent gets."""
    assert setup.machine.memory_intercept(setup.vps[0], 0x999000, READ, True) == Exit.INTERCEPT
    assert setup.inhibited()


def test_flush_waits_until_it_is_allowed(setup: Setup) -> None:
    """The caller is suspended in front of its call, and goes on when the parent clears the bit."""
    setup.resume()
    setup.machine.memory_intercept(setup.vps[0], 0x999000, WRITE, True)
    setup.machine.clear_records()
    assert setup.runs(1)
    assert setup.flush(setup.vps[1], 0b001) == Exit.INTERCEPT
    assert setup.machine.flushes == []
    assert not setup.runs(1)
    assert setup.runs(2)
    setup.root.set_register(setup.partition, 0, INTERCEPT_SUSPEND, SUSPENDED)
    assert setup.runs(1)
    assert not setup.runs(0)
    assert setup.flush(setup.vps[1], 0b001) == Exit.DONE
    assert [flush["vps"] for flush in setup.machine.flushes] == [[setup.vps[0]]]


def test_only_targets_matter(setup: Setup) -> None:
    """A flush of other VPs' TLBs is done at once."""
    setup.machine.memory_intercept(setup.vps[0], 0x999000, WRITE, True)
    assert setup.flush(setup.vps[1], 0b110) == Exit.DONE
    assert setup.flush(setup.vps[1], 0b111) == Exit.INTERCEPT


@pytest.mark.parametrize("code", [FLUSH_ADDRESS_SPACE, FLUSH_ADDRESS_LIST, SPACE_EX, LIST_EX])
def test_every_flush_waits(generation: str, code: int) -> None:
    """Whatever its form, and whether it names the VPs or all of them."""
    if generation == "2008r2" and code in (SPACE_EX, LIST_EX):
        assert Root(generation).status(code) == Status.INVALID_HYPERCALL_CODE
        return
    setup = Setup(generation)
    setup.machine.memory_intercept(setup.vps[0], 0x999000, WRITE, True)
    listed = reps(1) if code in (FLUSH_ADDRESS_LIST, LIST_EX) else 0
    named = struct.pack("<QQQ", 0x1000, 0, 1) if code < SPACE_EX else struct.pack("<QQQQQ", 0x1000, 0, 0, 1, 1)
    banks = 0 if code < SPACE_EX else 1 << 17
    all_vps = (
        struct.pack("<QQQ", 0x1000, ALL_PROCESSORS, 0)
        if code < SPACE_EX
        else named[:8] + struct.pack("<QQQQ", 1, 0, 1, 1)
    )
    for data in (named, all_vps):
        setup.machine.write(INPUT, data + bytes(8), setup.vps[1])
        assert setup.machine.hypercall(setup.vps[1], code | listed | banks, INPUT).exit == Exit.INTERCEPT
    assert setup.machine.flushes == []
    setup.root.set_register(setup.partition, 0, INTERCEPT_SUSPEND, 0)
    assert setup.machine.hypercall(setup.vps[1], code | listed | banks, INPUT).status == Status.SUCCESS
    assert len(setup.machine.flushes) == 1


def test_bad_flush_does_not_wait(setup: Setup) -> None:
    """Parameters are looked at first."""
    setup.machine.memory_intercept(setup.vps[0], 0x999000, WRITE, True)
    setup.machine.write(INPUT, struct.pack("<QQQ", 0x1000, 8, 1), setup.vps[1])
    assert setup.machine.hypercall(setup.vps[1], FLUSH_ADDRESS_SPACE, INPUT).status == Status.INVALID_PARAMETER


def test_two_that_inhibit(setup: Setup) -> None:
    """A caller that waits for both is suspended again when one is done."""
    setup.resume()
    for index in (0, 2):
        setup.machine.memory_intercept(setup.vps[index], 0x999000, WRITE, True)
    assert setup.flush(setup.vps[1], 0b101) == Exit.INTERCEPT
    setup.root.set_register(setup.partition, 0, INTERCEPT_SUSPEND, 0)
    assert setup.flush(setup.vps[1], 0b101) == Exit.INTERCEPT
    setup.root.set_register(setup.partition, 2, INTERCEPT_SUSPEND, 0)
    assert setup.flush(setup.vps[1], 0b101) == Exit.DONE


def test_deletion_ends_it(setup: Setup) -> None:
    """Nobody waits for a VP that has gone."""
    setup.resume()
    setup.machine.memory_intercept(setup.vps[0], 0x999000, WRITE, True)
    assert setup.flush(setup.vps[1], 0b001) == Exit.INTERCEPT
    assert not setup.runs(1)
    assert setup.root.delete_vp(setup.partition, 0) == Status.SUCCESS
    assert setup.runs(1)
    assert setup.flush(setup.vps[1], 0b011) == Exit.DONE


def test_root_never_waits(setup: Setup) -> None:
    """Its own VPs have no parent."""
    setup.machine.memory_intercept(setup.vps[0], 0x999000, WRITE, True)
    assert setup.root.status(FLUSH_ADDRESS_SPACE, struct.pack("<QQQ", 0, 3, 0)) == Status.SUCCESS


# -- Flushes of a child --


def test_flush_reaches_the_partitions_own_vps(setup: Setup) -> None:
    """A mask of a child's counts its own VPs, and all processors are its own (TLFS 12.4.2)."""
    other = setup.root.partition(vps=2)
    assert other != setup.partition
    setup.machine.clear_records()
    assert setup.flush(setup.vps[0], 0b110) == Exit.DONE
    data = struct.pack("<QQQ", 0, ALL_PROCESSORS | ALL_SPACES, 0)
    assert setup.child.status(FLUSH_ADDRESS_SPACE, data) == Status.SUCCESS
    assert [flush["vps"] for flush in setup.machine.flushes] == [setup.vps[1:], setup.vps]
    assert setup.machine.rdmsr(setup.vps[0], GUEST_OS_ID) != 0
