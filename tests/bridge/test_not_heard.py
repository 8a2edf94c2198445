"""A caller who was not understood, or spoke while the line was gone, is asked to say it again; nobody else is."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bridge import vapi_messages as vapi
from bridge.actions import Action, AskForAgent, TellAgent
from bridge.core import BridgeCore
from bridge.not_heard import NotHeard
from bridge.rules import Rules
from tests.bridge.test_core import CLIPS, agent_is_speaking, noted, played, run_until
from tests.bridge.test_dead_air import after_the_greeting, caller_says
from tests.bridge.test_parked_core import taken_up

ASKS = TellAgent(vapi.not_heard())


def asked_at(core: BridgeCore, until: float, *, after: float = 3.0) -> list[float]:
    """The moments at which the agent is told to ask, in tenths of a second."""
    moments, out = [], list[Action]()
    for tenth in range(int(after * 10), int(until * 10) + 1):
        before = out.count(ASKS)
        run_until(core, tenth / 10, out)
        moments += [tenth / 10] * (out.count(ASKS) - before)
    return moments


def agent_says(core: BridgeCore, *, at: float, ms: int = 400) -> None:
    agent_is_speaking(core, ms=ms, at=at)
    core.vapi_said(vapi.AgentStopped(), at)


def back_after_a_gap(before: BridgeCore, *, lost_at: float = 2.0, back_at: float = 4.0) -> BridgeCore:
    before.stream_lost("stream-lost", lost_at)
    return taken_up(before, back_at, [])


def test_who_speaks_and_is_not_understood_is_asked_after_3_s_of_silence() -> None:
    core = after_the_greeting()
    caller_says(core, "")
    assert asked_at(core, 9.0) == [6.0]


@pytest.mark.parametrize("words", ["mhm", "okay thank you", "what are your opening hours"])
def test_who_was_understood_is_not_asked(words: str) -> None:
    core = after_the_greeting()
    caller_says(core, words)
    assert asked_at(core, 6.9) == []


def test_words_that_come_after_the_pause_were_understood_too() -> None:
    core = after_the_greeting()
    caller_says(core, "")
    core.vapi_said(vapi.FinalHeard("user", "Yes."), 3.5)
    assert asked_at(core, 9.0) == []


def test_a_short_noise_is_nothing_anybody_said() -> None:
    core = after_the_greeting()
    caller_says(core, "", until=2.5)
    assert asked_at(core, 9.0) == []


def test_an_agent_that_answers_all_the_same_need_not_ask() -> None:
    core = after_the_greeting()
    caller_says(core, "")
    agent_says(core, at=4.0)
    assert asked_at(core, 9.0, after=4.0) == []


def test_a_noisy_line_is_asked_once_until_somebody_is_understood() -> None:
    core = after_the_greeting()
    caller_says(core, "")
    assert asked_at(core, 6.0) == [6.0]
    caller_says(core, "", at=6.5, until=7.5)
    assert asked_at(core, 9.9, after=7.5) == []
    caller_says(core, "no", at=9.9, until=9.95)
    agent_says(core, at=10.0)
    caller_says(core, "", at=11.0, until=12.0)
    assert asked_at(core, 15.0, after=12.0) == [15.0]


def test_an_agent_that_was_asked_owes_it() -> None:
    core = after_the_greeting()
    caller_says(core, "")
    out: list[Action] = []
    run_until(core, 9.9, out)
    assert [note.kind for note in noted(out, "caller-asked-to-repeat")] == ["caller-asked-to-repeat"]
    assert played(out) == b""
    run_until(core, 10.5, out)
    assert played(out) == CLIPS["trouble"].ulaw
    run_until(core, 14.5, out)
    assert AskForAgent("dead air") in out


def test_who_is_said_to_speak_for_ever_and_not_understood_is_asked_too() -> None:
    """On a line on which words are told as they are said: else somebody may just speak for long."""
    core = after_the_greeting()
    core.vapi_said(vapi.CallerSpoke(), 2.0)
    assert asked_at(core, 9.0) == []
    caller_says(core, "what are your opening hours", at=9.1, until=10.0)
    agent_says(core, at=10.5)
    core.vapi_said(vapi.CallerSpoke(), 12.0)
    assert asked_at(core, 20.0, after=12.0) == [pytest.approx(15.8, abs=0.11)]


def test_a_webhook_that_tells_of_speech_after_the_socket_told_of_its_end_is_old_news() -> None:
    core = after_the_greeting()
    caller_says(core, "", at=2.0, until=2.9)
    assert core.speech_hinted(3.0) == []
    assert asked_at(core, 9.0) == [5.9]
    assert noted(core.speech_hinted(10.0), "user-speech-started")


def test_a_second_gap_is_asked_about_too() -> None:
    once = back_after_a_gap(after_the_greeting())
    assert asked_at(once, 6.0, after=4.0) == [6.0]
    agent_says(once, at=6.5)
    run_until(once, 7.0, [])
    again = back_after_a_gap(once, lost_at=7.0, back_at=9.0)
    (moment,) = asked_at(again, 12.0, after=9.0)
    assert moment == pytest.approx(11.0, abs=0.3)  # no mark has proven that all of it was heard


def confirming() -> BridgeCore:
    """After the greeting, where the agent is cut off only when Vapi says that it was interrupted."""
    core = BridgeCore(Rules(instant=False), clips=CLIPS, now=0.0)
    core.agent_connected(0.0)
    agent_says(core, at=0.0)
    run_until(core, 1.0, [])
    return core


def test_what_begins_while_the_agent_is_heard_may_be_its_echo() -> None:
    core = confirming()
    agent_says(core, at=2.0, ms=3000)
    core.vapi_said(vapi.CallerSpoke(), 2.5)
    run_until(core, 5.6, [])
    core.vapi_said(vapi.CallerPaused(), 5.6)
    assert asked_at(core, 12.0, after=5.6) == []


def test_nobody_is_asked_while_the_agent_is_still_heard() -> None:
    waits = NotHeard(Rules())
    waits.caller_spoke(2.0, heard_until=0.0)
    waits.caller_paused(3.0)
    assert waits.at == 6.0
    assert not waits.check(6.0, heard_until=8.0, is_owed=False)
    assert waits.at == 11.0
    assert waits.check(11.0, heard_until=11.0, is_owed=False)


def test_what_was_cut_is_no_echo_of_what_nobody_hears_any_more() -> None:
    waits = NotHeard(Rules())
    waits.caller_spoke(2.0, heard_until=4.5)
    waits.agent_cut(2.3)
    waits.caller_paused(4.0)
    assert waits.at == 7.0


def test_an_agent_that_is_back_after_its_caller_was_asked_to_hold_on_is_told_to_speak() -> None:
    """Whoever was asked to hold on holds on. Between turns nothing but the answer to a ping tells that it is back."""
    core, out = after_the_greeting(), list[Action]()
    for second in (3.0, 4.0, 5.0):
        out += core.agent_unreachable(second)
        run_until(core, second, out)
    assert len(noted(out, "dead-air")) == 1
    assert asked_at(core, 12.0, after=5.0) == [8.0]


def test_an_agent_that_was_away_and_answers_need_not_say_so() -> None:
    core, out = after_the_greeting(), list[Action]()
    caller_says(core, "what are your opening hours", at=1.2, until=1.9)
    out += core.agent_unreachable(4.5)
    agent_says(core, at=5.0)
    assert asked_at(core, 15.0, after=5.0) == []


def test_less_than_a_frame_that_waits_for_the_rest_of_a_turn_keeps_nobody_from_asking() -> None:
    core = after_the_greeting()
    core.agent_audio(b"\x55" * 100, 1.2)
    caller_says(core, "", at=2.0, until=3.5)
    assert asked_at(core, 9.0, after=3.5) == [6.5]


def test_who_cut_the_agent_off_with_a_sound_nobody_understood_is_asked_before_they_are_told_to_hold() -> None:
    core = after_the_greeting()
    agent_is_speaking(core, ms=400, at=2.0)
    core.vapi_said(vapi.CallerSpoke(), 2.1)
    core.vapi_said(vapi.CallerInterrupted(), 2.3)
    core.vapi_said(vapi.AgentStopped(), 2.3)
    core.vapi_said(vapi.CallerPaused(), 3.5)
    assert asked_at(core, 6.6, after=3.5) == [6.5]


def test_who_wants_time_is_given_it_and_not_for_ever() -> None:
    core = after_the_greeting()
    caller_says(core, "hold on, let me check", at=1.5, until=2.0)
    caller_says(core, "", at=2.5, until=3.5)
    assert asked_at(core, 21.8, after=3.5) == []
    assert asked_at(core, 30.0, after=21.8) == [pytest.approx(21.9, abs=0.1)]


def test_who_asked_how_long_to_wait_and_was_answered_is_not_left_waiting() -> None:
    core = after_the_greeting()
    caller_says(core, "how long do I have to wait?", at=1.5, until=2.0)
    agent_says(core, at=2.5)
    caller_says(core, "", at=4.0, until=5.5)
    assert asked_at(core, 12.0, after=5.5) == [8.5]


@pytest.mark.parametrize(("digits", "asked"), [(4, []), (0, [6.0])])
def test_who_types_is_not_asked_to_speak_if_the_agent_is_told_of_it(digits: int, asked: list[float]) -> None:
    before = after_the_greeting()
    before.stream_lost("stream-lost", 2.0)
    assert before.left_off is not None
    core = BridgeCore(Rules(keypad_digits=digits), clips=CLIPS, now=3.9)
    core.take_up(before.left_off, 4.0)
    core.key_pressed("4", 5.0)
    assert asked_at(core, 7.9, after=5.0) == asked


def test_a_monologue_on_a_line_that_tells_only_whole_sentences_is_not_cut() -> None:
    core = after_the_greeting()
    core.vapi_said(vapi.CallerSpoke(), 2.0)
    core.vapi_said(vapi.FinalHeard("user", "I bought it in May."), 4.0)
    core.vapi_said(vapi.CallerSpoke(), 4.1)
    assert asked_at(core, 12.0, after=4.1) == []


def test_a_call_that_is_being_left_asks_nobody_whatever_is_said() -> None:
    core = after_the_greeting()
    core.leave_after_last_word("handed-over", 2.0)
    caller_says(core, "okay bye", at=2.1, until=2.4)
    caller_says(core, "", at=2.5, until=3.5)
    assert asked_at(core, 12.0, after=3.5) == []


def test_after_a_gap_in_the_line_a_silent_caller_is_asked_after_2_s() -> None:
    assert asked_at(back_after_a_gap(after_the_greeting()), 9.0, after=4.0) == [6.0]


def test_after_a_gap_the_rest_of_the_sentence_is_heard_first() -> None:
    before = after_the_greeting()
    agent_says(before, at=1.5, ms=2000)
    after = back_after_a_gap(before)
    assert before.left_off is not None
    heard_at = 4.0 + len(before.left_off.rest) / 8000
    (moment,) = asked_at(after, 12.0, after=4.0)
    assert moment == pytest.approx(heard_at + 2.0, abs=0.2)


def test_a_caller_who_goes_on_after_a_gap_is_not_asked() -> None:
    after = back_after_a_gap(after_the_greeting())
    caller_says(after, "I cannot log in", at=5.0, until=6.0)
    agent_says(after, at=6.5)
    assert asked_at(after, 12.0, after=6.5) == []


def test_an_agent_that_owes_an_answer_from_before_the_gap_gives_that_and_asks_then() -> None:
    before = after_the_greeting()
    caller_says(before, "what are your opening hours", at=1.2, until=1.9)
    after = back_after_a_gap(before)
    assert asked_at(after, 5.8, after=4.0) == []
    agent_says(after, at=5.8)
    assert asked_at(after, 10.0, after=5.8) == [9.2]


@pytest.mark.parametrize("ends", ["leaves", "has another agent"])
def test_nobody_is_asked_who_has_no_agent_any_more(ends: str) -> None:
    core = after_the_greeting()
    caller_says(core, "")
    out: Sequence[Action] = core.leave_after_last_word("handed-over", 3.5) if ends == "leaves" else core.agent_lost(3.5)
    assert ASKS not in out
    assert asked_at(core, 7.0, after=3.5) == []


@pytest.mark.parametrize("raw", ["customer-ended-call", "manually-canceled"])
def test_an_end_that_our_side_made_is_none_of_the_calls(raw: str) -> None:
    """A session that was ended because another one had been asked for: the caller is still there."""
    core = after_the_greeting()
    out = core.vapi_said(vapi.SessionEnded(raw), 2.0)
    assert AskForAgent(raw) in out
    assert played(out)
    assert CLIPS["one_moment"].ulaw.startswith(played(out))
