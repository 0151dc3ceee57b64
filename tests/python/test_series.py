# SPDX-License-Identifier: GPL-2.0-or-later
"""Applying the patch series, and the work tree that it goes into."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from qemu_hv import resources
from qemu_hv.build import patches as patches_tool
from qemu_hv.build import series
from qemu_hv.build.source import Source
from qemu_hv.build.tree import WorkTree, module_files
from qemu_hv.errors import UserError

CPU_C = "".join(f"line {number}\n" for number in range(1, 31))


@pytest.fixture
def pristine(tmp_path: Path) -> Path:
    tree = tmp_path / "pristine"
    (tree / "target" / "i386").mkdir(parents=True)
    (tree / "target" / "i386" / "cpu.c").write_text(CPU_C)
    (tree / "target" / "i386" / "unused.c").write_text("unused\n")
    (tree / "configure").write_text("#!/bin/sh\n")
    (tree / "configure").chmod(0o755)
    (tree / "VERSION").write_text("10.0.13\n")
    return tree


def hunk(line: int, before: str, after: str) -> str:
    return f"@@ -{line - 1},3 +{line - 1},3 @@\n line {line - 1}\n-{before}\n+{after}\n line {line + 1}\n"


def edit(path: str, *hunks: str) -> str:
    return f"Subject: [PATCH] edit\n\n---\ndiff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n" + "".join(hunks)


ADD = """\
Subject: [PATCH] add and remove

diff --git a/target/i386/new/hooks.c b/target/i386/new/hooks.c
new file mode 100644
--- /dev/null
+++ b/target/i386/new/hooks.c
@@ -0,0 +1 @@
+hooks
diff --git a/target/i386/unused.c b/target/i386/unused.c
deleted file mode 100644
--- a/target/i386/unused.c
+++ /dev/null
@@ -1 +0,0 @@
-unused
"""


def write_series(folder: Path, **contents: str) -> list[series.Patch]:
    folder.mkdir(exist_ok=True)
    names = []
    for name, content in contents.items():
        (folder / f"{name}.patch").write_text(content)
        names.append(f"{name}.patch\n")
    (folder / "series").write_text("# a comment\n" + "".join(names))
    return series.read(folder)


def test_patches_build_on_each_other(tmp_path: Path, pristine: Path) -> None:
    patches = write_series(
        tmp_path / "patches",
        first=edit("target/i386/cpu.c", hunk(10, "line 10", "ten")),
        second=edit("target/i386/cpu.c", hunk(10, "ten", "TEN")),
        third=ADD,
    )
    result = series.apply(patches, pristine, "10.0.13")
    assert result == {
        PurePosixPath("target/i386/cpu.c"): CPU_C.replace("line 10\n", "TEN\n").encode(),
        PurePosixPath("target/i386/new/hooks.c"): b"hooks\n",
        PurePosixPath("target/i386/unused.c"): None,
    }
    assert (pristine / "target" / "i386" / "cpu.c").read_text() == CPU_C


def test_moved_lines_are_no_fuzz(tmp_path: Path, pristine: Path) -> None:
    patches = write_series(tmp_path / "patches", first=edit("target/i386/cpu.c", hunk(10, "line 10", "ten")))
    (pristine / "target" / "i386" / "cpu.c").write_text("new\n" * 5 + CPU_C)
    result = series.apply(patches, pristine, "10.0.14")
    content = result[PurePosixPath("target/i386/cpu.c")]
    assert content is not None and b"line 9\nten\nline 11\n" in content


def test_changed_context_names_patch_file_and_hunk(tmp_path: Path, pristine: Path) -> None:
    patches = write_series(
        tmp_path / "patches",
        first=edit("target/i386/cpu.c", hunk(3, "line 3", "three")),
        second=edit("target/i386/cpu.c", hunk(10, "line 10", "ten"), hunk(20, "line 20", "twenty")),
    )
    # One context line differs, which patch(1) would by default accept with fuzz 1.
    (pristine / "target" / "i386" / "cpu.c").write_text(CPU_C.replace("line 21\n", "other\n"))
    with pytest.raises(UserError) as caught:
        series.apply(patches, pristine, "10.0.14")
    assert str(caught.value) == (
        "patch second.patch does not apply to QEMU 10.0.14: target/i386/cpu.c, hunk 2, at line 19"
    )


def test_absent_file_is_named(tmp_path: Path, pristine: Path) -> None:
    patches = write_series(tmp_path / "patches", first=edit("hw/gone.c", hunk(10, "line 10", "ten")))
    with pytest.raises(UserError, match=r"first\.patch does not apply to QEMU 10\.0\.13: hw/gone\.c: .*no such file"):
        series.apply(patches, pristine, "10.0.13")


def test_patch_that_is_applied_already(tmp_path: Path, pristine: Path) -> None:
    text = edit("target/i386/cpu.c", hunk(10, "line 10", "ten"))
    patches = write_series(tmp_path / "patches", first=text, second=text)
    with pytest.raises(UserError, match=r"second\.patch does not apply .* target/i386/cpu\.c"):
        series.apply(patches, pristine, "10.0.13")


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        ("a.patch\nabsent.patch\n", "names absent.patch, which is not in the folder"),
        ("", "a.patch is not named in"),
        ("a.patch\na.patch\n", "names a patch twice"),
    ],
)
def test_series_and_files_must_agree(tmp_path: Path, listing: str, message: str) -> None:
    (tmp_path / "a.patch").write_text(ADD)
    (tmp_path / "series").write_text(listing)
    with pytest.raises(UserError, match=message):
        series.read(tmp_path)


def test_folder_without_a_series(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no file 'series'"):
        series.read(tmp_path)


def test_damaged_patch(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a patch"):
        write_series(tmp_path / "patches", first="nothing\n")


@pytest.mark.parametrize("path", ["../outside.c", "x/../../outside.c"])
def test_patch_may_not_leave_the_tree(tmp_path: Path, path: str) -> None:
    with pytest.raises(UserError, match="outside QEMU's tree"):
        write_series(tmp_path / "patches", first=edit(path, hunk(10, "line 10", "ten")))


def test_the_key_depends_on_content_and_order(tmp_path: Path) -> None:
    folder = tmp_path / "patches"
    write_series(folder, a=ADD, b=ADD)
    first = series.key(folder)
    (folder / "series").write_text("b.patch\na.patch\n")
    second = series.key(folder)
    (folder / "a.patch").write_text(ADD + "\n")
    assert len({first, second, series.key(folder)}) == 3


def test_work_tree_takes_and_drops_overlays(tmp_path: Path, pristine: Path) -> None:
    tree = WorkTree(tmp_path / "work", pristine)
    tree.create()
    cpu, new, unused = (PurePosixPath("target/i386") / name for name in ("cpu.c", "a/b/new.c", "unused.c"))
    tree.synchronise({cpu: b"patched\n", new: b"new\n", unused: None})
    assert (tree.source / cpu).read_bytes() == b"patched\n"
    assert (tree.source / new).read_bytes() == b"new\n"
    assert not (tree.source / unused).exists()
    # The work tree's files are hard links to these until they are changed.
    assert (pristine / cpu).read_text() == CPU_C
    assert (pristine / unused).is_file()

    tree.synchronise({})
    assert (tree.source / cpu).read_text() == CPU_C
    assert (tree.source / unused).read_text() == "unused\n"
    assert not (tree.source / "target" / "i386" / "a").exists()


def test_work_tree_rewrites_only_what_changes(tmp_path: Path, pristine: Path) -> None:
    tree = WorkTree(tmp_path / "work", pristine)
    tree.create()
    one, two = PurePosixPath("one.c"), PurePosixPath("two.c")
    tree.synchronise({one: b"1", two: b"2"})
    for file in (one, two):
        os.utime(tree.source / file, (1000, 1000))
    tree.synchronise({one: b"1", two: b"changed"})
    assert (tree.source / one).stat().st_mtime == 1000
    assert (tree.source / two).stat().st_mtime > 1000


def test_work_tree_keeps_modes(tmp_path: Path, pristine: Path) -> None:
    tree = WorkTree(tmp_path / "work", pristine)
    tree.create()
    tree.synchronise({PurePosixPath("configure"): b"#!/bin/sh\nexit 0\n"})
    assert os.access(tree.source / "configure", os.X_OK)


def test_an_interrupted_overlay_is_made_good(tmp_path: Path, pristine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = WorkTree(tmp_path / "work", pristine)
    tree.create()
    cpu, new = PurePosixPath("target/i386/cpu.c"), PurePosixPath("new.c")

    def stop(self: WorkTree, file: PurePosixPath, content: series.Content) -> None:
        put(self, file, content)
        raise KeyboardInterrupt

    put = WorkTree._put
    with monkeypatch.context() as patch:
        patch.setattr(WorkTree, "_put", stop)
        with pytest.raises(KeyboardInterrupt):
            tree.synchronise({cpu: b"patched\n", new: b"new\n"})
    assert (tree.source / cpu).read_text() == "patched\n"
    tree.synchronise({})
    assert (tree.source / cpu).read_text() == CPU_C
    assert not (tree.source / new).exists()


def test_module_files_are_placed(tmp_path: Path) -> None:
    (tmp_path / "hv" / "tlfs").mkdir(parents=True)
    (tmp_path / "hv" / "vp.c").write_text("vp")
    (tmp_path / "hv" / "tlfs" / "msrs.def").write_text("msrs")
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "module.cpp").write_text("not for QEMU")
    placed = module_files(tmp_path, {"hv": PurePosixPath("target/i386/x/hv")})
    assert placed == {
        PurePosixPath("target/i386/x/hv/vp.c"): b"vp",
        PurePosixPath("target/i386/x/hv/tlfs/msrs.def"): b"msrs",
    }


def test_developer_round_trip(tmp_path: Path, pristine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "patches"
    text = "From: A Developer <a@example.org>\nDate: Mon, 1 Jan 2024 00:00:00 +0000\n"
    write_series(folder, first=text + edit("target/i386/cpu.c", hunk(10, "line 10", "ten")))
    monkeypatch.setattr(resources, "patches", lambda: folder)
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "B Developer")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "b@example.org")
    qemu = Source("10.0.13", "test", pristine, "test")
    work = tmp_path / "work"
    patches_tool.apply(work, qemu)
    assert (work / "target" / "i386" / "cpu.c").read_text() == CPU_C.replace("line 10\n", "ten\n")

    (work / "target" / "i386" / "cpu.c").write_text(CPU_C.replace("line 10\n", "X\n"))
    with pytest.raises(UserError, match="not committed"):
        patches_tool.refresh(work)
    subprocess.run(["git", "commit", "-qam", "a second patch"], cwd=work, check=True)
    made = patches_tool.refresh(work)
    assert [path.name for path in made] == ["0001-edit.patch", "0002-a-second-patch.patch"]
    assert (folder / "series").read_text() == "0001-edit.patch\n0002-a-second-patch.patch\n"
    first = made[0].read_text()
    assert first.startswith("From " + "0" * 40 + " ")
    assert "From: A Developer <a@example.org>" in first
    assert patches_tool.check(qemu) == 2
    # Nothing depends on when or by which git it was done.
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    patches_tool.refresh(work)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_apply_does_not_overwrite_a_work_folder(tmp_path: Path, pristine: Path) -> None:
    with pytest.raises(UserError, match="exists"):
        patches_tool.apply(tmp_path, Source("10.0.13", "test", pristine, "test"))


def test_refresh_wants_a_repository_of_ours(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="patches apply"):
        patches_tool.refresh(tmp_path)
