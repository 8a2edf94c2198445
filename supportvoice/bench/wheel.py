"""A clock that does things at whole milliseconds, and knows how late it was: one timer for a hundred calls."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable


class Wheel:
    """`at(ms, job)`: run a job `ms` after the start. A job that is past is run at the next turn."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.late_ms: list[float] = []  # one a turn that had work
        self._jobs: dict[int, list[Callable[[], None]]] = defaultdict(list)
        self._turned = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def now_ms(self) -> float:
        return (time.monotonic() - self.began) * 1000

    def at(self, ms: float, job: Callable[[], None]) -> None:
        self._jobs[max(int(ms), self._turned + 1)].append(job)

    def turn(self) -> None:
        """Do what is due, and come back in a millisecond."""
        now = self.now_ms
        for ms in range(self._turned + 1, int(now) + 1):
            self._turned = ms
            jobs = self._jobs.pop(ms, None)
            if jobs:
                self.late_ms.append(self.now_ms - ms)
                for job in jobs:
                    job()
        self._timer = asyncio.get_running_loop().call_later(0.001, self.turn)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._jobs.clear()
