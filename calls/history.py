"""Writing down what was said, heard and done: events, lines, webhook bodies, tool runs.

Rows are only added. The numbers of a call's events have no gap: one UPDATE reserves them and the same transaction fills
them. Everything that may come twice has a unique key, and the second one is told so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F, Value
from django.db.models.functions import Greatest

from calls import publisher
from calls.clock import CallClock
from calls.heard import share_out
from calls.models import CallEvent, CallSession, Heard, InboxMessage, Role, Source, ToolRun, TranscriptLine, VapiSession
from calls.redaction import redact, redact_body

INBOX_PATIENCE = timedelta(seconds=5)
INBOX_BATCH = 500


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
    """Keep a final line. True when it is new; the vendor may tell it twice, by socket, webhook and retry.

    `vendor_ms` is the vendor's own time in epoch milliseconds (ours for lines of our own); `n` the Vapi session's number.
    Lines are welcome after the call's end too.
    """
    try:
        with transaction.atomic():
            told = keep_line(call=call, vapi_call_id=vapi_call_id, role=role, text=text, vendor_ms=vendor_ms, at=at, n=n)
            record_events(call_sid=call.call_sid, events=[told])
            if role == Role.ASSISTANT:
                mark_heard(call=call)
    except IntegrityError:
        return False
    return True


def keep_line(*, call: CallSession, vapi_call_id: str, role: str, text: str, vendor_ms: int, at: datetime, n: int) -> NewEvent:
    """The row of a line alone; the caller records the event returned, with others of its own. Raises IntegrityError for a known line."""
    said = redact(text)
    TranscriptLine.objects.create(
        call=call,
        n=n,
        vapi_call_id=vapi_call_id,
        role=role,
        said=said,
        vendor_ms=vendor_ms,
        text_hash=hashlib.sha256(said.encode()).hexdigest(),
        at=at,
    )
    return NewEvent("transcript-final", Source.VAPI if vapi_call_id else Source.SYSTEM, at, {"role": role, "text": text})


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
    lines = TranscriptLine.objects.filter(call=call, role=Role.ASSISTANT, at__gte=began.at if began else call.started_at)
    if following is not None:
        lines = lines.filter(at__lt=following.at)
    spoken = list(lines)
    shares = share_out([line.said for line in spoken], said_ms=turn.detail["said_ms"], heard_ms=turn.detail["heard_ms"])
    for line, (heard, heard_text) in zip(spoken, shares, strict=True):
        line.heard, line.heard_text = Heard(heard), heard_text
    TranscriptLine.objects.bulk_update(spoken, ["heard", "heard_text"])


def store_inbox(*, source: str, key: str, kind: str, body: Any, vapi_call_id: str, at: datetime) -> InboxMessage | None:
    """Keep a webhook body before its 200 is sent. None when this key was stored before: there is nothing more to do.

    `key` is the SHA-256 of the source and the raw body, in hex. The call is found by its Vapi session when that is
    known already; Vapi's first webhooks may be faster than the answer that tells us its id.
    """
    session = VapiSession.objects.filter(vapi_call_id=vapi_call_id).first() if vapi_call_id else None
    try:
        with transaction.atomic():
            return InboxMessage.objects.create(
                source=source,
                key=key,
                kind=kind[:60],
                body=redact_body(body),
                vapi_call_id=vapi_call_id,
                call_id=session.call_id if session else None,
                received_at=at,
            )
    except IntegrityError:
        return None


def inbox_done(*, pk: int, at: datetime, call: CallSession | None = None, problem: str = "") -> bool:
    """Mark a body as processed. True for the one that did it; `problem` is our own sentence, never the body's words."""
    done: dict[str, Any] = {"processed_at": at, "problem": problem[:200]}
    if call is not None:
        done["call"] = call
    return InboxMessage.objects.filter(pk=pk, processed_at=None).update(**done) == 1


def inbox_to_do(*, now: datetime) -> list[int]:
    """Bodies that should have been processed by now, oldest first, as primary keys."""
    waiting = InboxMessage.objects.filter(processed_at=None, received_at__lt=now - INBOX_PATIENCE)
    return list(waiting.values_list("pk", flat=True)[:INBOX_BATCH])


def begin_tool(*, call: CallSession, tool_call_id: str, name: str, arguments: Any, at: datetime) -> tuple[ToolRun, bool]:
    """Enter a tool call of the model. The flag is True for the one who is to run it; all others wait for, or read, its result."""
    try:
        with transaction.atomic():
            run = ToolRun.objects.create(
                call=call, tool_call_id=tool_call_id, name=name[:64], arguments=redact_body(arguments), started_at=at
            )
            record_events(call_sid=call.call_sid, events=[NewEvent("tool-called", Source.VAPI, at, {"name": name[:64]})])
    except IntegrityError:
        return ToolRun.objects.get(tool_call_id=tool_call_id), False
    return run, True


def finish_tool(*, tool_call_id: str, result: str, problem: str, at: datetime) -> bool:
    """Keep a tool's answer. True for the first; the answer never changes after that."""
    with transaction.atomic():
        unfinished = ToolRun.objects.filter(tool_call_id=tool_call_id, ended_at=None)
        if unfinished.update(result=redact(result), problem=redact(problem)[:200], ended_at=at) == 0:
            return False
        run = ToolRun.objects.select_related("call").get(tool_call_id=tool_call_id)
        detail = {"name": run.name, "ms": max(0, int((at - run.started_at).total_seconds() * 1000))}
        if problem:
            detail["problem"] = problem
        record_events(call_sid=run.call.call_sid, events=[NewEvent("tool-answered", Source.TOOL, at, detail)])
    return True
