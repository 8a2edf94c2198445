"""Questions of streams that change nothing, asked of a database that takes no write, too: it may let itself be read.

A SQLite that others write to does, and so does a PostgreSQL that is read-only after a failover. Only a question that fails itself
says that this one cannot be read either. Then nobody asks it for a moment: of a server that says nothing a few threads wait for
their answer at a time, a caller's patience long, and nobody stands behind them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from django.db import Error as DatabaseError
from django.db import OperationalError

from calls import patience, storing

R = TypeVar("R")

IN_VAIN_FOR_S = 0.25  # as often as it is asked for a write meanwhile (`calls.keeper`)


class Reading:
    """`is_away`: the database is known to take no write."""

    def __init__(self, *, is_away: Callable[[], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self._is_away, self._clock = is_away, clock
        self._in_vain_until = float("-inf")

    @property
    def is_in_vain(self) -> bool:
        """It takes no write, and could not be read a moment ago."""
        return self._is_away() and self._clock() < self._in_vain_until

    def ask(self, question: Callable[[], R]) -> R:
        """In a thread that may use the database. Raises what the database raises."""
        if not self._is_away():
            return storing.in_thread(question)
        if self.is_in_vain:  # found out while this one waited for its thread
            raise OperationalError("The database could not be read a moment ago.")
        try:
            with patience.of_all(patience.WHERE_A_CALLER_WAITS_S):
                return storing.in_thread(question)
        except DatabaseError:
            self._in_vain_until = self._clock() + IN_VAIN_FOR_S
            raise
