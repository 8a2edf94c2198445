from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django.fixtures import Settings

from calls import accounts, circuit, history, sessions
from calls.console import shown
from calls.console.conversation import heard_and_not
from calls.console.policy import POLICY
from calls.console.reader import CallReader, LiveReader
from calls.console.viewer import EVERYTHING
from calls.models import CallMetrics, CallSession, Heard, Role, Status, ToolRun, TranscriptLine, VapiSession
from tests.builders import CALLER, EPOCH, LINE, FakeVapi, a_call, a_person, a_report, session_of

pytestmark = pytest.mark.django_db

PAYLOAD = "<script>document.title='x'</script><img src=x onerror=alert(1)>\"'&{{7*7}}"


@pytest.fixture
def ops(client: Client) -> Client:
    client.force_login(a_person())
    return client


def say(call: CallSession, text: str, *, role: str = Role.USER, ms: int = 1000, n: int = 0) -> TranscriptLine:
    at = call.started_at + timedelta(milliseconds=ms)
    vendor_ms = round(at.timestamp() * 1000)
    assert history.add_line(call=call, vapi_call_id="v", role=role, text=text, vendor_ms=vendor_ms, at=at, n=n)
    return TranscriptLine.objects.latest("pk")


def happen(call: CallSession, kind: str, **detail: Any) -> None:
    history.record_events(call_sid=call.call_sid, events=[history.NewEvent(kind, "bridge", timezone.now(), detail)])


def finished(**fields: Any) -> CallSession:
    call = a_call(at=timezone.now() - timedelta(minutes=5), status=Status.CONNECTING)
    over = {
        "status": Status.FINALISED,
        "ended_at": call.started_at + timedelta(seconds=61),
        "end_reason": "agent_ended",
        "outcome": "resolved",
        "report": "merged",
    }
    CallSession.objects.filter(pk=call.pk).update(**over | fields)
    CallMetrics.objects.update_or_create(
        call=call,
        defaults={"first_audio_ms": 480, "interruptions": 2, "time_to_silence_ms": [120, 210], "audio": {"from_caller": 8000, "new": 7}},
    )
    call.refresh_from_db()
    return call


def texts(items: list[shown.Item], slot: str) -> list[str]:
    return [item.slots[slot] for item in items]


# -- who may look ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/calls/", f"/calls/{uuid.UUID(int=7)}/"])
def test_a_stranger_is_sent_to_the_log_in_and_back(client: Client, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.headers["Location"]) == (302, f"/login/?next={path}")


def test_logging_in_leads_to_the_page_that_was_asked_for(client: Client) -> None:
    a_person(password="right horse")
    assert "do not fit together" in client.post("/login/", {"username": "olga", "password": "wrong"}).content.decode()
    answer = client.post("/login/?next=/calls/", {"username": "olga", "password": "right horse", "next": "/calls/"})
    assert answer.headers["Location"] == "/calls/"


def test_after_the_log_in_nobody_is_sent_to_another_site(client: Client) -> None:
    a_person(password="right horse")
    answer = client.post("/login/", {"username": "olga", "password": "right horse", "next": "https://evil.example/"})
    assert answer.headers["Location"] == "/"


def test_logging_out_takes_a_post(ops: Client) -> None:
    assert ops.get("/logout/").status_code == 405
    assert ops.post("/logout/").headers["Location"] == "/login/"
    assert ops.get("/").status_code == 302


def test_somebody_whose_account_was_closed_is_a_stranger(ops: Client) -> None:
    User.objects.update(is_active=False)
    assert ops.get("/calls/").status_code == 302


@pytest.mark.parametrize("path", ["/", "/calls/"])
def test_pages_only_read(ops: Client, path: str) -> None:
    assert ops.post(path).status_code == 405


def test_every_answer_forbids_inline_script_and_no_page_is_kept_by_a_cache(ops: Client) -> None:
    for path in ("/", "/calls/", f"/calls/{finished().public_id}/", "/login/", "/admin/"):
        answer = ops.get(path)
        assert answer.headers["Content-Security-Policy"] == POLICY
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert "no-store" in answer.headers["Cache-Control"]
    assert "unsafe" not in POLICY


# -- what the pages say ------------------------------------------------------------------------------------------------


def test_empty_pages_say_why_and_what_to_do_next(ops: Client) -> None:
    assert "Nobody is calling right now" in ops.get("/").content.decode()
    assert "No call has come in yet" in ops.get("/calls/").content.decode()
    assert "No call matches" in ops.get("/calls/?outcome=failed").content.decode()
    assert "Nobody is waiting to be called back" in ops.get("/callbacks/").content.decode()
    assert "No caller has left a message" in ops.get("/voicemail/").content.decode()
    assert "Every message has found its call" in ops.get("/messages/").content.decode()
    assert "No message is like that" in ops.get("/messages/?state=waiting").content.decode()


def test_the_list_says_in_plain_words_who_called_and_how_it_ended(ops: Client) -> None:
    call = finished()
    page = ops.get("/calls/").content.decode()
    for words in (CALLER, LINE, f"{call.version}", "Resolved", "Agent", "The agent said goodbye", "1:01", "480 ms"):
        assert words in page, words


def test_a_call_that_never_was_is_not_found(ops: Client) -> None:
    answer = ops.get(f"/calls/{uuid.uuid4()}/")
    assert answer.status_code == 404
    assert "There is nothing here" in answer.content.decode()


def test_what_a_caller_says_stays_text_everywhere(ops: Client) -> None:
    call = finished(from_number="<b>bold</b>")
    say(call, PAYLOAD)
    CallSession.objects.filter(pk=call.pk).update(status=Status.STREAMING, ended_at=None, end_reason="")
    ToolRun.objects.create(call=call, tool_call_id="t", name=PAYLOAD[:60], arguments={PAYLOAD: PAYLOAD}, result=PAYLOAD, started_at=EPOCH)
    for path in ("/", "/calls/", f"/calls/{call.public_id}/"):
        page = ops.get(path).content.decode()
        assert "<b>bold" not in page
        assert "<script>document" not in page
        assert "<img src=x" not in page
    assert "&lt;script&gt;document" in page


def test_the_call_page_shows_transcript_tools_events_and_figures(ops: Client) -> None:
    call = finished()
    line = say(call, "Open the sign in page and click forgot", role=Role.ASSISTANT, ms=15000)
    TranscriptLine.objects.filter(pk=line.pk).update(heard=Heard.PART, heard_text="Open the sign in")
    ToolRun.objects.create(
        call=call,
        tool_call_id="t",
        name="get_user_account",
        arguments={"email": "a@example.com"},
        result="locked",
        started_at=call.started_at + timedelta(seconds=24),
        ended_at=call.started_at + timedelta(seconds=24, milliseconds=61),
    )
    happen(call, "interruption-evidence", told="speech", by="webhook", interruption="0.3")
    happen(call, "tts-buffer-flushed", cancelled_ms=340, interruption="0.3")
    happen(call, "caller-hears-silence", ms=40, interruption="<b>0.3")
    page = ops.get(f"/calls/{call.public_id}/").content.decode()
    for words in (
        '<del data-slot="unheard">page and click forgot</del>',
        "email: a@example.com",
        "61 ms",
        "interruption-evidence: speech, by the webhook · interruption 0.3",
        "TTS buffer flushed (340ms audio cancelled) · interruption 0.3",
        "caller-hears-silence (40ms after the caller spoke)<",
        "each: 120 ms, 210 ms",
        "1.00 s",
        "new",
        "complete",
    ):
        assert words in page, words


def test_addresses_that_open_a_call_are_on_no_page(ops: Client) -> None:
    call = a_call(status=Status.STREAMING)
    VapiSession.objects.filter(call=call).update(state="live", socket_url="wss://v/CAPABILITY", control_url="https://v/CAPABILITY")
    User.objects.update(is_staff=True, is_superuser=True)
    for path in ("/", f"/calls/{call.public_id}/", f"/admin/calls/callsession/{call.pk}/change/"):
        assert "CAPABILITY" not in ops.get(path).content.decode()


# -- what it costs -----------------------------------------------------------------------------------------------------


def _busy(calls: int, lines: int) -> CallSession:
    for number in range(calls):
        call = finished() if number % 2 else a_call(status=Status.STREAMING)
        for place in range(lines):
            say(call, f"line {place}", ms=1000 * place)
            happen(call, "tts-buffer-flushed", cancelled_ms=1)
        for place in range(lines):
            ToolRun.objects.create(call=call, tool_call_id=f"{call.pk}-{place}", name="t", started_at=call.started_at)
    return call


def _pages(call: CallSession) -> list[str]:
    return ["/", "/calls/", f"/calls/{call.public_id}/", "/admin/calls/callsession/", f"/admin/calls/callsession/{call.pk}/change/"]


def test_a_page_costs_the_same_queries_for_one_call_and_for_many(ops: Client, django_assert_num_queries: Any) -> None:
    User.objects.update(is_staff=True, is_superuser=True)
    few = _busy(2, 1)
    costs = []
    for path in _pages(few):
        with CaptureQueriesContext(connection) as counted:
            ops.get(path)
        costs.append(len(counted))
    many = _busy(12, 9)
    for path, cost in zip(_pages(many), costs, strict=True):
        with django_assert_num_queries(cost):
            ops.get(path)


def test_the_console_pages_cost_few_queries(ops: Client, django_assert_num_queries: Any) -> None:
    call = _busy(4, 3)
    log_in = 5  # session and user, their permissions and those of their role, and their teams
    told = 6  # to the audit trail, at the first look in five minutes
    way_around = 1  # how many call backs are still to do
    for path, cost in (("/", 6), ("/calls/", 4), (f"/calls/{call.public_id}/", 10 + told), (f"/calls/{call.public_id}/", 10 + 1)):
        with django_assert_num_queries(log_in + way_around + cost):
            ops.get(path)


# -- reading from a cursor ---------------------------------------------------------------------------------------------


def test_a_reader_gives_every_row_once_and_then_nothing(django_assert_num_queries: Any) -> None:
    call = a_call(status=Status.STREAMING)
    say(call, "first")
    reader = CallReader(call.public_id, EVERYTHING)
    news = reader.read()
    assert news is not None
    assert texts(news.lists["lines"], "heard")[-1] == "first"
    with django_assert_num_queries(1):
        assert reader.read() is None
    say(call, "second", ms=2000)
    more = reader.read()
    assert more is not None
    assert texts(more.lists["lines"], "heard") == ["second"]
    assert texts(more.lists["events"], "words") == ['transcript-final: "second"']


def test_a_page_that_comes_back_reads_on_at_its_cursor() -> None:
    call = a_call(status=Status.STREAMING)
    for number in range(30):
        say(call, f"line {number}", ms=1000 * number)
    first = CallReader(call.public_id, EVERYTHING).read()
    assert first is not None
    say(call, "while you were away", ms=40_000)
    news = CallReader(call.public_id, EVERYTHING, after=first.after, line=first.line).read()
    assert news is not None
    assert texts(news.lists["events"], "words") == ['transcript-final: "while you were away"']
    assert "while you were away" in texts(news.lists["lines"], "heard")
    assert len(news.lists["lines"]) <= 20


@pytest.mark.parametrize("reported", [False, True])
def test_long_calls_come_in_portions_without_a_gap(monkeypatch: pytest.MonkeyPatch, reported: bool) -> None:
    monkeypatch.setattr("calls.console.reader.EVENTS_AT_ONCE", 10)
    monkeypatch.setattr("calls.console.reader.LINES_AT_ONCE", 7)
    monkeypatch.setattr("calls.console.reader.LINES_STILL_CHANGING", 3)
    call = a_call(status=Status.STREAMING)
    for number in range(45):
        say(call, f"line {number}", ms=1000 * number)
    if reported:
        a_report(call)
    reader, lines, events = CallReader(call.public_id, EVERYTHING), set(), []
    while (news := reader.read()) is not None:
        lines |= {item.id for item in news.lists["lines"]}
        events += [item.order[0] for item in news.lists["events"]]
    assert events == list(range(1, len(events) + 1))
    assert len(lines) == TranscriptLine.objects.filter(call=call).count()
    assert len(events) == call.events.count()


def test_how_much_was_heard_reaches_a_page_that_has_the_line_already() -> None:
    call = a_call(status=Status.STREAMING)
    line = say(call, "one two three four", role=Role.ASSISTANT)
    reader = CallReader(call.public_id, EVERYTHING)
    reader.read()
    TranscriptLine.objects.filter(pk=line.pk).update(heard=Heard.PART, heard_text="one two")
    happen(call, "agent-speech-stopped")
    news = reader.read()
    assert news is not None
    assert [(item.id, item.slots["heard"], item.slots["unheard"]) for item in news.lists["lines"]] == [
        (f"line-{line.pk}", "one two", "three four")
    ]


def test_a_finalised_call_is_over_and_one_whose_report_is_missing_is_not() -> None:
    done, waiting = (
        CallReader(finished().public_id, EVERYTHING).read(),
        CallReader(finished(status=Status.ENDED).public_id, EVERYTHING).read(),
    )
    assert done is not None
    assert waiting is not None
    assert (done.over, waiting.over) == (True, False)


def test_tool_calls_stand_between_what_was_said_before_and_after() -> None:
    call = a_call(status=Status.STREAMING)
    say(call, "after", role=Role.ASSISTANT, ms=9000)
    say(call, "before", ms=3000)
    ToolRun.objects.create(call=call, tool_call_id="t", name="look_up", started_at=call.started_at + timedelta(seconds=5))
    news = CallReader(call.public_id, EVERYTHING).read()
    assert news is not None
    order = [item.slots.get("heard") or item.slots.get("name") for item in news.lists["lines"]]
    assert order[-3:] == ["before", "look_up", "after"]


def test_the_live_list_changes_when_a_call_comes_speaks_and_ends() -> None:
    reader = LiveReader(EVERYTHING)
    assert reader.read() is not None
    assert reader.read() is None
    call = a_call(status=Status.STREAMING)
    say(call, "hello there")
    came = reader.read()
    assert came is not None
    assert [(row.slots["state"], row.slots["last_words"]) for row in came.lists["live"]] == [("Talking", "hello there")]
    CallSession.objects.filter(pk=call.pk).update(status=Status.ENDED, ended_at=timezone.now(), end_reason="failed", outcome="failed")
    ended = reader.read()
    assert ended is not None
    assert ended.lists["live"] == []
    assert texts(ended.lists["recent"], "state") == ["Failed"]
    assert ended.head is not None
    assert (ended.head.slots["live"], ended.head.slots["failed"]) == ("0", "100 %")


def test_the_live_page_says_that_vapi_has_no_free_line_until_it_carries_more(settings: Settings) -> None:
    settings.MAX_CALLS = 5
    refused, taken = session_of(a_call()), session_of(a_call())
    now = timezone.now()
    reader = LiveReader(EVERYTHING, clock=lambda: now)
    said = reader.read()
    assert said is not None
    assert said.head is not None
    assert said.head.slots["vapi"] == ""
    accounts.refused("main", circuit.LINES, at=now, besides=refused.pk)
    said = reader.read()
    assert said is not None
    assert said.head is not None
    assert (said.head.slots["vapi"], said.head.slots["vapi_since"]) == ("Vapi has no free line for us", shown.stamp(now))
    assert said.head.slots["vapi_instead"] == "It carried 1 call. Who comes now waits in the queue."
    for session in (refused, taken):
        sessions.start_conversation(vapi_session_pk=session.pk, by="worker", client=FakeVapi())
    said = reader.read()
    assert said is not None
    assert said.head is not None
    assert said.head.slots["vapi"] == ""


# -- words and numbers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ms", "said"), [(None, "–"), (-5, "0:00"), (999, "0:00"), (61_000, "1:01"), (3_600_000, "1:00:00"), (45_296_000, "12:34:56")]
)
def test_lengths_read_as_on_a_phone_bill(ms: int | None, said: str) -> None:
    assert shown.length(ms) == said


@pytest.mark.parametrize(("ms", "said"), [(0, "0:00.000"), (-4, "−0:00.004"), (63_210, "1:03.210")])
def test_offsets_go_to_the_millisecond(ms: int, said: str) -> None:
    assert shown.offset(ms) == said


def test_percentiles_are_values_that_occurred() -> None:
    assert shown.percentile([], 50) is None
    assert shown.percentile([5], 95) == 5
    assert shown.percentile([4, 1, 3, 2], 50) == 2
    assert shown.percentile(range(1, 101), 95) == 95


@pytest.mark.parametrize(
    ("heard", "heard_text", "expected"),
    [
        (Heard.FULL, "", ("one two three", "")),
        (Heard.NONE, "", ("", "one two three")),
        (Heard.PART, "one two", ("one two", "three")),
        (Heard.PART, "One, two", ("one two", "three")),
        (Heard.PART, "", ("", "one two three")),
    ],
)
def test_a_line_falls_into_what_was_heard_and_what_was_not(heard: str, heard_text: str, expected: tuple[str, str]) -> None:
    assert heard_and_not(TranscriptLine(said="one two three", heard=heard, heard_text=heard_text)) == expected


def test_a_jump_of_the_wall_clock_makes_no_negative_call() -> None:
    call = finished()
    call.ended_at = call.started_at - timedelta(hours=1)
    assert shown.length(shown.duration_ms(call)) == "0:00"


# -- the admin ---------------------------------------------------------------------------------------------------------


def test_the_admin_changes_no_history(client: Client) -> None:
    client.force_login(User.objects.create_superuser("root", password="x"))
    call = finished()
    assert client.get("/admin/calls/callsession/add/").status_code == 403
    assert client.post(f"/admin/calls/callsession/{call.pk}/delete/", {"post": "yes"}).status_code == 403
    assert client.post(f"/admin/calls/callsession/{call.pk}/change/", {"status": "ended"}).status_code == 403
    assert "delete_selected" not in client.get("/admin/calls/callsession/").content.decode()
    call.refresh_from_db()
    assert call.status == Status.FINALISED


def test_the_admin_shows_the_newest_rows_of_a_long_call(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calls.admin.NEWEST_EVENTS", 4)
    monkeypatch.setattr("calls.admin.NEWEST_LINES", 3)
    client.force_login(User.objects.create_superuser("root", password="x"))
    call = finished()
    for number in range(9):
        say(call, f"sentence number {number}", ms=number)
    page = client.get(f"/admin/calls/callsession/{call.pk}/change/").content.decode()
    assert "sentence number 8" in page
    assert "sentence number 4" not in page
