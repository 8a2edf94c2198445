"""The Vapi calls within a phone call: asked for, claimed by one, created, ended always.

Only the holder of the claim may create, because Vapi's `POST /call` has no key against doubles. A session that became
live after its call was over is ended by whoever created it; every other one by whoever ends the call, and by the sweep
if that one died.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Protocol

from django.db import Error as DatabaseProblem
from django.db import transaction
from django.db.models import F, Q, QuerySet, Sum
from django.utils import timezone

from agents import account, lines
from bridge import live
from bridge.errors import VapiError, VapiRefused
from bridge.vapi_http import VapiCall
from calls import publisher
from calls.history import NewEvent, pages_look, record_events
from calls.models import CallMetrics, CallSession, InboxMessage, Report, Source, Status, VapiSession, VapiState

log = logging.getLogger(__name__)

CLAIM_LIFE = timedelta(seconds=60)  # a claimer silent this long died with its claim
REPORT_WITHIN = timedelta(seconds=120)
NO_STREAM_COMES = (Status.TRANSFERRING, Status.VOICEMAIL)
# A session whose call is over, whose stream has been here and is closed, or is not coming any more.
OF_NO_USE = Q(call__ended_at__isnull=False) | Q(call__closed_epoch__gte=F("call__epoch")) | Q(call__status__in=NO_STREAM_COMES)


class Vapi(Protocol):
    """What we need of `bridge.vapi_http.VapiClient`."""

    def create_call(self, request: Mapping[str, Any]) -> VapiCall: ...

    def end_call(self, control_url: str) -> None: ...

    def end_by_socket(self, socket_url: str) -> None: ...


def ask_session(*, call: CallSession, n: int, at: datetime) -> NewEvent:
    """Ask for Vapi session number `n` of a call; the caller records the event returned. Raises IntegrityError if asked for before."""
    VapiSession.objects.create(call=call, n=n, asked_at=at)
    return NewEvent("vapi-session-asked", Source.SYSTEM, at, {"n": n})


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
    finalise(call_sid=session.call.call_sid)
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
    if not _kept(pk=vapi_session_pk, claim=claim, vapi_call=vapi_call, client=client):
        _end_quietly(client, vapi_call)
        return False
    if not VapiSession.objects.filter(OF_NO_USE, pk=vapi_session_pk).exists():
        return True
    end_session(pk=vapi_session_pk, client=client)  # its stream ended, or the caller left, while it was being created
    return False


def _kept(*, pk: int, claim: uuid.UUID, vapi_call: VapiCall, client: Vapi) -> bool:
    """`session_live`; when the database is away in that moment nobody else knows the Vapi call, so it is ended here."""
    try:
        return session_live(pk=pk, claim=claim, vapi_call=vapi_call)
    except Exception:
        _end_quietly(client, vapi_call)
        with contextlib.suppress(DatabaseProblem):
            session_failed(pk=pk, claim=claim, why="What Vapi answered could not be stored.")
        raise


def end_session(*, pk: int, client: Vapi) -> bool:
    """End a session at Vapi, however far it came. True for the one that ended it; safe to run again.

    One that is being created right now is left to its creator. Raises VapiUnavailable: try again.
    """
    now = timezone.now()
    if VapiSession.objects.filter(pk=pk, state=VapiState.ASKED).update(state=VapiState.ENDED, ended_at=now):
        finalise(call_sid=CallSession.objects.get(vapi_sessions=pk).call_sid)
        return True
    session = VapiSession.objects.select_related("call").filter(pk=pk, state=VapiState.LIVE).first()
    if session is None:
        return False
    try:
        _end_at_vapi(client, control_url=session.control_url, socket_url=session.socket_url)
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
    """Close the books of an ended call: no session of it is open, and each that became live has its report.

    Whoever brings the call nearer to that asks, and one of them wins. A call that never had a live session expects no
    report, and its `report` stays blank.
    """
    ours = VapiSession.objects.filter(call__call_sid=call_sid)
    if ours.filter(Q(ended_at=None) | Q(live_at__isnull=False, report_at=None)).exists():
        return False
    return _close_books(call_sid, Report.MERGED if ours.filter(report_at__isnull=False).exists() else "")


def give_up_reports(*, now: datetime) -> int:
    """Finalise the calls that ended 120 s ago. Returns of how many a report never came."""
    waiting = CallSession.objects.filter(status=Status.ENDED, ended_at__lt=now - REPORT_WITHIN)
    return sum(_given_up(call_sid) for call_sid in waiting.values_list("call_sid", flat=True))


def _given_up(call_sid: str) -> bool:
    """True when a report is missing; a session that never became live owes none, though nobody may have closed it."""
    unreported = VapiSession.objects.filter(call__call_sid=call_sid, live_at__isnull=False, report_at=None)
    if unreported.exists():
        return _close_books(call_sid, Report.MISSING)
    finalise(call_sid=call_sid)
    return False


def _close_books(call_sid: str, report: str) -> bool:
    with transaction.atomic():
        ended = CallSession.objects.filter(call_sid=call_sid, status=Status.ENDED)
        if ended.update(status=Status.FINALISED, report=report) == 0:
            return False
        pages_look(call_sid=call_sid)
    return True


def left_over(*, now: datetime) -> list[int]:
    """Sessions that are open although their call, or its stream, is over; claims whose holder died are given up first."""
    dead = VapiSession.objects.filter(state=VapiState.CLAIMED, claimed_at__lt=now - CLAIM_LIFE)
    for pk, claim in dead.values_list("pk", "claim"):
        if claim is not None:
            session_failed(pk=pk, claim=claim, why="Whoever was creating it died.")
    forgotten = VapiSession.objects.filter(OF_NO_USE, state__in=(VapiState.ASKED, VapiState.LIVE), ended_at=None)
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


def _end_at_vapi(client: Vapi, *, control_url: str, socket_url: str) -> None:
    if control_url:
        client.end_call(control_url)
    elif socket_url:
        client.end_by_socket(socket_url)


def _end_quietly(client: Vapi, vapi_call: VapiCall) -> None:
    try:
        _end_at_vapi(client, control_url=vapi_call.control_url, socket_url=vapi_call.socket_url)
    except VapiError as problem:
        log.error("A Vapi call nobody wants could not be ended", extra={"status": problem.status})


def _ended(sessions: QuerySet[VapiSession], *, at: datetime, **reason: str) -> bool:
    """Close rows that are live; whoever has the two URLs of an ended session has nothing."""
    still_live = sessions.filter(ended_at=None)
    return still_live.update(state=VapiState.ENDED, ended_at=at, socket_url="", control_url="", **reason) == 1


def _ms_between(start: datetime, end: datetime) -> int:
    return max(0, int((end - start).total_seconds() * 1000))
