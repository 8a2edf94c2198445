"""Sound files at Twilio: that they are being made, and what became of them. Kept by id; the sound itself stays there.

Twilio tells of one recording by several ways and in any order, so a row only rises: from being recorded to failed, empty
or ready, and to its longest length. Whoever writes here has the call's row first (`evidence.hold`).
"""

from __future__ import annotations

from datetime import datetime

from django.db import transaction
from django.db.models import F, Value
from django.db.models.functions import Greatest

from calls import vendor_erasures
from calls.history import NewEvent, pages_look, record_events
from calls.models import CallSession, Recording, RecordingKind, RecordingState, Source, VendorErasure

RISING = (RecordingState.IN_PROGRESS, RecordingState.FAILED, RecordingState.ABSENT, RecordingState.COMPLETED)


def begun(*, call: CallSession, sid: str, kind: RecordingKind, at: datetime) -> bool:
    """Twilio records. True for the first word of this recording."""
    return _kept(call, sid, kind, RecordingState.IN_PROGRESS, 0, at)


def ready(*, call: CallSession, sid: str, kind: RecordingKind, state: RecordingState, seconds: int, at: datetime) -> bool:
    """What became of a recording, `seconds` long. True when that is news: it is the first word, or a better one."""
    return _kept(call, sid, kind, state, seconds, at)


def _kept(call: CallSession, sid: str, kind: RecordingKind, state: RecordingState, seconds: int, at: datetime) -> bool:
    with transaction.atomic():
        row, is_new = Recording.objects.get_or_create(
            sid=sid, defaults={"call": call, "kind": kind, "state": state, "seconds": seconds, "at": at}
        )
        if row.call_id != call.pk:  # nobody's business but the other call's
            return False
        was_message = not is_new and _is_message(row.kind, row.state, row.seconds)
        lower = RISING[: RISING.index(state)]
        risen = Recording.objects.filter(pk=row.pk, state__in=lower).update(state=state) == 1
        if not is_new:
            Recording.objects.filter(pk=row.pk).update(seconds=Greatest(F("seconds"), Value(seconds)))
        if _is_unwanted(row, call):
            Recording.objects.filter(pk=row.pk, erased_at=None).update(erased_at=at)
            if state != RecordingState.IN_PROGRESS:  # else it is stopped first
                kind_of_it = VendorErasure.Kind.TWILIO_RECORDING
                vendor_erasures.want_gone(kind=kind_of_it, ids=[sid], account_sid=call.account_sid, at=at)
        if is_new and kind == RecordingKind.CALL:
            record_events(call_sid=call.call_sid, events=[NewEvent("recording-started", Source.TWILIO, at)])
        row.refresh_from_db()
        if _is_message(row.kind, row.state, row.seconds) and not was_message:
            event = NewEvent("voicemail-recorded", Source.TWILIO, at, {"seconds": row.seconds})
            record_events(call_sid=call.call_sid, events=[event])
        elif risen:
            pages_look(call_sid=call.call_sid)
    return is_new or risen


def _is_unwanted(row: Recording, call: CallSession) -> bool:
    """Nobody shall hear this: the call's sound was erased, or its caller does not want to be recorded. Needs `evidence.hold`."""
    unrecorded = call.unrecorded_at is not None and row.kind == RecordingKind.CALL
    return call.sound_erased_at is not None or row.erased_at is not None or unrecorded


def _is_message(kind: str, state: str, seconds: int) -> bool:
    return kind == RecordingKind.VOICEMAIL and state == RecordingState.COMPLETED and seconds > 0
