"""Calls that nobody carries any more, though Twilio may think so: others notice, and have Twilio ask what is next.

Each serving process raises the counter of its lease every half second, as long as its event loop is well. Everybody reads
everybody's counter and times it with a clock of their own, so no two clocks need agree. A counter that stood still for
`LEASE_S`, or whose process its parent or its machine knows to be dead, is claimed by one conditional UPDATE, and the calls go
to the claimer with it: should that one die too, the next one finds them there. Twilio is given 0.7 s to come to the resume
door by itself, which are over long before a lease is; a call that is where it was then is sent there. Nothing of a call is
changed here: the resume door raises its epoch, once, whoever asks it, and whoever held it before writes nothing any more.

Two more kinds of calls are looked after in this way, by the process that knows of them. One that left a stream cannot know that
its close gets through to Twilio (`Life.left`). And a further stream that was asked for may go the same dead way as the one before
(`Life.promised`): Twilio would wait ten seconds for it, in silence, so it is sent to the resume door after three, which leads down.

A process whose event loop stands still, while its threads go on, says so itself, as its parent does of one that answers nothing at all.

A process that could not raise its own counter has no right to judge others by theirs: it starts to time them anew. So an
outage of the database kills nobody.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple, Protocol

from django.db import close_old_connections, connection, connections, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.utils import timezone

from bridge.errors import TwilioError
from calls import by_heart, resuming, spoken
from calls.hands import Hands
from calls.history import NewEvent, record_events
from calls.lease_rows import ProcessLease
from calls.models import CallSession, OutboxCommand, Source, Status

log = logging.getLogger(__name__)

LEASE_S = 2.0
RENEW_EVERY_S = 0.5
LATE_S = 2 * RENEW_EVERY_S  # a renewal that took longer says that something is wrong with us, or with the database
LOOK_EVERY_S = 0.25
ASKED_WITHIN_S = 0.7  # for Twilio to come to the resume door by itself; less than a lease
ASKED_AFTER_S = {
    resuming.STREAM_DEAD: 0.2,  # the caller has heard nothing for seconds, and a word comes before their next stream opens
    "stream-lost": ASKED_WITHIN_S,
    "parked": ASKED_WITHIN_S,
}
ASKED_AFTER_GOOD_ORDER_S = 2.0  # our close is nearly always heard
SAID_WITHIN_S = 1.5  # "one moment, please", where it is said before a stream
TRY_AGAIN_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # after a redirect that Twilio did not take
REDIRECTS_AT_ONCE = 8
REDIRECTS_THAT_WAIT = 100  # twice as many as a process that died is meant to have carried
KEPT_FOR = timedelta(hours=1)  # a claimed lease; it is of no use but to be looked at

# Asked two and four times a second, all life long: these statements are not put together anew.
RENEW = "UPDATE calls_processlease SET counter = counter + 1, frozen_at = NULL WHERE boot = %s AND dead_at IS NULL AND claimed_by IS NULL"
BEATS = """SELECT boot, counter, dead_at IS NOT NULL, frozen_at IS NOT NULL, place FROM calls_processlease
    WHERE claimed_by IS NULL AND boot <> %s"""


class Twilio(Protocol):
    """What we need of `bridge.twilio_rest.TwilioRest`."""

    def redirect(self, call_sid: str, url: str, account_sid: str = "") -> bool: ...


class Beat(NamedTuple):
    """A lease that nobody has claimed, as it was read."""

    boot: uuid.UUID
    counter: int
    is_dead: bool = False  # somebody saw it die, or sees that it is not there
    is_frozen: bool = False  # it is there, and somebody who would know sees that it does not go on


class Sign(NamedTuple):
    """What was seen last of a process, and when."""

    beat: Beat
    at: float


class Observer:
    """Whose counter stands still. Pure: `now` is monotonic seconds of the one who looks."""

    def __init__(self, lease_s: float = LEASE_S) -> None:
        self._lease = lease_s
        self._signs: dict[uuid.UUID, Sign] = {}

    def look(self, beats: Iterable[Beat], now: float) -> list[Sign]:
        """The last signs of those that are to be claimed."""
        before, self._signs = self._signs, {}
        for beat in beats:
            seen = before.get(beat.boot)
            moved = seen is None or seen.beat.counter != beat.counter
            self._signs[beat.boot] = Sign(beat, now if seen is None or moved else seen.at)
        return [sign for sign in self._signs.values() if sign.beat.is_dead or sign.beat.is_frozen or now - sign.at >= self._lease]

    def forget(self) -> None:
        """Time everybody anew."""
        self._signs = {}


# -- rows --------------------------------------------------------------------------------------------------------------


def begin(*, boot: uuid.UUID, at: datetime, place: str = "") -> None:
    ProcessLease.objects.get_or_create(boot=boot, defaults={"born_at": at, "place": place})


def renew(*, boot: uuid.UUID) -> bool:
    """The process is well. False when it is taken for dead: its calls are no longer its own."""
    with connection.cursor() as cursor:
        cursor.execute(RENEW, [_as_stored(boot)])
        return bool(cursor.rowcount == 1)


def died(*, boot: uuid.UUID, at: datetime) -> None:
    """Whoever started this process, or it itself, says that it carries nothing any more."""
    lease, _ = ProcessLease.objects.get_or_create(boot=boot, defaults={"born_at": at, "dead_at": at})
    ProcessLease.objects.filter(pk=lease.pk, dead_at=None).update(dead_at=at)


def frozen(*, boot: uuid.UUID, at: datetime) -> None:
    """Nothing of it goes on, as whoever started it, or a thread of its own, sees. It takes that back itself if it can."""
    ProcessLease.objects.filter(boot=boot, dead_at=None).update(frozen_at=at)


def beats(*, but: uuid.UUID, is_gone: Callable[[str], bool] = lambda place: False) -> list[Beat]:
    """The leases of all others that nobody has claimed."""
    with connection.cursor() as cursor:
        cursor.execute(BEATS, [_as_stored(but)])
        rows = cursor.fetchall()
    return [
        Beat(uuid.UUID(str(boot)), counter, bool(is_dead) or is_gone(place), bool(is_frozen))
        for boot, counter, is_dead, is_frozen, place in rows
    ]


def _as_stored(boot: uuid.UUID) -> Any:
    return ProcessLease._meta.get_field("boot").get_db_prep_value(boot, connection)


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

    def is_left(self) -> QuerySet[CallSession]:
        """The call, as long as it is where it was."""
        mine = CallSession.objects.live().filter(call_sid=self.call_sid, epoch=self.epoch)
        return resuming.stream_to_come(mine) if self.to_come else left_alone(mine)


def claim(sign: Sign, *, by: uuid.UUID, at: datetime, now: float, asked_within_s: float = ASKED_WITHIN_S) -> list[Rescue] | None:
    """Take over the calls of a process, if it has given no sign since. None: somebody else did, or it has.

    `asked_within_s`: how long Twilio is left to come by itself where the process is known to be dead.
    """
    no_sign = Q(counter=sign.beat.counter) | Q(dead_at__isnull=False) | Q(frozen_at__isnull=False)
    lease = ProcessLease.objects.filter(no_sign, boot=sign.beat.boot, claimed_by=None)
    with transaction.atomic():
        if lease.update(claimed_by=by, claimed_at=at) == 0:
            return None
        held = CallSession.objects.live().filter(held_by=sign.beat.boot)
        calls = list(left_alone(held))
        held.update(held_by=by)
        ProcessLease.objects.filter(claimed_at__lt=at - KEPT_FOR).delete()
    due = now + asked_within_s if sign.beat.is_dead else now
    return [Rescue(call.call_sid, call.short_id, call.epoch, sign.at, due) for call in calls]


def left_alone(calls: QuerySet[CallSession]) -> QuerySet[CallSession]:
    """Those whose stream nobody carries and nobody has found anything else for: a person's talk is not to be disturbed."""
    dialled = Exists(OutboxCommand.objects.filter(call=OuterRef("pk"), verb="dial"))
    promised = Q(status=Status.TRANSFERRING) & ~dialled
    return calls.filter(Q(status__in=(Status.STREAMING, Status.RECOVERING)) | promised, stream_epoch=F("epoch"))


def rescue(job: Rescue, *, twilio: Twilio | None, clock: Callable[[], float] = time.monotonic) -> Rescue | None:
    """Send a call that is where it was to the resume door. Returns the job when it is to be tried again."""
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
    try:
        if twilio.redirect(job.call_sid, spoken.resume_url(job.epoch), account_sid):
            _note(job, "redirected", clock())
        return None  # else the caller has hung up: the sweep writes it down
    except TwilioError as problem:
        log.warning("Twilio did not take a redirect", extra={"call": job.short_id, "problem": str(problem), "status": problem.status})
    if job.tries >= len(TRY_AGAIN_S):
        return None
    return replace(job, tries=job.tries + 1, due=clock() + TRY_AGAIN_S[job.tries])


def _note(job: Rescue, how: str, now: float) -> None:
    detail = {"how": how, "ms": max(0, round((now - job.since) * 1000))}
    record_events(call_sid=job.call_sid, events=[NewEvent("call-rescued", Source.SYSTEM, timezone.now(), detail, now)])


# -- the process -------------------------------------------------------------------------------------------------------


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
        due = now + said_s + resuming.OPENS_WITHIN.total_seconds()
        self.look_after(Rescue(call.call_sid, call.short_id, call.epoch, now, due, to_come=True, is_told=False))


@cache
def the_life() -> Life:
    """This process's."""
    return Life()


class Lifeguard:
    """A thread that renews this process's lease and looks after others. `is_well` tells of its event loop.

    `twilio` gives the client to redirect with; None: there is no account. `place` names this process on its machine, and `is_gone`
    tells of any other place whether its process is known to be dead: then nobody waits for a lease.
    """

    def __init__(
        self,
        life: Life,
        *,
        boot: uuid.UUID,
        is_well: Callable[[], bool],
        twilio: Callable[[], Twilio | None],
        place: str = "",
        is_gone: Callable[[str], bool] = lambda place: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._place, self._is_gone = place, is_gone
        self._life, self._is_well, self._twilio, self._clock = life, is_well, twilio, clock
        self._life.boot = self._boot = boot
        self._life.look_after, self._life.clock = lambda job: self._add([job]), clock
        self._begun = False
        self._asked_within_s = 0.0  # who is dead when this process begins died before it was started: Twilio has had its time
        self._renewed_at = self._turned_at = float("-inf")
        self._observer = Observer()
        self._rescues: list[Rescue] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lifeguard", daemon=True)
        self._hands = Hands(REDIRECTS_AT_ONCE, room=REDIRECTS_THAT_WAIT, name="rescue")

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, within_s: float = 2.0) -> None:
        """The process ends and carries nothing any more: what it leaves is for others at once."""
        self._stopping.set()
        self._thread.join(within_s)
        self._hands.close()

    # -- in the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._safely(self.turn)
            self._safely(self._get_ready)
            while not self._stopping.wait(self._pause()):
                self._safely(self.turn)
            self._safely(self._say_goodbye)
        finally:
            connections.close_all()

    def _get_ready(self) -> None:
        """A client is slow when it is made."""
        self._twilio()

    def _pause(self) -> float:
        with self._lock:
            due = min((job.due for job in self._rescues), default=float("inf"))
        return min(LOOK_EVERY_S, max(0.01, due - self._clock()))

    def _safely(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as problem:  # whatever the database raises: this thread must live on
            self._observer.forget()
            log.warning("A lease could not be looked after", extra={"problem": type(problem).__name__})
        finally:
            close_old_connections()

    def turn(self) -> None:
        """Renew, look, claim, and send what is due on its way. Raises what the database raises."""
        if not self._renewed():
            return
        silent, asked_within_s = self._silent(), self._asked_within_s
        self._asked_within_s = ASKED_WITHIN_S
        for sign in silent:
            jobs = claim(sign, by=self._boot, at=timezone.now(), now=self._clock(), asked_within_s=asked_within_s)
            if jobs is not None:
                log.error("A process is gone: its calls are looked after", extra={"calls": len(jobs)})
                self._add(jobs)
        self._send_due()

    def _renewed(self) -> bool:
        """Renew when it is time. False while this process may judge nobody."""
        now = self._clock()
        was_late, self._turned_at = now - self._turned_at > LATE_S, now
        if self._begun and now - self._renewed_at < RENEW_EVERY_S:
            return True
        if not self._is_well():
            self._observer.forget()
            if self._begun and not was_late:  # where all of us stood still, the loop has not had its turn yet
                frozen(boot=self._boot, at=timezone.now())
            return False
        if not self._begun or not renew(boot=self._boot):
            if self._begun:
                log.error("This process was taken for dead: it goes on with a lease of its own")
                self._life.boot = self._boot = uuid.uuid4()
            begin(boot=self._boot, at=timezone.now(), place=self._place)
            self._begun = True
        before, self._renewed_at = self._renewed_at, self._clock()
        if self._renewed_at - before > LATE_S:
            self._observer.forget()
        return True

    def _silent(self) -> Collection[Sign]:
        asked = self._clock()
        seen = beats(but=self._boot, is_gone=self._is_gone)
        now = self._clock()
        if now - asked > LATE_S:
            self._observer.forget()
        return self._observer.look(seen, now)

    def _send_due(self) -> None:
        now = self._clock()
        with self._lock:
            due = [job for job in self._rescues if job.due <= now]
            self._rescues = [job for job in self._rescues if job.due > now]
        refused = [job for job in due if self._hands.take(self._rescue, job) is None]
        self._add(replace(job, due=now + LOOK_EVERY_S) for job in refused)

    def _rescue(self, job: Rescue) -> None:
        try:
            again = rescue(job, twilio=self._twilio(), clock=self._clock)
        except Exception as problem:  # nobody awaits this thread; the row says whose the call is, and another try is made
            log.error("A rescue failed", extra={"call": job.short_id, "problem": type(problem).__name__})
            again = replace(job, tries=job.tries + 1, due=self._clock() + 1.0) if job.tries < len(TRY_AGAIN_S) else None
        finally:
            close_old_connections()
        if again is not None:
            self._add([again])

    def _add(self, jobs: Iterable[Rescue]) -> None:
        with self._lock:
            self._rescues.extend(jobs)

    def _say_goodbye(self) -> None:
        if self._begun:
            died(boot=self._boot, at=timezone.now())
