"""Twilio knocks: what is answered, what is written, and what a stranger gets."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from django.core.management import call_command
from django.db import DatabaseError, InterfaceError, connections
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import DjangoAssertNumQueries, Settings
from pytest_django.plugin import DjangoDbBlocker

from agents import lines
from agents.models import HandoffTarget
from bridge import stream_token
from bridge.ports import Closing
from calls import rescue, services, spoken
from calls.models import CallbackRequest, CallSession, Outcome, Recording, Status, VapiSession
from tests.calls import doors
from tests.calls.doors import ACCOUNT_SID, CALL_SID, CALLER, NUMBER, PUBLIC_URL, TOKEN, Remembering, a_line, incoming, knock, tree, verbs

pytestmark = pytest.mark.django_db(transaction=True)

DOOR = "/webhook/twilio"
MEDIA = "wss://voice.example.com/webhook/twilio/media"
PATHS = [
    *("", "/status", "/fallback", "/stream", "/resume/0", "/dial/0/tier2", "/leg/tier2", "/whisper/tier2"),
    *("/voicemail/0", "/callback/0", "/recording/call", "/recording/voicemail", "/wait/0/1"),
]


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
    assert redirect == ["Redirect", {"method": "POST"}, f"{PUBLIC_URL}/webhook/twilio/resume/0#{spoken.AGAIN}"]
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
    with django_assert_max_num_queries(18):  # the transaction is two of them, whether Vapi takes calls one, a place that is new three
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


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path or "call")
def test_every_door_opens_with_and_without_a_trailing_slash(client: Client, path: str) -> None:
    a_line()
    for door in (f"{DOOR}{path}", f"{DOOR}{path}/"):
        assert knock(client, door, about()).status_code == 200


# -- strangers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
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


def test_the_host_header_decides_nothing(client: Client, settings: Settings) -> None:
    settings.ALLOWED_HOSTS = ["voice.example.com"]
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


def test_who_only_looks_is_told_that_the_door_takes_post(client: Client) -> None:
    answer = client.get(DOOR)
    assert (answer.status_code, answer["Allow"], answer["Content-Type"]) == (405, "POST", "text/plain; charset=utf-8")
    assert answer.content == b"This door takes POST.\n"


def test_without_a_database_twilio_is_sent_to_the_fallback(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(**_: object) -> None:
        raise DatabaseError("gone")

    monkeypatch.setattr(services, "open_call", away)
    answer = knock(client, DOOR, incoming())
    assert answer.status_code == 503
    assert b"gone" not in answer.content


# -- after the stream ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["agent-ended", "hung-up"])
def test_a_stream_that_ended_as_it_should_is_hung_up(client: Client, why: str) -> None:
    answered_call(client)
    stream_opened()
    stream_over(why)
    assert verbs(knock(client, f"{DOOR}/resume/0", about())) == ["Hangup"]
    assert CallSession.objects.get().is_over


@pytest.mark.parametrize("why", ["agent-lost", "drained", "stream-lost", "caller-left"])
def test_a_caller_who_is_still_there_gets_the_agent_back_on_a_new_stream(client: Client, published: Remembering, why: str) -> None:
    answered_call(client, disclosure="You are speaking with an AI agent.", record_calls=True)
    stream_opened()
    stream_over(why)
    first, second = (knock(client, f"{DOOR}/resume/0", about()) for _ in range(2))
    assert first.content == second.content
    connect, redirect = tree(first)  # no disclosure again, and no second recording
    assert (connect[0], redirect[2]) == ("Connect", f"{PUBLIC_URL}/webhook/twilio/resume/1#{spoken.AGAIN}")
    token, key = connect[3][3][1]["value"], stream_token.key_from("tests")
    assert stream_token.check(key=key, token=token, call_sid=CALL_SID, now=timezone.now().timestamp()) == 1
    call = CallSession.objects.get()
    assert (call.status, call.epoch, call.rung) == (Status.CONNECTING, 1, "R1")
    assert ("start_conversation", (VapiSession.objects.get(n=1).pk,)) in published.tasks
    assert ("end_sessions", (CALL_SID,)) in published.tasks


def test_who_is_kept_waiting_by_a_busy_door_hears_a_word_and_has_time_to(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_after: list[rescue.Rescue] = []
    monkeypatch.setattr(rescue.the_life(), "look_after", looked_after.append)
    monkeypatch.setattr(rescue.the_life(), "clock", lambda: 10.0)
    answered_call(client)
    stream_opened()
    stream_over("stream-lost")
    for too_long, said in ((timedelta(seconds=1), []), (timedelta(0), ["Say"])):
        monkeypatch.setattr("calls.webhooks.twilio.KEPT_TOO_LONG", too_long)
        assert verbs(knock(client, f"{DOOR}/resume/0", about())) == [*said, "Connect", "Redirect"]
    due = 13.0 + rescue.IS_BEING_TOLD_S
    assert [job.due for job in looked_after] == [due, due + rescue.SAID_WITHIN_S]


@pytest.mark.parametrize("why", ["no-agent", "handed-over"])
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
    number = {
        "url": f"{PUBLIC_URL}/webhook/twilio/whisper/tier2",
        "method": "POST",
        "statusCallback": f"{PUBLIC_URL}/webhook/twilio/leg/tier2",
        "statusCallbackMethod": "POST",
        "statusCallbackEvent": "initiated ringing answered completed",
    }
    assert dial[3] == ["Number", number, "+15550100111"]
    call = CallSession.objects.get()
    assert (call.status, call.rung) == (Status.TRANSFERRING, "R3")
    assert ("end_sessions", (CALL_SID,)) in published.tasks


def test_the_resume_door_gives_a_retry_the_same_answer(client: Client) -> None:
    answered_call(client)
    stream_opened()
    stream_over("no-agent")
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
    gather, record, silence = tree(knock(client, f"{DOOR}/dial/0/boss", about(DialCallStatus="no-answer")))
    assert [say[2] for say in gather[3:]] == [spoken.LEAVE_A_MESSAGE, "Or press 1, and we will call you back within 4 hours."]
    assert gather[1]["action"] == f"{PUBLIC_URL}/webhook/twilio/callback/0"
    assert record[1]["action"] == f"{PUBLIC_URL}/webhook/twilio/voicemail/0"
    assert record[1]["recordingStatusCallback"] == f"{PUBLIC_URL}/webhook/twilio/recording/voicemail"
    assert silence[2] == spoken.NOTHING_HEARD
    call = CallSession.objects.get()
    assert (call.status, call.rung) == (Status.VOICEMAIL, "R4")
    knock(client, f"{DOOR}/voicemail/0", about(RecordingDuration="14", RecordingUrl=f"https://api.twilio.com/R/RE{'d' * 32}"))
    call.refresh_from_db()
    assert (call.status, call.end_reason) == (Status.ENDED, "voicemail_left")
    assert (call.recordings.get().sid, call.recordings.get().seconds) == ("RE" + "d" * 32, 14)


@pytest.mark.parametrize(
    ("told", "verb", "outcome"),
    [
        ({"DialCallStatus": "busy"}, "Dial", Outcome.UNKNOWN),
        ({"DialCallStatus": "no-answer"}, "Dial", Outcome.UNKNOWN),
        ({"DialCallStatus": "failed"}, "Dial", Outcome.UNKNOWN),
        ({"DialCallStatus": "canceled"}, "Dial", Outcome.UNKNOWN),
        ({"DialCallStatus": "a status of next year"}, "Dial", Outcome.UNKNOWN),
        ({}, "Dial", Outcome.UNKNOWN),
        ({"DialCallStatus": "completed", "DialBridged": "false"}, "Dial", Outcome.UNKNOWN),
        ({"DialCallStatus": "completed", "DialCallDuration": "1"}, "Hangup", Outcome.HANDED_OVER),
        ({"DialCallStatus": "completed", "DialCallDuration": "1", "DialBridged": "true"}, "Hangup", Outcome.HANDED_OVER),
        ({"DialCallStatus": "answered", "DialCallDuration": "600"}, "Hangup", Outcome.HANDED_OVER),
    ],
)
def test_whatever_twilio_tells_of_a_persons_telephone_the_caller_is_helped_on_and_a_retry_gets_the_same(
    client: Client, told: dict[str, str], verb: str, outcome: Outcome
) -> None:
    answered_call(client, people=("tier2", "boss"))
    stream_opened()
    stream_over("no-agent")
    knock(client, f"{DOOR}/resume/0", about())
    answers = [knock(client, f"{DOOR}/dial/0/tier2", about(**told)) for _ in range(2)]
    assert answers[0].content == answers[1].content
    assert verbs(answers[0])[-1] == verb
    assert (b"+15550100112" in answers[0].content) == (verb == "Dial")
    assert CallSession.objects.get().outcome == outcome


def test_without_people_and_voicemail_the_caller_hears_an_apology(client: Client) -> None:
    answered_call(client, people=(), voicemail=False)
    stream_opened()
    stream_over("no-agent")
    assert verbs(knock(client, f"{DOOR}/resume/0", about())) == ["Say", "Hangup"]
    assert CallSession.objects.get().end_reason == "failed"


def test_a_caller_who_gives_up_while_a_person_is_rung_has_abandoned_the_call(client: Client) -> None:
    answered_call(client, people=("tier2", "boss"))
    stream_opened()
    stream_over("no-agent")
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
    stream_over("no-agent")
    knock(client, f"{DOOR}/resume/0", about())
    knock(client, f"{DOOR}/status", about("completed"))
    for _ in range(2):
        knock(client, f"{DOOR}/voicemail/0", about("completed", RecordingDuration="9", RecordingSid="RE" + "d" * 32, Digits="hangup"))
    call = CallSession.objects.get()
    assert call.events.filter(kind="voicemail-recorded").count() == 1
    assert (call.end_reason, call.outcome) == ("voicemail_left", Outcome.VOICEMAIL)


def test_an_ended_call_ends_its_vapi_sessions_and_wakes_its_stream(client: Client, published: Remembering) -> None:
    answered_call(client)
    stream_opened()
    knock(client, f"{DOOR}/status", about("completed"))
    assert ("end_sessions", (CALL_SID,)) in published.tasks
    assert (CALL_SID, "session") in published.hints


# -- the voicemail ---------------------------------------------------------------------------------------------------------


def to_the_voicemail(client: Client, number: str = CALLER) -> list[Any]:
    a_line(people=(), callback_hours=1)
    knock(client, DOOR, incoming(From=number))
    stream_opened()
    stream_over("no-agent")
    return tree(knock(client, f"{DOOR}/resume/0", about(From=number)))


def test_a_caller_who_presses_one_is_called_back(client: Client) -> None:
    gather, *_ = to_the_voicemail(client)
    assert gather[4][2] == "Or press 1, and we will call you back within one hour."
    for _ in range(2):
        say, hang_up = tree(knock(client, f"{DOOR}/callback/0", about(Digits="1")))
        assert (say[2], hang_up[0]) == ("Thank you. We will call you back within one hour. Goodbye.", "Hangup")
    call = CallSession.objects.get()
    assert (call.end_reason, call.outcome, call.callback.done_at) == ("callback_promised", Outcome.CALLBACK, None)


@pytest.mark.parametrize("digits", ["", "2", "#", "11", "1\u0661"])
def test_another_key_leads_to_the_tone_and_promises_nothing(client: Client, digits: str) -> None:
    to_the_voicemail(client)
    assert verbs(knock(client, f"{DOOR}/callback/0", about(Digits=digits))) == ["Say", "Record", "Say"]
    assert not CallbackRequest.objects.exists()
    assert CallSession.objects.get().status == Status.VOICEMAIL


@pytest.mark.parametrize("number", ["anonymous", "client:sam", "+", "", "+0123"])
def test_a_caller_without_a_number_is_offered_a_message_only(client: Client, number: str) -> None:
    say, record, _ = to_the_voicemail(client, number)
    assert (say[2], record[0]) == (spoken.LEAVE_A_MESSAGE, "Record")
    assert verbs(knock(client, f"{DOOR}/callback/0", about(Digits="1"))) == ["Say", "Record", "Say"]
    assert not CallbackRequest.objects.exists()
    knock(client, f"{DOOR}/voicemail/0", about(RecordingDuration="9", RecordingSid="RE" + "d" * 32))
    assert CallbackRequest.objects.get().call.end_reason == "voicemail_left"  # the number may be in the message


@pytest.mark.parametrize("seconds", ["", "-3", "1e3", "9" * 30, "\u0663", "0"])
def test_a_duration_that_is_none_is_no_message(client: Client, seconds: str) -> None:
    to_the_voicemail(client)
    knock(client, f"{DOOR}/voicemail/0", about(RecordingDuration=seconds, RecordingSid="RE" + "d" * 32))
    assert CallSession.objects.get().end_reason == "caller_hung_up"
    assert not Recording.objects.exists()


# -- recordings ------------------------------------------------------------------------------------------------------------


def told_of_recording(client: Client, kind: str, status: str, **more: str) -> None:
    fields = {"CallSid": CALL_SID, "AccountSid": ACCOUNT_SID, "RecordingSid": "RE" + "d" * 32, "RecordingStatus": status, **more}
    assert verbs(knock(client, f"{DOOR}/recording/{kind}", fields)) == []


def test_a_line_that_records_says_so_first_and_notes_it(client: Client) -> None:
    a_line(record_calls=True, disclosure="This call is recorded.")
    say, start, connect, _ = tree(knock(client, DOOR, incoming()))
    assert (say[2], connect[0]) == ("This call is recorded.", "Connect")
    assert start[3][1]["recordingStatusCallback"] == f"{PUBLIC_URL}/webhook/twilio/recording/call"
    told_of_recording(client, "call", "in-progress")
    told_of_recording(client, "call", "completed", RecordingDuration="61")
    call = CallSession.objects.get()
    assert (call.recordings.get().kind, call.recordings.get().state, call.recordings.get().seconds) == ("call", "completed", 61)
    assert call.events.filter(kind="recording-started").count() == 1


@pytest.mark.parametrize("line", [{"record_calls": False}, {"record_calls": True, "disclosure": ""}])
def test_nobody_is_recorded_unless_the_line_says_so_and_the_caller_was_told(client: Client, line: dict[str, Any]) -> None:
    a_line(**line)
    assert "Start" not in verbs(knock(client, DOOR, incoming()))


def test_a_message_is_kept_when_only_its_recording_tells_of_it(client: Client) -> None:
    to_the_voicemail(client)
    told_of_recording(client, "voicemail", "completed", RecordingDuration="7")
    knock(client, f"{DOOR}/status", about("completed"))
    call = CallSession.objects.get()
    assert (call.end_reason, call.callback.done_at) == ("voicemail_left", None)


# -- the fallback ----------------------------------------------------------------------------------------------------------


def failed(door: str, code: str = "11200") -> dict[str, str]:
    return about(ErrorCode=code, ErrorUrl=f"{PUBLIC_URL}{door}")


def fallback(client: Client, door: str, code: str = "11200") -> HttpResponse:
    return knock(client, f"{DOOR}/fallback", failed(door, code))


@pytest.mark.parametrize("known", [True, False])
def test_a_call_whose_first_document_was_lost_goes_to_the_agent_after_all(client: Client, published: Remembering, known: bool) -> None:
    a_line()
    if known:
        knock(client, DOOR, incoming())
    assert verbs(fallback(client, DOOR)) == verbs(fallback(client, DOOR)) == ["Say", "Connect", "Redirect"]
    call = CallSession.objects.get()
    assert (call.status, call.rung) == (Status.CONNECTING, "R0")
    assert call.events.get(kind="fallback-asked").detail == {"door": "twilio-call", "code": "11200"}
    assert published.tasks[-1] == ("start_conversation", (VapiSession.objects.get().pk,))


@pytest.mark.parametrize("code", ["12100", "11750", "", "elephant"])
def test_a_document_twilio_cannot_read_is_not_sent_again(client: Client, code: str) -> None:
    answered_call(client)
    assert verbs(fallback(client, DOOR, code)) == ["Say", "Dial"]
    assert CallSession.objects.get().rung == "R3"


def test_a_caller_whose_way_on_was_lost_is_put_through_to_a_person(client: Client, published: Remembering) -> None:
    answered_call(client)
    stream_opened()
    stream_over("no-agent")
    assert verbs(fallback(client, f"{DOOR}/resume/0")) == ["Say", "Dial"]
    assert ("end_sessions", (CALL_SID,)) in published.tasks


def test_after_a_lost_dial_the_next_person_is_rung_unless_the_first_one_talked(client: Client) -> None:
    answered_call(client, people=("tier2", "boss"))
    stream_opened()
    stream_over("no-agent")
    knock(client, f"{DOOR}/resume/0", about())
    assert tree(fallback(client, f"{DOOR}/dial/0/tier2"))[1][3][2] == "+15550100112"
    child = {**about(), "CallSid": "CA" + "b" * 32, "ParentCallSid": CALL_SID}
    knock(client, f"{DOOR}/leg/boss", child)
    assert verbs(fallback(client, f"{DOOR}/dial/0/boss")) == ["Hangup"]
    assert CallSession.objects.get().end_reason == "human_ended"


def test_a_lost_word_of_the_voicemail_is_no_lost_message_and_no_lost_promise(client: Client) -> None:
    to_the_voicemail(client)
    assert verbs(fallback(client, f"{DOOR}/voicemail/0")) == ["Say", "Hangup"]
    assert CallSession.objects.get().status == Status.VOICEMAIL  # the recording's own word comes yet
    assert tree(fallback(client, f"{DOOR}/callback/0"))[0][2].startswith("Thank you. We will call you back")
    assert CallSession.objects.get().end_reason == "callback_promised"


def test_the_fallback_does_not_start_again_what_is_over_or_not_ours(client: Client) -> None:
    assert verbs(fallback(client, DOOR)) == ["Say", "Hangup"]
    CallSession.objects.all().delete()
    answered_call(client)
    child = {**failed(f"{DOOR}/whisper/tier2"), "CallSid": "CA" + "b" * 32, "ParentCallSid": CALL_SID}
    assert verbs(knock(client, f"{DOOR}/fallback", child)) == ["Say"]
    assert verbs(knock(client, f"{DOOR}/fallback", failed(DOOR) | {"CallStatus": "completed"})) == ["Hangup"]
    assert verbs(fallback(client, DOOR)) == ["Hangup"]
    assert CallSession.objects.get().events.filter(kind="call-ended").count() == 1


@pytest.mark.parametrize("url", ["", "https://[", "https://elsewhere.test/x", "/login/", f"{DOOR}/resume/999999999999999999999", "\u2028"])
def test_whatever_address_failed_the_caller_is_helped_on(client: Client, url: str) -> None:
    answered_call(client)
    assert verbs(knock(client, f"{DOOR}/fallback", about(ErrorCode="11200", ErrorUrl=url))) == ["Say", "Dial"]


@pytest.mark.parametrize("problem", [DatabaseError, InterfaceError])  # the second is no kind of the first
def test_without_a_database_the_fallback_rings_the_lines_people_from_memory(
    client: Client, monkeypatch: pytest.MonkeyPatch, problem: type[Exception]
) -> None:
    a_line(people=("tier2", "boss"))
    lines.warm()

    def away(*_: object, **__: object) -> None:
        raise problem("gone")

    monkeypatch.setattr(services, "open_call", away)
    monkeypatch.setattr(lines, "_read", away)
    rung = [tree(fallback(client, f"{DOOR}{door}")) for door in ("", "/dial/0/tier2", "/dial/0/boss")]
    assert [rung[0][1][3][2], rung[1][1][3][2]] == ["+15550100111", "+15550100112"]
    assert [verb[0] for verb in rung[2]] == ["Say", "Record", "Say"]
    assert tree(fallback(client, f"{DOOR}/resume/2"))[1][1]["action"].endswith("/dial/2/tier2")
    assert tree(fallback(client, f"{DOOR}/dial/3/tier2"))[1][1]["action"].endswith("/dial/3/boss")
    lines.forget()
    assert verbs(fallback(client, DOOR)) == ["Say", "Record", "Say"]


def test_a_refused_number_is_not_rung_from_memory_either(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    a_line(people=("tier2", "boss"))
    HandoffTarget.objects.filter(slug="tier2").update(number="+19005551234")
    lines.warm()

    def away(*_: object, **__: object) -> None:
        raise DatabaseError("gone")

    monkeypatch.setattr(services, "open_call", away)
    assert tree(fallback(client, DOOR))[1][3][2] == "+15550100112"


# -- early and odd ends ----------------------------------------------------------------------------------------------------


def test_a_hang_up_that_overtakes_the_first_webhook_ends_the_call_before_it_begins(client: Client, published: Remembering) -> None:
    a_line()
    knock(client, f"{DOOR}/status", about("completed"))
    assert verbs(knock(client, DOOR, incoming())) == ["Hangup"]
    call = CallSession.objects.get()
    assert (call.end_reason, call.outcome) == ("caller_hung_up", Outcome.ABANDONED)
    assert ("start_conversation") not in [name for name, _ in published.tasks]


@pytest.mark.parametrize("about_it", [about("in-progress"), about("completed", To="+15550100999")])
def test_other_news_of_an_unknown_call_makes_none(client: Client, about_it: dict[str, str]) -> None:
    a_line()
    knock(client, f"{DOOR}/status", about_it)
    assert not CallSession.objects.exists()


def test_a_stream_error_is_noted_once_and_has_the_stream_look(client: Client, published: Remembering) -> None:
    answered_call(client)
    stream_opened()
    for _ in range(2):
        knock(client, f"{DOOR}/stream", about(StreamEvent="stream-error", StreamError="31924 Stream - Websocket - Protocol Error"))
    assert CallSession.objects.get().events.filter(kind="stream-closed", source="twilio").count() == 1
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
    stream_over("no-agent")
    told = {"CallerName": "CanaryName", "StreamEvent": "stream-error", "StreamError": "canary words", "ErrorUrl": "https://canary.test/"}
    for path in PATHS[1:]:
        knock(client, f"{DOOR}{path}", about(**told))
        knock(client, f"{DOOR}{path}", about(CallerName="CanaryName"), **{"X-Twilio-Signature": "canary-signature"})
    logged = caplog.text + "".join(str(vars(record)) for record in caplog.records if not record.name.startswith("django.db"))
    for canary in (CALLER, CALLER[1:], NUMBER[1:], "CanaryName", "canary", TOKEN, "+15550100111", urlencode({"From": CALLER})):
        assert canary not in logged
