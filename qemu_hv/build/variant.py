# SPDX-License-Identifier: GPL-2.0-or-later
"""The module built once more, with other flags.

QEMU itself stays as it is, so only the module's few files are compiled again: with the commands of the normal build,
and more flags.
"""

from __future__ import annotations

import concurrent.futures
import os
import shlex
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Optional

from ..errors import UserError
from ..progress import say, track
from .ninja import compile_commands
from .tree import WorkTree

__all__ = ["WITHOUT", "Variant", "build_module"]


@dataclass(frozen=True)
class Variant:
    """A way of building the module.

    Attributes:
        name: of its folder in the work tree, and of the flavour of QEMU that has it.
        title: how it is, behind "the module".
        flags: what the compiler and the linker are given, behind everything else.
    """

    name: str
    title: str
    flags: tuple[str, ...]


WITHOUT = {
    "injection": Variant("no-injection", "without fault injection", ("-DHV_NO_INJECTION",)),
    "counters": Variant("no-counters", "without counters", ("-DHV_NO_COUNTERS",)),
}
"""What the module can be built without, to measure what it costs when it is not used."""


def build_module(
    tree: WorkTree, folders: Iterable[PurePosixPath], variant: Variant, jobs: Optional[int] = None
) -> Path:
    """Compile a variant of the module.

    Args:
        tree: a work tree where the normal module is built.
        folders: the folders of QEMU's tree that hold the module's sources.
        variant: how.
        jobs: how many compilers run at once; None: one per processor.

    Returns:
        The module's file, in a folder of its own.

    Raises:
        UserError: a command fails.
    """
    steps = compile_commands(tree.build)
    sources = [(tree.source / folder).resolve() for folder in folders]
    target = tree.folder / variant.name
    target.mkdir(exist_ok=True)
    objects: dict[str, Path] = {}
    compile_steps = [step for step in steps if _is_compilation(step, sources)]
    if not compile_steps:
        raise UserError("the build has no module to build again: no source of it is compiled")
    with (
        track(f"building the module {variant.title}") as reporter,
        concurrent.futures.ThreadPoolExecutor(jobs or os.cpu_count()) as pool,
    ):
        compilations = []
        for number, step in enumerate(compile_steps):
            result = objects[step["output"]] = target / f"{number}.o"
            compilations.append(pool.submit(_run, _with_output(step, result, variant.flags), tree.build))
        try:
            for number, compilation in enumerate(concurrent.futures.as_completed(compilations)):
                compilation.result()
                reporter.update(number + 1, len(compile_steps) + 1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        link = _link_step(steps, objects)
        module = target / link["output"]
        command = [str(objects.get(word, word)) for word in _with_output(link, module, variant.flags)]
        _run(command, tree.build)
        reporter.update(len(compile_steps) + 1, len(compile_steps) + 1)
    say(f"built {module.name} {variant.title}")
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
    raise UserError("the build has no module to build again: no shared object is linked from it")


def _with_output(step: dict[str, str], output: Path, flags: Sequence[str]) -> list[str]:
    """Return a step's command with more flags, writing to another file."""
    words = shlex.split(step["command"])
    words[words.index("-o") + 1] = str(output)
    if "-MF" in words:
        words[words.index("-MF") + 1] = f"{output}.d"
    # Behind the words: the first one may be a wrapper such as ccache.
    return [*words, *flags]


def _run(command: list[str], folder: Path) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        lines = [line for line in result.stderr.splitlines() if "error" in line]
        reason = lines[0].strip() if lines else result.stderr.strip()[-200:]
        raise UserError(f"building the module failed: {reason}")
