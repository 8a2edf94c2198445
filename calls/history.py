"""Writing down what was said, heard and done: events and lines.

Rows are only added. The numbers of a call's events have no gap: one UPDATE reserves them and the same transaction fills
them. Everything that may come twice has a unique key, and the second one is told so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F, Value
from django.db.models.functions import Greatest

from calls import publisher
from calls.clock import CallClock
from calls.finals import NEARLY_MS, SAME_TURN_MS, Final, retold
from calls.heard import share_out
from calls.models import CallEvent, CallSession, Heard, Role, Source, TranscriptLine
from calls.redaction import redact, redact_body
from calls.words import words


@dataclass(frozen=True, slots=True)
class NewEvent:
    """A milestone to be written. `now` is the moment in monotonic seconds of this machine, when the writer measured it."""

    kind: str
    source: str
    at: datetime
    detail: Mapping[str, Any] = field(default_factory=dict)
    now: float | None = None


def record_events(*, call_sid: str, events: Sequence[NewEvent], epoch: int | None = None) -> int:
    """Append events to a call's log. Returns the number of the last one; 0 when nothing was written.

    With `epoch`, only while that epoch owns the stream: a stale bridge writes nothing. An event from outside is also a
    sign of life. Pages are told after commit.
    """
    if not events:
        return 0
    calls = CallSession.objects.filter(call_sid=call_sid)
    if epoch is not None:
        calls = calls.filter(epoch=epoch)
    with transaction.atomic(savepoint=False):  # nothing here fails for a reason somebody would go on after
        reserved: dict[str, Any] = {"last_event_seq": F("last_event_seq") + len(events)}
        if any(event.source != Source.SYSTEM for event in events):
            reserved["last_seen_at"] = Greatest(F("last_seen_at"), Value(max(event.at for event in events)))
        if calls.update(**reserved) == 0:
            return 0
        call = CallSession.objects.get(call_sid=call_sid)
        clock = CallClock(call.clock_boot, call.clock_origin_ms, call.answered_at or call.started_at)
        first = call.last_event_seq - len(events) + 1
        CallEvent.objects.bulk_create(
            CallEvent(
                call=call,
                seq=first + place,
                source=event.source,
                kind=event.kind,
                at=event.at,
                ms=clock.ms(at=event.at, now=event.now),
                detail=redact_body(dict(event.detail)),
            )
            for place, event in enumerate(events)
        )
        if any(event.kind == "agent-turn-ended" for event in events):
            mark_heard(call=call)
        transaction.on_commit(partial(publisher.rows, call.public_id, call.last_event_seq))
    return call.last_event_seq


def pages_look(*, call_sid: str) -> None:
    """Have the pages that show this call look at its row again, after commit: it changed without an event."""
    public_id, seq = CallSession.objects.values_list("public_id", "last_event_seq").get(call_sid=call_sid)
    transaction.on_commit(partial(publisher.rows, public_id, seq))


def add_line(*, call: CallSession, vapi_call_id: str, role: str, text: str, vendor_ms: int, at: datetime, n: int) -> bool:
    """Keep a final line. True when it is new; the vendor may tell it twice, by webhook and retry.

    `vendor_ms` is the vendor's own time in epoch milliseconds (ours for lines of our own); `n` the Vapi session's number.
    Lines are welcome after the call's end too, and in any order.
    """
    try:
        with transaction.atomic():
            record_events(call_sid=call.call_sid, events=[_told(vapi_call_id, role, text, at)])  # first: others wait for us there
            _keep(call=call, vapi_call_id=vapi_call_id, role=role, text=text, vendor_ms=vendor_ms, at=at, n=n)
            if vapi_call_id:
                _settle_retold(call=call, vapi_call_id=vapi_call_id, ms=vendor_ms)
            if role == Role.ASSISTANT:
                mark_heard(call=call)
    except IntegrityError:
        return False
    return True


def keep_line(*, call: CallSession, vapi_call_id: str, role: str, text: str, vendor_ms: int, at: datetime, n: int) -> NewEvent:
    """The row of a line alone; the caller records the event returned, with others of its own. Raises IntegrityError for a known line."""
    _keep(call=call, vapi_call_id=vapi_call_id, role=role, text=text, vendor_ms=vendor_ms, at=at, n=n)
    return _told(vapi_call_id, role, text, at)


def line_hash(text: str) -> str:
    """What makes two lines of one moment the same."""
    return hashlib.sha256(text.encode()).hexdigest()


def _keep(*, call: CallSession, vapi_call_id: str, role: str, text: str, vendor_ms: int, at: datetime, n: int) -> None:
    said = redact(text)
    TranscriptLine.objects.create(
        call=call, n=n, vapi_call_id=vapi_call_id, role=role, said=said, vendor_ms=vendor_ms, text_hash=line_hash(said), at=at
    )


def _told(vapi_call_id: str, role: str, text: str, at: datetime) -> NewEvent:
    return NewEvent("transcript-final", Source.VAPI if vapi_call_id else Source.SYSTEM, at, {"role": role, "text": text})


def _settle_retold(*, call: CallSession, vapi_call_id: str, ms: int) -> None:
    """Say of the finals around a new one which have their words in another one too."""
    reach = SAME_TURN_MS + NEARLY_MS
    told = TranscriptLine.everything.filter(call=call, vapi_call_id=vapi_call_id, from_report=False)
    around = list(told.filter(vendor_ms__range=(ms - 2 * reach, ms + 2 * reach)))
    hidden = retold([Final(line.pk, line.role, line.vendor_ms, words(line.said)) for line in around])
    for line in around:  # farther ones may depend on lines we have not read, and do not depend on the new one
        if abs(line.vendor_ms - ms) <= reach and line.retold != (line.pk in hidden):
            TranscriptLine.everything.filter(pk=line.pk).update(retold=line.pk in hidden)


def mark_heard(*, call: CallSession) -> None:
    """Say of the lines of the newest ended turn how much of them was heard.

    The bridge's word on a turn and the vendor's line come in any order, so both ask for this; it gives the same answer
    however often it is asked. A turn's lines are those that came from its start of speech to the next one's.
    """
    events = CallEvent.objects.filter(call=call)
    turn = events.filter(kind="agent-turn-ended").order_by("-at", "-seq").first()
    if turn is None or not turn.detail.get("interrupted"):
        return
    starts = events.filter(kind="agent-speech-started")
    began = starts.filter(at__lte=turn.at).order_by("-at").first()
    following = starts.filter(at__gt=turn.at).order_by("at").first()
    told = TranscriptLine.objects.filter(call=call, role=Role.ASSISTANT, from_report=False)
    lines = told.filter(at__gte=began.at if began else call.started_at)
    if following is not None:
        lines = lines.filter(at__lt=following.at)
    spoken = list(lines)
    shares = share_out([line.said for line in spoken], said_ms=turn.detail["said_ms"], heard_ms=turn.detail["heard_ms"])
    for line, (heard, heard_text) in zip(spoken, shares, strict=True):
        line.heard, line.heard_text = Heard(heard), heard_text
    TranscriptLine.objects.bulk_update(spoken, ["heard", "heard_text"])
