"""An uneven network between us and Twilio: what is learnt of it, and what the caller's ear has of that.

The telephone is the sandbox's playout model, and the network a queue each way that keeps the order, as TCP does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from bridge import vapi_messages as vapi
from bridge.actions import Action
from bridge.core import BridgeCore
from bridge.lateness import HELD_BACK_MOST_S, WAITED_MOST_S, Lateness
from bridge.rules import Rules
from bridge.sandbox.playout import Playout
from bridge.voice import FlushCaller, MarkCaller, ToCaller
from tests.bridge.test_core import CHUNKS, CLIPS, noted

FRAME_S = 0.02
BEGINS = 2.0
TURN_S, EVERY_S = 5.0, 8.0
USUAL_CUSHION_S = 0.12


@dataclass
class RoughCall:
    """A core whose messages reach the telephone late, and the other way round, while `is_rough` says so."""

    seed: int
    delay_s: float = 0.0
    jitter_s: float = 0.0
    until: float = float("inf")  # then the network is even
    now: float = 0.0
    sent: list[tuple[float, Action]] = field(default_factory=list)
    _on_its_way: list[tuple[float, int, Any]] = field(default_factory=list)
    _last: dict[str, tuple[float, float]] = field(default_factory=lambda: {"down": (-1.0, 0.0), "up": (-1.0, 0.0)})
    _count: int = 0

    def __post_init__(self) -> None:
        self.rng = Random(self.seed)
        self.phone = Playout(0.0)
        self.core = BridgeCore(Rules(agent_speaks_first=False), clips=CLIPS, now=0.0)
        self.take(self.core.agent_connected(0.0))

    def take(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, ToCaller | MarkCaller | FlushCaller):
                self.sent.append((self.now, action))
                self._post("down", action)

    def _post(self, way: str, what: Any) -> None:
        """What leaves in one moment travels together."""
        left_at, arrives_at = self._last[way]
        if left_at != self.now:
            late_s = self.delay_s + self.rng.uniform(0, self.jitter_s) if self.now < self.until else 0.0
            self._last[way] = self.now, max(arrives_at, self.now + late_s)
        self._count += 1
        heappush(self._on_its_way, (self._last[way][1], self._count, what))

    def run_to(self, until: float) -> None:
        """Time in steps of a millisecond: a telephone asks nobody when it has played something."""
        while self.now < until:
            self.now = min(round(self.now + 0.001, 6), until)
            while self._on_its_way and self._on_its_way[0][0] <= self.now:
                self._arrives(heappop(self._on_its_way)[2])
            for name in self.phone.due(self.now):
                self._post("up", name)
            if (at := self.core.next_deadline()) is not None and at <= self.now:
                self.take(self.core.tick(self.now))

    def _arrives(self, what: Any) -> None:
        match what:
            case ToCaller(ulaw):
                self.phone.play(ulaw, self.now)
            case MarkCaller(name):
                self.phone.mark(name, self.now)
            case FlushCaller():
                for name in self.phone.clear(self.now).marks:
                    self._post("up", name)
            case str(name):
                self.take(self.core.mark_returned(name, self.now))

    def agent_says(self, began: float, *, seconds: float = TURN_S) -> None:
        """A turn as Vapi sends it: as fast as it is heard, in its sizes."""
        self.run_to(began)
        self.take(self.core.vapi_said(vapi.AgentStarted(), self.now))
        place = 0
        while place < seconds * 8000:
            size = self.rng.choice(CHUNKS)
            self.run_to(began + place / 8000)
            self.take(self.core.agent_audio(b"\x55" * size, self.now))
            place += size
        self.take(self.core.vapi_said(vapi.AgentStopped(), self.now))

    def holes(self, since: float) -> list[float]:
        """What the caller heard as silence within what was said after that moment."""
        runs = [run for run in self.phone._runs if run.start / 8000 >= since]
        gaps = [(then.start - run.end) / 8000 for run, then in pairwise(runs)]
        return [gap for gap in gaps if 0 < gap < EVERY_S - TURN_S - 1.0]

    @property
    def held_back(self) -> int:
        return int(self.core.figures()["audio"]["to_caller_held_back"])


def turns(call: RoughCall, count: int, *, first: float = BEGINS) -> None:
    for n in range(count):
        call.agent_says(first + n * EVERY_S)
    call.run_to(first + count * EVERY_S)


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """A core that learns nothing of its network."""
    monkeypatch.setattr(Lateness, "cushion", lambda self, now: 0.0)
    monkeypatch.setattr(Lateness, "patience", lambda self, now: 0.0)


def stutter_ms(jitter_ms: int, *, says: int = 5) -> tuple[float, float]:
    """In all turns but the first: silence per turn, and the longest one of all."""
    holes: list[float] = []
    for seed in range(4):
        call = RoughCall(seed, delay_s=0.1, jitter_s=jitter_ms / 1000)
        turns(call, says)
        holes += call.holes(BEGINS + EVERY_S - 0.5)
    return sum(holes) * 1000 / (4 * (says - 1)), max(holes, default=0.0) * 1000


@pytest.mark.parametrize("jitter_ms", [100, 200, 300, 400])
def test_after_the_first_turn_on_an_uneven_network_the_agent_hardly_stutters(jitter_ms: int) -> None:
    a_turn, longest = stutter_ms(jitter_ms)
    assert a_turn <= 10
    assert longest <= 40


def test_the_same_agent_stutters_when_nothing_is_learnt(deaf: None) -> None:
    """What these tests are worth."""
    a_turn, longest = stutter_ms(400)
    assert a_turn >= 100
    assert longest >= 150


@pytest.mark.parametrize("jitter_ms", [0, 30])
def test_on_an_even_network_everything_leaves_at_the_moment_it_would_anyway(jitter_ms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def said() -> list[tuple[float, Action]]:
        call = RoughCall(7, delay_s=0.05, jitter_s=jitter_ms / 1000)
        turns(call, 3)
        assert call.held_back == 0
        return call.sent

    learning = said()
    monkeypatch.setattr(Lateness, "cushion", lambda self, now: 0.0)
    assert learning == said()


@pytest.mark.parametrize("delay_s", [0.3, 1.0])
def test_a_long_way_that_is_always_as_long_is_no_uneven_one(delay_s: float) -> None:
    call = RoughCall(1, delay_s=delay_s)
    turns(call, 3)
    assert call.held_back == 0


def test_nothing_is_held_back_for_longer_than_its_bound() -> None:
    call = RoughCall(3, delay_s=0.1, jitter_s=3.0)
    turns(call, 3)
    call.sent.clear()
    began = call.now + 1.0
    call.agent_says(began)
    first = next(at for at, action in call.sent if isinstance(action, ToCaller))
    assert USUAL_CUSHION_S < first - began <= HELD_BACK_MOST_S + 0.001


def test_twenty_seconds_of_calm_and_the_agent_begins_as_fast_as_ever() -> None:
    call = RoughCall(3, delay_s=0.1, jitter_s=0.4, until=BEGINS + 2 * EVERY_S)
    turns(call, 5)
    before = call.held_back
    assert before > 0
    turns(call, 2, first=call.now + 1.0)
    assert call.held_back == before


def test_what_is_held_back_is_flushed_at_once_and_was_not_heard() -> None:
    call = RoughCall(3, delay_s=0.1, jitter_s=0.4)
    turns(call, 3)
    call.sent.clear()
    call.take(call.core.vapi_said(vapi.AgentStarted(), call.now))
    call.take(call.core.agent_audio(b"\x66" * 1600, call.now))
    call.run_to(call.now + 0.1)
    said = call.core.vapi_said(vapi.CallerSpoke(), call.now) + call.core.vapi_said(vapi.CallerInterrupted(), call.now)
    assert [flushed.detail["cancelled_ms"] for flushed in noted(said, "tts-buffer-flushed")] == [200]
    call.take(said)
    call.run_to(call.now + 3.9)  # then it is dead air
    assert not any(isinstance(action, ToCaller) for _, action in call.sent)


def test_the_network_may_be_known_from_the_callers_side_alone() -> None:
    """Then the very first thing the agent says begins with a larger cushion."""
    call, rng, at = RoughCall(5), Random(5), 0.5
    for n in range(300):
        at = max(at, 0.5 + n * FRAME_S + rng.uniform(0, 0.3))
        call.run_to(at)
        call.take(call.core.caller_audio(b"\x11" * 160, at))
    call.agent_says(call.now, seconds=1.0)
    assert call.held_back == 1


# -- what is learnt --------------------------------------------------------------------------------------------------------


def test_a_hole_counts_once_it_was_made_up_for() -> None:
    lateness = Lateness()
    lateness.hole(1.0, 1.15, sound_s=1.0)
    assert lateness.patience(1.2) == 0.0
    lateness.hole(2.0, 2.06, sound_s=2.0)  # all that belongs to this second has come
    assert 0.15 < lateness.patience(2.06) <= WAITED_MOST_S
    assert lateness.patience(23.0) == 0.0


def test_a_pause_is_no_hole() -> None:
    lateness = Lateness()
    for n in range(20):
        lateness.hole(1.0 + n, 1.3 + n, sound_s=1.0 + 0.7 * n)
        assert lateness.patience(1.3 + n) == 0.0


def test_neither_goes_beyond_its_bound() -> None:
    lateness = Lateness()
    for n in range(4):
        lateness.answered(n * 2.0, 1.0 + n)
        lateness.hole(1.0 + n, 1.9 + n, sound_s=1.0 + n)
    assert lateness.cushion(5.0) == HELD_BACK_MOST_S
    assert lateness.patience(5.0) == WAITED_MOST_S
