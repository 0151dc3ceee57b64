# SPDX-License-Identifier: GPL-2.0-or-later
"""Keys, steps and errors of building QEMU, with a QEMU of five lines."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from qemu_hv import cli, resources
from qemu_hv.build import configuration, firmware, ninja, qemu
from qemu_hv.build.qemu import BuiltQemu
from qemu_hv.errors import UserError

CONFIGURE = """\
#!/bin/sh
set -e
src=$(dirname "$0")
mkdir -p pyvenv/bin
ln -sf "$(command -v sh)" pyvenv/bin/python3
echo 'echo 1.5' >pyvenv/bin/meson
cat >build.ninja <<END
rule program
  command = cp \\$in \\$out && chmod +x \\$out && echo \\$in >>$PWD/../steps
rule module
  command = cp \\$in \\$out && echo \\$in >>$PWD/../steps
rule regenerate
  command = $src/configure
  generator = 1
build qemu-system-x86_64: program $src/program
build hw-display.so: module $src/display
build build.ninja: regenerate $src/program
END
if [ -e "$src/target/i386/microsoft-hypervisor/qemu/module.c" ]; then
    echo "build hypervisor.so: module $src/target/i386/microsoft-hypervisor/qemu/module.c" >>build.ninja
fi
"""

PATCH = """\
--- a/program
+++ b/program
@@ -1,2 +1,3 @@
 #!/bin/sh
 echo QEMU emulator version 10.0.3
+echo patched
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a small QEMU, patches and modules."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tree = tmp_path / "qemu"
    tree.mkdir()
    (tree / "VERSION").write_text("10.0.3\n")
    (tree / "configure").write_text(CONFIGURE)
    (tree / "configure").chmod(0o755)
    (tree / "program").write_text("#!/bin/sh\necho QEMU emulator version 10.0.3\n")
    (tree / "display").write_text("display\n")
    (tmp_path / "patches").mkdir()
    (tmp_path / "patches" / "a.patch").write_text(PATCH)
    (tmp_path / "patches" / "series").write_text("a.patch\n")
    for name in ("hv", "qemu"):
        (tmp_path / "csrc" / name).mkdir(parents=True)
    (tmp_path / "csrc" / "qemu" / "module.c").write_text("module\n")
    (tmp_path / "csrc" / "hv" / "vp.c").write_text("vp\n")
    (tmp_path / "firmware").mkdir()
    (tmp_path / "firmware" / "bios.bin").write_text("bios")
    monkeypatch.setattr(resources, "patches", lambda: tmp_path / "patches")
    monkeypatch.setattr(resources, "csrc", lambda: tmp_path / "csrc")
    monkeypatch.setattr(firmware, "obtain", lambda source: tmp_path / "firmware")
    monkeypatch.setattr(configuration, "require_tools", lambda: None)
    return tmp_path


def steps(project: Path) -> list[str]:
    """Return the names of the files compiled since the last call."""
    logs = list((project / "cache" / "qemu-hv" / "work").glob("*/steps"))
    if not logs:
        return []
    lines = logs[0].read_text().split()
    logs[0].unlink()
    return sorted(Path(line).name for line in lines)


def ensure(project: Path, stock: bool = False) -> BuiltQemu:
    return qemu.ensure(stock=stock, source=project / "qemu")


def test_patched(project: Path) -> None:
    built = ensure(project)
    assert built.version == "10.0.3"
    assert built.path.read_text().endswith("echo patched\n")
    assert sorted(os.listdir(built.module_dir)) == ["hw-display.so", "hypervisor.so"]
    assert (built.firmware_dirs[0] / "bios.bin").read_text() == "bios"
    assert steps(project) == ["display", "module.c", "program"]


def test_second_time_nothing_is_done(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ensure(project)
    monkeypatch.setattr(ninja, "build", lambda *_: pytest.fail("built again"))
    assert ensure(project) == first


def test_stock_leaves_the_objects_of_the_patched_one_alone(project: Path) -> None:
    patched = ensure(project)
    steps(project)
    stock = ensure(project, stock=True)
    assert stock.path.read_text() == (project / "qemu" / "program").read_text()
    assert patched.path.read_text() != stock.path.read_text()
    # Nothing but the one work folder stays, and there the next edit compiles no more than itself.
    assert len([path for path in (project / "cache" / "qemu-hv" / "work").iterdir() if path.is_dir()]) == 1
    (project / "csrc" / "qemu" / "module.c").write_text("edited\n")
    ensure(project)
    assert steps(project) == ["module.c"]


def test_editing_the_module_compiles_the_module(project: Path) -> None:
    ensure(project)
    steps(project)
    (project / "csrc" / "qemu" / "module.c").write_text("edited\n")
    built = ensure(project)
    assert steps(project) == ["module.c"]
    assert (built.module_dir / "hypervisor.so").read_text() == "edited\n"


def test_each_input_changes_the_key(project: Path) -> None:
    paths = [ensure(project).path, ensure(project, stock=True).path]
    stock = paths[1]
    for file in ("csrc/qemu/module.c", "csrc/hv/vp.c"):
        (project / file).write_text("changed\n")
        paths.append(ensure(project).path)
    (project / "patches" / "a.patch").write_text(PATCH.replace("patched", "other"))
    paths.append(ensure(project).path)
    assert len(set(paths)) == len(paths)
    # None of it is in stock QEMU.
    assert ensure(project, stock=True).path == stock
    assert "echo other" in ensure(project).path.read_text()


def test_a_patch_that_does_not_apply_is_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "qemu" / "program").write_text("#!/bin/sh\necho different\n")
    assert cli.main(["build", "--source", str(project / "qemu")]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "qemu-hv: error: patch a.patch does not apply to QEMU 10.0.3: program, hunk 1, at line 1"
    )
    assert not list((project / "cache" / "qemu-hv" / "qemu").glob("*"))


def test_configure_s_error_is_shown(project: Path) -> None:
    (project / "qemu" / "configure").write_text("#!/bin/sh\necho\necho 'ERROR: glib is too old'\nexit 1\n")
    with pytest.raises(UserError, match=r"configure failed: ERROR: glib is too old; its output is in \S+\.log"):
        ensure(project, stock=True)


def test_a_compiler_s_error_is_shown_and_nothing_is_installed(project: Path) -> None:
    failing = CONFIGURE.replace("cp \\$in \\$out && echo", "echo $src/x.c:1:2: error: no such type && false && echo")
    (project / "qemu" / "configure").write_text(failing)
    with pytest.raises(UserError, match=r"building QEMU 10\.0\.3 \(stock\) failed: \S+x\.c:1:2: error: no such type;"):
        ensure(project, stock=True)
    assert not list((project / "cache" / "qemu-hv" / "qemu").glob("*"))


def test_a_qemu_that_does_not_run_is_not_installed(project: Path) -> None:
    (project / "qemu" / "program").write_text("#!/bin/sh\necho cannot load library >&2\nexit 127\n")
    with pytest.raises(UserError, match="does not run: cannot load library"):
        ensure(project, stock=True)
    assert not list((project / "cache" / "qemu-hv" / "qemu").glob("*"))


def test_too_little_space(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(project)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000_000))
    with pytest.raises(UserError, match=r"needs 0\.7 GB of disk space below .*, where 0\.0 GB are free"):
        ensure(project)


def test_stock_has_nothing_to_sanitize() -> None:
    with pytest.raises(UserError, match="not both"):
        qemu.ensure(stock=True, sanitize=True)


def test_missing_tools_are_named_by_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cc", "make", "ninja"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 0\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"as root: apt-get install g\+\+ pkg-config patch flex bison$"):
        configuration.require_tools()
