"""Slow tools and slow vendors keep threads waiting, and nobody from the database: the pool has what they asked it with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from calls.console import sound
from tests.races.pair import Child

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(300)]
MORE_THAN_THE_POOL_HAS = 24
ONE_THREAD_WAITS = ("tool", "create", "goodbye", "redirect")


@pytest.fixture
def process(migrated: str, tmp_path: Path) -> Iterator[Child]:
    child = Child(migrated, str(tmp_path))
    child.ready()
    yield child
    child.end()


def test_who_waits_for_somebody_elses_server_has_given_the_connection_back(process: Child) -> None:
    waits = [{"what": what, "threads": 1, "requests": 1} for what in ONE_THREAD_WAITS]
    waits.append({"what": "tool_of_another", "threads": 1, "requests": 0})
    waits.append({"what": "listen", "threads": sound.AT_ONCE + 1, "requests": sound.AT_ONCE})
    process.begin("wait_for_others", waits, 0.0)
    given_back = {str(wait["what"]): back for wait, back in zip(waits, process.results(), strict=True)}
    assert all(given_back.values()), given_back


def test_more_tools_are_waited_for_than_there_are_connections_and_the_database_is_there(process: Child) -> None:
    process.begin("all_wait", [{"what": "tool", "threads": MORE_THAN_THE_POOL_HAS}], 0.0)
    assert process.results() == [{"asked": MORE_THAN_THE_POOL_HAS, "away": False}]
