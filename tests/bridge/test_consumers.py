"""What the consumer does with the world around the core: proofs, commands, bad company, a history that is away."""

from __future__ import annotations

import asyncio

import pytest
from pytest_django import Settings

from bridge.ports import Command
from bridge.sandbox.script import PLAIN, TECHFLOW
from tests.bridge.virtual_time import Notebook, TwilioPipe, carry_a_call


@pytest.fixture(autouse=True)
def no_channel_layer(settings: Settings) -> None:
    settings.CHANNEL_LAYERS = {}


@pytest.mark.parametrize(("token", "away"), [("wrong", False), ("right", True)], ids=["wrong token", "history away"])
def test_a_stream_that_is_not_proven_is_closed_and_leaves_no_trace(token: str, away: bool) -> None:
    call = carry_a_call(PLAIN, token=token, notebook=Notebook(away=away))
    assert (call.facts.end, call.facts.close_code) == ("server-closed", 1008)
    assert (call.notebook.notes, call.notebook.closing, call.notebook.beats) == ([], None, 0)


def test_without_a_session_the_caller_hears_so_and_the_ladder_goes_on() -> None:
    call = carry_a_call(PLAIN, notebook=Notebook(state="failed"))
    assert call.notebook.closing is not None
    assert call.notebook.closing.why == "no-agent"
    assert [final.clip_name for final in call.phone.heard] == ["connecting_colleague"]


@pytest.mark.parametrize(("verb", "why"), [("hand-over", "handed-over"), ("end-call", "agent-ended"), ("hang-up", "hung-up")])
def test_a_command_is_obeyed_once_and_after_the_last_word(verb: str, why: str) -> None:
    call = carry_a_call(PLAIN, notebook=Notebook(waiting=[Command(7, verb)]))
    assert call.notebook.closing is not None
    assert call.notebook.closing.why == why
    assert call.notebook.obeyed == [7]
    assert call.evidence.kinds("in")[-2:] == ["end-call", "close"] or call.evidence.kinds("in")[-1] == "end-call"


def test_what_staff_type_is_spoken_by_the_agent() -> None:
    call = carry_a_call(PLAIN, notebook=Notebook(waiting=[Command(1, "say", {"text": "One moment, please."})]))
    assert [said["content"] for said in call.evidence.details("in", "say")] == ["One moment, please."]
    assert "one_moment" in [final.clip_name for final in call.phone.heard]


def test_twenty_bad_messages_in_a_row_are_not_twilio() -> None:
    async def garble(pipe: TwilioPipe) -> None:
        await asyncio.sleep(3.0)
        for _ in range(20):
            pipe.server.arrived.put_nowait('{"event":"media","media":{"payload":"!"}}')

    call = carry_a_call(TECHFLOW, meddle=garble)
    assert call.notebook.closing is not None
    assert (call.notebook.closing.why, call.notebook.closing.raw) == ("agent-lost", "bad stream messages")
    assert call.notebook.closing.figures["audio"]["bad_messages"] == 20


def test_a_few_bad_messages_are_dropped_and_counted_and_nobody_hears_of_it() -> None:
    async def stammer(pipe: TwilioPipe) -> None:
        for _ in range(12):
            await asyncio.sleep(0.8)
            pipe.server.arrived.put_nowait("stammer")

    call = carry_a_call(PLAIN, meddle=stammer)
    assert [final.clip_name for final in call.phone.heard] == ["greeting", "opening_hours", "goodbye"]
    assert call.notebook.closing is not None
    assert call.notebook.closing.figures["audio"]["bad_messages"] == 12


def test_a_live_call_gives_signs_of_life() -> None:
    call = carry_a_call(PLAIN)
    assert call.notebook.beats == pytest.approx(call.seconds / 5, abs=2)
