"""The Vapi calls within a phone call: asked for, claimed by one, created, ended always.

Only the holder of the claim may create, because Vapi's `POST /call` has no key against doubles. A session that became
live after its call was over is ended by whoever created it; every other one by whoever ends the call, and by the sweep
if that one died.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Protocol

from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet, Sum
from django.utils import timezone

from agents import account, lines
from bridge import live
from bridge.errors import VapiError, VapiRefused
from bridge.vapi_http import VapiCall
from calls import publisher
from calls.history import NewEvent, record_events
from calls.models import CallMetrics, CallSession, InboxMessage, Report, Source, Status, VapiSession, VapiState

log = logging.getLogger(__name__)

CLAIM_LIFE = timedelta(seconds=60)  # a claimer silent this long died with its claim
REPORT_WITHIN = timedelta(seconds=120)


class Vapi(Protocol):
    """What we need of `bridge.vapi_http.VapiClient`."""

    def create_call(self, request: Mapping[str, Any]) -> VapiCall: ...

    def end_call(self, control_url: str) -> None: ...


def ask_session(*, call: CallSession, n: int, at: datetime) -> VapiSession | None:
    """Ask for Vapi session number `n` of a call; None when it was asked for before."""
    try:
        with transaction.atomic():
            session = VapiSession.objects.create(call=call, n=n, asked_at=at)
            record_events(call_sid=call.call_sid, events=[NewEvent("vapi-session-asked", Source.SYSTEM, at, {"n": n})])
    except IntegrityError:
        return None
    return session


def claim_session(*, pk: int, by: str) -> uuid.UUID | None:
    """Win the right to create this session at Vapi; `by` is worker or consumer. None: somebody else did, or the call is over."""
    claim = uuid.uuid4()
    asked = VapiSession.objects.filter(pk=pk, state=VapiState.ASKED, call__ended_at=None)
    won = asked.update(state=VapiState.CLAIMED, claim=claim, claimed_by=by, claimed_at=timezone.now())
    return claim if won else None


def session_live(*, pk: int, claim: uuid.UUID, vapi_call: VapiCall) -> bool:
    """Keep what Vapi answered. False when the claim is no longer ours: the caller must end that Vapi call itself."""
    now = timezone.now()
    with transaction.atomic():
        claimed = VapiSession.objects.filter(pk=pk, claim=claim, state=VapiState.CLAIMED)
        won = claimed.update(
            state=VapiState.LIVE,
            vapi_call_id=vapi_call.id,
            socket_url=vapi_call.socket_url,
            control_url=vapi_call.control_url,
            live_at=now,
        )
        if not won:
            return False
        session = VapiSession.objects.select_related("call").get(pk=pk)
        InboxMessage.objects.filter(vapi_call_id=vapi_call.id, call=None).update(call=session.call)
        detail = {"n": session.n, "by": session.claimed_by, "ms": _ms_between(session.asked_at, now)}
        record_events(call_sid=session.call.call_sid, events=[NewEvent("vapi-session-live", Source.SYSTEM, now, detail)])
        transaction.on_commit(partial(publisher.tell, session.call.call_sid, live.SESSION))
    return True


def session_failed(*, pk: int, claim: uuid.UUID, why: str) -> bool:
    """The session could not be created; `why` is our own sentence. True when the claim was still ours."""
    now = timezone.now()
    with transaction.atomic():
        claimed = VapiSession.objects.filter(pk=pk, claim=claim, state=VapiState.CLAIMED)
        if claimed.update(state=VapiState.FAILED, failure=why[:200], ended_at=now) == 0:
            return False
        session = VapiSession.objects.select_related("call").get(pk=pk)
        detail = {"n": session.n, "by": session.claimed_by, "why": why[:200]}
        record_events(call_sid=session.call.call_sid, events=[NewEvent("vapi-session-failed", Source.SYSTEM, now, detail)])
        transaction.on_commit(partial(publisher.tell, session.call.call_sid, live.SESSION))
    return True


def start_conversation(*, vapi_session_pk: int, by: str, client: Vapi) -> bool:
    """Claim a session and create it at Vapi, whoever comes first. True when this caller made it live.

    Takes 3.0 s at most, as `client` promises. A failure is a state of the row, not an exception: the live stream is
    told, and its ladder goes on from there.
    """
    claim = claim_session(pk=vapi_session_pk, by=by)
    if claim is None:
        return False
    session = VapiSession.objects.select_related("call", "call__version", "call__line").get(pk=vapi_session_pk)
    try:
        vapi_call = client.create_call(_request(session))
    except VapiError as problem:
        log.warning("Vapi did not create a call", extra={"call": session.call.short_id, "status": problem.status})
        session_failed(pk=vapi_session_pk, claim=claim, why=str(problem))
        return False
    if not session_live(pk=vapi_session_pk, claim=claim, vapi_call=vapi_call):
        _end_quietly(client, vapi_call.control_url)
        return False
    if CallSession.objects.live().filter(pk=session.call_id).exists():
        return True
    end_session(pk=vapi_session_pk, client=client)  # the caller left while it was being created
    return False


def end_session(*, pk: int, client: Vapi) -> bool:
    """End a session at Vapi, however far it came. True for the one that ended it; safe to run again.

    One that is being created right now is left to its creator. Raises VapiUnavailable: try again.
    """
    now = timezone.now()
    VapiSession.objects.filter(pk=pk, state=VapiState.ASKED).update(state=VapiState.ENDED, ended_at=now)
    session = VapiSession.objects.select_related("call").filter(pk=pk, state=VapiState.LIVE).first()
    if session is None:
        return False
    try:
        if session.control_url:
            client.end_call(session.control_url)
    except VapiRefused as problem:  # trying again changes nothing; it ends by itself when nobody speaks
        log.error("Vapi would not end a call", extra={"call": session.call.short_id, "status": problem.status})
    return _ended(VapiSession.objects.filter(pk=pk), at=now)


def open_sessions(*, call_sid: str) -> list[int]:
    """Sessions of a call that may still cost money, as primary keys."""
    still_open = VapiSession.objects.filter(call__call_sid=call_sid, ended_at=None)
    return list(still_open.values_list("pk", flat=True))


def session_ended(*, vapi_call_id: str, raw: str = "") -> bool:
    """Vapi says this session is over; `raw` is its own reason. True for the first word of it."""
    return _ended(VapiSession.objects.filter(vapi_call_id=vapi_call_id), at=timezone.now(), ended_reason=raw[:200])


def report_arrived(*, vapi_call_id: str, raw: str, cost_usd: Decimal | None, at: datetime) -> bool:
    """The end-of-call report of a session is merged: the session is over, its cost known. True for the first report.

    The call is finalised when it has ended and no report of its sessions is outstanding.
    """
    session_ended(vapi_call_id=vapi_call_id, raw=raw)
    with transaction.atomic():
        unreported = VapiSession.objects.filter(vapi_call_id=vapi_call_id, report_at=None)
        if unreported.update(report_at=at, cost_usd=cost_usd, ended_reason=raw[:200]) == 0:
            return False
        call = CallSession.objects.get(vapi_sessions__vapi_call_id=vapi_call_id)
        cost = call.vapi_sessions.aggregate(sum=Sum("cost_usd"))["sum"]
        CallMetrics.objects.update_or_create(call=call, defaults={"cost_usd": cost})
    finalise(call_sid=call.call_sid)
    return True


def finalise(*, call_sid: str) -> bool:
    """Close the books of an ended call once every session that became live has its report."""
    outstanding = VapiSession.objects.filter(call__call_sid=call_sid, live_at__isnull=False, report_at=None)
    if outstanding.exists():
        return False
    ended = CallSession.objects.filter(call_sid=call_sid, status=Status.ENDED)
    return ended.update(status=Status.FINALISED, report=Report.MERGED) == 1


def give_up_reports(*, now: datetime) -> int:
    """Finalise calls whose report did not come within 120 s of their end. Returns how many."""
    waiting = CallSession.objects.filter(status=Status.ENDED, ended_at__lt=now - REPORT_WITHIN)
    return waiting.update(status=Status.FINALISED, report=Report.MISSING)


def left_over(*, now: datetime) -> list[int]:
    """Sessions that are open although their call is over, after giving up claims whose holder died."""
    dead = VapiSession.objects.filter(state=VapiState.CLAIMED, claimed_at__lt=now - CLAIM_LIFE)
    for pk, claim in dead.values_list("pk", "claim"):
        if claim is not None:
            session_failed(pk=pk, claim=claim, why="Whoever was creating it died.")
    forgotten = VapiSession.objects.filter(Q(state=VapiState.ASKED) | Q(state=VapiState.LIVE), ended_at=None, call__ended_at__isnull=False)
    return list(forgotten.values_list("pk", flat=True))


def _request(session: VapiSession) -> dict[str, Any]:
    call = session.call
    if call.version_id is None:
        raise VapiRefused("No version of an agent answers this call.")
    return lines.conversation_request(
        line_id=call.line_id,
        version_id=call.version_id,
        call_sid=call.call_sid,
        n=session.n,
        epoch=call.epoch,
        server=account.server(),
        variables={"call": call.short_id, "line": call.line.name if call.line else ""},
    )


def _end_quietly(client: Vapi, control_url: str) -> None:
    try:
        client.end_call(control_url)
    except VapiError as problem:
        log.error("A Vapi call nobody wants could not be ended", extra={"status": problem.status})


def _ended(sessions: QuerySet[VapiSession], *, at: datetime, **reason: str) -> bool:
    """Close rows that are live; whoever has the two URLs of an ended session has nothing."""
    still_live = sessions.filter(ended_at=None)
    return still_live.update(state=VapiState.ENDED, ended_at=at, socket_url="", control_url="", **reason) == 1


def _ms_between(start: datetime, end: datetime) -> int:
    return max(0, int((end - start).total_seconds() * 1000))
