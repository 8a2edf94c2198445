"""Interruptions at the awkward moments, and what the model is told afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from bridge import vapi_messages as vapi
from bridge.actions import Action, TellAgent
from bridge.core import BridgeCore
from bridge.heard import TimedWords, even_words
from bridge.stuck import Stuck
from tests.bridge.test_core import a_call, agent_is_speaking, clears, noted, played, run_until

TEN = "one two three four five six seven eight nine ten"


def told(actions: list[Action]) -> list[str]:
    return [action.message["message"]["content"] for action in actions if isinstance(action, TellAgent)]


def even_times(text: str, ms_a_word: int) -> dict[str, Any]:
    words = [piece for word in text.split() for piece in (word, " ")]
    ends = [(n // 2 + 1) * ms_a_word for n in range(len(words))]
    begins = [end - ms_a_word if word.strip() else end for word, end in zip(words, ends, strict=True)]
    return {"type": "word-alignment", "words": words, "wordsStartTimesMs": begins, "wordsEndTimesMs": ends}


@pytest.mark.parametrize("instant", [True, False])
def test_an_agent_that_has_generated_everything_is_still_interrupted_and_its_line_cut(instant: bool) -> None:
    core = a_call(instant=instant)
    agent_is_speaking(core, ms=2000)
    core.vapi_said(vapi.AgentStopped(), 0.1)
    core.vapi_said(vapi.FinalHeard("assistant", TEN), 0.12)
    run_until(core, 1.0, [])
    core.mark_returned("0:800", 1.0)
    out = core.vapi_said(vapi.CallerSpoke(), 1.0) + core.vapi_said(vapi.CallerInterrupted(), 1.2)
    assert clears(out) == 1
    assert noted(out, "agent-turn-ended")[0].detail["interrupted"]
    assert "“one two three" in told(out)[0]
    out = []
    run_until(core, 5.1, out)  # then it is dead air
    assert played(out) == b""


@pytest.mark.parametrize("instant", [True, False])
def test_a_waiting_sentence_is_interrupted_like_any_other_and_the_tools_answer_is_heard(instant: bool) -> None:
    core = a_call(instant=instant)
    core.vapi_said(vapi.ToolsCalled(), 0.0)
    core.vapi_said(vapi.WordsSpoken("force-say", {}), 0.0)
    agent_is_speaking(core, ms=2000)
    out = core.vapi_said(vapi.CallerSpoke(), 0.5) + core.vapi_said(vapi.CallerInterrupted(), 0.7)
    out += core.vapi_said(vapi.AgentStopped(), 0.71)
    assert clears(out) == 1
    out = core.vapi_said(vapi.CallerPaused(), 1.0) + core.vapi_said(vapi.AgentStarted(), 2.0) + core.agent_audio(b"\x66" * 8000, 2.0)
    run_until(core, 4.0, out)
    assert played(out) == b"\x66" * 8000


def test_while_a_tool_works_and_nobody_speaks_there_is_nothing_to_hold() -> None:
    core = a_call()
    agent_is_speaking(core, ms=500)
    core.vapi_said(vapi.AgentStopped(), 0.5)
    run_until(core, 1.0, [])
    core.mark_returned("0:500", 1.0)
    core.vapi_said(vapi.ToolsCalled(), 1.0)
    assert clears(core.vapi_said(vapi.CallerSpoke(), 1.5)) == 0
    out = core.agent_audio(b"\x66" * 8000, 2.0)
    run_until(core, 4.0, out)
    assert played(out) == b"\x66" * 8000


@pytest.mark.parametrize("instant", [True, False])
@pytest.mark.parametrize("order", ["si", "is", "ss", "ii", "hi", "ih"])
def test_the_sentence_before_a_hand_over_is_heard_to_its_end_whoever_speaks(order: str, instant: bool) -> None:
    """s: the socket tells of speech, h: the webhook; i: of an interruption."""
    core = a_call(instant=instant)
    out = agent_is_speaking(core, ms=1500)
    out += core.leave_after_last_word("handed-over", 0.2)
    for n, kind in enumerate(order):
        at = 0.3 + n * 0.2
        says = vapi.CallerSpoke() if kind == "s" else vapi.CallerInterrupted()
        out += core.speech_hinted(at) if kind == "h" else core.vapi_said(says, at)
    out += core.vapi_said(vapi.AgentStopped(), 1.5)
    run_until(core, 9.0, out)
    assert clears(out) == 0
    assert played(out) == b"\x55" * 12_000


def a_minute_at_once(**rules: object) -> BridgeCore:
    """An agent that sent a minute of sound in no time and is done with its turn; the caller has heard 2 s of it."""
    core = a_call(**rules)
    agent_is_speaking(core, ms=60_000)
    core.vapi_said(vapi.AgentStopped(), 0.1)
    core.vapi_said(vapi.FinalHeard("assistant", TEN), 0.1)
    run_until(core, 2.0, [])
    return core


@pytest.mark.parametrize("instant", [True, False])
def test_an_answer_to_the_caller_is_not_kept_waiting_by_the_rest_of_what_it_interrupted(instant: bool) -> None:
    core = a_minute_at_once(instant=instant)
    out = core.vapi_said(vapi.CallerSpoke(), 2.0) + core.vapi_said(vapi.PartialHeard("user", "stop"), 2.3)
    core.vapi_said(vapi.CallerPaused(), 2.5)
    run_until(core, 3.4, out)
    assert clears(out) == int(instant)
    answer = core.vapi_said(vapi.AgentStarted(), 3.4)
    assert clears(answer) == 1  # what went on to be played since 2.6 s is at Twilio
    assert noted(answer, "interruption-confirmed")
    assert "They heard nothing" in told(answer)[0]
    answer += core.agent_audio(b"\x66" * 8000, 3.41)
    assert 300 * 8 <= len(played(answer)) <= 400 * 8  # with marks as late as these a larger cushion
    run_until(core, 6.0, answer)
    assert played(answer) == b"\x66" * 8000
    assert clears(answer) == 1


def test_an_answer_that_comes_while_the_old_turn_is_held_needs_no_second_clear() -> None:
    core = a_minute_at_once()
    out = core.vapi_said(vapi.CallerSpoke(), 2.0) + core.vapi_said(vapi.PartialHeard("user", "stop"), 2.2)
    out += core.vapi_said(vapi.AgentStarted(), 2.4) + core.agent_audio(b"\x66" * 8000, 2.41)
    run_until(core, 6.0, out)
    assert (clears(out), played(out)) == (1, b"\x66" * 8000)


def test_a_new_turn_after_a_mere_noise_waits_for_the_rest_of_the_last_one() -> None:
    core = a_minute_at_once()
    out = core.vapi_said(vapi.CallerSpoke(), 2.0) + core.vapi_said(vapi.CallerPaused(), 2.2)
    run_until(core, 3.0, out)
    out += core.vapi_said(vapi.AgentStarted(), 3.0)
    assert clears(out) == 1  # the one of the noise
    assert noted(out, "interruption-confirmed") == []


# -- a pause first -------------------------------------------------------------------------------------------------------


def paused(*, words: str) -> tuple[BridgeCore, list[Action]]:
    """A sentence of 1 s that ends at Vapi while something is heard on the caller's side."""
    core = a_call(instant=False)
    out = agent_is_speaking(core, ms=1000)
    out += core.vapi_said(vapi.CallerSpoke(), 0.2)
    if words:
        out += core.vapi_said(vapi.PartialHeard("user", words), 0.4)
    return core, out + core.vapi_said(vapi.AgentStopped(), 0.5)


def test_the_end_of_a_turn_confirms_no_interruption_by_a_noise() -> None:
    core, out = paused(words="")
    run_until(core, 9.0, out)
    assert (clears(out), played(out)) == (0, b"\x55" * 8000)


def test_the_end_of_a_turn_confirms_an_interruption_by_words() -> None:
    core, out = paused(words="wait a moment")
    run_until(core, 9.0, out)
    assert clears(out) == 1
    assert len(played(out)) < 8000


def test_an_interruption_told_after_the_end_of_the_turn_is_one() -> None:
    core, out = paused(words="")
    out += core.vapi_said(vapi.CallerInterrupted(), 0.55)
    run_until(core, 9.0, out)
    assert clears(out) == 1
    assert len(played(out)) < 8000


# -- what was heard ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["spoke stopped", "stopped interrupted", "spoke stopped interrupted"])
def test_sound_on_its_way_from_a_turn_that_was_over_when_it_was_cut_is_dropped(order: str) -> None:
    says: dict[str, vapi.Message] = {"spoke": vapi.CallerSpoke(), "stopped": vapi.AgentStopped(), "interrupted": vapi.CallerInterrupted()}
    core = a_call()
    agent_is_speaking(core, ms=1000)
    for what in order.split():
        core.vapi_said(says[what], 0.2)
    late: list[Action] = []
    for n in range(10):
        late += core.agent_audio(b"\x44" * 160, 0.22 + n * 0.02)
    run_until(core, 0.5, late)
    assert b"\x44" not in played(late)
    answer = core.vapi_said(vapi.AgentStarted(), 0.5)
    answer += core.agent_audio(b"\x33" * 1600, 0.5)
    assert b"\x33" in played(answer)


def test_with_word_times_the_model_is_told_at_once_which_words_were_heard() -> None:
    core = a_call()
    core.vapi_said(vapi.WordsSpoken("model", even_times(TEN, 200)), 0.0)
    agent_is_speaking(core, ms=2000)
    core.mark_returned("0:200", 0.5)
    run_until(core, 0.5, [])
    out = core.vapi_said(vapi.CallerSpoke(), 0.5) + core.vapi_said(vapi.CallerInterrupted(), 0.6)
    heard_ms = noted(out, "agent-turn-ended")[0].detail["heard_ms"]
    words = " ".join(TEN.split()[: round(heard_ms / 200)])
    assert f"“{words}”" in told(out)[0]


def test_without_word_times_the_vendors_line_of_the_cut_turn_is_waited_for() -> None:
    core = a_call()
    agent_is_speaking(core, ms=2000)
    run_until(core, 1.0, [])
    core.mark_returned("0:800", 1.0)
    out = core.vapi_said(vapi.CallerSpoke(), 1.0) + core.vapi_said(vapi.CallerInterrupted(), 1.1)
    assert told(out) == []
    out = core.vapi_said(vapi.FinalHeard("assistant", TEN), 1.3)
    assert "“one two three" in told(out)[0]
    assert " ten" not in told(out)[0]
    assert told(core.vapi_said(vapi.FinalHeard("assistant", TEN), 1.4)) == []


def test_a_line_that_never_comes_is_not_waited_for_for_ever() -> None:
    core = a_call()
    agent_is_speaking(core, ms=2000)
    core.vapi_said(vapi.CallerInterrupted(), 0.5)
    run_until(core, 2.0, [])
    assert told(core.vapi_said(vapi.FinalHeard("assistant", TEN), 2.0)) == []


def test_a_switch_keeps_the_model_untold() -> None:
    core = a_call(tell_heard=False)
    core.vapi_said(vapi.WordsSpoken("model", even_times(TEN, 200)), 0.0)
    agent_is_speaking(core, ms=2000)
    assert told(core.vapi_said(vapi.CallerInterrupted(), 0.5)) == []


def test_silence_that_somebody_above_asked_for_is_no_interruption_by_the_caller() -> None:
    core = a_call()
    core.vapi_said(vapi.WordsSpoken("model", even_times(TEN, 200)), 0.0)
    agent_is_speaking(core, ms=2000)
    assert told(core.flush(0.5)) == []


@pytest.mark.parametrize("relative", [True, False], ids=["from the piece on", "from the turn on"])
def test_words_come_in_pieces_with_spaces_and_times_of_either_kind(relative: bool) -> None:
    words = TimedWords()
    words.told(
        {
            "type": "word-alignment",
            "words": ["I", " ", "se", "e"],
            "wordsStartTimesMs": [0, 90, 110, 200],
            "wordsEndTimesMs": [85, 105, 200, 320],
        }
    )
    shift = 0 if relative else 320
    second = {
        "type": "word-alignment",
        "words": [" ", "it"],
        "wordsStartTimesMs": [shift, shift + 20],
        "wordsEndTimesMs": [shift + 20, shift + 120],
    }
    words.told(second)
    words.told(second)  # told again
    assert [words.heard(ms) for ms in (0, 45, 220, 385, 400)] == [[], ["I"], ["I", "see"], ["I", "see"], ["I", "see", "it"]]


def test_words_that_come_by_segment_are_known_too() -> None:
    words = TimedWords()
    for n, text in enumerate(("one two", "three")):
        pieces = [{"word": word, "startMs": m * 300, "endMs": m * 300 + 250} for m, word in enumerate(text.split())]
        words.told({"type": "word-progress", "wordsSpoken": n, "totalWords": 0, "segment": text, "segmentDurationMs": 600, "words": pieces})
    assert [len(words.heard(ms)) for ms in (124, 125, 425, 724, 725)] == [0, 1, 2, 2, 3]


@pytest.mark.parametrize("late", [even_times("nine ten", 200), {}], ids=["words", "news"])
def test_words_that_are_told_after_the_end_of_their_turn_are_none_of_the_next_one(late: dict[str, Any]) -> None:
    words = TimedWords()
    words.told(even_times("one two", 200), "1 One two")
    words.turn_over()
    words.told(late, "1 One two")
    words.told({}, "2 Three four")
    words.next_turn()
    words.told(even_times("three four", 200), "2 Three four")
    assert words.heard(1000) == ["three", "four"]


def test_words_that_are_told_after_the_end_of_their_turn_are_known_while_it_is_heard() -> None:
    words = TimedWords()
    words.told(even_times("one two", 200), "1 One two three")
    words.turn_over()
    words.told(even_times("three", 200), "1 One two three")
    assert words.heard(1000) == ["one", "two", "three"]


@pytest.mark.parametrize(
    "timing", [{}, {"type": "word-alignment"}, {"type": "word-alignment", "words": 5}, {"type": "word-progress", "words": [3]}]
)
def test_what_is_no_timing_changes_nothing(timing: dict[str, Any]) -> None:
    words = TimedWords()
    words.told(timing)
    assert not words


def test_a_voice_takes_breath_at_a_full_stop_and_not_in_the_middle() -> None:
    assert even_words(["Yes.", "no", "no", "no", "no"], said_ms=1000, heard_ms=400) == 1
    assert even_words(["Yes", "no", "no", "no", "no"], said_ms=1000, heard_ms=400) == 2


# -- sound that waits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("instant", [True, False])
def test_a_clip_that_falls_due_while_sound_is_held_leaves_nothing_held_for_ever(instant: bool) -> None:
    """The next agent is there and silent, and the caller speaks over what is left of the last one."""
    core = a_call(instant=instant)
    agent_is_speaking(core, ms=1500)
    out = core.agent_lost(0.0) + core.agent_connected(0.1)
    run_until(core, 1.0, out)
    out += core.vapi_said(vapi.CallerSpoke(), 1.0)
    run_until(core, 1.9, out)
    assert len(noted(out, "clip-played")) == 2
    out += core.vapi_said(vapi.CallerPaused(), 1.9) + core.vapi_said(vapi.AgentStarted(), 1.9) + core.agent_audio(b"\x66" * 16_000, 1.9)
    run_until(core, 7.0, out)
    assert played(out).endswith(b"\x66" * 16_000)


def test_a_process_that_did_not_get_to_the_sound_it_holds_says_so() -> None:
    core = a_call()
    agent_is_speaking(core, ms=3000)
    out = core.tick(2.5)
    assert noted(out, "audio-stuck")[0].detail["ms"] >= 2000
    assert core.figures()["audio"]["stuck"] == 1


def test_a_queue_that_does_not_move_is_an_alarm_once() -> None:
    stuck = Stuck(1.0)
    looks = [stuck.look(now / 10, waits=True, left=3) for now in range(30)]
    assert [ms for ms in looks if ms] == [1000]
    assert stuck.look(4.0, waits=True, left=4) == 0
    assert stuck.look(5.0, waits=True, left=4) == 1000


def test_a_queue_that_moves_slowly_is_none() -> None:
    stuck = Stuck(1.0)
    assert not any(stuck.look(now / 10, waits=True, left=now // 5) for now in range(100))
