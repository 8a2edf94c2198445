"""After a test that commits, the database is put back as migration left it: Django's own flush takes 50 ms, a copy of its pages 4."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from django.test import TransactionTestCase

LONGEST_S = 5.0


class StillWriting(Exception):
    """The test is over, and something it started holds the database still."""


class Newborn:
    """A copy in memory, and a connection of our own to write it back with: what the test's connections are at says nothing."""

    def __init__(self, path: Path) -> None:
        self._file = sqlite3.connect(path, isolation_level=None, timeout=0.0)
        self._copy = sqlite3.connect(":memory:")
        self._file.backup(self._copy)

    def put_back(self, *, within: float = LONGEST_S) -> None:
        until = time.monotonic() + within

        def waiting(*_: int) -> None:
            if time.monotonic() > until:
                raise StillWriting(f"the database was not free for {within} s after the test")

        self._copy.backup(self._file, progress=waiting, sleep=0.02)

    def close(self) -> None:
        self._file.close()
        self._copy.close()


@contextmanager
def instead_of_flush(path: Path) -> Iterator[None]:
    """Tests that commit end with `Newborn.put_back` where Django would empty every table and make its permissions again."""
    with closing(Newborn(path)) as newborn, pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", lambda case: newborn.put_back())
        yield
