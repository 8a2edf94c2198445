"""One timer of the loop for all calls of a process.

What a call waits for is nearly always put off before it comes: fifty times a second a frame says that its caller is there. So
nobody is woken to find that out. A call leaves word of when it wants to be woken, and of a moment that goes on moving; when the
first of all these has come, all calls are looked at, and those are woken whose moment has really come, up to 10 ms after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import ceil
from typing import Protocol
from weakref import WeakKeyDictionary

from bridge.moments import NEVER

SLOT_S = 0.01
LATE_S = 0.0005  # the loop rounds to milliseconds, and must not look just before the moment


class Moving(Protocol):
    """A moment that only is put off while nobody looks."""

    fill_at: float


class Sleeper:
    """`at` and `moving` are times of the clock of its `Wakeups`; `wake` is called when either has come."""

    __slots__ = ("at", "moving", "wake")

    def __init__(self, moving: Moving, wake: Callable[[], None]) -> None:
        self.at, self.moving, self.wake = NEVER, moving, wake


class Wakeups:
    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        self._call_at, self._time, self._complain = loop.call_at, loop.time, loop.call_exception_handler
        self._clock = clock
        self._sleepers: list[Sleeper] = []
        self._timer: asyncio.TimerHandle | None = None
        self._next = NEVER  # when all are looked at
        self._past = 0  # the slot in which they were

    def add(self, sleeper: Sleeper) -> None:
        self._sleepers.append(sleeper)
        self.look_again(sleeper)

    def remove(self, sleeper: Sleeper) -> None:
        if sleeper in self._sleepers:
            self._sleepers.remove(sleeper)

    def look_again(self, sleeper: Sleeper) -> None:
        """It may want to be woken earlier than it said last."""
        self._look_by(min(sleeper.at, sleeper.moving.fill_at))

    def _look_by(self, at: float) -> None:
        if at >= self._next:
            return
        slot = max(ceil(at / SLOT_S), self._past + 1)
        if slot * SLOT_S >= self._next:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._next = slot * SLOT_S
        self._timer = self._call_at(self._time() + self._next - self._clock() + LATE_S, self._look)

    def _look(self) -> None:
        now = self._clock()
        self._timer, self._next, self._past = None, NEVER, int(now / SLOT_S)
        first = NEVER
        for sleeper in tuple(self._sleepers):
            if sleeper.at <= now or sleeper.moving.fill_at <= now:
                try:
                    sleeper.wake()
                except Exception as error:  # of one call, and the others must be woken
                    self._complain({"message": "a call could not be woken", "exception": error})
                    self.remove(sleeper)
                    continue
            if sleeper.at < first:
                first = sleeper.at
            if sleeper.moving.fill_at < first:
                first = sleeper.moving.fill_at
        if first < NEVER:
            self._look_by(first)


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Callable[[], float], Wakeups]] = WeakKeyDictionary()


def of_this_loop(clock: Callable[[], float]) -> Wakeups:
    loop = asyncio.get_running_loop()
    by_clock = _of_loops.setdefault(loop, {})
    if clock not in by_clock:
        by_clock[clock] = Wakeups(loop, clock)
    return by_clock[clock]
