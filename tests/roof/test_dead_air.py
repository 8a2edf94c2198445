"""Dead air in whole calls: what comes out of the caller's telephone when the agent's side goes quiet."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.sandbox.script import PLAIN, Heard, Noise, Say, Start, Step
from bridge.sandbox.turns import Faults
from supportvoice.rehearsal import Rehearsed, rehearse, words


def heard(call: Rehearsed) -> list[str | None]:
    return [final.clip_name for final in call.phone.heard if final.complete]


def test_an_agent_that_never_answers_again_costs_the_caller_eight_seconds_and_leads_to_a_person() -> None:
    call = rehearse(PLAIN, words("quiet"), faults=Faults(falls_silent=True, strikes_after_s=0.0))
    assert heard(call) == ["greeting", "trouble", "one_moment", "connecting_colleague"]  # and there is no other agent
    assert call.closing is not None
    assert (call.closing.why, call.closing.raw) == ("agent-lost", "dead air")
    asked, sorry, _ = (final.started_at for final in call.phone.heard[1:])
    finished = [note.at for note in call.notes if note.kind == "user-speech-stopped"][-1]
    assert 3.9 <= asked - finished <= 4.2
    assert 7.9 <= sorry - finished <= 8.2


@pytest.mark.parametrize("says", [True, False])
def test_an_agent_that_falls_silent_in_its_greeting_is_noticed_whether_or_not_the_caller_says_something(says: bool) -> None:
    caller = (Step(Start(4.0), Say("ask_hours")),) if says else (Step(Start(12.0), Noise("hold_music")),)
    faults = Faults(falls_silent=True, strikes_in_turn=1, strikes_after_s=1.0)
    call = rehearse(replace(PLAIN, caller=caller), words("quiet"), faults=faults)
    assert [final.clip_name for final in call.phone.heard] == ["greeting", "trouble", "one_moment", "connecting_colleague"]
    assert call.closing is not None
    assert (call.closing.why, call.closing.raw) == ("agent-lost", "dead air")
    quiet_since = max(
        call.phone.heard[0].ended_at, *(moment.at + 1.9 for moment in call.phone.timeline if moment.what == "caller-says"), 0.0
    )
    assert 3.7 <= call.phone.heard[1].started_at - quiet_since <= 4.5


def test_an_agent_that_hears_nothing_asks_twice_and_is_given_up() -> None:
    caller = (*PLAIN.caller[:1], Step(Heard("say_again"), Say("ask_hours")), Step(Heard("say_again"), Say("ask_hours")))
    call = rehearse(replace(PLAIN, caller=caller), words("quiet"), faults=Faults(deaf=True))
    assert heard(call) == ["greeting", "say_again", "say_again", "trouble", "one_moment", "connecting_colleague"]
    assert call.closing is not None
    assert (call.closing.why, call.closing.raw) == ("agent-lost", "dead air")


def test_a_slow_model_costs_the_caller_a_sentence_and_nothing_else() -> None:
    call = rehearse(PLAIN, words("quiet"), faults=Faults(slow_s=6.0, strikes_after_s=0.0))
    assert heard(call) == ["greeting", "trouble", "opening_hours", "goodbye"]
    assert call.closing is not None
    assert call.closing.why == "agent-ended"
    assert len(call.details("dead-air")) == 1


def test_in_an_ordinary_call_nobody_is_asked_for_patience() -> None:
    assert rehearse(PLAIN, words("quiet")).details("dead-air") == []


def test_a_caller_whom_vapi_does_not_understand_is_asked_again_and_helped() -> None:
    """An agent that wants words takes all else for noise, and says nothing to it."""
    first = Step(Heard("greeting", then_s=0.4), Noise("street"))
    then = (Step(Heard("say_again"), Say("ask_hours")), *PLAIN.caller[1:])
    call = rehearse(replace(PLAIN, caller=(first, *then)), words("noisy"))
    assert heard(call) == ["greeting", "say_again", "opening_hours", "goodbye"]
    assert len(call.details("caller-asked-to-repeat")) == 1
    assert call.details("dead-air") == []
    paused = next(note.at for note in call.notes if note.kind == "user-speech-stopped")
    assert 3.0 <= call.phone.heard[1].started_at - paused <= 4.0


def test_in_an_ordinary_call_nobody_is_asked_to_say_it_again() -> None:
    for preset in ("quiet", "mobile", "noisy"):
        assert rehearse(PLAIN, words(preset)).details("caller-asked-to-repeat") == []
