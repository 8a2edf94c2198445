"""What was heard of a sentence under which the call, its stream or its agent was gone: in the transcript, and for the next agent."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from agents.payload import Said
from calls import history, memory, reports
from calls.history import NewEvent
from calls.models import CallSession, Heard
from tests.builders import a_call, session_of

pytestmark = pytest.mark.django_db
LINE = "one two three four"
LEFT = {"said_ms": 4000, "heard_ms": 2000, "interrupted": True, "left": True}


def left_call() -> CallSession:
    """A call whose stream was lost a second ago, in the middle of the agent's sentence."""
    call = a_call(at=timezone.now() - timedelta(seconds=10))
    noted(call, "agent-speech-started", 4.0)
    noted(call, "agent-turn-ended", 8.0, **LEFT)
    return call


def noted(call: CallSession, kind: str, seconds: float, **detail: object) -> None:
    at = call.started_at + timedelta(seconds=seconds)
    history.record_events(call_sid=call.call_sid, events=[NewEvent(kind, "bridge", at, detail)])


def final(call: CallSession, seconds: float = 8.0) -> None:
    at = call.started_at + timedelta(seconds=seconds)
    ms = int(at.timestamp() * 1000)
    history.add_line(call=call, vapi_call_id="v", role="assistant", text=LINE, vendor_ms=ms, at=at, n=0)


def marks(call: CallSession) -> list[tuple[str, str, str]]:
    return list(call.lines.filter(role="assistant").values_list("said", "heard", "heard_text"))


def test_the_next_agent_is_told_what_was_heard_of_the_sentence_that_was_lost_with_the_stream() -> None:
    call = left_call()
    final(call)
    assert memory.so_far(call) == (Said("assistant", "one two"),)


def test_a_sentence_that_only_the_report_tells_is_marked_too() -> None:
    call = left_call()
    session = session_of(call)
    began = int(call.started_at.timestamp() * 1000) + 4000
    told = {"role": "bot", "message": LINE, "time": began, "endTime": began + 4000}
    reports.merge(session=session, report={"type": "end-of-call-report", "artifact": {"messages": [told]}}, at=timezone.now())
    assert marks(call) == [(LINE, Heard.PART, "one two")]


@pytest.mark.parametrize("line_first", [True, False])
def test_a_sentence_that_went_on_with_the_next_stream_was_heard_to_its_end(line_first: bool) -> None:
    call = left_call()
    if line_first:
        final(call)
    noted(call, "re-attached", 9.0)
    if not line_first:
        final(call)
    assert marks(call) == [(LINE, Heard.FULL, "")]


def test_a_sentence_that_the_caller_cut_stays_cut_when_the_agent_is_there_again() -> None:
    call = a_call(at=timezone.now() - timedelta(seconds=10))
    noted(call, "agent-speech-started", 4.0)
    noted(call, "agent-turn-ended", 8.0, **{**LEFT, "left": False})
    final(call)
    noted(call, "re-attached", 9.0)
    assert marks(call) == [(LINE, Heard.PART, "one two")]
