# SPDX-License-Identifier: GPL-2.0-or-later
"""Partitions, VPs and memory pools against a model of TLFS chapters 5, 7 and 10.4, in any order of calls."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from root import SELF, VIRTUAL_TLB_PAGE_COUNT, Root

from qemu_hv._core import Exit, Status

ROOT_POOL = 1024
PARTITION, ACTIVATION, TLB_DEFAULT, TLB_MINIMUM, VP = 6, 4, 16, 4, 16
"""Pages that things cost (costs.def)."""
FINALIZE = 0x0042 | 1 << 16
UNINITIALIZED, ACTIVE, FINALIZED = range(3)

which = st.integers(0, 5)
indices = st.integers(0, 3)


@dataclass
class Model:
    """What a partition should be."""

    id: int
    state: int = UNINITIALIZED
    pages: set[int] = field(default_factory=set)
    tlb: int = TLB_DEFAULT
    vps: set[int] = field(default_factory=set)

    @property
    def in_use(self) -> int:
        """Pages that are charged."""
        return ACTIVATION + self.tlb + VP * len(self.vps) if self.state == ACTIVE else 0

    @property
    def free(self) -> int:
        """Pages that can be withdrawn."""
        return len(self.pages) - self.in_use


class Partitions(RuleBasedStateMachine):
    """A root that does anything to up to six children. None of its VPs waits, so children run only when told."""

    generation = "current"

    def __init__(self) -> None:
        super().__init__()
        self.root = Root(self.generation, memory=1 << 26)
        self.models: list[Model] = []
        self.running: tuple[Model, int, int] | None = None
        self.unused: list[int] = []

    def model(self, number: int) -> Model | None:
        """One of the children."""
        return self.models[number] if number < len(self.models) else None

    def take_pages(self, count: int) -> list[int]:
        """Pages of the root; withdrawn ones are used again first."""
        pages = self.unused[:count]
        self.unused = self.unused[count:]
        return pages + self.root.pages(count - len(pages))

    @rule()
    def create(self) -> None:
        """HvCreatePartition."""
        if len(self.models) < 6:
            self.models.append(Model(self.root.create_partition()))

    @rule(number=which, count=st.integers(1, 130))
    def deposit(self, number: int, count: int) -> None:
        """HvDepositMemory."""
        model = self.model(number)
        if not model:
            return
        pages = self.take_pages(count)
        status = self.root.try_deposit(model.id, pages).status
        if model.state == FINALIZED:
            assert status == Status.INVALID_PARTITION_STATE
            self.unused += pages
        else:
            assert status == Status.SUCCESS
            model.pages |= set(pages)

    @rule(number=which, count=st.integers(1, 200))
    def withdraw(self, number: int, count: int) -> None:
        """HvWithdrawMemory."""
        model = self.model(number)
        if not model:
            return
        expected = min(count, model.free)
        result, pages = self.root.try_withdraw(model.id, count)
        assert result.status == (Status.SUCCESS if expected == count else Status.NO_RESOURCES)
        assert len(pages) == len(set(pages)) == expected
        assert set(pages) <= model.pages
        model.pages -= set(pages)
        self.unused += pages

    @rule(number=which)
    def initialize(self, number: int) -> None:
        """HvInitializePartition."""
        model = self.model(number)
        if not model:
            return
        status = self.root.initialize(model.id)
        if model.state != UNINITIALIZED:
            assert status == Status.INVALID_PARTITION_STATE
        elif model.free < ACTIVATION + model.tlb:
            assert status == Status.INSUFFICIENT_MEMORY
        else:
            assert status == Status.SUCCESS
            model.state = ACTIVE

    @rule(number=which, index=indices)
    def create_vp(self, number: int, index: int) -> None:
        """HvCreateVp."""
        model = self.model(number)
        if not model:
            return
        status = self.root.try_create_vp(model.id, index)
        if model.state != ACTIVE:
            assert status == Status.INVALID_PARTITION_STATE
        elif index in model.vps:
            assert status == Status.INVALID_VP_INDEX
        elif model.free < VP:
            assert status == Status.INSUFFICIENT_MEMORY
        else:
            assert status == Status.SUCCESS
            model.vps.add(index)

    def stop_if(self, model: Model, index: int | None = None) -> None:
        """Have the LP let go of a VP that is about to be removed."""
        if self.running and self.running[0] is model and index in (None, self.running[1]):
            self.stop()

    @rule(number=which, index=indices)
    def delete_vp(self, number: int, index: int) -> None:
        """HvDeleteVp."""
        model = self.model(number)
        if not model:
            return
        if model.state == ACTIVE and index in model.vps:
            self.stop_if(model, index)
        status = self.root.delete_vp(model.id, index)
        if model.state != ACTIVE:
            assert status == Status.INVALID_PARTITION_STATE
        elif index not in model.vps:
            assert status == Status.INVALID_VP_INDEX
        else:
            assert status == Status.SUCCESS
            model.vps.remove(index)

    @rule(number=which, count=st.integers(0, 60))
    def virtual_tlb(self, number: int, count: int) -> None:
        """The one property that costs memory."""
        model = self.model(number)
        if not model or model.state == UNINITIALIZED:
            return
        status = self.root.set_property(model.id, VIRTUAL_TLB_PAGE_COUNT, count)
        count = max(count, TLB_MINIMUM)
        if model.state != ACTIVE:
            assert status == Status.INVALID_PARTITION_STATE
        elif count - model.tlb > model.free:
            assert status == Status.INSUFFICIENT_MEMORY
        else:
            assert status == Status.SUCCESS
            model.tlb = count

    @rule(number=which, index=indices)
    def run(self, number: int, index: int) -> None:
        """Resume a boot processor and have its LP run it."""
        model = self.model(number)
        if not model or self.running or index not in model.vps or index != 0:
            return
        m = self.root.machine
        self.root.resume(model.id, index)
        handle = self.root.handle(model.id, index)
        lp = m.lp_of(handle)
        m.set_waits(lp, True)
        picked, _ = m.schedule(lp)
        assert picked is not None
        if picked == handle:
            self.running = (model, index, handle)
        else:
            m.stopped(picked)
        m.set_waits(lp, False)

    @rule()
    def stop(self) -> None:
        """The LP takes its VP back."""
        if self.running:
            self.root.machine.stopped(self.running[2])
            self.running = None

    @rule(number=which)
    def finalize(self, number: int) -> None:
        """HvFinalizePartition; with a running VP it has to be executed again."""
        model = self.model(number)
        if not model:
            return
        if model.state == ACTIVE and self.running and self.running[0] is model:
            assert self.root.machine.hypercall(0, FINALIZE, model.id).exit == Exit.RETRY
            self.stop()
        status = self.root.finalize(model.id)
        if model.state != ACTIVE:
            assert status == Status.INVALID_PARTITION_STATE
        else:
            assert status == Status.SUCCESS
            model.state = FINALIZED
            model.vps.clear()

    @rule(number=which)
    def delete(self, number: int) -> None:
        """HvDeletePartition."""
        model = self.model(number)
        if not model:
            return
        status = self.root.delete(model.id)
        if model.state == ACTIVE:
            assert status == Status.INVALID_PARTITION_STATE
        elif model.pages:
            assert status == Status.OPERATION_DENIED
        else:
            assert status == Status.SUCCESS
            self.models.remove(model)

    @rule(number=which)
    def operator_deletes(self, number: int) -> None:
        """Everything goes, and every page is the root's again."""
        model = self.model(number)
        if not model:
            return
        if model.state == ACTIVE:
            self.stop_if(model)
        assert self.root.machine.operator_delete_partition(model.id) == 0
        self.unused += sorted(model.pages)
        self.models.remove(model)

    @invariant()
    def balances(self) -> None:
        """TLFS 7.3.3: pools hold what was deposited, and objects cost what the table says."""
        assert self.root.children() == [model.id for model in self.models]
        for model in self.models:
            balance = self.root.balance(model.id)
            assert (balance.available, balance.in_use) == (model.free, model.in_use)
        balance = self.root.balance(SELF)
        assert balance.in_use == PARTITION * len(self.models)
        assert balance.available == ROOT_POOL - balance.in_use


class Partitions2008R2(Partitions):
    """The same with the layouts of the specification."""

    generation = "2008r2"


@pytest.mark.parametrize("machine", [Partitions, Partitions2008R2])
def test_any_order_of_calls(machine: type[Partitions]) -> None:
    """No sequence of calls breaks the rules."""
    run_state_machine_as_test(machine)
