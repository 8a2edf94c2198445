"""Vapi knocks: its messages are kept once, its tools are run once, and a stranger gets one sentence."""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import DatabaseError, InterfaceError, OperationalError, connection
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from agents import lines, tools
from agents.tools import ToolAnswer
from calls import history, inbox, services, tool_calls, tool_runs
from calls.console.masked import masked
from calls.models import (
    CallSession,
    EndReason,
    InboxMessage,
    OutboxCommand,
    Status,
    ToolRun,
    TranscriptLine,
    VapiReport,
    VapiSession,
    VapiState,
)
from calls.vapi_kinds import Deed, deed
from calls.vendor_ages import WINDOW_S, VendorAges
from calls.webhooks import vapi as vapi_door
from tests.calls import doors
from tests.calls.doors import ACCOUNT_SID, CALL_SID, CALLER, NUMBER, SECRET, WIRE, Remembering, a_line

pytestmark = pytest.mark.django_db(transaction=True)

DOOR = "/webhook/vapi"
VAPI_ID = "019a9b1c-7f2e-7c33-9d41-2b6f0c5e8a77"
WEBHOOKS = sorted(path.stem for path in (WIRE / "vapi" / "webhooks").glob("*.json"))
LOOKUP = {"name": "lookup_account", "description": "d", "url": "https://crm.example.com/", "parameters": {}, "timeout_s": 4.0}


@pytest.fixture(autouse=True)
def configured(settings: Settings) -> None:
    settings.VAPI_WEBHOOK_SECRETS = ["an older secret", SECRET]
    settings.TOOL_ALLOWED_PRIVATE = []
    lines.forget()


@pytest.fixture(autouse=True)
def published() -> Iterator[Remembering]:
    with doors.remembering() as remembered:
        yield remembered


@pytest.fixture(autouse=True)
def ages(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test's clock is another one's."""
    monkeypatch.setattr(vapi_door, "ages", VendorAges())


class Crm:
    """A tool's address: counts the times it was really asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answer: Callable[[], ToolAnswer] = lambda: ToolAnswer(text="plan pro,\nSSO on", problem="")

    def run(self, tool: Mapping[str, Any], arguments: Mapping[str, Any], **_: Any) -> ToolAnswer:
        self.asked.append((tool["name"], dict(arguments)))
        return self.answer()


@pytest.fixture
def crm(monkeypatch: pytest.MonkeyPatch) -> Crm:
    stand_in = Crm()
    monkeypatch.setattr(tools, "run", stand_in.run)
    return stand_in


@pytest.fixture
def call() -> CallSession:
    """A call whose Vapi session is live."""
    a_line(tools=[LOOKUP])
    opened = services.open_call(sid=CALL_SID, account_sid=ACCOUNT_SID, from_number=CALLER, to_number=NUMBER, at=timezone.now())
    assert opened is not None
    VapiSession.objects.update(
        state=VapiState.LIVE, vapi_call_id=VAPI_ID, live_at=timezone.now(), socket_url="wss://capability", control_url="https://capability"
    )
    return opened


def wire(name: str, **changed: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((WIRE / "vapi" / "webhooks" / f"{name}.json").read_text())
    body["message"] = {**body["message"], **changed}
    return body


def now_ms() -> int:
    return int(time.time() * 1000)


def post(client: Client, body: Any, **headers: str) -> HttpResponse:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.post(DOOR, data=raw, content_type="application/json", headers={"X-Vapi-Secret": SECRET} | headers)
    assert isinstance(answer, HttpResponse)
    return answer


def results(answer: HttpResponse) -> list[dict[str, str]]:
    assert answer.status_code == 200
    given: list[dict[str, str]] = json.loads(answer.content)["results"]
    return given


def asks(*wanted: tuple[str, str, Any]) -> dict[str, Any]:
    """A `tool-calls` message for these (id, name, arguments)."""
    listed = [{"id": id, "type": "function", "function": {"name": name, "arguments": arguments}} for id, name, arguments in wanted]
    return wire("tool-calls.object-arguments", toolCallList=listed, toolWithToolCallList=[])


# -- who may knock ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WEBHOOKS)
@pytest.mark.parametrize("known", [True, False], ids=["known call", "unknown call"])
def test_every_recorded_message_gets_a_200(client: Client, crm: Crm, name: str, known: bool, request: pytest.FixtureRequest) -> None:
    if known:
        request.getfixturevalue("call")
    for _ in range(2):
        assert post(client, wire(name)).status_code == 200
    kind = wire(name)["message"]["type"]
    counted = name == "transcript.partial" or deed(kind) is Deed.COUNTED
    assert InboxMessage.objects.count() == (0 if counted else 1)


@pytest.mark.parametrize("name", WEBHOOKS)
def test_without_the_secret_every_message_is_refused_and_changes_nothing(
    client: Client, call: CallSession, published: Remembering, name: str
) -> None:
    before = list(CallSession.objects.values())
    for shown in ("", "nope", SECRET[:-1], SECRET + " x"):
        answer = post(client, wire(name), **{"X-Vapi-Secret": shown})
        assert (answer.status_code, answer.content) == (403, b"This request was not proven to come from Vapi.\n")
    assert not InboxMessage.objects.exists()
    assert list(CallSession.objects.values()) == before
    assert published.hints == []


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"message": 1}', b'{"message": {"type": 1}}', b'{"message": {"type": "hang", "x": "\\u0000"}}', b"\xff"]
)
def test_what_is_no_message_is_malformed(client: Client, body: bytes) -> None:
    answer = post(client, body)
    assert answer.status_code == 400
    assert answer.content.count(b"\n") == 1


def test_only_a_report_may_be_long(client: Client, call: CallSession) -> None:
    padding = "x" * 300_000
    assert post(client, wire("status-update.ended", padding=padding)).status_code == 413
    assert post(client, wire("end-of-call-report", padding=padding)).status_code == 200
    assert post(client, wire("end-of-call-report", padding="x" * 8_500_000)).status_code == 413


def test_who_only_looks_is_told_that_the_door_takes_post(client: Client) -> None:
    answer = client.get(DOOR)
    assert (answer.status_code, answer.content) == (405, b"This door takes POST.\n")


def test_a_message_may_carry_a_long_conversation_and_is_done_all_the_same(
    client: Client, call: CallSession, crm: Crm, published: Remembering
) -> None:
    spoken = [{"role": "user", "message": "I tried that.", "time": 1_795_342_801_200 + n, "secondsFromStart": n} for n in range(2000)]
    so_far = {"artifact": {"messages": spoken}, "timestamp": now_ms()}
    for name in ("user-interrupted", "conversation-update", "transcript.final"):
        assert post(client, wire(name, **so_far)).status_code == 200
    asked = asks(("call_1", "lookup_account", {}))
    asked["message"] |= so_far
    assert len(json.dumps(asked)) > 150_000
    assert results(post(client, asked))[0]["result"]
    assert [hint for _, hint in published.hints] == ["interrupted"]


@pytest.mark.parametrize("secret", ["an older secret", SECRET])
def test_every_proof_opens_the_door_with_every_secret_in_use(client: Client, call: CallSession, secret: str) -> None:
    body, stamp = json.dumps(wire("hang")).encode(), str(int(time.time()))
    mac = hmac.new(secret.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    for proof in (
        {"X-Vapi-Secret": secret},
        {"Authorization": f"Bearer {secret}"},
        {"X-Timestamp": stamp, "X-Signature": mac},
    ):
        assert post(client, body, **({"X-Vapi-Secret": ""} | proof)).status_code == 200
    forged = {"X-Vapi-Secret": "", "X-Timestamp": stamp, "X-Signature": mac}
    assert post(client, body.replace(b"hang", b"hung"), **forged).status_code == 403


def test_vapi_is_asked_to_send_again_what_could_not_be_stored(client: Client, call: CallSession, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise DatabaseError("gone")

    monkeypatch.setattr(inbox, "keep_all", away)
    monkeypatch.setattr(inbox, "keep", away)
    assert post(client, wire("transcript.final")).status_code == 503
    answered = results(post(client, wire("tool-calls.object-arguments")))
    assert all("error" in result for result in answered)


def _closes_the_cursor(context: Mapping[str, Any]) -> None:
    context["cursor"].close()


def _as_the_driver_says(_: Mapping[str, Any]) -> None:
    """PostgreSQL's, of a cursor that is closed."""
    raise InterfaceError("the cursor is closed")


@pytest.mark.parametrize("cut", [_closes_the_cursor, _as_the_driver_says])
def test_tools_asked_for_over_what_was_closed_are_answered(
    client: Client, call: CallSession, cut: Callable[[Mapping[str, Any]], None]
) -> None:
    def broken(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Mapping[str, Any]) -> Any:
        cut(context)
        return execute(sql, params, many, context)

    asked = wire("tool-calls.object-arguments")
    with connection.execute_wrapper(broken):
        answer = post(client, asked)
    assert answer.status_code == 200
    assert [bool(each["error"]) for each in results(answer)] == [True] * len(asked["message"]["toolCallList"])


# -- what was said ---------------------------------------------------------------------------------------------------------


def test_a_final_line_is_kept_once_however_often_it_is_told(client: Client, call: CallSession) -> None:
    told = wire("transcript.final", transcript=" I already tried that ", role="user", timestamp=1_795_342_809_123)
    later = copy.deepcopy(told)
    later["message"]["call"]["updatedAt"] = "2026-11-22T09:41:00.000Z"
    for body in (told, told, later):
        assert post(client, body).status_code == 200
    assert InboxMessage.objects.count() == 1
    line = TranscriptLine.objects.get(role="user")
    assert (line.said, line.vendor_ms, line.n, line.vapi_call_id) == ("I already tried that", 1_795_342_809_123, 0, VAPI_ID)
    final = call.events.get(kind="transcript-final", source="vapi")
    assert final.detail == {"role": "user", "text": "I already tried that", "vendor_ms": 1_795_342_809_123}


def test_the_same_words_later_are_another_line(client: Client, call: CallSession) -> None:
    for stamp in (1000, 2000, 2001):  # the third is the vendor repeating itself
        post(client, wire("transcript.final-only-type", transcript="Yes.", role="user", timestamp=stamp))
    assert TranscriptLine.objects.filter(said="Yes.").count() == 2


def test_partial_words_are_stored_nowhere(client: Client, call: CallSession) -> None:
    post(client, wire("transcript.partial"))
    assert not InboxMessage.objects.exists()
    assert not TranscriptLine.objects.exclude(role="system").exists()


def test_a_line_that_is_faster_than_the_answer_to_our_create_finds_its_call_by_name(client: Client, call: CallSession) -> None:
    VapiSession.objects.update(state=VapiState.CLAIMED, vapi_call_id=None)
    told = wire("transcript.final", role="user", transcript="Hello?")
    told["message"]["call"]["name"] = f"{CALL_SID}.0"
    post(client, told)
    assert TranscriptLine.objects.get(role="user").call == call
    ended = wire("status-update.ended")
    ended["message"]["call"]["name"] = f"{CALL_SID}.0"
    post(client, ended)
    waiting = InboxMessage.objects.get(processed_at=None)
    VapiSession.objects.update(state=VapiState.LIVE, vapi_call_id=VAPI_ID)
    assert inbox.process(pk=waiting.pk, at=timezone.now())
    assert VapiSession.objects.get().state == VapiState.ENDED


def test_a_strangers_message_is_kept_and_given_up_after_a_while(client: Client) -> None:
    post(client, wire("transcript.final"))
    row = InboxMessage.objects.get()
    assert not inbox.process(pk=row.pk, at=timezone.now())
    assert list(inbox.inbox_to_do(now=timezone.now())) == []
    later = timezone.now() + inbox.GIVE_UP * 2
    assert list(inbox.inbox_to_do(now=later)) == [row.pk]
    assert inbox.process(pk=row.pk, at=later)
    row.refresh_from_db()
    assert row.problem


def test_what_fails_after_the_store_is_answered_200_and_done_later(
    client: Client, call: CallSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(history, "add_lines", lambda _: 1 / 0)
        assert post(client, wire("transcript.final", role="user")).status_code == 200
    row = InboxMessage.objects.get()
    assert row.processed_at is None
    assert inbox.process(pk=row.pk, at=timezone.now())
    assert TranscriptLine.objects.filter(role="user").count() == 1


def test_secrets_a_caller_dictates_are_not_in_the_inbox(client: Client, call: CallSession, crm: Crm) -> None:
    card, password = "4111 1111 1111 1111", "correct horse"
    post(client, asks(("call_1", "lookup_account", json.dumps({"card": card, "password": password}))))
    post(client, asks(("call_2", "lookup_account", {"note": f"the card is {card}", "password": password})))
    report = wire("end-of-call-report", analysis={"summary": f"Paid with {card}.", "structuredData": {"password": password}})
    report["message"]["artifact"]["structuredOutputs"] = {"1": {"name": "Payment", "result": {"card_number": card}}}
    post(client, report)
    stored = json.dumps([list(model.objects.values()) for model in (InboxMessage, VapiReport)], default=str)
    assert card not in stored
    assert password not in stored
    assert InboxMessage.objects.count() == 3
    assert "4111" not in VapiReport.objects.get().summary


@pytest.mark.parametrize("odd", [None, 7, True, ["user"], {"user": 1}, "u" * 100], ids=str)
def test_a_report_with_a_speaker_of_any_kind_is_kept_and_the_others_words_are_told(client: Client, call: CallSession, odd: Any) -> None:
    report = wire("end-of-call-report")
    spoken = [{"role": odd, "message": "Odd.", "time": now_ms()}, {"role": "user", "message": "Hello?", "time": now_ms()}]
    report["message"]["artifact"]["messages"] = spoken
    assert post(client, report).status_code == 200
    assert list(TranscriptLine.objects.filter(from_report=True).values_list("said", flat=True)) == ["Hello?"]
    assert masked({"messages": spoken})["messages"][1]["message"] == "Hello?"


def test_no_prompt_capability_url_or_secret_is_stored(client: Client, call: CallSession, crm: Crm) -> None:
    for name in WEBHOOKS:
        told = wire(name)
        told["message"]["assistant"] = {"server": {"headers": {"X-Vapi-Secret": SECRET}}, "model": {"messages": ["canary prompt"]}}
        post(client, told)
    stored = json.dumps(list(InboxMessage.objects.values_list("body", flat=True)))
    for canary in (SECRET, "canary prompt", "websocketCallUrl", "controlUrl", "/transport"):
        assert canary not in stored


# -- how it goes -----------------------------------------------------------------------------------------------------------


def test_an_interruption_is_hinted_to_the_live_call(client: Client, call: CallSession, published: Remembering) -> None:
    for number, name in enumerate(("speech-update.user-started", "user-interrupted", "speech-update.assistant-started", "hang")):
        told = wire(name, timestamp=now_ms())
        told["message"]["call"]["name"] = (f"{CALL_SID}.0", None)[number % 2]
        post(client, told)
    assert published.hints == [(CALL_SID, "speech"), (CALL_SID, "interrupted")]


@pytest.mark.parametrize("ahead_ms", [-7_200_000, -500, 0, 500, 7_200_000], ids=lambda ms: f"our clock {ms} ms ahead")
@pytest.mark.parametrize(("age_ms", "hinted"), [(0, True), (200, True), (500, False), (60_000, False)])
def test_an_interruption_that_is_over_by_now_cuts_nothing_whatever_our_clock_says(
    client: Client, call: CallSession, published: Remembering, caplog: pytest.LogCaptureFixture, ahead_ms: int, age_ms: int, hinted: bool
) -> None:
    """A refused one is in the log and in a count."""
    caplog.set_level(logging.INFO)
    before = vapi_door.late["interrupted"]
    post(client, wire("speech-update.assistant-started", timestamp=now_ms() - ahead_ms))
    post(client, wire("user-interrupted", timestamp=now_ms() - ahead_ms - age_ms))
    assert bool(published.hints) is hinted
    assert vapi_door.late["interrupted"] - before == (not hinted)
    assert ("A hint came too late" in caplog.text) is not hinted


def test_a_stamp_from_nowhere_spoils_the_hints_of_two_minutes_and_no_more() -> None:
    ages = VendorAges()
    at = [(60.0, 10_000_000), *((float(second), second * 1000) for second in range(61, 200, 10))]
    old = [now for now, stamp_ms in at if ages.age_s("v", stamp_ms, now=now) > 0.4]
    assert old
    assert max(old) < 60.0 + 2 * WINDOW_S
    assert max(old) < at[-1][0]


def test_of_many_calls_the_silent_ones_are_forgotten() -> None:
    ages = VendorAges(most=3)
    for number in range(10):
        ages.age_s(f"v{number}", 1000, now=1.0)
    assert len(ages._seen) == 3


def test_an_interruption_without_a_time_is_taken_for_a_new_one(client: Client, call: CallSession, published: Remembering) -> None:
    for stamp in (None, "soon", 0, -5, 10**15, True):
        post(client, wire("user-interrupted", timestamp=stamp))
    assert [hint for _, hint in published.hints] == ["interrupted"] * 6


@pytest.mark.parametrize("name", ["speech-update.user-started", "user-interrupted"])
def test_an_interruption_is_told_without_the_database(
    client: Client, published: Remembering, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def away(*_: object, **__: object) -> None:
        raise OperationalError("the database is away")

    monkeypatch.setattr(connection, "cursor", away)
    told = wire(name, timestamp=now_ms())
    told["message"]["call"]["name"] = f"{CALL_SID}.0"
    assert post(client, told).status_code == 200
    assert [call_sid for call_sid, _ in published.hints] == [CALL_SID]


def test_an_ended_session_gives_up_its_capability_urls(client: Client, call: CallSession) -> None:
    post(client, wire("status-update.ended"))
    session = VapiSession.objects.get()
    assert (session.state, session.socket_url, session.control_url) == (VapiState.ENDED, "", "")
    assert session.ended_reason == wire("status-update.ended")["message"]["endedReason"]


def test_the_report_brings_the_cost_and_finalises_the_ended_call(client: Client, call: CallSession) -> None:
    services.end_call(call_sid=CALL_SID, at=timezone.now(), reason=EndReason.CALLER_HUNG_UP)
    for _ in range(2):
        post(client, wire("end-of-call-report"))
    call.refresh_from_db()
    assert (call.status, call.report, call.metrics.cost_usd) == (Status.FINALISED, "merged", Decimal("0.0571"))
    kept = InboxMessage.objects.get(kind="end-of-call-report").body
    assert kept["analysis"] == wire("end-of-call-report")["message"]["analysis"]


@pytest.mark.parametrize("cost", [None, "free", True, -1, 1e12, [], {}])
def test_a_report_with_an_impossible_cost_is_still_a_report(client: Client, call: CallSession, cost: Any) -> None:
    post(client, wire("end-of-call-report", cost=cost))
    assert VapiSession.objects.get().cost_usd is None
    assert VapiSession.objects.get().report_at is not None


# -- tools -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tool-calls.object-arguments", "tool-calls.string-arguments", "tool-calls.docs-flat-form"])
def test_all_three_shapes_of_a_tool_call_are_understood(name: str) -> None:
    message = wire(name)["message"]
    [from_list] = tool_calls.asked({**message, "toolWithToolCallList": []})
    [from_pairs] = tool_calls.asked({**message, "toolCallList": []})
    assert from_list == from_pairs
    assert (from_list.id, from_list.name) == ("call_Zp71mBq2", "escalate_to_human")
    assert from_list.arguments["reason"]


def test_a_tool_is_run_and_its_answer_is_one_line(client: Client, call: CallSession, crm: Crm) -> None:
    answered = results(post(client, asks(("call_1", "lookup_account", '{"email": "alex@example.com"}'))))
    assert answered == [{"toolCallId": "call_1", "name": "lookup_account", "result": "plan pro, SSO on"}]
    assert crm.asked == [("lookup_account", {"email": "alex@example.com"})]
    assert [event.kind for event in call.events.filter(kind__startswith="tool-")] == ["tool-called", "tool-answered"]


def test_a_repeated_tool_call_runs_once_and_gets_the_first_answer(client: Client, call: CallSession, crm: Crm) -> None:
    body = asks(("call_1", "lookup_account", {}))
    first = post(client, body)
    crm.answer = lambda: ToolAnswer(text="something else", problem="")
    assert post(client, body).content == first.content
    assert len(crm.asked) == ToolRun.objects.count() == 1


def test_several_tools_run_side_by_side_and_are_answered_in_order(client: Client, call: CallSession, crm: Crm) -> None:
    together = threading.Barrier(3, timeout=4)

    def meet() -> ToolAnswer:
        return ToolAnswer(text=f"met {together.wait() >= 0}", problem="")

    crm.answer = meet
    answered = results(post(client, asks(*((f"call_{n}", "lookup_account", {}) for n in range(3)))))
    assert [result["toolCallId"] for result in answered] == ["call_0", "call_1", "call_2"]
    assert {result["result"] for result in answered} == {"met True"}


def test_a_tool_that_does_not_come_back_is_answered_for(
    client: Client, call: CallSession, crm: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_calls, "DEADLINE_S", 0.2)
    released = threading.Event()

    def never() -> ToolAnswer:
        released.wait(10)
        return ToolAnswer(text="too late", problem="")

    crm.answer = never
    started = time.monotonic()
    [answered] = results(post(client, asks(("call_1", "lookup_account", {}))))
    assert time.monotonic() - started < 3
    released.set()
    assert answered["error"] == "The tool did not answer in time."
    assert results(post(client, asks(("call_1", "lookup_account", {})))) == [answered]


def test_a_tool_whose_runner_died_is_given_up(client: Client, call: CallSession, crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_calls, "DEADLINE_S", 0.1)
    long_ago = timezone.now() - timedelta(minutes=1)
    tool_runs.begin_tool(call=call, tool_call_id="call_1", name="lookup_account", arguments={}, at=long_ago)
    [answered] = results(post(client, asks(("call_1", "lookup_account", {}))))
    assert answered["error"] == "The tool did not answer in time."
    assert crm.asked == []
    assert ToolRun.objects.get().ended_at is not None


@pytest.mark.parametrize("arguments", ['{"a": ', "[]", 7, '"text"', "NaN"])
def test_arguments_nobody_can_read_are_an_answer_too(client: Client, call: CallSession, crm: Crm, arguments: Any) -> None:
    [answered] = results(post(client, asks(("call_1", "lookup_account", arguments))))
    assert "error" in answered
    assert crm.asked == []


def test_a_failing_tool_an_unknown_tool_and_an_unknown_call_are_answered_with_200(client: Client, call: CallSession, crm: Crm) -> None:
    crm.answer = lambda: ToolAnswer(text="", problem="The tool failed.\n(500)")
    [failed] = results(post(client, asks(("call_1", "lookup_account", {}))))
    assert failed["error"] == "The tool failed. (500)"
    crm.answer = lambda: json.loads("")
    [broken] = results(post(client, asks(("call_2", "lookup_account", {}))))
    assert broken["error"] == "The tool failed."
    [unknown] = results(post(client, asks(("call_3", "rm_rf", {}))))
    assert "error" in unknown
    VapiSession.objects.update(vapi_call_id="another")
    [stranger] = results(post(client, asks(("call_4", "lookup_account", {}))))
    assert "error" in stranger


def test_another_calls_tool_answer_is_not_told(client: Client, call: CallSession, crm: Crm) -> None:
    other = CallSession.objects.create(call_sid="CA" + "b" * 32, started_at=timezone.now(), last_seen_at=timezone.now())
    tool_runs.begin_tool(call=other, tool_call_id="call_1", name="lookup_account", arguments={}, at=timezone.now())
    tool_runs.finish_tool(tool_call_id="call_1", result="another caller's account", problem="", at=timezone.now())
    [answered] = results(post(client, asks(("call_1", "lookup_account", {}))))
    assert "account" not in answered["error"]


def test_asking_for_a_person_becomes_one_command_to_the_live_call(client: Client, call: CallSession, published: Remembering) -> None:
    wanted = {"reason": "locked out", "summary": "Alex cannot\nlog in", "target": "tier2"}
    for tool_call_id in ("call_1", "call_2"):
        [answered] = results(post(client, asks((tool_call_id, "transfer_to_human", wanted))))
        assert "Tier2" in answered["result"]
    command = OutboxCommand.objects.get()
    assert (command.verb, command.to) == ("hand-over", "live")
    assert command.detail == {"target": "tier2", "reason": "locked out", "summary": "Alex cannot log in"}
    call.refresh_from_db()
    assert call.rung == "R3"
    assert call.events.filter(kind="handover-requested").exists()
    assert (CALL_SID, "commands") in published.hints


def test_the_person_the_agent_asked_for_is_the_one_who_is_rung(client: Client, call: CallSession) -> None:
    assert call.line is not None
    call.line.handoff.create(slug="boss", name="Boss", number="+15550100112", order=2)
    post(client, asks(("call_1", "transfer_to_human", {"reason": "r", "summary": "s", "target": "boss"})))
    assert OutboxCommand.objects.get().detail["target"] == "boss"


@pytest.mark.parametrize("target", [None, "+15550100999", "nobody", 7])
def test_a_person_the_line_does_not_know_is_never_dialled(client: Client, call: CallSession, target: Any) -> None:
    post(client, asks(("call_1", "transfer_to_human", {"reason": "r", "summary": "s", "target": target})))
    assert OutboxCommand.objects.get().detail["target"] == "tier2"


def test_nobody_to_hand_over_to_is_said_to_the_model(client: Client, call: CallSession) -> None:
    assert call.line is not None
    call.line.handoff.clear()
    call.line.voicemail = False
    call.line.save()
    [answered] = results(post(client, asks(("call_1", "transfer_to_human", {}))))
    assert "error" in answered
    assert not OutboxCommand.objects.exists()


def test_the_agent_may_end_the_call_after_its_goodbye(client: Client, call: CallSession) -> None:
    [answered] = results(post(client, asks(("call_1", "end_call", {}))))
    assert "goodbye" in answered["result"]
    assert OutboxCommand.objects.get().verb == "end-call"


# -- what is not told ------------------------------------------------------------------------------------------------------


def test_every_hit_is_logged_by_kind_time_size_and_answer(client: Client, call: CallSession, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "calls.webhooks.vapi")
    before = vapi_door.told.copy()
    bodies = [json.dumps(wire(name)).encode() for name in ("speech-update.user-started", "status-update.ended")]
    bodies += [b"{", b'{"message": {"type": "something new"}}']
    for body in bodies:
        post(client, body)
    post(client, bodies[0], **{"X-Vapi-Secret": "no"})
    hits = [vars(record) for record in caplog.records if record.getMessage() == "A message of Vapi"]
    kinds = ["speech-update", "status-update", "unreadable", "unknown", "unproven"]
    assert [(hit["kind"], hit["status"]) for hit in hits] == list(zip(kinds, (200, 200, 400, 200, 403), strict=True))
    assert [hit["bytes"] for hit in hits] == [len(body) for body in (*bodies, bodies[0])]
    assert all(0 <= hit["ms"] < 5000 for hit in hits)
    assert vapi_door.told - before == Counter(kinds)


def test_no_word_argument_or_secret_reaches_a_log(client: Client, call: CallSession, crm: Crm, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    crm.answer = lambda: json.loads("canary result")
    post(client, wire("transcript.final", transcript="canary speech", role="user"))
    post(client, wire("transcript.final", transcript="canary speech", role=7))
    post(client, asks(("call_1", "lookup_account", {"email": "canary@example.com"})))
    post(client, {"message": {"type": "canary" * 20}})
    post(client, wire("hang"), **{"X-Vapi-Secret": "canary secret"})
    records = [record for record in caplog.records if not record.name.startswith("django.db")]
    logged = "".join(f"{record.getMessage()} {vars(record)}" for record in records)
    for canary in ("canary", SECRET, "wss://capability", CALLER):
        assert canary not in logged
