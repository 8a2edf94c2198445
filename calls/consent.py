"""What a caller was told, and what they allow: the announcement, their yes to being recorded, and "do not record this".

Where a line records only callers who agreed, nothing is recorded before they pressed the key. Whoever does not want to be
recorded says so to the agent: the recording stops and is deleted at Twilio, nothing said is kept from there on (`unsaid`), and
what was said before goes when the call is over (`erasure.after_call`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

from django.db import transaction

from bridge.errors import TwilioError
from bridge.twilio_http import HUMAN_TIME_LIMIT_S
from calls import evidence, said_before, services, unsaid
from calls.history import NewEvent, pages_look, record_events
from calls.in_time import InTime
from calls.models import CallSession, OutboxCommand, Recording, RecordingKind, Source

log = logging.getLogger(__name__)

STOP_RECORDING = "stop-recording"
LONGEST_CALL = timedelta(seconds=2 * HUMAN_TIME_LIMIT_S)
STOPPED_WITHIN_S = 10.0


class Twilio(Protocol):
    """What we need of `bridge.twilio_rest.TwilioRest`."""

    def stop_recording(self, call_sid: str, account_sid: str) -> bool: ...


def may_record(call: CallSession) -> bool:
    """Whether the whole call may be recorded from here on; a call that said nothing of it first is never."""
    line = call.line
    if line is None or not line.record_calls or unsaid.is_unsaid(call):
        return False
    return call.agreed_at is not None or not line.all_party_consent


def is_to_be_asked(call: CallSession) -> bool:
    """Whether this caller is asked to agree to being recorded."""
    line = call.line
    asks = line is not None and line.record_calls and line.all_party_consent and bool(line.disclosure.strip())
    return asks and not unsaid.is_unsaid(call)


def answered(*, call_sid: str, epoch: int, agrees: bool, at: datetime) -> CallSession | None:
    """The caller pressed a key: the one that agrees, or another. The first yes counts. Returns the call; None: not of this epoch."""
    with transaction.atomic():
        call = evidence.hold(call_sid=call_sid, at=at, epoch=epoch)
        if call is None:
            return None
        if agrees and CallSession.objects.filter(pk=call.pk, agreed_at=None).update(agreed_at=at):
            record_events(call_sid=call_sid, events=[NewEvent("recording-agreed", Source.TWILIO, at)])
            call.agreed_at = at
    return call


def refuse_recording(*, call: CallSession, at: datetime) -> bool:
    """The caller does not want to be recorded. True for the first word of it. Inside a transaction."""
    if CallSession.objects.filter(pk=call.pk, unrecorded_at=None).update(unrecorded_at=at) == 0:
        return False
    record_events(call_sid=call.call_sid, events=[NewEvent("recording-refused", Source.VAPI, at)])
    Recording.objects.filter(call=call, kind=RecordingKind.CALL, erased_at=None).update(erased_at=at)
    stop_soon(call=call, at=at)
    transaction.on_commit(partial(said_before.never, call.call_sid))
    pages_look(call_sid=call.call_sid)
    return True


def stop_soon(*, call: CallSession, at: datetime) -> None:
    """Have a recording that Twilio may be making of this call stopped; `stop_recordings` does it."""
    services.ask(call=call, key=f"{STOP_RECORDING}:{call.call_sid}", verb=STOP_RECORDING, detail={}, at=at, to="twilio")


def stop_recordings(*, twilio: Twilio | None, now: datetime, call_sid: str = "", clock: Callable[[], float] = time.monotonic) -> int:
    """Tell Twilio to stop what was asked to be stopped, of one call or of all. Returns how many it heard of; safe to run again.

    None is begun after STOPPED_WITHIN_S: who asks next sees to the others.
    """
    waiting = OutboxCommand.objects.filter(to="twilio", verb=STOP_RECORDING, done_at=None, asked_at__gt=now - LONGEST_CALL)
    if call_sid:
        waiting = waiting.filter(call__call_sid=call_sid)
    if twilio is None:
        return 0
    rows = waiting.order_by("-asked_at").values_list("pk", "call__call_sid", "call__account_sid")  # those before may be over by now
    return sum(_stopped(*row, twilio, now) for row in InTime(STOPPED_WITHIN_S, clock=clock).begun(rows))


def _stopped(pk: int, call_sid: str, account_sid: str, twilio: Twilio, now: datetime) -> bool:
    try:
        twilio.stop_recording(call_sid, account_sid)
    except TwilioError as problem:
        log.warning("A recording could not be stopped yet", extra={"problem": str(problem), "status": problem.status})
        return False
    return OutboxCommand.objects.filter(pk=pk, done_at=None).update(done_at=now) == 1
