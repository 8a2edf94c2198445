"""A caller who waits for the AI: the next turn of the wait, what is said in it, and how it ends.

Twilio asks the wait door at the end of each turn. It answers from the rows: a place that came free is given, else the caller
hears where they stand, again only when that changed or was not said for ten seconds. `calls.ladder` says how long that goes on.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from calls import admission, ladder, services
from calls.history import pages_look, record_events
from calls.models import CallSession, Status, VapiAccount
from calls.queue_rows import Waiting

SAID_AGAIN_AFTER = timedelta(seconds=10)
SHORTEST_TURN_S = 2  # what no jump of the wall clock changes


def waited_s(entry: Waiting, *, turn: int, at: datetime) -> float:
    """How long a caller has been in the queue."""
    return max((at - entry.joined_at).total_seconds(), turn * SHORTEST_TURN_S)


def admitted(call: CallSession, step: ladder.Resume, *, at: datetime) -> bool:
    """Give a held call that waits its place with the AI, if one is free. True once, for it."""
    if not admission.take(call, at=at, entry=call.waiting):
        return False
    if not services.transition(call_sid=call.call_sid, to=Status.CONNECTING, epoch=call.epoch, at=at):
        return False
    left = admission.leave(call, "agent", at=at)
    agent_at = VapiAccount.BACKUP if step.backup else VapiAccount.MAIN
    record_events(call_sid=call.call_sid, events=[*left, *services.meet_agent(call, agent_at=agent_at, at=at)])
    return True


def left(call: CallSession, why: str, *, at: datetime) -> None:
    """A held call goes on to somebody else; nothing to say of one that does not wait."""
    record_events(call_sid=call.call_sid, events=admission.leave(call, why, at=at))


def place_to_say(call: CallSession, *, turn: int, at: datetime) -> int:
    """Where this caller stands, when it is to be said in this turn, else 0. A repeat of a turn gets what the first one got."""
    entry = call.waiting
    if turn == entry.said_turn:
        return entry.place
    place = admission.room(at, entry).ahead + 1
    is_news = place != entry.place or entry.said_at is None or at - entry.said_at >= SAID_AGAIN_AFTER
    if not is_news or turn < entry.said_turn:
        return 0
    Waiting.objects.filter(pk=entry.pk).update(place=place, said_turn=turn, said_at=at)
    if place != entry.place:
        pages_look(call_sid=call.call_sid)
    return place
