"""When a loop stood still, for how long, and what else was going on in the process.

A watch sleeps 5 ms at a time and looks how long it really slept. Whoever works beside the loop leaves spans (`during`); a
stall is laid to all that overlap it, and to nothing of ours when none does: then look at the idle loop of the same minute.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

LOOK_S = 0.005
STALL_MS = 10.0
NOTHING = "nothing of ours"


class StallWatch:
    """`run` in the loop that is watched; `stalls` are (ms, cause) since the last `take`, `spans` all that fell into that time.

    Nobody minds a stall, or counts a span, while it is not `busy`.
    """

    def __init__(self, busy: Callable[[], bool] = lambda: True) -> None:
        self._busy = busy
        self._spans: deque[tuple[float, float, str]] = deque(maxlen=2000)
        self._open: dict[tuple[str, int], float] = {}
        self._numbers = itertools.count()
        self._stalls: list[tuple[float, str]] = []
        self._longest_ms = 0.0
        self._runs = False
        self._counted: deque[tuple[str, float]] = deque()  # no lock: a collection may begin wherever one is held

    async def run(self) -> None:
        self._runs = True
        while True:
            slept_from = time.monotonic()
            await asyncio.sleep(LOOK_S)
            until = time.monotonic()
            late_ms = (until - slept_from - LOOK_S) * 1000
            if not self._busy():
                continue
            self._longest_ms = max(self._longest_ms, late_ms)
            if late_ms > STALL_MS:
                self._stalls.append((late_ms, self._cause(slept_from + LOOK_S, until)))

    def take(self) -> dict[str, Any]:
        stalls, self._stalls = self._stalls, []
        longest, self._longest_ms = self._longest_ms, 0.0
        return {"longest_ms": longest, "stalls": stalls, "spans": self._spans_counted()}

    def follow_gc(self) -> None:
        began = 0.0

        def collecting(phase: str, _info: dict[str, int]) -> None:
            nonlocal began
            if phase == "start":
                began = time.monotonic()
            else:
                self._ended(began, "gc")

        gc.callbacks.append(collecting)

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        mine = (what, next(self._numbers))
        self._open[mine] = began
        try:
            yield
        finally:
            del self._open[mine]
            self._ended(began, what)

    def timed(self, what: str, work: Callable[P, R]) -> Callable[P, R]:
        """`work`, with its time left as a span."""

        @wraps(work)
        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            with self.during(what):
                return work(*args, **kwargs)

        return timed

    def _ended(self, began: float, what: str) -> None:
        now = time.monotonic()
        self._spans.append((began, now, what))
        if self._runs and self._busy():
            self._counted.append((what, (now - began) * 1000))

    def _spans_counted(self) -> dict[str, dict[str, float]]:
        """How many of each since they were asked for last, and the longest."""
        spans: dict[str, dict[str, float]] = {}
        while self._counted:
            what, ms = self._counted.popleft()
            of_kind = spans.setdefault(what, {"count": 0, "longest_ms": 0.0})
            of_kind["count"] += 1
            of_kind["longest_ms"] = max(of_kind["longest_ms"], ms)
        return spans

    def _cause(self, since: float, until: float) -> str:
        open_now = {what for (what, _), began in tuple(self._open.items()) if began < until}
        found = {what for began, ended, what in tuple(self._spans) if ended > since and began < until}
        return " and ".join(sorted(found | open_now)) or NOTHING
