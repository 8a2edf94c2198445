"""The AI once more, with the conversation so far: rungs R1 and, made at the backup account, R2 of the ladder.

A conversation is lost in two ways. The agent's own socket breaks while the caller's stream goes on (`here`): the next Vapi
session, on the same stream. Or the stream itself is over and the caller is not (`elsewhere`): the next session on a stream of
the next epoch, so that whoever still holds the old one writes nothing any more. `calls.ladder` says how often that is tried.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction

from calls import accounts, evidence, ladder, services, sessions
from calls.history import NewEvent, record_events
from calls.models import CallSession, Source, Status, VapiAccount, VapiState

LOST = "conversation-lost"
COUNTS_ON = timedelta(seconds=60)


def losses(call: CallSession, at: datetime) -> int:
    """How many conversations of this call were lost by now, the one lost now among them; each counts on for 60 s."""
    count, last = 1, at
    for before in call.events.filter(kind=LOST).order_by("-seq").values_list("at", flat=True)[: ladder.RESUMES + 1]:
        if last - before > COUNTS_ON:
            break
        count, last = count + 1, before
    return count


def may_be_resumed(call: CallSession) -> bool:
    """False when no agent answers this call, none could be had last time, or a person was asked for."""
    newest = call.vapi_sessions.last()
    wanted = call.commands.filter(verb="hand-over").exists()
    return call.version_id is not None and newest is not None and newest.state != VapiState.FAILED and not wanted


def here(*, call_sid: str, epoch: int, raw: str, at: datetime) -> int | None:
    """The agent of a stream is gone: ask for another one. Returns the session to start; None when the ladder leads down.

    The session that was lost is superseded: whoever asked ends it too (`sessions.superseded`).
    """
    with transaction.atomic():
        call = evidence.hold(call_sid=call_sid, at=at, epoch=epoch)
        if call is None or call.is_over or call.closed_epoch >= epoch:
            return None
        if not may_be_resumed(call):
            return None
        left = accounts.left(call, at=at)
        again = ladder.next_agent(losses=losses(call, at), main=left.main, backup=left.backup)
        return _next_session(call, again, raw=raw, at=at) if again else None


def elsewhere(call: CallSession, again: ladder.Resume, *, at: datetime) -> bool:
    """Give a held call its next epoch, with a session to start. False when somebody else did, or the call may not go on."""
    ways = (Status.CONNECTING,) if call.status == Status.RECOVERING else (Status.RECOVERING, Status.CONNECTING)
    for to in ways:
        services.transition(call_sid=call.call_sid, to=to, epoch=call.epoch, reason=call.closed_why, at=at)
    if not services.next_epoch(call_sid=call.call_sid, epoch=call.epoch):
        return False
    _next_session(call, again, raw=call.closed_why, at=at)
    return True


def is_resumed(*, call_sid: str, epoch: int) -> bool:
    """True when the stream after this epoch is awaited: who asks again what is next gets the same answer."""
    awaited = CallSession.objects.live().filter(call_sid=call_sid, epoch=epoch + 1, stream_epoch__lte=epoch)
    return awaited.filter(status=Status.CONNECTING).exists()


def _next_session(call: CallSession, again: ladder.Resume, *, raw: str, at: datetime) -> int:
    newest = call.vapi_sessions.last()
    n = newest.n + 1 if newest else 0
    account = VapiAccount.BACKUP if again.backup else VapiAccount.MAIN
    services.lower_rung(call_sid=call.call_sid, rung=accounts.RUNGS[account], why=raw[:200] or "unknown", at=at)
    lost = NewEvent(LOST, Source.SYSTEM, at, {"n": n - 1, "raw": raw[:200]})
    asked = sessions.ask_session(call=call, n=n, at=at, account=account)
    record_events(call_sid=call.call_sid, events=[lost, asked])
    return call.vapi_sessions.values_list("pk", flat=True).get(n=n)
