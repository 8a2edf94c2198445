"""Twilio's doors: the signature first, then one service call, then TwiML. They never wait for Vapi or for the broker.

Every door may be knocked on twice, and out of order: each answers from the rows, so the second answer is the first one.
When the database does not answer the door says 503, and Twilio turns to the number's fallback, where a person is rung.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial, wraps
from typing import Concatenate, ParamSpec

from django.conf import settings
from django.core.exceptions import BadRequest, RequestDataTooBig, SuspiciousOperation
from django.db import DatabaseError, transaction
from django.http import HttpRequest, HttpResponse, QueryDict, UnreadablePostError
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from agents.models import HandoffTarget
from bridge import live, stream_token, twilio_http
from bridge.routing import MEDIA_PATH
from bridge.twilio_http import TwilioProof
from calls import history, ladder, publisher, services, tasks
from calls.history import NewEvent
from calls.models import CallSession, EndReason, Outcome, Source, Status
from calls.webhooks.refusal import refusal

log = logging.getLogger(__name__)

CALL_SID = re.compile(r"CA[0-9a-fA-F]{32}", re.ASCII)
RECORDING_SID = re.compile(r"RE[0-9a-f]{32}", re.ASCII)
PICKED_UP = "picked-up"
E164 = re.compile(r"\+[1-9][0-9]{1,14}", re.ASCII)
FORM_LIMIT = 256 * 1024
FORM = "application/x-www-form-urlencoded"
ENDINGS = {
    "completed": EndReason.CALLER_HUNG_UP,
    "canceled": EndReason.CALLER_HUNG_UP,
    "busy": EndReason.CALLER_HUNG_UP,
    "no-answer": EndReason.CALLER_HUNG_UP,
    "failed": EndReason.FAILED,
}
TALKING = (Status.STREAMING, Status.RECOVERING)  # a caller who leaves from anywhere else gave up

NO_AGENT_HERE = "Sorry, nobody answers this number. Please check the number and call again. Goodbye."
ONE_MOMENT = "One moment, please."
LEAVE_A_MESSAGE = "Nobody is free right now. Please leave a message after the tone, and we will call you back."
SORRY = "I'm sorry, something went wrong on our side. Please call again in a few minutes. Goodbye."
THANK_YOU = "Thank you. Goodbye."
WHISPER = "A caller from the support line."

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Knock:
    """A proven request: Twilio says this about this call."""

    call_sid: str
    fields: QueryDict
    at: datetime

    def get(self, name: str) -> str:
        return self.fields.get(name, "")


def twilio_door(view: Callable[Concatenate[Knock, P], HttpResponse]) -> Callable[..., HttpResponse]:
    """Only signed forms about a call come through: 400 malformed, 403 unproven, 413 too long, 503 without a database."""

    @csrf_exempt
    @require_POST
    @wraps(view)
    def door(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        if request.content_type != FORM:
            return refusal("The request is not a form.", 400)
        try:
            too_long = len(request.body) > FORM_LIMIT
            fields = QueryDict() if too_long else request.POST
        except RequestDataTooBig:
            too_long = True
        except (SuspiciousOperation, BadRequest, UnreadablePostError):
            return refusal("The form could not be read.", 400)
        if too_long:
            return refusal("The form is too long.", 413)
        if not _proof(settings.PUBLIC_URL, tuple(settings.TWILIO_AUTH_TOKENS)).form(
            path=request.get_full_path(), fields=fields, headers=request.headers
        ):
            return refusal("This request was not signed by Twilio.", 403)
        if not CALL_SID.fullmatch(fields.get("CallSid", "")):
            return refusal("The form names no call.", 400)
        try:
            return view(Knock(fields["CallSid"], fields, timezone.now()), *args, **kwargs)
        except DatabaseError as problem:
            log.error("A door of Twilio found no database", extra={"door": view.__name__, "problem": type(problem).__name__})
            return refusal("The call could not be looked up.", 503)

    return door


@twilio_door
def incoming_call(knock: Knock) -> HttpResponse:
    """Someone dialled one of our numbers. Answer with where to send the audio, and have the agent made meanwhile."""
    call = services.open_call(
        sid=knock.call_sid,
        account_sid=knock.get("AccountSid")[:64],
        from_number=knock.get("From")[:64],
        to_number=knock.get("To")[:64],
        at=knock.at,
    )
    if call is None:
        return twiml(twilio_http.say_and_hang_up(NO_AGENT_HERE))
    if call.is_over:
        return twiml(twilio_http.hang_up())
    if call.version_id is None:  # no agent is published on this line: its people take the call
        return twiml(_said(services.next_step(call_sid=call.call_sid, epoch=call.epoch, at=knock.at), knock, call.epoch))
    session = call.session_to_start
    if session is not None:  # a state, not "is it new": a repeat repairs a lost enqueue
        transaction.on_commit(partial(publisher.task, tasks.start_conversation, session))
    return twiml(_connect(call))


@twilio_door
def call_status(knock: Knock) -> HttpResponse:
    """How a call is doing. Only the end of the caller's own leg matters: legs we dialled out report at the dial door."""
    if not knock.get("ParentCallSid"):
        _end_if_over(knock)
    return twiml(twilio_http.nothing())


@twilio_door
def stream_status(knock: Knock) -> HttpResponse:
    """How a stream is doing. Its start and end are the bridge's to tell; an error may be one the bridge never saw."""
    if knock.get("StreamEvent") == "stream-error":
        detail = {"why": "stream-error", "raw": knock.get("StreamError")[:200]}
        history.record_events(call_sid=knock.call_sid, events=[NewEvent("stream-closed", Source.TWILIO, knock.at, detail)])
    return twiml(twilio_http.nothing())


@twilio_door
def resume(knock: Knock, epoch: int) -> HttpResponse:
    """The stream of this epoch is over, whyever: what is next for a caller who is still there?"""
    if _end_if_over(knock):
        return twiml(twilio_http.hang_up())
    step = services.next_step(call_sid=knock.call_sid, epoch=epoch, at=knock.at)
    if CallSession.objects.filter(call_sid=knock.call_sid, epoch=epoch).exists():  # a later stream's session is none of ours
        publisher.task(tasks.end_sessions, knock.call_sid)
    return twiml(_said(step, knock, epoch))


@twilio_door
def dial_result(knock: Knock, epoch: int, target: str) -> HttpResponse:
    """Ringing a person, or talking with one, is over: on to the next, or goodbye."""
    status = knock.get("DialCallStatus")
    services.dial_result(call_sid=knock.call_sid, epoch=epoch, target=target, dial_status=status, at=knock.at)
    if status not in ladder.TALKED and _end_if_over(knock):
        return twiml(twilio_http.hang_up())
    step = services.next_step(call_sid=knock.call_sid, epoch=epoch, dial_status=status, at=knock.at)
    return twiml(_said(step, knock, epoch))


@twilio_door
def whisper(knock: Knock, target: str) -> HttpResponse:
    """The person we rang has picked up: tell them, before the caller is put through, what it is about."""
    call_sid = knock.get("ParentCallSid") or knock.call_sid
    call = CallSession.objects.filter(call_sid=call_sid).first()
    if call is None:
        return twiml(twilio_http.whisper(WHISPER))
    if not _picked_up(call):
        event = NewEvent("dial-result", Source.TWILIO, knock.at, {"target": target, "status": PICKED_UP})
        history.record_events(call_sid=call_sid, events=[event])
    asked = call.commands.filter(verb="hand-over").last()
    about = [asked.detail.get("reason", ""), asked.detail.get("summary", "")] if asked else []
    return twiml(twilio_http.whisper(" ".join([WHISPER, *filter(None, about)])))


@twilio_door
def voicemail(knock: Knock, epoch: int) -> HttpResponse:
    """A message was recorded, or the caller hung up instead. What we know of the recording is kept before the call ends."""
    seconds = int(knock.get("RecordingDuration")) if knock.get("RecordingDuration").isdecimal() else 0
    call = CallSession.objects.filter(call_sid=knock.call_sid, epoch=epoch).first()
    if call is not None and seconds:
        _keep_recording(knock, call, seconds)
    services.voicemail_left(call_sid=knock.call_sid, epoch=epoch, seconds=seconds, at=knock.at)
    return twiml(twilio_http.say_and_hang_up(THANK_YOU))


# -- what several doors do ---------------------------------------------------------------------------------------------


def _connect(call: CallSession) -> str:
    """The answer to an incoming call, made from the row alone: a repeat gets the same bytes."""
    expires = int(call.started_at.timestamp()) + stream_token.LIFE_S
    key = stream_token.key_from(settings.SECRET_KEY)
    return twilio_http.connect_stream(
        disclosure=call.line.disclosure if call.line else "",
        stream_url=f"{twilio_http.socket_url(settings.PUBLIC_URL)}/{MEDIA_PATH}",
        stream_status_url=_url("twilio-stream-status"),
        token=stream_token.issue(key=key, call_sid=call.call_sid, epoch=call.epoch, expires=expires),
        resume_url=_url("twilio-resume", call.epoch),
    )


def _said(step: ladder.Step, knock: Knock, epoch: int) -> str:
    """A step of the ladder in Twilio's words."""
    match step:
        case ladder.DialHuman(target):
            return twilio_http.dial_human(
                sentence=ONE_MOMENT,
                number=HandoffTarget.objects.get(slug=target.slug).number,
                whisper_url=_url("twilio-whisper", target.slug),
                action_url=_url("twilio-dial", epoch, target.slug),
                caller_id=knock.get("To") if E164.fullmatch(knock.get("To")) else "",
                ring_seconds=target.ring_seconds,
            )
        case ladder.Voicemail():
            return twilio_http.voicemail(prompt=LEAVE_A_MESSAGE, action_url=_url("twilio-voicemail", epoch))
        case ladder.HangUp(sorry=True):
            return twilio_http.say_and_hang_up(SORRY)
        case ladder.HangUp():
            return twilio_http.hang_up()


def _end_if_over(knock: Knock) -> bool:
    """True when Twilio says that the caller's leg is over; the call and its Vapi sessions then end here, if not before."""
    reason = ENDINGS.get(knock.get("CallStatus"))
    if reason is None:
        return False
    call = CallSession.objects.live().filter(call_sid=knock.call_sid).first()
    if call is not None:
        outcome = None
        if call.status == Status.TRANSFERRING and _picked_up(call):
            reason = EndReason.HUMAN_ENDED
        elif call.status not in TALKING and reason is EndReason.CALLER_HUNG_UP:
            outcome = Outcome.ABANDONED
        services.end_call(call_sid=knock.call_sid, at=knock.at, reason=reason, outcome=outcome, raw=knock.get("CallStatus"))
        publisher.tell(knock.call_sid, live.SESSION)  # a stream that never got its `stop` looks, and leaves
    publisher.task(tasks.end_sessions, knock.call_sid)
    return True


def _picked_up(call: CallSession) -> bool:
    return call.events.filter(kind="dial-result", detail__status=PICKED_UP).exists()


def _keep_recording(knock: Knock, call: CallSession, seconds: int) -> None:
    """Keep which recording it is, by id: its address opens it to anybody who has it. A late one is still noted."""
    named = RECORDING_SID.search(knock.get("RecordingUrl"))
    recording = named[0] if named else ""
    kept = history.store_inbox(
        source=Source.TWILIO,
        key=hashlib.sha256(f"twilio|voicemail|{knock.call_sid}|{recording}".encode()).hexdigest(),
        kind="voicemail",
        body={"RecordingSid": recording, "RecordingDuration": seconds},
        vapi_call_id="",
        at=knock.at,
    )
    if kept is None:
        return
    history.inbox_done(pk=kept.pk, at=knock.at, call=call)
    if call.is_over:
        event = NewEvent("voicemail-recorded", Source.TWILIO, knock.at, {"seconds": seconds})
        history.record_events(call_sid=knock.call_sid, events=[event])


def _url(door: str, *parts: int | str) -> str:
    return f"{settings.PUBLIC_URL}{reverse(door, args=parts)}"


def twiml(document: str) -> HttpResponse:
    return HttpResponse(document, content_type="text/xml; charset=utf-8")


@lru_cache(maxsize=4)
def _proof(public_url: str, tokens: tuple[str, ...]) -> TwilioProof:
    return TwilioProof(public_url=public_url, tokens=tokens)
