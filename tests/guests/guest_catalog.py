# SPDX-License-Identifier: GPL-2.0-or-later
"""Which widths and modes each guest is run in."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from guest_image import GENERATION_2008R2, ROOT_PROGRAMS
from guest_runner import Mode, make_modes

__all__ = ["GuestPlan", "plan_for"]

ALL_WAYS = {"mttcg": (1, 4), "single": (1, 4), "icount": (1, 4)}
ONE_VP = {"mttcg": (1,)}
FOUR_VPS = {"mttcg": (4,)}
# A host's KVM may interpret the guest slowly, so these are few; and it may know no 32-bit code, so that is for TCG.
KVM_WAYS = {"kvm": (1,), "kvm-off": (1,)}
KVM_SEVERAL = {"kvm": (2,), "kvm-off": (2,)}
# With KVM's own local APIC the older interface is refused.
KVM_OLDER = {"kvm-off": (1,)}
# What is run in the root on KVM each time, with how many VPs; it needs to have QEMU's local APIC. HV_KVM_ROOT=all asks
# for all programs, which takes minutes.
KVM_ROOT: dict[str, tuple[int, ...]] = {
    "event_log": (2,),
    "intercepts": (1,),
    "interrupts": (1, 2),
    "partition": (1, 2),
    "registers": (1,),
    "second_stage": (1,),
}
KVM_ROOT_ALL = (1, 2)


@dataclass(frozen=True)
class GuestPlan:
    """How a guest is tested: (width of its code, mode) pairs."""

    runs: tuple[tuple[int, Mode], ...]


def _runs(bits: int, modes: list[Mode]) -> list[tuple[int, Mode]]:
    return [(bits, mode) for mode in modes]


def _default(kvm: Mapping[str, tuple[int, ...]] = KVM_WAYS) -> list[tuple[int, Mode]]:
    """Return what a guest gets that is not listed below: every way VPs are run, and the older interface once."""
    older = make_modes(FOUR_VPS, generation=GENERATION_2008R2, suffix="-2008r2")
    return _runs(64, make_modes({**ALL_WAYS, **kvm})) + _runs(64, older)


def _several() -> list[tuple[int, Mode]]:
    """Return the same for guests that are about several VPs."""
    return _default(KVM_SEVERAL)


def _apic() -> list[tuple[int, Mode]]:
    # KVM's own local APIC has none of what this guest checks.
    older = make_modes({**FOUR_VPS, **KVM_OLDER}, generation=GENERATION_2008R2, suffix="-2008r2")
    return _runs(64, make_modes({**ALL_WAYS, "kvm-off": (1,)})) + _runs(64, older)


def _with_32_bit() -> list[tuple[int, Mode]]:
    pae = make_modes({"mttcg": (4,), "icount": (1,)})
    legacy = make_modes(ONE_VP, suffix="-legacy", append="paging=legacy")
    return _default() + _runs(32, pae) + _runs(32, legacy)


def _runtime() -> list[tuple[int, Mode]]:
    without = make_modes(ALL_WAYS, properties=None, suffix="-stock")
    kvm = make_modes({"kvm": (1,)}, properties=None, suffix="-stock")
    legacy = make_modes(FOUR_VPS, properties=None, suffix="-stock-legacy", append="paging=legacy")
    return _runs(64, without + kvm) + _runs(32, without) + _runs(32, legacy) + _runs(64, make_modes(FOUR_VPS))


def _hypercall() -> list[tuple[int, Mode]]:
    # A call with output needs a privilege that guests do not have by default.
    properties = (("access-partition-id", "on"),)
    modes = make_modes({**ALL_WAYS, **KVM_WAYS}, properties)
    older = make_modes({**FOUR_VPS, **KVM_OLDER}, properties, GENERATION_2008R2, "-2008r2")
    narrow = make_modes({"mttcg": (4,), "icount": (1,)}, properties)
    legacy = make_modes(ONE_VP, properties, suffix="-legacy", append="paging=legacy")
    return _runs(64, modes + older) + _runs(32, narrow + legacy)


def _access() -> list[tuple[int, Mode]]:
    lacking = {
        "no-hypercall": ["access-hypercall-msrs", "access-vp-index"],
        "no-synic": ["access-synic-msrs", "access-synthetic-timer-msrs", "access-apic-msrs"],
        "no-time": [
            "access-vp-run-time-msr",
            "access-partition-reference-counter",
            "access-partition-reference-tsc",
            "access-frequency-msrs",
            "access-guest-idle-msr",
        ],
        "no-features": ["crash-msrs", "direct-synthetic-timers", "hypercall-xmm-input", "access-reset-msr"],
        "no-calls": ["post-messages", "signal-events"],
    }
    modes = make_modes({**FOUR_VPS, "kvm-off": (1,)})
    modes += make_modes(FOUR_VPS, generation=GENERATION_2008R2, suffix="-2008r2")
    # KVM's own local APIC comes without these.
    modes += make_modes({"kvm": (1,)}, append="off=access-apic-msrs")
    for suffix, names in lacking.items():
        properties = tuple((name, "off") for name in names)
        modes += make_modes(ONE_VP, properties, suffix=f"-{suffix}", append=f"off={','.join(names)}")
    return _runs(64, modes)


def _ports() -> list[tuple[int, Mode]]:
    """Return modes with the ports that ports.c lists."""
    commands: tuple[tuple[str, dict[str, object]], ...] = (
        ("hv-create-port", {"port-id": 1, "type": "message", "sint": 5, "vp": 0}),
        ("hv-create-port", {"port-id": 2, "type": "message", "sint": 6}),
        ("hv-create-port", {"port-id": 3, "type": "event", "sint": 7, "vp": 0, "base-flag": 8, "flag-count": 16}),
        ("hv-create-port", {"port-id": 4, "type": "event", "sint": 8}),
        ("hv-create-port", {"port-id": 5, "type": "message", "sint": 5}),
        ("hv-create-port", {"port-id": 6, "type": "message", "sint": 9, "vp": -1}),
        ("hv-connect-port", {"connection-id": 1, "port-id": 1}),
        ("hv-connect-port", {"connection-id": 2, "port-id": 2}),
        ("hv-connect-port", {"connection-id": 3, "port-id": 3}),
        ("hv-connect-port", {"connection-id": 4, "port-id": 4}),
        ("hv-connect-port", {"connection-id": 5, "port-id": 5}),
        ("hv-connect-port", {"connection-id": 6, "port-id": 6}),
        ("hv-delete-port", {"port-id": 5}),
    )
    modes = make_modes({**ALL_WAYS, **KVM_WAYS}, commands=commands)
    return _runs(64, modes + make_modes(FOUR_VPS, generation=GENERATION_2008R2, suffix="-2008r2", commands=commands))


def _debug() -> list[tuple[int, Mode]]:
    """Return modes with a connection to a debugger that never takes or sends anything."""
    properties = (("debug-chardev", "debugger"),)
    modes = make_modes({"mttcg": (1,), "icount": (1,), **KVM_WAYS}, properties)
    modes += make_modes(ONE_VP, properties, GENERATION_2008R2, "-2008r2")
    chardev = ("-chardev", "null,id=debugger")
    return _runs(64, [replace(mode, arguments=mode.arguments + chardev) for mode in modes])


def _interrupts() -> list[tuple[int, Mode]]:
    return _default() + _runs(64, make_modes({"kvm-split": (1,)}))


def _stats() -> list[tuple[int, Mode]]:
    # KVM does not tell what the processor does by itself.
    properties = (("access-stats-msr", "on"),)
    older = make_modes(ONE_VP, properties, GENERATION_2008R2, "-2008r2")
    return _runs(64, make_modes({"mttcg": (1, 4), "icount": (1,)}, properties) + older)


_PLANS = {
    "access": _access,
    "apic": _apic,
    "debug": _debug,
    "hypercall": _hypercall,
    "ipi": _several,
    "ports": _ports,
    "runtime": _runtime,
    "stats": _stats,
    "synic": _interrupts,
    "timer": _interrupts,
    "vmmu": _with_32_bit,
}


def _root() -> list[tuple[int, Mode]]:
    """Return the modes of a program for the root partition: every way TCG runs VPs, and the older interface once."""
    modes = make_modes(ALL_WAYS, role="root")
    return _runs(64, modes + make_modes(FOUR_VPS, generation=GENERATION_2008R2, suffix="-2008r2", role="root"))


def _root_small() -> list[tuple[int, Mode]]:
    """Return the modes of a program in which a child has work for one processor, and the root for another."""
    modes = make_modes({"mttcg": (1, 2), "single": (2,), "icount": (1, 2)}, role="root")
    return _runs(64, modes + make_modes({"mttcg": (2,)}, generation=GENERATION_2008R2, suffix="-2008r2", role="root"))


def _root_shares() -> list[tuple[int, Mode]]:
    """Return the modes of a program about one LP that VPs share: with another that is parked, and without."""
    modes = make_modes({"mttcg": (1, 2), "single": (1, 2), "icount": (1, 2)}, role="root")
    return _runs(64, modes + make_modes(ONE_VP, generation=GENERATION_2008R2, suffix="-2008r2", role="root"))


def _root_system() -> list[tuple[int, Mode]]:
    """Return the modes of a program that makes calls and nothing else."""
    modes = make_modes({"mttcg": (1,), "icount": (1,)}, role="root")
    return _runs(64, modes + make_modes(ONE_VP, generation=GENERATION_2008R2, suffix="-2008r2", role="root"))


def _root_on_kvm(name: str) -> list[tuple[int, Mode]]:
    vps = KVM_ROOT_ALL if os.environ.get("HV_KVM_ROOT") == "all" else KVM_ROOT.get(name, ())
    return _runs(64, make_modes({"kvm-off": vps}, role="root"))


# Programs in root/ that need other modes than _root() gives.
_ROOT_PLANS: dict[str, Callable[[], list[tuple[int, Mode]]]] = {
    "channels": _root_small,
    "event_log": _root_small,
    "interruptions": _root_small,
    "interrupts": _root_small,
    "nested": _root_small,
    "registers": _root_small,
    "save": _root_small,
    "shares": _root_shares,
    "statistics": _root_small,
    "system": _root_system,
    "time": _root_small,
    "virtual_mmu": _root_small,
}


# Guests whose machines are made in ways that a child partition cannot be: with an operator's ports or a debugger,
# without a hypervisor, or with privileges that differ from mode to mode.
_NOT_IN_CHILD = {"debug", "ports", "runtime", "access", "stats"}


def _in_child(name: str) -> list[tuple[int, Mode]]:
    """Return the modes of a guest in a child partition."""
    properties = (("access-partition-id", "on"),) if name == "hypercall" else ()
    ways = {"mttcg": (1, 4), "single": (4,), "icount": (1,)}
    modes = make_modes(ways, properties, suffix="-in-child", in_child=True)
    older = make_modes(FOUR_VPS, properties, GENERATION_2008R2, "-2008r2-in-child", in_child=True)
    return _runs(64, modes + older)


def plan_for(source: Path) -> GuestPlan:
    """Return the plan of a guest's or root program's C file."""
    name = source.stem
    if source.parent == ROOT_PROGRAMS:
        return GuestPlan(tuple(_ROOT_PLANS.get(name, _root)() + _root_on_kvm(name)))
    runs = _PLANS.get(name, _default)()
    return GuestPlan(tuple(runs if name in _NOT_IN_CHILD else runs + _in_child(name)))
