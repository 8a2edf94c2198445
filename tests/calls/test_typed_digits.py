"""What callers type is in no row, whoever repeats it; and the stream is told what the agent and its line want of the keypad."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from agents.models import PhoneLine, TemplateVersion
from bridge import vapi_messages
from bridge.ports import Admission
from calls import sessions, tool_runs
from calls.ledger import DatabaseLedger
from calls.models import CallSession, Status
from tests.builders import ACCOUNT, FakeVapi, a_call, a_line, session_of
from tests.calls.test_ledger import ledger, run, token, vapi  # noqa: F401
from tests.calls.test_redaction import columns_with, webhook

TYPED = "471108"
pytestmark = pytest.mark.django_db(transaction=True)


def a_live_call(*, keypad: bool, status: Status = Status.STREAMING) -> CallSession:
    a_line()
    TemplateVersion.objects.update(keypad=keypad, keypad_digits=8, keypad_end="*", sound="wideband")
    call = a_call(status=status)
    sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="worker", client=FakeVapi())
    return call


def everybody_repeats_it(call: CallSession) -> None:
    content = vapi_messages.typed(TYPED)["message"]["content"]
    spoken = [{"role": "system", "message": content, "time": 1}, {"role": "user", "message": "Hello.", "time": 2}]
    asked = [{"id": "call_1", "type": "function", "function": {"name": "find", "arguments": {"customer": TYPED, "count": 471108}}}]
    webhook(call, "conversation-update", messages=spoken, messagesOpenAIFormatted=[{"role": "system", "content": content}])
    webhook(call, "transcript", transcriptType="final", role="assistant", transcript=content)
    webhook(call, "tool-calls", toolCallList=asked, toolCalls=asked)
    webhook(call, "end-of-call-report", artifact={"messages": spoken, "transcript": content, "toolCalls": asked}, transcript=content)
    tool_runs.begin_tool(
        call=call, tool_call_id="call_1", name="find", arguments={"customer": TYPED, "how": ["47 11 08"]}, at=timezone.now()
    )


def test_what_was_typed_is_in_no_column_whoever_repeats_it() -> None:
    everybody_repeats_it(a_live_call(keypad=True))
    for digits in (TYPED, "47 11 08"):
        assert list(columns_with(digits)) == []


def test_what_an_agent_that_does_not_listen_asks_its_tools_stays_readable() -> None:
    everybody_repeats_it(a_live_call(keypad=False))
    assert set(columns_with(TYPED)) == {"InboxMessage.body", "ToolRun.arguments", "CallEvent.detail"}
    assert set(columns_with(f"keypad: {TYPED}")) == set()


@pytest.mark.parametrize("keypad", [True, False])
@pytest.mark.parametrize("zero", [True, False])
def test_a_stream_is_told_what_agent_and_line_want(ledger: DatabaseLedger, keypad: bool, zero: bool) -> None:  # noqa: F811
    call = a_live_call(keypad=keypad, status=Status.CONNECTING)
    PhoneLine.objects.update(zero_for_person=zero)
    admitted: Any = run(ledger.admit(call_sid=call.call_sid, account_sid=ACCOUNT, stream_sid="MZ1", token=token(call)))
    assert isinstance(admitted, Admission)
    assert (admitted.wideband, admitted.zero_for_person) == (True, zero)
    assert (admitted.keypad_digits, admitted.keypad_end) == (8 if keypad else 0, "*")


def test_vapi_is_asked_for_the_sound_the_stream_will_speak() -> None:
    a_line()
    TemplateVersion.objects.update(sound="wideband")
    call, account = a_call(), FakeVapi()
    sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="worker", client=account)
    assert account.created[0]["transport"]["audioFormat"] == {"format": "pcm_s16le", "container": "raw", "sampleRate": 16_000}
