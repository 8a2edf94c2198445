"""A process that leaves asks its calls to go on elsewhere: no sentence is cut by it, neither the agent's nor the caller's."""

from __future__ import annotations

import pytest

from bridge import vapi_messages as vapi
from bridge.actions import Action, Leave
from bridge.carried import Carried
from bridge.core import BridgeCore
from bridge.rules import Rules
from tests.bridge.test_core import CLIPS, a_call, agent_is_speaking, clears, played, run_until
from tests.bridge.test_dead_air import after_the_greeting, caller_says

ELSEWHERE = Leave("drained")


def test_a_call_in_which_nobody_is_in_the_middle_of_anything_goes_at_once() -> None:
    assert after_the_greeting().hand_on(2.0) == [ELSEWHERE]


def test_the_agents_sentence_is_heard_to_its_end_first() -> None:
    core = a_call()
    out = agent_is_speaking(core, ms=3000)
    out += core.hand_on(1.0)
    run_until(core, 2.9, out)
    out += core.vapi_said(vapi.AgentStopped(), 2.9)
    assert ELSEWHERE not in out
    out += core.mark_returned("0:3000", 3.0)
    assert len(played(out)) == 3000 * 8
    assert out[-1] == ELSEWHERE


def test_a_last_mark_that_never_comes_is_not_waited_for_for_ever() -> None:
    core = a_call()
    out = agent_is_speaking(core, ms=1000)
    out += core.vapi_said(vapi.AgentStopped(), 0.5) + core.hand_on(0.6)
    run_until(core, 2.3, out)
    assert out[-1] == ELSEWHERE


def test_a_caller_who_speaks_is_heard_out_and_answered_first() -> None:
    core = after_the_greeting()
    out = core.vapi_said(vapi.CallerSpoke(), 2.0)
    out += core.hand_on(2.1)
    out += core.vapi_said(vapi.PartialHeard("user", "what are your opening hours"), 2.9) + core.vapi_said(vapi.CallerPaused(), 3.0)
    run_until(core, 3.5, out)
    out += core.vapi_said(vapi.AgentStarted(), 3.5) + core.agent_audio(b"\x55" * 8000, 3.5)
    run_until(core, 4.4, out)
    out += core.vapi_said(vapi.AgentStopped(), 4.4)
    assert ELSEWHERE not in out
    out += core.mark_returned("0:1800", 4.6)
    assert out[-1] == ELSEWHERE


def test_the_agent_may_still_be_interrupted_meanwhile() -> None:
    core = a_call()
    out = agent_is_speaking(core, ms=3000) + core.hand_on(0.5)
    out += core.vapi_said(vapi.CallerSpoke(), 1.0)
    assert clears(out) == 1


def test_nobody_goes_before_the_agent_has_said_its_first_word() -> None:
    core = a_call()
    out = core.hand_on(0.1)
    out += agent_is_speaking(core, ms=800, at=0.8)
    assert ELSEWHERE not in out


def test_whatever_is_being_said_the_call_goes_within_twenty_seconds() -> None:
    core = after_the_greeting()
    out = core.vapi_said(vapi.CallerSpoke(), 2.0) + core.hand_on(2.0)
    run_until(core, 21.9, out)
    assert not [action for action in out if isinstance(action, Leave)]
    run_until(core, 22.1, out)
    assert [action.why for action in out if isinstance(action, Leave)] == ["drained"]


def test_an_agent_that_is_lost_meanwhile_is_replaced_elsewhere() -> None:
    core = after_the_greeting()
    caller_says(core, "what are your opening hours")
    assert core.hand_on(3.1) == []
    assert core.agent_lost(3.2, raw="socket closed with 1011") == [Leave("agent-lost", "socket closed with 1011")]


@pytest.mark.parametrize("how", ["handed over", "asked twice"])
def test_a_call_that_is_leaving_already_is_left_to_it(how: str) -> None:
    core, out = BridgeCore(Rules(), clips=CLIPS, now=0.0), list[Action]()
    core.agent_connected(0.0)
    out += agent_is_speaking(core, ms=3000)
    out += core.leave_after_last_word("handed-over", 0.5) if how == "handed over" else core.hand_on(0.5)
    assert core.hand_on(1.0) == []


def test_streams_are_asked_one_by_one_the_oldest_first_and_those_that_are_over_not_at_all() -> None:
    carried, asked = Carried(), list[str]()
    with carried.during(lambda: asked.append("first")), carried.during(lambda: asked.append("second")):
        with carried.during(lambda: asked.append("over")):
            pass
        assert [carried.hand_on_next() for _ in range(3)] == [True, True, False]
    assert asked == ["first", "second"]
