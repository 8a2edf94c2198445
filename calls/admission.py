"""How many calls the AI carries at once, and whose turn it is: first come, first served.

Each call with the AI holds a place, whichever process carries its sound, until Vapi has let go of it. A free one is given by a
conditional UPDATE that says how often it was given before, so it is given once. A caller who hung up, or has not asked for a
while, is not in the way of others. What an account at Vapi carried when it refused a call for want of lines is its limit for half
a minute; then it is tried with one more every few seconds, and the first that it takes lets the limit be forgotten.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection
from django.db.models import F, QuerySet

from agents import account
from bridge import stream_token
from calls import guards
from calls.history import NewEvent
from calls.models import CallSession, Source, Status, VapiSession, VapiState
from calls.queue_rows import AgentPlace, LineLimit, Waiting

log = logging.getLogger(__name__)

WITH_AGENT = (Status.CONNECTING, Status.STREAMING, Status.RECOVERING)
ALIVE_WITHIN = timedelta(seconds=stream_token.LIFE_S + 30)  # a stream may come so late; after that its heart beats every 5 s
LET_GO_WITHIN = timedelta(seconds=30)  # after the last sign of life, a session at Vapi that nobody has ended yet holds its line no more
ASKS_WITHIN = timedelta(seconds=20)  # whoever waits asks at the end of each turn: `calls.ladder.TURN_S`
BELIEVED_FOR = timedelta(seconds=30)
ONE_MORE_EVERY = timedelta(seconds=5)
MADE = (VapiState.CLAIMED, VapiState.LIVE)  # or about to be

# A place is taken by a call with the AI that is alive, or whose session nobody has ended; those who wait and still ask may be ahead.
ROOM = """
SELECT place.number, place.given,
  CASE WHEN (holder.status IN (%s, %s, %s) AND holder.last_seen_at > %s) OR (holder.last_seen_at > %s AND EXISTS (
    SELECT 1 FROM calls_vapisession WHERE call_id = holder.id AND state IN (%s, %s)
  )) THEN 1 ELSE 0 END,
  (SELECT COUNT(*) FROM calls_waiting JOIN calls_callsession AS caller ON caller.id = call_id
    WHERE left_at IS NULL AND caller.status = %s AND caller.last_seen_at > %s
      AND (%s OR joined_at < %s OR (joined_at = %s AND calls_waiting.id < %s))),
  CASE WHEN EXISTS (SELECT 1 FROM calls_linelimit) THEN 1 ELSE 0 END
FROM calls_agentplace AS place LEFT JOIN calls_callsession AS holder ON holder.id = place.call_id ORDER BY place.number
"""


@dataclass(frozen=True, slots=True)
class Room:
    """How many places there may be, and those there are by number: how often each was given, or None while it is taken."""

    most: int
    places: Mapping[int, int | None]
    ahead: int  # callers who wait and came before the one it was asked for

    @property
    def taken(self) -> int:
        return sum(given is None for given in self.places.values())

    @property
    def has_place(self) -> bool:
        """True when a place is free, and for nobody who came earlier."""
        return self.taken + self.ahead < self.most

    def free(self, below: int) -> list[tuple[int, int]]:
        """Places nobody has, of the first so many, and how often each was given; those that were never needed yet come last.

        Shuffled, so that those who come at once want different ones.
        """
        free = [(number, given) for number, given in self.places.items() if given is not None and number < below]
        unused = [(number, 0) for number in range(below) if number not in self.places]
        return [*random.sample(free, len(free)), *random.sample(unused, len(unused))]


def room(at: datetime, entry: Waiting | None = None) -> Room:
    """For a caller in the queue, or for one who comes now. Whoever waits asks again and again: the statement is not put together anew."""
    as_stored = connection.ops.adapt_datetimefield_value
    alive, let_go, asks = (as_stored(at - within) for within in (ALIVE_WITHIN, LET_GO_WITHIN, ASKS_WITHIN))
    joined = as_stored(entry.joined_at) if entry else None
    taken, waits = [*WITH_AGENT, alive, let_go, *MADE], [Status.WAITING, asks, entry is None, joined, joined, entry.pk if entry else None]
    with connection.cursor() as cursor:
        cursor.execute(ROOM, [*taken, *waits])
        rows = cursor.fetchall()
    ahead, is_told = rows[0][3:] if rows else (0, False)
    told = {limit.account: limit for limit in LineLimit.objects.all()} if is_told else {}
    carried = [_carries(told.get(name), at) for name in _accounts()]
    places = {number: None if is_taken else given for number, given, is_taken, *_ in rows}
    return Room(min(settings.MAX_CALLS, sum(carried)), places, ahead)


def _accounts() -> tuple[str, ...]:
    return (account.MAIN, account.BACKUP) if account.has_backup() else (account.MAIN,)


def _carries(told: LineLimit | None, at: datetime) -> int:
    """How many calls an account carries now, by all we know."""
    most: int = settings.MAX_CALLS
    if told is None or at < told.told_at - BELIEVED_FOR:  # the clock jumped back
        return most
    more = max(at - told.told_at - BELIEVED_FOR, timedelta()) // ONE_MORE_EVERY
    return min(told.most + more, most)


def take(call: CallSession, *, at: datetime, entry: Waiting | None = None, even_if_full: bool = False) -> bool:
    """Give this call a place with the AI. False when there is none for it. In the usual case a query and a write."""
    now = room(at, entry)
    if not (now.has_place or even_if_full):
        return False
    below = max(now.most, len(now.places) + 1) if even_if_full else now.most
    return any(_given(number, given, call) for number, given in now.free(below))


def take_again(call: CallSession, *, at: datetime) -> None:
    """The AI has this call, whose caller was sent elsewhere before or was answered by heart: also when others have all places."""
    AgentPlace.objects.filter(call=call).update(call=None)
    take(call, at=at, even_if_full=True)


def _given(number: int, given: int, call: CallSession) -> bool:
    if given == 0:
        AgentPlace.objects.bulk_create([AgentPlace(number=number)], ignore_conflicts=True)
    return AgentPlace.objects.filter(guards.place_unchanged(given), number=number).update(call=call, given=F("given") + 1) == 1


def join(call: CallSession, *, at: datetime) -> NewEvent:
    """Put a call at the end of the queue; whoever has it records the event returned."""
    entry = Waiting.objects.create(call=call, joined_at=at, place=0)
    entry.place = room(at, entry).ahead + 1
    entry.save(update_fields=["place"])
    return NewEvent("queue-joined", Source.SYSTEM, at, {"place": entry.place})


def leave(call: CallSession, why: str, *, at: datetime) -> list[NewEvent]:
    """Out of the queue, with the event of it to be recorded; none for a call that is not in it."""
    if Waiting.objects.filter(call=call, left_at=None).update(left_at=at, left_why=why) == 0:
        return []
    return [NewEvent("queue-left", Source.SYSTEM, at, {"why": why})]


def lines_are_busy(name: str, *, at: datetime, besides: int) -> None:
    """An account refused a call for want of lines: it carries no more than it does now, without the session it refused."""
    limit = {"most": max(_open_at(name).exclude(pk=besides).count(), 1), "told_at": at}
    LineLimit.objects.update_or_create(account=name, defaults=limit)
    log.warning("Vapi has no free line for us: callers wait, or go to the backup", extra={"account": name, "carried": limit["most"]})


def has_lines(name: str) -> None:
    """An account took a call: it carries more than was told, if it was told anything. One query in the usual case."""
    told = LineLimit.objects.filter(account=name).first()
    if told is not None and _open_at(name).count() > told.most:
        LineLimit.objects.filter(pk=told.pk, told_at=told.told_at).delete()


def short_of_lines(*, at: datetime) -> LineLimit | None:
    """The account that said it carries no more calls than these, while we believe it and take no others."""
    told = LineLimit.objects.filter(account__in=_accounts()).order_by("told_at")
    return next((limit for limit in told if _carries(limit, at) < settings.MAX_CALLS), None)


def _open_at(name: str) -> QuerySet[VapiSession]:
    return VapiSession.objects.filter(account=name, state__in=MADE)
