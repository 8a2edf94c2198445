"""The tasks: safe to run twice, and the scheduled ones find what was left over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from celery import current_app
from celery.app.task import Context
from celery.exceptions import Retry, SoftTimeLimitExceeded
from django.conf import settings
from django.db import DataError, OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from agents import account, lines
from bridge import stream_token
from bridge.errors import VapiUnavailable
from bridge.ports import Closing
from bridge.vapi_http import LIST_CALLS_S, NOBODY_WAITS_S
from calls import history, inbox, services, sessions, tasks, vapi_events
from calls.history import NewLine
from calls.models import CallSession, EndReason, InboxMessage, Status, VapiSession, VapiState
from tests.builders import FakeVapi, a_body, a_call, session_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def vapi(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeVapi]:
    """Tasks run where they are enqueued, with a Vapi in memory."""
    fake = FakeVapi()
    monkeypatch.setattr(account, "client", lambda *_: fake)
    current_app.conf.task_always_eager = True
    yield fake
    current_app.conf.task_always_eager = False


def test_a_conversation_is_started_once_however_often_the_task_comes(vapi: FakeVapi) -> None:
    call = a_call()
    for _ in range(3):
        tasks.start_conversation(session_of(call).pk)
    assert (len(vapi.created), session_of(call).claimed_by) == (1, "worker")


def test_a_call_that_is_over_leaves_no_session_open(vapi: FakeVapi) -> None:
    call = a_call()
    tasks.start_conversation(session_of(call).pk)
    services.end_call(call_sid=call.call_sid, at=timezone.now(), reason=EndReason.CALLER_HUNG_UP)
    for _ in range(2):
        tasks.end_sessions(call.call_sid)
    assert (len(vapi.ended), session_of(call).state) == (1, VapiState.ENDED)


def test_ending_a_session_is_tried_again_after_1_2_and_4_seconds(vapi: FakeVapi, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def retry(**asked: Any) -> Retry:
        pauses.append(asked["countdown"])
        return Retry()

    def unavailable(control_url: str) -> None:
        raise VapiUnavailable("away")

    call = a_call()
    tasks.start_conversation(session_of(call).pk)
    monkeypatch.setattr(vapi, "end_call", unavailable)
    monkeypatch.setattr(tasks.end_session, "retry", retry)
    for before in range(3):
        tasks.end_session.request_stack.push(Context(retries=before))
        with pytest.raises(Retry):
            tasks.end_session.run(session_of(call).pk)
        tasks.end_session.request_stack.pop()
    assert pauses == [1, 2, 4]


def test_the_sweep_ends_silent_calls_and_the_sessions_they_leave(vapi: FakeVapi) -> None:
    silent = a_call()
    tasks.start_conversation(session_of(silent).pk)
    CallSession.objects.filter(pk=silent.pk).update(last_seen_at=timezone.now() - settings.CALL_TTL - timedelta(seconds=1))
    tasks.sweep()
    silent.refresh_from_db()
    assert (silent.end_reason, len(vapi.ended)) == (EndReason.TTL, 1)
    tasks.sweep()
    assert len(vapi.ended) == 1


def test_a_session_whose_stream_never_opened_is_ended_when_its_token_is_too_old(vapi: FakeVapi) -> None:
    """P17 of the ladder. Its caller may be there all the same: that is for Twilio and the resume door to say."""
    new, forsaken, talking = a_call(), a_call(), a_call()
    for call in (new, forsaken, talking):
        tasks.start_conversation(session_of(call).pk)
        assert session_of(call).asked_at == call.started_at, "the token's life is counted from the answer"
    services.admit_stream(call_sid=talking.call_sid, account_sid=talking.account_sid, stream_sid="MZ1", epoch=0, at=timezone.now())
    too_old = timezone.now() - timedelta(seconds=stream_token.LIFE_S + 1)
    VapiSession.objects.exclude(call=new).update(asked_at=too_old)
    for _ in range(2):
        tasks.sweep()
        assert [session_of(call).state for call in (new, forsaken, talking)] == [VapiState.LIVE, VapiState.ENDED, VapiState.LIVE]
        assert len(vapi.ended) == 1
    assert [event.detail for event in forsaken.events.filter(kind="stream-never-opened")] == [{"n": 0}]
    forsaken.refresh_from_db()
    assert not forsaken.is_over


def test_a_session_nobody_even_started_is_not_started_when_its_token_is_too_old(vapi: FakeVapi) -> None:
    call = a_call()
    VapiSession.objects.update(asked_at=timezone.now() - timedelta(seconds=stream_token.LIFE_S + 1))
    tasks.sweep()
    tasks.start_conversation(session_of(call).pk)
    assert (session_of(call).state, vapi.created, vapi.ended) == (VapiState.ENDED, [], [])


def test_a_session_whose_stream_is_over_is_not_started_any_more(vapi: FakeVapi) -> None:
    call = a_call(status=Status.STREAMING, stream_epoch=0)
    services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing("caller-left"), at=timezone.now())
    tasks.start_conversation(session_of(call).pk)
    assert vapi.created == []


@pytest.mark.parametrize(("sent", "looks"), [(True, 1), (False, 0)])
def test_what_a_create_without_an_answer_left_at_vapi_is_looked_for_soon(vapi: FakeVapi, sent: bool, looks: int) -> None:
    vapi.problem = VapiUnavailable("Vapi did not answer in time.", sent=sent)
    tasks.start_conversation(session_of(a_call()).pk)
    assert vapi.looks == looks


def test_every_task_is_told_when_its_time_is_over_and_killed_later() -> None:
    ours = [task for name, task in current_app.tasks.items() if name.partition(".")[0] in ("agents", "calls")]
    assert len(ours) > 10
    for task in ours:
        assert 0 < (task.soft_time_limit or 0) < (task.time_limit or 0), task.name


def test_a_body_that_was_stored_and_not_processed_is_processed_later(vapi: FakeVapi) -> None:
    call = a_call()
    tasks.start_conversation(session_of(call).pk)
    body = {"type": "transcript", "transcriptType": "final", "role": "user", "transcript": "Hello?", "timestamp": 1}
    vapi_id = session_of(call).vapi_call_id or ""
    an_age_ago = timezone.now() - timedelta(minutes=1)
    a_body(key="k1", kind="transcript", body=body, vapi_call_id=vapi_id, at=an_age_ago)
    a_body(key="k2", kind="transcript", body=body, vapi_call_id=vapi_id, at=timezone.now())
    tasks.reprocess_inbox()
    assert call.lines.filter(role="user", said="Hello?").count() == 1
    assert list(InboxMessage.objects.filter(processed_at=None).values_list("key", flat=True)) == ["k2"]


def stored(call: CallSession, key: str, **changes: object) -> None:
    body = {"type": "transcript", "transcriptType": "final", "role": "user", "transcript": f"Hello {key}?", "timestamp": 1}
    an_age_ago = timezone.now() - timedelta(minutes=1)
    vapi_id = session_of(call).vapi_call_id or ""
    a_body(key=key, kind="transcript", body=body | changes, vapi_call_id=vapi_id, at=an_age_ago)


def test_a_body_that_cannot_be_processed_is_marked_and_holds_up_nobody(vapi: FakeVapi, monkeypatch: pytest.MonkeyPatch) -> None:
    call = a_call()
    tasks.start_conversation(session_of(call).pk)
    for key in ("poison", "good"):
        stored(call, key)
    add_lines = history.add_lines

    def poisoned(lines: Sequence[NewLine]) -> int:
        if any("poison" in line.text for line in lines):
            raise DataError("no database takes this")
        return add_lines(lines)

    monkeypatch.setattr(history, "add_lines", poisoned)
    tasks.reprocess_inbox()
    assert not InboxMessage.objects.filter(processed_at=None).exists()
    assert dict(InboxMessage.objects.values_list("key", "problem")) == {"poison": "It could not be processed (DataError).", "good": ""}
    assert call.lines.filter(role="user", said="Hello good?").count() == 1


@pytest.mark.parametrize("problem", [OperationalError("the database is away"), SoftTimeLimitExceeded(60)], ids=["away", "too slow"])
def test_a_database_that_is_away_ends_the_batch_and_blames_no_body(
    vapi: FakeVapi, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    call = a_call()
    tasks.start_conversation(session_of(call).pk)
    for key in ("one", "two"):
        stored(call, key)
    tried: list[str] = []

    def away(lines: Sequence[NewLine]) -> int:
        tried.extend(line.text for line in lines)
        raise problem

    monkeypatch.setattr(history, "add_lines", away)
    with pytest.raises(type(problem)):
        tasks.reprocess_inbox()
    assert len(tried) == 1
    assert InboxMessage.objects.filter(processed_at=None, problem="").count() == 2


@pytest.mark.parametrize("changes", [{"role": ["user"]}, {"role": {}}, {"role": None}, {"transcript": 7}])
def test_a_line_that_is_not_as_documented_is_refused_and_counted(vapi: FakeVapi, changes: dict[str, object]) -> None:
    call = a_call()
    tasks.start_conversation(session_of(call).pk)
    stored(call, "odd", **changes)
    before = vapi_events.refused["transcript"]
    assert inbox.process(pk=InboxMessage.objects.get().pk, at=timezone.now())
    assert vapi_events.refused["transcript"] == before + 1
    assert InboxMessage.objects.get().problem == "A transcript has no role or no text."
    assert not call.lines.filter(role="user").exists()


def test_the_time_for_a_list_of_calls_is_less_than_the_task_has_that_asks_for_it_and_ends_what_it_finds() -> None:
    limit = tasks.end_orphans.soft_time_limit
    assert limit is not None
    assert limit > LIST_CALLS_S + NOBODY_WAITS_S


def test_everything_on_the_schedule_exists() -> None:
    assert {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()} <= set(current_app.tasks)


def test_a_claim_looks_at_the_rows_own_state_and_not_at_a_join_which_postgresql_does_not_read_again() -> None:
    session = session_of(a_call())
    with CaptureQueriesContext(connection) as asked:
        assert sessions.claim_session(pk=session.pk, by="worker", at=timezone.now()) is not None
    statement = next(query["sql"] for query in asked if query["sql"].startswith("UPDATE"))
    assert "JOIN" not in statement
    assert '"calls_vapisession"."state" = ' in statement


def test_a_request_that_cannot_even_be_made_fails_its_session_at_once(vapi: FakeVapi, monkeypatch: pytest.MonkeyPatch) -> None:
    call = a_call()

    def broken(**words: Any) -> dict[str, Any]:
        raise RuntimeError

    monkeypatch.setattr(lines, "conversation_request", broken)
    with pytest.raises(RuntimeError):
        tasks.start_conversation(session_of(call).pk)
    assert vapi.looks == 1  # nobody knows how far it came
    assert (session_of(call).state, session_of(call).failure) == (VapiState.FAILED, "It could not be asked for.")
