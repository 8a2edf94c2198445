"""What we tell Vapi is what its published types describe today, for every agent a manager can write."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from agents import limits, payload
from agents.models import AgentWords
from agents.payload import ServerAddress, VersionWords
from tests.agents import oracle
from tests.agents.words import EMAIL_TOOL, SERVER, every_agent, words

SID = "CA" + "0123456789abcdef" * 2
UNDECLARED = ".silenceTimeoutSeconds: no such key"  # documented and live, missing from the published types: sent only when set
slowly = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def inline(**changes: Any) -> dict[str, Any]:
    return payload.assistant(words(**changes), server=SERVER)


def request_of(**changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {"call_sid": SID, "n": 0, "epoch": 0, "server": SERVER, "assistant_id": "a-1"}
    return payload.call_request(**(plain | changes))


def test_the_plain_words_are_the_fields_of_the_database() -> None:
    declared = {field.name for field in dataclasses.fields(VersionWords)}
    assert declared == {*AgentWords.word_fields(), "name", "slug", "number", "tools", "targets"}


@pytest.mark.long
@slowly
@given(every_agent())
def test_every_agent_our_limits_allow_is_one_vapi_describes(agent: VersionWords) -> None:
    plain = {name: getattr(agent, name) for name in [*AgentWords.word_fields(), "name"]}
    assert limits.word_problems(plain) == {}
    assert [limits.tool_problems(tool) for tool in agent.tools] == [{} for _ in agent.tools]
    body = payload.assistant(agent, server=SERVER)
    assert oracle.findings(oracle.Assistant, body) == ([UNDECLARED] if agent.silence_timeout_s is not None else [])
    assert len(body["name"]) <= 40
    assert json.loads(json.dumps(body)) == body


@pytest.mark.long
@slowly
@given(every_agent())
def test_every_inline_call_is_one_vapi_describes(agent: VersionWords) -> None:
    body = request_of(assistant_id="", inline=payload.assistant(agent, server=SERVER), variables={"line": "Support"})
    undeclared = [f".assistant{UNDECLARED}"] if agent.silence_timeout_s is not None else []
    assert oracle.findings(oracle.Call, body) == undeclared


def test_a_call_with_a_stored_assistant_is_one_vapi_describes() -> None:
    assert oracle.findings(oracle.Call, request_of(variables={"line": "Support"})) == []


@pytest.mark.parametrize(
    "change",
    [
        {"voice": {"provider": "elevenlabs", "voiceId": "x"}},
        {"voice": {"provider": "11labs"}},
        {"model": {"provider": "openai", "model": "gpt-4.1", "systemPrompt": "x"}},
        {"model": {"provider": "openai", "model": "gpt-nonsense"}},
        {"responseDelaySeconds": 0.4},
        {"interruptible": True},
        {"serverUrlSecret": "x"},
        {"tools": []},
        {"firstMessageMode": "assistant-speaks-frist"},
        {"serverMessages": ["transcript", "function-cal"]},
        {"server": {"url": "https://x.test", "secret": "x"}},
        {"transcriber": {"provider": "deepgram", "language": "klingon"}},
        {"first_message": "snake case"},
    ],
)
def test_the_oracle_finds_the_mistakes_of_older_articles(change: dict[str, Any]) -> None:
    assert oracle.findings(oracle.Assistant, inline() | change) != []


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {}},
        {"transport": {"provider": "websocket"}},
        {"transport": {"provider": "vapi.websocket", "audioFormat": {"format": "ulaw", "sampleRate": 8000}}},
    ],
)
def test_the_oracle_finds_the_mistakes_in_calls(change: dict[str, Any]) -> None:
    assert oracle.findings(oracle.Call, request_of() | change) != []


def test_the_instructions_are_the_system_message() -> None:
    assert inline()["model"]["messages"] == [{"role": "system", "content": "You help callers."}]


def test_turn_taking_stands_where_the_current_api_has_it() -> None:
    body = inline(wait_seconds=0.4, stop_words=1, stop_voice_seconds=0.3, backoff_seconds=2.0)
    assert body["startSpeakingPlan"] == {"waitSeconds": 0.4}
    assert body["stopSpeakingPlan"] == {"numWords": 1, "voiceSeconds": 0.3, "backoffSeconds": 2.0}
    assert inline(turn_end="vapi")["startSpeakingPlan"]["smartEndpointingPlan"] == {"provider": "vapi"}
    assert inline(turn_end="livekit")["startSpeakingPlan"]["smartEndpointingPlan"]["provider"] == "livekit"


def test_the_greeting_can_be_interrupted_unless_somebody_says_no() -> None:
    assert inline()["firstMessageInterruptionsEnabled"] is True
    assert inline(first_message_interruptible=False)["firstMessageInterruptionsEnabled"] is False


@pytest.mark.parametrize("mode", ["assistant-waits-for-user", "assistant-speaks-first-with-model-generated-message"])
def test_a_greeting_nobody_asked_for_is_not_sent(mode: str) -> None:
    assert "firstMessage" not in inline(first_message_mode=mode)


def test_listening_words_go_where_the_transcriber_looks() -> None:
    assert inline(keyterms=["SSO"])["transcriber"]["keyterm"] == ["SSO"]
    assert inline(keyterms=["SSO"], transcriber_model="nova-2")["transcriber"]["keywords"] == ["SSO"]
    told = inline(keyterms=["SSO"], transcriber_provider="assembly-ai", transcriber_model="universal-streaming-english")["transcriber"]
    assert told == {"provider": "assembly-ai", "language": "en", "speechModel": "universal-streaming-english", "keytermsPrompt": ["SSO"]}


def test_sound_is_nothing_but_the_agent_and_nothing_is_recorded() -> None:
    body = inline()
    assert body["backgroundSound"] == "off"
    assert body["voicemailDetection"] == "off"
    assert body["artifactPlan"] == {"recordingEnabled": False, "pcapEnabled": False}
    assert request_of()["assistantOverrides"]["artifactPlan"]["recordingEnabled"] is False
    assert payload.assistant(words(), server=SERVER, recording=True)["artifactPlan"]["recordingEnabled"] is True


def test_silence_is_timed_only_when_asked_for() -> None:
    assert "silenceTimeoutSeconds" not in inline()
    assert inline(silence_timeout_s=30)["silenceTimeoutSeconds"] == 30


def test_tools_sit_in_the_model_and_the_built_in_ones_come_last() -> None:
    tools = inline()["model"]["tools"]
    assert [tool["function"]["name"] for tool in tools] == [
        *("get_user_account", "transfer_to_human", "take_message", "promise_callback", "end_call", "do_not_record")
    ]
    assert {tool["type"] for tool in tools} == {"function"}
    assert all("server" not in tool for tool in tools)
    transfer = tools[1]["function"]["parameters"]["properties"]
    assert transfer["target"]["enum"] == ["tier2", "billing"]


def test_an_agent_with_nobody_behind_it_is_not_offered_a_transfer() -> None:
    names = [tool["function"]["name"] for tool in inline(targets=())["model"]["tools"]]
    assert "transfer_to_human" not in names


def test_every_caller_may_ask_any_agent_to_keep_nothing() -> None:
    (tool,) = inline(tools=[], may_transfer=False, may_end_call=False)["model"]["tools"]
    assert tool["function"]["name"] == "do_not_record"


def test_a_sentence_for_waiting_is_said_when_the_tool_starts() -> None:
    tool, _ = inline(tools=[EMAIL_TOOL | {"waiting_sentence": "One moment."}], may_transfer=False, may_end_call=False)["model"]["tools"]
    assert tool["messages"] == [{"type": "request-start", "content": "One moment."}]


def test_our_address_and_its_secret_stand_in_server_and_nowhere_else() -> None:
    for body in (inline(), request_of()["assistantOverrides"]):
        server = body.pop("server")
        assert server["url"] == SERVER.url
        assert server["headers"] == {"X-Vapi-Secret": "hook-secret"}
        assert server["backoffPlan"]["type"] == "exponential"
        assert "hook-secret" not in json.dumps(body)
    assert "hook-secret" not in repr(SERVER)
    assert payload.assistant(words(), server=ServerAddress("http://localhost", ""))["server"]["headers"] == {}


def test_a_call_is_named_after_the_phone_call_and_carries_no_number() -> None:
    body = request_of(n=12, epoch=3)
    assert body["name"] == f"{SID}.12"
    assert body["transport"] == {"provider": "vapi.websocket", "audioFormat": {"format": "mulaw", "container": "raw", "sampleRate": 8000}}
    assert body["assistantOverrides"]["metadata"] == {"call_sid": SID, "epoch": 3, "n": 12}
    assert {"phoneNumber", "phoneNumberId", "customer", "customerId"} & set(body) == set()


def test_wide_sound_is_asked_for_in_the_transport_and_nowhere_else() -> None:
    wide = {"format": "pcm_s16le", "container": "raw", "sampleRate": 16_000}
    assert request_of(sound="wideband")["transport"] == {"provider": "vapi.websocket", "audioFormat": wide}
    assert {**request_of(sound="wideband"), "transport": None} == {**request_of(), "transport": None}


def test_messages_are_chosen_aloud() -> None:
    for body in (inline(), request_of()["assistantOverrides"]):
        assert {"tool-calls", "status-update", "end-of-call-report", 'transcript[transcriptType="final"]'} <= set(body["serverMessages"])
        assert {"speech-update", "user-interrupted", "transcript", "model-output", "status-update"} <= set(body["clientMessages"])


@pytest.mark.parametrize("wrong", [{"assistant_id": ""}, {"inline": {}}, {"call_sid": "CA" + "0" * 40}])
def test_a_call_needs_one_assistant_and_a_name_that_fits(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        request_of(**wrong)


def test_the_same_words_always_make_the_same_payload() -> None:
    assert json.dumps(inline()) == json.dumps(inline())
