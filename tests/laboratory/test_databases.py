"""The databases of the laboratory's houses: made for one, gone with it, and failing in between as is said of them."""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import errors, sql

from supportvoice.laboratory import databases, ground
from supportvoice.laboratory.databases import Database
from supportvoice.laboratory.strikes import MISSED
from supportvoice.stack import StackFailed

NOBODY = "postgres://who@127.0.0.1:1/none"
ADD, CHANGE, READ = ("INSERT INTO calls_linelimit VALUES (1)", "UPDATE calls_linelimit SET n = 2", "SELECT n FROM calls_linelimit")


@pytest.fixture
def server() -> Iterator[str]:
    """A PostgreSQL as a role sees it that may make databases, and nothing else."""
    url, role = os.environ["TEST_POSTGRES_URL"], f"laboratory_{secrets.token_hex(4)}"
    with psycopg.connect(url, autocommit=True) as all_powerful:
        all_powerful.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEDB").format(sql.Identifier(role)))
        parts = urlsplit(url)
        yield urlunsplit(parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}"))
        all_powerful.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@pytest.fixture
def database(server: str, tmp_path: Path) -> Iterator[Database]:
    with databases.fresh(server, tmp_path) as database:
        with psycopg.connect(database.url) as session:
            session.execute("CREATE TABLE calls_linelimit (n int)")
            session.execute("CREATE TABLE other (n int)")
            session.execute(ADD)
        yield database


def connected(database: Database) -> psycopg.Connection[Any]:
    """A session that waits for no lock."""
    return psycopg.connect(database.url, autocommit=True, options="-c lock_timeout=100")


def of_ours(server: str) -> list[str]:
    with psycopg.connect(server) as session:
        found = session.execute("SELECT datname FROM pg_database WHERE pg_get_userbyid(datdba) = current_user")
        return [name for (name,) in found]


@pytest.mark.postgres
def test_a_database_is_gone_with_its_house_however_that_ends_and_whoever_uses_it(server: str, tmp_path: Path) -> None:
    house = ExitStack()
    first, other = (house.enter_context(databases.fresh(server, tmp_path)) for _ in range(2))
    assert first.url != other.url
    assert sorted(of_ours(server)) == sorted(urlsplit(each.url).path[1:] for each in (first, other))
    with connected(first):
        house.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
        assert of_ours(server) == []


@pytest.mark.postgres
def test_while_it_is_locked_nobody_reads_or_writes_and_then_everybody_does(database: Database) -> None:
    with connected(database) as session:
        with database.locked():
            for statement in (ADD, CHANGE, READ, "SELECT n FROM other"):
                with pytest.raises(errors.LockNotAvailable):
                    session.execute(statement)
        session.execute(CHANGE)


@pytest.mark.postgres
def test_a_lock_is_got_between_the_turns_of_who_writes_and_is_no_deadlock_of_theirs(database: Database) -> None:
    """They take the tables in the other order than the lock does."""
    is_over, failed, turns = threading.Event(), list[psycopg.Error](), 0

    def write() -> None:
        nonlocal turns
        with psycopg.connect(database.url) as session:
            while not is_over.is_set():
                try:
                    session.execute("INSERT INTO other VALUES (1)")
                    session.execute(ADD)
                    session.commit()
                    turns += 1
                except psycopg.Error as problem:
                    failed.append(problem)
                    session.rollback()

    writing = threading.Thread(target=write)
    writing.start()
    try:
        for _ in range(20):
            with database.locked():
                pass
    finally:
        is_over.set()
        writing.join()
    assert failed == []
    assert turns


@pytest.mark.postgres
def test_a_lock_that_is_not_to_be_had_is_a_missed_strike(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "TAKEN_WITHIN_S", 0.1)
    with psycopg.connect(database.url) as writing:
        writing.execute(ADD)
        with pytest.raises(MISSED), database.locked():
            pass


@pytest.mark.postgres
def test_while_it_is_closed_who_is_there_is_cut_and_who_comes_is_refused(database: Database) -> None:
    with connected(database) as session:
        with database.closed():
            with pytest.raises(psycopg.OperationalError):
                session.execute(READ)
            with pytest.raises(psycopg.OperationalError):
                connected(database)
        with connected(database) as another:
            another.execute(READ)


@pytest.mark.postgres
def test_while_it_is_full_it_is_read_and_takes_nothing_and_then_it_does_as_often_as_that_happens(database: Database) -> None:
    with connected(database) as session:
        for _ in range(2):
            with database.full():
                for statement in (ADD, CHANGE, "INSERT INTO other VALUES (1)"):
                    with pytest.raises(errors.DiskFull):
                        session.execute(statement)
                assert session.execute(READ).fetchall() == [(1,)]
        session.execute(CHANGE)
        assert session.execute(READ).fetchall() == [(2,)]


@pytest.mark.postgres
def test_while_it_is_read_only_who_comes_reads_alone_and_afterwards_nobody_is_left_so(database: Database) -> None:
    with database.read_only():
        session = connected(database)
        assert session.execute(READ).fetchall() == [(1,)]
        with pytest.raises(errors.ReadOnlySqlTransaction):
            session.execute(ADD)
    with pytest.raises(psycopg.OperationalError):
        session.execute(READ)
    with connected(database) as another:
        another.execute(ADD)


@pytest.mark.postgres
def test_what_vapi_refused_is_forgotten(database: Database) -> None:
    database.forget_limit()
    with connected(database) as session:
        assert session.execute(READ).fetchall() == []


@pytest.mark.postgres
def test_a_run_is_told_the_version_and_no_address(server: str) -> None:
    name, _, number = databases.named(server).partition(" ")
    assert (name, [part.isdigit() for part in number.split(".")]) == (databases.POSTGRESQL, [True, True])


def test_nothing_needs_to_be_installed_for_sqlite(tmp_path: Path) -> None:
    assert databases.named("") == f"{databases.SQLITE} {sqlite3.sqlite_version}"
    with databases.fresh("", tmp_path) as database:
        assert database.url == f"sqlite:///{tmp_path / 'db.sqlite3'}"
        session = sqlite3.connect(tmp_path / "db.sqlite3", timeout=0)
        with closing(session), database.locked(), pytest.raises(sqlite3.OperationalError):
            session.execute("CREATE TABLE it (n int)")
        with pytest.raises(MISSED):
            database.read_only()


def test_a_server_that_is_not_there_is_one_sentence_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(StackFailed, match="CREATE DATABASE") as failed, databases.fresh(NOBODY.replace("@", ":hunter2@"), tmp_path):
        pass
    assert "hunter2" not in str(failed.value)


@pytest.mark.parametrize(
    ("url", "is_one"),
    [
        ("postgres://who@host/postgres", True),
        ("postgresql://host:5432/postgres?sslmode=require", True),
        ("sqlite:///db.sqlite3", False),
        ("mysql://who@host/it", False),
        ("postgres", False),
        ("postgres:///postgres", False),
    ],
)
def test_a_postgresql_is_known_by_its_address(url: str, *, is_one: bool) -> None:
    assert databases.is_of_postgresql(url) is is_one


def test_the_way_over_a_wire_leads_to_the_same_database_as_the_same_role() -> None:
    database: Any = databases.OnPostgresql("postgres://who:hunter2@db.test/postgres?sslmode=require", "laboratory_1")
    wire: Any = type("Wire", (), {"port": 4000})
    assert ground._server_of(database) == ("db.test", 5432)
    assert ground._as_reached(database, None) == "postgres://who:hunter2@db.test/laboratory_1?sslmode=require"
    assert ground._as_reached(database, wire) == "postgres://who:hunter2@127.0.0.1:4000/laboratory_1?sslmode=require"
