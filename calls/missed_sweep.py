"""The sweep, when nobody does it: beat is dead, or the workers, or the broker between them.

Each sweep writes down when it began. A serving process that finds the next one late does it itself, without the broker; of
several that see it at once one has the turn. So a call whose end nobody told has its row in two minutes all the same.

When the last sweep was much too long ago, or is still to come, the clock has jumped, or the whole house was away. Live calls
have had no time to give a sign of life since, so that one sweep holds no silence against them, and takes neither a stream nor an
agent that is to come for late. Nor does any while signs of life wait in a spool of this machine: the database has just come back,
and how those calls ended is not written down yet.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial

from django.conf import settings

from agents import account
from bridge.errors import VapiError
from calls import by_heart, inbox, lost_reports, orphans, sessions
from calls.models import LastRun, VapiAccount
from calls.sweep_steps import STEPS, Sweep, take

log = logging.getLogger(__name__)

SWEEP = "sweep"
LATE = timedelta(seconds=15)
MOST_MISSED = 5
ASKED_S = 10.0  # of each step, at Vapi: the thread that stores what a dead process kept sweeps too


def somebody_sweeps(*, now: datetime) -> bool:
    """Whoever begins a sweep says so here. True when they may judge calls by their silence."""
    last = LastRun.objects.filter(name=SWEEP).first()
    LastRun.objects.update_or_create(name=SWEEP, defaults={"at": now})
    return (last is None or not _has_jumped(last.at, now)) and not by_heart.is_to_be_told(now=now)


def sweep_if_nobody_does(*, now: datetime) -> bool:
    """True when the next sweep was late, and this call did it."""
    last, is_first = LastRun.objects.get_or_create(name=SWEEP, defaults={"at": now})
    late = timedelta(seconds=settings.SWEEP_SECONDS) + LATE
    if is_first or abs(now - last.at) < late or not LastRun.objects.filter(pk=last.pk, at=last.at).update(at=now):
        return False
    log.error("Nobody sweeps: are celery beat and a worker running? This process does it", extra={"last": last.at.isoformat()})
    jumped = _has_jumped(last.at, now)
    _sweep(now, judges=not jumped and not by_heart.is_to_be_told(now=now), jumped=jumped)
    return True


def clock_has_jumped(*, now: datetime) -> bool:
    """Since the last sweep began; the next one takes the new time for granted."""
    last = LastRun.objects.filter(name=SWEEP).first()
    return last is not None and _has_jumped(last.at, now)


def _has_jumped(last: datetime, now: datetime) -> bool:
    return abs(now - last) > MOST_MISSED * timedelta(seconds=settings.SWEEP_SECONDS)


def _sweep(now: datetime, *, judges: bool, jumped: bool) -> None:
    """Here two more steps belong to it, which have a schedule of their own where beat and workers live."""
    alone = (_reprocess_inbox,) if jumped else (_end_orphans, _reprocess_inbox)
    take((*STEPS, *alone), Sweep(now, judges, partial(_fetch_report, now), partial(_end_session, now), ASKED_S))


def _fetch_report(now: datetime, pk: int) -> None:
    with suppress(VapiError):
        lost_reports.fetch(vapi_session_pk=pk, client=account.client(sessions.account_of(pk=pk)), at=now)


def _end_session(now: datetime, pk: int) -> None:
    with suppress(VapiError):
        sessions.end_session(pk=pk, client=account.client(sessions.account_of(pk=pk)), at=now)


def _end_orphans(sweep: Sweep) -> None:
    for each in VapiAccount.values:
        with suppress(VapiError):
            orphans.end_orphans(client=account.client(each), now=sweep.now, account=each, ends_s=sweep.asked_s)


def _reprocess_inbox(sweep: Sweep) -> None:
    for pk in inbox.inbox_to_do(now=sweep.now):
        inbox.reprocess(pk=pk, at=sweep.now)
