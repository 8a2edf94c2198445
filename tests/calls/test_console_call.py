"""The page of one call beyond its words: why it ended, tools, recordings, what is promised, and Vapi's report."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from django.utils.html import escape

from bridge.errors import TwilioRefused, TwilioUnavailable
from calls import callbacks, ended_reasons
from calls.console import conversation, sound
from calls.console.reader import CallReader
from calls.console.viewer import EVERYTHING
from calls.models import CallSession, Recording, RecordingState, Role, Status, ToolRun, TranscriptLine, VapiSession
from tests.builders import a_call, a_callback, a_person, a_recording, a_report, session_of

pytestmark = pytest.mark.django_db
WAV = b"RIFF" + bytes(range(256)) * 4


@pytest.fixture
def ops(client: Client) -> Client:
    client.force_login(a_person())
    return client


@pytest.fixture
def call() -> CallSession:
    call = a_call(at=timezone.now() - timedelta(minutes=5))
    over = {"status": Status.FINALISED, "ended_at": timezone.now(), "end_reason": "failed", "outcome": "failed", "report": "merged"}
    CallSession.objects.filter(pk=call.pk).update(**over)
    call.refresh_from_db()
    return call


def opened(ops: Client, call: CallSession) -> str:
    return re.sub(r"\s+", " ", ops.get(f"/calls/{call.public_id}/").content.decode())


def a_tool_run(call: CallSession, **fields: Any) -> ToolRun:
    begun: dict[str, Any] = {"tool_call_id": str(ToolRun.objects.count()), "name": "look_up", "started_at": call.started_at}
    return ToolRun.objects.create(call=call, **(begun | fields))


# -- why it ended, tools -----------------------------------------------------------------------------------------------


def test_why_a_call_ended_is_said_in_plain_words_beside_the_vendors_own(ops: Client, call: CallSession) -> None:
    raw = "call.in-progress.error-vapifault-openai-llm-failed-429"
    VapiSession.objects.filter(call=call).update(ended_reason=raw)
    page = opened(ops, call)
    assert "Something failed" in page
    assert ended_reasons.plain(raw).replace("'", "&#x27;") in page
    assert f'<code data-slot="vendor_raw">{raw}</code>' in page


def test_the_last_session_that_ended_says_why(ops: Client, call: CallSession) -> None:
    VapiSession.objects.filter(call=call).update(ended_reason="assistant-ended-call")
    VapiSession.objects.create(call=call, n=1, asked_at=timezone.now(), ended_reason="silence-timed-out")
    VapiSession.objects.create(call=call, n=2, asked_at=timezone.now())
    assert 'data-slot="vendor_raw">silence-timed-out<' in opened(ops, call)


def test_a_session_that_never_began_says_why_the_call_had_no_agent(ops: Client, call: CallSession) -> None:
    VapiSession.objects.filter(call=call).update(state="failed", failure="Vapi refused with 402.")
    assert 'data-slot="vendor_reason">Vapi refused with 402.<' in opened(ops, call)


def test_a_tool_card_shows_what_was_asked_sent_and_answered(ops: Client, call: CallSession) -> None:
    a_tool_run(
        call,
        arguments={"email": "a@example.com", "password": "•••", "nested": {"n": [1, None]}},
        sent={"to": "crm.example", "bytes": 1212, "signed": True, "status": 200},
        result="locked",
        ended_at=call.started_at + timedelta(milliseconds=61),
    )
    page = opened(ops, call)
    assert "email: a@example.com password: ••• nested: {&quot;n&quot;: [1, null]}</dd>" in page
    assert "to crm.example, signed, 1,212 bytes; it answered 200" in page
    assert 'data-slot="result">locked<' in page
    assert "61 ms" in page
    assert 'data-role="tool" data-tone="good"' in page


def test_a_tool_that_failed_says_its_problem_in_red_and_one_without_answer_says_so(ops: Client, call: CallSession) -> None:
    a_tool_run(call, problem="It did not answer in time.", ended_at=call.started_at)
    a_tool_run(call)
    page = opened(ops, call)
    assert 'data-role="tool" data-tone="bad"' in page
    assert '<div class="bad"><dt>Problem</dt><dd data-slot="problem">It did not answer in time.</dd>' in page
    assert 'data-slot="waiting">no answer came<' in page


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ({}, ""),
        ([], ""),
        ({"bytes": 4}, ""),
        ({"to": "a.example"}, "to a.example, not signed"),
        ({"to": "a.example", "signed": True, "bytes": "x", "status": 0}, "to a.example, signed"),
    ],
)
def test_what_was_sent_is_said_as_far_as_it_is_known(sent: Any, words: str) -> None:
    assert conversation.sent_words(sent) == words


def test_odd_values_in_stored_json_break_no_page(ops: Client, call: CallSession) -> None:
    a_tool_run(call, arguments=[1, "two"], sent="x")
    a_report(call, structured=[1], artifacts=[], latencies={"turns": "x", "model": "y"}, costs={"llm": "free"})
    assert ops.get(f"/calls/{call.public_id}/").status_code == 200
    assert conversation.as_text({"half": "\ud83d"}) == '{"half": "?"}'


# -- recordings --------------------------------------------------------------------------------------------------------


class Twilio:
    """An account that answers with `answer`, or raises it."""

    def __init__(self, answer: bytes | Exception) -> None:
        self.answer, self.asked = answer, list[tuple[str, int]]()

    def recording(self, sid: str, max_bytes: int, account_sid: str = "") -> bytes:
        self.asked.append((sid, max_bytes))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def twilio(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes | Exception | None], Twilio]:
    def account(answer: bytes | Exception | None) -> Twilio:
        account = Twilio(answer or b"")
        monkeypatch.setattr("calls.twilio_account.client", lambda: None if answer is None else account)
        return account

    return account


def door(call: CallSession, recording: Recording) -> str:
    return f"/calls/{call.public_id}/recordings/{recording.sid}.wav"


def test_a_recording_is_heard_through_a_door_of_ours(ops: Client, call: CallSession, twilio: Any) -> None:
    account, recording = twilio(WAV), a_recording(call, kind="call", seconds=61)
    assert f'src="{door(call, recording)}"' in opened(ops, call)
    answer = ops.get(door(call, recording))
    assert (answer.status_code, answer.content) == (200, WAV)
    assert answer.headers["Content-Type"] == "audio/wav"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Disposition"] == f'inline; filename="call-{call.public_id.hex[:6]}.wav"'
    assert "no-store" in answer.headers["Cache-Control"]
    assert account.asked == [(recording.sid, sound.MOST_BYTES)]


def test_a_stranger_hears_nothing_and_nobody_is_asked_for_it(client: Client, call: CallSession, twilio: Any) -> None:
    account, recording = twilio(WAV), a_recording(call)
    assert client.get(door(call, recording)).headers["Location"].startswith("/login/")
    assert account.asked == []


@pytest.mark.parametrize(
    ("asked", "status", "said", "part"),
    [
        ("bytes=0-", 206, f"bytes 0-{len(WAV) - 1}/{len(WAV)}", WAV),
        ("bytes=4-7", 206, f"bytes 4-7/{len(WAV)}", WAV[4:8]),
        ("bytes=-3", 206, f"bytes {len(WAV) - 3}-{len(WAV) - 1}/{len(WAV)}", WAV[-3:]),
        ("bytes=1000-99999", 206, f"bytes 1000-{len(WAV) - 1}/{len(WAV)}", WAV[1000:]),
        ("bytes=-99999", 206, f"bytes 0-{len(WAV) - 1}/{len(WAV)}", WAV),
        ("bytes=99999-", 416, f"bytes */{len(WAV)}", b""),
        ("bytes=9-3", 416, f"bytes */{len(WAV)}", b""),
        ("bytes=-0", 416, f"bytes */{len(WAV)}", b""),
        ("bytes=-", 200, None, WAV),
        ("bytes=0-1,4-5", 200, None, WAV),
        ("bytes=a-b", 200, None, WAV),
        ("bytes=" + "9" * 40 + "-", 200, None, WAV),
    ],
)
def test_a_player_that_jumps_ahead_gets_the_part_it_asks_for(asked: str, status: int, said: str | None, part: bytes) -> None:
    answer = sound.in_part(WAV, asked)
    assert (answer.status_code, answer.headers.get("Content-Range"), answer.content) == (status, said, part)


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (None, 503, "no Twilio account in the settings"),
        (TwilioUnavailable("CANARY", status=503), 503, "Try again in a moment"),
        (TwilioRefused("CANARY", status=404), 502, "does not have this recording any more"),
        (TwilioRefused("CANARY", status=401), 502, "does not accept our account"),
        (TwilioRefused("CANARY", status=200), 502, "longer than the 64 MB"),
        (TwilioRefused("CANARY", status=418), 502, "refused to give this recording (418)"),
    ],
)
def test_a_recording_that_cannot_be_had_says_so_in_one_sentence(
    ops: Client, call: CallSession, twilio: Any, answer: Any, status: int, words: str
) -> None:
    twilio(answer)
    said = ops.get(door(call, a_recording(call)))
    assert said.status_code == status
    assert said.headers["Content-Type"].startswith("text/plain")
    assert words in said.content.decode()
    assert "CANARY" not in said.content.decode()


@pytest.mark.parametrize("state", [state for state in RecordingState if state != RecordingState.COMPLETED])
def test_twilio_is_not_asked_for_what_is_not_there(ops: Client, call: CallSession, twilio: Any, state: RecordingState) -> None:
    account = twilio(WAV)
    assert ops.get(door(call, a_recording(call, state=state))).status_code == 404
    assert account.asked == []


def test_a_recording_belongs_to_its_call(ops: Client, call: CallSession, twilio: Any) -> None:
    twilio(WAV)
    recording = a_recording(a_call())
    assert ops.get(door(call, recording)).status_code == 404
    assert ops.get(f"/calls/{call.public_id}/recordings/..%2f..%2fx.wav").status_code == 404


def test_only_so_many_listen_at_once(ops: Client, call: CallSession, twilio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    account, recording = twilio(WAV), a_recording(call)
    monkeypatch.setattr(sound, "WAIT_S", 0.01)
    for _ in range(sound.AT_ONCE):
        assert sound._fetching.acquire(timeout=0)
    try:
        answer = ops.get(door(call, recording))
        assert (answer.status_code, account.asked) == (503, [])
    finally:
        for _ in range(sound.AT_ONCE):
            sound._fetching.release()
    for _ in range(sound.AT_ONCE + 1):
        assert ops.get(door(call, recording)).status_code == 200


# -- promise and report ------------------------------------------------------------------------------------------------


def test_the_page_shows_what_was_promised_and_who_kept_it(ops: Client, call: CallSession) -> None:
    assert 'data-callback="none"' in opened(ops, call)
    asked = a_callback(call, due_in=-timedelta(minutes=1))
    assert 'data-callback="overdue"' in opened(ops, call)
    callbacks.done(pk=asked.pk, by="olga", note="Refunded.", at=timezone.now())
    page = opened(ops, call)
    assert 'data-callback="done"' in page
    assert '<span data-slot="callback_by">olga</span>' in page
    assert "Refunded." in page


def test_vapis_report_is_shown_with_what_an_average_hides(ops: Client, call: CallSession) -> None:
    turns = [{"turn": ms} for ms in (300, 400, 500, 2600)]
    a_report(
        call,
        summary="The caller wanted a refund.",
        success="true",
        structured={"topic": "billing", "refund": {"invoice": "I-1"}},
        artifacts={"stereo-recording": True, "log": False},
        latencies={"turn": 950, "user_interrupted": 2, "turns": turns},
        costs={"llm": 0.0031},
        lines_added=1,
    )
    page = opened(ops, call)
    for words in (
        "The caller wanted a refund.",
        "Evaluation: passed",
        "Kept at Vapi: stereo recording<",
        "1 line came with the report only",
    ):
        assert words in page, words
    table = page.split('data-list="figures">')[1].split("</tbody>")[0]
    cells = re.findall(r'data-slot="\w+">([^<]*)</td>', table)
    rows = [tuple(cells[place : place + 4]) for place in range(0, len(cells), 4)]
    assert rows == [
        ("Output", "topic", "billing", ""),
        ("Output", "refund", "invoice: I-1", ""),
        ("Time", "turn", "950 ms", "average"),
        ("Turns", "user interrupted", "2 ×", ""),
        ("Turns", "turn", "400 ms", "95 of 100 within 2.60 s, 4 turns"),
        ("Cost", "model (llm)", "$0.0031", ""),
    ]


# -- it all appears on the open page -------------------------------------------------------------------------------------


def news_of(reader: CallReader) -> Any:
    news = reader.read()
    assert news is not None
    return news


def test_recordings_reports_and_promises_reach_an_open_page_without_an_event() -> None:
    call = a_call(status=Status.STREAMING)
    reader = CallReader(call.public_id, EVERYTHING)
    news_of(reader)
    recording = a_recording(call, state="in-progress")
    assert [item.slots["state"] for item in news_of(reader).lists["recordings"]] == ["Being recorded"]
    Recording.objects.filter(pk=recording.pk).update(state="completed", seconds=9)
    assert [item.href for item in news_of(reader).lists["recordings"]] == [door(call, recording)]
    asked = a_callback(call)
    assert news_of(reader).head.data["callback"] == "open"
    callbacks.done(pk=asked.pk, by="olga", note="", at=timezone.now())
    assert news_of(reader).head.data["callback"] == "done"
    a_report(call, summary="All is well.")
    assert [item.slots["summary"] for item in news_of(reader).lists["reports"]] == ["All is well."]
    CallSession.objects.filter(pk=call.pk).update(status=Status.ENDED, ended_at=timezone.now(), end_reason="failed", outcome="failed")
    assert news_of(reader).head.slots["state"] == "Failed"
    CallSession.objects.filter(pk=call.pk).update(end_reason="voicemail_left", outcome="voicemail")
    assert news_of(reader).head.slots["state"] == "Voicemail"
    assert reader.read() is None


@pytest.mark.parametrize("still", ["recording", "callback"])
def test_a_page_stays_open_while_something_is_still_to_come(call: CallSession, still: str) -> None:
    assert news_of(CallReader(call.public_id, EVERYTHING)).over
    row: Any = a_recording(call, state="in-progress") if still == "recording" else a_callback(call)
    assert not news_of(CallReader(call.public_id, EVERYTHING)).over
    type(row).objects.filter(pk=row.pk).update(**({"state": "absent"} if still == "recording" else {"done_at": timezone.now()}))
    assert news_of(CallReader(call.public_id, EVERYTHING)).over


def test_a_line_told_again_by_another_leaves_the_page_and_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calls.console.reader.LINES_STILL_CHANGING", 1)
    call = a_call(status=Status.STREAMING)
    said: dict[str, Any] = {"call": call, "role": Role.USER, "at": timezone.now()}
    line = TranscriptLine.objects.create(said="I already", text_hash="h", vendor_ms=1, **said)
    TranscriptLine.objects.create(said="tried that", text_hash="i", vendor_ms=2, **said)
    reader = CallReader(call.public_id, EVERYTHING)
    assert f"line-{line.pk}" in [item.id for item in news_of(reader).lists["lines"]]
    TranscriptLine.everything.filter(pk=line.pk).update(retold=True)
    report = a_report(call)
    assert news_of(reader).gone == (f"line-{line.pk}",)
    assert news_of(CallReader(call.public_id, EVERYTHING, after=99, line=line.pk)).gone == (f"line-{line.pk}",)
    TranscriptLine.everything.filter(pk=line.pk).update(retold=False)
    type(report).objects.update(merged_at=timezone.now())
    news = news_of(reader)
    assert (news.gone, [item.id for item in news.lists["lines"]]) == ((), [f"line-{line.pk}"])


def test_a_line_only_the_report_told_is_marked(call: CallSession, ops: Client) -> None:
    TranscriptLine.objects.create(call=call, role=Role.USER, said="Bye", at=timezone.now(), text_hash="h", from_report=True)
    assert 'data-slot="mark">from the report<' in opened(ops, call)


# -- the admin ---------------------------------------------------------------------------------------------------------


def test_the_admin_shows_the_new_rows_linked_and_lets_nobody_change_them(client: Client, call: CallSession) -> None:
    client.force_login(User.objects.create_superuser("root", password="x"))
    rows: dict[str, Any] = {
        "recording": a_recording(call),
        "callbackrequest": a_callback(call),
        "vapireport": a_report(call, summary="All is well."),
    }
    page = client.get(f"/admin/calls/callsession/{call.pk}/change/").content.decode()
    assert rows["recording"].sid in page
    assert f"/admin/calls/vapireport/{rows['vapireport'].pk}/change/" in page
    for model, row in rows.items():
        for path in (f"/admin/calls/{model}/", f"/admin/calls/{model}/{row.pk}/change/"):
            assert f"/admin/calls/callsession/{call.pk}/change/" in client.get(path).content.decode()
        assert client.get(f"/admin/calls/{model}/add/").status_code == 403
        assert client.post(f"/admin/calls/{model}/{row.pk}/change/", {"note": "x"}).status_code == 403
        assert client.post(f"/admin/calls/{model}/{row.pk}/delete/", {"post": "yes"}).status_code == 403


@pytest.mark.parametrize("model", ["callsession", "recording", "callbackrequest", "vapireport"])
def test_the_admins_empty_lists_say_why(client: Client, model: str) -> None:
    client.force_login(User.objects.create_superuser("root", password="x"))
    said = admin.site._registry[apps.get_model("calls", model)].when_empty  # type: ignore[attr-defined]
    assert escape(said) in client.get(f"/admin/calls/{model}/").content.decode()


def test_the_admins_lists_cost_the_same_for_one_row_and_for_many(client: Client, django_assert_num_queries: Any) -> None:
    client.force_login(User.objects.create_superuser("root", password="x"))
    for rows in (1, 7):
        for _ in range(rows):
            call = a_call()
            a_recording(call)
            a_callback(call)
            a_report(call)
            assert session_of(call)
        for model, cost in (("recording", 6), ("callbackrequest", 4), ("vapireport", 6)):
            with django_assert_num_queries(cost):
                client.get(f"/admin/calls/{model}/")
