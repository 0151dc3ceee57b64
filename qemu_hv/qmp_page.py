# SPDX-License-Identifier: GPL-2.0-or-later
"""``docs/qmp.md``: the QMP commands and events, made from the schema in the patch series.

``python -m qemu_hv.qmp_page`` writes the page; with ``--check`` it only says whether the page in the source tree is
the one the schema makes (exit status 1 when it is not).
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import generated_page, resources

__all__ = ["Definition", "parse_schema", "render", "schema_text"]

_SCHEMA = re.compile(
    r"^--- /dev/null\n\+\+\+ b/qapi/(?:microsoft-)?hypervisor[a-z-]*-target\.json\n@@.*\n", re.MULTILINE
)
PAGE = Path(__file__).resolve().parent.parent / "docs" / "qmp.md"

_INTRODUCTION = """\
# QMP: commands and events of the hypervisor

Made by `python -m qemu_hv.qmp_page` from the schema in `patches/`; CI checks that it is current.

QEMU's monitor protocol is how a running machine's hypervisor is looked at and operated; `qemu-hv status`, `qemu-hv run`
and `qemu_hv.machine` use it and nothing else. The schema is in QEMU itself, so `query-qmp-schema` shows it too. A
machine without the microsoft-hypervisor object answers every command with an error of class `DeviceNotFound`.

Numbers are JSON integers up to 2^64 - 1. A member marked optional may be absent. "TLFS" is the Hypervisor Functional
Specification 2.0a. The interface generation is `current` or `2008r2`, as the object's property of that name.

Hypercalls and registers are counted always, per virtual processor, and the counters start anew only with the machine.
Traced hypercalls go where QEMU's trace events go: with its default backend that is the log, a file named by `-D` or
standard error.
"""

_BLOCK = re.compile(r"^##\n(?P<doc>(?:#(?!#).*\n)+)##\n(?P<code>\{[\s\S]*?\}\n(?=\n|\Z))?", re.MULTILINE)
_MEMBER = re.compile(r"@(?P<name>[\w-]+):\s*(?P<text>.*)")
_SECTION = re.compile(r"(?P<name>Returns|Errors|Since):\s*(?P<text>.*)")
_EXAMPLE = ".. qmp-example::"


@dataclass
class Definition:
    """A command, event or type of the schema.

    Attributes:
        kind: "command", "event", "struct", "union" or "enum".
        name: its name.
        code: its definition.
        text: what it is.
        members: the meaning of each member or value.
        returns: what a command returns, or "".
        errors: when a command fails, a sentence each.
        example: of its use, or "".
    """

    kind: str
    name: str
    code: dict[str, Any]
    text: str = ""
    members: dict[str, str] = field(default_factory=dict)
    returns: str = ""
    errors: list[str] = field(default_factory=list)
    example: str = ""


def schema_text() -> str:
    """Return the schemas of all services, from the patches that add them, in their order.

    Raises:
        FileNotFoundError: no patch adds one.
    """
    parts = []
    for patch in sorted(resources.patches().glob("*.patch")):
        text = patch.read_text(encoding="utf-8")
        for match in _SCHEMA.finditer(text):
            added = []
            for line in text[match.end() :].split("\n"):
                if not line.startswith("+"):
                    break
                added.append(line[1:])
            parts.append("\n".join(added) + "\n")
    if not parts:
        raise FileNotFoundError("no patch adds a schema of the hypervisor")
    return "\n".join(parts)


def parse_schema(text: str) -> list[Definition]:
    """Return the definitions of a QAPI schema with their documentation."""
    return [_definition(match["doc"], match["code"]) for match in _BLOCK.finditer(text) if match["code"]]


def _definition(doc: str, code: str) -> Definition:
    literal = ast.literal_eval(re.sub(r"\btrue\b", "True", re.sub(r"\bfalse\b", "False", code)))
    kind = next(key for key in ("command", "event", "struct", "union", "enum") if key in literal)
    definition = Definition(kind, literal[kind], literal)
    lines = [line[2:] if line.startswith("# ") else line[1:] for line in doc.splitlines()]
    main, _, example = "\n".join(lines).partition(_EXAMPLE)
    definition.example = _example(example)
    for paragraph in _paragraphs(main):
        _take(definition, paragraph)
    return definition


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text):
        if paragraph.strip():
            yield paragraph.strip()


def _take(definition: Definition, paragraph: str) -> None:
    joined = re.sub(r"\s*\n\s*", " ", paragraph)
    member = _MEMBER.match(joined)
    section = _SECTION.match(joined)
    if member and member["name"] == definition.name:
        definition.text = member["text"]
    elif member:
        definition.members[member["name"]] = member["text"]
    elif section and section["name"] == "Returns":
        definition.returns = section["text"]
    elif section and section["name"] == "Errors":
        items = re.split(r"(?:^|\s+)- ", section["text"])
        definition.errors = [item for item in items if item]
    elif not section:
        definition.text = f"{definition.text} {joined}".strip()


def _example(text: str) -> str:
    lines = text.splitlines()
    # Text about an example is indented less than the example.
    return "\n".join(line[4:] for line in lines if line.startswith("    ")).rstrip()


def render(definitions: list[Definition]) -> str:
    """Return the page."""
    lines = [_INTRODUCTION]
    for title, kinds in [
        ("Commands", {"command"}),
        ("Events", {"event"}),
        ("Types", {"struct", "union", "enum"}),
    ]:
        lines += [f"## {title}", ""]
        for definition in definitions:
            if definition.kind in kinds:
                lines += _render_one(definition)
    return "\n".join(lines).rstrip() + "\n"


def _render_one(definition: Definition) -> list[str]:
    named = definition.kind in ("command", "event")
    heading = f"`{definition.name}`" if named else definition.name
    lines = [f"### {heading}", "", _markdown(definition.text), ""]
    if definition.kind == "enum":
        lines += [f"* `{name}`: {_markdown(text)}" for name, text in definition.members.items()]
        lines.append("")
    else:
        lines += _render_members(definition)
    if "returns" in definition.code:
        lines += [f"Returns {_type(definition.code['returns'])}: {_markdown(definition.returns)}.", ""]
    if definition.errors:
        lines += ["Fails:", "", *[f"* {_markdown(_lower(error))}" for error in definition.errors], ""]
    if definition.example:
        lines += ["```", definition.example, "```", ""]
    return lines


def _render_members(definition: Definition) -> list[str]:
    code = definition.code
    lines: list[str] = []
    own = code["base"] if definition.kind == "union" else code.get("data", {})
    if definition.kind == "struct" and "base" in code:
        lines += [f"The members of {_link(code['base'])}, and:", ""]
    if own:
        lines += ["| member | type | meaning |", "|---|---|---|"]
        for name, kind in own.items():
            optional = ", optional" if name.startswith("*") else ""
            bare = name.lstrip("*")
            lines.append(f"| `{bare}` | {_type(kind)}{optional} | {_markdown(definition.members.get(bare, ''))} |")
        lines.append("")
    if definition.kind == "union":
        lines += [f"When `{code['discriminator']}` is", ""]
        lines += [f"* `{value}`: and the members of {_link(kind)}" for value, kind in code["data"].items()]
        lines.append("")
    return lines


def _type(kind: Any) -> str:
    return f"list of {_type(kind[0])}" if isinstance(kind, list) else _link(kind)


def _link(kind: str) -> str:
    return f"[{kind}](#{kind.lower()})" if kind.startswith("Hv") else kind


def _markdown(text: str) -> str:
    text = re.sub(r"``([^`]*)``", r"`\1`", text)
    text = re.sub(r"(?<![\w`])@([\w-]+)", r"`\1`", text)
    text = re.sub(r"\. {2,}", ". ", text).replace("2**", "2^")
    return text.replace("|", "\\|").replace(" * ", " \\* ")


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


if __name__ == "__main__":
    sys.exit(generated_page.main(PAGE, render(parse_schema(schema_text())), __doc__))
