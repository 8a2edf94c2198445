"""Calls at Vapi that nobody wants any more are ended there, however their create went: against the sandbox Vapi over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from itertools import cycle

import pytest
from celery import current_app
from django.db import connections
from django.utils import timezone
from pytest_django.fixtures import Settings

from agents import account, services
from agents.models import TemplateVersion
from bridge.errors import VapiRefused
from bridge.ports import CallRef
from bridge.sandbox import malformed
from bridge.sandbox.faults import CREATE, Faults
from calls import orphans, resuming, sessions
from calls.creating import create
from calls.models import CallSession, EndReason, Status, VapiAccount, VapiSession, VapiState
from calls.services import end_call
from tests.builders import QuietPublisher, a_call, a_line, at_once, session_of
from tests.calls.vapi_house import House, until, vapi_house

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty threads at once are not what SQLite gives a second to; how a busy database is borne is tested elsewhere."""
    if "timeout" in connections.settings["default"]["OPTIONS"]:
        monkeypatch.setitem(connections.settings["default"]["OPTIONS"], "timeout", 20.0)


@pytest.fixture
def house() -> Iterator[House]:
    with vapi_house() as house:
        yield house


def start(house: House, call: CallSession) -> bool:
    return sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="worker", client=house)


def work(house: House, call: CallSession) -> None:
    """What the worker's task does: what its create may have left at Vapi is looked for a second later."""
    if not start(house, call) and session_of(call).maybe_created:
        time.sleep(1.0)
        look(house)


def hang_up(house: House, call: CallSession) -> None:
    """What Twilio's word of the end has done."""
    end_call(call_sid=call.call_sid, at=timezone.now(), reason=EndReason.CALLER_HUNG_UP)
    for pk in sessions.open_sessions(call_sid=call.call_sid):
        sessions.end_session(pk=pk, client=house, at=timezone.now())


def look(house: House, *, after_s: float = 0.0) -> int:
    return orphans.end_orphans(client=house, now=timezone.now() + timedelta(seconds=after_s))


def moment(iso: str) -> datetime:
    return datetime.fromisoformat(iso)


# -- the caller leaves while the create is on its way ----------------------------------------------------------------------

CREATES_S = (0.0, 0.3, 1.0, 2.5)
LEAVES_S = tuple(ms / 1000 for ms in range(0, 3001, 50))
LEFT = [*zip(cycle(CREATES_S), LEAVES_S, strict=False), *zip(CREATES_S, CREATES_S, strict=True)]  # and at the very moment of the answer
APART_S = 0.25  # all of them at once would measure the machine


@pytest.mark.long
def test_a_caller_may_leave_at_any_moment_and_the_vapi_call_is_over_within_two_seconds(house: House, settings: Settings) -> None:
    settings.MAX_CALLS = len(LEFT)
    a_line()
    calls = {left: a_call() for left in LEFT}
    for (create_s, _), call in calls.items():
        house.faulty(call.call_sid, Faults(create_delay_s=create_s))
    jobs: list[Callable[[], object]] = []
    for number, ((_, leave_s), call) in enumerate(calls.items()):
        rings_s = number * APART_S
        jobs += [partial(_after, rings_s, work, house, call), partial(_after, rings_s + leave_s, hang_up, house, call)]
    at_once(jobs)
    until(lambda: not house.vapi.open_calls(), within=2.0)
    for (create_s, leave_s), call in calls.items():
        session = session_of(call)
        assert (session.ended_at is not None, session.socket_url) == (True, ""), (create_s, leave_s)
        made = house.of(call.call_sid)
        assert len(made) <= 1
        for vapi_call in made:
            known = session.ended_at if session.state == VapiState.FAILED else None  # a machine that stalls over 0.5 s: no answer in time
            exists = max(moment(vapi_call.public["createdAt"]), session_left(call), known or call.started_at)
            assert moment(vapi_call.public["endedAt"]) - exists <= timedelta(seconds=2), (create_s, leave_s)
    assert sum(len(house.of(call.call_sid)) for call in calls.values()) > len(calls) / 2, "hardly any call was made at all"


def _after(seconds: float, does: Callable[[House, CallSession], object], house: House, call: CallSession) -> None:
    time.sleep(seconds)  # the caller's own choice, nothing is waited for
    does(house, call)


def session_left(call: CallSession) -> datetime:
    call.refresh_from_db()
    assert call.ended_at is not None
    return call.ended_at


# -- calls at Vapi that no row knows ---------------------------------------------------------------------------------------


def test_a_create_that_is_answered_too_late_leaves_a_call_that_is_found_and_ended(house: House) -> None:
    call = a_call()
    house.deadline_s = 0.3
    house.faulty(call.call_sid, Faults(create_delay_s=0.8))
    assert not start(house, call)
    assert (session_of(call).state, session_of(call).maybe_created) == (VapiState.FAILED, True)
    assert look(house) == 0  # it does not exist yet, and stays under suspicion
    until(lambda: house.of(call.call_sid))
    assert look(house) == 1
    assert house.vapi.open_calls() == []
    assert call.events.get(kind="vapi-orphan-ended").detail == {"n": 0, "calls": 1}
    assert not session_of(call).maybe_created
    looks = house.looks
    assert (look(house), house.looks) == (0, looks)  # nothing is suspicious: Vapi is not asked


def test_a_worker_that_dies_with_the_answer_in_hand_leaves_a_call_that_is_found_and_ended(house: House) -> None:
    call = a_call()
    sessions.claim_session(pk=session_of(call).pk, by="worker", at=timezone.now())
    house.create_call(sessions._request(VapiSession.objects.get()))
    assert look(house, after_s=9.0) == 0  # its creator may be at work still
    assert len(house.vapi.open_calls()) == 1
    assert look(house, after_s=11.0) == 1
    assert house.vapi.open_calls() == []
    assert session_of(call).state == VapiState.FAILED


def test_a_session_whose_creator_died_is_made_once_more_for_its_stream_and_the_first_call_is_found_and_ended(house: House) -> None:
    call = a_call()
    pk = session_of(call).pk
    sessions.claim_session(pk=pk, by="worker", at=timezone.now())
    house.create_call(sessions._request(VapiSession.objects.get()))
    assert not sessions.start_conversation(vapi_session_pk=pk, by="consumer", client=house)
    assert sessions.start_conversation(vapi_session_pk=pk, by="consumer", client=house, from_another=True)
    assert len(house.vapi.open_calls()) == 2
    assert look(house) == 1
    assert [each.id for each in house.vapi.open_calls()] == [session_of(call).vapi_call_id]
    assert (session_of(call).state, session_of(call).maybe_created) == (VapiState.LIVE, False)


def test_a_creator_that_was_only_late_loses_its_claim_and_ends_its_own_call(house: House) -> None:
    call = a_call()
    pk = session_of(call).pk
    late = sessions.claim_session(pk=pk, by="worker", at=timezone.now())
    assert late is not None
    made = house.create_call(sessions._request(VapiSession.objects.get()))
    assert sessions.start_conversation(vapi_session_pk=pk, by="consumer", client=house, from_another=True)
    assert not sessions._kept(pk=pk, claim=late, vapi_call=made, client=house, at=timezone.now())
    assert [each.id for each in house.vapi.open_calls()] == [session_of(call).vapi_call_id]


def test_what_is_being_made_a_second_time_is_no_orphan(house: House) -> None:
    call = a_call()
    pk = session_of(call).pk
    sessions.claim_session(pk=pk, by="worker", at=timezone.now())
    claim = sessions.claim_session(pk=pk, by="consumer", at=timezone.now(), from_another=True)
    made = house.create_call(sessions._request(VapiSession.objects.get()))
    assert look(house) == 0
    assert claim is not None
    assert sessions.session_live(pk=pk, claim=claim, vapi_call=made, at=timezone.now())
    assert look(house) == 0
    assert len(house.vapi.open_calls()) == 1


def test_a_session_that_lives_is_taken_from_nobody(house: House) -> None:
    call = a_call()
    assert start(house, call)
    assert sessions.claim_session(pk=session_of(call).pk, by="consumer", at=timezone.now(), from_another=True) is None


def test_only_what_a_suspicious_session_of_ours_asked_for_is_ended(house: House) -> None:
    call, healthy = a_call(), a_call()
    assert start(house, healthy)
    VapiSession.objects.filter(call=call).update(state=VapiState.FAILED, maybe_created=True, claimed_at=timezone.now())
    request = dict(sessions._request(session_of(call)))
    for name in ("somebody else's", f"CA{'9' * 32}.0", f"{call.call_sid}.1"):
        house.create_call(request | {"name": name})
    assert look(house) == 0
    assert len(house.vapi.open_calls()) == 4
    house.create_call(request)
    assert look(house) == 1
    assert len(house.vapi.open_calls()) == 4


def test_two_looks_at_once_end_a_call_once_or_twice_and_harm_nothing(house: House) -> None:
    call = a_call()
    VapiSession.objects.update(state=VapiState.FAILED, maybe_created=True, claimed_at=timezone.now())
    house.create_call(sessions._request(session_of(call)))
    assert 1 <= sum(at_once([partial(look, house)] * 3)) <= 3
    assert house.vapi.open_calls() == []
    assert look(house) == 0


def test_a_vapi_that_does_not_list_its_calls_is_asked_again_later(house: House) -> None:
    call = a_call()
    VapiSession.objects.update(state=VapiState.FAILED, maybe_created=True, claimed_at=timezone.now())
    house.create_call(sessions._request(session_of(call)))
    working, house.list_calls = house.list_calls, refuse  # type: ignore[method-assign,assignment]
    assert look(house) == 0
    house.list_calls = working  # type: ignore[method-assign]
    assert look(house) == 1


def refuse(**_: object) -> None:
    raise VapiRefused("Vapi refused with 401.", status=401)


def unanswered(*, ago_s: float) -> CallSession:
    """A call whose create was sent so long ago, and never answered."""
    call, sent_at = a_call(), timezone.now() - timedelta(seconds=ago_s)
    VapiSession.objects.filter(call=call).update(state=VapiState.FAILED, maybe_created=True, claimed_at=sent_at, ended_at=sent_at)
    return call


@pytest.mark.parametrize("late_s", [4, 12, 60, 170])
def test_a_call_that_comes_about_long_after_its_create_was_given_up_is_found_by_the_next_look(house: House, late_s: float) -> None:
    call = unanswered(ago_s=late_s)
    assert look(house) == 0
    house.create_call(sessions._request(session_of(call)))
    assert look(house) == 1
    assert (house.vapi.open_calls(), session_of(call).maybe_created) == ([], False)


def test_after_three_minutes_one_look_that_shows_nothing_ends_the_suspicion(house: House) -> None:
    young, old = unanswered(ago_s=170), unanswered(ago_s=181)
    assert look(house) == 0
    assert [session_of(call).maybe_created for call in (young, old)] == [True, False]
    assert look(house, after_s=20) == 0
    looks = house.looks
    assert (look(house, after_s=40), house.looks, session_of(young).maybe_created) == (0, looks, False)


def test_the_suspicion_outlasts_a_vapi_that_does_not_list_its_calls_or_does_not_end_them(house: House) -> None:
    call = unanswered(ago_s=300)
    house.create_call(sessions._request(session_of(call)))
    for verbs in (("list_calls",), ("end_call", "end_by_socket")):
        working = {verb: getattr(house, verb) for verb in verbs}
        for verb in verbs:
            setattr(house, verb, refuse if verb == "list_calls" else refuse_this)
        assert look(house) == 0
        assert session_of(call).maybe_created
        for verb, works in working.items():
            setattr(house, verb, works)
    assert look(house) == 1
    assert house.vapi.open_calls() == []


def refuse_this(url: str) -> None:
    refuse(url=url)


def test_what_the_consumers_own_create_left_is_found_by_the_task_it_asks_for(
    house: House, published: QuietPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = a_call(status=Status.STREAMING, stream_epoch=0)
    house.deadline_s = 0.3
    house.faulty(call.call_sid, Faults(create_delay_s=0.8))
    create(CallRef(call_sid=call.call_sid, epoch=0, short_id=call.short_id), 0, {VapiAccount.MAIN: house})
    ((name, args),) = published.tasks
    until(lambda: house.of(call.call_sid))
    monkeypatch.setattr(account, "client", lambda *_: house)
    current_app.conf.task_always_eager = True  # at once, and not a second later
    try:
        current_app.tasks[name].apply(args)
    finally:
        current_app.conf.task_always_eager = False
    assert (house.vapi.open_calls(), session_of(call).maybe_created) == ([], False)


# -- bad answers to a create -----------------------------------------------------------------------------------------------


def test_a_stream_that_makes_its_own_agent_ends_the_one_before_it_which_no_worker_does(house: House) -> None:
    call = a_call(status=Status.STREAMING, stream_epoch=0)
    assert start(house, call)
    assert resuming.here(call_sid=call.call_sid, epoch=0, raw="socket closed with 1011", at=timezone.now()) is not None
    create(CallRef(call_sid=call.call_sid, epoch=0, short_id=call.short_id), 1, {VapiAccount.MAIN: house})
    former, now = call.vapi_sessions.order_by("n")
    assert (former.state, now.state) == (VapiState.ENDED, VapiState.LIVE)
    assert ["endedAt" in made.public for made in house.of(call.call_sid)] == [True, False]


def test_whatever_a_create_is_answered_with_no_call_stays_at_vapi(house: House) -> None:
    """P15 of the ladder. The call exists, whatever its answer looks like."""
    talking = a_call()
    assert start(house, talking)
    calls = {kind: a_call() for kind in malformed.KINDS}
    for kind, call in calls.items():
        house.faulty(call.call_sid, Faults(create_delay_s=0.0, create_malformed=kind))
    began = time.monotonic()
    assert not any(at_once([partial(start, house, call) for call in calls.values()]))
    assert time.monotonic() - began < 3.5
    states = {kind: (session_of(call).state, session_of(call).maybe_created) for kind, call in calls.items()}
    assert states == dict.fromkeys(malformed.KINDS, (VapiState.FAILED, True))
    look(house)
    assert [call.name for call in house.vapi.open_calls()] == [f"{talking.call_sid}.0"]
    assert session_of(talking).state == VapiState.LIVE
    assert "example.net" not in str(list(VapiSession.objects.values()))


FAILED, MAYBE, LIVE = (VapiState.FAILED, False), (VapiState.FAILED, True), (VapiState.LIVE, False)
ANSWERS = {  # P10 to P14: the fault, what becomes of the session (state, maybe at Vapi), within seconds
    "create-401": (FAILED, 0.5),
    "create-402": (FAILED, 0.5),
    "create-403": (FAILED, 0.5),
    "create-429": (FAILED, 1.0),
    "create-429-once": (LIVE, 2.0),
    "create-429-wait-9999": (FAILED, 0.5),
    "create-429-wait-garbage": (FAILED, 1.0),
    "create-500": (MAYBE, 0.5),
    "create-503": (FAILED, 1.0),
    "create-503-once": (LIVE, 1.0),
    "create-slow-10": (MAYBE, 3.0),
    "create-drip": (MAYBE, 3.0),
    "create-over-limit": (FAILED, 0.5),
    "create-blocked": (MAYBE, 1.0),
}
A_BUSY_MACHINE_S = 3.0


@pytest.mark.long
def test_a_create_that_fails_is_known_in_time_and_told_from_one_that_may_have_worked(house: House) -> None:
    calls = {name: a_call() for name in ANSWERS}
    for name, call in calls.items():
        faults = CREATE[name].switches()
        faults.create_delay_s = min(faults.create_delay_s, 3.3) if "slow" in name else 0.0
        house.faulty(call.call_sid, faults)
    took = dict(zip(calls, at_once([partial(_timed, house, call) for call in calls.values()]), strict=True))
    assert {name: (session_of(call).state, session_of(call).maybe_created) for name, call in calls.items()} == {
        name: end for name, (end, _) in ANSWERS.items()
    }
    late = {name: seconds for name, seconds in took.items() if seconds > ANSWERS[name][1] + A_BUSY_MACHINE_S}
    assert late == {}
    for call in calls.values():
        hang_up(house, call)
    until(lambda: house.of(calls["create-slow-10"].call_sid))
    look(house)
    assert house.vapi.open_calls() == []


def _timed(house: House, call: CallSession) -> float:
    began = time.monotonic()
    start(house, call)
    return time.monotonic() - began


# -- a prepared assistant that is gone ---------------------------------------------------------------------------------


def prepare(house: House, call: CallSession) -> TemplateVersion:
    """The call's version is stored at Vapi."""
    assert call.version is not None
    assert services.premake(version_pk=call.version.pk, client=house, server=account.server(), at=timezone.now())
    return TemplateVersion.objects.get(pk=call.version.pk)


def test_a_call_is_made_with_the_assistant_that_was_prepared_for_it(house: House) -> None:
    call = a_call()
    version = prepare(house, call)
    assert start(house, call)
    (made,) = house.of(call.call_sid)
    assert made.public["assistantId"] == version.vapi_assistant_id


def test_an_agent_whose_assistant_was_deleted_at_vapi_speaks_all_the_same_and_staff_sees_it(house: House) -> None:
    first, second = a_call(), a_call()
    prepare(house, first)
    house.vapi.assistants.clear()
    assert start(house, first)
    (made,) = house.of(first.call_sid)
    assert "assistantId" not in made.public
    assert (session_of(first).state, session_of(first).n) == (VapiState.LIVE, 0)
    version = TemplateVersion.objects.get()
    assert (version.premade, version.vapi_assistant_id, version.premade_error) == ("failed", "", "Vapi does not have it any more.")
    assert start(house, second)
    assert [house.vapi.asked[call.call_sid] for call in (first, second)] == [2, 1]


def test_a_create_that_is_refused_for_another_reason_leaves_the_prepared_assistant_as_it_is(house: House) -> None:
    call = a_call()
    prepare(house, call)
    house.faulty(call.call_sid, Faults(create_status=400))
    assert not start(house, call)
    assert TemplateVersion.objects.get().premade == "ready"
