# SPDX-License-Identifier: GPL-2.0-or-later
"""Admission of partitions and VPs (TLFS chapters 5 and 10).

The hypervisor asks before a parent's call creates something. The answer is either `Allow` or an exception:
`Deny` with a reason, which is logged as one line, or any other, which is logged with its traceback and denies too.
The guest gets HV_STATUS_NO_RESOURCES then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional


class Deny(Exception):
    """The request is refused; the text says why."""


@dataclass(frozen=True)
class Request:
    """What a parent asks for.

    Attributes:
        parent: Partition ID of the caller.
        partition: Partition ID of the partition that it is for; 0 when that is to be created.
        depth: How far that partition is from the root, whose depth is 0.
        partitions: Partitions that exist in the machine, the root included.
        vps: Virtual processors that exist in the machine, the root's included.
        privileges: HV_PARTITION_PRIVILEGE_MASK (TLFS 5.2.3) that a new partition has by default.
    """

    parent: int
    partition: int
    depth: int
    partitions: int
    vps: int
    privileges: int


@dataclass(frozen=True)
class Allow:
    """The request is granted.

    Attributes:
        privileges: Privilege mask of a new partition; None leaves the default. A parent cannot be given what it
            has not itself.
        name: What the operator sees the new partition called, at most 63 bytes of UTF-8.
    """

    privileges: Optional[int] = None
    name: Optional[str] = None


class Policy:
    """Allows everything. A policy of your own derives from it and overrides what it cares about."""

    def admit_partition(self, request: Request) -> Allow:
        """Answer HvCreatePartition (TLFS 5.6.1)."""
        return Allow()

    def admit_vp(self, request: Request) -> Allow:
        """Answer HvCreateVp (TLFS 10.4.1)."""
        return Allow()


class DefaultPolicy(Policy):
    """Limits that keep one machine usable, and names by number.

    Attributes:
        max_partitions: Partitions, the root included.
        max_vps: Virtual processors of all partitions.
        max_depth: Levels below the root.
    """

    max_partitions = 256
    max_vps = 512
    max_depth = 4

    def __init__(self) -> None:
        """Nothing has been named yet."""
        self.created = 0

    def admit_partition(self, request: Request) -> Allow:
        """Refuse one too many, or one too deep."""
        if request.partitions >= self.max_partitions:
            raise Deny(f"there are {request.partitions} partitions already, the limit is {self.max_partitions}")
        if request.depth > self.max_depth:
            raise Deny(f"a partition at depth {request.depth} is below the limit of {self.max_depth}")
        self.created += 1
        return Allow(name=f"child-{self.created}")

    def admit_vp(self, request: Request) -> Allow:
        """Refuse one too many."""
        if request.vps >= self.max_vps:
            raise Deny(f"there are {request.vps} virtual processors already, the limit is {self.max_vps}")
        return Allow()
