"""Calls that nobody carries any more, though Twilio may think so: others notice, and have Twilio ask what is next.

Whoever claims the lease of a process (`calls.leases`) has its calls: should that one die too, the next one finds them there. Twilio
is given 0.7 s to come to the resume door by itself, which are over long before a lease is; a call that is where it was then is sent
there. Nothing of a call is changed here: the resume door raises its epoch, once, whoever asks it, and whoever held it before writes
nothing any more.

Two more kinds of calls are looked after in this way, by the process that knows of them. One that left a stream cannot know that
its close gets through to Twilio (`Life.left`). And a further stream that was asked for may go the same dead way as the one before
(`Life.promised`): Twilio would wait ten seconds for it, in silence, so it is sent to the resume door after three, which leads down.

Who looks when it is time for each: `calls.lifeguard`.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import Protocol

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.utils import timezone

from bridge.errors import TwilioError
from calls import by_heart, leases, resuming, spoken
from calls.history import NewEvent, record_events
from calls.leases import Sign
from calls.models import CallSession, OutboxCommand, Source, Status

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.25
ASKED_WITHIN_S = 0.7  # for Twilio to come to the resume door by itself; less than a lease
ASKED_AFTER_S = {
    resuming.STREAM_DEAD: 0.2,  # the caller has heard nothing for seconds, and a word comes before their next stream opens
    "stream-lost": ASKED_WITHIN_S,
    "parked": ASKED_WITHIN_S,
}
ASKED_AFTER_GOOD_ORDER_S = 2.0  # our close is nearly always heard
IS_BEING_TOLD_S = 0.25  # the answer is not out yet, and the time for the stream runs from when it is
SAID_WITHIN_S = 1.5  # "one moment, please", where it is said before a stream
TRY_AGAIN_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # after a redirect that Twilio did not take


class Twilio(Protocol):
    """What we need of `bridge.twilio_rest.TwilioRest`."""

    def redirect(self, call_sid: str, url: str, account_sid: str = "") -> bool: ...


@dataclass(frozen=True, slots=True)
class Rescue:
    """A call to look after. `since` is the last sign of whoever had it, `due` when to look, in monotonic seconds.

    `to_come`: it is well if the stream of its epoch has opened by then; else if nobody waits on that stream any more.
    """

    call_sid: str
    short_id: str
    epoch: int
    since: float
    due: float
    tries: int = 0
    to_come: bool = False
    is_told: bool = True  # in the call's own log, also when nothing had to be done
    account_sid: str = ""  # where no row says it

    def is_left(self) -> QuerySet[CallSession]:
        """The call, as long as it is where it was."""
        mine = CallSession.objects.live().filter(call_sid=self.call_sid, epoch=self.epoch)
        return resuming.stream_to_come(mine) if self.to_come else left_alone(mine)


def claim(sign: Sign, *, by: uuid.UUID, at: datetime, now: float, asked_within_s: float = ASKED_WITHIN_S) -> list[Rescue] | None:
    """Take over the calls of a process, if it has given no sign since. None: somebody else did, or it has.

    `asked_within_s`: how long Twilio is left to come by itself where the process is known to be dead.
    """
    with transaction.atomic():
        if not leases.claim(sign, by=by, at=at):
            return None
        held = CallSession.objects.live().filter(held_by=sign.beat.boot)
        calls = list(left_alone(held))
        held.update(held_by=by)
    due = now + asked_within_s if sign.beat.is_dead else now
    return [Rescue(call.call_sid, call.short_id, call.epoch, sign.at, due) for call in calls]


def left_alone(calls: QuerySet[CallSession]) -> QuerySet[CallSession]:
    """Those whose stream nobody carries and nobody has found anything else for: a person's talk is not to be disturbed."""
    dialled = Exists(OutboxCommand.objects.filter(call=OuterRef("pk"), verb="dial"))
    promised = Q(status=Status.TRANSFERRING) & ~dialled
    return calls.filter(Q(status__in=(Status.STREAMING, Status.RECOVERING)) | promised, stream_epoch=F("epoch"))


def rescue(job: Rescue, *, twilio: Twilio | None, clock: Callable[[], float] = time.monotonic) -> Rescue | None:
    """Send a call that is where it was to the resume door. Returns the job when it is to be tried again.

    One that was sent on by heart is not where it was, and its row says so first.
    """
    by_heart.enter(job.call_sid)
    if by_heart.is_being_asked(job.call_sid, job.epoch, now=time.time()):
        return replace(job, due=clock() + LOOK_EVERY_S)  # a redirect would only make Twilio ask the busy door a second time
    account_sid = job.is_left().values_list("account_sid", flat=True).first()
    if account_sid is None:
        if job.is_told and CallSession.objects.live().filter(call_sid=job.call_sid).exists():
            _note(job, "asked", clock())
        return None
    if twilio is None:
        log.error("A call whose process died cannot be rescued: there is no account at Twilio", extra={"call": job.short_id})
        return None
    return sent_on(job, account_sid, twilio=twilio, clock=clock, note=lambda: _note(job, "redirected", clock()))


def sent_on(job: Rescue, account_sid: str, *, twilio: Twilio, clock: Callable[[], float], note: Callable[[], None]) -> Rescue | None:
    """Have Twilio ask the resume door, and `note` that it does. Returns the job when it is to be tried again."""
    try:
        if twilio.redirect(job.call_sid, spoken.resume_url(job.epoch), account_sid):
            note()
        return None  # else the caller has hung up: the sweep writes it down
    except TwilioError as problem:
        log.warning("Twilio did not take a redirect", extra={"call": job.short_id, "problem": str(problem), "status": problem.status})
    if job.tries >= len(TRY_AGAIN_S):
        return None
    return replace(job, tries=job.tries + 1, due=clock() + TRY_AGAIN_S[job.tries])


def _note(job: Rescue, how: str, now: float) -> None:
    detail = {"how": how, "ms": max(0, round((now - job.since) * 1000))}
    record_events(call_sid=job.call_sid, events=[NewEvent("call-rescued", Source.SYSTEM, timezone.now(), detail, now)])


@dataclass(slots=True)
class Life:
    """This process's. `boot` is None where nobody renews a lease; it changes when the process was taken for dead and was not.

    `look_after` takes a call to look after; where there is no lifeguard nobody does.
    """

    boot: uuid.UUID | None = None
    look_after: Callable[[Rescue], None] = lambda job: None
    clock: Callable[[], float] = time.monotonic

    def left(self, call_sid: str, short_id: str, epoch: int, why: str) -> None:
        """The stream of this epoch was left here, and the caller may be there: Twilio has to come and ask."""
        now = self.clock()
        due = now + ASKED_AFTER_S.get(why, ASKED_AFTER_GOOD_ORDER_S)
        self.look_after(Rescue(call_sid, short_id, epoch, now, due, is_told=False))

    def promised(self, call: CallSession, *, was_kept: bool = False) -> None:
        """Twilio was told to open a further stream of this call; a caller who `was_kept` waiting for that hears a word first."""
        now, said_s = self.clock(), SAID_WITHIN_S if was_kept or resuming.is_told_to_wait(call) else 0.0
        due = now + said_s + resuming.OPENS_WITHIN.total_seconds() + IS_BEING_TOLD_S
        self.look_after(Rescue(call.call_sid, call.short_id, call.epoch, now, due, to_come=True, is_told=False))


@cache
def the_life() -> Life:
    """This process's."""
    return Life()
