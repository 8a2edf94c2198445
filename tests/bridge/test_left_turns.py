"""A turn that nobody cut, and that is over because the call, the stream or the agent is gone: what was heard of it by then is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
from pytest_django import Settings

from bridge import vapi_messages as vapi
from bridge.actions import Action, AskForAgent, Leave
from bridge.core import BridgeCore
from bridge.sandbox.script import PLAIN
from tests.bridge.test_core import CLIPS, a_call, agent_is_speaking, noted, run_until
from tests.bridge.virtual_time import TwilioPipe, carry_a_call

STOP = '{"event":"stop","sequenceNumber":"9","streamSid":"MZ1","stop":{"accountSid":"AC1","callSid":"CA1"}}'
A_MARK_MS = 200

Goes = Callable[[BridgeCore, float], list[Action]]


@pytest.fixture(autouse=True)
def no_channel_layer(settings: Settings) -> None:
    settings.CHANNEL_LAYERS = {}


def hangs_up(core: BridgeCore, now: float) -> list[Action]:
    return core.caller_left(now)


def loses_the_stream(core: BridgeCore, now: float) -> list[Action]:
    return core.stream_lost("stream-lost", now)


def ended(actions: Sequence[Action]) -> list[dict[str, object]]:
    return [dict(note.detail) for note in noted(actions, "agent-turn-ended")]


@pytest.mark.parametrize("goes", [hangs_up, loses_the_stream])
@pytest.mark.parametrize("all_is_sent", [True, False], ids=["vapi has sent all of it", "vapi is sending"])
def test_of_a_sentence_under_which_the_call_is_left_only_what_was_heard_counts_as_heard(goes: Goes, all_is_sent: bool) -> None:
    core = a_call()
    out = agent_is_speaking(core, ms=5000)
    if all_is_sent:
        out += core.vapi_said(vapi.AgentStopped(), 0.0)
    run_until(core, 0.7, out)
    out += core.mark_returned("0:600", 0.7)
    out += goes(core, 0.7)
    last = ended(out)[-1]
    assert last == {"said_ms": 5000, "heard_ms": last["heard_ms"], "interrupted": True, "left": True}
    assert 600 <= int(str(last["heard_ms"])) <= 700
    assert isinstance(out[-1], Leave)


@pytest.mark.parametrize("goes", [hangs_up, loses_the_stream])
def test_of_a_sentence_that_was_heard_to_its_end_nothing_more_is_told(goes: Goes) -> None:
    core = a_call()
    out = agent_is_speaking(core, ms=1000) + core.vapi_said(vapi.AgentStopped(), 0.0)
    run_until(core, 1.2, out)
    core.mark_returned("0:1000", 1.2)
    assert ended(goes(core, 2.0)) == []


def test_a_last_word_that_takes_too_long_is_cut_and_said_to_be() -> None:
    core = a_call()
    out = agent_is_speaking(core, ms=60_000)
    core.leave_after_last_word("agent-ended", 0.0)
    run_until(core, 30.0, out)
    [told] = ended(out)
    assert told["said_ms"] == 60_000
    assert 17_000 <= int(str(told["heard_ms"])) <= 20_000


def test_what_an_agent_had_said_when_it_was_lost_is_played_and_counts_as_heard() -> None:
    core = a_call()
    agent_is_speaking(core, ms=700)
    out = core.agent_lost(0.1)
    assert ended(out) == [{"said_ms": 700, "heard_ms": 700, "interrupted": True, "left": True}]
    assert isinstance(out[-1], AskForAgent)


def test_what_goes_on_with_the_next_stream_is_one_turn_and_heard_to_its_end() -> None:
    before = a_call()
    agent_is_speaking(before, ms=2000)
    before.stream_lost("stream-lost", 0.5)
    assert before.left_off is not None
    after = BridgeCore(a_call()._rules, clips=CLIPS, now=1.0)
    out = after.take_up(before.left_off, 1.0) + after.agent_audio(b"\x55" * 8000, 1.1) + after.vapi_said(vapi.AgentStopped(), 1.2)
    assert ended(out) == [{"said_ms": 3000, "heard_ms": 3000, "interrupted": False}]


@pytest.mark.parametrize("after_s", [2.0, 2.6, 3.1])
def test_what_is_told_of_a_caller_who_hangs_up_is_what_came_out_of_the_telephone(after_s: float) -> None:
    async def hang_up(pipe: TwilioPipe) -> None:
        await asyncio.sleep(after_s)
        pipe.server.arrived.put_nowait(STOP)

    call = carry_a_call(PLAIN, meddle=hang_up)
    assert call.notebook.closing is not None
    assert call.notebook.closing.why == "caller-left"
    told = call.notebook.details("agent-turn-ended")[-1]
    began = call.notebook.notes[0].at
    heard_ms = call.phone.playout.played_ms(began, began + after_s)
    assert told["left"]
    assert heard_ms - A_MARK_MS <= told["heard_ms"] <= heard_ms
