# SPDX-License-Identifier: GPL-2.0-or-later
"""The module and the core with AddressSanitizer and UndefinedBehaviorSanitizer; QEMU gets their runtime preloaded."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ..errors import UserError
from .variant import Variant

__all__ = ["SANITIZED", "environment"]

SANITIZED = Variant(
    "sanitized",
    "with sanitizers",
    (
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
        "-fno-omit-frame-pointer",
        # As in the extension; see csrc/hv/locking.h.
        "-UHV_UNCHECKED_LOCKS",
        # Takes minutes with these flags.
        "-fno-lto",
        "-g",
    ),
)


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
