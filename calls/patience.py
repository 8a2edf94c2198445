"""How long this thread waits for the database to answer one question. Where a caller waits, less than elsewhere.

The roof's connections ask here. PostgreSQL may leave any question without an answer (`supportvoice.postgres`), or have no
connection to spare (`supportvoice.postgresql`). SQLite answers at once but for its lock: for that a thread waits a second
(`supportvoice.sqlite3`), or as long as `of_a_lock` says. A worker waits longer than who serves, and not for ever: both its
slots would be gone with a server that is stopped. Commands, which may migrate for minutes, wait as long as it takes.

Who answers a caller asks many questions, and the caller's patience is one for all of them: inside `of_all` every wait takes
from what is `left`, and when nothing is, whatever does not answer at once has failed. While others write, waiting for one's
turn is no such wait: a crowd of callers makes that long, and nothing is away. Who must know soon says `of_a_turn`, and is told by
`Crowded`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from django.db import OperationalError

ELSEWHERE_S = 2.0
WHERE_A_CALLER_WAITS_S = 0.3
# Five times what a serving process has for the same sweep. Less than any task's time limit: who waited in vain has failed in good
# order then, its connection closed, where a task that is told to stop would only wait again to take back what it did.
IN_A_WORKER_S = 10.0

clock: Callable[[], float] = time.monotonic


class Crowded(OperationalError):
    """The turn to write did not come in time, and others of this process had theirs meanwhile: the database takes writes."""


class _Patience(threading.local):
    seconds: float | None = None
    lock_seconds: float = float("inf")
    turn_seconds: float = float("inf")
    all_seconds: float = float("inf")
    waits_since: float | None = None


_of_thread = _Patience()


def serving() -> None:
    """This process carries calls."""
    _Patience.seconds = ELSEWHERE_S


def working() -> None:
    """This process does what no caller waits for."""
    _Patience.seconds = IN_A_WORKER_S


def seconds() -> float | None:
    """None: as long as it takes."""
    one, rest = _of_thread.seconds, left()
    if one is None:
        return None if rest == float("inf") else rest
    return min(one, rest)


def lock_seconds() -> float:
    """Infinite: as long as the connection's settings say."""
    return min(_of_thread.lock_seconds, left())


def turn_seconds() -> float:
    """Infinite: as long as others write, within reason."""
    return _of_thread.turn_seconds


def left() -> float:
    """For all waits from now on; infinite outside of `of_all`."""
    since = _of_thread.waits_since
    return max(0.0, _of_thread.all_seconds - (clock() - since if since is not None else 0.0))


@contextmanager
def waiting() -> Iterator[None]:
    """Inside, this thread does nothing but wait for the database."""
    if _of_thread.waits_since is not None:  # a part of a longer wait
        yield
        return
    _of_thread.waits_since = clock()
    try:
        yield
    finally:
        _of_thread.all_seconds, _of_thread.waits_since = left(), None


def spend(seconds: float) -> None:
    """This thread has waited so long, and not as `waiting` counts it."""
    _of_thread.all_seconds = max(0.0, _of_thread.all_seconds - seconds)


def of_all(seconds: float) -> AbstractContextManager[None]:
    """Inside, all waits of this thread together take so long at most."""
    return _meanwhile("all_seconds", seconds)


def of_a_lock(seconds: float) -> AbstractContextManager[None]:
    """Inside, this thread waits for SQLite's lock so long at most."""
    return _meanwhile("lock_seconds", seconds)


def of_a_turn(seconds: float) -> AbstractContextManager[None]:
    """Inside, this thread waits for its turn to write so long at most, however much others write meanwhile."""
    return _meanwhile("turn_seconds", seconds)


def of(seconds: float | None) -> AbstractContextManager[None]:
    """Inside, this thread waits so long."""
    return _meanwhile("seconds", seconds)


@contextmanager
def of_each(seconds: float) -> Iterator[None]:
    """Inside, this thread waits so long for its turn to write, so long for SQLite's lock, and so long for any answer."""
    with of_a_turn(seconds), of_a_lock(seconds), of(seconds):
        yield


@contextmanager
def _meanwhile(what: str, seconds: float | None) -> Iterator[None]:
    before = getattr(_of_thread, what)
    setattr(_of_thread, what, seconds)
    try:
        yield
    finally:
        setattr(_of_thread, what, before)
