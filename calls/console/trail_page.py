"""The audit trail as people read it: newest first, narrowed by the address, with a word on whether its end is as it was written."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from django.db.models import Q
from django.http import HttpRequest, HttpResponse, QueryDict
from django.urls import reverse

from agents import trail
from agents.models import AuditEntry
from calls import roles
from calls.console import paging
from calls.console.doors import console_page, page
from calls.console.search import Narrowing, Search, clean, edge_of_day, zone_named
from calls.console.shown import Item, stamp

CHECKED = 200  # of the newest entries, at every look
ACTIONS_OFFERED = 100
THE_HOUSE = "the house itself"
UNKNOWN = "somebody not logged in"
NOBODY = {THE_HOUSE: Q(actor="", address=""), UNKNOWN: Q(actor="") & ~Q(address="")}
OF_A_CALL = re.compile(r"call-[0-9a-f]{6}")


@console_page(roles.SEE_TRAIL)
def trail_list(request: HttpRequest) -> HttpResponse:
    """Who did what, as the address asks for it; `?page=` turns the page."""
    asked = read(request.GET)
    found = paging.page_of(AuditEntry.objects.filter(asked.condition), request.GET)
    context = {
        "page": found,
        "rows": [row(entry) for entry in found.rows],
        "asked": asked,
        "actions": _actions(asked.given.get("action", "")),
        "narrowed": [{"label": each.label, "words": each.words, "address": _without(asked, each.name)} for each in asked.narrowings],
        **_soundness(),
    }
    return page(request, "trail.html", here="trail", context=context)


def read(query: QueryDict) -> Search:
    """What an address asks for. Reading it never fails: what is not understood is left out and named."""
    search, zone = Search(), zone_named(clean(query.get("zone", "")))

    def day(asked: str, *, first: bool) -> tuple[str, Q] | None:
        moment = edge_of_day(asked, zone, first=first)
        return None if moment is None else (asked, Q(at__gte=moment) if first else Q(at__lt=moment))

    readers: dict[str, tuple[str, Callable[[str], tuple[str, Q] | None]]] = {
        "who": ("Who", lambda asked: (asked, NOBODY.get(asked, Q(actor__icontains=asked)))),
        "action": ("What", lambda asked: (action_words(asked), Q(action=asked))),
        "about": ("About", lambda asked: (asked, Q(subject__icontains=asked))),
        "from": ("From", lambda asked: day(asked, first=True)),
        "to": ("To", lambda asked: day(asked, first=False)),
    }
    for name, (label, understand) in readers.items():
        asked = clean(query.get(name, ""))
        found = understand(asked) if asked else None
        if found is not None:
            search.narrowings.append(Narrowing(name, label, *found))
            search.given[name] = asked
        elif asked:
            search.left_out.append(f"{label.lower()} “{asked[:40]}”")
    if {"from", "to"} & set(search.given) and zone is not None:
        search.given["zone"] = str(zone)
    return search


def row(entry: AuditEntry) -> Item:
    """An entry as one row of the list; a call it is about can be looked up from there."""
    call = OF_A_CALL.match(entry.subject)
    return Item(
        id=f"entry-{entry.number}",
        order=(-entry.number,),
        href=f"{reverse('console:calls')}?{urlencode({'q': call[0]})}" if call else "",
        slots={
            "number": str(entry.number),
            "at": stamp(entry.at),
            "who": entry.actor or (UNKNOWN if entry.address else THE_HOUSE),
            "action": action_words(entry.action),
            "subject": entry.subject,
            "detail": detail_words(entry.detail),
            "address": entry.address,
        },
    )


def action_words(action: str) -> str:
    """`log-in-failed` as people write it."""
    return action.replace("-", " ").capitalize()


def detail_words(detail: Any) -> str:
    """'fields: instructions, greeting · staff: yes'; names that have nothing are left out."""
    if not isinstance(detail, dict):
        return ""
    return " · ".join(f"{name}: {_value_words(value)}" for name, value in detail.items() if value not in (None, "", [], {}))


def _value_words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _actions(chosen: str) -> list[tuple[str, str, bool]]:
    known = AuditEntry.objects.order_by("action").values_list("action", flat=True).distinct()[:ACTIONS_OFFERED]
    offered = sorted({*known, *([chosen] if chosen else [])})
    return [("", "Anything", not chosen), *((action, action_words(action), action == chosen) for action in offered)]


def _without(asked: Search, name: str) -> str:
    return "?" + urlencode({given: value for given, value in asked.given.items() if given != name})


def _soundness() -> dict[str, Any]:
    """How many of the newest entries are as they were written, or what is wrong with the first that is not."""
    try:
        return {"sound": trail.verify_end(CHECKED)}
    except trail.Broken as broken:
        return {"broken": str(broken)}
