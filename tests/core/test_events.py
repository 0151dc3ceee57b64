# SPDX-License-Identifier: GPL-2.0-or-later
"""Events: those of TLFS appendix I and this hypervisor's own, where they happen; and the operator's log of them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Callable

import pytest
from event_log import OperatorEntry, operator_entries
from root import ROOT_ID, VIRTUAL_TLB_PAGE_COUNT, Child, Root
from simulated_guest import FAST, Guest, timer_value

from qemu_hv import tables
from qemu_hv._core import Exit, GeneralProtectionFault, Machine, Progress, Register, Status

TABLES = Path(__file__).resolve().parents[2] / "csrc" / "hv" / "tlfs"
EVENTS = {event.name: event for event in tables.events(TABLES)}
GROUPS = {group.name: group for group in tables.event_groups(TABLES)}
ALL = sum(1 << group.bit for group in GROUPS.values())
RIP = 0xFFFFFFFF81000000
NOBODY = 0xFFFFFFFF
PERIOD = 2_560_000


class Stage:
    """A root with a child in which things happen, all of them logged by the operator."""

    def __init__(self, generation: str) -> None:
        self.root = Root(generation)
        for vp in range(2):
            self.root.enable_synic(vp)
        self.child = self.root.partition(memory=64)
        self.software = Child(self.root, self.child)
        self.vp = self.software.vp
        self.machine = self.root.machine
        self.machine.set_register(self.vp, Register.Rip, RIP)
        assert self.machine.events_start(ALL) == Progress.DONE

    def entries(self, name: str) -> list[OperatorEntry]:
        """What has been recorded of an event since this was asked last, and of others."""
        return [e for e in operator_entries(self.machine) if e.type == EVENTS[name].number]

    def intercept(self, kind: int, access: int, parameter: int) -> None:
        """HvInstallIntercept."""
        data = struct.pack("<QIIQ", self.child, access, kind, parameter)
        assert self.root.status(0x004D, data) == Status.SUCCESS


@pytest.fixture
def stage(generation: str) -> Stage:
    """The same, in each generation."""
    return Stage(generation)


# -- The table --


def test_groups_of_the_specification() -> None:
    """TLFS appendix I: the groups' numbers; the Boot Manager's is printed with too many zeros."""
    numbers = {group.title: 1 << group.bit for group in GROUPS.values() if group.specified}
    assert numbers["Boot Manager"] == 0x100
    assert numbers["Hypercall"] == 0x400
    assert numbers["Synthetic Timers"] == 0x20000
    assert numbers["Scheduler"] == 0x400000
    assert numbers["Profiler"] == 0x8000000
    assert len(numbers) == 20


def test_events_of_the_specification() -> None:
    """TLFS appendix I: every event is in the table, and one that never happens has a reason."""
    numbers = {event.number for event in EVENTS.values() if event.number < 0x8000}
    expected = {0x1A, *range(0x20, 0x38), 0x40, 0x41, 0x46, 0x4B, 0x4C, 0x70, 0x71, 0x72, 0xB0, 0xF0, 0xF1}
    assert numbers == expected
    assert all(event.raised or len(event.text) > 20 for event in EVENTS.values())
    assert all(event.group in GROUPS for event in EVENTS.values())


# -- Where they happen --


def hypercall(s: Stage) -> tuple[int, ...]:
    """HvGetPartitionId is denied to a child that has not the privilege."""
    s.software.call(0x0046)
    return RIP, 0x0046


def hypercall_end(s: Stage) -> tuple[int, ...]:
    """Its status, or that of success."""
    result = s.software.call(0x0046)
    assert result.status is not None
    return 0x0046, int(result.status), Exit.DONE


def guest_exception(s: Stage) -> tuple[int, ...]:
    """The parent intercepts #UD."""
    s.intercept(3, 4, 6)
    s.machine.exception(s.vp, 6)
    return RIP, 6


def msr_read(s: Stage) -> tuple[int, ...]:
    """Of a synthetic register."""
    value = s.machine.rdmsr(s.vp, 0x40000000)
    return RIP, 0x40000000, value


def failed_msr_read(s: Stage) -> tuple[int, ...]:
    """Value 0 if unsuccessful."""
    assert s.machine.child_rdmsr(s.vp, 0x40000FFF)[0] == Exit.GP
    return RIP, 0x40000FFF, 0


def foreign_msr_write(s: Stage) -> tuple[int, ...]:
    """One that the hypervisor does not virtualize."""
    assert s.machine.child_wrmsr(s.vp, 0x12345678, 99) == Exit.GP
    return RIP, 0x12345678, 99


def msr_write(s: Stage) -> tuple[int, ...]:
    """Of a synthetic register."""
    s.machine.wrmsr(s.vp, 0x40000000, 0x8100000000000007)
    return RIP, 0x40000000, 0x8100000000000007


def reflected_gp(s: Stage) -> tuple[int, ...]:
    """#GP for a register that does not exist."""
    with pytest.raises(GeneralProtectionFault):
        s.machine.wrmsr(s.vp, 0x40000FFF, 0)
    return RIP, 13


def cr8_read(s: Stage) -> tuple[int, ...]:
    """CR8 is the local APIC's."""
    s.machine.write_cr8(s.vp, 3)
    assert s.machine.read_cr8(s.vp) == 3
    return RIP, 8, 3


def cpuid(s: Stage) -> tuple[int, ...]:
    """Of a child, leaf and subleaf."""
    s.machine.child_cpuid(s.vp, 4, 2)
    return RIP, 4, 2


def io_read(s: Stage) -> tuple[int, ...]:
    """Nothing is there, and nobody asked to be told."""
    s.machine.io(s.vp, 0x3F8, 1, False)
    return RIP, 0x3F8, 0xFF


def io_write(s: Stage) -> tuple[int, ...]:
    """The parent intercepts it."""
    s.intercept(0, 3, 0x3F8)
    s.machine.io(s.vp, 0x3F8, 1, True, 0x41)
    return RIP, 0x3F8, 0x41


def external_interrupt(s: Stage) -> tuple[int, ...]:
    """A VP of the root takes one."""
    s.machine.request_interrupt(0, 0x51)
    assert s.machine.accept(0) == 0x51
    return (0x51,)


def interrupt_pending(s: Stage) -> tuple[int, ...]:
    """A child takes one that its parent asserts."""
    s.machine.lapic_write(s.vp, 0xF0, 0x1FF)
    code = 0x0094 if s.root.current else 0x0055
    control = struct.pack("<QQQIBBH", s.child, 0, 0, 0x60, 0, 0, 0)
    assert s.root.status(code, control) == Status.SUCCESS
    assert s.machine.child_interrupt(s.vp) == 0x60
    return (RIP,)


def shutdown(s: Stage) -> tuple[int, ...]:
    """A triple fault."""
    s.machine.triple_fault(s.vp)
    return (RIP,)


def emulated(s: Stage) -> tuple[int, ...]:
    """An access to the local APIC's registers in memory."""
    s.machine.lapic_read(s.vp, 0x30)
    return (RIP,)


def task_switch(s: Stage) -> tuple[int, ...]:
    """By a task gate."""
    s.machine.unsupported_feature(s.vp, 2, 9)
    return (RIP,)


def ferr(s: Stage) -> tuple[int, ...]:
    """An unmasked x87 error."""
    s.machine.ferr_asserted(s.vp)
    return (RIP,)


def memory(s: Stage) -> tuple[int, ...]:
    """A write to what is not mapped."""
    s.machine.memory_intercept(s.vp, 0x7FFFF000, 2, True)
    return RIP, 2


def intercept(s: Stage) -> tuple[int, ...]:
    """The message's type."""
    s.machine.memory_intercept(s.vp, 0x7FFFF000, 2, True)
    return RIP, 0x80000000


def resume(s: Stage) -> tuple[int, ...]:
    """The parent clears the suspend register."""
    s.machine.triple_fault(s.vp)
    s.root.resume(s.child)
    return ()


def create_partition(s: Stage) -> tuple[int, ...]:
    """Its ID and the status."""
    return s.root.create_partition(), 0


def no_partition(s: Stage) -> tuple[int, ...]:
    """The status of a failure."""
    s.machine.set_admission(Progress.FAILED)
    assert s.root.try_create_partition() == Status.NO_RESOURCES
    return 0, Status.NO_RESOURCES


def delete_partition(s: Stage) -> tuple[int, ...]:
    """Its ID and the status."""
    child = s.root.create_partition()
    assert s.root.delete(child) == Status.SUCCESS
    return child, 0


def no_deletion(s: Stage) -> tuple[int, ...]:
    """Of an active one."""
    assert s.root.delete(s.child) == Status.INVALID_PARTITION_STATE
    return s.child, Status.INVALID_PARTITION_STATE


def reference_time(s: Stage) -> tuple[int, ...]:
    """It goes on with the first VP that is not suspended, as far behind the root's as it has stood."""
    s.machine.advance(1000)
    s.root.resume(s.child)
    return 0, (1 << 64) - 1000


def create_vp(s: Stage) -> tuple[int, ...]:
    """Partition, thread and status."""
    return s.child, s.root.create_vp(s.child, 1), 0


def no_vp(s: Stage) -> tuple[int, ...]:
    """There is one with this index."""
    assert s.root.try_create_vp(s.child, 0) == Status.INVALID_VP_INDEX
    return s.child, NOBODY, Status.INVALID_VP_INDEX


def delete_vp(s: Stage) -> tuple[int, ...]:
    """Partition, thread and status."""
    assert s.root.delete_vp(s.child, 0) == Status.SUCCESS
    return s.child, s.vp, 0


def no_vp_deletion(s: Stage) -> tuple[int, ...]:
    """There is none with this index."""
    assert s.root.delete_vp(s.child, 9) == Status.INVALID_VP_INDEX
    return s.child, NOBODY, Status.INVALID_VP_INDEX


def grow_tlb(s: Stage) -> tuple[int, ...]:
    """From its 16 pages."""
    assert s.root.set_property(s.child, VIRTUAL_TLB_PAGE_COUNT, 20) == Status.SUCCESS
    return 16, 20


def shrink_tlb(s: Stage) -> tuple[int, ...]:
    """Old, new, free."""
    assert s.root.set_property(s.child, VIRTUAL_TLB_PAGE_COUNT, 10) == Status.SUCCESS
    return 16, 10, 6


def flush_tlb(s: Stage) -> tuple[int, ...]:
    """By a hypercall of the child."""
    assert s.software.status(0x0002, struct.pack("<QQQ", 0, 3, 0)) == Status.SUCCESS
    return (s.child,)


def context_switch(s: Stage) -> tuple[int, ...]:
    """To the child, on its LP."""
    lp = s.machine.lp_of(s.vp)
    s.root.resume(s.child)
    s.machine.set_waits(lp, True)
    s.machine.schedule(lp)
    return s.child, s.vp, 0


def preempted(s: Stage) -> tuple[int, ...]:
    """The root's VP has an interrupt."""
    context_switch(s)
    lp = s.machine.lp_of(s.vp)
    s.machine.stopped(s.vp)
    s.machine.set_waits(lp, False)
    s.machine.schedule(lp, True)
    return ()


def post(s: Stage) -> tuple[int, ...]:
    """To the VP of the root on the same LP."""
    s.machine.triple_fault(s.vp)
    return 1, ROOT_ID, s.machine.lp_of(s.vp), 0, 0x80000021


def deliver(s: Stage) -> tuple[int, ...]:
    """The same number."""
    s.machine.triple_fault(s.vp)
    return 1, 0, 0x80000021


def signal(s: Stage) -> tuple[int, ...]:
    """SINT and flag."""
    s.root.open_port(5, port_type=2, sint=3, base_flag=7, flag_count=8)
    s.root.set_sint(3, 0x50)
    assert s.root.signal(5, 2) == Status.SUCCESS
    return 3, 9


def timer(s: Stage) -> tuple[int, ...]:
    """Of the root."""
    s.root.set_sint(2, 0x40)
    s.root.set_timer(1, timer_value(2), s.root.time() + 10)
    s.machine.advance(20)
    return (1,)


def profiler_sample(s: Stage) -> tuple[int, ...]:
    """TLFS 23.3: of the LP that executes something, while the log wants samples."""
    profile = struct.pack("<IIIIQ", 0, 0, 1, 0, PERIOD).ljust(72 if s.root.generation == "current" else 24, b"\0")
    s.machine.events_stop()
    assert s.root.status(0x006F, profile) == Status.SUCCESS
    s.machine.set_waits(1, True)
    assert s.machine.schedule(0)[0] == 0
    assert s.machine.schedule(1)[0] is None
    assert s.machine.events_start(ALL) == Progress.DONE
    s.machine.advance_tsc(PERIOD)
    return ROOT_ID, 0, 0


CASES: list[tuple[str, Callable[[Stage], tuple[int, ...]]]] = [
    ("HC_HYPERCALL", hypercall),
    ("HYPERCALL_END", hypercall_end),
    ("IM_GUEST_EXCEPTION", guest_exception),
    ("IM_MSR_READ", msr_read),
    ("IM_MSR_READ", failed_msr_read),
    ("IM_MSR_WRITE", msr_write),
    ("IM_MSR_WRITE", foreign_msr_write),
    ("IM_CR_READ", cr8_read),
    ("IM_CR_WRITE", cr8_read),
    ("IM_CPUID_INSTRUCTION", cpuid),
    ("IM_IO_PORT_READ", io_read),
    ("IM_IO_PORT_WRITE", io_write),
    ("IM_EXTERNAL_INTERRUPT", external_interrupt),
    ("IM_INTERRUPT_PENDING", interrupt_pending),
    ("IM_GUEST_SHUTDOWN", shutdown),
    ("IM_EMULATED_INSTRUCTION", emulated),
    ("IM_TASK_SWITCH", task_switch),
    ("IM_FERR_FREEZE", ferr),
    ("IM_MEMORY_INTERCEPT", memory),
    ("IM_REFLECTED_EXCEPTION", reflected_gp),
    ("OB_CREATE_PARTITION", create_partition),
    ("OB_CREATE_PARTITION", no_partition),
    ("OB_DELETE_PARTITION", delete_partition),
    ("OB_DELETE_PARTITION", no_deletion),
    ("PT_REFERENCE_TIME", reference_time),
    ("VP_CREATE_VP", create_vp),
    ("VP_CREATE_VP", no_vp),
    ("VP_DELETE_VP", delete_vp),
    ("VP_DELETE_VP", no_vp_deletion),
    ("AM_GVA_GROW_VIRTUAL_TLB", grow_tlb),
    ("AM_GVA_SHRINK_VIRTUAL_TLB", shrink_tlb),
    ("AM_GVA_FLUSH_VIRTUAL_TLB", flush_tlb),
    ("SCH_CONTEXT_SWITCH", context_switch),
    ("SCH_PROFILER_SAMPLE", profiler_sample),
    ("VP_PREEMPTED", preempted),
    ("INTERCEPT_BEGIN", intercept),
    ("INTERCEPT_RESUME", resume),
    ("MESSAGE_POST", post),
    ("MESSAGE_DELIVER", deliver),
    ("EVENT_SIGNAL", signal),
    ("TIMER_EXPIRED", timer),
]


@pytest.mark.parametrize(("name", "act"), CASES, ids=[f"{name}-{act.__name__}" for name, act in CASES])
def test_happens(stage: Stage, name: str, act: Callable[[Stage], tuple[int, ...]]) -> None:
    """TLFS appendix I: an event and its parameters, when what it tells of happens."""
    expected = act(stage)
    entries = stage.entries(name)
    assert entries
    assert entries[-1].values == expected
    assert len(expected) == len(EVENTS[name].fields)
    assert entries[-1].tsc == stage.machine.tsc or name == "TIMER_EXPIRED"


def test_every_event_is_tried() -> None:
    """No row says that an event happens when it does not."""
    assert {name for name, _ in CASES} | {"LOST"} == {event.name for event in EVENTS.values() if event.raised}


def test_whose_they_are(stage: Stage) -> None:
    """An entry names partition, VP and LP."""
    stage.software.call(0x0046)
    (entry,) = stage.entries("HC_HYPERCALL")
    assert (entry.partition, entry.vp, entry.lp) == (stage.child, 0, stage.machine.lp_of(stage.vp))
    stage.machine.operator_delete_partition(stage.child)
    (entry,) = stage.entries("OB_DELETE_PARTITION")
    assert entry.values == (stage.child, 0)


def test_a_call_that_goes_on_later(stage: Stage) -> None:
    """TLFS 4.3: a long call that is executed again and again begins once, and ends once, where it started at first."""
    pages = stage.root.pages(200)
    result = stage.root.try_map(stage.child, 0x100, pages)
    assert result.status == Status.SUCCESS
    entries = operator_entries(stage.machine)
    begun = [e.values[1] for e in entries if e.type == EVENTS["HC_HYPERCALL"].number]
    ended = [e.values for e in entries if e.type == EVENTS["HYPERCALL_END"].number]
    assert begun == [0x4B | 200 << 32]
    assert [(values[1], values[2]) for values in ended] == [(200 << 32, Exit.DONE)]
    stage.root.call(0x4B | 200 << 32, b"")
    assert len(stage.entries("HC_HYPERCALL")) == 1


# -- The operator's log --


def call(guest: Guest, count: int = 1, vp: int = 0) -> None:
    """Make hypercalls."""
    for _ in range(count):
        assert guest.fast(0x0008, 1, vp=vp) == Status.SUCCESS


def begins(machine: Machine) -> list[OperatorEntry]:
    """Hypercalls that have been recorded."""
    return [e for e in operator_entries(machine) if e.type == 0x1A]


def test_without_a_root(guest: Guest) -> None:
    """With role=guest the operator has a log too: each VP counts as a logical processor."""
    m = guest.machine
    call(guest)
    assert operator_entries(m) == []
    assert m.events_start(ALL) == Progress.DONE
    call(guest, vp=2)
    (entry,) = begins(m)
    assert (entry.partition, entry.vp, entry.lp, entry.values) == (ROOT_ID, 2, 2, (0, 0x0008 | FAST))
    state = m.events_state
    assert (state["running"], state["groups"], state["lost"], state["unread"]) == (True, ALL, 0, 0)
    m.events_stop()
    call(guest)
    assert operator_entries(m) == []
    assert not m.events_state["running"]


def test_groups_are_chosen(guest: Guest) -> None:
    """Only what is asked for is recorded."""
    m = guest.machine
    m.events_start(1 << GROUPS["HypercallEnds"].bit)
    call(guest)
    assert [e.type for e in operator_entries(m)] == [0x8001]
    m.events_start(1 << GROUPS["Messages"].bit)
    call(guest)
    assert operator_entries(m) == []


def test_a_partition_is_chosen(stage: Stage) -> None:
    """Others are left out."""
    stage.machine.events_start(ALL, partition=stage.child)
    call(stage.root)
    stage.software.call(0x0046)
    assert {e.partition for e in operator_entries(stage.machine)} == {stage.child}


def test_what_is_recorded_can_be_read_after_the_end(guest: Guest) -> None:
    """Stopping drops nothing; starting anew does."""
    m = guest.machine
    m.events_start(ALL)
    call(guest, 3)
    m.events_stop()
    assert len(begins(m)) == 3
    m.events_start(ALL)
    call(guest, 3)
    m.events_start(ALL)
    assert operator_entries(m) == []
    assert m.events_state["recorded"] == 0


def test_reading_in_pieces(guest: Guest) -> None:
    """Whole entries, as many as fit."""
    m = guest.machine
    m.events_start(1 << GROUPS["Hypercall"].bit)
    call(guest, 10)
    assert m.events_state["unread"] == 10 * 40
    assert m.events_read(39) == b""
    assert len(operator_entries(m, 79)) == 1
    assert len(operator_entries(m, 80)) == 2
    assert len(operator_entries(m)) == 7


@pytest.mark.parametrize("size", [4096, 5000, 1 << 16])
def test_overflow(guest: Guest, size: int) -> None:
    """A ring that is full loses events, counts them, and says so where they are missing."""
    m = guest.machine
    m.events_start(1 << GROUPS["Hypercall"].bit, size=size)
    room = m.events_state["size"]
    assert room >= size
    fits = room // 40
    call(guest, fits + 7)
    assert m.events_state["lost"] == 7
    assert m.events_state["recorded"] == fits
    entries = operator_entries(m)
    assert [e.type for e in entries] == [0x1A] * fits + [0x8000]
    assert entries[-1].values == (7,)
    call(guest, fits + 3)
    assert len(operator_entries(m, room // 2)) > 0
    call(guest, 2)
    kinds = [(e.type, e.values) for e in operator_entries(m)]
    assert kinds[-3:] == [(0x8000, (3,)), *[(0x1A, (0, 0x0008 | FAST))] * 2]
    assert m.events_state["lost"] == 10
    assert m.events_state["recorded"] == 2 * fits + 2


def test_rings_are_apart(guest: Guest) -> None:
    """A processor whose ring is full takes nothing from others; positions wrap around."""
    m = guest.machine
    m.events_start(1 << GROUPS["Hypercall"].bit, size=4096)
    for _ in range(50):
        call(guest, 30, vp=1)
        call(guest, 1, vp=3)
        entries = operator_entries(m)
        assert [e.vp for e in entries] == [1] * 30 + [3]
    call(guest, 200, vp=1)
    call(guest, 1, vp=3)
    assert [e.vp for e in begins(m)][-1] == 3


@pytest.mark.parametrize("size", [1 << 16, 1 << 13])
def test_another_size(guest: Guest, size: int) -> None:
    """Starting with another size drops what there was and records on."""
    m = guest.machine
    m.events_start(ALL, size=1 << 14)
    call(guest, 20)
    assert m.events_start(ALL, size=size) == Progress.DONE
    assert m.events_state["size"] == size
    call(guest, 20)
    assert len(begins(m)) == 20


def test_time_stamps_of_a_processor_never_go_back(stage: Stage) -> None:
    """In the order in which they are read."""
    for i in range(50):
        call(stage.root, vp=i % 2)
        stage.software.call(0x0046)
        stage.machine.advance(7)
    last: dict[int, int] = {}
    for entry in operator_entries(stage.machine):
        assert entry.tsc >= last.get(entry.lp, 0)
        last[entry.lp] = entry.tsc


def test_a_reset_leaves_it_running(stage: Stage) -> None:
    """It is the operator's, not the machine's state."""
    stage.machine.reset()
    operator_entries(stage.machine)
    stage.root.enable_hypercalls()
    call(stage.root)
    assert len(begins(stage.machine)) == 1
