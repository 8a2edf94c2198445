"""Work in a row, each piece with a vendor's answer to wait for: what is not begun in time is left to whoever comes next."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)


class InTime:
    """So many seconds from now, for all that goes through `begun` together."""

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._until = clock, clock() + seconds

    def begun(self, work: Iterable[T]) -> Iterator[T]:
        for each in work:
            if self._clock() >= self._until:
                log.warning("Time is up, and the rest is left to the next sweep")
                return
            yield each
