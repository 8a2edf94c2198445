"""A PostgreSQL that says nothing costs a caller one wait, and not one for every question."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
from django.db import OperationalError
from django.db.utils import ConnectionHandler

from bridge.sandbox.proxy import Weather
from calls import patience
from supportvoice.postgres import ImpatientConnection
from tests.journeys.outage import Wire
from tests.journeys.test_demo import database as database

pytestmark = pytest.mark.django_db
QUESTIONS = 20
POOLED = {"min_size": 3, "max_size": 6, "timeout": 1.0, "connection_class": ImpatientConnection}


@contextmanager
def connected(host: str, port: int, **more: str) -> Iterator[Any]:
    """A connection as our settings make it."""
    pooled = {"ENGINE": "supportvoice.postgresql", "HOST": host, "PORT": str(port), "NAME": "calls", "CONN_HEALTH_CHECKS": True, **more}
    connection: Any = ConnectionHandler({"default": {**pooled, "OPTIONS": {"connect_timeout": 2, "pool": POOLED}}})["default"]
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


@pytest.mark.postgres
def test_connections_that_have_gone_dead_are_waited_for_once_together(database: str) -> None:
    with ExitStack() as left:
        wire = Wire(database)
        left.callback(wire.close)
        its = psycopg.conninfo.conninfo_to_dict(wire.url)
        user = {"USER": str(its["user"]), "PASSWORD": str(its.get("password", "")), "NAME": str(its["dbname"])}
        connection = left.enter_context(connected(str(its["host"]), int(str(its["port"])), **user))
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connection.close()
        left.enter_context(wire.weather(Weather(up_dead=True, down_dead=True)))
        assert ask_in_vain(connection) < 1.0
