"""Calls back: who was promised one, by when, and that somebody made it. One promise per call, however often it is given."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from django.db import transaction

from agents.hours import Hours, after, is_open, of, said
from calls.history import NewEvent, record_events
from calls.models import CallbackRequest, CallSession, Source
from calls.redaction import redact

WITHOUT_A_LINE = 4  # hours, when the line that promised is gone
QUARTER = timedelta(minutes=15)
E164 = re.compile(r"\+[1-9][0-9]{1,14}", re.ASCII)


def hours(call: CallSession) -> int:
    """Within how many hours this call's line calls back."""
    return call.line.callback_hours if call.line else WITHOUT_A_LINE


def may_be_called(call: CallSession) -> bool:
    """Callers may withhold their number: Twilio then sends a word in its place."""
    return E164.fullmatch(call.from_number) is not None


def due(call: CallSession, *, at: datetime) -> datetime:
    """By when somebody calls back who is promised it now: only hours of work count, and a time of day is a full quarter."""
    at_work = of(call.line)
    by = after(at_work, at, timedelta(hours=hours(call)))
    return _next_quarter(by, at_work) if at_work.zone else by


def _next_quarter(moment: datetime, at_work: Hours) -> datetime:
    """Unless it would be after work."""
    over = timedelta(minutes=moment.minute % 15, seconds=moment.second, microseconds=moment.microsecond)
    full = moment + QUARTER - over if over else moment
    return full if is_open(at_work, full - timedelta(seconds=1)) else moment.replace(second=0, microsecond=0)


def when(call: CallSession, by: datetime, *, at: datetime) -> str:
    """The promise in words to be said aloud: `by 3 pm today` where the line has a clock, else `within 4 hours`."""
    zone = of(call.line).zone
    if zone is not None:
        return f"by {said(by, at, zone)}"
    return "within one hour" if hours(call) == 1 else f"within {hours(call)} hours"


def promise(*, call: CallSession, at: datetime) -> CallbackRequest:
    """Have the caller called back; the promise of before when there is one."""
    with transaction.atomic():
        request, is_new = CallbackRequest.objects.get_or_create(call=call, defaults={"asked_at": at, "due_at": due(call, at=at)})
        if is_new:
            event = NewEvent("callback-promised", Source.SYSTEM, at, {"within_hours": hours(call)})
            record_events(call_sid=call.call_sid, events=[event])
    return request


def claim(*, pk: int, by: str, at: datetime) -> bool:
    """`by` (a log-in) will call back, so that nobody else does. True for the one who said so first."""
    with transaction.atomic():
        if CallbackRequest.objects.filter(pk=pk, done_at=None, claimed_at=None).update(claimed_at=at, claimed_by=by[:150]) == 0:
            return False
        call_sid = CallSession.objects.values_list("call_sid", flat=True).get(callback=pk)
        record_events(call_sid=call_sid, events=[NewEvent("callback-claimed", Source.HUMAN, at, {"by": by[:150]})])
    return True


def done(*, pk: int, by: str, note: str, at: datetime) -> bool:
    """`by` (a log-in) has called back, or says why not in `note`. True for the one who did it first."""
    with transaction.atomic():
        to_do = CallbackRequest.objects.filter(pk=pk, done_at=None)
        if to_do.update(done_at=at, done_by=by[:150], note=redact(note)[:500]) == 0:
            return False
        call_sid = CallSession.objects.values_list("call_sid", flat=True).get(callback=pk)
        record_events(call_sid=call_sid, events=[NewEvent("callback-done", Source.HUMAN, at, {"by": by[:150]})])
    return True
