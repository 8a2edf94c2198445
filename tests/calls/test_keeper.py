"""What is told while nobody can write into the database: nothing is lost, doubled, or out of its place, and nothing stays behind."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from django.utils import timezone

from agents import lines
from bridge.ports import CallRef, Note
from calls import by_heart, entries, erasure, person
from calls.entries import Told
from calls.keeper import Keeper
from calls.ledger import store_again, the_keeper
from calls.models import CallSession, InboxMessage, SpoolMark, Status, TranscriptLine
from calls.spool import Spool, files
from tests.builders import CALLER, LINE, a_call
from tests.calls.doors import NUMBER, PUBLIC_URL, TOKEN, knock
from tests.calls.test_erasure import bytes_of_the_database

pytestmark = pytest.mark.django_db(transaction=True)
SECRET = "hook-secret"
SAID = "My dog ate the router this morning"


@contextmanager
def nobody_can_write() -> Iterator[None]:
    held = sqlite3.connect(str(connection.settings_dict["NAME"]), timeout=10, isolation_level=None)
    held.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        held.close()


def wait_for(truth: Callable[[], bool], within_s: float = 10.0) -> None:
    until = time.monotonic() + within_s
    while not truth():
        assert time.monotonic() < until
        time.sleep(0.01)


def ref_of(call: CallSession) -> CallRef:
    return CallRef(call.call_sid, 0, call.short_id)


def notes(ref: CallRef, count: int) -> list[dict[str, Any]]:
    told = [Note("clear-sent", "bridge", time.time(), time.monotonic(), {"number": n}) for n in range(count)]
    return [entries.kept(Told(ref, note)) for note in told]


def tell(client: Client, call: CallSession, **fields: Any) -> int:
    name = {"id": f"vapi-of-{call.call_sid}", "name": f"{call.call_sid}.0"}
    body = {"message": {"type": "transcript", "transcriptType": "final", "role": "user", "call": name, **fields}}
    headers = {"X-Vapi-Secret": SECRET}
    return client.post("/webhook/vapi", data=json.dumps(body), content_type="application/json", headers=headers).status_code


# -- kills -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dies_after", range(0, 700, 90))
def test_whenever_a_process_dies_while_it_stores_its_spool_each_line_stands_once_and_in_its_place(dies_after: int) -> None:
    call = a_call(status=Status.STREAMING)
    directory, stored = Path(settings.SPOOL_DIR), 0

    def store(told: Sequence[Any]) -> None:
        nonlocal stored
        store_again(told)
        stored += len(told)

    class Dying(Spool):
        def was_read(self, read: Sequence[Any]) -> None:
            if stored >= dies_after:
                raise SystemExit
            super().was_read(read)

    dying = Dying(directory)
    dying.append(notes(ref_of(call), 650))
    if dies_after:
        with suppress(SystemExit):
            Keeper(spool=dying, directory=directory, store=store).replay()
    if dying._file is not None:
        os.close(dying._file)  # as the kernel does for the dead
    the_keeper().adopt()
    the_keeper().adopt()
    found = call.events.filter(kind="clear-sent").order_by("seq").values_list("detail", flat=True)
    assert [detail["number"] for detail in found] == list(range(650))
    assert (files(directory), SpoolMark.objects.count()) == ([], 0)


# -- Vapi's messages ---------------------------------------------------------------------------------------------------


@pytest.fixture
def vapi(settings: Any) -> None:
    settings.VAPI_WEBHOOK_SECRETS = [SECRET]


@pytest.mark.usefixtures("vapi")
def test_a_message_that_cannot_be_stored_is_kept_before_its_200_and_its_line_stands_once(client: Client) -> None:
    call = a_call(status=Status.STREAMING)
    with nobody_can_write():
        started = time.monotonic()
        assert tell(client, call, transcript=SAID, timestamp=1_790_000_000_000) == 200
        assert time.monotonic() - started < 2.0
        started = time.monotonic()
        assert tell(client, call, transcript="Card 4111 1111 1111 1111", timestamp=1_790_000_001_000) == 200
        assert time.monotonic() - started < 0.3, "a database that is known to be away is not waited for"
        (file,) = files(Path(settings.SPOOL_DIR))
        assert SAID.encode() in file.read_bytes()
        assert b"4111" not in file.read_bytes()
    wait_for(lambda: not the_keeper().holds)
    assert tell(client, call, transcript=SAID, timestamp=1_790_000_000_000) == 200  # Vapi tells again
    assert list(call.lines.filter(role="user").values_list("said", flat=True)) == [SAID, "Card [card]"]
    assert InboxMessage.objects.filter(processed_at=None).count() == 0
    assert files(Path(settings.SPOOL_DIR)) == []


@pytest.mark.usefixtures("vapi")
def test_nothing_of_an_erased_person_is_left_in_the_spool_or_comes_out_of_it(client: Client) -> None:
    call = a_call(status=Status.STREAMING)
    with nobody_can_write():
        assert tell(client, call, transcript=SAID) == 200
        sid = "CA" + "e" * 32
        lines.warm()
        assert by_heart.opened(sid=sid, account_sid="AC1", from_number=CALLER, to_number=LINE, at=timezone.now()) is not None
    person.erase(CALLER, by="ada", at=timezone.now())
    wait_for(lambda: not the_keeper().holds)
    assert erasure.leave_no_trace()
    left = b"".join(path.read_bytes() for path in Path(settings.SPOOL_DIR).rglob("*") if path.is_file()) + bytes_of_the_database()
    assert SAID.encode() not in left
    assert CALLER.encode() not in left
    assert CallSession.objects.filter(call_sid=sid, erased_at__isnull=False).exists()
    assert not TranscriptLine.objects.filter(said=SAID).exists()


@pytest.fixture
def twilio(settings: Any) -> None:
    settings.PUBLIC_URL, settings.TWILIO_AUTH_TOKENS = PUBLIC_URL, [TOKEN]


# -- the end of a stream -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("twilio")
@pytest.mark.parametrize(("why", "said"), [("agent-ended", "Hangup"), ("stream-lost", "Record")])
def test_what_is_next_is_known_without_the_database(client: Client, why: str, said: str) -> None:
    call = a_call(status=Status.STREAMING, to=NUMBER)
    lines.warm()
    form = {"CallSid": call.call_sid, "AccountSid": "AC1", "From": CALLER, "To": NUMBER, "CallStatus": "in-progress"}
    with nobody_can_write():
        by_heart.closed(call.call_sid, 0, why)
        started = time.monotonic()
        answer = knock(client, "/webhook/twilio/resume/0", form)
        assert time.monotonic() - started < 2.0
    assert said in answer.content.decode()
