"""SQLite as it bears many writers: the threads of a process take turns, and nobody ever sleeps inside SQLite.

SQLite has no queue: whoever finds it locked sleeps and looks again, up to 100 ms later, and whoever comes meanwhile goes
first. And it sleeps with its connection in its hand: Python may collect an old cursor of that connection in the very thread
that has the lock, which then waits for the sleeper, who waits for the lock. With the writers of thirty calls in two
processes many waited their whole second in vain (measured). Here one thread of a process at a time begins a transaction,
looks again every millisecond with nothing in its hand, and if others of its process had gone before it, waits for two
first, in which another process finds the lock free. Who waits for their turn loses no patience while others write: then the
database is busy, and not away.

Also, with DEBUG=1, Django keeps every statement in memory with what was stored by it, and asks SQLite once more for each
one's text: not while calls run.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from django.db.backends.sqlite3 import base
from django.db.utils import OperationalError

from calls import patience

LOOK_AGAIN_S = 0.001
LOOK_AT_TURN_S = 0.05
OTHERS_FIRST_S = 0.002
LONGEST_TURN_S = 5.0  # to wait for it, however much is written meanwhile
# The second is what is left of the first when another thread closes an old cursor of the same connection in that very moment.
BUSY = ("locked", "not an error")


class Turn:
    """Who of this process may write."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._written_at = float("-inf")
        self.pass_on = self._lock.release

    def is_free(self) -> bool:
        """And then it is the caller's."""
        return self._lock.acquire(blocking=False)

    def comes(self, patience_s: Callable[[], float]) -> bool:
        """True when it is the caller's: within their patience, which begins anew whenever somebody has written. Raises `patience.Crowded`
        when it did not come although somebody has."""
        began = time.monotonic()
        longest_s = min(LONGEST_TURN_S, patience.turn_seconds())
        while True:
            now = time.monotonic()
            in_vain_s = now - max(began, self._written_at)
            left_s = min(patience_s() - in_vain_s, began + longest_s - now)
            is_mine = left_s > 0 and self._lock.acquire(timeout=min(left_s, LOOK_AT_TURN_S))
            if is_mine or left_s <= 0:
                patience.spend(time.monotonic() - max(began, self._written_at))
                if not is_mine and self._written_at > began:
                    raise patience.Crowded("database is locked")
                return is_mine

    def written(self) -> None:
        self._written_at = time.monotonic()


_turns: defaultdict[str, Turn] = defaultdict(Turn)  # by database
os.register_at_fork(after_in_child=_turns.clear)  # whose turn it was is not in this process


class PatientCursor(base.SQLiteCursorWrapper):
    """Tries a statement again, for as long as its connection's patience lasts, while the database is locked. Inside a transaction
    it never is."""

    patience_s: Callable[[], float]

    def execute(self, query: str, params: Any = None) -> Any:
        return self._patiently(lambda: super(PatientCursor, self).execute(query, params))

    def executemany(self, query: str, param_list: Any) -> Any:
        return self._patiently(lambda: super(PatientCursor, self).executemany(query, param_list))

    def _patiently(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except sqlite3.OperationalError as problem:
            if not _is_busy(problem):
                raise
        with patience.waiting():
            until = time.monotonic() + self.patience_s()
            while True:
                is_last = time.monotonic() >= until
                try:
                    return ask()
                except sqlite3.OperationalError as problem:
                    if is_last or not _is_busy(problem):
                        raise
                time.sleep(LOOK_AGAIN_S)


def _is_busy(problem: sqlite3.OperationalError) -> bool:
    return any(words in str(problem) for words in BUSY)


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's own, but for who writes when. The connection's `timeout`, in seconds, is the longest wait in vain in either queue."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._my_turn: Turn | None = None

    @property
    def queries_logged(self) -> bool:
        return bool(self.force_debug_cursor)

    def _patience_s(self) -> float:
        return min(float(self.settings_dict["OPTIONS"].get("timeout", 5.0)), patience.lock_seconds())

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        connection = super().get_new_connection(conn_params)
        connection.execute("PRAGMA busy_timeout = 0")
        return connection

    def create_cursor(self, name: str | None = None) -> Any:
        cursor = self.connection.cursor(factory=PatientCursor)
        cursor.patience_s = self._patience_s
        return cursor

    def _start_transaction_under_autocommit(self) -> None:
        turn = _turns[str(self.settings_dict["NAME"])]
        if not turn.is_free():
            if not turn.comes(self._patience_s):
                raise OperationalError("database is locked")
            time.sleep(OTHERS_FIRST_S)
        self._my_turn = turn
        try:
            super()._start_transaction_under_autocommit()  # type: ignore[misc]
        except BaseException:
            self._pass_turn()
            raise

    def _commit(self) -> None:
        super()._commit()  # type: ignore[misc]
        if self._my_turn is not None:
            self._my_turn.written()
        self._pass_turn()

    def _rollback(self) -> None:
        try:
            super()._rollback()  # type: ignore[misc]
        finally:
            self._pass_turn()

    def _close(self) -> None:
        try:
            super()._close()  # type: ignore[misc]
        finally:
            self._pass_turn()

    def _pass_turn(self) -> None:
        turn, self._my_turn = self._my_turn, None
        if turn is not None:
            turn.pass_on()
