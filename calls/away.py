"""Which errors mean that the database cannot be used, and which that we asked it wrongly.

One that is not there, or is busy, says so by the kind of its error. One that answers and takes nothing, as a PostgreSQL that is
read-only after a failover or whose rights were revoked, raises what a mistake of ours would, too. So then it is asked for a write
that has nothing to do with our rows; only when it refuses that as well it is away.
"""

from __future__ import annotations

import uuid
from contextlib import suppress

from celery.exceptions import SoftTimeLimitExceeded
from django.db import DataError, Error, IntegrityError, InterfaceError, OperationalError, close_old_connections, transaction

from calls import patience
from calls.models import SpoolMark

PATIENCE_S = 0.5


def is_gone(problem: Exception) -> bool:
    """True when the database is not there, or so busy that a task's time ran out: nobody has to ask it."""
    return isinstance(problem, OperationalError | InterfaceError | SoftTimeLimitExceeded)


def is_suspicious(problem: Exception) -> bool:
    """True of what a database that cannot be used may raise, and of some mistakes; not of a row that it looked at and refused."""
    return isinstance(problem, Error) and not isinstance(problem, IntegrityError | DataError)


def is_away(problem: Exception) -> bool:
    """True when what failed may succeed later. May ask the database, for a second at most.

    Inside a transaction, which what failed has ended, nobody can ask: there it is a mistake.
    """
    if is_gone(problem) or not is_suspicious(problem):
        return is_gone(problem)
    if transaction.get_connection().in_atomic_block:
        return False
    try:
        ask_for_a_write()
    except Exception:  # whatever it is, this database takes nothing
        return True
    return False


def ask_for_a_write() -> None:
    """Raises whatever the database raises when it takes none. Where many threads write at once ours may come late, and theirs will do."""
    close_old_connections()  # the one that failed may be the trouble
    with suppress(patience.Crowded), patience.of_each(PATIENCE_S), transaction.atomic():
        SpoolMark.objects.create(name=f"asked-{uuid.uuid4().hex}", number=0).delete()
