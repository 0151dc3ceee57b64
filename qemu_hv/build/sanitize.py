# SPDX-License-Identifier: GPL-2.0-or-later
"""The module and the core with AddressSanitizer and UndefinedBehaviorSanitizer.

QEMU itself stays as it is and gets the sanitizer's runtime preloaded, so only the module's few
files are compiled again: with the commands of the normal build, and more flags.
"""

from __future__ import annotations

import concurrent.futures
import os
import shlex
import subprocess
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Optional

from ..errors import UserError
from ..progress import say, track
from .ninja import compile_commands
from .tree import WorkTree

__all__ = ["build_module", "environment"]

_FLAGS = (
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
    # As in the extension; see csrc/hv/locking.h.
    "-UHV_UNCHECKED_LOCKS",
    # Takes minutes with these flags.
    "-fno-lto",
    "-g",
)


def build_module(tree: WorkTree, folders: Iterable[PurePosixPath], jobs: Optional[int] = None) -> Path:
    """Compile the module with the sanitizers.

    Args:
        tree: a work tree where the normal module is built.
        folders: the folders of QEMU's tree that hold the module's sources.
        jobs: how many compilers run at once; None: one per processor.

    Returns:
        The module's file, in a folder of its own.

    Raises:
        UserError: a command fails.
    """
    steps = compile_commands(tree.build)
    sources = [(tree.source / folder).resolve() for folder in folders]
    target = tree.folder / "sanitized"
    target.mkdir(exist_ok=True)
    objects: dict[str, Path] = {}
    compile_steps = [step for step in steps if _is_compilation(step, sources)]
    if not compile_steps:
        raise UserError("the build has no module to instrument: no source of it is compiled")
    with (
        track("building the module with sanitizers") as reporter,
        concurrent.futures.ThreadPoolExecutor(jobs or os.cpu_count()) as pool,
    ):
        compilations = []
        for number, step in enumerate(compile_steps):
            result = objects[step["output"]] = target / f"{number}.o"
            compilations.append(pool.submit(_run, _with_output(step, result), tree.build))
        try:
            for number, compilation in enumerate(concurrent.futures.as_completed(compilations)):
                compilation.result()
                reporter.update(number + 1, len(compile_steps) + 1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        link = _link_step(steps, objects)
        module = target / link["output"]
        command = [str(objects.get(word, word)) for word in _with_output(link, module)]
        _run(command, tree.build)
        reporter.update(len(compile_steps) + 1, len(compile_steps) + 1)
    say(f"built {module.name} with sanitizers")
    return module


def _is_compilation(step: dict[str, str], sources: Iterable[Path]) -> bool:
    if not step["file"].endswith(".c") or not step["output"].endswith(".o"):
        return False
    file = Path(step["directory"], step["file"]).resolve()
    return any(source in file.parents for source in sources)


def _link_step(steps: Iterable[dict[str, str]], objects: dict[str, Path]) -> dict[str, str]:
    for step in steps:
        if step["output"].endswith(".so") and set(shlex.split(step["command"])) & set(objects):
            return step
    raise UserError("the build has no module to instrument: no shared object is linked from it")


def _with_output(step: dict[str, str], output: Path) -> list[str]:
    """Return a step's command with the sanitizers' flags, writing to another file."""
    words = shlex.split(step["command"])
    words[words.index("-o") + 1] = str(output)
    if "-MF" in words:
        words[words.index("-MF") + 1] = f"{output}.d"
    # Behind the words: the first one may be a wrapper such as ccache.
    return [*words, *_FLAGS]


def _run(command: list[str], folder: Path) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        lines = [line for line in result.stderr.splitlines() if "error" in line]
        reason = lines[0].strip() if lines else result.stderr.strip()[-200:]
        raise UserError(f"building the module with sanitizers failed: {reason}")


def environment() -> dict[str, str]:
    """Return the variables that QEMU needs to load the instrumented module.

    Raises:
        UserError: the compiler has no sanitizer runtime.
    """
    command = ["cc", "-print-file-name=libasan.so"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    library = Path(result.stdout.strip())
    if not library.is_absolute() or not library.exists():
        raise UserError("the compiler has no AddressSanitizer runtime; install gcc's libasan")
    return {
        "LD_PRELOAD": str(library.resolve()),
        # QEMU leaves much to the end of the process, and switches stacks for coroutines.
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
