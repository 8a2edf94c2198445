"""Cleaning up after calls that fell silent. It goes by signs of life, never by age, and asks Twilio before it ends anything.

    Twilio says      with a person, or at the voicemail     anywhere else
    over             ended, with Twilio's word              ended, with Twilio's word
    under way        left alone: that is a sign of life     ended (ttl), and hung up at Twilio: the line is dead
    nothing          left for later, but not for ever       ended (ttl), and hung up at Twilio as soon as it answers

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
HANG_UP = "hang-up"
WRONG_ACCOUNT = (401, 403)


class Twilio(Protocol):
    """What we need of `bridge.twilio_rest.TwilioRest`."""

    def status(self, call_sid: str) -> str: ...

    def hang_up(self, call_sid: str) -> bool: ...


def end_silent_calls(*, now: datetime, ttl: timedelta, twilio: Twilio | None) -> list[str]:
    """End the calls that gave no sign of life for `ttl` and are not alive at Twilio. Returns their CallSids."""
    asker = _Asker(twilio)
    silent = list(CallSession.objects.silent(now=now, ttl=ttl).order_by("last_seen_at"))
    ended = [call.call_sid for call in silent if _swept(call, now, ttl, asker)]
    _hang_up_dead_lines(now, asker)
    return ended


class _Asker:
    """Asks Twilio until it does not answer, then no more: a sweep must not wait five seconds for each call.

    What it refuses to say of one call does not keep it from answering for the others; our account refused does.
    """

    def __init__(self, twilio: Twilio | None) -> None:
        self._twilio = twilio
        self.has_account = twilio is not None

    def ask(self, question: Callable[[Twilio], Any]) -> Any:
        """None: nobody answers."""
        if self._twilio is None:
            return None
        try:
            return question(self._twilio)
        except TwilioError as problem:
            log.warning("Twilio could not be asked about silent calls", extra={"problem": str(problem), "status": problem.status})
            if not isinstance(problem, TwilioRefused) or problem.status in WRONG_ACCOUNT:
                self._twilio = None
            return None


def _swept(call: CallSession, now: datetime, ttl: timedelta, asker: _Asker) -> bool:
    """True when this sweep ended the call."""
    word: str | None = asker.ask(methodcaller("status", call.call_sid))
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
    for pk, call_sid in to_do.values_list("pk", "call__call_sid"):
        if asker.ask(methodcaller("hang_up", call_sid)) is not None:
            OutboxCommand.objects.filter(pk=pk, done_at=None).update(done_at=now)
