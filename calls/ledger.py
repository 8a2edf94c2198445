"""Door 1, seen from inside: the bridge's Ledger, on top of the services.

What the stream asks and waits for runs in two small pools of threads, each verb with its deadline: what only reads never stands
behind what wants to write. What it only tells goes to the bounded writer, in order, together with its last word. So the audio path
never waits for the database, and a stream's end is never written before what happened in it. Every thread here gives its database
connection back.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from django.db import Error as DatabaseError
from django.db import close_old_connections, connections, transaction

from bridge import live, stream_token
from bridge.errors import BadMessage
from bridge.ports import Admission, CallRef, Closing, Command, Conversation, LedgerAway, Note
from calls import away, by_heart, discretion, entries, guards, let_in, orphans, parked, publisher, resuming, services, storing, tasks
from calls.clock import moment
from calls.creating import create
from calls.entries import Alive, Closed, Entry, Obeyed, PersonAsked, Told
from calls.guards import PARKED
from calls.hands import Hands
from calls.history import NewEvent, record_events
from calls.lookout import Lookout
from calls.models import CallSession, OutboxCommand, Source, VapiAccount, VapiSession, VapiState
from calls.patience import ELSEWHERE_S
from calls.reading import Reading
from calls.said_before import Heard, SaidBefore
from calls.storing import the_keeper, write
from calls.streams_by_heart import StreamsByHeart
from calls.terms import terms
from calls.writer import BoundedWriter

log = logging.getLogger(__name__)

R = TypeVar("R")

SKEW_S = 300  # between the clock that dated a token and ours: a clock that is put right must not shut a caller out
DEADLINE_S = 0.3
ENDED_WITHIN_S = 2.0  # of an ordinary end: all is said, and one that is not known leads the caller to a person they did not ask for
ADMITTED_WITHIN_S = 1.0  # no sound flows yet, and a stream that is refused costs its caller more than the wait
BACK_WITHIN_S, BACK_LOOK_S = 0.7, 0.1  # whoever is refused now has to ask for another stream, and that not for ever (`calls.turned_away`)
SECOND_TRY_S = 0.6  # with the two above less than a further stream has time to open (`calls.resuming.OPENS_WITHIN`)
ASKERS = READERS = 4
NOBODY_LEFT = ("agent-ended", "hung-up", "caller-left")
ORDINARY = ("agent-ended", "hung-up", "handed-over")
CREATORS = 8  # each is busy for one `POST /call`, 3 s at most
# To a writer: what waits for its statement and then, as the transaction ends, for another connection has given both up by then, and kept
# what it was to write.
GOODBYE_S = 3 * ELSEWHERE_S
CREATES_THAT_WAIT = 100  # the last of them for half a minute, longer than a caller's patience


class DatabaseLedger:
    """`token_key` signs the stream tokens, `former_keys` did before a rotation, `client` speaks with Vapi, `backup`
    with our backup account there.

    `wall` and `clock` are seconds since 1970 and monotonic ones; `boot` is the life of this process, `place` names it
    on this machine, and `left` is told of each stream that it leaves while the caller may be there (`calls.rescue`).
    """

    def __init__(
        self,
        *,
        token_key: bytes,
        client: orphans.Account,
        backup: orphans.Account | None = None,
        former_keys: Sequence[bytes] = (),
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        deadline_s: float = DEADLINE_S,
        boot: Callable[[], uuid.UUID | None] = lambda: None,
        place: str = "",
        left: Callable[[str, str, int, str], None] = lambda call_sid, short_id, epoch, why: None,
    ) -> None:
        self._token_key, self._former_keys, self._clients = token_key, former_keys, {VapiAccount.MAIN: client}
        if backup is not None:
            self._clients[VapiAccount.BACKUP] = backup
        self._wall, self._clock, self._deadline, self._boot, self._left = wall, clock, deadline_s, boot, left
        self._place = place
        self._askers = ThreadPoolExecutor(ASKERS, thread_name_prefix="ledger")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="ledger-read")
        self._creators = Hands(CREATORS, room=CREATES_THAT_WAIT, name="ledger-create")
        self._being_made: list[tuple[CallRef, int]] = []  # by a thread each, and twice where a second one finds the claim taken
        self._to_be_stored: set[tuple[CallRef, int]] = set()  # made, as the spool says and no row
        self._keeper = the_keeper()
        self._said = SaidBefore()
        self._reading = Reading(is_away=lambda: self._keeper.is_away)
        self._by_heart = StreamsByHeart(keeper=self._keeper, clients=self._clients, tell=self._urgent, wall=wall, boot=boot)
        self.writer: BoundedWriter[Entry] = BoundedWriter(
            write=self._write_or_keep,
            spill=self._spill,
            refuse=_refused,
            is_away=away.is_away,
            idle=connections.close_all,
            patience_s=DEADLINE_S,
            name="ledger-writer",
        )
        self._lookout = Lookout(self._ask)
        atexit.register(self.close)

    # -- asked and awaited -----------------------------------------------------------------------------------------

    async def admit(self, *, call_sid: str, account_sid: str, stream_sid: str, token: str) -> Admission | None:
        """By the row; else by heart; else by the row once more, when the database was only busy or is back."""
        now = self._wall() - SKEW_S
        try:
            epoch = stream_token.check(key=self._token_key, former=self._former_keys, token=token, call_sid=call_sid, now=now)
        except BadMessage:
            return None
        at = moment(self._wall())
        admission = await self._admitted(call_sid=call_sid, account_sid=account_sid, stream_sid=stream_sid, epoch=epoch, at=at)
        if admission is not None and self._place:
            await asyncio.to_thread(by_heart.carries, by_heart.Stream(call_sid, epoch, account_sid, self._place, admission.ref.short_id))
        return admission

    async def _admitted(self, **stream: Any) -> Admission | None:
        try:
            return self._remembered(await self._admit_by_row(ADMITTED_WITHIN_S, **stream))
        except LedgerAway:
            its = stream["call_sid"], stream["epoch"]
            await asyncio.to_thread(let_in.turn_away, *its, stream["stream_sid"])  # now: Twilio may ask before we say no
            admission = await self._admitted_after_all(**stream)
            if admission is not None:
                await asyncio.to_thread(let_in.was_let_in, *its)
            return admission

    async def _admitted_after_all(self, **stream: Any) -> Admission | None:
        admission = await self._admit_without_row(**stream)
        if admission is not None:
            if not self._by_heart.waits_here(admission.ref):
                await self.claim(admission.ref, 0)
            return admission
        if not await self._is_back(within_s=BACK_WITHIN_S):
            raise LedgerAway("The history cannot be asked, and nothing of this stream is known by heart.")
        return self._remembered(await self._admit_by_row(SECOND_TRY_S, **stream, is_second_try=True))

    def _remembered(self, entered: tuple[Admission, CallSession] | None) -> Admission | None:
        if entered is None:
            return None
        admission, call = entered
        self._by_heart.remember(admission.ref, call)
        return admission

    async def conversation(self, ref: CallRef) -> Conversation | None:
        if (known := self._by_heart.agent_of(ref)) is not None:
            return known
        conversation = await self._found(partial(_conversation, ref))
        if conversation is not None and conversation.state == PARKED and self._keeper.is_away:
            raise LedgerAway("That another agent is made instead nobody could write down.")
        self._by_heart.saw(ref, conversation)
        return conversation

    async def claim(self, ref: CallRef, n: int, *, from_another: bool = False) -> bool:
        """Returns at once; `conversation` tells what came of it."""
        if ref in self._by_heart:
            return self._creators.take(self._create_by_heart, ref) is not None
        if self._keeper.is_away:  # its row, which can be read, says that nobody makes it, and takes no claim
            return False
        if from_another and self._is_made_here(ref, n):  # by nobody who is dead
            return False
        return self._creators.take(self._create_by_row, ref, n, from_another) is not None

    async def resume(self, ref: CallRef, *, raw: str, n: int, said: Iterable[tuple[str, str]] = ()) -> bool:
        """By the row, which is asked twice if it was only busy; by heart if the database is away."""
        try:
            return await self._resume_by_row(ref, raw=raw, n=n)
        except LedgerAway:
            if not await asyncio.to_thread(self._is_away):
                return await self._resume_by_row(ref, raw=raw, n=n)
        started = await asyncio.to_thread(self._by_heart.resume, ref, raw=raw, n=n, said=tuple(said))
        if started:
            await self.claim(ref, n)
        return started

    async def is_parked(self, ref: CallRef) -> bool:
        return await self._found(partial(parked.is_kept, call_sid=ref.call_sid, epoch=ref.epoch))

    async def taken_up(self, ref: CallRef) -> bool:
        if self._by_heart.agent_of(ref) is not None:
            return await asyncio.to_thread(self._by_heart.taken_up, ref)
        return await self._ask(partial(parked.taken_up, call_sid=ref.call_sid, epoch=ref.epoch, at=moment(self._wall())))

    async def given_up(self, ref: CallRef, waited: Mapping[str, Any]) -> None:
        asking = partial(_given_up, ref, waited, moment(self._wall()))
        await self._ask(asking, within_s=max(self._deadline, ADMITTED_WITHIN_S))

    async def commands(self, ref: CallRef, *, after: int) -> list[Command]:
        """Rows, or what was wished for while nobody could write one: that has no number of its own."""
        if (wish := await asyncio.to_thread(by_heart.granted, ref.call_sid, now=self._wall())) is not None:
            return [Command(id=after, verb=wish["verb"], detail={"at_once": wish["at_once"]})]
        return await self._read(partial(_commands, ref, after))

    @contextmanager
    def watching(self, ref: CallRef, look: Callable[[], None], heard: Heard) -> Iterator[None]:
        with self._said.remembering(ref, heard), self._lookout.watching(ref, look):
            yield

    async def ended(self, ref: CallRef, closing: Closing) -> None:
        """LedgerAway means not stored *yet*: it stays with the writer. A caller who is to be rescued waits for it no longer than 300 ms."""
        entry = Closed(ref, closing, self._wall(), self._clock())
        try:
            has_room = self.writer.put(entry, urgent=True)
            async with asyncio.timeout(max(self._deadline, ENDED_WITHIN_S) if closing.why in ORDINARY else self._deadline):
                # also where the row will know: it may be too busy to be read when Twilio asks
                await asyncio.to_thread(by_heart.closed, ref.call_sid, ref.epoch, services.why_closed(closing))
                if not has_room:
                    raise LedgerAway("The writer has no room.")
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

    async def _admit_by_row(self, within_s: float, **stream: Any) -> tuple[Admission, CallSession] | None:
        return await self._ask(partial(_admit, **stream, held_by=self._boot()), within_s=max(self._deadline, within_s))

    async def _admit_without_row(self, **stream: Any) -> Admission | None:
        """By heart; one that the row can be read to let in is not let in otherwise."""
        try:
            return await asyncio.to_thread(self._admit_by_heart, **stream)
        except DatabaseError:
            is_away = await asyncio.to_thread(self._is_away)
        return await asyncio.to_thread(self._by_heart.admit_expected, **stream) if is_away else None

    def _admit_by_heart(self, *, call_sid: str, account_sid: str, epoch: int, **stream: Any) -> Admission | None:
        """As its call was opened, or sent on, by heart. Else as its row says: a locked SQLite lets us read it. Else it raises."""
        admission = self._by_heart.admit(call_sid=call_sid, account_sid=account_sid, epoch=epoch, **stream)
        if admission is None:
            found = storing.in_thread(partial(_read, call_sid=call_sid, account_sid=account_sid, epoch=epoch))
            if found is not None and self._by_heart.let_in(*found, account_sid=account_sid, **stream):
                return found[0]
        return admission

    async def _resume_by_row(self, ref: CallRef, *, raw: str, n: int) -> bool:
        """Raises LedgerAway; then what is decided too late is taken back."""
        turn, at = threading.Lock(), self._wall()
        try:
            started = await self._ask(partial(_resume, ref, raw, moment(at), turn, n), within_s=max(self._deadline, ADMITTED_WITHIN_S))
        except LedgerAway:
            if turn.acquire(blocking=False):
                raise
            started = True  # it is being written in this very moment
        self._by_heart.resumed_by_row(ref, raw=raw, at=at)
        return started

    def _create_by_heart(self, ref: CallRef) -> None:
        if (n := self._by_heart.create(ref)) is not None:
            self._create_by_row(ref, n)

    def _create_by_row(self, ref: CallRef, n: int, from_another: bool = False) -> None:
        self._being_made.append((ref, n))
        try:
            if storing.in_thread(partial(create, ref, n, self._clients, from_another=from_another)):
                self._to_be_stored.add((ref, n))
        finally:
            self._being_made.remove((ref, n))

    def _is_made_here(self, ref: CallRef, n: int) -> bool:
        """A thread of this process is at it, or was, and what Vapi answered waits to be stored."""
        if not self._keeper.holds:
            self._to_be_stored.clear()
        return (ref, n) in self._being_made or (ref, n) in self._to_be_stored

    async def _is_back(self, *, within_s: float) -> bool:
        """The database takes a write, or does so soon: one that many want to write to at once looks for a moment as if it were away."""
        until = self._clock() + within_s
        while await asyncio.to_thread(self._is_away):
            if self._clock() >= until:
                return False
            await asyncio.sleep(BACK_LOOK_S)
        return True

    def _is_away(self) -> bool:
        try:
            return self._keeper.ask()
        finally:
            close_old_connections()

    def _urgent(self, entry: Entry) -> bool:
        return self.writer.put(entry, urgent=True)

    def _write_or_keep(self, batch: Sequence[Entry]) -> None:
        """New things go behind those that are kept already."""
        if self._keeper.holds:
            self._keep(batch)
        else:
            write(batch)
            self._forget_closed(batch)

    def _forget_closed(self, batch: Sequence[Entry]) -> None:
        for entry in batch:
            if isinstance(entry, Closed):
                self._by_heart.forget(entry.ref)
                by_heart.let_go(entry.ref.call_sid, entry.ref.epoch)

    def _spill(self, batch: Sequence[Entry]) -> None:
        self._keeper.suspect()
        self._keep(batch)

    def _keep(self, batch: Sequence[Entry]) -> None:
        for entry in batch:
            if isinstance(entry, PersonAsked) and self._by_heart.has_people(entry.ref):
                by_heart.wish(entry.ref.call_sid, "hand-over", at=entry.at, at_once=True)
                publisher.tell(entry.ref.call_sid, live.COMMANDS)
        kept = self._keeper.append([entries.kept(entry) for entry in batch])
        self._forget_closed(batch)
        for entry in batch:
            if isinstance(entry, Closed):
                entry.stored.set_result(kept)

    # -- the end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Write what waits and let the threads go."""
        atexit.unregister(self.close)
        self.writer.stop(within_s=GOODBYE_S)
        self._askers.shutdown(wait=False, cancel_futures=True)
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._creators.close()

    async def _found(self, question: Callable[[], R]) -> R:
        """As `_read`. What the rows deny counts for nothing while what was told of it may wait to be written down."""
        holds = self._keeper.holds
        answer = await self._read(question)
        if holds and not answer:
            raise LedgerAway("What the history denies may not be written down yet.")
        return answer

    async def _read(self, question: Callable[[], R]) -> R:
        """A question that changes nothing: of a database that takes no write, too."""
        if self._reading.is_in_vain:
            raise LedgerAway("The history could not be read a moment ago.")
        return await self._answered(self._readers, partial(self._reading.ask, question), self._deadline)

    async def _ask(self, question: Callable[[], R], *, within_s: float = 0.0) -> R:
        if self._keeper.is_away:
            raise LedgerAway("The history is known to be away.")
        return await self._answered(self._askers, partial(storing.in_thread, question), within_s or self._deadline)

    async def _answered(self, threads: ThreadPoolExecutor, asking: Callable[[], R], within_s: float) -> R:
        try:
            async with asyncio.timeout(within_s):
                return await asyncio.get_running_loop().run_in_executor(threads, asking)
        except TimeoutError:
            raise LedgerAway("The history did not answer in time.") from None
        except DatabaseError as problem:
            if not (away.is_gone(problem) or (away.is_suspicious(problem) and await asyncio.to_thread(self._is_away))):
                raise
            raise LedgerAway("The history cannot be asked.") from problem


# -- in the threads ----------------------------------------------------------------------------------------------------


def _admit(*, call_sid: str, epoch: int, is_second_try: bool = False, **stream: Any) -> tuple[Admission, CallSession] | None:
    """The first try may have come to its end after nobody waited for it any more: then the second one finds that it was let in."""
    by_heart.enter(call_sid)
    is_new = services.admit_stream(call_sid=call_sid, epoch=epoch, **stream)
    if not is_new and not (is_second_try and services.is_let_in(call_sid=call_sid, epoch=epoch, stream_sid=stream["stream_sid"])):
        return None
    by_heart.has_come(call_sid)
    call = CallSession.objects.select_related("version", "line").get(call_sid=call_sid)
    return _on_terms(call, epoch), call


def _read(*, call_sid: str, account_sid: str, epoch: int) -> tuple[Admission, CallSession, Conversation] | None:
    """A call whose stream of this epoch has not come yet, and the agent who waits for it."""
    mine = CallSession.objects.filter(guards.token_unused(epoch), call_sid=call_sid, account_sid=account_sid)
    call = mine.select_related("version", "line").first()
    if call is None:
        return None
    admission = _on_terms(call, epoch)
    agent = _conversation(admission.ref)
    return (admission, call, agent) if agent is not None and agent.state == VapiState.LIVE else None


def _on_terms(call: CallSession, epoch: int) -> Admission:
    ref = CallRef(call_sid=call.call_sid, epoch=epoch, short_id=call.short_id)
    zero_for_person = call.line is not None and call.line.zero_for_person
    if call.version is None:
        return Admission(ref=ref, barge_in="instant", zero_for_person=zero_for_person)
    discretion.answered_by(call.call_sid, call.version.pk)
    return terms(ref, call.version, zero_for_person=zero_for_person)


def _conversation(ref: CallRef) -> Conversation | None:
    mine = VapiSession.objects.filter(call__call_sid=ref.call_sid, call__epoch=ref.epoch, call__ended_at=None)
    session = mine.select_related("call").order_by("n").last()
    if session is None:
        return None
    return Conversation(
        n=session.n,
        state=PARKED if parked.is_awaited(session.call) else session.state,
        account=session.account,
        vapi_call_id=session.vapi_call_id or "",
        socket_url=session.socket_url,
    )


def _resume(ref: CallRef, raw: str, at: datetime, turn: threading.Lock, n: int | None = None) -> bool:
    """`turn` is taken by whoever decides: when nobody waits for us any more nothing is written."""
    with transaction.atomic():
        started = resuming.here(call_sid=ref.call_sid, epoch=ref.epoch, raw=raw, at=at, n=n)
        if started is not None and not turn.acquire(blocking=False):
            transaction.set_rollback(True)
            return False
    if started is None:
        return False
    publisher.task(tasks.start_conversation, started)
    publisher.task(tasks.end_sessions, ref.call_sid)  # the one that was lost may go on at Vapi
    return True


def _given_up(ref: CallRef, waited: Mapping[str, Any], at: datetime) -> None:
    """Told whoever owns the call by now: its figures were stored before the wait."""
    record_events(call_sid=ref.call_sid, events=[NewEvent("waited-in-vain", Source.SYSTEM, at, waited)])
    started = resuming.given_up(call_sid=ref.call_sid, epoch=ref.epoch, at=at)
    if started is not None:
        publisher.task(tasks.start_conversation, started)
    publisher.task(tasks.end_sessions, ref.call_sid)


def _commands(ref: CallRef, after: int) -> list[Command]:
    waiting = OutboxCommand.objects.filter(call__call_sid=ref.call_sid, call__epoch=ref.epoch, to="live", done_at=None, id__gt=after)
    return [Command(id=row.pk, verb=row.verb, detail=row.detail) for row in waiting]


def _refused(batch: Sequence[Entry]) -> None:
    for entry in batch:
        if isinstance(entry, Closed):
            entry.stored.set_result(False)
