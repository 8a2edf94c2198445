"""Writers of one process take turns at SQLite."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from django.conf import settings
from django.db import Error, OperationalError, connection, connections, transaction

from agents.models import Team
from calls import patience
from supportvoice.sqlite3.base import Turn
from tests.builders import at_once

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"), reason="There are no turns elsewhere."),
]


@pytest.fixture
def somebody_writes() -> Iterator[threading.Event]:
    """Another thread is in a transaction until the event is set."""
    in_it, leave = threading.Event(), threading.Event()

    def write() -> None:
        try:
            with transaction.atomic():
                in_it.set()
                leave.wait(10)
        finally:
            connections.close_all()

    thread = threading.Thread(target=write)
    thread.start()
    assert in_it.wait(5)
    yield leave
    leave.set()
    thread.join(5)


def write(name: str) -> None:
    with transaction.atomic():
        Team.objects.create(slug=name, name=name)


def test_who_waits_for_a_turn_in_vain_is_told_that_the_database_is_locked(
    somebody_writes: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.05)
    with pytest.raises(OperationalError, match="locked"):
        write("in-vain")
    somebody_writes.set()
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 5.0)
    write("later")
    assert list(Team.objects.values_list("name", flat=True)) == ["later"]


@pytest.mark.parametrize("others_write", [True, False])
def test_who_waits_for_a_turn_is_patient_as_long_as_others_write(others_write: bool) -> None:
    turn, left = Turn(), list[float]()

    def wait() -> None:
        with patience.of_all(5.0):
            came.append(turn.comes(lambda: 1.0))
            left.append(patience.left())

    came: list[bool] = []
    assert turn.is_free()
    waiting = threading.Thread(target=wait)
    waiting.start()
    for _ in range(30):
        waiting.join(0.05)
        if others_write:
            turn.written()
    turn.pass_on()
    waiting.join(5)
    assert came == [others_write]
    assert (left[0] > 4.0) is others_write, "what was waited while others wrote is not spent"


def test_a_transaction_that_fails_or_loses_its_connection_passes_the_turn_on() -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        raise RuntimeError
    with contextlib.suppress(Error), transaction.atomic():
        connection.close()
    connection.close()
    at_once([partial(write, "after-both")])
    assert Team.objects.count() == 1


def test_everybody_in_a_crowd_of_writers_has_a_turn() -> None:
    names = [str(number) for number in range(40)]
    at_once([partial(write, name) for name in names])
    assert set(Team.objects.values_list("name", flat=True)) == set(names)


def test_statements_are_not_kept_while_calls_run(settings: Any) -> None:
    settings.DEBUG = True
    Team.objects.count()
    assert connection.queries == []


def test_who_waits_for_the_database_does_not_hold_its_connection_against_who_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python may collect an old cursor in any thread: here in the one whose transaction the cursor's own thread waits for."""
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 5.0)
    unfinished: list[Any] = []
    asking = threading.Event()

    def wait() -> None:
        try:
            with connection.cursor():  # connects
                unfinished.extend(connection.connection.execute("SELECT 1 UNION SELECT 2") for _ in range(20))
            asking.set()
            Team.objects.filter(slug="contended").update(name="who waited")
        finally:
            connections.close_all()

    Team.objects.create(slug="contended", name="nobody")
    with transaction.atomic():
        Team.objects.filter(slug="contended").update(name="who had it")
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert asking.wait(5)
        began = time.monotonic()
        while unfinished:
            unfinished.pop().close()
            time.sleep(0.01)
        took_s = time.monotonic() - began
    waiting.join(10)
    assert took_s < 2.5, "a cursor could be closed only when its connection had waited its whole time"
    assert Team.objects.get(slug="contended").name == "who waited"
