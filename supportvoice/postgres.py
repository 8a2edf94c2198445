"""A connection to PostgreSQL that does not wait for a server that says nothing.

A server that is stopped, or whose machine is gone, keeps its sockets: no time-out of its own ends a wait for it. Here each
answer has as long as the thread's patience (`calls.patience`); then the connection is closed, and the question has failed as
if the server were down. The pool that lends such connections waits no longer to know that the server is back.

What was asked by then may wait at the server for a lock, as for a migration's, and a process of the server's with it, which would be
one more of its `max_connections` for each question that was given up: after half a minute nobody at all would be let in. So each
connection asks the server to look ten times a second, while it works or waits, whether we are there. No patience is told that way: a
command has as long as it takes, and a pooler may lend the connection to others.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import errors

from calls import patience


class ImpatientConnection(psycopg.Connection[Any]):
    """psycopg's own, but for `wait`."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            with patience.waiting():
                return super().wait(gen, interval=interval, timeout=patience.seconds() if timeout is None else timeout)
        except errors._WaitTimeout:
            if timeout is not None:
                raise
            self.pgconn.finish()
            raise psycopg.OperationalError("PostgreSQL did not answer in time.") from None


GONE_AFTER_MS = 100


def gives_up_with_us(connection: psycopg.Connection[Any]) -> None:
    """Have the server end what nobody waits for any more. One that cannot, as on Windows, goes on as it would."""
    with suppress(errors.DataError, errors.ProgrammingError, errors.NotSupportedError):
        connection.execute(f"SET client_connection_check_interval = {GONE_AFTER_MS}")


# For a try to connect that failed psycopg's pool makes pauses, each twice as long as the one before, and asks nobody: a server that
# is back would be known to one process a quarter of a minute before the next. After a second it leaves off here, and whoever wants a
# connection then has it try at once.
POOL: Mapping[str, Any] = {"min_size": 1, "max_size": 20, "timeout": 1.0, "reconnect_timeout": 1.0, "connection_class": ImpatientConnection}
