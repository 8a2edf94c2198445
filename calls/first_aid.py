"""A word to callers whose process is gone, before anybody is there to look after them.

When the whole of the only `serve` dies and Twilio stays on its dead streams, those callers hear nothing until a new one has
started, and its children need seconds for that. Its parent is there much sooner, and Twilio can speak by itself: it is handed a
document that says a word, and then asks what is next.

Nothing is claimed, and nothing of a call is changed but its log. So the children look after these calls as after any others
(`calls.rescue`): they send each that is where it was to the resume door as soon as they can, in the middle of that word if need be.
Whoever has been claimed is somebody else's, who is quicker.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from django.db import Error as DatabaseError
from django.db import connections
from django.utils import timezone

from bridge.errors import TwilioError
from calls import leases, rescue, spoken
from calls.history import NewEvent, record_events
from calls.models import CallSession, Source

log = logging.getLogger(__name__)

AT_ONCE = 8


class Twilio(Protocol):
    """What we need of `bridge.twilio_rest.TwilioRest`."""

    def tell(self, call_sid: str, twiml: str, account_sid: str = "") -> bool: ...


def give(*, twilio: Twilio | None, is_gone: Callable[[str], bool]) -> None:
    """One round of it; a try each, because others come after. A database that does not answer knows of nobody."""
    try:
        callers = _left_in_silence(is_gone) if twilio else []
    except DatabaseError as problem:
        log.warning("who was left in silence could not be looked for", extra={"problem": type(problem).__name__})
        return
    finally:
        connections.close_all()
    if twilio and callers:
        log.error("A process is gone: its callers are asked to wait", extra={"calls": len(callers)})
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="first-aid") as hands:
            list(hands.map(lambda call: _ask_to_wait(call, twilio), callers))


def _left_in_silence(is_gone: Callable[[str], bool]) -> list[CallSession]:
    gone = [beat.boot for beat in leases.beats(but=uuid.uuid4(), is_gone=is_gone) if beat.is_dead]
    return list(rescue.left_alone(CallSession.objects.live().filter(held_by__in=gone))) if gone else []


def _ask_to_wait(call: CallSession, twilio: Twilio) -> None:
    try:
        if twilio.tell(call.call_sid, spoken.hold_on(call.epoch), call.account_sid):
            record_events(call_sid=call.call_sid, events=[NewEvent("caller-asked-to-wait", Source.SYSTEM, timezone.now())])
    except TwilioError as problem:
        log.warning("Twilio did not ask a caller to wait", extra={"call": call.short_id, "problem": str(problem), "status": problem.status})
    except DatabaseError as problem:
        log.warning("that a caller was asked to wait could not be told", extra={"problem": type(problem).__name__})
    finally:
        connections.close_all()
