"""The pair of processes is started once for all races; one on PostgreSQL, whose locks are other than SQLite's, for those that ask."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.journeys.test_demo import a_database
from tests.races.pair import ROOT, Pair


@pytest.fixture(scope="session")
def started(django_db_setup: None) -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.end()


@pytest.fixture
def pair(started: Pair, transactional_db: None) -> Pair:
    return started


@pytest.fixture(scope="session")
def once_migrated() -> Iterator[str]:
    """The name of a database of PostgreSQL's that is only copied: to migrate one anew takes seconds, a copy tenths of one."""
    with a_database() as url:
        env = os.environ | {"DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "supportvoice.settings"}
        subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity", "0"], cwd=ROOT, env=env, check=True)
        yield url.rpartition("/")[2]


@pytest.fixture
def migrated(once_migrated: str) -> Iterator[str]:
    """PostgreSQL with a database of its own, which only the processes of a test know."""
    with a_database(once_migrated) as url:
        yield url


@pytest.fixture
def pair_on_postgresql(migrated: str) -> Iterator[Pair]:
    pair = Pair(migrated)
    yield pair
    pair.end()
