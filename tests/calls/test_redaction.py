"""What must not be stored is stored nowhere: a whole conversation, then every column of every row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from django.apps import apps
from django.utils import timezone

from bridge.ports import Closing
from calls import history, inbox, services, sessions, tool_calls, tool_runs, vapi_events
from calls.history import NewEvent
from calls.models import CallSession, EndReason, Status
from calls.tool_calls import ToolCall
from tests.builders import FakeVapi, a_call, a_line, session_of

CARD = "4111 1111 1111 1111"


def columns_with(words: str) -> Iterator[str]:
    for model in apps.get_app_config("calls").get_models():
        for row in model._default_manager.values():
            yield from (f"{model.__name__}.{column}" for column, value in row.items() if words in str(value))


def webhook(call: CallSession, kind: str, **said: Any) -> None:
    vendors = {"id": session_of(call).vapi_call_id, "name": f"{call.call_sid}.0"}
    told = vapi_events.read(orjson.dumps({"message": {"type": kind, "call": vendors, "timestamp": 1, **said}}))
    row = inbox.keep(told, session=session_of(call), at=timezone.now())
    assert row is not None
    assert inbox.process(pk=row.pk, at=timezone.now())


def a_conversation_about_a_card() -> None:
    a_line(targets=("tier2",))
    call, said = a_call(status=Status.STREAMING), f"It is {CARD}, as I said."
    sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="worker", client=FakeVapi())
    events = [("transcript-partial", {"role": "user", "text": said}), ("agent-speech-started", {})]
    history.record_events(call_sid=call.call_sid, events=[NewEvent(kind, "bridge", timezone.now(), detail) for kind, detail in events])
    for role in ("user", "assistant"):
        webhook(call, "transcript", transcriptType="final", role=role, transcript=said)
    turn = {"said_ms": 1000, "heard_ms": 800, "interrupted": True}
    history.record_events(call_sid=call.call_sid, events=[NewEvent("agent-turn-ended", "bridge", timezone.now(), turn)])
    asked = [
        ToolCall("t1", "transfer_to_human", {"target": "tier2", "reason": said, "summary": said}),
        ToolCall("t2", "pay", {"card": said}),
    ]
    tool_calls.answer(call=call, calls=asked, allowed=[])
    tool_runs.begin_tool(call=call, tool_call_id="t3", name="pay", arguments=[{"deep": said}], at=timezone.now())
    tool_runs.finish_tool(tool_call_id="t3", result=said, problem=said, at=timezone.now())
    services.ask(call=call, key="say:1", verb="say", detail={"text": said}, at=timezone.now())
    services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing("handed-over"), at=timezone.now())
    services.end_call(call_sid=call.call_sid, at=timezone.now(), reason=EndReason.HUMAN_ENDED)
    webhook(call, "end-of-call-report", transcript=said, artifact={"messages": [{"message": said}]}, analysis={"summary": said})


@pytest.mark.django_db
def test_what_is_redacted_is_in_no_column_after_a_whole_conversation() -> None:
    a_conversation_about_a_card()
    assert list(columns_with(CARD)) == []
    assert set(columns_with("[card]")) == {
        "CallEvent.detail",
        "InboxMessage.body",
        "OutboxCommand.detail",
        "ToolRun.arguments",
        "ToolRun.problem",
        "ToolRun.result",
        "TranscriptLine.said",
        "TranscriptLine.heard_text",
        "VapiReport.summary",
    }
