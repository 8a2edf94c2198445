"""A PostgreSQL that says nothing costs a caller one wait, and not one for every question; one that is back is soon known to be."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
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
from supportvoice.postgres import POOL
from tests.journeys.outage import Wire
from tests.journeys.test_demo import database as database

pytestmark = pytest.mark.django_db
QUESTIONS = 20
SEVERAL = {**POOL, "min_size": 3, "max_size": 6}
AWAY_S = 8.0  # pauses that double had their last try by then, and have the next one after 13.5 s
KNOWN_WITHIN_S = 4.0


@contextmanager
def connected(host: str, port: int, *, pool: Mapping[str, Any] = SEVERAL, **more: str) -> Iterator[Any]:
    """A connection as our settings make it."""
    pooled = {"ENGINE": "supportvoice.postgresql", "HOST": host, "PORT": str(port), "NAME": "calls", "CONN_HEALTH_CHECKS": True, **more}
    connection: Any = ConnectionHandler({"default": {**pooled, "OPTIONS": {"connect_timeout": 2, "pool": pool}}})["default"]
    try:
        yield connection
    finally:
        connection.close()
        connection.close_pool()


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
        its = psycopg.conninfo.conninfo_to_dict(wire.url)
        user = {"USER": str(its["user"]), "PASSWORD": str(its.get("password", "")), "NAME": str(its["dbname"])}
        connection = left.enter_context(connected(str(its["host"]), int(str(its["port"])), pool=pool, **user))
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
