"""A process that leaves while PostgreSQL says nothing leaves what it was told to others."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from bridge.sandbox.proxy import Weather
from tests.journeys.outage import Wire
from tests.races.pair import Child

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(300)]


def test_the_end_of_a_stream_is_kept_by_a_process_that_leaves_while_the_database_says_nothing(migrated: str, tmp_path: Path) -> None:
    with ExitStack() as left:
        wire = Wire(migrated)
        left.callback(wire.close)
        child = Child(wire.url, str(tmp_path))
        left.callback(child.end)
        child.ready()
        child.begin("carry", [{}], 0.0)
        (call_sid,) = child.results()
        left.enter_context(wire.weather(Weather(up_dead=True, down_dead=True)))
        child.begin("leave", [{"sid": call_sid}], 0.0)
        assert child.results() == [["Closed"]]
