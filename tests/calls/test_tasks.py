"""The tasks: safe to run twice, and the scheduled ones find what was left over."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from celery import current_app
from django.conf import settings
from django.utils import timezone

from agents import account
from calls import history, services, tasks
from calls.models import CallSession, EndReason, InboxMessage, VapiState
from tests.builders import FakeVapi, a_call, session_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def vapi(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeVapi]:
    """Tasks run where they are enqueued, with a Vapi in memory."""
    fake = FakeVapi()
    monkeypatch.setattr(account, "client", lambda: fake)
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


def test_the_sweep_ends_silent_calls_and_the_sessions_they_leave(vapi: FakeVapi) -> None:
    silent = a_call()
    tasks.start_conversation(session_of(silent).pk)
    CallSession.objects.filter(pk=silent.pk).update(last_seen_at=timezone.now() - settings.CALL_TTL - timedelta(seconds=1))
    tasks.sweep()
    silent.refresh_from_db()
    assert (silent.end_reason, len(vapi.ended)) == (EndReason.TTL, 1)
    tasks.sweep()
    assert len(vapi.ended) == 1


def test_a_body_that_was_stored_and_not_processed_is_processed_later(vapi: FakeVapi) -> None:
    call = a_call()
    tasks.start_conversation(session_of(call).pk)
    body = {"type": "transcript", "transcriptType": "final", "role": "user", "transcript": "Hello?", "timestamp": 1}
    vapi_id = session_of(call).vapi_call_id or ""
    an_age_ago = timezone.now() - timedelta(minutes=1)
    history.store_inbox(source="vapi", key="k1", kind="transcript", body=body, vapi_call_id=vapi_id, at=an_age_ago)
    history.store_inbox(source="vapi", key="k2", kind="transcript", body=body, vapi_call_id=vapi_id, at=timezone.now())
    tasks.reprocess_inbox()
    assert call.lines.filter(role="user", said="Hello?").count() == 1
    assert list(InboxMessage.objects.filter(processed_at=None).values_list("key", flat=True)) == ["k2"]


def test_everything_on_the_schedule_exists() -> None:
    assert {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()} <= set(current_app.tasks)
