"""The nemesis: every few seconds some fault strikes a busy house, for some time, whichever calls it meets. All of it follows from the seed.

A call that was met by n faults that cost a conversation may stand on the rung the ladder gives it after n losses, and no lower. The
deaths of our own processes are counted for themselves, as the ladder does: an agent that is well is nobody's loss.
A fault meets the calls that are up and those that ring while it lasts; one that leaves no agent, until the house asks Vapi again.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bridge.sandbox.proxy import Weather
from supportvoice.laboratory import strikes
from supportvoice.laboratory.busy import AT_ONCE, Busy
from supportvoice.laboratory.ground import Ground
from supportvoice.laboratory.matrix import Row
from supportvoice.laboratory.runs import CALM_S, Placed
from supportvoice.laboratory.strikes import Strike

EVERY_S = 5.0
HEALTHY_AFTER = ("R0", "R1", "R1", "R3")  # so many conversations lost, or so many deaths, without a backup


@dataclass(frozen=True, slots=True)
class Blow:
    """One kind of random fault: `costs` a conversation, so many of its own; `no_agent`: who calls meanwhile gets none.

    `is_death`: of one of our processes, or it is taken for dead.

    `asks_again`: while it strikes it may swallow the answer to a create, so that nobody can know of that agent, and another is asked for.
    `at_first`: the rung it leaves to who has no agent then. A create that is broken off is never repeated, and who rang before the
    database was locked may have the agent a stream later.
    """

    name: str
    strike: Strike
    longest_s: float
    costs: int = 0
    is_death: bool = False
    no_agent: bool = False
    asks_again: bool = False
    at_first: str = ""


BLOWS: Sequence[Blow] = (
    Blow("kill -9 of a child", strikes.to_carriers(signal.SIGKILL), 0.1, costs=1, is_death=True, asks_again=True),
    Blow("a child stands still", strikes.to_carriers(signal.SIGSTOP), 8.0, costs=1, is_death=True, asks_again=True),
    Blow("Valkey killed", strikes.kill_valkey, 8.0),
    Blow("Valkey hangs", strikes.stop_valkey, 8.0),
    Blow("Valkey flushed", strikes.flush_valkey, 0.1),
    Blow("database locked", strikes.lock_database, 8.0, at_first="R1"),
    Blow("worker killed", strikes.kill_worker, 8.0, asks_again=True),
    Blow("Vapi's sockets reset", strikes.vapi_weather(Weather(), reset=True), 0.1, costs=1, asks_again=True, at_first="R3"),
    Blow("Vapi refuses", strikes.vapi_weather(Weather(refuse=True)), 5.0, no_agent=True),
    Blow("Vapi is silent", strikes.vapi_weather(Weather(up_dead=True, down_dead=True)), 8.0, costs=1, no_agent=True, asks_again=True),
    Blow("Vapi is slow", strikes.vapi_weather(Weather(delay_s=0.2, jitter_s=0.2)), 5.0),
    Blow("Twilio's streams break", strikes.break_streams, 0.1, costs=1),
)


@dataclass(slots=True)
class Met:
    """A call as a blow sees it: what it costs is written into the healthy rung. `lasts_s`: what is left of the blow; below 0 it is over.

    `blows`: how many of each kind, deaths or not, it and every other call has met. `has_agent`: one is connected, and not over.
    """

    placed: Placed
    blow: Blow
    blows: dict[tuple[str, bool], int]
    lasts_s: float
    has_agent: bool = True

    @property
    def port(self) -> int:
        return self.placed.port

    @property
    def call_sid(self) -> str:
        return self.placed.call_sid

    def hit(self, *, stands_still: bool = False) -> None:
        self.placed.hit(stands_still=stands_still)
        kind = self.call_sid, self.blow.is_death
        self.blows[kind] = self.blows.get(kind, 0) + self.blow.costs
        rung = "R3" if self.blow.no_agent else HEALTHY_AFTER[min(self.blows[kind], len(HEALTHY_AFTER) - 1)]
        at_first = "" if self.has_agent else self.blow.at_first
        self.placed.healthy = max(self.placed.healthy, rung, at_first)
        if self.blow.asks_again and self.lasts_s >= 0:
            now = asyncio.get_running_loop().time()
            self.placed.answers_lost.append((now, now + self.lasts_s))

    def break_stream(self) -> None:
        self.placed.break_stream()

    def held_against(self, what: str) -> None:
        self.placed.held_against(what)


@dataclass(slots=True)
class Nemesis(Busy):
    """Callers who come one after the other, and blows between them."""

    blows: dict[tuple[str, bool], int] = field(default_factory=dict)
    felt: list[tuple[Blow, float]] = field(default_factory=list)  # by whoever rings now; each strikes until then

    async def play(self, calls: int) -> list[Placed]:
        self.expected = calls
        striking = asyncio.create_task(self._strikes())
        try:
            await self._keep_busy(iter([Row("nemesis", "random faults")] * calls))
        finally:
            striking.cancel()
            await asyncio.gather(striking, return_exceptions=True)
        await self._judge_all()
        return self.done

    def _meets(self, placed: Placed) -> None:
        for blow, until in self.felt:
            self._met(placed, blow, until - asyncio.get_running_loop().time()).hit()

    def _met(self, placed: Placed, blow: Blow, lasts_s: float) -> Met:
        has_agent = any(each.open and each.turns is not None for each in self._at_vapi(placed))
        return Met(placed, blow, self.blows, lasts_s, has_agent)

    async def _strikes(self) -> None:
        while True:
            await asyncio.sleep(self.rng.uniform(0.8, 1.2) * EVERY_S)
            blow = self.rng.choice(BLOWS)
            lasts_s = self.rng.uniform(0, blow.longest_s)
            felt = (blow, asyncio.get_running_loop().time() + lasts_s)
            self.felt.append(felt)
            self.tell(f"strikes: {blow.name}, {lasts_s:.1f} s, {len(self.up)} calls are up")
            try:
                async with blow.strike(self.ground, [self._met(placed, blow, lasts_s) for placed in list(self.up)]):
                    await asyncio.sleep(lasts_s)
            except strikes.MISSED as why:
                self.tell(f"missed: {blow.name}, {why}")
            await self.ground.mend()
            asyncio.get_running_loop().call_later(CALM_S if blow.no_agent else 0.0, self.felt.remove, felt)


async def nemesis(ground: Ground, *, rng: random.Random, calls: int, at_once: int, tell: Callable[[str], None]) -> list[Placed]:
    return await Nemesis(ground, rng, tell, at_once=min(at_once or AT_ONCE, AT_ONCE)).play(calls)
