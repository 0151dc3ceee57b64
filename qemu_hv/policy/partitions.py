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
        mapped_pages: Pages that the parent's children have mapped (TLFS 8.1.1), all together.
        promised_pages: The same, with as many for each child as its `Allow.page_limit` lets it have. What children of
            the root are promised is the memory of all partitions: those below have theirs from them.
    """

    parent: int
    partition: int
    depth: int
    partitions: int
    vps: int
    privileges: int
    mapped_pages: int
    promised_pages: int


@dataclass(frozen=True)
class Allow:
    """The request is granted.

    Attributes:
        privileges: Privilege mask of a new partition; None leaves the default. A parent cannot be given what it
            has not itself.
        name: What the operator sees the new partition called, at most 63 bytes of UTF-8.
        page_limit: Pages of 4 KiB that a new partition may have mapped at a time; None is no limit. Its parent's call
            that would map more stops there with HV_STATUS_NO_RESOURCES.

    Raises:
        ValueError: One of the numbers does not fit into 64 bits.
    """

    privileges: Optional[int] = None
    name: Optional[str] = None
    page_limit: Optional[int] = None

    def __post_init__(self) -> None:
        """Check what the hypervisor would misunderstand."""
        for number in (self.privileges, self.page_limit):
            if number is not None and not 0 <= number < 1 << 64:
                raise ValueError(f"{number} is not a number of 64 bits")


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
        max_pages: Pages of 4 KiB that all partitions together may have mapped; None, the default, is no limit.
        partition_pages: Pages that each partition may have mapped; None is no limit of its own. With `max_pages`, a
            child of the root gets this share, or without one all that the others have left, and one for which there is
            not enough left is refused.
    """

    max_partitions = 256
    max_vps = 512
    max_depth = 4
    max_pages: Optional[int] = None
    partition_pages: Optional[int] = None

    def __init__(self) -> None:
        """Nothing has been named yet."""
        self.created = 0

    def admit_partition(self, request: Request) -> Allow:
        """Refuse one too many, or one too deep."""
        if request.partitions >= self.max_partitions:
            raise Deny(f"there are {request.partitions} partitions already, the limit is {self.max_partitions}")
        if request.depth > self.max_depth:
            raise Deny(f"a partition at depth {request.depth} is below the limit of {self.max_depth}")
        page_limit = self._share(request)
        self.created += 1
        return Allow(name=f"child-{self.created}", page_limit=page_limit)

    def _share(self, request: Request) -> Optional[int]:
        if self.max_pages is None or request.depth > 1:  # what is deeper has its pages from its parent's
            return self.partition_pages
        left = self.max_pages - request.promised_pages
        share = left if self.partition_pages is None else self.partition_pages
        if not 0 < share <= left:
            raise Deny(f"{request.promised_pages} pages are promised already, the limit is {self.max_pages}")
        return share

    def admit_vp(self, request: Request) -> Allow:
        """Refuse one too many."""
        if request.vps >= self.max_vps:
            raise Deny(f"there are {request.vps} virtual processors already, the limit is {self.max_vps}")
        return Allow()
