# SPDX-License-Identifier: GPL-2.0-or-later
"""``qemu-hv info``: versions, paths, accelerators and what the cache holds."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from . import __version__, cache, kernels, resources
from .build import qemu as builds

__all__ = ["add_arguments", "collect", "execute"]

_FLAVOURS = ("patched", "stock", "sanitized", "no-injection", "no-counters")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def collect() -> dict[str, Any]:
    """Return what the command prints. Nothing is fetched or built."""
    built = {flavour: builds.cached(flavour) for flavour in _FLAVOURS}
    patched = built["patched"]
    return {
        "qemu-hv": __version__,
        "python": platform.python_version(),
        "sources": str(resources.source_root()),
        "cache": str(cache.root()),
        "cache free GB": round(shutil.disk_usage(cache.root()).free / 1e9, 1),
        "qemu version": patched.version if patched else None,
        **{f"qemu {flavour}": str(qemu.path) if qemu else None for flavour, qemu in built.items()},
        "accelerators": _accelerators(patched.path) if patched else None,
        "/dev/kvm": _kvm_state(),
        **{
            f"kernel {name}": str(kernel.vmlinuz) if kernel else None
            for name, kernel in ((name, kernels.cached(name)) for name in kernels.available())
        },
    }


def _accelerators(executable: Path) -> list[str]:
    """Ask QEMU which accelerators it was built with."""
    result = subprocess.run([str(executable), "-accel", "help"], capture_output=True, text=True, check=True)
    return [line.strip() for line in result.stdout.splitlines()[1:] if line.strip()]


def _kvm_state() -> str:
    if not Path("/dev/kvm").exists():
        return "absent"
    return "usable" if os.access("/dev/kvm", os.R_OK | os.W_OK) else "no permission"


def execute(args: argparse.Namespace) -> int:
    """Print versions, paths, accelerators and the cache's state."""
    facts = collect()
    if args.json:
        print(json.dumps(facts, indent=2))
        return 0
    for name, value in facts.items():
        text = "not there yet" if value is None else " ".join(value) if isinstance(value, list) else value
        print(f"{name:16} {text}")
    return 0
