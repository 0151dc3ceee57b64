# SPDX-License-Identifier: GPL-2.0-or-later
"""State machines: whatever a guest does in whatever order, promises of the specification hold.

Each machine keeps a model of what must be true and lets hypothesis choose the steps. Any step may also be a
migration to another machine, which nobody may notice.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from simulated_guest import (
    APIC_ASSIST_PAGE,
    EVENT,
    GUEST_OS_ID,
    HYPERCALL,
    MASKED,
    ONES,
    PAGE,
    REFERENCE_TSC,
    SCONTROL,
    SIEFP,
    SIMP,
    STIMER0_CONFIG,
    STIMER0_COUNT,
    Guest,
    TimerMessage,
    timer_value,
)

from qemu_hv._core import GeneralProtectionFault, OverlayKind, Status

GENERATIONS = st.sampled_from(["2008r2", "current"])
FREQUENCIES = st.sampled_from([1_000_000_000, 2_560_000_000, 2_595_999_000])
BUFFERS = 16


class GuestMachine(RuleBasedStateMachine):
    """What all of them have: a guest, time that passes, and migration."""

    guest: Guest
    last_time: int
    VPS = 2

    @initialize(generation=GENERATIONS, frequency=FREQUENCIES)
    def start(self, generation: str, frequency: int) -> None:
        """Make the guest."""
        self.guest = Guest(generation, vps=self.VPS, tsc_frequency=frequency)
        self.last_time = 0
        self.prepare()

    def prepare(self) -> None:
        """Set up what the machine is about."""

    @rule()
    def migrate(self) -> None:
        """Go on in another machine that was restored from the saved state."""
        self.guest.machine = self.guest.machine.migrate()

    @rule()
    def save(self) -> None:
        """Saving changes nothing: the stream of the restored machine is the same."""
        stream = self.guest.machine.save()
        assert self.guest.machine.migrate().save() == stream

    @invariant()
    def time_is_monotonic(self) -> None:
        """TLFS 15.1.2: reference time never goes back, on whichever VP it is read."""
        if hasattr(self, "guest"):
            for vp in range(self.VPS):
                now = self.guest.time(vp)
                assert now >= self.last_time
                self.last_time = now


class Messages(GuestMachine):
    """TLFS 14.2: no message lost or doubled, order kept, pending flag right, interrupts raised."""

    SINTS = (2, 3)
    model: dict[int, deque[bytes]]
    queued_from: dict[int, int]
    masked: set[int]
    page_shown: bool
    serial: int

    def prepare(self) -> None:
        """A port for each of two SINTs of VP 1, and a second port for the first SINT."""
        self.guest.enable_synic(1)
        self.model = {sint: deque() for sint in self.SINTS}
        self.masked = set()
        self.page_shown = True
        self.serial = 0
        for port, sint in ((10, 2), (11, 3)):
            self.guest.open_port(port, sint=sint, vp=1)
            self.guest.set_sint(sint, 0x40 + sint, 1)

    def slot_full(self, sint: int) -> bool:
        """Whether the guest has not yet emptied the slot."""
        return self.page_shown and self.guest.message(sint, 1).type != 0

    def new_interrupts(self) -> list[tuple[int, int]]:
        """Interrupts since the last look."""
        interrupts = self.guest.machine.interrupts
        self.guest.machine.clear_records()
        return interrupts

    @rule(sint=st.sampled_from(SINTS), size=st.integers(4, 240), caller=st.integers(0, 1))
    def post(self, sint: int, size: int, caller: int) -> None:
        """A post succeeds while the port has buffers, and the message page is shown."""
        self.serial += 1
        payload = struct.pack("<I", self.serial).ljust(size, b"\x5a")
        full = self.slot_full(sint)
        waiting = len(self.model[sint]) - full
        status = self.guest.post(8 + sint, payload, vp=caller)
        if not self.page_shown:
            assert status == Status.INVALID_SYNIC_STATE
        elif full and waiting == BUFFERS:
            assert status == Status.INSUFFICIENT_BUFFERS
        else:
            assert status == Status.SUCCESS
            self.model[sint].append(payload)

    @precondition(lambda self: self.page_shown)
    @rule(sint=st.sampled_from(SINTS), polite=st.booleans())
    def receive(self, sint: int, polite: bool) -> None:
        """The slot holds the oldest message; the flag says whether EOM is wanted."""
        message = self.guest.message(sint, 1)
        if not message.type:
            return
        expected = self.model[sint].popleft()
        assert message.payload[: message.size] == expected
        assert message.origin == 8 + sint
        assert message.pending == bool(self.model[sint])
        wanted = self.guest.empty_slot(sint, 1)
        assert wanted == bool(self.model[sint])
        if polite and wanted:
            self.guest.end_of_message(1)
            assert self.guest.message(sint, 1).type != 0

    @rule()
    def end_of_message(self) -> None:
        """After EOM each empty slot has its next message."""
        self.guest.end_of_message(1)
        if self.page_shown:
            for sint in self.SINTS:
                assert (self.guest.message(sint, 1).type != 0) == bool(self.model[sint])

    @rule(ticks=st.integers(0, 1 << 28))
    def wait(self, ticks: int) -> None:
        """Time alone may deliver, and loses nothing."""
        self.guest.machine.advance_tsc(ticks)

    @rule(sint=st.sampled_from(SINTS), mask=st.booleans())
    def mask(self, sint: int, mask: bool) -> None:
        """Mask or unmask a source."""
        self.guest.set_sint(sint, 0x40 + sint | (MASKED if mask else 0), 1)
        (self.masked.add if mask else self.masked.discard)(sint)

    @rule()
    def accept_and_end(self) -> None:
        """Take interrupts as a processor does."""
        while self.guest.machine.accept(1) is not None:
            self.guest.machine.eoi(1)

    @rule(shown=st.booleans())
    def show_page(self, shown: bool) -> None:
        """Disable or show the message page; what it holds stays."""
        self.guest.machine.wrmsr(1, SIMP, self.guest.sim(1) | shown)
        self.page_shown = shown

    @invariant()
    def each_arrival_has_its_interrupt(self) -> None:
        """TLFS 14.2.4: interrupts are those of unmasked sources only."""
        if hasattr(self, "masked"):
            vectors = {vector for vp, vector in self.new_interrupts() if vp == 1}
            assert vectors <= {0x40 + sint for sint in self.SINTS}

    @invariant()
    def nothing_is_lost(self) -> None:
        """What was posted is in the slot or queued."""
        if hasattr(self, "model") and self.page_shown:
            queued = self.guest.machine.vp_state(1)["queued"]
            for sint in self.SINTS:
                assert queued[sint] + self.slot_full(sint) == len(self.model[sint])

    def teardown(self) -> None:
        """A guest that empties its slots and ends its messages gets everything that is left."""
        if not hasattr(self, "model"):
            return
        self.show_page(True)
        self.end_of_message()
        for sint in self.SINTS:
            while self.model[sint]:
                assert self.guest.message(sint, 1).type
                self.receive(sint, True)
            assert self.guest.message(sint, 1).type == 0


class Timers(GuestMachine):
    """TLFS 15.3: never early, one-shots exactly once, periods exact, times in messages true."""

    SINT = 5
    due: dict[int, int]
    period: dict[int, tuple[int, int]]
    """Start and period of periodic timers."""
    last: dict[int, int]

    def prepare(self) -> None:
        """VP 0 takes timer messages."""
        self.guest.enable_synic()
        self.guest.set_sint(self.SINT, 0x55)
        self.due, self.period, self.last = {}, {}, {}
        self.drain()

    def stop(self, timer: int) -> None:
        """Stop a timer and take what it may have sent before."""
        self.guest.machine.wrmsr(0, STIMER0_CONFIG + 2 * timer, 0)
        self.drain()
        self.due.pop(timer, None)
        self.period.pop(timer, None)
        self.last.pop(timer, None)

    def drain(self) -> None:
        """Receive all messages and check each."""
        while self.guest.message(self.SINT).type:
            message = self.guest.timer_message(self.SINT)
            self.check(message)
            self.guest.take_message(self.SINT)

    def check(self, message: TimerMessage) -> None:
        """A message is from a timer that was running, with true times."""
        now = self.guest.time()
        assert message.expiration <= message.delivery <= now
        if message.timer in self.due:
            assert message.expiration == self.due.pop(message.timer)
            assert self.guest.timer_config(message.timer) & 1 == 0
        else:
            start, period = self.period[message.timer]
            assert message.expiration > self.last.get(message.timer, start)
            assert (message.expiration - start) % period == 0
            self.last[message.timer] = message.expiration

    @rule(timer=st.integers(0, 3), delta=st.integers(-1000, 1_000_000), auto=st.booleans())
    def one_shot(self, timer: int, delta: int, auto: bool) -> None:
        """Arm a one-shot timer, in either of the two ways."""
        self.stop(timer)
        count = max(1, self.guest.time() + delta)
        self.due[timer] = count
        if auto:
            config = timer_value(self.SINT, enable=False, auto_enable=True)
            self.guest.machine.wrmsr(0, STIMER0_CONFIG + 2 * timer, config)
            self.guest.machine.wrmsr(0, STIMER0_COUNT + 2 * timer, count)
        else:
            self.guest.set_timer(timer, timer_value(self.SINT), count)

    @rule(timer=st.integers(0, 3), period=st.integers(2_000, 1_000_000), lazy=st.booleans())
    def periodic(self, timer: int, period: int, lazy: bool) -> None:
        """Start a periodic timer."""
        self.stop(timer)
        self.period[timer] = (self.guest.time(), period)
        self.guest.set_timer(timer, timer_value(self.SINT, periodic=True, lazy=lazy), period)

    @rule(timer=st.integers(0, 3), by_count=st.booleans())
    def cancel(self, timer: int, by_count: bool) -> None:
        """Stop a timer by either of its registers."""
        if by_count:
            self.guest.machine.wrmsr(0, STIMER0_COUNT + 2 * timer, 0)
            assert self.guest.timer_config(timer) & 1 == 0
        self.stop(timer)

    @rule(nano100=st.integers(0, 3_000_000))
    def wait(self, nano100: int) -> None:
        """Let time pass on a punctual platform."""
        self.guest.machine.advance(nano100)

    @rule(ticks=st.integers(0, 1 << 32))
    def wait_late(self, ticks: int) -> None:
        """Let time pass on a platform that calls timers late."""
        self.guest.machine.tsc += ticks
        self.guest.machine.fire_due_timers()

    @rule(timer=st.integers(0, 4))
    def call_early(self, timer: int) -> None:
        """Calling a timer at any time is harmless."""
        self.guest.machine.timer_expired(0, timer)

    @rule()
    def receive(self) -> None:
        """Take all messages; a one-shot that is due has then sent its own."""
        self.guest.machine.fire_due_timers()
        self.drain()
        now = self.guest.time()
        assert all(due > now for due in self.due.values())

    @invariant()
    def never_early(self) -> None:
        """TLFS 15.1.3."""
        if hasattr(self, "due") and self.guest.message(self.SINT).type:
            assert self.guest.timer_message(self.SINT).expiration <= self.guest.time()


class Overlays(GuestMachine):
    """TLFS 8.1.3: overlays cover RAM without changing it, keep their content, and uncover it."""

    PAGES = tuple(range(0x80000, 0x86000, PAGE))
    KINDS: ClassVar[dict[tuple[OverlayKind, int], int]] = {
        (OverlayKind.SIM, 0): SIMP,
        (OverlayKind.SIM, 1): SIMP,
        (OverlayKind.SIEF, 0): SIEFP,
        (OverlayKind.SIEF, 1): SIEFP,
        (OverlayKind.APIC_ASSIST, 0): APIC_ASSIST_PAGE,
    }
    ram: dict[int, bytes]
    shown: dict[tuple[OverlayKind, int], int]
    content: dict[tuple[OverlayKind, int], bytes]

    def prepare(self) -> None:
        """RAM under everything, all overlays disabled."""
        self.ram = {gpa: struct.pack("<Q", gpa) * 2 for gpa in self.PAGES}
        self.shown = {}
        self.content = {key: bytes(16) for key in self.KINDS}
        for gpa, data in self.ram.items():
            self.guest.machine.write(gpa + 64, data)

    def free_pages(self) -> list[int]:
        """Pages without an overlay: two on one page are undefined (TLFS 14.7)."""
        return [gpa for gpa in self.PAGES if gpa not in self.shown.values()]

    @rule(key=st.sampled_from(sorted(KINDS)), choice=st.integers(0, 5))
    def show(self, key: tuple[OverlayKind, int], choice: int) -> None:
        """Show or move an overlay."""
        pages = self.free_pages()
        gpa = pages[choice % len(pages)]
        self.guest.machine.wrmsr(key[1], self.KINDS[key], gpa | 1)
        self.shown[key] = gpa

    @rule(key=st.sampled_from(sorted(KINDS)))
    def hide(self, key: tuple[OverlayKind, int]) -> None:
        """Disable an overlay."""
        self.guest.machine.wrmsr(key[1], self.KINDS[key], 0)
        self.shown.pop(key, None)

    @rule(gpa=st.sampled_from(PAGES), data=st.binary(min_size=16, max_size=16))
    def write(self, gpa: int, data: bytes) -> None:
        """Write to whatever is at an address, at an offset that the hypervisor does not use."""
        self.guest.machine.write(gpa + 64, data)
        keys = [key for key, at in self.shown.items() if at == gpa]
        if keys:
            self.content[keys[0]] = data
        else:
            self.ram[gpa] = data

    @invariant()
    def memory_is_as_written(self) -> None:
        """What the guest reads, and what lies under it."""
        if not hasattr(self, "ram"):
            return
        m = self.guest.machine
        overlaid = {gpa: key for key, gpa in self.shown.items()}
        for gpa in self.PAGES:
            expected = self.content[overlaid[gpa]] if gpa in overlaid else self.ram[gpa]
            assert m.read(gpa + 64, 16) == expected
            assert m.read_ram(gpa + 64, 16) == self.ram[gpa]

    @invariant()
    def the_machine_knows(self) -> None:
        """The overlays shown are those that registers name."""
        if hasattr(self, "shown"):
            others = {OverlayKind.HYPERCALL, OverlayKind.REFERENCE_TSC}
            given = {(kind, vp): gpa for kind, vp, gpa in self.guest.machine.overlays if kind not in others}
            assert given == self.shown


class HypercallPage(GuestMachine):
    """TLFS 3.6, 4.12: the page is enabled if and only if an identity is set and the bit was taken."""

    identity: int
    register: int

    def prepare(self) -> None:
        """Start as enable_hypercalls() left it."""
        self.identity = self.guest.machine.rdmsr(0, GUEST_OS_ID)
        self.register = self.guest.machine.rdmsr(0, HYPERCALL)

    @rule(value=st.sampled_from([0, 1, ONES]), vp=st.integers(0, 1))
    def set_identity(self, value: int, vp: int) -> None:
        """Zero disables the page."""
        self.guest.machine.wrmsr(vp, GUEST_OS_ID, value)
        self.identity = value
        if not value:
            self.register &= ~1

    @rule(page=st.integers(0x80, 0x88), enable=st.booleans(), vp=st.integers(0, 1))
    def set_register(self, page: int, enable: bool, vp: int) -> None:
        """The enable bit is taken only with an identity."""
        value = page << 12 | enable
        self.guest.machine.wrmsr(vp, HYPERCALL, value)
        self.register = value if self.identity else value & ~1

    @rule(page=st.integers(1 << 24, (1 << 52) - 1))
    def set_beyond(self, page: int) -> None:
        """Outside the GPA space of 36 bits it is #GP."""
        with pytest.raises(GeneralProtectionFault):
            self.guest.machine.wrmsr(0, HYPERCALL, page << 12 | 1)

    @rule()
    def reset(self) -> None:
        """A reset clears both."""
        self.guest.machine.reset()
        self.identity = self.register = 0

    @invariant()
    def it_is_so(self) -> None:
        """Register, overlay and hypercalls agree."""
        if not hasattr(self, "register"):
            return
        m = self.guest.machine
        assert m.rdmsr(1, HYPERCALL) == self.register
        enabled = bool(self.register & 1)
        expected = [(OverlayKind.HYPERCALL, 0, self.register & ~0xFFF)] if enabled else []
        assert m.overlays == expected
        assert (m.hypercall(1, 0x10008).status == Status.SUCCESS) == enabled


class Ports(GuestMachine):
    """TLFS 14.4, 14.9: ports and connections against a model of the rules."""

    IDS = st.integers(1, 4)
    ports: dict[int, tuple[int, int]]
    """Type and generation number of each port."""
    connections: dict[int, int | None]
    """Port of each connection; None when it has been deleted."""
    posted: dict[int, int]

    def prepare(self) -> None:
        """VP 0 takes everything."""
        self.guest.enable_synic()
        self.guest.set_sint(2, 0x42)
        self.ports, self.connections, self.posted = {}, {}, {}

    @rule(port=IDS, port_type=st.sampled_from([1, EVENT]))
    def create(self, port: int, port_type: int) -> None:
        """A used ID is refused."""
        status = self.guest.machine.operator_create_port(port, port_type, 2, vp=0, flag_count=4)
        assert status == (Status.INVALID_PORT_ID if port in self.ports else Status.SUCCESS)
        if status == Status.SUCCESS:
            self.ports[port] = (port_type, 0)
            self.posted[port] = 0

    @rule(port=IDS)
    def delete(self, port: int) -> None:
        """Connections to a deleted port become useless."""
        status = self.guest.machine.operator_delete_port(port)
        assert status == (Status.SUCCESS if port in self.ports else Status.INVALID_PORT_ID)
        self.ports.pop(port, None)
        self.connections = {c: None if p == port else p for c, p in self.connections.items()}

    @rule(connection=IDS, port=IDS)
    def connect(self, connection: int, port: int) -> None:
        """One connection to a port, one use of an ID."""
        status = self.guest.machine.operator_connect_port(connection, port)
        wrong = set()
        if connection in self.connections:
            wrong.add(Status.INVALID_CONNECTION_ID)
        if port not in self.ports or port in self.connections.values():
            wrong.add(Status.INVALID_PORT_ID)
        assert status in (wrong or {Status.SUCCESS})
        if not wrong:
            self.connections[connection] = port

    @rule(connection=IDS)
    def disconnect(self, connection: int) -> None:
        """Only what is connected can be disconnected."""
        status = self.guest.machine.operator_disconnect_port(connection)
        known = connection in self.connections
        assert status == (Status.SUCCESS if known else Status.INVALID_CONNECTION_ID)
        self.connections.pop(connection, None)

    def expected(self, connection: int, port_type: int) -> Status:
        """What posting or signaling to a connection must answer."""
        if connection not in self.connections:
            return Status.INVALID_CONNECTION_ID
        port = self.connections[connection]
        if port is None or self.ports[port][0] != port_type:
            return Status.INVALID_PORT_ID
        return Status.SUCCESS

    @rule(connection=IDS)
    def post(self, connection: int) -> None:
        """A post reaches the connected port."""
        status = self.guest.post(connection, b"x")
        expected = self.expected(connection, 1)
        assert status == expected or (expected, status) == (Status.SUCCESS, Status.INSUFFICIENT_BUFFERS)
        if status == Status.SUCCESS:
            port = self.connections[connection]
            assert port is not None
            self.posted[port] += 1

    @rule(connection=IDS, flag=st.integers(0, 5))
    def signal(self, connection: int, flag: int) -> None:
        """A signal reaches the connected port."""
        expected = self.expected(connection, EVENT)
        if expected == Status.SUCCESS and flag >= 4:
            expected = Status.INVALID_PARAMETER
        assert self.guest.signal(connection, flag) == expected

    @rule()
    def receive(self) -> None:
        """Empty the slot."""
        self.guest.take_message(2)

    @rule()
    def disable_synic(self) -> None:
        """While it is disabled every post and signal is refused."""
        self.guest.machine.wrmsr(0, SCONTROL, 0)
        for connection in self.connections:
            if self.expected(connection, 1) == Status.SUCCESS:
                assert self.guest.post(connection) == Status.INVALID_SYNIC_STATE
        self.guest.machine.wrmsr(0, SCONTROL, 1)

    @invariant()
    def the_operator_sees_it(self) -> None:
        """Lists of ports and connections."""
        if hasattr(self, "posted"):
            m = self.guest.machine
            assert {p["port_id"]: p["post_count"] for p in m.ports()} == {p: self.posted[p] for p in self.ports}
            assert {c["connection_id"] for c in m.connections()} == set(self.connections)


class TscPage(GuestMachine):
    """TLFS 15.4: page and counter are one time base through everything."""

    page: int | None

    def prepare(self) -> None:
        """The page is hidden."""
        self.page = None

    @rule(page=st.integers(0x80, 0x84), enable=st.booleans())
    def set_register(self, page: int, enable: bool) -> None:
        """Show, move or hide the page."""
        self.guest.machine.wrmsr(0, REFERENCE_TSC, page << 12 | enable)
        self.page = page << 12 if enable else None

    @rule(ticks=st.integers(0, 1 << 45))
    def wait(self, ticks: int) -> None:
        """Let the TSC go on."""
        self.guest.machine.tsc += ticks

    @rule()
    def reset(self) -> None:
        """A reset hides the page, time goes on."""
        self.guest.machine.reset()
        self.page = None

    @rule(frequency=st.sampled_from([1_000_000_000, 3_333_333_333]))
    def migrate_to_another_kind(self, frequency: int) -> None:
        """A machine whose TSC used to tick otherwise takes over."""
        self.guest.machine = self.guest.machine.migrate(tsc_frequency=frequency)

    @invariant()
    def one_time_base(self) -> None:
        """At the same TSC both tell the same."""
        if hasattr(self, "page") and self.page is not None:
            sequence, _, scale, offset = struct.unpack("<IIQq", self.guest.machine.read(self.page, 24))
            assert sequence not in (0, 0xFFFFFFFF)
            assert ((self.guest.machine.tsc * scale >> 64) + offset) & ONES == self.guest.time()


TestMessages = Messages.TestCase
TestTimers = Timers.TestCase
TestOverlays = Overlays.TestCase
TestHypercallPage = HypercallPage.TestCase
TestPorts = Ports.TestCase
TestTscPage = TscPage.TestCase
