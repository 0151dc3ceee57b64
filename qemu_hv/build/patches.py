# SPDX-License-Identifier: GPL-2.0-or-later
"""How a developer edits the patch series (``./scripts/patches``).

``apply`` makes a git repository with QEMU's source and one commit for each patch; edit, amend and
reorder those commits as you like. ``refresh`` writes them back. ``check`` says whether the series
applies as it stands.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from .. import cache, resources
from ..errors import UserError
from . import series, source
from .source import DEBIAN, Source

__all__ = ["apply", "check", "main", "refresh"]

_BASE = "qemu-hv-base"


def _git(folder: Path, *arguments: str) -> str:
    """Run git in a work folder, away from the user's hooks and signing; return what it prints."""
    settings = (
        "core.hooksPath=/dev/null",
        "commit.gpgSign=false",
        "core.autocrlf=false",
        "gc.auto=0",
    )
    options = [word for setting in settings for word in ("-c", setting)]
    try:
        result = subprocess.run(
            ["git", *options, *arguments],
            cwd=folder,
            env=dict(os.environ, GIT_TERMINAL_PROMPT="0", LC_ALL="C.UTF-8"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise UserError("git is missing; install the package git") from error
    if result.returncode != 0:
        lines = (result.stderr.strip() or result.stdout.strip()).splitlines()
        raise UserError(f"git {arguments[0]} failed in {folder}: {lines[-1] if lines else 'no reason'}")
    return result.stdout


def apply(folder: Path, qemu: Source) -> None:
    """Make a repository with the source and one commit for each patch.

    Args:
        folder: the repository; it must not exist.
        qemu: the source.

    Raises:
        UserError: the folder exists, or a patch does not apply.
    """
    if folder.exists():
        raise UserError(f"{folder} exists; refresh it and remove it first, or name another with --work")
    patches = series.read(resources.patches())
    # Says which file it is that does not fit; git am says less.
    series.apply(patches, qemu.path, qemu.version)
    with cache.atomic_directory(folder) as temporary:
        shutil.copytree(qemu.path, temporary, symlinks=True, dirs_exist_ok=True)
        _git(temporary, "init", "--quiet", "--initial-branch=qemu-hv")
        _git(temporary, "add", "--all", "--force")
        identity = ("-c", "user.name=qemu-hv", "-c", "user.email=qemu-hv@localhost")
        _git(temporary, *identity, "commit", "--quiet", "-m", f"QEMU {qemu.version}")
        _git(temporary, "tag", _BASE)
        for patch in patches:
            _git(temporary, *identity, "am", "--quiet", "--keep-cr", "--no-3way", str(patch.path.absolute()))


def refresh(folder: Path) -> list[Path]:
    """Write the commits of a repository that :func:`apply` made back as the series.

    Returns:
        The patches.

    Raises:
        UserError: the folder is no such repository, or has changes that are not committed.
    """
    if not (folder / ".git").exists():
        raise UserError(f"{folder} is not a repository of ours; make it with: ./scripts/patches apply")
    if _git(folder, "status", "--porcelain", "--untracked-files=no").strip():
        raise UserError(f"{folder} has changes that are not committed; commit or amend them first")
    if _git(folder, "log", "--merges", "--format=%h", f"{_BASE}..HEAD").strip():
        raise UserError(f"{folder} has merge commits; a series has none")
    target = resources.patches()
    with tempfile.TemporaryDirectory(prefix="qemu-hv-patches.") as name:
        temporary = Path(name)
        # The same commits must give the same bytes, whatever git's version and configuration.
        _git(
            folder,
            "-c",
            "format.signature=",
            "format-patch",
            "--quiet",
            "--zero-commit",
            "--no-signature",
            "--no-numbered",
            "--full-index",
            "--no-base",
            "--no-color",
            "--diff-algorithm=myers",
            "--unified=3",
            "--no-renames",
            "--suffix=.patch",
            "-o",
            str(temporary),
            f"{_BASE}..HEAD",
        )
        made = sorted(temporary.glob("*.patch"))
        if not made:
            raise UserError(f"{folder} has no commit on top of QEMU's source; nothing was written")
        target.mkdir(parents=True, exist_ok=True)
        for old in target.glob("*.patch"):
            old.unlink()
        for patch in made:
            shutil.copyfile(patch, target / patch.name)
        names = "".join(f"{patch.name}\n" for patch in made)
        (target / "series").write_text(names, encoding="utf-8")
    return [target / patch.name for patch in made]


def check(qemu: Source) -> int:
    """Check that ``series`` and the files agree and that every patch applies without fuzz.

    Returns:
        How many patches there are.

    Raises:
        UserError: they do not; the message says which patch and which file.
    """
    patches = series.read(resources.patches())
    if not patches:
        raise UserError(f"{resources.patches() / 'series'} names no patch")
    series.apply(patches, qemu.path, qemu.version)
    return len(patches)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./scripts/patches", description=__doc__)
    parser.add_argument("action", choices=("apply", "refresh", "check"))
    parser.add_argument(
        "--source",
        default=DEBIAN,
        metavar="debian|TARBALL|DIR",
        help="QEMU 10.0.x: Debian's source package (default), a release tarball or a tree",
    )
    parser.add_argument("--work", type=Path, metavar="DIR", help="the repository (default: in the cache folder)")
    return parser


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command line and return the exit status."""
    args = _parser().parse_args(arguments)
    try:
        folder = args.work or cache.root() / "patches" / "qemu-10.0"
        if args.action == "refresh":
            for patch in refresh(folder):
                print(patch)
            return 0
        qemu = source.obtain(args.source)
        if args.action == "apply":
            apply(folder, qemu)
            print(folder)
        else:
            print(f"{check(qemu)} patches apply to QEMU {qemu.version} without fuzz")
        return 0
    except UserError as error:
        print(f"patches: error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
