# SPDX-License-Identifier: GPL-2.0-or-later
"""Chapter 18 of the TLFS, the scheduler: shares, caps, reserves, preemption, ownership, placement, run times."""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Callable

import pytest
from root import (
    CPU_CAP,
    CPU_RESERVE,
    CPU_WEIGHT,
    EXPLICIT_SUSPEND,
    GET_LP_RUN_TIME,
    GET_VP_REGISTERS,
    PARK_LPS,
    Root,
)
from simulated_guest import EVENT, GUEST_IDLE, INPUT, NOTIFY_LONG_SPIN_WAIT, OUTPUT, VP_RUNTIME, reps

from qemu_hv._core import Exit, Status

MILLISECOND = 2_560_000
"""Ticks of the simulated TSC."""
SECOND = 1000 * MILLISECOND
TICKS_OF_NANO100 = 256
FULL = 0x10000
"""A cap or a reserve of one LP (TLFS 18.2)."""


@pytest.fixture
def root(generation: str) -> Root:
    """A root on one LP, whose VP waits."""
    return idle_root(generation, 1)


def idle_root(generation: str, lps: int) -> Root:
    """A root whose VPs all wait."""
    root = Root(generation, vps=lps)
    for vp in range(lps):
        root.machine.set_waits(vp, True)
    return root


def child(root: Root, **properties: int) -> int:
    """The handle of a running VP, the only one of a partition with these properties."""
    codes = {"weight": CPU_WEIGHT, "cap": CPU_CAP, "reserve": CPU_RESERVE}
    partition = root.partition(vps=0, deposit=40)
    for name, value in properties.items():
        assert root.set_property(partition, codes[name], value) == Status.SUCCESS
    handle = root.create_vp(partition, 0)
    root.resume(partition)
    return handle


def partition_of(root: Root, vp: int) -> int:
    """The partition whose VP 0 this is."""
    return next(p for p in root.children() if root.machine.handle(p, 0) == vp)


def run(
    root: Root,
    ticks: int,
    *,
    lp: int = 0,
    late: Callable[[], int] = lambda: 0,
    used: Callable[[int], int | None] | None = None,
) -> Counter[int | None]:
    """Be an LP for a while: ticks each VP ran, and under None how long there was nothing to run.

    Args:
        late: By how many ticks the LP comes back after the end of a slice.
        used: What a VP uses of its slice before it leaves the guest; None for all of it.
    """
    m = root.machine
    end = m.tsc + ticks
    times: Counter[int | None] = Counter()
    while m.tsc < end:
        vp, slice_end = m.schedule(lp)
        start = m.tsc
        stop = end if slice_end is None else min(end, max(slice_end, start) + late())
        short = used(vp) if used and vp is not None else None
        if short is not None:
            stop = min(stop, start + short)
        assert stop > start or vp is None
        m.advance_tsc(max(stop - start, 1))
        times[vp] += m.tsc - start
        if vp is not None:
            m.stopped(vp)
    return times


def share(times: Counter[int | None], vp: int | None) -> float:
    """A VP's part of the time in percent."""
    return 100 * times[vp] / sum(times.values())


# -- 18.2.3 weights --


def test_weights(root: Root) -> None:
    """TLFS 18.2.3: the text's own example, weights 100, 200 and 700 on one LP."""
    vps = [child(root, weight=weight) for weight in (100, 200, 700)]
    times = run(root, 3 * SECOND)
    assert [share(times, vp) for vp in vps] == pytest.approx([10, 20, 70], abs=2)
    assert times[None] == 0


def test_weights_hold_when_vps_leave_early(root: Root) -> None:
    """TLFS 18.2.3: what counts is run time, not how often a VP is picked."""
    vps = [child(root, weight=weight) for weight in (300, 700)]
    numbers = random.Random(1)

    def used(vp: int) -> int:
        return numbers.randrange(1000, MILLISECOND // (4 if vp == vps[0] else 40))

    times = run(root, SECOND, used=used)
    assert [share(times, vp) for vp in vps] == pytest.approx([30, 70], abs=2)


@pytest.mark.parametrize("weights", [(1, 10000), (1, 1, 1, 1, 1, 1, 1), (5000, 5000), (33, 100, 867)])
def test_other_weights(root: Root, weights: tuple[int, ...]) -> None:
    """TLFS 18.2.3: weights are 1 to 10000."""
    vps = [child(root, weight=weight) for weight in weights]
    times = run(root, 3 * SECOND)
    assert [share(times, vp) for vp in vps] == pytest.approx([100 * w / sum(weights) for w in weights], abs=2)


def test_the_root_shares_too(root: Root) -> None:
    """TLFS 18.2.3: a busy root VP is one VP of its LP like another."""
    vp = child(root)
    root.machine.set_waits(0, False)
    times = run(root, SECOND)
    assert share(times, 0) == pytest.approx(50, abs=2)
    assert share(times, vp) == pytest.approx(50, abs=2)


def test_a_new_weight_holds_from_now_on(root: Root) -> None:
    """TLFS 18.2: policies can be adjusted."""
    vps = [child(root), child(root)]
    assert share(run(root, SECOND), vps[0]) == pytest.approx(50, abs=2)
    assert root.set_property(partition_of(root, vps[0]), CPU_WEIGHT, 300) == Status.SUCCESS
    assert share(run(root, SECOND), vps[0]) == pytest.approx(75, abs=2)


def test_waiting_earns_no_credit(root: Root) -> None:
    """TLFS 18.2: who waited for long does not keep others out for long."""
    sleeper, worker = child(root), child(root)
    root.machine.set_waits(sleeper, True)
    assert share(run(root, 10 * SECOND), worker) == pytest.approx(100, abs=0.1)
    root.machine.set_waits(sleeper, False)
    assert share(run(root, SECOND // 20), worker) == pytest.approx(50, abs=5)


def test_running_alone_costs_nothing_later(root: Root) -> None:
    """TLFS 18.2: who ran alone is not kept out for long when others wake, nor when it has waited meanwhile."""
    worker, other = child(root, weight=1), child(root, weight=1)
    root.machine.set_waits(other, True)
    run(root, 10 * SECOND)
    root.machine.set_waits(worker, True)
    root.machine.set_waits(other, False)
    run(root, SECOND // 100)
    root.machine.set_waits(worker, False)
    assert share(run(root, SECOND // 10), worker) == pytest.approx(50, abs=5)


def test_many(root: Root) -> None:
    """TLFS 18.2.3: sixty VPs, all with the same weight."""
    vps = [child(root) for _ in range(60)]
    times = run(root, 3 * SECOND)
    assert [share(times, vp) for vp in vps] == pytest.approx([100 / 60] * 60, abs=0.1)


# -- 18.2.2 caps --


@pytest.mark.parametrize("cap", [FULL // 4, FULL // 100, FULL * 9 // 10])
def test_cap(root: Root, cap: int) -> None:
    """TLFS 18.2.2: a VP does not get more than its cap though its LP has nothing else to run."""
    vp = child(root, cap=cap)
    times = run(root, 3 * SECOND)
    assert share(times, vp) == pytest.approx(100 * cap / FULL, abs=2)
    assert share(times, vp) + share(times, None) == pytest.approx(100)


@pytest.mark.parametrize("weight", [100, 10000])
def test_cap_under_load(root: Root, weight: int) -> None:
    """TLFS 18.2.2: nor does its weight help."""
    capped, other = child(root, cap=FULL // 4, weight=weight), child(root)
    times = run(root, 3 * SECOND)
    assert share(times, capped) == pytest.approx(25, abs=2)
    assert share(times, other) == pytest.approx(75, abs=2)


def test_cap_with_a_late_timer(root: Root) -> None:
    """TLFS 18.2.2: the cap holds, and is used, when the LP comes back late."""
    vp = child(root, cap=FULL // 4)
    numbers = random.Random(2)
    times = run(root, 3 * SECOND, late=lambda: numbers.randrange(MILLISECOND))
    assert share(times, vp) == pytest.approx(25, abs=2)


def test_cap_over_a_tenth_of_a_second(root: Root) -> None:
    """TLFS 18.1: policies hold over hundredths of a second, also right after a VP has waited."""
    vp = child(root, cap=FULL // 4)
    run(root, SECOND)
    root.machine.set_waits(vp, True)
    run(root, SECOND)
    root.machine.set_waits(vp, False)
    assert share(run(root, SECOND // 10), vp) <= 25 + 5


def test_cap_of_nothing(root: Root) -> None:
    """TLFS 18.2.2: the range begins at 0; the VP runs again when the cap is raised."""
    vp = child(root, cap=0)
    assert root.machine.schedule(0) == (None, None)
    assert not root.machine.lp_has_work(0)
    root.set_property(partition_of(root, vp), CPU_CAP, FULL)
    assert root.machine.lp_kicks[-1:] == [0]
    assert root.machine.schedule(0) == (vp, None)


def test_end_of_a_hold(root: Root) -> None:
    """TLFS 18.2.2: an idle LP is told when a capped VP may run again, and has no work before."""
    m = root.machine
    vp = child(root, cap=FULL // 4)
    while (picked := m.schedule(0))[0] == vp:
        assert picked[1] is not None
        m.advance_tsc(picked[1] - m.tsc)
        m.stopped(vp)
    until = picked[1]
    assert until is not None and m.tsc < until <= m.tsc + 10 * MILLISECOND
    assert not m.lp_has_work(0)
    m.advance_tsc(until - m.tsc)
    assert m.lp_has_work(0)
    assert m.schedule(0)[0] == vp


def test_a_new_cap_ends_a_hold(root: Root) -> None:
    """TLFS 18.2: a raised cap is good at once."""
    vp = child(root, cap=FULL // 100)
    run(root, SECOND // 10)
    root.set_property(partition_of(root, vp), CPU_CAP, FULL)
    assert share(run(root, SECOND // 10), vp) == 100


# -- 18.2.1 reserves --


@pytest.mark.parametrize("reserve", [FULL // 2, FULL // 10, FULL * 9 // 10])
def test_reserve_under_load(root: Root, reserve: int) -> None:
    """TLFS 18.2.1: the reserve is there though others have ten thousand times the weight."""
    vp = child(root, reserve=reserve, weight=1)
    for _ in range(3):
        child(root, weight=10000)
    assert share(run(root, 3 * SECOND), vp) == pytest.approx(100 * reserve / FULL, abs=2)


def test_reserves_together(root: Root) -> None:
    """TLFS 18.2.1: reserves that fill the LP are all kept, and the rest gets what is not used."""
    quarter = child(root, reserve=FULL // 4, weight=1)
    three_quarters = child(root, reserve=FULL * 3 // 4, weight=1)
    other = child(root, weight=10000)
    times = run(root, 3 * SECOND)
    assert [share(times, vp) for vp in (quarter, three_quarters, other)] == pytest.approx([25, 75, 0], abs=2)
    root.machine.set_waits(three_quarters, True)
    times = run(root, SECOND)
    assert [share(times, vp) for vp in (quarter, three_quarters, other)] == pytest.approx([25, 0, 75], abs=2)


def test_reserve_is_not_a_limit(root: Root) -> None:
    """TLFS 18.2.1: a VP gets more than its reserve by its weight, and all when it is alone."""
    vp, other = child(root, reserve=FULL // 10, weight=300), child(root)
    assert share(run(root, SECOND), vp) == pytest.approx(75, abs=2)
    root.machine.set_waits(other, True)
    assert share(run(root, SECOND), vp) == pytest.approx(100, abs=1)


def test_reserve_after_plenty(root: Root) -> None:
    """TLFS 18.2.1: what a VP got beyond its reserve is not held against it for long."""
    vp, other = child(root, reserve=FULL // 2, weight=1), child(root, weight=10000)
    root.machine.set_waits(other, True)
    run(root, 10 * SECOND)
    root.machine.set_waits(other, False)
    assert share(run(root, SECOND // 5), vp) >= 50 - 5


# -- Slices --


def test_slices(root: Root) -> None:
    """TLFS 18.1: alone a VP has no limit, with others it has to come back within a millisecond."""
    m = root.machine
    child(root)
    assert m.schedule(0)[1] is None
    m.stopped(1)
    child(root)
    vp, slice_end = m.schedule(0)
    assert vp is not None and slice_end is not None
    assert 0 < slice_end - m.tsc <= MILLISECOND


def test_a_slice_goes_on(root: Root) -> None:
    """TLFS 18.3.2: a VP that leaves the guest and is ready keeps its slice; when it is over, the other runs."""
    m = root.machine
    child(root)
    child(root)
    vp, slice_end = m.schedule(0)
    assert vp is not None and slice_end is not None
    for _ in range(10):
        m.advance_tsc((slice_end - m.tsc) // 2)
        m.stopped(vp)
        assert m.schedule(0) == (vp, slice_end)
    m.advance_tsc(slice_end - m.tsc)
    m.stopped(vp)
    assert m.schedule(0)[0] not in (vp, None)


def test_a_second_vp_ends_a_run_without_limit(root: Root) -> None:
    """TLFS 18.1: the LP learns that its only VP is not the only one any more."""
    m = root.machine
    first, second = child(root), child(root)
    partition = partition_of(root, second)
    root.set_register(partition, 0, EXPLICIT_SUSPEND, 1)
    run(root, 5 * MILLISECOND)
    assert m.schedule(0) == (first, None)
    before = len(m.lp_kicks)
    root.set_register(partition, 0, EXPLICIT_SUSPEND, 0)
    assert m.lp_kicks[before:] == [0]
    m.stopped(first)
    vp, slice_end = m.schedule(0)
    assert vp == first and slice_end is not None


# -- Preemption --


def test_an_interrupt_preempts(root: Root) -> None:
    """TLFS 18.1: a waiting VP that gets an interrupt runs at once."""
    m = root.machine
    worker, other = child(root), child(root)
    m.set_waits(other, True)
    assert m.schedule(0)[0] == worker
    m.advance_tsc(MILLISECOND // 8)
    before = len(m.lp_kicks)
    m.set_waits(other, False)
    assert m.lp_kicks[before:] == [0]
    m.stopped(worker)
    assert m.schedule(0)[0] == other


def test_an_interrupt_for_a_ready_vp_preempts(root: Root) -> None:
    """TLFS 18.1: so does one that waits for its turn."""
    m = root.machine
    vps = [child(root) for _ in range(5)]
    running, _ = m.schedule(0)
    assert running is not None
    for vp in vps:
        if vp == running:
            continue
        before = len(m.lp_kicks)
        m.set_waits(vp, False)
        assert m.lp_kicks[before:] == [0]
        m.stopped(running)
        assert m.schedule(0)[0] == vp
        running = vp


def test_no_interrupt_preempts_for_a_vp_that_may_not_run(root: Root) -> None:
    """TLFS 10.3.1, 18.2.2: not for one that is suspended, nor for one that is held back by its cap."""
    m = root.machine
    suspended, capped, worker = child(root), child(root, cap=FULL // 100), child(root)
    root.set_register(partition_of(root, suspended), 0, EXPLICIT_SUSPEND, 1)
    run(root, 5 * MILLISECOND)
    assert m.schedule(0)[0] == worker
    before = len(m.lp_kicks)
    m.set_waits(suspended, False)
    m.set_waits(capped, False)
    assert m.lp_kicks[before:] == []
    m.stopped(worker)
    assert m.schedule(0)[0] == worker


def test_an_interrupt_for_the_running_vp_is_no_news(root: Root) -> None:
    """The LP that runs a VP does not choose again for it."""
    m = root.machine
    vp = child(root)
    assert m.schedule(0)[0] == vp
    before = len(m.lp_kicks)
    m.set_waits(vp, False)
    assert m.lp_kicks[before:] == []


def test_interrupts_do_not_buy_time(root: Root) -> None:
    """TLFS 18.2.3: a VP that is interrupted all the time gets its share, as all the others do."""
    m = root.machine
    victim, storm = child(root, weight=100), child(root, weight=25)

    def used(_: int) -> int:
        m.set_waits(storm, False)
        return MILLISECOND // 10

    times = run(root, 3 * SECOND, used=used)
    assert [share(times, vp) for vp in (victim, storm)] == pytest.approx([80, 20], abs=2)


def test_the_root_wakes(root: Root) -> None:
    """An interrupt for the root's VP takes the LP from a child at once, and its halt gives it back at once."""
    m = root.machine
    vp = child(root)
    assert m.schedule(0) == (vp, None)
    before = len(m.lp_kicks)
    m.set_waits(0, False)
    assert m.lp_kicks[before:] == [0]
    m.stopped(vp)
    assert m.schedule(0)[0] == 0
    m.advance_tsc(1000)
    m.set_waits(0, True)
    m.stopped(0)
    assert m.schedule(0)[0] == vp


def test_a_synthetic_interrupt_for_the_root(root: Root) -> None:
    """An event for the root's VP makes it run at once, though it only waits for its turn."""
    m = root.machine
    root.enable_synic(0)
    root.set_sint(2, 0x40)
    root.open_port(1, port_type=EVENT, flag_count=1)
    vp = child(root)
    m.set_waits(0, False)
    picked, slice_end = m.schedule(0)
    while picked != vp:
        assert picked is not None and slice_end is not None
        m.advance_tsc(slice_end - m.tsc)
        m.stopped(picked)
        picked, slice_end = m.schedule(0)
    before = len(m.lp_kicks)
    assert m.operator_signal_event(1, 0) == Status.SUCCESS
    assert m.lp_kicks[before:] == [0]
    m.stopped(vp)
    assert m.schedule(0)[0] == 0


def test_an_interrupt_of_a_device_for_the_root(root: Root) -> None:
    """The machine's devices wake the LP by themselves; it tells that its root VP, which is ready, is to go first."""
    m = root.machine
    vp = child(root)
    m.set_waits(0, False)
    while m.schedule(0)[0] != vp:
        m.advance_tsc(MILLISECOND)
    assert m.schedule(0)[0] == vp
    assert m.schedule(0, interrupted=True)[0] == 0


def test_intercept_round_trip(root: Root) -> None:
    """A child that is suspended gives the LP to the root that it woke, and gets it when the root has resumed it.

    Neither needs a kick: the LP chooses anyway.
    """
    m = root.machine
    vp = child(root)
    partition = partition_of(root, vp)
    assert m.schedule(0)[0] == vp
    for turn in range(10):
        before = len(m.lp_kicks)
        m.advance_tsc(5000)
        assert m.unsupported_feature(vp, 1, 2) == Exit.INTERCEPT
        m.set_waits(0, False)
        m.stopped(vp)
        assert m.schedule(0)[0] == 0
        m.advance_tsc(5000)
        root.resume(partition)
        # From the second turn on the LP has a limit, as it has had two VPs before.
        assert len(m.lp_kicks) - before <= (turn == 0)
        m.set_waits(0, True)
        m.stopped(0)
        assert m.schedule(0)[0] == vp


def test_guest_idle_with_an_interrupt_that_waits(root: Root) -> None:
    """TLFS 10.1.4: the root is woken at once, as a message's interrupt is not taken; the child that it has resumed
    goes first.
    """
    m = root.machine
    vp = child(root)
    partition = partition_of(root, vp)
    assert m.schedule(0)[0] == vp
    m.set_waits(0, False)
    for _ in range(10):
        assert m.unsupported_feature(vp, 1, 2) == Exit.INTERCEPT
        assert m.schedule(0)[0] == 0
        m.advance_tsc(5000)
        root.resume(partition)
        m.rdmsr(0, GUEST_IDLE)
        assert m.schedule(0)[0] == vp


def test_choosing_again_ends_what_ran(root: Root) -> None:
    """An LP that chooses again at once need not tell that a VP has stopped: it owns it no more, its time is counted."""
    m = root.machine
    vp = child(root)
    assert m.schedule(0)[0] == vp
    m.advance_tsc(3 * MILLISECOND)
    m.set_waits(vp, True)
    assert m.schedule(0)[0] is None
    assert m.rdmsr(vp, VP_RUNTIME) == 3 * MILLISECOND // TICKS_OF_NANO100
    assert get_rip(root, partition_of(root, vp)) == Exit.DONE


def test_idle(root: Root) -> None:
    """With nothing ready there is nothing to run, and no end of that."""
    m = root.machine
    assert m.schedule(0) == (None, None)
    assert not m.lp_has_work(0)
    vp = child(root)
    m.set_waits(vp, True)
    assert m.schedule(0) == (None, None)
    assert not m.lp_has_work(0)
    before = len(m.lp_kicks)
    m.set_waits(vp, False)
    assert m.lp_kicks[before:] == [0]
    assert m.lp_has_work(0)
    assert m.schedule(0)[0] == vp


# -- 18.5.1 HvNotifyLongSpinWait --


def test_long_spin_wait(root: Root) -> None:
    """TLFS 18.3.3: the rest of the slice goes to others on the LP."""
    m = root.machine
    child(root)
    child(root)
    spinner, slice_end = m.schedule(0)
    assert spinner is not None and slice_end is not None
    m.advance_tsc(1000)
    before = len(m.lp_kicks)
    root.machine.wrmsr(spinner, 0x40000000, 1)
    root.machine.wrmsr(spinner, 0x40000001, 0x20001)
    assert root.fast(NOTIFY_LONG_SPIN_WAIT, 5, vp=spinner) == Status.SUCCESS
    assert m.lp_kicks[before:] == [0]
    m.stopped(spinner)
    other, _ = m.schedule(0)
    assert other not in (spinner, None)
    assert m.spin_waits == [spinner]


def test_long_spin_wait_alone(root: Root) -> None:
    """TLFS 18.5.1: with nobody else to run, the VP goes on."""
    m = root.machine
    vp = child(root)
    assert m.schedule(0)[0] == vp
    root.machine.wrmsr(vp, 0x40000000, 1)
    root.machine.wrmsr(vp, 0x40000001, 0x20001)
    before = len(m.lp_kicks)
    assert root.fast(NOTIFY_LONG_SPIN_WAIT, 5, vp=vp) == Status.SUCCESS
    assert m.lp_kicks[before:] == []
    m.stopped(vp)
    assert m.schedule(0)[0] == vp


# -- Who may touch a VP's registers --


def get_rip(root: Root, partition: int) -> Exit:
    """Execute HvGetVpRegisters once."""
    root.machine.write(INPUT, struct.pack("<QIII", partition, 0, 0, 0x00020010))
    return root.machine.hypercall(0, GET_VP_REGISTERS | reps(1), INPUT, OUTPUT).exit


def test_a_call_that_wants_registers_stops_the_vp(generation: str) -> None:
    """TLFS 10.4.3: the VP leaves the guest, waits for the call, and goes on afterwards."""
    root = idle_root(generation, 2)
    m = root.machine
    vp = child(root)
    lp = m.lp_of(vp)
    assert m.schedule(lp)[0] == vp
    kicks = len(m.kicks)
    assert get_rip(root, partition_of(root, vp)) == Exit.RETRY
    assert m.kicks[kicks:] == [vp]
    m.stopped(vp)
    picked, until = m.schedule(lp)
    assert picked is None and until is not None, "the VP is left alone until the call has been executed again"
    assert not m.lp_has_work(lp)
    before = len(m.lp_kicks)
    assert get_rip(root, partition_of(root, vp)) == Exit.DONE
    assert m.lp_kicks[before:] == [lp]
    assert m.schedule(lp)[0] == vp


def test_a_call_that_does_not_come_back(generation: str) -> None:
    """A VP that was asked to stop by a caller that is gone runs on after a while."""
    root = idle_root(generation, 2)
    m = root.machine
    vp = child(root)
    lp = m.lp_of(vp)
    assert m.schedule(lp)[0] == vp
    assert get_rip(root, partition_of(root, vp)) == Exit.RETRY
    m.stopped(vp)
    picked, until = m.schedule(lp)
    assert picked is None and until is not None and until - m.tsc <= MILLISECOND
    m.advance_tsc(until - m.tsc)
    assert m.lp_has_work(lp)
    assert m.schedule(lp)[0] == vp


def test_suspension_stops_the_vp(generation: str) -> None:
    """TLFS 10.3.1: a VP that is suspended while it runs is made to leave the guest and does not come back."""
    root = idle_root(generation, 2)
    m = root.machine
    vp = child(root)
    partition = partition_of(root, vp)
    lp = m.lp_of(vp)
    assert m.schedule(lp)[0] == vp
    element = struct.pack("<QIIIIQQQ", partition, 0, 0, EXPLICIT_SUSPEND, 0, 0, 1, 0)
    m.write(INPUT, element)
    kicks = len(m.kicks)
    while m.hypercall(0, 0x51 | reps(1), INPUT).exit == Exit.RETRY:
        assert m.kicks[kicks:], "nobody asked the VP to stop"
        m.stopped(vp)
        assert m.schedule(lp)[0] is None
    if m.kicks[kicks:] and m.schedule(lp)[0] == vp:
        m.stopped(vp)
    m.advance_tsc(SECOND)
    assert m.schedule(lp) == (None, None)
    root.set_register(partition, 0, EXPLICIT_SUSPEND, 0)
    assert m.lp_kicks[-1] == lp
    assert m.schedule(lp)[0] == vp


# -- 18.3.2 placement --


def test_root_vps_are_bound(generation: str) -> None:
    """TLFS 22.3: root VP i runs on LP i and nowhere else, however idle others are."""
    root = Root(generation, vps=3)
    m = root.machine
    m.set_waits(1, True)
    for _ in range(5):
        assert [m.schedule(lp)[0] for lp in range(3)] == [0, None, 2]
        m.advance_tsc(MILLISECOND)
        m.stopped(0)
        m.stopped(2)


def test_children_are_spread(generation: str) -> None:
    """TLFS 18.3.2: new VPs go where the fewest are."""
    root = idle_root(generation, 4)
    partition = root.partition(vps=8, deposit=400)
    lps = Counter(root.machine.lp_of(root.handle(partition, i)) for i in range(8))
    assert lps == {0: 2, 1: 2, 2: 2, 3: 2}


def test_reserves_are_spread(generation: str) -> None:
    """TLFS 18.2.1: a reserve goes to an LP that can keep it."""
    root = idle_root(generation, 2)
    m = root.machine
    first = child(root, reserve=FULL * 3 // 4)
    others = [child(root) for _ in range(4)]
    second = child(root, reserve=FULL * 3 // 4)
    assert m.lp_of(first) != m.lp_of(second)
    for vp in (first, second):
        assert share(run(root, SECOND, lp=m.lp_of(vp)), vp) >= 75 - 2
    assert others


def test_an_idle_lp_takes_over(generation: str) -> None:
    """TLFS 18.3.2: ready VPs of an oversubscribed LP move to one that is idle."""
    root = idle_root(generation, 2)
    m = root.machine
    vps = [child(root) for _ in range(4)]
    local, remote = ([vp for vp in vps if m.lp_of(vp) == lp] for lp in (0, 1))
    for vp in remote:
        m.set_waits(vp, True)
    assert m.schedule(1)[0] is None, "those of the other LP have only just become ready"
    running, slice_end = m.schedule(0)
    assert running in local and slice_end is not None
    before = len(m.lp_kicks)
    m.advance_tsc(slice_end - m.tsc)
    m.stopped(running)
    other, _ = m.schedule(0)
    assert other in local
    assert m.lp_kicks[before:] == [1], "at the end of a slice an idle LP is asked to help"
    assert m.schedule(1)[0] == running
    assert (m.lp_of(running), m.lp_of(other)) == (1, 0)


def test_a_vp_does_not_move_while_it_runs(generation: str) -> None:
    """TLFS 18.3.2: nor one that has its own LP to itself."""
    root = idle_root(generation, 2)
    m = root.machine
    vp = child(root)
    lp = m.lp_of(vp)
    assert m.schedule(lp)[0] == vp
    for _ in range(5):
        m.advance_tsc(MILLISECOND)
        assert m.schedule(1 - lp) == (None, None)
    m.stopped(vp)
    m.advance_tsc(MILLISECOND)
    assert m.schedule(lp)[0] == vp


def test_parked_lps(generation: str) -> None:
    """TLFS 6.4.2: VPs leave a parked LP, and new ones avoid it, until it is unparked."""
    root = idle_root(generation, 2)
    m = root.machine
    vps = [child(root), child(root)]
    assert {m.lp_of(vp) for vp in vps} == {0, 1}
    before = len(m.lp_kicks)
    assert root.fast(PARK_LPS, 1 << 1) == Status.SUCCESS
    assert 1 in m.lp_kicks[before:]
    assert m.schedule(1)[0] is None
    assert {m.lp_of(vp) for vp in vps} == {0}
    assert m.lp_of(child(root)) == 0
    assert [m.schedule(1)[0] for _ in range(3)] == [None, None, None]
    run(root, SECOND // 100)
    assert root.fast(PARK_LPS, 0) == Status.SUCCESS
    assert m.schedule(0)[0] is not None
    m.advance_tsc(MILLISECOND)
    assert m.schedule(1)[0] is not None


def test_a_vp_that_wakes_leaves_a_parked_lp(generation: str) -> None:
    """TLFS 6.4.2: also one that waited when the LP was parked."""
    root = idle_root(generation, 2)
    m = root.machine
    vps = [child(root), child(root)]
    (vp,) = (vp for vp in vps if m.lp_of(vp) == 1)
    m.set_waits(vp, True)
    assert m.schedule(1)[0] is None
    assert root.fast(PARK_LPS, 1 << 1) == Status.SUCCESS
    assert m.schedule(1)[0] is None
    m.set_waits(vp, False)
    assert m.lp_of(vp) == 0
    assert m.lp_kicks[-1] == 0


def test_parking_is_advice(generation: str) -> None:
    """TLFS 6.4.2: root VPs stay, and when all LPs are parked VPs run nevertheless."""
    root = idle_root(generation, 2)
    m = root.machine
    vp = child(root)
    assert root.fast(PARK_LPS, (1 << 64) - 1) == Status.SUCCESS
    assert m.schedule(m.lp_of(vp))[0] == vp
    m.stopped(vp)
    m.set_waits(0, False)
    m.set_waits(1, False)
    assert m.schedule(1)[0] in (1, vp)


# -- 6.3.3, 10.3.2 run times --


def lp_times(root: Root, lp: int = 0) -> tuple[int, int, int]:
    """HvGetLogicalProcessorRunTime of LP 0: global, local, hypervisor time."""
    data = struct.pack("<Q", lp) if root.current else b""
    assert root.status(GET_LP_RUN_TIME, data, vp=lp) == Status.SUCCESS
    total, local, reserved, hypervisor = root.output("<QQQQ")
    assert reserved == 0
    return total, local, hypervisor


def test_run_times_add_up(root: Root) -> None:
    """TLFS 6.3.3, 10.3.2: an LP's run time is that of the VPs it ran and the hypervisor's; the rest it was idle."""
    m = root.machine
    vps = [child(root), child(root, cap=FULL // 4)]
    numbers = random.Random(3)
    start = lp_times(root)
    before = {vp: m.rdmsr(vp, VP_RUNTIME) for vp in (0, *vps)}
    ran: Counter[int | None] = Counter()
    for turn in range(200):
        m.set_waits(0, turn % 3 != 0)
        m.set_waits(vps[0], turn % 4 > 1)
        ran += run(root, numbers.randrange(100 * TICKS_OF_NANO100, 4 * MILLISECOND))
        m.advance_tsc(5000)  # the hypervisor's own time
    own = 200 * 5000
    end = lp_times(root)
    for vp in (0, *vps):
        assert m.rdmsr(vp, VP_RUNTIME) - before[vp] == pytest.approx(ran[vp] / TICKS_OF_NANO100, abs=2)
    local, hypervisor = end[1] - start[1], end[2] - start[2]
    assert end[0] - start[0] == pytest.approx((sum(ran.values()) + own) / TICKS_OF_NANO100, abs=2)
    assert local == pytest.approx(sum(ran[vp] for vp in (0, *vps)) / TICKS_OF_NANO100 + hypervisor, abs=2)
    idle = end[0] - start[0] - local
    assert ran[None] / TICKS_OF_NANO100 <= idle + 2
    assert idle + hypervisor == pytest.approx((ran[None] + own) / TICKS_OF_NANO100, abs=2)


def test_run_time_of_a_running_vp(root: Root) -> None:
    """TLFS 10.3.2: the register counts while the VP runs, not while it waits for its turn."""
    m = root.machine
    vp = child(root)
    assert m.schedule(0)[0] == vp
    before = m.rdmsr(vp, VP_RUNTIME)
    m.advance(1234)
    assert m.rdmsr(vp, VP_RUNTIME) - before == 1234
    m.stopped(vp)
    m.advance(1000)
    assert m.rdmsr(vp, VP_RUNTIME) - before == 1234


def test_deletion_while_queued(root: Root) -> None:
    """TLFS 10.4.2: a deleted VP is not picked any more, wherever it was."""
    m = root.machine
    vps = [child(root), child(root, cap=FULL // 100), child(root)]
    run(root, 5 * MILLISECOND)
    for vp in vps[:2]:
        partition = partition_of(root, vp)
        assert root.delete_vp(partition, 0) == Status.SUCCESS
        m.set_waits(vp, False)  # late, and without effect
    assert share(run(root, SECOND), vps[2]) == 100
