"""Threads for what nobody waits for: so many at once, so much that waits for one of them, and no more.

What finds no room is refused and counted. Whoever brings it has to bring it again: nothing is lost, and nothing piles up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

R = TypeVar("R")


class Hands:
    """`room` is for what waits besides what is at work."""

    def __init__(self, at_once: int, *, room: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix=name)
        self._places = threading.Semaphore(at_once + room)
        self.refused = 0

    def take(self, work: Callable[..., R], *args: Any) -> Future[R] | None:
        """Returns at once. None: there is no room."""
        if not self._places.acquire(blocking=False):
            self.refused += 1
            return None
        taken = self._threads.submit(work, *args)
        taken.add_done_callback(lambda _: self._places.release())
        return taken

    def close(self) -> None:
        """End once what is at work is done; what waits is dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)
