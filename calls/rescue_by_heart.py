"""Callers left in silence while nobody can read the rows: those of a process of this machine that died, by the marks of their streams.

Whoever is left looks (`calls.lifeguard`), and has Twilio ask what is next, as with rows; the resume door answers by heart. One of
them sends a caller on, and nothing is claimed: as soon as the database is back its rows say whose the calls are. Nobody is disturbed
whose call is over, has another stream by now, or of whom Twilio has asked by itself. The same is done for the streams that this
process left; a further one that was promised and does not come is left to the rows, or to Twilio.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from calls import by_heart, lifecycle
from calls.rescue import ASKED_WITHIN_S, LOOK_EVERY_S, Rescue, Twilio, sent_on

log = logging.getLogger(__name__)


def left(*, is_gone: Callable[[str], bool], now: float) -> list[Rescue]:
    """Calls of dead processes of this machine, each for the one who asks first. `now` is monotonic seconds.

    Twilio is given the time to come by itself.
    """
    gone = [stream for stream in _of_the_dead(is_gone) if _is_where_it_was(stream.call_sid, stream.epoch)]
    mine = [stream for stream in gone if by_heart.first(stream.call_sid, f"rescued-{stream.epoch}")]
    return [
        Rescue(stream.call_sid, stream.short_id, stream.epoch, now, now + ASKED_WITHIN_S, account_sid=stream.account_sid) for stream in mine
    ]


def forget(*, is_gone: Callable[[str], bool]) -> None:
    """The rows say by now whose the calls of dead processes are."""
    for stream in _of_the_dead(is_gone):
        by_heart.let_go(stream.call_sid, stream.epoch)


def rescue(job: Rescue, *, twilio: Twilio | None, clock: Callable[[], float] = time.monotonic) -> Rescue | None:
    """Send a call that is where it was to the resume door. Returns the job when it is to be tried again."""
    if by_heart.is_being_asked(job.call_sid, job.epoch, now=time.time()):
        return replace(job, due=clock() + LOOK_EVERY_S)
    if job.to_come or twilio is None or not _is_where_it_was(job.call_sid, job.epoch):
        return None
    extra = {"call": job.short_id}
    return sent_on(job, job.account_sid, twilio=twilio, clock=clock, note=lambda: log.error("A caller was sent on by heart", extra=extra))


def _of_the_dead(is_gone: Callable[[str], bool]) -> Iterable[by_heart.Stream]:
    streams = by_heart.carried()
    dead = {place for place in {stream.place for stream in streams} if is_gone(place)}
    return [stream for stream in streams if stream.place in dead]


def _is_where_it_was(sid: str, epoch: int) -> bool:
    has_ended = by_heart.is_leg_over(sid) or by_heart.why_closed(sid, epoch) in lifecycle.STREAM_ENDS
    return not (has_ended or by_heart.is_answered(sid, epoch) or by_heart.is_carried_on(sid, after=epoch))
