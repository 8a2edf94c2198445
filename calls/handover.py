"""From the stream to people: whom to ring next, what Twilio tells of ringing them, and what they hear first.

`calls.ladder` decides; here the rows say so afterwards. Each target is a command to Twilio, asked once per epoch, done
when Twilio tells what became of it; what its own leg tells (ringing, picked up, over) is written down beside.

A number is checked again before it is rung: a row may have been changed behind the form that refuses costly ones.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import datetime

from django.db import transaction
from django.db.models import prefetch_related_objects

from agents import hours, limits
from agents.models import HandoffTarget
from calls import accounts, admission, evidence, ladder, lifecycle, parked, queueing, resuming, services, turned_away
from calls.history import NewEvent, record_events
from calls.models import CallSession, EndReason, OutboxCommand, Rung, Source, Status, VapiAccount
from calls.taking_back import TAKEN_BACK

log = logging.getLogger(__name__)

TALKED = frozenset({"completed", "answered"})  # Twilio's DialCallStatus when somebody was on the line
LEG_STATES = {"in-progress": evidence.PICKED_UP}  # the other states of a leg keep Twilio's word
LEG_WORDS = frozenset({"queued", "initiated", "ringing", "in-progress", "completed", "busy", "failed", "no-answer", "canceled"})
NOT_PUT_THROUGH = "hung up before the caller was put through"
UNKNOWN = "unknown"  # nobody told us how it went
CLOSED = "closed-hours"
BY_HEART = "led-by-heart"
ALL_TALK = "all agents talk"
NOBODY = "nobody could talk"
WHISPER = "A caller from the support line."


@dataclass(frozen=True, slots=True)
class AskAnew:
    """The stream that was asked about is long over, and the call goes on: the door of this epoch knows what is next."""

    epoch: int


def next_step(
    *, call_sid: str, epoch: int, at: datetime, only_down: bool = False, turn: int | None = None, wants_message: bool = False
) -> ladder.Step | AskAnew:
    """What Twilio shall do with a caller whose stream, talk with a person, or turn in the queue, is over; the rows say so afterwards.

    `only_down`: not to the AI again, for the way to it is what failed. `turn`: of the queue, in which the caller may have
    pressed the key for a message (`wants_message`), or been given the AI already. Asked again by a retry it gives the same answer.
    Who asks for an older epoch may have been led out of the newest stream by a late redirect, or repeat an old request: that
    is told to ask anew, and changes nothing. An unknown call, or one that is over, hangs up.
    """
    with transaction.atomic():
        call = evidence.hold(call_sid=call_sid, at=at, epoch=epoch)
        if call is None:
            return ladder.Resume() if resuming.is_resumed(call_sid=call_sid, epoch=epoch) else _asked_late(call_sid, epoch)
        if turn is not None and call.status in admission.WITH_AGENT:
            return ladder.Resume()
        targets = _may_be_rung(call, at)
        if call.status == Status.WAITING and not only_down:
            facts = _facts_in_queue(call, targets, at, turn=turn or 0, wants_message=wants_message)
        else:
            prefetch_related_objects([call], "vapi_sessions", "commands")  # asked about again and again until it is decided
            facts = _facts(call, targets, at, resumable=not only_down and not turned_away.never_came(call, at))
        step = ladder.decide(facts)
        if call.status == Status.WAITING and isinstance(step, ladder.Resume):
            if queueing.admitted(call, step, at=at):
                return step
            step = ladder.decide(replace(facts, has_room=False))  # the place went to somebody else in this moment
        if facts.targets and not facts.is_open and isinstance(step, ladder.TakeBack | ladder.Voicemail):
            note_closed(call, at)
        return _taken(call, step, facts, at)


def _taken(call: CallSession, step: ladder.Step, facts: ladder.Facts, at: datetime) -> ladder.Step:
    """The rows say that this is the step; what is done of it, when somebody else was first."""
    match step:
        case ladder.TakeBack():
            why = "nobody-answered" if facts.is_open else CLOSED
            return step if resuming.taken_back(call, why=why, at=at) else ladder.HangUp()
        case ladder.Resume():
            goes_on = turned_away.next_stream(call, at=at) if facts.turned_away else resuming.elsewhere(call, step, at=at)
            return step if goes_on else ladder.HangUp()
        case ladder.DialHuman(target):
            queueing.left(call, "person", at=at)
            _ask_to_dial(call, target.slug, at)
            _move(call, Status.TRANSFERRING, call.closed_why, at)
        case ladder.Voicemail():
            queueing.left(call, "voicemail", at=at)
            services.lower_rung(call_sid=call.call_sid, rung=Rung.VOICEMAIL, why=NOBODY, at=at)
            _move(call, Status.VOICEMAIL, NOBODY, at)
        case ladder.HangUp(sorry=True):
            services.end_call(call_sid=call.call_sid, at=at, reason=EndReason.FAILED, raw=_why_no_agent(call) or NOBODY)
        case ladder.HangUp():
            reason = EndReason.HUMAN_ENDED if facts.talked else lifecycle.STREAM_ENDS.get(facts.closed_why, EndReason.AGENT_ENDED)
            services.end_call(call_sid=call.call_sid, at=at, reason=reason)
    return step


def _why_no_agent(call: CallSession) -> str:
    """The vendor's own word of how the newest agent ended, or ours of why there was none; nothing when it is not known."""
    newest = max(call.vapi_sessions.all(), key=lambda session: session.n, default=None)
    return (newest.ended_reason or newest.failure) if newest else ""


def _asked_late(call_sid: str, epoch: int) -> ladder.Step | AskAnew:
    later = CallSession.objects.live().filter(call_sid=call_sid, epoch__gt=epoch).values_list("epoch", flat=True).first()
    return ladder.HangUp() if later is None else AskAnew(later)


def dial_result(*, call_sid: str, epoch: int, target: str, status: str, bridged: bool = True, at: datetime) -> bool:
    """Keep how ringing a target went, by Twilio's DialCallStatus. True for the first word of it; a repeat changes nothing.

    Not `bridged`: somebody picked up and left again while the whisper was said, so the next one is rung.
    """
    with transaction.atomic():
        call = evidence.hold(call_sid=call_sid, at=at, epoch=epoch)
        if call is None:
            return False
        talked = status in TALKED and bridged
        problem = "" if talked else NOT_PUT_THROUGH if status in TALKED else (status or UNKNOWN)[:200]
        command = _ask_to_dial(call, target, at)
        if command.done_at is not None:
            return False
        OutboxCommand.objects.filter(pk=command.pk).update(done_at=at, problem=problem)
        evidence.note_once(call=call, kind="dial-result", at=at, detail={"target": target, "status": (status or UNKNOWN)[:40]})
        evidence.correct(call_sid=call_sid)
    return True


def leg_told(*, call_sid: str, target: str, status: str, at: datetime) -> bool:
    """What the leg of a person tells of itself, by Twilio's CallStatus. True when it is news."""
    if status not in LEG_WORDS:
        return False
    with transaction.atomic():
        call = evidence.hold(call_sid=call_sid, at=at)
        if call is None:
            return False
        services.lower_rung(call_sid=call_sid, rung=Rung.HUMAN, why=call.closed_why or "unknown", at=at)
        detail = {"target": target or _rung_last(call), "status": LEG_STATES.get(status, status)}
        is_news = evidence.note_once(call=call, kind="dial-result", at=at, detail=detail)
        evidence.correct(call_sid=call_sid)
    return is_news


def whisper(*, call_sid: str, target: str, at: datetime) -> str:
    """Somebody picked up: what they hear before the caller is put through. The reason and the summary are the agent's words."""
    leg_told(call_sid=call_sid, target=target, status="in-progress", at=at)
    call = CallSession.objects.filter(call_sid=call_sid).first()
    asked = call.commands.filter(verb="hand-over").last() if call else None
    about = [asked.detail.get("reason", ""), asked.detail.get("summary", "")] if asked else []
    return " ".join([WHISPER, *filter(None, about)])


def lost_dial(*, call_sid: str, epoch: int, target: str, at: datetime) -> bool:
    """Twilio could not tell us how ringing a target went. Whoever picked up has talked, by all we know."""
    call = CallSession.objects.filter(call_sid=call_sid).first()
    status = "completed" if call and target in evidence.picked_up(call) else UNKNOWN
    return dial_result(call_sid=call_sid, epoch=epoch, target=target, status=status, at=at)


def note_closed(call: CallSession, at: datetime) -> None:
    """A person was needed while nobody is at work; once for each stream."""
    if not call.events.filter(kind=CLOSED, detail__epoch=call.epoch).exists():
        record_events(call_sid=call.call_sid, events=[NewEvent(CLOSED, Source.SYSTEM, at, {"epoch": call.epoch})])


def led_by_heart(*, call_sid: str, epoch: int, at: datetime) -> None:
    """Nobody could write it down when Twilio was told to ring a person, or to take a message: a caller who is silent may be with them."""
    with transaction.atomic():
        call = evidence.hold(call_sid=call_sid, at=at)
        if call is not None:
            key, detail = f"{BY_HEART}:{call_sid}:{at.isoformat()}", {"epoch": epoch}
            told = services.ask(call=call, key=key, verb=BY_HEART, detail=detail, at=at, to="twilio")
            OutboxCommand.objects.filter(pk=told.pk, done_at=None).update(done_at=at)


def tried(call: CallSession) -> frozenset[str]:
    """Those of whom Twilio told, on this call, how ringing them went."""
    return frozenset(command.detail["target"] for command in call.commands.all() if command.verb == "dial" and command.done_at is not None)


def dial_refused(*, call_sid: str, at: datetime) -> bool:
    """Twilio could not even ring whom it was told to ring: the next one is tried. True when there was somebody."""
    call = CallSession.objects.filter(call_sid=call_sid).first()
    rung = call.commands.filter(verb="dial", done_at=None).last() if call else None
    if call is None or rung is None:
        return False
    return dial_result(call_sid=call_sid, epoch=call.epoch, target=rung.detail["target"], status="failed", at=at)


def is_allowed(*, slug: str, number: str) -> bool:
    """False for a number nobody may be handed to, which is an alarm: the desk takes no such number."""
    if limits.target_number_problem(number):
        log.error("A hand-over target has a number that may not be rung", extra={"target": slug})
        return False
    return True


def _may_be_rung(call: CallSession, at: datetime) -> list[HandoffTarget]:
    """The people behind this call's line, but for those whose number is refused; the call's log says so once."""
    allowed: list[HandoffTarget] = []
    for target in call.line.handoff.all() if call.line else []:
        if is_allowed(slug=target.slug, number=target.number):
            allowed.append(target)
        elif not call.events.filter(kind="dial-refused", detail__target=target.slug).exists():
            event = NewEvent("dial-refused", Source.SYSTEM, at, {"target": target.slug})
            record_events(call_sid=call.call_sid, events=[event])
    return allowed


def _facts(call: CallSession, targets: list[HandoffTarget], at: datetime, *, resumable: bool) -> ladder.Facts:
    commands, key = call.commands.all(), services.hand_over_key(call.call_sid, call.epoch)
    done = [command for command in commands if command.verb == "dial" and command.done_at is not None]
    wanted = max((command for command in commands if command.verb == "hand-over"), key=lambda command: command.pk, default=None)
    wish = next((command for command in commands if command.key == key), None)
    closed_why = call.closed_why if call.closed_epoch == call.epoch else ""
    by_wish = wish is not None or closed_why == "handed-over"
    again = resumable and resuming.may_be_resumed(call)
    back = resumable and resuming.agent_at_hand(call)
    left = accounts.left(call, at=at) if again or back else accounts.Left(main=False, backup=False)
    return ladder.Facts(
        is_over=call.is_over,
        closed_why=closed_why,
        targets=tuple(ladder.Target(target.slug, target.ring_seconds) for target in targets),
        wanted=wanted.detail.get("target", "") if wanted else "",
        tried=tried(call),
        talked=any(not command.problem for command in done),
        sent_on=call.status in (Status.TRANSFERRING, Status.VOICEMAIL),
        at_voicemail=call.status == Status.VOICEMAIL,
        voicemail=bool(call.line and call.line.voicemail),
        losses=resuming.losses(call, at),
        deaths=resuming.deaths(call, at),
        parked=parked.is_said(call),
        turned_away=turned_away.in_a_row(call),
        resumable=again,
        main=left.main,
        backup=left.backup,
        is_open=hours.is_open(hours.of(call.line), at),
        by_wish=by_wish,
        message_wanted=wish is not None and wish.detail.get("to") == "voicemail",
        agent_at_hand=back and (left.main or left.backup),
        taken_back=call.events.filter(kind=TAKEN_BACK).count(),
        has_room=not (back and by_wish) or admission.room(at).has_place,
    )


def _facts_in_queue(call: CallSession, targets: list[HandoffTarget], at: datetime, *, turn: int, wants_message: bool) -> ladder.Facts:
    """Of a caller who waits for a first agent: nothing has happened yet but the wait."""
    entry, voicemail = call.waiting, bool(call.line and call.line.voicemail)
    waits = not (wants_message and voicemail)
    has_room = waits and admission.room(at, entry).has_place
    agent_at = accounts.first(at=at, people=bool(targets) or voicemail) if has_room else None
    return ladder.Facts(
        is_over=call.is_over,
        closed_why="",
        targets=tuple(ladder.Target(target.slug, target.ring_seconds) for target in targets),
        voicemail=voicemail,
        is_open=hours.is_open(hours.of(call.line), at),
        main=agent_at == VapiAccount.MAIN,
        backup=agent_at == VapiAccount.BACKUP,
        message_wanted=not waits,
        waiting_s=queueing.waited_s(entry, turn=turn, at=at) if waits else None,
        has_room=has_room,
    )


def _ask_to_dial(call: CallSession, target: str, at: datetime) -> OutboxCommand:
    why = call.closed_why or (ALL_TALK if call.status == Status.WAITING else "unknown")
    services.lower_rung(call_sid=call.call_sid, rung=Rung.HUMAN, why=why, at=at)
    key = f"dial:{call.call_sid}:{call.epoch}:{target}"
    return services.ask(call=call, key=key, verb="dial", detail={"target": target}, at=at, to="twilio")


def _move(call: CallSession, to: Status, why: str, at: datetime) -> None:
    if call.status != to:
        services.transition(call_sid=call.call_sid, to=to, epoch=call.epoch, reason=why, at=at)


def _rung_last(call: CallSession) -> str:
    dial = call.commands.filter(verb="dial").last()
    return str(dial.detail["target"]) if dial else ""
