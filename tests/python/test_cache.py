# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache folder: keys, locks, atomic directories."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from qemu_hv import cache
from qemu_hv.errors import UserError


def test_root_follows_the_xdg_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.root() == tmp_path / "qemu-hv"
    assert cache.root().is_dir()


def test_root_ignores_a_relative_xdg_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "somewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.root() == tmp_path / ".cache" / "qemu-hv"


def test_root_that_cannot_be_made_is_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="XDG_CACHE_HOME"):
        cache.root()


def test_digest_frames_its_parts() -> None:
    assert cache.digest("ab", "c") != cache.digest("a", "bc")
    assert cache.digest("ab") != cache.digest("ab", "")
    assert cache.digest("ab", b"c") == cache.digest(b"ab", "c")


def test_digest_of_files_depends_on_names_and_contents(tmp_path: Path) -> None:
    def key() -> str:
        return cache.digest_files(tmp_path, cache.list_files(tmp_path))

    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.c").write_text("1")
    first = key()
    (tmp_path / "sub" / "a.c~").write_text("an editor's backup")
    (tmp_path / ".swap").write_text("an editor's swap file")
    assert key() == first
    (tmp_path / "sub" / "a.c").write_text("2")
    second = key()
    assert second != first
    (tmp_path / "sub" / "a.c").rename(tmp_path / "sub" / "b.c")
    assert key() not in (first, second)


def test_second_process_waits_for_the_lock_and_says_for_whom(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom qemu_hv.cache import Lock\n"
        "with Lock(Path(sys.argv[1]), 'building QEMU'):\n    print('got it', flush=True)\n"
    )
    path = tmp_path / "lock"
    with cache.Lock(path, "building QEMU"):
        second = subprocess.Popen(
            [sys.executable, "-c", program, str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert second.stderr is not None
        waiting = second.stderr.readline()
        assert second.poll() is None
    output, _ = second.communicate(timeout=30)
    assert waiting.strip() == f"qemu-hv: process {os.getpid()} is building QEMU; waiting for it"
    assert output.strip() == "got it"
    assert second.returncode == 0


def test_lock_excludes_threads_too(tmp_path: Path) -> None:
    order: list[str] = []

    def other() -> None:
        with cache.Lock(tmp_path / "lock", "working"):
            order.append("second")

    with cache.Lock(tmp_path / "lock", "working"):
        thread = threading.Thread(target=other)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join(timeout=30)
    assert order == ["first", "second"]


def test_atomic_directory_appears_complete(tmp_path: Path) -> None:
    target = tmp_path / "tree"
    with cache.atomic_directory(target) as temporary:
        (temporary / "file").write_text("content")
        assert not target.exists()
    assert (target / "file").read_text() == "content"
    assert os.listdir(tmp_path) == ["tree"]


def test_atomic_directory_leaves_nothing_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), cache.atomic_directory(tmp_path / "tree") as temporary:
        (temporary / "file").write_text("half")
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


def test_atomic_directory_keeps_what_somebody_else_made(tmp_path: Path) -> None:
    target = tmp_path / "tree"
    with cache.atomic_directory(target) as temporary:
        (temporary / "file").write_text("ours")
        target.mkdir()
        (target / "file").write_text("theirs")
    assert (target / "file").read_text() == "theirs"
    assert os.listdir(tmp_path) == ["tree"]


def test_too_little_space_is_a_user_error(tmp_path: Path) -> None:
    cache.require_free_space(tmp_path, 1, "testing")
    with pytest.raises(UserError, match=r"testing needs 1000000000\.0 GB .* XDG_CACHE_HOME"):
        cache.require_free_space(tmp_path, 10**18, "testing")


def test_prune_keeps_the_last_used_and_the_recent(tmp_path: Path) -> None:
    for age, name in enumerate(["new", "middle", "old", ".killed"]):
        folder = tmp_path / name
        folder.mkdir()
        cache.mark_used(folder)
        when = time.time() - age * 1000
        os.utime(folder / ".last-used", (when, when))
    assert cache.prune(tmp_path, keep=1, minimum_age=1500) == [tmp_path / "old", tmp_path / ".killed"]
    assert sorted(os.listdir(tmp_path)) == ["middle", "new"]
    assert cache.prune(tmp_path / "absent", keep=1) == []
