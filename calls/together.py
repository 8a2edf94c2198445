"""Threads that write in the same moment write together: whoever has the turn writes for all who wait.

A crowd of callers makes a crowd of writers. Each for itself needs the database's one turn at writing, and a dozen
statements; together they need one turn and little more than a dozen statements. A writer who is alone waits for nobody.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Waiting(Generic[T]):
    item: T
    is_done: bool = False
    problem: Exception | None = None


class Together(Generic[T]):
    """`write` stores a batch or raises, all or nothing, and is called in the thread of one of those who wait.

    An error that is `is_away`'s is everybody's; after any other one each of the batch is written alone, and has its own.
    """

    def __init__(self, *, write: Callable[[Sequence[T]], None], is_away: Callable[[Exception], bool], most: int) -> None:
        self._write, self._is_away, self._most = write, is_away, most
        self._turn = threading.Lock()
        self._waiting: deque[_Waiting[T]] = deque()

    @property
    def waiting(self) -> int:
        """How many things wait to be written; as many as there are threads who brought them, and those who waited too long."""
        return len(self._waiting)

    def write(self, item: T, *, within_s: float) -> None:
        """Returns when it is written. Raises what `write` raised for it, or TimeoutError when its turn did not come in time.

        What came too late is written with the next thing that is brought: whoever was told to bring it again must bear that.
        """
        mine = _Waiting(item)
        self._waiting.append(mine)
        if not self._turn.acquire(timeout=within_s):
            raise TimeoutError("The turn to write did not come in time.")
        try:
            while not mine.is_done and self._waiting:
                self._write_all([self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))])
        finally:
            self._turn.release()
        if not mine.is_done:
            raise TimeoutError("The thread that wrote for all was ended.")
        if mine.problem is not None:
            raise mine.problem

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
