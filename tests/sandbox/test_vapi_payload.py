"""The sandbox Vapi acts from the assistant it was given: greeting, tools, phrases, plans, variables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bridge.sandbox import dto, liquid, script
from bridge.sandbox.checking import problems
from bridge.sandbox.clips import CLIPS
from bridge.sandbox.mouth import MS_PER_LETTER
from bridge.sandbox.plan import Plan
from bridge.sandbox.script import Heard, Say, Start, Step
from bridge.sandbox.turns import Message
from tests.sandbox.talks import ASSISTANT, NOON, TOOL, Held, hold, spoken

WIRE = Path(__file__).parents[1] / "wire" / "vapi"
MODEL: Message = ASSISTANT["model"]
TO_THE_TOOL = (*script.TECHFLOW.caller[:3], Step(Heard("account_locked"), Say("thanks_goodbye")))


def with_tool(*messages: Message, **fields: object) -> Message:
    return ASSISTANT | {"model": MODEL | {"tools": [{**TOOL, "messages": list(messages), **fields}]}, "maxDurationSeconds": 40}


def said(held: Held) -> list[str]:
    return spoken(held, "assistant")


def moment(held: Held, way: str, kind: str, **fields: object) -> float:
    """When the first such message passed."""
    entries = (entry for entry in held.evidence.entries if (entry.way, entry.kind) == (way, kind))
    return next(entry.at for entry in entries if fields.items() <= entry.detail.items())


@pytest.mark.parametrize("sample", sorted((WIRE / "rest").glob("*.request.json")), ids=lambda path: path.name)
def test_every_request_of_the_wire_samples_is_taken_except_for_other_routes(sample: Path) -> None:
    body = json.loads(sample.read_text())
    check = {"call.create": dto.CALL, "call.update": dto.CALL_UPDATE}
    kind = ".".join(sample.name.split(".")[:2])
    wrong = problems(check.get(kind, dto.ASSISTANT), body)
    bypassing = ["property phoneCallProviderBypassEnabled should not exist"] if "bypass" in sample.name else []
    assert wrong == bypassing


def test_a_greeting_nobody_recorded_is_spoken_all_the_same_and_takes_its_time() -> None:
    held = hold(script.PLAIN, assistant=ASSISTANT | {"firstMessage": "Welcome to Acme.", "maxDurationSeconds": 10}, steps=())
    assert said(held) == ["Welcome to Acme."]
    assert len(held.evidence.downlink) == pytest.approx(len("Welcome to Acme.") * MS_PER_LETTER * 8, abs=800)
    assert held.line.heard[0].clip_name is None


def test_a_greeting_left_to_the_model_is_the_scenarios() -> None:
    own_words = {"firstMessage": "Never said.", "firstMessageMode": "assistant-speaks-first-with-model-generated-message"}
    held = hold(script.PLAIN, assistant=ASSISTANT | own_words | {"maxDurationSeconds": 10}, steps=())
    assert said(held) == [CLIPS["greeting"].text]


def test_variables_are_filled_in_with_the_ones_that_are_always_there() -> None:
    text = '{{plan}} {{ a.b }}{{nobody}}|{{date}}|{{"now" | date: "%H:%M", "Europe/Paris"}}|{{nobody | default: "you"}}|{{plan | upcase}}'
    rendered = liquid.render(text, {"plan": "pro", "a": {"b": 7}}, NOON)
    assert rendered == "pro 7|Jan 15, 2027|13:00|you|PRO"
    held = hold(script.PLAIN, assistant=ASSISTANT | {"firstMessage": "You have {{plan}}.", "maxDurationSeconds": 10}, steps=())
    assert said(held) == ["You have pro."]


def test_the_instructions_open_the_conversation_with_their_variables_filled_in() -> None:
    prompt = MODEL | {"messages": [{"role": "system", "content": "Plan: {{plan}}."}]}
    held = hold(script.PLAIN, assistant=ASSISTANT | {"model": prompt})
    assert (held.turns.conversation.messages[0]["role"], held.turns.conversation.messages[0]["message"]) == ("system", "Plan: pro.")


def test_a_waiting_sentence_is_spoken_while_the_tool_works() -> None:
    waiting = {"type": "request-start", "content": CLIPS["one_moment"].text}
    held = hold(script.TECHFLOW, assistant=with_tool(waiting), steps=TO_THE_TOOL, tool_takes_s=1.0)
    assert said(held)[-3:] == [CLIPS[name].text for name in ("one_moment", "account_locked", "goodbye")]
    assert moment(held, "hook", "tool-calls") == moment(held, "out", "voice-input", input=CLIPS["one_moment"].text)
    blocking = hold(script.TECHFLOW, assistant=with_tool(waiting | {"blocking": True}), steps=TO_THE_TOOL)
    assert moment(blocking, "hook", "tool-calls") == moment(blocking, "hook", "transcript", transcript=CLIPS["one_moment"].text)


def test_a_tools_own_words_are_spoken_when_it_is_late_and_when_it_fails() -> None:
    late = {"type": "request-response-delayed", "content": CLIPS["say_again"].text, "timingMilliseconds": 500}
    failed = {"type": "request-failed", "content": CLIPS["goodbye_sorry"].text}
    held = hold(script.TECHFLOW, assistant=with_tool(late, failed), steps=TO_THE_TOOL[:3], tool_takes_s=2.0, result="")
    assert said(held)[-2:] == [CLIPS["say_again"].text, CLIPS["goodbye_sorry"].text]


def test_words_in_the_tools_answer_are_spoken_instead_of_the_agents_own() -> None:
    own = {"message": {"type": "request-complete", "content": CLIPS["connecting_colleague"].text}}
    held = hold(script.TECHFLOW, assistant=with_tool(), steps=TO_THE_TOOL[:3], answer=own)
    assert said(held)[-1] == CLIPS["connecting_colleague"].text


def test_an_async_tool_is_not_waited_for() -> None:
    held = hold(script.TECHFLOW, assistant=with_tool(**{"async": True}), steps=TO_THE_TOOL[:3], tool_takes_s=20.0)
    assert said(held)[-1] == CLIPS["tool_failed"].text  # nothing came back that says otherwise
    assert [hook["type"] for hook in held.hooks].count("tool-calls") == 1


def test_an_end_call_phrase_of_the_agent_ends_the_call_and_the_callers_does_not() -> None:
    phrases = {"endCallPhrases": ["goodbye"]}
    assert hold(script.PLAIN, assistant=ASSISTANT | phrases).reason == "assistant-said-end-call-phrase"
    caller_only = {"endCallPhrases": ["that is all"], "maxDurationSeconds": 60}
    assert hold(script.PLAIN, assistant=ASSISTANT | caller_only).reason == "assistant-ended-call"


def test_an_end_call_message_is_the_agents_last_words() -> None:
    assert said(hold(script.PLAIN))[-1] == CLIPS["goodbye"].text
    held = hold(script.PLAIN, assistant=ASSISTANT | {"endCallMessage": CLIPS["goodbye_sorry"].text})
    assert said(held)[-2:] == [CLIPS["opening_hours"].text, CLIPS["goodbye_sorry"].text]
    assert held.reason == "assistant-ended-call"


def test_backchannel_never_interrupts_when_words_are_counted_and_a_stop_word_always_does() -> None:
    plan = {"numWords": 1, "acknowledgementPhrases": ["Mm-hm"], "interruptionPhrases": ["wait"]}
    counted = ASSISTANT | {"stopSpeakingPlan": plan, "maxDurationSeconds": 14}
    murmur = hold(script.PLAIN, assistant=counted, steps=(Step(Start(1.5), Say("mm_hm")),))
    assert murmur.turns.interruptions == 0
    patient = ASSISTANT | {"stopSpeakingPlan": plan | {"numWords": 10}, "maxDurationSeconds": 14}
    assert hold(script.PLAIN, assistant=patient, steps=(Step(Start(1.5), Say("wait_please")),)).turns.interruptions == 1
    assert hold(script.PLAIN, assistant=patient, steps=(Step(Start(1.5), Say("already_tried")),)).turns.interruptions == 0


def test_phrases_are_compared_by_their_words_alone() -> None:
    plan = Plan.of(ASSISTANT | {"endCallPhrases": ["Good-bye!", ""], "stopSpeakingPlan": {"interruptionPhrases": ["Hold on"]}})
    assert plan.ended_by("Well: GOOD-BYE.")
    assert not plan.ended_by("goodbyes")
    assert plan.interrupted_by("oh, hold on please")
    assert not plan.interrupted_by("behold onions")
