# SPDX-License-Identifier: GPL-2.0-or-later
"""The machinery around the test guests: a guest that misbehaves hides nothing, and no check is forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest
from guest_catalog import plan_for
from guest_image import ROOT_PROGRAMS, RUNTIME, build_image
from guest_runner import CheckResult, GuestRun, make_modes

from qemu_hv.errors import UserError
from qemu_hv.qemu_binary import find_qemu

HERE = Path(__file__).resolve().parent
GUESTS = sorted([*HERE.glob("*.c"), *ROOT_PROGRAMS.glob("*.c")])


@pytest.fixture(scope="module", name="results")
def run_misbehaving() -> dict[str, CheckResult]:
    """Return what becomes of the checks of misbehaving.c, on two CPUs without a hypervisor."""
    image = build_image(HERE / "misbehaving" / "misbehaving.c", 64)
    (mode,) = make_modes({"mttcg": (2,)}, properties=None, append="patience=1000000")
    return GuestRun(find_qemu(), image, mode, silence=3.0, arguments=("-no-reboot",)).run()


def test_what_passes(results: dict[str, CheckResult]) -> None:
    """Checks before and after the misbehaving ones pass."""
    assert [name for name, result in results.items() if result.passed] == ["passes_before", "passes_after"]
    assert "# text of the check" in results["passes_before"].console


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("expects_wrongly", r"misbehaving.c:\d+: 1 \+ 1, got 0x2 \(2\), expected 0x3 \(3\)"),
        ("requires_wrongly", r"misbehaving.c:\d+: 1 > 2, got false, expected true"),
        ("faults", r"unexpected exception 6 .* on CPU 0"),
        ("misses_a_fault", r"cpu_pause\(\), got no exception .* expected #GP"),
        ("is_interrupted", r"unexpected interrupt 55 on CPU 0"),
        ("resets_the_machine", r"QEMU ended with status 0 in the middle of the check"),
        ("exits", r"QEMU ended with status 7 in the middle of the check"),
        ("sleeps_forever", r"the guest was silent for 3 s"),
        ("loses_a_cpu", r"CPU 1 does not come to an end"),
        ("fails_on_another_cpu", r"cpu_index\(\), got 0x1 \(1\), expected 0x63 \(99\)"),
    ],
)
def test_how_checks_fail(results: dict[str, CheckResult], name: str, message: str) -> None:
    """Each failure is told in the check's own words."""
    assert not results[name].passed
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(results[name].message)


def test_expect_goes_on_and_require_does_not(results: dict[str, CheckResult]) -> None:
    """EXPECT records, REQUIRE ends the check."""
    assert "# still running" in results["expects_wrongly"].console
    assert "# still running" not in results["requires_wrongly"].console


@pytest.mark.parametrize("source", GUESTS, ids=lambda path: path.stem)
def test_every_check_runs_in_some_mode(source: Path) -> None:
    """No check is left out by the catalog; names are unique."""
    defined: set[str] = set()
    running: set[str] = set()
    for bits, mode in plan_for(source).runs:
        checks = build_image(source, bits, root=source.parent == ROOT_PROGRAMS).checks
        names = [check.name for check in checks]
        assert len(names) == len(set(names)), "a name is used twice"
        assert all(check.section for check in checks), "a check does not say what rule it is about"
        defined.update(names)
        running.update(check.name for check in checks if check.applies(mode.vps, mode.generation, mode.parallel))
    assert defined
    assert defined == running


def test_documented_guest(tmp_path: Path) -> None:
    """The guest that the documentation shows builds and passes."""
    text = (HERE.parent.parent / "docs" / "test-guests.md").read_text(encoding="utf-8")
    source = tmp_path / "hello.c"
    source.write_text(text.split("```c\n", 1)[1].split("```", 1)[0], encoding="utf-8")
    (mode,) = make_modes({"mttcg": (2,)})
    results = GuestRun(find_qemu(), build_image(source, 64), mode).run()
    assert {name: result.message for name, result in results.items()} == {
        "partition_reads_its_index": "",
        "unknown_call": "",
    }


def test_compile_error_is_the_message(tmp_path: Path) -> None:
    """A guest that does not compile ends in the compiler's own words."""
    source = tmp_path / "broken.c"
    source.write_text('#include "guest.h"\nCHECK(broken, "") { return 1 +; }\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"broken\.c does not compile(.|\n)*expected expression"):
        build_image(source, 64)
    assert (RUNTIME / "guest.h").exists()
