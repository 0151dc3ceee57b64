# SPDX-License-Identifier: GPL-2.0-or-later
"""Fault injection: which rule acts when, what each action does, and that nothing else breaks."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from root import Child, Root
from simulated_guest import (
    EOM,
    FLUSH_ADDRESS_LIST,
    FLUSH_ADDRESS_SPACE,
    INPUT,
    NOTIFY_LONG_SPIN_WAIT,
    OUTPUT,
    SINT0,
    TIME_REF_COUNT,
    VP_INDEX,
    Guest,
    reps,
    timer_value,
)

from qemu_hv._core import Exit, GeneralProtectionFault, Status

INSUFFICIENT_BUFFERS = 0x13
SINT, VECTOR = 2, 0x60
PORT, EVENT_PORT = 5, 6
MILLISECOND = 10000
"""In units of reference time."""
FLUSH_INPUT = struct.pack("<QQQ", 0, 3, 0)


def add(guest: Guest, point: str, action: str, rule_id: str = "rule", **fields: Any) -> None:
    """Add a rule, which must be taken."""
    assert guest.machine.inject_add(rule_id, point, action, **fields) is None


def counters(guest: Guest, rule_id: str = "rule") -> tuple[int, int, int]:
    """What a rule has matched, injected, skipped."""
    (found,) = [r for r in guest.machine.injections() if r["id"] == rule_id]
    return found["matched"], found["injected"], found["skipped"]


def spin(guest: Guest, vp: int = 0) -> Status:
    """A hypercall that always succeeds."""
    return guest.fast(NOTIFY_LONG_SPIN_WAIT, 1, vp=vp)


# -- Rules --


def test_refused_rules(guest: Guest) -> None:
    """Each with a sentence, and nothing is added."""
    m = guest.machine
    flush = {"target": FLUSH_ADDRESS_SPACE}
    refusals = [
        (m.inject_add("", "hypercall", "gp"), "a rule needs an id"),
        (m.inject_add("r", "hypercall", "status", status=0), "a status other than HV_STATUS_SUCCESS is needed"),
        (m.inject_add("r", "hypercall", "gp", target=0x7FF), "there is no such hypercall in this interface generation"),
        (m.inject_add("r", "hypercall", "gp", target=0x11F), "there is no such hypercall in this interface generation"),
        (m.inject_add("r", "msr-read", "gp", target=0x40000FFF), "there is no such MSR in this interface generation"),
        (m.inject_add("r", "msr-read", "gp", target=0x10), "there is no such MSR in this interface generation"),
        (m.inject_add("r", "msr-read", "gp", target=0x40000070), "this MSR cannot be read"),
        (m.inject_add("r", "msr-write", "gp", target=VP_INDEX), "this MSR cannot be written"),
        (m.inject_add("r", "message", "drop", target=0), "a message type is 1 to 0xFFFFFFFF"),
        (m.inject_add("r", "event", "drop", target=2048), "an event flag is 0 to 2047"),
        (m.inject_add("r", "timer", "drop", target=4), "a timer is 0 to 3"),
        (m.inject_add("r", "hypercall", "gp", nth=0, **flush), "what a rule matches is counted from 1 on"),
        (m.inject_add("r", "hypercall", "gp", every=0, **flush), "what a rule matches is counted from 1 on"),
        (m.inject_add("r", "hypercall", "gp", fraction=0.0), "a fraction is above 0 and at most 1"),
        (m.inject_add("r", "hypercall", "gp", fraction=1.1), "a fraction is above 0 and at most 1"),
        (m.inject_add("r", "hypercall", "gp", fraction=float("nan")), "a fraction is above 0 and at most 1"),
        (m.inject_add("r", "hypercall", "delay", delay_us=0), "a delay is 1 us to 1 hour"),
        (m.inject_add("r", "timer", "delay", delay_us=3600000001), "a delay is 1 us to 1 hour"),
        (m.inject_add("r", "hypercall", "gp", partition=2), "there is no such partition"),
        (m.inject_add("r", "hypercall", "gp", vp=4), "the partition can have no such virtual processor"),
    ]
    for got, expected in refusals:
        assert got == expected
    assert m.injections() == []


POSSIBLE = {
    "hypercall": {"status", "gp", "ud", "delay", "drop"},
    "msr-read": {"gp"},
    "msr-write": {"gp", "drop"},
    "message": {"delay", "drop", "double", "reorder"},
    "event": {"delay", "drop", "double"},
    "timer": {"delay", "drop", "double"},
}


@pytest.mark.parametrize("point", POSSIBLE)
@pytest.mark.parametrize("action", ["status", "gp", "ud", "delay", "drop", "double", "reorder"])
def test_which_action_makes_sense_where(point: str, action: str) -> None:
    """The table of docs/fault-injection.md."""
    refused = Guest().machine.inject_add("r", point, action, status=5)
    assert refused == (None if action in POSSIBLE[point] else "this action makes no sense there")


def test_ids_are_unique_and_rules_are_limited(guest: Guest) -> None:
    """Sixty-four, and no two alike."""
    m = guest.machine
    for number in range(64):
        add(guest, "hypercall", "gp", f"rule {number}", nth=1 << 40)
    assert m.inject_add("rule 5", "hypercall", "gp") == "there is a rule with this id"
    assert m.inject_add("one more", "hypercall", "gp") == "there are 64 rules already; remove one"
    assert m.inject_remove("rule 5")
    assert not m.inject_remove("rule 5")
    assert [r["id"] for r in m.injections()] == [f"rule {n}" for n in range(64) if n != 5]
    add(guest, "hypercall", "gp", "one more", nth=1 << 40)
    assert m.inject_remove()
    assert m.injections() == []
    assert m.inject_remove(), "there is nothing to remove, and nothing wrong with that"


def failures(guest: Guest, calls: int) -> list[int]:
    """Numbers, from 1 on, of the calls that fail."""
    return [number for number in range(1, calls + 1) if spin(guest) != Status.SUCCESS]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ({"nth": 3}, [3]),
        ({"every": 3}, [3, 6, 9]),
        ({"every": 3, "limit": 2}, [3, 6]),
        ({"limit": 4}, [1, 2, 3, 4]),
        ({"fraction": 1.0}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    ],
)
def test_when_a_rule_acts(guest: Guest, fields: dict[str, Any], expected: list[int]) -> None:
    """By the number of what it matches."""
    add(guest, "hypercall", "status", target=NOTIFY_LONG_SPIN_WAIT, status=INSUFFICIENT_BUFFERS, **fields)
    assert failures(guest, 10) == expected
    assert counters(guest) == (10, len(expected), 0)


def test_a_fraction_is_by_chance_and_can_be_repeated() -> None:
    """The same seed chooses the same ones, another seed others; the part is right."""
    found = []
    for seed in (0, 0, 1):
        guest = Guest()
        add(guest, "hypercall", "status", status=5, fraction=0.1, seed=seed)
        found.append(failures(guest, 5000))
        assert 400 < len(found[-1]) < 600
    assert found[0] == found[1] != found[2]


def test_the_first_rule_that_acts_is_the_only_one(guest: Guest) -> None:
    """All that match count."""
    add(guest, "hypercall", "status", "first", status=5, every=2)
    add(guest, "hypercall", "status", "second", status=7, every=3)
    got = [spin(guest) for _ in range(6)]
    fine, first, second = Status.SUCCESS, Status(5), Status(7)
    assert got == [fine, first, second, first, fine, first]
    assert counters(guest, "first") == (6, 3, 0)
    assert counters(guest, "second") == (6, 1, 0)


def test_rules_are_for_a_vp_and_a_target(guest: Guest) -> None:
    """Others are not even counted."""
    add(guest, "hypercall", "status", target=NOTIFY_LONG_SPIN_WAIT, vp=2, status=5)
    assert [spin(guest, vp) for vp in range(4)] == [Status.SUCCESS, Status.SUCCESS, Status(5), Status.SUCCESS]
    assert guest.status(FLUSH_ADDRESS_SPACE, FLUSH_INPUT, vp=2) == Status.SUCCESS
    assert counters(guest) == (1, 1, 0)


def test_removed_rules_do_not_act(guest: Guest) -> None:
    """At run time."""
    add(guest, "hypercall", "status", status=5)
    assert spin(guest) == Status(5)
    guest.machine.inject_remove("rule")
    assert spin(guest) == Status.SUCCESS


def test_rules_survive_a_reset_and_are_not_saved(guest: Guest) -> None:
    """They are the operator's, not the machine's."""
    m = guest.machine
    stream = m.save()
    add(guest, "hypercall", "status", status=5)
    assert m.save() == stream
    m.reset()
    guest.enable_hypercalls()
    assert spin(guest) == Status(5)
    m.restore(stream)
    assert counters(guest) == (1, 1, 0)


# -- Hypercalls --


def test_status(guest: Guest) -> None:
    """The call is not executed, and answers."""
    add(guest, "hypercall", "status", target=FLUSH_ADDRESS_SPACE, status=0x1234)
    result = guest.call(FLUSH_ADDRESS_SPACE, FLUSH_INPUT)
    assert (result.exit, result.result & 0xFFFF, result.reps_completed) == (Exit.DONE, 0x1234, 0)
    assert guest.machine.flushes == []


@pytest.mark.parametrize(("action", "expected"), [("gp", Exit.GP), ("ud", Exit.UD)])
def test_faults(guest: Guest, action: str, expected: Exit) -> None:
    """#GP and #UD instead."""
    add(guest, "hypercall", action, nth=1)
    assert guest.machine.call(0, NOTIFY_LONG_SPIN_WAIT | 1 << 16, 1).exit == expected
    assert spin(guest) == Status.SUCCESS


def test_dropped_calls_pretend(guest: Guest) -> None:
    """Success, with all repetitions, and nothing has been done."""
    add(guest, "hypercall", "drop")
    assert guest.status(FLUSH_ADDRESS_SPACE, FLUSH_INPUT) == Status.SUCCESS
    ranges = struct.pack("<3Q", 0x1000, 0x2000, 0x3000)
    result = guest.call(FLUSH_ADDRESS_LIST | reps(3), FLUSH_INPUT + ranges)
    assert (result.status, result.reps_completed) == (Status.SUCCESS, 3)
    assert guest.machine.flushes == []


def test_a_delayed_call_is_executed_later(guest: Guest) -> None:
    """The instruction does not retire before, nobody waits in the core, and the call counts once."""
    m = guest.machine
    add(guest, "hypercall", "delay", target=FLUSH_ADDRESS_SPACE, delay_us=1000)
    m.write(INPUT, FLUSH_INPUT)

    def attempt() -> Any:
        return m.hypercall(0, FLUSH_ADDRESS_SPACE, INPUT, OUTPUT)

    assert attempt().exit == Exit.RETRY
    m.advance(MILLISECOND - 1)
    assert attempt().exit == Exit.RETRY
    assert m.flushes == []
    assert m.spin_waits == [0, 0]
    m.advance(1)
    assert attempt().status == Status.SUCCESS
    assert len(m.flushes) == 1
    assert counters(guest) == (1, 1, 0)
    assert attempt().exit == Exit.RETRY, "the next one is delayed too"


def test_a_call_of_many_repetitions_counts_once(guest: Guest) -> None:
    """However often its instruction is executed."""
    add(guest, "hypercall", "status", target=FLUSH_ADDRESS_LIST, status=5, nth=2)
    many = FLUSH_INPUT + struct.pack("<300Q", *range(0, 300 << 12, 1 << 12))
    result = guest.call(FLUSH_ADDRESS_LIST | reps(300), many)
    assert (result.status, result.reps_completed) == (Status.SUCCESS, 300)
    assert result.retries > 0
    assert counters(guest) == (1, 0, 0)
    assert guest.call(FLUSH_ADDRESS_LIST | reps(300), many).status == Status(5)


# -- Registers --


def test_register_faults(guest: Guest) -> None:
    """A read, a write, and only of that register."""
    m = guest.machine
    add(guest, "msr-read", "gp", "reads", target=TIME_REF_COUNT, nth=2)
    add(guest, "msr-write", "gp", "writes", target=SINT0 + 3)
    m.rdmsr(0, TIME_REF_COUNT)
    with pytest.raises(GeneralProtectionFault):
        m.rdmsr(0, TIME_REF_COUNT)
    m.rdmsr(0, TIME_REF_COUNT)
    with pytest.raises(GeneralProtectionFault):
        guest.set_sint(3, VECTOR)
    guest.set_sint(2, VECTOR)
    assert m.rdmsr(0, SINT0 + 3) == 1 << 16
    assert m.rdmsr(0, SINT0 + 2) == VECTOR


def test_dropped_register_writes(guest: Guest) -> None:
    """The register keeps its value."""
    add(guest, "msr-write", "drop", target=SINT0 + 3)
    guest.set_sint(3, VECTOR)
    assert guest.machine.rdmsr(0, SINT0 + 3) == 1 << 16


# -- Messages --


@pytest.fixture
def receiver(guest: Guest) -> Guest:
    """A guest with a port for messages and one for events."""
    guest.enable_synic()
    guest.set_sint(SINT, VECTOR)
    guest.open_port(PORT, sint=SINT)
    guest.open_port(EVENT_PORT, sint=SINT, port_type=2, base_flag=8, flag_count=8)
    return guest


def post(guest: Guest, payload: bytes, message_type: int = 1) -> None:
    """Post to the port, which must succeed."""
    assert guest.post(PORT, payload, message_type=message_type) == Status.SUCCESS


def received(guest: Guest, sint: int = SINT) -> list[bytes]:
    """The first bytes of all messages that can be taken now."""
    found = []
    while (message := guest.take_message(sint)).type:
        found.append(message.payload[:1])
    return found


def test_dropped_messages(receiver: Guest) -> None:
    """The sender is not told, the port's buffer is free again."""
    add(receiver, "message", "drop", target=1, every=2)
    for number in range(40):
        post(receiver, bytes([number]))
        assert received(receiver) == ([] if number % 2 else [bytes([number])])
    post(receiver, b"x", message_type=2)
    assert received(receiver) == [b"x"]


def test_delayed_messages(receiver: Guest) -> None:
    """They come when their time has come, others overtake them."""
    m = receiver.machine
    add(receiver, "message", "delay", target=1, delay_us=1000)
    post(receiver, b"a")
    post(receiver, b"b", message_type=2)
    assert received(receiver) == [b"b"]
    m.clear_records()
    m.advance(MILLISECOND - 1)
    assert received(receiver) == []
    m.advance(1)
    assert m.interrupts == [(0, VECTOR)]
    assert received(receiver) == [b"a"]


def test_doubled_messages(receiver: Guest) -> None:
    """Once now, once later, the same."""
    add(receiver, "message", "double", nth=1, delay_us=1000)
    post(receiver, b"a")
    post(receiver, b"b")
    assert received(receiver) == [b"a", b"b"]
    receiver.machine.advance(MILLISECOND)
    assert received(receiver) == [b"a"]
    receiver.machine.advance(10 * MILLISECOND)
    assert received(receiver) == []


def test_reordered_messages(receiver: Guest) -> None:
    """Behind the next one for the same source; or after its time, when there is none."""
    add(receiver, "message", "reorder", every=2, delay_us=1000)
    for letter in (b"a", b"b", b"c"):
        post(receiver, letter)
    assert received(receiver) == [b"a", b"c", b"b"]
    post(receiver, b"d")
    assert received(receiver) == []
    receiver.machine.advance(MILLISECOND)
    assert received(receiver) == [b"d"]
    receiver.machine.advance(10 * MILLISECOND)
    assert received(receiver) == []


def test_what_is_held_back_survives_its_port_and_rule(receiver: Guest) -> None:
    """It was copied, so nothing dangles; and a rule that goes does not take it along."""
    add(receiver, "message", "delay", delay_us=1000)
    post(receiver, b"a")
    receiver.machine.operator_delete_port(PORT)
    receiver.machine.inject_remove()
    receiver.machine.advance(MILLISECOND)
    assert received(receiver) == [b"a"]


def test_too_much_held_back_is_delivered(receiver: Guest) -> None:
    """Buffers are limited: what finds none happens as without a rule, and is counted as skipped."""
    add(receiver, "message", "delay", delay_us=1000)
    for number in range(256):
        post(receiver, bytes([number]))
    assert received(receiver) == []
    post(receiver, b"straight")
    assert received(receiver) == [b"s"]
    assert counters(receiver) == (257, 256, 1)
    receiver.machine.advance(MILLISECOND)
    assert received(receiver) == [bytes([number]) for number in range(256)]
    post(receiver, b"again")
    assert received(receiver) == []


def test_held_messages_that_wait_for_a_slot_are_not_lost(receiver: Guest) -> None:
    """Due messages queue like others."""
    add(receiver, "message", "delay", target=1, delay_us=1000)
    post(receiver, b"a")
    post(receiver, b"x", message_type=2)
    receiver.machine.advance(MILLISECOND)
    assert received(receiver) == [b"x", b"a"]


def test_a_reset_forgets_what_is_held_back(receiver: Guest) -> None:
    """With everything else that was on its way, in time and in queues."""
    m = receiver.machine
    add(receiver, "message", "delay", nth=1, delay_us=1000)
    add(receiver, "message", "double", "other", nth=2, delay_us=1)
    post(receiver, b"a")
    post(receiver, b"b")
    m.advance(100)
    m.reset()
    m.inject_remove()
    receiver.enable_hypercalls()
    receiver.enable_synic()
    receiver.set_sint(SINT, VECTOR)
    m.advance(10 * MILLISECOND)
    assert received(receiver) == []


def test_what_is_held_back_is_not_saved(receiver: Guest) -> None:
    """Neither in time nor in a queue; what the guest's own state is stays."""
    m = receiver.machine
    add(receiver, "message", "double", nth=2, delay_us=1)
    post(receiver, b"a")
    post(receiver, b"b")
    m.advance(100)
    m.restore(m.save())
    m.advance(10 * MILLISECOND)
    assert received(receiver) == [b"a", b"b"]


# -- Events --


def test_dropped_events(receiver: Guest) -> None:
    """The sender is not told; rules name flags as the guest sees them."""
    add(receiver, "event", "drop", target=9)
    assert receiver.signal(EVENT_PORT, 0) == Status.SUCCESS
    assert receiver.signal(EVENT_PORT, 1) == Status.SUCCESS
    assert receiver.flags(SINT) == {8}


def test_delayed_events(receiver: Guest) -> None:
    """Flag and interrupt come later."""
    m = receiver.machine
    add(receiver, "event", "delay", delay_us=1000)
    assert receiver.signal(EVENT_PORT, 0) == Status.SUCCESS
    assert (receiver.flags(SINT), m.interrupts) == (set(), [])
    m.advance(MILLISECOND)
    assert (receiver.flags(SINT), m.interrupts) == ({8}, [(0, VECTOR)])


def test_doubled_events(receiver: Guest) -> None:
    """The flag is set again after the guest has cleared it."""
    m = receiver.machine
    add(receiver, "event", "double", delay_us=1000)
    assert receiver.signal(EVENT_PORT, 3) == Status.SUCCESS
    assert receiver.flags(SINT) == {11}
    m.write(receiver.sief(0) + SINT * 256, bytes(256))
    m.advance(MILLISECOND)
    assert receiver.flags(SINT) == {11}
    assert m.interrupts == [(0, VECTOR)] * 2


# -- Timers --


def expirations(guest: Guest) -> list[int]:
    """Expiration times in the messages that can be taken now."""
    found = []
    while guest.message(SINT).type:
        found.append(guest.timer_message(SINT).expiration)
        guest.take_message(SINT)
    return found


def test_dropped_expirations(receiver: Guest) -> None:
    """A periodic timer goes on, a one-shot one has expired."""
    m = receiver.machine
    add(receiver, "timer", "drop", target=1, every=2)
    now = receiver.time()
    receiver.set_timer(1, timer_value(SINT, periodic=True), MILLISECOND)
    found = []
    for _ in range(6):
        m.advance(MILLISECOND)
        found += expirations(receiver)
    assert [time - now for time in found] == [MILLISECOND, 3 * MILLISECOND, 5 * MILLISECOND]
    receiver.set_timer(1, 0, 0)
    add(receiver, "timer", "drop", "one-shot", target=0)
    receiver.set_timer(0, timer_value(SINT), receiver.time() + 5)
    m.advance(MILLISECOND)
    assert expirations(receiver) == []
    assert not receiver.timer_config(0) & 1


def test_delayed_expirations(receiver: Guest) -> None:
    """Late, with the time at which they should have been; asked about once."""
    m = receiver.machine
    add(receiver, "timer", "delay", delay_us=500)
    due = receiver.time() + MILLISECOND
    receiver.set_timer(0, timer_value(SINT), due)
    m.advance(MILLISECOND)
    assert expirations(receiver) == []
    assert receiver.timer_config(0) & 1, "it has not expired yet"
    m.advance(MILLISECOND // 2)
    assert expirations(receiver) == [due]
    assert counters(receiver) == (1, 1, 0)


def test_a_late_timer_can_be_stopped(receiver: Guest) -> None:
    """Then it does not expire, and its next life is asked about again."""
    m = receiver.machine
    add(receiver, "timer", "delay", nth=1, delay_us=500)
    receiver.set_timer(0, timer_value(SINT), receiver.time() + 10)
    m.advance(20)
    receiver.set_timer(0, 0, 0)
    m.advance(MILLISECOND)
    assert expirations(receiver) == []
    receiver.set_timer(0, timer_value(SINT), receiver.time() + 10)
    m.advance(20)
    assert len(expirations(receiver)) == 1
    assert counters(receiver) == (2, 1, 0)


def test_doubled_expirations(receiver: Guest) -> None:
    """The message comes again, later."""
    m = receiver.machine
    add(receiver, "timer", "double", delay_us=1000)
    due = receiver.time() + 10
    receiver.set_timer(0, timer_value(SINT), due)
    m.advance(20)
    assert expirations(receiver) == [due]
    m.advance(MILLISECOND)
    assert expirations(receiver) == [due]


def test_doubled_expirations_in_direct_mode() -> None:
    """The interrupt comes again."""
    guest = Guest("current")
    add(guest, "timer", "double", delay_us=1000)
    guest.set_timer(0, timer_value(direct_vector=0x70), guest.time() + 10)
    guest.machine.advance(20)
    assert guest.machine.interrupts == [(0, 0x70)]
    guest.machine.advance(MILLISECOND)
    assert guest.machine.interrupts == [(0, 0x70)] * 2


def test_a_timer_whose_message_waits_is_asked_about_once(receiver: Guest) -> None:
    """TLFS 15.3: an expiration that cannot be signaled is the same one when it can be."""
    add(receiver, "timer", "drop", nth=100)
    receiver.set_timer(0, timer_value(SINT, periodic=True), MILLISECOND)
    for _ in range(5):
        receiver.machine.advance(MILLISECOND)
    matched = counters(receiver)[0]
    assert matched <= 3, "slot, buffer, and the one that waits for it"
    assert expirations(receiver)
    receiver.machine.wrmsr(0, EOM, 0)


# -- Children --


@pytest.fixture
def root(generation: str) -> Root:
    """A root whose SynIC is enabled."""
    root = Root(generation)
    root.enable_synic()
    root.set_sint(0, VECTOR)
    return root


def test_rules_are_for_one_partition(root: Root) -> None:
    """The root's calls are not the child's."""
    child = Child(root, root.partition(memory=48))
    add(root, "hypercall", "status", partition=child.partition, status=5)
    assert spin(root) == Status.SUCCESS
    assert child.fast(NOTIFY_LONG_SPIN_WAIT, 1) == Status(5)


def test_a_rule_outlives_its_partition_as_an_orphan(root: Root) -> None:
    """It is told, matches nothing any more, and can be removed."""
    partition = root.partition()
    add(root, "hypercall", "status", partition=partition, status=5)
    assert not root.machine.injections()[0]["orphaned"]
    root.destroy(partition)
    assert root.machine.injections()[0]["orphaned"]
    other = Child(root, root.partition(memory=48))
    assert other.fast(NOTIFY_LONG_SPIN_WAIT, 1) == Status.SUCCESS
    assert root.machine.inject_remove("rule")


def test_a_dropped_intercept_leaves_the_vp_suspended(root: Root) -> None:
    """TLFS 16.2: the parent has no message; it can look, resume, and have the next one."""
    m = root.machine
    partition = root.partition(memory=48)
    vp = root.handle(partition, 0)
    add(root, "message", "drop", nth=1)
    root.resume(partition)
    assert m.triple_fault(vp) == Exit.INTERCEPT
    assert root.message(0).type == 0
    assert root.get_register(partition, 0, 1) == 1
    root.resume(partition)
    assert m.triple_fault(vp) == Exit.INTERCEPT
    assert root.message(0).type == 0x80000021


@pytest.mark.parametrize("action", ["delay", "double", "reorder"])
def test_intercepts_of_a_vp_that_goes(root: Root, action: str) -> None:
    """What was copied of its message outlives it, and nothing dangles."""
    m = root.machine
    partition = root.partition(memory=48)
    vp = root.handle(partition, 0)
    add(root, "message", action, delay_us=1000)
    root.resume(partition)
    assert m.triple_fault(vp) == Exit.INTERCEPT
    root.destroy(partition)
    m.advance(MILLISECOND)
    for _ in range(2 if action == "double" else 1):
        assert root.take_message(0).type == 0x80000021
        m.advance(MILLISECOND)
    assert root.take_message(0).type == 0


def test_a_receiver_that_goes_takes_along_what_is_held_for_it(root: Root) -> None:
    """Its buffers are free for others, its timer does nothing."""
    m = root.machine
    child = root.partition(memory=48, privileges=root.get_property(1, 0x10000) & ~(1 << 44))
    vp = root.handle(child, 0)
    Child(root, child)
    m.wrmsr(vp, 0x40000083, 0x5001)
    m.wrmsr(vp, 0x40000080, 1)
    m.wrmsr(vp, SINT0 + SINT, VECTOR)
    add(root, "timer", "double", partition=child, delay_us=1000)
    root.resume(child)
    m.wrmsr(vp, 0x400000B1, 1)
    m.wrmsr(vp, 0x400000B0, timer_value(SINT))
    m.advance(10)
    assert counters(root) == (1, 1, 0)
    root.destroy(child)
    m.advance(10 * MILLISECOND)
