"""One interruption can be read from its first evidence to the silence: all that is noted of it bears one name, and no other one does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from bridge import vapi_messages as vapi
from bridge.actions import Action, Noted
from bridge.core import BridgeCore
from bridge.rules import Rules
from bridge.sandbox.script import THREE_BARGE_INS
from tests.bridge.test_barge_in import TEN
from tests.bridge.test_core import CLIPS, a_call, agent_is_speaking, clears
from tests.bridge.virtual_time import Notebook, carry_a_call

CUT = ["interruption-confirmed", "tts-buffer-flushed", "agent-turn-ended"]
Chain = list[tuple[str, dict[str, Any]]]


def chains(actions: Sequence[Action]) -> dict[str, Chain]:
    """What was noted of each interruption, in its order."""
    found: dict[str, Chain] = {}
    for action in actions:
        if isinstance(action, Noted) and "interruption" in action.detail:
            rest = {key: value for key, value in action.detail.items() if key != "interruption"}
            found.setdefault(action.detail["interruption"], []).append((action.kind, rest))
    return found


def kinds(chain: Chain) -> list[str]:
    return [kind for kind, _ in chain]


@pytest.mark.parametrize("by", ["socket", "webhook"])
def test_who_told_of_it_what_was_decided_and_when_it_was_silent_bear_one_name(by: str) -> None:
    core = a_call()
    out = agent_is_speaking(core, ms=2000)
    out += core.speech_hinted(0.5) if by == "webhook" else core.vapi_said(vapi.CallerSpoke(), 0.5)
    out += core.mark_returned("1:0", 0.55)
    out += core.vapi_said(vapi.CallerInterrupted(), 0.7, by="webhook")
    out += core.vapi_said(vapi.FinalHeard("assistant", TEN), 0.8)
    (chain,) = chains(out).values()
    assert kinds(chain) == ["interruption-evidence", "clear-sent", "caller-hears-silence", *CUT, "model-told-what-was-heard"]
    told = dict(chain)
    assert told["interruption-evidence"] == {"told": "speech", "by": by}
    assert told["clear-sent"] == {"after_evidence_ms": 0}
    assert told["caller-hears-silence"] == {"ms": 50}
    assert told["interruption-confirmed"] == {"told": "interrupted", "by": "webhook"}


def test_of_one_that_was_nothing_it_is_told_too() -> None:
    core = a_call(instant=False)
    out = agent_is_speaking(core, ms=2000) + core.vapi_said(vapi.CallerSpoke(), 0.5) + core.tick(1.1)
    assert [kinds(chain) for chain in chains(out).values()] == [["interruption-evidence", "interruption-dismissed"]]


@pytest.mark.parametrize(("ends", "told"), [("turn", "turn-ended"), ("answer", "next-turn"), ("command", "asked")])
def test_whatever_else_cuts_the_agent_is_told_as_well(ends: str, told: str) -> None:
    core, out = a_call(), list[Action]()
    agent_is_speaking(core, ms=60_000)
    if ends == "command":
        out += core.flush(0.5)
    else:
        out += core.vapi_said(vapi.CallerSpoke(), 0.5) + core.vapi_said(vapi.PartialHeard("user", "stop"), 0.6)
        if ends == "answer":
            out += core.tick(1.1) + core.vapi_said(vapi.AgentStopped(), 1.2) + core.vapi_said(vapi.AgentStarted(), 1.3)
        else:
            out += core.vapi_said(vapi.AgentStopped(), 0.7)
    last = [*chains(out).values()][-1]
    decision = next(detail for kind, detail in last if kind in ("interruption-confirmed", "flush-asked"))
    assert decision == {"told": told, "by": "house" if told == "asked" else "socket"}
    assert kinds(last)[0] == ("clear-sent" if clears(out) == 0 else "interruption-evidence")


def test_a_second_one_that_needs_no_clear_has_a_name_and_evidence_of_its_own() -> None:
    core, out = a_call(), list[Action]()
    agent_is_speaking(core, ms=2000)
    out += core.vapi_said(vapi.CallerInterrupted(), 1.0)
    out += agent_is_speaking(core, ms=500, at=1.1) + core.vapi_said(vapi.CallerInterrupted(), 1.3)
    first, second = chains(out).values()
    assert kinds(first) == ["interruption-evidence", "clear-sent", *CUT]
    assert kinds(second) == ["interruption-evidence", *CUT]


def test_a_mark_that_comes_late_takes_no_moment_from_the_next_interruption() -> None:
    core, out = a_call(instant=False), list[Action]()
    agent_is_speaking(core, ms=2000)
    out += core.vapi_said(vapi.CallerInterrupted(), 1.0)
    out += agent_is_speaking(core, ms=2000, at=1.3) + core.vapi_said(vapi.CallerSpoke(), 1.5)
    out += core.mark_returned("1:0", 1.7)
    out += core.vapi_said(vapi.CallerInterrupted(), 2.0) + core.mark_returned("2:0", 2.1)
    first, second = chains(out).values()
    assert dict(first)["caller-hears-silence"] == {"ms": 700}
    assert dict(second)["clear-sent"] == {"after_evidence_ms": 500}
    assert dict(second)["caller-hears-silence"] == {"ms": 600}


def test_no_two_streams_of_a_call_have_interruptions_of_one_name() -> None:
    calls = [carry_a_call(THREE_BARGE_INS, notebook=Notebook(epoch=epoch)) for epoch in (0, 7)]
    named = [[note.detail["interruption"] for note in call.notebook.notes if note.kind == "clear-sent"] for call in calls]
    assert named == [["0.1", "0.2", "0.3"], ["7.1", "7.2", "7.3"]]


def test_the_next_stream_of_a_parked_agent_names_its_own() -> None:
    before = a_call()
    agent_is_speaking(before, ms=2000)
    before.stream_lost("stream-lost", 0.5)
    assert before.left_off is not None
    after = BridgeCore(Rules(), clips=CLIPS, now=1.0, stream=1)
    out = after.take_up(before.left_off, 1.0) + after.vapi_said(vapi.CallerInterrupted(), 1.2)
    assert [*chains(out)] == ["1.1"]
