"""Streams of calls that were opened by heart (`calls.by_heart`): let in, and given an agent, while the database is away."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from agents import account, lines
from bridge import live
from bridge.errors import VapiError, VapiRefused, VapiUnavailable
from bridge.ports import Admission, CallRef, Conversation
from calls import by_heart, discretion, entries, publisher
from calls.entries import Admitted, Created
from calls.keeper import Keeper
from calls.models import CallSession, VapiAccount
from calls.sessions import Vapi
from calls.terms import terms

log = logging.getLogger(__name__)


class StreamsByHeart:
    """One per process. `tell` takes what came of a create, `wall` is seconds since 1970."""

    def __init__(
        self, *, keeper: Keeper, clients: Mapping[VapiAccount, Vapi], tell: Callable[[Created], object], wall: Callable[[], float]
    ) -> None:
        self._keeper, self._clients, self._tell, self._wall = keeper, clients, tell, wall
        self._agents: dict[CallRef, Conversation] = {}
        self._has_people: set[CallRef] = set()

    def __contains__(self, ref: CallRef) -> bool:
        return ref in self._agents

    def agent_of(self, ref: CallRef) -> Conversation | None:
        """None also when the database is back: then the row knows better."""
        return self._agents.get(ref) if self._keeper.holds else None

    def remember_people(self, ref: CallRef, answer: lines.Answer | None) -> None:
        """Whether somebody can take this call from the AI, for when the row cannot be asked."""
        if answer is not None and (answer.targets or answer.voicemail):
            self._has_people.add(ref)

    def has_people(self, ref: CallRef) -> bool:
        return ref in self._has_people

    def forget_agent(self, ref: CallRef) -> None:
        self._agents.pop(ref, None)

    def forget(self, ref: CallRef) -> None:
        """The stream is over."""
        self.forget_agent(ref)
        self._has_people.discard(ref)

    def admit(self, *, call_sid: str, account_sid: str, stream_sid: str, epoch: int, at: datetime) -> Admission | None:
        """Let in the stream of a call that was opened by heart. Its token has been checked."""
        call = by_heart.known(call_sid)
        if call is None or epoch or call["account_sid"] != account_sid or not by_heart.first(call_sid, f"stream-{epoch}"):
            return None
        answer = lines.remembered(call["to_number"], draw=lines.draw_of(call_sid))
        if answer is None or answer.version is None:
            return None
        ref = CallRef(call_sid, epoch, CallSession(public_id=uuid.UUID(call["public_id"])).short_id)
        discretion.remember(answer.version.version_id, answer.version.rules)
        discretion.answered_by(call_sid, answer.version.version_id)
        self._agents[ref] = Conversation(n=0, state="asked")
        self.remember_people(ref, answer)
        self._keeper.append([entries.kept(Admitted(ref, account_sid, stream_sid, at.timestamp()))])
        return terms(ref, answer.version.words, zero_for_person=answer.zero_for_person)

    def create(self, ref: CallRef) -> bool:
        """Make the agent of such a call, once. False when the call is written down by now: its row says who makes it."""
        known = self._agents.get(ref)
        if known is None or known.state != "asked":
            return True
        self._agents[ref] = Conversation(n=0, state="claimed")
        if not by_heart.first(ref.call_sid, "claim-0"):
            self.forget_agent(ref)
            return False
        try:
            made = self._clients[VapiAccount.MAIN].create_call(_request(ref))
        except Exception as problem:  # nobody awaits this thread: the caller's way goes down the ladder
            log.error("A call could not be made by heart", extra={"call": ref.short_id, "problem": type(problem).__name__})
            self._agents[ref] = Conversation(n=0, state="failed")
            why = str(problem) if isinstance(problem, VapiError) else "It could not be asked for."
            sent = isinstance(problem, VapiUnavailable) and problem.sent
            self._tell(Created(ref, 0, self._wall(), failure=why, maybe_created=sent))
        else:
            self._tell(Created(ref, 0, self._wall(), made.id, made.socket_url, made.control_url))
            self._agents[ref] = Conversation(n=0, state="live", vapi_call_id=made.id, socket_url=made.socket_url)
        publisher.tell(ref.call_sid, live.SESSION)
        return True


def _request(ref: CallRef) -> dict[str, Any]:
    call = by_heart.known(ref.call_sid) or {}
    answer = lines.remembered(call.get("to_number", ""), draw=lines.draw_of(ref.call_sid))
    if answer is None or answer.version is None:
        raise VapiRefused("No version of an agent is known by heart.")
    return lines.conversation_request(
        line_id=answer.line_id,
        version_id=answer.version.version_id,
        call_sid=ref.call_sid,
        n=0,
        epoch=ref.epoch,
        server=account.server(),
        variables={"call": ref.short_id, "line": answer.line_name},
        by_heart=True,
    )
