# SPDX-License-Identifier: GPL-2.0-or-later
"""Chapter 13.2 of the TLFS: the local APIC of a child's VP, compatible with that of the P4/Xeon family."""

from __future__ import annotations

import struct

import pytest
from child_apic import (
    APR,
    BASE_BOOT,
    BASE_DEFAULT,
    BASE_ENABLE,
    BASE_X2APIC,
    CREATE_X2APIC,
    CURRENT_COUNT,
    DFR,
    DIVIDE,
    EOI,
    ERROR_RECEIVE,
    ERROR_REGISTER,
    ERROR_SEND,
    ESR,
    EXTERNAL,
    FIXED,
    ICR_ASSERT,
    ICR_HIGH,
    ICR_LEVEL,
    ICR_LOW,
    ID,
    INIT,
    INITIAL_COUNT,
    IRR,
    ISR,
    LDR,
    LOGICAL,
    LOWEST,
    LVT_ERROR,
    LVT_LINT0,
    LVT_LINT1,
    LVT_MASKED,
    LVT_PERFORMANCE,
    LVT_THERMAL,
    LVT_TIMER,
    MSR_APIC_BASE,
    MSR_TSC_DEADLINE,
    MSR_X2APIC,
    NMI,
    PPR,
    RRD,
    SELF_IPI,
    SIPI,
    SMI,
    SVR,
    SVR_ENABLE,
    TIMER_DEADLINE,
    TIMER_PERIODIC,
    TMR,
    TO_ALL,
    TO_OTHERS,
    TO_SELF,
    TPR,
    VERSION,
    Apic,
    x2,
)
from root import READ, WRITE, Child, Root
from simulated_guest import (
    APIC_ASSIST_PAGE,
    ASSIST,
    AUTO_EOI,
    MASKED,
    PAGE,
    SCONTROL,
    SIM,
    SIMP,
    SINT0,
    STIMER0_CONFIG,
    STIMER0_COUNT,
    timer_value,
)
from simulated_guest import EOI as MSR_EOI
from simulated_guest import ICR as MSR_ICR
from simulated_guest import TPR as MSR_TPR

from qemu_hv._core import Line, Status, Translation

TICKS = 256
"""TSC ticks to 100 ns (Machine's default)."""
COUNTS = 100
"""Steps of an undivided APIC timer to 100 ns."""
LVTS = [LVT_TIMER, LVT_THERMAL, LVT_PERFORMANCE, LVT_LINT0, LVT_LINT1, LVT_ERROR]
SEND_CLUSTER_IPI = 0x000B


@pytest.fixture
def root(generation: str) -> Root:
    """A root with two VPs."""
    return Root(generation)


def make(root: Root, vps: int = 4, **options: int) -> list[Apic]:
    """The enabled local APICs of a new child."""
    if options.pop("x2apic", 0):
        options["flags"] = CREATE_X2APIC
    partition = root.partition(vps=vps, deposit=100 * vps + 100, **options)
    return [Apic(root, partition, index) for index in range(vps)]


@pytest.fixture
def apics(root: Root) -> list[Apic]:
    """Those of a child with four VPs."""
    return make(root)


@pytest.fixture
def apic(root: Root) -> Apic:
    """That of a child with one VP."""
    return make(root, 1)[0]


@pytest.fixture
def x2apic() -> Apic:
    """One in x2APIC mode."""
    apic = make(Root("current"), 1, x2apic=1)[0]
    apic.enter_x2apic()
    return apic


def halt(apic: Apic) -> None:
    """Have the VP run, and halt."""
    apic.root.resume(apic.partition, apic.index)
    apic.machine.set_waits(apic.vp, True)
    apic.machine.clear_records()


def events(apic: Apic, line: Line) -> list[bool]:
    """Changes of a line of the processor since the records were cleared."""
    return [raised for vp, which, raised in apic.machine.lines if (vp, which) == (apic.vp, line)]


# -- State after power-on --


def test_registers_after_power_on(root: Root) -> None:
    """SDM: nothing requested, all masked, disabled by software. TLFS 10.1.6: the ID is the VP's index."""
    partition = root.partition(vps=3, deposit=400)
    for index in range(3):
        apic = Apic(root, partition, index, enable=False)
        assert apic.read(ID) == index << 24
        assert apic.read(VERSION) == 0x00050014
        assert apic.read(SVR) == 0xFF
        assert apic.read(DFR) == 0xFFFFFFFF
        assert [apic.read(lvt) for lvt in LVTS] == [LVT_MASKED] * 6
        for register in (TPR, APR, PPR, EOI, RRD, LDR, ESR, ICR_LOW, ICR_HIGH, INITIAL_COUNT, CURRENT_COUNT, DIVIDE):
            assert apic.read(register) == 0
        assert (apic.irr, apic.isr, apic.tmr) == ([], [], [])
        assert apic.errors() == 0
        assert not apic.line
        assert apic.accept() is None


def test_base_register_after_power_on(apics: list[Apic]) -> None:
    """TLFS 10.1.5: the VP with index 0 is the only one with the BSP flag."""
    bases = [apic.rdmsr(MSR_APIC_BASE) for apic in apics]
    assert bases == [BASE_DEFAULT | BASE_ENABLE | BASE_BOOT] + [BASE_DEFAULT | BASE_ENABLE] * 3


def test_second_life_begins_anew(root: Root) -> None:
    """TLFS 10.4.1: a VP that is created again has nothing of what it was before."""
    partition = root.partition(vps=1)
    apic = Apic(root, partition, 0)
    apic.request(0x31)
    apic.write(TPR, 0x40)
    apic.write(ID, 7 << 24)
    apic.write(LVT_TIMER, 0x51)
    apic.write(INITIAL_COUNT, 1000)
    assert root.delete_vp(partition, 0) == Status.SUCCESS
    root.create_vp(partition, 0)
    apic = Apic(root, partition, 0, enable=False)
    assert (apic.read(TPR), apic.read(ID), apic.read(SVR), apic.read(INITIAL_COUNT)) == (0, 0, 0xFF, 0)
    assert (apic.irr, apic.line) == ([], False)
    assert apic.machine.timer_tsc(apic.vp, 5) is None


# -- Requested, accepted, ended --


def test_interrupt_from_request_to_end(apic: Apic) -> None:
    """An interrupt goes from the IRR to the ISR to its end; the processor is asked while there is something for it."""
    apic.request(0x51)
    assert (apic.irr, apic.isr, apic.line) == ([0x51], [], True)
    assert apic.accept() == 0x51
    assert (apic.irr, apic.isr, apic.line) == ([], [0x51], False)
    apic.eoi()
    assert (apic.irr, apic.isr, apic.line) == ([], [], False)
    assert apic.accept() is None


def test_end_without_interrupt(apic: Apic) -> None:
    """An EOI while nothing is in service does nothing."""
    apic.request(0x51)
    apic.eoi()
    assert (apic.irr, apic.isr, apic.line) == ([0x51], [], True)


def test_request_twice_is_one(apic: Apic) -> None:
    """A vector is requested once, and once more while it is in service."""
    apic.request(0x51)
    apic.request(0x51)
    assert apic.accept() == 0x51
    apic.request(0x51)
    assert (apic.irr, apic.isr) == ([0x51], [0x51])
    assert not apic.line
    apic.eoi()
    assert apic.line
    assert apic.accept() == 0x51
    assert apic.irr == []


@pytest.mark.parametrize("vector", [0x10, 0x1F, 0x20, 0x3F, 0x40, 0x80, 0xFE, 0xFF])
def test_every_word_of_the_registers(apic: Apic, vector: int) -> None:
    """Each vector has its bit."""
    apic.request(vector)
    assert apic.read(IRR + vector // 32 * 0x10) == 1 << vector % 32
    assert apic.accept() == vector
    assert apic.read(ISR + vector // 32 * 0x10) == 1 << vector % 32
    apic.eoi()
    assert apic.isr == []


# -- Priorities --


def test_highest_first(apic: Apic) -> None:
    """The highest vector is accepted first."""
    for vector in (0x31, 0xE0, 0x92):
        apic.request(vector)
    taken = []
    while (accepted := apic.accept()) is not None:
        taken.append(accepted)
        apic.eoi()
    assert taken == [0xE0, 0x92, 0x31]


def test_nesting_needs_a_higher_class(apic: Apic) -> None:
    """A vector of a higher class interrupts one in service; of the same class it waits."""
    apic.take(0x51)
    apic.request(0x5F)
    assert (apic.line, apic.accept()) == (False, None)
    apic.request(0x60)
    assert apic.line
    assert apic.accept() == 0x60
    assert apic.isr == [0x51, 0x60]
    apic.eoi()
    assert (apic.isr, apic.line) == ([0x51], False)
    apic.eoi()
    assert apic.accept() == 0x5F


def test_task_priority_blocks(apic: Apic) -> None:
    """Vectors of the task priority's class or lower wait; the line follows the TPR."""
    apic.request(0x51)
    apic.write(TPR, 0x50)
    assert (apic.line, apic.accept()) == (False, None)
    apic.write(TPR, 0x4F)
    assert apic.line
    apic.write(TPR, 0xF0)
    assert not apic.line
    apic.write(TPR, 0)
    assert apic.accept() == 0x51


@pytest.mark.parametrize(
    ("tpr", "in_service", "ppr"),
    [(0x00, 0x51, 0x50), (0x3F, 0x51, 0x50), (0x5A, 0x51, 0x5A), (0x6B, 0x51, 0x6B), (0x6B, None, 0x6B)],
)
def test_processor_priority(apic: Apic, tpr: int, in_service: int | None, ppr: int) -> None:
    """SDM: the PPR is the higher of the TPR and the class in service."""
    if in_service is not None:
        apic.take(in_service)
    apic.write(TPR, tpr)
    assert apic.read(PPR) == ppr
    apic.write(PPR, 0)
    assert apic.read(PPR) == ppr


def test_tpr_has_eight_bits(apic: Apic) -> None:
    """Reserved bits of the TPR are ignored."""
    apic.write(TPR, 0xFFFFFF5A)
    assert apic.read(TPR) == 0x5A


def test_cr8_is_the_class_of_the_tpr(apic: Apic) -> None:
    """SDM: CR8 is bits 7:4 of the TPR, and writing it clears the others."""
    m = apic.machine
    apic.write(TPR, 0x5A)
    assert m.read_cr8(apic.vp) == 5
    m.write_cr8(apic.vp, 9)
    assert apic.read(TPR) == 0x90
    apic.request(0x91)
    assert not apic.line
    m.write_cr8(apic.vp, 8)
    assert apic.line


# -- Trigger mode, and the message that ends a level-triggered interrupt --


def listen(root: Root) -> None:
    """Have the root take intercept messages at its VP 0."""
    root.enable_synic()
    root.set_sint(0, 0x30)


def test_trigger_mode_follows_the_request(root: Root, apic: Apic) -> None:
    """The TMR tells how the vector was requested last."""
    listen(root)
    apic.request(0x51, level=True)
    assert apic.tmr == [0x51]
    apic.request(0x51)
    assert apic.tmr == []


@pytest.mark.parametrize("way", ["memory", "register"])
def test_end_of_level_triggered_interrupt_tells_the_parent(root: Root, apic: Apic, way: str) -> None:
    """TLFS 13.3.4, 16.5.5: the parent gets a message with the vector, and the VP is suspended."""
    listen(root)
    apic.request(0x51, level=True)
    assert apic.accept() == 0x51
    assert root.message(0).type == 0
    apic.eoi() if way == "memory" else apic.machine.wrmsr(apic.vp, MSR_EOI, 0)
    message = root.take_message(0)
    assert message.type == (0x80010004 if root.current else 0x80000030)
    assert (message.size, message.origin) == (8, apic.partition)
    assert struct.unpack_from("<II", message.payload) == (0, 0x51)
    assert root.get_register(apic.partition, 0, 1) == 1
    assert apic.isr == []


def test_end_of_edge_triggered_interrupt_tells_nobody(root: Root, apic: Apic) -> None:
    """TLFS 16.5.5: only level-triggered interrupts have that message."""
    listen(root)
    apic.take(0x51)
    apic.eoi()
    assert root.message(0).type == 0
    assert root.get_register(apic.partition, 0, 1) == 0


def test_only_the_level_triggered_one_of_two_tells(root: Root, apic: Apic) -> None:
    """The message is for the interrupt that ended, not for one below it."""
    listen(root)
    apic.request(0x51, level=True)
    apic.accept()
    apic.take(0x61)
    apic.eoi()
    assert root.message(0).type == 0
    apic.eoi()
    assert struct.unpack_from("<II", root.message(0).payload) == (0, 0x51)


# -- Disabled by software --


def test_disabled_takes_no_fixed_interrupts(apic: Apic) -> None:
    """SDM: while disabled by software no fixed interrupt is taken; what is held stays and is delivered."""
    apic.request(0x51)
    apic.write(SVR, 0xFF)
    apic.request(0x61)
    assert (apic.irr, apic.line) == ([0x51], True)
    assert apic.accept() == 0x51


def test_disabled_masks_the_vector_table(apic: Apic) -> None:
    """SDM: disabling masks all entries, and they cannot be unmasked; enabling does not unmask them."""
    for lvt in LVTS:
        apic.write(lvt, 0x31)
    apic.write(SVR, 0xFF)
    assert [apic.read(lvt) for lvt in LVTS] == [LVT_MASKED | 0x31] * 6
    apic.write(LVT_TIMER, 0x32)
    assert apic.read(LVT_TIMER) == LVT_MASKED | 0x32
    apic.write(SVR, SVR_ENABLE | 0xFF)
    assert apic.read(LVT_TIMER) == LVT_MASKED | 0x32
    apic.write(LVT_TIMER, 0x32)
    assert apic.read(LVT_TIMER) == 0x32


def test_disabled_takes_nmi_and_init(apics: list[Apic]) -> None:
    """SDM: NMI, INIT and SIPI are taken as ever."""
    sender, target = apics[1], apics[0]
    target.write(SVR, 0xFF)
    target.machine.clear_records()
    sender.ipi(NMI << 8)
    sender.ipi(INIT << 8)
    assert events(target, Line.NMI) == [True]
    assert events(target, Line.INIT) == [True]


@pytest.mark.parametrize(
    ("register", "bits"),
    [
        (TPR, 0xFF),
        (LDR, 0xFF000000),
        (ID, 0xFF000000),
        (SVR, 0x3FF),
        (LVT_THERMAL, 0x107FF),
        (LVT_PERFORMANCE, 0x107FF),
        (LVT_LINT0, 0x1A7FF),
        (LVT_LINT1, 0x1A7FF),
        (LVT_ERROR, 0x100FF),
        (ICR_HIGH, 0xFF000000),
        (DIVIDE, 0xB),
        (INITIAL_COUNT, 0xFFFFFFFF),
    ],
)
def test_reserved_bits_are_ignored(apic: Apic, register: int, bits: int) -> None:
    """In memory reserved bits read as zero."""
    apic.write(register, 0xFFFFFFFF)
    assert apic.read(register) == bits
    apic.write(register, 0x100 if register == SVR else 0)
    assert apic.read(register) == (0x100 if register == SVR else 0)


def test_destination_format_has_four_bits(apic: Apic) -> None:
    """SDM: the other bits of the DFR are ones."""
    apic.write(DFR, 0)
    assert apic.read(DFR) == 0x0FFFFFFF


# -- Errors --


def test_illegal_vector_sent(apic: Apic) -> None:
    """SDM: an IPI with a vector below 16 is not sent, and the sender notes it."""
    for vector in (0, 0xF):
        apic.ipi(TO_SELF | vector)
        assert apic.irr == []
        assert apic.errors() == ERROR_SEND
    assert apic.errors() == 0


def test_illegal_vector_received(apic: Apic) -> None:
    """SDM: a vector below 16 is not taken, and the receiver notes it."""
    apic.request(0xF)
    assert (apic.irr, apic.errors()) == ([], ERROR_RECEIVE)


def test_illegal_vector_of_its_own(apic: Apic) -> None:
    """SDM: also one of the local vector table."""
    apic.write(LVT_TIMER, 0x0F)
    apic.write(INITIAL_COUNT, COUNTS)
    apic.machine.advance(10)
    assert (apic.irr, apic.errors()) == ([], ERROR_RECEIVE)


@pytest.mark.parametrize("register", [0x000, 0x040, 0x2F0, 0x3A0, SELF_IPI, 0x400, 0xFF0])
def test_register_that_does_not_exist(apic: Apic, register: int) -> None:
    """SDM: an access to a register that is not there reads zero and is noted."""
    assert apic.read(register) == 0
    assert apic.errors() == ERROR_REGISTER
    apic.write(register, 0xFFFFFFFF)
    assert apic.errors() == ERROR_REGISTER


@pytest.mark.parametrize("register", [VERSION, APR, PPR, RRD, ISR, TMR, IRR, CURRENT_COUNT])
def test_read_only_registers(apic: Apic, register: int) -> None:
    """Writing a read-only register does nothing and is no error."""
    before = apic.read(register)
    apic.write(register, 0xFFFFFFFF)
    assert (apic.read(register), apic.errors()) == (before, 0)


def test_between_registers(apic: Apic) -> None:
    """TLFS 13.2.2: 32 bits, aligned; what lies between the registers reads zero and ignores writes."""
    apic.write(TPR + 4, 0x40)
    assert (apic.read(TPR), apic.read(TPR + 4), apic.errors()) == (0, 0, 0)


def test_errors_show_when_written(apic: Apic) -> None:
    """SDM: the ESR shows what was noted up to its last write."""
    apic.ipi(TO_SELF | 1)
    assert apic.read(ESR) == 0
    apic.read(0x040)
    apic.write(ESR, 0)
    assert apic.read(ESR) == ERROR_SEND | ERROR_REGISTER
    apic.ipi(TO_SELF | 1)
    assert apic.read(ESR) == ERROR_SEND | ERROR_REGISTER
    assert apic.errors() == ERROR_SEND


def test_error_interrupt(apic: Apic) -> None:
    """SDM: an error interrupts by its entry of the vector table; writing the ESR arms that anew."""
    apic.write(LVT_ERROR, 0x71)
    apic.read(0x040)
    assert apic.accept() == 0x71
    apic.eoi()
    apic.read(0x040)
    assert apic.irr == []
    apic.write(ESR, 0)
    apic.read(0x040)
    assert apic.irr == [0x71]


def test_error_interrupt_with_illegal_vector(apic: Apic) -> None:
    """An error interrupt that is an error itself is noted, once."""
    apic.write(LVT_ERROR, 0x03)
    apic.read(0x040)
    assert (apic.irr, apic.errors()) == ([], ERROR_REGISTER | ERROR_RECEIVE)


# -- IPIs --


def requested(apics: list[Apic]) -> list[int]:
    """Indices of the VPs that have a request, which they then take and end."""
    found = []
    for index, apic in enumerate(apics):
        if apic.accept() is not None:
            found.append(index)
            apic.eoi()
    return found


@pytest.mark.parametrize(("destination", "targets"), [(0, [0]), (2, [2]), (3, [3]), (9, []), (0xFF, [0, 1, 2, 3])])
def test_physical_destination(apics: list[Apic], destination: int, targets: list[int]) -> None:
    """SDM: a physical destination is an APIC ID, or 0xFF for all."""
    apics[1].ipi(0x51, destination)
    assert requested(apics) == targets


def test_physical_destination_follows_the_id(apics: list[Apic]) -> None:
    """TLFS 10.1.6: software may change the APIC ID; two may have the same."""
    apics[2].write(ID, 0x20 << 24)
    apics[3].write(ID, 0x20 << 24)
    apics[0].ipi(0x51, 0x20)
    assert requested(apics) == [2, 3]
    apics[0].ipi(0x51, 2)
    assert requested(apics) == []


@pytest.mark.parametrize(
    ("destination", "targets"),
    [(0x01, [0]), (0x06, [1, 2]), (0x0F, [0, 1, 2, 3]), (0x80, []), (0x00, []), (0xFF, [0, 1, 2, 3])],
)
def test_flat_logical_destination(apics: list[Apic], destination: int, targets: list[int]) -> None:
    """SDM: in the flat model each APIC has a bit of its own."""
    for index, apic in enumerate(apics):
        apic.write(LDR, 1 << (24 + index))
    apics[0].ipi(LOGICAL | 0x51, destination)
    assert requested(apics) == targets


@pytest.mark.parametrize(
    ("destination", "targets"),
    [(0x11, [0]), (0x13, [0, 1]), (0x21, [2]), (0x2F, [2, 3]), (0x1C, []), (0x3F, []), (0xFF, [0, 1, 2, 3])],
)
def test_cluster_logical_destination(apics: list[Apic], destination: int, targets: list[int]) -> None:
    """SDM: in the cluster model a destination is a cluster's number and bits of its members."""
    for apic, ldr in zip(apics, (0x11, 0x12, 0x21, 0x22)):
        apic.write(DFR, 0x0FFFFFFF)
        apic.write(LDR, ldr << 24)
    apics[0].ipi(LOGICAL | 0x51, destination)
    assert requested(apics) == targets


@pytest.mark.parametrize(("shorthand", "targets"), [(TO_SELF, [1]), (TO_ALL, [0, 1, 2, 3]), (TO_OTHERS, [0, 2, 3])])
def test_shorthands(apics: list[Apic], shorthand: int, targets: list[int]) -> None:
    """SDM: a shorthand stands for the destination, which is ignored."""
    apics[1].ipi(shorthand | 0x51, 2)
    assert requested(apics) == targets


def test_icr_keeps_what_was_written(apic: Apic) -> None:
    """The ICR reads as written; delivery is never pending."""
    apic.ipi(TO_SELF | LOGICAL | 0x51, 0x42)
    assert apic.read(ICR_LOW) == TO_SELF | LOGICAL | ICR_ASSERT | 0x51
    assert apic.read(ICR_HIGH) == 0x42 << 24


def test_icr_high_sends_nothing(apic: Apic) -> None:
    """SDM: writing the low half sends."""
    apic.ipi(TO_SELF | 0x51)
    apic.accept()
    apic.eoi()
    apic.write(ICR_HIGH, 0)
    assert apic.irr == []


def test_ipi_is_edge_triggered(apics: list[Apic]) -> None:
    """SDM: a level-triggered IPI is treated as an edge when asserted, and ignored when de-asserted."""
    apics[0].ipi(ICR_LEVEL | 0x51, 1)
    assert (apics[1].irr, apics[1].tmr) == ([0x51], [])
    apics[0].write(ICR_LOW, ICR_LEVEL | 0x61)
    assert apics[0].irr == []


@pytest.mark.parametrize("shorthand", [TO_SELF, TO_ALL])
@pytest.mark.parametrize("mode", [LOWEST, SMI, NMI, INIT, SIPI])
def test_shorthands_that_are_not_valid(apics: list[Apic], shorthand: int, mode: int) -> None:
    """SDM: only fixed interrupts may be sent to oneself, or to all and oneself."""
    apics[0].machine.clear_records()
    apics[0].ipi(shorthand | mode << 8 | 0x51)
    assert requested(apics) == []
    assert apics[0].machine.lines == []
    assert apics[0].machine.starts == []


@pytest.mark.parametrize("mode", [SMI, 3, EXTERNAL])
def test_modes_that_are_not_sent(apics: list[Apic], mode: int) -> None:
    """TLFS 13.2.1: no SMI is generated; reserved modes and ExtINT are no IPIs."""
    apics[0].machine.clear_records()
    apics[0].ipi(mode << 8 | 0x51, 1)
    assert requested(apics) == []
    assert apics[0].machine.lines == []


# -- Lowest priority --


def test_lowest_priority(apics: list[Apic]) -> None:
    """The one with the lowest processor priority gets the interrupt."""
    for apic, tpr in zip(apics, (0x40, 0x20, 0x30, 0x50)):
        apic.write(TPR, tpr)
    apics[0].ipi(TO_OTHERS | LOWEST << 8 | 0x91)
    assert requested(apics) == [1]
    apics[1].take(0x61)
    apics[0].ipi(TO_OTHERS | LOWEST << 8 | 0x91)
    assert requested(apics) == [2]


def test_lowest_priority_needs_an_enabled_apic(apics: list[Apic]) -> None:
    """One that is disabled by software does not take part."""
    apics[1].write(SVR, 0xFF)
    for apic in (apics[2], apics[3]):
        apic.write(TPR, 0x40)
    for _ in range(8):
        apics[0].ipi(TO_OTHERS | LOWEST << 8 | 0x91)
        assert requested(apics)[0] in (2, 3)
    for apic in apics[2:]:
        apic.write(SVR, 0xFF)
    apics[0].ipi(TO_OTHERS | LOWEST << 8 | 0x91)
    assert requested(apics) == []


def test_lowest_priority_among_equals(apics: list[Apic]) -> None:
    """Equals take turns."""
    takers = set()
    for _ in range(16):
        apics[0].ipi(LOWEST << 8 | 0x91, 0xFF)
        taker = requested(apics)
        assert len(taker) == 1
        takers.update(taker)
    assert takers == {0, 1, 2, 3}


# -- NMI, INIT, SIPI --


def test_nmi(apics: list[Apic]) -> None:
    """An NMI raises its line; the vector is ignored and nothing is requested."""
    apics[0].machine.clear_records()
    apics[1].ipi(NMI << 8 | 0x51, 0)
    assert events(apics[0], Line.NMI) == [True]
    assert apics[0].irr == []


def test_nmi_wakes(apics: list[Apic]) -> None:
    """The LP of the VP is asked to look for work."""
    m = apics[0].machine
    halt(apics[0])
    apics[1].ipi(NMI << 8, 0)
    assert m.lp_of(apics[0].vp) in m.lp_kicks


def test_nmi_does_not_start_a_vp(apics: list[Apic]) -> None:
    """SDM: a processor that waits for SIPI takes nothing else."""
    apics[0].machine.clear_records()
    apics[0].ipi(NMI << 8, 1)
    assert events(apics[1], Line.NMI) == []


def test_sipi_starts_a_waiting_vp(apics: list[Apic]) -> None:
    """TLFS 10.4.1, 13.3.2: an application processor waits for SIPI, and starts at its vector."""
    m = apics[0].machine
    assert [m.waits_for_sipi(apic.vp) for apic in apics] == [False, True, True, True]
    apics[0].root.resume(apics[2].partition, 2)
    m.clear_records()
    apics[0].ipi(SIPI << 8 | 0x9A, 2)
    assert m.starts == [(apics[2].vp, 0x9A)]
    assert m.lp_of(apics[2].vp) in m.lp_kicks
    assert not m.waits_for_sipi(apics[2].vp)


def test_second_sipi_is_ignored(apics: list[Apic]) -> None:
    """SDM: software sends two; the second finds the processor running."""
    apics[0].ipi(SIPI << 8 | 0x9A, 2)
    apics[0].ipi(SIPI << 8 | 0x10, 2)
    assert apics[0].machine.starts == [(apics[2].vp, 0x9A)]


def test_sipi_does_not_restart_a_running_vp(apics: list[Apic]) -> None:
    """SDM: it needs an INIT first."""
    apics[1].ipi(SIPI << 8 | 0x9A, 0)
    assert apics[0].machine.starts == []


def test_sipi_to_all_others(apics: list[Apic]) -> None:
    """As firmware wakes all."""
    apics[0].ipi(TO_OTHERS | SIPI << 8 | 0x20)
    assert apics[0].machine.starts == [(apic.vp, 0x20) for apic in apics[1:]]


def test_init_of_a_waiting_vp(apics: list[Apic]) -> None:
    """A processor that waits for SIPI is not told of an INIT."""
    apics[0].machine.clear_records()
    apics[0].ipi(INIT << 8, 1)
    assert events(apics[1], Line.INIT) == []
    apics[0].ipi(SIPI << 8 | 0x9A, 1)
    assert apics[0].machine.starts == [(apics[1].vp, 0x9A)]


def started(apics: list[Apic], index: int = 1) -> Apic:
    """A VP that another one has started."""
    apics[0].ipi(SIPI << 8 | 0x9A, index)
    apics[0].machine.clear_records()
    return apics[index]


def test_init_and_sipi(apics: list[Apic]) -> None:
    """SDM: INIT, then SIPI, start a processor anew."""
    m = apics[0].machine
    target = started(apics)
    apics[0].ipi(INIT << 8, 1)
    apics[0].write(ICR_LOW, INIT << 8 | ICR_LEVEL)
    assert events(target, Line.INIT) == [True]
    m.init_done(target.vp)
    assert m.starts == []
    apics[0].ipi(SIPI << 8 | 0x33, 1)
    assert m.starts == [(target.vp, 0x33)]


def test_sipi_before_init_is_taken(apics: list[Apic]) -> None:
    """A SIPI that comes while the processor still has to take INIT is not lost."""
    m = apics[0].machine
    target = started(apics)
    apics[0].ipi(INIT << 8, 1)
    apics[0].ipi(INIT << 8, 1)
    apics[0].ipi(SIPI << 8 | 0x33, 1)
    assert (events(target, Line.INIT), m.starts) == ([True], [])
    m.init_done(target.vp)
    assert m.starts == [(target.vp, 0x33)]


def test_init_resets_the_apic(apics: list[Apic]) -> None:
    """SDM: INIT leaves the state of a reset, but for the APIC ID and IA32_APIC_BASE."""
    target = started(apics)
    target.write(SVR, SVR_ENABLE | 0xFF)
    target.write(ID, 0x21 << 24)
    assert target.wrmsr(MSR_APIC_BASE, 0x12345000 | BASE_ENABLE)
    target.write(TPR, 0x10)
    target.write(LDR, 1 << 24)
    target.write(LVT_TIMER, 0x41)
    target.write(INITIAL_COUNT, 1 << 30)
    target.ipi(TO_SELF | 0x51)
    assert target.line
    target.machine.init_done(target.vp)
    assert (target.read(ID), target.rdmsr(MSR_APIC_BASE)) == (0x21 << 24, 0x12345000 | BASE_ENABLE)
    assert (target.read(SVR), target.read(TPR), target.read(LDR), target.read(LVT_TIMER)) == (0xFF, 0, 0, LVT_MASKED)
    assert (target.irr, target.line) == ([], False)
    assert target.machine.timer_tsc(target.vp, 5) is None


def test_init_of_the_boot_processor(apics: list[Apic]) -> None:
    """SDM: the boot processor starts by itself after INIT."""
    m = apics[0].machine
    m.clear_records()
    apics[1].ipi(INIT << 8, 0)
    assert events(apics[0], Line.INIT) == [True]
    m.init_done(apics[0].vp)
    apics[1].ipi(SIPI << 8 | 0x33, 0)
    assert m.starts == []


# -- Waking --


def test_interrupt_wakes(apics: list[Apic]) -> None:
    """Something to deliver wakes the VP's LP; something that waits behind the TPR does not."""
    m = apics[0].machine
    apics[0].write(TPR, 0xF0)
    halt(apics[0])
    apics[1].ipi(0x51, 0)
    assert m.lp_kicks == []
    apics[0].write(TPR, 0)
    apics[0].accept()
    apics[0].eoi()
    m.clear_records()
    apics[1].ipi(0x51, 0)
    assert m.lp_kicks == [m.lp_of(apics[0].vp)]


# -- Synthetic registers (TLFS 13.2.3) --


def test_synthetic_registers(apics: list[Apic]) -> None:
    """EOI, ICR and TPR are those of the VP's APIC."""
    m, apic = apics[0].machine, apics[0]
    m.wrmsr(apic.vp, MSR_TPR, 0x35)
    assert (apic.read(TPR), m.rdmsr(apic.vp, MSR_TPR)) == (0x35, 0x35)
    m.wrmsr(apic.vp, MSR_ICR, 1 << 56 | ICR_ASSERT | 0x51)
    assert apics[1].irr == [0x51]
    assert m.rdmsr(apic.vp, MSR_ICR) == 1 << 56 | ICR_ASSERT | 0x51
    assert (apic.read(ICR_HIGH), apic.read(ICR_LOW)) == (1 << 24, ICR_ASSERT | 0x51)
    apics[1].accept()
    m.wrmsr(apics[1].vp, MSR_EOI, 0)
    assert apics[1].isr == []


def test_cluster_ipi() -> None:
    """The later generation's IPI hypercall goes to the caller's own partition."""
    root = Root("current")
    apics = make(root, 4, memory=48)
    child = Child(root, apics[0].partition)
    assert child.fast(SEND_CLUSTER_IPI, 0x51, 0b1110) == Status.SUCCESS
    assert requested(apics) == [1, 2, 3]
    assert root.machine.interrupts == []


# -- Auto-EOI and the assist page (TLFS 13.3.4.1, 14.6.5) --


def with_synic(root: Root, sint: int = 0x41) -> Apic:
    """A child's VP whose SINT 2 has that value and whose timer 0 sends messages there."""
    apic = make(root, 1, memory=96)[0]
    m = apic.machine
    m.wrmsr(apic.vp, SIMP, SIM | 1)
    m.wrmsr(apic.vp, SCONTROL, 1)
    m.wrmsr(apic.vp, SINT0 + 2, sint)
    return apic


def send_message(apic: Apic) -> None:
    """Have timer 0 of the VP expire at once."""
    apic.machine.wrmsr(apic.vp, STIMER0_COUNT, 1)
    apic.root.resume(apic.partition)
    apic.machine.wrmsr(apic.vp, STIMER0_CONFIG, timer_value(2))
    apic.machine.advance(10)


def test_synic_interrupts_the_child(root: Root) -> None:
    """A message to a child's VP interrupts by the VP's own APIC."""
    apic = with_synic(root)
    send_message(apic)
    assert struct.unpack("<I", apic.machine.read(SIM + 2 * 256, 4, apic.vp)) == (0x80000010,)
    assert apic.accept() == 0x41
    assert root.machine.interrupts == []


def test_auto_eoi(root: Root) -> None:
    """TLFS 14.6.5: the interrupt of a source with auto-EOI is never in service."""
    apic = with_synic(root, 0x41 | AUTO_EOI)
    send_message(apic)
    assert apic.accept() == 0x41
    assert (apic.isr, apic.line) == ([], False)


def test_masked_source_does_not_interrupt(root: Root) -> None:
    """TLFS 14.6.5: a masked source delivers its message without an interrupt."""
    apic = with_synic(root, 0x41 | MASKED)
    send_message(apic)
    assert struct.unpack("<I", apic.machine.read(SIM + 2 * 256, 4, apic.vp)) == (0x80000010,)
    assert apic.irr == []


def with_assist(root: Root) -> Apic:
    """A child's VP that shows its assist page."""
    apic = make(root, 1, memory=96)[0]
    apic.machine.wrmsr(apic.vp, APIC_ASSIST_PAGE, ASSIST | 1)
    return apic


def no_eoi_required(apic: Apic) -> bool:
    """What the assist page says."""
    (field,) = struct.unpack("<I", apic.machine.read(ASSIST, 4, apic.vp))
    return bool(field)


def assisted_eoi(apic: Apic) -> bool:
    """End an interrupt as TLFS 13.3.4.1 recommends; whether no register had to be written."""
    if no_eoi_required(apic):
        apic.machine.write(ASSIST, bytes(4), apic.vp)
        return True
    apic.eoi()
    return False


def test_assist_saves_the_eoi(root: Root) -> None:
    """An edge-triggered interrupt with nothing behind it needs no EOI, and the next one is taken all the same."""
    apic = with_assist(root)
    for vector in (0x51, 0x41, 0x51):
        apic.take(vector)
        assert no_eoi_required(apic)
        assert assisted_eoi(apic)
        assert apic.isr == []


def test_assist_seen_by_a_request_of_another(root: Root) -> None:
    """What the guest ended in memory counts when a lower interrupt is requested."""
    apic = with_assist(root)
    apic.take(0x51)
    assert assisted_eoi(apic)
    apic.request(0x41)
    assert apic.line
    assert apic.accept() == 0x41


def test_assist_not_for_level(root: Root) -> None:
    """TLFS 13.3.4.1: a level-triggered interrupt needs its EOI."""
    apic = with_assist(root)
    apic.request(0x51, level=True)
    apic.accept()
    assert not no_eoi_required(apic)


def test_assist_not_while_others_wait(root: Root) -> None:
    """TLFS 13.3.4.1: nor one behind which another waits."""
    apic = with_assist(root)
    apic.request(0x41)
    apic.take(0x51)
    assert not no_eoi_required(apic)
    apic.eoi()
    assert apic.line


def test_assist_is_withdrawn(root: Root) -> None:
    """TLFS 13.3.4.1: if a lower interrupt is requested later an EOI is required after all."""
    apic = with_assist(root)
    apic.take(0x51)
    apic.request(0x41)
    assert apic.line, "its processor has to look, as the guest may have ended the first one by now"
    assert apic.accept() is None
    assert not apic.line
    assert not no_eoi_required(apic)
    assert not assisted_eoi(apic)
    assert apic.accept() == 0x41


def test_assist_of_nested_interrupts(root: Root) -> None:
    """TLFS 13.3.4.1: the EOI is saved only for the highest one."""
    apic = with_assist(root)
    apic.take(0x51)
    apic.take(0x61)
    assert apic.isr == [0x51, 0x61]
    assert assisted_eoi(apic)
    assert apic.isr == [0x51]
    assert not assisted_eoi(apic)
    assert apic.isr == []


def test_eoi_register_while_none_is_required(root: Root) -> None:
    """TLFS 13.3.4.1: a conventional EOI works irrespective of the field."""
    apic = with_assist(root)
    apic.take(0x51)
    apic.eoi()
    assert (apic.isr, no_eoi_required(apic)) == ([], False)


# -- Timer --


def arm(apic: Apic, count: int, lvt: int = 0x51, divide: int = 0xB) -> None:
    """Start the timer; the default divides by 1."""
    apic.write(LVT_TIMER, lvt)
    apic.write(DIVIDE, divide)
    apic.write(INITIAL_COUNT, count)


def test_one_shot_timer(apic: Apic) -> None:
    """It interrupts once, when the count has gone."""
    arm(apic, 100 * COUNTS)
    assert apic.read(CURRENT_COUNT) == 100 * COUNTS
    apic.machine.advance(99)
    assert (apic.irr, apic.read(CURRENT_COUNT)) == ([], COUNTS)
    apic.machine.advance(1)
    assert (apic.irr, apic.read(CURRENT_COUNT)) == ([0x51], 0)
    assert apic.accept() == 0x51
    apic.machine.advance(1000)
    assert apic.irr == []
    assert apic.read(INITIAL_COUNT) == 100 * COUNTS


@pytest.mark.parametrize("periodic", [False, True])
def test_timer_that_is_late_survives_a_restore(apic: Apic, periodic: bool) -> None:
    """State that was saved when the timer had expired, and the platform had not told yet, holds the interrupt."""
    arm(apic, 100 * COUNTS, TIMER_PERIODIC | 0x51 if periodic else 0x51)
    due = apic.machine.timer_tsc(apic.vp, 5)
    assert due is not None
    apic.machine.tsc = due + 1000
    apic.machine.restore(apic.machine.save())
    assert apic.irr == []
    apic.machine.advance(1)
    assert apic.irr == [0x51]


def test_timer_is_never_early(apic: Apic) -> None:
    """A platform that calls too early is told the right time again."""
    arm(apic, 100 * COUNTS)
    due = apic.machine.timer_tsc(apic.vp, 5)
    apic.machine.advance(50)
    apic.machine.timer_expired(apic.vp, 5)
    assert apic.irr == []
    assert apic.machine.timer_tsc(apic.vp, 5) == due


def test_periodic_timer(apic: Apic) -> None:
    """It interrupts with each period; the count begins anew."""
    arm(apic, 1000 * COUNTS, TIMER_PERIODIC | 0x51)
    for _ in range(5):
        apic.machine.advance(999)
        assert apic.irr == []
        apic.machine.advance(1)
        assert apic.accept() == 0x51
        apic.eoi()
        assert apic.read(CURRENT_COUNT) == 1000 * COUNTS


def test_periodic_timer_keeps_its_phase(apic: Apic) -> None:
    """Periods that are missed are one interrupt, and the next comes when it would have come."""
    arm(apic, 1000 * COUNTS, TIMER_PERIODIC | 0x51)
    apic.machine.advance(4700)
    assert apic.accept() == 0x51
    apic.eoi()
    assert apic.read(CURRENT_COUNT) == 300 * COUNTS
    apic.machine.advance(299)
    assert apic.irr == []
    apic.machine.advance(1)
    assert apic.irr == [0x51]


def test_fast_periodic_timer_does_not_run_away(apic: Apic) -> None:
    """A period of a nanosecond interrupts at most each 50 us."""
    arm(apic, 1, TIMER_PERIODIC | 0x51)
    taken = 0
    for _ in range(100):
        apic.machine.advance(100)
        if apic.accept() is not None:
            apic.eoi()
            taken += 1
    assert 10 <= taken <= 21


@pytest.mark.parametrize(
    ("divide", "divisor"), [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (0xA, 128), (0xB, 1)]
)
def test_timer_divider(apic: Apic, divide: int, divisor: int) -> None:
    """SDM: bits 3, 1 and 0 of the divide configuration."""
    arm(apic, 10 * COUNTS, divide=divide)
    apic.machine.advance(10 * divisor - 1)
    assert apic.irr == []
    apic.machine.advance(1)
    assert apic.irr == [0x51]


def test_divider_changes_while_counting(apic: Apic) -> None:
    """What is left is counted at the new rate."""
    arm(apic, 100 * COUNTS)
    apic.machine.advance(50)
    apic.write(DIVIDE, 0)
    assert apic.read(CURRENT_COUNT) == 50 * COUNTS
    apic.machine.advance(99)
    assert apic.irr == []
    apic.machine.advance(1)
    assert apic.irr == [0x51]


def test_count_of_zero_stops(apic: Apic) -> None:
    """SDM: writing zero stops the timer."""
    arm(apic, 100 * COUNTS)
    apic.write(INITIAL_COUNT, 0)
    apic.machine.advance(200)
    assert (apic.irr, apic.read(CURRENT_COUNT)) == ([], 0)


def test_writing_the_count_restarts(apic: Apic) -> None:
    """SDM: a new count begins at once."""
    arm(apic, 100 * COUNTS)
    apic.machine.advance(60)
    apic.write(INITIAL_COUNT, 100 * COUNTS)
    apic.machine.advance(60)
    assert apic.irr == []
    apic.machine.advance(40)
    assert apic.irr == [0x51]


def test_masked_timer_counts(apic: Apic) -> None:
    """Masked, it counts and does not interrupt; one that expired meanwhile does not make up for it."""
    arm(apic, 100 * COUNTS, LVT_MASKED | 0x51)
    apic.machine.advance(40)
    assert apic.read(CURRENT_COUNT) == 60 * COUNTS
    apic.write(LVT_TIMER, 0x51)
    apic.machine.advance(60)
    assert apic.accept() == 0x51
    apic.eoi()
    apic.write(LVT_TIMER, LVT_MASKED | 0x51)
    apic.write(INITIAL_COUNT, 100 * COUNTS)
    apic.machine.advance(150)
    apic.write(LVT_TIMER, 0x51)
    apic.machine.advance(150)
    assert (apic.irr, apic.read(CURRENT_COUNT)) == ([], 0)


def test_masked_periodic_timer_goes_on(apic: Apic) -> None:
    """Unmasked, a periodic one interrupts at the end of the period that runs."""
    arm(apic, 1000 * COUNTS, TIMER_PERIODIC | LVT_MASKED | 0x51)
    apic.machine.advance(2500)
    assert apic.irr == []
    apic.write(LVT_TIMER, TIMER_PERIODIC | 0x51)
    apic.machine.advance(499)
    assert apic.irr == []
    apic.machine.advance(1)
    assert apic.irr == [0x51]


def test_periodic_to_one_shot(apic: Apic) -> None:
    """A change of mode ends with the period that runs."""
    arm(apic, 1000 * COUNTS, TIMER_PERIODIC | 0x51)
    apic.machine.advance(500)
    apic.write(LVT_TIMER, 0x51)
    apic.machine.advance(500)
    assert apic.accept() == 0x51
    apic.eoi()
    apic.machine.advance(5000)
    assert (apic.irr, apic.read(CURRENT_COUNT)) == ([], 0)


def test_no_deadline_mode_in_2008r2() -> None:
    """The TSC-deadline mode came later: its bit does not exist, nor does its register."""
    apic = make(Root("2008r2"), 1)[0]
    apic.write(LVT_TIMER, TIMER_DEADLINE | 0x51)
    assert apic.read(LVT_TIMER) == 0x51
    listen(apic.root)
    assert apic.rdmsr(MSR_TSC_DEADLINE) is None
    assert not apic.wrmsr(MSR_TSC_DEADLINE, 1)


@pytest.fixture
def deadline() -> Apic:
    """An APIC whose timer is in TSC-deadline mode."""
    apic = make(Root("current"), 1)[0]
    apic.write(LVT_TIMER, TIMER_DEADLINE | 0x51)
    return apic


def test_deadline_timer(deadline: Apic) -> None:
    """SDM: it interrupts when the TSC has reached the deadline, and then reads zero."""
    m = deadline.machine
    target = m.tsc + 1000
    assert deadline.wrmsr(MSR_TSC_DEADLINE, target)
    assert deadline.rdmsr(MSR_TSC_DEADLINE) == target
    m.advance_tsc(999)
    assert deadline.irr == []
    m.advance_tsc(1)
    m.fire_due_timers()
    assert deadline.irr == [0x51]
    assert deadline.rdmsr(MSR_TSC_DEADLINE) == 0


def test_deadline_in_the_past(deadline: Apic) -> None:
    """SDM: it interrupts at once."""
    deadline.machine.advance(10)
    assert deadline.wrmsr(MSR_TSC_DEADLINE, 1)
    assert deadline.irr == [0x51]
    assert deadline.rdmsr(MSR_TSC_DEADLINE) == 0


def test_deadline_of_zero_disarms(deadline: Apic) -> None:
    """SDM: writing zero disarms the timer."""
    m = deadline.machine
    assert deadline.wrmsr(MSR_TSC_DEADLINE, m.tsc + 1000)
    assert deadline.wrmsr(MSR_TSC_DEADLINE, 0)
    m.advance(100)
    assert deadline.irr == []


def test_deadline_mode_has_no_count(deadline: Apic) -> None:
    """SDM: the initial count is ignored and the current count reads zero."""
    deadline.write(INITIAL_COUNT, 1000)
    assert (deadline.read(INITIAL_COUNT), deadline.read(CURRENT_COUNT)) == (0, 0)
    deadline.machine.advance(1000)
    assert deadline.irr == []


def test_deadline_in_another_mode(deadline: Apic) -> None:
    """SDM: in another mode the register reads zero and ignores writes; changing the mode disarms."""
    m = deadline.machine
    assert deadline.wrmsr(MSR_TSC_DEADLINE, m.tsc + 1000)
    deadline.write(LVT_TIMER, 0x51)
    assert deadline.rdmsr(MSR_TSC_DEADLINE) == 0
    assert deadline.wrmsr(MSR_TSC_DEADLINE, m.tsc + 1000)
    assert deadline.rdmsr(MSR_TSC_DEADLINE) == 0
    m.advance(1000)
    assert deadline.irr == []
    deadline.write(INITIAL_COUNT, 1000 * COUNTS)
    deadline.write(LVT_TIMER, TIMER_DEADLINE | 0x51)
    m.advance(5000)
    assert deadline.irr == []


def test_deadline_is_of_the_vps_own_tsc(deadline: Apic) -> None:
    """A VP whose TSC was set has its deadlines by that."""
    m = deadline.machine
    assert deadline.wrmsr(0x10, 1_000_000)
    assert deadline.wrmsr(MSR_TSC_DEADLINE, 1_000_000 + 512)
    m.advance_tsc(511)
    m.fire_due_timers()
    assert deadline.irr == []
    m.advance_tsc(1)
    m.fire_due_timers()
    assert deadline.irr == [0x51]


@pytest.mark.parametrize("ahead", [0, 1 << 40])
def test_deadline_when_the_tsc_is_set(deadline: Apic, ahead: int) -> None:
    """SDM: the TSC is compared with the deadline whatever moves it."""
    target = deadline.machine.tsc + (1 << 30)
    assert deadline.wrmsr(MSR_TSC_DEADLINE, target)
    assert deadline.wrmsr(0x10, target + ahead)
    assert deadline.irr == [0x51]
    assert deadline.accept() == 0x51
    assert deadline.wrmsr(0x10, 1 << 50)
    assert deadline.wrmsr(MSR_TSC_DEADLINE, (1 << 50) + 256)
    assert deadline.wrmsr(0x10, 1 << 49)
    deadline.machine.advance(1000)
    assert deadline.irr == []


def test_late_timer_of_a_deleted_vp(root: Root) -> None:
    """The platform may call back after the VP has gone, and after it has been created again."""
    partition = root.partition(vps=1)
    apic = Apic(root, partition, 0)
    arm(apic, 100 * COUNTS)
    m = root.machine
    m.advance(200)
    assert root.delete_vp(partition, 0) == Status.SUCCESS
    for timer in range(7):
        m.timer_expired(apic.vp, timer)
    root.create_vp(partition, 0)
    assert root.handle(partition, 0) == apic.vp
    for timer in range(7):
        m.timer_expired(apic.vp, timer)
    assert apic.irr == []


# -- IA32_APIC_BASE --


def test_page_where_it_is(root: Root, apic: Apic) -> None:
    """TLFS 13.2.2: the registers are at the base address, over memory, and move with it."""

    def kind(gpa: int) -> Translation:
        return root.machine.translate(apic.vp, gpa, READ | WRITE)[0]

    root.map_memory(apic.partition, 0x100, 1)
    assert (kind(BASE_DEFAULT), kind(0x100 * PAGE)) == (Translation.APIC, Translation.RAM)
    root.machine.clear_records()
    assert apic.wrmsr(MSR_APIC_BASE, 0x100 * PAGE | BASE_ENABLE | BASE_BOOT)
    assert root.machine.second_stage_flushes == [(apic.vp, [apic.vp])]
    assert (kind(BASE_DEFAULT), kind(0x100 * PAGE)) == (Translation.UNMAPPED, Translation.APIC)
    assert apic.rdmsr(MSR_APIC_BASE) == 0x100 * PAGE | BASE_ENABLE | BASE_BOOT


def test_base_register_without_change(root: Root, apic: Apic) -> None:
    """Writing the value that is there costs no flush."""
    root.machine.clear_records()
    assert apic.wrmsr(MSR_APIC_BASE, BASE_DEFAULT | BASE_ENABLE | BASE_BOOT)
    assert root.machine.second_stage_flushes == []


@pytest.mark.parametrize("bit", [0, 1, 7, 9, 36, 51, 63])
def test_reserved_bits_of_the_base_register(apic: Apic, bit: int) -> None:
    """Reserved bits, and those above the physical address width, are #GP."""
    assert not apic.wrmsr(MSR_APIC_BASE, BASE_DEFAULT | BASE_ENABLE | BASE_BOOT | 1 << bit)
    assert apic.rdmsr(MSR_APIC_BASE) == BASE_DEFAULT | BASE_ENABLE | BASE_BOOT


def test_boot_processor_flag_stays(apics: list[Apic]) -> None:
    """TLFS 10.1.5: which VP is the boot processor does not change."""
    assert apics[0].wrmsr(MSR_APIC_BASE, BASE_DEFAULT | BASE_ENABLE)
    assert apics[1].wrmsr(MSR_APIC_BASE, BASE_DEFAULT | BASE_ENABLE | BASE_BOOT)
    assert apics[0].rdmsr(MSR_APIC_BASE) == BASE_DEFAULT | BASE_ENABLE | BASE_BOOT
    assert apics[1].rdmsr(MSR_APIC_BASE) == BASE_DEFAULT | BASE_ENABLE


def test_switched_off(root: Root, apic: Apic) -> None:
    """Switched off, it has no page, holds nothing and takes nothing; switched on, it is as after power-on."""
    apic.write(TPR, 0x20)
    apic.request(0x51)
    assert apic.wrmsr(MSR_APIC_BASE, BASE_DEFAULT | BASE_BOOT)
    assert root.machine.translate(apic.vp, BASE_DEFAULT, READ)[0] == Translation.UNMAPPED
    assert not apic.line
    apic.request(0x61)
    assert apic.accept() is None
    assert apic.wrmsr(MSR_APIC_BASE, BASE_DEFAULT | BASE_ENABLE)
    assert (apic.irr, apic.read(TPR), apic.read(SVR)) == ([], 0, 0xFF)


# -- x2APIC --


def test_no_x2apic_unless_created_with_it(generation: str) -> None:
    """It came later, and the parent has to ask for it when it creates the partition."""
    apic = make(Root(generation), 1)[0]
    assert not apic.wrmsr(MSR_APIC_BASE, BASE_DEFAULT | BASE_ENABLE | BASE_X2APIC)


def test_x2apic_transitions() -> None:
    """SDM: on through xAPIC, out only by switching off."""
    apic = make(Root("current"), 1, x2apic=1)[0]
    off, on, x2apic = (BASE_DEFAULT | bits for bits in (0, BASE_ENABLE, BASE_ENABLE | BASE_X2APIC))
    for value, allowed in [
        (BASE_DEFAULT | BASE_X2APIC, False),
        (x2apic, True),
        (on, False),
        (BASE_DEFAULT | BASE_X2APIC, False),
        (x2apic, True),
        (off, True),
        (x2apic, False),
        (BASE_DEFAULT | BASE_X2APIC, False),
        (on, True),
        (off, True),
    ]:
        assert apic.wrmsr(MSR_APIC_BASE, value) == allowed


def test_x2apic_has_no_page(x2apic: Apic) -> None:
    """In x2APIC mode the registers are not in memory."""
    assert x2apic.machine.translate(x2apic.vp, BASE_DEFAULT, READ)[0] == Translation.UNMAPPED


def test_registers_are_no_msrs_in_xapic_mode() -> None:
    """In xAPIC mode the registers are #GP as MSRs."""
    apic = make(Root("current"), 1, x2apic=1)[0]
    for register in (ID, TPR, ICR_LOW, SVR):
        assert apic.rdmsr(x2(register)) is None
        assert not apic.wrmsr(x2(register), 0)


def test_x2apic_keeps_what_was_set_up() -> None:
    """The change of mode keeps requests and registers."""
    apic = make(Root("current"), 1, x2apic=1)[0]
    apic.write(TPR, 0x20)
    apic.request(0x51)
    apic.enter_x2apic()
    assert (apic.rdmsr(x2(TPR)), apic.rdmsr(x2(IRR + 0x20))) == (0x20, 1 << 0x11)
    assert apic.accept() == 0x51


READ_ONLY = [ID, VERSION, PPR, LDR, ISR, ISR + 0x70, TMR, TMR + 0x70, IRR, IRR + 0x70, CURRENT_COUNT]
MISSING = [0x000, APR, RRD, DFR, 0x290, 0x2F0, ICR_HIGH, 0x3A0, 0x400, 0xFF0]
WRITE_ONLY = [EOI, SELF_IPI]
BITS = {
    TPR: 0xFF,
    SVR: 0x3FF,
    INITIAL_COUNT: 0xFFFFFFFF,
    DIVIDE: 0xB,
    LVT_TIMER: 0x700FF,
    LVT_THERMAL: 0x107FF,
    LVT_PERFORMANCE: 0x107FF,
    LVT_LINT0: 0x1A7FF,
    LVT_LINT1: 0x1A7FF,
    LVT_ERROR: 0x100FF,
}


@pytest.mark.parametrize("register", READ_ONLY)
def test_x2apic_read_only(x2apic: Apic, register: int) -> None:
    """SDM: writing a read-only register is #GP."""
    assert x2apic.rdmsr(x2(register)) is not None
    assert not x2apic.wrmsr(x2(register), 0)


@pytest.mark.parametrize("register", MISSING)
def test_x2apic_missing(x2apic: Apic, register: int) -> None:
    """SDM: a register that does not exist in this mode is #GP, and no error."""
    assert x2apic.rdmsr(x2(register)) is None
    assert not x2apic.wrmsr(x2(register), 0)
    assert x2apic.wrmsr(x2(ESR), 0)
    assert x2apic.rdmsr(x2(ESR)) == 0


@pytest.mark.parametrize("register", WRITE_ONLY)
def test_x2apic_write_only(x2apic: Apic, register: int) -> None:
    """SDM: reading a write-only register is #GP."""
    assert x2apic.rdmsr(x2(register)) is None


@pytest.mark.parametrize("register", [EOI, ESR])
def test_x2apic_written_with_zero_only(x2apic: Apic, register: int) -> None:
    """SDM: EOI and ESR take zero and nothing else."""
    assert x2apic.wrmsr(x2(register), 0)
    assert not x2apic.wrmsr(x2(register), 1)


@pytest.mark.parametrize(("register", "bits"), BITS.items())
def test_x2apic_reserved_bits(x2apic: Apic, register: int, bits: int) -> None:
    """SDM: a reserved bit is #GP, the upper half included."""
    for bit in range(64):
        value = 1 << bit | (SVR_ENABLE if register == SVR else 0)
        if register == LVT_TIMER and value == TIMER_DEADLINE:
            continue
        assert x2apic.wrmsr(x2(register), value) == bool(bits >> bit & 1), bit
        if bits >> bit & 1:
            assert x2apic.rdmsr(x2(register)) == value


def test_x2apic_icr_reserved_bits(x2apic: Apic) -> None:
    """SDM: reserved bits of the ICR are #GP; the upper half is the destination."""
    for bit in range(64):
        legal = bit >= 32 or 0x000CCFFF >> bit & 1
        assert x2apic.wrmsr(x2(ICR_LOW), 0x51 | 1 << bit) == bool(legal), bit


def test_x2apic_end_and_self_ipi(x2apic: Apic) -> None:
    """SELF IPI requests, EOI ends."""
    assert x2apic.wrmsr(x2(SELF_IPI), 0x51)
    assert x2apic.accept() == 0x51
    assert x2apic.rdmsr(x2(ISR + 0x20)) == 1 << 0x11
    assert x2apic.wrmsr(x2(EOI), 0)
    assert x2apic.rdmsr(x2(ISR + 0x20)) == 0


def test_x2apic_self_ipi_with_illegal_vector(x2apic: Apic) -> None:
    """SDM: it is noted, not sent."""
    assert x2apic.wrmsr(x2(SELF_IPI), 0x0F)
    assert x2apic.wrmsr(x2(ESR), 0)
    assert x2apic.rdmsr(x2(ESR)) == ERROR_SEND


def in_x2apic_mode(vps: int = 4) -> list[Apic]:
    """A child all of whose APICs are in x2APIC mode."""
    apics = make(Root("current"), vps, x2apic=1)
    for apic in apics:
        apic.enter_x2apic()
    return apics


def requested_x2(apics: list[Apic]) -> list[int]:
    """As requested()."""
    found = []
    for index, apic in enumerate(apics):
        if apic.accept() is not None:
            found.append(index)
            assert apic.wrmsr(x2(EOI), 0)
    return found


@pytest.mark.parametrize(
    ("destination", "targets"),
    [(0, [0]), (3, [3]), (4, []), (0xFF, []), (0x100, []), (0xFFFFFFFF, [0, 1, 2, 3])],
)
def test_x2apic_physical_destination(destination: int, targets: list[int]) -> None:
    """SDM: 32-bit IDs; all ones is the broadcast, 0xFF is not."""
    apics = in_x2apic_mode()
    assert apics[0].wrmsr(x2(ICR_LOW), destination << 32 | 0x51)
    assert requested_x2(apics) == targets


def test_x2apic_logical_destination() -> None:
    """SDM: the logical ID follows from the ID: its upper bits are the cluster, the lower four a bit in it."""
    apics = in_x2apic_mode(18)
    assert [apic.rdmsr(x2(LDR)) for apic in apics] == [i >> 4 << 16 | 1 << (i & 15) for i in range(18)]
    for destination, targets in [(0x0005, [0, 2]), (0x10003, [16, 17]), (0x20001, []), (0x8000, [15])]:
        assert apics[0].wrmsr(x2(ICR_LOW), destination << 32 | LOGICAL | 0x51)
        assert requested_x2(apics) == targets


def test_x2apic_id_is_the_initial_one(x2apic: Apic) -> None:
    """TLFS 10.1.6: the parent may change the initial APIC ID."""
    x2apic.root.set_register(x2apic.partition, 0, 0x0008000C, 0x12345)
    assert x2apic.rdmsr(x2(ID)) == 0x12345
    assert x2apic.rdmsr(x2(LDR)) == 0x1234 << 16 | 1 << 5


def test_x2apic_synthetic_icr() -> None:
    """TLFS 13.2.3.2: the synthetic ICR has the layout of the mode."""
    apics = in_x2apic_mode()
    m = apics[0].machine
    m.wrmsr(apics[0].vp, MSR_ICR, 2 << 32 | 0x51)
    assert requested_x2(apics) == [2]


def test_x2apic_switched_off_and_on(x2apic: Apic) -> None:
    """After switching off it is an xAPIC again."""
    assert x2apic.wrmsr(MSR_APIC_BASE, BASE_DEFAULT)
    assert x2apic.wrmsr(MSR_APIC_BASE, BASE_DEFAULT | BASE_ENABLE)
    assert (x2apic.read(SVR), x2apic.read(ID)) == (0xFF, 0)


@pytest.mark.parametrize("index", [MSR_X2APIC + 0x40, MSR_X2APIC + 0xFF])
def test_rest_of_the_x2apic_range(x2apic: Apic, index: int) -> None:
    """SDM: the whole range belongs to the mode."""
    assert x2apic.rdmsr(index) is None


def test_fixed_is_the_default_mode(apics: list[Apic]) -> None:
    """Delivery mode 0 is fixed."""
    apics[0].ipi(FIXED << 8 | 0x51, 1)
    assert requested(apics) == [1]


def test_timers_need_a_frequency() -> None:
    """A root whose children's timers would never count is refused."""
    with pytest.raises(ValueError, match="frequency of the APIC timers"):
        Root("current", apic_frequency=0)


def test_ticks_are_counts() -> None:
    """What these tests take for granted about the simulated machine."""
    m = Root("current").machine
    assert (m.config["tsc_frequency"], m.config["apic_frequency"]) == (TICKS * 10**7, COUNTS * 10**7)
