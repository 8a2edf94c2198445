"""Agents that are lost while nobody can write into the database: the caller has another one, once, and afterwards the rows say so."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from django.utils import timezone

from agents import lines
from agents.payload import RESUMED
from bridge import stream_token
from bridge.errors import VapiUnavailable
from bridge.longest import ROLLED_OVER
from bridge.ports import CallRef, Conversation, LedgerAway
from calls import by_heart, disk_marks, entries, leases, rescue, services, sessions
from calls import ledger as ledger_module
from calls.entries import Created
from calls.ledger import DatabaseLedger
from calls.models import CallSession, EndReason, Rung, Status, VapiState
from calls.storing import store_again, the_keeper
from tests.builders import ACCOUNT, FakeVapi, QuietPublisher, a_call, vapi_call
from tests.calls.test_keeper import nobody_can_write, wait_for
from tests.calls.test_ledger import KEY
from tests.calls.test_ledger import ledger as ledger
from tests.calls.test_ledger import vapi as vapi

pytestmark = pytest.mark.django_db(transaction=True)
SAID = [("assistant", "Hello, how can I help?"), ("user", "My router is dead, card 4111 1111 1111 1111")]
R = TypeVar("R")


def run(asked: Coroutine[Any, Any, R]) -> R:
    return asyncio.run(asked)


def is_admitted(ledger: DatabaseLedger, call: CallSession, stream_sid: str = "MZ1") -> CallRef:
    proof = stream_token.issue(key=KEY, call_sid=call.call_sid, epoch=0, expires=int(time.time()) + 60)
    admission = run(ledger.admit(call_sid=call.call_sid, account_sid=ACCOUNT, stream_sid=stream_sid, token=proof))
    assert admission is not None
    return admission.ref


def on_the_line(ledger: DatabaseLedger, vapi: FakeVapi) -> tuple[CallSession, CallRef]:
    """A call whose stream was let in, and which talks with its first agent."""
    call = a_call()
    lines.warm()
    ref = is_admitted(ledger, call)
    sessions.start_conversation(vapi_session_pk=call.vapi_sessions.get().pk, by="worker", client=vapi)
    run(ledger.conversation(ref))
    return call, ref


def is_lost(ledger: DatabaseLedger, ref: CallRef, n: int, raw: str = "socket closed with 1011") -> bool:
    return run(ledger.resume(ref, raw=raw, n=n, said=SAID))


def agent_of(ledger: DatabaseLedger, ref: CallRef) -> Conversation:
    """The one that the stream is told of, once it is made."""
    found: list[Conversation] = []

    def is_made() -> bool:
        conversation = run(ledger.conversation(ref))
        found[:] = [conversation] if conversation is not None else []
        return bool(found) and found[0].state in ("live", "failed")

    wait_for(is_made)
    return found[0]


def all_is_stored() -> None:
    wait_for(lambda: not the_keeper().holds)


def test_a_lost_agent_is_followed_by_another_who_knows_what_was_said(
    ledger: DatabaseLedger, vapi: FakeVapi, published: QuietPublisher
) -> None:
    call, ref = on_the_line(ledger, vapi)
    lost = call.vapi_sessions.get()
    with nobody_can_write():
        assert is_lost(ledger, ref, 0)
        agent = agent_of(ledger, ref)
        assert (agent.n, agent.state) == (1, "live")
        request = vapi.created[-1]
        assert request["name"] == f"{call.call_sid}.1"
        assert request["assistant"]["firstMessage"] == RESUMED
        told = [message["content"] for message in request["assistant"]["model"]["messages"][1:]]
        assert told[0] == SAID[0][1]
        assert told[1].startswith("My router is dead")
        assert "4111" not in told[1]
        wait_for(lambda: vapi.ended == [lost.socket_url])
    all_is_stored()
    first, second = call.vapi_sessions.all()
    wait_for(lambda: call.vapi_sessions.get(n=1).state == VapiState.LIVE)
    second.refresh_from_db()
    assert (second.vapi_call_id, second.socket_url, second.claimed_by) == (agent.vapi_call_id, agent.socket_url, "consumer")
    assert sessions.open_sessions(call_sid=call.call_sid) == [first.pk]
    assert ("calls.tasks.end_sessions", (call.call_sid,)) in published.tasks
    call.refresh_from_db()
    assert (call.rung, call.epoch) == (Rung.RESUMED, 0)
    kinds = [kind for kind in call.events.order_by("seq").values_list("kind", flat=True) if "lost" in kind or "session" in kind]
    assert kinds[-3:] == ["conversation-lost", "vapi-session-asked", "vapi-session-live"]
    assert run(ledger.conversation(ref)) == agent


def test_a_stream_whose_call_was_written_down_before_finds_the_agent_that_waits_for_it(ledger: DatabaseLedger, vapi: FakeVapi) -> None:
    call = a_call()
    lines.warm()
    sessions.start_conversation(vapi_session_pk=call.vapi_sessions.get().pk, by="worker", client=vapi)
    waiting = call.vapi_sessions.get()
    with nobody_can_write():
        ref = is_admitted(ledger, call)
        assert agent_of(ledger, ref).vapi_call_id == waiting.vapi_call_id
        with pytest.raises(LedgerAway):
            is_admitted(ledger, call, "MZ2")
        run(ledger.claim(ref, 0))
    all_is_stored()
    wait_for(lambda: CallSession.objects.filter(pk=call.pk, status=Status.STREAMING, stream_sid="MZ1").exists())
    assert (len(vapi.created), vapi.ended) == (1, [])


def test_the_call_of_a_stream_let_in_by_heart_is_looked_after_when_its_process_dies_later(vapi: FakeVapi) -> None:
    boot, call = uuid.uuid4(), a_call()
    lines.warm()
    sessions.start_conversation(vapi_session_pk=call.vapi_sessions.get().pk, by="worker", client=vapi)
    ledger = DatabaseLedger(token_key=KEY, client=vapi, deadline_s=5.0, boot=lambda: boot)
    leases.begin(boot=boot, at=timezone.now())
    with nobody_can_write():
        is_admitted(ledger, call)
    all_is_stored()
    dead = leases.Sign(leases.Beat(boot, counter=0, is_dead=True), at=0.0)
    leases.died(boot=boot, at=timezone.now())
    found = rescue.claim(dead, by=uuid.uuid4(), at=timezone.now(), now=1.0)
    ledger.close()
    assert found is not None
    assert [job.call_sid for job in found] == [call.call_sid]


@pytest.mark.parametrize("why", ["its agent is not there yet", "another stream was let in", "its line is not known by heart"])
def test_a_stream_is_not_let_in_on_what_can_be_read_if(why: str, ledger: DatabaseLedger, vapi: FakeVapi) -> None:
    call = a_call()
    lines.warm()
    if why == "its line is not known by heart":
        lines.forget()
    if why != "its agent is not there yet":
        sessions.start_conversation(vapi_session_pk=call.vapi_sessions.get().pk, by="worker", client=vapi)
    if why == "another stream was let in":
        is_admitted(ledger, call)
    with nobody_can_write(), pytest.raises(LedgerAway):
        is_admitted(ledger, call, "MZ2")


def test_an_agent_is_made_once_however_many_ask(ledger: DatabaseLedger, vapi: FakeVapi) -> None:
    call, ref = on_the_line(ledger, vapi)
    other = DatabaseLedger(token_key=KEY, client=vapi, deadline_s=5.0)
    other._by_heart.remember(ref, call)  # as a process that carries it too, or thinks so
    with nobody_can_write():
        assert is_lost(ledger, ref, 0)
        assert not is_lost(other, ref, 0)
        for _ in range(3):
            run(ledger.claim(ref, 1))
        agent_of(ledger, ref)
    all_is_stored()
    assert [request["name"] for request in vapi.created] == [f"{call.call_sid}.0", f"{call.call_sid}.1"]
    other.close()


def test_an_agent_of_a_call_that_its_row_had_answered_before_it_was_answered_by_heart_is_made_once(
    ledger: DatabaseLedger, vapi: FakeVapi
) -> None:
    """The row's answer was too late for Twilio, and nobody was told to make the agent; the next door that is asked says so."""
    call, gate = a_call(), threading.Event()
    lines.warm()
    numbers = {"from_number": call.from_number, "to_number": call.to_number}
    assert by_heart.opened(sid=call.call_sid, account_sid=ACCOUNT, at=call.started_at, **numbers) is not None
    vapi.during = lambda: gate.wait(10)
    with nobody_can_write():
        ref = is_admitted(ledger, call)
        wait_for(lambda: disk_marks.read(call.call_sid, "claim-0") == {})
    by_heart.enter(call.call_sid)
    assert not sessions.start_conversation(vapi_session_pk=call.vapi_sessions.get().pk, by="worker", client=FakeVapi())
    gate.set()
    agent = agent_of(ledger, ref)
    all_is_stored()
    wait_for(lambda: call.vapi_sessions.get().state == VapiState.LIVE)
    assert (call.vapi_sessions.get().vapi_call_id, len(vapi.created)) == (agent.vapi_call_id, 1)


def test_the_third_loss_within_a_minute_leads_down_also_if_the_first_was_before_the_outage(ledger: DatabaseLedger, vapi: FakeVapi) -> None:
    call, ref = on_the_line(ledger, vapi)
    assert is_lost(ledger, ref, 0)
    run(ledger.claim(ref, 1))
    wait_for(lambda: call.vapi_sessions.get(n=1).state == VapiState.LIVE)
    run(ledger.conversation(ref))
    with nobody_can_write():
        assert is_lost(ledger, ref, 1)
        agent_of(ledger, ref)
        assert not is_lost(ledger, ref, 2)
    all_is_stored()
    assert call.vapi_sessions.count() == 3
    assert call.events.filter(kind="conversation-lost").count() == 2


def test_a_session_whose_time_is_up_is_rolled_over_and_that_is_no_loss(ledger: DatabaseLedger, vapi: FakeVapi) -> None:
    call, ref = on_the_line(ledger, vapi)
    with nobody_can_write():
        for n in range(4):
            assert is_lost(ledger, ref, n, raw=ROLLED_OVER)
            assert agent_of(ledger, ref).n == n + 1
        assert vapi.created[-1]["assistant"]["firstMessageMode"] == "assistant-waits-for-user"
    all_is_stored()
    call.refresh_from_db()
    assert (call.rung, call.events.filter(kind="rolled-over").count()) == (Rung.AI, 4)


def test_an_agent_that_cannot_be_had_is_told_to_the_stream(ledger: DatabaseLedger, vapi: FakeVapi) -> None:
    call, ref = on_the_line(ledger, vapi)
    vapi.problem = VapiUnavailable("Vapi did not answer in time.", sent=True)
    with nobody_can_write():
        assert is_lost(ledger, ref, 0)
        assert agent_of(ledger, ref).state == "failed"
    all_is_stored()
    wait_for(lambda: call.vapi_sessions.get(n=1).state == VapiState.FAILED)
    assert call.vapi_sessions.get(n=1).maybe_created


def test_an_agent_whose_caller_left_before_it_was_written_down_is_ended(published: QuietPublisher) -> None:
    call, made = a_call(status=Status.STREAMING, stream_epoch=0), vapi_call()
    session = call.vapi_sessions.get()
    sessions.claim_session(pk=session.pk, by="consumer", at=timezone.now())
    services.end_call(call_sid=call.call_sid, at=timezone.now(), reason=EndReason.CALLER_HUNG_UP)
    waits = Created(CallRef(call.call_sid, 0, call.short_id), session.n, time.time(), made.id, made.socket_url, made.control_url)
    store_again([entries.kept(waits)])
    session.refresh_from_db()
    assert (session.state, session.vapi_call_id) == (VapiState.LIVE, made.id)
    assert ("calls.tasks.end_session", (session.pk,)) in published.tasks


def test_what_a_slow_database_decides_too_late_is_taken_back(ledger: DatabaseLedger, vapi: FakeVapi) -> None:
    call, ref = on_the_line(ledger, vapi)
    turn = threading.Lock()
    turn.acquire()
    assert not ledger_module._resume(ref, "socket closed with 1011", timezone.now(), turn)
    assert call.vapi_sessions.count() == 1
    assert not call.events.filter(kind="conversation-lost").exists()


def test_a_stream_of_a_line_that_is_not_known_by_heart_has_no_other_agent(ledger: DatabaseLedger, vapi: FakeVapi) -> None:
    _, ref = on_the_line(ledger, vapi)
    ledger._by_heart.forget(ref)
    with nobody_can_write():
        assert not is_lost(ledger, ref, 0)


def test_a_database_that_is_only_busy_is_asked_again_and_not_answered_for(
    ledger: DatabaseLedger, vapi: FakeVapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, ref = on_the_line(ledger, vapi)
    really, too_late = ledger._ask, [True, True, True]

    async def sometimes(*asked: Any, **within: Any) -> Any:
        if too_late and too_late.pop():
            raise LedgerAway
        return await really(*asked, **within)

    monkeypatch.setattr(ledger, "_ask", sometimes)
    with pytest.raises(LedgerAway):
        is_lost(ledger, ref, 0)
    assert (len(vapi.created), call.vapi_sessions.count()) == (1, 1)
    assert is_lost(ledger, ref, 0), "it is asked a second time"
    assert call.vapi_sessions.get(n=1).state == VapiState.ASKED
