"""Calls back: who was promised one, by when, and that somebody made it. One promise per call, however often it is given."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction

from calls.history import NewEvent, record_events
from calls.models import CallbackRequest, CallSession, Source
from calls.redaction import redact

WITHOUT_A_LINE = 4  # hours, when the line that promised is gone


def hours(call: CallSession) -> int:
    """Within how many hours this call's line calls back."""
    return call.line.callback_hours if call.line else WITHOUT_A_LINE


def promise(*, call: CallSession, at: datetime) -> CallbackRequest:
    """Have the caller called back; the promise of before when there is one."""
    with transaction.atomic():
        due_at = at + timedelta(hours=hours(call))
        request, is_new = CallbackRequest.objects.get_or_create(call=call, defaults={"asked_at": at, "due_at": due_at})
        if is_new:
            event = NewEvent("callback-promised", Source.SYSTEM, at, {"within_hours": hours(call)})
            record_events(call_sid=call.call_sid, events=[event])
    return request


def done(*, pk: int, by: str, note: str, at: datetime) -> bool:
    """`by` (a log-in) has called back, or says why not in `note`. True for the one who did it first."""
    with transaction.atomic():
        to_do = CallbackRequest.objects.filter(pk=pk, done_at=None)
        if to_do.update(done_at=at, done_by=by[:150], note=redact(note)[:500]) == 0:
            return False
        call_sid = CallSession.objects.values_list("call_sid", flat=True).get(callback=pk)
        record_events(call_sid=call_sid, events=[NewEvent("callback-done", Source.HUMAN, at, {"by": by[:150]})])
    return True
