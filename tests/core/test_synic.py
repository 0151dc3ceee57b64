# SPDX-License-Identifier: GPL-2.0-or-later
"""Chapter 14 of the TLFS, the synthetic interrupt controller: registers, messages, event flags."""

from __future__ import annotations

import pytest
from simulated_guest import (
    AUTO_EOI,
    EVENT,
    GPA_END,
    MASKED,
    ONES,
    PAGE,
    RAM_END,
    SCONTROL,
    SIEFP,
    SIMP,
    SINT0,
    SVERSION,
    Guest,
)

from qemu_hv._core import GeneralProtectionFault, OverlayKind, Status

VECTOR = 0x40
PORT = 5


@pytest.fixture
def synic(guest: Guest) -> Guest:
    """A guest whose VP 0 has its SynIC enabled, SINT2 unmasked, and a message port there."""
    guest.enable_synic()
    guest.set_sint(2, VECTOR)
    guest.open_port(PORT)
    guest.machine.clear_records()
    return guest


def send(guest: Guest, *payloads: bytes) -> None:
    """Post messages that must be taken."""
    for payload in payloads:
        assert guest.post(PORT, payload) == Status.SUCCESS


def received(guest: Guest, sint: int = 2, vp: int = 0) -> bytes:
    """Receive one message of a single byte of payload."""
    message = guest.take_message(sint, vp)
    return message.payload[: message.size]


# -- 14.6 Registers --


def test_defaults(guest: Guest) -> None:
    """TLFS 14.6, 14.8.1: values at VP creation, of 16 sources."""
    m = guest.machine
    for vp in range(4):
        assert m.rdmsr(vp, SCONTROL) == 0
        assert m.rdmsr(vp, SVERSION) == 1
        assert m.rdmsr(vp, SIEFP) == 0
        assert m.rdmsr(vp, SIMP) == 0
        assert [m.rdmsr(vp, SINT0 + n) for n in range(16)] == [0x10000] * 16


def test_registers_are_per_vp(guest: Guest) -> None:
    """TLFS 14.6: each VP has its own copy."""
    m = guest.machine
    guest.enable_synic(1)
    guest.set_sint(4, 0x44, vp=1)
    assert (m.rdmsr(0, SCONTROL), m.rdmsr(0, SIMP), m.rdmsr(0, SIEFP)) == (0, 0, 0)
    assert m.rdmsr(0, SINT0 + 4) == 0x10000
    assert m.rdmsr(1, SINT0 + 4) == 0x44


@pytest.mark.parametrize("value", [ONES, ONES & ~1, 1])
def test_scontrol_preserves_reserved_bits(guest: Guest, value: int) -> None:
    """TLFS 14.6.1: bits 63:1 are RsvdP."""
    guest.machine.wrmsr(0, SCONTROL, value)
    assert guest.machine.rdmsr(0, SCONTROL) == value


def test_sversion_is_read_only(guest: Guest) -> None:
    """TLFS 14.6.2: a write is #GP."""
    with pytest.raises(GeneralProtectionFault):
        guest.machine.wrmsr(0, SVERSION, 1)


@pytest.mark.parametrize("register", [SIMP, SIEFP])
def test_page_registers_preserve_reserved_bits(guest: Guest, register: int) -> None:
    """TLFS 14.6.3, 14.6.4: bits 11:1 are RsvdP."""
    guest.machine.wrmsr(0, register, 0x30FFE)
    assert guest.machine.rdmsr(0, register) == 0x30FFE
    guest.machine.wrmsr(0, register, 0x30FFF)
    assert guest.machine.rdmsr(0, register) == 0x30FFF


@pytest.mark.parametrize(("register", "kind"), [(SIMP, OverlayKind.SIM), (SIEFP, OverlayKind.SIEF)])
def test_pages_are_overlays(guest: Guest, register: int, kind: OverlayKind) -> None:
    """TLFS 14.7, 8.1.3: zero at first, like RAM, keeps its content when moved, uncovers RAM."""
    m = guest.machine
    m.write(0x30000, b"under one")
    m.write(0x31000, b"under two")
    m.wrmsr(2, register, 0x30000 | 1)
    assert (kind, 2, 0x30000) in m.overlays
    assert m.read(0x30000, PAGE) == bytes(PAGE)
    m.write(0x30FF0, b"guest writes")
    assert m.read(0x30FF0, 12) == b"guest writes"
    m.wrmsr(2, register, 0x31000 | 1)
    assert m.read(0x30000, 9) == b"under one"
    assert m.read(0x31FF0, 12) == b"guest writes"
    m.wrmsr(2, register, 0x31000)
    assert m.read(0x31000, 9) == b"under two"
    assert m.read(0x31FF0, 12) == bytes(12)


@pytest.mark.parametrize("register", [SIMP, SIEFP])
@pytest.mark.parametrize("gpa", [GPA_END, 1 << 51, ONES & ~0xFFF])
def test_pages_beyond_the_gpa_space(guest: Guest, register: int, gpa: int) -> None:
    """TLFS 14.6.3, 14.6.4: accepted, and not accessible to the guest."""
    m = guest.machine
    before = m.overlays
    m.wrmsr(0, register, gpa | 1)
    assert m.rdmsr(0, register) == gpa | 1
    assert m.overlays == before


def test_page_where_no_ram_is(guest: Guest) -> None:
    """TLFS 8.1.3: an overlay needs nothing under it."""
    m = guest.machine
    m.wrmsr(0, SIMP, RAM_END | 1)
    assert m.read(RAM_END, 16) == bytes(16)
    m.wrmsr(0, SIMP, 0)
    assert m.read(RAM_END, 16) == b"\xff" * 16


@pytest.mark.parametrize("vector", [0, 1, 15])
def test_invalid_vectors(guest: Guest, vector: int) -> None:
    """TLFS 14.6.5: vectors 0 to 15 are #GP, but for a masked source."""
    for value in (vector, vector | AUTO_EOI):
        with pytest.raises(GeneralProtectionFault):
            guest.set_sint(3, value)
    assert guest.machine.rdmsr(0, SINT0 + 3) == 0x10000
    guest.set_sint(3, MASKED | vector)
    assert guest.machine.rdmsr(0, SINT0 + 3) == MASKED | vector


@pytest.mark.parametrize("vector", [16, 0x40, 0xFF])
def test_valid_vectors(guest: Guest, vector: int) -> None:
    """TLFS 14.6.5: vectors 16 to 255 are valid, for each source."""
    for sint in range(16):
        guest.set_sint(sint, vector)
        assert guest.machine.rdmsr(0, SINT0 + sint) == vector


def test_sint_preserves_reserved_bits(guest: Guest) -> None:
    """TLFS 14.6.5: bits 15:8 and 63:18 are RsvdP. (Bits 20:18 got meanings later.)"""
    for value in (0x55FF | MASKED, (ONES << 21 & ONES) | 0xFF00 | VECTOR, 0xFF55 | AUTO_EOI):
        guest.set_sint(3, value)
        assert guest.machine.rdmsr(0, SINT0 + 3) == value


# -- 14.2 Messages --


def test_message_layout(synic: Guest) -> None:
    """TLFS 14.8.4: type, payload size, flags, port ID, payload."""
    payload = bytes(range(100))
    assert synic.post(PORT, payload, message_type=0x1234) == Status.SUCCESS
    message = synic.message(2)
    assert (message.type, message.size, message.origin) == (0x1234, 100, PORT)
    assert message.payload[:100] == payload
    assert not message.pending


@pytest.mark.parametrize("size", [0, 1, 8, 239, 240])
def test_only_the_payload_is_sent(synic: Guest, size: int) -> None:
    """TLFS 14.9.7: only the first n bytes are sent."""
    synic.machine.write(synic.sim(0) + 2 * 256 + 16, b"\x77" * 240)
    send(synic, b"\x11" * size)
    message = synic.message(2)
    assert message.size == size
    assert message.payload[:size] == b"\x11" * size
    assert b"\xee" not in message.payload


def test_delivery_raises_an_interrupt(synic: Guest) -> None:
    """TLFS 14.2.4: with the message comes one edge-triggered interrupt of the SINT's vector."""
    send(synic, b"a")
    assert synic.machine.interrupts == [(0, VECTOR)]


def test_messages_queue_behind_a_full_slot(synic: Guest) -> None:
    """TLFS 14.2.4: while the slot is full the next message stays queued, without an interrupt."""
    send(synic, b"a", b"b")
    assert synic.message(2).payload[:1] == b"a"
    assert synic.machine.interrupts == [(0, VECTOR)]
    assert synic.machine.vp_state(0)["queued"][2] == 1


def test_pending_flag(synic: Guest) -> None:
    """TLFS 14.8.3: the flag says that messages wait, also when they came after delivery."""
    send(synic, b"a")
    assert not synic.message(2).pending
    send(synic, b"b", b"c")
    assert synic.message(2).pending
    assert synic.take_message(2).payload[:1] == b"a"
    assert synic.message(2).pending
    assert synic.take_message(2).payload[:1] == b"b"
    assert not synic.message(2).pending


def test_end_of_message_delivers_the_next(synic: Guest) -> None:
    """TLFS 14.6.6: EOM delivers into an empty slot and raises the interrupt."""
    send(synic, b"a", b"b")
    assert synic.empty_slot(2)
    synic.end_of_message()
    assert synic.message(2).payload[:1] == b"b"
    assert synic.machine.interrupts == [(0, VECTOR)] * 2


def test_end_of_message_with_a_full_slot(synic: Guest) -> None:
    """TLFS 14.6.6: delivery needs an empty slot; nothing is lost."""
    send(synic, b"a", b"b")
    synic.end_of_message()
    assert synic.message(2).payload[:1] == b"a"
    assert synic.machine.interrupts == [(0, VECTOR)]
    assert received(synic) == b"a"
    assert received(synic) == b"b"


def test_end_of_message_with_empty_queues(synic: Guest) -> None:
    """TLFS 14.6.6: a no-op."""
    before = synic.machine.read(synic.sim(0), PAGE)
    synic.end_of_message()
    assert synic.machine.read(synic.sim(0), PAGE) == before
    assert synic.machine.interrupts == []


def test_end_of_interrupt_delivers_the_next(synic: Guest) -> None:
    """TLFS 14.2.4: so does an EOI of the SINT's vector."""
    m = synic.machine
    send(synic, b"a", b"b")
    assert m.accept(0) == VECTOR
    synic.empty_slot(2)
    m.eoi(0)
    assert synic.message(2).payload[:1] == b"b"


def test_another_message_delivers_the_first(synic: Guest) -> None:
    """TLFS 14.2.4: queueing another message makes the hypervisor try again, in order."""
    send(synic, b"a", b"b")
    synic.empty_slot(2)
    send(synic, b"c")
    assert synic.message(2).payload[:1] == b"b"
    assert synic.message(2).pending
    assert received(synic) == b"b"
    assert received(synic) == b"c"


def test_delivery_is_retried_after_milliseconds(synic: Guest) -> None:
    """TLFS 14.2.4: a message that could not be delivered is tried again after some time."""
    send(synic, b"a", b"b")
    synic.empty_slot(2)
    synic.machine.advance(1_000_000)
    assert synic.message(2).payload[:1] == b"b"
    assert synic.machine.interrupts == [(0, VECTOR)] * 2


def test_order(synic: Guest) -> None:
    """TLFS 14.2.3: messages to one VP arrive in the order in which they were posted."""
    send(synic, *(bytes([n]) for n in range(17)))
    assert [received(synic) for _ in range(17)] == [bytes([n]) for n in range(17)]
    assert synic.message(2).type == 0


def test_masked_source_gets_its_message(synic: Guest) -> None:
    """TLFS 14.2.4: a masked SINT loses the interrupt, not the message."""
    synic.set_sint(2, VECTOR | MASKED)
    send(synic, b"a", b"b")
    assert received(synic) == b"a"
    assert received(synic) == b"b"
    assert synic.machine.interrupts == []


def test_masked_source_can_be_drained(synic: Guest) -> None:
    """TLFS 14.6.6: EOM drains the queue of a masked SINT, without interrupts."""
    send(synic, b"a", b"b", b"c")
    synic.machine.clear_records()
    synic.set_sint(2, MASKED)
    for expected in (b"a", b"b", b"c"):
        assert synic.message(2).payload[:1] == expected
        synic.empty_slot(2)
        synic.end_of_message()
    assert synic.machine.interrupts == []


def test_polling(synic: Guest) -> None:
    """Bit 18 of SINTx: reserved in 2.0a, without effect; later polling: messages, no interrupt."""
    synic.set_sint(2, VECTOR | 1 << 18)
    send(synic, b"a")
    assert synic.message(2).payload[:1] == b"a"
    assert synic.machine.interrupts == ([] if synic.generation == "current" else [(0, VECTOR)])


def test_disabled_apic_loses_the_interrupt(synic: Guest) -> None:
    """TLFS 14.2.4: with the APIC software-disabled the message arrives, the interrupt is lost."""
    synic.machine.set_apic_enabled(0, False)
    send(synic, b"a")
    assert synic.message(2).payload[:1] == b"a"
    assert synic.machine.interrupts == []
    assert synic.machine.accept(0) is None


def test_disabled_page_keeps_messages_queued(synic: Guest) -> None:
    """TLFS 14.2.4: while the SIM page is disabled queued messages stay; later they arrive."""
    m = synic.machine
    send(synic, b"a", b"b")
    synic.empty_slot(2)
    m.wrmsr(0, SIMP, 0)
    synic.end_of_message()
    m.advance(10_000_000)
    assert m.vp_state(0)["queued"][2] == 1
    m.wrmsr(0, SIMP, synic.sim(0) | 1)
    synic.end_of_message()
    assert synic.message(2).payload[:1] == b"b"


def test_sources_are_independent(synic: Guest) -> None:
    """TLFS 14.2.2: there is one queue for each SINT of each VP."""
    synic.set_sint(7, 0x47)
    synic.open_port(6, sint=7)
    send(synic, b"a", b"b")
    assert synic.post(6, b"x") == Status.SUCCESS
    assert synic.message(7).payload[:1] == b"x"
    assert synic.message(7).origin == 6
    assert not synic.message(7).pending
    assert synic.machine.interrupts == [(0, VECTOR), (0, 0x47)]


def test_end_of_message_scans_all_sources(synic: Guest) -> None:
    """TLFS 14.6.6: EOM scans the queues of the VP, not only that of one SINT."""
    synic.set_sint(7, 0x47)
    synic.open_port(6, sint=7)
    send(synic, b"a", b"b")
    assert synic.post(6, b"x") == Status.SUCCESS
    assert synic.post(6, b"y") == Status.SUCCESS
    synic.empty_slot(2)
    synic.empty_slot(7)
    synic.end_of_message()
    assert synic.message(2).payload[:1] == b"b"
    assert synic.message(7).payload[:1] == b"y"


def test_vps_are_independent(synic: Guest) -> None:
    """TLFS 14.6.6: EOM of one VP does not touch the queues of another."""
    synic.enable_synic(1)
    send(synic, b"a", b"b")
    synic.empty_slot(2)
    synic.end_of_message(vp=1)
    assert synic.message(2).type == 0


def test_message_while_the_page_is_elsewhere(synic: Guest) -> None:
    """TLFS 14.7: messages go to the page, wherever it is shown."""
    synic.machine.wrmsr(0, SIMP, 0x60000 | 1)
    send(synic, b"a")
    assert synic.machine.read(0x60000 + 512 + 16, 1) == b"a"
    assert synic.machine.read(synic.sim(0), PAGE) == bytes(PAGE)


# -- 14.3 Event flags --


@pytest.mark.parametrize("flag", [0, 1, 7, 8, 2047])
def test_flag_position(synic: Guest, flag: int) -> None:
    """TLFS 14.8.5: flag n is bit n % 8 of byte n / 8, in the area of the port's SINT."""
    synic.open_port(8, port_type=EVENT, sint=2, flag_count=2048)
    assert synic.signal(8, flag) == Status.SUCCESS
    area = synic.machine.read(synic.sief(0), PAGE)
    assert area[2 * 256 + flag // 8] == 1 << flag % 8
    assert sum(area) == 1 << flag % 8


def test_base_flag(synic: Guest) -> None:
    """TLFS 14.9.8: the flag number is relative to the port's base."""
    synic.open_port(8, port_type=EVENT, base_flag=100, flag_count=4)
    assert synic.signal(8, 3) == Status.SUCCESS
    assert synic.flags(2) == {103}


def test_interrupt_only_for_a_new_flag(synic: Guest) -> None:
    """TLFS 14.3.1: an interrupt is raised only if the flag was clear."""
    synic.open_port(8, port_type=EVENT, flag_count=16)
    synic.signal(8, 1)
    synic.signal(8, 1)
    assert synic.machine.interrupts == [(0, VECTOR)]
    synic.signal(8, 2)
    assert synic.machine.interrupts == [(0, VECTOR)] * 2
    synic.machine.write(synic.sief(0) + 512, b"\x00")
    synic.signal(8, 1)
    assert synic.machine.interrupts == [(0, VECTOR)] * 3
    assert synic.flags(2) == {1}


def test_flags_share_the_page_with_the_guest(synic: Guest) -> None:
    """TLFS 14.3.2: flags that the guest has set are not disturbed."""
    synic.open_port(8, port_type=EVENT, flag_count=16)
    synic.machine.write(synic.sief(0) + 512, b"\x80")
    synic.signal(8, 0)
    assert synic.flags(2) == {0, 7}


# -- 14.2.2, 14.6, 14.7: reset --


def test_reset(synic: Guest) -> None:
    """TLFS 14.2.2, 14.6, 14.7: a reset empties queues, registers and pages."""
    m = synic.machine
    synic.open_port(8, port_type=EVENT, flag_count=16)
    send(synic, b"a", b"b")
    synic.signal(8, 1)
    m.reset()
    assert m.overlays == []
    assert (m.rdmsr(0, SCONTROL), m.rdmsr(0, SIMP), m.rdmsr(0, SIEFP)) == (0, 0, 0)
    assert m.rdmsr(0, SINT0 + 2) == 0x10000
    synic.enable_hypercalls()
    synic.enable_synic()
    synic.set_sint(2, VECTOR)
    assert m.read(synic.sim(0), PAGE) == bytes(PAGE)
    assert m.read(synic.sief(0), PAGE) == bytes(PAGE)
    synic.end_of_message()
    assert synic.message(2).type == 0
    send(synic, b"new")
    assert synic.message(2).payload[:3] == b"new"


def test_queued_messages_need_only_the_sim_page(synic: Guest) -> None:
    """TLFS 14.6.1, 14.6.6: a disabled SynIC takes no new message; those queued are delivered."""
    send(synic, b"1", b"2")
    synic.machine.wrmsr(0, SCONTROL, 0)
    assert synic.post(PORT, b"3") == Status.INVALID_SYNIC_STATE
    assert received(synic) == b"1"
    assert received(synic) == b"2"
    assert synic.message(2).type == 0
