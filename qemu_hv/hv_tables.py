# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables of a hypervisor's state, from what the QMP commands query-hv* return."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

from rich.table import Table
from rich.text import Text

__all__ = [
    "counter_table",
    "hypercall_table",
    "hypervisor_table",
    "msr_table",
    "pages_table",
    "partition_table",
    "port_tables",
    "timer_table",
]

Info = Mapping[str, Any]

_VP_COLUMNS = 8  # more VPs than that are shown as a total only
_TICKS_PER_SECOND = 10_000_000  # of reference time and run time


def seconds(ticks: int) -> str:
    """Return a time given in units of 100 ns as seconds in words."""
    return f"{ticks / _TICKS_PER_SECOND:.3f} s"


def megahertz(frequency: int) -> str:
    """Return a frequency given in Hz in words."""
    return f"{frequency / 1e6:.3f} MHz"


def page(info: Info) -> str:
    """Return an overlay page's state in words."""
    return f"at 0x{info['gpa']:x}" if info["enabled"] else "off"


def hypervisor_table(hv: Info) -> Table:
    """Show what the hypervisor shows to its guest: the result of query-hv."""
    version = hv["version"]
    partition = hv["partition"]
    table = _facts("Hypervisor")
    table.add_row("interface", str(hv["interface"]))
    table.add_row("version", f"{version['major']}.{version['minor']}, build {version['build']}")
    table.add_row("TSC", megahertz(hv["tsc-frequency"]))
    table.add_row("APIC timer", megahertz(hv["apic-frequency"]))
    table.add_row("privileges", _words(partition["privileges"]))
    table.add_row("features", _words(partition["features"]))
    table.add_row("recommendations", _words(partition["recommendations"]))
    return table


def partition_table(partition: Info, title: str = "Partition") -> Table:
    """Show what a partition has set up: a row of query-hv-partitions."""
    tsc = partition["reference-tsc-page"]
    table = _facts(title)
    table.add_row("partition ID", str(partition["id"]))
    if "parent" in partition:
        table.add_row("parent", str(partition["parent"]))
    table.add_row("virtual processors", str(partition["vp-count"]))
    guest = partition["guest-os"]
    table.add_row("guest OS identity", Text(f"{guest['description']} (0x{guest['value']:016x})"))
    table.add_row("hypercall page", page(partition["hypercall-page"]))
    table.add_row("reference TSC page", page(tsc))
    if tsc["enabled"]:
        formula = f"sequence {tsc['sequence']}, scale 0x{tsc['scale']:x}, offset {tsc['offset']}"
        table.add_row("", formula)
    table.add_row("reference time", seconds(partition["reference-time"]))
    crash = partition["crash"]
    if crash["control"] or any(crash["parameters"]):
        table.add_row("crash control", f"0x{crash['control']:x}")
        table.add_row("crash parameters", " ".join(f"0x{p:x}" for p in crash["parameters"]))
    return table


def pages_table(vps: Sequence[Info]) -> Table:
    """Show what each VP has enabled: pages, SynIC, interrupt sources."""
    table = _table("Enabled per virtual processor", "VP", "APIC assist page", "SynIC")
    table.add_column("message page")
    table.add_column("event flags page")
    table.add_column("interrupt sources")
    for vp in vps:
        synic = vp["synic"]
        sints = [_sint(sint) for sint in synic["sints"] if not sint["masked"]]
        table.add_row(
            str(vp["vp"]),
            page(vp["apic-assist-page"]),
            "on" if synic["enabled"] else "off",
            page(synic["message-page"]),
            page(synic["event-flags-page"]),
            ", ".join(sints) or "none",
        )
    return table


def hypercall_table(vps: Sequence[Info]) -> Table:
    """How often each hypercall was made, per VP."""
    names: dict[str, int] = {}
    for vp in vps:
        for call in vp["counters"]["hypercalls"]:
            names.setdefault(call["name"], call["code"])
    table = _table("Hypercalls", "code", "name", *_vp_headings(vps), "total", numbers=2)
    for name, code in sorted(names.items(), key=lambda item: item[1]):
        counts = [_count(vp["counters"]["hypercalls"], name, "count") for vp in vps]
        table.add_row(f"0x{code:04x}", name, *_vp_cells(counts), str(sum(counts)))
    unknown = [vp["counters"]["unknown-hypercalls"] for vp in vps]
    if any(unknown):
        table.add_row("", "(no such call)", *_vp_cells(unknown), str(sum(unknown)))
    return _or_none(table)


def msr_table(vps: Sequence[Info]) -> Table:
    """How often each synthetic register was read and written, per VP."""
    names: dict[str, int] = {}
    for vp in vps:
        for msr in vp["counters"]["msrs"]:
            names.setdefault(msr["name"], msr["index"])
    headings = [f"{heading} r/w" for heading in _vp_headings(vps)]
    table = _table("Synthetic MSRs", "index", "name", *headings, "reads", "writes", numbers=2)
    for name, index in sorted(names.items(), key=lambda item: item[1]):
        reads = [_count(vp["counters"]["msrs"], name, "reads") for vp in vps]
        writes = [_count(vp["counters"]["msrs"], name, "writes") for vp in vps]
        pairs = [f"{r}/{w}" for r, w in zip(reads, writes)]
        table.add_row(f"0x{index:08x}", name, *_vp_cells(pairs), str(sum(reads)), str(sum(writes)))
    unknown = [vp["counters"]["unknown-msrs"] for vp in vps]
    if any(unknown):
        table.add_row("", "(no such register)", *_vp_cells(unknown), "", str(sum(unknown)))
    return _or_none(table)


def timer_table(vps: Sequence[Info]) -> Table:
    """Show the synthetic timers that are or have been in use."""
    table = _table("Synthetic timers", "VP", "timer", "mode", "delivery", "next expiry", "expirations")
    for vp in vps:
        for timer in vp["timers"]:
            if not timer["config"] and not timer["expirations"]:
                continue
            table.add_row(
                str(vp["vp"]),
                str(timer["index"]),
                _timer_mode(timer),
                _timer_delivery(timer),
                seconds(timer["due"]) if "due" in timer else "not armed",
                str(timer["expirations"]),
            )
    return _or_none(table)


def counter_table(vps: Sequence[Info]) -> Table:
    """Show what else has been counted, per VP."""
    keys = ("interrupts", "messages", "events", "auto-eois", "assisted-eois")
    headings = [key.replace("-eois", " EOIs") for key in keys]
    table = _table("Virtual processors", "VP", "run time", *headings, numbers=0)
    for vp in vps:
        counts = [str(vp["counters"][key]) for key in keys]
        table.add_row(str(vp["vp"]), seconds(vp["run-time"]), *counts)
    return table


def port_tables(info: Info) -> list[Table]:
    """Show the ports and the connections: the result of query-hv-ports."""
    ports = _table("Ports", "port", "type", "SINT", "VP", "flags", "posts", "queued")
    for port in info["ports"]:
        last = port["base-flag"] + port["flag-count"] - 1 if "base-flag" in port else 0
        ports.add_row(
            str(port["port-id"]),
            port["type"],
            str(port["sint"]),
            str(port.get("vp", "any")),
            f"{port['base-flag']} to {last}" if "base-flag" in port else "",
            str(port["posts"]),
            str(port["queued"]),
        )
    connections = _table("Connections", "connection", "port")
    for connection in info["connections"]:
        connections.add_row(str(connection["connection-id"]), str(connection["port-id"]))
    return [_or_none(ports), _or_none(connections)]


def _facts(title: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _table(title: str, *headings: str, numbers: Optional[int] = None) -> Table:
    """Make a table; columns from the one with index `numbers` on are aligned as numbers are."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for index, heading in enumerate(headings):
        right = numbers is not None and index >= numbers
        table.add_column(heading, justify="right" if right else "left")
    return table


def _or_none(table: Table) -> Table:
    if table.row_count == 0:
        table.add_row("none")
    return table


def _words(words: Iterable[str]) -> str:
    return ", ".join(words) or "none"


def _vp_headings(vps: Sequence[Info]) -> list[str]:
    return [f"VP {vp['vp']}" for vp in vps] if len(vps) <= _VP_COLUMNS else []


def _vp_cells(values: Sequence[object]) -> list[str]:
    return [str(value) for value in values] if len(values) <= _VP_COLUMNS else []


def _count(rows: Iterable[Info], name: str, key: str) -> int:
    # Two interface generations can have a row each for one call: they are one call here.
    return sum(int(row[key]) for row in rows if row["name"] == name)


def _sint(sint: Info) -> str:
    flags = "".join(f", {flag}" for flag in ("auto-eoi", "polling") if sint[flag])
    queued = f", {sint['queued']} queued" if sint["queued"] else ""
    return f"{sint['index']} (vector 0x{sint['vector']:02x}{flags}{queued})"


def _timer_mode(timer: Info) -> str:
    words = ["periodic" if timer["periodic"] else "one-shot"]
    words += [flag for flag in ("lazy", "auto-enable") if timer[flag]]
    return ", ".join(words)


def _timer_delivery(timer: Info) -> str:
    if timer["direct-mode"]:
        return f"interrupt 0x{timer['vector']:02x}"
    pending = ", message pending" if timer["message-pending"] else ""
    return f"message to SINT {timer['sint']}{pending}"
