"""The wall clock jumps by two hours, in the moments of a call at which two of its readings are compared: no caller is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from agents import lines
from bridge import stream_token
from bridge.ports import Closing, Note
from calls import by_heart, missed_sweep, services, sessions, tasks
from calls.ledger import SKEW_S, DatabaseLedger
from calls.let_in import is_let_in
from calls.models import CallbackRequest, CallSession, EndReason, Status, VapiSession, VapiState
from tests.builders import FakeVapi
from tests.calls import doors
from tests.calls.doors import ACCOUNT_SID, CALL_SID, PUBLIC_URL, TOKEN, Remembering, a_line, incoming, knock, tree, verbs

pytestmark = pytest.mark.django_db(transaction=True)

DOOR = "/webhook/twilio"
TWO_HOURS = 2 * 3600.0
JUMPS = pytest.mark.parametrize("jump_s", [TWO_HOURS, -TWO_HOURS], ids=["forward", "back"])
Jump = Callable[[float], None]


@pytest.fixture(autouse=True)
def configured(settings: Settings) -> None:
    settings.PUBLIC_URL, settings.TWILIO_AUTH_TOKENS, settings.SECRET_KEY = PUBLIC_URL, [TOKEN], "tests"
    lines.forget()


@pytest.fixture(autouse=True)
def published() -> Iterator[Remembering]:
    with doors.remembering() as remembered:
        yield remembered


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Jump:
    """Moves the wall clock of this process by so many seconds, and leaves the monotonic one alone."""
    right, off_s = time.time, 0.0

    def by(seconds: float) -> None:
        nonlocal off_s
        off_s += seconds

    monkeypatch.setattr(time, "time", lambda: right() + off_s)
    monkeypatch.setattr(timezone, "now", lambda: datetime.fromtimestamp(right() + off_s, tz=UTC))
    return by


@pytest.fixture
def ledger() -> Iterator[DatabaseLedger]:
    key = stream_token.key_from("tests")
    made = DatabaseLedger(token_key=key, client=FakeVapi(), wall=lambda: time.time(), deadline_s=5.0)
    yield made
    made.close()


def told(status: str = "in-progress", **more: str) -> dict[str, str]:
    return incoming(CallStatus=status, **more)


def token_in(answer: HttpResponse) -> str:
    [connect] = [verb for verb in tree(answer) if verb[0] == "Connect"]
    return str(connect[3][3][1]["value"])


def let_in(ledger: DatabaseLedger, token: str, stream: str = "MZ1") -> Any:
    return asyncio.run(ledger.admit(call_sid=CALL_SID, account_sid=ACCOUNT_SID, stream_sid=stream, token=token))


def a_call_with_an_agent(client: Client) -> tuple[CallSession, str]:
    """Answered, with an agent made, and its stream still to come; and the token that Twilio was given."""
    a_line()
    token = token_in(knock(client, DOOR, incoming()))
    call = CallSession.objects.get()
    session = VapiSession.objects.get()
    assert sessions.start_conversation(vapi_session_pk=session.pk, by="worker", client=FakeVapi())
    return call, token


def goes_on(call: CallSession) -> None:
    call.refresh_from_db()
    assert (call.status, call.ended_at, call.rung in ("R0", "R1")) == (Status.STREAMING, None, True)
    assert call.vapi_sessions.filter(state__in=(VapiState.ASKED, VapiState.LIVE), ended_at=None).exists()


# -- between the webhook and the stream --------------------------------------------------------------------------------


@JUMPS
def test_a_caller_whose_token_was_dated_before_the_jump_is_with_the_agent_on_this_stream_or_the_next(
    client: Client, ledger: DatabaseLedger, jump: Jump, jump_s: float
) -> None:
    call, token = a_call_with_an_agent(client)
    jump(jump_s)
    admission = let_in(ledger, token)
    assert (admission is not None) is (jump_s < 0)
    if admission is None:  # Twilio goes on with the next verb
        again = knock(client, f"{DOOR}/resume/0", told())
        assert let_in(ledger, token_in(again), "MZ2") is not None
    goes_on(call)
    assert let_in(ledger, token, "MZ3") is None


@pytest.mark.parametrize("skew_s", [300.0, -300.0])
def test_a_clock_that_is_put_right_by_five_minutes_shuts_nobody_out(
    client: Client, ledger: DatabaseLedger, jump: Jump, skew_s: float
) -> None:
    call, token = a_call_with_an_agent(client)
    jump(skew_s + (stream_token.LIFE_S - 5.0 if skew_s > 0 else 0.0))
    assert let_in(ledger, token) is not None
    goes_on(call)


def test_a_token_is_borne_no_longer_than_its_life_and_the_skew(client: Client, ledger: DatabaseLedger, jump: Jump) -> None:
    call, token = a_call_with_an_agent(client)
    jump(stream_token.LIFE_S + SKEW_S + 2.0)
    assert let_in(ledger, token) is None
    call.refresh_from_db()
    assert call.stream_epoch == -1


@JUMPS
@pytest.mark.parametrize("is_workers", [True, False], ids=["a worker's sweep", "a serving process's"])
def test_the_agent_that_waits_for_its_stream_is_not_ended_by_the_sweep_after_the_jump(
    client: Client, ledger: DatabaseLedger, jump: Jump, published: Remembering, jump_s: float, is_workers: bool
) -> None:
    missed_sweep.somebody_sweeps(now=timezone.now())
    call, token = a_call_with_an_agent(client)
    jump(jump_s)
    sweep(is_workers)
    assert [task for task, _ in published.tasks if task == "end_session"] == []
    assert VapiSession.objects.get().ended_at is None
    if jump_s < 0:
        assert let_in(ledger, token) is not None
        goes_on(call)


@pytest.mark.parametrize("is_workers", [True, False], ids=["a worker's looks", "a serving process's sweep"])
def test_an_agent_that_is_being_made_when_the_clock_jumps_is_not_given_up(client: Client, jump: Jump, is_workers: bool) -> None:
    missed_sweep.somebody_sweeps(now=timezone.now())
    a_line()
    knock(client, DOOR, incoming())
    session = VapiSession.objects.get()

    def meanwhile() -> None:
        jump(TWO_HOURS)
        if is_workers:
            tasks.end_orphans()
        sweep(is_workers)

    assert sessions.start_conversation(vapi_session_pk=session.pk, by="worker", client=FakeVapi(during=meanwhile))
    session.refresh_from_db()
    assert (session.state, session.ended_at) == (VapiState.LIVE, None)


def sweep(is_workers: bool) -> None:
    if is_workers:
        tasks.sweep()
    else:
        assert missed_sweep.sweep_if_nobody_does(now=timezone.now())


# -- in the middle of a call -------------------------------------------------------------------------------------------


@JUMPS
def test_a_call_that_is_on_goes_on_is_resumed_and_ends_when_its_caller_hangs_up(
    client: Client, ledger: DatabaseLedger, jump: Jump, jump_s: float
) -> None:
    missed_sweep.somebody_sweeps(now=timezone.now())
    call, token = a_call_with_an_agent(client)
    admission = let_in(ledger, token)
    ledger.note(admission.ref, Note("before", "bridge", time.time(), time.monotonic(), {}))
    jump(jump_s)
    assert missed_sweep.sweep_if_nobody_does(now=timezone.now())
    assert services.heartbeat(call_sid=CALL_SID, epoch=0, at=timezone.now())
    ledger.note(admission.ref, Note("after", "bridge", time.time(), time.monotonic(), {}))
    asyncio.run(ledger.ended(admission.ref, Closing("stream-lost")))
    again = knock(client, f"{DOOR}/resume/0", told())
    assert knock(client, f"{DOOR}/resume/0", told()).content == again.content
    assert let_in(ledger, token_in(again), "MZ2") is not None
    jump(-jump_s)  # and it is put right
    missed_sweep.sweep_if_nobody_does(now=timezone.now())
    goes_on(call)
    knock(client, f"{DOOR}/status", told("completed"))
    call.refresh_from_db()
    assert call.end_reason == EndReason.CALLER_HUNG_UP
    events = list(call.events.filter(kind__in=("before", "after")))
    assert [event.kind for event in events] == ["before", "after"]
    assert 0 <= events[0].ms <= events[1].ms < 60_000


@JUMPS
def test_who_waits_for_the_ai_gets_somebody_or_goes_on_waiting(client: Client, jump: Jump, settings: Settings, jump_s: float) -> None:
    settings.MAX_CALLS = 1
    a_line()
    knock(client, DOOR, incoming("CA" + "b" * 32))
    assert "Gather" in verbs(knock(client, DOOR, incoming()))
    jump(jump_s)
    answer = verbs(knock(client, f"{DOOR}/wait/0/1", told()))
    assert {"Connect", "Dial", "Record", "Gather"} & set(answer)
    assert CallSession.objects.get(call_sid=CALL_SID).ended_at is None


@JUMPS
def test_who_asks_to_be_called_back_is_promised_a_time_that_is_to_come(client: Client, jump: Jump, jump_s: float) -> None:
    a_line(people=(), published=False)
    assert "Gather" in verbs(knock(client, DOOR, incoming()))
    jump(jump_s)
    said = tree(knock(client, f"{DOOR}/callback/0", told(Digits="1")))
    assert said[0][2].startswith("Thank you. We will call you back")
    asked = CallbackRequest.objects.get()
    assert timezone.now() < asked.due_at <= timezone.now() + timedelta(hours=4)


@JUMPS
def test_what_is_known_of_a_call_by_heart_is_not_forgotten(jump: Jump, settings: Settings, tmp_path: Path, jump_s: float) -> None:
    settings.SPOOL_DIR = tmp_path / "spool"
    assert by_heart.first(CALL_SID, "stream-0")
    by_heart.closed(CALL_SID, 0, "stream-lost")
    by_heart.leg_over(CALL_SID, status="completed", at=timezone.now())
    jump(jump_s)
    by_heart.forget_old(now=time.time())
    assert is_let_in(CALL_SID, 0)
    assert by_heart.why_closed(CALL_SID, 0) == "stream-lost"
    assert not by_heart.first(CALL_SID, "stream-0")
