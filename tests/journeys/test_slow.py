"""PostgreSQL or Valkey answers, but late: calls that are on and calls that come have everything, in time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pytest_django import DjangoDbBlocker

from bridge.sandbox.proxy import Weather
from bridge.sandbox.script import PLAIN
from bridge.sandbox.twilio import TwilioCall
from supportvoice.embedded import socket_path
from tests.journeys.conftest import lived_in
from tests.journeys.house import LONGEST_S, House
from tests.journeys.outage import Wire
from tests.journeys.test_demo import database as database
from tests.journeys.test_outages import BACK_WITHIN_S, spooled, whole_and_once

pytestmark = [pytest.mark.journey, pytest.mark.load]

FIRST_SOUND_MS = 1000
ANSWERED_WITHIN_S = 2.0
THERE_AND_BACK = 2


@contextmanager
def wired(server: str | Path) -> Iterator[Wire]:
    wire = Wire(server)
    try:
        yield wire
    finally:
        wire.close()


def calls_while_late(house: House, wire: Wire, late_s: float) -> list[TwilioCall]:
    """One that is on when it begins, and two that come meanwhile. Each question takes `late_s` longer."""
    _, on = house.talk(PLAIN)
    with wire.weather(Weather(delay_s=late_s / THERE_AND_BACK)):
        return [*(house.place(PLAIN).result(LONGEST_S) for _ in range(2)), on.result(LONGEST_S)]


def in_time(house: House, phone: TwilioCall) -> None:
    assert phone.first_sound_ms is not None
    assert phone.first_sound_ms <= FIRST_SOUND_MS
    assert max(document.took_s for document in phone.documents) <= ANSWERED_WITHIN_S
    (agent,) = house.at_vapi(phone.call_sid)
    assert max(posted.took_s for posted in agent.posted) <= ANSWERED_WITHIN_S


def test_valkey_that_takes_a_third_of_a_second_for_everything(tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> None:
    with wired(socket_path(tmp_path)) as wire, lived_in(House(tmp_path, django_db_blocker, env={"REDIS_URL": wire.url})) as house:
        for phone in calls_while_late(house, wire, 0.3):
            whole_and_once(house, phone)
            in_time(house, phone)


@pytest.mark.postgres
@pytest.mark.parametrize("late_s", [0.2, 0.4])
def test_nothing_is_lost_or_late_of_calls_while_postgresql_takes_so_much_longer_for_every_statement(
    tmp_path: Path, database: str, django_db_blocker: DjangoDbBlocker, late_s: float
) -> None:
    with wired(database) as wire, lived_in(House(tmp_path, django_db_blocker, database_url=wire.url)) as house:
        phones = calls_while_late(house, wire, late_s)
        house.eventually(lambda: not spooled(house), within=BACK_WITHIN_S)
        for phone in phones:
            whole_and_once(house, phone)
            in_time(house, phone)
