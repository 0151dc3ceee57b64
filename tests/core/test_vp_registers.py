# SPDX-License-Identifier: GPL-2.0-or-later
"""TLFS 10.2 to 10.4: HvGetVpRegisters, HvSetVpRegisters, and every register they name."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import pytest
from intercepts import Parent, segment
from root import (
    EXPLICIT_SUSPEND,
    GET_VP_REGISTERS,
    INTERCEPT_SUSPEND,
    ROOT_ID,
    SELF,
    SET_VP_REGISTERS,
    Child,
)
from simulated_guest import GUEST_OS_ID, ONES, OUTPUT, SCONTROL, SIMP, SINT0, STIMER0_CONFIG, STIMER0_COUNT, reps

from qemu_hv._core import Exit, HypercallResult, Register, Status

WIDE = 0x0123456789ABCDEF_FEDCBA9876543210
"""A value that fills 128 bits."""

STATS = [
    Register.StatsPartitionRetail,
    Register.StatsPartitionInternal,
    Register.StatsVpRetail,
    Register.StatsVpInternal,
]
READ_ONLY = [Register.VpRuntime, Register.VpIndex, Register.TimeRefCount, Register.Sversion, Register.MtrrCap]
LATER = [Register.DeliverabilityNotifications, Register.PendingEvent0]
NOT_IN_THE_TEXT = [0x2, 0x10000, 0x10001, 0x20012, 0x3001A, 0x50006, 0x60008, 0x70002, 0x8000F, 0x80018, 0x8007F]
NOT_IN_THE_TEXT += [
    0x90005,
    0x90014,
    0xA0015,
    0xB0008,
    0xC0020,
    0xC007F,
    0xC0080,
    0xD0000,
    0x100000,
    0x20080,
    0xFFFFFFFF,
]


@pytest.fixture
def parent(generation: str) -> Parent:
    """A parent with one child of one VP, which is suspended."""
    return Parent(generation)


def get_input(partition: int, index: int, names: list[int], padding: int = 0) -> bytes:
    """Input of HvGetVpRegisters."""
    return struct.pack(f"<QII{len(names)}I", partition, index, padding, *names)


def set_input(partition: int, index: int, values: list[tuple[int, int]], reserved: int = 0) -> bytes:
    """Input of HvSetVpRegisters, with padding that nobody cleared in its elements."""
    data = struct.pack("<QII", partition, index, reserved)
    for name, value in values:
        data += struct.pack("<III4x", name, 0xDEADBEEF, 0xDEADBEEF) + value.to_bytes(16, "little")
    return data


def get(parent: Parent, names: list[int], *, start: int = 0, index: int = 0) -> HypercallResult:
    """HvGetVpRegisters of the child."""
    return parent.call(GET_VP_REGISTERS | reps(len(names), start), get_input(parent.child, index, names))


def set_(parent: Parent, values: list[tuple[int, int]], *, start: int = 0, index: int = 0) -> HypercallResult:
    """HvSetVpRegisters of the child."""
    return parent.call(SET_VP_REGISTERS | reps(len(values), start), set_input(parent.child, index, values))


def value(parent: Parent, name: int) -> int:
    """A register of the child."""
    return parent.get_register(parent.child, 0, name)


def assign(parent: Parent, name: int, number: int) -> Status | None:
    """Set a register of the child."""
    return parent.try_set_register(parent.child, 0, name, number).status


def run_child(parent: Parent) -> int:
    """Let the child's VP run on its LP, without a root VP in its way; the LP."""
    parent.set_register(parent.child, 0, EXPLICIT_SUSPEND, 0)
    lp = parent.machine.lp_of(parent.vp)
    parent.machine.set_waits(lp, True)
    assert parent.machine.schedule(lp)[0] == parent.vp
    return lp


# -- Status codes, in their order --


@pytest.mark.parametrize("call", [GET_VP_REGISTERS, SET_VP_REGISTERS])
def test_partition_id(parent: Parent, call: int) -> None:
    """TLFS 10.4.3, 10.4.4."""
    data = set_input(99, 7, [(0xFFFFFFFF, ONES)])
    assert parent.status(call | reps(1), data) == Status.INVALID_PARTITION_ID


def test_own_registers_cannot_be_set(parent: Parent) -> None:
    """TLFS 10.4.4: by the parent only."""
    for partition in (SELF, ROOT_ID):
        data = set_input(partition, 0, [(Register.Rax, 1)])
        assert parent.status(SET_VP_REGISTERS | reps(1), data) == Status.ACCESS_DENIED


def test_own_registers_can_be_read(parent: Parent) -> None:
    """TLFS 10.4.3: by the partition that names itself, too."""
    child = Child(parent, parent.child)
    parent.machine.set_register(parent.vp, Register.Rbx, 77)
    for partition in (SELF, parent.child):
        data = get_input(partition, 0, [Register.Rbx, Register.VpIndex])
        assert child.status(GET_VP_REGISTERS | reps(2), data) == Status.SUCCESS
        assert child.output("<4Q") == (77, 0, 0, 0)
    data = get_input(ROOT_ID, 0, [Register.Rbx])
    assert child.status(GET_VP_REGISTERS | reps(1), data) == Status.ACCESS_DENIED


def test_root_reads_its_own(parent: Parent) -> None:
    """TLFS 10.4.3: so can the root, of any of its VPs; its local APIC is the machine's."""
    for partition in (SELF, ROOT_ID):
        for vp in (0, 1):
            for name, expected in ((Register.VpIndex, vp), (Register.Scontrol, 1), (Register.Cr8, 0)):
                assert parent.try_get_register(partition, vp, name, vp=vp).status == Status.SUCCESS
                assert parent.output("<QQ") == (expected, 0)


@pytest.mark.parametrize("call", [GET_VP_REGISTERS, SET_VP_REGISTERS])
def test_partition_state(parent: Parent, call: int) -> None:
    """TLFS 10.4.3, 10.4.4: the state comes before the VP's index and the names."""
    partition = parent.create_partition()
    data = set_input(partition, 7, [(0xFFFFFFFF, ONES)])
    assert parent.status(call | reps(1), data) == Status.INVALID_PARTITION_STATE
    parent.deposit(partition, 64)
    assert parent.initialize(partition) == Status.SUCCESS
    assert parent.status(call | reps(1), data) == Status.INVALID_VP_INDEX
    assert parent.finalize(partition) == Status.SUCCESS
    assert parent.status(call | reps(1), data) == Status.INVALID_PARTITION_STATE


@pytest.mark.parametrize("call", [GET_VP_REGISTERS, SET_VP_REGISTERS])
@pytest.mark.parametrize("index", [1, 64, 1023, 1024, 0xFFFFFFFE, 0xFFFFFFFF])
def test_vp_index(parent: Parent, call: int, index: int) -> None:
    """TLFS 10.4.3, 10.4.4: the VP comes before the names."""
    data = set_input(parent.child, index, [(0xFFFFFFFF, ONES)])
    assert parent.status(call | reps(1), data) == Status.INVALID_VP_INDEX


def test_vp_index_self(parent: Parent) -> None:
    """Later than 2.0a: an index that means the caller's own VP."""
    result = parent.try_get_register(SELF, 0xFFFFFFFE, Register.VpIndex, vp=1)
    if parent.current:
        assert result.status == Status.SUCCESS
        assert parent.output("<Q") == (1,)
    else:
        assert result.status == Status.INVALID_VP_INDEX


def test_padding_and_reserved_fields(parent: Parent) -> None:
    """TLFS 10.4.3 has padding in the header, 10.4.4 a reserved field; deployed parents leave both dirty."""
    data = get_input(parent.child, 0, [Register.Rax], 0xEEEEEE00)
    assert parent.status(GET_VP_REGISTERS | reps(1), data) == Status.SUCCESS
    for reserved in (1, 0x100, 1 << 31):
        data = set_input(parent.child, 0, [(Register.Rax, 1)], reserved)
        expected = Status.SUCCESS if parent.current else Status.INVALID_PARAMETER
        assert parent.status(SET_VP_REGISTERS | reps(1), data) == expected


@pytest.mark.parametrize("name", NOT_IN_THE_TEXT, ids=hex)
def test_unknown_names(parent: Parent, name: int) -> None:
    """TLFS 10.4.3, 10.4.4: the specified register name is invalid."""
    assert get(parent, [name]).status == Status.INVALID_PARAMETER
    assert assign(parent, name, 0) == Status.INVALID_PARAMETER


@pytest.mark.parametrize("name", STATS)
def test_statistics_page_registers(parent: Parent, name: Register) -> None:
    """TLFS 21.3.3: the base address, the enable bit, and reserved bits that are preserved."""
    assert parent.get_register(parent.child, 0, name) == 0
    assert assign(parent, name, 0x4567FFF) == Status.SUCCESS
    assert parent.get_register(parent.child, 0, name) == 0x4567FFF


@pytest.mark.parametrize("name", LATER)
def test_later_names(parent: Parent, name: Register) -> None:
    """They do not exist in 2008r2."""
    expected = Status.SUCCESS if parent.current else Status.INVALID_PARAMETER
    assert get(parent, [name]).status == expected
    assert assign(parent, name, 0) == expected


# -- Rep calls --


def test_list(parent: Parent) -> None:
    """TLFS 4.2: elements in their order, the list of names packed."""
    names = [Register.Rcx, Register.Rip, Register.Xmm3, Register.Rax]
    values = [1, 0x1000, WIDE, 4]
    assert set_(parent, list(zip(names, values, strict=True))).reps_completed == 4
    result = get(parent, list(names))
    assert (result.status, result.reps_completed) == (Status.SUCCESS, 4)
    assert [int.from_bytes(parent.machine.read(OUTPUT + 16 * n, 16), "little") for n in range(4)] == values


def test_error_in_the_middle(parent: Parent) -> None:
    """TLFS 4.2: what came before an error is done and counted, what follows is not."""
    values = [(Register.Rax, 5), (Register.Rbx, 6), (0x2, 0), (Register.Rcx, 7)]
    result = set_(parent, values)
    assert (result.status, result.reps_completed) == (Status.INVALID_PARAMETER, 2)
    assert [value(parent, name) for name in (Register.Rax, Register.Rbx, Register.Rcx)] == [5, 6, 0]
    result = get(parent, [Register.Rbx, 0x2, Register.Rax])
    assert (result.status, result.reps_completed) == (Status.INVALID_PARAMETER, 1)
    assert parent.output("<Q") == (6,)


def test_rep_start(parent: Parent) -> None:
    """TLFS 4.3: a call may begin in the middle of its list."""
    result = set_(parent, [(0x2, 0), (Register.Rax, 9)], start=1)
    assert (result.status, result.reps_completed) == (Status.SUCCESS, 2)
    assert value(parent, Register.Rax) == 9


def test_long_lists(parent: Parent) -> None:
    """TLFS 4.3: as long as pages allow; the call goes on where it yielded."""
    names = [Register.Rax + n % 16 for n in range(250)]
    result = get(parent, names)
    assert (result.status, result.reps_completed) == (Status.SUCCESS, 250)
    values = [(Register.Rax + n % 16, n) for n in range(127)]
    assert set_(parent, values).reps_completed == 127
    assert [value(parent, Register.Rax + n) for n in range(16)] == [112 + n if n < 15 else 111 for n in range(16)]


# -- Ownership: a running VP --


@pytest.mark.parametrize("name", [Register.Rax, EXPLICIT_SUSPEND])
def test_running_vp_has_to_stop_first(parent: Parent, name: int) -> None:
    """TLFS 10.4: registers of a VP that runs are read when it has left the guest; nobody waits for it."""
    m = parent.machine
    run_child(parent)
    m.clear_records()
    caller = 1 - m.lp_of(parent.vp)
    m.write(0x3000, get_input(parent.child, 0, [name]))
    result = m.hypercall(caller, GET_VP_REGISTERS | reps(1), 0x3000, OUTPUT)
    assert result.exit == Exit.RETRY
    assert m.kicks == [parent.vp]
    m.stopped(parent.vp)
    assert m.call(caller, GET_VP_REGISTERS | reps(1), 0x3000, OUTPUT).status == Status.SUCCESS


def test_explicit_suspend_is_synchronous(parent: Parent) -> None:
    """TLFS 10.3.1: when the call has set it, the VP has stopped, and does not run again until it is cleared."""
    m = parent.machine
    lp = run_child(parent)
    m.write(0x3000, set_input(parent.child, 0, [(EXPLICIT_SUSPEND, 1)]))
    assert m.hypercall(1 - lp, SET_VP_REGISTERS | reps(1), 0x3000, 0).exit == Exit.RETRY
    m.stopped(parent.vp)
    assert m.call(1 - lp, SET_VP_REGISTERS | reps(1), 0x3000, 0).status == Status.SUCCESS
    assert m.schedule(lp)[0] is None
    parent.set_register(parent.child, 0, EXPLICIT_SUSPEND, 0)
    assert m.schedule(lp)[0] == parent.vp


# -- 10.3.1 Suspend registers --


def test_new_vp_is_suspended(parent: Parent) -> None:
    """TLFS 10.4.1: explicitly, and not by an intercept."""
    assert value(parent, EXPLICIT_SUSPEND) == 1
    assert value(parent, INTERCEPT_SUSPEND) == 0


@pytest.mark.parametrize("number", [2, 3, 1 << 63, 1 << 64])
def test_explicit_suspend_reserved_bits(parent: Parent, number: int) -> None:
    """TLFS 10.3.1."""
    assert assign(parent, EXPLICIT_SUSPEND, number) == Status.INVALID_PARAMETER
    assert value(parent, EXPLICIT_SUSPEND) == 1


def test_intercept_suspend_can_only_be_cleared(parent: Parent) -> None:
    """TLFS 10.3.1: bits may be cleared together or independently; a clear one only the hypervisor sets."""
    for number in (1, 2, 3, 4, 1 << 63):
        assert assign(parent, INTERCEPT_SUSPEND, number) == Status.INVALID_PARAMETER
    for steps in ([0], [1, 0], [2, 0], [3, 2, 2, 0]):
        parent.machine.memory_intercept(parent.vp, 0x5000, 1, True)
        state = 3
        assert value(parent, INTERCEPT_SUSPEND) == state
        for step in steps:
            for raised in {1, 2, 3} - {n for n in range(4) if n & ~state == 0}:
                assert assign(parent, INTERCEPT_SUSPEND, raised) == Status.INVALID_PARAMETER
            assert assign(parent, INTERCEPT_SUSPEND, step) == Status.SUCCESS
            assert value(parent, INTERCEPT_SUSPEND) == step
            state = step


def test_both_reasons_must_go(parent: Parent) -> None:
    """TLFS 10.1.3: both suspension reasons must be cleared before a VP becomes active."""
    m = parent.machine
    lp = m.lp_of(parent.vp)
    m.set_waits(lp, True)
    m.triple_fault(parent.vp)
    for name in (EXPLICIT_SUSPEND, INTERCEPT_SUSPEND):
        m.set_waits(lp, True)
        assert m.schedule(lp)[0] is None
        parent.set_register(parent.child, 0, name, 0)
    m.set_waits(lp, True)
    assert m.schedule(lp)[0] == parent.vp


# -- Architectural registers --


@dataclass(frozen=True)
class Rule:
    """Values of a register that are taken, and some that are not."""

    name: Register
    good: list[int]
    bad: list[int] = field(default_factory=list)


HIGH = 1 << 64
NOT_CANONICAL = 1 << 47

RULES = [
    *[Rule(Register(Register.Rax + n), [0, ONES], [HIGH]) for n in range(16)],
    Rule(Register.Rip, [0, 0x7FFFFFFFFFFF, 0xFFFF800000000000], [NOT_CANONICAL, HIGH]),
    Rule(Register.Rflags, [2, 0x3F7FD7], [0, 2 | 1 << 3, 2 | 1 << 5, 2 | 1 << 15, 2 | 1 << 22, 2 | 1 << 63, 2 | HIGH]),
    *[Rule(Register(Register.Xmm0 + n), [0, WIDE]) for n in range(16)],
    *[Rule(Register(Register.FpMmx0 + n), [(1 << 80) - 1], [1 << 80, 1 << 127]) for n in range(8)],
    Rule(Register.FpControlStatus, [0x0000_01FF_0000_037F, WIDE & ~(0xFE << 40)], [1 << 41, 1 << 47]),
    Rule(Register.XmmControlStatus, [0xFFFF_0000_1F80 << 64], [1 << (64 + 16), 1 << (64 + 31)]),
    Rule(Register.Cr0, [0x10, 0x60000010, 0x80050033], [0, 0x11 | 1 << 6, 0x80000010, 0x20000011, 0x11 | 1 << 32]),
    Rule(Register.Cr2, [0, ONES], [HIGH]),
    Rule(Register.Cr3, [0, 0x1018, 0xFFFFFF000], [1 << 36, 1 << 63]),
    Rule(Register.Cr4, [0, 0x6F0, 0x3006F0], [1 << 13, 1 << 14, 1 << 24, 1 << 32]),
    Rule(Register.Cr8, [0, 15], [16, 1 << 63]),
    Rule(Register.Xfem, [1, 3], [0, 2, 5, 7, 8 | 1, 1 << 63 | 1]),
    *[Rule(name, [0, ONES], [HIGH]) for name in (Register.Dr0, Register.Dr1, Register.Dr2, Register.Dr3)],
    Rule(Register.Dr6, [0xFFFF0FF0, 0xFFFFEFFF], [0, 0xFFFF1FF0, 0x1FFFF0FF0]),
    Rule(Register.Dr7, [0x400, 0xFFFF2FFF], [0, 0x1400, 0x4400, 0x8400, 0x100000400]),
    *[
        Rule(
            Register(Register.Es + n),
            [segment(8), segment(0, 0, 0, 0), segment(0x10, 0, 0xFFFFFFFF, 0xC093), segment(0x10, 0, 0xFFFF, 0x93)],
            [
                *[segment(8, 0, 0xFFFFF, 0xA09B | 1 << bit) for bit in (8, 9, 10, 11)],
                segment(8, 0, 0xFFFFF000, 0xC093),
                segment(8, 0, 0x100000, 0x93),
                segment(8, NOT_CANONICAL, 0xFFFFF, 0x93),
            ],
        )
        for n in range(8)
    ],
    *[
        Rule(name, [WIDE & ~(0xFFFF << 112) & ~(1 << 111), 0xFFFF << 48], [NOT_CANONICAL << 64])
        for name in (Register.Idtr, Register.Gdtr)
    ],
    Rule(Register.Efer, [0, 0xD01, 0x4D01], [1 << 12, 2, 1 << 63]),
    *[
        Rule(name, [0, 0xFFFF800000000000], [NOT_CANONICAL, HIGH])
        for name in (Register.KernelGsBase, Register.SysenterRip, Register.SysenterRsp, Register.Lstar, Register.Cstar)
    ],
    Rule(Register.SysenterCs, [0, 0xFFFFFFFF], [1 << 32]),
    Rule(Register.Star, [0, ONES], [HIGH]),
    Rule(Register.Sfmask, [0, ONES], [HIGH]),
    Rule(Register.Pat, [0x0007040600070406], [2, 3 << 8, ONES]),
    Rule(Register.MtrrDefType, [0, 0xC06], [2, 0x100, 0x1000]),
    *[Rule(Register(Register.MtrrPhysBase0 + n), [0, 0x80000006], [2, 0x100, 1 << 36]) for n in range(8)],
    *[Rule(Register(Register.MtrrPhysMask0 + n), [0, 0xF80000800], [1, 1 << 36]) for n in range(8)],
    *[Rule(Register(Register.MtrrFix64k00000 + n), [0, 0x0606060606060606], [2, 7 << 56]) for n in range(11)],
    *[Rule(Register(Register.Ymm0Low + n), [0, WIDE]) for n in range(32)],
    Rule(Register.InterruptState, [0, 3], [4, 1 << 63]),
    Rule(Register.PendingInterruption, [0x800000D0017 & 0xFFFFFFFFFFFF0017, 0x00200001, 0x00020005], [0x00800007]),
    Rule(Register.InitialApicId, [0, 0xFF], [1 << 32, HIGH]),
    Rule(Register.ApicBase, [0xFEE00900], [ONES, 1 << 36]),
    Rule(Register.GuestOsId, [0, ONES], [HIGH]),
    Rule(Register.Hypercall, [0x20000], [1 << 36, HIGH]),
    Rule(Register.ApicAssistPage, [0, 0x21000], [HIGH]),
    Rule(Register.Tpr, [0, 0xFF], [0x100]),
    Rule(Register.Icr, [0x4500, 0x01000000_00004500], [1 << 12, 1 << 32]),
    *[Rule(Register(Register.Sint0 + n), [0x10000, 0x30, 0xFF], [1, 15]) for n in range(16)],
    Rule(Register.Scontrol, [0, 1], [HIGH]),
    Rule(Register.Siefp, [0, 0x22001], [HIGH]),
    Rule(Register.Simp, [0, 0x23001], [HIGH]),
    *[Rule(Register(Register.Stimer0Count + 2 * n), [0, 1 << 40], [HIGH]) for n in range(4)],
    *[Rule(Register(Register.Stimer0Config + 2 * n), [0, 0x20002], [1 << 40, HIGH]) for n in range(4)],
]

ONLY_WRITTEN = [Register.Eoi, Register.Eom]
OTHERS = [Register.ExplicitSuspend, Register.InterceptSuspend, Register.Tsc]


def test_every_register_has_a_rule() -> None:
    """No name of the table is forgotten here."""
    covered = {rule.name for rule in RULES} | set(READ_ONLY) | set(ONLY_WRITTEN) | set(STATS) | set(OTHERS) | set(LATER)
    assert covered == set(Register)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name.name)
def test_values(parent: Parent, rule: Rule) -> None:
    """TLFS 10.2.3, 10.4.4: what is read is what was written; reserved, fixed and superfluous bits are checked.

    TLFS 12.1.1: CR0.CD, CR3.PWT and CR3.PCD are supported.
    """
    for number in rule.good:
        assert assign(parent, rule.name, number) == Status.SUCCESS, hex(number)
        assert value(parent, rule.name) == number
    for number in rule.bad:
        assert assign(parent, rule.name, number) == Status.INVALID_PARAMETER, hex(number)
        assert value(parent, rule.name) == rule.good[-1]


@pytest.mark.parametrize("name", READ_ONLY)
def test_read_only(parent: Parent, name: Register) -> None:
    """TLFS 10.4.4: the specified register is read-only, whatever the value."""
    assert get(parent, [name]).status == Status.SUCCESS
    for number in (0, value(parent, name)):
        assert assign(parent, name, number) == Status.INVALID_PARAMETER


@pytest.mark.parametrize("name", ONLY_WRITTEN)
def test_write_only(parent: Parent, name: Register) -> None:
    """TLFS 13.2.3.1, 14.6.6: they read as zero."""
    assert assign(parent, name, 0) == Status.SUCCESS
    assert value(parent, name) == 0


@pytest.mark.parametrize("name", [Register.Rip, Register.Cr3, Register.Cs, Register.Xmm0, Register.Efer])
def test_processor_refuses(parent: Parent, name: Register) -> None:
    """TLFS 10.1.2: what only the processor knows to be wrong may be told at once."""
    parent.machine.refuse_register(name)
    assert assign(parent, name, 0) == Status.INVALID_PARAMETER


# -- 10.3.4 Pending interruption --


@pytest.mark.parametrize("kind", range(8))
@pytest.mark.parametrize("vector", [0, 2, 14, 31, 32, 255, 256, 0xFFFF])
def test_pending_interruption(parent: Parent, kind: int, vector: int) -> None:
    """TLFS 10.3.4: interrupts, NMI (vector 2), exceptions (vectors 0 to 31)."""
    valid = {0: vector <= 255, 2: vector == 2, 3: vector < 32}.get(kind, False)
    number = 1 | kind << 1 | 1 << 4 | vector << 16 | 0x1234 << 32
    assert assign(parent, Register.PendingInterruption, number) == (
        Status.SUCCESS if valid else Status.INVALID_PARAMETER
    )
    assert value(parent, Register.PendingInterruption) == (number if valid else 0)


@pytest.mark.parametrize("bit", range(5, 16))
def test_pending_interruption_reserved_bits(parent: Parent, bit: int) -> None:
    """TLFS 10.3.4; later bits 8:5 are the length of an instruction."""
    expected = Status.SUCCESS if parent.current and bit <= 8 else Status.INVALID_PARAMETER
    assert assign(parent, Register.PendingInterruption, 0x200001 | 1 << bit) == expected


def test_no_pending_interruption(parent: Parent) -> None:
    """TLFS 10.3.4: if none is pending the other fields are ignored."""
    assert assign(parent, Register.PendingInterruption, 0x200001) == Status.SUCCESS
    assert assign(parent, Register.PendingInterruption, ONES & ~1) == Status.SUCCESS
    assert value(parent, Register.PendingInterruption) == 0


def test_pending_event() -> None:
    """Later than 2.0a: another form of the same state, with the address of a page fault."""
    parent = Parent("current")
    event = 1 | 1 << 8 | 14 << 16 | 0x6 << 32 | 0xDEAD000 << 64
    assert assign(parent, Register.PendingEvent0, event) == Status.SUCCESS
    assert value(parent, Register.PendingInterruption) == 1 | 3 << 1 | 1 << 4 | 14 << 16 | 6 << 32
    assert value(parent, Register.Cr2) == 0xDEAD000
    assert value(parent, Register.PendingEvent0) == event
    interrupt = 1 | 5 << 1 | 0x41 << 8
    assert assign(parent, Register.PendingEvent0, interrupt) == Status.SUCCESS
    assert value(parent, Register.PendingInterruption) == 1 | 0x41 << 16
    assert value(parent, Register.PendingEvent0) == interrupt
    for bad in (1 | 1 << 1, 1 | 32 << 16, 1 | 1 << 4, 1 | 5 << 1 | 1 << 16):
        assert assign(parent, Register.PendingEvent0, bad) == Status.INVALID_PARAMETER
    assert assign(parent, Register.PendingEvent0, 0) == Status.SUCCESS
    assert value(parent, Register.PendingInterruption) == 0


# -- Registers that are synthetic MSRs --


def test_synthetic_msrs(parent: Parent) -> None:
    """TLFS 10.2.2: names and MSRs show the same."""
    m = parent.machine
    pairs = {
        Register.Scontrol: SCONTROL,
        Register.Simp: SIMP,
        Register.Sint3: SINT0 + 3,
        Register.Stimer0Count: STIMER0_COUNT,
        Register.Stimer1Config: STIMER0_CONFIG + 2,
        Register.GuestOsId: GUEST_OS_ID,
    }
    for number, (name, msr) in enumerate(pairs.items()):
        written = {Register.Sint3: 0x53, Register.Stimer1Config: 0x30000}.get(name, 0x40 + 2 * number)
        assert m.child_wrmsr(parent.vp, msr, written) == Exit.DONE
        assert value(parent, name) == written
        written = {Register.Sint3: 0x54, Register.Stimer1Config: 0x40000}.get(name, 0x60 + 2 * number)
        assert assign(parent, name, written) == Status.SUCCESS
        assert m.child_rdmsr(parent.vp, msr) == (Exit.DONE, written)


def test_privileges_bind_the_child_only(parent: Parent) -> None:
    """TLFS 5.2.3: what the child may not reach its parent still may."""
    assert parent.set_property(parent.child, 0x10000, 0) == Status.SUCCESS
    assert parent.machine.child_rdmsr(parent.vp, SCONTROL)[0] == Exit.GP
    assert assign(parent, Register.Scontrol, 1) == Status.SUCCESS
    assert value(parent, Register.Scontrol) == 1


def test_time_stamp_counter(parent: Parent) -> None:
    """TLFS 11.7: the VP's TSC goes on from the value set."""
    assert assign(parent, Register.Tsc, 1 << 40) == Status.SUCCESS
    first = value(parent, Register.Tsc)
    assert first == parent.machine.child_rdmsr(parent.vp, 0x10)[1] >= 1 << 40
    parent.machine.advance(10)
    assert value(parent, Register.Tsc) > first
    assert assign(parent, Register.Tsc, 1 << 64) == Status.INVALID_PARAMETER


def test_setting_the_tsc_moves_its_deadline() -> None:
    """Later than 2.0a: the APIC timer's deadline is a value of the VP's own TSC."""
    parent = Parent("current")
    m = parent.machine
    m.lapic_write(parent.vp, 0xF0, 0x1FF)
    m.lapic_write(parent.vp, 0x320, 0x40041)
    assert m.child_wrmsr(parent.vp, 0x6E0, value(parent, Register.Tsc) + 1_000_000_000_000) == Exit.DONE
    m.advance(10)
    assert m.child_interrupt(parent.vp) is None
    assert assign(parent, Register.Tsc, value(parent, Register.Tsc) + 1_000_000_000_001) == Status.SUCCESS
    m.advance(10)
    assert m.child_interrupt(parent.vp) == 0x41


def test_local_apic(parent: Parent) -> None:
    """TLFS 13.2: CR8 and TPR are one; setting the ICR or EOI sends nothing (TLFS 10.4.4)."""
    m = parent.machine
    assert assign(parent, Register.Cr8, 7) == Status.SUCCESS
    assert (value(parent, Register.Tpr), m.read_cr8(parent.vp)) == (0x70, 7)
    assert assign(parent, Register.Tpr, 0x25) == Status.SUCCESS
    assert value(parent, Register.Cr8) == 2
    m.lapic_write(parent.vp, 0xF0, 0x1FF)
    m.clear_records()
    assert assign(parent, Register.Icr, 0x44041) == Status.SUCCESS
    assert m.lapic_read(parent.vp, 0x300) == 0x44041
    assert m.child_interrupt(parent.vp) is None
    assert m.lines == []


def test_eoi(parent: Parent) -> None:
    """TLFS 10.4.4: the interrupt in service ends, and no message is sent, level-triggered though it is."""
    m = parent.machine
    m.lapic_write(parent.vp, 0xF0, 0x1FF)
    code = 0x0094 if parent.current else 0x0055
    data = struct.pack("<QQQII", parent.child, 1 << 32, 0, 0x51, 0)
    assert parent.status(code, data) == Status.SUCCESS
    assert m.child_interrupt(parent.vp) == 0x51
    in_service = 0x100 + (0x51 // 32) * 0x10
    assert m.lapic_read(parent.vp, in_service) == 1 << 0x51 % 32
    assert assign(parent, Register.Eoi, 0) == Status.SUCCESS
    assert m.lapic_read(parent.vp, in_service) == 0
    assert parent.receiver() is None


# -- 10.1.1 Initial state --


def test_initial_state(generation: str) -> None:
    """TLFS 10.1.5, 10.1.6, 10.4.1: identity, boot processor, processor reset."""
    parent = Parent(generation, child_vps=3)
    for index in range(3):
        read = {name: parent.get_register(parent.child, index, name) for name in Register if name not in LATER}
        assert (read[Register.VpIndex], read[Register.InitialApicId]) == (index, index)
        assert read[Register.ApicBase] == 0xFEE00800 | (0x100 if index == 0 else 0)
        assert (read[Register.ExplicitSuspend], read[Register.InterceptSuspend]) == (1, 0)
        assert read[Register.PendingInterruption] == 0
        assert read[Register.Rip] == 0xFFF0
        assert read[Register.Sint0] == 0x10000


def test_vp_is_as_new_in_its_next_life(parent: Parent) -> None:
    """TLFS 10.4.1: nothing is left of a VP that was deleted."""
    parent.machine.memory_intercept(parent.vp, 0x5000, 1, True)
    for name, number in ((Register.InitialApicId, 9), (Register.Tsc, 5), (Register.Rax, 7), (Register.Scontrol, 1)):
        assert assign(parent, name, number) == Status.SUCCESS
    assert parent.delete_vp(parent.child, 0) == Status.SUCCESS
    assert parent.create_vp(parent.child, 0) == parent.vp
    names = (Register.InitialApicId, Register.Rax, Register.Scontrol, Register.InterceptSuspend)
    assert [value(parent, name) for name in names] == [0, 0, 0, 0]
    assert value(parent, Register.ExplicitSuspend) == 1
    assert parent.machine.child_rdmsr(parent.vp, 0x10)[1] == parent.machine.tsc
