"""Two thousand ways to be told twice of an interruption: one `clear` for each, and next to nothing of the cut turn after it.

What is told comes from two sources, socket and webhook, in any order and with any gap; the telephone is the sandbox's playout
model, which alone says what the caller heard.
"""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from bridge import vapi_messages as vapi
from bridge.actions import Action
from bridge.core import BridgeCore
from bridge.rules import Rules
from bridge.sandbox.playout import Playout
from bridge.voice import FlushCaller, MarkCaller, ToCaller
from tests.bridge.test_core import CLIPS

PATTERNS = 2000
GAPS_S = (0.0, 0.0, 0.001, 0.1, 0.43, 0.499, 0.5, 0.501, 0.57, 0.9, 1.15)
DEBOUNCE_S, RESIDUAL_S = 0.5, 0.04
CUT = b"\x55"


class Talk:
    """An agent in the middle of a long sentence, and the ear of its caller."""

    def __init__(self) -> None:
        self.now = 100.0
        self.core = BridgeCore(Rules(), clips=CLIPS, now=self.now)
        self.phone = Playout(self.now)
        self.clears: list[float] = []
        self.after_clear = 0
        self.do(self.core.agent_connected(self.now))
        self.do(self.core.vapi_said(vapi.AgentStarted(), self.now))
        self.sound(CUT * 8000 * 4)

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case ToCaller(ulaw):
                    self.after_clear += ulaw.count(CUT) if self.clears else 0
                    self.phone.play(ulaw, self.now)
                case MarkCaller(name):
                    self.phone.mark(name, self.now)
                case FlushCaller():
                    self.clears.append(self.now)
                    for name in self.phone.clear(self.now).marks:
                        self.do(self.core.mark_returned(name, self.now))

    def sound(self, ulaw: bytes) -> None:
        self.sound_at = self.now
        self.do(self.core.agent_audio(ulaw, self.now))

    def pass_to(self, until: float) -> None:
        while (at := self.core.next_deadline()) is not None and at < until:
            self.now = max(self.now, at)
            self.wakes()
        self.now = until
        self.wakes()

    def wakes(self) -> None:
        for name in self.phone.due(self.now):
            self.do(self.core.mark_returned(name, self.now))
        self.do(self.core.tick(self.now))


def expected(told: list[float]) -> list[float]:
    """500 ms run from the last clear that was sent."""
    clears: list[float] = []
    for at in told:
        if not clears or at - clears[-1] >= DEBOUNCE_S:
            clears.append(at)
    return clears


@pytest.mark.parametrize("seed", range(10))
def test_each_interruption_is_one_clear_whoever_tells_of_it_how_often(seed: int) -> None:
    chance = Random(seed)
    for _ in range(PATTERNS // 10):
        talk, at, told = Talk(), 101.0 + chance.random(), []
        for gap_s in chance.choices(GAPS_S, k=chance.randint(1, 5)):
            at += gap_s
            told.append(at)
            talk.pass_to(at)
            if not talk.clears:
                talk.sound(CUT * 800)
            talk.do(talk.core.vapi_said(vapi.CallerInterrupted(), at))
            if chance.random() < 0.5:
                talk.do(talk.core.vapi_said(vapi.CallerSpoke(), at))
            if at - talk.sound_at < Rules().new_turn_after_gap:
                talk.sound(CUT * chance.randint(1, 800))  # it was on its way; after a longer gap it is a turn that nobody announced
        talk.pass_to(at + 2.0)
        clears = talk.clears
        assert clears[0] == told[0]
        assert all(later - earlier >= DEBOUNCE_S - 1e-9 for earlier, later in pairwise(clears))
        assert clears == pytest.approx(expected(told))
        assert talk.after_clear <= RESIDUAL_S * 8000
