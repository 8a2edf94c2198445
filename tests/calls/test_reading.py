"""What can be read is read: a database that takes no write tells a stream of its agent and its commands all the same.

With PostgreSQL that is read-only, refuses, or says nothing: `tests.races.test_reading`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
from django.conf import settings
from django.db import OperationalError, connection
from django.test import Client
from django.utils import timezone

from agents import lines
from bridge import stream_token
from bridge.ports import CallRef, Closing, Conversation, LedgerAway
from calls import by_heart, resuming_by_heart, services, sessions
from calls.guards import PARKED
from calls.ledger import ASKERS, DatabaseLedger
from calls.models import CallSession, OutboxCommand, Status, VapiState
from calls.reading import IN_VAIN_FOR_S, Reading
from calls.storing import the_keeper
from tests.builders import ACCOUNT, FakeVapi, a_call
from tests.calls.doors import NUMBER, PUBLIC_URL, TOKEN
from tests.calls.test_keeper import nobody_can_write, wait_for
from tests.calls.test_ledger import KEY
from tests.calls.test_ledger import vapi as vapi
from tests.calls.test_sent_on_by_heart import asks

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"), reason="Its lock is SQLite's."),
]
R = TypeVar("R")


@pytest.fixture
def ledger(vapi: FakeVapi) -> Iterator[DatabaseLedger]:
    made = DatabaseLedger(token_key=KEY, client=vapi, deadline_s=5.0)  # this machine may be busy
    yield made
    made.close()


def run(asked: Coroutine[Any, Any, R]) -> R:
    return asyncio.run(asked)


def ref_of(call: CallSession, epoch: int = 0) -> CallRef:
    return CallRef(call.call_sid, epoch, call.short_id)


def let_in(ledger: DatabaseLedger, call: CallSession, epoch: int = 0) -> CallRef:
    proof = stream_token.issue(key=KEY, call_sid=call.call_sid, epoch=epoch, expires=int(time.time()) + 60)
    admission = run(ledger.admit(call_sid=call.call_sid, account_sid=ACCOUNT, stream_sid=f"MZ{epoch}", token=proof))
    assert admission is not None
    return admission.ref


def a_stream(ledger: DatabaseLedger) -> tuple[CallSession, CallRef]:
    """Let in by its row, while all was well."""
    call = a_call()
    lines.warm()
    return call, let_in(ledger, call)


@contextmanager
def known_to_be_away() -> Iterator[None]:
    with nobody_can_write():
        assert the_keeper().ask()
        yield
        assert the_keeper().is_away
    wait_for(lambda: not the_keeper().holds)


def a_command(call: CallSession) -> OutboxCommand:
    return OutboxCommand.objects.create(call=call, key=call.call_sid, verb="hang-up", to="live", asked_at=timezone.now())


def put_through_by_another(held: sqlite3.Connection, call: CallSession) -> None:
    """What whoever has the lock writes, and then takes the lock again."""
    held.execute(
        "UPDATE calls_vapisession SET state = ?, vapi_call_id = ?, socket_url = ? WHERE call_id = ?",
        (str(VapiState.LIVE.value), "vapi-1", "wss://agent", call.pk),
    )
    held.execute("COMMIT")
    held.execute("BEGIN IMMEDIATE")


# -- what is found -----------------------------------------------------------------------------------------------------


def test_a_stream_finds_the_agent_that_another_process_wrote_down_while_this_one_could_write_nothing(ledger: DatabaseLedger) -> None:
    call, ref = a_stream(ledger)
    held = sqlite3.connect(str(connection.settings_dict["NAME"]), timeout=10, isolation_level=None)
    held.execute("BEGIN IMMEDIATE")
    try:
        assert the_keeper().ask()
        waiting = run(ledger.conversation(ref))
        assert waiting is not None
        assert waiting.state == "asked"
        put_through_by_another(held, call)
        the_keeper().stop()  # it would find the moment between the two
        found = run(ledger.conversation(ref))
        assert the_keeper().is_away
        assert found is not None
        assert (found.state, found.socket_url) == ("live", "wss://agent")
    finally:
        held.close()


def test_a_stream_is_told_of_its_commands_and_of_its_parked_agent_while_nobody_can_write(ledger: DatabaseLedger) -> None:
    call, ref = a_stream(ledger)
    asked = a_command(call)
    other = a_call(status=Status.STREAMING, closed_epoch=0, closed_why=PARKED)
    with known_to_be_away():
        assert [(command.id, command.verb) for command in run(ledger.commands(ref, after=0))] == [(asked.pk, "hang-up")]
        assert run(ledger.commands(ref, after=asked.pk)) == []
        assert run(ledger.is_parked(ref_of(other)))


def test_who_only_reads_never_waits_behind_those_who_want_to_write(ledger: DatabaseLedger) -> None:
    """Before anybody knows that the database is away: it may only be busy."""
    _, ref = a_stream(ledger)

    async def ask() -> None:
        writing = [asyncio.create_task(ledger.taken_up(CallRef(f"CA{n}", 1, "call-n"))) for n in range(2 * ASKERS)]
        await asyncio.sleep(0)  # each is with a thread now, or waits for one
        assert await ledger.conversation(ref) is not None
        assert not any(asked.done() for asked in writing), "each waits a second for the lock"
        await asyncio.gather(*writing, return_exceptions=True)

    with nobody_can_write():
        assert not the_keeper().is_away
        run(ask())
    wait_for(lambda: not the_keeper().holds)


# -- what rows that wait to be written deny counts for nothing ------------------------------------------------------------


def test_a_stream_is_not_told_that_its_call_is_over_by_a_row_that_does_not_know_of_it_yet(client: Client, ledger: DatabaseLedger) -> None:
    """Sent on by heart, to an agent that was parked here: its row is of the epoch before."""
    call = a_call(status=Status.STREAMING, to=NUMBER, stream_epoch=0)
    lines.warm()
    with known_to_be_away():
        by_heart.closed(call.call_sid, 0, PARKED)
        sent = resuming_by_heart.elsewhere(call_sid=call.call_sid, account_sid=ACCOUNT, to_number=NUMBER, epoch=0, at=timezone.now())
        assert sent is not None
        ref = let_in(ledger, call, epoch=1)
        assert run(ledger.taken_up(ref))
        with pytest.raises(LedgerAway):
            run(ledger.conversation(ref))
    conversation = run(ledger.conversation(ref))
    assert conversation is not None


def test_nor_that_its_agent_is_parked_no_more_while_the_word_that_it_is_waits_to_be_written(ledger: DatabaseLedger) -> None:
    _, ref = a_stream(ledger)
    with known_to_be_away():
        run(ledger.ended(ref, Closing(PARKED)))
        with pytest.raises(LedgerAway):
            run(ledger.is_parked(ref))
    assert run(ledger.is_parked(ref))


# -- what is read and cannot be acted on -----------------------------------------------------------------------------------


def test_a_session_that_nobody_makes_is_claimed_only_when_a_claim_can_be_written(ledger: DatabaseLedger, vapi: FakeVapi) -> None:
    """A claim that failed would not be made again: the caller would wait for an agent that nobody makes."""
    call, ref = a_stream(ledger)
    with known_to_be_away():
        waiting = run(ledger.conversation(ref))
        assert waiting is not None
        assert waiting.state == "asked"
        assert not run(ledger.claim(ref, waiting.n))
    assert run(ledger.claim(ref, waiting.n))
    wait_for(lambda: call.vapi_sessions.get().state == VapiState.LIVE)
    assert len(vapi.created) == 1


def test_no_agent_is_made_by_heart_instead_of_one_that_is_parked_elsewhere(
    client: Client, ledger: DatabaseLedger, vapi: FakeVapi, settings: Any
) -> None:
    """The row would say that it waits, and whoever keeps it would ask for another one once more."""
    settings.PUBLIC_URL, settings.TWILIO_AUTH_TOKENS = PUBLIC_URL, [TOKEN]
    call = a_call(status=Status.STREAMING, to=NUMBER, stream_epoch=0)
    sessions.start_conversation(vapi_session_pk=call.vapi_sessions.get().pk, by="worker", client=vapi)
    services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing(PARKED), at=timezone.now())
    assert "/resume/1" in asks(client, call)
    lines.warm()
    ref = let_in(ledger, call, epoch=1)
    waiting = run(ledger.conversation(ref))
    assert waiting is not None
    assert waiting.state == PARKED
    with known_to_be_away(), pytest.raises(LedgerAway):
        run(ledger.conversation(ref))


def test_an_agent_by_heart_is_told_of_from_memory_also_when_the_row_can_be_read(ledger: DatabaseLedger, vapi: FakeVapi) -> None:
    call, ref = a_stream(ledger)
    sessions.start_conversation(vapi_session_pk=call.vapi_sessions.get().pk, by="worker", client=vapi)
    first = run(ledger.conversation(ref))
    assert first is not None
    found: list[Conversation | None] = []

    def is_made() -> bool:
        found[:] = [run(ledger.conversation(ref))]
        return found[0] is not None and found[0].state == "live"

    with known_to_be_away():
        assert run(ledger.resume(ref, raw="socket closed with 1011", n=0))
        wait_for(is_made)
        assert found[0] is not None
        assert (found[0].n, call.vapi_sessions.get().state) == (1, VapiState.LIVE)
        assert found[0].socket_url != first.socket_url


# -- a database that cannot be read either ------------------------------------------------------------------------------------


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_after_a_question_that_failed_nobody_asks_for_a_moment_while_the_database_is_away() -> None:
    clock, is_away, asked = Clock(), threading.Event(), list[int]()
    reading = Reading(is_away=is_away.is_set, clock=clock)

    def fail() -> None:
        asked.append(len(asked))
        raise OperationalError("refused")

    for _ in range(2):  # it is there, as far as anybody knows: whoever asks finds out
        with pytest.raises(OperationalError):
            reading.ask(fail)
    is_away.set()
    assert not reading.is_in_vain
    for _ in range(3):
        with pytest.raises(OperationalError):
            reading.ask(fail)
    assert (len(asked), reading.is_in_vain) == (3, True)
    clock.now += IN_VAIN_FOR_S
    assert not reading.is_in_vain
    assert reading.ask(lambda: "read") == "read"
    assert not reading.is_in_vain
