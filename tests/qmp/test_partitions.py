# SPDX-License-Identifier: GPL-2.0-or-later
"""The operator's commands about child partitions, the commands of `qemu-hv`, and policies (root_guest.c)."""

from __future__ import annotations

import base64
import re
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from guest_image import build_image

from qemu_hv import cli
from qemu_hv.machine import CommandFailed, SyncMachine
from qemu_hv.pytest_plugin import HvMachineFactory

HERE = Path(__file__).resolve().parent
CODE = 0x10000
COUNTER = 0x20000
CHILD_MIB = 4

Start = Callable[..., SyncMachine]


@pytest.fixture
def start_root(hv_machine: HvMachineFactory) -> Start:
    """Give a function that starts a root and waits until its child runs."""
    image = build_image(HERE / "root_guest.c", 64, root=True)

    def start(hypervisor: dict[str, Any], **options: Any) -> SyncMachine:
        machine = hv_machine(
            kernel=image.path,
            memory="256M",
            console="debugcon",
            append="generation=current",
            hypervisor={"role": "root", **hypervisor},
            **options,
        )
        machine.wait_for("^ready", timeout=60)
        return machine

    return start


@pytest.fixture
def root(start_root: Start) -> SyncMachine:
    """Give a root whose child counts."""
    return start_root({})


def child_of(machine: SyncMachine) -> Any:
    """The child's entry in the list of partitions."""
    return machine.execute("query-hv-partitions")[1]


def count(machine: SyncMachine) -> int:
    """The child's counter."""
    memory = machine.execute("hv-memory-read", {"partition": child_of(machine)["id"], "gpa": COUNTER, "size": 4})
    return int(struct.unpack("<I", base64.b64decode(memory["data"]))[0])


def runs(machine: SyncMachine) -> bool:
    """Whether the counter moves within a while."""
    before = count(machine)
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        if count(machine) != before:
            return True
    return False


def test_tree(root: SyncMachine) -> None:
    """Both partitions, the root first."""
    machine, child = root.execute("query-hv-partitions")
    assert (machine["id"], machine["depth"], machine["state"]) == (1, 0, "active")
    assert "parent" not in machine and machine["mapped-pages"] == 0
    assert (child["parent"], child["depth"], child["state"], child["paused"]) == (1, 1, "active", False)
    assert child["vp-count"] == 1
    assert child["mapped-pages"] == CHILD_MIB * 256
    assert child["pool-pages"] > 0 and child["pool-free-pages"] < child["pool-pages"]
    assert "AccessVpIndex" in child["privileges"] and "CreatePartitions" not in child["privileges"]
    [vp] = root.execute("query-hv-vps", {"partition": child["id"]})
    assert vp["partition"] == child["id"]


def test_pause_and_resume(root: SyncMachine) -> None:
    """A paused child stands still, and goes on."""
    partition = {"partition": child_of(root)["id"]}
    assert runs(root)
    root.execute("hv-partition-pause", partition)
    assert child_of(root)["paused"] is True
    time.sleep(0.05)
    stopped = count(root)
    time.sleep(0.2)
    assert count(root) == stopped
    root.execute("hv-partition-resume", partition)
    assert child_of(root)["paused"] is False
    assert runs(root)


def test_registers_of_a_running_vp(root: SyncMachine) -> None:
    """It is stopped for a moment, and goes on."""
    registers = {
        register["name"]: int(register["value"], 16)
        for register in root.execute("query-hv-registers", {"partition": child_of(root)["id"], "vp": 0})
    }
    assert registers["HvX64RegisterRip"] in (5, 10)
    assert registers["HvX64RegisterRax"] == 0x2000
    assert registers["HvX64RegisterCs"] & (1 << 64) - 1 == CODE
    assert runs(root)


def test_memory_ends_where_nothing_is_mapped(root: SyncMachine) -> None:
    """What could be read comes back."""
    end = CHILD_MIB << 20
    partition = child_of(root)["id"]
    memory = root.execute("hv-memory-read", {"partition": partition, "gpa": end - 8, "size": 64})
    assert len(base64.b64decode(memory["data"])) == 8
    code = root.execute("hv-memory-read", {"partition": partition, "gpa": CODE, "size": 3})
    assert base64.b64decode(code["data"]) == b"\xb8\x00\x20"


def test_interrupt(root: SyncMachine) -> None:
    """It is requested at the child's local APIC."""
    partition = child_of(root)["id"]
    before = root.execute("query-hv-vps", {"partition": partition})[0]["counters"]["interrupts"]
    root.execute("hv-interrupt-inject", {"partition": partition, "vp": 0, "vector": 0x40})
    after = root.execute("query-hv-vps", {"partition": partition})[0]["counters"]["interrupts"]
    assert after == before + 1


def test_delete(root: SyncMachine) -> None:
    """A running child goes; the root goes on."""
    root.execute("hv-partition-delete", {"partition": child_of(root)["id"]})
    assert [partition["id"] for partition in root.execute("query-hv-partitions")] == [1]
    assert root.execute("query-status")["running"] is True


@pytest.mark.parametrize(
    "command, arguments, message",
    [
        ("hv-partition-pause", {"partition": 99}, "There is no child partition 99"),
        ("hv-partition-resume", {"partition": 1}, "There is no child partition 1"),
        ("hv-partition-delete", {"partition": 1}, "There is no child partition 1"),
        ("query-hv-registers", {"partition": 99, "vp": 0}, "Partition 99 has no virtual processor 0"),
        ("hv-memory-read", {"partition": 99, "gpa": 0, "size": 1}, "There is no partition 99"),
        ("hv-memory-read", {"partition": 1, "gpa": 0, "size": 1 << 21}, "more than the 1048576 bytes"),
        ("hv-interrupt-inject", {"partition": 1, "vp": 9, "vector": 32}, "Partition 1 has no virtual processor 9"),
        ("hv-interrupt-inject", {"partition": 1, "vp": 0, "vector": 8}, "Vector 8 belongs to exceptions"),
    ],
)
def test_mistakes(root: SyncMachine, command: str, arguments: dict[str, int], message: str) -> None:
    """One line says what was wrong."""
    with pytest.raises(CommandFailed, match=re.escape(message)):
        root.execute(command, arguments)


def test_command_line(start_root: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`qemu-hv partitions` draws the tree, `qemu-hv partition` works on one of them."""
    socket = tmp_path / "qmp"
    machine = start_root({"policy": "default"}, extra=["-qmp", f"unix:{socket},server=on,wait=off"])
    child = child_of(machine)
    assert cli.main(["partitions", "--qmp", str(socket)]) == 0
    tree = capsys.readouterr().out
    assert re.search(r"^1 root  active  1 VP", tree, re.M)
    assert re.search(rf"^└── {child['id']} {child['name']}  active  1 VP  4\.0 MiB mapped", tree, re.M)
    base = ["partition", "--qmp", str(socket), str(child["id"])]
    assert cli.main([*base, "registers"]) == 0
    assert "HvX64RegisterRip" in capsys.readouterr().out
    assert cli.main([*base, "memory", hex(CODE), "16"]) == 0
    assert "b8 00 20" in capsys.readouterr().out
    assert cli.main([*base, "pause"]) == 0
    assert child_of(machine)["paused"] is True
    assert cli.main([*base, "delete"]) == 0
    assert cli.main([*base, "delete"]) == 1
    assert "There is no child partition" in capsys.readouterr().err


# -- Policies --


def test_default_policy_names_partitions(start_root: Start) -> None:
    """By the order of their creation: the root made another one before."""
    assert child_of(start_root({"policy": "default"}))["name"] == "child-2"


def test_without_policy_there_is_no_python(root: SyncMachine) -> None:
    """With policy=none no interpreter is in the process."""
    maps = Path(f"/proc/{root.machine.pid}/maps").read_text(encoding="utf-8")
    assert "libpython" not in maps


def own_policy(folder: Path, body: str) -> str:
    """A policy in a file, as the property wants it."""
    path = folder / "mine.py"
    path.write_text(
        "import time\nfrom qemu_hv.policy.partitions import *\n\n"
        "class Mine(Policy):\n    def admit_partition(self, request):\n" + body,
        encoding="utf-8",
    )
    return f"{path}:Mine"


def answer(machine: SyncMachine, to: str = "create") -> int:
    """What the root's first HvCreatePartition answered, or its attempt to give its child one page more."""
    match = re.search(rf"{to} status=([0-9a-f]+)", machine.machine.console.tail(10))
    assert match is not None
    return int(match.group(1), 16)


NO_RESOURCES = 0x1D


def test_policy_that_raises_denies(start_root: Start, tmp_path: Path) -> None:
    """The traceback is in the log, and QEMU goes on."""
    machine = start_root({"policy": own_policy(tmp_path, "        raise RuntimeError('broken on purpose')\n")})
    assert answer(machine) == NO_RESOURCES
    log = machine.machine.stderr
    assert "Traceback" in log and "broken on purpose" in log
    assert machine.execute("query-status")["running"] is True


def test_slow_policy_is_waited_for(start_root: Start, tmp_path: Path) -> None:
    """The call takes as long as the policy."""
    policy = own_policy(tmp_path, "        time.sleep(1)\n        return Allow(name='slow')\n")
    assert child_of(start_root({"policy": policy}))["name"] == "slow"


def test_policy_that_hangs_blocks_nobody(start_root: Start, tmp_path: Path) -> None:
    """QMP and `stop` work meanwhile; after the deadline the call is denied."""
    machine = start_root({"policy": own_policy(tmp_path, "        time.sleep(3600)\n")})
    assert answer(machine) == NO_RESOURCES
    assert "no answer within 5 s" in machine.machine.stderr
    machine.execute("stop")
    machine.execute("cont")


@pytest.mark.parametrize("limit", [1024, 1025, None])
def test_policy_limits_memory(
    start_root: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str], limit: int | None
) -> None:
    """A child of 4 MiB gets no page more; who looks at it sees the limit."""
    socket = tmp_path / "qmp"
    policy = own_policy(tmp_path, f"        return Allow(page_limit={limit})\n")
    machine = start_root({"policy": policy}, extra=["-qmp", f"unix:{socket},server=on,wait=off"])
    assert answer(machine, "one more") == (NO_RESOURCES if limit == 1024 else 0)
    child = child_of(machine)
    assert child["mapped-pages"] == 1024
    assert child.get("page-limit") == limit
    assert cli.main(["partitions", "--qmp", str(socket)]) == 0
    text = f" of {limit / 256:.1f}" if limit else ""
    assert re.search(rf"└── {child['id']}  active  1 VP  4\.0{text} MiB mapped", capsys.readouterr().out)


def test_default_policy_shares_memory(start_root: Start, tmp_path: Path) -> None:
    """Of 6 MiB one partition gets all that is left; the root's first one has gone when it makes its second."""
    path = tmp_path / "mine.py"
    path.write_text(
        "from qemu_hv.policy.partitions import *\n\nclass Mine(DefaultPolicy):\n    max_pages = 1536\n",
        encoding="utf-8",
    )
    child = child_of(start_root({"policy": f"{path}:Mine"}))
    assert (child["name"], child["page-limit"]) == ("child-2", 1536)


@pytest.mark.parametrize(
    "policy, message",
    [
        ("nonsense", "policy=nonsense is none of: none, default, FILE.py:CLASS"),
        ("/nowhere/mine.py:Mine", "there is no file '/nowhere/mine.py'"),
    ],
)
def test_wrong_policies(hv_machine: HvMachineFactory, policy: str, message: str) -> None:
    """One line, before the machine starts."""
    with pytest.raises(Exception, match=re.escape(message)):
        hv_machine(hypervisor={"role": "root", "policy": policy}, paused=True)
