"""What a list of calls is narrowed to. All of it stands in the address, so that a link shows a colleague the same list.

Reading an address never fails: what is not understood is left out and named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, tzinfo
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db.models import Exists, OuterRef, Q
from django.http import QueryDict

from calls.models import OVER, EndReason, Outcome, Recording, Rung, Status, TranscriptLine, VapiSession

LONGEST = 200
MOST_TERMS = 8
DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
YEARS = range(2000, 2200)
TERM = re.compile(r'"([^"]+)"|(\S+)')
NUMBER = re.compile(r"\+?[\d\s()./-]*\d[\d\s()./-]*")
SID = re.compile(r"(?:CA|RE)[0-9a-f]{32}", re.IGNORECASE)
SHORT_ID = re.compile(r"call-([0-9a-f]{6})", re.IGNORECASE)
UUID_FORM = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
AGENT = re.compile(r"([-\w]{1,50})(?:\.(\d{1,6}))?", re.ASCII)
ZONE = re.compile(r"[A-Za-z][\w+-]{0,30}(?:/[\w+-]{1,30}){0,2}", re.ASCII)

STATES = {
    "live": ("Live", Q(ended_at=None)),
    "ended": ("Ended", Q(ended_at__isnull=False)),
    **{str(status): (str(status.label), Q(status=status)) for status in Status if status not in OVER},
    str(Status.FINALISED): (str(Status.FINALISED.label), Q(status=Status.FINALISED)),
}
OUTCOMES = {str(outcome): (str(outcome.label), Q(outcome=outcome, ended_at__isnull=False)) for outcome in Outcome}
REASONS = {str(reason): (str(reason.label), Q(end_reason=reason)) for reason in EndReason}
RUNGS = {str(rung): (str(rung.label), Q(rung=rung)) for rung in Rung}


@dataclass(frozen=True, slots=True)
class Narrowing:
    """One thing the list is narrowed to: the parameter `name` in the address, and the words for people."""

    name: str
    label: str
    words: str
    condition: Q


@dataclass(slots=True)
class Search:
    """What an address asks for; `given` are the values it was understood with, `left_out` what was not."""

    narrowings: list[Narrowing] = field(default_factory=list)
    given: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    looked_for: str = ""  # the words that a line of the transcript is shown for

    @property
    def condition(self) -> Q:
        return both(narrowing.condition for narrowing in self.narrowings)

    def without(self, name: str) -> Q:
        return both(narrowing.condition for narrowing in self.narrowings if narrowing.name != name)


def both(conditions: Iterable[Q]) -> Q:
    whole = Q()
    for condition in conditions:
        whole &= condition
    return whole


def read(query: QueryDict, *, words: bool) -> Search:
    """The search in an address. Values are cut to a length nobody types; unknown parameters are somebody else's.

    Without `words`, what was said is not searched: finding a call by it would tell.
    """
    search = Search()
    _look_for(search, clean(query.get("q", "")), words)
    zone = zone_named(clean(query.get("zone", "")))
    readers: dict[str, tuple[str, Callable[[str], tuple[str, Q] | None]]] = {
        "status": ("State", STATES.get),
        "outcome": ("Outcome", OUTCOMES.get),
        "reason": ("Ended because", REASONS.get),
        "rung": ("Carried by", RUNGS.get),
        "line": ("Line", _line),
        "agent": ("Agent", _agent),
        "from": ("From", lambda asked: _day(asked, zone, first=True)),
        "to": ("To", lambda asked: _day(asked, zone, first=False)),
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


def clean(asked: str) -> str:
    """One line without control characters (a NUL is an error in PostgreSQL), at most LONGEST characters."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in asked).split())[:LONGEST]


def _look_for(search: Search, asked: str, words: bool) -> None:
    if not asked:
        return
    whole = NUMBER.fullmatch(asked) is not None
    terms = [asked] if whole else [quoted or plain for quoted, plain in TERM.findall(asked)][:MOST_TERMS]
    conditions = []
    for term in terms:
        by_id = _by_id(term)
        if by_id is None and words and not search.looked_for:
            search.looked_for = term
        by_words = _spoken(term) | _by_number(term) if words else _by_number(term)
        conditions.append(by_id if by_id is not None else by_words)
    search.narrowings.append(Narrowing("q", "Search", f"“{asked}”", both(conditions)))
    search.given["q"] = asked


def _by_id(term: str) -> Q | None:
    """A call by any of the names people copy from a log or a vendor's console; None for a term that is no such name."""
    if SID.fullmatch(term):
        sid = term[:2].upper() + term[2:].lower()
        return Q(call_sid=sid) if sid.startswith("CA") else Q(Exists(Recording.objects.filter(call=OuterRef("pk"), sid=sid)))
    if UUID_FORM.fullmatch(term):
        at_vapi = VapiSession.objects.filter(call=OuterRef("pk"), vapi_call_id=term.lower())
        return Q(public_id=UUID(term)) | Q(Exists(at_vapi))
    if short := SHORT_ID.fullmatch(term):
        start = short[1].lower()
        return Q(public_id__range=(UUID(start + "0" * 26), UUID(start + "f" * 26)))
    return None


def spellings(term: str) -> set[str]:
    """A term as LIKE must be asked for it: SQLite folds the case of ASCII letters only."""
    return {term} if term.isascii() else {term, term.lower(), term.upper(), term.capitalize()}


def _spoken(term: str) -> Q:
    said = Q()
    for spelling in spellings(term):
        said |= Q(said__icontains=spelling)
    return Q(Exists(TranscriptLine.objects.filter(said, call=OuterRef("pk"))))


def _by_number(term: str) -> Q:
    """A phone number as people write it, or any three digits of one in a row. Matches nothing for other terms."""
    digits = re.sub(r"\D", "", term, flags=re.ASCII)
    if not NUMBER.fullmatch(term) or len(digits) < 3:
        return Q(from_number=term) | Q(to_number=term)
    return Q(from_number__contains=digits) | Q(to_number__contains=digits)


def _line(asked: str) -> tuple[str, Q] | None:
    """A line by its number; a plus that the address turned into a space is forgiven."""
    digits = asked.removeprefix("+")
    return (f"+{digits}", Q(line__number=f"+{digits}")) if digits.isascii() and digits.isdigit() and len(digits) <= 15 else None


def _agent(asked: str) -> tuple[str, Q] | None:
    """`support` for an agent, `support.3` for one of its versions."""
    named = AGENT.fullmatch(asked)
    if named is None:
        return None
    slug, number = named.groups()
    of_agent = Q(version__template__slug=slug)
    return (f"{slug} v{number}", of_agent & Q(version__number=int(number))) if number else (slug, of_agent)


def zone_named(asked: str) -> ZoneInfo | None:
    """The viewer's time zone by its name; None, which means UTC, for what is none."""
    if not ZONE.fullmatch(asked):
        return None
    try:
        return ZoneInfo(asked)
    except (KeyError, ValueError, OSError):
        return None


def _day(asked: str, zone: tzinfo | None, *, first: bool) -> tuple[str, Q] | None:
    moment = edge_of_day(asked, zone, first=first)
    if moment is None:
        return None
    return asked, Q(started_at__gte=moment) if first else Q(started_at__lt=moment)


def edge_of_day(asked: str, zone: tzinfo | None, *, first: bool) -> datetime | None:
    """The first moment of a day, or of the one after it, where the viewer is; None for what is no day."""
    try:
        day = date.fromisoformat(asked) if DAY.fullmatch(asked) else None
    except ValueError:
        return None
    if day is None or day.year not in YEARS:
        return None
    return datetime.combine(day if first else day + timedelta(days=1), time(), tzinfo=zone or ZoneInfo("UTC"))
