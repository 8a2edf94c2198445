"""The AI once more, with the conversation so far: rungs R1 and, made at the backup account, R2 of the ladder.

A conversation is lost in two ways. The agent's own socket breaks while the caller's stream goes on (`here`): the next Vapi
session, on the same stream. Or the stream itself is over and the caller is not (`elsewhere`): the next session on a stream of
the next epoch, so that whoever still holds the old one writes nothing any more. `calls.ladder` says how often that is tried.

A session whose longest time is near is rolled over: the next one takes its place in a pause, and nothing was lost.

When the agent of a stream that was lost is parked, the next stream is to find it: then no session is asked for (`calls.parked`).

A process that leaves hands its callers on in that second way too. That is no loss: it counts for none, and nobody is told so.
One that dies, or stands still, loses its conversations without a word of why. The agent is well then, so it counts for itself (`GONE`).
Nor is a stream on which nobody was let in. And a caller whom the AI sent to people of whom nobody came is `taken_back`, in the same way.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from bridge.longest import ROLLED_OVER
from calls import accounts, admission, carriers, evidence, guards, ladder, let_in, parked, rungs, services, sessions
from calls.history import NewEvent, record_events
from calls.memory import HANDED_ON
from calls.models import CallSession, Source, Status, VapiAccount, VapiState
from calls.taking_back import TAKEN_BACK

LOST = "conversation-lost"
TURNED_AWAY = "stream-turned-away"  # the event of a stream on which nobody was let in (`calls.turned_away`)
PARKED_IN_VAIN = "its agent waited in vain"
DRAINED = "drained"  # the bridge's word on a stream that its process handed on because it leaves: nothing was lost
COUNTS_ON = timedelta(seconds=60)
OPENS_WITHIN = timedelta(seconds=3)  # a further stream, once Twilio was told of it, which itself waits ten
GONE = "its process is gone"  # why a conversation was lost that is none of its agent's losses
STREAM_DEAD = "stream-dead"  # the bridge's word on a stream that carried nothing any more, one way or the other


def losses(call: CallSession, at: datetime) -> int:
    """How many conversations of this call were lost by now, the one lost now among them; each counts on for 60 s.

    Those of a process that died are `deaths`.
    """
    before = (lost_at for lost_at, raw in _lost(call) if raw != GONE)
    return in_a_row(before, at, counts=not (_was_handed_on(call) or parked.is_said(call) or died(call)))


def deaths(call: CallSession, at: datetime) -> int:
    """How many processes of ours died in a row under this call, the one now among them; 0 when none has now."""
    if not died(call):
        return 0
    return in_a_row((lost_at for lost_at, raw in _lost(call) if raw == GONE), at)


def _lost(call: CallSession) -> list[tuple[datetime, str]]:
    """When conversations of this call were lost, newest first, and what was known of why. A database is slower to look into `detail`."""
    rows = call.events.filter(kind=LOST).order_by("-seq").values_list("at", "detail")
    return [(lost_at, detail.get("raw", "")) for lost_at, detail in rows]


def died(call: CallSession) -> bool:
    """The process that had the conversation is gone: nobody wrote why the stream is over, or an agent was parked there."""
    is_unsaid = call.closed_epoch < call.epoch == call.stream_epoch
    return parked.is_awaited_in_vain(call) or (is_unsaid and carriers.is_gone(call))


def in_a_row(losses: Iterable[datetime], at: datetime, *, counts: bool = True) -> int:
    """How many of these, newest first, follow each other so closely that they count on until now. `counts`: so does the one of now."""
    count, last = int(counts), at
    for before in losses:
        if last - before > COUNTS_ON:
            break
        count, last = count + 1, before
    return count


def _was_handed_on(call: CallSession) -> bool:
    return call.closed_epoch == call.epoch and call.closed_why == DRAINED


def may_be_resumed(call: CallSession) -> bool:
    """False when no agent answers this call, none could be had last time, or this stream is over because a person was wanted."""
    wish = services.hand_over_key(call.call_sid, call.epoch)
    return agent_at_hand(call) and not any(command.key == wish for command in call.commands.all())


def agent_at_hand(call: CallSession) -> bool:
    """An agent answers this call, and could be had when it was last asked for."""
    newest = call.newest_session
    return call.version_id is not None and newest is not None and newest.state != VapiState.FAILED


def is_told_to_wait(call: CallSession) -> bool:
    """The caller hears a word at once, from Twilio: the stream before this one was dead for seconds before that was known.

    Or two streams in a row were turned away. A process that is full or about to leave does that at once, and may be sent the next
    one, too, until whoever sends them has heard of it: three would be over in a tenth of a second.
    """
    if call.epoch > 0 and call.closed_why == STREAM_DEAD and call.closed_epoch == call.epoch - 1:
        return True
    return call.epoch > 1 and call.events.filter(kind=TURNED_AWAY, detail__epoch__in=(call.epoch - 2, call.epoch - 1)).count() == 2


def stream_to_come(calls: QuerySet[CallSession]) -> QuerySet[CallSession]:
    """Those whose next stream was asked for and is not here."""
    return calls.filter(status=Status.CONNECTING, epoch__gt=0, stream_epoch__lt=F("epoch"))


def stream_asked_at(call: CallSession) -> datetime:
    """When the newest stream was asked for: with its agent, unless that has waited since the stream before."""
    refused = call.events.filter(kind=TURNED_AWAY).order_by("seq").last() if call.epoch else None
    if refused is not None and refused.detail["epoch"] == call.epoch - 1:
        return refused.at
    return parked.asked_at(call) or call.vapi_sessions.latest("n").asked_at


def stream_is_missing(call: CallSession, at: datetime) -> bool:
    """A further stream should be here by now: the way to the AI is what failed."""
    is_to_come = stream_to_come(CallSession.objects.filter(pk=call.pk)).exists()
    return is_to_come and call.newest_session is not None and should_have_come(call.call_sid, call.epoch, stream_asked_at(call), at)


def should_have_come(call_sid: str, epoch: int, asked_at: datetime, at: datetime) -> bool:
    """The time for the stream of this epoch is over; it runs from when Twilio knew, which a busy door says seconds after it `asked_at`."""
    told_at = let_in.answered_at(call_sid, epoch - 1)
    return (max(asked_at, told_at) if told_at else asked_at) <= at - OPENS_WITHIN


def here(*, call_sid: str, epoch: int, raw: str, at: datetime, n: int | None = None) -> int | None:
    """The agent of a stream is gone: ask for another one. Returns the session to start; None when the ladder leads down.

    The session that was lost is superseded: whoever asked ends it too (`sessions.SUPERSEDED`). If `n` is its number, and another one
    was asked for already, that is the one to start: it may be why this one was ended.
    """
    with transaction.atomic():
        call = evidence.hold(call_sid=call_sid, at=at, epoch=epoch)
        if call is None or call.is_over or call.closed_epoch >= epoch:
            return None
        if not may_be_resumed(call):
            return None
        parked.decided(call_sid=call_sid, epoch=epoch - 1)
        newest = call.newest_session
        if newest is not None and n is not None and newest.n > n and newest.ended_at is None:
            return newest.pk
        if newest is not None and raw == ROLLED_OVER:
            return _roll_over(call, newest.n + 1, account=newest.account, at=at)
        left = accounts.left(call, at=at)
        again = ladder.next_agent(losses=losses(call, at), deaths=deaths(call, at), main=left.main, backup=left.backup)
        return _next_session(call, again, raw=raw, at=at) if again else None


def _roll_over(call: CallSession, n: int, *, account: str, at: datetime) -> int:
    """The next session of the same agent, at the same account: no rung lower, and no loss."""
    asked = sessions.ask_session(call=call, n=n, at=at, account=account)
    record_events(call_sid=call.call_sid, events=[NewEvent(ROLLED_OVER, Source.BRIDGE, at, {"n": n}), asked])
    return call.vapi_sessions.values_list("pk", flat=True).get(n=n)


def elsewhere(call: CallSession, again: ladder.Resume, *, at: datetime) -> bool:
    """Give a held call its next epoch, with a session to start. False when somebody else did, or the call may not go on."""
    waits = parked.is_said(call) or parked.may_be_said(call)
    if not on_another_stream(call, at):
        return False
    if waits:
        parked.await_stream(call, n=_next_n(call) - 1, at=at)
    else:
        _next_session(call, again, raw=call.closed_why, at=at)
    return True


def given_up(*, call_sid: str, epoch: int, at: datetime) -> int | None:
    """The agent of the stream of this epoch is parked no more. Returns the session to start when the next stream is awaited already."""
    with transaction.atomic():
        call = evidence.hold(call_sid=call_sid, at=at)
        if call is not None:  # a person who was asked for comes by the resume door
            wish = call.commands.filter(key=services.hand_over_key(call_sid, epoch))
            services.too_late(call.commands.all() if call.is_over else wish, at=at)
        if call is None or not parked.decided(call_sid=call_sid, epoch=epoch) or call.epoch == epoch:
            return None  # the resume door, or the stream that has come, asks for what is next
        left = accounts.left(call, at=at)
        again = ladder.next_agent(losses=losses(call, at), deaths=deaths(call, at), main=left.main, backup=left.backup)
        return _next_session(call, again, raw=PARKED_IN_VAIN, at=at) if again and may_be_resumed(call) else None


def taken_back(call: CallSession, *, why: str, at: datetime) -> bool:
    """As `elsewhere`, for a held call whose caller was sent to people: nobody came, and the AI has to say so.

    `why`: nobody-answered or closed-hours. The event names the session whose first words say it (`calls.taking_back`).
    """
    if not on_another_stream(call, at):
        return False
    services.too_late(call.commands.all(), at=at)  # else a person, who was reached for in vain, would be at once again
    admission.take_again(call, at=at)
    n, left = _next_n(call), accounts.left(call, at=at)
    asked = sessions.ask_session(call=call, n=n, at=at, account=VapiAccount.MAIN if left.main else VapiAccount.BACKUP)
    record_events(call_sid=call.call_sid, events=[NewEvent(TAKEN_BACK, Source.SYSTEM, at, {"n": n, "why": why}), asked])
    return True


def on_another_stream(call: CallSession, at: datetime) -> bool:
    """The call's next epoch. A parked agent is waited for no more, unless that is said anew (`parked.await_stream`)."""
    if parked.is_said(call):
        parked.decided(call_sid=call.call_sid, epoch=call.epoch)
    from_here = (Status.RECOVERING, Status.TRANSFERRING)
    for to in (Status.CONNECTING,) if call.status in from_here else (Status.RECOVERING, Status.CONNECTING):
        services.transition(call_sid=call.call_sid, to=to, epoch=call.epoch, reason=call.closed_why, at=at)
    return services.next_epoch(call_sid=call.call_sid, epoch=call.epoch)


def turned_away(call: CallSession, *, epoch: int, at: datetime) -> None:
    """Nobody was let in on the stream of this epoch, and the next one was asked for."""
    detail = {"n": _next_n(call) - 1, "epoch": epoch}
    record_events(call_sid=call.call_sid, events=[NewEvent(TURNED_AWAY, Source.SYSTEM, at, detail)])


def _next_n(call: CallSession) -> int:
    newest = call.newest_session
    return newest.n + 1 if newest else 0


def is_resumed(*, call_sid: str, epoch: int) -> bool:
    """True when the stream after this epoch is awaited: who asks again what is next gets the same answer."""
    return CallSession.objects.filter(guards.awaited_after(epoch), call_sid=call_sid).exists()


def _next_session(call: CallSession, again: ladder.Resume, *, raw: str, at: datetime) -> int:
    """`call` is as it was before anything was decided."""
    account = VapiAccount.BACKUP if again.backup else VapiAccount.MAIN
    raw = GONE if died(call) else raw
    return _ask_for(call, _next_n(call), account=account, raw=raw, handed_on=_was_handed_on(call), at=at)


def _ask_for(call: CallSession, n: int, *, account: VapiAccount, raw: str, handed_on: bool, at: datetime, is_told: bool = False) -> int:
    """Session `n`, after one that was lost, or that was `handed_on` in good order. `is_told`: the rows know that, and it counts once."""
    lowered = rungs.lowered(call_sid=call.call_sid, rung=accounts.RUNGS[account], why=raw[:200] or "unknown", at=at)
    detail = {"n": n - 1, "raw": raw[:200]}
    lost = NewEvent(LOST, Source.SYSTEM, at, detail)
    in_good_order = NewEvent(HANDED_ON, Source.SYSTEM, at, detail)
    asked = sessions.ask_session(call=call, n=n, at=at, account=account)
    before = [] if is_told else [in_good_order if handed_on else lost]
    record_events(call_sid=call.call_sid, events=[*lowered, *before, asked])
    return call.vapi_sessions.values_list("pk", flat=True).get(n=n)


# -- what was decided while the database was away -------------------------------------------------------------------------


def here_by_heart(*, call_sid: str, n: int, account: str, raw: str, at: datetime) -> bool:
    """Another agent of a stream was asked for while nobody could be asked; whoever carries the stream makes it. True when that is news."""
    call = evidence.hold(call_sid=call_sid, at=at)
    if call is None or call.vapi_sessions.filter(n=n).exists():
        return False
    if raw == ROLLED_OVER:
        _roll_over(call, n, account=account, at=at)
    else:
        _ask_for(call, n, account=VapiAccount(account), raw=raw, handed_on=False, at=at)
    being_made_by_heart(call, n)
    return True


def first_by_heart(*, call_sid: str, epoch: int, n: int, at: datetime) -> bool:
    """The agent of a stream was asked for while nobody could read which one waits for it; whoever carries the stream makes it.

    Nothing was lost, and the caller was greeted once. True when that is news. The agent of a later stream stays the newest one.
    """
    call = evidence.hold(call_sid=call_sid, at=at)
    if call is None or call.vapi_sessions.filter(n=n).exists():
        return False
    if call.epoch > epoch and _next_n(call) <= n:
        return False
    record_events(call_sid=call_sid, events=[sessions.ask_session(call=call, n=n, at=at)])
    being_made_by_heart(call, n)
    return True


def elsewhere_by_heart(*, call_sid: str, epoch: int, n: int, account: str, raw: str, at: datetime, is_made: bool, is_parked: bool) -> None:
    """A call was sent on to the stream of this epoch while nobody could be asked. `raw`: why the one before was over; "" if nobody knows.

    `is_made`: the agent of that stream, session `n`, is made or being made without a row; `is_parked`: it found the one before.
    """
    call = evidence.hold(call_sid=call_sid, at=at)
    if call is None or call.vapi_sessions.filter(n=n).exists():
        return
    is_first = call.epoch == epoch - 1 and not call.is_over
    if not is_first:  # the rows have sent it on, too
        if is_made:
            parked.decided(call_sid=call_sid, epoch=epoch - 1)
        if is_parked or not is_made:
            return
    waits = is_parked or (not is_made and parked.is_said(call))
    raw = raw or (GONE if is_first and died(call) else "")
    if is_first:
        on_another_stream(call, at)
    if waits:
        parked.await_stream(call, n=_next_n(call) - 1, at=at)
        if is_parked:
            parked.decided(call_sid=call_sid, epoch=epoch - 1)
        return
    is_told = not is_first
    if is_first and raw == TURNED_AWAY and not parked.is_awaited(call):
        turned_away(call, epoch=epoch - 1, at=at)
        is_told = True
    _ask_for(call, n, account=VapiAccount(account), raw=raw, handed_on=raw == DRAINED, is_told=is_told, at=at)
    if is_made:
        being_made_by_heart(call, n)


def being_made_by_heart(call: CallSession, n: int) -> None:
    """The stream's own process makes this session, or has made it: nobody else makes another."""
    claim = {"state": VapiState.CLAIMED, "claim": uuid.uuid4(), "claimed_by": "consumer", "claimed_at": timezone.now()}
    call.vapi_sessions.filter(guards.UNCLAIMED, n=n).update(**claim)
