"""Vapi ends a session at its longest time, in the middle of a word: the core is through before it does. Time is a number."""

from __future__ import annotations

import pytest

from bridge import vapi_messages as vapi
from bridge.actions import Action, AskForAgent, Leave, TellAgent
from bridge.core import BridgeCore
from bridge.longest import ROLLED_OVER, TIME_IS_UP
from bridge.rules import Rules
from tests.bridge.test_core import CLIPS, a_call, agent_is_speaking, clears, played, run_until

LONGEST = {"longest": 100.0, "time_is_up": "Time is up."}  # a pause is looked for from 70 s on, and not waited for from 88 s on
GOES_ON = {**LONGEST, "goes_on": True}
GOODBYE = TellAgent(vapi.say("Time is up.", last=True))
SECOND = b"\xff" * 8000


def silent_until(core: BridgeCore, until: float, out: list[Action], *, since: float = 0.0) -> None:
    for second in range(int(since), int(until)):
        run_until(core, second, out)
        out += core.caller_audio(SECOND, second)
    run_until(core, until, out)


def speaks(core: BridgeCore, at: float, ms: int = 500) -> list[Action]:
    out = agent_is_speaking(core, ms=ms, at=at)
    return out + core.vapi_said(vapi.AgentStopped(), at)


def test_in_the_first_pause_near_the_end_the_agent_says_goodbye_and_the_call_ends_once_it_was_heard() -> None:
    core, out = a_call(**LONGEST), list[Action]()
    out += speaks(core, 0.0)
    silent_until(core, 69.9, out)
    assert GOODBYE not in out
    run_until(core, 70.1, out)
    assert out.count(GOODBYE) == 1
    out += speaks(core, 70.5, ms=1000)
    run_until(core, 80.0, out)
    assert Leave("agent-ended", TIME_IS_UP) in out


@pytest.mark.parametrize("who", ["agent", "caller"])
def test_who_speaks_is_let_finish_as_long_as_there_is_time(who: str) -> None:
    core, out = a_call(**LONGEST), list[Action]()
    out += speaks(core, 0.0)
    silent_until(core, 69.0, out)
    out += core.vapi_said(vapi.CallerSpoke(), 69.5) if who == "caller" else core.vapi_said(vapi.AgentStarted(), 69.5)
    silent_until(core, 75.0, out, since=69)
    assert GOODBYE not in out
    out += core.vapi_said(vapi.CallerPaused(), 75.0) if who == "caller" else core.vapi_said(vapi.AgentStopped(), 75.0)
    run_until(core, 75.5, out)
    assert (GOODBYE in out) == (who == "agent")  # the caller is owed an answer first


def test_whoever_speaks_on_and_on_hears_goodbye_in_time() -> None:
    core, out = a_call(**LONGEST), list[Action]()
    out += speaks(core, 0.0)
    silent_until(core, 69.0, out)
    out += core.vapi_said(vapi.CallerSpoke(), 69.5)
    silent_until(core, 88.2, out, since=69)
    assert GOODBYE in out


def test_nobody_interrupts_the_goodbye() -> None:
    core, out = a_call(**LONGEST), list[Action]()
    out += speaks(core, 0.0)
    silent_until(core, 70.1, out)
    out += agent_is_speaking(core, ms=2000, at=70.2)
    out += core.vapi_said(vapi.CallerSpoke(), 70.5) + core.vapi_said(vapi.CallerInterrupted(), 70.7)
    assert clears(out) == 0


def test_an_agent_that_goes_on_is_replaced_in_a_pause_and_nobody_is_told() -> None:
    core, out = a_call(**GOES_ON), list[Action]()
    out += speaks(core, 0.0)
    silent_until(core, 70.1, out)
    assert AskForAgent(ROLLED_OVER) in out
    before = len(played(out))
    held = core.caller_audio(SECOND, 70.5)
    assert held == []  # until the next one is there
    out += core.agent_connected(71.0)
    silent_until(core, 140.9, out, since=72)
    assert len(played(out)) == before
    assert not any(isinstance(action, Leave) for action in out)
    assert out.count(AskForAgent(ROLLED_OVER)) == 1
    run_until(core, 141.2, out)
    assert out.count(AskForAgent(ROLLED_OVER)) == 2


def test_without_a_pause_the_next_agent_goes_on_as_after_a_loss() -> None:
    core, out = a_call(**GOES_ON), list[Action]()
    out += speaks(core, 0.0)
    silent_until(core, 69.0, out)
    out += core.vapi_said(vapi.AgentStarted(), 69.5)
    for second in range(69, 88):  # it never comes to an end
        out += core.agent_audio(b"\x55" * 8000, second + 0.6)
        run_until(core, second + 1.1, out)
    assert AskForAgent(TIME_IS_UP) in out
    run_until(core, 92.9, out)  # once the ear has caught up
    assert CLIPS["one_moment"].ulaw in played(out)


def test_when_no_next_agent_comes_the_caller_is_led_to_people() -> None:
    core, out = a_call(**GOES_ON), list[Action]()
    out += speaks(core, 0.0)
    silent_until(core, 70.1, out)
    silent_until(core, 80.0, out, since=71)
    assert CLIPS["connecting_colleague"].ulaw in played(out)
    assert Leave("no-agent", "no sound of an agent in time") in out


@pytest.mark.parametrize("hours", [2, pytest.param(10, marks=pytest.mark.long)])
def test_a_call_of_hours_changes_its_session_twice_in_each_and_holds_no_more_than_one_of_a_minute(hours: int) -> None:
    core, out = a_call(longest=1800.0, goes_on=True), list[Action]()
    changes, now = 0, 0.0
    for second in range(hours * 3600):
        now = float(second)
        if second % 20 == 0:
            out += speaks(core, now, ms=3000)
        run_until(core, now, out)
        out += core.caller_audio(SECOND, now)
        if AskForAgent(ROLLED_OVER) in out:
            changes += 1
            out += core.agent_connected(now)
        assert not any(isinstance(action, Leave) for action in out)
        out.clear()
    assert changes == 2 * hours
    assert core._voice.held_bytes <= 3 * 8000
    assert len(core._caller._backlog) <= Rules().backlog_limit
    assert core.next_deadline() is not None
