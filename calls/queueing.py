"""A caller who waits for the AI: the next turn of the wait, what is said in it, and how it ends.

Twilio asks the wait door at the end of each turn. It answers from the rows: a place that came free is given, else the caller
hears where they stand, again only when that changed or was not said for ten seconds. `calls.ladder` says how long that goes on.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from calls import admission, services
from calls.history import pages_look, record_events
from calls.models import CallSession, Status
from calls.queue_rows import Waiting

SAID_AGAIN_AFTER = timedelta(seconds=10)
SHORTEST_TURN_S = 2  # what no jump of the wall clock changes


def waited_s(call: CallSession, *, turn: int, at: datetime) -> float | None:
    """How long a held call has been in the queue; None when it is not there."""
    if call.status != Status.WAITING:
        return None
    entry = Waiting.objects.filter(call=call).first()
    joined_at = entry.joined_at if entry else call.started_at
    return max((at - joined_at).total_seconds(), turn * SHORTEST_TURN_S)


def admitted(call: CallSession, *, at: datetime) -> bool:
    """Give a held call that waits its place with the AI, if one is free. True once, for it."""
    if not admission.take(call, at):
        return False
    if not services.transition(call_sid=call.call_sid, to=Status.CONNECTING, epoch=call.epoch, at=at):
        return False
    events = [*admission.leave(call, "agent", at), *services.meet_agent(call, disclosure=call.line.disclosure if call.line else "", at=at)]
    record_events(call_sid=call.call_sid, events=events)
    return True


def left(call: CallSession, why: str, *, at: datetime) -> None:
    """A held call goes on to somebody else; nothing to say of one that does not wait."""
    if call.status == Status.WAITING:
        record_events(call_sid=call.call_sid, events=admission.leave(call, why, at))


def place_to_say(call: CallSession, *, turn: int, at: datetime) -> int:
    """Where this caller stands, when it is to be said in this turn, else 0. A repeat of a turn gets what the first one got."""
    entry = Waiting.objects.filter(call=call).first()
    if entry is None:
        return 0
    if turn == entry.said_turn:
        return entry.place
    place = admission.room(at).ahead_of(call) + 1
    is_news = place != entry.place or entry.said_at is None or at - entry.said_at >= SAID_AGAIN_AFTER
    if not is_news or turn < entry.said_turn:
        return 0
    Waiting.objects.filter(pk=entry.pk).update(place=place, said_turn=turn, said_at=at)
    if place != entry.place:
        pages_look(call_sid=call.call_sid)
    return place
