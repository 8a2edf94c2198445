"""What Twilio does when somebody dials our numbers: is it us whom it asks, and who answers when we do not.

The last rung of the ladder is a document on somebody else's host, and only a number's fallback URL leads there. Nothing else in this
house can see that it is missing, and callers notice on the one day when nobody is here to be told.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connections
from django.urls import reverse

from agents.models import PhoneLine
from bridge.errors import TwilioError
from bridge.twilio_rest import NumberSettings
from calls import twilio_account
from calls.models import CallSession

log = logging.getLogger(__name__)

ALL_WITHIN_S = 30.0  # then the numbers that are left are not asked about
PORTS = {"https": 443, "http": 80}


class Twilio(Protocol):
    """What we need of `bridge.twilio_rest.TwilioRest`."""

    def number(self, phone_number: str, account_sid: str = "") -> NumberSettings | None: ...


@dataclass(frozen=True, slots=True)
class Finding:
    """One plain sentence about a number. `grave`: calls are lost by it, now or on the day we are away."""

    number: str
    said: str
    grave: bool = True

    def __str__(self) -> str:
        return f"{self.number} {self.said}" if self.number else self.said


def wrong_with(number: str, found: NumberSettings | None, *, public_url: str) -> Iterator[Finding]:
    """What is to be changed at Twilio for a number. Pure but for our own doors' paths."""
    if found is None:
        yield Finding(number, "is not among the numbers of our Twilio account.", grave=False)
        return
    if found.taken_by:
        yield Finding(
            number, f"is answered by {found.taken_by}, so what is set at the number does not count and was not looked at.", grave=False
        )
        return
    voice, status = (public_url + reverse(name) for name in ("twilio-call", "twilio-status"))
    if not _same(found.voice_url, voice):
        yield Finding(number, f"does not ask us when a call comes in: its voice webhook must be {voice} (POST).")
    elif found.voice_method != "POST":
        yield Finding(number, f"asks us with {found.voice_method} when a call comes in: its voice webhook must be a POST.")
    if not found.fallback_url:
        yield Finding(number, "has no fallback URL: when this server does not answer, nobody does. Give it what `fallback_twiml` prints.")
    elif _host(found.fallback_url) in (None, _host(public_url)):
        yield Finding(number, "has a fallback URL that leads to us: on another host it would answer when this server does not.")
    if not _same(found.status_callback, status):
        said = f"does not tell us that a call is over, so we have to ask: its status callback should be {status} (POST)."
        yield Finding(number, said, grave=False)
    elif found.status_method != "POST":
        yield Finding(number, f"tells us with {found.status_method} that a call is over: its status callback must be a POST.", grave=False)


def findings(*, twilio: Twilio | None, clock: Callable[[], float] = time.monotonic) -> list[Finding]:
    """All that is wrong with the numbers of our lines, by asking Twilio about each; what cannot be asked is said, and no error."""
    try:
        accounts = {str(line): _account_of(str(line)) for line in PhoneLine.objects.order_by("number").values_list("number", flat=True)}
    except DatabaseError as problem:
        return [Finding("", f"Our numbers cannot be read, so nobody asked Twilio about them ({type(problem).__name__}).", grave=False)]
    if not accounts:
        return []
    if twilio is None:
        return [Finding("", "Nobody asked Twilio about our numbers: TWILIO_ACCOUNT_SID or TWILIO_AUTH_TOKEN is missing.", grave=False)]
    until, found = clock() + ALL_WITHIN_S, list[Finding]()
    for asked, (number, account) in enumerate(accounts.items()):
        try:
            if clock() >= until:
                return [*found, _not_asked(len(accounts) - asked, "Twilio took too long.")]
            there = twilio.number(number) or (twilio.number(number, account) if account else None)
        except TwilioError as problem:
            return [*found, _not_asked(len(accounts) - asked, str(problem))]
        found += wrong_with(number, there, public_url=settings.PUBLIC_URL)
    return found


def say_at_start() -> None:
    """One line for whoever reads the log of a server that has just started, if callers would be lost. It may take its time."""
    try:
        grave = [each for each in findings(twilio=twilio_account.client()) if each.grave]
    finally:
        connections.close_all()
    if grave:
        numbers = len({each.number for each in grave})
        log.warning(
            "Callers can be lost by what is set for our numbers at Twilio: see `manage.py check --deploy`", extra={"numbers": numbers}
        )


def _account_of(number: str) -> str:
    """The sub-account that the number's newest call came by."""
    calls = CallSession.objects.filter(line__number=number).order_by("-started_at")
    return calls.values_list("account_sid", flat=True).first() or ""


def _not_asked(numbers: int, why: str) -> Finding:
    return Finding("", f"Nobody could ask Twilio about {numbers} of our numbers: {why}", grave=False)


def _same(theirs: str, ours: str) -> bool:
    """Whether both lead to one door. A fragment is for Twilio alone, and each of our doors has a twin with a slash."""
    left, right = _parts(theirs), _parts(ours)
    if left is None or right is None:
        return False
    return (left.scheme, left.hostname, _port(left), left.path.rstrip("/"), left.query) == (
        right.scheme,
        right.hostname,
        _port(right),
        right.path.rstrip("/"),
        right.query,
    )


def _host(url: str) -> str | None:
    parts = _parts(url)
    return parts.hostname if parts else None


def _parts(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url.strip())
        return parts if parts.scheme in PORTS and parts.hostname and _port(parts) else None
    except ValueError:
        return None


def _port(parts: SplitResult) -> int | None:
    return parts.port or PORTS.get(parts.scheme)
