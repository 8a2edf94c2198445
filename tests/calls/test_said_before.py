"""A process that dies while nobody can read the database: the next agent knows what was said before, and no word of it stays behind."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import OperationalError, transaction
from django.test import Client
from django.utils import timezone

from bridge.lately import Lately
from bridge.ports import CallRef
from calls import away, consent, erasure, said_before
from calls.keeping import ALL
from calls.ledger import DatabaseLedger
from calls.models import CallSession, EndReason, ErasedWhy, Status
from calls.said_before import SaidBefore
from calls.storing import the_keeper
from tests.builders import ACCOUNT, CALLER, FakeVapi, a_call
from tests.calls.doors import NUMBER, knock
from tests.calls.test_expected import nobody_can_read
from tests.calls.test_keeper import nobody_can_write, wait_for
from tests.calls.test_sent_on_by_heart import all_is_stored, asks, is_made, opens, says
from tests.calls.test_sent_on_by_heart import call as call
from tests.calls.test_sent_on_by_heart import ledger as ledger
from tests.calls.test_sent_on_by_heart import vapi as vapi
from tests.calls.test_sent_on_by_heart import vendors as vendors

pytestmark = pytest.mark.django_db(transaction=True)
GREETING, WORDS, LATER = "Hello, how can I help?", "My dog ate the router this morning", "And now the cat has the charger"
CARD = "4111 1111 1111 1111"


def lately(*said: tuple[str, str]) -> Lately:
    heard = Lately()
    for role, words in said:
        heard.add(role, words)
    return heard


@contextmanager
def carried(ledger: DatabaseLedger, ref: CallRef, heard: Iterable[tuple[str, str]]) -> Iterator[None]:
    """A stream of this process, as the bridge has it looked after; its process dies with it."""
    loop = asyncio.new_event_loop()

    async def watched(begun: threading.Event, over: asyncio.Event) -> None:
        with ledger.watching(ref, lambda: None, lambda: heard):
            begun.set()
            await over.wait()

    begun, over = threading.Event(), asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(watched(begun, over)))
    thread.start()
    begun.wait()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


def ref_of(call: CallSession) -> CallRef:
    return CallRef(call.call_sid, 0, call.short_id)


def words_on_the_disk() -> str:
    return " ".join(path.read_text() for path in (Path(settings.SPOOL_DIR) / "said").glob("*"))


def is_found_away() -> None:
    the_keeper().suspect()
    wait_for(lambda: the_keeper().is_away)


@pytest.fixture
def talking(ledger: DatabaseLedger, call: CallSession) -> Iterator[CallSession]:
    """A stream with a card number in it, carried by this process."""
    with carried(ledger, ref_of(call), lately(("bot", GREETING), ("user", f"{WORDS}, my card is {CARD}"))):
        yield call


def test_the_next_agent_knows_what_the_dead_process_heard_before_nobody_could_read_the_database(
    client: Client, ledger: DatabaseLedger, vapi: FakeVapi, talking: CallSession
) -> None:
    with nobody_can_read():
        is_found_away()
        wait_for(lambda: WORDS in words_on_the_disk())
        says(client, talking, LATER)
        says(client, talking, GREETING, "assistant")  # told by Vapi's webhook, too, and late
        admission = opens(ledger, talking, asks(client, talking))
        assert admission is not None
        is_made(ledger, admission)
    told = [(message["role"], message["content"]) for message in vapi.created[-1]["assistant"]["model"]["messages"][1:]]
    assert [role for role, _ in told] == ["assistant", "user", "user"]
    assert told[0][1] == GREETING
    assert told[1][1].startswith(WORDS)
    assert CARD not in told[1][1]
    assert told[2][1] == LATER
    all_is_stored()


def test_what_is_put_down_is_for_its_owner_alone_and_has_nothing_that_is_never_stored(talking: CallSession) -> None:
    with nobody_can_write():
        is_found_away()
        wait_for(lambda: WORDS in words_on_the_disk())
        (path,) = (Path(settings.SPOOL_DIR) / "said").iterdir()
        assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        assert CARD not in words_on_the_disk()
    all_is_stored()


def test_while_the_database_is_there_nothing_is_put_down(talking: CallSession) -> None:
    the_keeper().ask()
    assert words_on_the_disk() == ""


def test_each_time_the_database_goes_away_what_was_said_by_then_is_put_down(ledger: DatabaseLedger, call: CallSession) -> None:
    heard = lately(("user", WORDS))
    with carried(ledger, ref_of(call), heard):
        for words in (WORDS, LATER):
            heard.add("user", words)
            with nobody_can_write():
                is_found_away()
                wait_for(lambda words=words: words in words_on_the_disk())  # type: ignore[misc]
            all_is_stored()


def test_a_call_whose_leg_is_over_leaves_nothing(client: Client, talking: CallSession) -> None:
    with nobody_can_write():
        is_found_away()
        wait_for(lambda: WORDS in words_on_the_disk())
        form = {"CallSid": talking.call_sid, "AccountSid": ACCOUNT, "From": CALLER, "To": NUMBER, "CallStatus": "completed"}
        assert knock(client, "/webhook/twilio/status", form).status_code < 300
        assert words_on_the_disk() == ""
    all_is_stored()


def test_what_a_dead_process_put_down_goes_when_the_database_is_back_and_not_before(talking: CallSession) -> None:
    with nobody_can_write():
        is_found_away()
        wait_for(lambda: WORDS in words_on_the_disk())
        with pytest.raises(OperationalError):
            said_before.forget_all()
        assert WORDS in words_on_the_disk()
    all_is_stored()
    said_before.forget_all()
    assert not list((Path(settings.SPOOL_DIR) / "said").iterdir())


def test_what_is_put_down_anew_in_the_moment_of_forgetting_stays(talking: CallSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is back and gone again between the question and the answer."""
    kept = SaidBefore()
    with kept.remembering(ref_of(talking), lambda: [("user", WORDS)]):
        kept.keep()
        for path in (Path(settings.SPOOL_DIR) / "said").iterdir():
            os.utime(path, (1.0, 1.0))
        monkeypatch.setattr(away, "ask_for_a_write", kept.keep)
        said_before.forget_all()
        assert WORDS in words_on_the_disk()


def erased(call: CallSession) -> None:
    erasure.wipe(pk=call.pk, parts=ALL, why=ErasedWhy.REQUEST, at=timezone.now())


def unrecorded(call: CallSession) -> None:
    with transaction.atomic():
        consent.refuse_recording(call=call, at=timezone.now())


@pytest.mark.parametrize("unsaid", [erased, unrecorded])
def test_of_whom_nothing_may_be_kept_nothing_is_put_down(talking: CallSession, unsaid: Callable[[CallSession], None]) -> None:
    kept = SaidBefore()
    with kept.remembering(ref_of(talking), lambda: [("user", WORDS)]):
        kept.keep()
        assert WORDS in words_on_the_disk()
        unsaid(talking)
        assert words_on_the_disk() == ""
        kept.keep()
        assert words_on_the_disk() == ""


def test_an_erased_call_that_is_over_leaves_no_mark() -> None:
    over = a_call()
    CallSession.objects.filter(pk=over.pk).update(status=Status.FINALISED, ended_at=timezone.now(), end_reason=EndReason.CALLER_HUNG_UP)
    erased(over)
    assert not list((Path(settings.SPOOL_DIR) / "said").glob("*"))


def test_what_one_call_breaks_is_kept_of_the_others(talking: CallSession) -> None:
    def breaks() -> Any:
        raise RuntimeError("deque mutated during iteration")

    kept = SaidBefore()
    with kept.remembering(CallRef("CA" + "b" * 32, 0, "call-b"), breaks), kept.remembering(ref_of(talking), lambda: [("user", WORDS)]):
        kept.keep()
    assert WORDS in words_on_the_disk()
