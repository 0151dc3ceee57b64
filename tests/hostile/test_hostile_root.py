# SPDX-License-Identifier: GPL-2.0-or-later
"""A root partition and its children that do their worst (hostile_root.c), on the sanitized module and core.

Meanwhile the operator looks at partitions, stops, interrupts and deletes them. QEMU answers all the time, both of the
root's VPs get on, and in the end every partition can be deleted and every page is the root's again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from guest_image import build_image
from hostile_machine import Operator, check_end, machine_options, watch

from qemu_hv.machine import SyncMachine
from qemu_hv.pytest_plugin import HvMachineFactory
from qemu_hv.qemu_binary import QemuBinary

HERE = Path(__file__).resolve().parent

VPS = 2
END_TIMEOUT = 60.0  # seconds that the guest may run over its time
SILENCE = 30.0  # seconds that it may say nothing
STANDSTILL = 5  # lines of the guest, one a second, in which a VP may do nothing

ACTIONS = "call build start registers interrupt messages remap memory synic delete idle".split()
SELDOM = {"delete", "idle", "synic"}
FEWEST_ACTIONS = 5  # per VP and second: a guest that does less is stuck


class RootOperator(Operator):
    """Looks at partitions, and works against them."""

    # Commands that wait for a VP to leave the guest have some patience of their own.
    timeout = 10.0

    def __init__(self, machine: SyncMachine, seed: int, output: Path) -> None:
        super().__init__(machine, seed)
        self.children_seen = 0
        self._output = output
        self._partitions: list[dict[str, Any]] = []
        self._said = 0
        self._heard_at = time.monotonic()

    def wait_for_start(self) -> None:
        """An interrupt that the operator injects would be the end of the firmware."""
        while "READY" not in self._output.read_text(encoding="ascii"):
            self._listen()
            time.sleep(0.1)

    def _listen(self) -> None:
        size = self._output.stat().st_size
        now = time.monotonic()
        if size != self._said:
            self._said, self._heard_at = size, now
        assert now - self._heard_at < SILENCE, self._output.read_text(encoding="ascii")[-2000:]

    def look(self) -> None:
        """Ask for all there is to know."""
        self._listen()
        status = self.ask("query-status")
        assert status["running"], status
        self._partitions = self.ask("query-hv-partitions")
        self.children_seen = max(self.children_seen, len(self._partitions) - 1)
        for partition in self._partitions:
            self.try_to("query-hv-vps", {"partition": partition["id"]})
        if "FINISHING" in self._output.read_text(encoding="ascii"):
            self._delete_those_with_children()

    def _delete_those_with_children(self) -> None:
        """A partition that has children of its own is not its parent's to delete."""
        parents = {partition.get("parent") for partition in self._partitions}
        for partition in self._partitions:
            if partition["depth"] == 1 and partition["id"] in parents:
                self.try_to("hv-partition-delete", {"partition": partition["id"]})

    def _some_id(self) -> int:
        known = [partition["id"] for partition in self._partitions]
        return int(self.random.choice([*known, max(known) + 1, 1 << 40]))

    def _requests(self) -> Iterator[tuple[str, dict[str, int]]]:
        partition, vp = self._some_id(), self.random.randrange(4)
        of_vp = {"partition": partition, "vp": vp}
        yield "query-hv-registers", of_vp
        yield "hv-interrupt-inject", {**of_vp, "vector": self.random.randrange(256)}
        yield "hv-memory-read", {"partition": partition, "gpa": self.random.getrandbits(20), "size": 4096}
        if partition != 1:
            yield "hv-partition-pause", {"partition": partition}
            yield "query-hv-registers", of_vp
            yield "hv-partition-resume", {"partition": partition}
        if self.random.random() < 0.1:
            yield "hv-partition-delete", {"partition": partition}

    def interfere(self) -> None:
        """Everything that an operator can do to a partition."""
        for command, arguments in self._requests():
            if command == "hv-interrupt-inject" and arguments["partition"] == 1:
                arguments["vector"] |= 0x20
            self.try_to(command, arguments)


def standstill(said: str) -> int:
    """Return for how many lines in a row a VP of the root has done nothing."""
    longest = 0
    running = [0] * VPS
    for line in re.findall(r"^ALIVE((?: \d+)+)$", said, re.M):
        for vp, count in enumerate(map(int, line.split())):
            running[vp] = 0 if count else running[vp] + 1
        longest = max(longest, *running)
    return longest


def check_thoroughness(said: str, seconds: float) -> None:
    """Every VP did something of every kind, calls were made that succeeded, and children got to run."""
    types = [0, 0]
    ends = re.findall(r"^DONE (\d+)((?: \d+)+) calls (\d+) successes (\d+) .* types (\w+) (\w+) ", said, re.M)
    assert [int(end[0]) for end in ends] == list(range(VPS)), said[-2000:]
    for _, counts, calls, successes, *found in ends:
        done = dict(zip(ACTIONS, map(int, counts.split())))
        assert len(done) == len(ACTIONS)
        assert sum(done.values()) >= FEWEST_ACTIONS * seconds, done
        assert min(count for name, count in done.items() if name not in SELDOM) > 0, done
        assert int(successes) * 50 > int(calls), (successes, calls)
        types = [old | int(new, 16) for old, new in zip(types, found)]
    # Messages about GPAs and the like, and about instructions (TLFS 14.8.2)
    assert all(types), types


@pytest.mark.parametrize(
    "accel, interface, share",
    [("tcg,thread=multi", "current", 0.5), ("tcg,thread=multi", "2008r2", 0.3), ("tcg,thread=single", "current", 0.2)],
    ids=["multi-current", "multi-2008r2", "single-current"],
)
def test_hypervisor_survives_a_hostile_root(
    accel: str,
    interface: str,
    share: float,
    sanitized_qemu: QemuBinary,
    hv_machine: HvMachineFactory,
    pytestconfig: pytest.Config,
    tmp_path: Path,
) -> None:
    """No sanitizer report, no abort, no standstill; and nothing is left of the partitions in the end."""
    seconds = max(2, round(share * pytestconfig.getoption("hostile_seconds")))
    seed = pytestconfig.getoption("hostile_seed")
    output = tmp_path / "output"
    options = machine_options(
        sanitized_qemu,
        build_image(HERE / "hostile_root.c", 64, root=True).path,
        {"role": "root", "interface": interface},
        accel,
        f"seed={seed} seconds={seconds} generation={interface}",
        output,
    )
    machine = hv_machine(**{**options, "smp": VPS, "memory": "256"})
    operator = RootOperator(machine, seed, output)
    operator.wait_for_start()
    watch(operator, time.monotonic() + 3 * seconds + END_TIMEOUT)
    said = check_end(machine, output)
    assert standstill(said) <= STANDSTILL, said
    assert operator.children_seen > 0
    check_thoroughness(said, seconds)
