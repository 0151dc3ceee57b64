# SPDX-License-Identifier: GPL-2.0-or-later
"""-object microsoft-hypervisor as a user of QEMU's command line meets it: help, defaults, wrong values."""

from __future__ import annotations

import errno
import os
import re
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


def run_qemu(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the patched QEMU until it ends by itself, with some more in its environment."""
    qemu = find_qemu()
    firmware = [word for folder in qemu.firmware_dirs for word in ("-L", str(folder))]
    return subprocess.run(
        [str(qemu.path), *firmware, "-nodefaults", "-display", "none", *arguments],
        env={**os.environ, **qemu.environment, **environment},
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
    "a TSC of another frequency": ([*KVM, "-object", f"{OBJECT},tsc-frequency=1000000000"], "it is the processor's"),
    "CPUID that changes": ([*KVM, "-object", f"{OBJECT},access-tsc-invariant-controls=on"], "does not change CPUID"),
    "registers in the place of KVM's APIC": ([*KVM, "-object", f"{OBJECT},access-apic-msrs=on"], "kernel-irqchip=off"),
    "auto-EOI that must be": ([*KVM, "-object", f"{OBJECT},interface=2008r2"], "kernel-irqchip=off"),
}


def only_line(result: subprocess.CompletedProcess[str]) -> str:
    """Return what QEMU ended with, but for what it warns of: that this host's KVM cannot do all that the CPU has."""
    assert result.returncode != 0
    lines = [line for line in result.stderr.splitlines() if "warning: host doesn't" not in line]
    assert len(lines) == 1, result.stderr
    return lines[0]


needs_kvm = pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="there is no usable /dev/kvm here")


@needs_kvm
@pytest.mark.parametrize("case", WRONG_KVM)
def test_what_kvm_cannot_do_ends_with_one_line(case: str) -> None:
    """It says so and ends QEMU."""
    arguments, expected = WRONG_KVM[case]
    assert expected in only_line(run_qemu(*arguments))


# Those that KVM would have to make a processor for, that change numbers only, and that are no switches.
FLAGS = "vapic relaxed=on passthrough enforce-cpuid spinlocks=0x1fff vendor-id=abc version-id-build=1".split()
FLAGS.append("no-nonarch-coresharing=on")


@pytest.mark.parametrize("accel", ["tcg", pytest.param("kvm", marks=needs_kvm)])
@pytest.mark.parametrize("flag", FLAGS)
def test_flags_of_kvms_own_emulation(accel: str, flag: str) -> None:
    """The first of them is named, before KVM is asked for what it may not have."""
    for cpu in ("qemu64", "host") if accel == "kvm" and flag == "vapic" else ("qemu64",):
        result = run_qemu("-machine", "q35", "-accel", accel, "-cpu", f"{cpu},hv-{flag}", "-object", OBJECT)
        line = only_line(result)
        assert f"hv-{flag.partition('=')[0]} of -cpu belongs to KVM's own emulation of Hyper-V; remove it" in line


@pytest.fixture(scope="module")
def other_kvm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A library that makes this host's KVM another (other_kvm.c)."""
    library = tmp_path_factory.mktemp("other") / "other_kvm.so"
    source = Path(__file__).with_name("other_kvm.c")
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", library, source, "-ldl"], check=True
    )
    return str(library)


CAPABILITIES = re.findall(r"^    CAPABILITY\((\w+)\)", (TABLES.parents[1] / "qemu" / "kvm.c").read_text(), re.MULTILINE)


@needs_kvm
@pytest.mark.parametrize("role", ["guest", "root"])
@pytest.mark.parametrize("name", CAPABILITIES)
def test_capability_that_is_missing_is_named(other_kvm: str, role: str, name: str) -> None:
    """An old KVM ends QEMU with one line."""
    numbers = dict(
        re.findall(r"^#define (KVM_CAP_\w+) (\d+)", Path("/usr/include/linux/kvm.h").read_text(), re.MULTILINE)
    )
    machine = ["-machine", "q35,kernel-irqchip=off", "-accel", "kvm", "-cpu", "qemu64"]
    arguments = [*machine, "-object", f"{OBJECT},role={role}"]
    line = only_line(run_qemu(*arguments, LD_PRELOAD=other_kvm, OTHER_KVM_LACKS=numbers[name]))
    assert f"the host's KVM lacks {name}; use -accel tcg, or a newer Linux" in line


@pytest.mark.parametrize("error", [errno.ENOENT, errno.EACCES])
def test_kvm_that_cannot_be_opened(other_kvm: str, error: int) -> None:
    """QEMU says why, and ends (qemu-hv run says what to do: tests/python/test_run.py)."""
    result = run_qemu(*KVM, "-object", OBJECT, LD_PRELOAD=other_kvm, OTHER_KVM_ERRNO=str(error))
    assert result.returncode != 0
    assert f"Could not access KVM kernel module: {os.strerror(error)}" in result.stderr.splitlines()[0]


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
