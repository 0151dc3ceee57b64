# SPDX-License-Identifier: GPL-2.0-or-later
"""Saving and restoring a root machine: partitions, their VPs, memory, ports and messages go with it."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

import pytest
from intercepts import (
    CPUID,
    EXCEPTION,
    INSTALL_INTERCEPT,
    IO_PORT,
    MSR,
    SINT0_VECTOR,
    header_of,
    install_input,
)
from ports import CREATE_PORTS, SIGNAL_EVENTS, Ports, message_info, monitor_info
from root import (
    CPU_CAP,
    CPU_RESERVE,
    CPU_WEIGHT,
    EXPLICIT_SUSPEND,
    FIRST_PAGE,
    INTERCEPT_SUSPEND,
    READ,
    ROOT_ID,
    Child,
    Root,
)
from simulated_guest import MONITOR, STIMER0_CONFIG, STIMER0_COUNT, TIME_REF_COUNT, Guest, timer_value

from qemu_hv._core import Exit, GpaFault, Machine, Register, RestoreError, Status

FREQUENCY = 2_595_999_000
IO = 0x1234
LEAF = 0x1000
MONITOR_GPA = 0x3C000
CREATE_PARTITIONS = 1 << 32
ACCESS_MEMORY_POOL = 1 << 34
SPARE_VP = 5
READ_ONLY_PAGES = 0x400
FIXED_VECTOR = 0x66
COUNT = 0xABCDE


@dataclass
class Family:
    """A root, its child, and that child's own child."""

    root: Root
    child: Child
    grandchild: int

    @property
    def ports(self) -> Ports:
        """Calls about ports."""
        return Ports(self.root)

    def moved(self, machine: Machine) -> Family:
        """The same software on another machine."""
        root = Root.__new__(Root)
        root.__dict__.update(self.root.__dict__)
        root.machine = machine
        child = Child.__new__(Child)
        child.__dict__.update(self.child.__dict__)
        child.root = root
        return Family(root, child, self.grandchild)

    def migrated(self) -> Family:
        """The same software on a machine made from the saved stream."""
        return self.moved(self.root.machine.migrate())


def install(root: Root, partition: int) -> None:
    """Install an intercept of every type."""
    for kind, parameter, access in ((IO_PORT, IO, 3), (MSR, 0, 3), (CPUID, LEAF, 4), (EXCEPTION, 13, 4)):
        assert root.status(INSTALL_INTERCEPT, install_input(partition, access, kind, parameter)) == Status.SUCCESS


def open_ports(family: Family) -> None:
    """A port each way with messages that wait, and a monitor port with something in its page."""
    ports, root, child = family.ports, family.root, family.child
    assert ports.create(ROOT_ID, 5, child.partition, message_info(2)) == Status.SUCCESS
    assert ports.connect(child.partition, 5, ROOT_ID, 5) == Status.SUCCESS
    assert ports.create(child.partition, 6, ROOT_ID, message_info(2)) == Status.SUCCESS
    assert ports.connect(ROOT_ID, 6, child.partition, 6) == Status.SUCCESS
    assert ports.create(ROOT_ID, 7, child.partition, monitor_info(0x3D000)) == Status.SUCCESS
    status = ports.connect(child.partition, 7, ROOT_ID, 7, port_type=MONITOR, info=MONITOR_GPA)
    assert status == Status.SUCCESS
    root.machine.write(MONITOR_GPA + 1088, b"monitored", child.vp)
    for n in range(3):
        assert ports.post(child, 5, bytes([n])) == Status.SUCCESS
        assert ports.post(root, 6, bytes([n])) == Status.SUCCESS


def start_clocks(family: Family) -> None:
    """A synthetic timer and the local APIC's, both running."""
    m, vp = family.root.machine, family.child.vp
    m.wrmsr(vp, STIMER0_COUNT, m.rdmsr(vp, TIME_REF_COUNT) + 5000)
    m.wrmsr(vp, STIMER0_CONFIG, timer_value(3))
    m.lapic_write(vp, 0x3E0, 0xB)
    m.lapic_write(vp, 0x320, FIXED_VECTOR)
    m.lapic_write(vp, 0x380, COUNT)


def make_family(generation: str) -> Family:
    """A root in the middle of everything."""
    root = Root(generation, tsc_frequency=FREQUENCY)
    m = root.machine
    m.advance(123_456_789)
    root.enable_synic()
    for sint in (0, 2):
        root.set_sint(sint, SINT0_VECTOR + sint)
    gone = root.partition()
    ports = Ports(root)
    child = Child(root, root.partition(memory=512, deposit=400))
    ports.grant(child.partition, SIGNAL_EVENTS | CREATE_PORTS | CREATE_PARTITIONS | ACCESS_MEMORY_POOL | 1 << 36)
    root.destroy(gone)
    root.create_vp(child.partition, SPARE_VP)
    ports.enable(child)
    ports.enable(child, sint=3, value=0x43)
    for code, value in ((CPU_CAP, 0x8000), (CPU_RESERVE, 0x1000), (CPU_WEIGHT, 77)):
        assert root.set_property(child.partition, code, value) == Status.SUCCESS
    root.map_memory(child.partition, READ_ONLY_PAGES, 600, READ)
    family = Family(root, child, child.make_child(list(range(64, 264))))
    install(root, child.partition)
    root.resume(child.partition)
    m.advance(1_000_000)
    m.set_register(child.vp, Register.Rip, 0x4321)
    open_ports(family)
    start_clocks(family)
    # Two intercepts: the second message waits behind the first.
    assert m.io(child.vp, IO, 1, True, 7)[0] == Exit.INTERCEPT
    assert m.io(root.handle(child.partition, SPARE_VP), IO, 2, True, 8)[0] == Exit.INTERCEPT
    return family


@pytest.fixture
def family(generation: str) -> Family:
    """The family, on one machine."""
    return make_family(generation)


def visible(family: Family) -> dict[str, object]:
    """What root and child can see."""
    root, child = family.root, family.child
    m = root.machine
    vps = []
    for partition, index in ((child.partition, 0), (child.partition, SPARE_VP), (family.grandchild, 0)):
        vp = root.handle(partition, index)
        registers = [m.rdmsr(vp, i) for i in (TIME_REF_COUNT, STIMER0_CONFIG, STIMER0_COUNT, 0x40000080, 0x40000083)]
        apic = [m.lapic_read(vp, offset) for offset in range(0x20, 0x400, 0x10)]
        timers = [(t["config"], t["count"], t["due"]) for t in m.vp_state(vp)["timers"]]
        vps.append((vp, registers, apic, timers, m.vp_state(vp)["queued"], m.register(vp, Register.Rip)))
    return {
        "partitions": [(p["id"], p["parent"], p["state"], p["vp_count"], p["privileges"]) for p in m.partitions()],
        "balances": [root.balance(partition) for partition in (ROOT_ID, child.partition)],
        "spaces": [m.gpa_space(p["id"])[1] for p in m.partitions()],
        "properties": [root.get_property(child.partition, code) for code in (CPU_CAP, CPU_RESERVE, CPU_WEIGHT)],
        "suspended": [root.get_register(child.partition, 0, name) for name in (EXPLICIT_SUSPEND, INTERCEPT_SUSPEND)],
        "queued": [m.vp_state(vp)["queued"] for vp in (0, 1)],
        "monitor": m.read(MONITOR_GPA, 4096, child.vp),
        "vps": vps,
    }


def test_migration_changes_nothing(family: Family) -> None:
    """A machine made from a saved stream looks exactly like the saved one, and saves the same stream."""
    stream = family.root.machine.save()
    other = family.migrated()
    assert other.root.machine.save() == stream
    assert visible(other) == visible(family)


def test_saving_changes_nothing(family: Family) -> None:
    """A machine goes on after it was saved."""
    before = visible(family)
    assert family.root.machine.save() == family.root.machine.save()
    assert visible(family) == before


def test_restore_into_the_same_machine(family: Family) -> None:
    """A snapshot brings back what has been destroyed since; processors are the platform's."""
    m = family.root.machine
    before = visible(family)
    stream, rip = m.save(), m.register(family.child.vp, Register.Rip)
    assert m.operator_delete_partition(family.child.partition) == 0
    family.root.partition()
    m.restore(stream)
    m.set_register(family.child.vp, Register.Rip, rip)
    assert visible(family) == before


def test_messages_go_on(family: Family) -> None:
    """Messages of ports and of intercepts arrive in order, and the child goes on after its intercept."""
    other = family.migrated()
    root, child, ports = other.root, other.child, other.ports
    waiting = [header_of(root.take_message(0)).vp for _ in range(2)]
    assert waiting == [0, SPARE_VP]
    assert [root.take_message(2).payload[0] for _ in range(3)] == [0, 1, 2]
    assert [ports.take(child).payload[0] for _ in range(3)] == [0, 1, 2]
    root.resume(child.partition)
    assert root.get_register(child.partition, 0, INTERCEPT_SUSPEND) == 0
    assert root.machine.io(child.vp, IO, 1, True, 9)[0] == Exit.INTERCEPT
    assert header_of(root.take_message(0)).vp == 0


def test_clocks_go_on(family: Family) -> None:
    """Armed timers of a child expire on the new machine when they would have on the old one."""
    other = family.migrated()
    for _ in range(60):
        for side in (family, other):
            side.root.machine.advance(200)
        mine, theirs = (side.ports.message(side.child, sint=3) for side in (family, other))
        assert mine == theirs
        irr, expected = (side.root.machine.lapic_read(side.child.vp, 0x230) for side in (other, family))
        assert irr == expected
    assert theirs.type
    assert irr & 1 << FIXED_VECTOR % 32


def test_frequency_goes_along(family: Family) -> None:
    """A child's time is continuous on a machine of another kind, and goes on at the saved frequency."""
    m = family.root.machine
    other = m.migrate(tsc_frequency=3_333_333_333)
    for _ in range(2):
        assert other.rdmsr(family.child.vp, TIME_REF_COUNT) == m.rdmsr(family.child.vp, TIME_REF_COUNT)
        m.advance(1_000_000)
        other.advance(1_000_000)


def test_memory_and_intercepts_go_along(family: Family) -> None:
    """Mappings, deposits and intercepts hold on the new machine."""
    other = family.migrated()
    root, child = other.root, other.child
    m, gpa = root.machine, (READ_ONLY_PAGES + 599) << 12
    assert m.read(gpa, 4, child.vp) == bytes(4)
    with pytest.raises(GpaFault):
        m.write(gpa, b"x", child.vp)
    with pytest.raises(GpaFault):
        m.read(gpa + 0x1000, 4, child.vp)
    deposited = FIRST_PAGE + 128 + 512  # the first of the child's, behind those of one that has gone and its memory
    assert root.try_deposit(child.partition, [deposited]).status == Status.OPERATION_DENIED
    for kind, parameter in ((IO_PORT, IO), (CPUID, LEAF)):
        data = install_input(child.partition, 0, kind, parameter)
        assert root.status(INSTALL_INTERCEPT, data) == Status.SUCCESS


def test_destruction_gives_everything_back(family: Family) -> None:
    """What a child was given comes back from the restored one, page by page."""
    results = []
    for side in (family, family.migrated()):
        root = side.root
        assert root.machine.operator_delete_partition(side.child.partition) == 0
        results.append((root.balance(), [p["id"] for p in root.machine.partitions()]))
    assert results[0] == results[1]


def test_streams_of_other_roles(family: Family, generation: str) -> None:
    """A stream of a root machine is not one of a guest's, nor the other way round."""
    stream = family.root.machine.save()
    with pytest.raises(RestoreError, match="role"):
        Guest(generation, vps=2, tsc_frequency=FREQUENCY).machine.restore(stream)
    guest = Guest(generation, vps=2, tsc_frequency=FREQUENCY).machine.save()
    with pytest.raises(RestoreError, match="role"):
        family.root.machine.restore(guest)
    assert_reset(family.root.machine)


def assert_reset(machine: Machine) -> None:
    """The state is that of a reset: there is nobody but the root, which has all of its pool."""
    assert [p["id"] for p in machine.partitions()] == [ROOT_ID]
    (root,) = machine.partitions()
    assert root["pages_in_use"] == 0
    assert machine.rdmsr(0, 0x40000000) == 0
    assert machine.rdmsr(0, 0x40000080) == 0


def test_truncated_streams(family: Family, generation: str) -> None:
    """Every stream that ends early is refused, and leaves the state of a reset."""
    stream = family.root.machine.save()
    target = Root(generation, tsc_frequency=FREQUENCY).machine
    numbers = random.Random(1)
    for length in [len(stream) - 1, *(numbers.randrange(len(stream)) for _ in range(60))]:
        with pytest.raises(RestoreError, match=r"\w"):
            target.restore(stream[:length])
        assert_reset(target)
    target.restore(stream)


def test_damaged_streams(family: Family, generation: str) -> None:
    """A changed byte is refused or gives some state, which can run, be saved and be reset."""
    stream = family.root.machine.save()
    numbers = random.Random(generation)
    target = Root(generation, tsc_frequency=FREQUENCY).machine
    places = [n for n in range(len(stream)) if stream[n]]
    refused = 0
    for attempt in range(400):
        damaged = bytearray(stream)
        for _ in range(numbers.randrange(1, 4)):
            place = numbers.choice(places) if attempt % 2 else numbers.randrange(len(damaged))
            damaged[place] = numbers.randrange(256)
        try:
            target.restore(bytes(damaged))
        except RestoreError:
            refused += 1
            assert_reset(target)
        target.advance_tsc(1 << 16)
        for lp in (0, 1):
            vp, _ = target.schedule(lp)
            if vp is not None:
                target.stopped(vp)
        target.save()
        target.reset()
    assert refused
    target.restore(stream)
    assert target.save() == stream


def test_damaged_words(family: Family, generation: str) -> None:
    """The same with whole words of the part that describes partitions, the likeliest to be believed."""
    stream = family.root.machine.save()
    target = Root(generation, tsc_frequency=FREQUENCY).machine
    for place in range(0, 1500, 4):
        for word in (0, 1, 0xFFFFFFFF):
            damaged = bytearray(stream)
            struct.pack_into("<I", damaged, place, word)
            try:
                target.restore(bytes(damaged))
            except RestoreError:
                assert_reset(target)
            target.advance_tsc(1 << 16)
            target.schedule(0)
            target.reset()
