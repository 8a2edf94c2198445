"""Every change of a call's state, one verb each. Rows of what was said and done are `calls.history`'s, Vapi's are `calls.sessions`'.

No verb needs a row lock: a unique key or the row count of a conditional UPDATE says who won, on any database. A verb
returns that, so the one who won does what follows: starts a task, tells a page, answers a door.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.db import IntegrityError, transaction

from agents import lines
from bridge import live
from bridge.ports import Closing
from bridge.twilio_http import HUMAN_TIME_LIMIT_S
from calls import clock, ladder, lifecycle, publisher
from calls.history import NewEvent, keep_line, pages_look, record_events
from calls.models import OVER, CallMetrics, CallSession, EndReason, OutboxCommand, Outcome, Role, Rung, Source, Status
from calls.redaction import redact_body
from calls.sessions import ask_session, finalise, session_ended

log = logging.getLogger(__name__)

illegal_edges: Counter[tuple[str, str]] = Counter()  # (from, to) somebody asked for; a test that leaves one here fails

# Repeats of one webhook wait for each other here and not in the database's queue. The unique key decides, not this.
_opening = tuple(threading.Lock() for _ in range(64))

BRIDGED = (Status.CONNECTING, Status.STREAMING)
ELSEWHERE = (Status.TRANSFERRING, Status.VOICEMAIL)  # no sound passes us there, so our silence proves nothing
LONGEST_ELSEWHERE = timedelta(seconds=HUMAN_TIME_LIMIT_S)


# -- the beginning -----------------------------------------------------------------------------------------------------


def open_call(*, sid: str, account_sid: str, from_number: str, to_number: str, at: datetime) -> CallSession | None:
    """The call Twilio tells us of: one row however often and in parallel it asks. None: no agent answers this number.

    A new call asks for its Vapi session (`CallSession.session_to_start`); a refused one is kept as ended.
    """
    known = CallSession.objects.filter(call_sid=sid).first()
    if known is None:
        with _opening[hash(sid) % len(_opening)]:
            known = CallSession.objects.filter(call_sid=sid).first() or _new_call(sid, account_sid, from_number, to_number, at)
    return None if known.end_reason == EndReason.REFUSED else known


def _new_call(sid: str, account_sid: str, from_number: str, to_number: str, at: datetime) -> CallSession:
    answer = lines.answer(to_number, draw=lines.draw_of(sid))
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
            return _refused(row) if answer is None else _answered(row, answer)
    except IntegrityError:  # another process was faster
        return CallSession.objects.get(call_sid=sid)


def _answered(row: CallSession, answer: lines.Answer) -> CallSession:
    row.line_id, row.version_id, row.status = answer.line_id, answer.version_id, Status.CONNECTING
    row.save(force_insert=True)
    events = [NewEvent("call-received", Source.TWILIO, row.started_at)]
    if answer.version_id is not None:  # else people take the call: the stream finds no session and says so
        events.append(ask_session(call=row, n=0, at=row.started_at))
    if answer.disclosure:
        ms, said = int(row.started_at.timestamp() * 1000), answer.disclosure
        events.append(keep_line(call=row, vapi_call_id="", role=Role.SYSTEM, text=said, vendor_ms=ms, at=row.started_at, n=0))
    record_events(call_sid=row.call_sid, events=events)
    return row


def _refused(row: CallSession) -> CallSession:
    row.answered_at, row.ended_at, row.status = None, row.started_at, Status.ENDED
    row.end_reason, row.outcome = EndReason.REFUSED, Outcome.FAILED
    row.save(force_insert=True)
    ended = NewEvent(
        "call-ended", Source.SYSTEM, row.started_at, {"reason": EndReason.REFUSED.value, "raw": "no agent answers this number"}
    )
    record_events(call_sid=row.call_sid, events=[NewEvent("call-received", Source.TWILIO, row.started_at), ended])
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
        if calls.filter(status__in=lifecycle.sources(to)).update(status=to) == 1:
            pages_look(call_sid=call_sid)
            return True
    status = calls.values_list("status", flat=True).first()
    if status is not None and status != to and lifecycle.may(Status(status), Status.ENDED):
        illegal_edges[(status, to)] += 1
        log.error("An illegal change of a call's state was asked for", extra={"was": status, "asked": str(to), "why": reason})
    return False


def end_call(
    *, call_sid: str, at: datetime, reason: EndReason, outcome: Outcome | None = None, raw: str = "", epoch: int | None = None
) -> bool:
    """End a live call. True for the one caller that ended it, False for all after.

    Twilio's status callback, the end of the stream, Vapi's report and the sweep may all arrive: the first one wins and
    the others change nothing. Its Vapi sessions are still to be ended (`calls.tasks.end_sessions`), whoever won.
    """
    live_call = CallSession.objects.live().filter(call_sid=call_sid)
    if epoch is not None:
        live_call = live_call.filter(epoch=epoch)
    with transaction.atomic():
        ended = live_call.update(status=Status.ENDED, ended_at=at, end_reason=reason, outcome=outcome or lifecycle.outcome_of(reason))
        if ended == 0:
            return False
        detail = {"reason": str(reason.value)} | ({"raw": raw[:200]} if raw else {})
        record_events(call_sid=call_sid, events=[NewEvent("call-ended", Source.SYSTEM, at, detail)])
        _close_books_soon(call_sid)
    return True


def _close_books_soon(call_sid: str) -> None:
    """After commit: a report that is merged at this moment must see the end, or its own row be seen here."""
    transaction.on_commit(lambda: finalise(call_sid=call_sid), robust=True)  # else the scheduled look closes them


def lower_rung(*, call_sid: str, rung: Rung, why: str, at: datetime) -> bool:
    """Note that a call stands on a lower rung of the ladder than ever before. True when it is news."""
    with transaction.atomic():
        before = CallSession.objects.filter(call_sid=call_sid).values_list("rung", flat=True).first()
        if CallSession.objects.filter(call_sid=call_sid, rung__lt=rung).update(rung=rung) == 0:
            return False
        detail = {"from": before, "to": str(rung.value), "why": why}
        record_events(call_sid=call_sid, events=[NewEvent("rung-changed", Source.SYSTEM, at, detail)])
    return True


# -- the stream --------------------------------------------------------------------------------------------------------


def admit_stream(*, call_sid: str, account_sid: str, stream_sid: str, epoch: int, at: datetime) -> bool:
    """Use up the token of an epoch and let its stream in. True once per epoch, for the stream that came first."""
    unused = CallSession.objects.filter(
        call_sid=call_sid,
        account_sid=account_sid,
        epoch=epoch,
        stream_epoch__lt=epoch,
        status__in=lifecycle.sources(Status.STREAMING),
    )
    with transaction.atomic():
        if unused.update(stream_epoch=epoch, stream_sid=stream_sid, status=Status.STREAMING, last_seen_at=at) == 0:
            return False
        pages_look(call_sid=call_sid)
    return True


def stream_closed(*, call_sid: str, epoch: int, closing: Closing, at: datetime, now: float | None = None) -> bool:
    """Store why the stream of an epoch is over, with its figures. True once per epoch; a stale epoch writes nothing.

    An ordinary end ends the call here, before Twilio's own word of it, so that it cannot be started again. Anything else
    leaves it recovering: the caller may be there and the resume door will be asked.
    """
    reason = _end_reason(closing)
    mine = CallSession.objects.filter(call_sid=call_sid, epoch=epoch, closed_epoch__lt=epoch)
    with transaction.atomic():
        why = closing.why if reason is not None or closing.why not in lifecycle.STREAM_ENDS else "agent-lost"
        if mine.update(closed_epoch=epoch, closed_why=why, last_seen_at=at) == 0:
            return False
        detail = {"why": closing.why, "raw": closing.raw[:200], "figures": dict(closing.figures)}
        record_events(call_sid=call_sid, events=[NewEvent("stream-closed", Source.BRIDGE, at, detail, now)])
        call = CallSession.objects.get(call_sid=call_sid)
        call.commands.filter(to="live", done_at=None).update(done_at=at, problem="the stream ended first")
        if closing.why == "agent-ended" and closing.raw:
            for session in call.vapi_sessions.filter(ended_at=None).exclude(vapi_call_id=None):
                session_ended(vapi_call_id=session.vapi_call_id or "", raw=closing.raw)
        _keep_figures(call, closing.figures)  # after the sessions, as `report_arrived` does: the other order can deadlock
        if call.status not in BRIDGED:  # late news: the resume door has found the caller something else
            return True
        if reason is not None:
            end_call(call_sid=call_sid, at=at, reason=reason, raw=closing.raw)
        else:
            to = Status.TRANSFERRING if closing.why == "handed-over" else Status.RECOVERING
            transition(call_sid=call_sid, to=to, epoch=epoch, reason=closing.why, at=at)
    return True


def _end_reason(closing: Closing) -> EndReason | None:
    """What this end of a stream says about the call; None when the call must go on elsewhere."""
    usual = lifecycle.STREAM_ENDS.get(closing.why)
    if usual is not EndReason.AGENT_ENDED or not closing.raw:
        return usual
    reason = lifecycle.vapi_reason(closing.raw)
    return None if reason is EndReason.FAILED else reason


def _keep_figures(call: CallSession, figures: Mapping[str, Any]) -> None:
    """Add one stream's figures to those of the streams before it."""
    metrics, _ = CallMetrics.objects.get_or_create(call=call)
    if metrics.first_audio_ms is None:
        metrics.first_audio_ms = figures.get("first_audio_ms")
    metrics.interruptions += figures.get("interruptions", 0)
    metrics.time_to_silence_ms = [*metrics.time_to_silence_ms, *figures.get("time_to_silence_ms", [])]
    metrics.turn_latency_ms = [*metrics.turn_latency_ms, *figures.get("turn_latency_ms", [])]
    metrics.audio = dict(Counter(metrics.audio) + Counter(figures.get("audio", {})))
    metrics.save(update_fields=["first_audio_ms", "interruptions", "time_to_silence_ms", "turn_latency_ms", "audio"])


# -- the ladder --------------------------------------------------------------------------------------------------------


def next_step(*, call_sid: str, epoch: int, dial_status: str = "", at: datetime) -> ladder.Step:
    """What Twilio shall do with a caller whose stream, or whose talk with a person, is over; the rows say so afterwards.

    Asked again by a retry it gives the same answer. A stale epoch or an unknown call hangs up.
    """
    call = CallSession.objects.select_related("line").filter(call_sid=call_sid, epoch=epoch).first()
    if call is None:
        return ladder.HangUp()
    facts = _facts(call, dial_status)
    step = ladder.decide(facts)
    match step:
        case ladder.DialHuman(target):
            lower_rung(call_sid=call_sid, rung=Rung.HUMAN, why=call.closed_why or "unknown", at=at)
            ask(call=call, key=_dial_key(call_sid, epoch, target.slug), verb="dial", detail={"target": target.slug}, to="twilio", at=at)
            if call.status != Status.TRANSFERRING:
                transition(call_sid=call_sid, to=Status.TRANSFERRING, epoch=epoch, reason=call.closed_why, at=at)
        case ladder.Voicemail():
            lower_rung(call_sid=call_sid, rung=Rung.VOICEMAIL, why="nobody could talk", at=at)
            if call.status != Status.VOICEMAIL:
                transition(call_sid=call_sid, to=Status.VOICEMAIL, epoch=epoch, reason="nobody could talk", at=at)
        case ladder.HangUp(sorry=True):
            end_call(call_sid=call_sid, at=at, reason=EndReason.FAILED, raw="nobody could talk")
        case ladder.HangUp():
            end_call(call_sid=call_sid, at=at, reason=EndReason.HUMAN_ENDED if dial_status else EndReason.AGENT_ENDED)
    return step


def dial_result(*, call_sid: str, epoch: int, target: str, dial_status: str, at: datetime) -> bool:
    """Keep how ringing a target went. True for the first word of it; a repeat changes nothing."""
    dialled = OutboxCommand.objects.filter(key=_dial_key(call_sid, epoch, target), done_at=None)
    problem = "" if dial_status in ladder.TALKED else dial_status[:200]
    with transaction.atomic():
        if dialled.update(done_at=at, problem=problem) == 0:
            return False
        detail = {"target": target, "status": dial_status[:40]}
        record_events(call_sid=call_sid, events=[NewEvent("dial-result", Source.TWILIO, at, detail)])
    return True


def voicemail_left(*, call_sid: str, epoch: int, seconds: int, at: datetime) -> bool:
    """The caller left a message of so many seconds (0: none). True for the one that ended the call with it.

    Twilio's word of the hang-up may come first and has then ended the call as left: the message is the better word.
    """
    with transaction.atomic():
        if CallSession.objects.live().filter(call_sid=call_sid, epoch=epoch).exists():
            record_events(call_sid=call_sid, events=[NewEvent("voicemail-recorded", Source.TWILIO, at, {"seconds": seconds})])
        reason = EndReason.VOICEMAIL_LEFT if seconds > 0 else EndReason.CALLER_HUNG_UP
        outcome = None if seconds > 0 else Outcome.ABANDONED
        return end_call(call_sid=call_sid, at=at, reason=reason, outcome=outcome, epoch=epoch) or (
            seconds > 0 and _message_after_all(call_sid, epoch)
        )


def _message_after_all(call_sid: str, epoch: int) -> bool:
    """From voicemail a call can only end, so one that stood on that rung ended there."""
    at_voicemail = CallSession.objects.filter(call_sid=call_sid, epoch=epoch, rung=Rung.VOICEMAIL, status__in=OVER)
    gave_up = at_voicemail.filter(end_reason=EndReason.CALLER_HUNG_UP)
    if gave_up.update(end_reason=EndReason.VOICEMAIL_LEFT, outcome=lifecycle.outcome_of(EndReason.VOICEMAIL_LEFT)) == 0:
        return False
    pages_look(call_sid=call_sid)
    return True


def _facts(call: CallSession, dial_status: str) -> ladder.Facts:
    targets = call.line.handoff.all() if call.line else []
    dials = {command.detail["target"]: command for command in call.commands.filter(verb="dial")}
    wanted = call.commands.filter(verb="hand-over").last()
    return ladder.Facts(
        is_over=call.is_over,
        closed_why=call.closed_why if call.closed_epoch == call.epoch else "",
        targets=tuple(ladder.Target(target.slug, target.ring_seconds) for target in targets),
        wanted=wanted.detail.get("target", "") if wanted else "",
        tried=frozenset(slug for slug, command in dials.items() if command.done_at is not None),
        dial_status=dial_status,
        voicemail=bool(call.line and call.line.voicemail),
    )


def _dial_key(call_sid: str, epoch: int, slug: str) -> str:
    return f"dial:{call_sid}:{epoch}:{slug}"


# -- commands ----------------------------------------------------------------------------------------------------------


def ask(*, call: CallSession, key: str, verb: str, detail: Mapping[str, Any], at: datetime, to: str = "live") -> OutboxCommand:
    """Write down something to be done once. The same `key` again returns the command already there.

    `to` is live (the bridge that holds the call) or twilio. A live bridge is hinted after commit.
    """
    try:
        with transaction.atomic():
            said = redact_body(dict(detail))
            command = OutboxCommand.objects.create(call=call, key=key, to=to, verb=verb, detail=said, asked_at=at)
            if to == "live":
                transaction.on_commit(partial(publisher.tell, call.call_sid, live.COMMANDS))
    except IntegrityError:
        return OutboxCommand.objects.get(key=key)
    return command


def command_done(*, call_sid: str, epoch: int, pk: int, at: datetime) -> bool:
    """The live bridge of this epoch carried a command out. True for the first word of it."""
    asked = OutboxCommand.objects.filter(pk=pk, call__call_sid=call_sid, call__epoch=epoch, to="live", done_at=None)
    return asked.update(done_at=at) == 1


# -- cleaning up -------------------------------------------------------------------------------------------------------


def heartbeat(*, call_sid: str, epoch: int, at: datetime) -> bool:
    """The stream of this epoch is alive. False when the call is over or another epoch owns it."""
    return CallSession.objects.live().filter(call_sid=call_sid, epoch=epoch).update(last_seen_at=at) == 1


def sweep(*, now: datetime, ttl: timedelta) -> list[str]:
    """End the calls that gave no sign of life for `ttl`. Returns their CallSids; two sweeps at once share them.

    A caller who is with a person gives none while they talk, so such a call has the longest talk Twilio allows besides.
    """
    bridged = CallSession.objects.silent(now=now, ttl=ttl).exclude(status__in=ELSEWHERE)
    elsewhere = CallSession.objects.silent(now=now, ttl=ttl + LONGEST_ELSEWHERE).filter(status__in=ELSEWHERE)
    ended = []
    for call_sid, seen in [*bridged.values_list("call_sid", "last_seen_at"), *elsewhere.values_list("call_sid", "last_seen_at")]:
        with transaction.atomic():
            silent = CallSession.objects.live().filter(call_sid=call_sid, last_seen_at=seen)
            if silent.update(status=Status.ENDED, ended_at=now, end_reason=EndReason.TTL, outcome=Outcome.UNKNOWN) == 0:
                continue  # it gave a sign of life just now
            detail = {"reason": EndReason.TTL.value}
            record_events(call_sid=call_sid, events=[NewEvent("call-ended", Source.SYSTEM, now, detail)])
            _close_books_soon(call_sid)
        ended.append(call_sid)
    return ended
