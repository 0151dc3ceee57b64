# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors that a user of the tools sees."""

from __future__ import annotations

__all__ = ["UserError"]


class UserError(Exception):
    """Something the user can put right.

    The message is one line that says what was wrong and what to do about it. The command line prints it without a
    traceback and exits with status 1.
    """
