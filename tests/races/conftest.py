"""The pair of processes is started once for all races."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.races.pair import Pair


@pytest.fixture(scope="session")
def started(django_db_setup: None) -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.end()


@pytest.fixture
def pair(started: Pair, transactional_db: None) -> Pair:
    return started
