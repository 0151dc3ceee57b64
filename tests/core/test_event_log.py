# SPDX-License-Identifier: GPL-2.0-or-later
"""Chapter 19 of the TLFS: event logging for the root partition, and its messages."""

from __future__ import annotations

import struct

import pytest
from event_log import (
    COMPLETE,
    CREATE_BUFFER,
    DELETE_BUFFER,
    DIAG_ADMIN,
    DIAG_PERF_GENERAL,
    DIAGNOSTICS,
    FILL,
    FINALIZE_GROUP,
    FLUSH_BUFFER,
    FREE,
    HEADER,
    HYPERCALL,
    HYPERCALL_GROUP,
    IN_USE,
    INITIALIZE_GROUP,
    INTERCEPT_GROUP,
    MAP_BUFFER,
    NONE,
    OBJECT_GROUP,
    READY,
    RELEASE_BUFFER,
    SCHEDULER_GROUP,
    SET_SOURCES,
    SYSTEM,
    SYSTEM_FAILURE,
    SYSTEM_SUCCESS,
    TSC,
    UNMAP_BUFFER,
    VALID_PROXIMITY,
    LoggingRoot,
)
from root import ROOT_ID, Child
from simulated_guest import FAST, INPUT, OUTPUT, PAGE, SELF

from qemu_hv._core import Exit, GpaFault, Machine, MachineCheck, MessageType, RestoreError, Status, Translation

GROUP_COST = 4
ALL_CALLS = [
    INITIALIZE_GROUP,
    FINALIZE_GROUP,
    CREATE_BUFFER,
    DELETE_BUFFER,
    MAP_BUFFER,
    UNMAP_BUFFER,
    SET_SOURCES,
    RELEASE_BUFFER,
    FLUSH_BUFFER,
]
KINDS = [SYSTEM, DIAGNOSTICS]


@pytest.fixture
def root(generation: str) -> LoggingRoot:
    """A root partition whose VPs take messages."""
    root = LoggingRoot(generation)
    for vp in range(2):
        root.enable_synic(vp)
        root.set_sint(0, 0x30, vp)
    return root


def free_pages(root: LoggingRoot) -> int:
    """Pages in the root's pool."""
    return root.balance().available


# -- Who may, and what a call names --


@pytest.mark.parametrize("code", ALL_CALLS)
def test_root_only(root: LoggingRoot, code: int) -> None:
    """TLFS 19.3.1 to 19.3.9: ACCESS_DENIED for a caller that is not the root partition, whatever it passes."""
    child = Child(root, root.partition(memory=64))
    assert child.status(code, b"\xff" * 32) == Status.ACCESS_DENIED
    if code not in (INITIALIZE_GROUP, MAP_BUFFER):
        assert child.fast(code, SELF, SELF) == Status.ACCESS_DENIED


@pytest.mark.parametrize("code", ALL_CALLS)
def test_a_guest_is_no_root(generation: str, code: int) -> None:
    """TLFS 19.3: role=guest has no event log."""
    guest = Machine(generation)
    guest.wrmsr(0, 0x40000000, 1)
    guest.wrmsr(0, 0x40000001, 0x20001)
    assert guest.call(0, code, INPUT, OUTPUT).status == Status.ACCESS_DENIED


@pytest.mark.parametrize("code", ALL_CALLS)
def test_fast(root: LoggingRoot, code: int) -> None:
    """TLFS 19.3: which calls can be fast."""
    status = root.machine.call(0, code | FAST, 5, 0).status
    slow = code in (INITIALIZE_GROUP, MAP_BUFFER)
    assert status == (Status.INVALID_HYPERCALL_INPUT if slow else Status.INVALID_PARAMETER)


@pytest.mark.parametrize("code", ALL_CALLS)
@pytest.mark.parametrize("kind", [2, 0x80000000, 0xFFFFFFFF])
def test_invalid_type(root: LoggingRoot, code: int, kind: int) -> None:
    """TLFS 19.2.1, 19.3: INVALID_PARAMETER for a type that does not exist."""
    data = struct.pack("<IIIIIIII", kind, 1, 1, 1, 0, 0, 0, 0)
    assert root.status(code, data) == Status.INVALID_PARAMETER


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("code", ALL_CALLS[1:])
def test_group_is_not_initialized(root: LoggingRoot, code: int, kind: int) -> None:
    """TLFS 19.3.2 to 19.3.9: OPERATION_DENIED; HvUnmapEventLogBuffer has no such status: there is no buffer."""
    expected = Status.INVALID_PARAMETER if code == UNMAP_BUFFER else Status.OPERATION_DENIED
    assert root.status(code, struct.pack("<IIQ", kind, 600, VALID_PROXIMITY)) == expected
    assert root.try_initialize_group(1 - kind) == Status.SUCCESS
    assert root.status(code, struct.pack("<IIQ", kind, 600, VALID_PROXIMITY)) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("code", [DELETE_BUFFER, MAP_BUFFER, UNMAP_BUFFER, RELEASE_BUFFER, FLUSH_BUFFER])
def test_no_such_buffer(root: LoggingRoot, code: int, kind: int) -> None:
    """TLFS 19.3.4 to 19.3.9: INVALID_PARAMETER for an index that no buffer has."""
    assert root.try_initialize_group(kind, buffers=4) == Status.SUCCESS
    assert root.create_buffer(1, kind) == Status.SUCCESS
    for index in (0, 2, 4, 511, 512, NONE):
        assert root.status(code, struct.pack("<II", kind, index)) == Status.INVALID_PARAMETER


# -- HvInitializeEventLogBufferGroup, HvFinalizeEventLogBufferGroup --


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("buffers", "pages", "threshold", "basis", "expected"),
    [
        (1, 1, 1, 0, Status.SUCCESS),
        (512, 512, 512, 1, Status.SUCCESS),
        (0, 1, 1, 0, Status.INVALID_PARAMETER),
        (513, 1, 1, 0, Status.INVALID_PARAMETER),
        (4, 0, 1, 0, Status.INVALID_PARAMETER),
        (4, 513, 1, 0, Status.INVALID_PARAMETER),
        (4, 1, 0, 0, Status.INVALID_PARAMETER),
        (4, 1, 5, 0, Status.INVALID_PARAMETER),
        (4, 1, 4, 2, Status.INVALID_PARAMETER),
        (4, 1, 4, 0xFFFFFFFF, Status.INVALID_PARAMETER),
    ],
)
def test_geometry(
    root: LoggingRoot, kind: int, buffers: int, pages: int, threshold: int, basis: int, expected: Status
) -> None:
    """TLFS 19.1.1, 19.1.2, 19.3.1: limits of a group; a refused call costs nothing."""
    before = free_pages(root)
    assert root.try_initialize_group(kind, buffers, pages, threshold, basis) == expected
    assert before - free_pages(root) == (GROUP_COST if expected == Status.SUCCESS else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_initialize_twice(root: LoggingRoot, kind: int) -> None:
    """TLFS 19.3.1: OBJECT_IN_USE, which comes before the other parameters; the other type is another group."""
    assert root.try_initialize_group(kind) == Status.SUCCESS
    assert root.try_initialize_group(kind, pages=0) == Status.OBJECT_IN_USE
    assert root.try_initialize_group(1 - kind) == Status.SUCCESS


@pytest.mark.parametrize("kind", KINDS)
def test_finalize(root: LoggingRoot, kind: int) -> None:
    """TLFS 19.1.14, 19.3.2: with no buffers left and all sources off; the pool gets back what it cost."""
    before = free_pages(root)
    assert root.try_initialize_group(kind) == Status.SUCCESS
    assert root.create_buffer(3, kind) == Status.SUCCESS
    assert root.finalize_group(kind) == Status.OPERATION_DENIED
    assert root.simple(DELETE_BUFFER, 3, kind) == Status.SUCCESS
    assert root.set_sources(1, kind) == Status.SUCCESS
    assert root.finalize_group(kind) == Status.OPERATION_DENIED
    assert root.set_sources(0, kind) == Status.SUCCESS
    assert root.finalize_group(kind) == Status.SUCCESS
    assert free_pages(root) == before
    assert root.finalize_group(kind) == Status.OPERATION_DENIED
    assert root.try_initialize_group(kind) == Status.SUCCESS


def test_group_without_memory(root: LoggingRoot) -> None:
    """TLFS 19.3.1: INSUFFICIENT_MEMORY when the pool has too few pages."""
    assert root.try_initialize_group(SYSTEM, 512, 2) == Status.SUCCESS
    for index in range(509):
        assert root.create_buffer(index, SYSTEM) == Status.SUCCESS
    assert free_pages(root) == GROUP_COST - 2
    assert root.try_initialize_group(DIAGNOSTICS) == Status.INSUFFICIENT_MEMORY
    root.deposit(SELF, GROUP_COST)
    assert root.try_initialize_group(DIAGNOSTICS) == Status.SUCCESS


# -- HvCreateEventLogBuffer, HvDeleteEventLogBuffer --


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pages", [1, 3, 16])
def test_buffers_cost_their_pages(root: LoggingRoot, kind: int, pages: int) -> None:
    """TLFS 19.1.1, 19.3.3, 19.3.4: pages come from the partition's pool, and go back there."""
    assert root.try_initialize_group(kind, 4, pages) == Status.SUCCESS
    before = free_pages(root)
    for index in range(4):
        assert root.create_buffer(index, kind) == Status.SUCCESS
        assert before - free_pages(root) == (index + 1) * pages
    for index in range(4):
        assert root.simple(DELETE_BUFFER, index, kind) == Status.SUCCESS
    assert free_pages(root) == before


@pytest.mark.parametrize("kind", KINDS)
def test_indices(root: LoggingRoot, kind: int) -> None:
    """TLFS 19.1.4, 19.3.3: from 0 to the maximum less one, each once; a deleted one can be used again."""
    assert root.try_initialize_group(kind, buffers=3) == Status.SUCCESS
    assert root.create_buffer(3, kind) == Status.INVALID_PARAMETER
    assert root.create_buffer(NONE, kind) == Status.INVALID_PARAMETER
    assert root.create_buffer(2, kind) == Status.SUCCESS
    assert root.create_buffer(2, kind) == Status.INVALID_PARAMETER
    assert root.create_buffer(0, kind) == Status.SUCCESS
    assert root.simple(DELETE_BUFFER, 2, kind) == Status.SUCCESS
    assert root.simple(DELETE_BUFFER, 2, kind) == Status.INVALID_PARAMETER
    assert root.create_buffer(2, kind) == Status.SUCCESS


@pytest.mark.parametrize(
    ("kind", "proximity", "expected"),
    [
        (SYSTEM, 0, Status.SUCCESS),
        (SYSTEM, VALID_PROXIMITY, Status.SUCCESS),
        (SYSTEM, VALID_PROXIMITY | 7, Status.INVALID_PARAMETER),
        (DIAGNOSTICS, VALID_PROXIMITY, Status.SUCCESS),
        (DIAGNOSTICS, VALID_PROXIMITY | 1 << 32 | 7, Status.SUCCESS),
        (DIAGNOSTICS, VALID_PROXIMITY | 7, Status.INVALID_PARAMETER),
        (DIAGNOSTICS, VALID_PROXIMITY | 1 << 40, Status.INVALID_PARAMETER),
        (DIAGNOSTICS, 0, Status.INVALID_PARAMETER),
    ],
)
def test_proximity(root: LoggingRoot, kind: int, proximity: int, expected: Status) -> None:
    """TLFS 19.3.3: mandatory for local buffers, optional for global ones."""
    assert root.try_initialize_group(kind) == Status.SUCCESS
    assert root.create_buffer(0, kind, proximity=proximity) == expected


def test_buffer_without_memory(root: LoggingRoot) -> None:
    """TLFS 19.3.3: INSUFFICIENT_MEMORY, and nothing has happened."""
    assert root.try_initialize_group(SYSTEM, 512, 512) == Status.SUCCESS
    assert root.create_buffer(0, SYSTEM) == Status.SUCCESS
    before = free_pages(root)
    assert before < 512
    assert root.create_buffer(1, SYSTEM) == Status.INSUFFICIENT_MEMORY
    assert free_pages(root) == before
    root.deposit(SELF, 512 - before)
    assert root.create_buffer(1, SYSTEM) == Status.SUCCESS


# -- HvMapEventLogBuffer, HvUnmapEventLogBuffer --


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pages", [1, 5])
def test_map_shows_the_pages(root: LoggingRoot, kind: int, pages: int) -> None:
    """TLFS 19.1.1, 19.1.6, 19.3.5: read-only overlays at the GPAs returned; a write is an access violation."""
    m = root.machine
    assert root.try_initialize_group(kind, 4, pages) == Status.SUCCESS
    assert root.create_buffer(2, kind) == Status.SUCCESS
    m.write(OUTPUT, b"\xaa" * PAGE)
    numbers = root.map_buffer(2, kind, pages)
    assert m.read(OUTPUT + 8 * pages, 8) == b"\xaa" * 8
    assert len(set(numbers)) == pages
    for number in numbers:
        m.read(number * PAGE, PAGE)
        with pytest.raises(MachineCheck):
            m.write(number * PAGE, b"x")
    header = root.header(2, kind)
    assert (header.size, header.index, header.type, header.state) == (pages * PAGE, 2, kind, FREE)
    assert not any((header.reserved1, header.reserved2, header.reserved3, header.reserved4, header.reserved5))
    assert root.simple(UNMAP_BUFFER, 2, kind) == Status.SUCCESS
    for number in numbers:
        assert m.read(number * PAGE, 8) == b"\xff" * 8  # nothing is there
    assert root.map_buffer(2, kind, pages) == numbers


def test_the_largest_buffer(root: LoggingRoot) -> None:
    """TLFS 19.1.1, 19.3.5: 512 pages, whose numbers fill a page."""
    assert root.try_initialize_group(SYSTEM, 512, 512) == Status.SUCCESS
    root.deposit(SELF, 256)
    assert root.create_buffer(511, SYSTEM) == Status.SUCCESS
    numbers = root.map_buffer(511, SYSTEM, 512)
    assert len(set(numbers)) == 512
    assert max(numbers) < (1 << 36) // PAGE
    root.machine.read(numbers[-1] * PAGE, PAGE)


def test_buffers_do_not_overlap(root: LoggingRoot) -> None:
    """TLFS 19.3.5: each page of each buffer has a GPA of its own."""
    root.set_up(SYSTEM, 8, pages=3)
    root.set_up(DIAGNOSTICS, 8, pages=2)
    numbers = [number for pages in root.pages_of.values() for number in pages]
    assert len(set(numbers)) == 8 * 3 + 8 * 2


def test_narrow_addresses(generation: str) -> None:
    """TLFS 19.3.5: with 32 bits of address there is room for fewer buffers: INSUFFICIENT_MEMORY for the others."""
    root = LoggingRoot(generation, gpa_bits=32)
    assert root.try_initialize_group(SYSTEM, 512) == Status.SUCCESS
    assert root.create_buffer(63, SYSTEM) == Status.SUCCESS
    assert root.create_buffer(64, SYSTEM) == Status.SUCCESS
    (number,) = root.map_buffer(63, SYSTEM)
    assert 0xD0000 <= number < 0xE0000
    assert root.try_map_buffer(64, SYSTEM).status == Status.INSUFFICIENT_MEMORY
    assert root.simple(DELETE_BUFFER, 64, SYSTEM) == Status.SUCCESS


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (OUTPUT + PAGE - 16, Status.SUCCESS),
        (OUTPUT + PAGE - 8, Status.INVALID_ALIGNMENT),
        (OUTPUT + 4, Status.INVALID_ALIGNMENT),
        (INPUT, Status.INVALID_ALIGNMENT),
        (1 << 36, Status.INVALID_ALIGNMENT),
    ],
)
def test_output_of_map(root: LoggingRoot, output: int, expected: Status) -> None:
    """TLFS 4.6, 19.3.5: the output is as long as the buffer has pages, and is placed as any output is."""
    assert root.try_initialize_group(pages=2) == Status.SUCCESS
    assert root.create_buffer(0) == Status.SUCCESS
    assert root.try_map_buffer(0, output=output).status == expected
    again = Status.OPERATION_DENIED if expected == Status.SUCCESS else Status.SUCCESS
    assert root.try_map_buffer(0).status == again


def test_output_of_map_without_the_right(root: LoggingRoot) -> None:
    """TLFS 4.11.1, 11.8: the root gets #MC, and the buffer is not mapped."""
    assert root.try_initialize_group() == Status.SUCCESS
    assert root.create_buffer(0) == Status.SUCCESS
    (page,) = root.deposit(SELF, 1)
    assert root.try_map_buffer(0, output=page * PAGE).exit == Exit.MC
    assert root.try_map_buffer(0, output=(1 << 36) - PAGE * 512 * 1024 - PAGE).status == Status.SUCCESS  # nothing there


def test_only_the_root_sees_buffers(root: LoggingRoot) -> None:
    """TLFS 19.1.1: overlays are in the root's GPA space, and a child has other things there."""
    root.set_up(buffers=1)
    (page,) = root.pages_of[DIAGNOSTICS, 0]
    child = Child(root, root.partition(memory=64))
    with pytest.raises(GpaFault):
        root.machine.read(page * PAGE, 8, child.vp)


def test_a_mapped_page_is_in_use(root: LoggingRoot) -> None:
    """TLFS 7.3.1, 8.3.1: OBJECT_IN_USE for a deposit or a mapping of an event log buffer's page."""
    root.set_up(buffers=1)
    (page,) = root.pages_of[DIAGNOSTICS, 0]
    child = root.partition()
    assert root.try_deposit(child, [page]).status == Status.OBJECT_IN_USE
    data = struct.pack("<QQIIQ", child, 7, 7, 0, page)
    assert root.call(0x004B | 1 << 32, data).status == Status.OBJECT_IN_USE
    data = struct.pack("<QQIIQ", ROOT_ID, page, 1, 0, page)
    assert root.call(0x004B | 1 << 32, data).status == Status.OBJECT_IN_USE
    assert root.simple(UNMAP_BUFFER, 0) == Status.SUCCESS
    assert root.try_deposit(child, [page]).status == Status.OPERATION_DENIED  # there is no memory


def test_map_is_seen_at_once(root: LoggingRoot) -> None:
    """TLFS 19.3.5, 19.3.6: no VP of the root uses what was there before."""
    assert root.try_initialize_group() == Status.SUCCESS
    assert root.create_buffer(0) == Status.SUCCESS
    root.machine.clear_records()
    root.map_buffer(0)
    assert root.machine.second_stage_flushes == [(0, [0, 1])]
    assert root.simple(UNMAP_BUFFER, 0, vp=1) == Status.SUCCESS
    assert root.machine.second_stage_flushes == [(0, [0, 1]), (1, [0, 1])]


def test_a_translation_reaches_over_no_buffer(root: LoggingRoot) -> None:
    """TLFS 19.1.6: what is around a buffer's pages is not taken for all alike."""
    root.set_up(buffers=2)
    pages = {page for index in range(2) for page in root.pages_of[DIAGNOSTICS, index]}
    for page in pages:
        assert root.machine.translate(0, page * 0x1000, 1)[0::3] == (Translation.OVERLAY, 0x1000)
    for page in {page + distance for page in pages for distance in (-513, -512, -1, 1, 511, 512, 513)} - pages:
        found, _, _, size = root.machine.translate(0, page * 0x1000, 1)
        first = page - page % (size // 0x1000)
        assert found == Translation.RAM
        assert not pages & set(range(first, first + size // 0x1000))


# -- States of a buffer (TLFS 19.1.5) --


def in_state(root: LoggingRoot, state: int) -> None:
    """Bring buffer 0 of a group of two into a state; an event is one of a hypercall."""
    assert root.try_initialize_group(buffers=2, threshold=2) == Status.SUCCESS
    assert root.create_buffer(0) == Status.SUCCESS
    if state == 0:
        return
    root.map_buffer(0)
    if state == FREE:
        return
    assert root.set_sources(HYPERCALL_GROUP) == Status.SUCCESS
    root.spin(1 if state == IN_USE else FILL + 1)
    if state == READY:
        assert root.simple(FLUSH_BUFFER, 0) == Status.SUCCESS
    assert root.set_sources(0) == Status.SUCCESS


@pytest.mark.parametrize("state", range(5))
@pytest.mark.parametrize(
    ("code", "allowed", "refused"),
    [
        (MAP_BUFFER, {0: FREE}, Status.OPERATION_DENIED),
        (FLUSH_BUFFER, {IN_USE: READY, COMPLETE: READY}, Status.OPERATION_DENIED),
        (RELEASE_BUFFER, {READY: FREE}, Status.OPERATION_DENIED),
        (UNMAP_BUFFER, {FREE: 0, READY: 0}, Status.ACCESS_DENIED),
        (DELETE_BUFFER, {0: None}, Status.OPERATION_DENIED),
    ],
)
def test_states(root: LoggingRoot, state: int, code: int, allowed: dict[int, int | None], refused: Status) -> None:
    """TLFS 19.1.5, 19.1.13, 19.3.4 to 19.3.9: what is allowed in which state, and where it leads."""
    in_state(root, state)
    if state:
        assert root.state(0) == state
    status = root.try_map_buffer(0).status if code == MAP_BUFFER else root.simple(code, 0)
    assert status == (Status.SUCCESS if state in allowed else refused)
    after = allowed.get(state, state)
    if code == MAP_BUFFER and state == 0:
        root.pages_of[DIAGNOSTICS, 0] = list(root.output("<Q"))
    if after:
        assert root.state(0) == after
    elif after is None:
        assert root.create_buffer(0) == Status.SUCCESS
    else:
        assert root.simple(DELETE_BUFFER, 0) == Status.SUCCESS


# -- Sources (TLFS 19.1.8, 19.2.2) --


def test_nothing_is_logged_without_sources(root: LoggingRoot) -> None:
    """TLFS 19.1.8: only with a bit set; clearing all ends it, and what is in use stays in use."""
    root.set_up()
    root.spin(3)
    assert root.state(0) == FREE
    assert root.set_sources(HYPERCALL_GROUP) == Status.SUCCESS
    root.spin(3)
    assert root.state(0) == IN_USE
    assert root.set_sources(0) == Status.SUCCESS
    count = len(root.entries(0))
    root.spin(3)
    assert len(root.entries(0)) == count
    assert root.state(0) == IN_USE
    assert root.set_sources(HYPERCALL_GROUP) == Status.SUCCESS
    root.spin(1)
    assert len(root.entries(0)) > count


@pytest.mark.parametrize(
    ("sources", "calls", "objects"),
    [
        (HYPERCALL_GROUP, True, False),
        (OBJECT_GROUP, False, True),
        (DIAG_ADMIN, False, True),
        (DIAG_PERF_GENERAL, True, True),
        (INTERCEPT_GROUP, False, False),
        (1 << 63 | 1 << 50, False, False),
    ],
)
def test_diagnostic_sources(root: LoggingRoot, sources: int, calls: bool, objects: bool) -> None:
    """TLFS 19.2.2, appendix I: groups of events are sources; other bits have no events."""
    root.set_up(pages=2, sources=sources)
    root.create_partition()
    root.spin()
    assert root.set_sources(0) == Status.SUCCESS
    types = {entry.type for entry in root.entries(0)} if root.state(0) == IN_USE else set()
    assert (HYPERCALL in types) == calls
    assert (0x40 in types) == objects


def test_system_sources(root: LoggingRoot) -> None:
    """TLFS 19.2.1, 19.2.2: successes and failures of what partitions are made of, for all processors in one buffer."""
    root.set_up(SYSTEM, sources=SYSTEM_SUCCESS)
    child = root.create_partition()
    assert root.try_create_vp(child, 0) == Status.INVALID_PARTITION_STATE
    assert [(e.type, e.values) for e in root.entries(0, SYSTEM)] == [(0x40, (child, 0))]
    assert root.set_sources(SYSTEM_FAILURE, SYSTEM) == Status.SUCCESS
    assert root.try_create_vp(child, 0, vp=1) == Status.INVALID_PARTITION_STATE
    assert root.delete(child, vp=1) == Status.SUCCESS
    failed = (0x4B, (child, 0xFFFFFFFF, Status.INVALID_PARTITION_STATE))
    assert [(e.type, e.values) for e in root.entries(0, SYSTEM)][1:] == [failed]


# -- Writing (TLFS 19.1.9, 19.2.5, 19.2.6) --


def test_entries(root: LoggingRoot) -> None:
    """TLFS 19.2.6, appendix I: an entry's header, and the parameters of a hypercall."""
    m = root.machine
    root.set_up(sources=HYPERCALL_GROUP)
    before = root.time()
    m.advance(50)
    root.spin()
    entry = root.entries(0)[-1]
    assert (entry.size, entry.type, entry.context) == (32, HYPERCALL, ROOT_ID << 16)
    assert entry.values == (0, 0x0008 | FAST)  # the simulated root is nowhere in its code
    assert entry.time == before + 50


def test_time_of_the_tsc(root: LoggingRoot) -> None:
    """TLFS 19.2.6, 19.3.1: time stamps are the processor's TSC when the group was made so."""
    root.set_up(basis=TSC, sources=HYPERCALL_GROUP)
    root.machine.advance(1000)
    root.spin()
    assert root.entries(0)[-1].time == root.machine.tsc
    assert root.header(0).time <= root.time()  # which is always reference time (TLFS 19.2.5)


def test_header_in_use(root: LoggingRoot) -> None:
    """TLFS 19.2.5: when a buffer went in use, by which processor, and where the next entry comes."""
    root.set_up(buffers=2)
    root.machine.advance(100)
    assert root.set_sources(HYPERCALL_GROUP) == Status.SUCCESS
    root.machine.advance(77)
    time = root.time(1)
    root.spin(vp=1)
    root.spin(2, vp=1)
    header = root.header(0)
    assert (header.state, header.lp, header.time, header.lost) == (IN_USE, 1, time, 0)
    assert header.next_offset == HEADER.size + 3 * 32
    assert (header.size, header.index, header.type) == (PAGE, 0, DIAGNOSTICS)


def test_local_buffers(root: LoggingRoot) -> None:
    """TLFS 19.1.3, 19.1.9: one buffer in use for each logical processor, taken from the same node's free ones."""
    root.set_up(buffers=4, sources=HYPERCALL_GROUP)
    root.spin(vp=1)
    root.spin(vp=0)
    in_use = {root.header(i).lp: i for i in range(4) if root.state(i) == IN_USE}
    assert set(in_use) == {0, 1}
    assert {entry.context & 0xFFFF for entry in root.entries(in_use[1])} == {1}
    assert {entry.context & 0xFFFF for entry in root.entries(in_use[0])} == {0}


def test_a_global_buffer(root: LoggingRoot) -> None:
    """TLFS 19.1.3, 19.1.9: at most one is in use at any time, whoever writes to it."""
    root.set_up(SYSTEM, sources=SYSTEM_SUCCESS)
    for vp in (0, 1, 0, 1):
        assert root.try_create_partition(vp=vp) == Status.SUCCESS
    assert [root.state(i, SYSTEM) for i in range(4)] == [IN_USE, FREE, FREE, FREE]
    assert [entry.context & 0xFFFF for entry in root.entries(0, SYSTEM)] == [0, 1, 0, 1]


def test_buffers_are_used_in_turn(root: LoggingRoot) -> None:
    """TLFS 19.1.9, 19.2.5: a full buffer is completed, and the next one goes on with the numbers of events."""
    root.set_up(buffers=3, threshold=3, sources=HYPERCALL_GROUP)
    root.spin(FILL)
    assert [root.state(i) for i in range(3)] == [IN_USE, FREE, FREE]
    root.spin()
    assert [root.state(i) for i in range(3)] == [COMPLETE, IN_USE, FREE]
    first, second = root.header(0), root.header(1)
    assert first.next_offset <= PAGE < first.next_offset + 32
    assert second.first - first.first == len(root.entries(0)) == FILL
    assert second.time >= first.time
    assert root.announcement() is None


def test_lost_events(root: LoggingRoot) -> None:
    """TLFS 19.1.9, 19.2.5: without a free buffer events are lost and counted, until there is one."""
    root.set_up(buffers=2, threshold=2, sources=HYPERCALL_GROUP)
    root.spin(2 * FILL + 10)
    assert [root.state(i) for i in range(2)] == [READY, READY]
    last = root.header(1).first
    assert root.simple(RELEASE_BUFFER, 0) == Status.SUCCESS  # is lost itself
    root.spin()
    header = root.header(0)
    assert header.state == IN_USE
    assert header.lost == 10 + 1
    assert header.first == last + FILL + header.lost
    assert root.simple(RELEASE_BUFFER, 1) == Status.SUCCESS
    root.spin(FILL)
    assert root.header(1).lost == 0


def test_lost_events_are_counted_by_processor(root: LoggingRoot) -> None:
    """TLFS 19.2.5: numbers and losses of local buffers are those of their logical processor."""
    root.set_up(buffers=1, sources=HYPERCALL_GROUP)
    root.spin(5, vp=0)
    root.spin(7, vp=1)  # there is no buffer for it
    assert root.simple(FLUSH_BUFFER, 0) == Status.SUCCESS
    assert root.simple(RELEASE_BUFFER, 0) == Status.SUCCESS
    root.spin(vp=1)
    header = root.header(0)
    assert (header.lp, header.lost, header.first) == (1, 7, 7)


# -- Messages (TLFS 16.5.10, 19.1.10, 19.1.11) --


def test_message_at_the_threshold(root: LoggingRoot) -> None:
    """TLFS 16.5.10, 19.1.10: to SINT0 of the VP of the processor that filled the buffers, which are ready then."""
    root.set_up(buffers=6, threshold=3, sources=HYPERCALL_GROUP)
    root.machine.clear_records()
    root.spin(2 * FILL + 1, vp=1)
    assert root.announcement(1) is None
    assert [root.state(i) for i in range(3)] == [COMPLETE, COMPLETE, IN_USE]
    root.spin(FILL, vp=1)
    assert root.announcement(0) is None
    assert root.announcement(1) == (DIAGNOSTICS, 0)
    assert root.chain(0) == [0, 1, 2]
    assert [root.state(i) for i in range(4)] == [READY, READY, READY, IN_USE]
    assert root.machine.interrupts == [(1, 0x30)]


def test_message_of_a_global_group(root: LoggingRoot) -> None:
    """TLFS 19.1.10: to a VP of the root that is available."""
    root.set_up(SYSTEM, sources=SYSTEM_SUCCESS)
    root.machine.wrmsr(0, 0x40000080, 0)  # VP 0 takes no messages
    assert root.try_create_partition() == Status.SUCCESS
    assert root.simple(FLUSH_BUFFER, 0, SYSTEM) == Status.SUCCESS
    assert root.announcement(1) == (SYSTEM, 0)
    assert root.chain(0, SYSTEM) == [0]


def test_flush(root: LoggingRoot) -> None:
    """TLFS 19.3.9, 16.5.10: complete buffers of the processor are announced with the one flushed, in their order."""
    root.set_up(buffers=6, threshold=6, sources=HYPERCALL_GROUP)
    root.spin(FILL + 1)
    root.spin(1, vp=1)
    assert root.set_sources(0) == Status.SUCCESS
    in_use = next(i for i in range(6) if root.state(i) == IN_USE and root.header(i).lp == 0)
    entries = root.entries(in_use)
    assert root.simple(FLUSH_BUFFER, in_use, vp=1) == Status.SUCCESS
    assert root.announcement(1) is None
    assert root.announcement(0) == (DIAGNOSTICS, 0)
    assert root.chain(0) == [0, in_use]
    assert root.entries(in_use) == entries
    other = next(i for i in range(6) if root.state(i) == IN_USE)
    assert root.header(other).lp == 1


def test_flush_of_a_complete_buffer(root: LoggingRoot) -> None:
    """TLFS 19.1.5, 19.1.13: else it could not be had back when nothing is logged any more."""
    root.set_up(buffers=2, threshold=2, sources=HYPERCALL_GROUP)
    root.spin(FILL + 1)
    assert root.set_sources(0) == Status.SUCCESS
    assert [root.state(i) for i in range(2)] == [COMPLETE, IN_USE]
    assert root.simple(FLUSH_BUFFER, 0) == Status.SUCCESS
    assert [root.state(i) for i in range(2)] == [READY, IN_USE]
    assert root.announcement() == (DIAGNOSTICS, 0)
    assert root.chain(0) == [0]


def test_one_message_at_a_time(root: LoggingRoot) -> None:
    """TLFS 14.2.1, 19.1.10: a group has one message buffer; what gets ready while it waits is in the next message."""
    root.set_up(buffers=8, sources=HYPERCALL_GROUP)
    root.spin(FILL + 1)
    root.machine.fire_due_timers()
    assert root.message(0).type == MessageType.EventLogBuffersComplete  # nobody has taken it
    root.spin(FILL)
    root.machine.fire_due_timers()  # this one waits for the slot
    root.spin(2 * FILL)
    assert root.announcement() == (DIAGNOSTICS, 0)
    assert root.chain(0) == [0]
    assert root.announcement() == (DIAGNOSTICS, 1)
    assert root.chain(1) == [1]
    assert root.announcement() == (DIAGNOSTICS, 2)
    assert root.chain(2) == [2, 3]
    assert root.announcement() is None


def test_messages_of_both_processors(root: LoggingRoot) -> None:
    """TLFS 19.1.10, 19.1.11: a list has only buffers that one processor completed."""
    root.set_up(buffers=8, sources=HYPERCALL_GROUP)
    for _ in range(2):
        for vp in (0, 1):
            root.spin(FILL + 1, vp=vp)
    lists = []
    for vp in (0, 1, 0, 1):
        found = root.announcement(vp)
        while found:
            lists.append((vp, root.chain(found[1])))
            found = root.announcement(vp)
    assert sorted(index for _, chain in lists for index in chain) == [0, 1, 2, 3]
    assert all(root.header(index).lp == vp for vp, chain in lists for index in chain)


def test_ready_buffers_that_nobody_was_told_of(root: LoggingRoot) -> None:
    """TLFS 19.1.12: the root may release or unmap them; the next message does not name them."""
    root.set_up(buffers=6, sources=HYPERCALL_GROUP)
    root.spin(FILL + 1)
    root.machine.fire_due_timers()
    root.spin(FILL)
    root.machine.fire_due_timers()
    root.spin(3 * FILL)
    assert root.set_sources(0) == Status.SUCCESS
    assert [root.state(i) for i in range(5)] == [READY] * 5
    assert root.simple(RELEASE_BUFFER, 3) == Status.SUCCESS
    assert root.simple(UNMAP_BUFFER, 2) == Status.SUCCESS
    assert root.announcement() == (DIAGNOSTICS, 0)
    assert root.announcement() == (DIAGNOSTICS, 1)
    assert root.announcement() == (DIAGNOSTICS, 4)
    assert root.chain(4) == [4]
    assert root.announcement() is None


def test_without_a_synic_buffers_can_be_had_back(generation: str) -> None:
    """TLFS 19.1.14: the conclusion does not need messages to be taken."""
    root = LoggingRoot(generation)
    before = free_pages(root)
    root.set_up(buffers=4, threshold=4, sources=HYPERCALL_GROUP)
    root.spin(FILL + 1)
    root.spin(1, vp=1)
    assert root.set_sources(0) == Status.SUCCESS
    for index in range(4):
        if root.state(index) == IN_USE:
            assert root.simple(FLUSH_BUFFER, index) == Status.SUCCESS
    root.machine.fire_due_timers()
    for index in range(4):
        assert root.simple(UNMAP_BUFFER, index) == Status.SUCCESS
        assert root.simple(DELETE_BUFFER, index) == Status.SUCCESS
    assert root.finalize_group() == Status.SUCCESS
    assert free_pages(root) == before


def test_adding_buffers_while_logging(root: LoggingRoot) -> None:
    """TLFS 19.1.13: a new buffer is in service when it is mapped, and out of it when it is unmapped."""
    assert root.try_initialize_group(buffers=2, threshold=2) == Status.SUCCESS
    assert root.set_sources(HYPERCALL_GROUP) == Status.SUCCESS
    root.spin(3)
    assert root.create_buffer(1) == Status.SUCCESS
    root.spin(3)
    root.map_buffer(1)
    assert root.state(1) == FREE
    root.spin()
    assert root.header(1).lost == 3 + 1 + 3 + 1  # the two calls are lost too
    assert root.create_buffer(0) == Status.SUCCESS
    root.map_buffer(0)
    assert root.simple(UNMAP_BUFFER, 0) == Status.SUCCESS
    root.spin(FILL)
    assert root.state(1) == COMPLETE


def test_a_message_of_a_group_that_is_gone(root: LoggingRoot) -> None:
    """TLFS 19.3.2: a message that waits for its slot goes with the group."""
    root.set_up(buffers=2, sources=HYPERCALL_GROUP)
    root.spin(2 * FILL + 1)
    root.machine.fire_due_timers()
    assert root.set_sources(0) == Status.SUCCESS
    for index in range(2):
        assert root.simple(UNMAP_BUFFER, index) == Status.SUCCESS
        assert root.simple(DELETE_BUFFER, index) == Status.SUCCESS
    assert root.finalize_group() == Status.SUCCESS
    assert root.take_message(0).type == MessageType.EventLogBuffersComplete
    assert root.take_message(0).type == 0


# -- The scheduler's events, on a thread that is in no hypercall --


def test_context_switches(root: LoggingRoot) -> None:
    """TLFS appendix I: who runs on a logical processor; the TSC offset with the performance events only."""
    root.set_up(pages=2, sources=SCHEDULER_GROUP)
    child = root.partition(memory=16)
    handle = root.handle(child, 0)
    m = root.machine
    lp = m.lp_of(handle)
    root.resume(child)
    m.set_waits(lp, True)
    m.schedule(lp)
    m.set_waits(handle, True)
    m.stopped(handle)
    m.schedule(lp)
    switches = [entry.values for entry in root.entries(0) if entry.type == 0xB0]
    assert switches[-2:] == [(child, handle), (0, 0xFFFFFFFF)]
    assert root.set_sources(DIAG_PERF_GENERAL) == Status.SUCCESS
    m.set_waits(handle, False)
    m.schedule(lp)
    switches = [entry.values for entry in root.entries(0) if entry.type == 0xB0]
    assert switches[-1] == (child, handle, 0)


# -- Reset, and the machine's saved state --


def test_reset(root: LoggingRoot) -> None:
    """TLFS 22.3: the root that is launched again has no event log; its pool is whole."""
    before = free_pages(root)
    root.set_up(sources=HYPERCALL_GROUP)
    root.set_up(SYSTEM, sources=SYSTEM_SUCCESS)
    root.spin(FILL * 2)
    (page,) = root.pages_of[DIAGNOSTICS, 0]
    root.machine.reset()
    assert root.machine.read(page * PAGE, 8) == b"\xff" * 8
    root.enable_hypercalls()
    assert free_pages(root) == before
    assert root.finalize_group() == Status.OPERATION_DENIED
    root.set_up(sources=HYPERCALL_GROUP)
    root.spin()
    assert root.header(0).first == 0


def restored(root: LoggingRoot) -> LoggingRoot:
    """The same root in another machine."""
    other = LoggingRoot(root.generation)
    other.machine = root.machine.migrate()
    other.pages_of = root.pages_of
    return other


def test_saved_state(root: LoggingRoot) -> None:
    """TLFS 19.1.5: buffers of all states, what is in them, lists, messages and counts come with the machine."""
    root.set_up(buffers=8, sources=HYPERCALL_GROUP)
    root.set_up(SYSTEM, 3, pages=2, threshold=3, sources=SYSTEM_SUCCESS)
    root.create_partition()
    assert root.create_buffer(3, SYSTEM) == Status.INVALID_PARAMETER
    root.spin(FILL + 1)
    root.machine.fire_due_timers()
    root.spin(FILL)
    root.machine.fire_due_timers()
    root.spin(2 * FILL)
    root.spin(3, vp=1)
    assert root.simple(UNMAP_BUFFER, 7) == Status.SUCCESS
    other = restored(root)
    for index in range(7):
        assert other.header(index) == root.header(index)
        if root.state(index) != FREE:
            assert other.entries(index) == root.entries(index)
    assert other.entries(0, SYSTEM) == root.entries(0, SYSTEM)
    assert free_pages(other) == free_pages(root)
    for machine in (root, other):
        assert machine.announcement() == (DIAGNOSTICS, 0)
        assert machine.announcement() == (DIAGNOSTICS, 1)
        assert machine.announcement() == (DIAGNOSTICS, 2)
        assert machine.chain(2) == [2, 3]
        machine.spin()
        (in_use,) = (i for i in range(7) if machine.state(i) == IN_USE and machine.header(i).lp == 0)
        assert machine.entries(in_use)[-1].values[1] == 0x0008 | FAST
        assert machine.try_map_buffer(7).status == Status.SUCCESS
    assert root.machine.save() == other.machine.save()


def test_damaged_state(root: LoggingRoot) -> None:
    """A stream that was changed is refused or taken, and the machine stays usable."""
    root.set_up(buffers=3, sources=HYPERCALL_GROUP)
    root.spin(FILL + 1)
    stream = bytearray(root.machine.save())
    header = bytes(root.machine.read(root.pages_of[DIAGNOSTICS, 0][0] * PAGE, 12))
    start = stream.index(header) - 200
    refused = 0
    for at in range(start, start + 400):
        changed = bytearray(stream)
        changed[at] ^= 0xFF
        other = LoggingRoot(root.generation)
        try:
            other.machine.restore(bytes(changed))
        except RestoreError:
            refused += 1
            other.enable_hypercalls()
            assert other.try_initialize_group() == Status.SUCCESS
    assert refused > 20
