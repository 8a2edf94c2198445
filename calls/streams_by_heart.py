"""Streams while the database is away: let in if their call was opened by heart (`calls.by_heart`), and given an agent.

Or, if the row can at least be read, let in to the agent it tells of. If it cannot, the first stream of a call that rang a moment
before is let in on what was remembered then (`by_heart.expect`). The agent that its row may have for it nobody can find there, so
another one is made, with a number no row has used, and that one is looked for at Vapi and ended.

And given another agent when one is lost: also a stream that was let in before, whose agent this process knows and whose last
lines it heard. Each agent is made once on this machine: by whoever makes the mark of its number first.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

from agents import account, lines
from agents.payload import HANDED_ON, RESUMED, TakenUp
from bridge import live
from bridge.errors import VapiError, VapiRefused, VapiUnavailable
from bridge.longest import ROLLED_OVER
from bridge.ports import Admission, CallRef, Conversation
from calls import (
    by_heart,
    discretion,
    entries,
    guards,
    ladder,
    orphans,
    prepared,
    publisher,
    resuming,
    said_before,
    said_by_heart,
    sessions,
)
from calls.clock import moment
from calls.entries import Admitted, Asked, Created, Entry, Resumed
from calls.keeper import Keeper
from calls.models import CallSession, VapiAccount
from calls.orphans import Account
from calls.terms import terms

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Carried:
    """A stream of this process: how its call is answered, and its newest agent as far as it is known.

    `by_heart`: that agent is made here, without a row. `taken_up`: it goes on with what another one had, who is to be ended
    (`before`: its account, and its control and socket addresses). `lost`: when conversations were lost that have a row.
    `unheard_since`: from then on another one may wait at Vapi for this stream, whom nobody can look up.
    Not `is_known`: the call has a name of its own in its row, which cannot be read.
    """

    answer: lines.Answer
    agent: Conversation | None = None
    by_heart: bool = False
    taken_up: TakenUp | None = None
    is_known: bool = True
    control_url: str = field(default="", repr=False)
    before: tuple[str, str, str] | None = field(default=None, repr=False)
    lost: list[float] = field(default_factory=list)
    unheard_since: datetime | None = None


class StreamsByHeart:
    """One per process. `tell` takes what came of a create, `wall` is seconds since 1970, `boot` is the life of this process."""

    def __init__(
        self,
        *,
        keeper: Keeper,
        clients: Mapping[VapiAccount, Account],
        tell: Callable[[Created | Resumed], object],
        wall: Callable[[], float],
        boot: Callable[[], uuid.UUID | None] = lambda: None,
    ) -> None:
        self._keeper, self._clients, self._tell, self._wall = keeper, clients, tell, wall
        self._boot = boot
        self._carried: dict[CallRef, Carried] = {}

    def __contains__(self, ref: CallRef) -> bool:
        """Its agent is made here, without a row."""
        mine = self._carried.get(ref)
        return mine is not None and mine.by_heart

    def agent_of(self, ref: CallRef) -> Conversation | None:
        """None also when the database is back: then the row knows better."""
        mine = self._carried.get(ref)
        return mine.agent if mine is not None and mine.by_heart and self._keeper.holds else None

    def remember(self, ref: CallRef, call: CallSession) -> None:
        """How a call is answered whose stream was let in, for when its row cannot be asked."""
        answer = lines.remembered(call.to_number, draw=lines.draw_of(ref.call_sid))
        if answer is not None:
            version = lines.version_by_heart(call.line_id, call.version_id) if call.version_id else None
            self._carried[ref] = Carried(replace(answer, version=version))

    def saw(self, ref: CallRef, conversation: Conversation | None) -> None:
        """What the row says of its agent."""
        mine = self._carried.get(ref)
        if mine is not None and not mine.by_heart and conversation is not None:
            mine.agent = conversation

    def has_people(self, ref: CallRef) -> bool:
        """Whether somebody can take this call from the AI."""
        mine = self._carried.get(ref)
        return mine is not None and bool(mine.answer.targets or mine.answer.voicemail)

    def resumed_by_row(self, ref: CallRef, *, raw: str, at: float) -> None:
        """Its row has asked for another agent."""
        if (mine := self._carried.get(ref)) is not None:
            mine.by_heart, mine.agent = False, None
            if raw != ROLLED_OVER:
                mine.lost.append(at)

    def forget(self, ref: CallRef) -> None:
        """The stream is over."""
        self._carried.pop(ref, None)

    def admit(self, *, call_sid: str, account_sid: str, stream_sid: str, epoch: int, at: datetime) -> Admission | None:
        """Let in the stream of a call that was opened, or sent on, by heart. Its token has been checked."""
        told = by_heart.sent_on(call_sid, epoch) if epoch else by_heart.known(call_sid)
        if told is None or told["account_sid"] != account_sid:
            return None
        answer = lines.remembered(told["to_number"], draw=lines.draw_of(call_sid))
        if answer is None or answer.version is None or not by_heart.first(call_sid, f"stream-{epoch}"):
            return None
        ref = CallRef(call_sid, epoch, CallSession(public_id=by_heart.public_id(call_sid)).short_id)
        agent = Conversation(n=by_heart.first_number(epoch), state="asked", account=told.get("account", VapiAccount.MAIN))
        mine = self._carried[ref] = Carried(answer, agent, by_heart=True)
        _answered_by(ref, answer.version)
        self._keep_admitted(ref, account_sid, stream_sid, at)
        if epoch:
            opening = HANDED_ON if told["why"] == resuming.DRAINED else RESUMED
            mine.taken_up = TakenUp(said_before.as_told(call_sid, said_by_heart.said_lately(call_sid)), opening)
            mine.is_known = by_heart.known(call_sid) is not None
        return terms(ref, answer.version.words, zero_for_person=answer.zero_for_person)

    def admit_expected(self, *, call_sid: str, account_sid: str, stream_sid: str, epoch: int, at: datetime) -> Admission | None:
        """Let in the first stream of a call whose row cannot be read, on what was remembered when it was asked for."""
        told = by_heart.expected(call_sid) if epoch == 0 else None
        if told is None or told["account_sid"] != account_sid:
            return None
        answer = lines.remembered(told["to_number"], draw=lines.draw_of(call_sid))
        version = lines.version_by_heart(answer.line_id, told["version"]) if answer is not None else None
        if answer is None or version is None or not (by_heart.has_come(call_sid) and by_heart.first(call_sid, f"stream-{epoch}")):
            return None
        ref = CallRef(call_sid, epoch, CallSession(public_id=uuid.UUID(told["public_id"])).short_id)
        agent = Conversation(n=by_heart.UNREAD_NUMBER, state="asked")
        mine = self._carried[ref] = Carried(replace(answer, version=version), agent, by_heart=True)
        mine.unheard_since = moment(told["at"])
        _answered_by(ref, version)
        self._keep_admitted(ref, account_sid, stream_sid, at, Asked(ref, agent.n, at.timestamp()))
        return terms(ref, version.words, zero_for_person=answer.zero_for_person)

    def let_in(
        self, admission: Admission, call: CallSession, agent: Conversation, *, account_sid: str, stream_sid: str, at: datetime
    ) -> bool:
        """Let in the stream of a call whose row could be read, and whose agent is there. False: it was before, or its line is unknown."""
        ref = admission.ref
        self.remember(ref, call)
        if ref not in self._carried or not by_heart.first(ref.call_sid, f"stream-{ref.epoch}"):
            return False
        by_heart.has_come(ref.call_sid)
        self._carried[ref].agent, self._carried[ref].by_heart = agent, True
        self._keep_admitted(ref, account_sid, stream_sid, at)
        return True

    def _keep_admitted(self, ref: CallRef, account_sid: str, stream_sid: str, at: datetime, *more: Asked) -> None:
        """Whose stream it is stands with it: should this process die later, others look after the call."""
        boot = self._boot()
        told: list[Entry] = [Admitted(ref, account_sid, stream_sid, at.timestamp(), str(boot) if boot else ""), *more]
        self._keeper.append(list(map(entries.kept, told)))

    def waits_here(self, ref: CallRef) -> bool:
        """The agent of the stream before this one may be parked in this process: another one is not made at once."""
        return ref.epoch > 0 and by_heart.why_closed(ref.call_sid, ref.epoch - 1) == guards.PARKED

    def taken_up(self, ref: CallRef) -> bool:
        """The stream found that agent. False when another one is being made all the same."""
        mine = self._carried[ref]
        if mine.agent is None or not by_heart.took_up(ref.call_sid, mine.agent.n):
            return False
        mine.agent, mine.by_heart = None, False
        return True

    def resume(self, ref: CallRef, *, raw: str, n: int, said: Iterable[tuple[str, str]]) -> bool:
        """Ask for another agent instead of session `n` of this stream. False: none is to be had, or somebody else decided."""
        mine = self._carried.get(ref)
        if mine is None or mine.answer.version is None or by_heart.sent_on(ref.call_sid, ref.epoch + 1) is not None:
            return False
        lost, at = max(n, mine.agent.n if mine.agent else 0), self._wall()
        account_of_next = self._account_of_next(ref, mine, raw=raw, at=at)
        if account_of_next is None or not by_heart.first(ref.call_sid, f"resumed-{ref.epoch}-{lost}"):
            return False
        if raw != ROLLED_OVER:
            by_heart.lost(ref.call_sid, f"{ref.epoch}-{lost}", at=at)
        socket_url = mine.agent.socket_url if mine.agent else ""
        mine.before = (mine.agent.account if mine.agent else VapiAccount.MAIN, mine.control_url, socket_url)
        opening = {"opening": ""} if raw == ROLLED_OVER else {}
        mine.taken_up = TakenUp(said_before.as_told(ref.call_sid, said), **opening)
        mine.agent, mine.control_url, mine.by_heart = Conversation(n=lost + 1, state="asked", account=account_of_next), "", True
        self._tell(Resumed(ref, lost + 1, at, raw, account_of_next))
        return True

    def _account_of_next(self, ref: CallRef, mine: Carried, *, raw: str, at: float) -> str | None:
        """Where the next agent is made, as the ladder says: it counts what was lost before the database was."""
        if raw == ROLLED_OVER:
            return mine.agent.account if mine.agent else VapiAccount.MAIN
        for lost_at in mine.lost:
            by_heart.lost(ref.call_sid, f"{ref.epoch}-at-{lost_at:.0f}", at=lost_at)
        mine.lost.clear()
        losses = by_heart.losses(ref.call_sid, at=moment(at))
        again = ladder.next_agent(losses=losses, main=True, backup=account.has_backup())
        return None if again is None else VapiAccount.BACKUP if again.backup else VapiAccount.MAIN

    def create(self, ref: CallRef) -> int | None:
        """Make the agent of such a stream, once. Returns its number when it is written down by now: its row says who makes it."""
        mine = self._carried.get(ref)
        if mine is None or mine.agent is None or mine.agent.state != "asked":
            return None
        n, at_account = mine.agent.n, VapiAccount(mine.agent.account)
        mine.agent = replace(mine.agent, state="claimed")
        if not by_heart.first(ref.call_sid, f"claim-{n}"):
            mine.by_heart = False
            return n
        client = self._clients.get(at_account, self._clients[VapiAccount.MAIN])
        try:
            made, _ = prepared.create(client, partial(_request, ref, mine))
        except Exception as problem:  # nobody awaits this thread: the caller's way goes down the ladder
            log.error("A call could not be made by heart", extra={"call": ref.short_id, "problem": type(problem).__name__})
            mine.agent = replace(mine.agent, state="failed")
            why = str(problem) if isinstance(problem, VapiError) else "It could not be asked for."
            sent = isinstance(problem, VapiUnavailable) and problem.sent
            self._tell(Created(ref, n, self._wall(), failure=why, maybe_created=sent))
        else:
            self._tell(Created(ref, n, self._wall(), made.id, made.socket_url, made.control_url))
            mine.control_url = made.control_url
            mine.agent = replace(mine.agent, state="live", vapi_call_id=made.id, socket_url=made.socket_url)
        publisher.tell(ref.call_sid, live.SESSION)
        self._end_the_one_before(ref, mine)
        self._end_the_unheard(ref, mine)
        return None

    def _end_the_one_before(self, ref: CallRef, mine: Carried) -> None:
        """It may go on at Vapi, and nobody listens to it. Whoever reads its row later ends it too."""
        if mine.before is None:
            return
        (at_account, control_url, socket_url), mine.before = mine.before, None
        client = self._clients.get(VapiAccount(at_account), self._clients[VapiAccount.MAIN])
        try:
            sessions.end_at_vapi(client, control_url=control_url, socket_url=socket_url)
        except VapiError as problem:
            log.warning("A Vapi call that was lost could not be ended", extra={"call": ref.short_id, "status": problem.status})

    def _end_the_unheard(self, ref: CallRef, mine: Carried) -> None:
        """As long as the database is away nobody else can: whoever was making one then has ended it, or it is listed by now."""
        since, mine.unheard_since = mine.unheard_since, None
        if since is not None:
            for client in self._clients.values():
                orphans.end_unheard(client=client, call_sid=ref.call_sid, below=by_heart.UNREAD_NUMBER, since=since)


def _answered_by(ref: CallRef, version: lines.Candidate) -> None:
    discretion.remember(version.version_id, version.rules)
    discretion.answered_by(ref.call_sid, version.version_id)


def _request(ref: CallRef, mine: Carried, may_be_prepared: bool) -> dict[str, Any]:
    version = mine.answer.version
    if version is None or mine.agent is None:
        raise VapiRefused("No version of an agent is known by heart.")
    return lines.conversation_request(
        line_id=mine.answer.line_id,
        version_id=version.version_id,
        call_sid=ref.call_sid,
        n=mine.agent.n,
        epoch=ref.epoch,
        server=account.server(),
        variables={**({"call": ref.short_id} if mine.is_known else {}), "line": mine.answer.line_name},
        taken_up=mine.taken_up,
        prepared=may_be_prepared and mine.agent.account == VapiAccount.MAIN,
        by_heart=version,
    )
