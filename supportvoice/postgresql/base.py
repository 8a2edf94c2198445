"""Django's PostgreSQL, but for how long a thread waits until the pool lends it a connection: no longer than its patience.

A server that says nothing leaves every connection of the pool dead, one after the other, and the new ones unmade. One that is there
and has a question wait, behind a lock of somebody else's, is told to look whether we still do.
"""

from __future__ import annotations

from typing import Any

from django.db.backends.postgresql import base
from psycopg import IsolationLevel

from calls import patience
from supportvoice.postgres import gives_up_with_us


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's own. The longest wait for a connection is the pool's `timeout`, in seconds."""

    def _configure_connection(self, connection: Any) -> bool:
        super()._configure_connection(connection)  # type: ignore[misc]  # not in the stubs
        gives_up_with_us(connection)
        return True  # there is something to commit, where each statement is not

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        pool = self.pool
        if pool is None:
            return super().get_new_connection(conn_params)
        self.isolation_level = IsolationLevel.READ_COMMITTED
        pool.open()
        with patience.waiting():
            one = patience.seconds()
            if one is None:
                return pool.getconn()
            with patience.of(min(one, patience.ELSEWHERE_S)):  # each that the pool would lend is asked first whether it lives
                return pool.getconn(timeout=min(pool.timeout, one))
