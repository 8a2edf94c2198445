"""Whole calls over a network that brings everything 0.1 to 0.5 s late, for twenty seconds of each: LADDER's C17, on a clock that jumps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from bridge.lateness import Lateness
from bridge.sandbox.media import PipeClosed
from bridge.sandbox.script import TECHFLOW, Step
from supportvoice.laboratory.person import Person
from tests.bridge import virtual_time
from tests.bridge.virtual_time import OneCall, TwilioPipe, carry_a_call, patience

BEGINS_S, LASTS_S = 8.6, 20.0  # in the middle of the agent's long answer
DELAY_S, JITTER_S = 0.1, 0.4
PATIENCE_S = 60.0  # a call takes half a minute
SEEDS = range(8)


class RoughPipe(TwilioPipe):
    """In order, as TCP is, and late, each way by a lot of its own."""

    seed = 0

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._ways = [_Way(self, Random(f"{self.seed} {way}")) for way in ("up", "down")]

    async def send(self, text: str) -> None:
        if self._closed is not None or self.server.closed:
            raise PipeClosed(self._closed or 1000)
        self._ways[0].post(lambda: super(RoughPipe, self).send(text))

    async def asgi_send(self, message: Mapping[str, Any]) -> None:
        self._ways[1].post(lambda: super(RoughPipe, self).asgi_send(message))

    def late_s(self, rng: Random) -> float:
        is_rough = BEGINS_S <= self._loop.time() - self._began < BEGINS_S + LASTS_S
        return DELAY_S + rng.uniform(0, JITTER_S) if is_rough else 0.0


class _Way:
    def __init__(self, pipe: RoughPipe, rng: Random) -> None:
        self._pipe, self._rng = pipe, rng
        self._posted: asyncio.Queue[tuple[float, Callable[[], Awaitable[None]]]] = asyncio.Queue()
        self._carrying = asyncio.get_running_loop().create_task(self._carry())

    def post(self, deliver: Callable[[], Awaitable[None]]) -> None:
        self._posted.put_nowait((asyncio.get_running_loop().time() + self._pipe.late_s(self._rng), deliver))

    async def _carry(self) -> None:
        while True:
            at, deliver = await self._posted.get()
            await asyncio.sleep(at - asyncio.get_running_loop().time())
            with suppress(PipeClosed):
                await deliver()


@pytest.fixture
def rough_call(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], OneCall]:
    def person(_steps: tuple[Step, ...]) -> Person:
        return Person()

    def call(seed: int) -> OneCall:
        monkeypatch.setattr(RoughPipe, "seed", seed)
        return carry_a_call(TECHFLOW, seed=seed, meddle=patience(PATIENCE_S))

    monkeypatch.setattr(virtual_time, "TwilioPipe", RoughPipe)
    monkeypatch.setattr(virtual_time, "Caller", person)
    return call


def misunderstood(call: OneCall) -> int:
    """How often Vapi could not make out what the caller said."""
    return sum(final.clip_name is None for final in call.evidence.understood)


@pytest.mark.parametrize("seed", SEEDS)
def test_on_a_rough_network_vapi_understands_every_sentence_and_the_call_comes_to_its_end(
    rough_call: Callable[[int], OneCall], seed: int
) -> None:
    call = rough_call(seed)
    assert misunderstood(call) == 0
    assert call.notebook.closing is not None
    assert call.notebook.closing.why == "agent-ended"
    assert call.facts.violations == []
    audio = call.notebook.closing.figures["audio"]
    assert audio["to_caller_held_back"] > 0
    assert audio["silence_waited"] > 0
    assert audio["silence_to_agent"] < 8000


def test_that_is_so_because_the_holes_are_waited_for(rough_call: Callable[[int], OneCall], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lateness, "patience", lambda self, now: 0.0)
    assert sum(misunderstood(rough_call(seed)) for seed in SEEDS) >= 3
