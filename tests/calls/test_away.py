"""A database that answers and takes nothing raises what a mistake of ours would: whether it takes a write tells them apart.

With PostgreSQL that is really read-only, or whose rights were revoked: `tests.journeys.test_outages`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import (
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
    connection,
    transaction,
)
from django.test import Client
from django.utils import timezone

from agents import lines
from calls import away, by_heart, patience, services
from calls.storing import the_keeper
from tests.builders import CALLER, a_line
from tests.calls.doors import NUMBER, PUBLIC_URL, TOKEN, knock
from tests.calls.test_keeper import nobody_can_write, wait_for

pytestmark = pytest.mark.django_db(transaction=True)
SID = "CA" + "d" * 32
RINGING = {"CallSid": SID, "AccountSid": "AC1", "From": CALLER, "To": NUMBER, "CallStatus": "ringing"}
READ_ONLY, NO_RIGHT = InternalError("read-only"), ProgrammingError("permission denied")  # as PostgreSQL's driver calls them


@pytest.fixture
def line(settings: Any) -> None:
    settings.PUBLIC_URL, settings.TWILIO_AUTH_TOKENS = PUBLIC_URL, [TOKEN]
    a_line(number=NUMBER)
    lines.warm()


@contextmanager
def takes_nothing() -> Iterator[None]:
    """It answers at once, lets itself be read, and refuses the one write that it is tried with."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TRIGGER refuses BEFORE INSERT ON calls_spoolmark BEGIN SELECT RAISE(ABORT, 'refused'); END")
        try:
            yield
        finally:
            cursor.execute("DROP TRIGGER refuses")


@contextmanager
def raised_by_every_write_of_a_call(problem: Exception) -> Iterator[None]:
    def refuse(**_: object) -> None:
        raise problem

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(services, "open_call", refuse)
        yield


@pytest.mark.parametrize("problem", [READ_ONLY, NO_RIGHT, Error("the file is no database")], ids=repr)
def test_what_a_mistake_would_raise_too_is_none_while_no_write_is_taken(problem: Exception) -> None:
    assert not away.is_away(problem)
    with takes_nothing():
        assert away.is_away(problem)


@pytest.mark.parametrize("problem", [OperationalError("locked"), InterfaceError("closed"), SoftTimeLimitExceeded(60)], ids=repr)
def test_a_database_that_is_not_there_or_takes_too_long_says_so_itself(problem: Exception) -> None:
    assert away.is_away(problem)


@pytest.mark.parametrize("problem", [IntegrityError("twice"), DataError("too long"), AttributeError("of ours")], ids=repr)
def test_what_the_database_looked_at_and_what_it_never_saw_is_not_its_absence(problem: Exception) -> None:
    with takes_nothing():
        assert not away.is_away(problem)


def test_inside_a_transaction_it_is_a_mistake() -> None:
    with transaction.atomic():
        assert not away.is_away(NO_RIGHT)


@pytest.mark.usefixtures("line")
@pytest.mark.parametrize("how", [takes_nothing, nobody_can_write], ids=["at once", "after longer than a caller waits"])
@pytest.mark.parametrize("problem", [READ_ONLY, NO_RIGHT], ids=repr)
def test_the_first_caller_whom_such_a_database_refuses_is_answered_by_heart(
    client: Client, problem: Exception, how: Callable[[], AbstractContextManager[None]]
) -> None:
    with how(), raised_by_every_write_of_a_call(problem):
        assert "Stream" in knock(client, "/webhook/twilio", RINGING).content.decode()
        wait_for(lambda: the_keeper().is_away)


@pytest.mark.usefixtures("line")
def test_a_mistake_that_a_healthy_database_raises_is_seen(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "WHERE_A_CALLER_WAITS_S", 30.0)  # a busy machine is no slow database
    with raised_by_every_write_of_a_call(NO_RIGHT):
        assert knock(client, "/webhook/twilio", RINGING).status_code == 503
    assert not the_keeper().is_away
    assert by_heart.known(SID) is None


@pytest.mark.usefixtures("line")
@pytest.mark.parametrize(("is_away", "stays"), [(True, True), (False, False)], ids=["no write is taken", "writes are taken"])
def test_what_is_known_of_a_call_is_let_go_only_when_it_was_looked_at(is_away: bool, stays: bool) -> None:
    assert by_heart.opened(sid=SID, account_sid="AC1", from_number=CALLER, to_number=NUMBER, at=timezone.now()) is not None
    with takes_nothing() if is_away else nullcontext(), raised_by_every_write_of_a_call(NO_RIGHT):
        try:
            by_heart.enter(SID)
        except ProgrammingError:
            assert is_away
    assert bool(list(Path(settings.SPOOL_DIR).rglob("*.call"))) is stays
