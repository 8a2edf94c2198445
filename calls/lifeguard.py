"""The thread of a serving process that renews its lease and looks after the calls of others, and one for when that waits in vain.

A process whose event loop stands still, while its threads go on, says so itself, as its parent does of one that answers nothing at all.

A process that could not raise its own counter has no right to judge others by theirs: it starts to time them anew. So an
outage of the database kills nobody. A database that says nothing keeps that thread waiting for longer than a caller bears silence:
the other one looks meanwhile, and asks the disk alone (`calls.rescue_by_heart`).
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import replace

from django.db import Error, close_old_connections, connections
from django.utils import timezone

from calls import leases, rescue, rescue_by_heart
from calls.hands import Hands
from calls.leases import RENEW_EVERY_S, Observer, Sign
from calls.rescue import ASKED_WITHIN_S, LOOK_EVERY_S, TRY_AGAIN_S, Life, Rescue, Twilio

log = logging.getLogger(__name__)

LATE_S = 2 * RENEW_EVERY_S  # a renewal that took longer says that something is wrong with us, or with the database
REDIRECTS_AT_ONCE = 8
REDIRECTS_THAT_WAIT = 100  # twice as many as a process that died is meant to have carried


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
        self._answered_at = clock()  # by the database
        self._observer = Observer()
        self._rescues: list[Rescue] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lifeguard", daemon=True)
        self._meanwhile = threading.Thread(target=self._watch, name="lifeguard-by-heart", daemon=True)
        self._hands = Hands(REDIRECTS_AT_ONCE, room=REDIRECTS_THAT_WAIT, name="rescue")

    def start(self) -> None:
        self._thread.start()
        self._meanwhile.start()

    def stop(self, *, within_s: float = 2.0) -> None:
        """The process ends and carries nothing any more: what it leaves is for others at once."""
        self._stopping.set()
        self._thread.join(within_s)
        self._meanwhile.join(within_s)
        self._hands.close()

    # -- in the threads --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._turn()
            self._safely(self._get_ready)
            while not self._stopping.wait(self._pause()):
                self._turn()
            self._safely(self._say_goodbye)
        finally:
            connections.close_all()

    def _watch(self) -> None:
        while not self._stopping.wait(LOOK_EVERY_S):
            if self._is_unanswered():
                self._safely(self.turn_by_heart)

    def _is_unanswered(self) -> bool:
        """The database has said nothing for longer than it takes when all is well."""
        return self._clock() - self._answered_at > LATE_S

    def _get_ready(self) -> None:
        """A client is slow when it is made."""
        self._twilio()

    def _pause(self) -> float:
        with self._lock:
            due = min((job.due for job in self._rescues), default=float("inf"))
        return min(LOOK_EVERY_S, max(0.01, due - self._clock()))

    def _safely(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except Exception as problem:  # whatever the database raises: this thread must live on
            self._observer.forget()
            log.warning("A lease could not be looked after", extra={"problem": type(problem).__name__})
            return False
        finally:
            close_old_connections()
        return True

    def _turn(self) -> None:
        if not self._safely(self.turn):
            self._safely(self.turn_by_heart)

    def turn_by_heart(self) -> None:
        """The database cannot be asked: whom a process of this machine left in silence its marks say."""
        if self._is_well():
            jobs = rescue_by_heart.left(is_gone=self._is_gone, now=self._clock(), here=self._place)
            if jobs:
                log.error("A process is gone, and no row can be read: its calls are looked after by heart", extra={"calls": len(jobs)})
            self._add(jobs)
        self._send_due()

    def turn(self) -> None:
        """Renew, look, claim, and send what is due on its way. Raises what the database raises."""
        if not self._renewed():
            return
        silent, asked_within_s = self._silent(), self._asked_within_s
        self._answered_at = self._clock()
        self._asked_within_s = ASKED_WITHIN_S
        for sign in silent:
            jobs = rescue.claim(sign, by=self._boot, at=timezone.now(), now=self._clock(), asked_within_s=asked_within_s)
            if jobs is not None:
                log.error("A process is gone: its calls are looked after", extra={"calls": len(jobs)})
                self._add(jobs)
        if silent:
            rescue_by_heart.forget(is_gone=self._is_gone)
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
                leases.frozen(boot=self._boot, at=timezone.now())
            return False
        if not self._begun or not leases.renew(boot=self._boot):
            if self._begun:
                log.error("This process was taken for dead: it goes on with a lease of its own")
                self._life.boot = self._boot = uuid.uuid4()
            leases.begin(boot=self._boot, at=timezone.now(), place=self._place)
            self._begun = True
        before, self._renewed_at = self._renewed_at, self._clock()
        if self._renewed_at - before > LATE_S:
            self._observer.forget()
        return True

    def _silent(self) -> Collection[Sign]:
        asked = self._clock()
        seen = leases.beats(but=self._boot, is_gone=self._is_gone)
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
            again = self._sent(job)
        except Exception as problem:  # nobody awaits this thread; the row says whose the call is, and another try is made
            log.error("A rescue failed", extra={"call": job.short_id, "problem": type(problem).__name__})
            again = replace(job, tries=job.tries + 1, due=self._clock() + 1.0) if job.tries < len(TRY_AGAIN_S) else None
        finally:
            close_old_connections()
        if again is not None:
            self._add([again])

    def _sent(self, job: Rescue) -> Rescue | None:
        if not (job.account_sid and self._is_unanswered()):  # else its row would be asked in vain, while the caller waits
            with suppress(Error):
                return rescue.rescue(job, twilio=self._twilio(), clock=self._clock)
        return rescue_by_heart.rescue(job, twilio=self._twilio(), clock=self._clock)

    def _add(self, jobs: Iterable[Rescue]) -> None:
        with self._lock:
            self._rescues.extend(jobs)

    def _say_goodbye(self) -> None:
        if self._begun:
            leases.died(boot=self._boot, at=timezone.now())
