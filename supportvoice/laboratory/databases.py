"""The database a house of the laboratory is given, and how it is made to fail: a SQLite file, or one of its own on a PostgreSQL.

On PostgreSQL a role that may make databases is enough for all of it: whatever is done to one, its owner may do.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import errors, sql

from supportvoice.stack import StackFailed

SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"
SCHEMES = ("postgres", "postgresql")
ANSWERS_WITHIN_S = 5
TAKEN_WITHIN_S, LOOK_AGAIN_S = 5.0, 0.005  # a lock
FORGET_LIMIT = "DELETE FROM calls_linelimit"
CALM = "RETURN NULL;"
NO_SPACE = "RAISE EXCEPTION USING ERRCODE = 'disk_full', MESSAGE = 'No space left on device';"


class Database(ABC):
    """Each failure holds inside its context; entering one raises OSError or the database's own Error."""

    @property
    @abstractmethod
    def url(self) -> str:
        """What a house is told."""

    @abstractmethod
    def forget_limit(self) -> None:
        """How many calls Vapi carries, by what it last refused."""

    @abstractmethod
    def locked(self) -> AbstractContextManager[None]:
        """Somebody else has what everybody needs to write."""

    @abstractmethod
    def closed(self) -> AbstractContextManager[None]:
        """Nobody is let in any more."""

    @abstractmethod
    def full(self) -> AbstractContextManager[None]:
        """Its disk is, where that is not the disk of who writes to it."""

    @abstractmethod
    def read_only(self) -> AbstractContextManager[None]:
        """It answers, and takes nothing."""


@dataclass(frozen=True, slots=True)
class SqliteFile(Database):
    path: Path

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def forget_limit(self) -> None:
        with closing(self._opened()) as database:
            database.execute(FORGET_LIMIT)

    @contextmanager
    def locked(self) -> Iterator[None]:
        with closing(self._opened()) as lock:
            lock.execute("BEGIN EXCLUSIVE")
            yield

    @contextmanager
    def closed(self) -> Iterator[None]:
        """The file cannot be opened; connections that are open stay. Root may always."""
        mode = self.path.stat().st_mode
        self.path.chmod(0)
        try:
            yield
        finally:
            self.path.chmod(mode)

    def full(self) -> AbstractContextManager[None]:
        return nullcontext()

    def read_only(self) -> AbstractContextManager[None]:
        raise PermissionError("who has a SQLite file open may write to it")

    def _opened(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=TAKEN_WITHIN_S, isolation_level=None, check_same_thread=False)


@dataclass(frozen=True, slots=True)
class OnPostgresql(Database):
    """`server` is the URL of another database of that server, from which this one is seen."""

    server: str
    name: str

    @property
    def url(self) -> str:
        return urlunsplit(urlsplit(self.server)._replace(path=f"/{self.name}"))

    def forget_limit(self) -> None:
        with _connected(self.url) as session:
            session.execute(FORGET_LIMIT)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Every table, also for who only reads: as by a migration. Nobody queues for it, so no deadlock is ours."""
        with _connected(self.url) as session, session.transaction():
            _take(session, sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE NOWAIT").format(sql.SQL(", ").join(_tables(session))))
            yield

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Connections that were open are cut, new ones refused: as while the server starts again."""
        self._alter("ALLOW_CONNECTIONS false")
        try:
            self._cut()
            yield
        finally:
            self._alter("ALLOW_CONNECTIONS true")

    @contextmanager
    def full(self) -> Iterator[None]:
        """What would add anything is refused as by a server that has no space left; reading goes on."""
        with _connected(self.url) as session:
            _answer_to_writes(session, CALM)
            for table in _tables(session):  # one by one: together they would be held, and waited for in another order
                made = "CREATE OR REPLACE TRIGGER laboratory BEFORE INSERT OR UPDATE ON {} EXECUTE FUNCTION laboratory()"
                session.execute(sql.SQL(made).format(table))
            _answer_to_writes(session, NO_SPACE)
            try:
                yield
            finally:
                _answer_to_writes(session, CALM)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """As after a failover that left us on the copy: every session is cut, the new ones may only read; then so again, and back."""
        self._alter("SET default_transaction_read_only = on")
        try:
            self._cut()
            yield
        finally:
            self._alter("RESET default_transaction_read_only")
            self._cut()

    def _alter(self, what: str) -> None:
        with _connected(self.server) as session:
            session.execute(sql.SQL("ALTER DATABASE {} {}").format(sql.Identifier(self.name), sql.SQL(what)))

    def _cut(self) -> None:
        with _connected(self.server) as session:
            session.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [self.name])


def _connected(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(url, autocommit=True, connect_timeout=ANSWERS_WITHIN_S)


def _tables(session: psycopg.Connection[Any]) -> list[sql.Identifier]:
    found = session.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename")
    return [sql.Identifier(name) for (name,) in found]


def _take(session: psycopg.Connection[Any], lock: sql.Composed) -> None:
    """Raises LockNotAvailable when somebody else does not stop holding what is to be locked."""
    until = time.monotonic() + TAKEN_WITHIN_S
    while True:
        try:
            with session.transaction():
                session.execute(lock)
            return
        except errors.LockNotAvailable:
            if time.monotonic() > until:
                raise
        time.sleep(LOOK_AGAIN_S)


def _answer_to_writes(session: psycopg.Connection[Any], answer: str) -> None:
    """Changed without a lock on any table, and for everybody at once."""
    made = "CREATE OR REPLACE FUNCTION laboratory() RETURNS trigger LANGUAGE plpgsql AS {}"
    session.execute(sql.SQL(made).format(sql.Literal(f"BEGIN {answer} END")))


def is_of_postgresql(server: str) -> bool:
    """Whether it is the URL of one that is reached by a host's name."""
    parts = urlsplit(server)
    return parts.scheme in SCHEMES and bool(parts.hostname)


def named(server: str) -> str:
    """What a run says it was played on: no address is in it. Raises psycopg.Error when nobody answers there."""
    if not server:
        return f"{SQLITE} {sqlite3.sqlite_version}"
    with _connected(server) as session:
        return f"{POSTGRESQL} {(session.info.parameter_status('server_version') or '').split(' ')[0]}"


@contextmanager
def fresh(server: str, directory: Path) -> Iterator[Database]:
    """An empty one in `directory`, or on this PostgreSQL until it is left, whoever still uses it. Raises StackFailed."""
    if not server:
        yield SqliteFile(directory / "db.sqlite3")
        return
    name = f"laboratory_{secrets.token_hex(8)}"
    _on(server, "CREATE DATABASE {}", name)
    try:
        yield OnPostgresql(server, name)
    finally:
        _on(server, "DROP DATABASE IF EXISTS {} WITH (FORCE)", name)


def _on(server: str, what: str, name: str) -> None:
    try:
        with _connected(server) as session:
            session.execute(sql.SQL(what).format(sql.Identifier(name)))
    except psycopg.Error as problem:
        raise StackFailed(f"{what.format(name)} failed: {str(problem).strip()}") from None
