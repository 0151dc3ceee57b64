# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages of ``docs/`` that are made from something else: write one, or say whether it is current."""

from __future__ import annotations

import argparse
import difflib
from pathlib import Path
from typing import Optional

__all__ = ["difference", "main"]


def difference(page: Path, text: str) -> list[str]:
    """Return the lines of a unified diff from `page` to `text`: none when the page is current."""
    present = page.read_text(encoding="utf-8") if page.exists() else ""
    name = f"{page.parent.name}/{page.name}"
    return list(
        difflib.unified_diff(present.splitlines(), text.splitlines(), name, "what it is made from", lineterm="")
    )


def main(page: Path, text: str, description: Optional[str]) -> int:
    """Write `text` to `page`, or with ``--check`` on the command line only compare.

    Returns:
        The exit status: 1 when the page was to be checked and differs (the difference is printed).
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when it differs")
    if not parser.parse_args().check:
        page.write_text(text, encoding="utf-8")
        return 0
    lines = difference(page, text)
    print("\n".join(lines) or f"{page.parent.name}/{page.name} is current")
    return 1 if lines else 0
