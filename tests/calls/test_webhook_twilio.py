"""Twilio knocks: what is answered, what is written, and what a stranger gets."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connections
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import DjangoAssertNumQueries, Settings
from pytest_django.plugin import DjangoDbBlocker

from agents import lines
from bridge import stream_token
from bridge.ports import Closing
from calls import services
from calls.models import CallSession, InboxMessage, Outcome, Status, VapiSession
from tests.calls import doors
from tests.calls.doors import ACCOUNT_SID, CALL_SID, CALLER, NUMBER, PUBLIC_URL, TOKEN, Remembering, a_line, incoming, knock, tree, verbs

pytestmark = pytest.mark.django_db(transaction=True)

DOOR = "/webhook/twilio"
MEDIA = "wss://voice.example.com/webhook/twilio/media"


@pytest.fixture(autouse=True)
def configured(settings: Settings) -> None:
    settings.PUBLIC_URL = PUBLIC_URL
    settings.TWILIO_AUTH_TOKENS = ["the previous token", TOKEN]
    settings.SECRET_KEY = "tests"
    lines.forget()


@pytest.fixture(autouse=True)
def published() -> Iterator[Remembering]:
    with doors.remembering() as remembered:
        yield remembered


def about(status: str = "in-progress", **more: str) -> dict[str, str]:
    return {"CallSid": CALL_SID, "AccountSid": ACCOUNT_SID, "From": CALLER, "To": NUMBER, "CallStatus": status, **more}


def answered_call(client: Client, **line: Any) -> CallSession:
    a_line(**line)
    knock(client, DOOR, incoming())
    return CallSession.objects.get()


def stream_opened() -> None:
    assert services.admit_stream(call_sid=CALL_SID, account_sid=ACCOUNT_SID, stream_sid="MZ1", epoch=0, at=timezone.now())


def stream_over(why: str) -> None:
    services.stream_closed(call_sid=CALL_SID, epoch=0, closing=Closing(why=why), at=timezone.now())


# -- a call comes in -------------------------------------------------------------------------------------------------------


def test_a_caller_hears_the_disclosure_and_is_streamed_to_us(client: Client, published: Remembering) -> None:
    a_line(disclosure="You are speaking with an AI agent.")
    say, connect, redirect = tree(knock(client, DOOR, incoming()))
    stream = connect[3]
    assert say == ["Say", {}, "You are speaking with an AI agent."]
    assert stream[1] == {"url": MEDIA, "statusCallback": f"{PUBLIC_URL}/webhook/twilio/stream", "statusCallbackMethod": "POST"}
    assert redirect == ["Redirect", {"method": "POST"}, f"{PUBLIC_URL}/webhook/twilio/resume/0"]
    call = CallSession.objects.get()
    assert (call.status, call.call_sid, call.to_number) == (Status.CONNECTING, CALL_SID, NUMBER)
    assert published.tasks == [("start_conversation", (VapiSession.objects.get().pk,))]


def test_the_stream_token_in_the_answer_opens_this_calls_stream(client: Client) -> None:
    a_line()
    parameter = tree(knock(client, DOOR, incoming()))[1][3][3]
    key = stream_token.key_from("tests")
    now = CallSession.objects.get().started_at.timestamp()
    assert parameter[1]["name"] == "token"
    assert stream_token.check(key=key, token=parameter[1]["value"], call_sid=CALL_SID, now=now + 119) == 0


def test_a_repeat_gets_the_same_bytes_and_repairs_a_lost_enqueue(client: Client, published: Remembering) -> None:
    a_line()
    first, second = (knock(client, DOOR, incoming()) for _ in range(2))
    assert first.content == second.content
    assert CallSession.objects.count() == VapiSession.objects.count() == 1
    assert len(published.tasks) == 2
    VapiSession.objects.update(state="claimed")
    assert knock(client, DOOR, incoming()).content == first.content
    assert len(published.tasks) == 2


def test_an_incoming_call_costs_few_queries(client: Client, django_assert_max_num_queries: DjangoAssertNumQueries) -> None:
    a_line(disclosure="You are speaking with an AI agent.")
    with django_assert_max_num_queries(15):  # the begin and the end of the one transaction are two of them
        knock(client, DOOR, incoming())
    kinds = CallSession.objects.get().events.values_list("kind", flat=True)
    assert list(kinds) == ["call-received", "vapi-session-asked", "transcript-final"]


def test_a_number_nobody_answers_is_told_so_politely(client: Client, published: Remembering) -> None:
    assert verbs(knock(client, DOOR, incoming())) == ["Say", "Hangup"]
    assert published.tasks == []
    assert not CallSession.objects.live().exists()


def test_a_line_without_a_published_agent_rings_its_people(client: Client, published: Remembering) -> None:
    a_line(published=False)
    assert verbs(knock(client, DOOR, incoming())) == ["Say", "Dial"]
    assert published.tasks == []
    assert CallSession.objects.get().status == Status.TRANSFERRING


def test_a_repeat_after_the_end_hangs_up(client: Client) -> None:
    answered_call(client)
    knock(client, f"{DOOR}/status", about("completed"))
    assert verbs(knock(client, DOOR, incoming())) == ["Hangup"]


@pytest.mark.parametrize(
    "path", ["", "/status", "/stream", "/resume/0", "/dial/0/tier2", "/whisper/tier2", "/voicemail/0"], ids=lambda path: path or "call"
)
def test_every_door_opens_with_and_without_a_trailing_slash(client: Client, path: str) -> None:
    a_line()
    for door in (f"{DOOR}{path}", f"{DOOR}{path}/"):
        assert knock(client, door, about()).status_code == 200


# -- strangers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/status", "/stream", "/resume/0", "/dial/0/tier2", "/whisper/tier2", "/voicemail/0"])
@pytest.mark.parametrize("shown", ["", "nope", "A" * 28, "A" * 44])
def test_an_unproven_request_gets_one_sentence_and_changes_nothing(client: Client, published: Remembering, path: str, shown: str) -> None:
    a_line()
    answer = knock(client, f"{DOOR}{path}", incoming(CallStatus="completed"), **{"X-Twilio-Signature": shown})
    assert answer.status_code == 403
    assert answer.content == b"This request was not signed by Twilio.\n"
    assert not CallSession.objects.exists()
    assert published.tasks == []
    assert published.hints == []


@pytest.mark.parametrize("changed", ["From", "To", "CallSid", "CallStatus", "StirVerstat"])
def test_a_field_changed_in_flight_is_refused(client: Client, changed: str) -> None:
    fields = incoming()
    signed = doors.signature(DOOR, fields)
    assert knock(client, DOOR, {**fields, changed: fields[changed] + "0"}, **{"X-Twilio-Signature": signed}).status_code == 403


def test_the_host_header_decides_nothing(client: Client) -> None:
    a_line()
    answer = knock(client, DOOR, incoming(), Host="evil.example.net")
    assert tree(answer)[1][3][1]["url"] == MEDIA


def test_a_shared_keys_sha256_is_a_proof_too(client: Client) -> None:
    a_line()
    fields = incoming()
    headers = {
        "X-Twilio-Signature": doors.signature(DOOR, fields, algorithm="HMAC_SHA256"),
        "X-Twilio-Webhooks-Signature-Settings": "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256",
    }
    assert knock(client, DOOR, fields, **headers).status_code == 200


@pytest.mark.parametrize("call_sid", ["", "CA1", "CA" + "g" * 32, "CA" + "a" * 33, "CA" + "a" * 31 + "\n"])
def test_a_signed_form_that_names_no_call_is_malformed(client: Client, call_sid: str) -> None:
    assert knock(client, DOOR, incoming(call_sid)).status_code == 400


def test_bodies_that_are_no_form_or_too_long_are_refused(client: Client) -> None:
    assert client.post(DOOR, data="{}", content_type="application/json").status_code == 400
    assert client.post(DOOR, data={"CallSid": CALL_SID}).status_code == 400  # multipart
    assert client.post(DOOR, data="a=" + "x" * 300_000, content_type=doors.FORM).status_code == 413
    assert client.post(DOOR, data="&".join(f"a{n}=1" for n in range(300)), content_type=doors.FORM).status_code == 400
    assert client.post(DOOR, data=b"a=1", content_type=doors.FORM + "; charset=latin-1").status_code == 400
    assert client.get(DOOR).status_code == 405


def test_without_a_database_twilio_is_sent_to_the_fallback(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(**_: object) -> None:
        raise DatabaseError("gone")

    monkeypatch.setattr(services, "open_call", away)
    answer = knock(client, DOOR, incoming())
    assert answer.status_code == 503
    assert b"gone" not in answer.content


# -- after the stream ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["agent-ended", "caller-left", "hung-up"])
def test_a_stream_that_ended_as_it_should_is_hung_up(client: Client, why: str) -> None:
    answered_call(client)
    stream_opened()
    stream_over(why)
    assert verbs(knock(client, f"{DOOR}/resume/0", about())) == ["Hangup"]
    assert CallSession.objects.get().is_over


@pytest.mark.parametrize("why", ["no-agent", "agent-lost", "drained", "handed-over"])
def test_a_caller_who_is_still_there_is_put_through_to_a_person(client: Client, published: Remembering, why: str) -> None:
    answered_call(client)
    stream_opened()
    stream_over(why)
    say, dial = tree(knock(client, f"{DOOR}/resume/0", about()))
    assert say[2] == "One moment, please."
    assert dial[1] == {
        "action": f"{PUBLIC_URL}/webhook/twilio/dial/0/tier2",
        "method": "POST",
        "timeout": "20",
        "answerOnBridge": "true",
        "timeLimit": "14400",
        "callerId": NUMBER,
    }
    assert dial[3] == ["Number", {"url": f"{PUBLIC_URL}/webhook/twilio/whisper/tier2", "method": "POST"}, "+15550100111"]
    call = CallSession.objects.get()
    assert (call.status, call.rung) == (Status.TRANSFERRING, "R3")
    assert ("end_sessions", (CALL_SID,)) in published.tasks


def test_the_resume_door_gives_a_retry_the_same_answer(client: Client) -> None:
    answered_call(client)
    stream_opened()
    stream_over("agent-lost")
    first, second = (knock(client, f"{DOOR}/resume/0", about()) for _ in range(2))
    assert first.content == second.content


def test_a_stream_of_an_older_epoch_or_an_unknown_call_is_only_hung_up(client: Client) -> None:
    answered_call(client)
    before = list(CallSession.objects.values())
    assert verbs(knock(client, f"{DOOR}/resume/7", about())) == ["Hangup"]
    assert verbs(knock(client, f"{DOOR}/resume/0", about(CallSid="CA" + "b" * 32))) == ["Hangup"]
    assert list(CallSession.objects.values()) == before


def test_nobody_answers_so_the_next_is_rung_and_then_the_voicemail(client: Client) -> None:
    answered_call(client, people=("tier2", "boss"))
    stream_opened()
    stream_over("no-agent")
    knock(client, f"{DOOR}/resume/0", about())
    _, dial = tree(knock(client, f"{DOOR}/dial/0/tier2", about(DialCallStatus="busy")))
    assert dial[3][2] == "+15550100112"
    say, record = tree(knock(client, f"{DOOR}/dial/0/boss", about(DialCallStatus="no-answer")))
    assert say[2].startswith("Nobody is free right now.")
    assert record[1]["action"] == f"{PUBLIC_URL}/webhook/twilio/voicemail/0"
    call = CallSession.objects.get()
    assert (call.status, call.rung) == (Status.VOICEMAIL, "R4")
    knock(client, f"{DOOR}/voicemail/0", about(RecordingDuration="14", RecordingUrl=f"https://api.twilio.com/R/RE{'d' * 32}"))
    call.refresh_from_db()
    assert (call.status, call.end_reason) == (Status.ENDED, "voicemail_left")
    assert InboxMessage.objects.get().body == {"RecordingSid": "RE" + "d" * 32, "RecordingDuration": 14}


def test_without_people_and_voicemail_the_caller_hears_an_apology(client: Client) -> None:
    answered_call(client, people=(), voicemail=False)
    stream_opened()
    stream_over("agent-lost")
    assert verbs(knock(client, f"{DOOR}/resume/0", about())) == ["Say", "Hangup"]
    assert CallSession.objects.get().end_reason == "failed"


def test_a_caller_who_gives_up_while_a_person_is_rung_has_abandoned_the_call(client: Client) -> None:
    answered_call(client, people=("tier2", "boss"))
    stream_opened()
    stream_over("agent-lost")
    knock(client, f"{DOOR}/resume/0", about())
    assert verbs(knock(client, f"{DOOR}/dial/0/tier2", about("completed", DialCallStatus="canceled"))) == ["Hangup"]
    call = CallSession.objects.get()
    assert (call.end_reason, call.outcome) == ("caller_hung_up", Outcome.ABANDONED)


def test_a_caller_who_hangs_up_on_a_person_has_talked_with_one(client: Client) -> None:
    answered_call(client)
    stream_opened()
    stream_over("handed-over")
    knock(client, f"{DOOR}/resume/0", about())
    knock(client, f"{DOOR}/whisper/tier2", {**about(), "CallSid": "CA" + "b" * 32, "ParentCallSid": CALL_SID})
    knock(client, f"{DOOR}/status", about("completed"))
    call = CallSession.objects.get()
    assert (call.end_reason, call.outcome) == ("human_ended", Outcome.HANDED_OVER)


def test_a_person_hears_what_it_is_about_before_the_caller_does(client: Client) -> None:
    call = answered_call(client)
    detail = {"target": "tier2", "reason": "locked account", "summary": "Alex cannot log in."}
    services.ask(call=call, key="k", verb="hand-over", detail=detail, at=timezone.now())
    child = {**about(), "CallSid": "CA" + "b" * 32, "ParentCallSid": CALL_SID}
    assert tree(knock(client, f"{DOOR}/whisper/tier2", child)) == [
        ["Say", {}, "A caller from the support line. locked account Alex cannot log in."]
    ]


def test_a_recording_that_comes_after_the_hang_up_is_still_noted(client: Client) -> None:
    answered_call(client, people=())
    stream_opened()
    stream_over("agent-lost")
    knock(client, f"{DOOR}/resume/0", about())
    knock(client, f"{DOOR}/status", about("completed"))
    for _ in range(2):
        knock(client, f"{DOOR}/voicemail/0", about("completed", RecordingDuration="9", Digits="hangup"))
    call = CallSession.objects.get()
    assert call.events.filter(kind="voicemail-recorded").count() == 1
    assert (call.end_reason, call.outcome) == ("voicemail_left", Outcome.VOICEMAIL)


# -- whole calls, as recorded ----------------------------------------------------------------------------------------------

PATHS = {
    "/twilio/voice/": DOOR,
    "/twilio/fallback/": DOOR,
    "/twilio/call-status/": f"{DOOR}/status",
    "/twilio/recording/": f"{DOOR}/status",
    "/twilio/stream-status/": f"{DOOR}/stream",
    "/twilio/after-stream/": f"{DOOR}/resume/0",
    "/twilio/dial-result/": f"{DOOR}/dial/0/tier2",
    "/twilio/whisper/": f"{DOOR}/whisper/tier2",
    "/twilio/voicemail-done/": f"{DOOR}/voicemail/0",
}
#: what the bridge says of the stream before Twilio asks on; how the call stands after the sequence; the last verb answered to it
SEQUENCES: dict[str, tuple[str, str, str, str]] = {
    "normal_call": ("caller-left", Status.ENDED, "caller_hung_up", "Connect"),
    "assistant_ends_call": ("agent-ended", Status.ENDED, "agent_ended", "Hangup"),
    "caller_hangs_up_before_stream": ("", Status.ENDED, "caller_hung_up", "Connect"),
    "caller_hangs_up_early": ("", Status.ENDED, "caller_hung_up", "Connect"),
    "duplicates_and_reordering": ("", Status.STREAMING, "", "Connect"),
    "fallback_request": ("", Status.CONNECTING, "", "Connect"),
    "recording_status": ("", Status.CONNECTING, "", ""),
    "stream_error_handshake": ("", Status.TRANSFERRING, "", "Dial"),
    "stream_error_midcall": ("", Status.TRANSFERRING, "", "Dial"),
    "transfer_answered": ("handed-over", Status.ENDED, "human_ended", "Hangup"),
    "transfer_busy": ("handed-over", Status.VOICEMAIL, "", "Record"),
    "transfer_failed": ("handed-over", Status.VOICEMAIL, "", "Record"),
    "transfer_no_answer": ("handed-over", Status.VOICEMAIL, "", "Record"),
    "transfer_caller_gives_up": ("handed-over", Status.ENDED, "caller_hung_up", "Dial"),
    "voicemail_done": ("", Status.ENDED, "voicemail_left", "Hangup"),
}


def recorded(name: str) -> list[dict[str, Any]]:
    sequence = json.loads((doors.WIRE / "twilio" / "callbacks" / f"{name}.json").read_text())
    events: list[dict[str, Any]] = sequence["events"] if isinstance(sequence, dict) else sequence
    return events


def test_every_recorded_sequence_is_played() -> None:
    assert {path.stem for path in (doors.WIRE / "twilio" / "callbacks").glob("*.json")} == set(SEQUENCES)


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("twice", [False, True], ids=["once", "everything twice"])
def test_a_recorded_call_ends_as_it_did(client: Client, name: str, twice: bool) -> None:
    closing, status, reason, last_verb = SEQUENCES[name]
    answered_call(client)
    if name == "voicemail_done":
        CallSession.objects.update(status=Status.VOICEMAIL)
    answers: list[HttpResponse] = []
    for event in recorded(name):
        path = PATHS[event["path"].partition("?")[0]]
        if event["params"].get("StreamEvent") == "stream-started":
            stream_opened()
        if event["params"].get("StreamEvent") == "stream-stopped" or path.endswith("resume/0"):
            stream_over(closing) if closing else None
        answers += [knock(client, path, event["params"]) for _ in range(1 + twice)]
    call = CallSession.objects.get()
    assert {answer.status_code for answer in answers} == {200}
    assert (call.status, call.end_reason) == (status, reason)
    spoken = [verb for answer in answers for verb in verbs(answer) if verb != "Redirect"]
    assert (spoken[-1] if spoken else "") == last_verb
    assert call.events.filter(kind="call-ended").count() == (1 if call.is_over else 0)


def test_an_ended_call_ends_its_vapi_sessions_and_wakes_its_stream(client: Client, published: Remembering) -> None:
    answered_call(client)
    stream_opened()
    knock(client, f"{DOOR}/status", about("completed"))
    assert ("end_sessions", (CALL_SID,)) in published.tasks
    assert (CALL_SID, "session") in published.hints


# -- many at once ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def database_file(tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> Iterator[Path]:
    """A database that threads can share as processes do; the in-memory one of the tests has locks of its own kind."""
    handler = connections["default"]
    before = handler.settings_dict["NAME"]
    path = tmp_path / "calls.sqlite3"
    with django_db_blocker.unblock():
        connections["default"].close()
        connections.settings["default"]["NAME"] = str(path)
        del connections["default"]
        call_command("migrate", verbosity=0)
        yield path
        connections["default"].close()
        connections.settings["default"]["NAME"] = before
        connections["default"] = handler


def test_fifty_identical_requests_at_once_make_one_call(database_file: Path, published: Remembering) -> None:
    a_line()
    fields = incoming()
    answers: list[HttpResponse] = []
    start = threading.Barrier(50)

    def ring() -> None:
        start.wait()
        answers.append(knock(Client(), DOOR, fields))
        connections.close_all()

    threads = [threading.Thread(target=ring) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {200}
    assert len(answers) == 50
    assert len({answer.content for answer in answers}) == 1
    assert CallSession.objects.count() == VapiSession.objects.count() == 1
    assert {args for _, args in published.tasks} == {(VapiSession.objects.get().pk,)}


# -- what is not told ------------------------------------------------------------------------------------------------------


def test_no_number_name_token_or_signature_reaches_a_log(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    answered_call(client)
    stream_opened()
    stream_over("agent-lost")
    for path in ("resume/0", "dial/0/tier2", "whisper/tier2", "voicemail/0", "status", "stream"):
        knock(client, f"{DOOR}/{path}", about(CallerName="CanaryName", StreamEvent="stream-error", StreamError="canary words"))
        knock(client, f"{DOOR}/{path}", about(CallerName="CanaryName"), **{"X-Twilio-Signature": "canary-signature"})
    logged = caplog.text + "".join(str(vars(record)) for record in caplog.records if not record.name.startswith("django.db"))
    for canary in (CALLER, CALLER[1:], NUMBER[1:], "CanaryName", "canary", TOKEN, "+15550100111", urlencode({"From": CALLER})):
        assert canary not in logged
