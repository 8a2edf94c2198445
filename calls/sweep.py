"""Cleaning up after calls that fell silent. It goes by signs of life, never by age, and asks Twilio before it ends anything.

    Silent for the TTL:

    Twilio says      with a person, or at the voicemail     anywhere else
    over             ended, with Twilio's word              ended, with Twilio's word
    under way        left alone: that is a sign of life     ended (ttl), and hung up at Twilio: the line is dead
    nothing          left for later, but not for ever       ended (ttl), and hung up at Twilio as soon as it answers

    Silent for 30 s: if Twilio says "over", its word of the end was lost, so the call is ended with it. If it says nothing, a
    stream that it stopped is word enough: it would have asked the resume door long ago.

Every ending is one conditional UPDATE that fails when the call has just given a sign of life, so two sweeps share the
work and a living call is never touched. Without credentials nobody is asked, and everything is "nothing".
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from operator import methodcaller
from typing import Any, Protocol

from django.db import transaction

from bridge.errors import TwilioError, TwilioRefused
from bridge.twilio_http import HUMAN_TIME_LIMIT_S
from bridge.twilio_rest import OVER
from calls import services
from calls.endings import LEG_ENDS
from calls.models import CallSession, EndReason, OutboxCommand, Status

log = logging.getLogger(__name__)

ELSEWHERE = (Status.TRANSFERRING, Status.VOICEMAIL)  # no sound passes us there, so our silence proves nothing
LONGEST_ELSEWHERE = timedelta(seconds=HUMAN_TIME_LIMIT_S)
ASKED_ABOUT_AFTER = timedelta(seconds=30)
HANG_UP = "hang-up"
STOPPED = "caller-left"  # the bridge's word of Twilio's `stop`
WRONG_ACCOUNT = (401, 403)


class Twilio(Protocol):
    """What we need of `bridge.twilio_rest.TwilioRest`."""

    def status(self, call_sid: str, account_sid: str) -> str: ...

    def hang_up(self, call_sid: str, account_sid: str) -> bool: ...


def end_silent_calls(*, now: datetime, ttl: timedelta, twilio: Twilio | None) -> list[str]:
    """End the calls that are over at Twilio, or gave no sign of life for `ttl` and are not alive there. Returns their CallSids."""
    asker = _Asker(twilio)
    silent = list(CallSession.objects.silent(now=now, ttl=ttl).order_by("last_seen_at"))
    quiet = CallSession.objects.silent(now=now, ttl=ASKED_ABOUT_AFTER).filter(last_seen_at__gte=now - ttl)
    ended = [call.call_sid for call in silent if _swept(call, now, ttl, asker)]
    ended += [call.call_sid for call in quiet.order_by("last_seen_at") if _known_to_be_over(call, now, asker)]
    _hang_up_dead_lines(now, asker)
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

    def ask(self, verb: str, call_sid: str, account_sid: str) -> Any:
        """What Twilio says to one of its verbs. None: nobody answers."""
        if self._twilio is None or account_sid in self._refused:
            return None
        question: Callable[[Twilio], Any] = methodcaller(verb, call_sid, account_sid)
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
    if word or call.status != Status.RECOVERING or call.closed_why != STOPPED:  # it has gone on since
        return False
    return services.end_call(call_sid=call.call_sid, at=now, reason=EndReason.CALLER_HUNG_UP, last_seen=call.last_seen_at)


def _end_dead_line(call: CallSession, now: datetime, *, tell_twilio: bool) -> bool:
    """A caller may still sit there, so hanging up at Twilio is written down to be done, until it is."""
    with transaction.atomic():
        if not services.end_call(call_sid=call.call_sid, at=now, reason=EndReason.TTL, last_seen=call.last_seen_at):
            return False
        if tell_twilio:
            services.ask(call=call, key=f"{HANG_UP}:{call.call_sid}", verb=HANG_UP, detail={}, at=now, to="twilio")
    return True


def _hang_up_dead_lines(now: datetime, asker: _Asker) -> None:
    """Those of this sweep, and of earlier ones that Twilio did not hear. After the longest call there is none to hang up."""
    to_do = OutboxCommand.objects.filter(to="twilio", verb=HANG_UP, done_at=None, asked_at__gt=now - LONGEST_ELSEWHERE)
    for pk, call_sid, account_sid in to_do.values_list("pk", "call__call_sid", "call__account_sid"):
        if asker.ask("hang_up", call_sid, account_sid) is not None:
            OutboxCommand.objects.filter(pk=pk, done_at=None).update(done_at=now)
