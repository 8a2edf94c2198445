"""Rolling restarts under calls that come and go: each process of the house leaves and comes back, one after the other, again and again.

The house has two `serve` behind a balancer, so that a caller whose `serve` leaves finds another one, as in a deploy (docs/outages.md).
Whoever is carried by the one that leaves, or rings before the balancer has heard of it, may stand on R1, on no stream that broke off;
for all others nothing happens.
"""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass, field

from supportvoice.laboratory.busy import Busy
from supportvoice.laboratory.matrix import Row
from supportvoice.laboratory.runs import Placed
from supportvoice.stack import StackFailed

ROW = Row("rolling", "each process leaves and comes back", healthy="R1", in_good_order=True)
KNOWN_AFTER_S = 1.5  # to the balancer, which asks twice a second and waits half a second for an answer
LEAVES_WITHIN_S = 60.0  # the drain of this house, the time for a last sentence, and what is being answered and written
BACK_WITHIN_S = 60.0
BEGINS_AFTER_S = 12.0  # of all who shall be there: they have been greeted, and have said what they want
APART_S = 3.0


@dataclass(slots=True)
class Rolling(Busy):
    """How long each rolling restart took is put with `restarts_s`."""

    restarts_s: list[float] = field(default_factory=list)
    _a_serve_leaves: bool = False  # and the balancer may not know it yet
    _is_full: asyncio.Event = field(default_factory=asyncio.Event)

    async def play(self, restarts: int) -> list[Placed]:
        """Raises StackFailed when a process does not leave, or does not come back."""
        rows = [ROW]
        busy = asyncio.create_task(self._keep_busy(iter(lambda: rows[0] if rows else None, None)))
        try:
            await self._full(busy)
            await asyncio.sleep(BEGINS_AFTER_S)
            for number in range(restarts):
                if busy.done():  # a telephone broke: what is awaited below says how
                    break
                await self._restart_all()
                self.tell(f"{number + 1}/{restarts} rolling restarts, this one in {self.restarts_s[-1]:.1f} s")
            rows.clear()
            await busy
        finally:
            busy.cancel()
            await asyncio.gather(busy, return_exceptions=True)
        await self._judge_all()
        return self.done

    async def _full(self, busy: asyncio.Task[None]) -> None:
        """Until as many are on the line as shall be at once, or no more will."""
        full = asyncio.create_task(self._is_full.wait())
        await asyncio.wait({full, busy}, return_when=asyncio.FIRST_COMPLETED)
        full.cancel()

    def _meets(self, placed: Placed) -> None:
        if self._a_serve_leaves:
            placed.hit()
        if len(self.up) == self.at_once:
            self._is_full.set()

    async def _restart_all(self) -> None:
        began = time.monotonic()
        for name in self.ground.stack.programs():
            await self._restart(name)
            await asyncio.sleep(APART_S)
        self.restarts_s.append(time.monotonic() - began)

    async def _restart(self, name: str) -> None:
        stack = self.ground.stack
        if name in self.ground.serves():
            self._strike_serve(name)
        try:
            async with asyncio.timeout(LEAVES_WITHIN_S):
                await stack.kill(name, signal.SIGTERM)
        except TimeoutError:
            raise StackFailed(f"{name} did not leave within {LEAVES_WITHIN_S:.0f} s.") from None
        await stack.begin(name)
        await stack.until(f"{name} is back", lambda: stack.works(name), within=BACK_WITHIN_S)

    def _strike_serve(self, name: str) -> None:
        """All but those that another one carries: who is between two streams may meet it, too."""
        others = [place for other, place in self.ground.serves().items() if other != name]
        front = self.ground.front
        for placed in self.up:
            if front is None or front.server_of(placed.port) not in others:
                placed.hit()
        self._a_serve_leaves = True
        asyncio.get_running_loop().call_later(KNOWN_AFTER_S, self._balancer_knows)

    def _balancer_knows(self) -> None:
        self._a_serve_leaves = False
