"""What streams told becomes rows: a batch at once, all or nothing, the entries of each call in their order.

And so does what was kept while the database was away, in the order in which it was told.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import close_old_connections, transaction
from django.utils import timezone

from bridge.ports import CallRef, Note
from bridge.vapi_answers import VapiCall
from calls import (
    away,
    by_heart,
    endings,
    entries,
    evidence,
    handover,
    inbox,
    intake,
    patience,
    publisher,
    resuming,
    services,
    sessions,
    tasks,
)
from calls.clock import moment
from calls.entries import Admitted, Alive, Asked, Closed, Created, Entry, Obeyed, PersonAsked, Resumed, Told
from calls.history import NewEvent, NewEvents, add_line, hold_in_order, record_all, record_events
from calls.keeper import Keeper
from calls.models import CallEvent, CallSession, OutboxCommand, Role, Source, VapiSession, VapiState
from calls.spool import Spool
from calls.vapi_events import VapiMessage

R = TypeVar("R")

PRESSED_0 = "the caller pressed 0"
ONE_OUTAGE = timedelta(minutes=1)
TWILIO_TELLS: Mapping[str, Callable[..., object]] = {
    verb.__name__: verb
    for verb in (
        *(endings.leg_over, endings.message_left, endings.callback_asked, endings.recording_told, endings.stream_failed),
        *(handover.dial_result, handover.leg_told, handover.led_by_heart, services.open_call),
    )
}


def write(batch: Sequence[Entry]) -> None:
    """Store a batch, all or nothing, the entries of each call in their order."""
    with transaction.atomic():
        hold_in_order(CallSession.objects.filter(call_sid__in={entry.ref.call_sid for entry in batch}))
        told: dict[CallRef, list[Note]] = {}
        alive: dict[CallRef, float] = {}
        for entry in batch:
            match entry:
                case Told(ref, note):
                    told.setdefault(ref, []).append(note)
                case Alive(ref, at):
                    alive[ref] = at
                case Obeyed(ref, command_id, at):
                    services.command_done(call_sid=ref.call_sid, epoch=ref.epoch, pk=command_id, at=moment(at))
                case PersonAsked(ref, at):
                    _write_notes({ref: told.pop(ref, [])})
                    _ask_for_person(ref, moment(at))
                case Closed(ref):
                    _write_notes({ref: told.pop(ref, [])})
                    _write_closing(entry)
                case Admitted(ref):
                    _write_admitted(entry)
                case Created():
                    _write_created(entry)
                case Resumed(ref):
                    _write_notes({ref: told.pop(ref, [])})
                    _write_resumed(entry)
                case Asked():
                    _write_asked(entry)
        _write_notes(told)
        silent = alive.keys() - told.keys()  # what was told is a sign of life too
        if silent:
            streams = [(ref.call_sid, ref.epoch) for ref in silent]
            services.heartbeats(streams=streams, at=moment(min(alive[ref] for ref in silent)))
    for entry in batch:
        if isinstance(entry, Closed):
            entry.stored.set_result(True)


def _write_admitted(entry: Admitted) -> None:
    sid, held_by = entry.ref.call_sid, uuid.UUID(entry.held_by) if entry.held_by else None
    if not services.admit_stream(call_sid=sid, at=moment(entry.at), held_by=held_by, **_stream(entry)):
        services.admitted_before(call_sid=sid, **_stream(entry))
    if entry.ref.epoch:
        transaction.on_commit(partial(publisher.task, tasks.end_sessions, sid))  # the agent of the stream before may go on at Vapi


def _stream(entry: Admitted) -> dict[str, Any]:
    return {"account_sid": entry.account_sid, "stream_sid": entry.stream_sid, "epoch": entry.ref.epoch}


def _write_notes(told: Mapping[CallRef, Sequence[Note]], *, fenced: bool = True) -> None:
    """`fenced`: only of streams that own their call."""
    owners = {ref: ref.epoch if fenced else None for ref in told}
    written = record_all([NewEvents(ref.call_sid, list(map(_event, notes)), owners[ref]) for ref, notes in told.items()])
    for ref, note in ((ref, note) for ref, notes in told.items() for note in notes if (ref.call_sid, owners[ref]) in written):
        if note.kind == "clip-played" and note.detail.get("text"):
            call = CallSession.objects.get(call_sid=ref.call_sid)
            text, ms = str(note.detail["text"]), int(note.at * 1000)
            add_line(call=call, vapi_call_id="", role=Role.SYSTEM, text=text, vendor_ms=ms, at=moment(note.at), n=0)


def _event(note: Note) -> NewEvent:
    return NewEvent(note.kind, note.source, moment(note.at), note.detail, note.now)


def _ask_for_person(ref: CallRef, at: datetime) -> None:
    """Pressing 0 has the same key as the agent's own wish: a stream is handed over once. Without anybody to take it, it is not."""
    call = evidence.hold(call_sid=ref.call_sid, epoch=ref.epoch, at=at)  # first: the agent's own wish may be written just now
    if call is None or call.is_over or call.line is None:
        return
    first = call.line.handoff.first()
    key = services.hand_over_key(ref.call_sid, ref.epoch)
    if (first is None and not call.line.voicemail) or OutboxCommand.objects.filter(key=key).exists():
        return
    detail = {"target": first.slug if first else "", "reason": PRESSED_0, "at_once": True}
    services.ask(call=call, key=key, verb="hand-over", detail=detail, at=at)
    asked = NewEvent("handover-requested", Source.TWILIO, at, {"target": detail["target"], "reason": PRESSED_0})
    record_events(call_sid=ref.call_sid, events=[asked])


def _write_closing(entry: Closed) -> None:
    ref = entry.ref
    at = moment(entry.at)
    if services.stream_closed(call_sid=ref.call_sid, epoch=ref.epoch, closing=entry.closing, at=at, now=entry.now):
        transaction.on_commit(partial(publisher.task, tasks.end_sessions, ref.call_sid))


def _write_resumed(entry: Resumed) -> None:
    sid, at = entry.ref.call_sid, moment(entry.at)
    if resuming.here_by_heart(call_sid=sid, n=entry.n, account=entry.account, raw=entry.raw, at=at):
        transaction.on_commit(partial(publisher.task, tasks.end_sessions, sid))  # the one that was lost may go on at Vapi


def _write_asked(entry: Asked) -> None:
    sid, epoch = entry.ref.call_sid, entry.ref.epoch
    if resuming.first_by_heart(call_sid=sid, epoch=epoch, n=entry.n, at=moment(entry.at)):
        transaction.on_commit(partial(publisher.task, tasks.end_sessions, sid))  # nobody will come for the one that the row had


def _write_created(entry: Created) -> None:
    """A Vapi call that was made by heart, or could not be stored at once, becomes the session's."""
    mine = VapiSession.objects.filter(call__call_sid=entry.ref.call_sid, n=entry.n, vapi_call_id=None)
    claim, at = uuid.uuid4(), moment(entry.at)
    claimed = mine.filter(state__in=(VapiState.ASKED, VapiState.CLAIMED))
    if not claimed.update(state=VapiState.CLAIMED, claim=claim, claimed_by="consumer", claimed_at=at):
        return
    pk = mine.values_list("pk", flat=True).get()
    if entry.failure:
        sessions.session_failed(pk=pk, claim=claim, why=entry.failure, at=at, maybe_created=entry.maybe_created)
        return
    made = VapiCall(id=entry.vapi_call_id, socket_url=entry.socket_url, control_url=entry.control_url)
    if sessions.session_live(pk=pk, claim=claim, vapi_call=made, at=at):
        transaction.on_commit(lambda: inbox.catch_up(vapi_session_pk=pk, at=at), robust=True)
    if sessions.is_of_no_use(pk=pk):  # the caller left while it waited to be written down
        transaction.on_commit(partial(publisher.task, tasks.end_session, pk))


def store_again(told: Sequence[Mapping[str, Any]]) -> None:
    """Store what was kept while the database was away, in its order: what streams told, what Vapi posted, what Twilio told."""
    if not told:
        by_heart.enter_all()
        return
    of_streams: list[Entry] = []
    for each in told:
        if each["kind"] in entries.KINDS:
            of_streams.append(entries.read(each))
            continue
        _write_again(of_streams)
        of_streams = []
        if each["kind"] == "message":
            said = VapiMessage(**each["message"])
            intake.take_all([said], at=moment(each["at"]))
        elif each["kind"] == "twilio":
            TWILIO_TELLS[each["verb"]](**each["told"], at=moment(each["at"]))
    _write_again(of_streams)


def finish_again() -> None:
    """The ends of legs, when all else of the outage is stored."""
    for call_sid in by_heart.end_all():
        publisher.task(tasks.end_sessions, call_sid)


def _write_again(batch: Sequence[Entry]) -> None:
    if not batch:
        return
    write(_without_late(batch))
    _say_spooled({(entry.ref.call_sid, entry.ref.epoch) for entry in batch})


def _without_late(batch: Sequence[Entry]) -> list[Entry]:
    """The rest, when that is written which a stream told before its call was sent on by heart: it owned the call then."""
    refs = {entry.ref for entry in batch}
    ended = {ref: sent["at"] for ref in refs if (sent := by_heart.sent_on(ref.call_sid, ref.epoch + 1)) is not None}
    late: dict[CallRef, list[Note]] = {}
    rest: list[Entry] = []
    for entry in batch:
        if isinstance(entry, Told) and entry.note.at <= ended.get(entry.ref, 0.0):
            late.setdefault(entry.ref, []).append(entry.note)
        elif isinstance(entry, Closed) and entry.at <= ended.get(entry.ref, 0.0):
            _write_notes({entry.ref: late.pop(entry.ref, [])}, fenced=False)
            services.stream_closed_before(call_sid=entry.ref.call_sid, closing=entry.closing, at=moment(entry.at), now=entry.now)
        else:
            rest.append(entry)
    for ref, notes in late.items():
        _write_notes({ref: notes}, fenced=False)
    return rest


def _say_spooled(streams: Collection[tuple[str, int]]) -> None:
    """Once an outage, on the page of each call whose history waited."""
    now = timezone.now()
    lately = CallEvent.objects.filter(kind="history-spooled", at__gt=now - ONE_OUTAGE)
    said = set(lately.filter(call__call_sid__in={call_sid for call_sid, _ in streams}).values_list("call__call_sid", flat=True))
    event = NewEvent("history-spooled", Source.SYSTEM, now, {"degraded": "db"})
    record_all([NewEvents(call_sid, [event], epoch) for call_sid, epoch in streams if call_sid not in said])


@cache
def the_keeper() -> Keeper:
    """This process's."""
    directory = Path(settings.SPOOL_DIR)
    return Keeper(spool=Spool(directory), directory=directory, store=store_again, finish=finish_again)


def in_thread(job: Callable[[], R]) -> R:
    """Ask the database where a caller waits, in a thread that keeps no connection; the keeper hears of a database that does not answer."""
    try:
        with patience.of(patience.WHERE_A_CALLER_WAITS_S):
            return job()
    except DatabaseError as problem:
        if away.is_suspicious(problem):
            the_keeper().suspect()
        raise
    finally:
        close_old_connections()
