"""Whether the event loop turns. A second late: no new calls here. Three: the process ends, and others have its calls.

The loop says every quarter of a second that it is there. The end is the interpreter's own (`faulthandler`): a thread in C that
needs no turn at Python, so that a loop stuck inside one long expression ends too, and where it was stuck is printed. A process
that was stopped and woken ends by the same rule: by then its calls are somebody else's.
"""

from __future__ import annotations

import asyncio
import faulthandler
import sys
import time
from collections.abc import Callable

TICK_S = 0.25
LATE_S = 1.0
STUCK_S = 3.0
RECOVERS_IN_S = 2.0  # on time for so long, new calls are welcome again
STEADY_S, STEADY_WITHIN_S = 0.5, 1.5  # on time for so long, whoever has come meanwhile is taken; nobody is kept waiting longer


class Watchdog:
    """`start` it on the loop it watches; before that, and after `stop`, everything is well and nothing ends."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen_at: float | None = None
        self._late_at = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._tick()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._seen_at = None
        faulthandler.cancel_dump_traceback_later()

    def is_well(self) -> bool:
        """From any thread: the loop is on time."""
        seen_at = self._seen_at
        return seen_at is None or self._clock() - seen_at <= LATE_S + TICK_S

    def takes_calls(self) -> bool:
        """On the loop: it is, and has been for a while."""
        return self._was_on_time_for(RECOVERS_IN_S)

    async def steadied(self) -> bool:
        """On the loop, for somebody who is at the door: wait until it is on time again. False when it does not get there."""
        since = self._clock()
        while not self._was_on_time_for(STEADY_S):
            if self._clock() - since >= STEADY_WITHIN_S:
                return False
            await asyncio.sleep(TICK_S)
        return True

    def _was_on_time_for(self, seconds: float) -> bool:
        return self.is_well() and self._clock() - self._late_at >= seconds

    def _tick(self) -> None:
        now = self._clock()
        if self._seen_at is not None and now - self._seen_at > LATE_S + TICK_S:
            self._late_at = now
        self._seen_at = now
        if sys.gettrace() is None:  # under a debugger everything stands still, as it should
            faulthandler.dump_traceback_later(STUCK_S, exit=True)
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
