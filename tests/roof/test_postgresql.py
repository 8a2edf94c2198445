"""A PostgreSQL that says nothing costs a caller one wait, and not one for every question; one that is back is soon known to be.

And one that keeps questions waiting keeps no more processes for them than we have connections.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
from django.db import OperationalError
from django.db.utils import ConnectionHandler

from bridge.sandbox.proxy import Weather
from calls import patience
from calls.away import PATIENCE_S
from calls.keeper import LOOK_S
from calls.ledger import READERS
from supportvoice.postgres import GONE_AFTER_MS, POOL
from tests.journeys.outage import Wire
from tests.journeys.test_demo import database as database

pytestmark = pytest.mark.django_db
QUESTIONS = 20
SEVERAL = {**POOL, "min_size": 3, "max_size": 6}
AWAY_S = 8.0  # pauses that double had their last try by then, and have the next one after 13.5 s
KNOWN_WITHIN_S = 4.0
LOCKED_S = 8.0
ASKS_FOR_EVER = """
import sys, psycopg
from supportvoice.postgres import gives_up_with_us
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    gives_up_with_us(connection)
    connection.execute("SELECT count(*) FROM said")
"""


@contextmanager
def connections(host: str, port: int, *, pool: Mapping[str, Any] = SEVERAL, **more: str) -> Iterator[ConnectionHandler]:
    """As our settings make them, one a thread."""
    pooled = {"ENGINE": "supportvoice.postgresql", "HOST": host, "PORT": str(port), "NAME": "calls", "CONN_HEALTH_CHECKS": True, **more}
    handler = ConnectionHandler({"default": {**pooled, "OPTIONS": {"connect_timeout": 2, "pool": pool}}})
    connection: Any = handler["default"]
    try:
        yield handler
    finally:
        connection.close()
        connection.close_pool()


@contextmanager
def connected(host: str, port: int, *, pool: Mapping[str, Any] = SEVERAL, **more: str) -> Iterator[Any]:
    """A connection as our settings make it."""
    with connections(host, port, pool=pool, **more) as handler:
        yield handler["default"]


def user_of(database: str) -> tuple[str, int, dict[str, str]]:
    its = psycopg.conninfo.conninfo_to_dict(database)
    user = {"USER": str(its["user"]), "PASSWORD": str(its.get("password", "")), "NAME": str(its["dbname"])}
    return str(its["host"]), int(str(its["port"])), user


@contextmanager
def a_server_that_says_nothing() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield "127.0.0.1", server.getsockname()[1]


def ask_in_vain(connection: Any) -> float:
    """All questions of a document; each is asked, whatever became of the one before. Returns how long that took."""
    began = time.monotonic()
    with patience.of_all(patience.WHERE_A_CALLER_WAITS_S):
        for _ in range(QUESTIONS):
            with pytest.raises(OperationalError), connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            connection.close_if_unusable_or_obsolete()
    return time.monotonic() - began


def test_who_waits_for_a_connection_in_vain_waits_for_no_other() -> None:
    with a_server_that_says_nothing() as (host, port), connected(host, port, USER="voice") as connection:
        assert ask_in_vain(connection) < 1.0


@contextmanager
def behind_a_wire(database: str, *, pool: Mapping[str, Any] = SEVERAL) -> Iterator[tuple[Wire, Any]]:
    """A connection that was used, and given back."""
    with ExitStack() as left:
        wire = Wire(database)
        left.callback(wire.close)
        host, port, user = user_of(wire.url)
        connection = left.enter_context(connected(host, port, pool=pool, **user))
        assert answers(connection)
        yield wire, connection


def answers(connection: Any) -> bool:
    """Ask as the keeper does, with a connection that the pool lends for it."""
    try:
        with patience.of(PATIENCE_S), connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except OperationalError:
        return False
    finally:
        connection.close()
    return True


def looked_for(connection: Any, *, within_s: float) -> float | None:
    """After how many seconds there was an answer; None: there was none."""
    began = time.monotonic()
    while (since := time.monotonic() - began) < within_s:
        if answers(connection):
            return since
        time.sleep(LOOK_S)
    return None


@pytest.mark.postgres
def test_connections_that_have_gone_dead_are_waited_for_once_together(database: str) -> None:
    with behind_a_wire(database) as (wire, connection), wire.weather(Weather(up_dead=True, down_dead=True)):
        assert ask_in_vain(connection) < 1.0


@pytest.mark.postgres
def test_a_server_that_takes_connections_again_is_found_within_seconds_however_long_it_refused(database: str) -> None:
    with behind_a_wire(database, pool=POOL) as (wire, connection):
        with wire.weather(Weather(refuse=True)):
            assert looked_for(connection, within_s=AWAY_S) is None
        assert looked_for(connection, within_s=KNOWN_WITHIN_S) is not None


@contextmanager
def a_table_that_is_being_migrated(database: str) -> Iterator[Any]:
    """Gives how many processes of the server are there for others than us two."""
    with psycopg.connect(database, autocommit=True) as watching, psycopg.connect(database) as migrating:
        watching.execute("CREATE TABLE said (words text)")
        migrating.execute("LOCK TABLE said IN ACCESS EXCLUSIVE MODE")
        ours = [watching.info.backend_pid, migrating.info.backend_pid]

        def others() -> int:
            counted = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND NOT pid = ANY(%s)"
            (number,) = watching.execute(counted, [ours]).fetchone() or (0,)
            return int(number)

        yield others


def ask_for_what_is_locked(handler: ConnectionHandler, *, patience_s: float, pause_s: float, until: float) -> None:
    """In a thread of its own, again and again."""
    connection: Any = handler["default"]
    while time.monotonic() < until:
        with pytest.raises(OperationalError), patience.of(patience_s), connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM said")
        connection.close()
        time.sleep(pause_s)


@pytest.mark.postgres
def test_a_lock_that_lasts_costs_the_server_no_more_processes_than_the_pool_has_connections(database: str) -> None:
    host, port, user = user_of(database)
    with connections(host, port, pool=POOL, **user) as handler, a_table_that_is_being_migrated(database) as others:
        until, most = time.monotonic() + LOCKED_S, 0
        the_keeper = {"patience_s": PATIENCE_S, "pause_s": LOOK_S, "until": until}
        a_reader = {"patience_s": patience.WHERE_A_CALLER_WAITS_S, "pause_s": 0.0, "until": until}
        askers = [
            threading.Thread(target=ask_for_what_is_locked, args=[handler], kwargs=how) for how in [the_keeper, *[a_reader] * READERS]
        ]
        for asker in askers:
            asker.start()
        while time.monotonic() < until:
            most = max(most, others())
            time.sleep(0.05)
        for asker in askers:
            asker.join()
        assert READERS <= most <= POOL["max_size"]


@pytest.mark.postgres
def test_who_is_killed_while_it_waits_for_a_lock_leaves_no_process_at_the_server(database: str) -> None:
    with a_table_that_is_being_migrated(database) as others:
        env = os.environ | {"DJANGO_SETTINGS_MODULE": "supportvoice.settings"}
        with subprocess.Popen([sys.executable, "-c", ASKS_FOR_EVER, database], env=env) as asking:
            assert comes_true(lambda: others() == 1)
            time.sleep(2 * GONE_AFTER_MS / 1000)
            assert others() == 1, "it has as long as it takes"
            asking.send_signal(signal.SIGKILL)
        assert comes_true(lambda: others() == 0)


def comes_true(what: Callable[[], bool], *, within_s: float = 20.0) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if what():
            return True
        time.sleep(0.02)
    return False
