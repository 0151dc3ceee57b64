# SPDX-License-Identifier: GPL-2.0-or-later
"""Code in the root partition, on the simulated platform: makes children by hypercalls as a parent does.

Names and layouts are the specification's; where the interface generations differ, both are here. A method called
``try_...`` returns the result of a call, the one without asserts that the call succeeds.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from simulated_guest import (
    GUEST_OS_ID,
    HYPERCALL,
    HYPERCALL_PAGE,
    INPUT,
    OUTPUT,
    Guest,
    reps,
)
from simulated_guest import (
    SELF as SELF,
)

from qemu_hv._core import HypercallResult, Status

GET_LP_RUN_TIME = 0x0004
PARK_LPS = 0x0009
CREATE_PARTITION = 0x0040
INITIALIZE_PARTITION = 0x0041
FINALIZE_PARTITION = 0x0042
DELETE_PARTITION = 0x0043
GET_PARTITION_PROPERTY = 0x0044
SET_PARTITION_PROPERTY = 0x0045
GET_PARTITION_ID = 0x0046
GET_NEXT_CHILD = 0x0047
DEPOSIT_MEMORY = 0x0048
WITHDRAW_MEMORY = 0x0049
GET_MEMORY_BALANCE = 0x004A
MAP_GPA_PAGES = 0x004B
UNMAP_GPA_PAGES = 0x004C
CREATE_VP = 0x004E
DELETE_VP = 0x004F
GET_VP_REGISTERS = 0x0050
SET_VP_REGISTERS = 0x0051

PRIVILEGE_FLAGS = 0x00010000
CPU_RESERVE = 0x00020001
CPU_CAP = 0x00020002
CPU_WEIGHT = 0x00020003
EMULATED_TIMER_PERIOD = 0x00030000
EMULATED_TIMER_CONTROL = 0x00030001
PM_TIMER_ASSIST = 0x00030002
DEBUG_CHANNEL_ID = 0x00040000
VIRTUAL_TLB_PAGE_COUNT = 0x00050000
PROCESSOR_VENDOR = 0x00060000
PROCESSOR_FEATURES = 0x00060001
PROCESSOR_XSAVE_FEATURES = 0x00060002
PROCESSOR_CLFLUSH_SIZE = 0x00060003

EXPLICIT_SUSPEND = 0x00000000
INTERCEPT_SUSPEND = 0x00000001

READ, WRITE, EXECUTE = 1, 2, 4
ALL_RIGHTS = READ | WRITE | EXECUTE

ROOT_ID = 1
LIST_MAX = 500
"""Elements that these methods put into one call."""
FIRST_PAGE = 0x100
"""The first of the root's pages that it lends to others: everything from 1 MiB on."""


@dataclass
class Balance:
    """What HvGetMemoryBalance tells (TLFS 7.3.3), in pages."""

    available: int
    in_use: int


class Root(Guest):
    """The root partition's software. Methods name one of its VPs where one acts."""

    def __init__(self, generation: str = "current", *, vps: int = 2, **config: Any) -> None:
        super().__init__(generation, vps=vps, root=True, **config)
        self.next_page = FIRST_PAGE

    @property
    def current(self) -> bool:
        """Whether today's layouts are used."""
        return self.generation == "current"

    def pages(self, count: int) -> list[int]:
        """Numbers of pages of the root's RAM that nobody has used yet."""
        first = self.next_page
        self.next_page += count
        return list(range(first, self.next_page))

    def output(self, form: str, gpa: int = OUTPUT) -> tuple[Any, ...]:
        """What the last call wrote."""
        return struct.unpack(form, self.machine.read(gpa, struct.calcsize(form)))

    # -- Partitions (TLFS 5.6) --

    def create_input(self, flags: int = 0, proximity: int = 0, disabled: int = 0, disabled_xsave: int = 0) -> bytes:
        """Input of HvCreatePartition."""
        if self.current:
            # Behind the proximity domain: compatibility version, padding that nobody clears, what is disabled.
            return struct.pack("<QQIIQQQQ", flags, proximity, 0x609, 0xDEAD, disabled, 0, disabled_xsave, 0)
        return struct.pack("<QQ", flags, proximity)

    def try_create_partition(self, *, vp: int = 0, **fields: int) -> Status:
        """HvCreatePartition (TLFS 5.6.1); the ID is in the output."""
        return self.status(CREATE_PARTITION, self.create_input(**fields), vp=vp)

    def create_partition(self, **fields: int) -> int:
        """The same; the new partition's ID."""
        assert self.try_create_partition(**fields) == Status.SUCCESS
        (partition,) = self.output("<Q")
        return int(partition)

    def initialize(self, partition: int, *, vp: int = 0) -> Status:
        """HvInitializePartition (TLFS 5.6.2)."""
        return self.fast(INITIALIZE_PARTITION, partition, vp=vp)

    def finalize(self, partition: int, *, vp: int = 0) -> Status:
        """HvFinalizePartition (TLFS 5.6.3)."""
        return self.fast(FINALIZE_PARTITION, partition, vp=vp)

    def delete(self, partition: int, *, vp: int = 0) -> Status:
        """HvDeletePartition (TLFS 5.6.4)."""
        return self.fast(DELETE_PARTITION, partition, vp=vp)

    def next_child(self, parent: int, previous: int = 0, *, vp: int = 0) -> tuple[Status, int]:
        """HvGetNextChildPartition (TLFS 5.6.8): status, ID."""
        status = self.status(GET_NEXT_CHILD, struct.pack("<QQ", parent, previous), vp=vp)
        (child,) = self.output("<Q") if status == Status.SUCCESS else (0,)
        return status, int(child)

    def children(self, parent: int = SELF) -> list[int]:
        """IDs of all children, in the order of enumeration."""
        found: list[int] = []
        while True:
            status, child = self.next_child(parent, found[-1] if found else 0)
            assert status == Status.SUCCESS
            if child == 0:
                return found
            found.append(child)

    # -- Properties (TLFS 5.6.5, 5.6.6) --

    def try_get_property(self, partition: int, code: int, *, vp: int = 0) -> Status:
        """HvGetPartitionProperty, with padding that nobody cleared."""
        return self.status(GET_PARTITION_PROPERTY, struct.pack("<QII", partition, code, 0xDEAD), vp=vp)

    def get_property(self, partition: int, code: int) -> int:
        """A property's value."""
        assert self.try_get_property(partition, code) == Status.SUCCESS
        (value,) = self.output("<Q")
        return int(value)

    def set_property(self, partition: int, code: int, value: int, *, vp: int = 0) -> Status:
        """HvSetPartitionProperty."""
        return self.status(SET_PARTITION_PROPERTY, struct.pack("<QIIQ", partition, code, 0xDEAD, value), vp=vp)

    # -- Memory pools (TLFS 7.3) --

    def try_deposit(self, partition: int, pages: list[int], *, vp: int = 0, start: int = 0) -> HypercallResult:
        """HvDepositMemory of one list."""
        data = struct.pack(f"<Q{len(pages)}Q", partition, *pages)
        return self.call(DEPOSIT_MEMORY | reps(len(pages), start), data, vp=vp)

    def deposit(self, partition: int, count: int, *, vp: int = 0) -> list[int]:
        """Deposit so many fresh pages of the root; their numbers."""
        pages = self.pages(count)
        for first in range(0, count, LIST_MAX):
            result = self.try_deposit(partition, pages[first : first + LIST_MAX], vp=vp)
            assert result.status == Status.SUCCESS
        return pages

    def try_withdraw(
        self, partition: int, count: int, *, proximity: int = 0, vp: int = 0
    ) -> tuple[HypercallResult, list[int]]:
        """HvWithdrawMemory: result, and the pages withdrawn."""
        data = struct.pack("<QQ", partition, proximity)
        result = self.call(WITHDRAW_MEMORY | reps(count), data, vp=vp)
        return result, list(self.output(f"<{result.reps_completed}Q"))

    def withdraw_all(self, partition: int, *, vp: int = 0) -> list[int]:
        """Withdraw until there is nothing left, as deployed parents do."""
        found: list[int] = []
        while True:
            result, pages = self.try_withdraw(partition, LIST_MAX, vp=vp)
            found += pages
            if result.status == Status.NO_RESOURCES:
                return found
            assert result.status == Status.SUCCESS

    def try_balance(self, partition: int, *, proximity: int = 0, vp: int = 0) -> Status:
        """HvGetMemoryBalance."""
        return self.status(GET_MEMORY_BALANCE, struct.pack("<QQ", partition, proximity), vp=vp)

    def balance(self, partition: int = SELF) -> Balance:
        """A pool's balance."""
        assert self.try_balance(partition) == Status.SUCCESS
        return Balance(*self.output("<QQ"))

    # -- GPA spaces (TLFS 8.3) --

    def try_map(
        self, partition: int, gpa_page: int, pages: list[int], rights: int = ALL_RIGHTS, *, vp: int = 0
    ) -> HypercallResult:
        """HvMapGpaPages of one list of the caller's pages, with padding that nobody cleared."""
        data = struct.pack(f"<QQII{len(pages)}Q", partition, gpa_page, rights, 0xDEAD if self.current else 0, *pages)
        return self.call(MAP_GPA_PAGES | reps(len(pages)), data, vp=vp)

    def try_unmap(
        self, partition: int, gpa_page: int, count: int = 1, flags: int = 0, *, vp: int = 0
    ) -> HypercallResult:
        """HvUnmapGpaPages in the generation's layout."""
        data = struct.pack("<QQ", partition, gpa_page)
        if self.current:
            data += struct.pack("<II", flags, 0xDEAD)
        return self.call(UNMAP_GPA_PAGES | reps(count), data, vp=vp)

    def unmap(self, partition: int, gpa_page: int, count: int = 1) -> None:
        """The same, which must succeed."""
        assert self.try_unmap(partition, gpa_page, count).status == Status.SUCCESS

    def map_memory(self, partition: int, gpa_page: int, count: int, rights: int = ALL_RIGHTS, *, vp: int = 0) -> int:
        """Map so many fresh pages of the root from a child's page number on; the number of the first."""
        pages = self.pages(count)
        for first in range(0, count, LIST_MAX):
            result = self.try_map(partition, gpa_page + first, pages[first : first + LIST_MAX], rights, vp=vp)
            assert result.status == Status.SUCCESS
        return pages[0]

    # -- Virtual processors (TLFS 10.4) --

    def create_vp_input(self, partition: int, index: int, *, flags: int = 0, proximity: int = 0) -> bytes:
        """Input of HvCreateVp."""
        if self.current:
            # Padding and the subnode's ID hold what the last call left there; subnode type 0 means any.
            head = struct.pack("<QI3sBQ", partition, index, b"\xee\xee\xee", 0, 0xDEADBEEF)
            return head + struct.pack("<QQ", proximity, flags)
        return struct.pack("<QIIQQ", partition, index, 0, proximity, flags)

    def try_create_vp(self, partition: int, index: int, *, vp: int = 0, **fields: int) -> Status:
        """HvCreateVp (TLFS 10.4.1)."""
        return self.status(CREATE_VP, self.create_vp_input(partition, index, **fields), vp=vp)

    def create_vp(self, partition: int, index: int, **fields: int) -> int:
        """The same; the new VP's handle."""
        assert self.try_create_vp(partition, index, **fields) == Status.SUCCESS
        return self.handle(partition, index)

    def delete_vp(self, partition: int, index: int, *, vp: int = 0) -> Status:
        """HvDeleteVp (TLFS 10.4.2)."""
        return self.fast(DELETE_VP, partition, index, vp=vp)

    def handle(self, partition: int, index: int) -> int:
        """Handle of a VP that exists."""
        handle = self.machine.handle(partition, index)
        assert handle is not None
        return handle

    def try_set_register(self, partition: int, index: int, name: int, value: int, *, vp: int = 0) -> HypercallResult:
        """HvSetVpRegisters (TLFS 10.4.4) of one register."""
        head = struct.pack("<QII", partition, index, 0)
        element = struct.pack("<IIQ", name, 0, 0) + value.to_bytes(16, "little")
        return self.call(SET_VP_REGISTERS | reps(1), head + element, vp=vp)

    def set_register(self, partition: int, index: int, name: int, value: int) -> None:
        """The same, which must succeed."""
        assert self.try_set_register(partition, index, name, value).status == Status.SUCCESS

    def try_get_register(self, partition: int, index: int, name: int, *, vp: int = 0) -> HypercallResult:
        """HvGetVpRegisters (TLFS 10.4.3) of one register; the value is in the output."""
        data = struct.pack("<QIII", partition, index, 0, name)
        return self.call(GET_VP_REGISTERS | reps(1), data, vp=vp)

    def get_register(self, partition: int, index: int, name: int) -> int:
        """A register's value."""
        assert self.try_get_register(partition, index, name).status == Status.SUCCESS
        return int.from_bytes(self.machine.read(OUTPUT, 16), "little")

    def resume(self, partition: int, index: int = 0) -> None:
        """Clear both reasons of suspension (TLFS 10.3.1), in the order deployed parents use."""
        self.set_register(partition, index, INTERCEPT_SUSPEND, 0)
        self.set_register(partition, index, EXPLICIT_SUSPEND, 0)

    # -- Builder --

    def partition(
        self, *, vps: int = 1, deposit: int = 128, memory: int = 0, privileges: int | None = None, **fields: int
    ) -> int:
        """An active child: so many pages in its pool, VPs 0 on, and so many pages of memory from GPA 0 on."""
        partition = self.create_partition(**fields)
        self.deposit(partition, deposit)
        assert self.initialize(partition) == Status.SUCCESS
        if privileges is not None:
            assert self.set_property(partition, PRIVILEGE_FLAGS, privileges) == Status.SUCCESS
        if memory:
            self.map_memory(partition, 0, memory)
        for index in range(vps):
            self.create_vp(partition, index)
        return partition

    def destroy(self, partition: int) -> list[int]:
        """Destroy a child as TLFS 5.4.3 says; the pages withdrawn."""
        assert self.finalize(partition) == Status.SUCCESS
        pages = self.withdraw_all(partition)
        assert self.delete(partition) == Status.SUCCESS
        return pages


class Child:
    """Software in a child that the root made, whose VP 0 makes hypercalls. Needs 48 pages of memory from GPA 0 on.

    The simulated processor runs wherever a test says so, suspended or not.
    """

    def __init__(self, root: Root, partition: int) -> None:
        self.root = root
        self.partition = partition
        self.vp = root.handle(partition, 0)
        root.machine.wrmsr(self.vp, GUEST_OS_ID, 0x8100_0000_0000_0002)
        root.machine.wrmsr(self.vp, HYPERCALL, HYPERCALL_PAGE | 1)

    def call(self, input_value: int, data: bytes = b"", *, output: int = OUTPUT) -> HypercallResult:
        """A hypercall with its parameters in the child's memory."""
        if data:
            self.root.machine.write(INPUT, data, self.vp)
        return self.root.machine.call(self.vp, input_value, INPUT, output)

    def status(self, input_value: int, data: bytes = b"") -> Status:
        """The status of such a call, which must retire."""
        status = self.call(input_value, data).status
        assert status is not None
        return status

    def fast(self, code: int, first: int = 0, second: int = 0) -> Status:
        """The status of a call with its parameters in registers."""
        result = self.root.machine.call(self.vp, code | 1 << 16, first, second)
        assert result.status is not None
        return result.status

    def output(self, form: str) -> tuple[Any, ...]:
        """What the last call wrote."""
        return struct.unpack(form, self.root.machine.read(OUTPUT, struct.calcsize(form), self.vp))

    def create_partition(self) -> int:
        """HvCreatePartition, paid from the child's own pool; the new partition's ID."""
        assert self.status(CREATE_PARTITION, self.root.create_input()) == Status.SUCCESS
        (partition,) = self.output("<Q")
        return int(partition)

    def make_child(self, pages: list[int], *, deposit: int = 96, privileges: int | None = None) -> int:
        """An active child of this child with one VP, made from these pages of its own, as `Root.partition` does."""
        partition = self.create_partition()
        lent, memory = pages[:deposit], pages[deposit:]
        data = struct.pack(f"<Q{len(lent)}Q", partition, *lent)
        assert self.status(DEPOSIT_MEMORY | reps(len(lent)), data) == Status.SUCCESS
        assert self.fast(INITIALIZE_PARTITION, partition) == Status.SUCCESS
        if privileges is not None:
            data = struct.pack("<QIIQ", partition, PRIVILEGE_FLAGS, 0, privileges)
            assert self.status(SET_PARTITION_PROPERTY, data) == Status.SUCCESS
        for first in range(0, len(memory), LIST_MAX):
            part = memory[first : first + LIST_MAX]
            data = struct.pack(f"<QQII{len(part)}Q", partition, first, ALL_RIGHTS, 0, *part)
            assert self.status(MAP_GPA_PAGES | reps(len(part)), data) == Status.SUCCESS
        assert self.status(CREATE_VP, self.root.create_vp_input(partition, 0)) == Status.SUCCESS
        return partition
