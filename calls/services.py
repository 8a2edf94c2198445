"""How a call begins, moves and ends, one verb each, with its stream and its commands.

Rows of what was said and done are `calls.history`'s, Vapi's are `calls.sessions`'; `calls.handover`, `calls.endings` and
`calls.sweep` say what Twilio's news and a long silence mean for a call.

No verb needs a row lock: a unique key or the row count of a conditional UPDATE says who won, on any database. A verb
returns that, so the one who won does what follows: starts a task, tells a page, answers a door.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F, QuerySet

from agents import lines
from agents.models import PhoneLine
from bridge import live
from bridge.figures import together
from bridge.ports import Closing
from calls import accounts, admission, clock, discretion, ended_reasons, evidence, guards, lifecycle, publisher, unsaid
from calls.history import NewEvent, keep_line, pages_look, record_events
from calls.models import CallMetrics, CallSession, EndReason, OutboxCommand, Outcome, Role, Rung, Source, Status, VapiAccount
from calls.redaction import redact_body
from calls.rungs import lower_rung as lower_rung
from calls.sessions import ask_session, finalise, session_ended

log = logging.getLogger(__name__)

illegal_edges: Counter[tuple[str, str]] = Counter()  # (from, to) somebody asked for; a test that leaves one here fails

# Repeats of one webhook wait for each other here and not in the database's queue. The unique key decides, not this: whoever waited for
# so long goes on without.
_opening = tuple(threading.Lock() for _ in range(64))
REPEAT_WAITS_S = 1.0

MAIN_TAKES_NONE = "Vapi's main account takes no calls now"
BRIDGED = (Status.CONNECTING, Status.STREAMING)


# -- the beginning -----------------------------------------------------------------------------------------------------


def open_call(*, sid: str, account_sid: str, from_number: str, to_number: str, at: datetime, by_heart: bool = False) -> CallSession | None:
    """The call Twilio tells us of: one row however often and in parallel it asks. None: no agent answers this number.

    A new call asks for its Vapi session (`CallSession.session_to_start`), or waits when the AI has all hands full; a refused
    one is kept as ended. One that was answered `by_heart` was sent to the agent, at the main account: it never waits, and whoever writes
    it down gives it its place.
    """
    with _after_its_repeats(sid):
        known = CallSession.objects.filter(call_sid=sid).first() or _new_call(sid, account_sid, from_number, to_number, at, by_heart)
    return None if known.end_reason == EndReason.REFUSED else known


@contextmanager
def _after_its_repeats(sid: str) -> Iterator[None]:
    lock = _opening[hash(sid) % len(_opening)]
    is_mine = lock.acquire(timeout=REPEAT_WAITS_S)
    try:
        yield
    finally:
        if is_mine:
            lock.release()


def _new_call(sid: str, account_sid: str, from_number: str, to_number: str, at: datetime, by_heart: bool) -> CallSession:
    answer = lines.answer(to_number, draw=lines.draw_of(sid))
    if answer is not None and answer.version is not None:
        discretion.remember(answer.version.version_id, answer.version.rules)
        discretion.answered_by(sid, answer.version.version_id)
    has_agent = answer is not None and answer.version is not None
    agent_at = VapiAccount.MAIN if by_heart and has_agent else None
    if answer and has_agent and not by_heart:
        agent_at = accounts.first(at=at, people=bool(answer.targets or answer.voicemail))
    boot, origin_ms = clock.origin(at)
    row = CallSession(
        call_sid=sid,
        account_sid=account_sid,
        from_number=from_number,
        to_number=to_number,
        started_at=at,
        answered_at=at,
        last_seen_at=at,
        clock_boot=boot,
        clock_origin_ms=origin_ms,
    )
    try:
        with transaction.atomic():
            return _refused(row) if answer is None else _answered(row, answer, agent_at, by_heart)
    except IntegrityError:  # another process was faster
        return CallSession.objects.get(call_sid=sid)


def _answered(row: CallSession, answer: lines.Answer, agent_at: VapiAccount | None, by_heart: bool) -> CallSession:
    row.line_id, row.version_id, row.team_id = answer.line_id, answer.version_id, answer.team_id
    row.status = Status.CONNECTING
    _tell(row, answer.disclosure, row.started_at)
    row.save(force_insert=True)
    events = [NewEvent("call-received", Source.TWILIO, row.started_at)]
    if answer.version_id is None or agent_at is None or by_heart or admission.take(row, at=row.started_at):
        events += _met(row, disclosure=answer.disclosure, agent_at=agent_at, at=row.started_at)
    else:
        row.status, row.disclosed_at, row.disclosure_mark = Status.WAITING, None, ""
        row.save(update_fields=["status", "disclosed_at", "disclosure_mark"])
        events.append(admission.join(row, at=row.started_at))
    record_events(call_sid=row.call_sid, events=events)
    if row.status == Status.CONNECTING and answer.version_id is not None:
        _note_account(row, agent_at, row.started_at)
    return row


def meet_agent(call: CallSession, *, agent_at: VapiAccount, at: datetime) -> list[NewEvent]:
    """A caller who waited gets the agent: ask for the first session, and note what they hear now. Returns the events to be recorded."""
    disclosure = call.line.disclosure if call.line else ""
    if disclosure:
        _tell(call, disclosure, at)
        call.save(update_fields=["disclosed_at", "disclosure_mark"])
    _note_account(call, agent_at, at)
    return _met(call, disclosure=disclosure, agent_at=agent_at, at=at)


def _met(call: CallSession, *, disclosure: str, agent_at: VapiAccount | None, at: datetime) -> list[NewEvent]:
    events = []
    if call.version_id is not None and agent_at is not None:  # else people take the call
        events.append(ask_session(call=call, n=0, at=at, account=agent_at))
    if disclosure:
        ms = int(at.timestamp() * 1000)
        events.append(keep_line(call=call, vapi_call_id="", role=Role.SYSTEM, text=disclosure, vendor_ms=ms, at=at, n=0))
    return events


def _note_account(call: CallSession, agent_at: VapiAccount | None, at: datetime) -> None:
    if agent_at is not VapiAccount.MAIN:
        rung = Rung.BACKUP if agent_at else Rung.HUMAN
        lower_rung(call_sid=call.call_sid, rung=rung, why=MAIN_TAKES_NONE, at=at)
        call.rung = rung


def _tell(call: CallSession, disclosure: str, at: datetime) -> None:
    if disclosure:
        call.disclosed_at, call.disclosure_mark = at, hashlib.sha256(disclosure.encode()).hexdigest()


def _refused(row: CallSession) -> CallSession:
    return _over_at_once(row, EndReason.REFUSED, Outcome.FAILED, "no agent answers this number")


def missed_call(*, sid: str, account_sid: str, from_number: str, to_number: str, at: datetime, by_fallback: bool = False) -> bool:
    """Keep a call to a line of ours that Twilio tells the end of before we heard of it: its first webhook is still on its
    way, or never came to us. True when the call was unknown. Whoever opens it later finds it over.

    `by_fallback`: somebody was with the caller, and it was none of us.
    """
    line = PhoneLine.objects.filter(number=to_number).first()
    if line is None or CallSession.objects.filter(call_sid=sid).exists():
        return False
    row = CallSession(
        call_sid=sid,
        account_sid=account_sid,
        from_number=from_number,
        to_number=to_number,
        line=line,
        team_id=line.team_id,
        started_at=at,
        last_seen_at=at,
    )
    try:
        with transaction.atomic():
            if by_fallback:
                _over_at_once(row, EndReason.CALLER_HUNG_UP, Outcome.UNKNOWN, "answered without us")
                lower_rung(call_sid=sid, rung=Rung.STATIC, why="answered without us", at=at)
            else:
                _over_at_once(row, EndReason.CALLER_HUNG_UP, Outcome.ABANDONED, "over before it was answered")
    except IntegrityError:  # its first webhook was faster after all
        return False
    return True


def _over_at_once(row: CallSession, reason: EndReason, outcome: Outcome, raw: str) -> CallSession:
    row.answered_at, row.ended_at, row.status = None, row.started_at, Status.ENDED
    row.end_reason, row.outcome = reason, outcome
    row.save(force_insert=True)
    received = NewEvent("call-received", Source.TWILIO, row.started_at)
    ended = NewEvent("call-ended", Source.SYSTEM, row.started_at, {"reason": str(reason.value), "raw": raw})
    record_events(call_sid=row.call_sid, events=[received, ended])
    _close_books_soon(row.call_sid)
    return row


# -- states ------------------------------------------------------------------------------------------------------------


def transition(*, call_sid: str, to: Status, epoch: int, reason: str = "", at: datetime) -> bool:
    """Move a call along one edge of `calls.lifecycle`. True for the one that moved it.

    A stale epoch, a call that is over or already there: False, nothing written. An illegal edge too, and it is counted.
    `reason` is an EndReason when `to` is ended.
    """
    if to == Status.ENDED:
        return end_call(call_sid=call_sid, at=at, reason=EndReason(reason), epoch=epoch)
    calls = CallSession.objects.filter(call_sid=call_sid, epoch=epoch)
    with transaction.atomic():
        if calls.filter(guards.may_become(to, epoch)).update(status=to) == 1:
            pages_look(call_sid=call_sid)
            return True
    status = calls.values_list("status", flat=True).first()
    if status is not None and status != to and lifecycle.may(Status(status), Status.ENDED):
        illegal_edges[(status, to)] += 1
        log.error("An illegal change of a call's state was asked for", extra={"was": status, "asked": str(to), "why": reason})
    return False


def end_call(
    *, call_sid: str, at: datetime, reason: EndReason, raw: str = "", epoch: int | None = None, last_seen: datetime | None = None
) -> bool:
    """End a live call. True for the one caller that ended it, False for all after.

    Twilio's status callback, the end of the stream, Vapi's report and the sweep may all arrive: the first one wins and
    the others change nothing. `reason` is what the one who ends it knows; a message or a talk that is written already is
    the better word. Its Vapi sessions are still to be ended (`calls.tasks.end_sessions`), whoever won.
    `last_seen`: only if the call has given no sign of life since.
    """
    live_call = CallSession.objects.live().filter(call_sid=call_sid)
    if epoch is not None:
        live_call = live_call.filter(guards.owner(epoch))
    if last_seen is not None:
        live_call = live_call.filter(last_seen_at=last_seen)
    with transaction.atomic():
        if live_call.update(status=Status.ENDED, ended_at=at, end_reason=reason) == 0:
            return False
        call = CallSession.objects.get(call_sid=call_sid)
        reason, outcome = lifecycle.ending(reason, evidence.of(call))
        CallSession.objects.filter(pk=call.pk).update(end_reason=reason, outcome=outcome)
        detail = {"reason": str(reason.value)} | ({"raw": raw[:200]} if raw else {})
        left = admission.leave(call, str(EndReason(reason).value), at=at)
        record_events(call_sid=call_sid, events=[*left, NewEvent("call-ended", Source.SYSTEM, at, detail)])
        _close_books_soon(call_sid)
    return True


def _close_books_soon(call_sid: str) -> None:
    """After commit: a report that is merged at this moment must see the end, or its own row be seen here."""
    transaction.on_commit(lambda: finalise(call_sid=call_sid), robust=True)  # else the scheduled look closes them


# -- the stream --------------------------------------------------------------------------------------------------------


def admit_stream(*, call_sid: str, account_sid: str, stream_sid: str, epoch: int, at: datetime, held_by: uuid.UUID | None = None) -> bool:
    """Use up the token of an epoch and let its stream in. True once per epoch, for the stream that came first.

    `held_by` is the process that carries it (`calls.leases`); None when it has no lease.
    """
    unused = CallSession.objects.filter(guards.token_unused(epoch), call_sid=call_sid, account_sid=account_sid)
    with transaction.atomic():
        stream = {"stream_epoch": epoch, "stream_sid": stream_sid, "held_by": held_by, "carried_by": held_by}
        if unused.update(**stream, status=Status.STREAMING, last_seen_at=at) == 0:
            return False
        pages_look(call_sid=call_sid)
    return True


def is_let_in(*, call_sid: str, epoch: int, stream_sid: str) -> bool:
    """It is this stream that owns the call."""
    return CallSession.objects.filter(guards.live_owner(epoch), call_sid=call_sid, stream_epoch=epoch, stream_sid=stream_sid).exists()


def admitted_before(*, call_sid: str, account_sid: str, stream_sid: str, epoch: int) -> bool:
    """A stream was let in while nobody could write it down. Its call may be over by now; it was there all the same."""
    mine = CallSession.objects.filter(guards.owner(epoch), call_sid=call_sid, account_sid=account_sid, stream_epoch__lt=epoch)
    return mine.update(stream_epoch=epoch, stream_sid=stream_sid) == 1


def next_epoch(*, call_sid: str, epoch: int) -> bool:
    """From now on the stream that is to come owns this call, and whoever has the one of `epoch` writes nothing. True once."""
    return CallSession.objects.filter(guards.live_owner(epoch), call_sid=call_sid).update(epoch=F("epoch") + 1) == 1


def heartbeat(*, call_sid: str, epoch: int, at: datetime) -> bool:
    """The stream of this epoch is alive. False when the call is over or another epoch owns it."""
    return heartbeats(streams=[(call_sid, epoch)], at=at) == 1


def heartbeats(*, streams: Collection[tuple[str, int]], at: datetime) -> int:
    """The streams of these calls and epochs were alive at `at`. Returns how many still own a call that goes on."""
    seen = 0
    for epoch in {epoch for _, epoch in streams}:
        mine = [call_sid for call_sid, owner in streams if owner == epoch]
        seen += CallSession.objects.filter(guards.live_owner(epoch), call_sid__in=mine).update(last_seen_at=at)
    return seen


def stream_closed(*, call_sid: str, epoch: int, closing: Closing, at: datetime, now: float | None = None) -> bool:
    """Store why the stream of an epoch is over, with its figures. True once per epoch; a stale epoch writes nothing.

    An end of the agent's ends the call here, before Twilio's own word of it, so that it cannot be started again. Anything
    else leaves it recovering, Twilio's `stop` too: the caller may be there and the resume door will be asked.
    """
    if closing.why == "agent-ended" and OutboxCommand.objects.filter(key=hand_over_key(call_sid, epoch)).exists():
        closing = replace(closing, why="handed-over")  # said goodbye in the same moment: a person was asked for all the same
    reason = _end_reason(closing)
    mine = CallSession.objects.filter(guards.stream_not_closed(epoch), call_sid=call_sid)
    with transaction.atomic():
        why = why_closed(closing)
        if mine.update(closed_epoch=epoch, closed_why=why, last_seen_at=at) == 0:
            return False
        _tell_closed(call_sid, closing, at=at, now=now)
        call = CallSession.objects.get(call_sid=call_sid)
        is_kept = closing.why == guards.PARKED  # its agent says goodbye on the next stream
        too_late(call.commands.exclude(verb="end-call") if is_kept else call.commands.all(), at=at)
        if closing.why == "agent-ended" and closing.raw:
            for session in call.vapi_sessions.filter(ended_at=None).exclude(vapi_call_id=None):
                session_ended(vapi_call_id=session.vapi_call_id or "", raw=closing.raw, at=at)
        _keep_figures(call, closing.figures)  # after the sessions, as `report_arrived` does: the other order can deadlock
        if call.is_over:  # Twilio's word of the hang-up was faster
            evidence.correct(call_sid=call_sid, said=reason)
        if call.status not in BRIDGED:  # late news: the resume door has found the caller something else
            return True
        if reason is not None:
            end_call(call_sid=call_sid, at=at, reason=reason, raw=closing.raw)
        else:
            to = Status.TRANSFERRING if closing.why == "handed-over" else Status.RECOVERING
            transition(call_sid=call_sid, to=to, epoch=epoch, reason=closing.why, at=at)
    return True


def stream_closed_before(*, call_sid: str, closing: Closing, at: datetime, now: float | None = None) -> None:
    """As `stream_closed`, of a stream after which its call was sent on while nobody could write: that is decided, and it is only told."""
    with transaction.atomic():
        call = evidence.hold(call_sid=call_sid, at=at)
        if call is not None:
            _tell_closed(call_sid, closing, at=at, now=now)
            _keep_figures(call, closing.figures)


def _tell_closed(call_sid: str, closing: Closing, *, at: datetime, now: float | None) -> None:
    detail = {"why": closing.why, "raw": closing.raw[:200], "figures": dict(closing.figures)}
    record_events(call_sid=call_sid, events=[NewEvent("stream-closed", Source.BRIDGE, at, detail, now)])


def why_closed(closing: Closing) -> str:
    """The bridge's word of the end; one that says "ended" though the vendor's own word says that it failed does not count."""
    return closing.why if _end_reason(closing) is not None or closing.why not in lifecycle.STREAM_ENDS else "agent-lost"


def _end_reason(closing: Closing) -> EndReason | None:
    """What this end of a stream says about the call; None when the call must go on elsewhere."""
    usual = lifecycle.STREAM_ENDS.get(closing.why)
    if usual is not EndReason.AGENT_ENDED or not closing.raw:
        return usual
    reason = ended_reasons.end_reason(closing.raw)
    return None if reason is EndReason.FAILED else reason


def _keep_figures(call: CallSession, figures: Mapping[str, Any]) -> None:
    """Add one stream's figures to those of the streams before it."""
    metrics, _ = CallMetrics.objects.get_or_create(call=call)
    if metrics.first_audio_ms is None:
        metrics.first_audio_ms = figures.get("first_audio_ms")
    metrics.interruptions += figures.get("interruptions", 0)
    metrics.time_to_silence_ms = [*metrics.time_to_silence_ms, *figures.get("time_to_silence_ms", [])]
    metrics.turn_latency_ms = [*metrics.turn_latency_ms, *figures.get("turn_latency_ms", [])]
    metrics.audio = together(metrics.audio, figures.get("audio", {}))
    metrics.save(update_fields=["first_audio_ms", "interruptions", "time_to_silence_ms", "turn_latency_ms", "audio"])


# -- commands ----------------------------------------------------------------------------------------------------------


def hand_over_key(call_sid: str, epoch: int) -> str:
    """The key of a stream's one wish for a person, whoever has it: the agent, or the caller's finger on 0."""
    return f"hand-over:{call_sid}:{epoch}"


def ask(*, call: CallSession, key: str, verb: str, detail: Mapping[str, Any], at: datetime, to: str = "live") -> OutboxCommand:
    """Write down something to be done once. The same `key` again returns the command already there.

    `to` is live (the bridge that holds the call) or twilio. A live bridge is hinted after commit.
    """
    try:
        with transaction.atomic():
            kept = unsaid.without_words(detail) if unsaid.among({call.pk}) else dict(detail)
            said = redact_body(kept, discretion.rules_of(call.version_id))
            command = OutboxCommand.objects.create(call=call, key=key, to=to, verb=verb, detail=said, asked_at=at)
            if to == "live":
                transaction.on_commit(partial(publisher.tell, call.call_sid, live.COMMANDS))
    except IntegrityError:
        return OutboxCommand.objects.get(key=key)
    return command


def too_late(commands: QuerySet[OutboxCommand], *, at: datetime) -> None:
    """The stream is over that was to carry these out; what it did carry out stays as it is."""
    commands.filter(to="live", done_at=None).update(done_at=at, problem="the stream ended first")


def command_done(*, call_sid: str, epoch: int, pk: int, at: datetime) -> bool:
    """The live bridge of this epoch carried a command out. True for the first word of it."""
    calls = CallSession.objects.filter(call_sid=call_sid, epoch=epoch)
    return OutboxCommand.objects.filter(pk=pk, call__in=calls, to="live", done_at=None).update(done_at=at) == 1
