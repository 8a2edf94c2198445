"""An agent is made while PostgreSQL leaves a question without an answer: another session of the server's has the table."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from threading import Thread
from typing import Any

import psycopg
from django.conf import settings
from psycopg import sql

from bridge.ports import CallRef
from calls import creating, patience, publisher, sessions, storing, tasks
from calls.models import Status, VapiAccount
from calls.storing import the_keeper
from tests.builders import FakeVapi, QuietPublisher, a_call, session_of

WITHIN_S = 10.0
LOOKS_EVERY_S = 0.005
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def make_while_busy(table: str, gives_up: bool) -> dict[str, Any]:
    """What becomes of an agent whose create is answered as the table is taken: until one question for it was given up, or, if its
    maker `gives_up`, until that has. Then its stream has waited for it long enough.

    `kept`: by the spool, a while. `cleared`: its maker took it for one that came to nothing.
    """
    patience.serving()
    quiet = QuietPublisher()
    publisher.install(quiet)
    kept_before = the_keeper().spool.counts["kept"]
    call = a_call(status=Status.STREAMING, stream_epoch=0)
    ref, session = CallRef(call.call_sid, 0, call.short_id), session_of(call)
    with _taken(table) as taken:
        vapi = FakeVapi(during=taken.begin)
        making = partial(creating.create, ref, session.n, {VapiAccount.MAIN: vapi})
        maker = Thread(target=storing.in_thread, args=(making,))
        maker.start()
        if not gives_up:
            taken.until_a_question_was_given_up()
            taken.end()
        maker.join(WITHIN_S)
    until = time.monotonic() + WITHIN_S
    while the_keeper().holds and time.monotonic() < until:
        time.sleep(LOOKS_EVERY_S)
    kept = the_keeper().spool.counts["kept"] - kept_before
    vapi.during = lambda: None
    sessions.start_conversation(vapi_session_pk=session.pk, by="consumer", client=vapi, from_another=True)
    session.refresh_from_db()
    ends = {"ended": len(vapi.ended), "cleared": (tasks.clear_up.name, (session.pk,)) in quiet.tasks}
    return {"made": len(vapi.created), "state": session.state, "kept": kept, **ends}


class Taken:
    """From `begin` to `end`, by somebody else."""

    def __init__(self, table: str) -> None:
        at = settings.DATABASES["default"]
        where = {"host": at["HOST"], "port": at["PORT"], "user": at["USER"], "password": at["PASSWORD"], "dbname": at["NAME"]}
        self._table = table
        self._session, self._watch = psycopg.connect(**where), psycopg.connect(**where, autocommit=True)

    def begin(self) -> None:
        self._session.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(self._table)))

    def end(self) -> None:
        self._session.rollback()

    def until_a_question_was_given_up(self) -> None:
        for is_asked in (True, False):
            until = time.monotonic() + WITHIN_S
            while self._is_asked() is not is_asked:
                assert time.monotonic() < until
                time.sleep(LOOKS_EVERY_S)

    def close(self) -> None:
        self._session.close()
        self._watch.close()

    def _is_asked(self) -> bool:
        row = self._watch.execute(WAITING).fetchone()
        return row is not None and row[0] > 0


@contextmanager
def _taken(table: str) -> Iterator[Taken]:
    taken = Taken(table)
    try:
        yield taken
    finally:
        taken.close()
