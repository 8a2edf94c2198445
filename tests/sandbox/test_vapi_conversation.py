"""The conversation of the sandbox Vapi, held in virtual time over an in-memory socket."""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import time

import pytest

from bridge.sandbox import script, sound
from bridge.sandbox.clips import CLIPS
from bridge.sandbox.ear import Final
from bridge.sandbox.memory import MemoryLink
from bridge.sandbox.script import Agent, Caller, End, Heard, Press, Say, Scenario, Speak, Start, Step
from bridge.sandbox.turns import CHUNKS, Faults, Message
from tests.sandbox import talks
from tests.sandbox.talks import ASSISTANT, Held, PhoneLine, hold, spoken


def test_the_techflow_call_is_held_from_greeting_to_goodbye() -> None:
    held = hold(script.TECHFLOW)
    assert held.reason == "assistant-ended-call"
    assert spoken(held, "user") == [CLIPS[name].text for name in ("cannot_log_in", "already_tried", "email_is_alex", "thanks_goodbye")]
    heard = [(final.clip_name, final.complete) for final in held.line.heard]
    assert heard == [("greeting", True), ("reset_steps", False), ("ask_email", True), ("account_locked", True), ("goodbye", True)]
    [tool] = [hook for hook in held.hooks if hook["type"] == "tool-calls"]
    assert tool["toolCallList"][0]["function"] == {"name": "get_user_account", "arguments": {"email": "alex@example.com"}}
    assert held.line.caller.done
    assert held.close_code == 1000


def test_the_agent_speaks_half_a_second_after_connect_and_waits_its_turn() -> None:
    held = hold(script.PLAIN)
    first = held.evidence.chunks[0][0] - held.evidence.entries[0].at
    assert first == pytest.approx(0.55, abs=0.06)
    question_ended = held.evidence.understood[0].at
    answer = min(at for at, _ in held.evidence.chunks if at > question_ended)
    assert answer - question_ended == pytest.approx(0.4, abs=0.06)


def test_audio_comes_in_the_measured_sizes_in_real_time_and_never_between_turns() -> None:
    held = hold(script.PLAIN)
    assert {size for _, size in held.evidence.chunks} <= set(CHUNKS)
    assert 160 not in CHUNKS
    gaps = [later - at for (at, _), (later, _) in itertools.pairwise(held.evidence.chunks)]
    inside = [gap for gap in gaps if gap < 0.3]
    assert max(inside) <= 0.1035
    assert min(inside) < 0.03
    assert statistics.median(inside) == pytest.approx(0.048, abs=0.006)
    greeting = [size for at, size in held.evidence.chunks if at < held.evidence.chunks[0][0] + CLIPS["greeting"].ms / 1000]
    assert sum(greeting) == pytest.approx(len(CLIPS["greeting"].ulaw), abs=800)
    assert bytes(held.evidence.downlink[: len(CLIPS["greeting"].ulaw)]) == CLIPS["greeting"].ulaw
    assert max(gaps) > 1.0


def test_an_interruption_is_told_at_once_then_confirmed_and_no_more_audio_comes() -> None:
    held = hold(script.TECHFLOW)
    out = [entry for entry in held.evidence.entries if entry.way == "out"]
    confirmed = next(entry for entry in out if entry.kind == "user-interrupted")
    noticed = next(
        entry for entry in reversed(out[: out.index(confirmed)]) if entry.kind == "speech-update" and entry.detail["role"] == "user"
    )
    assert 0.1 <= confirmed.at - noticed.at <= 0.2
    stopped = out[out.index(confirmed) + 1]
    assert (stopped.kind, stopped.detail["role"], stopped.detail["status"]) == ("speech-update", "assistant", "stopped")
    assert stopped.at == confirmed.at
    assert min(at for at, _ in held.evidence.chunks if at > confirmed.at) - confirmed.at >= 1.0
    reset = next(text for text in spoken(held, "assistant") if text.startswith("No problem."))
    assert reset != CLIPS["reset_steps"].text
    assert CLIPS["reset_steps"].text.startswith(reset)


def test_after_an_interruption_the_agent_holds_back_as_long_as_it_was_told() -> None:
    held = hold(script.TECHFLOW, assistant=ASSISTANT | {"stopSpeakingPlan": {"backoffSeconds": 5}})
    confirmed = next(entry.at for entry in held.evidence.entries if entry.kind == "user-interrupted")
    assert min(at for at, _ in held.evidence.chunks if at > confirmed) - confirmed == pytest.approx(5.0, abs=0.06)


def test_an_agent_about_to_answer_waits_while_the_caller_speaks() -> None:
    async def talkative(line: PhoneLine) -> None:
        await asyncio.sleep(6)
        line.say(CLIPS["ask_hours"].ulaw + sound.silence(500) + CLIPS["mm_hm"].ulaw)

    held = hold(script.PLAIN, steps=(), meanwhile=talkative, assistant=ASSISTANT | {"maxDurationSeconds": 20})
    question, murmur = held.evidence.understood
    answer = min(at for at, _ in held.evidence.chunks if at > question.at)
    assert answer >= murmur.at
    assert held.turns.interruptions == 0


def test_partial_words_reach_the_socket_before_the_whole_line() -> None:
    held = hold(script.TECHFLOW)
    lines = [text for text in held.line.texts if text["type"] == "transcript" and text["role"] == "user"]
    tried = [text["transcript"] for text in lines if text["transcript"].startswith("I ")]
    assert "I already" in tried[:-1]
    assert tried[-1] == "I already tried that"
    assert [text["transcriptType"] for text in lines if text["transcript"] == "I already tried that"] == ["final"]


def test_three_interruptions_are_three_flushes() -> None:
    held = hold(script.THREE_BARGE_INS)
    assert held.turns.interruptions == 3
    assert held.reason == "assistant-ended-call"


def test_a_protected_greeting_is_spoken_to_its_end() -> None:
    steps = (Step(Start(1.5), Say("already_tried")),)
    protected = hold(script.PLAIN, assistant=ASSISTANT | {"firstMessageInterruptionsEnabled": False, "maxDurationSeconds": 12}, steps=steps)
    assert protected.turns.interruptions == 0
    assert (protected.line.heard[0].clip_name, protected.line.heard[0].complete) == ("greeting", True)
    open_to_it = hold(script.PLAIN, assistant=ASSISTANT | {"maxDurationSeconds": 12}, steps=steps)
    assert open_to_it.turns.interruptions == 1
    assert not open_to_it.line.heard[0].complete


def test_words_can_be_asked_for_before_an_interruption_counts() -> None:
    by_voice = hold(script.TECHFLOW)
    by_words = hold(script.TECHFLOW, assistant=ASSISTANT | {"stopSpeakingPlan": {"numWords": 3}})

    def overlap_s(held: Held) -> float:
        confirmed = next(entry.at for entry in held.evidence.entries if entry.kind == "user-interrupted")
        return confirmed - held.evidence.understood[1].started_at

    assert overlap_s(by_voice) < 0.35 < 0.6 < overlap_s(by_words)


@pytest.mark.parametrize("result", ["The account service did not answer.", "", None])
def test_the_agent_answers_from_the_tools_result_and_not_from_the_script(result: str | None) -> None:
    steps = (*script.TECHFLOW.caller[:3], Step(Heard("tool_failed"), Say("thanks_goodbye")))
    held = hold(script.TECHFLOW, steps=steps, result=result)
    assert CLIPS["tool_failed"].text in spoken(held, "assistant")
    assert CLIPS["account_locked"].text not in spoken(held, "assistant")


def test_a_tool_the_assistant_does_not_have_is_not_called() -> None:
    toolless = ASSISTANT | {"model": {"provider": "openai", "model": "gpt-4.1"}, "maxDurationSeconds": 40}
    held = hold(script.TECHFLOW, assistant=toolless)
    assert [hook for hook in held.hooks if hook["type"] == "tool-calls"] == []
    assert "no-such-tool" in held.evidence.kinds("trouble")


def test_a_dead_uplink_leaves_the_agent_alone_with_its_greeting() -> None:
    held = hold(script.TECHFLOW, faults=Faults(deaf=True), assistant=ASSISTANT | {"maxDurationSeconds": 30})
    assert held.reason == "exceeded-max-duration"
    assert spoken(held, "user") == []
    assert spoken(held, "assistant") == [CLIPS["greeting"].text]


def test_swapped_directions_are_not_understood() -> None:
    """The agent's own voice comes back on the uplink instead of the caller's."""

    async def echo(line: PhoneLine) -> None:
        line.say(CLIPS["reset_steps"].ulaw)

    held = hold(script.TECHFLOW, steps=(), meanwhile=echo, assistant=ASSISTANT | {"maxDurationSeconds": 40})
    assert spoken(held, "user") == []
    assert {final.clip_name for final in held.evidence.understood} == {None}


def test_silence_ends_a_call_only_when_the_assistant_says_so() -> None:
    held = hold(script.TECHFLOW, steps=(), assistant=ASSISTANT | {"silenceTimeoutSeconds": 10})
    assert held.reason == "silence-timed-out"
    assert held.lasted_s == pytest.approx(0.55 + CLIPS["greeting"].ms / 1000 + 10 + 1, abs=0.5)


def test_caller_sound_that_comes_all_at_once_does_not_make_the_agent_stammer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one call after the other takes in all that a silent network kept back, and meanwhile nobody's agent gets a word out."""
    links: list[CountingLink] = []

    class CountingLink(MemoryLink):
        taken = 0

        async def receive(self) -> bytes | str | None:
            if self not in links:
                links.append(self)
            message = await super().receive()
            self.taken += 1
            return message

    at_once: list[int] = []

    async def burst(line: PhoneLine) -> None:
        await asyncio.sleep(2)
        for _ in range(200):
            line.client.send(sound.SILENT_FRAME)
        began = before = links[0].taken
        while links[0].taken < began + 200:
            await asyncio.sleep(0)
            at_once.append(links[0].taken - before)
            before = links[0].taken

    monkeypatch.setattr(talks, "MemoryLink", CountingLink)
    hold(script.PLAIN, meanwhile=burst)
    assert sum(at_once) >= 200
    assert max(at_once) <= 5


WAITS: Message = {"firstMessageMode": "assistant-waits-for-user"}
QUESTION = (Step(Start(2.0), Say("ask_hours")), Step(Heard("opening_hours"), Say("no_thanks")))


def test_an_agent_that_waits_for_the_caller_says_nothing_first() -> None:
    held = hold(script.PLAIN, assistant=ASSISTANT | WAITS | {"firstMessage": ""}, steps=QUESTION)
    assert [final.clip_name for final in held.line.heard] == ["opening_hours", "goodbye"]


def test_fixed_first_words_of_a_waiting_agent_are_its_answer_whatever_was_asked() -> None:
    held = hold(script.PLAIN, assistant=ASSISTANT | WAITS | {"maxDurationSeconds": 15}, steps=QUESTION)
    assert [final.clip_name for final in held.line.heard] == ["greeting"]


def test_control_messages_speak_mute_and_end() -> None:
    async def supervisor(line: PhoneLine) -> None:
        await asyncio.sleep(6)
        line.client.send(json.dumps({"type": "control", "control": "mute-assistant"}))
        line.client.send(json.dumps({"type": "say", "content": CLIPS["say_again"].text}))
        await asyncio.sleep(6)
        line.client.send(json.dumps({"type": "control", "control": "unmute-assistant"}))
        line.client.send(json.dumps({"type": "say", "content": CLIPS["one_moment"].text, "endCallAfterSpoken": True}))
        await asyncio.sleep(60)

    held = hold(script.TECHFLOW, steps=(), meanwhile=supervisor, assistant=ASSISTANT | {"endCallMessage": "Not after this."})
    assert held.reason == "assistant-ended-call-after-message-spoken"
    assert [final.clip_name for final in held.line.heard] == ["greeting", "one_moment"]


def test_an_end_call_message_ends_the_call_and_the_report_follows_a_second_later() -> None:
    async def bridge(line: PhoneLine) -> None:
        await asyncio.sleep(2)
        line.client.send(json.dumps({"type": "end-call"}))

    held = hold(script.TECHFLOW, meanwhile=bridge)
    assert held.reason == "customer-ended-call"
    assert held.line.texts[-1] == {"type": "status-update", "status": "ended", "endedReason": "customer-ended-call"}
    hooks = [entry for entry in held.evidence.entries if entry.way == "hook"]
    assert hooks[-1].kind == "end-of-call-report"
    assert hooks[-1].at - hooks[-2].at == pytest.approx(1.0, abs=0.05)
    assert held.lasted_s == pytest.approx(3.1, abs=0.1)


@pytest.mark.parametrize("text", ['{"type": "ping"}', "not json", '{"type": "say"}', "[]"])
def test_an_unknown_text_closes_the_socket(text: str) -> None:
    async def wrong(line: PhoneLine) -> None:
        await asyncio.sleep(1)
        line.client.send(text)

    held = hold(script.TECHFLOW, meanwhile=wrong)
    assert held.close_code == 1005
    assert "unknown-text" in held.evidence.kinds("trouble")


def test_a_broken_socket_mid_call_is_a_fault_of_the_vendor() -> None:
    held = hold(script.TECHFLOW, faults=Faults(close_after_s=3.0, close_code=1011))
    assert held.close_code == 1011
    assert held.reason.startswith("call.in-progress.error-vapifault")


def test_a_mute_agent_tells_everything_and_says_nothing() -> None:
    held = hold(script.TECHFLOW, faults=Faults(mute=True), assistant=ASSISTANT | {"maxDurationSeconds": 20})
    assert held.evidence.downlink == b""
    assert spoken(held, "assistant") == [CLIPS["greeting"].text]


def test_only_the_messages_the_assistant_asked_for_are_sent() -> None:
    held = hold(script.PLAIN, assistant=ASSISTANT | {"clientMessages": ["user-interrupted"], "serverMessages": []})
    assert {text["type"] for text in held.line.texts} == {"status-update"}
    assert held.hooks == []


def test_the_same_seed_gives_the_same_call() -> None:
    first, second = hold(script.PLAIN), hold(script.PLAIN)
    assert first.evidence.chunks == second.evidence.chunks
    assert first.line.texts == second.line.texts


def test_ten_minutes_pass_in_a_moment() -> None:
    started = time.process_time()
    held = hold(script.TEN_MINUTES, assistant=ASSISTANT | {"maxDurationSeconds": 1800})
    assert held.reason == "assistant-ended-call"
    assert held.lasted_s > 600
    assert len(held.evidence.uplink) > 600 * 8000
    assert time.process_time() - started < 8


# ---- the script


def test_the_agent_asks_twice_and_then_no_more() -> None:
    agent = Agent(script.TECHFLOW)
    unknown = Final(None, "", 1.0, 0.0, 0.9, 0.0)
    assert [agent.answer(unknown) for _ in range(3)] == [(Speak("say_again"),), (Speak("say_again"),), ()]


def test_answers_to_the_same_words_are_used_in_order() -> None:
    scenario = Scenario("two", (), answers={"ask_hours": ((Speak("opening_hours"),), (Speak("goodbye"), End()))})
    agent = Agent(scenario)
    heard = Final("ask_hours", CLIPS["ask_hours"].text, 1.0, 0.0, 0.9, 1.0)
    assert [agent.answer(heard) for _ in range(3)] == [(Speak("opening_hours"),), (Speak("goodbye"), End()), (Speak("goodbye"), End())]


def test_a_caller_waits_for_each_moment_in_turn() -> None:
    caller = Caller((Step(Start(1.0), Press("1")), Step(Heard("greeting", then_s=0.5), Say("ask_hours"))))
    caller.connected(10.0)
    assert caller.deeds(10.9) == []
    assert caller.deeds(11.0) == [Press("1")]
    assert caller.next_deadline() is None
    caller.heard(Final("goodbye", "", 12.0, 11.0, 11.9, 1.0))
    assert caller.next_deadline() is None
    caller.heard(Final("greeting", "", 15.0, 12.0, 14.7, 1.0))
    assert caller.next_deadline() == pytest.approx(15.2)
    assert caller.deeds(15.2) == [Say("ask_hours")]
    assert caller.done
