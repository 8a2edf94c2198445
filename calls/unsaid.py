"""What of a call may be written down after somebody asked that it is not kept: everything but words.

One rule, and one place that says whom it is for: a call whose words were erased, or whose caller said "do not record this".
Whoever writes rows of a call asks here with the call's row in hand (`history.record_all`, `evidence.hold`), so that an erasure
comes before the write, and is honoured, or after it, and takes what was written along.

Without words a milestone is its kind, its time and its figures; a text stays only under a name whose values are words of ours.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

from django.db.models import Q

from calls.models import CallSession, EndReason
from calls.vapi_kinds import FETCHED

UNSAID = Q(erased_at__isnull=False) | Q(unrecorded_at__isnull=False)
OURS = frozenset(("role", "name", "target", "status", "why", "raw", "policy", "clip", "by", "from", "to", "door", "code"))
OF_A_MESSAGE = ("type", "timestamp", "role", "status", "endedReason", "startedAt", "endedAt", "cost", "request", "transcriptType", FETCHED)
COUNTED = ("costs", "costBreakdown", "performanceMetrics")
ERASED = "erased"  # the mark in a body, or a detail, that words stood there


class Stamped(Protocol):
    """What we look at of a call."""

    erased_at: Any
    unrecorded_at: Any


def is_unsaid(call: Stamped) -> bool:
    """True when no words of this call may be kept any more."""
    return call.erased_at is not None or call.unrecorded_at is not None


def among(calls: Collection[int]) -> set[int]:
    """Which of these calls, by their keys, that is true of now."""
    return set(CallSession.objects.filter(UNSAID, pk__in=calls).values_list("pk", flat=True)) if calls else set()


def detail(call: Stamped, told: Mapping[str, Any]) -> dict[str, Any]:
    """The detail of an event or a command as it may be kept."""
    return without_words(told) if is_unsaid(call) else dict(told)


def without_words(told: Mapping[str, Any]) -> dict[str, Any]:
    """Figures, and the words that are ours."""
    return {name: value for name, value in told.items() if _is_ours(name, value)}


def _is_ours(name: str, value: Any) -> bool:
    match value:
        case str():
            return name in OURS or (name == "reason" and value in EndReason.values)
        case dict():
            return name == "figures"
        case list():
            return all(isinstance(each, int | float) for each in value)
    return True


def body(told: Any) -> dict[str, Any]:
    """A vendor's message as it may be kept: what moves the call on, and what it cost."""
    if not isinstance(told, dict):
        return {ERASED: True}
    kept = {name: told[name] for name in OF_A_MESSAGE if isinstance(told.get(name), str | int | float)}
    if isinstance(told.get("call"), dict):
        kept["call"] = {name: told["call"].get(name) for name in ("id", "name")}
    if isinstance(told.get("transcript"), str):
        kept["transcript"] = ""
    artifact = told.get("artifact")
    if isinstance(artifact, dict):
        kept["artifact"] = {name: True for name, there in artifact.items() if there is True} | _counted(artifact)
    return kept | _counted(told) | {ERASED: True}


def _counted(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _figures(told[name]) for name in COUNTED if name in told}


def _figures(value: Any) -> Any:
    """The numbers of a JSON value in their places, and what kind of cost each is."""
    match value:
        case dict():
            return {name: _figures(inner) for name, inner in value.items() if name == "type" or not isinstance(inner, str)}
        case list():
            return [_figures(inner) for inner in value if not isinstance(inner, str)]
    return value
