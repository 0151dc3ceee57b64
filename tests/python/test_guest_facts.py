# SPDX-License-Identifier: GPL-2.0-or-later
"""The parser of what our /init and a kernel say."""

from __future__ import annotations

import subprocess

from qemu_hv.guest_facts import INIT_SCRIPT, parse_facts

CONSOLE = """\
[    0.000000] Linux version 6.12
[    2.996597] Run /init as init process
qemu-hv-fact kernel 6.12.117+deb13-cloud-amd64
qemu-hv-fact cpus 2
qemu-hv-fact clocksource.current hyperv_clocksource_tsc_page
qemu-hv-fact clocksource.available hyperv_clocksource_tsc_page hpet
qemu-hv-fact clockevent Hyper-V clockevent
[    3.1] noise qemu-hv-fact interrupt HVS:        616        542   Hyper-V stimer0 interrupts
qemu-hv-fact interrupt nonsense
qemu-hv-fact dmesg [    0.000000] Hypervisor detected: Microsoft Hyper-V
qemu-hv-fact dmesg [    0.127139] Hyper-V: PV spinlocks enabled
qemu-hv-fact uptime 4.79
""".splitlines()


def test_facts() -> None:
    facts = parse_facts(CONSOLE)
    assert facts.complete
    assert facts.detected == "Hypervisor detected: Microsoft Hyper-V"
    assert (facts.kernel, facts.cpus, facts.uptime) == ("6.12.117+deb13-cloud-amd64", 2, 4.79)
    assert facts.clocksource == "hyperv_clocksource_tsc_page"
    assert facts.clocksources == ["hyperv_clocksource_tsc_page", "hpet"]
    assert facts.clockevent == "Hyper-V clockevent"
    (row,) = facts.interrupts
    assert (row.name, row.counts, row.description) == ("HVS", [616, 542], "Hyper-V stimer0 interrupts")
    assert facts.log == ["Hypervisor detected: Microsoft Hyper-V", "Hyper-V: PV spinlocks enabled"]


def test_detection_by_the_console_alone() -> None:
    facts = parse_facts(["[    0.000000] Hypervisor detected: Microsoft Hyper-V", "Hypervisor detected: other"])
    assert facts.detected == "Hypervisor detected: Microsoft Hyper-V"
    assert not facts.complete


def test_nothing() -> None:
    facts = parse_facts([])
    assert facts.detected is None and facts.clocksource is None and not facts.complete


def test_init_is_a_shell_script() -> None:
    assert INIT_SCRIPT.startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n"], input=INIT_SCRIPT, text=True, check=True)
