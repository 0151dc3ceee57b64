# SPDX-License-Identifier: GPL-2.0-or-later
"""The query-hv* commands, on a running guest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from operator_machine import Operator

from qemu_hv.machine import CommandFailed


def test_hypervisor(operator: Operator) -> None:
    hv = operator("query-hv")
    assert hv["interface"] == "current"
    assert hv["tsc-frequency"] > 1_000_000
    assert hv["apic-frequency"] > 1_000_000
    assert hv["trace-hypercalls"] is False
    assert "AccessHypercallMsrs" in hv["partition"]["privileges"]
    assert hv["partition"]["privilege-mask"] & 1 << 5
    assert "FrequencyMsrs" in hv["partition"]["features"]
    assert "UseHypercallForRemoteFlush" in hv["partition"]["recommendations"]


def test_properties_show(start_operator: Callable[..., Operator]) -> None:
    properties = {
        "interface": "2008r2",
        "version-major": 6,
        "version-build": 7600,
        "spinlock-retries": 77,
        "access-vp-run-time-msr": False,
        "reset-msr": True,
    }
    hv = start_operator(hypervisor=properties)("query-hv")
    assert hv["interface"] == "2008r2"
    assert (hv["version"]["major"], hv["version"]["build"]) == (6, 7600)
    assert hv["spinlock-retries"] == 77
    assert "AccessVpRunTimeMsr" not in hv["partition"]["privileges"]
    assert "FrequencyMsrs" not in hv["partition"]["features"]
    assert "UseResetMsr" in hv["partition"]["recommendations"]


def test_partition(operator: Operator) -> None:
    (partition,) = operator("query-hv-partitions")
    assert partition["vp-count"] == 2
    assert "parent" not in partition
    assert partition["hypercall-page"]["enabled"]
    assert partition["guest-os"]["value"] != 0
    assert partition["crash"] == {"control": 0, "parameters": [0, 0, 0, 0, 0]}


def test_reference_time_is_that_of_the_page(operator: Operator) -> None:
    machine = operator.machine
    machine.stop()
    partition = operator("query-hv")["partition"]
    page = partition["reference-tsc-page"]
    assert page["enabled"] and page["sequence"] != 0
    frequency = operator("query-hv")["tsc-frequency"]
    # Scale is 2^64 units of 100 ns per tick, truncated.
    assert page["scale"] == pytest.approx((10_000_000 << 64) / frequency, rel=1e-6)
    assert operator("query-hv")["partition"]["reference-time"] == partition["reference-time"]
    machine.cont()
    machine.wait_event("RESUME")
    assert operator("query-hv")["partition"]["reference-time"] > partition["reference-time"]


def test_virtual_processor(operator: Operator) -> None:
    vps = operator("query-hv-vps")
    assert [vp["vp"] for vp in vps] == [0, 1]
    first, second = vps
    assert first["apic-assist-page"]["enabled"] and not second["apic-assist-page"]["enabled"]
    assert first["synic"]["enabled"] and not second["synic"]["enabled"]
    assert first["synic"]["message-page"]["enabled"]
    assert first["synic"]["event-flags-page"]["gpa"] % 4096 == 0
    sints = first["synic"]["sints"]
    assert len(sints) == 16
    assert (sints[2]["vector"], sints[2]["masked"]) == (0x60, False)
    assert sints[3] == {
        "index": 3,
        "value": 0x10000,
        "vector": 0,
        "masked": True,
        "auto-eoi": False,
        "polling": False,
        "queued": 0,
    }
    assert len(first["timers"]) == 4
    assert not any(timer["enabled"] for timer in first["timers"])
    assert first["run-time"] > 0


def test_counters(operator: Operator) -> None:
    operator.order("unknown-call")
    operator.machine.wait_for("^called status=2")
    operator.order("signal", 99)
    operator.machine.wait_for("^signaled status=12")
    counters = operator.vp()["counters"]
    msrs = {msr["name"]: (msr["reads"], msr["writes"]) for msr in counters["msrs"]}
    assert msrs["GUEST_OS_ID"][1] == 1
    assert msrs["SINT"][1] == 1
    assert msrs["SCONTROL"][1] == 1
    assert counters["hypercalls"] == [{"code": 0x5D, "name": "HvSignalEvent", "count": 1}]
    assert counters["unknown-hypercalls"] == 1
    assert counters["messages"] == 2
    assert counters["interrupts"] >= 2
    assert counters["events"] == 0


def test_timer(operator: Operator) -> None:
    operator.order("timer", 50_000)
    operator.machine.wait_for("^timer started")
    timer = operator.vp()["timers"][1]
    assert timer["enabled"] and timer["periodic"] and timer["direct-mode"]
    assert (timer["vector"], timer["count"]) == (0x61, 50_000)
    assert timer["due"] > 0

    def expirations() -> int:
        count: int = operator.vp()["timers"][1]["expirations"]
        return count

    before = expirations()
    deadline = operator("query-hv")["partition"]["reference-time"] + 600_000_000
    while expirations() < before + 3:
        assert operator("query-hv")["partition"]["reference-time"] < deadline


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"vp": 2}, "no virtual processor 2: the partition has 2"),
        ({"partition": 12345}, "no partition with ID 12345"),
    ],
)
def test_errors(operator: Operator, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(CommandFailed, match=words):
        operator("query-hv-vps", **arguments)


def test_one_partition_and_vp(operator: Operator) -> None:
    partition = operator("query-hv-partitions")[0]["id"]
    assert len(operator("query-hv-vps", partition=partition)) == 2
    assert [vp["vp"] for vp in operator("query-hv-vps", partition=partition, vp=1)] == [1]
