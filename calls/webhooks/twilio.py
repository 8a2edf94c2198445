"""Twilio's doors: the signature first, then one service call, then TwiML. They never wait for Vapi or for the broker.

Every door may be knocked on twice, and out of order: each answers from the rows, so the second answer is the first one.
When the database does not answer in time, every door answers by heart (`by_heart_doors`); when that fails too it says 503,
and Twilio turns to the number's fallback: that of another house, or the fallback door here.
"""

from __future__ import annotations

import re
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from django.db import Error as DatabaseError
from django.db import transaction
from django.http import HttpResponse
from django.urls import Resolver404, resolve
from django.utils import timezone

from bridge import live, twilio_http
from calls import by_heart, callbacks, consent, endings, handover, ladder, publisher, queueing, services, spoken, tasks
from calls.models import OVER, CallSession, RecordingKind, Rung, Status
from calls.rescue import the_life
from calls.webhooks import by_heart_doors
from calls.webhooks.by_heart_doors import is_noticed, or_by_heart, twiml
from calls.webhooks.knock import Knock, twilio_door

ERROR_CODE = re.compile(r"[0-9]{5}", re.ASCII)
NOT_HAD = "112"  # the first digits of Twilio's codes for a document that could not be had; all others blame the document
NOT_RUNG = "132"  # of its codes for a <Dial> it could not carry out, an invalid number among them
I_AGREE = "1"
KEPT_TOO_LONG = timedelta(seconds=1)  # for a caller who hears nothing meanwhile, and whose next stream is still to open


# -- the caller's way --------------------------------------------------------------------------------------------------


@twilio_door
@or_by_heart(by_heart_doors.incoming_call)
def incoming_call(knock: Knock) -> HttpResponse:
    """Someone dialled one of our numbers. Answer with where to send the audio, and have the agent made meanwhile."""
    call = services.open_call(**_told(knock))
    if call is None:
        return twiml(twilio_http.say_and_hang_up(spoken.NO_AGENT_HERE))
    if call.is_over:
        return twiml(twilio_http.hang_up())
    if not _has_agent(call):  # none is published on this line, or none can be had now: its people take the call
        return _next(knock, call.epoch)
    if call.status == Status.WAITING:
        return _next(knock, call.epoch, turn=0)
    return twiml(_to_the_agent(call, is_first=True))


@twilio_door
@or_by_heart(by_heart_doors.wait)
def wait(knock: Knock, epoch: int, turn: int) -> HttpResponse:
    """A turn in the queue is over, or the caller pressed a key in it: is there a place with the AI by now?"""
    key = knock.get("Digits")
    if key == spoken.CALL_ME_BACK:
        call = CallSession.objects.select_related("line").filter(call_sid=knock.call_sid, epoch=epoch).first()
        if call is not None and callbacks.may_be_called(call):
            endings.callback_asked(call_sid=knock.call_sid, epoch=epoch, at=knock.at)
            return twiml(spoken.promised(call))
    if _end_if_over(knock):
        return twiml(twilio_http.hang_up())
    return _next(knock, epoch, turn=turn, wants_message=key == spoken.TAKE_A_MESSAGE)


@twilio_door
@or_by_heart(by_heart_doors.recording_consent)
def recording_consent(knock: Knock, epoch: int) -> HttpResponse:
    """The caller pressed a key when asked to agree to being recorded. Whichever it was, the agent is next."""
    if _end_if_over(knock):
        return twiml(twilio_http.hang_up())
    call = consent.answered(call_sid=knock.call_sid, epoch=epoch, agrees=knock.get("Digits") == I_AGREE, at=knock.at)
    if call is None or call.is_over:
        return twiml(twilio_http.hang_up())
    if not _has_agent(call):
        return _next(knock, epoch)
    return twiml(_to_the_agent(call, is_greeted=True))


@twilio_door
@is_noticed
@or_by_heart(by_heart_doors.resume)
def resume(knock: Knock, epoch: int) -> HttpResponse:
    """The stream of this epoch is over, whyever: what is next for a caller who is still there?"""
    if _end_if_over(knock) or by_heart_doors.is_done(knock, epoch):
        return twiml(twilio_http.hang_up())
    is_over = CallSession.objects.filter(call_sid=knock.call_sid, status__in=OVER).exists()
    answer = twiml(twilio_http.hang_up()) if is_over else _next(knock, epoch)  # a goodbye waits for nobody who writes
    publisher.task(tasks.end_sessions, knock.call_sid)
    return answer


@twilio_door
@or_by_heart(by_heart_doors.dial_result)
def dial_result(knock: Knock, epoch: int, target: str) -> HttpResponse:
    """Ringing a person, or talking with one, is over: on to the next, or goodbye."""
    status, bridged = knock.get("DialCallStatus"), knock.get("DialBridged") != "false"
    handover.dial_result(call_sid=knock.call_sid, epoch=epoch, target=target, status=status, bridged=bridged, at=knock.at)
    if _end_if_over(knock):
        return twiml(twilio_http.hang_up())
    return _next(knock, epoch)


@twilio_door
@or_by_heart(by_heart_doors.voicemail)
def voicemail(knock: Knock, epoch: int) -> HttpResponse:
    """A message was recorded, or the caller hung up after speaking."""
    seconds = knock.number("RecordingDuration")
    endings.message_left(call_sid=knock.call_sid, epoch=epoch, recording=knock.recording_sid, seconds=seconds, at=knock.at)
    return twiml(twilio_http.say_and_hang_up(spoken.THANK_YOU))


@twilio_door
@or_by_heart(by_heart_doors.callback)
def callback(knock: Knock, epoch: int) -> HttpResponse:
    """The caller pressed a key instead of waiting for the tone. Another key than the one offered leads to the tone."""
    call = CallSession.objects.select_related("line").filter(call_sid=knock.call_sid, epoch=epoch).first()
    if call is None:
        return twiml(twilio_http.hang_up())
    if knock.get("Digits") != spoken.CALL_ME_BACK or not callbacks.may_be_called(call):
        return twiml(twilio_http.hang_up() if _end_if_over(knock) or call.is_over else spoken.voicemail(call, offer=False))
    endings.callback_asked(call_sid=knock.call_sid, epoch=epoch, at=knock.at)
    return twiml(spoken.promised(call))


@twilio_door
@or_by_heart(by_heart_doors.whisper)
def whisper(knock: Knock, target: str) -> HttpResponse:
    """The person we rang has picked up: tell them, before the caller is put through, what it is about."""
    call_sid = knock.get("ParentCallSid") or knock.call_sid
    return twiml(twilio_http.whisper(handover.whisper(call_sid=call_sid, target=target, at=knock.at)))


@twilio_door
def fallback(knock: Knock) -> HttpResponse:
    """A document of ours could not be had, or not be read: go on from the rows, one rung lower if it was the document's fault.

    Here nobody is left to ask after us, so whatever the database says we answer: from memory, with a person or the voicemail.
    """
    if knock.get("ParentCallSid"):  # the whisper failed: the person hears the usual words
        return twiml(twilio_http.whisper(handover.WHISPER))
    door, parts = _door_of(knock.get("ErrorUrl"))
    try:
        return _go_on(knock, door, parts)
    except DatabaseError:
        return by_heart_doors.go_on(knock, door, parts)


@or_by_heart(by_heart_doors.go_on)
def _go_on(knock: Knock, door: str, parts: dict[str, Any]) -> HttpResponse:
    if _end_if_over(knock):
        return twiml(twilio_http.hang_up())
    call = services.open_call(**_told(knock))
    if call is None:
        return twiml(twilio_http.say_and_hang_up(spoken.NO_AGENT_HERE))
    if call.is_over:
        return twiml(twilio_http.hang_up())
    code = knock.get("ErrorCode") if ERROR_CODE.fullmatch(knock.get("ErrorCode")) else ""
    endings.fallback_asked(call_sid=call.call_sid, door=door, code=code, at=knock.at)
    match door:
        case "twilio-call" | "twilio-wait" if code.startswith(NOT_HAD) and call.status == Status.WAITING:
            return _next(knock, call.epoch, turn=parts.get("turn", -1) + 1)
        case "twilio-call" | "twilio-wait" if code.startswith(NOT_HAD) and call.status == Status.CONNECTING and _has_agent(call):
            return twiml(_to_the_agent(call))
        case "twilio-consent" if call.status == Status.CONNECTING and _has_agent(call):  # without a yes it is a no
            return twiml(_to_the_agent(call, is_greeted=True))
        case "twilio-dial":
            handover.lost_dial(call_sid=call.call_sid, epoch=call.epoch, target=parts["target"], at=knock.at)
        case "twilio-voicemail":  # what was recorded is told by the recording itself
            return twiml(twilio_http.say_and_hang_up(spoken.THANK_YOU))
        case "twilio-callback" if callbacks.may_be_called(call):  # one key is offered there, so that is what was pressed
            endings.callback_asked(call_sid=call.call_sid, epoch=call.epoch, at=knock.at)
            return twiml(spoken.promised(call))
    if code.startswith(NOT_RUNG):
        handover.dial_refused(call_sid=call.call_sid, at=knock.at)
    answer = _next(knock, call.epoch, only_down=True)
    publisher.task(tasks.end_sessions, call.call_sid)  # after: whoever is creating one now must see that it is of no use
    return answer


# -- what is only told -------------------------------------------------------------------------------------------------


@twilio_door
@or_by_heart(by_heart_doors.call_status)
def call_status(knock: Knock) -> HttpResponse:
    """How a call is doing. The end of the caller's own leg is the call's; a person's leg tells of itself."""
    if knock.get("ParentCallSid"):
        return _leg(knock, "")
    if knock.get("CallStatus") in endings.LEG_ENDS and not by_heart.is_to_be_told(now=knock.at):
        services.missed_call(**_told(knock))
    _end_if_over(knock)
    return twiml(twilio_http.nothing())


@twilio_door
@or_by_heart(by_heart_doors.leg_status)
def leg_status(knock: Knock, target: str) -> HttpResponse:
    """How the leg of a person we rang is doing."""
    return _leg(knock, target)


def _leg(knock: Knock, target: str) -> HttpResponse:
    handover.leg_told(call_sid=knock.get("ParentCallSid"), target=target, status=knock.get("CallStatus"), at=knock.at)
    return twiml(twilio_http.nothing())


@twilio_door
@or_by_heart(by_heart_doors.stream_status)
def stream_status(knock: Knock) -> HttpResponse:
    """How a stream is doing. Its start and end are the bridge's to tell; an error may be one the bridge never saw."""
    if knock.get("StreamEvent") == "stream-error":
        endings.stream_failed(call_sid=knock.call_sid, raw=knock.get("StreamError")[:200], at=knock.at)
        publisher.tell(knock.call_sid, live.SESSION)  # a bridge that does not know it yet looks, and leaves
    return twiml(twilio_http.nothing())


@twilio_door
@or_by_heart(by_heart_doors.call_recording)
def call_recording(knock: Knock) -> HttpResponse:
    """The recording of a whole call has begun, can be had, or came to nothing."""
    return _recording(knock, RecordingKind.CALL)


@twilio_door
@or_by_heart(by_heart_doors.voicemail_recording)
def voicemail_recording(knock: Knock) -> HttpResponse:
    """The recording of a message can be had, or came to nothing."""
    return _recording(knock, RecordingKind.VOICEMAIL)


def _recording(knock: Knock, kind: RecordingKind) -> HttpResponse:
    sid, status, seconds = knock.recording_sid, knock.get("RecordingStatus"), knock.number("RecordingDuration")
    if sid:
        endings.recording_told(call_sid=knock.call_sid, sid=sid, kind=kind, status=status, seconds=seconds, at=knock.at)
    return twiml(twilio_http.nothing())


# -- what several doors do ---------------------------------------------------------------------------------------------


def _told(knock: Knock) -> dict[str, Any]:
    """Whose call it is, as Twilio tells with every request that asks what is next."""
    return {
        "sid": knock.call_sid,
        "account_sid": knock.get("AccountSid")[:64],
        "from_number": knock.get("From")[:64],
        "to_number": knock.get("To")[:64],
        "at": knock.at,
    }


def _has_agent(call: CallSession) -> bool:
    """An agent has been asked for."""
    return call.version_id is not None and (call.rung < Rung.HUMAN or call.vapi_sessions.exists())


def _to_the_agent(call: CallSession, *, is_greeted: bool = False, is_first: bool = False, was_kept: bool = False) -> str:
    session = call.session_to_start
    if session is not None:  # a state, not "is it new": a repeat repairs a lost enqueue
        transaction.on_commit(partial(publisher.task, tasks.start_conversation, session))
    if call.epoch > 0:
        the_life().promised(call, was_kept=was_kept)
    elif call.stream_epoch < 0:
        by_heart.expect(call)
    return spoken.connect(call, is_greeted=is_greeted, is_first=is_first, was_kept=was_kept)


def _next(knock: Knock, epoch: int, *, turn: int | None = None, **more: bool) -> HttpResponse:
    step = handover.next_step(call_sid=knock.call_sid, epoch=epoch, at=knock.at, turn=turn, **more)
    if isinstance(step, ladder.Resume | ladder.TakeBack):
        call = CallSession.objects.select_related("line").get(call_sid=knock.call_sid)
        was_kept = call.epoch > 0 and timezone.now() - knock.at >= KEPT_TOO_LONG
        return twiml(_to_the_agent(call, was_kept=was_kept))
    if isinstance(step, handover.AskAnew):
        return twiml(spoken.ask_anew(step.epoch))
    here = CallSession.objects.select_related("line").filter(call_sid=knock.call_sid, epoch=epoch).first()
    if isinstance(step, ladder.Wait) and here is not None:
        place = queueing.place_to_say(here, turn=turn or 0, at=knock.at)
        return twiml(spoken.queued(here, turn=turn or 0, place=place))
    return twiml(spoken.step(step, here))


def _end_if_over(knock: Knock) -> bool:
    """True when Twilio says that the caller's leg is over; the call and its Vapi sessions then end here, if not before.

    Where a process is still to tell what was kept while the database was away, the end is written down after that.
    """
    status = knock.get("CallStatus")
    if status not in endings.LEG_ENDS:
        return False
    if by_heart.is_to_be_told(now=knock.at):
        return by_heart_doors.is_over(knock)
    if endings.leg_over(call_sid=knock.call_sid, status=status, at=knock.at):
        publisher.tell(knock.call_sid, live.SESSION)  # a stream that never got its `stop` looks, and leaves
    publisher.task(tasks.end_sessions, knock.call_sid)
    return True


def _door_of(url: str) -> tuple[str, dict[str, Any]]:
    """Which of our doors an address leads to, and what its blanks hold; empty when to none."""
    try:
        match = resolve(urlsplit(url).path)
    except (Resolver404, ValueError):
        return "", {}
    name = match.url_name or ""
    return (name, match.kwargs) if name.startswith("twilio-") else ("", {})
