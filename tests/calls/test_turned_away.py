"""Streams on which nobody was let in: they count for nothing, their agent waits, and it does not go on like that for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.utils import timezone

from agents import lines
from bridge import stream_token
from bridge.ports import Admission, Closing, LedgerAway
from calls import by_heart, handover, ladder, memory, resuming, services, sessions, turned_away
from calls.keeper import Keeper
from calls.ledger import DatabaseLedger
from calls.models import CallSession, Rung, Status, VapiState
from tests.builders import ACCOUNT, FakeVapi, a_call, a_line

pytestmark = pytest.mark.django_db(transaction=True)
KEY = stream_token.key_from("a secret of the tests")
PERSON = ladder.DialHuman(ladder.Target("tier2"))


@pytest.fixture
def ledger() -> Iterator[DatabaseLedger]:
    made = DatabaseLedger(token_key=KEY, client=FakeVapi(), deadline_s=5.0)
    yield made
    made.close()


@pytest.fixture
def call() -> CallSession:
    a_line(targets=("tier2",))
    talking = a_call(status=Status.STREAMING, stream_epoch=0)
    make_agent(talking)
    return talking


def fresh(call: CallSession) -> CallSession:
    return CallSession.objects.get(pk=call.pk)


def make_agent(call: CallSession) -> None:
    sessions.start_conversation(vapi_session_pk=call.vapi_sessions.latest("n").pk, by="worker", client=FakeVapi())


def asks(call: CallSession, at: float = 0.0) -> Any:
    """What Twilio is told when the newest stream is over, so many seconds from now."""
    return handover.next_step(call_sid=call.call_sid, epoch=fresh(call).epoch, at=timezone.now() + timedelta(seconds=at))


def lost(call: CallSession, at: float = 0.0) -> Any:
    """The newest stream breaks, and its process had it."""
    sid, epoch, now = call.call_sid, fresh(call).epoch, timezone.now()
    services.admit_stream(call_sid=sid, account_sid=call.account_sid, stream_sid=f"MZ{epoch}", epoch=epoch, at=now)
    services.stream_closed(call_sid=sid, epoch=epoch, closing=Closing("stream-lost"), at=now)
    step = asks(call, at)
    make_agent(call)
    return step


def opens(ledger: DatabaseLedger, call: CallSession) -> Admission | None:
    """The newest stream comes to a process."""
    epoch = fresh(call).epoch
    token = stream_token.issue(key=KEY, call_sid=call.call_sid, epoch=epoch, expires=int(time.time()) + 60)
    return asyncio.run(ledger.admit(call_sid=call.call_sid, account_sid=ACCOUNT, stream_sid=f"MZ{epoch}", token=token))


def is_turned_away(ledger: DatabaseLedger, call: CallSession) -> None:
    """It comes to one whose database takes nothing, and that has never seen its line."""
    lines.forget()
    with pytest.MonkeyPatch.context() as busy:
        busy.setattr(Keeper, "is_away", property(lambda _: True))
        busy.setattr("calls.ledger.BACK_WITHIN_S", 0.0)
        with pytest.raises(LedgerAway):
            opens(ledger, call)


def kinds(call: CallSession) -> list[str]:
    return list(call.events.values_list("kind", flat=True))


def test_a_stream_that_our_own_busy_database_refuses_is_no_conversation_lost_and_its_agent_waits(
    ledger: DatabaseLedger, call: CallSession
) -> None:
    assert [lost(call), lost(call)] == [ladder.Resume()] * 2
    is_turned_away(ledger, call)
    assert [asks(call), handover.next_step(call_sid=call.call_sid, epoch=2, at=timezone.now())] == [ladder.Resume()] * 2
    its = fresh(call)
    assert (its.epoch, its.status, its.rung) == (3, Status.CONNECTING, Rung.RESUMED)
    assert [session.n for session in its.vapi_sessions.filter(ended_at=None).exclude(sessions.SUPERSEDED)] == [2]
    assert (kinds(call).count("conversation-lost"), call.events.get(kind="stream-turned-away").detail) == (2, {"n": 2, "epoch": 2})
    admission = opens(ledger, call)
    assert admission is not None
    conversation = asyncio.run(ledger.conversation(admission.ref))
    assert conversation is not None
    assert (conversation.n, conversation.state) == (2, "live")
    assert call.vapi_sessions.get(n=2).pk not in sessions.open_sessions(call_sid=call.call_sid)


def test_a_third_one_in_a_row_leads_to_a_person_whoever_was_lost_before(ledger: DatabaseLedger, call: CallSession) -> None:
    lost(call)
    for _ in range(ladder.TURNED_AWAY):
        is_turned_away(ledger, call)
        assert asks(call) == ladder.Resume()
    is_turned_away(ledger, call)
    assert [asks(call), asks(call)] == [PERSON] * 2
    assert fresh(call).status == Status.TRANSFERRING


def test_after_two_that_were_refused_at_once_the_third_has_time_to_find_somebody_else(call: CallSession) -> None:
    """By a process that leaves, of which the balancer has not heard: a word is said before the third, and none before the second."""
    CallSession.objects.filter(pk=call.pk).update(status=Status.CONNECTING, stream_epoch=-1)
    assert asks(call) == ladder.Resume()
    assert not resuming.is_told_to_wait(fresh(call))
    assert asks(call) == ladder.Resume()
    assert resuming.is_told_to_wait(fresh(call))
    assert asks(call) == PERSON


def test_one_that_is_let_in_begins_the_row_anew(ledger: DatabaseLedger, call: CallSession) -> None:
    lost(call)
    for _ in range(ladder.TURNED_AWAY):
        is_turned_away(ledger, call)
        asks(call)
    assert opens(ledger, call) is not None
    assert turned_away.in_a_row(fresh(call)) == 0
    assert lost(call) == ladder.Resume()
    is_turned_away(ledger, call)
    assert asks(call) == ladder.Resume()
    assert kinds(call).count("conversation-lost") == 2


def test_one_that_is_written_down_after_it_was_refused_let_nobody_in_either(ledger: DatabaseLedger, call: CallSession) -> None:
    """Its agent is there, and is not taken for one that is parked."""
    lost(call)
    is_turned_away(ledger, call)
    assert services.admit_stream(call_sid=call.call_sid, account_sid=ACCOUNT, stream_sid="MZ1", epoch=1, at=timezone.now())
    assert asks(call) == ladder.Resume()
    assert kinds(call).count("conversation-lost") == 1
    assert kinds(call).count("agent-parked") == 0
    assert call.vapi_sessions.count() == 2


def test_of_two_with_one_token_the_one_that_was_let_in_has_had_the_conversation(ledger: DatabaseLedger, call: CallSession) -> None:
    lost(call)
    is_turned_away(ledger, call)
    assert services.admit_stream(call_sid=call.call_sid, account_sid=ACCOUNT, stream_sid="MZ of the other", epoch=1, at=timezone.now())
    assert turned_away.in_a_row(fresh(call)) == 0


@pytest.mark.parametrize("after_s", [1.0, 3.5])
def test_one_that_was_let_in_by_heart_and_is_not_written_down_yet_has_had_its_conversation(call: CallSession, after_s: float) -> None:
    lost(call)
    assert by_heart.first(call.call_sid, "stream-1")
    assert asks(call, at=after_s) == ladder.Resume()
    assert kinds(call).count("conversation-lost") == 2


@pytest.mark.parametrize(("came", "step"), [(True, ladder.Resume()), (False, PERSON)])
def test_one_that_should_be_here_and_never_came_leads_down_and_one_that_was_turned_away_does_not(
    ledger: DatabaseLedger, call: CallSession, came: bool, step: ladder.Step
) -> None:
    lost(call)
    if came:
        is_turned_away(ledger, call)
    assert asks(call, at=3.5) == step


def test_each_stream_has_its_time_to_come_from_when_it_was_asked_for(ledger: DatabaseLedger, call: CallSession) -> None:
    lost(call)
    is_turned_away(ledger, call)
    assert asks(call, at=2.5) == ladder.Resume()
    assert not resuming.stream_is_missing(fresh(call), timezone.now() + timedelta(seconds=5))
    assert asks(call, at=5.6) == PERSON


def test_an_agent_that_was_parked_for_it_is_lost_and_counts(ledger: DatabaseLedger, call: CallSession) -> None:
    services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing("parked"), at=timezone.now())
    assert asks(call) == ladder.Resume()
    is_turned_away(ledger, call)
    assert asks(call) == ladder.Resume()
    assert (kinds(call).count("conversation-lost"), call.vapi_sessions.count()) == (1, 2)


def test_an_agent_that_has_ended_meanwhile_is_lost_and_counts(ledger: DatabaseLedger, call: CallSession) -> None:
    lost(call)
    is_turned_away(ledger, call)
    call.vapi_sessions.filter(n=1).update(state=VapiState.ENDED, ended_at=timezone.now())
    assert asks(call) == ladder.Resume()
    assert (kinds(call).count("conversation-lost"), call.vapi_sessions.count()) == (2, 3)


def test_a_caller_whose_first_stream_was_turned_away_is_greeted_by_the_first_agent(ledger: DatabaseLedger) -> None:
    a_line(targets=("tier2",))
    ringing = a_call()
    make_agent(ringing)
    is_turned_away(ledger, ringing)
    assert asks(ringing, at=20.0) == ladder.Resume()
    assert (fresh(ringing).epoch, fresh(ringing).rung, ringing.vapi_sessions.count()) == (1, Rung.AI, 1)
    assert memory.taken_up(ringing.vapi_sessions.get()) is None


def test_one_that_was_let_in_after_all_or_is_not_ours_leaves_no_mark(ledger: DatabaseLedger, call: CallSession) -> None:
    lost(call)
    marks = Path(settings.SPOOL_DIR) / "calls"
    with pytest.MonkeyPatch.context() as busy:
        busy.setattr("calls.ledger.DatabaseLedger._admit_without_row", lambda *_, **__: asyncio.sleep(0))
        tries = iter([True, False, False, False, False, False])
        busy.setattr(Keeper, "is_away", property(lambda _: next(tries)))
        assert opens(ledger, call) is not None
    assert not list(marks.glob("*.refused-*"))
    refused = ledger.admit(call_sid=call.call_sid, account_sid=ACCOUNT, stream_sid="MZ9", token="0.1.x")
    assert asyncio.run(refused) is None
    assert not list(marks.glob("*.refused-*"))
