"""The lowest rung of the ladder a call has stood on: it only ever gets lower."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from calls.history import NewEvent, record_events
from calls.models import CallSession, Rung, Source


def lower_rung(*, call_sid: str, rung: Rung, why: str, at: datetime) -> bool:
    """Note that a call stands on a lower rung of the ladder than ever before. True when it is news."""
    with transaction.atomic():
        return bool(record_events(call_sid=call_sid, events=lowered(call_sid=call_sid, rung=rung, why=why, at=at)))


def lowered(*, call_sid: str, rung: Rung, why: str, at: datetime) -> list[NewEvent]:
    """As `lower_rung`, for whoever has more to record of the same moment, in the same transaction: the event of it, if it is news."""
    calls = CallSession.objects.filter(call_sid=call_sid)
    before = calls.values_list("rung", flat=True).first()
    if calls.filter(rung__lt=rung).update(rung=rung) == 0:
        return []
    return [NewEvent("rung-changed", Source.SYSTEM, at, {"from": before, "to": str(rung.value), "why": why})]
