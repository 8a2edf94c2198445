"""How many calls the AI carries at once, and whose turn it is: first come, first served.

The rows say who is with the AI, whichever process carries the sound. A free place is given by one conditional UPDATE that
names who had it before, so it is given once. A caller who hung up, or has not asked for a while, is not in the way of others.
What an account at Vapi refuses for want of lines counts as its limit for a minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q

from bridge import stream_token
from calls.history import NewEvent
from calls.models import CallSession, Source, Status, VapiSession, VapiState
from calls.queue_rows import AgentPlace, LineLimit, Waiting

WITH_AGENT = (Status.CONNECTING, Status.STREAMING, Status.RECOVERING)
ALIVE_WITHIN = timedelta(seconds=stream_token.LIFE_S + 30)  # a stream may come so late; after that its heart beats every 5 s
ASKS_WITHIN = timedelta(seconds=20)  # whoever waits asks at the end of each turn: `calls.ladder.TURN_S`
BELIEVED_FOR = timedelta(seconds=60)
MAIN = "main"


@dataclass(frozen=True, slots=True)
class Room:
    """Who has a place with the AI, and who waits for one and still asks, in their order; calls by primary key."""

    most: int
    busy: frozenset[int]
    line: tuple[int, ...]

    def ahead_of(self, call: CallSession) -> int:
        """How many wait before this caller; before one who does not wait, all."""
        return self.line.index(call.pk) if call.pk in self.line else len(self.line)

    def has_place_for(self, call: CallSession) -> bool:
        """True when a place is free, and for nobody who came earlier."""
        return len(self.busy - {call.pk}) + self.ahead_of(call) < self.most


def room(at: datetime) -> Room:
    with_agent = Q(status__in=WITH_AGENT, version__isnull=False, last_seen_at__gt=at - ALIVE_WITHIN)
    asking = Q(status=Status.WAITING, waiting__joined_at__isnull=False, last_seen_at__gt=at - ASKS_WITHIN)
    found = CallSession.objects.live().filter(with_agent | asking).order_by("waiting__joined_at", "pk").values_list("pk", "status")
    calls = list(found)
    busy = frozenset(pk for pk, status in calls if status != Status.WAITING)
    return Room(most(at), busy, tuple(pk for pk, status in calls if status == Status.WAITING))


def most(at: datetime) -> int:
    """How many the AI may carry now."""
    told = LineLimit.objects.filter(account=MAIN, until__gt=at).values_list("most", flat=True).first()
    return settings.MAX_CALLS if told is None else min(told, settings.MAX_CALLS)


def take(call: CallSession, at: datetime) -> bool:
    """Give this call a place with the AI. False when there is none for it."""
    now = room(at)
    if not now.has_place_for(call):
        return False
    holders = dict(AgentPlace.objects.values_list("number", "call"))
    mine = next((number for number, holder in holders.items() if holder == call.pk), None)
    if mine is not None and mine < now.most:
        return True
    if mine is not None:  # beyond a limit that has become smaller
        AgentPlace.objects.filter(number=mine, call=call).update(call=None)
    return any(_given(number, holders, call) for number in range(now.most) if holders.get(number) not in now.busy)


def _given(number: int, holders: dict[int, int | None], call: CallSession) -> bool:
    if number in holders:
        return AgentPlace.objects.filter(number=number, call=holders[number]).update(call=call) == 1
    try:
        with transaction.atomic():
            AgentPlace.objects.create(number=number, call=call)
    except IntegrityError:  # another process made it, for a caller of its own
        return False
    return True


def join(call: CallSession, at: datetime) -> NewEvent:
    """Put a call at the end of the queue; whoever has it records the event returned."""
    place = room(at).ahead_of(call) + 1
    Waiting.objects.create(call=call, joined_at=at, place=place)
    return NewEvent("queue-joined", Source.SYSTEM, at, {"place": place})


def leave(call: CallSession, why: str, at: datetime) -> list[NewEvent]:
    """Out of the queue, with the event of it to be recorded; none for a call that is not in it."""
    if Waiting.objects.filter(call=call, left_at=None).update(left_at=at, left_why=why) == 0:
        return []
    return [NewEvent("queue-left", Source.SYSTEM, at, {"why": why})]


def lines_are_busy(at: datetime, account: str = MAIN) -> None:
    """Vapi refused a call for want of lines: it carries no more than it does now."""
    carried = VapiSession.objects.filter(state=VapiState.LIVE).count()
    limit = {"most": max(carried, 1), "until": at + BELIEVED_FOR}
    LineLimit.objects.update_or_create(account=account, defaults=limit)
