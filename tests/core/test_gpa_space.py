# SPDX-License-Identifier: GPL-2.0-or-later
"""Chapter 8 of the TLFS: translation through the tree of partitions, overlay pages, and what a map costs."""

from __future__ import annotations

import random
import struct

import pytest
from root import (
    CREATE_PARTITION,
    CREATE_VP,
    DEPOSIT_MEMORY,
    EXECUTE,
    FIRST_PAGE,
    INITIALIZE_PARTITION,
    MAP_GPA_PAGES,
    READ,
    ROOT_ID,
    WRITE,
    Child,
    Root,
)
from simulated_guest import (
    APIC_ASSIST_PAGE,
    GPA_END,
    HYPERCALL_PAGE,
    INPUT,
    PAGE,
    RAM_END,
    REFERENCE_TSC,
    SIEFP,
    SIMP,
    privilege_mask,
    reps,
)

from qemu_hv._core import GeneralProtectionFault, Machine, MachineCheck, Privilege, Status, Translation

ALL = READ | WRITE | EXECUTE
MIB = 1 << 20
BLOCK = 512
"""Pages of a large range (TLFS 8.3.1)."""
LARGE_PAGE = 0x80000000
APIC_PAGE = 0xFEE00
PARENT = privilege_mask(
    Privilege.AccessSynicMsrs,
    Privilege.AccessApicMsrs,
    Privilege.AccessHypercallMsrs,
    Privilege.AccessPartitionId,
    Privilege.AccessPartitionReferenceTsc,
    Privilege.AccessMemoryPool,
    Privilege.CreatePartitions,
)
"""Of a child that makes children, and of one that shows all its overlay pages."""


@pytest.fixture
def root(generation: str) -> Root:
    """A root with 64 MiB."""
    return Root(generation, memory=64 * MIB)


def kind(machine: Machine, vp: int, page: int, access: int = READ) -> Translation:
    """What a page leads to."""
    return machine.translate(vp, page * PAGE, access)[0]


def spa(machine: Machine, vp: int, page: int, access: int = READ) -> int:
    """The SPA's page under a page that is mapped with that right."""
    found, address, _, _ = machine.translate(vp, page * PAGE, access)
    assert found == Translation.RAM
    return address // PAGE


def rights(machine: Machine, vp: int, page: int) -> int:
    """The rights to a page that is mapped."""
    found, _, allowed, _ = machine.translate(vp, page * PAGE, 0)
    assert found == Translation.RAM
    return allowed


class Grandchild:
    """A root, its child that may create partitions, and that one's child, each with one VP.

    The child has 2 MiB from GPA 0 on, its own child 16 pages of these, at GPA 0x100000.
    """

    TOP = 0x100

    def __init__(self, root: Root) -> None:
        self.root = root
        self.outer = root.partition(deposit=256, memory=BLOCK, privileges=PARENT)
        self.child = Child(root, self.outer)
        self.vp = self.child.vp
        assert self.child.status(CREATE_PARTITION, root.create_input()) == Status.SUCCESS
        (self.inner,) = self.child.output("<Q")
        pages = list(range(0x80, 0x80 + 100))
        data = struct.pack(f"<Q{len(pages)}Q", self.inner, *pages)
        assert self.child.status(DEPOSIT_MEMORY | reps(len(pages)), data) == Status.SUCCESS
        assert self.child.fast(INITIALIZE_PARTITION, self.inner) == Status.SUCCESS
        assert self.map(self.TOP, list(range(0x40, 0x50))) == Status.SUCCESS
        assert self.child.status(CREATE_VP, root.create_vp_input(self.inner, 0)) == Status.SUCCESS
        self.inner_vp = root.handle(self.inner, 0)

    def map(self, target: int, sources: list[int], allowed: int = ALL) -> Status:
        """The child maps pages of its own into its child."""
        data = struct.pack(f"<QQII{len(sources)}Q", self.inner, target, allowed, 0, *sources)
        return self.child.status(MAP_GPA_PAGES | reps(len(sources)), data)


# -- The root's space: the identity (TLFS 8.1.1, 22.3) --


def test_root_identity(root: Root) -> None:
    """Every page of the root leads to the SPA with its number, with all rights, also where there is no RAM."""
    for page in (0, 1, 0x1234, RAM_END // PAGE, APIC_PAGE, GPA_END // PAGE - 1):
        assert spa(root.machine, 1, page, ALL) == page
    assert kind(root.machine, 0, GPA_END // PAGE) == Translation.UNMAPPED


def test_root_ranges_are_large(root: Root) -> None:
    """Where nothing is special one translation holds for a large range."""
    _, _, _, size = root.machine.translate(0, 40 * MIB, READ)
    assert size >= 2 * MIB


# -- A child's space --


def test_child_starts_empty(root: Root) -> None:
    """A child has no memory of its own (TLFS 8.1.1)."""
    vp = root.handle(root.partition(), 0)
    for page in (0, 0x1000, GPA_END // PAGE - 1, GPA_END // PAGE):
        assert kind(root.machine, vp, page) == Translation.UNMAPPED
    assert root.machine.translate(vp, 0, READ)[3] >= 2 * MIB


def test_child_translation(root: Root) -> None:
    """A child's page leads to the page that its parent mapped there."""
    partition = root.partition()
    vp = root.handle(partition, 0)
    sources = [0x821, 0x711, 0x712, 0x900]
    assert root.try_map(partition, 0x77777, sources).status == Status.SUCCESS
    for index, source in enumerate(sources):
        assert root.machine.translate(vp, (0x77777 + index) * PAGE + 5, READ) == (
            Translation.RAM,
            source * PAGE,
            ALL,
            PAGE,
        )
    assert kind(root.machine, vp, 0x77776) == Translation.UNMAPPED
    assert kind(root.machine, vp, 0x77777 + 4) == Translation.UNMAPPED


def test_child_memory_is_the_parents(root: Root) -> None:
    """What the child writes the parent reads, and the other way round."""
    partition = root.partition()
    vp = root.handle(partition, 0)
    root.try_map(partition, 5, [0x500, 0x700])
    root.machine.write(5 * PAGE + 0xFFE, b"ABCD", vp)
    assert root.machine.read(0x500FFE, 2) == b"AB"
    assert root.machine.read(0x700000, 2) == b"CD"
    root.machine.write(0x700001, b"!")
    assert root.machine.read(6 * PAGE, 2, vp) == b"C!"


def test_page_mapped_twice_and_into_two_children(root: Root) -> None:
    """A parent makes shared areas (TLFS 8.3.1)."""
    vps = []
    for _ in range(2):
        partition = root.partition()
        assert root.try_map(partition, 0x10, [0x600, 0x600]).status == Status.SUCCESS
        vps.append(root.handle(partition, 0))
    root.machine.write(0x10 * PAGE, b"shared", vps[0])
    assert root.machine.read(0x11 * PAGE, 6, vps[0]) == b"shared"
    assert root.machine.read(0x11 * PAGE, 6, vps[1]) == b"shared"


@pytest.mark.parametrize("allowed", [0, READ, READ | WRITE, READ | EXECUTE, ALL])
def test_rights(root: Root, allowed: int) -> None:
    """An access needs every right that it asks for (TLFS 8.1.2)."""
    partition = root.partition()
    vp = root.handle(partition, 0)
    assert root.try_map(partition, 3, [0x600], allowed).status == Status.SUCCESS
    for access in (READ, WRITE, EXECUTE, READ | WRITE):
        expected = Translation.DENIED if access & ~allowed else Translation.RAM
        assert kind(root.machine, vp, 3, access) == expected


def test_large_range(root: Root) -> None:
    """A large range of 2 MiB is one translation, also when it came in two calls (TLFS 8.3.1)."""
    partition = root.partition()
    vp = root.handle(partition, 0)
    sources = list(range(0x1000, 0x1000 + BLOCK))
    assert root.try_map(partition, 0x40000, sources[:300]).status == Status.SUCCESS
    assert root.machine.translate(vp, 0x40000 * PAGE, READ)[3] == PAGE
    assert root.try_map(partition, 0x40000 + 300, sources[300:]).status == Status.SUCCESS
    for page in (0, 1, 299, 300, 511):
        found = root.machine.translate(vp, (0x40000 + page) * PAGE, READ)
        assert found == (Translation.RAM, (0x1000 + page) * PAGE, ALL, 2 * MIB)


def test_large_range_breaks(root: Root) -> None:
    """A page in the middle of a large range changes alone, and changing it back makes the range large again."""
    partition = root.partition()
    vp = root.handle(partition, 0)
    for first in (0, 256):
        root.try_map(partition, first, list(range(0x1000 + first, 0x1000 + first + 256)))
    assert root.try_map(partition, 77, [0x2000], READ).status == Status.SUCCESS
    assert root.machine.translate(vp, 77 * PAGE, READ) == (Translation.RAM, 0x2000 * PAGE, READ, PAGE)
    for page in (0, 76, 78, 511):
        assert root.machine.translate(vp, page * PAGE, READ) == (Translation.RAM, (0x1000 + page) * PAGE, ALL, PAGE)
    assert root.try_map(partition, 77, [0x1000 + 77]).status == Status.SUCCESS
    assert root.machine.translate(vp, 77 * PAGE, READ)[3] == 2 * MIB


# -- Through several partitions --


def test_grandchild_translation(root: Root) -> None:
    """A grandchild's page is found through its parent's map."""
    g = Grandchild(root)
    for page in range(16):
        assert spa(root.machine, g.inner_vp, g.TOP + page) == spa(root.machine, g.vp, 0x40 + page)
    assert kind(root.machine, g.inner_vp, g.TOP + 16) == Translation.UNMAPPED
    root.machine.write(g.TOP * PAGE, b"deep", g.inner_vp)
    assert root.machine.read(0x40 * PAGE, 4, g.vp) == b"deep"
    # 16 pages are less than the range that is mapped alike in the child.
    assert root.machine.translate(g.inner_vp, g.TOP * PAGE, READ)[3] == PAGE


def test_grandchild_loses_with_its_parent(root: Root) -> None:
    """What is taken from a child, and rights to it, are taken from all its descendants."""
    g = Grandchild(root)
    source = spa(root.machine, g.vp, 0x40)
    for allowed in (READ | EXECUTE, READ, 0):
        root.machine.clear_records()
        assert root.try_map(g.outer, 0x40, [source], allowed).status == Status.SUCCESS
        assert kind(root.machine, g.inner_vp, g.TOP, WRITE) == Translation.DENIED
        assert kind(root.machine, g.inner_vp, g.TOP, READ) == (Translation.RAM if allowed else Translation.DENIED)
        assert root.machine.second_stage_flushes == [(0, [g.vp, g.inner_vp])]
    assert root.try_map(g.outer, 0x40, [source]).status == Status.SUCCESS
    assert rights(root.machine, g.inner_vp, g.TOP) == ALL


def test_grandchild_follows_its_parent(root: Root) -> None:
    """Another page under the child's is another page under the grandchild's, and unmapping it unmaps both."""
    g = Grandchild(root)
    assert root.try_map(g.outer, 0x41, [0x3000]).status == Status.SUCCESS
    assert spa(root.machine, g.inner_vp, g.TOP + 1) == 0x3000
    root.unmap(g.outer, 0x41)
    assert kind(root.machine, g.inner_vp, g.TOP + 1) == Translation.UNMAPPED


def test_child_cannot_hand_on_more_than_it_has(root: Root) -> None:
    """Rights of all maps on the way are needed, though a parent need not have access to what it maps."""
    g = Grandchild(root)
    source = spa(root.machine, g.vp, 0x60)
    root.try_map(g.outer, 0x60, [source], READ)
    assert g.map(0x300, [0x60], ALL) == Status.SUCCESS
    assert rights(root.machine, g.inner_vp, 0x300) == READ


def test_root_lends_what_it_does_not_use(root: Root) -> None:
    """The root need not have access to the pages that it maps into a child (TLFS 8.1.1)."""
    partition = root.partition()
    vp = root.handle(partition, 0)
    assert root.try_map(ROOT_ID, 0x600, [0x600], 0).status == Status.SUCCESS
    assert root.try_map(partition, 0x10, [0x600]).status == Status.SUCCESS
    assert kind(root.machine, 0, 0x600) == Translation.DENIED
    assert rights(root.machine, vp, 0x10) == ALL
    root.machine.write(0x10 * PAGE, b"mine", vp)
    with pytest.raises(MachineCheck):
        root.machine.read(0x600 * PAGE, 4)


# -- Deposited pages (TLFS 7.1.1) --


def test_deposited_page_is_out_of_reach(root: Root) -> None:
    """Of the root too."""
    partition = root.create_partition()
    page = root.deposit(partition, 1)[0]
    root.machine.clear_records()
    for access in (READ, WRITE, EXECUTE):
        assert kind(root.machine, 0, page, access) == Translation.DENIED
    assert spa(root.machine, 0, page + 1) == page + 1
    with pytest.raises(MachineCheck):
        root.machine.read(page * PAGE, 1)


def test_withdrawn_page_comes_back_zeroed(root: Root) -> None:
    """With all rights (TLFS 7.3.2), as part of the large range that it left."""
    partition = root.create_partition()
    (page,) = root.pages(1)
    root.machine.write(page * PAGE, b"secret")
    assert root.try_deposit(partition, [page]).status == Status.SUCCESS
    assert root.withdraw_all(partition) == [page]
    assert root.machine.read(page * PAGE, PAGE) == bytes(PAGE)
    assert rights(root.machine, 0, page) == ALL


def test_page_that_a_child_uses_is_not_deposited(root: Root) -> None:
    """As long as another partition has any right to it (TLFS 7.3.1)."""
    partition = root.partition()
    other = root.create_partition()
    for allowed in (ALL, READ):
        root.try_map(partition, 9, [0x600], allowed)
        assert root.try_deposit(other, [0x600]).status == Status.OPERATION_DENIED
    root.try_map(partition, 9, [0x600], 0)
    assert root.try_deposit(other, [0x600]).status == Status.SUCCESS
    # The mapping is still there, and leads nowhere, whatever its rights.
    vp = root.handle(partition, 0)
    assert kind(root.machine, vp, 9) == Translation.DENIED
    assert root.try_map(partition, 9, [0x600], READ).status == Status.OPERATION_DENIED
    assert root.withdraw_all(other) == [0x600]
    assert root.try_map(partition, 9, [0x600], READ).status == Status.SUCCESS


@pytest.mark.parametrize("how", ["unmap", "remap", "finalize"])
def test_page_that_a_child_used_is_deposited(root: Root, how: str) -> None:
    """Every end of a mapping ends its use, in large ranges and out of them."""
    partition = root.partition(vps=0)
    other = root.create_partition()
    for first in (0, 256):
        root.try_map(partition, first, list(range(0x1000 + first, 0x1000 + first + 256)))
    root.try_map(partition, BLOCK, [0x1000, 0x1001])
    assert root.try_deposit(other, [0x1001]).status == Status.OPERATION_DENIED
    if how == "finalize":
        assert root.finalize(partition) == Status.SUCCESS
    elif how == "unmap":
        root.unmap(partition, BLOCK, 2)
        assert root.try_deposit(other, [0x1001]).status == Status.OPERATION_DENIED
        root.unmap(partition, 1)
    else:
        root.try_map(partition, BLOCK, [0x2000, 0x2001])
        assert root.try_deposit(other, [0x1001]).status == Status.OPERATION_DENIED
        root.try_map(partition, 1, [0x2000])
    assert root.try_deposit(other, [0x1001]).status == Status.SUCCESS
    if how != "finalize":
        assert root.try_deposit(other, [0x1002]).status == Status.OPERATION_DENIED


def test_deposit_needs_all_rights(root: Root) -> None:
    """TLFS 7.3.1; and RAM."""
    partition = root.create_partition()
    root.try_map(ROOT_ID, 0x600, [0x600], READ | WRITE)
    assert root.try_deposit(partition, [0x600]).status == Status.OPERATION_DENIED
    for page in (64 * MIB // PAGE, APIC_PAGE, GPA_END // PAGE, 1 << 60):
        assert root.try_deposit(partition, [page]).status == Status.OPERATION_DENIED
    assert root.try_deposit(partition, [0x601, 0x601]).status == Status.OPERATION_DENIED


def test_child_deposits_into_its_child(root: Root) -> None:
    """The pages leave the child's GPA space, and the root must not change them meanwhile (TLFS 8.3.1, 8.3.2)."""
    g = Grandchild(root)
    deposited = 0x80
    assert kind(root.machine, g.vp, deposited) == Translation.DENIED
    assert root.try_map(g.outer, deposited, [0x3000]).status == Status.OBJECT_IN_USE
    assert root.try_unmap(g.outer, deposited).status == Status.OBJECT_IN_USE
    result = root.try_unmap(g.outer, deposited - 3, 8)
    assert (result.status, result.reps_completed) == (Status.OBJECT_IN_USE, 3)
    assert g.map(0x300, [deposited]) == Status.OPERATION_DENIED


# -- Overlay pages (TLFS 8.1.3) --


def overlay(root: Root, vp: int, msr: int, page: int, *, enable: bool = True) -> None:
    """Place an overlay page."""
    root.machine.wrmsr(vp, msr, page * PAGE | enable)


@pytest.mark.parametrize("msr", [APIC_ASSIST_PAGE, SIMP, SIEFP, REFERENCE_TSC])
def test_overlay_covers_and_uncovers(root: Root, msr: int) -> None:
    """What is under an overlay is out of reach, and comes back when it moves or goes."""
    partition = root.partition(memory=64, privileges=PARENT)
    vp = root.handle(partition, 0)
    root.machine.write(0x30 * PAGE, b"under", vp)
    below = spa(root.machine, vp, 0x30)
    root.machine.clear_records()
    overlay(root, vp, msr, 0x30)
    assert root.machine.second_stage_flushes == [(vp, [vp])]
    assert kind(root.machine, vp, 0x30) == Translation.OVERLAY
    assert root.machine.read(0x30 * PAGE, 5, vp) != b"under"
    root.machine.write(0x30 * PAGE + 0x800, b"over", vp)
    overlay(root, vp, msr, 0x31)
    assert root.machine.read(0x30 * PAGE, 5, vp) == b"under"
    assert root.machine.read(0x31 * PAGE + 0x800, 4, vp) == b"over"
    overlay(root, vp, msr, 0x31, enable=False)
    assert [kind(root.machine, vp, page) for page in (0x30, 0x31)] == [Translation.RAM] * 2
    assert spa(root.machine, vp, 0x30) == below


def test_overlay_where_nothing_is_mapped(root: Root) -> None:
    """An overlay needs nothing under it, and rights to that are not honoured."""
    partition = root.partition()
    vp = root.handle(partition, 0)
    root.try_map(partition, 0x41, [0x600], 0)
    for page in (0x40, 0x41):
        overlay(root, vp, SIMP, page)
        root.machine.write(page * PAGE, b"here", vp)
        assert root.machine.read(page * PAGE, 4, vp) == b"here"


def test_parent_does_not_see_a_childs_overlay(root: Root) -> None:
    """Overlays are in one partition; others that have the page mapped see the RAM."""
    partition = root.partition(memory=64)
    vp = root.handle(partition, 0)
    below = spa(root.machine, vp, 0x30)
    overlay(root, vp, SIMP, 0x30)
    root.machine.write(0x30 * PAGE, b"over", vp)
    assert root.machine.read(below * PAGE, 4) == bytes(4)
    overlay(root, 0, SIMP, below)
    root.machine.write(below * PAGE, b"root")
    overlay(root, vp, SIMP, 0x30, enable=False)
    assert root.machine.read(0x30 * PAGE, 4, vp) == bytes(4)


def test_hypercall_page_is_read_only(root: Root) -> None:
    """A write is #GP (TLFS 4.12), reading and executing are allowed."""
    partition = root.partition(memory=64)
    child = Child(root, partition)
    page = HYPERCALL_PAGE // PAGE
    assert kind(root.machine, child.vp, page, READ | EXECUTE) == Translation.OVERLAY
    assert kind(root.machine, child.vp, page, WRITE) == Translation.FAULT
    with pytest.raises(GeneralProtectionFault):
        root.machine.write(HYPERCALL_PAGE, b"x", child.vp)


def test_stacked_overlays(root: Root) -> None:
    """One of several at a page is seen; when it goes another becomes visible."""
    partition = root.partition()
    vp = root.handle(partition, 0)
    marks = {SIMP: b"SIMP", SIEFP: b"SIEF", APIC_ASSIST_PAGE: b"ASSI"}
    for msr, mark in marks.items():
        overlay(root, vp, msr, 0x40)
        overlay(root, vp, msr, 0x50)
        root.machine.write(0x50 * PAGE + 0x800, mark, vp)
        overlay(root, vp, msr, 0x50, enable=False)
    for msr in marks:
        overlay(root, vp, msr, 0x60)
    left = dict(marks)
    while left:
        top = root.machine.read(0x60 * PAGE + 0x800, 4, vp)
        (msr,) = [msr for msr, mark in left.items() if mark == top]
        overlay(root, vp, msr, 0x60, enable=False)
        del left[msr]
    assert kind(root.machine, vp, 0x60) == Translation.UNMAPPED


def test_overlays_split_large_ranges(root: Root) -> None:
    """A translation never reaches over an overlay's neighbourhood."""
    partition = root.partition(memory=0)
    vp = root.handle(partition, 0)
    for first in (0, 256):
        root.try_map(partition, first, list(range(0x1000 + first, 0x1000 + first + 256)))
    overlay(root, vp, SIMP, 0x91)
    overlay(root, vp, SIEFP, 0x40)
    covered = {0x91, 0x40}
    for page in range(BLOCK):
        found, address, _, size = root.machine.translate(vp, page * PAGE, READ)
        first = page - page % (size // PAGE)
        inside = set(range(first, first + size // PAGE)) & covered
        if page in covered:
            assert (found, size) == (Translation.OVERLAY, PAGE)
        else:
            assert (found, address) == (Translation.RAM, (0x1000 + page) * PAGE)
            assert not inside
    # It is as large as can be.
    assert root.machine.translate(vp, 0x1FF * PAGE, READ)[3] == MIB


def test_many_overlays(root: Root) -> None:
    """Overlays of many VPs, moved about: each is where its register says."""
    vps = 12
    partition = root.partition(vps=vps, deposit=400, memory=0)
    handles = [root.handle(partition, index) for index in range(vps)]
    generator = random.Random(8)
    places: dict[tuple[int, int], int] = {}
    free = list(range(0x100, 0x200))
    for handle in handles:
        for msr in (SIMP, SIEFP, APIC_ASSIST_PAGE):
            place = free.pop()
            overlay(root, handle, msr, place)
            root.machine.write(place * PAGE + 0x800, struct.pack("<II", handle, msr), handle)
            places[handle, msr] = place
    for _ in range(300):
        handle, msr = generator.choice(sorted(places))
        place = free.pop(generator.randrange(len(free)))
        free.append(places[handle, msr])
        overlay(root, handle, msr, place)
        places[handle, msr] = place
    for (handle, msr), place in places.items():
        assert root.machine.read(place * PAGE + 0x800, 8, handles[0]) == struct.pack("<II", handle, msr)
    for place in free:
        assert kind(root.machine, handles[0], place) == Translation.UNMAPPED


def test_overlay_of_a_deleted_vp_goes(root: Root) -> None:
    """With the VP (TLFS 10.4.2)."""
    partition = root.partition(vps=2)
    first, second = (root.handle(partition, index) for index in range(2))
    overlay(root, second, SIMP, 0x40)
    assert kind(root.machine, first, 0x40) == Translation.OVERLAY
    assert root.delete_vp(partition, 1) == Status.SUCCESS
    assert kind(root.machine, first, 0x40) == Translation.UNMAPPED


def test_overlays_end_with_reset(root: Root) -> None:
    """A reset of the machine hides all overlays and all children are gone."""
    overlay(root, 0, SIMP, 0x600)
    assert kind(root.machine, 0, 0x600) == Translation.OVERLAY
    root.machine.reset()
    assert spa(root.machine, 0, 0x600) == 0x600
    assert kind(root.machine, 0, HYPERCALL_PAGE // PAGE) == Translation.RAM


def test_apic_page(root: Root) -> None:
    """A child's local APIC lies at its base register's address, per VP, on top of everything (TLFS 8.1.3)."""
    partition = root.partition(vps=2)
    first, second = (root.handle(partition, index) for index in range(2))
    for vp in (first, second):
        assert root.machine.translate(vp, APIC_PAGE * PAGE, READ) == (Translation.APIC, 0, READ | WRITE, PAGE)
    overlay(root, first, SIMP, APIC_PAGE)
    assert kind(root.machine, first, APIC_PAGE) == Translation.APIC
    assert kind(root.machine, first, APIC_PAGE, EXECUTE) == Translation.DENIED
    assert kind(root.machine, 0, APIC_PAGE) == Translation.RAM
    assert kind(root.machine, first, APIC_PAGE + 1) == Translation.UNMAPPED


# -- Parameters of a child's hypercalls --


def test_childs_parameters_go_through_its_map(root: Root) -> None:
    """Input and output of a child's call are at its own GPAs (TLFS 4.6)."""
    child = Child(root, root.partition(memory=64, privileges=PARENT))
    assert child.status(0x0046) == Status.SUCCESS
    assert child.output("<Q") == (child.partition,)


def test_child_reads_its_input_from_an_overlay(root: Root) -> None:
    """The hypervisor may access overlay pages as parameters; it does (TLFS 4.6)."""
    child = Child(root, root.partition(memory=64))
    overlay(root, child.vp, SIMP, INPUT // PAGE)
    data = struct.pack("<QQQ", 0x1000, 0, 1)
    assert child.status(0x0002, data) == Status.SUCCESS


# -- What a map costs --


def cost(root: Root, *partitions: int) -> int:
    """Bytes of the host's memory that maps cost."""
    return sum(root.machine.gpa_space(partition)[0] for partition in partitions)


def test_terabyte_in_large_ranges() -> None:
    """A child with 1 TiB in 2 MiB ranges costs less than 64 MiB, what counts its uses of the root's pages included."""
    root = Root("current", memory=1 << 41, gpa_bits=42)
    partition = root.partition(deposit=4000)
    before = cost(root, partition, ROOT_ID)
    blocks = (1 << 40) // (2 * MIB)
    first_source = (1 << 40) // PAGE
    for first in range(0, blocks, 500):
        sources = [first_source + (first + i) * BLOCK for i in range(min(500, blocks - first))]
        result = root.try_map(partition, first * BLOCK, sources, ALL | LARGE_PAGE)
        assert result.status == Status.SUCCESS
    assert root.machine.gpa_space(partition)[1] == (1 << 40) // PAGE
    assert cost(root, partition, ROOT_ID) - before < 16 * MIB < 64 * MIB
    vp = root.handle(partition, 0)
    assert root.machine.translate(vp, (1 << 40) - 1, READ) == (
        Translation.RAM,
        (1 << 41) - PAGE,
        ALL,
        2 * MIB,
    )


@pytest.mark.parametrize("name", ["2008r2", "current"])
def test_large_ranges_by_small_calls_are_compact(name: str) -> None:
    """The same in calls that hold less than a range: nothing is left of the pages' own entries and counts."""
    root = Root(name, memory=1 << 33, gpa_bits=40)
    partition = root.partition(deposit=200)
    before = cost(root, partition, ROOT_ID)
    source = 0x100000
    for first in range(0, 128 * BLOCK, 256):
        result = root.try_map(partition, first, list(range(source + first, source + first + 256)))
        assert result.status == Status.SUCCESS
    assert root.machine.gpa_space(partition)[1] == 128 * BLOCK
    assert cost(root, partition, ROOT_ID) - before < 100_000
    assert root.machine.translate(root.handle(partition, 0), 0, READ)[3] == 2 * MIB


def test_scattered_pages() -> None:
    """A child with 4 GiB of scattered pages costs less than 40 MiB."""
    root = Root("current", memory=1 << 34, gpa_bits=40)
    partition = root.partition(deposit=3000)
    before = cost(root, partition, ROOT_ID)
    pages = (1 << 32) // PAGE
    # Each once, no two that follow each other.
    sources = [0x100000 + (i * 7919) % pages * 2 for i in range(pages)]
    for first in range(0, pages, 500):
        assert root.try_map(partition, first, sources[first : first + 500]).status == Status.SUCCESS
    assert root.machine.gpa_space(partition)[1] == pages
    assert cost(root, partition, ROOT_ID) - before < 40 * MIB
    vp = root.handle(partition, 0)
    for page in random.Random(4).sample(range(pages), 100):
        assert spa(root.machine, vp, page) == sources[page]


def test_map_pages_are_charged(root: Root) -> None:
    """Tables come out of the target's pool and go back to it (TLFS 7.1.1)."""
    partition = root.partition()
    before = root.balance(partition)
    for i in range(4):
        root.try_map(partition, 0x40000 * i, [0x600])
    held = root.balance(partition)
    assert held.in_use > before.in_use
    assert held.available + held.in_use == before.available + before.in_use
    for i in range(4):
        root.unmap(partition, 0x40000 * i)
    assert root.balance(partition) == before


def test_map_without_memory(root: Root) -> None:
    """A pool that is short: pages before are mapped, the call goes on after a deposit."""
    partition = root.partition(vps=0)
    while root.try_withdraw(partition, 1)[0].status == Status.SUCCESS:
        pass
    result = root.try_map(partition, 0, [0x600, 0x601])
    assert (result.status, result.reps_completed) == (Status.INSUFFICIENT_MEMORY, 0)
    balance = root.balance(partition)
    assert balance.available == 0
    while result.status == Status.INSUFFICIENT_MEMORY:
        root.deposit(partition, 1)
        result = root.try_map(partition, 0, [0x600, 0x601])
    assert result.status == Status.SUCCESS
    assert root.machine.gpa_space(partition)[1] == 2


def test_partition_takes_its_map_along(root: Root) -> None:
    """Destroying a partition gives back all that its map cost, and its uses of the parent's pages end."""
    before = cost(root, ROOT_ID)
    for _ in range(3):
        partition = root.partition(vps=0, memory=700)
        pages = root.destroy(partition)
        assert len(pages) == 128
    assert cost(root, ROOT_ID) - before < 100_000
    assert root.try_deposit(root.create_partition(), [FIRST_PAGE + 500]).status == Status.SUCCESS
