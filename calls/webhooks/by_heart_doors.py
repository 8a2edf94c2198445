"""What Twilio's doors say while the database is away: from the signed request, this process's memory, and marks on the disk.

`or_by_heart` asks the rows first, unless the database is known to be away, and waits for them no longer than a caller does
(`patience.WHERE_A_CALLER_WAITS_S`), all statements together. One that failed sooner, and is there, is asked a second time: what is in
the rows is worth more than what is known by heart. Whether it is away is found out meanwhile by the keeper's thread, for
whoever knocks next; what looks like a mistake of ours is one if the database takes writes. What Twilio tells meanwhile goes to the spool.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from django.db import Error as DatabaseError
from django.db.models import QuerySet
from django.http import HttpResponse

from bridge import twilio_http
from calls import away, by_heart, endings, handover, let_in, lifecycle, patience, resuming_by_heart, said_before, services, spoken
from calls.models import OVER, CallSession, OutboxCommand, RecordingKind
from calls.storing import the_keeper
from calls.webhooks.knock import Knock

P = ParamSpec("P")
TRIES = 2
GLANCE_S = 0.05
Door = Callable[Concatenate[Knock, P], HttpResponse]


def or_by_heart(answer: Door[P]) -> Callable[[Door[P]], Door[P]]:
    """The door's own answer, or this one while the database is away."""

    def decorated(view: Door[P]) -> Door[P]:
        @wraps(view)
        def door(knock: Knock, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
            keeper = the_keeper()
            mistake: Exception | None = None
            with patience.of_all(patience.WHERE_A_CALLER_WAITS_S):
                for _ in range(TRIES):
                    if keeper.is_away or not patience.left():
                        break
                    try:
                        by_heart.enter(knock.call_sid)
                        return view(knock, *args, **kwargs)
                    except DatabaseError as problem:
                        if not away.is_suspicious(problem):
                            raise
                        with patience.waiting():
                            is_away = keeper.is_found_away(within_s=patience.left())
                        mistake = problem if is_away is False and not away.is_gone(problem) else None
            if mistake is not None:
                raise mistake
            try:
                return answer(knock, *args, **kwargs)
            finally:
                keeper.look()

        return door

    return decorated


def is_noticed(view: Callable[[Knock, int], HttpResponse]) -> Callable[[Knock, int], HttpResponse]:
    """While this door is busy with an answer nobody sends Twilio to it once more, nor by heart when it has had one."""

    @wraps(view)
    def door(knock: Knock, epoch: int) -> HttpResponse:
        with by_heart.being_asked(knock.call_sid, epoch):
            answer = view(knock, epoch)
            by_heart.was_answered(knock.call_sid, epoch)
            return answer

    return door


def incoming_call(knock: Knock) -> HttpResponse:
    """The line's agent, as far as this process knows the line; else a person or the voicemail."""
    if is_over(knock):
        return twiml(twilio_http.hang_up())
    numbers = {"from_number": knock.get("From")[:64], "to_number": knock.get("To")[:64]}
    answer = by_heart.opened(sid=knock.call_sid, account_sid=knock.get("AccountSid")[:64], at=knock.at, **numbers)
    if answer is None:
        told = {"sid": knock.call_sid, "account_sid": knock.get("AccountSid")[:64], **numbers}
        the_keeper().append([{"kind": "twilio", "verb": services.open_call.__name__, "told": told, "at": knock.at.timestamp()}])
    if answer is None or answer.version is None:
        return down(knock, "")
    at = by_heart.started_at(knock.call_sid) or knock.at
    return twiml(spoken.connect_by_heart(knock.call_sid, answer, at=at))


def wait(knock: Knock, epoch: int, turn: int) -> HttpResponse:
    """Whether there is a place with the AI by now nobody knows: a person, or what the caller would rather have than wait."""
    key = knock.get("Digits")
    if key == spoken.CALL_ME_BACK:
        return callback(knock, epoch)
    if is_over(knock):
        return twiml(twilio_http.hang_up())
    return twiml(spoken.voicemail_by_heart(epoch)) if key == spoken.TAKE_A_MESSAGE else down(knock, "", epoch)


def recording_consent(knock: Knock, epoch: int) -> HttpResponse:
    """Nobody can write a yes down, so it is a no; the agent is next."""
    return incoming_call(knock)


def resume(knock: Knock, epoch: int) -> HttpResponse:
    """The stream is over: goodbye if that was what it ended with, else the agent again, else somebody who does not need our rows."""
    if is_over(knock) or is_done(knock, epoch) or is_read_to_be_over(knock):
        return twiml(twilio_http.hang_up())
    if let_in.is_let_in(knock.call_sid, epoch + 1):
        return twiml(spoken.ask_anew(epoch + 1))
    its = {"account_sid": knock.get("AccountSid")[:64], "to_number": knock.get("To")[:64]}
    again = resuming_by_heart.elsewhere(call_sid=knock.call_sid, epoch=epoch, at=knock.at, **its)
    if again is None:
        return down(knock, "", epoch)
    answer, at = again
    return twiml(spoken.connect_by_heart(knock.call_sid, answer, epoch=epoch + 1, at=at))


def dial_result(knock: Knock, epoch: int, target: str) -> HttpResponse:
    status, bridged = knock.get("DialCallStatus"), knock.get("DialBridged") != "false"
    tell(knock, handover.dial_result, epoch=epoch, target=target, status=status, bridged=bridged)
    if is_over(knock) or (status in handover.TALKED and bridged):
        return twiml(twilio_http.hang_up())
    return down(knock, target, epoch)


def voicemail(knock: Knock, epoch: int) -> HttpResponse:
    seconds = knock.number("RecordingDuration")
    tell(knock, endings.message_left, epoch=epoch, recording=knock.recording_sid, seconds=seconds)
    return twiml(twilio_http.say_and_hang_up(spoken.THANK_YOU))


def callback(knock: Knock, epoch: int) -> HttpResponse:
    """Whoever asks to be called back will be; when, nobody can say now."""
    if knock.get("Digits") != spoken.CALL_ME_BACK:
        return twiml(twilio_http.hang_up() if is_over(knock) else spoken.voicemail_by_heart(epoch))
    tell(knock, endings.callback_asked, epoch=epoch)
    return twiml(twilio_http.say_and_hang_up(spoken.THANK_YOU))


def whisper(knock: Knock, target: str) -> HttpResponse:
    """Somebody picked up; why they were rung, nobody can look up now."""
    tell_of_leg(knock, target, "in-progress")
    return twiml(twilio_http.whisper(handover.WHISPER))


def leg_status(knock: Knock, target: str) -> HttpResponse:
    tell_of_leg(knock, target, knock.get("CallStatus"))
    return twiml(twilio_http.nothing())


def call_status(knock: Knock) -> HttpResponse:
    if knock.get("ParentCallSid"):
        return leg_status(knock, "")
    is_over(knock)
    return twiml(twilio_http.nothing())


def stream_status(knock: Knock) -> HttpResponse:
    if knock.get("StreamEvent") == "stream-error":
        tell(knock, endings.stream_failed, raw=knock.get("StreamError")[:200])
    return twiml(twilio_http.nothing())


def call_recording(knock: Knock) -> HttpResponse:
    return recording(knock, RecordingKind.CALL)


def voicemail_recording(knock: Knock) -> HttpResponse:
    return recording(knock, RecordingKind.VOICEMAIL)


def recording(knock: Knock, kind: RecordingKind) -> HttpResponse:
    if knock.recording_sid:
        status, seconds = knock.get("RecordingStatus"), knock.number("RecordingDuration")
        tell(knock, endings.recording_told, sid=knock.recording_sid, kind=str(kind.value), status=status, seconds=seconds)
    return twiml(twilio_http.nothing())


def go_on(knock: Knock, door: str, parts: dict[str, Any]) -> HttpResponse:
    """A document could not be had, and nobody is left to ask after us: the next person, or the voicemail."""
    return twiml(twilio_http.hang_up()) if is_over(knock) else down(knock, parts.get("target", ""), parts.get("epoch", 0))


def down(knock: Knock, rung: str, epoch: int = 0) -> HttpResponse:
    """The next person after the one that was `rung`, else the voicemail; that the caller may be there the rows are told, too."""
    tell(knock, handover.led_by_heart, epoch=epoch)
    return twiml(spoken.from_memory(call_sid=knock.call_sid, to_number=knock.get("To"), rung=rung, epoch=epoch, at=knock.at))


def tell(knock: Knock, verb: Callable[..., object], **told: Any) -> None:
    """Keep what Twilio tells until `verb` can write it down."""
    said = {"call_sid": knock.call_sid, **told}
    the_keeper().append([{"kind": "twilio", "verb": verb.__name__, "told": said, "at": knock.at.timestamp()}])


def tell_of_leg(knock: Knock, target: str, status: str) -> None:
    tell(knock, handover.leg_told, call_sid=knock.get("ParentCallSid") or knock.call_sid, target=target, status=status)


def is_over(knock: Knock) -> bool:
    """True when Twilio says that the caller's leg is over; that is kept until it can be written down."""
    status = knock.get("CallStatus")
    if status not in endings.LEG_ENDS or knock.get("ParentCallSid"):
        return False
    if not by_heart.leg_over(knock.call_sid, status=status, at=knock.at):
        tell(knock, endings.leg_over, status=status)
    said_before.forget(knock.call_sid)
    return True


def is_done(knock: Knock, epoch: int) -> bool:
    """True when a stream of this machine ended as it was meant to, whether or not that is written down by now.

    Not when its agent said goodbye in the moment in which a person was asked for.
    """
    if by_heart.why_closed(knock.call_sid, epoch) not in lifecycle.STREAM_ENDS:
        return False
    return not is_read(OutboxCommand.objects.filter(key=services.hand_over_key(knock.call_sid, epoch)))


def is_read_to_be_over(knock: Knock) -> bool:
    return is_read(CallSession.objects.filter(call_sid=knock.call_sid, status__in=OVER))


def is_read(rows: QuerySet[Any]) -> bool:
    """There are such rows: a database that takes no write may be read, and another process may have found it back before this one."""
    try:
        with patience.of_all(GLANCE_S):
            return rows.exists()
    except DatabaseError:
        return False


def twiml(document: str) -> HttpResponse:
    return HttpResponse(document, content_type="text/xml; charset=utf-8")
