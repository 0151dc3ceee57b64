# SPDX-License-Identifier: GPL-2.0-or-later
"""TLFS 15.1.5 and 15.1.6: the periodic timer and the PM timer that the hypervisor emulates for a child's parent."""

from __future__ import annotations

import pytest
from child_apic import FIXED, LDR, LOWEST, NMI, TPR, Apic
from root import EMULATED_TIMER_CONTROL, EMULATED_TIMER_PERIOD, EXPLICIT_SUSPEND, PM_TIMER_ASSIST, Root

from qemu_hv._core import Exit, Line, Status

ENABLED = 1 << 12
LOGICAL = 1 << 11
TIMER = 6
"""The platform's number of this timer."""
PM_ENABLED = 1 << 17
PM_24_BITS = 1 << 16
PORT = 0x608


@pytest.fixture
def root(generation: str) -> Root:
    """A root that takes intercept messages."""
    root = Root(generation)
    root.enable_synic()
    root.set_sint(0, 0x30)
    return root


@pytest.fixture
def partition(root: Root) -> int:
    """A child with two VPs, the first of which runs."""
    partition = root.partition(vps=2, deposit=300)
    root.resume(partition)
    return partition


@pytest.fixture
def apics(root: Root, partition: int) -> list[Apic]:
    """Its local APICs."""
    return [Apic(root, partition, index) for index in range(2)]


def set_period(root: Root, partition: int, period: int) -> None:
    """HvPartitionPropertyEmulatedTimerPeriod, in 100 ns."""
    assert root.set_property(partition, EMULATED_TIMER_PERIOD, period) == Status.SUCCESS


def set_control(root: Root, partition: int, vector: int, mode: int = FIXED, bits: int = ENABLED, to: int = 0) -> None:
    """HvPartitionPropertyEmulatedTimerControl."""
    value = vector | mode << 8 | bits | to << 56
    assert root.set_property(partition, EMULATED_TIMER_CONTROL, value) == Status.SUCCESS


def start(root: Root, partition: int, period: int = 10000, **control: int) -> None:
    """Program the timer in the usual order: the period first."""
    set_period(root, partition, period)
    set_control(root, partition, 0x51, **control)


def taken(apic: Apic) -> bool:
    """Whether the VP takes an interrupt, which it ends."""
    if apic.accept() is None:
        return False
    apic.eoi()
    return True


# -- The periodic timer --


def test_off_by_default(root: Root, partition: int) -> None:
    """TLFS 15.1.5: both properties default to zero."""
    assert root.get_property(partition, EMULATED_TIMER_PERIOD) == 0
    assert root.get_property(partition, EMULATED_TIMER_CONTROL) == 0
    assert root.machine.timer_tsc(root.handle(partition, 0), TIMER) is None


def test_interrupts_with_each_period(root: Root, partition: int, apics: list[Apic]) -> None:
    """TLFS 15.1.5: the period is in 100 ns; the interrupts are edges."""
    start(root, partition)
    for _ in range(5):
        root.machine.advance(9999)
        assert not apics[0].irr
        root.machine.advance(1)
        assert apics[0].irr == [0x51]
        assert apics[0].tmr == []
        assert taken(apics[0])
    assert not taken(apics[1])


def test_needs_both_properties(root: Root, partition: int, apics: list[Apic]) -> None:
    """Neither a period alone nor an enabled control alone does anything."""
    set_period(root, partition, 10000)
    root.machine.advance(50000)
    set_period(root, partition, 0)
    set_control(root, partition, 0x51)
    root.machine.advance(50000)
    assert not taken(apics[0])


def test_control_before_period(root: Root, partition: int, apics: list[Apic]) -> None:
    """TLFS 15.1.5: in the reverse order the timer with the old period is removed and one with the new inserted."""
    start(root, partition, 10000)
    root.machine.advance(5000)
    set_period(root, partition, 30000)
    root.machine.advance(29999)
    assert not taken(apics[0])
    root.machine.advance(1)
    assert taken(apics[0])


def test_period_of_zero_disables(root: Root, partition: int, apics: list[Apic]) -> None:
    """TLFS 15.1.5: setting the period to zero clears Enabled."""
    start(root, partition)
    set_period(root, partition, 0)
    assert root.get_property(partition, EMULATED_TIMER_CONTROL) == 0x51
    assert root.machine.timer_tsc(root.handle(partition, 0), TIMER) is None
    set_period(root, partition, 10000)
    root.machine.advance(50000)
    assert not taken(apics[0])


def test_disabled_by_control(root: Root, partition: int, apics: list[Apic]) -> None:
    """Clearing Enabled stops the timer."""
    start(root, partition)
    set_control(root, partition, 0x51, bits=0)
    root.machine.advance(50000)
    assert not taken(apics[0])


def test_new_control_takes_effect_at_once(root: Root, partition: int, apics: list[Apic]) -> None:
    """TLFS 15.1.5: values changed without disabling the timer take effect immediately."""
    start(root, partition)
    set_control(root, partition, 0x61, to=1)
    root.machine.advance(10000)
    assert not apics[0].irr
    assert apics[1].irr == [0x61]


def test_logical_destination(root: Root, partition: int, apics: list[Apic]) -> None:
    """TLFS 15.1.5: the fields are those of the ICR."""
    for index, apic in enumerate(apics):
        apic.write(LDR, 1 << (24 + index))
    start(root, partition, bits=ENABLED | LOGICAL, to=0b10)
    root.machine.advance(10000)
    assert (apics[0].irr, apics[1].irr) == ([], [0x51])


def test_delivery_mode(root: Root, partition: int, apics: list[Apic]) -> None:
    """TLFS 15.1.5: lowest priority and NMI as in the ICR."""
    apics[0].write(TPR, 0x40)
    start(root, partition, mode=LOWEST, to=0xFF)
    root.machine.advance(10000)
    assert (apics[0].irr, apics[1].irr) == ([], [0x51])
    set_control(root, partition, 0, mode=NMI)
    root.machine.clear_records()
    root.machine.advance(10000)
    assert (apics[0].vp, Line.NMI, True) in root.machine.lines


def test_destination_that_does_not_exist(root: Root, partition: int, apics: list[Apic]) -> None:
    """It interrupts nobody."""
    start(root, partition, to=9)
    root.machine.advance(20000)
    assert not taken(apics[0])
    assert not taken(apics[1])


def test_catches_up(root: Root, partition: int, apics: list[Apic]) -> None:
    """TLFS 15.1.5, 15.1.4: when ticks are missed the period is shortened until it has caught up."""
    m = root.machine
    start(root, partition)
    m.advance_tsc(45000 * 256)
    ticks = []
    for time in range(45000, 110000, 1000):
        m.fire_due_timers()
        if taken(apics[0]):
            ticks.append(time)
        m.advance_tsc(1000 * 256)
    assert ticks[0] == 45000
    assert len([t for t in ticks if t <= 100000]) == 10, "as many as if none had been late"
    assert all(later - earlier >= 5000 for earlier, later in zip(ticks, ticks[1:]))


def test_skips_what_is_too_late(root: Root, partition: int, apics: list[Apic]) -> None:
    """TLFS 15.1.4: expirations that are too far behind are skipped."""
    m = root.machine
    start(root, partition)
    m.advance_tsc(10_000_000 * 256)
    count = 0
    for _ in range(400):
        m.fire_due_timers()
        count += taken(apics[0])
        m.advance_tsc(1000 * 256)
    assert 40 <= count <= 80


def test_tiny_period_does_not_run_away(root: Root, partition: int, apics: list[Apic]) -> None:
    """A period of 100 ns costs the machine no more than one of 50 us."""
    m = root.machine
    start(root, partition, 1)
    count = 0
    for _ in range(100):
        m.advance(100)
        count += taken(apics[0])
    assert 10 <= count <= 21


def test_endless_period(root: Root, partition: int, apics: list[Apic]) -> None:
    """A period that no time reaches."""
    start(root, partition, (1 << 64) - 1)
    root.machine.advance(1 << 40)
    assert not taken(apics[0])


def test_early_call_is_harmless(root: Root, partition: int, apics: list[Apic]) -> None:
    """The platform may call too early, or for a VP whose timer it is not."""
    start(root, partition)
    root.machine.advance(5000)
    for apic in apics:
        root.machine.timer_expired(apic.vp, TIMER)
    assert not taken(apics[0])
    root.machine.advance(5000)
    assert taken(apics[0])


def test_stops_with_the_partitions_time(root: Root, partition: int, apics: list[Apic]) -> None:
    """TLFS 15.1.2: it goes by reference time, which stops while all VPs are explicitly suspended."""
    start(root, partition)
    root.machine.advance(6000)
    root.set_register(partition, 0, EXPLICIT_SUSPEND, 1)
    root.machine.advance(100000)
    assert not taken(apics[0])
    root.resume(partition)
    root.machine.advance(3999)
    assert not taken(apics[0])
    root.machine.advance(1)
    assert taken(apics[0])


def test_moves_on_when_its_vp_goes(root: Root, partition: int, apics: list[Apic]) -> None:
    """The timer is the partition's: it survives the deletion of a VP, and of all until there is one again."""
    start(root, partition, to=1)
    root.resume(partition, 1)
    assert root.delete_vp(partition, 0) == Status.SUCCESS
    root.machine.advance(10000)
    assert taken(apics[1])
    assert root.delete_vp(partition, 1) == Status.SUCCESS
    root.machine.advance(30000)
    root.create_vp(partition, 1)
    apic = Apic(root, partition, 1)
    root.resume(partition, 1)
    root.machine.advance(10000)
    assert taken(apic)


def test_partition_that_ends(root: Root, partition: int) -> None:
    """A late call for a partition that has gone is harmless."""
    vp = root.handle(partition, 0)
    start(root, partition)
    root.machine.advance(5000)
    root.destroy(partition)
    root.machine.timer_expired(vp, TIMER)
    root.machine.advance(50000)


# -- The PM timer --


def read_port(root: Root, partition: int, port: int = PORT, size: int = 4, **options: bool) -> int | None:
    """IN by the child; None when it became an intercept, which the parent resumes."""
    vp = root.handle(partition, 0)
    result, value = root.machine.io(vp, port, size, False, **options)
    assert result in (Exit.DONE, Exit.NATIVE, Exit.INTERCEPT)
    if result == Exit.DONE:
        return value
    return None


def expected(root: Root, partition: int, bits: int = 32) -> int:
    """TLFS 15.1.6: Modulus(Partition_Reference_Time * 0.3579545, 2**[24|32])."""
    time = root.get_register(partition, 0, 0x00090004)
    return time * 3579545 // 10000000 % (1 << bits)


@pytest.mark.parametrize("bits", [24, 32])
def test_pm_timer(root: Root, partition: int, bits: int) -> None:
    """It reads the partition's reference time at 3.579545 MHz, modulo its width."""
    info = PORT | PM_ENABLED | (PM_24_BITS if bits == 24 else 0)
    assert root.set_property(partition, PM_TIMER_ASSIST, info) == Status.SUCCESS
    for advance in (1, 12345, 10_000_000, 1 << 27, 1 << 35, 1 << 37):
        root.machine.advance(advance)
        assert read_port(root, partition) == expected(root, partition, bits)
    assert expected(root, partition, 64) > 1 << 32, "it has wrapped"


@pytest.mark.parametrize("size", [1, 2])
def test_pm_timer_read_in_part(root: Root, partition: int, size: int) -> None:
    """A narrower IN reads the lower bytes."""
    assert root.set_property(partition, PM_TIMER_ASSIST, PORT | PM_ENABLED) == Status.SUCCESS
    root.machine.advance(123456789)
    assert read_port(root, partition, size=size) == expected(root, partition, size * 8)


def test_pm_timer_disabled(root: Root, partition: int) -> None:
    """Without Enabled there is no assist."""
    assert root.set_property(partition, PM_TIMER_ASSIST, PORT) == Status.SUCCESS
    root.machine.advance(1000000)
    assert read_port(root, partition) != expected(root, partition)


@pytest.mark.parametrize("offset", [-3, -2, -1, 1, 2, 3])
def test_ports_beside_the_pm_timer(root: Root, partition: int, offset: int) -> None:
    """TLFS 15.1.6: the ports before and after follow the usual rules."""
    assert root.set_property(partition, PM_TIMER_ASSIST, PORT | PM_ENABLED) == Status.SUCCESS
    root.machine.advance(1000000)
    assert read_port(root, partition, PORT + offset) != expected(root, partition)


def test_out_and_ins_are_not_assisted(root: Root, partition: int) -> None:
    """TLFS 15.1.6: only IN; the hypervisor generates an intercept for all OUT operations."""
    assert root.set_property(partition, PM_TIMER_ASSIST, PORT | PM_ENABLED) == Status.SUCCESS
    root.machine.advance(1000000)
    assert read_port(root, partition, string=True) != expected(root, partition)
