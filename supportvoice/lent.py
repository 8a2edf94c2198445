"""A connection of PostgreSQL's pool is lent to a thread for what it asks the database, and not for what it waits for elsewhere.

The pool has few, and a tool or a vendor that answers slowly keeps many threads waiting. With every connection lent to one of them
nobody else would have an answer, and a database that is well would be taken for away. SQLite's have no pool and stay with their
threads (`supportvoice.threads`).
"""

from __future__ import annotations

from django.db import connections


def give_back() -> None:
    """Those of this thread, but for one with an open transaction: what was done in it would be lost."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
