"""One timer of the loop for all calls of a process.

Every call wants to be woken some twenty times a second, nearly always only to find that a frame came and put the moment off.
A timer of its own for each is a wake-up of the process for each. Here they share slots of 10 ms: a call is woken in the first
slot that begins no earlier than it asked for, together with all others of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import ceil
from weakref import WeakKeyDictionary

SLOT_S = 0.01

Wake = Callable[[], None]


class Wakeups:
    """`at` returns the slot, which `forget` wants back. Times are the loop's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._call_at, self._time, self._complain = loop.call_at, loop.time, loop.call_exception_handler
        self._slots: dict[int, list[Wake]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next: float = float("inf")
        self._past = 0  # the last slot that was woken

    def at(self, when: float, wake: Wake) -> int:
        slot = max(ceil(when / SLOT_S), self._past + 1)
        waiting = self._slots.get(slot)
        if waiting is not None:
            waiting.append(wake)
            return slot
        self._slots[slot] = [wake]
        if slot < self._next:
            self._set(slot)
        return slot

    def forget(self, slot: int, wake: Wake) -> None:
        """Nothing happens when it has been woken already."""
        waiting = self._slots.get(slot, [])
        if wake in waiting:
            waiting.remove(wake)

    def _set(self, slot: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = slot
        self._timer = self._call_at(slot * SLOT_S, self._wake_all)

    def _wake_all(self) -> None:
        self._timer, self._next = None, float("inf")
        self._past = int(self._time() / SLOT_S + 0.2)  # the loop's clock may stand a little before the timer that it woke
        for slot in sorted(slot for slot in self._slots if slot <= self._past):
            for wake in self._slots.pop(slot):
                try:
                    wake()
                except Exception as error:  # of one call, and the others must be woken
                    self._complain({"message": "a call could not be woken", "exception": error})
        if self._slots and (first := min(self._slots)) < self._next:
            self._set(first)


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Wakeups] = WeakKeyDictionary()


def of_this_loop() -> Wakeups:
    loop = asyncio.get_running_loop()
    wakeups = _of_loops.get(loop)
    if wakeups is None:
        wakeups = _of_loops[loop] = Wakeups(loop)
    return wakeups
