# SPDX-License-Identifier: GPL-2.0-or-later
"""How the tests are spread over processes (pytest-xdist): in units that belong together, the long ones first."""

from __future__ import annotations

import re

import pytest
from xdist.scheduler import LoadScopeScheduling

__all__ = ["UnitScheduling", "sort_items"]

# Tests that take long begin first, so that no process is left with one while the others have nothing to do. Those that
# are not named here take a second or less.
_LONG_FIRST = (
    "tests/hostile/",
    "tests/guests/root/stress.c",
    "tests/boot/test_time.py",
    "tests/core/test_threads.py",
    "tests/boot/",
    "tests/qmp/test_root_state.py",
    "tests/guests/test_guests.py",
    "tests/qmp/",
    "tests/guests/",
)

# Tests with machines of their own are units. Others go with their module, whose fixtures they share, or with those of
# the same parameters.
_ALONE = ("tests/boot/", "tests/hostile/", "tests/qmp/")
_WITH_MODULE = ("tests/boot/test_time.py",)
_WITH_PARAMETERS = ("tests/core/test_threads.py",)

_CHECK = re.compile(r"(?P<guest>.*\.c)::\w+\[(?P<mode>[\w-]+)\]$")


def _unit(nodeid: str) -> str:
    """Return the name of the unit of a test: all tests of a unit run in one process, one after the other."""
    check = _CHECK.match(nodeid)
    if check:
        return f"{check['guest']}[{check['mode']}]"  # the checks of one run of a guest
    module, _, test = nodeid.partition("::")
    if module in _WITH_PARAMETERS:
        return f"{module}[{test.partition('[')[2]}"
    if module.startswith(_ALONE) and module not in _WITH_MODULE:
        return nodeid
    return module


def _rank(item: pytest.Item) -> int:
    for rank, prefix in enumerate(_LONG_FIRST):
        if item.nodeid.startswith(prefix):
            return rank
    return len(_LONG_FIRST)


def sort_items(items: list[pytest.Item]) -> None:
    """Put long tests first; others stay as they are."""
    items.sort(key=_rank)


class UnitScheduling(LoadScopeScheduling):  # type: ignore[misc]  # it comes without types
    """Gives units to processes in the order of their tests."""

    def __init__(self, config: pytest.Config, log: object = None) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return _unit(nodeid)
