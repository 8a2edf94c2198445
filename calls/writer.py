"""One thread that writes what others must not wait for.

`put` never blocks: the queue is bounded, and what does not fit is dropped and counted. The thread gathers for a moment, unless
something is urgent, then writes everything that waits, up to a batch, at once: a transaction a note would cost more than the
sound of a call, and a slow database makes larger batches and not a longer wait. When the database is away it tries again for
`patience_s`; after that, what it holds goes to `spill`, which keeps it.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from calls.no_room import NoRoom

log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 0.5
URGENT_ROOM = 1000


@dataclass(slots=True)
class Counts:
    """What became of everything that was put. Each thing ends in exactly one of these."""

    written: int = 0
    dropped: int = 0  # no room
    spilled: int = 0  # the database stayed away
    refused: int = 0  # the database was there and would not have it
    lost: int = 0  # nor could it be spilled


class BoundedWriter(Generic[T]):
    """`write` stores a batch or raises, all or nothing; `is_away` tells whether its error is worth another try.

    `idle` is called in the thread when nothing came for a second: the place to give a connection back. `refuse` is told of what
    the database would not have.
    """

    def __init__(
        self,
        *,
        write: Callable[[Sequence[T]], None],
        spill: Callable[[Sequence[T]], None],
        is_away: Callable[[Exception], bool],
        idle: Callable[[], None] = lambda: None,
        refuse: Callable[[Sequence[T]], None] = lambda batch: None,
        limit: int = 10_000,
        batch: int = 200,
        patience_s: float = 5.0,
        idle_after_s: float = 1.0,
        gather_s: float = 0.25,
        name: str = "writer",
    ) -> None:
        self.counts = Counts()
        self._write, self._spill, self._is_away, self._idle = write, spill, is_away, idle
        self._refuse = refuse
        self._limit, self._batch, self._patience, self._idle_after = limit, batch, patience_s, idle_after_s
        self._queue: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._gather = gather_s
        self._urgent = threading.Event()
        self._away_since: float | None = None
        self._name = name
        self._no_room = NoRoom(name)

    # -- for everybody: returns at once ----------------------------------------------------------------------------

    def put(self, item: T, *, urgent: bool = False) -> bool:
        """Leave something to be written. False when there was no room; an urgent thing finds room a little longer."""
        if self._queue.qsize() >= self._limit + (URGENT_ROOM if urgent else 0):
            self.counts.dropped += 1
            self._no_room.dropped()
            return False
        self._queue.put(item)
        if urgent:
            self._urgent.set()
        if self._thread is None or not (self._is_running() or self._stopping.is_set()):
            self._start()
        return True

    def stop(self, *, within_s: float = 2.0) -> bool:
        """Write what waits and end the thread. False when that took longer; a database that is away is waited for no more."""
        self._stopping.set()
        self._urgent.set()
        if self._thread is None:
            return True
        self._queue.put(None)
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def _start(self) -> None:
        with self._lock:
            if not self._is_running():
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def _is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    # -- in the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while (batch := self._next_batch()) is not None:
                self._no_room.rest()
                if batch:
                    self._store(batch)
                else:
                    self._safely(self._idle, "idle")
        finally:
            self._safely(self._idle, "idle")

    def _safely(self, work: Callable[..., None], name: str, *told: Sequence[T]) -> bool:
        """What others do in this thread may break, and it must live on. True when it did not break."""
        try:
            work(*told)
        except Exception as problem:
            log.error("What the writer of history left to others broke", extra={"work": name, "problem": type(problem).__name__})
            return False
        return True

    def _next_batch(self) -> list[T] | None:
        """Everything that waits, up to a batch; empty after an idle second; None at the end."""
        try:
            item = self._queue.get(timeout=self._idle_after)
        except queue.Empty:
            return []
        if item is not None and self._urgent.wait(self._gather) and not self._stopping.is_set():
            self._urgent.clear()  # whatever set it is in the queue by now
        batch: list[T] = []
        while item is not None:
            batch.append(item)
            if len(batch) >= self._batch or self._queue.empty():
                return batch
            item = self._queue.get()
        if batch:
            self._queue.put(None)  # seen too early: these first
        return batch or None

    def _store(self, batch: Sequence[T]) -> None:
        pause = FIRST_PAUSE_S
        while True:
            try:
                self._write(batch)
            except Exception as problem:  # whatever the database raises: this thread must live on
                if not self._is_away(problem):
                    self._store_one_by_one(batch, problem)
                    return
                if self._given_up():
                    self._let_go(batch, problem)
                    return
                self._stopping.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
            else:
                self._away_since = None
                self.counts.written += len(batch)
                return

    def _given_up(self) -> bool:
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        return self._stopping.is_set() or now - self._away_since >= self._patience

    def _let_go(self, batch: Sequence[T], problem: Exception) -> None:
        log.error("The database is away; history goes to the spill", extra={"rows": len(batch), "problem": type(problem).__name__})
        if self._safely(self._spill, "spill", batch):
            self.counts.spilled += len(batch)
        else:
            self.counts.lost += len(batch)

    def _store_one_by_one(self, batch: Sequence[T], problem: Exception) -> None:
        """Something in this batch cannot be stored: find it, keep the others."""
        if len(batch) > 1:
            for item in batch:
                self._store([item])
            return
        self.counts.refused += 1
        log.error("The database refused a row of history", extra={"problem": type(problem).__name__})
        self._safely(self._refuse, "refuse", batch)
