"""A process of ours that dies under a call: no loss of the agent's, so the agent is next at the same account, but not for ever."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from bridge.ports import Closing
from calls import handover, ladder, leases, rescue, resuming, services, sessions
from calls.carriers import the_machine
from calls.models import CallSession, ProcessLease, Rung, VapiAccount, VapiState
from tests.builders import FakeVapi, a_line
from tests.calls.test_resuming import fresh, states, talking

pytestmark = pytest.mark.django_db
PERSON = ladder.DialHuman(ladder.Target("tier2"))
BEGAN = timezone.now()


@pytest.fixture
def call(settings: Any) -> CallSession:
    settings.VAPI_BACKUP_API_KEY = "backup-key"
    a_line(targets=("tier2",))
    return carried(talking())


def after(seconds: float) -> Any:
    return BEGAN + timedelta(seconds=seconds)


def carried(call: CallSession) -> CallSession:
    """By a process with a lease of its own."""
    boot = uuid.uuid4()
    leases.begin(boot=boot, at=BEGAN, place=f"here {boot}")
    CallSession.objects.filter(pk=call.pk).update(held_by=boot, carried_by=boot)
    return fresh(call)


def next_stream(call: CallSession) -> None:
    """It opens, on another process, and its agent is there."""
    newest, epoch = call.vapi_sessions.latest("n"), fresh(call).epoch
    if newest.state == VapiState.ASKED:
        sessions.start_conversation(vapi_session_pk=newest.pk, by="worker", client=FakeVapi())
    services.admit_stream(call_sid=call.call_sid, account_sid=call.account_sid, stream_sid=f"MZ{epoch}", epoch=epoch, at=BEGAN)
    carried(call)


def asks(call: CallSession, at: float = 0.0, epoch: int | None = None) -> Any:
    """What Twilio is told when the newest stream is over."""
    return handover.next_step(call_sid=call.call_sid, epoch=fresh(call).epoch if epoch is None else epoch, at=after(at))


def kill(call: CallSession) -> None:
    boot = fresh(call).carried_by
    assert boot is not None
    leases.died(boot=boot, at=BEGAN)


def killed(call: CallSession, at: float) -> Any:
    """The process of the newest stream is, and the caller goes on if there is an agent."""
    kill(call)
    step = asks(call, at)
    if isinstance(step, ladder.Resume):
        next_stream(call)
    return step


def lost(call: CallSession, at: float) -> bool:
    """The agent of the newest stream is, and another one is there if it may be."""
    started = resuming.here(call_sid=call.call_sid, epoch=fresh(call).epoch, raw="socket closed with 1011", at=after(at))
    if started is not None:
        sessions.start_conversation(vapi_session_pk=started, by="worker", client=FakeVapi())
    return started is not None


def raws(call: CallSession) -> list[str]:
    return list(call.events.filter(kind="conversation-lost").order_by("seq").values_list("detail__raw", flat=True))


def test_two_kills_and_a_loss_in_a_minute_leave_the_caller_with_the_agent_at_the_main_account(call: CallSession) -> None:
    assert [killed(call, 0), killed(call, 10)] == [ladder.Resume()] * 2
    assert lost(call, 20)
    assert raws(call) == [resuming.GONE, resuming.GONE, "socket closed with 1011"]
    assert set(call.vapi_sessions.values_list("account", flat=True)) == {VapiAccount.MAIN}
    assert fresh(call).rung == Rung.RESUMED


def test_a_kill_between_two_losses_leads_neither_down_nor_up(call: CallSession) -> None:
    assert lost(call, 0)
    assert killed(call, 10) == ladder.Resume()
    assert lost(call, 20)
    assert killed(call, 30) == ladder.Resume(backup=True)
    assert list(call.vapi_sessions.values_list("account", flat=True)) == ["main", "main", "main", "backup", "backup"]
    assert not lost(call, 40)


def test_losses_count_on_across_a_kill_by_their_own_minute(call: CallSession) -> None:
    assert lost(call, 0)
    assert lost(call, 40)
    killed(call, 70)
    assert resuming.losses(fresh(call), after(99)) == 3
    assert resuming.losses(fresh(call), after(101)) == 1


def test_the_third_process_that_dies_under_a_call_within_a_minute_leads_to_a_person_and_a_later_one_back_to_the_agent(
    call: CallSession,
) -> None:
    assert [killed(call, at) for at in (0, 50)] == [ladder.Resume()] * 2
    kill(call)
    assert resuming.deaths(fresh(call), after(100)) == 3
    assert asks(call, 111) == ladder.Resume()
    next_stream(call)
    assert killed(call, 120) == ladder.Resume()
    kill(call)
    assert [asks(call, 130), asks(call, 131)] == [PERSON] * 2


@pytest.mark.parametrize("how", ["its parent saw it", "this machine sees it", "another one has its calls"])
def test_a_death_is_known_by_whoever_saw_it(call: CallSession, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    boot = call.carried_by
    assert boot is not None
    match how:
        case "its parent saw it":
            leases.died(boot=boot, at=BEGAN)
        case "this machine sees it":
            monkeypatch.setattr(the_machine(), "is_gone", lambda place: place == f"here {boot}")
        case "another one has its calls":
            (beat,) = leases.beats(but=uuid.uuid4())
            assert rescue.claim(leases.Sign(beat, 0.0), by=uuid.uuid4(), at=BEGAN, now=1.0) is not None
    assert asks(call) == ladder.Resume()
    assert raws(call) == [resuming.GONE]


@pytest.mark.parametrize("why", ["stream-lost", "stream-dead", "agent-lost"])
def test_what_a_living_process_has_said_of_its_stream_is_no_death_whatever_becomes_of_it(call: CallSession, why: str) -> None:
    services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing(why), at=BEGAN)
    kill(call)
    assert asks(call) == ladder.Resume()
    assert raws(call) == [why]


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize("dies", [True, False])
def test_an_agent_that_waits_in_a_process_that_dies_is_no_loss_of_the_agents(call: CallSession, said: bool, dies: bool) -> None:
    if said:
        services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing("parked"), at=BEGAN)
    assert asks(call) == ladder.Resume()
    assert states(call) == [(0, VapiState.LIVE)], "nobody knows of a death yet"
    if dies:
        kill(call)
    next_stream(call)
    assert resuming.here(call_sid=call.call_sid, epoch=1, raw="its agent waited in another process", at=BEGAN, n=0) is not None
    assert raws(call) == [resuming.GONE if dies else "its agent waited in another process"]


def test_asked_again_by_a_retry_a_death_counts_once(call: CallSession) -> None:
    kill(call)
    assert [asks(call, epoch=0) for _ in range(3)] == [ladder.Resume()] * 3
    assert raws(call) == [resuming.GONE]


def test_without_a_lease_nobody_knows_of_a_death_and_it_counts_as_a_loss(call: CallSession) -> None:
    ProcessLease.objects.all().delete()
    call.vapi_sessions.update(state=VapiState.CLAIMED)
    assert asks(call) == ladder.Resume()
    assert resuming.GONE not in raws(call)
