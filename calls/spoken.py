"""What Twilio is told to do with a caller: TwiML made from rows alone, so that a repeat gets the same bytes.

And once, when there are no rows to be had, from what this process remembers of the line.
"""

from __future__ import annotations

from datetime import datetime

from django.conf import settings
from django.urls import reverse

from agents import hours, lines
from agents.models import HandoffTarget
from bridge import stream_token, twilio_http
from bridge.routing import MEDIA_PATH
from calls import callbacks, consent, handover, ladder, resuming
from calls.callbacks import E164
from calls.models import CallbackRequest, CallSession

NO_AGENT_HERE = "Sorry, nobody answers this number. Please check the number and call again. Goodbye."
ONE_MOMENT = "One moment, please."
LEAVE_A_MESSAGE = "Nobody is free right now. Please leave a message after the tone, and we will call you back."
ALL_TALKING = "All our agents are talking."
AGAIN = "rc=2&rp=all&ct=2000&rt=3000"  # for Twilio alone: twice more, whatever went wrong, and when no answer has begun after 3 s
CALL_ME_BACK, TAKE_A_MESSAGE = "1", "2"  # the keys
APART_S = 3  # so many seconds they come back in; nobody hears nothing for longer than four: two are usual (`twilio_http.NEXT_TURN_S`)
STAY_ON_THE_LINE = "Please stay on the line."
MAY_WE_RECORD = "If you agree to this call being recorded, please press 1 now. If not, just stay on the line."
NOTHING_HEARD = "We did not hear a message. Goodbye."
SORRY = "I'm sorry, something went wrong on our side. Please call again in a few minutes. Goodbye."
THANK_YOU = "Thank you. Goodbye."


def connect(call: CallSession, *, is_greeted: bool = False, is_first: bool = False, was_kept: bool = False) -> str:
    """The disclosure and, where the line asks for it, whether the caller agrees to being recorded; then the agent.

    `is_greeted`: the caller has heard all that, and answered. Before a further stream nothing of it is said again, only a word if
    the one before was dead, or if Twilio `was_kept` waiting for this document; and a recording goes on by itself. `is_first`: this is
    the answer to the first question about the call, so the agent was asked for now.
    """
    again, line = call.epoch > 0, call.line
    says_a_word = was_kept or resuming.is_told_to_wait(call)
    first_words = ONE_MOMENT if says_a_word else line.disclosure if line and not is_greeted and not again else ""
    asks = not is_greeted and not again and consent.is_to_be_asked(call)
    since = call.started_at if is_first and not again else resuming.stream_asked_at(call)
    expires = int(since.timestamp()) + stream_token.LIFE_S
    key = stream_token.key_from(settings.SECRET_KEY)
    return twilio_http.connect_stream(
        disclosure=first_words,
        question=MAY_WE_RECORD if asks else "",
        question_url=_url("twilio-consent", call.epoch) if asks else "",
        is_announced=is_greeted,
        stream_url=f"{twilio_http.socket_url(settings.PUBLIC_URL)}/{MEDIA_PATH}",
        stream_status_url=_url("twilio-stream-status"),
        token=stream_token.issue(key=key, call_sid=call.call_sid, epoch=call.epoch, expires=expires),
        resume_url=resume_url(call.epoch),
        recording_url=_url("twilio-recording-call") if not asks and not again and consent.may_record(call) else "",
    )


def connect_by_heart(call_sid: str, answer: lines.Answer, *, at: datetime, epoch: int = 0) -> str:
    """`connect` without a row: the disclosure and the agent, or on a further stream a word, for that was waited for longer than usual.

    Nobody can agree to a recording now.
    """
    expires = int(at.timestamp()) + stream_token.LIFE_S
    key = stream_token.key_from(settings.SECRET_KEY)
    return twilio_http.connect_stream(
        disclosure=ONE_MOMENT if epoch else answer.disclosure,
        stream_url=f"{twilio_http.socket_url(settings.PUBLIC_URL)}/{MEDIA_PATH}",
        stream_status_url=_url("twilio-stream-status"),
        token=stream_token.issue(key=key, call_sid=call_sid, epoch=epoch, expires=expires),
        resume_url=resume_url(epoch),
    )


def step(what: ladder.Step, call: CallSession | None) -> str:
    """A step of the ladder; only a call we know gets more than a goodbye."""
    match what:
        case ladder.DialHuman(target) if call is not None:
            return _dial(HandoffTarget.objects.get(slug=target.slug), epoch=call.epoch, shown=call.to_number)
        case ladder.Voicemail() if call is not None:
            return voicemail(call, offer=callbacks.may_be_called(call))
        case ladder.HangUp(sorry=True):
            return twilio_http.say_and_hang_up(SORRY)
    return twilio_http.hang_up()


def ask_anew(epoch: int) -> str:
    """Whoever is still on the line asks at the door of the newest stream; a repeat of an old request does not."""
    return twilio_http.ask_at(_url("twilio-resume", epoch))


def hold_on(epoch: int) -> str:
    """A word to a caller whom nobody carries, until somebody is there who can answer what is next."""
    return twilio_http.hold_on([ONE_MOMENT, STAY_ON_THE_LINE], next_url=resume_url(epoch))


def voicemail(call: CallSession, *, offer: bool) -> str:
    """The tone, with the `offer` to be called back instead."""
    now = call.last_seen_at  # of this very question, but the row's: so a repeat gets the same words
    when = callbacks.when(call, callbacks.due(call, at=now), at=now)
    return _voicemail(call.epoch, f"Or press 1, and we will call you back {when}." if offer else "")


def queued(call: CallSession, *, turn: int, place: int) -> str:
    """A turn in the queue: the caller's `place` (0: nothing new), the offer to be called back, and then the next turn.

    Those who came together would come back together, again and again: a third of them has a second more in the first turn, a third two.
    """
    said = [ALL_TALKING] if turn == 0 else []
    if place:
        said.append(f"You are number {place}.")
        said += _ways_out(call)
    return twilio_http.wait_in_line(
        sentences=said or [STAY_ON_THE_LINE],
        next_url=_url("twilio-wait", call.epoch, turn + 1),
        longer_s=int(lines.draw_of(call.call_sid) * APART_S) if turn == 0 else 0,
    )


def _ways_out(call: CallSession) -> list[str]:
    """What a caller can do instead of waiting."""
    now = call.last_seen_at  # as for the voicemail
    back = f"To be called back {callbacks.when(call, callbacks.due(call, at=now), at=now)} instead, press {CALL_ME_BACK}."
    message = f"To leave a message, press {TAKE_A_MESSAGE}."
    return [*([back] if callbacks.may_be_called(call) else []), *([message] if call.line and call.line.voicemail else [])]


def promised(call: CallSession) -> str:
    asked = CallbackRequest.objects.get(call=call)
    when = callbacks.when(call, asked.due_at, at=asked.asked_at)
    return twilio_http.say_and_hang_up(f"Thank you. We will call you back {when}. Goodbye.")


def from_memory(*, call_sid: str, to_number: str, rung: str, epoch: int = 0, at: datetime) -> str:
    """The database is away, and Twilio has nobody else to ask: the next person of this line after `rung`, else the voicemail."""
    answer = lines.remembered(to_number, draw=lines.draw_of(call_sid))
    if answer is None:  # this process has never seen the line
        return voicemail_by_heart(epoch)
    slugs = [target.slug for target in answer.targets]
    later = answer.targets[slugs.index(rung) + 1 :] if rung in slugs else answer.targets
    following = [target for target in later if handover.is_allowed(slug=target.slug, number=target.number)]
    if not following or not hours.is_open(answer.hours, at):
        return voicemail_by_heart(epoch) if answer.voicemail else twilio_http.say_and_hang_up(SORRY)
    return _dial(following[0], epoch=epoch, shown=to_number)


def voicemail_by_heart(epoch: int) -> str:
    """The tone; nobody can be offered a call back at a time that nobody can look up."""
    return _voicemail(epoch)


def _dial(target: HandoffTarget | lines.Target, *, epoch: int, shown: str) -> str:
    return twilio_http.dial_human(
        sentence=ONE_MOMENT,
        number=target.number,
        whisper_url=_url("twilio-whisper", target.slug),
        leg_url=_url("twilio-leg", target.slug),
        action_url=_url("twilio-dial", epoch, target.slug),
        caller_id=shown if E164.fullmatch(shown) else "",
        ring_seconds=target.ring_seconds,
        talk_s=60 * target.talk_minutes,
    )


def _voicemail(epoch: int, offer: str = "") -> str:
    return twilio_http.voicemail(
        prompt=LEAVE_A_MESSAGE,
        action_url=_url("twilio-voicemail", epoch),
        recording_url=_url("twilio-recording-voicemail"),
        nothing_heard=NOTHING_HEARD,
        offer=offer,
        offer_url=_url("twilio-callback", epoch),
    )


def resume_url(epoch: int) -> str:
    """Where Twilio asks what is next when the stream of this epoch is over.

    Often because a process has died, which may take the question along: so it is asked again, elsewhere (`AGAIN`).
    """
    return f"{_url('twilio-resume', epoch)}#{AGAIN}"


def _url(door: str, *parts: int | str) -> str:
    return f"{settings.PUBLIC_URL}{reverse(door, args=parts)}"
