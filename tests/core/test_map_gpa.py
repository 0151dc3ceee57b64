# SPDX-License-Identifier: GPL-2.0-or-later
"""TLFS 8.3: HvMapGpaPages, HvMapSparseGpaPages, HvUnmapGpaPages."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from root import EXECUTE, MAP_GPA_PAGES, READ, ROOT_ID, UNMAP_GPA_PAGES, WRITE, Child, Root
from simulated_guest import GPA_END, PAGE, SELF, reps

from qemu_hv._core import Exit, HypercallResult, Status, Translation

MAP_SPARSE_GPA_PAGES = 0x006E
ALL = READ | WRITE | EXECUTE
MIB = 1 << 20
BLOCK = 512
END = GPA_END // PAGE
RAM_PAGES = 64 * MIB // PAGE
ID_NOBODY_HAS = 0x1234

# Flags that came after 2.0a.
KERNEL_AND_USER_EXECUTE = 0xC
ADJUSTABLE = 0x8000
NO_ACCESS = 0x10000
NOT_CACHED = 0x200000
LARGE_PAGE = 0x80000000
UNMAP_LARGE_PAGE = 2


@pytest.fixture
def root(generation: str) -> Root:
    """A root with 64 MiB and two VPs."""
    return Root(generation, memory=64 * MIB)


@pytest.fixture
def current() -> Root:
    """The same in today's generation."""
    return Root("current", memory=64 * MIB)


def try_map_sparse(
    root: Root, partition: int, pairs: list[tuple[int, int]], flags: int = ALL, *, vp: int = 0
) -> HypercallResult:
    """HvMapSparseGpaPages of one list of pairs of target and source."""
    head = struct.pack("<QII", partition, flags, 0xDEAD if root.current else 0)
    data = head + b"".join(struct.pack("<QQ", *pair) for pair in pairs)
    return root.call(MAP_SPARSE_GPA_PAGES | reps(len(pairs)), data, vp=vp)


def mapped(root: Root, vp: int, page: int) -> tuple[int, int] | None:
    """Source page and rights of a page; None where nothing is mapped."""
    kind, spa, rights, _ = root.machine.translate(vp, page * PAGE, 0)
    return None if kind == Translation.UNMAPPED else (spa // PAGE, rights)


def kind(root: Root, vp: int, page: int, access: int = READ) -> Translation:
    """What a page leads to."""
    return root.machine.translate(vp, page * PAGE, access)[0]


# -- Who may call, about whom --


def test_unknown_partition(root: Root) -> None:
    """TLFS 8.3.1 to 8.3.3."""
    assert root.try_map(ID_NOBODY_HAS, 0, [0x600]).status == Status.INVALID_PARTITION_ID
    assert try_map_sparse(root, ID_NOBODY_HAS, [(0, 0x600)]).status == Status.INVALID_PARTITION_ID
    assert root.try_unmap(ID_NOBODY_HAS, 0).status == Status.INVALID_PARTITION_ID


def test_only_the_parent(root: Root) -> None:
    """A child may not change its own map, nor its parent's, nor its sibling's."""
    partition, sibling = root.partition(memory=64), root.partition()
    child = Child(root, partition)
    for target in (SELF, partition, sibling, ROOT_ID):
        data = struct.pack("<QQIIQ", target, 0, ALL, 0, 1)
        assert child.status(MAP_GPA_PAGES | reps(1), data) == Status.ACCESS_DENIED
        data = struct.pack("<QIIQQ", target, ALL, 0, 1, 1)
        assert child.status(MAP_SPARSE_GPA_PAGES | reps(1), data) == Status.ACCESS_DENIED
        data = struct.pack("<QQQ", target, 0, 0)
        assert child.status(UNMAP_GPA_PAGES | reps(1), data) == Status.ACCESS_DENIED


def test_root_may_not_unmap_its_own(root: Root) -> None:
    """TLFS 8.3.2."""
    for target in (SELF, ROOT_ID):
        assert root.try_unmap(target, 0x600).status == Status.ACCESS_DENIED
    assert kind(root, 0, 0x600) == Translation.RAM


def test_partition_must_be_active(root: Root) -> None:
    """Neither before HvInitializePartition nor after HvFinalizePartition; state comes before parameters."""
    partition = root.create_partition()
    calls: tuple[Callable[[], HypercallResult], ...] = (
        lambda: root.try_map(partition, END, [0x600], 0x40),
        lambda: try_map_sparse(root, partition, [(END, 0x600)], 0x40),
        lambda: root.try_unmap(partition, END),
    )
    for call in calls:
        assert call().status == Status.INVALID_PARTITION_STATE
    root.deposit(partition, 64)
    root.initialize(partition)
    for call in calls:
        assert call().status == Status.INVALID_PARAMETER
    root.finalize(partition)
    for call in calls[:2]:
        assert call().status == Status.INVALID_PARTITION_STATE
    # Deployed parents unmap a child's memory when they have finalized it, and nothing is mapped any more.
    expected = Status.SUCCESS if root.current else Status.INVALID_PARTITION_STATE
    result = root.try_unmap(partition, 0, 7)
    assert (result.status, result.reps_completed) == (expected, 7 if root.current else 0)


# -- Flags --


@pytest.mark.parametrize("flags", range(8))
def test_combinations_of_rights(root: Root, flags: int) -> None:
    """Nothing may be written or executed that may not be read (TLFS 8.1.2)."""
    partition = root.partition()
    legal = flags == 0 or flags & READ
    expected = Status.SUCCESS if legal else Status.INVALID_PARAMETER
    assert root.try_map(partition, 0, [0x600], flags).status == expected
    assert try_map_sparse(root, partition, [(1, 0x600)], flags).status == expected


@pytest.mark.parametrize("bit", range(32))
def test_flag_bits(root: Root, bit: int) -> None:
    """Reserved bits are refused; which ones are depends on the generation (TLFS 8.2.1)."""
    partition = root.partition()
    known = 0x7 if not root.current else 0xF | ADJUSTABLE | NOT_CACHED | LARGE_PAGE
    flags = READ | 1 << bit
    expected = Status.SUCCESS if flags & ~known == 0 else Status.INVALID_PARAMETER
    assert root.try_map(partition, 0, [0x600], flags).status == expected
    assert try_map_sparse(root, partition, [(BLOCK, 0x600)], flags).status == expected


def test_both_rights_to_execute_are_one(current: Root) -> None:
    """Kernel and user execute cannot be told apart."""
    partition = current.partition()
    vp = current.handle(partition, 0)
    for page, flags in enumerate((READ | 4, READ | 8, READ | KERNEL_AND_USER_EXECUTE)):
        assert current.try_map(partition, page, [0x600], flags).status == Status.SUCCESS
        assert mapped(current, vp, page) == (0x600, READ | EXECUTE)
    assert current.try_map(partition, 0, [0x600], 8).status == Status.INVALID_PARAMETER


def test_no_access(current: Root) -> None:
    """A page without access needs no source, and an access to it is not one to an unmapped page (lazy memory)."""
    partition = current.partition()
    vp = current.handle(partition, 0)
    assert current.try_map(partition, 0x30, [0, ADJUSTABLE, END, 1 << 60], NO_ACCESS).status == Status.SUCCESS
    for page in range(0x30, 0x34):
        assert kind(current, vp, page) == Translation.DENIED
    assert kind(current, vp, 0x34) == Translation.UNMAPPED
    assert current.try_map(partition, 0x30, [0], NO_ACCESS | READ).status == Status.INVALID_PARAMETER
    assert current.machine.gpa_space(partition)[1] == 0
    # The source is no use of the parent's page 0.
    assert current.try_map(partition, 0x31, [0x700]).status == Status.SUCCESS
    assert mapped(current, vp, 0x31) == (0x700, ALL)
    assert current.try_map(partition, 0x31, [0], NO_ACCESS).status == Status.SUCCESS
    assert kind(current, vp, 0x31) == Translation.DENIED


def test_large_memory_without_access_is_cheap(current: Root) -> None:
    """A parent that maps lazily starts with all of a child's memory inaccessible."""
    partition = current.partition()
    before = current.balance(partition).in_use
    for first in range(0, 64 * BLOCK, 256):
        assert current.try_map(partition, first, [0] * 256, NO_ACCESS).status == Status.SUCCESS
    assert current.balance(partition).in_use - before < 4


def test_large_page_elements(current: Root) -> None:
    """An element is 2 MiB, aligned on both sides."""
    partition = current.partition()
    vp = current.handle(partition, 0)
    sources = [0x1000, 0x3000, 0x2000]
    assert current.try_map(partition, 0x400, sources, ALL | LARGE_PAGE).status == Status.SUCCESS
    for i, source in enumerate(sources):
        found = current.machine.translate(vp, (0x400 + BLOCK * i + 17) * PAGE, READ)
        assert found == (Translation.RAM, (source + 17) * PAGE, ALL, 2 * MIB)
    for target, source in ((0x401, 0x1000), (0x400, 0x1001)):
        assert current.try_map(partition, target, [source], ALL | LARGE_PAGE).status == Status.INVALID_PARAMETER
        pair = [(target, source)]
        assert try_map_sparse(current, partition, pair, ALL | LARGE_PAGE).status == Status.INVALID_PARAMETER
    # The end of RAM is inside the range.
    current.machine.unmap(0x3100 * PAGE)
    assert current.try_map(partition, 0, [0x3000], ALL | LARGE_PAGE).status == Status.OPERATION_DENIED
    assert mapped(current, vp, 0) is None


def test_unmap_large_pages(current: Root) -> None:
    """So is what is unmapped with its flag; other flags are refused."""
    partition = current.partition()
    vp = current.handle(partition, 0)
    current.try_map(partition, 0, [0x1000, 0x1200, 0x1400], ALL | LARGE_PAGE)
    result = current.try_unmap(partition, 0x200, 2, UNMAP_LARGE_PAGE)
    assert (result.status, result.reps_completed) == (Status.SUCCESS, 2)
    assert mapped(current, vp, 0x1FF) == (0x11FF, ALL)
    assert mapped(current, vp, 0x200) is None
    assert mapped(current, vp, 0x5FF) is None
    assert current.try_unmap(partition, 1, 1, UNMAP_LARGE_PAGE).status == Status.INVALID_PARAMETER
    for flags in (1, 4, 0x80000002):
        assert current.try_unmap(partition, 0, 1, flags).status == Status.INVALID_PARAMETER


# -- Pages --


def test_target_beyond_the_space(root: Root) -> None:
    """Pages before the end are done; the rep count says how many."""
    partition = root.partition()
    vp = root.handle(partition, 0)
    result = root.try_map(partition, END - 2, [0x600, 0x601, 0x602])
    assert (result.status, result.reps_completed) == (Status.INVALID_PARAMETER, 2)
    assert mapped(root, vp, END - 1) == (0x601, ALL)
    for page in (END, 1 << 52, (1 << 64) - 1):
        assert root.try_map(partition, page, [0x600]).status == Status.INVALID_PARAMETER
        assert try_map_sparse(root, partition, [(page, 0x600)]).status == Status.INVALID_PARAMETER
        assert root.try_unmap(partition, page).status == Status.INVALID_PARAMETER
    result = root.try_unmap(partition, END - 2, 3)
    assert (result.status, result.reps_completed) == (Status.INVALID_PARAMETER, 2)
    assert mapped(root, vp, END - 1) is None


def test_source_beyond_the_space(root: Root) -> None:
    """INVALID_PARAMETER; where there is just no RAM it is OPERATION_DENIED."""
    partition = root.partition()
    for page in (END, 1 << 60, (1 << 64) - 1):
        assert root.try_map(partition, 0, [page]).status == Status.INVALID_PARAMETER
    result = root.try_map(partition, 0, [RAM_PAGES - 1, RAM_PAGES, RAM_PAGES - 2])
    assert (result.status, result.reps_completed) == (Status.OPERATION_DENIED, 1)
    assert root.try_map(partition, 0, [END - 1]).status == Status.OPERATION_DENIED


def test_source_that_is_no_ram(root: Root) -> None:
    """A hole in the RAM, inside a run, and memory that cannot be written."""
    partition = root.partition()
    vp = root.handle(partition, 0)
    root.machine.unmap(0x605 * PAGE)
    root.machine.map(0x608 * PAGE, writable=False)
    result = root.try_map(partition, 0, list(range(0x600, 0x610)))
    assert (result.status, result.reps_completed) == (Status.OPERATION_DENIED, 5)
    result = root.try_map(partition, 6, list(range(0x606, 0x610)))
    assert (result.status, result.reps_completed) == (Status.OPERATION_DENIED, 2)
    assert [mapped(root, vp, page) is not None for page in range(10)] == [True] * 5 + [False] + [True] * 2 + [False] * 2


def test_deposited_source(root: Root) -> None:
    """Is out of reach until it is withdrawn."""
    partition = root.partition()
    page = root.deposit(partition, 3)[1]
    result = root.try_map(partition, 0, [page - 2, page, page])
    assert result.status == Status.OPERATION_DENIED


def test_mapping_supersedes(root: Root) -> None:
    """Page and rights of a new mapping replace those of the old one."""
    partition = root.partition()
    vp = root.handle(partition, 0)
    for source, rights in ((0x600, READ), (0x700, ALL), (0x700, 0), (0x600, READ | WRITE)):
        assert root.try_map(partition, 3, [source], rights).status == Status.SUCCESS
        assert mapped(root, vp, 3) == (source, rights)
    assert root.machine.gpa_space(partition)[1] == 1


def test_unmapping_what_is_not_mapped(root: Root) -> None:
    """Is ignored (TLFS 8.3.2)."""
    partition = root.partition()
    vp = root.handle(partition, 0)
    root.try_map(partition, 0x10, [0x600])
    result = root.try_unmap(partition, 0, 4095)
    assert (result.status, result.reps_completed) == (Status.SUCCESS, 4095)
    assert mapped(root, vp, 0x10) is None


def test_sparse_lists(root: Root) -> None:
    """Pairs in any order, runs among them; the last for a target wins."""
    partition = root.partition()
    vp = root.handle(partition, 0)
    pairs = [
        (0x900, 0x600),
        (0x901, 0x601),
        (5, 0x700),
        (0x901, 0x602),
        (END - 1, 0x600),
        (0x1FF, 0x640),
        (0x200, 0x641),
    ]
    result = try_map_sparse(root, partition, pairs, READ | WRITE)
    assert (result.status, result.reps_completed) == (Status.SUCCESS, len(pairs))
    expected = dict(pairs)
    assert {page: mapped(root, vp, page) for page in expected} == {
        page: (source, READ | WRITE) for page, source in expected.items()
    }
    result = try_map_sparse(root, partition, [(7, 0x600), (8, RAM_PAGES), (9, 0x600)])
    assert (result.status, result.reps_completed) == (Status.OPERATION_DENIED, 1)


def test_start_index(root: Root) -> None:
    """A call that starts in the middle leaves what is before alone (TLFS 4.3)."""
    partition = root.partition()
    vp = root.handle(partition, 0)
    data = struct.pack("<QQII4Q", partition, 0x20, ALL, 0, *range(0x600, 0x604))
    result = root.call(MAP_GPA_PAGES | reps(4, 2), data)
    assert (result.status, result.reps_completed) == (Status.SUCCESS, 4)
    assert [mapped(root, vp, 0x20 + i) for i in range(4)] == [None, None, (0x602, ALL), (0x603, ALL)]
    data = struct.pack("<QQQ", partition, 0x20, 0)
    assert root.call(UNMAP_GPA_PAGES | reps(4, 3), data).status == Status.SUCCESS
    assert [mapped(root, vp, 0x20 + i) for i in range(4)] == [None, None, (0x602, ALL), None]


def test_long_lists_go_on(root: Root) -> None:
    """A list of pages that do not follow each other is done in pieces, each of which makes progress (TLFS 4.3)."""
    partition = root.partition()
    vp = root.handle(partition, 0)
    sources = [0x1000 + 2 * i for i in range(500)]
    result = root.try_map(partition, 0, sources)
    assert (result.status, result.reps_completed) == (Status.SUCCESS, 500)
    assert result.retries > 0
    assert [mapped(root, vp, i) for i in range(500)] == [(source, ALL) for source in sources]
    result = root.try_map(partition, 0x200, list(range(0x1000, 0x1000 + 500)))
    assert result.retries == 0


# -- The root and its own pages --


def test_root_changes_its_own_rights(root: Root) -> None:
    """And takes them back (TLFS 8.3.1)."""
    calls: tuple[Callable[[int], HypercallResult], ...] = (
        lambda rights: root.try_map(SELF, 0x600, [0x600, 0x601], rights),
        lambda rights: root.try_map(ROOT_ID, 0x600, [0x600, 0x601], rights),
        lambda rights: try_map_sparse(root, SELF, [(0x600, 0x600), (0x601, 0x601)], rights),
    )
    for call in calls:
        for rights, flushes in ((READ, [(0, [0, 1])]), (0, [(0, [0, 1])]), (READ | EXECUTE, []), (ALL, [])):
            root.machine.clear_records()
            assert call(rights).status == Status.SUCCESS
            assert mapped(root, 1, 0x600) == (0x600, rights)
            assert mapped(root, 1, 0x602) == (0x602, ALL)
            assert root.machine.second_stage_flushes == flushes
    assert root.machine.translate(0, 0x600 * PAGE, 0)[3] >= 2 * MIB


def test_root_cannot_move_its_pages(root: Root) -> None:
    """Its map stays the identity: other sources, or a list that does not follow itself, are refused."""
    assert root.try_map(SELF, 0x600, [0x601], READ).status == Status.ACCESS_DENIED
    result = root.try_map(SELF, 0x600, [0x600, 0x602], READ)
    assert (result.status, result.reps_completed) == (Status.ACCESS_DENIED, 1)
    assert try_map_sparse(root, SELF, [(0x600, 0x700)]).status == Status.ACCESS_DENIED
    assert mapped(root, 0, 0x601) == (0x601, ALL)


def test_root_cannot_change_what_is_not_its_own(root: Root) -> None:
    """Deposited pages are inaccessible, and what is no RAM is not mapped."""
    page = root.deposit(root.create_partition(), 1)[0]
    assert root.try_map(SELF, page, [page]).status == Status.ACCESS_DENIED
    assert root.try_map(SELF, RAM_PAGES, [RAM_PAGES], READ).status == Status.OPERATION_DENIED
    assert root.try_map(SELF, END, [END], READ).status == Status.INVALID_PARAMETER
    assert kind(root, 0, page) == Translation.DENIED


def test_roots_hypercall_page_without_rights(root: Root) -> None:
    """A parameter page that the root may not read is #MC (TLFS 11.8), with nothing done."""
    partition = root.partition()
    root.machine.write(0x700 * PAGE, struct.pack("<QQIIQ", partition, 0, ALL, 0, 0x600))
    root.try_map(SELF, 0x700, [0x700], 0)
    result = root.machine.call(0, MAP_GPA_PAGES | reps(1), 0x700 * PAGE)
    assert result.exit == Exit.MC
    assert mapped(root, root.handle(partition, 0), 0) is None


# -- Flushes --


def test_flush_only_when_something_went(root: Root) -> None:
    """VPs of the target and of its descendants forget what they lost, once for a call; new pages cost nothing."""
    partition = root.partition(vps=2)
    vps = [root.handle(partition, index) for index in range(2)]

    def flushes(rights: int, sources: list[int]) -> list[tuple[int, list[int]]]:
        root.machine.clear_records()
        assert root.try_map(partition, 0, sources, rights, vp=1).status == Status.SUCCESS
        return root.machine.second_stage_flushes

    all_of_them = [(1, vps)]
    assert flushes(READ, [0x600, 0x601]) == []
    assert flushes(READ | WRITE, [0x600, 0x601]) == []
    assert flushes(ALL, [0x600, 0x601, 0x602]) == []
    assert flushes(ALL, [0x600, 0x601]) == []
    assert flushes(READ | EXECUTE, [0x600, 0x601]) == all_of_them
    assert flushes(READ | EXECUTE, [0x600, 0x700]) == all_of_them
    assert flushes(0, [0x600, 0x700]) == all_of_them
    assert flushes(ALL, [0x610, 0x700]) == []
    root.machine.clear_records()
    root.unmap(partition, 0, 3)
    assert root.machine.second_stage_flushes == [(0, vps)]
    root.machine.clear_records()
    root.unmap(partition, 0, 3)
    assert root.machine.second_stage_flushes == []


def test_flush_when_a_large_range_changes(root: Root) -> None:
    """Breaking it loses nothing but the page that changes; replacing it loses all of it."""
    partition = root.partition()
    vp = root.handle(partition, 0)
    for first in (0, 256):
        root.try_map(partition, first, list(range(0x1000 + first, 0x1000 + first + 256)))
    root.machine.clear_records()
    root.try_map(partition, 5, [0x1005])
    assert root.machine.second_stage_flushes == []
    root.unmap(partition, 5)
    assert root.machine.second_stage_flushes == [(0, [vp])]


def test_failure_flushes_what_was_done(root: Root) -> None:
    """Also when the call fails further on."""
    partition = root.partition()
    root.try_map(partition, 0, [0x600])
    root.machine.clear_records()
    assert root.try_map(partition, 0, [0x700, RAM_PAGES]).status == Status.OPERATION_DENIED
    assert len(root.machine.second_stage_flushes) == 1


# -- What the operator's policy allows --


def limited(root: Root, limit: int, **options: int) -> int:
    """An active child that may have so many pages mapped."""
    root.machine.set_admission(0, page_limit=limit)
    partition = root.partition(**options)
    root.machine.set_admission(0)
    return partition


def outcome(result: HypercallResult) -> tuple[Status | None, int]:
    """Status and elements done."""
    return result.status, result.reps_completed


def test_limit_of_mapped_pages(root: Root) -> None:
    """What is over it is refused as all that the policy denies, and what comes before it is done (TLFS 4.3)."""
    partition = limited(root, 10)
    vp = root.handle(partition, 0)
    result = root.try_map(partition, 0x1F8, list(range(0x600, 0x610)))
    assert outcome(result) == (Status.NO_RESOURCES, 10)
    assert mapped(root, vp, 0x201) == (0x609, ALL)
    assert mapped(root, vp, 0x202) is None
    assert outcome(root.try_map(partition, 0x202, [0x60A])) == (Status.NO_RESOURCES, 0)
    assert outcome(try_map_sparse(root, partition, [(0x1FF, 0x700), (5, 0x600)])) == (Status.NO_RESOURCES, 1)
    root.unmap(partition, 0x1FF)
    assert outcome(try_map_sparse(root, partition, [(5, 0x600), (0x1FF, 0x700)])) == (Status.NO_RESOURCES, 1)
    assert root.machine.gpa_space(partition)[1] == 10
    assert outcome(root.try_map(root.partition(), 0, list(range(0x600, 0x610)))) == (Status.SUCCESS, 16)


def test_limit_spares_what_is_mapped(root: Root) -> None:
    """New rights or other pages for what is mapped already are no more pages, among new ones too."""
    partition = limited(root, 8, memory=6)
    result = root.try_map(partition, 0, list(range(0x600, 0x610)), READ)
    assert outcome(result) == (Status.NO_RESOURCES, 8)
    assert outcome(root.try_map(partition, 0, list(range(0x700, 0x708)))) == (Status.SUCCESS, 8)
    assert outcome(root.try_map(partition, 4, list(range(0x704, 0x70A)))) == (Status.NO_RESOURCES, 4)


def test_limit_comes_after_what_is_wrong(root: Root) -> None:
    """Of an element that is over the limit and wrong, the latter is told; of two elements, what the first has."""
    partition = limited(root, 2)
    assert outcome(root.try_map(partition, 0, [0x600, 0x601, END])) == (Status.INVALID_PARAMETER, 2)
    assert outcome(root.try_map(partition, 0, [0x600, 0x601, 0x602, END])) == (Status.NO_RESOURCES, 2)


def test_no_page_at_all(root: Root) -> None:
    """A limit of none; unmapping and the partition's end need no page."""
    partition = limited(root, 0)
    assert outcome(root.try_map(partition, 0, [0x600])) == (Status.NO_RESOURCES, 0)
    assert outcome(root.try_unmap(partition, 0, 3)) == (Status.SUCCESS, 3)
    root.destroy(partition)


def test_limit_and_large_ranges(current: Root) -> None:
    """A large page is mapped as a whole or not; one that is there may be superseded, and parts of it."""
    partition = limited(current, 3 * BLOCK)
    sources = [0x1000 + n * BLOCK for n in range(4)]
    assert outcome(current.try_map(partition, 0, sources, ALL | LARGE_PAGE)) == (Status.NO_RESOURCES, 3)
    assert outcome(current.try_map(partition, 0, sources[1:], ALL | LARGE_PAGE)) == (Status.SUCCESS, 3)
    assert outcome(current.try_map(partition, 7, list(range(0x1000, 0x1100)))) == (Status.SUCCESS, 256)
    current.unmap(partition, 0x10)
    assert outcome(current.try_map(partition, 3 * BLOCK, sources[:1], ALL | LARGE_PAGE)) == (Status.NO_RESOURCES, 0)
    assert outcome(current.try_map(partition, 0, sources[:1], ALL | LARGE_PAGE)) == (Status.SUCCESS, 1)


def test_inaccessible_pages_are_not_counted(current: Root) -> None:
    """No page is behind them: they free what they supersede."""
    partition = limited(current, 4, memory=4)
    assert outcome(current.try_map(partition, 0, [0] * 16, NO_ACCESS)) == (Status.SUCCESS, 16)
    assert current.machine.gpa_space(partition)[1] == 0
    assert outcome(current.try_map(partition, 0, list(range(0x600, 0x605)))) == (Status.NO_RESOURCES, 4)


def test_long_lists_at_the_limit_go_on(current: Root) -> None:
    """Looking which pages are mapped already is work too: the call comes back in pieces and ends (TLFS 4.3)."""
    partition = limited(current, 8 * BLOCK, deposit=200)
    for block in range(8):
        for half in (0, 256):
            sources = [0x1000 + 2 * i for i in range(half, half + 256)]
            assert outcome(current.try_map(partition, block * BLOCK + half, sources)) == (Status.SUCCESS, 256)
    result = current.try_map(partition, 0, [0x1000 + n * BLOCK for n in range(9)], READ | LARGE_PAGE)
    assert outcome(result) == (Status.NO_RESOURCES, 8)
    assert result.retries >= 7


def test_limit_is_saved(root: Root) -> None:
    """A restored partition has its limit."""
    partition = limited(root, 3, memory=2)
    root.machine.restore(root.machine.save())
    assert root.machine.partitions()[1]["page_limit"] == 3
    assert outcome(root.try_map(partition, 2, [0x600, 0x601])) == (Status.NO_RESOURCES, 1)


# -- A model --


TARGETS = st.one_of(
    st.integers(0, 3 * BLOCK),
    st.sampled_from([0, BLOCK, 2 * BLOCK, BLOCK - 1, 0x40000, 0x40000 - 3, END - 8]),
)
COUNTS = st.one_of(st.integers(1, 8), st.sampled_from([100, 256, 400]))
SOURCES = st.one_of(st.integers(0x2000, 0x3000), st.sampled_from([0x2000, 0x2200, 0x2400]))
RIGHTS = st.sampled_from([0, READ, READ | WRITE, ALL])


class MapModel(RuleBasedStateMachine):
    """The map of a child against a dict, with runs, large ranges, flushes and the pool's balance."""

    generation = "current"
    limit: int | None = None

    @initialize()
    def make(self) -> None:
        """A child with a large pool, and nothing mapped."""
        self.root = Root(self.generation, memory=64 * MIB)
        self.root.machine.set_admission(0, page_limit=self.limit)
        self.partition = self.root.partition(deposit=400)
        self.root.machine.set_admission(0)
        self.other = self.root.create_partition()
        self.vp = self.root.handle(self.partition, 0)
        self.free = self.root.balance(self.partition).available
        self.model: dict[int, tuple[int, int]] = {}

    def allowed(self, pages: list[int]) -> int:
        """How many of these pages can be mapped, one after the other."""
        there = set(self.model)
        for count, page in enumerate(pages):
            if self.limit is not None and page not in there and len(there) >= self.limit:
                return count
            there.add(page)
        return len(pages)

    def expected(self, done: int, count: int) -> tuple[Status, int]:
        """Result of a call with so many elements."""
        return (Status.SUCCESS if done == count else Status.NO_RESOURCES, done)

    def change(self, place: int, sources: list[int], rights: int) -> bool:
        """Change the model; whether anything that could be used went."""
        lost = False
        for page, source in enumerate(sources, place):
            old_source, old_rights = self.model.get(page, (source, 0))
            lost |= bool(old_rights and (old_source != source or old_rights & ~rights))
            self.model[page] = (source, rights)
        return lost

    @rule(place=TARGETS, source=SOURCES, count=COUNTS, rights=RIGHTS)
    def map_run(self, place: int, source: int, count: int, rights: int) -> None:
        """Pages that follow each other."""
        count = min(count, END - place)
        sources = list(range(source, source + count))
        done = self.allowed(list(range(place, place + count)))
        self.root.machine.clear_records()
        result = self.root.try_map(self.partition, place, sources, rights)
        assert outcome(result) == self.expected(done, count)
        assert bool(self.root.machine.second_stage_flushes) == self.change(place, sources[:done], rights)

    @rule(place=st.sampled_from([0, BLOCK, 0x40000]), source=st.sampled_from([0x2000, 0x2200, 0x2001]), rights=RIGHTS)
    def map_block(self, place: int, source: int, rights: int) -> None:
        """A large range, in two calls."""
        self.map_run(place, source, 256, rights)
        self.map_run(place + 256, source + 256, 256, rights)

    @rule(place=TARGETS, sources=st.lists(SOURCES, min_size=1, max_size=8), rights=RIGHTS)
    def map_scattered(self, place: int, sources: list[int], rights: int) -> None:
        """Any pages."""
        sources = sources[: END - place]
        done = self.allowed(list(range(place, place + len(sources))))
        result = self.root.try_map(self.partition, place, sources, rights)
        assert outcome(result) == self.expected(done, len(sources))
        self.change(place, sources[:done], rights)

    @rule(pairs=st.lists(st.tuples(TARGETS, SOURCES), min_size=1, max_size=8), rights=RIGHTS)
    def map_sparse(self, pairs: list[tuple[int, int]], rights: int) -> None:
        """Any pages, anywhere."""
        done = self.allowed([page for page, _ in pairs])
        result = try_map_sparse(self.root, self.partition, pairs, rights)
        assert outcome(result) == self.expected(done, len(pairs))
        for page, source in pairs[:done]:
            self.model[page] = (source, rights)

    @rule(place=TARGETS, count=st.one_of(COUNTS, st.sampled_from([BLOCK, 1024, 4095])))
    def unmap(self, place: int, count: int) -> None:
        """Whatever is there."""
        count = min(count, END - place)
        self.root.unmap(self.partition, place, count)
        for page in range(place, place + count):
            self.model.pop(page, None)

    @rule(source=SOURCES)
    def deposit(self, source: int) -> None:
        """Only what is not used may be deposited; it comes back at once."""
        used = any(page == source and rights for page, rights in self.model.values())
        expected = Status.OPERATION_DENIED if used else Status.SUCCESS
        assert self.root.try_deposit(self.other, [source]).status == expected
        if not used:
            assert self.root.withdraw_all(self.other) == [source]

    @rule()
    def unmap_everything(self) -> None:
        """Nothing is left of it, in the pool either."""
        for page in sorted(self.model):
            if page in self.model:
                self.unmap(page, min(4095, END - page))
        assert self.root.balance(self.partition).available == self.free

    @invariant()
    def same(self) -> None:
        """The map is the model's, around every place where it changes."""
        if not hasattr(self, "model"):
            return
        assert self.root.machine.gpa_space(self.partition)[1] == len(self.model)
        near = {0, END - 1, *self.model}
        for page in sorted(near | {page + 1 for page in near} | {page - 1 for page in near if page}):
            if page < END:
                assert mapped(self.root, self.vp, page) == self.model.get(page)


class MapModel2008R2(MapModel):
    """The same in the specification's generation."""

    generation = "2008r2"


class LimitedMapModel(MapModel):
    """With a policy that allows less than the rules want to map."""

    limit = 600


TestMapModel = MapModel.TestCase
TestMapModel.settings = settings(settings.get_profile("core"), max_examples=25)
TestMapModel2008R2 = MapModel2008R2.TestCase
TestMapModel2008R2.settings = settings(settings.get_profile("core"), max_examples=10)
TestLimitedMapModel = LimitedMapModel.TestCase
TestLimitedMapModel.settings = settings(settings.get_profile("core"), max_examples=15)


# -- A platform that can keep only so many ranges (docs/architecture.md, KVM) --

RANGES = 8


@pytest.fixture
def few_ranges(generation: str) -> Root:
    """A root whose children's maps may consist of a few ranges."""
    return Root(generation, memory=64 * MIB, gpa_ranges_most=RANGES)


def scatter(root: Root, partition: int, count: int) -> HypercallResult:
    """Map pages that do not continue each other, from page 0 on."""
    return root.try_map(partition, 0, root.pages(2 * count)[::2])


def test_ranges_are_limited(few_ranges: Root) -> None:
    """TLFS 8.3.1: NO_RESOURCES for the first page that is one range too many; those before are mapped."""
    root = few_ranges
    child = root.partition(vps=1, memory=0)
    result = scatter(root, child, RANGES + 3)
    assert (result.status, result.reps_completed) == (Status.NO_RESOURCES, RANGES)
    vp = root.handle(child, 0)
    assert mapped(root, vp, RANGES - 1) is not None
    assert mapped(root, vp, RANGES) is None


def test_what_adds_no_range_is_mapped(few_ranges: Root) -> None:
    """At the limit a range may still grow, at both ends, and be replaced; a gap that is closed makes room."""
    root = few_ranges
    child = root.partition(vps=1, memory=0)
    base = root.pages(64)[0]
    for number in range(RANGES):
        assert root.try_map(child, 4 * number + 1, [base + 4 * number + 1]).status == Status.SUCCESS
    assert root.try_map(child, 0x1000, [base]).status == Status.NO_RESOURCES
    assert root.try_map(child, 2, [base + 2]).status == Status.SUCCESS
    assert root.try_map(child, 0, [base]).status == Status.SUCCESS
    assert root.try_map(child, 1, [base + 1], ALL).status == Status.SUCCESS
    assert root.try_map(child, 1, [base + 1], READ).status == Status.NO_RESOURCES  # in the middle: two more
    assert root.try_map(child, 9, [base + 40]).status == Status.SUCCESS
    assert root.try_map(child, 9, [base + 9]).status == Status.SUCCESS
    assert root.try_map(child, 0x1000, [base]).status == Status.NO_RESOURCES
    assert root.try_map(child, 3, [base + 3, base + 4]).status == Status.SUCCESS  # 0 to 5 are one range now
    assert root.try_map(child, 0x1000, [base]).status == Status.SUCCESS
    assert root.try_map(child, 0x2000, [base]).status == Status.NO_RESOURCES


def test_unmapping_is_never_refused(few_ranges: Root) -> None:
    """TLFS 8.3.3: a hole may make one range more than there may be; nothing is mapped until there are fewer."""
    root = few_ranges
    child = root.partition(vps=1, memory=0)
    first = root.map_memory(child, 0x100, 5)
    assert scatter(root, child, RANGES - 1).status == Status.SUCCESS
    root.unmap(child, 0x102)
    assert root.try_map(child, 0x200, [first]).status == Status.NO_RESOURCES
    assert root.try_map(child, 0x102, [first + 2]).status == Status.SUCCESS
    root.unmap(child, 0, RANGES - 1)
    assert scatter(root, child, RANGES - 1).status == Status.SUCCESS
    assert scatter(root, root.partition(memory=0), RANGES).status == Status.SUCCESS  # each partition for itself


def test_large_pages_are_ranges(few_ranges: Root) -> None:
    """A large range is one, two that continue each other are one, and pages in their middle split them."""
    root = few_ranges
    child = root.partition(vps=1, memory=0)
    large = BLOCK * 8  # the machine's page, below which the root's own are
    for number in range(2):
        data = [large + number * BLOCK + page for page in range(BLOCK)]
        for part in range(0, BLOCK, 256):
            assert root.try_map(child, BLOCK * (4 + number) + part, data[part : part + 256]).status == Status.SUCCESS
    assert scatter(root, child, RANGES).reps_completed == RANGES - 1
    root.unmap(child, BLOCK * 5, BLOCK)
    assert root.try_map(child, 0x300, [large]).status == Status.NO_RESOURCES
    root.unmap(child, BLOCK * 4, BLOCK)
    assert root.try_map(child, 0x300, [large]).status == Status.SUCCESS


def test_ranges_are_counted_right(few_ranges: Root) -> None:
    """Whatever is mapped and unmapped, the limit is where the map's own content says."""
    root = few_ranges
    generator = random.Random(4)
    child = root.partition(vps=1, memory=0)
    base = root.pages(64)[0]
    content: dict[int, int] = {}

    def ranges(of: dict[int, int]) -> int:
        return sum(of.get(page - 1) != source - 1 for page, source in of.items())

    for _ in range(2000):
        target, source, count = generator.randrange(16), base + generator.randrange(16), generator.randrange(1, 5)
        pages = {target + number: source + number for number in range(count)}
        if generator.random() < 0.3:
            root.unmap(child, target, count)
            content = {page: at for page, at in content.items() if page not in pages}
            continue
        after = {**content, **pages}
        fits = ranges(after) <= RANGES or ranges(after) <= ranges(content)
        status = root.try_map(child, target, list(pages.values())).status
        assert status == (Status.SUCCESS if fits else Status.NO_RESOURCES)
        content = after if fits else content
