"""How long this thread waits for the database to answer one question. Where a caller waits, less than elsewhere.

The roof's connections to PostgreSQL ask here (`supportvoice.postgres`). SQLite answers at once but for its lock: for that a
thread waits a second (`supportvoice.sqlite3`), or as long as `of_a_lock` says. Commands and workers, which may migrate and
tidy up for minutes, wait as long as it takes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

ELSEWHERE_S = 2.0
WHERE_A_CALLER_WAITS_S = 0.3


class _Patience(threading.local):
    seconds: float | None = None
    lock_seconds: float = float("inf")


_of_thread = _Patience()


def serving() -> None:
    """This process carries calls."""
    _Patience.seconds = ELSEWHERE_S


def seconds() -> float | None:
    """None: as long as it takes."""
    return _of_thread.seconds


def lock_seconds() -> float:
    """Infinite: as long as the connection's settings say."""
    return _of_thread.lock_seconds


@contextmanager
def of_a_lock(seconds: float) -> Iterator[None]:
    """Inside, this thread waits for SQLite's lock so long at most."""
    before, _of_thread.lock_seconds = _of_thread.lock_seconds, seconds
    try:
        yield
    finally:
        _of_thread.lock_seconds = before


@contextmanager
def of(seconds: float | None) -> Iterator[None]:
    """Inside, this thread waits so long."""
    before, _of_thread.seconds = _of_thread.seconds, seconds
    try:
        yield
    finally:
        _of_thread.seconds = before
