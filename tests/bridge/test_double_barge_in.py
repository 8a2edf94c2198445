"""Two thousand ways to be told twice of an interruption: one `clear` for each, and next to nothing of the cut turn after it.

What is told comes from two sources, socket and webhook, in any order and with any gap, and each tells that the caller speaks as
well; the telephone is the sandbox's playout model, which alone says what the caller heard.
"""

from __future__ import annotations

from itertools import pairwise, product
from random import Random

import pytest

from bridge import vapi_messages as vapi
from bridge.actions import Action, Noted
from bridge.core import BridgeCore
from bridge.rules import Rules
from bridge.sandbox.playout import Playout
from bridge.voice import FlushCaller, MarkCaller, ToCaller
from tests.bridge.test_core import CLIPS

PATTERNS = 2000
GAPS_S = (0.0, 0.0, 0.001, 0.1, 0.43, 0.499, 0.5, 0.501, 0.57, 0.9, 1.15)
DEBOUNCE_S, RESIDUAL_S = 0.5, 0.04
CUT, SECOND = b"\x55", b"\x66"
TELLINGS = [*product(("socket", "webhook"), ("speech", "interrupted"))]


class Talk:
    """An agent in the middle of a long sentence, and the ear of its caller."""

    def __init__(self) -> None:
        self.now = 100.0
        self.core = BridgeCore(Rules(), clips=CLIPS, now=self.now)
        self.phone = Playout(self.now)
        self.clears: list[float] = []
        self.told_of: list[Noted] = []
        self.after_clear = 0
        self.sent = b""
        self.do(self.core.agent_connected(self.now))
        self.do(self.core.vapi_said(vapi.AgentStarted(), self.now))
        self.sound(CUT * 8000 * 4)

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case ToCaller(ulaw):
                    self.after_clear += ulaw.count(CUT) if self.clears else 0
                    self.sent += ulaw
                    self.phone.play(ulaw, self.now)
                case MarkCaller(name):
                    self.phone.mark(name, self.now)
                case Noted():
                    self.told_of.append(action)
                case FlushCaller():
                    self.clears.append(self.now)
                    for name in self.phone.clear(self.now).marks:
                        self.do(self.core.mark_returned(name, self.now))

    def sound(self, ulaw: bytes) -> None:
        self.sound_at = self.now
        self.do(self.core.agent_audio(ulaw, self.now))

    def told(self, source: str, what: str) -> None:
        """As `bridge.consumers` passes it on: a webhook's word of speech has a way of its own."""
        if what == "interrupted":
            self.do(self.core.vapi_said(vapi.CallerInterrupted(), self.now))
        elif source == "webhook":
            self.do(self.core.speech_hinted(self.now))
        else:
            self.do(self.core.vapi_said(vapi.CallerSpoke(), self.now))

    def names(self, kind: str) -> list[str]:
        """Of the interruptions of which this was noted."""
        return [noted.detail["interruption"] for noted in self.told_of if noted.kind == kind]

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


def told_at_once(chance: Random) -> list[tuple[str, str]]:
    """Of an interruption, by either source or both, in any order."""
    told = chance.sample(TELLINGS, k=chance.randint(1, len(TELLINGS)))
    return told if any(what == "interrupted" for _, what in told) else [*told, (chance.choice(["socket", "webhook"]), "interrupted")]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("first", [("socket", "speech"), ("webhook", "speech"), None], ids=["socket first", "webhook first", "any"])
def test_each_interruption_is_one_clear_whoever_tells_of_it_how_often(seed: int, first: tuple[str, str] | None) -> None:
    """`first`: who tells that the caller speaks, before anybody calls it an interruption; that comes before it would be dismissed."""
    chance = Random(f"{seed} {first}")
    for _ in range(PATTERNS // 30):
        talk, at, moments = Talk(), 101.0 + chance.random(), [told_at_once(chance) for _ in range(chance.randint(1, 5))]
        gaps_s = chance.choices(GAPS_S, k=len(moments))
        if first is not None:
            moments.insert(0, [first])
            gaps_s.insert(1, chance.choice([gap_s for gap_s in GAPS_S if gap_s < Rules().confirm]))
        times: list[float] = []
        for told, gap_s in zip(moments, gaps_s, strict=True):
            at += gap_s
            times.append(at)
            talk.pass_to(at)
            if not talk.clears:
                talk.sound(CUT * 800)
            for source, what in told:
                talk.told(source, what)
            talk.sound(CUT * chance.randint(1, 800))  # it was on its way, on a socket that may have stalled
        talk.pass_to(at + 2.0)
        clears = talk.clears
        assert clears[0] == times[0]
        assert all(later - earlier >= DEBOUNCE_S - 1e-9 for earlier, later in pairwise(clears))
        assert clears == pytest.approx(expected(times))
        assert talk.after_clear <= RESIDUAL_S * 8000
        assert len(talk.names("clear-sent")) == len({*talk.names("clear-sent")}) == len(clears)
        assert {*talk.names("clear-sent"), *talk.names("interruption-confirmed")} <= {*talk.names("interruption-evidence")}
        assert talk.names("caller-hears-silence") == talk.names("clear-sent")


def cut_right_after_a_clear() -> tuple[Talk, int]:
    """Two turns, both cut: the second one less than 500 ms after the clear for the first, so that what Twilio has of it is heard."""
    talk = Talk()
    talk.pass_to(101.0)
    talk.told("socket", "interrupted")
    talk.do(talk.core.vapi_said(vapi.AgentStarted(), talk.now))
    talk.do(talk.core.agent_audio(SECOND * 4000, talk.now))
    talk.pass_to(101.25)
    talk.do(talk.core.agent_audio(SECOND * 4000, talk.now))
    talk.pass_to(101.3)
    talk.told("socket", "interrupted")
    assert talk.clears == [101.0]
    return talk, talk.sent.count(SECOND)


@pytest.mark.parametrize("told_at", [101.31, 101.45, 101.55, 102.0])
@pytest.mark.parametrize("goes_on", [False, True], ids=["and nothing follows", "and another turn follows"])
def test_a_turn_cut_right_after_a_clear_is_not_played_again_when_a_later_noise_was_nothing(told_at: float, goes_on: bool) -> None:
    talk, sent = cut_right_after_a_clear()
    if goes_on:
        talk.do(talk.core.vapi_said(vapi.AgentStarted(), talk.now))
        talk.do(talk.core.agent_audio(CUT * 8000, talk.now))
    talk.pass_to(told_at)
    talk.told("socket", "speech")
    talk.pass_to(105.0)
    assert talk.sent.count(SECOND) == sent


def test_sound_on_its_way_of_a_turn_cut_right_after_a_clear_is_dropped_though_the_caller_is_told_to_speak() -> None:
    """Vapi may tell of the interruption first, and of the speech that made it after that."""
    talk, sent = cut_right_after_a_clear()
    talk.told("socket", "speech")
    talk.pass_to(101.4)
    talk.do(talk.core.agent_audio(SECOND * 800, talk.now))
    talk.pass_to(105.0)
    assert talk.sent.count(SECOND) == sent
