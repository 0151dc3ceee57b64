# SPDX-License-Identifier: GPL-2.0-or-later
"""-object microsoft-hypervisor as a user of QEMU's command line meets it: help, defaults, wrong values."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from qemu_hv import tables
from qemu_hv.pytest_plugin import HvMachineFactory
from qemu_hv.qemu_binary import find_qemu

TABLES = Path(__file__).resolve().parents[2] / "csrc" / "hv" / "tlfs"
OBJECT = "microsoft-hypervisor,id=hv0"
SWITCHES = [bit for table in ("privileges", "features", "recommendations") for bit in tables.bits(TABLES, table)]
OTHERS = {
    "role",
    "interface",
    "vp-index",
    "crash",
    "policy",
    "debug-chardev",
    "tsc-frequency",
    "spinlock-retries",
    "version-major",
    "version-minor",
    "version-build",
    "version-service-pack",
    "version-service-branch",
    "version-service-number",
}


def run_qemu(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the patched QEMU until it ends by itself."""
    qemu = find_qemu()
    firmware = [word for folder in qemu.firmware_dirs for word in ("-L", str(folder))]
    return subprocess.run(
        [str(qemu.path), *firmware, "-nodefaults", "-display", "none", *arguments],
        env={**os.environ, **qemu.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def help_lines() -> dict[str, str]:
    """What -object microsoft-hypervisor,help says, by property."""
    result = run_qemu("-object", "microsoft-hypervisor,help")
    assert result.returncode == 0, result.stderr
    lines = (line.strip() for line in result.stdout.splitlines())
    return {line.split("=")[0]: line for line in lines if "=<" in line}


def test_help_lists_every_property_and_no_other(help_lines: dict[str, str]) -> None:
    """The tables of the core are what the object offers."""
    assert set(help_lines) == OTHERS | {bit.property for bit in SWITCHES}


@pytest.mark.parametrize("bit", SWITCHES, ids=lambda bit: bit.property)
def test_help_tells_name_and_default_of_a_switch(help_lines: dict[str, str], bit: tables.Bit) -> None:
    """A switch's description names the bit of the specification and says what holds without it."""
    line = help_lines[bit.property]
    assert bit.name in line
    assert f"default: {'on' if bit.guest_default else 'off'}" in line


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_help_describes_property(help_lines: dict[str, str], name: str) -> None:
    """No property without a sentence."""
    assert " - " in help_lines[name]


WRONG = {
    "role of another world": (["role=child"], "role"),
    "interface generation": (["interface=2016"], "interface"),
    "switch that is no switch": (["access-synic-msrs=maybe"], "access-synic-msrs"),
    "unknown property": (["access-everything=on"], "access-everything"),
    "version too wide for its field": (["version-service-branch=256"], "version-service-branch"),
    "version out of range": (["version-service-number=16777216"], "out of range"),
    "frequency too low": (["tsc-frequency=10000000"], "out of range"),
    "later bit in the old interface": (
        ["interface=2008r2", "cluster-ipi=on"],
        "cluster-ipi=on is not part of interface=2008r2",
    ),
    "policy": (["policy=mine.py:Policy"], "policy"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_property_ends_with_one_line(case: str) -> None:
    """A wrong value says which and ends QEMU."""
    properties, expected = WRONG[case]
    result = run_qemu("-machine", "q35", "-object", ",".join([OBJECT, *properties]))
    assert result.returncode != 0
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert expected in result.stderr


WRONG_MACHINES = {
    "second object": (
        ["-machine", "q35", "-object", OBJECT, "-object", "microsoft-hypervisor,id=hv1"],
        "already has a hypervisor",
    ),
    "KVM's flags": (
        ["-machine", "q35", "-cpu", "max,hv-relaxed=on,hv-vpindex=on", "-object", OBJECT],
        "hv-* flags of -cpu",
    ),
    "KVM's passthrough flag": (
        ["-machine", "q35", "-cpu", "max,hv-passthrough=on", "-object", OBJECT],
        "hv-* flags of -cpu",
    ),
    "a machine without processors": (["-machine", "none", "-object", OBJECT], "x86 machine"),
}


@pytest.mark.parametrize("case", WRONG_MACHINES)
def test_wrong_combination_ends_with_one_line(case: str) -> None:
    """What cannot go together says so and ends QEMU."""
    arguments, expected = WRONG_MACHINES[case]
    result = run_qemu("-accel", "tcg", *arguments)
    assert result.returncode != 0
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert expected in result.stderr


KVM = ["-machine", "q35", "-accel", "kvm", "-cpu", "qemu64"]
WRONG_KVM: dict[str, tuple[list[str], str]] = {
    "an idle root": ([*KVM, "-object", f"{OBJECT},role=root"], "kernel-irqchip=off"),
    "KVM's own emulation": (
        ["-machine", "q35", "-accel", "kvm", "-cpu", "qemu64,hv-relaxed", "-object", OBJECT],
        "hv-* flags of -cpu",
    ),
    "a TSC of another frequency": ([*KVM, "-object", f"{OBJECT},tsc-frequency=1000000000"], "it is the processor's"),
    "CPUID that changes": ([*KVM, "-object", f"{OBJECT},access-tsc-invariant-controls=on"], "does not change CPUID"),
    "registers in the place of KVM's APIC": ([*KVM, "-object", f"{OBJECT},access-apic-msrs=on"], "kernel-irqchip=off"),
    "auto-EOI that must be": ([*KVM, "-object", f"{OBJECT},interface=2008r2"], "kernel-irqchip=off"),
}


@pytest.mark.parametrize("case", WRONG_KVM)
def test_what_kvm_cannot_do_ends_with_one_line(case: str) -> None:
    """It says so and ends QEMU."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("there is no usable /dev/kvm here")
    arguments, expected = WRONG_KVM[case]
    result = run_qemu(*arguments)
    assert result.returncode != 0
    # KVM itself may warn of what this host cannot do before we are asked.
    lines = [line for line in result.stderr.splitlines() if "warning: host doesn't" not in line]
    assert len(lines) == 1, result.stderr
    assert expected in lines[0]


def test_object_cannot_be_added_or_removed_later(hv_machine: HvMachineFactory) -> None:
    """The machine is a partition from its first instruction on."""
    machine = hv_machine(memory="64M")
    with pytest.raises(Exception, match=r"already|running machine|use -object"):
        machine.execute("object-add", {"qom-type": "microsoft-hypervisor", "id": "hv1"})
    with pytest.raises(Exception, match=r"in use|cannot be deleted"):
        machine.execute("object-del", {"id": "hv0"})
    assert machine.execute("query-status")["status"] == "running"


def test_properties_can_be_read_back(hv_machine: HvMachineFactory) -> None:
    """qom-get tells what holds, and nothing can be changed under a running guest."""
    machine = hv_machine(memory="64M", hypervisor={"version-build": 4711, "access-reset-msr": False})

    def get(name: str) -> object:
        return machine.execute("qom-get", {"path": "/objects/hv0", "property": name})

    assert get("version-build") == 4711
    assert get("access-reset-msr") is False
    assert get("access-synic-msrs") is True
    with pytest.raises(Exception, match="only be set when the object is created"):
        machine.execute("qom-set", {"path": "/objects/hv0", "property": "access-reset-msr", "value": True})
