"""Looking at what callers said is told to the trail before it is shown. Where it cannot be told, it is not shown."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.db import Error as DatabaseError
from django.http import HttpResponse
from django.utils import timezone

from agents import trail
from agents.trail import Who
from calls.models import CallSession, InboxMessage, Recording

NOT_TOLD = "This cannot be shown now, because the audit trail cannot note that you saw it. Try again in a moment."


class NotTold(Exception):
    """The trail did not take it."""


def call_read(who: Who, call: CallSession) -> None:
    _tell("call-read", who, call.short_id)


def message_read(who: Who, message: InboxMessage) -> None:
    _tell("message-read", who, named(message))


def report_read(who: Who, call: CallSession) -> None:
    _tell("report-read", who, call.short_id)


def recording_heard(who: Who, sound: Recording) -> None:
    _tell("recording-heard", who, f"{sound.call.short_id} recording {sound.sid}")


def named(message: InboxMessage) -> str:
    """A stored message as the trail names it."""
    return f"{message.call.short_id} message {message.pk}" if message.call else f"message {message.pk}"


def _tell(action: str, who: Who, subject: str) -> None:
    """Raises NotTold."""
    try:
        trail.seen(action, who=who, subject=subject, at=timezone.now())
    except DatabaseError:
        raise NotTold from None


def refused_untold(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """A page, or the sentence that says why it is not shown now."""

    @wraps(view)
    def page(*args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return view(*args, **kwargs)
        except NotTold:
            return HttpResponse(NOT_TOLD, status=503, content_type="text/plain; charset=utf-8")

    return page
