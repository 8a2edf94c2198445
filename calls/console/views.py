"""The window: pages that show calls and change nothing. The two things that may be changed are in `changes`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.utils import timezone

from agents.models import PhoneLine, TemplateVersion
from agents.teams import Sight, seen
from agents.trail import Who
from calls import roles
from calls.console import followups, paging, search, shown, watched
from calls.console.doors import console_page, page
from calls.console.reader import CallReader, LiveReader
from calls.console.rows import callbacks, calls, voicemails
from calls.console.search import Search
from calls.console.viewer import viewer_of
from calls.models import CallSession, Outcome

LINES_OFFERED = 200
VERSIONS_OFFERED = 200
ONE_CLICK: tuple[tuple[str, Mapping[str, str]], ...] = (
    ("All", {}),
    ("Live", {"status": "live"}),
    ("Ended", {"status": "ended"}),
    *((str(outcome.label), {"outcome": str(outcome)}) for outcome in Outcome if outcome != Outcome.UNKNOWN),
)
Option = tuple[str, str, bool]


@console_page(roles.SEE_CALLS)
def live(request: HttpRequest) -> HttpResponse:
    """What is going on: the calls that are on now, and how the last day went."""
    return page(request, "live.html", here="live", context={"news": LiveReader(viewer_of(request.user)).read()})


@console_page(roles.SEE_CALLS)
def call_list(request: HttpRequest) -> HttpResponse:
    """The calls an address asks for, newest first (`calls.console.search`); `?page=` turns the page."""
    viewer = viewer_of(request.user)
    asked = search.read(request.GET, words=viewer.words)
    found = paging.page_of(calls(viewer.sight).filter(asked.condition).listed().with_line_that_says(asked.looked_for), request.GET)
    context = {
        "page": found,
        "rows": [shown.row(call) for call in found.rows],
        "asked": asked,
        "one_click": [(words, _address(asked, choice), _chosen(asked, choice)) for words, choice in ONE_CLICK],
        "choices": _choices(asked, viewer.sight),
        "further": len(set(asked.given) - {"q", "status", "outcome", "zone"}),
        "narrowed": _ways_to_widen(asked, viewer.sight, count=not found.rows),
    }
    return page(request, "calls.html", here="calls", context=context)


@console_page(roles.SEE_CALLS)
@watched.refused_untold
def call(request: HttpRequest, public_id: UUID) -> HttpResponse:
    """One call, live or over: what was said beside what happened."""
    viewer = viewer_of(request.user)
    news = CallReader(public_id, viewer).read()
    if news is None:
        raise Http404("There is no such call.")
    call = CallSession(public_id=public_id)
    if viewer.words:
        watched.call_read(Who.asking(request), call)
    context = {"news": news, "public_id": public_id, "short_id": call.short_id}
    return page(request, "call.html", here="calls", context=context)


@console_page(roles.READ_WORDS)
def voicemail_list(request: HttpRequest) -> HttpResponse:
    """What callers left for somebody to listen to, newest first."""
    now, found = timezone.now(), paging.page_of(voicemails(viewer_of(request.user).sight), request.GET)
    rows = [followups.voicemail(sound, now) for sound in found.rows]
    return page(request, "voicemail.html", here="voicemail", context={"page": found, "rows": rows})


@console_page(roles.READ_WORDS)
def callback_list(request: HttpRequest) -> HttpResponse:
    """Who is to be called back: what is still to do first, by the time it is due."""
    now, found = timezone.now(), paging.page_of(callbacks(viewer_of(request.user).sight), request.GET)
    rows = [followups.callback(asked, now) for asked in found.rows]
    return page(request, "callbacks.html", here="callbacks", context={"page": found, "rows": rows})


def _address(asked: Search, choice: Mapping[str, str]) -> str:
    """The address with another state and outcome, and everything else as it is."""
    kept = {name: value for name, value in asked.given.items() if name not in ("status", "outcome")}
    return "?" + urlencode({**kept, **choice})


def _chosen(asked: Search, choice: Mapping[str, str]) -> bool:
    return {name: value for name, value in asked.given.items() if name in ("status", "outcome")} == dict(choice)


def _choices(asked: Search, sight: Sight) -> list[tuple[str, str, list[Option]]]:
    """What each select of the form offers, with a line and an agent of the address among them even when there are too many."""
    lines = [(line.number, line.name or line.number) for line in seen(PhoneLine.objects.only("number", "name"), sight)[:LINES_OFFERED]]
    newest = seen(TemplateVersion.objects.all(), sight).order_by("-published_at").select_related("template")
    versions = newest.only("name", "number", "template__slug", "template__name")[:VERSIONS_OFFERED]
    agents = {version.template.slug: f"{version.template.name}, every version" for version in versions}
    agents |= {f"{version.template.slug}.{version.number}": str(version) for version in versions}
    return [
        ("status", "State", _options(asked, "status", ((key, words) for key, (words, _) in search.STATES.items()))),
        ("outcome", "Outcome", _options(asked, "outcome", ((key, words) for key, (words, _) in search.OUTCOMES.items()))),
        ("reason", "Ended because", _options(asked, "reason", ((key, words) for key, (words, _) in search.REASONS.items()))),
        ("rung", "Carried by", _options(asked, "rung", ((key, words) for key, (words, _) in search.RUNGS.items()))),
        ("line", "Line", _options(asked, "line", lines)),
        ("agent", "Agent", _options(asked, "agent", sorted(agents.items()))),
    ]


def _options(asked: Search, name: str, offered: Iterable[tuple[str, str]]) -> list[Option]:
    known = dict(offered)
    chosen = asked.given.get(name, "")
    if chosen and chosen not in known:
        known[chosen] = next((narrowing.words for narrowing in asked.narrowings if narrowing.name == name), chosen)
    return [("", "Any", not chosen), *((key, words, key == chosen) for key, words in known.items())]


def _ways_to_widen(asked: Search, sight: Sight, *, count: bool) -> list[dict[str, Any]]:
    """What the list is narrowed to, each with the address without it; with `count`, also how many calls that would show."""
    own = calls(sight).order_by().values("pk")
    return [
        {
            "label": narrowing.label,
            "words": narrowing.words,
            "address": "?" + urlencode({name: value for name, value in asked.given.items() if name != narrowing.name}),
            "count": own.filter(asked.without(narrowing.name))[: paging.COUNTED].count() if count else None,
        }
        for narrowing in asked.narrowings
    ]
