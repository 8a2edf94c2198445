"""Writing down what was said, heard and done: events and lines.

Rows are only added. The numbers of a call's events have no gap: one UPDATE reserves them and the same transaction fills
them. Everything that may come twice has a unique key, and the second one is told so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial, reduce
from operator import or_
from typing import Any

from django.db import IntegrityError, connection, transaction
from django.db.models import BigIntegerField, F, Min, Q, QuerySet
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast
from django.utils.crypto import salted_hmac

from calls import agent_turns, publisher, split_numbers, unsaid
from calls.agent_turns import AgentTurn
from calls.clock import CallClock
from calls.discretion import rules_of
from calls.finals import NEARLY_MS, SAME_TURN_MS, Final, retold
from calls.heard import share_out
from calls.models import CallEvent, CallSession, Heard, Role, Source, TranscriptLine
from calls.redaction import redact, redact_body, redact_growing
from calls.words import words

OF_A_WRITER = (
    *("call_sid", "epoch", "public_id", "last_event_seq", "clock_boot", "clock_origin_ms", "answered_at", "started_at"),
    *("version_id", "erased_at", "unrecorded_at"),
)

RESERVE = (
    "UPDATE calls_callsession SET last_event_seq = last_event_seq + %s, "
    "last_seen_at = CASE WHEN last_seen_at < %s THEN %s ELSE last_seen_at END WHERE call_sid = %s AND epoch = COALESCE(%s, epoch)"
)
NEVER_SEEN = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class NewEvent:
    """A milestone to be written. `now` is the moment in monotonic seconds of this machine, when the writer measured it."""

    kind: str
    source: str
    at: datetime
    detail: Mapping[str, Any] = field(default_factory=dict)
    now: float | None = None


@dataclass(frozen=True, slots=True)
class NewEvents:
    """What is new of one call. With `epoch`, only while that epoch owns the stream: a stale bridge writes nothing."""

    call_sid: str
    events: Sequence[NewEvent]
    epoch: int | None = None

    @property
    def seen_at(self) -> datetime | None:
        """An event from outside is also a sign of life."""
        return max((event.at for event in self.events if event.source != Source.SYSTEM), default=None)


def record_events(*, call_sid: str, events: Sequence[NewEvent], epoch: int | None = None) -> int:
    """Append events to a call's log. Returns the number of the last one; 0 when nothing was written.

    With `epoch`, only while that epoch owns the stream. Pages are told after commit.
    """
    return record_all([NewEvents(call_sid, events, epoch)]).get((call_sid, epoch), 0)


def record_all(entries: Sequence[NewEvents]) -> dict[tuple[str, int | None], int]:
    """`record_events` for many calls, in as many statements as for one. No two entries are of the same call and epoch.

    Returns the number of the last event by call and epoch as they were given; what was not written is missing.
    """
    entries = [entry for entry in entries if entry.events]
    if not entries:
        return {}
    written: dict[tuple[str, int | None], int] = {}
    with transaction.atomic(savepoint=False):  # nothing here fails for a reason somebody would go on after
        _reserve(entries)
        found = CallSession.objects.filter(call_sid__in={entry.call_sid for entry in entries})
        rows: list[CallEvent] = []
        for call in found.only(*OF_A_WRITER):
            entry = next((entry for entry in entries if entry.call_sid == call.call_sid and entry.epoch in (None, call.epoch)), None)
            if entry is None:  # another epoch owns the stream
                continue
            rows += _numbered(call, entry.events)
            written[entry.call_sid, entry.epoch] = call.last_event_seq
            transaction.on_commit(partial(publisher.rows, call.public_id, call.last_event_seq))
        CallEvent.objects.bulk_create(rows)
        for call in _with_lines({row.call for row in rows if _changes_marks(row)}):
            mark_heard(call=call)
    return written


def _reserve(entries: Sequence[NewEvents]) -> None:
    """Numbers for all the events, and the signs of life among them. It is done all the time: the statement is not put together anew."""
    rows = []
    for entry in entries:
        seen = connection.ops.adapt_datetimefield_value(entry.seen_at or NEVER_SEEN)
        rows.append((len(entry.events), seen, seen, entry.call_sid, entry.epoch))
    with connection.cursor() as cursor:
        cursor.executemany(RESERVE, rows)


def _changes_marks(event: CallEvent) -> bool:
    return event.kind == agent_turns.GOES_ON or (event.kind == agent_turns.ENDED and bool(event.detail.get("interrupted")))


def _with_lines(calls: Collection[CallSession]) -> list[CallSession]:
    """Those of whose agent there is a line to be marked: most often it comes later, and then marks itself."""
    if not calls:
        return []
    lines = TranscriptLine.everything.filter(call__in=calls, role=Role.ASSISTANT).values_list("call_id", flat=True)
    told = set(lines.distinct())
    return [call for call in calls if call.pk in told]


def _numbered(call: CallSession, events: Sequence[NewEvent]) -> list[CallEvent]:
    """The rows of a call's newest events; their numbers are reserved."""
    clock = CallClock(call.clock_boot, call.clock_origin_ms, call.answered_at or call.started_at)
    first = call.last_event_seq - len(events) + 1
    return [
        CallEvent(
            call=call,
            seq=first + place,
            source=event.source,
            kind=event.kind,
            at=event.at,
            ms=clock.ms(at=event.at, now=event.now),
            detail=_as_stored(event, call),
        )
        for place, event in enumerate(events)
    ]


def _as_stored(event: NewEvent, call: CallSession) -> Any:
    rules = rules_of(call.version_id)
    detail = redact_body(unsaid.detail(call, event.detail), rules)
    if event.kind == "transcript-partial" and isinstance(detail.get("text"), str):
        detail["text"] = redact_growing(detail["text"], rules)
    return detail


def hold_in_order(calls: QuerySet[CallSession]) -> None:
    """Have the rows of these calls, inside a transaction that is about to write of all of them.

    Two writers who come to the same calls in another order each would wait for each other. Where a writer has the whole
    database to itself there is nothing to do.
    """
    if connection.features.has_select_for_update:
        list(calls.order_by("pk").select_for_update().values_list("pk"))


def pages_look(*, call_sid: str) -> None:
    """Have the pages that show this call look at its row again, after commit: it changed without an event."""
    public_id, seq = CallSession.objects.values_list("public_id", "last_event_seq").get(call_sid=call_sid)
    transaction.on_commit(partial(publisher.rows, public_id, seq))


@dataclass(frozen=True, slots=True)
class NewLine:
    """A final line to be kept.

    `vendor_ms` is the vendor's own time in epoch milliseconds (ours for lines of our own); `n` the Vapi session's number.
    `text_hash` is the line's key when its words were rewritten since they were told first (`calls.split_numbers`).
    """

    call: CallSession
    vapi_call_id: str
    role: str
    text: str
    vendor_ms: int
    at: datetime
    n: int
    text_hash: str = ""


def add_line(*, call: CallSession, vapi_call_id: str, role: str, text: str, vendor_ms: int, at: datetime, n: int) -> bool:
    """Keep a final line. True when it is new; the vendor may tell it twice, by webhook and retry.

    Lines are welcome after the call's end too, and in any order.
    """
    return add_lines([NewLine(call, vapi_call_id, role, text, vendor_ms, at, n)]) == 1


def add_lines(lines: Sequence[NewLine]) -> int:
    """`add_line` for lines of any calls, in as many statements as for one. Returns how many of them are new."""
    try:
        with transaction.atomic():
            record_all(_told_by_call(lines))  # first: others wait for us there
            unkept = unsaid.among({line.call.pk for line in lines})
            lines = [line for line in lines if line.call.pk not in unkept]
            rows = TranscriptLine.objects.bulk_create(map(_row, lines))
            split_numbers.settle([row for row in rows if row.vapi_call_id])
            _settle_retold([line for line in lines if line.vapi_call_id])
            mark_where_cut({line.call for line in lines if line.role == Role.ASSISTANT})
    except IntegrityError:  # one of them is known: each has to be tried alone
        return sum(add_lines([line]) for line in lines) if len(lines) > 1 else 0
    return len(lines)


def keep_line(*, call: CallSession, vapi_call_id: str, role: str, text: str, vendor_ms: int, at: datetime, n: int) -> NewEvent:
    """The row of a line alone; the caller records the event returned, with others of its own. Raises IntegrityError for a known line."""
    line = NewLine(call, vapi_call_id, role, text, vendor_ms, at, n)
    _row(line).save(force_insert=True)
    return _told(line)


def line_hash(text: str) -> str:
    """What makes two lines of one moment the same. Nobody without our key can find a number's digits by trying all."""
    return salted_hmac("calls.line", text.encode(errors="replace"), algorithm="sha256").hexdigest()


def _row(line: NewLine) -> TranscriptLine:
    said = redact(line.text, rules_of(line.call.version_id))
    return TranscriptLine(
        call=line.call,
        n=line.n,
        vapi_call_id=line.vapi_call_id,
        role=line.role,
        said=said,
        vendor_ms=line.vendor_ms,
        text_hash=line.text_hash or line_hash(said),
        at=line.at,
    )


def _told(line: NewLine) -> NewEvent:
    told: dict[str, Any] = {"role": line.role, "text": line.text}
    if not line.vapi_call_id:
        return NewEvent("transcript-final", Source.SYSTEM, line.at, told)
    return NewEvent("transcript-final", Source.VAPI, line.at, {**told, "vendor_ms": line.vendor_ms})


def _told_by_call(lines: Sequence[NewLine]) -> list[NewEvents]:
    told: dict[str, list[NewEvent]] = {}
    for line in lines:
        told.setdefault(line.call.call_sid, []).append(_told(line))
    return [NewEvents(call_sid, events) for call_sid, events in told.items()]


def _settle_retold(lines: Sequence[NewLine]) -> None:
    """Say of the finals around new ones which have their words in another one too."""
    if not lines:
        return
    reach = SAME_TURN_MS + NEARLY_MS
    new: dict[tuple[int, str], list[int]] = {}
    for line in lines:
        new.setdefault((line.call.pk, line.vapi_call_id), []).append(line.vendor_ms)
    near = (
        Q(call=call, vapi_call_id=session, vendor_ms__range=(ms - 2 * reach, ms + 2 * reach))
        for (call, session), stamps in new.items()
        for ms in stamps
    )
    told = TranscriptLine.everything.filter(reduce(or_, near), from_report=False)
    around: dict[tuple[int, str], list[TranscriptLine]] = {}
    for row in told.only("call_id", "vapi_call_id", "role", "vendor_ms", "said", "retold"):
        around.setdefault((row.call_id, row.vapi_call_id), []).append(row)
    for session, rows in around.items():
        hidden = retold([Final(row.pk, row.role, row.vendor_ms, words(row.said)) for row in rows])
        for row in rows:  # farther ones may depend on lines we have not read, and do not depend on the new ones
            is_near = any(abs(row.vendor_ms - ms) <= reach for ms in new[session])
            if is_near and row.retold != (row.pk in hidden):
                TranscriptLine.everything.filter(pk=row.pk).update(retold=row.pk in hidden)


def mark_where_cut(calls: Collection[CallSession]) -> None:
    """`mark_heard` for those of these calls whose agent was cut in a turn: nobody else has lines to be marked."""
    if not calls:
        return
    turns = CallEvent.objects.filter(call__in=calls, kind=agent_turns.ENDED, detail__interrupted=True)
    cut = set(turns.values_list("call_id", flat=True).distinct())
    for call in calls:
        if call.pk in cut:
            mark_heard(call=call)


def mark_heard(*, call: CallSession) -> None:
    """Say of the agent's lines how much of them was heard.

    The bridge's word on a turn and the vendor's line, by a final or its report, come in any order, so all ask for this; it gives
    the same answer however often it is asked.
    """
    events = CallEvent.objects.filter(call=call, kind__in=agent_turns.KINDS).order_by("seq")
    turns = agent_turns.turns(events.values_list("kind", "ms", "detail"))
    apart = _apart(call)
    spoken: list[list[TranscriptLine]] = [[] for _ in turns]
    for line in TranscriptLine.objects.filter(call=call, role=Role.ASSISTANT) if turns else ():
        spoken[agent_turns.place(turns, line.vendor_ms + apart)].append(line)
    changed: list[TranscriptLine] = []
    for turn, lines in zip(turns, spoken, strict=True):
        for line, (heard, heard_text) in zip(lines, _shares(turn, lines), strict=True):
            if (line.heard, line.heard_text) != (heard, heard_text):
                line.heard, line.heard_text = Heard(heard), heard_text
                changed.append(line)
    TranscriptLine.objects.bulk_update(changed, ["heard", "heard_text"])


def _shares(turn: AgentTurn, lines: Sequence[TranscriptLine]) -> list[tuple[Heard, str]]:
    if not turn.is_cut:
        return [(Heard.FULL, "")] * len(lines)
    reached: dict[str, Any] = {name: turn.ended.get(name) for name in ("said_ms", "heard_ms", "heard_words")}
    return share_out([line.said for line in lines], **reached)


def _apart(call: CallSession) -> int:
    """What to add to the vendor's time of a line for the call's own. A call that no final tells it of takes our wall clock's word."""
    vendor_ms = Cast(KeyTextTransform("vendor_ms", "detail"), BigIntegerField())
    finals = CallEvent.objects.filter(call=call, kind="transcript-final", detail__has_key="vendor_ms")
    quickest = finals.aggregate(apart=Min(F("ms") - vendor_ms))["apart"]
    return quickest if quickest is not None else -int((call.answered_at or call.started_at).timestamp() * 1000)
