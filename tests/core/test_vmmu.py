# SPDX-License-Identifier: GPL-2.0-or-later
"""Chapter 12 of the TLFS: the virtual MMU, guest side."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from simulated_guest import (
    FAST,
    FLUSH_ADDRESS_LIST,
    FLUSH_ADDRESS_SPACE,
    ONES,
    SWITCH_ADDRESS_SPACE,
    Guest,
    reps,
)

from qemu_hv._core import Status

if TYPE_CHECKING:
    from qemu_hv._core import Flush

CR3 = 0x7654000
ALL_PROCESSORS = 1
ALL_SPACES = 2
NON_GLOBAL = 4

FLUSH_VIRTUAL_ADDRESS_SPACE_EX = 0x0013
FLUSH_VIRTUAL_ADDRESS_LIST_EX = 0x0014
SPARSE, ALL = 0, 1


def banks(count: int) -> int:
    """The variable header size field of the current generation's input value."""
    return count << 17


def flush_space(guest: Guest, space: int, flags: int, mask: int, vp: int = 0) -> Status:
    """HvFlushVirtualAddressSpace."""
    return guest.status(FLUSH_ADDRESS_SPACE, struct.pack("<QQQ", space, flags, mask), vp=vp)


def flush_list(guest: Guest, space: int, flags: int, mask: int, ranges: list[int]) -> Status:
    """HvFlushVirtualAddressList."""
    data = struct.pack(f"<QQQ{len(ranges)}Q", space, flags, mask, *ranges)
    return guest.status(FLUSH_ADDRESS_LIST | reps(len(ranges)), data)


def the_flush(guest: Guest) -> Flush:
    """The only flush that there was."""
    (flush,) = guest.machine.flushes
    return flush


# -- 12.4.1 HvSwitchVirtualAddressSpace --


@pytest.mark.parametrize("cr3", [0, 0x1000, CR3, 0x1018, 0xF_FFFF_F000])
def test_switch_loads_cr3_without_a_flush(guest: Guest, cr3: int) -> None:
    """TLFS 12.1.1, 12.3.1, 12.4.1: CR3 of the calling VP is loaded, PWT and PCD too; nothing is flushed."""
    assert guest.fast(SWITCH_ADDRESS_SPACE, cr3, vp=2) == Status.SUCCESS
    assert guest.machine.cr3_loads == [(2, cr3)]
    assert guest.machine.flushes == []


@pytest.mark.parametrize("bit", [36, 40, 51, 52, 62, 63])
def test_switch_to_an_invalid_cr3(guest: Guest, bit: int) -> None:
    """TLFS 12.4.1: reserved bits, here those above the physical address width of 36 bits."""
    assert guest.fast(SWITCH_ADDRESS_SPACE, CR3 | 1 << bit) == Status.INVALID_PARAMETER
    assert guest.machine.cr3_loads == []


# -- 12.4.2 HvFlushVirtualAddressSpace --


@pytest.mark.parametrize("mask", [0b1, 0b10, 0b101, 0b1111])
def test_flush_acts_on_the_mask(guest: Guest, mask: int) -> None:
    """TLFS 12.4.2: exactly the VPs of the mask are flushed, the caller only if it is one."""
    assert flush_space(guest, CR3, 0, mask, vp=1) == Status.SUCCESS
    flush = the_flush(guest)
    assert flush["vps"] == [vp for vp in range(4) if mask >> vp & 1]
    assert flush["caller"] == 1
    assert flush["ranges"] is None


@pytest.mark.parametrize("mask", [0, 0b10, ONES])
def test_flush_all_processors_ignores_the_mask(guest: Guest, mask: int) -> None:
    """TLFS 12.3.2, 12.4.2: HV_FLUSH_ALL_PROCESSORS."""
    assert flush_space(guest, CR3, ALL_PROCESSORS, mask) == Status.SUCCESS
    assert the_flush(guest)["vps"] == [0, 1, 2, 3]


def test_flush_ignores_vps_that_do_not_exist(guest: Guest) -> None:
    """TLFS 12.4.2: bits of the mask without a VP are no error."""
    assert flush_space(guest, CR3, 0, ONES) == Status.SUCCESS
    assert the_flush(guest)["vps"] == [0, 1, 2, 3]


def test_flush_of_no_processor(guest: Guest) -> None:
    """TLFS 12.4.2, 12.4.3: an empty mask without HV_FLUSH_ALL_PROCESSORS."""
    assert flush_space(guest, CR3, 0, 0) == Status.INVALID_PARAMETER
    assert flush_list(guest, CR3, ALL_SPACES, 0, [0x1000]) == Status.INVALID_PARAMETER
    assert guest.machine.flushes == []


@pytest.mark.parametrize(("flags", "keep_global"), [(0, False), (NON_GLOBAL, True)])
def test_global_mappings(guest: Guest, flags: int, keep_global: bool) -> None:
    """TLFS 12.3.2, 12.4.2: only with HV_FLUSH_NON_GLOBAL_MAPPINGS_ONLY may global entries stay."""
    assert flush_space(guest, CR3, flags, 1) == Status.SUCCESS
    assert the_flush(guest)["keep_global"] is keep_global


@pytest.mark.parametrize("bit", [4, 5, 16, 31, 32, 63])
def test_reserved_flags(guest: Guest, bit: int) -> None:
    """TLFS 12.3.2, 12.4.2, 12.4.3: all other flags are reserved and must be zero."""
    assert flush_space(guest, CR3, 1 << bit, 1) == Status.INVALID_PARAMETER
    assert flush_list(guest, CR3, 1 << bit, 1, [0x1000]) == Status.INVALID_PARAMETER
    assert guest.machine.flushes == []


def test_flag_8_is_reserved_in_2008r2() -> None:
    """TLFS 12.4.2: bit 3 has no meaning yet."""
    guest = Guest("2008r2")
    assert flush_space(guest, CR3, 8, 1) == Status.INVALID_PARAMETER
    assert flush_list(guest, CR3, 8, 1, [0x1000]) == Status.INVALID_PARAMETER


@pytest.mark.parametrize("bit", [36, 52, 63])
def test_invalid_address_space(guest: Guest, bit: int) -> None:
    """TLFS 12.4.2, 12.4.3: an invalid CR3 value, unless all address spaces are meant."""
    space = CR3 | 1 << bit
    assert flush_space(guest, space, 0, 1) == Status.INVALID_PARAMETER
    assert flush_list(guest, space, 0, 1, [0x1000]) == Status.INVALID_PARAMETER
    assert guest.machine.flushes == []
    assert flush_space(guest, space, ALL_SPACES, 1) == Status.SUCCESS
    assert flush_list(guest, space, ALL_SPACES, 1, [0x1000]) == Status.SUCCESS


# -- 12.4.3 HvFlushVirtualAddressList --


@pytest.mark.parametrize("extra", [0, 1, 7, 0xFFF])
def test_range_length(guest: Guest, extra: int) -> None:
    """TLFS 12.4.3: the low 12 bits count additional pages: 1 to 4096 in all."""
    assert flush_list(guest, CR3, 0, 0b110, [0x12345000 | extra]) == Status.SUCCESS
    flush = the_flush(guest)
    assert flush["ranges"] == [(0x12345000, extra + 1)]
    assert flush["vps"] == [1, 2]


def test_range_in_the_upper_half(guest: Guest) -> None:
    """TLFS 12.4.3: kernel addresses have their upper bits set."""
    assert flush_list(guest, CR3, 0, 1, [0xFFFF_8000_1234_5002]) == Status.SUCCESS
    assert the_flush(guest)["ranges"] == [(0xFFFF_8000_1234_5000, 3)]


def test_list_does_not_take_non_global_only(guest: Guest) -> None:
    """TLFS 12.4.3: HV_FLUSH_NON_GLOBAL_MAPPINGS_ONLY is an invalid option here."""
    assert flush_list(guest, CR3, NON_GLOBAL, 1, [0x1000]) == Status.INVALID_PARAMETER
    assert guest.machine.flushes == []


def test_invalid_addresses_are_ignored(guest: Guest) -> None:
    """TLFS 12.4.3: GVAs beyond the GVA space are no error and count as completed."""
    ranges = [0x0000_8000_0000_0000, 0x1000, 0x1234_5678_9ABC_D000]
    data = struct.pack("<QQQ3Q", CR3, 0, 1, *ranges)
    result = guest.call(FLUSH_ADDRESS_LIST | reps(3), data)
    assert (result.status, result.reps_completed) == (Status.SUCCESS, 3)
    flushed = [gva for flush in guest.machine.flushes for gva, _ in flush["ranges"] or []]
    assert 0x1000 in flushed


# -- The forms with VP sets, of the current generation --


@pytest.fixture
def large() -> Guest:
    """A guest of the current generation with 130 VPs."""
    return Guest("current", vps=130)


def ex(space: int, flags: int, form: int, mask: int, *contents: int) -> bytes:
    """Header of the Ex forms: address space, flags, VP set."""
    return struct.pack(f"<QQQQ{len(contents)}Q", space, flags, form, mask, *contents)


def test_sparse_set(large: Guest) -> None:
    """A sparse VP set holds one 64-bit bank for each bit of its bank mask."""
    data = ex(CR3, 0, SPARSE, 0b101, 1 << 5 | 1, 0b10)
    assert large.status(FLUSH_VIRTUAL_ADDRESS_SPACE_EX | banks(2), data) == Status.SUCCESS
    assert the_flush(large)["vps"] == [0, 5, 129]


def test_set_of_all(large: Guest) -> None:
    """A VP set of format 1 means all VPs, and so does HV_FLUSH_ALL_PROCESSORS."""
    assert large.status(FLUSH_VIRTUAL_ADDRESS_SPACE_EX, ex(CR3, 0, ALL, 0)) == Status.SUCCESS
    assert large.status(FLUSH_VIRTUAL_ADDRESS_SPACE_EX, ex(CR3, ALL_PROCESSORS, SPARSE, 0)) == Status.SUCCESS
    assert [f["vps"] for f in large.machine.flushes] == [list(range(130))] * 2


def test_list_with_a_set(large: Guest) -> None:
    """The list lies behind the variable header."""
    data = ex(CR3, 0, SPARSE, 0b10, 1 << 63) + struct.pack("<QQ", 0x5000, 0x9001)
    result = large.call(FLUSH_VIRTUAL_ADDRESS_LIST_EX | banks(1) | reps(2), data)
    assert (result.status, result.reps_completed) == (Status.SUCCESS, 2)
    ranges = [pair for flush in large.machine.flushes for pair in flush["ranges"] or []]
    assert ranges == [(0x5000, 1), (0x9000, 2)]
    assert large.machine.flushes[0]["vps"] == [127]


def test_set_in_registers(large: Guest) -> None:
    """TLFS 4.7.1: the set's banks follow the header in the XMM registers."""
    xmm = struct.pack("<QQQQ", SPARSE, 0b11, 1 << 7, 1 << 1)
    status = large.fast(FLUSH_VIRTUAL_ADDRESS_SPACE_EX | banks(2), CR3, 0, xmm=xmm)
    assert status == Status.SUCCESS
    assert the_flush(large)["vps"] == [7, 65]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_set_that_does_not_fit_its_header(large: Guest, count: int) -> None:
    """The bank mask and the variable header size must agree."""
    data = ex(CR3, 0, SPARSE, 0b101, 1, 1, 1)
    status = large.status(FLUSH_VIRTUAL_ADDRESS_SPACE_EX | banks(count), data)
    assert status in (Status.INVALID_HYPERCALL_INPUT, Status.INVALID_PARAMETER)
    assert large.machine.flushes == []


def test_set_of_unknown_format(large: Guest) -> None:
    """Formats other than sparse and all do not exist."""
    assert large.status(FLUSH_VIRTUAL_ADDRESS_SPACE_EX, ex(CR3, 0, 2, 0)) == Status.INVALID_PARAMETER
    assert large.machine.flushes == []


def test_variable_header_crosses_the_page(large: Guest) -> None:
    """TLFS 4.6: the variable header belongs to the parameter block, which lies in one page."""
    gpa = 0x10000 + 4096 - 40
    data = ex(CR3, 0, SPARSE, 0b1, 1)
    assert large.status(FLUSH_VIRTUAL_ADDRESS_SPACE_EX | banks(1), data, gpa=gpa) == Status.SUCCESS
    two = ex(CR3, 0, SPARSE, 0b11, 1, 1)
    assert large.status(FLUSH_VIRTUAL_ADDRESS_SPACE_EX | banks(2), two, gpa=gpa) == Status.INVALID_ALIGNMENT


@pytest.mark.parametrize("code", [FLUSH_ADDRESS_SPACE, SWITCH_ADDRESS_SPACE | FAST])
def test_other_calls_take_no_variable_header(guest: Guest, code: int) -> None:
    """Bits 26:17 of the input value must be zero for a call without a variable header."""
    assert guest.status(code | banks(1)) == Status.INVALID_HYPERCALL_INPUT
