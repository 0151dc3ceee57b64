# SPDX-License-Identifier: GPL-2.0-or-later
"""A built QEMU: found in the cache, or made."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Optional, Union

from .. import cache, resources
from ..errors import UserError
from . import configuration, firmware, ninja, sanitize, series, variant
from . import source as sources
from .tree import WorkTree, module_files

__all__ = ["MODULE_PLACEMENT", "BuiltQemu", "cached", "ensure"]

MODULE_PLACEMENT = {
    "hv": PurePosixPath("target/i386/microsoft-hypervisor/hv"),
    "qemu": PurePosixPath("target/i386/microsoft-hypervisor/qemu"),
}
"""Where in QEMU's tree the folders of ``csrc`` go (``patches/README.md``)."""

_VARIANTS = {"sanitized": sanitize.SANITIZED, **{each.name: each for each in variant.WITHOUT.values()}}
_BUILD_SIZE = 900_000_000
_KEPT_TREES = 6
_KEPT_WORK_TREES = 2


@dataclass(frozen=True)
class BuiltQemu:
    """A QEMU that is ready to run.

    Attributes:
        path: the executable. It finds its modules and its firmware by itself.
        module_dir: the folder of its loadable modules.
        firmware_dirs: the folders of its firmware.
        environment: variables that it needs, besides the caller's.
        version: QEMU's version, such as "10.0.13".
        flavour: "stock", "patched", "sanitized", "no-injection" or "no-counters".
    """

    path: Path
    module_dir: Path
    firmware_dirs: tuple[Path, ...]
    version: str
    flavour: str
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Plan:
    """What is to be built, and its keys."""

    source: sources.Source
    flavour: str
    work_key: str
    key: str

    @property
    def tree(self) -> Path:
        return _trees() / f"{self.source.version}-{self.flavour}-{self.key}"

    @property
    def work_tree(self) -> WorkTree:
        # The patches change headers on which nearly all objects depend. Were stock QEMU built where the patched one is,
        # the next edit of the module would compile everything again.
        name = f"{self.work_key}-stock" if self.flavour == "stock" else self.work_key
        return WorkTree(cache.root() / "work" / name, self.source.path)


def _trees() -> Path:
    return cache.root() / "qemu"


def ensure(
    stock: bool = False,
    sanitize: bool = False,
    without: Optional[str] = None,
    source: Union[str, Path] = sources.DEBIAN,
    jobs: Optional[int] = None,
    refresh: bool = False,
) -> BuiltQemu:
    """Return a QEMU, building it first if the cache does not hold it.

    Args:
        stock: without the patches and the module, from the same source and configuration.
        sanitize: with the module and the core under AddressSanitizer and UBSan.
        without: with a module that lacks "injection" or "counters", to measure what they cost.
        source: "debian", or the path of a QEMU 10.0.x release tarball or tree.
        jobs: compilers at once; None: as ninja thinks fit.
        refresh: ask Debian's archive for a newer 10.0.x.

    Raises:
        UserError: it cannot be built; the message says why in one line.
    """
    if stock and sanitize:
        raise UserError("stock QEMU has no module to sanitize; use --stock or --sanitize, not both")
    if without and (stock or sanitize):
        raise UserError("only one of --stock, --sanitize and --without can be built at a time")
    # Before the long downloads, and because the key names the compiler.
    configuration.require_tools()
    flavour = "stock" if stock else "sanitized" if sanitize else variant.WITHOUT[without].name if without else "patched"
    plan = _plan(flavour, source, refresh)
    if not plan.tree.is_dir():
        with cache.Lock(cache.root() / "work" / "lock", "building QEMU"):
            _make(plan, jobs)
    cache.mark_used(plan.tree)
    return _built(plan)


def cached(flavour: str) -> Optional[BuiltQemu]:
    """Return the QEMU of a flavour that ``ensure`` would return, if it is built, else None."""
    if not (cache.root() / "sources" / "debian.json").is_file():
        return None
    plan = _plan(flavour, sources.DEBIAN, refresh=False)
    return _built(plan) if plan.tree.is_dir() else None


def _plan(flavour: str, source: Union[str, Path], refresh: bool) -> _Plan:
    origin = sources.obtain(str(source), refresh)
    return _plan_for(origin, flavour)


def _plan_for(origin: sources.Source, flavour: str) -> _Plan:
    work_key = cache.digest(
        configuration.RECIPE,
        origin.identity,
        configuration.toolchain(),
        *configuration.CONFIGURE_ARGUMENTS,
    )
    parts = [work_key, flavour]
    if flavour != "stock":
        parts.append(series.key(resources.patches()))
        for name in sorted(MODULE_PLACEMENT):
            folder = resources.csrc() / name
            parts += [name, cache.digest_files(folder, cache.list_files(folder))]
    return _Plan(origin, flavour, work_key, cache.digest(*parts))


def _overlay(plan: _Plan) -> dict[PurePosixPath, series.Content]:
    """Return what the flavour's source has and the pristine source has not."""
    if plan.flavour == "stock":
        return {}
    patches = series.read(resources.patches())
    overlay = series.apply(patches, plan.source.path, plan.source.version)
    overlay.update(module_files(resources.csrc(), MODULE_PLACEMENT))
    return overlay


def _make(plan: _Plan, jobs: Optional[int]) -> None:
    """Build and install a flavour. The caller holds the build lock."""
    if plan.tree.is_dir():
        return
    if plan.flavour in _VARIANTS:
        _make(_plan_for(plan.source, "patched"), jobs)
    overlay = _overlay(plan)
    firmware_folder = firmware.obtain(plan.source)
    tree = plan.work_tree
    tree.folder.mkdir(parents=True, exist_ok=True)
    if not (tree.build / ninja.EXECUTABLE).is_file():
        cache.require_free_space(tree.folder, _BUILD_SIZE, "building QEMU")
    tree.create()
    tree.synchronise(overlay)
    ninja.configure(tree)
    ninja.build(tree, f"building QEMU {plan.source.version} ({plan.flavour})", jobs)
    with cache.atomic_directory(plan.tree) as temporary:
        _install(tree.build, firmware_folder, temporary)
        if plan.flavour in _VARIANTS:
            module = variant.build_module(tree, MODULE_PLACEMENT.values(), _VARIANTS[plan.flavour], jobs)
            shutil.copy(module, temporary / "lib" / "qemu" / module.name)
        _check(temporary, plan)
    if plan.flavour == "stock":
        tree.discard()  # nothing of it will change
    else:
        cache.mark_used(tree.folder)
    cache.prune(_trees(), _KEPT_TREES)
    cache.prune(cache.root() / "work", _KEPT_WORK_TREES)


def _install(build_folder: Path, firmware_folder: Path, target: Path) -> None:
    for name in ("bin", "lib/qemu", "share/qemu"):
        (target / name).mkdir(parents=True)
    shutil.copy(build_folder / ninja.EXECUTABLE, target / "bin")
    for name in ninja.modules(build_folder):
        shutil.copy(build_folder / name, target / "lib" / "qemu")
    for file in firmware.files(firmware_folder):
        shutil.copyfile(file, target / "share" / "qemu" / file.name)


def _check(tree: Path, plan: _Plan) -> None:
    """Run the installed QEMU once, before it gets its name."""
    command = [str(tree / "bin" / ninja.EXECUTABLE), "--version"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0 or plan.source.version not in result.stdout:
        reason = (result.stderr.strip().splitlines() or [f"exit status {result.returncode}"])[-1]
        raise UserError(f"the QEMU that was built does not run: {reason}")


def _built(plan: _Plan) -> BuiltQemu:
    environment = {} if plan.flavour != "sanitized" else _sanitizer_environment()
    # A QEMU_MODULE_DIR of the caller's would win over the folder beside the executable.
    if "QEMU_MODULE_DIR" in os.environ:
        environment["QEMU_MODULE_DIR"] = str(plan.tree / "lib" / "qemu")
    return BuiltQemu(
        path=plan.tree / "bin" / ninja.EXECUTABLE,
        module_dir=plan.tree / "lib" / "qemu",
        firmware_dirs=(plan.tree / "share" / "qemu",),
        version=plan.source.version,
        flavour=plan.flavour,
        environment=environment,
    )


def _sanitizer_environment() -> dict[str, str]:
    return sanitize.environment()
