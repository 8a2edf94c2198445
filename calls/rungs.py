"""The lowest rung of the ladder a call has stood on: it only ever gets lower."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from calls.history import NewEvent, record_events
from calls.models import CallSession, Rung, Source


def lower_rung(*, call_sid: str, rung: Rung, why: str, at: datetime) -> bool:
    """Note that a call stands on a lower rung of the ladder than ever before. True when it is news."""
    with transaction.atomic():
        before = CallSession.objects.filter(call_sid=call_sid).values_list("rung", flat=True).first()
        if CallSession.objects.filter(call_sid=call_sid, rung__lt=rung).update(rung=rung) == 0:
            return False
        detail = {"from": before, "to": str(rung.value), "why": why}
        record_events(call_sid=call_sid, events=[NewEvent("rung-changed", Source.SYSTEM, at, detail)])
    return True
