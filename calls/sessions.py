"""The Vapi calls within a phone call: asked for, claimed by one, created, ended always.

Only the holder of the claim may create, because Vapi's `POST /call` has no key against doubles. A session that became
live after its call was over is ended by whoever created it; every other one by whoever ends the call, and by the sweep
if that one died. What may run at Vapi without a session of ours (`maybe_created`) is `calls.orphans`' to find.
"""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Protocol

from django.db import Error as DatabaseProblem
from django.db import IntegrityError, close_old_connections, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Sum
from django.utils import timezone

from agents import account, lines
from agents import services as agents
from bridge import live, stream_token
from bridge.errors import VapiError, VapiRefused, VapiUnavailable
from bridge.vapi_answers import ListedCall, VapiCall
from calls import accounts, away, breaker, ended_reasons, erasure, evidence, guards, memory, prepared, publisher, rungs
from calls.history import NewEvent, pages_look, record_events
from calls.models import CallMetrics, CallSession, InboxMessage, Report, Source, Status, VapiAccount, VapiSession, VapiState

log = logging.getLogger(__name__)

# Vapi has 3 s for its answer, and storing it takes moments: a claimer silent this long died with its claim. One that only waited for
# the database finds the claim gone, and ends its own Vapi call.
CLAIM_LIFE = timedelta(seconds=10)
STORED_AFTER_S = (0.2, 0.8)  # what Vapi answered, if the database was away; SQLite waits a second by itself each time
REPORT_WITHIN = timedelta(seconds=120)
STREAM_COMES_WITHIN = timedelta(seconds=stream_token.LIFE_S)
NO_STREAM_COMES = (Status.TRANSFERRING, Status.VOICEMAIL)
NO_STREAM_CAME = Q(call__stream_epoch__lt=F("call__epoch"))
SUPERSEDED = Q(Exists(VapiSession.objects.filter(call=OuterRef("call"), n__gt=OuterRef("n"))))
# A session whose call is over, whose stream has been here and is closed, or is not coming any more, or that another took the place of.
# One that is parked has neither: who keeps it says so when it is.
NOT_PARKED = ~Q(call__closed_why=guards.PARKED)
NO_STREAM_WAITS = Q(call__closed_epoch__gte=F("call__epoch")) & NOT_PARKED
OF_NO_USE = Q(call__ended_at__isnull=False) | NO_STREAM_WAITS | Q(call__status__in=NO_STREAM_COMES) | SUPERSEDED


class Vapi(Protocol):
    """What we need of `bridge.vapi_http.VapiClient`."""

    def create_call(self, request: Mapping[str, Any]) -> VapiCall: ...

    def end_call(self, control_url: str) -> None: ...

    def end_by_socket(self, socket_url: str) -> None: ...


def ask_session(*, call: CallSession, n: int, at: datetime, account: str = VapiAccount.MAIN) -> NewEvent:
    """Ask for Vapi session number `n` of a call; the caller records the event returned. Raises IntegrityError if asked for before."""
    VapiSession.objects.create(call=call, n=n, asked_at=at, account=account)
    detail = {"n": n} if account == VapiAccount.MAIN else {"n": n, "account": str(account)}
    return NewEvent("vapi-session-asked", Source.SYSTEM, at, detail)


def account_of(*, pk: int) -> str:
    """At which account a session is made, ended and asked about."""
    found = VapiSession.objects.filter(pk=pk).values_list("account", flat=True).first()
    return found or VapiAccount.MAIN


def claim_session(*, pk: int, by: str, at: datetime, from_another: bool = False) -> uuid.UUID | None:
    """Win the right to create this session at Vapi; `by` is worker or consumer. None: somebody else did, or its stream is over.

    `from_another`: whoever claimed it must be dead by now. If it is not, its Vapi call is ended by it, else by `calls.orphans`.
    """
    claim = uuid.uuid4()
    # Not by a join: PostgreSQL would look at the joined row as it was, and two could win (it re-reads the row itself only).
    wanting = CallSession.objects.filter(guards.AGENT_WANTED)
    mine = VapiSession.objects.filter(guards.BEING_CREATED if from_another else guards.UNCLAIMED, pk=pk, call__in=wanting)
    won = mine.update(state=VapiState.CLAIMED, claim=claim, claimed_by=by, claimed_at=at, maybe_created=from_another)
    return claim if won else None


def session_live(*, pk: int, claim: uuid.UUID, vapi_call: VapiCall, at: datetime) -> bool:
    """Keep what Vapi answered. False when the claim is no longer ours: the caller must end that Vapi call itself.

    Raises IntegrityError when the id is that of another session: Vapi mixed them up, and that call is not ours to touch.
    """
    mine = VapiSession.objects.select_related("call").get(pk=pk)
    with transaction.atomic():
        evidence.hold(call_sid=mine.call.call_sid, at=at)
        claimed = VapiSession.objects.filter(guards.claimed_with(claim), pk=pk)
        won = claimed.update(
            state=VapiState.LIVE,
            vapi_call_id=vapi_call.id,
            socket_url=vapi_call.socket_url,
            control_url=vapi_call.control_url,
            live_at=at,
        )
        if not won:
            return False
        of_nobody_else = Q(body__call__name__isnull=True) | Q(body__call__name__in=("", f"{mine.call.call_sid}.{mine.n}"))
        InboxMessage.objects.filter(of_nobody_else, vapi_call_id=vapi_call.id, call=None).update(call=mine.call)
        detail = {"n": mine.n, "by": mine.claimed_by, "ms": _ms_between(mine.asked_at, at)}
        record_events(call_sid=mine.call.call_sid, events=[NewEvent("vapi-session-live", Source.SYSTEM, at, detail)])
        transaction.on_commit(partial(publisher.tell, mine.call.call_sid, live.SESSION))
    return True


def session_failed(*, pk: int, claim: uuid.UUID, why: str, at: datetime, maybe_created: bool = False) -> bool:
    """The session could not be created; `why` is our own sentence. True when the claim was still ours.

    `maybe_created`: a Vapi call of its name may run all the same, and is to be looked for. Whoever sees the failure sees what is
    next: the session that takes its place, at the backup account, is asked for with it (`asked_instead`).
    """
    mine = VapiSession.objects.select_related("call").get(pk=pk)
    with transaction.atomic():
        evidence.hold(call_sid=mine.call.call_sid, at=at)
        claimed = VapiSession.objects.filter(guards.claimed_with(claim), pk=pk)
        suspicious = mine.maybe_created or maybe_created
        if claimed.update(state=VapiState.FAILED, failure=why[:200], maybe_created=suspicious, ended_at=at) == 0:
            return False
        detail = {"n": mine.n, "by": mine.claimed_by, "why": why[:200]}
        record_events(call_sid=mine.call.call_sid, events=[NewEvent("vapi-session-failed", Source.SYSTEM, at, detail)])
        _ask_instead(mine, why=why, at=at)
        transaction.on_commit(partial(publisher.tell, mine.call.call_sid, live.SESSION))
    finalise(call_sid=mine.call.call_sid)
    return True


def _ask_instead(failed: VapiSession, *, why: str, at: datetime) -> None:
    """Ask the backup for the agent that a failed session owes, if it is the newest one of a call that still wants an agent."""
    call = CallSession.objects.filter(guards.AGENT_WANTED, pk=failed.call_id).exclude(status__in=NO_STREAM_COMES).first()
    if call is None or failed.account != VapiAccount.MAIN or call.version_id is None or call.vapi_sessions.filter(n__gt=failed.n).exists():
        return
    if call.commands.filter(verb="hand-over").exists() or not accounts.left(call, at=at).backup:
        return
    rungs.lower_rung(call_sid=call.call_sid, rung=accounts.RUNGS[VapiAccount.BACKUP], why=why[:200], at=at)
    asked = ask_session(call=call, n=failed.n + 1, at=at, account=VapiAccount.BACKUP)
    record_events(call_sid=call.call_sid, events=[asked])


def asked_instead(*, pk: int) -> int | None:
    """The session that was asked for because this one failed, if nobody has claimed it yet."""
    failed = VapiSession.objects.filter(pk=pk, state=VapiState.FAILED).first()
    if failed is None:
        return None
    instead = VapiSession.objects.filter(call=failed.call_id, n=failed.n + 1, state=VapiState.ASKED)
    return instead.values_list("pk", flat=True).first()


def _keeps_nothing(_: VapiCall) -> bool:
    return False


def start_conversation(
    *,
    vapi_session_pk: int,
    by: str,
    client: Vapi,
    clock: Callable[[], datetime] = timezone.now,
    from_another: bool = False,
    keep: Callable[[VapiCall], bool] = _keeps_nothing,
) -> bool:
    """Claim a session and create it at Vapi, whoever comes first. True when this caller made it live.

    Vapi has 3.0 s for its answer, as `client` promises. All of it takes longer when the database does not answer: storing what
    Vapi said is tried three times, with a second of pauses and three waits for the database (`calls.patience`). And a session that
    nobody needs by then is ended at Vapi, which has 12 s for that. `keep` takes what the database did not, and has it stored later.

    A failure is a state of the row, not an exception: the live stream is told, and its ladder goes on from there. Raises
    VapiUnavailable when a session nobody needs any more could not be ended: try `end_session` again.
    """
    claim = claim_session(pk=vapi_session_pk, by=by, at=clock(), from_another=from_another)
    if claim is None:
        return False
    session = VapiSession.objects.select_related("call", "call__version", "call__line").get(pk=vapi_session_pk)
    try:
        vapi_call, is_gone = prepared.create(client, partial(_request, session))
    except VapiError as problem:
        log.warning("Vapi did not create a call", extra={"call": session.call.short_id, "status": problem.status})
        if kind := breaker.kind_of(problem):
            accounts.refused(session.account, kind, at=clock(), besides=session.pk)
        session_failed(pk=vapi_session_pk, claim=claim, why=str(problem), at=clock(), maybe_created=_may_run(problem))
        return False
    except Exception:  # the database, our own code or the task's time limit: the caller does not wait for what never comes
        with contextlib.suppress(DatabaseProblem):
            session_failed(pk=vapi_session_pk, claim=claim, why="It could not be asked for.", at=clock(), maybe_created=True)
        raise
    kept = _kept(pk=vapi_session_pk, claim=claim, vapi_call=vapi_call, client=client, at=clock(), keep=keep)
    _learn(session, is_gone=is_gone, at=clock())
    if not kept:
        return False
    if not VapiSession.objects.filter(OF_NO_USE, pk=vapi_session_pk).exists():
        return True
    end_session(pk=vapi_session_pk, client=client, at=clock())  # its stream ended, or the caller left, while it was being created
    return False


def _learn(session: VapiSession, *, is_gone: bool, at: datetime) -> None:
    """How its account took the call, and that later ones send the words at once if what was prepared there `is_gone`.

    The agent is there: nothing of it waits for this, or breaks on it.
    """
    try:
        accounts.took(session.account, at=at)
        if is_gone and session.call.version_id is not None:
            agents.not_at_vapi(version_pk=session.call.version_id, at=at)
    except DatabaseProblem:
        close_old_connections()  # one on which a question was given up answers none any more


def _may_run(problem: VapiError) -> bool:
    """No answer came, or one that says a call was made and not how to reach it."""
    return (isinstance(problem, VapiUnavailable) and problem.sent) or problem.status in range(200, 300)


def _stored(*, pk: int, claim: uuid.UUID, vapi_call: VapiCall, at: datetime) -> bool:
    """`session_live`, tried again: the caller does not wait yet, or hears a word, and nobody may create a second call for this one."""
    for pause_s in STORED_AFTER_S:
        try:
            return session_live(pk=pk, claim=claim, vapi_call=vapi_call, at=at)
        except DatabaseProblem as problem:
            if not away.is_gone(problem):
                raise
        time.sleep(pause_s)
        close_old_connections()  # as in `_learn`
    return session_live(pk=pk, claim=claim, vapi_call=vapi_call, at=at)


def _kept(
    *,
    pk: int,
    claim: uuid.UUID,
    vapi_call: VapiCall,
    client: Vapi,
    at: datetime,
    keep: Callable[[VapiCall], bool] = _keeps_nothing,
) -> bool:
    """`session_live`; a Vapi call that nobody else knows of, and nobody keeps, is ended here."""
    try:
        kept = _stored(pk=pk, claim=claim, vapi_call=vapi_call, at=at)
    except IntegrityError:
        session_failed(pk=pk, claim=claim, why="Vapi answered with the id of another call.", at=at, maybe_created=True)
        return False
    except Exception as problem:  # the database is away in this very moment
        close_old_connections()
        if away.is_away(problem) and keep(vapi_call):
            raise
        ended = end_quietly(client, vapi_call)
        with contextlib.suppress(DatabaseProblem):
            session_failed(pk=pk, claim=claim, why="What Vapi answered could not be stored.", at=at, maybe_created=not ended)
        raise
    if not kept and not end_quietly(client, vapi_call):
        VapiSession.objects.filter(pk=pk).update(maybe_created=True)
    return kept


def end_session(*, pk: int, client: Vapi, at: datetime) -> bool:
    """End a session at Vapi, however far it came. True for the one that ended it; safe to run again.

    One that is being created right now is left to its creator. Raises VapiUnavailable: try again.
    """
    if VapiSession.objects.filter(guards.UNCLAIMED, pk=pk).update(state=VapiState.ENDED, ended_at=at):
        asked = VapiSession.objects.select_related("call").get(pk=pk)
        _note_unused(asked, at)
        finalise(call_sid=asked.call.call_sid)
        return True
    session = VapiSession.objects.select_related("call").filter(pk=pk, state=VapiState.LIVE).first()
    if session is None:
        return False
    try:
        end_at_vapi(client, control_url=session.control_url, socket_url=session.socket_url)
    except VapiRefused as problem:  # trying again changes nothing; it ends by itself when nobody speaks
        log.error("Vapi would not end a call", extra={"call": session.call.short_id, "status": problem.status})
    if not _ended(VapiSession.objects.filter(pk=pk), at=at):
        return False
    _note_unused(session, at)
    return True


def _note_unused(session: VapiSession, at: datetime) -> None:
    """The caller is there, by all we know, and no stream has ever come for this session."""
    if session.call.ended_at is None and session.call.stream_epoch < session.call.epoch:
        event = NewEvent("stream-never-opened", Source.SYSTEM, at, {"n": session.n})
        record_events(call_sid=session.call.call_sid, events=[event])


def open_sessions(*, call_sid: str) -> list[int]:
    """Sessions of a call that may still cost money and are of no use any more, as primary keys."""
    still_open = VapiSession.objects.filter(OF_NO_USE, call__call_sid=call_sid, ended_at=None)
    return list(still_open.values_list("pk", flat=True))


def session_ended(*, vapi_call_id: str, at: datetime, raw: str = "") -> bool:
    """Vapi says this session is over; `raw` is its own reason. True for the first word of it."""
    session = VapiSession.objects.filter(vapi_call_id=vapi_call_id)
    if not _ended(session, at=at, ended_reason=raw[:200]):
        return False
    if limit := ended_reasons.limit(raw):  # Vapi took the call, and did not start it
        pk, account = session.values_list("pk", "account").get()
        transaction.on_commit(lambda: accounts.refused(account, limit, at=at, besides=pk), robust=True)
    return True


def report_arrived(*, vapi_call_id: str, raw: str, cost_usd: Decimal | None, at: datetime) -> bool:
    """The end-of-call report of a session is merged: the session is over, its cost known. True for the first report.

    A later one may know the cost better: one that we fetched can be older than the bill. The call is finalised when it has
    ended and no report of its sessions is outstanding.
    """
    session_ended(vapi_call_id=vapi_call_id, raw=raw, at=at)
    reported = VapiSession.objects.filter(vapi_call_id=vapi_call_id)
    with transaction.atomic():
        told = {"ended_reason": raw[:200]} if raw else {}
        first = reported.filter(report_at=None).update(report_at=at, **told) == 1
        billed = cost_usd is not None and reported.exclude(cost_usd=cost_usd).update(cost_usd=cost_usd) == 1
        if not (first or billed):
            return False
        call = CallSession.objects.get(vapi_sessions__vapi_call_id=vapi_call_id)
        cost = call.vapi_sessions.aggregate(sum=Sum("cost_usd"))["sum"]
        CallMetrics.objects.update_or_create(call=call, defaults={"cost_usd": cost})
    if first:
        finalise(call_sid=call.call_sid)
    return first


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
    """Finalise the calls that ended more than 120 s ago. Returns how many of them are closed without a report.

    Vapi has been asked for such a report before, and gave none; if it comes later, the call gets it all the same.
    """
    waiting = CallSession.objects.filter(status=Status.ENDED, ended_at__lt=now - REPORT_WITHIN)
    return sum(_given_up(call_sid) for call_sid in waiting.values_list("call_sid", flat=True))


def _given_up(call_sid: str) -> bool:
    """True when a report is missing; a session that never became live owes none, though nobody may have closed it."""
    unreported = VapiSession.objects.filter(call__call_sid=call_sid, live_at__isnull=False, report_at=None)
    if unreported.filter(ended_at__isnull=False, report_asks=0).exists():
        return False  # Vapi is asked for it first
    if unreported.exists():
        return _close_books(call_sid, Report.MISSING)
    finalise(call_sid=call_sid)
    return False


def _close_books(call_sid: str, report: str) -> bool:
    with transaction.atomic():
        open_books = Q(status=Status.ENDED)
        if report == Report.MERGED:
            open_books |= Q(status=Status.FINALISED, report=Report.MISSING)  # it came after it was given up
        ended = CallSession.objects.filter(open_books, call_sid=call_sid)
        if ended.update(status=Status.FINALISED, report=report) == 0:
            return False
        pages_look(call_sid=call_sid)
        erasure.after_call(call_sid=call_sid, at=timezone.now())
    return True


def give_up_claims(*, now: datetime) -> int:
    """Fail the sessions whose creator died. Returns how many; each may have been created at Vapi all the same."""
    dead = VapiSession.objects.filter(state=VapiState.CLAIMED, claimed_at__lt=now - CLAIM_LIFE, claim__isnull=False)
    claims = [(pk, claim) for pk, claim in dead.values_list("pk", "claim") if claim is not None]
    why = "Whoever was creating it died."
    return sum(session_failed(pk=pk, claim=claim, why=why, at=now, maybe_created=True) for pk, claim in claims)


def left_over(*, now: datetime, judges: bool = True) -> list[int]:
    """Sessions that are open although their call, or its stream, is over or cannot come any more.

    Claims whose holder died are given up first. Unless `now` may be compared with what was written before (`judges`), as it may not
    when the clock has just jumped, nothing is held too late.
    """
    useless = OF_NO_USE
    if judges:
        give_up_claims(now=now)
        useless |= NO_STREAM_CAME & NOT_PARKED & Q(asked_at__lt=now - STREAM_COMES_WITHIN)  # its token's life began then
    forgotten = VapiSession.objects.filter(useless, state__in=(VapiState.ASKED, VapiState.LIVE), ended_at=None)
    return list(forgotten.values_list("pk", flat=True))


def is_of_no_use(*, pk: int) -> bool:
    """True when a session lives at Vapi that nobody will ever connect to."""
    return VapiSession.objects.filter(OF_NO_USE, pk=pk, state=VapiState.LIVE).exists()


def _request(session: VapiSession, may_be_prepared: bool = True) -> dict[str, Any]:
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
        taken_up=memory.taken_up(session),
        prepared=may_be_prepared and session.account == VapiAccount.MAIN,
        claim=str(session.claim or ""),
    )


def end_at_vapi(client: Vapi, *, control_url: str, socket_url: str) -> bool:
    """Say the end where Vapi listens: by the control address, else on the audio socket. False: there is neither, and nobody was told.

    Raises VapiUnavailable or VapiRefused.
    """
    try:
        if control_url:
            client.end_call(control_url)
            return True
    except VapiError:
        if not socket_url:
            raise
    if socket_url:
        client.end_by_socket(socket_url)
    return bool(socket_url)


def end_quietly(client: Vapi, vapi_call: VapiCall | ListedCall) -> bool:
    """End a Vapi call that no session of ours holds. False, with a line in the log: it may go on."""
    try:
        told = end_at_vapi(client, control_url=vapi_call.control_url, socket_url=vapi_call.socket_url)
    except VapiError as problem:
        log.error("A Vapi call nobody holds could not be ended", extra={"status": problem.status})
        return False
    if not told:
        log.error("A Vapi call nobody holds has no address to end it at")
    return told


def _ended(sessions: QuerySet[VapiSession], *, at: datetime, **reason: str) -> bool:
    """Close rows that are live; whoever has the two URLs of an ended session has nothing."""
    still_live = sessions.filter(guards.SESSION_OPEN)
    return still_live.update(state=VapiState.ENDED, ended_at=at, socket_url="", control_url="", **reason) == 1


def _ms_between(start: datetime, end: datetime) -> int:
    return max(0, int((end - start).total_seconds() * 1000))
