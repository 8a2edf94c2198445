"""Dead air in whole calls: what comes out of the caller's telephone when the agent's side goes quiet."""

from __future__ import annotations

from bridge.sandbox.script import PLAIN
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


def test_a_slow_model_costs_the_caller_a_sentence_and_nothing_else() -> None:
    call = rehearse(PLAIN, words("quiet"), faults=Faults(slow_s=6.0, strikes_after_s=0.0))
    assert heard(call) == ["greeting", "trouble", "opening_hours", "goodbye"]
    assert call.closing is not None
    assert call.closing.why == "agent-ended"
    assert len(call.details("dead-air")) == 1


def test_in_an_ordinary_call_nobody_is_asked_for_patience() -> None:
    assert rehearse(PLAIN, words("quiet")).details("dead-air") == []
