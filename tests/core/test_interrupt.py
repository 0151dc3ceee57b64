# SPDX-License-Identifier: GPL-2.0-or-later
"""Chapter 13 of the TLFS: virtual interrupt control, guest side."""

from __future__ import annotations

import struct

import pytest
from simulated_guest import (
    APIC_ASSIST_PAGE,
    ASSIST,
    AUTO_EOI,
    EOI,
    EVENT,
    GPA_END,
    ICR,
    PAGE,
    TPR,
    Guest,
)

from qemu_hv._core import GeneralProtectionFault, Status

DEVICE = 0x51
"""Vector of a device's interrupt."""


def enable_assist(guest: Guest, vp: int = 0) -> None:
    """Show the VP's APIC assist page (TLFS 13.3.4.1)."""
    guest.machine.wrmsr(vp, APIC_ASSIST_PAGE, ASSIST + vp * PAGE | 1)


def no_eoi_required(guest: Guest, vp: int = 0) -> bool:
    """The EOI assist field, whose other bits must be zero."""
    (field,) = struct.unpack("<I", guest.machine.read(ASSIST + vp * PAGE, 4))
    assert field in (0, 1)
    return bool(field)


def take(guest: Guest, vector: int, vp: int = 0) -> None:
    """Request an interrupt and have the VP accept it."""
    guest.machine.request_interrupt(vp, vector)
    assert guest.machine.accept(vp) == vector


# -- 13.2.3 Local APIC MSRs --


def test_eoi_register(guest: Guest) -> None:
    """TLFS 13.2.3.1: a write ends the interrupt in service of the calling VP."""
    m = guest.machine
    take(guest, DEVICE, vp=0)
    take(guest, DEVICE, vp=1)
    m.wrmsr(1, EOI, 0)
    assert m.apic(1)["isr"] == []
    assert m.apic(0)["isr"] == [DEVICE]


def test_eoi_value_reaches_the_apic(guest: Guest) -> None:
    """TLFS 13.2.3.1: bits 31:0 are set into the APIC's EOI register."""
    guest.machine.wrmsr(0, EOI, 0x1234)
    assert guest.machine.eoi_writes == [(0, 0x1234)]


def test_eoi_cannot_be_read(guest: Guest) -> None:
    """TLFS 13.2.3.1: reading EOI is #GP."""
    with pytest.raises(GeneralProtectionFault):
        guest.machine.rdmsr(0, EOI)


def test_icr_register(guest: Guest) -> None:
    """TLFS 13.2.3.2: 63:32 are ICR high and 31:0 ICR low, of the calling VP."""
    m = guest.machine
    m.wrmsr(1, ICR, 0x02000000_000040FB)
    assert m.icr_writes == [(1, 0x02000000_000040FB)]
    assert m.rdmsr(1, ICR) == 0x02000000_000040FB
    assert m.rdmsr(0, ICR) == 0


def test_tpr_register(guest: Guest) -> None:
    """TLFS 13.2.3.3: bits 7:0 are the TPR of the calling VP."""
    m = guest.machine
    m.wrmsr(1, TPR, 0x5F)
    assert m.rdmsr(1, TPR) == m.apic(1)["tpr"] == 0x5F
    assert m.rdmsr(0, TPR) == 0


@pytest.mark.parametrize("bit", [8, 9, 31, 32, 63])
def test_tpr_reserved_bits(guest: Guest, bit: int) -> None:
    """TLFS 13.2.3.3: bits 63:8 are RsvdZ."""
    with pytest.raises(GeneralProtectionFault):
        guest.machine.wrmsr(0, TPR, 1 << bit | 0x20)
    assert guest.machine.rdmsr(0, TPR) == 0


# -- 13.3.4.1 APIC assist page --


def test_assist_page_is_an_overlay(guest: Guest) -> None:
    """TLFS 13.3.4.1, 8.1.3: readable and writable, covers RAM, uncovers it when it goes."""
    m = guest.machine
    m.write(ASSIST, b"ram!")
    enable_assist(guest)
    assert m.read(ASSIST, PAGE) == bytes(PAGE)
    m.write(ASSIST + 64, b"page")
    m.wrmsr(0, APIC_ASSIST_PAGE, ASSIST)
    assert m.read(ASSIST, 4) == b"ram!"
    assert m.read(ASSIST + 64, 4) == bytes(4)


def test_assist_page_before_the_identity(generation: str) -> None:
    """Deployed clients enable the page before they set GUEST_OS_ID."""
    guest = Guest(generation)
    guest.machine.reset()
    enable_assist(guest)
    assert guest.machine.rdmsr(0, APIC_ASSIST_PAGE) == ASSIST | 1
    take(guest, DEVICE)
    assert no_eoi_required(guest)


def test_assist_register_is_per_vp(guest: Guest) -> None:
    """TLFS 13.3.4.1: there is one assist page for each VP."""
    enable_assist(guest, 1)
    assert guest.machine.rdmsr(0, APIC_ASSIST_PAGE) == 0
    enable_assist(guest, 0)
    take(guest, DEVICE, vp=1)
    assert no_eoi_required(guest, 1)
    assert not no_eoi_required(guest, 0)


def test_assist_register_preserves_reserved_bits(guest: Guest) -> None:
    """TLFS 13.3.4.1: bits 11:1 are RsvdP."""
    guest.machine.wrmsr(0, APIC_ASSIST_PAGE, ASSIST | 0xFFF)
    assert guest.machine.rdmsr(0, APIC_ASSIST_PAGE) == ASSIST | 0xFFF


@pytest.mark.parametrize("gpa", [GPA_END, 1 << 51, (1 << 64) - PAGE])
def test_assist_page_beyond_the_gpa_space(guest: Guest, gpa: int) -> None:
    """An assist page beyond the GPA space is accepted and not accessible."""
    m = guest.machine
    m.wrmsr(0, APIC_ASSIST_PAGE, gpa | 1)
    assert m.rdmsr(0, APIC_ASSIST_PAGE) == gpa | 1
    assert [overlay for overlay in m.overlays if overlay[2] != 0x20000] == []
    take(guest, DEVICE)
    m.wrmsr(0, EOI, 0)
    assert m.apic(0)["isr"] == []


def test_no_eoi_required_for_a_lone_edge_interrupt(guest: Guest) -> None:
    """TLFS 13.3.4.1: set when an edge interrupt is injected and no other is pending."""
    enable_assist(guest)
    assert not no_eoi_required(guest)
    take(guest, DEVICE)
    assert no_eoi_required(guest)


def test_assisted_eoi(guest: Guest) -> None:
    """TLFS 13.3.4.1: clearing the bit is the EOI; no MSR write is needed, the APIC learns later."""
    m = guest.machine
    enable_assist(guest)
    take(guest, DEVICE)
    assert m.assisted_eoi(0)
    assert m.eoi_writes == []
    assert not no_eoi_required(guest)
    assert m.accept(0) is None
    assert m.apic(0)["isr"] == []
    take(guest, DEVICE - 0x10)
    assert m.apic(0)["isr"] == [DEVICE - 0x10]


def test_eoi_is_required_while_another_interrupt_is_pending(guest: Guest) -> None:
    """TLFS 13.3.4.1: not set while a lower priority interrupt is pending."""
    m = guest.machine
    enable_assist(guest)
    m.request_interrupt(0, 0x31)
    take(guest, DEVICE)
    assert not no_eoi_required(guest)
    assert not m.assisted_eoi(0)
    assert m.accept(0) == 0x31
    assert no_eoi_required(guest)


def test_a_later_request_withdraws_the_bit(guest: Guest) -> None:
    """TLFS 13.3.4.1: if a lower priority interrupt is requested later, the bit is cleared."""
    m = guest.machine
    enable_assist(guest)
    take(guest, DEVICE)
    m.request_interrupt(0, 0x31)
    assert not no_eoi_required(guest)
    assert not m.assisted_eoi(0)
    assert m.apic(0)["isr"] == []
    assert m.accept(0) == 0x31


def test_a_request_after_the_assisted_eoi(guest: Guest) -> None:
    """TLFS 13.3.4.1: the state of the APIC is derived before the next interrupt is evaluated."""
    m = guest.machine
    enable_assist(guest)
    take(guest, DEVICE)
    assert m.assisted_eoi(0)
    m.request_interrupt(0, 0x31)
    assert m.apic(0)["isr"] == []
    assert m.accept(0) == 0x31


def test_nested_interrupts(guest: Guest) -> None:
    """TLFS 13.3.4.1: only the EOI of the highest priority interrupt is avoided."""
    m = guest.machine
    enable_assist(guest)
    take(guest, 0x31)
    take(guest, DEVICE)
    assert no_eoi_required(guest)
    assert m.assisted_eoi(0)
    assert not m.assisted_eoi(0)
    assert m.apic(0)["isr"] == []
    assert len(m.eoi_writes) == 1


def test_conventional_eoi_despite_the_bit(guest: Guest) -> None:
    """TLFS 13.3.4.1: conventional EOIs work whatever the bit says, and end one interrupt."""
    m = guest.machine
    enable_assist(guest)
    take(guest, 0x31)
    take(guest, DEVICE)
    m.wrmsr(0, EOI, 0)
    assert m.apic(0)["isr"] == [0x31]
    m.eoi(0)
    assert m.apic(0)["isr"] == []


def test_disabling_the_page_in_service(guest: Guest) -> None:
    """TLFS 13.3.4.1: the enlightenment may be switched at any time: a clean EOI still follows."""
    m = guest.machine
    enable_assist(guest)
    take(guest, DEVICE)
    m.wrmsr(0, APIC_ASSIST_PAGE, 0)
    m.wrmsr(0, EOI, 0)
    assert m.apic(0)["isr"] == []
    take(guest, DEVICE)
    m.wrmsr(0, EOI, 0)
    assert m.apic(0)["isr"] == []


def test_disabling_the_page_after_the_assisted_eoi(guest: Guest) -> None:
    """TLFS 13.3.4.1: an EOI that was done through the page is not lost with the page."""
    m = guest.machine
    enable_assist(guest)
    take(guest, DEVICE)
    assert m.assisted_eoi(0)
    m.wrmsr(0, APIC_ASSIST_PAGE, 0)
    take(guest, 0x31)
    assert m.apic(0)["isr"] == [0x31]


def test_enabling_the_page_in_service(guest: Guest) -> None:
    """TLFS 13.3.4.1: a page enabled while an interrupt is in service asks for its EOI."""
    take(guest, DEVICE)
    enable_assist(guest)
    assert not no_eoi_required(guest)
    assert not guest.machine.assisted_eoi(0)
    assert guest.machine.apic(0)["isr"] == []


def test_without_the_page_nothing_is_assisted(guest: Guest) -> None:
    """TLFS 13.3.4.1: without the page each interrupt needs its EOI."""
    take(guest, DEVICE)
    assert not guest.machine.assisted_eoi(0)
    assert guest.machine.vp_state(0)["assisted_eois"] == 0


def test_assisted_eois_are_counted(guest: Guest) -> None:
    """An operator sees how many EOIs the page saved."""
    enable_assist(guest)
    for _ in range(3):
        take(guest, DEVICE)
        assert guest.machine.assisted_eoi(0)
    guest.machine.accept(0)
    assert guest.machine.vp_state(0)["assisted_eois"] == 3


# -- 14.6.5 Auto-EOI, as the APIC sees it --


def signal_with(guest: Guest, sint_value: int, vp: int = 0) -> None:
    """Have the SINT raise its interrupt by an event flag."""
    guest.enable_synic(vp)
    guest.set_sint(3, sint_value, vp)
    guest.open_port(9, port_type=EVENT, sint=3, vp=vp, flag_count=1)
    assert guest.signal(9) == Status.SUCCESS


@pytest.mark.parametrize("assisted", [False, True])
def test_auto_eoi(guest: Guest, assisted: bool) -> None:
    """TLFS 14.6.5: with AutoEOI the ISR bit is cleared at delivery, and no EOI is ever wanted."""
    m = guest.machine
    if assisted:
        enable_assist(guest)
    signal_with(guest, 0x61 | AUTO_EOI)
    assert m.accept(0) == 0x61
    assert m.apic(0)["isr"] == []
    if assisted:
        assert not no_eoi_required(guest)
    assert m.vp_state(0)["auto_eois"] == 1


def test_without_auto_eoi(guest: Guest) -> None:
    """TLFS 14.6.5: without AutoEOI the interrupt is in service until its EOI."""
    m = guest.machine
    signal_with(guest, 0x61)
    assert m.accept(0) == 0x61
    assert m.apic(0)["isr"] == [0x61]
    m.wrmsr(0, EOI, 0)
    assert m.apic(0)["isr"] == []


def test_auto_eoi_is_a_matter_of_its_vector_and_vp(guest: Guest) -> None:
    """TLFS 14.6.5: interrupts of other vectors and of other VPs keep their EOI."""
    m = guest.machine
    signal_with(guest, 0x61 | AUTO_EOI, vp=1)
    assert m.accept(1) == 0x61
    take(guest, DEVICE, vp=1)
    assert m.apic(1)["isr"] == [DEVICE]
    m.eoi(1)
    take(guest, 0x61, vp=0)
    assert m.apic(0)["isr"] == [0x61]


def test_auto_eoi_follows_the_register(guest: Guest) -> None:
    """TLFS 14.6.5: AutoEOI can be turned on and off at any time."""
    m = guest.machine
    signal_with(guest, 0x61 | AUTO_EOI)
    guest.set_sint(3, 0x61)
    assert m.accept(0) == 0x61
    assert m.apic(0)["isr"] == [0x61]
    m.eoi(0)
    guest.set_sint(3, 0x62 | AUTO_EOI)
    take(guest, 0x61)
    assert m.apic(0)["isr"] == [0x61]
    m.eoi(0)
    take(guest, 0x62)
    assert m.apic(0)["isr"] == []


# -- Interrupts between VPs by hypercall, of the current generation --

SEND_IPI = 0x000B
SEND_IPI_EX = 0x0015


@pytest.fixture
def large() -> Guest:
    """A guest of the current generation with 130 VPs."""
    return Guest("current", vps=130)


def test_cluster_ipi(large: Guest) -> None:
    """HvSendSyntheticClusterIpi: vector and a mask of VPs 0 to 63, fast or in memory."""
    assert large.fast(SEND_IPI, 0xFB, 1 << 63 | 0b10) == Status.SUCCESS
    assert large.machine.interrupts == [(1, 0xFB), (63, 0xFB)]
    data = struct.pack("<IIQ", 0x40, 0, 1)
    assert large.status(SEND_IPI, data, vp=70) == Status.SUCCESS
    assert large.machine.interrupts[2:] == [(0, 0x40)]


def test_cluster_ipi_ignores_vps_that_do_not_exist() -> None:
    """Bits of the mask without a VP are no error."""
    guest = Guest("current", vps=2)
    assert guest.fast(SEND_IPI, 0x40, (1 << 64) - 1) == Status.SUCCESS
    assert guest.machine.interrupts == [(0, 0x40), (1, 0x40)]


@pytest.mark.parametrize("vector", [0, 1, 15, 256, 0xFFFFFFFF])
def test_cluster_ipi_vector(large: Guest, vector: int) -> None:
    """Vectors are 16 to 255."""
    assert large.fast(SEND_IPI, vector, 1) == Status.INVALID_PARAMETER
    data = struct.pack("<IIQQQ", vector, 0, 0, 1, 1)
    assert large.status(SEND_IPI_EX | 1 << 17, data) == Status.INVALID_PARAMETER
    assert large.machine.interrupts == []


def test_cluster_ipi_ex(large: Guest) -> None:
    """HvSendSyntheticClusterIpiEx: a VP set, in memory or in registers."""
    data = struct.pack("<IIQQQQ", 0x40, 0, 0, 0b101, 1 << 3, 1)
    assert large.status(SEND_IPI_EX | 2 << 17, data) == Status.SUCCESS
    assert large.machine.interrupts == [(3, 0x40), (128, 0x40)]
    xmm = struct.pack("<QQ", 0b10, 1 << 9)
    assert large.fast(SEND_IPI_EX | 1 << 17, 0x41, 0, xmm=xmm) == Status.SUCCESS
    assert large.machine.interrupts[2:] == [(73, 0x41)]


@pytest.mark.parametrize(("form", "banks"), [(2, 1), (0, 0), (0, 2)])
def test_cluster_ipi_ex_with_a_wrong_set(large: Guest, form: int, banks: int) -> None:
    """A VP set of unknown format, or of another size than its header says."""
    data = struct.pack("<IIQQQQ", 0x40, 0, form, 0b1, 1, 1)
    status = large.status(SEND_IPI_EX | banks << 17, data)
    assert status in (Status.INVALID_HYPERCALL_INPUT, Status.INVALID_PARAMETER)
    assert large.machine.interrupts == []


def test_cluster_ipi_ex_to_all(large: Guest) -> None:
    """A VP set of format 1 names every VP."""
    data = struct.pack("<IIQQ", 0x40, 0, 1, 0)
    assert large.status(SEND_IPI_EX, data) == Status.SUCCESS
    assert large.machine.interrupts == [(vp, 0x40) for vp in range(130)]
