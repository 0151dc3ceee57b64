# SPDX-License-Identifier: GPL-2.0-or-later
"""Chapter 15 of the TLFS: reference time and synthetic timers. Times are in 100 ns."""

from __future__ import annotations

import random
import struct

import pytest
from simulated_guest import (
    GPA_END,
    ONES,
    PAGE,
    REFERENCE_TSC,
    SCONTROL,
    STIMER0_CONFIG,
    STIMER0_COUNT,
    TIME_REF_COUNT,
    TSC_PAGE,
    Guest,
    timer_value,
)

from qemu_hv._core import GeneralProtectionFault, MessageType, OverlayKind

MILLISECOND = 10_000
FREQUENCIES = [10_000_001, 1_000_000_000, 2_560_000_000, 2_595_999_000, 4_999_999_999]
VECTOR = 0x40
SINT = 4


@pytest.fixture
def timed(guest: Guest) -> Guest:
    """A guest whose VPs 0 and 1 take timer messages at SINT4, one second after its creation."""
    for vp in (0, 1):
        guest.enable_synic(vp)
        guest.set_sint(SINT, VECTOR + vp, vp)
    guest.machine.advance(1000 * MILLISECOND)
    guest.machine.clear_records()
    return guest


def until(guest: Guest, time: int) -> None:
    """Let time go on to exactly this reference time."""
    guest.machine.advance(time - guest.time())
    assert guest.time() == time


# -- 15.1.2, 15.2 Reference counter --


@pytest.mark.parametrize("frequency", FREQUENCIES)
def test_counter_starts_at_zero(generation: str, frequency: int) -> None:
    """TLFS 15.1.2, 15.2.1: zero when the partition is created, whatever the TSC reads."""
    assert Guest(generation, tsc_frequency=frequency).time() == 0


@pytest.mark.parametrize("frequency", FREQUENCIES)
@pytest.mark.parametrize("seconds", [1, 60, 86400, 10 * 365 * 86400])
def test_counter_rate(generation: str, frequency: int, seconds: int) -> None:
    """TLFS 15.2.1: the counter counts 100 ns units, to 1e-9 or one unit."""
    guest = Guest(generation, tsc_frequency=frequency)
    guest.machine.tsc = seconds * frequency
    expected = seconds * 10_000_000
    assert abs(guest.time() - expected) <= max(1, expected // 10**9)


def test_counter_is_partition_wide(guest: Guest) -> None:
    """TLFS 15.2: all VPs read the same time."""
    guest.machine.advance(12345)
    assert {guest.time(vp) for vp in range(4)} == {12345}


def test_counter_cannot_be_written(guest: Guest) -> None:
    """TLFS 15.2.1: any attempt to write is #GP."""
    for value in (0, 1, ONES):
        with pytest.raises(GeneralProtectionFault):
            guest.machine.wrmsr(0, TIME_REF_COUNT, value)


def test_counter_runs_on_through_a_reset(guest: Guest) -> None:
    """TLFS 15.1.2: the counter belongs to the partition, which a reset does not create anew."""
    guest.machine.advance(500)
    guest.machine.reset()
    assert guest.time() == 500


# -- 15.4 Reference TSC page --


def test_page_is_disabled_by_default(guest: Guest) -> None:
    """TLFS 15.4.1: zero when the partition is created."""
    assert guest.machine.rdmsr(0, REFERENCE_TSC) == 0


def test_page_is_an_overlay(guest: Guest) -> None:
    """TLFS 15.4, 8.1.3: covers RAM, moves, uncovers it; partition-wide."""
    m = guest.machine
    m.write(TSC_PAGE, b"under")
    m.wrmsr(2, REFERENCE_TSC, TSC_PAGE | 1)
    assert m.rdmsr(0, REFERENCE_TSC) == TSC_PAGE | 1
    assert (OverlayKind.REFERENCE_TSC, 0, TSC_PAGE) in m.overlays
    assert m.read(TSC_PAGE, 5) != b"under"
    m.wrmsr(1, REFERENCE_TSC, 0x70000 | 1)
    assert m.read(TSC_PAGE, 5) == b"under"
    assert m.read(0x70000, 4) != bytes(4)
    m.wrmsr(0, REFERENCE_TSC, 0x70000)
    assert m.read(0x70000, 4) == bytes(4)


def test_page_before_the_identity(generation: str) -> None:
    """Deployed clients enable the page before they set GUEST_OS_ID."""
    guest = Guest(generation)
    guest.machine.reset()
    guest.enable_tsc_page()
    assert guest.page_time() == guest.time()


def test_page_format(guest: Guest) -> None:
    """TLFS 15.4.2: sequence neither 0 nor 0xFFFFFFFF, reserved fields zero."""
    guest.enable_tsc_page()
    page = guest.machine.read(TSC_PAGE, PAGE)
    sequence, reserved, scale, _ = struct.unpack_from("<IIQq", page)
    assert 1 <= sequence <= 0xFFFFFFFE
    assert reserved == 0
    assert scale == (1 << 64) * 10_000_000 // 2_560_000_000
    assert page[24:] == bytes(PAGE - 24)


def test_page_register_preserves_reserved_bits(guest: Guest) -> None:
    """TLFS 15.4.1: bits 11:1 are RsvdP."""
    guest.machine.wrmsr(0, REFERENCE_TSC, TSC_PAGE | 0xFFF)
    assert guest.machine.rdmsr(0, REFERENCE_TSC) == TSC_PAGE | 0xFFF


@pytest.mark.parametrize("gpa", [GPA_END, 1 << 51, ONES & ~0xFFF])
def test_page_beyond_the_gpa_space(guest: Guest, gpa: int) -> None:
    """TLFS 15.4.1: accepted, and not accessible to the guest."""
    before = guest.machine.overlays
    guest.machine.wrmsr(0, REFERENCE_TSC, gpa | 1)
    assert guest.machine.rdmsr(0, REFERENCE_TSC) == gpa | 1
    assert guest.machine.overlays == before


@pytest.mark.parametrize("frequency", FREQUENCIES)
def test_page_and_counter_agree(generation: str, frequency: int) -> None:
    """TLFS 15.4.3: one time base: at the same TSC, page and counter tell exactly the same."""
    guest = Guest(generation, tsc_frequency=frequency)
    guest.enable_tsc_page()
    numbers = random.Random(frequency)
    for _ in range(300):
        guest.machine.tsc += numbers.choice([0, 1, 2, 255, numbers.randrange(1 << 40)])
        assert guest.page_time() == guest.time(numbers.randrange(4))


def test_counter_lies_between_page_reads(generation: str) -> None:
    """TLFS 15.1.2, 15.4: a counter read between two page reads lies between them, on every VP."""
    guest = Guest(generation, tsc_frequency=2_595_999_000)
    guest.enable_tsc_page()
    numbers, last = random.Random(1), 0
    for _ in range(300):
        for read in (guest.page_time, lambda: guest.time(numbers.randrange(4)), guest.page_time):
            now = read()
            assert now >= last
            last = now
            guest.machine.tsc += numbers.randrange(100)


# -- 15.3 Registers of synthetic timers --


@pytest.mark.parametrize("timer", range(4))
def test_defaults(guest: Guest, timer: int) -> None:
    """TLFS 15.3.1: disabled when the VP is created and when it is reset."""
    m = guest.machine
    guest.set_timer(timer, timer_value(SINT, enable=False, periodic=True), 77)
    m.reset()
    for vp in range(4):
        assert m.rdmsr(vp, STIMER0_CONFIG + 2 * timer) == 0
        assert m.rdmsr(vp, STIMER0_COUNT + 2 * timer) == 0


@pytest.mark.parametrize("timer", range(4))
def test_registers_are_per_vp_and_timer(guest: Guest, timer: int) -> None:
    """TLFS 15.3: each VP has four timers of its own."""
    value = timer_value(SINT, enable=False, periodic=True)
    guest.set_timer(timer, value, 123, vp=2)
    m = guest.machine
    for vp in range(4):
        for other in range(4):
            expected = (value, 123) if (vp, other) == (2, timer) else (0, 0)
            config = m.rdmsr(vp, STIMER0_CONFIG + 2 * other)
            assert (config, m.rdmsr(vp, STIMER0_COUNT + 2 * other)) == expected


@pytest.mark.parametrize("bit", range(4, 16))
def test_low_reserved_bits_of_2008r2(bit: int) -> None:
    """TLFS 15.3.1: bits 15:4 are RsvdZ."""
    with pytest.raises(GeneralProtectionFault):
        Guest("2008r2").machine.wrmsr(0, STIMER0_CONFIG, 1 << bit)


@pytest.mark.parametrize("bit", [13, 14, 15])
def test_low_reserved_bits_of_current(bit: int) -> None:
    """Direct mode takes bits 12:4; 15:13 are still RsvdZ."""
    with pytest.raises(GeneralProtectionFault):
        Guest("current").machine.wrmsr(0, STIMER0_CONFIG, 1 << bit)


@pytest.mark.parametrize("bit", [20, 21, 31, 32, 63])
def test_high_reserved_bits(guest: Guest, bit: int) -> None:
    """TLFS 15.3.1: bits 63:20 are RsvdZ."""
    with pytest.raises(GeneralProtectionFault):
        guest.machine.wrmsr(0, STIMER0_CONFIG, 1 << bit)
    assert guest.timer_config(0) == 0


@pytest.mark.parametrize("count", [0, 1, 1 << 63, ONES])
def test_count_takes_any_value(guest: Guest, count: int) -> None:
    """TLFS 15.3.2: the count register has 64 bits and may wrap."""
    guest.machine.wrmsr(0, STIMER0_COUNT, count)
    assert guest.machine.rdmsr(0, STIMER0_COUNT) == count


@pytest.mark.parametrize("periodic", [False, True])
def test_an_enabled_timer_needs_a_source(timed: Guest, periodic: bool) -> None:
    """TLFS 15.3.1: SINTx zero for an enabled timer marks it disabled at once."""
    timed.set_timer(0, timer_value(0, periodic=periodic), timed.time() + 10)
    assert timed.timer_config(0) == timer_value(0, periodic=periodic, enable=False)
    timed.machine.advance(1000)
    assert timed.message(0).type == 0


def test_auto_enable_needs_a_source(timed: Guest) -> None:
    """TLFS 15.3.1: neither does auto-enable start a timer with SINTx zero."""
    timed.machine.wrmsr(0, STIMER0_CONFIG, timer_value(0, enable=False, auto_enable=True))
    timed.machine.wrmsr(0, STIMER0_COUNT, timed.time() + 10)
    assert timed.timer_config(0) & 1 == 0


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("count", [(1 << 63) - 1, 1 << 63, ONES - 1])
def test_a_time_far_in_the_future_is_not_in_the_past(timed: Guest, count: int, periodic: bool) -> None:
    """TLFS 15.1.3: the platform is not asked to look at a timer, again and again, that is due in 29,000 years."""
    timed.set_timer(0, timer_value(SINT, periodic=periodic), count)
    assert (timed.machine.timer_tsc(0, 0) or ONES) > 1 << 63
    timed.machine.timer_expired(0, 0)
    assert (timed.machine.timer_tsc(0, 0) or ONES) > 1 << 63
    assert timed.message(SINT).type == 0


# -- 15.3.1 One-shot timers --


@pytest.mark.parametrize("timer", range(4))
def test_one_shot(timed: Guest, timer: int) -> None:
    """TLFS 15.3.1, 16.4.1: one message with its times; then the timer is disabled."""
    due = timed.time() + 5 * MILLISECOND
    timed.set_timer(timer, timer_value(SINT), due, vp=1)
    assert timed.timer_config(timer, vp=1) == timer_value(SINT)
    until(timed, due)
    message = timed.timer_message(SINT, vp=1)
    assert (message.timer, message.expiration, message.delivery) == (timer, due, due)
    assert timed.timer_config(timer, vp=1) == timer_value(SINT, enable=False)
    assert timed.machine.interrupts == [(1, VECTOR + 1)]
    timed.take_message(SINT, vp=1)
    timed.machine.advance(1000 * MILLISECOND)
    assert timed.message(SINT, vp=1).type == 0


@pytest.mark.parametrize("frequency", FREQUENCIES)
def test_never_early(generation: str, frequency: int) -> None:
    """TLFS 15.1.3: the signal is never delivered before the expiration time, nor much after."""
    guest = Guest(generation, tsc_frequency=frequency)
    guest.enable_synic()
    guest.set_sint(SINT, VECTOR)
    numbers = random.Random(frequency)
    for _ in range(50):
        due = guest.time() + numbers.randrange(1, 1 << 30)
        guest.set_timer(0, timer_value(SINT), due)
        tsc = guest.machine.timer_tsc(0, 0)
        assert tsc is not None
        guest.machine.tsc = tsc - 1
        assert guest.time() < due
        guest.machine.timer_expired(0, 0)
        assert guest.message(SINT).type == 0
        guest.machine.advance_tsc(1)
        assert guest.timer_message(SINT).expiration == due
        assert guest.time() == due
        guest.take_message(SINT)


def test_a_platform_that_fires_early(timed: Guest) -> None:
    """TLFS 15.1.3: reference time is checked again before a timer fires."""
    due = timed.time() + 100
    timed.set_timer(0, timer_value(SINT), due)
    timed.machine.advance(50)
    timed.machine.timer_expired(0, 0)
    assert timed.message(SINT).type == 0
    assert timed.timer_config(0) & 1
    until(timed, due)
    assert timed.timer_message(SINT).expiration == due


def test_a_platform_that_fires_late(timed: Guest) -> None:
    """TLFS 15.1.3, 16.4.1: the message may come later; its two times say so."""
    due = timed.time() + 100
    timed.set_timer(0, timer_value(SINT), due)
    timed.machine.tsc += 500 * 256
    timed.machine.fire_due_timers()
    message = timed.timer_message(SINT)
    assert (message.expiration, message.delivery) == (due, due + 400)


@pytest.mark.parametrize("ago", [0, 1, 1_000_000])
def test_in_the_past(timed: Guest, ago: int) -> None:
    """TLFS 15.3.1: a one-shot timer whose count is in the past expires immediately."""
    count = timed.time() - ago
    timed.set_timer(0, timer_value(SINT), count)
    assert timed.timer_message(SINT).expiration == count
    assert timed.timer_config(0) & 1 == 0


def test_far_future(timed: Guest) -> None:
    """TLFS 15.3.2: a count that reference time will not reach never fires and hurts nobody."""
    timed.set_timer(0, timer_value(SINT), ONES)
    timed.machine.advance(10_000 * MILLISECOND)
    assert timed.message(SINT).type == 0
    assert timed.timer_config(0) & 1


def test_count_zero_stops(timed: Guest) -> None:
    """TLFS 15.3.2: writing zero to the count disables the timer, also with auto-enable."""
    for config in (timer_value(SINT), timer_value(SINT, auto_enable=True)):
        timed.set_timer(0, config, timed.time() + 100)
        timed.machine.wrmsr(0, STIMER0_COUNT, 0)
        assert timed.timer_config(0) == config & ~1
        timed.machine.advance(1000)
        assert timed.message(SINT).type == 0


def test_disabling_stops(timed: Guest) -> None:
    """TLFS 15.3.1: a disabled timer does not fire."""
    timed.set_timer(0, timer_value(SINT), timed.time() + 100)
    timed.machine.wrmsr(0, STIMER0_CONFIG, timer_value(SINT, enable=False))
    timed.machine.advance(1000)
    assert timed.message(SINT).type == 0


def test_auto_enable(timed: Guest) -> None:
    """TLFS 15.3.1: with auto-enable a non-zero count enables the timer, again and again."""
    m = timed.machine
    config = timer_value(SINT, enable=False, auto_enable=True)
    m.wrmsr(0, STIMER0_CONFIG, config)
    for _ in range(3):
        assert timed.timer_config(0) == config
        due = timed.time() + 100
        m.wrmsr(0, STIMER0_COUNT, due)
        assert timed.timer_config(0) == config | 1
        until(timed, due)
        assert timed.timer_message(SINT).expiration == due
        timed.take_message(SINT)


def test_without_auto_enable_the_count_starts_nothing(timed: Guest) -> None:
    """TLFS 15.3.1: otherwise the enable bit has to be set."""
    timed.machine.wrmsr(0, STIMER0_CONFIG, timer_value(SINT, enable=False))
    timed.machine.wrmsr(0, STIMER0_COUNT, timed.time() + 100)
    timed.machine.advance(1000)
    assert timed.message(SINT).type == 0
    assert timed.timer_config(0) & 1 == 0


def test_reprogramming_a_running_timer(timed: Guest) -> None:
    """TLFS 15.3.2: a new count replaces the old one."""
    start = timed.time()
    timed.set_timer(0, timer_value(SINT), start + 100)
    timed.machine.wrmsr(0, STIMER0_COUNT, start + 300)
    until(timed, start + 299)
    assert timed.message(SINT).type == 0
    until(timed, start + 300)
    assert timed.timer_message(SINT).expiration == start + 300


# -- 15.1.4 Periodic timers --


def test_periodic(timed: Guest) -> None:
    """TLFS 15.1.4, 15.3.2: the first period begins when the timer is enabled; it stays enabled."""
    period, start = 2 * MILLISECOND, timed.time()
    timed.set_timer(2, timer_value(SINT, periodic=True), period)
    for n in range(1, 6):
        until(timed, start + n * period - 1)
        assert timed.message(SINT).type == 0
        until(timed, start + n * period)
        message = timed.timer_message(SINT)
        assert (message.timer, message.expiration) == (2, start + n * period)
        assert timed.timer_config(2) & 1
        timed.take_message(SINT)


def test_periodic_by_auto_enable(timed: Guest) -> None:
    """TLFS 15.3.1: writing the period starts an auto-enabled periodic timer."""
    m, start = timed.machine, timed.time()
    m.wrmsr(0, STIMER0_CONFIG, timer_value(SINT, enable=False, periodic=True, auto_enable=True))
    m.wrmsr(0, STIMER0_COUNT, 500)
    until(timed, start + 500)
    assert timed.timer_message(SINT).expiration == start + 500


@pytest.mark.parametrize("lazy", [False, True])
def test_periodic_after_a_long_absence(timed: Guest, lazy: bool) -> None:
    """TLFS 15.1.4: missed signals are caught up or skipped; the timer goes on and never early."""
    period, start = MILLISECOND, timed.time()
    timed.set_timer(0, timer_value(SINT, periodic=True, lazy=lazy), period)
    timed.machine.tsc += 1000 * period * 256
    timed.machine.fire_due_timers()
    received = 0
    last = start
    for _ in range(3000):
        if timed.message(SINT).type:
            message = timed.timer_message(SINT)
            assert message.expiration > last
            assert message.expiration <= message.delivery <= timed.time()
            assert (message.expiration - start) % period == 0
            last = message.expiration
            received += 1
            timed.take_message(SINT)
        timed.machine.advance(period // 2)
    elapsed = (timed.time() - start) // period
    assert elapsed - 1001 <= received <= elapsed


@pytest.mark.parametrize("period", [1, 2, 10])
def test_periodic_with_a_tiny_period(timed: Guest, period: int) -> None:
    """TLFS 15.1.4: a period that nobody can keep up with does not hang the machine."""
    timed.set_timer(0, timer_value(SINT, periodic=True), period)
    timed.machine.advance(MILLISECOND)
    assert timed.message(SINT).type == MessageType.TimerExpired
    timed.machine.wrmsr(0, STIMER0_CONFIG, 0)


def test_periodic_with_an_enormous_period(timed: Guest) -> None:
    """TLFS 15.3.2: the count may wrap."""
    timed.set_timer(0, timer_value(SINT, periodic=True), ONES)
    timed.machine.advance(1000 * MILLISECOND)
    assert timed.message(SINT).type == 0


# -- 14.2, 15.1.8: timer messages and a busy slot --


def test_timer_messages_wait_for_the_slot(timed: Guest) -> None:
    """TLFS 14.2.1, 16.4.1: the delivery time is that of reaching the slot, not of expiry."""
    start = timed.time()
    timed.set_timer(0, timer_value(SINT), start + 100)
    timed.set_timer(1, timer_value(SINT), start + 200)
    until(timed, start + 1000)
    assert timed.timer_message(SINT).timer == 0
    assert timed.message(SINT).pending
    timed.take_message(SINT)
    message = timed.timer_message(SINT)
    assert (message.timer, message.expiration, message.delivery) == (1, start + 200, start + 1000)
    assert not timed.message(SINT).pending


def test_a_timer_has_one_buffer(timed: Guest) -> None:
    """TLFS 14.2.1: however often a periodic timer expires meanwhile, one message waits."""
    start = timed.time()
    timed.set_timer(0, timer_value(SINT), start + 1)
    timed.set_timer(1, timer_value(SINT, periodic=True), 100)
    until(timed, start + 5000)
    assert timed.machine.vp_state(0)["queued"][SINT] == 1
    timed.machine.wrmsr(0, STIMER0_CONFIG + 2, 0)
    timed.take_message(SINT)
    timed.take_message(SINT)
    assert timed.message(SINT).type == 0


def test_timers_of_different_vps(timed: Guest) -> None:
    """TLFS 14.2.6: the message goes to the VP whose timer expired."""
    timed.set_timer(0, timer_value(SINT), timed.time() + 10, vp=1)
    timed.machine.advance(10)
    assert timed.message(SINT, vp=0).type == 0
    assert timed.timer_message(SINT, vp=1).timer == 0


def test_nothing_is_delivered_without_the_synic(guest: Guest) -> None:
    """TLFS 14.6.1, 14.2.4: a VP whose SynIC or message page is disabled gets nothing."""
    guest.set_timer(0, timer_value(SINT), guest.time() + 10)
    guest.machine.advance(MILLISECOND)
    assert guest.machine.interrupts == []
    assert guest.machine.read(guest.sim(0), PAGE) == bytes(PAGE)


def test_masked_source(timed: Guest) -> None:
    """TLFS 14.2.4: a masked SINT loses the interrupt, not the timer's message."""
    timed.set_sint(SINT, 1 << 16)
    timed.set_timer(0, timer_value(SINT), timed.time() + 10)
    timed.machine.advance(10)
    assert timed.timer_message(SINT).timer == 0
    assert timed.machine.interrupts == []


def test_state(timed: Guest) -> None:
    """An operator sees when a timer is due and how often it has expired."""
    due = timed.time() + 100
    timed.set_timer(3, timer_value(SINT), due)
    state = timed.machine.vp_state(0)["timers"][3]
    assert (state["config"], state["count"], state["due"]) == (timer_value(SINT), due, due)
    assert state["expirations"] == 0
    timed.machine.advance(100)
    state = timed.machine.vp_state(0)["timers"][3]
    assert (state["due"], state["expirations"]) == (None, 1)


# -- Direct mode, of the current generation --


@pytest.fixture
def direct() -> Guest:
    """A guest of the current generation that uses no SynIC."""
    guest = Guest("current")
    guest.machine.advance(1000 * MILLISECOND)
    return guest


def test_direct_mode(direct: Guest) -> None:
    """A direct timer raises its vector itself, with the SynIC disabled and no message."""
    due = direct.time() + 100
    direct.set_timer(0, timer_value(0, direct_vector=0xED), due, vp=2)
    assert direct.timer_config(0, vp=2) & 1
    until(direct, due - 1)
    assert direct.machine.interrupts == []
    until(direct, due)
    assert direct.machine.interrupts == [(2, 0xED)]
    assert direct.timer_config(0, vp=2) & 1 == 0


def test_direct_mode_as_deployed(direct: Guest) -> None:
    """Configuration 0x1ED9 (enable, auto-enable, vector 0xED, direct), then counts."""
    m = direct.machine
    m.wrmsr(0, STIMER0_CONFIG, 0x1ED9)
    for _ in range(3):
        m.clear_records()
        m.wrmsr(0, STIMER0_COUNT, direct.time() + 50)
        m.advance(49)
        assert m.interrupts == []
        m.advance(1)
        assert m.interrupts == [(0, 0xED)]
    m.wrmsr(0, STIMER0_COUNT, 0)
    m.wrmsr(0, STIMER0_CONFIG, 0)
    m.advance(1000)
    assert m.interrupts == [(0, 0xED)]


def test_direct_mode_in_the_past(direct: Guest) -> None:
    """A direct timer in the past fires at once."""
    direct.set_timer(1, timer_value(0, direct_vector=0xED), direct.time() - 1)
    assert direct.machine.interrupts == [(0, 0xED)]


def test_direct_mode_periodic(direct: Guest) -> None:
    """A periodic direct timer raises its vector every period."""
    direct.set_timer(0, timer_value(0, periodic=True, direct_vector=0xED), MILLISECOND)
    direct.machine.advance(10 * MILLISECOND)
    assert direct.machine.interrupts == [(0, 0xED)] * 10


def test_direct_mode_leaves_the_message_page_alone(direct: Guest) -> None:
    """A direct timer posts no message, whatever its SINTx."""
    direct.enable_synic()
    direct.set_sint(SINT, VECTOR)
    direct.set_timer(0, timer_value(SINT, direct_vector=0xED), direct.time() + 1)
    direct.machine.advance(1)
    assert direct.message(SINT).type == 0
    assert direct.machine.interrupts == [(0, 0xED)]


def test_direct_mode_needs_its_feature() -> None:
    """Without the feature bit (CPUID 0x40000003 EDX 19) bits 12:4 are reserved."""
    with_it = Guest("current").machine.config["features"]
    guest = Guest("current", features=with_it & ~(1 << 19))
    with pytest.raises(GeneralProtectionFault):
        guest.machine.wrmsr(0, STIMER0_CONFIG, 0x1ED8)


@pytest.mark.parametrize("periodic", [False, True])
def test_expiration_waits_for_the_synic(timed: Guest, periodic: bool) -> None:
    """TLFS 14.6.1: messages cannot be queued while SCONTROL is clear; they are once it is set."""
    timed.machine.wrmsr(0, SCONTROL, 0)
    due = timed.time() + 1000
    timed.set_timer(0, timer_value(SINT, periodic=periodic), 1000 if periodic else due)
    timed.machine.advance(1500)
    assert timed.message(SINT).type == 0
    assert timed.machine.vp_state(0)["queued"][SINT] == 0
    enabled_at = timed.time()
    timed.machine.wrmsr(0, SCONTROL, 1)
    message = timed.timer_message(SINT)
    assert (message.expiration, message.delivery) == (due, enabled_at)
