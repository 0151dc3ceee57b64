# SPDX-License-Identifier: GPL-2.0-or-later
"""Chapter 21 and appendix J of the TLFS: statistics pages, who may map them, and what every counter counts."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import pytest
from child_apic import EOI, ICR_ASSERT, ICR_LOW, SVR, SVR_ENABLE, TO_SELF, TPR
from ports import Ports, monitor_info
from root import ALL_RIGHTS, PRIVILEGE_FLAGS, VIRTUAL_TLB_PAGE_COUNT, Child, Root
from simulated_guest import (
    FLUSH_ADDRESS_LIST,
    FLUSH_ADDRESS_SPACE,
    NOTIFY_LONG_SPIN_WAIT,
    PAGE,
    SELF,
    SWITCH_ADDRESS_SPACE,
    Guest,
    privilege_mask,
    reps,
    timer_value,
)

from qemu_hv import _core
from qemu_hv._core import Exit, GpaFault, MachineCheck, OverlayKind, Privilege, Status

MAP_STATS_PAGE = 0x006C
UNMAP_STATS_PAGE = 0x006D
MAP_STATS_PAGE2 = 0x0131
STATS_MSR = 0x400000E0
"""Partition retail, partition internal, VP retail, VP internal (TLFS 21.3.3)."""

HYPERVISOR, LP, PARTITION, VP = 0x1, 0x2, 0x10001, 0x10002
OWN = 1
"""HvStatsObjectSelfStats (TLFS 21.2.1)."""

GPA = 0x700000
"""Where callers that may choose want a page."""
INTERCEPT_IO, INTERCEPT_CPUID, INTERCEPT_EXCEPTION = 0, 2, 3
INSTALL_INTERCEPT = 0x004D
POINTS = {f"{row.group}.{row.symbol}": row for row in _core.stats_rows}


def identity(object_type: int, partition: int = 0, index: int = 0, flags: int = 0, area: int = 0) -> bytes:
    """HV_STATS_OBJECT_IDENTITY (TLFS 21.2.1); byte 15 is the area in the later generation."""
    if object_type in (PARTITION, VP):
        return struct.pack("<QIHBB", partition, index, flags, 0, area)
    return struct.pack("<I11xB", index, area)


@dataclass
class Viewer:
    """Software that maps statistics pages: the root's, or a child's."""

    root: Root
    child: Child | None = None

    def status(self, code: int, data: bytes) -> Status:
        """A call's status."""
        return self.child.status(code, data) if self.child else self.root.status(code, data)

    @property
    def vp(self) -> int:
        """Handle of the VP that acts."""
        return self.child.vp if self.child else 0

    def try_map(self, object_type: int, who: bytes, gpa: int = GPA, *, where_wanted: bool = False) -> Status:
        """HvMapStatsPage in the generation's form, with padding that nobody cleared; or the form for any place."""
        data = struct.pack("<II", object_type, 0xDEAD) + who
        if self.root.current and not where_wanted:
            return self.status(MAP_STATS_PAGE, data)
        code = MAP_STATS_PAGE2 if self.root.current else MAP_STATS_PAGE
        return self.status(code, data + struct.pack("<Q", gpa // PAGE))

    def map(self, object_type: int, who: bytes, gpa: int = GPA, *, where_wanted: bool = False) -> Page:
        """The same, which must succeed; the page."""
        assert self.try_map(object_type, who, gpa, where_wanted=where_wanted) == Status.SUCCESS
        if self.root.current and not where_wanted:
            output = self.child.output("<Q") if self.child else self.root.output("<Q")
            gpa = int(output[0]) * PAGE
        return Page(self.root, gpa, self.vp)

    def unmap(self, object_type: int, who: bytes) -> Status:
        """HvUnmapStatsPage."""
        return self.status(UNMAP_STATS_PAGE, struct.pack("<II", object_type, 0xDEAD) + who)


@dataclass
class Page:
    """A statistics page, read as software reads it: group by group."""

    root: Root
    gpa: int
    vp: int

    def bytes(self) -> bytes:
        """The whole page."""
        return self.root.machine.read(self.gpa, PAGE, self.vp)

    def groups(self) -> dict[int, tuple[int, list[int]]]:
        """Version and counters by group ID, as TLFS 21.1.3 says how to find them."""
        data, at = self.bytes(), 0
        found: dict[int, tuple[int, list[int]]] = {}
        while True:
            group, version, length = struct.unpack_from("<HIH", data, at)
            if (version, length) == (0, 0):
                assert group in (0, 1)
                return found
            assert length % 8 == 0
            found[group] = (version, list(struct.unpack_from(f"<{length // 8}Q", data, at + 8)))
            at += 8 + length

    def counter(self, group: int, index: int) -> int:
        """A counter by its group and the index that appendix J gives it."""
        return self.groups()[group][1][index - 1]


@pytest.fixture
def root(generation: str) -> Root:
    """The root of a machine with two VPs, and pages in its own pool that it can be shown."""
    root = Root(generation)
    root.deposit(SELF, 16)
    return root


@pytest.fixture
def viewer(root: Root) -> Viewer:
    """The root's software."""
    return Viewer(root)


def values(root: Guest, object_type: int, partition: int = 0, index: int = 0) -> dict[str, int]:
    """An object's counters by symbol, as the operator sees them."""
    for found in root.machine.stats():
        if found[:3] == (object_type, partition, index):
            return found[3]
    raise AssertionError("no such object")


def own(root: Root) -> bytes:
    """The root's own partition."""
    return identity(PARTITION, 1, flags=OWN)


# -- Format (TLFS 21.1.3, 21.1.4, appendix J) --

COUNTERS = {
    HYPERVISOR: {2: 5},
    LP: {2: 18},
    PARTITION: {2: 1, 3: 7},
    VP: {2: 2, 3: 63},
}


def test_format(viewer: Viewer) -> None:
    """TLFS 21.1.3, 21.1.4: groups in a row, each with type, version 1.0 and length, then an empty header."""
    partition = viewer.root.partition()
    who = {
        HYPERVISOR: identity(HYPERVISOR),
        LP: identity(LP, index=1),
        PARTITION: identity(PARTITION, partition),
        VP: identity(VP, partition),
    }
    for number, (object_type, sizes) in enumerate(COUNTERS.items()):
        page = viewer.map(object_type, who[object_type], GPA + number * PAGE)
        groups = page.groups()
        assert {group: len(counters) for group, (_, counters) in groups.items()} == (
            {2: 5, 3: 63} if viewer.root.current and object_type == VP else sizes
        )
        assert {version for version, _ in groups.values()} == {0x00010000}
    assert len({row.name for row in _core.stats_rows if row.group == "VPV"}) == 63


def test_indices_have_no_gaps() -> None:
    """TLFS J: index 0 of a group is its header, the counters follow."""
    for group, *_ in _core.stats_groups:
        rows = [row.index for row in _core.stats_rows if row.group == group]
        assert rows == list(range(1, len(rows) + 1))


def test_every_counter_says_what_it_counts() -> None:
    """A counter that counts nothing has the reason, and has no place among those that tests move."""
    for row in _core.stats_rows:
        assert row.what
        assert (row.by == "never") == (f"{row.group}.{row.symbol}" in NEVER)


# -- Mapping (TLFS 21.1.2, 21.3.1, 21.3.2) --


def objects(root: Root) -> dict[str, tuple[int, bytes]]:
    """One of each kind that the root may see: type and identity."""
    partition = root.partition()
    return {
        "hypervisor": (HYPERVISOR, identity(HYPERVISOR)),
        "lp": (LP, identity(LP, index=1)),
        "partition": (PARTITION, identity(PARTITION, partition)),
        "vp": (VP, identity(VP, partition)),
        "own partition": (PARTITION, own(root)),
        "own vp": (VP, identity(VP, SELF, 1, flags=OWN)),
    }


KINDS = ["hypervisor", "lp", "partition", "vp", "own partition", "own vp"]


@pytest.mark.parametrize("kind", KINDS)
def test_map_and_unmap(viewer: Viewer, kind: str) -> None:
    """TLFS 21.3.1, 21.3.2: the page appears, once; what is beneath it comes back."""
    object_type, who = objects(viewer.root)[kind]
    viewer.root.machine.write(GPA, b"beneath")
    assert viewer.unmap(object_type, who) == Status.OPERATION_DENIED
    page = viewer.map(object_type, who)
    assert set(page.groups()) == set(COUNTERS[object_type])
    assert viewer.try_map(object_type, who, GPA + PAGE) == Status.OPERATION_DENIED
    assert viewer.unmap(object_type, who) == Status.SUCCESS
    assert viewer.unmap(object_type, who) == Status.OPERATION_DENIED
    if page.gpa == GPA:
        assert viewer.root.machine.read(GPA, 7) == b"beneath"
    else:
        with pytest.raises(MachineCheck):
            page.bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_pages_are_write_protected(viewer: Viewer, kind: str) -> None:
    """TLFS 21.1.2: an attempt to write is #MC, and has no effect."""
    page = viewer.map(*objects(viewer.root)[kind])
    before = page.groups()
    with pytest.raises(MachineCheck):
        viewer.root.machine.write(page.gpa, bytes(8))
    assert set(page.groups()) == set(before)


def test_a_place_beyond_the_gpa_space(viewer: Viewer) -> None:
    """TLFS 21.3.1: the call may indicate success, but the page is not accessible."""
    for gpa_page in (1 << 24, (1 << 52) + 5, (1 << 64) - 1):
        status = viewer.try_map(HYPERVISOR, identity(HYPERVISOR), gpa_page * PAGE, where_wanted=True)
        assert status == Status.SUCCESS
        assert viewer.unmap(HYPERVISOR, identity(HYPERVISOR)) == Status.SUCCESS


def test_global_objects_are_the_roots(viewer: Viewer) -> None:
    """TLFS 21.1.1, 21.3.1, 21.3.2: others are denied, whatever privilege they have."""
    root = viewer.root
    partition = root.partition(memory=64, privileges=privilege_mask(Privilege.AccessStats, *CHILD_PRIVILEGES))
    child = Viewer(root, Child(root, partition))
    for object_type in (HYPERVISOR, LP):
        assert child.try_map(object_type, identity(object_type)) == Status.ACCESS_DENIED
        assert child.unmap(object_type, identity(object_type)) == Status.ACCESS_DENIED


CHILD_PRIVILEGES = (Privilege.AccessHypercallMsrs, Privilege.AccessStatsMsr, Privilege.CreatePartitions)


def test_local_objects_are_the_parents(viewer: Viewer) -> None:
    """TLFS 21.3.1: not the grandparent's, not a sibling's; and without the flag not the partition's own."""
    root = viewer.root
    mask = privilege_mask(Privilege.AccessStats, Privilege.AccessMemoryPool, *CHILD_PRIVILEGES)
    partition = root.partition(memory=600, deposit=400, privileges=mask)
    sibling = root.partition()
    child = Child(root, partition)
    grandchild = child.make_child(list(range(300, 560)))
    nested = Viewer(root, child)
    assert viewer.try_map(PARTITION, identity(PARTITION, grandchild)) == Status.ACCESS_DENIED
    assert nested.try_map(PARTITION, identity(PARTITION, sibling)) == Status.ACCESS_DENIED
    assert nested.try_map(VP, identity(VP, partition)) == Status.ACCESS_DENIED
    assert nested.try_map(PARTITION, identity(PARTITION, SELF)) == Status.ACCESS_DENIED
    assert nested.try_map(PARTITION, identity(PARTITION, grandchild, flags=OWN)) == Status.ACCESS_DENIED
    page = nested.map(PARTITION, identity(PARTITION, grandchild), 0x60000, where_wanted=True)
    assert page.counter(2, 1) == 1
    own_page = nested.map(VP, identity(VP, SELF, 0, OWN), 0x61000, where_wanted=True)
    assert set(own_page.groups()) == {2, 3}
    if root.current:
        # Its pool has pages of its parent's, which it cannot be shown.
        assert nested.try_map(VP, identity(VP, grandchild)) == Status.OPERATION_DENIED


def test_the_root_is_its_own_parent_in_the_later_generation(viewer: Viewer) -> None:
    """Deployed roots map their own objects without a flag; by the text they have no parent (TLFS 21.3.1)."""
    expected = Status.SUCCESS if viewer.root.current else Status.ACCESS_DENIED
    assert viewer.try_map(PARTITION, identity(PARTITION, 1)) == expected
    assert viewer.try_map(VP, identity(VP, 1, 1), GPA + PAGE) == expected


def test_privilege(generation: str) -> None:
    """TLFS 5.2.3, 21.3.1, 21.3.2: AccessStats."""
    root = Root(generation, privileges=privilege_mask(Privilege.AccessHypercallMsrs))
    viewer = Viewer(root)
    assert viewer.try_map(HYPERVISOR, identity(HYPERVISOR)) == Status.ACCESS_DENIED
    assert viewer.unmap(HYPERVISOR, identity(HYPERVISOR)) == Status.ACCESS_DENIED


def test_a_guest_may_see_itself(generation: str) -> None:
    """TLFS 21.3.2: with role=guest there is no parent and no root; the partition may map its own."""
    guest = Guest(generation, privileges=privilege_mask(Privilege.AccessHypercallMsrs, Privilege.AccessStats))
    code = MAP_STATS_PAGE2 if generation == "current" else MAP_STATS_PAGE

    def call(object_type: int, who: bytes) -> Status:
        return guest.status(code, struct.pack("<II", object_type, 0) + who + struct.pack("<Q", GPA // PAGE))

    assert call(HYPERVISOR, identity(HYPERVISOR)) == Status.ACCESS_DENIED
    assert call(LP, identity(LP)) == Status.ACCESS_DENIED
    assert call(PARTITION, identity(PARTITION, SELF)) == Status.ACCESS_DENIED
    assert call(PARTITION, identity(PARTITION, SELF, flags=OWN)) == Status.SUCCESS
    assert (OverlayKind.STATS_OWN_PARTITION, 0, GPA) in guest.machine.overlays
    with pytest.raises(MachineCheck):
        guest.machine.write(GPA, b"x")
    unmap = struct.pack("<II", PARTITION, 0) + identity(PARTITION, SELF, flags=OWN)
    assert guest.status(UNMAP_STATS_PAGE, unmap) == Status.SUCCESS


def test_identities(viewer: Viewer) -> None:
    """TLFS 21.2.1, 21.3.1: types, IDs, indices, and reserved fields that must be zero."""
    root = viewer.root
    partition = root.partition()
    for call in (viewer.try_map, viewer.unmap):
        for object_type in (0, 3, 0x10000, 0x10003, 0xFFFFFFFF):
            assert call(object_type, bytes(16)) == Status.INVALID_PARAMETER
        for at in range(16):
            assert call(HYPERVISOR, bytes(at) + b"\1" + bytes(15 - at)) == Status.INVALID_PARAMETER
        for at in range(4, 16):
            assert call(LP, bytes(at) + b"\1" + bytes(15 - at)) == Status.INVALID_PARAMETER
        assert call(LP, identity(LP, index=2)) == Status.INVALID_PARAMETER
        for unknown in (0, 77):
            assert call(PARTITION, identity(PARTITION, unknown)) == Status.INVALID_PARTITION_ID
        assert call(PARTITION, identity(PARTITION, partition, index=1)) == Status.INVALID_PARAMETER
        assert call(PARTITION, identity(PARTITION, partition, flags=2)) == Status.INVALID_PARAMETER
        assert call(VP, identity(VP, partition, flags=0x8000)) == Status.INVALID_PARAMETER
        # Byte 15 is reserved, and chooses an area later: only the parent's has nothing of its own here.
        assert call(VP, identity(VP, partition, area=1)) == Status.INVALID_PARAMETER
        assert call(VP, identity(VP, partition, index=1)) == Status.INVALID_VP_INDEX


def test_state_of_the_partition(viewer: Viewer) -> None:
    """TLFS 21.3.1, 21.3.2: it must be active."""
    partition = viewer.root.create_partition()
    who = identity(PARTITION, partition)
    assert viewer.try_map(PARTITION, who) == Status.INVALID_PARTITION_STATE
    assert viewer.unmap(PARTITION, who) == Status.INVALID_PARTITION_STATE


def test_memory(viewer: Viewer) -> None:
    """TLFS 21.3.1, 7.1.1: a mapping costs a page of the caller's pool, which comes back."""
    root = viewer.root
    before = root.balance()
    viewer.map(HYPERVISOR, identity(HYPERVISOR))
    assert root.balance().available == before.available - 1
    assert root.balance().in_use == before.in_use + 1
    viewer.unmap(HYPERVISOR, identity(HYPERVISOR))
    assert root.balance() == before


def test_pages_of_the_pool() -> None:
    """The later form shows a deposited page, which cannot be withdrawn; without one the pool is short."""
    root = Root("current")
    viewer = Viewer(root)
    assert viewer.try_map(HYPERVISOR, identity(HYPERVISOR)) == Status.INSUFFICIENT_MEMORY
    (lent,) = root.deposit(SELF, 1)
    page = viewer.map(HYPERVISOR, identity(HYPERVISOR))
    assert page.gpa == lent * PAGE
    assert page.counter(2, 1) == 2
    assert viewer.try_map(LP, identity(LP)) == Status.INSUFFICIENT_MEMORY
    assert root.withdraw_all(SELF) == []
    assert viewer.unmap(HYPERVISOR, identity(HYPERVISOR)) == Status.SUCCESS
    assert root.withdraw_all(SELF) == [lent]
    assert root.machine.read(lent * PAGE, PAGE) == bytes(PAGE)


def test_the_caller_of_2008r2_has_no_free_page() -> None:
    """TLFS 21.3.1: the number of pages in the memory pool of the caller is insufficient."""
    root = Root("2008r2")
    while root.balance().available >= 6:
        root.create_partition()
    viewer = Viewer(root)
    for lp in range(2):
        if root.balance().available:
            viewer.try_map(LP, identity(LP, index=lp), GPA + lp * PAGE)
    while root.balance().available:
        taken = root.balance().available
        viewer.try_map(HYPERVISOR, identity(HYPERVISOR), GPA + 2 * PAGE)
        viewer.try_map(VP, identity(VP, 1, 0, OWN), GPA + 3 * PAGE)
        viewer.try_map(PARTITION, identity(PARTITION, 1, 0, OWN), GPA + 4 * PAGE)
        assert root.balance().available < taken
    assert viewer.try_map(VP, identity(VP, 1, 1, OWN)) == Status.INSUFFICIENT_MEMORY


def test_the_page_ends_with_its_object(viewer: Viewer) -> None:
    """TLFS 21.1.2: when a VP or a partition is deleted, its mapping is removed and its memory is free again."""
    root = viewer.root
    before = root.balance()
    partition = root.partition(vps=2)
    after_creation = root.balance()
    viewer.map(VP, identity(VP, partition, 1))
    page = viewer.map(PARTITION, identity(PARTITION, partition), GPA + PAGE)
    assert root.delete_vp(partition, 1) == Status.SUCCESS
    assert page.counter(2, 1) == 1
    assert root.balance().available == after_creation.available - 1
    viewer.map(VP, identity(VP, partition, 0))
    root.destroy(partition)
    assert root.balance().available == before.available
    if not root.current:
        assert root.machine.read(GPA + PAGE, 8) == bytes(8)


def test_a_new_vp_counts_from_zero(viewer: Viewer) -> None:
    """TLFS 21.1.2: the page lives as long as its object."""
    root = viewer.root
    partition = root.partition(memory=64)
    child = Child(root, partition)
    assert values(root, VP, partition)["MsrAccesses"] == 2
    assert child.fast(NOTIFY_LONG_SPIN_WAIT) == Status.SUCCESS
    assert root.delete_vp(partition, 0) == Status.SUCCESS
    root.create_vp(partition, 0)
    assert not any(value for name, value in values(root, VP, partition).items() if name != "IdealCpu")


def test_many_partitions_at_once(viewer: Viewer) -> None:
    """Each has a place of its own in the parent's space."""
    root = viewer.root
    partitions = [root.partition(deposit=128, vps=index + 1) for index in range(4)]
    pages = [
        viewer.map(PARTITION, identity(PARTITION, partition), GPA + number * PAGE)
        for number, partition in enumerate(partitions)
    ]
    assert [page.counter(2, 1) for page in pages] == [1, 2, 3, 4]
    root.destroy(partitions[1])
    assert pages[2].counter(2, 1) == 3
    other = root.partition(deposit=128, vps=5)
    assert viewer.map(PARTITION, identity(PARTITION, other), GPA + 9 * PAGE).counter(2, 1) == 5
    assert [pages[index].counter(2, 1) for index in (0, 2, 3)] == [1, 3, 4]


# -- Registers (TLFS 21.3.3) --


@pytest.fixture
def guest(generation: str) -> Guest:
    """A guest that may map its pages by registers."""
    return Guest(generation, vps=2, privileges=(1 << 64) - 1)


@pytest.mark.parametrize("which", range(4))
def test_registers_show_the_page(guest: Guest, which: int) -> None:
    """TLFS 21.3.3: bit 0 shows it; both registers of an object show its one page (21.1.2)."""
    m = guest.machine
    m.write(GPA, b"beneath!")
    m.wrmsr(1, STATS_MSR + which, GPA | 1)
    group, version, _ = struct.unpack("<HIH", m.read(GPA, 8))
    assert (group, version) == (2, 0x10000)
    (first,) = struct.unpack("<Q", m.read(GPA + 8, 8))
    assert (first == 2) if which < 2 else True
    with pytest.raises(MachineCheck):
        m.write(GPA, b"x")
    m.wrmsr(1, STATS_MSR + which, GPA)
    assert m.read(GPA, 8) == b"beneath!"


def test_registers_are_the_vps(guest: Guest) -> None:
    """TLFS 21.3.3: zero at first and after a reset; reserved bits are preserved; #GP without AccessStatsMsr."""
    m = guest.machine
    for which in range(4):
        assert m.rdmsr(0, STATS_MSR + which) == 0
        m.wrmsr(0, STATS_MSR + which, (GPA + which * PAGE) | 0xFFF)
        assert m.rdmsr(0, STATS_MSR + which) == (GPA + which * PAGE) | 0xFFF
        assert m.rdmsr(1, STATS_MSR + which) == 0
    m.reset()
    assert [m.rdmsr(0, STATS_MSR + which) for which in range(4)] == [0] * 4
    assert m.read(GPA, 8) == bytes(8)


def test_register_beyond_the_gpa_space(guest: Guest) -> None:
    """TLFS 21.3.3: the page will not be accessible."""
    guest.machine.wrmsr(0, STATS_MSR, 1 << 40 | 1)
    assert guest.machine.rdmsr(0, STATS_MSR) == 1 << 40 | 1


def test_a_child_sees_its_own(root: Root) -> None:
    """TLFS 21.3.3, 21.1.2: in its own GPA space only, write-protected there."""
    partition = root.partition(memory=64)
    child = Child(root, partition)
    root.machine.wrmsr(child.vp, STATS_MSR + 2, 0x8001)
    assert struct.unpack("<H", root.machine.read(0x8000, 2, child.vp)) == (2,)
    with pytest.raises(MachineCheck):
        root.machine.write(0x8000, b"x", child.vp)
    with pytest.raises(GpaFault):
        root.machine.read(0x7000000, 8, child.vp)
    assert root.delete_vp(partition, 0) == Status.SUCCESS
    assert (partition, 0) not in [found[1:3] for found in root.machine.stats() if found[0] == VP]


# -- Reset, snapshots --


def test_reset_takes_mappings_away(viewer: Viewer) -> None:
    """What was mapped is gone after a reset of the machine, with its pages."""
    root = viewer.root
    for kind in objects(root).values():
        viewer.map(*kind, GPA)
    root.machine.reset()
    root.enable_hypercalls()
    assert root.balance().in_use == 0
    assert viewer.unmap(HYPERVISOR, identity(HYPERVISOR)) == Status.OPERATION_DENIED
    assert root.machine.read(GPA, 8) == bytes(8)


def test_snapshots(generation: str) -> None:
    """Mappings, registers and counters are state: a guest sees no counter go back."""
    first, second = Root(generation), Root(generation)
    viewer = Viewer(first)
    first.deposit(SELF, 8)
    partition = first.partition(memory=64)
    child = Child(first, partition)
    first.machine.wrmsr(child.vp, STATS_MSR + 3, 0x9001)
    pages = [
        viewer.map(HYPERVISOR, identity(HYPERVISOR), GPA),
        viewer.map(LP, identity(LP, index=1), GPA + PAGE),
        viewer.map(PARTITION, identity(PARTITION, partition), GPA + 2 * PAGE),
        viewer.map(VP, identity(VP, partition), GPA + 3 * PAGE),
        viewer.map(VP, identity(VP, 1, 1, OWN), GPA + 4 * PAGE),
    ]
    balance = first.balance()
    contents = [page.groups() for page in pages]
    second.machine.restore(first.machine.save())
    after = [Page(second, page.gpa, 0).groups() for page in pages]
    assert (after[0], after[2], after[3], after[4]) == (contents[0], contents[2], contents[3], contents[4])
    assert all(now >= then for now, then in zip(after[1][2][1], contents[1][2][1]))
    assert second.balance() == balance
    assert second.machine.rdmsr(child.vp, STATS_MSR + 3) == 0x9001
    assert struct.unpack("<H", second.machine.read(0x9000, 2, child.vp)) == (2,)
    assert Viewer(second).unmap(VP, identity(VP, partition)) == Status.SUCCESS
    assert second.finalize(partition) == Status.SUCCESS


def test_a_restore_that_fails_leaves_nothing(viewer: Viewer) -> None:
    """State that is cut off inside the statistics is refused, and no page is lost."""
    root = viewer.root
    viewer.map(HYPERVISOR, identity(HYPERVISOR))
    saved = root.machine.save()
    for size in range(len(saved) - 200, len(saved), 8):
        with pytest.raises(_core.RestoreError):
            root.machine.restore(saved[:size])
        root.enable_hypercalls()
        assert root.balance().in_use == 0


# -- Times are brought up to date --


def test_times_go_on(viewer: Viewer) -> None:
    """They are right when a page is mapped, and every 10 ms afterwards while it is."""
    root = viewer.root
    m = root.machine
    m.set_waits(0, False)
    assert m.schedule(0)[0] == 0
    m.advance(5_000)
    lp = viewer.map(LP, identity(LP), GPA)
    vp = viewer.map(VP, identity(VP, 1, 0, OWN), GPA + PAGE)
    began = vp.counter(2, 1)
    assert began >= 5_000
    assert lp.counter(2, 2) >= 5_000
    m.advance(200_000)
    assert vp.counter(2, 1) == pytest.approx(began + 200_000, abs=100_001)
    assert lp.counter(2, 1) >= 200_000
    viewer.unmap(LP, identity(LP))
    viewer.unmap(VP, identity(VP, 1, 0, OWN))
    m.advance(200_000)
    assert m.timer_tsc(0, 8) is None


# -- Counters --

NEVER = {
    "LPA.MonitorTransitionCost",
    "VPA.RemoteNodeRunTime",
    "VPV.PageTableAllocations",
    "VPV.PageTableEvictions",
    "VPV.PageTableReclamations",
    "VPV.PageTableResets",
    "VPV.PageTableValidations",
    "VPV.PageTableWriteIntercepts",
}


class Watch:
    """What counters of an object moved by."""

    def __init__(self, guest: Guest, object_type: int, partition: int = 0, index: int = 0) -> None:
        self.guest = guest
        self.who = (object_type, partition, index)
        self.before = values(guest, *self.who)

    def moved(self) -> dict[str, int]:
        """By symbol, without what has stayed and without times and costs."""
        after = values(self.guest, *self.who)
        skip = {row.symbol for row in _core.stats_rows if row.kind in ("time", "cost", "percent")}
        return {
            name: after[name] - value
            for name, value in self.before.items()
            if name not in skip and after[name] != value
        }


def test_hypervisor_counters(viewer: Viewer) -> None:
    """TLFS J.1.1: levels, up and down."""
    root = viewer.root
    page = viewer.map(HYPERVISOR, identity(HYPERVISOR))
    counters = page.groups()[2][1]
    assert counters[0] == 2
    partition = root.partition(vps=3, deposit=100)
    assert page.groups()[2][1] == [2, counters[1] + 1, counters[2] + 100, counters[3] + 3, counters[4]]
    root.destroy(partition)
    assert page.groups()[2][1] == counters


def test_monitored_notifications(root: Root) -> None:
    """TLFS J.1.1: those that are registered."""
    receiver, sender = root.partition(), root.partition()
    ports, watch = Ports(root), Watch(root, HYPERVISOR)
    assert ports.create(receiver, 9, sender, monitor_info(0x5000)) == Status.SUCCESS
    assert watch.moved() == {"MonitoredNotifications": 1}
    assert ports.delete(receiver, 9) == Status.SUCCESS
    assert watch.moved() == {}


def test_lp_counters(root: Root) -> None:
    """TLFS J.2.1: switches, slices, halts, kicks, timers, hardware interrupts."""
    m = root.machine
    partition = root.partition(memory=64)
    handle = root.handle(partition, 0)
    lp = m.lp_of(handle)
    m.set_waits(0, True)
    m.set_waits(1, True)
    m.schedule(lp)
    watch = Watch(root, LP, index=lp)
    m.set_waits(lp, False)
    assert m.schedule(lp)[0] == lp
    assert watch.moved()["ContextSwitches"] == 1
    root.resume(partition)
    m.set_waits(handle, False)
    m.set_waits(lp, True)
    assert m.schedule(lp)[0] == handle
    assert watch.moved()["ContextSwitches"] == 2
    m.set_waits(handle, True)
    assert m.schedule(lp)[0] is None
    assert (watch.moved()["ProcessorHalts"], watch.moved()["C1Transitions"]) == (1, 1)
    m.timer_expired(handle, 0)
    assert watch.moved()["TimerInterrupts"] >= 1
    m.set_waits(1 - lp, False)
    assert m.schedule(1 - lp)[0] == 1 - lp
    other = Watch(root, LP, index=1 - lp)
    m.set_waits(handle, False)
    assert watch.moved()["InterProcessorInterrupts"] == 1
    assert other.moved()["InterProcessorInterruptsSent"] == 1
    assert m.schedule(lp)[0] == handle
    m.set_waits(lp, False)
    _, slice_end = m.schedule(lp)
    assert slice_end is not None
    m.advance(20_000)
    m.schedule(lp)
    assert watch.moved()["SchedulerInterrupts"] >= 1


def test_hardware_interrupts(root: Root) -> None:
    """TLFS J.2.1, J.4.2: what the machine's devices raise, hypervisor interrupts left out."""
    m = root.machine
    lp, vp = Watch(root, LP, index=1), Watch(root, VP, 1, 1)
    m.request_interrupt(1, 0x51)
    assert m.accept(1) == 0x51
    assert lp.moved()["HardwareInterrupts"] == 1
    assert vp.moved() == {"ExternalInterrupts": 1, "VirtualInterrupts": 1}
    m.eoi(1)
    root.enable_synic(1)
    root.set_sint(3, 0x62, 1)
    root.set_timer(0, timer_value(3), 1, 1)
    root.set_timer(0, timer_value(3), root.time() + 10, 1)
    m.advance(100)
    assert m.accept(1) == 0x62
    assert lp.moved()["HardwareInterrupts"] == 1
    moved = vp.moved()
    assert (moved["SyntheticInterrupts"], moved["VirtualInterrupts"], moved["ExternalInterrupts"]) == (1, 2, 1)


def test_power_states(root: Root) -> None:
    """TLFS J.2.1, 6.3.2.1.2: transitions by the trigger registers, and the share of time."""
    m = root.machine
    m.set_waits(0, False)
    assert m.schedule(0)[0] == 0
    for state in (1, 2):
        watch = Watch(root, LP)
        m.rdmsr(0, 0x400000C1 + state)
        m.set_waits(0, True)
        assert m.schedule(0)[0] is None
        m.advance(1_000_000)
        m.set_waits(0, False)
        m.schedule(0)
        assert watch.moved()[f"C{state + 1}Transitions"] == 1
        assert values(root, LP)[f"C{state + 1}Time"] > 30
        assert "C1Transitions" not in watch.moved()


def test_lp_times(root: Root) -> None:
    """TLFS J.2.1: they are those of HvGetLogicalProcessorRunTime (6.4.1)."""
    m = root.machine
    m.set_waits(0, False)
    assert m.schedule(0)[0] == 0
    m.advance(7_000)
    found = values(root, LP)
    assert found["GlobalTime"] == root.time()
    assert found["TotalRunTime"] >= 7_000
    assert found["HypervisorRunTime"] <= found["TotalRunTime"]
    assert found["MonitorTransitionCost"] == 0


def test_partition_counters(root: Root) -> None:
    """TLFS J.3.1, J.3.2: VPs, pool, GPA space, TLB."""
    partition = root.create_partition()
    watch = Watch(root, PARTITION, partition)
    root.deposit(partition, 100)
    assert watch.moved() == {"DepositedPages": 100}
    assert root.initialize(partition) == Status.SUCCESS
    assert root.set_property(partition, VIRTUAL_TLB_PAGE_COUNT, 20) == Status.SUCCESS
    assert watch.moved() == {"DepositedPages": 100, "VirtualTlbPages": 4}
    root.create_vp(partition, 0)
    root.create_vp(partition, 5)
    root.map_memory(partition, 0, 30)
    moved = watch.moved()
    assert (moved["VirtualProcessors"], moved["AddressSpaces"]) == (2, 2)
    assert (moved["GpaPages"], moved["GpaSpaceModifications"]) == (30, 30)
    root.unmap(partition, 3, 2)
    moved = watch.moved()
    assert (moved["GpaPages"], moved["GpaSpaceModifications"]) == (28, 32)
    assert moved["VirtualTlbFlushEntries"] == 1
    assert values(root, PARTITION, partition)["RecommendedVirtualTlbSize"] == 16
    assert values(root, PARTITION, 1)["GpaPages"] == 0


def test_deposits_change_the_roots_space(root: Root) -> None:
    """TLFS J.3.2: a page that leaves or comes back is a modification of the depositor's space."""
    watch = Watch(root, PARTITION, 1)
    partition = root.create_partition()
    root.deposit(partition, 10)
    assert watch.moved()["GpaSpaceModifications"] == 10
    root.withdraw_all(partition)
    assert watch.moved()["GpaSpaceModifications"] == 20


HYPERCALLS = [
    (0x0001, "VirtualMmu"),
    (0x0008, "LongSpinWait"),
    (0x0009, "LogicalProcessor"),
    (0x0041, "Other"),
    (0x0056, "VirtualInterrupt"),
    (0x004F, "VirtualProcessor"),
    (0x0058, "SyntheticInterrupt"),
    (0x004B | 1 << 32, "GpaSpace"),
    (0x1FF, "Other"),
]


@pytest.mark.parametrize(("input_value", "kind"), HYPERCALLS)
def test_hypercalls_by_kind(root: Root, input_value: int, kind: str) -> None:
    """TLFS J.4.2: every call that comes to an end counts once, and once as one of its kind."""
    watch = Watch(root, VP, 1)
    data = bytes(32)
    for _ in range(3):
        root.call(input_value, data)
    moved = watch.moved()
    assert (moved["Hypercalls"], moved[f"{kind}Hypercalls"]) == (3, 3)
    assert sum(value for name, value in moved.items() if name.endswith("Hypercalls")) == 6


def test_flushes(root: Root) -> None:
    """TLFS J.4.2: explicit flushes of everything, of an address space, and of ranges."""
    vp, partition = Watch(root, VP, 1), Watch(root, PARTITION, 1)
    flush = struct.pack("<QQQ", 0x3000, 0, 1)
    flush_all = struct.pack("<QQQ", 0, 2, 1)
    root.status(FLUSH_ADDRESS_SPACE, flush)
    root.status(FLUSH_ADDRESS_SPACE, flush_all)
    root.status(FLUSH_ADDRESS_SPACE, flush_all)
    root.status(FLUSH_ADDRESS_LIST | reps(5), flush + bytes(40))
    root.status(FLUSH_ADDRESS_LIST | reps(70), flush_all + bytes(560))
    moved = vp.moved()
    assert (moved["AddressSpaceFlushes"], moved["AddressDomainFlushes"]) == (1, 2)
    assert (moved["LocalFlushedGvaRanges"], moved["GlobalGvaRangeFlushes"]) == (5, 70)
    assert partition.moved()["VirtualTlbFlushEntries"] == 3


def test_address_space_switches(root: Root) -> None:
    """TLFS J.4.2, 12.4.1: a TLB without tags loses the old one."""
    watch = Watch(root, VP, 1)
    assert root.fast(SWITCH_ADDRESS_SPACE, 0x5000) == Status.SUCCESS
    moved = watch.moved()
    assert (moved["AddressSpaceSwitches"], moved["AddressSpaceEvictions"]) == (1, 1)


def test_hypercall_cost(root: Root) -> None:
    """TLFS J.4.2: the mean time in ns of those that are timed, the first one among them."""
    m = root.machine
    m.call_ticks = 2560  # 1 us
    fresh = values(root, VP, 1, 1)
    assert fresh["HypercallsCost"] == 0
    assert root.fast(SWITCH_ADDRESS_SPACE, 0x5000, vp=1) == Status.SUCCESS
    assert values(root, VP, 1, 1)["HypercallsCost"] == 1000
    m.call_ticks = 3 * 2560
    for _ in range(128):
        root.fast(SWITCH_ADDRESS_SPACE, 0x5000, vp=1)
    found = values(root, VP, 1, 1)
    assert found["HypercallsCost"] == 2000
    assert found["HypervisorRunTime"] <= found["TotalRunTime"]


def test_hypervisor_run_time(generation: str) -> None:
    """TLFS J.4.1: time in hypervisor code: a sample stands for the events since the last one."""
    guest = Guest(generation, vps=1)
    guest.machine.call_ticks = 2560
    guest.machine.set_run_time(0, 1_000_000)
    for _ in range(257):
        guest.fast(SWITCH_ADDRESS_SPACE, 0x5000)
    assert values(guest, VP, 1)["HypervisorRunTime"] == 257 * 10
    guest.machine.set_run_time(0, 1_000_001)
    assert values(guest, VP, 1)["TotalRunTime"] == 1_000_001


def test_msr_and_cpuid(root: Root) -> None:
    """TLFS J.4.2: accesses that fault count too."""
    watch = Watch(root, VP, 1)
    root.time()
    with pytest.raises(_core.GeneralProtectionFault):
        root.machine.rdmsr(0, 0x400000FF)
    assert watch.moved() == {"MsrAccesses": 2}
    root.machine.child_cpuid(0, 1)
    assert watch.moved() == {"MsrAccesses": 2, "CpuidInstructions": 1}


class Intercepted:
    """A child whose instructions its parent intercepts."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.partition = root.partition(memory=64)
        self.vp = root.handle(self.partition, 0)
        root.enable_synic(0)
        root.enable_synic(1)
        root.set_sint(0, 0x70, 0)
        root.set_sint(0, 0x70, 1)
        for kind, access, parameter in (
            (INTERCEPT_IO, 3, 0x60),
            (INTERCEPT_CPUID, 4, 0x1234),
            (INTERCEPT_EXCEPTION, 4, 6),
            (INTERCEPT_EXCEPTION, 4, 14),
        ):
            data = struct.pack("<QIIQ", self.partition, access, kind, parameter)
            assert root.status(INSTALL_INTERCEPT, data) == Status.SUCCESS
        self.watch = Watch(root, VP, self.partition)


@pytest.fixture
def intercepted(root: Root) -> Intercepted:
    """Such a child."""
    return Intercepted(root)


def test_io(intercepted: Intercepted) -> None:
    """TLFS J.4.2: I/O instructions, and the messages of those the parent intercepts."""
    m = intercepted.root.machine
    m.io(intercepted.vp, 0x80, 1, True)
    assert intercepted.watch.moved() == {"IoInstructions": 1}
    m.io(intercepted.vp, 0x60, 1, True)
    assert intercepted.watch.moved() == {"IoInstructions": 2, "IoInterceptMessages": 1}


def test_intercepts(intercepted: Intercepted) -> None:
    """TLFS J.4.2: messages by kind; what no other counter has is another intercept."""
    m, vp, watch = intercepted.root.machine, intercepted.vp, intercepted.watch
    assert m.child_cpuid(vp, 0x1234)[0] == Exit.INTERCEPT
    assert watch.moved() == {"CpuidInstructions": 1, "OtherMessages": 1}
    m.exception(vp, 6)
    assert watch.moved() == {"CpuidInstructions": 1, "OtherMessages": 2, "OtherIntercepts": 1}
    m.exception(vp, 14)
    assert watch.moved() == {"CpuidInstructions": 1, "OtherMessages": 3, "OtherIntercepts": 1}
    m.triple_fault(vp)
    assert watch.moved() == {"CpuidInstructions": 1, "OtherMessages": 4, "OtherIntercepts": 2}


def test_memory_intercepts(intercepted: Intercepted) -> None:
    """TLFS J.4.2: a page fault of the GPA space, and its message."""
    intercepted.root.machine.memory_intercept(intercepted.vp, 0x7000000, ALL_RIGHTS & 1, unmapped=True)
    assert intercepted.watch.moved() == {"PageFaultIntercepts": 1, "MemoryInterceptMessages": 1}


def test_local_apic(intercepted: Intercepted) -> None:
    """TLFS J.4.2: accesses to a child's APIC, IPIs, and interrupts that a lower priority lets through."""
    m, vp, watch = intercepted.root.machine, intercepted.vp, intercepted.watch
    m.lapic_write(vp, SVR, SVR_ENABLE | 0xFF)
    assert watch.moved() == {"ApicMmioAccesses": 1, "EmulatedInstructions": 1}
    m.lapic_write(vp, TPR, 0xF0)
    m.lapic_read(vp, TPR)
    assert watch.moved()["ApicTprAccesses"] == 2
    m.lapic_write(vp, ICR_LOW, TO_SELF | ICR_ASSERT | 0x55)
    moved = watch.moved()
    assert (moved["ApicIpisSent"], moved["ApicSelfIpisSent"]) == (1, 1)
    assert "PendingInterrupts" not in moved
    m.lapic_write(vp, TPR, 0)
    assert watch.moved()["PendingInterrupts"] == 1
    assert m.child_interrupt(vp) == 0x55
    m.lapic_write(vp, EOI, 0)
    moved = watch.moved()
    assert (moved["ApicEoiAccesses"], moved["VirtualInterrupts"]) == (1, 1)
    assert moved["EmulatedInstructions"] == moved["ApicMmioAccesses"] == 6


def test_external_interrupts_of_a_child(root: Root) -> None:
    """TLFS J.4.2: the machine's interrupts that take the LP away from it."""
    m = root.machine
    partition = root.partition(memory=64)
    handle = root.handle(partition, 0)
    lp = m.lp_of(handle)
    m.set_waits(lp, True)
    root.resume(partition)
    m.set_waits(handle, False)
    assert m.schedule(lp)[0] == handle
    watch = Watch(root, VP, partition)
    m.schedule(lp, True)
    assert watch.moved() == {"ExternalInterrupts": 1}
    assert m.schedule(lp)[0] == handle
    m.stopped(handle)  # its thread is wanted elsewhere first
    m.schedule(lp, True)
    assert watch.moved() == {"ExternalInterrupts": 2}


def test_migrations(root: Root) -> None:
    """TLFS J.4.2: an LP without work takes a VP over."""
    m = root.machine
    first, second = root.partition(vps=2, memory=16), root.partition(memory=16)
    handles = [root.handle(first, 0), root.handle(first, 1), root.handle(second, 0)]
    for lp in range(2):
        m.set_waits(lp, True)
    lp = m.lp_of(handles[0])
    same = [handle for handle in handles if m.lp_of(handle) == lp]
    assert len(same) == 2
    for partition, index, handle in ((first, 0, handles[0]), (first, 1, handles[1]), (second, 0, handles[2])):
        if handle in same:
            root.resume(partition, index)
            m.set_waits(handle, False)
    m.schedule(lp)
    m.advance(10_000)
    moved = m.schedule(1 - lp)[0]
    assert moved in same
    partition, index = next(
        (p, i) for p, i, h in ((first, 0, handles[0]), (first, 1, handles[1]), (second, 0, handles[2])) if h == moved
    )
    assert values(root, VP, partition, index)["LogicalProcessorMigrations"] == 1
    if root.current:
        assert values(root, VP, partition, index)["IdealCpu"] == 1 - lp


def test_events_of_the_platform(root: Root) -> None:
    """Those that only the platform sees are told one by one, and timed as the core's own."""
    m = root.machine
    platform = [row for row in _core.stats_rows if row.by == "platform" and row.kind == "count"]
    assert len(platform) > 10
    for row in platform:
        watch = Watch(root, VP, 1, 1)
        if f"VPV.{row.symbol}Cost" in POINTS:
            m.count(1, row.index, 2560)
        else:
            m.count_shared(1, row.index)
        assert watch.moved() == {row.symbol: 1}
        if f"VPV.{row.symbol}Cost" in POINTS and row.symbol not in ("MsrAccesses",):
            assert values(root, VP, 1, 1)[f"{row.symbol}Cost"] == 1000


def test_pages_and_views_agree(viewer: Viewer) -> None:
    """The page that a guest reads has the counters that the operator sees, at the indices of appendix J."""
    root = viewer.root
    root.fast(NOTIFY_LONG_SPIN_WAIT)
    page = viewer.map(VP, identity(VP, 1, 0, OWN))
    found = values(root, VP, 1)
    for row in _core.stats_rows:
        if row.group == "VPV" and row.symbol not in ("MsrAccesses",):
            assert page.counter(3, row.index) == found[row.symbol], row.symbol
    assert page.counter(3, 58) == 1


def test_privilege_of_a_child_is_given(root: Root) -> None:
    """TLFS 5.2.3: AccessStatsMsr is a child's by default, AccessStats is not."""
    partition = root.partition()
    mask = root.get_property(partition, PRIVILEGE_FLAGS)
    assert mask >> Privilege.AccessStatsMsr & 1 and not mask >> Privilege.AccessStats & 1
