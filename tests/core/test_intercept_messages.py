# SPDX-License-Identifier: GPL-2.0-or-later
"""Chapter 16 of the TLFS, and 14.2.6: messages of intercepts, byte by byte, and how they reach the parent."""

from __future__ import annotations

import struct

import pytest
from intercepts import (
    CPUID,
    EXCEPTION,
    EXECUTE,
    IO_PORT,
    MSR,
    READ,
    TLB_FLUSH_INHIBIT,
    WRITE,
    Header,
    Parent,
    header_of,
    load_registers,
    segment,
)
from root import INTERCEPT_SUSPEND
from simulated_guest import MASKED, SCONTROL, SIMP

from qemu_hv._core import Exit, MessageType, Register, Status

RIP = 0xFFFF800000001234
CODE = bytes(range(0x60, 0x70))
LONG_MODE_STATE = 1 << 2 | 1 << 3 | 1 << 4
"""CPL 0, CR0.PE, CR0.AM as in load_registers(), EFER.LMA."""


@pytest.fixture
def parent(generation: str) -> Parent:
    """A parent of a child whose registers all have different values."""
    parent = Parent(generation)
    load_registers(parent.machine, parent.vp)
    parent.machine.set_register(parent.vp, Register.Cr0, 0x80050033)
    parent.machine.set_code(parent.vp, CODE)
    return parent


def cs_of(parent: Parent) -> bytes:
    """CS as a message shows it."""
    return parent.machine.register(parent.vp, Register.Cs).to_bytes(16, "little")


def expected_header(parent: Parent, length: int, access: int) -> Header:
    """The header of an intercept of VP 0 with the registers of the fixture."""
    return Header(0, length, parent.access_code(access), LONG_MODE_STATE, cs_of(parent), RIP, 0x202)


def gprs(parent: Parent) -> bytes:
    """RAX to R15 in the order of their register names."""
    return b"".join(
        (parent.machine.register(parent.vp, Register.Rax + n) & (2**64 - 1)).to_bytes(8, "little") for n in range(16)
    )


def register_bytes(parent: Parent, name: Register) -> bytes:
    """A segment register as it lies in a message."""
    return parent.machine.register(parent.vp, name).to_bytes(16, "little")


# -- 16.5.1 CPUID --


def test_cpuid_message(parent: Parent) -> None:
    """TLFS 16.2.1, 16.2.2, 16.5.1: registers and default results, in the order A, C, D, B."""
    parent.install(CPUID, 0x80000002)
    native = (0x11111111, 0x22222222, 0x33333333, 0x44444444)
    exit_, default = parent.machine.child_cpuid(parent.vp, 0x80000002, 0, native, length=3)
    assert exit_ == Exit.INTERCEPT
    message = parent.receive()
    assert (message.type, message.size, message.origin) == (MessageType.X64CpuidIntercept, 104, parent.child)
    assert header_of(message) == expected_header(parent, 3, EXECUTE)
    rax, rcx, rdx, rbx = (0xA5A5000000000000 + n for n in range(4))
    eax, ebx, ecx, edx = default
    assert default == native
    assert struct.unpack_from("<8Q", message.payload, 40) == (rax, rcx, rdx, rbx, eax, ecx, edx, ebx)


# -- 16.5.2 MSR --


@pytest.mark.parametrize("access", [READ, WRITE])
def test_msr_message(parent: Parent, access: int) -> None:
    """TLFS 16.5.2: number, then RDX before RAX."""
    parent.install(MSR)
    m = parent.machine
    if access == READ:
        assert m.child_rdmsr(parent.vp, 0xC0001234)[0] == Exit.INTERCEPT
    else:
        assert m.child_wrmsr(parent.vp, 0xC0001234, 5) == Exit.INTERCEPT
    message = parent.receive()
    assert (message.type, message.size, message.origin) == (MessageType.X64MsrIntercept, 64, parent.child)
    assert header_of(message) == expected_header(parent, 2, access)
    number, reserved, rdx, rax = struct.unpack_from("<IIQQ", message.payload, 40)
    assert (number, reserved, rdx, rax) == (0xC0001234, 0, 0xA5A5000000000002, 0xA5A5000000000000)


# -- 16.5.3 I/O ports --


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("write", [False, True])
def test_io_message(parent: Parent, size: int, write: bool) -> None:
    """TLFS 16.5.3: of a plain IN or OUT everything from offset 72 on is zero."""
    parent.install(IO_PORT, 0xCF8)
    assert parent.machine.io(parent.vp, 0xCF8, size, write, 7, length=2)[0] == Exit.INTERCEPT
    message = parent.receive()
    assert (message.type, message.size, message.origin) == (MessageType.X64IoPortIntercept, 128, parent.child)
    assert header_of(message) == expected_header(parent, 2, WRITE if write else READ)
    port, info, count, reserved, rax = struct.unpack_from("<HBBIQ", message.payload, 40)
    assert (port, info, count, reserved, rax) == (0xCF8, size, 0, 0, 0xA5A5000000000000)
    assert message.payload[56:128] == bytes(72)


@pytest.mark.parametrize("rep", [False, True])
def test_string_io_message(parent: Parent, rep: bool) -> None:
    """TLFS 16.2.4, 16.5.3: string forms add instruction bytes, segments and registers."""
    parent.install(IO_PORT, 0x1F0)
    exit_, _ = parent.machine.io(parent.vp, 0x1F0, 2, True, string=True, rep=rep, length=0)
    assert exit_ == Exit.INTERCEPT
    message = parent.receive()
    assert header_of(message).length == 0
    port, info, count = struct.unpack_from("<HBB", message.payload, 40)
    assert (port, info, count) == (0x1F0, 2 | 8 | (16 if rep else 0), 16)
    assert message.payload[56:72] == CODE
    assert message.payload[72:88] == register_bytes(parent, Register.Ds)
    assert message.payload[88:104] == register_bytes(parent, Register.Es)
    rcx, rsi, rdi = struct.unpack_from("<QQQ", message.payload, 104)
    assert (rcx, rsi, rdi) == (0xA5A5000000000001, 0xA5A5000000000006, 0xA5A5000000000007)


# -- 16.5.4 Exceptions --


@pytest.mark.parametrize("error_code", [None, 0, 0x1234])
def test_exception_message(parent: Parent, error_code: int | None) -> None:
    """TLFS 16.2.5, 16.5.4."""
    parent.install(EXCEPTION, 14)
    assert parent.machine.exception(parent.vp, 14, error_code, 0xDEADBEEF000) == Exit.INTERCEPT
    message = parent.receive()
    assert (message.type, message.size, message.origin) == (MessageType.X64ExceptionIntercept, 240, parent.child)
    assert header_of(message) == expected_header(parent, 0, EXECUTE)
    vector, flags, count, code, parameter, reserved = struct.unpack_from("<HBBIQQ", message.payload, 40)
    assert (vector, flags, count) == (14, int(error_code is not None), 16)
    assert (code, parameter, reserved) == (error_code or 0, 0xDEADBEEF000, 0)
    assert message.payload[64:80] == CODE
    assert message.payload[80:96] == register_bytes(parent, Register.Ds)
    assert message.payload[96:112] == register_bytes(parent, Register.Ss)
    assert message.payload[112:240] == gprs(parent)


def test_nested_exception_has_no_instruction_bytes(parent: Parent) -> None:
    """TLFS 16.5.4: not while an interruption is delivered."""
    parent.install(EXCEPTION, 11)
    parent.machine.set_register(parent.vp, Register.PendingInterruption, 0x000D0017)
    assert parent.machine.exception(parent.vp, 11, 0x10) == Exit.INTERCEPT
    message = parent.receive()
    assert header_of(message).state == LONG_MODE_STATE | 1 << 6
    assert message.payload[43] == 0
    assert message.payload[64:80] == bytes(16)


# -- 16.3 Memory --


def memory_fields(parent: Parent, payload: bytes) -> tuple[int, int, int, int, int]:
    """Flags, instruction byte count, cache type, GVA, GPA."""
    if parent.current:
        cache, count, flags, _tpr, reserved, gva, gpa = struct.unpack_from("<IBBBBQQ", payload, 40)
    else:
        reserved, flags, count, cache, gva, gpa = struct.unpack_from("<HBBIQQ", payload, 40)
    assert reserved == 0
    return flags, count, cache, gva, gpa


@pytest.mark.parametrize("access", [READ, WRITE, EXECUTE])
@pytest.mark.parametrize("unmapped", [False, True])
def test_memory_message(parent: Parent, access: int, unmapped: bool) -> None:
    """TLFS 16.2.2, 16.2.6, 16.3: both kinds have one layout; the GVA's page tells the cache type."""
    parent.machine.set_gva(parent.vp, 0x7F0000001000, 0x12345000, cache_type=1)
    exit_ = parent.machine.memory_intercept(parent.vp, 0x12345678, access, unmapped, 0x7F0000001678)
    assert exit_ == Exit.INTERCEPT
    message = parent.receive()
    assert message.type == (MessageType.UnmappedGpa if unmapped else MessageType.GpaIntercept)
    assert (message.size, message.origin) == (80 if parent.current else 240, parent.child)
    assert header_of(message) == expected_header(parent, 0, access)
    valid = 3 if parent.current else 1
    assert memory_fields(parent, message.payload) == (valid, 16, 1, 0x7F0000001678, 0x12345678)
    assert message.payload[64:80] == CODE
    if not parent.current:
        assert message.payload[80:96] == register_bytes(parent, Register.Ds)
        assert message.payload[96:112] == register_bytes(parent, Register.Ss)
        assert message.payload[112:240] == gprs(parent)


def test_memory_message_of_a_page_table(parent: Parent) -> None:
    """TLFS 16.2.6, 16.3: no GVA, write-back."""
    assert parent.machine.memory_intercept(parent.vp, 0x5000, READ, True) == Exit.INTERCEPT
    assert memory_fields(parent, parent.receive().payload) == (0, 16, 6, 0, 0x5000)


def test_memory_message_while_an_interruption_is_delivered(parent: Parent) -> None:
    """TLFS 16.3: without instruction bytes."""
    m = parent.machine
    assert m.memory_intercept(parent.vp, 0x5000, WRITE, False, 0x5000, interruption_pending=True) == Exit.INTERCEPT
    message = parent.receive()
    assert memory_fields(parent, message.payload)[1] == 0
    assert message.payload[64:80] == bytes(16)


@pytest.mark.parametrize("count", [0, 1, 7, 15])
def test_fewer_instruction_bytes(parent: Parent, count: int) -> None:
    """TLFS 16.3: the next page may be out of reach."""
    parent.machine.set_code(parent.vp, CODE[:count])
    assert parent.machine.memory_intercept(parent.vp, 0x5000, WRITE, False, 0x5000) == Exit.INTERCEPT
    message = parent.receive()
    assert memory_fields(parent, message.payload)[1] == count
    assert message.payload[64:80] == CODE[:count].ljust(16, b"\0")


def test_task_priority_in_memory_message() -> None:
    """Later than 2.0a: the task priority class is in the message."""
    parent = Parent("current")
    parent.machine.write_cr8(parent.vp, 9)
    assert parent.machine.memory_intercept(parent.vp, 0x5000, READ, True) == Exit.INTERCEPT
    assert parent.receive().payload[46] == 9


def test_memory_intercept_inhibits_tlb_flushes(parent: Parent) -> None:
    """TLFS 12.1.4: only memory messages do."""
    parent.machine.triple_fault(parent.vp)
    assert parent.get_register(parent.child, 0, INTERCEPT_SUSPEND) == 1
    parent.machine.memory_intercept(parent.vp, 0x5000, READ, True)
    assert parent.get_register(parent.child, 0, INTERCEPT_SUSPEND) == 1 | TLB_FLUSH_INHIBIT


def test_memory_in_the_root(parent: Parent) -> None:
    """TLFS 11.8: the machine's own bus where nothing is mapped, #MC where a right is missing."""
    assert parent.machine.memory_intercept(0, 1 << 34, READ, True) == Exit.NATIVE
    assert parent.machine.memory_intercept(0, 0x5000, WRITE, False) == Exit.MC


# -- 16.5.5 to 16.5.9 --


def test_unrecoverable_exception_message(parent: Parent) -> None:
    """TLFS 16.5.8."""
    assert parent.machine.triple_fault(parent.vp) == Exit.INTERCEPT
    message = parent.receive()
    assert (message.type, message.size) == (MessageType.UnrecoverableException, 40)
    assert header_of(message) == expected_header(parent, 0, EXECUTE)


def test_invalid_register_value_message(parent: Parent) -> None:
    """TLFS 16.5.7."""
    assert parent.machine.invalid_vp_state(parent.vp) == Exit.INTERCEPT
    message = parent.receive()
    assert (message.type, message.size, message.origin) == (MessageType.InvalidVpRegisterValue, 8, parent.child)
    assert message.payload[:8] == bytes(8)


def test_ferr_message(parent: Parent) -> None:
    """TLFS 16.5.6: the type's number is another one today; in the root it is ignored (TLFS 9.1.2)."""
    m = parent.machine
    m.clear_records()
    assert m.ferr_asserted(parent.vp) == Exit.INTERCEPT
    message = parent.receive()
    expected = MessageType.X64FerrAsserted if parent.current else MessageType.FerrAsserted
    assert (message.type, message.size, message.origin) == (expected, 8, parent.child)
    assert message.payload[:8] == bytes(8)
    assert m.kicks == [parent.vp]
    resets = m.resets
    assert m.ferr_asserted(0) == Exit.NATIVE
    assert m.resets == resets


@pytest.mark.parametrize(("code", "parameter"), [(1, 0x7B), (2, 0x9)])
def test_unsupported_feature_message(parent: Parent, code: int, parameter: int) -> None:
    """TLFS 9.2.4, 16.5.9."""
    assert parent.machine.unsupported_feature(parent.vp, code, parameter) == Exit.INTERCEPT
    message = parent.receive()
    assert (message.type, message.size, message.origin) == (MessageType.UnsupportedFeature, 16, parent.child)
    assert struct.unpack_from("<IIQ", message.payload) == (0, code, parameter)


def test_fatal_in_the_root(parent: Parent) -> None:
    """TLFS 9.1.2: the system is restarted."""
    m = parent.machine
    before = m.resets
    m.triple_fault(0)
    m.invalid_vp_state(0)
    m.unsupported_feature(0, 1, 2)
    assert m.resets == before + 3


# -- 16.2.3 Execution state --


@pytest.mark.parametrize(
    ("registers", "state"),
    [
        ({Register.Cr0: 0x10, Register.Cs: segment(0xF003), Register.Efer: 0}, 0),
        ({Register.Cr0: 0x11, Register.Cs: segment(0x1B), Register.Efer: 0}, 3 | 1 << 2),
        ({Register.Cr0: 0x40011, Register.Cs: segment(8), Register.Efer: 0x100}, 1 << 2 | 1 << 3),
        ({Register.Cr0: 0x11, Register.Cs: segment(0xF000), Register.Rflags: 0x20002, Register.Efer: 0}, 3 | 1 << 2),
        ({Register.Cr0: 0x80000011, Register.Cs: segment(0x33), Register.Efer: 0x500}, 3 | 1 << 2 | 1 << 4),
        ({Register.Cr0: 0x11, Register.Cs: segment(8), Register.Efer: 0, Register.Dr7: 0x402}, 1 << 2 | 1 << 5),
        ({Register.Cr0: 0x11, Register.Cs: segment(8), Register.Efer: 0, Register.Dr7: 0x2700}, 1 << 2),
        (
            {Register.Cr0: 0x11, Register.Cs: segment(8), Register.Efer: 0, Register.PendingInterruption: 1},
            1 << 2 | 1 << 6,
        ),
    ],
    ids=["real", "protected", "alignment", "v86", "long", "debug", "no debug", "interruption"],
)
def test_execution_state(parent: Parent, registers: dict[Register, int], state: int) -> None:
    """TLFS 16.2.3: CPL 0 in real mode, 3 in virtual-8086 mode, else of CS."""
    for name, value in registers.items():
        parent.machine.set_register(parent.vp, name, value)
    parent.machine.triple_fault(parent.vp)
    assert header_of(parent.receive()).state == state


# -- 14.2.6 The way to the parent --


def test_suspended_before_the_message(parent: Parent) -> None:
    """TLFS 9.1.1: the VP stays suspended until the parent clears the register."""
    parent.set_register(parent.child, 0, 0, 0)
    parent.machine.triple_fault(parent.vp)
    for _ in range(3):
        assert parent.is_suspended()
        assert parent.machine.schedule(parent.machine.lp_of(parent.vp))[0] != parent.vp
    parent.go_on()
    assert not parent.is_suspended()


@pytest.mark.parametrize("lp", [0, 1])
def test_receiver_is_the_vp_of_the_same_lp(generation: str, lp: int) -> None:
    """TLFS 14.2.6 leaves the choice of the VP: the one bound to the LP needs no other to be woken."""
    parent = Parent(generation, child_vps=2)
    on_lp = [parent.handle(parent.child, n) for n in (0, 1)]
    vp = next(vp for vp in on_lp if parent.machine.lp_of(vp) == lp)
    parent.machine.triple_fault(vp)
    assert parent.receiver() == lp
    assert header_of(parent.receive()).vp == on_lp.index(vp)


@pytest.mark.parametrize("register", [SIMP, SCONTROL])
def test_receiver_must_take_messages(parent: Parent, register: int) -> None:
    """TLFS 14.2.4: VPs whose SynIC or message page is disabled are not considered."""
    lp = parent.machine.lp_of(parent.vp)
    parent.machine.wrmsr(lp, register, 0)
    parent.machine.triple_fault(parent.vp)
    assert parent.message(0, 1 - lp).type == MessageType.UnrecoverableException


def test_message_waits_for_a_synic(parent: Parent) -> None:
    """A parent that takes no messages yet gets it when it does: the VP is suspended, and somebody has to know."""
    for vp in (0, 1):
        parent.machine.wrmsr(vp, SIMP, 0)
    parent.machine.triple_fault(parent.vp)
    assert parent.is_suspended()
    for vp in (0, 1):
        parent.enable_synic(vp)
    assert parent.receive().type == MessageType.UnrecoverableException


def test_interrupt_of_the_receiver(parent: Parent) -> None:
    """TLFS 14.2.4: an edge-triggered interrupt of SINT0, unless that is masked."""
    parent.machine.clear_records()
    parent.machine.triple_fault(parent.vp)
    receiver = parent.receiver()
    assert parent.machine.interrupts == [(receiver, 0x30)]
    parent.receive()
    parent.go_on()
    for vp in (0, 1):
        parent.set_sint(0, 0x30 | MASKED, vp)
    parent.machine.clear_records()
    parent.machine.triple_fault(parent.vp)
    assert parent.machine.interrupts == []
    assert parent.receive().type == MessageType.UnrecoverableException


def test_queued_behind_a_full_slot(generation: str) -> None:
    """TLFS 9.1.1: several intercepts may be in progress; messages come in the order of the intercepts."""
    parent = Parent(generation, child_vps=4)
    vps = [parent.handle(parent.child, n) for n in range(4)]
    same_lp = [vp for vp in vps if parent.machine.lp_of(vp) == parent.machine.lp_of(vps[0])]
    assert len(same_lp) >= 2
    for vp in reversed(same_lp):
        parent.machine.triple_fault(vp)
    seen = []
    for _ in same_lp:
        message = parent.receive()
        seen.append(header_of(message).vp)
        assert message.pending == (len(seen) < len(same_lp))
    assert seen == [vps.index(vp) for vp in reversed(same_lp)]
    assert parent.receiver() is None


def test_resumed_too_early(parent: Parent) -> None:
    """TLFS 14.2.6: a buffer that is still queued is overwritten, and goes to the end of the queue."""
    parent.install(CPUID, 1)
    parent.machine.triple_fault(parent.vp)
    parent.go_on()
    parent.machine.child_cpuid(parent.vp, 1)
    parent.go_on()
    parent.machine.invalid_vp_state(parent.vp)
    types = []
    while (message := parent.receiver()) is not None:
        types.append(parent.take_message(0, message).type)
    assert types == [MessageType.UnrecoverableException, MessageType.InvalidVpRegisterValue]


def test_deleted_vp_takes_its_message_along(parent: Parent) -> None:
    """TLFS 10.4.2: a message that waits for its slot goes with the VP whose buffer it is in."""
    other = parent.partition(vps=1)
    vp = parent.handle(other, 0)
    lp = parent.machine.lp_of(parent.vp)
    parent.machine.wrmsr(1 - lp, SCONTROL, 0)
    parent.machine.triple_fault(parent.vp)
    parent.machine.triple_fault(vp)
    assert parent.message(0, lp).pending
    assert parent.delete_vp(other, 0) == Status.SUCCESS
    assert header_of(parent.take_message(0, lp)).vp == 0
    assert parent.message(0, lp).type == 0


# -- 13.3.4, 16.5.5 APIC EOI --


def test_apic_eoi_message(parent: Parent) -> None:
    """TLFS 16.5.5: of a level-triggered interrupt; the type's number is another one today."""
    m = parent.machine
    m.lapic_write(parent.vp, 0xF0, 0x1FF)
    code = 0x0094 if parent.current else 0x0055
    data = struct.pack("<QQQII", parent.child, 1 << 32, 0, 0x51, 0)
    assert parent.status(code, data) == Status.SUCCESS
    assert m.child_interrupt(parent.vp) == 0x51
    m.clear_records()
    m.lapic_write(parent.vp, 0xB0, 0)
    message = parent.receive()
    expected = MessageType.X64ApicEoi if parent.current else MessageType.ApicEoi
    assert (message.type, message.size, message.origin) == (expected, 8, parent.child)
    assert struct.unpack_from("<II", message.payload) == (0, 0x51)
    assert parent.is_suspended()
    assert parent.vp in m.kicks


# -- Deliverability (later than 2.0a) --


def test_interruption_deliverable_message() -> None:
    """The parent asks when the VP can take an interrupt, and is told once, at the priority it asked for."""
    parent = Parent("current")
    m = parent.machine
    m.write_cr8(parent.vp, 5)
    parent.set_register(parent.child, 0, Register.DeliverabilityNotifications, 2 | 5 << 2)
    assert not m.line(parent.vp, 0)
    m.write_cr8(parent.vp, 4)
    assert m.line(parent.vp, 0)
    assert m.child_interrupt(parent.vp) is None
    message = parent.receive()
    assert (message.type, message.size) == (MessageType.X64InterruptionDeliverable, 48)
    assert struct.unpack_from("<II", message.payload, 40) == (0, 0)
    assert parent.is_suspended()
    assert parent.get_register(parent.child, 0, Register.DeliverabilityNotifications) == 0
    assert m.child_interrupt(parent.vp) is None
    assert parent.receiver() is None


def test_no_deliverability_in_2008r2() -> None:
    """The register does not exist there."""
    parent = Parent("2008r2")
    result = parent.try_set_register(parent.child, 0, Register.DeliverabilityNotifications, 2)
    assert result.status == Status.INVALID_PARAMETER
