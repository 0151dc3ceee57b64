# SPDX-License-Identifier: GPL-2.0-or-later
"""A stock kernel copes with a hypervisor that fails now and then (docs/fault-injection.md)."""

from __future__ import annotations

from linux_guest import LinuxGuest, options

from qemu_hv.pytest_plugin import HvMachineFactory

ROUNDS = 400
MANY_PAGES = 64
"""Linux flushes everything then."""


def test_flushes_that_fail_are_done_by_interrupts(hv_machine: HvMachineFactory) -> None:
    """One of ten remote flushes fails, from the beginning on: the kernel falls back to IPIs and stays up."""
    machine = hv_machine(**vars(options("6.1", smp=2)))
    rule = {
        "id": "flush",
        "point": "hypercall",
        "target": "HvFlushVirtualAddressSpace",
        "fraction": 0.1,
        "seed": 1,
        "action": "status",
        "status": "HV_STATUS_INSUFFICIENT_MEMORY",
    }
    machine.execute("hv-inject-add", rule)
    guest = LinuxGuest(machine).wait_ready()
    guest.run(f"worker shootdown {ROUNDS} {MANY_PAGES}")
    (found,) = machine.execute("query-hv-injections")
    assert found["matched"] >= ROUNDS // 2, "a VP that is idle is not flushed"
    assert 0.05 * found["matched"] < found["injected"] < 0.15 * found["matched"]
    interrupts = sum(guest.interrupts("TLB"))
    assert interrupts >= found["injected"] // 2, "a flush that failed was done by an interrupt to the other VP"
    machine.execute("hv-inject-remove")
    guest.run(f"worker shootdown {ROUNDS} {MANY_PAGES}")
    assert sum(guest.interrupts("TLB")) == interrupts, "without the rule no flush fails"
    assert "Call Trace" not in guest.kernel_log()
    assert guest.power_off() == 0
