"""Taking in what Vapi posts: stored, and made into history, before its 200; what is posted in the same moment together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from django.db import IntegrityError, transaction
from django.utils import timezone

from calls import away, history, inbox, publisher, reports, tasks, vapi_events
from calls.models import CallSession, VapiSession
from calls.together import Together
from calls.vapi_events import VapiMessage
from calls.vapi_kinds import TRANSCRIPT

WITHIN_S = 1.5  # what takes longer is kept in the spool; Vapi waits 20 s for an answer
MOST = 50
ROOM = 4 * MOST  # a body may have megabytes; what finds no room is kept in the spool as well


def take(message: VapiMessage) -> None:
    """Store a message, and make it into history unless that takes long; a worker does it then. Raises DatabaseError or TimeoutError.

    What cannot be made into history is stored all the same, and tried again from its row.
    """
    _together.write(message, within_s=WITHIN_S)


def take_all(messages: Sequence[VapiMessage], *, at: datetime | None = None) -> None:
    """`take` for many, all or nothing; `at` is when they came, if that was not now.

    Raises IntegrityError when another process is told one of them in this very moment.
    """
    now = at or timezone.now()
    try:
        with transaction.atomic():
            told = vapi_events.with_sessions(messages)
            history.hold_in_order(CallSession.objects.filter(pk__in={session.call_id for _, session in told if session}))
            stored = inbox.keep_all(told, at=now)
            long = {each.row.pk for each in stored if _takes_long(each.message, each.session)}
            waiting = inbox.enter_all([each for each in stored if each.row.pk not in long], at=now)
    except IntegrityError:
        if len(messages) > 1:
            raise
        return  # that one has it
    for pk in long:
        publisher.task(tasks.process_message, pk)  # the scheduled look at the inbox finds what the broker lost
    for each in waiting:  # whoever made its session known meanwhile has not seen this row yet
        inbox.attempt(pk=each.row.pk, at=now)


def _takes_long(message: VapiMessage, session: VapiSession | None) -> bool:
    return message.is_long or (message.kind == TRANSCRIPT and session is not None and reports.takes_long(session))


_together = Together(write=take_all, is_away=away.is_away, most=MOST, room=ROOM)
