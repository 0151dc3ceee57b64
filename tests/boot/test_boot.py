# SPDX-License-Identifier: GPL-2.0-or-later
"""Stock Debian kernels find the hypervisor and use what it offers a guest.

What the kernel sees is asked in the guest; what it used is what the hypervisor counted (QMP).
"""

from __future__ import annotations

import pytest
from linux_guest import KERNELS, LinuxFactory, LinuxGuest

DETECTED = "Hypervisor detected: Microsoft Hyper-V"
TSC_PAGE = "hyperv_clocksource_tsc_page"

# Rounds of worker.c's shootdown: each flushes the other VPs' TLBs and interrupts all of them at least once.
ROUNDS = 50

MACHINES = [(smp, "q35") for smp in (1, 2, 4)] + [(2, "pc")]


def check_detection(guest: LinuxGuest, smp: int) -> None:
    """The hypervisor is found (TLFS 3.4), and every VP is started."""
    assert DETECTED in guest.kernel_log()
    assert guest.run("nproc").strip() == str(smp)


def check_time(guest: LinuxGuest, smp: int) -> None:
    """Time comes from the reference TSC page (TLFS 15.4), and on every VP ticks from a synthetic timer (15.3)."""
    assert guest.clocksource() == TSC_PAGE
    for cpu in range(smp):
        assert guest.clock_event(cpu) == "Hyper-V clockevent"
    before = guest.interrupts("HVS")
    guest.run("for i in $(seq 3); do usleep 20000; done")
    after = guest.interrupts("HVS")
    assert len(after) == smp
    assert min(after) > 0, "a CPU has had no tick"
    assert sum(after) > sum(before), "the ticks have stopped"


def check_flushes(guest: LinuxGuest) -> None:
    """Other VPs' TLBs are flushed by hypercall (TLFS 12.4.2, 12.4.3), and not by interrupts."""
    calls = guest.hypercalls()
    flushes = calls.get("HvFlushVirtualAddressSpace", 0) + calls.get("HvFlushVirtualAddressList", 0)
    assert flushes >= ROUNDS, calls
    assert sum(guest.interrupts("TLB")) == 0


def check_ends_of_interrupts(guest: LinuxGuest) -> None:
    """TLFS 13.3.4.1: with "no EOI required" most interrupts end without a trapped write."""
    vps = guest.machine.execute("query-hv-vps")
    assert all(vp["apic-assist-page"]["enabled"] for vp in vps)
    assert vps[0]["counters"]["assisted-eois"] > guest.interrupts("HVS")[0] / 2


@pytest.mark.parametrize("smp, machine", MACHINES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel_boots_enlightened(boot: LinuxFactory, kernel: str, smp: int, machine: str) -> None:
    """Issue 2, section 5: detection, clock, ticks, interrupts, IPIs and flushes by hypercall, clean power-off."""
    guest = boot(kernel, smp=smp, machine=machine)
    check_detection(guest, smp)
    check_time(guest, smp)
    if smp == 1:
        check_ends_of_interrupts(guest)
    guest.run(f"worker shootdown {ROUNDS}")
    if smp > 1:
        check_flushes(guest)
        assert guest.hypercalls().get("HvSendSyntheticClusterIpi", 0) >= ROUNDS
    assert guest.power_off() == 0


def test_2008r2_kernel_uses_what_that_interface_had(boot: LinuxFactory) -> None:
    """The interface of the specification 2.0a: reference TSC page and remote flushes, but none of what came later."""
    guest = boot("6.1", smp=2, hypervisor={"interface": "2008r2"})
    check_detection(guest, 2)
    assert guest.clocksource() == TSC_PAGE
    assert {guest.clock_event(cpu) for cpu in range(2)} == {"lapic"}, "direct synthetic timers came later"
    assert min(guest.interrupts("LOC")) > 0
    assert sum(guest.interrupts("HVS")) == 0
    guest.run(f"worker shootdown {ROUNDS}")
    check_flushes(guest)
    assert "HvSendSyntheticClusterIpi" not in guest.hypercalls()
    assert guest.machine.execute("query-hv")["interface"] == "2008r2"
    assert guest.power_off() == 0
