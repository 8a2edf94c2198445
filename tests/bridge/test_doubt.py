"""An agent that tells nothing is asked, and given up when nothing is heard then; one that is there is not, whatever the line brings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import pytest

from bridge import vapi_messages as vapi
from bridge.actions import Action, AskForAgent, Noted, TellAgent
from bridge.core import BridgeCore
from bridge.longest import ROLLED_OVER
from bridge.rules import Rules
from bridge.sandbox import noise
from bridge.sandbox.clips import CLIPS as VOICES
from tests.bridge.test_core import CLIPS, agent_is_speaking, noted, run_until

ASKS = TellAgent(vapi.not_heard())
FRAME_S = 0.02
QUESTION = VOICES["ask_hours"].ulaw  # 2 s


class Line:
    """A caller with a sound for every 20 ms, and an agent that answers what it is told `slow_s` later, if it is there."""

    def __init__(
        self, *, answers: bool = False, slow_s: float = 1.0, connected_at: float = 0.0, sound: bytes = b"", **rules: object
    ) -> None:
        self.core = BridgeCore(Rules(**rules), clips=CLIPS, now=0.0)  # type: ignore[arg-type]
        self.now, self.did = 0.0, list[tuple[float, Action]]()
        self._answers, self._slow_s, self._answer_at = answers, slow_s, float("inf")
        self._sound = sound
        self.passes(connected_at)
        self._note(self.core.agent_connected(self.now))

    def _note(self, actions: Sequence[Action]) -> None:
        self.did += [(round(self.now, 1), action) for action in actions]
        if self._answers and ASKS in actions:
            self._answer_at = self.now + self._slow_s

    def passes(self, seconds: float) -> None:
        for _ in range(round(seconds / FRAME_S)):
            self.now += FRAME_S
            done: list[Action] = []
            run_until(self.core, self.now, done)
            frame, self._sound = self._sound[:160].ljust(160, b"\xff"), self._sound[160:]
            if not self.core.relays_caller(frame, self.now):
                done += self.core.caller_audio(frame, self.now)
            self._note(done)
            if self.now >= self._answer_at:
                self._answer_at = float("inf")
                self.agent_says(1500)

    def agent_says(self, ms: int, *, to_its_end: bool = True) -> None:
        self._note(agent_is_speaking(self.core, ms=ms, at=self.now))
        if to_its_end:
            self._note(self.core.vapi_said(vapi.AgentStopped(), self.now))

    def caller_says(self, ulaw: bytes) -> None:
        """From now on, and until it is over."""
        self._sound = ulaw
        self.passes(len(ulaw) / 8000)

    def caller_says_in_vain(self, ulaw: bytes) -> None:
        """The agent is given up for it."""
        self.caller_says(ulaw)
        spoken = self.now
        self.passes(9.0)
        self.is_given_up(spoken)

    def at(self, is_one: Callable[[Action], bool]) -> list[float]:
        return [at for at, action in self.did if is_one(action)]

    @property
    def asked(self) -> list[float]:
        return self.at(lambda action: action == ASKS)

    @property
    def told(self) -> list[float]:
        """When the caller was asked for patience."""
        return self.at(lambda action: isinstance(action, Noted) and action.kind == "clip-played" and action.detail["clip"] == "trouble")

    @property
    def lost(self) -> list[float]:
        return self.at(lambda action: action == AskForAgent("dead air"))

    def is_given_up(self, since: float) -> None:
        assert self.told == [pytest.approx(since + 4.0, abs=0.25)]
        assert self.lost == [pytest.approx(since + 8.0, abs=0.25)]


def greeted(**rules: object) -> Line:
    """The greeting has been heard to its end, at 3 s."""
    line = Line(**rules)  # type: ignore[arg-type]
    line.passes(0.6)
    line.agent_says(1500)
    line.passes(2.4)
    return line


# ---- given up


def test_an_agent_that_falls_silent_in_its_greeting_is_given_up_although_the_caller_says_nothing() -> None:
    line = Line()
    line.passes(0.6)
    line.agent_says(1000, to_its_end=False)
    line.passes(10.0)
    line.is_given_up(1.6)


def test_an_agent_that_falls_silent_in_its_greeting_is_given_up_although_the_caller_speaks_into_it() -> None:
    line = Line()
    line.passes(0.6)
    line.agent_says(1000, to_its_end=False)
    line.passes(0.5)
    line.caller_says(QUESTION)
    line.passes(10.0)
    line.is_given_up(line.asked[0] - 1.2)
    assert line.asked[0] == pytest.approx(1.1 + len(QUESTION) / 8000 + 1.2, abs=0.3)


def test_an_agent_that_tells_nothing_of_what_is_said_after_its_greeting_is_given_up() -> None:
    line = greeted()
    line.caller_says_in_vain(QUESTION)


def test_half_a_second_is_enough_of_a_word() -> None:
    line = greeted()
    line.caller_says_in_vain(QUESTION[8000 : 8000 + 4000])


@pytest.mark.parametrize("after", [0.0, 3.0])
def test_a_caller_who_is_to_speak_first_does_not_speak_to_nobody(after: float) -> None:
    line = Line(agent_speaks_first=False)
    line.passes(after)
    line.caller_says_in_vain(QUESTION)


def test_what_the_caller_said_before_the_agent_was_there_is_owed_an_answer_too() -> None:
    line = Line(connected_at=2.5, sound=QUESTION, agent_speaks_first=False)
    line.passes(9.0)
    line.is_given_up(len(QUESTION) / 8000)
    assert line.asked[0] >= 3.5


def test_an_agent_that_took_the_place_of_another_in_a_pause_and_says_nothing_is_given_up() -> None:
    line = greeted(longest=20.0, goes_on=True)
    line.passes(10.0)
    assert AskForAgent(ROLLED_OVER) in [action for _, action in line.did]
    line._note(line.core.agent_connected(line.now))
    line.passes(1.0)
    line.caller_says_in_vain(QUESTION)


def test_an_agent_that_tells_only_that_the_caller_speaks_is_given_up() -> None:
    line = greeted()
    line._sound = QUESTION
    line.passes(0.5)
    line._note(line.core.vapi_said(vapi.CallerSpoke(), line.now))
    line.passes(len(QUESTION) / 8000 - 0.5)
    spoken = line.now
    line.passes(9.0)
    line.is_given_up(spoken)


def test_an_agent_that_asks_twice_and_hears_no_reply_is_deaf() -> None:
    line = greeted(answers=True)
    for _ in range(2):
        line.caller_says(QUESTION)
        line.passes(5.0)
    line.caller_says(QUESTION)
    spoken = line.now
    line.passes(9.0)
    assert len(line.asked) == 2
    line.is_given_up(spoken)


def test_of_one_stream_only_one_agent_is_called_deaf_for_it_may_be_the_line() -> None:
    line = greeted(answers=True)
    for _ in range(2):
        for _ in range(3):
            line.caller_says(QUESTION)
            line.passes(5.0)
        line.passes(4.0)
        line._note(line.core.agent_connected(line.now))
        line.agent_says(1500)
        line.passes(2.0)
    assert len(line.asked) == 4
    assert len(line.lost) == 1


# ---- not given up


@pytest.mark.parametrize("slow_s", [0.5, 2.0, 6.0])
def test_an_agent_that_took_it_for_noise_asks_and_stays(slow_s: float) -> None:
    line = greeted(answers=True, slow_s=slow_s)
    line.caller_says(QUESTION)
    line.passes(60.0)
    assert len(line.asked) == 1
    assert line.lost == []
    assert len(line.told) == (slow_s > 3)


def test_who_keeps_silent_is_waited_for() -> None:
    line = greeted()
    line.passes(600.0)
    assert (line.asked, line.told, line.lost) == ([], [], [])


@pytest.mark.parametrize("name", noise.NOISES)
@pytest.mark.parametrize("there", [True, False])
def test_noise_that_does_not_stop_is_no_caller(name: str, *, there: bool) -> None:
    line = greeted(answers=there)
    line.caller_says(noise.NOISES[name]() * 24)
    assert (line.asked, line.told, line.lost) == ([], [], [])


@pytest.mark.parametrize("name", noise.NOISES)
@pytest.mark.parametrize("pause_s", [1.0, 2.0, 6.0, 15.0])
def test_noise_that_comes_and_goes_loses_no_agent(name: str, pause_s: float) -> None:
    line, random = greeted(answers=True), Random(f"{name} {pause_s}")
    for _ in range(20):
        line.caller_says(noise.NOISES[name]()[: random.randrange(2000, 20_000, 160)])
        line.passes(pause_s * (0.5 + random.random()))
        line.core.vapi_said(vapi.CallerSpoke(), line.now)  # for a moment, as of any noise now and then
        line.core.vapi_said(vapi.CallerPaused(), line.now)
    assert line.lost == []


def test_what_comes_long_after_a_question_is_no_reply_to_it() -> None:
    line = greeted(answers=True)
    for _ in range(4):
        line.caller_says(QUESTION)
        line.passes(12.0)
    assert len(line.asked) == 2
    assert (line.told, line.lost) == ([], [])


def test_the_tone_of_a_key_is_no_word() -> None:
    line = greeted(zero_for_person=False)
    line.caller_says(b"\x11" * 8000)
    line._note(line.core.key_pressed("5", line.now))
    line.passes(20.0)
    assert (line.asked, line.lost) == ([], [])


def test_clicks_and_slams_are_no_word() -> None:
    line, slam = greeted(), QUESTION[8000 : 8000 + 1600]
    for _ in range(20):
        line.caller_says(slam)
        line.passes(6.0)
    assert (line.asked, line.lost) == ([], [])


def test_the_echo_of_the_agent_and_of_our_own_sentences_is_no_caller() -> None:
    line, echo = Line(), noise.returned(VOICES["greeting"].ulaw)
    line.passes(0.6)
    line._note(line.core.vapi_said(vapi.AgentStarted(), line.now))
    line._note(line.core.agent_audio(VOICES["greeting"].ulaw, line.now))
    line._note(line.core.vapi_said(vapi.AgentStopped(), line.now))
    line.passes(0.2)
    line.caller_says(echo)
    line.passes(20.0)
    assert (line.asked, line.lost) == ([], [])


def test_a_healthy_agent_that_hears_the_caller_is_never_asked() -> None:
    line = greeted()
    for _ in range(5):
        line._sound = QUESTION
        line.passes(0.5)
        line._note(line.core.vapi_said(vapi.CallerSpoke(), line.now))
        line.passes(len(QUESTION) / 8000)
        line._note(line.core.vapi_said(vapi.CallerPaused(), line.now))
        line._note(line.core.vapi_said(vapi.FinalHeard("user", "When do you open?"), line.now))
        line.passes(3.0)
        line.agent_says(1500)
        line.passes(3.0)
    assert (line.asked, line.told, line.lost) == ([], [], [])


def test_who_asked_for_a_moment_may_make_a_noise_in_it() -> None:
    line = greeted(answers=True)
    line.core.vapi_said(vapi.CallerSpoke(), line.now)
    line.core.vapi_said(vapi.FinalHeard("user", "Hold on, please."), line.now)
    line.core.vapi_said(vapi.CallerPaused(), line.now)
    line.passes(8.0)
    line.caller_says(QUESTION)
    line.passes(8.0)
    assert line.asked == []


def test_a_vendor_that_never_tells_the_end_of_a_turn_is_asked_once_and_stays() -> None:
    line = Line()
    line.passes(0.6)
    line.agent_says(1000, to_its_end=False)
    line.passes(5.0)
    line.agent_says(1000, to_its_end=False)
    line.passes(60.0)
    assert line.asked == [4.6]
    assert line.lost == []


def test_of_a_call_that_is_being_left_nothing_is_asked() -> None:
    line = greeted()
    line.caller_says(QUESTION)
    line._note(line.core.leave_after_last_word("handed-over", line.now))
    line.passes(9.0)
    assert line.asked == []
    assert noted([action for _, action in line.did], "dead-air") == []


def told(line: Line, *said: vapi.Message) -> None:
    for message in said:
        line._note(line.core.vapi_said(message, line.now))


def test_an_agent_that_tells_of_any_sound_between_its_questions_is_not_deaf() -> None:
    line = greeted(answers=True)
    for _ in range(2):
        line.caller_says(QUESTION)
        line.passes(3.0)
        told(line, vapi.CallerSpoke(), vapi.CallerPaused())
        line.passes(2.0)
    line.caller_says(QUESTION)
    line.passes(20.0)
    assert line.lost == []


def test_a_transcriber_that_needs_two_seconds_is_waited_for() -> None:
    line = greeted()
    line._sound = QUESTION
    line.passes(0.5)
    told(line, vapi.CallerSpoke())
    line.passes(len(QUESTION) / 8000 + 1.5)
    told(line, vapi.CallerPaused(), vapi.FinalHeard("user", "When do you open?"))
    line.agent_says(1500)
    line.passes(20.0)
    assert (line.asked, line.lost) == ([], [])


def test_words_that_are_understood_let_it_be_asked_anew() -> None:
    line = greeted(answers=True)
    for _ in range(4):
        line.caller_says(QUESTION)
        line.passes(12.0)
        told(line, vapi.CallerSpoke(), vapi.FinalHeard("user", "Yes."), vapi.CallerPaused())
        line.agent_says(500)
        line.passes(2.0)
    assert len(line.asked) == 4


def test_an_agent_that_was_asked_and_hears_the_caller_then_is_waited_for() -> None:
    line = greeted()
    line.caller_says(QUESTION)
    line.passes(2.0)
    assert len(line.asked) == 1
    told(line, vapi.CallerSpoke())
    line.passes(20.0)
    assert line.lost == []


def test_while_an_answer_is_owed_it_is_not_asked_for_another() -> None:
    line = greeted()
    told(line, vapi.CallerSpoke(), vapi.FinalHeard("user", "When do you open?"), vapi.CallerPaused())
    line.caller_says(QUESTION[:8000])
    line.passes(2.5)
    assert line.asked == []


def test_the_agent_that_is_to_open_the_call_is_not_asked_for_it() -> None:
    line = Line()
    line.caller_says(QUESTION)
    line.passes(2.5)
    assert line.asked == []


def test_the_agent_of_the_stream_before_is_doubted_too() -> None:
    line = greeted(answers=True)
    line.core.stream_lost("stream-lost", line.now)
    left, line.core = line.core.left_off, BridgeCore(Rules(), clips=CLIPS, now=line.now)
    assert left is not None
    line._note(line.core.take_up(left, line.now))
    line.passes(8.0)
    assert len(line.asked) == 1  # for what was said into the gap
    line._answers = False
    line.caller_says_in_vain(QUESTION)


def test_the_echo_of_our_own_sentence_is_no_caller() -> None:
    line = greeted()
    line._note(line.core._play_clip("trouble", line.now))
    line.caller_says(QUESTION[8000 : 8000 + 1600 + 2400])
    line.passes(20.0)
    assert line.asked == []
