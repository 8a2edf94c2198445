"""Nobody waits in silence for an agent that owes them something, and nobody is hurried who only thinks."""

from __future__ import annotations

import pytest

from bridge import vapi_messages as vapi
from bridge.actions import Action, AskForAgent, Leave, TellAgent
from bridge.core import BridgeCore
from tests.bridge.test_core import CLIPS, a_call, agent_is_speaking, noted, played, run_until

ASKS = vapi.PartialHeard("user", "What are your opening hours")


def after_the_greeting() -> BridgeCore:
    """At 1 s the greeting has been heard to its end."""
    core = a_call()
    out = agent_is_speaking(core, ms=800)
    run_until(core, 0.8, out)
    out += core.vapi_said(vapi.AgentStopped(), 0.8)
    run_until(core, 1.0, out)
    core.mark_returned("0:800", 1.0)
    return core


def caller_says(core: BridgeCore, words: str, *, at: float = 2.0, until: float = 3.0) -> list[Action]:
    out = core.vapi_said(vapi.CallerSpoke(), at)
    if words:
        out += core.vapi_said(vapi.PartialHeard("user", words), until - 0.1)
    return out + core.vapi_said(vapi.CallerPaused(), until)


def dead_air_at(core: BridgeCore, until: float, *, after: float = 3.0) -> list[float]:
    """The moments at which it is noted, in tenths of a second."""
    moments, out = [], list[Action]()
    for tenth in range(int(after * 10), int(until * 10) + 1):
        seen = len(noted(out, "dead-air"))
        run_until(core, tenth / 10, out)
        moments += [tenth / 10] * (len(noted(out, "dead-air")) - seen)
    return moments


def test_after_4_s_the_caller_is_asked_for_patience_and_after_8_the_agent_counts_as_lost() -> None:
    core = after_the_greeting()
    caller_says(core, "what are your opening hours")
    out: list[Action] = []
    run_until(core, 6.9, out)
    assert played(out) == b""
    run_until(core, 7.5, out)
    assert played(out) == CLIPS["trouble"].ulaw
    run_until(core, 11.5, out)
    assert AskForAgent("dead air") in out
    out += core.no_other_agent(11.5, raw="dead air")
    run_until(core, 20.0, out)
    assert CLIPS["connecting_colleague"].ulaw in played(out)
    assert out[-1] == Leave("agent-lost", "dead air")
    assert [note.detail["ms"] for note in noted(out, "dead-air")] == [4000, 8000]


def test_an_answer_that_comes_after_the_sentence_is_heard_and_the_call_goes_on() -> None:
    core = after_the_greeting()
    caller_says(core, "what are your opening hours")
    out: list[Action] = []
    run_until(core, 8.0, out)
    out = core.vapi_said(vapi.AgentStarted(), 8.0) + core.agent_audio(b"\x77" * 8000, 8.0) + core.vapi_said(vapi.AgentStopped(), 9.0)
    run_until(core, 40.0, out)
    assert played(out).endswith(b"\x77" * 8000)
    assert not any(isinstance(action, Leave) for action in out)
    assert core.figures()["audio"]["dead_air"] == 1


@pytest.mark.parametrize("words", ["Mm-hm.", "okay thank you", "Hold on, please.", "Let me check that.", "just a second"])
def test_nothing_is_owed_to_a_caller_who_hums_or_wants_time(words: str) -> None:
    core = after_the_greeting()
    caller_says(core, words)
    assert dead_air_at(core, 30.0) == []


def cut_off(core: BridgeCore, *, words: str = "") -> None:
    """From 2 s on the agent speaks; at 3 s the vendor takes a noise for an interruption, and tells no end of it."""
    core.vapi_said(vapi.AgentStarted(), 2.0)
    core.agent_audio(b"\x77" * 16000, 2.0)
    core.vapi_said(vapi.CallerSpoke(), 3.0)
    if words:
        core.vapi_said(vapi.PartialHeard("user", words), 3.2)
    core.vapi_said(vapi.CallerInterrupted(), 3.3)
    core.vapi_said(vapi.AgentStopped(), 3.4)


def test_who_cut_the_agent_off_and_says_nothing_is_not_waited_for_for_ever() -> None:
    core = after_the_greeting()
    cut_off(core)
    assert dead_air_at(core, 20.0) == [7.3, 11.3]


def test_who_cut_the_agent_off_with_words_is_answered_as_ever() -> None:
    core = after_the_greeting()
    cut_off(core, words="no that is not it")
    core.vapi_said(vapi.PartialHeard("user", "no that is not it I mean"), 5.0)
    core.vapi_said(vapi.CallerPaused(), 6.0)
    assert dead_air_at(core, 9.9) == []
    assert dead_air_at(core, 20.0, after=9.9) == [10.0, 14.0]


def test_an_agent_that_goes_on_after_it_was_cut_owes_nothing() -> None:
    core = after_the_greeting()
    cut_off(core)
    core.vapi_said(vapi.AgentStarted(), 5.0)
    core.agent_audio(b"\x77" * 8000, 5.0)
    core.vapi_said(vapi.AgentStopped(), 6.0)
    assert dead_air_at(core, 60.0) == []


def test_a_sentence_of_which_no_more_comes_is_over_although_nobody_says_so() -> None:
    core = after_the_greeting()
    core.vapi_said(vapi.CallerSpoke(), 2.0)
    core.vapi_said(vapi.PartialHeard("user", "what are"), 2.5)
    core.vapi_said(vapi.PartialHeard("user", "what are your opening"), 3.0)
    assert dead_air_at(core, 20.0) == [7.0, 11.0]


@pytest.mark.parametrize("words", ["", "hold on", "mhm"])
def test_a_caller_who_is_said_to_speak_and_says_nothing_is_noise_still(words: str) -> None:
    core = after_the_greeting()
    core.vapi_said(vapi.CallerSpoke(), 2.0)
    if words:
        core.vapi_said(vapi.PartialHeard("user", words), 2.5)
    assert dead_air_at(core, 60.0) == []


def test_a_caller_who_was_asked_may_think_as_long_as_they_like() -> None:
    assert dead_air_at(after_the_greeting(), 60.0) == []


def test_a_caller_who_asks_whether_anybody_is_there_does_not_wait_anew() -> None:
    core = after_the_greeting()
    caller_says(core, "what are your opening hours")
    out: list[Action] = []
    run_until(core, 6.0, out)
    caller_says(core, "hello", at=6.0, until=6.5)
    assert dead_air_at(core, 20.0, after=6.5) == [7.5, 11.5]


def test_breaths_between_two_words_are_no_wait() -> None:
    core, out = after_the_greeting(), list[Action]()
    for second in range(2, 12):
        run_until(core, second, out)
        out += caller_says(core, "and then I", at=second, until=second + 0.4)
    assert noted(out, "dead-air") == []


@pytest.mark.parametrize(("asked", "lost"), [(3.5, 11.0), (8.0, 13.0)], ids=["at once", "late"])
def test_who_waits_for_a_tool_hears_a_sentence_as_soon_as_anybody_and_a_tool_has_its_time(asked: float, lost: float) -> None:
    core = after_the_greeting()
    caller_says(core, "my address is alex at example dot com")
    told = dead_air_at(core, asked)
    core.vapi_said(vapi.ToolsCalled(), asked)
    assert told + dead_air_at(core, 30.0, after=asked + 0.1) == [7.0, lost]


def test_a_waiting_sentence_is_no_answer() -> None:
    core = after_the_greeting()
    caller_says(core, "my address is alex at example dot com")
    core.vapi_said(vapi.ToolsCalled(), 3.5)
    core.vapi_said(vapi.WordsSpoken("force-say", {}), 3.6)
    core.vapi_said(vapi.AgentStarted(), 3.6)
    core.agent_audio(b"\x77" * 7920, 3.6)
    run_until(core, 4.6, [])
    core.vapi_said(vapi.AgentStopped(), 4.6)
    assert dead_air_at(core, 30.0, after=4.6) == [8.6, 12.6]


def test_the_answer_to_a_tool_pays_the_debt_although_the_tool_still_had_time() -> None:
    core = after_the_greeting()
    caller_says(core, "my address is alex at example dot com")
    core.vapi_said(vapi.ToolsCalled(), 3.5)
    core.vapi_said(vapi.WordsSpoken("model", {}), 4.0)
    core.vapi_said(vapi.AgentStarted(), 4.0)
    core.agent_audio(b"\x77" * 8000, 4.0)
    core.vapi_said(vapi.AgentStopped(), 5.0)
    assert dead_air_at(core, 30.0, after=5.0) == []


def test_an_agent_that_stops_in_the_middle_of_a_word_owes_the_rest() -> None:
    core = after_the_greeting()
    caller_says(core, "what are your opening hours")
    agent_is_speaking(core, ms=1000, at=4.0)
    assert dead_air_at(core, 30.0, after=4.0) == [9.0, 13.0]


def test_a_vendor_that_never_told_the_end_of_a_turn_owes_no_rest_but_what_it_is_asked() -> None:
    core, out = a_call(), list[Action]()
    agent_is_speaking(core, ms=800)
    run_until(core, 3.7, out)
    assert TellAgent(vapi.not_heard()) not in out
    run_until(core, 3.9, out)
    assert out.count(TellAgent(vapi.not_heard())) == 1
    assert dead_air_at(core, 30.0, after=3.9) == [4.8, 8.8]


def test_an_agent_whose_messages_come_without_a_voice_pays_nothing_by_them() -> None:
    core = after_the_greeting()
    caller_says(core, "what are your opening hours")
    core.vapi_said(vapi.AgentStarted(), 4.0)
    core.vapi_said(vapi.AgentStopped(), 6.0)
    assert dead_air_at(core, 30.0, after=6.0) == [7.0, 11.0]


def test_a_caller_on_the_way_to_a_person_is_not_told_to_hold() -> None:
    core = after_the_greeting()
    caller_says(core, "I want to talk to a person")
    out = core.leave_after_last_word("handed-over", 3.1)
    run_until(core, 30.0, out)
    assert noted(out, "dead-air") == []
    assert out[-1] == Leave("handed-over")


def test_who_waits_for_nothing_hears_once_that_vapi_cannot_be_reached() -> None:
    core = after_the_greeting()
    out = core.agent_unreachable(5.0)
    assert played(out) == CLIPS["trouble"].ulaw
    for second in (6.0, 7.0, 8.0):
        run_until(core, second, out)
        assert core.agent_unreachable(second) == []
    core.vapi_said(vapi.CallerSpoke(), 9.0)
    run_until(core, 13.0, [])
    assert played(core.agent_unreachable(13.0)) == CLIPS["trouble"].ulaw


def test_whoever_waits_for_an_answer_hears_one_sentence_of_it_and_has_another_agent_at_8_s() -> None:
    core = after_the_greeting()
    caller_says(core, "what are your opening hours")
    out = core.agent_unreachable(6.5)
    assert noted(out, "dead-air")[0].detail == {"unreachable": True}
    assert dead_air_at(core, 20.0, after=6.6) == [11.0]


def test_whoever_hears_an_agent_break_off_in_the_middle_is_told_too() -> None:
    core = a_call()
    agent_is_speaking(core, ms=1010)
    out: list[Action] = []
    run_until(core, 4.0, out)
    assert CLIPS["trouble"].ulaw in played(core.agent_unreachable(4.0))


def test_while_the_agent_is_still_heard_nobody_is_told_that_vapi_cannot_be_reached() -> None:
    core = a_call()
    agent_is_speaking(core, ms=4000)
    assert core.agent_unreachable(2.0) == []
