"""Streams that end while nobody can write into the database: the caller has the agent again on another one, and the rows follow."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Coroutine, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import Mock
from xml.etree.ElementTree import fromstring

import pytest
from django.conf import settings
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from agents import lines
from agents.payload import RESUMED
from bridge import stream_token
from bridge.ports import Admission, CallRef, Closing, LedgerAway, Note
from calls import by_heart, entries, parked, rescue_by_heart, resuming, resuming_by_heart, services, sessions
from calls.carriers import the_machine
from calls.entries import Closed, Entry, Told
from calls.ledger import DatabaseLedger
from calls.models import CallSession, EndReason, Rung, Status, VapiAccount, VapiState
from calls.spool import Spool
from calls.storing import the_keeper
from tests.builders import ACCOUNT, CALLER, FakeVapi, QuietPublisher, a_call
from tests.calls.doors import NUMBER, PUBLIC_URL, TOKEN, knock
from tests.calls.test_keeper import a_keeper, nobody_can_write, wait_for

pytestmark = pytest.mark.django_db(transaction=True)
WORDS = "My dog ate the router this morning"
R = TypeVar("R")


@pytest.fixture(autouse=True)
def vendors(settings: Any) -> None:
    settings.PUBLIC_URL, settings.TWILIO_AUTH_TOKENS, settings.VAPI_WEBHOOK_SECRETS = PUBLIC_URL, [TOKEN], ["hook-secret"]


@pytest.fixture
def vapi() -> FakeVapi:
    return FakeVapi()


@pytest.fixture
def ledger(vapi: FakeVapi) -> Iterator[DatabaseLedger]:
    made = DatabaseLedger(token_key=stream_token.key_from(settings.SECRET_KEY), client=vapi, deadline_s=5.0)
    yield made
    made.close()


@pytest.fixture
def call(vapi: FakeVapi) -> CallSession:
    """On the line with its first agent, carried by a process that is about to die."""
    talking = a_call(status=Status.STREAMING, to=NUMBER, stream_epoch=0)
    lines.warm()
    sessions.start_conversation(vapi_session_pk=talking.vapi_sessions.get().pk, by="worker", client=vapi)
    return talking


def run(asked: Coroutine[Any, Any, R]) -> R:
    return asyncio.run(asked)


def asks(client: Client, call: CallSession, epoch: int = 0) -> str:
    """What Twilio is told when the stream of this epoch is over."""
    form = {"CallSid": call.call_sid, "AccountSid": ACCOUNT, "From": CALLER, "To": NUMBER, "CallStatus": "in-progress"}
    return knock(client, f"/webhook/twilio/resume/{epoch}", form).content.decode()


def opens(ledger: DatabaseLedger, call: CallSession, document: str) -> Admission | None:
    """The stream of a document comes to this process."""
    token = fromstring(document).find(".//Parameter")
    assert token is not None
    return run(ledger.admit(call_sid=call.call_sid, account_sid=ACCOUNT, stream_sid="MZ2", token=token.attrib["value"]))


def says(client: Client, call: CallSession, words: str, role: str = "user") -> None:
    told = {"type": "transcript", "transcriptType": "final", "role": role, "transcript": words, "timestamp": time.time() * 1000}
    body = {"message": {**told, "call": {"id": call.vapi_sessions.get(n=0).vapi_call_id, "name": f"{call.call_sid}.0"}}}
    answer = client.post("/webhook/vapi", json.dumps(body), content_type="application/json", headers={"X-Vapi-Secret": "hook-secret"})
    assert answer.status_code == 200


def is_made(ledger: DatabaseLedger, admission: Admission) -> None:
    def state() -> str:
        conversation = run(ledger.conversation(admission.ref))
        return conversation.state if conversation is not None else ""

    wait_for(lambda: state() == "live")


def all_is_stored() -> None:
    wait_for(lambda: not the_keeper().holds)


def told_before(ref: CallRef, at: float) -> list[dict[str, Any]]:
    """What the process that died had kept, and what it would tell if it was not dead."""
    told: list[Entry] = [Told(ref, Note(kind, "bridge", when, when, {})) for kind, when in (("before", at - 1), ("after", at + 1))]
    return [entries.kept(each) for each in told]


# -- the door and the stream -------------------------------------------------------------------------------------------


def test_a_caller_whose_process_died_has_the_agent_again_and_the_row_learns_of_it(
    client: Client, ledger: DatabaseLedger, vapi: FakeVapi, call: CallSession, published: QuietPublisher
) -> None:
    says(client, call, "Hello, how can I help?", "assistant")
    with nobody_can_write():
        says(client, call, WORDS)
        document = asks(client, call)
        assert "One moment" in document
        assert "/resume/1" in document
        assert asks(client, call) == document, "a repeat gets the same bytes"
        admission = opens(ledger, call, document)
        assert admission is not None
        assert (admission.ref.epoch, admission.agent_speaks_first) == (1, True)
        is_made(ledger, admission)
        request = vapi.created[-1]
        assert request["name"] == f"{call.call_sid}.100"
        assert request["assistant"]["firstMessage"] == RESUMED
        told = [(message["role"], message["content"]) for message in request["assistant"]["model"]["messages"][1:]]
        assert told == [("assistant", "Hello, how can I help?"), ("user", WORDS)]
        with pytest.raises(LedgerAway):
            opens(ledger, call, document)
    all_is_stored()
    wait_for(lambda: call.vapi_sessions.get(n=100).state == VapiState.LIVE)
    call.refresh_from_db()
    assert (call.epoch, call.stream_epoch, call.status, call.rung) == (1, 1, Status.STREAMING, Rung.RESUMED)
    assert ("calls.tasks.end_sessions", (call.call_sid,)) in published.tasks
    assert sessions.open_sessions(call_sid=call.call_sid) == [call.vapi_sessions.get(n=0).pk]
    assert call.lines.filter(said=WORDS).count() == 1
    assert len(vapi.created) == 2


def test_what_the_dead_process_told_before_is_kept_and_what_it_tells_later_is_not(
    client: Client, ledger: DatabaseLedger, call: CallSession
) -> None:
    before = CallRef(call.call_sid, 0, call.short_id)
    with nobody_can_write():
        admission = opens(ledger, call, asks(client, call))
        assert admission is not None
        sent = by_heart.sent_on(call.call_sid, 1)
        assert sent is not None
        dead = a_keeper()
        dead.spool.append(told_before(before, sent["at"]))
        figures = {"interruptions": 2}
        dead.spool.append([entries.kept(Closed(before, Closing("stream-lost", "", figures), sent["at"] - 0.5, 0.0))])
    all_is_stored()
    dead.replay()
    kinds = list(call.events.values_list("kind", flat=True))
    assert (kinds.count("before"), kinds.count("after"), kinds.count("stream-closed")) == (1, 0, 1)
    call.refresh_from_db()
    assert (call.status, call.closed_epoch, call.metrics.interruptions) == (Status.STREAMING, -1, 2)


def test_a_stream_that_opens_when_the_database_is_back_finds_its_row(
    client: Client, ledger: DatabaseLedger, vapi: FakeVapi, call: CallSession
) -> None:
    with nobody_can_write():
        document = asks(client, call)
    all_is_stored()
    admission = opens(ledger, call, document)
    assert admission is not None
    conversation = run(ledger.conversation(admission.ref))
    assert conversation is not None
    assert (conversation.n, conversation.state) == (100, "asked")
    run(ledger.claim(admission.ref, 100))
    is_made(ledger, admission)
    assert [request["name"] for request in vapi.created] == [f"{call.call_sid}.0", f"{call.call_sid}.100"]


def test_who_was_led_out_of_the_newest_stream_is_told_to_ask_at_its_door(client: Client, ledger: DatabaseLedger, call: CallSession) -> None:
    with nobody_can_write():
        assert opens(ledger, call, asks(client, call)) is not None
        document = fromstring(asks(client, call))
        assert [(verb.tag, verb.text) for verb in document] == [("Redirect", f"{PUBLIC_URL}/webhook/twilio/resume/1")]
        assert "/resume/2" in asks(client, call, epoch=1)


# -- who is led down ---------------------------------------------------------------------------------------------------


def test_a_line_this_process_has_never_seen_leads_to_the_voicemail(client: Client, call: CallSession) -> None:
    lines.forget()
    with nobody_can_write():
        assert "Record" in asks(client, call)


def test_whoever_waits_for_a_person_is_not_given_the_agent(client: Client, call: CallSession) -> None:
    with nobody_can_write():
        by_heart.wish(call.call_sid, "hand-over", at=time.time())
        assert "Record" in asks(client, call)


def test_the_third_loss_within_a_minute_leads_down(client: Client, ledger: DatabaseLedger, call: CallSession) -> None:
    with nobody_can_write():
        for epoch in (0, 1):
            assert opens(ledger, call, asks(client, call, epoch)) is not None
        assert "Record" in asks(client, call, 2)
    all_is_stored()
    call.refresh_from_db()
    assert (call.epoch, call.events.filter(kind="conversation-lost").count()) == (2, 2)


def test_processes_known_to_be_dead_are_no_losses_of_the_agents_and_the_third_in_a_row_leads_down(
    client: Client, ledger: DatabaseLedger, call: CallSession, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.VAPI_BACKUP_API_KEY = "backup-key"
    monkeypatch.setattr(the_machine(), "is_gone", lambda place: place == "here 7")
    with nobody_can_write():
        for epoch in (0, 1, 2):
            by_heart.carries(by_heart.Stream(call.call_sid, epoch, ACCOUNT, "here 7", call.short_id))
            document = asks(client, call, epoch)
            if epoch < 2:
                assert asks(client, call, epoch) == document, "a repeat gets the same bytes"
                assert opens(ledger, call, document) is not None
        assert "Record" in document
        assert by_heart.losses(call.call_sid, at=timezone.now()) == 1, "the one that would be lost now"
    all_is_stored()
    lost = call.events.filter(kind="conversation-lost")
    assert list(lost.values_list("detail__raw", flat=True)) == [resuming.GONE] * 2
    assert set(call.vapi_sessions.values_list("account", flat=True)) == {VapiAccount.MAIN}
    assert resuming.losses(CallSession.objects.get(pk=call.pk), timezone.now()) == 1


@pytest.mark.parametrize(("why", "raw"), [("stream-lost", "stream-lost"), ("", "")])
def test_what_was_said_of_a_stream_stands_and_a_process_that_may_be_there_is_not_taken_for_dead(
    client: Client, call: CallSession, why: str, raw: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(the_machine(), "is_gone", lambda place: bool(why))
    with nobody_can_write():
        by_heart.carries(by_heart.Stream(call.call_sid, 0, ACCOUNT, "here 7", call.short_id))
        if why:
            by_heart.closed(call.call_sid, 0, why)
        assert "/resume/1" in asks(client, call)
        assert by_heart.losses(call.call_sid, at=timezone.now(), counts=False) == 1
    by_heart.enter(call.call_sid)
    assert call.events.get(kind="conversation-lost").detail["raw"] == raw


def test_a_death_of_which_only_the_rows_know_is_one_when_they_are_written(client: Client, call: CallSession) -> None:
    """It stood still, and another process has its calls."""
    CallSession.objects.filter(pk=call.pk).update(held_by=uuid.uuid4(), carried_by=uuid.uuid4())
    with nobody_can_write():
        assert "/resume/1" in asks(client, call)
    by_heart.enter(call.call_sid)
    assert call.events.get(kind="conversation-lost").detail["raw"] == resuming.GONE


def test_a_stream_that_does_not_come_leads_down(client: Client, call: CallSession, monkeypatch: pytest.MonkeyPatch) -> None:
    with nobody_can_write():
        asks(client, call)
        monkeypatch.setattr("calls.resuming.OPENS_WITHIN", timedelta(0))
        assert "Record" in asks(client, call, 1)


@pytest.mark.parametrize("is_seen", [False, True])
def test_a_stream_that_was_let_in_by_its_row_has_come_though_it_was_asked_for_by_heart(
    client: Client, call: CallSession, monkeypatch: pytest.MonkeyPatch, is_seen: bool
) -> None:
    """Its process dies as well, and the rows are too busy to say so; the others may have seen that, and written it down."""
    with nobody_can_write():
        document = asks(client, call)
    all_is_stored()
    second = DatabaseLedger(token_key=stream_token.key_from(settings.SECRET_KEY), client=FakeVapi(), deadline_s=5.0, place="here 8")
    assert opens(second, call, document) is not None
    second.close()
    call.refresh_from_db()
    assert (call.epoch, call.stream_epoch) == (1, 1), "by its row"
    monkeypatch.setattr("calls.resuming.OPENS_WITHIN", timedelta(0))
    monkeypatch.setattr(the_machine(), "is_gone", lambda place: place == "here 8")
    if is_seen:
        rescue_by_heart.forget(is_gone=the_machine().is_gone)
    with nobody_can_write():
        assert "/resume/2" in asks(client, call, 1)
    by_heart.enter(call.call_sid)
    assert call.events.filter(kind="conversation-lost").order_by("-seq")[0].detail["raw"] == resuming.GONE


def is_turned_away(ledger: DatabaseLedger, call: CallSession, document: str) -> None:
    """The stream of a document comes to a process that has never seen its line."""
    with pytest.MonkeyPatch.context() as forgetful:
        forgetful.setattr(lines, "remembered", lambda *_, **__: None)
        with pytest.raises(LedgerAway):
            opens(ledger, call, document)
    assert not list((Path(settings.SPOOL_DIR) / "calls").glob(f"{call.call_sid}.stream-*")), "nobody was let in"


def test_a_stream_that_had_to_be_turned_away_is_no_loss_and_three_in_a_row_lead_down(
    client: Client, ledger: DatabaseLedger, call: CallSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    with nobody_can_write():
        is_turned_away(ledger, call, asks(client, call))
        monkeypatch.setattr("calls.resuming.OPENS_WITHIN", timedelta(0))  # it has come all the same
        is_turned_away(ledger, call, asks(client, call, 1))
        document = asks(client, call, 2)
        assert "/resume/3" in document
        assert by_heart.losses(call.call_sid, at=timezone.now()) == 2, "the one before them, and one that is lost now"
        is_turned_away(ledger, call, document)
        assert "Record" in asks(client, call, 3)
    all_is_stored()
    call.refresh_from_db()
    assert (call.epoch, call.events.filter(kind="conversation-lost").count()) == (3, 1)
    assert list(call.events.filter(kind="stream-turned-away").values_list("detail__epoch", flat=True)) == [1, 2]


# -- what else may be -----------------------------------------------------------------------------------------------------


def test_an_agent_that_is_parked_here_is_taken_up_and_no_other_one_is_made(
    client: Client, ledger: DatabaseLedger, vapi: FakeVapi, call: CallSession
) -> None:
    with nobody_can_write():
        by_heart.closed(call.call_sid, 0, "parked")
        admission = opens(ledger, call, asks(client, call))
        assert admission is not None
        assert run(ledger.taken_up(admission.ref))
        assert not by_heart.first(call.call_sid, "claim-100")
    all_is_stored()
    call.refresh_from_db()
    assert (call.epoch, call.stream_epoch, call.rung) == (1, 1, Rung.AI)
    assert list(call.vapi_sessions.values_list("n", "state")) == [(0, VapiState.LIVE)]
    assert sessions.open_sessions(call_sid=call.call_sid) == []
    assert len(vapi.created) == 1


def sent_on_before_the_bridge_could_say(call: CallSession) -> None:
    """A database that is only busy: the door has waited long enough, then the bridge's word on the stream is stored."""
    sid, now = call.call_sid, timezone.now()
    assert resuming_by_heart.elsewhere(call_sid=sid, account_sid=ACCOUNT, to_number=NUMBER, epoch=0, at=now) is not None
    services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing("parked"), at=timezone.now())


def test_a_parked_agent_is_waited_for_also_where_the_door_could_not_know_of_it(
    client: Client, ledger: DatabaseLedger, vapi: FakeVapi, call: CallSession
) -> None:
    sent_on_before_the_bridge_could_say(call)
    document = asks(client, call)
    assert "/resume/1" in document
    call.refresh_from_db()
    assert (call.epoch, call.rung, list(call.vapi_sessions.values_list("n", "state"))) == (1, Rung.AI, [(0, VapiState.LIVE)])
    admission = opens(ledger, call, document)
    assert admission is not None
    assert run(ledger.taken_up(admission.ref))
    assert sessions.open_sessions(call_sid=call.call_sid) == []
    assert len(vapi.created) == 1


def test_two_who_write_down_where_a_call_was_sent_to_write_the_same(client: Client, call: CallSession) -> None:
    """The door and the keeper may both be at it, and the first may have to begin again: nobody has made that session meanwhile."""
    sent_on_before_the_bridge_could_say(call)
    for _ in range(2):
        assert by_heart._write_sent_on(call.call_sid, 1)
    assert list(call.vapi_sessions.values_list("n", flat=True)) == [0]
    assert parked.taken_up(call_sid=call.call_sid, epoch=1, at=timezone.now())


def test_a_database_that_fails_while_it_is_told_where_a_call_was_sent_to_is_told_again(
    call: CallSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent_on_before_the_bridge_could_say(call)
    with monkeypatch.context() as broken:
        broken.setattr("calls.evidence.hold", Mock(side_effect=OperationalError))
        with pytest.raises(OperationalError):
            by_heart.enter(call.call_sid)
    by_heart.enter(call.call_sid)
    assert list(call.vapi_sessions.values_list("n", "state")) == [(0, VapiState.LIVE)]


def test_a_parked_agent_is_waited_for_no_more_when_rows_and_memory_send_its_caller_on(client: Client, call: CallSession) -> None:
    """By the rows for that agent, by heart to one of its own, which is made."""
    services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing("parked"), at=timezone.now())
    assert "/resume/1" in asks(client, call)
    sid, now, account = call.call_sid, timezone.now(), VapiAccount.MAIN
    resuming.elsewhere_by_heart(call_sid=sid, epoch=1, n=100, account=account, raw="", at=now, is_made=True, is_parked=False)
    assert not parked.taken_up(call_sid=sid, epoch=1, at=now)
    call.refresh_from_db()
    assert not parked.is_awaited(call)


def test_a_parked_agent_is_not_taken_up_once_another_one_is_made_for_its_stream(client: Client, call: CallSession) -> None:
    sent_on_before_the_bridge_could_say(call)
    assert by_heart.first(call.call_sid, "claim-100")
    assert "/resume/1" in asks(client, call)
    assert call.vapi_sessions.get(n=100).state == VapiState.CLAIMED
    assert not parked.taken_up(call_sid=call.call_sid, epoch=1, at=timezone.now())
    assert [session.n for session in call.vapi_sessions.filter(pk__in=sessions.open_sessions(call_sid=call.call_sid))] == [0]


def test_a_call_that_the_rows_and_the_memory_of_a_process_both_send_on_has_lost_one_conversation(client: Client, call: CallSession) -> None:
    """Twilio's first question waited too long and is answered by heart; meanwhile the rows have answered the second one."""
    services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing("stream-lost"), at=timezone.now())
    assert "/resume/1" in asks(client, call)
    sid, now, account = call.call_sid, timezone.now(), VapiAccount.MAIN
    resuming.elsewhere_by_heart(call_sid=sid, epoch=1, n=100, account=account, raw="", at=now, is_made=True, is_parked=False)
    assert call.vapi_sessions.get(n=100).state == VapiState.CLAIMED
    assert call.events.filter(kind="conversation-lost").count() == 1


def test_of_a_parked_agent_and_one_that_is_made_the_caller_has_one(client: Client, ledger: DatabaseLedger, call: CallSession) -> None:
    with nobody_can_write():
        admission = opens(ledger, call, asks(client, call))
        assert admission is not None
        is_made(ledger, admission)
        assert not run(ledger.taken_up(admission.ref))
    all_is_stored()


def test_a_process_that_was_sent_on_from_makes_no_other_agent(client: Client, ledger: DatabaseLedger, call: CallSession) -> None:
    ref = CallRef(call.call_sid, 0, call.short_id)
    ledger._by_heart.remember(ref, call)
    with nobody_can_write():
        asks(client, call)
        assert not run(ledger.resume(ref, raw="socket closed with 1006", n=0))
    all_is_stored()


def test_a_caller_who_hangs_up_meanwhile_leaves_a_call_that_is_over_and_an_agent_that_is_known(
    client: Client, ledger: DatabaseLedger, call: CallSession
) -> None:
    with nobody_can_write():
        admission = opens(ledger, call, asks(client, call))
        assert admission is not None
        is_made(ledger, admission)
        assert by_heart.leg_over(call.call_sid, status="completed", at=timezone.now())
    wait_for(lambda: not the_keeper().holds and not list(Path(settings.SPOOL_DIR).rglob("*.leg")))
    call.refresh_from_db()
    assert (call.is_over, call.end_reason, call.epoch) == (True, EndReason.CALLER_HUNG_UP, 1)
    assert len(sessions.open_sessions(call_sid=call.call_sid)) == 2


def test_marks_of_others_are_not_read_as_such_of_a_call(call: CallSession) -> None:
    spooled = Spool(Path(settings.SPOOL_DIR))
    assert not spooled.waits
    (Path(settings.SPOOL_DIR) / "calls").mkdir(parents=True, exist_ok=True)
    (Path(settings.SPOOL_DIR) / "calls" / f".{call.call_sid}.next-1.77.abcd").write_text("{}")
    assert by_heart.enter_all() == 0
