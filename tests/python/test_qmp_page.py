# SPDX-License-Identifier: GPL-2.0-or-later
"""The page about QMP is the one that the schema makes."""

from __future__ import annotations

from qemu_hv import qmp_page


def test_page_is_current() -> None:
    made = qmp_page.render(qmp_page.parse_schema(qmp_page.schema_text()))
    assert qmp_page.PAGE.read_text(encoding="utf-8") == made, "run python -m qemu_hv.qmp_page"


def test_definitions() -> None:
    definitions = {d.name: d for d in qmp_page.parse_schema(qmp_page.schema_text())}
    create = definitions["hv-create-port"]
    assert create.kind == "command"
    assert set(create.members) == {"port-id", "type", "sint", "vp", "base-flag", "flag-count"}
    assert "If there is a port with that ID" in create.errors
    assert create.example.startswith('-> { "execute": "hv-create-port"')
    assert definitions["query-hv"].returns == "the state"
    assert definitions["HV_GUEST_CRASH"].kind == "event"
    for definition in definitions.values():
        assert definition.text, f"{definition.name} is not described"
