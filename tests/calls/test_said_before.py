"""A process that dies while nobody can read the database: the next agent knows what was said before, and no word of it stays behind."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import OperationalError, connection, transaction
from django.test import Client
from django.utils import timezone

from bridge.lately import Lately
from bridge.ports import CallRef
from calls import consent, erasure, said_before
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
from tests.journeys.outage import nobody_can_read as no_database
from tests.races.begun import begun

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


def left_behind() -> list[Path]:
    return list((Path(settings.SPOOL_DIR) / "said").glob("*"))


def words_on_the_disk() -> str:
    return " ".join(path.read_text(errors="replace") for path in left_behind())


def hangs_up(client: Client, call: CallSession) -> int:
    """What Twilio is answered that tells so."""
    form = {"CallSid": call.call_sid, "AccountSid": ACCOUNT, "From": CALLER, "To": NUMBER, "CallStatus": "completed"}
    return knock(client, "/webhook/twilio/status", form).status_code


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
    wait_for(lambda: WORDS in words_on_the_disk())
    (path,) = left_behind()
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert CARD not in words_on_the_disk()


def test_what_is_said_is_put_down_in_a_moment_although_the_database_is_there(ledger: DatabaseLedger, call: CallSession) -> None:
    heard = lately(("user", WORDS))
    with carried(ledger, ref_of(call), heard):
        for words in (WORDS, LATER):
            heard.add("user", words)
            wait_for(lambda words=words: words in words_on_the_disk())  # type: ignore[misc]


def test_a_process_that_is_killed_in_the_first_moment_of_an_outage_has_left_what_was_said(
    client: Client, ledger: DatabaseLedger, vapi: FakeVapi, call: CallSession
) -> None:
    """Nobody had found out yet, itself included. When the call is over no word of it is left."""
    database = Path(connection.settings_dict["NAME"])
    with begun("tests.calls.carrier", database_url=f"sqlite:///{database}", SPOOL_DIR=str(settings.SPOOL_DIR)) as (to, words):
        print(call.call_sid, json.dumps(["bot", GREETING]), json.dumps(["user", WORDS]), sep="\n", file=to, flush=True)
        wait_for(lambda: WORDS in words_on_the_disk())
        with no_database(database):
            print("die", file=to, flush=True)
            assert words.read() == "", "it is dead"
            is_found_away()
            admission = opens(ledger, call, asks(client, call))
            assert admission is not None
            is_made(ledger, admission)
        told = [(message["role"], message["content"]) for message in vapi.created[-1]["assistant"]["model"]["messages"][1:]]
        assert told == [("assistant", GREETING), ("user", WORDS)]
    all_is_stored()
    said_before.forget_over()
    assert WORDS in words_on_the_disk(), "the call is on"
    assert hangs_up(client, call) < 300
    said_before.forget_over()
    assert not left_behind()


def test_whoever_is_killed_while_writing_leaves_what_is_whole(talking: CallSession) -> None:
    wait_for(lambda: said_before.kept(talking.call_sid) != [])
    before, (path,) = said_before.kept(talking.call_sid), left_behind()
    whole = path.read_bytes()
    for first, second in ((b"torn", b""), (b"", b"torn")):
        path.write_bytes(first + whole[len(first) : said_before.ROOM] + second + whole[said_before.ROOM + len(second) :])
        assert said_before.kept(talking.call_sid) == before


@pytest.mark.parametrize("then", [[("user", "four two four two")], []], ids=["a longer file before", "the first half before"])
def test_no_word_of_what_was_put_down_before_stays_in_the_file(talking: CallSession, then: list[tuple[str, str]]) -> None:
    """Neither what has fallen out of the newest lines nor the first half of a card's number, which was not known to be one."""
    said = [("user", f"{WORDS}, it is 4111 1111"), *([] if then else [("user", "1111 1111")])]
    heard = [said[:1], then or said]
    kept = SaidBefore()
    with kept.remembering(CallRef("CA" + "b" * 32, 0, "call-b"), lambda: heard[0]):
        kept.keep()
        assert "4111" in words_on_the_disk()
        del heard[0]
        kept.keep()
    assert "4111" not in words_on_the_disk()


def test_a_stream_that_took_up_the_agent_of_the_one_before_does_not_tell_twice_what_that_one_heard(call: CallSession) -> None:
    heard, kept = lately(("bot", GREETING), ("user", WORDS)), SaidBefore()
    for epoch in (0, 1):
        with kept.remembering(CallRef(call.call_sid, epoch, call.short_id), lambda: heard):
            kept.keep()
            heard.add("user", LATER)
            kept.keep()
    assert [said.words for said in said_before.kept(call.call_sid)] == [GREETING, WORDS, LATER, LATER]


def test_a_disk_that_takes_nothing_is_told_of_once_and_tried_again_with_the_next_line(
    call: CallSession, caplog: pytest.LogCaptureFixture
) -> None:
    heard, kept = lately(), SaidBefore()
    Path(settings.SPOOL_DIR).mkdir()
    in_the_way = Path(settings.SPOOL_DIR) / "said"
    in_the_way.touch()
    with kept.remembering(ref_of(call), lambda: heard):
        for words in (GREETING, WORDS):
            heard.add("user", words)
            kept.keep()
        assert [record.message for record in caplog.records].count("What was said could not be kept") == 1
        in_the_way.unlink()
        heard.add("user", LATER)
        kept.keep()
        assert WORDS in words_on_the_disk()


def test_a_call_whose_leg_is_over_leaves_nothing(client: Client, talking: CallSession) -> None:
    with nobody_can_write():
        is_found_away()
        wait_for(lambda: WORDS in words_on_the_disk())
        assert hangs_up(client, talking) < 300
        assert words_on_the_disk() == ""
    all_is_stored()


def test_what_a_dead_process_put_down_goes_when_the_rows_say_that_the_call_is_over_and_not_before(talking: CallSession) -> None:
    wait_for(lambda: WORDS in words_on_the_disk())
    said_before.forget_over()
    is_over(talking)
    with nobody_can_read(), ThreadPoolExecutor(1) as another, pytest.raises(OperationalError):
        another.submit(said_before.forget_over).result()
    assert WORDS in words_on_the_disk()
    said_before.forget_over()
    assert not left_behind()


def test_what_was_put_down_of_a_call_that_nobody_knows_goes_after_a_day() -> None:
    kept = SaidBefore()
    with kept.remembering(CallRef("CA" + "c" * 32, 0, "call-c"), lambda: [("user", WORDS)]):
        kept.keep()
    said_before.forget_over()
    (path,) = left_behind()
    os.utime(path, (1.0, 1.0))
    said_before.forget_over()
    assert not left_behind()


def is_over(call: CallSession) -> None:
    CallSession.objects.filter(pk=call.pk).update(status=Status.FINALISED, ended_at=timezone.now(), end_reason=EndReason.CALLER_HUNG_UP)


def erased(call: CallSession) -> None:
    erasure.wipe(pk=call.pk, parts=ALL, why=ErasedWhy.REQUEST, at=timezone.now())


def unrecorded(call: CallSession) -> None:
    with transaction.atomic():
        consent.refuse_recording(call=call, at=timezone.now())


@pytest.mark.parametrize("unsaid", [erased, unrecorded])
def test_of_whom_nothing_may_be_kept_nothing_is_put_down(talking: CallSession, unsaid: Callable[[CallSession], None]) -> None:
    heard, kept = lately(("user", WORDS)), SaidBefore()
    with kept.remembering(ref_of(talking), lambda: heard):
        kept.keep()
        assert WORDS in words_on_the_disk()
        unsaid(talking)
        assert words_on_the_disk() == ""
        heard.add("user", LATER)
        kept.keep()
        assert words_on_the_disk() == ""


def test_an_erased_call_that_is_over_leaves_no_mark() -> None:
    over = a_call()
    is_over(over)
    erased(over)
    assert not left_behind()


def test_what_another_machine_heard_of_a_call_counts_here_too(talking: CallSession) -> None:
    """Nobody of this machine was told that the caller asked not to be recorded: the row says so."""
    heard, kept = lately(("user", WORDS)), SaidBefore()
    with kept.remembering(ref_of(talking), lambda: heard):
        kept.keep()
        CallSession.objects.filter(pk=talking.pk).update(unrecorded_at=timezone.now())
        said_before.forget_over()
        assert words_on_the_disk() == ""
        heard.add("user", LATER)
        kept.keep()
        assert words_on_the_disk() == ""


def test_what_one_call_breaks_is_kept_of_the_others(talking: CallSession) -> None:
    def breaks() -> Any:
        raise RuntimeError("deque mutated during iteration")

    kept = SaidBefore()
    with kept.remembering(CallRef("CA" + "b" * 32, 0, "call-b"), breaks), kept.remembering(ref_of(talking), lambda: [("user", WORDS)]):
        kept.keep()
    assert WORDS in words_on_the_disk()
