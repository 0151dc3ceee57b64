# SPDX-License-Identifier: GPL-2.0-or-later
"""Stock Debian kernels in a child partition, which examples/minivmm in the root partition makes for them.

The same is asked of them as of a kernel in the machine's own partition (test_boot.py).
"""

from __future__ import annotations

import pytest
from linux_guest import LinuxFactory, LinuxGuest, options
from test_boot import DETECTED, check_detection, check_time

from qemu_hv import child_boot
from qemu_hv.pytest_plugin import HvMachineFactory


@pytest.fixture(name="boot_in_child")
def make_boot(hv_machine: HvMachineFactory) -> LinuxFactory:
    """A function that boots a kernel in a child partition and waits for its shell."""

    def start(kernel: str, **others: object) -> LinuxGuest:
        return LinuxGuest(hv_machine(**vars(child_boot.in_child(options(kernel, **others))))).wait_ready()

    return start


@pytest.mark.parametrize("smp", [1, 2, 4])
@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
def test_kernel_boots_in_a_child(boot_in_child: LinuxFactory, kernel: str, smp: int) -> None:
    """Detection, all VPs, clock and ticks of the hypervisor, TLB shootdowns and IPIs by hypercall, clean power-off."""
    guest = boot_in_child(kernel, smp=smp)
    check_detection(guest, smp)
    check_time(guest, smp)
    guest.run("worker shootdown 20")
    assert sum(guest.interrupts("TLB")) == 0
    assert guest.power_off() == 0


@pytest.mark.parametrize(
    "others",
    [
        {"accel": "tcg,thread=single"},
        {"icount": "shift=auto"},
        {"machine": "pc"},
    ],
    ids=["single", "icount", "pc"],
)
def test_other_machines(boot_in_child: LinuxFactory, others: dict[str, object]) -> None:
    """However TCG runs the machine."""
    guest = boot_in_child("6.1", smp=2, **others)
    assert DETECTED in guest.kernel_log()
    assert guest.run("nproc").strip() == "2"
    assert guest.power_off() == 0
