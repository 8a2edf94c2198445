"""Where callers call from, heard at the caller's telephone: noise reaches the sandbox Vapi, which decides by the payload's plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.presets import PRESETS
from bridge.sandbox.script import ECHO, HOLD_MUSIC, NOISY, STREET, Scenario
from supportvoice.rehearsal import Rehearsed, rehearse, time_to_silence_ms, words

PAGE = Path(__file__).parents[2] / "docs" / "interruptions.md"


def sound_lost(call: Rehearsed) -> int:
    """Bytes of the agent's that never reached the caller."""
    assert call.closing is not None
    audio = call.closing.figures["audio"]
    return int(audio["from_agent"] - audio["to_caller"] + audio["to_caller_taken_back"])


@pytest.mark.parametrize("scenario", NOISY, ids=lambda scenario: scenario.name)
def test_on_a_noisy_line_no_sentence_of_the_agent_is_cut_by_what_is_no_speech(scenario: Scenario) -> None:
    call = rehearse(scenario, words("noisy"))
    assert len([final for final in call.phone.heard if final.complete]) == 3
    assert (call.sentences_cut, sound_lost(call), call.details("clear-sent")) == (0, 0, [])
    assert call.details("interruption-dismissed") != []


@pytest.mark.parametrize("scenario", [HOLD_MUSIC, STREET, ECHO], ids=lambda scenario: scenario.name)
def test_the_same_noise_cuts_an_agent_that_is_set_for_quiet_rooms(scenario: Scenario) -> None:
    assert rehearse(scenario, words("quiet", max_duration_s=40)).sentences_cut > 0


def test_the_page_tells_what_each_preset_costs_in_time_to_silence() -> None:
    rows = [line.split("|")[1:-1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    told = {row[0].strip(" `"): row[-1].strip() for row in rows}
    assert told == {name: f"{time_to_silence_ms(name)} ms" for name in PRESETS}
