"""The product's own conditions (`calls.guards`, `calls.sessions.OF_NO_USE`), asked of plain values instead of rows.

A Q becomes one Python expression over `c` (a call), `s` (one of its sessions) and `later` (the call has a newer session). Terms
whose lookup begins with one of `without` are left out: that is how a guard is removed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import Enum
from typing import Any

from django.db.models import Exists, F, Q

OPERATORS = {"exact": "==", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
Condition = Callable[[Any, Any, bool], bool]


def compiled(q: Q, *, without: Collection[str] = (), of_session: bool = False) -> Condition:
    known: dict[str, Any] = {}
    text = _text(q, known, tuple(without), of_session)
    made: Condition = eval(f"lambda c, s, later: bool({text})", known)
    return made


def _text(q: Q, known: dict[str, Any], without: tuple[str, ...], of_session: bool) -> str:
    parts = [part for child in q.children if (part := _part(child, known, without, of_session))]
    joined = f" {q.connector.lower()} ".join(f"({part})" for part in parts) or str(q.connector == Q.AND)
    return f"not ({joined})" if q.negated else joined


def _part(child: Any, known: dict[str, Any], without: tuple[str, ...], of_session: bool) -> str:
    if isinstance(child, Q):
        return _text(child, known, without, of_session)
    if isinstance(child, Exists):  # the only one: a session with a higher number
        return "" if "later" in without else "later"
    lookup, value = child
    if any(lookup.startswith(term) for term in without):
        return ""
    name, _, operator = lookup.partition("__") if not lookup.startswith("call__") else _of_call(lookup)
    field = f"{'s' if of_session and not lookup.startswith('call__') else 'c'}.{name}"
    match operator or "exact":
        case "isnull":
            return f"{field} is None" if value else f"{field} is not None"
        case "in":
            return f"{field} in {_named(frozenset(map(_plain, value)), known)}"
        case other:
            right = f"c.{vars(value)['name'].removeprefix('call__')}" if isinstance(value, F) else _named(_plain(value), known)
            return f"{field} {OPERATORS[other]} {right}"


def _of_call(lookup: str) -> tuple[str, str, str]:
    return lookup.removeprefix("call__").partition("__")


def _named(value: Any, known: dict[str, Any]) -> str:
    name = f"v{len(known)}"
    known[name] = value
    return name


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value
