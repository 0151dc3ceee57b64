# SPDX-License-Identifier: GPL-2.0-or-later
"""Chapter 23 of the TLFS: system properties and the profiler."""

from __future__ import annotations

import struct

import pytest
from root import Child, Root
from simulated_guest import OUTPUT, Guest

from qemu_hv._core import Privilege, Status

SET_SYSTEM_PROPERTY = 0x006F
PERF_COUNTER, SCHEDULER_TYPE = 0, 15
CYCLES_NOT_HALTED, CACHE_MISSES, BRANCH_MISPREDICTIONS = 1, 2, 3
ALL_PRIVILEGES = (1 << 64) - 1
FREQUENCY = 2560000000
PERIOD = FREQUENCY // 1000
SHORTEST = FREQUENCY // 10000


def get_code(generation: str) -> int:
    """HvGetSystemProperty has moved since 2.0a."""
    return 0x007B if generation == "current" else 0x0071


def get_property(guest: Guest, code: int) -> Status:
    """HvGetSystemProperty (TLFS 23.4.2), with padding that nobody cleared."""
    data = struct.pack("<IIQ", code, 0xDEAD, 0)
    return guest.status(get_code(guest.generation), data if guest.generation == "current" else data[:8])


def set_property(guest: Guest, code: int, value: bytes) -> Status:
    """HvSetSystemProperty (TLFS 23.4.1), in the generation's block."""
    size = 72 if guest.generation == "current" else 24
    return guest.status(SET_SYSTEM_PROPERTY, (struct.pack("<II", code, 0xDEAD) + value).ljust(size, b"\0"))


def configure(guest: Guest, source: int, period: int, reserved: int = 0) -> Status:
    """The performance counter configuration (TLFS 23.3)."""
    return set_property(guest, PERF_COUNTER, struct.pack("<IIQ", source, reserved, period))


def configuration(guest: Guest) -> tuple[int, ...]:
    """Source, reserved field, period."""
    assert get_property(guest, PERF_COUNTER) == Status.SUCCESS
    return struct.unpack("<IIQ", guest.machine.read(OUTPUT, 16))


@pytest.fixture
def root(generation: str) -> Root:
    """The root partition of a machine with two LPs."""
    return Root(generation)


# -- 23.4 The calls --


def test_only_the_root_may(generation: str) -> None:
    """TLFS 23.1, 23.4: ACCESS_DENIED to a guest and to a child, whatever their privileges."""
    guest = Guest(generation, privileges=ALL_PRIVILEGES)
    assert get_property(guest, PERF_COUNTER) == Status.ACCESS_DENIED
    assert configure(guest, CYCLES_NOT_HALTED, PERIOD) == Status.ACCESS_DENIED
    root = Root(generation)
    child = Child(root, root.partition(memory=48))
    assert child.status(get_code(generation), bytes(16)) == Status.ACCESS_DENIED
    assert child.status(SET_SYSTEM_PROPERTY, bytes(72)) == Status.ACCESS_DENIED


@pytest.mark.parametrize("code", [1, 2, 3, 14, 16, 47, 0xFFFFFFFF])
def test_unknown_properties(root: Root, code: int) -> None:
    """TLFS 23.4: UNKNOWN_PROPERTY, for reading and for writing."""
    assert get_property(root, code) == Status.UNKNOWN_PROPERTY
    assert set_property(root, code, bytes(16)) == Status.UNKNOWN_PROPERTY


def test_a_property_is_constant_until_it_is_set_again(root: Root) -> None:
    """TLFS 23.1, 23.4.2."""
    assert configuration(root) == (0, 0, 0)
    assert configure(root, CYCLES_NOT_HALTED, PERIOD) == Status.SUCCESS
    root.machine.advance(1000000)
    assert configuration(root) == (CYCLES_NOT_HALTED, 0, PERIOD)
    assert configure(root, CYCLES_NOT_HALTED, PERIOD + 1) == Status.SUCCESS
    assert configuration(root) == (CYCLES_NOT_HALTED, 0, PERIOD + 1)


@pytest.mark.parametrize(
    ("source", "period", "reserved"),
    [
        (0, PERIOD, 0),
        (CACHE_MISSES, PERIOD, 0),
        (BRANCH_MISPREDICTIONS, PERIOD, 0),
        (4, PERIOD, 0),
        (CYCLES_NOT_HALTED, 0, 0),
        (CYCLES_NOT_HALTED, SHORTEST - 1, 0),
        (CYCLES_NOT_HALTED, PERIOD, 1),
    ],
)
def test_invalid_configurations(root: Root, source: int, period: int, reserved: int) -> None:
    """TLFS 23.3, 23.4.1: INVALID_PARAMETER for a value that is none, and nothing changes."""
    assert configure(root, CYCLES_NOT_HALTED, SHORTEST) == Status.SUCCESS
    assert configure(root, source, period, reserved) == Status.INVALID_PARAMETER
    assert configuration(root) == (CYCLES_NOT_HALTED, 0, SHORTEST)


def test_configuring_needs_its_privilege(generation: str) -> None:
    """TLFS 5.2.3, appendix B: ConfigureProfiler; the property can still be read."""
    root = Root(generation, privileges=ALL_PRIVILEGES & ~(1 << Privilege.ConfigureProfiler))
    assert configure(root, CYCLES_NOT_HALTED, PERIOD) == Status.ACCESS_DENIED
    assert configuration(root) == (0, 0, 0)


def test_scheduler_type(root: Root) -> None:
    """Later than TLFS 2.0a: the hypervisor schedules, each VP by itself; it can only be read."""
    if root.current:
        assert get_property(root, SCHEDULER_TYPE) == Status.SUCCESS
        assert root.output("<QQ") == (1, 0)
        assert set_property(root, SCHEDULER_TYPE, struct.pack("<QQ", 4, 0)) == Status.INVALID_PARAMETER
    else:
        assert get_property(root, SCHEDULER_TYPE) == Status.UNKNOWN_PROPERTY
        assert set_property(root, SCHEDULER_TYPE, bytes(16)) == Status.UNKNOWN_PROPERTY


def test_a_reset_forgets_the_configuration(root: Root) -> None:
    """TLFS 22.3: the hypervisor is launched again."""
    assert configure(root, CYCLES_NOT_HALTED, PERIOD) == Status.SUCCESS
    assert root.machine.profiler_start()
    root.machine.reset()
    root.enable_hypercalls()
    assert configuration(root) == (0, 0, 0)
    assert not root.machine.profiler_start()


def test_the_configuration_is_part_of_saved_state(root: Root) -> None:
    """TLFS 23.1: constant, in a snapshot too."""
    assert configure(root, CYCLES_NOT_HALTED, PERIOD) == Status.SUCCESS
    stream = root.machine.save()
    assert configure(root, CYCLES_NOT_HALTED, PERIOD + 5) == Status.SUCCESS
    root.machine.restore(stream)
    assert configuration(root) == (CYCLES_NOT_HALTED, 0, PERIOD)


# -- 23.3 The profiler --


def test_the_profiler_needs_a_configuration(root: Root) -> None:
    """TLFS 23.3: without one there is nothing to sample."""
    assert not root.machine.profiler_start()
    root.machine.advance(1000000)
    assert root.machine.profiler_samples(0) == 0


def test_setting_does_not_start_it(root: Root) -> None:
    """TLFS 23.3."""
    assert configure(root, CYCLES_NOT_HALTED, PERIOD) == Status.SUCCESS
    assert root.machine.schedule(0)[0] == 0
    root.machine.advance_tsc(10 * PERIOD)
    assert root.machine.profiler_samples(0) == 0


def test_a_running_profiler_cannot_be_configured(root: Root) -> None:
    """TLFS 23.3: OPERATION_DENIED, until it has been stopped."""
    assert configure(root, CYCLES_NOT_HALTED, PERIOD) == Status.SUCCESS
    assert root.machine.profiler_start()
    assert configure(root, CYCLES_NOT_HALTED, 2 * PERIOD) == Status.OPERATION_DENIED
    assert configuration(root) == (CYCLES_NOT_HALTED, 0, PERIOD)
    root.machine.profiler_stop()
    assert configure(root, CYCLES_NOT_HALTED, 2 * PERIOD) == Status.SUCCESS


def test_busy_lps_are_sampled_once_a_period(root: Root) -> None:
    """TLFS 23.3: cycles that are not halted: an LP that has nothing to run is not sampled."""
    m = root.machine
    assert configure(root, CYCLES_NOT_HALTED, PERIOD) == Status.SUCCESS
    m.set_waits(1, True)
    assert m.schedule(0)[0] == 0
    assert m.schedule(1)[0] is None
    assert m.profiler_start()
    assert m.profiler_start(), "again changes nothing"
    m.advance_tsc(PERIOD - 1)
    assert m.profiler_samples(0) == 0
    m.advance_tsc(1)
    assert m.profiler_samples(0) == 1
    m.advance_tsc(10 * PERIOD)
    assert (m.profiler_samples(0), m.profiler_samples(1)) == (11, 0)
    m.profiler_stop()
    m.advance_tsc(10 * PERIOD)
    assert m.profiler_samples(0) == 11
    m.stopped(0)


def test_a_period_beyond_the_end_of_time(root: Root) -> None:
    """TLFS 23.3: never, and nothing overflows."""
    assert configure(root, CYCLES_NOT_HALTED, (1 << 64) - 1) == Status.SUCCESS
    assert root.machine.profiler_start()
    root.machine.advance_tsc(1 << 62)
    assert root.machine.profiler_samples(0) == 0
