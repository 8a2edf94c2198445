"""A PostgreSQL that takes no write tells a stream of its agent if it can be read; if it cannot, nobody waits long, and few at a time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from bridge.sandbox.proxy import Weather
from calls.ledger import DEADLINE_S, READERS
from tests.journeys.outage import Wire, read_only
from tests.races.pair import PREPARES_S, Child

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(300)]
STREAMS, FOR_S = 30, 2.0
LATE_S = 0.5  # of a busy machine
Away = Callable[[Wire, str], AbstractContextManager[None]]


@contextmanager
def a_child(database_url: str) -> Iterator[Child]:
    with TemporaryDirectory() as spool:
        child = Child(database_url, spool)
        child.ready()
        try:
            yield child
        finally:
            child.end()


def does(child: Child, job: str, **arguments: Any) -> dict[str, Any]:
    child.begin(job, [arguments], time.monotonic() + PREPARES_S)
    (given,) = child.results()
    return dict(given)


def told_while(away: Away, database: str) -> dict[str, Any]:
    """What thirty streams of a process are told of their agent, which was there before."""
    wire = Wire(database)
    try:
        with a_child(wire.url) as child:
            stream = does(child, "put_through")
            with away(wire, database):
                told = does(child, "ask_for_agent", streams=STREAMS, for_s=FOR_S, **stream)
    finally:
        wire.close()
    assert told["is_away"], "for all that is to be written"
    return told


def test_of_one_that_is_read_only_every_stream_learns_of_its_agent(migrated: str) -> None:
    told = told_while(lambda _, database: read_only(os.environ["TEST_POSTGRES_URL"], database), migrated)
    assert (told["found"], "none" in told["told"]) == (STREAMS, False)


def test_of_one_that_says_nothing_or_refuses_nobody_waits_long_and_few_ask_at_once(migrated: str) -> None:
    for weather in (Weather(up_dead=True, down_dead=True), Weather(refuse=True)):

        def away(wire: Wire, _: str, weather: Weather = weather) -> AbstractContextManager[None]:
            return wire.weather(weather)

        told = told_while(away, migrated)
        assert told["told"] == ["nobody knows"]
        assert told["longest_s"] < DEADLINE_S + LATE_S
        assert told["at_once"] <= READERS
        assert told["questions"] < told["asked"] / 4
