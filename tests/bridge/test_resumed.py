"""An agent is lost in the middle of a call, and another one goes on: whole calls on a virtual clock."""

from __future__ import annotations

import pytest
from pytest_django import Settings

from bridge.lately import CHARACTERS, LINES, Lately
from bridge.sandbox.clips import CLIPS
from bridge.sandbox.faults import NAMED
from bridge.sandbox.script import CUT_OFF
from tests.bridge.virtual_time import Notebook, carry_a_call


@pytest.fixture(autouse=True)
def no_channel_layer(settings: Settings) -> None:
    settings.CHANNEL_LAYERS = {}


@pytest.mark.parametrize(("fault", "losses"), [("dies-once", 1), ("dies-twice", 2)])
def test_the_next_agent_knows_what_was_said_and_brings_the_call_to_its_end(fault: str, losses: int) -> None:
    call = carry_a_call(CUT_OFF, faults=NAMED[fault].switches(), notebook=Notebook(agents=3))
    assert call.facts.violations == []
    assert call.notebook.lost == ["socket closed with 1011"] * losses
    assert call.notebook.closing is not None
    assert call.notebook.closing.why == "agent-ended"
    heard = [final.clip_name for final in call.phone.heard]
    assert heard.count("greeting") == 1
    assert "cut_off" in heard
    assert "you_cannot_log_in" in heard
    assert heard[-1] == "goodbye"
    assert call.notebook.said[0] == ("assistant", CLIPS["greeting"].text)
    assert ("user", CLIPS["cannot_log_in"].text) in call.notebook.said


def test_of_a_long_talk_only_the_last_lines_are_remembered() -> None:
    lately = Lately()
    for number in range(LINES + 5):
        lately.add("user" if number % 2 else "bot", f"line {number}")
    lately.add("user", " ")
    assert next(iter(lately)) == ("user", "line 5")
    assert list(lately)[-1] == ("assistant", "line 24")
    lately.add("user", "x" * CHARACTERS)
    assert [len(words) for _, words in lately] == [CHARACTERS]


def test_the_caller_is_spoken_to_within_200_ms_and_by_the_next_agent_within_3_s() -> None:
    call = carry_a_call(CUT_OFF, faults=NAMED["dies-once"].switches(), notebook=Notebook(agents=2))
    heard = {final.clip_name: final for final in call.phone.heard}
    lost_at = heard["reset_steps"].ended_at
    assert heard["one_moment"].started_at - lost_at <= 0.2
    assert heard["cut_off"].started_at - lost_at <= 3.0


def test_without_another_agent_the_caller_is_led_to_people() -> None:
    call = carry_a_call(CUT_OFF, faults=NAMED["dies-once"].switches(), notebook=Notebook(agents=1))
    assert call.notebook.closing is not None
    assert call.notebook.closing.why == "agent-lost"
    assert [final.clip_name for final in call.phone.heard][-1] == "connecting_colleague"
