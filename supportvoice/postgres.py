"""A connection to PostgreSQL that does not wait for a server that says nothing.

A server that is stopped, or whose machine is gone, keeps its sockets: no time-out of its own ends a wait for it. Here each
answer has as long as the thread's patience (`calls.patience`); then the connection is closed, and the question has failed as
if the server were down. The pool that lends such connections waits no longer to know that the server is back.
"""

from __future__ import annotations

from collections.abc import Mapping
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


# For a try to connect that failed psycopg's pool makes pauses, each twice as long as the one before, and asks nobody: a server that
# is back would be known to one process a quarter of a minute before the next. After a second it leaves off here, and whoever wants a
# connection then has it try at once.
POOL: Mapping[str, Any] = {"min_size": 1, "max_size": 20, "timeout": 1.0, "reconnect_timeout": 1.0, "connection_class": ImpatientConnection}
