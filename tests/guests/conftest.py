# SPDX-License-Identifier: GPL-2.0-or-later
"""Test guests as pytest cases: every C file here is a guest, every check in it a case for each of its modes."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional, Union

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from guest_catalog import plan_for
from guest_image import ROOT_PROGRAMS, Check, Image, build_image
from guest_runner import CheckResult, Mode, run_guest
from kvm_differences import Difference, difference, kvm_is_usable

from qemu_hv.qemu_binary import QemuBinary, find_qemu

_RUNS: dict[tuple[Path, int, str], dict[str, CheckResult]] = {}
_QEMU: list[QemuBinary] = []


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Optional[pytest.Collector]:
    """Take C files in this folder as test guests, and those in root/ as programs for the root partition."""
    if file_path.suffix == ".c" and file_path.parent in (Path(__file__).resolve().parent, ROOT_PROGRAMS):
        return GuestFile.from_parent(parent, path=file_path)
    return None


def qemu_for_session() -> QemuBinary:
    """Return the QEMU to use, found once per session: QEMU_HV_QEMU, else the one that qemu-hv builds."""
    if not _QEMU:
        _QEMU.append(find_qemu())
    return _QEMU[0]


class GuestFile(pytest.File):
    """A guest's C file."""

    def collect(self) -> Iterator[pytest.Item]:
        """Build the guest in its widths and yield its checks, grouped by mode so that each mode is one run."""
        for bits, mode in plan_for(self.path).runs:
            image = build_image(self.path, bits, root=self.path.parent == ROOT_PROGRAMS)
            for check in image.checks:
                if check.applies(mode.vps, mode.generation, mode.parallel):
                    yield CheckItem.from_parent(
                        self, name=f"{check.name}[{bits}-{mode.name}]", check=check, image=image, mode=mode
                    )


class CheckFailure(Exception):
    """A check that did not pass; its text is the report."""


class CheckItem(pytest.Item):
    """One check of a guest in one mode."""

    def __init__(self, *, check: Check, image: Image, mode: Mode, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._check = check
        self._image = image
        self._mode = mode

    def runtest(self) -> None:
        """Run the guest, unless another of its checks has, and look at this check's result."""
        if self._mode.kvm and not kvm_is_usable():
            pytest.skip("there is no usable /dev/kvm here")
        key = (self.path, self._image.bits, self._mode.name)
        if key not in _RUNS:
            _RUNS[key] = run_guest(qemu_for_session(), self._image, self._mode)
        result = _RUNS[key].get(self._check.name)
        if result is None:
            raise CheckFailure("the guest ended without a result for this check")
        self.add_report_section("call", "guest console", "\n".join(result.console))
        expected = difference(self._check.name, self._mode.kvm)
        if expected:
            self._compare(result, expected)
        elif not result.passed:
            raise CheckFailure(result.message)

    def _compare(self, result: CheckResult, expected: Difference) -> None:
        """Look at the result of a check that need not pass with KVM: it has to fail as the table says."""
        if result.passed:
            if expected.everywhere:
                raise CheckFailure(f"passes, but tests/guests/kvm_differences.py says: {expected.reason}")
        elif not re.search(expected.message, result.message):
            raise CheckFailure(result.message)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Union[str, Any]:
        """Show the guest's own words."""
        if isinstance(excinfo.value, CheckFailure):
            return f"{self._check.name} ({self._check.section})\n{excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, Optional[int], str]:
        """Say where the check is."""
        return self.path, None, self.name
