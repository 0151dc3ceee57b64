# SPDX-License-Identifier: GPL-2.0-or-later
"""Chapter 20 of the TLFS: debug sessions, and the synthetic debugger's registers that came later."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from root import DEBUG_CHANNEL_ID, PRIVILEGE_FLAGS, Child, Root
from simulated_guest import INPUT, OUTPUT, PAGE, Guest

from qemu_hv._core import Exit, GeneralProtectionFault, HypercallResult, MachineCheck, Privilege, Status

POST_DEBUG_DATA = 0x0069
RETRIEVE_DEBUG_DATA = 0x006A
RESET_DEBUG_SESSION = 0x006B

MAXIMUM = 4088
LOOP = 1
TEST_ACTIVITY = 2
PURGE_INCOMING, PURGE_OUTGOING = 1, 2
BUFFER = 16384

ALL_PRIVILEGES = (1 << 64) - 1
DEBUGGING = 1 << Privilege.Debugging

CONTROL, STATUS, SEND, RECEIVE, PENDING = range(0x400000F1, 0x400000F6)
OPTIONS = 0x400000FF
GO_SEND, GO_RECEIVE = 1, 2
SENT, RECEIVED = 1, 4


class Debuggee(Guest):
    """A guest that talks to a debugger."""

    def __init__(self, generation: str = "current", **config: Any) -> None:
        super().__init__(generation, privileges=ALL_PRIVILEGES, debugging=True, **config)

    def post_data(self, data: bytes, *, count: int | None = None, options: int = 0, gpa: int = INPUT) -> Status:
        """HvPostDebugData (TLFS 20.3.1); the pending count is in the output."""
        header = struct.pack("<II", len(data) if count is None else count, options)
        return self.status(POST_DEBUG_DATA, header + data, gpa=gpa)

    def pending(self) -> int:
        """How many bytes wait to be sent."""
        assert self.post_data(b"") == Status.SUCCESS
        return int(struct.unpack("<I", self.machine.read(OUTPUT, 4))[0])

    def retrieve(
        self, count: int = MAXIMUM, options: int = 0, timeout: int = 0, *, output: int = OUTPUT
    ) -> tuple[Status, bytes, int]:
        """HvRetrieveDebugData (TLFS 20.3.2): status, data, bytes that remain."""
        status = self.status(RETRIEVE_DEBUG_DATA, struct.pack("<IIQ", count, options, timeout), output=output)
        if status != Status.SUCCESS:
            return status, b"", 0
        retrieved, remaining = struct.unpack("<II", self.machine.read(output, 8))
        return status, self.machine.read(output + 8, retrieved), remaining

    def one_retrieval(self, count: int, options: int, timeout: int) -> HypercallResult:
        """A single execution of the instruction."""
        self.machine.write(INPUT, struct.pack("<IIQ", count, options, timeout))
        return self.machine.hypercall(0, RETRIEVE_DEBUG_DATA, INPUT, OUTPUT)

    def reset_session(self, options: int) -> Status:
        """HvResetDebugSession (TLFS 20.3.3)."""
        return self.fast(RESET_DEBUG_SESSION, options | 0xDEAD << 32)


@pytest.fixture
def debuggee(generation: str) -> Debuggee:
    """A guest whose connection to a debugger is there."""
    return Debuggee(generation)


# -- 20.1 Discovery, privilege, session --


def every_call(guest: Guest) -> set[Status]:
    """The statuses of the three calls with sound parameters."""
    return {
        guest.status(POST_DEBUG_DATA, struct.pack("<II", 0, 0)),
        guest.status(RETRIEVE_DEBUG_DATA, struct.pack("<IIQ", 0, 0, 0)),
        guest.fast(RESET_DEBUG_SESSION, PURGE_INCOMING),
    }


def test_without_a_debugger_the_feature_is_unavailable(generation: str) -> None:
    """TLFS 20.1, 3.4: and CPUID says so."""
    guest = Guest(generation, privileges=ALL_PRIVILEGES)
    assert every_call(guest) == {Status.FEATURE_UNAVAILABLE}
    assert not guest.machine.cpuid(0x40000003)[3] & (1 << 1 | 1 << 11)


def test_with_a_debugger_cpuid_offers_it(debuggee: Debuggee) -> None:
    """TLFS 3.4: EDX bit 1."""
    assert debuggee.machine.cpuid(0x40000003)[3] & 1 << 1


def test_the_privilege_is_needed(generation: str) -> None:
    """TLFS 20.3: ACCESS_DENIED without Debugging."""
    guest = Guest(generation, privileges=ALL_PRIVILEGES & ~DEBUGGING, debugging=True)
    assert every_call(guest) == {Status.ACCESS_DENIED}


def test_a_root_has_to_assign_itself_a_channel(generation: str) -> None:
    """TLFS 20.1.1: a channel identifier of zero is none, and then the calls are denied."""
    root = Root(generation, debugging=True)
    assert every_call(root) == {Status.OPERATION_DENIED}
    assert root.set_property(1, DEBUG_CHANNEL_ID, 5) == Status.SUCCESS
    assert every_call(root) == {Status.SUCCESS, Status.NO_DATA}


# -- 20.3.1 HvPostDebugData --


def test_posted_data_reaches_the_debugger(debuggee: Debuggee) -> None:
    """TLFS 20.1.2: in its order, and the platform is told."""
    assert debuggee.post_data(b"first ") == Status.SUCCESS
    assert debuggee.post_data(b"second") == Status.SUCCESS
    assert debuggee.machine.debug_posts == 2
    assert debuggee.pending() == 12
    assert debuggee.machine.debug_take(3) == b"fir"
    assert debuggee.pending() == 9
    assert debuggee.machine.debug_take() == b"st second"
    assert debuggee.pending() == 0
    assert debuggee.machine.debug_posts == 2, "a count of zero posts nothing"


def test_pending_count_includes_what_is_posted(debuggee: Debuggee) -> None:
    """TLFS 20.3.1."""
    assert debuggee.post_data(b"abc") == Status.SUCCESS
    assert debuggee.machine.read(OUTPUT, 8) == struct.pack("<II", 3, 0)


def test_a_whole_page_can_be_posted_and_no_more(debuggee: Debuggee) -> None:
    """TLFS 20.2.1: 4088 bytes with their header fill a page."""
    data = bytes(range(256)) * 15 + bytes(248)
    assert len(data) == MAXIMUM
    assert debuggee.post_data(data) == Status.SUCCESS
    assert debuggee.machine.debug_take() == data
    assert debuggee.post_data(b"", count=MAXIMUM + 1) == Status.INVALID_PARAMETER


def test_posted_data_must_not_cross_a_page(debuggee: Debuggee) -> None:
    """TLFS 20.3.1."""
    end = INPUT + PAGE - 16
    assert debuggee.post_data(b"12345678", gpa=end) == Status.SUCCESS
    assert debuggee.post_data(b"123456789", gpa=end) == Status.INVALID_PARAMETER
    assert debuggee.machine.debug_take() == b"12345678"


@pytest.mark.parametrize("options", [2, 4, 1 << 31, 3])
def test_post_options(debuggee: Debuggee, options: int) -> None:
    """TLFS 20.3.1: only the loop hint is one."""
    assert debuggee.post_data(b"x", options=options) == Status.INVALID_PARAMETER
    assert debuggee.post_data(b"x", options=LOOP) == Status.SUCCESS


def test_what_does_not_fit_is_not_posted_at_all(debuggee: Debuggee) -> None:
    """TLFS 20.1.2: INSUFFICIENT_BUFFERS; a guest that says it will be back lets others run (20.1.6)."""
    m = debuggee.machine
    for _ in range(4):
        assert debuggee.post_data(bytes(MAXIMUM)) == Status.SUCCESS
    room = BUFFER - 4 * MAXIMUM
    assert debuggee.post_data(bytes(room + 1)) == Status.INSUFFICIENT_BUFFERS
    assert m.spin_waits == []
    assert debuggee.post_data(bytes(room + 1), options=LOOP) == Status.INSUFFICIENT_BUFFERS
    assert m.spin_waits == [0]
    assert debuggee.pending() == 4 * MAXIMUM
    assert debuggee.post_data(bytes(room)) == Status.SUCCESS
    assert len(m.debug_take()) == BUFFER


def test_posted_data_that_cannot_be_read(generation: str) -> None:
    """TLFS 11.8: as any parameter: #MC for a missing right, before anything is posted."""
    debuggee = Debuggee(generation)
    debuggee.machine.map(INPUT, PAGE, readable=False)
    with pytest.raises(MachineCheck):
        debuggee.machine.read(INPUT, 1)
    assert debuggee.machine.call(0, POST_DEBUG_DATA, INPUT, OUTPUT).exit == Exit.MC
    assert debuggee.machine.debug_take() == b""


# -- 20.3.2 HvRetrieveDebugData --


def test_received_data_is_retrieved_in_order(debuggee: Debuggee) -> None:
    """TLFS 20.1.3, 20.3.2: as much as was asked for, and how much remains."""
    debuggee.machine.debug_receive(b"hello, guest")
    assert debuggee.retrieve(5) == (Status.SUCCESS, b"hello", 7)
    assert debuggee.retrieve() == (Status.SUCCESS, b", guest", 0)
    assert debuggee.retrieve() == (Status.NO_DATA, b"", 0)


def test_count_zero_only_looks(debuggee: Debuggee) -> None:
    """TLFS 20.3.2."""
    assert debuggee.retrieve(0)[0] == Status.NO_DATA
    debuggee.machine.debug_receive(b"abc")
    assert debuggee.retrieve(0) == (Status.SUCCESS, b"", 3)
    assert debuggee.retrieve() == (Status.SUCCESS, b"abc", 0)


def test_retrieval_limits(debuggee: Debuggee) -> None:
    """TLFS 20.3.2: at most 4088 bytes, not across a page, and two options."""
    debuggee.machine.debug_receive(bytes(100))
    assert debuggee.retrieve(MAXIMUM + 1)[0] == Status.INVALID_PARAMETER
    assert debuggee.retrieve(9, output=OUTPUT + PAGE - 16)[0] == Status.INVALID_PARAMETER
    assert debuggee.retrieve(1, options=4)[0] == Status.INVALID_PARAMETER
    assert debuggee.retrieve(8, output=OUTPUT + PAGE - 16) == (Status.SUCCESS, bytes(8), 92)


def test_only_what_was_retrieved_is_written(debuggee: Debuggee) -> None:
    """TLFS 20.3.2: the rest of the page stays."""
    debuggee.machine.write(OUTPUT, b"\xaa" * PAGE)
    debuggee.machine.debug_receive(b"abc")
    assert debuggee.retrieve()[0] == Status.SUCCESS
    assert debuggee.machine.read(OUTPUT + 8, 4) == b"abc\xaa"


def test_excess_bytes_are_lost(debuggee: Debuggee) -> None:
    """TLFS 20.1.3: what arrives and has no room is discarded; a polite platform knows how much there is."""
    m = debuggee.machine
    assert m.debug_room == BUFFER
    m.debug_receive(b"a" * (BUFFER - 1))
    assert m.debug_room == 1
    m.debug_receive(b"bcd")
    assert m.debug_room == 0
    found = b""
    while (part := debuggee.retrieve())[0] == Status.SUCCESS:
        found += part[1]
    assert found == b"a" * (BUFFER - 1) + b"b"


def test_activity(debuggee: Debuggee) -> None:
    """TLFS 20.1.5: INACTIVE, before anything else is looked at, while nothing came since the last retrieval."""
    assert debuggee.retrieve(options=TEST_ACTIVITY)[0] == Status.INACTIVE
    assert debuggee.retrieve(MAXIMUM + 1, TEST_ACTIVITY)[0] == Status.INACTIVE
    debuggee.machine.debug_receive(b"ab")
    assert debuggee.retrieve(1, TEST_ACTIVITY) == (Status.SUCCESS, b"a", 1)
    assert debuggee.retrieve(1, TEST_ACTIVITY)[0] == Status.INACTIVE, "although there is data"
    assert debuggee.retrieve(1) == (Status.SUCCESS, b"b", 0)


def test_loop_waits_until_the_timeout(debuggee: Debuggee) -> None:
    """TLFS 20.1.6, 20.3.2: the instruction does not retire, others run, and NO_DATA comes when the time is over."""
    m = debuggee.machine
    assert debuggee.one_retrieval(8, LOOP, 1000).exit == Exit.RETRY
    m.advance(999)
    assert debuggee.one_retrieval(8, LOOP, 1000).exit == Exit.RETRY
    assert m.spin_waits == [0, 0]
    m.advance(1)
    assert debuggee.one_retrieval(8, LOOP, 1000).status == Status.NO_DATA
    assert debuggee.one_retrieval(8, LOOP, 1000).exit == Exit.RETRY, "the next call waits anew"


def test_loop_ends_with_the_first_data(debuggee: Debuggee) -> None:
    """TLFS 20.1.6; whoever tests for activity too does so once."""
    m = debuggee.machine
    m.debug_receive(b"x")
    assert debuggee.retrieve() == (Status.SUCCESS, b"x", 0)
    m.debug_receive(b"")
    assert debuggee.one_retrieval(8, LOOP | TEST_ACTIVITY, 1 << 63).status == Status.INACTIVE
    assert debuggee.one_retrieval(8, LOOP, (1 << 64) - 1).exit == Exit.RETRY
    m.debug_receive(b"data")
    assert debuggee.one_retrieval(8, LOOP, (1 << 64) - 1).status == Status.SUCCESS
    assert m.read(OUTPUT, 12) == struct.pack("<II", 4, 0) + b"data"


def test_loop_ends_where_time_stands_still(debuggee: Debuggee) -> None:
    """TLFS 20.1.6: the hypervisor may always return to the guest, which tries again."""
    attempts = 0
    while debuggee.one_retrieval(8, LOOP, 1000).exit == Exit.RETRY:
        attempts += 1
        assert attempts < 2000
    assert 1000 <= attempts <= 1001


def test_loop_with_no_time_returns_at_once(debuggee: Debuggee) -> None:
    """TLFS 20.3.2."""
    assert debuggee.one_retrieval(8, LOOP, 0).status == Status.NO_DATA


# -- 20.3.3 HvResetDebugSession --


def test_purging(debuggee: Debuggee) -> None:
    """TLFS 20.1.4, 20.3.3: what the options name, and NO_DATA where there was nothing."""
    m = debuggee.machine
    m.debug_receive(b"in")
    assert debuggee.post_data(b"out") == Status.SUCCESS
    assert debuggee.reset_session(PURGE_INCOMING) == Status.SUCCESS
    assert debuggee.retrieve()[0] == Status.NO_DATA
    assert debuggee.pending() == 3
    assert debuggee.reset_session(PURGE_INCOMING) == Status.NO_DATA
    assert debuggee.reset_session(PURGE_INCOMING | PURGE_OUTGOING) == Status.SUCCESS
    assert m.debug_take() == b""
    assert debuggee.reset_session(PURGE_OUTGOING) == Status.NO_DATA


@pytest.mark.parametrize("options", [0, 4, 5, 1 << 31])
def test_reset_options(debuggee: Debuggee, options: int) -> None:
    """TLFS 20.3.3: at least one of the two, and nothing else."""
    assert debuggee.reset_session(options) == Status.INVALID_PARAMETER


def test_a_reset_of_the_machine_resets_the_session(debuggee: Debuggee) -> None:
    """TLFS 20.1.1: the session appears in a reset state."""
    debuggee.machine.debug_receive(b"in")
    assert debuggee.post_data(b"out") == Status.SUCCESS
    debuggee.machine.reset()
    debuggee.enable_hypercalls()
    assert debuggee.machine.debug_take() == b""
    assert debuggee.retrieve()[0] == Status.NO_DATA


def test_data_is_not_part_of_saved_state(debuggee: Debuggee) -> None:
    """TLFS 20.1.1: the session is there after a restore, and empty."""
    debuggee.machine.debug_receive(b"in")
    assert debuggee.post_data(b"out") == Status.SUCCESS
    debuggee.machine.restore(debuggee.machine.save())
    assert debuggee.machine.debug_take() == b""
    assert debuggee.retrieve()[0] == Status.NO_DATA


# -- Sessions of children --


class DebuggedChild:
    """A child with a session on a channel, whose software calls by itself."""

    def __init__(self, root: Root, channel: int) -> None:
        self.partition = root.partition(memory=48, privileges=root.get_property(1, PRIVILEGE_FLAGS) & ~(1 << 44))
        assert root.set_property(self.partition, DEBUG_CHANNEL_ID, channel) == Status.SUCCESS
        self.child = Child(root, self.partition)
        self.machine = root.machine

    def post_data(self, data: bytes) -> Status:
        """HvPostDebugData."""
        return self.child.status(POST_DEBUG_DATA, struct.pack("<II", len(data), 0) + data)

    def retrieve(self) -> bytes:
        """HvRetrieveDebugData of everything."""
        if self.child.status(RETRIEVE_DEBUG_DATA, struct.pack("<IIQ", MAXIMUM, 0, 0)) != Status.SUCCESS:
            return b""
        (count,) = struct.unpack("<I", self.machine.read(OUTPUT, 4, self.child.vp))
        return self.machine.read(OUTPUT + 8, count, self.child.vp)


def frame(channel: int, data: bytes) -> bytes:
    """A frame of the connection that sessions share."""
    return struct.pack("<HH", channel, len(data)) + data


@pytest.fixture
def root(generation: str) -> Root:
    """A root with a connection to a debugger."""
    return Root(generation, debugging=True)


def test_sessions_share_the_connection(root: Root) -> None:
    """TLFS 20.1, 20.1.1: the channel identifier tells them apart."""
    a, b = DebuggedChild(root, 7), DebuggedChild(root, 0xFFFF)
    assert a.post_data(b"from a") == Status.SUCCESS
    assert b.post_data(b"from b") == Status.SUCCESS
    taken = root.machine.debug_take()
    assert taken in (frame(7, b"from a") + frame(0xFFFF, b"from b"), frame(0xFFFF, b"from b") + frame(7, b"from a"))
    stream = frame(7, b"to a") + frame(3, b"to nobody") + frame(0xFFFF, b"to b") + frame(7, b"!")
    for byte in stream:
        root.machine.debug_receive(bytes([byte]))
    assert a.retrieve() == b"to a!"
    assert b.retrieve() == b"to b"


def test_a_small_buffer_takes_part_of_a_session(root: Root) -> None:
    """TLFS 20.1.2: frames are as long as there is room for, and whole."""
    a = DebuggedChild(root, 7)
    assert a.post_data(b"123456") == Status.SUCCESS
    assert root.machine.debug_take(8) == frame(7, b"1234")
    assert root.machine.debug_take(5) == frame(7, b"5")
    assert root.machine.debug_take(8) == frame(7, b"6")
    assert root.machine.debug_take(8) == b""


def test_break_in(root: Root) -> None:
    """TLFS 20.1: the multiplex message that a client sees as a break-in."""
    a = DebuggedChild(root, 7)
    root.machine.debug_receive(frame(7, b"") + frame(7, b"x"))
    assert a.retrieve() == b"bx"


def test_a_new_connection_begins_with_a_frame(root: Root) -> None:
    """What was cut off is forgotten (TLFS 20.1: the connection is volatile)."""
    a = DebuggedChild(root, 7)
    root.machine.debug_receive(frame(7, b"12345")[:6])
    root.machine.debug_connected()
    root.machine.debug_receive(frame(7, b"abc"))
    assert a.retrieve() == b"12abc"


def test_activity_is_the_connections(root: Root) -> None:
    """TLFS 20.1.5: the count is global: bytes for any session are activity."""
    a = DebuggedChild(root, 7)
    retrieval = struct.pack("<IIQ", 1, TEST_ACTIVITY, 0)
    assert a.child.status(RETRIEVE_DEBUG_DATA, retrieval) == Status.INACTIVE
    root.machine.debug_receive(frame(9, b"noise"))
    assert a.child.status(RETRIEVE_DEBUG_DATA, retrieval) == Status.NO_DATA
    assert a.child.status(RETRIEVE_DEBUG_DATA, retrieval) == Status.INACTIVE


def test_a_session_costs_pages_of_its_partitions_pool(generation: str) -> None:
    """TLFS 20.1.1: from when the privilege is there to the finalization."""
    in_use = []
    for debugging in (False, True):
        root = Root(generation, debugging=debugging)
        child = DebuggedChild(root, 7)
        in_use.append(root.balance(child.partition).in_use)
        root.destroy(child.partition)
    assert in_use[1] - in_use[0] == 8


def test_a_session_that_the_pool_cannot_pay(root: Root) -> None:
    """TLFS 20.1.1, 7.1.1: INSUFFICIENT_MEMORY, and the partition stays without the privilege."""
    partition = root.partition(vps=0, deposit=25)
    privileges = root.get_property(partition, PRIVILEGE_FLAGS)
    assert root.balance(partition).available < 8
    assert root.set_property(partition, PRIVILEGE_FLAGS, privileges | DEBUGGING) == Status.INSUFFICIENT_MEMORY
    assert root.get_property(partition, PRIVILEGE_FLAGS) == privileges
    root.deposit(partition, 8)
    assert root.set_property(partition, PRIVILEGE_FLAGS, privileges | DEBUGGING) == Status.SUCCESS


def test_initialization_reserves_a_session() -> None:
    """TLFS 20.1.1: the privilege is checked when the partition is initialized."""
    root = Root("current", debugging=True)
    partition = root.create_partition()
    privileges = root.get_property(partition, PRIVILEGE_FLAGS)
    assert root.set_property(partition, PRIVILEGE_FLAGS, privileges | DEBUGGING) == Status.SUCCESS
    root.deposit(partition, 20)
    assert root.initialize(partition) == Status.INSUFFICIENT_MEMORY
    assert root.balance(partition).in_use == 0
    root.deposit(partition, 8)
    assert root.initialize(partition) == Status.SUCCESS
    assert root.balance(partition).available == 0


def test_a_finalized_partition_has_no_session(root: Root) -> None:
    """TLFS 20.1.1: what was in it is gone, and the channel is free for another."""
    a = DebuggedChild(root, 7)
    assert a.post_data(b"last words") == Status.SUCCESS
    root.destroy(a.partition)
    assert root.machine.debug_take() == b""
    root.machine.debug_receive(frame(7, b"anybody?"))
    b = DebuggedChild(root, 7)
    assert b.retrieve() == b""


def test_children_are_restored_with_sessions(root: Root) -> None:
    """TLFS 20.1.1: and their pools are what they were."""
    a = DebuggedChild(root, 7)
    balance = root.balance(a.partition)
    root.machine.debug_receive(frame(7, b"lost"))
    root.machine.restore(root.machine.save())
    assert root.balance(a.partition) == balance
    assert a.retrieve() == b""
    root.machine.debug_receive(frame(7, b"found"))
    assert a.retrieve() == b"found"


# -- The synthetic debugger, later than 2.0a --


@pytest.fixture
def synthetic() -> Debuggee:
    """A guest of the current generation."""
    return Debuggee("current")


def test_discovery_of_the_synthetic_debugger(generation: str) -> None:
    """Later than TLFS 2.0a: leaves 0x40000080 to 82, and a bit for its registers; there with the privilege only."""
    m = Debuggee(generation).machine
    without = Guest("current", privileges=ALL_PRIVILEGES & ~DEBUGGING, debugging=True).machine
    if generation == "current":
        assert m.cpuid(0x40000000)[0] == 0x40000082
        eax, *name = m.cpuid(0x40000080)
        assert (eax, struct.pack("<3I", *name)) == (0x40000082, b"Microsoft VS")
        assert struct.pack("<I", m.cpuid(0x40000081)[0]) == b"VS#1"
        assert m.cpuid(0x40000082) == (2, 0, 0, 0)
        assert m.cpuid(0x40000003)[3] & 1 << 11
    else:
        assert m.cpuid(0x40000000)[0] == 0x40000006
        assert not m.cpuid(0x40000003)[3] & 1 << 11
    for leaf in (0x40000080, 0x40000081, 0x40000082):
        assert without.cpuid(leaf) == (0, 0, 0, 0)
    assert without.cpuid(0x40000000)[0] == 0x40000006


@pytest.mark.parametrize("msr", [CONTROL, STATUS, SEND, RECEIVE, PENDING, OPTIONS])
def test_registers_are_there_with_a_debugger_only(msr: int) -> None:
    """#GP otherwise, and in the older generation."""
    Debuggee("current").machine.rdmsr(0, msr)
    for guest in (Guest("current", privileges=ALL_PRIVILEGES), Debuggee("2008r2")):
        with pytest.raises(GeneralProtectionFault):
            guest.machine.rdmsr(0, msr)
        with pytest.raises(GeneralProtectionFault):
            guest.machine.wrmsr(0, msr, 0)


def test_registers_hold_what_is_written(synthetic: Debuggee) -> None:
    """The status is read-only, and the options say that hypercalls may be used."""
    m = synthetic.machine
    assert m.rdmsr(0, OPTIONS) == 4
    for msr in (CONTROL, SEND, RECEIVE, PENDING, OPTIONS):
        m.wrmsr(0, msr, 0x5000 if msr != CONTROL else 0)
        assert m.rdmsr(1, msr) == (0x5000 if msr != CONTROL else 0), "of the partition, not of the VP"
    with pytest.raises(GeneralProtectionFault):
        m.wrmsr(0, STATUS, 0)


def test_sending_by_register(synthetic: Debuggee) -> None:
    """The size is in the control register; what crosses a page or cannot be read is not sent."""
    m = synthetic.machine
    m.write(0x5000, b"by register")
    m.wrmsr(0, SEND, 0x5000)
    m.wrmsr(0, CONTROL, GO_SEND | 11 << 16)
    assert m.rdmsr(0, STATUS) == SENT
    assert m.debug_take() == b"by register"
    for gpa, size in ((0x5000, PAGE + 1), (0x5FFF, 2), (1 << 37, 1), (1 << 35, 1)):
        m.wrmsr(0, SEND, gpa)
        m.wrmsr(0, CONTROL, GO_SEND | size << 16)
        assert m.rdmsr(0, STATUS) == 0
    m.wrmsr(0, SEND, 0x5000)
    for _ in range(4):
        m.wrmsr(0, CONTROL, GO_SEND | PAGE << 16)
        assert m.rdmsr(0, STATUS) == SENT
    m.wrmsr(0, CONTROL, GO_SEND | 1 << 16)
    assert m.rdmsr(0, STATUS) == 0, "there is no room"


def test_receiving_by_register(synthetic: Debuggee) -> None:
    """At most to the end of the page; the status has the size."""
    m = synthetic.machine
    m.wrmsr(0, RECEIVE, 0x6000)
    m.wrmsr(0, CONTROL, GO_RECEIVE)
    assert m.rdmsr(0, STATUS) == 0
    m.debug_receive(b"z" * (PAGE + 5))
    m.wrmsr(0, CONTROL, GO_RECEIVE)
    assert m.rdmsr(0, STATUS) == RECEIVED | PAGE << 16
    assert m.read(0x6000, PAGE) == b"z" * PAGE
    m.wrmsr(0, RECEIVE, 1 << 37)
    m.wrmsr(0, CONTROL, GO_RECEIVE)
    assert m.rdmsr(0, STATUS) == 0, "nowhere to put it, so it stays"
    m.wrmsr(0, RECEIVE, 0x6000)
    m.wrmsr(0, CONTROL, GO_RECEIVE)
    assert m.rdmsr(0, STATUS) == RECEIVED | 5 << 16


def test_the_pending_byte(synthetic: Debuggee) -> None:
    """A byte in memory follows whether anything can be received."""
    m = synthetic.machine
    m.write(0x7010, b"\xaa\xaa")
    m.wrmsr(0, PENDING, 0x7010)
    assert m.read(0x7010, 2) == b"\x00\xaa"
    m.debug_receive(b"ab")
    assert m.read(0x7010, 1) == b"\x01"
    assert synthetic.retrieve(1)[0] == Status.SUCCESS
    assert m.read(0x7010, 1) == b"\x01"
    assert synthetic.retrieve(1)[0] == Status.SUCCESS
    assert m.read(0x7010, 1) == b"\x00"
    m.wrmsr(0, PENDING, 1 << 35)
    m.debug_receive(b"where there is no memory nobody is told")
