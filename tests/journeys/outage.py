"""Databases that are away, for real: SQLite's lock in another process's hand, its file gone, PostgreSQL behind a wire that is cut,
or one that answers and takes nothing.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from bridge.sandbox.proxy import CLEAR, Proxy, Weather

HOLD = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
held.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def nobody_can_write(database: Path) -> Iterator[None]:
    """Another process has the one turn at writing, and does not give it back."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLD, str(database)], stdin=pipe, stdout=pipe) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        try:
            assert holder.stdout.readline() == b"held\n"
            yield
        finally:
            holder.kill()


@contextmanager
def nobody_can_read(database: Path) -> Iterator[None]:
    """The file cannot be opened, not even by root: a directory stands in its place. Connections that are open stay."""
    elsewhere = database.with_name(f"{database.name}.elsewhere")
    database.rename(elsewhere)
    database.mkdir()
    try:
        yield
    finally:
        database.rmdir()
        elsewhere.rename(database)


@contextmanager
def read_only(server: str, database: str) -> Iterator[None]:
    """As after a failover that left us on the copy: every session is cut, and the new ones may only read; then so again, and back."""
    _default(server, database, "SET default_transaction_read_only = on")
    try:
        yield
    finally:
        _default(server, database, "RESET default_transaction_read_only")


def _default(server: str, database: str, what: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER DATABASE {} {}").format(sql.Identifier(_name(database)), sql.SQL(what)))
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [_name(database)])


@contextmanager
def rights_revoked(server: str, database: str, rights: str) -> Iterator[None]:
    """Its user, who is nobody special, may do so no more with any table. Sessions stay."""
    tables = sql.SQL("ON ALL TABLES IN SCHEMA public")
    user = sql.Identifier(urlsplit(database).username or "")
    with psycopg.connect(urlunsplit(urlsplit(server)._replace(path=f"/{_name(database)}")), autocommit=True) as connection:
        connection.execute(sql.SQL("REVOKE {} {} FROM {}").format(sql.SQL(rights), tables, user))
        try:
            yield
        finally:
            connection.execute(sql.SQL("GRANT {} {} TO {}").format(sql.SQL(rights), tables, user))


@contextmanager
def of_nobody_special(server: str, database: str) -> Iterator[str]:
    """The URL of this database for a user of its own, who has no rights but those of its owner, and those can be revoked."""
    parts, user = urlsplit(database), sql.Identifier(f"u_{_name(database)}")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(user))
        connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(_name(database)), user))
        try:
            yield urlunsplit(parts._replace(netloc=f"u_{_name(database)}@{parts.netloc.rpartition('@')[2]}"))
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(_name(database))))
            connection.execute(sql.SQL("DROP ROLE {}").format(user))


def _name(database: str) -> str:
    return urlsplit(database).path.lstrip("/")


class Wire:
    """Between a house and its PostgreSQL or its Valkey: `url` leads through it."""

    def __init__(self, server: str | Path) -> None:
        """`server` is the URL of the one, or the socket of the other."""
        parts = urlsplit(str(server))
        self._proxy = ToUnixSocket(server) if isinstance(server, Path) else Proxy((parts.hostname or "localhost", parts.port or 5432))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wire", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._proxy.__aenter__(), self._loop).result(10)
        who = parts.netloc.rpartition("@")
        there = f"127.0.0.1:{self._proxy.port}"
        self.url = f"redis://{there}/0" if isinstance(server, Path) else urlunsplit(parts._replace(netloc=f"{who[0]}{who[1]}{there}"))

    @contextmanager
    def weather(self, weather: Weather) -> Iterator[None]:
        self._proxy.weather = weather
        if weather.refuse:
            self._loop.call_soon_threadsafe(self._proxy.reset)
        try:
            yield
        finally:
            self._proxy.weather = CLEAR

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._proxy.__aexit__(None, None, None), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class ToUnixSocket(Proxy):
    """A bad network before a server on a socket in the file system."""

    def __init__(self, path: Path) -> None:
        super().__init__(("127.0.0.1", 0))
        self._path = path

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self._path)
