# SPDX-License-Identifier: GPL-2.0-or-later
"""Chapter 4 of the TLFS: the hypercall interface."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from simulated_guest import (
    EVENT,
    FAST,
    FLUSH_ADDRESS_LIST,
    FLUSH_ADDRESS_SPACE,
    GET_PARTITION_ID,
    GPA_END,
    GUEST_OS_ID,
    HYPERCALL,
    HYPERCALL_PAGE,
    INPUT,
    NOTIFY_LONG_SPIN_WAIT,
    ONES,
    OUTPUT,
    PAGE,
    POST_MESSAGE,
    RAM_END,
    SELF,
    SIGNAL_EVENT,
    SWITCH_ADDRESS_SPACE,
    Guest,
    privilege_mask,
    reps,
)
from spec_tables import (
    CALLS_2008R2,
    CODES_MOVED_BY_CURRENT,
    CURRENT_ONLY_CODES,
    PARTITION_ID,
    Call,
)

from qemu_hv._core import (
    GENERATIONS,
    Exit,
    GeneralProtectionFault,
    HypercallResult,
    Machine,
    Status,
    default_config,
    hypercall_rows,
)

CR3 = 0x123000
CODE = b"\xf3\x0f\x1e\xfa\x0f\x01\xd9\xc3"
ALL_PRIVILEGES = sum(1 << bit for bit in [*range(11), *range(32, 41), 43, 44, 45])


def flush_all(reserved: int = 0) -> bytes:
    """HvFlushVirtualAddressSpace of everything."""
    return struct.pack("<QQQ", 0, 3 | reserved, 0)


def call_id(call: Call) -> str:
    """Name of a parametrised call."""
    return call.name


# -- 4.12 Establishing the hypercall interface --


@pytest.fixture
def machine(generation: str) -> Machine:
    """A machine whose guest has done nothing yet."""
    return Machine(generation, vps=2, hypercall_code=CODE)


def test_enabling_needs_a_guest_identity(machine: Machine) -> None:
    """TLFS 4.12: without a guest OS identity the enable bit remains zero."""
    machine.wrmsr(0, HYPERCALL, HYPERCALL_PAGE | 1)
    assert machine.rdmsr(0, HYPERCALL) & 1 == 0
    assert machine.overlays == []


def test_page_appears(machine: Machine) -> None:
    """TLFS 4.12: the page covers what is mapped there; its rest holds INT3."""
    machine.write(HYPERCALL_PAGE, b"guest data")
    machine.wrmsr(0, GUEST_OS_ID, 1)
    machine.wrmsr(0, HYPERCALL, HYPERCALL_PAGE | 1)
    assert machine.read(HYPERCALL_PAGE, PAGE) == CODE.ljust(PAGE, b"\xcc")
    assert machine.read_ram(HYPERCALL_PAGE, 10) == b"guest data"


def test_register_is_partition_wide(machine: Machine) -> None:
    """TLFS 4.12: another VP reads what one VP wrote."""
    machine.wrmsr(0, GUEST_OS_ID, 1)
    machine.wrmsr(1, HYPERCALL, HYPERCALL_PAGE | 1)
    assert machine.rdmsr(0, HYPERCALL) == HYPERCALL_PAGE | 1
    assert machine.hypercall(0, NOTIFY_LONG_SPIN_WAIT | FAST).status == Status.SUCCESS
    assert machine.hypercall(1, NOTIFY_LONG_SPIN_WAIT | FAST).status == Status.SUCCESS


def test_page_moves(guest: Guest) -> None:
    """TLFS 4.12, 8.1.3: a moved overlay uncovers the page that it leaves."""
    m = guest.machine
    m.wrmsr(0, HYPERCALL, 0x70000 | 1)
    assert m.read(HYPERCALL_PAGE, 8) == bytes(8)
    assert m.read(0x70000, 8) != bytes(8)


def test_page_goes(guest: Guest) -> None:
    """TLFS 4.12, 8.1.3: disabling uncovers the page, and hypercalls are #UD again."""
    m = guest.machine
    m.wrmsr(0, HYPERCALL, HYPERCALL_PAGE)
    assert m.read(HYPERCALL_PAGE, 8) == bytes(8)
    assert m.hypercall(0, NOTIFY_LONG_SPIN_WAIT | FAST).exit == Exit.UD


def test_page_needs_no_ram_under_it(guest: Guest) -> None:
    """TLFS 4.12: the page may lie anywhere in the GPA space, also where nothing is mapped."""
    m = guest.machine
    m.wrmsr(0, HYPERCALL, (GPA_END - PAGE) | 1)
    assert m.read(GPA_END - 8, 8) == b"\xcc" * 8
    assert m.hypercall(0, NOTIFY_LONG_SPIN_WAIT | FAST).status == Status.SUCCESS


def test_writing_the_page_faults(guest: Guest) -> None:
    """TLFS 4.12: a write to the hypercall page is #GP and changes nothing."""
    m = guest.machine
    before = m.read(HYPERCALL_PAGE, PAGE)
    for offset in (0, 8, PAGE - 1):
        with pytest.raises(GeneralProtectionFault):
            m.write(HYPERCALL_PAGE + offset, b"x")
    assert m.read(HYPERCALL_PAGE, PAGE) == before


@pytest.mark.parametrize("gpa", [GPA_END, GPA_END + PAGE, 1 << 52, ONES & ~0xFFF])
def test_page_beyond_the_gpa_space_faults(guest: Guest, gpa: int) -> None:
    """TLFS 4.12: moving the page beyond the GPA space is #GP; the register keeps its value."""
    with pytest.raises(GeneralProtectionFault):
        guest.machine.wrmsr(0, HYPERCALL, gpa | 1)
    assert guest.machine.rdmsr(0, HYPERCALL) == HYPERCALL_PAGE | 1
    assert guest.status(NOTIFY_LONG_SPIN_WAIT | FAST) == Status.SUCCESS


def test_reserved_bits_are_preserved(guest: Guest) -> None:
    """TLFS 4.12: bits 11:1 are RsvdP. (Bit 1 later became a lock and is left out.)"""
    m = guest.machine
    value = HYPERCALL_PAGE | 0xFFC | 1
    m.wrmsr(0, HYPERCALL, value)
    assert m.rdmsr(1, HYPERCALL) == value
    m.wrmsr(0, HYPERCALL, HYPERCALL_PAGE | 1)
    assert m.rdmsr(1, HYPERCALL) == HYPERCALL_PAGE | 1


def test_bit_1_is_reserved_in_2008r2() -> None:
    """TLFS 4.12: bit 1 is RsvdP and does not lock the register."""
    m = Guest("2008r2").machine
    m.wrmsr(0, HYPERCALL, HYPERCALL_PAGE | 3)
    assert m.rdmsr(0, HYPERCALL) == HYPERCALL_PAGE | 3
    m.wrmsr(0, HYPERCALL, 0)
    assert m.rdmsr(0, HYPERCALL) == 0


def test_lock_of_the_current_generation() -> None:
    """Bit 1 later came to lock the page: it stays in its place until a reset."""
    guest = Guest("current")
    m = guest.machine
    m.wrmsr(0, HYPERCALL, HYPERCALL_PAGE | 3)
    with suppress(GeneralProtectionFault):
        m.wrmsr(1, HYPERCALL, 0x70000 | 1)
    m.wrmsr(0, GUEST_OS_ID, 0)
    assert m.rdmsr(0, HYPERCALL) == HYPERCALL_PAGE | 3
    assert m.read(HYPERCALL_PAGE, 4) != bytes(4)
    m.reset()
    assert m.rdmsr(0, HYPERCALL) == 0
    guest.enable_hypercalls()
    assert guest.status(NOTIFY_LONG_SPIN_WAIT | FAST) == Status.SUCCESS


# -- 4.5 Legal hypercall environments --


def test_illegal_mode(guest: Guest) -> None:
    """TLFS 4.5: outside protected mode at CPL 0 a hypercall is #UD and does nothing."""
    registers = [0x1111 * n for n in range(16)]
    before = guest.machine.hypercall(0, 0, registers=registers).registers
    result = guest.machine.hypercall(0, SWITCH_ADDRESS_SPACE | FAST, CR3, legal=False, registers=registers)
    assert result.exit == Exit.UD
    assert result.status is None
    assert guest.machine.cr3_loads == []
    assert result.registers[3:8] == before[3:8]
    assert result.registers[1] == SWITCH_ADDRESS_SPACE | FAST
    assert result.registers[0] == registers[0]


@pytest.mark.parametrize("input_value", [0, 0xFFFF, ONES, POST_MESSAGE, FLUSH_ADDRESS_LIST])
def test_illegal_mode_comes_before_everything(guest: Guest, input_value: int) -> None:
    """TLFS 4.5, order of checks: #UD is decided before the input value is looked at."""
    assert guest.machine.hypercall(0, input_value, 1, 1, legal=False).exit == Exit.UD


def test_interface_not_established(machine: Machine) -> None:
    """TLFS 4.5, 4.12: without an enabled hypercall page a hypercall is #UD."""
    assert machine.hypercall(0, NOTIFY_LONG_SPIN_WAIT | FAST).exit == Exit.UD
    machine.wrmsr(0, GUEST_OS_ID, 1)
    assert machine.hypercall(0, NOTIFY_LONG_SPIN_WAIT | FAST).exit == Exit.UD


# -- 4.7, 4.11.3 The input value --


@pytest.mark.parametrize("code", [0x0000, 0x0005, 0x000A, 0x003F, 0x0072, 0x8000, 0xFFFF])
def test_unknown_code(guest: Guest, code: int) -> None:
    """TLFS 4.11.3: a code that is not recognized."""
    assert guest.status(code) == Status.INVALID_HYPERCALL_CODE
    assert guest.status(code | FAST) == Status.INVALID_HYPERCALL_CODE


def test_every_unlisted_code(generation: str) -> None:
    """TLFS 4.11.3, appendix B: codes that are in no table."""
    guest = Guest(generation)
    known = {call.code for call in CALLS_2008R2} | {*CURRENT_ONLY_CODES, 0x007B}
    for code in set(range(0x100)) - known:
        assert guest.status(code) == Status.INVALID_HYPERCALL_CODE, hex(code)


def test_codes_of_the_other_generation() -> None:
    """A generation hides the calls of the other, whatever else is wrong with them."""
    new, old = Guest("current"), Guest("2008r2")
    for code in CURRENT_ONLY_CODES:
        assert old.status(code | 1 << 31) == Status.INVALID_HYPERCALL_CODE, hex(code)
    for code in CODES_MOVED_BY_CURRENT:
        assert new.status(code | 1 << 31) == Status.INVALID_HYPERCALL_CODE, hex(code)


def test_code_comes_before_input_value(guest: Guest) -> None:
    """Order of checks: an unknown code with reserved bits set is an unknown code."""
    assert guest.status(0x0005 | 1 << 63 | 1 << 31) == Status.INVALID_HYPERCALL_CODE


@pytest.mark.parametrize("bit", [*range(17, 32), *range(44, 48), *range(60, 64)])
def test_reserved_input_bits(guest: Guest, bit: int) -> None:
    """TLFS 4.7: bits 31:17, 47:44 and 63:60 must be zero, for simple, fast and rep calls."""
    invalid = Status.INVALID_HYPERCALL_INPUT
    assert guest.status(POST_MESSAGE | 1 << bit) == invalid
    assert guest.fast(SWITCH_ADDRESS_SPACE | 1 << bit, CR3) == invalid
    assert guest.status(FLUSH_ADDRESS_LIST | 1 << bit | reps(1), flush_all() + bytes(8)) == invalid
    assert guest.machine.cr3_loads == []
    assert guest.machine.flushes == []


@pytest.mark.parametrize("fields", [reps(1), reps(0, 1), reps(2, 1), reps(4095, 4095)])
def test_rep_fields_of_simple_calls(guest: Guest, fields: int) -> None:
    """TLFS 4.7, 4.11.3: a simple call's rep count and start index must be zero."""
    invalid = Status.INVALID_HYPERCALL_INPUT
    assert guest.status(NOTIFY_LONG_SPIN_WAIT | fields, bytes(8)) == invalid
    assert guest.status(NOTIFY_LONG_SPIN_WAIT | FAST | fields) == invalid


@pytest.mark.parametrize("fields", [0, reps(0, 1), reps(1, 1), reps(3, 3), reps(3, 4), reps(1, 4095)])
def test_rep_fields_of_rep_calls(guest: Guest, fields: int) -> None:
    """TLFS 4.7, 4.11.3: zero reps, or a start index not below the count."""
    result = guest.call(FLUSH_ADDRESS_LIST | fields, flush_all() + bytes(64))
    assert result.status == Status.INVALID_HYPERCALL_INPUT
    assert guest.machine.flushes == []


def test_rep_calls_are_never_fast(guest: Guest) -> None:
    """TLFS 4.7: with the fast flag the rep fields must be zero, which no rep call allows."""
    assert guest.fast(FLUSH_ADDRESS_LIST | reps(1)) == Status.INVALID_HYPERCALL_INPUT
    assert guest.fast(FLUSH_ADDRESS_LIST) == Status.INVALID_HYPERCALL_INPUT


SLOW_CALLS = [c for c in CALLS_2008R2 if not c.fast and c.code != FLUSH_ADDRESS_SPACE]


@pytest.mark.parametrize("call", SLOW_CALLS, ids=call_id)
def test_calls_without_a_fast_form(call: Call) -> None:
    """TLFS 4.7, appendix B: the fast flag on a call that has no fast form."""
    old = Guest("2008r2", privileges=ALL_PRIVILEGES)
    assert old.fast(call.code) == Status.INVALID_HYPERCALL_INPUT
    new = Guest("current", privileges=ALL_PRIVILEGES)
    moved = call.code in CODES_MOVED_BY_CURRENT
    assert new.fast(call.code) == (Status.INVALID_HYPERCALL_CODE if moved else Status.INVALID_HYPERCALL_INPUT)


def test_input_value_comes_before_alignment(guest: Guest) -> None:
    """Order of checks: reserved bits are reported before a misaligned parameter block."""
    status = guest.status(POST_MESSAGE | 1 << 31, gpa=INPUT + 1)
    assert status == Status.INVALID_HYPERCALL_INPUT
    assert guest.status(POST_MESSAGE | reps(1), gpa=GPA_END) == Status.INVALID_HYPERCALL_INPUT


# -- 4.6 Alignment requirements --


@pytest.mark.parametrize("offset", range(1, 8))
def test_input_alignment(guest: Guest, offset: int) -> None:
    """TLFS 4.6, 4.11.3: the input GPA must be aligned to 8 bytes."""
    gpa = INPUT + offset
    assert guest.status(SWITCH_ADDRESS_SPACE, gpa=gpa) == Status.INVALID_ALIGNMENT
    assert guest.status(POST_MESSAGE, gpa=gpa) == Status.INVALID_ALIGNMENT
    assert guest.status(FLUSH_ADDRESS_LIST | reps(1), gpa=gpa) == Status.INVALID_ALIGNMENT


@pytest.mark.parametrize("offset", range(1, 8))
def test_output_alignment(generation: str, offset: int) -> None:
    """TLFS 4.6, 4.11.3: the output GPA must be aligned to 8 bytes."""
    guest = Guest(generation, privileges=ALL_PRIVILEGES)
    status = guest.status(GET_PARTITION_ID, output=OUTPUT + offset)
    assert status == Status.INVALID_ALIGNMENT


@pytest.mark.parametrize("gpa", [GPA_END, GPA_END + 8, 1 << 52, 1 << 63, ONES & ~7])
def test_outside_the_gpa_space(generation: str, gpa: int) -> None:
    """TLFS 4.11.3: input or output outside the GPA space."""
    guest = Guest(generation, privileges=ALL_PRIVILEGES)
    assert guest.status(SWITCH_ADDRESS_SPACE, gpa=gpa) == Status.INVALID_ALIGNMENT
    assert guest.status(GET_PARTITION_ID, output=gpa) == Status.INVALID_ALIGNMENT
    assert guest.status(FLUSH_ADDRESS_LIST | reps(1), gpa=gpa) == Status.INVALID_ALIGNMENT


@pytest.mark.parametrize(("room", "crosses"), [(8, True), (16, True), (24, False), (32, False)])
def test_input_page_crossing(guest: Guest, room: int, crosses: bool) -> None:
    """TLFS 4.6, 4.11.3: a parameter block of 24 bytes may end at its page's end, not beyond."""
    gpa = INPUT + PAGE - room
    expected = Status.INVALID_ALIGNMENT if crosses else Status.SUCCESS
    assert guest.status(FLUSH_ADDRESS_SPACE, flush_all(), gpa=gpa) == expected
    assert bool(guest.machine.flushes) != crosses


@pytest.mark.parametrize(("count", "crosses"), [(509, False), (510, True), (4095, True)])
def test_input_list_page_crossing(guest: Guest, count: int, crosses: bool) -> None:
    """TLFS 4.6: header and list together must lie in one page: 24 + 509 x 8 = 4096 bytes."""
    status = guest.status(FLUSH_ADDRESS_LIST | reps(count), flush_all() + bytes(8 * 509))
    assert status == (Status.INVALID_ALIGNMENT if crosses else Status.SUCCESS)


def test_input_list_crosses_also_behind_the_start_index(guest: Guest) -> None:
    """TLFS 4.6: the whole list counts, not only what is left of it."""
    status = guest.status(FLUSH_ADDRESS_LIST | reps(510, 500), flush_all() + bytes(8 * 509))
    assert status == Status.INVALID_ALIGNMENT


def test_unused_pointers_are_ignored(generation: str) -> None:
    """TLFS 4.6: a call without input or without output ignores that GPA."""
    guest = Guest(generation, privileges=ALL_PRIVILEGES)
    assert guest.status(GET_PARTITION_ID, gpa=ONES) == Status.SUCCESS
    assert guest.status(FLUSH_ADDRESS_SPACE, flush_all(), output=ONES) == Status.SUCCESS
    assert guest.status(FLUSH_ADDRESS_SPACE, flush_all(), output=OUTPUT + 1) == Status.SUCCESS


def test_alignment_comes_before_privilege(generation: str) -> None:
    """Order of checks: a misaligned block is reported before a missing privilege."""
    guest = Guest(generation, privileges=privilege_mask(5, 6))
    assert guest.status(POST_MESSAGE, gpa=INPUT + 4) == Status.INVALID_ALIGNMENT
    assert guest.status(GET_PARTITION_ID, output=OUTPUT + 4) == Status.INVALID_ALIGNMENT


def test_privilege_comes_before_parameters(generation: str) -> None:
    """Order of checks, TLFS 4.11.2: ACCESS_DENIED is preferred over what would tell more."""
    guest = Guest(generation, privileges=privilege_mask(5, 6))
    assert guest.post(0xFFFFFFFF, message_type=0, size=ONES & 0xFFFFFFFF) == Status.ACCESS_DENIED
    assert guest.signal(0xFFFFFFFF, 0xFFFF) == Status.ACCESS_DENIED


@pytest.mark.parametrize(("output", "overlaps"), [(0, True), (16, True), (24, False), (-8, False)])
def test_overlapping_blocks(output: int, overlaps: bool) -> None:
    """TLFS 4.6: input (here 24 bytes) and output may not overlap; ours is INVALID_ALIGNMENT."""
    guest = Guest("2008r2", privileges=ALL_PRIVILEGES)
    get_port_property = 0x005A
    data = struct.pack("<QII", SELF, 1, 0).ljust(24, b"\0")
    status = guest.status(get_port_property, data, output=INPUT + output)
    assert (status == Status.INVALID_ALIGNMENT) == overlaps


# -- 4.6, 11.8 Parameters in pages that cannot be accessed --


def test_unmapped_input_reads_as_ones(guest: Guest) -> None:
    """TLFS 11.8: where nothing is mapped, reads give ones: here reserved flags."""
    assert guest.status(FLUSH_ADDRESS_SPACE, gpa=RAM_END) == Status.INVALID_PARAMETER
    assert guest.status(NOTIFY_LONG_SPIN_WAIT, gpa=RAM_END) == Status.SUCCESS
    assert guest.status(SWITCH_ADDRESS_SPACE, gpa=RAM_END) == Status.INVALID_PARAMETER


def test_unmapped_output_is_dropped(generation: str) -> None:
    """TLFS 11.8: where nothing is mapped, writes go nowhere."""
    guest = Guest(generation, privileges=ALL_PRIVILEGES)
    assert guest.status(GET_PARTITION_ID, output=RAM_END) == Status.SUCCESS


def test_forbidden_input_is_a_machine_check(guest: Guest) -> None:
    """TLFS 4.6, 11.8: an input page without the right to read is #MC, with nothing done."""
    m = guest.machine
    m.write(INPUT, struct.pack("<Q", CR3))
    m.map(INPUT, readable=False, writable=True)
    result = m.hypercall(0, SWITCH_ADDRESS_SPACE, INPUT)
    assert result.exit == Exit.MC
    assert result.registers[1] == SWITCH_ADDRESS_SPACE
    assert m.cr3_loads == []
    m.map(INPUT)
    assert m.hypercall(0, SWITCH_ADDRESS_SPACE, INPUT).status == Status.SUCCESS


def test_forbidden_output_is_a_machine_check(generation: str) -> None:
    """TLFS 4.6, 11.8: an output page without the right to write is #MC, and keeps its content."""
    m = Guest(generation, privileges=ALL_PRIVILEGES).machine
    m.write(OUTPUT, b"kept....")
    m.map(OUTPUT, readable=True, writable=False)
    assert m.hypercall(0, GET_PARTITION_ID, 0, OUTPUT).exit == Exit.MC
    assert m.read(OUTPUT, 8) == b"kept...."


def test_output_to_the_hypercall_page_does_not_change_it(generation: str) -> None:
    """TLFS 4.6, 4.12: an overlay as output is undefined, but its bytes are not the guest's."""
    m = Guest(generation, privileges=ALL_PRIVILEGES).machine
    before = m.read(HYPERCALL_PAGE, PAGE)
    m.hypercall(0, GET_PARTITION_ID, 0, HYPERCALL_PAGE)
    assert m.read(HYPERCALL_PAGE, PAGE) == before


# -- 4.7 Registers --


def test_fast_form_equals_slow_form(guest: Guest) -> None:
    """TLFS 4.7: the first parameter is in memory or in RDX."""
    assert guest.status(SWITCH_ADDRESS_SPACE, struct.pack("<Q", CR3)) == Status.SUCCESS
    assert guest.fast(SWITCH_ADDRESS_SPACE, CR3 + PAGE) == Status.SUCCESS
    assert guest.machine.cr3_loads == [(0, CR3), (0, CR3 + PAGE)]


def test_fast_form_touches_no_memory(guest: Guest) -> None:
    """TLFS 4.7: registers carry the parameters, so misaligned values are no pointers."""
    guest.machine.unmap(0, RAM_END)
    assert guest.fast(NOTIFY_LONG_SPIN_WAIT, 0x1234567) == Status.SUCCESS


@pytest.mark.parametrize("code", [SWITCH_ADDRESS_SPACE, SWITCH_ADDRESS_SPACE | FAST])
def test_32_bit_registers(guest: Guest, code: int) -> None:
    """TLFS 4.7: EDX:EAX input value, EBX:ECX first parameter; upper register halves are not read."""
    m = guest.machine
    m.write(INPUT, struct.pack("<Q", 0x8_0000_1000))
    garbage = [0xDEADBEEF_00000000] * 16
    first = 0x8_0000_1000 if code & FAST else INPUT
    result = m.hypercall(0, code, first, ONES, long_mode=False, registers=garbage)
    assert result.status == Status.SUCCESS
    assert m.cr3_loads == [(0, 0x8_0000_1000)]


def test_32_bit_output_pointer(generation: str) -> None:
    """TLFS 4.7: EDI:ESI is the output's GPA."""
    guest = Guest(generation, privileges=ALL_PRIVILEGES)
    m = guest.machine
    m.map(0x9_0000_0000)
    m.write(0x9_0000_0010, b"\xaa" * 8)
    result = m.hypercall(0, GET_PARTITION_ID, ONES, 0x9_0000_0010, long_mode=False)
    assert result.status == Status.SUCCESS
    assert m.read(0x9_0000_0010, 8) == struct.pack("<Q", m.partition_state()["id"])


def preserved(result: HypercallResult, before: list[int], numbers: list[int]) -> bool:
    """Whether these registers kept their values."""
    return all(result.registers[n] == before[n] for n in numbers)


def test_64_bit_result_and_preserved_registers(guest: Guest) -> None:
    """TLFS 4.7, 4.8: RAX is the result; only RCX, RDX, R8 to R11 are volatile besides."""
    before = [0x1111_2222_3333_0000 + n for n in range(16)]
    result = guest.machine.hypercall(0, NOTIFY_LONG_SPIN_WAIT | FAST, registers=before)
    assert result.registers[0] == 0
    assert preserved(result, before, [3, 4, 5, 6, 7, 12, 13, 14, 15])


def test_32_bit_result_and_preserved_registers(guest: Guest) -> None:
    """TLFS 4.7, 4.8: EDX:EAX is the result; of a slow call only EAX, ECX and EDX are volatile."""
    before = [0x3333_0000 + n for n in range(16)]
    before[3], before[7], before[6] = 0, 0, 0
    m = guest.machine
    m.write(INPUT, flush_all() + bytes(16))
    code = FLUSH_ADDRESS_LIST | reps(2)
    m.write(INPUT, struct.pack("<QQQQQ", 0, 3, 0, 0x1000, 0x2000))
    result = m.hypercall(0, code, INPUT, 0, long_mode=False, registers=before)
    assert result.status == Status.SUCCESS
    assert (result.registers[2] & 0xFFFFFFFF, result.registers[0] & 0xFFFFFFFF) == (2, 0)
    assert preserved(result, before, [3, 4, 5, 6, 7])


def test_result_of_a_failed_32_bit_call(guest: Guest) -> None:
    """TLFS 4.8: the status is in AX also when the call fails."""
    result = guest.machine.hypercall(0, 0xFFFF, long_mode=False)
    assert result.registers[0] & 0xFFFF == Status.INVALID_HYPERCALL_CODE
    assert result.registers[2] & 0xFFF == 0


# -- 4.7.1 Extended fast hypercalls --


@pytest.mark.parametrize("long_mode", [True, False])
def test_xmm_form(guest: Guest, long_mode: bool) -> None:
    """TLFS 4.7.1: bytes 0-7 in RDX, 8-15 in R8, 16-31 in XMM0."""
    xmm = struct.pack("<QQ", 0b101, ONES) + b"\xff" * 80
    status = guest.fast(FLUSH_ADDRESS_SPACE, CR3, 0, xmm=xmm, long_mode=long_mode)
    assert status == Status.SUCCESS
    (flush,) = guest.machine.flushes
    assert flush["vps"] == [0, 2]


def test_xmm_form_without_the_feature(generation: str) -> None:
    """TLFS 4.7.1: without CPUID 0x40000003 EDX bit 4 the XMM form is #UD."""
    guest = Guest(generation, features=default_config(generation)["features"] & ~(1 << 4))
    result = guest.machine.hypercall(0, FLUSH_ADDRESS_SPACE | FAST, 0, 3)
    assert result.exit == Exit.UD
    assert guest.machine.flushes == []
    assert guest.status(FLUSH_ADDRESS_SPACE, flush_all()) == Status.SUCCESS
    assert guest.fast(SWITCH_ADDRESS_SPACE, CR3) == Status.SUCCESS


def test_xmm_block_is_112_bytes() -> None:
    """TLFS 4.7.1: a block with its variable header must fit into 112 bytes."""
    guest = Guest("current")
    flush_ex, everything = 0x0013, struct.pack("<QQ", 0, 0x3FF)
    assert guest.fast(flush_ex | 10 << 17, CR3, 1, xmm=everything) == Status.SUCCESS
    assert guest.fast(flush_ex | 11 << 17, CR3, 1, xmm=everything) == Status.INVALID_HYPERCALL_INPUT


# -- 4.2, 4.3, 4.8 Rep hypercalls and continuation --


def gva_list(count: int) -> bytes:
    """A list of `count` different single pages."""
    return b"".join(struct.pack("<Q", (n + 1) << 12) for n in range(count))


def flushed(guest: Guest) -> list[int]:
    """Page numbers of all ranges that were flushed, in order."""
    return [gva >> 12 for flush in guest.machine.flushes for gva, count in flush["ranges"] or [] for _ in range(count)]


@pytest.mark.parametrize("count", [1, 2, 25, 100, 509])
@pytest.mark.parametrize("long_mode", [True, False])
def test_reps_are_completed_in_order(guest: Guest, count: int, long_mode: bool) -> None:
    """TLFS 4.2, 4.3: however often the call is continued, each element is processed, in order."""
    data = flush_all() + gva_list(count)
    result = guest.call(FLUSH_ADDRESS_LIST | reps(count), data, long_mode=long_mode)
    assert (result.status, result.reps_completed) == (Status.SUCCESS, count)
    assert flushed(guest) == list(range(1, count + 1))


@pytest.mark.parametrize(("count", "start"), [(10, 5), (2, 1), (509, 508), (509, 1)])
def test_start_index(guest: Guest, count: int, start: int) -> None:
    """TLFS 4.2, 4.8: processing begins at the start index; reps complete is absolute."""
    result = guest.call(FLUSH_ADDRESS_LIST | reps(count, start), flush_all() + gva_list(count))
    assert (result.status, result.reps_completed) == (Status.SUCCESS, count)
    assert flushed(guest) == list(range(start + 1, count + 1))


@pytest.mark.parametrize("long_mode", [True, False])
def test_every_continuation_makes_progress(guest: Guest, long_mode: bool) -> None:
    """TLFS 4.2, 4.3: a continued call is not retired and only its rep start index has moved on."""
    m = guest.machine
    m.write(INPUT, flush_all() + gva_list(509))
    code, start, turns = FLUSH_ADDRESS_LIST | reps(509), 0, 0
    registers = [0] * 16
    result = m.hypercall(0, code, INPUT, OUTPUT, long_mode=long_mode)
    while result.exit == Exit.RETRY:
        registers = result.registers
        value = registers[1] if long_mode else registers[2] << 32 | registers[0]
        now = value >> 48 & 0xFFF
        assert now > start
        assert value == code | now << 48
        assert flushed(guest) == list(range(1, now + 1))
        start, turns = now, turns + 1
        result = m.hypercall(0, value, INPUT, OUTPUT, long_mode=long_mode)
    assert result.status == Status.SUCCESS
    assert turns >= 1, "509 flushes in one turn are more than 50 microseconds of work"


def test_failed_rep_call_completes_none(guest: Guest) -> None:
    """TLFS 4.2: with an error in the header no rep has been completed."""
    header = struct.pack("<QQQ", 0, 1 << 40, 0)
    result = guest.call(FLUSH_ADDRESS_LIST | reps(3), header + gva_list(3))
    assert (result.status, result.reps_completed) == (Status.INVALID_PARAMETER, 0)


# -- 4.10, appendix B: the table --


def test_table_of_2008r2() -> None:
    """TLFS appendix B: code, name, rep, fast, privilege and sizes of every call."""
    rows = {
        Call(
            row.code,
            row.name,
            row.rep,
            row.fast,
            row.gate if row.gate >= 0 else None,
            "any",
            row.input,
            row.input_element,
            row.output,
            row.output_element,
        )
        for row in hypercall_rows
        if row.generations & GENERATIONS["2008r2"]
    }
    expected = {
        call._replace(relation="any", privilege=None if call.code == 0x005F else call.privilege)
        for call in CALLS_2008R2
    }
    given = {row._replace(privilege=None if row.code == 0x005F else row.privilege) for row in rows}
    xmm = {0x0002}
    assert {row._replace(fast=False) if row.code in xmm else row for row in given} == expected


def test_codes_are_unique_in_a_generation(generation: str) -> None:
    """Every code has one row in each generation."""
    codes = [row.code for row in hypercall_rows if row.generations & GENERATIONS[generation]]
    assert len(codes) == len(set(codes))


def well_formed(guest: Guest, call: Call, partition: int) -> Status:
    """The status of the call with sound pointers, naming a partition first."""
    fields = reps(1) if call.rep else 0
    return guest.status(call.code | fields, struct.pack("<Q", partition) + bytes(504))


@pytest.mark.parametrize("call", [call for call in CALLS_2008R2 if call.privilege is not None], ids=call_id)
def test_missing_privilege(call: Call) -> None:
    """TLFS 4.10, 5.2.3: a call without its privilege is ACCESS_DENIED."""
    assert call.privilege is not None
    guest = Guest("2008r2", privileges=ALL_PRIVILEGES & ~(1 << call.privilege))
    assert well_formed(guest, call, SELF) == Status.ACCESS_DENIED


@pytest.mark.parametrize(
    "call",
    [c for c in CALLS_2008R2 if c.relation in ("parent", "parent or root itself", "root")],
    ids=call_id,
)
def test_missing_relation(call: Call) -> None:
    """TLFS 4.10: a guest is neither root nor its own parent, whatever its privileges."""
    guest = Guest("2008r2", privileges=ALL_PRIVILEGES)
    own = guest.machine.partition_state()["id"]
    assert well_formed(guest, call, SELF) == Status.ACCESS_DENIED
    assert well_formed(guest, call, own) == Status.ACCESS_DENIED


@pytest.mark.parametrize("call", [c for c in CALLS_2008R2 if c.relation.startswith("parent")], ids=call_id)
def test_unknown_partition(call: Call) -> None:
    """TLFS appendix C: a partition ID that names no partition."""
    guest = Guest("2008r2", privileges=ALL_PRIVILEGES)
    own = guest.machine.partition_state()["id"]
    for partition in (0, own + 1, 0x1234_5678_9ABC):
        assert well_formed(guest, call, partition) == Status.INVALID_PARTITION_ID


@pytest.mark.parametrize("call", [c for c in CALLS_2008R2 if c.relation in ("any", "parent or self")], ids=call_id)
def test_calls_that_are_not_implemented(call: Call) -> None:
    """A known call that is not implemented answers INVALID_HYPERCALL_CODE, after access checks."""
    (row,) = [row for row in hypercall_rows if row.code == call.code and row.generations & GENERATIONS["2008r2"]]
    guest = Guest("2008r2", privileges=ALL_PRIVILEGES)
    status = well_formed(guest, call, SELF)
    assert (status == Status.INVALID_HYPERCALL_CODE) != row.implemented


# -- The calls that only need this chapter --


def test_partition_id(generation: str) -> None:
    """TLFS 5.6.7: HvGetPartitionId tells the caller's ID, neither 0 nor HV_PARTITION_ID_SELF."""
    guest = Guest(generation, privileges=ALL_PRIVILEGES)
    assert guest.status(GET_PARTITION_ID, output=OUTPUT + 16) == Status.SUCCESS
    (partition,) = struct.unpack("<Q", guest.machine.read(OUTPUT + 16, 8))
    assert partition not in (0, SELF)
    assert partition == guest.machine.partition_state()["id"]


def test_partition_id_needs_its_privilege(generation: str) -> None:
    """TLFS 5.6.7: without AccessPartitionId the call is ACCESS_DENIED and writes nothing."""
    guest = Guest(generation, privileges=ALL_PRIVILEGES & ~(1 << PARTITION_ID))
    guest.machine.write(OUTPUT, b"\xaa" * 8)
    assert guest.status(GET_PARTITION_ID) == Status.ACCESS_DENIED


@pytest.mark.parametrize("fast", [True, False])
def test_long_spin_wait(guest: Guest, fast: bool) -> None:
    """TLFS 18.5.1: HvNotifyLongSpinWait always succeeds and lets others run."""
    if fast:
        assert guest.fast(NOTIFY_LONG_SPIN_WAIT, 5, vp=2) == Status.SUCCESS
    else:
        assert guest.status(NOTIFY_LONG_SPIN_WAIT, bytes(8), vp=2) == Status.SUCCESS
    assert guest.machine.spin_waits == [2]


def test_padding_is_ignored(guest: Guest) -> None:
    """TLFS 4.1: values within padding are ignored."""
    assert guest.fast(NOTIFY_LONG_SPIN_WAIT, 0xFFFFFFFF_00000001) == Status.SUCCESS
    guest.enable_synic()
    guest.open_port(7)
    data = struct.pack("<IIII", 7, 0xFFFFFFFF, 1, 0).ljust(256, b"\xff")
    assert guest.status(POST_MESSAGE, data) == Status.SUCCESS


def test_signal_event_fast_and_slow(guest: Guest) -> None:
    """TLFS 4.7, appendix B: HvSignalEvent works in both forms."""
    guest.enable_synic()
    guest.set_sint(2, 0x40)
    guest.open_port(7, port_type=EVENT, flag_count=8)
    assert guest.status(SIGNAL_EVENT, struct.pack("<IHH", 7, 3, 0)) == Status.SUCCESS
    assert guest.fast(SIGNAL_EVENT, 7 | 4 << 32) == Status.SUCCESS
    assert guest.flags(2) == {3, 4}


# -- Tracing and counting --


def test_counts(guest: Guest) -> None:
    """Each row counts its calls, and codes that are in no row are counted together."""
    guest.fast(NOTIFY_LONG_SPIN_WAIT, vp=1)
    guest.fast(NOTIFY_LONG_SPIN_WAIT, vp=1)
    guest.status(0xFFFF, vp=1)
    (row,) = [n for n, row in enumerate(hypercall_rows) if row.code == NOTIFY_LONG_SPIN_WAIT]
    state = guest.machine.vp_state(1)
    assert state["hypercalls"][row] == 2
    assert state["unknown_hypercalls"] == 1
    assert guest.machine.vp_state(0)["hypercalls"][row] == 0


def test_trace(guest: Guest) -> None:
    """A traced call tells row, input value and result; nothing is told while tracing is off."""
    m = guest.machine
    guest.fast(NOTIFY_LONG_SPIN_WAIT)
    m.set_trace(True)
    guest.fast(NOTIFY_LONG_SPIN_WAIT, vp=1)
    guest.status(0xFFFF)
    m.set_trace(False)
    guest.fast(NOTIFY_LONG_SPIN_WAIT)
    known, unknown = m.traces
    assert (known["vp"], known["input"]) == (1, NOTIFY_LONG_SPIN_WAIT | FAST)
    assert hypercall_rows[known["row"]].code == NOTIFY_LONG_SPIN_WAIT
    assert known["result"] == 0
    assert unknown["row"] == -1
    assert unknown["result"] & 0xFFFF == Status.INVALID_HYPERCALL_CODE
