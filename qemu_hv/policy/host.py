# SPDX-License-Identifier: GPL-2.0-or-later
"""What the accelerator module calls in its embedded interpreter: load a policy, ask it, log what it says.

Questions and answers are JSON texts, so that the module needs no more of Python than strings.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Optional

from qemu_hv.policy.partitions import Allow, DefaultPolicy, Deny, Policy, Request

_policy: Policy = Policy()


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _module_of(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("qemu_hv_user_policy", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def load(name: str) -> None:
    """Make a policy by its name: "default", or "FILE.py:CLASS".

    Raises:
        Exception: Whatever the user's file or class raises; AttributeError when it has no such class; TypeError when
            that is not a `Policy`.
    """
    global _policy
    if name == "default":
        _policy = DefaultPolicy()
        return
    path, _, class_name = name.rpartition(":")
    made = getattr(_module_of(Path(path)), class_name)()
    if not isinstance(made, Policy):
        raise TypeError(f"{class_name} does not derive from qemu_hv.policy.partitions.Policy")
    _policy = made


def _ask(kind: str, request: Request) -> Allow:
    methods: dict[str, Callable[[Request], Allow]] = {
        "partition": _policy.admit_partition,
        "vp": _policy.admit_vp,
    }
    answer = methods[kind](request)
    if not isinstance(answer, Allow):
        raise TypeError(f"{type(_policy).__name__} answered {answer!r} about a {kind}; return Allow() or raise Deny")
    return answer


def _reply(allow: bool, answer: Optional[Allow] = None) -> str:
    reply: dict[str, Any] = {"allow": allow}
    if answer is not None and answer.privileges is not None:
        reply["privileges"] = str(answer.privileges)
    if answer is not None and answer.page_limit is not None:
        reply["page_limit"] = str(answer.page_limit)
    if answer is not None and answer.name is not None:
        reply["name"] = answer.name
    return json.dumps(reply)


def decide(question: str) -> str:
    """Answer one question of the hypervisor. Never raises: what goes wrong denies, and is logged."""
    fields = json.loads(question)
    kind = fields.pop("kind")
    try:
        return _reply(True, _ask(kind, Request(**fields)))
    except Deny as reason:
        _log(f"policy: a {kind} for partition {fields['parent']} is denied: {reason}")
    except Exception:
        _log(f"policy: a {kind} for partition {fields['parent']} is denied because the policy failed:")
        _log(traceback.format_exc().rstrip())
    return _reply(False)
