"""Whole calls on a virtual clock: sandbox, codecs, core and consumer in one process, minutes in moments."""

from __future__ import annotations

import asyncio
import json

import pytest
from pytest_django import Settings

from bridge.audio import seconds
from bridge.sandbox.script import PLAIN, TECHFLOW, TEN_MINUTES, THREE_BARGE_INS, Scenario
from bridge.sandbox.turns import Faults
from tests.bridge import virtual_time
from tests.bridge.virtual_time import Notebook, OneCall, TwilioPipe, carry_a_call


@pytest.fixture(autouse=True)
def no_channel_layer(settings: Settings) -> None:
    settings.CHANNEL_LAYERS = {}


def sound_that_arrived(call: OneCall) -> bytes:
    """The caller's bytes at Vapi, without the silence the bridge put before the first frame."""
    filled = figures(call)["silence_to_agent"]
    assert 0 < filled < 800
    return bytes(call.evidence.uplink[filled:])


def figures(call: OneCall) -> dict[str, int]:
    assert call.notebook.closing is not None
    audio: dict[str, int] = call.notebook.closing.figures["audio"]
    return audio


def test_the_call_of_the_article() -> None:
    call = carry_a_call(TECHFLOW)
    assert call.facts.violations == []
    assert [final.text for final in call.evidence.understood][1] == "I already tried that"
    assert call.notebook.closing is not None
    assert call.notebook.closing.why == "agent-ended"
    heard = [(final.clip_name, final.complete) for final in call.phone.heard]
    assert heard == [("greeting", True), ("reset_steps", False), ("ask_email", True), ("account_locked", True), ("goodbye", True)]


@pytest.mark.parametrize("scenario", [PLAIN, TECHFLOW, THREE_BARGE_INS], ids=lambda scenario: scenario.name)
@pytest.mark.parametrize("seed", range(3))
def test_sound_is_byte_exact_both_ways_under_the_vendors_odd_chunks(scenario: Scenario, seed: int) -> None:
    call = carry_a_call(scenario, seed=seed)
    arrived = sound_that_arrived(call)
    assert len(arrived) > len(call.uplink) - 8000  # the last second passed while the goodbye was heard
    assert call.uplink.startswith(arrived)
    audio = figures(call)
    assert audio["from_agent"] == len(call.evidence.downlink)
    assert audio["to_caller"] == call.facts.audio_bytes
    if scenario is PLAIN:
        agents_sound = call.phone.playout.heard(call.facts.first_media_at or 0, call.facts.ended_at or 0).replace(b"\xff", b"")
        assert agents_sound == bytes(call.evidence.downlink).replace(b"\xff", b"")


def test_after_a_clear_at_most_40_ms_of_the_interrupted_turn_are_played() -> None:
    call = carry_a_call(THREE_BARGE_INS)
    assert len(call.facts.clears) == 3
    for clear in call.facts.clears:
        assert call.phone.playout.sound_ms(clear, clear + 0.9) <= 40
    flushed = [note for note in call.notebook.notes if note.kind == "tts-buffer-flushed"]
    assert len(flushed) == 3
    assert all(100 <= note.detail["cancelled_ms"] <= 800 for note in flushed)


WIDE = {"wideband": True}


def test_the_call_of_the_article_in_wide_sound() -> None:
    call = carry_a_call(TECHFLOW, notebook=Notebook(admission=WIDE))
    assert call.facts.violations == []
    assert [(final.text, final.complete) for final in call.evidence.understood][1] == ("I already tried that", True)
    assert call.notebook.closing is not None
    assert call.notebook.closing.why == "agent-ended"
    heard = [(final.clip_name, final.complete) for final in call.phone.heard]
    assert heard == [("greeting", True), ("reset_steps", False), ("ask_email", True), ("account_locked", True), ("goodbye", True)]
    assert len(call.facts.clears) == 1
    assert call.phone.playout.sound_ms(call.facts.clears[0], call.facts.clears[0] + 0.9) <= 40


@pytest.mark.parametrize("odd_sizes", [False, True])
def test_wide_sound_loses_nothing_and_is_counted_as_the_telephones(odd_sizes: bool) -> None:
    call = carry_a_call(PLAIN, notebook=Notebook(admission=WIDE), faults=Faults(odd_sizes=odd_sizes))
    audio = figures(call)
    assert audio["from_agent"] == len(call.evidence.downlink) == audio["to_caller"] == call.facts.audio_bytes
    to_vapi = len(call.evidence.uplink) - audio["silence_to_agent"]
    assert 0 <= len(call.uplink) - to_vapi < 8000  # the last second passed while the goodbye was heard
    assert [final.complete for final in call.phone.heard] == [True] * 3
    assert [final.complete for final in call.evidence.understood] == [True] * 2


@pytest.mark.parametrize("wants", [{}, WIDE], ids=["telephone", "wideband"])
def test_every_hop_counts_what_was_seen_at_its_two_ends_and_the_hops_add_up(wants: dict[str, bool]) -> None:
    call = carry_a_call(THREE_BARGE_INS, notebook=Notebook(admission=wants))
    audio, at_vapi = figures(call), call.evidence
    assert 0 <= len(call.uplink) - audio["from_caller"] <= 3 * 160  # what comes after the call was left is counted by nobody
    assert audio["from_caller_frames"] == audio["from_caller"] // 160
    assert (audio["from_agent"], audio["to_caller"]) == (len(at_vapi.downlink), call.facts.audio_bytes)
    assert audio["to_caller_frames"] == call.facts.media_received
    assert 0 <= audio["to_agent_frames"] - at_vapi.uplink_messages < 50  # Vapi listens until it ends, a second before we know
    assert audio["from_agent_frames"] >= len(at_vapi.chunks)  # wide ones are now and then cut in two
    assert audio["from_agent_held_most"] > 0
    unheard = audio["from_caller_dropped"] + audio["from_caller_left"]
    assert audio["to_agent"] == audio["from_caller"] + audio["silence_to_agent"] - unheard
    unsent = audio["from_agent_dropped"] + audio["from_agent_let_go"] + audio["from_agent_left"]
    assert audio["to_caller"] == audio["from_agent"] + audio["clips"] + audio["to_caller_taken_back"] - unsent


class MutePipe(TwilioPipe):
    """Nothing of the caller's comes any more, from the third second on."""

    def __init__(self) -> None:
        super().__init__()
        self._mute_from = asyncio.get_running_loop().time() + 3.0

    async def send(self, text: str) -> None:
        if asyncio.get_running_loop().time() < self._mute_from or json.loads(text)["event"] != "media":
            await super().send(text)


def test_a_vapi_that_gets_nothing_of_the_caller_gets_a_second_of_silence_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang_up(twilio: TwilioPipe) -> None:
        await asyncio.sleep(8.0)
        twilio.abort()

    monkeypatch.setattr(virtual_time, "TwilioPipe", MutePipe)
    call = carry_a_call(PLAIN, meddle=hang_up)
    assert 4.9 <= seconds(figures(call)["silence_to_agent"]) <= 5.05  # and what was put before the first frame


def test_ten_minutes_of_talk_leave_nothing_behind() -> None:
    call = carry_a_call(TEN_MINUTES)
    assert call.seconds >= 600
    assert call.facts.violations == []
    assert call.facts.frames_sent > 29_000
    assert len(call.facts.clears) == sum(note.kind == "interruption-confirmed" for note in call.notebook.notes) == 24
    assert [final.clip_name for final in call.phone.heard][-1] == "goodbye"


def test_a_vapi_that_hears_nothing_is_made_to_ask_the_caller_again() -> None:
    call = carry_a_call(PLAIN, faults=Faults(deaf=True, close_after_s=20.0, close_code=1000))
    assert call.evidence.understood == []
    assert [final.clip_name for final in call.phone.heard] == ["greeting", "say_again", "one_moment", "connecting_colleague"]


def test_a_vapi_socket_that_breaks_is_explained_to_the_caller_and_left_for_the_resume_door() -> None:
    call = carry_a_call(PLAIN, faults=Faults(close_after_s=6.0, close_code=1011))
    assert call.notebook.closing is not None
    assert call.notebook.closing.why == "agent-lost"
    assert call.notebook.closing.raw == "socket closed with 1011"
    assert [final.clip_name for final in call.phone.heard][-1] == "connecting_colleague"
    assert call.phone.heard[-1].complete
