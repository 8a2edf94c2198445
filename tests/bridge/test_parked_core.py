"""An agent goes from one stream to the next: what the two cores do, and what is kept between them."""

from __future__ import annotations

import asyncio
import json
from random import Random

import pytest

from bridge import vapi_messages as vapi
from bridge.actions import Action, AskForAgent, Leave, ToAgent
from bridge.core import BridgeCore
from bridge.lately import Lately
from bridge.parked import MESSAGE_LIMIT, TEXT_LIMIT, Meanwhile
from bridge.parking import Over, Parking
from bridge.rules import Rules
from bridge.tone import TONE
from bridge.vapi_link import VapiLink
from tests.bridge.test_core import CLIPS, a_call, agent_is_speaking, clears, noted, played, run_until
from tests.bridge.test_dead_air import after_the_greeting, caller_says, dead_air_at

ENDED = json.dumps({"type": "status-update", "status": "ended", "endedReason": "assistant-ended-call"})


def taken_up(before: BridgeCore, now: float, out: list[Action]) -> BridgeCore:
    """The next stream's core, of a call whose stream was lost."""
    assert before.left_off is not None
    core = BridgeCore(Rules(), clips=CLIPS, now=now - 0.1)
    out += core.take_up(before.left_off, now)
    return core


def test_the_rest_of_the_sentence_is_heard_and_then_what_the_agent_said_meanwhile() -> None:
    sentence = Random(1).randbytes(3000 * 8)
    before, out = a_call(), list[Action]()
    out += before.vapi_said(vapi.AgentStarted(), 0.0) + before.agent_audio(sentence[:16000], 0.0)
    run_until(before, 1.0, out)
    before.mark_returned("0:800", 1.0)
    before.stream_lost("stream-lost", 1.0)
    heard: list[Action] = []
    after = taken_up(before, 1.5, heard)
    heard += after.agent_audio(sentence[16000:], 1.5)
    run_until(after, 3.9, heard)
    heard += after.vapi_said(vapi.AgentStopped(), 3.9)
    run_until(after, 5.0, heard)
    rest = played(heard)
    assert sentence.endswith(rest)
    assert 800 <= 3000 - len(rest) // 8 <= 1000  # proven by the mark, and not beyond the next one


def test_what_twilio_played_after_its_socket_was_dead_is_not_taken_for_heard() -> None:
    before, out = a_call(), agent_is_speaking(a_call(), ms=0)
    out += agent_is_speaking(before, ms=3000)
    before.mark_returned("0:200", 0.2)
    while (at := before.next_deadline()) is not None and at <= 2.0:  # no mark comes back any more
        before.tick(at)
    before.stream_lost("stream-lost", 2.0, raw="half-open")
    assert before.left_off is not None
    assert len(before.left_off.rest) >= 2600 * 8


def test_no_word_is_said_about_it_and_the_agent_hears_the_caller_at_once() -> None:
    before = after_the_greeting()
    before.stream_lost("stream-lost", 2.0)
    out: list[Action] = []
    after = BridgeCore(Rules(), clips=CLIPS, now=2.5)
    assert after.caller_audio(b"\x21" * 160, 2.6) == []
    assert before.left_off is not None
    out += after.take_up(before.left_off, 2.7)
    run_until(after, 8.0, out)
    assert ToAgent(b"\x21" * 160) in out
    assert played(out) == TONE.ulaw
    assert not noted(out, "greeting-heard")


def test_a_caller_who_is_back_hears_within_a_second_that_somebody_is_there() -> None:
    before, out = after_the_greeting(), list[Action]()
    before.stream_lost("stream-lost", 2.0)
    after = taken_up(before, 2.6, out)  # of a stream that began at 2.5
    run_until(after, 3.24, out)
    assert played(out) == b""
    run_until(after, 3.26, out)
    assert played(out) == TONE.ulaw


def test_a_tone_leaves_the_turn_of_the_agent_as_it_was() -> None:
    before, out = a_call(), list[Action]()
    run_until(before, 1.5, agent_is_speaking(before, ms=1000))
    before.mark_returned("0:1000", 1.5)
    before.stream_lost("stream-lost", 1.5)
    after = taken_up(before, 2.0, out)
    run_until(after, 3.5, out)
    assert played(out) == TONE.ulaw
    out += after.agent_audio(b"\x55" * 8000, 3.5)
    run_until(after, 4.4, out)
    ended = noted(after.vapi_said(vapi.AgentStopped(), 4.4), "agent-turn-ended")
    assert ended[0].detail["said_ms"] == 2000


def test_a_turn_the_caller_had_cut_stays_cut_behind_a_tone_too() -> None:
    before, out = a_call(), list[Action]()
    out += agent_is_speaking(before, ms=2000)
    out += before.vapi_said(vapi.CallerSpoke(), 0.5) + before.vapi_said(vapi.CallerInterrupted(), 0.6)
    before.stream_lost("stream-lost", 0.7)
    heard: list[Action] = []
    after = taken_up(before, 0.9, heard)
    for at in (0.9, 1.1, 1.3, 1.5, 1.7, 1.9):  # still on its way, without a pause
        run_until(after, at, heard)
        heard += after.agent_audio(b"\x55" * 800, at)
    run_until(after, 3.0, heard)
    assert played(heard) == TONE.ulaw


def test_a_caller_who_interrupts_the_rest_is_told_to_the_model_as_one_turn() -> None:
    before, out = a_call(), list[Action]()
    out += agent_is_speaking(before, ms=2000)
    run_until(before, 1.0, out)
    before.mark_returned("0:1000", 1.0)
    before.stream_lost("stream-lost", 1.0)
    after = taken_up(before, 1.5, out)
    interrupted = after.vapi_said(vapi.CallerSpoke(), 1.5) + after.vapi_said(vapi.CallerInterrupted(), 1.6)
    assert clears(interrupted) == 1
    assert noted(interrupted, "agent-turn-ended")[0].detail["said_ms"] == 2000


def test_what_the_agent_owed_the_caller_it_owes_after_the_gap_too() -> None:
    before = after_the_greeting()
    caller_says(before, "what are your opening hours")
    before.stream_lost("stream-lost", 3.1)
    after = taken_up(before, 4.0, [])
    assert dead_air_at(after, 9.0, after=4.0) == [7.0]


def test_a_turn_the_caller_had_cut_stays_cut() -> None:
    before, out = a_call(), list[Action]()
    out += agent_is_speaking(before, ms=2000)
    out += before.agent_audio(b"\x55" * 800, 0.5)
    out += before.vapi_said(vapi.CallerSpoke(), 0.5) + before.vapi_said(vapi.CallerInterrupted(), 0.6)
    out += before.agent_audio(b"\x55" * 800, 0.65)
    before.stream_lost("stream-lost", 0.7)
    heard: list[Action] = []
    after = taken_up(before, 0.9, heard)
    heard += after.agent_audio(b"\x55" * 800, 0.9)
    heard += after.vapi_said(vapi.AgentStopped(), 0.95)
    run_until(after, 2.0, heard)
    assert played(heard) == TONE.ulaw


def test_an_agent_that_is_not_there_or_not_to_stay_is_not_parked() -> None:
    nobody = BridgeCore(Rules(), clips=CLIPS, now=0.0)
    leaving, moving = a_call(), a_call()
    agent_is_speaking(leaving, ms=1000)
    leaving.leave_after_last_word("handed-over", 0.1)
    agent_is_speaking(moving, ms=1000)
    moving.hand_on(0.1)
    for core in (nobody, leaving, moving):
        core.stream_lost("stream-lost", 0.5)
        assert core.left_off is None


def test_an_agent_that_said_goodbye_meanwhile_is_heard_out_and_nobody_asks_for_another_one() -> None:
    goodbye = Random(2).randbytes(2000 * 8)
    before, heard = a_call(), list[Action]()
    before.vapi_said(vapi.AgentStarted(), 0.0)
    before.stream_lost("stream-lost", 0.1)
    after = taken_up(before, 3.0, heard)
    heard += after.agent_audio(goodbye, 3.0) + after.vapi_said(vapi.AgentStopped(), 3.0)
    heard += after.vapi_said(vapi.SessionEnded("assistant-ended-call"), 3.0)
    heard += after.agent_lost(3.0, raw="socket closed with 1000")
    run_until(after, 4.9, heard)
    assert not [action for action in heard if isinstance(action, Leave)]
    run_until(after, 6.5, heard)
    assert played(heard) == goodbye
    assert [action for action in heard if isinstance(action, Leave | AskForAgent)] == [Leave("agent-ended", "assistant-ended-call")]


@pytest.mark.parametrize(("says", "over"), [(ENDED, Over.TAKEN), ("{}", Over.AGENT_GONE)])
def test_an_agent_whose_socket_closes_is_kept_if_there_is_a_goodbye_of_it_to_be_heard(says: str, over: Over) -> None:
    async def gone() -> tuple[bool, Over]:
        before, parking = a_call(), Parking()
        before.stream_lost("stream-lost", 1.0)
        assert before.left_off is not None
        spot = parking.park(call_sid="CA1", n=0, link=VapiLink(), left_off=before.left_off, lately=Lately())
        assert spot is not None
        spot.hear(says)
        spot.agent_gone()
        return parking.take("CA1") is spot, await spot.wait()

    assert asyncio.run(gone()) == (over is Over.TAKEN, over)


def test_what_comes_meanwhile_keeps_its_order_and_is_bounded() -> None:
    meanwhile = Meanwhile(sound_limit=1000)
    for message in (b"a" * 600, "{}", b"b" * 600, b"c" * 600):
        meanwhile.hear(message)
    assert list(meanwhile) == [b"a" * 600, "{}", b"b" * 400]
    assert (meanwhile.sound_bytes, meanwhile.dropped_bytes) == (1000, 800)
    for _ in range(2 * MESSAGE_LIMIT):
        meanwhile.hear("{}")
    assert len(list(meanwhile)) == MESSAGE_LIMIT
    assert meanwhile.dropped == {"dropped_ms": 100, "dropped_texts": MESSAGE_LIMIT + 3}


def test_texts_that_come_meanwhile_are_bounded_by_their_bytes_too_and_a_short_one_still_fits() -> None:
    meanwhile, long = Meanwhile(), "é" * (TEXT_LIMIT // 5)
    for message in (long, long, long, ENDED):
        meanwhile.hear(message)
    assert list(meanwhile) == [long, long, ENDED]
    assert meanwhile.dropped == {"dropped_texts": 1}
    assert meanwhile.has_ended


def test_a_goodbye_is_recognised_among_what_comes_meanwhile() -> None:
    meanwhile = Meanwhile()
    meanwhile.hear("no JSON")
    assert not meanwhile.has_ended
    meanwhile.hear(ENDED)
    assert meanwhile.has_ended
