"""What somebody else's code says again and again is a line once in a while, with how many were left out since.

psycopg's pool tells of each try to connect that failed: three lines a second of every process, for as long as PostgreSQL is away.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

EVERY_S = 10.0


class Seldom(logging.Filter):
    """One of each sentence in EVERY_S; sentences are the same as long as they were before anything was filled in."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock, self._lock = clock, threading.Lock()
        self._told: dict[str, tuple[float, int]] = {}  # sentence: when it was told last, how many were left out since

    def filter(self, record: logging.LogRecord) -> bool:
        sentence, now = str(record.msg), self._clock()
        with self._lock:
            told_at, left_out = self._told.get(sentence, (float("-inf"), 0))
            is_time = now - told_at >= EVERY_S
            self._told[sentence] = (now, 0) if is_time else (told_at, left_out + 1)
        if is_time and left_out:
            record.left_out = left_out
        return is_time
