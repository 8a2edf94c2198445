"""End-of-call reports that never came: Vapi tries once and no more, so it is asked for them.

What it answers is stored and merged like a report that came (`calls.reports`), and one that comes after all is merged over
it. A call whose report is given up in the meantime gets it later all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Protocol

from bridge import vapi_answers
from bridge.errors import VapiRefused
from calls import inbox, vapi_events
from calls.in_time import InTime
from calls.models import VapiSession

log = logging.getLogger(__name__)

ASKED_AFTER = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=30), timedelta(hours=6))  # since the session ended
TOO_OLD = timedelta(days=1)
AT_ONCE = 50  # sessions a look: an account that asks for hundreds at once is locked out for a while


class Account(Protocol):
    """What we need of `bridge.vapi_http.VapiClient`."""

    def call(self, call_id: str) -> dict[str, Any]: ...


def due(*, now: datetime, in_time: InTime | None = None) -> Iterator[int]:
    """Sessions whose report is to be asked for now, as primary keys. Each time of asking is given to one asker only, and when
    the time is up it is kept for whoever looks next.
    """
    waiting: list[tuple[int, int]] = []
    for times, after in reversed(list(enumerate(ASKED_AFTER))):
        ended = VapiSession.objects.filter(ended_at__lt=now - after, ended_at__gt=now - TOO_OLD).exclude(vapi_call_id=None)
        unasked = ended.filter(report_at=None, report_asks=times).order_by("ended_at")
        waiting += unasked.values_list("pk", "report_asks")[: AT_ONCE - len(waiting)]
    for pk, times in in_time.begun(waiting) if in_time else waiting:
        if VapiSession.objects.filter(pk=pk, report_asks=times).update(report_asks=times + 1):
            yield pk


def fetch(*, vapi_session_pk: int, client: Account, at: datetime) -> bool:
    """Ask for the report of one session, and merge it. True when Vapi had it. Raises VapiUnavailable: try again."""
    call_id = VapiSession.objects.filter(pk=vapi_session_pk, report_at=None).values_list("vapi_call_id", flat=True).first()
    if not call_id:
        return False
    try:
        call = client.call(call_id)
    except VapiRefused as problem:
        log.warning("Vapi did not give a report that never came", extra={"session": vapi_session_pk, "status": problem.status})
        return False
    if not vapi_answers.is_over(call):
        return False
    told = vapi_events.fetched(call)
    session = vapi_events.session_of(vapi_call_id=told.vapi_call_id, call_sid=told.call_sid, n=told.n, claim=told.claim)
    row = inbox.keep(told, session=session, at=at)
    if row is not None:
        inbox.enter(row, session, at=at)
    return True
