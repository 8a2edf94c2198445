"""What Vapi says on its socket: every known sample is understood, whatever else arrives is one plain error or ignored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import vapi_messages as vapi
from bridge.errors import BadMessage

SAMPLES = Path(__file__).parent.parent / "wire" / "vapi" / "ws-vapi-to-client"
ACTED_ON: dict[str, type] = {
    "speech-update.assistant-started": vapi.AgentStarted,
    "speech-update.assistant-stopped": vapi.AgentStopped,
    "speech-update.user-started": vapi.CallerSpoke,
    "speech-update.user-stopped": vapi.CallerPaused,
    "user-interrupted": vapi.CallerInterrupted,
    "model-output": vapi.ResponseQueued,
    "transcript.partial": vapi.PartialHeard,
    "transcript.final": vapi.FinalHeard,
    "assistant.speechStarted": vapi.WordsSpoken,
    "tool-calls": vapi.ToolsCalled,
    "status-update.ended": vapi.SessionEnded,
}


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.json")), ids=lambda path: path.stem)
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped"])
def test_every_sample_is_understood_bare_and_wrapped(sample: Path, wrapped: bool) -> None:
    message = json.loads(sample.read_text())
    message = message.get("message", message)
    text = json.dumps({"message": message} if wrapped else message)
    assert isinstance(vapi.read(text), ACTED_ON.get(sample.stem, vapi.Other))


def test_the_raw_reason_of_an_end_is_kept() -> None:
    message = {"type": "status-update", "status": "ended", "endedReason": "assistant-ended-call"}
    assert vapi.understand(message) == vapi.SessionEnded("assistant-ended-call")


@pytest.mark.parametrize("text", ["", "[]", "5", '"x"', "{}", '{"type": 5}', "{", "\x00", '{"type": NaN}'])
def test_what_is_no_message_is_one_plain_error(text: str) -> None:
    with pytest.raises(BadMessage):
        vapi.read(text)


KINDS = st.sampled_from(["speech-update", "user-interrupted", "model-output", "transcript", "status-update", "status-update[0]"])
WORDS = st.sampled_from(["user", "assistant", "started", "stopped", "partial", "ended"])
VALUES = st.none() | st.text() | st.integers() | st.booleans() | WORDS | st.lists(WORDS) | st.dictionaries(WORDS, WORDS)


@given(
    KINDS | VALUES,
    st.dictionaries(st.sampled_from(["role", "status", "transcript", "transcriptType", "turnId", "endedReason"]), VALUES),
)
def test_values_of_any_kind_never_break_the_reader(kind: Any, message: dict[str, Any]) -> None:
    try:
        vapi.understand({"type": kind, **message})
    except BadMessage:
        assert not isinstance(kind, str)


def test_the_sentences_we_have_the_agent_say_are_what_the_vendor_documents() -> None:
    assert json.loads(vapi.dump(vapi.say("Hello."))) == {
        "type": "say",
        "content": "Hello.",
        "endCallAfterSpoken": False,
        "interruptAssistantEnabled": True,
        "interruptionsEnabled": True,
    }
