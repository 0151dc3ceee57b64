# SPDX-License-Identifier: GPL-2.0-or-later
"""The pytest plugin in somebody else's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from guest_image import build_image

from qemu_hv import cache

HERE = Path(__file__).resolve().parent
CACHE = cache.root().parent  # before the pytester's home folder takes the place of the user's

pytest_plugins = ["pytester"]

TESTS = """
def test_fails(hv_machine):
    machine = hv_machine(kernel={kernel!r}, console="debugcon", memory="128M")
    machine.wait_for("^ready")
    open("pid", "w").write(str(machine.machine.pid))
    assert machine.execute("query-hv")["interface"] == "a mistake"

def test_passes(hv_machine):
    import os, pytest
    with pytest.raises(ProcessLookupError):
        os.kill(int(open("pid").read()), 0)
    assert hv_machine(paused=True).status() == "prelaunch"
"""


def test_machine_of_a_failed_test_is_ended_and_shown(
    pytester: pytest.Pytester, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = str(build_image(HERE / "operator_guest.c", 64).path)
    pytester.makepyfile(TESTS.format(kernel=kernel))
    # Installed, the package registers the plugin; in a mere checkout it is named.
    installed = request.config.pluginmanager.has_plugin("qemu_hv")
    if not installed:
        monkeypatch.setenv("PYTHONPATH", str(HERE.parents[1]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(CACHE))
    result = pytester.runpytest_subprocess(*([] if installed else ["-p", "qemu_hv.pytest_plugin"]))
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*console of machine 0*", "ready"])
