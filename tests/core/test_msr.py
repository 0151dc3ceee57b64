# SPDX-License-Identifier: GPL-2.0-or-later
"""Appendix H of the TLFS: access to the synthetic MSRs; and those that have no chapter here."""

from __future__ import annotations

import itertools

import pytest
from simulated_guest import (
    EOM,
    GUEST_IDLE,
    ONES,
    RESET,
    SINT0,
    VP_INDEX,
    VP_RUNTIME,
    Guest,
)
from spec_tables import REGISTERS_2008R2, Register

from qemu_hv._core import (
    GENERATIONS,
    GeneralProtectionFault,
    Machine,
    MsrRow,
    msr_rows,
)

ALL_PRIVILEGES = ONES
ALL_FEATURES = 0xFFFFFFFF
LATER = {
    0x40000022: "TSC_FREQUENCY",
    0x40000023: "APIC_FREQUENCY",
    0x40000105: "CRASH_CTL",
    0x40000118: "TSC_INVARIANT_CONTROL",
    **{0x40000100 + n: f"CRASH_P{n}" for n in range(5)},
    0x400000F1: "SYNDBG_CONTROL",
    0x400000F2: "SYNDBG_STATUS",
    **{0x400000F3 + n: f"SYNDBG_BUFFER{n}" for n in range(3)},
    0x400000FF: "SYNDBG_OPTIONS",
}
"""What came after 2.0a."""


def register_id(register: Register) -> str:
    """Name of a parametrised register."""
    return register.name


def faults(machine: Machine, index: int, value: int | None, vp: int = 0) -> bool:
    """Whether a read (value None) or a write of the register is #GP."""
    try:
        if value is None:
            machine.rdmsr(vp, index)
        else:
            machine.wrmsr(vp, index, value)
    except GeneralProtectionFault:
        return True
    return False


@pytest.mark.parametrize("register", REGISTERS_2008R2, ids=register_id)
def test_access_with_the_privilege(generation: str, register: Register) -> None:
    """TLFS appendix H, 11.10: what the table allows works, the other direction is #GP."""
    m = Machine(generation, vps=2, privileges=1 << register.privilege, features=ALL_FEATURES)
    readable = register.implemented and "R" in register.access
    writable = register.implemented and "W" in register.access
    for vp in (0, 1):
        assert faults(m, register.number, register.sample, vp) != writable
        assert faults(m, register.number, None, vp) != readable


@pytest.mark.parametrize("register", REGISTERS_2008R2, ids=register_id)
def test_access_without_the_privilege(generation: str, register: Register) -> None:
    """TLFS 5.2.3, 11.10: every other privilege does not help: #GP both ways."""
    privileges = ALL_PRIVILEGES & ~(1 << register.privilege)
    m = Machine(generation, privileges=privileges, features=ALL_FEATURES)
    assert faults(m, register.number, None)
    assert faults(m, register.number, register.sample)


def test_a_refused_write_changes_nothing(generation: str) -> None:
    """TLFS 11.10: #GP leaves the register as it was."""
    with_synic = Machine(generation)
    assert faults(with_synic, SINT0 + 2, 5)
    assert with_synic.rdmsr(0, SINT0 + 2) == 0x10000


def test_table_of_2008r2() -> None:
    """TLFS appendix H: indices, access and privileges of the core's table."""
    table = {
        (row.index + n, row.readable, row.writable, row.privilege, row.implemented)
        for row in msr_rows
        if row.generations & GENERATIONS["2008r2"]
        for n in range(row.count)
    }
    assert table == {(r.number, "R" in r.access, "W" in r.access, r.privilege, r.implemented) for r in REGISTERS_2008R2}


def test_what_the_current_generation_adds() -> None:
    """The current generation has the registers of 2.0a and the ones that came later."""
    indices = {row.index + n for row in msr_rows if row.generations & GENERATIONS["current"] for n in range(row.count)}
    assert indices == {r.number for r in REGISTERS_2008R2} | set(LATER)


@pytest.mark.parametrize("index", LATER)
def test_2008r2_hides_what_came_later(index: int) -> None:
    """The generation 2008r2 knows none of the later registers."""
    m = Machine("2008r2", privileges=ALL_PRIVILEGES, features=ALL_FEATURES)
    assert faults(m, index, None)
    assert faults(m, index, 0)


@pytest.mark.parametrize(
    "row", [r for r in msr_rows if r.generations == GENERATIONS["current"]], ids=lambda r: str(r.name)
)
def test_later_registers_have_their_gates(row: MsrRow) -> None:
    """A later register works with its privilege or feature and is #GP without it."""
    privileges = 1 << row.privilege if row.privilege >= 0 else 0
    features = 1 << row.feature if row.feature >= 0 else 0
    on = Machine("current", privileges=privileges, features=features, debugging=True)
    off = Machine("current", privileges=ALL_PRIVILEGES & ~privileges, features=ALL_FEATURES & ~features, debugging=True)
    for index in range(row.index, row.index + row.count):
        assert faults(on, index, None) != row.readable
        assert faults(on, index, 0) != row.writable
        assert faults(off, index, None)
        assert faults(off, index, 0)


def test_every_other_index_faults(generation: str) -> None:
    """TLFS 11.10: an index that the hypervisor does not virtualize is #GP."""
    m = Machine(generation, privileges=ALL_PRIVILEGES, features=ALL_FEATURES, debugging=True)
    known = {r.number for r in REGISTERS_2008R2} | (set(LATER) if generation == "current" else set())
    edges = [0, 0x10, 0x1B, 0x3FFFFFFF, 0x40001FFF, 0x40002000, 0xC0000080, 0xFFFFFFFF]
    for index in itertools.chain(range(0x40000000, 0x40001200), edges):
        if index not in known:
            assert faults(m, index, None), hex(index)
            assert faults(m, index, 0), hex(index)


def test_counts(guest: Guest) -> None:
    """Each row counts reads and writes of its VP; unknown indices are counted together."""
    m = guest.machine
    (row,) = [n for n, row in enumerate(msr_rows) if row.name == "VP_INDEX"]
    before = m.vp_state(1)
    m.rdmsr(1, VP_INDEX)
    m.rdmsr(1, VP_INDEX)
    assert faults(m, 0x40000004, None, vp=1)
    after = m.vp_state(1)
    assert after["msr_reads"][row] - before["msr_reads"][row] == 2
    assert after["unknown_msrs"] - before["unknown_msrs"] == 1


# -- Registers of chapters that have no file here --


@pytest.mark.parametrize("vps", [1, 3, 64])
def test_vp_index(generation: str, vps: int) -> None:
    """TLFS 10.2.1: each VP reads its own index."""
    m = Machine(generation, vps=vps)
    assert [m.rdmsr(vp, VP_INDEX) for vp in range(vps)] == list(range(vps))


def test_vp_run_time(generation: str) -> None:
    """TLFS 10.3.2: each VP reads its own run time, in 100 ns."""
    m = Machine(generation, vps=2)
    m.set_run_time(1, 123456789)
    assert m.rdmsr(1, VP_RUNTIME) == 123456789
    assert m.rdmsr(0, VP_RUNTIME) == 0


def test_guest_idle(generation: str) -> None:
    """TLFS 10.1.4: reading the register puts the VP to sleep."""
    m = Machine(generation, vps=2)
    m.rdmsr(1, GUEST_IDLE)
    assert m.idles == [1]


def test_reset(generation: str) -> None:
    """TLFS 6.3.5: bit 0 resets the machine; a write of zero does not; reads give zero."""
    m = Machine(generation, vps=2)
    m.wrmsr(1, RESET, 0)
    assert m.resets == 0
    m.wrmsr(1, RESET, 1)
    assert m.resets == 1
    assert m.rdmsr(0, RESET) == 0


@pytest.mark.parametrize("bit", [1, 2, 31, 32, 63])
def test_reset_reserved_bits(generation: str, bit: int) -> None:
    """TLFS 6.3.5: bits 63:1 are RsvdZ."""
    m = Machine(generation)
    assert faults(m, RESET, 1 << bit | 1)
    assert m.resets == 0


def test_eom_reads_zero(guest: Guest) -> None:
    """TLFS 14.6.6: reads of EOM give zeros, and any value may be written."""
    guest.machine.wrmsr(0, EOM, ONES)
    assert guest.machine.rdmsr(0, EOM) == 0
