"""Threads that write in the same moment write together: whoever has the turn writes for all who wait.

A crowd of callers makes a crowd of writers. Each for itself needs the database's one turn at writing, and a dozen
statements; together they need one turn and little more than a dozen statements. A writer who is alone waits for nobody.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Waiting(Generic[T]):
    item: T
    is_done: bool = False
    problem: Exception | None = None


class Together(Generic[T]):
    """`write` stores a batch or raises, all or nothing, and is called in the thread of one of those who wait.

    An error that is `is_away`'s is everybody's; after any other one each of the batch is written alone, and has its own.
    `room` is for what waits; what finds none is refused at once, and counted.
    """

    def __init__(self, *, write: Callable[[Sequence[T]], None], is_away: Callable[[Exception], bool], most: int, room: int) -> None:
        self._write, self._is_away, self._most, self._room = write, is_away, most, room
        self._turn, self._lock = threading.Lock(), threading.Lock()
        self._waiting: deque[_Waiting[T]] = deque()
        self.refused = 0

    @property
    def waiting(self) -> int:
        """How many things wait to be written; as many as there are threads who brought them."""
        return len(self._waiting)

    def write(self, item: T, *, within_s: float) -> None:
        """Returns when it is written. Raises what `write` raised for it, or TimeoutError when its turn did not come in time.

        Then it waits here no more, for it may be large. It may be being written in that moment all the same: whoever was told
        to bring it again must bear that.
        """
        mine = _Waiting(item)
        self._join(mine)
        if not self._turn.acquire(timeout=within_s):
            self._leave(mine)
            raise TimeoutError("The turn to write did not come in time.")
        try:
            while not mine.is_done and (batch := self._next()):
                self._write_all(batch)
        finally:
            self._turn.release()
        if not mine.is_done:
            raise TimeoutError("The thread that wrote for all was ended.")
        if mine.problem is not None:
            raise mine.problem

    def _join(self, mine: _Waiting[T]) -> None:
        with self._lock:
            if len(self._waiting) >= self._room:
                self.refused += 1
                raise TimeoutError("Too many wait for their turn to write.")
            self._waiting.append(mine)

    def _leave(self, mine: _Waiting[T]) -> None:
        with self._lock, suppress(ValueError):  # it is being written
            self._waiting.remove(mine)

    def _next(self) -> list[_Waiting[T]]:
        with self._lock:
            return [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]

    def _write_all(self, batch: Sequence[_Waiting[T]]) -> None:
        try:
            self._write([each.item for each in batch])
        except Exception as problem:  # whatever the database raises, nobody else's thread may end of it
            if len(batch) > 1 and not self._is_away(problem):
                for each in batch:
                    self._write_all([each])
                return
            for each in batch:
                each.problem = problem
        for each in batch:
            each.is_done = True
