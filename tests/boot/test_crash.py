# SPDX-License-Identifier: GPL-2.0-or-later
"""A panicking kernel tells the hypervisor, and the operator hears of it.

The crash registers came after the specification 2.0a; Linux writes them since 6.4 (earlier kernels only with VMBus).
"""

from __future__ import annotations

import re

import pytest
from linux_guest import LinuxFactory, LinuxGuest

from qemu_hv.machine import Event

KERNELS_THAT_REPORT = ("6.12", "7")

PAGE_SIZE = 4096


def crash(boot: LinuxFactory, kernel: str, preparation: str) -> tuple[LinuxGuest, Event]:
    """Panic a guest and return it with the event that the hypervisor made of its report."""
    guest = boot(kernel, smp=2)
    guest.run(preparation)
    guest.start("echo c > /proc/sysrq-trigger")
    event = guest.machine.wait_event("HV_GUEST_CRASH")
    assert guest.machine.wait() == 0, "panic=-1 resets the machine, and that ends QEMU"
    return guest, event


@pytest.mark.parametrize("kernel", KERNELS_THAT_REPORT)
def test_panic_is_reported_with_the_kernel_log(boot: LinuxFactory, kernel: str) -> None:
    """With a message the parameters are 0, 0, 0, its address and its length."""
    _, event = crash(boot, kernel, "true")
    parameters = event.data["parameters"]
    assert parameters[:3] == [0, 0, 0]
    assert parameters[3] % PAGE_SIZE == 0
    message = event.data["message"]
    assert len(message.encode()) == parameters[4]
    assert "Kernel panic - not syncing: sysrq triggered crash" in message


def test_panic_without_a_message_is_reported_with_registers(boot: LinuxFactory) -> None:
    """Without a message the parameters are an error code, the guest's OS identity, RIP, RAX and RSP.

    Linux gives the registers of the process that made it panic, and prints them too.
    """
    guest, event = crash(boot, "6.12", "sysctl -w kernel.hyperv_record_panic_msg=0")
    _, identity, *registers = event.data["parameters"]
    assert identity >> 48 == 0x8100, "an open source system: Linux"
    console = guest.machine.console_text
    printed = [re.search(pattern, console) for pattern in (r"RIP: 0033:0x(\w+)", r"\] RAX: (\w+)", r"RSP: 002b:(\w+)")]
    assert registers == [int(match[1], 16) for match in printed if match]
    assert "message" not in event.data
