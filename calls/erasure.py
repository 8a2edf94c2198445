"""Erasing what was said on a call; when is `calls.keeping`'s to say, or a person's who asked (`calls.person`).

What stays is a tombstone: the row with its times, states, reasons, figures and costs, and the events without their words. So
counts stay true, and news that come later find their call instead of making a ghost. Its ids at the vendors stay for 30 days.

    text      lines, words in events, tool runs, reports, commands and notes, the caller's number; Vapi's own copy of the call
    sound     recordings, at Twilio
    bodies    the vendors' messages as they came

Each call is one short transaction that has the call's row first, as every other writer does (`calls.unsaid`). All of it may be
done again, and by two at once.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import orjson
from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Model, Q, QuerySet, Value
from django.db.models.functions import Coalesce

from calls import keeping, patience, said_before, unsaid, vendor_erasures
from calls.history import pages_look
from calls.keeping import ALL, Facts, Parts, Wish
from calls.models import (
    OVER,
    CallbackRequest,
    CallEvent,
    CallSession,
    ErasedWhy,
    InboxMessage,
    OutboxCommand,
    Recording,
    RecordingKind,
    RecordingState,
    Status,
    ToolRun,
    TranscriptLine,
    VapiAccount,
    VapiReport,
    VapiSession,
    VendorErasure,
)

TOMBSTONE = timedelta(days=30)
LATE_NEWS = timedelta(days=3)  # how long an erased call is looked at again
HANDFUL = 100
IDS_AT_ONCE = 500
BLANK_ID = "erased-"
PASSED = ("true", "false")
CHECKPOINT_TRIES, CHECKPOINT_PAUSE_S = 20, 0.1
SAID_IN = (TranscriptLine, CallEvent, ToolRun, VapiReport, OutboxCommand, CallbackRequest, InboxMessage, CallSession)


@dataclass(frozen=True, slots=True)
class Gone:
    """How much went: of messages those that were stored, of recordings those that the vendor is to delete."""

    calls: int = 0
    lines: int = 0
    messages: int = 0
    recordings: int = 0

    def __add__(self, other: Gone) -> Gone:
        return Gone(*(mine + its for mine, its in zip(self.counts.values(), other.counts.values(), strict=True)))

    @property
    def counts(self) -> dict[str, int]:
        return {"calls": self.calls, "lines": self.lines, "messages": self.messages, "recordings": self.recordings}


def wipe(*, pk: int, parts: Parts, why: ErasedWhy, at: datetime, asked_for: str = "") -> Gone:
    """Erase these parts of a call now, also of one that is on. `asked_for`: as in `vendor_erasures.want_gone`."""
    with transaction.atomic():
        call = _stamped(pk, parts, why, at)
        if call is None:
            return Gone()
        lines = _wipe_text(call, at) if parts.text else 0
        messages = _wipe_bodies(call) if parts.bodies else 0
        recordings = _wipe_sound(call.recordings.all(), call, at, asked_for) if parts.sound else 0
        if parts.text and _is_settled(call, at):
            _forget_at_vapi(call, at, asked_for)
        if parts.text:
            transaction.on_commit(partial(said_before.forget if call.is_over else said_before.never, call.call_sid))
        pages_look(call_sid=call.call_sid)
    return Gone(1, lines, messages, recordings)


def after_call(*, call_sid: str, at: datetime) -> None:
    """The books of a call are closed: what was not to be kept goes now, and again with the news that came meanwhile."""
    call = _with_wishes().filter(call_sid=call_sid).first()
    if call is None:
        return
    if call.erased_at is not None:
        wipe(pk=call.pk, parts=ALL, why=ErasedWhy(call.erased_why or ErasedWhy.REQUEST), at=at)
        return
    if call.unrecorded_at is not None:
        _wipe_unrecorded(call, at)
    if parts := keeping.due(_facts(call), _days(call), now=at):
        wipe(pk=call.pk, parts=parts, why=ErasedWhy.RETENTION, at=at)


def keep_time(*, now: datetime, at_most: int = 10_000) -> tuple[Gone, bool]:
    """Nightly: erase what is due. Returns what went, and whether there may be more."""
    gone = Gone()
    for pk in _candidates(now):
        call = _with_wishes().get(pk=pk)
        if parts := keeping.due(_facts(call), _days(call), now=now):
            gone += wipe(pk=pk, parts=parts, why=ErasedWhy.RETENTION, at=now)
        if gone.calls >= at_most:
            return gone, True
    for pk in _late_news(now):
        call = CallSession.objects.get(pk=pk)
        wipe(pk=pk, parts=_gone(call), why=ErasedWhy(call.erased_why or ErasedWhy.RETENTION), at=now)
    _strangers(now).delete()
    _blank_ids(now)
    vendor_erasures.forget_done(now=now)
    return gone, False


def leave_no_trace(*, pause: Callable[[float], None] = time.sleep) -> bool:
    """Have the database give up what it keeps of erased rows beside them. True when it did.

    SQLite zeroes what is deleted (`secure_delete`), and its write-ahead log is written back and cut here, which waits for
    whoever reads. PostgreSQL frees the room of dead rows; old pages in its own log go with its archive.
    """
    if connection.in_atomic_block:
        return False
    with connection.cursor() as cursor:
        if connection.vendor != "sqlite":
            with patience.of(None):
                cursor.execute(f"VACUUM {', '.join(model._meta.db_table for model in SAID_IN)}")
            return True
        for _ in range(CHECKPOINT_TRIES):
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            if cursor.fetchone()[0] == 0:
                return True
            pause(CHECKPOINT_PAUSE_S)
    return False


# -- whose turn it is --------------------------------------------------------------------------------------------------


def _with_wishes() -> QuerySet[CallSession]:
    return CallSession.objects.select_related("line", "version__template")


def _days(call: CallSession) -> keeping.Days:
    said_by = [call.line, call.version.template if call.version else None]
    wishes = (Wish(each.keep_days, each.keep_sound_days, each.keep_bodies_days) for each in said_by if each is not None)
    return keeping.days(settings.RETENTION_DAYS, *wishes)


def _gone(call: CallSession) -> Parts:
    return Parts(call.erased_at is not None, call.sound_erased_at is not None, call.bodies_erased_at is not None)


def _facts(call: CallSession) -> Facts:
    return Facts(ended_at=call.ended_at, books_closed=call.status == Status.FINALISED, gone=_gone(call))


def _is_settled(call: CallSession, at: datetime) -> bool:
    """Vapi is not asked to delete a call that is on, or whose report is still to come."""
    return keeping.is_settled(_facts(call), now=at)


def _candidates(now: datetime) -> Iterator[int]:
    """Calls of which something may be due, a handful at a time; no reading stays open over the database."""
    over = CallSession.objects.filter(status__in=OVER)
    some_left = Q(erased_at=None) | Q(sound_erased_at=None) | Q(bodies_erased_at=None)
    kinds = over.filter(some_left).order_by().values_list("line", "version__template").distinct()
    for line, template in list(kinds):
        some = _with_wishes().filter(line=line, version__template=template).first()
        if some is None:
            continue
        text, sound, bodies = _days(some).gone_before(now)
        old = Q(erased_at=None, ended_at__lte=text) | Q(sound_erased_at=None, ended_at__lte=sound)
        yield from _in_handfuls(over.filter(old | Q(bodies_erased_at=None, ended_at__lte=bodies), line=line, version__template=template))


def _late_news(now: datetime) -> Iterator[int]:
    """Calls that were wiped lately, and what came in afterwards by a way that did not ask first; also late bodies."""
    wiped = Q(erased_at__gt=now - LATE_NEWS) | Q(bodies_erased_at__gt=now - LATE_NEWS)
    yield from _in_handfuls(CallSession.objects.filter(wiped, status__in=OVER))


def _in_handfuls(calls: QuerySet[CallSession]) -> Iterator[int]:
    last = 0
    while pks := list(calls.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:HANDFUL]):
        yield from pks
        last = pks[-1]


def _strangers(now: datetime) -> QuerySet[InboxMessage]:
    """Old messages that belong to no call of ours."""
    return InboxMessage.objects.filter(call=None, received_at__lt=now - timedelta(days=min(settings.RETENTION_DAYS, keeping.LONGEST)))


# -- text --------------------------------------------------------------------------------------------------------------


def _stamped(pk: int, parts: Parts, why: ErasedWhy, at: datetime) -> CallSession | None:
    """Mark the parts as gone; from here on every other writer of this call waits for our commit."""
    names = [
        name for name, goes in (("erased_at", parts.text), ("sound_erased_at", parts.sound), ("bodies_erased_at", parts.bodies)) if goes
    ]
    marks: dict[str, Any] = {name: Coalesce(F(name), Value(at)) for name in names}
    calls = CallSession.objects.filter(pk=pk)
    if calls.update(**marks, last_seen_at=F("last_seen_at")) == 0:
        return None
    if parts.text:
        calls.filter(erased_why="").update(erased_why=why)
    return CallSession.objects.select_related("line").get(pk=pk)


def _wipe_text(call: CallSession, at: datetime) -> int:
    """Everything that was said or written, and whose number it was. Our own line's number is nobody's secret."""
    lines = _wipe_words(call)
    own = call.line.number if call.line else ""
    CallSession.objects.filter(pk=call.pk).update(from_number="", to_number=call.to_number if call.to_number == own else "")
    if call.is_over:
        CallbackRequest.objects.filter(call=call, done_at=None).update(done_at=at)  # nobody can call back any more
    return lines


def _wipe_words(call: CallSession) -> int:
    """The words alone. Returns how many lines went."""
    lines = TranscriptLine.everything.filter(call=call).delete()[0]
    _blank_details(CallEvent.objects.filter(call=call))
    _blank_details(OutboxCommand.objects.filter(call=call))
    runs = ToolRun.objects.filter(call=call)
    runs.exclude(problem="").update(problem="It failed; what it said is erased.")
    runs.update(arguments={}, result="", sent={})
    reports = VapiReport.objects.filter(session__call=call)
    reports.exclude(success__in=PASSED).update(success="")
    reports.update(summary="", structured={})
    CallbackRequest.objects.filter(call=call).update(note="")
    return lines


def _blank_details(rows: QuerySet[Any]) -> None:
    """Few details differ once they have no words, so many rows take one statement."""
    same: dict[bytes, list[int]] = {}
    for pk, detail in rows.values_list("pk", "detail"):
        kept = unsaid.without_words(detail) if isinstance(detail, dict) else {}
        if kept != detail:
            same.setdefault(orjson.dumps(kept), []).append(pk)
    for blank, pks in same.items():
        for place in range(0, len(pks), IDS_AT_ONCE):
            rows.filter(pk__in=pks[place : place + IDS_AT_ONCE]).update(detail=orjson.loads(blank))


def _forget_at_vapi(call: CallSession, at: datetime, asked_for: str) -> None:
    known = call.vapi_sessions.exclude(vapi_call_id=None).exclude(vapi_call_id__startswith=BLANK_ID)
    for account, kept_as in ((VapiAccount.MAIN, ""), (VapiAccount.BACKUP, str(VapiAccount.BACKUP))):
        ids = known.filter(account=account).values_list("vapi_call_id", flat=True)
        wanted = (vapi_call_id for vapi_call_id in ids if vapi_call_id)
        vendor_erasures.want_gone(kind=VendorErasure.Kind.VAPI_CALL, ids=wanted, account_sid=kept_as, asked_for=asked_for, at=at)


# -- bodies and sound --------------------------------------------------------------------------------------------------


def _messages_of(call: CallSession) -> QuerySet[InboxMessage]:
    """Those of its sessions whose call is not written on them yet are among them: the vendor may be faster than its answer."""
    ids = [vapi_call_id for vapi_call_id in call.vapi_sessions.values_list("vapi_call_id", flat=True) if vapi_call_id]
    early = Q(call=None) & (Q(vapi_call_id__in=ids) | Q(body__call__name__startswith=f"{call.call_sid}."))
    return InboxMessage.objects.filter(Q(call=call) | early)


def _wipe_bodies(call: CallSession) -> int:
    """Messages that are history go; those that are to be made into it keep what moves the call on. Returns how many it were."""
    messages = _messages_of(call)
    waiting = list(messages.filter(processed_at=None))
    for message in waiting:
        InboxMessage.objects.filter(pk=message.pk).update(body=unsaid.body(message.body))
    return len(waiting) + messages.filter(processed_at__isnull=False).delete()[0]


def _wipe_sound(sounds: QuerySet[Recording], call: CallSession, at: datetime, asked_for: str) -> int:
    """Recordings go at Twilio; one that is being made is stopped first, and goes when it is told to be ready."""
    ready = sounds if call.is_over else sounds.exclude(state=RecordingState.IN_PROGRESS)
    ids = list(ready.exclude(sid__startswith=BLANK_ID).values_list("sid", flat=True))
    vendor_erasures.want_gone(kind=VendorErasure.Kind.TWILIO_RECORDING, ids=ids, account_sid=call.account_sid, asked_for=asked_for, at=at)
    sounds.filter(erased_at=None).update(erased_at=at)
    return len(ids)


def _wipe_unrecorded(call: CallSession, at: datetime) -> None:
    """The caller asked not to be recorded: their words and the call's sound go; a message they left for us afterwards stays."""
    with transaction.atomic():
        CallSession.objects.filter(pk=call.pk).update(bodies_erased_at=Coalesce(F("bodies_erased_at"), Value(at)))
        _wipe_words(call)
        _wipe_bodies(call)
        _wipe_sound(call.recordings.filter(kind=RecordingKind.CALL), call, at, "")
        if _is_settled(call, at):
            _forget_at_vapi(call, at, "")
        pages_look(call_sid=call.call_sid)


# -- the tombstone -----------------------------------------------------------------------------------------------------


def _blank_ids(now: datetime) -> None:
    """A month after a call was erased nothing of it can come in any more: its ids at the vendors become meaningless ones."""
    old = CallSession.objects.filter(erased_at__lt=now - TOMBSTONE, status__in=OVER).exclude(call_sid__startswith=BLANK_ID)
    for pk in _in_handfuls(old):
        with transaction.atomic():
            CallSession.objects.filter(pk=pk).update(call_sid=_blank(), stream_sid="", account_sid="")
            _blank_each(VapiSession.objects.filter(call=pk).exclude(vapi_call_id=None), "vapi_call_id")
            _blank_each(Recording.objects.filter(call=pk), "sid")
            _blank_each(OutboxCommand.objects.filter(call=pk), "key")
            _blank_each(ToolRun.objects.filter(call=pk), "tool_call_id")
            InboxMessage.objects.filter(call=pk).delete()


def _blank_each(rows: QuerySet[Any], name: str) -> None:
    row: Model
    for row in rows.only("pk"):
        rows.model._default_manager.filter(pk=row.pk).update(**{name: _blank()})


def _blank() -> str:
    return f"{BLANK_ID}{uuid.uuid4().hex[:24]}"
