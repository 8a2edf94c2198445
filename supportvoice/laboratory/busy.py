"""A busy house: callers come one after the other, so many at once and of different ages, while something else is done to it.

All calls are judged when the last one is over: nobody asks a busy house for its export.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from supportvoice.laboratory.matrix import Row
from supportvoice.laboratory.runs import Laboratory, Placed

AT_ONCE = 30
RINGS_WITHIN_S = 1.0  # of each other, at most: calls of different ages are met by one fault


@dataclass(slots=True)
class Busy(Laboratory):
    """`up` are the calls that are on. What befalls who rings now, `_meets` says."""

    up: list[Placed] = field(default_factory=list)

    async def _keep_busy(self, rows: Iterator[Row]) -> None:
        """A call for each of `rows`, the next one as soon as one is over."""
        callers = [asyncio.create_task(self._caller(rows)) for _ in range(self.at_once)]
        try:
            await asyncio.gather(*callers)
        finally:
            for caller in callers:
                caller.cancel()
            await asyncio.gather(*callers, return_exceptions=True)

    async def _caller(self, rows: Iterator[Row]) -> None:
        for row in rows:
            async with self._turn:
                await asyncio.sleep(self.rng.uniform(0, RINGS_WITHIN_S))
            placed = self._placed(row, row.faults(), None)
            with self._is_up(placed):
                await self._carried(placed)
            self.done.append(placed)
            self.tell(f"{len(self.done)}{f'/{self.expected}' if self.expected else ''} calls are over")

    @contextmanager
    def _is_up(self, placed: Placed) -> Iterator[None]:
        self.up.append(placed)
        self._meets(placed)
        try:
            yield
        finally:
            self.up.remove(placed)

    def _meets(self, placed: Placed) -> None:
        raise NotImplementedError

    async def _judge_all(self) -> None:
        await self.ground.mend()
        calls, self.done, self.expected = self.done, [], len(self.done)
        await self._judge(calls)
        for placed in calls:
            self._finish(placed)
