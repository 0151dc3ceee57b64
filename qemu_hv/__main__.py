# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m qemu_hv`` is the ``qemu-hv`` command."""

import sys

from .cli import main

sys.exit(main())
