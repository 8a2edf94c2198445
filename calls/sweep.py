"""Cleaning up after calls that fell silent. It goes by signs of life, never by age, and asks Twilio before it ends anything.

    Silent for the TTL:

    Twilio says      with a person, or at the voicemail     anywhere else
    over             ended, with Twilio's word              ended, with Twilio's word
    under way        left alone: that is a sign of life     ended (ttl), and hung up at Twilio: the line is dead
    nothing          left for later, but not for ever       ended (ttl), and hung up at Twilio as soon as it answers

    Silent for 30 s: if Twilio says "over", its word of the end was lost, so the call is ended with it. If it says nothing, a
    stream that it stopped is word enough: it would have asked the resume door long ago. If it says "in progress" of a call that the
    rows know on a stream, between two streams or on the way to a person who was not rung, nobody carries it any more: whoever was to
    send it on has forgotten. At the second such look Twilio is sent to the resume door, once for each silence: a database that was
    away comes back with calls that only seem silent. A caller who may be with a person, or leave a message, is never sent on.

Every ending is one conditional UPDATE that fails when the call has just given a sign of life, so two sweeps share the
work and a living call is never touched. Without credentials nobody is asked, and everything is "nothing".

A Twilio that answers, and slowly, does not hold a sweep for as long as there are calls: looking at them has its time, and so has
doing what came of it. A call that was not looked at in time is no "nothing": it is left as it is, until the next sweep.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from operator import methodcaller
from typing import Any, Protocol

from django.conf import settings
from django.db import transaction
from django.db.models import F, Max, Q
from django.urls import reverse

from bridge.errors import TwilioError, TwilioRefused
from bridge.twilio_http import HUMAN_TIME_LIMIT_S
from bridge.twilio_rest import OVER
from calls import evidence, services
from calls.endings import LEG_ENDS
from calls.handover import BY_HEART
from calls.in_time import InTime
from calls.models import CallSession, EndReason, OutboxCommand, Status

log = logging.getLogger(__name__)

ELSEWHERE = (Status.TRANSFERRING, Status.VOICEMAIL)  # no sound passes us there, so our silence proves nothing
LONGEST_ELSEWHERE = timedelta(seconds=HUMAN_TIME_LIMIT_S)
ASKED_ABOUT_AFTER = timedelta(seconds=30)
HANG_UP, SEND_ON = "hang-up", "send-on"
IN_PROGRESS = "in-progress"
SECOND_LOOK_AFTER = timedelta(seconds=10)  # two heartbeats of a stream that somebody carries
STOPPED = "caller-left"  # the bridge's word of Twilio's `stop`
WRONG_ACCOUNT = (401, 403)
LOOKED_WITHIN_S, DONE_WITHIN_S = 20.0, 15.0  # with the last answer's ten seconds both are less than the task's time


class Twilio(Protocol):
    """What we need of `bridge.twilio_rest.TwilioRest`."""

    def status(self, call_sid: str, account_sid: str) -> str: ...

    def hang_up(self, call_sid: str, account_sid: str) -> bool: ...

    def redirect(self, call_sid: str, url: str, account_sid: str) -> bool: ...


def end_silent_calls(*, now: datetime, ttl: timedelta, twilio: Twilio | None, clock: Callable[[], float] = time.monotonic) -> list[str]:
    """End the calls that are over at Twilio, or gave no sign of life for `ttl` and are not alive there. Returns their CallSids."""
    asker, in_time = _Asker(twilio), InTime(LOOKED_WITHIN_S, clock=clock)
    silent = list(CallSession.objects.silent(now=now, ttl=ttl).order_by("last_seen_at"))
    quiet = CallSession.objects.silent(now=now, ttl=ASKED_ABOUT_AFTER).filter(last_seen_at__gte=now - ttl).order_by("last_seen_at")
    ended = [call.call_sid for call in in_time.begun(silent) if _swept(call, now, ttl, asker)]
    ended += [call.call_sid for call in in_time.begun(quiet) if _known_to_be_over(call, now, asker)]
    in_time = InTime(DONE_WITHIN_S, clock=clock)
    _hang_up_dead_lines(now, asker, in_time)
    _send_on(now, asker, in_time)
    return ended


class _Asker:
    """Asks Twilio until it does not answer, then no more: a sweep must not wait five seconds for each call.

    What it refuses to say of one call does not keep it from answering for the others; an account that is refused is asked
    for no more of its calls. Calls are known under the account they came with, a sub-account's under that one only.
    """

    def __init__(self, twilio: Twilio | None) -> None:
        self._twilio = twilio
        self._refused: set[str] = set()
        self.has_account = twilio is not None

    def ask(self, verb: str, call_sid: str, account_sid: str, **more: str) -> Any:
        """What Twilio says to one of its verbs. None: nobody answers."""
        if self._twilio is None or account_sid in self._refused:
            return None
        question: Callable[[Twilio], Any] = methodcaller(verb, call_sid, account_sid=account_sid, **more)
        try:
            return question(self._twilio)
        except TwilioError as problem:
            log.warning("Twilio could not be asked about silent calls", extra={"problem": str(problem), "status": problem.status})
            if not isinstance(problem, TwilioRefused):
                self._twilio = None
            elif problem.status in WRONG_ACCOUNT:
                self._refused.add(account_sid)
            return None


def _swept(call: CallSession, now: datetime, ttl: timedelta, asker: _Asker) -> bool:
    """True when this sweep ended the call."""
    word: str | None = asker.ask("status", call.call_sid, call.account_sid)
    if word == "":
        return services.end_call(call_sid=call.call_sid, at=now, reason=EndReason.TTL, raw="unknown to Twilio", last_seen=call.last_seen_at)
    if word in OVER:
        return services.end_call(call_sid=call.call_sid, at=now, reason=LEG_ENDS[word], raw=word, last_seen=call.last_seen_at)
    if call.status in ELSEWHERE:
        if word is not None:
            CallSession.objects.live().filter(pk=call.pk, last_seen_at=call.last_seen_at).update(last_seen_at=now)
            return False
        if call.last_seen_at > now - ttl - LONGEST_ELSEWHERE:
            return False
    return _end_dead_line(call, now, tell_twilio=asker.has_account)


def _known_to_be_over(call: CallSession, now: datetime, asker: _Asker) -> bool:
    """True when this sweep ended a call whose end was lost on its way to us."""
    word: str | None = asker.ask("status", call.call_sid, call.account_sid)
    if word in OVER:
        return services.end_call(call_sid=call.call_sid, at=now, reason=LEG_ENDS[word], raw=word, last_seen=call.last_seen_at)
    if word == IN_PROGRESS and _has_nobody(call):
        where = {"epoch": call.epoch, "status": str(call.status)}
        key = ":".join([SEND_ON, call.call_sid, *map(str, where.values()), call.last_seen_at.isoformat()])
        services.ask(call=call, key=key, verb=SEND_ON, detail=where, at=now, to="twilio")
    if word or call.status != Status.RECOVERING or call.closed_why != STOPPED:  # it has gone on since
        return False
    return services.end_call(call_sid=call.call_sid, at=now, reason=EndReason.CALLER_HUNG_UP, last_seen=call.last_seen_at)


def _has_nobody(call: CallSession) -> bool:
    """True of a caller on a stream, between two streams or on the way to a person, for whom the rows know of nothing else.

    What Twilio was told by heart while they could not be written stands there too; so does who picked up.
    """
    calls = CallSession.objects.live().filter(pk=call.pk, epoch=call.epoch)
    after_a_stream = Q(status__in=(Status.STREAMING, Status.RECOVERING, Status.TRANSFERRING), stream_epoch=F("epoch"))
    before_a_further_one = Q(status=Status.CONNECTING, epoch__gt=0, stream_epoch__lt=F("epoch"))
    if not calls.filter(after_a_stream | before_a_further_one).exists():
        return False
    with_agent_since = call.vapi_sessions.aggregate(at=Max("asked_at"))["at"] or call.started_at
    led = call.commands.filter(Q(verb="dial", done_at=None) | Q(verb=BY_HEART), asked_at__gte=with_agent_since)
    picked_up = call.events.filter(kind="dial-result", detail__status__in=evidence.ANSWERED, at__gte=with_agent_since)
    return not (led.exists() or picked_up.exists())


def _end_dead_line(call: CallSession, now: datetime, *, tell_twilio: bool) -> bool:
    """A caller may still sit there, so hanging up at Twilio is written down to be done, until it is."""
    with transaction.atomic():
        if not services.end_call(call_sid=call.call_sid, at=now, reason=EndReason.TTL, last_seen=call.last_seen_at):
            return False
        if tell_twilio:
            services.ask(call=call, key=f"{HANG_UP}:{call.call_sid}", verb=HANG_UP, detail={}, at=now, to="twilio")
    return True


def _hang_up_dead_lines(now: datetime, asker: _Asker, in_time: InTime) -> None:
    """Those of this sweep, and of earlier ones that Twilio did not hear. After the longest call there is none to hang up."""
    to_do = OutboxCommand.objects.filter(to="twilio", verb=HANG_UP, done_at=None, asked_at__gt=now - LONGEST_ELSEWHERE)
    for pk, call_sid, account_sid in in_time.begun(to_do.values_list("pk", "call__call_sid", "call__account_sid")):
        if asker.ask("hang_up", call_sid, account_sid) is not None:
            OutboxCommand.objects.filter(pk=pk, done_at=None).update(done_at=now)


def _send_on(now: datetime, asker: _Asker, in_time: InTime) -> None:
    """Callers who had nobody at the last look either: the resume door knows what is next for them.

    Nobody is sent on twice in one silence, and nobody who has moved or made a sound in the meantime.
    """
    to_do = OutboxCommand.objects.filter(to="twilio", verb=SEND_ON, done_at=None, asked_at__lte=now - SECOND_LOOK_AFTER)
    for command in in_time.begun(to_do.select_related("call")):
        call, epoch = command.call, command.detail["epoch"]
        was_there = (epoch, command.detail.get("status", call.status))
        if (call.epoch, call.status) != was_there or not _has_nobody(call) or call.last_seen_at > command.asked_at - ASKED_ABOUT_AFTER:
            OutboxCommand.objects.filter(pk=command.pk, done_at=None).update(done_at=now, problem="not needed")
            continue
        url = settings.PUBLIC_URL + reverse("twilio-resume", args=[epoch])
        if OutboxCommand.objects.filter(pk=command.pk, done_at=None).update(done_at=now) == 0:  # another sweep is doing it
            continue
        if asker.ask("redirect", call.call_sid, call.account_sid, url=url) is None:
            OutboxCommand.objects.filter(pk=command.pk).update(done_at=None)
