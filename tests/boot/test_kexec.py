# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel started by another one finds the hypervisor as the first one did."""

from __future__ import annotations

from linux_guest import LinuxFactory, kexec_command, kexec_initramfs
from test_boot import ROUNDS, check_detection, check_flushes, check_time


def test_kexec_kernel_comes_up_under_the_hypervisor(boot: LinuxFactory) -> None:
    """The old kernel gives back its pages and its identity (TLFS 3.6); the new one sets all up afresh, elsewhere."""
    guest = boot("6.12", smp=2, initrd=kexec_initramfs("6.12"), memory="768M")
    before = guest.machine.execute("query-hv")["partition"]
    guest.start(kexec_command())
    guest.wait_ready()
    check_detection(guest, 2)
    check_time(guest, 2)
    guest.run(f"worker shootdown {ROUNDS}")
    check_flushes(guest)
    after = guest.machine.execute("query-hv")["partition"]
    assert after["reference-time"] > before["reference-time"]
    assert after["hypercall-page"]["enabled"]
    assert guest.power_off() == 0
