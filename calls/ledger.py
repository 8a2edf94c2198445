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
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, connections, transaction
from django.utils import timezone

from agents import account, lines
from agents.models import AtLongest, FirstMessageMode, Sound
from bridge import live, stream_token
from bridge.errors import BadMessage, VapiError, VapiRefused, VapiUnavailable
from bridge.ports import Admission, CallRef, Closing, Command, Conversation, LedgerAway, Note
from bridge.vapi_answers import VapiCall
from calls import (
    by_heart,
    discretion,
    endings,
    entries,
    evidence,
    handover,
    inbox,
    patience,
    publisher,
    resuming,
    services,
    sessions,
    tasks,
)
from calls.entries import Admitted, Alive, Closed, Created, Entry, Obeyed, PersonAsked, Told
from calls.history import NewEvent, NewEvents, add_line, hold_in_order, record_all, record_events
from calls.keeper import Keeper
from calls.lookout import Lookout
from calls.models import CallEvent, CallSession, OutboxCommand, Role, Source, VapiAccount, VapiSession, VapiState
from calls.spool import Spool
from calls.vapi_events import VapiMessage
from calls.webhooks import intake
from calls.writer import BoundedWriter

log = logging.getLogger(__name__)

R = TypeVar("R")

DEADLINE_S = 0.3
ENDED_WITHIN_S = 2.0  # of an ordinary end: all is said, and one that is not known leads the caller to a person they did not ask for
ADMITTED_WITHIN_S = 1.0  # no sound flows yet, and a stream that is refused costs its caller more than the wait
ASKERS = 4
NOBODY_LEFT = ("agent-ended", "hung-up", "caller-left")
ORDINARY = ("agent-ended", "hung-up", "handed-over")
PRESSED_0 = "the caller pressed 0"
OURS = ("agents", "bridge", "calls")
ONE_OUTAGE = timedelta(minutes=1)
TWILIO_TELLS: Mapping[str, Callable[..., object]] = {
    verb.__name__: verb
    for verb in (
        *(endings.leg_over, endings.message_left, endings.callback_asked, endings.recording_told, endings.stream_failed),
        *(handover.dial_result, handover.leg_told, services.open_call),
    )
}
CREATORS = 8  # each is busy for one `POST /call`, 3 s at most


class DatabaseLedger:
    """`token_key` signs the stream tokens, `former_keys` did before a rotation, `client` speaks with Vapi, `backup`
    with our backup account there.

    `wall` and `clock` are seconds since 1970 and monotonic ones; `boot` is the life of this process, and `left` is told of each
    stream that it leaves while the caller may be there (`calls.rescue`).
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
        left: Callable[[str, str, int, str], None] = lambda call_sid, short_id, epoch, why: None,
    ) -> None:
        self._token_key, self._former_keys, self._clients = token_key, former_keys, {VapiAccount.MAIN: client}
        if backup is not None:
            self._clients[VapiAccount.BACKUP] = backup
        self._wall, self._clock, self._deadline, self._boot, self._left = wall, clock, deadline_s, boot, left
        self._askers = ThreadPoolExecutor(ASKERS, thread_name_prefix="ledger")
        self._creators = ThreadPoolExecutor(CREATORS, thread_name_prefix="ledger-create")
        self._keeper = the_keeper()
        self._by_heart: dict[CallRef, Conversation] = {}
        self._has_people: set[CallRef] = set()
        self.writer: BoundedWriter[Entry] = BoundedWriter(
            write=self._write_or_keep,
            spill=self._spill,
            refuse=_refused,
            is_away=inbox.is_away,
            idle=connections.close_all,
            patience_s=DEADLINE_S,
            name="ledger-writer",
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
        stream: dict[str, Any] = {"call_sid": call_sid, "account_sid": account_sid, "stream_sid": stream_sid, "epoch": epoch, "at": at}
        try:
            admitting = partial(_admit, **stream, held_by=self._boot())
            let_in = await self._ask(admitting, within_s=max(self._deadline, ADMITTED_WITHIN_S))
        except LedgerAway:
            admission = await asyncio.to_thread(self._admit_by_heart, **stream)
            if admission is None:
                raise
            await self.claim(admission.ref, 0)
            return admission
        if let_in is None:
            return None
        admission, to_number = let_in
        self._remember_people(admission.ref, lines.remembered(to_number, draw=lines.draw_of(call_sid)))
        return admission

    async def conversation(self, ref: CallRef) -> Conversation | None:
        if (known := self._by_heart.get(ref)) is not None and self._keeper.holds:
            return known
        return await self._ask(partial(_conversation, ref))

    async def claim(self, ref: CallRef, n: int, *, from_another: bool = False) -> None:
        """Returns at once; `conversation` tells what came of it."""
        if ref in self._by_heart:
            self._creators.submit(self._create_by_heart, ref)
            return
        self._creators.submit(_in_thread, partial(_create, ref, n, self._clients, from_another=from_another))

    async def resume(self, ref: CallRef, *, raw: str) -> bool:
        asking = partial(_resume, ref, raw, _moment(self._wall()))
        started = await self._ask(asking, within_s=max(self._deadline, ADMITTED_WITHIN_S))
        self._by_heart.pop(ref, None)
        return started

    async def commands(self, ref: CallRef, *, after: int) -> list[Command]:
        """Rows, or what was wished for while nobody could write one: that has no number of its own."""
        if (wish := await asyncio.to_thread(by_heart.granted, ref.call_sid, now=self._wall())) is not None:
            return [Command(id=after, verb=wish["verb"], detail={"at_once": wish["at_once"]})]
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
        finally:
            if closing.why not in NOBODY_LEFT:
                self._left(ref.call_sid, ref.short_id, ref.epoch, closing.why)
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

    # -- while the database is away ------------------------------------------------------------------------------------

    def _admit_by_heart(self, *, call_sid: str, account_sid: str, stream_sid: str, epoch: int, at: datetime) -> Admission | None:
        """Let in the stream of a call that was opened by heart. Its token has been checked."""
        call = by_heart.known(call_sid)
        if call is None or epoch or call["account_sid"] != account_sid or not by_heart.first(call_sid, f"stream-{epoch}"):
            return None
        answer = lines.remembered(call["to_number"], draw=lines.draw_of(call_sid))
        if answer is None or answer.version is None:
            return None
        ref = CallRef(call_sid, epoch, CallSession(public_id=uuid.UUID(call["public_id"])).short_id)
        discretion.remember(answer.version.version_id, answer.version.rules)
        discretion.answered_by(call_sid, answer.version.version_id)
        self._by_heart[ref] = Conversation(n=0, state="asked")
        self._remember_people(ref, answer)
        self._keeper.append([entries.kept(Admitted(ref, account_sid, stream_sid, at.timestamp()))])
        return _admission(ref, answer.version.words, zero_for_person=answer.zero_for_person)

    def _remember_people(self, ref: CallRef, answer: lines.Answer | None) -> None:
        if answer is not None and (answer.targets or answer.voicemail):
            self._has_people.add(ref)

    def _create_by_heart(self, ref: CallRef) -> None:
        """Make the Vapi call of such a call, once; the row says so when there is one."""
        known = self._by_heart.get(ref)
        if known is None or known.state != "asked":
            return
        self._by_heart[ref] = Conversation(n=0, state="claimed")
        if not by_heart.first(ref.call_sid, "claim-0"):  # the call is written down by now, and its row says who makes it
            self._by_heart.pop(ref, None)
            _in_thread(partial(_create, ref, 0, self._clients))
            return
        try:
            made = self._clients[VapiAccount.MAIN].create_call(_request_by_heart(ref))
        except Exception as problem:  # nobody awaits this thread: the caller's way goes down the ladder
            log.error("A call could not be made by heart", extra={"call": ref.short_id, "problem": type(problem).__name__})
            self._by_heart[ref] = Conversation(n=0, state="failed")
            why = str(problem) if isinstance(problem, VapiError) else "It could not be asked for."
            sent = isinstance(problem, VapiUnavailable) and problem.sent
            self.writer.put(Created(ref, 0, self._wall(), failure=why, maybe_created=sent), urgent=True)
        else:
            self.writer.put(Created(ref, 0, self._wall(), made.id, made.socket_url, made.control_url), urgent=True)
            self._by_heart[ref] = Conversation(n=0, state="live", vapi_call_id=made.id, socket_url=made.socket_url)
        publisher.tell(ref.call_sid, live.SESSION)

    def _write_or_keep(self, batch: Sequence[Entry]) -> None:
        """New things go behind those that are kept already."""
        if self._keeper.holds:
            self._keep(batch)
        else:
            _write(batch)
            self._forget_closed(batch)

    def _forget_closed(self, batch: Sequence[Entry]) -> None:
        for entry in batch:
            if isinstance(entry, Closed):
                self._by_heart.pop(entry.ref, None)
                self._has_people.discard(entry.ref)

    def _spill(self, batch: Sequence[Entry]) -> None:
        self._keeper.suspect()
        self._keep(batch)

    def _keep(self, batch: Sequence[Entry]) -> None:
        for entry in batch:
            if isinstance(entry, PersonAsked) and entry.ref in self._has_people:
                by_heart.wish(entry.ref.call_sid, "hand-over", at=entry.at, at_once=True)
                publisher.tell(entry.ref.call_sid, live.COMMANDS)
            if isinstance(entry, Closed):
                by_heart.closed(entry.ref.call_sid, entry.ref.epoch, services.why_closed(entry.closing))
        kept = self._keeper.append([entries.kept(entry) for entry in batch])
        self._forget_closed(batch)
        for entry in batch:
            if isinstance(entry, Closed):
                entry.stored.set_result(kept)

    # -- the end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Write what waits and let the threads go."""
        atexit.unregister(self.close)
        self.writer.stop()
        self._askers.shutdown(wait=False, cancel_futures=True)
        self._creators.shutdown(wait=False, cancel_futures=True)

    async def _ask(self, question: Callable[[], R], *, within_s: float = 0.0) -> R:
        if self._keeper.is_away:
            raise LedgerAway("The history is known to be away.")
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
        with patience.of(patience.WHERE_A_CALLER_WAITS_S):
            return job()
    except (OperationalError, InterfaceError):
        the_keeper().suspect()
        raise
    finally:
        close_old_connections()


def _admit(*, call_sid: str, epoch: int, **stream: Any) -> tuple[Admission, str] | None:
    """With the number that was called."""
    by_heart.enter(call_sid)
    if not services.admit_stream(call_sid=call_sid, epoch=epoch, **stream):
        return None
    call = CallSession.objects.select_related("version", "line").get(call_sid=call_sid)
    ref = CallRef(call_sid=call_sid, epoch=epoch, short_id=call.short_id)
    zero_for_person = call.line is not None and call.line.zero_for_person
    if call.version is None:
        return Admission(ref=ref, barge_in="instant", zero_for_person=zero_for_person), call.to_number
    discretion.answered_by(call_sid, call.version.pk)
    return _admission(ref, call.version, zero_for_person=zero_for_person), call.to_number


def _admission(ref: CallRef, words: Any, *, zero_for_person: bool) -> Admission:
    resumed = ref.epoch > 0
    return Admission(
        ref=ref,
        barge_in=words.barge_in,
        greeting_interruptible=resumed or words.first_message_interruptible,
        agent_speaks_first=resumed or words.first_message_mode != FirstMessageMode.CALLER_FIRST,
        tell_heard=words.tell_heard,
        wideband=words.sound == Sound.WIDEBAND,
        zero_for_person=zero_for_person,
        keypad_digits=words.keypad_digits if words.keypad else 0,
        keypad_end=words.keypad_end,
        longest_s=words.max_duration_s,
        goes_on=words.at_longest == AtLongest.GO_ON,
        time_is_up=words.time_is_up,
    )


def _request_by_heart(ref: CallRef) -> dict[str, Any]:
    call = by_heart.known(ref.call_sid) or {}
    answer = lines.remembered(call.get("to_number", ""), draw=lines.draw_of(ref.call_sid))
    if answer is None or answer.version is None:
        raise VapiRefused("No version of an agent is known by heart.")
    return lines.conversation_request(
        line_id=answer.line_id,
        version_id=answer.version.version_id,
        call_sid=ref.call_sid,
        n=0,
        epoch=ref.epoch,
        server=account.server(),
        variables={"call": ref.short_id, "line": answer.line_name},
        by_heart=True,
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


def _create(ref: CallRef, n: int, clients: Mapping[VapiAccount, sessions.Vapi], *, from_another: bool = False) -> None:
    """Nobody awaits this thread, so it raises nothing and says itself what went wrong."""
    try:
        mine = VapiSession.objects.filter(call__call_sid=ref.call_sid, call__epoch=ref.epoch, n=n)
        for pk in mine.values_list("pk", flat=True):
            _start(pk, clients, from_another=from_another)
    except Exception as problem:
        where = {"problem": type(problem).__name__, "where": _place_of(problem)}
        log.error("The consumer's own start of a conversation broke", extra={"call": ref.short_id, **where})


def _start(pk: int, clients: Mapping[VapiAccount, sessions.Vapi], *, from_another: bool = False) -> None:
    """This session, or the one that is asked for instead when it fails."""
    started, client = False, clients.get(VapiAccount(sessions.account_of(pk=pk)), clients[VapiAccount.MAIN])
    try:
        started = sessions.start_conversation(vapi_session_pk=pk, by="consumer", client=client, from_another=from_another)
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
                case Admitted(ref):
                    if not services.admit_stream(call_sid=ref.call_sid, at=_moment(entry.at), **_stream(entry)):
                        services.admitted_before(call_sid=ref.call_sid, **_stream(entry))
                case Created():
                    _write_created(entry)
        _write_notes(told)
        silent = alive.keys() - told.keys()  # what was told is a sign of life too
        if silent:
            streams = [(ref.call_sid, ref.epoch) for ref in silent]
            services.heartbeats(streams=streams, at=_moment(min(alive[ref] for ref in silent)))
    for entry in batch:
        if isinstance(entry, Closed):
            entry.stored.set_result(True)


def _stream(entry: Admitted) -> dict[str, Any]:
    return {"account_sid": entry.account_sid, "stream_sid": entry.stream_sid, "epoch": entry.ref.epoch}


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


def _write_created(entry: Created) -> None:
    """A Vapi call that was made by heart becomes the session's."""
    mine = VapiSession.objects.filter(call__call_sid=entry.ref.call_sid, n=entry.n, vapi_call_id=None)
    claim, at = uuid.uuid4(), _moment(entry.at)
    claimed = mine.filter(state__in=(VapiState.ASKED, VapiState.CLAIMED))
    if not claimed.update(state=VapiState.CLAIMED, claim=claim, claimed_by="consumer", claimed_at=at):
        return
    pk = mine.values_list("pk", flat=True).get()
    if entry.failure:
        sessions.session_failed(pk=pk, claim=claim, why=entry.failure, at=at, maybe_created=entry.maybe_created)
        return
    made = VapiCall(id=entry.vapi_call_id, socket_url=entry.socket_url, control_url=entry.control_url)
    if sessions.session_live(pk=pk, claim=claim, vapi_call=made, at=at):
        transaction.on_commit(partial(inbox.catch_up, vapi_session_pk=pk, at=at), robust=True)


def _refused(batch: Sequence[Entry]) -> None:
    for entry in batch:
        if isinstance(entry, Closed):
            entry.stored.set_result(False)


# -- what the spool kept -----------------------------------------------------------------------------------------------


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
            intake.take_all([said], at=_moment(each["at"]))
        elif each["kind"] == "twilio":
            TWILIO_TELLS[each["verb"]](**each["told"], at=_moment(each["at"]))
    _write_again(of_streams)


def finish_again() -> None:
    """The ends of legs, when all else of the outage is stored."""
    for call_sid in by_heart.end_all():
        publisher.task(tasks.end_sessions, call_sid)


def _write_again(batch: Sequence[Entry]) -> None:
    if not batch:
        return
    _write(batch)
    _say_spooled({(entry.ref.call_sid, entry.ref.epoch) for entry in batch})


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


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, tz=UTC)
