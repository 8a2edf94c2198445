"""Whose agent it is when only the stream broke: the rows say so, and one UPDATE decides."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from bridge import stream_token
from bridge.ports import Closing
from calls import handover, ladder, leases, parked, rescue, resuming, services, sessions, spoken
from calls.models import CallSession, EndReason, Rung, Status, VapiState
from tests.builders import a_line
from tests.calls.test_resuming import fresh, lost, states, talking

pytestmark = pytest.mark.django_db


def broken(*, said: bool = True) -> CallSession:
    """A call whose stream broke, with a parked agent; the bridge has `said` so before the resume door was asked, or has not."""
    a_line(targets=("tier2",))
    call = talking()
    if said:
        services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing("parked"), at=timezone.now())
    return call


def ask(call: CallSession) -> ladder.Step | handover.AskAnew:
    return handover.next_step(call_sid=call.call_sid, epoch=0, at=timezone.now())


def admit(call: CallSession, epoch: int = 1) -> bool:
    sid, account = call.call_sid, call.account_sid
    return services.admit_stream(call_sid=sid, account_sid=account, stream_sid="MZ2", epoch=epoch, at=timezone.now())


def take_up(call: CallSession, epoch: int = 1) -> bool:
    return parked.taken_up(call_sid=call.call_sid, epoch=epoch, at=timezone.now())


def give_up(call: CallSession) -> int | None:
    return resuming.given_up(call_sid=call.call_sid, epoch=0, at=timezone.now())


@pytest.mark.parametrize("said", [True, False])
def test_the_resume_door_keeps_the_session_of_a_parked_agent_and_asks_for_no_other(said: bool) -> None:
    call = broken(said=said)
    assert sessions.open_sessions(call_sid=call.call_sid) == []
    assert [ask(call) for _ in range(3)] == [ladder.Resume()] * 3
    assert (fresh(call).epoch, fresh(call).status, fresh(call).rung) == (1, Status.CONNECTING, Rung.AI)
    assert states(call) == [(0, VapiState.LIVE)]
    assert sessions.open_sessions(call_sid=call.call_sid) == sessions.left_over(now=timezone.now() + timedelta(hours=1)) == []
    assert parked.is_kept(call_sid=call.call_sid, epoch=0)


def carried(call: CallSession) -> tuple[uuid.UUID, uuid.UUID]:
    """By a process that has a lease; another one is there beside it."""
    boot, other = uuid.uuid4(), uuid.uuid4()
    for each in (boot, other):
        leases.begin(boot=each, at=timezone.now())
    CallSession.objects.filter(pk=call.pk).update(held_by=boot, carried_by=boot)
    return boot, other


def claim(boot: uuid.UUID, *, by: uuid.UUID, at: datetime) -> None:
    (beat,) = [beat for beat in leases.beats(but=by) if beat.boot == boot]
    assert rescue.claim(leases.Sign(beat, 0.0), by=by, at=at, now=1.0) is not None


@pytest.mark.parametrize("claimed_s_ago", [None, 0, 600])
def test_the_agent_of_a_process_that_is_gone_is_not_waited_for(claimed_s_ago: float | None) -> None:
    call, now = broken(said=False), timezone.now()
    boot, other = carried(call)
    if claimed_s_ago is None:
        leases.died(boot=boot, at=now)
    else:
        claim(boot, by=other, at=now - timedelta(seconds=claimed_s_ago))
    ask(call)
    assert states(call) == [(0, VapiState.LIVE), (1, VapiState.ASKED)]


def test_the_agent_of_a_process_that_has_just_claimed_the_calls_of_another_one_is_waited_for() -> None:
    call = broken(said=False)
    boot, other = carried(call)
    claim(other, by=boot, at=timezone.now())
    ask(call)
    assert states(call) == [(0, VapiState.LIVE)]


@pytest.mark.parametrize("said", [True, False])
def test_of_the_stream_that_finds_its_agent_and_whoever_gives_it_up_one_wins(said: bool) -> None:
    call = broken(said=said)
    ask(call)
    assert admit(call)
    assert take_up(call)
    assert not take_up(call)
    assert give_up(call) is None
    assert states(call) == [(0, VapiState.LIVE)]
    assert not parked.is_kept(call_sid=call.call_sid, epoch=0)
    kinds = list(call.events.values_list("kind", flat=True))
    assert (kinds.count("agent-parked"), kinds.count("conversation-lost")) == (1, 0)


def test_a_stream_that_does_not_find_its_agent_asks_for_another_one_and_the_first_is_of_no_use() -> None:
    call = broken()
    ask(call)
    assert admit(call)
    assert lost(call) == call.vapi_sessions.get(n=1).pk
    assert not take_up(call)
    assert sessions.open_sessions(call_sid=call.call_sid) == [call.vapi_sessions.get(n=0).pk]
    assert fresh(call).rung == Rung.RESUMED


def test_an_agent_that_is_given_up_before_twilio_asks_leaves_the_next_one_to_the_resume_door() -> None:
    call = broken()
    assert give_up(call) is None
    assert sessions.open_sessions(call_sid=call.call_sid) == [call.vapi_sessions.get(n=0).pk]
    assert ask(call) == ladder.Resume()
    assert states(call) == [(0, VapiState.LIVE), (1, VapiState.ASKED)]


def test_an_agent_that_is_given_up_while_its_stream_is_awaited_is_followed_by_the_next_one() -> None:
    call = broken()
    ask(call)
    assert give_up(call) == call.vapi_sessions.get(n=1).pk
    assert give_up(call) is None


def test_a_stream_that_never_comes_leads_back_to_the_door_which_waits_no_longer() -> None:
    call = broken()
    ask(call)
    assert handover.next_step(call_sid=call.call_sid, epoch=1, at=timezone.now()) == ladder.Resume()
    assert states(call) == [(0, VapiState.LIVE), (1, VapiState.ASKED)]
    assert sessions.open_sessions(call_sid=call.call_sid) == [call.vapi_sessions.get(n=0).pk]


def test_the_session_of_a_caller_who_has_hung_up_is_of_no_use_parked_or_not() -> None:
    call = broken()
    ask(call)
    services.end_call(call_sid=call.call_sid, at=timezone.now(), reason=EndReason.CALLER_HUNG_UP)
    assert sessions.open_sessions(call_sid=call.call_sid) == [call.vapi_sessions.get(n=0).pk]
    assert not parked.is_kept(call_sid=call.call_sid, epoch=0)


def test_an_agent_that_waits_is_no_loss_however_often_and_whatever_the_account_says() -> None:
    facts = ladder.Facts(is_over=False, closed_why="parked", losses=9, resumable=True, parked=True, main=False)
    assert ladder.decide(facts) == ladder.Resume()


def test_the_token_of_the_stream_that_is_awaited_is_as_new_as_the_question_however_long_the_call_is() -> None:
    call = broken()
    call.vapi_sessions.update(asked_at=timezone.now() - timedelta(hours=1))
    ask(call)
    twiml = spoken.connect(fresh(call))
    assert twiml == spoken.connect(fresh(call))
    _, expires, _ = twiml.partition('name="token" value="')[2].partition('"')[0].split(".")
    left_s = int(expires) - timezone.now().timestamp()
    assert stream_token.LIFE_S - 5 < left_s <= stream_token.LIFE_S
