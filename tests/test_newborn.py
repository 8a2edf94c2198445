"""Every test finds the database as migration left it, and whoever writes after its test is told so."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from django.contrib.auth.models import Permission, User

from tests.newborn import Newborn, StillWriting

Connect = Callable[[], sqlite3.Connection]


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    """Connections to a database in the shop's journal mode, with one call in it."""
    with ExitStack() as open_ones:

        def one_more() -> sqlite3.Connection:
            return open_ones.enter_context(closing(sqlite3.connect(tmp_path / "db.sqlite3", isolation_level=None, timeout=0.0)))

        one_more().executescript(
            "PRAGMA journal_mode=WAL; CREATE TABLE call (id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO call VALUES (1);"
        )
        yield one_more


@pytest.fixture
def newborn(connect: Connect, tmp_path: Path) -> Iterator[Newborn]:
    with closing(Newborn(tmp_path / "db.sqlite3")) as newborn:
        yield newborn


def calls(connection: sqlite3.Connection) -> list[tuple[int]]:
    return connection.execute("SELECT id FROM call").fetchall()


def test_what_was_added_changed_and_taken_away_is_as_before_for_every_connection(connect: Connect, newborn: Newborn) -> None:
    during = connect()
    during.executescript("DELETE FROM call; INSERT INTO call VALUES (7), (8); CREATE TABLE more (id INTEGER);")
    newborn.put_back()
    for connection in (during, connect()):
        assert calls(connection) == [(1,)]
        assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'more'").fetchall() == []
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    during.execute("INSERT INTO call DEFAULT VALUES")
    assert calls(during) == [(1,), (2,)]


def test_who_reads_still_holds_nothing_up(connect: Connect, newborn: Newborn) -> None:
    reading, writing = connect(), connect()
    writing.execute("INSERT INTO call VALUES (7)")
    reading.execute("BEGIN")
    assert calls(reading) == [(1,), (7,)]
    newborn.put_back(within=1.0)
    assert calls(connect()) == [(1,)]


def test_a_writer_that_outlives_its_test_is_told_of(connect: Connect, newborn: Newborn) -> None:
    writing = connect()
    writing.execute("BEGIN IMMEDIATE")
    with pytest.raises(StillWriting):
        newborn.put_back(within=0.1)
    writing.execute("ROLLBACK")
    newborn.put_back()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("time", ["once", "again"])
def test_a_test_that_commits_leaves_nothing_to_the_next(time: str) -> None:
    assert User.objects.count() == 0
    assert Permission.objects.count() > 50, "what migration made is there"
    User.objects.create_user("ann")
    Permission.objects.all().delete()
