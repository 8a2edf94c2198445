"""What Twilio's doors say while the database is away: from the signed request, this process's memory, and marks on the disk.

`or_by_heart` asks the rows first, unless the database is known to be away. Twilio waits longer for an answer than a caller
does, so what is known by heart is said at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

from django.db import InterfaceError, OperationalError
from django.http import HttpResponse

from bridge import twilio_http
from calls import by_heart, endings, handover, lifecycle, patience
from calls.ledger import the_keeper
from calls.webhooks import spoken
from calls.webhooks.knock import Knock

P = ParamSpec("P")
Door = Callable[Concatenate[Knock, P], HttpResponse]


def or_by_heart(answer: Door[P]) -> Callable[[Door[P]], Door[P]]:
    """The door's own answer, or this one while the database is away."""

    def decorated(view: Door[P]) -> Door[P]:
        @wraps(view)
        def door(knock: Knock, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
            keeper = the_keeper()
            if not keeper.is_away:
                try:
                    with patience.of(patience.WHERE_A_CALLER_WAITS_S):
                        return view(knock, *args, **kwargs)
                except (OperationalError, InterfaceError):
                    keeper.noticed()
            return answer(knock, *args, **kwargs)

        return door

    return decorated


def incoming_call(knock: Knock) -> HttpResponse:
    """The line's agent, as far as this process knows the line; else a person or the voicemail."""
    if is_over(knock):
        return twiml(twilio_http.hang_up())
    numbers = {"from_number": knock.get("From")[:64], "to_number": knock.get("To")[:64]}
    answer = by_heart.opened(sid=knock.call_sid, account_sid=knock.get("AccountSid")[:64], at=knock.at, **numbers)
    if answer is None or answer.version is None:
        return down(knock, "")
    at = by_heart.started_at(knock.call_sid) or knock.at
    return twiml(spoken.connect_by_heart(knock.call_sid, answer, at=at))


def recording_consent(knock: Knock, epoch: int) -> HttpResponse:
    """Nobody can write a yes down, so it is a no; the agent is next."""
    return incoming_call(knock)


def resume(knock: Knock, epoch: int) -> HttpResponse:
    """The stream is over: goodbye if that was what it ended with, else somebody who does not need our rows."""
    why = by_heart.why_closed(knock.call_sid, epoch)
    if is_over(knock) or (why in lifecycle.STREAM_ENDS and why != "handed-over"):
        return twiml(twilio_http.hang_up())
    return down(knock, "")


def dial_result(knock: Knock, epoch: int, target: str) -> HttpResponse:
    talked = knock.get("DialCallStatus") in handover.TALKED and knock.get("DialBridged") != "false"
    if is_over(knock) or talked:
        return twiml(twilio_http.hang_up())
    return down(knock, target)


def call_status(knock: Knock) -> HttpResponse:
    is_over(knock)
    return twiml(twilio_http.nothing())


def down(knock: Knock, rung: str) -> HttpResponse:
    """The next person after the one that was `rung`, else the voicemail."""
    return twiml(spoken.from_memory(call_sid=knock.call_sid, to_number=knock.get("To"), rung=rung, at=knock.at))


def is_over(knock: Knock) -> bool:
    """True when Twilio says that the caller's leg is over; that is kept until it can be written down."""
    status = knock.get("CallStatus")
    if status not in endings.LEG_ENDS or knock.get("ParentCallSid"):
        return False
    the_keeper().append([{"kind": "leg", "call_sid": knock.call_sid, "status": status, "at": knock.at.timestamp()}])
    return True


def twiml(document: str) -> HttpResponse:
    return HttpResponse(document, content_type="text/xml; charset=utf-8")
