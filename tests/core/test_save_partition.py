# SPDX-License-Identifier: GPL-2.0-or-later
"""Chapter 17 of the TLFS: partition save and restore."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from intercepts import INSTALL_INTERCEPT, IO_PORT, install_input
from ports import CREATE_PORTS, SIGNAL_EVENTS, Ports, message_info
from root import (
    CPU_WEIGHT,
    EXPLICIT_SUSPEND,
    INTERCEPT_SUSPEND,
    PROCESSOR_CLFLUSH_SIZE,
    PROCESSOR_FEATURES,
    PROCESSOR_XSAVE_FEATURES,
    ROOT_ID,
    Child,
    Root,
)
from simulated_guest import (
    GUEST_OS_ID,
    HYPERCALL,
    INPUT,
    OUTPUT,
    PAGE,
    RAM_END,
    REFERENCE_TSC,
    SCONTROL,
    SELF,
    SIEFP,
    SIMP,
    SINT0,
    STIMER0_CONFIG,
    STIMER0_COUNT,
    TIME_REF_COUNT,
    TSC_PAGE,
    Guest,
    timer_value,
)
from transfers import (
    CHUNK,
    HEAD,
    RESTORE,
    SAVE,
    START,
    SUMMARY,
    SYSTEM,
    State,
    Stream,
    checksum,
    restore,
    save,
    try_restore,
    try_save,
)

from qemu_hv._core import Exit, Register, Status

FREQUENCY = 2_595_999_000
IO = 0x1234
PORT = 6
SENDER = 7
SPARE_VP = 5
VP_INDICES = (0, SPARE_VP)
VECTOR = 0x66
PAGES = 64
REFERENCE_TSC_PRIVILEGE = 1 << 9
MSRS = [
    GUEST_OS_ID,
    HYPERCALL,
    REFERENCE_TSC,
    0x40000073,
    SCONTROL,
    SIEFP,
    SIMP,
    *range(SINT0, SINT0 + 16),
    *range(STIMER0_CONFIG, STIMER0_CONFIG + 8),
    TIME_REF_COUNT,
]


def suspend(root: Root, partition: int, value: int = 1) -> None:
    """Set or clear the explicit suspend register of all VPs (TLFS 17.1.7)."""
    for index in VP_INDICES:
        root.set_register(partition, index, EXPLICIT_SUSPEND, value)


def make_partition(root: Root) -> int:
    """An active child with two VPs and memory, all suspended as they come from HvCreateVp."""
    partition = root.partition(memory=PAGES, deposit=256)
    root.create_vp(partition, SPARE_VP)
    Ports(root).grant(partition, SIGNAL_EVENTS | CREATE_PORTS | REFERENCE_TSC_PRIVILEGE)
    return partition


def open_port(root: Root, partition: int) -> None:
    """A port of the child with the root at its other end."""
    ports = Ports(root)
    assert ports.create(partition, PORT, ROOT_ID, message_info(2)) == Status.SUCCESS
    assert ports.connect(ROOT_ID, SENDER, partition, PORT) == Status.SUCCESS


def close_port(root: Root) -> None:
    """The root's end goes, so that it can be made again."""
    assert Ports(root).disconnect(ROOT_ID, SENDER) == Status.SUCCESS


def run_for_a_while(root: Root, partition: int) -> None:
    """Software in the child sets up everything that is to be saved."""
    m, ports, child = root.machine, Ports(root), Child(root, partition)
    suspend(root, partition, 0)
    m.advance(1_000_000)
    ports.enable(child)
    ports.enable(child, sint=3, value=0x43)
    m.wrmsr(child.vp, REFERENCE_TSC, TSC_PAGE | 1)
    m.wrmsr(child.vp, 0x40000073, 0x35000 | 1)
    m.write(0x35000, b"assist", child.vp)
    m.write(0x38000 + 0x10, b"events", child.vp)
    m.wrmsr(child.vp, STIMER0_COUNT, m.rdmsr(child.vp, TIME_REF_COUNT) + 5000)
    m.wrmsr(child.vp, STIMER0_CONFIG, timer_value(3))
    m.lapic_write(child.vp, 0x3E0, 0xB)
    m.lapic_write(child.vp, 0x320, VECTOR)
    m.lapic_write(child.vp, 0x380, 0xABCDE)
    m.lapic_write(child.vp, 0x80, 0x20)
    for register, value in {
        Register.Rip: 0x4321,
        Register.Rax: 0x1122334455667788,
        Register.Xmm3: 3 << 64 | 5,
        Register.FpMmx2: 0x4000 << 64 | 7,
        Register.Ymm4High: 9 << 64,
        Register.Cr3: 0x7000,
        Register.Star: 0x23001000000000,
        Register.InterruptState: 1,
    }.items():
        m.set_register(child.vp, register, value)
    open_port(root, partition)
    for n in range(3):
        assert ports.post(root, SENDER, bytes([n])) == Status.SUCCESS


class Saved:
    """A root and its child, which has run for a while and is suspended."""

    def __init__(self, generation: str, **config: int) -> None:
        self.root = Root(generation, tsc_frequency=FREQUENCY, **config)
        self.root.enable_synic()
        self.root.set_sint(0, 0x40)
        self.partition = make_partition(self.root)
        run_for_a_while(self.root, self.partition)
        suspend(self.root, self.partition)

    def visible(self, partition: int) -> dict[str, object]:
        """What can be seen of a child's state."""
        m, vps = self.root.machine, []
        for index in VP_INDICES:
            vp = self.root.handle(partition, index)
            apic = [m.lapic_read(vp, offset) for offset in range(0x20, 0x390, 0x10)]
            timers = [(t["config"], t["count"], t["due"]) for t in m.vp_state(vp)["timers"]]
            registers = [m.register(vp, register) for register in Register]
            state = [m.rdmsr(vp, msr) for msr in MSRS]
            vps.append((state, apic, timers, registers, m.vp_state(vp)["queued"]))
        vp = self.root.handle(partition, 0)
        pages = [m.read(gpa, PAGE, vp) for gpa in (0x20000, 0x30000, 0x38000, 0x35000)]
        return {"vps": vps, "pages": pages}

    def target(self) -> int:
        """A new partition for the state, as TLFS 17.1.8 says."""
        close_port(self.root)
        partition = make_partition(self.root)
        open_port(self.root, partition)
        return partition


@pytest.fixture
def saved(generation: str) -> Saved:
    """A child that is ready to be saved."""
    return Saved(generation)


@pytest.fixture
def root(generation: str) -> Root:
    """A root without children."""
    return Root(generation, tsc_frequency=FREQUENCY)


# -- 17.1.5: what is saved --


def test_state_is_complete(saved: Saved) -> None:
    """TLFS 17.1.5: registers, APIC, SynIC, SIM and SIEF, messages, timers, MSRs, overlays and reference time."""
    before = saved.visible(saved.partition)
    stream = save(saved.root, saved.partition)
    assert saved.visible(saved.partition) == before, "saving changes nothing"
    target = saved.target()
    saved.root.machine.advance(777)
    assert restore(saved.root, target, stream) == State.COMPLETE
    assert saved.visible(target) == before


def test_state_goes_on(saved: Saved) -> None:
    """TLFS 17.1.8: time, timers, the local APIC's timer and queued messages go on where they were."""
    root, m = saved.root, saved.root.machine
    stream = save(root, saved.partition)
    time = m.rdmsr(root.handle(saved.partition, 0), TIME_REF_COUNT)
    target = saved.target()
    m.advance(50_000_000)
    assert restore(root, target, stream) == State.COMPLETE
    vp, ports, child = root.handle(target, 0), Ports(root), Child.__new__(Child)
    child.root, child.partition, child.vp = root, target, vp
    assert m.rdmsr(vp, TIME_REF_COUNT) == time
    suspend(root, target, 0)
    assert [ports.take(child).payload[0] for _ in range(3)] == [0, 1, 2]
    m.advance(4900 - (m.rdmsr(vp, TIME_REF_COUNT) - time))
    assert not ports.message(child, sint=3).type
    m.advance(200)
    assert ports.message(child, sint=3).type
    m.advance(100_000)
    assert m.lapic_read(vp, 0x230) & 1 << VECTOR % 32


def test_time_stamp_counter_goes_on(saved: Saved) -> None:
    """TLFS 17.1.5, 11.7: a VP's TSC is a register too; it goes on from the value that was saved."""
    root = saved.root
    value = root.get_register(saved.partition, 0, Register.Tsc)
    stream = save(root, saved.partition)
    saved.root.machine.advance(50_000_000)
    target = saved.target()
    assert restore(root, target, stream) == State.COMPLETE
    assert 0 <= root.get_register(target, 0, Register.Tsc) - value < 1000


def test_suspension(saved: Saved) -> None:
    """TLFS 17.1.8: VPs stay explicitly suspended; an intercept that was outstanding still is."""
    root, m = saved.root, saved.root.machine
    assert root.status(INSTALL_INTERCEPT, install_input(saved.partition, 3, IO_PORT, IO)) == Status.SUCCESS
    assert m.io(root.handle(saved.partition, 0), IO, 1, True, 7)[0] == Exit.INTERCEPT
    stream = save(root, saved.partition)
    target = saved.target()
    assert restore(root, target, stream) == State.COMPLETE
    for index, intercept in ((0, 1), (SPARE_VP, 0)):
        assert root.get_register(target, index, EXPLICIT_SUSPEND) == 1
        assert root.get_register(target, index, INTERCEPT_SUSPEND) == intercept


@pytest.mark.parametrize("started", [False, True])
def test_processors_that_wait(saved: Saved, started: bool) -> None:
    """TLFS 10.1.5, 17.1.5: whether a VP still waits for its SIPI, or is halted, is part of its state."""
    root, m = saved.root, saved.root.machine
    vp = root.handle(saved.partition, 0)
    if started:
        m.lapic_write(vp, 0x310, SPARE_VP << 24)
        m.lapic_write(vp, 0x300, 0x4612)
    m.set_waits(vp, True)
    stream = save(root, saved.partition)
    target = saved.target()
    assert restore(root, target, stream) == State.COMPLETE
    assert m.waits_for_sipi(root.handle(target, SPARE_VP)) is not started
    again = Stream.parse(save(root, target))
    assert again.section(b"PROC").content == Stream.parse(stream).section(b"PROC").content


def test_messages_without_their_port(saved: Saved) -> None:
    """TLFS 17.1.4: ports are the parent's to make again; messages of one that is not there are as if it was deleted."""
    stream = save(saved.root, saved.partition)
    target = make_partition(saved.root)
    assert restore(saved.root, target, stream) == State.COMPLETE
    vp = saved.root.handle(target, 0)
    assert saved.root.machine.vp_state(vp)["queued"] == [0] * 16
    assert saved.root.machine.read(0x30000 + 2 * 256, 4, vp) != bytes(4), "the one in its slot is the guest's"


def test_restore_over_another_state(saved: Saved) -> None:
    """A partition that has run, with messages and timers of its own, has the saved state afterwards and no other."""
    stream = save(saved.root, saved.partition)
    before = saved.visible(saved.partition)
    target = saved.target()
    close_port(saved.root)
    assert Ports(saved.root).delete(target, PORT) == Status.SUCCESS
    run_for_a_while(saved.root, target)
    suspend(saved.root, target)
    m = saved.root.machine
    m.set_register(saved.root.handle(target, 0), Register.Rbx, 1)
    assert restore(saved.root, target, stream) == State.COMPLETE
    assert saved.visible(target) == before


# -- 17.1.4: what is not --


def test_state_that_the_parent_sets(saved: Saved) -> None:
    """TLFS 17.1.4: properties, intercepts, mappings and the contents of pages stay those of the target."""
    root, m = saved.root, saved.root.machine
    m.write(0x8000, b"saved", root.handle(saved.partition, 0))
    assert root.set_property(saved.partition, CPU_WEIGHT, 77) == Status.SUCCESS
    assert root.status(INSTALL_INTERCEPT, install_input(saved.partition, 3, IO_PORT, IO)) == Status.SUCCESS
    stream = save(root, saved.partition)
    target = saved.target()
    weight, balance, pages = root.get_property(target, CPU_WEIGHT), root.balance(target), m.gpa_space(target)
    assert restore(root, target, stream) == State.COMPLETE
    assert (root.get_property(target, CPU_WEIGHT), root.balance(target)) == (weight, balance)
    assert m.gpa_space(target)[1] == pages[1]
    assert m.read(0x8000, 5, root.handle(target, 0)) == bytes(5)
    assert m.io(root.handle(target, 0), IO, 1, True, 7)[0] != Exit.INTERCEPT


# -- 17.3.1, 17.3.2: chunks --


def test_chunks_of_a_save(saved: Saved) -> None:
    """TLFS 17.3.1: at most 4080 bytes a call, INCOMPLETE until the last; nothing afterwards without START."""
    root, partition = saved.root, saved.partition
    whole, flags, sizes = save(root, partition), START, []
    while True:
        status, state, data = try_save(root, partition, flags)
        assert status == Status.SUCCESS
        sizes.append(len(data))
        if state == State.COMPLETE:
            break
        flags = 0
    assert sizes[:-1] == [CHUNK] * (len(sizes) - 1)
    assert sum(sizes) == len(whole)
    assert try_save(root, partition)[0] == Status.INVALID_SAVE_RESTORE_STATE


@pytest.mark.parametrize("chunk", [1, 7, 31, 32, 33, 4079, 4080])
def test_chunks_of_a_restore(saved: Saved, chunk: int) -> None:
    """TLFS 17.3.2: the stream may come in pieces of any size."""
    stream = save(saved.root, saved.partition)
    before = saved.visible(saved.partition)
    target = saved.target()
    if chunk < 100:  # byte by byte up to the state itself; the rest in one go takes less long
        position, flags = 0, START
        while position < 600:
            status, state, used = try_restore(saved.root, target, stream[position : position + chunk], flags)
            assert (status, state, used) == (Status.SUCCESS, State.INCOMPLETE, chunk)
            position, flags = position + used, 0
        while state == State.INCOMPLETE:
            status, state, used = try_restore(saved.root, target, stream[position : position + CHUNK])
            position += used
        assert (state, position) == (State.COMPLETE, len(stream))
    else:
        assert restore(saved.root, target, stream, chunk=chunk) == State.COMPLETE
    assert saved.visible(target) == before


def test_bytes_behind_the_end(saved: Saved) -> None:
    """TLFS 17.3.2: RestoreDataConsumed is what belonged to the stream; a count of zero is legal."""
    stream = save(saved.root, saved.partition)
    target = saved.target()
    assert try_restore(saved.root, target, b"", START) == (Status.SUCCESS, State.INCOMPLETE, 0)
    last = len(stream) - 100
    for first in range(0, last, CHUNK):
        status, state, _ = try_restore(saved.root, target, stream[first : min(first + CHUNK, last)])
        assert (status, state) == (Status.SUCCESS, State.INCOMPLETE)
    assert try_restore(saved.root, target, stream[last:] + b"more") == (Status.SUCCESS, State.COMPLETE, 100)
    assert try_restore(saved.root, target, b"more")[0] == Status.INVALID_SAVE_RESTORE_STATE


def test_start_ends_what_was_under_way(saved: Saved) -> None:
    """TLFS 17.2.2: START begins anew, whatever was under way; its memory is released."""
    root, partition = saved.root, saved.partition
    stream, balance = save(root, partition), root.balance()
    for _ in range(3):
        assert try_save(root, partition, START)[1:] == (State.INCOMPLETE, stream[:CHUNK])
    assert root.balance().available < balance.available
    assert try_restore(root, partition, stream[:CHUNK], START)[1] == State.INCOMPLETE
    assert try_save(root, partition)[0] == Status.INVALID_SAVE_RESTORE_STATE, "a restore is under way"
    assert save(root, partition) == stream
    assert root.balance() == balance


def test_stream_is_of_one_moment(saved: Saved) -> None:
    """A stream that is read slowly is that of the moment at which the save began."""
    root, partition = saved.root, saved.partition
    stream = save(root, partition)
    _, _, data = try_save(root, partition, START)
    root.machine.set_register(root.handle(partition, SPARE_VP), Register.Rbx, 99)
    state = State.INCOMPLETE
    while state == State.INCOMPLETE:
        _, state, more = try_save(root, partition)
        data += more
    assert data == stream


@pytest.mark.parametrize("offset", [16, 2048, 4080])
def test_placement_of_input(saved: Saved, offset: int) -> None:
    """TLFS 17.3.2, 4.6: header and data end in one page, wherever they begin."""
    root, partition = saved.root, saved.partition
    stream = save(root, partition)
    room = PAGE - offset - 16
    fits = try_restore(root, partition, stream[:room], START, gpa=INPUT + offset)
    assert fits == (Status.SUCCESS, State.INCOMPLETE, room)
    root.machine.write(INPUT + offset, struct.pack("<QII", partition, START, room + 1))
    assert root.machine.call(0, RESTORE, INPUT + offset, OUTPUT).status == Status.INVALID_ALIGNMENT


@pytest.mark.parametrize("count", [CHUNK + 1, PAGE, 0xFFFFFFF0, 0xFFFFFFFF])
def test_impossible_counts(saved: Saved, count: int) -> None:
    """TLFS 17.3.2: at most 4080 bytes."""
    saved.root.machine.write(INPUT, struct.pack("<QII", saved.partition, START, count))
    assert saved.root.machine.call(0, RESTORE, INPUT, OUTPUT).status == Status.INVALID_ALIGNMENT


def test_input_and_output_overlap(saved: Saved) -> None:
    """TLFS 4.6: also the data behind the header must not overlap the output."""
    saved.root.machine.write(INPUT, struct.pack("<QII", saved.partition, START, 100))
    assert saved.root.machine.call(0, RESTORE, INPUT, INPUT + 64).status == Status.INVALID_ALIGNMENT
    assert saved.root.machine.call(0, RESTORE, INPUT, INPUT + 120).status == Status.SUCCESS


def test_output_page_that_goes_away(saved: Saved) -> None:
    """TLFS 17.3.1: what could not be handed out comes with the next call, in whatever page."""
    root, partition = saved.root, saved.partition
    _, _, stream = try_save(root, partition, START)
    (gone, other) = root.pages(2)
    root.machine.write(INPUT, struct.pack("<QII", partition, 0, 0))
    assert root.try_deposit(partition, [gone]).status == Status.SUCCESS
    assert root.machine.call(0, SAVE, INPUT, gone * PAGE).status is None
    state = State.INCOMPLETE
    while state == State.INCOMPLETE:
        root.machine.write(INPUT, struct.pack("<QII", partition, 0, 0))
        assert root.machine.call(0, SAVE, INPUT, other * PAGE).status == Status.SUCCESS
        word, count = struct.unpack("<II", root.machine.read(other * PAGE, 8))
        state = State(word)
        stream += root.machine.read(other * PAGE + 8, count)
    assert restore(root, saved.target(), stream) == State.COMPLETE


# -- Status codes and their precedence --


def test_caller_is_the_parent(saved: Saved) -> None:
    """TLFS 17.3.1, 17.3.2: ACCESS_DENIED for who is not the parent, also without CreatePartitions."""
    root = saved.root
    child, other = Child(root, saved.partition), root.partition(memory=PAGES)
    for code in (SAVE, RESTORE):
        for partition in (SELF, ROOT_ID, other):
            data = struct.pack("<QII", partition, START, 0)
            assert child.status(code, data) == Status.ACCESS_DENIED
        for partition in (SELF, ROOT_ID):
            assert root.status(code, struct.pack("<QII", partition, START, 0)) == Status.ACCESS_DENIED
    guest = Guest("current" if root.current else "2008r2", privileges=(1 << 64) - 1)
    for code in (SAVE, RESTORE):
        assert guest.status(code, struct.pack("<QII", SYSTEM, START | SUMMARY, 0)) == Status.ACCESS_DENIED


def test_create_partitions_privilege(saved: Saved) -> None:
    """TLFS 17.3.2: restoring needs CreatePartitions, whatever else is wrong."""
    child = Child(saved.root, saved.partition)
    for partition in (SYSTEM, 0x999, ROOT_ID):
        assert child.status(RESTORE, struct.pack("<QII", partition, 0xF0, 0)) == Status.ACCESS_DENIED


def test_partition_id(root: Root) -> None:
    """INVALID_PARTITION_ID for one that does not exist; the system has no state but its summary."""
    assert try_save(root, 0x999, 0xF0)[0] == Status.INVALID_PARTITION_ID
    assert try_restore(root, 0x999, b"", 0xF0)[0] == Status.INVALID_PARTITION_ID
    assert try_save(root, SYSTEM, START)[0] == Status.INVALID_PARTITION_ID
    assert try_restore(root, SYSTEM, b"", START)[0] == Status.INVALID_PARTITION_ID


def test_partition_state(root: Root) -> None:
    """INVALID_PARTITION_STATE unless the partition is active, whatever the flags."""
    partition = root.create_partition()
    for flags in (START, START | SUMMARY, 0xF0):
        assert try_save(root, partition, flags)[0] == Status.INVALID_PARTITION_STATE
        assert try_restore(root, partition, b"", flags)[0] == Status.INVALID_PARTITION_STATE
    root.deposit(partition, 64)
    assert root.initialize(partition) == Status.SUCCESS
    assert try_save(root, partition, START)[0] == Status.SUCCESS
    assert root.finalize(partition) == Status.SUCCESS
    assert try_save(root, partition)[0] == Status.INVALID_PARTITION_STATE


@pytest.mark.parametrize("flags", [4, 8, 0x80000000, START | 4, SUMMARY | 0x10])
def test_flags(saved: Saved, flags: int) -> None:
    """INVALID_PARAMETER for unknown flags, before VPs and what is under way are looked at."""
    root = saved.root
    root.set_register(saved.partition, 0, EXPLICIT_SUSPEND, 0)
    for partition, others in ((saved.partition, flags), (SYSTEM, flags | SUMMARY)):
        assert try_save(root, partition, others)[0] == Status.INVALID_PARAMETER
        assert try_restore(root, partition, b"", others)[0] == Status.INVALID_PARAMETER


def test_vps_are_suspended(saved: Saved) -> None:
    """OPERATION_DENIED unless all VPs are explicitly suspended, in every call; a summary is saved all the same."""
    root, partition = saved.root, saved.partition
    assert try_save(root, partition, START)[1] == State.INCOMPLETE
    root.set_register(partition, SPARE_VP, EXPLICIT_SUSPEND, 0)
    for flags in (START, 0):
        assert try_save(root, partition, flags)[0] == Status.OPERATION_DENIED
        assert try_restore(root, partition, b"", flags)[0] == Status.OPERATION_DENIED
    assert try_restore(root, partition, b"", START | SUMMARY)[0] == Status.OPERATION_DENIED
    assert try_save(root, partition, START | SUMMARY)[1] == State.COMPLETE


def test_start_is_required(saved: Saved) -> None:
    """TLFS 17.2.2: INVALID_SAVE_RESTORE_STATE where nothing of the kind was begun."""
    root, partition = saved.root, saved.partition
    for flags in (0, SUMMARY):
        assert try_save(root, partition, flags)[0] == Status.INVALID_SAVE_RESTORE_STATE
        assert try_restore(root, partition, b"", flags)[0] == Status.INVALID_SAVE_RESTORE_STATE
    assert try_save(root, SYSTEM, SUMMARY)[0] == Status.INVALID_SAVE_RESTORE_STATE
    assert try_restore(root, SYSTEM, b"", SUMMARY)[0] == Status.INVALID_SAVE_RESTORE_STATE
    assert try_save(root, partition, START)[0] == Status.SUCCESS
    assert try_save(root, partition, SUMMARY)[0] == Status.INVALID_SAVE_RESTORE_STATE


def test_insufficient_memory(saved: Saved) -> None:
    """INSUFFICIENT_MEMORY: the caller's pool has no room for the stream; nothing is under way then."""
    root, partition = saved.root, saved.partition
    stream = save(root, partition)
    while root.balance().available:
        assert root.try_create_partition() in (Status.SUCCESS, Status.INSUFFICIENT_MEMORY)
        if root.balance().available < 6:
            break
    for attempt in (START, START):
        assert try_save(root, partition, attempt)[0] == Status.INSUFFICIENT_MEMORY
        assert try_restore(root, partition, stream[:CHUNK], attempt)[0] == Status.INSUFFICIENT_MEMORY
    assert try_save(root, partition)[0] == Status.INVALID_SAVE_RESTORE_STATE
    root.deposit(ROOT_ID, 32)
    assert save(root, partition) == stream


def test_vps_that_run(saved: Saved) -> None:
    """TLFS 17.1.1, 17.3.1: a VP that is on its way out of the guest is waited for."""
    root, partition = saved.root, saved.partition
    vp = root.handle(partition, 0)
    stream = save(root, partition)
    root.set_register(partition, 0, EXPLICIT_SUSPEND, 0)
    lp = next(n for n in (0, 1) if root.machine.schedule(n)[0] == vp)
    root.machine.write(INPUT, struct.pack("<QII", partition, START, 0))
    assert try_save(root, partition, START)[0] == Status.OPERATION_DENIED
    root.machine.stopped(vp)
    assert lp in (0, 1)
    root.set_register(partition, 0, EXPLICIT_SUSPEND, 1)
    assert len(save(root, partition)) == len(stream)


# -- 17.1.2, 17.1.3: summaries, and what does not fit --


def test_summaries(saved: Saved) -> None:
    """TLFS 17.1.2: of system and partition, whole in one call, RESTORABLE where they come from; nothing changes."""
    root, partition = saved.root, saved.partition
    before = saved.visible(partition)
    for target in (SYSTEM, partition):
        status, state, data = try_save(root, target, START | SUMMARY)
        assert (status, state) == (Status.SUCCESS, State.COMPLETE)
        for place in (SYSTEM, partition):
            assert restore(root, place, data, SUMMARY) == State.RESTORABLE
            assert restore(root, place, data, SUMMARY, chunk=5) == State.RESTORABLE
    assert restore(root, partition, save(root, partition), SUMMARY) == State.RESTORABLE, "saved data do as well"
    assert restore(root, SYSTEM, save(root, partition), SUMMARY) == State.RESTORABLE
    assert saved.visible(partition) == before


def test_a_summary_is_no_state(saved: Saved) -> None:
    """TLFS 17.1.6: a summary cannot be used to affect a partition."""
    root, partition = saved.root, saved.partition
    for target in (SYSTEM, partition):
        assert restore(root, partition, save(root, target, SUMMARY)) == State.CORRUPT_DATA


def changed(stream: bytes, **fields: int) -> bytes:
    """A stream whose summary says something else."""
    names = "generation intel features xsave clflush gpa_bits tsc apic".split()
    names += "p_features p_xsave p_clflush vp_flags vps".split()
    parsed = Stream.parse(stream)
    for name, value in fields.items():
        parsed.set_summary(names.index(name), value)
    return parsed.pack()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"generation": 4}, State.UNSUPPORTED_VERSION),
        ({"intel": 2}, State.INCOMPATIBLE_PROCESSOR),
        ({"gpa_bits": 60}, State.HARDWARE_FEATURE_MISMATCH),
        ({"tsc": FREQUENCY + FREQUENCY // 1000}, State.HARDWARE_FEATURE_MISMATCH),
        ({"apic": 1}, State.HARDWARE_FEATURE_MISMATCH),
        ({"p_features": 1 << 63}, State.PROCESSOR_FEATURE_MISMATCH),
        ({"p_xsave": 1 << 40}, State.XSAVE_UNKNOWN_MISMATCH),
        ({"p_clflush": 16}, State.CLFLUSH_SIZE_MISMATCH),
        ({"vps": 1}, State.PROCESSOR_COUNT_MISMATCH),
        ({"vps": 7 | 1 << SPARE_VP}, State.PROCESSOR_COUNT_MISMATCH),
        ({"vps": 3}, State.PROCESSOR_INDEX_MISMATCH),
        ({"vp_flags": 1}, State.PROCESSOR_FLAGS_MISMATCH),
    ],
)
def test_states_that_do_not_fit(saved: Saved, fields: dict[str, int], expected: int) -> None:
    """TLFS 17.2.1: the state says what differs, for saved data and for a summary, and nothing changes."""
    before = saved.visible(saved.partition)
    stream = changed(save(saved.root, saved.partition), **fields)
    for flags in (0, SUMMARY):
        assert restore(saved.root, saved.partition, stream, flags) == expected
        assert try_restore(saved.root, saved.partition, b"", flags)[0] == Status.INVALID_SAVE_RESTORE_STATE
    assert saved.visible(saved.partition) == before


def test_features_that_the_target_lacks(generation: str) -> None:
    """TLFS 17.2.1, 5.2.8 to 5.2.10: a feature by its name, of the machine and of the partition."""
    saved = Saved(generation)
    root = saved.root
    target = saved.target()
    has, xsave = root.get_property(target, PROCESSOR_FEATURES), root.get_property(target, PROCESSOR_XSAVE_FEATURES)
    stream = save(root, saved.partition)
    for bit, expected in ((0, State.SSE3_MISMATCH), (7, State.POPCNT_MISMATCH), (14, State.EXTENDED_3DNOW_MISMATCH)):
        if has >> bit & 1:
            assert root.set_property(target, PROCESSOR_FEATURES, has & ~(1 << bit)) == Status.SUCCESS
            assert restore(root, target, stream) == expected
        else:
            assert restore(root, target, changed(stream, p_features=1 << bit)) == expected
            assert restore(root, SYSTEM, changed(stream, p_features=1 << bit), SUMMARY) == expected
    assert root.set_property(target, PROCESSOR_FEATURES, has) == Status.SUCCESS
    for bit, expected in ((0, State.XSAVE_MISMATCH), (1, State.XSAVEOPT_MISMATCH), (2, State.XSAVE_AVX_MISMATCH)):
        if not xsave >> bit & 1:
            assert restore(root, target, changed(stream, p_xsave=1 << bit)) == expected
    size = root.get_property(target, PROCESSOR_CLFLUSH_SIZE)
    assert restore(root, target, changed(stream, p_clflush=size + 1)) == State.CLFLUSH_SIZE_MISMATCH
    fewer = changed(stream, p_features=0, p_xsave=0)
    assert restore(root, target, fewer) == State.COMPLETE, "a target may have more"


def test_other_versions(saved: Saved) -> None:
    """TLFS 17.1.3: a stream of another version is known by its head."""
    parsed = Stream.parse(save(saved.root, saved.partition))
    parsed.version = 2
    assert restore(saved.root, saved.partition, parsed.pack()) == State.UNSUPPORTED_VERSION
    foreign = b"\0" * HEAD
    assert restore(saved.root, saved.partition, foreign) == State.CORRUPT_DATA


# -- Damaged and hostile streams --


def test_changed_bits(saved: Saved) -> None:
    """A bit flipped anywhere is found before anything changes."""
    root, partition = saved.root, saved.partition
    before, stream = saved.visible(partition), save(root, partition)
    numbers = random.Random(1)
    balance = root.balance()
    for place in [*range(0, 48 * 8, 5), *(numbers.randrange(len(stream) * 8) for _ in range(150))]:
        damaged = bytearray(stream)
        damaged[place // 8] ^= 1 << place % 8
        state = restore(root, partition, bytes(damaged))
        assert state not in (State.COMPLETE, State.RESTORABLE)
        if state == State.INCOMPLETE:
            pytest.fail("the head's checksum covers its length")
    assert saved.visible(partition) == before
    assert root.balance() == balance
    assert restore(root, partition, stream) == State.COMPLETE


def test_truncated_streams(saved: Saved) -> None:
    """A stream that ends early stays INCOMPLETE, and changes nothing."""
    before, stream = saved.visible(saved.partition), save(saved.root, saved.partition)
    for length in (0, 1, HEAD, HEAD + 1, 500, len(stream) - 1):
        assert restore(saved.root, saved.partition, stream[:length]) == State.INCOMPLETE
    assert saved.visible(saved.partition) == before


def assert_sane(saved: Saved, partition: int) -> None:
    """The partition can be looked at, run, saved and destroyed."""
    root, m = saved.root, saved.root.machine
    suspend(root, partition, 0)
    for _ in range(2):
        m.advance_tsc(1 << 22)
        for lp in (0, 1):
            vp, _ = m.schedule(lp)
            if vp is not None:
                m.stopped(vp)
    for index in VP_INDICES:
        root.set_register(partition, index, INTERCEPT_SUSPEND, 0)
    suspend(root, partition)
    save(root, partition)


def test_streams_that_lie(generation: str) -> None:
    """Changed contents under sound checksums are CORRUPT_DATA, or give some state that can be run."""
    saved = Saved(generation)
    root, partition = saved.root, saved.partition
    before, stream = saved.visible(partition), save(root, partition)
    numbers = random.Random(generation)
    seen = set()
    for attempt in range(150):
        parsed = Stream.parse(stream)
        section = numbers.choice(parsed.sections[1:])
        for _ in range(numbers.randrange(1, 5)):
            if attempt % 3 == 0 and len(section.content) > 8:
                place = numbers.randrange(0, len(section.content) - 8, 4)
                struct.pack_into("<Q", section.content, place, numbers.choice([0, 1, 1 << 63, SELF]))
            else:
                section.content[numbers.randrange(len(section.content))] = numbers.randrange(256)
        if attempt % 10 == 9:
            del section.content[numbers.randrange(len(section.content)) :]
        state = restore(root, partition, parsed.pack())
        assert state in (State.COMPLETE, State.CORRUPT_DATA)
        seen.add(state)
        assert_sane(saved, partition)
    assert seen == {State.COMPLETE, State.CORRUPT_DATA}
    assert restore(root, partition, stream) == State.COMPLETE
    assert saved.visible(partition) == before
    root.destroy(partition)


@pytest.mark.parametrize("change", ["order", "missing", "twice", "unknown", "behind"])
def test_sections_that_are_not_due(saved: Saved, change: str) -> None:
    """Every section has its place; anything else is CORRUPT_DATA and changes nothing."""
    before = saved.visible(saved.partition)
    parsed = Stream.parse(save(saved.root, saved.partition))
    if change == "order":
        parsed.sections[2:4] = reversed(parsed.sections[2:4])
    elif change == "missing":
        parsed.sections.pop()
    elif change == "twice":
        parsed.sections.insert(2, parsed.sections[2])
    elif change == "unknown":
        parsed.sections[-1].tag = b"WHAT"
    else:
        parsed.sections.append(parsed.sections[-1])
    assert restore(saved.root, saved.partition, parsed.pack()) == State.CORRUPT_DATA
    assert saved.visible(saved.partition) == before


def test_registers_that_the_processor_refuses(saved: Saved) -> None:
    """TLFS 10.4.4: what HvSetVpRegisters refuses a stream cannot set; the VPs are then as after HvCreateVp."""
    stream = save(saved.root, saved.partition)
    m = saved.root.machine
    m.refuse_register(Register.Cr4)
    assert restore(saved.root, saved.partition, stream) == State.CORRUPT_DATA
    m.refuse_register(Register.Cr4, False)
    assert m.register(saved.root.handle(saved.partition, 0), Register.Rip) == 0xFFF0
    assert restore(saved.root, saved.partition, stream) == State.COMPLETE


@given(st.binary(max_size=300), st.integers(0, 3), st.booleans())
def test_random_streams(data: bytes, flags: int, with_magic: bool) -> None:
    """Whatever a parent presents, the call ends with a specified status and state."""
    root = Root("current", tsc_frequency=FREQUENCY)
    partition = root.partition()
    for part in (data, data[::-1]):
        status, state, used = try_restore(root, partition, (b"HVPSTATE" if with_magic else b"") + part, flags)
        assert status in (Status.SUCCESS, Status.INVALID_SAVE_RESTORE_STATE, Status.INSUFFICIENT_MEMORY)
        assert state != State.COMPLETE
        assert used <= len(part) + 8
    root.destroy(partition)


def test_transfers_end_with_their_partition(saved: Saved) -> None:
    """What is under way is released with the partition."""
    root = saved.root
    stream = save(root, saved.partition)
    for restoring in (False, True):
        balance = root.balance()
        partition = root.partition()
        if restoring:
            assert try_restore(root, partition, changed(stream, vps=1)[:600], START)[1] == State.INCOMPLETE
        else:
            assert try_save(root, partition, START)[1] == State.INCOMPLETE
        assert root.balance().available < balance.available - 6
        root.destroy(partition)
        assert root.balance() == balance


def test_memory_limit_of_the_machine(root: Root) -> None:
    """A length that nobody can hold is refused before memory is taken for it."""
    partition = root.partition()
    head = struct.pack("<8sIIQI", b"HVPSTATE", 1, 2, 1 << 40, 0)
    assert restore(root, partition, head + struct.pack("<I", checksum(head))) == State.CORRUPT_DATA
    head = struct.pack("<8sIIQI", b"HVPSTATE", 1, 2, 0xFFFFFFFF, 0)
    data = head + struct.pack("<I", checksum(head))
    assert try_restore(root, partition, data, START)[0] == Status.INSUFFICIENT_MEMORY
    assert RAM_END < 0xFFFFFFFF
