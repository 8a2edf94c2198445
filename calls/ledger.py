"""Door 1, seen from inside: the bridge's Ledger, on top of the services.

What the stream asks and waits for runs in a small pool of threads and has 300 ms; what it only tells goes to the bounded
writer, in order, together with its last word. So the audio path never waits for the database, and a stream's end is
never written before what happened in it. Every thread here gives its database connection back.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import time
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from django.db import InterfaceError, OperationalError, close_old_connections, connections, transaction

from agents.models import AtLongest, FirstMessageMode, Sound
from bridge import stream_token
from bridge.errors import BadMessage
from bridge.ports import Admission, CallRef, Closing, Command, Conversation, LedgerAway, Note
from calls import evidence, inbox, publisher, resuming, services, sessions, tasks
from calls.history import NewEvent, NewEvents, add_line, hold_in_order, record_all, record_events
from calls.lookout import Lookout
from calls.models import CallSession, OutboxCommand, Role, Source, VapiAccount, VapiSession
from calls.writer import BoundedWriter

log = logging.getLogger(__name__)

R = TypeVar("R")

DEADLINE_S = 0.3
ENDED_WITHIN_S = 2.0  # of an ordinary end: all is said, and one that is not known leads the caller to a person they did not ask for
ADMITTED_WITHIN_S = 1.0  # no sound flows yet, and a stream that is refused costs its caller more than the wait
ASKERS = 4
ORDINARY = ("agent-ended", "hung-up", "handed-over")
PRESSED_0 = "the caller pressed 0"
OURS = ("agents", "bridge", "calls")
CREATORS = 8  # each is busy for one `POST /call`, 3 s at most


@dataclass(frozen=True, slots=True)
class Told:
    ref: CallRef
    note: Note


@dataclass(frozen=True, slots=True)
class Alive:
    ref: CallRef
    at: float


@dataclass(frozen=True, slots=True)
class Obeyed:
    ref: CallRef
    command_id: int
    at: float


@dataclass(frozen=True, slots=True)
class PersonAsked:
    ref: CallRef
    at: float


@dataclass(frozen=True, slots=True)
class Closed:
    ref: CallRef
    closing: Closing
    at: float
    now: float
    stored: Future[bool] = field(default_factory=Future)


Entry = Told | Alive | Obeyed | PersonAsked | Closed


class DatabaseLedger:
    """`token_key` signs the stream tokens, `former_keys` did before a rotation, `client` speaks with Vapi, `backup`
    with our backup account there.

    `wall` and `clock` are seconds since 1970 and monotonic ones; `boot` is the life of this process (`calls.rescue`).
    """

    def __init__(
        self,
        *,
        token_key: bytes,
        client: sessions.Vapi,
        backup: sessions.Vapi | None = None,
        former_keys: Sequence[bytes] = (),
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        deadline_s: float = DEADLINE_S,
        boot: Callable[[], uuid.UUID | None] = lambda: None,
    ) -> None:
        self._token_key, self._former_keys, self._clients = token_key, former_keys, {VapiAccount.MAIN: client}
        if backup is not None:
            self._clients[VapiAccount.BACKUP] = backup
        self._wall, self._clock, self._deadline, self._boot = wall, clock, deadline_s, boot
        self._askers = ThreadPoolExecutor(ASKERS, thread_name_prefix="ledger")
        self._creators = ThreadPoolExecutor(CREATORS, thread_name_prefix="ledger-create")
        self.writer: BoundedWriter[Entry] = BoundedWriter(
            write=_write, spill=_spill, is_away=inbox.is_away, idle=connections.close_all, name="ledger-writer"
        )
        self._lookout = Lookout(self._ask)
        atexit.register(self.close)

    # -- asked and awaited -----------------------------------------------------------------------------------------

    async def admit(self, *, call_sid: str, account_sid: str, stream_sid: str, token: str) -> Admission | None:
        try:
            epoch = stream_token.check(key=self._token_key, former=self._former_keys, token=token, call_sid=call_sid, now=self._wall())
        except BadMessage:
            return None
        at = _moment(self._wall())
        stream: dict[str, Any] = {"call_sid": call_sid, "account_sid": account_sid, "stream_sid": stream_sid, "epoch": epoch}
        admitting = partial(_admit, **stream, at=at, held_by=self._boot())
        return await self._ask(admitting, within_s=max(self._deadline, ADMITTED_WITHIN_S))

    async def conversation(self, ref: CallRef) -> Conversation | None:
        return await self._ask(partial(_conversation, ref))

    async def claim(self, ref: CallRef, n: int) -> None:
        """Returns at once; `conversation` tells what came of it."""
        self._creators.submit(_in_thread, partial(_create, ref, n, self._clients))

    async def resume(self, ref: CallRef, *, raw: str) -> bool:
        asking = partial(_resume, ref, raw, _moment(self._wall()))
        return await self._ask(asking, within_s=max(self._deadline, ADMITTED_WITHIN_S))

    async def commands(self, ref: CallRef, *, after: int) -> list[Command]:
        return await self._ask(partial(_commands, ref, after))

    def watching(self, ref: CallRef, look: Callable[[], None]) -> AbstractContextManager[None]:
        return self._lookout.watching(ref, look)

    async def ended(self, ref: CallRef, closing: Closing) -> None:
        """LedgerAway means not stored *yet*: it stays with the writer. A caller who is to be rescued waits for it no longer than 300 ms."""
        entry = Closed(ref, closing, self._wall(), self._clock())
        if not self.writer.put(entry, urgent=True):
            raise LedgerAway("The writer has no room.")
        try:
            async with asyncio.timeout(max(self._deadline, ENDED_WITHIN_S) if closing.why in ORDINARY else self._deadline):
                stored = await asyncio.shield(asyncio.wrap_future(entry.stored))
        except TimeoutError:
            raise LedgerAway("The end of the stream was not stored in time.") from None
        if not stored:
            raise LedgerAway("The end of the stream could not be stored.")

    # -- only told -------------------------------------------------------------------------------------------------

    def note(self, ref: CallRef, note: Note) -> None:
        self.writer.put(Told(ref, note))

    def heartbeat(self, ref: CallRef) -> None:
        self.writer.put(Alive(ref, self._wall()))

    def person_asked(self, ref: CallRef) -> None:
        self.writer.put(PersonAsked(ref, self._wall()), urgent=True)

    def done(self, ref: CallRef, command_id: int) -> None:
        self.writer.put(Obeyed(ref, command_id, self._wall()))

    # -- the end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Write what waits and let the threads go."""
        atexit.unregister(self.close)
        self.writer.stop()
        self._askers.shutdown(wait=False, cancel_futures=True)
        self._creators.shutdown(wait=False, cancel_futures=True)

    async def _ask(self, question: Callable[[], R], *, within_s: float = 0.0) -> R:
        try:
            async with asyncio.timeout(within_s or self._deadline):
                return await asyncio.get_running_loop().run_in_executor(self._askers, _in_thread, question)
        except TimeoutError:
            raise LedgerAway("The history did not answer in time.") from None
        except (OperationalError, InterfaceError) as problem:
            raise LedgerAway("The history cannot be asked.") from problem


# -- in the threads ----------------------------------------------------------------------------------------------------


def _in_thread(job: Callable[[], R]) -> R:
    try:
        return job()
    finally:
        close_old_connections()


def _admit(*, call_sid: str, epoch: int, **stream: Any) -> Admission | None:
    if not services.admit_stream(call_sid=call_sid, epoch=epoch, **stream):
        return None
    call = CallSession.objects.select_related("version", "line").get(call_sid=call_sid)
    ref = CallRef(call_sid=call_sid, epoch=epoch, short_id=call.short_id)
    resumed = epoch > 0
    zero_for_person = call.line is not None and call.line.zero_for_person
    if call.version is None:
        return Admission(ref=ref, barge_in="instant", zero_for_person=zero_for_person)
    return Admission(
        ref=ref,
        barge_in=call.version.barge_in,
        greeting_interruptible=resumed or call.version.first_message_interruptible,
        agent_speaks_first=resumed or call.version.first_message_mode != FirstMessageMode.CALLER_FIRST,
        tell_heard=call.version.tell_heard,
        wideband=call.version.sound == Sound.WIDEBAND,
        zero_for_person=zero_for_person,
        keypad_digits=call.version.keypad_digits if call.version.keypad else 0,
        keypad_end=call.version.keypad_end,
        longest_s=call.version.max_duration_s,
        goes_on=call.version.at_longest == AtLongest.GO_ON,
        time_is_up=call.version.time_is_up,
    )


def _conversation(ref: CallRef) -> Conversation | None:
    mine = VapiSession.objects.filter(call__call_sid=ref.call_sid, call__epoch=ref.epoch, call__ended_at=None)
    session = mine.order_by("n").last()
    if session is None:
        return None
    return Conversation(
        n=session.n,
        state=session.state,
        account=session.account,
        vapi_call_id=session.vapi_call_id or "",
        socket_url=session.socket_url,
    )


def _resume(ref: CallRef, raw: str, at: datetime) -> bool:
    started = resuming.here(call_sid=ref.call_sid, epoch=ref.epoch, raw=raw, at=at)
    if started is None:
        return False
    publisher.task(tasks.start_conversation, started)
    publisher.task(tasks.end_sessions, ref.call_sid)  # the one that was lost may go on at Vapi
    return True


def _create(ref: CallRef, n: int, clients: Mapping[VapiAccount, sessions.Vapi]) -> None:
    """Nobody awaits this thread, so it raises nothing and says itself what went wrong."""
    try:
        mine = VapiSession.objects.filter(call__call_sid=ref.call_sid, call__epoch=ref.epoch, n=n)
        for pk in mine.values_list("pk", flat=True):
            _start(pk, clients)
    except Exception as problem:
        where = {"problem": type(problem).__name__, "where": _place_of(problem)}
        log.error("The consumer's own start of a conversation broke", extra={"call": ref.short_id, **where})


def _start(pk: int, clients: Mapping[VapiAccount, sessions.Vapi]) -> None:
    """This session, or the one that is asked for instead when it fails."""
    started, client = False, clients.get(VapiAccount(sessions.account_of(pk=pk)), clients[VapiAccount.MAIN])
    try:
        started = sessions.start_conversation(vapi_session_pk=pk, by="consumer", client=client)
    finally:
        if not started:
            publisher.task(tasks.clear_up, pk)
    if started:
        inbox.catch_up(vapi_session_pk=pk, at=datetime.now(tz=UTC))
    elif (instead := sessions.asked_instead(pk=pk)) is not None:
        _start(instead, clients)


def _place_of(problem: Exception) -> str:
    """The last line of ours that ran. A traceback would repeat what the database says of a row: all its values, numbers too."""
    lines = [(str(frame.f_globals.get("__name__", "")), number) for frame, number in traceback.walk_tb(problem.__traceback__)]
    return next((f"{name}:{number}" for name, number in reversed(lines) if name.partition(".")[0] in OURS), "")


def _commands(ref: CallRef, after: int) -> list[Command]:
    waiting = OutboxCommand.objects.filter(call__call_sid=ref.call_sid, call__epoch=ref.epoch, to="live", done_at=None, id__gt=after)
    return [Command(id=row.pk, verb=row.verb, detail=row.detail) for row in waiting]


def _write(batch: Sequence[Entry]) -> None:
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
                    services.command_done(call_sid=ref.call_sid, epoch=ref.epoch, pk=command_id, at=_moment(at))
                case PersonAsked(ref, at):
                    _write_notes({ref: told.pop(ref, [])})
                    _ask_for_person(ref, _moment(at))
                case Closed(ref):
                    _write_notes({ref: told.pop(ref, [])})
                    _write_closing(entry)
        _write_notes(told)
        silent = alive.keys() - told.keys()  # what was told is a sign of life too
        if silent:
            streams = [(ref.call_sid, ref.epoch) for ref in silent]
            services.heartbeats(streams=streams, at=_moment(min(alive[ref] for ref in silent)))
    for entry in batch:
        if isinstance(entry, Closed):
            entry.stored.set_result(True)


def _write_notes(told: Mapping[CallRef, Sequence[Note]]) -> None:
    entries = [NewEvents(ref.call_sid, list(map(_event, notes)), ref.epoch) for ref, notes in told.items()]
    written = record_all(entries)
    for ref, note in ((ref, note) for ref, notes in told.items() for note in notes if (ref.call_sid, ref.epoch) in written):
        if note.kind == "clip-played" and note.detail.get("text"):
            call = CallSession.objects.get(call_sid=ref.call_sid)
            text, ms = str(note.detail["text"]), int(note.at * 1000)
            add_line(call=call, vapi_call_id="", role=Role.SYSTEM, text=text, vendor_ms=ms, at=_moment(note.at), n=0)


def _event(note: Note) -> NewEvent:
    return NewEvent(note.kind, note.source, _moment(note.at), note.detail, note.now)


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
    at = _moment(entry.at)
    if services.stream_closed(call_sid=ref.call_sid, epoch=ref.epoch, closing=entry.closing, at=at, now=entry.now):
        transaction.on_commit(partial(publisher.task, tasks.end_sessions, ref.call_sid))


def _spill(batch: Sequence[Entry]) -> None:
    """Where the spool will take over. Until then these are lost, and counted by the writer."""
    for entry in batch:
        if isinstance(entry, Closed):
            entry.stored.set_result(False)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, tz=UTC)
