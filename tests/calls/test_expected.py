"""Callers who rang just before nobody could read the database any more: their stream is let in all the same, once, and they are greeted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from django.utils import timezone

from agents import lines
from agents import services as services_of_agents
from agents.models import PhoneLine, Rollout, TemplateVersion
from bridge import stream_token
from bridge.ports import Admission, LedgerAway
from calls import by_heart, discretion, orphans, resuming, services, sessions
from calls.ledger import DatabaseLedger
from calls.let_in import is_let_in
from calls.models import CallSession, Rung, Status, VapiState
from calls.storing import the_keeper
from tests.builders import ACCOUNT, CALLER, a_call, a_line, at_once, call_sid
from tests.calls.doors import NUMBER, PUBLIC_URL, TOKEN, knock
from tests.calls.test_agent_by_heart import agent_of, all_is_stored
from tests.calls.test_keeper import nobody_can_write, wait_for
from tests.calls.vapi_house import House, vapi_house

pytestmark = pytest.mark.django_db(transaction=True)
SID = "CA" + "e" * 32  # whose draw is none of the lowest


@pytest.fixture(autouse=True)
def vendors(settings: Any) -> None:
    settings.PUBLIC_URL, settings.TWILIO_AUTH_TOKENS = PUBLIC_URL, [TOKEN]
    lines.forget()  # another test's line may have had the same id


@pytest.fixture
def vapi() -> Iterator[House]:
    with vapi_house() as house:
        yield house


@contextmanager
def process(vapi: House) -> Iterator[DatabaseLedger]:
    ledger = DatabaseLedger(token_key=stream_token.key_from(settings.SECRET_KEY), client=vapi, deadline_s=5.0)
    yield ledger
    ledger.close()


@pytest.fixture
def ledger(vapi: House) -> Iterator[DatabaseLedger]:
    with process(vapi) as made:
        yield made


def rings(client: Client, sid: str) -> str:
    """What Twilio is told; the worker makes the agent meanwhile."""
    form = {"CallSid": sid, "AccountSid": ACCOUNT, "From": CALLER, "To": NUMBER, "CallStatus": "ringing"}
    return knock(client, "/webhook/twilio", form).content.decode()


@pytest.fixture
def call(client: Client, vapi: House) -> CallSession:
    """Answered from its row, with an agent that waits for the stream."""
    a_line(number=NUMBER)
    lines.warm()
    assert "Stream" in rings(client, SID)
    ringing = CallSession.objects.get(call_sid=SID)
    sessions.start_conversation(vapi_session_pk=ringing.vapi_sessions.get().pk, by="worker", client=vapi)
    return ringing


def opens(ledger: DatabaseLedger, document: str, call: CallSession, *, account_sid: str = ACCOUNT, stream_sid: str = "MZ1") -> Admission:
    token = fromstring(document).find(".//Parameter")
    assert token is not None
    asked = ledger.admit(call_sid=call.call_sid, account_sid=account_sid, stream_sid=stream_sid, token=token.attrib["value"])
    admission = asyncio.run(asked)
    if admission is None:
        raise LedgerAway("refused")
    return admission


@contextmanager
def nobody_can_read() -> Iterator[None]:
    """Whoever opens the database from now on finds no file there. This thread has it open."""
    its = connection.settings_dict  # one for all threads
    there = its["NAME"]
    its["NAME"] = str(Path(there).with_name("nowhere") / "db.sqlite3")
    try:
        yield
    finally:
        its["NAME"] = there


def names_at(vapi: House, call: CallSession, *, running: bool) -> list[str]:
    return sorted(each.name for each in vapi.of(call.call_sid) if each.open == running)


def test_a_caller_who_rang_just_before_is_greeted_and_nothing_was_lost(
    client: Client, ledger: DatabaseLedger, vapi: House, call: CallSession
) -> None:
    document = rings(client, call.call_sid)
    with nobody_can_read():
        admission = opens(ledger, document, call)
        assert (admission.ref.epoch, admission.ref.short_id) == (0, call.short_id)
        agent = agent_of(ledger, admission.ref)
        assert (agent.n, agent.state) == (50, "live")
        wait_for(lambda: names_at(vapi, call, running=True) == [f"{call.call_sid}.50"])
        assert names_at(vapi, call, running=False) == [f"{call.call_sid}.0"], "nobody will come for it"
    all_is_stored()
    wait_for(lambda: call.vapi_sessions.get(n=50).state == VapiState.LIVE)
    call.refresh_from_db()
    assert (call.status, call.epoch, call.stream_epoch, call.rung) == (Status.STREAMING, 0, 0, Rung.AI)
    assert asyncio.run(ledger.conversation(admission.ref)) == agent
    assert not call.events.filter(kind="conversation-lost").exists()
    (first,) = sessions.open_sessions(call_sid=call.call_sid)
    assert sessions.end_session(pk=first, client=vapi, at=timezone.now())


def test_the_agent_that_is_made_begins_as_the_first_one_would_have(
    client: Client, ledger: DatabaseLedger, vapi: House, call: CallSession
) -> None:
    document = rings(client, call.call_sid)
    with nobody_can_read():
        agent_of(ledger, opens(ledger, document, call).ref)
    first, second = sorted(vapi.of(call.call_sid), key=lambda each: len(each.name))
    assert (first.name, second.name) == (f"{call.call_sid}.0", f"{call.call_sid}.50")
    assert second.request["assistant"] == first.request["assistant"]
    assert second.request["assistantOverrides"]["variableValues"] == first.request["assistantOverrides"]["variableValues"]
    all_is_stored()


@pytest.mark.parametrize("first_comes", ["by its row", "without it"])
def test_its_token_is_used_once(first_comes: str, client: Client, ledger: DatabaseLedger, vapi: House, call: CallSession) -> None:
    document = rings(client, call.call_sid)
    if first_comes == "by its row":
        opens(ledger, document, call)
        rings(client, call.call_sid)  # a late repeat of Twilio's question
    with nobody_can_read(), process(vapi) as other:
        if first_comes == "without it":
            opens(ledger, document, call)
        for asked in (ledger, other):
            with pytest.raises(LedgerAway):
                opens(asked, document, call, stream_sid="MZ2")
    all_is_stored()


def test_of_two_streams_that_come_at_once_to_two_processes_one_is_let_in(
    client: Client, ledger: DatabaseLedger, vapi: House, call: CallSession
) -> None:
    document = rings(client, call.call_sid)

    def comes(to: DatabaseLedger) -> bool:
        try:
            return bool(opens(to, document, call))
        except LedgerAway:
            return False

    with nobody_can_read(), process(vapi) as other:
        assert sorted(at_once([lambda: comes(ledger), lambda: comes(other)])) == [False, True]
    all_is_stored()


@pytest.mark.parametrize("why", ["it comes with another account", "its version is not known by heart", "nobody expects it"])
def test_a_stream_is_refused_if(why: str, client: Client, ledger: DatabaseLedger, call: CallSession) -> None:
    document = rings(client, call.call_sid)
    if why == "its version is not known by heart":
        lines.forget()
    if why == "nobody expects it":
        assert by_heart.has_come(call.call_sid)
    account_sid = "AC" + "f" * 32 if why == "it comes with another account" else ACCOUNT
    with nobody_can_read(), pytest.raises(LedgerAway):
        opens(ledger, document, call, account_sid=account_sid)
    assert not is_let_in(call.call_sid, 0)


def test_a_row_that_can_be_read_and_has_no_agent_yet_is_waited_for(client: Client, ledger: DatabaseLedger) -> None:
    """It says who makes one, and may say that another stream was let in."""
    a_line(number=NUMBER)
    lines.warm()
    sid = call_sid()
    document = rings(client, sid)
    with nobody_can_write(), pytest.raises(LedgerAway):
        opens(ledger, document, CallSession.objects.get(call_sid=sid))
    assert by_heart.expected(sid) is not None


def test_a_version_that_answers_calls_since_then_does_not_answer_one_that_rang_before(
    client: Client, ledger: DatabaseLedger, vapi: House, call: CallSession
) -> None:
    """Its lines are kept by the rules of the version that its row names."""
    document, old = rings(client, call.call_sid), call.version
    assert old is not None
    words = {**services_of_agents.words_of(old), "first_message": "Good evening."}
    new = TemplateVersion.objects.create(template=old.template, number=2, name=old.name, published_at=timezone.now(), **words)
    Rollout.objects.filter(version=old).update(share=1)
    Rollout.objects.create(line=PhoneLine.objects.get(number=NUMBER), version=new, share=100)
    lines.warm()
    now = lines.remembered(NUMBER, draw=lines.draw_of(call.call_sid))
    assert now is not None
    assert now.version_id == new.pk
    with nobody_can_read():
        agent_of(ledger, opens(ledger, document, call).ref)
    assert [each.request["assistant"]["firstMessage"] for each in vapi.of(call.call_sid)] == [old.first_message] * 2
    all_is_stored()


def test_what_its_version_leaves_out_is_left_out_by_a_process_that_has_not_met_the_call_before(
    client: Client, ledger: DatabaseLedger
) -> None:
    a_line(number=NUMBER)
    TemplateVersion.objects.update(redact_emails=True)
    lines.warm()
    document = rings(client, SID)
    discretion.forget()
    assert not discretion.rules_of_call(SID).emails
    with nobody_can_read():
        opens(ledger, document, CallSession.objects.get(call_sid=SID))
        assert discretion.rules_of_call(SID).emails
    all_is_stored()


def test_who_does_not_come_is_expected_no_longer_than_a_token_lives(call: CallSession) -> None:
    now = time.time()
    by_heart.forget_old(now=now + stream_token.LIFE_S)
    assert by_heart.expected(call.call_sid) is not None
    by_heart.forget_old(now=now + by_heart.EXPECTED_FOR_S + 1)
    assert by_heart.expected(call.call_sid) is None


# -- the rows afterwards ---------------------------------------------------------------------------------------------------


def sent_on(call: CallSession, n: int) -> None:
    """Another process could read the row all the time, and gave the call its next stream, with session `n`."""
    services.next_epoch(call_sid=call.call_sid, epoch=0)
    sessions.ask_session(call=call, n=n, at=timezone.now())


@pytest.mark.parametrize(("newest", "numbers"), [(1, [0, 1]), (100, [0, 50, 100])])
def test_the_agent_of_a_later_stream_stays_the_newest_one(newest: int, numbers: list[int]) -> None:
    call = a_call()
    sent_on(call, newest)
    resuming.first_by_heart(call_sid=call.call_sid, epoch=0, n=50, at=timezone.now())
    assert list(call.vapi_sessions.order_by("n").values_list("n", flat=True)) == numbers


def test_what_is_stored_twice_is_asked_for_once() -> None:
    call = a_call()
    asked = [resuming.first_by_heart(call_sid=call.call_sid, epoch=0, n=50, at=timezone.now()) for _ in range(2)]
    assert asked == [True, False]
    assert call.vapi_sessions.get(n=50).state == VapiState.CLAIMED
    assert not the_keeper().holds


def test_only_the_agents_of_that_call_with_a_lower_number_are_ended(vapi: House) -> None:
    mine, other = call_sid(), call_sid()
    for name in (f"{mine}.0", f"{mine}.1", f"{mine}.50", f"{other}.0"):
        vapi.create_call({"name": name, "assistant": {}, "transport": {"provider": "vapi.websocket"}})
    since = timezone.now()
    assert orphans.end_unheard(client=vapi, call_sid=mine, below=50, since=since) == 2
    running = [each.name for sid in (mine, other) for each in vapi.of(sid) if each.open]
    assert sorted(running) == sorted([f"{mine}.50", f"{other}.0"])
