"""Agents as code: from the database into the file, in one form only.

Every key is written, also where it has its default, and all names are sorted: the same agents always make the same bytes, and
importing them makes the same agents, whatever the defaults are by then. What is written is each template's draft.
"""

from __future__ import annotations

import json
from typing import Any

from django.db import models

from agents.as_code import GRANTS, KINDS, Kind

ORDERS = {"handoff_targets": ("order", "slug")}  # as they are called; all others by name


def document() -> dict[str, Any]:
    """All templates, tools, targets, teams and lines, as `agents.as_code.read` takes them."""
    return {kind.listing: [_written(kind, row) for row in _rows(kind)] for kind in KINDS}


def text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _rows(kind: Kind) -> models.QuerySet[Any]:
    single = [key for key, reference in kind.references.items() if not reference.many]
    several = [key for key, reference in kind.references.items() if reference.many]
    rows = kind.model._default_manager.order_by(*ORDERS.get(kind.listing, (kind.name,)))
    return rows.select_related(*single).prefetch_related(*several)


def _written(kind: Kind, row: Any) -> dict[str, Any]:
    written: dict[str, Any] = {}
    for key, name in kind.keys.items():
        group, _, last = key.rpartition(".")
        place = written.setdefault(group, {}) if group else written
        place[last] = getattr(row, name)
    if "secret" in written and not written["secret"]["env"]:
        written["secret"] = None
    by_listing = {each.listing: each for each in KINDS}
    for key, reference in kind.references.items():
        other = by_listing[reference.listing]
        named = getattr(row, key)
        written[key] = _named(other, named.all()) if reference.many else named and getattr(named, other.name)
    if kind.listing == "templates":
        written["tools"] = sorted(written["tools"] + [tool for tool, field in GRANTS.items() if getattr(row, field)])
    return written


def _named(kind: Kind, rows: Any) -> list[str]:
    order = ORDERS.get(kind.listing, (kind.name,))
    return [getattr(row, kind.name) for row in sorted(rows, key=lambda row: [getattr(row, name) for name in order])]
