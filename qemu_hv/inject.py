# SPDX-License-Identifier: GPL-2.0-or-later
"""``qemu-hv inject``: rules by which what a guest asks of the hypervisor fails, is late, or gets lost.

Rules are objects of class :class:`Rule` in a Python file, or objects in a JSON file with the members that QMP's
``hv-inject-add`` takes. In Python:

    from qemu_hv.inject import Rule

    rules = [
        Rule("flush", "hypercall", "status", target="HvFlushVirtualAddressSpace", fraction=0.1,
             status="HV_STATUS_INSUFFICIENT_MEMORY"),
        Rule("late-timer", "timer", "delay", target=0, every=100, delay=2000),
    ]
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import runpy
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

from rich.console import Console
from rich.table import Table

from .errors import UserError
from .qmp_session import QmpSession, add_address_argument, address_of, open_session

__all__ = ["Rule", "add", "add_arguments", "execute", "load", "table"]


@dataclass(frozen=True)
class Rule:
    """A rule of fault injection; without `nth`, `every` and `fraction` it acts on all that it matches.

    Attributes:
        id: name of the rule.
        point: where it acts: hypercall, msr-read, msr-write, message, event or timer.
        action: what it does: status, gp, ud, delay, drop, double or reorder.
        target: what it matches there: a name or a number; None for all.
        partition: ID of the partition.
        vp: index of the virtual processor; None for all.
        nth: act only on this one of those it matches, counted from 1.
        every: act on each one whose number is a multiple of this.
        fraction: act on this part of them, chosen by chance.
        seed: of that chance.
        limit: act at most so often.
        status: what to answer, with the action `status`: a name or a number.
        delay: how much later, in microseconds.
    """

    id: str
    point: str
    action: str
    target: Union[str, int, None] = None
    partition: Optional[int] = None
    vp: Optional[int] = None
    nth: Optional[int] = None
    every: Optional[int] = None
    fraction: Optional[float] = None
    seed: Optional[int] = None
    limit: Optional[int] = None
    status: Union[str, int, None] = None
    delay: Optional[int] = None

    def arguments(self) -> dict[str, object]:
        """Return the arguments of ``hv-inject-add``."""
        given = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        for name in ("target", "status"):
            if name in given:
                given[name] = str(given[name])
        return given


def load(path: Path) -> list[Rule]:
    """Return the rules in a Python or JSON file; ``-`` is JSON on standard input.

    Raises:
        UserError: it cannot be read, or has no rules in it.
    """
    try:
        if path.suffix == ".py":
            rules = _from_python(path)
        else:
            rules = _from_json(sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8"), path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if not rules:
        raise UserError(f"{path} has no rules in it")
    return rules


def _from_python(path: Path) -> list[Rule]:
    try:
        found = runpy.run_path(str(path)).get("rules")
    except OSError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(f"{path}, line {last.lineno or 0}: {type(error).__name__}: {error}") from error
    if not isinstance(found, Sequence) or not all(isinstance(rule, Rule) for rule in found):
        raise UserError(f"{path} has no list of qemu_hv.inject.Rule objects called 'rules'")
    return list(found)


def _from_json(text: str, path: Path) -> list[Rule]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    objects = found if isinstance(found, list) else [found]
    known = {field.name for field in dataclasses.fields(Rule)}
    for entry in objects:
        if not isinstance(entry, dict) or not {"id", "point", "action"} <= entry.keys():
            raise UserError(f"{path}: a rule is an object with at least the members id, point and action")
        if unknown := sorted(entry.keys() - known):
            raise UserError(f"{path}: rule '{entry['id']}' has an unknown member '{unknown[0]}'")
    return [Rule(**entry) for entry in objects]


async def add(session: QmpSession, rules: Sequence[Rule]) -> None:
    """Add all of the rules, or none.

    Raises:
        UserError: the machine refused one.
    """
    added: list[str] = []
    try:
        for rule in rules:
            await session.execute("hv-inject-add", **rule.arguments())
            added.append(rule.id)
    except UserError:
        for name in added:
            await session.execute("hv-inject-remove", id=name)
        raise


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_address_argument(parser)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    adding = actions.add_parser("add", help="add the rules in files")
    adding.add_argument("files", metavar="FILE", nargs="+", type=Path, help="Python (.py) or JSON; - is standard input")
    listing = actions.add_parser("list", help="list the rules and what they have done")
    listing.add_argument("--json", action="store_true", help="print JSON")
    removing = actions.add_parser("remove", help="remove rules")
    which = removing.add_mutually_exclusive_group(required=True)
    which.add_argument("ids", metavar="ID", nargs="*", default=[], help="names of rules")
    which.add_argument("--all", action="store_true", help="all of them")


def execute(args: argparse.Namespace) -> int:
    """Do what the arguments say."""
    rules = [rule for path in args.files for rule in load(path)] if args.action == "add" else []
    asyncio.run(_run(address_of(args), args, rules))
    return 0


async def _run(address: str, args: argparse.Namespace, rules: Sequence[Rule]) -> None:
    async with open_session(address) as session:
        if args.action == "add":
            await add(session, rules)
            print(f"{len(rules)} rule{'s' if len(rules) != 1 else ''} added")
        elif args.action == "list":
            injections = await session.execute("query-hv-injections")
            if args.json:
                print(json.dumps(injections, indent=2))
            else:
                Console(highlight=False, soft_wrap=True).print(table(injections))
        elif args.all:
            await session.execute("hv-inject-remove")
        else:
            for name in args.ids:
                await session.execute("hv-inject-remove", id=name)


def table(injections: Sequence[Mapping[str, Any]]) -> Table:
    """Draw the rules."""
    drawn = Table(box=None, pad_edge=False)
    for heading in ("rule", "partition", "point", "target", "when", "action"):
        drawn.add_column(heading, no_wrap=True)
    for heading in ("matched", "injected", "skipped"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    for injection in injections:
        rule = injection["rule"]
        partition = f"{rule['partition']}" + (" (gone)" if injection["orphaned"] else "")
        if "vp" in rule:
            partition += f", VP {rule['vp']}"
        counts = [f"{injection[name]}" for name in ("matched", "injected", "skipped")]
        target = rule.get("target", "any")
        drawn.add_row(rule["id"], partition, rule["point"], target, _when(rule), _action(rule), *counts)
    return drawn


def _when(rule: Mapping[str, Any]) -> str:
    if "nth" in rule:
        text = f"number {rule['nth']}"
    elif "every" in rule:
        text = f"every {rule['every']}"
    elif "fraction" in rule:
        text = f"{100 * rule['fraction']:g} %"
    else:
        text = "always"
    return text + (f", {rule['limit']} times" if "limit" in rule else "")


def _action(rule: Mapping[str, Any]) -> str:
    if "status" in rule:
        return str(rule["status"])
    if "delay" in rule:
        return f"{rule['action']} {rule['delay']} us"
    return str(rule["action"])
