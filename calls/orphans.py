"""Vapi calls that carry one of our names and belong to no session of ours: found by listing, and ended.

They come about when a create is answered too late or not at all, and when whoever was creating died with the answer in
hand. Another house may share the account: what has no name we gave, and what no suspicious session of ours asked for, is
left alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from django.db.models import Min

from bridge.errors import VapiError
from bridge.vapi_answers import ListedCall
from calls import sessions
from calls.history import NewEvent, record_events
from calls.in_time import InTime
from calls.models import Source, VapiAccount, VapiSession, VapiState
from calls.vapi_names import named

log = logging.getLogger(__name__)

# A request without an answer is given up after 3 s, and may be carried out later: whatever stands before Vapi holds one for a
# minute or so (100 s at the slowest of the usual ones), and a list may lag behind. So a look this long after the claim that
# shows nothing clears a session; each look before it comes with the schedule, and finds a late call within one round.
COMES_WITHIN = timedelta(minutes=3)
# What was found and could not be ended, and a Vapi that does not list its calls, are asked about for so long. Then the call's
# own limits have ended it: silence, as nobody is connected, and its longest duration.
SUSPICIOUS_FOR = timedelta(hours=1)
CLOCKS_APART = timedelta(minutes=1)


class Account(sessions.Vapi, Protocol):
    """What we need of `bridge.vapi_http.VapiClient`."""

    def list_calls(self, *, since: datetime) -> list[ListedCall]: ...


def end_orphans(*, client: Account, now: datetime, account: str = VapiAccount.MAIN, ends_s: float = float("inf")) -> int:
    """Look for calls nobody holds at one of our accounts, and end them. Returns how many; safe to run twice at once.

    Asks Vapi only while a session may have one. Whatever cannot be ended now, or within `ends_s` seconds, is tried again at the
    next look.
    """
    sessions.give_up_claims(now=now)
    maybe = VapiSession.objects.filter(maybe_created=True, claimed_at__gt=now - SUSPICIOUS_FOR, account=account)
    suspects = maybe.exclude(state=VapiState.CLAIMED).select_related("call")  # what is being created now has the same name
    since = suspects.aggregate(first=Min("claimed_at"))["first"]
    if since is None:
        return 0
    listed = _listed(client, since)
    if listed is None:
        return 0
    ours = {(session.call.call_sid, session.n): session for session in suspects}
    held = set(VapiSession.objects.filter(vapi_call_id__in=[call.id for call in listed]).values_list("vapi_call_id", flat=True))
    found: dict[int, list[ListedCall]] = {}
    for call in listed:
        session = ours.get(named(call.name))
        if session is not None and call.id not in held:
            found.setdefault(session.pk, []).append(call)
    in_time = InTime(ends_s)
    return sum(_end_all(session, found.get(session.pk, []), client, now) for session in in_time.begun(ours.values()))


def end_unheard(*, client: Account, call_sid: str, below: int, since: datetime) -> int:
    """End the sessions of a phone call with a number `below` that, made at this account since then. Returns how many.

    No stream comes for them, and the rows cannot be asked which they are.
    """
    running = [(call, named(call.name)) for call in _listed(client, since) or () if not call.is_over]
    return sum(sessions.end_quietly(client, call) for call, (sid, n) in running if sid == call_sid and n < below)


def _listed(client: Account, since: datetime) -> Sequence[ListedCall] | None:
    """The calls of an account; None when it does not say."""
    try:
        return client.list_calls(since=since - CLOCKS_APART)
    except VapiError as problem:
        log.warning("Vapi did not list its calls", extra={"status": problem.status})
        return None


def _end_all(session: VapiSession, calls: Sequence[ListedCall], client: Account, now: datetime) -> int:
    """End what was found for one session. When all of it is over, or none was and none can come, it is suspicious no more."""
    ended = [sessions.end_quietly(client, call) for call in calls if not call.is_over]
    can_come = session.claimed_at is None or session.claimed_at >= now - COMES_WITHIN
    if all(ended) and (calls or not can_come):
        VapiSession.objects.filter(pk=session.pk).update(maybe_created=False)
    if any(ended):
        detail = {"n": session.n, "calls": sum(ended)}
        record_events(call_sid=session.call.call_sid, events=[NewEvent("vapi-orphan-ended", Source.SYSTEM, now, detail)])
    return sum(ended)
