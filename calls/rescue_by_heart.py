"""Callers left in silence while nobody can read the rows: those of a process of this machine that died or stands still, by the marks
of their streams. That one stands still another mark says (`calls.standing_still`).

Whoever is left looks (`calls.lifeguard`), and has Twilio ask what is next, as with rows; the resume door answers by heart. One of
them sends a caller on, and nothing is claimed: as soon as the database is back its rows say whose the calls are. Nobody is disturbed
whose call is over, has another stream by now, or of whom Twilio has asked by itself. The same is done for the streams that this
process left; a further one that was promised and does not come is left to the rows, or to Twilio.

A process that goes on afterwards has lost those callers: Twilio ends their streams there, and what it writes of them is older than the
streams they were sent on to.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from calls import by_heart, lifecycle, standing_still
from calls.rescue import ASKED_WITHIN_S, LOOK_EVERY_S, Rescue, Twilio, sent_on

log = logging.getLogger(__name__)


def left(*, is_gone: Callable[[str], bool], now: float, here: str = "") -> list[Rescue]:
    """Calls of processes of this machine that are dead or stand still, each for the one who asks first. `now` is monotonic seconds.

    Twilio is given the time to come by itself for a stream of the dead; one that stands still closes none. `here` is who looks, and
    so does not stand still, whatever is said of it.
    """

    def of_those_who(are_lost: Callable[[str], bool], within_s: float) -> Iterable[Rescue]:
        for stream in _carried_by(are_lost):
            if _is_where_it_was(stream.call_sid, stream.epoch) and by_heart.give_up(stream.call_sid, stream.epoch):
                yield Rescue(stream.call_sid, stream.short_id, stream.epoch, now, now + within_s, account_sid=stream.account_sid)

    dead = of_those_who(is_gone, ASKED_WITHIN_S)
    return [*dead, *of_those_who(lambda place: place != here and standing_still.is_seen(place), 0.0)]


def forget(*, is_gone: Callable[[str], bool]) -> None:
    """The rows say by now whose the calls of dead processes are. That they died stays known, for a door that cannot ask the rows."""
    for stream in _carried_by(is_gone):
        by_heart.died(stream.call_sid, stream.epoch)
        by_heart.let_go(stream.call_sid, stream.epoch)


def rescue(job: Rescue, *, twilio: Twilio | None, clock: Callable[[], float] = time.monotonic) -> Rescue | None:
    """Send a call that is where it was to the resume door. Returns the job when it is to be tried again."""
    if by_heart.is_being_asked(job.call_sid, job.epoch, now=time.time()):
        return replace(job, due=clock() + LOOK_EVERY_S)
    if job.to_come or twilio is None or not _is_where_it_was(job.call_sid, job.epoch):
        return None
    extra = {"call": job.short_id}
    return sent_on(job, job.account_sid, twilio=twilio, clock=clock, note=lambda: log.error("A caller was sent on by heart", extra=extra))


def _carried_by(are_lost: Callable[[str], bool]) -> Iterable[by_heart.Stream]:
    streams = by_heart.carried()
    lost = {place for place in {stream.place for stream in streams} if are_lost(place)}
    return [stream for stream in streams if stream.place in lost]


def _is_where_it_was(sid: str, epoch: int) -> bool:
    has_ended = by_heart.is_leg_over(sid) or by_heart.why_closed(sid, epoch) in lifecycle.STREAM_ENDS
    return not (has_ended or by_heart.is_answered(sid, epoch) or by_heart.is_carried_on(sid, after=epoch))
