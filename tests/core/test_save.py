# SPDX-License-Identifier: GPL-2.0-or-later
"""Saving and restoring the core's state, for snapshots and migration."""

from __future__ import annotations

import random

import pytest
from simulated_guest import (
    APIC_ASSIST_PAGE,
    ASSIST,
    AUTO_EOI,
    EVENT,
    GUEST_OS_ID,
    HYPERCALL,
    HYPERCALL_PAGE,
    PAGE,
    REFERENCE_TSC,
    SCONTROL,
    SIEFP,
    SIMP,
    SINT0,
    STIMER0_CONFIG,
    STIMER0_COUNT,
    TIME_REF_COUNT,
    Guest,
    timer_value,
)

from qemu_hv._core import Machine, RestoreError, Status

REGISTERS = [
    GUEST_OS_ID,
    HYPERCALL,
    REFERENCE_TSC,
    TIME_REF_COUNT,
    APIC_ASSIST_PAGE,
    SCONTROL,
    SIEFP,
    SIMP,
    *range(SINT0, SINT0 + 16),
    *range(STIMER0_CONFIG, STIMER0_CONFIG + 8),
]


def busy_guest(generation: str) -> Guest:
    """A guest in the middle of everything."""
    guest = Guest(generation, tsc_frequency=2_595_999_000)
    m = guest.machine
    m.advance(123_456_789)
    guest.enable_tsc_page()
    for vp in range(4):
        guest.enable_synic(vp)
        for sint in range(1, 16):
            guest.set_sint(sint, 0x40 + sint | (AUTO_EOI if sint == 3 else 0), vp)
        m.wrmsr(vp, APIC_ASSIST_PAGE, ASSIST + vp * PAGE | 1)
    guest.open_port(5, connection=6)
    guest.open_port(7, port_type=EVENT, sint=3, vp=None, base_flag=10, flag_count=20)
    m.operator_create_port(8, 1, 9)
    for n in range(5):
        assert guest.post(6, bytes([n])) == Status.SUCCESS
    assert guest.signal(7, 4, vp=2) == Status.SUCCESS
    guest.set_timer(0, timer_value(4), guest.time() + 1000)
    guest.set_timer(1, timer_value(4, periodic=True), 700, vp=1)
    guest.set_timer(2, timer_value(4), guest.time() - 1, vp=3)
    guest.set_timer(3, timer_value(4), guest.time() - 1, vp=3)
    return guest


def visible(machine: Machine) -> dict[str, object]:
    """Everything that a guest or an operator can see, but counters."""
    partition = machine.partition_state()
    vps = []
    for vp in range(machine.config["vp_count"]):
        state = machine.vp_state(vp)
        timers = [(t["config"], t["count"], t["due"], t["message_pending"]) for t in state["timers"]]
        registers = {index: machine.rdmsr(vp, index) for index in REGISTERS}
        vps.append((registers, state["queued"], timers))
    return {
        "partition": partition,
        "vps": vps,
        "overlays": sorted(machine.overlays),
        "pages": [machine.read(gpa, PAGE) for gpa in range(0x20000, 0x54000, PAGE)],
        "ports": sorted(machine.ports(), key=lambda port: port["port_id"]),
        "connections": machine.connections(),
        "apics": [machine.apic(vp) for vp in range(machine.config["vp_count"])],
    }


def moved(guest: Guest, machine: Machine) -> Guest:
    """The same guest on another machine."""
    other = Guest.__new__(Guest)
    other.generation = guest.generation
    other.machine = machine
    return other


def test_migration_changes_nothing(generation: str) -> None:
    """A machine made from a saved stream looks exactly like the saved one."""
    guest = busy_guest(generation)
    other = guest.machine.migrate()
    assert visible(other) == visible(guest.machine)


def test_saving_changes_nothing(generation: str) -> None:
    """A machine goes on after it was saved; saving twice gives the same stream."""
    guest = busy_guest(generation)
    before = visible(guest.machine)
    assert guest.machine.save() == guest.machine.save()
    assert visible(guest.machine) == before


def test_timers_go_on(generation: str) -> None:
    """Armed timers fire on the new machine as they would have on the old one."""
    guest = busy_guest(generation)
    other = moved(guest, guest.machine.migrate())
    guest.machine.clear_records()
    for _ in range(40):
        for side in (guest, other):
            side.machine.advance(100)
        assert other.machine.interrupts == guest.machine.interrupts
        assert other.message(4) == guest.message(4)
        assert other.message(4, 1) == guest.message(4, 1)
        for vp in (0, 1, 3):
            assert guest.take_message(4, vp) == other.take_message(4, vp)


def test_messages_go_on(generation: str) -> None:
    """Queued messages arrive on the new machine, in order, and their buffers return."""
    guest = busy_guest(generation)
    other = moved(guest, guest.machine.migrate())
    assert [other.take_message(2).payload[0] for _ in range(5)] == list(range(5))
    assert other.message(2).type == 0
    posted = [other.post(6) for _ in range(18)]
    assert posted == [Status.SUCCESS] * 17 + [Status.INSUFFICIENT_BUFFERS]


def test_time_goes_on_at_the_saved_frequency(generation: str) -> None:
    """TLFS 15.4.3.1, 15.4.3.3: the TSC frequency comes with the stream: time goes on on another kind of machine."""
    guest = busy_guest(generation)
    now = guest.time()
    other = moved(guest, guest.machine.migrate(tsc_frequency=3_333_333_333))
    assert other.machine.config["tsc_frequency"] == 2_595_999_000
    assert other.time() == other.page_time() == now
    other.machine.advance(10_000_000)
    guest.machine.advance(10_000_000)
    assert other.time() == other.page_time() == guest.time()


def test_assisted_interrupt_in_service(generation: str) -> None:
    """An interrupt that needs no EOI is still in service on the new machine."""
    guest = busy_guest(generation)
    guest.machine.wrmsr(0, STIMER0_COUNT, 0)
    while guest.machine.accept(3) is not None:
        guest.machine.wrmsr(3, 0x40000070, 0)
    guest.machine.request_interrupt(3, 0xE1)
    assert guest.machine.accept(3) == 0xE1
    other = guest.machine.migrate()
    assert other.assisted_eoi(3)
    assert other.accept(3) is None
    assert other.apic(3)["isr"] == []


def test_restore_replaces_everything(generation: str) -> None:
    """Restoring into a machine that was in use leaves nothing of what it did."""
    saved = Guest(generation, vps=4, tsc_frequency=2_595_999_000)
    stream = saved.machine.save()
    guest = busy_guest(generation)
    guest.machine.restore(stream)
    m = guest.machine
    assert m.connections() == []
    assert m.ports() == []
    assert m.rdmsr(0, HYPERCALL) == HYPERCALL_PAGE | 1
    assert [overlay[2] for overlay in m.overlays] == [HYPERCALL_PAGE]
    assert m.rdmsr(1, SCONTROL) == 0
    assert m.rdmsr(1, STIMER0_CONFIG + 2) == 0
    assert m.vp_state(0)["queued"] == [0] * 16
    m.clear_records()
    m.advance(10_000_000)
    assert m.interrupts == []


def test_useless_connections(generation: str) -> None:
    """A connection whose port was deleted is as useless on the new machine."""
    guest = Guest(generation)
    guest.enable_synic()
    guest.open_port(4, connection=1)
    guest.machine.operator_create_port(0, 1, 2)
    guest.machine.operator_delete_port(4)
    guest.machine.operator_create_port(4, 1, 2)
    other = moved(guest, guest.machine.migrate())
    assert other.machine.connections() == guest.machine.connections()
    assert other.post(1) == Status.INVALID_PORT_ID
    assert {port["port_id"] for port in other.machine.ports()} == {0, 4}


def assert_reset(machine: Machine) -> None:
    """The state is that of a reset."""
    assert machine.overlays == []
    assert machine.rdmsr(0, GUEST_OS_ID) == 0
    assert machine.rdmsr(0, REFERENCE_TSC) == 0
    for vp in range(machine.config["vp_count"]):
        assert machine.rdmsr(vp, SCONTROL) == 0
        assert machine.rdmsr(vp, STIMER0_CONFIG) == 0


def test_truncated_streams(generation: str) -> None:
    """Every stream that ends early is refused, and leaves the state of a reset."""
    guest = busy_guest(generation)
    stream = guest.machine.save()
    target = Guest(generation, tsc_frequency=2_595_999_000).machine
    numbers = random.Random(0)
    lengths = {0, 1, 4, 8, len(stream) - 1, *(numbers.randrange(len(stream)) for _ in range(60))}
    for length in lengths:
        with pytest.raises(RestoreError, match=r"\w"):
            target.restore(stream[:length])
        assert_reset(target)


def test_a_longer_stream(generation: str) -> None:
    """Bytes behind the end do not belong to a stream."""
    stream = busy_guest(generation).machine.save()
    with pytest.raises(RestoreError, match=r"\w"):
        Guest(generation).machine.restore(stream + b"x")


def test_a_stream_of_something_else(generation: str) -> None:
    """A file that is no stream is refused."""
    for junk in (b"junk", bytes(10_000), b"\xff" * 10_000):
        with pytest.raises(RestoreError, match=r"\w"):
            Guest(generation).machine.restore(junk)


def test_other_machines(generation: str) -> None:
    """A stream of another generation or number of VPs is refused with a sentence."""
    stream = busy_guest(generation).machine.save()
    other = "current" if generation == "2008r2" else "2008r2"
    for machine in (Machine(other, vps=4), Machine(generation, vps=3), Machine(generation, vps=5)):
        with pytest.raises(RestoreError, match=r"\w+ \w+"):
            machine.restore(stream)


def test_damaged_streams(generation: str) -> None:
    """A changed byte is refused or gives some state, but breaks no rule of the platform."""
    guest = busy_guest(generation)
    stream = guest.machine.save()
    numbers = random.Random(generation)
    target = Guest(generation, tsc_frequency=2_595_999_000).machine
    for _ in range(300):
        damaged = bytearray(stream)
        for _ in range(numbers.randrange(1, 4)):
            damaged[numbers.randrange(len(damaged))] = numbers.randrange(256)
        try:
            target.restore(bytes(damaged))
        except RestoreError:
            assert_reset(target)
        target.advance_tsc(1 << 16)
        target.save()
