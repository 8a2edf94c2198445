"""What is told while nobody can write into the database: nothing is lost, doubled, or out of its place, and nothing stays behind."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import IntegrityError, OperationalError, connection, transaction
from django.test import Client
from django.utils import timezone

from agents import account, lines
from bridge.ports import CallRef, Closing, Note
from calls import breaker, by_heart, circuit, endings, entries, erasure, person, services
from calls.entries import Admitted, Closed, Entry, Told
from calls.keeper import Keeper
from calls.ledger import DatabaseLedger
from calls.models import (
    CallbackRequest,
    CallSession,
    EndReason,
    InboxMessage,
    Outcome,
    SpoolMark,
    Status,
    TranscriptLine,
    VapiAccount,
    VapiSession,
)
from calls.queue_rows import AgentPlace, Waiting
from calls.spool import Spool, files
from calls.storing import finish_again, store_again, the_keeper
from supportvoice.sqlite3.base import _turns
from tests.builders import CALLER, LINE, FakeVapi, a_call, a_line
from tests.calls.doors import NUMBER, PUBLIC_URL, TOKEN, knock
from tests.on_disk import bytes_of_the_database

pytestmark = pytest.mark.django_db(transaction=True)
only_sqlite = pytest.mark.skipif(not settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"), reason="There are no turns elsewhere.")
SECRET = "hook-secret"
SAID = "My dog ate the router this morning"


@contextmanager
def nobody_can_write_for(seconds: float) -> Iterator[None]:
    with ExitStack() as lock:
        lock.enter_context(nobody_can_write())
        letting_go = threading.Timer(seconds, lock.pop_all().close)
        letting_go.start()
        yield
        letting_go.join()


@contextmanager
def nobody_can_write() -> Iterator[None]:
    name = str(connection.settings_dict["NAME"])
    held = sqlite3.connect(name, timeout=10, isolation_level=None, check_same_thread=False)
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
        wait_for(lambda: the_keeper().is_away)
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
    wait_for(lambda: files(Path(settings.SPOOL_DIR)) == [])


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
@pytest.mark.parametrize(
    ("why", "said"), [("agent-ended", "Hangup"), ("stream-lost", "Stream"), ("handed-over", "Record"), ("no-agent", "Record")]
)
def test_what_is_next_is_known_without_the_database(client: Client, why: str, said: str) -> None:
    call = a_call(status=Status.STREAMING, to=NUMBER)
    lines.warm()
    form = {"CallSid": call.call_sid, "AccountSid": "AC1", "From": CALLER, "To": NUMBER, "CallStatus": "in-progress"}
    with nobody_can_write():
        by_heart.closed(call.call_sid, 0, why)
        started = time.monotonic()
        answer = knock(client, "/webhook/twilio/resume/0", form)
        assert time.monotonic() - started < 1.0
        wait_for(lambda: the_keeper().is_away or said == "Hangup")
        started = time.monotonic()
        assert knock(client, "/webhook/twilio/resume/0", form).content == answer.content
        assert time.monotonic() - started < 0.3, "a database that is known to be away is not waited for"
    assert said in answer.content.decode()


@pytest.mark.usefixtures("twilio")
def test_that_a_caller_was_led_on_by_heart_stands_in_the_rows_afterwards(client: Client) -> None:
    """A sweep has to know it: no sound of a talk or a message passes us."""
    call = a_call(status=Status.STREAMING, to=NUMBER)
    lines.warm()
    form = {"CallSid": call.call_sid, "AccountSid": "AC1", "From": CALLER, "To": NUMBER, "CallStatus": "in-progress"}
    with nobody_can_write():
        by_heart.closed(call.call_sid, 0, "handed-over")
        assert "Record" in knock(client, "/webhook/twilio/resume/0", form).content.decode()
    wait_for(lambda: not the_keeper().holds)
    assert call.commands.get(verb="led-by-heart").done_at is not None


@pytest.mark.usefixtures("twilio")
def test_a_goodbye_that_is_not_written_down_yet_is_a_goodbye_all_the_same(client: Client) -> None:
    """The database is back, and another process has not stored yet what its stream told."""
    call = a_call(status=Status.STREAMING, to=NUMBER)
    by_heart.closed(call.call_sid, 0, "agent-ended")
    form = {"CallSid": call.call_sid, "AccountSid": "AC1", "From": CALLER, "To": NUMBER, "CallStatus": "in-progress"}
    assert "Hangup" in knock(client, "/webhook/twilio/resume/0", form).content.decode()


@pytest.mark.usefixtures("twilio")
def test_a_goodbye_in_the_moment_in_which_a_person_was_asked_for_is_none(client: Client) -> None:
    """The row has both, as the bridge's mark has the goodbye alone."""
    a_line(number=NUMBER, targets=("tier2",))
    call = a_call(status=Status.STREAMING, to=NUMBER)
    key = services.hand_over_key(call.call_sid, 0)
    services.ask(call=call, key=key, verb="hand-over", detail={"target": "tier2"}, at=timezone.now())
    by_heart.closed(call.call_sid, 0, "agent-ended")
    services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing("agent-ended"), at=timezone.now())
    form = {"CallSid": call.call_sid, "AccountSid": "AC1", "From": CALLER, "To": NUMBER, "CallStatus": "in-progress"}
    assert "<Dial" in knock(client, "/webhook/twilio/resume/0", form).content.decode()


def test_what_was_stored_line_by_line_when_the_database_went_away_again_is_not_stored_twice() -> None:
    """Two processes that tell of one call at once may both want an event's number: then a batch is refused, and not for ever."""
    stored: list[int] = []
    problems: list[Exception] = [IntegrityError("the number is taken"), OperationalError("locked")]

    def store(told: Sequence[Mapping[str, Any]]) -> None:
        if len(told) == 6 or (problems and stored == [0, 1, 2] and told):
            raise problems.pop(0)
        stored.extend(each["n"] for each in told)

    directory = Path(settings.SPOOL_DIR)
    keeper = Keeper(spool=Spool(directory), directory=directory, store=store)
    keeper.spool.append([{"n": n} for n in range(6)])
    with pytest.raises(OperationalError):
        keeper.replay()
    keeper.replay()
    assert stored == list(range(6))
    assert files(directory) == []
    assert not SpoolMark.objects.exists()


@pytest.mark.parametrize("problem", [AttributeError("of a hook"), OperationalError("locked")], ids=["a bug", "a database that is busy"])
def test_what_was_stored_before_something_failed_that_comes_after_is_not_stored_twice(problem: Exception) -> None:
    stored: list[int] = []

    def fail() -> None:
        raise problem

    def store(told: Sequence[Mapping[str, Any]]) -> None:
        if told and not stored:
            transaction.on_commit(fail)
        stored.extend(each["n"] for each in told)

    directory = Path(settings.SPOOL_DIR)
    keeper = Keeper(spool=Spool(directory), directory=directory, store=store)
    keeper.spool.append([{"n": n} for n in range(6)])
    with suppress(OperationalError):
        keeper.replay()
    keeper.replay()
    assert stored == list(range(6))
    assert files(directory) == []


# -- two processes of one call -----------------------------------------------------------------------------------------


SID = "CA" + "d" * 32


def a_call_by_heart() -> list[dict[str, Any]]:
    """Answered and carried while nobody could write; what its stream told."""
    lines.warm()
    assert by_heart.opened(sid=SID, account_sid="AC1", from_number=CALLER, to_number=NUMBER, at=timezone.now()) is not None
    ref, now = CallRef(SID, 0, "bbbbbb"), time.time()
    started, closed = (Note(kind, "bridge", now, time.monotonic(), {}) for kind in ("stream-started", "greeting-heard"))
    told: list[Entry] = [
        Admitted(ref, "AC1", "MZ1", now),
        Told(ref, started),
        Told(ref, closed),
        Closed(ref, Closing("agent-ended", "", {}), now, now),
    ]
    return [entries.kept(each) for each in told]


def a_keeper() -> Keeper:
    """That of another process."""
    directory = Path(settings.SPOOL_DIR)
    return Keeper(spool=Spool(directory), directory=directory, store=store_again, finish=finish_again)


def test_the_end_of_a_leg_is_written_down_after_all_that_any_process_kept_of_its_stream() -> None:
    a_line(number=NUMBER)
    told = a_call_by_heart()
    carrier, other = a_keeper(), a_keeper()
    carrier.spool.append(told)
    assert by_heart.leg_over(SID, status="completed", at=timezone.now())
    other.replay()
    assert not CallSession.objects.get(call_sid=SID).is_over
    carrier.replay()
    call = CallSession.objects.get(call_sid=SID)
    assert (call.end_reason, call.outcome) == (EndReason.AGENT_ENDED, Outcome.RESOLVED)
    kinds = [kind for kind in call.events.order_by("seq").values_list("kind", flat=True) if kind != "history-spooled"]
    assert kinds[-4:] == ["stream-started", "greeting-heard", "stream-closed", "call-ended"]
    assert files(Path(settings.SPOOL_DIR)) == list(Path(settings.SPOOL_DIR).rglob("*.leg")) == []


@pytest.mark.usefixtures("twilio")
def test_so_is_one_that_twilio_tells_when_the_database_is_back_for_this_process_and_another_has_not_told_what_it_kept(
    client: Client,
) -> None:
    a_line(number=NUMBER)
    told = a_call_by_heart()
    carrier = a_keeper()
    carrier.spool.append(told)
    form = {"CallSid": SID, "AccountSid": "AC1", "From": CALLER, "To": NUMBER, "CallStatus": "completed"}
    assert knock(client, "/webhook/twilio/status", form).status_code == 200
    assert not CallSession.objects.get(call_sid=SID).is_over
    carrier.replay()
    call = CallSession.objects.get(call_sid=SID)
    assert (call.end_reason, call.outcome) == (EndReason.AGENT_ENDED, Outcome.RESOLVED)
    assert list(call.events.order_by("seq").values_list("kind", flat=True))[-2:] == ["stream-closed", "call-ended"]


def test_a_leg_that_is_over_before_its_stream_is_told_of_ends_as_the_stream_did() -> None:
    a_line(number=NUMBER)
    told = a_call_by_heart()
    by_heart.enter_all()
    endings.leg_over(call_sid=SID, status="completed", at=timezone.now())
    store_again(told)
    call = CallSession.objects.get(call_sid=SID)
    assert (call.end_reason, call.outcome) == (EndReason.AGENT_ENDED, Outcome.RESOLVED)


# -- over the limits -----------------------------------------------------------------------------------------------------


def without_room(settings: Any) -> CallSession:
    """A line whose one place with the AI another call has."""
    settings.MAX_CALLS = 1
    a_line(number=NUMBER)
    other = a_call(to=NUMBER)
    assert AgentPlace.objects.get().call == other
    return other


def test_a_call_that_was_answered_by_heart_never_waits_afterwards_however_many_there_are(settings: Any) -> None:
    """Nothing it told is lost, and who heard goodbye has no agent again."""
    without_room(settings)
    told = a_call_by_heart()
    by_heart.enter_all()
    call = CallSession.objects.get(call_sid=SID)
    assert (call.status, AgentPlace.objects.filter(call=call).count()) == (Status.CONNECTING, 1)
    assert not Waiting.objects.exists()
    assert call.vapi_sessions.get().account == VapiAccount.MAIN
    store_again(told)
    call.refresh_from_db()
    assert (call.is_over, call.end_reason, call.outcome) == (True, EndReason.AGENT_ENDED, Outcome.RESOLVED)


def test_one_that_is_over_by_then_keeps_nobody_else_from_the_agent(settings: Any) -> None:
    settings.MAX_CALLS = 1
    a_line(number=NUMBER)
    a_call_by_heart()
    assert by_heart.leg_over(SID, status="completed", at=timezone.now())
    by_heart.enter_all()
    assert a_call(to=NUMBER).status == Status.CONNECTING
    assert not Waiting.objects.exists()


@pytest.mark.parametrize("has_backup", [True, False], ids=["with a backup", "without one"])
def test_the_agent_of_such_a_call_stays_at_the_account_that_carries_it(settings: Any, has_backup: bool) -> None:
    """Whatever the main account says when the database is back."""
    settings.VAPI_BACKUP_API_KEY = "backup-key" if has_backup else ""
    a_line(number=NUMBER, targets=("tier2",))
    told = a_call_by_heart()
    assert by_heart.first(SID, "claim-0")
    breaker.failed(account.MAIN, circuit.KEY, at=timezone.now())
    by_heart.enter_all()
    store_again(told)
    session = VapiSession.objects.get(call__call_sid=SID)
    assert (session.n, session.account, session.claimed_by) == (0, VapiAccount.MAIN, "consumer")
    assert CallSession.objects.get(call_sid=SID).rung == "R0"


# -- busy is not away --------------------------------------------------------------------------------------------------

RINGING = {"CallSid": SID, "AccountSid": "AC1", "From": CALLER, "To": NUMBER, "CallStatus": "ringing"}


@pytest.mark.usefixtures("twilio")
def test_a_database_that_was_busy_for_a_moment_answers_the_call_itself(client: Client) -> None:
    a_line(number=NUMBER)
    lines.warm()
    with nobody_can_write_for(0.1):
        answer = knock(client, "/webhook/twilio", RINGING)
    assert "Stream" in answer.content.decode()
    assert not the_keeper().is_away
    call = CallSession.objects.get(call_sid=SID)
    assert not call.events.filter(kind="history-spooled").exists()
    assert not list(Path(settings.SPOOL_DIR).rglob("*.call"))


@pytest.mark.usefixtures("twilio")
def test_one_that_is_busy_for_longer_than_a_caller_waits_is_asked_again_by_the_next_one(client: Client) -> None:
    a_line(number=NUMBER)
    lines.warm()
    with nobody_can_write_for(0.7):
        answer = knock(client, "/webhook/twilio", RINGING)
        assert not CallSession.objects.exists()
    assert "Stream" in answer.content.decode()
    assert knock(client, "/webhook/twilio", RINGING | {"CallSid": "CA" + "c" * 32}).status_code == 200
    wait_for(lambda: set(CallSession.objects.values_list("call_sid", flat=True)) == {SID, "CA" + "c" * 32})


@pytest.mark.usefixtures("twilio")
def test_all_that_a_document_waits_for_is_one_wait(client: Client) -> None:
    """Whichever door: one that asks for several things has no more time for them than one that asks for one."""
    call = a_call(status=Status.STREAMING, to=NUMBER)
    lines.warm()
    form = {"CallSid": call.call_sid, "AccountSid": "AC1", "From": CALLER, "To": NUMBER, "CallStatus": "in-progress"}
    doors = ("", "/resume/0", "/wait/0/1", "/dial/0/tier2", "/voicemail/0", "/fallback")
    for door in doors:
        the_keeper().stop()
        the_keeper.cache_clear()  # a process that has not met it yet
        with nobody_can_write():
            began = time.monotonic()
            assert knock(client, f"/webhook/twilio{door}", form).status_code == 200
            assert time.monotonic() - began < 0.9, door
    the_keeper().adopt()


@pytest.mark.usefixtures("twilio")
def test_a_goodbye_that_is_written_down_waits_for_nobody_who_writes(client: Client) -> None:
    call = a_call(status=Status.ENDED, ended_at=timezone.now(), end_reason=EndReason.AGENT_ENDED, to=NUMBER)
    lines.warm()
    form = {"CallSid": call.call_sid, "AccountSid": "AC1", "From": CALLER, "To": NUMBER, "CallStatus": "in-progress"}
    with nobody_can_write():
        assert "Hangup" in knock(client, "/webhook/twilio/resume/0", form).content.decode()
        assert not the_keeper().is_away, "the database was asked for a write"
        the_keeper().suspect()
        wait_for(lambda: the_keeper().is_away)
        assert "Hangup" in knock(client, "/webhook/twilio/resume/0", form).content.decode()


def test_what_a_stream_tells_while_the_database_is_busy_stands_in_its_place_afterwards() -> None:
    call = a_call(status=Status.STREAMING)
    ledger = DatabaseLedger(token_key=b"k" * 32, client=FakeVapi())
    with nobody_can_write_for(2.2):
        for number in range(40):
            ledger.note(ref_of(call), Note("clear-sent", "bridge", time.time(), time.monotonic(), {"number": number}))
        assert ledger.writer.counts.dropped == 0
    wait_for(lambda: call.events.filter(kind="clear-sent").count() == 40)
    ledger.close()
    found = call.events.filter(kind="clear-sent").order_by("seq").values_list("detail", flat=True)
    assert [detail["number"] for detail in found] == list(range(40))
    wait_for(lambda: not the_keeper().holds)


# -- a database that is only busy ------------------------------------------------------------------------------------


@contextmanager
def others_of_this_process_write() -> Iterator[None]:
    """One after the other, and who looks whether the database takes a write never gets their turn."""
    turn, over = _turns[str(connection.settings_dict["NAME"])], threading.Event()
    while not turn.is_free():
        time.sleep(0.001)

    def write() -> None:
        while not over.wait(0.02):
            turn.written()

    writing = threading.Thread(target=write)
    writing.start()
    try:
        yield
    finally:
        over.set()
        writing.join(5)
        turn.pass_on()


@only_sqlite
def test_a_database_to_which_others_of_this_process_write_is_not_away_however_late_our_turn_comes() -> None:
    with others_of_this_process_write():
        began = time.monotonic()
        assert not the_keeper().ask()
        assert time.monotonic() - began < 2.0, "whoever waits for the answer has a caller who waits"


@only_sqlite
def test_a_database_that_was_away_is_back_as_soon_as_others_of_this_process_write() -> None:
    with ExitStack() as lock:
        lock.enter_context(nobody_can_write())
        assert the_keeper().ask()
        with others_of_this_process_write():
            lock.close()
            wait_for(lambda: not the_keeper().is_away, within_s=2.0)
    wait_for(lambda: not the_keeper().holds)


# -- wishes ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("vapi")
@pytest.mark.parametrize(("tool", "verb"), [("transfer_to_human", "hand-over"), ("end_call", "end-call")])
def test_a_person_or_the_end_can_be_had_while_the_database_is_away_once(client: Client, tool: str, verb: str) -> None:
    call = a_call(status=Status.STREAMING)
    ledger = DatabaseLedger(token_key=b"k" * 32, client=FakeVapi())
    asked = [{"id": "t1", "function": {"name": tool, "arguments": {}}}, {"id": "t2", "function": {"name": "weather", "arguments": {}}}]
    name = {"id": f"vapi-of-{call.call_sid}", "name": f"{call.call_sid}.0"}
    body = {"message": {"type": "tool-calls", "toolCallList": asked, "call": name}}
    with nobody_can_write():
        answer = client.post("/webhook/vapi", json.dumps(body), content_type="application/json", headers={"X-Vapi-Secret": SECRET})
        wanted, other = answer.json()["results"]
        assert ("when you stop speaking" in wanted["result"], "error" in other) == (True, True)
        (command,) = asyncio.run(ledger.commands(ref_of(call), after=7))
        assert (command.id, command.verb, command.detail["at_once"]) == (7, verb, False)
        assert asyncio.run(ledger.commands(ref_of(call), after=7)) == []
    ledger.close()


def test_a_wish_that_nobody_took_is_not_granted_to_a_later_stream() -> None:
    for age, granted in ((60.0, False), (5.0, True)):
        assert by_heart.wish(SID, "hand-over", at=time.time() - age)
        assert bool(by_heart.granted(SID, now=time.time())) == granted


# -- the disk is full --------------------------------------------------------------------------------------------------


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may hold a byte more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("twilio")
def test_a_full_disk_costs_a_call_neither_its_agent_nor_its_history(client: Client) -> None:
    a_line(number=NUMBER)
    lines.warm()
    form = {"CallSid": SID, "AccountSid": "AC1", "From": CALLER, "To": NUMBER, "CallStatus": "ringing"}
    with full_disk():
        assert "Stream" in knock(client, "/webhook/twilio", form).content.decode()
        assert by_heart.first(SID, "stream-0")
        assert not by_heart.first(SID, "stream-0")
        ref, now = CallRef(SID, 0, "bbbbbb"), time.time()
        the_keeper().append([entries.kept(Admitted(ref, "AC1", "MZ1", now)), *notes(ref, 3)])
        by_heart.closed(SID, 0, "agent-ended")
        assert "Hangup" in knock(client, "/webhook/twilio/resume/0", {**form, "CallStatus": "in-progress"}).content.decode()
        assert knock(client, "/webhook/twilio/status", {**form, "CallStatus": "completed"}).status_code == 200
    wait_for(lambda: not the_keeper().holds and not list(Path(settings.SPOOL_DIR).rglob("*.leg")))
    call = CallSession.objects.get(call_sid=SID)
    assert call.is_over
    assert (call.from_number, call.events.filter(kind="clear-sent").count()) == (CALLER, 3)
    assert not list(Path(settings.SPOOL_DIR).rglob("*.call"))


# -- what Twilio tells meanwhile ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("twilio")
def test_a_message_that_is_left_while_the_database_is_away_is_called_back(client: Client) -> None:
    call = a_call(status=Status.VOICEMAIL, to=NUMBER, closed_epoch=0, closed_why="stream-lost")
    recording = {"RecordingSid": "RE" + "1" * 32, "RecordingDuration": "7"}
    form = {"CallSid": call.call_sid, "AccountSid": "AC1", "From": CALLER, "To": NUMBER, "CallStatus": "in-progress"}
    with nobody_can_write():
        assert "Hangup" in knock(client, "/webhook/twilio/voicemail/0", {**form, **recording}).content.decode()
        told = {**form, **recording, "RecordingStatus": "completed"}
        assert knock(client, "/webhook/twilio/recording/voicemail", told).status_code == 200
        assert "Hangup" in knock(client, "/webhook/twilio/resume/0", {**form, "CallStatus": "completed"}).content.decode()
    wait_for(lambda: not the_keeper().holds and not list(Path(settings.SPOOL_DIR).rglob("*.leg")))
    call.refresh_from_db()
    assert (call.end_reason, call.outcome) == (EndReason.VOICEMAIL_LEFT, Outcome.VOICEMAIL)
    assert CallbackRequest.objects.filter(call=call).count() == 1
    assert call.recordings.count() == 1


@pytest.mark.usefixtures("twilio")
def test_a_person_who_talked_while_the_database_was_away_has_talked(client: Client) -> None:
    call = a_call(status=Status.STREAMING, to=NUMBER, stream_epoch=0)
    form = {"CallSid": call.call_sid, "AccountSid": "AC1", "From": CALLER, "To": NUMBER, "CallStatus": "in-progress"}
    leg = {"CallSid": "CA" + "f" * 32, "ParentCallSid": call.call_sid, "AccountSid": "AC1", "CallStatus": "in-progress"}
    with nobody_can_write():
        assert "Gather" not in knock(client, "/webhook/twilio/whisper/tier2", leg).content.decode()
        over = {**form, "DialCallStatus": "completed", "DialBridged": "true"}
        assert "Hangup" in knock(client, "/webhook/twilio/dial/0/tier2", over).content.decode()
        assert knock(client, "/webhook/twilio/status", {**form, "CallStatus": "completed"}).status_code == 200
    wait_for(lambda: not the_keeper().holds and not list(Path(settings.SPOOL_DIR).rglob("*.leg")))
    call.refresh_from_db()
    assert (call.end_reason, call.outcome) == (EndReason.HUMAN_ENDED, Outcome.HANDED_OVER)
